/* SPDX-License-Identifier: MIT */
/*
 * base/lock.h - a futex mutex of four bytes, with a rank.
 *
 * Locks are taken in rising rank; debug builds check it. No lock is held while
 * managed memory is touched, so a fault never finds its own thread holding
 * one; public calls block signals while they hold one (vm/public.c), so a
 * signal handler that faults doesn't either.
 *
 * A lock in memory that several processes share (after fork) says who holds it, for a
 * process may be killed with it in hand: who waits for long asks whether that one lives.
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
};

#define LOCK_INIT(r)                   \
	{                              \
		.word = 0, .rank = (r) \
	}

void lock_init(struct lock *l, enum lock_rank rank);
void lock_acquire(struct lock *l);
bool lock_try(struct lock *l);
void lock_release(struct lock *l);
/* For assertions: debug builds know whether this thread holds a lock of that rank. */
bool lock_held(const struct lock *l);

/* In memory shared between processes, which are known by number. */
struct shared_lock {
	/*
	 * 0 free; the holder's number + 1, a turn, SHARED_LOCK_WAITERS. By the turn one who takes it
	 * from a holder that has gone does not take it from another of the same number.
	 */
	_Atomic uint32_t word;
	_Atomic uint32_t turns;
	uint8_t rank;
};

#define SHARED_LOCK_HOLDERS 511u /* numbers are less */
#define SHARED_LOCK_WAITERS (UINT32_C(1) << 31)

void shared_lock_init(struct shared_lock *l, enum lock_rank rank);
/*
 * me: this process's number. is_gone: asked of the holder's, when that takes long.
 * => true: the holder has gone with the lock in hand. It is ours, and what it guards may be
 *    half done
 */
bool shared_lock_acquire(struct shared_lock *l, uint32_t me, bool (*is_gone)(void *, uint32_t),
                         void *arg);
void shared_lock_release(struct shared_lock *l);
/*
 * Somebody has found out that this holder is gone, if it was one, and is about to give its number to
 * another, of whom it would be believed that he has the lock.
 */
void shared_lock_forsake(struct shared_lock *l, uint32_t gone);

/* Sleep while *word == value, at most timeout_ns (0: for ever). => false: timed out */
bool futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns, bool shared);
void futex_wake(_Atomic uint32_t *word, int count, bool shared);

#endif
