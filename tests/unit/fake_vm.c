/* SPDX-License-Identifier: MIT */
/* tests/unit/fake_vm.c - see fake_vm.h. */
#include "tests/unit/fake_vm.h"

#include "base/kernel.h"
#include "tests/unit/pager_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void on_error(void *arg, const struct quire_error *error)
{
	struct fake_vm *vm = arg;

	atomic_fetch_add(&vm->errors[error->kind], 1);
	vm->last = *error;
}

static void open_pager(struct quire *q, const struct fake_vm_options *o, uint64_t budget)
{
	struct pager_options po = {
		.budget = budget,
		.budget_max = 4 * budget,
		.policy = policy_find(o->policy ? o->policy : "clock"),
		.owner_ops = &vm_owner,
		.owner = q,
		.swap = q->swap,
		.counters = &q->counters,
		.cluster_max = pager_clusters_for(4 * budget),
	};

	ASSERT(arena_reserve(&q->buffer_arena, (size_t)po.cluster_max * CLUSTER_PAGES * PAGE_BYTES,
	                     false, "buffers") == 0);
	po.buffers = &q->buffer_arena;
	ASSERT(pager_open(&q->pager, &po) == 0);
	if (o->threads) {
		ASSERT(!o->in_thread || reader_start(&q->pager) == 0);
		ASSERT(reclaimer_start(&q->pager) == 0);
	}
}

struct fake_vm *fake_vm_open(const struct fake_vm_options *o)
{
	/* The test stands in for the reclaimer, and may leave writes in flight. */
	thread_is_ours = true;
	struct fake_vm *vm = calloc(1, sizeof *vm);
	uint64_t budget = o->budget ? o->budget : 256;
	struct swapfile_options so = { .path = "/dev/shm", .io_ops = &fake_disk_ops };
	struct quire_region_options ro = { .size = sizeof ro, .name = "fake" };
	struct arena a;
	struct quire *q;

	ASSERT(vm && arena_open(&a, sizeof *q, false, "quire pager") == 0);
	vm->q = q = a.base;
	q->self = a;
	q->on_error = on_error;
	q->on_error_arg = vm;
	thread_is_ours = true; /* this one: its writes are in flight until it reaps them */
	lock_init(&q->pin_lock, RANK_PIN);
	lock_init(&q->snapshot_lock, RANK_SNAPSHOT);
	lock_init(&q->lineage_lock, RANK_LINEAGE);
	prefetch_init(&q->prefetch, q);
	q->readahead_max = o->readahead ? o->readahead : 16;
	ASSERT(arena_reserve(&q->region_arena, REGIONS_MAX * sizeof *q->regions, false,
	                     "regions") == 0 &&
	       arena_open(&q->free_id_arena, REGIONS_MAX * sizeof *q->free_ids, false, "ids") == 0);
	q->regions = q->region_arena.base;
	q->free_ids = q->free_id_arena.base;
	vm->slots = (uint32_t)(o->slots ? o->slots : 4096);
	vm->disk = so.io_arg = fake_disk_new(vm->slots + 64);
	so.size_limit = vm->slots * PAGE_BYTES;
	if (swapfile_open(&q->swap, &so) != 0) {
		so.path = NULL;
		ASSERT(swapfile_open(&q->swap, &so) == 0);
	}
	vm->fe = fake_engine_open(q, o->in_thread, o->move);
	open_pager(q, o, budget);
	ASSERT(quire_region_create(q, (o->pages ? o->pages : 1024) * PAGE_BYTES, &ro, &vm->r) == 0);
	return vm;
}

unsigned fake_vm_close(struct fake_vm *vm)
{
	struct quire *q = vm->q;
	unsigned broken;

	fake_disk_heal(vm->disk);
	reclaimer_stop(&q->pager);
	reader_stop(&q->pager);
	while (fake_arrivals(q))
		;
	fake_vm_reap(vm);
	regions_destroy(q);
	fake_vm_reap(vm); /* of pages that were abandoned */
	broken = fake_vm_check(vm);
	if (swapfile_used(q->swap))
		broken += pager_broken("slots in use after all is destroyed",
		                       swapfile_used(q->swap), 0);
	if (atomic_load(&q->pager.standby) || counted(&q->counters.resident))
		broken += pager_broken("pages in memory after all is destroyed",
		                       atomic_load(&q->pager.standby),
		                       counted(&q->counters.resident));
	quire_close(q);
	fake_disk_free(vm->disk);
	free(vm);
	return broken;
}

/* ------------------------------------------------------------- invariants */

struct tally {
	struct fake_vm *vm;
	uint16_t *slots;
	uint8_t *frames; /* by number: seen */
	uint64_t mapped, standby, ahead, swapped, pinned;
	unsigned broken;
};

static void wrong(struct tally *t, const char *what, uint64_t page, uint64_t e)
{
	t->broken += pager_broken(what, page, e);
}

static void hold_slot(struct tally *t, slot_t slot, uint64_t page)
{
	if (slot == SLOT_NONE || slot >= t->vm->slots)
		wrong(t, "a page's slot is not one", page, slot);
	else
		t->slots[slot]++;
}

static void check_mapped(struct tally *t, struct quire_region *r, uint64_t page, uint64_t e)
{
	struct pager *p = &t->vm->q->pager;
	uint32_t f = entry_payload(e);
	const void *bytes = fake_bytes(r, page);
	struct frame *frame;

	if (f >= p->frame_count || t->frames[f]++) {
		wrong(t, "F2: a page's frame is another's, too", page, f);
		return;
	}
	frame = &p->frames[f];
	t->mapped++;
	t->pinned += frame->pins != 0;
	if (atomic_load(&frame->page) != PAGE_ID(r->id, page))
		wrong(t, "F2: a frame names another page", page, atomic_load(&frame->page));
	if (frame->listed != (frame->pins == 0))
		wrong(t, "a frame is pinned and evictable, or neither", page, frame->pins);
	if (frame->slot == SLOT_NONE)
		return;
	hold_slot(t, frame->slot, page);
	if (bytes && !fake_protected(r, page))
		wrong(t, "E3: a clean page is writable", page, e);
	if (bytes && memcmp(bytes, fake_disk_page(t->vm->disk, frame->slot), PAGE_BYTES) != 0)
		wrong(t, "E3: a clean page differs from its slot", page, frame->slot);
}

static void check_standby(struct tally *t, struct quire_region *r, uint64_t page, uint64_t e)
{
	struct pager *p = &t->vm->q->pager;
	uint32_t id = entry_payload(e), state;
	struct buffer *b;

	t->standby++;
	if (id / CLUSTER_PAGES >= p->cluster_count) {
		wrong(t, "a page's buffer is not one", page, id);
		return;
	}
	b = buffer_of(p, id);
	state = atomic_load(&b->state);
	if (buffer_page(b) != PAGE_ID(r->id, page))
		wrong(t, "a buffer names another page", page, buffer_page(b));
	t->ahead += buffer_is_ahead(b);
	if (state != BUFFER_CLEAN && state != BUFFER_DIRTY && state != BUFFER_WRITING)
		wrong(t, "a page in standby has a buffer of that state", page, state);
	if (state == BUFFER_CLEAN &&
	    memcmp(buffer_address(p, id), fake_disk_page(t->vm->disk, b->slot), PAGE_BYTES) != 0)
		wrong(t, "W1: a clean buffer differs from its slot", page, b->slot);
}

static void check_page(struct tally *t, struct quire_region *r, uint64_t page)
{
	uint64_t e = atomic_load(region_entry(r, page));

	if (e & ENTRY_BUSY)
		wrong(t, "an entry is held by nobody", page, e);
	if ((e & ENTRY_MARKS) && entry_state(e) != ENTRY_READING)
		wrong(t, "an entry is waited for, but no one will end the wait", page, e);
	if (r->is_snapshot && entry_state(e) == ENTRY_MAPPED)
		wrong(t, "a snapshot's page is mapped", page, e);
	if (!r->is_snapshot && entry_state(e) != ENTRY_MAPPED && fake_present(r, page))
		wrong(t, "E2: a page is present but not mapped", page, e);
	switch (entry_state(e)) {
	case ENTRY_EMPTY:
	case ENTRY_ZERO:
		break;
	case ENTRY_GIVEN:
		wrong(t, "a page was given away, and nobody took it back", page, e);
		break;
	case ENTRY_MAPPED:
		check_mapped(t, r, page, e);
		break;
	case ENTRY_STANDBY:
		check_standby(t, r, page, e);
		break;
	case ENTRY_READING:
		t->swapped++;
		hold_slot(t, buffer_of(&t->vm->q->pager, entry_payload(e))->slot, page);
		break;
	case ENTRY_SLOT:
		t->swapped++;
		hold_slot(t, entry_payload(e), page);
		break;
	}
}

static void check_gauge(struct tally *t, const char *what, uint64_t is,
                        const _Atomic uint64_t *says)
{
	if (is != counted(says))
		wrong(t, what, is, counted(says));
}

unsigned fake_vm_check(struct fake_vm *vm)
{
	struct quire *q = vm->q;
	struct tally t = { .vm = vm, .broken = vm->fe->violations };

	/* Its cluster has a reference that no page accounts for. */
	stage_flush(&q->pager);
	t.slots = calloc(vm->slots, sizeof *t.slots);
	t.frames = calloc(q->pager.frame_count + 1, 1);
	for (uint32_t i = 0; i < q->region_count; i++) {
		struct quire_region *r = &q->regions[i];
		struct tally before = t;

		if (!atomic_load(&r->alive))
			continue;
		for (uint64_t page = 0; page < r->pages; page++)
			if (region_leaf_touched(r, page))
				check_page(&t, r, page);
			else if (atomic_load(region_entry(r, page)))
				wrong(&t, "an entry in a leaf that was never touched", page, 0);
		check_gauge(&t, "a region's resident", t.mapped - before.mapped,
		            &r->counters.resident);
		check_gauge(&t, "a region's standby", t.standby - before.standby,
		            &r->counters.standby);
		check_gauge(&t, "of that, read ahead", t.ahead - before.ahead,
		            &r->counters.standby_ahead);
		check_gauge(&t, "a region's swapped", t.swapped - before.swapped,
		            &r->counters.swapped);
		check_gauge(&t, "a region's pinned", t.pinned - before.pinned, &r->counters.pinned);
		if (atomic_load(&r->users))
			wrong(&t, "a region's users", atomic_load(&r->users), 0);
	}
	check_gauge(&t, "resident", t.mapped, &q->counters.resident);
	check_gauge(&t, "swapped", t.swapped, &q->counters.swapped);
	check_gauge(&t, "pinned", t.pinned, &q->counters.pinned);
	check_gauge(&t, "standby", t.standby, &q->pager.standby);
	t.broken += pager_check(&q->pager, t.mapped, t.slots, vm->slots);
	free(t.slots);
	free(t.frames);
	return t.broken;
}

/* ------------------------------------------------------------------ steps */

unsigned fake_vm_take(struct fake_vm *vm, bool clean_only)
{
	struct pager *p = &vm->q->pager;
	struct taken t;
	unsigned all = 0;

	reclaim_enter(p);
	do {
		t = vm_owner.take(vm->q, clean_only);
		if (t.cluster != CLUSTER_NONE) {
			cluster_to_standby(p, t.cluster);
			cluster_put(p, t.cluster);
		}
		all += t.pages;
	} while (t.pages);
	reclaim_leave(p);
	return all;
}

bool fake_vm_write(struct fake_vm *vm)
{
	struct pager *p = &vm->q->pager;
	bool good = true;

	stage_flush(p);
	reclaim_enter(p);
	for (uint32_t c = 0; c < p->cluster_count; c++) {
		if (p->clusters[c].list != CLUSTERS_STANDBY)
			continue;
		atomic_fetch_add(&p->clusters[c].refs, 1);
		good &= writeback_start(p, c);
		cluster_put(p, c);
	}
	reclaim_leave(p);
	return good;
}

void fake_vm_reap(struct fake_vm *vm)
{
	struct pager *p = &vm->q->pager;

	reclaim_enter(p);
	while (writeback_reap(p, true))
		;
	reclaim_leave(p);
}

unsigned fake_vm_retire(struct fake_vm *vm)
{
	struct pager *p = &vm->q->pager;
	unsigned n = 0;

	for (uint32_t id = 0; id < p->cluster_count * CLUSTER_PAGES; id++) {
		struct buffer *b = buffer_of(p, id);

		if (atomic_load(&b->state) == BUFFER_CLEAN)
			n += vm_owner.retire(vm->q, buffer_page(b), id, b->slot);
	}
	return n;
}

void fake_vm_swap_out(struct fake_vm *vm)
{
	fake_vm_take(vm, false);
	fake_vm_write(vm);
	fake_vm_reap(vm);
	fake_vm_retire(vm);
}

uint32_t fake_vm_step(struct fake_vm *vm)
{
	uint32_t n;

	reclaim_enter(&vm->q->pager);
	n = reclaim_step(&vm->q->pager);
	reclaim_leave(&vm->q->pager);
	return n;
}

uint64_t fake_vm_entry(struct fake_vm *vm, uint64_t page)
{
	return atomic_load(region_entry(vm->r, page));
}

enum entry_state fake_vm_state(struct fake_vm *vm, uint64_t page)
{
	return entry_state(fake_vm_entry(vm, page));
}

struct buffer *fake_vm_buffer(struct fake_vm *vm, uint64_t page)
{
	return buffer_of(&vm->q->pager, entry_payload(fake_vm_entry(vm, page)));
}

struct frame *fake_vm_frame(struct fake_vm *vm, uint64_t page)
{
	return &vm->q->pager.frames[entry_payload(fake_vm_entry(vm, page))];
}
