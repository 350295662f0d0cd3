/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_pool.c - plain I/O (swapfile/pool.c) by its table: requests on
 * a file and on one that cannot answer yet, what the descriptor says and when,
 * and what is left when a ring is closed.
 */
#include "base/base.h"
#include "swapfile/io.h"
#include "tests/unit/pattern.h"
#include "tests/unit/swap_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES 64
#define DEPTH 40u

static const struct io_ops *const io = &io_pool_ops;
static int fd;
static void *pool;
static char *pages;

/* A file of so many pages, each with its number's pattern. */
static void open_file(void)
{
	pages = pages_new(PAGES);
	fd = open(test_dir, O_TMPFILE | O_RDWR, 0600);
	REQUIRE(fd >= 0);
	for (unsigned i = 0; i < PAGES; i++) {
		pattern_fill(pages + i * PAGE_BYTES, i);
		REQUIRE_EQ(pwrite(fd, pages + i * PAGE_BYTES, PAGE_BYTES, (off_t)(i * PAGE_BYTES)),
		           PAGE_BYTES);
	}
	REQUIRE_EQ(io->attach(fd, &pool), 0);
}

static void close_file(void)
{
	io->detach(pool);
	close(fd);
	munmap(pages, PAGES * PAGE_BYTES);
}

static bool readable(int descriptor, int ms)
{
	struct pollfd p = { .fd = descriptor, .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

/* Read page i of the file into the same page of memory. */
static bool prepare_read(void *ring, struct iovec *iov, unsigned i)
{
	struct io_request r = { .iov = iov,
		                .iov_count = 1,
		                .offset = i * PAGE_BYTES,
		                .tag = pages + i * PAGE_BYTES };

	*iov = (struct iovec){ pages + i * PAGE_BYTES, PAGE_BYTES };
	return io->prepare(ring, &r);
}

static void reads(void *ring)
{
	struct iovec iov[PAGES];
	unsigned left = DEPTH;
	int64_t result;
	void *tag;

	memset(pages, 0, PAGES * PAGE_BYTES);
	for (unsigned i = 0; i < DEPTH; i++)
		REQUIRE(prepare_read(ring, &iov[i], i));
	CHECK(!prepare_read(ring, &iov[DEPTH], DEPTH));
	CHECK(!io->reap(ring, &tag, &result));
	CHECK_EQ(io->submit(ring, false), 0);
	while (left > 0) {
		if (!io->reap(ring, &tag, &result)) {
			CHECK_EQ(io->wait(ring), 0);
			continue;
		}
		left--;
		CHECK_EQ(result, PAGE_BYTES);
		CHECK(pattern_holds(tag, (uint32_t)(((char *)tag - pages) / (long)PAGE_BYTES)));
	}
	CHECK(!io->reap(ring, &tag, &result));
}

/* More requests than workers, and room again when they have been reaped. */
static void many_at_once(void)
{
	void *ring;

	open_file();
	CHECK_EQ(io->open(&ring, fd, 1, IO_RING_OWN, pool), -ENOTSUP);
	REQUIRE_EQ(io->open(&ring, fd, DEPTH, 0, pool), 0);
	for (int round = 0; round < 20; round++)
		reads(ring);
	io->close(ring);
	close_file();
}

/* What the kernel says comes back as it is: bytes or -errno. Pieces are gathered. */
static void results(void)
{
	char *big = pages_new(4);
	struct iovec two[] = { { big, PAGE_BYTES }, { big + 2 * PAGE_BYTES, PAGE_BYTES } };
	struct iovec end = { big, 2 * PAGE_BYTES }, bad = { NULL, PAGE_BYTES };
	struct io_request request[] = {
		{ .iov = two, .iov_count = 2, .offset = 5 * PAGE_BYTES, .tag = &request[0] },
		{ .iov = &end,
		  .iov_count = 1,
		  .offset = (PAGES - 1) * PAGE_BYTES,
		  .tag = &request[1] },
		{ .iov = &bad, .iov_count = 1, .offset = 0, .tag = &request[2] },
		{ .write = true,
		  .iov = two,
		  .iov_count = 2,
		  .offset = 20 * PAGE_BYTES,
		  .tag = &request[3] },
	};
	int64_t expected[] = { 2 * PAGE_BYTES, PAGE_BYTES, -EFAULT, 2 * PAGE_BYTES }, result;
	void *ring, *tag;

	open_file();
	REQUIRE_EQ(io->open(&ring, fd, 1, 0, pool), 0);
	for (unsigned i = 0; i < ARRAY_LENGTH(request); i++) {
		/* Valgrind would report the bad address. */
		if (i == 2 && unit_valgrind())
			continue;
		if (i == 3) {
			pattern_fill(two[0].iov_base, 100);
			pattern_fill(two[1].iov_base, 101);
		}
		CHECK(io->prepare(ring, &request[i]));
		CHECK_EQ(io->submit(ring, true), 0);
		CHECK(io->reap(ring, &tag, &result));
		CHECK(tag == &request[i]);
		CHECK_EQ(result, expected[i]);
		if (i == 0) {
			CHECK(pattern_holds(two[0].iov_base, 5));
			CHECK(pattern_holds(two[1].iov_base, 6));
		}
	}
	CHECK_EQ(pread(fd, big, 2 * PAGE_BYTES, 20 * PAGE_BYTES), 2 * PAGE_BYTES);
	CHECK(pattern_holds(big, 100));
	CHECK(pattern_holds(big + PAGE_BYTES, 101));
	io->close(ring);
	close_file();
	munmap(big, 4 * PAGE_BYTES);
}

/* The descriptor is readable from when something is done until all is reaped, for who has asked for it. */
static void descriptor(void)
{
	struct iovec iov[3];
	void *ring, *tag;
	int64_t result;
	int d;

	open_file();
	REQUIRE_EQ(io->open(&ring, fd, 4, 0, pool), 0);
	for (int round = 0; round < 100; round++) {
		d = io->fd(ring);
		CHECK(!readable(d, 0));
		for (unsigned i = 0; i < 3; i++)
			REQUIRE(prepare_read(ring, &iov[i], i));
		CHECK(!readable(d, 0));
		io->submit(ring, false);
		for (unsigned i = 0; i < 3; i++) {
			CHECK_EQ(io->fd(ring), d);
			CHECK(readable(d, 5000));
			CHECK(io->reap(ring, &tag, &result));
		}
		CHECK(!readable(d, 0));
		/* Who has asked sleeps on, though another took the first and went. */
		for (unsigned i = 0; i < 2; i++) {
			REQUIRE(prepare_read(ring, &iov[i], i));
			CHECK_EQ(io->submit(ring, false), 0);
			CHECK(readable(d, 5000));
			CHECK(io->reap(ring, &tag, &result));
		}
		/* Asked for when it is done already. */
		REQUIRE(prepare_read(ring, &iov[0], 0));
		CHECK_EQ(io->submit(ring, true), 0);
		CHECK(readable(io->fd(ring), 0));
		CHECK(io->reap(ring, &tag, &result));
		CHECK(!readable(d, 0));
	}
	io->close(ring);
	close_file();
}

/* A ring goes when its last request has, reaped or not. */
static void closed_early(void)
{
	struct iovec iov[DEPTH];
	void *ring;

	open_file();
	for (int round = 0; round < 50; round++) {
		memset(pages, 0, PAGES * PAGE_BYTES);
		REQUIRE_EQ(io->open(&ring, fd, DEPTH, 0, pool), 0);
		for (unsigned i = 0; i < DEPTH; i++)
			REQUIRE(prepare_read(ring, &iov[i], i));
		io->submit(ring, false);
		io->close(ring);
		for (unsigned i = 0; i < DEPTH; i++)
			CHECK(pattern_holds(pages + i * PAGE_BYTES, i));
	}
	close_file();
}

struct user {
	pthread_t thread;
	unsigned wrong;
};

static void *use(void *arg)
{
	struct user *u = arg;
	char *own = pages_new(8);
	struct iovec iov[8];
	void *ring, *tag;
	int64_t result;

	REQUIRE_EQ(io->open(&ring, fd, 8, 0, pool), 0);
	for (unsigned round = 0; round < 300; round++) {
		unsigned left = 8;

		memset(own, 0, 8 * PAGE_BYTES);
		for (unsigned i = 0; i < 8; i++) {
			struct io_request r = { .iov = &iov[i],
				                .iov_count = 1,
				                .offset = (round + i) % PAGES * PAGE_BYTES,
				                .tag = (void *)(uintptr_t)i };

			iov[i] = (struct iovec){ own + i * PAGE_BYTES, PAGE_BYTES };
			u->wrong += !io->prepare(ring, &r);
		}
		io->submit(ring, false);
		while (left > 0) {
			unsigned i;

			while (!io->reap(ring, &tag, &result))
				if (round % 2)
					io->wait(ring);
				else
					sched_yield();
			i = (unsigned)(uintptr_t)tag;
			left--;
			u->wrong += result != (int64_t)PAGE_BYTES ||
			            !pattern_holds(own + i * PAGE_BYTES, (round + i) % PAGES);
		}
	}
	io->close(ring);
	munmap(own, 8 * PAGE_BYTES);
	return NULL;
}

/* Rings of one pool know nothing of each other. */
static void rings_side_by_side(void)
{
	struct user user[4] = { 0 };

	open_file();
	for (unsigned i = 0; i < ARRAY_LENGTH(user); i++)
		REQUIRE_EQ(pthread_create(&user[i].thread, NULL, use, &user[i]), 0);
	for (unsigned i = 0; i < ARRAY_LENGTH(user); i++) {
		pthread_join(user[i].thread, NULL);
		CHECK_EQ(user[i].wrong, 0);
	}
	close_file();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(many_at_once),       UNIT(results), UNIT(descriptor), UNIT(closed_early),
		UNIT(rings_side_by_side), UNIT_END,
	};

	return swap_main(argc, argv, "pool", tests);
}
