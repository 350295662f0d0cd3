/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_discard.c - contents that are given up (vm/discard.c), on a fake
 * engine: from every state, and a region with a page in each of them.
 */
#include "tests/unit/vm_fixture.h"

#include <errno.h>

static int discard(uint64_t page)
{
	return discard_range(vm->r, page, 1, false);
}

static void discard_mapped_and_empty(void)
{
	FOR_BOTH_ALONE
	{
		make_clean(10, 3);
		put_pages(13, 3);
		CHECK_EQ(discard_range(vm->r, 0, vm->r->pages, false), 0);
		for (uint64_t page = 10; page < 16; page++)
			CHECK_STATE(page, ENTRY_EMPTY);
		CHECK_EQ(USED(), 0);
		CHECK_EQ(COUNTER(resident), 0);
		CHECK(vm->fe->calls[FAKE_DROP] <= 2);
		CHECK_VM();
		CHECK_EQ(value(12), 0);
		CHECK_EQ(value(14), 0);
	}
}

static void discard_standby(void)
{
	FOR_BOTH_ALONE
	{
		for (int state = BUFFER_CLEAN; state <= BUFFER_WRITING; state++) {
			put_pages(10, 3);
			fake_vm_take(vm, false);
			if (state != BUFFER_DIRTY)
				CHECK(fake_vm_write(vm));
			if (state == BUFFER_CLEAN)
				fake_vm_reap(vm);
			CHECK_EQ(fake_vm_buffer(vm, 11)->state, (enum buffer_state)state);
			CHECK_EQ(discard(11), 0);
			CHECK_STATE(11, ENTRY_EMPTY);
			CHECK_VM();
			fake_vm_reap(vm);
			CHECK_EQ(USED(), state == BUFFER_DIRTY ? 0 : 2);
			CHECK_EQ(value(11), 0);
			check_pages(10, 1);
			check_pages(12, 1);
			CHECK_EQ(discard_range(vm->r, 0, 64, false), 0);
			CHECK_EQ(USED(), 0);
		}
	}
}

static void discard_slot(void)
{
	FOR_BOTH_ALONE
	{
		put_pages(10, 3);
		fake_vm_swap_out(vm);
		CHECK_EQ(discard(11), 0);
		CHECK_STATE(11, ENTRY_EMPTY);
		CHECK_EQ(USED(), 2);
		CHECK_EQ(COUNTER(swapped), 2);
		CHECK_VM();
		CHECK_EQ(value(11), 0);
	}
}

/* A read in flight is waited for. */
static void discard_reading(void)
{
	FOR_BOTH_ALONE
	{
		struct ra_plan plan = { .start = 10, .stride = 1, .count = 8 };
		uint32_t id;

		put_pages(10, 8);
		fake_vm_swap_out(vm);
		fake_disk_fault(vm->disk, (struct fake_fault){ .kind = FAKE_DELAYED,
		                                               .op = FAKE_READ,
		                                               .value = 9,
		                                               .times = 9 });
		CHECK(window_start(vm->r, &plan, NULL, &id));
		CHECK_STATE(12, ENTRY_READING);
		CHECK_VM();
		CHECK_EQ(discard(12), 0);
		CHECK_STATE(12, ENTRY_EMPTY);
		CHECK_EQ(value(12), 0);
		CHECK_EQ(value(11), 1011);
		while (fake_arrivals(vm->q))
			;
		CHECK_VM();
	}
}

/* A page that could not be read is refused until it is discarded; then it is zeros. */
static void discard_lost(void)
{
	uint64_t v;

	FOR_BOTH_ALONE
	{
		put(10, 1010);
		fake_vm_swap_out(vm);
		disk_fails(FAKE_READ, EIO, 100);
		CHECK_EQ(fake_read(vm->r, 10, &v), FAULT_IOERR);
		CHECK_EQ(discard(10), 0);
		CHECK_EQ(value(10), 0);
		CHECK_EQ(USED(), 0);
	}
}

static void refused_discard(void)
{
	FOR_BOTH_ALONE
	{
		put_pages(10, 3);
		fake_refuse(vm->fe, FAKE_DROP, 0, 1, ENOMEM);
		CHECK_EQ(discard_range(vm->r, 10, 3, false), -ENOMEM);
		CHECK_VM();
		check_pages(10, 3);
		CHECK_EQ(discard_range(vm->r, 10, 3, false), 0);
		CHECK_EQ(value(10), 0);
	}
}

/* Destroyed with a page in every state, writes and reads in flight. */
static void destroy_in_every_state(void)
{
	FOR_BOTH_ALONE
	{
		struct ra_plan plan = { .start = 64, .stride = 1, .count = 8 };
		struct quire_region *r = vm->r;
		uint32_t id;

		put_pages(64, 20);
		fake_vm_swap_out(vm); /* slots */
		check_pages(80, 2);   /* mapped, clean */
		put(200, 1);
		put(201, 1);
		fake_vm_take(vm, false); /* dirty */
		CHECK(fake_vm_write(vm));
		put(300, 1);
		fake_vm_take(vm, false);
		put(400, 1); /* mapped, dirty */
		CHECK_EQ(quire_pin(vm->r, 400 * PAGE_BYTES, PAGE_BYTES), 0);
		fake_disk_fault(
			vm->disk,
			(struct fake_fault){ .kind = FAKE_DELAYED, .value = 9, .times = 9 });
		CHECK(window_start(vm->r, &plan, NULL, &id));
		CHECK_VM();
		CHECK_EQ(quire_region_create(vm->q, PAGE_BYTES, NULL, &vm->r), 0);
		CHECK_EQ(quire_region_destroy(r), 0);
		CHECK_EQ(COUNTER(pinned), 0);
		CHECK_EQ(COUNTER(resident), 0);
		CHECK_VM();
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(discard_mapped_and_empty),
		UNIT(discard_standby),
		UNIT(discard_slot),
		UNIT(discard_reading),
		UNIT(discard_lost),
		UNIT(refused_discard),
		UNIT(destroy_in_every_state),
		UNIT_END,
	};

	return unit_main(argc, argv, "discard", tests);
}
