/* SPDX-License-Identifier: MIT */
/*
 * base/trial.h - which of two ways of doing the same is the quicker, found by
 * doing it both ways.
 *
 * For what no probe tells beforehand and what changes while the program runs:
 * the ways take turns in rounds of TRIAL_ROUND times, the quicker is kept, and
 * the other one is tried again for a round now and then, ever more seldom while
 * the answer stays the same. (A bandit of two arms; rounds rather than single
 * times, because threads disturb each other's: what matters is how all do it.)
 *
 * Way 0 is kept unless way 1 is clearly quicker: let it be the one that costs
 * others less.
 */
#ifndef QUIRE_BASE_TRIAL_H
#define QUIRE_BASE_TRIAL_H

#include <stdatomic.h>
#include <stdint.h>

#define TRIAL_ROUND 64u
#define TRIAL_PATIENCE 64u /* rounds at most before the other way is tried again */

struct trial {
	uint64_t cap; /* ns: what takes longer counts as this, so that rare stalls do not decide */
	_Atomic uint32_t times;
	_Atomic uint32_t way;     /* of this round */
	_Atomic uint32_t chosen;  /* the quicker as far as is known */
	_Atomic uint32_t turning; /* a thread decides about the next round */
	_Atomic uint64_t ns[2];   /* of this round, or what came late of one before */
	_Atomic uint64_t count[2];
	/* turning: */
	uint64_t mean[2]; /* 0: never tried */
	uint32_t patience, waited;
};

void trial_init(struct trial *t, uint64_t cap_ns);

/* These are async-signal-safe, for any number of threads. => the way to take now: 0 or 1 */
unsigned trial_way(struct trial *t);
/* count times that were done way took ns together, at most count * cap of which count. */
void trial_took(struct trial *t, unsigned way, uint64_t ns, uint32_t count);

/* => the way of this round */
static inline unsigned trial_round(const struct trial *t)
{
	return atomic_load_explicit(&t->way, memory_order_relaxed);
}

#endif
