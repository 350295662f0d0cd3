/* SPDX-License-Identifier: MIT */
/*
 * pager/policy_fifo.c - first in, first out: the frame that has been resident
 * longest goes, used or not.
 *
 * Source: L. A. Belady, "A study of replacement algorithms for a
 * virtual-storage computer", IBM Systems Journal 5(2), 1966; that more frames
 * can mean more faults: Belady, Nelson and Shedler, CACM 12(6), 1969. With a
 * standby list behind it, from which a page that was still in use is rescued
 * and enters anew, it is the segmented FIFO of R. Turner and H. Levy
 * (SIGMETRICS 1981), which comes near LRU without a reference bit.
 *
 * Costs a page: one link at insertion and one unlink at eviction; references
 * cost nothing. No bits but the advice.
 */
#include "pager/policy.h"
#include "pager/policy_list.h"

#define QUEUE 0 /* head: the oldest */

static void fifo_insert(struct policy *p, uint32_t frame, enum policy_entry how)
{
	(void)how;
	p->inserted++;
	policy_list_add_tail(p, QUEUE, frame, 0);
}

/* A frame in use is not one to let go beside a victim, but it keeps its turn. */
static void fifo_reference(struct policy *p, uint32_t frame)
{
	p->nodes[frame].bits &= (uint8_t)~POLICY_COLD;
}

static void fifo_cold(struct policy *p, uint32_t frame)
{
	if (policy_contains(p, frame))
		policy_list_to_head(p, QUEUE, frame, POLICY_COLD);
}

static void fifo_remove(struct policy *p, uint32_t frame)
{
	policy_list_remove(p, frame);
}

static uint32_t fifo_victim(struct policy *p)
{
	return policy_list_pop(p, QUEUE);
}

static bool fifo_is_cold(const struct policy *p, uint32_t frame)
{
	return policy_contains(p, frame) &&
	       ((p->nodes[frame].bits & POLICY_COLD) || policy_list_old(p, frame));
}

const struct policy_ops policy_fifo = {
	.name = "fifo",
	.insert = fifo_insert,
	.reference = fifo_reference,
	.cold = fifo_cold,
	.remove = fifo_remove,
	.victim = fifo_victim,
	.is_cold = fifo_is_cold,
};
