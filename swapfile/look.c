/* SPDX-License-Identifier: MIT */
/*
 * swapfile/look.c - reads that a thread waits for awake.
 *
 * A thread that sleeps until its page is read pays for more than the disk: its
 * CPU goes idle and halts, the interrupt has to wake it, and on a virtual
 * machine each of these leaves the guest. That was measured to be a third of
 * the whole read. So for a while the thread looks for the end by itself, and
 * gives its CPU to whoever else wants it between two looks: where many threads
 * miss at once, each look is the turn of another.
 *
 * It sleeps like everybody where that does not pay: after `ns`, and from the
 * start when most looks of late were in vain (a slow disk; `score`), but for
 * one in LOOK_AGAIN reads, which finds out when this changes.
 *
 * The thread that starts a request is the one that reaps it, in a ring that it
 * has to itself meanwhile, before it goes anywhere else: so this is open to
 * threads of the program's, which may not leave requests behind.
 */
#include "swapfile/look.h"

#include "base/base.h"
#include "base/descriptor.h"
#include "swapfile/run.h"

#include <errno.h>
#include <sched.h>

/* Glances at the ring, a fraction of a microsecond in all, between two turns of others. */
#define GLANCES 20

#define SCORE_MAX 64
#define SCORE_VAIN 8
#define LOOK_AGAIN 64

void look_open(struct look *l, const struct io_ops *io, int fd, void *arg, uint64_t ns)
{
	*l = (struct look){ .ns = ns, .score = SCORE_MAX };
	while (ns && l->count < LOOK_RINGS) {
		void *ring;

		if (io->open(&ring, fd, 1, IO_RING_OWN, arg) != 0)
			break;
		if (!descriptor_to_spare(io->fd(ring))) {
			io->close(ring);
			break;
		}
		l->rings[l->count++].ring = ring;
	}
}

void look_close(struct look *l, const struct io_ops *io)
{
	while (l->count)
		io->close(l->rings[--l->count].ring);
}

static struct look_ring *take(struct look *l)
{
	for (unsigned i = 0; i < l->count; i++) {
		struct look_ring *r = &l->rings[i];

		if (!atomic_load_explicit(&r->taken, memory_order_relaxed) &&
		    !atomic_exchange_explicit(&r->taken, 1, memory_order_acquire))
			return r;
	}
	return NULL;
}

static bool worth(struct look *l)
{
	if (atomic_load_explicit(&l->score, memory_order_relaxed) > 0)
		return true;
	return atomic_fetch_add_explicit(&l->declined, 1, memory_order_relaxed) % LOOK_AGAIN == 0;
}

/* Threads may overwrite each other's score: it is an estimate. */
static void learn(struct look *l, bool found)
{
	int32_t score = atomic_load_explicit(&l->score, memory_order_relaxed);

	score = found ? MIN(score + 1, SCORE_MAX) : MAX(score - SCORE_VAIN, 0);
	atomic_store_explicit(&l->score, score, memory_order_relaxed);
}

static bool found_in_time(struct look *l, const struct io_ops *io, void *ring, int64_t *result)
{
	uint64_t until = now_ns() + l->ns;
	void *tag;

	do {
		for (int i = 0; i < GLANCES; i++) {
			if (io->reap(ring, &tag, result))
				return true;
			cpu_relax();
		}
		sched_yield();
	} while (now_ns() < until);
	return false;
}

/* The kernel may take the request a moment later. */
static bool passes(int error)
{
	return error == 0 || error == -EAGAIN || error == -EBUSY || error == -EINTR;
}

bool look_transfer(struct look *l, const struct io_ops *io, const struct io_request *request,
                   int64_t *result)
{
	struct look_ring *r = l->count && worth(l) ? take(l) : NULL;
	int saved = errno;
	bool found;
	void *tag;
	int error;

	if (!r)
		return false;
	if (!io->prepare(r->ring, request)) {
		atomic_store_explicit(&r->taken, 0, memory_order_release);
		return false;
	}
	error = io->submit(r->ring, false);
	if (!passes(error)) {
		/*
		 * This thread may not start requests (its seccomp filter forbids it).
		 * What is prepared cannot be taken back: the ring stays taken for good.
		 */
		errno = saved;
		return false;
	}
	found = error == 0 && found_in_time(l, io, r->ring, result);
	learn(l, found);
	/* What could not be started is started by this, too. */
	while (!found && !io->reap(r->ring, &tag, result))
		if (io->submit(r->ring, true) != 0)
			run_pause();
	atomic_store_explicit(&r->taken, 0, memory_order_release);
	errno = saved;
	return true;
}
