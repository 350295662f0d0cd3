/* SPDX-License-Identifier: MIT */
/* base/histogram.c - see histogram.h. */
#include "base/histogram.h"

#include "base/base.h"

static unsigned bucket_of(uint64_t v)
{
	if (v < HISTOGRAM_SUB)
		return (unsigned)v;

	unsigned log = 63u - (unsigned)__builtin_clzll(v); /* >= 3 */
	unsigned index = (log - 2) * HISTOGRAM_SUB +
	                 (unsigned)((v >> (log - 3)) & (HISTOGRAM_SUB - 1));

	return MIN(index, HISTOGRAM_BUCKETS - 1);
}

/* The largest value that falls into bucket i. */
static uint64_t upper_bound(unsigned i)
{
	if (i < HISTOGRAM_SUB)
		return i;

	unsigned log = i / HISTOGRAM_SUB + 2;
	uint64_t step = UINT64_C(1) << (log - 3);

	return (UINT64_C(1) << log) + (i % HISTOGRAM_SUB + 1) * step - 1;
}

void histogram_add(struct histogram *h, uint64_t value)
{
	uint64_t max = atomic_load_explicit(&h->max, memory_order_relaxed);

	atomic_fetch_add_explicit(&h->bucket[bucket_of(value)], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum, value, memory_order_relaxed);
	while (value > max &&
	       !atomic_compare_exchange_weak_explicit(&h->max, &max, value, memory_order_relaxed,
	                                              memory_order_relaxed))
		;
}

uint64_t histogram_count(const struct histogram *h)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		n += atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
	return n;
}

uint64_t histogram_mean(const struct histogram *h)
{
	uint64_t n = histogram_count(h);

	return n ? atomic_load_explicit(&h->sum, memory_order_relaxed) / n : 0;
}

uint64_t histogram_percentile(const struct histogram *h, unsigned per_mille)
{
	uint64_t max = atomic_load_explicit(&h->max, memory_order_relaxed);
	uint64_t count = histogram_count(h);
	uint64_t want = (count * per_mille + 999) / 1000, seen = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS && count; i++) {
		seen += atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
		if (seen >= want)
			return MIN(upper_bound(i), max);
	}
	return max;
}
