/* SPDX-License-Identifier: MIT */
/*
 * vm/cow.h - copy-on-write: the newest snapshot of a region keeps what a page was
 * before it changes.
 *
 * A snapshot is a region record without addresses. Its entries are EMPTY at first: as
 * the next newer snapshot has the page, in the end as the region has it. A page of
 * which all of its snapshots say so is *shared*, and before it changes, its contents
 * are given to one of them, the *target*: the slot passes to it, or the standby
 * buffer, or the bytes are copied. So a page is copied at most once, however many
 * snapshots there are, and what is on the swap file is not even read.
 *
 * The gate: whoever makes a page of a region writable, or changes its contents, has
 * passed it (cow_enter ... cow_leave), asks within whether the page is shared, and
 * does not wait for memory, the disk or an entry there. Who makes a snapshot closes
 * it: those within leave, nobody enters, all pages are write-protected by one call,
 * and from when it is open again the pages are shared with the new snapshot.
 *
 * W   the caller holds the page's entry, inside the gate: nobody else changes whether
 *     the page is shared.
 */
#ifndef QUIRE_VM_COW_H
#define QUIRE_VM_COW_H

#include "swapfile/swapfile.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct quire_region;

/* Short. A thread may be inside the gates of several regions. Does not nest for one of them. */
void cow_enter(struct quire_region *r);
void cow_leave(struct quire_region *r);
/* Wait until nobody is inside, and keep others out. => snapshot lock */
void cow_close(struct quire_region *r);
void cow_open(struct quire_region *r);

/* => inside the gate; W */
bool cow_is_shared(struct quire_region *r, uint64_t page);

/* Does a snapshot say something of the page by itself? */
bool cow_has_own(const struct quire_region *snapshot, uint64_t page);

/*
 * Of the page, which is shared, the target keeps the contents from now on.
 * => inside the gate; W; cow_reserve succeeded for the page
 */
/* maybe: it becomes writable, but nobody has written to it yet, nor is about to */
void cow_keep_slot(struct quire_region *r, uint64_t page, slot_t slot,
                   bool maybe); /* with its reference */
void cow_keep_buffer(struct quire_region *r, uint64_t page, uint32_t buffer,
                     bool maybe); /* in standby, not claimed */
void cow_keep_zeros(struct quire_region *r, uint64_t page, bool maybe);
/* See that the target has room for the page's entry. => false: no memory */
bool cow_reserve(struct quire_region *r, uint64_t page);

/*
 * The page, which was the slot, is something else: the target keeps the slot, if the page is
 * shared, or its reference is dropped. (Where there is no memory for the entry, the page
 * stays shared: only what was discarded behind our back comes here without cow_reserve.)
 * => inside the gate; W
 */
void cow_drop_slot(struct quire_region *r, uint64_t page, slot_t slot, bool maybe);

/*
 * A page that was given to the target, whole, by a region that is closed, and stays after all: the region has it
 * again, and shares it. lost: the entry was LOST. Needs no memory, so cannot fail.
 * => snapshot lock; no entry is held
 */
void cow_take_back(struct quire_region *r, uint64_t page, uint64_t lost);

#endif
