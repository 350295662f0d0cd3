/* SPDX-License-Identifier: MIT */
/*
 * preload/malloc.c - malloc and its like, in place of libc's.
 *
 * Who frees a block may be another than who allocated it, in another state: the block's address says
 * whose it is. Libc's own blocks are there in a program that is not paged only.
 */
#include "preload/preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
	void *(*malloc)(size_t);
	void *(*calloc)(size_t, size_t);
	void *(*realloc)(void *, size_t);
	void *(*memalign)(size_t, size_t);
	void (*free)(void *);
	size_t (*usable_size)(void *);
} libc;

void malloc_find_libc(void)
{
	void *found[] = { dlsym(RTLD_NEXT, "malloc"),  dlsym(RTLD_NEXT, "calloc"),
		          dlsym(RTLD_NEXT, "realloc"), dlsym(RTLD_NEXT, "memalign"),
		          dlsym(RTLD_NEXT, "free"),    dlsym(RTLD_NEXT, "malloc_usable_size") };

	_Static_assert(sizeof found == sizeof libc, "one for each");
	memcpy(&libc, found, sizeof libc);
}

/* By the heap, for the program; what Quire and libc want for themselves has to come from elsewhere. */
static bool is_paged(const void *caller)
{
	return preload_state == PAGED && !quire_inside() && !libc_keeps(caller);
}

#define CALLER() __builtin_return_address(0)

static void *inner(size_t size, size_t alignment)
{
	void *p = inner_alloc(size, alignment);

	if (!p)
		errno = ENOMEM;
	return p;
}

static void *aligned(size_t alignment, size_t size, const void *caller)
{
	if (is_paged(caller))
		return quire_heap_aligned_alloc(preload_heap, alignment, size);
	return preload_state == UNPAGED ? libc.memalign(alignment, size) : inner(size, alignment);
}

EXPORT void *malloc(size_t size)
{
	if (is_paged(CALLER()))
		return quire_heap_malloc(preload_heap, size);
	return preload_state == UNPAGED ? libc.malloc(size) : inner(size, 0);
}

EXPORT void *calloc(size_t count, size_t size)
{
	size_t bytes;

	if (is_paged(CALLER()))
		return quire_heap_calloc(preload_heap, count, size);
	if (preload_state == UNPAGED)
		return libc.calloc(count, size);
	if (__builtin_mul_overflow(count, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return inner(bytes, 0);
}

EXPORT void free(void *p)
{
	if (!p)
		return;
	if (inner_has(p))
		inner_free(p);
	else if (preload_state == PAGED)
		quire_heap_free(preload_heap, p);
	else if (preload_state == UNPAGED)
		libc.free(p);
}

EXPORT size_t malloc_usable_size(void *p)
{
	if (!p)
		return 0;
	if (inner_has(p))
		return inner_size(p);
	if (preload_state == PAGED)
		return quire_heap_usable_size(preload_heap, p);
	return preload_state == UNPAGED ? libc.usable_size(p) : 0;
}

/* To another kind of memory. */
static void *move(void *p, size_t size, const void *caller)
{
	size_t old = malloc_usable_size(p);
	void *to = aligned(16, size, caller);

	if (!to)
		return NULL;
	memcpy(to, p, old < size ? old : size);
	free(p);
	return to;
}

EXPORT void *realloc(void *p, size_t size)
{
	if (!p)
		return aligned(16, size, CALLER());
	if (!size) {
		free(p);
		return NULL;
	}
	if (inner_has(p) || quire_inside())
		return move(p, size, CALLER());
	if (preload_state == PAGED)
		return quire_heap_realloc(preload_heap, p, size);
	return libc.realloc(p, size);
}

EXPORT void *reallocarray(void *p, size_t count, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(count, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, bytes);
}

static bool is_power_of_two(size_t n)
{
	return n && !(n & (n - 1));
}

EXPORT int posix_memalign(void **out, size_t alignment, size_t size)
{
	int saved = errno;
	void *p;

	if (!is_power_of_two(alignment) || alignment % sizeof(void *))
		return EINVAL;
	p = aligned(alignment, size, CALLER());
	errno = saved;
	if (!p)
		return ENOMEM;
	*out = p;
	return 0;
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
	if (!is_power_of_two(alignment)) {
		errno = EINVAL;
		return NULL;
	}
	return aligned(alignment, size, CALLER());
}

/* As glibc's: any alignment is rounded up to a power of two. */
EXPORT void *memalign(size_t alignment, size_t size)
{
	size_t power = sizeof(void *);

	while (power < alignment && power <= SIZE_MAX / 4)
		power *= 2;
	return aligned(power, size, CALLER());
}

EXPORT void *valloc(size_t size)
{
	return aligned(QUIRE_PAGE_SIZE, size, CALLER());
}

EXPORT void *pvalloc(size_t size)
{
	size_t pages = (size + QUIRE_PAGE_SIZE - 1) & ~(QUIRE_PAGE_SIZE - 1);

	if (pages < size) {
		errno = ENOMEM;
		return NULL;
	}
	return aligned(QUIRE_PAGE_SIZE, pages, CALLER());
}

EXPORT int malloc_trim(size_t keep)
{
	(void)keep;
	if (is_paged(CALLER()))
		return quire_heap_trim(preload_heap) == 0;
	return 0;
}
