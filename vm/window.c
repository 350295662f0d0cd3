/* SPDX-License-Identifier: MIT */
/*
 * vm/window.c - windows: several pages read, or put back, at once.
 *
 * A readahead window is one cluster: its pages in rising order (a page that a
 * fault waits for comes first), READING and then STANDBY. It is mapped when
 * the program touches one of its pages, all of it that has arrived with one
 * call, while the next window is being read.
 */
#include "vm/lineage.h"
#include "vm/vm.h"

#include <errno.h>

bool window_plan(struct quire_region *r, uint64_t page, bool write, struct ra_plan *plan)
{
	bool some;

	plan->count = 0;
	lock_acquire(&r->readahead_lock);
	some = readahead_fault(&r->readahead, page, r->pages, write, plan);
	lock_release(&r->readahead_lock);
	return some;
}

static void count_read(struct quire_region *r, uint32_t planned, uint32_t demand)
{
	REGION_COUNT(r, readahead_issued, planned);
	count(&r->counters.pages_in, planned + demand);
}

/* What a clone has not touched yet is its parent's: if that is a slot, it becomes the clone's own, to be read with others. */
static void inherit_slot(struct quire_region *r, uint64_t page)
{
	struct content c;

	if (!region_touch_leaf(r, page) || atomic_load(region_entry(r, page)) != ENTRY_EMPTY ||
	    !entry_try(region_entry(r, page), ENTRY_EMPTY))
		return;
	if (lineage_content(r->parent, page, NULL, false, &c) == 0 && c.kind == CONTENT_SLOT)
		entry_publish(r, page, lineage_own(r, page, &c, BUFFER_NONE));
	else
		entry_publish(r, page, ENTRY_EMPTY);
}

/* Hold the next page of a plan if it is a slot. => its entry's value, or 0 */
static uint64_t hold_slot(struct quire_region *r, uint64_t page)
{
	entry_t *entry = region_entry(r, page);
	uint64_t e;

	if (page >= r->pages)
		return 0;
	if (unlikely(r->parent))
		inherit_slot(r, page);
	if (!region_leaf_touched(r, page))
		return 0;
	e = atomic_load(entry);
	if (entry_state(e) != ENTRY_SLOT || e & ENTRY_LOST || !entry_try(entry, e))
		return 0;
	return e;
}

/*
 * A cluster with a queue reserved to read into it.
 * => CLUSTER_NONE: *congested says whether for want of a queue
 */
static uint32_t reserve(struct pager *p, uint32_t want, bool *congested)
{
	uint32_t c = cluster_get(p, want);

	*congested = false;
	if (c == CLUSTER_NONE || readin_reserve(p, c))
		return c;
	*congested = true;
	cluster_put(p, c);
	return CLUSTER_NONE;
}

/* Nothing is to be read after all; no entry says so yet. */
static bool cancel(struct pager *p, uint32_t c)
{
	readin_cancel(p, c);
	cluster_put(p, c);
	return false;
}

/*
 * Start reading pages first, first + stride, ... of a plan, as many as are
 * slots and as there is memory for, into one cluster. The queue is reserved
 * before any entry says READING: from there on nothing fails.
 * => *taken: how many of the plan's pages were looked at
 */
static bool start_cluster(struct quire_region *r, const struct ra_plan *plan, struct fault *demand,
                          uint32_t *id, uint32_t *taken)
{
	struct pager *p = &r->q->pager;
	uint32_t want = credits_spare(p, MIN(plan->count, CLUSTER_PAGES - 1)), c, n = 0, first;
	uint64_t pages[CLUSTER_PAGES], held[CLUSTER_PAGES];
	bool congested;

	*taken = 0;
	if (want == 0 && !demand)
		return false;
	c = reserve(p, want + (demand ? 1 : 0), &congested);
	if (demand)
		demand->congested = congested;
	if (c == CLUSTER_NONE)
		return false;
	if (!cluster_populate(p, c, want + (demand ? 1 : 0))) {
		want = 0;
		if (!demand || !cluster_populate(p, c, 1))
			return cancel(p, c);
	}
	if (demand) {
		pages[n] = demand->page;
		held[n++] = demand->held;
	}
	first = n;
	for (uint32_t i = 0; i < want; i++) {
		/* Rising addresses, whichever way the stream goes. */
		uint32_t k = plan->stride < 0 ? want - 1 - i : i;
		uint64_t page = plan->start + (uint64_t)(plan->stride * (int64_t)k);
		uint64_t e = hold_slot(r, page);

		if (e) {
			pages[n] = page;
			held[n++] = e;
		}
	}
	if (n == 0) {
		/* All are in memory already. */
		*taken = want;
		return cancel(p, c);
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t b = c * CLUSTER_PAGES + i;

		buffer_fill(p, b, PAGE_ID(r->id, pages[i]), entry_payload(held[i]), BUFFER_READING,
		            i >= first);
	}
	p->clusters[c].used = (uint8_t)n;
	p->clusters[c].started = demand ? demand->started : 0;
	*id = c * CLUSTER_PAGES;
	/* A handler's thread waits in the kernel: it is to be served on arrival. */
	for (uint32_t i = 0; i < n; i++) {
		entry_t *entry = region_entry(r, pages[i]);
		uint64_t old = atomic_load(entry);
		uint64_t reading = entry_make(ENTRY_READING, c * CLUSTER_PAGES + i) |
		                   (demand && i == 0 && !demand->may_sleep ? ENTRY_FAULTS : 0);

		/* Who waits for BUSY to end looks again when it has; the marks stay with the read. */
		while (!atomic_compare_exchange_weak(entry, &old, reading | (old & ENTRY_MARKS)))
			;
		if (old & ENTRY_WAITERS)
			futex_wake(entry_futex(entry), INT32_MAX, false);
	}
	readin_start(p, c, n);
	*taken = want;
	count_read(r, n - first, first);
	cluster_to_standby(p, c);
	cluster_put(p, c);
	return true;
}

bool window_start(struct quire_region *r, const struct ra_plan *plan, struct fault *demand,
                  uint32_t *id)
{
	struct ra_plan part = *plan;
	uint32_t done, taken, ignored;
	bool started;

	/* Wide windows take more clusters, all in flight at once. */
	part.count = MIN(plan->count, CLUSTER_PAGES - 1);
	started = start_cluster(r, &part, demand, id, &taken);
	for (done = taken; taken == part.count && done < plan->count; done += taken) {
		part.start = plan->start + (uint64_t)(plan->stride * (int64_t)done);
		part.count = MIN(plan->count - done, CLUSTER_PAGES - 1);
		started |= start_cluster(r, &part, NULL, &ignored, &taken) && !demand;
	}
	if (done < plan->count) {
		lock_acquire(&r->readahead_lock);
		readahead_truncated(&r->readahead, plan, done);
		lock_release(&r->readahead_lock);
	}
	return started;
}
