/* SPDX-License-Identifier: MIT */
/*
 * vm/snapshot.c - snapshots come and go: the public calls for that, and clones.
 *
 * A snapshot is a region record without addresses (cow.h says what its entries are,
 * lineage.h whom it inherits from). To make one is to close the region's gate, protect
 * what is mapped, and open it again.
 *
 * One instant: a write that is in the image was made before its page was protected; what
 * comes after that waits at the gate until all is. So of two writes, of which one was
 * made when the other had been seen, never the later one alone is in.
 *
 * To destroy one is to give what it keeps to the next older one, which inherited it, or
 * to nobody. One that a clone inherits from stays, without a name, until that has gone.
 */
#include "vm/snapshot.h"

#include "vm/lineage.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <uuid/uuid.h>

bool snapshot_is_valid(const quire_snapshot_t *s)
{
	const struct quire_region *r = snapshot_record(s);

	return r && r->is_snapshot && !r->unnamed && atomic_load(&r->alive) == REGION_ALIVE &&
	       !pager_is_lost(r->q);
}

int snapshot_invalid(const quire_snapshot_t *s)
{
	if (s && snapshot_record(s)->q && pager_is_lost(snapshot_record(s)->q))
		return lost_error();
	return error_set(EINVAL, "no such snapshot");
}

struct quire_region *snapshot_region(struct quire_region *s)
{
	while (snapshot_newer(s))
		s = snapshot_newer(s);
	return s->parent && s->parent->newest == s ? s->parent : NULL;
}

/* -------------------------------------------------------------- create */

static bool is_pinned(struct quire_region *r, uint64_t page)
{
	uint64_t e = region_leaf_touched(r, page) ? atomic_load(region_entry(r, page)) : 0;

	return entry_state(e) == ENTRY_MAPPED && r->q->pager.frames[entry_payload(e)].pins > 0;
}

uint64_t snapshot_next_pinned(struct quire_region *r, uint64_t page, bool any)
{
	if (!any)
		return r->pages;
	for (; page < r->pages; page++) {
		if (!region_leaf_touched(r, page))
			page |= LEAF_ENTRIES - 1;
		else if (is_pinned(r, page))
			return page;
	}
	return r->pages;
}

/* => the gate is closed, or s is nobody's yet; a credit of the caller's */
static int copy_pinned(struct quire_region *r, struct quire_region *s, uint64_t page)
{
	struct pager *p = &r->q->pager;
	uint32_t buffer = stage_get(p, false);
	int error;

	if (buffer == BUFFER_NONE || !region_touch_leaf(s, page)) {
		if (buffer != BUFFER_NONE)
			stage_drop(p, buffer);
		else
			credits_put(p, 1);
		return -ENOMEM;
	}
	error = engine_save(&r->q->engine, r, region_page(r, page), buffer_address(p, buffer));
	if (error == -ENOENT || (!error && page_is_zero(buffer_address(p, buffer)))) {
		atomic_store(region_entry(s, page), ENTRY_ZERO);
		stage_drop(p, buffer);
		return 0;
	}
	if (error) {
		stage_drop(p, buffer);
		return error;
	}
	stage_fill(p, buffer, PAGE_ID(s->id, page), SLOT_NONE, BUFFER_DIRTY);
	region_count_standby(s, false);
	atomic_store(region_entry(s, page), entry_make(ENTRY_STANDBY, buffer));
	REGION_COUNT(r, snapshot_copies, 1);
	return 0;
}

static int protect_unpinned(struct quire_region *r)
{
	struct engine *e = &r->q->engine;
	int error = 0;

	for (uint64_t page = 0, pin; page < r->pages && !error; page = pin + 1) {
		pin = snapshot_next_pinned(r, page, true);
		if (pin > page)
			error = e->ops->protect_all(e, r, region_page(r, page), pin - page);
	}
	return error;
}

/*
 * => pin lock, the gate is closed; *credits of the caller's, one for each pinned page
 *
 * What is pinned the kernel may write to by itself, at any time from now on, so the image's copy is
 * made here. Where a system call would fail on a page that is protected, that one never is: then
 * it comes last, for who can write to it still has written nothing to others that the image lacks.
 */
static int protect_and_copy(struct quire_region *r, struct quire_region *s, bool pins,
                            uint64_t *credits)
{
	struct engine *e = &r->q->engine;
	bool all = !pins || !e->ops->in_thread;
	int error = all ? e->ops->protect_all(e, r, r->base, r->pages) : protect_unpinned(r);

	for (uint64_t page = snapshot_next_pinned(r, 0, pins); page < r->pages && !error;
	     page = snapshot_next_pinned(r, page + 1, pins)) {
		/* Pinned after they were counted? Not with the lock. */
		ASSERT(*credits > 0);
		--*credits;
		error = copy_pinned(r, s, page);
		if (!error && all && e->ops->unprotect(e, r, region_page(r, page), 1) != 1)
			error = -EIO;
	}
	return error;
}

static void link_newest(struct quire_region *r, struct quire_region *s)
{
	lock_acquire(&r->q->lineage_lock);
	s->parent = r;
	s->older = r->newest;
	if (s->older)
		s->older->parent = s;
	r->newest = r->target = s;
	lock_release(&r->q->lineage_lock);
}

/* => snapshot lock, pin lock */
static int take_image(struct quire_region *r, struct quire_region *s)
{
	struct pager *p = &r->q->pager;
	bool pins = counted(&r->counters.pinned) > 0;
	uint64_t credits = 0;
	int error = 0;

	for (uint64_t page = snapshot_next_pinned(r, 0, pins); page < r->pages && !error;
	     page = snapshot_next_pinned(r, page + 1, pins)) {
		error = credits_get_new(p, 1);
		credits += !error;
	}
	if (!error) {
		cow_close(r);
		error = protect_and_copy(r, s, pins, &credits);
		if (!error)
			link_newest(r, s);
		cow_open(r);
	}
	credits_put(p, (uint32_t)credits);
	return error;
}

static int create(struct quire_region *r, struct quire_region **out)
{
	struct quire *q = r->q;
	struct quire_region *s;
	int error = region_record(q, r->bytes, r->name, &s);

	if (error)
		return error;
	s->is_snapshot = true;
	/* Now: what a child of fork saves of it bears the same name as what its parent does. */
	uuid_generate(s->uuid);
	s->created = (int64_t)time(NULL);
	atomic_store(&s->alive, REGION_ALIVE);
	lock_acquire(&q->pin_lock);
	error = take_image(r, s);
	lock_release(&q->pin_lock);
	if (error) {
		snapshot_forget(s);
		return error_set(-error, "the snapshot cannot be taken: %s", strerror(-error));
	}
	*out = s;
	return 0;
}

int quire_snapshot_create(quire_region_t *r, quire_snapshot_t **out)
{
	struct quire_region *s = NULL;
	struct call call;
	int error;

	error = out ? region_check(r) : error_set(EINVAL, "a NULL result");
	if (error)
		return error;
	call_enter(&call);
	lock_acquire(&r->q->snapshot_lock);
	error = create(r, &s);
	lock_release(&r->q->snapshot_lock);
	call_leave(&call);
	if (!error)
		*out = snapshot_handle(s);
	return error;
}

size_t quire_snapshot_length(const quire_snapshot_t *s)
{
	return s ? snapshot_record(s)->bytes : 0;
}

/* ------------------------------------------------------------- destroy */

void snapshot_forget(struct quire_region *s)
{
	struct quire *q = s->q;
	uint32_t users;

	atomic_store(&s->alive, REGION_GONE);
	while ((users = atomic_load(&s->users)) != 0)
		futex_wait(&s->users, users, UINT64_C(1000000), false);
	/* Reads in flight hold an entry, and are users only while they complete. */
	discard_settle(s);
	while ((users = atomic_load(&s->users)) != 0)
		futex_wait(&s->users, users, UINT64_C(1000000), false);
	snapshot_unload(s);
	region_forget(s);
	reclaimer_give_back(&q->pager);
	forgive(q);
}

/* The entry of s is held, e. => lineage lock; what s has is o's from now on */
static void hand_over(struct quire_region *s, struct quire_region *o, uint64_t page, uint64_t e)
{
	switch (entry_state(e)) {
	case ENTRY_STANDBY:
		region_uncount_standby(s,
		                       buffer_is_ahead(buffer_of(&s->q->pager, entry_payload(e))));
		region_count_standby(o, false);
		atomic_store(region_entry(o, page), e);
		buffer_rename(&s->q->pager, entry_payload(e), PAGE_ID(o->id, page));
		break;
	case ENTRY_SLOT:
		uncount(&s->counters.swapped, 1);
		count(&o->counters.swapped, 1);
		atomic_store(region_entry(o, page), e);
		break;
	default:
		atomic_store(region_entry(o, page), e & ~ENTRY_BUSY);
		break;
	}
}

/* Room in o for all that s has. Leaves of s that are touched later are so by what o is asked to keep, too. */
static bool reserve_older(const struct quire_region *s, struct quire_region *o)
{
	for (uint64_t page = 0; page < s->pages; page += LEAF_ENTRIES)
		if (region_leaf_touched(s, page) && !region_touch_leaf(o, page))
			return false;
	return true;
}

/* What s keeps and the next older one has from it. => s is nobody's target any more */
static void merge_into_older(struct quire_region *s, struct quire_region *o)
{
	struct quire *q = s->q;

	for (uint64_t page = 0; page < s->pages; page++) {
		uint64_t e;
		bool wants;

		if (!region_leaf_touched(s, page)) {
			page |= LEAF_ENTRIES - 1;
			continue;
		}
		if (!cow_has_own(s, page))
			continue;
		if (!region_touch_leaf(o, page))
			assert_failed(__FILE__, __LINE__, "room has been made in the older one");
		e = entry_hold(s, page);
		lock_acquire(&q->lineage_lock);
		wants = !cow_has_own(o, page);
		if (wants)
			hand_over(s, o, page, e);
		lock_release(&q->lineage_lock);
		/*
		 * Still something of its own: the region's page is not shared with the older one. And
		 * as long as it is looked at, whether the page has changed is what it was.
		 */
		entry_publish(s, page, wants ? ENTRY_ZERO | (e & ENTRY_MAYBE) : e);
	}
}

static void unlink_snapshot(struct quire_region *r, struct quire_region *s)
{
	struct quire_region *after = snapshot_newer(s);

	if (r)
		cow_close(r);
	lock_acquire(&s->q->lineage_lock);
	if (r && r->newest == s)
		r->newest = s->older;
	if (after)
		after->older = s->older;
	if (s->older)
		s->older->parent = s->parent;
	lock_release(&s->q->lineage_lock);
	if (r)
		cow_open(r);
}

/* => snapshot lock; s has no heirs. *heir_of: whose heir it was, which is to be told; NULL: nobody's */
static int remove_snapshot(struct quire_region *s, struct quire_region **heir_of)
{
	struct quire_region *r = snapshot_region(s), *o = s->older;
	bool newest = r && r->newest == s;
	/* The last of a clone's that has gone inherits in its place. */
	struct quire_region *parent = !o && !r && !snapshot_newer(s) ? s->parent : NULL;

	*heir_of = NULL;
	/* Before anything changes: from there on nothing fails. */
	if (newest)
		cow_close(r);
	if (o && !reserve_older(s, o)) {
		if (newest)
			cow_open(r);
		return -ENOMEM;
	}
	if (newest)
		r->target = o;
	if (newest)
		cow_open(r);
	if (o)
		merge_into_older(s, o);
	unlink_snapshot(r, s);
	snapshot_forget(s);
	*heir_of = parent;
	return 0;
}

/* (A loop: clones of clones of clones may go at once, on a thread with a small stack.) */
void snapshot_disinherit(struct quire_region *parent)
{
	while (parent && --parent->heirs == 0 && parent->unnamed)
		/* For want of memory it stays, until the pager is closed or another goes. */
		if (remove_snapshot(parent, &parent) != 0)
			return;
}

int quire_snapshot_destroy(quire_snapshot_t *snapshot)
{
	struct quire_region *s = snapshot_record(snapshot), *heir_of = NULL;
	struct quire *q;
	struct call call;
	int error = 0;

	if (!snapshot_is_valid(snapshot))
		return snapshot_invalid(snapshot);
	q = s->q;
	call_enter(&call);
	lock_acquire(&q->snapshot_lock);
	if (s->heirs)
		s->unnamed = true;
	else
		error = remove_snapshot(s, &heir_of);
	if (!error)
		snapshot_disinherit(heir_of);
	lock_release(&q->snapshot_lock);
	call_leave(&call);
	return error ? error_set(-error, "no memory for the records of an older snapshot") : 0;
}

int snapshots_take_over(struct quire_region *r)
{
	struct quire *q = r->q;
	struct quire_region *parent;
	int error = 0;

	lock_acquire(&q->snapshot_lock);
	parent = r->parent;
	if (r->newest)
		error = discard_to_snapshots(r);
	if (!error && r->newest) {
		cow_close(r);
		lock_acquire(&q->lineage_lock);
		r->newest->parent = parent;
		r->newest = r->target = NULL;
		lock_release(&q->lineage_lock);
		cow_open(r);
	} else if (!error) {
		snapshot_disinherit(parent);
	}
	if (!error)
		r->parent = NULL;
	lock_release(&q->snapshot_lock);
	return error;
}

/* --------------------------------------------------------------- clone */

static int make_clone(struct quire_region *s, struct quire_region **out)
{
	int error;

	s->heirs++;
	error = region_make(s->q, s->bytes, s->name, s, out);
	if (error)
		s->heirs--;
	return error;
}

int quire_snapshot_clone(quire_snapshot_t *snapshot, quire_region_t **out)
{
	struct quire_region *s = snapshot_record(snapshot), *made = NULL;
	struct call call;
	int error;

	if (!out)
		return error_set(EINVAL, "a NULL result");
	if (!snapshot_is_valid(snapshot))
		return snapshot_invalid(snapshot);
	call_enter(&call);
	lock_acquire(&s->q->snapshot_lock);
	error = make_clone(s, &made);
	lock_release(&s->q->snapshot_lock);
	call_leave(&call);
	if (!error)
		*out = made;
	return error;
}
