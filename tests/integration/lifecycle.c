/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/lifecycle.c - pagers and regions come and go: several at a
 * time, thousands one after another without growth, and under the feet of
 * threads that use them.
 *
 * test: matrix
 * test: timeout=120
 */
#define _GNU_SOURCE
#include "support.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX(a, b) ((a) > (b) ? (a) : (b))

static void two_pagers(void)
{
	quire_t *a = pager_open(MIB), *b = pager_open(2 * MIB);
	quire_region_t *ra = region_create(a, 6 * MIB), *rb = region_create(b, 8 * MIB);

	for (size_t p = 0; p < 1536; p += 64) {
		fill(ra, p, 64, 1);
		fill(rb, p, 64, 2);
		CHECK(pager_stats(a).resident <= MIB);
		CHECK(pager_stats(b).resident <= 2 * MIB);
	}
	CHECK_EQ(wrong(ra, 0, 1536, 1), 0);
	CHECK_EQ(wrong(rb, 0, 1536, 2), 0);
	CHECK_EQ(pager_stats(a).reserved, 6 * MIB);
	CHECK_EQ(quire_close(a), 0);
	CHECK_EQ(wrong(rb, 0, 1536, 2), 0);
	fill(rb, 0, 2048, 3);
	a = pager_open(MIB);
	ra = region_create(a, 4 * MIB);
	fill(ra, 0, 1024, 4);
	CHECK_EQ(quire_close(b), 0);
	CHECK_EQ(wrong(ra, 0, 1024, 4), 0);
	CHECK_EQ(quire_close(a), 0);
}

struct footprint {
	size_t resident;
	unsigned mappings, descriptors, threads;
};

static struct footprint footprint(void)
{
	return (struct footprint){ resident_bytes(), mappings(), descriptors(), threads() };
}

/*
 * mappings: of which there may be more. Without guard pages (engine sigsegv) each page
 * that is in memory may be one.
 */
static void no_growth(struct footprint was, size_t slack, size_t mappings)
{
	struct footprint is = footprint();

	CHECK(is.resident <= was.resident + slack);
	CHECK(is.mappings <= was.mappings + mappings);
	CHECK_EQ(is.descriptors, was.descriptors);
	CHECK_EQ(is.threads, was.threads);
	printf("resident %zu -> %zu KiB, mappings %u -> %u, descriptors %u -> %u, "
	       "threads %u -> %u\n",
	       was.resident >> 10, is.resident >> 10, was.mappings, is.mappings, was.descriptors,
	       is.descriptors, was.threads, is.threads);
}

static void region_rounds(void)
{
	int rounds = (int)quick_or_full(1200, 40000);
	quire_t *q = pager_open(MIB);
	quire_region_t *keep = region_create(q, 2 * MIB);
	uint64_t metadata = 0;
	double began, slowest = 0;
	struct footprint was;

	unit_seed();
	fill(keep, 0, 512, 1);
	for (int i = 0; i < rounds; i++) {
		size_t pages = 1 + unit_below(i % 50 ? 64 : 2000);
		quire_region_t *r = region_create(q, pages * PAGE);
		size_t used = 1 + unit_below(pages < 32 ? pages : i % 50 ? 32 : pages);

		fill(r, 0, used, (unsigned)i);
		if (i % 7 == 0 && used < 100 && quire_pin(r, 0, PAGE))
			REQUIRE(!"a pin");
		if (wrong(r, 0, used, (unsigned)i) || (used < pages && nonzero(r, used, 1)))
			REQUIRE(!"a wrong page");
		if (i % 16 == 0)
			quire_advise(r, 0, pages * PAGE, QUIRE_ADVISE_WILLNEED);
		began = seconds_now();
		REQUIRE_EQ(quire_region_destroy(r), 0);
		slowest = MAX(slowest, seconds_now() - began);
		if (i == rounds / 4) {
			was = footprint();
			metadata = pager_stats(q).metadata;
		}
	}
	printf("slowest destroy: %.1f ms\n", slowest * 1e3);
	CHECK(slowest < 1); /* none waited for memory that only it could give back */
	CHECK_EQ(wrong(keep, 0, 512, 1), 0);
	CHECK_EQ(pager_stats(q).reserved, 2 * MIB);
	CHECK_EQ(pager_stats(q).pinned, 0);
	CHECK(pager_stats(q).swapped + pager_stats(q).resident + pager_stats(q).standby <=
	      2 * MIB + MIB);
	CHECK(pager_stats(q).metadata <= metadata + 256 * KIB);
	/* The budget may have been less full then. */
	no_growth(was, MIB + 512 * KIB, engine_splits(q) ? 2 * MIB / PAGE : 4);
	CHECK_EQ(quire_close(q), 0);
}

/* Of a region that has gone no memory stays behind, other than the records of frames and slots. */
static void memory_returns(void)
{
	quire_t *q = pager_open(16 * MIB);
	quire_region_t *keep = region_create(q, MIB);
	double until;

	for (int round = 0; round < 3; round++) {
		quire_region_t *r = region_create(q, 48 * MIB);
		struct quire_stats s;

		fill(keep, 0, 256, 1);
		fill(r, 0, 12288, 2);
		s = pager_stats(q);
		CHECK(s.resident + s.standby + s.buffers > 8 * MIB);
		REQUIRE_EQ(quire_region_destroy(r), 0);
		/* A cluster may stay for the next batch. Writes in flight have to end first. */
		until = seconds_now() + 5;
		while ((s = pager_stats(q)).buffers > 64 * PAGE && seconds_now() < until)
			sleep_seconds(0.01);
		printf("resident %zu, standby %zu, buffers %zu KiB\n", (size_t)s.resident >> 10,
		       (size_t)s.standby >> 10, (size_t)s.buffers >> 10);
		CHECK(s.buffers <= 64 * PAGE);
		CHECK(s.resident + s.standby <= MIB);
		CHECK_EQ(wrong(keep, 0, 256, 1), 0);
	}
	CHECK_EQ(quire_close(q), 0);
}

static void pager_rounds(void)
{
	int rounds = (int)quick_or_full(60, 2000);
	struct footprint was;

	for (int i = 0; i < rounds; i++) {
		quire_t *q = pager_open(QUIRE_MEMORY_MIN);
		quire_region_t *r = region_create(q, 200 * PAGE);

		region_create(q, GIB); /* left to quire_close */
		fill(r, 0, 200, 1);
		if (wrong(r, 0, 200, 1))
			REQUIRE(!"a wrong page");
		if (i % 2)
			REQUIRE_EQ(quire_region_destroy(r), 0);
		REQUIRE_EQ(quire_close(q), 0);
		if (i == rounds / 4)
			was = footprint();
	}
	no_growth(was, MIB, 4);
}

/* ------------------------------------------- under the users' feet */

enum { USERS = 4 };

static quire_t *q;
static quire_region_t *victim, *bystander;
static unsigned stopped;
static __thread sigjmp_buf jump;
static __thread volatile sig_atomic_t using;

static void on_fault(int number)
{
	if (!using) {
		signal(number, SIG_DFL);
		raise(number);
		return;
	}
	using = 0;
	siglongjmp(jump, 1);
}

/* Touches the region until it is gone. */
static void *use(void *arg)
{
	uint64_t *base = quire_region_base(victim);
	uint64_t random = (uintptr_t)arg;

	if (!sigsetjmp(jump, 1)) {
		using = 1;
		for (;;) {
			random = random * 6364136223846793005u + 1442695040888963407u;
			store(base + (random >> 33) % 1024 * (PAGE / 8) + 3, random);
			load(base + (random >> 35) % 1024 * (PAGE / 8));
		}
	}
	__atomic_fetch_add(&stopped, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void under_feet(void *whole)
{
	struct sigaction a = { .sa_handler = on_fault };
	struct rlimit none = { 0, 0 };
	pthread_t t[USERS];

	setrlimit(RLIMIT_CORE, &none);
	sigemptyset(&a.sa_mask);
	sigaction(SIGBUS, &a, NULL);
	sigaction(SIGSEGV, &a, NULL);
	for (int round = 0; round < 6; round++) {
		stopped = 0;
		q = pager_open(QUIRE_MEMORY_MIN * 2);
		victim = region_create(q, 4 * MIB);
		bystander = region_create(q, MIB);
		fill(bystander, 0, 256, 1);
		for (uintptr_t i = 0; i < USERS; i++)
			MUST(!pthread_create(&t[i], NULL, use, (void *)(i + 1)));
		sleep_seconds(0.01 + 0.007 * round);
		if (whole) {
			MUST(quire_close(q) == 0);
		} else {
			MUST(quire_region_destroy(victim) == 0);
			MUST(wrong(bystander, 0, 256, 1) == 0);
		}
		for (int i = 0; i < USERS; i++)
			MUST(!pthread_join(t[i], NULL));
		MUST(stopped == USERS);
		if (!whole) {
			MUST(wrong(bystander, 0, 256, 1) == 0);
			MUST(quire_close(q) == 0);
		}
	}
}

static void ends_somehow(int status)
{
	bool ended = status == 0 || (status > 0 && WIFSIGNALED(status) &&
	                             (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS));

	if (!ended)
		printf("status %#x\n", status);
	CHECK(ended);
}

static void destroy_in_use(void)
{
	ends_somehow(in_child(under_feet, NULL, 20));
}

static void close_in_use(void)
{
	ends_somehow(in_child(under_feet, (void *)1, 20));
}

/* Threads that make and give up regions of one pager at a time. */
static void *churn(void *arg)
{
	unsigned v = (unsigned)(uintptr_t)arg;

	for (int i = 0; i < 150; i++) {
		quire_region_t *r = region_create(q, (size_t)(16 + i) * PAGE);

		fill(r, 0, 16, v);
		if (wrong(r, 0, 16, v) || quire_region_destroy(r))
			__atomic_fetch_add(&stopped, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void concurrent_churn(void)
{
	pthread_t t[USERS];

	stopped = 0;
	q = pager_open(QUIRE_MEMORY_MIN * 2);
	for (uintptr_t i = 0; i < USERS; i++)
		MUST(!pthread_create(&t[i], NULL, churn, (void *)(i + 1)));
	for (int i = 0; i < USERS; i++)
		pthread_join(t[i], NULL);
	CHECK_EQ(stopped, 0);
	CHECK_EQ(pager_stats(q).reserved, 0);
	CHECK_EQ(pager_stats(q).resident, 0);
	CHECK_EQ(pager_stats(q).swapped, 0);
	CHECK_EQ(quire_close(q), 0);
}

static void *open_and_close(void *arg)
{
	(void)arg;
	for (int i = 0; i < 20; i++) {
		quire_t *mine = pager_open(QUIRE_MEMORY_MIN);
		quire_region_t *r = region_create(mine, 100 * PAGE);

		fill(r, 0, 100, 1);
		if (wrong(r, 0, 100, 1) || quire_close(mine))
			__atomic_fetch_add(&stopped, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void concurrent_pagers(void)
{
	pthread_t t[USERS];

	stopped = 0;
	for (uintptr_t i = 0; i < USERS; i++)
		MUST(!pthread_create(&t[i], NULL, open_and_close, NULL));
	for (int i = 0; i < USERS; i++)
		pthread_join(t[i], NULL);
	CHECK_EQ(stopped, 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(destroy_in_use),   UNIT(close_in_use),      UNIT(two_pagers),
		UNIT(concurrent_churn), UNIT(concurrent_pagers), UNIT(region_rounds),
		UNIT(memory_returns),   UNIT(pager_rounds),      UNIT_END
	};

	return unit_main(argc, argv, "lifecycle", tests);
}
