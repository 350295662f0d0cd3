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

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
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

/* A second pager beside the one of begin, whose I/O is by threads. */
static quire_t *second;
static quire_region_t *second_region;
static struct errors second_errors;

static void begin_two(void)
{
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET,
		                   .io = "sync",
		                   .on_error = errors_count,
		                   .on_error_arg = &second_errors };

	begin();
	memset(&second_errors, 0, sizeof second_errors);
	second = pager_open_options(&o);
	second_region = region_create(second, PAGES * PAGE);
	fill(second_region, 0, PAGES, 2);
}

/* Of that pager, which has version v: => was the child told? */
static bool is_told(const struct errors *e, quire_region_t *of, unsigned v)
{
	if (e->count == 0) {
		MUST(wrong(of, 0, PAGES, v) == 0);
		fill(of, 0, 40, v + 4);
		return false;
	}
	MUST(e->count == 1 && e->kinds[QUIRE_ERROR_FORK] == 1);
	for (size_t p = 0; p < PAGES; p += 31)
		MUST(try_load(page_at(of, p)).signal == SIGSEGV);
	return true;
}

/* Each pager by itself; what the process cannot have it has nothing of. => status: how many it has not */
static void has_some_of_two(void *arg)
{
	int told;

	(void)arg;
	alarm(20);
	told = is_told(&errors, r, 1) + is_told(&second_errors, second_region, 2);
	MUST(told < 2 || descriptors() == bare);
	MUST(quire_close(q) == 0);
	/* Nor has the second anything of the first one's. */
	MUST(second_errors.count || wrong(second_region, 0, 40, 6) == 0);
	MUST(quire_close(second) == 0 && descriptors() == bare && alone());
	_exit(told);
}

/* A child to which something is owed all the time, under sigsegv. */
static void stay(void *arg)
{
	(void)arg;
	alarm(60);
	pause();
}

static void has_both(void *arg)
{
	(void)arg;
	MUST(wrong(r, 0, 20, 1) == 0 && wrong(second_region, 0, 20, 2) == 0);
	MUST(errors.count + second_errors.count == 0);
}

/* Whatever fails, and how far it has come by then: the parent has afterwards what it had before. */
static void no_descriptor_is_lost(void)
{
	unsigned count[3] = { 0 }, steady;
	pid_t sibling;

	catch_install();
	begin_two();
	/* A failure before there is anything for children, too. */
	CHECK_EQ(child_end(child_start_short(has_some_of_two, NULL, 3), 20), 2 << 8);
	sibling = child_start(stay, NULL);
	CHECK_EQ(in_child(has_both, NULL, 20), 0);
	steady = descriptors();
	for (unsigned most = 3; most < steady + 6; most += most + 8 < steady ? 4 : 1) {
		int status = child_end(child_start_short(has_some_of_two, NULL, most), 20);

		CHECK(WIFEXITED(status) && WEXITSTATUS(status) <= 2);
		if (WIFEXITED(status) && WEXITSTATUS(status) <= 2)
			count[WEXITSTATUS(status)]++;
		CHECK_EQ(wrong(r, 0, 16, 1), 0);
		/* Under sigsegv a dead child's file is closed by the next fork. */
		CHECK_EQ(in_child(has_both, NULL, 20), 0);
		CHECK_EQ(descriptors(), steady);
	}
	printf("both %u, one %u, none %u\n", count[0], count[1], count[2]);
	CHECK(count[0] > 0 && count[1] > 0 && count[2] > 0);
	CHECK_EQ(errors.count + second_errors.count, 0);
	CHECK_EQ(wrong(r, 0, PAGES, 1) + wrong(second_region, 0, PAGES, 2), 0);
	CHECK_EQ(quire_close(q), 0);
	CHECK_EQ(quire_close(second), 0);
	CHECK_EQ(descriptors(), bare);
	kill(sibling, SIGKILL);
	CHECK(WIFSIGNALED(child_end(sibling, 20)));
}

/* -------------------------------------------------------- too few threads */

static pid_t limits_children; /* of this process; 0: none */
static int threads_left;

/* The library's calls come here, too. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*main)(void *), void *arg)
{
	static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	int error = EAGAIN;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
	if (!limits_children || getpid() == limits_children || threads_left > 0)
		error = real(thread, attr, main, arg);
	threads_left -= error == 0;
	return error;
}

/* Of the threads that two pagers want the first few can be had: none stays that nobody needs. */
static void too_few_threads(void)
{
	unsigned count[3] = { 0 }, steady;

	if (SANITIZED)
		return; /* they want the call for themselves */
	catch_install();
	begin_two();
	CHECK_EQ(in_child(has_both, NULL, 20), 0);
	steady = descriptors();
	limits_children = getpid();
	for (int most = 0; most < 24 && count[0] < 3; most++) {
		int status;

		threads_left = most;
		status = child_end(child_start(has_some_of_two, NULL), 20);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) <= 2);
		if (WIFEXITED(status) && WEXITSTATUS(status) <= 2)
			count[WEXITSTATUS(status)]++;
	}
	limits_children = 0;
	printf("both %u, one %u, none %u\n", count[0], count[1], count[2]);
	CHECK(count[0] > 0 && count[1] + count[2] > 0);
	CHECK_EQ(in_child(has_both, NULL, 20), 0);
	CHECK_EQ(descriptors(), steady);
	CHECK_EQ(wrong(r, 0, PAGES, 1) + wrong(second_region, 0, PAGES, 2), 0);
	CHECK_EQ(quire_close(q), 0);
	CHECK_EQ(quire_close(second), 0);
	CHECK_EQ(descriptors(), bare);
}

/* ------------------------------------------------------- places that are taken */

static char *taken; /* of the region, by a handler that comes before the library's; NULL: none */

/* A library that was loaded earlier has a handler of its own. */
static void take_place(void)
{
	char *p;

	if (!taken)
		return;
	p = mmap(taken, PAGE, PROT_READ | PROT_WRITE,
	         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (p == taken)
		*p = 42;
	else
		taken = NULL;
}

static void come_first(void)
{
	pthread_atfork(NULL, NULL, take_place);
}

/* Before the constructors of any library. */
__attribute__((section(".preinit_array"), used)) static void (*const earliest)(void) = come_first;

static void has_its_place(void *arg)
{
	(void)arg;
	/* Where the region's mappings come with the fork nobody can. */
	if (!taken) {
		MUST(strcmp(quire_engine_name(q), "sigsegv") != 0);
		MUST(errors.count == 0 && wrong(r, 0, PAGES, 1) == 0);
		return;
	}
	MUST(errors.kinds[QUIRE_ERROR_FORK] == 1 && *taken == 42);
	MUST(try_load(taken - PAGE).signal == SIGSEGV);
	*taken = 43;
	MUST(quire_region_destroy(r) == -ENODEV && quire_close(q) == 0 && *taken == 43);
}

static void what_is_there_stays(void)
{
	catch_install();
	begin();
	taken = page_at(r, 7);
	CHECK_EQ(in_child(has_its_place, NULL, 20), 0);
	CHECK(errors.count == 0);
	taken = NULL;
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(quire_close(q), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(budgets),
		                                  UNIT(nothing_leaks),
		                                  UNIT(generations_take_no_more),
		                                  UNIT(closed_in_either_order),
		                                  UNIT(too_few_descriptors),
		                                  UNIT(no_descriptor_is_lost),
		                                  UNIT(too_few_threads),
		                                  UNIT(what_is_there_stays),
		                                  UNIT_END };

	return unit_main(argc, argv, "fork_resources", tests);
}
