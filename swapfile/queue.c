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
	bool owed; /* runs are prepared that should have been started */
};

#define SUBMIT_TRIES 1000

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
	error = q->io->open(&q->ring, s->file.fd, depth, s->io_arg);
	if (error) {
		munmap(q, sizeof *q);
		return error;
	}
	atomic_fetch_add(&s->queues, 1);
	*out = q;
	return 0;
}

void swap_queue_close(struct swap_queue *q)
{
	while (swap_queue_reap(q, true))
		continue;
	q->io->close(q->ring);
	atomic_fetch_sub(&q->s->queues, 1);
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
}

/*
 * Start what is prepared. A kernel that is short of memory is given a little
 * time; what it still can't take stays owed and is tried again by reap.
 */
static void submit(struct swap_queue *q)
{
	for (unsigned i = 0; i < SUBMIT_TRIES; i++) {
		int error = q->io->submit(q->ring, false);

		q->owed = error != 0;
		if (!q->owed)
			return;
		sched_yield();
	}
}

int swap_queue_add(struct swap_queue *q, struct swap_run *run)
{
	if (q->in_flight == q->depth)
		return -EAGAIN;
	run_start(q->s, run);
	prepare(q, run);
	q->in_flight++;
	return 0;
}

void swap_queue_flush(struct swap_queue *q)
{
	submit(q);
}

struct swap_run *swap_queue_reap(struct swap_queue *q, bool wait)
{
	struct swap_run *run = NULL;
	int64_t result;
	void *tag;

	while (!run && q->in_flight > 0) {
		if (q->io->reap(q->ring, &tag, &result)) {
			if (run_advance(q->s, tag, result) == RUN_DONE) {
				run = tag;
				q->in_flight--;
			} else {
				prepare(q, tag);
				q->owed = true;
			}
		} else if (!wait) {
			break;
		} else if (q->io->submit(q->ring, true) == 0) {
			q->owed = false;
		}
	}
	if (q->owed)
		submit(q);
	return run;
}

unsigned swap_queue_in_flight(const struct swap_queue *q)
{
	return q->in_flight;
}

int swap_queue_fd(const struct swap_queue *q)
{
	return q->io->fd(q->ring);
}
