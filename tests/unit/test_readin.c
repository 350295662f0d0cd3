/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_readin.c - reads in flight (pager/readin.c) on a fake disk:
 * the wanted page first, neighbours in one request, failures page by page,
 * batches.
 */
#include "tests/unit/read_fixture.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>

static unsigned poll_all(void)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < READ_QUEUES; i++)
		n += readin_poll(&owner->p, i);
	return n;
}

static void first_alone_then_neighbours(void)
{
	static const uint64_t pages[] = { 20, 10, 11, 12, 13, 14, 40, 41 };
	unsigned reads;

	open_with_slots(60);
	reads = fake_disk_counts(owner->disk).reads;
	CHECK(fake_owner_read(owner, pages, 8));
	CHECK_EQ(fake_disk_counts(owner->disk).reads - reads, 3); /* 20; 10-14; 40-41 */
	CHECK_EQ(owner->page[20].state, OWNED_READING);
	CHECK_EQ(fake_owner_check(owner), 0);
	readin_wait(&owner->p, owner->page[20].at);
	CHECK_EQ(owner->arrived[0], 20);
	while (poll_all())
		;
	check_read(pages, 8);
	CHECK_EQ(owner->arrivals, 8);
	CHECK_EQ(counted(&owner->counters.pages_in), 8);
	close_owner();
}

static void neighbours_together_if_nobody_waits(void)
{
	static const uint64_t pages[] = { 10, 11, 12, 13, 14, 40, 41 };
	unsigned reads;

	open_with_slots(60);
	reads = fake_disk_counts(owner->disk).reads;
	CHECK(fake_owner_read_ahead(owner, pages, 7));
	CHECK_EQ(fake_disk_counts(owner->disk).reads - reads, 2);
	while (poll_all())
		;
	check_read(pages, 7);
	close_owner();
}

static void waits_for_the_one(void)
{
	static const uint64_t pages[] = { 0, 1, 2, 3 };

	open_with_slots(8);
	fake_disk_fault(owner->disk,
	                (struct fake_fault){ .kind = FAKE_DELAYED, .op = FAKE_READ, .value = 20 });
	CHECK(fake_owner_read(owner, pages, 4));
	CHECK_EQ(poll_all(), 1); /* the other run is there before the first */
	CHECK_EQ(owner->page[0].state, OWNED_READING);
	CHECK_EQ(owner->page[1].state, OWNED_STANDBY);
	readin_wait(&owner->p, owner->page[0].at);
	check_read(pages, 4);
	readin_wait(&owner->p, owner->page[0].at); /* not being read: at once */
	close_owner();
}

static void descriptors(void)
{
	static const uint64_t pages[] = { 0 };
	struct pollfd p = { .events = POLLIN };
	unsigned open = 0;

	open_with_slots(4);
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		CHECK_EQ(readin_fd(&owner->p, i), -1);
	CHECK(fake_owner_read(owner, pages, 1));
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		if (readin_fd(&owner->p, i) >= 0) {
			p.fd = readin_fd(&owner->p, i);
			open++;
		}
	CHECK_EQ(open, 1);
	CHECK_EQ(poll(&p, 1, 1000), 1);
	CHECK_EQ(poll_all(), 1);
	check_read(pages, 1);
	close_owner();
}

static void failures(void)
{
	static const uint64_t pages[] = { 0, 1, 2, 3, 4, 5 };

	open_with_slots(8);
	/* One page's bytes are wrong; its neighbours' in the same request are good. */
	*(char *)fake_disk_page(owner->disk, owner->page[3].at) ^= 1;
	CHECK(fake_owner_read(owner, pages, 6));
	readin_wait(&owner->p, owner->page[0].at);
	while (poll_all())
		;
	CHECK_EQ(owner->failed_arrivals, 1);
	CHECK_EQ(owner->arrival_error, EBADMSG);
	CHECK_EQ(owner->page[3].state, OWNED_SLOT);
	check_read(pages, 3);
	check_read(pages + 4, 2);
	CHECK_EQ(fake_owner_check(owner), 0);
	for (uint64_t page = 0; page < 8; page++)
		fake_owner_drop(owner, page);
	/* A request fails: all of its pages. */
	fake_owner_swap(owner, 0, 8);
	fake_disk_fault(owner->disk, (struct fake_fault){ .kind = FAKE_FAIL,
	                                                  .op = FAKE_READ,
	                                                  .value = ENXIO,
	                                                  .skip = 1,
	                                                  .times = 100 });
	CHECK(fake_owner_read(owner, pages, 6));
	readin_wait(&owner->p, owner->page[0].at);
	while (poll_all())
		;
	check_read(pages, 1);
	CHECK_EQ(owner->failed_arrivals, 6);
	CHECK_EQ(owner->arrival_error, ENXIO);
	for (unsigned i = 1; i < 6; i++)
		CHECK_EQ(owner->page[i].state, OWNED_SLOT);
	close_owner();
}

/* All queues are someone's: nothing is started, nothing has changed. */
static void no_queue_is_free(void)
{
	static const uint64_t pages[] = { 0, 1 };
	struct swap_run *run, *spare = NULL;
	unsigned reads;

	open_with_slots(4);
	reads = fake_disk_counts(owner->disk).reads;
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		CHECK(lock_try(&owner->p.reads[i].lock));
	CHECK(!fake_owner_read(owner, pages, 2));
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		lock_release(&owner->p.reads[i].lock);
	CHECK_EQ(fake_disk_counts(owner->disk).reads, reads);
	CHECK_EQ(fake_owner_check(owner), 0);
	/* Nor is one that has no run to begin with. */
	while ((run = run_get(&owner->p, SWAP_READ)) != NULL) {
		run->owner = spare;
		spare = run;
	}
	CHECK(!fake_owner_read(owner, pages, 2));
	while (spare) {
		run = spare;
		spare = run->owner;
		run_put(&owner->p, run);
	}
	CHECK_EQ(fake_owner_check(owner), 0);
	CHECK(fake_owner_read(owner, pages, 2));
	readin_wait(&owner->p, owner->page[0].at);
	readin_wait(&owner->p, owner->page[1].at);
	check_read(pages, 2);
	close_owner();
}

/* What was reserved is for one: the next gets another queue, until all are reserved. */
static void reserved_and_given_back(void)
{
	static const uint64_t pages[] = { 0, 1, 2 };
	uint32_t c[READ_QUEUES + 1];
	unsigned queues = 0;

	open_with_slots(4);
	for (int round = 0; round < 200; round++) { /* more than there are runs */
		for (uint32_t i = 0; i <= READ_QUEUES; i++) {
			c[i] = cluster_get(&owner->p, 0);
			CHECK_EQ(readin_reserve(&owner->p, c[i]), i < READ_QUEUES);
			if (i < READ_QUEUES)
				queues |= 1u << owner->p.clusters[c[i]].queue;
		}
		CHECK_EQ(queues, (1u << READ_QUEUES) - 1);
		for (uint32_t i = 0; i <= READ_QUEUES; i++) {
			if (i < READ_QUEUES)
				readin_cancel(&owner->p, c[i]);
			cluster_put(&owner->p, c[i]);
		}
	}
	CHECK_EQ(fake_owner_check(owner), 0);
	CHECK(fake_owner_read(owner, pages, 3));
	while (poll_all())
		;
	check_read(pages, 3);
	close_owner();
}

/* A disk that starts nothing for a while. */
static void submits_fail(void)
{
	static const uint64_t pages[] = { 0, 1, 2 };

	open_with_slots(4);
	fake_disk_fail_submits(owner->disk, EBUSY, 2);
	CHECK(fake_owner_read(owner, pages, 3));
	for (unsigned i = 0; i < 3; i++)
		readin_wait(&owner->p, owner->page[i].at);
	check_read(pages, 3);
	close_owner();
}

/* Then the descriptor is silent, but it is known that somebody must come again. */
static void reads_are_owed(void)
{
	static const uint64_t pages[] = { 0, 1, 2 };
	unsigned owing = 0;

	open_with_slots(4);
	fake_disk_fail_submits(owner->disk, EAGAIN, 100000);
	CHECK(fake_owner_read(owner, pages, 3));
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		owing += readin_owes(&owner->p, i);
	CHECK_EQ(owing, 1);
	fake_disk_heal(owner->disk);
	thread_is_ours = true;
	while (poll_all() == 0)
		;
	thread_is_ours = false;
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		CHECK(!readin_owes(&owner->p, i));
	for (unsigned i = 0; i < 3; i++)
		readin_wait(&owner->p, owner->page[i].at);
	check_read(pages, 3);
	close_owner();
}

static unsigned queues_held(void)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < READ_QUEUES; i++) {
		if (lock_try(&owner->p.reads[i].lock))
			lock_release(&owner->p.reads[i].lock);
		else
			n++;
	}
	return n;
}

/* Reads of a batch go to the disk together, when it ends; one that was given up leaves no trace. */
static void started_together(void)
{
	unsigned submits;
	uint32_t c;

	open_with_slots(12);
	submits = fake_disk_counts(owner->disk).submits;
	readin_batch_begin(&owner->p);
	CHECK_EQ(queues_held(), 0);
	c = cluster_get(&owner->p, 0);
	CHECK(readin_reserve(&owner->p, c));
	readin_cancel(&owner->p, c);
	CHECK_EQ(queues_held(), 0);
	for (uint64_t page = 0; page < 8; page += 2) {
		uint64_t pages[] = { page, page + 1 };

		CHECK(fake_owner_read(owner, pages, 2));
		CHECK(readin_reserve(&owner->p, c));
		readin_cancel(&owner->p, c);
		CHECK_EQ(queues_held(), 1);
	}
	CHECK_EQ(fake_disk_counts(owner->disk).submits, submits);
	readin_batch_end(&owner->p);
	CHECK_EQ(queues_held(), 0);
	CHECK_EQ(fake_disk_counts(owner->disk).submits, submits + 1);
	while (poll_all())
		;
	for (uint64_t page = 0; page < 8; page++)
		check_read(&page, 1);
	/* After it, and in one that starts nothing, all is as before. */
	readin_batch_begin(&owner->p);
	readin_batch_end(&owner->p);
	CHECK(fake_owner_read(owner, (uint64_t[]){ 9 }, 1));
	CHECK_EQ(fake_disk_counts(owner->disk).submits, submits + 2);
	readin_wait(&owner->p, owner->page[9].at);
	cluster_put(&owner->p, c);
	close_owner();
}

/* A queue that is full is started, and the batch goes on in another. */
static void a_long_batch(void)
{
	unsigned submits;

	open_with_slots(200);
	submits = fake_disk_counts(owner->disk).submits;
	readin_batch_begin(&owner->p);
	for (uint64_t page = 0; page < 160; page++)
		CHECK(fake_owner_read(owner, &page, 1));
	CHECK_EQ(queues_held(), 1);
	CHECK_EQ(fake_disk_counts(owner->disk).submits, submits + 2);
	readin_batch_end(&owner->p);
	CHECK_EQ(fake_disk_counts(owner->disk).submits, submits + 3);
	while (poll_all())
		;
	for (uint64_t page = 0; page < 160; page++)
		check_read(&page, 1);
	close_owner();
}

static void *poll_until_one(void *arg)
{
	(void)arg;
	while (!poll_all())
		sched_yield();
	return NULL;
}

/* While one thread is busy with a page that has arrived another takes the next, of the same queue. */
static void completed_side_by_side(void)
{
	static const uint64_t pages[] = { 0, 10, 20 };
	pthread_t busy, waiter;
	uint32_t id;

	open_with_slots(30);
	atomic_store(&woken, 0);
	atomic_store(&owner->held_up, 1);
	CHECK(fake_owner_read(owner, pages, 3));
	id = owner->page[0].at;
	REQUIRE_EQ(pthread_create(&busy, NULL, poll_until_one, NULL), 0);
	while (atomic_load(&buffer_of(&owner->p, id)->state) == BUFFER_READING)
		sched_yield();
	REQUIRE_EQ(pthread_create(&waiter, NULL, wait_for, (void *)(uintptr_t)id), 0);
	CHECK_EQ(poll_all(), 1);
	CHECK_EQ(poll_all(), 1);
	CHECK_EQ(poll_all(), 0);
	CHECK_EQ(owner->page[0].state, OWNED_READING);
	check_read(pages + 1, 2);
	atomic_store(&owner->held_up, 0);
	pthread_join(busy, NULL);
	pthread_join(waiter, NULL);
	CHECK_EQ(woken, 1);
	check_read(pages, 3);
	close_owner();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(first_alone_then_neighbours),
		UNIT(neighbours_together_if_nobody_waits),
		UNIT(waits_for_the_one),
		UNIT(descriptors),
		UNIT(failures),
		UNIT(no_queue_is_free),
		UNIT(reserved_and_given_back),
		UNIT(submits_fail),
		UNIT(reads_are_owed),
		UNIT(started_together),
		UNIT(a_long_batch),
		UNIT(completed_side_by_side),
		UNIT_END,
	};

	return unit_main(argc, argv, "readin", tests);
}
