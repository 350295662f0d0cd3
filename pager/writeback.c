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

static void finish(struct pager *p, struct swap_run *run)
{
	bool good = run->status == 0;
	uint32_t returned = 0;
	page_id kept = PAGE_ID_NONE;

	for (unsigned i = 0; i < run->count; i++) {
		uint32_t id = buffer_at(p, run->page[i]);
		struct buffer *b = buffer_of(p, id);
		uint32_t writing = BUFFER_WRITING;
		page_id page = b->page;

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
				swapfile_unref(p->swap, run->slot + i);
			atomic_store(&b->state, BUFFER_FREE);
			cluster_put(p, id / CLUSTER_PAGES);
		}
	}
	if (good) {
		count(&p->counters->pages_out, run->count);
		p->swap_full = false;
	} else {
		swapfile_unref_run(p->swap, run->slot, run->count);
		count(&p->counters->write_errors, returned);
		p->write_again_at = now_ns() + BACKOFF_NS;
		if (run->status != -ENOSPC)
			p->owner_ops->failed(p->owner, PAGER_WRITE_FAILED, -run->status, kept);
		else if (!p->swap_full)
			p->owner_ops->failed(p->owner, PAGER_SWAP_FULL, ENOSPC, kept);
		if (run->status == -ENOSPC)
			p->swap_full = true;
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

/* Take the next dirty buffers of a cluster, from *at on, into WRITING. => how many are in run->page */
static unsigned gather(struct pager *p, uint32_t c, unsigned *at, struct swap_run *run)
{
	struct cluster *cl = &p->clusters[c];
	unsigned n = 0;

	for (; *at < cl->used; ++*at) {
		uint32_t dirty = BUFFER_DIRTY;

		if (atomic_compare_exchange_strong(&cl->buffer[*at].state, &dirty, BUFFER_WRITING))
			run->page[n++] = buffer_address(p, c * CLUSTER_PAGES + *at);
	}
	return n;
}

/* WRITING buffers for which there is no slot: as they were. => one of their pages, or PAGE_ID_NONE */
static page_id ungather(struct pager *p, void **page, unsigned n)
{
	page_id kept = PAGE_ID_NONE;

	for (unsigned i = 0; i < n; i++) {
		uint32_t id = buffer_at(p, page[i]);
		struct buffer *b = buffer_of(p, id);
		uint32_t writing = BUFFER_WRITING;
		page_id dirty = b->page;

		if (atomic_compare_exchange_strong(&b->state, &writing, BUFFER_DIRTY)) {
			kept = dirty;
		} else {
			atomic_store(&b->state, BUFFER_FREE);
			cluster_put(p, id / CLUSTER_PAGES);
		}
	}
	return kept;
}

static void submit(struct pager *p, struct swap_run *run)
{
	unsigned bucket = 31u - (unsigned)__builtin_clz(run->count);

	for (unsigned i = 0; i < run->count; i++)
		buffer_of(p, buffer_at(p, run->page[i]))->slot = run->slot + i;
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

	while ((run = run_get(p)) == NULL)
		if (writeback_reap(p, true) == 0)
			return NULL;
	run->op = SWAP_WRITE;
	return run;
}

bool writeback_start(struct pager *p, uint32_t c)
{
	struct swap_run *run;
	void *page[CLUSTER_PAGES];
	unsigned at = 0, n, done = 0;
	bool starved = false;
	page_id kept;

	if (p->write_again_at && now_ns() < p->write_again_at)
		return false;
	p->write_again_at = 0;
	run = next_run(p);
	if (!run)
		return false;
	n = gather(p, c, &at, run);
	for (unsigned i = 0; i < n; i++)
		page[i] = run->page[i];
	/* A synchronous write may fail on the way: then the rest is not tried. */
	while (done < n && !p->write_again_at) {
		slot_t first;
		unsigned got;

		if (!run)
			run = next_run(p);
		starved = !run;
		got = starved ? 0 : swapfile_alloc(p->swap, n - done, &first);
		if (got == 0)
			break;
		run->slot = first;
		run->count = got;
		for (unsigned i = 0; i < got; i++)
			run->page[i] = page[done + i];
		submit(p, run);
		run = NULL;
		done += got;
	}
	if (run)
		run_put(p, run);
	if (thread_is_ours)
		swap_queue_flush(p->writes);
	kept = ungather(p, page + done, n - done);
	if (p->write_again_at || starved)
		return false;
	if (done == n)
		return true;
	p->write_again_at = now_ns() + BACKOFF_NS;
	if (!p->swap_full)
		p->owner_ops->failed(p->owner, PAGER_SWAP_FULL, ENOSPC, kept);
	p->swap_full = true;
	return false;
}
