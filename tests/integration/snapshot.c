/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/snapshot.c - snapshots, clones, rollback and differences: each call
 * by itself. All of them together, at random: tests/snapshot.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGES 1024u
#define BUDGET (128 * PAGE) /* an eighth of them */
#define MANY 6144u
#define DENSE 256u

static quire_t *q;
static quire_region_t *r;

static void begin(void)
{
	q = pager_open(BUDGET);
	r = region_create(q, PAGES * PAGE);
}

static void end(void)
{
	CHECK_EQ(quire_close(q), 0);
}

/* A word at either end of the page. 0: leave or expect zeros */
static void put_in(quire_region_t *in, uint64_t page, uint64_t value)
{
	uint64_t *words = (uint64_t *)(void *)page_at(in, page);

	words[0] = value;
	words[PAGE / 8 - 1] = value * 3;
}

static bool is_in(quire_region_t *in, uint64_t page, uint64_t value)
{
	const uint64_t *words = (const uint64_t *)(void *)page_at(in, page);

	return words[0] == value && words[PAGE / 8 - 1] == value * 3;
}

static bool reads_as(quire_snapshot_t *s, uint64_t page, uint64_t value)
{
	uint64_t words[PAGE / 8];

	MUST(quire_snapshot_read(s, page * PAGE, words, PAGE) == 0);
	return words[0] == value && words[PAGE / 8 - 1] == value * 3;
}

static quire_snapshot_t *snapshot(quire_region_t *of)
{
	quire_snapshot_t *s = NULL;

	MUST(quire_snapshot_create(of, &s) == 0);
	return s;
}

/* Every state that a page can be in: mapped dirty and clean, standby, slot, zeros, never touched. */
static void every_state(void)
{
	quire_snapshot_t *s;
	unsigned wrong = 0;

	begin();
	/* Never touched: the last quarter. Zeros: the one before. */
	for (uint64_t page = 0; page < PAGES / 2; page++)
		put_in(r, page, page + 1);
	for (uint64_t page = PAGES / 2; page < PAGES * 3 / 4; page++)
		put_in(r, page, 0);
	/* Clean in memory: some that are read. */
	for (uint64_t page = 0; page < 40; page++)
		wrong += !is_in(r, page, page + 1);
	s = snapshot(r);
	CHECK_EQ(quire_snapshot_length(s), PAGES * PAGE);
	for (uint64_t page = 0; page < PAGES; page++)
		wrong += !reads_as(s, page, page < PAGES / 2 ? page + 1 : 0);
	CHECK_EQ(wrong, 0);
	for (uint64_t page = 0; page < PAGES; page += 2)
		put_in(r, page, page + 5000);
	CHECK_EQ(quire_advise(r, PAGE, PAGE, QUIRE_ADVISE_DONTNEED), 0);
	CHECK_EQ(quire_advise(r, 101 * PAGE, 99 * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	for (uint64_t page = 0; page < PAGES; page++)
		wrong += !reads_as(s, page, page < PAGES / 2 ? page + 1 : 0);
	CHECK_EQ(wrong, 0);
	for (uint64_t page = 0; page < PAGES; page++) {
		bool gone = page == 1 || (page > 100 && page < 200);
		uint64_t now = gone             ? 0 :
		               page % 2 == 0    ? page + 5000 :
		               page < PAGES / 2 ? page + 1 :
		                                  0;

		wrong += !is_in(r, page, now);
	}
	CHECK_EQ(wrong, 0);
	CHECK_EQ(quire_snapshot_destroy(s), 0);
	end();
}

/* A page is copied once, however many snapshots have it, and what is on the swap file never. */
static void copied_once(void)
{
	quire_snapshot_t *s[5];
	uint64_t before;

	begin();
	for (uint64_t page = 0; page < PAGES; page++)
		put_in(r, page, page + 1);
	for (int i = 0; i < 5; i++)
		s[i] = snapshot(r);
	before = pager_stats(q).snapshot_copies;
	for (uint64_t page = 0; page < PAGES; page++)
		put_in(r, page, page + 7000);
	/* No more than were in memory, dirty. */
	CHECK(pager_stats(q).snapshot_copies - before <= BUDGET / PAGE);
	for (int i = 0; i < 5; i++)
		for (uint64_t page = 0; page < PAGES; page += 37)
			CHECK(reads_as(s[i], page, page + 1));
	/* In any order. */
	CHECK_EQ(quire_snapshot_destroy(s[2]), 0);
	CHECK_EQ(quire_snapshot_destroy(s[4]), 0);
	CHECK_EQ(quire_snapshot_destroy(s[0]), 0);
	for (uint64_t page = 0; page < PAGES; page += 37)
		CHECK(reads_as(s[1], page, page + 1) && reads_as(s[3], page, page + 1));
	CHECK_EQ(quire_snapshot_destroy(s[3]), 0);
	for (uint64_t page = 0; page < PAGES; page += 37)
		CHECK(reads_as(s[1], page, page + 1));
	CHECK_EQ(quire_snapshot_destroy(s[1]), 0);
	end();
}

static void clones(void)
{
	quire_region_t *c, *d;
	quire_snapshot_t *s, *t;
	unsigned wrong = 0;

	begin();
	for (uint64_t page = 0; page < PAGES; page += 2)
		put_in(r, page, page + 1);
	s = snapshot(r);
	REQUIRE_EQ(quire_snapshot_clone(s, &c), 0);
	CHECK_EQ(quire_region_length(c), PAGES * PAGE);
	for (uint64_t page = 0; page < PAGES; page += 3)
		put_in(r, page, page + 2000);
	for (uint64_t page = 0; page < PAGES; page += 5)
		put_in(c, page, page + 3000);
	for (uint64_t page = 0; page < PAGES; page++)
		wrong += !is_in(c, page, page % 5 == 0 ? page + 3000 : page % 2 ? 0 : page + 1);
	CHECK_EQ(wrong, 0);
	/* A clone of a clone, which outlives its ancestors. */
	t = snapshot(c);
	REQUIRE_EQ(quire_snapshot_clone(t, &d), 0);
	for (uint64_t page = 0; page < PAGES; page += 7)
		put_in(c, page, page + 4000);
	CHECK_EQ(quire_advise(c, 10 * PAGE, 10 * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	CHECK_EQ(quire_snapshot_destroy(s), 0);
	CHECK_EQ(quire_snapshot_read(s, 0, &wrong, 1), -EINVAL);
	CHECK_EQ(quire_region_destroy(r), 0);
	CHECK_EQ(quire_region_destroy(c), 0);
	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t now = page % 5 == 0 ? page + 3000 : page % 2 ? 0 : page + 1;

		wrong += !is_in(d, page, now) || !reads_as(t, page, now);
	}
	CHECK_EQ(wrong, 0);
	CHECK_EQ(quire_snapshot_destroy(t), 0);
	CHECK_EQ(quire_region_destroy(d), 0);
	CHECK_EQ(pager_stats(q).swapped, 0);
	end();
}

static void rolled_back(void)
{
	quire_snapshot_t *s[3];
	unsigned wrong = 0;

	begin();
	for (uint64_t i = 0; i < 3; i++) {
		for (uint64_t page = i; page < PAGES; page += i + 1)
			put_in(r, page, page + 1 + 10000 * i);
		s[i] = snapshot(r);
	}
	for (uint64_t page = 0; page < 600; page++)
		put_in(r, page, page + 77000);
	CHECK_EQ(quire_advise(r, 300 * PAGE, 400 * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	for (int back = 0; back < 2; back++)
		for (uint64_t i = 0; i < 3; i++) {
			CHECK_EQ(quire_snapshot_rollback(s[i]), 0);
			for (uint64_t page = 0; page < PAGES; page++) {
				uint64_t of[3];

				of[0] = page + 1;
				of[1] = page >= 1 && (page - 1) % 2 == 0 ? page + 10001 : of[0];
				of[2] = page >= 2 && (page - 2) % 3 == 0 ? page + 20001 : of[1];
				wrong += !is_in(r, page, of[i]);
				if (page % 16 == 0)
					for (int k = 0; k < 3; k++)
						wrong += !reads_as(s[k], page, of[k]);
			}
			CHECK_EQ(wrong, 0);
		}
	end();
}

struct ranges {
	unsigned n;
	size_t offset[100], length[100];
};

static int add_range(void *arg, size_t offset, size_t length)
{
	struct ranges *g = arg;

	g->offset[g->n] = offset;
	g->length[g->n++] = length;
	return g->n == 50 ? 99 : 0;
}

static void differences(void)
{
	quire_snapshot_t *a, *b, *c;
	struct ranges g = { .n = 0 };
	quire_region_t *other;

	begin();
	for (uint64_t page = 0; page < PAGES; page++)
		put_in(r, page, page + 1);
	a = snapshot(r);
	put_in(r, 0, 5);
	for (uint64_t page = 505; page < 520; page++) /* over the edge of a leaf */
		put_in(r, page, 5);
	b = snapshot(r);
	put_in(r, 100, 6);
	c = snapshot(r);
	put_in(r, 200, 6);
	CHECK_EQ(quire_snapshot_diff(a, b, add_range, &g), 0);
	CHECK_EQ(g.n, 2);
	CHECK(g.offset[0] == 0 && g.length[0] == PAGE);
	CHECK(g.offset[1] == 505 * PAGE && g.length[1] == 15 * PAGE);
	g.n = 0;
	CHECK_EQ(quire_snapshot_diff(c, b, add_range, &g), 0);
	CHECK(g.n == 1 && g.offset[0] == 100 * PAGE && g.length[0] == PAGE);
	g.n = 0;
	CHECK_EQ(quire_snapshot_diff(a, a, add_range, &g), 0);
	CHECK_EQ(g.n, 0);
	/* What the one between kept is the older one's. */
	CHECK_EQ(quire_snapshot_destroy(b), 0);
	CHECK_EQ(quire_snapshot_diff(a, c, add_range, &g), 0);
	CHECK_EQ(g.n, 3);
	g.n = 0;
	for (uint64_t page = 0; page < PAGES; page += 2)
		put_in(r, page, 9);
	b = snapshot(r);
	CHECK_EQ(quire_snapshot_diff(c, b, add_range, &g), 99);
	CHECK_EQ(g.n, 50);
	other = region_create(q, PAGE);
	CHECK_EQ(quire_snapshot_diff(a, snapshot(other), add_range, &g), -EINVAL);
	end();
}

static int add_pages(void *arg, size_t offset, size_t length)
{
	(void)offset;
	*(size_t *)arg += length / PAGE;
	return 0;
}

static struct {
	quire_snapshot_t *first, *last;
	_Atomic unsigned made; /* how often */
	_Atomic bool stop;
	unsigned wrong;
} comparison;

static void *compare(void *arg)
{
	while (!atomic_load(&comparison.stop)) {
		size_t found = 0;

		MUST(quire_snapshot_diff(comparison.first, comparison.last, add_pages, &found) ==
		     0);
		comparison.wrong += found != DENSE / 16 * 6 + MANY - DENSE;
		atomic_fetch_add(&comparison.made, 1);
	}
	return arg;
}

/*
 * What is not written, but copied along with what is, has not changed, also while the snapshot between
 * goes. (There it is first, so that it is looked at while the rest has still to go.)
 */
static void differences_meanwhile(void)
{
	pthread_t t;

	q = pager_open(3 * MANY * PAGE);
	r = region_create(q, MANY * PAGE);
	for (unsigned round = 1; round <= 3; round++) {
		quire_snapshot_t *middle;

		for (uint64_t page = 0; page < MANY; page++)
			put_in(r, page, page + round);
		memset(&comparison, 0, sizeof comparison);
		comparison.first = snapshot(r);
		middle = snapshot(r);
		for (uint64_t page = 0; page < DENSE; page += page % 16 < 10 ? 2 : 6)
			put_in(r, page, 99999);
		/* And these one by one. */
		MUST(quire_advise(r, 0, MANY * PAGE, QUIRE_ADVISE_RANDOM) == 0);
		for (uint64_t page = DENSE; page < MANY; page++)
			put_in(r, page, 99999);
		MUST(quire_advise(r, 0, MANY * PAGE, QUIRE_ADVISE_NORMAL) == 0);
		comparison.last = snapshot(r);
		MUST(pthread_create(&t, NULL, compare, NULL) == 0);
		while (atomic_load(&comparison.made) < 2)
			sleep_seconds(0.0005);
		CHECK_EQ(quire_snapshot_destroy(middle), 0);
		atomic_store(&comparison.stop, true);
		pthread_join(t, NULL);
		CHECK_EQ(comparison.wrong, 0);
		CHECK_EQ(quire_snapshot_destroy(comparison.first), 0);
		CHECK_EQ(quire_snapshot_destroy(comparison.last), 0);
	}
	end();
}

/*
 * Writers draw numbers from one counter, and each writes the one that it has drawn into the next of
 * its pages. When a number is drawn its thread's earlier ones have been written: so if one is in
 * an image, all are that were drawn before it, but for the last of each thread.
 */
#define WRITERS 2u
#define RING 1500u
#define DRAWS 3000000u

static struct writer {
	pthread_t thread;
	char *ring;
	uint32_t draws[DRAWS]; /* the number of each draw */
	_Atomic uint32_t count;
} writers[WRITERS];
static _Atomic uint32_t counter;
static _Atomic bool stop;

static void *writer_main(void *arg)
{
	struct writer *w = arg;

	for (uint32_t k = 0; k < DRAWS && !atomic_load(&stop); k++) {
		w->draws[k] = atomic_fetch_add(&counter, 1) + 1;
		atomic_store(&w->count, k + 1);
		atomic_store((_Atomic uint32_t *)(void *)(w->ring + k % RING * PAGE), w->draws[k]);
	}
	return NULL;
}

static void read_image(quire_snapshot_t *s, uint32_t image[WRITERS * RING])
{
	for (size_t page = 0; page < WRITERS * RING; page++)
		MUST(quire_snapshot_read(s, page * PAGE, &image[page], sizeof image[page]) == 0);
}

/* => draws that should be in the image, and are not */
static unsigned missing(const uint32_t image[WRITERS * RING])
{
	uint32_t last = 0;
	unsigned n = 0;

	for (size_t page = 0; page < WRITERS * RING; page++)
		last = image[page] > last ? image[page] : last;
	for (unsigned i = 0; i < WRITERS; i++) {
		uint32_t count = atomic_load(&writers[i].count);

		for (uint32_t k = 0; k + 1 < count && writers[i].draws[k + 1] <= last; k++)
			n += image[i * RING + k % RING] < writers[i].draws[k];
	}
	return n;
}

static void one_instant(void)
{
	static uint32_t image[WRITERS * RING], later[WRITERS * RING];
	unsigned wrong = 0, thawed = 0;

	q = pager_open(24 * MIB);
	r = region_create(q, WRITERS * RING * PAGE);
	for (size_t page = 0; page < WRITERS * RING; page++)
		put_in(r, page, 0);
	for (int round = 0; round < (int)quick_or_full(3, 20); round++) {
		quire_snapshot_t *s[2];

		atomic_store(&stop, false);
		atomic_store(&counter, 0);
		for (unsigned i = 0; i < WRITERS; i++) {
			writers[i].ring = page_at(r, i * RING);
			memset(writers[i].ring, 0, RING * PAGE);
			atomic_store(&writers[i].count, 0);
		}
		for (unsigned i = 0; i < WRITERS; i++)
			MUST(pthread_create(&writers[i].thread, NULL, writer_main, &writers[i]) ==
			     0);
		sleep_seconds(0.002);
		for (unsigned i = 0; i < 2; i++) {
			s[i] = snapshot(r);
			read_image(s[i], image);
			wrong += missing(image);
			read_image(s[i], later);
			thawed += memcmp(image, later, sizeof image) != 0;
		}
		atomic_store(&stop, true);
		for (unsigned i = 0; i < WRITERS; i++)
			pthread_join(writers[i].thread, NULL);
		for (unsigned i = 0; i < 2; i++)
			CHECK_EQ(quire_snapshot_destroy(s[i]), 0);
	}
	CHECK_EQ(wrong, 0);
	CHECK_EQ(thawed, 0);
	end();
}

static void pinned(void)
{
	quire_snapshot_t *s;

	begin();
	for (uint64_t page = 0; page < 100; page++)
		put_in(r, page, page + 1);
	CHECK_EQ(quire_pin(r, 10 * PAGE, 20 * PAGE), 0);
	s = snapshot(r);
	for (uint64_t page = 0; page < 100; page++)
		put_in(r, page, page + 500);
	for (uint64_t page = 0; page < 100; page++)
		CHECK(reads_as(s, page, page + 1));
	CHECK_EQ(quire_snapshot_rollback(s), -EBUSY);
	CHECK(is_in(r, 0, 500));
	CHECK_EQ(quire_unpin(r, 10 * PAGE, 20 * PAGE), 0);
	CHECK_EQ(quire_snapshot_rollback(s), 0);
	for (uint64_t page = 0; page < 100; page++)
		CHECK(is_in(r, page, page + 1));
	/* One that is pinned since. */
	CHECK_EQ(quire_pin(r, 50 * PAGE, PAGE), 0);
	put_in(r, 50, 3);
	CHECK(reads_as(s, 50, 51));
	end();
}

static _Atomic bool enough;

/* First the one that is pinned, then the other. */
static void *write_in_order(void *arg)
{
	volatile uint64_t *before = (uint64_t *)page_at(r, 0);
	volatile uint64_t *after = (uint64_t *)page_at(r, DENSE - 1);

	for (uint64_t n = 1; !atomic_load(&enough); n++) {
		*before = n;
		*after = n;
	}
	return arg;
}

static void pinned_while_written(void)
{
	pthread_t t;

	q = pager_open(2 * DENSE * PAGE);
	r = region_create(q, DENSE * PAGE);
	memset(quire_region_base(r), 0, DENSE * PAGE);
	CHECK_EQ(quire_pin(r, 0, PAGE), 0);
	atomic_store(&enough, false);
	MUST(pthread_create(&t, NULL, write_in_order, NULL) == 0);
	for (int i = 0; i < (int)quick_or_full(100, 2000); i++) {
		quire_snapshot_t *s = NULL;
		uint64_t words[2];

		CHECK_EQ(quire_snapshot_create(r, &s), 0);
		CHECK_EQ(quire_snapshot_read(s, 0, &words[0], 8), 0);
		CHECK_EQ(quire_snapshot_read(s, (DENSE - 1) * PAGE, &words[1], 8), 0);
		CHECK(words[0] >= words[1]);
		CHECK_EQ(quire_snapshot_destroy(s), 0);
	}
	atomic_store(&enough, true);
	pthread_join(t, NULL);
	end();
}

/*
 * Pages of which the program has discarded what the clone inherits, by a call that nobody sees: they
 * are served all the same, as what they were or as zeros.
 */
static void discarded_unseen(void)
{
	quire_region_t *clone = NULL;
	quire_snapshot_t *s;
	unsigned wrong = 0;

	begin();
	MUST(quire_advise(r, 0, PAGES * PAGE, QUIRE_ADVISE_RANDOM) == 0);
	for (uint64_t page = 0; page < PAGES; page++)
		put_in(r, page, page + 1);
	/* Clean, and mapped. */
	for (uint64_t page = 0; page < 64; page++)
		MUST(is_in(r, page, page + 1));
	s = snapshot(r);
	MUST(quire_snapshot_clone(s, &clone) == 0);
	MUST(syscall(SYS_madvise, quire_region_base(r), 64 * PAGE, MADV_DONTNEED) == 0);
	alarm(30);
	for (uint64_t page = 0; page < 64; page++)
		wrong += !is_in(clone, page, page + 1) && !is_in(clone, page, 0);
	for (uint64_t page = 64; page < PAGES; page++)
		wrong += !is_in(clone, page, page + 1);
	alarm(0);
	CHECK_EQ(wrong, 0);
	end();
}

static void misuse(void)
{
	quire_snapshot_t *s;
	char c;

	begin();
	CHECK_EQ(quire_snapshot_create(NULL, &s), -EINVAL);
	CHECK_EQ(quire_snapshot_create(r, NULL), -EINVAL);
	s = snapshot(r);
	CHECK_EQ(quire_snapshot_read(s, PAGES * PAGE, &c, 1), -EINVAL);
	CHECK_EQ(quire_snapshot_read(s, PAGES * PAGE, &c, 0), 0);
	CHECK_EQ(quire_snapshot_read(s, SIZE_MAX, &c, 2), -EINVAL);
	CHECK_EQ(quire_region_destroy((quire_region_t *)s), -EINVAL);
	CHECK_EQ(quire_region_destroy(r), 0);
	CHECK_EQ(quire_snapshot_rollback(s), -EINVAL);
	CHECK_EQ(quire_snapshot_destroy(s), 0);
	CHECK_EQ(quire_snapshot_destroy(s), -EINVAL);
	end();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(every_state),      UNIT(copied_once),
		UNIT(clones),           UNIT(rolled_back),
		UNIT(differences),      UNIT(one_instant),
		UNIT(pinned),           UNIT(pinned_while_written),
		UNIT(discarded_unseen), UNIT(differences_meanwhile),
		UNIT(misuse),           UNIT_END,
	};

	return unit_main(argc, argv, "snapshot", tests);
}
