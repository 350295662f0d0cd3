/* SPDX-License-Identifier: MIT */
/* vm/cow.c - see cow.h. */
#include "vm/vm.h"

void cow_enter(struct quire_region *r)
{
	gate_enter(&r->gate);
}

void cow_leave(struct quire_region *r)
{
	gate_leave(&r->gate);
}

void cow_close(struct quire_region *r)
{
	gate_close(&r->gate, 0);
}

void cow_open(struct quire_region *r)
{
	gate_open(&r->gate);
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
void cow_keep_buffer(struct quire_region *r, uint64_t page, uint32_t buffer, bool maybe)
{
	region_count_standby(r->target, false);
	keep(r, page, entry_make(ENTRY_STANDBY, buffer) | (maybe ? ENTRY_MAYBE : 0));
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

/*
 * The page may be looked at all the time, by way of the snapshot: first the region has it, then the snapshot
 * has it no more, under the lineage lock (L2).
 */
void cow_take_back(struct quire_region *r, uint64_t page, uint64_t lost)
{
	struct quire_region *t = r->target;
	struct quire *q = r->q;
	uint64_t e = entry_hold(t, page), mine = entry_zeros(r);
	uint32_t buffer = BUFFER_NONE;

	if (entry_state(e) == ENTRY_STANDBY) {
		buffer = entry_payload(e);
		region_uncount_standby(t, buffer_is_ahead(buffer_of(&q->pager, buffer)));
		region_count_standby(r, buffer_is_ahead(buffer_of(&q->pager, buffer)));
		mine = entry_make(ENTRY_STANDBY, buffer);
	} else if (entry_state(e) == ENTRY_SLOT) {
		uncount(&t->counters.swapped, 1);
		uncount(&q->counters.swapped, 1);
		REGION_COUNT(r, swapped, 1);
		mine = entry_slot(q, entry_payload(e)) | lost;
	}
	atomic_store(region_entry(r, page), mine);
	if (buffer != BUFFER_NONE)
		buffer_rename(&q->pager, buffer, PAGE_ID(r->id, page));
	lock_acquire(&q->lineage_lock);
	entry_publish(t, page, ENTRY_EMPTY);
	lock_release(&q->lineage_lock);
}
