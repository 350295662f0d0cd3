/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/metadata.c - the budget as a promise: resident memory of
 * the process stays within budget + metadata + 4 MiB whatever the load, and
 * metadata below 1% of what was touched. A thread looks every millisecond.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <pthread.h>

#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define SLACK (4 * MIB)
#define BUDGET (16 * MIB)
#define PAGES ((size_t)24576) /* 96 MiB */

static quire_t *q;
static bool stop;
static size_t baseline, worst, worst_statistics;
static unsigned looks;
static size_t ceiling; /* atomic: the budget, the higher one while it is changed */

static void *look(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		size_t high = __atomic_load_n(&ceiling, __ATOMIC_SEQ_CST);
		struct quire_stats a = pager_stats(q), b;
		size_t now = resident_bytes(), limit;

		b = pager_stats(q);
		high = MAX(high, __atomic_load_n(&ceiling, __ATOMIC_SEQ_CST));
		limit = high + MAX(a.metadata, b.metadata) + SLACK;
		if (now > baseline + limit && now - baseline - limit > worst)
			worst = now - baseline - limit;
		if (b.resident > high && b.resident - high > worst_statistics)
			worst_statistics = b.resident - high;
		looks++;
		sleep_seconds(0.001);
	}
	return NULL;
}

static void change_budget(size_t budget)
{
	size_t old = quire_memory(q);

	if (budget > old)
		__atomic_store_n(&ceiling, budget, __ATOMIC_SEQ_CST);
	CHECK_EQ(quire_set_memory(q, budget), 0);
	__atomic_store_n(&ceiling, budget, __ATOMIC_SEQ_CST);
}

static void *random_work(void *arg)
{
	quire_region_t *r = arg;
	uint64_t random = (uintptr_t)&random;

	for (int i = 0; i < (int)quick_or_full(3000, 100000); i++) {
		size_t p;

		random = random * 6364136223846793005u + 1442695040888963407u;
		p = (random >> 33) % PAGES;
		if (i % 2)
			store((uint64_t *)page_at(r, p) + 500, random);
		else
			load(page_at(r, p));
	}
	return NULL;
}

static void dense(void)
{
	enum { WORKERS = 4 };
	struct quire_stats s;
	pthread_t looker, worker[WORKERS];
	quire_region_t *r;

	resident_bytes();
	baseline = resident_bytes();
	ceiling = BUDGET;
	q = pager_open(BUDGET);
	r = region_create(q, PAGES * PAGE);
	MUST(!pthread_create(&looker, NULL, look, NULL));
	fill(r, 0, PAGES, 1);
	s = pager_stats(q);
	printf("%zu MiB touched: %.3f%% of metadata\n", PAGES * PAGE >> 20,
	       100.0 * (double)s.metadata / (double)(PAGES * PAGE));
	CHECK(s.metadata < PAGES * PAGE / 100);
	CHECK(s.metadata > 0);
	for (int i = 0; i < WORKERS; i++)
		MUST(!pthread_create(&worker[i], NULL, random_work, r));
	for (int i = 0; i < WORKERS; i++)
		pthread_join(worker[i], NULL);
	change_budget(BUDGET / 4);
	for (size_t p = 0; p < PAGES; p += 3)
		load(page_at(r, p));
	change_budget(BUDGET / 2);
	for (size_t p = PAGES; p-- > PAGES / 2;)
		store(page_at(r, p), p);
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	pthread_join(looker, NULL);
	s = pager_stats(q);
	printf("in the end: %.3f%%\n", 100.0 * (double)s.metadata / (double)(PAGES * PAGE));
	CHECK(s.metadata < PAGES * PAGE / 100);
	CHECK(looks > 20);
	CHECK_EQ(worst_statistics, 0);
	printf("looked %u times; over the limit by at most %zu KiB\n", looks, worst >> 10);
	if (SANITIZED)
		note_skipped("resident memory", "the sanitizer has memory of its own");
	else
		CHECK_EQ(worst, 0);
	CHECK(s.peak_resident <= BUDGET);
	CHECK_EQ(quire_close(q), 0);
	if (!SANITIZED)
		CHECK(resident_bytes() <= baseline + MIB);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(dense), UNIT_END };

	return unit_main(argc, argv, "metadata", tests);
}
