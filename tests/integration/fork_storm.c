/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/fork_storm.c - fork(2) again and again while other threads fault, write,
 * discard, pin, take snapshots and clone them, make regions and destroy them. Each child
 * looks at every page for what its writer can have written by then, uses all the calls, and
 * forks itself.
 *
 * A page has one writer, who counts: its first word, then its last, then, in memory that
 * all processes share, what it has done. So at any instant the first word is the last or
 * one more; and in a child neither is less than what was done before the fork, nor more than one
 * beyond what has been done by now. Of the pages that are discarded too, those are the even
 * counts.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WRITERS = 2, EACH = 72, OTHERS = 3, PAGES = WRITERS * EACH + 16 };

#define BUDGET QUIRE_MEMORY_MIN

static quire_t *q;
static quire_region_t *r;
static uint64_t *done;                  /* by page; shared with children */
static __thread uint64_t before[PAGES]; /* done, as of a moment before this thread's fork */
static unsigned stop, failures;

static void fail(const char *what)
{
	printf("failed: %s: %s\n", what, quire_error_message());
	__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
}

#define TRY(x) ((x) ? (void)0 : fail(#x))

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_ACQUIRE);
}

static uint64_t first_word(quire_region_t *of, size_t page)
{
	return __atomic_load_n((uint64_t *)page_at(of, page), __ATOMIC_ACQUIRE);
}

static uint64_t last_word(quire_region_t *of, size_t page)
{
	return __atomic_load_n((uint64_t *)page_at(of, page) + PAGE / 8 - 1, __ATOMIC_ACQUIRE);
}

/* ------------------------------------------------------------- the storm */

/* The last eighth of a writer's pages are discarded by turns. */
static bool is_discarded(size_t page)
{
	return page < WRITERS * EACH && page % EACH >= EACH * 7 / 8;
}

/* The first ones are pinned by turns: a snapshot has them as they are while it is copied. */
static bool is_pinned(size_t page)
{
	return page < WRITERS * EACH && page % EACH < EACH / 4;
}

static void step(size_t page)
{
	uint64_t n = done[page] + 1, *words = page_at(r, page);

	if (is_discarded(page) && n % 2 == 0) {
		if (n % 4)
			TRY(quire_advise(r, page * PAGE, PAGE, QUIRE_ADVISE_DONTNEED) == 0);
		else
			TRY(madvise(words, PAGE, MADV_DONTNEED) == 0);
	} else {
		__atomic_store_n(words, n, __ATOMIC_RELEASE);
		__atomic_store_n(words + PAGE / 8 - 1, n, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&done[page], n, __ATOMIC_RELEASE);
}

/* Some at random, with some pinned meanwhile. arg: which writer */
static void *write_pages(void *arg)
{
	size_t base = (size_t)(uintptr_t)arg * EACH;
	uint64_t x = base + 1;

	while (!stopped()) {
		size_t page;

		x = x * 6364136223846793005u + 1442695040888963407u;
		page = base + (x >> 33) % EACH;
		if (x >> 60 == 0 && is_pinned(page)) {
			TRY(quire_pin(r, page * PAGE, PAGE) == 0);
			step(page);
			step(page);
			TRY(quire_unpin(r, page * PAGE, PAGE) == 0);
		}
		step(page);
	}
	return NULL;
}

static bool is_whole_pair(size_t page, uint64_t a, uint64_t z)
{
	return a == z || a == z + 1 || (is_discarded(page) && z == 0) || is_pinned(page);
}

static bool is_whole(quire_region_t *of, size_t page)
{
	return is_whole_pair(page, first_word(of, page), last_word(of, page));
}

/* A clone is of one instant, and nobody writes to it. */
static void look_through_clone(quire_snapshot_t *s)
{
	quire_region_t *clone = NULL;

	TRY(quire_snapshot_clone(s, &clone) == 0);
	for (size_t p = 0; clone && p < PAGES; p += 5)
		TRY(is_whole(clone, p));
	if (clone) {
		fill(clone, 3, 2, 1);
		TRY(wrong(clone, 3, 2, 1) == 0 && quire_region_destroy(clone) == 0);
	}
}

static void *take_snapshots(void *arg)
{
	uint64_t words[PAGE / 8];

	while (!stopped()) {
		quire_snapshot_t *s = NULL;

		TRY(quire_snapshot_create(r, &s) == 0);
		for (size_t p = 0; s && p < PAGES; p += 7) {
			TRY(quire_snapshot_read(s, p * PAGE, words, PAGE) == 0);
			TRY(is_whole_pair(p, words[0], words[PAGE / 8 - 1]));
		}
		if (s) {
			look_through_clone(s);
			TRY(quire_snapshot_destroy(s) == 0);
		}
	}
	return arg;
}

static void *make_regions(void *arg)
{
	while (!stopped()) {
		quire_region_t *mine = region_create(q, 8 * PAGE);

		fill(mine, 0, 8, 1);
		TRY(quire_protect(mine, 0, 4 * PAGE, PROT_READ) == 0);
		TRY(wrong(mine, 0, 8, 1) == 0);
		TRY(quire_advise(mine, 0, 8 * PAGE, QUIRE_ADVISE_WILLNEED) == 0);
		TRY(quire_region_destroy(mine) == 0);
	}
	return arg;
}

/* Reads everything, as readahead likes it; and the figures. */
static void *read_on(void *arg)
{
	while (!stopped()) {
		struct quire_stats s = pager_stats(q);

		TRY(s.budget == BUDGET);
		for (size_t p = 0; p < PAGES; p++) {
			uint64_t seen = first_word(r, p);

			TRY(seen <= __atomic_load_n(&done[p], __ATOMIC_ACQUIRE) + 1);
		}
	}
	return arg;
}

/* ----------------------------------------------------------- the children */

/* Could the page be as it is after n steps? */
static bool is_after(size_t page, uint64_t a, uint64_t z, uint64_t n)
{
	bool discarded = is_discarded(page) && n % 2 == 0;
	uint64_t old = is_discarded(page) ? 0 : n; /* what the next step writes over */

	if (discarded || n == 0)
		return a == 0 && z == 0;
	/* Done, or the next one half done. */
	return (a == n && z == n) || (a == n + 1 && z == old);
}

static bool can_be(size_t page)
{
	uint64_t a = first_word(r, page), z = last_word(r, page);
	uint64_t now = __atomic_load_n(&done[page], __ATOMIC_ACQUIRE);

	for (uint64_t n = before[page]; n <= now + 1; n++)
		if (is_after(page, a, z, n))
			return true;
	/* Its first write, or that after a discard, half done. */
	if (a && z == 0 && (a == 1 || is_discarded(page)) && a >= before[page] && a <= now + 1)
		return true;
	printf("page %zu: %llu .. %llu; before the fork %llu, now %llu\n", page,
	       (unsigned long long)a, (unsigned long long)z, (unsigned long long)before[page],
	       (unsigned long long)now);
	return false;
}

static void all_can_be(void)
{
	size_t bad = 0;

	for (size_t p = 0; p < PAGES && bad < 5; p++)
		bad += !can_be(p);
	MUST(bad == 0);
}

/* What could not be moved to be evicted, because the parent has it too, may be named with it. */
static int find_page_2(void *arg, size_t offset, size_t length)
{
	*(bool *)arg |= offset <= 2 * PAGE && offset + length > 2 * PAGE;
	return 0;
}

/* What another thread had pinned is so in the child: then the one page is put back by hand. */
static void roll_back(quire_snapshot_t *s)
{
	int error = quire_snapshot_rollback(s);

	if (error == -EBUSY && pager_stats(q).pinned)
		error = quire_snapshot_read(s, 2 * PAGE, page_at(r, 2), PAGE);
	MUST(error == 0);
}

/* One of everything. */
static void use_all_calls(void)
{
	quire_snapshot_t *s, *t;
	quire_region_t *other;
	bool differs = false;

	MUST(quire_set_memory(q, 2 * BUDGET) == 0 && quire_memory(q) == 2 * BUDGET);
	MUST(quire_pin(r, 0, 8 * PAGE) == 0 && mapped(r, 0, 8) == 8);
	MUST(quire_unpin(r, 0, 8 * PAGE) == 0);
	MUST(quire_snapshot_create(r, &s) == 0);
	fill(r, 2, 1, 9);
	MUST(quire_snapshot_create(r, &t) == 0);
	MUST(quire_snapshot_diff(s, t, find_page_2, &differs) == 0 && differs);
	MUST(quire_snapshot_clone(t, &other) == 0 && wrong(other, 2, 1, 9) == 0);
	fill(other, 0, PAGES, 3);
	roll_back(s);
	MUST(wrong(other, 0, PAGES, 3) == 0);
	MUST(is_whole(r, 2));
	MUST(quire_snapshot_destroy(s) == 0 && quire_snapshot_destroy(t) == 0);
	MUST(quire_protect(other, 0, PAGE, PROT_READ) == 0 && wrong(other, 0, 1, 3) == 0);
	MUST(quire_advise(other, 8 * PAGE, 8 * PAGE, QUIRE_ADVISE_DONTNEED) == 0);
	MUST(nonzero(other, 8, 8) == 0);
	MUST(quire_advise(other, 16 * PAGE, 40 * PAGE, QUIRE_ADVISE_WILLNEED) == 0);
	MUST(wrong(other, 16, PAGES - 16, 3) == 0);
	MUST(quire_region_destroy(other) == 0);
	MUST(quire_set_memory(q, BUDGET) == 0);
}

static void grandchild(void *arg)
{
	(void)arg;
	alarm(20);
	all_can_be();
	fill(r, 0, PAGES, 5);
	MUST(wrong(r, 0, PAGES, 5) == 0);
}

/* The same pages a second time: the parent goes on, this stays. arg: which child */
static void child(void *arg)
{
	uint64_t words[2][PAGES];

	alarm(20);
	all_can_be();
	for (size_t p = 0; p < PAGES; p++)
		words[0][p] = first_word(r, p);
	if ((uintptr_t)arg % 2)
		MUST(in_child(grandchild, NULL, 20) == 0);
	use_all_calls();
	for (size_t p = 0; p < PAGES; p++)
		words[1][p] = first_word(r, p);
	MUST(memcmp(words[0], words[1], sizeof words[0]) == 0);
	all_can_be();
	fill(r, 0, PAGES, 4);
	MUST(wrong(r, 0, PAGES, 4) == 0);
	if ((uintptr_t)arg % 3)
		MUST(quire_close(q) == 0);
}

static void *fork_on(void *arg)
{
	double end = seconds_now() + quick_or_full(2.5, 60);
	uintptr_t n = 0;

	while (seconds_now() < end && !failures) {
		memcpy(before, done, sizeof before);
		TRY(in_child(child, (void *)n++, 30) == 0);
		TRY(descriptors() < 64);
	}
	printf("%zu children\n", (size_t)n);
	return arg;
}

/* ------------------------------------------------------------------ tests */

static void begin(void)
{
	q = pager_open(BUDGET);
	r = region_create(q, PAGES * PAGE);
	done = mmap(NULL, PAGES * sizeof *done, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
	            -1, 0);
	MUST(done != MAP_FAILED);
	stop = failures = 0;
	for (size_t p = WRITERS * EACH; p < PAGES; p++)
		step(p);
}

static void end(void)
{
	for (size_t p = 0; p < PAGES; p++)
		before[p] = done[p];
	all_can_be();
	CHECK_EQ(failures, 0);
	CHECK_EQ(quire_close(q), 0);
	munmap(done, PAGES * sizeof *done);
}

/* These threads for as long as children are made by forkers others. */
static void storm(void *(*const others[])(void *), int count, int forkers)
{
	pthread_t t[WRITERS + OTHERS], forker[2];

	for (uintptr_t i = 0; i < WRITERS; i++)
		MUST(pthread_create(&t[i], NULL, write_pages, (void *)i) == 0);
	for (int i = 0; i < count; i++)
		MUST(pthread_create(&t[WRITERS + i], NULL, others[i], NULL) == 0);
	for (int i = 0; i < forkers; i++)
		MUST(pthread_create(&forker[i], NULL, fork_on, NULL) == 0);
	for (int i = 0; i < forkers; i++)
		pthread_join(forker[i], NULL);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < WRITERS + count; i++)
		pthread_join(t[i], NULL);
}

static void writers(void)
{
	static void *(*const others[])(void *) = { read_on };

	begin();
	storm(others, 1, 1);
	end();
}

static void everything(void)
{
	static void *(*const others[])(void *) = { take_snapshots, make_regions, read_on };

	begin();
	storm(others, 3, 1);
	end();
}

static void two_forkers(void)
{
	static void *(*const others[])(void *) = { make_regions };

	begin();
	storm(others, 1, 2);
	end();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(writers), UNIT(everything),
		                                  UNIT(two_forkers), UNIT_END };

	return unit_main(argc, argv, "fork_storm", tests);
}
