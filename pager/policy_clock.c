/* SPDX-License-Identifier: MIT */
/*
 * pager/policy_clock.c - clock, or second chance: frames stand in a circle
 * round which a hand goes. A frame whose reference bit is set has it cleared
 * and is passed; one whose bit is clear is taken.
 *
 * Source: F. J. Corbató, "A Paging Experiment with the Multics System", MIT
 * Project MAC, 1968. Where no hardware reference bit can be read it is set by
 * software, when a page that was unmapped to be sampled is touched again: O.
 * Babaoglu and W. Joy, "Converting a Swap-Based System to do Paging in an
 * Architecture Lacking Page-Referenced Bits", SOSP 1981.
 *
 * The circle is a ring whose head is the frame under the hand: the hand moves
 * by moving the head. A new frame stands just behind the hand, the last to be
 * met. It enters with its bit clear, for the touch that brought it in is all
 * that is known of it and its place gives it a full round; a page that was
 * rescued or came back soon after its eviction has shown that a round is too
 * short for it, and enters with the bit set.
 *
 * A frame passed by the hand is where a new one would be, so its age starts
 * again: is_cold asks for a clear bit and a place in the half of the circle
 * that the hand meets first.
 *
 * Costs a page: one link, one unlink, a bit for a reference, and a step of the
 * hand for each time that its bit was set.
 */
#include "pager/policy.h"
#include "pager/policy_list.h"

#define RING 0 /* head: under the hand */

static void clock_insert(struct policy *p, uint32_t frame, enum policy_entry how)
{
	bool wanted = how == POLICY_RESCUED || how == POLICY_REFAULTED;

	p->inserted++;
	policy_list_add_tail(p, RING, frame, wanted ? POLICY_REFERENCED : 0);
}

static void clock_reference(struct policy *p, uint32_t frame)
{
	struct policy_node *n = &p->nodes[frame];

	if (policy_contains(p, frame))
		n->bits = (uint8_t)((n->bits & ~POLICY_COLD) | POLICY_REFERENCED);
}

static void clock_cold(struct policy *p, uint32_t frame)
{
	if (policy_contains(p, frame))
		policy_list_to_head(p, RING, frame, POLICY_COLD);
}

static void clock_remove(struct policy *p, uint32_t frame)
{
	policy_list_remove(p, frame);
}

/* Ends: each step without a victim clears a bit, so a second round finds none set. */
static uint32_t clock_victim(struct policy *p)
{
	struct policy_node *n;

	while (p->head[RING] != FRAME_NONE) {
		n = &p->nodes[p->head[RING]];
		if (!(n->bits & POLICY_REFERENCED))
			break;
		n->bits &= (uint8_t)~POLICY_REFERENCED;
		n->stamp = p->inserted & POLICY_STAMP_MASK;
		p->head[RING] = n->next;
	}
	return policy_list_pop(p, RING);
}

static bool clock_is_cold(const struct policy *p, uint32_t frame)
{
	unsigned bits = p->nodes[frame].bits;

	if (!policy_contains(p, frame) || (bits & POLICY_REFERENCED))
		return false;
	return (bits & POLICY_COLD) || policy_list_old(p, frame);
}

const struct policy_ops policy_clock = {
	.name = "clock",
	.insert = clock_insert,
	.reference = clock_reference,
	.cold = clock_cold,
	.remove = clock_remove,
	.victim = clock_victim,
	.is_cold = clock_is_cold,
};
