/* SPDX-License-Identifier: MIT */
/*
 * vm/owner.c - what the pager asks of the owner of the pages: to unmap
 * victims, to give up clean standby pages, to receive pages that were read.
 *
 * Taking is in batches, because removing a page costs a TLB shootdown: where
 * another CPU runs the program, one call on sixty-four pages costs hardly more
 * than on one. So each victim brings its cold neighbours along (the block of
 * CLUSTER_PAGES around it), the batch is sorted, and the engine sees runs.
 */
#include "vm/vm.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

struct taken {
	page_id id;
	uint32_t frame;
	struct quire_region *region; /* with a user */
};

struct batch {
	uint32_t n;
	struct taken page[CLUSTER_PAGES];
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
	b->page[b->n++] = (struct taken){ .id = id, .frame = frame, .region = r };
}

/* The victim was named by the policy; someone may have been faster. */
static bool hold_victim(struct quire *q, struct batch *b, uint32_t f, bool clean_only)
{
	struct frame *frame = &q->pager.frames[f];
	page_id id = atomic_load_explicit(&frame->page, memory_order_relaxed);
	struct quire_region *r = id == PAGE_ID_NONE ? NULL : region_get(q, PAGE_ID_REGION(id));

	if (!r)
		return false;
	if (!hold_frame(r, id, f)) {
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

static void hold_neighbours(struct quire *q, struct batch *b, const struct taken *victim,
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
		struct taken t = b->page[i];
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
	count(&r->counters.evictions, 1);
	count(&r->q->counters.evictions, 1);
}

/* One page of the batch after the engine took it. => its credit: 1 free, 0 the buffer's (or the page's still) */
static uint32_t settle(struct quire *q, struct taken *t, struct take_page *tp)
{
	struct pager *p = &q->pager;
	struct quire_region *r = t->region;
	uint64_t page = PAGE_ID_PAGE(t->id);
	slot_t slot = p->frames[t->frame].slot;
	uint32_t credit = 1, id;
	struct cluster *c;
	uint64_t bit;

	if (tp->result == TAKE_KEPT) {
		frame_return(p, t->frame);
		entry_publish(r, page, entry_make(ENTRY_MAPPED, t->frame));
		return 0;
	}
	id = buffer_at(p, tp->buffer);
	c = &p->clusters[id / CLUSTER_PAGES];
	bit = UINT64_C(1) << id % CLUSTER_PAGES;
	if (tp->result == TAKE_DONE && !(atomic_load(&c->populated) & bit)) {
		atomic_fetch_or(&c->populated, bit);
		count(&p->populated, 1);
		credit = 0;
	}
	count_evicted(r);
	if (slot != SLOT_NONE && !p->frames[t->frame].readahead)
		fault_learn_write(r, false);
	frames_leave(p, &t->frame, 1);
	/* A clean page, too, may be zeros: the program discarded it while it was copied. */
	if (tp->result == TAKE_GONE || page_is_zero(tp->buffer)) {
		if (slot != SLOT_NONE)
			swapfile_unref(q->swap, slot);
		if (tp->result == TAKE_DONE) {
			count(&r->counters.zero_drops, 1);
			count(&q->counters.zero_drops, 1);
		}
		entry_publish(r, page, ENTRY_EMPTY);
		return credit;
	}
	buffer_fill(p, id, t->id, slot, slot == SLOT_NONE ? BUFFER_DIRTY : BUFFER_CLEAN);
	count(&r->counters.standby, 1);
	entry_publish(r, page, entry_make(ENTRY_STANDBY, id));
	return credit;
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

/*
 * Scattered pages are copied, into buffers that have memory already; runs, and
 * dirty pages that the kernel may be writing to, are moved, into buffers
 * without.
 */
static bool wants_memory(const struct quire *q, const struct batch *b)
{
	uint32_t runs = 0, dirty = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		runs += i == 0 || b->page[i].id != b->page[i - 1].id + 1;
		dirty += q->pager.frames[b->page[i].frame].slot == SLOT_NONE;
	}
	return !q->engine.uffd.move ||
	       (runs * 4 > b->n && (q->engine.ops->in_thread || dirty * 2 < b->n));
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

/*
 * Write-protecting costs a TLB shootdown a call, so scattered dirty pages are
 * protected together with what lies between them. That must not be dirty (a
 * pinned page would become unwritable for the kernel) nor become so meanwhile:
 * its entries are held. => b's pages of which joined is set hold their gap
 */
static void join(struct batch *b, struct take_page *pages)
{
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

static bool is_backed(struct pager *p, uint32_t c, uint32_t i)
{
	return atomic_load(&p->clusters[c].populated) >> i & 1;
}

static unsigned owner_take(void *owner, bool clean_only, uint32_t *cluster)
{
	struct quire *q = owner;
	struct batch b;
	struct take_page pages[CLUSTER_PAGES];
	uint32_t credits = 0, c;
	unsigned done = 0;

	*cluster = CLUSTER_NONE;
	gather(q, &b, clean_only);
	if (b.n == 0)
		return 0;
	c = cluster_get(&q->pager, wants_memory(q, &b) ? b.n : 0);
	for (uint32_t i = 0; i < b.n; i++)
		pages[i] = (struct take_page){
			.page = region_page(b.page[i].region, PAGE_ID_PAGE(b.page[i].id)),
			.buffer = c == CLUSTER_NONE ?
			                  NULL :
			                  buffer_address(&q->pager, c * CLUSTER_PAGES + i),
			.dirty = q->pager.frames[b.page[i].frame].slot == SLOT_NONE,
			.backed = c != CLUSTER_NONE && is_backed(&q->pager, c, i),
			.result = TAKE_KEPT,
		};
	if (c != CLUSTER_NONE) {
		join(&b, pages);
		q->engine.ops->take(&q->engine, pages, b.n);
		unjoin(&b, pages);
		q->pager.clusters[c].used = (uint8_t)b.n;
	}
	for (uint32_t i = 0; i < b.n; i++) {
		done += pages[i].result != TAKE_KEPT;
		credits += settle(q, &b.page[i], &pages[i]);
		region_put(b.page[i].region);
	}
	atomic_fetch_add_explicit(&q->stamp, done, memory_order_relaxed);
	*cluster = c;
	credits_put(&q->pager, credits);
	return done;
}

static bool owner_retire(void *owner, page_id id, uint32_t buffer, slot_t slot)
{
	struct quire *q = owner;
	struct quire_region *r = region_get(q, PAGE_ID_REGION(id));
	uint64_t page = PAGE_ID_PAGE(id);
	uint64_t stamp = atomic_load_explicit(&q->stamp, memory_order_relaxed) >> 4;
	bool ahead;

	if (!r)
		return false;
	if (!entry_try(region_entry(r, page), entry_make(ENTRY_STANDBY, buffer))) {
		region_put(r);
		return false;
	}
	/* The entry is held and named this buffer, so the buffer is still this page's. */
	ahead = buffer_of(&q->pager, buffer)->readahead;
	buffer_claim(&q->pager, buffer, &slot);
	ASSERT(slot != SLOT_NONE);
	uncount(&r->counters.standby, 1);
	count(&r->counters.swapped, 1);
	count(&q->counters.swapped, 1);
	entry_publish(r, page,
	              entry_make(ENTRY_SLOT, slot) | (stamp & ENTRY_STAMP_MASK)
	                                                     << ENTRY_STAMP_SHIFT);
	buffer_release(&q->pager, buffer, false);
	if (ahead) {
		lock_acquire(&r->readahead_lock);
		readahead_wasted(&r->readahead, page, 1);
		lock_release(&r->readahead_lock);
	}
	region_put(r);
	return true;
}

/* A faulting thread waits in the kernel for this page: map it now. */
static void serve_waiter(struct quire_region *r, uint64_t page, uint64_t standby, uint64_t started)
{
	struct fault f = { .region = r,
		           .page = page,
		           .may_sleep = false,
		           .major = true,
		           .started = started,
		           .entry = region_entry(r, page),
		           .held = standby };

	if (fault_rescue(&f) != FAULT_DONE)
		/* It faults again. */
		r->q->engine.ops->wake(&r->q->engine, region_page(r, page), 1);
	else if (started)
		fault_account(r, true, started);
}

/* => r has a user: with the entry published, destroy waits for nothing else of ours */
static void arrived(struct quire_region *r, page_id id, uint32_t buffer, int error)
{
	struct quire *q = r->q;
	uint64_t page = PAGE_ID_PAGE(id);
	entry_t *entry = region_entry(r, page);
	uint64_t started = q->pager.clusters[buffer / CLUSTER_PAGES].started;
	bool demanded = buffer % CLUSTER_PAGES == 0 && started;
	uint64_t e;

	if (error) {
		slot_t slot = buffer_of(&q->pager, buffer)->slot;

		e = entry_make(ENTRY_SLOT, slot);
		if (demanded && !q->engine.ops->in_thread) {
			/* A fault waits for it: it will come again and be refused. */
			fault_report(r, page,
			             error == EBADMSG ? QUIRE_ERROR_CHECKSUM : QUIRE_ERROR_READ,
			             error);
			e |= ENTRY_LOST;
		}
		entry_publish(r, page, e);
		return;
	}
	uncount(&r->counters.swapped, 1);
	uncount(&q->counters.swapped, 1);
	count(&r->counters.standby, 1);
	e = atomic_load(entry);
	if (e & ENTRY_FAULTS) {
		uint64_t standby = entry_make(ENTRY_STANDBY, buffer);

		/* Mapping wakes those whose faults have been marked; who comes from now on marks it again. */
		while (!atomic_compare_exchange_weak(entry, &e,
		                                     standby | ENTRY_BUSY | (e & ENTRY_WAITERS)))
			;
		serve_waiter(r, page, standby, demanded ? started : 0);
		return;
	}
	entry_publish(r, page, entry_make(ENTRY_STANDBY, buffer));
}

/* A region whose page is READING is there, alive or not: destroy waits for the entry (discard_settle). */
static void owner_arrived(void *owner, page_id id, uint32_t buffer, int error)
{
	struct quire *q = owner;
	struct quire_region *r = &q->regions[PAGE_ID_REGION(id) - 1];

	atomic_fetch_add(&r->users, 1);
	arrived(r, id, buffer, error);
	region_put(r);
}

static void owner_written(void *owner, page_id id)
{
	struct quire_region *r = region_get(owner, PAGE_ID_REGION(id));

	if (!r)
		return;
	count(&r->counters.pages_out, 1);
	region_put(r);
}

static void owner_replenished(void *owner)
{
	struct quire *q = owner;

	if (q->engine.ops->replenished)
		q->engine.ops->replenished(&q->engine);
}

static void owner_failed(void *owner, enum pager_event event, int error, page_id id)
{
	static const struct {
		enum quire_error_kind kind;
		const char *words;
	} told[] = {
		[PAGER_WRITE_FAILED] = { QUIRE_ERROR_WRITE,
		                         "pages could not be written to the swap "
		                         "file and stay in memory" },
		[PAGER_SWAP_FULL] = { QUIRE_ERROR_SWAP_FULL,
		                      "the swap file is full: pages stay in memory" },
	};
	struct quire *q = owner;
	/* No entry is held: the page may have gone, with its region, since the write ended. */
	struct quire_region *r = id == PAGE_ID_NONE ? NULL : region_get(q, PAGE_ID_REGION(id));
	bool there = r && PAGE_ID_PAGE(id) < r->pages &&
	             entry_state(atomic_load(region_entry(r, PAGE_ID_PAGE(id)))) == ENTRY_STANDBY;
	struct quire_error e = { .kind = told[event].kind,
		                 .error = error,
		                 .message = told[event].words };

	if (there) {
		e.region = r;
		e.offset = PAGE_ID_PAGE(id) << PAGE_SHIFT;
	}
	if (q->on_error)
		q->on_error(q->on_error_arg, &e);
	if (r)
		region_put(r);
}

const struct page_owner vm_owner = {
	.take = owner_take,
	.retire = owner_retire,
	.arrived = owner_arrived,
	.written = owner_written,
	.replenished = owner_replenished,
	.failed = owner_failed,
};
