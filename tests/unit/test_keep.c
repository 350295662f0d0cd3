/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_keep.c - first writes since a snapshot to dirty pages, on a fake engine: which
 * pages are copied with the one that is written, and what can go wrong with them (vm/copy.c). What a
 * snapshot keeps of a single page: test_cow.c.
 *
 * Each for an in-thread engine, for a handler thread's that moves runs, for one that cannot
 * move, and for one to whom saving is waiting.
 */
#include "tests/unit/vm_fixture.h"

#include <errno.h>
#include <string.h>

#define FIRST 32u
#define BLOCK 16u
#define MANY 200u

static const struct kind {
	const char *name;
	bool in_thread, move, waits;
} kinds[] = {
	{ "in thread", .in_thread = true, .move = true },
	{ "handler", .move = true },
	{ "handler, no move", .move = false },
	{ "handler, waits", .move = true, .waits = true },
};

static const struct kind *kind;
static quire_snapshot_t *taken;

static void open_kind(uint64_t budget)
{
	struct fake_vm_options o = { .in_thread = kind->in_thread,
		                     .move = kind->move,
		                     .budget = budget,
		                     .readahead = 64 };

	vm = fake_vm_open(&o);
	vm->q->engine.save_waits = kind->waits;
}

#define FOR_EACH_KIND(budget)                                                                     \
	for (kind = kinds; kind < kinds + sizeof kinds / sizeof *kinds && (open_kind(budget), 1); \
	     finish(), kind++)

/* And none of the others. */
static void make_dirty(uint64_t first, uint64_t n)
{
	no_readahead();
	put_pages(first, n);
	CHECK_EQ(quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_NORMAL), 0);
}

static quire_snapshot_t *snapshot(void)
{
	quire_snapshot_t *s;

	REQUIRE_EQ(quire_snapshot_create(vm->r, &s), 0);
	return s;
}

static uint64_t image(quire_snapshot_t *s, uint64_t page)
{
	_Alignas(PAGE_BYTES) static char bytes[PAGE_BYTES];

	REQUIRE_EQ(quire_snapshot_read(s, page * PAGE_BYTES, bytes, PAGE_BYTES), 0);
	return fake_value(bytes);
}

static void check_images(quire_snapshot_t *s, uint64_t first, uint64_t n)
{
	for (uint64_t page = first; page < first + n; page++)
		CHECK_EQ(image(s, page), 1000 + page);
}

/* Does the snapshot have something of its own of the page? */
static bool has(quire_snapshot_t *s, uint64_t page)
{
	return cow_has_own((struct quire_region *)s, page);
}

static uint64_t count_kept(quire_snapshot_t *s, uint64_t first, uint64_t n)
{
	uint64_t kept = 0;

	for (uint64_t page = first; page < first + n; page++)
		kept += has(s, page);
	return kept;
}

/* -------------------------------------------------------- which pages */

static void in_order(void)
{
	FOR_EACH_KIND(1024)
	{
		uint64_t faults;

		make_dirty(0, MANY);
		taken = snapshot();
		faults = COUNTER(minor_faults);
		for (uint64_t page = 0; page < MANY; page++)
			put(page, page + 1);
		faults = COUNTER(minor_faults) - faults;
		CHECK(kind->waits ? faults == MANY : faults < 16);
		CHECK_EQ(COUNTER(snapshot_copies), MANY);
		CHECK_VM();
		check_images(taken, 0, MANY);
		fake_vm_swap_out(vm);
		check_images(taken, 0, MANY);
		for (uint64_t page = 0; page < MANY; page++)
			CHECK_EQ(value(page), page + 1);
		CHECK_EQ(quire_snapshot_destroy(taken), 0);
		CHECK_VM();
	}
}

static void downward(void)
{
	FOR_EACH_KIND(1024)
	{
		uint64_t faults;

		make_dirty(0, MANY);
		taken = snapshot();
		faults = COUNTER(minor_faults);
		for (uint64_t page = MANY; page-- > 0;)
			put(page, page + 1);
		faults = COUNTER(minor_faults) - faults;
		CHECK(kind->waits ? faults == MANY : faults < 16);
		check_images(taken, 0, MANY);
		CHECK_VM();
	}
}

/* Six writes of a block, none beside another: the sixth brings all the rest, between and around. */
static void dense_blocks(void)
{
	FOR_EACH_KIND(1024)
	{
		make_dirty(FIRST - 1, BLOCK + 2);
		taken = snapshot();
		for (uint64_t page = FIRST; page < FIRST + 15; page += 3)
			put(page, 7);
		CHECK_EQ(count_kept(taken, FIRST, BLOCK), 5);
		put(FIRST + 14, 7);
		CHECK_EQ(count_kept(taken, FIRST, BLOCK), kind->waits ? 6 : BLOCK);
		CHECK(!has(taken, FIRST - 1) && !has(taken, FIRST + BLOCK));
		CHECK_VM();
		check_images(taken, FIRST - 1, BLOCK + 2);
		for (uint64_t page = FIRST - 1; page < FIRST + BLOCK + 1; page++)
			CHECK_EQ(value(page),
			         (page % 3 == 2 && page < 47) || page == 46 ? 7 : 1000 + page);
		for (uint64_t page = FIRST; page < FIRST + BLOCK; page++)
			put(page, 8);
		check_images(taken, FIRST - 1, BLOCK + 2);
		CHECK_VM();
	}
}

/* Advice: random, or no readahead: each page by itself. */
static void not_asked_for(void)
{
	FOR_EACH_KIND(1024)
	{
		make_dirty(0, MANY);
		no_readahead();
		taken = snapshot();
		for (uint64_t page = 0; page < 20; page++)
			put(page, 7);
		CHECK_EQ(count_kept(taken, 0, MANY), 20);
		CHECK_VM();
	}
}

/* What is clean, pinned, swapped or was never touched ends a run; it is as it was. */
static void other_pages(void)
{
	FOR_EACH_KIND(1024)
	{
		uint64_t slots;

		make_dirty(0, 64);
		fake_vm_swap_out(vm);
		for (uint64_t page = 0; page < 64; page++)
			if (page < 42)
				put(page, 1000 + page);
			else
				CHECK_EQ(value(page), 1000 + page);
		taken = snapshot();
		CHECK_EQ(quire_pin(vm->r, 40 * PAGE_BYTES, PAGE_BYTES), 0);
		slots = COUNTER(swapped);
		for (uint64_t page = 0; page < 40; page++)
			put(page, 7);
		/* That has a copy of its own. */
		CHECK_EQ(count_kept(taken, 0, 41), 41);
		CHECK_EQ(count_kept(taken, 41, 100), 0);
		put(41, 7);
		for (uint64_t page = 42; page < 64; page++)
			CHECK(!has(taken, page) || fake_vm_frame(vm, page)->slot == SLOT_NONE);
		CHECK_EQ(COUNTER(swapped), slots);
		check_images(taken, 0, 64);
		CHECK_VM();
		CHECK_EQ(quire_unpin(vm->r, 40 * PAGE_BYTES, PAGE_BYTES), 0);
	}
}

/* Where memory is short there are few, or none, beside the page; and each write is served. */
static void little_memory(void)
{
	FOR_EACH_KIND(40)
	{
		make_dirty(0, 16);
		taken = snapshot();
		for (uint64_t page = 0; page < 12; page++)
			put(page, 7);
		CHECK(vm->q->pager.credits >= 0);
		check_images(taken, 0, 16);
		CHECK_VM();
	}
}

/* No buffer at all, though pages are held beside the written one and passed between them: all go again. */
static void no_cluster(void)
{
	FOR_EACH_KIND(1024)
	{
		struct pager *p = &vm->q->pager;
		uint32_t max = p->cluster_max, c, hoard = CLUSTER_NONE;

		make_dirty(0, MANY);
		taken = snapshot();
		put(9, 7);
		for (uint64_t page = 0; page < 8; page += 2)
			put(page, 7);
		/* So that page 9 is the end of no writes in order any more. */
		for (uint64_t page = 40; page < MANY; page += 17)
			put(page, 7);
		stage_flush(p);
		p->cluster_max = p->cluster_count;
		while ((c = cluster_get(p, 0)) != CLUSTER_NONE) {
			p->clusters[c].next = hoard;
			hoard = c;
		}
		/* The sixth of its block, beside one that has been written. */
		CHECK(fake_fault(vm->r, 10, true, false) == FAULT_DEFERRED);
		for (uint64_t page = 0; page < 64; page++)
			CHECK(!(atomic_load(region_entry(vm->r, page)) & ENTRY_BUSY));
		p->cluster_max = max;
		while ((c = hoard) != CLUSTER_NONE) {
			hoard = p->clusters[c].next;
			cluster_put(p, c);
		}
		CHECK_VM();
		for (uint64_t page = 0; page < MANY; page++)
			put(page, 8);
		check_images(taken, 0, MANY);
	}
}

/* Of a cluster of buffers four are left: they are the written page's and its nearest neighbours'. */
static void few_buffers(void)
{
	FOR_EACH_KIND(1024)
	{
		make_dirty(0, MANY);
		taken = snapshot();
		no_readahead();
		for (uint64_t page = 100; page < 100 + CLUSTER_PAGES - 9; page++)
			put(page, 7);
		CHECK_EQ(quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_NORMAL), 0);
		for (uint64_t page = FIRST; page < FIRST + 15; page += 3)
			put(page, 7);
		put(FIRST + 15, 7);
		CHECK_EQ(count_kept(taken, FIRST, BLOCK), 5 + (kind->waits ? 1 : 4));
		CHECK(has(taken, FIRST + 15));
		CHECK_VM();
		check_images(taken, 0, MANY);
		for (uint64_t page = 0; page < MANY; page++)
			put(page, 8);
		check_images(taken, 0, MANY);
	}
}

/* Writes in any order, among them runs; pages beside them may be anything. */
static void at_random(void)
{
	FOR_EACH_KIND(1024)
	{
		unit_seed();
		make_dirty(0, MANY);
		for (unsigned round = 0; round < 4; round++) {
			uint64_t wrote[MANY];

			for (uint64_t page = 0; page < MANY; page++)
				wrote[page] = value(page);
			taken = snapshot();
			for (unsigned k = 0; k < 60; k++) {
				uint64_t first = unit_below(MANY),
					 n = 1 + unit_below(6) * unit_below(6);
				bool down = unit_below(2);

				n = MIN(n, MANY - first);
				for (uint64_t i = 0; i < n; i++)
					put(first + (down ? n - 1 - i : i), 2000 + round * 100 + k);
				if (unit_below(4) == 0)
					fake_program_discards(vm->r, MANY + unit_below(20));
				if (k == 40)
					fake_vm_take(vm, false);
				CHECK_VM();
			}
			for (uint64_t page = 0; page < MANY; page++)
				CHECK_EQ(image(taken, page), wrote[page]);
			if (round % 2)
				CHECK_EQ(quire_snapshot_destroy(taken), 0);
		}
	}
}

/* ---------------------------------------------------------- differences */

struct found {
	uint64_t first, pages;
	unsigned calls;
};

static int find(void *arg, size_t offset, size_t length)
{
	struct found *f = arg;

	f->calls++;
	f->first = offset / PAGE_BYTES;
	f->pages += length / PAGE_BYTES;
	return 0;
}

/* What was copied and nobody has written to has not changed: in a buffer, and as a slot. */
static void copied_for_nothing(void)
{
	FOR_EACH_KIND(1024)
	{
		quire_snapshot_t *later;
		struct found f = { .calls = 0 };

		make_dirty(0, MANY);
		taken = snapshot();
		for (uint64_t page = 0; page < 12; page++)
			put(page, 7);
		CHECK(kind->waits || count_kept(taken, 0, MANY) > 12);
		later = snapshot();
		CHECK_EQ(quire_snapshot_diff(taken, later, find, &f), 0);
		CHECK(f.calls == 1 && f.first == 0 && f.pages == 12);
		fake_vm_swap_out(vm);
		f = (struct found){ .calls = 0 };
		CHECK_EQ(quire_snapshot_diff(taken, later, find, &f), 0);
		CHECK(f.calls == 1 && f.first == 0 && f.pages == 12);
		/* Written afterwards, without a fault that tells of it. */
		put(13, 9);
		CHECK_EQ(quire_snapshot_destroy(later), 0);
		later = snapshot();
		f = (struct found){ .calls = 0 };
		CHECK_EQ(quire_snapshot_diff(taken, later, find, &f), 0);
		CHECK(f.calls == 2 && f.first == 13 && f.pages == 13);
		check_images(taken, 0, MANY);
		CHECK_VM();
	}
}

/* ------------------------------------------------------------- failures */

/* The writes before the window is wide; then nine pages from here on are copied. */
#define WIDE 11u

static void widen(void)
{
	make_dirty(0, MANY);
	taken = snapshot();
	for (uint64_t page = 0; page < WIDE; page++)
		put(page, 7);
	REQUIRE(kind->waits || !has(taken, WIDE));
}

/* Nothing is lost, and all can be written and read afterwards. */
static void check_all(void)
{
	CHECK_VM();
	check_images(taken, 0, MANY);
	for (uint64_t page = WIDE + 1; page < MANY; page++)
		CHECK_EQ(value(page), 1000 + page);
	for (uint64_t page = WIDE; page < MANY; page++)
		put(page, 7);
	check_images(taken, 0, MANY);
	for (uint64_t page = 0; page < MANY; page++)
		CHECK_EQ(value(page), 7);
	CHECK_VM();
}

/* Each call of the engine's on several pages stops half way, or not at all. */
static void cut_short(void)
{
	static const enum fake_call calls[] = { FAKE_SAVE, FAKE_UNPROTECT, FAKE_MAP };

	for (unsigned i = 0; i < 3; i++)
		for (unsigned n = 1; n < 4; n++)
			FOR_EACH_KIND(1024)
			{
				widen();
				vm->fe->cut[calls[i]] = n;
				put(WIDE, 7);
				vm->fe->cut[calls[i]] = 0;
				check_all();
			}
}

/* The call is refused once, or so often that the write is refused: the page stays what it was. */
static void refused_calls(void)
{
	static const enum fake_call calls[] = { FAKE_SAVE, FAKE_UNPROTECT, FAKE_MAP, FAKE_TAKE };

	for (unsigned i = 0; i < 4; i++)
		for (unsigned times = 1; times < 40; times += 19)
			for (unsigned skip = 0; skip < 2; skip++)
				FOR_EACH_KIND(1024)
				{
					enum fault_result result;

					widen();
					fake_refuse(vm->fe, calls[i], skip, times, ENOMEM);
					result = fake_write(vm->r, WIDE, 7);
					CHECK(result == FAULT_DONE || result == FAULT_REFUSED);
					/* A page beside it is no reason. */
					CHECK(result == FAULT_DONE || times > 1 || skip == 0);
					fake_refuse(vm->fe, calls[i], 0, 0, 0);
					check_all();
				}
}

/* The program has discarded pages, the written one or one beside it, behind our back. */
static void gone(void)
{
	for (uint64_t page = WIDE; page < WIDE + 3; page++)
		FOR_EACH_KIND(1024)
		{
			widen();
			fake_program_discards(vm->r, page);
			put(WIDE, 7);
			CHECK_EQ(value(page), page == WIDE ? 7 : 0);
			CHECK_VM();
			for (uint64_t k = WIDE + 3; k < MANY; k++) {
				put(k, 7);
				CHECK_EQ(image(taken, k), 1000 + k);
			}
			CHECK(image(taken, page) == 0 || image(taken, page) == 1000 + page);
			CHECK_VM();
		}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(in_order),     UNIT(downward),
		UNIT(dense_blocks), UNIT(not_asked_for),
		UNIT(other_pages),  UNIT(little_memory),
		UNIT(few_buffers),  UNIT(no_cluster),
		UNIT(at_random),    UNIT(copied_for_nothing),
		UNIT(cut_short),    UNIT(refused_calls),
		UNIT(gone),         UNIT_END,
	};

	return unit_main(argc, argv, "keep", tests);
}
