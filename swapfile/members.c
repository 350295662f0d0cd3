/* SPDX-License-Identifier: MIT */
/*
 * swapfile/members.c - the processes that share the slots; see slots.h, and slots.c for
 * the invariants.
 *
 * A member may be killed anywhere, with the lock in hand too. What it held is in its own
 * bits and no concern of its any more; of the others' bits, which nobody but
 * they change, all the rest is made anew (recover).
 */
#include "swapfile/members.h"

#include "base/base.h"

#include <errno.h>
#include <string.h>

/* ---------------------------------------------------------------- marking */

void slots_summarise(struct slots *s, uint32_t cluster)
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

uint64_t slots_never(const struct slots *s, uint32_t cluster)
{
	uint32_t first = cluster * SLOTS_CLUSTER;
	uint64_t mask = cluster == 0 ? 1 : 0;

	if (s->max - first < SLOTS_CLUSTER)
		mask |= ~UINT64_C(0) << (s->max - first);
	return mask;
}

void slots_add_holder(struct slots *s, uint32_t cluster, uint64_t mask)
{
	uint16_t *holders = &s->holders[cluster * SLOTS_CLUSTER];

	if (mask == ~UINT64_C(0))
		for (unsigned i = 0; i < SLOTS_CLUSTER; i++)
			holders[i]++;
	else
		for (; mask; mask &= mask - 1)
			holders[__builtin_ctzll(mask)]++;
}

void slots_drop_holder(struct slots *s, uint32_t cluster, uint64_t mask)
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
	slots_summarise(s, cluster);
	s->control->used -= (uint32_t)__builtin_popcountll(freed);
}

/* ---------------------------------------------------------------- members */

/* What a cluster's slots are by what members hold of them. => holds .lock */
static void recount(struct slots *s, uint32_t cluster)
{
	uint64_t held = 0;

	memset(&s->holders[cluster * SLOTS_CLUSTER], 0, SLOTS_CLUSTER * sizeof *s->holders);
	for (uint32_t i = 0; i < s->members_max; i++)
		if (s->control->is_member[i]) {
			held |= slots_held_by(s, i)[cluster];
			slots_add_holder(s, cluster, slots_held_by(s, i)[cluster]);
		}
	s->taken[cluster] = held | slots_never(s, cluster);
	s->control->used += (uint32_t)__builtin_popcountll(held);
	slots_summarise(s, cluster);
}

/* Who had the lock has gone, in the middle of anything. => holds .lock */
static void recover(struct slots *s)
{
	uint32_t clusters = slots_clusters(s), members = 0;

	for (uint32_t i = 0; i < s->members_max; i++) {
		if (!s->control->is_member[i])
			continue;
		members++;
		/* Without memory for a look at them nothing can be given out, nor freed. */
		if (!slots_reach(s, clusters, i))
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

static enum slots_presence presence(const struct slots *s, uint32_t member)
{
	return s->presence ? s->presence(s->arg, member) : SLOTS_UNKNOWN;
}

/* A process does not see its own presence. */
static bool is_gone(void *slots, uint32_t member)
{
	const struct slots *s = slots;

	return member != s->me && presence(s, member) == SLOTS_GONE;
}

void slots_acquire(struct slots *s)
{
	if (unlikely(shared_lock_acquire(&s->control->lock, s->me, is_gone, s)))
		recover(s);
}

void slots_release(struct slots *s)
{
	shared_lock_release(&s->control->lock);
}

void slots_set_witness(struct slots *s, enum slots_presence (*witness)(void *, uint32_t), void *arg)
{
	s->presence = witness;
	s->arg = arg;
}

/* => holds .lock; false: there is no memory for a look at what it held: another time */
static bool dismiss(struct slots *s, uint32_t member)
{
	uint32_t clusters = slots_clusters(s);

	if (!slots_reach(s, clusters, member))
		return false;
	/* It may have been lengthening the file, which the next may do now. First: its number is taken still. */
	shared_lock_forsake(&s->control->grow_lock, member);
	for (uint32_t i = 0; i < clusters; i++) {
		uint64_t mask = slots_held_by(s, member)[i];

		if (!mask)
			continue;
		slots_held_by(s, member)[i] = 0;
		slots_drop_holder(s, i, mask);
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

	slots_acquire(s);
	some = reap(s);
	slots_release(s);
	return some;
}

/* => holds .lock */
static int admit(struct slots *s, int (*claim)(void *arg, uint32_t member), void *arg,
                 uint32_t *member)
{
	uint32_t clusters = slots_clusters(s), m = 0;
	int error;

	while (m < s->members_max && (s->control->is_member[m] || presence(s, m) == SLOTS_THERE))
		m++;
	if (m == s->members_max)
		return -ENFILE;
	/* Another process may have extended them since this one looked. */
	if (!slots_reach(s, clusters, s->me) || !slots_reach(s, clusters, m))
		return -ENOMEM;
	error = claim ? claim(arg, m) : 0;
	if (error)
		return error;
	memcpy(slots_held_by(s, m), slots_held_by(s, s->me), clusters * sizeof(uint64_t));
	for (uint32_t i = 0; i < clusters; i++)
		slots_add_holder(s, i, slots_held_by(s, m)[i]);
	s->control->is_member[m] = true;
	s->control->members++;
	atomic_fetch_add(&s->control->generation[m], 1);
	*member = m;
	return 0;
}

int slots_fork(struct slots *s, int (*claim)(void *arg, uint32_t member), void *arg,
               uint32_t *member)
{
	int error;

	slots_acquire(s);
	reap(s);
	error = admit(s, claim, arg, member);
	slots_release(s);
	return error;
}

void slots_become(struct slots *s, uint32_t member)
{
	s->parent = s->me;
	s->parent_generation = s->generation;
	s->me = member;
	s->generation = atomic_load(&s->control->generation[member]);
}

/* Its number may be another's by now, who is there. */
bool slots_parent_is_gone(const struct slots *s)
{
	return atomic_load(&s->control->generation[s->parent]) != s->parent_generation ||
	       presence(s, s->parent) == SLOTS_GONE;
}

void slots_disown(struct slots *s, uint32_t member)
{
	slots_acquire(s);
	dismiss(s, member);
	slots_release(s);
}

bool slots_leave(struct slots *s)
{
	bool last;

	slots_acquire(s);
	reap(s);
	last = s->control->members == 1;
	dismiss(s, s->me);
	slots_release(s);
	return last;
}

/* ---------------------------------------------------------------- checking */

/* S1, S2, S6 of a cluster. => holds .lock */
static bool check_cluster(struct slots *s, uint32_t cluster)
{
	uint64_t held = 0, mine = 0;
	unsigned holders[SLOTS_CLUSTER] = { 0 };

	for (uint32_t m = 0; m < s->members_max; m++) {
		if (!s->control->is_member[m])
			continue;
		if (!slots_reach(s, slots_clusters(s), m))
			return false;
		held |= slots_held_by(s, m)[cluster];
		for (unsigned j = 0; j < SLOTS_CLUSTER; j++)
			holders[j] += slots_held_by(s, m)[cluster] >> j & 1;
	}
	for (unsigned j = 0; j < SLOTS_CLUSTER; j++) {
		if (s->references[cluster * SLOTS_CLUSTER + j])
			mine |= bits(j, 1);
		if (s->holders[cluster * SLOTS_CLUSTER + j] != holders[j])
			return false;
	}
	return mine == slots_held_by(s, s->me)[cluster] && !(held & slots_never(s, cluster)) &&
	       s->taken[cluster] == (held | slots_never(s, cluster)) &&
	       summary_has(&s->vacant, cluster) == (s->taken[cluster] != ~UINT64_C(0)) &&
	       summary_has(&s->empty, cluster) == (s->taken[cluster] == 0);
}

bool slots_check(struct slots *s)
{
	struct slots_control *c = s->control;
	uint32_t clusters = slots_clusters_of(s->max), used = 0;
	bool good;

	slots_acquire(s);
	good = c->extent % SLOTS_CLUSTER == 0 && MIN(c->extent, s->max) <= c->backed &&
	       c->backed <= s->max && summary_check(&s->vacant) && summary_check(&s->empty) &&
	       slots_reach(s, slots_clusters(s), s->me);
	for (uint32_t i = 0; good && i < slots_clusters(s); i++) {
		good = check_cluster(s, i);
		used += (uint32_t)__builtin_popcountll(s->taken[i] & ~slots_never(s, i));
	}
	/* S5, as far as a look costs nothing: the summaries end and the next cluster is clean. */
	if (good && slots_clusters(s) < clusters)
		good = s->taken[slots_clusters(s)] == 0 &&
		       summary_next(&s->vacant, slots_clusters(s)) == SUMMARY_NONE &&
		       summary_next(&s->empty, slots_clusters(s)) == SUMMARY_NONE;
	good = good && used == c->used;
	slots_release(s);
	return good;
}

/* ---------------------------------------------------------------- growing */

void slots_grow_begin(struct slots *s)
{
	/* What its holder has left half done is a file that is longer than is known. */
	shared_lock_acquire(&s->control->grow_lock, s->me, is_gone, s);
}

void slots_grow_end(struct slots *s)
{
	shared_lock_release(&s->control->grow_lock);
}
