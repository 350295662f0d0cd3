/* SPDX-License-Identifier: MIT */
/* base/thread.c - see thread.h. */
#include "base/thread.h"

#include "base/base.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What our threads use is a few KiB; sanitizers and debuggers want some. */
#define STACK_BYTES ((size_t)256 << 10)

int thread_start(pthread_t *thread, void *(*main)(void *), void *argument)
{
	pthread_attr_t small;
	sigset_t all, old;
	int error = pthread_attr_init(&small);

	if (error)
		return -error;
	pthread_attr_setstacksize(&small, STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(thread, &small, main, argument);
	/* The stack holds the program's thread-local data, too, which may be more than that. */
	if (error)
		error = pthread_create(thread, NULL, main, argument);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&small);
	return -error;
}

/* Whose ids are known: those that were asked for in this process. */
static _Atomic uint32_t process = 1;

static SIGNAL_SAFE_TLS struct {
	int32_t id;
	uint32_t process;
} self;

/* The thread that forked goes on in the child under another number. */
void threads_renew(void)
{
	atomic_fetch_add(&process, 1);
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, threads_renew);
}

int32_t thread_id(void)
{
	uint32_t now = atomic_load_explicit(&process, memory_order_relaxed);

	if (self.process != now) {
		self.id = (int32_t)syscall(SYS_gettid);
		self.process = now;
	}
	return self.id;
}
