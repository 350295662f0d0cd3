/* SPDX-License-Identifier: MIT */
/*
 * base/lock.c - the mutex of Drepper's "Futexes Are Tricky" (mutex2), a short
 * spin before the sleep, and the rank check of debug builds.
 */
#include "base/lock.h"

#include "base/base.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPINS 60

#if defined(QUIRE_DEBUG) && QUIRE_DEBUG
/* Bit r: this thread holds a lock of rank r. */
static SIGNAL_SAFE_TLS uint32_t held;

static void note_acquire(uint8_t rank, bool ordered)
{
	if (rank == RANK_NONE)
		return;
	if (ordered)
		ASSERT(held < (1u << rank));
	held |= 1u << rank;
}

static void note_release(uint8_t rank)
{
	held &= ~(rank == RANK_NONE ? 0 : 1u << rank);
}

bool lock_held(const struct lock *l)
{
	return l->rank == RANK_NONE || (held & (1u << l->rank));
}
#else
static void note_acquire(uint8_t rank, bool ordered)
{
	(void)rank;
	(void)ordered;
}

static void note_release(uint8_t rank)
{
	(void)rank;
}

bool lock_held(const struct lock *l)
{
	return atomic_load_explicit(&l->word, memory_order_relaxed) != 0;
}
#endif

void lock_init(struct lock *l, enum lock_rank rank)
{
	atomic_init(&l->word, 0);
	l->rank = (uint8_t)rank;
}

bool futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns, bool shared)
{
	struct timespec t = { .tv_sec = (time_t)(timeout_ns / 1000000000u),
		              .tv_nsec = (long)(timeout_ns % 1000000000u) };
	int saved = errno;
	long r = syscall(SYS_futex, word, shared ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE, value,
	                 timeout_ns ? &t : NULL, NULL, 0);
	bool timed_out = r < 0 && errno == ETIMEDOUT;

	errno = saved;
	return !timed_out;
}

void futex_wake(_Atomic uint32_t *word, int count, bool shared)
{
	int saved = errno;

	syscall(SYS_futex, word, shared ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
	errno = saved;
}

bool lock_try(struct lock *l)
{
	uint32_t free_word = 0;

	if (!atomic_compare_exchange_strong_explicit(&l->word, &free_word, 1, memory_order_acquire,
	                                             memory_order_relaxed))
		return false;
	note_acquire(l->rank, false);
	return true;
}

void lock_acquire(struct lock *l)
{
	for (int i = 0; i < SPINS; i++) {
		uint32_t word = 0;

		if (atomic_compare_exchange_weak_explicit(&l->word, &word, 1, memory_order_acquire,
		                                          memory_order_relaxed)) {
			note_acquire(l->rank, true);
			return;
		}
		cpu_relax();
	}
	while (atomic_exchange_explicit(&l->word, 2, memory_order_acquire) != 0)
		futex_wait(&l->word, 2, 0, false);
	note_acquire(l->rank, true);
}

void lock_release(struct lock *l)
{
	note_release(l->rank);
	if (atomic_exchange_explicit(&l->word, 0, memory_order_release) == 2)
		futex_wake(&l->word, 1, false);
}

/* ---------------------------------------------- between processes */

/* How long who waits believes that the holder lives. */
#define BELIEVE_NS UINT64_C(50000000)

void shared_lock_init(struct shared_lock *l, enum lock_rank rank)
{
	atomic_init(&l->word, 0);
	atomic_init(&l->turns, 0);
	l->rank = (uint8_t)rank;
}

static uint32_t holder_of(uint32_t word)
{
	return (word & SHARED_LOCK_HOLDERS) - 1;
}

bool shared_lock_acquire(struct shared_lock *l, uint32_t me, bool (*is_gone)(void *, uint32_t),
                         void *arg)
{
	uint32_t turn = atomic_fetch_add(&l->turns, 1) * (SHARED_LOCK_HOLDERS + 1);
	uint32_t mine = (me + 1) | (turn & ~SHARED_LOCK_WAITERS);
	bool gone = false;

	for (int i = 0; !gone; i++) {
		uint32_t word = 0;

		if (atomic_compare_exchange_strong(&l->word, &word, mine))
			break;
		if (i < SPINS) {
			cpu_relax();
			continue;
		}
		/* Who has slept does not know whether others do. */
		mine |= SHARED_LOCK_WAITERS;
		if (!(word & SHARED_LOCK_WAITERS) &&
		    !atomic_compare_exchange_strong(&l->word, &word, word | SHARED_LOCK_WAITERS))
			continue;
		word |= SHARED_LOCK_WAITERS;
		if (futex_wait(&l->word, word, BELIEVE_NS, true))
			continue;
		/* Another thread of this process may be off its CPU for long. */
		gone = holder_of(word) != me && is_gone(arg, holder_of(word)) &&
		       atomic_compare_exchange_strong(&l->word, &word, mine);
	}
	note_acquire(l->rank, true);
	return gone;
}

void shared_lock_release(struct shared_lock *l)
{
	note_release(l->rank);
	if (atomic_exchange(&l->word, 0) & SHARED_LOCK_WAITERS)
		futex_wake(&l->word, 1, true);
}

void shared_lock_forsake(struct shared_lock *l, uint32_t gone)
{
	uint32_t word = atomic_load(&l->word);

	while (word && holder_of(word) == gone)
		if (atomic_compare_exchange_weak(&l->word, &word, 0)) {
			if (word & SHARED_LOCK_WAITERS)
				futex_wake(&l->word, 1, true);
			return;
		}
}
