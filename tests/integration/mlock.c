/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/mlock.c - a program that has locked all its memory, present
 * and to come (mlockall): what a pager reserves is not filled for that, and what
 * is in memory stays within the budget, whether it is locked or not.
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

/* All that is mapped from now on is to be filled at once, but not what we reserve. */
static void all_to_come(void *unused)
{
	size_t before;
	quire_region_t *r;
	quire_t *q;
	int fd, line;

	(void)unused;
	/* If the kernel does fill it, let it be us who goes. */
	fd = open("/proc/self/oom_score_adj", O_WRONLY);
	MUST(fd >= 0 && write(fd, "1000", 4) == 4);
	close(fd);
	MUST(mlockall(MCL_FUTURE) == 0);
	before = resident_bytes();
	q = pager_open(BUDGET);
	r = region_create(q, GIB);
	printf("resident: %zu KiB more with a pager and a region\n",
	       (resident_bytes() - before) >> 10);
	/* Stacks of threads are the C library's, and are filled. */
	MUST(resident_bytes() < before + 64 * MIB);
	MUST(mapped(r, 0, PAGES) == 0);
	line = written_within_budget(q, r);
	if (line)
		printf("%s:%d\n", __FILE__, line);
	MUST(line == 0);
	MUST(quire_close(q) == 0);
}

static void nothing_is_filled(void)
{
	int status;

	if (mlockall(MCL_FUTURE) != 0)
		unit_skip_all("mlockall is not permitted here");
	munlockall();
	status = in_child(all_to_come, NULL, 5);
	CHECK(status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void locked_before(void)
{
	quire_t *q;

	if (mlockall(MCL_FUTURE | MCL_ONFAULT) != 0)
		unit_skip_all("mlockall is not permitted here, or the kernel is before Linux 4.4");
	q = pager_open(BUDGET);
	CHECK_EQ(written_within_budget(q, region_create(q, PAGES * PAGE)), 0);
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
	r = region_create(q, PAGES * PAGE);
	CHECK_EQ(mlockall(MCL_CURRENT | MCL_ONFAULT), 0);
	CHECK_EQ(written_within_budget(q, r), 0);
	CHECK_EQ(quire_close(q), 0);
	munlockall();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(locked_before),
		UNIT(nothing_is_filled),
		UNIT(locked_later),
		UNIT_END,
	};
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };

	/* All that a pager reserves counts, touched or not. */
	if (geteuid() != 0 && setrlimit(RLIMIT_MEMLOCK, &limit) != 0)
		unit_skip_all("needs root, or no limit on locked memory (ulimit -l)");
	catch_install();
	return unit_main(argc, argv, "mlock", tests);
}
