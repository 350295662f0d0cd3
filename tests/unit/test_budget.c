/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_budget.c - credits (pager/budget.c): whatever is asked for,
 * granted, refused or changed, those free and those held are the budget (P1).
 */
#include "tests/unit/fake_owner.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <pthread.h>

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

/* The reclaimer is asked to run as soon as the free credits are below the low watermark. */
static void watermarks(void)
{
	static const struct {
		uint64_t budget;
		uint32_t most_high;
	} sizes[] = { { 64, 16 }, { 1024, 128 }, { 1u << 16, 2048 }, { 1u << 20, 2048 } };

	for (unsigned i = 0; i < 4; i++) {
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
		uint32_t c = cluster_get(&o->p, true);

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

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(try_and_put),
		UNIT(watermarks),
		UNIT(spare),
		UNIT(direct_reclaim),
		UNIT(last_credits_are_taken_once),
		UNIT(up_and_down),
		UNIT(pinned_full),
		UNIT_END,
	};

	return unit_main(argc, argv, "budget", tests);
}
