/* SPDX-License-Identifier: MIT */
/* tests/integration/fork_image.c - see fork_image.h. */
#include "fork_image.h"

quire_t *q;
struct image image;

size_t image_wrong(const struct image *m)
{
	size_t bad = 0;

	for (size_t p = 0; p < PAGES; p++)
		bad += (m->version[p] ? wrong(m->r, p, 1, m->version[p]) : nonzero(m->r, p, 1)) !=
		       0;
	return bad;
}

void image_fill(struct image *m, size_t page, size_t count, unsigned version)
{
	fill(m->r, page, count, version);
	for (size_t p = page; p < page + count; p++)
		m->version[p] = version;
}

void image_zeros(struct image *m, size_t page, size_t count)
{
	for (size_t p = page; p < page + count; p++)
		m->version[p] = 0;
}

void image_create(struct image *m, quire_t *of)
{
	m->r = region_create(of, PAGES * PAGE);
	image_zeros(m, 0, PAGES);
}

void begin(size_t budget)
{
	q = pager_open(budget);
	image_create(&image, q);
	image_fill(&image, 0, UNTOUCHED, 1);
}
