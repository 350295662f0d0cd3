/* SPDX-License-Identifier: MIT */
/*
 * preload/signals.c - the signals that faults and trapped system calls come as stay ours, whatever the program
 * does with them.
 *
 * A handler that it installs is called for what is not ours, as it would have been. What it blocks is not
 * blocked, since a thread that touches an absent page then would be ended; but it is told so when it asks. (In a
 * thread that "blocks" one of them, one that is sent by kill(2) is delivered all the same.)
 *
 * Libc's own functions are found behind ours; Quire itself calls those, by the linker's --wrap.
 */
#include "preload/preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <ucontext.h>

static struct {
	int (*sigaction)(int, const struct sigaction *, struct sigaction *);
	int (*sigprocmask)(int, const sigset_t *, sigset_t *);
	int (*pthread_sigmask)(int, const sigset_t *, sigset_t *);
	int (*sigsuspend)(const sigset_t *);
	int (*ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
	int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
	int (*attr_setsigmask)(pthread_attr_t *, const sigset_t *);
} libc;

/* Of this thread: those of ours that it believes to be blocked. Bit n: signal n + 1 */
static __thread uint64_t believed;

#define BIT(number) (UINT64_C(1) << ((number)-1))

void signals_find_libc(void)
{
	void *found[] = { dlsym(RTLD_NEXT, "sigaction"),
		          dlsym(RTLD_NEXT, "sigprocmask"),
		          dlsym(RTLD_NEXT, "pthread_sigmask"),
		          dlsym(RTLD_NEXT, "sigsuspend"),
		          dlsym(RTLD_NEXT, "ppoll"),
		          dlsym(RTLD_NEXT, "epoll_pwait"),
		          dlsym(RTLD_NEXT, "pthread_attr_setsigmask_np") };

	_Static_assert(sizeof found == sizeof libc, "one for each");
	memcpy(&libc, found, sizeof libc);
}

/* ------------------------------------------------------------- by Quire */

int __wrap_sigaction(int number, const struct sigaction *new, struct sigaction *old);
int __wrap_sigprocmask(int how, const sigset_t *set, sigset_t *old);
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);

int __wrap_sigaction(int number, const struct sigaction *new, struct sigaction *old)
{
	return libc.sigaction(number, new, old);
}

int __wrap_sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	return libc.sigprocmask(how, set, old);
}

int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return libc.pthread_sigmask(how, set, old);
}

/* ---------------------------------------------------------------- masks */

/* Has Quire a handler of it? (Under uffd and without the guard it has none.) */
static bool is_ours(int number)
{
	return preload_state == PAGED && quire_signal_action(number, NULL, NULL) == 0;
}

/* => those of ours that are in it, which are taken out of what is copied to out */
static uint64_t strip(const sigset_t *set, sigset_t *out)
{
	static const int numbers[] = { SIGSEGV, SIGBUS, SIGSYS };
	uint64_t had = 0;

	*out = *set;
	for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
		if (sigismember(set, numbers[i]) == 1 && is_ours(numbers[i])) {
			sigdelset(out, numbers[i]);
			had |= BIT(numbers[i]);
		}
	return had;
}

static void add_believed(sigset_t *set, uint64_t bits)
{
	for (int n = 1; bits; n++, bits >>= 1)
		if (bits & 1)
			sigaddset(set, n);
}

static int change(int (*call)(int, const sigset_t *, sigset_t *), int how, const sigset_t *set,
                  sigset_t *old)
{
	uint64_t before = believed, had = 0;
	sigset_t stripped;
	int result;

	if (set)
		had = strip(set, &stripped);
	result = call(how, set ? &stripped : NULL, old);
	if (result != 0)
		return result;
	if (old)
		add_believed(old, before);
	if (set)
		believed = how == SIG_BLOCK   ? before | had :
		           how == SIG_UNBLOCK ? before & ~had :
		                                had;
	return 0;
}

EXPORT int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	return change(libc.sigprocmask, how, set, old);
}

EXPORT int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return change(libc.pthread_sigmask, how, set, old);
}

/* For the time of a call only: what it returns with is as before. */
EXPORT int sigsuspend(const sigset_t *set)
{
	sigset_t stripped;

	strip(set, &stripped);
	return libc.sigsuspend(&stripped);
}

EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *t, const sigset_t *set)
{
	sigset_t stripped;

	if (set)
		strip(set, &stripped);
	return libc.ppoll(fds, n, t, set ? &stripped : NULL);
}

EXPORT int epoll_pwait(int fd, struct epoll_event *events, int n, int timeout, const sigset_t *set)
{
	sigset_t stripped;

	if (set)
		strip(set, &stripped);
	return libc.epoll_pwait(fd, events, n, timeout, set ? &stripped : NULL);
}

EXPORT int pthread_attr_setsigmask_np(pthread_attr_t *attr, const sigset_t *set)
{
	sigset_t stripped;

	if (set)
		strip(set, &stripped);
	return libc.attr_setsigmask(attr, set ? &stripped : NULL);
}

/* ------------------------------------------------------------- handlers */

EXPORT int sigaction(int number, const struct sigaction *new, struct sigaction *old)
{
	struct sigaction stripped;

	if (new) {
		stripped = *new;
		strip(&new->sa_mask, &stripped.sa_mask);
	}
	if (preload_state == PAGED && quire_signal_action(number, new ? &stripped : NULL, old) == 0)
		return 0;
	return libc.sigaction(number, new ? &stripped : NULL, old);
}

static sighandler_t install(int number, sighandler_t handler, int flags)
{
	struct sigaction new = { .sa_handler = handler, .sa_flags = flags }, old;

	if (handler == SIG_ERR) {
		errno = EINVAL;
		return SIG_ERR;
	}
	sigemptyset(&new.sa_mask);
	if (!(flags & SA_NODEFER))
		sigaddset(&new.sa_mask, number);
	return sigaction(number, &new, &old) == 0 ? old.sa_handler : SIG_ERR;
}

EXPORT sighandler_t signal(int number, sighandler_t handler)
{
	return install(number, handler, SA_RESTART);
}

EXPORT sighandler_t bsd_signal(int number, sighandler_t handler);
EXPORT sighandler_t bsd_signal(int number, sighandler_t handler)
{
	return install(number, handler, SA_RESTART);
}

EXPORT sighandler_t ssignal(int number, sighandler_t handler)
{
	return install(number, handler, SA_RESTART);
}

EXPORT sighandler_t sysv_signal(int number, sighandler_t handler)
{
	return install(number, handler, (int)(SA_RESETHAND | SA_NODEFER));
}

EXPORT sighandler_t __sysv_signal(int number, sighandler_t handler)
{
	return install(number, handler, (int)(SA_RESETHAND | SA_NODEFER));
}
