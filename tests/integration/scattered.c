/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/scattered.c - single pages anywhere in four gigabytes, more in memory
 * at once than the kernel allows mappings (vm.max_map_count): read, written and both,
 * and enough mappings are left to the program. The engine that needs mappings, with guard
 * pages and without.
 *
 * test: timeout=120
 */
#define _GNU_SOURCE
#include "support.h"

#define REGION (4 * GIB)
#define BUDGET (400 * MIB)
#define TOUCHES 90000u /* pages; at 65,530 mappings all that are in memory cannot have one each */

static uint32_t *page; /* the pages that are touched, in order of touch */

/* All different: the first of a random order of all. */
static void choose(void)
{
	size_t pages = REGION / PAGE;
	uint64_t step = unit_below(pages / 2) * 2 + 1, at = unit_below(pages);

	page = malloc(TOUCHES * sizeof *page);
	REQUIRE(page != NULL);
	for (size_t i = 0; i < TOUCHES; i++) {
		at = (at * 6364136223846793005u + step) % pages;
		page[i] = (uint32_t)at;
	}
}

static size_t most;

static void look(void)
{
	size_t now = mappings();

	most = now > most ? now : most;
}

static void touch(quire_region_t *r, size_t i, uint64_t version)
{
	store((uint64_t *)page_at(r, page[i]) + page[i] % 512, page[i] * 3 + version);
}

static bool right(quire_region_t *r, size_t i, uint64_t version)
{
	return load((uint64_t *)page_at(r, page[i]) + page[i] % 512) == page[i] * 3 + version;
}

static size_t allowed(void)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
	size_t n = 65530;

	if (f) {
		if (fscanf(f, "%zu", &n) != 1)
			n = 65530;
		fclose(f);
	}
	return n;
}

static void anywhere(const char *guard)
{
	size_t n = TOUCHES, bad = 0;
	struct errors errors = { .count = 0 };
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET,
		                   .engine = "sigsegv",
		                   .guard_pages = guard,
		                   .on_error = errors_count,
		                   .on_error_arg = &errors };
	quire_t *q = pager_open_options(&o);
	quire_region_t *r = region_create(q, REGION);

	most = 0;
	unit_seed();
	choose();
	for (size_t i = 0; i < n; i++) {
		touch(r, i, 1);
		if (i % 16384 == 16383)
			look();
	}
	printf("written: %llu pages in memory, %zu mappings\n",
	       (unsigned long long)pager_stats(q).resident / PAGE, most);
	/* All go to the swap file and come back clean; every third is written at once, or later. */
	REQUIRE_EQ(quire_set_memory(q, MIB), 0);
	REQUIRE_EQ(quire_set_memory(q, BUDGET), 0);
	for (size_t i = 0; i < n; i++) {
		bad += !right(r, i, 1);
		if (i % 3 == 0)
			touch(r, i, 2);
		if (i % 16384 == 16383)
			look();
	}
	printf("read, a third written: %llu pages in memory, %zu mappings\n",
	       (unsigned long long)pager_stats(q).resident / PAGE, most);
	for (size_t i = 0; i < n; i++)
		bad += !right(r, i, i % 3 ? 1 : 2);
	look();
	CHECK_EQ(bad, 0);
	CHECK_EQ(errors.count, 0);
	/* Half of them, and the program's own. */
	CHECK(most < allowed() / 2 + 3000);
	CHECK_EQ(quire_close(q), 0);
	free(page);
}

static void with_guard_pages(void)
{
	anywhere("auto");
}

/* A minute, for what is a sysctl or a kernel from 2025 away. */
static void without(void)
{
	if (quick_or_full(1, 0) > 0)
		printf("without guard pages: left out but with QUIRE_TEST_FULL\n");
	else
		anywhere("off");
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(with_guard_pages), UNIT(without), UNIT_END };

	return unit_main(argc, argv, "scattered", tests);
}
