/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/world.h - what the programs that test readahead share: plans that are
 * expected, and a simulated program whose faults readahead sees.
 */
#ifndef QUIRE_TESTS_WORLD_H
#define QUIRE_TESTS_WORLD_H

#include "pager/readahead.h"
#include "tests/unit/unit.h"

#define MAX_WINDOW 32

/* One fault; the plan must be (start, count) at that stride. count 0: no plan. */
#define EXPECT(ra, page, pages, at, step, n)                                     \
	do {                                                                     \
		struct ra_plan plan_;                                            \
		bool planned_ = readahead_fault(ra, page, pages, false, &plan_); \
		CHECK_EQ(planned_, (n) > 0);                                     \
		CHECK_EQ(plan_.count, n);                                        \
		if ((n) > 0) {                                                   \
			CHECK_EQ(plan_.start, at);                               \
			CHECK_EQ(plan_.stride, step);                            \
		}                                                                \
	} while (0)
#define NO_PLAN(ra, page, pages) EXPECT(ra, page, pages, 0, 0, 0)

#define WORLD_PAGES 65536

enum { ABSENT, AHEAD, MARK, MAPPED };

struct world {
	struct readahead ra;
	uint64_t pages;
	uint8_t state[WORLD_PAGES];
	bool map_marks; /* the caller maps whole windows, marks too */
	uint64_t faults, plans, planned;
	uint64_t cold;  /* faults on pages that nothing had planned */
	uint64_t again; /* pages planned that were planned or mapped already */
};

/* One world at a time: of pages all absent, with windows of at most max. */
struct world *new_world(uint64_t pages, uint32_t max);
/* What every plan must be, whatever the faults were. */
bool plan_is_sane(const struct readahead *ra, const struct ra_plan *plan, uint64_t page,
                  uint64_t pages);
/* The program touches a page. The first page that a plan brings in is left unmapped: the mark. */
void touch(struct world *w, uint64_t page);
/* A stream whose window is 32 wide, on its way up from page 0; its last plan in *plan. */
void wide_stream(struct readahead *ra, struct ra_plan *plan);

#endif
