/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/idle.c - a pager that has nothing to do uses no processor
 * time, and opening one takes no time worth mention.
 *
 * The law is 10 ms in 10 s; the quick form looks for 3 s and allows 3 ms.
 *
 * test: alone
 */
#define _GNU_SOURCE
#include "support.h"

#define OPENS 21

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void idle_costs_nothing(void)
{
	double seconds = quick_or_full(3, 10), used;
	quire_t *q = pager_open(4 * MIB);
	quire_region_t *r = region_create(q, 16 * MIB);

	fill(r, 0, 4096, 1);
	CHECK_EQ(wrong(r, 0, 4096, 1), 0);
	sleep_seconds(0.3); /* what it still had to write */
	used = cpu_seconds();
	sleep_seconds(seconds);
	used = cpu_seconds() - used;
	printf("idle for %g s: %.3f ms of processor time\n", seconds, used * 1e3);
	CHECK(used < seconds * 1e-3);
	CHECK_EQ(wrong(r, 0, 4096, 1), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void opening(size_t memory)
{
	double took[OPENS];

	for (int i = 0; i < OPENS; i++) {
		double start = seconds_now();
		quire_t *q = pager_open(memory);

		took[i] = seconds_now() - start;
		CHECK_EQ(quire_close(q), 0);
	}
	qsort(took, OPENS, sizeof took[0], by_value);
	printf("open with %zu MiB: median %.2f ms, worst %.2f ms\n", memory >> 20,
	       took[OPENS / 2] * 1e3, took[OPENS - 1] * 1e3);
	CHECK(took[OPENS / 2] < 0.010);
}

static void opens_at_once(void)
{
	opening(MIB);
	opening(256 * MIB);
	opening(machine_memory()); /* a budget, not a reservation */
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(opens_at_once), UNIT(idle_costs_nothing),
		                                  UNIT_END };

	return unit_main(argc, argv, "idle", tests);
}
