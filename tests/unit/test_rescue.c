/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_rescue.c - pages in standby that are touched (vm/rescue.c), on a
 * fake engine: clean, dirty and being written; alone, in order and by windows;
 * and what is left when the engine refuses or does a part only. Each for an
 * in-thread engine and for a handler thread's.
 */
#include "tests/unit/vm_fixture.h"

#include <errno.h>

/* Page 50 in standby, in the state that is asked for. */
static void make_standby(enum buffer_state state)
{
	no_readahead();
	put(50, 1050);
	fake_vm_take(vm, false);
	if (state != BUFFER_DIRTY) {
		fake_disk_fault(
			vm->disk,
			(struct fake_fault){ .kind = FAKE_DELAYED, .op = FAKE_WRITE, .value = 5 });
		CHECK(fake_vm_write(vm));
	}
	if (state == BUFFER_CLEAN)
		fake_vm_reap(vm);
	CHECK_EQ(fake_vm_state(vm, 50), ENTRY_STANDBY);
	CHECK_EQ(fake_vm_buffer(vm, 50)->state, state);
	CHECK_VM();
}

static void rescue_clean(void)
{
	FOR_BOTH
	{
		make_standby(BUFFER_CLEAN);
		CHECK_EQ(value(50), 1050);
		CHECK(fake_protected(vm->r, 50));
		CHECK(fake_vm_frame(vm, 50)->slot != SLOT_NONE);
		CHECK_EQ(COUNTER(rescues), 1);
		CHECK_EQ(COUNTER(major_faults), 0);
		CHECK_VM();
		/* Evicted again it costs no write. */
		fake_vm_take(vm, false);
		CHECK_EQ(fake_vm_buffer(vm, 50)->state, BUFFER_CLEAN);
		put(50, 3);
		CHECK_EQ(USED(), 0);
		CHECK_EQ(value(50), 3);
	}
}

/* Without a credit it goes back in its buffer's own memory, if pages can be moved. */
static void rescue_without_a_credit(void)
{
	static const enum buffer_state states[] = { BUFFER_CLEAN, BUFFER_DIRTY };

	for (unsigned i = 0; i < 2; i++)
		FOR_BOTH
		{
			uint32_t free;

			make_standby(states[i]);
			free = (uint32_t)atomic_load(&vm->q->pager.credits);
			CHECK(credits_try(&vm->q->pager, free));
			CHECK_EQ(fake_fault(vm->r, 50, false, false), FAULT_DEFERRED);
			CHECK_STATE(50, ENTRY_STANDBY);
			vm->q->engine.uffd.move = true;
			CHECK_EQ(fake_fault(vm->r, 50, false, false), FAULT_DONE);
			CHECK_EQ(fake_vm_frame(vm, 50)->slot, SLOT_NONE);
			CHECK(!fake_protected(vm->r, 50));
			CHECK_EQ(USED(), 0);
			CHECK_EQ(atomic_load(&vm->q->pager.credits), 0);
			credits_put(&vm->q->pager, free);
			CHECK_EQ(value(50), 1050);
			CHECK_VM();
		}
}

static void rescue_dirty(void)
{
	FOR_BOTH
	{
		make_standby(BUFFER_DIRTY);
		CHECK_EQ(value(50), 1050);
		CHECK(!fake_protected(vm->r, 50));
		CHECK_EQ(fake_vm_frame(vm, 50)->slot, SLOT_NONE);
		CHECK_EQ(COUNTER(rescues), 1);
		CHECK_VM();
	}
}

/* W2: the page is dirty again, and the write's slot goes when the write ends. */
static void rescue_while_written(void)
{
	FOR_BOTH
	{
		for (int fail = 0; fail < 2; fail++) {
			if (fail)
				fake_disk_fault(vm->disk, (struct fake_fault){ .kind = FAKE_FAIL,
				                                               .value = EIO,
				                                               .times = 100 });
			make_standby(BUFFER_WRITING);
			CHECK_EQ(value(50), 1050);
			CHECK_EQ(fake_vm_frame(vm, 50)->slot, SLOT_NONE);
			CHECK(!fake_protected(vm->r, 50));
			CHECK_EQ(USED(), 1);
			CHECK_VM(); /* the cluster is kept by the write */
			put(50, 1050);
			fake_vm_reap(vm);
			CHECK_EQ(USED(), 0);
			CHECK_EQ(atomic_load(&vm->q->pager.standby), 0);
			CHECK_EQ(vm->errors[QUIRE_ERROR_WRITE], (unsigned)fail);
			CHECK_VM();
			fake_disk_heal(vm->disk);
		}
	}
}

static void rescues_in_order(void)
{
	FOR_BOTH
	{
		put_pages(100, 60);
		fake_vm_take(vm, false);
		vm->fe->calls[FAKE_MAP] = 0;
		for (uint64_t page = 100; page < 160; page++)
			CHECK_EQ(value(page), 1000 + page);
		CHECK(vm->fe->calls[FAKE_MAP] < 30);
		CHECK_EQ(COUNTER(rescues), 60);
		CHECK_VM();
	}
}

/* Clean and dirty neighbours go back together, each as it is. */
static void rescue_mixed(void)
{
	FOR_BOTH
	{
		make_clean(100, 32);
		for (uint64_t page = 100; page < 132; page += 3)
			put(page, 5000 + page);
		fake_vm_take(vm, false);
		CHECK_VM();
		quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_NORMAL);
		for (uint64_t page = 100; page < 132; page++)
			CHECK_EQ(value(page), (page % 3 == 1 ? 5000 : 1000) + page);
		CHECK_VM();
	}
}

static void refused_rescue(void)
{
	FOR_BOTH
	{
		for (int state = BUFFER_CLEAN; state <= BUFFER_DIRTY; state++) {
			make_standby((enum buffer_state)state);
			fake_refuse(vm->fe, FAKE_MAP, 0, 1, ENOMEM);
			CHECK_EQ(fake_write(vm->r, 50, 1), FAULT_REFUSED);
			CHECK_EQ(fake_vm_state(vm, 50), ENTRY_STANDBY);
			CHECK_EQ(fake_vm_buffer(vm, 50)->state, (enum buffer_state)state);
			CHECK_EQ(vm->last.error, ENOMEM);
			CHECK_VM();
			CHECK_EQ(value(50), 1050);
			put(50, 1050);
		}
	}
}

/* A rescue that the engine cuts short: the rest stays in standby. */
static void rescue_cut_short(void)
{
	FOR_BOTH
	{
		put_pages(100, 30);
		fake_vm_take(vm, false);
		for (uint64_t page = 100; page < 130; page++) {
			vm->fe->cut[FAKE_MAP] = 1 + page % 3;
			CHECK_EQ(value(page), 1000 + page);
			CHECK_VM();
		}
		vm->fe->cut[FAKE_MAP] = 0;
	}
}

/* The same where the page that is wanted lies in the middle of what is put back. */
static void window_cut_short(void)
{
	FOR_BOTH
	{
		struct ra_plan plan = { .start = 100, .stride = 1, .count = 12 };
		uint32_t id;

		make_swapped(100, 12);
		CHECK(window_start(vm->r, &plan, NULL, &id));
		while (fake_arrivals(vm->q))
			;
		CHECK_EQ(fake_vm_state(vm, 107), ENTRY_STANDBY);
		vm->fe->cut[FAKE_MAP] = 3;
		CHECK_EQ(value(107), 1107);
		CHECK_EQ(vm->errors[QUIRE_ERROR_ENGINE], 0);
		CHECK_VM();
		for (uint64_t page = 100; page < 112; page++)
			CHECK_EQ(value(page), 1000 + page);
	}
}

/* => credits taken, so that there are none */
static uint32_t take_credits(void)
{
	uint32_t free = (uint32_t)atomic_load(&vm->q->pager.credits);

	CHECK(credits_try(&vm->q->pager, free));
	return free;
}

/*
 * A page is copied while there are credits; without one it goes back by
 * UFFDIO_MOVE, its buffer's credit with it, unless it is being written.
 */
static void rescue_by_place(void)
{
	for (int in_thread = 0; in_thread < 2; in_thread++) {
		struct fake_vm_options o = { .in_thread = in_thread, .move = true };

		vm = fake_vm_open(&o);
		for (int state = BUFFER_CLEAN; state <= BUFFER_WRITING; state++) {
			make_standby((enum buffer_state)state);
			vm->fe->calls[FAKE_MAP] = vm->fe->calls[FAKE_PLACE] = 0;
			put(50, 9);
			CHECK_EQ(vm->fe->calls[FAKE_PLACE], 0);
			CHECK_EQ(vm->fe->calls[FAKE_MAP], 1);
			CHECK_EQ(value(50), 9);
			CHECK_VM();
			fake_vm_reap(vm);
			CHECK_EQ(USED(), 0);
		}
		for (int state = BUFFER_CLEAN; state <= BUFFER_DIRTY; state++) {
			uint32_t taken;

			make_standby((enum buffer_state)state);
			taken = take_credits();
			vm->fe->calls[FAKE_MAP] = vm->fe->calls[FAKE_PLACE] = 0;
			fake_refuse(vm->fe, FAKE_PLACE, 0, 1, EBUSY);
			CHECK_EQ(fake_fault(vm->r, 50, true, false), FAULT_DEFERRED);
			CHECK_STATE(50, ENTRY_STANDBY);
			CHECK_EQ(fake_fault(vm->r, 50, true, false), FAULT_DONE);
			CHECK_EQ(vm->fe->calls[FAKE_PLACE], 2);
			CHECK_EQ(vm->fe->calls[FAKE_MAP], 0);
			credits_put(&vm->q->pager, taken);
			CHECK_EQ(value(50), 1050);
			CHECK_VM();
			CHECK_EQ(USED(), 0);
		}
		finish();
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(rescue_clean),
		UNIT(rescue_dirty),
		UNIT(rescue_while_written),
		UNIT(rescues_in_order),
		UNIT(rescue_mixed),
		UNIT(refused_rescue),
		UNIT(rescue_cut_short),
		UNIT(window_cut_short),
		UNIT(rescue_by_place),
		UNIT(rescue_without_a_credit),
		UNIT_END,
	};

	return unit_main(argc, argv, "rescue", tests);
}
