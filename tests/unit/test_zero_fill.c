/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_zero_fill.c - first touches here and there, on a fake engine:
 * when the gaps between them are filled (vm/zero_fill.c). First touches in order,
 * and what can go wrong with them: test_fault.c.
 */
#include "tests/unit/vm_fixture.h"

#define BLOCK 16

/* Five touches of the block that begins at page 32, none beside another. */
static void touch_sparsely(void)
{
	for (uint64_t page = 32; page < 32 + BLOCK - 1; page += 3)
		put(page, page);
	CHECK_EQ(COUNTER(resident), 5);
}

static void dense_blocks_are_filled(void)
{
	FOR_BOTH
	{
		touch_sparsely();
		/* The sixth brings the gap that it is in, and nothing beyond the block. */
		put(46, 46);
		CHECK_EQ(COUNTER(resident), 8);
		CHECK_STATE(45, ENTRY_MAPPED);
		CHECK_STATE(47, ENTRY_MAPPED);
		CHECK_STATE(48, ENTRY_EMPTY);
		put(40, 40);
		CHECK_EQ(COUNTER(resident), 10);
		CHECK_STATE(37, ENTRY_EMPTY);
		CHECK_EQ(COUNTER(zero_fills), COUNTER(resident));
		CHECK_EQ(COUNTER(minor_faults), 7);
		CHECK_EQ(vm->q->pager.credits, 256 - 10);
		CHECK_VM();
		for (uint64_t page = 32; page < 32 + BLOCK; page++)
			CHECK_EQ(value(page),
			         (page % 3 == 2 && page < 47) || page == 46 || page == 40 ? page :
			                                                                    0);
	}
}

/* Pages on the swap file are touched ones. */
static void the_end_of_the_region(void)
{
	FOR_BOTH
	{
		uint64_t end = vm->r->pages;

		for (uint64_t page = end - BLOCK; page < end - 1; page += 3)
			put(page, page);
		fake_vm_swap_out(vm);
		put(end - 1, 7);
		CHECK_EQ(COUNTER(resident), 3);
		CHECK_STATE(end - 3, ENTRY_MAPPED);
		CHECK_STATE(end - 2, ENTRY_MAPPED);
		CHECK_VM();
	}
}

static void not_where_advice_says_random(void)
{
	FOR_BOTH
	{
		no_readahead();
		for (uint64_t page = 32; page < 32 + BLOCK; page += 2)
			put(page, page);
		CHECK_EQ(COUNTER(resident), BLOCK / 2);
	}
}

/* A block of which a quarter is touched is not dense. */
static void strides(void)
{
	FOR_BOTH
	{
		for (uint64_t page = 0; page < 64; page += 4)
			put(page, page);
		CHECK_EQ(COUNTER(resident), 16);
	}
}

static void not_where_memory_is_short(void)
{
	FOR_BOTH
	{
		int64_t all = vm->q->pager.credits;

		touch_sparsely();
		REQUIRE(credits_try(&vm->q->pager, (uint32_t)(all * 3 / 4)));
		put(46, 46);
		CHECK_EQ(COUNTER(resident), 6);
		credits_put(&vm->q->pager, (uint32_t)(all * 3 / 4));
		put(40, 40);
		CHECK_EQ(COUNTER(resident), 8);
	}
}

/* A neighbour that someone holds ends the gap; what the engine does not fill stays untouched. */
static void gaps_in_use(void)
{
	FOR_BOTH
	{
		uint64_t held;

		touch_sparsely();
		held = entry_hold(vm->r, 47);
		put(46, 46);
		entry_publish(vm->r, 47, held);
		CHECK_EQ(COUNTER(resident), 7);
		CHECK_STATE(47, ENTRY_EMPTY);
		vm->fe->cut[FAKE_MAP_ZERO] = 1;
		put(40, 40);
		CHECK_STATE(39, ENTRY_MAPPED);
		CHECK_STATE(40, ENTRY_MAPPED);
		CHECK_EQ(value(40), 40);
		CHECK_VM();
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(dense_blocks_are_filled),
		UNIT(the_end_of_the_region),
		UNIT(not_where_advice_says_random),
		UNIT(strides),
		UNIT(not_where_memory_is_short),
		UNIT(gaps_in_use),
		UNIT_END,
	};

	return unit_main(argc, argv, "zero_fill", tests);
}
