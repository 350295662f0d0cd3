/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_readin.c - reads in flight (pager/readin.c) on a fake disk:
 * the wanted page first, neighbours in one request, failures page by page, and
 * the reader thread.
 */
#include "tests/unit/fake_owner.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

static struct fake_owner *o;

static void open_with_slots(unsigned n)
{
	o = fake_owner_open(512, 2048);
	fake_owner_swap(o, 0, n);
}

static void finish(void)
{
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(fake_owner_close(o), 0);
}

static unsigned poll_all(void)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < READ_QUEUES; i++)
		n += readin_poll(&o->p, i);
	return n;
}

static void check_read(const uint64_t *pages, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		CHECK_EQ(o->page[pages[i]].state, OWNED_STANDBY);
		CHECK(fake_owner_holds(o, pages[i]));
		CHECK_EQ(buffer_of(&o->p, o->page[pages[i]].at)->state, BUFFER_CLEAN);
	}
}

static void first_alone_then_neighbours(void)
{
	static const uint64_t pages[] = { 20, 10, 11, 12, 13, 14, 40, 41 };
	unsigned reads;

	open_with_slots(60);
	reads = fake_disk_counts(o->disk).reads;
	CHECK(fake_owner_read(o, pages, 8));
	CHECK_EQ(fake_disk_counts(o->disk).reads - reads, 3); /* 20; 10-14; 40-41 */
	CHECK_EQ(o->page[20].state, OWNED_READING);
	CHECK_EQ(fake_owner_check(o), 0);
	readin_wait(&o->p, o->page[20].at);
	CHECK_EQ(o->arrived[0], 20);
	while (poll_all())
		;
	check_read(pages, 8);
	CHECK_EQ(o->arrivals, 8);
	CHECK_EQ(counted(&o->counters.pages_in), 8);
	finish();
}

static void neighbours_together_if_nobody_waits(void)
{
	static const uint64_t pages[] = { 10, 11, 12, 13, 14, 40, 41 };
	unsigned reads;

	open_with_slots(60);
	reads = fake_disk_counts(o->disk).reads;
	CHECK(fake_owner_read_ahead(o, pages, 7));
	CHECK_EQ(fake_disk_counts(o->disk).reads - reads, 2);
	while (poll_all())
		;
	check_read(pages, 7);
	finish();
}

static void waits_for_the_one(void)
{
	static const uint64_t pages[] = { 0, 1, 2, 3 };

	open_with_slots(8);
	fake_disk_fault(o->disk,
	                (struct fake_fault){ .kind = FAKE_DELAYED, .op = FAKE_READ, .value = 20 });
	CHECK(fake_owner_read(o, pages, 4));
	CHECK_EQ(poll_all(), 1); /* the other run is there before the first */
	CHECK_EQ(o->page[0].state, OWNED_READING);
	CHECK_EQ(o->page[1].state, OWNED_STANDBY);
	readin_wait(&o->p, o->page[0].at);
	check_read(pages, 4);
	readin_wait(&o->p, o->page[0].at); /* not being read: at once */
	finish();
}

static void descriptors(void)
{
	static const uint64_t pages[] = { 0 };
	struct pollfd p = { .events = POLLIN };
	unsigned open = 0;

	open_with_slots(4);
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		CHECK_EQ(readin_fd(&o->p, i), -1);
	CHECK(fake_owner_read(o, pages, 1));
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		if (readin_fd(&o->p, i) >= 0) {
			p.fd = readin_fd(&o->p, i);
			open++;
		}
	CHECK_EQ(open, 1);
	CHECK_EQ(poll(&p, 1, 1000), 1);
	CHECK_EQ(poll_all(), 1);
	check_read(pages, 1);
	finish();
}

static void failures(void)
{
	static const uint64_t pages[] = { 0, 1, 2, 3, 4, 5 };

	open_with_slots(8);
	/* One page's bytes are wrong; its neighbours' in the same request are good. */
	*(char *)fake_disk_page(o->disk, o->page[3].at) ^= 1;
	CHECK(fake_owner_read(o, pages, 6));
	readin_wait(&o->p, o->page[0].at);
	while (poll_all())
		;
	CHECK_EQ(o->failed_arrivals, 1);
	CHECK_EQ(o->arrival_error, EBADMSG);
	CHECK_EQ(o->page[3].state, OWNED_SLOT);
	check_read(pages, 3);
	check_read(pages + 4, 2);
	CHECK_EQ(fake_owner_check(o), 0);
	for (uint64_t page = 0; page < 8; page++)
		fake_owner_drop(o, page);
	/* A request fails: all of its pages. */
	fake_owner_swap(o, 0, 8);
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = FAKE_FAIL,
	                                              .op = FAKE_READ,
	                                              .value = ENXIO,
	                                              .skip = 1,
	                                              .times = 100 });
	CHECK(fake_owner_read(o, pages, 6));
	readin_wait(&o->p, o->page[0].at);
	while (poll_all())
		;
	check_read(pages, 1);
	CHECK_EQ(o->failed_arrivals, 6);
	CHECK_EQ(o->arrival_error, ENXIO);
	for (unsigned i = 1; i < 6; i++)
		CHECK_EQ(o->page[i].state, OWNED_SLOT);
	finish();
}

/* All queues are someone's: nothing is started, nothing has changed. */
static void no_queue_is_free(void)
{
	static const uint64_t pages[] = { 0, 1 };
	struct swap_run *run, *spare = NULL;
	unsigned reads;

	open_with_slots(4);
	reads = fake_disk_counts(o->disk).reads;
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		CHECK(lock_try(&o->p.reads[i].lock));
	CHECK(!fake_owner_read(o, pages, 2));
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		lock_release(&o->p.reads[i].lock);
	CHECK_EQ(fake_disk_counts(o->disk).reads, reads);
	CHECK_EQ(fake_owner_check(o), 0);
	/* Nor is one that has no run to begin with. */
	while ((run = run_get(&o->p, SWAP_READ)) != NULL) {
		run->owner = spare;
		spare = run;
	}
	CHECK(!fake_owner_read(o, pages, 2));
	while (spare) {
		run = spare;
		spare = run->owner;
		run_put(&o->p, run);
	}
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK(fake_owner_read(o, pages, 2));
	readin_wait(&o->p, o->page[0].at);
	readin_wait(&o->p, o->page[1].at);
	check_read(pages, 2);
	finish();
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
			c[i] = cluster_get(&o->p, 0);
			CHECK_EQ(readin_reserve(&o->p, c[i]), i < READ_QUEUES);
			if (i < READ_QUEUES)
				queues |= 1u << o->p.clusters[c[i]].queue;
		}
		CHECK_EQ(queues, (1u << READ_QUEUES) - 1);
		for (uint32_t i = 0; i <= READ_QUEUES; i++) {
			if (i < READ_QUEUES)
				readin_cancel(&o->p, c[i]);
			cluster_put(&o->p, c[i]);
		}
	}
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK(fake_owner_read(o, pages, 3));
	while (poll_all())
		;
	check_read(pages, 3);
	finish();
}

/* A disk that starts nothing for a while. */
static void submits_fail(void)
{
	static const uint64_t pages[] = { 0, 1, 2 };

	open_with_slots(4);
	fake_disk_fail_submits(o->disk, EBUSY, 2);
	CHECK(fake_owner_read(o, pages, 3));
	for (unsigned i = 0; i < 3; i++)
		readin_wait(&o->p, o->page[i].at);
	check_read(pages, 3);
	finish();
}

/* Then the descriptor is silent, but it is known that somebody must come again. */
static void reads_are_owed(void)
{
	static const uint64_t pages[] = { 0, 1, 2 };
	unsigned owing = 0;

	open_with_slots(4);
	fake_disk_fail_submits(o->disk, EAGAIN, 100000);
	CHECK(fake_owner_read(o, pages, 3));
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		owing += readin_owes(&o->p, i);
	CHECK_EQ(owing, 1);
	fake_disk_heal(o->disk);
	thread_is_ours = true;
	while (poll_all() == 0)
		;
	thread_is_ours = false;
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		CHECK(!readin_owes(&o->p, i));
	for (unsigned i = 0; i < 3; i++)
		readin_wait(&o->p, o->page[i].at);
	check_read(pages, 3);
	finish();
}

static unsigned queues_held(void)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < READ_QUEUES; i++) {
		if (lock_try(&o->p.reads[i].lock))
			lock_release(&o->p.reads[i].lock);
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
	submits = fake_disk_counts(o->disk).submits;
	readin_batch_begin(&o->p);
	CHECK_EQ(queues_held(), 0);
	c = cluster_get(&o->p, 0);
	CHECK(readin_reserve(&o->p, c));
	readin_cancel(&o->p, c);
	CHECK_EQ(queues_held(), 0);
	for (uint64_t page = 0; page < 8; page += 2) {
		uint64_t pages[] = { page, page + 1 };

		CHECK(fake_owner_read(o, pages, 2));
		CHECK(readin_reserve(&o->p, c));
		readin_cancel(&o->p, c);
		CHECK_EQ(queues_held(), 1);
	}
	CHECK_EQ(fake_disk_counts(o->disk).submits, submits);
	readin_batch_end(&o->p);
	CHECK_EQ(queues_held(), 0);
	CHECK_EQ(fake_disk_counts(o->disk).submits, submits + 1);
	while (poll_all())
		;
	for (uint64_t page = 0; page < 8; page++)
		check_read(&page, 1);
	/* After it, and in one that starts nothing, all is as before. */
	readin_batch_begin(&o->p);
	readin_batch_end(&o->p);
	CHECK(fake_owner_read(o, (uint64_t[]){ 9 }, 1));
	CHECK_EQ(fake_disk_counts(o->disk).submits, submits + 2);
	readin_wait(&o->p, o->page[9].at);
	cluster_put(&o->p, c);
	finish();
}

/* A queue that is full is started, and the batch goes on in another. */
static void a_long_batch(void)
{
	unsigned submits;

	open_with_slots(200);
	submits = fake_disk_counts(o->disk).submits;
	readin_batch_begin(&o->p);
	for (uint64_t page = 0; page < 160; page++)
		CHECK(fake_owner_read(o, &page, 1));
	CHECK_EQ(queues_held(), 1);
	CHECK_EQ(fake_disk_counts(o->disk).submits, submits + 2);
	readin_batch_end(&o->p);
	CHECK_EQ(fake_disk_counts(o->disk).submits, submits + 3);
	while (poll_all())
		;
	for (uint64_t page = 0; page < 160; page++)
		check_read(&page, 1);
	finish();
}

static _Atomic unsigned woken;

static void *wait_for(void *arg)
{
	readin_wait(&o->p, (uint32_t)(uintptr_t)arg);
	atomic_fetch_add(&woken, 1);
	return NULL;
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
	atomic_store(&o->held_up, 1);
	CHECK(fake_owner_read(o, pages, 3));
	id = o->page[0].at;
	REQUIRE_EQ(pthread_create(&busy, NULL, poll_until_one, NULL), 0);
	while (atomic_load(&buffer_of(&o->p, id)->state) == BUFFER_READING)
		sched_yield();
	REQUIRE_EQ(pthread_create(&waiter, NULL, wait_for, (void *)(uintptr_t)id), 0);
	CHECK_EQ(poll_all(), 1);
	CHECK_EQ(poll_all(), 1);
	CHECK_EQ(poll_all(), 0);
	CHECK_EQ(o->page[0].state, OWNED_READING);
	check_read(pages + 1, 2);
	atomic_store(&o->held_up, 0);
	pthread_join(busy, NULL);
	pthread_join(waiter, NULL);
	CHECK_EQ(woken, 1);
	check_read(pages, 3);
	finish();
}

/* The reader starts and completes reads; others sleep until what they want is there. */
static void the_reader(void)
{
	pthread_t thread[3];
	uint64_t pages[300];

	o = fake_owner_open(512, 2048);
	for (unsigned i = 0; i < 300; i++)
		pages[i] = i;
	fake_owner_swap(o, 0, 300);
	CHECK_EQ(reader_start(&o->p), 0);
	atomic_store(&woken, 0);
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = FAKE_DELAYED,
	                                              .op = FAKE_READ,
	                                              .value = 50,
	                                              .times = 20 });
	for (unsigned i = 0; i < 300; i += 30) {
		uint32_t id;

		CHECK(fake_owner_read(o, pages + i, 30));
		id = o->p.head[CLUSTERS_STANDBY] * CLUSTER_PAGES;
		if (i < 90)
			REQUIRE_EQ(pthread_create(&thread[i / 30], NULL, wait_for,
			                          (void *)(uintptr_t)id),
			           0);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	CHECK_EQ(woken, 3);
	for (uint32_t id = 0; id < o->p.cluster_count * CLUSTER_PAGES; id++)
		readin_wait(&o->p, id);
	reader_stop(&o->p); /* after all that was posted */
	CHECK_EQ(o->arrivals, 300);
	check_read(pages, 300);
	finish();
}

/* What is posted while reads are in flight is started at once, however long those take. */
static void the_reader_is_not_held_up(void)
{
	static const uint64_t slow[] = { 0, 1, 2 }, quick[] = { 10, 11, 12 };
	uint64_t before;
	unsigned reads;

	open_with_slots(20);
	reads = fake_disk_counts(o->disk).reads;
	CHECK_EQ(reader_start(&o->p), 0);
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = FAKE_SLOW,
	                                              .op = FAKE_READ,
	                                              .value = 1000,
	                                              .times = 1 });
	before = now_ns();
	CHECK(fake_owner_read_ahead(o, slow, 3));
	for (int i = 0; i < 1000 && fake_disk_counts(o->disk).reads == reads; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	CHECK(fake_owner_read(o, quick, 3));
	for (unsigned i = 0; i < 3; i++)
		fake_owner_wait(o, quick[i]);
	CHECK(now_ns() - before < UINT64_C(900000000));
	CHECK_EQ(o->page[0].state, OWNED_READING);
	check_read(quick, 3);
	fake_owner_wait(o, 0);
	CHECK(now_ns() - before > UINT64_C(900000000));
	reader_stop(&o->p);
	check_read(slow, 3);
	finish();
}

/* A kernel short of memory starts nothing for a while: the reader comes again, though nobody wakes it. */
static void the_reader_owes(void)
{
	static const uint64_t pages[] = { 0, 1, 2 };

	open_with_slots(4);
	fake_disk_fail_submits(o->disk, EAGAIN, 5000);
	CHECK_EQ(reader_start(&o->p), 0);
	CHECK(fake_owner_read(o, pages, 3));
	for (unsigned i = 0; i < 3; i++)
		fake_owner_wait(o, i);
	reader_stop(&o->p);
	check_read(pages, 3);
	finish();
}

/* A thread that may not write to the reader's descriptor is served all the same. */
static void posts_without_a_word(void)
{
	static const uint64_t slow[] = { 0 }, page[] = { 5 }, next[] = { 6 };
	unsigned reads;
	int ends[2];

	open_with_slots(8);
	reads = fake_disk_counts(o->disk).reads;
	CHECK_EQ(reader_start(&o->p), 0);
	/* In its place one that is never readable, and that nobody can write to. */
	REQUIRE_EQ(pipe(ends), 0);
	REQUIRE(dup2(ends[0], o->p.reader.event) >= 0);
	close(ends[0]);
	CHECK(fake_owner_read(o, page, 1)); /* nothing is in flight */
	fake_owner_wait(o, 5);
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = FAKE_SLOW,
	                                              .op = FAKE_READ,
	                                              .value = 100,
	                                              .times = 1 });
	CHECK(fake_owner_read(o, slow, 1));
	for (int i = 0; i < 1000 && fake_disk_counts(o->disk).reads == reads + 1; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	CHECK(fake_owner_read(o, next, 1));
	fake_owner_wait(o, 6);
	fake_owner_wait(o, 0);
	reader_stop(&o->p);
	close(ends[1]);
	check_read(slow, 1);
	check_read(next, 1);
	finish();
}

static void *post_cancelled(void *arg)
{
	pthread_cancel(pthread_self());
	CHECK(fake_owner_read(o, arg, 1));
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
	reads = fake_disk_counts(o->disk).reads;
	CHECK_EQ(reader_start(&o->p), 0);
	atomic_store(&woken, 0);
	REQUIRE_EQ(pthread_create(&t, NULL, post_cancelled, &pages[0]), 0);
	pthread_join(t, NULL);
	CHECK_EQ(woken, 1);
	fake_owner_wait(o, 1);
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = FAKE_SLOW,
	                                              .op = FAKE_READ,
	                                              .value = 300,
	                                              .times = 1 });
	CHECK(fake_owner_read(o, slow, 1));
	for (int i = 0; i < 1000 && fake_disk_counts(o->disk).reads == reads + 1; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	REQUIRE_EQ(pthread_create(&t, NULL, post_cancelled, &pages[1]), 0);
	pthread_join(t, NULL);
	CHECK_EQ(woken, 2);
	fake_owner_wait(o, 2);
	fake_owner_wait(o, 0);
	reader_stop(&o->p);
	finish();
}

/* Posts and arrivals cross in every way; none is overlooked. */
static void many_posts(void)
{
	unit_seed();
	o = fake_owner_open(512, 2048);
	fake_owner_swap(o, 0, 200);
	CHECK_EQ(reader_start(&o->p), 0);
	for (unsigned round = 0; round < 3000; round++) {
		uint64_t pages[] = { round % 200, (round + 100) % 200 };
		uint64_t until = now_ns() + unit_below(4000);

		while (now_ns() < until)
			cpu_relax();
		CHECK(fake_owner_read(o, pages, 1));
		if (round & 1)
			CHECK(fake_owner_read(o, pages + 1, 1));
		fake_owner_wait(o, pages[0]);
		if (round & 1)
			fake_owner_wait(o, pages[1]);
		for (unsigned i = 0; i <= (round & 1); i++) {
			check_read(pages + i, 1);
			fake_owner_retire(o, pages[i]);
		}
	}
	reader_stop(&o->p);
	finish();
}

/* Posts are reserved, too: as many as there is room for, used or not. */
static void posts_are_bounded(void)
{
	static const uint64_t pages[] = { 0 };
	uint32_t c = 0;

	open_with_slots(4);
	o->p.reader.started = true; /* and takes none for now */
	c = cluster_get(&o->p, 0);
	for (uint32_t i = 0; i < READ_POSTS; i++)
		CHECK(readin_reserve(&o->p, c));
	CHECK(!readin_reserve(&o->p, c));
	readin_cancel(&o->p, c);
	CHECK(fake_owner_read(o, pages, 1));
	CHECK(!readin_reserve(&o->p, c));
	for (uint32_t i = 1; i < READ_POSTS; i++)
		readin_cancel(&o->p, c);
	CHECK_EQ(o->p.reader.count, 1);
	CHECK_EQ(o->p.reader.reserved, 0);
	cluster_put(&o->p, c);
	CHECK_EQ(reader_start(&o->p), 0);
	fake_owner_wait(o, 0);
	reader_stop(&o->p);
	check_read(pages, 1);
	finish();
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
		UNIT(the_reader),
		UNIT(the_reader_is_not_held_up),
		UNIT(the_reader_owes),
		UNIT(posts_without_a_word),
		UNIT(cancelled_threads_post),
		UNIT(many_posts),
		UNIT(posts_are_bounded),
		UNIT_END,
	};

	return unit_main(argc, argv, "readin", tests);
}
