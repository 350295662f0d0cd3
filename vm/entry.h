/* SPDX-License-Identifier: MIT */
/*
 * vm/entry.h - a page's entry: one word, and the only ways in which it changes.
 *
 *            zero fill                     take
 *   EMPTY ------------> MAPPED(frame) ------------> STANDBY(buffer)
 *     ^  <------------    |  ^   ^ <----------------   |   ^
 *     |     discard,      |  |   |      rescue         |   | arrived
 *     |     take (zeros)  |  |   |                     |   |
 *     |                   |  |   +-- install           |   |
 *     |                   |  |       |          retire |   |
 *     +--- discard -------+--+----- SLOT(slot) <-------+   |
 *     (from every state)            |    ^  not arrived    |
 *                                   v    |                 |
 *                              READING(buffer) ------------+
 *
 *   zero fill, rescue, install, read   vm/fault.c
 *   take                               vm/evict.c (for the pager); a clean page may
 *                                      become a SLOT at once
 *   retire, arrived                    vm/owner.c (for the pager)
 *   discard                            vm/discard.c
 *
 * E1  Only the thread that set BUSY changes the rest of an entry, with one
 *     exception: WAITERS and FAULTS may be set by anyone. An entry that is READING is not
 *     BUSY, and only the reader that completes it changes it.
 * E2  The page is present in the address space only while its entry is MAPPED
 *     or BUSY. (The program may remove it behind our back with madvise; then
 *     its next touch finds MAPPED and gives zeros.)
 * E3  MAPPED with a frame whose slot is SLOT_NONE: dirty, may be writable.
 *     With a slot: write-protected, and equal to the slot.
 *
 * Waiters sleep on the low half of the word. A handler thread does not sleep:
 * it sets FAULTS and forgets the fault, and whoever ends the wait wakes the
 * faulting threads through the engine. To map a page wakes them, too: so a read
 * that has arrived takes the mark away before it maps the page (owner.c).
 */
#ifndef QUIRE_VM_ENTRY_H
#define QUIRE_VM_ENTRY_H

#include "base/base.h"

#include <stdatomic.h>

typedef _Atomic uint64_t entry_t;

enum entry_state {
	ENTRY_EMPTY = 0,   /* never touched, or discarded: zeros, or as the parent has it */
	ENTRY_MAPPED = 1,  /* payload: frame */
	ENTRY_STANDBY = 2, /* payload: buffer */
	ENTRY_READING = 3, /* payload: buffer */
	ENTRY_SLOT = 4,    /* payload: slot */
	ENTRY_GIVEN = 6,   /* of a region that is closed: its snapshots have it by now (cow.c) */
	ENTRY_ZERO = 5,    /* where others are inherited from: zeros of its own (lineage.c) */
};

#define ENTRY_STATE_MASK UINT64_C(7)
#define ENTRY_BUSY UINT64_C(8)
#define ENTRY_WAITERS UINT64_C(16) /* threads sleep until it is not busy */
#define ENTRY_LOST \
	UINT64_C(32) /* SLOT: it could not be read, accesses are refused; GIVEN: it was so */
#define ENTRY_FAULTS UINT64_C(64) /* accesses wait in the kernel: the engine wakes them */
#define ENTRY_MARKS (ENTRY_WAITERS | ENTRY_FAULTS)
#define ENTRY_MAYBE UINT64_C(256) /* a snapshot's: perhaps the page has not changed since */
#define ENTRY_STAMP_SHIFT 8       /* a region's SLOT: when it was evicted, 24 bits */
#define ENTRY_STAMP_MASK UINT64_C(0xffffff)

static inline uint64_t entry_make(enum entry_state state, uint32_t payload)
{
	return (uint64_t)payload << 32 | state;
}

static inline enum entry_state entry_state(uint64_t e)
{
	return (enum entry_state)(e & ENTRY_STATE_MASK);
}

static inline uint32_t entry_payload(uint64_t e)
{
	return (uint32_t)(e >> 32);
}

/* The half on which waiters sleep. */
static inline _Atomic uint32_t *entry_futex(entry_t *entry)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (_Atomic uint32_t *)(void *)entry;
#else
	return (_Atomic uint32_t *)(void *)entry + 1;
#endif
}

/* BUSY if it is e and not busy. => true: this thread holds it */
static inline bool entry_try(entry_t *entry, uint64_t e)
{
	return !(e & ENTRY_BUSY) && atomic_compare_exchange_strong(entry, &e, e | ENTRY_BUSY);
}

#endif
