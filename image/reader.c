/* SPDX-License-Identifier: MIT */
/*
 * image/reader.c - image_open, and reading a page by its number.
 *
 * The root is in memory, and was checked: so where an index block is, and
 * between which offsets the data of its pages, is known. To read a page takes
 * two reads: the index block, checked as a whole, and what is stored. Nothing is
 * kept of either: the kernel has them in its file cache, and so a read shares
 * nothing with another thread's.
 */
#include "image/reader.h"

#include "base/error.h"
#include "image/file.h"

#include <errno.h>
#include <fcntl.h>
#include <lz4.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------------ opening */

static void keep_path(struct image *im, const char *path)
{
	size_t length = strlen(path);

	if (length < sizeof im->path)
		strcpy(im->path, path);
	else
		snprintf(im->path, sizeof im->path, "...%s", path + length + 4 - sizeof im->path);
}

static int damaged(const struct image *im, const char *what)
{
	return error_set(EBADMSG, "image %s is damaged: %s", im->path, what);
}

static int not_read(const struct image *im, int error)
{
	if (error == EBADMSG)
		return damaged(im, "it became shorter than it was");
	return error_set(error, "image %s: %s", im->path, strerror(error));
}

static int read_header(struct image *im, uint64_t *root_sum)
{
	unsigned char block[FORMAT_HEADER_BYTES];
	struct stat st;
	size_t have;
	int error;

	if (fstat(im->fd, &st) != 0)
		return not_read(im, errno);
	if (!S_ISREG(st.st_mode))
		return error_set(EBADF, "image %s: it is no regular file", im->path);
	have = MIN((size_t)st.st_size, sizeof block);
	error = image_file_read(im->fd, block, have, 0);
	if (error)
		return not_read(im, -error);
	return format_get_header(block, have, (uint64_t)st.st_size, im->path, &im->header,
	                         root_sum);
}

static int read_root(struct image *im, uint64_t root_sum)
{
	const struct image_header *h = &im->header;
	size_t bytes = format_root_bytes(h);
	const char *fault;
	char what[160];
	uint64_t at;
	int error = arena_open(&im->root, MAX(bytes, PAGE_BYTES), false, "quire image root");

	if (error)
		return error;
	error = image_file_read(im->fd, im->root.base, bytes, format_root_offset(h));
	if (error)
		return not_read(im, -error);
	if (format_sum(im->root.base, bytes) != root_sum) {
		snprintf(what, sizeof what, "the root's checksum (%zu bytes from byte %llu on)",
		         bytes, (unsigned long long)format_root_offset(h));
		return damaged(im, what);
	}
	fault = format_root_fault(im->root.base, h, &at);
	if (!fault)
		return 0;
	snprintf(what, sizeof what, "entry %llu of the root: %s", (unsigned long long)at, fault);
	return damaged(im, what);
}

/* im->fd is open, or -errno. */
static int open_image(struct image *im)
{
	uint64_t root_sum;
	int error;

	if (im->fd < 0)
		return not_read(im, -im->fd);
	error = read_header(im, &root_sum);
	if (!error)
		error = read_root(im, root_sum);
	if (error)
		image_close(im);
	return error;
}

int image_open(struct image *im, const char *path)
{
	char own[PATH_MAX];
	size_t length = strlen(path);

	*im = (struct image){ .fd = -1 };
	keep_path(im, path);
	if (length >= sizeof own)
		return not_read(im, ENAMETOOLONG);
	/* The kernel is given a copy: the caller's may be memory that is paged out at any moment. */
	memcpy(own, path, length + 1);
	/* What waits for a writer (a FIFO) must not make us wait. */
	im->fd = open(own, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (im->fd < 0)
		im->fd = -errno;
	return open_image(im);
}

int image_open_fd(struct image *im, int fd)
{
	*im = (struct image){ .fd = -1 };
	snprintf(im->path, sizeof im->path, "(descriptor %d)", fd);
	im->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (im->fd < 0)
		im->fd = -errno;
	return open_image(im);
}

void image_close(struct image *im)
{
	if (im->fd >= 0)
		close(im->fd);
	arena_close(&im->root);
	im->fd = -1;
}

/* ------------------------------------------------------------ leaves */

uint64_t image_root_find(const struct image *im, uint64_t number)
{
	uint64_t low = 0, high = im->header.leaves;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (format_get_root(im->root.base, middle).leaf < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int image_read_slot(const struct image *im, uint64_t slot, struct image_leaf *leaf)
{
	struct format_root_entry e = format_get_root(im->root.base, slot);
	unsigned at;
	int error;

	leaf->number = e.leaf;
	leaf->begin = format_leaf_begin(im->root.base, slot);
	leaf->end = e.offset;
	leaf->full = image_is_full(&im->header);
	error = image_file_read(im->fd, leaf->block, FORMAT_BLOCK_BYTES, e.offset);
	if (error)
		return error;
	if (format_sum(leaf->block, FORMAT_BLOCK_BYTES) != e.sum ||
	    format_block_fault(leaf->block, leaf->begin, leaf->end, image_pages_of_leaf(im, e.leaf),
	                       leaf->full, &at))
		return -EBADMSG;
	return 0;
}

bool image_has_leaf(const struct image *im, uint64_t number)
{
	uint64_t slot = image_root_find(im, number);

	return slot < im->header.leaves && format_get_root(im->root.base, slot).leaf == number;
}

int image_read_leaf(const struct image *im, uint64_t number, struct image_leaf *leaf)
{
	uint64_t slot = image_root_find(im, number);

	if (number > (format_pages(&im->header) - 1) / IMAGE_LEAF_PAGES)
		return -EINVAL;
	if (slot < im->header.leaves && format_get_root(im->root.base, slot).leaf == number)
		return image_read_slot(im, slot, leaf);
	leaf->number = number;
	leaf->begin = leaf->end = 0;
	leaf->full = image_is_full(&im->header);
	memset(leaf->block, 0, sizeof leaf->block);
	return 0;
}

int image_leaf_kind(const struct image_leaf *leaf, uint64_t page)
{
	enum image_kind kind = image_leaf_entry(leaf, page).kind;

	return kind == IMAGE_ABSENT && leaf->full ? IMAGE_ZEROS : kind;
}

/* ------------------------------------------------------------ pages */

int image_read_stored(const struct image *im, uint64_t page, const struct format_entry *e,
                      void *bytes, unsigned char work[FORMAT_COMPRESSED_MAX], const void **stored)
{
	bool whole = e->length == PAGE_BYTES;
	int error;

	*stored = whole ? bytes : work;
	error = image_file_read(im->fd, whole ? bytes : work, e->length, e->offset);
	if (error)
		return error;
	if (!whole && LZ4_decompress_safe((const char *)work, bytes, (int)e->length,
	                                  (int)PAGE_BYTES) != (int)PAGE_BYTES)
		return -EBADMSG;
	return format_sum_page(page, bytes) == e->sum ? 0 : -EBADMSG;
}

int image_leaf_page(const struct image *im, const struct image_leaf *leaf, uint64_t page,
                    void *bytes)
{
	struct format_entry e = image_leaf_entry(leaf, page);
	unsigned char work[FORMAT_COMPRESSED_MAX];
	const void *stored;
	int error;

	if (e.kind != IMAGE_BYTES)
		return image_leaf_kind(leaf, page);
	error = image_read_stored(im, page, &e, bytes, work, &stored);
	return error ? error : IMAGE_BYTES;
}

int image_read_page(const struct image *im, uint64_t page, void *bytes)
{
	struct image_leaf leaf;
	int error;

	if (page >= format_pages(&im->header))
		return -EINVAL;
	error = image_read_leaf(im, page / IMAGE_LEAF_PAGES, &leaf);
	return error ? error : image_leaf_page(im, &leaf, page, bytes);
}

int image_kind(const struct image *im, uint64_t page)
{
	struct image_leaf leaf;
	int error;

	if (page >= format_pages(&im->header))
		return -EINVAL;
	error = image_read_leaf(im, page / IMAGE_LEAF_PAGES, &leaf);
	return error ? error : image_leaf_kind(&leaf, page);
}
