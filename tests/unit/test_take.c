/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_take.c - pages on their way out, on a fake engine: what the
 * pager asks of vm/owner.c (take, retire).
 */
#include "tests/unit/vm_fixture.h"

#include <errno.h>

static void takes_each_as_it_is(void)
{
	FOR_BOTH_ALONE
	{
		make_clean(10, 1);
		put(20, 1020);
		CHECK_EQ(value(30), 0);
		put(40, 1);
		fake_program_discards(vm->r, 40);
		CHECK_EQ(fake_vm_take(vm, false), 4);
		CHECK_STATE(10, ENTRY_STANDBY);
		CHECK_EQ(fake_vm_buffer(vm, 10)->state, BUFFER_CLEAN);
		CHECK_STATE(20, ENTRY_STANDBY);
		CHECK_EQ(fake_vm_buffer(vm, 20)->state, BUFFER_DIRTY);
		CHECK_STATE(30, ENTRY_EMPTY);
		CHECK_STATE(40, ENTRY_EMPTY);
		CHECK_EQ(COUNTER(zero_drops), 1);
		CHECK_EQ(COUNTER(evictions), 1 + 4);
		CHECK_VM();
		CHECK_EQ(value(30), 0);
		CHECK_EQ(value(40), 0);
		check_pages(10, 1);
		check_pages(20, 1);
	}
}

static void takes_none(void)
{
	FOR_BOTH_ALONE
	{
		struct taken t;

		reclaim_enter(&vm->q->pager);
		t = vm_owner.take(vm->q, false);
		reclaim_leave(&vm->q->pager);
		CHECK_EQ(t.pages, 0);
		CHECK_EQ(t.cluster, CLUSTER_NONE);
	}
}

static void takes_clean_only(void)
{
	FOR_BOTH_ALONE
	{
		make_clean(10, 5);
		put_pages(20, 5);
		put(12, 7); /* dirty again, among clean ones */
		CHECK_EQ(fake_vm_take(vm, true), 4);
		for (uint64_t page = 20; page < 25; page++)
			CHECK_STATE(page, ENTRY_MAPPED);
		CHECK_STATE(12, ENTRY_MAPPED);
		CHECK_STATE(11, ENTRY_STANDBY);
		CHECK_VM();
		CHECK_EQ(fake_vm_take(vm, false), 6);
	}
}

/* What the engine keeps stays mapped and evictable. */
static void kept_pages_stay(void)
{
	FOR_BOTH_ALONE
	{
		struct taken t;

		put_pages(10, 6);
		fake_refuse(vm->fe, FAKE_TAKE, 2, 2, EBUSY);
		reclaim_enter(&vm->q->pager);
		t = vm_owner.take(vm->q, false);
		CHECK_EQ(t.pages, 4);
		CHECK_EQ(t.freed, 0);
		cluster_put(&vm->q->pager, t.cluster);
		reclaim_leave(&vm->q->pager);
		CHECK_EQ(COUNTER(resident), 2);
		check_pages(10, 6);
		put(12, 3);
		put(13, 3);
		CHECK_EQ(fake_vm_take(vm, false), 6);
		CHECK_EQ(value(12), 3);
	}
}

/* A page that someone is at is passed over, and nobody waits for him in vain. */
static void busy_neighbours_are_left(void)
{
	FOR_BOTH_ALONE
	{
		uint64_t held;

		/* In standby: whoever holds a mapped page is quick, and is waited for. */
		put(15, 1015);
		fake_vm_take(vm, false);
		put_pages(10, 5);
		held = entry_hold(vm->r, 15);
		CHECK_EQ(fake_vm_take(vm, false), 5);
		entry_publish(vm->r, 15, held);
		check_pages(10, 6);
	}
}

/* Dirty victims with clean pages between them: the gap is held, and left as it was. */
static void joins_scattered_victims(void)
{
	FOR_BOTH_ALONE
	{
		struct taken t;

		make_clean(100, 60);
		for (uint64_t page = 100; page < 160; page += 4)
			put(page, 5000 + page);
		CHECK_EQ(quire_pin(vm->r, 109 * PAGE_BYTES, PAGE_BYTES), 0); /* dirty, and stays */
		for (uint64_t page = 100; page < 160; page += 4)
			CHECK_EQ(quire_advise(vm->r, page * PAGE_BYTES, PAGE_BYTES,
			                      QUIRE_ADVISE_COLD),
			         0);
		reclaim_enter(&vm->q->pager);
		t = vm_owner.take(vm->q, false);
		cluster_put(&vm->q->pager, t.cluster);
		reclaim_leave(&vm->q->pager);
		CHECK(t.pages > 4);
		CHECK(!fake_protected(vm->r, 109));
		CHECK_STATE(109, ENTRY_MAPPED);
		CHECK_VM();
		for (uint64_t page = 100; page < 160; page++)
			CHECK_EQ(value(page), (page % 4 ? 1000 : 5000) + page);
		CHECK_EQ(quire_unpin(vm->r, 109 * PAGE_BYTES, PAGE_BYTES), 0);
	}
}

/* Out of address order, and from two regions: each page's bytes are its own. */
static void batches_are_sorted(void)
{
	FOR_BOTH_ALONE
	{
		struct quire_region *other;

		CHECK_EQ(quire_region_create(vm->q, 64 * PAGE_BYTES, NULL, &other), 0);
		for (uint64_t i = 0; i < 16; i++) {
			uint64_t page = i * 5 % 16;

			put(page, page + 1);
			CHECK_EQ(fake_write(other, page, page + 100), FAULT_DONE);
		}
		CHECK_EQ(fake_vm_take(vm, false), 32);
		CHECK(fake_vm_write(vm));
		fake_vm_reap(vm);
		CHECK_VM();
		fake_vm_retire(vm);
		for (uint64_t page = 0; page < 16; page++) {
			uint64_t v;

			CHECK_EQ(value(page), page + 1);
			CHECK_EQ(fake_read(other, page, &v), FAULT_DONE);
			CHECK_EQ(v, page + 100);
		}
		CHECK_EQ(quire_region_destroy(other), 0);
	}
}

static void retire_and_refuse_to(void)
{
	FOR_BOTH_ALONE
	{
		uint64_t held;
		uint32_t id;

		put_pages(10, 2);
		fake_vm_take(vm, false);
		CHECK(fake_vm_write(vm));
		fake_vm_reap(vm);
		id = entry_payload(fake_vm_entry(vm, 10));
		held = entry_hold(vm->r, 10);
		CHECK(!vm_owner.retire(vm->q, PAGE_ID(vm->r->id, 10), id,
		                       buffer_of(&vm->q->pager, id)->slot));
		entry_publish(vm->r, 10, held);
		CHECK_STATE(10, ENTRY_STANDBY);
		CHECK_EQ(fake_vm_retire(vm), 2);
		CHECK_STATE(10, ENTRY_SLOT);
		CHECK_EQ(COUNTER(swapped), 2);
		/* The buffer is another's, or nobody's, by now. */
		CHECK(!vm_owner.retire(vm->q, PAGE_ID(vm->r->id, 10), id, 1));
		CHECK_VM();
		check_pages(10, 2);
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(takes_each_as_it_is),
		UNIT(takes_none),
		UNIT(takes_clean_only),
		UNIT(kept_pages_stay),
		UNIT(busy_neighbours_are_left),
		UNIT(joins_scattered_victims),
		UNIT(batches_are_sorted),
		UNIT(retire_and_refuse_to),
		UNIT_END,
	};

	return unit_main(argc, argv, "take", tests);
}
