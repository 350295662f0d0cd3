/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_writeback.c - dirty buffers to a fake disk (pager/writeback.c):
 * one request for neighbours, and what becomes of pages and slots when writes
 * fail, when slots run out, and when pages are taken back meanwhile.
 */
#include "tests/unit/fake_owner.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <time.h>

static struct fake_owner *o;

static uint32_t standby(uint64_t first, unsigned n)
{
	REQUIRE_EQ(fake_owner_map(o, first, n), 0);
	return fake_owner_unmap(o, first, n);
}

static uint32_t state(uint64_t page)
{
	return atomic_load(&buffer_of(&o->p, o->page[page].at)->state);
}

static slot_t slot(uint64_t page)
{
	return buffer_of(&o->p, o->page[page].at)->slot;
}

static void fail_writes(int error, unsigned times)
{
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = FAKE_FAIL,
	                                              .op = FAKE_WRITE,
	                                              .value = error,
	                                              .times = times });
}

static void delay_writes(void)
{
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = FAKE_DELAYED,
	                                              .op = FAKE_WRITE,
	                                              .value = 5,
	                                              .times = 10 });
}

static void wait_out_backoff(void)
{
	struct timespec nap = { .tv_nsec = 110000000 };

	nanosleep(&nap, NULL);
}

static void neighbours_are_one_request(void)
{
	uint32_t c;

	o = fake_owner_open(256, 1024);
	c = standby(10, 40);
	CHECK(fake_owner_write(o, c));
	CHECK_EQ(state(10), BUFFER_WRITING);
	CHECK_EQ(fake_disk_counts(o->disk).writes, 1);
	CHECK_EQ(counted(&o->counters.writeback_requests), 1);
	CHECK_EQ(counted(&o->counters.writeback_sizes[5]), 1); /* 32 .. 63 pages */
	CHECK_EQ(o->written, 0);
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(fake_owner_reap(o), 1);
	CHECK_EQ(o->written, 40);
	CHECK_EQ(counted(&o->counters.pages_out), 40);
	for (uint64_t page = 10; page < 50; page++) {
		CHECK_EQ(state(page), BUFFER_CLEAN);
		CHECK_EQ(slot(page), slot(10) + page - 10);
		CHECK(memcmp(fake_disk_page(o->disk, slot(page)),
		             buffer_address(&o->p, o->page[page].at), PAGE_BYTES) == 0);
	}
	/* Clean ones are not written again. */
	CHECK(fake_owner_write(o, c));
	CHECK_EQ(fake_disk_counts(o->disk).writes, 1);
	CHECK_EQ(fake_owner_close(o), 0);
}

/* Some of a cluster are clean or gone: the dirty ones get neighbouring slots all the same. */
static void only_dirty_ones(void)
{
	uint32_t c;

	o = fake_owner_open(256, 1024);
	c = standby(10, 20);
	for (uint64_t page = 10; page < 30; page += 2)
		fake_owner_drop(o, page);
	CHECK(fake_owner_write(o, c));
	CHECK_EQ(fake_owner_reap(o), 1);
	CHECK_EQ(o->written, 10);
	CHECK_EQ(slot(29), slot(11) + 9);
	CHECK_EQ(swapfile_used(o->swap), 10);
	CHECK_EQ(fake_owner_close(o), 0);
}

static void taken_back_meanwhile(void)
{
	for (int fail = 0; fail < 2; fail++) {
		uint32_t c;

		o = fake_owner_open(256, 1024);
		c = standby(10, 8);
		if (fail)
			fail_writes(EIO, 100);
		else
			delay_writes();
		CHECK(fake_owner_write(o, c));
		fake_owner_rescue(o, 12);
		CHECK_EQ(o->p.frames[o->page[12].at].slot, SLOT_NONE); /* W2 */
		fake_owner_drop(o, 13);
		CHECK_EQ(buffer_of(&o->p, c * CLUSTER_PAGES + 2)->state, BUFFER_ABANDONED);
		CHECK_EQ(fake_owner_check(o), 0);
		CHECK_EQ(fake_owner_reap(o), 1);
		CHECK_EQ(buffer_of(&o->p, c * CLUSTER_PAGES + 2)->state, BUFFER_FREE);
		CHECK_EQ(buffer_of(&o->p, c * CLUSTER_PAGES + 3)->state, BUFFER_FREE);
		CHECK_EQ(swapfile_used(o->swap), fail ? 0 : 6);
		CHECK_EQ(o->written, fail ? 0 : 6);
		CHECK_EQ(state(11), fail ? BUFFER_DIRTY : BUFFER_CLEAN);
		CHECK_EQ(o->failures[PAGER_WRITE_FAILED], (unsigned)fail);
		CHECK_EQ(fake_owner_check(o), 0);
		CHECK_EQ(fake_owner_close(o), 0);
	}
}

/* All are taken back before the write ends: it keeps the cluster, and then frees it. */
static void cluster_lives_until_written(void)
{
	uint32_t c;

	o = fake_owner_open(256, 1024);
	c = standby(10, 4);
	delay_writes();
	CHECK(fake_owner_write(o, c));
	for (uint64_t page = 10; page < 14; page++)
		fake_owner_drop(o, page);
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 4);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_STANDBY);
	fake_owner_reap(o);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_WARM);
	CHECK_EQ(swapfile_used(o->swap), 0);
	CHECK_EQ(fake_owner_close(o), 0);
}

static void failed_write(void)
{
	uint32_t c;

	o = fake_owner_open(256, 1024);
	c = standby(10, 20);
	fail_writes(EIO, 1000);
	CHECK(fake_owner_write(o, c));
	fake_owner_rescue(o, 15);
	CHECK_EQ(fake_owner_reap(o), 1);
	CHECK_EQ(o->failures[PAGER_WRITE_FAILED], 1);
	CHECK_EQ(o->failure_error, EIO);
	CHECK_EQ(counted(&o->counters.write_errors), 19);
	CHECK_EQ(counted(&o->counters.pages_out), 0);
	CHECK_EQ(o->written, 0);
	CHECK_EQ(swapfile_used(o->swap), 0);
	CHECK_EQ(state(10), BUFFER_DIRTY);
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK(!fake_owner_write(o, c)); /* not just now */
	fake_disk_heal(o->disk);
	CHECK(!fake_owner_write(o, c));
	wait_out_backoff();
	CHECK(fake_owner_write(o, c));
	fake_owner_reap(o);
	CHECK_EQ(state(10), BUFFER_CLEAN);
	CHECK_EQ(o->written, 19);
	CHECK_EQ(o->p.write_again_at, 0);
	CHECK_EQ(fake_owner_close(o), 0);
}

/* ENOSPC is told as a full swap file, and once. */
static void disk_without_room(void)
{
	uint32_t c;

	o = fake_owner_open(256, 1024);
	c = standby(10, 5);
	for (int i = 0; i < 2; i++) {
		fail_writes(ENOSPC, 1000);
		CHECK(fake_owner_write(o, c));
		fake_owner_reap(o);
		CHECK_EQ(o->failures[PAGER_SWAP_FULL], 1);
		CHECK_EQ(o->failures[PAGER_WRITE_FAILED], 0);
		CHECK_EQ(fake_owner_check(o), 0);
		wait_out_backoff();
	}
	fake_disk_heal(o->disk);
	CHECK(fake_owner_write(o, c));
	fake_owner_reap(o);
	CHECK(!o->p.swap_full);
	CHECK_EQ(state(10), BUFFER_CLEAN);
	CHECK_EQ(fake_owner_close(o), 0);
}

/* Slots for a part of a cluster: that part is written, the rest stays dirty. */
static void slots_run_out(void)
{
	uint32_t c, d;
	unsigned clean = 0, dirty = 0;

	o = fake_owner_open(256, 65);
	c = standby(0, 50);
	CHECK(fake_owner_write(o, c));
	d = standby(100, 50);
	CHECK(!fake_owner_write(o, d));
	CHECK_EQ(o->failures[PAGER_SWAP_FULL], 1);
	CHECK_EQ(o->failure_error, ENOSPC);
	fake_owner_reap(o);
	for (uint64_t page = 100; page < 150; page++) {
		clean += state(page) == BUFFER_CLEAN;
		dirty += state(page) == BUFFER_DIRTY;
	}
	CHECK_EQ(clean + dirty, 50);
	CHECK(clean > 0 && dirty > 0);
	CHECK_EQ(clean + 50, swapfile_used(o->swap));
	CHECK_EQ(fake_owner_check(o), 0);
	wait_out_backoff();
	CHECK(!fake_owner_write(o, d));
	for (uint64_t page = 0; page < 50; page++)
		fake_owner_drop(o, page);
	wait_out_backoff();
	CHECK(fake_owner_write(o, d));
	fake_owner_reap(o);
	for (uint64_t page = 100; page < 150; page++)
		CHECK_EQ(state(page), BUFFER_CLEAN);
	CHECK_EQ(fake_owner_close(o), 0);
}

/* A thread of the program's leaves nothing in flight behind it. */
static void on_a_thread_of_the_program(void)
{
	uint32_t c;

	o = fake_owner_open(256, 1024);
	thread_is_ours = false;
	c = standby(10, 20);
	CHECK(fake_owner_write(o, c));
	CHECK_EQ(state(10), BUFFER_CLEAN);
	CHECK_EQ(o->written, 20);
	CHECK_EQ(swap_queue_in_flight(o->p.writes), 0);
	CHECK_EQ(fake_owner_check(o), 0);
	c = standby(40, 5);
	fail_writes(EIO, 1000);
	CHECK(!fake_owner_write(o, c));
	CHECK_EQ(state(40), BUFFER_DIRTY);
	CHECK_EQ(o->failures[PAGER_WRITE_FAILED], 1);
	CHECK(!fake_owner_write(o, c)); /* not just now */
	CHECK_EQ(o->failures[PAGER_WRITE_FAILED], 1);
	CHECK_EQ(swapfile_used(o->swap), 20);
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(fake_owner_close(o), 0);
	thread_is_ours = true;
}

/* Nor does it go on with what a thread of ours has started: it ends that by itself. */
static void ends_what_others_started(void)
{
	uint32_t c;
	unsigned submits;

	o = fake_owner_open(256, 1024);
	c = standby(10, 20);
	fake_disk_fault(o->disk,
	                (struct fake_fault){ .kind = FAKE_SHORT, .op = FAKE_WRITE, .value = 9000 });
	CHECK(fake_owner_write(o, c));
	submits = fake_disk_counts(o->disk).submits;
	thread_is_ours = false;
	CHECK_EQ(fake_owner_reap(o), 1);
	CHECK_EQ(fake_disk_counts(o->disk).submits, submits);
	CHECK_EQ(o->written, 20);
	CHECK_EQ(state(29), BUFFER_CLEAN);
	CHECK(memcmp(fake_disk_page(o->disk, slot(29)), buffer_address(&o->p, o->page[29].at),
	             PAGE_BYTES) == 0);
	/* Not even when it writes while others' writes are owed. */
	thread_is_ours = true;
	c = standby(40, 5);
	fake_disk_fail_submits(o->disk, EAGAIN, 100000);
	CHECK(fake_owner_write(o, c));
	fake_disk_heal(o->disk);
	submits = fake_disk_counts(o->disk).submits;
	thread_is_ours = false;
	CHECK(fake_owner_write(o, standby(50, 5)));
	CHECK_EQ(state(50), BUFFER_CLEAN);
	CHECK_EQ(fake_owner_reap(o), 0);
	CHECK_EQ(fake_disk_counts(o->disk).submits, submits);
	CHECK_EQ(state(40), BUFFER_WRITING);
	thread_is_ours = true;
	CHECK_EQ(fake_owner_reap(o), 1);
	CHECK_EQ(state(40), BUFFER_CLEAN);
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(fake_owner_close(o), 0);
}

/* No run is free, and none is in a write: write-back gives up for now, and nothing changes. */
static void runs_run_out(void)
{
	struct swap_run *run, *all = NULL;
	uint32_t c;

	o = fake_owner_open(256, 1024);
	c = standby(10, 20);
	while ((run = run_get(&o->p, SWAP_WRITE)) != NULL) {
		run->owner = all;
		all = run;
	}
	CHECK(!fake_owner_write(o, c));
	CHECK_EQ(state(10), BUFFER_DIRTY);
	CHECK_EQ(swapfile_used(o->swap), 0);
	CHECK_EQ(o->failures[PAGER_SWAP_FULL], 0);
	while ((run = all) != NULL) {
		all = run->owner;
		run_put(&o->p, run);
	}
	CHECK(fake_owner_write(o, c));
	CHECK_EQ(fake_owner_reap(o), 1);
	CHECK_EQ(state(10), BUFFER_CLEAN);
	CHECK_EQ(fake_owner_close(o), 0);
}

/* What is told of a failure names a page that is still there to be written. */
static void failures_name_what_is_left(void)
{
	uint32_t c;

	for (int full = 0; full < 2; full++) {
		o = fake_owner_open(256, 1024);
		fail_writes(full ? ENOSPC : EIO, 1000);
		c = standby(10, 8);
		CHECK(fake_owner_write(o, c));
		fake_owner_drop(o, 17); /* the last */
		fake_owner_rescue(o, 16);
		CHECK_EQ(fake_owner_reap(o), 1);
		CHECK_EQ(o->failures[full ? PAGER_SWAP_FULL : PAGER_WRITE_FAILED], 1);
		CHECK_EQ(o->failure_page, PAGE_ID(1, 15));
		CHECK_EQ(fake_owner_close(o), 0);
		/* All of them are gone. */
		o = fake_owner_open(256, 1024);
		fail_writes(full ? ENOSPC : EIO, 1000);
		c = standby(10, 3);
		CHECK(fake_owner_write(o, c));
		for (uint64_t page = 10; page < 13; page++)
			fake_owner_drop(o, page);
		CHECK_EQ(fake_owner_reap(o), 1);
		CHECK_EQ(o->failures[full ? PAGER_SWAP_FULL : PAGER_WRITE_FAILED], 1);
		CHECK_EQ(o->failure_page, PAGE_ID_NONE);
		CHECK_EQ(fake_owner_close(o), 0);
	}
}

/* Short, delayed and interrupted writes, completing in any order. */
static void random_disk(void)
{
	unit_seed();
	o = fake_owner_open(512, 2048);
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t first = unit_below(32) * 64;
		unsigned n = 1 + (unsigned)unit_below(64);

		switch (unit_below(5)) {
		case 0:
			fake_disk_heal(o->disk);
			fake_disk_order(o->disk, (enum fake_order)unit_below(3), unit_random());
			fake_disk_fault(
				o->disk,
				(struct fake_fault){
					.kind = unit_below(2) ? FAKE_SHORT : FAKE_DELAYED,
					.value = (int64_t)(PAGE_BYTES + unit_below(9000)) });
			break;
		case 1:
			for (uint64_t page = first; page < first + n; page++)
				fake_owner_drop(o, page);
			break;
		case 2:
			for (uint64_t page = first; page < first + n; page++)
				if (o->page[page].state == OWNED_STANDBY)
					fake_owner_rescue(o, page);
			break;
		case 3:
			for (uint64_t page = first; page < first + 64; page++)
				fake_owner_drop(o, page);
			fake_owner_write(o, standby(first, n));
			break;
		default:
			fake_owner_step(o);
			break;
		}
		if (i % 20 == 0)
			REQUIRE_EQ(fake_owner_check(o), 0);
	}
	fake_owner_reap(o);
	for (uint64_t page = 0; page < FAKE_OWNER_PAGES; page++)
		if (o->page[page].state == OWNED_STANDBY && state(page) == BUFFER_CLEAN)
			CHECK(memcmp(fake_disk_page(o->disk, slot(page)),
			             buffer_address(&o->p, o->page[page].at), PAGE_BYTES) == 0);
	CHECK_EQ(o->failures[PAGER_WRITE_FAILED], 0);
	CHECK_EQ(fake_owner_close(o), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(neighbours_are_one_request),
		UNIT(only_dirty_ones),
		UNIT(taken_back_meanwhile),
		UNIT(cluster_lives_until_written),
		UNIT(failed_write),
		UNIT(disk_without_room),
		UNIT(slots_run_out),
		UNIT(on_a_thread_of_the_program),
		UNIT(ends_what_others_started),
		UNIT(runs_run_out),
		UNIT(failures_name_what_is_left),
		UNIT(random_disk),
		UNIT_END,
	};

	return unit_main(argc, argv, "writeback", tests);
}
