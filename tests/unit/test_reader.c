/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_reader.c - the reader thread (pager/reader.c) on a fake disk:
 * posts and arrivals at once, posts that cannot wake it, and their bounds.
 */
#include "tests/unit/read_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

/* The reader starts and completes reads; others sleep until what they want is there. */
static void reads_for_others(void)
{
	pthread_t thread[3];
	uint64_t pages[300];

	owner = fake_owner_open(512, 2048);
	for (unsigned i = 0; i < 300; i++)
		pages[i] = i;
	fake_owner_swap(owner, 0, 300);
	CHECK_EQ(reader_start(&owner->p), 0);
	atomic_store(&woken, 0);
	fake_disk_fault(owner->disk, (struct fake_fault){ .kind = FAKE_DELAYED,
	                                                  .op = FAKE_READ,
	                                                  .value = 50,
	                                                  .times = 20 });
	for (unsigned i = 0; i < 300; i += 30) {
		uint32_t id;

		CHECK(fake_owner_read(owner, pages + i, 30));
		id = owner->p.head[CLUSTERS_STANDBY] * CLUSTER_PAGES;
		if (i < 90)
			REQUIRE_EQ(pthread_create(&thread[i / 30], NULL, wait_for,
			                          (void *)(uintptr_t)id),
			           0);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	CHECK_EQ(woken, 3);
	for (uint32_t id = 0; id < owner->p.cluster_count * CLUSTER_PAGES; id++)
		readin_wait(&owner->p, id);
	reader_stop(&owner->p); /* after all that was posted */
	CHECK_EQ(owner->arrivals, 300);
	check_read(pages, 300);
	close_owner();
}

/* What is posted while reads are in flight is started at once, however long those take. */
static void is_not_held_up(void)
{
	static const uint64_t slow[] = { 0, 1, 2 }, quick[] = { 10, 11, 12 };
	uint64_t before;
	unsigned reads;

	open_with_slots(20);
	reads = fake_disk_counts(owner->disk).reads;
	CHECK_EQ(reader_start(&owner->p), 0);
	fake_disk_fault(owner->disk, (struct fake_fault){ .kind = FAKE_SLOW,
	                                                  .op = FAKE_READ,
	                                                  .value = 1000,
	                                                  .times = 1 });
	before = now_ns();
	CHECK(fake_owner_read_ahead(owner, slow, 3));
	for (int i = 0; i < 1000 && fake_disk_counts(owner->disk).reads == reads; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	CHECK(fake_owner_read(owner, quick, 3));
	for (unsigned i = 0; i < 3; i++)
		fake_owner_wait(owner, quick[i]);
	CHECK(now_ns() - before < UINT64_C(900000000));
	CHECK_EQ(owner->page[0].state, OWNED_READING);
	check_read(quick, 3);
	fake_owner_wait(owner, 0);
	CHECK(now_ns() - before > UINT64_C(900000000));
	reader_stop(&owner->p);
	check_read(slow, 3);
	close_owner();
}

/* A kernel short of memory starts nothing for a while: the reader comes again, though nobody wakes it. */
static void owes(void)
{
	static const uint64_t pages[] = { 0, 1, 2 };

	open_with_slots(4);
	fake_disk_fail_submits(owner->disk, EAGAIN, 5000);
	CHECK_EQ(reader_start(&owner->p), 0);
	CHECK(fake_owner_read(owner, pages, 3));
	for (unsigned i = 0; i < 3; i++)
		fake_owner_wait(owner, i);
	reader_stop(&owner->p);
	check_read(pages, 3);
	close_owner();
}

/* A thread that may not write to the reader's descriptor is served all the same. */
static void posts_without_a_word(void)
{
	static const uint64_t slow[] = { 0 }, page[] = { 5 }, next[] = { 6 };
	unsigned reads;
	int ends[2];

	open_with_slots(8);
	reads = fake_disk_counts(owner->disk).reads;
	CHECK_EQ(reader_start(&owner->p), 0);
	/* In its place one that is never readable, and that nobody can write to. */
	REQUIRE_EQ(pipe(ends), 0);
	REQUIRE(dup2(ends[0], owner->p.reader.event) >= 0);
	close(ends[0]);
	CHECK(fake_owner_read(owner, page, 1)); /* nothing is in flight */
	fake_owner_wait(owner, 5);
	fake_disk_fault(owner->disk, (struct fake_fault){ .kind = FAKE_SLOW,
	                                                  .op = FAKE_READ,
	                                                  .value = 100,
	                                                  .times = 1 });
	CHECK(fake_owner_read(owner, slow, 1));
	for (int i = 0; i < 1000 && fake_disk_counts(owner->disk).reads == reads + 1; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	CHECK(fake_owner_read(owner, next, 1));
	fake_owner_wait(owner, 6);
	fake_owner_wait(owner, 0);
	reader_stop(&owner->p);
	close(ends[1]);
	check_read(slow, 1);
	check_read(next, 1);
	close_owner();
}

static void *post_cancelled(void *arg)
{
	pthread_cancel(pthread_self());
	CHECK(fake_owner_read(owner, arg, 1));
	atomic_fetch_add(&woken, 1);
	pthread_testcancel();
	return NULL;
}

/* An access to memory is no cancellation point, whether the reader sleeps for reads or not. */
static void cancelled_threads_post(void)
{
	static uint64_t pages[] = { 1, 2 };
	static const uint64_t slow[] = { 0 };
	unsigned reads;
	pthread_t t;

	open_with_slots(4);
	reads = fake_disk_counts(owner->disk).reads;
	CHECK_EQ(reader_start(&owner->p), 0);
	atomic_store(&woken, 0);
	REQUIRE_EQ(pthread_create(&t, NULL, post_cancelled, &pages[0]), 0);
	pthread_join(t, NULL);
	CHECK_EQ(woken, 1);
	fake_owner_wait(owner, 1);
	fake_disk_fault(owner->disk, (struct fake_fault){ .kind = FAKE_SLOW,
	                                                  .op = FAKE_READ,
	                                                  .value = 300,
	                                                  .times = 1 });
	CHECK(fake_owner_read(owner, slow, 1));
	for (int i = 0; i < 1000 && fake_disk_counts(owner->disk).reads == reads + 1; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	REQUIRE_EQ(pthread_create(&t, NULL, post_cancelled, &pages[1]), 0);
	pthread_join(t, NULL);
	CHECK_EQ(woken, 2);
	fake_owner_wait(owner, 2);
	fake_owner_wait(owner, 0);
	reader_stop(&owner->p);
	close_owner();
}

static void post_one(void *page)
{
	CHECK(fake_owner_read(owner, page, 1));
}

/* What is posted when the reader has looked, and before it says that it sleeps, it does not sleep over. */
static void posts_cross_with_its_sleep(void)
{
	static const uint64_t slow[] = { 0 };
	static uint64_t late[] = { 5 };
	uint64_t before;

	open_with_slots(8);
	fake_disk_fault(owner->disk, (struct fake_fault){ .kind = FAKE_SLOW,
	                                                  .op = FAKE_READ,
	                                                  .value = 1000,
	                                                  .times = 1 });
	CHECK_EQ(reader_start(&owner->p), 0);
	fake_disk_on_descriptor(owner->disk, post_one, late);
	before = now_ns();
	CHECK(fake_owner_read(owner, slow, 1));
	while (now_ns() - before < UINT64_C(800000000) && owner->page[5].state != OWNED_STANDBY)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	CHECK(now_ns() - before < UINT64_C(800000000));
	CHECK_EQ(owner->page[0].state, OWNED_READING);
	fake_owner_wait(owner, 0);
	reader_stop(&owner->p);
	check_read(slow, 1);
	check_read(late, 1);
	close_owner();
}

/* Posts and arrivals cross in every way; none is overlooked. */
static void many_posts(void)
{
	unit_seed();
	owner = fake_owner_open(512, 2048);
	fake_owner_swap(owner, 0, 200);
	CHECK_EQ(reader_start(&owner->p), 0);
	for (unsigned round = 0; round < 3000; round++) {
		uint64_t pages[] = { round % 200, (round + 100) % 200 };
		uint64_t until = now_ns() + unit_below(4000);

		while (now_ns() < until)
			cpu_relax();
		CHECK(fake_owner_read(owner, pages, 1));
		if (round & 1)
			CHECK(fake_owner_read(owner, pages + 1, 1));
		fake_owner_wait(owner, pages[0]);
		if (round & 1)
			fake_owner_wait(owner, pages[1]);
		for (unsigned i = 0; i <= (round & 1); i++) {
			check_read(pages + i, 1);
			fake_owner_retire(owner, pages[i]);
		}
	}
	reader_stop(&owner->p);
	close_owner();
}

/* Posts are reserved, too: as many as there is room for, used or not. */
static void posts_are_bounded(void)
{
	static const uint64_t pages[] = { 0 };
	uint32_t c = 0;

	open_with_slots(4);
	owner->p.reader.started = true; /* and takes none for now */
	c = cluster_get(&owner->p, 0);
	for (uint32_t i = 0; i < READ_POSTS; i++)
		CHECK(readin_reserve(&owner->p, c));
	CHECK(!readin_reserve(&owner->p, c));
	readin_cancel(&owner->p, c);
	CHECK(fake_owner_read(owner, pages, 1));
	CHECK(!readin_reserve(&owner->p, c));
	for (uint32_t i = 1; i < READ_POSTS; i++)
		readin_cancel(&owner->p, c);
	CHECK_EQ(owner->p.reader.count, 1);
	CHECK_EQ(owner->p.reader.reserved, 0);
	cluster_put(&owner->p, c);
	CHECK_EQ(reader_start(&owner->p), 0);
	fake_owner_wait(owner, 0);
	reader_stop(&owner->p);
	check_read(pages, 1);
	close_owner();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(reads_for_others),
		UNIT(is_not_held_up),
		UNIT(owes),
		UNIT(posts_without_a_word),
		UNIT(cancelled_threads_post),
		UNIT(posts_cross_with_its_sleep),
		UNIT(many_posts),
		UNIT(posts_are_bounded),
		UNIT_END,
	};

	return unit_main(argc, argv, "reader", tests);
}
