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
 *
 * A member may be killed anywhere, with the lock in hand too. What it held is in its own
 * bits and no concern of its any more; of the others' bits, which nobody but
 * they change, all the rest is made anew (recover).
 */
#include "swapfile/slots.h"

#include "base/base.h"
#include "base/error.h"

#include <errno.h>
#include <string.h>

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

/* Where a member's bits begin: a word for each cluster. */
static size_t held_bytes(uint32_t max)
{
	return round_up(clusters_of(max) * sizeof(uint64_t), PAGE_BYTES);
}

static uint64_t *held_by(const struct slots *s, uint32_t member)
{
	return s->held_arenas[member].base;
}

/*
 * Make the records of the clusters below count usable, and what a member holds of them.
 * => holds .lock, or nobody else is there yet
 */
static bool reach(struct slots *s, uint32_t count, uint32_t member)
{
	size_t slots = (size_t)count * SLOTS_CLUSTER;

	return arena_extend(&s->arena, taken_at(clusters_of(s->max)) + count * sizeof *s->taken) &&
	       arena_extend(&s->holder_arena, slots * sizeof *s->holders) &&
	       arena_extend(&s->sum_arena, slots * sizeof *s->sums) &&
	       arena_extend(&s->reference_arena, slots * sizeof *s->references) &&
	       arena_extend(&s->held_arenas[member], count * sizeof(uint64_t));
}

/* Address space for max slots. */
static size_t reserved(uint32_t max, uint32_t members)
{
	return taken_at(clusters_of(max)) + clusters_of(max) * sizeof(uint64_t) +
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
	return reach(s, 1, 0) ? 0 : error_set(ENOMEM, "no memory for the records of the swap file");
}

static int reserve(struct slots *s, uint32_t max)
{
	int error = -ENOMEM;

	s->max = max;
	/* A limit on address space (ulimit -v) should cost members first. */
	s->members_max = reserved(max, SLOTS_MEMBERS) > arena_share() ? SLOTS_MEMBERS_LEAST :
	                                                                SLOTS_MEMBERS;
	for (; s->members_max >= SLOTS_MEMBERS_LEAST; s->members_max /= SLOTS_MEMBERS_LEAST)
		if ((error = reserve_all(s, clusters_of(max))))
			slots_close(s);
		else
			break;
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
	s->control->cursor = 1;
	s->control->members = 1;
	s->control->is_member[0] = true;
	return 0;
}

void slots_close(struct slots *s)
{
	arena_close(&s->arena);
	arena_close(&s->holder_arena);
	arena_close(&s->sum_arena);
	arena_close(&s->reference_arena);
	arena_close(&s->held_arena);
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

/* Slots of the cluster that may never be given out (S1). */
static uint64_t never(const struct slots *s, uint32_t cluster)
{
	uint32_t first = cluster * SLOTS_CLUSTER;
	uint64_t mask = cluster == 0 ? 1 : 0;

	if (s->max - first < SLOTS_CLUSTER)
		mask |= ~UINT64_C(0) << (s->max - first);
	return mask;
}

/* One more holds these slots of a cluster. => holds .lock */
static void add_holder(struct slots *s, uint32_t cluster, uint64_t mask)
{
	uint16_t *holders = &s->holders[cluster * SLOTS_CLUSTER];

	if (mask == ~UINT64_C(0))
		for (unsigned i = 0; i < SLOTS_CLUSTER; i++)
			holders[i]++;
	else
		for (; mask; mask &= mask - 1)
			holders[__builtin_ctzll(mask)]++;
}

/* One less. What nobody holds any more is free. => holds .lock */
static void drop_holder(struct slots *s, uint32_t cluster, uint64_t mask)
{
	uint16_t *holders = &s->holders[cluster * SLOTS_CLUSTER];
	uint64_t freed = 0;

	for (; mask; mask &= mask - 1) {
		unsigned i = (unsigned)__builtin_ctzll(mask);

		ASSERT(holders[i] > 0);
		if (--holders[i] == 0)
			freed |= bits(i, 1);
	}
	if (!freed)
		return;
	s->taken[cluster] &= ~freed;
	summarise(s, cluster);
	s->control->used -= (uint32_t)__builtin_popcountll(freed);
}

/* Give out free slots. => holds .lock */
static void take(struct slots *s, struct run run)
{
	uint64_t *held = held_by(s, s->me);

	for (uint32_t slot = run.first, left = run.count; left > 0;) {
		uint32_t cluster = slot / SLOTS_CLUSTER;
		unsigned n = MIN(left, SLOTS_CLUSTER - slot % SLOTS_CLUSTER);
		uint64_t mask = bits(slot % SLOTS_CLUSTER, n);

		ASSERT(!(s->taken[cluster] & mask) && !(held[cluster] & mask));
		s->taken[cluster] |= mask;
		held[cluster] |= mask;
		add_holder(s, cluster, mask);
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

/* ---------------------------------------------------------------- members */

static uint32_t clusters_in_use(const struct slots *s)
{
	return s->control->extent / SLOTS_CLUSTER;
}

/* What a cluster's slots are by what members hold of them. => holds .lock */
static void recount(struct slots *s, uint32_t cluster)
{
	uint64_t held = 0;

	memset(&s->holders[cluster * SLOTS_CLUSTER], 0, SLOTS_CLUSTER * sizeof *s->holders);
	for (uint32_t i = 0; i < s->members_max; i++)
		if (s->control->is_member[i]) {
			held |= held_by(s, i)[cluster];
			add_holder(s, cluster, held_by(s, i)[cluster]);
		}
	s->taken[cluster] = held | never(s, cluster);
	s->control->used += (uint32_t)__builtin_popcountll(held);
	summarise(s, cluster);
}

/* Who had the lock has gone, in the middle of anything. => holds .lock */
static void recover(struct slots *s)
{
	uint32_t clusters = clusters_in_use(s), members = 0;

	for (uint32_t i = 0; i < s->members_max; i++) {
		if (!s->control->is_member[i])
			continue;
		members++;
		/* Without memory for a look at them nothing can be given out, nor freed. */
		if (!reach(s, clusters, i))
			assert_failed(__FILE__, __LINE__,
			              "memory to recover the swap file's slots");
	}
	s->control->members = members;
	s->control->used = 0;
	/* With a cluster that was being added. */
	summary_clear(&s->vacant, clusters + 1);
	summary_clear(&s->empty, clusters + 1);
	for (uint32_t i = 0; i < clusters; i++)
		recount(s, i);
}

static bool is_gone(void *slots, uint32_t member)
{
	struct slots *s = slots;

	return s->is_gone && s->is_gone(s->arg, member);
}

static void acquire(struct slots *s)
{
	if (unlikely(shared_lock_acquire(&s->control->lock, s->me, is_gone, s)))
		recover(s);
}

static void release(struct slots *s)
{
	shared_lock_release(&s->control->lock);
}

void slots_set_witness(struct slots *s, bool (*witness)(void *arg, uint32_t member), void *arg)
{
	s->is_gone = witness;
	s->arg = arg;
}

/* => holds .lock; false: there is no memory for a look at what it held: another time */
static bool dismiss(struct slots *s, uint32_t member)
{
	uint32_t clusters = clusters_in_use(s);

	if (!reach(s, clusters, member))
		return false;
	for (uint32_t i = 0; i < clusters; i++) {
		uint64_t mask = held_by(s, member)[i];

		if (!mask)
			continue;
		held_by(s, member)[i] = 0;
		drop_holder(s, i, mask);
	}
	s->control->is_member[member] = false;
	s->control->members--;
	return true;
}

/* => holds .lock */
static bool reap(struct slots *s)
{
	bool some = false;

	if (s->control->members == 1)
		return false;
	for (uint32_t i = 0; i < s->members_max; i++)
		if (i != s->me && s->control->is_member[i] && is_gone(s, i))
			some |= dismiss(s, i);
	return some;
}

bool slots_reap(struct slots *s)
{
	bool some;

	acquire(s);
	some = reap(s);
	release(s);
	return some;
}

/* => holds .lock */
static int admit(struct slots *s, uint32_t *member)
{
	uint32_t clusters = clusters_in_use(s), m = 0;

	while (m < s->members_max && s->control->is_member[m])
		m++;
	if (m == s->members_max)
		return -ENFILE;
	if (!reach(s, clusters, m))
		return -ENOMEM;
	memcpy(held_by(s, m), held_by(s, s->me), clusters * sizeof(uint64_t));
	for (uint32_t i = 0; i < clusters; i++)
		add_holder(s, i, held_by(s, m)[i]);
	s->control->is_member[m] = true;
	s->control->members++;
	*member = m;
	return 0;
}

int slots_fork(struct slots *s, uint32_t *member)
{
	int error;

	acquire(s);
	reap(s);
	error = admit(s, member);
	release(s);
	return error;
}

void slots_become(struct slots *s, uint32_t member)
{
	s->me = member;
}

void slots_disown(struct slots *s, uint32_t member)
{
	acquire(s);
	dismiss(s, member);
	release(s);
}

bool slots_leave(struct slots *s)
{
	bool last;

	acquire(s);
	reap(s);
	last = s->control->members == 1;
	dismiss(s, s->me);
	release(s);
	return last;
}

void slots_set_backed(struct slots *s, uint32_t count)
{
	acquire(s);
	ASSERT(count <= s->max);
	if (count > s->control->backed)
		s->control->backed = count;
	release(s);
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

	if (!reach(s, cluster + 1, s->me))
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
	acquire(s);
	/* Another process may have extended them. */
	if (!reach(s, clusters_in_use(s), s->me)) {
		release(s);
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
				release(s);
				return SLOTS_GROW;
			}
		}
	}
	if (run.count > 0)
		take(s, run);
	release(s);
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
			acquire(s);
		locked = true;
		held_by(s, s->me)[slot / SLOTS_CLUSTER] &= ~bits(slot % SLOTS_CLUSTER, 1);
		drop_holder(s, slot / SLOTS_CLUSTER, bits(slot % SLOTS_CLUSTER, 1));
	}
	if (locked)
		release(s);
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

/* S1, S2, S6 of a cluster. => holds .lock */
static bool check_cluster(struct slots *s, uint32_t cluster)
{
	uint64_t held = 0, mine = 0;
	unsigned holders[SLOTS_CLUSTER] = { 0 };

	for (uint32_t m = 0; m < s->members_max; m++) {
		if (!s->control->is_member[m])
			continue;
		if (!reach(s, clusters_in_use(s), m))
			return false;
		held |= held_by(s, m)[cluster];
		for (unsigned j = 0; j < SLOTS_CLUSTER; j++)
			holders[j] += held_by(s, m)[cluster] >> j & 1;
	}
	for (unsigned j = 0; j < SLOTS_CLUSTER; j++) {
		if (s->references[cluster * SLOTS_CLUSTER + j])
			mine |= bits(j, 1);
		if (s->holders[cluster * SLOTS_CLUSTER + j] != holders[j])
			return false;
	}
	return mine == held_by(s, s->me)[cluster] && !(held & never(s, cluster)) &&
	       s->taken[cluster] == (held | never(s, cluster)) &&
	       summary_has(&s->vacant, cluster) == (s->taken[cluster] != ~UINT64_C(0)) &&
	       summary_has(&s->empty, cluster) == (s->taken[cluster] == 0);
}

bool slots_check(struct slots *s)
{
	struct slots_control *c = s->control;
	uint32_t clusters = clusters_of(s->max), used = 0;
	bool good;

	acquire(s);
	good = c->extent % SLOTS_CLUSTER == 0 && MIN(c->extent, s->max) <= c->backed &&
	       c->backed <= s->max && summary_check(&s->vacant) && summary_check(&s->empty) &&
	       reach(s, clusters_in_use(s), s->me);
	for (uint32_t i = 0; good && i < clusters_in_use(s); i++) {
		good = check_cluster(s, i);
		used += (uint32_t)__builtin_popcountll(s->taken[i] & ~never(s, i));
	}
	/* S5, as far as a look costs nothing: the summaries end and the next cluster is clean. */
	if (good && clusters_in_use(s) < clusters)
		good = s->taken[clusters_in_use(s)] == 0 &&
		       summary_next(&s->vacant, clusters_in_use(s)) == SUMMARY_NONE &&
		       summary_next(&s->empty, clusters_in_use(s)) == SUMMARY_NONE;
	good = good && used == c->used;
	release(s);
	return good;
}
