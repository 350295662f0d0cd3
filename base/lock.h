/* SPDX-License-Identifier: MIT */
/*
 * base/lock.h - a futex mutex of four bytes, with a rank.
 *
 * Locks are taken in rising rank; debug builds check it. No lock is held while
 * managed memory is touched, so a fault never finds its own thread holding
 * one; public calls block signals while they hold one (vm/public.c), so a
 * signal handler that faults doesn't either.
 *
 * The same words are used to wait for an event (futex_wait, futex_wake).
 */
#ifndef QUIRE_BASE_LOCK_H
#define QUIRE_BASE_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* The one ranked list. A thread that holds a lock takes only higher ones. */
enum lock_rank {
	RANK_NONE = 0,
	RANK_GUARD,     /* guard/trap: one thread starts it */
	RANK_SNAPSHOT,  /* vm/snapshot: one change of a pager's snapshots at a time */
	RANK_REGISTRY,  /* vm/registry: the table of regions of the process */
	RANK_PIN,       /* vm/pin: one change of pins or of the budget at a time */
	RANK_RECLAIM,   /* pager/reclaim: one thread evicts at a time */
	RANK_READ,      /* pager/readin: a read batch's queue */
	RANK_READAHEAD, /* a region's readahead state */
	RANK_LINEAGE,   /* vm/lineage: who inherits from whom; for a look at one page */
	RANK_POLICY,    /* the policy's lists */
	RANK_STAGE,     /* pager/stage: the cluster that is being filled */
	RANK_STANDBY,   /* the lists of clusters */
	RANK_ENGINE,    /* an engine's own */
	RANK_GROW,      /* swapfile: one thread lengthens the file */
	RANK_SLOTS,     /* swapfile: the slot allocator */
	RANK_IO,        /* swapfile: the lists of plain I/O */
	RANK_COUNT
};

struct lock {
	_Atomic uint32_t word; /* 0 free, 1 held, 2 held and waited for */
	uint8_t rank;
	uint8_t shared; /* between processes (after fork) */
};

#define LOCK_INIT(r)                                \
	{                                           \
		.word = 0, .rank = (r), .shared = 0 \
	}

void lock_init(struct lock *l, enum lock_rank rank);
void lock_init_shared(struct lock *l, enum lock_rank rank);
void lock_acquire(struct lock *l);
bool lock_try(struct lock *l);
void lock_release(struct lock *l);
/* For assertions: debug builds know whether this thread holds a lock of that rank. */
bool lock_held(const struct lock *l);

/* Sleep while *word == value, at most timeout_ns (0: for ever). => false: timed out */
bool futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns, bool shared);
void futex_wake(_Atomic uint32_t *word, int count, bool shared);

#endif
