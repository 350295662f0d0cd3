/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_look.c - reads waited for awake (swapfile/look.c), on the fake disk:
 * found by looking, or slept for; refusals of the kernel's; that the quicker way is
 * taken (base/trial.c itself: test_trial.c); many threads. And through swapfile_transfer.
 */
#include "base/base.h"
#include "swapfile/look.h"
#include "swapfile/store.h"
#include "tests/unit/fake_disk.h"
#include "tests/unit/pattern.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAGES 256
#define SECOND UINT64_C(1000000000)
#define NEVER 1000 /* looks of reap: more than fit into a nanosecond of looking */

static struct fake_disk *disk;
static struct look look;

static void begin(uint64_t ns)
{
	disk = fake_disk_new(PAGES);
	for (unsigned i = 0; i < PAGES; i++)
		memset(fake_disk_page(disk, i), (int)i, PAGE_BYTES);
	look_open(&look, &fake_disk_ops, -1, disk, ns);
}

static void end(void)
{
	for (unsigned i = 0; i < look.count; i++)
		CHECK_EQ(look.rings[i].taken, 0);
	look_close(&look);
	fake_disk_free(disk);
}

/* => the answer, and the bytes are right if it is a page */
static int64_t read_page(unsigned page)
{
	_Alignas(PAGE_BYTES) static _Thread_local unsigned char bytes[PAGE_BYTES];
	struct iovec iov = { bytes, PAGE_BYTES };
	struct io_request request = { .iov = &iov, .iov_count = 1, .offset = page * PAGE_BYTES };
	int64_t result;

	memset(bytes, 0xee, sizeof bytes);
	result = look_transfer(&look, &request);
	for (size_t i = 0; result == (int64_t)PAGE_BYTES && i < PAGE_BYTES; i++)
		if (bytes[i] != (unsigned char)page)
			return -2;
	return result;
}

static void delay(int64_t looks, unsigned times)
{
	fake_disk_fault(
		disk, (struct fake_fault){ .kind = FAKE_DELAYED, .value = looks, .times = times });
}

static void found_awake(void)
{
	begin(SECOND);
	CHECK_EQ(look.count, LOOK_RINGS);
	for (unsigned i = 0; i < PAGES; i++) {
		trial_init(&look.trial, SECOND);
		delay(i * 3, 1);
		CHECK_EQ(read_page(i), PAGE_BYTES);
	}
	/* None of them slept: one submit each. */
	CHECK_EQ(fake_disk_counts(disk).submits, PAGES);
	end();
}

static void slept_for(void)
{
	begin(1);
	delay(NEVER, 1);
	CHECK_EQ(read_page(7), PAGE_BYTES);
	CHECK_EQ(fake_disk_counts(disk).submits, 2);
	end();
}

static void never(void)
{
	begin(0);
	CHECK_EQ(look.count, 0);
	end();
}

static void answers(void)
{
	begin(SECOND);
	fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_FAIL, .value = EIO });
	CHECK_EQ(read_page(1), -EIO);
	fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_SHORT, .value = 100 });
	CHECK_EQ(read_page(1), 100);
	CHECK_EQ(read_page(1), PAGE_BYTES);
	end();
}

/* The kernel is short of memory for a while: the request is started in the end, once. */
static void not_started(void)
{
	begin(SECOND);
	errno = EDOM;
	fake_disk_fail_submits(disk, EAGAIN, 5);
	CHECK_EQ(read_page(9), PAGE_BYTES);
	CHECK_EQ(fake_disk_counts(disk).reads, 1);
	CHECK_EQ(errno, EDOM);
	end();
}

static void busy(uint64_t ns)
{
	uint64_t until = now_ns() + ns;

	while (now_ns() < until)
		cpu_relax();
}

/* The fake disk, on which one way takes the longer. */
static struct io_ops slow;
static uint64_t awake_ns, asleep_ns;

static bool slow_reap(void *ring, void **tag, int64_t *result)
{
	busy(awake_ns);
	return fake_disk_ops.reap(ring, tag, result);
}

static ssize_t slow_transfer(int fd, const struct io_request *request, void *arg)
{
	busy(asleep_ns);
	return fake_disk_ops.transfer(fd, request, arg);
}

/* => how many of so many reads were waited for awake */
static unsigned awake_of(unsigned reads)
{
	unsigned before = fake_disk_counts(disk).submits;

	for (unsigned i = 0; i < reads; i++)
		CHECK_EQ(read_page(i % PAGES), PAGE_BYTES);
	return fake_disk_counts(disk).submits - before;
}

static void quicker_way(void)
{
	slow = fake_disk_ops;
	slow.reap = slow_reap;
	slow.transfer = slow_transfer;
	disk = fake_disk_new(PAGES);
	for (unsigned i = 0; i < PAGES; i++)
		memset(fake_disk_page(disk, i), (int)i, PAGE_BYTES);
	look_open(&look, &slow, -1, disk, SECOND);
	awake_ns = 5000, asleep_ns = 100000;
	CHECK(awake_of(3000) > 2500);
	awake_ns = 100000, asleep_ns = 5000;
	CHECK(awake_of(8000) < 5000);
	CHECK(awake_of(3000) < 500);
	awake_ns = 5000, asleep_ns = 100000;
	CHECK(awake_of(8000) > 3000);
	end();
}

static void *reader(void *arg)
{
	uint64_t wrong = 0;

	for (unsigned i = 0; i < 2000; i++) {
		int64_t got = read_page(i * 7 % PAGES);

		wrong += got != (int64_t)PAGE_BYTES;
	}
	atomic_fetch_add((_Atomic uint64_t *)arg, wrong);
	return NULL;
}

/* More threads than rings: nobody gets another's page. */
static void many_threads(void)
{
	pthread_t thread[2 * LOOK_RINGS];
	_Atomic uint64_t wrong = 0;

	begin(SECOND);
	delay(3, 1000);
	for (unsigned i = 0; i < ARRAY_LENGTH(thread); i++)
		REQUIRE_EQ(pthread_create(&thread[i], NULL, reader, &wrong), 0);
	for (unsigned i = 0; i < ARRAY_LENGTH(thread); i++)
		pthread_join(thread[i], NULL);
	CHECK_EQ(wrong, 0);
	end();
}

/* Short of descriptors there are fewer rings, or none, and the program still has some. */
static void few_descriptors(void)
{
	struct rlimit old, low;
	int next;

	/* Above what was inherited no number is in use. */
	while ((next = dup(STDOUT_FILENO)) < 100)
		REQUIRE(next >= 0);
	close(next);
	REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	for (unsigned room = 0; room < 40; room++) {
		unsigned spare = 0;
		int fd[40];

		disk = fake_disk_new(PAGES);
		low = old;
		low.rlim_cur = (rlim_t)next + room;
		REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
		look_open(&look, &fake_disk_ops, -1, disk, SECOND);
		while (spare < 40 && (fd[spare] = dup(STDOUT_FILENO)) >= 0)
			spare++;
		REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
		CHECK_EQ(look.count, MIN(room > 16 ? room - 16 : 0, LOOK_RINGS));
		CHECK_EQ(spare, room - look.count);
		while (spare)
			close(fd[--spare]);
		end();
	}
	for (int i = 3; i < next; i++)
		close(i);
}

/* Through the door: short, failed and torn reads end as they do without looking. */
static void through_transfer(void)
{
	_Alignas(PAGE_BYTES) static unsigned char bytes[PAGE_BYTES];
	struct swapfile_options o = { .io_ops = &fake_disk_ops };
	struct swap_run run = { .op = SWAP_WRITE, .count = 1, .base = bytes, .pages = 1 };
	struct swapfile *s;

	o.io_arg = disk = fake_disk_new(PAGES);
	REQUIRE_EQ(swapfile_open(&s, &o), 0);
	REQUIRE_EQ(swapfile_alloc(s, 1, &run.slot), 1);
	pattern_fill(bytes, 42);
	REQUIRE_EQ(swapfile_transfer(s, &run), 0);
	CHECK_EQ(fake_disk_counts(disk).submits, 0);
	run.op = SWAP_READ;
	CHECK_EQ(swapfile_transfer(s, &run), 0);
	CHECK_EQ(fake_disk_counts(disk).submits, 0);
	swapfile_look_open(s, SECOND);
	fake_disk_fault(disk,
	                (struct fake_fault){ .kind = FAKE_FAIL, .op = FAKE_READ, .value = EIO });
	CHECK_EQ(swapfile_transfer(s, &run), 0);
	CHECK_EQ(run.bad, 0);
	CHECK_EQ(fake_disk_counts(disk).submits, 2);
	fake_disk_fault(disk,
	                (struct fake_fault){ .kind = FAKE_TORN, .op = FAKE_READ, .value = 512 });
	memset(bytes, 0, sizeof bytes);
	CHECK_EQ(swapfile_transfer(s, &run), 0);
	CHECK_EQ(run.bad, 1);
	fake_disk_fault(disk, (struct fake_fault){ .kind = FAKE_FAIL,
	                                           .op = FAKE_READ,
	                                           .value = EIO,
	                                           .times = 10 });
	CHECK_EQ(swapfile_transfer(s, &run), -EIO);
	swapfile_unref(s, run.slot);
	swapfile_close(s);
	fake_disk_free(disk);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(found_awake),  UNIT(slept_for),        UNIT(never),
		UNIT(answers),      UNIT(not_started),      UNIT(quicker_way),
		UNIT(many_threads), UNIT(through_transfer), UNIT(few_descriptors),
		UNIT_END,
	};

	return unit_main(argc, argv, "look", tests);
}
