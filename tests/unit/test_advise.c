/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_advise.c - advice on pages (vm/advise.c), on a fake engine: what
 * is COLD, in each state, and while another thread holds a page.
 */
#include "tests/unit/vm_fixture.h"

#include "pager/policy_list.h"

#include <pthread.h>
#include <sched.h>

static int advise_cold(uint64_t first, uint64_t n)
{
	return quire_advise(vm->r, first * PAGE_BYTES, n * PAGE_BYTES, QUIRE_ADVISE_COLD);
}

static bool is_cold(uint64_t page)
{
	uint32_t f = entry_payload(fake_vm_entry(vm, page));

	return vm->q->pager.policy.nodes[f].bits & POLICY_COLD;
}

static void mapped_pages_are_cold(void)
{
	FOR_BOTH_ALONE
	{
		put_pages(10, 8);
		CHECK_EQ(advise_cold(11, 3), 0);
		for (uint64_t page = 10; page < 18; page++)
			CHECK_EQ(is_cold(page), page >= 11 && page < 14);
		CHECK_VM();
		check_pages(10, 8);
	}
}

/* Whatever the range holds besides: nothing is brought in, read or lost. */
static void other_states_are_passed_over(void)
{
	FOR_BOTH_ALONE
	{
		make_swapped(10, 2);
		put_pages(12, 2);
		fake_vm_take(vm, false);
		put_pages(14, 2);
		CHECK_EQ(advise_cold(0, vm->r->pages), 0);
		CHECK_STATE(10, ENTRY_SLOT);
		CHECK_STATE(12, ENTRY_STANDBY);
		CHECK_STATE(14, ENTRY_MAPPED);
		CHECK_STATE(16, ENTRY_EMPTY);
		CHECK(is_cold(15));
		CHECK_VM();
		check_pages(10, 6);
	}
}

static _Atomic int advised;

static void *advise_in_thread(void *arg)
{
	(void)arg;
	CHECK_EQ(advise_cold(10, 4), 0);
	atomic_store(&advised, 1);
	return NULL;
}

/* A page is touched as soon as it is there, while its entry is BUSY still: it is not passed over. */
static void held_pages_are_waited_for(void)
{
	FOR_BOTH_ALONE
	{
		pthread_t thread;
		uint64_t held;

		put_pages(10, 4);
		held = entry_hold(vm->r, 12);
		atomic_store(&advised, 0);
		REQUIRE_EQ(pthread_create(&thread, NULL, advise_in_thread, NULL), 0);
		while (!(atomic_load(region_entry(vm->r, 12)) & ENTRY_WAITERS) &&
		       !atomic_load(&advised))
			sched_yield();
		CHECK_EQ(atomic_load(&advised), 0);
		entry_publish(vm->r, 12, held);
		pthread_join(thread, NULL);
		for (uint64_t page = 10; page < 14; page++)
			CHECK(is_cold(page));
		CHECK_VM();
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(mapped_pages_are_cold),
		                                  UNIT(other_states_are_passed_over),
		                                  UNIT(held_pages_are_waited_for), UNIT_END };

	return unit_main(argc, argv, "advise", tests);
}
