/* SPDX-License-Identifier: MIT */
/* base/gate.c - see gate.h. */
#include "base/gate.h"

#include "base/base.h"
#include "base/lock.h"

/* How long threads wait at a closed gate before it has its purpose. */
#define DRAIN_NS UINT64_C(5000000)
/* And how long it is open before it is tried again. */
#define RESPITE_NS UINT64_C(500000)

void gate_enter(struct gate *g)
{
	for (;;) {
		atomic_fetch_add(&g->inside, 1);
		if (likely(!atomic_load(&g->closed)))
			return;
		gate_leave(g);
		futex_wait(&g->closed, 1, 0, false);
	}
}

void gate_leave(struct gate *g)
{
	uint32_t inside = atomic_fetch_sub(&g->inside, 1);

	DEBUG_ASSERT(inside > 0);
	(void)inside;
	if (unlikely(atomic_load(&g->closed)))
		futex_wake(&g->inside, 1, false);
}

bool gate_try_close(struct gate *g, uint32_t self)
{
	uint64_t end = now_ns() + DRAIN_NS;
	uint32_t inside;

	atomic_store(&g->closed, 1);
	while ((inside = atomic_load(&g->inside)) != self) {
		if (now_ns() >= end) {
			gate_open(g);
			return false;
		}
		futex_wait(&g->inside, inside, DRAIN_NS, false);
	}
	return true;
}

void gate_respite(void)
{
	_Atomic uint32_t never = 0;

	futex_wait(&never, 0, RESPITE_NS, false);
}

void gate_close(struct gate *g, uint32_t self)
{
	while (!gate_try_close(g, self))
		gate_respite();
}

void gate_open(struct gate *g)
{
	atomic_store(&g->closed, 0);
	futex_wake(&g->closed, INT32_MAX, false);
}

bool gate_is_unused(struct gate *g)
{
	return !atomic_load(&g->closed) && atomic_load(&g->inside) == 0;
}
