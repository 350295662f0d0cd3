/* SPDX-License-Identifier: MIT */
/*
 * heap/extents.c - the region as a source of pages for jemalloc.
 *
 * Pages are handed out from the region's start to its end, once. Nothing is taken back: jemalloc keeps
 * what is freed and uses it again, merged with its neighbours on either side, wherever the calls
 * were that they came from. What it purges is discarded, so that it costs neither memory nor swap.
 */
#include "heap/heap.h"

#include <stddef.h>

/* Of this thread: how far it would have needed leaves when it was refused; NULL: it was not */
static __thread char *wanted;

static struct quire_heap *of_hooks(extent_hooks_t *hooks)
{
	return (struct quire_heap *)((char *)hooks - offsetof(struct quire_heap, hooks));
}

static char *align(char *p, size_t alignment)
{
	return p + (-(uintptr_t)p & (alignment - 1));
}

/* What is left between two blocks is for who needs less. Too many gaps: it is lost. */
static void keep_gap(struct quire_heap *h, char *from, char *to)
{
	struct heap_gap *least = h->gaps;

	for (int i = 0; i < HEAP_GAPS; i++)
		if (h->gaps[i].to - h->gaps[i].from < least->to - least->from)
			least = &h->gaps[i];
	if (to - from > least->to - least->from)
		*least = (struct heap_gap){ from, to };
}

static char *from_gaps(struct quire_heap *h, size_t bytes, size_t alignment)
{
	for (int i = 0; i < HEAP_GAPS; i++) {
		struct heap_gap gap = h->gaps[i];
		char *p = align(gap.from, alignment);

		if (p > gap.to || (size_t)(gap.to - p) < bytes)
			continue;
		h->gaps[i] = (struct heap_gap){ p + bytes, gap.to };
		if (p > gap.from)
			keep_gap(h, gap.from, p);
		return p;
	}
	return NULL;
}

static char *from_end(struct quire_heap *h, size_t bytes, size_t alignment)
{
	char *p = align(h->next, alignment);

	if (p > h->end || (size_t)(h->end - p) < bytes)
		return NULL;
	if (p + bytes > h->prepared) {
		wanted = p + bytes;
		return NULL;
	}
	if (p > h->next)
		keep_gap(h, h->next, p);
	h->next = p + bytes;
	return p;
}

static void *give(extent_hooks_t *hooks, void *at, size_t bytes, size_t alignment, bool *zero,
                  bool *commit, unsigned arena)
{
	struct quire_heap *h = of_hooks(hooks);
	char *p = NULL;

	(void)arena;
	pthread_mutex_lock(&h->lock);
	if (!at)
		p = from_gaps(h, bytes, alignment);
	if (!p && (!at || at == h->next))
		p = from_end(h, bytes, alignment);
	pthread_mutex_unlock(&h->lock);
	if (p) {
		*zero = true; /* it never was anybody's */
		*commit = true;
	}
	return p;
}

/* => true: refused, keep it */
static bool take_back(extent_hooks_t *hooks, void *p, size_t bytes, bool committed, unsigned arena)
{
	(void)hooks;
	(void)p;
	(void)bytes;
	(void)committed;
	(void)arena;
	return true;
}

/* => true: it could not be done */
static bool purge(extent_hooks_t *hooks, void *p, size_t bytes, size_t offset, size_t length,
                  unsigned arena)
{
	struct quire_heap *h = of_hooks(hooks);

	(void)bytes;
	(void)arena;
	/* The region is about to go as a whole. */
	return h->is_ending || !heap_discard(h, (char *)p + offset, length);
}

static bool may_split(extent_hooks_t *hooks, void *p, size_t bytes, size_t a, size_t b,
                      bool committed, unsigned arena)
{
	(void)hooks;
	(void)p;
	(void)bytes;
	(void)a;
	(void)b;
	(void)committed;
	(void)arena;
	return false;
}

static bool may_merge(extent_hooks_t *hooks, void *a, size_t a_bytes, void *b, size_t b_bytes,
                      bool committed, unsigned arena)
{
	(void)hooks;
	(void)a;
	(void)a_bytes;
	(void)b;
	(void)b_bytes;
	(void)committed;
	(void)arena;
	return false;
}

void heap_extents_init(struct quire_heap *h)
{
	h->hooks = (extent_hooks_t){ .alloc = give,
		                     .dalloc = take_back,
		                     .purge_forced = purge,
		                     .split = may_split,
		                     .merge = may_merge };
	h->next = h->prepared = h->base;
}

bool heap_extents_prepare(struct quire_heap *h)
{
	char *to = wanted, *from;

	wanted = NULL;
	if (!to || to > h->end)
		return false;
	pthread_mutex_lock(&h->lock);
	from = h->prepared;
	pthread_mutex_unlock(&h->lock);
	/* As far as the leaf's end, or the heap's. */
	to = align(to, LEAF_BYTES) < h->end ? align(to, LEAF_BYTES) : h->end;
	if (from < to && !heap_leaves_make(from, to))
		return false;
	pthread_mutex_lock(&h->lock);
	if (to > h->prepared)
		h->prepared = to;
	pthread_mutex_unlock(&h->lock);
	return true;
}

bool heap_discard(struct quire_heap *h, void *p, size_t bytes)
{
	char *from = align(p, QUIRE_PAGE_SIZE), *to = (char *)p + bytes;

	to -= (uintptr_t)to & (QUIRE_PAGE_SIZE - 1);
	if (from >= to)
		return true;
	return quire_advise(h->region, (size_t)(from - h->base), (size_t)(to - from),
	                    QUIRE_ADVISE_DONTNEED) == 0;
}
