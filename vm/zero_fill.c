/* SPDX-License-Identifier: MIT */
/*
 * vm/zero_fill.c - first touches: a page of zeros, and which others with it.
 *
 * A fault costs several times what a page of zeros does, so pages that are about
 * to be touched are filled with the one that was: the next ones where touches go
 * in order (pager/faultaround.h), and the gaps of a block that is touched here
 * and there, once it is dense.
 */
#include "vm/vm.h"

#include <errno.h>

/* Pages; and so many of them touched make a block dense. */
#define BLOCK 16u
#define BLOCK_DENSE 6u

/* Pages beside the touched one. */
struct span {
	uint32_t below, above;
	unsigned front; /* of faultaround */
};

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

/* Hold the entries of up to n untouched pages beside f->page. => how many */
static uint32_t hold_untouched(struct fault *f, int direction, uint32_t n)
{
	struct quire_region *r = f->region;
	uint32_t i;

	for (i = 0; i < n; i++) {
		uint64_t page = f->page + (uint64_t)(int64_t)(direction * (int)(i + 1));

		if (page >= r->pages)
			break;
		if (!region_touch_leaf(r, page) ||
		    !entry_try(region_entry(r, page), entry_zeros(r)))
			break;
	}
	return i;
}

/*
 * Untouched pages beside f->page, in a block in most of which there are touched ones: they will
 * be touched, too, in whatever order. Only while memory is plenty: those that are not are
 * zeros, and cost no I/O, but memory until they are evicted.
 */
static void fill_gap(struct fault *f, struct span *s)
{
	struct quire_region *r = f->region;
	uint64_t block = f->page / BLOCK * BLOCK, end = MIN(block + BLOCK, r->pages);
	uint32_t touched = 1; /* this one, whose entry says nothing of it yet */

	if (!credits_ample(&r->q->pager))
		return;
	for (uint64_t page = block; page < end; page++)
		touched += entry_state(atomic_load(region_entry(r, page))) != entry_zeros(r);
	if (touched < BLOCK_DENSE || !credits_try_new(&r->q->pager, BLOCK - 1))
		return;
	s->below = hold_untouched(f, -1, (uint32_t)(f->page - block));
	s->above = hold_untouched(f, 1, (uint32_t)(end - 1 - f->page));
	credits_put(&r->q->pager, BLOCK - 1 - s->below - s->above);
}

/* Pages in the way that a front goes. */
static void fill_front(struct fault *f, struct span *s, uint32_t want, int direction)
{
	struct pager *p = &f->region->q->pager;
	uint32_t n;

	/* Where memory is short, a part of it: others need some too. */
	want = credits_spare(p, MIN(want, CLUSTER_PAGES - 1));
	if (want == 0 || !credits_try_new(p, want))
		return;
	n = hold_untouched(f, direction, want);
	credits_put(p, want - n);
	*(direction < 0 ? &s->below : &s->above) = n;
}

/* Fault-around: the pages to be filled beside the touched one, held, with a credit each. */
static struct span around(struct fault *f)
{
	struct quire_region *r = f->region;
	struct span s = { .below = 0 };
	bool random;
	uint32_t want;
	int direction;

	lock_acquire(&r->readahead_lock);
	want = faultaround_touch(&r->faultaround, f->page, r->q->readahead_max, &direction,
	                         &s.front);
	random = r->readahead.mode == RA_RANDOM;
	lock_release(&r->readahead_lock);
	if (random || r->q->readahead_max <= 1)
		return s;
	if (want)
		fill_front(f, &s, want, direction);
	else
		fill_gap(f, &s);
	return s;
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
	enum fault_result result = get_credit(f);
	bool touched, alone = false;
	uint32_t n, filled;
	struct span s;
	uint64_t first;

	if (result != FAULT_DONE) {
		entry_publish(r, f->page, f->held);
		return result;
	}
	s = around(f);
	first = f->page - s.below;
	n = s.below + 1 + s.above;
	filled = fill(f, first, n);
	touched = f->page < first + filled;
	if (!touched && n > 1)
		touched = alone = fill(f, f->page, 1) == 1;
	if (filled && touched && !alone) {
		lock_acquire(&r->readahead_lock);
		faultaround_filled(&r->faultaround, s.front, first, filled);
		lock_release(&r->readahead_lock);
	}
	for (uint64_t page = first + filled; page < first + n; page++)
		if (!(alone && page == f->page))
			entry_publish(r, page, entry_zeros(r));
	credits_put(&r->q->pager, n - filled - alone);
	return touched ? FAULT_DONE : FAULT_REFUSED;
}
