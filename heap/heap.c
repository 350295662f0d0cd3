/* SPDX-License-Identifier: MIT */
/* heap/heap.c - a heap comes and goes. See heap.h. */
#include "heap/heap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_LENGTH ((size_t)256 << 30)
#define LEAST_DEFAULT_LENGTH ((size_t)1 << 30) /* where there is less address space */
#define LENGTH_MIN ((size_t)1 << 20)
#define DEFAULT_LARGE ((size_t)128 << 10)
#define LARGE_MIN ((size_t)16 << 10) /* jemalloc's smaller blocks share pages */
#define DEFAULT_TRIM_MS 1000
#define TRIM_MS_MAX 3600000

/* Defaults are filled in, except for the length's. => 0 or -errno with words */
static int read_options(const struct quire_heap_options *given, struct quire_heap_options *o)
{
	*o = (struct quire_heap_options){ .size = sizeof *o };
	if (given) {
		static const struct quire_heap_options none;

		if (given->size != sizeof *o && memcmp(given, &none, sizeof none) != 0)
			return quire_error_set(EINVAL, "quire_heap_options.size is %zu, not %zu",
			                       given->size, sizeof *o);
		*o = *given;
	}
	if (!o->name)
		o->name = "heap";
	if (!o->large)
		o->large = DEFAULT_LARGE;
	if (!o->trim_ms)
		o->trim_ms = DEFAULT_TRIM_MS;
	if (o->length && (o->length < LENGTH_MIN || o->length > QUIRE_REGION_MAX))
		return quire_error_set(EINVAL, "a heap's length %zu: allowed are %zu to %zu bytes",
		                       o->length, LENGTH_MIN, QUIRE_REGION_MAX);
	if (o->large < LARGE_MIN)
		return quire_error_set(EINVAL, "large is %zu: at least %zu bytes", o->large,
		                       LARGE_MIN);
	if (o->trim_ms < -1 || o->trim_ms > TRIM_MS_MAX)
		return quire_error_set(EINVAL, "trim_ms is %d: allowed are -1 (never) to %d",
		                       o->trim_ms, TRIM_MS_MAX);
	return 0;
}

/* => 0 or -errno with words */
static int reserve(quire_t *q, const struct quire_heap_options *o, quire_region_t **out)
{
	struct quire_region_options ro = { .size = sizeof ro, .name = o->name };
	size_t length = o->length ? o->length : DEFAULT_LENGTH;
	int error;

	do {
		error = quire_region_create(q, length, &ro, out);
		length /= 2;
	} while (error == -ENOMEM && !o->length && length >= LEAST_DEFAULT_LENGTH);
	return error;
}

/* => 0 or an errno */
static int open_arena(struct quire_heap *h, int trim_ms)
{
	/* jemalloc's struct arena_config_s, which its header leaves out. */
	struct {
		extent_hooks_t *extent_hooks;
		bool metadata_use_hooks;
	} config = { &h->hooks, false };
	size_t bytes = sizeof h->arena;
	ssize_t decay = trim_ms;
	int error = je_mallctl("experimental.arenas_create_ext", &h->arena, &bytes, &config,
	                       sizeof config);

	return error ? error : heap_control(h, "dirty_decay_ms", &decay, sizeof decay);
}

static void release(struct quire_heap *h)
{
	heap_trace_close(h->trace);
	pthread_mutex_destroy(&h->lock);
	je_dallocx(h, HEAP_INTERNAL);
}

int quire_heap_create(quire_t *q, const struct quire_heap_options *options, quire_heap_t **out)
{
	struct quire_heap_options o;
	struct quire_heap *h;
	int error;

	if (!q || !out)
		return quire_error_set(EINVAL, "a NULL pager or result");
	error = read_options(options, &o);
	if (error)
		return error;
	error = heap_caches_prepare();
	if (error)
		return quire_error_set(error, "heaps cannot be made: %s", strerror(error));
	h = je_mallocx(sizeof *h, HEAP_INTERNAL | MALLOCX_ZERO);
	if (!h)
		return quire_error_set(ENOMEM, "no memory for a heap's records");
	pthread_mutex_init(&h->lock, NULL);
	h->large = o.large;
	h->trace = o.trace ? heap_trace_open() : NULL;
	error = o.trace && !h->trace ? quire_error_set(ENOMEM, "no memory for a heap's trace") :
	                               reserve(q, &o, &h->region);
	if (error) {
		release(h);
		return error;
	}
	h->base = quire_region_base(h->region);
	h->end = h->base + quire_region_length(h->region);
	heap_extents_init(h);
	error = open_arena(h, o.trim_ms);
	if (error) {
		quire_region_destroy(h->region);
		release(h);
		return quire_error_set(error, "no arena for a heap: %s", strerror(error));
	}
	heap_caches_open(h);
	*out = h;
	return 0;
}

int quire_heap_destroy(quire_heap_t *h)
{
	int error;

	if (!h)
		return quire_error_set(EINVAL, "a NULL heap");
	/* Before the region: its addresses may be another heap's at once. (Not again, if that failed.) */
	if (!h->is_ending) {
		h->is_ending = true;
		heap_caches_close(h);
		heap_control(h, "destroy", NULL, 0);
	}
	error = quire_region_destroy(h->region);
	if (!error)
		release(h);
	return error;
}

quire_region_t *quire_heap_region(const quire_heap_t *h)
{
	return h->region;
}
