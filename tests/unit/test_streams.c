/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_streams.c - readahead (pager/readahead.c) of many streams: walks
 * beside each other and among random faults, which stream goes when there are
 * too many, and what waste does to which.
 */
#include "tests/unit/world.h"

/* ------------------------------------------------------------- many streams */

/*
 * Eight walks at once, in turn or in any order, each with a stride of its own
 * in a span of its own; the spans lie a few pages apart.
 */
static void interleaved_walks(bool in_turn, bool noisy)
{
	static const int64_t strides[RA_STREAMS] = { 1, -1, 1, -1, 2, -3, 1, 5 };
	struct world *w = new_world(WORLD_PAGES, MAX_WINDOW);
	const int64_t part = WORLD_PAGES / (RA_STREAMS + 1); /* the last part is for noise */
	int64_t at[RA_STREAMS], low[RA_STREAMS], high[RA_STREAMS];
	uint64_t left = RA_STREAMS, noise = 0;

	for (int i = 0; i < RA_STREAMS; i++) {
		low[i] = i * part + 10;
		high[i] = (i + 1) * part - 10;
		at[i] = strides[i] > 0 ? low[i] : high[i];
	}
	for (uint64_t turn = 0; left > 0; turn++) {
		int i = in_turn ? (int)(turn % RA_STREAMS) : (int)unit_below(RA_STREAMS);

		if (noisy && turn % 4 == 0) {
			uint64_t p = (uint64_t)(RA_STREAMS * part) + unit_below((uint64_t)part);

			noise += w->state[p] == ABSENT;
			touch(w, p);
		}
		if (at[i] < low[i] || at[i] > high[i])
			continue;
		touch(w, (uint64_t)at[i]);
		at[i] += strides[i];
		left -= at[i] < low[i] || at[i] > high[i];
	}
	CHECK(w->cold - noise <= RA_STREAMS * (in_turn && !noisy ? 4 : 16));
	/* a stream that plans beyond its span does so in its neighbour's: not much */
	CHECK(w->again <= RA_STREAMS * 2 * MAX_WINDOW);
}

static void interleaved(void)
{
	unit_seed();
	interleaved_walks(true, false);
	interleaved_walks(false, false);
	interleaved_walks(true, true);
	interleaved_walks(false, true);
}

/* Threads that share out a range in small pieces: faults near each other in no order. */
static void shared_out(void)
{
	struct world *w = new_world(WORLD_PAGES, MAX_WINDOW);

	unit_seed();
	for (uint64_t base = 0; base < WORLD_PAGES; base += 4) {
		uint64_t order[4] = { 0, 1, 2, 3 };

		for (uint64_t i = 3; i > 0; i--) {
			uint64_t k = unit_below(i + 1), t = order[i];

			order[i] = order[k];
			order[k] = t;
		}
		for (uint64_t i = 0; i < 4; i++)
			touch(w, base + order[i]);
	}
	CHECK(w->cold < WORLD_PAGES / 100);
	CHECK(w->again < WORLD_PAGES / 100);
}

/* ------------------------------------------------------------- chance */

#define RANDOM_PAGES 262144

/* Plans for each thousand faults of a random pattern. */
static double random_plans(uint64_t pages, uint64_t faults, bool pairs)
{
	struct readahead ra;
	struct ra_plan plan;
	uint64_t plans = 0;

	readahead_init(&ra, 64);
	for (uint64_t i = 0; i < faults; i++) {
		uint64_t p = unit_below(pages - 1);

		plans += readahead_fault(&ra, p, pages, false, &plan);
		if (pairs) /* an object that lies across two pages */
			plans += readahead_fault(&ra, p + 1, pages, false, &plan);
	}
	return 1000.0 * (double)plans / (double)(faults << pairs);
}

static void random_faults(void)
{
	double rate;

	unit_seed();
	rate = random_plans(RANDOM_PAGES, 1000000, false);
	CHECK(rate < 1);
	rate = random_plans(RANDOM_PAGES, 300000, true);
	CHECK(rate < 2);
	rate = random_plans(1024, 300000, false);
	CHECK(rate < 30);
}

/* A sequential walk keeps its stream among 1 to 15 random faults for each touch. */
static void random_beside_walk(void)
{
	unit_seed();
	for (uint64_t share = 1; share <= 15; share += 7) {
		struct readahead ra;
		struct ra_plan plan;
		uint64_t ahead = 0, cold = 0, mark = UINT64_MAX;

		readahead_init(&ra, MAX_WINDOW);
		for (uint64_t p = 0; p < 20000; p++) {
			for (uint64_t i = 0; i < share; i++)
				readahead_fault(&ra, 20000 + unit_below(RANDOM_PAGES - 20000),
				                RANDOM_PAGES, false, &plan);
			if (p < ahead && p != mark)
				continue;
			cold += p >= ahead;
			if (readahead_fault(&ra, p, RANDOM_PAGES, false, &plan) &&
			    plan.stride == 1) {
				mark = plan.start;
				ahead = plan.start + plan.count;
			}
		}
		CHECK(cold < 20);
	}
}

/* A ninth stream does not make the widest of eight go; a silent one does go. */
static void replacement(void)
{
	struct readahead ra;
	struct ra_plan plan;
	uint64_t pages = 1 << 20, mark[RA_STREAMS];

	readahead_init(&ra, MAX_WINDOW);
	for (uint64_t i = 0; i < RA_STREAMS; i++) {
		readahead_fault(&ra, i * 10000, pages, false, &plan);
		readahead_fault(&ra, i * 10000 + 1, pages, false, &plan);
		mark[i] = i * 10000 + 2;
		for (int k = 0; k < (i == 5 ? 1 : 5); k++) {
			REQUIRE(readahead_fault(&ra, mark[i], pages, false, &plan));
			mark[i] = plan.start;
		}
	}
	for (uint64_t i = 0; i < 3; i++)
		readahead_fault(&ra, 500000 + i, pages, false, &plan);
	CHECK_EQ(plan.count, 4);
	for (uint64_t i = 0; i < RA_STREAMS; i++) {
		bool planned = readahead_fault(&ra, mark[i], pages, false, &plan);

		CHECK_EQ(planned, i != 5); /* the narrowest went */
		mark[i] = plan.start;
	}
	/* strided faults take no live stream's place, not even the narrowest */
	for (uint64_t i = 0; i < 10; i++)
		NO_PLAN(&ra, 600000 + 20 * i, pages);
	for (uint64_t i = 0; i < RA_STREAMS; i++)
		if (i != 5) {
			CHECK(readahead_fault(&ra, mark[i], pages, false, &plan));
			mark[i] = plan.start;
		}
	EXPECT(&ra, 500003, pages, 500007, 1, 8);
	/* streams that have not been heard of for long make room */
	unit_seed();
	for (int i = 0; i < 3000; i++)
		readahead_fault(&ra, 700000 + 5000 * unit_below(60), pages, false, &plan);
	for (uint64_t i = 0; i < 4; i++)
		readahead_fault(&ra, 650000 + 20 * i, pages, false, &plan);
	CHECK_EQ(plan.count, 4);
	CHECK_EQ(plan.stride, 20);
}

/* Of streams with equal windows the longest silent goes. */
static void replacement_by_age(void)
{
	struct readahead ra;
	struct ra_plan plan;

	readahead_init(&ra, MAX_WINDOW);
	for (uint64_t i = 0; i < RA_STREAMS; i++)
		for (uint64_t p = 0; p < 3; p++)
			readahead_fault(&ra, 10000 * i + p, 1000000, false, &plan);
	NO_PLAN(&ra, 0, 1000000); /* heard of, though it goes no further */
	for (uint64_t p = 0; p < 3; p++)
		readahead_fault(&ra, 500000 + p, 1000000, false, &plan);
	CHECK_EQ(plan.count, 4);
	for (uint64_t i = 0; i < RA_STREAMS; i++)
		CHECK_EQ(readahead_fault(&ra, 10000 * i + 3, 1000000, false, &plan), i != 1);
}

/* ------------------------------------------------------------- waste */

static void waste(void)
{
	struct readahead ra;
	struct ra_plan plan;
	uint64_t next;

	/* less than half of the window changes nothing; the mark forgives it */
	wide_stream(&ra, &plan);
	readahead_wasted(&ra, plan.start + 3, 15);
	next = plan.start + 32;
	EXPECT(&ra, plan.start, 10000, next, 1, 32);
	readahead_wasted(&ra, next, 15);
	EXPECT(&ra, next, 10000, next + 32, 1, 32);

	/* half of it halves, and the next mark does not double; the one after does */
	wide_stream(&ra, &plan);
	next = plan.start + 32;
	for (uint64_t i = 0; i < 16; i++)
		readahead_wasted(&ra, plan.start + i, 1);
	EXPECT(&ra, plan.start, 10000, next, 1, 16);
	EXPECT(&ra, next, 10000, next + 16, 1, 32);

	/* three quarters: twice */
	wide_stream(&ra, &plan);
	next = plan.start + 32;
	readahead_wasted(&ra, plan.start, 24);
	EXPECT(&ra, plan.start, 10000, next, 1, 8);

	/* not the stream's pages: where it began and before, beyond it, far away */
	wide_stream(&ra, &plan);
	next = plan.start + 32;
	readahead_wasted(&ra, 2, 100);
	readahead_wasted(&ra, next, 100);
	readahead_wasted(&ra, 5000, 100);
	readahead_wasted(&ra, UINT64_MAX, 100);
	EXPECT(&ra, plan.start, 10000, next, 1, 32);

	/* the whole window closes the stream; it has to be in step again, and starts small */
	for (int all = 0; all < 2; all++) {
		wide_stream(&ra, &plan);
		readahead_wasted(&ra, plan.start, 1);
		readahead_wasted(&ra, plan.start, all ? UINT32_MAX : 31);
		readahead_wasted(&ra, plan.start, all ? 0 : UINT32_MAX);
		NO_PLAN(&ra, plan.start, 10000);
		NO_PLAN(&ra, plan.start, 10000);
		EXPECT(&ra, plan.start + 1, 10000, plan.start + 2, 1, 4);
		EXPECT(&ra, plan.start + 2, 10000, plan.start + 6, 1, 8);
	}
	/* a closed stream is still known at the end of what it had planned */
	wide_stream(&ra, &plan);
	next = plan.start + 32;
	readahead_wasted(&ra, plan.start, 32);
	NO_PLAN(&ra, next, 10000);
	EXPECT(&ra, next + 1, 10000, next + 2, 1, 4);
	/* and answers for what it has planned since */
	readahead_wasted(&ra, plan.start, 100);
	EXPECT(&ra, next + 2, 10000, next + 6, 1, 8);
}

/* Waste goes to the stream that planned the page. */
static void waste_of_two(void)
{
	struct readahead ra;
	struct ra_plan low, high;

	readahead_init(&ra, MAX_WINDOW);
	for (uint64_t i = 0; i < 3; i++) {
		readahead_fault(&ra, 100 + i, 10000, false, &low);
		readahead_fault(&ra, 200 - i, 10000, false, &high);
	}
	REQUIRE(low.stride == 1 && high.stride == -1);
	readahead_wasted(&ra, low.start, 4);
	NO_PLAN(&ra, low.start, 10000);
	readahead_wasted(&ra, (uint64_t)1 << 63, 4);
	EXPECT(&ra, high.start, 10000, high.start - 4, -1, 8);

	/* one that walks over where the other has been: to that which ends nearer */
	readahead_init(&ra, MAX_WINDOW);
	for (uint64_t i = 0; i < 3; i++)
		readahead_fault(&ra, 50 + i, 10000, false, &low);
	for (uint64_t i = 0; i < 3; i++)
		readahead_fault(&ra, i, 10000, false, &high);
	while (high.start + high.count < 60)
		REQUIRE(readahead_fault(&ra, high.start, 10000, false, &high));
	readahead_wasted(&ra, low.start, 100);
	EXPECT(&ra, high.start, 10000, high.start + high.count, 1, 32);

	/* pages between the strides are not the stream's */
	readahead_init(&ra, MAX_WINDOW);
	for (uint64_t i = 0; i < 4; i++)
		readahead_fault(&ra, 100 * i, 10000, false, &low);
	REQUIRE_EQ(low.stride, 100);
	readahead_wasted(&ra, low.start + 1, 100);
	EXPECT(&ra, low.start, 10000, low.start + 400, 100, 8);
	readahead_wasted(&ra, low.start + 400, 100);
	NO_PLAN(&ra, low.start + 400, 10000);
}

/* What could not be read of a plan is planned again, in a window no wider. */
static void truncated(void)
{
	struct readahead ra;
	struct ra_plan plan, old;
	uint64_t start;

	wide_stream(&ra, &plan);
	start = plan.start;
	readahead_truncated(&ra, &plan, 20);
	EXPECT(&ra, start, 10000, start + 20, 1, 32);

	/* none of it: the window is planned again from the first page that faults */
	wide_stream(&ra, &plan);
	readahead_truncated(&ra, &plan, 0);
	EXPECT(&ra, start, 10000, start + 1, 1, 32);
	EXPECT(&ra, start + 1, 10000, start + 33, 1, 32);

	readahead_init(&ra, MAX_WINDOW);
	for (uint64_t i = 0; i < 3; i++)
		readahead_fault(&ra, 500 - i, 1000, false, &plan);
	REQUIRE_EQ(plan.start, 497);
	readahead_truncated(&ra, &plan, 3);
	EXPECT(&ra, 497, 1000, 494, -1, 4);
	EXPECT(&ra, 494, 1000, 490, -1, 8);

	/* all of it, another stream's, one that is past: nothing */
	wide_stream(&ra, &plan);
	old = plan;
	readahead_truncated(&ra, &plan, 32);
	readahead_truncated(&ra, &plan, UINT32_MAX);
	plan.stride = -1;
	readahead_truncated(&ra, &plan, 0);
	plan.stride = 1;
	plan.count = 31;
	readahead_truncated(&ra, &plan, 0);
	EXPECT(&ra, start, 10000, start + 32, 1, 32);
	readahead_truncated(&ra, &old, 0);
	EXPECT(&ra, start + 32, 10000, start + 64, 1, 32);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(interleaved),   UNIT(shared_out),
		UNIT(random_faults), UNIT(random_beside_walk),
		UNIT(replacement),   UNIT(replacement_by_age),
		UNIT(waste),         UNIT(waste_of_two),
		UNIT(truncated),     UNIT_END,
	};

	return unit_main(argc, argv, "streams", tests);
}
