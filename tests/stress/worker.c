/* SPDX-License-Identifier: MIT */
/*
 * tests/stress/worker.c - a worker: bursts of accesses in some pattern over an
 * arena with advice in between; now and then a new budget; and, alone in an
 * arena, whole checks, discards of what others own, a new region.
 *
 * Neighbours: ops.c makes the accesses; stress.c starts the workers.
 */
#include <errno.h>

#include "stress.h"

static void advise(struct worker *w, struct arena *a, size_t page)
{
	static const int kinds[] = { QUIRE_ADVISE_NORMAL, QUIRE_ADVISE_SEQUENTIAL,
		                     QUIRE_ADVISE_RANDOM, QUIRE_ADVISE_WILLNEED,
		                     QUIRE_ADVISE_COLD,   QUIRE_ADVISE_WILLNEED,
		                     QUIRE_ADVISE_COLD };
	size_t count = 1 + rnd(w) % (rnd(w) % 8 ? 16 : a->pages);

	count = count < a->pages - page ? count : a->pages - page;
	now_doing(w, "advising");
	must(quire_advise(a->region, page * QUIRE_PAGE_SIZE, count * QUIRE_PAGE_SIZE,
	                  kinds[rnd(w) % 7]),
	     "quire_advise");
}

/* ---------------------------------------------------------- bursts */

static void burst(struct worker *w, struct arena *a)
{
	uint64_t kind = rnd(w) % 8, steps = 8 + rnd(w) % 200;
	size_t page = rnd(w) % a->pages, stride = 1 + rnd(w) % 12;
	size_t hot = (size_t)a->generation * 7919 % a->pages;

	for (uint64_t i = 0; i < steps && !__atomic_load_n(&round_now.stop, __ATOMIC_RELAXED);
	     i++) {
		switch (kind) {
		case 0: /* forward */
			page = (page + 1) % a->pages;
			break;
		case 1: /* backward */
			page = (page + a->pages - 1) % a->pages;
			break;
		case 2: /* strided, either way */
			page = (page + (w->id & 1 ? stride : a->pages - stride % a->pages)) %
			       a->pages;
			break;
		case 3: /* where the others are too */
			page = (hot + rnd(w) % 4) % a->pages;
			break;
		case 4: /* a working set */
			page = (hot + rnd(w) % 64) % a->pages;
			break;
		default:
			page = rnd(w) % a->pages;
			break;
		}
		if (rnd(w) % 64 == 0)
			advise(w, a, page);
		else if (round_now.config->pins && rnd(w) % 64 == 0)
			visit_pinned(w, a, page);
		else
			visit_page(w, a, page);
	}
}

/* Nobody else is in the arena. */
static void alone(struct worker *w, struct arena *a)
{
	size_t page = rnd(w) % a->pages, count = 1 + rnd(w) % (a->pages - page);
	uint64_t kind = rnd(w) % 4;

	now_doing(w, "checking a whole range");
	if (count > 256)
		count = 256;
	arena_check_range(a, page, count);
	if (kind == 0) {
		now_doing(w, "discarding a range");
		must(quire_advise(a->region, page * QUIRE_PAGE_SIZE, count * QUIRE_PAGE_SIZE,
		                  QUIRE_ADVISE_DONTNEED),
		     "quire_advise(DONTNEED), nothing pinned");
		arena_forget(a, page, count);
		if (rnd(w) % 2)
			arena_check_range(a, page, count);
	} else if (kind == 1) {
		size_t pages = rnd(w) % 2 ? a->pages_max : 1 + rnd(w) % a->pages_max;

		now_doing(w, "destroying a region");
		arena_destroy(a);
		now_doing(w, "creating a region");
		arena_create(a, pages);
	}
}

static void lock_arena(struct worker *w, struct arena *a, bool write)
{
	__atomic_store_n(&w->waiting, true, __ATOMIC_RELAXED);
	if (write)
		pthread_rwlock_wrlock(&a->lock);
	else
		pthread_rwlock_rdlock(&a->lock);
	__atomic_store_n(&w->waiting, false, __ATOMIC_RELAXED);
}

/* The watcher allows for the higher of the budgets before and after while one is changed. */
static void change_budget(struct worker *w)
{
	size_t least = QUIRE_MEMORY_MIN, most = round_now.config->memory, want;
	size_t old = quire_memory(round_now.q);
	uint64_t kind = rnd(w) % 4;
	int r;

	want = kind == 0 ? least : kind == 1 ? most : least + rnd(w) % (most - least + 1);
	now_doing(w, "changing the budget");
	__atomic_fetch_add(&round_now.ceiling_changes, 1, __ATOMIC_SEQ_CST);
	if (want > old)
		__atomic_store_n(&round_now.ceiling, want, __ATOMIC_SEQ_CST);
	r = quire_set_memory(round_now.q, want);
	if (r && r != -EBUSY)
		must(r, "quire_set_memory");
	__atomic_store_n(&round_now.ceiling, r ? old : want, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&round_now.ceiling_changes, 1, __ATOMIC_SEQ_CST);
}

void *worker_main(void *arg)
{
	const struct config *c = round_now.config;
	struct worker *w = arg;

	this_worker = w;
	if (c->signals)
		signal_arm(w);
	while (!__atomic_load_n(&round_now.stop, __ATOMIC_ACQUIRE)) {
		struct arena *a = &round_now.arena[rnd(w) % c->arenas];
		bool write = c->churn && rnd(w) % 64 == 0;

		if (c->budget && w->id == 0 && rnd(w) % 16 == 0)
			change_budget(w);
		lock_arena(w, a, write);
		if (write)
			alone(w, a);
		else
			burst(w, a);
		pthread_rwlock_unlock(&a->lock);
	}
	if (c->signals)
		signal_disarm();
	now_doing(w, "finished");
	__atomic_store_n(&w->waiting, true, __ATOMIC_RELAXED);
	return NULL;
}
