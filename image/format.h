/* SPDX-License-Identifier: MIT */
/*
 * image/format.h - what the bytes of an image mean; docs/IMAGE-FORMAT.md.
 *
 *   header | data and index block of a leaf | of the next leaf | ... | root
 *
 * There is one way to write a given content: everything follows what is before
 * it without a gap, in the order of the pages. So a reader can check each number
 * in a file against others, and no byte belongs to two pages.
 */
#ifndef QUIRE_IMAGE_FORMAT_H
#define QUIRE_IMAGE_FORMAT_H

#include "image/image.h"

#define FORMAT_VERSION 1u
#define FORMAT_HEADER_BYTES 4096u
#define FORMAT_BLOCK_BYTES 4096u
#define FORMAT_ENTRY_BYTES 16u
#define FORMAT_ROOT_ENTRY_BYTES 24u
/* Compressing must save an eighth, or the page is stored as it is. */
#define FORMAT_COMPRESSED_MAX (PAGE_BYTES - PAGE_BYTES / 8)

_Static_assert(FORMAT_BLOCK_BYTES == IMAGE_LEAF_PAGES * FORMAT_ENTRY_BYTES, "a leaf fills a block");

static inline uint64_t format_get64(const unsigned char *at)
{
	return (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 |
	       (uint64_t)at[3] << 24 | (uint64_t)at[4] << 32 | (uint64_t)at[5] << 40 |
	       (uint64_t)at[6] << 48 | (uint64_t)at[7] << 56;
}

static inline uint32_t format_get32(const unsigned char *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
	       (uint32_t)at[3] << 24;
}

static inline void format_put64(unsigned char *at, uint64_t value)
{
	for (unsigned i = 0; i < 8; i++)
		at[i] = (unsigned char)(value >> 8 * i);
}

static inline void format_put32(unsigned char *at, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		at[i] = (unsigned char)(value >> 8 * i);
}

static inline uint64_t format_pages(const struct image_header *h)
{
	return h->description.bytes >> PAGE_SHIFT;
}

/* The root follows all else. */
static inline uint64_t format_root_offset(const struct image_header *h)
{
	return FORMAT_HEADER_BYTES + h->data_bytes + h->leaves * FORMAT_BLOCK_BYTES;
}

static inline uint64_t format_root_bytes(const struct image_header *h)
{
	return h->leaves * FORMAT_ROOT_ENTRY_BYTES;
}

/* Of a page as page number page: as another one its sum differs. */
uint64_t format_sum_page(uint64_t page, const void *bytes);
/* Of any bytes. */
uint64_t format_sum(const void *bytes, size_t length);

/* ------------------------------------------------------------ header (header.c) */

void format_put_header(unsigned char *block, const struct image_header *h, uint64_t root_sum);
/*
 * Check and read one, of a file of so many bytes, of which have (at most
 * FORMAT_HEADER_BYTES) are in block.
 * => 0, or as at the top of image.h, with words
 */
int format_get_header(const unsigned char *block, size_t have, uint64_t file_bytes,
                      const char *path, struct image_header *h, uint64_t *root_sum);
/* What is wrong with what somebody says of memory; NULL: nothing. */
const char *format_description_fault(const struct image_description *d);

/* ------------------------------------------------------------ an index block */

struct format_entry {
	enum image_kind kind; /* ABSENT: nothing is recorded */
	unsigned length;      /* of what is stored; PAGE_BYTES: the page itself */
	uint64_t offset;
	uint64_t sum;
};

void format_put_entry(unsigned char *block, unsigned i, const struct format_entry *e);
/* => of a block without a fault */
struct format_entry format_get_entry(const unsigned char *block, unsigned i);
/*
 * What is wrong with a block that tells of the data in begin .. end and of so
 * many pages; NULL: nothing. => *at is the entry
 */
const char *format_block_fault(const unsigned char *block, uint64_t begin, uint64_t end,
                               unsigned pages, bool full, unsigned *at);

/* ------------------------------------------------------------ the root */

struct format_root_entry {
	uint64_t leaf;
	uint64_t offset; /* of its index block; its pages' data ends there */
	uint64_t sum;    /* of the block */
};

void format_put_root(unsigned char *root, uint64_t i, const struct format_root_entry *e);
struct format_root_entry format_get_root(const unsigned char *root, uint64_t i);
/* What is wrong with a root; NULL: nothing. => *at is the entry */
const char *format_root_fault(const unsigned char *root, const struct image_header *h,
                              uint64_t *at);

/* Where the data of the leaf of entry i begins. */
static inline uint64_t format_leaf_begin(const unsigned char *root, uint64_t i)
{
	if (i == 0)
		return FORMAT_HEADER_BYTES;
	return format_get_root(root, i - 1).offset + FORMAT_BLOCK_BYTES;
}

#endif
