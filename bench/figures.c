/* SPDX-License-Identifier: MIT */
/*
 * bench/figures.c - the figures, their values over the rounds, and the targets.
 *
 * One row declares a figure, one row a target; the table, the verdicts and the
 * JSON follow from them. Neighbours: report.c and json.c print, bench.c adds.
 */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

unsigned cut_short;

#define VALUES_MAX 512

const char *const contender_name[CONTENDERS] = {
	[SIGNAL] = "uffd-signal",     [UFFD] = "uffd",          [SEGV] = "sigsegv",
	[SEGV_SYNC] = "sigsegv+sync", [KERNEL] = "kernel swap", [RAW] = "raw limit",
};
const char *const contender_id[CONTENDERS] = {
	[SIGNAL] = "uffd-signal",     [UFFD] = "uffd",     [SEGV] = "sigsegv",
	[SEGV_SYNC] = "sigsegv-sync", [KERNEL] = "kernel", [RAW] = "raw",
};

/* clang-format off */
const struct figure_row figure_rows[FIGURES] = {
	[F_TOUCH_ORDER] = { "touch_order", "first touch, in order", "us/page", 2, false },
	[F_TOUCH_RANDOM] = { "touch_random", "first touch, at random", "us/page", 2, false },
	[F_FILL] = { "fill", "fill (write the whole region)", "MB/s", 0, false },
	[F_READ_1] = { "read_1", "random read, 1 thread", "k/s", 1, false },
	[F_READ_1_MISS] = { "read_1_miss", "  misses (raw: depth 1)", "k/s", 1, false },
	[F_READ_N] = { "read_n", "random read, N threads", "k/s", 1, false },
	[F_READ_N_MISS] = { "read_n_miss", "  misses (raw: depth 8)", "k/s", 1, false },
	[F_RMW_1] = { "rmw_1", "random update, 1 thread", "k/s", 1, false },
	[F_RMW_1_MISS] = { "rmw_1_miss", "  misses", "k/s", 1, false },
	[F_RMW_N] = { "rmw_n", "random update, N threads", "k/s", 1, false },
	[F_RMW_N_MISS] = { "rmw_n_miss", "  misses", "k/s", 1, false },
	[F_SCAN_READ] = { "scan_read", "scan reading", "MB/s", 0, false },
	[F_SCAN_WRITE] = { "scan_write", "scan writing", "MB/s", 0, false },
	[F_SNAP_CREATE] = { "snapshot_create", "creation (kernel: fork)", "ms", 2, false },
	[F_SNAP_STALL] = { "snapshot_stall", "  a writer's longest stall: median", "ms", 2, false },
	[F_SNAP_STALL_MAX] = { "snapshot_stall_max", "    the greatest", "ms", 2, true },
	[F_SNAP_ORDER] = { "snapshot_order", "first writes after it, in order", "k/s", 1, false },
	[F_SNAP_ORDER_RATIO] = { "snapshot_order_ratio", "  a page / its first touch, in order", "", 2, false },
	[F_SNAP_RANDOM] = { "snapshot_random", "first writes after it, at random", "k/s", 1, false },
	[F_SNAP_RANDOM_RATIO] = { "snapshot_random_ratio", "  a page / its first touch, at random", "", 2, false },
	[F_SNAP_ALONE_RATIO] = { "snapshot_alone_ratio", "    each with a fault of its own", "", 2, false },
	[F_SNAP_BEYOND] = { "snapshot_beyond", "  copies that exceed the budget", "k/s", 1, false },
	[F_FORK] = { "fork", "fork, with as much in memory", "ms", 2, false },
	[F_SNAP_MEMORY] = { "snapshot_memory", "memory it took, all pages written", "MiB", 1, false },
	[F_RESIDENT] = { "resident", "resident, peak above baseline", "MiB", 1, true },
	[F_OVER] = { "over", "  of it over budget + metadata", "MiB", 1, true },
	[F_METADATA] = { "metadata", "metadata, of touched memory", "%", 2, true },
	[F_OPEN] = { "open", "opening a pager", "ms", 2, false },
	[F_IDLE] = { "idle", "CPU of an idle pager in 10 s", "ms", 1, true },
	[F_DEPTH_32] = { "depth_32", "disk, random reads, depth 32", "k/s", 1, false },
	[F_CHECK] = { "check", "the check alone, all in memory", "MB/s", 0, false },
	[F_MINOR_P50] = { "minor_p50", "minor, first touch at random: p50", "us", 1, false },
	[F_MINOR_P99] = { "minor_p99", "  p99", "us", 1, false },
	[F_MINOR_P999] = { "minor_p999", "  p99.9", "us", 1, false },
	[F_MAJOR_P50] = { "major_1_p50", "major, random read, 1 thread: p50", "us", 1, false },
	[F_MAJOR_P99] = { "major_1_p99", "  p99", "us", 1, false },
	[F_MAJOR_P999] = { "major_1_p999", "  p99.9", "us", 1, false },
	[F_MAJOR_N_P50] = { "major_n_p50", "major, random read, N threads: p50", "us", 1, false },
	[F_MAJOR_N_P99] = { "major_n_p99", "  p99", "us", 1, false },
	[F_MAJOR_N_P999] = { "major_n_p999", "  p99.9", "us", 1, false },
	[F_RMW_N_P50] = { "rmw_n_p50", "major, random update, N threads: p50", "us", 1, false },
	[F_RMW_N_P99] = { "rmw_n_p99", "  p99", "us", 1, false },
	[F_RMW_N_P999] = { "rmw_n_p999", "  p99.9", "us", 1, false },
};
/* clang-format on */

/* clang-format off */
const struct target targets[] = {
	{ "first touch in order / anonymous fault", F_TOUCH_ORDER, F_TOUCH_ORDER, RAW,
	  false, true, { 4, 8, 6, 6 } },
	{ "first touch at random / anonymous fault", F_TOUCH_RANDOM, F_TOUCH_RANDOM, RAW,
	  false, true, { 4, 8, 6, 6 } },
	{ "random read, 1 thread / kernel swap", F_READ_1, F_READ_1, KERNEL,
	  false, false, { 1.1, 0.9, 0.95, 0.95 } },
	{ "  its misses / disk at depth 1", F_READ_1_MISS, F_READ_1_MISS, RAW,
	  false, false, { 0.9, 0 } },
	{ "random update, 1 thread / kernel swap", F_RMW_1, F_RMW_1, KERNEL,
	  false, false, { 1.2, 1.0 } },
	{ "random read, N threads / kernel swap", F_READ_N, F_READ_N, KERNEL,
	  false, false, { 1.3, 1.0 } },
	{ "random update, N threads / kernel swap", F_RMW_N, F_RMW_N, KERNEL,
	  false, false, { 1.5, 1.0 } },
	{ "scan reading / kernel swap", F_SCAN_READ, F_SCAN_READ, KERNEL, false, false,
	  { 4, 3, 3, 3 } },
	{ "scan writing / kernel swap", F_SCAN_WRITE, F_SCAN_WRITE, KERNEL,
	  false, false, { 3, 2 } },
	{ "fill / kernel swap", F_FILL, F_FILL, KERNEL, false, false, { 1.5, 1.2 } },
	/* 60 ms for 256 MiB: the same for each page of the 224 MiB that 7/8 of the budget are. */
	{ "snapshot of 7/8 of the budget, ms", F_SNAP_CREATE, F_SNAP_CREATE, RAW,
	  true, true, { 52.5, 52.5, 52.5, 52.5 } },
	{ "  creation / fork", F_SNAP_CREATE, F_SNAP_CREATE, KERNEL, false, true, { 0 } },
	{ "  a writer's longest stall / fork's", F_SNAP_STALL, F_SNAP_STALL, KERNEL,
	  false, true, { 0 } },
	{ "  first write of a page / first touch, in order", F_SNAP_ORDER_RATIO, F_SNAP_ORDER_RATIO, RAW,
	  true, true, { 2, 2, 2, 2 } },
	{ "  first write of a page / first touch, at random", F_SNAP_RANDOM_RATIO, F_SNAP_RANDOM_RATIO, RAW,
	  true, true, { 2, 2, 2, 2 } },
	{ "  first write / first touch, a fault each", F_SNAP_ALONE_RATIO, F_SNAP_ALONE_RATIO, RAW,
	  true, true, { 2, 2, 2, 2 } },
	{ "  first writes in order / fork's", F_SNAP_ORDER, F_SNAP_ORDER, KERNEL,
	  false, false, { 0 } },
	{ "  first writes at random / fork's", F_SNAP_RANDOM, F_SNAP_RANDOM, KERNEL,
	  false, false, { 0 } },
	{ "fork / the kernel's of plain memory", F_FORK, F_FORK, KERNEL, false, true, { 2, 2, 2, 2 } },
	{ "resident over budget + metadata, MiB", F_OVER, F_OVER, RAW, true, true, { 4, 4, 4, 4 } },
	{ "metadata, % of touched", F_METADATA, F_METADATA, RAW, true, true, { 1, 1, 1, 1 } },
	{ "idle CPU in 10 s, ms", F_IDLE, F_IDLE, RAW, true, true, { 10, 10, 10, 10 } },
	{ "opening, ms", F_OPEN, F_OPEN, RAW, true, true, { 10, 10, 10, 10 } },
};
/* clang-format on */
const unsigned target_count = sizeof targets / sizeof *targets;

static struct {
	double value[VALUES_MAX];
	unsigned count;
} store[FIGURES][CONTENDERS];

void figure_add(enum figure f, enum contender who, double value)
{
	if (store[f][who].count < VALUES_MAX)
		store[f][who].value[store[f][who].count++] = value;
}

unsigned figure_count(enum figure f, enum contender who)
{
	return store[f][who].count;
}

double figure_value(enum figure f, enum contender who, unsigned i)
{
	return store[f][who].value[i];
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

double figure_result(enum figure f, enum contender who)
{
	double sorted[VALUES_MAX];
	unsigned n = store[f][who].count;

	if (!n)
		return NAN;
	memcpy(sorted, store[f][who].value, n * sizeof *sorted);
	qsort(sorted, n, sizeof *sorted, ascending);
	if (figure_rows[f].worst)
		return sorted[n - 1];
	return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

double target_ratio(const struct target *t, enum contender who, double *low, double *high)
{
	double ratio = figure_result(t->figure, who);
	unsigned n = figure_count(t->figure, who);

	*low = *high = NAN;
	if (!t->absolute) {
		ratio /= figure_result(t->against_figure, t->against);
		if (figure_count(t->against_figure, t->against) < n)
			n = figure_count(t->against_figure, t->against);
	}
	for (unsigned i = 0; i < n; i++) {
		double r = figure_value(t->figure, who, i);

		if (!t->absolute)
			r /= figure_value(t->against_figure, t->against, i);
		if (!(r >= *low))
			*low = r;
		if (!(r <= *high))
			*high = r;
	}
	return ratio;
}

bool target_met(const struct target *t, enum contender who, double ratio)
{
	return t->at_most ? ratio <= t->target[who] : ratio >= t->target[who];
}
