/* SPDX-License-Identifier: MIT */
/*
 * vm/registry.c - from an address to its region, for the whole process.
 *
 * A sorted array of ranges under a sequence counter: readers (fault handlers,
 * perhaps in a signal) take no lock and write nothing but the user count of
 * the region that they find; a change makes them look again.
 *
 * G1  a region found has its user count raised before the sequence is checked,
 *     and is given back if it was changed or is no longer alive; so destroy,
 *     which unlinks, clears alive and then waits for the users, misses nobody.
 * G2  region records stay mapped while their pager is open. The array itself
 *     is never unmapped.
 * G3  who looks or changes is at work (base/quiesce.h): so in a child of fork the
 *     array is whole. What the child could not be given leaves it (fork.c).
 */
#include "vm/vm.h"

#include <errno.h>
#include <string.h>

struct range {
	_Atomic uintptr_t base, end;
	_Atomic(struct quire_region *) region;
};

#define RANGES_MAX (4u * REGIONS_MAX)

static struct lock registry_lock = LOCK_INIT(RANK_REGISTRY);
static struct arena arena; /* registry lock */
static _Atomic(struct range *) ranges;
static _Atomic uint32_t range_count;
static _Atomic uint32_t sequence; /* odd while the array changes */
/* Readers between their look and their count; close waits for them (G2). */
static _Atomic uint32_t lookers;

static uint32_t position_of(const struct range *a, uint32_t n, uintptr_t address)
{
	uint32_t low = 0;

	while (low < n) {
		uint32_t middle = low + (n - low) / 2;

		if (atomic_load_explicit(&a[middle].end, memory_order_relaxed) <= address)
			low = middle + 1;
		else
			n = middle;
	}
	return low;
}

static void copy_range(struct range *to, struct range *from)
{
	atomic_store_explicit(&to->base, atomic_load_explicit(&from->base, memory_order_relaxed),
	                      memory_order_relaxed);
	atomic_store_explicit(&to->end, atomic_load_explicit(&from->end, memory_order_relaxed),
	                      memory_order_relaxed);
	atomic_store_explicit(&to->region,
	                      atomic_load_explicit(&from->region, memory_order_relaxed),
	                      memory_order_relaxed);
}

/* beyond: if there is none at the address, the next one above it */
static struct quire_region *look(uintptr_t address, bool beyond)
{
	struct quire_region *found = NULL;
	struct range *a = atomic_load(&ranges);

	while (a) {
		uint32_t before = atomic_load(&sequence);
		uint32_t n, i;

		if (before & 1) {
			cpu_relax();
			continue;
		}
		n = atomic_load(&range_count);
		i = position_of(a, n, address);
		if (i < n && (beyond || atomic_load(&a[i].base) <= address))
			found = atomic_load(&a[i].region);
		else
			found = NULL;
		if (found)
			atomic_fetch_add(&found->users, 1);
		if (atomic_load(&sequence) == before)
			break;
		if (found)
			region_put(found);
	}
	return found;
}

static struct quire_region *find(uintptr_t address, bool beyond)
{
	struct quire_region *r;

	atomic_fetch_add(&lookers, 1);
	r = look(address, beyond);
	atomic_fetch_sub(&lookers, 1);
	return r;
}

struct quire_region *registry_find(const void *address)
{
	struct quire_region *r = find((uintptr_t)address, false);

	if (r && atomic_load(&r->alive) != REGION_ALIVE) {
		region_put(r);
		return NULL;
	}
	return r;
}

struct quire_region *registry_find_from(const void *address)
{
	struct quire_region *r;
	uintptr_t from = (uintptr_t)address;

	while ((r = find(from, true)) != NULL && atomic_load(&r->alive) != REGION_ALIVE) {
		from = (uintptr_t)r->base + r->bytes;
		region_put(r);
	}
	return r;
}

int registry_add(struct quire_region *r)
{
	uintptr_t base = (uintptr_t)r->base;
	struct range *a;
	uint32_t n, at;
	int error = fork_watch_error();

	lock_acquire(&registry_lock);
	if (!error && !arena.base)
		error = arena_reserve(&arena, RANGES_MAX * sizeof *a, false, "quire registry");
	n = atomic_load(&range_count);
	if (!error && (n == RANGES_MAX || !arena_extend(&arena, (n + 1) * sizeof *a)))
		error = -ENOMEM;
	if (!error) {
		a = arena.base;
		atomic_store(&ranges, a);
		at = position_of(a, n, base);
		atomic_fetch_add(&sequence, 1);
		for (uint32_t i = n; i > at; i--)
			copy_range(&a[i], &a[i - 1]);
		atomic_store(&a[at].base, base);
		atomic_store(&a[at].end, base + r->bytes);
		atomic_store(&a[at].region, r);
		atomic_store(&range_count, n + 1);
		atomic_fetch_add(&sequence, 1);
	}
	lock_release(&registry_lock);
	return error;
}

void registry_remove(struct quire_region *r)
{
	struct range *a = atomic_load(&ranges);
	uint32_t n, at;

	lock_acquire(&registry_lock);
	n = atomic_load(&range_count);
	at = position_of(a, n, (uintptr_t)r->base);
	ASSERT(at < n && atomic_load(&a[at].region) == r);
	atomic_fetch_add(&sequence, 1);
	for (uint32_t i = at + 1; i < n; i++)
		copy_range(&a[i - 1], &a[i]);
	atomic_store(&range_count, n - 1);
	atomic_fetch_add(&sequence, 1);
	lock_release(&registry_lock);
	/* Nobody may come upon the record any more who has not counted himself. */
	while (atomic_load(&lookers))
		cpu_relax();
}

int registry_take_id(struct quire *q, uint32_t *id)
{
	uint32_t used;
	int error = 0;

	lock_acquire(&registry_lock);
	if (q->free_id_count)
		*id = q->free_ids[--q->free_id_count];
	else if ((used = counted_records(&q->region_count)) < REGIONS_MAX &&
	         arena_extend(&q->region_arena, (used + 1) * sizeof *q->regions))
		*id = count_next(&q->region_count) + 1;
	else
		error = -ENOMEM;
	lock_release(&registry_lock);
	return error;
}

void registry_give_id(struct quire *q, uint32_t id)
{
	lock_acquire(&registry_lock);
	q->free_ids[q->free_id_count++] = id;
	lock_release(&registry_lock);
}

struct quire_region *region_get(const struct quire *q, uint32_t id)
{
	struct quire_region *r = &q->regions[id - 1];

	atomic_fetch_add(&r->users, 1);
	if (atomic_load(&r->alive))
		return r;
	region_put(r);
	return NULL;
}

void region_put(struct quire_region *r)
{
	if (atomic_fetch_sub(&r->users, 1) == 1 && atomic_load(&r->alive) != REGION_ALIVE)
		futex_wake(&r->users, INT32_MAX, false);
}
