/* SPDX-License-Identifier: MIT */
/*
 * vm/evict.c - unmapping victims, a batch at a time.
 *
 * Taking is in batches, because removing a page costs a TLB shootdown: where
 * another CPU runs the program, one call on sixty-four pages costs hardly more
 * than on one. So each victim brings its cold neighbours along (the block of
 * CLUSTER_PAGES around it), the batch is sorted, and the engine sees runs.
 *
 * A victim goes into standby, from where a touch brings it back; but a clean one
 * is unmapped and no more, for its slot has its bytes, where standby has shown
 * itself to be of no use (second_chance.c).
 */
#include "vm/second_chance.h"
#include "vm/vm.h"

#include <errno.h>
#include <sched.h>

struct victim {
	page_id id;
	uint32_t frame;
	struct quire_region *region; /* with a user */
};

struct batch {
	uint32_t n;
	struct victim page[CLUSTER_PAGES];
};

/*
 * Hold the entry of a page whose frame the policy named.
 * => false: the frame is not that page's any more
 *
 * A frame is listed a moment before its page's entry is published as MAPPED;
 * the frame names the page meanwhile (F4), and who has got as far as that
 * waits for nothing. So neither wait here is long.
 */
static bool hold_frame(struct quire_region *r, page_id id, uint32_t f)
{
	entry_t *entry = region_entry(r, PAGE_ID_PAGE(id));
	struct frame *frame = &r->q->pager.frames[f];

	for (;;) {
		uint64_t e = atomic_load(entry);

		if (entry_state(e) != ENTRY_MAPPED || entry_payload(e) != f) {
			if (atomic_load(&frame->page) != id)
				return false;
			sched_yield();
		} else if (e & ENTRY_BUSY) {
			entry_wait(entry, e);
		} else if (entry_try(entry, e)) {
			return true;
		}
	}
}

static void add(struct batch *b, struct quire_region *r, page_id id, uint32_t frame)
{
	b->page[b->n++] = (struct victim){ .id = id, .frame = frame, .region = r };
}

/* The victim was named by the policy; someone may have been faster. */
static bool hold_victim(struct quire *q, struct batch *b, uint32_t f, bool clean_only)
{
	struct frame *frame = &q->pager.frames[f];
	page_id id = atomic_load_explicit(&frame->page, memory_order_relaxed);
	struct quire_region *r = id == PAGE_ID_NONE ? NULL : region_get(q, PAGE_ID_REGION(id));

	if (!r)
		return false;
	/* The region may be another than the one that was named, under the same number. */
	if (PAGE_ID_PAGE(id) >= r->pages || !hold_frame(r, id, f)) {
		region_put(r);
		return false;
	}
	/* Reused and listed again, or pinned since it was named: then it is no victim. */
	if (frame->listed || frame->pins || (clean_only && frame->slot == SLOT_NONE)) {
		if (!frame->pins)
			frame_return(&q->pager, f);
		entry_publish(r, PAGE_ID_PAGE(id), entry_make(ENTRY_MAPPED, f));
		region_put(r);
		return false;
	}
	add(b, r, id, f);
	return true;
}

static void hold_neighbours(struct quire *q, struct batch *b, const struct victim *victim,
                            bool clean_only)
{
	struct quire_region *r = victim->region;
	uint64_t first = PAGE_ID_PAGE(victim->id) / CLUSTER_PAGES * CLUSTER_PAGES;
	uint32_t limit = credits_batch(&q->pager);

	for (uint64_t page = first; page < MIN(first + CLUSTER_PAGES, r->pages); page++) {
		uint64_t e = atomic_load(region_entry(r, page));
		struct frame *frame;

		if (b->n >= limit)
			return;
		if (entry_state(e) != ENTRY_MAPPED || e & ENTRY_BUSY)
			continue;
		frame = &q->pager.frames[entry_payload(e)];
		if (!entry_try(region_entry(r, page), e))
			continue;
		if (frame->pins == 0 && !(clean_only && frame->slot == SLOT_NONE) &&
		    frame_claim_cold(&q->pager, entry_payload(e))) {
			atomic_fetch_add(&r->users, 1);
			add(b, r, PAGE_ID(r->id, page), entry_payload(e));
		} else {
			entry_publish(r, page, e);
		}
	}
}

static void sort(struct batch *b)
{
	for (uint32_t i = 1; i < b->n; i++) {
		struct victim t = b->page[i];
		uint32_t k = i;

		for (; k > 0 && b->page[k - 1].id > t.id; k--)
			b->page[k] = b->page[k - 1];
		b->page[k] = t;
	}
}

static void count_evicted(struct quire_region *r)
{
	uncount(&r->counters.resident, 1);
	uncount(&r->q->counters.resident, 1);
	REGION_COUNT(r, evictions, 1);
}

/* A victim of which only its slot is left, or nothing if the program had discarded it. => credits: 1 */
static uint32_t settle_slot(struct quire_region *r, uint64_t page, slot_t slot, bool gone)
{
	struct quire *q = r->q;

	if (gone) {
		cow_drop_slot(r, page, slot, false);
		entry_publish(r, page, entry_zeros(r));
		return 1;
	}
	REGION_COUNT(r, swapped, 1);
	entry_publish(r, page, entry_slot(q, slot));
	return 1;
}

/* A victim whose bytes are in a buffer, or that was not there. => credits: 1, or 0: it is the buffer's */
static uint32_t settle_buffer(struct quire_region *r, page_id id, slot_t slot,
                              const struct take_page *tp)
{
	struct quire *q = r->q;
	struct pager *p = &q->pager;
	uint64_t page = PAGE_ID_PAGE(id);
	uint32_t credit = 1, b = buffer_at(p, tp->buffer);
	struct cluster *c = &p->clusters[b / CLUSTER_PAGES];
	uint64_t bit = UINT64_C(1) << b % CLUSTER_PAGES;

	if (tp->result == TAKE_DONE && !(atomic_load(&c->populated) & bit)) {
		atomic_fetch_or(&c->populated, bit);
		count(&p->populated, 1);
		credit = 0;
	}
	/* A clean page, too, may be zeros: the program discarded it while it was copied. */
	if (tp->result == TAKE_GONE || page_is_zero(tp->buffer)) {
		if (slot != SLOT_NONE)
			cow_drop_slot(r, page, slot, false);
		if (tp->result == TAKE_DONE) {
			REGION_COUNT(r, zero_drops, 1);
		}
		entry_publish(r, page, entry_zeros(r));
		return credit;
	}
	buffer_fill(p, b, id, slot, slot == SLOT_NONE ? BUFFER_DIRTY : BUFFER_CLEAN, false);
	region_count_standby(r, false);
	entry_publish(r, page, entry_make(ENTRY_STANDBY, b));
	return credit;
}

/* One page of the batch after the engine took it. => its credit: 1 free, 0 the buffer's (or the page's still) */
static uint32_t settle(struct quire *q, struct victim *t, const struct take_page *tp)
{
	struct pager *p = &q->pager;
	struct quire_region *r = t->region;
	slot_t slot = p->frames[t->frame].slot;

	if (tp->result == TAKE_ZEROS && slot != SLOT_NONE) {
		/* What is there is not what the slot holds (E3). */
		cow_drop_slot(r, PAGE_ID_PAGE(t->id), slot, false);
		p->frames[t->frame].slot = SLOT_NONE;
	}
	if (tp->result == TAKE_KEPT || tp->result == TAKE_ZEROS || tp->result == TAKE_LATER) {
		frame_return(p, t->frame);
		/* It has not been used: its turn comes again with the next batch. */
		if (tp->result == TAKE_LATER)
			frame_cold(p, t->frame);
		entry_publish(r, PAGE_ID_PAGE(t->id), entry_make(ENTRY_MAPPED, t->frame));
		return 0;
	}
	count_evicted(r);
	if (slot != SLOT_NONE && !p->frames[t->frame].readahead)
		fault_learn_write(r, false);
	frames_leave(p, &t->frame, 1);
	if (!tp->buffer)
		return settle_slot(r, PAGE_ID_PAGE(t->id), slot, tp->result == TAKE_GONE);
	return settle_buffer(r, t->id, slot, tp);
}

/* Victims and their neighbours, held, sorted by address. */
static void gather(struct quire *q, struct batch *b, bool clean_only)
{
	uint32_t limit = credits_batch(&q->pager);

	b->n = 0;
	for (uint32_t tries = 0; b->n < limit && tries < 2 * limit; tries++) {
		uint32_t f = frames_victim(&q->pager);

		if (f == FRAME_NONE)
			break;
		if (hold_victim(q, b, f, clean_only))
			hold_neighbours(q, b, &b->page[b->n - 1], clean_only);
	}
	sort(b);
}

/* What the engine is asked to take, buffers aside. => how many want one */
static uint32_t describe(struct quire *q, const struct batch *b, struct take_page *pages)
{
	bool sample = second_chance_sample(q);
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		struct quire_region *r = b->page[i].region;
		bool dirty = q->pager.frames[b->page[i].frame].slot == SLOT_NONE;

		pages[i] = (struct take_page){
			.region = r,
			.page = region_page(r, PAGE_ID_PAGE(b->page[i].id)),
			.dirty = dirty,
			.shared = dirty && cow_is_shared(r, PAGE_ID_PAGE(b->page[i].id)),
			.wanted = dirty || sample || !second_chance_futile(r),
			.result = TAKE_KEPT,
		};
		n += pages[i].wanted;
	}
	return n;
}

/*
 * Scattered pages are copied, into buffers that have memory already; runs, and
 * dirty pages that the kernel may be writing to, are moved, into buffers
 * without. n: pages that want a buffer
 */
static bool wants_memory(const struct quire *q, const struct take_page *pages, uint32_t all,
                         uint32_t n)
{
	const struct take_page *before = NULL;
	uint32_t runs = 0, dirty = 0;

	for (uint32_t i = 0; i < all; i++) {
		if (!pages[i].wanted)
			continue;
		runs += !before || pages[i].page != before->page + PAGE_BYTES;
		dirty += pages[i].dirty;
		before = &pages[i];
	}
	return !q->engine.uffd.move ||
	       (runs * 4 > n && (q->engine.ops->in_thread || dirty * 2 < n));
}

/* Buffers for the n pages that want one, neighbours in a run. => their cluster; or CLUSTER_NONE */
static uint32_t give_buffers(struct quire *q, struct take_page *pages, uint32_t all, uint32_t n)
{
	struct pager *p = &q->pager;
	bool copies = wants_memory(q, pages, all, n);
	uint32_t c = cluster_get(p, copies ? n : 0), k = 0;
	uint64_t populated;

	if (c == CLUSTER_NONE)
		return c;
	/* A page that is copied is there twice for a while. */
	if (copies)
		cluster_populate_some(p, c, n);
	populated = atomic_load(&p->clusters[c].populated);
	for (uint32_t i = 0; i < all; i++) {
		if (!pages[i].wanted)
			continue;
		pages[i].buffer = buffer_address(p, c * CLUSTER_PAGES + k);
		pages[i].backed = populated >> k & 1;
		k++;
	}
	p->clusters[c].used = (uint8_t)k;
	return c;
}

/* The pages between two pages of a batch may be held, too: see join. */
#define GAP_MAX 32u

static bool hold_gap(struct quire_region *r, uint64_t from, uint64_t to)
{
	for (uint64_t page = from; page < to; page++) {
		uint64_t e = atomic_load(region_entry(r, page));
		bool held = entry_state(e) != ENTRY_READING && entry_try(region_entry(r, page), e);

		/* Only its holder can tell whether a page is dirty. */
		if (!held || (entry_state(e) == ENTRY_MAPPED &&
		              r->q->pager.frames[entry_payload(e)].slot == SLOT_NONE)) {
			page += held;
			while (page-- > from)
				entry_publish(r, page, atomic_load(region_entry(r, page)));
			return false;
		}
	}
	return true;
}

static bool any_dirty(const struct take_page *pages, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (pages[i].dirty)
			return true;
	return false;
}

/*
 * Write-protecting costs a TLB shootdown a call, so scattered dirty pages are
 * protected together with what lies between them. That must not be dirty (a
 * pinned page would become unwritable for the kernel) nor become so meanwhile:
 * its entries are held. => b's pages of which joined is set hold their gap
 */
static void join(struct batch *b, struct take_page *pages, bool joins)
{
	if (!joins || !any_dirty(pages, b->n))
		return;
	for (uint32_t i = 1; i < b->n; i++) {
		uint64_t gap = b->page[i].id - b->page[i - 1].id - 1;
		uint64_t page = PAGE_ID_PAGE(b->page[i].id);

		pages[i].joined = b->page[i].region == b->page[i - 1].region && gap <= GAP_MAX &&
		                  (page - gap) >> LEAF_SHIFT == page >> LEAF_SHIFT &&
		                  hold_gap(b->page[i].region, page - gap, page);
	}
}

static void unjoin(struct batch *b, struct take_page *pages)
{
	for (uint32_t i = 1; i < b->n; i++) {
		struct quire_region *r = b->page[i].region;
		uint64_t page = PAGE_ID_PAGE(b->page[i - 1].id) + 1;

		for (; pages[i].joined && page < PAGE_ID_PAGE(b->page[i].id); page++)
			entry_publish(r, page, atomic_load(region_entry(r, page)));
	}
}

/* Without a buffer dirty pages have to stay; clean ones need none. */
static void leave_dirty(struct quire *q, struct batch *b, struct take_page *pages)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		if (pages[i].dirty) {
			settle(q, &b->page[i], &pages[i]);
			continue;
		}
		b->page[n] = b->page[i];
		pages[n] = pages[i];
		pages[n++].wanted = false;
	}
	b->n = n;
}

/*
 * The gates of all the batch's regions: what is shared with a snapshot is not made writable
 * for a moment, and what was discarded behind our back is not lost to it.
 */
static void enter_gates(const struct batch *b)
{
	for (uint32_t i = 0; i < b->n; i++)
		if (i == 0 || b->page[i].region != b->page[i - 1].region)
			cow_enter(b->page[i].region);
}

/* And the users that the victims came with. */
static void leave_gates(const struct batch *b)
{
	for (uint32_t i = 0; i < b->n; i++)
		if (i == 0 || b->page[i].region != b->page[i - 1].region)
			cow_leave(b->page[i].region);
	for (uint32_t i = 0; i < b->n; i++)
		region_put(b->page[i].region);
}

/*
 * A victim that a snapshot shares, and that cannot be moved: a child of fork(2) has it, or the kernel
 * has it pinned. Once the snapshot has a copy the page is our own to deal with. => inside the gate
 */
static void keep_copy(struct quire_region *r, uint64_t page)
{
	struct pager *p = &r->q->pager;
	uint32_t buffer;

	if (!cow_reserve(r, page) || !credits_try(p, 1))
		return;
	buffer = stage_get(p, false);
	if (buffer == BUFFER_NONE) {
		credits_put(p, 1);
		return;
	}
	if (engine_save(&r->q->engine, r, region_page(r, page), buffer_address(p, buffer)) != 0) {
		stage_drop(p, buffer);
		return;
	}
	stage_fill(p, buffer, PAGE_ID(r->target->id, page), SLOT_NONE, BUFFER_DIRTY);
	cow_keep_buffer(r, page, buffer, false);
	REGION_COUNT(r, snapshot_copies, 1);
}

/* The victims have left, or stay. => credits that are free */
static uint32_t settle_all(struct quire *q, struct batch *b, const struct take_page *pages,
                           struct taken *taken)
{
	uint32_t credits = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		bool done = pages[i].result == TAKE_DONE || pages[i].result == TAKE_GONE;

		if (pages[i].result == TAKE_KEPT && pages[i].shared)
			keep_copy(b->page[i].region, PAGE_ID_PAGE(b->page[i].id));
		taken->pages += done;
		taken->freed += done && (!pages[i].buffer || pages[i].result == TAKE_GONE);
		credits += settle(q, &b->page[i], &pages[i]);
	}
	return credits;
}

int evict_to_standby(struct quire_region *r, uint64_t page, uint64_t held)
{
	struct pager *p = &r->q->pager;
	uint32_t buffer = stage_get(p, r->q->engine.uffd.move), frame = entry_payload(held);
	slot_t slot = p->frames[frame].slot;
	struct take_page t = { .region = r,
		               .page = region_page(r, page),
		               .wanted = true,
		               .dirty = slot == SLOT_NONE,
		               .backed = !r->q->engine.uffd.move };

	/* The page's credit is the buffer's: for a moment it is there twice, if it has to be copied. */
	if (buffer == BUFFER_NONE || p->frames[frame].pins) {
		if (buffer != BUFFER_NONE)
			stage_undo(p, buffer);
		entry_publish(r, page, held);
		return -EAGAIN;
	}
	t.buffer = buffer_address(p, buffer);
	cow_enter(r);
	t.shared = t.dirty && cow_is_shared(r, page);
	r->q->engine.ops->take(&r->q->engine, &t, 1);
	if (t.result == TAKE_DONE) {
		count_evicted(r);
		frames_leave(p, &frame, 1);
		stage_fill(p, buffer, PAGE_ID(r->id, page), slot,
		           slot == SLOT_NONE ? BUFFER_DIRTY : BUFFER_CLEAN);
		region_count_standby(r, false);
		entry_publish(r, page, entry_make(ENTRY_STANDBY, buffer));
	} else if (t.result == TAKE_GONE) {
		count_evicted(r);
		frames_leave(p, &frame, 1);
		if (slot != SLOT_NONE)
			cow_drop_slot(r, page, slot, false);
		stage_drop(p, buffer);
		entry_publish(r, page, entry_zeros(r));
	} else {
		if (t.result == TAKE_ZEROS && slot != SLOT_NONE) {
			cow_drop_slot(r, page, slot, false);
			p->frames[frame].slot = SLOT_NONE;
		}
		stage_undo(p, buffer);
		/* Then it is the snapshot's copy that the next look finds: this page may stay for ever. */
		if (t.result == TAKE_KEPT && t.shared)
			keep_copy(r, page);
		entry_publish(r, page, held);
	}
	cow_leave(r);
	return t.result == TAKE_DONE || t.result == TAKE_GONE ? 0 : -EAGAIN;
}

struct taken evict_batch(void *owner, bool clean_only)
{
	struct taken taken = { .cluster = CLUSTER_NONE };
	struct quire *q = owner;
	struct batch all, b;
	struct take_page pages[CLUSTER_PAGES];
	uint32_t credits = 0, wanted;

	gather(q, &all, clean_only);
	enter_gates(&all);
	b = all;
	wanted = describe(q, &b, pages);
	if (wanted) {
		taken.cluster = give_buffers(q, pages, b.n, wanted);
		if (taken.cluster == CLUSTER_NONE)
			leave_dirty(q, &b, pages);
	}
	if (b.n) {
		join(&b, pages, q->engine.ops->joins);
		q->engine.ops->take(&q->engine, pages, b.n);
		unjoin(&b, pages);
		credits = settle_all(q, &b, pages, &taken);
	}
	leave_gates(&all);
	atomic_fetch_add_explicit(&q->stamp, taken.pages, memory_order_relaxed);
	credits_put(&q->pager, credits);
	return taken;
}
