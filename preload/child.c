/* SPDX-License-Identifier: MIT */
/*
 * preload/child.c - the budget of a process that the program has forked.
 *
 * It begins with its parent's, and gets down to a child's (QUIRE_RUN_CHILD) after a moment, on a thread of its own: most
 * children execute a program at once, and to evict for that would be in vain. A program that is executed has a
 * child's budget from the start (start.c).
 */
#include "preload/preload.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#define MOMENT_NS 100000000

static size_t share; /* bytes; 0: no less than the parent */

static void *get_down(void *arg)
{
	struct timespec moment = { .tv_nsec = MOMENT_NS };

	nanosleep(&moment, NULL);
	/* If what it has does not fit it keeps what it had. */
	quire_set_memory(preload_pager, share);
	return arg;
}

static void in_child(void)
{
	pthread_attr_t detached;
	sigset_t all, before;
	pthread_t thread;

	if (preload_state != PAGED || share == 0 || quire_memory(preload_pager) <= share)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_attr_init(&detached) == 0) {
		pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
		pthread_attr_setstacksize(&detached, (size_t)256 << 10);
		pthread_create(&thread, &detached, get_down, NULL);
		pthread_attr_destroy(&detached);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void child_prepare(void)
{
	const char *bytes = getenv("QUIRE_RUN_CHILD");
	struct quire_options o = { .size = sizeof o };

	if (!bytes || quire_options_set(&o, "memory", bytes) != 0)
		return;
	share = o.memory;
	pthread_atfork(NULL, NULL, in_child);
}
