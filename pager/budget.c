/* SPDX-License-Identifier: MIT */
/*
 * pager/budget.c - the budget as credits, one a page of memory.
 *
 * P1  credits free + credits held = budget. Only budget_set changes the sum;
 *     while it lowers the budget the free count may be negative, and nobody
 *     gets a credit until it is positive again.
 *
 * P2  the last few credits (reserve_of) are not for new contents (credits_try_new).
 *     When nothing can be written out any more, because the swap file is full,
 *     new contents would take every page of the budget for good, and what is
 *     on the swap file could not be read. A page that is read in is clean, or
 *     frees its slot: it can go again. So the reserve serves any number of them.
 *
 * P3  an access is refused only after steps of reclaim that ended in vain, for
 *     half a second and with nothing under way that may help (patience_ends).
 *
 * The reclaimer keeps the free count between two watermarks; a thread that
 * finds none reclaims by itself (credits_get), or goes away and is told when
 * there are some (credits_try and owner->replenished: handler threads, which
 * must not sleep).
 */
#include "pager/pager.h"

#include <errno.h>

/* How long a thread looks for memory, while reclaim is stuck, before its access is refused. */
#define PATIENCE_NS UINT64_C(500000000)
#define PAUSE_NS UINT64_C(500000)
/* Credits that contents yet to come may not have. */
#define RESERVE INT64_C(8)
/* Of the time between two steps in vain, so much counts: as long as the reclaimer pauses at most. */
#define STEP_NS UINT64_C(100000000)

static uint32_t clamp(uint64_t v, uint32_t low, uint32_t high)
{
	return v < low ? low : v > high ? high : (uint32_t)v;
}

static void set_watermarks(struct pager *p, uint64_t budget)
{
	atomic_store(&p->budget, budget);
	/* Between the watermarks two windows should fit, if the budget is not tiny. */
	uint32_t high = MAX(clamp(budget / 32, 8, 2048), clamp(budget / 16, 8, 2 * CLUSTER_PAGES));

	atomic_store(&p->low, high / 2);
	atomic_store(&p->high, high);
	atomic_store(&p->batch, clamp(budget / 16, 4, CLUSTER_PAGES));
	atomic_store(&p->standby_target, clamp(budget / 8, 8, UINT32_MAX / 2));
}

static bool try_above(struct pager *p, uint32_t n, int64_t reserve)
{
	int64_t have = atomic_load_explicit(&p->credits, memory_order_relaxed);
	int64_t need = reserve + n;

	do {
		if (have < need) {
			/* Set before the reclaimer can put: credits_put looks at it after adding. */
			atomic_store(&p->starved, 1);
			have = atomic_load(&p->credits);
			if (have >= need)
				continue;
			reclaimer_kick(p);
			return false;
		}
	} while (have < need || !atomic_compare_exchange_weak_explicit(&p->credits, &have, have - n,
	                                                               memory_order_acq_rel,
	                                                               memory_order_relaxed));
	if (have - n < (int64_t)atomic_load_explicit(&p->low, memory_order_relaxed))
		reclaimer_kick(p);
	return true;
}

bool credits_try(struct pager *p, uint32_t n)
{
	return try_above(p, n, 0);
}

uint32_t credits_take(struct pager *p, uint32_t n)
{
	int64_t have = atomic_load(&p->credits);
	uint32_t taken;

	do
		taken = have <= 0 ? 0 : (uint32_t)MIN(have, (int64_t)n);
	while (taken && !atomic_compare_exchange_weak(&p->credits, &have, have - taken));
	return taken;
}

/* Less than the high watermark: the reclaimer, once kicked, goes beyond it. */
static int64_t reserve_of(struct pager *p)
{
	return MIN((int64_t)atomic_load_explicit(&p->low, memory_order_relaxed) - 1, RESERVE);
}

bool credits_try_new(struct pager *p, uint32_t n)
{
	return try_above(p, n, reserve_of(p));
}

void credits_put(struct pager *p, uint32_t n)
{
	if (n == 0)
		return;
	atomic_fetch_add(&p->credits, n);
	if (unlikely(atomic_load(&p->starved)) && atomic_exchange(&p->starved, 0))
		p->owner_ops->replenished(p->owner);
}

uint32_t credits_spare(struct pager *p, uint32_t want)
{
	int64_t reserve = atomic_load_explicit(&p->low, memory_order_relaxed) / 2;
	int64_t have = atomic_load_explicit(&p->credits, memory_order_relaxed) - reserve;

	if (have < (int64_t)want)
		reclaimer_kick(p);
	return have <= 0 ? 0 : (uint32_t)MIN(have, (int64_t)want);
}

bool credits_ample(struct pager *p)
{
	int64_t have = atomic_load_explicit(&p->credits, memory_order_relaxed);

	return have > (int64_t)(atomic_load_explicit(&p->budget, memory_order_relaxed) / 4);
}

uint32_t credits_batch(struct pager *p)
{
	int64_t missing = -atomic_load(&p->credits);
	uint32_t batch = atomic_load(&p->batch);

	return missing <= 0 ? batch : (uint32_t)MIN(missing + batch, (int64_t)CLUSTER_PAGES);
}

/* Is something under way that gives memory back when it ends, or makes some that can be evicted? */
static bool is_hopeful(struct pager *p)
{
	return (atomic_load(&p->writing) && !atomic_load(&p->write_failing)) ||
	       atomic_load(&p->reading) || atomic_load(&p->releasing);
}

bool patience_ends(struct pager *p, struct patience *w)
{
	uint64_t now = now_ns();
	/* First: a step that comes between the two is seen as progress or not at all. */
	uint32_t vain = atomic_load(&p->vain), progress = atomic_load(&p->progress);

	if (w->since == 0 || progress != w->progress || is_hopeful(p)) {
		w->stuck = 0;
		w->since = now;
	} else if (vain != w->vain) {
		w->stuck += MIN(now - w->since, STEP_NS);
		w->since = now;
	}
	w->progress = progress;
	w->vain = vain;
	return w->stuck > PATIENCE_NS;
}

bool pause_reclaim(void)
{
	_Atomic uint32_t never = 0;

	futex_wait(&never, 0, PAUSE_NS, false);
	return true;
}

static int get_above(struct pager *p, uint32_t n, int64_t reserve)
{
	struct patience patience = { .since = 0 };

	if (likely(try_above(p, n, reserve)))
		return 0;
	count(&p->counters->direct_reclaims, 1);
	for (;;) {
		bool got;

		reclaim_enter(p);
		while (!(got = try_above(p, n, reserve)))
			if (reclaim_step(p) == 0)
				break;
		reclaim_leave(p);
		if (got)
			return 0;
		/*
		 * Nothing can be evicted now. Pages held by other threads' faults
		 * become evictable in a moment; a full disk does not go away.
		 */
		if (patience_ends(p, &patience))
			return -ENOMEM;
		pause_reclaim();
	}
}

int credits_get(struct pager *p, uint32_t n)
{
	return get_above(p, n, 0);
}

int credits_get_new(struct pager *p, uint32_t n)
{
	return get_above(p, n, reserve_of(p));
}

bool reclaim_wait(struct pager *p, struct patience *w)
{
	uint32_t n;

	reclaim_enter(p);
	n = reclaim_step(p);
	reclaim_leave(p);
	if (patience_ends(p, w))
		return false;
	if (n == 0)
		pause_reclaim();
	return true;
}

int budget_set(struct pager *p, uint64_t pages)
{
	struct patience patience = { .since = 0 };
	uint64_t old;
	bool fits;

	reclaim_enter(p);
	old = atomic_load(&p->budget);
	if (!frames_allow(p, pages)) {
		reclaim_leave(p);
		return -ENOMEM;
	}
	set_watermarks(p, pages);
	if (pages >= old) {
		reclaim_leave(p);
		credits_put(p, (uint32_t)(pages - old));
		return 0;
	}
	atomic_fetch_sub(&p->credits, (int64_t)(old - pages));
	while (!(fits = atomic_load(&p->credits) >= 0)) {
		uint32_t n = reclaim_step(p);

		/* Judged after a step: who had the lock meanwhile may have had it for long. */
		if (patience_ends(p, &patience))
			break;
		if (n == 0) {
			/* Others need the lock to finish what they hold. */
			reclaim_leave(p);
			pause_reclaim();
			reclaim_enter(p);
		}
	}
	if (!fits)
		set_watermarks(p, old);
	reclaim_leave(p);
	if (!fits)
		credits_put(p, (uint32_t)(old - pages));
	return fits ? 0 : -EBUSY;
}

/* Called once, by pager_open. */
void budget_init(struct pager *p, uint64_t pages);
void budget_init(struct pager *p, uint64_t pages)
{
	set_watermarks(p, pages);
	atomic_store(&p->credits, (int64_t)pages);
}
