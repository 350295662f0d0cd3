/* SPDX-License-Identifier: MIT */
/*
 * base/counters.h - the event counters, each declared once.
 *
 * A row here becomes a field of struct counters, a line of every printout and
 * a key of the JSON. struct quire_stats has a field of the same name (the
 * compiler says so if not).
 */
#ifndef QUIRE_BASE_COUNTERS_H
#define QUIRE_BASE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

#define COUNTERS(X)                                                              \
	X(minor_faults, "faults served without I/O")                             \
	X(major_faults, "faults that read the swap file")                        \
	X(zero_fills, "pages filled with zeros")                                 \
	X(rescues, "pages taken back from standby")                              \
	X(write_faults, "first writes to clean pages")                           \
	X(snapshot_copies, "pages copied for a snapshot when they were written") \
	X(refaults, "major faults on pages evicted less than a budget ago")      \
	X(pages_in, "pages read from the swap file")                             \
	X(pages_out, "pages written to the swap file")                           \
	X(evictions, "pages unmapped by the pager")                              \
	X(zero_drops, "evicted pages that were all zeros")                       \
	X(readahead_issued, "pages read before they were touched")               \
	X(readahead_hits, "of those, mapped because they were wanted")           \
	X(writeback_requests, "write requests")                                  \
	X(direct_reclaims, "evictions by a faulting thread")                     \
	X(read_errors, "pages whose bytes could not be had")                     \
	X(write_errors, "pages whose write failed")

#define WRITEBACK_BUCKETS 10

struct counters {
#define COUNTER_FIELD(name, text) _Atomic uint64_t name;
	COUNTERS(COUNTER_FIELD)
#undef COUNTER_FIELD
	_Atomic uint64_t writeback_sizes[WRITEBACK_BUCKETS];
	/* pages now, not events */
	_Atomic uint64_t resident, peak_resident, standby, swapped, pinned;
	_Atomic uint64_t standby_ahead; /* of standby: read before they were touched */
};

static inline void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static inline void uncount(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_sub_explicit(counter, n, memory_order_relaxed);
}

static inline uint64_t counted(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/*
 * The next of a row of records, of which so many were ever used. The caller holds
 * the lock that guards the row, so nobody else counts. The figure is atomic for
 * those who read it without the lock (statistics); relaxed, since any recent value
 * will do and nothing is concluded from it about the records themselves.
 */
static inline uint32_t count_next(_Atomic uint32_t *used)
{
	uint32_t n = atomic_load_explicit(used, memory_order_relaxed);

	atomic_store_explicit(used, n + 1, memory_order_relaxed);
	return n;
}

static inline uint32_t counted_records(const _Atomic uint32_t *used)
{
	return atomic_load_explicit(used, memory_order_relaxed);
}

/* Add to a gauge and carry its peak. */
static inline void count_peak(_Atomic uint64_t *gauge, _Atomic uint64_t *peak, uint64_t n)
{
	uint64_t now = atomic_fetch_add_explicit(gauge, n, memory_order_relaxed) + n;
	uint64_t old = counted(peak);

	while (now > old && !atomic_compare_exchange_weak_explicit(
				    peak, &old, now, memory_order_relaxed, memory_order_relaxed))
		;
}

#endif
