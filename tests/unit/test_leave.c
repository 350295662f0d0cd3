/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_leave.c - a region whose snapshots cannot take over its contents stays, and has them
 * (vm/discard.c, cow_take_back): the engine refuses to take a page at each point of it.
 */
#include "tests/unit/unit.h"
#include "vm/vm.h"

#include <errno.h>

enum { PAGES = 100 };

static struct engine_ops failing;
static const struct engine_ops *real;
static int left; /* takes that succeed; -1: all do */

static void take(struct engine *e, struct take_page *pages, unsigned n)
{
	if (left == 0 && n == 1 && pages->given_up) {
		pages->result = TAKE_KEPT;
		return;
	}
	if (left > 0 && n == 1 && pages->given_up)
		left--;
	real->take(e, pages, n);
}

static uint64_t value(uint64_t page, unsigned version)
{
	return page * 3 + version;
}

static void write_all(quire_region_t *r, uint64_t from, uint64_t to, unsigned version)
{
	for (uint64_t p = from; p < to; p++)
		((volatile uint64_t *)quire_region_base(r))[p * PAGE_BYTES / 8] = value(p, version);
}

static unsigned wrong(quire_region_t *r, uint64_t from, uint64_t to, unsigned version)
{
	unsigned bad = 0;

	for (uint64_t p = from; p < to; p++)
		bad += ((volatile uint64_t *)quire_region_base(r))[p * PAGE_BYTES / 8] !=
		       value(p, version);
	return bad;
}

static unsigned wrong_in(quire_snapshot_t *s, uint64_t from, uint64_t to, unsigned version)
{
	unsigned bad = 0;

	for (uint64_t p = from; p < to; p++) {
		uint64_t word = 0;

		bad += quire_snapshot_read(s, p * PAGE_BYTES, &word, 8) != 0 ||
		       word != value(p, version);
	}
	return bad;
}

/* Pages in memory, on the swap file and in between, zeros, shared by two snapshots, by one and by none; in a clone, too. */
static void fails_after(const char *engine, int takes, bool of_clone)
{
	struct quire_options o = { .size = sizeof o, .memory = 80 * PAGE_BYTES, .engine = engine };
	quire_snapshot_t *first = NULL, *second = NULL, *of = NULL;
	quire_region_t *r, *parent = NULL;
	quire_t *q;
	int error;

	if (quire_open(&q, &o) != 0)
		return;
	REQUIRE_EQ(quire_region_create(q, (PAGES + 8) * PAGE_BYTES, NULL, &r), 0);
	write_all(r, 0, PAGES, 1);
	if (of_clone) {
		parent = r;
		REQUIRE_EQ(quire_snapshot_create(parent, &of), 0);
		REQUIRE_EQ(quire_snapshot_clone(of, &r), 0);
	}
	REQUIRE_EQ(quire_snapshot_create(r, &first), 0);
	write_all(r, 10, 50, 2);
	REQUIRE_EQ(quire_snapshot_create(r, &second), 0);
	write_all(r, 40, 60, 3);
	quire_advise(r, 70 * PAGE_BYTES, 5 * PAGE_BYTES, QUIRE_ADVISE_DONTNEED);
	real = r->q->engine.ops;
	failing = *real;
	failing.take = take;
	r->q->engine.ops = &failing;
	left = takes;
	error = quire_region_destroy(r);
	r->q->engine.ops = real;
	if (error) {
		CHECK_EQ(error, -EBUSY);
		CHECK_EQ(wrong(r, 0, 10, 1) + wrong(r, 10, 40, 2) + wrong(r, 40, 60, 3), 0);
		CHECK_EQ(wrong(r, 60, 70, 1) + wrong(r, 75, PAGES, 1), 0);
		for (uint64_t p = 70; p < 75; p++)
			CHECK_EQ(((uint64_t *)quire_region_base(r))[p * PAGE_BYTES / 8], 0);
		/* And is copied on write, as before. */
		write_all(r, 0, PAGES, 4);
		CHECK_EQ(wrong(r, 0, PAGES, 4), 0);
	}
	CHECK_EQ(wrong_in(first, 0, PAGES, 1), 0);
	CHECK_EQ(wrong_in(second, 0, 10, 1) + wrong_in(second, 10, 50, 2) +
	                 wrong_in(second, 50, PAGES, 1),
	         0);
	if (parent)
		CHECK_EQ(wrong(parent, 0, PAGES, 1), 0);
	if (error)
		CHECK_EQ(quire_region_destroy(r), 0);
	CHECK_EQ(wrong_in(first, 0, PAGES, 1), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void stays_as_it_was(void)
{
	static const char *const engines[] = { "uffd", "uffd-signal", "sigsegv" };

	for (int i = 0; i < 3; i++)
		for (int takes = 0; takes < 30; takes += 1 + takes / 4)
			for (int clone = 0; clone < 2; clone++)
				fails_after(engines[i], takes, clone);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(stays_as_it_was), UNIT_END };

	return unit_main(argc, argv, "leave", tests);
}
