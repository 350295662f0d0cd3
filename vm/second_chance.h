/* SPDX-License-Identifier: MIT */
/*
 * vm/second_chance.h - is it worth while to put a region's clean victims into
 * standby?
 *
 * Standby is a second chance (FIFO with second chance: Turner and Levy 1981): a
 * page that is touched there was in use, comes back without I/O and is left
 * alone for a while. To give it costs a copy of each victim, while a clean page
 * need only be unmapped. So it is asked of each region how much denser the
 * accesses to its pages in standby are than those to its pages on the swap file.
 * If they are not, the replacement policy knows nothing that
 * standby could tell it better, and the memory is as well used by pages that are
 * mapped. A sample of the batches of victims goes into standby all the same, from
 * which is learnt when that changes.
 */
#ifndef QUIRE_VM_SECOND_CHANCE_H
#define QUIRE_VM_SECOND_CHANCE_H

#include <stdbool.h>
#include <stdint.h>

struct quire;
struct quire_region;

/* Of a region; reclaim lock. */
struct second_chance {
	uint64_t evictions, rescues, major_faults; /* its counters at the last judgement */
	bool futile;                               /* the judgement */
};

/* A new batch of victims is gathered. => all of it goes into standby. Reclaim lock */
bool second_chance_sample(struct quire *q);
/* Are clean victims of this region to be unmapped without going into standby? Reclaim lock */
bool second_chance_futile(struct quire_region *r);

#endif
