/* SPDX-License-Identifier: MIT */
/* vm/lineage.c - see lineage.h. */
#include "vm/lineage.h"

#include "vm/vm.h"

#include <errno.h>
#include <string.h>

/* An entry that is in somebody's hands. */
struct busy {
	struct quire_region *region; /* with a user */
	uint64_t page, seen;
};

/* ------------------------------------------------------------- looking */

static int from_buffer(struct quire *q, uint32_t id, char *bytes, struct content *out)
{
	struct buffer *b = buffer_of(&q->pager, id);

	if (!bytes)
		return -ENOBUFS;
	memcpy(bytes, buffer_address(&q->pager, id), PAGE_BYTES);
	out->kind = CONTENT_BYTES;
	/* Its page's entry is held: it stays clean if it is. */
	if (atomic_load(&b->state) == BUFFER_CLEAN)
		out->slot = b->slot;
	return 0;
}

static int from_memory(struct quire_region *r, uint64_t page, uint32_t frame, char *bytes,
                       struct content *out)
{
	int error;

	if (!bytes)
		return -ENOBUFS;
	error = r->q->engine.ops->save(&r->q->engine, region_page(r, page), bytes);
	if (error == -ENOENT)
		return 0; /* discarded: zeros */
	out->kind = CONTENT_BYTES;
	out->slot = r->q->pager.frames[frame].slot;
	return error;
}

static int look(struct quire_region *r, uint64_t page, char *bytes, struct content *out,
                struct busy *busy);

/* The entry is held, e. => lineage lock */
static int look_at(struct quire_region *r, uint64_t page, uint64_t e, char *bytes,
                   struct content *out, struct busy *busy)
{
	int error = 0;

	switch (entry_state(e)) {
	case ENTRY_EMPTY:
		return r->parent ? look(r->parent, page, bytes, out, busy) : 0;
	case ENTRY_SLOT:
		out->kind = CONTENT_SLOT;
		out->slot = entry_payload(e);
		break;
	case ENTRY_STANDBY:
		error = from_buffer(r->q, entry_payload(e), bytes, out);
		break;
	case ENTRY_MAPPED:
		error = from_memory(r, page, entry_payload(e), bytes, out);
		break;
	default:
		break;
	}
	if (!error && out->slot != SLOT_NONE)
		swapfile_ref(r->q->swap, out->slot);
	return error;
}

/* => lineage lock; -EAGAIN: *busy */
static int look(struct quire_region *r, uint64_t page, char *bytes, struct content *out,
                struct busy *busy)
{
	uint64_t e;
	int error;

	while (r->is_snapshot && !cow_has_own(r, page))
		if ((r = r->parent) == NULL)
			return 0;
	/* A region's is held though it is EMPTY: who changes the page holds it (L2). */
	if (!region_touch_leaf(r, page))
		return -ENOMEM;
	do {
		e = atomic_load(region_entry(r, page));
		if (e & ENTRY_BUSY || entry_state(e) == ENTRY_READING) {
			atomic_fetch_add(&r->users, 1);
			*busy = (struct busy){ .region = r, .page = page, .seen = e };
			return -EAGAIN;
		}
	} while (!entry_try(region_entry(r, page), e));
	e &= ~ENTRY_MARKS;
	error = look_at(r, page, e, bytes, out, busy);
	entry_publish(r, page, e);
	return error;
}

static void wait_for(const struct busy *b)
{
	if (entry_state(b->seen) == ENTRY_READING && !(b->seen & ENTRY_BUSY))
		readin_wait(&b->region->q->pager, entry_payload(b->seen));
	else
		entry_wait(region_entry(b->region, b->page), b->seen);
}

int lineage_content(struct quire_region *r, uint64_t page, char *bytes, bool wait,
                    struct content *out)
{
	struct quire *q = r->q;
	struct busy busy;
	int error;

	for (;;) {
		*out = (struct content){ .kind = CONTENT_ZEROS, .slot = SLOT_NONE };
		lock_acquire(&q->lineage_lock);
		error = look(r, page, bytes, out, &busy);
		lock_release(&q->lineage_lock);
		if (error != -EAGAIN)
			break;
		if (wait)
			wait_for(&busy);
		region_put(busy.region);
		if (!wait)
			break;
	}
	if (!error && out->kind == CONTENT_BYTES && page_is_zero(bytes)) {
		if (out->slot != SLOT_NONE)
			swapfile_unref(q->swap, out->slot);
		*out = (struct content){ .kind = CONTENT_ZEROS, .slot = SLOT_NONE };
	}
	return error;
}

/* ---------------------------------------------------------- inheriting */

uint64_t lineage_own(struct quire_region *r, uint64_t page, const struct content *c,
                     uint32_t buffer)
{
	struct pager *p = &r->q->pager;

	if (buffer != BUFFER_NONE && c->kind != CONTENT_BYTES)
		stage_drop(p, buffer);
	switch (c->kind) {
	case CONTENT_SLOT:
		REGION_COUNT(r, swapped, 1);
		return entry_slot(r->q, c->slot);
	case CONTENT_BYTES:
		stage_fill(p, buffer, PAGE_ID(r->id, page), c->slot,
		           c->slot == SLOT_NONE ? BUFFER_DIRTY : BUFFER_CLEAN);
		region_count_standby(r, false);
		return entry_make(ENTRY_STANDBY, buffer);
	default:
		return entry_zeros(r);
	}
}

void lineage_disown(struct quire_region *r, uint64_t own)
{
	struct pager *p = &r->q->pager;
	slot_t slot = SLOT_NONE;

	if (entry_state(own) == ENTRY_SLOT) {
		uncount(&r->counters.swapped, 1);
		uncount(&r->q->counters.swapped, 1);
		slot = entry_payload(own);
	} else if (entry_state(own) == ENTRY_STANDBY) {
		buffer_claim(p, entry_payload(own), &slot);
		region_uncount_standby(r, false);
		buffer_release(p, entry_payload(own), false);
	}
	if (slot != SLOT_NONE)
		swapfile_unref(r->q->swap, slot);
}

static enum fault_result unable(struct fault *f, int error)
{
	f->error = -error;
	if (error == -EAGAIN)
		return fault_give_up(f, FAULT_DEFERRED);
	return fault_give_up(f, error == -ENOMEM ? FAULT_NOMEM : FAULT_REFUSED);
}

enum fault_result fault_inherit(struct fault *f)
{
	struct quire_region *r = f->region;
	struct pager *p = &r->q->pager;
	uint32_t buffer = BUFFER_NONE;
	struct content c;
	uint64_t own;
	int error = lineage_content(r->parent, f->page, NULL, f->may_sleep, &c);

	if (error == -ENOBUFS) {
		f->credit = f->credit || credits_try(p, 1);
		if (f->credit)
			buffer = stage_get(p, false);
		if (buffer == BUFFER_NONE) {
			fault_give_up(f, FAULT_UNBACKED);
			return fault_wait_to_copy(f);
		}
		f->credit = false;
		error = lineage_content(r->parent, f->page, buffer_address(p, buffer), f->may_sleep,
		                        &c);
	}
	if (error) {
		if (buffer != BUFFER_NONE)
			stage_drop(p, buffer);
		return unable(f, error);
	}
	own = lineage_own(r, f->page, &c, buffer);
	entry_publish(r, f->page, own);
	return FAULT_DONE;
}

int lineage_inherit(struct quire_region *r, uint64_t page)
{
	struct fault f = { .region = r, .page = page, .may_sleep = true };
	enum fault_result result = FAULT_WAITING;

	f.entry = region_entry(r, page);
	while (result == FAULT_WAITING) {
		f.held = entry_hold(r, page);
		result = entry_state(f.held) == ENTRY_EMPTY ? fault_inherit(&f) :
		                                              fault_give_up(&f, FAULT_DONE);
	}
	if (f.credit)
		credits_put(&r->q->pager, 1);
	if (result == FAULT_DONE)
		return 0;
	return result == FAULT_NOMEM ? -ENOMEM : -f.error;
}
