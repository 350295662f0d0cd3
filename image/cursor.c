/* SPDX-License-Identifier: MIT */
/* image/cursor.c - what is recorded, in order: one index block at a time. */
#include "image/reader.h"

void image_seek(struct image_cursor *c, const struct image *im, uint64_t page)
{
	c->image = im;
	c->from = page;
	c->slot = image_root_find(im, page / IMAGE_LEAF_PAGES);
	c->loaded = false;
}

/* The next recorded page of the leaf. => its kind, or IMAGE_ABSENT */
static int next_of_leaf(struct image_cursor *c, uint64_t *page)
{
	uint64_t first = c->leaf.number * IMAGE_LEAF_PAGES, end = first + IMAGE_LEAF_PAGES;

	for (c->from = MAX(c->from, first); c->from < end; c->from++) {
		enum image_kind kind = image_leaf_entry(&c->leaf, c->from).kind;

		if (kind != IMAGE_ABSENT) {
			*page = c->from++;
			return kind;
		}
	}
	return IMAGE_ABSENT;
}

int image_next(struct image_cursor *c, uint64_t *page)
{
	for (; c->slot < c->image->header.leaves; c->slot++, c->loaded = false) {
		int kind = c->loaded ? 0 : image_read_slot(c->image, c->slot, &c->leaf);

		if (kind < 0)
			return kind;
		c->loaded = true;
		kind = next_of_leaf(c, page);
		if (kind != IMAGE_ABSENT)
			return kind;
	}
	return IMAGE_ABSENT;
}

int image_cursor_read(const struct image_cursor *c, void *bytes)
{
	return image_leaf_page(c->image, &c->leaf, c->from - 1, bytes);
}
