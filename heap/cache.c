/* SPDX-License-Identifier: MIT */
/*
 * heap/cache.c - what each thread keeps of the blocks that it frees, and what fork must look after.
 *
 * jemalloc has such caches; one is for a thread and a heap. A thread finds the caches that it has used
 * last by their heaps' serial numbers, without a lock. All of them are in two lists, the thread's
 * and the heap's, so that both who ends first, the thread or the heap, leaves none behind.
 *
 * Before fork: `caches`, the traces' locks, `leaves`, jemalloc's, the heaps' locks, and then the pager's. So
 * jemalloc is told between our two pairs of handlers, and all three after the pager, which has been
 * when there is a heap.
 */
#include "heap/heap.h"

#include <errno.h>

struct heap_cache {
	struct heap_cache *next_of_thread, **link_of_thread;
	struct heap_cache *next_of_heap;
	struct quire_heap *heap;
	unsigned index; /* jemalloc's */
};

enum { RECENT = 8 };

static __thread struct {
	struct {
		uint64_t serial;
		int flags;
	} recent[RECENT];
	struct heap_cache *first; /* caches */
	bool has_key;             /* it will be told when the thread ends */
} self;

static pthread_mutex_t caches = PTHREAD_MUTEX_INITIALIZER;
static struct quire_heap *heaps; /* caches: all there are */
static uint64_t serials;         /* caches */
static pthread_key_t key;
static int key_error;

/* ------------------------------------------------------------------- fork */

static void lock_all(void)
{
	pthread_mutex_lock(&caches);
	for (struct quire_heap *h = heaps; h; h = h->next_heap)
		heap_trace_lock(h->trace);
	heap_leaves_lock();
}

static void unlock_all(void)
{
	heap_leaves_unlock();
	for (struct quire_heap *h = heaps; h; h = h->next_heap)
		heap_trace_unlock(h->trace);
	pthread_mutex_unlock(&caches);
}

static void lock_heaps(void)
{
	for (struct quire_heap *h = heaps; h; h = h->next_heap)
		pthread_mutex_lock(&h->lock);
}

static void unlock_heaps(void)
{
	for (struct quire_heap *h = heaps; h; h = h->next_heap)
		pthread_mutex_unlock(&h->lock);
}

/* ---------------------------------------------------------------- threads */

/* caches is held. Its blocks are the heap's again. */
static void destroy(struct heap_cache *c)
{
	unsigned index = c->index;

	*c->link_of_thread = c->next_of_thread;
	if (c->next_of_thread)
		c->next_of_thread->link_of_thread = c->link_of_thread;
	je_mallctl("tcache.destroy", NULL, NULL, &index, sizeof index);
	je_dallocx(c, MALLOCX_TCACHE_NONE);
}

static void forget(struct quire_heap *h, struct heap_cache *c)
{
	struct heap_cache **p = &h->caches;

	while (*p != c)
		p = &(*p)->next_of_heap;
	*p = c->next_of_heap;
}

static void thread_ends(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&caches);
	while (self.first) {
		struct heap_cache *c = self.first;

		forget(c->heap, c);
		destroy(c);
	}
	pthread_mutex_unlock(&caches);
	/* Another destructor may use a heap after this one, which will be called again then. */
	self = (typeof(self)){ .first = NULL };
}

static void open_once(void)
{
	unsigned arenas;
	size_t bytes = sizeof arenas;

	je_own_prepare();
	key_error = pthread_key_create(&key, thread_ends);
	if (!key_error)
		key_error = pthread_atfork(lock_heaps, unlock_heaps, unlock_heaps);
	/* The first call: it registers its own handlers. */
	if (!key_error)
		key_error = je_mallctl("arenas.narenas", &arenas, &bytes, NULL, 0);
	if (!key_error)
		key_error = pthread_atfork(lock_all, unlock_all, unlock_all);
}

/* caches is held. => NULL: no memory, or as many as there can be */
static struct heap_cache *create(struct quire_heap *h)
{
	struct heap_cache *c = je_mallocx(sizeof *c,
	                                  MALLOCX_ARENA(0) | MALLOCX_TCACHE_NONE | MALLOCX_ZERO);
	size_t bytes = sizeof c->index;

	if (!c)
		return NULL;
	if (je_mallctl("tcache.create", &c->index, &bytes, NULL, 0) != 0) {
		je_dallocx(c, MALLOCX_TCACHE_NONE);
		return NULL;
	}
	c->heap = h;
	c->next_of_heap = h->caches;
	h->caches = c;
	c->next_of_thread = self.first;
	c->link_of_thread = &self.first;
	if (self.first)
		self.first->link_of_thread = &c->next_of_thread;
	self.first = c;
	return c;
}

/* => flags of jemalloc's: its cache, made if need be and if it can be */
static int find(struct quire_heap *h)
{
	struct heap_cache *c;

	if (!self.has_key) {
		if (pthread_setspecific(key, &self) != 0)
			return MALLOCX_TCACHE_NONE;
		self.has_key = true;
	}
	pthread_mutex_lock(&caches);
	for (c = self.first; c && c->heap != h; c = c->next_of_thread)
		;
	if (!c)
		c = create(h);
	pthread_mutex_unlock(&caches);
	return c ? MALLOCX_TCACHE(c->index) : MALLOCX_TCACHE_NONE;
}

int heap_cache(struct quire_heap *h)
{
	unsigned i = h->serial % RECENT;

	if (self.recent[i].serial != h->serial) {
		self.recent[i].flags = find(h);
		self.recent[i].serial = h->serial;
	}
	return self.recent[i].flags;
}

void heap_cache_flush(struct quire_heap *h)
{
	struct heap_cache *c;
	unsigned index = 0;

	pthread_mutex_lock(&caches);
	for (c = self.first; c && c->heap != h; c = c->next_of_thread)
		;
	if (c)
		index = c->index;
	pthread_mutex_unlock(&caches);
	if (c)
		je_mallctl("tcache.flush", NULL, NULL, &index, sizeof index);
}

/* ------------------------------------------------------------------ heaps */

int heap_caches_prepare(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, open_once);
	return key_error;
}

void heap_caches_open(struct quire_heap *h)
{
	pthread_mutex_lock(&caches);
	h->serial = ++serials;
	h->next_heap = heaps;
	heaps = h;
	pthread_mutex_unlock(&caches);
}

void heap_caches_close(struct quire_heap *h)
{
	struct quire_heap **p = &heaps;

	pthread_mutex_lock(&caches);
	while (h->caches) {
		struct heap_cache *c = h->caches;

		h->caches = c->next_of_heap;
		destroy(c);
	}
	while (*p != h)
		p = &(*p)->next_heap;
	*p = h->next_heap;
	pthread_mutex_unlock(&caches);
}
