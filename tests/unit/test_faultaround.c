/* SPDX-License-Identifier: MIT */
/* tests/unit/test_faultaround.c - windows of first touches in order (pager/faultaround.c). */
#include "pager/faultaround.h"
#include "tests/unit/unit.h"

static struct faultaround fa;

/* Touch a page and fill what is said. => pages beside it; *next: the page after them */
static uint32_t touch(uint64_t page, uint32_t max, uint64_t *next)
{
	unsigned front;
	int direction;
	uint32_t n = faultaround_touch(&fa, page, max, &direction, &front);

	CHECK(direction == 1 || direction == -1);
	CHECK(front < FRONTS);
	faultaround_filled(&fa, front, direction < 0 ? page - n : page, n + 1);
	*next = direction < 0 ? page - n - 1 : page + n + 1;
	return n;
}

static void upward(void)
{
	uint32_t n, before = 0;
	uint64_t next = 100;

	memset(&fa, 0, sizeof fa);
	CHECK_EQ(touch(next, 16, &next), 0);
	CHECK_EQ(next, 101);
	for (int i = 0; i < 8; i++, before = n) {
		n = touch(next, 16, &next);
		CHECK_EQ(n, before == 0 ? 1 : before * 2 > 16 ? 16 : before * 2);
	}
	CHECK_EQ(n, 16);
}

static void downward(void)
{
	uint64_t next = 1000;

	memset(&fa, 0, sizeof fa);
	CHECK_EQ(touch(next, 8, &next), 0);
	CHECK_EQ(touch(999, 8, &next), 1);
	CHECK_EQ(next, 997);
	CHECK_EQ(touch(997, 8, &next), 2);
	CHECK_EQ(next, 994);
	CHECK_EQ(touch(994, 8, &next), 4);
	/* And up again from where it began. */
	CHECK_EQ(touch(1001, 8, &next), 8);
	CHECK_EQ(next, 1010);
}

static void page_zero(void)
{
	uint64_t next;

	memset(&fa, 0, sizeof fa);
	CHECK_EQ(touch(0, 8, &next), 0);
	CHECK_EQ(next, 1); /* an unused front is no neighbour of page 0 */
	CHECK_EQ(touch(1, 8, &next), 1);
}

static void out_of_order(void)
{
	uint64_t next;

	memset(&fa, 0, sizeof fa);
	for (uint64_t i = 0; i < 200; i++)
		CHECK_EQ(touch(i * 7919 % 100000 * 3, 16, &next), 0);
}

/* As many walks at once as there are fronts, with strangers between. */
static void several_walks(void)
{
	uint64_t next[FRONTS - 1], ignored;

	memset(&fa, 0, sizeof fa);
	for (unsigned i = 0; i < FRONTS - 1; i++) {
		touch(i * 10000, 16, &next[i]);
		touch(next[i], 16, &next[i]);
	}
	for (int round = 0; round < 10; round++)
		for (unsigned i = 0; i < FRONTS - 1; i++) {
			CHECK(touch(next[i], 16, &next[i]) >= 2);
			CHECK_EQ(touch(500000 + unit_below(100000) * 2, 16, &ignored), 0);
		}
}

/* What was not filled is not walked over: the front goes on where the filling ended. */
static void cut_short(void)
{
	unsigned front;
	int direction;

	memset(&fa, 0, sizeof fa);
	faultaround_touch(&fa, 10, 16, &direction, &front);
	faultaround_filled(&fa, front, 10, 1);
	CHECK_EQ(faultaround_touch(&fa, 11, 16, &direction, &front), 1);
	faultaround_filled(&fa, front, 11, 2);
	CHECK_EQ(faultaround_touch(&fa, 13, 16, &direction, &front), 2);
	faultaround_filled(&fa, front, 13, 1);
	CHECK_EQ(faultaround_touch(&fa, 14, 16, &direction, &front), 4);
	CHECK_EQ(direction, 1);
	/* The front has become another walk's meanwhile. */
	fa.front[front] = (struct front){ .first = 900, .end = 901 };
	faultaround_filled(&fa, front, 14, 5);
	CHECK_EQ(fa.front[front].first, 14);
	CHECK_EQ(fa.front[front].end, 19);
}

static void no_window(void)
{
	uint64_t next = 50;

	memset(&fa, 0, sizeof fa);
	for (int i = 0; i < 5; i++)
		CHECK_EQ(touch(next, 0, &next), 0);
	CHECK_EQ(next, 55);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(upward),        UNIT(downward),  UNIT(page_zero), UNIT(out_of_order),
		UNIT(several_walks), UNIT(cut_short), UNIT(no_window), UNIT_END,
	};

	*unit_random_state() = 12345;
	return unit_main(argc, argv, "faultaround", tests);
}
