/* SPDX-License-Identifier: MIT */
/*
 * vm/refusals.h - accesses that the engine `uffd` has refused, for a while.
 *
 * A refused page is poisoned, if the kernel can, and an access that comes later
 * deserves a try of its own: so a refusal ends by itself after a moment, or
 * earlier when its cause is gone (refusals_end). Any thread may call these.
 */
#ifndef QUIRE_VM_REFUSALS_H
#define QUIRE_VM_REFUSALS_H

#include "base/base.h"
#include "base/lock.h"

#include <stdatomic.h>

#define REFUSALS_MAX 64

struct engine;

struct refusal {
	char *page;
	uint64_t until;
};

struct refusals {
	struct engine *e;
	struct lock lock;
	_Atomic uint32_t count; /* oldest first; lock */
	struct refusal list[REFUSALS_MAX];
};

void refusals_open(struct refusals *l, struct engine *e);

/* Poison page and remember it, waking nobody else. => false: not now, there are too many */
bool refusals_add(struct refusals *l, char *page);

/*
 * End those that are due by now (ns; UINT64_MAX: all): their pages are absent
 * again, and the next fault is looked at afresh.
 * => how many of these are worth another try at once
 */
uint32_t refusals_end(struct refusals *l, uint64_t now);

#endif
