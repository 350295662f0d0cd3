/* SPDX-License-Identifier: MIT */
/*
 * image/verify.c - all that can be checked: each index block, each page, and
 * that the header counts what is there.
 */
#include "base/error.h"
#include "image/file.h"
#include "image/reader.h"

#include <errno.h>
#include <string.h>

static int not_read(const struct image *im, int error, uint64_t offset)
{
	return error_set(error, "image %s: byte %llu cannot be read: %s", im->path,
	                 (unsigned long long)offset,
	                 error == EBADMSG ? "the file became shorter" : strerror(error));
}

/* The index block of entry slot of the root is not good, or can't be read: say why. */
static int leaf_words(const struct image *im, uint64_t slot, struct image_leaf *leaf)
{
	struct format_root_entry e = format_get_root(im->root.base, slot);
	const char *fault = NULL;
	unsigned at = 0;
	int error = image_file_read(im->fd, leaf->block, FORMAT_BLOCK_BYTES, e.offset);

	if (error)
		return not_read(im, -error, e.offset);
	if (format_sum(leaf->block, FORMAT_BLOCK_BYTES) == e.sum)
		fault = format_block_fault(leaf->block, leaf->begin, leaf->end,
		                           image_pages_of_leaf(im, e.leaf), leaf->full, &at);
	if (!fault)
		return error_set(EBADMSG,
		                 "image %s is damaged: the index of leaf %llu, of the pages from "
		                 "%llu on (at byte %llu): its checksum",
		                 im->path, (unsigned long long)e.leaf,
		                 (unsigned long long)e.leaf * IMAGE_LEAF_PAGES,
		                 (unsigned long long)e.offset);
	return error_set(EBADMSG, "image %s is damaged: the index of page %llu (at byte %llu): %s",
	                 im->path, (unsigned long long)e.leaf * IMAGE_LEAF_PAGES + at,
	                 (unsigned long long)e.offset + (uint64_t)at * FORMAT_ENTRY_BYTES, fault);
}

static int page_words(const struct image *im, uint64_t page, const struct format_entry *e,
                      int error)
{
	if (error != EBADMSG)
		return not_read(im, error, e->offset);
	return error_set(EBADMSG, "image %s is damaged: page %llu (%u bytes at byte %llu)",
	                 im->path, (unsigned long long)page, e->length,
	                 (unsigned long long)e->offset);
}

/* => 0 or -errno with words; what is found is added to *found */
static int check_leaf(const struct image *im, uint64_t slot, struct image_header *found)
{
	unsigned char bytes[PAGE_BYTES];
	struct image_leaf leaf;
	int kind = image_read_slot(im, slot, &leaf);

	if (kind)
		return leaf_words(im, slot, &leaf);
	for (unsigned i = 0; i < IMAGE_LEAF_PAGES; i++) {
		uint64_t page = leaf.number * IMAGE_LEAF_PAGES + i;
		struct format_entry e = image_leaf_entry(&leaf, page);

		found->zeros += e.kind == IMAGE_ZEROS;
		if (e.kind != IMAGE_BYTES)
			continue;
		found->stored++;
		found->compressed += e.length < PAGE_BYTES;
		kind = image_leaf_page(im, &leaf, page, bytes);
		if (kind < 0)
			return page_words(im, page, &e, -kind);
	}
	return 0;
}

int image_verify(const struct image *im, image_progress progress, void *arg)
{
	const struct image_header *h = &im->header;
	struct image_header found = { .leaves = 0 };

	for (uint64_t slot = 0; slot < h->leaves; slot++) {
		int error = check_leaf(im, slot, &found);

		if (error)
			return error;
		if (progress && !progress(arg, slot + 1, h->leaves))
			return error_set(ECANCELED, "image %s: checking it was given up", im->path);
	}
	if (found.stored == h->stored && found.compressed == h->compressed &&
	    found.zeros == h->zeros)
		return 0;
	return error_set(EBADMSG,
	                 "image %s is damaged: the header counts %llu pages, %llu of them "
	                 "compressed, and %llu of zeros; there are %llu, %llu and %llu",
	                 im->path, (unsigned long long)h->stored, (unsigned long long)h->compressed,
	                 (unsigned long long)h->zeros, (unsigned long long)found.stored,
	                 (unsigned long long)found.compressed, (unsigned long long)found.zeros);
}
