/* SPDX-License-Identifier: MIT */
/*
 * tests/stress/ops.c - what a worker does with one page, or a few pages of its
 * own: reads, writes, copies across words and pages, discards, protection, pins,
 * system calls.
 *
 * Neighbours: worker.c chooses the pages; shadow.c says what each word must
 * hold and fails the run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

/* Pins of all workers together; a quarter of the smallest budget. */
#define PINS_MAX 16u
#define PIN_PAGES 3u

/* Pages of one private extent. */
struct span {
	size_t page, count;
};

uint64_t rnd(struct worker *w)
{
	return random_next(&w->random);
}

void now_doing(struct worker *w, const char *what)
{
	__atomic_store_n(&w->what, what, __ATOMIC_RELAXED);
	__atomic_fetch_add(&w->ops, 1, __ATOMIC_RELAXED);
}

void must(int result, const char *call)
{
	if (result)
		stress_fail("%s: %d, %s", call, result, quire_error_message());
}

/* ------------------------------------------- several words of my own */

static size_t span_words(struct worker *w, struct span s, size_t *first)
{
	size_t words = s.count * WORDS, from = rnd(w) % words;
	size_t n = rnd(w) % 2 ? 1 + rnd(w) % (words - from) : 1 + rnd(w) % 64;

	*first = s.page * WORDS + from;
	return n < words - from ? n : words - from;
}

/* Copies in two parts that meet at an odd byte, so that stores cross words and pages. */
static void copy_unaligned(struct worker *w, void *to, const void *from, size_t bytes)
{
	size_t cut = rnd(w) % 16 % bytes;

	memcpy(to, from, cut);
	memcpy((char *)to + cut, (const char *)from + cut, bytes - cut);
}

static void next_versions(struct worker *w, struct arena *a, size_t first, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t v = a->version[first + i];

		w->bounce[i] = word_value(a, first + i, v == UINT16_MAX ? 1 : v + 1);
	}
}

static void versions_written(struct arena *a, size_t first, size_t n)
{
	for (size_t i = 0; i < n; i++)
		a->version[first + i] = a->version[first + i] == UINT16_MAX ?
		                                1 :
		                                a->version[first + i] + 1;
}

static void check_bounce(struct worker *w, struct arena *a, size_t first, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t want = word_value(a, first + i, a->version[first + i]);

		if (w->bounce[i] != want)
			arena_wrong_word(a, first + i, want, w->bounce[i]);
	}
}

static void span_write(struct worker *w, struct arena *a, struct span s)
{
	size_t first, n = span_words(w, s, &first);

	now_doing(w, "copying into memory");
	next_versions(w, a, first, n);
	copy_unaligned(w, a->base + first, w->bounce, n * sizeof(uint64_t));
	versions_written(a, first, n);
}

static void span_check(struct worker *w, struct arena *a, struct span s)
{
	size_t first, n = span_words(w, s, &first);

	now_doing(w, "copying out of memory");
	copy_unaligned(w, w->bounce, a->base + first, n * sizeof(uint64_t));
	check_bounce(w, a, first, n);
}

/* One 8-byte load and store across a page boundary. */
static void straddle(struct worker *w, struct arena *a, struct span s)
{
	size_t i = (s.page + s.count - 1) * WORDS;
	uint64_t want[2], both;
	char *p = (char *)(a->base + i - 1);

	if (s.count < 2)
		return;
	now_doing(w, "an access across pages");
	for (int k = 0; k < 2; k++)
		want[k] = word_value(a, i - 1 + k, a->version[i - 1 + k]);
	both = ((volatile struct { uint64_t v; } __attribute__((packed)) *)(p + 4))->v;
	if (both != (want[0] >> 32 | want[1] << 32))
		arena_wrong_word(a, i, want[0] >> 32 | want[1] << 32, both);
	next_versions(w, a, i - 1, 2);
	both = w->bounce[0] >> 32 | w->bounce[1] << 32;
	((volatile struct { uint64_t v; } __attribute__((packed)) *)(p + 4))->v = both;
	*(volatile uint32_t *)p = w->bounce[0];
	*(volatile uint32_t *)(p + 12) = w->bounce[1] >> 32;
	versions_written(a, i - 1, 2);
}

static void zero_pages(struct worker *w, struct arena *a, struct span s)
{
	now_doing(w, "writing zeros");
	memset(a->base + s.page * WORDS, 0, s.count * QUIRE_PAGE_SIZE);
	arena_forget(a, s.page, s.count);
}

/* Pages that may or may not have been discarded, but each as a whole. */
static void settle(struct arena *a, struct span s)
{
	for (size_t p = s.page; p < s.page + s.count; p++) {
		for (size_t i = p * WORDS; i < (p + 1) * WORDS; i++)
			if (a->version[i]) {
				if (word_load(a->base + i) == 0)
					arena_forget(a, p, 1);
				break;
			}
		arena_check_page(a, p, true);
	}
}

static void discard(struct worker *w, struct arena *a, struct span s)
{
	int r;

	now_doing(w, "DONTNEED");
	if (round_now.config->madvise && rnd(w) % 2) {
		if (madvise(a->base + s.page * WORDS, s.count * QUIRE_PAGE_SIZE, MADV_DONTNEED)) {
			/* Another worker has pinned one of the pages. */
			if (errno != EINVAL || !round_now.config->pins)
				stress_fail("madvise: %s", strerror(errno));
			settle(a, s);
			return;
		}
		arena_forget(a, s.page, s.count);
		arena_check_page(a, s.page + rnd(w) % s.count, true);
		return;
	}
	r = quire_advise(a->region, s.page * QUIRE_PAGE_SIZE, s.count * QUIRE_PAGE_SIZE,
	                 QUIRE_ADVISE_DONTNEED);
	if (r == -EBUSY && round_now.config->pins) {
		settle(a, s);
		return;
	}
	must(r, "quire_advise(DONTNEED)");
	arena_forget(a, s.page, s.count);
	if (rnd(w) % 2)
		arena_check_page(a, s.page + rnd(w) % s.count, true);
}

static void protect(struct worker *w, struct arena *a, struct span s)
{
	size_t at = s.page * QUIRE_PAGE_SIZE, length = s.count * QUIRE_PAGE_SIZE;
	int r;

	now_doing(w, "protecting");
	r = quire_protect(a->region, at, length, PROT_READ);
	if (r == -ENOMEM)
		return;
	must(r, "quire_protect(PROT_READ)");
	span_check(w, a, s);
	must(quire_protect(a->region, at, length, PROT_READ | PROT_WRITE), "quire_protect");
	span_write(w, a, s);
}

/* ------------------------------------------------------ pins, kernel */

static bool pin(struct worker *w, struct arena *a, struct span s)
{
	int r;

	if (__atomic_add_fetch(&round_now.pinned, s.count, __ATOMIC_RELAXED) <= PINS_MAX) {
		now_doing(w, "pinning");
		r = quire_pin(a->region, s.page * QUIRE_PAGE_SIZE, s.count * QUIRE_PAGE_SIZE);
		if (!r)
			return true;
		if (r != -ENOMEM)
			must(r, "quire_pin");
	}
	__atomic_sub_fetch(&round_now.pinned, s.count, __ATOMIC_RELAXED);
	return false;
}

static void unpin(struct worker *w, struct arena *a, struct span s)
{
	now_doing(w, "unpinning");
	must(quire_unpin(a->region, s.page * QUIRE_PAGE_SIZE, s.count * QUIRE_PAGE_SIZE),
	     "quire_unpin");
	__atomic_sub_fetch(&round_now.pinned, s.count, __ATOMIC_RELAXED);
}

/* Pinned pages are in memory. */
static void check_resident(struct arena *a, struct span s)
{
	unsigned char in[EXTENT_PAGES];

	if (mincore(a->base + s.page * WORDS, s.count * QUIRE_PAGE_SIZE, in))
		stress_fail("mincore: %s", strerror(errno));
	for (size_t i = 0; i < s.count; i++)
		if (!(in[i] & 1))
			stress_fail("pinned page %zu of region %zu is not resident", s.page + i,
			            (size_t)(a - round_now.arena));
}

/* Hands the span to the kernel: out to a file and back, or in from it. */
static void system_call(struct worker *w, struct arena *a, struct span s)
{
	size_t first, n, bytes;
	bool pinned = false, in = rnd(w) % 2;
	uint64_t *p;

	if (!round_now.syscalls_fault || rnd(w) % 8 == 0) {
		s.count = s.count < PIN_PAGES ? s.count : PIN_PAGES;
		pinned = round_now.config->pins && pin(w, a, s);
		if (!pinned && !round_now.syscalls_fault)
			return;
	}
	n = span_words(w, s, &first);
	bytes = n * sizeof(uint64_t);
	p = a->base + first;
	now_doing(w, in ? "pread into memory" : "pwrite from memory");
	if (in) {
		next_versions(w, a, first, n);
		if (pwrite(w->file, w->bounce, bytes, 0) != (ssize_t)bytes)
			stress_fail("pwrite: %s", strerror(errno));
	}
	for (size_t done = 0; done < bytes;) {
		ssize_t r = in ? pread(w->file, (char *)p + done, bytes - done, done) :
		                 pwrite(w->file, (char *)p + done, bytes - done, done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			stress_fail("%s a %s page: %s", in ? "pread into" : "pwrite from",
			            pinned ? "pinned" : "managed", r ? strerror(errno) : "ended");
		done += r;
	}
	if (in) {
		versions_written(a, first, n);
	} else {
		if (pread(w->file, w->bounce, bytes, 0) != (ssize_t)bytes)
			stress_fail("pread: %s", strerror(errno));
		check_bounce(w, a, first, n);
	}
	if (pinned)
		unpin(w, a, s);
}

/* --------------------------------------------------------- one page */

static void private_page(struct worker *w, struct arena *a, size_t page)
{
	const struct config *c = round_now.config;
	size_t end = page / EXTENT_PAGES * EXTENT_PAGES + EXTENT_PAGES;
	struct span s = { .page = page };

	end = end < a->pages ? end : a->pages;
	s.count = rnd(w) % 2 ? 1 : 1 + rnd(w) % (end - page);
	switch (rnd(w) % 16) {
	case 0:
	case 1:
	case 2:
		span_write(w, a, s);
		break;
	case 3:
	case 4:
	case 5:
		span_check(w, a, s);
		break;
	case 6:
		now_doing(w, "checking its pages");
		arena_check_page(a, page, true);
		break;
	case 7:
		straddle(w, a, s);
		break;
	case 8:
		discard(w, a, s);
		break;
	case 9:
		if (rnd(w) % 4 == 0)
			zero_pages(w, a, s);
		break;
	case 10:
		if (c->protect && rnd(w) % 4 == 0)
			protect(w, a, s);
		break;
	case 11:
		if (c->syscalls)
			system_call(w, a, s);
		break;
	default: {
		size_t i = page * WORDS + rnd(w) % WORDS;

		now_doing(w, "writing and reading its words");
		if (rnd(w) % 2)
			arena_check_word(a, i);
		if (rnd(w) % 2)
			arena_write_word(a, i, rnd(w));
		break;
	}
	}
}

static void striped_page(struct worker *w, struct arena *a, size_t page)
{
	unsigned threads = round_now.config->threads;
	size_t mine = COUNTERS + (w->id + threads - COUNTERS % threads) % threads;
	size_t count = (WORDS - mine + threads - 1) / threads, first = page * WORDS + mine;
	uint64_t how = rnd(w);

	switch (how >> 8 & 7) {
	case 0:
	case 1:
		now_doing(w, "adding to a counter");
		arena_add(a, page * WORDS + rnd(w) % COUNTERS, 1 + (how >> 16 & 0xff));
		break;
	case 2:
		now_doing(w, "checking its stripe");
		arena_check_page(a, page, false);
		break;
	case 3:
		now_doing(w, "writing its stripe");
		for (size_t i = 0; i < count; i++)
			arena_write_word(a, first + i * threads, how);
		break;
	case 4:
		now_doing(w, "reading another's word");
		arena_check_stranger(a, page * WORDS + COUNTERS + rnd(w) % (WORDS - COUNTERS));
		break;
	default: {
		size_t i = first + rnd(w) % count * threads;

		now_doing(w, "writing and reading its words of a shared page");
		if (how & 16)
			arena_check_word(a, i);
		if (how & 32)
			arena_write_word(a, i, how);
		if (how & 64)
			arena_check_word(a, i);
		break;
	}
	}
}

/*
 * Faults in a page whose words belong to another thread, which may be writing
 * them by stores of any width, memcpy and system calls. That is a data race, and
 * meant to be one: the pager has to bear what programs do. The value is not used.
 * So ThreadSanitizer does not look at this one load.
 */
__attribute__((noinline, no_sanitize("thread"))) static void touch_strange(const uint64_t *word)
{
	(void)*(const volatile uint64_t *)word;
}

void visit_page(struct worker *w, struct arena *a, size_t page)
{
	unsigned owner;

	if (!arena_private(a, page, &owner))
		striped_page(w, a, page);
	else if (owner == w->id)
		private_page(w, a, page);
	else if (rnd(w) % 4 == 0)
		touch_strange(a->base + page * WORDS + rnd(w) % WORDS);
}

void visit_pinned(struct worker *w, struct arena *a, size_t page)
{
	struct span s = { .page = page, .count = 1 + rnd(w) % PIN_PAGES };

	if (s.page + s.count > a->pages || !pin(w, a, s))
		return;
	check_resident(a, s);
	for (int i = 0; i < 8; i++)
		visit_page(w, a, s.page + rnd(w) % s.count);
	if (rnd(w) % 4 == 0)
		sched_yield();
	check_resident(a, s);
	unpin(w, a, s);
}
