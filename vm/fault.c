/* SPDX-License-Identifier: MIT */
/*
 * vm/fault.c - a fault, stage by stage.
 *
 * An engine fills a struct fault and calls fault_serve, which takes the page's
 * entry and, by its state, runs one stage:
 *
 *   EMPTY     zero_fill   first touch (zero_fill.c); in a clone, inherit (lineage.c)
 *   MAPPED    mapped      first write to a clean page, or since a snapshot; or
 *                         another thread was faster; or the program discarded
 *                         the page itself (mapped.c)
 *   STANDBY   rescue      its bytes are in a buffer: put it back (rescue.c)
 *   READING               wait for the read in flight, then look again
 *   SLOT      read        from the swap file, with what readahead plans
 *
 * Each stage ends by publishing the entry (entry_publish), which wakes whoever
 * came to the same page meanwhile. Two kinds of threads come here: the faulting
 * thread itself, which may sleep for memory and for the disk; and a handler
 * thread, which may not: it starts the read and goes (owner.c maps the page
 * when it arrives), or defers the fault until there is memory, or a free queue.
 *
 * Why no write is lost: a page's bytes are copied out only by the holder of its
 * entry after the page was write-protected or moved (engine take), and the
 * entry is published as something else before another page's bytes come in. A
 * write that races with the take either lands before it, and is in the bytes;
 * or faults, finds the entry BUSY, waits and is served by what follows.
 */
#include "vm/vm.h"

#include <errno.h>

/* ------------------------------------------------------------- entries */

bool entry_publish(struct quire_region *r, uint64_t page, uint64_t value)
{
	entry_t *entry = region_entry(r, page);
	uint64_t old = atomic_exchange(entry, value & ~(ENTRY_BUSY | ENTRY_MARKS));

	if (!(old & ENTRY_MARKS))
		return false;
	if (old & ENTRY_WAITERS)
		futex_wake(entry_futex(entry), INT32_MAX, false);
	if (old & ENTRY_FAULTS)
		r->q->engine.ops->wake(&r->q->engine, region_page(r, page), 1);
	return true;
}

void entry_wait(entry_t *entry, uint64_t seen)
{
	uint64_t marked = seen | ENTRY_WAITERS;

	if (!(seen & ENTRY_WAITERS) && !atomic_compare_exchange_strong(entry, &seen, marked))
		return;
	futex_wait(entry_futex(entry), (uint32_t)marked, 0, false);
}

uint64_t entry_hold(struct quire_region *r, uint64_t page)
{
	entry_t *entry = region_entry(r, page);

	for (;;) {
		uint64_t e = atomic_load(entry);

		if (e & ENTRY_BUSY)
			entry_wait(entry, e);
		else if (entry_state(e) == ENTRY_READING)
			readin_wait(&r->q->pager, entry_payload(e));
		else if (entry_try(entry, e))
			return e & ~ENTRY_MARKS;
	}
}

/* ------------------------------------------------------------ accounts */

void fault_account(struct quire_region *r, bool major, uint64_t started)
{
	uint64_t ns = now_ns() - started;

	if (major) {
		count(&r->counters.major_faults, 1);
		count(&r->q->counters.major_faults, 1);
		histogram_add(&r->major, ns);
		histogram_add(&r->q->major, ns);
	} else {
		count(&r->counters.minor_faults, 1);
		count(&r->q->counters.minor_faults, 1);
		histogram_add(&r->minor, ns);
		histogram_add(&r->q->minor, ns);
	}
}

static void report(struct quire_region *r, uint64_t page, enum quire_error_kind kind, int error,
                   const char *words)
{
	struct quire_error e = { .kind = kind,
		                 .error = error,
		                 .region = r,
		                 .offset = page << PAGE_SHIFT,
		                 .message = words };

	if (kind == QUIRE_ERROR_READ || kind == QUIRE_ERROR_CHECKSUM)
		REGION_COUNT(r, read_errors, 1);
	if (r->q->on_error)
		r->q->on_error(r->q->on_error_arg, &e);
}

void fault_report_image(struct quire_region *r, uint64_t page, int error)
{
	if (error == EIO)
		report(r, page, QUIRE_ERROR_READ, error,
		       "a page could not be read from the image that it was loaded from");
	else
		report(r, page, QUIRE_ERROR_CHECKSUM, error,
		       "a page of the image that it was loaded from does not match its checksum");
}

void fault_report(struct quire_region *r, uint64_t page, enum quire_error_kind kind, int error)
{
	static const char *const words[] = {
		[QUIRE_ERROR_READ] = "a page could not be read from the swap file",
		[QUIRE_ERROR_CHECKSUM] = "a page of the swap file does not match its checksum",
		[QUIRE_ERROR_NO_MEMORY] = "no page could be evicted to make room for an access",
		[QUIRE_ERROR_ENGINE] = "the kernel refused to install or remove a page",
	};

	report(r, page, kind, error, words[kind]);
}

/* A page mapped clean was written (1) or given up clean (0): a moving average of about 64. */
void fault_learn_write(struct quire_region *r, bool written)
{
	uint32_t bias = atomic_load_explicit(&r->write_bias, memory_order_relaxed);

	bias = written ? bias + (1024 - bias) / 32 : bias - bias / 64;
	atomic_store_explicit(&r->write_bias, bias, memory_order_relaxed);
}

bool fault_expects_write(struct quire_region *r)
{
	if (atomic_load_explicit(&r->write_bias, memory_order_relaxed) < 600)
		return false;
	/* Every sixteenth is mapped clean still, to learn when this changes. */
	return atomic_fetch_add_explicit(&r->installs, 1, memory_order_relaxed) % 16 != 0;
}

/* -------------------------------------------------------------- stages */

enum fault_result fault_give_up(struct fault *f, enum fault_result result)
{
	entry_publish(f->region, f->page, f->held);
	return result;
}

enum fault_result fault_wait_to_copy(struct fault *f)
{
	struct pager *p = &f->region->q->pager;

	if (!f->may_sleep)
		return FAULT_DEFERRED;
	if (!f->credit) {
		if (credits_get_new(p, 1) != 0)
			return FAULT_NOMEM;
		f->credit = true;
		return FAULT_WAITING;
	}
	/* It has one: so what it lacks is a cluster, and who waits for that holds no credit. */
	credits_put(p, 1);
	f->credit = false;
	return reclaim_wait(p, &f->patience) ? FAULT_WAITING : FAULT_NOMEM;
}

/* Read one slot on this thread and map it; the entry is held, one credit too. */
static enum fault_result read_one(struct fault *f, uint32_t c)
{
	struct quire_region *r = f->region;
	struct quire *q = r->q;
	slot_t slot = entry_payload(f->held);
	bool writable = f->write || fault_expects_write(r);
	page_id id = PAGE_ID(r->id, f->page);
	enum policy_entry how = POLICY_FAULTED;
	struct swap_run run = { .op = SWAP_READ,
		                .slot = slot,
		                .count = 1,
		                .pages = 1,
		                .base = buffer_address(&q->pager, c * CLUSTER_PAGES) };
	uint32_t frame;
	int n;

	if (readin_here(&q->pager, &run) != 0 || run.bad) {
		fault_report(r, f->page, run.status ? QUIRE_ERROR_READ : QUIRE_ERROR_CHECKSUM,
		             run.status ? -run.status : EBADMSG);
		return FAULT_IOERR;
	}
	REGION_COUNT(r, pages_in, 1);
	cow_enter(r);
	/* Shared with a snapshot it is not made writable without need; nor without room for what that keeps. */
	if (cow_is_shared(r, f->page))
		writable = f->write && cow_reserve(r, f->page) && credits_try_new(&q->pager, 0);
	n = q->engine.ops->map(&q->engine, r, region_page(r, f->page), run.base, 1, writable);
	f->error = n < 0 ? -n : 0;
	if (n == 1) {
		frames_enter(&q->pager, &id, &frame, 1, how, 0);
		uncount(&r->counters.swapped, 1);
		uncount(&q->counters.swapped, 1);
		if (writable)
			cow_drop_slot(r, f->page, slot, false);
		else
			q->pager.frames[frame].slot = slot;
		region_count_resident(r, 1);
		entry_publish(r, f->page, entry_make(ENTRY_MAPPED, frame));
	}
	cow_leave(r);
	return n == 1 ? FAULT_DONE : FAULT_REFUSED;
}

static void note_refault(struct quire_region *r, uint64_t held)
{
	uint32_t then = (uint32_t)(held >> ENTRY_STAMP_SHIFT & ENTRY_STAMP_MASK);
	uint32_t now = atomic_load_explicit(&r->q->stamp, memory_order_relaxed) >> 4;
	uint64_t since = (uint64_t)((now - then) & ENTRY_STAMP_MASK) << 4;

	if (since < atomic_load(&r->q->pager.budget))
		REGION_COUNT(r, refaults, 1);
}

/* The page is being read. Not before: a fault that is put off comes again. */
static void note_major(struct fault *f)
{
	if (!f->major)
		note_refault(f->region, f->held);
	f->major = true;
}

/* Credits for the page and for a buffer, and a cluster with one. => CLUSTER_NONE: nothing can be evicted */
static uint32_t get_buffer(struct pager *p)
{
	struct patience patience = { .since = 0 };
	uint32_t c;

	/* Who waits for memory holds none; with it, he waits for the disk only. */
	do {
		if (credits_get(p, 2) != 0)
			return CLUSTER_NONE;
		c = cluster_get(p, 1);
		if (c != CLUSTER_NONE)
			return c;
		credits_put(p, 2);
	} while (reclaim_wait(p, &patience));
	return CLUSTER_NONE;
}

static enum fault_result read_alone(struct fault *f)
{
	struct pager *p = &f->region->q->pager;
	enum fault_result result;
	uint32_t c;

	note_major(f);
	c = get_buffer(p);
	if (c == CLUSTER_NONE)
		return fault_give_up(f, FAULT_NOMEM);
	cluster_lend(p, c);
	result = read_one(f, c);
	cluster_put(p, c);
	if (result != FAULT_DONE) {
		credits_put(p, 1);
		return fault_give_up(f, result);
	}
	return FAULT_DONE;
}

static enum fault_result read_slot(struct fault *f)
{
	struct quire_region *r = f->region;
	struct ra_plan plan = { .count = 0 };
	uint32_t id;

	if (f->held & ENTRY_LOST)
		return fault_give_up(f, FAULT_IOERR);
	/* A thread of the program's may start reads only through the reader. */
	if (!f->no_readahead && (r->q->engine.ops->in_thread || !f->may_sleep))
		window_plan(r, f->page, f->write, &plan);
	if (plan.count == 0 && f->may_sleep)
		return read_alone(f);
	if (!window_start(r, &plan, f, &id)) {
		if (!f->may_sleep)
			return fault_give_up(f, f->congested ? FAULT_CONGESTED : FAULT_DEFERRED);
		return read_alone(f);
	}
	note_major(f);
	if (!f->may_sleep)
		return FAULT_WAITING;
	/* If it does not arrive whole, the next attempt reads it alone and knows why. */
	f->no_readahead = true;
	readin_wait(&r->q->pager, id);
	return FAULT_WAITING;
}

/* -------------------------------------------------------------- serve */

/*
 * A write to a page that a snapshot shares makes new contents of it, for which there must be room (P2).
 * Before it is brought in: a page that is mapped and may not be written is evicted, and brought in
 * again, which is progress for who looks for it, for ever. The entry is held. => there is none
 */
static bool lacks_room(const struct fault *f)
{
	struct quire_region *r = f->region;
	bool shared;

	if (!f->write || f->credit)
		return false;
	cow_enter(r);
	shared = cow_is_shared(r, f->page);
	cow_leave(r);
	if (!shared)
		return false;
	/* For the page and its buffer, with which it comes in; then there must be some still. */
	if (!credits_try_new(&r->q->pager, 2))
		return true;
	credits_put(&r->q->pager, 2);
	return false;
}

/* One stage. => FAULT_WAITING: look again, if the thread may sleep */
static enum fault_result attempt(struct fault *f)
{
	uint64_t e = atomic_load(f->entry);
	enum fault_result result;

	if (e & ENTRY_BUSY || entry_state(e) == ENTRY_READING) {
		if (!f->may_sleep) {
			uint64_t seen = e;

			if (atomic_compare_exchange_strong(f->entry, &seen, e | ENTRY_FAULTS))
				return FAULT_WAITING;
			return attempt(f);
		}
		if (e & ENTRY_BUSY) {
			entry_wait(f->entry, e);
		} else {
			f->major = true;
			readin_wait(&f->region->q->pager, entry_payload(e));
		}
		return FAULT_WAITING;
	}
	if (!entry_try(f->entry, e))
		return attempt(f);
	f->held = e & ~ENTRY_MARKS;
	if ((entry_state(e) == ENTRY_STANDBY || entry_state(e) == ENTRY_SLOT) && lacks_room(f)) {
		fault_give_up(f, FAULT_UNBACKED);
		return fault_wait_to_copy(f);
	}
	switch (entry_state(e)) {
	case ENTRY_EMPTY:
		if (!f->region->parent)
			return fault_zero_fill(f);
		result = fault_inherit(f);
		return result == FAULT_DONE ? attempt(f) : result;
	case ENTRY_ZERO:
		return fault_zero_fill(f);
	case ENTRY_MAPPED:
		return fault_mapped(f);
	case ENTRY_STANDBY:
		return fault_rescue(f);
	case ENTRY_SLOT:
		return read_slot(f);
	case ENTRY_READING:
	case ENTRY_GIVEN: /* nobody comes to a region that is closed */
		break;
	}
	assert_failed(__FILE__, __LINE__, "a held entry is READING, or was given away");
}

/* Too many mappings: each page that is evicted may take some with it. => true: once more */
static bool make_way(struct fault *f)
{
	return f->error == ENGINE_CROWDED && f->may_sleep &&
	       reclaim_unmap(&f->region->q->pager, &f->patience);
}

enum fault_result fault_serve(struct fault *f)
{
	struct quire_region *r = f->region;
	enum fault_result result;

	f->started = now_ns();
	f->entry = region_entry(r, f->page);
	f->error = 0;
	f->major = f->no_readahead = f->credit = false;
	f->patience = (struct patience){ .since = 0 };
	if (!region_touch_leaf(r, f->page))
		result = FAULT_NOMEM;
	else
		do
			result = attempt(f);
		while ((result == FAULT_WAITING && f->may_sleep) ||
		       (result == FAULT_REFUSED && make_way(f)));
	if (f->credit)
		credits_put(&r->q->pager, 1);
	if (result == FAULT_DONE)
		fault_account(r, f->major, f->started);
	else if (result == FAULT_NOMEM)
		fault_report(r, f->page, QUIRE_ERROR_NO_MEMORY, ENOMEM);
	else if (result == FAULT_REFUSED)
		fault_report(r, f->page, QUIRE_ERROR_ENGINE, f->error);
	return result;
}
