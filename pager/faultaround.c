/* SPDX-License-Identifier: MIT */
/* pager/faultaround.c - see faultaround.h. */
#include "pager/faultaround.h"

#include "base/base.h"

/* Replaced: a front that was never continued, the longest silent; else the longest silent of all. */
static unsigned replaceable(const struct faultaround *fa)
{
	unsigned best = 0;

	for (unsigned i = 1; i < FRONTS; i++) {
		const struct front *f = &fa->front[i], *b = &fa->front[best];

		if ((f->window == 0) != (b->window == 0)) {
			if (f->window == 0)
				best = i;
		} else if (fa->tick - f->used > fa->tick - b->used) {
			best = i;
		}
	}
	return best;
}

uint32_t faultaround_touch(struct faultaround *fa, uint64_t page, uint32_t max, int *direction,
                           unsigned *which)
{
	fa->tick++;
	*direction = 1;
	for (unsigned i = 0; i < FRONTS; i++) {
		struct front *f = &fa->front[i];

		if (f->end == 0 || (page != f->end && page + 1 != f->first))
			continue;
		*direction = page == f->end ? 1 : -1;
		*which = i;
		f->used = fa->tick;
		f->window = MIN(MAX(f->window * 2, 1), max);
		return f->window;
	}
	*which = replaceable(fa);
	fa->front[*which] = (struct front){ .first = page, .end = page + 1, .used = fa->tick };
	return 0;
}

void faultaround_filled(struct faultaround *fa, unsigned which, uint64_t first, uint32_t n)
{
	struct front *f = &fa->front[which];

	/* Another thread may have been given the front meanwhile: then it begins anew here. */
	if (first <= f->end && first + n >= f->first) {
		f->first = MIN(f->first, first);
		f->end = MAX(f->end, first + n);
	} else {
		f->first = first;
		f->end = first + n;
	}
}
