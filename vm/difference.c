/* SPDX-License-Identifier: MIT */
/*
 * vm/difference.c - what has changed between two snapshots of a region: what those between them
 * keep, of which no byte is looked at. Only of a page that became writable, while nobody may have
 * written to it (ENTRY_MAYBE), the bytes are compared.
 */
#include "vm/snapshot.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>

bool snapshot_has_changed(const struct quire_region *a, const struct quire_region *b, uint64_t page)
{
	for (; a && a->is_snapshot && a != b; a = snapshot_newer(a))
		if (cow_has_own(a, page))
			return true;
	return false;
}

bool snapshot_leaf_may_differ(const struct quire_region *a, const struct quire_region *b,
                              uint64_t page)
{
	for (; a && a->is_snapshot && a != b; a = snapshot_newer(a))
		if (region_leaf_touched(a, page))
			return true;
	return false;
}

/* => a is b, or the older of two of one region */
static bool comes_before(const struct quire_region *a, const struct quire_region *b)
{
	while (a && a != b)
		a = snapshot_newer(a);
	return a != NULL;
}

bool snapshots_in_order(struct quire_region **a, struct quire_region **b)
{
	struct quire_region *other = *a;
	struct call call;
	bool before, after;

	call_enter(&call);
	lock_acquire(&other->q->lineage_lock);
	before = comes_before(*a, *b);
	after = !before && comes_before(*b, *a);
	lock_release(&other->q->lineage_lock);
	call_leave(&call);
	if (after) {
		*a = *b;
		*b = other;
	}
	return before || after;
}

struct range {
	quire_diff_fn call;
	void *arg;
	uint64_t first, n; /* pages */
};

/* => what the callback says, if it is called */
static int add_page(struct range *g, uint64_t page, bool differs)
{
	int result = 0;

	if (g->n && (!differs || g->first + g->n != page)) {
		result = g->call(g->arg, g->first << PAGE_SHIFT, g->n << PAGE_SHIFT);
		g->n = 0;
	}
	if (differs && g->n++ == 0)
		g->first = page;
	return result;
}

static enum change change_of(const struct quire_region *a, const struct quire_region *b,
                             uint64_t page)
{
	enum change change = SAME;

	for (; a != b && change != CHANGED; a = snapshot_newer(a))
		if (cow_has_own(a, page))
			change = atomic_load(region_entry(a, page)) & ENTRY_MAYBE ? MAYBE : CHANGED;
	return change;
}

bool snapshots_compare_leaf(const struct quire_region *a, const struct quire_region *b,
                            uint64_t page, unsigned char change[LEAF_ENTRIES])
{
	uint64_t n = MIN(LEAF_ENTRIES, a->pages - page);
	struct call call;
	bool some;

	call_enter(&call);
	lock_acquire(&a->q->lineage_lock);
	some = snapshot_leaf_may_differ(a, b, page);
	for (uint64_t i = 0; some && i < n; i++)
		change[i] = (unsigned char)change_of(a, b, page + i);
	lock_release(&a->q->lineage_lock);
	call_leave(&call);
	return some;
}

/* The page could be written, and it is not known whether it was. What cannot be read differs. */
static bool bytes_differ(struct quire_region *a, struct quire_region *b, uint64_t page)
{
	_Alignas(PAGE_BYTES) char of_a[PAGE_BYTES];
	_Alignas(PAGE_BYTES) char of_b[PAGE_BYTES];
	struct call call;
	uint64_t bad;
	bool differ;

	call_enter(&call);
	differ = snapshot_pages(a, page, 1, of_a, &bad) != 0 ||
	         snapshot_pages(b, page, 1, of_b, &bad) != 0 || memcmp(of_a, of_b, PAGE_BYTES) != 0;
	call_leave(&call);
	return differ;
}

static int diff_leaf(struct quire_region *a, struct quire_region *b, uint64_t first,
                     struct range *range)
{
	unsigned char change[LEAF_ENTRIES];
	int result = 0;

	if (!snapshots_compare_leaf(a, b, first, change))
		return add_page(range, first, false);
	for (uint64_t i = 0; i < MIN(LEAF_ENTRIES, a->pages - first) && !result; i++) {
		bool differs = change[i] == CHANGED ||
		               (change[i] == MAYBE && bytes_differ(a, b, first + i));

		result = add_page(range, first + i, differs);
	}
	return result;
}

int quire_snapshot_diff(const quire_snapshot_t *one, const quire_snapshot_t *two,
                        quire_diff_fn call, void *arg)
{
	struct quire_region *a = snapshot_record(one), *b = snapshot_record(two);
	struct range range = { .call = call, .arg = arg };
	int result = 0;

	if (!call)
		return error_set(EINVAL, "a NULL function");
	if (!snapshot_is_valid(one) || !snapshot_is_valid(two))
		return snapshot_invalid(snapshot_is_valid(one) ? two : one);
	if (!snapshots_in_order(&a, &b))
		return error_set(EINVAL, "the snapshots are not of the same region");
	for (uint64_t page = 0; page < a->pages && !result; page += LEAF_ENTRIES)
		result = diff_leaf(a, b, page, &range);
	return result ? result : add_page(&range, a->pages, false);
}
