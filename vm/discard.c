/* SPDX-License-Identifier: MIT */
/*
 * vm/discard.c - giving up contents: pages become EMPTY, and read as zeros.
 *
 * Leaves of the page table that were never touched are passed over, so a
 * terabyte of untouched region costs no more than its bitmap.
 */
#include "vm/lineage.h"
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
static int drop_run(struct quire_region *r, struct run *run, bool gone, uint64_t after)
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
			cow_drop_slot(r, run->first + i, slot, false);
		lose_pins(q, run->frames[i]);
	}
	if (!error) {
		frames_leave(&q->pager, run->frames, run->n);
		uncount(&r->counters.resident, run->n);
		uncount(&q->counters.resident, run->n);
	}
	for (uint32_t i = 0; i < run->n; i++)
		entry_publish(r, run->first + i,
		              error ? entry_make(ENTRY_MAPPED, run->frames[i]) : after);
	if (!error)
		credits_put(&q->pager, run->n);
	run->n = 0;
	return error;
}

static void drop_standby(struct quire_region *r, uint64_t page, uint32_t buffer, uint64_t after)
{
	struct quire *q = r->q;
	bool ahead = buffer_is_ahead(buffer_of(&q->pager, buffer));
	slot_t slot;

	region_uncount_standby(r, ahead);
	if (cow_is_shared(r, page)) {
		cow_keep_buffer(r, page, buffer, false);
		entry_publish(r, page, after);
		return;
	}
	buffer_claim(&q->pager, buffer, &slot);
	if (slot != SLOT_NONE)
		swapfile_unref(q->swap, slot);
	entry_publish(r, page, after);
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

static int drop_slot(struct quire_region *r, uint64_t page, uint64_t held, bool gone,
                     uint64_t after)
{
	struct quire *q = r->q;
	int error = held & ENTRY_LOST && !gone ? unpoison(r, page) : 0;

	if (error) {
		entry_publish(r, page, held);
		return error;
	}
	uncount(&r->counters.swapped, 1);
	uncount(&q->counters.swapped, 1);
	cow_drop_slot(r, page, entry_payload(held), false);
	entry_publish(r, page, after == ENTRY_GIVEN ? after | (held & ENTRY_LOST) : after);
	return 0;
}

/*
 * A dirty page that a snapshot shares: its bytes go into a buffer of the snapshot's, and its credit
 * with them. => -EAGAIN: there is no buffer just now; then as it was
 */
static int keep_mapped(struct quire_region *r, uint64_t page, uint64_t held, uint64_t after)
{
	struct quire *q = r->q;
	struct pager *p = &q->pager;
	uint32_t buffer = stage_get(p, q->engine.uffd.move), frame = entry_payload(held);
	struct take_page t = { .region = r,
		               .page = region_page(r, page),
		               .wanted = true,
		               .dirty = true,
		               .shared = true,
		               .given_up = true,
		               .backed = !q->engine.uffd.move };

	if (buffer == BUFFER_NONE)
		return -EAGAIN;
	t.buffer = buffer_address(p, buffer);
	q->engine.ops->take(&q->engine, &t, 1);
	if (t.result != TAKE_DONE && t.result != TAKE_GONE) {
		stage_undo(p, buffer);
		return -EBUSY;
	}
	if (t.result == TAKE_GONE || page_is_zero(t.buffer)) {
		stage_drop(p, buffer);
		cow_keep_zeros(r, page, true);
	} else {
		stage_fill(p, buffer, PAGE_ID(r->target->id, page), SLOT_NONE, BUFFER_DIRTY);
		cow_keep_buffer(r, page, buffer, false);
	}
	lose_pins(q, frame);
	frames_leave(p, &frame, 1);
	uncount(&r->counters.resident, 1);
	uncount(&q->counters.resident, 1);
	REGION_COUNT(r, snapshot_copies, 1);
	entry_publish(r, page, after);
	return 0;
}

struct discard {
	struct quire_region *r;
	struct run run;
	uint64_t after;      /* what the entries are then */
	bool pins_too, gone; /* gone: all has been unmapped already */
	bool leaving; /* only what snapshots share; what is inherited they inherit without us */
	bool inside;  /* the gate, while a run is held and while a page is dealt with */
	struct patience patience;
};

static int finish_run(struct discard *d)
{
	int error = drop_run(d->r, &d->run, d->gone, d->after);

	if (d->inside)
		cow_leave(d->r);
	d->inside = false;
	return error;
}

/* The entry is held, inside the gate. => as discard_one */
static int discard_mapped(struct discard *d, uint64_t page, uint64_t e)
{
	struct quire_region *r = d->r;
	const struct frame *frame = &r->q->pager.frames[entry_payload(e)];

	if (frame->pins && !d->pins_too) {
		entry_publish(r, page, e);
		return -EBUSY;
	}
	if (frame->slot == SLOT_NONE && cow_is_shared(r, page)) {
		int error = keep_mapped(r, page, e, d->after);

		if (error)
			entry_publish(r, page, e);
		return error;
	}
	if (d->run.n == 0)
		d->run.first = page;
	d->run.frames[d->run.n++] = entry_payload(e);
	return 0;
}

/*
 * => the entry is held, inside the gate
 * => -EAGAIN: there is no memory just now; -ENODATA: it must be inherited first. It is as it was
 */
static int discard_one(struct discard *d, uint64_t page, uint64_t e)
{
	struct quire_region *r = d->r;

	if (cow_is_shared(r, page) && !cow_reserve(r, page)) {
		entry_publish(r, page, e);
		return -ENOMEM;
	}
	if (d->leaving && !cow_is_shared(r, page) && !d->gone) {
		entry_publish(r, page, e);
		return 0;
	}
	switch (entry_state(e)) {
	case ENTRY_MAPPED:
		return discard_mapped(d, page, e);
	case ENTRY_STANDBY:
		drop_standby(r, page, entry_payload(e), d->after);
		return 0;
	case ENTRY_SLOT:
		/* A page that is poisoned goes with its region. */
		return drop_slot(r, page, e, d->gone || d->leaving, d->after);
	default:
		/* The snapshot has it from the parent, by way of this entry. */
		if (entry_state(e) == ENTRY_EMPTY && r->parent && cow_is_shared(r, page)) {
			entry_publish(r, page, e);
			return -ENODATA;
		}
		if (cow_is_shared(r, page))
			cow_keep_zeros(r, page, true);
		entry_publish(r, page, d->after);
		return 0;
	}
}

/* Nothing is there to be discarded. */
static bool passes_over(const struct discard *d, uint64_t page)
{
	uint64_t e = atomic_load(region_entry(d->r, page));

	if (entry_state(e) == ENTRY_GIVEN)
		return true;
	if (e == ENTRY_ZERO)
		return d->after == ENTRY_ZERO && !d->leaving;
	return e == ENTRY_EMPTY && (d->leaving || d->after == ENTRY_EMPTY);
}

/* No entry is held, nor the gate: a page could not be dealt with, and is as it was. => 0: once more */
static int prepare_again(struct discard *d, uint64_t page, int why)
{
	int error = finish_run(d);

	if (error)
		return error;
	if (why == -ENODATA)
		return lineage_inherit(d->r, page);
	return reclaim_wait(&d->r->q->pager, &d->patience) ? 0 : -ENOMEM;
}

/* The entry is not to be had at once. => it is held, and no other is */
static int wait_for_entry(struct discard *d, uint64_t page, uint64_t *e)
{
	int error = finish_run(d);

	if (!error)
		*e = entry_hold(d->r, page);
	return error;
}

static int discard_page(struct discard *d, uint64_t page)
{
	struct quire_region *r = d->r;
	uint64_t e;
	int error = 0;

	if (!region_touch_leaf(r, page))
		return -ENOMEM;
	if (d->run.n && (d->run.n == CLUSTER_PAGES || d->run.first + d->run.n != page))
		error = finish_run(d);
	if (error)
		return error;
	/*
	 * Who holds mapped pages, or is inside the gate, must not wait (the reclaimer
	 * waits for them, and others for the reclaimer): before a wait the run goes.
	 */
	e = atomic_load(region_entry(r, page));
	if (entry_state(e) == ENTRY_READING || !entry_try(region_entry(r, page), e))
		error = wait_for_entry(d, page, &e);
	if (error)
		return error;
	if (!d->inside)
		cow_enter(r);
	d->inside = true;
	error = discard_one(d, page, e & ~(ENTRY_BUSY | ENTRY_MARKS));
	if (d->run.n == 0) {
		cow_leave(r);
		d->inside = false;
	}
	return error;
}

static int discard_pages(struct discard *d, uint64_t first, uint64_t end)
{
	struct quire_region *r = d->r;
	int error = 0, last;

	for (uint64_t page = first; page < end && !error;) {
		if (!region_leaf_touched(r, page) && (d->leaving || !r->parent)) {
			page = (page | (LEAF_ENTRIES - 1)) + 1;
			continue;
		}
		if (!passes_over(d, page))
			error = discard_page(d, page);
		if (error == -EAGAIN || error == -ENODATA)
			error = prepare_again(d, page, error);
		else
			page++;
	}
	last = finish_run(d);
	return error ? error : last;
}

int discard_range(struct quire_region *r, uint64_t first, uint64_t n, bool pins_too)
{
	struct discard d = { .r = r, .after = entry_zeros(r), .pins_too = pins_too };
	int error = discard_pages(&d, first, first + n);

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
	struct discard d = { .r = r,
		             .after = ENTRY_EMPTY,
		             .pins_too = true,
		             .gone = true,
		             .leaving = true };

	discard_pages(&d, 0, r->pages);
}

/* Room for all of it first: so that it does not fail half way for want of that. */
static bool reserve_all(struct quire_region *r)
{
	for (uint64_t page = 0; page < r->pages; page += LEAF_ENTRIES)
		if (region_leaf_touched(r, page) && !region_touch_leaf(r->target, page))
			return false;
	return true;
}

/* What it has given is its own again. */
static void take_all_back(struct quire_region *r)
{
	for (uint64_t page = 0; page < r->pages; page++) {
		uint64_t e;

		if (!region_leaf_touched(r, page)) {
			page |= LEAF_ENTRIES - 1;
			continue;
		}
		e = atomic_load(region_entry(r, page));
		if (entry_state(e) == ENTRY_GIVEN)
			cow_take_back(r, page, e & ENTRY_LOST);
	}
}

int discard_to_snapshots(struct quire_region *r)
{
	struct discard d = { .r = r, .after = ENTRY_GIVEN, .pins_too = true, .leaving = true };
	int error = reserve_all(r) ? discard_pages(&d, 0, r->pages) : -ENOMEM;

	if (error)
		take_all_back(r);
	return error;
}

int discard_for(struct quire_region *r, uint64_t page, uint64_t after)
{
	struct discard d = { .r = r, .after = after };
	int error, last;

	while ((error = discard_page(&d, page)) == -EAGAIN || error == -ENODATA) {
		error = prepare_again(&d, page, error);
		if (error)
			break;
	}
	last = finish_run(&d);
	return error ? error : last;
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
