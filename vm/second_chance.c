/* SPDX-License-Identifier: MIT */
/* vm/second_chance.c - see second_chance.h. */
#include "vm/second_chance.h"

#include "vm/vm.h"

/* One batch of so many is a sample. */
#define SAMPLE 4u

/* Judged anew after so many evictions, 1/16 of the budget within these bounds. */
#define WINDOW_MIN 64u
#define WINDOW_MAX 4096u

bool second_chance_sample(struct quire *q)
{
	return q->batches++ % SAMPLE == 0;
}

/*
 * Accesses for each page: rescues / standby to major faults / swapped. With accesses
 * that are spread evenly both are the same but for chance; a set of pages in use that
 * is larger than what the policy keeps makes it several times as many. What readahead
 * brought is no victim, and its first touch is no rescue.
 */
static bool judge(const struct quire_region *r, uint64_t rescues, uint64_t faults)
{
	uint64_t all = counted(&r->counters.standby), ahead = counted(&r->counters.standby_ahead);
	uint64_t standby = all > ahead ? all - ahead : 0, swapped = counted(&r->counters.swapped);

	return rescues * swapped * 2 <= faults * standby * 3;
}

bool second_chance_futile(struct quire_region *r)
{
	struct second_chance *s = &r->second_chance;
	uint64_t evictions = counted(&r->counters.evictions);
	uint64_t budget = atomic_load(&r->q->pager.budget);
	uint64_t window = MIN(MAX(budget / 16, WINDOW_MIN), WINDOW_MAX), rescues, faults;

	if (evictions - s->evictions < window)
		return s->futile;
	rescues = counted(&r->counters.rescues);
	faults = counted(&r->counters.major_faults);
	s->futile = judge(r, rescues - s->rescues, faults - s->major_faults);
	s->evictions = evictions;
	s->rescues = rescues;
	s->major_faults = faults;
	return s->futile;
}
