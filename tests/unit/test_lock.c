/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_lock.c - the futex mutex (base/lock.c): exclusion, sleeping
 * and waking, between processes too; and the order of ranks, in debug builds.
 *
 * test: alone
 */
#include "base/arena.h"
#include "base/base.h"
#include "base/lock.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS 50000

static struct lock lock;
static uint64_t counter; /* lock */

static void *count_up(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		if (i % 7 || !lock_try(&lock))
			lock_acquire(&lock);
		counter++;
		lock_release(&lock);
	}
	return arg;
}

static void exclusion(void)
{
	pthread_t thread[THREADS];

	lock_init(&lock, RANK_POLICY);
	counter = 0;
	for (int i = 0; i < THREADS; i++)
		REQUIRE_EQ(pthread_create(&thread[i], NULL, count_up, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	CHECK_EQ(counter, THREADS * ROUNDS);
	CHECK_EQ(atomic_load(&lock.word), 0);
}

static void try(void)
{
	lock_init(&lock, RANK_POLICY);
	CHECK(lock_try(&lock));
	CHECK(lock_held(&lock));
	CHECK(!lock_try(&lock));
	lock_release(&lock);
	CHECK(lock_try(&lock));
	lock_release(&lock);
}

static _Atomic bool got;

static void *acquire(void *arg)
{
	lock_acquire(&lock);
	atomic_store(&got, true);
	lock_release(&lock);
	return arg;
}

/* Who waits long sleeps, and uses no CPU. */
static void sleeps_and_wakes(void)
{
	struct timespec nap = { .tv_nsec = 100000000 }, before, after;
	pthread_t thread;

	lock_init(&lock, RANK_POLICY);
	atomic_store(&got, false);
	lock_acquire(&lock);
	REQUIRE_EQ(pthread_create(&thread, NULL, acquire, NULL), 0);
	for (int i = 0; i < 1000 && atomic_load(&lock.word) != 2; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	CHECK_EQ(atomic_load(&lock.word), 2);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	nanosleep(&nap, NULL);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	CHECK((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec <
	      20000000);
	CHECK(!atomic_load(&got));
	lock_release(&lock);
	pthread_join(thread, NULL);
	CHECK(atomic_load(&got));
	CHECK_EQ(atomic_load(&lock.word), 0);
}

static bool nobody_has(void *arg, uint32_t who)
{
	(void)arg;
	(void)who;
	return false;
}

struct between {
	struct shared_lock lock;
	uint64_t n;
};

static void between_processes(void)
{
	struct between *s;
	struct arena a;
	int status;
	pid_t child;

	REQUIRE_EQ(arena_open(&a, sizeof *s, true, NULL), 0);
	s = a.base;
	shared_lock_init(&s->lock, RANK_SLOTS);
	child = fork();
	REQUIRE(child >= 0);
	for (int i = 0; i < ROUNDS; i++) {
		if (shared_lock_acquire(&s->lock, child == 0, nobody_has, NULL))
			_exit(1);
		s->n++;
		shared_lock_release(&s->lock);
	}
	if (child == 0)
		_exit(0);
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	CHECK_EQ(s->n, 2 * ROUNDS);
	CHECK_EQ(atomic_load(&s->lock.word), 0);
	arena_close(&a);
}

static bool five_has(void *arg, uint32_t who)
{
	++*(unsigned *)arg;
	return who == 5;
}

/* The holder ends with it in hand: whoever waits is told, and only he. */
static void holder_gone(void)
{
	struct between *s;
	struct arena a;
	unsigned asked = 0;
	int status;
	pid_t child;

	REQUIRE_EQ(arena_open(&a, sizeof *s, true, NULL), 0);
	s = a.base;
	shared_lock_init(&s->lock, RANK_SLOTS);
	child = fork();
	REQUIRE(child >= 0);
	if (child == 0)
		_exit(shared_lock_acquire(&s->lock, 5, nobody_has, NULL));
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	CHECK(shared_lock_acquire(&s->lock, 0, five_has, &asked));
	CHECK_EQ(asked, 1);
	shared_lock_release(&s->lock);
	CHECK(!shared_lock_acquire(&s->lock, 0, five_has, &asked));
	CHECK_EQ(asked, 1);
	shared_lock_release(&s->lock);
	arena_close(&a);
}

static struct between own;

static void *wait_for_it(void *arg)
{
	shared_lock_acquire(&own.lock, 5, nobody_has, NULL);
	own.n++;
	shared_lock_release(&own.lock);
	return arg;
}

/* The lock of one that is gone is free, and nobody else's; who sleeps for it is woken. */
static void forsaken(void)
{
	const struct timespec nap = { .tv_nsec = 1000000 };
	pthread_t thread;
	uint32_t word;

	shared_lock_init(&own.lock, RANK_SLOTS);
	own.n = 0;
	shared_lock_forsake(&own.lock, 3);
	atomic_store(&own.lock.word, 3 + 1 + 7 * (SHARED_LOCK_HOLDERS + 1));
	REQUIRE_EQ(pthread_create(&thread, NULL, wait_for_it, NULL), 0);
	while (!(atomic_load(&own.lock.word) & SHARED_LOCK_WAITERS))
		nanosleep(&nap, NULL);
	word = atomic_load(&own.lock.word);
	shared_lock_forsake(&own.lock, 2);
	shared_lock_forsake(&own.lock, 4);
	CHECK_EQ(atomic_load(&own.lock.word), word);
	shared_lock_forsake(&own.lock, 3);
	pthread_join(thread, NULL);
	CHECK_EQ(own.n, 1);
	CHECK_EQ(atomic_load(&own.lock.word), 0);
}

static void *hold_for_long(void *arg)
{
	struct timespec t = { .tv_nsec = 200000000 };

	shared_lock_acquire(&own.lock, 5, nobody_has, NULL);
	atomic_store((_Atomic bool *)arg, true);
	nanosleep(&t, NULL);
	own.n++;
	shared_lock_release(&own.lock);
	return NULL;
}

/* A thread of the same process may be off its CPU for long: the lock is not taken from it. */
static void not_from_ourselves(void)
{
	_Atomic bool held = false;
	unsigned asked = 0;
	pthread_t thread;

	shared_lock_init(&own.lock, RANK_SLOTS);
	own.n = 0;
	REQUIRE_EQ(pthread_create(&thread, NULL, hold_for_long, &held), 0);
	while (!atomic_load(&held))
		cpu_relax();
	CHECK(!shared_lock_acquire(&own.lock, 5, five_has, &asked));
	CHECK_EQ(own.n, 1);
	CHECK_EQ(asked, 0);
	shared_lock_release(&own.lock);
	pthread_join(thread, NULL);
}

static void waits(void)
{
	_Atomic uint32_t word = 5;
	uint64_t before;

	errno = 12345;
	CHECK(futex_wait(&word, 6, 0, false)); /* not so: at once */
	before = now_ns();
	CHECK(!futex_wait(&word, 5, 20000000, false));
	CHECK(now_ns() - before >= 20000000);
	futex_wake(&word, 1, false);
	CHECK_EQ(errno, 12345);
}

/* Run in a child. => it ended by SIGABRT */
static bool aborts(void (*what)(void))
{
	struct rlimit none = { 0, 0 };
	int status;
	pid_t child = fork();

	if (child == 0) {
		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		close(STDERR_FILENO);
		what();
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static struct lock low = LOCK_INIT(RANK_RECLAIM), high = LOCK_INIT(RANK_STANDBY);

static void rising(void)
{
	lock_acquire(&low);
	lock_acquire(&high);
	lock_release(&high);
	lock_release(&low);
	lock_acquire(&high);
	lock_release(&high);
}

static void falling(void)
{
	lock_acquire(&high);
	lock_acquire(&low);
}

/* Trying takes no part in a circle of waits, so any order will do. */
static void falling_try(void)
{
	lock_acquire(&high);
	if (!lock_try(&low))
		_exit(1);
}

static void ranks(void)
{
	bool debug = false;

#if defined(QUIRE_DEBUG) && QUIRE_DEBUG
	debug = true;
#endif
	CHECK(!aborts(rising));
	CHECK(!aborts(falling_try));
	CHECK_EQ(aborts(falling), debug);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(exclusion),
		UNIT(try),
		UNIT(sleeps_and_wakes),
		UNIT(between_processes),
		UNIT(holder_gone),
		UNIT(forsaken),
		UNIT(not_from_ourselves),
		UNIT(waits),
		UNIT(ranks),
		UNIT_END,
	};

	return unit_main(argc, argv, "lock", tests);
}
