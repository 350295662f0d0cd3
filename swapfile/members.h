/* SPDX-License-Identifier: MIT */
/*
 * swapfile/members.h - inside slots.h: who holds which slot. For slots.c.
 *
 * All but slots_acquire and slots_clusters_of: the caller holds .lock, or nobody else is
 * there yet.
 */
#ifndef QUIRE_SWAPFILE_MEMBERS_H
#define QUIRE_SWAPFILE_MEMBERS_H

#include "swapfile/slots.h"

void slots_acquire(struct slots *s);
void slots_release(struct slots *s);

static inline uint32_t slots_clusters_of(uint32_t slots)
{
	return (slots + SLOTS_CLUSTER - 1) / SLOTS_CLUSTER;
}

/* Clusters ever in use. */
static inline uint32_t slots_clusters(const struct slots *s)
{
	return s->control->extent / SLOTS_CLUSTER;
}

/* A member's bits: a word for each cluster. */
static inline uint64_t *slots_held_by(const struct slots *s, uint32_t member)
{
	return s->held_arenas[member].base;
}

/*
 * slots.c: make the records of the clusters below count usable, and what a member holds
 * of them. => false: there is no memory for them
 */
bool slots_reach(struct slots *s, uint32_t count, uint32_t member);

/* Bring the summaries up to date with a cluster. */
void slots_summarise(struct slots *s, uint32_t cluster);
/* Slots of the cluster that may never be given out (S1). */
uint64_t slots_never(const struct slots *s, uint32_t cluster);
/* One more holds these slots of a cluster. */
void slots_add_holder(struct slots *s, uint32_t cluster, uint64_t mask);
/* One less. What nobody holds any more is free. */
void slots_drop_holder(struct slots *s, uint32_t cluster, uint64_t mask);

#endif
