/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/heap_blocks.c - malloc and its like on a region: sizes, alignment, contents; that
 * neither malloc nor free touches what is swapped out; that what is freed goes back; a heap that is full.
 *
 * test: matrix
 */
#include "support.h"

#include <errno.h>

#define BUDGET (4 * MIB)

static quire_t *q;
static quire_heap_t *h;

static void begin(const struct quire_heap_options *o)
{
	q = pager_open(BUDGET);
	REQUIRE_EQ(quire_heap_create(q, o, &h), 0);
}

static void end(void)
{
	CHECK_EQ(quire_heap_destroy(h), 0);
	CHECK_EQ(quire_close(q), 0);
}

static struct quire_heap_info info(void)
{
	struct quire_heap_info i;

	CHECK_EQ(quire_heap_info(h, &i), 0);
	return i;
}

/* Bytes of block n, none of them 0 */
static void mark(void *p, size_t from, size_t to, unsigned n)
{
	for (size_t i = from; i < to; i++)
		((unsigned char *)p)[i] = (unsigned char)(1 + (n + i) % 251);
}

static size_t unlike(const void *p, size_t to, unsigned n)
{
	size_t bad = 0;

	for (size_t i = 0; i < to; i++)
		bad += ((const unsigned char *)p)[i] != 1 + (n + i) % 251;
	return bad;
}

static size_t not_zero(const void *p, size_t bytes)
{
	size_t bad = 0;

	for (size_t i = 0; i < bytes; i++)
		bad += ((const unsigned char *)p)[i] != 0;
	return bad;
}

static bool is_aligned(const void *p, size_t alignment)
{
	return ((uintptr_t)p & (alignment - 1)) == 0;
}

/* ----------------------------------------------------------- what libc's do */

static const size_t sizes[] = { 1,         7,         8,          100,   4095,          4096,
	                        5000,      16383,     16384,      70000, 128 * KIB - 1, 128 * KIB,
	                        200 * KIB, 513 * KIB, 3 * MIB + 5 };

enum { SIZES = sizeof sizes / sizeof *sizes };

static void sizes_and_contents(void)
{
	void *p[SIZES];

	begin(NULL);
	for (unsigned i = 0; i < SIZES; i++) {
		p[i] = quire_heap_malloc(h, sizes[i]);
		REQUIRE(p[i] != NULL);
		CHECK(is_aligned(p[i], sizes[i] < 16 ? 8 : 16));
		CHECK(quire_heap_usable_size(h, p[i]) >= sizes[i]);
		mark(p[i], 0, sizes[i], i);
	}
	for (unsigned i = 0; i < SIZES; i++) {
		CHECK_EQ(unlike(p[i], sizes[i], i), 0);
		quire_heap_free(h, p[i]);
	}
	CHECK_EQ(info().used, 0);
	end();
}

/* Of memory that was used before, too. */
static void calloc_is_zeros(void)
{
	begin(NULL);
	for (int round = 0; round < 3; round++)
		for (unsigned i = 0; i < SIZES; i++) {
			char *p = quire_heap_calloc(h, 1, sizes[i]);
			size_t usable = quire_heap_usable_size(h, p);

			REQUIRE(p != NULL);
			CHECK_EQ(not_zero(p, sizes[i]), 0);
			mark(p, 0, usable, i);
			quire_heap_free(h, p);
		}
	end();
}

static void realloc_keeps(void)
{
	begin(NULL);
	for (unsigned i = 0; i < SIZES; i++)
		for (unsigned k = 0; k < SIZES; k++) {
			size_t kept = sizes[i] < sizes[k] ? sizes[i] : sizes[k];
			char *p = quire_heap_realloc(h, NULL, sizes[i]);

			mark(p, 0, sizes[i], i);
			p = quire_heap_realloc(h, p, sizes[k]);
			REQUIRE(p != NULL);
			CHECK_EQ(unlike(p, kept, i), 0);
			mark(p, 0, sizes[k], k);
			CHECK(quire_heap_usable_size(h, p) >= sizes[k]);
			CHECK(quire_heap_realloc(h, p, 0) == NULL);
		}
	CHECK_EQ(info().used, 0);
	end();
}

static void alignments(void)
{
	begin(NULL);
	for (size_t a = 1; a <= 4 * MIB; a *= 2) {
		char *p = quire_heap_aligned_alloc(h, a, 3 * a / 2 + 1);
		char *of_one = quire_heap_aligned_alloc(h, a, 1);

		REQUIRE(p != NULL && of_one != NULL);
		CHECK(is_aligned(p, a) && is_aligned(of_one, a));
		p[0] = p[3 * a / 2] = of_one[0] = 1;
		quire_heap_free(h, p);
		quire_heap_free(h, of_one);
	}
	errno = 0;
	CHECK(quire_heap_aligned_alloc(h, 0, 8) == NULL && errno == EINVAL);
	errno = 0;
	CHECK(quire_heap_aligned_alloc(h, 48, 8) == NULL && errno == EINVAL);
	errno = 0;
	CHECK(quire_heap_aligned_alloc(h, (size_t)1 << 62, 8) == NULL && errno == ENOMEM);
	end();
}

static void nothing_and_too_much(void)
{
	void *a, *b;

	begin(NULL);
	a = quire_heap_malloc(h, 0);
	b = quire_heap_calloc(h, 0, 10);
	CHECK(a && b && a != b);
	errno = 5;
	quire_heap_free(h, a);
	quire_heap_free(h, b);
	quire_heap_free(h, NULL);
	CHECK_EQ(errno, 5);
	CHECK_EQ(quire_heap_usable_size(h, NULL), 0);
	errno = 0;
	CHECK(quire_heap_malloc(h, SIZE_MAX) == NULL && errno == ENOMEM);
	errno = 0;
	CHECK(quire_heap_malloc(h, (size_t)PTRDIFF_MAX) == NULL && errno == ENOMEM);
	errno = 0;
	CHECK(quire_heap_calloc(h, (size_t)1 << 33, (size_t)1 << 33) == NULL && errno == ENOMEM);
	a = quire_heap_malloc(h, 10);
	mark(a, 0, 10, 1);
	errno = 0;
	CHECK(quire_heap_realloc(h, a, SIZE_MAX) == NULL && errno == ENOMEM);
	CHECK_EQ(unlike(a, 10, 1), 0);
	end();
}

/* ---------------------------------------------------- pages are left alone */

static uint64_t faults(void)
{
	struct quire_stats s = pager_stats(q);

	return s.minor_faults + s.major_faults + s.zero_fills;
}

enum { SMALL = 40000 };

/* Of a heap of four times the budget three quarters are on the swap file: freeing them reads nothing. */
static void freeing_touches_nothing(void)
{
	static char *p[SMALL];
	uint64_t before;
	size_t bad = 0;

	begin(NULL);
	for (unsigned i = 0; i < SMALL; i++) {
		p[i] = quire_heap_malloc(h, 400);
		mark(p[i], 0, 400, i);
	}
	CHECK(pager_stats(q).swapped > 2 * BUDGET);
	sleep_seconds(0.05); /* a fault may be counted a moment after it */
	before = faults();
	for (unsigned i = 0; i < SMALL; i += 2)
		quire_heap_free(h, p[i]);
	/* Nor does it to hand them out again. */
	for (unsigned i = 0; i < SMALL; i += 2)
		p[i] = quire_heap_malloc(h, 400);
	CHECK_EQ(faults() - before, 0);
	for (unsigned i = 1; i < SMALL; i += 2)
		bad += unlike(p[i], 400, i);
	CHECK_EQ(bad, 0);
	sleep_seconds(0.05);
	before = faults();
	for (unsigned i = 0; i < SMALL; i++)
		quire_heap_free(h, p[i]);
	CHECK_EQ(quire_heap_trim(h), 0);
	CHECK_EQ(faults() - before, 0);
	CHECK_EQ(info().used, 0);
	CHECK_EQ(info().untrimmed, 0);
	CHECK_EQ(pager_stats(q).swapped, 0);
	end();
}

/* A large block's memory and swap are free when it is, without a trim. */
static void large_blocks_go_back(void)
{
	struct quire_stats s;
	char *p;

	begin(NULL);
	p = quire_heap_malloc(h, 4 * BUDGET);
	mark(p, 0, 4 * BUDGET, 1);
	s = pager_stats(q);
	CHECK(s.swapped >= 2 * BUDGET && s.resident > BUDGET / 4);
	quire_heap_free(h, p);
	s = pager_stats(q);
	CHECK_EQ(s.swapped, 0);
	/* (Pages beyond its end were filled with it, as ahead of any that is written in order.) */
	CHECK(s.resident < BUDGET / 8);
	/* What realloc cuts off, too. */
	p = quire_heap_malloc(h, 4 * BUDGET);
	mark(p, 0, 4 * BUDGET, 1);
	p = quire_heap_realloc(h, p, 256 * KIB);
	s = pager_stats(q);
	CHECK(s.swapped + s.resident + s.standby < 512 * KIB);
	CHECK_EQ(unlike(p, 256 * KIB, 1), 0);
	quire_heap_free(h, p);
	/* calloc takes nothing until it is touched. */
	p = quire_heap_calloc(h, 4 * BUDGET, 16);
	CHECK(pager_stats(q).resident < 64 * KIB);
	CHECK_EQ(not_zero(p + 3 * BUDGET, KIB), 0);
	end();
}

/* With the threshold higher they stay for the next, for a while. */
static void the_threshold(void)
{
	struct quire_heap_options o = { .size = sizeof o, .large = 2 * MIB, .trim_ms = -1 };
	char *p;

	begin(&o);
	p = quire_heap_malloc(h, MIB);
	mark(p, 0, MIB, 1);
	quire_heap_free(h, p);
	CHECK(pager_stats(q).resident >= MIB / 2);
	CHECK(info().untrimmed >= MIB);
	CHECK_EQ(quire_heap_trim(h), 0);
	CHECK(pager_stats(q).resident < 64 * KIB);
	CHECK_EQ(info().untrimmed, 0);
	end();
}

/* Pages of small blocks go back by themselves after a while, if the heap is used. */
static void trims_itself(void)
{
	struct quire_heap_options o = { .size = sizeof o, .trim_ms = 50 };
	double until = seconds_now() + 10;
	static char *p[5000];

	begin(&o);
	for (unsigned i = 0; i < 5000; i++)
		mark(p[i] = quire_heap_malloc(h, 300), 0, 300, i);
	for (unsigned i = 0; i < 5000; i++)
		quire_heap_free(h, p[i]);
	while (info().untrimmed > 128 * KIB && seconds_now() < until)
		for (unsigned i = 0; i < 1000; i++)
			quire_heap_free(h, quire_heap_malloc(h, 20 * KIB));
	CHECK(info().untrimmed <= 128 * KIB);
	end();
}

/* ------------------------------------------------------------------- full */

static size_t fill_up(size_t size, void **list, size_t most)
{
	size_t n = 0;

	errno = 0;
	while (n < most && (list[n] = quire_heap_malloc(h, size)))
		n++;
	CHECK(n == most || errno == ENOMEM);
	return n;
}

/* All of it can be had, in any size, again and again; and no more. */
static void bounded(void)
{
	struct quire_heap_options o = { .size = sizeof o, .length = 16 * MIB };
	static const size_t of[] = { 64, 1000, 20 * KIB, MIB, 14 * MIB, 300, 256 * KIB, 16 };
	static void *list[16 * MIB / 16];

	begin(&o);
	CHECK_EQ(quire_region_length(quire_heap_region(h)), 16 * MIB);
	for (unsigned k = 0; k < sizeof of / sizeof *of; k++) {
		size_t n = fill_up(of[k], list, 16 * MIB / 16);

		CHECK(n * of[k] <= 16 * MIB);
		CHECK(n * of[k] >= 13 * MIB);
		CHECK(quire_heap_calloc(h, 1, 15 * MIB) == NULL);
		/* So that what is free is in pieces first. */
		for (size_t i = 0; i < n; i += 2)
			quire_heap_free(h, list[i]);
		for (size_t i = 1; i < n; i += 2)
			quire_heap_free(h, list[i]);
		CHECK_EQ(info().used, 0);
	}
	end();
}

/* What lies between blocks that had to be aligned is used for others. */
static void gaps_are_used(void)
{
	struct quire_heap_options o = { .size = sizeof o, .length = 16 * MIB };
	static void *list[1000];
	size_t n;

	begin(&o);
	for (unsigned i = 0; i < 7; i++) {
		CHECK(quire_heap_malloc(h, 20 * KIB) != NULL);
		CHECK(quire_heap_aligned_alloc(h, MIB, MIB) != NULL);
	}
	n = fill_up(20 * KIB, list, 1000);
	CHECK(n * 20 * KIB >= 16 * MIB - 7 * (MIB + 20 * KIB) - 2 * MIB);
	end();
}

/* ---------------------------------------------------------------- options */

static void options(void)
{
	struct quire_heap_options good = { .size = sizeof good }, o;
	quire_heap_t *none = NULL;

	q = pager_open(BUDGET);
	CHECK_EQ(quire_heap_create(NULL, NULL, &none), -EINVAL);
	CHECK_EQ(quire_heap_create(q, NULL, NULL), -EINVAL);
	o = good;
	o.size = 8;
	o.length = MIB;
	CHECK_EQ(quire_heap_create(q, &o, &none), -EINVAL);
	CHECK(contains(quire_error_message(), "quire_heap_options.size"));
	o = good;
	o.length = 5;
	CHECK_EQ(quire_heap_create(q, &o, &none), -EINVAL);
	o.length = QUIRE_REGION_MAX + 1;
	CHECK_EQ(quire_heap_create(q, &o, &none), -EINVAL);
	CHECK(contains(quire_error_message(), "length"));
	o = good;
	o.large = 100;
	CHECK_EQ(quire_heap_create(q, &o, &none), -EINVAL);
	CHECK(contains(quire_error_message(), "large"));
	o = good;
	o.trim_ms = -2;
	CHECK_EQ(quire_heap_create(q, &o, &none), -EINVAL);
	CHECK(contains(quire_error_message(), "trim_ms"));
	CHECK(none == NULL);
	o = (struct quire_heap_options){ .size = 0 };
	CHECK_EQ(quire_heap_create(q, &o, &h), 0);
	CHECK_EQ(quire_heap_destroy(h), 0);
	o = good;
	o.length = MIB + 1;
	o.name = "mine";
	CHECK_EQ(quire_heap_create(q, &o, &h), 0);
	CHECK_EQ(quire_region_length(quire_heap_region(h)), MIB + PAGE);
	CHECK_EQ(quire_heap_destroy(h), 0);
	CHECK_EQ(quire_heap_destroy(NULL), -EINVAL);
	CHECK_EQ(quire_heap_trim(NULL), -EINVAL);
	CHECK_EQ(quire_close(q), 0);
}

/* ------------------------------------------------------------------- leaks */

__attribute__((noinline)) static void *from_here(size_t bytes)
{
	void *p = quire_heap_malloc(h, bytes);

	__asm__ volatile("" : "+r"(p)); /* no tail call: this function is the caller */
	return p;
}

__attribute__((noinline)) static void *from_there(size_t bytes)
{
	void *p = quire_heap_calloc(h, 1, bytes);

	__asm__ volatile("" : "+r"(p));
	return p;
}

/* => what it is, to be freed */
static char *report(int *blocks)
{
	static char *text;
	static size_t length;
	FILE *f = open_memstream(&text, &length);

	*blocks = quire_heap_leaks(h, f);
	fclose(f);
	return text;
}

/* By who allocated them, most bytes first; what realloc has moved is the block that was there. */
static void leaks(void)
{
	struct quire_heap_options o = { .size = sizeof o, .trace = true };
	char *text, *second;
	void *p[5];
	FILE *full;
	int blocks;

	begin(&o);
	for (int i = 0; i < 3; i++)
		p[i] = from_here(100);
	p[3] = from_there(200 * KIB);
	p[4] = from_here(1000);
	quire_heap_free(h, p[1]);
	p[4] = quire_heap_realloc(h, p[4], 300 * KIB);
	text = report(&blocks);
	CHECK_EQ(blocks, 4);
	CHECK(contains(text, "4 blocks, 512200 bytes not freed\n"));
	second = strstr(text, "204800  ");
	CHECK(second && strstr(text, "307200  ") && strstr(text, "307200  ") < second);
	CHECK(second && strstr(second, "2            200  "));
	CHECK(contains(text, "heap_blocks"));
	free(text);
	full = fopen("/dev/full", "w");
	CHECK_EQ(quire_heap_leaks(h, full), -EIO);
	fclose(full);
	CHECK_EQ(quire_heap_leaks(h, NULL), -EINVAL);
	for (int i = 0; i < 5; i++)
		if (i != 1)
			quire_heap_free(h, p[i]);
	text = report(&blocks);
	CHECK_EQ(blocks, 0);
	CHECK(!strcmp(text, "0 blocks, 0 bytes not freed\n"));
	free(text);
	end();
	begin(NULL);
	CHECK_EQ(quire_heap_leaks(h, stdout), -ENOTSUP);
	CHECK(contains(quire_error_message(), "without trace"));
	end();
}

/* ------------------------------------------------------------------ random */

enum { BLOCKS = 500 };

struct live {
	unsigned char *p;
	size_t bytes;
	unsigned n;
};

static size_t random_size(void)
{
	switch (unit_random() % 8) {
	case 0:
		return unit_random() % (300 * KIB);
	case 1:
		return unit_random() % (32 * KIB);
	default:
		return unit_random() % 1500;
	}
}

/* => wrong bytes */
static size_t change(struct live *b, unsigned n)
{
	size_t bytes = random_size(), bad = unlike(b->p, b->bytes, b->n), kept;
	unsigned char *p;

	switch (unit_random() % 5) {
	case 0:
		quire_heap_free(h, b->p);
		*b = (struct live){ NULL, 0, 0 };
		return bad;
	case 1:
		quire_heap_free(h, b->p);
		p = quire_heap_calloc(h, 1, bytes);
		bad += not_zero(p, bytes);
		break;
	case 2:
		quire_heap_free(h, b->p);
		p = quire_heap_aligned_alloc(h, (size_t)1 << unit_random() % 15, bytes);
		break;
	case 3:
		quire_heap_free(h, b->p);
		p = quire_heap_malloc(h, bytes);
		break;
	default:
		bytes += !bytes;
		p = quire_heap_realloc(h, b->p, bytes);
		kept = bytes < b->bytes ? bytes : b->bytes;
		bad += unlike(p, kept, b->n);
	}
	mark(p, 0, bytes, n);
	*b = (struct live){ p, bytes, n };
	return bad;
}

static void at_random(void)
{
	struct quire_heap_options o = { .size = sizeof o, .length = 64 * MIB, .trace = true };
	static struct live blocks[BLOCKS];
	double end_at = seconds_now() + quick_or_full(2, 20);
	size_t bad = 0;
	int left = 0;
	FILE *nowhere = fopen("/dev/null", "w");

	begin(&o);
	memset(blocks, 0, sizeof blocks);
	for (unsigned n = 1; seconds_now() < end_at; n++)
		bad += change(&blocks[unit_random() % BLOCKS], n);
	for (unsigned i = 0; i < BLOCKS; i++) {
		bad += unlike(blocks[i].p, blocks[i].bytes, blocks[i].n);
		left += blocks[i].p != NULL;
	}
	CHECK_EQ(bad, 0);
	CHECK_EQ(quire_heap_leaks(h, nowhere), left);
	for (unsigned i = 0; i < BLOCKS; i++)
		quire_heap_free(h, blocks[i].p);
	CHECK_EQ(quire_heap_leaks(h, nowhere), 0);
	CHECK_EQ(info().used, 0);
	fclose(nowhere);
	end();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(sizes_and_contents),
		                                  UNIT(calloc_is_zeros),
		                                  UNIT(realloc_keeps),
		                                  UNIT(alignments),
		                                  UNIT(nothing_and_too_much),
		                                  UNIT(freeing_touches_nothing),
		                                  UNIT(large_blocks_go_back),
		                                  UNIT(the_threshold),
		                                  UNIT(trims_itself),
		                                  UNIT(bounded),
		                                  UNIT(gaps_are_used),
		                                  UNIT(options),
		                                  UNIT(leaks),
		                                  UNIT(at_random),
		                                  UNIT_END };

	return unit_main(argc, argv, "heap_blocks", tests);
}
