/* SPDX-License-Identifier: MIT */
/*
 * preload/inner.c - memory for what libc allocates on behalf of Quire itself: see preload.h.
 *
 * A few dozen blocks in a process's life - what ld.so has before we begin, and what a thread of ours needs -
 * so each is of whole pages. The length in pages stands at a block's first one; a page that is free has 0,
 * one inside a block INSIDE.
 */
#include "preload/preload.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

enum { PAGES = 8192, INSIDE = UINT16_MAX };

static _Atomic uint16_t lengths[PAGES];
static char *_Atomic base;

static char *reserve(void)
{
	char *now = atomic_load(&base);
	char *mine;

	if (now)
		return now;
	mine = mmap(NULL, PAGES * QUIRE_PAGE_SIZE, PROT_READ | PROT_WRITE,
	            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mine == MAP_FAILED)
		return NULL;
	if (!atomic_compare_exchange_strong(&base, &now, mine)) {
		munmap(mine, PAGES * QUIRE_PAGE_SIZE);
		return now;
	}
	return mine;
}

/* => all of it is ours; or nothing, and *at is the page that was somebody's */
static bool take(unsigned *at, unsigned pages)
{
	unsigned from = *at;

	for (unsigned i = 0; i < pages; i++) {
		uint16_t is_free = 0;

		if (atomic_compare_exchange_strong(&lengths[from + i], &is_free, INSIDE))
			continue;
		*at = from + i;
		while (i--)
			atomic_store(&lengths[from + i], 0);
		return false;
	}
	return true;
}

void *inner_alloc(size_t size, size_t alignment)
{
	char *first = reserve();
	size_t pages = (size + QUIRE_PAGE_SIZE - 1) / QUIRE_PAGE_SIZE;
	size_t step = alignment > QUIRE_PAGE_SIZE ? alignment / QUIRE_PAGE_SIZE : 1;

	pages += !pages;
	if (!first || size > PAGES * QUIRE_PAGE_SIZE || step > PAGES)
		return NULL;
	for (unsigned i = 0; i + pages <= PAGES; i++) {
		if (((uintptr_t)first / QUIRE_PAGE_SIZE + i) % step)
			continue;
		if (take(&i, (unsigned)pages)) {
			atomic_store(&lengths[i], (uint16_t)pages);
			return first + i * QUIRE_PAGE_SIZE;
		}
	}
	return NULL;
}

bool inner_has(const void *p)
{
	const char *first = atomic_load_explicit(&base, memory_order_relaxed);

	return first && (size_t)((const char *)p - first) < PAGES * QUIRE_PAGE_SIZE;
}

static size_t index_of(const void *p)
{
	return (size_t)((const char *)p - atomic_load(&base)) / QUIRE_PAGE_SIZE;
}

size_t inner_size(const void *p)
{
	return atomic_load(&lengths[index_of(p)]) * QUIRE_PAGE_SIZE;
}

void inner_free(void *p)
{
	size_t at = index_of(p), pages = atomic_load(&lengths[at]);

	/* What is handed out next is zeros, as if it came from the kernel: calloc relies on it. */
	if (madvise(p, pages * QUIRE_PAGE_SIZE, MADV_DONTNEED) != 0)
		__builtin_memset(p, 0, pages * QUIRE_PAGE_SIZE);
	for (size_t i = pages; i-- > 0;)
		atomic_store(&lengths[at + i], 0);
}
