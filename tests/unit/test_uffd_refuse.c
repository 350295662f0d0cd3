/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_uffd_refuse.c - accesses that are refused (vm/refusals.c), also on a
 * kernel without UFFDIO_POISON (vm/uffd_refuse.c).
 */
#include "tests/unit/uffd_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define LOST 300u /* page */

static void *blocked_thread(void *arg)
{
	sigset_t bus;

	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &bus, NULL);
	do_access(arg);
	return NULL;
}

static void is_refused(uint64_t page, unsigned word, bool write)
{
	struct access a = { .word = at(page, word), .write = write };
	uintptr_t here = (uintptr_t)at(page, word);

	do_access(&a);
	CHECK_EQ(a.signal, SIGBUS);
	/* Before Linux 5.18 a message tells the page only. */
	if (!(q->engine.uffd.features & UFFD_FEATURE_EXACT_ADDRESS))
		here &= ~(uintptr_t)(PAGE_BYTES - 1);
	CHECK_EQ((uintptr_t)a.address, here);
}

/* Change a byte of the page's slot, and back. */
static void flip(uint64_t page)
{
	off_t where = (off_t)entry_payload(atomic_load(region_entry(r, page))) * (off_t)PAGE_BYTES;
	unsigned char byte;

	REQUIRE_EQ(pread(file, &byte, 1, where + 77), 1);
	byte ^= 1;
	REQUIRE_EQ(pwrite(file, &byte, 1, where + 77), 1);
	REQUIRE_EQ(fsync(file), 0);
}

/* The cause is gone. Refusals stand for a while: at last the access works. => what was read */
static uint64_t served_again(uint64_t page, unsigned word)
{
	struct access a = { .signal = 1 };

	for (int i = 0; i < 40 && a.signal; i++) {
		nap(i ? 50 : 0);
		a = (struct access){ .word = at(page, word) };
		do_access(&a);
	}
	CHECK_EQ(a.signal, 0);
	return a.value;
}

static void start_without_poison(size_t swap_size)
{
	uffd_start_as("uffd", (struct uffd_how){ .swap_size = swap_size, .no_poison = true });
}

static void lose(uint64_t page)
{
	await_slot(page);
	flip(page);
}

static void lost_page(void)
{
	struct access a;
	pthread_t thread;

	start_without_poison(0);
	uffd_fill();
	lose(LOST);
	for (unsigned i = 0; i < 3; i++) {
		is_refused(LOST, 5 + 100 * i, false);
		is_refused(LOST, 6 + 100 * i, true);
	}
	CHECK(told[QUIRE_ERROR_CHECKSUM] > 0);
	/* The thread that touched it, and no other. */
	a = (struct access){ .word = at(LOST, 40) };
	REQUIRE_EQ(pthread_create(&thread, NULL, access_thread, &a), 0);
	pthread_join(thread, NULL);
	CHECK_EQ(a.signal, SIGBUS);
	CHECK(a.address == (void *)at(LOST, 40) || a.address == (void *)region_page(r, LOST));
	CHECK_EQ(*at(LOST - 1, 5), (LOST - 1) * WORDS + 6);
	CHECK_EQ(*at(LOST + 1, 5), (LOST + 1) * WORDS + 6);
	/* The cause is gone: the page is there. */
	flip(LOST);
	CHECK_EQ(served_again(LOST, 5), LOST * WORDS + 6);
	uffd_check_all();
	/* Discarded while it is refused. */
	lose(LOST);
	is_refused(LOST, 0, false);
	CHECK_EQ(quire_advise(r, LOST * PAGE_BYTES, PAGE_BYTES, QUIRE_ADVISE_DONTNEED), 0);
	CHECK_EQ(*at(LOST, 0), 0);
	uffd_finish();
}

/* Whichever handler refused it, and whoever of them sleeps: nothing else wakes them meanwhile. */
static void refusals_end_alone(void)
{
	uffd_start("uffd");
	if (!q->engine.uffd.poison) {
		printf("left out: this kernel does not poison pages\n");
		uffd_finish();
		return;
	}
	uffd_fill();
	for (unsigned i = 0; i < 24; i++) {
		lose(LOST);
		/* A stream of faults keeps them awake for a while. */
		for (unsigned k = 0; k < 20; k++)
			(void)*at((LOST + 16 + i * 41 + k * 7) % LOST, 0);
		nap(i % 3 == 2 ? 1 : 0);
		is_refused(LOST, 3, false);
		flip(LOST);
		CHECK_EQ(served_again(LOST, 3), LOST * WORDS + 4);
	}
	uffd_finish();
}

/* The kernel's mappings that the region consists of. */
static unsigned mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long from, to;
	unsigned n = 0;
	char line[4200];

	REQUIRE(maps != NULL);
	while (fgets(line, sizeof line, maps))
		n += sscanf(line, "%lx-%lx", &from, &to) == 2 &&
		     from < (uintptr_t)r->base + r->bytes && to > (uintptr_t)r->base;
	fclose(maps);
	return n;
}

/* System calls fail with EFAULT, and the thread gets no signal. */
static void lost_page_in_calls(void)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC), pipes[2];
	struct access a = { .write = true };
	unsigned before;
	void *page;

	REQUIRE(zero >= 0 && pipe(pipes) == 0);
	start_without_poison(0);
	uffd_fill();
	lose(LOST);
	page = region_page(r, LOST);
	a.word = at(LOST, 5);
	before = mappings();
	REQUIRE(before > 0);
	for (int i = 0; i < 3; i++) {
		errno = 0;
		CHECK_EQ(read(zero, page, 100), -1);
		CHECK_EQ(errno, EFAULT);
		errno = 0;
		CHECK_EQ(write(pipes[1], page, 100), -1);
		CHECK_EQ(errno, EFAULT);
		is_refused(LOST, 3, i & 1);
	}
	/* As much as can be had, as of any bad address. */
	CHECK_EQ(read(zero, (char *)page - 100, 200), 100);
	/* The mapping is one, and the page is as protected as it was. */
	nap(20);
	CHECK_EQ(mappings(), before);
	REQUIRE_EQ(quire_protect(r, LOST * PAGE_BYTES, PAGE_BYTES, PROT_READ), 0);
	CHECK_EQ(write(pipes[1], page, 100), -1);
	flip(LOST);
	CHECK_EQ(served_again(LOST, 5), LOST * WORDS + 6);
	do_access(&a);
	CHECK_EQ(a.signal, SIGSEGV);
	REQUIRE_EQ(quire_protect(r, LOST * PAGE_BYTES, PAGE_BYTES, PROT_READ | PROT_WRITE), 0);
	CHECK_EQ(write(pipes[1], page, 100), 100);
	CHECK_EQ(read(zero, page, 8), 8);
	CHECK_EQ(*at(LOST, 0), 0);
	close(zero);
	close(pipes[0]);
	close(pipes[1]);
	uffd_finish();
}

static void on_alarm(int signal)
{
	(void)signal;
}

/* A signal is pending while the call faults: it is refused all the same. */
static void lost_page_in_interrupted_call(void)
{
	struct sigaction alarmed = { .sa_handler = on_alarm };
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	timer_t timer;
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	struct itimerspec often = { { 0, 50000 }, { 0, 50000 } };

	REQUIRE(zero >= 0);
	start_without_poison(0);
	uffd_fill();
	lose(LOST);
	sigaction(SIGALRM, &alarmed, NULL);
	REQUIRE_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	REQUIRE_EQ(timer_settime(timer, 0, &often, NULL), 0);
	for (int i = 0; i < 20; i++) {
		errno = 0;
		CHECK_EQ(read(zero, region_page(r, LOST), 100), -1);
		CHECK_EQ(errno, EFAULT);
	}
	timer_delete(timer);
	close(zero);
	uffd_finish();
}

/* A thread that blocks the signal cannot be told: it waits, in no busy loop, until the page is there. */
static void lost_page_blocked_signal(void)
{
	struct access a;
	pthread_t thread;
	double cpu;

	start_without_poison(0);
	uffd_fill();
	lose(LOST);
	a = (struct access){ .word = at(LOST, 8) };
	cpu = cpu_seconds();
	REQUIRE_EQ(pthread_create(&thread, NULL, blocked_thread, &a), 0);
	nap(500);
	CHECK(!atomic_load(&a.ended));
	CHECK(cpu_seconds() - cpu < 0.2);
	flip(LOST);
	pthread_join(thread, NULL);
	CHECK_EQ(a.signal, 0);
	CHECK_EQ(a.value, LOST * WORDS + 9);
	uffd_finish();
}

static void no_memory(void)
{
	struct access a = { .write = true };
	uint64_t page, stored = 0;

	start_without_poison(128 * PAGE_BYTES);
	for (page = 0; page < PAGES; page++) {
		a = (struct access){ .word = at(page, 1), .write = true, .value = page + 1 };
		do_access(&a);
		if (a.signal)
			break;
		stored = page + 1;
	}
	REQUIRE(stored < PAGES && stored > 64);
	CHECK_EQ(a.signal, SIGBUS);
	CHECK((uintptr_t)a.address >> PAGE_SHIFT == (uintptr_t)a.word >> PAGE_SHIFT);
	CHECK(told[QUIRE_ERROR_NO_MEMORY] > 0);
	/* There is room again. */
	CHECK_EQ(quire_advise(r, 0, 64 * PAGE_BYTES, QUIRE_ADVISE_DONTNEED), 0);
	do_access(&a);
	a = (struct access){ .word = a.word, .write = true, .value = 5 };
	do_access(&a);
	CHECK_EQ(a.signal, 0);
	CHECK_EQ(*at(stored, 1), 5);
	for (page = 64; page < stored; page++)
		CHECK_EQ(*at(page, 1), page + 1);
	uffd_finish();
}

/* Many threads at many lost pages, more than are remembered as refused. */
static struct access many[100];

static void many_lost_pages(void)
{
	pthread_t thread[100];

	start_without_poison(0);
	uffd_fill();
	await_slot(250);
	for (unsigned i = 0; i < 100; i++) {
		REQUIRE_EQ(entry_state(atomic_load(region_entry(r, 200 + i))), ENTRY_SLOT);
		flip(200 + i);
	}
	for (unsigned i = 0; i < 100; i++) {
		many[i] = (struct access){ .word = at(200 + i, 3) };
		REQUIRE_EQ(pthread_create(&thread[i], NULL, access_thread, &many[i]), 0);
	}
	for (unsigned i = 0; i < 100; i++) {
		pthread_join(thread[i], NULL);
		CHECK_EQ(many[i].signal, SIGBUS);
	}
	/* None is forgotten. */
	for (unsigned i = 0; i < 100; i++)
		flip(200 + i);
	for (unsigned i = 0; i < 100; i++)
		CHECK_EQ(served_again(200 + i, 3), (200 + i) * WORDS + 4);
	uffd_check_all();
	uffd_finish();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(lost_page),
		UNIT(refusals_end_alone),
		UNIT(lost_page_in_calls),
		UNIT(lost_page_in_interrupted_call),
		UNIT(lost_page_blocked_signal),
		UNIT(no_memory),
		UNIT(many_lost_pages),
		UNIT_END,
	};

	return uffd_main(argc, argv, "uffd_refuse", tests);
}
