/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/basics.c - a heap eight times its memory: what was written
 * is read, the budget holds, and advice and pins do what quire.h says.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUDGET (2 * MIB)
#define PAGES ((size_t)4096) /* eight budgets */
#define BUDGET_PAGES (BUDGET / PAGE)

/* What must hold of the figures at any time. */
static void plausible(const quire_t *q, size_t budget)
{
	struct quire_stats s = pager_stats(q);

	CHECK(s.resident <= budget);
	CHECK(s.peak_resident >= s.resident);
	CHECK_EQ(s.budget, budget);
	CHECK(s.pinned <= s.resident);
	CHECK(s.readahead_hits <= s.readahead_issued);
	CHECK_EQ(s.read_errors, 0);
	CHECK_EQ(s.write_errors, 0);
	if (s.resident > budget)
		printf("resident %llu, budget %zu\n", (unsigned long long)s.resident, budget);
}

static void fill_and_verify(void)
{
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);
	struct quire_stats s;
	uint64_t sizes = 0;

	for (size_t p = 0; p < PAGES; p += 256) {
		fill(r, p, 256, 1);
		plausible(q, BUDGET);
	}
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0); /* forward */
	plausible(q, BUDGET);
	for (size_t p = PAGES; p-- > 0;) { /* backward, reading and writing */
		if (wrong(r, p, 1, 1))
			REQUIRE(!"a wrong page on the way back");
		fill(r, p, 1, 2);
	}
	plausible(q, BUDGET);
	CHECK_EQ(wrong(r, 0, PAGES, 2), 0);
	s = pager_stats(q);
	CHECK(s.minor_faults > 0);
	CHECK(s.major_faults > 0);
	CHECK(s.zero_fills >= PAGES);
	CHECK(s.evictions > 2 * PAGES);
	CHECK(s.pages_in >= 2 * (PAGES - BUDGET_PAGES));
	CHECK(s.pages_out >= 2 * (PAGES - BUDGET_PAGES));
	CHECK(s.swapped >= (PAGES - BUDGET_PAGES) * PAGE);
	CHECK(s.swapped <= PAGES * PAGE);
	CHECK(s.writeback_requests > 0);
	for (int i = 0; i < QUIRE_WRITEBACK_BUCKETS; i++)
		sizes += s.writeback_sizes[i];
	CHECK_EQ(sizes, s.writeback_requests);
	CHECK(s.major_latency.count > 0 && s.major_latency.p50 <= s.major_latency.p99);
	CHECK(s.major_latency.p99 <= s.major_latency.p999);
	CHECK(s.minor_latency.count > 0 && s.minor_latency.max > 0);
	CHECK_EQ(s.reserved, PAGES * PAGE);
	CHECK(s.metadata > 0);
	CHECK_EQ(quire_close(q), 0);
}

static void random_order(void)
{
	static unsigned version[PAGES];
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);

	unit_seed();
	for (int i = 0; i < 6000; i++) {
		size_t p = unit_below(PAGES);

		if (version[p] ? wrong(r, p, 1, version[p]) : nonzero(r, p, 1))
			REQUIRE(!"a wrong page in random order");
		if (unit_below(2))
			fill(r, p, 1, ++version[p]);
	}
	plausible(q, BUDGET);
	for (size_t p = 0; p < PAGES; p++)
		if (version[p] ? wrong(r, p, 1, version[p]) : nonzero(r, p, 1))
			REQUIRE(!"a wrong page at the end");
	CHECK_EQ(quire_close(q), 0);
}

/* Reading what was never written, and writing zeros, costs neither slot nor I/O. */
static void zero_pages(void)
{
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);
	struct quire_stats s;

	CHECK_EQ(nonzero(r, 0, PAGES), 0);
	for (size_t p = 0; p < PAGES; p++)
		store(page_at(r, p), 0);
	CHECK_EQ(nonzero(r, 0, PAGES), 0);
	s = pager_stats(q);
	CHECK_EQ(s.pages_out, 0);
	CHECK_EQ(s.pages_in, 0);
	CHECK_EQ(s.major_faults, 0);
	CHECK_EQ(s.swapped, 0);
	CHECK(s.zero_drops >= PAGES - BUDGET_PAGES);
	/* Zeros over something: the slot is given back, and zeros stay zeros. */
	fill(r, 0, PAGES, 1);
	CHECK(pager_stats(q).swapped > 0);
	for (size_t p = 0; p < PAGES; p++)
		memset(page_at(r, p), 0, PAGE);
	CHECK_EQ(nonzero(r, 0, PAGES), 0);
	CHECK_EQ(quire_set_memory(q, QUIRE_MEMORY_MIN), 0);
	CHECK(pager_stats(q).swapped <= 64 * PAGE);
	CHECK_EQ(nonzero(r, 0, PAGES), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void discards(void)
{
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);
	uint64_t before;

	fill(r, 0, PAGES, 1);
	before = region_stats(r).swapped;
	/* The first half is on the swap file, the last pages are in memory. */
	CHECK_EQ(quire_advise(r, 0, PAGES / 2 * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	CHECK(region_stats(r).swapped + PAGES / 4 * PAGE < before);
	CHECK_EQ(quire_advise(r, (PAGES - 64) * PAGE, 64 * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	CHECK_EQ(nonzero(r, 0, PAGES / 2), 0);
	CHECK_EQ(nonzero(r, PAGES - 64, 64), 0);
	CHECK_EQ(wrong(r, PAGES / 2, PAGES / 2 - 64, 1), 0);
	fill(r, 0, PAGES, 2);
	CHECK_EQ(wrong(r, 0, PAGES, 2), 0);
	CHECK_EQ(quire_advise(r, 0, PAGES * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	CHECK_EQ(region_stats(r).resident, 0);
	CHECK_EQ(region_stats(r).swapped, 0);
	CHECK_EQ(nonzero(r, 0, PAGES), 0);
	CHECK_EQ(quire_close(q), 0);
}

/* WILLNEED reads behind the program's back. */
static void willneed(void)
{
	enum { WANTED = 128 };
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);
	double end = seconds_now() + 3;
	uint64_t in, major;

	fill(r, 0, PAGES, 1);
	CHECK_EQ(mapped(r, 0, WANTED), 0);
	in = pager_stats(q).pages_in;
	CHECK_EQ(quire_advise(r, 0, WANTED * PAGE, QUIRE_ADVISE_WILLNEED), 0);
	while (pager_stats(q).pages_in < in + WANTED && seconds_now() < end)
		sleep_seconds(0.002);
	CHECK(pager_stats(q).pages_in >= in + WANTED);
	sleep_seconds(0.02);
	major = pager_stats(q).major_faults;
	CHECK_EQ(wrong(r, 0, WANTED, 1), 0);
	CHECK(pager_stats(q).major_faults - major <= WANTED / 4);
	/* Of everything: no more than fits, and nothing breaks. */
	CHECK_EQ(quire_advise(r, 0, PAGES * PAGE, QUIRE_ADVISE_WILLNEED), 0);
	plausible(q, BUDGET);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void cold(void)
{
	enum { COLD = 128, WARM = 192, MORE = 96 };
	quire_t *q = pager_open(BUDGET); /* 512 pages */
	quire_region_t *r = region_create(q, PAGES * PAGE);

	fill(r, COLD, WARM, 1); /* the older of the two */
	fill(r, 0, COLD, 1);
	CHECK_EQ(quire_advise(r, 0, COLD * PAGE, QUIRE_ADVISE_COLD), 0);
	fill(r, 1024, MORE, 1);
	fill(r, 2048, MORE, 1);
	sleep_seconds(0.05);
	CHECK(mapped(r, 0, COLD) <= COLD / 4);
	CHECK(mapped(r, COLD, WARM) >= WARM / 2);
	CHECK_EQ(wrong(r, 0, COLD + WARM, 1), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void pins(void)
{
	enum { PINNED = 64 };
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);
	int fds[2];

	fill(r, 0, PAGES, 1);
	CHECK_EQ(quire_pin(r, 0, PINNED * PAGE), 0);
	CHECK_EQ(mapped(r, 0, PINNED), PINNED);
	CHECK_EQ(pager_stats(q).pinned, PINNED * PAGE);
	for (size_t p = PINNED; p < PAGES; p += 512) {
		CHECK_EQ(wrong(r, p, 512 < PAGES - p ? 512 : PAGES - p, 1), 0);
		CHECK_EQ(mapped(r, 0, PINNED), PINNED);
	}
	plausible(q, BUDGET);
	/* The kernel may be given pinned memory under every engine. */
	REQUIRE(pipe(fds) == 0);
	CHECK_EQ(write(fds[1], page_at(r, 3), PAGE), PAGE);
	CHECK_EQ(read(fds[0], page_at(r, 5), PAGE), PAGE);
	CHECK_EQ(wrong_page(page_at(r, 5), 3, 1), 0);
	fill(r, 5, 1, 1);
	close(fds[0]);
	close(fds[1]);
	/* Pins nest. */
	CHECK_EQ(quire_pin(r, 0, PAGE), 0);
	CHECK_EQ(quire_unpin(r, 0, PINNED * PAGE), 0);
	CHECK_EQ(pager_stats(q).pinned, PAGE);
	CHECK_EQ(quire_advise(r, 0, PAGE, QUIRE_ADVISE_DONTNEED), -EBUSY);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(mapped(r, 0, 1), 1);
	CHECK_EQ(quire_unpin(r, 0, PAGE), 0);
	CHECK_EQ(pager_stats(q).pinned, 0);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(mapped(r, 0, 1), 0); /* evictable again */
	/* A pin of what was never touched makes it resident as well. */
	CHECK_EQ(quire_advise(r, 0, PAGES * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	CHECK_EQ(quire_pin(r, 100 * PAGE, PAGE), 0);
	CHECK_EQ(mapped(r, 100, 1), 1);
	CHECK_EQ(nonzero(r, 100, 1), 0);
	CHECK_EQ(quire_region_destroy(r), 0); /* pinned or not */
	CHECK_EQ(pager_stats(q).pinned, 0);
	CHECK_EQ(quire_close(q), 0);
}

static void pins_too_many(void)
{
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);

	fill(r, 0, PAGES, 1);
	CHECK_EQ(quire_pin(r, 0, PAGES * PAGE), -ENOMEM);
	CHECK_EQ(pager_stats(q).pinned, 0);
	CHECK_EQ(quire_pin(r, 0, BUDGET + PAGE), -ENOMEM);
	CHECK_EQ(quire_pin(r, 0, BUDGET / 4), 0);
	CHECK_EQ(quire_pin(r, 1024 * PAGE, BUDGET), -ENOMEM);
	CHECK_EQ(pager_stats(q).pinned, BUDGET / 4);
	CHECK_EQ(quire_set_memory(q, QUIRE_MEMORY_MIN), -EBUSY);
	CHECK_EQ(quire_memory(q), BUDGET);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(quire_unpin(r, 0, BUDGET / 4), 0);
	CHECK_EQ(quire_set_memory(q, QUIRE_MEMORY_MIN), 0);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void budget_changes(void)
{
	static const size_t budgets[] = { BUDGET / 2, QUIRE_MEMORY_MIN, 4 * MIB,
		                          80 * PAGE,  20 * MIB,         BUDGET };
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);

	fill(r, 0, PAGES, 1);
	for (size_t i = 0; i < sizeof budgets / sizeof budgets[0]; i++) {
		struct quire_stats s;

		CHECK_EQ(quire_set_memory(q, budgets[i]), 0);
		CHECK_EQ(quire_memory(q), budgets[i]);
		s = pager_stats(q);
		CHECK(s.resident + s.standby + s.buffers <= budgets[i]);
		CHECK(mapped(r, 0, PAGES) <= budgets[i] / PAGE);
		CHECK_EQ(wrong(r, 0, PAGES, 1 + (unsigned)i), 0);
		fill(r, 0, PAGES, 2 + (unsigned)i);
		plausible(q, budgets[i]);
	}
	/* With memory for all of it, all of it stays. */
	CHECK_EQ(quire_set_memory(q, 24 * MIB), 0);
	CHECK_EQ(wrong(r, 0, PAGES, 7), 0);
	CHECK(mapped(r, 0, PAGES) >= PAGES * 9 / 10);
	CHECK_EQ(quire_close(q), 0);
}

static void two_regions(void)
{
	quire_t *q = pager_open(BUDGET);
	quire_region_t *a = region_create(q, 8 * MIB), *b = region_create(q, 4 * MIB);
	struct quire_stats sa, sb, s;

	fill(a, 0, 2048, 1);
	fill(b, 0, 1024, 2);
	CHECK_EQ(wrong(a, 0, 2048, 1), 0);
	CHECK_EQ(wrong(b, 0, 1024, 2), 0);
	sleep_seconds(0.1); /* until the background is quiet */
	s = pager_stats(q), sa = region_stats(a), sb = region_stats(b);
	CHECK_EQ(sa.resident + sb.resident, s.resident);
	CHECK_EQ(sa.swapped + sb.swapped, s.swapped);
	CHECK_EQ(sa.standby + sb.standby, s.standby);
	CHECK_EQ(sa.major_faults + sb.major_faults, s.major_faults);
	CHECK_EQ(sa.zero_fills + sb.zero_fills, s.zero_fills);
	CHECK_EQ(sa.pages_in + sb.pages_in, s.pages_in);
	CHECK_EQ(sa.reserved, 8 * MIB);
	CHECK_EQ(sa.budget, 0);
	CHECK_EQ(quire_region_destroy(a), 0);
	CHECK_EQ(wrong(b, 0, 1024, 2), 0);
	s = pager_stats(q);
	CHECK_EQ(s.reserved, 4 * MIB);
	CHECK(s.swapped + s.resident + s.standby <= 4 * MIB + s.budget);
	CHECK_EQ(quire_close(q), 0);
}

static void protection(void)
{
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);
	struct caught c;

	fill(r, 0, PAGES, 1);
	CHECK_EQ(quire_protect(r, 8 * PAGE, 8 * PAGE, PROT_READ), 0);
	for (size_t p = 8; p < 16; p++) { /* on the swap file, then in memory */
		uint64_t *at = (uint64_t *)page_at(r, p) + 17;

		for (int i = 0; i < 2; i++) {
			c = try_store(at, 1);
			CHECK(c.signal == SIGSEGV || c.signal == SIGBUS);
			CHECK(c.address == (void *)at);
			CHECK_EQ(wrong(r, p, 1, 1), 0);
		}
	}
	fill(r, 7, 1, 2);
	fill(r, 16, 1, 2);
	CHECK_EQ(wrong(r, 17, PAGES - 17, 1), 0);
	CHECK_EQ(wrong(r, 8, 8, 1), 0);
	c = try_store(page_at(r, 9), 1);
	CHECK(c.signal != 0); /* it has been out and in again */
	CHECK_EQ(quire_protect(r, 8 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE), 0);
	fill(r, 8, 8, 2);
	CHECK_EQ(wrong(r, 7, 10, 2), 0);
	CHECK_EQ(wrong(r, 17, PAGES - 17, 1), 0);
	CHECK_EQ(wrong(r, 7, 10, 2), 0);
	CHECK_EQ(quire_close(q), 0);
}

/* read(2) and write(2) on absent pages work under an engine that serves the kernel. */
static void system_calls(void)
{
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);
	int fds[2];

	if (!engine_serves_kernel(q)) {
		note_skipped("system calls on absent pages", "the engine cannot serve them");
		CHECK_EQ(quire_close(q), 0);
		return;
	}
	fill(r, 0, PAGES, 1);
	REQUIRE(pipe(fds) == 0);
	for (size_t p = 0; p < 512; p++) {
		CHECK_EQ(write(fds[1], page_at(r, p), PAGE), PAGE);
		CHECK_EQ(read(fds[0], page_at(r, p + 1024), PAGE), PAGE);
	}
	CHECK_EQ(wrong(r, 512, 512, 1), 0);
	for (size_t p = 0; p < 512; p++)
		CHECK_EQ(wrong_page(page_at(r, p + 1024), p, 1), 0);
	close(fds[0]);
	close(fds[1]);
	CHECK_EQ(quire_close(q), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(fill_and_verify),
		                                  UNIT(random_order),
		                                  UNIT(zero_pages),
		                                  UNIT(discards),
		                                  UNIT(willneed),
		                                  UNIT(cold),
		                                  UNIT(pins),
		                                  UNIT(pins_too_many),
		                                  UNIT(budget_changes),
		                                  UNIT(two_regions),
		                                  UNIT(protection),
		                                  UNIT(system_calls),
		                                  UNIT_END };

	catch_install();
	return unit_main(argc, argv, "basics", tests);
}
