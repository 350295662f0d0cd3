/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_fault.c - faults, stage by stage, on a fake engine (vm/fault.c,
 * window.c, rescue.c): each arrow of vm/entry.h that a fault walks, and each way
 * in which one fails. Where nothing else is said a test runs for an in-thread
 * engine and for a handler thread's.
 */
#include "tests/unit/vm_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

static struct fake_vm *start(bool in_thread)
{
	struct fake_vm_options o = { .in_thread = in_thread };

	return vm = fake_vm_open(&o);
}

static void random_access(void)
{
	CHECK_EQ(quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_RANDOM), 0);
}

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
		random_access();
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

/* Pages that are mapped and equal to their slots. */
static void make_clean(uint64_t first, uint64_t n)
{
	put_pages(first, n);
	fake_vm_swap_out(vm);
	for (uint64_t page = first; page < first + n; page++) {
		CHECK_EQ(fake_vm_state(vm, page), ENTRY_SLOT);
		CHECK_EQ(value(page), 1000 + page);
		CHECK(fake_vm_frame(vm, page)->slot != SLOT_NONE);
		CHECK(fake_protected(vm->r, page));
	}
}

static void first_write_drops_the_slot(void)
{
	FOR_BOTH
	{
		random_access();
		make_clean(50, 1);
		CHECK_EQ(swapfile_used(vm->q->swap), 1);
		put(50, 77);
		CHECK_EQ(swapfile_used(vm->q->swap), 0);
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
		random_access();
		make_clean(50, 40);
		for (uint64_t page = 50; page < 90; page++)
			put(page, page);
		CHECK(vm->fe->calls[FAKE_UNPROTECT] < 16);
		CHECK_EQ(COUNTER(write_faults), 40);
		CHECK_EQ(swapfile_used(vm->q->swap), 0);
		CHECK_VM();
	}
}

static void refused_first_write(void)
{
	FOR_BOTH
	{
		random_access();
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

		random_access();
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
		random_access();
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
		CHECK_EQ(swapfile_used(vm->q->swap), 0);
		CHECK_EQ(COUNTER(resident), 4);
		CHECK_VM();
	}
}

static void program_discards_before_take(void)
{
	FOR_BOTH
	{
		random_access();
		make_clean(50, 1);
		put(60, 1);
		fake_program_discards(vm->r, 50);
		fake_program_discards(vm->r, 60);
		fake_vm_take(vm, false);
		CHECK_EQ(fake_vm_state(vm, 50), ENTRY_EMPTY);
		CHECK_EQ(fake_vm_state(vm, 60), ENTRY_EMPTY);
		CHECK_EQ(swapfile_used(vm->q->swap), 0);
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

/* ---------------------------------------------------------------- rescue */

/* Page 50 in standby, in the state that is asked for. */
static void make_standby(enum buffer_state state)
{
	random_access();
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
		CHECK_EQ(swapfile_used(vm->q->swap), 0);
		CHECK_EQ(value(50), 3);
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
			CHECK_EQ(swapfile_used(vm->q->swap), 1);
			CHECK_VM(); /* the cluster is kept by the write */
			put(50, 1050);
			fake_vm_reap(vm);
			CHECK_EQ(swapfile_used(vm->q->swap), 0);
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
		random_access();
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

		random_access();
		put_pages(100, 12);
		fake_vm_swap_out(vm);
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

/* With UFFDIO_MOVE a single page goes back without a copy, and its buffer's credit with it. */
static void rescue_by_place(void)
{
	for (int in_thread = 0; in_thread < 2; in_thread++) {
		struct fake_vm_options o = { .in_thread = in_thread, .move = true };

		vm = fake_vm_open(&o);
		for (int state = BUFFER_CLEAN; state <= BUFFER_WRITING; state++) {
			make_standby((enum buffer_state)state);
			vm->fe->calls[FAKE_MAP] = vm->fe->calls[FAKE_PLACE] = 0;
			put(50, 9);
			CHECK_EQ(vm->fe->calls[FAKE_PLACE], state != BUFFER_WRITING);
			CHECK_EQ(vm->fe->calls[FAKE_MAP], state == BUFFER_WRITING);
			CHECK_EQ(value(50), 9);
			CHECK_VM();
			fake_vm_reap(vm);
			CHECK_EQ(swapfile_used(vm->q->swap), 0);
		}
		for (int state = BUFFER_CLEAN; state <= BUFFER_DIRTY; state++) {
			make_standby((enum buffer_state)state);
			vm->fe->calls[FAKE_MAP] = 0;
			fake_refuse(vm->fe, FAKE_PLACE, 0, 1, EBUSY);
			put(50, 8); /* it is copied */
			CHECK_EQ(vm->fe->calls[FAKE_MAP], 1);
			CHECK_EQ(value(50), 8);
			CHECK_VM();
			CHECK_EQ(swapfile_used(vm->q->swap), 0);
		}
		finish();
	}
}

/* ------------------------------------------------------------------ read */

static void read_back(void)
{
	FOR_BOTH
	{
		random_access();
		put_pages(200, 20);
		fake_vm_swap_out(vm);
		CHECK_EQ(COUNTER(swapped), 20);
		CHECK_EQ(COUNTER(resident), 0);
		CHECK_VM();
		for (uint64_t page = 219; page >= 200; page -= 1)
			CHECK_EQ(value(page), 1000 + page);
		CHECK_EQ(COUNTER(major_faults), 20);
		CHECK_EQ(COUNTER(refaults), 20);
		CHECK_EQ(COUNTER(pages_in), 20);
		CHECK_EQ(COUNTER(swapped), 0);
		CHECK_EQ(histogram_count(&vm->q->major), 20);
		CHECK_VM();
		/* To be written at once: writable, and no slot is kept. */
		fake_vm_swap_out(vm);
		put(210, 4);
		CHECK_EQ(value(210), 4);
		CHECK_VM();
	}
}

static void read_ahead(void)
{
	FOR_BOTH
	{
		put_pages(100, 100);
		fake_vm_swap_out(vm);
		CHECK_EQ(quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_SEQUENTIAL), 0);
		vm->fe->calls[FAKE_MAP] = 0;
		for (uint64_t page = 100; page < 200; page++)
			CHECK_EQ(value(page), 1000 + page);
		CHECK(COUNTER(major_faults) < 50);
		CHECK(COUNTER(readahead_issued) > 50);
		CHECK_EQ(COUNTER(readahead_hits), COUNTER(readahead_issued));
		CHECK(vm->fe->calls[FAKE_MAP] < 50);
		CHECK_EQ(COUNTER(pages_in), 100);
		CHECK_VM();
	}
}

static void read_backward(void)
{
	FOR_BOTH
	{
		put_pages(100, 100);
		fake_vm_swap_out(vm);
		for (uint64_t page = 199; page >= 100; page--)
			CHECK_EQ(value(page), 1000 + page);
		CHECK(COUNTER(readahead_hits) > 20);
		CHECK_EQ(COUNTER(pages_in), 100);
		CHECK_VM();
	}
}

/* The page that the program waits for has arrived and is mapped, the rest of its window has not. */
static void window_arrives_in_parts(void)
{
	FOR_BOTH
	{
		unsigned reading = 0;

		put_pages(100, 100);
		fake_vm_swap_out(vm);
		CHECK_EQ(quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_SEQUENTIAL), 0);
		fake_disk_fault(vm->disk, (struct fake_fault){ .kind = FAKE_DELAYED,
		                                               .op = FAKE_READ,
		                                               .value = 20,
		                                               .skip = 1,
		                                               .times = 50 });
		CHECK_EQ(value(100), 1100);
		CHECK_EQ(fake_vm_state(vm, 100), ENTRY_MAPPED);
		for (uint64_t page = 101; page < 120; page++)
			reading += fake_vm_state(vm, page) == ENTRY_READING;
		CHECK(reading > 0);
		CHECK_VM();
		for (uint64_t page = 101; page < 200; page++)
			CHECK_EQ(value(page), 1000 + page);
		CHECK_EQ(COUNTER(pages_in), 100);
		CHECK_VM();
	}
}

/* A write that falls on a page read ahead, or being read. */
static void write_into_window(void)
{
	FOR_BOTH
	{
		put_pages(100, 60);
		fake_vm_swap_out(vm);
		CHECK_EQ(quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_SEQUENTIAL), 0);
		for (uint64_t page = 100; page < 160; page += 2) {
			fake_disk_fault(vm->disk,
			                (struct fake_fault){ .kind = FAKE_DELAYED, .value = 7 });
			CHECK_EQ(value(page), 1000 + page);
			put(page + 1, page);
		}
		CHECK_VM();
		fake_vm_swap_out(vm);
		for (uint64_t page = 100; page < 160; page += 2) {
			CHECK_EQ(value(page), 1000 + page);
			CHECK_EQ(value(page + 1), page);
		}
	}
}

/* ----------------------------------------------------- reads that fail */

static void no_slot_is_lost(uint64_t page, uint64_t used)
{
	CHECK_EQ(fake_vm_state(vm, page), ENTRY_SLOT);
	CHECK_EQ(swapfile_used(vm->q->swap), used);
	CHECK_VM();
}

/* The refusal of a handler thread is undone a while later (vm/uffd_thread.c, forgive). */
static void pardon(uint64_t page)
{
	CHECK_EQ(discard_poison(vm->r, page), 0);
	CHECK(!(fake_vm_entry(vm, page) & ENTRY_LOST));
}

static void failed_read(void)
{
	FOR_BOTH
	{
		random_access();
		put_pages(50, 2);
		fake_vm_swap_out(vm);
		fake_disk_fault(vm->disk, (struct fake_fault){ .kind = FAKE_FAIL,
		                                               .op = FAKE_READ,
		                                               .value = EIO,
		                                               .times = 1000 });
		for (int round = 0; round < 2; round++) {
			uint64_t v;

			CHECK_EQ(fake_read(vm->r, 50, &v), FAULT_IOERR);
			CHECK_EQ(fake_write(vm->r, 51, 1), FAULT_IOERR);
			no_slot_is_lost(50, 2);
			CHECK_EQ(vm->last.kind, QUIRE_ERROR_READ);
			CHECK_EQ(vm->last.error, EIO);
			CHECK_EQ(vm->last.offset, 51 * PAGE_BYTES);
			CHECK_EQ(vm->errors[QUIRE_ERROR_READ], (unsigned)round * 2 + 2);
			CHECK_EQ(COUNTER(read_errors), (unsigned)round * 2 + 2);
			pardon(50);
			pardon(51);
		}
		fake_disk_heal(vm->disk);
		CHECK_EQ(value(50), 1050);
		CHECK_EQ(value(51), 1051);
	}
}

static void bad_checksum(void)
{
	FOR_BOTH
	{
		random_access();
		put(50, 1050);
		fake_vm_swap_out(vm);
		fake_disk_fault(vm->disk, (struct fake_fault){ .kind = FAKE_FLIPPED,
		                                               .op = FAKE_READ,
		                                               .value = 99,
		                                               .times = 1000 });
		uint64_t v;

		CHECK_EQ(fake_read(vm->r, 50, &v), FAULT_IOERR);
		CHECK_EQ(vm->errors[QUIRE_ERROR_CHECKSUM], 1);
		CHECK_EQ(vm->last.error, EBADMSG);
		no_slot_is_lost(50, 1);
		CHECK_EQ(COUNTER(resident), 0);
		fake_disk_heal(vm->disk);
		pardon(50);
		CHECK_EQ(value(50), 1050);
	}
}

/* A page that stays poisoned stays refused; nor is one looked at that is in use. */
static void pardon_fails(void)
{
	uint64_t v, held;

	start(false);
	random_access();
	put(50, 1050);
	fake_vm_swap_out(vm);
	fake_disk_fault(vm->disk, (struct fake_fault){ .kind = FAKE_FLIPPED,
	                                               .op = FAKE_READ,
	                                               .value = 99,
	                                               .times = 1 });
	CHECK_EQ(fake_read(vm->r, 50, &v), FAULT_IOERR);
	CHECK(fake_vm_entry(vm, 50) & ENTRY_LOST);
	fake_refuse(vm->fe, FAKE_DROP, 0, 1, EINVAL);
	CHECK_EQ(discard_poison(vm->r, 50), -EINVAL);
	CHECK(fake_vm_entry(vm, 50) & ENTRY_LOST);
	CHECK_EQ(fake_read(vm->r, 50, &v), FAULT_IOERR);
	no_slot_is_lost(50, 1);
	held = entry_hold(vm->r, 50);
	CHECK_EQ(discard_poison(vm->r, 50), -EBUSY);
	entry_publish(vm->r, 50, held);
	CHECK(fake_vm_entry(vm, 50) & ENTRY_LOST);
	pardon(50);
	CHECK_EQ(value(50), 1050);
	finish();
}

/* A write that never reached the disk is found out, and never read as old bytes. */
static void lost_write(void)
{
	FOR_BOTH
	{
		uint64_t v;

		random_access();
		put(50, 1);
		fake_vm_swap_out(vm);
		put(50, 2);
		fake_disk_fault(vm->disk, (struct fake_fault){ .kind = FAKE_TORN,
		                                               .op = FAKE_WRITE,
		                                               .value = 0,
		                                               .times = 1 });
		fake_vm_take(vm, false);
		CHECK(fake_vm_write(vm));
		fake_vm_reap(vm);
		fake_vm_retire(vm);
		CHECK_EQ(fake_vm_state(vm, 50), ENTRY_SLOT);
		CHECK_EQ(fake_read(vm->r, 50, &v), FAULT_IOERR);
		CHECK_EQ(vm->errors[QUIRE_ERROR_CHECKSUM], 1);
		CHECK_EQ(discard_range(vm->r, 50, 1, false), 0);
		CHECK_EQ(value(50), 0);
	}
}

/* One page of a window fails: the fault on it fails, the others are served, and no other is blamed. */
static void failed_read_ahead(void)
{
	FOR_BOTH
	{
		uint64_t bad = 140, v;
		slot_t slot;

		put_pages(100, 80);
		fake_vm_swap_out(vm);
		slot = entry_payload(fake_vm_entry(vm, bad));
		CHECK_EQ(quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_SEQUENTIAL), 0);
		*(char *)fake_disk_page(vm->disk, slot) ^= 1;
		for (uint64_t page = 100; page < 180; page++) {
			if (page == bad)
				CHECK_EQ(fake_read(vm->r, page, &v), FAULT_IOERR);
			else
				CHECK_EQ(value(page), 1000 + page);
		}
		CHECK_EQ(vm->errors[QUIRE_ERROR_CHECKSUM], 1);
		CHECK_EQ(vm->last.offset, bad * PAGE_BYTES);
		no_slot_is_lost(bad, swapfile_used(vm->q->swap));
		*(char *)fake_disk_page(vm->disk, slot) ^= 1;
		pardon(bad);
		CHECK_EQ(value(bad), 1000 + bad);
	}
}

/*
 * A window that nobody waits for fails once: nobody is told, nothing is
 * refused, and the first who wants a page of it reads it again.
 */
static void failed_window_of_nobody(void)
{
	FOR_BOTH
	{
		struct ra_plan plan = { .start = 100, .stride = 1, .count = 8 };
		uint32_t id;

		random_access();
		put_pages(100, 8);
		fake_vm_swap_out(vm);
		fake_disk_fault(vm->disk, (struct fake_fault){ .kind = FAKE_FAIL,
		                                               .op = FAKE_READ,
		                                               .value = EIO,
		                                               .times = 100 });
		CHECK(window_start(vm->r, &plan, NULL, &id));
		for (uint64_t page = 100; page < 108; page++)
			if (fake_vm_state(vm, page) == ENTRY_READING)
				readin_wait(&vm->q->pager, entry_payload(fake_vm_entry(vm, page)));
		fake_disk_heal(vm->disk);
		CHECK_EQ(vm->errors[QUIRE_ERROR_READ], 0);
		for (uint64_t page = 100; page < 108; page++)
			CHECK_EQ(value(page), 1000 + page);
		CHECK_EQ(COUNTER(read_errors), 0);
		CHECK_VM();
	}
}

/* A plan is read as it is, whichever way it goes, into buffers of rising address. */
static void window_is_the_plan(void)
{
	static const struct ra_plan plans[] = { { .start = 100, .stride = 1, .count = 8 },
		                                { .start = 150, .stride = -1, .count = 8 },
		                                { .start = 160, .stride = 3, .count = 8 },
		                                { .start = 221, .stride = -3, .count = 8 } };

	FOR_BOTH
	{
		random_access();
		put_pages(90, 150);
		fake_vm_swap_out(vm);
		for (unsigned i = 0; i < 4; i++) {
			const struct ra_plan *p = &plans[i];
			uint64_t low = p->stride < 0 ? p->start - 7 * (uint64_t)-p->stride :
			                               p->start;
			uint64_t step = (uint64_t)llabs(p->stride);
			unsigned reading = 0;
			uint32_t id;

			CHECK(window_start(vm->r, p, NULL, &id));
			for (uint64_t page = 90; page < 240; page++)
				reading += fake_vm_state(vm, page) == ENTRY_READING;
			CHECK_EQ(reading, 8);
			for (uint32_t k = 0; k < 8; k++) {
				CHECK_EQ(fake_vm_state(vm, low + k * step), ENTRY_READING);
				CHECK_EQ(entry_payload(fake_vm_entry(vm, low + k * step)), id + k);
			}
			while (fake_arrivals(vm->q))
				;
			CHECK_EQ(value(low), 1000 + low);
			CHECK_VM();
		}
	}
}

/* Pages that are in memory, never touched, or could not be read are passed over. */
static void window_of_what_is_slots(void)
{
	FOR_BOTH
	{
		struct ra_plan plan = { .start = 100, .stride = 1, .count = 8 };
		uint64_t v;
		uint32_t id;

		random_access();
		put_pages(100, 4);
		put_pages(106, 2);
		fake_vm_swap_out(vm);
		CHECK_EQ(value(101), 1101);
		*(char *)fake_disk_page(vm->disk, entry_payload(fake_vm_entry(vm, 103))) ^= 1;
		CHECK_EQ(fake_read(vm->r, 103, &v), FAULT_IOERR);
		CHECK(window_start(vm->r, &plan, NULL, &id));
		CHECK_EQ(fake_vm_state(vm, 100), ENTRY_READING);
		CHECK_EQ(fake_vm_state(vm, 101), ENTRY_MAPPED);
		/* A refusal stands until it is forgiven; in-thread engines have none. */
		CHECK_EQ(fake_vm_state(vm, 103), in_thread ? ENTRY_READING : ENTRY_SLOT);
		CHECK_EQ(fake_vm_state(vm, 104), ENTRY_EMPTY);
		CHECK_EQ(fake_vm_state(vm, 107), ENTRY_READING);
		while (fake_arrivals(vm->q))
			;
		CHECK_VM();
		plan.start = 500; /* nothing there */
		CHECK(!window_start(vm->r, &plan, NULL, &id));
		plan = (struct ra_plan){ .start = vm->r->pages - 2, .stride = 1, .count = 8 };
		CHECK(!window_start(vm->r, &plan, NULL, &id)); /* beyond the end */
		CHECK_VM();
	}
}

static void refused_install(void)
{
	FOR_BOTH
	{
		static const int why[] = { EBUSY, EEXIST, ENOENT, ENOMEM };

		random_access();
		put(50, 1050);
		fake_vm_swap_out(vm);
		for (unsigned i = 0; i < 4; i++) {
			uint64_t v;

			fake_refuse(vm->fe, FAKE_MAP, 0, 1, why[i]);
			if (in_thread) {
				CHECK_EQ(fake_read(vm->r, 50, &v), FAULT_REFUSED);
				CHECK_EQ(vm->last.error, why[i]);
				no_slot_is_lost(50, 1);
			} else {
				/* It arrived while the thread waited; woken, it finds it in standby. */
				CHECK_EQ(value(50), 1050);
				fake_vm_swap_out(vm);
			}
			CHECK_VM();
		}
		CHECK_EQ(value(50), 1050);
	}
}

/* No disk queue takes the reads (they fail to start): as if they had failed. */
static void disk_takes_nothing(void)
{
	FOR_BOTH
	{
		put_pages(100, 40);
		fake_vm_swap_out(vm);
		fake_disk_fail_submits(vm->disk, EAGAIN, 3);
		CHECK_EQ(quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_SEQUENTIAL), 0);
		for (uint64_t page = 100; page < 140; page++)
			CHECK_EQ(value(page), 1000 + page);
		CHECK_VM();
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
	CHECK(fake_vm_entry(vm, 9) & ENTRY_WAITERS);
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
	random_access();
	put(1, 1);
	put(2, 2);
	fake_vm_swap_out(vm);
	put(3, 3);
	fake_vm_take(vm, false);
	reclaim_enter(&vm->q->pager);
	clusters_release(&vm->q->pager, INT64_MAX, false);
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
	random_access();
	put_pages(1, 8);
	fake_vm_swap_out(vm);
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
	random_access();
	put_pages(0, 1200);
	fake_vm_swap_out(vm);
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
		UNIT(fill_is_bounded),
		UNIT(refused_zero_fill),
		UNIT(refused_window_of_zeros),
		UNIT(fill_cut_short),
		UNIT(fill_cut_short_keeps_writes),
		UNIT(first_write_drops_the_slot),
		UNIT(first_writes_in_order),
		UNIT(refused_first_write),
		UNIT(write_to_protected_dirty_page),
		UNIT(writes_are_expected),
		UNIT(program_discards_mapped),
		UNIT(program_discards_before_take),
		UNIT(refused_zeros_for_discarded),
		UNIT(rescue_clean),
		UNIT(rescue_dirty),
		UNIT(rescue_while_written),
		UNIT(rescues_in_order),
		UNIT(rescue_mixed),
		UNIT(refused_rescue),
		UNIT(rescue_cut_short),
		UNIT(window_cut_short),
		UNIT(rescue_by_place),
		UNIT(read_back),
		UNIT(read_ahead),
		UNIT(read_backward),
		UNIT(window_arrives_in_parts),
		UNIT(write_into_window),
		UNIT(failed_read),
		UNIT(bad_checksum),
		UNIT(pardon_fails),
		UNIT(lost_write),
		UNIT(failed_read_ahead),
		UNIT(failed_window_of_nobody),
		UNIT(window_is_the_plan),
		UNIT(window_of_what_is_slots),
		UNIT(refused_install),
		UNIT(disk_takes_nothing),
		UNIT(busy_page_for_handler),
		UNIT(busy_page_in_thread),
		UNIT(deferred),
		UNIT(congested),
		UNIT(congested_by_reads),
		UNIT_END,
	};

	return unit_main(argc, argv, "fault", tests);
}
