/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/fork_memory.c - children of fork(2): each has the memory of the instant
 * of the fork, whatever its pages were then, and writes apart from all others.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "fork_image.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

enum { READ_ONLY = 0, PINNED = 16, ADVISED = 24, ZAPPED = 36, ZEROS = 48 };
enum { CLEAN = 90, DIRTY = 100, COLD = 110 };

/* ------------------------------------------------- every kind of page */

static struct {
	quire_t *q[2];
	struct image image[3]; /* of the first pager, again, of the second */
} all;

/* Every kind there is: what is not named is on the swap file, or in standby. */
static void every_kind(struct image *m, unsigned version)
{
	quire_region_t *r = m->r;

	image_fill(m, 0, UNTOUCHED, version);
	for (size_t p = ZEROS; p < ZEROS + 12; p++)
		memset(page_at(r, p), 0, PAGE);
	image_zeros(m, ZEROS, 12);
	MUST(quire_advise(r, ADVISED * PAGE, 12 * PAGE, QUIRE_ADVISE_DONTNEED) == 0);
	image_zeros(m, ADVISED, 12);
	MUST(madvise(page_at(r, ZAPPED), 12 * PAGE, MADV_DONTNEED) == 0);
	image_zeros(m, ZAPPED, 12);
	MUST(quire_protect(r, READ_ONLY * PAGE, 16 * PAGE, PROT_READ) == 0);
	MUST(quire_pin(r, PINNED * PAGE, 8 * PAGE) == 0);
	MUST(wrong(r, CLEAN, 10, version) == 0);
	image_fill(m, DIRTY, 10, version + 1);
	image_fill(m, COLD, 10, version + 1);
	MUST(quire_advise(r, COLD * PAGE, 10 * PAGE, QUIRE_ADVISE_COLD) == 0);
	MUST(wrong(r, READ_ONLY, 4, version) == 0);
}

static void rewrite(struct image *m, unsigned version)
{
	MUST(quire_protect(m->r, READ_ONLY * PAGE, 16 * PAGE, PROT_READ | PROT_WRITE) == 0);
	image_fill(m, 0, PAGES, version);
	MUST(quire_unpin(m->r, PINNED * PAGE, 8 * PAGE) == 0);
	MUST(image_wrong(m) == 0);
}

static void has_all(void *arg)
{
	(void)arg;
	for (int i = 0; i < 3; i++) {
		quire_region_t *r = all.image[i].r;

		MUST(mapped(r, PINNED, 8) == 8);
		MUST(try_store(page_at(r, READ_ONLY + 1), 1).signal == SIGSEGV);
		MUST(try_store(page_at(r, READ_ONLY + 9), 1).signal == SIGSEGV);
	}
	for (int i = 0; i < 3; i++)
		MUST(image_wrong(&all.image[i]) == 0);
	for (int i = 0; i < 3; i++)
		rewrite(&all.image[i], 50 + (unsigned)i);
	for (int i = 0; i < 3; i++)
		MUST(image_wrong(&all.image[i]) == 0);
	MUST(quire_close(all.q[0]) == 0);
	MUST(image_wrong(&all.image[2]) == 0);
	MUST(quire_close(all.q[1]) == 0);
}

/* The second of the two with another engine, if there is one here. */
static quire_t *open_other(const char *first)
{
	const char *other = strcmp(first, "uffd-signal") == 0 ? "uffd" : "uffd-signal";
	struct quire_options o = { .size = sizeof o, .memory = BUDGET, .engine = other };
	quire_t *second = NULL;

	return quire_open(&second, &o) == 0 ? second : pager_open(BUDGET);
}

static void open_both(void)
{
	catch_install();
	all.q[0] = pager_open(BUDGET);
	all.q[1] = open_other(quire_engine_name(all.q[0]));
	for (int i = 0; i < 3; i++) {
		image_create(&all.image[i], all.q[i / 2]);
		every_kind(&all.image[i], 1 + 2 * (unsigned)i);
	}
}

static void close_both(void)
{
	CHECK_EQ(quire_close(all.q[0]), 0);
	CHECK_EQ(quire_close(all.q[1]), 0);
}

static void every_kind_of_page(void)
{
	open_both();
	for (int round = 0; round < 2; round++) {
		CHECK_EQ(in_child(has_all, NULL, 20), 0);
		for (int i = 0; i < 3; i++)
			CHECK_EQ(image_wrong(&all.image[i]), 0);
	}
	close_both();
}

/* The child has what was there at the fork, not what the parent writes and discards after it. */
static void while_the_parent_writes(void)
{
	open_both();
	for (unsigned round = 0; round < 2; round++) {
		pid_t pid = child_start(has_all, NULL);

		for (int i = 0; i < 3; i++) {
			rewrite(&all.image[i], 60 + round);
			MUST(quire_advise(all.image[i].r, 0, PAGES * PAGE, QUIRE_ADVISE_DONTNEED) ==
			     0);
			image_zeros(&all.image[i], 0, PAGES);
			every_kind(&all.image[i], 70 + round);
		}
		CHECK_EQ(child_end(pid, 20), 0);
		for (int i = 0; i < 3; i++)
			CHECK_EQ(image_wrong(&all.image[i]), 0);
	}
	close_both();
}

/* ------------------------------------------------- pinned, for system calls */

enum { WRITTEN = PINNED, READ = PINNED + 4 };

static int ends[2], go[2];
static quire_snapshot_t *shot;

/* By write(2) from the pages: what does the kernel see there? */
static size_t wrong_by_kernel(size_t page, size_t count, unsigned version)
{
	uint64_t words[PAGE / 8];
	size_t bad = 0;

	for (size_t p = page; p < page + count; p++) {
		MUST(write(ends[1], page_at(image.r, p), PAGE) == (ssize_t)PAGE);
		MUST(read(ends[0], words, PAGE) == (ssize_t)PAGE);
		bad += wrong_page(words, p, version);
	}
	return bad;
}

/* By read(2) into the pages. */
static void fill_by_kernel(size_t page, size_t count, unsigned version)
{
	uint64_t words[PAGE / 8];

	for (size_t p = page; p < page + count; p++) {
		fill_page(words, p, version);
		MUST(write(ends[1], words, PAGE) == (ssize_t)PAGE);
		MUST(read(ends[0], page_at(image.r, p), PAGE) == (ssize_t)PAGE);
	}
}

static size_t wrong_in_snapshot(size_t page, size_t count, unsigned version)
{
	uint64_t words[PAGE / 8];
	size_t bad = 0;

	for (size_t p = page; p < page + count; p++) {
		MUST(quire_snapshot_read(shot, p * PAGE, words, PAGE) == 0);
		bad += wrong_page(words, p, version);
	}
	return bad;
}

/* The parent's pages are others by now. None of these has been touched before the kernel does. */
static void give_pinned_to_calls(void *arg)
{
	char c;

	alarm(20);
	close(go[1]);
	MUST(read(go[0], &c, 1) == 0);
	/* Pipes of its own. */
	MUST(pipe(ends) == 0);
	MUST(wrong_by_kernel(WRITTEN, 4, 2) == 0);
	fill_by_kernel(READ, 4, 7);
	MUST(wrong(image.r, READ, 4, 7) == 0 && wrong_by_kernel(READ, 4, 7) == 0);
	fill_by_kernel(WRITTEN, 2, 8);
	MUST(wrong(image.r, WRITTEN, 2, 8) == 0 && wrong(image.r, WRITTEN + 2, 2, 2) == 0);
	MUST(!shot || wrong_in_snapshot(PINNED, 8, (unsigned)(uintptr_t)arg) == 0);
	image_fill(&image, 0, PAGES, 9);
	MUST(quire_unpin(image.r, PINNED * PAGE, 8 * PAGE) == 0);
	MUST(image_wrong(&image) == 0);
	MUST(quire_close(q) == 0);
}

/* snapshots: before the pages are pinned, and after that */
static void pinned_pages_in_calls(bool before, bool after)
{
	unsigned then = after ? 2 : 1;
	pid_t pid;

	begin(BUDGET);
	shot = NULL;
	MUST(pipe(ends) == 0 && pipe(go) == 0);
	MUST(!before || quire_snapshot_create(image.r, &shot) == 0);
	CHECK_EQ(quire_pin(image.r, PINNED * PAGE, 8 * PAGE), 0);
	image_fill(&image, PINNED, 8, 2);
	MUST(!after || quire_snapshot_create(image.r, &shot) == 0);
	pid = child_start(give_pinned_to_calls, (void *)(uintptr_t)then);
	close(go[0]);
	fill_by_kernel(PINNED, 8, 3);
	CHECK_EQ(wrong(image.r, PINNED, 8, 3), 0);
	CHECK_EQ(quire_unpin(image.r, PINNED * PAGE, 8 * PAGE), 0);
	fill(image.r, 40, 100, 5);
	CHECK_EQ(quire_advise(image.r, PINNED * PAGE, 4 * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	close(go[1]);
	CHECK_EQ(child_end(pid, 20), 0);
	CHECK_EQ(nonzero(image.r, PINNED, 4), 0);
	CHECK_EQ(wrong(image.r, PINNED + 4, 4, 3), 0);
	CHECK(!shot || wrong_in_snapshot(PINNED, 8, then) == 0);
	CHECK_EQ(quire_close(q), 0);
	close(ends[0]);
	close(ends[1]);
}

static void pinned_pages(void)
{
	pinned_pages_in_calls(false, false);
	pinned_pages_in_calls(true, false);
	pinned_pages_in_calls(false, true);
	pinned_pages_in_calls(true, true);
}

static struct {
	_Alignas(64) unsigned stop;
	quire_region_t *last;
} two;

/* First the one that is pinned, then the other, which does not run ahead of it anywhere. */
static void *write_in_order(void *arg)
{
	volatile uint64_t *pinned = (uint64_t *)page_at(image.r, PINNED);
	volatile uint64_t *other = (uint64_t *)page_at(two.last, PAGES - 1);

	for (uint64_t n = 1; !__atomic_load_n(&two.stop, __ATOMIC_ACQUIRE); n++) {
		*pinned = n;
		*other = n;
	}
	return arg;
}

static void pinned_is_ahead(void *arg)
{
	uint64_t other = *(volatile uint64_t *)page_at(two.last, PAGES - 1);

	(void)arg;
	MUST(*(volatile uint64_t *)page_at(image.r, PINNED) >= other);
}

/* In a child: what was written later is not there without what was written before. */
static void pinned_while_written(void)
{
	pthread_t t;

	begin(4 * PAGES * PAGE);
	two.last = region_create(q, PAGES * PAGE);
	two.stop = 0;
	fill(two.last, 0, PAGES, 1);
	CHECK_EQ(quire_pin(image.r, PINNED * PAGE, PAGE), 0);
	*(uint64_t *)page_at(image.r, PINNED) = 0;
	*(uint64_t *)page_at(two.last, PAGES - 1) = 0;
	MUST(pthread_create(&t, NULL, write_in_order, NULL) == 0);
	for (int i = 0; i < (int)quick_or_full(30, 300); i++)
		CHECK_EQ(in_child(pinned_is_ahead, NULL, 20), 0);
	__atomic_store_n(&two.stop, 1, __ATOMIC_RELEASE);
	pthread_join(t, NULL);
	CHECK_EQ(quire_close(q), 0);
}

/* ------------------------------------------------------- several pagers */

enum { PAGERS = 3, SIZES = 5 };

/* Regions of each, as large as what a process maps: rings, records of all pages, stacks. */
static const size_t sizes[SIZES] = { 1, 4, 32, 2100, 1 << 20 };
static quire_t *several[PAGERS];
static quire_region_t *places[PAGERS][SIZES];

/* Of large ones not all is touched. */
static size_t used(int size)
{
	return sizes[size] < 100 ? sizes[size] : 40;
}

static unsigned version_of(int pager, int size)
{
	return (unsigned)(1 + pager * SIZES + size);
}

static size_t wrong_places(unsigned more)
{
	size_t bad = 0;

	for (int i = 0; i < PAGERS; i++)
		for (int k = 0; k < SIZES; k++)
			bad += wrong(places[i][k], 0, used(k), version_of(i, k) + more);
	return bad;
}

static void fill_places(unsigned more)
{
	for (int i = 0; i < PAGERS; i++)
		for (int k = 0; k < SIZES; k++)
			fill(places[i][k], 0, used(k), version_of(i, k) + more);
}

static void has_its_places(void *arg)
{
	int order = (int)(uintptr_t)arg;

	alarm(20);
	MUST(wrong_places(0) == 0);
	fill_places(100);
	MUST(wrong_places(100) == 0);
	for (int i = 0; i < PAGERS; i++)
		for (int k = 0; k < SIZES; k++)
			MUST(nonzero(places[i][k], sizes[k] - 1, sizes[k] > used(k)) == 0);
	for (int i = 0; i < PAGERS; i++)
		MUST(quire_close(several[order ? PAGERS - 1 - i : i]) == 0);
}

/* What the child maps for one of them must not be where another's regions are to be. */
static void places_of_several_pagers(void)
{
	for (int i = 0; i < PAGERS; i++) {
		several[i] = pager_open(BUDGET);
		for (int k = 0; k < SIZES; k++)
			places[i][k] = region_create(several[i], sizes[k] * PAGE);
	}
	fill_places(0);
	for (int round = 0; round < 3; round++) {
		CHECK_EQ(in_child(has_its_places, (void *)(uintptr_t)round, 20), 0);
		CHECK_EQ(wrong_places(0), 0);
	}
	for (int i = 0; i < PAGERS; i++)
		CHECK_EQ(quire_close(several[i]), 0);
}

/* -------------------------------------------------- children of children */

/* arg: how many generations are to come */
static void generation(void *arg)
{
	size_t left = (size_t)(uintptr_t)arg;
	pid_t pid;

	MUST(image_wrong(&image) == 0);
	for (size_t p = left; p < PAGES; p += 5)
		image_fill(&image, p, 1, 10 + (unsigned)left);
	MUST(quire_advise(image.r, (100 + left) * PAGE, PAGE, QUIRE_ADVISE_DONTNEED) == 0);
	image_zeros(&image, 100 + left, 1);
	if (left == 0)
		return;
	pid = child_start(generation, (void *)(uintptr_t)(left - 1));
	for (size_t p = left; p < PAGES; p += 3)
		image_fill(&image, p, 1, 20 + (unsigned)left);
	MUST(image_wrong(&image) == 0);
	MUST(child_end(pid, 20) == 0);
	MUST(image_wrong(&image) == 0);
	MUST(left % 2 || quire_close(q) == 0);
}

static void generations(void)
{
	begin(BUDGET);
	CHECK_EQ(in_child(generation, (void *)4, 30), 0);
	CHECK_EQ(image_wrong(&image), 0);
	CHECK_EQ(quire_close(q), 0);
}

static struct {
	int said[2]; /* the orphan's word that all was well */
	int gone[2]; /* ends when its parent has gone */
	bool closes; /* the parent, before it goes */
} orphan;

static void live_on(void *arg)
{
	double end = seconds_now() + 0.2;
	char c = 0;

	(void)arg;
	alarm(20);
	close(orphan.gone[1]);
	MUST(image_wrong(&image) == 0);
	MUST(read(orphan.gone[0], &c, 1) == 0);
	for (unsigned v = 30; seconds_now() < end || v < 33; v++) {
		MUST(image_wrong(&image) == 0);
		image_fill(&image, v % 2 * 100, PAGES - 100, v);
	}
	MUST(image_wrong(&image) == 0);
	MUST(quire_close(q) == 0);
	MUST(write(orphan.said[1], "y", 1) == 1);
}

static void leave_a_child(void *arg)
{
	(void)arg;
	MUST(image_wrong(&image) == 0);
	image_fill(&image, 10, 150, 7);
	child_start(live_on, NULL);
	image_fill(&image, 0, PAGES, 8);
	if (orphan.closes)
		MUST(quire_close(q) == 0);
}

/* Here it is the first process that stays, so that somebody can tell. */
static void orphans(void)
{
	char c = 0;

	for (int i = 0; i < 2; i++) {
		orphan.closes = i;
		MUST(pipe(orphan.said) == 0 && pipe(orphan.gone) == 0);
		begin(BUDGET);
		CHECK_EQ(in_child(leave_a_child, NULL, 20), 0);
		/* The orphan is alone with its swap file. */
		CHECK_EQ(quire_close(q), 0);
		close(orphan.said[1]);
		close(orphan.gone[1]);
		CHECK(read(orphan.said[0], &c, 1) == 1 && c == 'y');
		close(orphan.said[0]);
		close(orphan.gone[0]);
	}
}

/* ---------------------------------------------------------------- apart */

enum { CHILDREN = 3 };

/* In an order of its own, with some pages discarded. arg: who */
static void write_apart(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	static const size_t steps[] = { 5, 7, 11, 13, 17 }; /* coprime to PAGES */

	MUST(image_wrong(&image) == 0);
	for (unsigned round = 0; round < 3; round++) {
		for (size_t i = 0; i < PAGES; i++)
			if ((i + round) % 3)
				image_fill(&image, (i * steps[me] + me) % PAGES, 1,
				           100 * me + round);
		MUST(quire_advise(image.r, (me + round) * 20 * PAGE, 10 * PAGE,
		                  QUIRE_ADVISE_DONTNEED) == 0);
		image_zeros(&image, (me + round) * 20, 10);
		MUST(image_wrong(&image) == 0);
	}
}

static void apart(void)
{
	static const size_t budgets[] = { 256 * KIB, 512 * KIB };
	pid_t pid[CHILDREN];

	for (int b = 0; b < 2; b++) {
		begin(budgets[b]);
		for (unsigned i = 0; i < CHILDREN; i++) {
			pid[i] = child_start(write_apart, (void *)(uintptr_t)(i + 2));
			image_fill(&image, i * 7, 40, 40 + i);
		}
		write_apart((void *)1);
		for (int i = 0; i < CHILDREN; i++)
			CHECK_EQ(child_end(pid[i], 30), 0);
		CHECK_EQ(image_wrong(&image), 0);
		CHECK(pager_stats(q).resident <= budgets[b]);
		CHECK_EQ(quire_close(q), 0);
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(every_kind_of_page),
		                                  UNIT(while_the_parent_writes),
		                                  UNIT(pinned_pages),
		                                  UNIT(pinned_while_written),
		                                  UNIT(places_of_several_pagers),
		                                  UNIT(generations),
		                                  UNIT(orphans),
		                                  UNIT(apart),
		                                  UNIT_END };

	return unit_main(argc, argv, "fork_memory", tests);
}
