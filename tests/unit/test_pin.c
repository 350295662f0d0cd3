/* SPDX-License-Identifier: MIT */
/* tests/unit/test_pin.c - pages that must stay (vm/pin.c), on a fake engine. */
#include "tests/unit/vm_fixture.h"

#include <errno.h>

static int discard(uint64_t page)
{
	return discard_range(vm->r, page, 1, false);
}

static void pins(void)
{
	FOR_BOTH_ALONE
	{
		size_t at = 10 * PAGE_BYTES, length = 4 * PAGE_BYTES;

		make_clean(10, 2);
		put_pages(12, 1);
		CHECK_EQ(quire_pin(vm->r, at, length), 0); /* clean, dirty, empty */
		CHECK_EQ(quire_pin(vm->r, at, PAGE_BYTES), 0);
		CHECK_EQ(COUNTER(pinned), 4);
		CHECK_VM();
		put_pages(20, 4);
		CHECK_EQ(fake_vm_take(vm, false), 4);
		for (uint64_t page = 10; page < 14; page++) {
			CHECK_STATE(page, ENTRY_MAPPED);
			CHECK(!fake_protected(vm->r, page));
		}
		CHECK_EQ(discard(10), -EBUSY);
		CHECK_EQ(discard_range(vm->r, 9, 8, false), -EBUSY);
		CHECK_EQ(quire_unpin(vm->r, at, length + PAGE_BYTES), -EINVAL);
		CHECK_EQ(COUNTER(pinned), 4);
		CHECK_EQ(quire_unpin(vm->r, at, length), 0);
		CHECK_EQ(COUNTER(pinned), 1);
		CHECK_EQ(fake_vm_take(vm, false), 3);
		CHECK_STATE(10, ENTRY_MAPPED);
		CHECK_EQ(quire_unpin(vm->r, at, PAGE_BYTES), 0);
		CHECK_EQ(quire_unpin(vm->r, at, PAGE_BYTES), -EINVAL);
		CHECK_EQ(fake_vm_take(vm, false), 1);
		CHECK_VM();
		check_pages(10, 2);
	}
}

static void pins_are_bounded(void)
{
	FOR_BOTH_ALONE
	{
		uint64_t most = 256 - 256 / 8;

		CHECK_EQ(quire_pin(vm->r, 0, (most + 1) * PAGE_BYTES), -ENOMEM);
		CHECK_EQ(COUNTER(pinned), 0);
		CHECK_EQ(quire_pin(vm->r, 0, most * PAGE_BYTES), 0);
		CHECK_EQ(quire_pin(vm->r, most * PAGE_BYTES, PAGE_BYTES), -ENOMEM);
		CHECK_EQ(quire_pin(vm->r, 0, most * PAGE_BYTES), 0); /* nested: no more memory */
		for (uint64_t page = 512; page < 700; page++)
			put(page, page); /* in what is left */
		for (uint64_t page = 512; page < 700; page++)
			CHECK_EQ(value(page), page);
		CHECK_VM();
		CHECK_EQ(quire_set_memory(vm->q, 200 * PAGE_BYTES), -EBUSY);
		CHECK_EQ(quire_memory(vm->q), 256 * PAGE_BYTES);
		CHECK_VM();
	}
}

static void pin_fails_whole(void)
{
	FOR_BOTH_ALONE
	{
		slot_t slot;

		put_pages(10, 5);
		fake_vm_swap_out(vm);
		slot = entry_payload(fake_vm_entry(vm, 13));
		*(char *)fake_disk_page(vm->disk, slot) ^= 1;
		CHECK_EQ(quire_pin(vm->r, 10 * PAGE_BYTES, 5 * PAGE_BYTES), -EIO);
		CHECK_EQ(COUNTER(pinned), 0);
		CHECK_VM();
		*(char *)fake_disk_page(vm->disk, slot) ^= 1;
		CHECK_EQ(quire_pin(vm->r, 10 * PAGE_BYTES, 5 * PAGE_BYTES), 0);
		check_pages(10, 5);
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(pins),
		UNIT(pins_are_bounded),
		UNIT(pin_fails_whole),
		UNIT_END,
	};

	return unit_main(argc, argv, "pin", tests);
}
