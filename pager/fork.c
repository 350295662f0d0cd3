/* SPDX-License-Identifier: MIT */
/*
 * pager/fork.c - a pager in a child of fork(2).
 *
 * The fork came at a standstill (base/quiesce.h): no lock is held, no batch of victims
 * half taken, no entry busy. What was in flight are transfers between buffers and
 * the swap file. They are the parent's, who has the threads and rings for them, and the
 * child gets no word of their end; so here they count as never begun:
 *
 *   READING -> FREE       the page is its slot again
 *   WRITING -> DIRTY      the slot was the write's; the bytes are in memory
 *   ABANDONED -> FREE     likewise, and nobody wants the bytes
 *
 * Threads, rings and runs are made anew.
 */
#include "pager/pager.h"

#include <errno.h>
#include <unistd.h>

static void unread(struct pager *p, uint32_t id)
{
	struct buffer *b = buffer_of(p, id);

	/* Nobody waits for it here. */
	p->clusters[id / CLUSTER_PAGES].started = 0;
	atomic_store(&b->state, BUFFER_FREE);
	p->owner_ops->arrived(p->owner, buffer_page(b), id, ECANCELED);
}

static void unwrite(struct pager *p, struct buffer *b, enum buffer_state state)
{
	swapfile_unref(p->swap, b->slot);
	b->slot = SLOT_NONE;
	atomic_store(&b->state, state);
}

/* => buffers that hold something */
static uint32_t settle(struct pager *p, uint32_t c)
{
	struct cluster *cl = &p->clusters[c];
	uint32_t full = 0;

	for (uint32_t i = 0; i < CLUSTER_PAGES; i++) {
		struct buffer *b = &cl->buffer[i];

		switch (atomic_load(&b->state)) {
		case BUFFER_READING:
			unread(p, c * CLUSTER_PAGES + i);
			break;
		case BUFFER_WRITING:
			unwrite(p, b, BUFFER_DIRTY);
			full++;
			break;
		case BUFFER_ABANDONED:
			unwrite(p, b, BUFFER_FREE);
			break;
		case BUFFER_FREE:
			break;
		default:
			full++;
			break;
		}
	}
	return full;
}

/* C2: no operation holds it now, but for the stage. */
static void settle_clusters(struct pager *p)
{
	uint32_t n = counted_records(&p->cluster_count);

	for (uint32_t c = 0; c < n; c++) {
		struct cluster *cl = &p->clusters[c];
		bool free = cl->list == CLUSTERS_EMPTY || cl->list == CLUSTERS_WARM;
		uint32_t refs = settle(p, c) + (c == p->stage);

		atomic_store(&cl->refs, refs + 1);
		/* Reads that ended may be all that kept it. */
		if (refs && cl->list == CLUSTERS_NOWHERE && c != p->stage)
			cluster_to_standby(p, c);
		if (free)
			atomic_store(&cl->refs, 0);
		else
			cluster_put(p, c);
	}
}

static void forget_runs(struct run_pool *pool)
{
	pool->free = NULL;
	atomic_store(&pool->count, 0);
}

void pager_fork_forget(struct pager *p)
{
	if (p->writes)
		swap_queue_forget(p->writes);
	p->writes = NULL;
	for (unsigned i = 0; i < READ_QUEUES; i++) {
		struct read_queue *q = &p->reads[i];

		if (q->io)
			swap_queue_forget(q->io);
		q->io = NULL;
		q->run = NULL;
		atomic_store(&q->in_flight, 0);
		atomic_store(&q->sleepers, 0);
	}
	forget_runs(&p->run_pools[SWAP_READ]);
	forget_runs(&p->run_pools[SWAP_WRITE]);
	atomic_store(&p->writing, 0);
	atomic_store(&p->reading, 0);
	atomic_store(&p->write_failing, false);
	p->write_again_at = 0;
	p->started = false;
	if (p->reader.started)
		close(p->reader.event);
	p->reader = (struct reader){ .lock = LOCK_INIT(RANK_READ) };
}

int pager_fork_in_child(struct pager *p)
{
	settle_clusters(p);
	return pager_open_queues(p);
}
