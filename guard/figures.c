/* SPDX-License-Identifier: MIT */
/* guard/figures.c - what the guard has served, by call. */
#include "guard/guard.h"

#include "guard/calls.h"
#include "guard/trap.h"

#include <stdatomic.h>

/* The last one is for all numbers beyond the table. */
static _Atomic uint64_t counts[CALLS_MAX + 1];
static _Atomic int beyond;
/* Of calls that the table has, what the row could not serve: an ioctl of unknown size. */
static _Atomic uint64_t unknown[CALLS_MAX + 1];

static unsigned index_of(long number)
{
	if (number >= 0 && number < (long)CALLS_MAX)
		return (unsigned)number;
	atomic_store_explicit(&beyond, (int)number, memory_order_relaxed);
	return CALLS_MAX;
}

void figures_count(long number, bool known)
{
	atomic_fetch_add_explicit(&(known ? counts : unknown)[index_of(number)], 1,
	                          memory_order_relaxed);
}

/* Even steps: what was known; odd ones: what was not. */
bool guard_figure(unsigned *at, struct guard_figure *out)
{
	for (; *at < 2 * (CALLS_MAX + 1); (*at)++) {
		unsigned i = *at / 2;
		bool known = *at % 2 == 0;
		uint64_t n = atomic_load_explicit(&(known ? counts : unknown)[i],
		                                  memory_order_relaxed);
		const struct call_row *row = call_row(i);

		if (n == 0)
			continue;
		*out = (struct guard_figure){
			.number = i == CALLS_MAX ? atomic_load(&beyond) : (int)i,
			.name = row ? row->name : NULL,
			.known = known,
			.count = n,
		};
		(*at)++;
		return true;
	}
	return false;
}

uint64_t guard_served(uint64_t *not_known)
{
	uint64_t sum = 0;

	*not_known = 0;
	for (unsigned i = 0; i <= CALLS_MAX; i++) {
		sum += atomic_load_explicit(&counts[i], memory_order_relaxed);
		*not_known += atomic_load_explicit(&unknown[i], memory_order_relaxed);
	}
	return sum + *not_known;
}
