/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_readahead.c - readahead (pager/readahead.c) of one stream: plans of
 * known fault strings, and walks of simulated programs in which only pages that
 * are not mapped fault; modes and limits.
 */
#include "tests/unit/world.h"

/* ------------------------------------------------------------- one stream */

static void forward(void)
{
	struct readahead ra;

	readahead_init(&ra, MAX_WINDOW);
	NO_PLAN(&ra, 100, 1000);
	NO_PLAN(&ra, 101, 1000);
	EXPECT(&ra, 102, 1000, 103, 1, 4);
	/* at each mark the next window, beginning where the last one ended */
	EXPECT(&ra, 103, 1000, 107, 1, 8);
	EXPECT(&ra, 107, 1000, 115, 1, 16);
	EXPECT(&ra, 115, 1000, 131, 1, 32);
	EXPECT(&ra, 131, 1000, 163, 1, 32);
	EXPECT(&ra, 163, 1000, 195, 1, 32);
}

static void backward(void)
{
	struct readahead ra;

	readahead_init(&ra, MAX_WINDOW);
	NO_PLAN(&ra, 900, 1000);
	NO_PLAN(&ra, 899, 1000);
	EXPECT(&ra, 898, 1000, 897, -1, 4);
	EXPECT(&ra, 897, 1000, 893, -1, 8);
	EXPECT(&ra, 893, 1000, 885, -1, 16);
	EXPECT(&ra, 885, 1000, 869, -1, 32);
	EXPECT(&ra, 869, 1000, 837, -1, 32);
}

/* The widest window, if it is wide, is planned in halves, the next at the start of the half before. */
static void halves(void)
{
	struct readahead ra;

	readahead_init(&ra, RA_HALVES_FROM);
	NO_PLAN(&ra, 100, 1000);
	NO_PLAN(&ra, 101, 1000);
	EXPECT(&ra, 102, 1000, 103, 1, 4);
	EXPECT(&ra, 103, 1000, 107, 1, 8);
	EXPECT(&ra, 107, 1000, 115, 1, 16);
	EXPECT(&ra, 115, 1000, 131, 1, 32);
	EXPECT(&ra, 131, 1000, 163, 1,
	       32); /* a fault at its mark of 131 or beyond: a window ahead */
	EXPECT(&ra, 132, 1000, 195, 1, 32);
	NO_PLAN(&ra, 162, 1000);
	EXPECT(&ra, 163, 1000, 227, 1, 32);
	NO_PLAN(&ra, 190, 1000);
	EXPECT(&ra, 195, 1000, 259, 1, 32);
	/* who comes in leaps has as much ahead of him after two faults */
	EXPECT(&ra, 290, 1000, 291, 1, 32);
	EXPECT(&ra, 291, 1000, 323, 1, 32);
	EXPECT(&ra, 292, 1000, 355, 1, 32);
	NO_PLAN(&ra, 293, 1000);
	/* half of a plan given up untouched: the halved window is planned whole, at its start */
	readahead_wasted(&ra, 300, 15);
	CHECK_EQ(ra.stream[0].window, 64);
	readahead_wasted(&ra, 315, 1);
	CHECK_EQ(ra.stream[0].window, 32);
	EXPECT(&ra, 323, 1000, 387, 1, 32);
	NO_PLAN(&ra, 386, 1000);
	readahead_wasted(&ra, 390, 32);
	CHECK_EQ(ra.stream[0].window, 0);

	readahead_init(&ra, RA_HALVES_FROM);
	for (uint64_t p = 1000; p > 900; p--) {
		struct ra_plan plan;

		readahead_fault(&ra, p, 2000, false, &plan);
		if (ra.stream[0].window == RA_HALVES_FROM)
			CHECK(p - (uint64_t)ra.stream[0].ahead >= RA_HALVES_FROM / 2);
		CHECK(p - (uint64_t)ra.stream[0].ahead <= RA_HALVES_FROM * 3 / 2 + 1 ||
		      ra.stream[0].window == 0);
	}
}

/* A stride other than 1 and -1 wants one more fault in step. */
static void strided(void)
{
	static const int64_t strides[] = { 2, -2, 3, 16, -16, 1000, RA_STRIDE_MAX, -RA_STRIDE_MAX };
	struct readahead ra;
	uint64_t pages = 1 << 20;

	for (size_t i = 0; i < sizeof strides / sizeof strides[0]; i++) {
		int64_t d = strides[i], p = 1 << 19;

		readahead_init(&ra, MAX_WINDOW);
		NO_PLAN(&ra, (uint64_t)p, pages);
		NO_PLAN(&ra, (uint64_t)(p += d), pages);
		NO_PLAN(&ra, (uint64_t)(p += d), pages);
		NO_PLAN(&ra, (uint64_t)p, pages); /* the same page again is no step */
		EXPECT(&ra, (uint64_t)(p += d), pages, p + d, d, 4);
		/* not at a whole stride: no fault of this stream */
		NO_PLAN(&ra, (uint64_t)p + 1, pages);
		EXPECT(&ra, (uint64_t)(p += d), pages, p + 4 * d, d, 8);
		EXPECT(&ra, (uint64_t)(p += 4 * d), pages, p + 8 * d, d, 16);
	}
	readahead_init(&ra, MAX_WINDOW);
	for (uint64_t p = 0; p < pages; p += RA_STRIDE_MAX + 1)
		NO_PLAN(&ra, p, pages);
}

/* Faults between marks come at holes. */
static void holes(void)
{
	struct readahead ra;

	readahead_init(&ra, MAX_WINDOW);
	NO_PLAN(&ra, 10, 1000);
	NO_PLAN(&ra, 11, 1000);
	EXPECT(&ra, 12, 1000, 13, 1, 4); /* 13..16, the mark is 13 */
	EXPECT(&ra, 15, 1000, 17, 1, 8); /* past the mark; now it is 17 */
	NO_PLAN(&ra, 16, 1000);
	NO_PLAN(&ra, 16, 1000);           /* the same page again */
	EXPECT(&ra, 24, 1000, 25, 1, 16); /* at the end of the window: 17..24; mark 25 */
	EXPECT(&ra, 41, 1000, 42, 1, 32); /* the first page beyond it */
	EXPECT(&ra, 74 + RA_SLACK, 1000, 75 + RA_SLACK, 1, 32); /* a few further */
	for (uint64_t p = 1; p <= RA_SLACK; p++)
		NO_PLAN(&ra, 74 + RA_SLACK - p, 1000);     /* stragglers, not a stream back */
	NO_PLAN(&ra, 107 + RA_SLACK + RA_SLACK + 1, 1000); /* too far: not this stream */
	EXPECT(&ra, 107 + RA_SLACK, 1000, 108 + RA_SLACK, 1, 32);
}

/* Which three faults are in step. */
static void three_in_step(void)
{
	struct readahead ra;

	/* neighbours in any order */
	readahead_init(&ra, MAX_WINDOW);
	NO_PLAN(&ra, 11, 1000);
	NO_PLAN(&ra, 10, 1000);
	EXPECT(&ra, 12, 1000, 13, 1, 4);
	/* others in their own: 20 40 60 and not 0 20 40 */
	readahead_init(&ra, MAX_WINDOW);
	NO_PLAN(&ra, 20, 1000);
	NO_PLAN(&ra, 0, 1000);
	NO_PLAN(&ra, 40, 1000);
	NO_PLAN(&ra, 60, 1000);
	EXPECT(&ra, 80, 1000, 100, 20, 4);
	/* the narrowest: 8 12 16 and not 0 8 16 */
	readahead_init(&ra, MAX_WINDOW);
	NO_PLAN(&ra, 0, 1000);
	NO_PLAN(&ra, 8, 1000);
	NO_PLAN(&ra, 12, 1000);
	NO_PLAN(&ra, 16, 1000);
	EXPECT(&ra, 20, 1000, 24, 4, 4);
	/* one page again and again does not drive out the others */
	readahead_init(&ra, MAX_WINDOW);
	NO_PLAN(&ra, 10, 1000);
	for (int i = 0; i < 2 * RA_RECENT; i++)
		NO_PLAN(&ra, 500, 1000);
	NO_PLAN(&ra, 11, 1000);
	EXPECT(&ra, 12, 1000, 13, 1, 4);
	/* RA_RECENT others do */
	readahead_init(&ra, MAX_WINDOW);
	NO_PLAN(&ra, 10, 1000000);
	for (uint64_t i = 0; i < RA_RECENT; i++)
		NO_PLAN(&ra, 10000 * (i + 1), 1000000);
	NO_PLAN(&ra, 11, 1000000);
	NO_PLAN(&ra, 12, 1000000);
	/* three make one stream: closed, it is not found again by two of them */
	readahead_init(&ra, MAX_WINDOW);
	NO_PLAN(&ra, 100, 1000);
	NO_PLAN(&ra, 101, 1000);
	EXPECT(&ra, 102, 1000, 103, 1, 4);
	readahead_wasted(&ra, 103, 4);
	NO_PLAN(&ra, 99, 1000);
}

/* A fault that two streams claim is a step of the denser. */
static void two_claims(void)
{
	struct readahead ra;

	readahead_init(&ra, MAX_WINDOW);
	NO_PLAN(&ra, 0, 1000);
	NO_PLAN(&ra, 16, 1000);
	NO_PLAN(&ra, 32, 1000);
	EXPECT(&ra, 48, 1000, 64, 16, 4);
	EXPECT(&ra, 64, 1000, 128, 16, 8);
	NO_PLAN(&ra, 157, 1000);
	NO_PLAN(&ra, 158, 1000);
	EXPECT(&ra, 159, 1000, 160, 1, 4);
	EXPECT(&ra, 160, 1000, 164, 1, 8);
	EXPECT(&ra, 144, 1000, 256, 16, 16);
}

/* Whole walks: each page is planned once, and next to none is waited for. */
static void whole_walk(int64_t stride, bool map_marks, uint32_t max)
{
	struct world *w = new_world(WORLD_PAGES, max);
	int64_t p = stride > 0 ? 0 : WORLD_PAGES - 1;
	uint64_t steps = 0, cold = stride == 1 || stride == -1 ? 3 : 4;

	w->map_marks = map_marks;
	for (; p >= 0 && p < WORLD_PAGES; p += stride, steps++)
		touch(w, (uint64_t)p);
	CHECK_EQ(w->again, 0);
	if (!map_marks) {
		CHECK_EQ(w->cold, cold);
		CHECK_EQ(w->planned, steps - cold); /* to the last page and not beyond */
	}
	/* 4, 8, 16, then the widest; a mapped mark adds the fault beyond it */
	CHECK(w->faults <= steps / MAX_WINDOW + 10);
}

static void whole_walks(void)
{
	static const int64_t strides[] = { 1, -1, 2, -2, 3, 7, -64, 511 };

	for (size_t i = 0; i < sizeof strides / sizeof strides[0]; i++)
		for (uint32_t max = MAX_WINDOW; max <= 4 * MAX_WINDOW; max *= 4) {
			whole_walk(strides[i], false, max);
			whole_walk(strides[i], true, max);
		}
}

/* Holes that look like a stride of two, until the pages between them fault as well. */
static void dense_after_all(void)
{
	struct readahead ra;
	struct ra_plan plan;

	readahead_init(&ra, MAX_WINDOW);
	NO_PLAN(&ra, 101, 1000);
	NO_PLAN(&ra, 103, 1000);
	NO_PLAN(&ra, 105, 1000);
	EXPECT(&ra, 107, 1000, 109, 2, 4); /* 109, 111, 113, 115 */
	NO_PLAN(&ra, 110, 1000);
	EXPECT(&ra, 112, 1000, 113, 1, 4);
	EXPECT(&ra, 113, 1000, 117, 1, 8);

	readahead_init(&ra, MAX_WINDOW);
	for (uint64_t p = 900; p > 892; p -= 2)
		readahead_fault(&ra, p, 1000, false, &plan);
	CHECK_EQ(plan.stride, -2);
	NO_PLAN(&ra, 891, 1000);
	EXPECT(&ra, 889, 1000, 888, -1, 4);

	/* one fault in each window is not enough */
	readahead_init(&ra, MAX_WINDOW);
	for (uint64_t p = 900; p > 880; p -= 5)
		readahead_fault(&ra, p, 1000, false, &plan);
	CHECK_EQ(plan.stride, -5);
	NO_PLAN(&ra, 879, 1000);
	EXPECT(&ra, 880, 1000, 860, -5, 8);
	NO_PLAN(&ra, 859, 1000);
	EXPECT(&ra, 860, 1000, 820, -5, 16);

	/* nor is any number between wide strides */
	readahead_init(&ra, MAX_WINDOW);
	for (uint64_t p = 0; p < 400; p += 100)
		readahead_fault(&ra, p, 10000, false, &plan);
	CHECK_EQ(plan.stride, 100);
	NO_PLAN(&ra, 410, 10000);
	NO_PLAN(&ra, 441, 10000);
	NO_PLAN(&ra, 483, 10000);
	EXPECT(&ra, 400, 10000, 800, 100, 8);
}

/* A walk over a region of which some pages are resident already: two to ten of sixteen. */
static void partly_resident(void)
{
	unit_seed();
	for (uint64_t share = 2; share <= 10; share += 4) {
		struct world *w = new_world(WORLD_PAGES, MAX_WINDOW);
		uint64_t resident = 0;

		for (uint64_t p = 0; p < WORLD_PAGES; p++)
			if (unit_below(16) < share) {
				w->state[p] = MAPPED;
				resident++;
			}
		for (uint64_t p = 0; p < WORLD_PAGES; p++)
			touch(w, p);
		CHECK(w->cold < 150);
		CHECK(w->again <= resident + 100);
	}
}

static void write_hint(void)
{
	struct readahead ra;
	struct ra_plan plan;

	readahead_init(&ra, MAX_WINDOW);
	readahead_fault(&ra, 0, 1000, true, &plan);
	readahead_fault(&ra, 1, 1000, true, &plan);
	REQUIRE(readahead_fault(&ra, 2, 1000, true, &plan));
	CHECK(plan.writes);
	REQUIRE(readahead_fault(&ra, 3, 1000, true, &plan));
	CHECK(plan.writes);
	REQUIRE(readahead_fault(&ra, 7, 1000, false, &plan));
	CHECK(!plan.writes);
	REQUIRE(readahead_fault(&ra, 15, 1000, true, &plan));
	CHECK(!plan.writes); /* one write after a read proves nothing yet */
	REQUIRE(readahead_fault(&ra, 31, 1000, true, &plan));
	CHECK(plan.writes);
}

/* ------------------------------------------------------------- modes and limits */

static void sequential_mode(void)
{
	struct readahead ra;
	struct ra_plan plan;

	readahead_init(&ra, MAX_WINDOW);
	readahead_set_mode(&ra, RA_SEQUENTIAL);
	EXPECT(&ra, 100, 10000, 101, 1, 32);
	EXPECT(&ra, 101, 10000, 133, 1, 32);
	NO_PLAN(&ra, 120, 10000);
	EXPECT(&ra, 133, 10000, 165, 1, 32);
	EXPECT(&ra, 5000, 10000, 5001, 1, 32); /* another thread */
	EXPECT(&ra, 165, 10000, 197, 1, 32);
	/* downwards: known by the second fault */
	EXPECT(&ra, 8000, 10000, 8001, 1, 32);
	EXPECT(&ra, 7999, 10000, 7998, -1, 32);
	EXPECT(&ra, 7998, 10000, 7966, -1, 32);
	EXPECT(&ra, 7966, 10000, 7934, -1, 32);
	/* waste closes here too */
	readahead_wasted(&ra, 7934, 64);
	NO_PLAN(&ra, 7934, 10000);
	EXPECT(&ra, 7933, 10000, 7932, -1, 4);
	/* any number of beginnings leaves a proven stream alone */
	for (uint64_t i = 0; i < 100; i++)
		readahead_fault(&ra, 9000 - 50 * (i % 20), 10000, false, &plan);
	EXPECT(&ra, 197, 10000, 229, 1, 32);
}

static void never_ahead(void)
{
	struct readahead ra;
	struct ra_plan plan;

	readahead_init(&ra, MAX_WINDOW);
	readahead_set_mode(&ra, RA_RANDOM);
	for (uint64_t p = 0; p < 100; p++)
		NO_PLAN(&ra, p, 1000);
	/* nothing is remembered of it */
	readahead_set_mode(&ra, RA_NORMAL);
	NO_PLAN(&ra, 100, 1000);
	NO_PLAN(&ra, 101, 1000);
	EXPECT(&ra, 102, 1000, 103, 1, 4);

	/* nor of what was seen before */
	readahead_set_mode(&ra, RA_RANDOM);
	readahead_set_mode(&ra, RA_NORMAL);
	NO_PLAN(&ra, 103, 1000);
	readahead_set_mode(&ra, RA_NORMAL); /* no change: it is kept */
	NO_PLAN(&ra, 104, 1000);
	EXPECT(&ra, 105, 1000, 106, 1, 4);

	for (uint32_t max = 0; max < 2; max++) {
		readahead_init(&ra, max);
		for (uint64_t p = 0; p < 100; p++)
			NO_PLAN(&ra, p, 1000);
		readahead_set_mode(&ra, RA_SEQUENTIAL);
		for (uint64_t p = 0; p < 100; p++)
			NO_PLAN(&ra, p, 1000);
		CHECK_EQ(ra.max, 1);
		readahead_wasted(&ra, 5, 1);
	}

	readahead_init(&ra, 3);
	readahead_fault(&ra, 0, 1000, false, &plan);
	readahead_fault(&ra, 1, 1000, false, &plan);
	EXPECT(&ra, 2, 1000, 3, 1, 3);
	EXPECT(&ra, 3, 1000, 6, 1, 3);

	/* the widest window is narrowed and widened while a stream is open */
	wide_stream(&ra, &plan);
	readahead_set_max(&ra, 8);
	EXPECT(&ra, plan.start, 10000, plan.start + 32, 1, 8);
	readahead_set_max(&ra, 0);
	CHECK_EQ(ra.max, 1);
	NO_PLAN(&ra, plan.start + 32, 10000);
	readahead_set_max(&ra, UINT32_MAX);
	EXPECT(&ra, plan.start + 32, 10000, plan.start + 40, 1, 2);
}

static void edges(void)
{
	struct readahead ra;
	struct ra_plan plan;
	uint64_t big = (uint64_t)1 << 40;

	/* the window ends with the region, and is not planned twice there */
	readahead_init(&ra, MAX_WINDOW);
	readahead_fault(&ra, 990, 1000, false, &plan);
	readahead_fault(&ra, 991, 1000, false, &plan);
	EXPECT(&ra, 992, 1000, 993, 1, 4);
	EXPECT(&ra, 993, 1000, 997, 1, 3);
	NO_PLAN(&ra, 997, 1000);
	NO_PLAN(&ra, 998, 1000);
	NO_PLAN(&ra, 999, 1000);

	readahead_init(&ra, MAX_WINDOW);
	readahead_fault(&ra, 9, 1000, false, &plan);
	readahead_fault(&ra, 8, 1000, false, &plan);
	EXPECT(&ra, 7, 1000, 6, -1, 4);
	EXPECT(&ra, 6, 1000, 2, -1, 3);
	NO_PLAN(&ra, 2, 1000);
	NO_PLAN(&ra, 1, 1000);
	NO_PLAN(&ra, 0, 1000);

	/* nothing left to plan when the stream is found */
	readahead_init(&ra, MAX_WINDOW);
	for (uint64_t p = 997; p < 1000; p++)
		NO_PLAN(&ra, p, 1000);
	for (uint64_t p = 3; p-- > 0;)
		NO_PLAN(&ra, p, 1000);
	/* strides that step out of the region */
	readahead_init(&ra, MAX_WINDOW);
	NO_PLAN(&ra, 900, 1000);
	NO_PLAN(&ra, 600, 1000);
	NO_PLAN(&ra, 300, 1000);
	NO_PLAN(&ra, 0, 1000);
	readahead_init(&ra, MAX_WINDOW);
	for (uint64_t p = 0; p < 3; p++)
		NO_PLAN(&ra, p * 100, 350);
	NO_PLAN(&ra, 300, 350);

	/* regions of one page and of none, pages that are not in the region */
	readahead_set_mode(&ra, RA_SEQUENTIAL);
	NO_PLAN(&ra, 0, 1);
	NO_PLAN(&ra, 0, 0);
	NO_PLAN(&ra, 5, 5);
	NO_PLAN(&ra, UINT64_MAX, 5);
	NO_PLAN(&ra, UINT64_MAX - 1, UINT64_MAX);
	readahead_init(&ra, MAX_WINDOW);
	readahead_set_mode(&ra, RA_SEQUENTIAL);
	EXPECT(&ra, 0, 2, 1, 1, 1);

	/* a region longer than any: nothing, and no overflow */
	NO_PLAN(&ra, 5, ((uint64_t)1 << 48) + 1);
	NO_PLAN(&ra, (uint64_t)1 << 63, UINT64_MAX);
	/* far ends of a very long region */
	readahead_set_max(&ra, UINT32_MAX);
	EXPECT(&ra, big - 3, big, big - 2, 1, 2);
	EXPECT(&ra, big / 2, big, big / 2 + 1, 1, UINT32_MAX / 2);
	EXPECT(&ra, big / 2 + 1, big, big / 2 + 1 + UINT32_MAX / 2, 1, UINT32_MAX / 2);
}

/* Anything at all: every plan is sane, and the sanitizers see no overflow. */
static void anything(void)
{
	static const uint64_t lengths[] = { 1, 2, 3, 5, 16, 300, 5000, (uint64_t)1 << 28 };
	struct readahead ra;
	struct ra_plan plan;
	uint64_t at = 0;

	unit_seed();
	for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
		uint64_t pages = lengths[l];
		int64_t stride = 1;

		readahead_init(&ra, 64);
		for (int i = 0; i < 100000; i++) {
			switch (unit_below(64)) {
			case 0:
				at = unit_below(pages);
				break;
			case 1:
				at = unit_below(2) ? 0 : pages - 1;
				break;
			case 2:
				stride = (int64_t)unit_below(17) - 8;
				break;
			case 3:
				stride = (int64_t)unit_below(2 * RA_STRIDE_MAX + 3) -
				         RA_STRIDE_MAX - 1;
				break;
			case 4:
				readahead_wasted(&ra, unit_below(2) ? at : unit_random(),
				                 (uint32_t)unit_below(40));
				break;
			case 5:
				if (unit_below(50) == 0)
					readahead_set_mode(&ra, (enum ra_mode)unit_below(3));
				break;
			case 6:
				if (unit_below(50) == 0)
					readahead_set_max(&ra, (uint32_t)unit_below(70));
				break;
			default:
				break;
			}
			at = (at + (uint64_t)stride) % pages;
			if (!readahead_fault(&ra, at, pages, unit_below(2), &plan)) {
				REQUIRE_EQ(plan.count, 0);
				continue;
			}
			REQUIRE(plan_is_sane(&ra, &plan, at, pages));
			if (unit_below(8) == 0)
				readahead_truncated(&ra, &plan,
				                    (uint32_t)unit_below(plan.count + 1));
		}
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(forward),         UNIT(backward),
		UNIT(halves),          UNIT(strided),
		UNIT(holes),           UNIT(three_in_step),
		UNIT(two_claims),      UNIT(whole_walks),
		UNIT(dense_after_all), UNIT(partly_resident),
		UNIT(write_hint),      UNIT(sequential_mode),
		UNIT(never_ahead),     UNIT(edges),
		UNIT(anything),        UNIT_END,
	};

	return unit_main(argc, argv, "readahead", tests);
}
