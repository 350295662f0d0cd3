/* SPDX-License-Identifier: MIT */
/*
 * heap/heap.h - the inside of a heap: malloc on a region. A client of quire.h alone.
 *
 *   heap.c      options, create and destroy
 *   malloc.c    malloc and its like
 *   extents.c   the region as jemalloc's source of pages
 *   leaves.c    what jemalloc must know of addresses before they are handed out
 *   cache.c     each thread's cache of freed blocks; fork
 *   trace.c     who allocated what is still there
 *   info.c      figures
 *   jemalloc.c  settings of jemalloc, which does the rest
 *
 * One jemalloc arena a heap. What it knows of its blocks is in memory of its own, beside the pager:
 * malloc and free touch no page of the region. Small blocks share pages; from `large` bytes on
 * a block's pages are given up (quire_advise) before the block is.
 *
 * Locks, in order: `caches` (cache.c), a trace's, `leaves`, jemalloc's, a heap's `lock`, the pager's. Cache.c
 * says how fork keeps to that.
 */
#ifndef QUIRE_HEAP_H
#define QUIRE_HEAP_H

#include "heap/jemalloc.h"

#include <quire.h>

#include <pthread.h>
#include <stdint.h>

/* Of the region, between two blocks that had to be aligned. */
struct heap_gap {
	char *from, *to;
};

enum { HEAP_GAPS = 32 };

#define LEAF_BYTES ((uintptr_t)1 << 30) /* addresses that a leaf of jemalloc's is for */

struct heap_trace;

struct quire_heap {
	quire_region_t *region; /* these are set before anybody has it */
	char *base, *end;
	extent_hooks_t hooks;
	unsigned arena;
	uint64_t serial; /* no other heap's, ever */
	size_t large;
	struct heap_trace *trace; /* NULL: none is kept */
	bool is_ending;           /* it is being destroyed: nobody uses it */

	pthread_mutex_t lock;
	char *next;                      /* lock: from here on nothing has been handed out */
	char *prepared;                  /* lock: before this jemalloc has its leaves */
	struct heap_gap gaps[HEAP_GAPS]; /* lock */

	struct quire_heap *next_heap; /* caches */
	struct heap_cache *caches;    /* caches: the threads' */
};

/* extents.c */
void heap_extents_init(struct quire_heap *h);
/* Whole pages within [p, p + bytes) have no contents any more. => false: a page is pinned */
bool heap_discard(struct quire_heap *h, void *p, size_t bytes);

/*
 * A call of jemalloc's has failed: was it for want of leaves, which are there now? => then it is worth another
 * try
 */
bool heap_extents_prepare(struct quire_heap *h);

/* leaves.c: for addresses from..to. => false: no memory */
bool heap_leaves_make(const char *from, const char *to);
/* For fork. */
void heap_leaves_lock(void);
void heap_leaves_unlock(void);

/* cache.c. Before there is a heap. => 0 or an errno */
int heap_caches_prepare(void);
void heap_caches_open(struct quire_heap *h);
/* Nobody uses the heap. */
void heap_caches_close(struct quire_heap *h);
/* Flags of jemalloc's for this thread's cache of this heap. */
int heap_cache(struct quire_heap *h);
/* Blocks that this thread keeps are free. */
void heap_cache_flush(struct quire_heap *h);

/* malloc.c: flags of jemalloc's for its own memory, which is no heap's and has no cache */
#define HEAP_INTERNAL (MALLOCX_ARENA(0) | MALLOCX_TCACHE_NONE)
/* All that was freed is given up. */
void heap_purge(struct quire_heap *h);

/* trace.c. => NULL: no memory */
struct heap_trace *heap_trace_open(void);
void heap_trace_close(struct heap_trace *t);
/* All of them: t may be NULL, and nothing is done. => false: no memory, nothing was noted */
bool heap_trace_add(struct heap_trace *t, const void *block, size_t bytes, const void *caller);
void heap_trace_remove(struct heap_trace *t, const void *block);
/* For fork. */
void heap_trace_lock(struct heap_trace *t);
void heap_trace_unlock(struct heap_trace *t);

/* info.c: one of jemalloc's controls, arena.<the heap's>.name. => 0 or an errno */
int heap_control(struct quire_heap *h, const char *name, void *new, size_t bytes);

#endif
