/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_trial.c - which of two ways is quicker (base/trial.c): found, kept,
 * found anew when it changes; rare stalls and equal ways; what trying costs; threads.
 *
 * test: alone
 */
#include "base/base.h"
#include "base/trial.h"
#include "tests/unit/unit.h"

#include <pthread.h>

#define CAP 1000000

static struct trial trial;

/* => how many of so many times went way 1, one that takes ns[0] or ns[1], half more or less at random */
static unsigned go(unsigned times, const uint64_t ns[2])
{
	unsigned ones = 0;

	for (unsigned i = 0; i < times; i++) {
		unsigned way = trial_way(&trial);
		uint64_t half = ns[way] / 2;

		ones += way;
		trial_took(&trial, way, half + unit_below(2 * half), 1);
	}
	return ones;
}

static void found_and_kept(void)
{
	unit_seed();
	for (int quick = 0; quick < 2; quick++) {
		uint64_t ns[2] = { 50000, 50000 };
		unsigned ones;

		ns[quick] = 35000;
		trial_init(&trial, CAP);
		go(4 * TRIAL_ROUND, ns);
		ones = go(100000, ns);
		/* The other way is tried less and less: in the end once in as many rounds. */
		CHECK(quick ? ones > 96000 : ones < 4000);
		CHECK(quick ? ones < 99000 : ones > 1000);
	}
}

/* However long one way was the quicker. */
static void changes(void)
{
	const unsigned seldom = TRIAL_ROUND * (TRIAL_PATIENCE + 2);

	unit_seed();
	trial_init(&trial, CAP);
	for (unsigned i = 0; i < 6; i++) {
		uint64_t ns[2] = { 100000, 100000 };

		ns[i % 2] = 60000;
		go(200000, ns);
		CHECK_EQ(trial.chosen, i % 2);
		ns[i % 2] = 170000;
		go(2 * seldom, ns);
		CHECK_EQ(trial.chosen, !(i % 2));
	}
}

/* Way 0, unless the other is better by more than a little. */
static void equal(void)
{
	const uint64_t same[2] = { 70000, 70000 }, little[2] = { 70000, 68000 };

	unit_seed();
	trial_init(&trial, CAP);
	CHECK(go(100000, same) < 20000);
	CHECK(go(100000, little) < 35000);
}

/* One in a thousand takes a thousand times as long: no more than the cap counts of it. */
static void stalls(void)
{
	unsigned ones = 0;

	unit_seed();
	trial_init(&trial, 200);
	for (unsigned i = 0; i < 200000; i++) {
		unsigned way = trial_way(&trial);
		bool stall = unit_below(1000) == 0;

		ones += way;
		trial_took(&trial, way, stall ? 100000 : way ? 50 : 100, 1);
	}
	CHECK(ones > 180000);
}

/* Many at once count as so many. */
static void bunches(void)
{
	trial_init(&trial, CAP);
	for (unsigned i = 0; i < 20000; i++) {
		unsigned way = trial_way(&trial);

		trial_took(&trial, way, way ? 1000 : 3000, way ? 1 : 8);
	}
	CHECK_EQ(trial.chosen, 0);
	CHECK(trial.mean[0] >= 370 && trial.mean[0] <= 380);
}

/* A round in which nothing was told, as all are on their way still, teaches nothing. */
static void silent(void)
{
	trial_init(&trial, CAP);
	for (unsigned i = 0; i < 100 * TRIAL_ROUND; i++)
		trial_way(&trial);
	CHECK_EQ(trial.mean[0], 0);
	CHECK_EQ(trial.mean[1], 0);
	CHECK_EQ(trial.chosen, 1);
}

static void *one_of_many(void *arg)
{
	for (unsigned i = 0; i < 100000; i++) {
		unsigned way = trial_way(&trial);

		trial_took(&trial, way, way ? 300 : 200, 1);
	}
	return arg;
}

static void many_threads(void)
{
	pthread_t thread[8];

	trial_init(&trial, CAP);
	for (unsigned i = 0; i < ARRAY_LENGTH(thread); i++)
		REQUIRE_EQ(pthread_create(&thread[i], NULL, one_of_many, NULL), 0);
	for (unsigned i = 0; i < ARRAY_LENGTH(thread); i++)
		pthread_join(thread[i], NULL);
	CHECK_EQ(trial.chosen, 0);
	/* A time may be counted in one round and its length in the next. */
	CHECK(trial.mean[0] >= 190 && trial.mean[0] <= 210);
	CHECK_EQ(trial.turning, 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(found_and_kept), UNIT(changes), UNIT(equal),        UNIT(stalls),
		UNIT(bunches),        UNIT(silent),  UNIT(many_threads), UNIT_END,
	};

	return unit_main(argc, argv, "trial", tests);
}
