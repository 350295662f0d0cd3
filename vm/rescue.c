/* SPDX-License-Identifier: MIT */
/*
 * vm/rescue.c - a page in standby is touched: put it back, without I/O.
 *
 * A readahead window goes back whole, evicted pages that are touched in order
 * go back a growing number at a time, and all others one by one.
 *
 * A page whose slot holds the same bytes is mapped write-protected and keeps
 * the slot; one that is dirty, or about to be written, is mapped writable. The
 * bytes stay in the buffer until the page is mapped, so a failure on the way
 * leaves it in standby. If a snapshot shares them they stay there altogether, as
 * the snapshot's, when the page is mapped writable.
 */
#include "vm/vm.h"

#include <errno.h>

struct rescue {
	uint64_t first;  /* page */
	uint32_t buffer; /* of that page; the others follow in both */
	uint32_t n;
	uint32_t touched; /* index of the faulting page */
};

/* Hold the entry of page if it is in standby in that buffer. */
static bool hold_beside(struct quire_region *r, uint64_t page, uint32_t buffer)
{
	return page < r->pages && region_leaf_touched(r, page) &&
	       entry_try(region_entry(r, page), entry_make(ENTRY_STANDBY, buffer));
}

/* How far a rescue may go beyond the page. */
static uint32_t reach(struct fault *f, bool window)
{
	struct quire_region *r = f->region;
	uint32_t n = CLUSTER_PAGES - 1;

	if (window)
		return n;
	lock_acquire(&r->readahead_lock);
	if (r->readahead.mode != RA_RANDOM && r->rescue_next == f->page)
		r->rescue_window = MIN(MAX(r->rescue_window * 2, 1), n);
	else
		r->rescue_window = 0;
	n = r->rescue_window;
	r->rescue_next = f->page + n + 1;
	lock_release(&r->readahead_lock);
	return n;
}

static void extend(struct fault *f, struct rescue *s, bool window)
{
	struct quire_region *r = f->region;
	uint32_t room = credits_spare(&r->q->pager, reach(f, window));

	for (; room && (s->buffer + s->n) % CLUSTER_PAGES != 0 &&
	       hold_beside(r, s->first + s->n, s->buffer + s->n);
	     room--)
		s->n++;
	for (; window && room && s->first > 0 && s->buffer % CLUSTER_PAGES != 0 &&
	       hold_beside(r, s->first - 1, s->buffer - 1);
	     room--) {
		s->first--;
		s->buffer--;
		s->touched++;
		s->n++;
	}
}

/* Pages [from, to) stay in standby. */
static void leave(struct quire_region *r, const struct rescue *s, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		entry_publish(r, s->first + i, entry_make(ENTRY_STANDBY, s->buffer + i));
}

/* Pages [from, to) are mapped: out of their buffers, into frames. */
static void settle(struct fault *f, const struct rescue *s, uint32_t from, uint32_t to,
                   bool writable, bool moved)
{
	struct quire_region *r = f->region;
	struct quire *q = r->q;
	uint32_t frames[CLUSTER_PAGES], n = to - from, hits = 0, rescued = 0;
	page_id ids[CLUSTER_PAGES] = { 0 };

	if (n == 0)
		return;
	for (uint32_t i = 0; i < n; i++)
		ids[i] = PAGE_ID(r->id, s->first + from + i);
	frames_enter(&q->pager, ids, frames, n, f->major ? POLICY_FAULTED : POLICY_RESCUED,
	             s->touched - from);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t id = s->buffer + from + i;
		struct buffer *b = buffer_of(&q->pager, id);
		bool ahead = buffer_is_ahead(b);
		slot_t slot;

		if (ahead)
			hits++;
		else if (!f->major || from + i != s->touched)
			rescued++;
		/* Gauges before the entry: once it is published others may evict the page. */
		region_count_resident(r, 1);
		region_uncount_standby(r, ahead);
		if (writable && !moved && cow_is_shared(r, s->first + from + i)) {
			/* The bytes stay where they are, as the snapshot's. */
			cow_keep_buffer(r, s->first + from + i, id, false);
			entry_publish(r, s->first + from + i, entry_make(ENTRY_MAPPED, frames[i]));
			continue;
		}
		if (moved)
			slot = b->slot;
		else
			buffer_claim(&q->pager, id, &slot);
		if (slot != SLOT_NONE && writable)
			cow_drop_slot(r, s->first + from + i, slot, false);
		else
			q->pager.frames[frames[i]].slot = slot;
		entry_publish(r, s->first + from + i, entry_make(ENTRY_MAPPED, frames[i]));
		buffer_release(&q->pager, id, moved);
	}
	REGION_COUNT(r, readahead_hits, hits);
	REGION_COUNT(r, rescues, rescued);
}

/* => inside the gate */
static bool place_inside(struct fault *f, const struct rescue *s)
{
	struct quire_region *r = f->region;
	struct pager *p = &r->q->pager;
	struct engine *e = &r->q->engine;
	struct buffer *b = buffer_of(p, s->buffer);
	uint32_t state;
	slot_t slot;

	/* It would be writable, and the snapshot's slot not its own any more: new contents (P2). */
	if (cow_is_shared(r, s->first))
		return false;
	if (!buffer_try_claim(p, s->buffer, &state, &slot))
		return false;
	/* A dirty one has none already. */
	DEBUG_ASSERT(b->slot == slot);
	if (e->ops->place(e, region_page(r, s->first), buffer_address(p, s->buffer)) == 0) {
		settle(f, s, 0, 1, true, true);
		return true;
	}
	count(&p->standby, 1);
	atomic_store(&b->state, state);
	return false;
}

/* The buffer's own page becomes the program's. => false: it has to be copied */
static bool place(struct fault *f, const struct rescue *s)
{
	bool done;

	cow_enter(f->region);
	done = place_inside(f, s);
	cow_leave(f->region);
	return done;
}

/* A buffer that is not CLEAN may become so while we look, never the reverse: the entry is held. */
static bool is_clean(struct pager *p, uint32_t id)
{
	return atomic_load(&buffer_of(p, id)->state) == BUFFER_CLEAN;
}

/* Copy pages [from, to), alike in writability, as far as the engine does. => how many are mapped and settled */
static uint32_t copy_part(struct fault *f, const struct rescue *s, uint32_t from, uint32_t to,
                          bool writable)
{
	struct quire_region *r = f->region;
	struct quire *q = r->q;
	int n = q->engine.ops->map(&q->engine, r, region_page(r, s->first + from),
	                           buffer_address(&q->pager, s->buffer + from), to - from,
	                           writable);

	if (n < 0)
		f->error = -n;
	if (n <= 0)
		return 0;
	settle(f, s, from, from + (uint32_t)n, writable, false);
	return (uint32_t)n;
}

/*
 * Is page i to be mapped writable? What is shared with a snapshot is not without need, though it be
 * dirty; and it cannot, if there is no memory for the snapshot's entry, or for a page more (P2).
 * => inside the gate
 */
static bool wants_writable(const struct fault *f, const struct rescue *s, uint32_t i, bool write)
{
	struct quire_region *r = f->region;

	if (cow_is_shared(r, s->first + i))
		return f->write && i == s->touched && cow_reserve(r, s->first + i) &&
		       credits_try_new(&r->q->pager, 0);
	return write || !is_clean(&r->q->pager, s->buffer + i);
}

/* => inside the gate */
static enum fault_result copy_all(struct fault *f, const struct rescue *s, bool write)
{
	struct pager *p = &f->region->q->pager;
	uint32_t unused = 0;
	bool done = false;

	for (uint32_t from = 0, to; from < s->n; from = to) {
		bool writable = wants_writable(f, s, from, write);
		uint32_t n;

		for (to = from + 1; to < s->n; to++)
			if (wants_writable(f, s, to, write) != writable)
				break;
		n = copy_part(f, s, from, to, writable);
		done |= s->touched - from < n;
		/* The page that was touched has a try of its own. */
		if (n && n < to - from && s->touched >= from + n && s->touched < to) {
			leave(f->region, s, from + n, s->touched);
			unused += s->touched - from - n;
			from = s->touched;
			n = copy_part(f, s, from, from + 1, writable);
			done |= n;
		}
		leave(f->region, s, from + n, to);
		unused += to - from - n;
	}
	credits_put(p, unused);
	return done ? FAULT_DONE : FAULT_REFUSED;
}

enum fault_result fault_rescue(struct fault *f)
{
	struct quire_region *r = f->region;
	struct pager *p = &r->q->pager;
	struct rescue s = { .first = f->page, .buffer = entry_payload(f->held), .n = 1 };
	bool ahead = buffer_is_ahead(buffer_of(p, s.buffer));
	struct ra_plan plan = { .count = 0 };
	enum fault_result result;
	bool write;
	uint32_t id;

	/* The next window is read while this one is mapped and walked. */
	if (ahead && !f->speculative && (r->q->engine.ops->in_thread || thread_is_ours) &&
	    window_plan(r, f->page, f->write, &plan))
		window_start(r, &plan, NULL, &id);
	write = f->write || plan.writes || fault_expects_write(r);
	extend(f, &s, ahead || f->major);
	/* Copied while there is memory: to move even one page costs a TLB shootdown. */
	if (!credits_try(p, s.n)) {
		leave(r, &s, 0, s.touched);
		leave(r, &s, s.touched + 1, s.n);
		s.first = f->page;
		s.buffer += s.touched;
		s.touched = 0;
		s.n = 1;
		/* With the buffer's own memory, at the price of its slot. */
		if (place(f, &s))
			return FAULT_DONE;
		if (!f->may_sleep || credits_get(p, 1) != 0) {
			leave(r, &s, 0, 1);
			return f->may_sleep ? FAULT_NOMEM : FAULT_DEFERRED;
		}
	}
	cow_enter(r);
	result = copy_all(f, &s, write);
	cow_leave(r);
	return result;
}
