/* SPDX-License-Identifier: MIT */
/*
 * heap/trace.c - who allocated what is still there: a leak report, as mtrace(3) makes one.
 *
 * A hash table from a block's address to its size and caller: linear probing, at most half full,
 * twice as long when that is reached; a removed entry's followers move up, so there are no tombstones.
 * Its memory is jemalloc's own, not the heap's.
 */
#include "heap/heap.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct block {
	const void *at; /* NULL: a free place */
	const void *caller;
	size_t bytes;
};

struct heap_trace {
	pthread_mutex_t lock;
	struct block *table; /* lock, and all below */
	size_t places;       /* a power of two */
	size_t used;
};

enum { FIRST_PLACES = 1024 };

static struct block *new_table(size_t places)
{
	return je_mallocx(places * sizeof(struct block), HEAP_INTERNAL | MALLOCX_ZERO);
}

struct heap_trace *heap_trace_open(void)
{
	struct heap_trace *t = je_mallocx(sizeof *t, HEAP_INTERNAL | MALLOCX_ZERO);

	if (!t)
		return NULL;
	t->table = new_table(FIRST_PLACES);
	if (!t->table) {
		je_dallocx(t, HEAP_INTERNAL);
		return NULL;
	}
	t->places = FIRST_PLACES;
	pthread_mutex_init(&t->lock, NULL);
	return t;
}

void heap_trace_close(struct heap_trace *t)
{
	if (!t)
		return;
	je_dallocx(t->table, MALLOCX_TCACHE_NONE);
	pthread_mutex_destroy(&t->lock);
	je_dallocx(t, MALLOCX_TCACHE_NONE);
}

void heap_trace_lock(struct heap_trace *t)
{
	if (t)
		pthread_mutex_lock(&t->lock);
}

void heap_trace_unlock(struct heap_trace *t)
{
	if (t)
		pthread_mutex_unlock(&t->lock);
}

/* Where a block would be if the table had it alone. (Fibonacci hashing: Knuth, volume 3, 6.4) */
static size_t home(const struct heap_trace *t, const void *at)
{
	uint64_t key = (uint64_t)(uintptr_t)at * UINT64_C(0x9E3779B97F4A7C15);

	return (size_t)(key >> 32) & (t->places - 1);
}

/* Where it is, or the free place where it would be. */
static size_t find(const struct heap_trace *t, const void *at)
{
	size_t i = home(t, at);

	while (t->table[i].at && t->table[i].at != at)
		i = (i + 1) & (t->places - 1);
	return i;
}

static bool grow(struct heap_trace *t)
{
	struct block *old = t->table, *table = new_table(2 * t->places);
	size_t places = t->places;

	if (!table)
		return false;
	t->table = table;
	t->places = 2 * places;
	for (size_t i = 0; i < places; i++)
		if (old[i].at)
			t->table[find(t, old[i].at)] = old[i];
	je_dallocx(old, MALLOCX_TCACHE_NONE);
	return true;
}

bool heap_trace_add(struct heap_trace *t, const void *at, size_t bytes, const void *caller)
{
	bool is_room;

	if (!t)
		return true;
	pthread_mutex_lock(&t->lock);
	is_room = 2 * (t->used + 1) <= t->places || grow(t);
	if (is_room) {
		t->table[find(t, at)] = (struct block){ at, caller, bytes };
		t->used++;
	}
	pthread_mutex_unlock(&t->lock);
	return is_room;
}

/* May what is at `from` be at `hole`, before it? Not if its home lies between the two. */
static bool may_move(const struct heap_trace *t, size_t hole, size_t from)
{
	size_t mask = t->places - 1;
	size_t at_home = home(t, t->table[from].at);

	return ((from - at_home) & mask) >= ((from - hole) & mask);
}

void heap_trace_remove(struct heap_trace *t, const void *at)
{
	size_t i, hole;

	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	hole = find(t, at);
	if (t->table[hole].at) {
		t->used--;
		for (i = (hole + 1) & (t->places - 1); t->table[i].at;
		     i = (i + 1) & (t->places - 1))
			if (may_move(t, hole, i)) {
				t->table[hole] = t->table[i];
				hole = i;
			}
		t->table[hole].at = NULL;
	}
	pthread_mutex_unlock(&t->lock);
}

/* ----------------------------------------------------------------- report */

static int by_caller(const void *a, const void *b)
{
	const struct block *x = a, *y = b;

	return (x->caller > y->caller) - (x->caller < y->caller);
}

static int by_bytes(const void *a, const void *b)
{
	const struct block *x = a, *y = b;

	return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

/* A line a caller: block.at is a count there. => how many callers */
static size_t sum(struct block *list, size_t count)
{
	size_t callers = 0;

	qsort(list, count, sizeof *list, by_caller);
	for (size_t i = 0; i < count; i++) {
		struct block *last = &list[callers ? callers - 1 : 0];

		if (callers && last->caller == list[i].caller) {
			last->bytes += list[i].bytes;
			last->at = (const void *)((uintptr_t)last->at + 1);
		} else {
			list[callers] = list[i];
			list[callers++].at = (const void *)(uintptr_t)1;
		}
	}
	qsort(list, callers, sizeof *list, by_bytes);
	return callers;
}

/* As backtrace_symbols(3) writes it: file(function+offset) [address]. */
static void print_caller(FILE *stream, const void *caller)
{
	Dl_info info;

	if (!dladdr(caller, &info) || !info.dli_fname)
		fprintf(stream, "[%p]\n", caller);
	else if (info.dli_sname)
		fprintf(stream, "%s(%s+0x%zx) [%p]\n", info.dli_fname, info.dli_sname,
		        (size_t)((const char *)caller - (const char *)info.dli_saddr), caller);
	else
		fprintf(stream, "%s(+0x%zx) [%p]\n", info.dli_fname,
		        (size_t)((const char *)caller - (const char *)info.dli_fbase), caller);
}

/* => a copy of all that is noted, or NULL */
static struct block *copy(struct heap_trace *t, size_t *count)
{
	struct block *list;

	*count = 0;
	pthread_mutex_lock(&t->lock);
	list = new_table(t->used + 1);
	for (size_t i = 0; list && i < t->places; i++)
		if (t->table[i].at)
			list[(*count)++] = t->table[i];
	pthread_mutex_unlock(&t->lock);
	return list;
}

int quire_heap_leaks(quire_heap_t *h, FILE *stream)
{
	size_t count, callers, bytes = 0;
	struct block *list;

	if (!h || !stream)
		return quire_error_set(EINVAL, "a NULL heap or stream");
	if (!h->trace)
		return quire_error_set(ENOTSUP, "this heap was made without trace");
	list = copy(h->trace, &count);
	if (!list)
		return quire_error_set(ENOMEM, "no memory for a list of %zu blocks", count);
	for (size_t i = 0; i < count; i++)
		bytes += list[i].bytes;
	fprintf(stream, "%zu blocks, %zu bytes not freed\n", count, bytes);
	callers = sum(list, count);
	if (callers)
		fprintf(stream, "%12s %14s  allocated by\n", "blocks", "bytes");
	for (size_t i = 0; i < callers; i++) {
		fprintf(stream, "%12zu %14zu  ", (size_t)(uintptr_t)list[i].at, list[i].bytes);
		print_caller(stream, list[i].caller);
	}
	je_dallocx(list, MALLOCX_TCACHE_NONE);
	if (fflush(stream) != 0 || ferror(stream))
		return quire_error_set(EIO, "the report could not be written");
	return count < INT32_MAX ? (int)count : INT32_MAX;
}
