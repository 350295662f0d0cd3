/* SPDX-License-Identifier: MIT */
/*
 * bench/memory.c - the memory under test.
 *
 * Below QUIRES: a Quire region with the engine of that name. KERNEL: an
 * anonymous mapping in a process that has entered the memory cgroup. RAW: an
 * anonymous mapping without a limit. Huge pages are off for the mappings, as
 * Quire pages by 4 KiB too. Neighbours: work.c uses it, swap.c is the cgroup.
 */
#include "bench.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* It may run in a signal handler, and more than once: the first is kept. */
static void on_error(void *arg, const struct quire_error *e)
{
	(void)arg;
	yield_error(e->kind, e->error, e->message);
}

static void open_quire(struct memory *m, const struct settings *s, size_t length)
{
	static const char *const engine[QUIRES] = {
		[SIGNAL] = "uffd-signal",
		[UFFD] = "uffd",
		[SEGV] = "sigsegv",
		[SEGV_SYNC] = "sigsegv",
	};
	struct quire_options o = {
		.size = sizeof o,
		.memory = s->memory,
		.swap_path = s->dir,
		.engine = engine[m->who],
		.io = m->who == SEGV_SYNC ? "sync" : "auto",
		.on_error = on_error,
	};
	double start = now();
	int err = quire_open(&m->quire, &o);

	if (err)
		give_up(err == -ENOTSUP ? OUT_SKIPPED : OUT_FAILED, "quire_open: %s",
		        quire_error_message());
	yield_figure(F_OPEN, (now() - start) * 1e3);
	err = quire_region_create(m->quire, length, NULL, &m->region);
	if (err)
		give_up(OUT_FAILED, "quire_region_create: %s", quire_error_message());
	m->words = quire_region_base(m->region);
}

void memory_open(struct memory *m, enum contender who, const struct settings *s, size_t length)
{
	*m = (struct memory){ .who = who, .length = length, .count = length / sizeof(uint64_t) };
	if (who == KERNEL)
		swap_enter();
	yield_baseline();
	if (who < QUIRES) {
		open_quire(m, s, length);
		return;
	}
	void *p = mmap(NULL, length, PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		give_up(OUT_FAILED, "mmap: %s", strerror(errno));
	/* EINVAL: a kernel without huge pages */
	if (madvise(p, length, MADV_NOHUGEPAGE) && errno != EINVAL)
		give_up(OUT_FAILED, "madvise(NOHUGEPAGE): %s", strerror(errno));
	m->words = p;
}

void memory_close(struct memory *m)
{
	struct quire_stats st;

	if (!m->quire) {
		munmap(m->words, m->length);
		return;
	}
	if (!quire_stats_get(m->quire, &st))
		yield_metadata(st.metadata);
	int err = quire_close(m->quire);
	if (err)
		give_up(OUT_FAILED, "quire_close: %s", quire_error_message());
}

uint64_t memory_misses(const struct memory *m)
{
	if (m->quire) {
		struct quire_stats st;

		if (quire_stats_get(m->quire, &st))
			give_up(OUT_FAILED, "quire_stats_get: %s", quire_error_message());
		return st.major_faults;
	}
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (uint64_t)u.ru_majflt;
}

void memory_latencies(const struct memory *m, bool major, enum figure first)
{
	struct quire_stats st;

	if (!m->quire || quire_stats_get(m->quire, &st))
		return;
	const struct quire_latency *l = major ? &st.major_latency : &st.minor_latency;
	if (!l->count)
		return;
	yield_figure(first, (double)l->p50 / 1e3);
	yield_figure(first + 1, (double)l->p99 / 1e3);
	yield_figure(first + 2, (double)l->p999 / 1e3);
}
