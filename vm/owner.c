/* SPDX-License-Identifier: MIT */
/*
 * vm/owner.c - what the pager asks of the owner of the pages: to give up clean
 * standby pages, to receive pages that were read, to tell of what failed. To
 * unmap victims: evict.c.
 */
#include "vm/vm.h"

#include <errno.h>

uint64_t entry_slot(const struct quire *q, slot_t slot)
{
	uint64_t stamp = atomic_load_explicit(&q->stamp, memory_order_relaxed) >> 4;

	return entry_make(ENTRY_SLOT, slot) | (stamp & ENTRY_STAMP_MASK) << ENTRY_STAMP_SHIFT;
}

static bool owner_retire(void *owner, page_id id, uint32_t buffer, slot_t slot)
{
	struct quire *q = owner;
	struct quire_region *r = region_get(q, PAGE_ID_REGION(id));
	uint64_t page = PAGE_ID_PAGE(id);
	uint64_t maybe = 0;
	bool ahead;

	if (!r)
		return false;
	/* The region may be another than the buffer's, which has gone, under the same number. */
	if (page < r->pages && region_leaf_touched(r, page) && r->is_snapshot)
		maybe = atomic_load(region_entry(r, page)) & ENTRY_MAYBE;
	if (page >= r->pages || !region_leaf_touched(r, page) ||
	    !entry_try(region_entry(r, page), entry_make(ENTRY_STANDBY, buffer) | maybe)) {
		region_put(r);
		return false;
	}
	/* The entry is held and named this buffer, so the buffer is still this page's. */
	ahead = buffer_is_ahead(buffer_of(&q->pager, buffer));
	buffer_claim(&q->pager, buffer, &slot);
	ASSERT(slot != SLOT_NONE);
	region_uncount_standby(r, ahead);
	REGION_COUNT(r, swapped, 1);
	/* A snapshot's has no stamp: nobody faults on it. */
	entry_publish(r, page,
	              r->is_snapshot ? entry_make(ENTRY_SLOT, slot) | maybe : entry_slot(q, slot));
	buffer_release(&q->pager, buffer, false);
	if (ahead) {
		lock_acquire(&r->readahead_lock);
		readahead_wasted(&r->readahead, page, 1);
		lock_release(&r->readahead_lock);
	}
	region_put(r);
	return true;
}

/* A faulting thread waits in the kernel for this page: map it now. */
static void serve_waiter(struct quire_region *r, uint64_t page, uint64_t standby, uint64_t started)
{
	struct fault f = { .region = r,
		           .page = page,
		           .may_sleep = false,
		           .major = true,
		           .started = started,
		           .entry = region_entry(r, page),
		           .held = standby };

	if (fault_rescue(&f) != FAULT_DONE)
		/* It faults again. */
		r->q->engine.ops->wake(&r->q->engine, region_page(r, page), 1);
	else if (started)
		fault_account(r, true, started);
}

/* => r has a user: with the entry published, destroy waits for nothing else of ours */
static void arrived(struct quire_region *r, page_id id, uint32_t buffer, int error)
{
	struct quire *q = r->q;
	uint64_t page = PAGE_ID_PAGE(id);
	entry_t *entry = region_entry(r, page);
	uint64_t started = q->pager.clusters[buffer / CLUSTER_PAGES].started;
	bool demanded = buffer % CLUSTER_PAGES == 0 && started;
	uint64_t e;

	if (error) {
		slot_t slot = buffer_of(&q->pager, buffer)->slot;

		e = entry_make(ENTRY_SLOT, slot);
		if (demanded && !q->engine.ops->in_thread) {
			/* A fault waits for it: it will come again and be refused. */
			fault_report(r, page,
			             error == EBADMSG ? QUIRE_ERROR_CHECKSUM : QUIRE_ERROR_READ,
			             error);
			e |= ENTRY_LOST;
		}
		entry_publish(r, page, e);
		return;
	}
	uncount(&r->counters.swapped, 1);
	uncount(&q->counters.swapped, 1);
	region_count_standby(r, buffer_is_ahead(buffer_of(&q->pager, buffer)));
	e = atomic_load(entry);
	if (e & ENTRY_FAULTS) {
		uint64_t standby = entry_make(ENTRY_STANDBY, buffer);

		/* Mapping wakes those whose faults have been marked; who comes from now on marks it again. */
		while (!atomic_compare_exchange_weak(entry, &e,
		                                     standby | ENTRY_BUSY | (e & ENTRY_WAITERS)))
			;
		serve_waiter(r, page, standby, demanded ? started : 0);
		return;
	}
	entry_publish(r, page, entry_make(ENTRY_STANDBY, buffer));
}

/* A region whose page is READING is there, alive or not: destroy waits for the entry (discard_settle). */
static void owner_arrived(void *owner, page_id id, uint32_t buffer, int error)
{
	struct quire *q = owner;
	struct quire_region *r = &q->regions[PAGE_ID_REGION(id) - 1];

	atomic_fetch_add(&r->users, 1);
	arrived(r, id, buffer, error);
	region_put(r);
}

static void owner_written(void *owner, page_id id)
{
	struct quire_region *r = region_get(owner, PAGE_ID_REGION(id));

	if (!r)
		return;
	count(&r->counters.pages_out, 1);
	region_put(r);
}

static void owner_replenished(void *owner)
{
	struct quire *q = owner;

	if (q->engine.ops->replenished)
		q->engine.ops->replenished(&q->engine);
}

static uint64_t owner_tend(void *owner)
{
	struct quire *q = owner;

	return q->engine.ops->tend ? q->engine.ops->tend(&q->engine) : 0;
}

static void owner_failed(void *owner, enum pager_event event, int error, page_id id)
{
	static const struct {
		enum quire_error_kind kind;
		const char *words;
	} told[] = {
		[PAGER_WRITE_FAILED] = { QUIRE_ERROR_WRITE,
		                         "pages could not be written to the swap "
		                         "file and stay in memory" },
		[PAGER_SWAP_FULL] = { QUIRE_ERROR_SWAP_FULL,
		                      "the swap file is full: pages stay in memory" },
	};
	struct quire *q = owner;
	/* No entry is held: the page may have gone, with its region, since the write ended. */
	struct quire_region *r = id == PAGE_ID_NONE ? NULL : region_get(q, PAGE_ID_REGION(id));
	bool there = r && PAGE_ID_PAGE(id) < r->pages &&
	             entry_state(atomic_load(region_entry(r, PAGE_ID_PAGE(id)))) == ENTRY_STANDBY;
	struct quire_error e = { .kind = told[event].kind,
		                 .error = error,
		                 .message = told[event].words };

	if (there) {
		e.region = r;
		e.offset = PAGE_ID_PAGE(id) << PAGE_SHIFT;
	}
	if (q->on_error)
		q->on_error(q->on_error_arg, &e);
	if (r)
		region_put(r);
}

const struct page_owner vm_owner = {
	.take = evict_batch,
	.retire = owner_retire,
	.arrived = owner_arrived,
	.written = owner_written,
	.replenished = owner_replenished,
	.tend = owner_tend,
	.failed = owner_failed,
};
