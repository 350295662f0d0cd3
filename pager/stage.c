/* SPDX-License-Identifier: MIT */
/*
 * pager/stage.c - pages that come into standby one at a time: what snapshots keep
 * of pages that are written. They fill a cluster together, which joins the standby
 * list when it is full, so that they are written by one request.
 *
 * Until then its pages cannot be written back. So it is no larger than a batch of
 * victims, which is a small part of the budget, and reclaim that finds nothing else
 * has it join the list as it is (stage_flush).
 *
 * Who has got a buffer may fill it after its cluster has joined the list: meanwhile it
 * is CLAIMED, which is nobody's business there, where what is FREE is free for good.
 */
#include "pager/pager.h"

#include "base/kernel.h"

/* => stage lock */
static void join_standby(struct pager *p)
{
	uint32_t c = p->stage;

	p->stage = CLUSTER_NONE;
	cluster_to_standby(p, c);
	cluster_put(p, c);
}

/* The credit is the buffer's, or it has one already. */
static void lend(struct pager *p, uint32_t id)
{
	uint64_t bit = UINT64_C(1) << id % CLUSTER_PAGES;

	if (atomic_fetch_or(&p->clusters[id / CLUSTER_PAGES].populated, bit) & bit)
		credits_put(p, 1);
	else
		count(&p->populated, 1);
}

uint32_t stage_get_run(struct pager *p, uint32_t want, bool empty, uint32_t *got)
{
	uint32_t id = BUFFER_NONE, n = 0;

	lock_acquire(&p->stage_lock);
	if (p->stage == CLUSTER_NONE)
		p->stage = cluster_get(p, empty ? 0 : CLUSTER_PAGES / 4);
	if (p->stage != CLUSTER_NONE) {
		struct cluster *c = &p->clusters[p->stage];
		uint32_t end = MAX(MIN(credits_batch(p), CLUSTER_PAGES), c->used + 1u);

		id = p->stage * CLUSTER_PAGES + c->used;
		n = MIN(want, end - c->used);
		atomic_fetch_add(&c->refs, n);
		for (uint32_t i = 0; i < n; i++)
			atomic_store(&c->buffer[c->used + i].state, BUFFER_CLAIMED);
		c->used = (uint8_t)(c->used + n);
		if (c->used >= end)
			join_standby(p);
	}
	lock_release(&p->stage_lock);
	*got = n;
	for (uint32_t i = id; i < id + n; i++) {
		uint64_t bit = UINT64_C(1) << i % CLUSTER_PAGES;

		/* A page cannot be moved to where one is. */
		if (empty && atomic_load(&p->clusters[i / CLUSTER_PAGES].populated) & bit)
			kernel_drop(buffer_address(p, i), PAGE_BYTES);
		lend(p, i);
	}
	return id;
}

uint32_t stage_get(struct pager *p, bool empty)
{
	uint32_t got;

	return stage_get_run(p, 1, empty, &got);
}

void stage_fill(struct pager *p, uint32_t id, page_id page, slot_t slot, enum buffer_state state)
{
	struct buffer *b = buffer_of(p, id);

	/* The reference of who has got it is the buffer's from now on. */
	buffer_rename(p, id, page);
	b->slot = slot;
	count(&p->standby, 1);
	atomic_store(&b->state, state);
}

void stage_drop(struct pager *p, uint32_t id)
{
	buffer_release(p, id, false);
}

/* Memory that the kernel keeps (locked, before Linux 5.18) would have no credit: it keeps this one. */
void stage_undo(struct pager *p, uint32_t id)
{
	bool dropped = kernel_drop(buffer_address(p, id), PAGE_BYTES) == 0;

	buffer_release(p, id, dropped);
	if (!dropped)
		atomic_fetch_sub(&p->credits, 1);
}

bool stage_flush(struct pager *p)
{
	bool some;

	lock_acquire(&p->stage_lock);
	some = p->stage != CLUSTER_NONE;
	if (some)
		join_standby(p);
	lock_release(&p->stage_lock);
	return some;
}
