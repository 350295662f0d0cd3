/* SPDX-License-Identifier: MIT */
/*
 * vm/mapped.c - faults on pages that are mapped.
 *
 *   first_write      a page that its slot has, too: from now on it differs
 *   fault_copy       a page that a snapshot has as it is now, and nothing else has (copy.c)
 *   mapped_already   another thread was faster; the page was protected beside a
 *                    victim; or the program has discarded it itself
 */
#include "vm/vm.h"

#include <errno.h>

/* Hold clean neighbours that follow in order, so that one call unprotects them all. => how many */
static uint32_t hold_clean(struct fault *f, uint32_t window)
{
	struct quire_region *r = f->region;
	uint32_t n = 0;

	while (n < window && f->page + n + 1 < r->pages) {
		uint64_t page = f->page + n + 1;
		entry_t *entry = region_entry(r, page);
		uint64_t e = atomic_load(entry);

		if (entry_state(e) != ENTRY_MAPPED || !entry_try(entry, e))
			break;
		if (r->q->pager.frames[entry_payload(e)].slot == SLOT_NONE ||
		    (cow_is_shared(r, page) &&
		     !(cow_reserve(r, page) && credits_try_new(&r->q->pager, 0)))) {
			entry_publish(r, page, e);
			break;
		}
		n++;
	}
	return n;
}

/* The first write to a clean page: from now on it differs from its slot. => inside the gate */
static enum fault_result first_write(struct fault *f)
{
	struct quire_region *r = f->region;
	struct quire *q = r->q;
	uint32_t n = 0;
	int done;

	if (cow_is_shared(r, f->page)) {
		if (!cow_reserve(r, f->page))
			return fault_give_up(f, FAULT_NOMEM);
		/* It keeps no slot to be written to: with a full swap file it stays for good (P2). */
		if (!f->credit && !credits_try_new(&q->pager, 0))
			return fault_give_up(f, FAULT_UNBACKED);
	}
	lock_acquire(&r->readahead_lock);
	if (r->write_next == f->page)
		r->write_window = MIN(MAX(r->write_window * 2, 1), CLUSTER_PAGES - 1);
	else
		r->write_window = 0;
	n = hold_clean(f, r->write_window);
	r->write_next = f->page + n + 1;
	lock_release(&r->readahead_lock);
	done = q->engine.ops->unprotect(&q->engine, r, region_page(r, f->page), n + 1);
	f->error = done < 0 ? -done : 0;
	done = MAX(done, 0);
	for (uint32_t i = 0; i <= n; i++) {
		uint64_t e = i ? atomic_load(region_entry(r, f->page + i)) : f->held;
		struct frame *frame = &q->pager.frames[entry_payload(e)];

		if (i < (uint32_t)done) {
			cow_drop_slot(r, f->page + i, frame->slot, i > 0);
			frame->slot = SLOT_NONE;
		}
		if (i == 0 && done)
			frame_reference(&q->pager, entry_payload(e));
		entry_publish(r, f->page + i, e);
	}
	if (done == 0)
		return FAULT_REFUSED;
	REGION_COUNT(r, write_faults, (uint32_t)done);
	fault_learn_write(r, true);
	return FAULT_DONE;
}

/* It is accessible already, or the program has discarded it. => inside the gate */
static enum fault_result mapped_already(struct fault *f)
{
	struct quire_region *r = f->region;
	struct quire *q = r->q;
	struct frame *frame = &q->pager.frames[entry_payload(f->held)];
	char *page = region_page(r, f->page);
	bool shared = cow_is_shared(r, f->page);
	int n;

	if (shared && !cow_reserve(r, f->page))
		return fault_give_up(f, FAULT_NOMEM);
	n = q->engine.ops->map_zero(&q->engine, r, page, 1, f->write);
	if (n == 1) {
		/* It was not there: the program discarded it, and zeros are its contents. */
		if (frame->slot != SLOT_NONE)
			cow_drop_slot(r, f->page, frame->slot, false);
		else if (shared)
			cow_keep_zeros(r, f->page, true);
		frame->slot = SLOT_NONE;
		REGION_COUNT(r, zero_fills, 1);
	} else if (n == -EEXIST) {
		/* Another thread was faster; or the page was protected beside a victim. */
		if (f->write && !shared)
			f->error = -MIN(q->engine.ops->unprotect(&q->engine, r, page, 1), 0);
		else if (q->engine.ops->wake)
			q->engine.ops->wake(&q->engine, page, 1);
	} else {
		f->error = -n;
		return fault_give_up(f, FAULT_REFUSED);
	}
	entry_publish(r, f->page, f->held);
	return f->error ? FAULT_REFUSED : FAULT_DONE;
}

/* => 1: it is read-only now, and if that is not enough it will be touched again; -1: refused */
static int bring(struct fault *f)
{
	struct engine *e = &f->region->q->engine;
	char *page = region_page(f->region, f->page);
	int n = engine_awaits(e, f->region, page) ? e->ops->bring(e, f->region, page) : 0;

	f->error = -MIN(n, 0);
	return n < 0 ? -1 : n;
}

enum fault_result fault_mapped(struct fault *f)
{
	struct quire_region *r = f->region;
	bool clean = r->q->pager.frames[entry_payload(f->held)].slot != SLOT_NONE;
	enum fault_result result;
	int brought = bring(f);
	bool gone = false;

	if (brought)
		return fault_give_up(f, brought < 0 ? FAULT_REFUSED : FAULT_DONE);
	cow_enter(r);
	if (f->write && clean)
		result = first_write(f);
	else if (f->write && cow_is_shared(r, f->page))
		result = fault_copy(f, &gone);
	else
		result = mapped_already(f);
	if (gone)
		result = mapped_already(f);
	cow_leave(r);
	return result == FAULT_UNBACKED ? fault_wait_to_copy(f) : result;
}
