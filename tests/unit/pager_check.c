/* SPDX-License-Identifier: MIT */
/* tests/unit/pager_check.c - see pager_check.h. */
#include "tests/unit/pager_check.h"

#include <stdio.h>
#include <sys/mman.h>

unsigned pager_broken(const char *what, unsigned long long a, unsigned long long b)
{
	printf("broken: %s (%llu and %llu)\n", what, a, b);
	return 1;
}

static bool holds_slot(uint32_t state)
{
	return state == BUFFER_CLEAN || state == BUFFER_WRITING || state == BUFFER_ABANDONED;
}

static unsigned check_buffers(struct pager *p, uint32_t c, uint64_t *standby, uint32_t *reading,
                              uint16_t *slots, uint32_t slot_count)
{
	struct cluster *cl = &p->clusters[c];
	unsigned broken = 0, busy = 0;

	for (unsigned i = 0; i < CLUSTER_PAGES; i++) {
		struct buffer *b = &cl->buffer[i];
		uint32_t state = atomic_load(&b->state);

		if (state == BUFFER_FREE)
			continue;
		busy++;
		*standby += state != BUFFER_READING && state != BUFFER_ABANDONED;
		*reading += state == BUFFER_READING;
		if (i >= cl->used)
			broken += pager_broken("a buffer holds a page but was not handed out",
			                       c * CLUSTER_PAGES + i, cl->used);
		if (!(atomic_load(&cl->populated) >> i & 1))
			broken += pager_broken("C1: a buffer in use without a credit",
			                       c * CLUSTER_PAGES + i, state);
		if (state == BUFFER_DIRTY && b->slot != SLOT_NONE)
			broken += pager_broken("W1: a dirty buffer with a slot", b->slot, 0);
		if (!holds_slot(state))
			continue;
		if (b->slot == SLOT_NONE || b->slot >= slot_count)
			broken += pager_broken("a clean or written buffer without a slot",
			                       c * CLUSTER_PAGES + i, b->slot);
		else
			slots[b->slot]++;
	}
	if (atomic_load(&cl->refs) != busy)
		broken += pager_broken("C2: references of a cluster", atomic_load(&cl->refs), busy);
	if (busy && (cl->list == CLUSTERS_EMPTY || cl->list == CLUSTERS_WARM))
		broken += pager_broken("a cluster in use is in a free list", c, cl->list);
	if (!busy && cl->list != (atomic_load(&cl->populated) ? CLUSTERS_WARM : CLUSTERS_EMPTY))
		broken += pager_broken("a free cluster is in the wrong list", c, cl->list);
	return broken;
}

/* A buffer that has memory has a credit: the kernel's word for it. */
static unsigned check_memory(struct pager *p, uint32_t c)
{
	unsigned char present[CLUSTER_PAGES];
	unsigned broken = 0;

	if (mincore(buffer_address(p, c * CLUSTER_PAGES), CLUSTER_PAGES * PAGE_BYTES, present) != 0)
		return pager_broken("mincore failed", c, 0);
	for (unsigned i = 0; i < CLUSTER_PAGES; i++)
		if ((present[i] & 1) && !(atomic_load(&p->clusters[c].populated) >> i & 1))
			broken += pager_broken("C1: a buffer has memory without a credit",
			                       c * CLUSTER_PAGES + i, 0);
	return broken;
}

static unsigned check_lists(struct pager *p)
{
	unsigned broken = 0;

	for (int list = CLUSTERS_NOWHERE + 1; list < CLUSTERS_LISTS; list++) {
		uint32_t before = CLUSTER_NONE, n = 0;

		for (uint32_t c = p->head[list]; c != CLUSTER_NONE && n <= p->cluster_count;
		     c = p->clusters[c].next, n++) {
			if (p->clusters[c].list != list || p->clusters[c].prev != before)
				broken += pager_broken("a list of clusters is torn", (unsigned)list,
				                       c);
			before = c;
		}
		if (n != p->length[list] || before != p->tail[list])
			broken += pager_broken("length or tail of a list of clusters", n,
			                       p->length[list]);
	}
	return broken;
}

static unsigned check_frames(struct pager *p, uint64_t mapped)
{
	unsigned broken = 0;
	uint32_t listed = 0, free = 0;

	for (uint32_t f = 0; f < p->frame_count; f++) {
		listed += p->frames[f].listed;
		if (p->frames[f].listed != policy_contains(&p->policy, f))
			broken += pager_broken("F1: frame.listed and the policy disagree", f,
			                       p->frames[f].listed);
	}
	if (listed != p->policy.resident || !policy_check(&p->policy))
		broken += pager_broken("the policy's lists", listed, p->policy.resident);
	for (uint32_t f = p->frame_free; f != FRAME_NONE && free <= p->frame_count; free++)
		f = p->policy.nodes[f].next;
	if (free + mapped != p->frame_count)
		broken += pager_broken("F2: frames free and mapped are not all there are",
		                       free + mapped, p->frame_count);
	return broken;
}

static unsigned check_slots(struct pager *p, const uint16_t *slots, uint32_t slot_count)
{
	unsigned broken = 0;
	uint64_t used = 0;

	for (uint32_t s = 0; s < slot_count; s++) {
		used += slots[s] != 0;
		if (s && slots[s] != swapfile_references(p->swap, s))
			broken += pager_broken("references of a slot", s * 1000ull + slots[s],
			                       s * 1000ull + swapfile_references(p->swap, s));
	}
	if (used != swapfile_used(p->swap))
		broken += pager_broken("slots in use", used, swapfile_used(p->swap));
	if (!swapfile_check(p->swap))
		broken += pager_broken("the slot allocator", 0, 0);
	return broken;
}

unsigned pager_check(struct pager *p, uint64_t mapped, uint16_t *slots, uint32_t slot_count)
{
	uint64_t populated = 0, standby = 0, budget = atomic_load(&p->budget);
	uint32_t reading = 0;
	int64_t held;
	unsigned broken = 0;

	for (uint32_t c = 0; c < p->cluster_count; c++) {
		populated += (unsigned)__builtin_popcountll(atomic_load(&p->clusters[c].populated));
		broken += check_buffers(p, c, &standby, &reading, slots, slot_count);
		broken += check_memory(p, c);
	}
	held = (int64_t)(mapped + populated);
	if (populated != atomic_load(&p->populated))
		broken += pager_broken("the gauge of populated buffers", populated,
		                       atomic_load(&p->populated));
	if (standby != atomic_load(&p->standby))
		broken += pager_broken("the gauge of standby", standby, atomic_load(&p->standby));
	if (reading != atomic_load(&p->reading))
		broken += pager_broken("the count of pages that are being read", reading,
		                       atomic_load(&p->reading));
	if (atomic_load(&p->credits) + held != (int64_t)budget)
		broken += pager_broken("P1: credits free and held are not the budget",
		                       (unsigned long long)(atomic_load(&p->credits) + held),
		                       budget);
	return broken + check_lists(p) + check_frames(p, mapped) +
	       check_slots(p, slots, slot_count);
}
