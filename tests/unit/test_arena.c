/* SPDX-License-Identifier: MIT */
/* tests/unit/test_arena.c - address space that costs memory where it is touched (base/arena.c). */
#include "base/arena.h"
#include "base/base.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define HUGE ((size_t)2 << 20)

static size_t resident_from(const struct arena *a, size_t offset, size_t pages)
{
	unsigned char present[64];
	size_t n = 0;

	REQUIRE_EQ(mincore((char *)a->base + offset, pages * PAGE_BYTES, present), 0);
	for (size_t i = 0; i < pages; i++)
		n += present[i] & 1;
	return n;
}

static size_t resident(const struct arena *a, size_t pages)
{
	return resident_from(a, 0, pages);
}

static void grows_as_touched(void)
{
	/* Far more than memory; valgrind has little address space to give. */
	size_t bytes = (size_t)1 << (unit_valgrind() ? 30 : 36);
	unsigned char present;
	struct arena a;
	char *base;

	REQUIRE_EQ(arena_open(&a, bytes, false, "quire test"), 0);
	CHECK_EQ(a.bytes, bytes);
	base = a.base;
	CHECK_EQ(resident(&a, 64), 0);
	base[5 * PAGE_BYTES] = 1;
	base[9 * PAGE_BYTES] = 1;
	CHECK_EQ(resident(&a, 64), 2); /* no huge page */
	base[a.bytes - 1] = 1;
	/* Where a huge page would fit, one page is touched all the same. */
	for (size_t at = round_up((uintptr_t)base, HUGE) - (uintptr_t)base, i = 0; i < 4; i++)
		base[at + (i + 1) * HUGE + 5] = 1;
	CHECK_EQ(resident_from(&a, round_up((uintptr_t)base, HUGE) - (uintptr_t)base + HUGE, 64),
	         1);
	arena_clear(&a, 5 * PAGE_BYTES, PAGE_BYTES);
	CHECK_EQ(base[5 * PAGE_BYTES], 0);
	CHECK_EQ(base[9 * PAGE_BYTES], 1);
	arena_close(&a);
	CHECK(a.base == NULL);
	CHECK_EQ(mincore(base, PAGE_BYTES, &present), -1); /* it is gone */
	arena_close(&a);
}

static void rounds_up(void)
{
	struct arena a;

	REQUIRE_EQ(arena_open(&a, PAGE_BYTES + 1, false, NULL), 0);
	CHECK_EQ(a.bytes, 2 * PAGE_BYTES);
	((char *)a.base)[2 * PAGE_BYTES - 1] = 1;
	arena_close(&a);
}

static void too_large(void)
{
	struct arena a = { .base = &a };

	CHECK_EQ(arena_open(&a, (size_t)1 << 60, false, "quire test"), -ENOMEM);
	CHECK(a.base == NULL);
	arena_close(&a);
}

/* A shared one is one memory for parent and child; a private one is not. */
static void shared(void)
{
	for (int is_shared = 0; is_shared < 2; is_shared++) {
		struct arena a;
		int status;
		pid_t child;

		REQUIRE_EQ(arena_open(&a, PAGE_BYTES, is_shared, "quire test"), 0);
		child = fork();
		REQUIRE(child >= 0);
		if (child == 0) {
			*(char *)a.base = 7;
			_exit(0);
		}
		CHECK_EQ(waitpid(child, &status, 0), child);
		CHECK_EQ(*(char *)a.base, is_shared ? 7 : 0);
		arena_close(&a);
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(grows_as_touched), UNIT(rounds_up), UNIT(too_large), UNIT(shared), UNIT_END,
	};

	return unit_main(argc, argv, "arena", tests);
}
