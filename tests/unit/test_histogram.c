/* SPDX-License-Identifier: MIT */
/* tests/unit/test_histogram.c - latency distributions against sorted values (base/histogram.c). */
#include "base/base.h"
#include "base/histogram.h"
#include "tests/unit/unit.h"

#define VALUES 20000u

static void empty(void)
{
	static struct histogram h;

	CHECK_EQ(histogram_count(&h), 0);
	CHECK_EQ(histogram_mean(&h), 0);
	CHECK_EQ(histogram_percentile(&h, 500), 0);
	CHECK_EQ(histogram_percentile(&h, 1000), 0);
}

static void one_value(void)
{
	static const uint64_t values[] = {
		0,         1, 7, 8, 9, 15, 16, 17, 1000, 4095, 4096, 123456789, UINT64_C(1) << 37,
		UINT64_MAX
	};

	for (unsigned i = 0; i < ARRAY_LENGTH(values); i++) {
		struct histogram h = { 0 };

		histogram_add(&h, values[i]);
		CHECK_EQ(histogram_count(&h), 1);
		CHECK_EQ(histogram_mean(&h), values[i]);
		CHECK_EQ(atomic_load(&h.max), values[i]);
		/* Never above the maximum, nor more than an eighth below it. */
		if (values[i] < UINT64_C(1) << 38)
			CHECK_EQ(histogram_percentile(&h, 500), values[i]);
	}
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void percentiles(void)
{
	static uint64_t values[VALUES];
	static const unsigned per_mille[] = { 1, 10, 500, 900, 990, 999, 1000 };
	static struct histogram h;
	uint64_t sum = 0;

	unit_seed();
	memset(&h, 0, sizeof h);
	for (unsigned i = 0; i < VALUES; i++) {
		values[i] = unit_random() >> (28 + unit_below(34));
		sum += values[i];
		histogram_add(&h, values[i]);
	}
	qsort(values, VALUES, sizeof values[0], by_value);
	CHECK_EQ(histogram_count(&h), VALUES);
	CHECK_EQ(histogram_mean(&h), sum / VALUES);
	CHECK_EQ(atomic_load(&h.max), values[VALUES - 1]);
	for (unsigned i = 0; i < ARRAY_LENGTH(per_mille); i++) {
		uint64_t exact = values[(VALUES * per_mille[i] + 999) / 1000 - 1];
		uint64_t said = histogram_percentile(&h, per_mille[i]);

		CHECK(said >= exact);
		CHECK(said <= exact + exact / 8);
	}
}

/* The order of percentiles is the order of what they are of. */
static void rising(void)
{
	static struct histogram h;
	uint64_t before = 0;

	memset(&h, 0, sizeof h);
	for (uint64_t v = 0; v < 100000; v = v + 1 + v / 50)
		histogram_add(&h, v);
	for (unsigned i = 0; i <= 1000; i++) {
		CHECK(histogram_percentile(&h, i) >= before);
		before = histogram_percentile(&h, i);
	}
	CHECK_EQ(before, atomic_load(&h.max));
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(empty), UNIT(one_value), UNIT(percentiles), UNIT(rising), UNIT_END,
	};

	return unit_main(argc, argv, "histogram", tests);
}
