/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_reclaim.c - the steps of reclaim and their order, and the
 * thread that takes them (pager/reclaim.c), with a fake owner.
 */
#include "tests/unit/fake_owner.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <sched.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct fake_owner *o;

static int64_t credits(void)
{
	return atomic_load(&o->p.credits);
}

static void sleep_ms(long ms)
{
	struct timespec nap = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&nap, NULL);
}

static void finish(void)
{
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(fake_owner_close(o), 0);
}

static void nothing_to_do(void)
{
	o = fake_owner_open(256, 256);
	CHECK_EQ(fake_owner_step(o), 0);
	CHECK_EQ(o->takes, 1);
	finish();
}

/* 1. Free clusters that have memory are the cheapest. */
static void free_memory_first(void)
{
	uint32_t c;

	o = fake_owner_open(256, 256);
	CHECK_EQ(fake_owner_map(o, 0, 192), 0);
	c = cluster_get(&o->p, 1);
	CHECK(cluster_populate(&o->p, c, 64));
	cluster_put(&o->p, c);
	CHECK_EQ(credits(), 0);
	CHECK_EQ(fake_owner_step(o), 64);
	CHECK_EQ(o->takes, 0);
	CHECK_EQ(credits(), 64);
	finish();
}

/* Two clusters of n pages in standby, unwritten: first a, of pages from a_first on, then b. */
static void two_in_standby(unsigned mapped, uint64_t a_first, uint64_t b_first, uint32_t n,
                           uint32_t *a, uint32_t *b)
{
	o = fake_owner_open(256, 1024);
	CHECK_EQ(fake_owner_map(o, 0, mapped), 0);
	*a = fake_owner_unmap(o, a_first, n);
	*b = fake_owner_unmap(o, b_first, n);
}

/* 2. Standby above its target: the oldest cluster goes, its pages in order, and no page is unmapped. */
static void oldest_standby_goes(void)
{
	uint32_t a, b;

	two_in_standby(100, 50, 0, 30, &a, &b);
	CHECK(fake_owner_write(o, b));
	CHECK(fake_owner_write(o, a));
	fake_owner_reap(o);
	CHECK(atomic_load(&o->p.standby) > atomic_load(&o->p.standby_target));
	CHECK(fake_owner_step(o) > 0);
	CHECK_EQ(o->takes, 0);
	CHECK_EQ(o->retires, 30);
	CHECK_EQ(o->retired[0], 50);
	CHECK_EQ(o->retired[29], 79);
	CHECK_EQ(o->p.clusters[a].list, CLUSTERS_WARM);
	CHECK_EQ(o->page[0].state, OWNED_STANDBY);
	finish();
}

/* One whose page is busy goes behind the others, and its free pages leave all the same. */
static void busy_page_goes_last(void)
{
	uint32_t a, b;

	two_in_standby(80, 0, 40, 40, &a, &b);
	CHECK(fake_owner_write(o, a));
	CHECK(fake_owner_write(o, b));
	fake_owner_reap(o);
	o->page[5].busy = true;
	CHECK(fake_owner_step(o) > 0);
	CHECK_EQ(o->retires, 39);
	CHECK_EQ(o->refused_retires, 1);
	CHECK_EQ(o->page[5].state, OWNED_STANDBY);
	CHECK_EQ(o->p.head[CLUSTERS_STANDBY], b);
	CHECK_EQ(o->p.tail[CLUSTERS_STANDBY], a);
	CHECK_EQ(fake_owner_check(o), 0);
	o->page[5].busy = false;
	finish();
}

/* One that is all being written keeps nobody: the younger, clean ones go, and no write is waited for. */
static void younger_clean_pages_need_not_wait(void)
{
	uint32_t a, b;

	two_in_standby(80, 0, 40, 40, &a, &b);
	CHECK(fake_owner_write(o, b));
	fake_owner_reap(o);
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = FAKE_SLOW,
	                                              .op = FAKE_WRITE,
	                                              .value = 1000,
	                                              .times = 100 });
	CHECK(fake_owner_write(o, a));
	CHECK_EQ(o->p.head[CLUSTERS_STANDBY], a);
	CHECK(fake_owner_step(o) > 0);
	CHECK_EQ(o->takes, 0);
	CHECK_EQ(o->retires, 40);
	CHECK_EQ(o->retired[0], 40);
	CHECK(swap_queue_in_flight(o->p.writes) > 0);
	CHECK_EQ(atomic_load(&buffer_of(&o->p, o->page[0].at)->state), BUFFER_WRITING);
	CHECK_EQ(fake_owner_check(o), 0);
	finish();
}

/* 3. A batch of victims is unmapped and its writing begins. */
static void batch_is_taken_and_written(void)
{
	unsigned batch;

	o = fake_owner_open(256, 1024);
	batch = atomic_load(&o->p.batch);
	CHECK_EQ(fake_owner_map(o, 0, 100), 0);
	CHECK_EQ(fake_owner_step(o), batch);
	CHECK_EQ(o->takes, 1);
	CHECK_EQ(o->page[0].state, OWNED_STANDBY);
	CHECK_EQ(o->page[batch].state, OWNED_MAPPED);
	CHECK_EQ(atomic_load(&buffer_of(&o->p, o->page[0].at)->state), BUFFER_WRITING);
	CHECK_EQ(counted(&o->counters.writeback_requests), 1);
	CHECK_EQ(fake_owner_check(o), 0);
	finish();
}

/* 4. Nothing mapped can go: standby below its target does, after its writes. */
static void standby_in_need(void)
{
	unsigned steps = 0;

	o = fake_owner_open(256, 1024);
	CHECK_EQ(fake_owner_map(o, 0, 20), 0);
	fake_owner_unmap(o, 0, 20);
	CHECK(atomic_load(&o->p.standby) < atomic_load(&o->p.standby_target));
	while (fake_owner_step(o) && steps < 100)
		steps++;
	CHECK(steps < 100);
	CHECK_EQ(o->retires, 20);
	CHECK_EQ(atomic_load(&o->p.standby), 0);
	CHECK_EQ(o->written, 20);
	finish();
}

/* After a failed write only clean pages are asked for, and standby that is dirty is no progress. */
static void no_progress_without_writes(void)
{
	unsigned steps = 0;

	o = fake_owner_open(256, 1024);
	CHECK_EQ(fake_owner_map(o, 0, 150), 0);
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = FAKE_FAIL,
	                                              .op = FAKE_WRITE,
	                                              .value = EIO,
	                                              .times = 10000 });
	while (fake_owner_step(o) && steps < 1000)
		steps++;
	CHECK(steps < 1000);
	CHECK(o->clean_only_takes > 0);
	CHECK(o->failures[PAGER_WRITE_FAILED] > 0);
	CHECK_EQ(o->retires, 0);
	CHECK_EQ(swapfile_used(o->swap), 0);
	CHECK_EQ(fake_owner_check(o), 0);
	fake_disk_heal(o->disk);
	sleep_ms(110);
	for (steps = 0; fake_owner_step(o) && steps < 1000; steps++)
		;
	CHECK_EQ(o->retires, 150);
	finish();
}

static bool wait_for_credits(int64_t n)
{
	for (int i = 0; i < 1000 && credits() < n; i++)
		sleep_ms(1);
	return credits() >= n;
}

/* While a stream is read a window's clusters keep their memory for the next; when it ends, one does. */
static void memory_for_a_stream(void)
{
	uint32_t c[6];

	o = fake_owner_open(4 * 64 * CLUSTER_PAGES, 1024);
	fake_owner_swap(o, 0, STREAM_READ);
	for (unsigned i = 0; i < 6; i++) {
		c[i] = cluster_get(&o->p, 0);
		CHECK(cluster_populate(&o->p, c[i], CLUSTER_PAGES));
	}
	for (unsigned i = 0; i < 6; i++)
		cluster_put(&o->p, c[i]);
	atomic_fetch_sub(&o->p.credits, 15800); /* in need, and nothing else to be had */
	{
		uint64_t pages[STREAM_READ];

		for (unsigned i = 0; i < STREAM_READ; i++)
			pages[i] = i;
		CHECK(fake_owner_read_ahead(o, pages, STREAM_READ));
		readin_wait(&o->p, o->page[0].at);
	}
	CHECK_EQ(atomic_load(&o->p.streaming), STREAM_STEPS);
	fake_owner_step(o);
	CHECK_EQ(o->p.length[CLUSTERS_WARM], 4 + 1); /* what was read was given up in this step */
	CHECK_EQ(atomic_load(&o->p.streaming), STREAM_STEPS - 1);
	atomic_store(&o->p.streaming, 0);
	fake_owner_step(o);
	CHECK_EQ(o->p.length[CLUSTERS_WARM], 1);
	atomic_fetch_add(&o->p.credits, 15800);
	finish();
}

/* The thread brings the credits to the high watermark when they fall below the low one, and sleeps. */
/* But what is freed without a write is. */
static void progress_without_writes(void)
{
	uint32_t c;

	o = fake_owner_open(256, 1024);
	o->frees = true;
	CHECK_EQ(fake_owner_map(o, 0, 30), 0);
	c = fake_owner_unmap(o, 0, 30);
	CHECK(fake_owner_write(o, c));
	fake_owner_reap(o);
	for (uint64_t page = 0; page < 20; page++)
		fake_owner_rescue(o, page);
	atomic_store(&o->p.write_failing, true);
	CHECK_EQ(fake_owner_step(o), 20);
	CHECK_EQ(o->page[0].state, OWNED_SLOT);
	CHECK_EQ(o->takes, 1);
	CHECK_EQ(o->retires, 0);
	CHECK_EQ(fake_owner_check(o), 0);
	finish();
}

static void the_thread(void)
{
	struct timespec before, after;
	unsigned takes, done;

	o = fake_owner_open(512, 4096);
	CHECK_EQ(fake_owner_map(o, 0, 512 - atomic_load(&o->p.low)), 0);
	CHECK_EQ(reclaimer_start(&o->p), 0);
	CHECK(wait_for_credits(atomic_load(&o->p.high)));
	/* Quiet now. */
	sleep_ms(50);
	reclaim_enter(&o->p);
	takes = o->takes;
	done = takes + o->retires;
	CHECK_EQ(swap_queue_in_flight(o->p.writes), 0); /* nothing is left in flight */
	reclaim_leave(&o->p);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	sleep_ms(200);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	CHECK((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec <
	      5000000);
	reclaim_enter(&o->p);
	CHECK_EQ(o->takes, takes);
	reclaim_leave(&o->p);
	/* Asked again. */
	CHECK(credits_try(&o->p, (uint32_t)credits() - 1));
	CHECK(wait_for_credits(atomic_load(&o->p.high)));
	reclaimer_stop(&o->p);
	CHECK(o->takes + o->retires > done);
	CHECK_EQ(atomic_load(&o->p.reclaimer_tid), 0);
	credits_put(&o->p, (uint32_t)(512 - credits() - (int64_t)o->p.policy.resident -
	                              (int64_t)atomic_load(&o->p.populated)));
	finish();
}

/* The thread: where clusters are short it frees some, though memory is not. */
static void clusters_are_short(void)
{
	uint32_t c, n = 0;

	o = fake_owner_open(256, 1024);
	fake_owner_swap(o, 100, 5);
	CHECK_EQ(fake_owner_map(o, 0, 30), 0);
	c = fake_owner_unmap(o, 0, 3);
	CHECK(fake_owner_write(o, c));
	fake_owner_reap(o);
	o->p.cluster_max = o->p.cluster_count;
	CHECK_EQ(reclaimer_start(&o->p), 0);
	sleep_ms(20);
	CHECK_EQ(o->page[0].state, OWNED_STANDBY);
	CHECK(credits() > atomic_load(&o->p.high));
	while (cluster_get(&o->p, 0) != CLUSTER_NONE)
		n++;
	for (int i = 0; i < 1000 && atomic_load(&o->p.clusters[c].refs); i++)
		sleep_ms(2);
	CHECK_EQ(o->page[0].state, OWNED_SLOT);
	CHECK_EQ(o->takes, 0);
	CHECK_EQ(cluster_get(&o->p, 0), c);
	cluster_put(&o->p, c);
	for (uint32_t i = 0; i < o->p.cluster_count; i++)
		if (i != c && o->p.clusters[i].refs)
			cluster_put(&o->p, i);
	finish();
}

/* Where memory is not short, to unmap pages would help nobody. */
static void short_of_clusters_alone(void)
{
	uint32_t c;

	o = fake_owner_open(256, 1024);
	CHECK_EQ(fake_owner_map(o, 0, 30), 0);
	c = cluster_get(&o->p, 0);
	o->p.cluster_max = o->p.cluster_count;
	CHECK_EQ(cluster_get(&o->p, 1), CLUSTER_NONE);
	CHECK(credits() > atomic_load(&o->p.high));
	CHECK_EQ(fake_owner_step(o), 0);
	CHECK_EQ(o->takes, 0);
	cluster_put(&o->p, c);
	finish();
}

/* Nothing is to be had: not for ever. */
static void no_cluster_ever(void)
{
	struct patience patience = { .since = 0 };
	uint64_t began = now_ns();
	uint32_t c;

	o = fake_owner_open(256, 1024);
	c = cluster_get(&o->p, 0);
	o->p.cluster_max = o->p.cluster_count;
	while (now_ns() - began < UINT64_C(20000000000)) {
		CHECK_EQ(cluster_get(&o->p, 1), CLUSTER_NONE);
		if (!reclaim_wait(&o->p, &patience))
			break;
	}
	CHECK(now_ns() - began > UINT64_C(400000000));
	CHECK(now_ns() - began < UINT64_C(20000000000));
	cluster_put(&o->p, c);
	CHECK_EQ(cluster_get(&o->p, 1), c);
	cluster_put(&o->p, c);
	finish();
}

/* It can be stopped while there is work that does not get done. */
static void stopped_in_need(void)
{
	o = fake_owner_open(64, 1024);
	CHECK_EQ(fake_owner_map(o, 0, 64), 0);
	for (uint64_t page = 0; page < 64; page++) {
		o->p.frames[o->page[page].at].pins = 1;
		frame_pin(&o->p, o->page[page].at);
	}
	CHECK_EQ(reclaimer_start(&o->p), 0);
	sleep_ms(20);
	reclaimer_stop(&o->p);
	CHECK_EQ(credits(), 0);
	finish();
}

/* After many fruitless rounds it rests for long; who needs memory, and knows of some, need not wait for that. */
static void asked_while_it_rests(void)
{
	unsigned late = 0;

	o = fake_owner_open(64, 1024);
	CHECK_EQ(fake_owner_map(o, 0, 64), 0);
	for (uint64_t page = 0; page < 64; page++) {
		o->p.frames[o->page[page].at].pins = 1;
		frame_pin(&o->p, o->page[page].at);
	}
	CHECK_EQ(reclaimer_start(&o->p), 0);
	for (uint64_t page = 0; page < 6; page++) {
		uint64_t asked;

		/* Asked in vain, as faults do, above all while it tries. */
		for (asked = now_ns(); now_ns() - asked < UINT64_C(250000000);) {
			CHECK(!credits_try(&o->p, (uint32_t)page + 1));
			sched_yield();
		}
		o->p.frames[o->page[page].at].pins = 0;
		frame_unpin(&o->p, o->page[page].at);
		asked = now_ns();
		reclaimer_kick(&o->p);
		while (credits() <= (int64_t)page && now_ns() - asked < UINT64_C(1000000000))
			sched_yield();
		CHECK_EQ(credits(), (int64_t)page + 1);
		late += now_ns() - asked > UINT64_C(10000000);
	}
	CHECK(late <= 2);
	reclaimer_stop(&o->p);
	finish();
}

/*
 * Who wants pages unmapped gets that, though there is memory, and some to be had without:
 * a free cluster's, which is what a step takes first.
 */
static void unmap_whatever_else_there_is(void)
{
	struct patience patience = { .since = 0 };
	uint32_t c;

	o = fake_owner_open(64, 1024);
	CHECK_EQ(fake_owner_map(o, 0, 64 - atomic_load(&o->p.high)), 0);
	c = cluster_get(&o->p, 1);
	REQUIRE(c != CLUSTER_NONE && cluster_populate(&o->p, c, 4));
	cluster_put(&o->p, c);
	CHECK(fake_owner_step(o) > 0);
	CHECK_EQ(o->takes, 0);
	c = cluster_get(&o->p, 1);
	REQUIRE(c != CLUSTER_NONE && cluster_populate(&o->p, c, 4));
	cluster_put(&o->p, c);
	CHECK(reclaim_unmap(&o->p, &patience));
	CHECK_EQ(o->takes, 1);
	finish();
}

/* Told to stop at any moment of its rounds, above all when one begins. */
static void stopped_at_any_moment(void)
{
	int n = unit_valgrind() ? 200 : 20000;

	unit_seed();
	o = fake_owner_open(64, 64);
	for (int i = 0; i < n; i++) {
		CHECK_EQ(reclaimer_start(&o->p), 0);
		for (volatile unsigned spin = unit_below(i % 2 ? 4000 : 60000); spin > 0; spin--)
			;
		if (i % 3)
			reclaimer_kick(&o->p);
		if (i % 3 == 2)
			sched_yield();
		reclaimer_stop(&o->p);
		atomic_store(&o->p.stopping, 0);
	}
	finish();
}

/* The lock's holder is known by its own number in a child of fork, too. */
static void holder_in_a_child(void)
{
	int status = -1;
	pid_t child;

	o = fake_owner_open(64, 64);
	reclaim_enter(&o->p);
	CHECK_EQ(atomic_load(&o->p.reclaimer_tid), gettid());
	reclaim_leave(&o->p);
	child = fork();
	if (child == 0) {
		reclaim_enter(&o->p);
		_exit(atomic_load(&o->p.reclaimer_tid) != gettid());
	}
	REQUIRE_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	finish();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(nothing_to_do),
		UNIT(free_memory_first),
		UNIT(oldest_standby_goes),
		UNIT(busy_page_goes_last),
		UNIT(younger_clean_pages_need_not_wait),
		UNIT(batch_is_taken_and_written),
		UNIT(standby_in_need),
		UNIT(no_progress_without_writes),
		UNIT(progress_without_writes),
		UNIT(memory_for_a_stream),
		UNIT(the_thread),
		UNIT(clusters_are_short),
		UNIT(no_cluster_ever),
		UNIT(short_of_clusters_alone),
		UNIT(stopped_in_need),
		UNIT(asked_while_it_rests),
		UNIT(unmap_whatever_else_there_is),
		UNIT(stopped_at_any_moment),
		UNIT(holder_in_a_child),
		UNIT_END,
	};

	return unit_main(argc, argv, "reclaim", tests);
}
