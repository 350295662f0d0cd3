/* SPDX-License-Identifier: MIT */
/*
 * vm/snapshot.c - snapshots, clones, rollback, differences: the public calls.
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
#include "vm/lineage.h"
#include "vm/vm.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The handles of the public interface are records of regions. */
static struct quire_region *record_of(const quire_snapshot_t *s)
{
	return (struct quire_region *)(uintptr_t)s;
}

static quire_snapshot_t *handle_of(struct quire_region *r)
{
	return (quire_snapshot_t *)r;
}

static bool is_valid(const quire_snapshot_t *s)
{
	const struct quire_region *r = record_of(s);

	return r && r->is_snapshot && !r->unnamed && atomic_load(&r->alive) == REGION_ALIVE;
}

static int invalid(void)
{
	return error_set(EINVAL, "no such snapshot");
}

/* Of the same region, the next newer one; or NULL. */
static struct quire_region *newer(const struct quire_region *s)
{
	return s->parent && s->parent->is_snapshot && s->parent->older == s ? s->parent : NULL;
}

/* The region that it is of, or NULL if that has gone. */
static struct quire_region *region_of(struct quire_region *s)
{
	while (newer(s))
		s = newer(s);
	return s->parent && s->parent->newest == s ? s->parent : NULL;
}

/* -------------------------------------------------------------- create */

static bool is_pinned(struct quire_region *r, uint64_t page)
{
	uint64_t e = region_leaf_touched(r, page) ? atomic_load(region_entry(r, page)) : 0;

	return entry_state(e) == ENTRY_MAPPED && r->q->pager.frames[entry_payload(e)].pins > 0;
}

/* => pin lock. From page on; r->pages: none */
static uint64_t next_pinned(struct quire_region *r, uint64_t page, bool any)
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
	error = r->q->engine.ops->save(&r->q->engine, r, region_page(r, page),
	                               buffer_address(p, buffer));
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

/*
 * => pin lock, the gate is closed; *credits of the caller's, one for each pinned page
 *
 * What is pinned the kernel may write to by itself, at any time from now on, so the image's copy is
 * made here. Where a system call would fail on a page that is protected, that one never is.
 */
static int protect_and_copy(struct quire_region *r, struct quire_region *s, bool pins,
                            uint64_t *credits)
{
	struct engine *e = &r->q->engine;
	bool all = !e->ops->in_thread;
	int error = all ? e->ops->protect_all(e, r, r->base, r->pages) : 0;

	for (uint64_t page = 0, pin; page < r->pages && !error; page = pin + 1) {
		pin = next_pinned(r, page, pins);
		if (pin > page && !all)
			error = e->ops->protect_all(e, r, region_page(r, page), pin - page);
		if (pin == r->pages || error)
			break;
		/* Pinned after they were counted? Not with the lock. */
		ASSERT(*credits > 0);
		--*credits;
		error = copy_pinned(r, s, pin);
		if (!error && all && e->ops->unprotect(e, r, region_page(r, pin), 1) != 1)
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

	for (uint64_t page = next_pinned(r, 0, pins); page < r->pages && !error;
	     page = next_pinned(r, page + 1, pins)) {
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
	char name[REGION_NAME_BYTES];
	struct quire_region *s;
	int error;

	snprintf(name, sizeof name, "%.*s snapshot", (int)(sizeof name - 10), r->name);
	error = region_record(q, r->bytes, name, &s);
	if (error)
		return error;
	s->is_snapshot = true;
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

	if (!out || !r || r->is_snapshot || atomic_load(&r->alive) != REGION_ALIVE)
		return error_set(EINVAL, "no such region, or a NULL result");
	call_enter(&call);
	lock_acquire(&r->q->snapshot_lock);
	error = create(r, &s);
	lock_release(&r->q->snapshot_lock);
	call_leave(&call);
	if (!error)
		*out = handle_of(s);
	return error;
}

size_t quire_snapshot_length(const quire_snapshot_t *s)
{
	return record_of(s)->bytes;
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
		/* Still something of its own: the region's page is not shared with the older one. */
		entry_publish(s, page, wants ? ENTRY_ZERO : e);
	}
}

static void unlink_snapshot(struct quire_region *r, struct quire_region *s)
{
	struct quire_region *after = newer(s);

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

static int remove_snapshot(struct quire_region *s);

/* One heir less; the last one takes a parent without a name with it. */
static void disinherit(struct quire_region *parent)
{
	if (parent && --parent->heirs == 0 && parent->unnamed && remove_snapshot(parent) != 0)
		return; /* for want of memory: it stays until the pager is closed, or another goes */
}

/* => snapshot lock; s has no heirs */
static int remove_snapshot(struct quire_region *s)
{
	struct quire_region *r = region_of(s), *o = s->older;
	bool newest = r && r->newest == s;
	/* The last of a clone's that has gone inherits in its place. */
	struct quire_region *heir_of = !r && !newer(s) ? s->parent : NULL;

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
	if (!o)
		disinherit(heir_of);
	return 0;
}

int quire_snapshot_destroy(quire_snapshot_t *snapshot)
{
	struct quire_region *s = record_of(snapshot);
	struct quire *q;
	struct call call;
	int error = 0;

	if (!is_valid(snapshot))
		return invalid();
	q = s->q;
	call_enter(&call);
	lock_acquire(&q->snapshot_lock);
	if (s->heirs)
		s->unnamed = true;
	else
		error = remove_snapshot(s);
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
		disinherit(parent);
	}
	if (!error)
		r->parent = NULL;
	lock_release(&q->snapshot_lock);
	return error;
}

/* ---------------------------------------------------------------- read */

static int read_slot(struct quire *q, slot_t slot, void *bytes)
{
	struct swap_run run = { .op = SWAP_READ,
		                .slot = slot,
		                .count = 1,
		                .pages = 1,
		                .base = bytes };
	int error = readin_here(&q->pager, &run);

	return error ? error : run.bad ? -EBADMSG : 0;
}

/* Page as s has it, into bytes. => 0 or -errno */
static int read_page(struct quire_region *s, uint64_t page, char *bytes)
{
	struct content c;
	int error = lineage_content(s, page, bytes, true, &c);

	if (error)
		return error;
	if (c.kind == CONTENT_ZEROS)
		memset(bytes, 0, PAGE_BYTES);
	else if (c.kind == CONTENT_SLOT)
		error = read_slot(s->q, c.slot, bytes);
	if (c.slot != SLOT_NONE)
		swapfile_unref(s->q->swap, c.slot);
	return error;
}

static int read_failed(struct quire_region *s, uint64_t page, int error)
{
	REGION_COUNT(s, read_errors, 1);
	return error_set(-error, "page %llu of the snapshot cannot be read: %s",
	                 (unsigned long long)page,
	                 error == -EBADMSG ? "it does not match its checksum" : strerror(-error));
}

int quire_snapshot_read(quire_snapshot_t *snapshot, size_t offset, void *buffer, size_t length)
{
	_Alignas(PAGE_BYTES) char bytes[PAGE_BYTES];
	struct quire_region *s = record_of(snapshot);

	if (!is_valid(snapshot))
		return invalid();
	if (offset > s->bytes || length > s->bytes - offset || (length && !buffer))
		return error_set(EINVAL, "%zu bytes at %zu: the snapshot has %zu", length, offset,
		                 s->bytes);
	for (size_t done = 0; done < length;) {
		size_t at = (offset + done) % PAGE_BYTES, n = MIN(PAGE_BYTES - at, length - done);
		struct call call;
		int error;

		call_enter(&call);
		error = read_page(s, pages_of(offset + done), bytes);
		call_leave(&call);
		if (error)
			return read_failed(s, pages_of(offset + done), error);
		/* The caller's memory may be managed itself: touched with signals let in. */
		memcpy((char *)buffer + done, bytes + at, n);
		done += n;
	}
	return 0;
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
	struct quire_region *s = record_of(snapshot), *made = NULL;
	struct call call;
	int error;

	if (!out || !is_valid(snapshot))
		return error_set(EINVAL, "no such snapshot, or a NULL result");
	call_enter(&call);
	lock_acquire(&s->q->snapshot_lock);
	error = make_clone(s, &made);
	lock_release(&s->q->snapshot_lock);
	call_leave(&call);
	if (!error)
		*out = made;
	return error;
}

/* ------------------------------------------------------------ rollback */

/* Has the page changed between a and b, both of one region, a the older; b NULL: until now? */
static bool has_changed(const struct quire_region *a, const struct quire_region *b, uint64_t page)
{
	for (; a && a->is_snapshot && a != b; a = newer(a))
		if (cow_has_own(a, page))
			return true;
	return false;
}

/* May any page of the leaf have? */
static bool leaf_may_differ(const struct quire_region *a, const struct quire_region *b,
                            uint64_t page)
{
	for (; a && a->is_snapshot && a != b; a = newer(a))
		if (region_leaf_touched(a, page))
			return true;
	return false;
}

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
		for (uint64_t page = next_pinned(r, 0, true); page < r->pages;
		     page = next_pinned(r, page + 1, true))
			if (has_changed(s, NULL, page))
				return -EBUSY;
	for (uint64_t page = 0; page < r->pages && !error; page++) {
		if (!leaf_may_differ(s, NULL, page))
			page |= LEAF_ENTRIES - 1;
		else if (has_changed(s, NULL, page))
			error = roll_page(r, s, page);
	}
	return error;
}

int quire_snapshot_rollback(quire_snapshot_t *snapshot)
{
	struct quire_region *s = record_of(snapshot), *r;
	struct call call;
	int error = -ENOENT;

	if (!is_valid(snapshot))
		return invalid();
	call_enter(&call);
	lock_acquire(&s->q->snapshot_lock);
	lock_acquire(&s->q->pin_lock);
	r = region_of(s);
	if (r)
		error = roll_back(r, s);
	lock_release(&s->q->pin_lock);
	lock_release(&s->q->snapshot_lock);
	forgive(s->q);
	call_leave(&call);
	if (error == -ENOENT)
		return error_set(EINVAL, "the region of the snapshot has been destroyed");
	if (error == -EBUSY)
		return error_set(EBUSY, "a page that has changed is pinned");
	return error ? error_set(-error, "some pages could not be rolled back: %s",
	                         strerror(-error)) :
	               0;
}

/* ---------------------------------------------------------------- diff */

/* => a is b, or the older of two of one region */
static bool comes_before(const struct quire_region *a, const struct quire_region *b)
{
	while (a && a != b)
		a = newer(a);
	return a != NULL;
}

/* The older one first. => false: they are not of one region */
static bool put_in_order(struct quire_region **a, struct quire_region **b)
{
	struct quire_region *other = *a;
	struct call call;
	bool before, after;

	call_enter(&call);
	lock_acquire(&other->q->lineage_lock);
	before = comes_before(*a, *b);
	after = !before && comes_before(*b, *a);
	lock_release(&other->q->lineage_lock);
	call_leave(&call);
	if (after) {
		*a = *b;
		*b = other;
	}
	return before || after;
}

struct range {
	quire_diff_fn call;
	void *arg;
	uint64_t first, n; /* pages */
};

/* => what the callback says, if it is called */
static int add_page(struct range *g, uint64_t page, bool differs)
{
	int result = 0;

	if (g->n && (!differs || g->first + g->n != page)) {
		result = g->call(g->arg, g->first << PAGE_SHIFT, g->n << PAGE_SHIFT);
		g->n = 0;
	}
	if (differs && g->n++ == 0)
		g->first = page;
	return result;
}

enum change { SAME, MAYBE, CHANGED };

static enum change change_of(const struct quire_region *a, const struct quire_region *b,
                             uint64_t page)
{
	enum change change = SAME;

	for (; a != b && change != CHANGED; a = newer(a))
		if (cow_has_own(a, page))
			change = atomic_load(region_entry(a, page)) & ENTRY_MAYBE &&
			                         entry_state(atomic_load(region_entry(a, page))) !=
			                                 ENTRY_STANDBY ?
			                 MAYBE :
			                 CHANGED;
	return change;
}

/* What has become of the pages of a leaf between a and b. => false: nothing of any */
static bool compare_leaf(const struct quire_region *a, const struct quire_region *b, uint64_t page,
                         unsigned char change[LEAF_ENTRIES])
{
	uint64_t n = MIN(LEAF_ENTRIES, a->pages - page);
	struct call call;
	bool some;

	call_enter(&call);
	lock_acquire(&a->q->lineage_lock);
	some = leaf_may_differ(a, b, page);
	for (uint64_t i = 0; some && i < n; i++)
		change[i] = (unsigned char)change_of(a, b, page + i);
	lock_release(&a->q->lineage_lock);
	call_leave(&call);
	return some;
}

/* The page could be written, and it is not known whether it was. What cannot be read differs. */
static bool bytes_differ(struct quire_region *a, struct quire_region *b, uint64_t page)
{
	_Alignas(PAGE_BYTES) char of_a[PAGE_BYTES];
	_Alignas(PAGE_BYTES) char of_b[PAGE_BYTES];
	struct call call;
	bool differ;

	call_enter(&call);
	differ = read_page(a, page, of_a) != 0 || read_page(b, page, of_b) != 0 ||
	         memcmp(of_a, of_b, PAGE_BYTES) != 0;
	call_leave(&call);
	return differ;
}

static int diff_leaf(struct quire_region *a, struct quire_region *b, uint64_t first,
                     struct range *range)
{
	unsigned char change[LEAF_ENTRIES];
	int result = 0;

	if (!compare_leaf(a, b, first, change))
		return add_page(range, first, false);
	for (uint64_t i = 0; i < MIN(LEAF_ENTRIES, a->pages - first) && !result; i++) {
		bool differs = change[i] == CHANGED ||
		               (change[i] == MAYBE && bytes_differ(a, b, first + i));

		result = add_page(range, first + i, differs);
	}
	return result;
}

int quire_snapshot_diff(const quire_snapshot_t *one, const quire_snapshot_t *two,
                        quire_diff_fn call, void *arg)
{
	struct quire_region *a = record_of(one), *b = record_of(two);
	struct range range = { .call = call, .arg = arg };
	int result = 0;

	if (!is_valid(one) || !is_valid(two) || !call)
		return error_set(EINVAL, "no such snapshot, or a NULL function");
	if (!put_in_order(&a, &b))
		return error_set(EINVAL, "the snapshots are not of the same region");
	for (uint64_t page = 0; page < a->pages && !result; page += LEAF_ENTRIES)
		result = diff_leaf(a, b, page, &range);
	return result ? result : add_page(&range, a->pages, false);
}
