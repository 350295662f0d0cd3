/* SPDX-License-Identifier: MIT */
/*
 * vm/prefetch.c - WILLNEED: a thread that reads ranges into memory.
 *
 * Started by the first such advice, asleep when there is nothing to do. It
 * reads window by window and maps what came, so that the pages are not the
 * next to be given up from standby; and it yields: a range is cut to three
 * quarters of the budget, and it stops where there is no memory to spare.
 */
#include "vm/prefetch.h"

#include "vm/vm.h"

#include "base/error.h"
#include "base/kernel.h"
#include "base/quiesce.h"
#include "base/thread.h"

#include <errno.h>
#include <string.h>

#define PATIENCE 200 /* times of PAUSE_NS without memory to spare: the rest is dropped */
#define PAUSE_NS UINT64_C(1000000)

static void pause_for(struct prefetch *f, uint64_t ns)
{
	futex_wait(&f->wake, atomic_load(&f->wake), ns, false);
}

static bool is_slot(struct quire_region *r, uint64_t page)
{
	return region_leaf_touched(r, page) &&
	       entry_state(atomic_load(region_entry(r, page))) == ENTRY_SLOT;
}

static void map_standby(struct quire_region *r, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		entry_t *entry = region_entry(r, page);
		uint64_t e = atomic_load(entry);
		struct fault f = { .region = r,
			           .page = page,
			           .may_sleep = false,
			           .speculative = true,
			           .entry = entry };

		if (entry_state(e) == ENTRY_READING)
			readin_wait(&r->q->pager, entry_payload(e));
		e = atomic_load(entry);
		if (entry_state(e) != ENTRY_STANDBY || !entry_try(entry, e))
			continue;
		f.held = e & ~ENTRY_MARKS;
		f.started = now_ns();
		fault_rescue(&f);
	}
}

/* The first page in [first, end) that is a slot; end if there is none. */
static uint64_t next_slot(struct quire_region *r, uint64_t first, uint64_t end)
{
	while (first < end && !is_slot(r, first))
		first++;
	return first;
}

/*
 * Read what is on the swap file of [first, end), as far as there is memory.
 * => the first page still to be read, or end
 */
static uint64_t read_some(struct quire_region *r, uint64_t first, uint64_t end)
{
	struct ra_plan plan = { .stride = 1 };
	uint32_t id;

	plan.start = next_slot(r, first, end);
	plan.count = (uint32_t)(end - plan.start);
	if (plan.count == 0 || !window_start(r, &plan, NULL, &id))
		return plan.start;
	map_standby(r, plan.start, end);
	return next_slot(r, plan.start, end);
}

/* => where to go on; end: nowhere */
static uint64_t serve_window(struct prefetch *f, uint32_t region, uint64_t at, uint64_t end)
{
	struct quire_region *r;
	uint64_t next = end;

	service_enter();
	r = region_get(f->q, region);
	if (r && atomic_load(&r->alive) == REGION_ALIVE && at < r->pages) {
		end = MIN(end, r->pages);
		next = read_some(r, at, MIN(at + CLUSTER_PAGES - 1, end));
	}
	if (r)
		region_put(r);
	service_leave();
	return next;
}

static void serve(struct prefetch *f, const struct prefetch_request *q)
{
	uint64_t end = q->first + q->n;

	for (uint64_t at = q->first, tries = 0; at < end && tries < PATIENCE;) {
		uint64_t next = serve_window(f, q->region, at, end);

		if (atomic_load(&f->stop))
			break;
		tries = next == at ? tries + 1 : 0;
		if (next < MIN(at + CLUSTER_PAGES - 1, end))
			pause_for(f, PAUSE_NS);
		at = next;
	}
}

static bool next(struct prefetch *f, struct prefetch_request *out)
{
	bool some;

	lock_acquire(&f->lock);
	some = f->count > 0;
	if (some) {
		*out = f->request[f->head];
		f->head = (f->head + 1) % PREFETCH_REQUESTS;
		f->count--;
	}
	lock_release(&f->lock);
	return some;
}

static void *prefetcher(void *argument)
{
	struct prefetch *f = argument;
	struct prefetch_request request;

	thread_is_ours = true;
	prctl(PR_SET_NAME, "quire-prefetch");
	while (!atomic_load(&f->stop)) {
		uint32_t seen = atomic_load(&f->wake);

		if (next(f, &request))
			serve(f, &request);
		else
			futex_wait(&f->wake, seen, 0, false);
	}
	return NULL;
}

void prefetch_init(struct prefetch *f, struct quire *q)
{
	f->q = q;
	lock_init(&f->lock, RANK_ENGINE);
}

int prefetch_request(struct prefetch *f, uint32_t region, uint64_t first, uint64_t n)
{
	int error = 0;

	n = MIN(n, atomic_load(&f->q->pager.budget) * 3 / 4);
	lock_acquire(&f->lock);
	if (!f->started) {
		error = -thread_start(&f->thread, prefetcher, f);
		f->started = error == 0;
	}
	/* Advice may be ignored: a full queue drops the request. */
	if (!error && f->count < PREFETCH_REQUESTS) {
		f->request[(f->head + f->count) % PREFETCH_REQUESTS] =
			(struct prefetch_request){ .region = region, .first = first, .n = n };
		f->count++;
	}
	lock_release(&f->lock);
	if (error)
		return error_set(error, "no thread for WILLNEED: %s", strerror(error));
	atomic_fetch_add(&f->wake, 1);
	futex_wake(&f->wake, 1, false);
	return 0;
}

void prefetch_cancel(struct prefetch *f, uint32_t region)
{
	uint32_t kept = 0;

	lock_acquire(&f->lock);
	for (uint32_t i = 0; i < f->count; i++) {
		struct prefetch_request *r = &f->request[(f->head + i) % PREFETCH_REQUESTS];

		if (r->region != region)
			f->request[(f->head + kept++) % PREFETCH_REQUESTS] = *r;
	}
	f->count = kept;
	lock_release(&f->lock);
}

void prefetch_fork_in_child(struct prefetch *f)
{
	f->started = false;
	f->count = 0;
}

void prefetch_stop(struct prefetch *f)
{
	if (!f->started)
		return;
	atomic_store(&f->stop, 1);
	atomic_fetch_add(&f->wake, 1);
	futex_wake(&f->wake, 1, false);
	pthread_join(f->thread, NULL);
	f->started = false;
}
