/* SPDX-License-Identifier: MIT */
/*
 * base/quiesce.h - a moment at which nobody is at work, for fork.
 *
 * A child of fork(2) has one thread. What another was doing at that moment stays half done
 * there for ever: a lock is held, an entry busy, a list open. So the thread that forks first waits
 * until everybody is between two pieces of work, and keeps them there.
 *
 * Two kinds of threads, in the whole process: those of the program, in a call of ours or in
 * a fault (work), and our own (service), which the former may wait for. So the program's are
 * stopped first. What a thread waits for outside of both - a sleep until there is
 * something to do - may go on.
 */
#ifndef QUIRE_BASE_QUIESCE_H
#define QUIRE_BASE_QUIESCE_H

#include <stdbool.h>
#include <stdint.h>

/* A thread of the program's, or any that is not at service. Nests. Async-signal-safe. */
void work_enter(void);
void work_leave(void);

/* A thread of ours, for one step. Does not nest, nor lie inside work. */
void service_enter(void);
void service_leave(void);

/* Is this thread in the middle of either, or between the two calls below? Async-signal-safe. */
bool is_at_work(void);

/*
 * Wait until nobody but this thread is at work, and keep it so until the other call, by the same thread.
 * => false: somebody is at it still after so long: he may wait for something that this thread has
 */
bool quiesce_begin(uint64_t patience_ns);
void quiesce_end(void);
/* In the child, where nobody else is: before a thread is started. The gates stay closed until quiesce_end. */
void quiesce_in_child(void);

/*
 * Is this a child of fork, or of clone(2), in which quiesce_in_child was not called, or one of its children?
 * What others were doing when it was made is half done there for ever. Async-signal-safe.
 */
bool process_is_strange(void);
/*
 * It is none any more, if nobody was doing anything. renew: called before that, by one thread: what
 * a fork of another's at that moment may have left. => is it none?
 */
bool process_adopt(void (*renew)(void));

#endif
