/* SPDX-License-Identifier: MIT */
/* vm/refusals.c - see refusals.h. */
#include "vm/refusals.h"

#include "vm/uffd.h"
#include "vm/vm.h"

#include <errno.h>

/* How long a refusal stands. */
#define REFUSAL_NS UINT64_C(50000000)

void refusals_open(struct refusals *l, struct engine *e)
{
	l->e = e;
	lock_init(&l->lock, RANK_ENGINE);
}

/* => 0, -EBUSY: somebody is at the page just now, or why the kernel does not undo it */
static int end(struct engine *e, char *page)
{
	struct quire_region *r = registry_find(page);
	int error = 0;

	if (r && r->q == e->q)
		error = discard_poison(r, (uint64_t)(page - r->base) >> PAGE_SHIFT);
	if (r)
		region_put(r);
	/* Where nothing was poisoned, a thread that could not be told sleeps still. */
	if (!error && !e->uffd.poison)
		uffd_wake(e, page, 1);
	return error;
}

uint32_t refusals_end(struct refusals *l, uint64_t now)
{
	uint32_t kept = 0, left = 0;

	lock_acquire(&l->lock);
	for (uint32_t i = 0; i < l->count; i++) {
		bool due = l->list[i].until <= now;
		int error = due ? end(l->e, l->list[i].page) : 0;

		if (due && !error)
			continue;
		left += error == -EBUSY;
		l->list[kept++] = l->list[i];
	}
	l->count = kept;
	lock_release(&l->lock);
	return left;
}

/* => lock held; false: the list is full */
static bool note(struct refusals *l, char *page)
{
	for (uint32_t i = 0; i < l->count; i++)
		if (l->list[i].page == page)
			return true;
	if (l->count == REFUSALS_MAX)
		return false;
	l->list[l->count++] = (struct refusal){ page, now_ns() + REFUSAL_NS };
	return true;
}

bool refusals_add(struct refusals *l, char *page)
{
	bool noted;

	if (l->count == REFUSALS_MAX)
		refusals_end(l, UINT64_MAX);
	/* In the list before the thread can see it: it may ask for an end at once. */
	lock_acquire(&l->lock);
	noted = note(l, page);
	if (noted && l->e->uffd.poison)
		uffd_poison(l->e, page);
	lock_release(&l->lock);
	return noted;
}
