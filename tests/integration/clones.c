/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/clones.c - clones of clones, generation after generation: their pages are found, and they are given up, on a
 * stack that does not grow with them.
 *
 * test: matrix
 */
#include "support.h"

#include <pthread.h>

enum { GENERATIONS = 3000, PAGES = 16 };

static quire_t *q;
static quire_region_t *last;

/* Each writes one page of its own; what it was made of is given up at once. */
static void *make_generations(void *arg)
{
	(void)arg;
	last = region_create(q, PAGES * PAGE);
	fill(last, 0, PAGES, 1);
	for (unsigned i = 0; i < GENERATIONS; i++) {
		quire_region_t *clone;
		quire_snapshot_t *s;

		MUST(quire_snapshot_create(last, &s) == 0);
		MUST(quire_snapshot_clone(s, &clone) == 0);
		MUST(quire_snapshot_destroy(s) == 0);
		MUST(quire_region_destroy(last) == 0);
		last = clone;
	}
	return NULL;
}

static void *look(void *arg)
{
	(void)arg;
	MUST(wrong(last, 0, PAGES, 1) == 0);
	return NULL;
}

static void *give_up(void *arg)
{
	(void)arg;
	MUST(quire_region_destroy(last) == 0);
	return NULL;
}

/* On a thread with a small stack, where a fault is served on it. */
static void on_small_stack(void *(*f)(void *))
{
	pthread_attr_t small;
	pthread_t t;

	pthread_attr_init(&small);
	MUST(pthread_attr_setstacksize(&small, SANITIZED ? MIB : 64 * KIB) == 0);
	MUST(pthread_create(&t, &small, f, NULL) == 0);
	pthread_join(t, NULL);
	pthread_attr_destroy(&small);
}

static void many_generations(void)
{
	q = pager_open(64 * PAGE);
	on_small_stack(make_generations);
	on_small_stack(look);
	on_small_stack(give_up);
	CHECK_EQ(pager_stats(q).resident + pager_stats(q).swapped, 0);
	CHECK_EQ(quire_close(q), 0);
}

/* The first pass over a clone in order reads ahead, as any. */
static void read_in_order(void)
{
	size_t pages = 16 * MIB / PAGE;
	struct quire_stats before, after;
	quire_region_t *r, *clone;
	quire_snapshot_t *s;

	q = pager_open(2 * MIB);
	r = region_create(q, pages * PAGE);
	fill(r, 0, pages, 1);
	CHECK_EQ(quire_snapshot_create(r, &s), 0);
	CHECK_EQ(quire_snapshot_clone(s, &clone), 0);
	before = region_stats(clone);
	CHECK_EQ(wrong(clone, 0, pages, 1), 0);
	after = region_stats(clone);
	CHECK(after.readahead_issued - before.readahead_issued > pages / 2);
	CHECK(after.major_faults - before.major_faults < pages / 4);
	/* And it is a copy on write all the same. */
	fill(clone, 0, pages, 2);
	CHECK_EQ(wrong(r, 0, pages, 1), 0);
	CHECK_EQ(wrong(clone, 0, pages, 2), 0);
	CHECK_EQ(quire_close(q), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(many_generations), UNIT(read_in_order),
		                                  UNIT_END };

	return unit_main(argc, argv, "clones", tests);
}
