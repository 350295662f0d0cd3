/* SPDX-License-Identifier: MIT */
/*
 * pager/policy_list.h - the intrusive lists that the replacement policies are
 * made of. For pager/policy*.c only.
 *
 * A list is a ring of nodes linked by frame number, entered at its head; the
 * head's prev is the tail. A ring makes the sweep of a clock hand a move of the
 * head, with no node written. A node knows which list it is in, so that a frame
 * in two lists, or taken out of one it is not in, is noticed at once.
 *
 * Ages. The policy's time is the number of insertions. A node is stamped with
 * the time at which it was put where it is, modulo 2^24; ages are compared
 * within half of that range, so that the guess made of them (policy_list_old)
 * errs to one side only: an age that has wrapped looks young.
 */
#ifndef QUIRE_PAGER_POLICY_LIST_H
#define QUIRE_PAGER_POLICY_LIST_H

#include "base/base.h"
#include "pager/policy.h"

/* policy_node.bits */
#define POLICY_LIST_MASK 0x07u  /* 1 + the list's number; 0: in none */
#define POLICY_REFERENCED 0x08u /* clock: the reference bit */
#define POLICY_UNTOUCHED 0x10u  /* lru: mapped beside a touched page, no reference seen yet */
#define POLICY_COLD 0x20u       /* advice: the next to go */

_Static_assert(POLICY_LISTS <= POLICY_LIST_MASK, "list numbers fit their bits");

#define POLICY_STAMP_MASK 0xffffffu
#define POLICY_AGE_MAX (POLICY_STAMP_MASK / 2)

/* The list that a frame is in, or -1. */
static inline int policy_list_of(const struct policy *p, uint32_t frame)
{
	return (int)(p->nodes[frame].bits & POLICY_LIST_MASK) - 1;
}

static inline void policy_list_init(struct policy *p)
{
	p->resident = 0;
	p->inserted = 0;
	for (int list = 0; list < POLICY_LISTS; list++) {
		p->head[list] = FRAME_NONE;
		p->count[list] = 0;
	}
}

/* Link a frame as the new tail, its bits set to bits. => it is in no list */
static inline void policy_list_add_tail(struct policy *p, int list, uint32_t frame, unsigned bits)
{
	struct policy_node *nodes = p->nodes, *n = &nodes[frame];
	uint32_t head = p->head[list];

	ASSERT(policy_list_of(p, frame) < 0);
	if (head == FRAME_NONE) {
		n->prev = n->next = frame;
		p->head[list] = frame;
	} else {
		n->prev = nodes[head].prev;
		n->next = head;
		nodes[n->prev].next = frame;
		nodes[head].prev = frame;
	}
	n->bits = (uint8_t)(bits | (unsigned)(list + 1));
	n->stamp = p->inserted & POLICY_STAMP_MASK;
	p->count[list]++;
	p->resident++;
}

/* The same as the new head: in a ring, the tail seen one step earlier. */
static inline void policy_list_add_head(struct policy *p, int list, uint32_t frame, unsigned bits)
{
	policy_list_add_tail(p, list, frame, bits);
	p->head[list] = frame;
}

/* Unlink a frame. => it is in a list, and then in none, its bits clear */
static inline void policy_list_remove(struct policy *p, uint32_t frame)
{
	struct policy_node *nodes = p->nodes, *n = &nodes[frame];
	int list = policy_list_of(p, frame);

	ASSERT(list >= 0);
	if (n->next == frame) {
		p->head[list] = FRAME_NONE;
	} else {
		nodes[n->prev].next = n->next;
		nodes[n->next].prev = n->prev;
		if (p->head[list] == frame)
			p->head[list] = n->next;
	}
	n->bits = 0;
	p->count[list]--;
	p->resident--;
}

static inline void policy_list_to_head(struct policy *p, int list, uint32_t frame, unsigned bits)
{
	policy_list_remove(p, frame);
	policy_list_add_head(p, list, frame, bits);
}

static inline void policy_list_to_tail(struct policy *p, int list, uint32_t frame, unsigned bits)
{
	policy_list_remove(p, frame);
	policy_list_add_tail(p, list, frame, bits);
}

/* Take the head out. => FRAME_NONE if the list is empty */
static inline uint32_t policy_list_pop(struct policy *p, int list)
{
	uint32_t frame = p->head[list];

	if (frame != FRAME_NONE)
		policy_list_remove(p, frame);
	return frame;
}

/*
 * Was the frame put where it is more insertions ago than half of its list is
 * long? Then it is about in the half that goes first. => it is in a list
 */
static inline bool policy_list_old(const struct policy *p, uint32_t frame)
{
	uint32_t age = (p->inserted - p->nodes[frame].stamp) & POLICY_STAMP_MASK;

	return age > MIN(p->count[policy_list_of(p, frame)] / 2, POLICY_AGE_MAX);
}

#endif
