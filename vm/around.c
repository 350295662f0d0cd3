/* SPDX-License-Identifier: MIT */
/* vm/around.c - see around.h. */
#include "vm/around.h"

#include "vm/vm.h"

/* Pages; and so many of them touched make a block dense. */
#define BLOCK 16u
#define BLOCK_DENSE 6u

static uint64_t beside(const struct fault *f, int direction, uint32_t distance)
{
	return direction < 0 ? f->page - distance : f->page + distance;
}

/* Hold up to n pages beside f->page, the last of them one to be served. => how far; *served: how many */
static uint32_t hold_some(const struct fault *f, const struct around *kind, int direction,
                          uint32_t n, uint32_t *served)
{
	struct quire_region *r = f->region;
	uint32_t held = 0, far = 0;

	for (uint32_t i = 1; i <= n; i++) {
		uint64_t page = beside(f, direction, i);
		enum around_page what = page < r->pages ? kind->hold(r, page) : AROUND_END;

		if (what == AROUND_END)
			break;
		held = i;
		if (what == AROUND_PASSED)
			continue;
		far = i;
		++*served;
	}
	/* What was passed behind the last one lies between no pages. */
	for (; held > far; held--) {
		uint64_t page = beside(f, direction, held);

		entry_publish(r, page, atomic_load(region_entry(r, page)));
	}
	return far;
}

/*
 * Pages beside f->page, in a block in most of which there are touched ones: they will be touched, too, in
 * whatever order. Only while memory is plenty: those that are not cost no reads, but memory until
 * they are evicted.
 */
static void fill_gap(const struct fault *f, const struct around *kind, struct span *s)
{
	struct quire_region *r = f->region;
	uint64_t block = f->page / BLOCK * BLOCK, end = MIN(block + BLOCK, r->pages);
	uint32_t touched = 1; /* this one, of which nothing tells yet */

	if (!credits_ample(&r->q->pager))
		return;
	for (uint64_t page = block; page < end; page++)
		touched += page != f->page && kind->is_done(r, page);
	if (touched < BLOCK_DENSE || !credits_try_new(&r->q->pager, BLOCK - 1))
		return;
	s->below = hold_some(f, kind, -1, (uint32_t)(f->page - block), &s->served);
	s->above = hold_some(f, kind, 1, (uint32_t)(end - 1 - f->page), &s->served);
	credits_put(&r->q->pager, BLOCK - 1 - s->served);
}

/* Pages in the way that a front goes. */
static void fill_front(const struct fault *f, const struct around *kind, struct span *s,
                       uint32_t want, int direction)
{
	struct pager *p = &f->region->q->pager;
	uint32_t n;

	/* Where memory is short, a part of it: others need some too. */
	want = credits_spare(p, MIN(want, CLUSTER_PAGES - 1));
	if (want == 0 || !credits_try_new(p, want))
		return;
	n = hold_some(f, kind, direction, want, &s->served);
	credits_put(p, want - s->served);
	*(direction < 0 ? &s->below : &s->above) = n;
}

struct span around_hold(const struct fault *f, const struct around *kind)
{
	struct quire_region *r = f->region;
	struct span s = { .below = 0 };
	bool random;
	uint32_t want;
	int direction;

	lock_acquire(&r->readahead_lock);
	want = faultaround_touch(kind->fronts, f->page, kind->max, &direction, &s.front);
	random = r->readahead.mode == RA_RANDOM;
	lock_release(&r->readahead_lock);
	if (random || r->q->readahead_max <= 1)
		return s;
	if (want)
		fill_front(f, kind, &s, want, direction);
	else
		fill_gap(f, kind, &s);
	return s;
}

void around_done(const struct fault *f, const struct around *kind, const struct span *s,
                 uint64_t first, uint32_t n)
{
	lock_acquire(&f->region->readahead_lock);
	faultaround_filled(kind->fronts, s->front, first, n);
	lock_release(&f->region->readahead_lock);
}
