/* SPDX-License-Identifier: MIT */
/*
 * pager/policy.c - the replacement policies by name, and what must hold of the
 * lists of any of them. The policies themselves are policy_NAME.c.
 */
#include "pager/policy.h"
#include "pager/policy_list.h"

#include <string.h>

static const struct policy_ops *const policies[] = { &policy_clock, &policy_fifo, &policy_lru };

const struct policy_ops *policy_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LENGTH(policies); i++)
		if (strcmp(policies[i]->name, name) == 0)
			return policies[i];
	return NULL;
}

const char *policy_names(void)
{
	return "clock, fifo, lru";
}

void policy_init(struct policy *p, const struct policy_ops *ops, struct policy_node *nodes)
{
	p->ops = ops;
	p->nodes = nodes;
	policy_list_init(p);
	if (ops->init)
		ops->init(p);
}

bool policy_contains(const struct policy *p, uint32_t frame)
{
	return policy_list_of(p, frame) >= 0;
}

/*
 * A ring walked by next from its head comes back to the head after exactly
 * count steps; each node's prev is the one before, so no node is met twice;
 * each node names this list, so none is in another list too.
 */
static bool list_check(const struct policy *p, int list)
{
	uint32_t head = p->head[list], frame = head, next;

	if (p->count[list] == 0 || head == FRAME_NONE)
		return p->count[list] == 0 && head == FRAME_NONE;
	for (uint32_t n = 0; n < p->count[list]; n++) {
		if (n > 0 && frame == head)
			return false;
		if (policy_list_of(p, frame) != list)
			return false;
		next = p->nodes[frame].next;
		if (next == FRAME_NONE || p->nodes[next].prev != frame)
			return false;
		frame = next;
	}
	return frame == head;
}

bool policy_check(const struct policy *p)
{
	uint32_t sum = 0;

	for (int list = 0; list < POLICY_LISTS; list++) {
		if (!list_check(p, list))
			return false;
		sum += p->count[list];
	}
	return sum == p->resident;
}
