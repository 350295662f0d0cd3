/* SPDX-License-Identifier: MIT */
/* vm/lineage.c - see lineage.h. */
#include "vm/lineage.h"

#include "vm/vm.h"

#include <errno.h>
#include <string.h>

/* An entry that somebody holds, or that we hold. */
struct place {
	struct quire_region *region; /* with a user */
	uint64_t page, entry;
};

/* ------------------------------------------------------------- looking */

/* What a look found beside 0 and an errno: contents in memory, whose entry is held now, at *place; */
#define IN_MEMORY 1
/* or that the snapshot at *place has them in its image, or it is not asked yet whether it does. */
#define IN_IMAGE 2

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

static void remember(struct place *place, struct quire_region *r, uint64_t page, uint64_t e)
{
	atomic_fetch_add(&r->users, 1);
	*place = (struct place){ .region = r, .page = page, .entry = e };
}

/* Does a snapshot on the way from s to r say something of the page by itself? */
static struct quire_region *first_own(struct quire_region *s, const struct quire_region *r,
                                      uint64_t page)
{
	for (; s != r && s->is_snapshot; s = s->parent)
		if (cow_has_own(s, page))
			return s;
	return NULL;
}

/* Where a look that begins at s ends: what has the page, or an image, or the region; NULL: zeros. */
static struct quire_region *end_of_way(struct quire_region *s, uint64_t page)
{
	while (s && s->is_snapshot && !s->image && !cow_has_own(s, page))
		s = s->parent;
	return s;
}

/* The entry is held, e, and is not an heir's that is EMPTY. => lineage lock */
static int look_at(struct quire_region *r, uint64_t page, uint64_t e, char *bytes,
                   struct content *out, struct place *place)
{
	int error = 0;

	switch (entry_state(e)) {
	case ENTRY_SLOT:
		out->kind = CONTENT_SLOT;
		out->slot = entry_payload(e);
		break;
	case ENTRY_STANDBY:
		error = from_buffer(r->q, entry_payload(e), bytes, out);
		break;
	case ENTRY_MAPPED:
		if (!bytes)
			return -ENOBUFS;
		remember(place, r, page, e);
		return IN_MEMORY;
	default:
		break;
	}
	if (!error && out->slot != SLOT_NONE)
		swapfile_ref(r->q->swap, out->slot);
	return error;
}

/*
 * One after the other, not one within the other: clones of clones may go deep, and this runs on a signal's stack.
 * What a clone inherits is a snapshot's, and so does not change when its entry is let go.
 * => lineage lock; -EAGAIN: somebody holds *place; IN_MEMORY: we do; IN_IMAGE
 */
static int look(struct quire_region *s, uint64_t page, char *bytes, struct content *out,
                struct place *place)
{
	for (;;) {
		struct quire_region *r = end_of_way(s, page);
		uint64_t e;
		int error;

		if (!r)
			return 0;
		if (r->image) {
			remember(place, r, page, 0);
			return IN_IMAGE;
		}
		/* A region's is held though it is EMPTY: who changes the page holds it (L2). */
		if (!region_touch_leaf(r, page))
			return -ENOMEM;
		e = atomic_load(region_entry(r, page));
		if (e & ENTRY_BUSY || entry_state(e) == ENTRY_READING) {
			remember(place, r, page, e);
			return -EAGAIN;
		}
		if (!entry_try(region_entry(r, page), e))
			continue;
		e &= ~ENTRY_MARKS;
		/* Until it was held the page may have changed, and a snapshot been given what it was. */
		if (first_own(s, r, page)) {
			entry_publish(r, page, e);
			continue;
		}
		if (entry_state(e) == ENTRY_EMPTY && r->parent) {
			entry_publish(r, page, e);
			s = r->parent;
			continue;
		}
		error = look_at(r, page, e, bytes, out, place);
		if (error != IN_MEMORY)
			entry_publish(r, page, e);
		return error;
	}
}

/* ------------------------------------------------------------- waiting */

static void wait_for(const struct place *b)
{
	if (entry_state(b->entry) == ENTRY_READING && !(b->entry & ENTRY_BUSY))
		readin_wait(&b->region->q->pager, entry_payload(b->entry));
	else
		entry_wait(region_entry(b->region, b->page), b->entry);
}

/* The bytes of a mapped page, whose entry we hold; it is published. => 0 or -errno */
static int from_memory(const struct place *at, char *bytes, struct content *out)
{
	struct quire *q = at->region->q;
	struct frame *frame = &q->pager.frames[entry_payload(at->entry)];
	int error = engine_save(&q->engine, at->region, region_page(at->region, at->page), bytes);

	if (!error) {
		out->kind = CONTENT_BYTES;
		out->slot = frame->slot;
		if (out->slot != SLOT_NONE)
			swapfile_ref(q->swap, out->slot);
	}
	entry_publish(at->region, at->page, at->entry);
	return error == -ENOENT ? 0 : error; /* discarded: zeros */
}

/* The file is read without a lock. => IN_IMAGE: it says nothing of the page: the parent is to be asked */
static int from_image(const struct quire_region *s, uint64_t page, char *bytes, struct content *out)
{
	int kind = bytes ? image_read_page(s->image, page, bytes) : -ENOBUFS;

	if (kind == IMAGE_BYTES)
		out->kind = CONTENT_BYTES;
	else if (kind == IMAGE_ABSENT)
		return IN_IMAGE;
	return MIN(kind, 0);
}

static bool is_handler(const struct quire *q)
{
	return thread_is_ours && !q->engine.ops->in_thread;
}

/*
 * One look, and what it takes to have the bytes. The lineage lock is not held while a page is
 * touched: it may be gone, and the handler that is to say so may want the lock. A handler does
 * not touch it at all: the page goes to standby, where the next look finds it.
 */
static int look_once(struct quire_region *r, uint64_t page, char *bytes, struct content *out,
                     struct place *place)
{
	struct quire *q = r->q;
	int error;

	place->region = NULL;
	*out = (struct content){ .kind = CONTENT_ZEROS, .slot = SLOT_NONE };
	lock_acquire(&q->lineage_lock);
	error = look(r, page, bytes, out, place);
	lock_release(&q->lineage_lock);
	if (error == IN_IMAGE)
		return from_image(place->region, page, bytes, out);
	if (error != IN_MEMORY)
		return error;
	if (!is_handler(q))
		return from_memory(place, bytes, out);
	error = evict_to_standby(place->region, place->page, place->entry);
	return error ? error : -ESTALE;
}

int lineage_content(struct quire_region *r, uint64_t page, char *bytes, bool wait,
                    struct content *out)
{
	struct quire *q = r->q;
	struct place place;
	int error;

	do {
		error = look_once(r, page, bytes, out, &place);
		if (error == -EAGAIN && wait) {
			wait_for(&place);
			error = -ESTALE;
		}
		/* It stays: who inherits from it is the caller's. */
		if (error == IN_IMAGE) {
			r = place.region->parent;
			error = r ? -ESTALE : 0;
		}
		if (place.region)
			region_put(place.region);
	} while (error == -ESTALE);
	if (!error && out->kind == CONTENT_BYTES && page_is_zero(bytes)) {
		if (out->slot != SLOT_NONE)
			swapfile_unref(q->swap, out->slot);
		*out = (struct content){ .kind = CONTENT_ZEROS, .slot = SLOT_NONE };
	}
	return error;
}

bool lineage_leaf_is_same(struct quire_region *a, const struct quire_region *b, uint64_t page)
{
	struct quire *q = a->q;
	bool same = true;

	lock_acquire(&q->lineage_lock);
	for (; a && a != b && same; a = a->parent) {
		uint64_t leaf = page / IMAGE_LEAF_PAGES, end = (page | (LEAF_ENTRIES - 1)) + 1;

		same = !region_leaf_touched(a, page);
		for (; a->image && same && leaf * IMAGE_LEAF_PAGES < end; leaf++)
			same = !image_has_leaf(a->image, leaf);
		/* What a full image does not say is zeros. */
		if (a->image && same && image_is_full(&a->image->header))
			break;
	}
	lock_release(&q->lineage_lock);
	return same && (a == b || (!b && a));
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
	/* Of an image. (What is on the swap file is read when it is the clone's own.) */
	if (error == -EBADMSG || error == -EIO) {
		fault_report_image(f->region, f->page, f->error);
		return fault_give_up(f, FAULT_IOERR);
	}
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
		f->credit = f->credit || credits_try_new(p, 1);
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
