/* SPDX-License-Identifier: MIT */
/*
 * image/format.c - index blocks and the root, byte by byte; checksums.
 *
 * An entry of an index block, two words of 64 bits:
 *
 *   bits 0-47 offset | bits 48-63 length        XXH3 of the page, seeded with its number
 *
 * A length of 0: nothing is recorded. LENGTH_ZEROS: zeros. Else that of what is
 * stored: 4096 is the page itself, less an LZ4 block. Words that mean nothing
 * are zero.
 */
#include "image/format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define OFFSET_BITS 48
#define LENGTH_ZEROS 0xffffu

uint64_t format_sum_page(uint64_t page, const void *bytes)
{
	return XXH3_64bits_withSeed(bytes, PAGE_BYTES, page);
}

uint64_t format_sum(const void *bytes, size_t length)
{
	return XXH3_64bits(bytes, length);
}

/* ------------------------------------------------------------ an index block */

void format_put_entry(unsigned char *block, unsigned i, const struct format_entry *e)
{
	unsigned char *at = block + (size_t)i * FORMAT_ENTRY_BYTES;
	uint64_t length = e->kind == IMAGE_ZEROS ? LENGTH_ZEROS : e->length;

	format_put64(at, e->offset | length << OFFSET_BITS);
	format_put64(at + 8, e->sum);
}

struct format_entry format_get_entry(const unsigned char *block, unsigned i)
{
	const unsigned char *at = block + (size_t)i * FORMAT_ENTRY_BYTES;
	uint64_t word = format_get64(at);
	struct format_entry e = {
		.kind = IMAGE_BYTES,
		.length = (unsigned)(word >> OFFSET_BITS),
		.offset = word & bits(0, OFFSET_BITS),
		.sum = format_get64(at + 8),
	};

	if (e.length == 0)
		e.kind = IMAGE_ABSENT;
	else if (e.length == LENGTH_ZEROS)
		e.kind = IMAGE_ZEROS, e.length = 0;
	return e;
}

/* Of an entry whose data, if it has some, ought to begin at begin. */
static const char *entry_fault(const struct format_entry *e, uint64_t begin, bool full)
{
	if (e->kind != IMAGE_BYTES) {
		if (e->offset != 0 || e->sum != 0)
			return "it has no data, and yet an offset or a checksum";
		if (e->kind == IMAGE_ZEROS && full)
			return "zeros are recorded, in a full image";
		return NULL;
	}
	if (e->length > FORMAT_COMPRESSED_MAX && e->length != PAGE_BYTES)
		return "the length of its data cannot be";
	if (e->offset != begin)
		return "its data is not where the data before it ends";
	return NULL;
}

const char *format_block_fault(const unsigned char *block, uint64_t begin, uint64_t end,
                               unsigned pages, bool full, unsigned *at)
{
	const char *fault;
	bool some = false;

	for (*at = 0; *at < IMAGE_LEAF_PAGES; ++*at) {
		struct format_entry e = format_get_entry(block, *at);

		if ((fault = entry_fault(&e, begin, full)) != NULL)
			return fault;
		if (e.kind != IMAGE_ABSENT && *at >= pages)
			return "it is beyond the end of the memory";
		begin += e.length;
		some |= e.kind != IMAGE_ABSENT;
	}
	--*at;
	if (begin != end)
		return "the data of its leaf does not end where the index block begins";
	return some ? NULL : "nothing is recorded in its leaf";
}

/* ------------------------------------------------------------ the root */

void format_put_root(unsigned char *root, uint64_t i, const struct format_root_entry *e)
{
	unsigned char *at = root + i * FORMAT_ROOT_ENTRY_BYTES;

	format_put64(at, e->leaf);
	format_put64(at + 8, e->offset);
	format_put64(at + 16, e->sum);
}

struct format_root_entry format_get_root(const unsigned char *root, uint64_t i)
{
	const unsigned char *at = root + i * FORMAT_ROOT_ENTRY_BYTES;
	struct format_root_entry e = {
		.leaf = format_get64(at),
		.offset = format_get64(at + 8),
		.sum = format_get64(at + 16),
	};

	return e;
}

const char *format_root_fault(const unsigned char *root, const struct image_header *h, uint64_t *at)
{
	uint64_t last = (format_pages(h) - 1) / IMAGE_LEAF_PAGES;
	uint64_t begin = FORMAT_HEADER_BYTES, after = 0;

	for (*at = 0; *at < h->leaves; ++*at) {
		struct format_root_entry e = format_get_root(root, *at);

		if (e.leaf < after)
			return "its leaf is not beyond the one before";
		if (e.leaf > last)
			return "its leaf is beyond the end of the memory";
		if (e.offset < begin || e.offset - begin > IMAGE_LEAF_PAGES * PAGE_BYTES)
			return "the offset of its index block cannot be";
		after = e.leaf + 1;
		begin = e.offset + FORMAT_BLOCK_BYTES;
	}
	if (begin != format_root_offset(h))
		return "the last index block does not end where the root begins";
	return NULL;
}
