/* SPDX-License-Identifier: MIT */
/*
 * guard/wrappers.c - libc's functions whose calls hide their pointers from the filter, in
 * structures that are not in the window themselves: a list of segments, a message's
 * header, a list of arguments. A program that links Quire gets these instead of libc's.
 *
 * They look inside. If nothing there is in the window, or the guard is not on, they are
 * what libc's are: the system call, which is a point of cancellation where libc says
 * so. Else the call is served as a trapped one is, without the trap.
 * (Those that are more than one call: spawn.c.)
 */
#include "guard/copy.h"
#include "guard/exec.h"
#include "guard/guard.h"
#include "guard/served.h"
#include "guard/trap.h"
#include "guard/vector.h"
#include "guard/wrappers.h"

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* --------------------------------------------------------- looking inside */

static bool list_in_window(const struct iovec *list, size_t n)
{
	unsigned long base;

	if (guard_in_window((uintptr_t)list))
		return true;
	/* Longer ones the kernel refuses; and what is no list. */
	n = MIN(n, VECTOR_MAX);
	for (size_t i = 0; i < n && guard_load(&list[i].iov_base, &base) == 0; i++)
		if (guard_in_window(base))
			return true;
	return false;
}

static bool message_in_window(const struct msghdr *m)
{
	unsigned long name, list, n, control;

	if (guard_in_window((uintptr_t)m))
		return true;
	if (guard_load(&m->msg_name, &name) || guard_load(&m->msg_iov, &list) ||
	    guard_load(&m->msg_iovlen, &n) || guard_load(&m->msg_control, &control))
		return false;
	return guard_in_window(name) || guard_in_window(control) ||
	       list_in_window((const struct iovec *)list, n);
}

static bool messages_in_window(const struct mmsghdr *m, unsigned n)
{
	n = MIN(n, VECTOR_MAX);
	for (unsigned i = 0; i < n; i++)
		if (message_in_window(&m[i].msg_hdr))
			return true;
	return false;
}

/* ----------------------------------------------------------------- calls */

static long to_errno(long result)
{
	if ((unsigned long)result < -4095ul)
		return result;
	errno = (int)-result;
	return -1;
}

/* As in the handler: signals are blocked but while the call is made. */
void wrapper_block(uint64_t *before)
{
	uint64_t all = ~(UINT64_C(1) << (SIGSYS - 1) | UINT64_C(1) << (SIGSEGV - 1) |
	                 UINT64_C(1) << (SIGBUS - 1));
	const unsigned long arg[CALL_ARGS] = { SIG_BLOCK, (unsigned long)&all,
		                               (unsigned long)before, sizeof all };

	plain_call(SYS_rt_sigprocmask, arg, false);
}

void wrapper_open(struct served *s)
{
	wrapper_block(&s->mask);
	s->context = NULL;
	s->cancellable = false;
	scratch_open(&s->scratch);
}

void wrapper_unblock(const struct served *s)
{
	const unsigned long arg[CALL_ARGS] = { SIG_SETMASK, (unsigned long)&s->mask, 0,
		                               sizeof s->mask };

	plain_call(SYS_rt_sigprocmask, arg, false);
}

void wrapper_close(struct served *s)
{
	scratch_close(&s->scratch);
	wrapper_unblock(s);
}

/* inside: something that it is given is in the window. */
static long call(long number, bool inside, bool cancellable, const unsigned long arg[CALL_ARGS])
{
	struct served s;
	long result;

	if (!inside)
		return to_errno(plain_call(number, arg, cancellable));
	s.number = number;
	memcpy(s.given, arg, sizeof s.given);
	wrapper_open(&s);
	s.cancellable = cancellable;
	result = served_run(&s);
	wrapper_close(&s);
	return to_errno(result);
}

#define ARGUMENTS(...) ((const unsigned long[CALL_ARGS]){ __VA_ARGS__ })
#define A(x) (unsigned long)(x)

static ssize_t vector_call(long number, int fd, const struct iovec *list, int n, off_t offset,
                           int flags)
{
	bool inside = n > 0 && guard_is_on() && list_in_window(list, A(n));

	return call(number, inside, true, ARGUMENTS(A(fd), A(list), A(n), A(offset), 0, A(flags)));
}

EXPORT ssize_t readv(int fd, const struct iovec *list, int n)
{
	return vector_call(SYS_readv, fd, list, n, 0, 0);
}

EXPORT ssize_t writev(int fd, const struct iovec *list, int n)
{
	return vector_call(SYS_writev, fd, list, n, 0, 0);
}

EXPORT ssize_t preadv(int fd, const struct iovec *list, int n, off_t offset)
{
	return vector_call(SYS_preadv, fd, list, n, offset, 0);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *list, int n, off_t offset)
{
	return vector_call(SYS_pwritev, fd, list, n, offset, 0);
}

EXPORT ssize_t preadv2(int fd, const struct iovec *list, int n, off_t offset, int flags)
{
	return vector_call(SYS_preadv2, fd, list, n, offset, flags);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *list, int n, off_t offset, int flags)
{
	return vector_call(SYS_pwritev2, fd, list, n, offset, flags);
}

/* The same: off_t has 64 bits. */
EXPORT ssize_t preadv64(int, const struct iovec *, int, off64_t) __attribute__((alias("preadv")));
EXPORT ssize_t pwritev64(int, const struct iovec *, int, off64_t) __attribute__((alias("pwritev")));
EXPORT ssize_t preadv64v2(int, const struct iovec *, int, off64_t, int)
	__attribute__((alias("preadv2")));
EXPORT ssize_t pwritev64v2(int, const struct iovec *, int, off64_t, int)
	__attribute__((alias("pwritev2")));

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	return call(SYS_sendmsg, guard_is_on() && message_in_window(message), true,
	            ARGUMENTS(A(fd), A(message), A(flags)));
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	return call(SYS_recvmsg, guard_is_on() && message_in_window(message), true,
	            ARGUMENTS(A(fd), A(message), A(flags)));
}

EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags)
{
	return (int)call(SYS_sendmmsg, guard_is_on() && messages_in_window(messages, n), true,
	                 ARGUMENTS(A(fd), A(messages), n, A(flags)));
}

EXPORT int recvmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags,
                    struct timespec *timeout)
{
	return (int)call(SYS_recvmmsg, guard_is_on() && messages_in_window(messages, n), true,
	                 ARGUMENTS(A(fd), A(messages), n, A(flags), A(timeout)));
}

EXPORT ssize_t vmsplice(int fd, const struct iovec *list, size_t n, unsigned flags)
{
	return call(SYS_vmsplice, guard_is_on() && list_in_window(list, n), true,
	            ARGUMENTS(A(fd), A(list), n, flags));
}

EXPORT ssize_t process_vm_readv(pid_t id, const struct iovec *local, unsigned long local_n,
                                const struct iovec *remote, unsigned long remote_n,
                                unsigned long flags)
{
	return syscall(SYS_process_vm_readv, id, local, local_n, remote, remote_n, flags);
}

EXPORT ssize_t process_vm_writev(pid_t id, const struct iovec *local, unsigned long local_n,
                                 const struct iovec *remote, unsigned long remote_n,
                                 unsigned long flags)
{
	return syscall(SYS_process_vm_writev, id, local, local_n, remote, remote_n, flags);
}

/* libc puts the mask's address into a structure on its stack. */
EXPORT int pselect(int n, fd_set *reads, fd_set *writes, fd_set *excepts,
                   const struct timespec *timeout, const sigset_t *mask)
{
	struct {
		const void *set;
		size_t bytes;
	} masked = { mask, sizeof(uint64_t) };
	struct timespec left;
	uint64_t set;

	if (guard_is_on() && guard_in_window(A(mask))) {
		if (copy_from(&set, A(mask), sizeof set))
			return (int)to_errno(-EFAULT);
		masked.set = &set;
	}
	/* The kernel writes what is left of it; this function does not. */
	if (timeout) {
		if (guard_is_on() && copy_from(&left, A(timeout), sizeof left))
			return (int)to_errno(-EFAULT);
		if (!guard_is_on())
			left = *timeout;
	}
	return (int)call(SYS_pselect6, false, true,
	                 ARGUMENTS(A(n), A(reads), A(writes), A(excepts), A(timeout ? &left : NULL),
	                           A(&masked)));
}

/* ------------------------------------------------------------ any call */

static bool waiters_in_window(const struct waiter *waiters, unsigned long n)
{
	unsigned long address;

	for (unsigned long i = 0; i < MIN(n, WAITERS_MAX); i++)
		if (guard_load(&waiters[i].address, &address) == 0 && guard_in_window(address))
			return true;
	return false;
}

/* Of a call that was given these arguments. What the filter sees is left to it. */
static bool hides_the_window(long number, const unsigned long a[CALL_ARGS])
{
	switch (number) {
	case SYS_readv:
	case SYS_writev:
	case SYS_preadv:
	case SYS_pwritev:
	case SYS_preadv2:
	case SYS_pwritev2:
	case SYS_vmsplice:
		return list_in_window((const struct iovec *)a[1], a[2]);
	case SYS_sendmsg:
	case SYS_recvmsg:
		return message_in_window((const struct msghdr *)a[1]);
	case SYS_sendmmsg:
	case SYS_recvmmsg:
		return messages_in_window((const struct mmsghdr *)a[1], (unsigned)a[2]);
	case SYS_process_vm_readv:
	case SYS_process_vm_writev:
		return list_in_window((const struct iovec *)a[1], a[2]) ||
		       list_in_window((const struct iovec *)a[3], a[4]);
	case SYS_futex_waitv:
		return waiters_in_window((const struct waiter *)a[0], a[1]);
	case SYS_execve:
		return strings_in_window((char *const *)a[1]) ||
		       strings_in_window((char *const *)a[2]);
	case SYS_execveat:
		return strings_in_window((char *const *)a[2]) ||
		       strings_in_window((char *const *)a[3]);
	default:
		return false;
	}
}

/* As libc's, it takes six arguments whether they were given or not. */
EXPORT long syscall(long number, ...) __attribute__((no_sanitize("address")));

EXPORT long syscall(long number, ...)
{
	unsigned long a[CALL_ARGS];
	va_list list;

	va_start(list, number);
	for (unsigned i = 0; i < CALL_ARGS; i++)
		a[i] = va_arg(list, unsigned long);
	va_end(list);
	return call(number, guard_is_on() && hides_the_window(number, a), false, a);
}

/* ------------------------------------------------------------ programs */

EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	bool inside = guard_is_on() && (guard_in_window(A(path)) || strings_in_window(argv) ||
	                                strings_in_window(envp));

	return (int)call(SYS_execve, inside, false, ARGUMENTS(A(path), A(argv), A(envp)));
}

EXPORT int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

EXPORT int execveat(int fd, const char *path, char *const argv[], char *const envp[], int flags)
{
	bool inside = guard_is_on() && (guard_in_window(A(path)) || strings_in_window(argv) ||
	                                strings_in_window(envp));

	return (int)call(SYS_execveat, inside, false,
	                 ARGUMENTS(A(fd), A(path), A(argv), A(envp), A(flags)));
}

size_t count_arguments(va_list list)
{
	size_t n = 1;

	while (va_arg(list, const char *))
		n++;
	return n;
}

void take_arguments(va_list list, const char *first, size_t n, const char **argv)
{
	argv[0] = first;
	for (size_t i = 1; i <= n; i++)
		argv[i] = va_arg(list, const char *);
}

EXPORT int execl(const char *path, const char *first, ...)
{
	va_list list;
	size_t n;

	LIST_OF_ARGUMENTS(first, n, list);
	va_end(list);
	return execve(path, (char *const *)argv, environ);
}

EXPORT int execle(const char *path, const char *first, ...)
{
	char *const *envp;
	va_list list;
	size_t n;

	LIST_OF_ARGUMENTS(first, n, list);
	envp = va_arg(list, char *const *);
	va_end(list);
	return execve(path, (char *const *)argv, envp);
}

EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	return execveat(fd, "", argv, envp, AT_EMPTY_PATH);
}
