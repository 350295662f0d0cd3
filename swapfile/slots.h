/* SPDX-License-Identifier: MIT */
/*
 * swapfile/slots.h - which slots are free, how many refer to each, and what
 * each holds (its checksum).
 *
 * A process and its children of fork(2) share the slots: they are its *members*, by
 * number. The references to a slot are each member's own, in its own memory; what is shared
 * is who holds a slot, that is, has any. So a fork copies a set of bits, whatever
 * there are of references, and of a member that was killed it is known what it held
 * (slots_reap). Each process makes the records usable as far as it knows slots
 * (arena_extend). Knows no file: the owner says how many slots have room on the disk
 * (slots_set_backed).
 */
#ifndef QUIRE_SWAPFILE_SLOTS_H
#define QUIRE_SWAPFILE_SLOTS_H

#include "base/arena.h"
#include "base/lock.h"
#include "swapfile/summary.h"
#include "swapfile/swapfile.h"

#include <stdatomic.h>

/*
 * Slots are grouped in clusters, one word of the bitmap each: the longest run
 * is a cluster, so an empty cluster serves every request.
 */
#define SLOTS_CLUSTER 64u
#define SLOTS_MAX ((uint64_t)1 << 28)
#define SLOTS_REFERENCES_MAX UINT16_MAX
/* Processes that can share them; where address space is limited, the fewer. */
#define SLOTS_MEMBERS 256u
#define SLOTS_MEMBERS_LEAST 8u

/* An answer of slots_alloc: it would rather have more slots backed first. */
#define SLOTS_GROW UINT32_MAX

_Static_assert(SWAP_RUN_MAX <= SLOTS_CLUSTER, "a run fits a cluster");
_Static_assert(SLOTS_MAX / SLOTS_CLUSTER <= SUMMARY_MAX, "a summary holds all clusters");

/*
 * Locks: (l) .lock; (a) atomic, any thread; (w) written under .lock, read
 * without; (c) constant after slots_open.
 */
struct slots_control {
	struct shared_lock lock;       /* RANK_SLOTS */
	struct shared_lock grow_lock;  /* RANK_GROW: one thread of one process lengthens the file */
	uint32_t cursor;               /* (l) where the last run ended */
	_Atomic uint32_t extent;       /* (w) slots ever in use */
	_Atomic uint32_t backed;       /* (w) slots with room on the disk */
	_Atomic uint32_t used;         /* (w) slots that are held */
	_Atomic uint32_t members;      /* (w) */
	bool is_member[SLOTS_MEMBERS]; /* (l) */
	/* (w) who has the number is the so manyth to have it */
	_Atomic uint32_t generation[SLOTS_MEMBERS];
};

/* Of a member's process. */
enum slots_presence { SLOTS_UNKNOWN, SLOTS_THERE, SLOTS_GONE };

struct slots {
	struct arena arena;                      /* (l) control, summaries and taken */
	struct arena holder_arena;               /* (l) */
	struct arena sum_arena;                  /* (l) */
	struct arena reference_arena;            /* (l) of this process */
	struct arena held_arena;                 /* (c) */
	struct arena held_arenas[SLOTS_MEMBERS]; /* (l) a part of it for each member */
	struct slots_control *control;           /* (c) */
	uint32_t max;                            /* (c) slots there may ever be */
	uint32_t me, members_max;                /* (c) */
	uint32_t generation;                     /* (c) of this member's number */
	uint32_t parent, parent_generation;      /* (c) who forked this process */
	enum slots_presence (*presence)(void *arg, uint32_t member);
	void *arg;
	uint64_t *taken;              /* (l) bit: not to be given out */
	struct summary vacant;        /* (l) clusters with a free slot */
	struct summary empty;         /* (l) clusters that are all free */
	uint16_t *holders;            /* (l) members that hold it */
	_Atomic uint32_t *sums;       /* (a) ordered by the content's own transfer */
	_Atomic uint16_t *references; /* (a) of this process */
};

/*
 * Room for max slots (at least 2, slot 0 counted), none backed.
 * => fewer if the address space has no room for so many records: see .max
 * => 0 or -ENOMEM
 */
int slots_open(struct slots *s, uint64_t max);
void slots_close(struct slots *s);
/* What is shared is out of reach from now on, of this process. */
void slots_forsake(struct slots *s);

/* ---------------------------------------------------------------- members */

/*
 * Who can say whether a member's process is there. A number whose process is there is not given
 * to another, though it may have left. Without one, and of whom he does not know, nobody is gone.
 */
void slots_set_witness(struct slots *s, enum slots_presence (*presence)(void *, uint32_t),
                       void *arg);
/*
 * A new member that holds what this one does: a child that is about to be forked, in which
 * slots_become makes it this process's. Nobody else uses s meanwhile.
 * claim: called before anybody can know of it: from its return on the witness says that it is there.
 * => its number in *member; -ENFILE: there are too many; -ENOMEM, or what claim says
 */
int slots_fork(struct slots *s, int (*claim)(void *arg, uint32_t member), void *arg,
               uint32_t *member);
void slots_become(struct slots *s, uint32_t member);
/* Has the parent of this process gone? false: that is not known. Async-signal-safe. */
bool slots_parent_is_gone(const struct slots *s);
/* It is not to be: what it holds is free. */
void slots_disown(struct slots *s, uint32_t member);
/* Take from members that have gone what they held. => there was one */
bool slots_reap(struct slots *s);
/* This process has no references any more. => it was the last member */
bool slots_leave(struct slots *s);

/*
 * Take up to want neighbouring free slots, one reference each.
 * => as swapfile_alloc; or, if may_grow, SLOTS_GROW with nothing taken: the
 *    file should grow. Then back more and ask again, or ask with may_grow false
 */
unsigned slots_alloc(struct slots *s, unsigned want, bool may_grow, slot_t *first);

/* Whose lock it is to lengthen the file, of all processes. Taken before .lock. */
void slots_grow_begin(struct slots *s);
void slots_grow_end(struct slots *s);
/* Slots below count have room on the disk. Never falls; at most .max. */
void slots_set_backed(struct slots *s, uint32_t count);

/* One more reference to a slot that has one. More than SLOTS_REFERENCES_MAX is fatal. */
void slots_ref(struct slots *s, slot_t slot);
/* One less, of count neighbours; a slot without one is free. */
void slots_unref(struct slots *s, slot_t first, unsigned count);
unsigned slots_references(const struct slots *s, slot_t slot);

/* Bytes of records that were ever touched. */
uint64_t slots_metadata(const struct slots *s);

/* Invariants S1 .. S6 of slots.c. No other thread may be dropping references. Walks the extent. */
bool slots_check(struct slots *s);

static inline uint32_t slots_sum(const struct slots *s, slot_t slot)
{
	return atomic_load_explicit(&s->sums[slot], memory_order_relaxed);
}

static inline void slots_set_sum(struct slots *s, slot_t slot, uint32_t sum)
{
	atomic_store_explicit(&s->sums[slot], sum, memory_order_relaxed);
}

#endif
