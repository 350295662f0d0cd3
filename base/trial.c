/* SPDX-License-Identifier: MIT */
/*
 * base/trial.c - two ways tried in turn; see trial.h.
 *
 * All figures are estimates: a time that is told while a round ends may count
 * for the next, and a round whose end another thread is still deciding about
 * goes on. Nobody waits for anybody.
 */
#include "base/trial.h"

#include "base/base.h"

/* Way 1 is clearly quicker: by a sixteenth. */
static bool quicker(const uint64_t mean[2])
{
	return mean[1] < mean[0] - mean[0] / 16;
}

void trial_init(struct trial *t, uint64_t cap_ns)
{
	*t = (struct trial){ .cap = cap_ns, .way = 1, .chosen = 1, .patience = 1 };
}

/* => turning is ours */
static void count_round(struct trial *t, unsigned way)
{
	uint64_t count = atomic_exchange_explicit(&t->count[way], 0, memory_order_relaxed);
	uint64_t ns = atomic_exchange_explicit(&t->ns[way], 0, memory_order_relaxed);

	if (!count)
		return;
	ns /= count;
	/* A round is noisy: half of what was known before stays, unless that is old. */
	if (t->mean[way] && way == atomic_load_explicit(&t->chosen, memory_order_relaxed))
		ns = (t->mean[way] + ns) / 2;
	t->mean[way] = ns;
}

/* => turning is ours; the way of the next round */
static unsigned decide(struct trial *t, unsigned way)
{
	unsigned chosen = atomic_load_explicit(&t->chosen, memory_order_relaxed);

	if (t->mean[0] && t->mean[1] && quicker(t->mean) != chosen) {
		chosen = !chosen;
		t->patience = 1;
		t->waited = 0;
	} else if (way != chosen) {
		t->patience = MIN(2 * t->patience, TRIAL_PATIENCE);
		t->waited = 0;
	} else if (++t->waited >= t->patience) {
		return !chosen;
	}
	atomic_store_explicit(&t->chosen, chosen, memory_order_relaxed);
	return chosen;
}

static void next_round(struct trial *t)
{
	unsigned way = atomic_load_explicit(&t->way, memory_order_relaxed);

	if (atomic_exchange_explicit(&t->turning, 1, memory_order_acquire))
		return;
	count_round(t, way);
	atomic_store_explicit(&t->way, decide(t, way), memory_order_relaxed);
	atomic_store_explicit(&t->turning, 0, memory_order_release);
}

unsigned trial_way(struct trial *t)
{
	uint32_t times = atomic_fetch_add_explicit(&t->times, 1, memory_order_relaxed);

	if (times % TRIAL_ROUND == TRIAL_ROUND - 1)
		next_round(t);
	return trial_round(t);
}

void trial_took(struct trial *t, unsigned way, uint64_t ns, uint32_t count)
{
	atomic_fetch_add_explicit(&t->ns[way], MIN(ns, count * t->cap), memory_order_relaxed);
	atomic_fetch_add_explicit(&t->count[way], count, memory_order_relaxed);
}
