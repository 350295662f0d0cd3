/* SPDX-License-Identifier: MIT */
/* base/thread.h - threads of ours in a program that knows nothing of them. */
#ifndef QUIRE_BASE_THREAD_H
#define QUIRE_BASE_THREAD_H

#include <pthread.h>
#include <stdint.h>

/*
 * Start a thread that runs with all signals blocked, so that it takes none of
 * the program's, on a small stack, so that mlockall(MCL_FUTURE) fills little.
 * => 0, or -errno
 */
int thread_start(pthread_t *thread, void *(*main)(void *), void *argument);

/* gettid(2), asked for once a thread. Async-signal-safe. */
int32_t thread_id(void);
/* In a child that was made without fork's handlers, which tell of it else. */
void threads_renew(void);

#endif
