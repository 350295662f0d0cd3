/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/mlock.c - a program that locks all its memory, present and to
 * come (mlockall), before it has a pager or after: what a pager reserves is not
 * filled for that, and what is in memory stays within the budget, whether it is
 * locked or not.
 *
 * Should a reservation be filled after all, it must not take the machine with it.
 * So before memory is locked each test looks how much of it the kernel could fill,
 * a limit (RLIMIT_DATA) keeps that from growing, and the child is the first to go
 * where memory runs out.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 4096 };
#define LENGTH (PAGES * PAGE)
#define BUDGET (2 * MIB)

/* Written in order, so that pages are evicted. => 0, or the line of what is wrong */
static int written_within_budget(quire_t *q, quire_region_t *r)
{
	size_t before, after = 0;

	fill(r, 0, 8, 1);
	before = resident_bytes();
	for (size_t page = 0; page < PAGES; page += 256) {
		for (size_t p = page; p < page + 256; p++)
			if (try_fill_page(page_at(r, p), p, 1).signal)
				return __LINE__;
		after = resident_bytes();
		if (after > before + BUDGET + MIB) /* the records grow a little */
			return __LINE__;
	}
	printf("resident: %zu KiB before, %zu KiB after, of %zu KiB written\n", before >> 10,
	       after >> 10, PAGES * PAGE >> 10);
	if (pager_stats(q).pages_out <= PAGES / 2)
		return __LINE__;
	if (wrong(r, 0, PAGES, 1))
		return __LINE__;
	return resident_bytes() <= before + BUDGET + MIB ? 0 : __LINE__;
}

/* What may be written, and so be filled by the kernel. Stacks of threads are the C library's. */
static size_t writable_bytes(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long from, to;
	size_t bytes = 0;
	char rights[5];

	MUST(f != NULL);
	while (fscanf(f, "%lx-%lx %4s%*[^\n]", &from, &to, rights) == 3)
		if (rights[1] == 'w')
			bytes += to - from;
	fclose(f);
	return bytes;
}

/* At the start of a child. */
static void be_careful(size_t data)
{
	struct rlimit limit = { data, data };
	int fd = open("/proc/self/oom_score_adj", O_WRONLY);

	MUST(fd >= 0 && write(fd, "1000", 4) == 4);
	close(fd);
	MUST(setrlimit(RLIMIT_DATA, &limit) == 0);
}

/* All that is mapped from now on is to be filled at once, but not what we reserve. */
static void all_to_come(void *how)
{
	size_t before;
	quire_region_t *r;
	quire_t *q;
	int line;

	be_careful(2 * GIB);
	MUST(mlockall(*(int *)how) == 0);
	before = resident_bytes();
	q = pager_open(BUDGET);
	r = region_create(q, GIB);
	printf("resident: %zu KiB more with a pager and a region\n",
	       (resident_bytes() - before) >> 10);
	/* With the stacks of threads. */
	MUST(resident_bytes() < before + 64 * MIB);
	MUST(writable_bytes() < before + GIB + 64 * MIB);
	MUST(mapped(r, 0, PAGES) == 0);
	line = written_within_budget(q, r);
	if (line)
		printf("%s:%d\n", __FILE__, line);
	MUST(line == 0);
	MUST(quire_close(q) == 0);
}

static void nothing_is_filled(void)
{
	static int how[] = { MCL_FUTURE, MCL_CURRENT | MCL_FUTURE };

	if (mlockall(MCL_FUTURE) != 0)
		unit_skip_all("mlockall is not permitted here");
	munlockall();
	for (int i = 0; i < 2; i++)
		CHECK_EQ(in_child(all_to_come, &how[i], 5), 0);
}

static size_t in_memory(quire_t *q)
{
	struct quire_stats s = pager_stats(q);

	return s.resident + s.standby + s.buffers;
}

/* A handler counts a fault when it has ended, and the thread may be awake before. */
static bool fills_counted(quire_t *q, size_t n)
{
	for (int i = 0; i < 1000 && pager_stats(q).zero_fills < n; i++)
		usleep(1000);
	return pager_stats(q).zero_fills >= n;
}

/* A pager that has been at work, then all is locked; then it works on. */
static void all_that_is_there(void *arg)
{
	int how = *(int *)arg;
	size_t before, usable;
	quire_region_t *r, *later;
	quire_t *q;

	be_careful(GIB);
	before = resident_bytes();
	usable = writable_bytes();
	q = pager_open(BUDGET);
	r = region_create(q, LENGTH);
	fill(r, 0, PAGES / 2, 1);
	printf("the kernel may fill %zu KiB of the pager's\n",
	       (writable_bytes() - usable - LENGTH) >> 10);
	MUST(writable_bytes() < usable + LENGTH + 64 * MIB);
	MUST(mlockall(how) == 0);
	printf("resident: %zu KiB before, %zu KiB with all locked\n", before >> 10,
	       resident_bytes() >> 10);
	MUST(resident_bytes() < before + BUDGET + 64 * MIB);
	MUST(in_memory(q) <= BUDGET);
	/* Pages that were never touched: as quire.h says. */
	if (!(how & MCL_ONFAULT) && engine_serves_kernel(q))
		MUST(fills_counted(q, PAGES));
	else
		MUST(pager_stats(q).zero_fills < PAGES * 3 / 4);
	MUST(wrong(r, 0, PAGES / 2, 1) == 0);
	before = resident_bytes();
	/* More of the buffers, and another region. */
	later = region_create(q, LENGTH);
	for (unsigned version = 2; version < 4; version++) {
		for (size_t page = 0; page < PAGES; page += 3)
			fill(r, page, 1, version);
		fill(later, 0, PAGES, version);
		MUST(in_memory(q) <= BUDGET);
		MUST(resident_bytes() < before + 16 * MIB);
	}
	for (size_t page = 0; page < PAGES; page += 3)
		MUST(wrong(r, page, 1, 3) == 0);
	MUST(wrong(later, 0, PAGES, 3) == 0);
	MUST(writable_bytes() < usable + 2 * LENGTH + 64 * MIB);
	MUST(quire_close(q) == 0);
}

static void locked_at_work(void)
{
	static int how[] = { MCL_CURRENT, MCL_CURRENT | MCL_FUTURE, MCL_CURRENT | MCL_ONFAULT,
		             MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT };

	for (int i = 0; i < 4; i++)
		CHECK_EQ(in_child(all_that_is_there, &how[i], 15), 0);
}

/* Pages far apart in the longest region: the records between them are reserved, too. */
static void huge_region(void *arg)
{
	size_t before, usable = writable_bytes();
	quire_t *q = pager_open(BUDGET);
	quire_region_t *r = region_create(q, QUIRE_REGION_MAX);

	be_careful(QUIRE_REGION_MAX + GIB);
	store(page_at(r, 5), 1);
	store(page_at(r, QUIRE_REGION_MAX / PAGE - 5), 2);
	MUST(writable_bytes() < usable + QUIRE_REGION_MAX + 192 * MIB);
	before = resident_bytes();
	if (arg) {
		/* It would take a day: whoever waits must see that it can be ended. */
		MUST(write(*(int *)arg, "x", 1) == 1);
		MUST(mlockall(MCL_CURRENT) == 0);
		return;
	}
	MUST(mlockall(MCL_CURRENT) == 0);
	printf("resident: %zu KiB before, %zu KiB with all locked\n", before >> 10,
	       resident_bytes() >> 10);
	MUST(resident_bytes() < before + 192 * MIB);
	MUST(load(page_at(r, 5)) == 1);
	MUST(load(page_at(r, QUIRE_REGION_MAX / PAGE - 5)) == 2);
	MUST(quire_close(q) == 0);
}

static void ended_by_a_signal(void)
{
	double end = seconds_now() + 10;
	int fd[2], status;
	pid_t pid, done;
	char c;

	MUST(pipe(fd) == 0);
	fflush(NULL);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		huge_region(&fd[1]);
		_exit(0);
	}
	close(fd[1]);
	CHECK_EQ(read(fd[0], &c, 1), 1);
	sleep_seconds(0.3);
	CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
	kill(pid, SIGKILL);
	while ((done = waitpid(pid, &status, WNOHANG)) == 0 && seconds_now() < end)
		sleep_seconds(0.01);
	CHECK_EQ(done, pid);
	close(fd[0]);
}

static void longest_region(void)
{
	quire_t *q = pager_open(BUDGET);
	bool serves_kernel = engine_serves_kernel(q);

	CHECK_EQ(quire_close(q), 0);
	if (serves_kernel)
		ended_by_a_signal();
	else if (unit_zeros_take_memory())
		note_skipped("longest_region",
		             "this kernel has no shared page of zeros: records that are "
		             "readable are filled");
	else
		CHECK_EQ(in_child(huge_region, NULL, 20), 0);
}

static void locked_before(void)
{
	quire_t *q;

	if (mlockall(MCL_FUTURE | MCL_ONFAULT) != 0)
		unit_skip_all("mlockall is not permitted here, or the kernel is before Linux 4.4");
	q = pager_open(BUDGET);
	CHECK_EQ(written_within_budget(q, region_create(q, LENGTH)), 0);
	CHECK_EQ(quire_close(q), 0);
	munlockall();
}

/* The buffers and the region are there, and are locked: such pages can only be moved out. */
static void locked_later(void)
{
	const char *move = getenv("QUIRE_MOVE");
	unsigned major = 0, minor = 0;
	struct utsname name;
	quire_region_t *r;
	quire_t *q;

	if (uname(&name) != 0 || sscanf(name.release, "%u.%u", &major, &minor) != 2 ||
	    major * 1000 + minor < 6008 || (move && strcmp(move, "off") == 0)) {
		note_skipped("locked_later", "needs UFFDIO_MOVE (Linux 6.8)");
		return;
	}
	q = pager_open(BUDGET);
	r = region_create(q, LENGTH);
	CHECK_EQ(mlockall(MCL_CURRENT | MCL_ONFAULT), 0);
	CHECK_EQ(written_within_budget(q, r), 0);
	CHECK_EQ(quire_close(q), 0);
	munlockall();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(locked_before),  UNIT(nothing_is_filled), UNIT(locked_later),
		UNIT(locked_at_work), UNIT(longest_region),    UNIT_END,
	};
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };

	/* All that a pager reserves counts, touched or not. */
	if (geteuid() != 0 && setrlimit(RLIMIT_MEMLOCK, &limit) != 0)
		unit_skip_all("needs root, or no limit on locked memory (ulimit -l)");
	catch_install();
	return unit_main(argc, argv, "mlock", tests);
}
