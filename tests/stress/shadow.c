/* SPDX-License-Identifier: MIT */
/*
 * tests/stress/shadow.c - what each word of managed memory must hold.
 *
 * A value is a bijection of (generation of the region, index, version) with the
 * seed's key, so that a wrong word can be taken apart: a version older than the
 * expected one is a lost write, another index a misplaced page. Zero is version 0.
 *
 * A counter's shadow has two sums: adds begun and adds finished. At any instant
 * the word lies between them, whatever the other threads do; when nobody is in
 * the arena the three are equal.
 *
 * Neighbours: ops.c makes the accesses; watch.c reports stalls with stress_fail.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

struct round round_now;
__thread struct worker *this_worker;

static uint16_t generations;
static unsigned failing;

/* ------------------------------------------------------------- values */

uint64_t random_next(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static uint64_t unmix(uint64_t z)
{
	z = (z ^ z >> 31 ^ z >> 62) * 0x319642b2d24d8ec3u;
	z = (z ^ z >> 27 ^ z >> 54) * 0x96de1b173f119089u;
	return z ^ z >> 30 ^ z >> 60;
}

uint64_t word_value(const struct arena *a, size_t index, uint16_t version)
{
	if (version == 0)
		return 0;
	return mix((((uint64_t)a->generation << 48) | (uint64_t)index << 16 | version) ^
	           round_now.key);
}

/* ------------------------------------------------------------ failure */

static unsigned worker_id(void)
{
	return this_worker ? this_worker->id : THREADS_MAX;
}

void stress_fail(const char *format, ...)
{
	static char text[4096];
	char command[1024];
	va_list ap;
	int n;

	/* Only the first failure speaks; the others wait for its abort. */
	while (__atomic_exchange_n(&failing, 1, __ATOMIC_ACQ_REL))
		pause();
	va_start(ap, format);
	n = vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (n > (int)sizeof text - 1)
		n = sizeof text - 1;
	repeat_command(command, sizeof command);
	dprintf(STDERR_FILENO, "stress: FAILED\n%.*s\nrepeat with: %s\n", n, text, command);
	abort();
}

static void describe(char *out, size_t size, const struct arena *a, size_t index, uint64_t got)
{
	uint64_t payload = unmix(got) ^ round_now.key;
	unsigned generation = payload >> 48, version = payload & 0xffff;
	size_t place = payload >> 16 & 0xffffffff;
	const struct arena *other = NULL;

	for (unsigned i = 0; i < round_now.config->arenas; i++)
		if (round_now.arena[i].generation == generation)
			other = &round_now.arena[i];
	if (got == 0)
		snprintf(out, size, "zeros");
	else if (generation == a->generation && place == index)
		snprintf(out, size, "version %u of this very word", version);
	else if (generation == a->generation && place < a->pages * WORDS)
		snprintf(out, size, "version %u of page %zu word %zu of the same region", version,
		         place / WORDS, place % WORDS);
	else if (other && place < other->pages * WORDS)
		snprintf(out, size, "version %u of page %zu word %zu of another region", version,
		         place / WORDS, place % WORDS);
	else if (generation != 0 && generation <= generations && place < (1u << 26))
		snprintf(out, size,
		         "version %u of page %zu word %zu of a destroyed region "
		         "(generation %u, now %u)",
		         version, place / WORDS, place % WORDS, generation, a->generation);
	else
		snprintf(out, size, "nothing that was ever written");
}

void arena_wrong_word(struct arena *a, size_t index, uint64_t want, uint64_t got)
{
	uint64_t again = word_load(a->base + index);
	size_t page = index / WORDS, first = page * WORDS, wrong = 0;
	unsigned owner = 0;
	bool private = arena_private(a, page, &owner);
	char what[200], now[200];

	describe(what, sizeof what, a, index, got);
	describe(now, sizeof now, a, index, again);
	for (size_t i = private ? 0 : COUNTERS; i < WORDS; i++)
		wrong += word_load(a->base + first + i) !=
		         word_value(a, first + i, a->version[first + i]);
	stress_fail("wrong word: region %zu (generation %u, base %p, %zu pages), offset %#zx "
	            "(page %zu, word %zu, %s)\n"
	            "  expected %016llx: version %u\n"
	            "  got      %016llx: %s\n"
	            "  now      %016llx: %s\n"
	            "  of the page's words %zu differ from the shadow (others may be writing)\n"
	            "  thread %u, doing: %s",
	            (size_t)(a - round_now.arena), a->generation, (void *)a->base, a->pages,
	            index * sizeof(uint64_t), page, index % WORDS, private ? "private" : "striped",
	            (unsigned long long)want, a->version[index], (unsigned long long)got, what,
	            (unsigned long long)again, again == want ? "as expected" : now, wrong,
	            worker_id(), this_worker ? this_worker->what : "main");
}

/* ------------------------------------------------------------- shadows */

static void *touched(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED) {
		perror("stress: shadow");
		exit(2);
	}
	memset(p, 0, bytes);
	return p;
}

static void arena_init(struct arena *a, size_t pages_max)
{
	pthread_rwlockattr_t attr;

	memset(a, 0, sizeof *a);
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&a->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	a->pages_max = pages_max;
	a->version = touched(pages_max * WORDS * sizeof *a->version);
	a->started = touched(pages_max * COUNTERS * sizeof *a->started);
	a->done = touched(pages_max * COUNTERS * sizeof *a->done);
}

static void arena_fini(struct arena *a)
{
	munmap(a->version, a->pages_max * WORDS * sizeof *a->version);
	munmap(a->started, a->pages_max * COUNTERS * sizeof *a->started);
	munmap(a->done, a->pages_max * COUNTERS * sizeof *a->done);
	pthread_rwlock_destroy(&a->lock);
}

void shadow_init(struct config *c)
{
	size_t pages = c->memory / QUIRE_PAGE_SIZE * c->factor / c->arenas;

	memset(&round_now, 0, sizeof round_now);
	round_now.config = c;
	round_now.key = mix(c->seed + 1);
	pages = (pages + EXTENT_PAGES - 1) / EXTENT_PAGES * EXTENT_PAGES;
	for (unsigned i = 0; i < c->arenas; i++)
		arena_init(&round_now.arena[i], pages ? pages : EXTENT_PAGES);
	arena_init(&round_now.signal_arena, c->threads * SIGNAL_PAGES);
}

void shadow_free(void)
{
	for (unsigned i = 0; i < round_now.config->arenas; i++)
		arena_fini(&round_now.arena[i]);
	arena_fini(&round_now.signal_arena);
}

/* Two extents in five are private. */
bool arena_private(const struct arena *a, size_t page, unsigned *owner)
{
	uint64_t h = mix((page / EXTENT_PAGES + 1) * 0x9e3779b97f4a7c15u ^ a->generation);

	*owner = (h >> 32) % round_now.config->threads;
	return h % 5 < 2;
}

void arena_create(struct arena *a, size_t pages)
{
	struct quire_region_options o = { .size = sizeof o, .name = "stress" };
	int r = quire_region_create(round_now.q, pages * QUIRE_PAGE_SIZE, &o, &a->region);

	if (r)
		stress_fail("quire_region_create(%zu pages): %d %s", pages, r,
		            quire_error_message());
	a->base = quire_region_base(a->region);
	a->pages = pages;
	a->generation = __atomic_add_fetch(&generations, 1, __ATOMIC_RELAXED);
	arena_forget(a, 0, pages);
}

void arena_destroy(struct arena *a)
{
	int r = quire_region_destroy(a->region);

	if (r)
		stress_fail("quire_region_destroy: %d %s", r, quire_error_message());
	a->region = NULL;
	a->base = NULL;
	a->pages = 0;
}

void arena_forget(struct arena *a, size_t page, size_t count)
{
	memset(a->version + page * WORDS, 0, count * WORDS * sizeof *a->version);
	memset(a->started + page * COUNTERS, 0, count * COUNTERS * sizeof *a->started);
	memset(a->done + page * COUNTERS, 0, count * COUNTERS * sizeof *a->done);
}

struct arena *arena_of(const void *address, size_t *offset)
{
	uintptr_t p = (uintptr_t)address;

	for (unsigned i = 0; i <= round_now.config->arenas; i++) {
		struct arena *a = i < round_now.config->arenas ? &round_now.arena[i] :
		                                                 &round_now.signal_arena;

		if (a->base && p - (uintptr_t)a->base < a->pages * QUIRE_PAGE_SIZE) {
			*offset = p - (uintptr_t)a->base;
			return a;
		}
	}
	return NULL;
}

/* ------------------------------------------------------------ accesses */

void arena_check_word(struct arena *a, size_t index)
{
	uint64_t got = word_load(a->base + index);
	uint64_t want = word_value(a, index, a->version[index]);

	if (got != want)
		arena_wrong_word(a, index, want, got);
}

/* A word that another thread may be writing: some version of this very word. */
void arena_check_stranger(struct arena *a, size_t index)
{
	uint64_t got = word_load(a->base + index);
	uint64_t payload = unmix(got) ^ round_now.key;

	if (got != 0 && (payload >> 48 != a->generation || (payload >> 16 & 0xffffffff) != index))
		arena_wrong_word(a, index, word_value(a, index, a->version[index]), got);
}

/*
 * Writes the next version of a word that this thread owns, by a plain store,
 * an exchange that checks what was there, or an add that needs it to be there.
 */
void arena_write_word(struct arena *a, size_t index, uint64_t how)
{
	uint16_t old = a->version[index], new = old == UINT16_MAX ? 1 : old + 1;
	uint64_t was = word_value(a, index, old), will = word_value(a, index, new), got;

	switch (how % 4) {
	case 0:
		got = __atomic_exchange_n(a->base + index, will, __ATOMIC_RELAXED);
		break;
	case 1:
		got = __atomic_fetch_add(a->base + index, will - was, __ATOMIC_RELAXED);
		break;
	default:
		got = was;
		word_store(a->base + index, will);
		break;
	}
	if (got != was)
		arena_wrong_word(a, index, was, got);
	a->version[index] = new;
}

void arena_add(struct arena *a, size_t index, uint64_t amount)
{
	size_t c = index / WORDS * COUNTERS + index % WORDS;
	uint64_t low = __atomic_load_n(&a->done[c], __ATOMIC_SEQ_CST), got, high;

	__atomic_fetch_add(&a->started[c], amount, __ATOMIC_SEQ_CST);
	got = __atomic_fetch_add(a->base + index, amount, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&a->done[c], amount, __ATOMIC_SEQ_CST);
	high = __atomic_load_n(&a->started[c], __ATOMIC_SEQ_CST);
	if (got < low || got + amount > high)
		stress_fail("wrong counter: region %zu (generation %u), offset %#zx: %llu before "
		            "the add of %llu, allowed %llu to %llu; thread %u",
		            (size_t)(a - round_now.arena), a->generation, index * sizeof(uint64_t),
		            (unsigned long long)got, (unsigned long long)amount,
		            (unsigned long long)low, (unsigned long long)(high - amount),
		            worker_id());
}

/* The words of a page that this thread can vouch for; all: nobody else is in the arena. */
void arena_check_page(struct arena *a, size_t page, bool all)
{
	unsigned threads = round_now.config->threads, owner;
	size_t first = page * WORDS, step = 1, i = 0;

	if (!arena_private(a, page, &owner)) {
		for (; all && i < COUNTERS; i++) {
			uint64_t got = word_load(a->base + first + i);
			uint64_t want = a->done[page * COUNTERS + i];

			if (got != want)
				stress_fail("lost add: region %zu (generation %u), offset %#zx: "
				            "sum %llu, expected %llu (%lld)",
				            (size_t)(a - round_now.arena), a->generation,
				            (first + i) * sizeof(uint64_t), (unsigned long long)got,
				            (unsigned long long)want, (long long)(got - want));
		}
		i = COUNTERS;
		if (!all) {
			step = threads;
			i += (worker_id() + threads - COUNTERS % threads) % threads;
		}
	} else if (!all && owner != worker_id()) {
		return;
	}
	for (; i < WORDS; i += step)
		arena_check_word(a, first + i);
}

void arena_check_range(struct arena *a, size_t page, size_t count)
{
	for (size_t p = page; p < page + count; p++) {
		arena_check_page(a, p, true);
		if (this_worker)
			__atomic_fetch_add(&this_worker->ops, 1, __ATOMIC_RELAXED);
	}
}
