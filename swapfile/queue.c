/* SPDX-License-Identifier: MIT */
/*
 * swapfile/queue.c - runs in flight.
 *
 *                 add                 flush, waiting reap
 *   the caller's ------> prepared ---------------------------> started
 *        ^                  ^         (submit)                    |
 *        |                  | RUN_CONTINUE                        |
 *        +------------------+-------------------------------------+
 *          reap: RUN_DONE                 (ops->reap, run_advance)
 *
 * A thread that may not start requests (reap's may_start) finishes by itself, by
 * synchronous transfers, a run that would have to be continued.
 *
 * Invariants
 *  Q1  in_flight = prepared + started <= depth, the room of the ring; so a run
 *      that is to be continued finds room.
 *  Q2  There are no runs that are done and not handed out: what the ring's
 *      descriptor polls is what reap would say.
 * No lock: one thread at a time uses a queue.
 */
#include "base/base.h"
#include "swapfile/io.h"
#include "swapfile/run.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>

struct swap_queue {
	struct swapfile *s;
	const struct io_ops *io;
	void *ring;
	unsigned depth;
	unsigned in_flight;
	unsigned prepared;       /* since all were started: so many at most are not */
	_Atomic bool owed;       /* runs are prepared that should have been started */
	struct swap_queue *next; /* of the file's */
};

#define SUBMIT_TRIES 1000

static int hold(struct swap_queue *q, int fd)
{
	return q->io->hold && fd >= 0 ? q->io->hold(q->ring, fd) : 0;
}

static void list(struct swap_queue *q)
{
	lock_acquire(&q->s->queue_lock);
	q->next = q->s->queues;
	q->s->queues = q;
	lock_release(&q->s->queue_lock);
}

static void unlist(struct swap_queue *q)
{
	struct swap_queue **at = &q->s->queues;

	lock_acquire(&q->s->queue_lock);
	while (*at != q)
		at = &(*at)->next;
	*at = q->next;
	lock_release(&q->s->queue_lock);
}

int swapfile_hold(struct swapfile *s, int fd)
{
	int error = 0;

	look_hold(&s->look, fd);
	lock_acquire(&s->queue_lock);
	for (struct swap_queue *q = s->queues; q && !error; q = q->next)
		error = hold(q, fd);
	lock_release(&s->queue_lock);
	return error;
}

int swap_queue_open(struct swapfile *s, unsigned depth, struct swap_queue **out)
{
	struct swap_queue *q;
	int error;

	if (depth == 0)
		return -EINVAL;
	q = mmap(NULL, sizeof *q, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (q == MAP_FAILED)
		return -ENOMEM;
	*q = (struct swap_queue){ .s = s, .io = s->io, .depth = depth };
	error = q->io->open(&q->ring, s->file.fd, depth, 0, s->io_arg);
	if (!error) {
		error = hold(q, family_descriptor(&s->family));
		if (error)
			q->io->close(q->ring);
	}
	if (error) {
		munmap(q, sizeof *q);
		return error;
	}
	list(q);
	*out = q;
	return 0;
}

void swap_queue_close(struct swap_queue *q)
{
	/* Any thread may start what is left: nothing is in flight when it goes. */
	while (swap_queue_reap(q, true, true))
		continue;
	q->io->close(q->ring);
	unlist(q);
	munmap(q, sizeof *q);
}

void swap_queue_forget(struct swap_queue *q)
{
	q->io->forget(q->ring);
	unlist(q);
	munmap(q, sizeof *q);
}

/* => the ring has room (Q1) */
static void prepare(struct swap_queue *q, struct swap_run *run)
{
	struct io_request request;
	bool prepared;

	run_request(run, &request);
	prepared = q->io->prepare(q->ring, &request);
	ASSERT(prepared);
	q->prepared++;
}

static void all_started(struct swap_queue *q)
{
	q->prepared = 0;
	q->owed = false;
}

/*
 * Start what is prepared. A kernel that is short of memory is given a little
 * time; what it still can't take stays owed (swap_queue_owes) and is tried again
 * by reap.
 */
static void submit(struct swap_queue *q)
{
	for (unsigned i = 0; i < SUBMIT_TRIES; i++) {
		if (q->io->submit(q->ring, false) == 0) {
			all_started(q);
			return;
		}
		q->owed = true;
		sched_yield();
	}
}

int swap_queue_add(struct swap_queue *q, struct swap_run *run)
{
	if (q->in_flight == q->depth)
		return -EAGAIN;
	run_start(q->s, run);
	q->in_flight++;
	prepare(q, run);
	return 0;
}

void swap_queue_flush(struct swap_queue *q)
{
	submit(q);
}

/* The backend's answer to a run. => done with; false: its rest is prepared */
static bool answered(struct swap_queue *q, struct swap_run *run, int64_t result, bool may_start)
{
	bool done = run_advance(q->s, run, result) == RUN_DONE;

	if (!done && !may_start) {
		run_finish_here(q->s, run);
		done = true;
	}
	if (done) {
		q->in_flight--;
	} else {
		prepare(q, run);
		q->owed = true;
	}
	return done;
}

struct swap_run *swap_queue_reap(struct swap_queue *q, bool wait, bool may_start)
{
	struct swap_run *run = NULL;
	int64_t result;
	void *tag;

	while (!run && q->in_flight > 0) {
		if (q->io->reap(q->ring, &tag, &result)) {
			if (answered(q, tag, result, may_start))
				run = tag;
		} else if (!wait) {
			break;
		} else if (may_start) {
			if (q->io->submit(q->ring, true) == 0)
				all_started(q);
		} else if (q->prepared < q->in_flight) {
			/* Its seccomp filter may forbid the call. What was started ends all the same. */
			if (q->io->wait(q->ring) != 0)
				run_pause();
		} else {
			/* Perhaps nothing was started: what would the sleep end by? */
			run_pause();
			break;
		}
	}
	if (q->owed && may_start)
		submit(q);
	return run;
}

bool swap_queue_owes(const struct swap_queue *q)
{
	return q->owed;
}

unsigned swap_queue_in_flight(const struct swap_queue *q)
{
	return q->in_flight;
}

int swap_queue_fd(const struct swap_queue *q)
{
	return q->io->fd(q->ring);
}
