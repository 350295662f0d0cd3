/* SPDX-License-Identifier: MIT */
/* tests/unit/read_fixture.c - see read_fixture.h. */
#include "tests/unit/read_fixture.h"

struct fake_owner *owner;
_Atomic unsigned woken;

void open_with_slots(unsigned n)
{
	owner = fake_owner_open(512, 2048);
	fake_owner_swap(owner, 0, n);
}

void close_owner(void)
{
	CHECK_EQ(fake_owner_check(owner), 0);
	CHECK_EQ(fake_owner_close(owner), 0);
}

void check_read(const uint64_t *pages, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		CHECK_EQ(owner->page[pages[i]].state, OWNED_STANDBY);
		CHECK(fake_owner_holds(owner, pages[i]));
		CHECK_EQ(buffer_of(&owner->p, owner->page[pages[i]].at)->state, BUFFER_CLEAN);
	}
}

void *wait_for(void *id)
{
	readin_wait(&owner->p, (uint32_t)(uintptr_t)id);
	atomic_fetch_add(&woken, 1);
	return NULL;
}
