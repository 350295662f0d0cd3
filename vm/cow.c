/* SPDX-License-Identifier: MIT */
/* vm/cow.c - see cow.h. */
#include "vm/vm.h"

/* How long threads wait at a closed gate before it has its purpose. */
#define DRAIN_NS UINT64_C(5000000)

/* -------------------------------------------------------------- the gate */

void cow_enter(struct quire_region *r)
{
	struct cow_gate *g = &r->gate;

	for (;;) {
		atomic_fetch_add(&g->inside, 1);
		if (likely(!atomic_load(&g->closed)))
			return;
		cow_leave(r);
		futex_wait(&g->closed, 1, 0, false);
	}
}

void cow_leave(struct quire_region *r)
{
	struct cow_gate *g = &r->gate;

	if (atomic_fetch_sub(&g->inside, 1) == 1 && unlikely(atomic_load(&g->closed)))
		futex_wake(&g->inside, 1, false);
}

/* => false: not all have left in time */
static bool drain(struct cow_gate *g)
{
	uint64_t end = now_ns() + DRAIN_NS;
	uint32_t inside;

	while ((inside = atomic_load(&g->inside)) != 0) {
		if (now_ns() >= end)
			return false;
		futex_wait(&g->inside, inside, DRAIN_NS, false);
	}
	return true;
}

/*
 * Somebody inside may wait for a handler of faults (he reads a page that the program
 * discards under his hands), and the handlers for the gate. So that is opened again when
 * it takes long.
 */
void cow_close(struct quire_region *r)
{
	for (;;) {
		atomic_store(&r->gate.closed, 1);
		if (drain(&r->gate))
			return;
		cow_open(r);
		pause_reclaim();
	}
}

void cow_open(struct quire_region *r)
{
	atomic_store(&r->gate.closed, 0);
	futex_wake(&r->gate.closed, INT32_MAX, false);
}

/* -------------------------------------------------------------- sharing */

bool cow_has_own(const struct quire_region *s, uint64_t page)
{
	return region_leaf_touched(s, page) && atomic_load(region_entry(s, page)) != ENTRY_EMPTY;
}

/*
 * Newer than the target are only snapshots that are being destroyed: what they have is
 * about to be an older one's.
 */
bool cow_is_shared(struct quire_region *r, uint64_t page)
{
	const struct quire_region *s = r->newest;

	if (!r->target)
		return false;
	for (; s != r->target; s = s->older)
		if (cow_has_own(s, page))
			return false;
	return !cow_has_own(s, page);
}

bool cow_reserve(struct quire_region *r, uint64_t page)
{
	return region_touch_leaf(r->target, page);
}

/* -------------------------------------------------------------- keeping */

/* Nobody else has to do with an entry that is EMPTY, of a page whose region's entry we hold. */
static void keep(struct quire_region *r, uint64_t page, uint64_t value)
{
	atomic_store(region_entry(r->target, page), value);
}

void cow_keep_slot(struct quire_region *r, uint64_t page, slot_t slot, bool maybe)
{
	REGION_COUNT(r->target, swapped, 1);
	keep(r, page, entry_make(ENTRY_SLOT, slot) | (maybe ? ENTRY_MAYBE : 0));
}

/* The buffer's name is changed last: until then who finds it by its old name finds our entry held. */
void cow_keep_buffer(struct quire_region *r, uint64_t page, uint32_t buffer)
{
	region_count_standby(r->target, false);
	keep(r, page, entry_make(ENTRY_STANDBY, buffer));
	buffer_rename(&r->q->pager, buffer, PAGE_ID(r->target->id, page));
}

void cow_keep_zeros(struct quire_region *r, uint64_t page, bool maybe)
{
	keep(r, page, ENTRY_ZERO | (maybe ? ENTRY_MAYBE : 0));
}

void cow_drop_slot(struct quire_region *r, uint64_t page, slot_t slot, bool maybe)
{
	if (cow_is_shared(r, page) && cow_reserve(r, page))
		cow_keep_slot(r, page, slot, maybe);
	else
		swapfile_unref(r->q->swap, slot);
}
