/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/limits.c - a process whose limits are narrow: writable memory
 * (RLIMIT_DATA). A pager takes what it can get and goes on with that; what cannot
 * be is refused in words, or by SIGBUS, and can be had when the limit allows it.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#define BUDGET (4 * MIB)

/* A soft limit. => the one before */
static rlim_t limit(int what, rlim_t to)
{
	struct rlimit l;
	rlim_t old;

	MUST(getrlimit(what, &l) == 0);
	old = l.rlim_cur;
	l.rlim_cur = to;
	MUST(setrlimit(what, &l) == 0);
	return old;
}

/* ---------------------------------------------------- writable memory */

enum { THREADS = 4, PAGES = 8192, ACCESSES = 6000 };

static pthread_barrier_t barrier;
static quire_region_t *shared;

/* Each thread its own pages, in any order. */
static void *work(void *arg)
{
	size_t mine = (size_t)(uintptr_t)arg;
	uint64_t x = mine + 1;

	pthread_barrier_wait(&barrier);
	for (size_t page = mine; page < PAGES; page += THREADS)
		fill_page(page_at(shared, page), page, 1);
	for (int i = 0; i < ACCESSES; i++) {
		size_t page;

		x = x * 6364136223846793005u + 1442695040888963407u;
		page = (size_t)(x >> 33) % (PAGES / THREADS) * THREADS + mine;
		MUST(wrong_page(page_at(shared, page), page, 1) == 0);
		if (x >> 20 & 1)
			fill_page(page_at(shared, page), page, 1);
	}
	return NULL;
}

/* No more buffers than a pager opens with: everything works, if slower. */
static void with_few_buffers(void *unused)
{
	struct errors errors = { .count = 0 };
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET,
		                   .on_error = errors_count,
		                   .on_error_arg = &errors };
	pthread_t thread[THREADS];
	quire_t *q = pager_open_options(&o);

	(void)unused;
	shared = region_create(q, PAGES * PAGE);
	MUST(pthread_barrier_init(&barrier, NULL, THREADS + 1) == 0);
	for (size_t i = 0; i < THREADS; i++)
		MUST(pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)i) == 0);
	limit(RLIMIT_DATA, PAGE); /* 0 is none at all to the kernel */
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	MUST(pager_stats(q).pages_in > ACCESSES / 2);
	MUST(errors.count == 0);
	MUST(quire_close(q) == 0);
}

static void few_buffers(void)
{
	CHECK_EQ(in_child(with_few_buffers, NULL, 40), 0);
}

/* Records of pages that the kernel does not allow: an access is refused, until it does. */
static void few_records(void)
{
	struct errors errors = { .count = 0 };
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET,
		                   .on_error = errors_count,
		                   .on_error_arg = &errors };
	quire_t *q = pager_open_options(&o);
	quire_region_t *r = region_create(q, 4 * GIB);
	size_t far = 3 * GIB / PAGE;
	struct caught c;
	rlim_t old;

	store(page_at(r, 0), 1);
	old = limit(RLIMIT_DATA, PAGE);
	for (size_t page = 0; page < 16; page++)
		store(page_at(r, page), page);
	c = try_store(page_at(r, far), 1);
	CHECK_EQ(c.signal, SIGBUS);
	CHECK(c.address == page_at(r, far));
	CHECK(errors.count > 0);
	CHECK_EQ(errors.kinds[QUIRE_ERROR_NO_MEMORY], errors.count);
	CHECK_EQ(errors.last.offset, far * PAGE);
	CHECK_EQ(errors.last.error, ENOMEM);
	CHECK_EQ(try_load(page_at(r, far + 1)).signal, SIGBUS);
	CHECK_EQ(quire_advise(r, 0, 4 * GIB, QUIRE_ADVISE_COLD), 0);
	CHECK_EQ(quire_advise(r, GIB, 3 * GIB, QUIRE_ADVISE_DONTNEED), 0);
	limit(RLIMIT_DATA, old);
	sleep_seconds(0.2); /* a refusal stands for a moment */
	CHECK_EQ(try_store(page_at(r, far), 7).signal, 0);
	CHECK_EQ(load(page_at(r, far)), 7);
	CHECK_EQ(load(page_at(r, far + 1)), 0);
	for (size_t page = 0; page < 16; page++)
		CHECK_EQ(load(page_at(r, page)), page);
	CHECK_EQ(quire_close(q), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(few_buffers),
		UNIT(few_records),
		UNIT_END,
	};

	catch_install();
	return unit_main(argc, argv, "limits", tests);
}
