/* SPDX-License-Identifier: MIT */
/*
 * base/histogram.h - latency distributions: log-linear buckets, eight to a
 * doubling, relaxed atomic counters, no lock. The idea is HdrHistogram's.
 */
#ifndef QUIRE_BASE_HISTOGRAM_H
#define QUIRE_BASE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_SUB 8u                        /* buckets a doubling */
#define HISTOGRAM_BUCKETS (HISTOGRAM_SUB * 36u) /* up to about 2^38 ns, 4.5 minutes */

struct histogram {
	_Atomic uint64_t sum, max;
	_Atomic uint32_t bucket[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t value);
uint64_t histogram_count(const struct histogram *h);
uint64_t histogram_mean(const struct histogram *h);
/* The upper bound of the bucket in which the per_mille-th value lies, never above the maximum. */
uint64_t histogram_percentile(const struct histogram *h, unsigned per_mille);

#endif
