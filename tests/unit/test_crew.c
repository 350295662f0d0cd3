/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_crew.c - the handler threads of the engine `uffd` together
 * (vm/uffd_thread.c), on this kernel: one serves while another is held up, all
 * serve many threads at once, and all sleep when there is nothing to do.
 */
#include "base/cpu.h"
#include "base/kernel.h"
#include "tests/unit/unit.h"
#include "vm/uffd.h"
#include "vm/vm.h"

#include <pthread.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGES 4096u
#define WORDS (PAGE_BYTES / sizeof(uint64_t))

static quire_t *q;
static struct quire_region *r;

static void nap(long ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

static void start(const char *spin, size_t budget)
{
	struct quire_options o = { .size = sizeof o,
		                   .memory = budget * PAGE_BYTES,
		                   .engine = "uffd",
		                   .spin = spin };

	if (cpu_count() < 2)
		unit_skip_all("one CPU has one handler");
	if (quire_open(&q, &o) != 0)
		unit_skip_all(quire_error_message());
	REQUIRE_EQ(quire_region_create(q, PAGES * PAGE_BYTES, NULL, &r), 0);
	REQUIRE_EQ(quire_advise(r, 0, PAGES * PAGE_BYTES, QUIRE_ADVISE_RANDOM), 0);
}

static void finish(void)
{
	CHECK_EQ(quire_close(q), 0);
}

static volatile uint64_t *at(uint64_t page)
{
	return (volatile uint64_t *)(void *)region_page(r, page);
}

/* The handler whose UFFDIO_COPY is on this page is held up: for the nth time until n were let go. */
static _Atomic uintptr_t hold_page;
static _Atomic unsigned held, let_go;

int ioctl(int fd, unsigned long request, ...)
{
	struct uffdio_copy *copy;
	uintptr_t page = 0;
	va_list list;
	void *arg;
	int result;

	va_start(list, request);
	arg = va_arg(list, void *);
	va_end(list);
	if (request == UFFDIO_COPY) {
		copy = arg;
		page = copy->dst;
	}
	if (page && page == atomic_load(&hold_page)) {
		unsigned time;

		atomic_store(&hold_page, 0);
		time = atomic_fetch_add(&held, 1) + 1;
		while (atomic_load(&let_go) < time)
			sched_yield();
	}
	result = (int)syscall(SYS_ioctl, fd, request, arg);
	return result;
}

static void hold(uint64_t page)
{
	atomic_store(&hold_page, (uintptr_t)region_page(r, page));
}

/* => false: not within a second; another handler was awake and served the page */
static bool await_held(unsigned times)
{
	uint64_t until = now_ns() + UINT64_C(1000000000);

	while (atomic_load(&held) < times && now_ns() < until)
		sched_yield();
	return atomic_load(&held) >= times;
}

struct touch {
	uint64_t page;
	unsigned after; /* a handler is held up for the nth time */
	_Atomic bool ended;
	pthread_t thread;
};

static void *touch_main(void *argument)
{
	struct touch *t = argument;

	await_held(t->after);
	*at(t->page) = t->page;
	atomic_store(&t->ended, true);
	return NULL;
}

static void touch(struct touch *t, uint64_t page, unsigned after)
{
	*t = (struct touch){ .page = page, .after = after };
	REQUIRE_EQ(pthread_create(&t->thread, NULL, touch_main, t), 0);
}

/* => true: a page was served while the handler of another was held up */
static bool helped(uint64_t first)
{
	struct touch t[4];
	bool served = false;

	atomic_store(&held, 0);
	atomic_store(&let_go, 0);
	nap(30); /* all sleep */
	/* While one handler is held up, two more faults come: it will find both at once. */
	hold(first);
	touch(&t[0], first, 0);
	CHECK(await_held(1));
	touch(&t[1], first + 2, 0);
	touch(&t[2], first + 3, 0);
	nap(20);
	hold(first + 2);
	/* As soon as it is held up again, having called another handler. */
	touch(&t[3], first + 4, 2);
	atomic_store(&let_go, 1);
	for (int i = 0; await_held(2) && i < 200 && !served; i++) {
		nap(1);
		served = atomic_load(&t[3].ended);
	}
	atomic_store(&hold_page, 0);
	atomic_store(&let_go, 2);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i].thread, NULL);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(*at(t[i].page), t[i].page);
	return served;
}

/* The one that is called stays for 10 ms: on a busy machine that may be over too soon. */
static void one_is_held_up(void)
{
	int times = 0;

	start("10000", 1024);
	for (uint64_t i = 0; i < 20 && !times; i++)
		times += helped(16 * i);
	CHECK(times > 0);
	finish();
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void all_sleep(void)
{
	double cpu;

	start("auto", 1024);
	/* One fault after the other: they stay awake for it. */
	for (uint64_t page = 0; page < PAGES / 8; page++)
		*at(page * 8) = page;
	nap(20);
	cpu = cpu_seconds();
	nap(1000);
	cpu = cpu_seconds() - cpu;
	CHECK(cpu < 0.01);
	finish();
}

#define CROWD 12u
#define ROUNDS 2u

static void *crowd_main(void *argument)
{
	uint64_t number = *(uint64_t *)argument;

	for (unsigned round = 0; round < ROUNDS; round++)
		for (uint64_t i = 0; i < PAGES; i++) {
			uint64_t page = (i * 1021 + number * 257) % PAGES;

			/* A word of its own in each page: no other thread's is lost by mine. */
			REQUIRE_EQ(at(page)[number], round);
			at(page)[number] = round + 1;
		}
	return NULL;
}

static void a_crowd(void)
{
	pthread_t thread[CROWD];
	uint64_t number[CROWD];

	start("auto", 512);
	for (unsigned i = 0; i < CROWD; i++) {
		number[i] = i;
		REQUIRE_EQ(pthread_create(&thread[i], NULL, crowd_main, &number[i]), 0);
	}
	for (unsigned i = 0; i < CROWD; i++)
		pthread_join(thread[i], NULL);
	for (uint64_t page = 0; page < PAGES; page++)
		for (unsigned i = 0; i < CROWD; i++)
			CHECK_EQ(at(page)[i], ROUNDS);
	finish();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(one_is_held_up),
		UNIT(all_sleep),
		UNIT(a_crowd),
		UNIT_END,
	};

	if (unit_valgrind())
		unit_skip_all(
			"valgrind runs one thread at a time: none would serve another's fault");
	return unit_main(argc, argv, "crew", tests);
}
