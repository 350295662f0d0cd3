/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_uffd.c - the userfaultfd engines on this kernel, in situations that
 * their users cannot bring about: every read queue taken, a file system or another
 * thread that is slow, for longer than the patience for memory. Taking pages:
 * test_uffd_take.c; refusing accesses: test_uffd_refuse.c.
 */
#include "tests/unit/uffd_fixture.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOST 300u /* page */

/* How long the swap file takes to grow. */
static _Atomic long grow_ms;

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	nap(atomic_load(&grow_ms));
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

/* No queue for a second: an access waits, is not refused, and costs nothing meanwhile. */
static void waits_for_a_queue(void)
{
	struct access a[8];
	pthread_t thread[8];
	double cpu;

	uffd_start("uffd");
	uffd_fill();
	for (unsigned i = 0; i < 8; i++) {
		await_slot(LOST + i * 16);
		a[i] = (struct access){ .word = at(LOST + i * 16, 9) };
	}
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		while (!lock_try(&q->pager.reads[i].lock))
			nap(1);
	cpu = cpu_seconds();
	for (unsigned i = 0; i < 8; i++)
		REQUIRE_EQ(pthread_create(&thread[i], NULL, access_thread, &a[i]), 0);
	nap(900);
	cpu = cpu_seconds() - cpu;
	CHECK(cpu < 0.3);
	if (cpu >= 0.3)
		printf("%.2f s of CPU while it waited\n", cpu);
	for (unsigned i = 0; i < 8; i++)
		CHECK(!atomic_load(&a[i].ended));
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		lock_release(&q->pager.reads[i].lock);
	for (unsigned i = 0; i < 8; i++) {
		pthread_join(thread[i], NULL);
		CHECK_EQ(a[i].signal, 0);
		CHECK_EQ(a[i].value, (LOST + i * 16) * WORDS + 10);
	}
	CHECK_EQ(told[QUIRE_ERROR_NO_MEMORY], 0);
	uffd_check_all();
	uffd_finish();
}

/* The swap file is to grow before the first page can be written, and the file system lets that wait. */
static void waits_for_room(const char *engine)
{
	struct access a = { .write = true, .value = 7 };

	uffd_start(engine);
	atomic_store(&grow_ms, 1200);
	for (uint64_t page = 0; page < 2 * BUDGET && a.signal == 0; page++) {
		a.word = at(page, 1);
		do_access(&a);
	}
	atomic_store(&grow_ms, 0);
	CHECK_EQ(a.signal, 0);
	CHECK_EQ(told[QUIRE_ERROR_NO_MEMORY], 0);
	for (uint64_t page = 0; page < 2 * BUDGET && a.signal == 0; page++)
		CHECK_EQ(*at(page, 1), 7);
	uffd_finish();
}

static void waits_for_room_uffd(void)
{
	waits_for_room("uffd");
}

static void waits_for_room_signal(void)
{
	waits_for_room("uffd-signal");
}

static void *destroy(void *region)
{
	return quire_region_destroy(region) == 0 ? region : NULL;
}

/* As entry_publish does, without the region: it may be gone at once. */
static void *publish_late(void *entry)
{
	nap(1200);
	atomic_store((entry_t *)entry, ENTRY_EMPTY);
	futex_wake(entry_futex(entry), INT32_MAX, false);
	return NULL;
}

/* Another region holds all memory, and the thread that gives it up is slow: it waits for an entry. */
static void waits_for_a_destroyer(const char *engine)
{
	struct access a = { .write = true, .value = 7 };
	struct quire_region *other;
	pthread_t thread, publisher;
	uint32_t taken = 0;
	void *destroyed;

	uffd_start(engine);
	REQUIRE_EQ(quire_region_create(q, (BUDGET + 1) * PAGE_BYTES, NULL, &other), 0);
	CHECK_EQ(quire_advise(other, 0, PAGE_BYTES, QUIRE_ADVISE_RANDOM), 0);
	for (uint64_t page = 0; page < BUDGET; page++)
		*(volatile char *)region_page(other, page) = 1;
	CHECK_EQ(entry_hold(other, BUDGET), ENTRY_EMPTY);
	REQUIRE_EQ(pthread_create(&thread, NULL, destroy, other), 0);
	REQUIRE_EQ(pthread_create(&publisher, NULL, publish_late, region_entry(other, BUDGET)), 0);
	while (atomic_load(&other->alive) != REGION_GONE)
		nap(1);
	nap(20);
	/* Not even the little that is always free: with it this region could evict pages of its own. */
	while (credits_try(&q->pager, 1))
		taken++;
	a.word = at(0, 1);
	do_access(&a);
	credits_put(&q->pager, taken);
	pthread_join(publisher, NULL);
	pthread_join(thread, &destroyed);
	CHECK(destroyed != NULL);
	CHECK_EQ(a.signal, 0);
	CHECK_EQ(told[QUIRE_ERROR_NO_MEMORY], 0);
	uffd_finish();
}

static void waits_for_a_destroyer_uffd(void)
{
	waits_for_a_destroyer("uffd");
}

static void waits_for_a_destroyer_signal(void)
{
	waits_for_a_destroyer("uffd-signal");
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(waits_for_a_queue),
		UNIT(waits_for_room_uffd),
		UNIT(waits_for_room_signal),
		UNIT(waits_for_a_destroyer_uffd),
		UNIT(waits_for_a_destroyer_signal),
		UNIT_END,
	};

	return uffd_main(argc, argv, "uffd", tests);
}
