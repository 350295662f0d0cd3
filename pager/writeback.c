/* SPDX-License-Identifier: MIT */
/*
 * pager/writeback.c - dirty standby buffers to the swap file.
 *
 * A cluster's dirty buffers are in address order; they are given neighbouring
 * slots, as many to a run as the allocator has, and one request a run. All of
 * it under the reclaim lock: there is one write queue.
 *
 * W1  a buffer becomes CLEAN only when its write has succeeded. Until then its
 *     bytes are in memory; a failed write makes it DIRTY again and frees the slot.
 * W2  a page taken back while its buffer is being written is dirty without a
 *     slot; the write's slot is freed when it ends (ABANDONED).
 */
#include "pager/pager.h"

#include <errno.h>

/* After a failed write, how long none is tried. */
#define BACKOFF_NS UINT64_C(100000000)
/* And when room is about to be free. */
#define SOON_NS UINT64_C(5000000)

/* Full no longer? A slot that is freed and taken again is no news for the program. */
static bool has_room(struct pager *p)
{
	uint64_t used = swapfile_used(p->swap);

	return used > p->used_when_full || used <= p->used_when_full - p->used_when_full / 8;
}

/* No slot, or no room on the disk for one. */
static void found_full(struct pager *p, page_id kept)
{
	p->used_when_full = swapfile_used(p->swap);
	if (!p->swap_full)
		p->owner_ops->failed(p->owner, PAGER_SWAP_FULL, ENOSPC, kept);
	p->swap_full = true;
}

static void finish(struct pager *p, struct swap_run *run)
{
	bool good = run->status == 0;
	uint32_t first = buffer_at(p, run->base), returned = 0;
	slot_t slot = run->slot;
	page_id kept = PAGE_ID_NONE;

	for (uint64_t left = run->pages; left; left &= left - 1, slot++) {
		uint32_t id = first + (uint32_t)__builtin_ctzll(left);
		struct buffer *b = buffer_of(p, id);
		uint32_t writing = BUFFER_WRITING;
		page_id page = buffer_page(b);

		if (!good)
			b->slot = SLOT_NONE;
		if (atomic_compare_exchange_strong(&b->state, &writing,
		                                   good ? BUFFER_CLEAN : BUFFER_DIRTY)) {
			if (good) {
				p->owner_ops->written(p->owner, page);
			} else {
				kept = page;
				returned++;
			}
		} else {
			ASSERT(writing == BUFFER_ABANDONED);
			if (good)
				swapfile_unref(p->swap, slot);
			atomic_store(&b->state, BUFFER_FREE);
			cluster_put(p, id / CLUSTER_PAGES);
		}
	}
	if (good) {
		count(&p->counters->pages_out, run->count);
		if (has_room(p))
			p->swap_full = false;
	} else {
		swapfile_unref_run(p->swap, run->slot, run->count);
		count(&p->counters->write_errors, returned);
		p->write_again_at = now_ns() + BACKOFF_NS;
		if (run->status == -ENOSPC)
			found_full(p, kept);
		else
			p->owner_ops->failed(p->owner, PAGER_WRITE_FAILED, -run->status, kept);
	}
	atomic_store(&p->write_failing, !good);
	atomic_fetch_sub(&p->writing, 1);
	run_put(p, run);
}

uint32_t writeback_reap(struct pager *p, bool wait)
{
	uint32_t reaped = 0;
	struct swap_run *run;

	while (swap_queue_in_flight(p->writes) &&
	       (run = swap_queue_reap(p->writes, wait && reaped == 0, thread_is_ours)) != NULL) {
		finish(p, run);
		reaped++;
	}
	return reaped;
}

/* Take a cluster's dirty buffers into WRITING. => which they are */
static uint64_t gather(struct pager *p, uint32_t c)
{
	struct cluster *cl = &p->clusters[c];
	uint64_t gathered = 0;

	for (unsigned i = 0; i < cl->used; i++) {
		uint32_t dirty = BUFFER_DIRTY;

		if (atomic_compare_exchange_strong(&cl->buffer[i].state, &dirty, BUFFER_WRITING))
			gathered |= bits(i, 1);
	}
	return gathered;
}

/* WRITING buffers for which there is no slot: as they were. => one of their pages, or PAGE_ID_NONE */
static page_id ungather(struct pager *p, uint32_t c, uint64_t gathered)
{
	page_id kept = PAGE_ID_NONE;

	for (uint64_t left = gathered; left; left &= left - 1) {
		struct buffer *b = &p->clusters[c].buffer[__builtin_ctzll(left)];
		uint32_t writing = BUFFER_WRITING;
		page_id dirty = buffer_page(b);

		if (atomic_compare_exchange_strong(&b->state, &writing, BUFFER_DIRTY)) {
			kept = dirty;
		} else {
			atomic_store(&b->state, BUFFER_FREE);
			cluster_put(p, c);
		}
	}
	return kept;
}

static void submit(struct pager *p, struct swap_run *run)
{
	unsigned bucket = 31u - (unsigned)__builtin_clz(run->count);
	uint32_t first = buffer_at(p, run->base);
	slot_t slot = run->slot;

	for (uint64_t left = run->pages; left; left &= left - 1, slot++)
		buffer_of(p, first + (uint32_t)__builtin_ctzll(left))->slot = slot;
	count(&p->counters->writeback_requests, 1);
	count(&p->counters->writeback_sizes[MIN(bucket, WRITEBACK_BUCKETS - 1u)], 1);
	atomic_fetch_add(&p->writing, 1);
	/*
	 * A request of io_uring ends in the context of the thread that started it.
	 * A thread of the program's may not come back to it: it may be about to
	 * wait for a page that waits for this write. So it writes here and now.
	 */
	if (!thread_is_ours) {
		swapfile_transfer(p->swap, run);
		finish(p, run);
		return;
	}
	while (swap_queue_add(p->writes, run) == -EAGAIN)
		writeback_reap(p, true);
}

/* => NULL: all runs are in use, and none of them by a write that this thread can wait for */
static struct swap_run *next_run(struct pager *p)
{
	struct swap_run *run;

	while ((run = run_get(p, SWAP_WRITE)) == NULL)
		if (writeback_reap(p, true) == 0)
			return NULL;
	return run;
}

/* The lowest n of these buffers; they leave the set. */
static uint64_t lowest(uint64_t *set, unsigned n)
{
	uint64_t rest = *set, taken;

	while (n-- > 0)
		rest &= rest - 1;
	taken = *set & ~rest;
	*set = rest;
	return taken;
}

bool writeback_suspended(struct pager *p)
{
	bool freed = p->swap_full && swapfile_used(p->swap) < p->used_when_full;

	if (freed || now_ns() >= p->write_again_at)
		p->write_again_at = 0;
	return p->write_again_at != 0;
}

bool writeback_start(struct pager *p, uint32_t c)
{
	struct swap_run *run;
	bool starved = false;
	uint64_t rest;
	page_id kept;

	if (writeback_suspended(p))
		return false;
	run = next_run(p);
	if (!run)
		return false;
	rest = gather(p, c);
	/* A synchronous write may fail on the way: then the rest is not tried. */
	while (rest && !p->write_again_at) {
		unsigned got, want = (unsigned)__builtin_popcountll(rest);
		slot_t first;

		if (!run)
			run = next_run(p);
		starved = !run;
		got = starved ? 0 : swapfile_alloc(p->swap, want, &first);
		if (got == 0)
			break;
		run->slot = first;
		run->count = got;
		run->base = buffer_address(p, c * CLUSTER_PAGES);
		run->pages = lowest(&rest, got);
		submit(p, run);
		run = NULL;
	}
	if (run)
		run_put(p, run);
	if (thread_is_ours)
		swap_queue_flush(p->writes);
	kept = ungather(p, c, rest);
	if (p->write_again_at || starved)
		return false;
	if (!rest)
		return true;
	if (swapfile_is_full(p->swap)) {
		p->write_again_at = now_ns() + BACKOFF_NS;
		found_full(p, kept);
	} else {
		p->write_again_at = now_ns() + SOON_NS;
	}
	return false;
}
