/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/heap_threads.c - a heap that is used by many threads, whose blocks are freed by others; threads and
 * heaps that come and go; and fork in the middle of all that.
 *
 * test: matrix
 */
#include "support.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#define BUDGET (4 * MIB)

static quire_t *q;
static quire_heap_t *h;

static void begin(void)
{
	q = pager_open(BUDGET);
	REQUIRE_EQ(quire_heap_create(q, NULL, &h), 0);
}

static void end(void)
{
	struct quire_heap_info i;

	CHECK_EQ(quire_heap_info(h, &i), 0);
	CHECK_EQ(i.used, 0);
	CHECK_EQ(quire_heap_destroy(h), 0);
	CHECK_EQ(quire_close(q), 0);
}

/* ---------------------------------------------------------- beside another */

enum { SHELF = 2000 };

/* A block's first words are its length and its mark, the rest is that mark. */
static void *_Atomic shelf[SHELF];
static _Atomic bool stop;
static _Atomic size_t bad;

static uint64_t *make(unsigned *seed, bool bigger)
{
	unsigned random = (unsigned)rand_r(seed);
	size_t words = 2 + random % (random % 64 == 0 && bigger ? 40000 : 300);
	uint64_t *p = random % 3 ? quire_heap_malloc(h, words * 8) : quire_heap_calloc(h, words, 8);

	MUST(p != NULL);
	p[0] = words;
	for (size_t i = 1; i < words; i++) {
		MUST(random % 3 || p[i] == 0);
		p[i] = (uintptr_t)p ^ words;
	}
	return p;
}

static void check_and_free(uint64_t *p)
{
	size_t words;

	if (!p)
		return;
	words = p[0];
	for (size_t i = 1; i < words; i++)
		if (p[i] != ((uintptr_t)p ^ words)) {
			atomic_fetch_add(&bad, 1);
			break;
		}
	quire_heap_free(h, p);
}

static void *trade(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!atomic_load(&stop))
		check_and_free(atomic_exchange(&shelf[(unsigned)rand_r(&seed) % SHELF],
		                               make(&seed, true)));
	return NULL;
}

static void empty_shelf(void)
{
	for (unsigned i = 0; i < SHELF; i++)
		check_and_free(atomic_exchange(&shelf[i], NULL));
}

static void start(pthread_t *t, unsigned count)
{
	atomic_store(&stop, false);
	for (uintptr_t i = 0; i < count; i++)
		MUST(pthread_create(&t[i], NULL, trade, (void *)(i + 1 + unit_random() % 1000)) ==
		     0);
}

static void join(pthread_t *t, unsigned count)
{
	atomic_store(&stop, true);
	for (unsigned i = 0; i < count; i++)
		pthread_join(t[i], NULL);
}

static void freed_by_others(void)
{
	pthread_t t[4];

	begin();
	start(t, 4);
	sleep_seconds(quick_or_full(1, 10));
	join(t, 4);
	empty_shelf();
	CHECK_EQ(bad, 0);
	end();
}

/* ------------------------------------------------------------ coming, going */

static void *one_block(void *arg)
{
	unsigned seed = 1;

	(void)arg;
	check_and_free(make(&seed, false));
	return NULL;
}

/* More threads than there can be caches at once: each gives back its own, with what was in it. */
static void threads_come_and_go(void)
{
	struct quire_heap_info before, after;
	unsigned many = (unsigned)quick_or_full(1000, 10000);

	begin();
	for (unsigned i = 0; i < many; i++) {
		pthread_t t;

		if (i == many / 2)
			CHECK_EQ(quire_heap_info(h, &before), 0);
		MUST(pthread_create(&t, NULL, one_block, NULL) == 0);
		pthread_join(t, NULL);
	}
	CHECK_EQ(quire_heap_info(h, &after), 0);
	CHECK_EQ(after.used, 0);
	CHECK_EQ(after.metadata, before.metadata);
	CHECK_EQ(after.extent, before.extent);
	end();
}

static pthread_key_t late;

static void use_late(void *arg)
{
	quire_heap_free(h, arg);
	quire_heap_free(h, quire_heap_malloc(h, 100));
}

static void *leave_something(void *arg)
{
	pthread_setspecific(late, quire_heap_malloc(h, 50));
	return arg;
}

/* A destructor of the program's that uses the heap, before ours or after it. */
static void used_by_destructors(void)
{
	begin();
	REQUIRE_EQ(pthread_key_create(&late, use_late), 0);
	for (unsigned i = 0; i < 20; i++) {
		pthread_t t;

		MUST(pthread_create(&t, NULL, leave_something, NULL) == 0);
		pthread_join(t, NULL);
	}
	pthread_key_delete(late);
	end();
}

/* Destroyed with what is in them. A thread has used them all, some of it is in its caches. */
static void heaps_come_and_go(void)
{
	unsigned rounds = (unsigned)quick_or_full(80, 3000), maps = 0;
	uint64_t metadata = 0;
	quire_heap_t *list[9];

	q = pager_open(BUDGET);
	for (unsigned i = 0; i < rounds; i++) {
		struct quire_heap_options o = { .size = sizeof o,
			                        .length = 32 * MIB,
			                        .trace = i % 2 };

		for (unsigned k = 0; k < 9; k++) {
			char *p;

			CHECK_EQ(quire_heap_create(q, &o, &list[k]), 0);
			p = quire_heap_malloc(list[k], 100);
			REQUIRE(p != NULL && quire_heap_malloc(list[k], 200 * KIB) != NULL);
			strcpy(p, "something");
			quire_heap_free(list[k], quire_heap_malloc(list[k], 100));
			CHECK_EQ(strcmp(p, "something"), 0);
		}
		for (unsigned k = 0; k < 9; k++)
			CHECK_EQ(quire_heap_destroy(list[(k + i) % 9]), 0);
		if (i == rounds / 2) {
			maps = mappings();
			metadata = pager_stats(q).metadata;
		}
	}
	CHECK_EQ(pager_stats(q).resident + pager_stats(q).swapped, 0);
	CHECK(mappings() <= maps + 8);
	CHECK(pager_stats(q).metadata <= metadata);
	CHECK_EQ(quire_close(q), 0);
}

/* ------------------------------------------------------------------- fork */

static void go_on(void *arg)
{
	pthread_t t[2];

	(void)arg;
	/* (Sanitizers' allocators do not look after their locks at a fork, and threads that begin allocate.) */
	if (!SANITIZED) {
		start(t, 2);
		sleep_seconds(0.02);
		join(t, 2);
	}
	empty_shelf();
	MUST(bad == 0);
	MUST(quire_heap_destroy(h) == 0);
	MUST(quire_close(q) == 0);
}

/*
 * While threads are anywhere in it. In the child the blocks are those of the instant of the fork; what its
 * parent's other threads had taken and not yet put on the shelf is lost to it.
 */
static void forked_in_the_middle(void)
{
	unsigned rounds = (unsigned)quick_or_full(10, 300);
	pthread_t t[3];

	begin();
	start(t, 3);
	for (unsigned i = 0; i < rounds; i++) {
		CHECK_EQ(in_child(go_on, NULL, 30), 0);
		sched_yield();
	}
	join(t, 3);
	empty_shelf();
	CHECK_EQ(bad, 0);
	end();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(freed_by_others),   UNIT(threads_come_and_go),  UNIT(used_by_destructors),
		UNIT(heaps_come_and_go), UNIT(forked_in_the_middle), UNIT_END
	};

	return unit_main(argc, argv, "heap_threads", tests);
}
