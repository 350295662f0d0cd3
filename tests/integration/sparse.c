/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/sparse.c - a terabyte of address space within a small
 * budget: reserving costs no memory, touching costs what is touched.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#define TOUCHED 1500u
#define REGIONS 1000u
#define SLACK (4 * MIB)

static size_t baseline;

static void within_budget(const quire_t *q)
{
	size_t now = resident_bytes();
	struct quire_stats s = pager_stats(q);

	CHECK(now <= baseline + s.budget + s.metadata + SLACK);
	if (now > baseline + s.budget + s.metadata + SLACK)
		printf("resident %zu KiB more than before, budget %llu, metadata %llu\n",
		       (now - baseline) >> 10, (unsigned long long)s.budget >> 10,
		       (unsigned long long)s.metadata >> 10);
}

static void terabyte(size_t budget)
{
	static size_t page[TOUCHED];
	size_t pages = QUIRE_REGION_MAX / PAGE, before;
	quire_t *q;
	quire_region_t *r;

	unit_seed();
	memset(page, 0, sizeof page);
	baseline = resident_bytes();
	q = pager_open(budget);
	before = pager_stats(q).metadata;
	r = region_create(q, QUIRE_REGION_MAX);
	CHECK_EQ(quire_region_length(r), QUIRE_REGION_MAX);
	CHECK(pager_stats(q).metadata - before <= 256 * KIB);
	CHECK(resident_bytes() <= baseline + budget + SLACK);
	for (unsigned i = 0; i < TOUCHED; i++) {
		/* Both ends, neighbours, and anywhere. */
		page[i] = i == 0 ? 0 :
		          i == 1 ? pages - 1 :
		          i % 3  ? unit_below(pages) :
		                   (page[i - 1] + 1) % pages;
		fill_page(page_at(r, page[i]), page[i], 1);
		if (i % 256 == 0)
			within_budget(q);
	}
	for (unsigned i = 0; i < TOUCHED; i++) {
		size_t k = unit_below(TOUCHED);

		if (wrong_page(page_at(r, page[k]), page[k], 1))
			REQUIRE(!"a wrong page");
	}
	for (unsigned i = 0; i < TOUCHED; i++)
		CHECK_EQ(wrong_page(page_at(r, page[i]), page[i], 1), 0);
	within_budget(q);
	/* All of a terabyte at once. */
	CHECK_EQ(quire_advise(r, 0, QUIRE_REGION_MAX, QUIRE_ADVISE_COLD), 0);
	CHECK_EQ(quire_advise(r, 0, QUIRE_REGION_MAX, QUIRE_ADVISE_WILLNEED), 0);
	CHECK_EQ(wrong_page(page_at(r, page[7]), page[7], 1), 0);
	CHECK_EQ(quire_advise(r, 0, QUIRE_REGION_MAX, QUIRE_ADVISE_DONTNEED), 0);
	for (unsigned i = 0; i < TOUCHED; i++)
		CHECK_EQ(nonzero(r, page[i], 1), 0);
	within_budget(q);
	CHECK_EQ(quire_region_destroy(r), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void in_a_megabyte(void)
{
	terabyte(MIB);
}

static void in_64_pages(void)
{
	terabyte(QUIRE_MEMORY_MIN);
}

static void many_regions(void)
{
	static quire_region_t *r[REGIONS];
	quire_t *q;
	size_t at[3] = { 0, GIB / PAGE / 2, GIB / PAGE - 1 };

	baseline = resident_bytes();
	q = pager_open(MIB);
	for (unsigned i = 0; i < REGIONS; i++)
		r[i] = region_create(q, GIB);
	CHECK_EQ(pager_stats(q).reserved, REGIONS * GIB);
	CHECK(pager_stats(q).metadata <= 8 * MIB);
	within_budget(q);
	for (unsigned k = 0; k < 3; k++)
		for (unsigned i = 0; i < REGIONS; i++)
			fill_page(page_at(r[i], at[k]), at[k], i);
	within_budget(q);
	for (unsigned i = 0; i < REGIONS; i += 2)
		CHECK_EQ(quire_region_destroy(r[i]), 0);
	for (unsigned i = 1; i < REGIONS; i += 2)
		for (unsigned k = 0; k < 3; k++)
			CHECK_EQ(wrong_page(page_at(r[i], at[k]), at[k], i), 0);
	for (unsigned i = 0; i < REGIONS; i += 2) {
		r[i] = region_create(q, GIB);
		CHECK_EQ(load(page_at(r[i], at[1])), 0);
	}
	for (unsigned i = 1; i < REGIONS; i += 2)
		for (unsigned k = 0; k < 3; k++)
			CHECK_EQ(wrong_page(page_at(r[i], at[k]), at[k], i), 0);
	within_budget(q);
	CHECK_EQ(quire_close(q), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(in_a_megabyte), UNIT(in_64_pages),
		                                  UNIT(many_regions), UNIT_END };

	return unit_main(argc, argv, "sparse", tests);
}
