/* SPDX-License-Identifier: MIT */
/*
 * guard/calls.c - see calls.h. Sizes are those of the kernel's own structures (64 bits),
 * not of libc's. Of a call whose structures are rare and odd, the pointers are
 * ARG_PLACE: it is made on the memory itself, which is made present first.
 */
#include "guard/calls.h"

#include "base/base.h"
#include "base/kernel.h"

#include <stddef.h>
#include <sys/syscall.h>

/* clang-format off */
#define V      { ARG_VALUE, BY_NONE, 0, 0 }
#define S      { ARG_STRING, BY_NONE, 0, 0 }
#define IN(n)  { ARG_IN, BY_NONE, 0, n }
#define INx(arg, n)  { ARG_IN, arg, 0, n }
#define INi(arg, n)  { ARG_IN, arg | BY_INT, 0, n }
#define OUT(n) { ARG_OUT, BY_NONE, 0, n }
#define OUTx(arg, n) { ARG_OUT, arg, 0, n }
#define OUTi(arg, n) { ARG_OUT, arg | BY_INT, 0, n }
#define RESULT(arg, n) { ARG_RESULT, arg, 0, n }
#define RESULTi(arg, n) { ARG_RESULT, arg | BY_INT, 0, n }
#define LENGTH(arg)    { ARG_LENGTH, arg, 0, 1 }
#define SIZED  { ARG_SIZED, BY_NONE, 0, 0 }
#define PREFIX(n) { ARG_PREFIX, BY_NONE, 0, n }
#define PLACEx(arg, n) { ARG_PLACE, arg, 0, n }
#define PLACE(n) { ARG_PLACE, BY_NONE, 0, n }
#define X      { ARG_SPECIAL, BY_NONE, 0, 0 }

#define CALL(name, ...)     [SYS_##name] = { #name, { __VA_ARGS__ }, NULL }
#define CALL_BY(server, name, ...) [SYS_##name] = { #name, { __VA_ARGS__ }, server }
#define PLAIN(name)         [SYS_##name] = { #name, { V }, NULL }

#define TIMESPEC 16
#define TIMEVAL 16
#define STAT 144
#define RUSAGE 144
#define SIGINFO 128
#define SIGEVENT 64

static const struct call_row rows[CALLS_MAX] = {
#if defined(__x86_64__)
	/* files: bytes */
	CALL_BY(serve_transfer, read, V, X, V),
	CALL_BY(serve_transfer, write, V, X, V),
	CALL_BY(serve_transfer, pread64, V, X, V, V),
	CALL_BY(serve_transfer, pwrite64, V, X, V, V),
	CALL_BY(serve_transfer, readv, V, X, V),
	CALL_BY(serve_transfer, writev, V, X, V),
	CALL_BY(serve_transfer, preadv, V, X, V, V, V),
	CALL_BY(serve_transfer, pwritev, V, X, V, V, V),
	CALL_BY(serve_transfer, preadv2, V, X, V, V, V, V),
	CALL_BY(serve_transfer, pwritev2, V, X, V, V, V, V),
	CALL(sendfile, V, V, OUT(8), V),
	CALL(splice, V, OUT(8), V, OUT(8), V, V),
	CALL(copy_file_range, V, OUT(8), V, OUT(8), V, V),
	CALL_BY(serve_transfer, vmsplice, V, X, V, V),
	PLAIN(tee), PLAIN(lseek), PLAIN(fsync), PLAIN(fdatasync), PLAIN(sync), PLAIN(syncfs),
	PLAIN(sync_file_range), PLAIN(ftruncate), PLAIN(fallocate), PLAIN(fadvise64),
	PLAIN(readahead), PLAIN(flock), PLAIN(close), PLAIN(close_range), PLAIN(dup),
	PLAIN(dup2), PLAIN(dup3),

	/* files: names */
	CALL(open, S), CALL(creat, S), CALL(openat, V, S, V, V), CALL(openat2, V, S, INx(3, 1), V),
	CALL(name_to_handle_at, V, S, PLACE(8), PLACE(4), V), CALL(open_by_handle_at, V, PLACE(8), V),
	CALL(stat, S, OUT(STAT)), CALL(lstat, S, OUT(STAT)), CALL(fstat, V, OUT(STAT)),
	CALL(newfstatat, V, S, OUT(STAT), V), CALL(statx, V, S, V, V, OUT(256)),
	CALL(statfs, S, OUT(120)), CALL(fstatfs, V, OUT(120)), CALL(ustat, V, OUT(32)),
	CALL(access, S), CALL(faccessat, V, S, V), CALL(faccessat2, V, S, V, V),
	CALL(truncate, S), CALL(chdir, S), PLAIN(fchdir), CALL(chroot, S), CALL(pivot_root, S, S),
	CALL(rename, S, S), CALL(renameat, V, S, V, S), CALL(renameat2, V, S, V, S, V),
	CALL(mkdir, S), CALL(mkdirat, V, S, V), CALL(rmdir, S),
	CALL(link, S, S), CALL(linkat, V, S, V, S, V), CALL(symlink, S, S), CALL(symlinkat, S, V, S),
	CALL(unlink, S), CALL(unlinkat, V, S, V), CALL(mknod, S), CALL(mknodat, V, S, V, V),
	CALL(chmod, S), PLAIN(fchmod), CALL(fchmodat, V, S, V), CALL(fchmodat2, V, S, V, V),
	CALL(chown, S), CALL(lchown, S), PLAIN(fchown), CALL(fchownat, V, S, V, V, V),
	CALL(readlink, S, RESULTi(2, 1), V), CALL(readlinkat, V, S, RESULTi(3, 1), V),
	CALL(getcwd, RESULT(1, 1), V),
	CALL(getdents, V, RESULTi(2, 1), V), CALL(getdents64, V, RESULTi(2, 1), V),
	CALL(utime, S, IN(16)), CALL(utimes, S, IN(32)), CALL(futimesat, V, S, IN(32)),
	CALL(utimensat, V, S, IN(32), V), PLAIN(umask),
	CALL(setxattr, S, S, INx(3, 1), V, V), CALL(lsetxattr, S, S, INx(3, 1), V, V),
	CALL(fsetxattr, V, S, INx(3, 1), V, V),
	CALL(getxattr, S, S, RESULT(3, 1), V), CALL(lgetxattr, S, S, RESULT(3, 1), V),
	CALL(fgetxattr, V, S, RESULT(3, 1), V),
	CALL(listxattr, S, RESULT(2, 1), V), CALL(llistxattr, S, RESULT(2, 1), V),
	CALL(flistxattr, V, RESULT(2, 1), V),
	CALL(removexattr, S, S), CALL(lremovexattr, S, S), CALL(fremovexattr, V, S),
	CALL(setxattrat, V, S, V, S, PLACE(16), V), CALL(getxattrat, V, S, V, S, PLACE(16), V),
	CALL(listxattrat, V, S, V, RESULT(4, 1), V), CALL(removexattrat, V, S, V, S),
	CALL(file_getattr, V, S, OUTx(3, 1), V, V), CALL(file_setattr, V, S, INx(3, 1), V, V),
	CALL(cachestat, V, IN(16), OUT(40), V),
	CALL_BY(serve_fcntl, fcntl, V, V, X), CALL_BY(serve_ioctl, ioctl, V, V, X),
	CALL(inotify_add_watch, V, S, V), PLAIN(inotify_init), PLAIN(inotify_init1),
	PLAIN(inotify_rm_watch), PLAIN(fanotify_init), CALL(fanotify_mark, V, V, V, V, S),
	CALL(lookup_dcookie, V, RESULT(2, 1), V),

	/* file systems */
	CALL(mount, S, S, S, V, PREFIX(4096)), CALL(umount2, S, V), CALL(open_tree, V, S, V),
	CALL(open_tree_attr, V, S, V, INx(4, 1), V), CALL(move_mount, V, S, V, S, V), CALL(fsopen, S, V),
	CALL(fsconfig, V, V, S, PLACE(1), V), PLAIN(fsmount), CALL(fspick, V, S, V),
	CALL(mount_setattr, V, S, V, INx(4, 1), V), CALL(statmount, SIZED, OUTx(2, 1), V, V),
	CALL(listmount, SIZED, RESULT(2, 8), V, V), CALL(quotactl, V, S, V, PLACE(1)),
	CALL(quotactl_fd, V, V, V, PLACE(1)), CALL(swapon, S, V), CALL(swapoff, S), CALL(acct, S),
	CALL(sysfs, PLACE(1), PLACE(1), PLACE(1)), CALL(nfsservctl, V, PLACE(1), PLACE(1)),

	/* waiting for files */
	CALL(poll, OUTi(1, 8), V, V), CALL(ppoll, OUTi(1, 8), V, OUT(TIMESPEC), INx(4, 1), V),
	CALL_BY(serve_select, select, V, X, X, X, X), CALL_BY(serve_select, pselect6, V, X, X, X, X, X),
	PLAIN(epoll_create), PLAIN(epoll_create1), CALL(epoll_ctl, V, V, V, IN(12)),
	CALL(epoll_wait, V, RESULTi(2, 12), V, V), CALL(epoll_pwait, V, RESULTi(2, 12), V, V, INx(5, 1), V),
	CALL(epoll_pwait2, V, RESULTi(2, 12), V, IN(TIMESPEC), INx(5, 1), V),
	PLAIN(eventfd), PLAIN(eventfd2), CALL(signalfd, V, INx(2, 1), V), CALL(signalfd4, V, INx(2, 1), V, V),
	PLAIN(timerfd_create), CALL(timerfd_settime, V, V, IN(32), OUT(32)), CALL(timerfd_gettime, V, OUT(32)),
	CALL(io_setup, V, OUT(8)), PLAIN(io_destroy), CALL(io_getevents, V, V, V, RESULT(2, 32), IN(TIMESPEC)),
	CALL(io_pgetevents, V, V, V, RESULT(2, 32), IN(TIMESPEC), IN(16)),
	CALL(io_submit, V, V, PLACE(8)), CALL(io_cancel, V, PLACE(64), PLACE(32)),
	CALL(io_uring_setup, V, OUT(120)), CALL(io_uring_enter, V, V, V, V, INx(5, 1), V),
	CALL(io_uring_register, V, V, PLACE(16), V),

	/* pipes and sockets */
	CALL(pipe, OUT(8)), CALL(pipe2, OUT(8), V), PLAIN(socket), CALL(socketpair, V, V, V, OUT(8)),
	CALL(bind, V, INi(2, 1), V), CALL(connect, V, INi(2, 1), V), PLAIN(listen), PLAIN(shutdown),
	CALL(accept, V, LENGTH(2), OUT(4)), CALL(accept4, V, LENGTH(2), OUT(4), V),
	CALL(getsockname, V, LENGTH(2), OUT(4)), CALL(getpeername, V, LENGTH(2), OUT(4)),
	CALL(setsockopt, V, V, V, INi(4, 1), V), CALL_BY(serve_getsockopt, getsockopt, V, V, V, X, X),
	CALL_BY(serve_transfer, sendto, V, X, V, V, INi(5, 1), V),
	CALL_BY(serve_transfer, recvfrom, V, X, V, V, LENGTH(5), OUT(4)),
	CALL_BY(serve_message, sendmsg, V, X, V), CALL_BY(serve_message, recvmsg, V, X, V),
	CALL_BY(serve_messages, sendmmsg, V, X, V, V), CALL_BY(serve_messages, recvmmsg, V, X, V, V, OUT(TIMESPEC)),

	/* messages and semaphores */
	PLAIN(shmget), PLAIN(shmat), PLAIN(shmdt), CALL(shmctl, V, V, PLACE(112)),
	PLAIN(semget), CALL(semop, V, INi(2, 6), V), CALL(semtimedop, V, INi(2, 6), V, IN(TIMESPEC)),
	CALL(semctl, V, V, V, PLACE(104)), PLAIN(msgget), CALL(msgctl, V, V, PLACE(120)),
	CALL(msgsnd, V, { ARG_IN, 2, 8, 1 }, V, V), CALL(msgrcv, V, { ARG_RESULT, 2, 8, 1 }, V, V, V),
	CALL(mq_open, S, V, V, IN(64)), CALL(mq_unlink, S), CALL(mq_timedsend, V, INx(2, 1), V, V, IN(TIMESPEC)),
	CALL(mq_timedreceive, V, RESULT(2, 1), V, OUT(4), IN(TIMESPEC)), CALL(mq_notify, V, IN(SIGEVENT)),
	CALL(mq_getsetattr, V, IN(64), OUT(64)),

	/* memory: addresses, which the kernel does not follow here */
	PLAIN(mmap), PLAIN(munmap), PLAIN(mprotect), PLAIN(mremap), PLAIN(msync), PLAIN(madvise),
	PLAIN(brk), PLAIN(mlock), PLAIN(mlock2), PLAIN(munlock), PLAIN(mlockall), PLAIN(munlockall),
	PLAIN(remap_file_pages), PLAIN(pkey_mprotect), PLAIN(pkey_alloc), PLAIN(pkey_free), PLAIN(mseal),
	PLAIN(map_shadow_stack), CALL(mincore, V, V, { ARG_OUT, 1 | BY_PAGES, 0, 1 }),
	CALL(process_madvise, V, INx(2, 16), V, V, V), PLAIN(process_mrelease), PLAIN(userfaultfd),
	CALL(memfd_create, S, V), PLAIN(memfd_secret),
	CALL(mbind, V, V, V, PLACE(8), V, V), CALL(set_mempolicy, V, PLACE(8), V),
	CALL(get_mempolicy, OUT(4), PLACE(8), V, V, V), PLAIN(set_mempolicy_home_node),
	CALL(migrate_pages, V, V, PLACE(8), PLACE(8)),
	CALL(move_pages, V, V, INx(1, 8), INx(1, 4), OUTx(1, 4), V),
	CALL_BY(serve_process_vm, process_vm_readv, V, X, V, X, V, V),
	CALL_BY(serve_process_vm, process_vm_writev, V, X, V, X, V, V),

	/* time */
	CALL(time, OUT(8)), CALL(gettimeofday, OUT(TIMEVAL), OUT(8)), CALL(settimeofday, IN(TIMEVAL), IN(8)),
	CALL(clock_gettime, V, OUT(TIMESPEC)), CALL(clock_settime, V, IN(TIMESPEC)),
	CALL(clock_getres, V, OUT(TIMESPEC)), CALL(clock_nanosleep, V, V, IN(TIMESPEC), OUT(TIMESPEC)),
	CALL(nanosleep, IN(TIMESPEC), OUT(TIMESPEC)), CALL(clock_adjtime, V, OUT(208)), CALL(adjtimex, OUT(208)),
	PLAIN(alarm), CALL(getitimer, V, OUT(32)), CALL(setitimer, V, IN(32), OUT(32)),
	CALL(timer_create, V, IN(SIGEVENT), OUT(4)), CALL(timer_settime, V, V, IN(32), OUT(32)),
	CALL(timer_gettime, V, OUT(32)), PLAIN(timer_getoverrun), PLAIN(timer_delete),

	/* signals */
	CALL(rt_sigaction, V, IN(32), OUT(32), V), CALL_BY(serve_sigmask, rt_sigprocmask, V, INx(3, 1), OUTx(3, 1), V),
	PLAIN(rt_sigreturn), CALL(rt_sigpending, OUTx(1, 1), V), CALL(rt_sigsuspend, INx(1, 1), V),
	CALL(rt_sigtimedwait, INx(3, 1), OUT(SIGINFO), IN(TIMESPEC), V),
	CALL(rt_sigqueueinfo, V, V, IN(SIGINFO)), CALL(rt_tgsigqueueinfo, V, V, V, IN(SIGINFO)),
	CALL_BY(serve_sigaltstack, sigaltstack, X, X), PLAIN(kill), PLAIN(tkill), PLAIN(tgkill), PLAIN(pause),
	PLAIN(restart_syscall), PLAIN(pidfd_open), PLAIN(pidfd_getfd), CALL(pidfd_send_signal, V, V, IN(SIGINFO), V),

	/* threads and processes */
	CALL_BY(serve_futex, futex, X, V, V, X, X, V), CALL_BY(serve_futex_waitv, futex_waitv, X, V, V, IN(TIMESPEC), V),
	CALL(futex_wake, PLACE(4), V, V, V), CALL(futex_wait, PLACE(4), V, V, V, IN(TIMESPEC), V),
	CALL(futex_requeue, PLACE(48), V, V, V),
	PLAIN(set_robust_list), CALL(get_robust_list, V, OUT(8), OUT(8)), PLAIN(set_tid_address), PLAIN(rseq),
	PLAIN(clone), PLAIN(clone3), PLAIN(fork), PLAIN(vfork), PLAIN(exit), PLAIN(exit_group),
	CALL_BY(serve_exec, execve, S, X, X), CALL_BY(serve_exec, execveat, V, S, X, X, V),
	CALL(wait4, V, OUT(4), V, OUT(RUSAGE)), CALL(waitid, V, V, OUT(SIGINFO), V, OUT(RUSAGE)),
	PLAIN(getpid), PLAIN(getppid), PLAIN(gettid), PLAIN(getpgid), PLAIN(getpgrp), PLAIN(setpgid),
	PLAIN(getsid), PLAIN(setsid), PLAIN(getuid), PLAIN(geteuid), PLAIN(getgid), PLAIN(getegid),
	PLAIN(setuid), PLAIN(setgid), PLAIN(setreuid), PLAIN(setregid), PLAIN(setresuid), PLAIN(setresgid),
	PLAIN(setfsuid), PLAIN(setfsgid), CALL(getresuid, OUT(4), OUT(4), OUT(4)),
	CALL(getresgid, OUT(4), OUT(4), OUT(4)), CALL(getgroups, V, RESULTi(0, 4)),
	CALL(setgroups, V, INi(0, 4)), CALL(capget, PLACE(8), PLACE(24)), CALL(capset, PLACE(8), PLACE(24)),
	CALL(prctl, V, PLACE(16), V, V, PLACE(1)), CALL(arch_prctl, V, PLACE(8)), PLAIN(personality),
	PLAIN(unshare), PLAIN(setns), CALL(seccomp, V, V, PLACE(16)), CALL(ptrace, V, V, PLACE(8), PLACE(8)),
	PLAIN(kcmp), CALL(getrusage, V, OUT(RUSAGE)), CALL(times, OUT(32)),
	CALL(getrlimit, V, OUT(16)), CALL(setrlimit, V, IN(16)), CALL(prlimit64, V, V, IN(16), OUT(16)),
	PLAIN(getpriority), PLAIN(setpriority), PLAIN(ioprio_get), PLAIN(ioprio_set), PLAIN(sched_yield),
	CALL(sched_setparam, V, IN(4)), CALL(sched_getparam, V, OUT(4)), CALL(sched_setscheduler, V, V, IN(4)),
	PLAIN(sched_getscheduler), PLAIN(sched_get_priority_max), PLAIN(sched_get_priority_min),
	CALL(sched_rr_get_interval, V, OUT(TIMESPEC)), CALL(sched_setaffinity, V, V, INi(1, 1)),
	CALL(sched_getaffinity, V, V, RESULTi(1, 1)), CALL(sched_setattr, V, SIZED, V),
	CALL(sched_getattr, V, OUTi(2, 1), V, V), CALL(getcpu, OUT(4), OUT(4), V), PLAIN(membarrier),
	CALL(modify_ldt, V, PLACE(16), V), PLAIN(ioperm), PLAIN(iopl), PLAIN(vhangup),
	CALL(set_thread_area, PLACE(16)), CALL(get_thread_area, PLACE(16)),

	/* the system */
	CALL(uname, OUT(390)), CALL(sysinfo, OUT(112)), CALL(syslog, V, PLACEx(2, 1), V),
	CALL(sethostname, INi(1, 1), V), CALL(setdomainname, INi(1, 1), V), CALL(getrandom, RESULT(1, 1), V, V),
	CALL(reboot, V, V, V, S), CALL(init_module, PLACE(1), V, S), CALL(finit_module, V, S, V),
	CALL(delete_module, S, V), CALL(kexec_load, V, V, PLACE(32), V), CALL(kexec_file_load, V, V, V, S, V),
	CALL(add_key, S, S, INx(3, 1), V, V), CALL(request_key, S, S, S, V), CALL(keyctl, V, PLACE(1), PLACE(1), PLACE(1), PLACE(1)),
	CALL(perf_event_open, PLACE(136), V, V, V, V), CALL(bpf, V, PLACE(144), V),
	CALL(landlock_create_ruleset, INx(1, 1), V, V), CALL(landlock_add_rule, V, V, PLACE(16), V), PLAIN(landlock_restrict_self),
	CALL(lsm_get_self_attr, V, PLACE(32), PLACE(4), V), CALL(lsm_set_self_attr, V, PLACE(32), V, V),
	CALL(lsm_list_modules, PLACE(8), PLACE(4), V), CALL(uselib, S), PLAIN(uretprobe),
#else
	[0] = { NULL, { V }, NULL },
#endif
};
/* clang-format on */

const struct call_row *call_row(long number)
{
	if (number < 0 || number >= (long)CALLS_MAX || !rows[number].name)
		return NULL;
	return &rows[number];
}

unsigned call_pointers(long number)
{
	const struct call_row *row = call_row(number);
	unsigned set = 0;

	if (!row)
		return (1u << CALL_ARGS) - 1;
	for (unsigned i = 0; i < CALL_ARGS; i++)
		if (row->arg[i].kind != ARG_VALUE)
			set |= 1u << i;
	return set;
}
