/* SPDX-License-Identifier: MIT */
/*
 * vm/region.c - reserving address space, and giving it up.
 *
 * A region is one mapping with a guard page on either side, so that no two
 * regions are neighbours and an overrun is a fault of the program's own. Its
 * page table and leaf bitmap are reserved with it and cost memory as they are
 * touched.
 *
 * Giving up is in an order that leaves no page behind: no new faults (alive),
 * those in service end (users), reads in flight arrive (settle), threads that
 * wait in the kernel are let go onto PROT_NONE, the pages go with the mapping,
 * and only then are frames, buffers and slots free again.
 */
#include "vm/guarded.h"
#include "vm/lineage.h"
#include "vm/vm.h"

#include "base/error.h"
#include "base/kernel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static void name_mapping(const struct quire_region *r)
{
	char name[REGION_NAME_BYTES + 16];

	snprintf(name, sizeof name, "quire %s", r->name);
	prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, r->base, r->bytes, name);
}

static int reserve_tables(struct quire_region *r)
{
	int error = sparse_open(&r->table_arena, r->pages * sizeof *r->table, "quire page table");

	if (!error)
		error = arena_open(&r->leaf_arena, (r->pages >> LEAF_SHIFT) / 8 + 64, false,
		                   "quire leaves");
	r->table = r->table_arena.arena.base;
	r->leaves = r->leaf_arena.base;
	return error;
}

static int reserve(struct quire_region *r)
{
	r->mapping_bytes = r->bytes + 2 * PAGE_BYTES;
	r->mapping = r->q->guarded ? guarded_reserve(r->mapping_bytes) :
	                             kernel_reserve(r->mapping_bytes, MAP_PRIVATE);
	if (!r->mapping)
		return arena_refused("a region", r->bytes);
	r->base = r->mapping + PAGE_BYTES;
	if (mprotect(r->base, r->bytes, PROT_READ | PROT_WRITE) != 0)
		return error_set(ENOMEM,
		                 "mprotect: %s (too many mappings, or vm.overcommit_memory=2?)",
		                 strerror(errno));
	/* A huge page would appear without a fault of ours, and be evicted whole. */
	kernel_madvise(r->base, r->bytes, MADV_NOHUGEPAGE);
	return 0;
}

static void unreserve(struct quire_region *r)
{
	if (r->mapping)
		munmap(r->mapping, r->mapping_bytes);
	sparse_close(&r->table_arena);
	arena_close(&r->leaf_arena);
	r->mapping = r->base = NULL;
	r->table = NULL;
}

static void init(struct quire_region *r, struct quire *q, uint32_t id, size_t bytes,
                 const char *name)
{
	/* users is left alone: a late visitor may be counting himself out (G1). */
	memset(&r->base, 0, sizeof *r - offsetof(struct quire_region, base));
	r->q = q;
	r->id = id;
	r->bytes = bytes;
	r->pages = pages_of(bytes);
	snprintf(r->name, sizeof r->name, "%s", name);
	lock_init(&r->readahead_lock, RANK_READAHEAD);
	readahead_init(&r->readahead, q->readahead_max);
	r->write_next = r->rescue_next = UINT64_MAX;
	atomic_store(&r->write_bias, 0);
}

static void wait_users(struct quire_region *r)
{
	uint32_t users;

	while ((users = atomic_load(&r->users)) != 0)
		futex_wait(&r->users, users, UINT64_C(1000000), false);
}

int region_record(struct quire *q, size_t bytes, const char *name, struct quire_region **out)
{
	struct quire_region *r;
	uint32_t id;
	int error;

	if (registry_take_id(q, &id))
		return error_set(ENOMEM, "a pager has at most %u regions and snapshots",
		                 REGIONS_MAX);
	r = &q->regions[id - 1];
	init(r, q, id, bytes, name);
	error = reserve_tables(r);
	if (error) {
		unreserve(r);
		registry_give_id(q, id);
		return error;
	}
	*out = r;
	return 0;
}

/* Addresses, and faults there. => 0, or -errno with words: it has none */
static int give_addresses(struct quire_region *r)
{
	struct quire *q = r->q;
	int error = reserve(r);

	if (error)
		return error;
	error = q->engine.ops->attach(&q->engine, r, r->base, r->bytes);
	if (error)
		return error_set(-error, "engine %s does not take the range: %s",
		                 q->engine.ops->name, strerror(-error));
	/* A child has it only by our handlers (fork.c). */
	kernel_madvise(r->mapping, r->mapping_bytes, MADV_DONTFORK);
	name_mapping(r);
	atomic_store(&r->alive, REGION_ALIVE);
	if (registry_add(r) == 0)
		return 0;
	atomic_store(&r->alive, REGION_GONE);
	wait_users(r);
	q->engine.ops->detach(&q->engine, r, r->base, r->bytes);
	return error_set(ENOMEM, "no memory for the table of regions");
}

int region_make(struct quire *q, size_t bytes, const char *name, struct quire_region *parent,
                struct quire_region **out)
{
	struct quire_region *r;
	int error = region_record(q, bytes, name, &r);

	if (error)
		return error;
	r->parent = parent;
	error = give_addresses(r);
	if (error) {
		unreserve(r);
		registry_give_id(q, r->id);
		return error;
	}
	*out = r;
	return 0;
}

int quire_region_create(quire_t *q, size_t length, const struct quire_region_options *options,
                        quire_region_t **out)
{
	struct call call;
	size_t bytes = round_up(length, PAGE_BYTES);
	char name[REGION_NAME_BYTES] = "region";
	struct quire_region *made = NULL;
	int error;

	if (!q || !out)
		return error_set(EINVAL, "a NULL pager or result");
	if (pager_is_lost(q))
		return lost_error();
	if (options && options->size != sizeof *options && (options->size != 0 || options->name))
		return error_set(EINVAL, "quire_region_options.size is %zu, not %zu", options->size,
		                 sizeof *options);
	if (length == 0 || bytes < length || bytes > QUIRE_REGION_MAX)
		return error_set(EINVAL, "length %zu: allowed are 1 to %zu bytes", length,
		                 QUIRE_REGION_MAX);
	/* The caller's memory may be managed itself: it is not touched while signals are blocked. */
	if (options && options->name)
		snprintf(name, sizeof name, "%s", options->name);
	call_enter(&call);
	error = region_make(q, bytes, name, NULL, &made);
	call_leave(&call);
	if (!error)
		*out = made;
	return error;
}

void *quire_region_base(const quire_region_t *r)
{
	return r->base;
}

size_t quire_region_length(const quire_region_t *r)
{
	return r->bytes;
}

void region_forget(struct quire_region *r)
{
	discard_unmapped(r);
	unreserve(r);
	registry_give_id(r->q, r->id);
}

/* No new faults, and those in service have ended. Its pages can still be evicted. */
static void close_region(struct quire_region *r)
{
	atomic_store(&r->alive, REGION_DYING);
	registry_remove(r);
	prefetch_cancel(&r->q->prefetch, r->id);
	wait_users(r);
}

/* => it is closed, and nobody inherits from it */
static void destroy(struct quire_region *r)
{
	struct quire *q = r->q;

	/* From here on its pages cannot be evicted, nor does this thread wait for memory. */
	atomic_fetch_add(&q->pager.releasing, 1);
	atomic_store(&r->alive, REGION_GONE);
	wait_users(r);
	/* Reads in flight hold an entry, and are users only while they complete: both must end. */
	discard_settle(r);
	wait_users(r);
	mprotect(r->base, r->bytes, PROT_NONE);
	q->engine.ops->detach(&q->engine, r, r->base, r->bytes);
	munmap(r->mapping, r->mapping_bytes);
	r->mapping = NULL;
	region_forget(r);
	atomic_fetch_sub(&q->pager.releasing, 1);
	reclaimer_give_back(&q->pager);
	forgive(q);
}

/* Its contents are its snapshots', if it has any. => -errno with words: it is as it was */
static int close_and_leave(struct quire_region *r)
{
	int error;

	close_region(r);
	error = snapshots_take_over(r);
	if (!error)
		return 0;
	/* There was room for it in the table a moment ago. */
	atomic_store(&r->alive, REGION_ALIVE);
	if (registry_add(r) != 0)
		assert_failed(__FILE__, __LINE__, "a place in the table that was given up is free");
	return error_set(-error, "its snapshots need its contents, for which there is no room: %s",
	                 strerror(-error));
}

int quire_region_destroy(quire_region_t *r)
{
	struct call call;
	int error;

	error = region_check(r);
	if (error)
		return error;
	call_enter(&call);
	error = close_and_leave(r);
	if (!error)
		destroy(r);
	call_leave(&call);
	return error;
}

/* Nobody will ask for what one has from another any more. */
static void forget_lineage(struct quire *q)
{
	for (uint32_t i = 0; i < regions_used(q); i++) {
		struct quire_region *r = &q->regions[i];

		r->parent = r->older = r->newest = r->target = NULL;
	}
}

void regions_destroy(struct quire *q)
{
	/* Evictions look at what is shared: until the regions are closed to them. */
	for (uint32_t i = 0; i < regions_used(q); i++)
		if (atomic_load(&q->regions[i].alive) && !q->regions[i].is_snapshot)
			close_region(&q->regions[i]);
	for (uint32_t i = 0; i < regions_used(q); i++)
		if (atomic_load(&q->regions[i].alive)) {
			atomic_store(&q->regions[i].alive, REGION_GONE);
			wait_users(&q->regions[i]);
		}
	forget_lineage(q);
	for (uint32_t i = 0; i < regions_used(q); i++)
		if (q->regions[i].mapping)
			destroy(&q->regions[i]);
		else if (q->regions[i].table)
			snapshot_forget(&q->regions[i]);
}
