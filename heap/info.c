/* SPDX-License-Identifier: MIT */
/* heap/info.c - figures of a heap, and how jemalloc is asked for them. */
#include "heap/heap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int heap_control(struct quire_heap *h, const char *name, void *new, size_t bytes)
{
	char full[64];

	snprintf(full, sizeof full, "arena.%u.%s", h->arena, name);
	return je_mallctl(full, NULL, NULL, new, bytes);
}

static size_t figure(const struct quire_heap *h, const char *name)
{
	char full[64];
	size_t value = 0, bytes = sizeof value;

	snprintf(full, sizeof full, "stats.arenas.%u.%s", h->arena, name);
	return je_mallctl(full, &value, &bytes, NULL, 0) == 0 ? value : 0;
}

/* (jemalloc counts these in 64 bits.) */
static uint64_t count(const struct quire_heap *h, const char *name)
{
	return figure(h, name);
}

int quire_heap_info(quire_heap_t *h, struct quire_heap_info *out)
{
	uint64_t epoch = 1;

	if (!h || !out)
		return quire_error_set(EINVAL, "a NULL heap or result");
	/* What this thread keeps is not in use; what others keep counts as if it were. */
	heap_cache_flush(h);
	/* jemalloc's figures are of the last such call. */
	je_mallctl("epoch", NULL, NULL, &epoch, sizeof epoch);
	memset(out, 0, sizeof *out);
	out->length = (size_t)(h->end - h->base);
	pthread_mutex_lock(&h->lock);
	out->extent = (size_t)(h->next - h->base);
	pthread_mutex_unlock(&h->lock);
	out->small = figure(h, "small.allocated");
	out->large = figure(h, "large.allocated");
	out->used = out->small + out->large;
	out->small_blocks = count(h, "small.nmalloc") - count(h, "small.ndalloc");
	out->large_blocks = count(h, "large.nmalloc") - count(h, "large.ndalloc");
	out->free = figure(h, "pactive") * QUIRE_PAGE_SIZE - out->used;
	out->untrimmed = figure(h, "pdirty") * QUIRE_PAGE_SIZE;
	out->metadata = figure(h, "base") + figure(h, "internal");
	return 0;
}
