/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/discard.c - the program's own madvise(MADV_DONTNEED) on a
 * region: it reads as zeros from then on and nothing hangs, whether the pages
 * were in memory, on the swap file or on their way.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#define BUDGET (MIB)
#define PAGES ((size_t)1024)

/* Linux 5.18 */
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

static void drop(quire_region_t *r, size_t page, size_t count)
{
	MUST(madvise(page_at(r, page), count * PAGE, MADV_DONTNEED) == 0);
}

static void in_memory(void *arg)
{
	quire_t *q = pager_open(4 * BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);

	(void)arg;
	for (unsigned v = 1; v < 6; v++) {
		fill(r, 0, 512, v);
		drop(r, 10, 300);
		MUST(nonzero(r, 10, 300) == 0);
		MUST(wrong(r, 0, 10, v) == 0 && wrong(r, 310, 202, v) == 0);
		fill(r, 10, 300, v);
		MUST(wrong(r, 0, 512, v) == 0);
		drop(r, 0, PAGES);
		MUST(nonzero(r, 0, PAGES) == 0);
	}
	MUST(quire_close(q) == 0);
}

static void on_swap(void *arg)
{
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);

	(void)arg;
	for (unsigned v = 1; v < 6; v++) {
		fill(r, 0, PAGES, v);
		drop(r, 10, 300); /* out by now */
		MUST(nonzero(r, 10, 300) == 0);
		drop(r, 600, PAGES - 600); /* some of it in */
		MUST(nonzero(r, 600, PAGES - 600) == 0);
		MUST(wrong(r, 0, 10, v) == 0 && wrong(r, 310, 290, v) == 0);
		fill(r, 10, 300, v);
		MUST(wrong(r, 0, 600, v) == 0);
		drop(r, 0, PAGES);
		MUST(nonzero(r, 0, PAGES) == 0);
	}
	MUST(quire_close(q) == 0);
}

/* A page read back, clean, still has its slot; and a discard of a discard. */
static void clean_and_twice(void *arg)
{
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);

	(void)arg;
	fill(r, 0, PAGES, 1);
	MUST(wrong(r, 0, 100, 1) == 0);
	drop(r, 0, 100);
	drop(r, 0, 100);
	MUST(nonzero(r, 0, 50) == 0);
	drop(r, 0, 100);
	MUST(wrong(r, 100, PAGES - 100, 1) == 0);
	MUST(nonzero(r, 0, 100) == 0);
	/* The other advice that promises zeros: some of these pages are on the swap file only. */
	MUST(madvise(page_at(r, 100), 300 * PAGE, MADV_DONTNEED_LOCKED) == 0);
	MUST(nonzero(r, 100, 300) == 0);
	MUST(quire_close(q) == 0);
}

/* Locked memory is ours to page (quire.h), and so to discard. */
static void of_locked_memory(void *arg)
{
	quire_t *q = pager_open(4 * BUDGET);
	quire_region_t *r = region_create(q, 256 * PAGE);

	(void)arg;
	fill(r, 0, 256, 3);
	MUST(mlock(page_at(r, 0), 256 * PAGE) == 0);
	MUST(quire_advise(r, 0, 16 * PAGE, QUIRE_ADVISE_DONTNEED) == 0);
	MUST(madvise(page_at(r, 16), 16 * PAGE, MADV_DONTNEED_LOCKED) == 0);
	MUST(madvise(page_at(r, 32), 16 * PAGE, MADV_DONTNEED) == 0);
	MUST(nonzero(r, 0, 48) == 0);
	MUST(wrong(r, 48, 208, 3) == 0);
	MUST(quire_close(q) == 0);
}

/* A range that begins before a region, and one that goes on behind it, are discarded where it has part in them. */
static void across_the_ends(void *arg)
{
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, PAGES * PAGE);
	char *before = page_at(r, 0);

	(void)arg;
	fill(r, 0, PAGES, 4);
	before -= PAGE;
	MUST(madvise(before, (PAGES - 100 + 1) * PAGE, MADV_DONTNEED) == 0);
	MUST(nonzero(r, 0, PAGES - 100) == 0);
	MUST(wrong(r, PAGES - 100, 100, 4) == 0);
	MUST(madvise(page_at(r, PAGES - 50), 51 * PAGE, MADV_DONTNEED) == 0);
	MUST(nonzero(r, PAGES - 50, 50) == 0);
	MUST(wrong(r, PAGES - 100, 50, 4) == 0);
	/* A pinned page says so, from there as well. */
	fill(r, 0, 8, 5);
	MUST(quire_pin(r, 0, PAGE) == 0);
	errno = 0;
	MUST(madvise(before, 2 * PAGE, MADV_DONTNEED) == -1 && errno == EINVAL);
	MUST(wrong(r, 0, 8, 5) == 0);
	MUST(quire_unpin(r, 0, PAGE) == 0);
	MUST(quire_close(q) == 0);
}

static bool stop;

struct thrasher {
	quire_region_t *r;
	size_t page, count;
};

/* Keeps the evicting going. */
static void *thrash(void *arg)
{
	struct thrasher *t = arg;

	for (unsigned v = 1; !__atomic_load_n(&stop, __ATOMIC_RELAXED); v++) {
		fill(t->r, t->page, t->count, v);
		MUST(wrong(t->r, t->page, t->count, v) == 0);
	}
	return NULL;
}

static void *discard(void *arg)
{
	struct thrasher *t = arg;
	uint64_t random = t->page + 1;

	for (unsigned v = 1; !__atomic_load_n(&stop, __ATOMIC_RELAXED); v++) {
		size_t from, n;

		random = random * 6364136223846793005u + 1442695040888963407u;
		from = (random >> 33) % t->count;
		n = 1 + (random >> 20) % (t->count - from);
		fill(t->r, t->page, t->count, v);
		if (v % 3 == 0)
			sleep_seconds(0.0005);
		drop(t->r, t->page + from, n);
		MUST(nonzero(t->r, t->page + from, n) == 0);
		MUST(wrong(t->r, t->page, from, v) == 0);
		MUST(wrong(t->r, t->page + from + n, t->count - from - n, v) == 0);
	}
	return NULL;
}

static void while_evicting(void *arg)
{
	enum { THREADS = 4 };
	quire_t *q = pager_open(BUDGET / 2);
	quire_region_t *r = region_create(q, PAGES * PAGE);
	struct thrasher part[THREADS];
	pthread_t thread[THREADS];

	(void)arg;
	for (int i = 0; i < THREADS; i++) {
		part[i] = (struct thrasher){ r, PAGES / THREADS * (size_t)i, i < 2 ? 200 : 60 };
		MUST(!pthread_create(&thread[i], NULL, i < 2 ? thrash : discard, &part[i]));
	}
	sleep_seconds(quick_or_full(1.2, 30));
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	MUST(quire_close(q) == 0);
}

static void resident_pages(void)
{
	CHECK_EQ(in_child(in_memory, NULL, 10), 0);
}

static void swapped_pages(void)
{
	CHECK_EQ(in_child(on_swap, NULL, 10), 0);
}

static void clean_pages_and_twice(void)
{
	CHECK_EQ(in_child(clean_and_twice, NULL, 10), 0);
}

static void locked_pages(void)
{
	CHECK_EQ(in_child(of_locked_memory, NULL, 10), 0);
}

static void part_of_a_range(void)
{
	CHECK_EQ(in_child(across_the_ends, NULL, 10), 0);
}

static void beside_eviction(void)
{
	CHECK_EQ(in_child(while_evicting, NULL, quick_or_full(15, 60)), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(resident_pages),
		                                  UNIT(swapped_pages),
		                                  UNIT(clean_pages_and_twice),
		                                  UNIT(locked_pages),
		                                  UNIT(part_of_a_range),
		                                  UNIT(beside_eviction),
		                                  UNIT_END };

	/* No engine at all is found out here, not in the children. */
	quire_close(pager_open(BUDGET));
	return unit_main(argc, argv, "discard", tests);
}
