/* SPDX-License-Identifier: MIT */
/* tests/unit/world.c - see world.h. */
#include "tests/unit/world.h"

struct world *new_world(uint64_t pages, uint32_t max)
{
	static struct world w;

	memset(&w, 0, sizeof w);
	w.pages = pages;
	readahead_init(&w.ra, max);
	return &w;
}

bool plan_is_sane(const struct readahead *ra, const struct ra_plan *plan, uint64_t page,
                  uint64_t pages)
{
	__int128 p = plan->start;

	if (plan->count == 0 || plan->count > ra->max || plan->stride == 0 ||
	    plan->stride > RA_STRIDE_MAX || plan->stride < -RA_STRIDE_MAX)
		return false;
	for (uint32_t i = 0; i < plan->count; i++, p += plan->stride)
		if (p < 0 || p >= (__int128)pages || p == (__int128)page)
			return false;
	return true;
}

void touch(struct world *w, uint64_t page)
{
	struct ra_plan plan;
	bool marked = w->map_marks;

	if (w->state[page] == AHEAD || w->state[page] == MAPPED) {
		w->state[page] = MAPPED;
		return;
	}
	w->faults++;
	w->cold += w->state[page] == ABSENT;
	w->state[page] = MAPPED;
	if (!readahead_fault(&w->ra, page, w->pages, false, &plan)) {
		REQUIRE_EQ(plan.count, 0);
		return;
	}
	REQUIRE(plan_is_sane(&w->ra, &plan, page, w->pages));
	w->plans++;
	w->planned += plan.count;
	for (uint32_t i = 0; i < plan.count; i++) {
		uint8_t *s = &w->state[plan.start + (uint64_t)(plan.stride * (int64_t)i)];

		w->again += *s != ABSENT;
		if (*s != ABSENT)
			continue;
		*s = marked ? AHEAD : MARK;
		marked = true;
	}
}

void wide_stream(struct readahead *ra, struct ra_plan *plan)
{
	uint64_t page = 2;

	readahead_init(ra, MAX_WINDOW);
	readahead_fault(ra, 0, 10000, false, plan);
	readahead_fault(ra, 1, 10000, false, plan);
	do {
		REQUIRE(readahead_fault(ra, page, 10000, false, plan));
		page = plan->start;
	} while (plan->count < MAX_WINDOW);
}
