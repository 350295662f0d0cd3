/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_move.c - UFFDIO_MOVE on this kernel, and on one that forgets
 * what it has moved (see vm/uffd_move.c): the ioctl of this program moves a
 * part of what it is asked for and then answers that the target is taken.
 */
#include "base/kernel.h"
#include "tests/unit/unit.h"
#include "vm/uffd.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGES 512u
#define BUDGET 64u
#define WORDS (PAGE_BYTES / sizeof(uint64_t))

static quire_t *q;
static struct quire_region *r;

/* Each so many-th call moves up to so many pages, and tells nothing of it. 0: none does. */
static _Atomic unsigned forget_every, forget_pages;
static _Atomic unsigned calls, forgotten;
/* After a call that forgot, one is refused for this reason. */
static _Atomic int refuse_next;

static int move_and_forget(int fd, struct uffdio_move *m)
{
	struct uffdio_move part = *m;

	part.len = MIN(m->len, (uint64_t)forget_pages << PAGE_SHIFT);
	part.move = 0;
	if (syscall(SYS_ioctl, fd, UFFDIO_MOVE, &part) != 0) {
		m->move = part.move;
		return -1;
	}
	atomic_fetch_add(&forgotten, 1);
	m->move = -EEXIST;
	errno = EEXIST;
	return -1;
}

/* The library's calls come here, too. */
int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *arg;

	va_start(list, request);
	arg = va_arg(list, void *);
	va_end(list);
	if (request == UFFDIO_MOVE && refuse_next && forgotten) {
		errno = refuse_next;
		refuse_next = 0;
		return -1;
	}
	if (request == UFFDIO_MOVE && forget_every &&
	    atomic_fetch_add(&calls, 1) % forget_every == forget_every - 1)
		return move_and_forget(fd, arg);
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

static void start(const char *engine)
{
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET * PAGE_BYTES,
		                   .engine = engine };

	forget_every = 0;
	atomic_store(&forgotten, 0);
	if (quire_open(&q, &o) != 0)
		unit_skip_all(quire_error_message());
	if (!(q->engine.uffd.features & UFFD_FEATURE_MOVE))
		unit_skip_all("needs UFFDIO_MOVE (Linux 6.8)");
	REQUIRE_EQ(quire_region_create(q, PAGES * PAGE_BYTES, NULL, &r), 0);
}

static void finish(void)
{
	forget_every = 0;
	CHECK_EQ(quire_close(q), 0);
}

static volatile uint64_t *at(uint64_t page)
{
	return (volatile uint64_t *)(void *)region_page(r, page);
}

static bool is_present(const void *page)
{
	unsigned char in_core;

	REQUIRE_EQ(mincore((void *)(uintptr_t)page, PAGE_BYTES, &in_core), 0);
	return in_core & 1;
}

/* Eight pages with something in them, and a cluster without memory. => its buffers */
static char *begin(uint32_t *c)
{
	start("uffd");
	*c = cluster_get(&q->pager, 0);
	for (unsigned i = 0; i < 8; i++)
		*at(i) = 100 + i;
	return buffer_address(&q->pager, *c * CLUSTER_PAGES);
}

/* The buffers as the pager left them. */
static void end(char *buffer, uint32_t c)
{
	REQUIRE_EQ(kernel_drop(buffer, CLUSTER_PAGES * PAGE_BYTES), 0);
	cluster_put(&q->pager, c);
	finish();
}

/* Eight pages from the start of the region to the buffers of a cluster and back, behind the pager's back. */
static void tells_what_it_moved(void)
{
	uint32_t c;
	char *buffer = begin(&c), *page = region_page(r, 0);
	int error;

	for (forget_pages = 1; forget_pages <= 8; forget_pages++) {
		for (forget_every = 0; forget_every < 4; forget_every++) {
			CHECK_EQ(uffd_move_out(&q->engine, buffer, page, 8, &error), 8);
			CHECK_EQ(error, 0);
			for (unsigned i = 0; i < 8; i++) {
				CHECK(!is_present(page + i * PAGE_BYTES));
				CHECK_EQ(*(uint64_t *)(void *)(buffer + i * PAGE_BYTES), 100 + i);
			}
			for (unsigned i = 0; i < 8; i++)
				CHECK_EQ(uffd_place(&q->engine, page + i * PAGE_BYTES,
				                    buffer + i * PAGE_BYTES),
				         0);
			for (unsigned i = 0; i < 8; i++) {
				CHECK(is_present(page + i * PAGE_BYTES));
				CHECK_EQ(*at(i), 100 + i);
			}
		}
	}
	CHECK(forgotten > 0);
	forget_every = 0;
	/* A page that is not there; a target that is poisoned, or taken by something else. */
	uffd_drop(&q->engine, NULL, page + 3 * PAGE_BYTES, 1);
	CHECK_EQ(uffd_move_out(&q->engine, buffer, page, 8, &error), 3);
	CHECK_EQ(error, ENOENT);
	if (q->engine.uffd.poison) {
		REQUIRE_EQ(uffd_poison(&q->engine, page + 3 * PAGE_BYTES), 0);
		CHECK_EQ(uffd_place(&q->engine, page + 3 * PAGE_BYTES, buffer), -EEXIST);
		uffd_drop(&q->engine, NULL, page + 3 * PAGE_BYTES, 1);
	}
	CHECK_EQ(uffd_move_out(&q->engine, buffer + PAGE_BYTES, page + 4 * PAGE_BYTES, 4, &error),
	         0);
	CHECK_EQ(error, EEXIST);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(*(uint64_t *)(void *)(buffer + i * PAGE_BYTES), 100 + i);
	for (unsigned i = 4; i < 8; i++)
		CHECK_EQ(*at(i), 100 + i);
	end(buffer, c);
}

static uint64_t word(unsigned round, uint64_t page, unsigned i)
{
	return (round << 24 | page << 9 | i) * UINT64_C(0x9e3779b97f4a7c15);
}

/* Every page is moved out many times, dirty and clean, and some back in: none may be forgotten. */
static void forgetful(const char *engine)
{
	start(engine);
	for (unsigned round = 0; round < 24; round++) {
		forget_every = 1 + round % 3;
		forget_pages = 1 + round * 5 % 64;
		for (uint64_t page = 0; page < PAGES; page++)
			for (unsigned i = 0; i < WORDS; i++)
				at(page)[i] = word(round, page, i);
		for (unsigned pass = 0; pass < 3; pass++)
			for (uint64_t k = 0; k < PAGES; k++) {
				uint64_t page = pass == 2 ? k * 211 % PAGES : k;
				unsigned wrong = 0;

				for (unsigned i = 0; i < WORDS; i++)
					wrong += at(page)[i] != word(round, page, i);
				CHECK_EQ(wrong, 0);
			}
	}
	CHECK(forgotten > 100);
	finish();
}

static void forgetful_uffd(void)
{
	forgetful("uffd");
}

static void forgetful_signal(void)
{
	forgetful("uffd-signal");
}

/* What stops the next call may be anything: the pages of the one before are at their targets all the same. */
static void forgotten_then_refused(void)
{
	uint32_t c;
	char *buffer = begin(&c), *page = region_page(r, 0);
	int error;

	forget_every = 1;
	forget_pages = 5;
	refuse_next = EINVAL;
	CHECK_EQ(uffd_move_out(&q->engine, buffer, page, 8, &error), 8);
	CHECK_EQ(refuse_next, 0);
	for (unsigned i = 0; i < 8; i++)
		CHECK_EQ(*(uint64_t *)(void *)(buffer + i * PAGE_BYTES), 100 + i);
	end(buffer, c);
}

/* ------------------------------------------------- beside the kernel's swap */

static bool swap_out(char *page)
{
	int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	off_t offset = (off_t)((uintptr_t)page / PAGE_BYTES * sizeof(uint64_t));
	struct timespec nap = { .tv_nsec = 10000000 };
	uint64_t entry = 0;

	for (int i = 0; i < 100 && !(entry & UINT64_C(1) << 62); i++) {
		kernel_madvise(page, PAGE_BYTES, MADV_PAGEOUT);
		if (pread(file, &entry, sizeof entry, offset) != (ssize_t)sizeof entry)
			break;
		nanosleep(&nap, NULL);
	}
	close(file);
	return entry & UINT64_C(1) << 62;
}

/* => 0: right, 1: wrong, 2: the kernel does not swap it out */
static int swapped_page(void)
{
	char *page, *buffer;
	int error, right;
	uint32_t c;

	alarm(20);
	start("uffd");
	c = cluster_get(&q->pager, 0);
	buffer = buffer_address(&q->pager, c * CLUSTER_PAGES);
	page = region_page(r, 0);
	*at(0) = 77;
	uffd_protection(&q->engine, page, 1, true);
	if (!swap_out(page))
		return 2;
	right = uffd_move_out(&q->engine, buffer, page, 1, &error) == 1;
	right &= *(uint64_t *)(void *)buffer == 77;
	/* A buffer is anybody's to write to. */
	*(volatile uint64_t *)(void *)buffer = 78;
	return !right;
}

static void kernel_swap(void)
{
	char file[64], command[400];
	int status;
	pid_t child;

	snprintf(file, sizeof file, "/var/tmp/quire-test-swap-%d", (int)getpid());
	snprintf(command, sizeof command,
	         "umask 077; { dd if=/dev/zero of=%s bs=1M count=16 && mkswap %s && swapon %s; } "
	         ">/dev/null 2>&1",
	         file, file, file);
	if (system(command) != 0) {
		unlink(file);
		printf("left out: kernel_swap: swapon(8) is not permitted or not there\n");
		return;
	}
	child = fork();
	if (child == 0)
		_exit(swapped_page());
	waitpid(child, &status, 0);
	snprintf(command, sizeof command, "swapoff %s", file);
	CHECK_EQ(system(command), 0);
	unlink(file);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 2)
		printf("left out: kernel_swap: the kernel swapped nothing out\n");
	else
		CHECK_EQ(status, 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(tells_what_it_moved),    UNIT(forgetful_uffd), UNIT(forgetful_signal),
		UNIT(forgotten_then_refused), UNIT(kernel_swap),    UNIT_END,
	};

	if (unit_valgrind())
		unit_skip_all(
			"valgrind runs one thread at a time: none would serve another's fault");
	return unit_main(argc, argv, "move", tests);
}
