/* SPDX-License-Identifier: MIT */
/*
 * guard/wrappers.c - libc's functions whose calls hide their pointers from the filter, in
 * structures that are not in the window themselves: a list of segments, a message's
 * header, a list of arguments. A program that links Quire gets these instead of libc's.
 *
 * They look inside. If nothing there is in the window, or the guard is not on, they are
 * what libc's are: the system call, which is a point of cancellation where libc says
 * so. Else the call is served as a trapped one is, without the trap.
 *
 * posix_spawn, system and the exec functions that search PATH are libc's own, called with
 * copies: their child has no handler of SIGSYS any more when it executes the program.
 */
#include "guard/copy.h"
#include "guard/exec.h"
#include "guard/guard.h"
#include "guard/served.h"
#include "guard/trap.h"
#include "guard/vector.h"

#include "base/base.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

extern char **environ;

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
static void block(uint64_t *before)
{
	uint64_t all = ~(UINT64_C(1) << (SIGSYS - 1) | UINT64_C(1) << (SIGSEGV - 1) |
	                 UINT64_C(1) << (SIGBUS - 1));
	const unsigned long arg[CALL_ARGS] = { SIG_BLOCK, (unsigned long)&all,
		                               (unsigned long)before, sizeof all };

	plain_call(SYS_rt_sigprocmask, arg, false);
}

static void open_served(struct served *s)
{
	block(&s->mask);
	s->context = NULL;
	s->cancellable = false;
	scratch_open(&s->scratch);
}

static void set_mask(const struct served *s)
{
	const unsigned long arg[CALL_ARGS] = { SIG_SETMASK, (unsigned long)&s->mask, 0,
		                               sizeof s->mask };

	plain_call(SYS_rt_sigprocmask, arg, false);
}

static void close_served(struct served *s)
{
	scratch_close(&s->scratch);
	set_mask(s);
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
	open_served(&s);
	s.cancellable = cancellable;
	result = served_run(&s);
	close_served(&s);
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

/* What libc has by these names; found once, since after vfork there is no time for it. */
static struct {
	int (*execvpe)(const char *, char *const[], char *const[]);
	int (*fexecve)(int, char *const[], char *const[]);
	int (*posix_spawn)(pid_t *, const char *, const posix_spawn_file_actions_t *,
	                   const posix_spawnattr_t *, char *const[], char *const[]);
	int (*posix_spawnp)(pid_t *, const char *, const posix_spawn_file_actions_t *,
	                    const posix_spawnattr_t *, char *const[], char *const[]);
	int (*system)(const char *);
	FILE *(*popen)(const char *, const char *);
} libc;

static void *find(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void find_libc(void)
{
	void *found[] = { find("execvpe"),      find("fexecve"), find("posix_spawn"),
		          find("posix_spawnp"), find("system"),  find("popen") };

	_Static_assert(sizeof found == sizeof libc, "one for each");
	memcpy(&libc, found, sizeof libc);
}

/* A program's name, arguments and environment, in ordinary memory. */
struct program {
	struct served s;
	unsigned long path, argv, envp;
	bool guarded;
};

/* => 0 or an errno; to be closed either way */
static int program_open(struct program *p, const char *path, char *const argv[], char *const envp[])
{
	int error = 0;

	*p = (struct program){ .path = A(path), .argv = A(argv), .envp = A(envp) };
	p->guarded = guard_is_on();
	if (!p->guarded)
		return 0;
	open_served(&p->s);
	error = string_copy(&p->s, &p->path, STRING_MAX);
	if (!error && strings_in_window(argv))
		error = strings_copy(&p->s, &p->argv);
	if (!error && strings_in_window(envp))
		error = strings_copy(&p->s, &p->envp);
	/* The child has this thread's mask. */
	set_mask(&p->s);
	return -error;
}

static void program_close(struct program *p)
{
	if (!p->guarded)
		return;
	block(&p->s.mask);
	close_served(&p->s);
}

#define PATH_OF(p) ((const char *)(p)->path)
#define ARGV_OF(p) ((char *const *)(p)->argv)
#define ENVP_OF(p) ((char *const *)(p)->envp)

EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	struct program p;
	int error = program_open(&p, file, argv, envp);

	if (!error && libc.execvpe) {
		libc.execvpe(PATH_OF(&p), ARGV_OF(&p), ENVP_OF(&p));
		error = errno;
	}
	program_close(&p);
	errno = error ? error : ENOSYS;
	return -1;
}

/* The arguments of a function that takes them one by one, as a list. */
static size_t count_arguments(va_list list)
{
	size_t n = 1;

	while (va_arg(list, const char *))
		n++;
	return n;
}

static void take_arguments(va_list list, const char *first, size_t n, const char **argv)
{
	argv[0] = first;
	for (size_t i = 1; i <= n; i++)
		argv[i] = va_arg(list, const char *);
}

#define LIST_OF_ARGUMENTS(first, n, list) \
	va_start(list, first);            \
	n = count_arguments(list);        \
	va_end(list);                     \
	const char *argv[n + 1];          \
	va_start(list, first);            \
	take_arguments(list, first, n, argv)

EXPORT int execl(const char *path, const char *first, ...)
{
	va_list list;
	size_t n;

	LIST_OF_ARGUMENTS(first, n, list);
	va_end(list);
	return execve(path, (char *const *)argv, environ);
}

EXPORT int execlp(const char *file, const char *first, ...)
{
	va_list list;
	size_t n;

	LIST_OF_ARGUMENTS(first, n, list);
	va_end(list);
	return execvpe(file, (char *const *)argv, environ);
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

EXPORT int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	struct program p;
	int error = program_open(&p, NULL, argv, envp);

	if (!error && libc.fexecve) {
		libc.fexecve(fd, ARGV_OF(&p), ENVP_OF(&p));
		error = errno;
	}
	program_close(&p);
	errno = error ? error : ENOSYS;
	return -1;
}

typedef int (*spawner)(pid_t *, const char *, const posix_spawn_file_actions_t *,
                       const posix_spawnattr_t *, char *const[], char *const[]);

/* The child has no handlers any more when it looks at these, nor libc when it writes the number. */
static int spawn(spawner by, pid_t *id, const char *path, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
	posix_spawn_file_actions_t these_actions;
	posix_spawnattr_t these_attributes;
	struct program p;
	pid_t child = 0;
	int error;

	if (!by)
		return ENOSYS;
	if (!guard_is_on())
		return by(id, path, actions, attributes, argv, envp);
	if (guard_in_window(A(actions))) {
		if (copy_from(&these_actions, A(actions), sizeof these_actions))
			return EFAULT;
		actions = &these_actions;
	}
	if (guard_in_window(A(attributes))) {
		if (copy_from(&these_attributes, A(attributes), sizeof these_attributes))
			return EFAULT;
		attributes = &these_attributes;
	}
	error = program_open(&p, path, argv, envp);
	if (!error)
		error = by(&child, PATH_OF(&p), actions, attributes, ARGV_OF(&p), ENVP_OF(&p));
	program_close(&p);
	if (!error && id)
		*id = child;
	return error;
}

EXPORT int posix_spawn(pid_t *id, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
	return spawn(libc.posix_spawn, id, path, actions, attributes, argv, envp);
}

EXPORT int posix_spawnp(pid_t *id, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
	return spawn(libc.posix_spawnp, id, file, actions, attributes, argv, envp);
}

EXPORT int system(const char *command)
{
	struct program p;
	int error = program_open(&p, command, NULL, NULL);
	int status = -1;

	if (!error && libc.system) {
		status = libc.system(PATH_OF(&p));
		error = errno;
	}
	program_close(&p);
	if (status == -1)
		errno = error ? error : ENOSYS;
	return status;
}

EXPORT FILE *popen(const char *command, const char *type)
{
	struct program p;
	int error = program_open(&p, command, NULL, NULL);
	FILE *stream = NULL;

	if (!error && libc.popen) {
		stream = libc.popen(PATH_OF(&p), type);
		error = errno;
	}
	program_close(&p);
	if (!stream)
		errno = error ? error : ENOSYS;
	return stream;
}
