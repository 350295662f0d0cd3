/* SPDX-License-Identifier: MIT */
/*
 * vm/zero_fill.c - first touches: a page of zeros, and which others with it.
 *
 * A fault costs several times what a page of zeros does, so pages that are about
 * to be touched are filled with the one that was (around.h).
 */
#include "vm/around.h"
#include "vm/vm.h"

#include <errno.h>

/* A credit for a page of new contents; the entry is held. */
static enum fault_result get_credit(struct fault *f)
{
	struct pager *p = &f->region->q->pager;

	if (credits_try_new(p, 1))
		return FAULT_DONE;
	if (!f->may_sleep)
		return FAULT_DEFERRED;
	return credits_get_new(p, 1) == 0 ? FAULT_DONE : FAULT_NOMEM;
}

static enum around_page hold_untouched(struct quire_region *r, uint64_t page)
{
	bool held = region_touch_leaf(r, page) && entry_try(region_entry(r, page), entry_zeros(r));

	return held ? AROUND_HELD : AROUND_END;
}

static bool is_touched(struct quire_region *r, uint64_t page)
{
	return entry_state(atomic_load(region_entry(r, page))) != entry_zeros(r);
}

/* Before the pages are written they are zeros, for the snapshots, too. => inside the gate; false: no memory */
static bool keep_zeros(const struct fault *f, uint64_t first, uint32_t n)
{
	struct quire_region *r = f->region;

	for (uint64_t page = first; page < first + n; page++) {
		if (!cow_is_shared(r, page))
			continue;
		if (!cow_reserve(r, page))
			return false;
		cow_keep_zeros(r, page, page != f->page || !f->write);
	}
	return true;
}

/* => inside the gate */
static uint32_t fill_inside(struct fault *f, uint64_t first, uint32_t n)
{
	struct quire_region *r = f->region;
	struct quire *q = r->q;
	uint32_t frames[CLUSTER_PAGES], filled;
	page_id ids[CLUSTER_PAGES];
	int result;

	if (!keep_zeros(f, first, n)) {
		f->error = ENOMEM;
		return 0;
	}
	result = q->engine.ops->map_zero(&q->engine, r, region_page(r, first), n, f->write);
	f->error = result < 0 ? -result : 0;
	if (result <= 0)
		return 0;
	filled = (uint32_t)result;
	for (uint32_t i = 0; i < filled; i++)
		ids[i] = PAGE_ID(r->id, first + i);
	frames_enter(&q->pager, ids, frames, filled, POLICY_FAULTED, (uint32_t)(f->page - first));
	REGION_COUNT(r, zero_fills, filled);
	region_count_resident(r, filled);
	for (uint32_t i = 0; i < filled; i++)
		entry_publish(r, first + i, entry_make(ENTRY_MAPPED, frames[i]));
	return filled;
}

/*
 * Fill pages [first, first + n), whose entries are held, with a credit each,
 * as far as the engine does. What is filled may have been written to already,
 * entry held or not: it stays. => how many are filled and published
 */
static uint32_t fill(struct fault *f, uint64_t first, uint32_t n)
{
	uint32_t filled;

	cow_enter(f->region);
	filled = fill_inside(f, first, n);
	cow_leave(f->region);
	return filled;
}

enum fault_result fault_zero_fill(struct fault *f)
{
	struct quire_region *r = f->region;
	struct around kind = { .fronts = &r->faultaround,
		               .max = r->q->readahead_max,
		               .hold = hold_untouched,
		               .is_done = is_touched };
	enum fault_result result = get_credit(f);
	bool touched, alone = false;
	uint32_t n, filled;
	struct span s;
	uint64_t first;

	if (result != FAULT_DONE) {
		entry_publish(r, f->page, f->held);
		return result;
	}
	s = around_hold(f, &kind);
	first = f->page - s.below;
	n = s.below + 1 + s.above;
	filled = fill(f, first, n);
	touched = f->page < first + filled;
	if (!touched && n > 1)
		touched = alone = fill(f, f->page, 1) == 1;
	if (filled && touched && !alone)
		around_done(f, &kind, &s, first, filled);
	for (uint64_t page = first + filled; page < first + n; page++)
		if (!(alone && page == f->page))
			entry_publish(r, page, entry_zeros(r));
	credits_put(&r->q->pager, n - filled - alone);
	return touched ? FAULT_DONE : FAULT_REFUSED;
}
