/* SPDX-License-Identifier: MIT */
/*
 * vm/rollback.c - a region becomes what it was, page by page of those that have changed.
 *
 * What a page is now is given up as by a discard (so the snapshots that share it have it), and
 * what it was becomes its own.
 */
#include "vm/snapshot.h"

#include "base/error.h"
#include "vm/lineage.h"

#include <errno.h>
#include <string.h>

/* => a buffer, by a credit; BUFFER_NONE: nothing can be evicted */
static uint32_t buffer_for_copy(struct quire_region *r)
{
	struct pager *p = &r->q->pager;
	struct patience patience = { .since = 0 };
	uint32_t buffer;

	do {
		if (credits_get(p, 1) != 0)
			return BUFFER_NONE;
		buffer = stage_get(p, false);
		if (buffer == BUFFER_NONE)
			credits_put(p, 1);
	} while (buffer == BUFFER_NONE && reclaim_wait(p, &patience));
	return buffer;
}

/* One page that differs becomes what it was. */
static int roll_page(struct quire_region *r, struct quire_region *s, uint64_t page)
{
	uint32_t buffer = BUFFER_NONE;
	struct content c;
	uint64_t own;
	int error = lineage_content(s, page, NULL, true, &c);

	if (error == -ENOBUFS) {
		buffer = buffer_for_copy(r);
		if (buffer == BUFFER_NONE)
			return -ENOMEM;
		error = lineage_content(s, page, buffer_address(&r->q->pager, buffer), true, &c);
		if (error) {
			stage_drop(&r->q->pager, buffer);
			return error;
		}
	} else if (error) {
		return error;
	}
	own = lineage_own(r, page, &c, buffer);
	error = discard_for(r, page, own);
	if (error)
		lineage_disown(r, own);
	return error;
}

/* => snapshot lock, pin lock */
static int roll_back(struct quire_region *r, struct quire_region *s)
{
	int error = 0;

	/* A fault that has made a page writable may not have said so yet: it is inside the gate. */
	cow_close(r);
	cow_open(r);
	if (counted(&r->counters.pinned))
		for (uint64_t page = snapshot_next_pinned(r, 0, true); page < r->pages;
		     page = snapshot_next_pinned(r, page + 1, true))
			if (snapshot_has_changed(s, NULL, page))
				return -EBUSY;
	for (uint64_t page = 0; page < r->pages && !error; page++) {
		if (!snapshot_leaf_may_differ(s, NULL, page))
			page |= LEAF_ENTRIES - 1;
		else if (snapshot_has_changed(s, NULL, page))
			error = roll_page(r, s, page);
	}
	/* That a page could not be taken is something else than a pin: others have been rolled back. */
	return error == -EBUSY ? -EIO : error;
}

int quire_snapshot_rollback(quire_snapshot_t *snapshot)
{
	struct quire_region *s = snapshot_record(snapshot), *r;
	struct call call;
	int error = -ENOENT;

	if (!snapshot_is_valid(snapshot))
		return snapshot_invalid(snapshot);
	call_enter(&call);
	lock_acquire(&s->q->snapshot_lock);
	lock_acquire(&s->q->pin_lock);
	r = snapshot_region(s);
	if (r)
		error = roll_back(r, s);
	lock_release(&s->q->pin_lock);
	lock_release(&s->q->snapshot_lock);
	forgive(s->q);
	call_leave(&call);
	if (error == -ENOENT && s->image)
		return error_set(EINVAL, "a snapshot that was loaded has no region: clone it");
	if (error == -ENOENT)
		return error_set(EINVAL, "the region of the snapshot has been destroyed");
	if (error == -EBUSY)
		return error_set(EBUSY, "a page that has changed is pinned");
	return error ? error_set(-error, "some pages could not be rolled back: %s",
	                         strerror(-error)) :
	               0;
}
