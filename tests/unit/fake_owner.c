/* SPDX-License-Identifier: MIT */
/* tests/unit/fake_owner.c - see fake_owner.h. */
#include "tests/unit/fake_owner.h"

#include "base/kernel.h"
#include "tests/unit/pager_check.h"
#include "tests/unit/pattern.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define REGION 1u
#define ID(page) PAGE_ID(REGION, page)

static struct owned_page *owned(struct fake_owner *o, page_id id)
{
	ASSERT(PAGE_ID_REGION(id) == REGION && PAGE_ID_PAGE(id) < FAKE_OWNER_PAGES);
	return &o->page[PAGE_ID_PAGE(id)];
}

bool fake_owner_holds(struct fake_owner *o, uint64_t page)
{
	return pattern_holds(buffer_address(&o->p, o->page[page].at), o->page[page].value);
}

/* A mapped page goes into a buffer: its credit becomes the buffer's, if that has none. */
static void to_buffer(struct fake_owner *o, uint64_t page, uint32_t id)
{
	struct owned_page *op = &o->page[page];
	struct cluster *c = &o->p.clusters[id / CLUSTER_PAGES];
	uint64_t bit = UINT64_C(1) << id % CLUSTER_PAGES;
	slot_t slot = o->p.frames[op->at].slot;

	pattern_fill(buffer_address(&o->p, id), op->value);
	frames_leave(&o->p, &op->at, 1);
	if (atomic_load(&c->populated) & bit) {
		credits_put(&o->p, 1);
	} else {
		atomic_fetch_or(&c->populated, bit);
		count(&o->p.populated, 1);
	}
	buffer_fill(&o->p, id, ID(page), slot, slot == SLOT_NONE ? BUFFER_DIRTY : BUFFER_CLEAN,
	            false);
	op->state = OWNED_STANDBY;
	op->at = id;
}

static unsigned to_slot(struct fake_owner *o, uint64_t page)
{
	struct owned_page *op = &o->page[page];
	slot_t slot = o->p.frames[op->at].slot;

	frames_leave(&o->p, &op->at, 1);
	credits_put(&o->p, 1);
	op->state = OWNED_SLOT;
	op->at = slot;
	return 1;
}

static struct taken owner_take(void *owner, bool clean_only)
{
	struct fake_owner *o = owner;
	unsigned most = o->batch ? o->batch : atomic_load(&o->p.batch), n = 0;
	struct taken taken = { .cluster = CLUSTER_NONE };
	uint64_t page[CLUSTER_PAGES];

	o->takes++;
	o->clean_only_takes += clean_only;
	for (unsigned tries = 0; n < most && tries < 2 * most; tries++) {
		uint32_t f = frames_victim(&o->p);

		if (f == FRAME_NONE)
			break;
		ASSERT(o->p.frames[f].pins == 0);
		if (clean_only && o->p.frames[f].slot == SLOT_NONE)
			frame_return(&o->p, f);
		else if (o->frees && o->p.frames[f].slot != SLOT_NONE)
			taken.freed += to_slot(o, PAGE_ID_PAGE(atomic_load(&o->p.frames[f].page)));
		else
			page[n++] = PAGE_ID_PAGE(atomic_load(&o->p.frames[f].page));
	}
	taken.pages = n + taken.freed;
	if (n == 0)
		return taken;
	taken.cluster = cluster_get(&o->p, 0);
	ASSERT(taken.cluster != CLUSTER_NONE);
	o->p.clusters[taken.cluster].used = (uint8_t)n;
	for (unsigned i = 0; i < n; i++)
		to_buffer(o, page[i], taken.cluster * CLUSTER_PAGES + i);
	return taken;
}

static bool owner_retire(void *owner, page_id id, uint32_t buffer, slot_t slot)
{
	struct fake_owner *o = owner;
	struct owned_page *op = owned(o, id);

	if (op->busy || op->state != OWNED_STANDBY || op->at != buffer) {
		o->refused_retires++;
		return false;
	}
	buffer_claim(&o->p, buffer, &slot);
	ASSERT(slot != SLOT_NONE);
	op->state = OWNED_SLOT;
	op->at = slot;
	o->retired[o->retires++ % FAKE_OWNER_PAGES] = PAGE_ID_PAGE(id);
	buffer_release(&o->p, buffer, false);
	return true;
}

static void owner_arrived(void *owner, page_id id, uint32_t buffer, int error)
{
	struct fake_owner *o = owner;
	struct owned_page *op = owned(o, id);

	ASSERT(op->state == OWNED_READING && op->at == buffer);
	while (atomic_load(&o->held_up) == PAGE_ID_PAGE(id) + 1)
		sched_yield();
	o->arrived[o->arrivals++ % FAKE_OWNER_PAGES] = PAGE_ID_PAGE(id);
	if (error) {
		o->failed_arrivals++;
		o->arrival_error = error;
		op->at = buffer_of(&o->p, buffer)->slot;
	}
	op->state = error ? OWNED_SLOT : OWNED_STANDBY;
}

static void owner_written(void *owner, page_id id)
{
	struct fake_owner *o = owner;

	owned(o, id);
	o->written++;
}

static void owner_replenished(void *owner)
{
	struct fake_owner *o = owner;

	atomic_fetch_add(&o->replenished, 1);
}

static void owner_failed(void *owner, enum pager_event event, int error, page_id id)
{
	struct fake_owner *o = owner;

	if (id != PAGE_ID_NONE) {
		struct owned_page *op = owned(o, id);

		ASSERT(op->state == OWNED_STANDBY);
		ASSERT(atomic_load(&buffer_of(&o->p, op->at)->state) == BUFFER_DIRTY);
	}
	o->failures[event]++;
	o->failure_error = error;
	o->failure_page = id;
}

static const struct page_owner fake_ops = {
	.take = owner_take,
	.retire = owner_retire,
	.arrived = owner_arrived,
	.written = owner_written,
	.replenished = owner_replenished,
	.failed = owner_failed,
};

struct fake_owner *fake_owner_open(uint64_t budget, uint32_t slots)
{
	/* The test stands in for the reclaimer, and may leave writes in flight. */
	thread_is_ours = true;
	struct fake_owner *o = calloc(1, sizeof *o);
	struct swapfile_options so = { .path = "/dev/shm", .io_ops = &fake_disk_ops };
	struct pager_options po = { .budget = budget,
		                    .budget_max = 2 * budget,
		                    .policy = &policy_fifo,
		                    .owner_ops = &fake_ops,
		                    .owner = o,
		                    .cluster_max = pager_clusters_for(2 * budget) };

	ASSERT(o);
	thread_is_ours = true; /* this one: its writes are in flight until it reaps them */
	o->slots = slots;
	o->disk = so.io_arg = fake_disk_new(slots + 64);
	so.size_limit = slots * PAGE_BYTES;
	if (swapfile_open(&o->swap, &so) != 0) {
		so.path = NULL;
		ASSERT(swapfile_open(&o->swap, &so) == 0);
	}
	ASSERT(arena_reserve(&o->buffers, (size_t)po.cluster_max * CLUSTER_PAGES * PAGE_BYTES,
	                     false, "buffers") == 0);
	po.buffers = &o->buffers;
	po.swap = o->swap;
	po.counters = &o->counters;
	ASSERT(pager_open(&o->p, &po) == 0);
	return o;
}

unsigned fake_owner_check(struct fake_owner *o)
{
	uint16_t *slots = calloc(o->slots, sizeof *slots);
	uint64_t mapped = 0, standby = 0;
	unsigned broken = 0;

	for (uint64_t page = 0; page < FAKE_OWNER_PAGES; page++) {
		struct owned_page *op = &o->page[page];
		slot_t slot = SLOT_NONE;

		switch (atomic_load(&op->state)) {
		case OWNED_EMPTY:
			break;
		case OWNED_MAPPED:
			mapped++;
			slot = o->p.frames[op->at].slot;
			if (atomic_load(&o->p.frames[op->at].page) != ID(page))
				broken += pager_broken("F2: a frame names another page", page,
				                       op->at);
			break;
		case OWNED_STANDBY:
			standby++;
			if (!fake_owner_holds(o, page))
				broken += pager_broken("a buffer does not hold its page", page,
				                       op->at);
			break;
		case OWNED_READING:
			slot = buffer_of(&o->p, op->at)->slot;
			break;
		case OWNED_SLOT:
			slot = op->at;
			break;
		}
		if (slot != SLOT_NONE)
			slots[slot]++;
	}
	if (standby != atomic_load(&o->p.standby))
		broken += pager_broken("pages in standby", standby, atomic_load(&o->p.standby));
	broken += pager_check(&o->p, mapped, slots, o->slots);
	free(slots);
	return broken;
}

unsigned fake_owner_close(struct fake_owner *o)
{
	unsigned broken;

	fake_disk_heal(o->disk);
	reclaimer_stop(&o->p);
	reader_stop(&o->p);
	for (uint64_t page = 0; page < FAKE_OWNER_PAGES; page++) {
		if (o->page[page].state == OWNED_READING)
			readin_wait(&o->p, o->page[page].at);
		fake_owner_drop(o, page);
	}
	fake_owner_reap(o);
	broken = fake_owner_check(o);
	if (swapfile_used(o->swap))
		broken += pager_broken("slots in use at the end", swapfile_used(o->swap), 0);
	pager_close(&o->p);
	swapfile_close(o->swap);
	arena_close(&o->buffers);
	fake_disk_free(o->disk);
	free(o);
	return broken;
}

/* -------------------------------------------------------------- the pages */

static void enter(struct fake_owner *o, uint64_t first, unsigned n, enum policy_entry how)
{
	page_id id[CLUSTER_PAGES];
	uint32_t frame[CLUSTER_PAGES];

	for (unsigned i = 0; i < n; i++)
		id[i] = ID(first + i);
	frames_enter(&o->p, id, frame, n, how, 0);
	for (unsigned i = 0; i < n; i++) {
		o->page[first + i].state = OWNED_MAPPED;
		o->page[first + i].at = frame[i];
	}
}

int fake_owner_map(struct fake_owner *o, uint64_t first, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int error = credits_get(&o->p, 1);

		if (error)
			return error;
		ASSERT(o->page[first + i].state == OWNED_EMPTY);
		o->page[first + i].value = first + i + 1;
		enter(o, first + i, 1, POLICY_FAULTED);
	}
	return 0;
}

uint32_t fake_owner_unmap(struct fake_owner *o, uint64_t first, unsigned n)
{
	uint32_t c = cluster_get(&o->p, 0), used = 0;

	ASSERT(c != CLUSTER_NONE);
	for (uint64_t page = first; page < first + n; page++)
		if (o->page[page].state == OWNED_MAPPED)
			to_buffer(o, page, c * CLUSTER_PAGES + used++);
	o->p.clusters[c].used = (uint8_t)used;
	cluster_to_standby(&o->p, c);
	cluster_put(&o->p, c);
	return c;
}

void fake_owner_rescue(struct fake_owner *o, uint64_t page)
{
	struct owned_page *op = &o->page[page];
	uint32_t id = op->at;
	slot_t slot;

	ASSERT(op->state == OWNED_STANDBY);
	op->busy = true; /* reclaim must not give it up meanwhile */
	ASSERT(credits_get(&o->p, 1) == 0);
	op->busy = false;
	buffer_claim(&o->p, id, &slot);
	enter(o, page, 1, POLICY_RESCUED);
	o->p.frames[o->page[page].at].slot = slot;
	buffer_release(&o->p, id, false);
}

void fake_owner_retire(struct fake_owner *o, uint64_t page)
{
	ASSERT(owner_retire(o, ID(page), o->page[page].at, SLOT_NONE));
}

void fake_owner_drop(struct fake_owner *o, uint64_t page)
{
	struct owned_page *op = &o->page[page];
	slot_t slot = SLOT_NONE;

	switch (atomic_load(&op->state)) {
	case OWNED_EMPTY:
		return;
	case OWNED_MAPPED:
		slot = o->p.frames[op->at].slot;
		o->p.frames[op->at].pins = 0;
		frames_leave(&o->p, &op->at, 1);
		credits_put(&o->p, 1);
		break;
	case OWNED_STANDBY:
		buffer_claim(&o->p, op->at, &slot);
		buffer_release(&o->p, op->at, false);
		break;
	case OWNED_SLOT:
		slot = op->at;
		break;
	case OWNED_READING:
		abort();
	}
	if (slot != SLOT_NONE)
		swapfile_unref(o->swap, slot);
	op->state = OWNED_EMPTY;
}

static bool start_read(struct fake_owner *o, const uint64_t *pages, unsigned n, uint64_t started)
{
	uint32_t c = cluster_get(&o->p, 1);

	ASSERT(c != CLUSTER_NONE && cluster_populate(&o->p, c, n));
	if (!readin_reserve(&o->p, c)) {
		cluster_put(&o->p, c);
		return false;
	}
	o->p.clusters[c].used = (uint8_t)n;
	o->p.clusters[c].started = started;
	for (unsigned i = 0; i < n; i++) {
		struct owned_page *op = &o->page[pages[i]];

		ASSERT(op->state == OWNED_SLOT);
		buffer_fill(&o->p, c * CLUSTER_PAGES + i, ID(pages[i]), op->at, BUFFER_READING,
		            false);
		op->state = OWNED_READING;
		op->at = c * CLUSTER_PAGES + i;
	}
	readin_start(&o->p, c, n);
	cluster_to_standby(&o->p, c);
	cluster_put(&o->p, c);
	return true;
}

bool fake_owner_read(struct fake_owner *o, const uint64_t *pages, unsigned n)
{
	return start_read(o, pages, n, 1);
}

bool fake_owner_read_ahead(struct fake_owner *o, const uint64_t *pages, unsigned n)
{
	return start_read(o, pages, n, 0);
}

void fake_owner_wait(struct fake_owner *o, uint64_t page)
{
	if (o->page[page].state == OWNED_READING)
		readin_wait(&o->p, o->page[page].at);
	/* The buffer's state changes first, and it is told then. */
	while (o->page[page].state == OWNED_READING)
		sched_yield();
}

/* ----------------------------------------------------------------- reclaim */

bool fake_owner_write(struct fake_owner *o, uint32_t c)
{
	bool good;

	reclaim_enter(&o->p);
	atomic_fetch_add(&o->p.clusters[c].refs, 1);
	good = writeback_start(&o->p, c);
	cluster_put(&o->p, c);
	reclaim_leave(&o->p);
	return good;
}

unsigned fake_owner_reap(struct fake_owner *o)
{
	unsigned all = 0, n;

	reclaim_enter(&o->p);
	while ((n = writeback_reap(&o->p, true)) != 0)
		all += n;
	reclaim_leave(&o->p);
	return all;
}

uint32_t fake_owner_step(struct fake_owner *o)
{
	uint32_t n;

	reclaim_enter(&o->p);
	n = reclaim_step(&o->p);
	reclaim_leave(&o->p);
	return n;
}

void fake_owner_swap(struct fake_owner *o, uint64_t first, unsigned n)
{
	for (unsigned i = 0; i < n; i += CLUSTER_PAGES) {
		unsigned part = MIN(n - i, CLUSTER_PAGES);
		uint32_t c;

		ASSERT(fake_owner_map(o, first + i, part) == 0);
		c = fake_owner_unmap(o, first + i, part);
		ASSERT(fake_owner_write(o, c));
		fake_owner_reap(o);
		for (unsigned k = 0; k < part; k++)
			fake_owner_retire(o, first + i + k);
	}
}
