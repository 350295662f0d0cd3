/* SPDX-License-Identifier: MIT */
/*
 * vm/stats.c - counters into struct quire_stats.
 *
 * Regions may come and go beside this, and a new one uses the record of an old
 * one: what is not a counter is read with a user of the region counted, which
 * keeps the record (region_get). Signals are blocked meanwhile, so that destroy
 * does not wait for a signal handler, and so the caller's memory, which may be
 * managed, is not touched.
 */
#include "vm/cover.h"
#include "vm/vm.h"

#include "base/error.h"
#include "guard/guard.h"

#include <errno.h>
#include <string.h>

_Static_assert(WRITEBACK_BUCKETS == QUIRE_WRITEBACK_BUCKETS, "the header says how many");

static void copy_counters(const struct counters *c, struct quire_stats *out)
{
#define COPY(name, text) out->name = counted(&c->name);
	COUNTERS(COPY)
#undef COPY
	for (unsigned i = 0; i < WRITEBACK_BUCKETS; i++)
		out->writeback_sizes[i] = counted(&c->writeback_sizes[i]);
	out->resident = counted(&c->resident) << PAGE_SHIFT;
	out->peak_resident = counted(&c->peak_resident) << PAGE_SHIFT;
	out->standby = counted(&c->standby) << PAGE_SHIFT;
	out->swapped = counted(&c->swapped) << PAGE_SHIFT;
	out->pinned = counted(&c->pinned) << PAGE_SHIFT;
}

static void copy_latency(const struct histogram *h, struct quire_latency *out)
{
	out->count = histogram_count(h);
	out->mean = histogram_mean(h);
	out->p50 = histogram_percentile(h, 500);
	out->p99 = histogram_percentile(h, 990);
	out->p999 = histogram_percentile(h, 999);
	out->max = atomic_load_explicit(&h->max, memory_order_relaxed);
}

static uint64_t region_metadata(const struct quire_region *r)
{
	uint64_t bitmap = (r->pages >> LEAF_SHIFT) / 8;

	return (atomic_load(&r->leaf_count) << PAGE_SHIFT) +
	       MIN(round_up(bitmap + 1, PAGE_BYTES), atomic_load(&r->leaf_count) << PAGE_SHIFT) +
	       (r->cover ? cover_metadata(r->cover) : 0) + sizeof *r;
}

static void sum_regions(const struct quire *q, uint64_t *metadata, uint64_t *reserved)
{
	uint32_t n = regions_used(q);
	struct call call;

	*metadata = *reserved = 0;
	call_enter(&call);
	for (uint32_t id = 1; id <= n; id++) {
		struct quire_region *r = region_get(q, id);

		if (!r)
			continue;
		*metadata += region_metadata(r);
		*reserved += r->is_snapshot ? 0 : r->bytes;
		region_put(r);
	}
	call_leave(&call);
}

int quire_stats_get(const quire_t *q, struct quire_stats *out)
{
	uint64_t populated, metadata, reserved;

	if (!q || !out)
		return error_set(EINVAL, "a NULL pager or result");
	if (pager_is_lost(q))
		return lost_error();
	memset(out, 0, sizeof *out);
	copy_counters(&q->counters, out);
	out->standby = atomic_load(&q->pager.standby) << PAGE_SHIFT;
	populated = atomic_load(&q->pager.populated) << PAGE_SHIFT;
	out->buffers = populated > out->standby ? populated - out->standby : 0;
	sum_regions(q, &metadata, &reserved);
	out->metadata = pager_metadata(&q->pager) + swapfile_metadata(q->swap) + sizeof *q +
	                metadata;
	out->reserved = reserved;
	out->budget = quire_memory(q);
	out->guarded = guard_served(&out->unguarded);
	copy_latency(&q->minor, &out->minor_latency);
	copy_latency(&q->major, &out->major_latency);
	return 0;
}

size_t quire_guard_calls(struct quire_guard_call *out, size_t max)
{
	struct guard_figure f;
	unsigned at = 0;
	size_t n;

	for (n = 0; guard_figure(&at, &f); n++)
		if (out && n < max)
			out[n] = (struct quire_guard_call){ .number = f.number,
				                            .name = f.name,
				                            .known = f.known,
				                            .count = f.count };
	return n;
}

static void copy_region(const struct quire_region *r, struct quire_stats *out)
{
	memset(out, 0, sizeof *out);
	copy_counters(&r->counters, out);
	out->metadata = region_metadata(r);
	out->reserved = r->bytes;
	copy_latency(&r->minor, &out->minor_latency);
	copy_latency(&r->major, &out->major_latency);
}

int quire_region_stats_get(const quire_region_t *r, struct quire_stats *out)
{
	if (!r || !out)
		return error_set(EINVAL, "a NULL region or result");
	copy_region(r, out);
	return 0;
}

bool region_figures(const struct quire *q, uint32_t id, struct region_figures *out)
{
	struct quire_region *r;
	struct call call;

	call_enter(&call);
	r = region_get(q, id);
	if (r) {
		copy_region(r, &out->stats);
		out->base = r->base;
		snprintf(out->name, sizeof out->name, "%s%s", r->name,
		         r->is_snapshot ? " (snapshot)" : "");
		region_put(r);
	}
	call_leave(&call);
	return r != NULL;
}
