/* SPDX-License-Identifier: MIT */
/*
 * vm/copy.c - the first write since a snapshot to a page that is dirty: its bytes are the
 * snapshot's, in a buffer of standby, and it is writable then.
 *
 * Pages that are about to be written, too, are copied with it (around.h): a fault and the flush of
 * the TLBs cost several times what a copy does. What nobody writes to afterwards is a copy for
 * nothing: it is marked so (ENTRY_MAYBE), and a difference between snapshots is looked for in
 * the bytes.
 *
 * All of it is inside the gate, with the pages' entries held.
 */
#include "vm/around.h"
#include "vm/vm.h"

#include <errno.h>
#include <string.h>

/* A handler takes so many neighbours, and saves fewer. */
#define RUN 4u

enum outcome {
	STAYS = 0, /* as it was, or refused */
	PASSED,    /* it needs no copy, and has no buffer */
	COPIED,
	GONE,     /* it was not there: the program has discarded it */
	LEFT_OUT, /* its bytes are in the buffer, and nowhere else */
};

/* Pages [first, first + n), held; those that are not passed have a buffer. */
struct copies {
	struct quire_region *r;
	uint64_t first;
	uint32_t n, touched;
	int error; /* why the touched one was refused, an errno */
	unsigned char outcome[CLUSTER_PAGES];
	uint32_t buffer[CLUSTER_PAGES]; /* neighbours */
};

static char *page_at(const struct copies *c, uint32_t i)
{
	return region_page(c->r, c->first + i);
}

static char *buffer_for(const struct copies *c, uint32_t i)
{
	return buffer_address(&c->r->q->pager, c->buffer[i]);
}

static void refused(struct copies *c, uint32_t i, uint32_t end, int error)
{
	if (i <= c->touched && c->touched < end)
		c->error = error;
}

/* ------------------------------------------------------------- two ways */

/* Save pages [from, to), which follow each other. => behind the last that is saved */
static uint32_t save_run(struct copies *c, uint32_t from, uint32_t to)
{
	struct engine *e = &c->r->q->engine;

	while (from < to) {
		int n = e->ops->save(e, c->r, page_at(c, from), buffer_for(c, from), to - from);

		if (n == -ENOENT)
			c->outcome[from] = GONE;
		else if (n <= 0)
			refused(c, from, to, -n);
		if (n <= 0)
			break;
		from += (uint32_t)n;
	}
	return from;
}

/* Save pages [from, to), then make them writable by one call. */
static void save(struct copies *c, uint32_t from, uint32_t to)
{
	struct engine *e = &c->r->q->engine;
	uint32_t saved = from;
	int n;

	for (uint32_t i = from, end; i < to && saved == i; i = end) {
		for (end = i + 1;
		     end < to && (c->outcome[end] == PASSED) == (c->outcome[i] == PASSED); end++)
			;
		saved = c->outcome[i] == PASSED ? end : save_run(c, i, end);
	}
	if (saved == from)
		return;
	n = e->ops->unprotect(e, c->r, page_at(c, from), saved - from);
	if (n <= 0)
		refused(c, from, saved, -n);
	for (uint32_t i = from; n > 0 && i < from + (uint32_t)n; i++)
		if (c->outcome[i] == STAYS)
			c->outcome[i] = COPIED;
}

/* Put pages [from, to), which have been taken, back as copies. */
static void put_back(struct copies *c, uint32_t from, uint32_t to)
{
	struct engine *e = &c->r->q->engine;

	while (from < to) {
		int n = e->ops->map(e, c->r, page_at(c, from), buffer_for(c, from), to - from,
		                    true);

		if (n <= 0) {
			refused(c, from, from + 1, -n);
			c->outcome[from++] = LEFT_OUT;
		}
		for (; n > 0; n--)
			c->outcome[from++] = COPIED;
	}
}

/*
 * Take the pages, of which none is passed, out and put copies back: nobody touches them so, and of a run it
 * costs less than to save them by a handler.
 */
static void take_and_put(struct copies *c)
{
	struct engine *e = &c->r->q->engine;
	struct take_page t[CLUSTER_PAGES];

	for (uint32_t i = 0; i < c->n; i++)
		t[i] = (struct take_page){ .region = c->r,
			                   .page = page_at(c, i),
			                   .buffer = buffer_for(c, i),
			                   .wanted = true,
			                   .dirty = true,
			                   .shared = true,
			                   .backed = !e->uffd.move };
	e->ops->take(e, t, c->n);
	for (uint32_t i = 0, end; i < c->n; i = end) {
		for (end = i + 1; end < c->n && t[end].result == t[i].result; end++)
			;
		if (t[i].result == TAKE_DONE)
			put_back(c, i, end);
		for (uint32_t k = i; k < end && t[k].result == TAKE_GONE; k++)
			c->outcome[k] = GONE;
	}
}

/* ------------------------------------------------------------- outcomes */

static void publish_as_it_was(struct copies *c, uint32_t i)
{
	entry_publish(c->r, c->first + i, atomic_load(region_entry(c->r, c->first + i)));
}

static void keep(struct copies *c, uint32_t i, bool maybe)
{
	struct quire_region *r = c->r;
	struct pager *p = &r->q->pager;

	if (page_is_zero(buffer_for(c, i))) {
		cow_keep_zeros(r, c->first + i, maybe);
		stage_drop(p, c->buffer[i]);
	} else {
		stage_fill(p, c->buffer[i], PAGE_ID(r->target->id, c->first + i), SLOT_NONE,
		           BUFFER_DIRTY);
		cow_keep_buffer(r, c->first + i, c->buffer[i], maybe);
	}
	REGION_COUNT(r, snapshot_copies, 1);
}

/* It could not be put back: it is in standby, like one that was evicted. */
static void leave_out(struct copies *c, uint32_t i)
{
	struct quire_region *r = c->r;
	struct pager *p = &r->q->pager;
	uint32_t frame = entry_payload(atomic_load(region_entry(r, c->first + i)));

	frames_leave(p, &frame, 1);
	uncount(&r->counters.resident, 1);
	uncount(&r->q->counters.resident, 1);
	stage_fill(p, c->buffer[i], PAGE_ID(r->id, c->first + i), SLOT_NONE, BUFFER_DIRTY);
	region_count_standby(r, false);
	entry_publish(r, c->first + i, entry_make(ENTRY_STANDBY, c->buffer[i]));
	credits_put(p, 1);
}

static void settle_beside(struct copies *c, uint32_t i)
{
	if (c->outcome[i] == LEFT_OUT) {
		leave_out(c, i);
		return;
	}
	if (c->outcome[i] == COPIED)
		keep(c, i, true);
	else if (c->outcome[i] != PASSED)
		stage_drop(&c->r->q->pager, c->buffer[i]);
	publish_as_it_was(c, i);
}

static enum fault_result settle_touched(struct fault *f, struct copies *c, bool *gone)
{
	struct pager *p = &c->r->q->pager;

	f->error = c->error;
	switch (c->outcome[c->touched]) {
	case COPIED:
		keep(c, c->touched, false);
		frame_reference(p, entry_payload(f->held));
		entry_publish(c->r, f->page, f->held);
		return FAULT_DONE;
	case LEFT_OUT:
		leave_out(c, c->touched);
		return FAULT_REFUSED;
	default:
		stage_drop(p, c->buffer[c->touched]);
		*gone = c->outcome[c->touched] == GONE;
		return *gone ? FAULT_WAITING : fault_give_up(f, FAULT_REFUSED);
	}
}

/* --------------------------------------------------------------- around */

/* Between those that are to be made writable, what is so already does no harm, while it is held. */
static enum around_page hold_dirty(struct quire_region *r, uint64_t page)
{
	entry_t *entry = region_entry(r, page);
	uint64_t e = region_leaf_touched(r, page) ? atomic_load(entry) : 0;
	const struct frame *frame;

	if (entry_state(e) != ENTRY_MAPPED || !entry_try(entry, e))
		return AROUND_END;
	frame = &r->q->pager.frames[entry_payload(e)];
	if (frame->slot == SLOT_NONE && !frame->pins &&
	    !engine_awaits(&r->q->engine, r, region_page(r, page))) {
		if (!cow_is_shared(r, page))
			return AROUND_PASSED;
		if (cow_reserve(r, page))
			return AROUND_HELD;
	}
	entry_publish(r, page, e);
	return AROUND_END;
}

static bool is_copied(struct quire_region *r, uint64_t page)
{
	return !cow_is_shared(r, page);
}

/* Let pages go until no more than n of them want a buffer; if that is one, all but the touched page. */
static void shrink(struct copies *c, uint32_t wanted, uint32_t n)
{
	while (wanted > n || (n == 1 && c->n > 1)) {
		bool last = c->touched < c->n - 1;
		uint32_t i = last ? c->n - 1 : 0;

		wanted -= c->outcome[i] != PASSED;
		publish_as_it_was(c, i);
		c->n--;
		if (last)
			continue;
		c->first++;
		c->touched--;
		memmove(c->outcome, c->outcome + 1, c->n);
	}
}

/* => false: there is none; what is beside the touched page is as it was */
static bool get_buffers(struct copies *c, uint32_t wanted)
{
	struct pager *p = &c->r->q->pager;
	uint32_t got, id = stage_get_run(p, wanted, c->r->q->engine.uffd.move, &got);

	shrink(c, wanted, MAX(got, 1));
	credits_put(p, wanted - MAX(got, 1));
	for (uint32_t i = 0; i < c->n; i++)
		if (c->outcome[i] != PASSED)
			c->buffer[i] = id++;
	return got > 0;
}

/* The touched page, and what is held beside it. */
static void set_pages(struct copies *c, uint64_t touched, const struct span *s)
{
	struct quire_region *r = c->r;

	c->first = touched - s->below;
	c->touched = s->below;
	c->n = s->below + 1 + s->above;
	for (uint32_t i = 0; i < c->n; i++)
		c->outcome[i] = cow_is_shared(r, c->first + i) ? STAYS : PASSED;
}

static bool is_run(const struct copies *c)
{
	const struct engine *e = &c->r->q->engine;

	return !e->ops->in_thread && e->uffd.move && c->n >= RUN &&
	       !memchr(c->outcome, PASSED, c->n);
}

/* The touched page, and what has been served beside it. */
static void note_done(const struct fault *f, const struct around *kind, const struct span *s,
                      const struct copies *c)
{
	uint32_t from = c->touched, to = c->touched + 1;

	while (from > 0 && (c->outcome[from - 1] == COPIED || c->outcome[from - 1] == PASSED))
		from--;
	while (to < c->n && (c->outcome[to] == COPIED || c->outcome[to] == PASSED))
		to++;
	around_done(f, kind, s, c->first + from, to - from);
}

enum fault_result fault_copy(struct fault *f, bool *gone)
{
	struct quire_region *r = f->region;
	bool waits = thread_is_ours && r->q->engine.save_waits, takes;
	struct around kind = { .fronts = &r->copies,
		               .max = MIN(r->q->readahead_max, CLUSTER_PAGES - 1),
		               .hold = hold_dirty,
		               .is_done = is_copied };
	struct copies c = { .r = r };
	struct span s = { .below = 0 };

	*gone = false;
	if (!cow_reserve(r, f->page))
		return fault_give_up(f, FAULT_NOMEM);
	f->credit = f->credit || credits_try_new(&r->q->pager, 1);
	if (!f->credit)
		return fault_give_up(f, FAULT_UNBACKED);
	if (!waits)
		s = around_hold(f, &kind);
	set_pages(&c, f->page, &s);
	if (!get_buffers(&c, s.served + 1))
		return fault_give_up(f, FAULT_UNBACKED);
	f->credit = false;
	takes = waits || is_run(&c);
	if (takes)
		take_and_put(&c);
	else
		save(&c, 0, c.n);
	/* It has a try of its own; and what cannot be taken, as the kernel has it pinned, is there. */
	if (c.outcome[c.touched] == STAYS && (takes || c.n > 1))
		save(&c, c.touched, c.touched + 1);
	for (uint32_t i = 0; i < c.n; i++)
		if (i != c.touched)
			settle_beside(&c, i);
	if (c.outcome[c.touched] == COPIED && !waits)
		note_done(f, &kind, &s, &c);
	return settle_touched(f, &c, gone);
}
