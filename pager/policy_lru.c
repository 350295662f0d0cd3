/* SPDX-License-Identifier: MIT */
/*
 * pager/policy_lru.c - an approximation of least recently used, by two lists:
 * frames seen in use more than once are active and safe; victims are taken
 * from the others, so that a scan does not push out the working set.
 *
 * Source: the active and inactive queues of Mach (R. Draves, "Page Replacement
 * and Reference Bit Emulation in Mach", USENIX Mach Symposium 1991), with the
 * rule of the segmented LRU (R. Karedla, J. S. Love and B. G. Wherry, "Caching
 * Strategies to Improve Disk System Performance", IEEE Computer 27(3), 1994):
 * a page enters the probationary list, its next use promotes it, and the
 * oldest of the protected list fall back to probation.
 *
 *     FAULTED, READAHEAD               RESCUED, REFAULTED
 *              |                                |
 *              v          reference             v
 *          inactive --------------------->   active  <--- reference: to the tail
 *          |      ^                             |
 *   victim |      +-----------------------------+
 *          v         active over half: the oldest
 *
 * A page that readahead brought is not in use until its first reference, and
 * only the second promotes it. A promoted page is the youngest active one; the
 * oldest is demoted to the young end of inactive and has a second chance there.
 *
 * Active is brought to at most half of the resident frames when a frame enters
 * it and before a victim is chosen; not after one is taken, or making room for
 * a scan page by page would wear the active list down. So the victim always
 * comes from inactive, which is empty then only when nothing is resident.
 *
 * Costs a page: one link, one unlink, a relink for each reference seen and at
 * most one more for each promotion or eviction.
 */
#include "pager/policy.h"
#include "pager/policy_list.h"

#define INACTIVE 0 /* head: the next victim */
#define ACTIVE 1   /* head: the next to be demoted */

/* Amortised: a frame is demoted once for a promotion. */
static void lru_balance(struct policy *p)
{
	while (p->count[ACTIVE] > p->resident / 2)
		policy_list_to_tail(p, INACTIVE, p->head[ACTIVE], 0);
}

static void lru_insert(struct policy *p, uint32_t frame, enum policy_entry how)
{
	p->inserted++;
	switch (how) {
	case POLICY_FAULTED:
		policy_list_add_tail(p, INACTIVE, frame, 0);
		break;
	case POLICY_READAHEAD:
		policy_list_add_tail(p, INACTIVE, frame, POLICY_UNTOUCHED);
		break;
	case POLICY_RESCUED:
	case POLICY_REFAULTED:
		policy_list_add_tail(p, ACTIVE, frame, 0);
		lru_balance(p);
		break;
	}
}

static void lru_reference(struct policy *p, uint32_t frame)
{
	struct policy_node *n = &p->nodes[frame];

	if (!policy_contains(p, frame))
		return;
	if (n->bits & POLICY_UNTOUCHED) {
		n->bits &= (uint8_t) ~(POLICY_UNTOUCHED | POLICY_COLD);
		return;
	}
	policy_list_to_tail(p, ACTIVE, frame, 0);
	lru_balance(p);
}

static void lru_cold(struct policy *p, uint32_t frame)
{
	unsigned untouched = p->nodes[frame].bits & POLICY_UNTOUCHED;

	if (policy_contains(p, frame))
		policy_list_to_head(p, INACTIVE, frame, untouched | POLICY_COLD);
}

static void lru_remove(struct policy *p, uint32_t frame)
{
	policy_list_remove(p, frame);
}

static uint32_t lru_victim(struct policy *p)
{
	lru_balance(p);
	return policy_list_pop(p, INACTIVE);
}

static bool lru_is_cold(const struct policy *p, uint32_t frame)
{
	return policy_list_of(p, frame) == INACTIVE &&
	       ((p->nodes[frame].bits & POLICY_COLD) || policy_list_old(p, frame));
}

const struct policy_ops policy_lru = {
	.name = "lru",
	.insert = lru_insert,
	.reference = lru_reference,
	.cold = lru_cold,
	.remove = lru_remove,
	.victim = lru_victim,
	.is_cold = lru_is_cold,
};
