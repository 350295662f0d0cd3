/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_shortage.c - vm/ and pager/ together when room is short, on a fake
 * engine and a fake disk: a full swap file, writes that fail, a small budget.
 */
#include "tests/unit/vm_fixture.h"

#include <errno.h>

/* --------------------------------------- a full swap file, failing writes */

/* 200 pages for 64 slots. */
static void fill_the_swap_file(void)
{
	quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_RANDOM);
	put_pages(0, 200);
	for (int i = 0; i < 30; i++) {
		fake_vm_take(vm, false);
		fake_vm_write(vm);
		fake_vm_reap(vm);
		fake_vm_retire(vm);
	}
	CHECK_EQ(vm->errors[QUIRE_ERROR_SWAP_FULL], 1); /* told once */
}

static void swap_full(void)
{
	for (int in_thread = 0; in_thread < 2; in_thread++) {
		struct fake_vm_options o = { .in_thread = in_thread, .slots = 65 };
		uint64_t n = 0;

		vm = fake_vm_open(&o);
		fill_the_swap_file();
		CHECK_EQ(USED(), COUNTER(swapped));
		CHECK(USED() >= 32);
		CHECK_EQ(COUNTER(swapped) + atomic_load(&vm->q->pager.standby), 200);
		CHECK_VM();
		/* Nothing is lost: all of it is there. */
		for (uint64_t page = 0; page < 200; page++)
			n += value(page) == 1000 + page;
		CHECK_EQ(n, 200);
		CHECK_VM();
		/* Room again: writing goes on, and a second fullness is told again. */
		CHECK_EQ(discard_range(vm->r, 0, 150, false), 0);
		wait_out_backoff();
		fake_vm_swap_out(vm);
		CHECK_EQ(COUNTER(swapped), 50);
		check_pages(150, 50);
		CHECK_VM();
		put_pages(0, 200);
		fake_vm_take(vm, false);
		CHECK(!fake_vm_write(vm));
		CHECK_EQ(vm->errors[QUIRE_ERROR_SWAP_FULL], 2);
		finish();
	}
}

/* After that a slot that comes free is used at once, without waiting for the next try, and is no news. */
static void a_slot_comes_free(void)
{
	struct fake_vm_options o = { .in_thread = true, .slots = 65 };

	vm = fake_vm_open(&o);
	fill_the_swap_file();
	reclaim_enter(&vm->q->pager);
	CHECK(writeback_suspended(&vm->q->pager));
	reclaim_leave(&vm->q->pager);
	for (uint64_t page = 0, freed = 0; freed < 3; page++) {
		uint64_t used = USED();

		if (fake_vm_state(vm, page) != ENTRY_SLOT)
			continue;
		CHECK_EQ(discard_range(vm->r, page, 1, false), 0);
		CHECK_EQ(USED(), used - 1);
		freed++;
		reclaim_enter(&vm->q->pager);
		CHECK(!writeback_suspended(&vm->q->pager));
		reclaim_leave(&vm->q->pager);
		fake_vm_take(vm, false);
		fake_vm_write(vm);
		fake_vm_reap(vm);
		CHECK_EQ(USED(), used);
	}
	CHECK_EQ(vm->errors[QUIRE_ERROR_SWAP_FULL], 1);
	CHECK_VM();
	finish();
}

/* While writing is suspended reclaim takes clean pages only, and says so when there are none. */
static void suspended_writes(void)
{
	FOR_BOTH_ALONE
	{
		struct taken t;

		make_clean(10, 10);
		put_pages(100, 10);
		disk_fails(FAKE_WRITE, EIO, 1000);
		put(300, 1);
		CHECK_EQ(quire_advise(vm->r, 300 * PAGE_BYTES, PAGE_BYTES, QUIRE_ADVISE_COLD), 0);
		reclaim_enter(&vm->q->pager);
		atomic_store(&vm->q->pager.batch, 1);
		t = vm_owner.take(vm->q, false);
		CHECK_EQ(t.pages, 1);
		cluster_to_standby(&vm->q->pager, t.cluster);
		CHECK(writeback_start(&vm->q->pager, t.cluster));
		cluster_put(&vm->q->pager, t.cluster);
		CHECK_EQ(writeback_reap(&vm->q->pager, true), 1);
		reclaim_leave(&vm->q->pager);
		atomic_store(&vm->q->pager.batch, 16);
		CHECK_EQ(vm->errors[QUIRE_ERROR_WRITE], 1);
		CHECK_EQ(vm->last.error, EIO);
		CHECK_STATE(300, ENTRY_STANDBY);
		CHECK_EQ(fake_vm_buffer(vm, 300)->state, BUFFER_DIRTY);
		CHECK_EQ(COUNTER(write_errors), 1);
		CHECK_VM();
		while (fake_vm_step(vm))
			;
		for (uint64_t page = 10; page < 20; page++)
			CHECK(fake_vm_state(vm, page) != ENTRY_MAPPED);
		for (uint64_t page = 100; page < 110; page++)
			CHECK_STATE(page, ENTRY_MAPPED);
		CHECK_EQ(COUNTER(resident), 10);
		CHECK_VM();
		fake_disk_heal(vm->disk);
		wait_out_backoff();
		fake_vm_swap_out(vm);
		CHECK_STATE(300, ENTRY_SLOT);
		check_pages(10, 10);
		check_pages(100, 10);
		CHECK_EQ(value(300), 1);
	}
}

/* A write that fails for a while costs nothing but time. */
static void write_error_then_good(void)
{
	FOR_BOTH_ALONE
	{
		put_pages(10, 30);
		fake_vm_take(vm, false);
		disk_fails(FAKE_WRITE, EIO, 1000);
		fake_vm_write(vm);
		fake_vm_reap(vm);
		CHECK(vm->errors[QUIRE_ERROR_WRITE] > 0);
		CHECK_EQ(COUNTER(write_errors), 30);
		CHECK_EQ(USED(), 0);
		for (uint64_t page = 10; page < 40; page++)
			CHECK_EQ(fake_vm_buffer(vm, page)->state, BUFFER_DIRTY);
		CHECK(!fake_vm_write(vm)); /* suspended */
		CHECK_VM();
		check_pages(10, 10); /* rescued */
		fake_disk_heal(vm->disk);
		wait_out_backoff();
		CHECK(fake_vm_write(vm));
		fake_vm_reap(vm);
		CHECK_EQ(fake_vm_retire(vm), 20);
		check_pages(10, 30);
	}
}

/* A disk without room that says so only when it is written to. */
static void disk_full_at_write(void)
{
	FOR_BOTH_ALONE
	{
		put_pages(10, 30);
		fake_vm_take(vm, false);
		disk_fails(FAKE_WRITE, ENOSPC, 1000);
		fake_vm_write(vm);
		fake_vm_reap(vm);
		CHECK_EQ(vm->errors[QUIRE_ERROR_SWAP_FULL], 1);
		CHECK_EQ(vm->errors[QUIRE_ERROR_WRITE], 0);
		CHECK_VM();
		check_pages(10, 30);
	}
}

/* ---------------------------------------------------------------- budget */

static void budget_down_and_up(void)
{
	FOR_BOTH_ALONE
	{
		static const uint64_t budgets[] = { 64, 300, 100, 1024, 64 };

		put_pages(0, 250);
		for (unsigned i = 0; i < 5; i++) {
			CHECK_EQ(quire_set_memory(vm->q, budgets[i] * PAGE_BYTES), 0);
			CHECK_EQ(quire_memory(vm->q), budgets[i] * PAGE_BYTES);
			CHECK(atomic_load(&vm->q->pager.credits) >= 0);
			CHECK(COUNTER(resident) <= budgets[i]);
			CHECK_VM();
			check_pages(0, 250);
			CHECK(COUNTER(resident) <= budgets[i]);
			CHECK_VM();
		}
		CHECK_EQ(quire_set_memory(vm->q, 63 * PAGE_BYTES), -EINVAL);
		CHECK_EQ(quire_set_memory(vm->q, (size_t)1 << 50), -EINVAL);
	}
}

/* Every fault within the budget, whatever it is. */
static void budget_is_kept(void)
{
	FOR_BOTH_ALONE
	{
		CHECK_EQ(quire_set_memory(vm->q, 64 * PAGE_BYTES), 0);
		for (int round = 0; round < 3; round++)
			for (uint64_t page = 0; page < 400; page++) {
				put(page, page + 1);
				CHECK(COUNTER(resident) + atomic_load(&vm->q->pager.populated) <=
				      64);
			}
		for (uint64_t page = 0; page < 400; page++)
			CHECK_EQ(value(page), page + 1);
		CHECK(COUNTER(peak_resident) <= 256);
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(swap_full),          UNIT(a_slot_comes_free),
		UNIT(suspended_writes),   UNIT(write_error_then_good),
		UNIT(disk_full_at_write), UNIT(budget_down_and_up),
		UNIT(budget_is_kept),     UNIT_END,
	};

	return unit_main(argc, argv, "shortage", tests);
}
