/* SPDX-License-Identifier: MIT */
/*
 * tests/container/confine.c - runs a command as in a container that allows little: a
 * seccomp filter that refuses what Docker's default profile refuses of all that Quire
 * might use, another user without privileges, and a memory cgroup.
 *
 *     confine [-e EPERM|ENOSYS] [-u UID] [-m CGROUP] COMMAND [ARGUMENT...]
 *
 * CGROUP is a directory with a cgroup.procs, made and removed by the caller. Exit status:
 * the command's; 125 if it could not be confined.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What that profile does not list, or only for those with a capability. Numbers are the same everywhere from 424 on. */
static const unsigned refused[] = {
	SYS_userfaultfd,
	425 /* io_uring_setup */,
	426 /* io_uring_enter */,
	427 /* io_uring_register */,
	440 /* process_madvise */,
	438 /* pidfd_getfd */,
	SYS_kcmp,
	SYS_mbind,
	SYS_set_mempolicy,
	SYS_get_mempolicy,
	SYS_perf_event_open,
	SYS_bpf,
};

#define CALLS (sizeof refused / sizeof *refused)

static void fail(const char *what)
{
	fprintf(stderr, "confine: %s: %s\n", what, strerror(errno));
	exit(125);
}

/* Load the number, compare it with each, and refuse or allow. */
static void filter(int error)
{
	struct sock_filter code[CALLS + 3];
	struct sock_fprog program = { .len = CALLS + 3, .filter = code };

	code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
	                                       offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < CALLS; i++)
		code[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i],
		                                           (unsigned char)(CALLS - i), 0);
	code[CALLS + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[CALLS + 2] = (struct sock_filter)BPF_STMT(
		BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned)error & SECCOMP_RET_DATA));
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
		fail("seccomp");
}

static void enter(const char *cgroup)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof path, "%s/cgroup.procs", cgroup);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		fail(path);
	close(fd);
}

static void become(const char *text)
{
	unsigned long id = strtoul(text, NULL, 10);

	if (setgroups(0, NULL) != 0 || setgid((gid_t)id) != 0 || setuid((uid_t)id) != 0)
		fail("another user");
	/* A core dump, or /proc/self, of a process that changed its user would be root's. */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

int main(int argc, char **argv)
{
	int c, error = EPERM;

	while ((c = getopt(argc, argv, "+e:u:m:")) != -1) {
		switch (c) {
		case 'e':
			error = strcmp(optarg, "ENOSYS") == 0 ? ENOSYS : EPERM;
			break;
		case 'u':
			become(optarg);
			break;
		case 'm':
			enter(optarg);
			break;
		default:
			return 125;
		}
	}
	if (optind == argc) {
		fprintf(stderr,
		        "usage: confine [-e EPERM|ENOSYS] [-m CGROUP] [-u UID] COMMAND...\n");
		return 125;
	}
	filter(error);
	execvp(argv[optind], &argv[optind]);
	fail(argv[optind]);
}
