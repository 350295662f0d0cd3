/* SPDX-License-Identifier: MIT */
/*
 * vm/pin.c - pages that must stay.
 *
 * A pinned page is mapped writable and out of the policy's reach; its frame
 * counts the pins. Pins are bounded so that the rest of the program can run:
 * an eighth of the budget, and sixteen pages at least, stay free of them.
 */
#include "vm/vm.h"

#include "base/error.h"

#include <errno.h>

#define UNPINNED_MIN 16u

static uint64_t pin_limit(struct quire *q)
{
	uint64_t budget = atomic_load(&q->pager.budget);

	return budget - MAX(budget / 8, UNPINNED_MIN);
}

static bool is_pinned(struct quire_region *r, uint64_t page)
{
	uint64_t e;
	bool pinned;

	if (!region_leaf_touched(r, page))
		return false;
	e = entry_hold(r, page);
	pinned = entry_state(e) == ENTRY_MAPPED && r->q->pager.frames[entry_payload(e)].pins > 0;
	entry_publish(r, page, e);
	return pinned;
}

static uint64_t count_unpinned(struct quire_region *r, uint64_t first, uint64_t n, uint64_t enough)
{
	uint64_t unpinned = 0;

	for (uint64_t i = 0; i < n && unpinned < enough; i++)
		unpinned += !is_pinned(r, first + i);
	return unpinned;
}

void pin_forget(struct quire *q, uint64_t pages)
{
	uncount(&q->counters.pinned, pages);
}

/* What was filled by a read may have none, under some engines. The entry is held. */
static bool populate(struct quire_region *r, uint64_t page)
{
	struct engine *e = &r->q->engine;

	return !e->ops->populate || e->ops->populate(e, r, region_page(r, page)) == 0;
}

/*
 * The page is dirty; but it may be protected still, or again (beside a victim). The entry is held.
 * => false: a snapshot shares it; *error: -EIO, it cannot be made so
 */
static bool make_writable(struct quire_region *r, uint64_t page, int *error)
{
	struct engine *e = &r->q->engine;
	bool shared;

	cow_enter(r);
	shared = cow_is_shared(r, page);
	if (!shared && e->ops->unprotect(e, r, region_page(r, page), 1) != 1)
		*error = -EIO;
	cow_leave(r);
	return !shared;
}

/* One more pin. The entry is held. */
static int pin_frame(struct quire_region *r, uint64_t page, uint32_t id)
{
	struct frame *frame = &r->q->pager.frames[id];

	if (frame->pins == UINT16_MAX)
		return -EOVERFLOW;
	if (frame->pins == 0 && !populate(r, page))
		return -ENOMEM;
	if (frame->pins++ == 0) {
		frame_pin(&r->q->pager, id);
		count(&r->q->counters.pinned, 1);
		count(&r->counters.pinned, 1);
	}
	return 0;
}

/* => pin lock held */
static int pin_page(struct quire_region *r, uint64_t page)
{
	struct quire *q = r->q;

	for (;;) {
		struct fault f = { .region = r, .page = page, .write = true, .may_sleep = true };
		struct frame *frame;
		int error = 0;
		uint64_t e;

		switch (fault_serve(&f)) {
		case FAULT_DONE:
			break;
		case FAULT_NOMEM:
			return -ENOMEM;
		default:
			return -EIO;
		}
		e = entry_hold(r, page);
		frame = &q->pager.frames[entry_payload(e)];
		if (entry_state(e) == ENTRY_MAPPED && frame->slot == SLOT_NONE &&
		    make_writable(r, page, &error)) {
			if (!error)
				error = pin_frame(r, page, entry_payload(e));
			entry_publish(r, page, e);
			return error;
		}
		/* Evicted between the fault and the hold, or part of a new snapshot: once more. */
		entry_publish(r, page, e);
	}
}

/* => pin lock held; the page is pinned */
static void unpin_page(struct quire_region *r, uint64_t page)
{
	struct quire *q = r->q;
	uint64_t e = entry_hold(r, page);
	struct frame *frame = &q->pager.frames[entry_payload(e)];

	ASSERT(entry_state(e) == ENTRY_MAPPED && frame->pins > 0);
	if (--frame->pins == 0) {
		frame_unpin(&q->pager, entry_payload(e));
		uncount(&q->counters.pinned, 1);
		uncount(&r->counters.pinned, 1);
	}
	entry_publish(r, page, e);
}

static int pin_range(struct quire_region *r, uint64_t first, uint64_t n)
{
	struct quire *q = r->q;
	uint64_t pinned = counted(&q->counters.pinned), limit = pin_limit(q);

	if (pinned + count_unpinned(r, first, n, limit + 1) > limit)
		return error_set(
			ENOMEM,
			"%llu more page%s cannot be pinned: of a budget of %llu pages at most "
			"%llu may be pinned, %llu are",
			(unsigned long long)n, n == 1 ? "" : "s",
			(unsigned long long)atomic_load(&q->pager.budget),
			(unsigned long long)limit, (unsigned long long)pinned);
	for (uint64_t i = 0; i < n; i++) {
		int error = pin_page(r, first + i);

		if (!error)
			continue;
		while (i-- > 0)
			unpin_page(r, first + i);
		return error_set(-error, error == -EIO    ? "a page could not be read" :
		                         error == -ENOMEM ? "no memory could be freed" :
		                                            "a page has too many pins");
	}
	return 0;
}

static int unpin_range(struct quire_region *r, uint64_t first, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		if (!is_pinned(r, first + i))
			return error_set(EINVAL, "page %llu of the range is not pinned",
			                 (unsigned long long)i);
	for (uint64_t i = 0; i < n; i++)
		unpin_page(r, first + i);
	return 0;
}

static int with_lock(struct quire_region *r, size_t offset, size_t length,
                     int (*what)(struct quire_region *, uint64_t, uint64_t))
{
	int error = range_check(r, offset, length);
	struct call call;

	if (error)
		return error;
	call_enter(&call);
	lock_acquire(&r->q->pin_lock);
	error = what(r, pages_of(offset), pages_of(length));
	lock_release(&r->q->pin_lock);
	forgive(r->q);
	call_leave(&call);
	return error;
}

int quire_pin(quire_region_t *r, size_t offset, size_t length)
{
	return with_lock(r, offset, length, pin_range);
}

int quire_unpin(quire_region_t *r, size_t offset, size_t length)
{
	return with_lock(r, offset, length, unpin_range);
}
