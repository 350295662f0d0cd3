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
 * It sleeps like everybody where that is as quick (base/trial.h finds out and
 * goes on doing so): with a slow disk; and where the disk is served by the CPUs
 * that looking takes, as on a virtual machine whose host counts both against one
 * quota. There a read that was waited for awake took up to twice as long.
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

void look_open(struct look *l, const struct io_ops *io, int fd, void *arg, uint64_t ns)
{
	*l = (struct look){ .fd = fd, .io = io, .arg = arg, .ns = ns };
	trial_init(&l->trial, 2 * ns);
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

void look_hold(struct look *l, int fd)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < l->count; i++) {
		void *ring = l->rings[i].ring;

		if (fd >= 0 && l->io->hold && l->io->hold(ring, fd) != 0) {
			l->io->close(ring);
			continue;
		}
		/* (Between forks a ring that is taken for good stays so.) */
		l->rings[kept].taken = l->rings[i].taken;
		l->rings[kept++].ring = ring;
	}
	l->count = kept;
}

void look_close(struct look *l)
{
	while (l->count)
		l->io->close(l->rings[--l->count].ring);
}

void look_forget(struct look *l)
{
	while (l->count)
		l->io->forget(l->rings[--l->count].ring);
}

void look_open_again(struct look *l, void *arg)
{
	look_forget(l);
	if (l->io)
		look_open(l, l->io, l->fd, arg, l->ns);
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

static bool found_in_time(struct look *l, void *ring, int64_t *result)
{
	uint64_t until = now_ns() + l->ns;
	void *tag;

	do {
		for (int i = 0; i < GLANCES; i++) {
			if (l->io->reap(ring, &tag, result))
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

/* => false: nothing was done */
static bool transfer_awake(struct look *l, const struct io_request *request, int64_t *result)
{
	const struct io_ops *io = l->io;
	struct look_ring *r = take(l);
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
	/*
	 * This thread may not start requests (its seccomp filter forbids it). What
	 * is prepared cannot be taken back: the ring stays taken for good.
	 */
	if (!passes(error))
		return false;
	found = error == 0 && found_in_time(l, r->ring, result);
	/* What could not be started is started by this, too. */
	while (!found && !io->reap(r->ring, &tag, result))
		if (io->submit(r->ring, true) != 0)
			run_pause();
	atomic_store_explicit(&r->taken, 0, memory_order_release);
	return true;
}

int64_t look_transfer(struct look *l, const struct io_request *request)
{
	enum look_way way;
	uint64_t start;
	int saved = errno;
	int64_t result;

	way = trial_way(&l->trial);
	start = now_ns();
	if (way == LOOK_ASLEEP || !transfer_awake(l, request, &result)) {
		result = l->io->transfer(l->fd, request, l->arg);
		way = LOOK_ASLEEP;
	}
	trial_took(&l->trial, way, now_ns() - start, 1);
	errno = saved;
	return result;
}
