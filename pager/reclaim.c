/* SPDX-License-Identifier: MIT */
/*
 * pager/reclaim.c - one step of reclaim, and the thread that takes steps.
 *
 * Memory goes from mapped to standby (the policy picks, the owner unmaps),
 * from standby to its slot (written if dirty, then given up oldest first), and
 * from there to free credits. A step does the cheapest of these that is due:
 *
 *   1. free clusters that still have memory give it back, but for one;
 *   2. standby above its target gives up its oldest cluster;
 *   3. a batch of victims is unmapped into standby, its dirty pages written;
 *   4. nothing else to be had: standby below its target, then wait for writes.
 *
 * One thread reclaims at a time (reclaim lock); the thread below does it while
 * credits are under the high watermark and sleeps on a futex otherwise: an
 * idle pager uses no CPU.
 */
#include "pager/pager.h"

#include "base/quiesce.h"
#include "base/thread.h"

#include <sched.h>
#include <sys/prctl.h>

/* Fruitless rounds: how long the thread waits before it looks again. */
#define PAUSE_MIN_NS UINT64_C(500000)
#define PAUSE_MAX_NS UINT64_C(100000000)

/* Pages of budget from which on a free cluster may keep its memory. */
#define KEEP_FROM (32 * CLUSTER_PAGES)
/* And of which one may while wide windows are read, up to a window. */
#define KEEP_SHARE (64 * CLUSTER_PAGES)
#define KEEP_MOST 8

SIGNAL_SAFE_TLS bool thread_is_ours;

void reclaim_enter(struct pager *p)
{
	lock_acquire(&p->reclaim_lock);
	atomic_store(&p->reclaimer_tid, thread_id());
}

void reclaim_leave(struct pager *p)
{
	atomic_store(&p->reclaimer_tid, 0);
	lock_release(&p->reclaim_lock);
}

/* Wait for a write. => progress: a write that failed is none */
static uint32_t write_some(struct pager *p)
{
	uint64_t before = counted(&p->counters->pages_out);

	writeback_reap(p, true);
	return counted(&p->counters->pages_out) != before;
}

/* Give up what is clean in one standby cluster; start writing what is dirty. => pages given up */
static uint32_t retire(struct pager *p, uint32_t c, bool *writing)
{
	struct cluster *cl = &p->clusters[c];
	uint32_t retired = 0;
	bool dirty = false;

	for (uint32_t i = 0; i < cl->used; i++) {
		struct buffer *b = &cl->buffer[i];

		switch (atomic_load(&b->state)) {
		case BUFFER_CLEAN:
			if (p->owner_ops->retire(p->owner, buffer_page(b), c * CLUSTER_PAGES + i,
			                         b->slot))
				retired++;
			break;
		case BUFFER_DIRTY:
			dirty = true;
			break;
		case BUFFER_WRITING:
		case BUFFER_ABANDONED:
			*writing = true;
			break;
		default:
			break;
		}
	}
	if (dirty)
		*writing |= writeback_start(p, c);
	return retired;
}

/* Give up what is clean in standby, oldest first; wait for a write only if nothing is. => pages given up */
static uint32_t retire_oldest(struct pager *p)
{
	uint32_t retired = 0;
	bool writing = false;

	for (uint32_t n = standby_length(p); n > 0 && retired == 0; n--) {
		uint32_t c = standby_next(p, CLUSTER_NONE);

		if (c == CLUSTER_NONE)
			break;
		retired = retire(p, c, &writing);
		/* What could not be given up now goes behind the others. */
		if (atomic_load(&p->clusters[c].refs) > 1)
			cluster_to_standby(p, c);
		cluster_put(p, c);
	}
	if (retired == 0 && writing)
		retired = write_some(p);
	return retired;
}

static uint32_t take_batch(struct pager *p)
{
	bool clean_only = writeback_suspended(p);
	struct taken t = p->owner_ops->take(p->owner, clean_only);

	if (t.cluster != CLUSTER_NONE) {
		cluster_to_standby(p, t.cluster);
		writeback_start(p, t.cluster);
		cluster_put(p, t.cluster);
	}
	/* While writes fail, dirty pages only change their place: that is no progress. */
	if (!clean_only && (p->write_again_at || atomic_load(&p->write_failing)))
		return t.freed;
	return t.pages;
}

/* Buffers with memory that hold no page, free clusters' aside (those were released first). */
static uint32_t wasted(struct pager *p)
{
	uint64_t populated = atomic_load(&p->populated), standby = atomic_load(&p->standby);

	return populated > standby ? (uint32_t)(populated - standby) : 0;
}

/*
 * How many free clusters keep their memory? One for the next batch of victims, if
 * that is not much of the budget. More while a stream is read: its windows are
 * mapped by copies, and what they were read into is wanted for the next in a
 * moment. To give that back and take it again was a twelfth of the CPU time of a scan.
 */
static uint32_t clusters_kept(struct pager *p)
{
	uint64_t budget = atomic_load(&p->budget);
	uint32_t streaming = atomic_load_explicit(&p->streaming, memory_order_relaxed);

	if (streaming)
		atomic_store_explicit(&p->streaming, streaming - 1, memory_order_relaxed);
	if (streaming && budget >= 2 * KEEP_SHARE)
		return (uint32_t)MIN(budget / KEEP_SHARE, KEEP_MOST);
	return budget >= KEEP_FROM;
}

static uint32_t step(struct pager *p)
{
	int64_t high = atomic_load(&p->high), credits;
	uint64_t target = atomic_load(&p->standby_target);
	bool clusters_short = atomic_exchange(&p->clusters_short, 0);
	uint32_t n;

	writeback_reap(p, false);
	/* Whatever the credits: without a cluster nothing can be read or unmapped. */
	if (unlikely(clusters_short)) {
		stage_flush(p);
		if ((n = retire_oldest(p)) != 0)
			return n;
	}
	n = clusters_release(p, high, clusters_kept(p));
	credits = atomic_load(&p->credits);
	if (n && credits >= high)
		return n;
	/* A page in standby may keep a whole cluster: not when that is much. */
	n = credits < high ? wasted(p) : 0;
	if (n > atomic_load(&p->budget) / 32 && (n = clusters_trim(p)) != 0)
		return n;
	/* In need, standby is spent sooner. */
	if (credits < atomic_load(&p->low) / 2)
		target /= 4;
	if (atomic_load(&p->standby) > target && retire_oldest(p))
		return 1;
	/* Of clusters, to unmap pages gives none. */
	n = clusters_short && credits >= high ? 0 : take_batch(p);
	if (n)
		return n;
	stage_flush(p);
	n = retire_oldest(p);
	if (n == 0)
		n = clusters_trim(p);
	if (n == 0)
		n = clusters_release(p, high, 0);
	return n ? n : write_some(p);
}

uint32_t reclaim_step(struct pager *p)
{
	uint32_t n = step(p);

	atomic_fetch_add(n ? &p->progress : &p->vain, 1);
	return n;
}

/*
 * A step takes what memory there is without unmapping anything: a buffer that the caller
 * has given up just now, again and again, if it is that that he needed. Only when nothing
 * can be unmapped for want of a cluster, or of what is clean, is it what helps.
 */
bool reclaim_unmap(struct pager *p, struct patience *w)
{
	uint32_t n;

	reclaim_enter(p);
	n = take_batch(p);
	atomic_fetch_add(n ? &p->progress : &p->vain, 1);
	if (n == 0)
		step(p);
	reclaim_leave(p);
	return n != 0 || (!patience_ends(p, w) && pause_reclaim());
}

void reclaimer_kick(struct pager *p)
{
	if (atomic_load(&p->wake) == 0 && atomic_exchange(&p->wake, 1) == 0)
		futex_wake(&p->wake, 1, false);
}

void reclaimer_give_back(struct pager *p)
{
	atomic_store(&p->give_back, true);
	reclaimer_kick(p);
}

/* Leave nothing in flight behind, so that standby is clean when it is needed. => false: something came up */
static bool settle_writes(struct pager *p)
{
	for (;;) {
		uint32_t n;

		service_enter();
		reclaim_enter(p);
		n = writeback_reap(p, true);
		reclaim_leave(p);
		service_leave();
		if (n == 0)
			return true;
		if (atomic_load(&p->wake) || atomic_load(&p->stopping))
			return false;
	}
}

/*
 * In a working pager a free cluster's memory serves the next batch, and what is
 * short of credits takes it back. When a region has gone it may be an eighth of
 * the budget that nobody will ask for. Writes in flight were settled: theirs, too.
 */
static void give_back(struct pager *p)
{
	if (!atomic_exchange(&p->give_back, false))
		return;
	service_enter();
	reclaim_enter(p);
	clusters_release(p, INT64_MAX, atomic_load(&p->budget) >= KEEP_FROM);
	reclaim_leave(p);
	service_leave();
}

/*
 * A step takes a tenth of a millisecond, all that is due 2 ms or more: that long
 * the faults that are served on this CPU would wait. Not in need: they wait for this.
 */
static void give_way(struct pager *p)
{
	if (atomic_load(&p->credits) > atomic_load(&p->low) / 2)
		sched_yield();
}

#define NEVER UINT64_MAX

/* => how long to sleep at most; 0: for ever */
static uint64_t tend(struct pager *p)
{
	uint64_t now = now_ns(), due = atomic_load(&p->tend_at), ns;

	if (!p->owner_ops->tend || due == NEVER)
		return 0;
	if (now < due)
		return due - now;
	service_enter();
	ns = p->owner_ops->tend(p->owner);
	/* (Who wants it sooner does so at a standstill, not in between.) */
	atomic_store(&p->tend_at, ns ? now + ns : NEVER);
	service_leave();
	return ns;
}

void reclaimer_tend(struct pager *p)
{
	atomic_store(&p->tend_at, 0);
	reclaimer_kick(p);
}

static void *reclaimer(void *argument)
{
	struct pager *p = argument;
	uint64_t pause = PAUSE_MIN_NS;

	thread_is_ours = true;
	prctl(PR_SET_NAME, "quire-reclaim");
	while (!atomic_load(&p->stopping)) {
		uint32_t progress = 1;

		atomic_store(&p->wake, 0);
		while (progress && !atomic_load(&p->stopping) &&
		       (atomic_load(&p->credits) < (int64_t)atomic_load(&p->high) ||
		        atomic_load(&p->clusters_short))) {
			service_enter();
			reclaim_enter(p);
			progress = reclaim_step(p);
			reclaim_leave(p);
			service_leave();
			give_way(p);
		}
		/* Clearing wake may have undone the wake-up of who stops us: that says so first. */
		if (atomic_load(&p->stopping))
			break;
		if (progress) {
			pause = PAUSE_MIN_NS;
			if (settle_writes(p))
				give_back(p);
			if (atomic_load(&p->credits) >= (int64_t)atomic_load(&p->low))
				futex_wait(&p->wake, 0, tend(p), false);
		} else {
			tend(p);
			/* Who has asked since the round began may have brought what it wants. */
			futex_wait(&p->wake, 0, pause, false);
			pause = MIN(pause * 2, PAUSE_MAX_NS);
		}
	}
	return NULL;
}

int reclaimer_start(struct pager *p)
{
	int error;

	atomic_store(&p->tend_at, 0);
	error = thread_start(&p->thread, reclaimer, p);
	p->started = error == 0;
	return error;
}

void reclaimer_stop(struct pager *p)
{
	if (!p->started)
		return;
	atomic_store(&p->stopping, 1);
	reclaimer_kick(p);
	atomic_store(&p->wake, 1);
	futex_wake(&p->wake, 1, false);
	pthread_join(p->thread, NULL);
	p->started = false;
}
