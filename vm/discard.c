/* SPDX-License-Identifier: MIT */
/*
 * vm/discard.c - giving up contents: pages become EMPTY, and read as zeros.
 *
 * Leaves of the page table that were never touched are passed over, so a
 * terabyte of untouched region costs no more than its bitmap.
 */
#include "vm/vm.h"

#include <errno.h>

/* A run of neighbouring mapped pages, held. */
struct run {
	uint64_t first;
	uint32_t n;
	uint32_t frames[CLUSTER_PAGES];
};

static void lose_pins(struct quire *q, uint32_t frame)
{
	if (q->pager.frames[frame].pins == 0)
		return;
	q->pager.frames[frame].pins = 0;
	pin_forget(q, 1);
}

/* gone: the whole range has been unmapped already. */
static int drop_run(struct quire_region *r, struct run *run, bool gone)
{
	struct quire *q = r->q;
	int error = 0;

	if (run->n == 0)
		return 0;
	if (!gone)
		error = q->engine.ops->drop(&q->engine, r, region_page(r, run->first), run->n);
	for (uint32_t i = 0; i < run->n && !error; i++) {
		slot_t slot = q->pager.frames[run->frames[i]].slot;

		if (slot != SLOT_NONE)
			swapfile_unref(q->swap, slot);
		lose_pins(q, run->frames[i]);
	}
	if (!error) {
		frames_leave(&q->pager, run->frames, run->n);
		uncount(&r->counters.resident, run->n);
		uncount(&q->counters.resident, run->n);
	}
	for (uint32_t i = 0; i < run->n; i++)
		entry_publish(r, run->first + i,
		              error ? entry_make(ENTRY_MAPPED, run->frames[i]) : ENTRY_EMPTY);
	if (!error)
		credits_put(&q->pager, run->n);
	run->n = 0;
	return error;
}

static void drop_standby(struct quire_region *r, uint64_t page, uint32_t buffer)
{
	struct quire *q = r->q;
	bool ahead = buffer_of(&q->pager, buffer)->readahead;
	slot_t slot;

	buffer_claim(&q->pager, buffer, &slot);
	if (slot != SLOT_NONE)
		swapfile_unref(q->swap, slot);
	region_uncount_standby(r, ahead);
	entry_publish(r, page, ENTRY_EMPTY);
	buffer_release(&q->pager, buffer, false);
}

/* The page may be poisoned: make it an absent page again. The entry is held and not MAPPED. */
static int unpoison(struct quire_region *r, uint64_t page)
{
	struct engine *e = &r->q->engine;

	if (!e->ops->poison || !e->uffd.poison)
		return 0;
	return e->ops->drop(e, r, region_page(r, page), 1);
}

int discard_poison(struct quire_region *r, uint64_t page)
{
	uint64_t e = atomic_load(region_entry(r, page));
	int error;

	if (!(e & ENTRY_BUSY) && entry_state(e) == ENTRY_MAPPED)
		return 0;
	/* It may have been refused for want of memory for this very entry. */
	if (!region_touch_leaf(r, page))
		return -ENOMEM;
	if (entry_state(e) == ENTRY_READING || !entry_try(region_entry(r, page), e))
		return -EBUSY;
	error = unpoison(r, page);
	entry_publish(r, page, error ? e : e & ~ENTRY_LOST);
	return error;
}

static int drop_slot(struct quire_region *r, uint64_t page, uint64_t held, bool gone)
{
	struct quire *q = r->q;
	int error = held & ENTRY_LOST && !gone ? unpoison(r, page) : 0;

	if (error) {
		entry_publish(r, page, held);
		return error;
	}
	swapfile_unref(q->swap, entry_payload(held));
	uncount(&r->counters.swapped, 1);
	uncount(&q->counters.swapped, 1);
	entry_publish(r, page, ENTRY_EMPTY);
	return 0;
}

static int discard_pages(struct quire_region *r, uint64_t first, uint64_t end, bool pins_too,
                         bool gone)
{
	struct run run = { .n = 0 };
	int error = 0;

	for (uint64_t page = first; page < end && !error; page++) {
		uint64_t e;

		if (!region_leaf_touched(r, page)) {
			page |= LEAF_ENTRIES - 1;
			continue;
		}
		if (atomic_load(region_entry(r, page)) == ENTRY_EMPTY)
			continue;
		if (run.n && (run.n == CLUSTER_PAGES || run.first + run.n != page))
			error = drop_run(r, &run, gone);
		if (error)
			break;
		/*
		 * Who holds mapped pages must not wait (the reclaimer waits for
		 * them, and others for the reclaimer): before a wait the run goes.
		 */
		e = atomic_load(region_entry(r, page));
		if (entry_state(e) == ENTRY_READING || !entry_try(region_entry(r, page), e)) {
			error = drop_run(r, &run, gone);
			if (error)
				break;
			e = entry_hold(r, page);
		}
		e &= ~(ENTRY_BUSY | ENTRY_MARKS);
		switch (entry_state(e)) {
		case ENTRY_MAPPED:
			if (r->q->pager.frames[entry_payload(e)].pins && !pins_too) {
				entry_publish(r, page, e);
				error = -EBUSY;
				break;
			}
			if (run.n == 0)
				run.first = page;
			run.frames[run.n++] = entry_payload(e);
			break;
		case ENTRY_STANDBY:
			drop_standby(r, page, entry_payload(e));
			break;
		case ENTRY_SLOT:
			error = drop_slot(r, page, e, gone);
			break;
		default:
			entry_publish(r, page, e);
			break;
		}
	}
	if (run.n) {
		int last = drop_run(r, &run, gone);

		error = error ? error : last;
	}
	return error;
}

int discard_range(struct quire_region *r, uint64_t first, uint64_t n, bool pins_too)
{
	int error = discard_pages(r, first, first + n, pins_too, false);

	forgive(r->q);
	return error;
}

void forgive(struct quire *q)
{
	if (q->engine.ops->forgive)
		q->engine.ops->forgive(&q->engine);
}

void discard_unmapped(struct quire_region *r)
{
	discard_pages(r, 0, r->pages, true, true);
}

void discard_settle(struct quire_region *r)
{
	for (uint64_t page = 0; page < r->pages; page++) {
		uint64_t e;

		if (!region_leaf_touched(r, page)) {
			page |= LEAF_ENTRIES - 1;
			continue;
		}
		e = atomic_load(region_entry(r, page));
		if (entry_state(e) == ENTRY_READING || e & ENTRY_BUSY)
			entry_publish(r, page, entry_hold(r, page));
	}
}
