/* SPDX-License-Identifier: MIT */
/*
 * heap/malloc.c - malloc and its like.
 *
 * A large block has pages for itself. They are discarded before it is freed, so their memory and
 * their slots are free at once, and before calloc hands it out, which clears it without touching it.
 */
#include "heap/heap.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

/* Of the public function that uses it. */
#define CALLER() __builtin_return_address(0)

void heap_purge(struct quire_heap *h)
{
	heap_cache_flush(h);
	heap_control(h, "purge", NULL, 0);
}

/* Beyond this jemalloc has no size. */
static bool is_possible(struct quire_heap *h, size_t size, size_t alignment)
{
	size_t length = (size_t)(h->end - h->base);

	return size <= length && alignment <= length;
}

static void *out_of_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

static void *try_to_allocate(struct quire_heap *h, size_t size, int flags)
{
	void *p;

	do
		p = je_mallocx(size, flags);
	while (!p && heap_extents_prepare(h));
	return p;
}

/* p stays what it is if there is no room. */
static void *try_to_reallocate(struct quire_heap *h, void *p, size_t size, int flags)
{
	void *to;

	do
		to = je_rallocx(p, size, flags);
	while (!to && heap_extents_prepare(h));
	return to;
}

/* alignment: a power of two, or 0 */
static void *allocate(struct quire_heap *h, size_t size, size_t alignment, bool zero,
                      const void *caller)
{
	int flags = MALLOCX_ARENA(h->arena);
	bool is_large = size >= h->large;
	void *p;

	if (!is_possible(h, size, alignment))
		return out_of_memory();
	if (alignment)
		flags |= MALLOCX_ALIGN(alignment);
	if (zero && !is_large)
		flags |= MALLOCX_ZERO;
	flags |= is_large ? MALLOCX_TCACHE_NONE : heap_cache(h);
	size += !size;
	p = try_to_allocate(h, size, flags);
	if (!p) {
		/* What is free, but in caches, or not yet given up, may be room enough with its neighbours. */
		heap_purge(h);
		p = try_to_allocate(h, size, flags);
	}
	if (!p)
		return out_of_memory();
	if (zero && is_large && !heap_discard(h, p, je_sallocx(p, 0)))
		memset(p, 0, size);
	if (h->trace && !heap_trace_add(h->trace, p, size, caller)) {
		je_dallocx(p, MALLOCX_TCACHE_NONE);
		return out_of_memory();
	}
	return p;
}

static void release(struct quire_heap *h, void *p)
{
	size_t size = je_sallocx(p, 0);

	/* First: as soon as it is free somebody else may have it. */
	if (h->trace)
		heap_trace_remove(h->trace, p);
	if (size < h->large) {
		je_dallocx(p, heap_cache(h));
		return;
	}
	heap_discard(h, p, size);
	je_dallocx(p, MALLOCX_TCACHE_NONE);
}

void *quire_heap_malloc(quire_heap_t *h, size_t size)
{
	return allocate(h, size, 0, false, CALLER());
}

void *quire_heap_calloc(quire_heap_t *h, size_t count, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(count, size, &bytes))
		return out_of_memory();
	return allocate(h, bytes, 0, true, CALLER());
}

void *quire_heap_aligned_alloc(quire_heap_t *h, size_t alignment, size_t size)
{
	if (alignment == 0 || (alignment & (alignment - 1))) {
		errno = EINVAL;
		return NULL;
	}
	return allocate(h, size, alignment, false, CALLER());
}

void quire_heap_free(quire_heap_t *h, void *p)
{
	int error = errno;

	if (p)
		release(h, p);
	errno = error;
}

/*
 * A large block in place. What is cut off is discarded first, while nobody else can have it.
 * => whether it has size bytes now
 */
static bool resize(struct quire_heap *h, void *p, size_t old, size_t size)
{
	size_t fits = je_nallocx(size, 0);

	if (fits < old)
		heap_discard(h, (char *)p + fits, old - fits);
	while (je_xallocx(p, size, 0, MALLOCX_ARENA(h->arena)) < size)
		if (!heap_extents_prepare(h))
			return false;
	return true;
}

static void *move(struct quire_heap *h, void *p, size_t old, size_t size, const void *caller)
{
	void *to = allocate(h, size, 0, false, caller);

	if (!to)
		return NULL;
	memcpy(to, p, old < size ? old : size);
	release(h, p);
	return to;
}

/* The same block, or a neighbour of its own kind, as jemalloc has it. */
static void *resize_small(struct quire_heap *h, void *p, size_t size, const void *caller)
{
	int flags = MALLOCX_ARENA(h->arena) | heap_cache(h);
	void *to;

	/* Until it is noted again nobody looks: who reports meanwhile does not see it. */
	if (h->trace)
		heap_trace_remove(h->trace, p);
	to = try_to_reallocate(h, p, size, flags);
	if (!to) {
		heap_purge(h);
		to = try_to_reallocate(h, p, size, flags);
	}
	if (h->trace)
		heap_trace_add(h->trace, to ? to : p, size, caller);
	return to ? to : out_of_memory();
}

void *quire_heap_realloc(quire_heap_t *h, void *p, size_t size)
{
	size_t old;

	if (!p)
		return allocate(h, size, 0, false, CALLER());
	if (!size) {
		quire_heap_free(h, p);
		return NULL;
	}
	if (!is_possible(h, size, 0))
		return out_of_memory();
	old = je_sallocx(p, 0);
	if (old < h->large && size < h->large)
		return resize_small(h, p, size, CALLER());
	if (old < h->large || size < h->large || !resize(h, p, old, size))
		return move(h, p, old, size, CALLER());
	if (h->trace) {
		heap_trace_remove(h->trace, p);
		heap_trace_add(h->trace, p, size, CALLER());
	}
	return p;
}

size_t quire_heap_usable_size(quire_heap_t *h, const void *p)
{
	(void)h;
	return p ? je_sallocx(p, 0) : 0;
}

int quire_heap_trim(quire_heap_t *h)
{
	if (!h)
		return quire_error_set(EINVAL, "a NULL heap");
	heap_purge(h);
	return 0;
}
