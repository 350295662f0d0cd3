/* SPDX-License-Identifier: MIT */
/*
 * image/reader.h - what verify.c, cursor.c and merge.c need of the reader beyond image.h.
 */
#ifndef QUIRE_IMAGE_READER_H
#define QUIRE_IMAGE_READER_H

#include "image/format.h"

/* The first entry of the root whose leaf is not below number; header.leaves if there is none. */
uint64_t image_root_find(const struct image *im, uint64_t number);

/* Read and check the index block of entry slot of the root. => 0 or -errno, without words */
int image_read_slot(const struct image *im, uint64_t slot, struct image_leaf *leaf);

/* Of memory's length, those that leaf number tells of. */
static inline unsigned image_pages_of_leaf(const struct image *im, uint64_t number)
{
	uint64_t left = format_pages(&im->header) - number * IMAGE_LEAF_PAGES;

	return left < IMAGE_LEAF_PAGES ? (unsigned)left : IMAGE_LEAF_PAGES;
}

static inline struct format_entry image_leaf_entry(const struct image_leaf *leaf, uint64_t page)
{
	return format_get_entry(leaf->block, (unsigned)(page % IMAGE_LEAF_PAGES));
}

/*
 * Read a page whose entry is e (kind BYTES), and what is stored of it, and check
 * it. => *stored is work, or bytes if the page is stored as it is; 0 or -errno
 */
int image_read_stored(const struct image *im, uint64_t page, const struct format_entry *e,
                      void *bytes, unsigned char work[FORMAT_COMPRESSED_MAX], const void **stored);

#endif
