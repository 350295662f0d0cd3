/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_queue.c - runs on a disk that misbehaves (swapfile/queue.c,
 * run.c, transfer.c), and a real ring shared by threads.
 *
 * Most tests do the same through a queue and through swapfile_transfer: what
 * the disk does to a run must come out alike.
 */
#include "base/base.h"
#include "swapfile/run.h"
#include "tests/unit/fake_disk.h"
#include "tests/unit/pattern.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES 4096u
#define DEPTH 8u

/* What each test has: a fake disk, a swap file on it, a queue, slots and buffers. */
static struct fake_disk *disk;
static struct swapfile *s;
static struct swap_queue *q;
static char *pages;  /* PAGES of them */
static slot_t first; /* the first of the slots that are taken */

static void open_all(void)
{
	struct swapfile_options o = { .path = "/dev/shm",
		                      .io_ops = &fake_disk_ops,
		                      .size_limit = PAGES * PAGE_BYTES };
	slot_t slot;

	if (access(o.path, W_OK) != 0)
		o.path = NULL;
	disk = o.io_arg = fake_disk_new(PAGES + 64);
	REQUIRE_EQ(swapfile_open(&s, &o), 0);
	REQUIRE_EQ(swap_queue_open(s, DEPTH, &q), 0);
	pages = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
	             -1, 0);
	REQUIRE(pages != MAP_FAILED);
	REQUIRE_EQ(swapfile_alloc(s, 32, &first), 32);
	for (unsigned i = 1; i < 32; i++)
		REQUIRE_EQ(swapfile_alloc(s, 32, &slot), 32);
}

static void close_all(void)
{
	munmap(pages, PAGES * PAGE_BYTES);
	swap_queue_close(q);
	CHECK(swapfile_check(s));
	swapfile_close(s);
	fake_disk_free(disk);
}

/* A run of slots, its buffers at that page of ours. A write is given contents. */
static struct swap_run run_of(enum swap_op op, slot_t slot, unsigned count, unsigned at)
{
	struct swap_run r = { .op = op, .slot = slot, .count = count };

	r.base = pages + at * PAGE_BYTES;
	r.pages = bits(0, count);
	for (unsigned i = 0; i < count; i++) {
		if (op == SWAP_WRITE)
			pattern_fill(swap_run_page(&r, i), slot + i);
		else
			memset(swap_run_page(&r, i), 0xee, PAGE_BYTES);
	}
	return r;
}

/* Do a run in one way or the other. => status */
static int perform(struct swap_run *r, bool queued)
{
	if (!queued)
		return swapfile_transfer(s, r);
	CHECK_EQ(swap_queue_add(q, r), 0);
	CHECK(swap_queue_reap(q, true, true) == r);
	CHECK_EQ(swap_queue_in_flight(q), 0);
	return r->status;
}

static int write_run(slot_t slot, unsigned count, bool queued)
{
	struct swap_run r = run_of(SWAP_WRITE, slot, count, 0);

	return perform(&r, queued);
}

/* Read and compare. => status; *bad as the run says */
static int read_run(slot_t slot, unsigned count, bool queued, uint64_t *bad)
{
	struct swap_run r = run_of(SWAP_READ, slot, count, 0);
	int status = perform(&r, queued);

	*bad = r.bad;
	for (unsigned i = 0; status == 0 && i < count; i++)
		CHECK(pattern_holds(swap_run_page(&r, i), slot + i) == !(r.bad >> i & 1));
	return status;
}

#define IN_BOTH_WAYS for (int queued = 0; queued < 2; queued++)

/* ---------------------------------------------------------------- a good disk */

static void queue_basics(void)
{
	struct swap_run r[DEPTH + 1];
	struct pollfd p;

	open_all();
	p = (struct pollfd){ .fd = swap_queue_fd(q), .events = POLLIN };
	CHECK(swap_queue_reap(q, true, true) == NULL);
	CHECK(swap_queue_reap(q, false, true) == NULL);
	for (unsigned i = 0; i <= DEPTH; i++) {
		r[i] = run_of(SWAP_WRITE, first + i, 1, i);
		CHECK_EQ(swap_queue_add(q, &r[i]), i < DEPTH ? 0 : -EAGAIN);
	}
	CHECK_EQ(swap_queue_in_flight(q), DEPTH);
	CHECK(swap_queue_reap(q, false, true) == NULL); /* nothing was started */
	CHECK_EQ(fake_disk_counts(disk).writes, 0);
	CHECK_EQ(poll(&p, 1, 0), 0);
	swap_queue_flush(q);
	CHECK_EQ(fake_disk_counts(disk).writes, DEPTH);
	CHECK_EQ(fake_disk_counts(disk).submits, 1);
	for (unsigned i = 0; i < DEPTH; i++) {
		CHECK_EQ(poll(&p, 1, 0), 1);
		CHECK(swap_queue_reap(q, false, true) == &r[i]);
		CHECK_EQ(r[i].status, 0);
	}
	CHECK_EQ(poll(&p, 1, 0), 0);
	CHECK_EQ(swap_queue_in_flight(q), 0);
	for (unsigned i = 0; i < DEPTH; i++)
		CHECK(pattern_holds(fake_disk_page(disk, first + i), first + i));
	CHECK_EQ(swap_queue_open(s, 0, &(struct swap_queue *){ NULL }), -EINVAL);
	close_all();
}

static void closing_waits(void)
{
	struct swap_run r[3];

	open_all();
	fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_DELAYED, .value = 10, .times = 3 });
	for (unsigned i = 0; i < 3; i++) {
		r[i] = run_of(SWAP_WRITE, first + i, 1, i);
		CHECK_EQ(swap_queue_add(q, &r[i]), 0);
	}
	swap_queue_close(q);
	for (unsigned i = 0; i < 3; i++)
		CHECK(pattern_holds(fake_disk_page(disk, first + i), first + i));
	REQUIRE_EQ(swap_queue_open(s, DEPTH, &q), 0);
	close_all();
}

static void neighbours_are_one_piece(void)
{
	open_all();
	CHECK_EQ(write_run(first, 64, true), 0);
	CHECK_EQ(fake_disk_counts(disk).iov_most, 1);
	CHECK_EQ(fake_disk_counts(disk).writes, 1);
	close_all();
}

/* Pages with gaps are one request where there is room for the pieces, and one each without. */
static void gaps_are_pieces(void)
{
	static const uint64_t sets[] = { 0x37,         0x8000000000000001, 0x5555555555555555,
		                         ~UINT64_C(1), 0xaaaaaaaaaaaaaaaa, 0xff00ff00ff00ff00 };
	struct iovec pieces[SWAP_RUN_PIECES];

	IN_BOTH_WAYS
	for (unsigned k = 0; k < 2 * ARRAY_LENGTH(sets); k++) {
		uint64_t set = sets[k / 2], rows = set & ~(set << 1);
		unsigned n = (unsigned)__builtin_popcountll(set), requests;
		struct swap_run r = { .op = SWAP_WRITE, .slot = 0, .count = n, .pages = set };

		open_all();
		r.slot = first;
		r.base = pages;
		r.pieces = k % 2 ? pieces : NULL;
		for (unsigned i = 0; i < n; i++)
			pattern_fill(swap_run_page(&r, i), first + i);
		/* Ends within the second page or piece: what is left goes on from there. */
		if (k % 4 == 1)
			fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_SHORT,
			                                           .value = PAGE_BYTES + 100 });
		CHECK_EQ(perform(&r, queued), 0);
		requests = k % 2 ? 1 : (unsigned)__builtin_popcountll(rows);
		CHECK_EQ(fake_disk_counts(disk).writes, requests + (k % 4 == 1));
		if (k % 2)
			CHECK_EQ(fake_disk_counts(disk).iov_most, __builtin_popcountll(rows));
		for (unsigned i = 0; i < n; i++)
			CHECK(pattern_holds(fake_disk_page(disk, first + i), first + i));
		r.op = SWAP_READ;
		memset(pages, 0xee, 64 * PAGE_BYTES);
		CHECK_EQ(perform(&r, queued), 0);
		CHECK_EQ(r.bad, 0);
		for (unsigned i = 0, at = 0; i < 64; i++) {
			unsigned char *page = (unsigned char *)pages + i * PAGE_BYTES;

			if (set >> i & 1)
				CHECK(pattern_holds(page, first + at++));
			else
				CHECK(page[0] == 0xee && page[PAGE_BYTES - 1] == 0xee);
		}
		close_all();
	}
}

/* Which page of a run with gaps is bad is said by its place among the slots. */
static void bad_pages_with_gaps(void)
{
	struct swap_run r;

	IN_BOTH_WAYS
	{
		open_all();
		CHECK_EQ(write_run(first, 4, queued), 0);
		((char *)fake_disk_page(disk, first + 2))[7] ^= 1;
		r = run_of(SWAP_READ, first, 4, 0);
		r.pages = 0x99;
		CHECK_EQ(perform(&r, queued), 0);
		CHECK_EQ(r.bad, 1 << 2);
		close_all();
	}
}

static void out_of_order(void)
{
	struct swap_run r[DEPTH];
	struct swap_run *got;

	open_all();
	fake_disk_order(disk, FAKE_LAST_FIRST, 0);
	fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_DELAYED,
	                                           .value = 5,
	                                           .first_page = first + DEPTH - 1,
	                                           .pages = 1 });
	for (unsigned i = 0; i < DEPTH; i++) {
		r[i] = run_of(SWAP_WRITE, first + i, 1, i);
		CHECK_EQ(swap_queue_add(q, &r[i]), 0);
	}
	/* The last first, but for the delayed one, which overtakes the rest later. */
	CHECK(swap_queue_reap(q, true, true) == &r[DEPTH - 2]);
	for (unsigned left = DEPTH - 1; left > 0; left--) {
		got = swap_queue_reap(q, true, true);
		REQUIRE(got != NULL);
		CHECK_EQ(got->status, 0);
		got->count = 0;
	}
	for (unsigned i = 0; i < DEPTH; i++)
		CHECK(i == DEPTH - 2 || r[i].count == 0);
	close_all();
}

/* ---------------------------------------------------------------- interrupted */

static void short_transfers_go_on(void)
{
	static const int64_t lengths[] = { 4096, 5000, 8191, 12288, 63 * 4096, 64 * 4096 - 1 };
	uint64_t bad;

	IN_BOTH_WAYS
	{
		open_all();
		for (unsigned i = 0; i < ARRAY_LENGTH(lengths); i++) {
			struct fake_fault f = { .kind = FAKE_SHORT, .value = lengths[i] };

			fake_disk_fault(disk, f);
			CHECK_EQ(write_run(first + i, 64, queued), 0);
			fake_disk_fault(disk, f);
			CHECK_EQ(read_run(first + i, 64, queued, &bad), 0);
			CHECK_EQ(bad, 0);
			CHECK_EQ(fake_disk_counts(disk).writes, 2 * (i + 1));
		}
		/* One page at a time, all the way. */
		fake_disk_fault(
			disk,
			(struct fake_fault){ .kind = FAKE_SHORT, .value = 4096, .times = 999 });
		CHECK_EQ(write_run(first, 64, queued), 0);
		CHECK_EQ(read_run(first, 64, queued, &bad), 0);
		CHECK_EQ(bad, 0);
		close_all();
	}
}

/* Nothing moved, or less than a page, again and again: it ends as an error. */
static void no_progress_ends(void)
{
	static const int64_t lengths[] = { 0, 1, 4095 };
	uint64_t bad;

	IN_BOTH_WAYS
	{
		open_all();
		for (unsigned i = 0; i < ARRAY_LENGTH(lengths); i++) {
			struct fake_fault f = { .kind = FAKE_SHORT,
				                .value = lengths[i],
				                .times = 2 };

			fake_disk_fault(disk, f);
			CHECK_EQ(write_run(first, 4, queued), 0);
			fake_disk_fault(disk, f);
			CHECK_EQ(read_run(first, 4, queued, &bad), 0);
			CHECK_EQ(bad, 0);
			f.times = 999;
			fake_disk_fault(disk, f);
			CHECK_EQ(write_run(first, 4, queued), -EIO);
			CHECK_EQ(read_run(first, 4, queued, &bad), -EIO);
			fake_disk_heal(disk);
		}
		close_all();
	}
}

static void interruptions_are_tried_again(void)
{
	static const int errors[] = { EAGAIN, EINTR, EBUSY, ECANCELED };
	uint64_t bad;

	IN_BOTH_WAYS
	{
		open_all();
		for (unsigned i = 0; i < ARRAY_LENGTH(errors); i++) {
			struct fake_fault f = { .kind = FAKE_FAIL,
				                .value = errors[i],
				                .times = 20 };

			fake_disk_fault(disk, f);
			CHECK_EQ(write_run(first, 4, queued), 0);
			fake_disk_fault(disk, f);
			CHECK_EQ(read_run(first, 4, queued, &bad), 0);
			CHECK_EQ(bad, 0);
		}
		CHECK_EQ(fake_disk_counts(disk).writes, 4 * 21);
		/* Not for ever. */
		fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_FAIL,
		                                           .value = EAGAIN,
		                                           .times = UINT32_MAX });
		CHECK_EQ(write_run(first, 4, queued), -EAGAIN);
		close_all();
	}
}

static void submits_are_tried_again(void)
{
	struct swap_run r;

	open_all();
	fake_disk_fail_submits(disk, EAGAIN, 5);
	CHECK_EQ(write_run(first, 4, true), 0);
	fake_disk_fail_submits(disk, EINTR, 5);
	CHECK_EQ(write_run(first, 4, true), 0);
	r = run_of(SWAP_WRITE, first, 4, 0);
	CHECK_EQ(swap_queue_add(q, &r), 0);
	fake_disk_fail_submits(disk, EAGAIN, 5);
	swap_queue_flush(q); /* started, all the same */
	CHECK(swap_queue_reap(q, false, true) == &r);
	/* A flush that had to give up is made good by looking for completions. */
	CHECK_EQ(swap_queue_add(q, &r), 0);
	fake_disk_fail_submits(disk, EAGAIN, 100000);
	swap_queue_flush(q);
	CHECK(swap_queue_reap(q, false, true) == NULL);
	fake_disk_heal(disk);
	CHECK(swap_queue_reap(q, false, true) == NULL);
	CHECK(swap_queue_reap(q, false, true) == &r);
	CHECK_EQ(r.status, 0);
	close_all();
}

/* A short transfer met without waiting: the rest is started, not forgotten. */
static void goes_on_without_waiting(void)
{
	struct swap_run r;

	open_all();
	fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_SHORT, .value = 4096 });
	r = run_of(SWAP_WRITE, first, 4, 0);
	CHECK_EQ(swap_queue_add(q, &r), 0);
	swap_queue_flush(q);
	CHECK(swap_queue_reap(q, false, true) == NULL || r.done == 4 * PAGE_BYTES);
	while (swap_queue_in_flight(q) > 0 && fake_disk_counts(disk).submits < 10)
		swap_queue_reap(q, false, true);
	CHECK_EQ(swap_queue_in_flight(q), 0);
	CHECK_EQ(r.status, 0);
	for (unsigned i = 0; i < 4; i++)
		CHECK(pattern_holds(fake_disk_page(disk, first + i), first + i));
	close_all();
}

/* A thread that may not start requests ends what others have started, by itself. */
static void finished_without_starting(void)
{
	static const struct fake_fault faults[] = {
		{ .kind = FAKE_SHORT, .value = 4096 },
		{ .kind = FAKE_SHORT, .value = 5000, .times = 3 },
		{ .kind = FAKE_FAIL, .value = EAGAIN, .times = 3 },
		{ .kind = FAKE_FAIL, .value = EIO, .times = 2 },
		{ .kind = FAKE_DELAYED, .value = 20 },
		{ .kind = FAKE_FAIL, .value = ENXIO },
	};
	unsigned submits;

	open_all();
	for (unsigned i = 0; i < ARRAY_LENGTH(faults); i++) {
		bool fatal = faults[i].value == ENXIO;
		struct swap_run r = run_of(SWAP_WRITE, first + 8 * i, 8, 0);

		fake_disk_fault(disk, faults[i]);
		CHECK_EQ(swap_queue_add(q, &r), 0);
		swap_queue_flush(q);
		submits = fake_disk_counts(disk).submits;
		if (faults[i].kind == FAKE_DELAYED)
			CHECK(swap_queue_reap(q, false, false) == NULL);
		CHECK(swap_queue_reap(q, i % 2 || faults[i].kind == FAKE_DELAYED, false) == &r);
		CHECK_EQ(r.status, fatal ? -ENXIO : 0);
		CHECK_EQ(swap_queue_in_flight(q), 0);
		CHECK_EQ(fake_disk_counts(disk).submits, submits);
		for (unsigned k = 0; k < 8 && !fatal; k++)
			CHECK(pattern_holds(fake_disk_page(disk, r.slot + k), r.slot + k));
	}
	close_all();
}

/* What was not started it leaves alone, and does not wait for that. */
static void left_unstarted(void)
{
	struct swap_run a, b;
	unsigned submits;

	open_all();
	a = run_of(SWAP_WRITE, first, 4, 0);
	b = run_of(SWAP_WRITE, first + 4, 4, 4);
	CHECK_EQ(swap_queue_add(q, &a), 0);
	CHECK(swap_queue_reap(q, true, false) == NULL);
	CHECK_EQ(fake_disk_counts(disk).submits, 0);
	CHECK(swap_queue_reap(q, true, true) == &a);
	/* A flush that had to give up. */
	CHECK_EQ(swap_queue_add(q, &a), 0);
	fake_disk_fail_submits(disk, EAGAIN, 100000);
	CHECK(!swap_queue_owes(q));
	swap_queue_flush(q);
	CHECK(swap_queue_owes(q));
	fake_disk_heal(disk);
	submits = fake_disk_counts(disk).submits;
	CHECK(swap_queue_reap(q, true, false) == NULL);
	CHECK(swap_queue_reap(q, false, false) == NULL);
	CHECK_EQ(fake_disk_counts(disk).submits, submits);
	CHECK(swap_queue_reap(q, false, true) == NULL); /* makes it good */
	CHECK(!swap_queue_owes(q));
	CHECK(swap_queue_reap(q, true, false) == &a);
	/* One is under way, and one is not. */
	fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_DELAYED, .value = 20 });
	CHECK_EQ(swap_queue_add(q, &a), 0);
	swap_queue_flush(q);
	CHECK_EQ(swap_queue_add(q, &b), 0);
	submits = fake_disk_counts(disk).submits;
	CHECK(swap_queue_reap(q, true, false) == &a);
	CHECK(swap_queue_reap(q, true, false) == NULL);
	CHECK_EQ(swap_queue_in_flight(q), 1);
	CHECK_EQ(fake_disk_counts(disk).submits, submits);
	CHECK(swap_queue_reap(q, true, true) == &b);
	close_all();
}

/* A thread that is not allowed to sleep for the ring looks now and then, and not all the time. */
static void may_not_sleep(void)
{
	struct swap_run r;

	open_all();
	r = run_of(SWAP_WRITE, first, 4, 0);
	fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_SLOW, .value = 20 });
	fake_disk_fail_waits(disk, EPERM);
	CHECK_EQ(swap_queue_add(q, &r), 0);
	swap_queue_flush(q);
	CHECK(swap_queue_reap(q, true, false) == &r);
	CHECK_EQ(r.status, 0);
	CHECK(fake_disk_counts(disk).waits > 0);
	CHECK(fake_disk_counts(disk).waits < 1000);
	fake_disk_fail_waits(disk, 0);
	close_all();
}

/* ---------------------------------------------------------------- failed */

static void errors_of_the_moment(void)
{
	uint64_t bad;

	IN_BOTH_WAYS
	{
		struct fake_fault f = { .kind = FAKE_FAIL, .value = EIO, .times = 2 };

		open_all();
		fake_disk_fault(disk, f);
		CHECK_EQ(write_run(first, 4, queued), 0);
		fake_disk_fault(disk, f);
		CHECK_EQ(read_run(first, 4, queued, &bad), 0);
		CHECK_EQ(bad, 0);
		f.times = 3;
		fake_disk_fault(disk, f);
		CHECK_EQ(read_run(first, 4, queued, &bad), -EIO);
		CHECK_EQ(fake_disk_counts(disk).reads, 6);
		CHECK_EQ(read_run(first, 4, queued, &bad), 0); /* and the disk is well again */
		CHECK_EQ(bad, 0);
		close_all();
	}
}

static void full_disk(void)
{
	static const int errors[] = { ENOSPC, EDQUOT };
	uint64_t bad;

	IN_BOTH_WAYS for (unsigned i = 0; i < ARRAY_LENGTH(errors); i++)
	{
		struct fake_fault f = { .kind = FAKE_FAIL,
			                .op = FAKE_WRITE,
			                .value = errors[i],
			                .pages = 1000,
			                .times = 999 };

		open_all();
		f.first_page = first + 64;
		CHECK_EQ(write_run(first, 64, queued), 0);
		fake_disk_fault(disk, f);
		CHECK_EQ(write_run(first + 64, 8, queued), -ENOSPC);
		CHECK_EQ(fake_disk_counts(disk).writes, 2); /* not tried again */
		fake_disk_heal(disk);
		/* Part of it fits. */
		fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_SHORT, .value = 3 * 4096 });
		fake_disk_fault(disk, f);
		CHECK_EQ(write_run(first + 64, 8, queued), -ENOSPC);
		CHECK_EQ(fake_disk_counts(disk).writes, 4);
		fake_disk_heal(disk);
		/* What was there is there, and the slots are as good as any once there is room. */
		CHECK_EQ(read_run(first, 64, queued, &bad), 0);
		CHECK_EQ(bad, 0);
		CHECK_EQ(write_run(first + 64, 8, queued), 0);
		CHECK_EQ(read_run(first, 64, queued, &bad), 0);
		CHECK_EQ(bad, 0);
		close_all();
	}
}

static void other_errors_are_final(void)
{
	uint64_t bad;

	IN_BOTH_WAYS
	{
		open_all();
		fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_FAIL, .value = EROFS });
		CHECK_EQ(write_run(first, 4, queued), -EROFS);
		CHECK_EQ(write_run(first, 4, queued), 0);
		fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_FAIL, .value = ENXIO });
		CHECK_EQ(read_run(first, 4, queued, &bad), -ENXIO);
		CHECK_EQ(bad, 0);
		close_all();
	}
}

/* One run's failure is its own. */
static void neighbours_in_the_queue_are_spared(void)
{
	struct swap_run r[DEPTH];
	uint64_t bad;

	open_all();
	fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_FAIL,
	                                           .value = EIO,
	                                           .times = 999,
	                                           .first_page = first + 12,
	                                           .pages = 1 });
	for (unsigned i = 0; i < DEPTH; i++) {
		r[i] = run_of(SWAP_WRITE, first + 4 * i, 4, 4 * i);
		CHECK_EQ(swap_queue_add(q, &r[i]), 0);
	}
	for (unsigned i = 0; i < DEPTH; i++)
		CHECK(swap_queue_reap(q, true, true) != NULL);
	for (unsigned i = 0; i < DEPTH; i++) {
		CHECK_EQ(r[i].status, i == 3 ? -EIO : 0);
		if (i != 3)
			CHECK(read_run(r[i].slot, 4, true, &bad) == 0 && bad == 0);
	}
	close_all();
}

/* ---------------------------------------------------------------- lying */

static void torn_writes_are_found(void)
{
	uint64_t bad;

	IN_BOTH_WAYS
	{
		open_all();
		fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_TORN,
		                                           .op = FAKE_WRITE,
		                                           .value = 5 * 4096 + 512 });
		CHECK_EQ(write_run(first, 8, queued), 0); /* the disk says so */
		CHECK_EQ(read_run(first, 8, queued, &bad), 0);
		CHECK_EQ(bad, 0xe0); /* pages 5, 6 and 7 */
		CHECK_EQ(write_run(first, 8, queued), 0);
		CHECK_EQ(read_run(first, 8, queued, &bad), 0);
		CHECK_EQ(bad, 0);
		close_all();
	}
}

/* A write that never arrives leaves older content of the slot, good in itself. */
static void lost_writes_are_found(void)
{
	struct swap_run r;
	uint64_t bad;

	IN_BOTH_WAYS
	{
		open_all();
		CHECK_EQ(write_run(first, 2, queued), 0);
		r = run_of(SWAP_WRITE, first, 2, 0);
		pattern_fill(swap_run_page(&r, 0), 4711);
		pattern_fill(swap_run_page(&r, 1), 4712);
		fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_TORN, .value = 0 });
		CHECK_EQ(perform(&r, queued), 0);
		r = run_of(SWAP_READ, first, 2, 0);
		CHECK_EQ(perform(&r, queued), 0);
		bad = r.bad;
		CHECK_EQ(bad, 3);
		close_all();
	}
}

static void misdirected_transfers_are_found(void)
{
	uint64_t bad;

	IN_BOTH_WAYS
	{
		struct fake_fault f = { .kind = FAKE_MISDIRECTED, .value = 2 };

		open_all();
		CHECK_EQ(write_run(first, 16, queued), 0);
		f.op = FAKE_READ;
		fake_disk_fault(disk, f);
		CHECK_EQ(read_run(first, 4, queued, &bad), 0);
		CHECK_EQ(bad, 0xf);
		f.op = FAKE_WRITE;
		fake_disk_fault(disk, f);
		CHECK_EQ(write_run(first, 1, queued), 0); /* lands on the third */
		CHECK_EQ(read_run(first, 4, queued, &bad), 0);
		CHECK_EQ(bad, 0x4); /* the first still had the same bytes */
		close_all();
	}
}

/* The same bytes in two slots: even then the wrong place is noticed. */
static void sum_is_bound_to_the_slot(void)
{
	struct swap_run r;

	IN_BOTH_WAYS
	{
		open_all();
		r = run_of(SWAP_WRITE, first, 4, 0);
		for (unsigned i = 0; i < 4; i++)
			pattern_fill(swap_run_page(&r, i), 1);
		CHECK_EQ(perform(&r, queued), 0);
		for (unsigned i = 1; i < 4; i++)
			CHECK(slots_sum(&s->slots, first) != slots_sum(&s->slots, first + i));
		close_all();
	}
}

/* A run that is used again tells nothing of the time before. */
static void results_are_new_each_time(void)
{
	struct swap_run r;

	IN_BOTH_WAYS
	{
		open_all();
		CHECK_EQ(write_run(first, 4, queued), 0);
		r = run_of(SWAP_READ, first, 4, 0);
		fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_FLIPPED, .op = FAKE_READ });
		CHECK_EQ(perform(&r, queued), 0);
		CHECK_EQ(r.bad, 1);
		CHECK_EQ(perform(&r, queued), 0);
		CHECK_EQ(r.bad, 0);
		fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_FAIL, .value = ENXIO });
		CHECK_EQ(perform(&r, queued), -ENXIO);
		CHECK_EQ(perform(&r, queued), 0);
		close_all();
	}
}

static void flipped_bits_are_found(void)
{
	uint64_t bad;

	unit_seed();
	IN_BOTH_WAYS
	{
		open_all();
		for (unsigned i = 0; i < 50; i++) {
			int64_t at = (int64_t)unit_below(64 * 4096);

			CHECK_EQ(write_run(first, 64, queued), 0);
			fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_FLIPPED,
			                                           .op = FAKE_READ,
			                                           .value = at });
			CHECK_EQ(read_run(first, 64, queued, &bad), 0);
			CHECK_EQ(bad, UINT64_C(1) << at / 4096);
			CHECK_EQ(read_run(first, 64, queued, &bad), 0);
			CHECK_EQ(bad, 0);
			fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_FLIPPED,
			                                           .op = FAKE_WRITE,
			                                           .value = at });
			CHECK_EQ(write_run(first, 64, queued), 0);
			CHECK_EQ(read_run(first, 64, queued, &bad), 0);
			CHECK_EQ(bad, UINT64_C(1) << at / 4096);
		}
		close_all();
	}
}

/* ---------------------------------------------------------------- all of it */

/* What a slot should hold: a version, or what a failed or torn write left (unknown). */
struct shadow {
	uint32_t version;
	bool known, busy;
};

static void random_disk(void)
{
	enum { SLOTS = 900, RUNS = 4000 };
	static struct shadow shadow[SLOTS];
	static struct swap_run run[DEPTH];
	bool in_use[DEPTH] = { false };
	unsigned started = 0, failed = 0, bad_pages = 0;
	uint32_t version = 0;

	open_all();
	memset(shadow, 0, sizeof shadow);
	fake_disk_order(disk, FAKE_SHUFFLED, unit_seed());
	while (started < RUNS || swap_queue_in_flight(q) > 0) {
		struct swap_run *r;
		unsigned k = 0, from, n;

		if (started % 8 == 0)
			fake_disk_heal(disk);
		if (started % 8 == 1) {
			static const int errors[] = { EIO, EAGAIN, EINTR, ENOSPC };
			struct fake_fault f = { .kind = 1 + (enum fake_kind)unit_below(6),
				                .op = (enum fake_op)unit_below(3),
				                .skip = (unsigned)unit_below(3),
				                .times = 1 + (unsigned)unit_below(4) };

			f.value = f.kind == FAKE_FAIL        ? errors[unit_below(4)] :
			          f.kind == FAKE_MISDIRECTED ? 1 + (int64_t)unit_below(20) :
			          f.kind == FAKE_FLIPPED     ? (int64_t)unit_below(4096) :
			          f.kind == FAKE_DELAYED     ? (int64_t)unit_below(10) :
			                                       (int64_t)unit_below(20 * 4096);
			/* A write to elsewhere is known only when those slots are read. */
			if (f.kind == FAKE_MISDIRECTED)
				f.op = FAKE_READ;
			if (unit_below(2))
				fake_disk_fault(disk, f);
		}
		while (k < DEPTH && in_use[k])
			k++;
		from = (unsigned)unit_below(SLOTS - 64);
		n = 1 + (unsigned)unit_below(64);
		for (unsigned i = 0; i < n; i++)
			if (shadow[from + i].busy)
				n = i;
		if (k < DEPTH && n > 0 && started < RUNS) {
			bool write = unit_below(2);

			run[k] = run_of(write ? SWAP_WRITE : SWAP_READ, first + from, n, k * 64);
			for (unsigned i = 0; i < n; i++) {
				shadow[from + i].busy = true;
				if (write) {
					shadow[from + i].version = ++version;
					pattern_fill(swap_run_page(&run[k], i), version);
				}
			}
			REQUIRE_EQ(swap_queue_add(q, &run[k]), 0);
			in_use[k] = true;
			started++;
		}
		if (unit_below(2))
			swap_queue_flush(q);
		r = swap_queue_reap(q, started == RUNS || k == DEPTH || unit_below(3) == 0,
		                    unit_below(4) != 0);
		if (!r)
			continue;
		in_use[r - run] = false;
		for (unsigned i = 0; i < r->count; i++) {
			struct shadow *w = &shadow[r->slot - first + i];

			w->busy = false;
			if (r->op == SWAP_WRITE) {
				w->known = r->status == 0;
			} else if (r->status == 0) {
				bool good = !(r->bad >> i & 1);

				/* The law: bytes that are called good are the last ones written. */
				if (good)
					REQUIRE(pattern_holds(swap_run_page(r, i), w->version));
				bad_pages += !good;
			}
		}
		failed += r->status != 0;
	}
	/* The disk did misbehave, and much went well. */
	CHECK(failed > 0 && bad_pages > 0 && failed < RUNS / 4);
	fake_disk_heal(disk);
	/* Whole again after one good write. */
	for (unsigned from = 0; from + 64 <= SLOTS; from += 64) {
		uint64_t bad;

		CHECK_EQ(write_run(first + from, 64, true), 0);
		CHECK_EQ(read_run(first + from, 64, true, &bad), 0);
		CHECK_EQ(bad, 0);
	}
	close_all();
}

/* ---------------------------------------------------------------- a real ring */

static void leaves_errno_alone(void)
{
	open_all();
	errno = 4242;
	fake_disk_fault(disk,
	                (struct fake_fault){ .kind = FAKE_FAIL, .value = EAGAIN, .times = 20 });
	CHECK_EQ(write_run(first, 4, false), 0);
	CHECK_EQ(errno, 4242);
	close_all();

	{
		struct swapfile_options o = { .path = NULL };
		struct swap_run r;

		REQUIRE_EQ(swapfile_open(&s, &o), 0);
		REQUIRE_EQ(swapfile_alloc(s, 4, &first), 4);
		pages = mmap(NULL, 4 * PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		r = (struct swap_run){ .op = SWAP_READ,
			               .slot = first,
			               .count = 1,
			               .base = pages,
			               .pages = 1 };
		errno = 4242;
		CHECK_EQ(swapfile_transfer(s, &r), -EFAULT); /* a page that can't be written to */
		CHECK_EQ(errno, 4242);
		munmap(pages, 4 * PAGE_BYTES);
		swapfile_close(s);
	}
}

struct starter {
	struct swap_run run[DEPTH];
	unsigned failures;
};

/* Starts reads and ends: the kernel may cancel what it started. */
static void *start_and_end(void *arg)
{
	struct starter *a = arg;

	for (unsigned i = 0; i < DEPTH; i++)
		a->failures += swap_queue_add(q, &a->run[i]) != 0;
	swap_queue_flush(q);
	return NULL;
}

static void queue_goes_from_thread_to_thread(void)
{
	struct swapfile_options o = { .path = NULL };
	static struct starter a;

	pages = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
	             -1, 0);
	REQUIRE(pages != MAP_FAILED);
	REQUIRE_EQ(swapfile_open(&s, &o), 0);
	REQUIRE_EQ(swap_queue_open(s, DEPTH, &q), 0);
	for (unsigned i = 0; i < DEPTH; i++) {
		slot_t slot;

		REQUIRE_EQ(swapfile_alloc(s, 32, &slot), 32);
		if (i == 0)
			first = slot;
		REQUIRE_EQ(slot, first + 32 * i);
		a.run[i] = run_of(SWAP_WRITE, slot, 32, 32 * i);
		REQUIRE_EQ(swapfile_transfer(s, &a.run[i]), 0);
	}
	for (unsigned round = 0; round < 50; round++) {
		pthread_t thread;
		struct pollfd p = { .fd = swap_queue_fd(q), .events = POLLIN };

		for (unsigned i = 0; i < DEPTH; i++)
			a.run[i] = run_of(SWAP_READ, first + 32 * i, 32, 32 * i);
		REQUIRE_EQ(pthread_create(&thread, NULL, start_and_end, &a), 0);
		pthread_join(thread, NULL);
		CHECK_EQ(poll(&p, 1, 5000), 1);
		for (unsigned i = 0; i < DEPTH; i++) {
			struct swap_run *r = swap_queue_reap(q, true, round % 2);

			REQUIRE(r != NULL);
			CHECK_EQ(r->status, 0);
			CHECK_EQ(r->bad, 0);
			for (unsigned k = 0; k < 32; k++)
				REQUIRE(pattern_holds(swap_run_page(r, k), r->slot + k));
		}
		CHECK(swap_queue_reap(q, true, true) == NULL);
	}
	CHECK_EQ(a.failures, 0);
	swap_queue_close(q);
	swapfile_close(s);
	munmap(pages, PAGES * PAGE_BYTES);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(queue_basics),
		UNIT(closing_waits),
		UNIT(neighbours_are_one_piece),
		UNIT(gaps_are_pieces),
		UNIT(bad_pages_with_gaps),
		UNIT(out_of_order),
		UNIT(short_transfers_go_on),
		UNIT(no_progress_ends),
		UNIT(interruptions_are_tried_again),
		UNIT(submits_are_tried_again),
		UNIT(goes_on_without_waiting),
		UNIT(finished_without_starting),
		UNIT(left_unstarted),
		UNIT(may_not_sleep),
		UNIT(errors_of_the_moment),
		UNIT(full_disk),
		UNIT(other_errors_are_final),
		UNIT(neighbours_in_the_queue_are_spared),
		UNIT(torn_writes_are_found),
		UNIT(lost_writes_are_found),
		UNIT(misdirected_transfers_are_found),
		UNIT(sum_is_bound_to_the_slot),
		UNIT(results_are_new_each_time),
		UNIT(flipped_bits_are_found),
		UNIT(random_disk),
		UNIT(leaves_errno_alone),
		UNIT(queue_goes_from_thread_to_thread),
		UNIT_END,
	};

	return unit_main(argc, argv, "queue", tests);
}
