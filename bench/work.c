/* SPDX-License-Identifier: MIT */
/*
 * bench/work.c - the workloads.
 *
 * The content is incompressible: the word at index i is mix(i), so that every
 * word that is read can be checked without a second copy; a wrong one ends the
 * whole benchmark. Pages are visited uniformly at random, one word a visit.
 *
 * Read-modify-write adds STEP to a word. STEP is odd, so (word - mix(i)) / STEP
 * modulo 2^64 is how often the word was visited: checked at each visit to be a
 * small number, and at the end over all words to sum up to the visits made. In
 * every page each thread has words of its own: pages are contended for, words
 * are not, and no atomic operation is needed.
 *
 * Neighbours: memory.c gives the memory, child.c runs these in a child.
 */
#include "bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define THREADS_MAX 64

_Noreturn void wrong_word(const char *what, uint64_t i, uint64_t got, uint64_t want)
{
	give_up(OUT_WRONG, "WRONG WORD while %s: page %llu, word %llu: read %016llx, not %016llx",
	        what, (unsigned long long)(i / PAGE_WORDS), (unsigned long long)(i % PAGE_WORDS),
	        (unsigned long long)got, (unsigned long long)want);
}

/* 1 / STEP modulo 2^64, by Newton's iteration. */
uint64_t step_inverse(void)
{
	uint64_t x = STEP;

	for (int i = 0; i < 6; i++)
		x *= 2 - STEP * x;
	return x;
}

uint32_t *page_order(size_t pages, bool at_random)
{
	uint32_t *order = malloc(pages * sizeof *order);
	uint64_t rng = 88172645463325252u;

	if (!order)
		give_up(OUT_FAILED, "malloc");
	for (size_t i = 0; i < pages; i++)
		order[i] = (uint32_t)i;
	for (size_t i = pages - 1; at_random && i > 0; i--) {
		size_t j = below(&rng, i + 1);
		uint32_t t = order[i];

		order[i] = order[j];
		order[j] = t;
	}
	return order;
}

static double mb_per_s(const struct memory *m, double seconds)
{
	return (double)m->length / 1e6 / seconds;
}

/* --------------------------------------------------------- first touches */

static void touch(const struct settings *s, enum contender who, bool at_random)
{
	/* Half the budget: nothing is evicted. */
	size_t pages = s->memory / 2 / PAGE;
	uint32_t *order = page_order(pages, at_random);
	struct memory m;

	/* It is over in a moment, so several times, each with new memory. */
	for (unsigned turn = 0; turn < 5; turn++) {
		memory_open(&m, who, s, pages * PAGE);
		double start = now();
		for (size_t i = 0; i < pages; i++)
			m.words[order[i] * PAGE_WORDS] = mix(order[i]);
		double took = now() - start;
		for (size_t i = 0; i < pages; i++) {
			uint64_t got = m.words[i * PAGE_WORDS];

			if (got != mix(i))
				wrong_word("checking first touches", i * PAGE_WORDS, got, mix(i));
			got = m.words[i * PAGE_WORDS + 1];
			if (got)
				wrong_word("checking for zeros", i * PAGE_WORDS + 1, got, 0);
		}
		yield_figure(at_random ? F_TOUCH_RANDOM : F_TOUCH_ORDER,
		             took * 1e6 / (double)pages);
		if (at_random)
			memory_latencies(&m, false, F_MINOR_P50);
		memory_close(&m);
	}
	free(order);
}

static void touch_order(const struct settings *s, enum contender who)
{
	touch(s, who, false);
}

static void touch_random(const struct settings *s, enum contender who)
{
	touch(s, who, true);
}

/* -------------------------------------------------------- fill and scans */

void fill(struct memory *m)
{
	uint64_t *w = m->words;

	for (size_t i = 0; i < m->count; i++)
		w[i] = mix(i);
}

static void scan(const struct memory *m)
{
	const uint64_t *w = m->words;

	for (size_t i = 0; i < m->count; i++) {
		uint64_t got = w[i];

		if (got != mix(i))
			wrong_word("scanning", i, got, mix(i));
	}
}

static void fill_and_scan(const struct settings *s, enum contender who)
{
	struct memory m;

	if (who == RAW) {
		raw_sequential(s);
		return;
	}
	memory_open(&m, who, s, s->region);
	double start = now();
	fill(&m);
	yield_figure(F_FILL, mb_per_s(&m, now() - start));
	start = now();
	scan(&m);
	yield_figure(F_SCAN_READ, mb_per_s(&m, now() - start));
	memory_close(&m);
}

/* Each word is checked and incremented; then all words of some pages are checked again. */
static void scan_write(const struct settings *s, enum contender who)
{
	struct memory m;
	uint64_t rng = 2463534242u;

	memory_open(&m, who, s, s->region);
	fill(&m);
	double start = now();
	for (size_t i = 0; i < m.count; i++) {
		uint64_t got = m.words[i];

		if (got != mix(i))
			wrong_word("scanning and writing", i, got, mix(i));
		m.words[i] = got + 1;
	}
	yield_figure(F_SCAN_WRITE, mb_per_s(&m, now() - start));
	for (unsigned k = 0; k < 4096; k++) {
		size_t first = below(&rng, m.length / PAGE) * PAGE_WORDS;

		for (size_t i = first; i < first + PAGE_WORDS; i++) {
			uint64_t got = m.words[i];

			if (got != mix(i) + 1)
				wrong_word("checking increments", i, got, mix(i) + 1);
		}
	}
	memory_close(&m);
}

/* The same check over memory that is all there: what the scans cost by themselves. */
static void check_speed(const struct settings *s, enum contender who)
{
	struct memory m;

	memory_open(&m, who, s, s->memory);
	fill(&m);
	double start = now();
	scan(&m);
	yield_figure(F_CHECK, mb_per_s(&m, now() - start));
	memory_close(&m);
}

/* -------------------------------------------------------- random accesses */

struct worker {
	pthread_t thread;
	const struct memory *m;
	atomic_bool *stop;
	unsigned lane, lanes; /* this thread's words in a page, when writing */
	uint64_t inverse, rng;
	_Alignas(64) atomic_ulong ops; /* on a cache line of its own */
};

static void *reader(void *arg)
{
	struct worker *w = arg;
	const uint64_t *words = w->m->words;
	size_t count = w->m->count;
	unsigned long n = 0;

	while (!atomic_load_explicit(w->stop, memory_order_relaxed)) {
		uint64_t i = below(&w->rng, count);
		uint64_t got = words[i];

		if (got != mix(i))
			wrong_word("reading at random", i, got, mix(i));
		atomic_store_explicit(&w->ops, ++n, memory_order_relaxed);
	}
	return NULL;
}

static void *updater(void *arg)
{
	struct worker *w = arg;
	uint64_t *words = w->m->words;
	size_t pages = w->m->length / PAGE, own = PAGE_WORDS / w->lanes;
	unsigned long n = 0;

	while (!atomic_load_explicit(w->stop, memory_order_relaxed)) {
		uint64_t i = below(&w->rng, pages) * PAGE_WORDS + below(&w->rng, own) * w->lanes +
		             w->lane;
		uint64_t got = words[i];

		if ((got - mix(i)) * w->inverse > n)
			wrong_word("updating at random", i, got, mix(i));
		words[i] = got + STEP;
		atomic_store_explicit(&w->ops, ++n, memory_order_relaxed);
	}
	return NULL;
}

static uint64_t total(struct worker *w, unsigned threads)
{
	uint64_t sum = 0;

	for (unsigned t = 0; t < threads; t++)
		sum += atomic_load_explicit(&w[t].ops, memory_order_relaxed);
	return sum;
}

static void verify_updates(const struct memory *m, uint64_t expected)
{
	uint64_t inverse = step_inverse(), visits = 0;

	for (size_t i = 0; i < m->count; i++) {
		uint64_t n = (m->words[i] - mix(i)) * inverse;

		if (n > expected)
			wrong_word("verifying updates", i, m->words[i], mix(i));
		visits += n;
	}
	if (visits != expected)
		give_up(OUT_WRONG, "LOST UPDATES: %llu were made, %llu are in memory",
		        (unsigned long long)expected, (unsigned long long)visits);
}

/*
 * Fill; run the threads; once a budget's worth of pages has been missed (or the
 * warm-up has lasted long enough) measure for the set time. The threads know
 * nothing of that: they run on, and are read from outside.
 */
static void random_access(const struct settings *s, enum contender who, unsigned threads,
                          bool write, enum figure rate)
{
	static struct worker w[THREADS_MAX];
	static atomic_bool stop;
	struct memory m;

	memory_open(&m, who, s, s->region);
	fill(&m);
	uint64_t first = memory_misses(&m);
	for (unsigned t = 0; t < threads; t++) {
		w[t].m = &m;
		w[t].stop = &stop;
		w[t].lane = t;
		w[t].lanes = threads;
		w[t].inverse = step_inverse();
		w[t].rng = mix(t + 1);
		if (pthread_create(&w[t].thread, NULL, write ? updater : reader, &w[t]))
			give_up(OUT_FAILED, "pthread_create");
	}
	/* The fill has left dirty pages: reading has to get rid of them first, writing has not. */
	double start = now(), warmup = write ? s->warmup / 2 : s->warmup;
	while (now() - start < warmup && memory_misses(&m) - first < s->memory / PAGE)
		pause_for(0.05);

	uint64_t ops = total(w, threads), misses = memory_misses(&m);
	start = now();
	pause_for(s->seconds);
	ops = total(w, threads) - ops;
	misses = memory_misses(&m) - misses;
	double took = now() - start;

	atomic_store(&stop, true);
	for (unsigned t = 0; t < threads; t++)
		pthread_join(w[t].thread, NULL);
	yield_figure(rate, (double)ops / took / 1e3);
	yield_figure(rate + 1, (double)misses / took / 1e3);
	if (rate == F_READ_1)
		memory_latencies(&m, true, F_MAJOR_P50);
	else if (rate == F_READ_N)
		memory_latencies(&m, true, F_MAJOR_N_P50);
	else if (rate == F_RMW_N)
		memory_latencies(&m, true, F_RMW_N_P50);
	if (write)
		verify_updates(&m, total(w, threads));
	memory_close(&m);
}

static void read_1(const struct settings *s, enum contender who)
{
	if (who == RAW)
		raw_depth_1(s);
	else
		random_access(s, who, 1, false, F_READ_1);
}

static void read_n(const struct settings *s, enum contender who)
{
	if (who == RAW)
		raw_deep(s);
	else
		random_access(s, who, s->threads, false, F_READ_N);
}

static void rmw_1(const struct settings *s, enum contender who)
{
	random_access(s, who, 1, true, F_RMW_1);
}

static void rmw_n(const struct settings *s, enum contender who)
{
	random_access(s, who, s->threads, true, F_RMW_N);
}

/* ------------------------------------------------------------------- idle */

static void idle(const struct settings *s, enum contender who)
{
	struct memory m;
	struct rusage a, b;

	memory_open(&m, who, s, s->region);
	fill(&m);
	pause_for(1); /* what the fill left to be written is written */
	getrusage(RUSAGE_SELF, &a);
	pause_for(s->idle);
	getrusage(RUSAGE_SELF, &b);
	double used = (double)(b.ru_utime.tv_sec - a.ru_utime.tv_sec + b.ru_stime.tv_sec -
	                       a.ru_stime.tv_sec) *
	                      1e3 +
	              (double)(b.ru_utime.tv_usec - a.ru_utime.tv_usec + b.ru_stime.tv_usec -
	                       a.ru_stime.tv_usec) /
	                      1e3;
	yield_figure(F_IDLE, used * 10 / s->idle);
	memory_close(&m);
}

#define QUIRE ((1u << QUIRES) - 1)
#define PAGED (QUIRE | 1u << KERNEL)
#define ALL (PAGED | 1u << RAW)

/* clang-format off */
const struct job jobs[] = {
	{ "check", "check of words in memory", check_speed, 1u << RAW, F_CHECK, true },
	{ "touch", "first touch in order", touch_order, ALL, F_TOUCH_ORDER, false },
	{ "touch-random", "first touch at random", touch_random, ALL, F_TOUCH_RANDOM, false },
	{ "snapshot", "snapshot or fork, then writes", snapshot, PAGED, F_SNAP_CREATE, false },
	{ "scan", "fill, then scan reading", fill_and_scan, ALL, F_SCAN_READ, false },
	{ "scan-write", "scan writing", scan_write, PAGED, F_SCAN_WRITE, false },
	{ "read1", "random read, 1 thread", read_1, ALL, F_READ_1, false },
	{ "readn", "random read, N threads", read_n, ALL, F_READ_N, false },
	{ "rmw1", "random update, 1 thread", rmw_1, PAGED, F_RMW_1, false },
	{ "rmwn", "random update, N threads", rmw_n, PAGED, F_RMW_N, false },
	{ "idle", "idle pager", idle, QUIRE, F_IDLE, true },
};
/* clang-format on */
const unsigned job_count = sizeof jobs / sizeof *jobs;
