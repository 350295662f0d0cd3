/* SPDX-License-Identifier: MIT */
/*
 * vm/lineage.h - whose contents a page has that has none of its own.
 *
 *   snapshot -> newer snapshot -> ... -> newest snapshot -> region
 *        ^                                                    |
 *        +-- clone, a region <- its own snapshots             +-> a snapshot, if it is a clone
 *
 * Each arrow is `parent`: an EMPTY entry means: as the parent has it; with no parent,
 * zeros. Of a snapshot that was loaded it means: as its image says; if that is an increment and
 * says nothing, as the parent, its base, has it. A clone's page is made its own by its first touch, whatever that is: it gets a
 * reference to the slot, or a copy of bytes that are in memory only, in standby.
 *
 * L1  arrows, older, newest, heirs: lineage lock. They change only by calls that hold
 *     the snapshot lock.
 * L2  what a page inherits does not change while the entry of what has it is held: who
 *     changes a region's page holds its entry (W of cow.h), who moves a snapshot's page to
 *     an older one has the lineage lock. Until a region's entry is held one of the
 *     snapshots may be given the page: so they are asked once more then.
 * L3  with the lineage lock held nobody waits, nor touches a page: what is busy is waited
 *     for, and what is in memory is read, without it.
 */
#ifndef QUIRE_VM_LINEAGE_H
#define QUIRE_VM_LINEAGE_H

#include "swapfile/swapfile.h"

#include <stdbool.h>
#include <stdint.h>

struct quire_region;

struct content {
	enum { CONTENT_ZEROS, CONTENT_SLOT, CONTENT_BYTES } kind;
	slot_t slot; /* with a reference of the caller's: also of bytes, if a slot has them; or SLOT_NONE */
};

/*
 * What page is, as r has it or inherits it.
 * => bytes: where to put them if they are in memory; NULL: -ENOBUFS then
 * => wait: false: -EAGAIN when something on the way is busy. The caller holds no entry
 *    on the way; nor, if it waits, one that is MAPPED
 * => 0, or -errno
 */
int lineage_content(struct quire_region *r, uint64_t page, char *bytes, bool wait,
                    struct content *out);

/*
 * Of the leaf of page: is it sure that a has what b has of each? Yes if a inherits from b (b NULL: zeros),
 * and nobody on the way has anything of its own.
 */
bool lineage_leaf_is_same(struct quire_region *a, const struct quire_region *b, uint64_t page);

/* A page of a clone that it has from its parent still becomes its own. No entry is held. => 0 or -errno */
int lineage_inherit(struct quire_region *r, uint64_t page);

/*
 * The entry of content that becomes r's own, and what it holds. buffer: where its bytes are, from
 * stage_get; or BUFFER_NONE, unused
 */
uint64_t lineage_own(struct quire_region *r, uint64_t page, const struct content *c,
                     uint32_t buffer);

/* It will not be: what lineage_own gave goes back. */
void lineage_disown(struct quire_region *r, uint64_t own);

/* snapshot.c: a region that is closed is about to go. => 0 or -errno */
int snapshots_take_over(struct quire_region *r);
/* And a snapshot's record, of which nobody knows any more. */
void snapshot_forget(struct quire_region *s);

#endif
