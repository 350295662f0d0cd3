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
 *  S1  A slot is taken if and only if somebody holds it, or it is slot 0, or is
 *      not below max.
 *  S2  vacant holds the clusters below extent with a slot that is not taken;
 *      empty those with no slot taken.
 *  S3  used is the number of slots that are held.
 *  S4  extent is a number of whole clusters, and each slot below it and below
 *      max is backed.
 *  S5  No slot from extent on is held or taken.
 *  S6  A member holds the slots of which it has a reference. (Exception: one whose
 *      last reference was dropped is held until slots_unref has the lock. Nobody can be
 *      given it meanwhile.) holders counts for each slot who does.
 */
#include "swapfile/members.h"

#include "base/base.h"
#include "base/error.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

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

/* Where taken, the part that grows, begins behind the control and the summaries. */
static size_t taken_at(uint32_t clusters)
{
	return round_up(sizeof(struct slots_control), PAGE_BYTES) +
	       2 * round_up(summary_bytes(clusters), PAGE_BYTES);
}

/* Where a member's bits begin: a word for each cluster. */
static size_t held_bytes(uint32_t max)
{
	return round_up(slots_clusters_of(max) * sizeof(uint64_t), PAGE_BYTES);
}

bool slots_reach(struct slots *s, uint32_t count, uint32_t member)
{
	size_t slots = (size_t)count * SLOTS_CLUSTER;

	return arena_extend(&s->arena,
	                    taken_at(slots_clusters_of(s->max)) + count * sizeof *s->taken) &&
	       arena_extend(&s->holder_arena, slots * sizeof *s->holders) &&
	       arena_extend(&s->sum_arena, slots * sizeof *s->sums) &&
	       arena_extend(&s->reference_arena, slots * sizeof *s->references) &&
	       arena_extend(&s->held_arenas[member], count * sizeof(uint64_t));
}

/* Address space for max slots. */
static size_t reserved(uint32_t max, uint32_t members)
{
	return taken_at(slots_clusters_of(max)) + slots_clusters_of(max) * sizeof(uint64_t) +
	       (size_t)max * (2 * sizeof(uint16_t) + sizeof(uint32_t)) + members * held_bytes(max);
}

static int reserve_all(struct slots *s, uint32_t clusters)
{
	size_t slots = (size_t)clusters * SLOTS_CLUSTER, held = held_bytes(s->max);
	int error;

	if ((error = arena_reserve(&s->arena, taken_at(clusters) + clusters * sizeof *s->taken,
	                           true, "quire slots")) ||
	    (error = arena_reserve(&s->holder_arena, slots * sizeof *s->holders, true,
	                           "quire slot holders")) ||
	    (error = arena_reserve(&s->sum_arena, slots * sizeof *s->sums, true,
	                           "quire slot checksums")) ||
	    (error = arena_reserve(&s->reference_arena, slots * sizeof *s->references, false,
	                           "quire slot references")) ||
	    (error = arena_reserve(&s->held_arena, s->members_max * held, true,
	                           "quire slots held")))
		return error;
	for (uint32_t i = 0; i < s->members_max; i++)
		s->held_arenas[i] = (struct arena){
			.base = (char *)s->held_arena.base + i * held,
			.bytes = held,
			.usable = i == 0 ? MIN(s->held_arena.usable, held) : 0,
		};
	return slots_reach(s, 1, 0) ?
	               0 :
	               error_set(ENOMEM, "no memory for the records of the swap file");
}

static int reserve(struct slots *s, uint32_t max)
{
	int error = -ENOMEM;

	s->max = max;
	/* A limit on address space (ulimit -v) should cost members first. */
	s->members_max = reserved(max, SLOTS_MEMBERS) > arena_share() ? SLOTS_MEMBERS_LEAST :
	                                                                SLOTS_MEMBERS;
	for (; s->members_max >= SLOTS_MEMBERS_LEAST; s->members_max /= SLOTS_MEMBERS_LEAST)
		if ((error = reserve_all(s, slots_clusters_of(max))))
			slots_close(s);
		else
			break;
	return error;
}

static void lay_out(struct slots *s)
{
	uint32_t clusters = slots_clusters_of(s->max);
	char *vacant = (char *)s->arena.base + round_up(sizeof *s->control, PAGE_BYTES);

	s->control = s->arena.base;
	summary_init(&s->vacant, vacant, clusters);
	summary_init(&s->empty, vacant + round_up(summary_bytes(clusters), PAGE_BYTES), clusters);
	s->taken = (void *)((char *)s->arena.base + taken_at(clusters));
	s->holders = s->holder_arena.base;
	s->references = s->reference_arena.base;
	s->sums = s->sum_arena.base;
}

int slots_open(struct slots *s, uint64_t max)
{
	int error;

	ASSERT(max >= 2);
	*s = (struct slots){ .max = 0 };
	max = MIN(max, SLOTS_MAX);
	/* Then capacity, not the program. */
	while (reserved((uint32_t)max, SLOTS_MEMBERS_LEAST) > arena_share() &&
	       max / 2 >= SPARSE_FLOOR)
		max /= 2;
	while ((error = reserve(s, (uint32_t)max)))
		if ((max /= 2) < SPARSE_FLOOR)
			return error;
	lay_out(s);
	shared_lock_init(&s->control->lock, RANK_SLOTS);
	shared_lock_init(&s->control->grow_lock, RANK_GROW);
	s->control->cursor = 1;
	s->control->members = 1;
	s->control->is_member[0] = true;
	return 0;
}

static void out_of_reach(const struct arena *a)
{
	mmap(a->base, a->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
	     -1, 0);
}

void slots_forsake(struct slots *s)
{
	out_of_reach(&s->arena);
	out_of_reach(&s->holder_arena);
	out_of_reach(&s->sum_arena);
	out_of_reach(&s->held_arena);
}

void slots_close(struct slots *s)
{
	arena_close(&s->arena);
	arena_close(&s->holder_arena);
	arena_close(&s->sum_arena);
	arena_close(&s->reference_arena);
	arena_close(&s->held_arena);
}

/* ---------------------------------------------------------------- giving out */

void slots_set_backed(struct slots *s, uint32_t count)
{
	slots_acquire(s);
	ASSERT(count <= s->max);
	if (count > s->control->backed)
		s->control->backed = count;
	slots_release(s);
}

/* Give out free slots. => holds .lock */
static void take(struct slots *s, struct run run)
{
	uint64_t *held = slots_held_by(s, s->me);

	for (uint32_t slot = run.first, left = run.count; left > 0;) {
		uint32_t cluster = slot / SLOTS_CLUSTER;
		unsigned n = MIN(left, SLOTS_CLUSTER - slot % SLOTS_CLUSTER);
		uint64_t mask = bits(slot % SLOTS_CLUSTER, n);

		ASSERT(!(s->taken[cluster] & mask) && !(held[cluster] & mask));
		s->taken[cluster] |= mask;
		held[cluster] |= mask;
		slots_add_holder(s, cluster, mask);
		slots_summarise(s, cluster);
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

	if (!slots_reach(s, cluster + 1, s->me))
		return false;
	s->taken[cluster] = slots_never(s, cluster);
	s->control->extent += SLOTS_CLUSTER;
	slots_summarise(s, cluster);
	return true;
}

/* ---------------------------------------------------------------- the calls */

unsigned slots_alloc(struct slots *s, unsigned want, bool may_grow, slot_t *first)
{
	struct run run, extended;

	ASSERT(want >= 1 && want <= SWAP_RUN_MAX);
	slots_acquire(s);
	/* Another process may have extended them. */
	if (!slots_reach(s, slots_clusters(s), s->me)) {
		slots_release(s);
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
				slots_release(s);
				return SLOTS_GROW;
			}
		}
	}
	if (run.count > 0)
		take(s, run);
	slots_release(s);
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
			slots_acquire(s);
		locked = true;
		slots_held_by(s, s->me)[slot / SLOTS_CLUSTER] &= ~bits(slot % SLOTS_CLUSTER, 1);
		slots_drop_holder(s, slot / SLOTS_CLUSTER, bits(slot % SLOTS_CLUSTER, 1));
	}
	if (locked)
		slots_release(s);
}

unsigned slots_references(const struct slots *s, slot_t slot)
{
	return slot < s->control->extent ? s->references[slot] : 0;
}

uint64_t slots_metadata(const struct slots *s)
{
	uint64_t extent = s->control->extent, clusters = extent / SLOTS_CLUSTER;

	/* A summary's upper levels fit three pages. */
	return PAGE_BYTES + 2 * round_up(clusters * sizeof *s->taken, PAGE_BYTES) +
	       2 * (round_up(clusters / 8, PAGE_BYTES) + 3 * PAGE_BYTES) +
	       2 * round_up(extent * sizeof *s->references, PAGE_BYTES) +
	       round_up(extent * sizeof *s->sums, PAGE_BYTES);
}
