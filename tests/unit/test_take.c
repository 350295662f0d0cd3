/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_take.c - pages on their way out, on a fake engine: what the
 * pager asks of vm/owner.c (take, retire), discarding from every state, pins,
 * a full swap file and failing writes, the budget; and a random model test:
 * thousands of operations against plain memory, with every invariant checked
 * on the way, and the same by several threads at once.
 */
#include "tests/unit/vm_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

static struct fake_vm *start(bool in_thread)
{
	struct fake_vm_options o = { .in_thread = in_thread };

	vm = fake_vm_open(&o);
	CHECK_EQ(quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_RANDOM), 0);
	return vm;
}

#define CHECK_STATE(page, state) CHECK_EQ(fake_vm_state(vm, (page)), (state))
#define USED() swapfile_used(vm->q->swap)

static void make_clean(uint64_t first, uint64_t n)
{
	put_pages(first, n);
	fake_vm_swap_out(vm);
	check_pages(first, n);
}

static int discard(uint64_t page)
{
	return discard_range(vm->r, page, 1, false);
}

static void fail_writes(int error, unsigned times)
{
	fake_disk_fault(vm->disk, (struct fake_fault){ .kind = FAKE_FAIL,
	                                               .op = FAKE_WRITE,
	                                               .value = error,
	                                               .times = times });
}

static void wait_out_backoff(void)
{
	struct timespec nap = { .tv_nsec = 110000000 };

	nanosleep(&nap, NULL);
}

/* ------------------------------------------------------------------ take */

static void takes_each_as_it_is(void)
{
	FOR_BOTH
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
	FOR_BOTH
	{
		uint32_t c = 7;

		reclaim_enter(&vm->q->pager);
		CHECK_EQ(vm_owner.take(vm->q, false, &c), 0);
		reclaim_leave(&vm->q->pager);
		CHECK_EQ(c, CLUSTER_NONE);
	}
}

static void takes_clean_only(void)
{
	FOR_BOTH
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
	FOR_BOTH
	{
		put_pages(10, 6);
		fake_refuse(vm->fe, FAKE_TAKE, 2, 2, EBUSY);
		reclaim_enter(&vm->q->pager);
		uint32_t c;

		CHECK_EQ(vm_owner.take(vm->q, false, &c), 4);
		cluster_put(&vm->q->pager, c);
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
	FOR_BOTH
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
	FOR_BOTH
	{
		make_clean(100, 60);
		for (uint64_t page = 100; page < 160; page += 4)
			put(page, 5000 + page);
		CHECK_EQ(quire_pin(vm->r, 109 * PAGE_BYTES, PAGE_BYTES), 0); /* dirty, and stays */
		for (uint64_t page = 100; page < 160; page += 4)
			CHECK_EQ(quire_advise(vm->r, page * PAGE_BYTES, PAGE_BYTES,
			                      QUIRE_ADVISE_COLD),
			         0);
		reclaim_enter(&vm->q->pager);
		uint32_t c;
		unsigned n = vm_owner.take(vm->q, false, &c);

		cluster_put(&vm->q->pager, c);
		reclaim_leave(&vm->q->pager);
		CHECK(n > 4);
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
	FOR_BOTH
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
	FOR_BOTH
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

/* --------------------------------------------------------------- discard */

static void discard_mapped_and_empty(void)
{
	FOR_BOTH
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
	FOR_BOTH
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
	FOR_BOTH
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
	FOR_BOTH
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

	FOR_BOTH
	{
		put(10, 1010);
		fake_vm_swap_out(vm);
		fake_disk_fault(vm->disk, (struct fake_fault){ .kind = FAKE_FAIL,
		                                               .op = FAKE_READ,
		                                               .value = EIO,
		                                               .times = 100 });
		CHECK_EQ(fake_read(vm->r, 10, &v), FAULT_IOERR);
		CHECK_EQ(discard(10), 0);
		CHECK_EQ(value(10), 0);
		CHECK_EQ(USED(), 0);
	}
}

static void refused_discard(void)
{
	FOR_BOTH
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
	FOR_BOTH
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

/* ------------------------------------------------------------------ pins */

static void pins(void)
{
	FOR_BOTH
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
	FOR_BOTH
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
	FOR_BOTH
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

/* --------------------------------------- a full swap file, failing writes */

static void swap_full(void)
{
	for (int in_thread = 0; in_thread < 2; in_thread++) {
		struct fake_vm_options o = { .in_thread = in_thread, .slots = 65 };
		uint64_t n = 0;

		vm = fake_vm_open(&o);
		quire_advise(vm->r, 0, vm->r->bytes, QUIRE_ADVISE_RANDOM);
		put_pages(0, 200);
		for (int i = 0; i < 30; i++) {
			fake_vm_take(vm, false);
			fake_vm_write(vm);
			fake_vm_reap(vm);
			fake_vm_retire(vm);
		}
		CHECK_EQ(vm->errors[QUIRE_ERROR_SWAP_FULL], 1); /* told once */
		CHECK_EQ(USED(), COUNTER(swapped));
		CHECK(USED() >= 32);
		CHECK_EQ(COUNTER(swapped) + atomic_load(&vm->q->pager.standby), 200);
		CHECK_VM();
		/* Nothing is lost: all of it is there. */
		for (uint64_t page = 0; page < 200; page++)
			n += value(page) == 1000 + page;
		CHECK_EQ(n, 200);
		CHECK_VM();
		/* Room again: writing goes on, and a second fullness is told again. */
		CHECK_EQ(discard_range(vm->r, 0, 150, false), 0);
		wait_out_backoff();
		fake_vm_swap_out(vm);
		CHECK_EQ(COUNTER(swapped), 50);
		check_pages(150, 50);
		CHECK_VM();
		put_pages(0, 200);
		fake_vm_take(vm, false);
		CHECK(!fake_vm_write(vm));
		CHECK_EQ(vm->errors[QUIRE_ERROR_SWAP_FULL], 2);
		finish();
	}
}

/* While writing is suspended reclaim takes clean pages only, and says so when there are none. */
static void suspended_writes(void)
{
	FOR_BOTH
	{
		make_clean(10, 10);
		put_pages(100, 10);
		fail_writes(EIO, 1000);
		put(300, 1);
		CHECK_EQ(quire_advise(vm->r, 300 * PAGE_BYTES, PAGE_BYTES, QUIRE_ADVISE_COLD), 0);
		reclaim_enter(&vm->q->pager);
		uint32_t c;

		atomic_store(&vm->q->pager.batch, 1);
		CHECK_EQ(vm_owner.take(vm->q, false, &c), 1);
		cluster_to_standby(&vm->q->pager, c);
		CHECK(writeback_start(&vm->q->pager, c));
		cluster_put(&vm->q->pager, c);
		CHECK_EQ(writeback_reap(&vm->q->pager, true), 1);
		reclaim_leave(&vm->q->pager);
		atomic_store(&vm->q->pager.batch, 16);
		CHECK_EQ(vm->errors[QUIRE_ERROR_WRITE], 1);
		CHECK_EQ(vm->last.error, EIO);
		CHECK_STATE(300, ENTRY_STANDBY);
		CHECK_EQ(fake_vm_buffer(vm, 300)->state, BUFFER_DIRTY);
		CHECK_EQ(COUNTER(write_errors), 1);
		CHECK_VM();
		while (fake_vm_step(vm))
			;
		for (uint64_t page = 10; page < 20; page++)
			CHECK(fake_vm_state(vm, page) != ENTRY_MAPPED);
		for (uint64_t page = 100; page < 110; page++)
			CHECK_STATE(page, ENTRY_MAPPED);
		CHECK_EQ(COUNTER(resident), 10);
		CHECK_VM();
		fake_disk_heal(vm->disk);
		wait_out_backoff();
		fake_vm_swap_out(vm);
		CHECK_STATE(300, ENTRY_SLOT);
		check_pages(10, 10);
		check_pages(100, 10);
		CHECK_EQ(value(300), 1);
	}
}

/* A write that fails for a while costs nothing but time. */
static void write_error_then_good(void)
{
	FOR_BOTH
	{
		put_pages(10, 30);
		fake_vm_take(vm, false);
		fail_writes(EIO, 1000);
		fake_vm_write(vm);
		fake_vm_reap(vm);
		CHECK(vm->errors[QUIRE_ERROR_WRITE] > 0);
		CHECK_EQ(COUNTER(write_errors), 30);
		CHECK_EQ(USED(), 0);
		for (uint64_t page = 10; page < 40; page++)
			CHECK_EQ(fake_vm_buffer(vm, page)->state, BUFFER_DIRTY);
		CHECK(!fake_vm_write(vm)); /* suspended */
		CHECK_VM();
		check_pages(10, 10); /* rescued */
		fake_disk_heal(vm->disk);
		wait_out_backoff();
		CHECK(fake_vm_write(vm));
		fake_vm_reap(vm);
		CHECK_EQ(fake_vm_retire(vm), 20);
		check_pages(10, 30);
	}
}

/* A disk without room that says so only when it is written to. */
static void disk_full_at_write(void)
{
	FOR_BOTH
	{
		put_pages(10, 30);
		fake_vm_take(vm, false);
		fail_writes(ENOSPC, 1000);
		fake_vm_write(vm);
		fake_vm_reap(vm);
		CHECK_EQ(vm->errors[QUIRE_ERROR_SWAP_FULL], 1);
		CHECK_EQ(vm->errors[QUIRE_ERROR_WRITE], 0);
		CHECK_VM();
		check_pages(10, 30);
	}
}

/* ---------------------------------------------------------------- budget */

static void budget_down_and_up(void)
{
	FOR_BOTH
	{
		static const uint64_t budgets[] = { 64, 300, 100, 1024, 64 };

		put_pages(0, 250);
		for (unsigned i = 0; i < 5; i++) {
			CHECK_EQ(quire_set_memory(vm->q, budgets[i] * PAGE_BYTES), 0);
			CHECK_EQ(quire_memory(vm->q), budgets[i] * PAGE_BYTES);
			CHECK(atomic_load(&vm->q->pager.credits) >= 0);
			CHECK(COUNTER(resident) <= budgets[i]);
			CHECK_VM();
			check_pages(0, 250);
			CHECK(COUNTER(resident) <= budgets[i]);
			CHECK_VM();
		}
		CHECK_EQ(quire_set_memory(vm->q, 63 * PAGE_BYTES), -EINVAL);
		CHECK_EQ(quire_set_memory(vm->q, (size_t)1 << 50), -EINVAL);
	}
}

/* Every fault within the budget, whatever it is. */
static void budget_is_kept(void)
{
	FOR_BOTH
	{
		CHECK_EQ(quire_set_memory(vm->q, 64 * PAGE_BYTES), 0);
		for (int round = 0; round < 3; round++)
			for (uint64_t page = 0; page < 400; page++) {
				put(page, page + 1);
				CHECK(COUNTER(resident) + atomic_load(&vm->q->pager.populated) <=
				      64);
			}
		for (uint64_t page = 0; page < 400; page++)
			CHECK_EQ(value(page), page + 1);
		CHECK(COUNTER(peak_resident) <= 256);
	}
}

/* ---------------------------------------------------------- random model */

#define PAGES 512u
#define LOST UINT64_MAX

struct model {
	uint64_t value[PAGES];
	unsigned pins[PAGES];
	unsigned pinned;
};

static bool served(enum fault_result result)
{
	/* Only what was refused on purpose may fail, and then nothing may have changed. */
	return result == FAULT_DONE;
}

/* 1 .. most pages that the region has from page on. */
static uint64_t up_to(uint64_t page, uint64_t most)
{
	uint64_t n = 1 + unit_below(most);

	return MIN(n, PAGES - page);
}

static void random_access(struct model *m, bool failing)
{
	uint64_t page = unit_below(PAGES), n = unit_below(4) ? 1 : unit_below(40);
	bool write = unit_below(2);

	for (; n-- && page < PAGES; page++) {
		uint64_t v = unit_below(12) ? unit_random() >> 8 | 1 : 0;
		enum fault_result result;

		if (write) {
			result = fake_write(vm->r, page, v);
			if (served(result))
				m->value[page] = v;
		} else {
			result = fake_read(vm->r, page, &v);
			if (served(result))
				CHECK_EQ(v, m->value[page]);
		}
		if (!failing)
			CHECK_EQ(result, FAULT_DONE);
	}
}

static void random_discard(struct model *m)
{
	uint64_t page = unit_below(PAGES), n = up_to(page, 60);
	int error = discard_range(vm->r, page, n, false);

	for (; n--; page++) {
		if (m->pins[page]) {
			CHECK_EQ(error, -EBUSY);
			return;
		}
		m->value[page] = 0;
	}
	CHECK_EQ(error, 0);
}

static void random_program_discard(struct model *m)
{
	uint64_t page = unit_below(PAGES);

	/* A page that is not resident is not the kernel's to discard. */
	if (!fake_present(vm->r, page))
		return;
	fake_program_discards(vm->r, page);
	m->value[page] = 0;
}

static void random_pin(struct model *m, bool failing)
{
	uint64_t page = unit_below(PAGES - 8), n = 1 + unit_below(8);
	unsigned more = 0;
	int error;

	for (uint64_t i = page; i < page + n; i++)
		more += m->pins[i] == 0;
	/* Leave room to work in. */
	if (m->pinned + more > 40)
		return;
	error = quire_pin(vm->r, page * PAGE_BYTES, n * PAGE_BYTES);
	if (!failing)
		CHECK_EQ(error, 0);
	for (uint64_t i = page; i < page + n && !error; i++)
		m->pinned += m->pins[i]++ == 0;
}

static void random_unpin(struct model *m)
{
	uint64_t page = unit_below(PAGES);

	for (uint64_t i = 0; i < PAGES; i++, page = (page + 1) % PAGES)
		if (m->pins[page]) {
			CHECK_EQ(quire_unpin(vm->r, page * PAGE_BYTES, PAGE_BYTES), 0);
			m->pinned -= --m->pins[page] == 0;
			return;
		}
}

static void random_advice(void)
{
	static const int advice[] = { QUIRE_ADVISE_NORMAL, QUIRE_ADVISE_SEQUENTIAL,
		                      QUIRE_ADVISE_RANDOM, QUIRE_ADVISE_COLD, QUIRE_ADVISE_COLD };
	uint64_t page = unit_below(PAGES), n = up_to(page, 100);

	CHECK_EQ(quire_advise(vm->r, page * PAGE_BYTES, n * PAGE_BYTES, advice[unit_below(5)]), 0);
}

static void random_budget(const struct model *m)
{
	uint64_t pages = 64 + unit_below(256);

	pages = MAX(pages, m->pinned * 2);
	/* What is being read cannot be evicted, and nobody else completes it here. */
	for (int i = 0; i < 200; i++)
		fake_arrivals(vm->q);

	CHECK_EQ(quire_set_memory(vm->q, pages * PAGE_BYTES), 0);
}

static void random_trouble(void)
{
	enum fake_call call = (enum fake_call)unit_below(FAKE_CALLS);

	switch (unit_below(6)) {
	case 0:
		fake_disk_fault(vm->disk,
		                (struct fake_fault){ .kind = FAKE_DELAYED,
		                                     .value = 1 + (int)unit_below(30),
		                                     .times = 1 + (unsigned)unit_below(4) });
		break;
	case 1:
		fake_disk_fault(vm->disk,
		                (struct fake_fault){ .kind = FAKE_SHORT,
		                                     .value = 4096 + (int)unit_below(20000) });
		break;
	case 2: /* what retries hide */
		fake_disk_fault(vm->disk,
		                (struct fake_fault){ .kind = FAKE_FAIL, .value = EAGAIN });
		break;
	case 3:
		vm->fe->cut[FAKE_MAP] = 1 + (unsigned)unit_below(6);
		break;
	case 4:
		if (call == FAKE_TAKE || call == FAKE_PLACE)
			fake_refuse(vm->fe, call, (unsigned)unit_below(20),
			            1 + (unsigned)unit_below(3), EBUSY);
		break;
	default:
		fake_disk_order(vm->disk, (enum fake_order)unit_below(3), unit_random());
		break;
	}
}

static void random_step(struct model *m)
{
	switch (unit_below(24)) {
	case 0:
		random_discard(m);
		break;
	case 1:
		random_program_discard(m);
		break;
	case 2:
		random_pin(m, false);
		break;
	case 3:
		random_unpin(m);
		break;
	case 4:
		random_advice();
		break;
	case 5:
		random_budget(m);
		break;
	case 6:
		random_trouble();
		break;
	case 7:
		fake_vm_step(vm);
		break;
	case 8:
		fake_vm_retire(vm);
		break;
	case 9:
		fake_arrivals(vm->q);
		break;
	default:
		random_access(m, false);
		break;
	}
}

static void model_run(const struct fake_vm_options *o, unsigned steps)
{
	struct model *m = calloc(1, sizeof *m);

	vm = fake_vm_open(o);
	for (unsigned i = 0; i < steps; i++) {
		random_step(m);
		if (i % 64 == 0 && fake_vm_check(vm) != 0) {
			printf("after step %u\n", i);
			CHECK(false);
			break;
		}
	}
	CHECK_VM();
	fake_disk_heal(vm->disk);
	for (uint64_t page = 0; page < PAGES; page++)
		CHECK_EQ(value(page), m->value[page]);
	CHECK_VM();
	CHECK_EQ(fake_vm_close(vm), 0);
	free(m);
}

static void model(void)
{
	static const char *const policies[] = { "clock", "fifo", "lru" };

	unit_seed();
	for (unsigned i = 0; i < 6; i++) {
		struct fake_vm_options o = { .in_thread = i & 1,
			                     .move = i >> 1 & 1,
			                     .pages = PAGES,
			                     .slots = 2048,
			                     .budget = 128,
			                     .policy = policies[i % 3] };

		model_run(&o, 2000);
	}
}

/* The same with calls and transfers that fail for good: nothing is wrong, nothing is lost. */
static void model_with_failures(void)
{
	unit_seed();
	for (unsigned round = 0; round < 4; round++) {
		struct fake_vm_options o = { .in_thread = round & 1,
			                     .move = round >> 1 & 1,
			                     .pages = PAGES,
			                     .slots = 1024,
			                     .budget = 256 };
		struct model *m = calloc(1, sizeof *m);

		vm = fake_vm_open(&o);
		for (unsigned i = 0; i < 1500; i++) {
			enum fake_call call = (enum fake_call)unit_below(FAKE_DROP);

			if (i % 50 == 0)
				fake_refuse(vm->fe, call, (unsigned)unit_below(10), 2, ENOMEM);
			if (i % 100 == 0)
				fake_disk_fault(
					vm->disk,
					(struct fake_fault){ .kind = FAKE_FAIL,
				                             .value = EIO,
				                             .times = 1 + (unsigned)unit_below(30),
				                             .op = FAKE_READ });
			if (i % 200 == 150) {
				fake_disk_heal(vm->disk);
				for (uint64_t page = 0; page < PAGES; page++)
					discard_poison(vm->r, page);
				CHECK_VM();
			}
			random_access(m, true);
			if (unit_below(10) == 0)
				random_pin(m, true);
			random_unpin(m);
		}
		fake_disk_heal(vm->disk);
		for (int call = 0; call < FAKE_CALLS; call++)
			fake_refuse(vm->fe, (enum fake_call)call, 0, 0, 0);
		for (uint64_t page = 0; page < PAGES; page++) {
			discard_poison(vm->r, page);
			CHECK_EQ(value(page), m->value[page]);
		}
		CHECK_VM();
		CHECK_EQ(fake_vm_close(vm), 0);
		free(m);
	}
}

/* ---------------------------------------------------- many threads at once */

#define THREADS 4u

struct worker {
	pthread_t thread;
	unsigned index;
	uint64_t random, wrong, accesses;
	uint64_t value[PAGES / THREADS];
};

static uint64_t next_random(struct worker *w)
{
	w->random = w->random * 6364136223846793005u + 1442695040888963407u;
	return w->random >> 24;
}

static _Atomic bool stop;

/* Its pages are every THREADS-th, so that neighbours are others'. */
static void *work(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		uint64_t i = next_random(w) % (PAGES / THREADS), n = next_random(w) % 16, v;

		for (; i < PAGES / THREADS && n-- > 0; i++, w->accesses++) {
			uint64_t page = i * THREADS + w->index;

			switch (next_random(w) % 32) {
			case 0:
				if (discard_range(vm->r, page, 1, false) == 0)
					w->value[i] = 0;
				break;
			case 1:
				if (quire_pin(vm->r, page * PAGE_BYTES, PAGE_BYTES) != 0 ||
				    quire_unpin(vm->r, page * PAGE_BYTES, PAGE_BYTES) != 0)
					w->wrong++;
				break;
			case 2 ... 14:
				v = next_random(w) | 1;
				if (fake_write(vm->r, page, v) == FAULT_DONE)
					w->value[i] = v;
				else
					w->wrong++;
				break;
			default:
				if (fake_read(vm->r, page, &v) != FAULT_DONE || v != w->value[i])
					w->wrong++;
				break;
			}
		}
	}
	return NULL;
}

static void threads(void)
{
	static struct worker workers[THREADS];
	struct timespec slice = { .tv_nsec = 40000000 };

	unit_seed();
	for (int way = 0; way < 4; way++) {
		struct fake_vm_options o = { .in_thread = way & 1,
			                     .move = way >> 1,
			                     .threads = true,
			                     .pages = PAGES,
			                     .budget = 128,
			                     .slots = 2048 };

		vm = fake_vm_open(&o);
		if (!o.in_thread)
			fake_handler_start(vm->q);
		atomic_store(&stop, false);
		for (unsigned i = 0; i < THREADS; i++) {
			workers[i] = (struct worker){ .index = i, .random = unit_random() };
			REQUIRE_EQ(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
		}
		for (int i = 0; i < 4; i++) {
			nanosleep(&slice, NULL);
			CHECK_EQ(quire_set_memory(vm->q, (i % 2 ? 192 : 72) * PAGE_BYTES), 0);
		}
		atomic_store(&stop, true);
		for (unsigned i = 0; i < THREADS; i++) {
			pthread_join(workers[i].thread, NULL);
			CHECK_EQ(workers[i].wrong, 0);
			CHECK(workers[i].accesses > 100);
		}
		for (uint64_t page = 0; page < PAGES; page++)
			CHECK_EQ(value(page), workers[page % THREADS].value[page / THREADS]);
		if (!o.in_thread)
			fake_handler_stop(vm->q);
		CHECK_EQ(fake_vm_close(vm), 0);
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
		UNIT(discard_mapped_and_empty),
		UNIT(discard_standby),
		UNIT(discard_slot),
		UNIT(discard_reading),
		UNIT(discard_lost),
		UNIT(refused_discard),
		UNIT(destroy_in_every_state),
		UNIT(pins),
		UNIT(pins_are_bounded),
		UNIT(pin_fails_whole),
		UNIT(swap_full),
		UNIT(suspended_writes),
		UNIT(write_error_then_good),
		UNIT(disk_full_at_write),
		UNIT(budget_down_and_up),
		UNIT(budget_is_kept),
		UNIT(model),
		UNIT(model_with_failures),
		UNIT(threads),
		UNIT_END,
	};

	return unit_main(argc, argv, "take", tests);
}
