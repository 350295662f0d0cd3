/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_read.c - faults on pages of the swap file, and windows
 * (vm/fault.c, window.c), on a fake engine and a fake disk: read alone and ahead,
 * and each way in which a read fails. Where nothing else is said a test runs for
 * an in-thread engine and for a handler thread's.
 */
#include "tests/unit/vm_fixture.h"

#include <errno.h>

static void read_back(void)
{
	FOR_BOTH
	{
		make_swapped(200, 20);
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

/* Clusters that a test holds. */
static uint32_t kept[64];
static unsigned keeps;

/* All clusters are in use, and there is memory enough: a read waits until standby gives one up. */
static void no_cluster_is_free(void)
{
	FOR_BOTH
	{
		uint32_t max = vm->q->pager.cluster_max;

		put_pages(100, 40);
		fake_vm_swap_out(vm);
		put_pages(200, 10);
		CHECK(fake_vm_take(vm, false) > 0);
		CHECK_EQ(fake_vm_state(vm, 200), ENTRY_STANDBY);
		/* There never will be more of them. */
		vm->q->pager.cluster_max = vm->q->pager.cluster_count;
		for (uint32_t c;
		     vm->q->pager.length[CLUSTERS_EMPTY] + vm->q->pager.length[CLUSTERS_WARM];) {
			c = cluster_get(&vm->q->pager, 0);
			REQUIRE(c != CLUSTER_NONE);
			kept[keeps++] = c;
		}
		for (uint64_t page = 100; page < 140; page += 13) {
			CHECK_EQ(value(page), 1000 + page);
			CHECK(credits_try(&vm->q->pager, 1));
			credits_put(&vm->q->pager, 1);
		}
		CHECK(fake_vm_state(vm, 200) != ENTRY_STANDBY);
		CHECK_EQ(vm->errors[QUIRE_ERROR_NO_MEMORY], 0);
		while (keeps)
			cluster_put(&vm->q->pager, kept[--keeps]);
		vm->q->pager.cluster_max = max;
		check_pages(200, 10);
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
	CHECK_EQ(USED(), used);
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
		make_swapped(50, 2);
		disk_fails(FAKE_READ, EIO, 1000);
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
		make_swapped(50, 1);
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
	make_swapped(50, 1);
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

		no_readahead();
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
		no_slot_is_lost(bad, USED());
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

		make_swapped(100, 8);
		disk_fails(FAKE_READ, EIO, 100);
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
		make_swapped(90, 150);
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

		no_readahead();
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

		make_swapped(50, 1);
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

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(read_back),
		UNIT(read_ahead),
		UNIT(no_cluster_is_free),
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
		UNIT_END,
	};

	return unit_main(argc, argv, "read", tests);
}
