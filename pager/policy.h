/* SPDX-License-Identifier: MIT */
/*
 * pager/policy.h - page replacement: which resident frame to give up.
 *
 * A policy sees frame numbers and events, nothing else: no OS, no lock, no
 * clock, no memory of its own. The pager calls it under one lock; a simulator
 * links the same files unchanged. Each policy is one file, policy_NAME.c;
 * policy.c finds and checks them; policy_list.h is the list they share.
 *
 * The events a user-space pager can see are few: it cannot read the hardware's
 * accessed bit, so a reference is known only when it faults - a page taken back
 * from standby (it was sampled by unmapping and was wanted), a first write to
 * a clean page.
 */
#ifndef QUIRE_PAGER_POLICY_H
#define QUIRE_PAGER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_NONE UINT32_MAX

/*
 * What a policy keeps for a frame. 12 bytes: this is most of a frame's cost.
 * All zeros: the frame is in no list (see policy_contains).
 */
struct policy_node {
	uint32_t prev, next; /* the policy's list */
	uint32_t stamp : 24; /* the policy's: its time when the frame was put where it is */
	uint32_t bits : 8;   /* the policy's: list number, reference bit, advice */
};

_Static_assert(sizeof(struct policy_node) == 12, "a policy node is 12 bytes");

enum policy_entry {
	POLICY_FAULTED,   /* touched: first touch or read from the store */
	POLICY_READAHEAD, /* mapped beside a touched page, not touched itself */
	POLICY_RESCUED,   /* touched while in standby: it was in use */
	POLICY_REFAULTED, /* read back soon after its eviction */
};

struct policy;

/* Every operation takes O(1), amortised over the events seen. */
struct policy_ops {
	const char *name;
	void (*init)(struct policy *p); /* after policy_init has emptied the lists; may be NULL */
	/* frame becomes resident. => it is in no list */
	void (*insert)(struct policy *p, uint32_t frame, enum policy_entry how);
	/* a reference to a frame was seen. => nothing happens to one in no list (pinned) */
	void (*reference)(struct policy *p, uint32_t frame);
	/* make frame the next victim (advice). => nothing happens to one in no list (pinned) */
	void (*cold)(struct policy *p, uint32_t frame);
	/* frame stops being resident, or is pinned. => it is in a list */
	void (*remove)(struct policy *p, uint32_t frame);
	/* choose a victim and take it out of the lists. => FRAME_NONE if there is none */
	uint32_t (*victim)(struct policy *p);
	/* would the policy let this frame go now, besides its victim (its neighbour in the address
	 * space)? A cheap guess that changes nothing. => false for a frame in no list */
	bool (*is_cold)(const struct policy *p, uint32_t frame);
};

#define POLICY_LISTS 2

/* One policy instance. Zeroed and nodes set by the owner; the rest is the policy's. */
struct policy {
	const struct policy_ops *ops;
	struct policy_node *nodes;   /* by frame number; zeroed before the first insert */
	uint32_t resident;           /* frames in the lists, == sum of count[] */
	uint32_t head[POLICY_LISTS]; /* circular: nodes[head].prev is the tail; FRAME_NONE: empty */
	uint32_t count[POLICY_LISTS];
	uint32_t inserted; /* counts insertions: the policy's time */
};

extern const struct policy_ops policy_clock, policy_fifo, policy_lru;

/* By name; NULL if unknown. policy_names: "clock, fifo, lru" for messages. */
const struct policy_ops *policy_find(const char *name);
const char *policy_names(void);

void policy_init(struct policy *p, const struct policy_ops *ops, struct policy_node *nodes);
/* Is the frame in a list, that is resident and not pinned? */
bool policy_contains(const struct policy *p, uint32_t frame);
/* Invariants of the lists, in time linear in the resident frames; for debug builds and tests. */
bool policy_check(const struct policy *p);

#endif
