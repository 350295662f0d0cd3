/* SPDX-License-Identifier: MIT */
/*
 * pager/faultaround.h - first touches in order: how many pages to fill at once.
 *
 * A first touch next to the pages filled by an earlier one continues a *front*,
 * upward or downward, and doubles its window. Pure bookkeeping, as readahead.h;
 * one struct a region, under the region's readahead lock. A front advances by
 * what was really filled (faultaround_filled), so a fill cut short costs
 * nothing but its length.
 */
#ifndef QUIRE_PAGER_FAULTAROUND_H
#define QUIRE_PAGER_FAULTAROUND_H

#include <stdint.h>

#define FRONTS 8

struct front {
	uint64_t first, end; /* pages filled so far: [first, end) */
	uint32_t window;     /* pages beside the touched one last time */
	uint32_t used;       /* faultaround.tick */
};

struct faultaround {
	struct front front[FRONTS];
	uint32_t tick;
};

/*
 * First touch of page. => how many pages beside it to fill, at most max;
 * *direction: 1 above, -1 below; *which: the front, for faultaround_filled
 */
uint32_t faultaround_touch(struct faultaround *fa, uint64_t page, uint32_t max, int *direction,
                           unsigned *which);
/* Pages [first, first + n), the touched one among them, were filled. */
void faultaround_filled(struct faultaround *fa, unsigned which, uint64_t first, uint32_t n);

#endif
