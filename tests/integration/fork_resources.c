/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/fork_resources.c - what a pager takes in a child of fork(2): its budget,
 * threads and descriptors are the child's own, and are given back. And where there is none to
 * be had, the child is told.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 128 };

#define BUDGET (80 * PAGE)

static quire_t *q;
static quire_region_t *r;
static struct errors errors;
static unsigned bare; /* descriptors without a pager */

static void begin(void)
{
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET,
		                   .on_error = errors_count,
		                   .on_error_arg = &errors };

	memset(&errors, 0, sizeof errors);
	bare = descriptors();
	q = pager_open_options(&o);
	r = region_create(q, PAGES * PAGE);
	fill(r, 0, PAGES, 1);
}

/* A thread that was joined may be seen a moment longer. */
static bool alone(void)
{
	for (int i = 0; i < 500 && threads() > 1; i++)
		sleep_seconds(0.002);
	return threads() == 1;
}

/* --------------------------------------------------------------- the budget */

/* The figures of a pager at work are not of one instant: those of a batch are counted twice, or not. */
static bool within_budget(void)
{
	struct quire_stats s = { 0 };

	for (int i = 0; i < 100; i++) {
		s = pager_stats(q);
		if (s.budget == BUDGET && s.resident <= BUDGET &&
		    s.resident + s.standby + s.buffers <= BUDGET)
			return true;
		sleep_seconds(0.001);
	}
	printf("resident %zu, standby %zu, buffers %zu of %zu KiB\n", (size_t)s.resident >> 10,
	       (size_t)s.standby >> 10, (size_t)s.buffers >> 10, (size_t)s.budget >> 10);
	return false;
}

static void keep_budget(void *arg)
{
	(void)arg;
	MUST(quire_memory(q) == BUDGET && within_budget());
	for (unsigned v = 2; v < 5; v++) {
		for (size_t p = 0; p < PAGES; p += 32) {
			fill(r, p, 32, v);
			MUST(within_budget());
		}
		MUST(wrong(r, 0, PAGES, v) == 0 && within_budget());
		MUST(mapped(r, 0, PAGES) * PAGE <= BUDGET);
	}
	MUST(quire_set_memory(q, QUIRE_MEMORY_MIN) == 0);
	MUST(pager_stats(q).budget == QUIRE_MEMORY_MIN);
	MUST(wrong(r, 0, PAGES, 4) == 0);
	MUST(mapped(r, 0, PAGES) * PAGE <= QUIRE_MEMORY_MIN);
}

static void budgets(void)
{
	pid_t pid;

	begin();
	pid = child_start(keep_budget, NULL);
	for (unsigned v = 2; v < 5; v++) {
		fill(r, 0, PAGES, v);
		CHECK(within_budget());
	}
	CHECK_EQ(child_end(pid, 20), 0);
	CHECK_EQ(quire_memory(q), BUDGET);
	CHECK_EQ(wrong(r, 0, PAGES, 4), 0);
	CHECK_EQ(quire_close(q), 0);
}

/* ------------------------------------------------- descriptors and threads */

static unsigned threads_before, descriptors_before;

/* Under sigsegv, a file that it still has pages in, and by which it knows that its parent lives. */
static unsigned of_its_parent(void)
{
	return strcmp(quire_engine_name(q), "sigsegv") == 0 ? 2 : 0;
}

static void same_as_parent(void *arg)
{
	bool closes = arg;

	descriptors_before += of_its_parent();
	MUST(descriptors() <= descriptors_before);
	MUST(wrong(r, 0, 40, 1) == 0);
	fill(r, 20, 40, 2);
	MUST(wrong(r, 20, 40, 2) == 0);
	MUST(threads() == threads_before);
	MUST(descriptors() <= descriptors_before);
	if (!closes)
		return;
	MUST(quire_close(q) == 0);
	MUST(descriptors() == bare);
	MUST(alone());
}

static void nothing_leaks(void)
{
	unsigned first;

	begin();
	threads_before = threads();
	descriptors_before = descriptors() + 2;
	/* The first has this process open what it shares with its children. */
	CHECK_EQ(in_child(same_as_parent, NULL, 20), 0);
	first = descriptors();
	for (int i = 0; i < (int)quick_or_full(50, 400); i++) {
		threads_before = threads();
		descriptors_before = descriptors();
		CHECK_EQ(in_child(same_as_parent, i % 10 ? NULL : &q, 20), 0);
	}
	CHECK_EQ(descriptors(), first);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(quire_close(q), 0);
	CHECK_EQ(descriptors(), bare);
	CHECK(alone());
}

static void grow_by_one(void *arg)
{
	unsigned left = (unsigned)(uintptr_t)arg;

	MUST(descriptors() <= descriptors_before + of_its_parent());
	MUST(wrong(r, 0, 20, 1) == 0);
	if (left)
		MUST(in_child(grow_by_one, (void *)(uintptr_t)(left - 1), 20) == 0);
	else
		MUST(quire_close(q) == 0 && descriptors() == bare);
}

/* Each is the child of one that has a child. */
static void generations_take_no_more(void)
{
	begin();
	descriptors_before = descriptors() + 2;
	CHECK_EQ(in_child(grow_by_one, (void *)6, 30), 0);
	CHECK_EQ(quire_close(q), 0);
	CHECK_EQ(descriptors(), bare);
}

/* ---------------------------------------------------------- either order */

static int go[2];

static void close_after(void *arg)
{
	char c;

	(void)arg;
	close(go[1]);
	MUST(read(go[0], &c, 1) == 0);
	MUST(wrong(r, 0, PAGES, 1) == 0);
	fill(r, 0, PAGES, 2);
	MUST(wrong(r, 0, PAGES, 2) == 0 && quire_close(q) == 0);
	q = pager_open(BUDGET);
	r = region_create(q, PAGES * PAGE);
	fill(r, 0, PAGES, 3);
	MUST(wrong(r, 0, PAGES, 3) == 0 && quire_close(q) == 0);
}

static void close_before(void *arg)
{
	void *base = quire_region_base(r);

	(void)arg;
	MUST(quire_close(q) == 0);
	MUST(try_load(base).signal == SIGSEGV);
}

static void closed_in_either_order(void)
{
	pid_t pid;

	catch_install();
	begin();
	CHECK_EQ(in_child(close_before, NULL, 20), 0);
	fill(r, 0, 20, 1);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	MUST(pipe(go) == 0);
	pid = child_start(close_after, NULL);
	close(go[0]);
	CHECK_EQ(quire_close(q), 0);
	close(go[1]);
	CHECK_EQ(child_end(pid, 20), 0);
}

/* ------------------------------------------------------ none to be had */

enum { SERVED, TOLD };

/* Told once, and then nothing is served and nothing is wrong: it is out of reach. */
static void out_of_reach(void)
{
	quire_region_t *other = NULL;

	MUST(errors.kinds[QUIRE_ERROR_FORK] == 1 && errors.count == 1);
	for (size_t p = 0; p < PAGES; p += 17) {
		MUST(try_load(page_at(r, p)).signal == SIGSEGV);
		MUST(try_store(page_at(r, p), 1).signal == SIGSEGV);
	}
	MUST(quire_region_create(q, PAGE, NULL, &other) < 0);
	MUST(quire_set_memory(q, 2 * BUDGET) < 0);
	MUST(quire_close(q) == 0);
}

static void served_or_told(void *arg)
{
	(void)arg;
	if (errors.count) {
		out_of_reach();
		_exit(TOLD);
	}
	MUST(wrong(r, 0, PAGES, 1) == 0);
	fill(r, 0, PAGES, 2);
	MUST(wrong(r, 0, PAGES, 2) == 0);
	MUST(quire_close(q) == 0);
	_exit(SERVED);
}

/* => what became of a child with so many descriptors at most */
static int fork_limited(rlim_t most)
{
	struct rlimit old, less;
	pid_t pid;
	int status;

	MUST(getrlimit(RLIMIT_NOFILE, &old) == 0);
	less = (struct rlimit){ most, old.rlim_max };
	MUST(setrlimit(RLIMIT_NOFILE, &less) == 0);
	pid = child_start(served_or_told, NULL);
	MUST(setrlimit(RLIMIT_NOFILE, &old) == 0);
	status = child_end(pid, 20);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void too_few_descriptors(void)
{
	unsigned count[2] = { 0 }, bad = 0, used;

	catch_install();
	begin();
	used = descriptors();
	for (unsigned most = 0; most <= used + 4; most += most ? 1 : 3) {
		int end = fork_limited(most);

		bad += end != SERVED && end != TOLD;
		if (end == SERVED || end == TOLD)
			count[end]++;
		CHECK_EQ(wrong(r, 0, 16, 1), 0);
	}
	printf("served %u, told %u\n", count[SERVED], count[TOLD]);
	CHECK_EQ(bad, 0);
	CHECK(count[SERVED] > 0 && count[TOLD] > 0);
	CHECK_EQ(errors.count, 0);
	CHECK_EQ(fork_limited(used + 64), SERVED);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(quire_close(q), 0);
	CHECK_EQ(descriptors(), bare);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(budgets),
		                                  UNIT(nothing_leaks),
		                                  UNIT(generations_take_no_more),
		                                  UNIT(closed_in_either_order),
		                                  UNIT(too_few_descriptors),
		                                  UNIT_END };

	return unit_main(argc, argv, "fork_resources", tests);
}
