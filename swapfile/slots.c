/* SPDX-License-Identifier: MIT */
/*
 * swapfile/slots.c - the slot allocator; see slots.h.
 *
 * Next-fit over a bitmap: each request looks on from where the last one ended,
 * so that successive runs are neighbours on the disk and freed space has time
 * to grow together before it is met again, as in a log. A request looks at a
 * bounded number of clusters; two summaries lead it past full ones and to the
 * next empty one however far, so its cost does not depend on the file's size.
 *
 * Where no full run is at hand the file is extended while it is small against
 * what it holds (SPARSE), because a fragment costs a request to write and more
 * to read; beyond that, fragments are given.
 *
 * Invariants, checked by slots_check()
 *  S1  A slot is taken if and only if it has a reference, or is slot 0, or is
 *      not below max. (Exception: a slot whose last reference was dropped is
 *      taken until slots_unref has the lock. Nobody can be given it meanwhile.)
 *  S2  vacant holds the clusters below extent with a slot that is not taken;
 *      empty those with no slot taken.
 *  S3  used is the number of slots with a reference.
 *  S4  extent is a number of whole clusters, and each slot below it and below
 *      max is backed.
 *  S5  No slot from extent on has a reference or is taken.
 */
#include "swapfile/slots.h"

#include "base/base.h"
#include "base/error.h"

#include <errno.h>

/* Vacant clusters that one request looks into. */
#define SCAN_CLUSTERS 64

/* How large the file may grow before fragments are used: this many slots for one in use, */
#define SPARSE 2u
/* and this many in any case. */
#define SPARSE_FLOOR 4096u

struct run {
	uint32_t first, count;
};

/* ---------------------------------------------------------------- opening */

static uint32_t clusters_of(uint32_t slots)
{
	return (slots + SLOTS_CLUSTER - 1) / SLOTS_CLUSTER;
}

/* Where taken, the part that grows, begins behind the control and the summaries. */
static size_t taken_at(uint32_t clusters)
{
	return round_up(sizeof(struct slots_control), PAGE_BYTES) +
	       2 * round_up(summary_bytes(clusters), PAGE_BYTES);
}

/* Make the records of the clusters below count usable. => holds .lock, or nobody else is there yet */
static bool reach(struct slots *s, uint32_t count)
{
	size_t slots = (size_t)count * SLOTS_CLUSTER;

	return arena_extend(&s->arena, taken_at(clusters_of(s->max)) + count * sizeof *s->taken) &&
	       arena_extend(&s->reference_arena, slots * sizeof *s->references) &&
	       arena_extend(&s->sum_arena, slots * sizeof *s->sums);
}

/* Address space for max slots. */
static size_t reserved(uint32_t max)
{
	return taken_at(clusters_of(max)) + clusters_of(max) * sizeof(uint64_t) +
	       (size_t)max * (sizeof(uint16_t) + sizeof(uint32_t));
}

static int reserve(struct slots *s, uint32_t max)
{
	uint32_t clusters = clusters_of(max);
	size_t slots = (size_t)clusters * SLOTS_CLUSTER;
	int error;

	s->max = max;
	error = arena_reserve(&s->arena, taken_at(clusters) + clusters * sizeof *s->taken, true,
	                      "quire slots");
	if (!error)
		error = arena_reserve(&s->reference_arena, slots * sizeof *s->references, true,
		                      "quire slot references");
	if (!error)
		error = arena_reserve(&s->sum_arena, slots * sizeof *s->sums, true,
		                      "quire slot checksums");
	if (!error && !reach(s, 1))
		error = error_set(ENOMEM, "no memory for the records of the swap file");
	if (error)
		slots_close(s);
	return error;
}

static void lay_out(struct slots *s)
{
	uint32_t clusters = clusters_of(s->max);
	char *vacant = (char *)s->arena.base + round_up(sizeof *s->control, PAGE_BYTES);

	s->control = s->arena.base;
	summary_init(&s->vacant, vacant, clusters);
	summary_init(&s->empty, vacant + round_up(summary_bytes(clusters), PAGE_BYTES), clusters);
	s->taken = (void *)((char *)s->arena.base + taken_at(clusters));
	s->references = s->reference_arena.base;
	s->sums = s->sum_arena.base;
}

int slots_open(struct slots *s, uint64_t max)
{
	int error;

	ASSERT(max >= 2);
	*s = (struct slots){ .max = 0 };
	max = MIN(max, SLOTS_MAX);
	/* A limit on address space (ulimit -v) should cost capacity, not the program. */
	while (reserved((uint32_t)max) > arena_share() && max / 2 >= SPARSE_FLOOR)
		max /= 2;
	while ((error = reserve(s, (uint32_t)max)))
		if ((max /= 2) < SPARSE_FLOOR)
			return error;
	lay_out(s);
	lock_init_shared(&s->control->lock, RANK_SLOTS);
	s->control->cursor = 1;
	return 0;
}

void slots_close(struct slots *s)
{
	arena_close(&s->arena);
	arena_close(&s->reference_arena);
	arena_close(&s->sum_arena);
}

void slots_set_backed(struct slots *s, uint32_t count)
{
	lock_acquire(&s->control->lock);
	ASSERT(count <= s->max);
	if (count > s->control->backed)
		s->control->backed = count;
	lock_release(&s->control->lock);
}

/* ---------------------------------------------------------------- marking */

/* Bring the summaries up to date with a cluster. => holds .lock */
static void summarise(struct slots *s, uint32_t cluster)
{
	if (s->taken[cluster] == ~UINT64_C(0))
		summary_remove(&s->vacant, cluster);
	else
		summary_add(&s->vacant, cluster);
	if (s->taken[cluster] == 0)
		summary_add(&s->empty, cluster);
	else
		summary_remove(&s->empty, cluster);
}

/* Give out free slots. => holds .lock */
static void take(struct slots *s, struct run run)
{
	for (uint32_t slot = run.first, left = run.count; left > 0;) {
		uint32_t cluster = slot / SLOTS_CLUSTER;
		unsigned n = MIN(left, SLOTS_CLUSTER - slot % SLOTS_CLUSTER);
		uint64_t mask = bits(slot % SLOTS_CLUSTER, n);

		ASSERT(!(s->taken[cluster] & mask));
		s->taken[cluster] |= mask;
		summarise(s, cluster);
		slot += n;
		left -= n;
	}
	for (uint32_t i = 0; i < run.count; i++) {
		ASSERT(s->references[run.first + i] == 0);
		atomic_store_explicit(&s->references[run.first + i], 1, memory_order_relaxed);
	}
	s->control->used += run.count;
	s->control->cursor = run.first + run.count;
}

/* Slots of the cluster that may never be given out (S1). */
static uint64_t never(const struct slots *s, uint32_t cluster)
{
	uint32_t first = cluster * SLOTS_CLUSTER;
	uint64_t mask = cluster == 0 ? 1 : 0;

	if (s->max - first < SLOTS_CLUSTER)
		mask |= ~UINT64_C(0) << (s->max - first);
	return mask;
}

/* ---------------------------------------------------------------- searching */

/*
 * Go through the free slots of a cluster. *run is the run that the cluster
 * before it ended with, and the one that this one ends with.
 * => true: *best is as long as wanted
 */
static bool scan_cluster(uint64_t free, uint32_t base, unsigned want, struct run *run,
                         struct run *best)
{
	while (free) {
		unsigned bit = (unsigned)__builtin_ctzll(free);
		uint64_t ones = free >> bit;
		unsigned length = ~ones ? (unsigned)__builtin_ctzll(~ones) : 64;

		if (run->first + run->count != base + bit)
			*run = (struct run){ base + bit, 0 };
		run->count += length;
		if (run->count > best->count) {
			*best = *run;
			if (best->count >= want) {
				best->count = want;
				return true;
			}
		}
		free &= ~bits(bit, length);
	}
	return false;
}

/*
 * The first run of want slots from the cursor on, round the end of the extent,
 * else the longest of those looked at. => count 0: no slot is free
 */
static struct run search(const struct slots *s, unsigned want)
{
	uint32_t cursor = s->control->cursor;
	uint32_t start = cursor / SLOTS_CLUSTER, from = start;
	struct run best = { 0, 0 }, run = { 0, 0 };
	bool wrapped = false;

	for (unsigned looked = 0; looked < SCAN_CLUSTERS; looked++) {
		uint32_t cluster = summary_next(&s->vacant, from);
		uint64_t free;

		if (cluster == SUMMARY_NONE && !wrapped) {
			wrapped = true;
			cluster = summary_next(&s->vacant, 0);
		}
		if (cluster == SUMMARY_NONE || (wrapped && cluster > start))
			break;
		free = ~s->taken[cluster];
		if (cluster == start && !wrapped)
			free &= ~UINT64_C(0) << cursor % SLOTS_CLUSTER;
		if (scan_cluster(free, cluster * SLOTS_CLUSTER, want, &run, &best))
			return best;
		from = cluster + 1;
	}
	return best;
}

/* An empty cluster, the next one from the cursor on. => false: there is none */
static bool search_empty(const struct slots *s, unsigned want, struct run *run)
{
	uint32_t cluster = summary_next(&s->empty, s->control->cursor / SLOTS_CLUSTER);

	if (cluster == SUMMARY_NONE)
		cluster = summary_next(&s->empty, 0);
	if (cluster == SUMMARY_NONE)
		return false;
	*run = (struct run){ cluster * SLOTS_CLUSTER, want };
	return true;
}

/* ---------------------------------------------------------------- extending */

/* The run that the next cluster would give together with the free end of the last one. */
static struct run run_if_extended(const struct slots *s, unsigned want)
{
	uint32_t extent = s->control->extent;
	uint64_t last = extent ? s->taken[extent / SLOTS_CLUSTER - 1] : ~UINT64_C(0);
	uint32_t tail = last ? (uint32_t)__builtin_clzll(last) : SLOTS_CLUSTER;
	uint32_t added;

	if (extent >= s->max)
		return (struct run){ 0, 0 };
	added = MIN(s->max - extent, SLOTS_CLUSTER);
	if (extent == 0) { /* slot 0 is not given out */
		extent = 1;
		added--;
	}
	return (struct run){ extent - tail, MIN(want, tail + added) };
}

/* Is the file still small against what it holds? */
static bool may_be_sparser(const struct slots *s)
{
	return s->control->extent + SLOTS_CLUSTER <=
	       (uint64_t)s->control->used * SPARSE + SPARSE_FLOOR;
}

static bool next_cluster_backed(const struct slots *s)
{
	return MIN(s->control->extent + SLOTS_CLUSTER, s->max) <= s->control->backed;
}

/* => false: there is no memory for the records of one more cluster */
static bool extend(struct slots *s)
{
	uint32_t cluster = s->control->extent / SLOTS_CLUSTER;

	if (!reach(s, cluster + 1))
		return false;
	s->taken[cluster] = never(s, cluster);
	s->control->extent += SLOTS_CLUSTER;
	summarise(s, cluster);
	return true;
}

/* ---------------------------------------------------------------- the calls */

unsigned slots_alloc(struct slots *s, unsigned want, bool may_grow, slot_t *first)
{
	struct run run, extended;

	ASSERT(want >= 1 && want <= SWAP_RUN_MAX);
	lock_acquire(&s->control->lock);
	/* Another process may have extended them. */
	if (!reach(s, s->control->extent / SLOTS_CLUSTER)) {
		lock_release(&s->control->lock);
		return 0;
	}
	run = search(s, want);
	if (run.count < want && !search_empty(s, want, &run)) {
		extended = run_if_extended(s, want);
		if (extended.count > run.count && (run.count == 0 || may_be_sparser(s))) {
			if (next_cluster_backed(s)) {
				if (extend(s))
					run = extended;
			} else if (may_grow) {
				lock_release(&s->control->lock);
				return SLOTS_GROW;
			}
		}
	}
	if (run.count > 0)
		take(s, run);
	lock_release(&s->control->lock);
	*first = run.first;
	return run.count;
}

void slots_ref(struct slots *s, slot_t slot)
{
	unsigned old;

	DEBUG_ASSERT(slot != SLOT_NONE && slot < s->control->extent);
	old = atomic_fetch_add_explicit(&s->references[slot], 1, memory_order_relaxed);
	ASSERT(old > 0 && old < SLOTS_REFERENCES_MAX);
}

void slots_unref(struct slots *s, slot_t first, unsigned count)
{
	bool locked = false;

	DEBUG_ASSERT(first != SLOT_NONE && first + count <= s->control->extent);
	for (slot_t slot = first; slot < first + count; slot++) {
		/* Release what was read of the slot before it is given out again. */
		unsigned old = atomic_fetch_sub_explicit(&s->references[slot], 1,
		                                         memory_order_acq_rel);

		ASSERT(old > 0);
		if (old > 1)
			continue;
		if (!locked)
			lock_acquire(&s->control->lock);
		locked = true;
		s->taken[slot / SLOTS_CLUSTER] &= ~bits(slot % SLOTS_CLUSTER, 1);
		summarise(s, slot / SLOTS_CLUSTER);
		s->control->used--;
	}
	if (locked)
		lock_release(&s->control->lock);
}

unsigned slots_references(const struct slots *s, slot_t slot)
{
	return slot < s->control->extent ? s->references[slot] : 0;
}

uint64_t slots_metadata(const struct slots *s)
{
	uint64_t extent = s->control->extent, clusters = extent / SLOTS_CLUSTER;

	/* A summary's upper levels fit three pages. */
	return PAGE_BYTES + round_up(clusters * sizeof *s->taken, PAGE_BYTES) +
	       2 * (round_up(clusters / 8, PAGE_BYTES) + 3 * PAGE_BYTES) +
	       round_up(extent * sizeof *s->references, PAGE_BYTES) +
	       round_up(extent * sizeof *s->sums, PAGE_BYTES);
}

bool slots_check(struct slots *s)
{
	struct slots_control *c = s->control;
	uint32_t clusters = (s->max + SLOTS_CLUSTER - 1) / SLOTS_CLUSTER;
	uint32_t used = 0;
	bool good;

	lock_acquire(&c->lock);
	good = c->extent % SLOTS_CLUSTER == 0 && MIN(c->extent, s->max) <= c->backed &&
	       c->backed <= s->max && summary_check(&s->vacant) && summary_check(&s->empty);
	for (uint32_t i = 0; good && i < c->extent / SLOTS_CLUSTER; i++) {
		uint64_t referenced = 0;

		for (unsigned j = 0; j < SLOTS_CLUSTER; j++)
			if (s->references[i * SLOTS_CLUSTER + j])
				referenced |= bits(j, 1);
		used += (uint32_t)__builtin_popcountll(referenced);
		good = !(referenced & never(s, i)) && s->taken[i] == (referenced | never(s, i)) &&
		       summary_has(&s->vacant, i) == (s->taken[i] != ~UINT64_C(0)) &&
		       summary_has(&s->empty, i) == (s->taken[i] == 0);
	}
	/* S5, as far as a look costs nothing: the summaries end and the next cluster is clean. */
	if (good && c->extent / SLOTS_CLUSTER < clusters)
		good = s->taken[c->extent / SLOTS_CLUSTER] == 0 &&
		       summary_next(&s->vacant, c->extent / SLOTS_CLUSTER) == SUMMARY_NONE &&
		       summary_next(&s->empty, c->extent / SLOTS_CLUSTER) == SUMMARY_NONE;
	good = good && used == c->used;
	lock_release(&c->lock);
	return good;
}
