/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/fork_image.h - what the programs that test the memory of children share:
 * a region and what its pages must hold.
 */
#ifndef QUIRE_TESTS_FORK_IMAGE_H
#define QUIRE_TESTS_FORK_IMAGE_H

#include "support.h"

enum { PAGES = 192, UNTOUCHED = PAGES - 32 };

#define BUDGET QUIRE_MEMORY_MIN

/* What a region's pages hold: a version, or zeros where that is 0. */
struct image {
	quire_region_t *r;
	unsigned version[PAGES];
};

/* => pages that hold anything else */
size_t image_wrong(const struct image *m);
void image_fill(struct image *m, size_t page, size_t count, unsigned version);
/* The pages have been made zeros. */
void image_zeros(struct image *m, size_t page, size_t count);
void image_create(struct image *m, quire_t *of);

/* The one pager of most tests and its region, of which the last pages are never touched. */
extern quire_t *q;
extern struct image image;
void begin(size_t budget);

#endif
