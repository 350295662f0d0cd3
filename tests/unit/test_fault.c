/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_fault.c - faults on a fake engine (vm/fault.c): first touches,
 * first writes, pages that the program discarded itself, and who has to wait or
 * to come again. Each arrow of vm/entry.h that such a fault walks, and each way
 * in which one fails; test_rescue.c and test_read.c have the others. Where
 * nothing else is said a test runs for an in-thread engine and for a handler
 * thread's.
 */
#include "tests/unit/vm_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

/* ------------------------------------------------------------- zero fill */

static void first_touch(void)
{
	FOR_BOTH
	{
		CHECK_EQ(value(7), 0);
		CHECK_EQ(fake_vm_state(vm, 7), ENTRY_MAPPED);
		CHECK(!fake_protected(vm->r, 7));
		CHECK_EQ(COUNTER(resident), 1);
		CHECK_EQ(COUNTER(zero_fills), 1);
		CHECK_EQ(COUNTER(minor_faults), 1);
		put(7, 5);
		CHECK_EQ(COUNTER(minor_faults), 1); /* present and writable */
		put(900, 6);
		CHECK_EQ(value(900), 6);
		CHECK_EQ(value(7), 5);
		CHECK_EQ(COUNTER(minor_faults), 2);
		CHECK_EQ(vm->q->pager.credits, 256 - 2);
		CHECK_VM();
	}
}

static void first_touches_in_order(void)
{
	FOR_BOTH
	{
		for (uint64_t page = 100; page < 164; page++)
			put(page, page);
		CHECK(COUNTER(minor_faults) < 16);
		CHECK(COUNTER(resident) >= 64);
		CHECK_EQ(COUNTER(zero_fills), COUNTER(resident));
		CHECK_VM();
		for (uint64_t page = 600; page > 540; page--)
			put(page, page);
		CHECK(COUNTER(minor_faults) < 32);
		for (uint64_t page = 100; page < 164; page++)
			CHECK_EQ(value(page), page);
		CHECK_EQ(value(541), 541);
	}
}

/*
 * The page table becomes writable in pieces. Where the kernel does not allow one
 * more (a limit on data), its pages are refused, and can be had when it does;
 * what begins before such a piece stops at it.
 */
static void no_room_for_entries(void)
{
	enum { PAGES = 1 << 16, PIECE = ARENA_PIECE_MIN / sizeof(entry_t) };

	if (unit_foreign_memory())
		return;
	for (int in_thread = 0; in_thread < 2; in_thread++) {
		struct fake_vm_options o = { .in_thread = in_thread, .pages = PAGES };
		struct rlimit old, low;
		uint64_t value = 5;

		vm = fake_vm_open(&o);
		REQUIRE_EQ(vm->r->table_arena.piece, PIECE * sizeof(entry_t));
		put(0, 1);
		REQUIRE_EQ(getrlimit(RLIMIT_DATA, &old), 0);
		low = old;
		low.rlim_cur = PAGE_BYTES;
		REQUIRE_EQ(setrlimit(RLIMIT_DATA, &low), 0);
		for (uint64_t page = PIECE - 40; page < PIECE; page++)
			put(page, page);
		CHECK_EQ(fake_write(vm->r, PIECE, 1), FAULT_NOMEM);
		CHECK_EQ(fake_read(vm->r, PAGES - 1, &value), FAULT_NOMEM);
		CHECK_EQ(vm->errors[QUIRE_ERROR_NO_MEMORY], 2);
		CHECK_EQ(vm->last.error, ENOMEM);
		CHECK_EQ(vm->last.offset, (PAGES - 1) * PAGE_BYTES);
		CHECK_EQ(discard_poison(vm->r, PIECE), -ENOMEM);
		/* To give up what is not there takes no memory. */
		CHECK_EQ(discard_range(vm->r, PIECE, PAGES - PIECE, false), 0);
		CHECK_EQ(quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_COLD), 0);
		/* Windows, rescues and first writes beside it. */
		fake_vm_swap_out(vm);
		for (uint64_t page = PIECE - 40; page < PIECE; page++)
			CHECK_EQ(fake_read(vm->r, page, &value), FAULT_DONE);
		CHECK_EQ(value, PIECE - 1);
		for (uint64_t page = PIECE - 40; page < PIECE; page++)
			put(page, page + 1);
		fake_vm_take(vm, false);
		for (uint64_t page = PIECE - 40; page < PIECE; page++)
			CHECK_EQ(fake_read(vm->r, page, &value), FAULT_DONE);
		CHECK_EQ(value, PIECE);
		REQUIRE_EQ(setrlimit(RLIMIT_DATA, &old), 0);
		CHECK_EQ(discard_poison(vm->r, PIECE), 0);
		CHECK_EQ(discard_poison(vm->r, PAGES - 1), 0);
		put(PIECE, 7);
		put(PAGES - 1, 8);
		CHECK_EQ(fake_read(vm->r, PIECE, &value), FAULT_DONE);
		CHECK_EQ(value, 7);
		finish();
	}
}

/* Fault-around stops at the ends of the region, at pages in use, and where advice says random. */
static void fill_is_bounded(void)
{
	FOR_BOTH
	{
		put(20, 1);
		for (uint64_t page = 8; page < 12; page++)
			put(page, 2);
		for (uint64_t page = 12; page < 30; page++)
			value(page);
		CHECK_EQ(value(20), 1);
		CHECK_EQ(COUNTER(zero_fills), COUNTER(resident));
		for (uint64_t page = vm->r->pages - 3; page < vm->r->pages; page++)
			put(page, page);
		for (uint64_t page = 3; page < 4; page--)
			put(page, page + 1);
		CHECK_VM();
		no_readahead();
		uint64_t before = COUNTER(resident);

		for (uint64_t page = 300; page < 310; page++)
			put(page, 3);
		CHECK_EQ(COUNTER(resident), before + 10);
	}
}

static void refused_zero_fill(void)
{
	FOR_BOTH
	{
		fake_refuse(vm->fe, FAKE_MAP_ZERO, 0, 1, ENOMEM);
		CHECK_EQ(fake_write(vm->r, 3, 1), FAULT_REFUSED);
		CHECK_EQ(fake_vm_state(vm, 3), ENTRY_EMPTY);
		CHECK_EQ(vm->errors[QUIRE_ERROR_ENGINE], 1);
		CHECK_EQ(vm->last.error, ENOMEM);
		CHECK_EQ(vm->last.offset, 3 * PAGE_BYTES);
		CHECK(vm->last.region == vm->r);
		CHECK_VM();
		put(3, 1);
		CHECK_EQ(value(3), 1);
	}
}

/* A window that the engine refuses whole costs the window, not the page. */
static void refused_window_of_zeros(void)
{
	FOR_BOTH
	{
		put(10, 1);
		put(11, 1);
		put(12, 1);
		uint64_t next = 13;

		while (fake_vm_state(vm, next) == ENTRY_MAPPED)
			next++;
		fake_refuse(vm->fe, FAKE_MAP_ZERO, 0, 1, EINVAL);
		put(next, 9);
		CHECK_EQ(fake_vm_state(vm, next), ENTRY_MAPPED);
		CHECK_EQ(fake_vm_state(vm, next + 1), ENTRY_EMPTY);
		CHECK_EQ(vm->errors[QUIRE_ERROR_ENGINE], 0);
		CHECK_VM();
		CHECK_EQ(value(next), 9);
	}
}

static uint64_t written_page;

/* Another thread of the program, as soon as pages are there: it writes the first of them. */
static void write_at_once(struct fake_engine *fe, enum fake_call call, char *page, unsigned n)
{
	if (call != FAKE_MAP_ZERO || n < 2)
		return;
	fe->hook = NULL;
	written_page = (uint64_t)(page - vm->r->base) / PAGE_BYTES;
	CHECK(fake_bytes(vm->r, written_page) != NULL);
	fake_fill((void *)(uintptr_t)fake_bytes(vm->r, written_page), 4711);
}

/*
 * A fill cut short has put pages into the address space, where other threads
 * may write to them at once: what was filled must stay.
 */
static void fill_cut_short(void)
{
	FOR_BOTH
	{
		for (int down = 0; down < 2; down++) {
			uint64_t next = down ? 500 : 10;

			/* Let the window grow to several pages. */
			while (fake_vm_state(vm, next) == ENTRY_MAPPED || next < 40 ||
			       (down && next > 470)) {
				put(next, 1);
				next += down ? (uint64_t)-1 : 1;
			}
			vm->fe->cut[FAKE_MAP_ZERO] = 3;
			vm->fe->hook = write_at_once;
			put(next, 8);
			CHECK(vm->fe->hook == NULL);
			vm->fe->hook = NULL;
			CHECK_VM();
			CHECK_EQ(value(next), 8);
			if (written_page != next)
				CHECK_EQ(value(written_page), 4711);
		}
	}
}

/* The case where the touched page itself is not the one that was written. */
static void fill_cut_short_keeps_writes(void)
{
	FOR_BOTH
	{
		uint64_t next = 500;

		while (fake_vm_state(vm, next) == ENTRY_MAPPED || next > 470)
			put(next--, 1);
		vm->fe->cut[FAKE_MAP_ZERO] = 2;
		vm->fe->hook = write_at_once;
		CHECK_EQ(value(next), 0);
		CHECK(vm->fe->hook == NULL && written_page < next);
		vm->fe->hook = NULL;
		CHECK_EQ(value(written_page), 4711);
		CHECK_VM();
	}
}

/* ----------------------------------------------------------- first write */

static void first_write_drops_the_slot(void)
{
	FOR_BOTH
	{
		make_clean(50, 1);
		CHECK_EQ(USED(), 1);
		put(50, 77);
		CHECK_EQ(USED(), 0);
		CHECK_EQ(fake_vm_frame(vm, 50)->slot, SLOT_NONE);
		CHECK_EQ(COUNTER(write_faults), 1);
		CHECK_EQ(value(50), 77);
		CHECK_VM();
		fake_vm_swap_out(vm);
		CHECK_EQ(value(50), 77);
	}
}

static void first_writes_in_order(void)
{
	FOR_BOTH
	{
		make_clean(50, 40);
		for (uint64_t page = 50; page < 90; page++)
			put(page, page);
		CHECK(vm->fe->calls[FAKE_UNPROTECT] < 16);
		CHECK_EQ(COUNTER(write_faults), 40);
		CHECK_EQ(USED(), 0);
		CHECK_VM();
	}
}

/* Of those that are unprotected together some are not: they are clean as before. */
static void first_writes_cut_short(void)
{
	FOR_BOTH
	{
		make_clean(50, 40);
		for (uint64_t page = 50; page < 90; page++) {
			vm->fe->cut[FAKE_UNPROTECT] = 1 + (unsigned)page % 3;
			put(page, page);
			CHECK_VM();
		}
		CHECK_EQ(COUNTER(write_faults), 40);
		CHECK_EQ(USED(), 0);
		fake_vm_swap_out(vm);
		for (uint64_t page = 50; page < 90; page++)
			CHECK_EQ(value(page), page);
	}
}

/* Mappings are short: pages are evicted until there is one, or none can be. */
static void crowded(void)
{
	start_alone(true);
	make_swapped(10, 2);
	put_pages(100, 100);
	fake_refuse(vm->fe, FAKE_MAP, 0, 2, ENGINE_CROWDED);
	CHECK_EQ(value(10), 1010);
	CHECK(COUNTER(evictions) > 2); /* swapping out was two */
	fake_refuse(vm->fe, FAKE_MAP_ZERO, 0, 1, ENGINE_CROWDED);
	put(300, 1300);
	make_clean(20, 1);
	fake_refuse(vm->fe, FAKE_UNPROTECT, 0, 2, ENGINE_CROWDED);
	put(20, 1);
	CHECK_EQ(vm->errors[QUIRE_ERROR_ENGINE], 0);
	CHECK_VM();
	check_pages(100, 100);
	fake_refuse(vm->fe, FAKE_MAP, 0, UINT32_MAX, ENGINE_CROWDED);
	CHECK_EQ(fake_read(vm->r, 11, &(uint64_t){ 0 }), FAULT_REFUSED);
	CHECK_EQ(vm->errors[QUIRE_ERROR_ENGINE], 1);
	fake_refuse(vm->fe, FAKE_MAP, 0, 0, 0);
	check_pages(11, 1);
	finish();
}

static void refused_first_write(void)
{
	FOR_BOTH
	{
		make_clean(50, 1);
		fake_refuse(vm->fe, FAKE_UNPROTECT, 0, 1, ENOENT);
		CHECK_EQ(fake_write(vm->r, 50, 1), FAULT_REFUSED);
		CHECK_EQ(vm->errors[QUIRE_ERROR_ENGINE], 1);
		CHECK_EQ(vm->last.error, ENOENT);
		CHECK(fake_vm_frame(vm, 50)->slot != SLOT_NONE);
		CHECK_VM();
		put(50, 2);
		CHECK_EQ(value(50), 2);
	}
}

/* A page that was protected beside a victim and stayed is dirty still. */
static void write_to_protected_dirty_page(void)
{
	FOR_BOTH
	{
		put(5, 1);
		fake_refuse(vm->fe, FAKE_TAKE, 0, 1, EBUSY);
		CHECK_EQ(fake_vm_take(vm, false), 0);
		CHECK(fake_protected(vm->r, 5));
		fake_refuse(vm->fe, FAKE_UNPROTECT, 0, 1, ENOMEM);
		CHECK_EQ(fake_write(vm->r, 5, 2), FAULT_REFUSED);
		CHECK_EQ(value(5), 1);
		put(5, 2);
		CHECK_EQ(value(5), 2);
		CHECK_EQ(COUNTER(write_faults), 0);
	}
}

/* A region whose pages are always written gets them writable, and its slots back sooner. */
static void writes_are_expected(void)
{
	FOR_BOTH
	{
		uint64_t faults;

		no_readahead();
		for (uint64_t page = 0; page < 60; page++)
			put(page * 3, 1);
		fake_vm_swap_out(vm);
		for (uint64_t page = 0; page < 60; page++) {
			value(page * 3);
			put(page * 3, 2);
		}
		fake_vm_swap_out(vm);
		faults = COUNTER(write_faults);
		for (uint64_t page = 0; page < 60; page++) {
			CHECK_EQ(value(page * 3), 2);
			put(page * 3, 3);
		}
		CHECK(COUNTER(write_faults) - faults < 20);
		CHECK_VM();
	}
}

/* ------------------------------------- discarded by the program itself */

static void program_discards_mapped(void)
{
	FOR_BOTH
	{
		make_clean(50, 2);
		put(60, 1);
		put(61, 1);
		for (uint64_t page = 50; page < 52; page++) {
			fake_program_discards(vm->r, page);
			fake_program_discards(vm->r, page + 10);
		}
		CHECK_EQ(value(50), 0);
		CHECK_EQ(value(60), 0);
		put(51, 8);
		put(61, 9);
		CHECK_EQ(value(51), 8);
		CHECK_EQ(value(61), 9);
		CHECK_EQ(USED(), 0);
		CHECK_EQ(COUNTER(resident), 4);
		CHECK_VM();
	}
}

static void program_discards_before_take(void)
{
	FOR_BOTH
	{
		make_clean(50, 1);
		put(60, 1);
		fake_program_discards(vm->r, 50);
		fake_program_discards(vm->r, 60);
		fake_vm_take(vm, false);
		CHECK_EQ(fake_vm_state(vm, 50), ENTRY_EMPTY);
		CHECK_EQ(fake_vm_state(vm, 60), ENTRY_EMPTY);
		CHECK_EQ(USED(), 0);
		CHECK_EQ(COUNTER(zero_drops), 0);
		CHECK_VM();
		CHECK_EQ(value(50), 0);
	}
}

static void refused_zeros_for_discarded(void)
{
	FOR_BOTH
	{
		put(60, 1);
		fake_program_discards(vm->r, 60);
		fake_refuse(vm->fe, FAKE_MAP_ZERO, 0, 1, ENOMEM);
		CHECK_EQ(fake_write(vm->r, 60, 2), FAULT_REFUSED);
		CHECK_EQ(vm->errors[QUIRE_ERROR_ENGINE], 1);
		CHECK_VM();
		CHECK_EQ(value(60), 0);
	}
}

/* -------------------------------------------------------------- waiting */

/* A handler thread never sleeps: a busy page is marked, and who ends the wait wakes the thread. */
static void busy_page_for_handler(void)
{
	unsigned wakes;

	start(false);
	put(9, 1);
	uint64_t held = entry_hold(vm->r, 9);

	CHECK_EQ(fake_fault(vm->r, 9, true, false), FAULT_WAITING);
	CHECK(fake_vm_entry(vm, 9) & ENTRY_FAULTS);
	CHECK_EQ(fake_fault(vm->r, 9, false, false), FAULT_WAITING);
	wakes = vm->fe->wakes;
	CHECK(entry_publish(vm->r, 9, held));
	CHECK_EQ(vm->fe->wakes, wakes + 1);
	CHECK_EQ(fake_vm_entry(vm, 9), held);
	finish();
}

static void *touch(void *arg)
{
	uint64_t *v = arg;

	if (fake_read(vm->r, 9, v) != FAULT_DONE)
		*v = 1;
	return NULL;
}

static void busy_page_in_thread(void)
{
	struct timespec nap = { .tv_nsec = 1000000 };
	pthread_t thread[4];
	uint64_t held, seen[4];

	start(true);
	put(9, 88);
	fake_vm_take(vm, false);
	held = entry_hold(vm->r, 9);
	for (int i = 0; i < 4; i++)
		REQUIRE_EQ(pthread_create(&thread[i], NULL, touch, &seen[i]), 0);
	for (int i = 0; i < 2000 && !(fake_vm_entry(vm, 9) & ENTRY_WAITERS); i++)
		nanosleep(&nap, NULL);
	CHECK(fake_vm_entry(vm, 9) & ENTRY_WAITERS);
	entry_publish(vm->r, 9, held);
	for (int i = 0; i < 4; i++) {
		pthread_join(thread[i], NULL);
		CHECK_EQ(seen[i], 88);
	}
	CHECK_EQ(COUNTER(rescues), 1);
	finish();
}

/* No memory: a handler thread puts the fault off and leaves everything as it was. */
static void deferred(void)
{
	int64_t credits;

	start(false);
	no_readahead();
	put(1, 1);
	put(2, 2);
	fake_vm_swap_out(vm);
	put(3, 3);
	fake_vm_take(vm, false);
	reclaim_enter(&vm->q->pager);
	clusters_release(&vm->q->pager, INT64_MAX, 0);
	reclaim_leave(&vm->q->pager);
	credits = atomic_load(&vm->q->pager.credits);
	CHECK(credits_try(&vm->q->pager, (uint32_t)credits));
	CHECK_EQ(fake_fault(vm->r, 500, true, false), FAULT_DEFERRED); /* zero fill */
	CHECK_EQ(fake_fault(vm->r, 1, false, false), FAULT_DEFERRED);  /* slot */
	CHECK_EQ(fake_fault(vm->r, 3, false, false), FAULT_DEFERRED);  /* standby */
	CHECK_EQ(fake_vm_state(vm, 500), ENTRY_EMPTY);
	CHECK_EQ(fake_vm_state(vm, 1), ENTRY_SLOT);
	CHECK_EQ(fake_vm_state(vm, 3), ENTRY_STANDBY);
	CHECK(atomic_load(&vm->q->pager.starved));
	credits_put(&vm->q->pager, (uint32_t)credits);
	CHECK_EQ(value(3), 3);
	CHECK_EQ(value(1), 1);
	CHECK_EQ(value(500), 0);
	finish();
}

/* A page that its thread reads by itself counts as one that is being read, and no longer. */
static void read_alone_is_counted(void)
{
	pthread_t thread;
	uint64_t seen;

	start(true);
	no_readahead();
	put(9, 88);
	fake_vm_swap_out(vm);
	fake_disk_fault(vm->disk,
	                (struct fake_fault){ .kind = FAKE_SLOW, .op = FAKE_READ, .value = 300 });
	REQUIRE_EQ(pthread_create(&thread, NULL, touch, &seen), 0);
	for (int i = 0; i < 200 && atomic_load(&vm->q->pager.reading) == 0; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	CHECK_EQ(atomic_load(&vm->q->pager.reading), 1);
	pthread_join(thread, NULL);
	CHECK_EQ(seen, 88);
	CHECK_EQ(atomic_load(&vm->q->pager.reading), 0);
	finish();
}

/*
 * No queue takes a read: a handler thread puts the fault off, as something else
 * than a lack of memory, and no entry has said READING meanwhile: a thread that
 * waits would be woken, and fault again, while its fault is put off.
 */
static void congested(void)
{
	struct ra_plan plan = { .start = 1, .stride = 1, .count = 8 };
	unsigned wakes;
	int64_t credits;
	uint32_t id;

	start(false);
	make_swapped(1, 8);
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		REQUIRE(lock_try(&vm->q->pager.reads[i].lock));
	credits = atomic_load(&vm->q->pager.credits);
	wakes = vm->fe->wakes;
	CHECK_EQ(fake_fault(vm->r, 1, false, false), FAULT_CONGESTED);
	CHECK_EQ(fake_fault(vm->r, 1, true, false), FAULT_CONGESTED);
	CHECK(!window_start(vm->r, &plan, NULL, &id));
	CHECK_EQ(vm->fe->wakes, wakes);
	CHECK_EQ(atomic_load(&vm->q->pager.credits), credits);
	for (uint64_t page = 1; page < 9; page++)
		CHECK_EQ(fake_vm_state(vm, page), ENTRY_SLOT);
	CHECK_VM();
	/* A thread that may sleep reads by itself. */
	CHECK_EQ(fake_fault(vm->r, 1, false, true), FAULT_DONE);
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		lock_release(&vm->q->pager.reads[i].lock);
	check_pages(1, 8);
	finish();
}

/* The same with queues that are full: as soon as something has arrived there is room. */
static void congested_by_reads(void)
{
	struct fake_vm_options o = { .in_thread = false, .pages = 4096, .budget = 2048 };
	uint64_t page = 0;

	vm = fake_vm_open(&o);
	make_swapped(0, 1200);
	fake_disk_fault(vm->disk, (struct fake_fault){ .kind = FAKE_DELAYED,
	                                               .op = FAKE_READ,
	                                               .value = 100,
	                                               .times = 100000 });
	while (page < 1200 && fake_fault(vm->r, page, false, false) == FAULT_WAITING)
		page++;
	CHECK_EQ(page, READ_QUEUES * CLUSTER_PAGES);
	/* However often it comes again: one refault, when it is read. */
	for (int i = 0; i < 3; i++)
		CHECK_EQ(fake_fault(vm->r, page, false, false), FAULT_CONGESTED);
	CHECK_EQ(COUNTER(refaults), page);
	CHECK_EQ(fake_vm_state(vm, page), ENTRY_SLOT);
	CHECK_VM();
	while (fake_fault(vm->r, page, false, false) == FAULT_CONGESTED)
		fake_arrivals(vm->q);
	CHECK_EQ(fake_vm_state(vm, page), ENTRY_READING);
	fake_disk_heal(vm->disk);
	while (fake_arrivals(vm->q) || fake_vm_state(vm, page) == ENTRY_READING)
		;
	check_pages(0, 1200);
	finish();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(first_touch),
		UNIT(first_touches_in_order),
		UNIT(no_room_for_entries),
		UNIT(fill_is_bounded),
		UNIT(refused_zero_fill),
		UNIT(refused_window_of_zeros),
		UNIT(fill_cut_short),
		UNIT(fill_cut_short_keeps_writes),
		UNIT(first_write_drops_the_slot),
		UNIT(first_writes_in_order),
		UNIT(first_writes_cut_short),
		UNIT(crowded),
		UNIT(refused_first_write),
		UNIT(write_to_protected_dirty_page),
		UNIT(writes_are_expected),
		UNIT(program_discards_mapped),
		UNIT(program_discards_before_take),
		UNIT(refused_zeros_for_discarded),
		UNIT(busy_page_for_handler),
		UNIT(busy_page_in_thread),
		UNIT(deferred),
		UNIT(read_alone_is_counted),
		UNIT(congested),
		UNIT(congested_by_reads),
		UNIT_END,
	};

	return unit_main(argc, argv, "fault", tests);
}
