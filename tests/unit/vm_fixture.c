/* SPDX-License-Identifier: MIT */
/* tests/unit/vm_fixture.c - see vm_fixture.h. */
#include "tests/unit/vm_fixture.h"

#include <time.h>

struct fake_vm *vm;

struct fake_vm *start(bool in_thread)
{
	struct fake_vm_options o = { .in_thread = in_thread };

	return vm = fake_vm_open(&o);
}

struct fake_vm *start_alone(bool in_thread)
{
	start(in_thread);
	no_readahead();
	return vm;
}

void finish(void)
{
	CHECK_VM();
	CHECK_EQ(fake_vm_close(vm), 0);
}

void no_readahead(void)
{
	CHECK_EQ(quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_RANDOM), 0);
}

uint64_t value(uint64_t page)
{
	uint64_t v;
	enum fault_result result = fake_read(vm->r, page, &v);

	CHECK_EQ(result, FAULT_DONE);
	return v;
}

void put(uint64_t page, uint64_t v)
{
	CHECK_EQ(fake_write(vm->r, page, v), FAULT_DONE);
}

void put_pages(uint64_t first, uint64_t n)
{
	for (uint64_t page = first; page < first + n; page++)
		put(page, 1000 + page);
}

void check_pages(uint64_t first, uint64_t n)
{
	for (uint64_t page = first; page < first + n; page++)
		CHECK_EQ(value(page), 1000 + page);
}

void make_swapped(uint64_t first, uint64_t n)
{
	no_readahead();
	put_pages(first, n);
	fake_vm_swap_out(vm);
	for (uint64_t page = first; page < first + n; page++)
		CHECK_STATE(page, ENTRY_SLOT);
}

void make_clean(uint64_t first, uint64_t n)
{
	make_swapped(first, n);
	check_pages(first, n);
	for (uint64_t page = first; page < first + n; page++) {
		CHECK(fake_vm_frame(vm, page)->slot != SLOT_NONE);
		CHECK(fake_protected(vm->r, page));
	}
}

void disk_fails(enum fake_op op, int error, unsigned times)
{
	fake_disk_fault(
		vm->disk,
		(struct fake_fault){ .kind = FAKE_FAIL, .op = op, .value = error, .times = times });
}

void wait_out_backoff(void)
{
	struct timespec nap = { .tv_nsec = 110000000 };

	nanosleep(&nap, NULL);
}
