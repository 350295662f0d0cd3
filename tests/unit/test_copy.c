/* SPDX-License-Identifier: MIT */
/* tests/unit/test_copy.c - the guard's copying: what the program would die of ends it. */
#include "unit.h"

#include "base/base.h"
#include "guard/copy.h"
#include "guard/guard.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

static char *page; /* two, and then nothing */
static unsigned ends;

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)info;
	if (!guard_copy_ends(context)) {
		signal(number, SIG_DFL);
		return;
	}
	ends++;
}

static void setup(void)
{
	struct sigaction a = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	page = mmap(NULL, 3 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
	            0);
	if (page == MAP_FAILED || mprotect(page + 2 * PAGE_BYTES, PAGE_BYTES, PROT_NONE) != 0 ||
	    sigaction(SIGSEGV, &a, NULL) != 0)
		exit(1);
}

static void copies(void)
{
	char here[300];

	memset(page, 1, 2 * PAGE_BYTES);
	CHECK_EQ(guard_copy(here, page + 100, sizeof here), 0);
	CHECK(here[0] == 1 && here[299] == 1);
	CHECK_EQ(copy_to((unsigned long)page, here, sizeof here), 0);
	CHECK_EQ(guard_copy(here, page + 3 * PAGE_BYTES, 0), 0);
	CHECK_EQ(ends, 0);
}

static void ends_at_a_bad_address(void)
{
	char here[300] = "";
	unsigned long word;

	if (unit_foreign_faults())
		return;
	ends = 0;
	memset(page, 2, 2 * PAGE_BYTES);
	CHECK_EQ(guard_copy(here, page + 2 * PAGE_BYTES - 100, 300), 200);
	CHECK(here[99] == 2 && here[100] == 0);
	CHECK_EQ(guard_copy(page + 2 * PAGE_BYTES - 7, here, 10), 3);
	CHECK_EQ(copy_from(here, 8, 1), -EFAULT);
	CHECK_EQ(guard_load(page + 2 * PAGE_BYTES - 8, &word), 0);
	CHECK(word == 0x0202020202020202 || word == 0x0200000000000000);
	CHECK(guard_load(page + 2 * PAGE_BYTES - 7, &word) != 0);
	CHECK_EQ(ends, 4);
}

static void touches(void)
{
	ends = 0;
	page[5] = 77;
	CHECK_EQ(guard_touch_read(page + 5), 0);
	CHECK_EQ(guard_touch_write(page + 5), 0);
	CHECK_EQ(page[5], 77);
	CHECK(guard_touch_read(page + 2 * PAGE_BYTES) != 0);
	CHECK(guard_touch_write(page + 2 * PAGE_BYTES) != 0);
	CHECK(mprotect(page, PAGE_BYTES, PROT_READ) == 0);
	CHECK(guard_touch_write(page) != 0);
	CHECK_EQ(guard_touch_read(page), 0);
	CHECK(mprotect(page, PAGE_BYTES, PROT_READ | PROT_WRITE) == 0);
	CHECK_EQ(ends, 3);
}

static void strings(void)
{
	char *end = page + 2 * PAGE_BYTES;

	memset(page, 'a', 2 * PAGE_BYTES);
	end[-1] = 0;
	/* Up to the last byte that there is, and no further. */
	CHECK_EQ(guard_string(end - 1, 100), 0);
	CHECK_EQ(guard_string(end - 200, 4096), 199);
	CHECK_EQ(guard_string(page, 8192), 8191);
	CHECK_EQ(guard_string(page, 4096), 4096);
	CHECK_EQ(guard_string(page, 10), 10);
	end[-1] = 'a';
	CHECK_EQ(guard_string(end - 200, 4096), -1);
	CHECK_EQ(guard_string(end - 200, 200), 200);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(copies), UNIT(ends_at_a_bad_address),
		                                  UNIT(touches), UNIT(strings), UNIT_END };

#if !defined(__x86_64__)
	unit_skip_all("the guard is for x86-64");
#endif
	setup();
	return unit_main(argc, argv, "copy", tests);
}
