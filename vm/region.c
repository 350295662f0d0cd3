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

static int reserve(struct quire_region *r)
{
	int error;

	r->mapping_bytes = r->bytes + 2 * PAGE_BYTES;
	r->mapping = r->q->guarded ? guarded_reserve(r->mapping_bytes) :
	                             kernel_reserve(r->mapping_bytes, MAP_PRIVATE);
	if (!r->mapping)
		return arena_refused("a region", r->bytes);
	r->base = r->mapping + PAGE_BYTES;
	error = sparse_open(&r->table_arena, r->pages * sizeof *r->table, "quire page table");
	if (!error)
		error = arena_open(&r->leaf_arena, (r->pages >> LEAF_SHIFT) / 8 + 64, false,
		                   "quire leaves");
	if (error)
		return error;
	r->table = r->table_arena.arena.base;
	r->leaves = r->leaf_arena.base;
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

static int create(struct quire *q, size_t bytes, const char *name, struct quire_region **out)
{
	struct quire_region *r;
	uint32_t id;
	int error;

	if (registry_take_id(q, &id))
		return error_set(ENOMEM, "a pager has at most %u regions", REGIONS_MAX);
	r = &q->regions[id - 1];
	init(r, q, id, bytes, name);
	error = reserve(r);
	if (!error) {
		error = q->engine.ops->attach(&q->engine, r, r->base, r->bytes);
		if (error)
			error_set(-error, "engine %s does not take the range: %s",
			          q->engine.ops->name, strerror(-error));
	}
	if (error) {
		unreserve(r);
		registry_give_id(q, id);
		return error;
	}
	name_mapping(r);
	atomic_store(&r->alive, REGION_ALIVE);
	error = registry_add(r);
	if (error) {
		atomic_store(&r->alive, REGION_GONE);
		wait_users(r);
		q->engine.ops->detach(&q->engine, r, r->base, r->bytes);
		unreserve(r);
		registry_give_id(q, id);
		return error_set(ENOMEM, "no memory for the table of regions");
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
	error = create(q, bytes, name, &made);
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

static void destroy(struct quire_region *r)
{
	struct quire *q = r->q;

	atomic_store(&r->alive, REGION_DYING);
	registry_remove(r);
	prefetch_cancel(&q->prefetch, r->id);
	wait_users(r);
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
	discard_unmapped(r);
	atomic_fetch_sub(&q->pager.releasing, 1);
	unreserve(r);
	registry_give_id(q, r->id);
	reclaimer_give_back(&q->pager);
	forgive(q);
}

int quire_region_destroy(quire_region_t *r)
{
	struct call call;

	if (!r || atomic_load(&r->alive) != REGION_ALIVE)
		return error_set(EINVAL, "no such region");
	call_enter(&call);
	destroy(r);
	call_leave(&call);
	return 0;
}

void regions_destroy(struct quire *q)
{
	for (uint32_t i = 0; i < regions_used(q); i++)
		if (atomic_load(&q->regions[i].alive))
			destroy(&q->regions[i]);
}
