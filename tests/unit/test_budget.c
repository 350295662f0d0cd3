/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_budget.c - credits (pager/budget.c): whatever is asked for,
 * granted, refused or changed, those free and those held are the budget (P1).
 */
#include "tests/unit/fake_owner.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct fake_owner *o;

static int64_t credits(void)
{
	return atomic_load(&o->p.credits);
}

static void finish(void)
{
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(fake_owner_close(o), 0);
}

static void try_and_put(void)
{
	o = fake_owner_open(100, 256);
	CHECK(credits_try(&o->p, 40));
	CHECK(!credits_try(&o->p, 61));
	CHECK_EQ(credits(), 60);
	CHECK(credits_try(&o->p, 60));
	CHECK(!credits_try(&o->p, 1));
	CHECK(credits_try(&o->p, 0));
	CHECK_EQ(atomic_load(&o->replenished), 0);
	credits_put(&o->p, 0);
	CHECK_EQ(atomic_load(&o->replenished), 0);
	credits_put(&o->p, 70);
	/* Who failed to get any is told once. */
	CHECK_EQ(atomic_load(&o->replenished), 1);
	credits_put(&o->p, 30);
	CHECK_EQ(atomic_load(&o->replenished), 1);
	CHECK_EQ(credits(), 100);
	finish();
}

/* There are records for every page of the budget; where there can be no more of them it stays. */
static void no_room_for_records(void)
{
	struct rlimit old, low;

	if (unit_foreign_memory())
		return;
	o = fake_owner_open(1 << 14, 256);
	CHECK((size_t)(1 << 14) * sizeof *o->p.frames <= o->p.frame_arena.usable);
	CHECK((size_t)(1 << 15) * sizeof *o->p.frames > o->p.frame_arena.usable);
	REQUIRE_EQ(getrlimit(RLIMIT_DATA, &old), 0);
	low = old;
	low.rlim_cur = PAGE_BYTES;
	REQUIRE_EQ(setrlimit(RLIMIT_DATA, &low), 0);
	CHECK_EQ(budget_set(&o->p, 1 << 15), -ENOMEM);
	CHECK_EQ(atomic_load(&o->p.budget), 1 << 14);
	CHECK_EQ(credits(), 1 << 14);
	CHECK_EQ(budget_set(&o->p, 1 << 13), 0);
	REQUIRE_EQ(setrlimit(RLIMIT_DATA, &old), 0);
	CHECK_EQ(budget_set(&o->p, 1 << 15), 0);
	CHECK_EQ(credits(), 1 << 15);
	CHECK((size_t)(1 << 15) * sizeof *o->p.frames <= o->p.frame_arena.usable);
	CHECK((size_t)(1 << 15) * sizeof *o->p.policy.nodes <= o->p.node_arena.usable);
	finish();
}

/* The reclaimer is asked to run as soon as the free credits are below the low watermark. */
static void watermarks(void)
{
	static const struct {
		uint64_t budget;
		uint32_t most_high;
	} sizes[] = { { 64, 16 }, { 1024, 128 }, { 1u << 16, 2048 }, { 1u << 20, 2048 } };

	/* The largest has more address space than valgrind gives. */
	for (unsigned i = 0; i < (unit_valgrind() ? 3 : 4); i++) {
		uint32_t low, high;

		o = fake_owner_open(sizes[i].budget, 256);
		low = atomic_load(&o->p.low);
		high = atomic_load(&o->p.high);
		CHECK(low > 0 && low < high && high <= sizes[i].most_high);
		CHECK(high <= sizes[i].budget / 4);
		CHECK(atomic_load(&o->p.batch) >= 4 && atomic_load(&o->p.batch) <= CLUSTER_PAGES);
		CHECK(credits_try(&o->p, (uint32_t)sizes[i].budget - low));
		CHECK_EQ(atomic_load(&o->p.wake), 0);
		CHECK(credits_try(&o->p, 1));
		CHECK_EQ(atomic_load(&o->p.wake), 1);
		credits_put(&o->p, (uint32_t)sizes[i].budget - low + 1);
		finish();
	}
}

/* Speculation leaves half of the low watermark alone. */
static void spare(void)
{
	uint32_t reserve;

	o = fake_owner_open(256, 256);
	reserve = atomic_load(&o->p.low) / 2;
	CHECK_EQ(credits_spare(&o->p, 10), 10);
	CHECK(credits_try(&o->p, 256 - reserve - 4));
	CHECK_EQ(credits_spare(&o->p, 3), 3);
	CHECK_EQ(credits_spare(&o->p, 10), 4);
	CHECK_EQ(atomic_load(&o->p.wake), 1);
	CHECK(credits_try(&o->p, 4));
	CHECK_EQ(credits_spare(&o->p, 1), 0);
	CHECK(credits_try(&o->p, reserve));
	CHECK_EQ(credits_spare(&o->p, 1), 0);
	CHECK_EQ(credits_spare(&o->p, 0), 0);
	credits_put(&o->p, 256);
	finish();
}

/* New contents leave a few credits to those there are, and the reclaimer's aim is beyond that. */
static void reserve(void)
{
	static const uint64_t budgets[] = { 64, 256, 1024, 1u << 16 };

	for (unsigned i = 0; i < 4; i++) {
		uint32_t kept = 0;

		o = fake_owner_open(budgets[i], 256);
		CHECK(credits_try(&o->p, (uint32_t)budgets[i] - 20));
		while (credits_try_new(&o->p, 1))
			;
		kept = (uint32_t)credits();
		CHECK(kept >= 2 && kept <= 8);
		CHECK(kept + 1 < atomic_load(&o->p.high));
		CHECK_EQ(atomic_load(&o->p.wake), 1);
		CHECK_EQ(credits_get_new(&o->p, 1), -ENOMEM);
		CHECK_EQ(credits_get(&o->p, kept), 0);
		CHECK_EQ(credits(), 0);
		credits_put(&o->p, kept);
		CHECK(!credits_try_new(&o->p, 1));
		credits_put(&o->p, 1);
		CHECK(credits_try_new(&o->p, 1));
		credits_put(&o->p, (uint32_t)budgets[i] - kept);
		finish();
	}
}

/* More pages than fit: the thread that maps them evicts by itself. */
static void direct_reclaim(void)
{
	o = fake_owner_open(64, 1024);
	CHECK_EQ(fake_owner_map(o, 0, 500), 0);
	CHECK(counted(&o->counters.direct_reclaims) > 0);
	CHECK(credits() >= 0);
	CHECK_EQ(fake_owner_check(o), 0);
	for (uint64_t page = 0; page < 400; page++)
		CHECK(o->page[page].state != OWNED_EMPTY);
	finish();
}

/*
 * Credits that come free in a step that makes no other progress: a free cluster
 * gives its memory back, and there is nothing to evict. They are taken once.
 */
static void last_credits_are_taken_once(void)
{
	o = fake_owner_open(64, 256);
	for (unsigned n = 1; n <= 4; n++) {
		uint32_t c = cluster_get(&o->p, 1);

		CHECK(cluster_populate(&o->p, c, 4));
		cluster_put(&o->p, c);
		CHECK(credits_try(&o->p, 60));
		CHECK_EQ(credits(), 0);
		CHECK_EQ(credits_get(&o->p, n), 0);
		CHECK_EQ(credits(), 4 - (int64_t)n);
		credits_put(&o->p, n);
		credits_put(&o->p, 60);
		CHECK_EQ(credits(), 64);
		CHECK_EQ(fake_owner_check(o), 0);
	}
	finish();
}

static void up_and_down(void)
{
	o = fake_owner_open(256, 2048);
	CHECK_EQ(fake_owner_map(o, 0, 200), 0);
	CHECK_EQ(budget_set(&o->p, 400), 0);
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(fake_owner_map(o, 200, 150), 0);
	CHECK_EQ(budget_set(&o->p, 64), 0);
	CHECK(credits() >= 0);
	CHECK_EQ(atomic_load(&o->p.budget), 64);
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(budget_set(&o->p, 64), 0);
	CHECK_EQ(budget_set(&o->p, 512), 0);
	CHECK_EQ(fake_owner_check(o), 0);
	finish();
}

static void *lower(void *arg)
{
	*(int *)arg = budget_set(&o->p, 64);
	return NULL;
}

/* Nothing can be evicted: both say so in the end, and nothing has changed. */
static void pinned_full(void)
{
	pthread_t thread;
	int said = 0;

	o = fake_owner_open(100, 256);
	CHECK_EQ(fake_owner_map(o, 0, 100), 0);
	for (uint64_t page = 0; page < 100; page++) {
		o->p.frames[o->page[page].at].pins = 1;
		frame_pin(&o->p, o->page[page].at);
	}
	REQUIRE_EQ(pthread_create(&thread, NULL, lower, &said), 0);
	CHECK_EQ(credits_get(&o->p, 1), -ENOMEM);
	pthread_join(thread, NULL);
	CHECK_EQ(said, -EBUSY);
	CHECK_EQ(atomic_load(&o->p.budget), 100);
	CHECK_EQ(credits(), 0);
	finish();
}

/* ------------------------------------------------- disks that are slow or fail */

#define PATIENCE_MS 500 /* that budget.c has */
/* Said by then, on a machine with other things to do: what is meant is, not ever later. */
#define LATEST_MS (5 * PATIENCE_MS)

static void befall_writes(enum fake_kind kind, int64_t value, unsigned times)
{
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = kind,
	                                              .op = FAKE_WRITE,
	                                              .value = value,
	                                              .times = times });
}

static double ms_since(uint64_t ns)
{
	return (double)(now_ns() - ns) / 1e6;
}

/* How long the swap file takes to grow: the library's calls come to fallocate below. */
static _Atomic long grow_ms;

struct call {
	bool ours; /* as the reclaimer, or as a thread of the program's */
	unsigned map;
	uint64_t lower_to;
	int said;
	double ms;
};

static void *make_call(void *arg)
{
	struct call *c = arg;
	uint64_t start = now_ns();

	thread_is_ours = c->ours;
	c->said = c->map ? credits_get(&o->p, c->map) : budget_set(&o->p, c->lower_to);
	c->ms = ms_since(start);
	return NULL;
}

static void sleep_ms(long ms)
{
	struct timespec nap = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&nap, NULL);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	sleep_ms(atomic_load(&grow_ms));
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

/* One write lasts longer than anyone's patience: its page is waited for, and had when it ends. */
static void a_slow_disk_is_waited_for(void)
{
	struct call c[2] = { { .map = 1 }, { .map = 1, .ours = true } };

	for (unsigned i = 0; i < 2; i++) {
		pthread_t thread;

		o = fake_owner_open(64, 256);
		CHECK_EQ(fake_owner_map(o, 0, 64), 0);
		befall_writes(FAKE_SLOW, 2 * PATIENCE_MS, 1000);
		REQUIRE_EQ(pthread_create(&thread, NULL, make_call, &c[i]), 0);
		pthread_join(thread, NULL);
		CHECK_EQ(c[i].said, 0);
		CHECK(c[i].ms >= 2 * PATIENCE_MS);
		credits_put(&o->p, 1);
		fake_disk_heal(o->disk);
		finish();
	}
}

/* The lock is held by another thread's write until long after our patience began. */
static void budget_is_lowered_behind_a_slow_write(void)
{
	struct call first = { .map = 1 }, second = { .lower_to = 64 };
	pthread_t a, b;

	o = fake_owner_open(100, 256);
	CHECK_EQ(fake_owner_map(o, 0, 100), 0);
	befall_writes(FAKE_SLOW, 2 * PATIENCE_MS, 1);
	REQUIRE_EQ(pthread_create(&a, NULL, make_call, &first), 0);
	sleep_ms(100);
	REQUIRE_EQ(pthread_create(&b, NULL, make_call, &second), 0);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	CHECK_EQ(first.said, 0);
	CHECK_EQ(second.said, 0);
	CHECK(second.ms > PATIENCE_MS);
	CHECK_EQ(atomic_load(&o->p.budget), 64);
	credits_put(&o->p, 1);
	finish();
}

/* The kernel takes no requests for a time: writes are under way, and nobody can wait for one. */
static void a_write_that_does_not_start(void)
{
	struct call get = { .map = 1 }, set = { .lower_to = 64 };
	pthread_t a, b;
	uint32_t c;

	o = fake_owner_open(100, 256);
	CHECK_EQ(fake_owner_map(o, 0, 100), 0);
	c = fake_owner_unmap(o, 0, 60);
	for (uint64_t page = 60; page < 100; page++) {
		o->p.frames[o->page[page].at].pins = 1;
		frame_pin(&o->p, o->page[page].at);
	}
	fake_disk_fail_submits(o->disk, EAGAIN, 1u << 30);
	CHECK(fake_owner_write(o, c));
	REQUIRE_EQ(pthread_create(&a, NULL, make_call, &get), 0);
	REQUIRE_EQ(pthread_create(&b, NULL, make_call, &set), 0);
	sleep_ms(3 * PATIENCE_MS);
	fake_disk_heal(o->disk);
	fake_owner_reap(o);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	CHECK_EQ(get.said, 0);
	CHECK_EQ(set.said, 0);
	CHECK(get.ms >= 3 * PATIENCE_MS - 100 && set.ms >= 3 * PATIENCE_MS - 100);
	if (get.said == 0)
		credits_put(&o->p, 1);
	finish();
}

/* As before, but the last write that ended has failed: there is no hope in the next. */
static void a_write_that_fails_and_does_not_start(void)
{
	struct call get = { .map = 1 };
	pthread_t thread;
	uint32_t c;

	o = fake_owner_open(64, 256);
	CHECK_EQ(fake_owner_map(o, 0, 64), 0);
	c = fake_owner_unmap(o, 0, 64);
	befall_writes(FAKE_FAIL, EIO, 1000);
	CHECK(fake_owner_write(o, c));
	fake_owner_reap(o);
	CHECK(o->failures[PAGER_WRITE_FAILED] > 0);
	sleep_ms(110); /* none is tried sooner */
	fake_disk_fail_submits(o->disk, EAGAIN, 1u << 30);
	CHECK(fake_owner_write(o, c));
	REQUIRE_EQ(pthread_create(&thread, NULL, make_call, &get), 0);
	sleep_ms(3 * PATIENCE_MS);
	fake_disk_heal(o->disk);
	fake_owner_reap(o);
	pthread_join(thread, NULL);
	CHECK_EQ(get.said, -ENOMEM);
	CHECK(get.ms >= PATIENCE_MS && get.ms < 3 * PATIENCE_MS);
	if (get.said == 0)
		credits_put(&o->p, 1);
	finish();
}

/* => ms until patience ends, or -1: it has not within as many; before each look the step is counted */
static double patience_for(struct patience *w, _Atomic uint32_t *step, double most)
{
	uint64_t start = now_ns();

	while (ms_since(start) < most) {
		if (step)
			atomic_fetch_add(step, 1);
		if (patience_ends(&o->p, w))
			return ms_since(start);
		sleep_ms(2);
	}
	return -1;
}

/* What counts is that reclaim has searched in vain, again and again; not that time goes by. */
static void steps_in_vain_end_patience(void)
{
	struct patience w = { .since = 0 };
	double ms;

	o = fake_owner_open(64, 256);
	CHECK(patience_for(&w, NULL, 2 * PATIENCE_MS) < 0);
	ms = patience_for(&w, &o->p.vain, 2 * PATIENCE_MS);
	CHECK(ms >= PATIENCE_MS - 110);
	/* Of what goes by between two of them a part, so one or two end nothing. */
	w = (struct patience){ .since = 0 };
	CHECK(!patience_ends(&o->p, &w));
	for (int i = 0; i < 3; i++) {
		sleep_ms(PATIENCE_MS / 2);
		atomic_fetch_add(&o->p.vain, 1);
		CHECK(!patience_ends(&o->p, &w));
	}
	CHECK(w.stuck > 0);
	/* Progress begins it anew. */
	atomic_fetch_add(&o->p.vain, 1);
	atomic_fetch_add(&o->p.progress, 1);
	CHECK(!patience_ends(&o->p, &w));
	CHECK_EQ(w.stuck, 0);
	/* A step that finds nothing says so. */
	CHECK_EQ(fake_owner_step(o), 0);
	sleep_ms(10);
	CHECK(!patience_ends(&o->p, &w));
	CHECK(w.stuck > 0);
	finish();
}

/* What is under way and gives memory back: writes that may succeed, reads, pages that are given up. */
static void hope(void)
{
	struct patience w = { .since = 0 };

	o = fake_owner_open(64, 256);
	atomic_store(&o->p.writing, 1);
	CHECK(patience_for(&w, &o->p.vain, PATIENCE_MS + 100) < 0);
	atomic_store(&o->p.write_failing, true);
	CHECK(patience_for(&w, &o->p.vain, 2 * PATIENCE_MS) >= PATIENCE_MS - 10);
	atomic_store(&o->p.reading, 1);
	CHECK(patience_for(&w, &o->p.vain, PATIENCE_MS + 100) < 0);
	atomic_store(&o->p.reading, 0);
	CHECK(patience_for(&w, &o->p.vain, 2 * PATIENCE_MS) >= PATIENCE_MS - 10);
	atomic_store(&o->p.releasing, 1);
	CHECK(patience_for(&w, &o->p.vain, PATIENCE_MS + 100) < 0);
	atomic_store(&o->p.releasing, 0);
	atomic_store(&o->p.writing, 0);
	atomic_store(&o->p.write_failing, false);
	CHECK(patience_for(&w, &o->p.vain, 2 * PATIENCE_MS) >= PATIENCE_MS - 10);
	finish();
}

/*
 * A handler thread asks again and again while the reclaimer's step takes long:
 * the file system lets it wait for room, and no write has begun. Or its thread
 * just does not get on.
 */
static void a_step_that_takes_long(void)
{
	for (int blocked = 0; blocked < 2; blocked++) {
		struct patience w = { .since = 0 };
		uint64_t start = now_ns();
		bool got, ended = false;

		o = fake_owner_open(64, 256);
		CHECK_EQ(fake_owner_map(o, 0, 64), 0);
		atomic_store(&grow_ms, blocked ? 0 : 2 * PATIENCE_MS);
		if (blocked)
			reclaim_enter(&o->p);
		CHECK_EQ(reclaimer_start(&o->p), 0);
		while (!(got = credits_try(&o->p, 1)) && !(ended = patience_ends(&o->p, &w))) {
			if (blocked && ms_since(start) > 2 * PATIENCE_MS) {
				reclaim_leave(&o->p);
				blocked++;
			}
			sleep_ms(2);
		}
		if (blocked == 1)
			reclaim_leave(&o->p);
		CHECK(got && !ended);
		CHECK(ms_since(start) >= 2 * PATIENCE_MS);
		atomic_store(&grow_ms, 0);
		reclaimer_stop(&o->p);
		if (got)
			credits_put(&o->p, 1);
		finish();
	}
}

/* All memory is in reads that last longer than anyone's patience. */
static void slow_reads_are_waited_for(void)
{
	struct call c = { .map = 1 };
	uint64_t pages[64], start;
	pthread_t thread;

	o = fake_owner_open(64, 256);
	fake_owner_swap(o, 0, 64);
	for (uint64_t i = 0; i < 64; i++)
		pages[i] = i;
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = FAKE_SLOW,
	                                              .op = FAKE_READ,
	                                              .value = 2 * PATIENCE_MS,
	                                              .times = 1000 });
	reclaim_enter(&o->p);
	clusters_release(&o->p, INT64_MAX, 0);
	reclaim_leave(&o->p);
	start = now_ns();
	REQUIRE(fake_owner_read(o, pages, 64));
	CHECK_EQ(credits(), 0);
	CHECK_EQ(fake_owner_check(o), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, make_call, &c), 0);
	sleep_ms(2 * PATIENCE_MS - 100);
	/* The table of pages is this thread's while they arrive. */
	reclaim_enter(&o->p);
	for (unsigned i = 0; i < 64; i++)
		if (o->page[i].state == OWNED_READING)
			readin_wait(&o->p, o->page[i].at);
	reclaim_leave(&o->p);
	CHECK(ms_since(start) >= 2 * PATIENCE_MS);
	pthread_join(thread, NULL);
	CHECK_EQ(c.said, 0);
	if (c.said == 0)
		credits_put(&o->p, 1);
	finish();
}

/* Every write fails: refused after the patience, however many pages there are to be tried. */
static void a_disk_that_fails(void)
{
	for (unsigned i = 0; i < 4; i++) {
		struct call c = { .ours = i & 1, .map = i < 2, .lower_to = 64 };
		pthread_t thread;

		o = fake_owner_open(1024, 2048);
		CHECK_EQ(fake_owner_map(o, 0, 1024), 0);
		o->batch = 2; /* as many tries as a large budget has */
		befall_writes(FAKE_FAIL, EIO, 1u << 30);
		CHECK_EQ(reclaimer_start(&o->p), 0);
		REQUIRE_EQ(pthread_create(&thread, NULL, make_call, &c), 0);
		pthread_join(thread, NULL);
		CHECK_EQ(c.said, c.map ? -ENOMEM : -EBUSY);
		CHECK(c.ms >= PATIENCE_MS && c.ms < LATEST_MS);
		reclaimer_stop(&o->p);
		finish();
	}
}

/* As above, for want of slots: one cluster finds some, the rest none. */
static void a_full_swap_file(void)
{
	struct call c = { .map = 200 };
	pthread_t thread;

	o = fake_owner_open(1024, 64);
	CHECK_EQ(fake_owner_map(o, 0, 1024), 0);
	CHECK_EQ(reclaimer_start(&o->p), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, make_call, &c), 0);
	pthread_join(thread, NULL);
	CHECK_EQ(c.said, -ENOMEM);
	CHECK(c.ms >= PATIENCE_MS && c.ms < LATEST_MS);
	reclaimer_stop(&o->p);
	finish();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(try_and_put),
		UNIT(no_room_for_records),
		UNIT(watermarks),
		UNIT(spare),
		UNIT(reserve),
		UNIT(direct_reclaim),
		UNIT(last_credits_are_taken_once),
		UNIT(up_and_down),
		UNIT(pinned_full),
		UNIT(a_slow_disk_is_waited_for),
		UNIT(budget_is_lowered_behind_a_slow_write),
		UNIT(a_write_that_does_not_start),
		UNIT(a_write_that_fails_and_does_not_start),
		UNIT(steps_in_vain_end_patience),
		UNIT(hope),
		UNIT(a_step_that_takes_long),
		UNIT(slow_reads_are_waited_for),
		UNIT(a_disk_that_fails),
		UNIT(a_full_swap_file),
		UNIT_END,
	};

	return unit_main(argc, argv, "budget", tests);
}
