/* SPDX-License-Identifier: MIT */
/*
 * demos/workload.c - operations on the store; see workload.h.
 *
 * In reading order: keys and values, choosing, the log, checking, latencies.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "demo.h"

/* -------------------------------------------------------- keys and values */

#define KEY_MAX 16u
#define VALUE_MIN 32u
#define VALUE_MAX (VALUE_MIN + 960u)
_Static_assert(KEY_MAX + VALUE_MAX <= STORE_ENTRY, "an entry");

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* => its length */
static size_t make_key(uint32_t key, char text[KEY_MAX])
{
	char digits[10];
	size_t n = 0, length = 5;

	memcpy(text, "user:", 5);
	do
		digits[n++] = (char)('0' + key % 10);
	while (key /= 10);
	while (n)
		text[length++] = digits[--n];
	return length;
}

/*
 * Short ones are more frequent. Each word is there twice: it can be compressed, a little.
 * => its length
 */
static size_t make_value(uint32_t seed, char value[VALUE_MAX + 16])
{
	uint64_t x = mix(seed), u = x & 1023;
	size_t length = VALUE_MIN + (u * u >> 10) * 15 / 16;

	for (size_t i = 0; i < length; i += 16) {
		x = x * 0x5851f42d4c957f2du + 0x14057b7ef767814fu;
		memcpy(value + i, &x, 8);
		memcpy(value + i + 8, &x, 8);
	}
	return length;
}

uint64_t workload_keys(size_t bytes)
{
	return bytes / 480; /* a record and its slots, and a tenth for records that are free */
}

/* --------------------------------------------------------------- choosing */

/* xorshift64*: the same sequence on each run. */
static uint64_t next_random(struct workload *w)
{
	w->random ^= w->random >> 12;
	w->random ^= w->random << 25;
	w->random ^= w->random >> 27;
	return w->random * 0x2545f4914f6cdd1du >> 11; /* 53 bits */
}

/*
 * A key by Zipf's law: the chance of rank r falls as r to the power of -skew. Ranks are spread
 * over the keys, by a prime, so that those that are often chosen are no neighbours.
 */
static uint32_t choose_key(struct workload *w)
{
	double u = (double)next_random(w) * 0x1p-53, n = (double)w->keys, s = 1 - w->skew, rank;

	rank = fabs(s) < 1e-9 ? pow(n, u) : pow(1 + u * (pow(n, s) - 1), 1 / s);
	return (uint32_t)((uint64_t)rank * 0x9e3779b1u % w->keys);
}

static uint32_t choose_seed(struct workload *w)
{
	uint32_t seed;

	do
		seed = (uint32_t)next_random(w);
	while (!seed);
	return seed;
}

/* -------------------------------------------------------------------- log */

void workload_init(struct workload *w, size_t bytes, double skew, uint64_t operations)
{
	*w = (struct workload){ .keys = workload_keys(bytes),
		                .skew = skew,
		                .random = 0x9e3779b97f4a7c15u };
	w->log_room = w->keys + operations;
	w->log = mmap(NULL, w->log_room * sizeof *w->log, PROT_READ | PROT_WRITE,
	              MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (w->log == MAP_FAILED)
		die("no memory for the log: %s", strerror(errno));
}

void workload_end(struct workload *w)
{
	munmap(w->log, w->log_room * sizeof *w->log);
}

uint64_t workload_log_bytes(const struct workload *w)
{
	return round_up(w->logged * sizeof *w->log, QUIRE_PAGE_SIZE);
}

static void apply(struct workload *w, struct store *s, struct operation o)
{
	char key[KEY_MAX], value[VALUE_MAX + 16];
	size_t length = make_key(o.key, key);
	uint64_t n = atomic_load_explicit(&w->logged, memory_order_relaxed);

	if (n == w->log_room)
		die("the log is full, after %" PRIu64 " operations", n);
	w->log[n] = o;
	atomic_store_explicit(&w->logged, n + 1, memory_order_release);
	if (o.seed)
		store_put(s, key, length, value, make_value(o.seed, value));
	else
		store_delete(s, key, length);
}

void workload_fill(struct workload *w, struct store *s)
{
	for (uint32_t key = 0; key < w->keys; key++)
		apply(w, s, (struct operation){ key, choose_seed(w) });
}

void workload_step(struct workload *w, struct store *s)
{
	bool delete = next_random(w) % 10 == 0;

	apply(w, s, (struct operation){ choose_key(w), delete ? 0 : choose_seed(w) });
}

/* --------------------------------------------------------------- checking */

static bool key_is(const struct store *s, uint32_t key, uint32_t seed)
{
	char text[KEY_MAX], expected[VALUE_MAX + 16];
	size_t length = make_key(key, text), bytes = 0;
	const char *value = store_get(s, text, length, &bytes);

	if (!seed)
		return !value;
	return value && bytes == make_value(seed, expected) && !memcmp(value, expected, bytes);
}

/* The seed of each key after so many operations, to be freed; and how many keys there are then. */
static uint32_t *replay(const struct workload *w, uint64_t sequence, uint64_t *count)
{
	uint32_t *seeds = calloc(w->keys, sizeof *seeds);

	if (!seeds)
		die("no memory");
	for (uint64_t i = 0; i < sequence; i++)
		seeds[w->log[i].key] = w->log[i].seed;
	*count = 0;
	for (uint64_t key = 0; key < w->keys; key++)
		*count += seeds[key] != 0;
	return seeds;
}

bool workload_check(const struct workload *w, const void *memory, size_t bytes, uint64_t sequence,
                    const char *name)
{
	const struct store *s = store_open(memory, bytes);
	uint64_t count, wrong = 0;
	uint32_t *seeds;

	if (!s || s->sequence != sequence) {
		fprintf(stderr, "%s: %s: %s\n", demo_name, name,
		        s ? "it is of another moment" : "it is no store");
		return false;
	}
	seeds = replay(w, sequence, &count);
	for (uint32_t key = 0; key < w->keys; key++) {
		if (key_is(s, key, seeds[key]))
			continue;
		if (wrong++ < 5)
			fprintf(stderr, "%s: %s: key %" PRIu32 " is not as the log has it\n",
			        demo_name, name, key);
	}
	free(seeds);
	if (wrong || s->count != count)
		fprintf(stderr,
		        "%s: %s: %" PRIu64 " of %" PRIu64 " keys are wrong; it has %" PRIu64
		        ", the log %" PRIu64 "\n",
		        demo_name, name, wrong, w->keys, s->count, count);
	return !wrong && s->count == count;
}

/* -------------------------------------------------------------- latencies */

void latency_add(struct latency *l, uint64_t ns)
{
	unsigned log = 63u - (unsigned)__builtin_clzll(ns | 8);

	l->bucket[log * 8 + (ns >> (log - 3) & 7)]++;
	l->count++;
	if (ns > l->longest)
		l->longest = ns;
}

uint64_t latency_of(const struct latency *l, double part)
{
	uint64_t left = (uint64_t)((double)l->count * (1 - part));

	for (unsigned i = sizeof l->bucket / sizeof *l->bucket; i-- > 3 * 8;) {
		if (l->bucket[i] > left)
			return (uint64_t)(i % 8 + 9) << (i / 8 - 3);
		left -= l->bucket[i];
	}
	return 0;
}
