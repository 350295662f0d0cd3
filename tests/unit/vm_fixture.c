/* SPDX-License-Identifier: MIT */
/* tests/unit/vm_fixture.c - see vm_fixture.h. */
#include "tests/unit/vm_fixture.h"

struct fake_vm *vm;

void finish(void)
{
	CHECK_VM();
	CHECK_EQ(fake_vm_close(vm), 0);
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
