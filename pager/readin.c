/* SPDX-License-Identifier: MIT */
/*
 * pager/readin.c - reads in flight: readahead, and the misses of engines whose
 * faults are handled by a thread that must not sleep.
 *
 * io_uring completes a request in the context of the thread that started it,
 * and interrupts that thread's system calls to do so. So only threads of ours
 * start reads:
 *
 *   - where faults are served on the program's threads, a reader thread
 *     starts and completes all of them (reader.c), and the program's
 *     threads sleep until what they want has arrived;
 *   - where a handler thread serves faults, it starts reads by itself, in one
 *     of a few queues that nobody is using, and completes what arrives when it
 *     is told by poll; whoever else wants one of the pages may do so too.
 *
 * An entry that says READING cannot be taken back: threads wait for it. So what
 * a read needs is reserved (readin_reserve) before any entry says so, and to
 * start it (readin_start) cannot fail.
 *
 * To start a request costs more than all the rest of it, on a virtual disk
 * above all: several that are started together cost hardly more than one. So a
 * handler thread that has several faults before it starts their reads together
 * (readin_batch_begin).
 *
 * R1  while a buffer is READING its page's entry names it and nobody else
 *     changes either; who reaped its run ends it (owner->arrived).
 */
#include "pager/pager.h"

#include "base/thread.h"
#include "pager/readin.h"

#include <errno.h>

/* The reads that this thread gathers: in queue (locked), or none yet. p: NULL outside a batch */
static SIGNAL_SAFE_TLS struct batch {
	struct pager *p;
	struct read_queue *queue;
} batch;

static void complete(struct pager *p, struct swap_run *run)
{
	uint32_t first = buffer_at(p, run->base);
	uint64_t bad = run->bad;

	count(&p->counters->pages_in, run->count);
	for (uint64_t left = run->pages; left; left &= left - 1, bad >>= 1) {
		uint32_t id = first + (uint32_t)__builtin_ctzll(left);
		struct buffer *b = buffer_of(p, id);
		int error = run->status ? -run->status : bad & 1 ? EBADMSG : 0;
		bool good = error == 0;
		page_id page = buffer_page(b);

		if (good)
			count(&p->standby, 1);
		/*
		 * The operation's reference keeps the cluster while the owner looks
		 * at the buffer: once the entry is published anyone may claim it.
		 */
		atomic_fetch_add(&p->clusters[id / CLUSTER_PAGES].refs, 1);
		atomic_store(&b->state, good ? BUFFER_CLEAN : BUFFER_FREE);
		p->owner_ops->arrived(p->owner, page, id, error);
		if (!good)
			cluster_put(p, id / CLUSTER_PAGES);
		cluster_put(p, id / CLUSTER_PAGES);
	}
	/* From here on reclaim can have them. */
	atomic_fetch_sub(&p->reading, run->count);
	run_put(p, run);
}

static void announce(struct read_queue *q)
{
	atomic_fetch_add(&q->arrivals, 1);
	if (atomic_load(&q->sleepers))
		futex_wake(&q->arrivals, INT32_MAX, false);
}

/*
 * run: or NULL. It counts as in flight until its record is free again: so many
 * are there for all that may be (READ_RUNS).
 * => it was one
 */
static bool finish(struct pager *p, struct read_queue *q, struct swap_run *run)
{
	if (!run)
		return false;
	complete(p, run);
	atomic_fetch_sub(&q->in_flight, 1);
	announce(q);
	return true;
}

bool readin_reap(struct pager *p, struct read_queue *q, bool wait)
{
	return finish(p, q, swap_queue_reap(q->io, wait, thread_is_ours));
}

/*
 * The same with the queue's lock, which is free again while the pages are mapped
 * and their threads woken: reads that were started together end together, and
 * another thread may take the next of them. *more: there are some
 */
static bool reap_and_unlock(struct pager *p, struct read_queue *q, bool wait, bool *more)
{
	struct swap_run *run = swap_queue_reap(q->io, wait, thread_is_ours);

	*more = swap_queue_in_flight(q->io) > 0;
	lock_release(&q->lock);
	return finish(p, q, run);
}

/* A buffer whose read could not even be started: as if it had failed. */
static void refuse(struct pager *p, struct swap_run *run)
{
	run->status = -EAGAIN;
	uncount(&p->counters->pages_in, run->count);
	complete(p, run);
}

void readin_add(struct pager *p, struct read_queue *q, struct swap_run *run, uint32_t c, uint32_t n)
{
	struct cluster *cl = &p->clusters[c];

	for (uint32_t i = 0; i < n; run = NULL) {
		uint32_t k = 0;

		/* The first is in flight by now, or was given: there is something to wait for. */
		while (!run && !(run = run_get(p, SWAP_READ)))
			readin_reap(p, q, true);
		run->slot = cl->buffer[i].slot;
		run->base = buffer_address(p, c * CLUSTER_PAGES + i);
		/* A page that the program waits for is read alone, before the others. */
		do {
			k++, i++;
		} while (i < n && (i > 1 || !cl->started) && cl->buffer[i].slot == run->slot + k);
		run->count = k;
		run->pages = bits(0, k);
		atomic_fetch_add(&q->in_flight, 1);
		if (swap_queue_add(q->io, run) != 0) {
			atomic_fetch_sub(&q->in_flight, 1);
			refuse(p, run);
		}
	}
}

/* => queue lock held, and q->run */
static bool reserve_queue(struct pager *p, struct read_queue *q)
{
	if (atomic_load(&q->in_flight) >= CLUSTER_PAGES || !lock_try(&q->lock))
		return false;
	/* Nobody adds without the lock: a cluster of single pages still fits the ring. */
	if (atomic_load(&q->in_flight) < CLUSTER_PAGES && (q->run = run_get(p, SWAP_READ)) != NULL)
		return true;
	lock_release(&q->lock);
	return false;
}

void readin_batch_begin(struct pager *p)
{
	batch = (struct batch){ .p = p };
}

void readin_batch_end(struct pager *p)
{
	struct read_queue *q = batch.queue;

	ASSERT(batch.p == p);
	batch = (struct batch){ .p = NULL };
	if (!q)
		return;
	swap_queue_flush(q->io);
	lock_release(&q->lock);
}

/* => this thread gathers reads in a queue that has room for more */
static bool reserve_in_batch(struct pager *p)
{
	struct read_queue *q = batch.p == p ? batch.queue : NULL;

	if (!q)
		return false;
	if (atomic_load(&q->in_flight) < CLUSTER_PAGES && (q->run = run_get(p, SWAP_READ)) != NULL)
		return true;
	readin_batch_end(p);
	readin_batch_begin(p);
	return false;
}

bool readin_reserve(struct pager *p, uint32_t c)
{
	uint32_t begin;

	p->clusters[c].queue = 0;
	if (p->reader.started)
		return reader_reserve(p);
	if (reserve_in_batch(p)) {
		p->clusters[c].queue = (uint8_t)(batch.queue - p->reads);
		return true;
	}
	begin = atomic_fetch_add_explicit(&p->next_queue, 1, memory_order_relaxed);
	for (uint32_t i = 0; i < READ_QUEUES; i++) {
		uint32_t at = (begin + i) % READ_QUEUES;

		if (reserve_queue(p, &p->reads[at])) {
			p->clusters[c].queue = (uint8_t)at;
			return true;
		}
	}
	return false;
}

void readin_start(struct pager *p, uint32_t c, uint32_t n)
{
	struct read_queue *q = &p->reads[p->clusters[c].queue];

	atomic_fetch_add(&p->reading, n);
	if (n >= STREAM_READ)
		atomic_store_explicit(&p->streaming, STREAM_STEPS, memory_order_relaxed);
	if (p->reader.started) {
		reader_post(p, c, n);
		return;
	}
	readin_add(p, q, q->run, c, n);
	if (batch.p == p) {
		batch.queue = q;
		return;
	}
	swap_queue_flush(q->io);
	lock_release(&q->lock);
}

int readin_here(struct pager *p, struct swap_run *run)
{
	int status;

	atomic_fetch_add(&p->reading, run->count);
	status = swapfile_transfer(p->swap, run);
	atomic_fetch_sub(&p->reading, run->count);
	return status;
}

void readin_cancel(struct pager *p, uint32_t c)
{
	struct read_queue *q = &p->reads[p->clusters[c].queue];

	if (p->reader.started) {
		reader_cancel(p);
		return;
	}
	run_put(p, q->run);
	if (batch.queue != q)
		lock_release(&q->lock);
}

void readin_wait(struct pager *p, uint32_t id)
{
	struct buffer *b = buffer_of(p, id);

	while (atomic_load(&b->state) == BUFFER_READING) {
		struct read_queue *q =
			&p->reads[atomic_load(&p->clusters[id / CLUSTER_PAGES].queue)];
		uint32_t seen = atomic_load(&q->arrivals);

		if (!p->reader.started && lock_try(&q->lock)) {
			bool reading = atomic_load(&b->state) == BUFFER_READING;
			bool more, reaped = reap_and_unlock(p, q, reading, &more);

			if (more)
				announce(q); /* who sleeps may reap now */
			if (reaped || !reading || more)
				continue;
			/* Another has reaped it, and announces it when it is complete. */
		}
		atomic_fetch_add(&q->sleepers, 1);
		if (atomic_load(&b->state) == BUFFER_READING)
			futex_wait(&q->arrivals, seen, UINT64_C(10000000), false);
		atomic_fetch_sub(&q->sleepers, 1);
	}
}

bool readin_poll(struct pager *p, uint32_t i)
{
	struct read_queue *q = &p->reads[i];
	bool more;

	if (atomic_load(&q->in_flight) == 0 || !lock_try(&q->lock))
		return false;
	return reap_and_unlock(p, q, false, &more);
}

bool readin_owes(struct pager *p, uint32_t i)
{
	struct read_queue *q = &p->reads[i];

	return atomic_load(&q->in_flight) && swap_queue_owes(q->io);
}

int readin_fd(struct pager *p, uint32_t i)
{
	struct read_queue *q = &p->reads[i];

	return atomic_load(&q->in_flight) ? swap_queue_fd(q->io) : -1;
}
