/* SPDX-License-Identifier: MIT */
/*
 * tests/fuzz/image.c - any bytes as an image: it is refused, or all of it can be read.
 *
 * The first byte of an input says what is done to the rest, the file, first:
 *
 *   REPAIR    the checksums of header, root and index blocks are made right
 *   ANCHOR    and before that, the file's length and where its root is, so that an
 *             input that became longer or shorter gets behind them as well
 *
 * Then it is opened, verified, read page by page and in order, and merged: by
 * itself, and with itself as its own increment. What verifies must be readable,
 * and the same when it was merged.
 */
#include "base/error.h"
#include "tests/fuzz/repair.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define REPAIR 1
#define ANCHOR 2

/* Other numbers are tried near what is recorded, and some. */
#define PAGES_TRIED 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool what, const char *words)
{
	if (what)
		return;
	fprintf(stderr, "%s: %s\n", words, error_message());
	abort();
}

static void anchor(unsigned char *file, size_t size)
{
	uint64_t root = format_get64(file + AT_LEAVES) * FORMAT_ROOT_ENTRY_BYTES;

	format_put64(file + AT_FILE, size);
	format_put64(file + AT_ROOT_BYTES, root);
	format_put64(file + AT_ROOT, size - root);
	format_put64(file + AT_DATA, size - root - FORMAT_HEADER_BYTES -
	                                     format_get64(file + AT_LEAVES) * FORMAT_BLOCK_BYTES);
}

/* A file in memory, of its own; the path leads to it. => descriptor */
static int make_file(const unsigned char *bytes, size_t size, char path[40])
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	require(fd >= 0 && write(fd, bytes, size) == (ssize_t)size, "memfd");
	snprintf(path, 40, "/proc/self/fd/%d", fd);
	return fd;
}

/* => a number that changes with what the image says of any page */
static uint64_t read_in_order(const struct image *im, bool good)
{
	unsigned char bytes[PAGE_BYTES], again[PAGE_BYTES];
	uint64_t page = 0, sum = im->header.description.bytes;
	struct image_cursor c;
	int kind;

	image_seek(&c, im, 0);
	while ((kind = image_next(&c, &page)) > 0) {
		require(page < format_pages(&im->header), "a page beyond the end");
		require(image_kind(im, page) == kind, "another kind");
		kind = image_cursor_read(&c, bytes);
		require(image_read_page(im, page, again) == kind, "another result");
		require(kind >= 0 || !good, "what verifies cannot be read");
		if (kind == IMAGE_BYTES) {
			require(memcmp(bytes, again, PAGE_BYTES) == 0, "other bytes");
			sum = format_sum_page(sum ^ page, bytes);
		} else {
			sum = sum * 31 + page;
		}
	}
	require(kind == 0 || !good, "what verifies does not end well");
	return sum;
}

static void read_anywhere(const struct image *im)
{
	uint64_t pages = format_pages(&im->header), step = pages / PAGES_TRIED + 1;
	unsigned char bytes[PAGE_BYTES];

	for (uint64_t page = 0; page < pages; page += step) {
		int kind = image_read_page(im, page, bytes);

		require(kind < 0 || image_kind(im, page) == kind, "another kind");
		require(kind != IMAGE_ABSENT || !image_is_full(&im->header), "absent, of all");
	}
	require(image_read_page(im, pages, bytes) < 0, "a page beyond the end");
}

static void compare(const char *path, uint64_t sum)
{
	struct image im;

	require(image_open(&im, path) == 0, "what was merged cannot be opened");
	require(image_verify(&im, NULL, NULL) == 0, "what was merged does not verify");
	require(read_in_order(&im, true) == sum, "what was merged is something else");
	image_close(&im);
}

/* With an increment that is the same but for its name: so the result is the same again. */
static void merge(const char *path, unsigned char *file, size_t size, bool good, uint64_t sum)
{
	char increment[40], out[64];
	int fd, error;

	snprintf(out, sizeof out, "/dev/shm/quire-fuzz.%d", (int)getpid());
	error = image_merge(&path, 1, out, NULL, NULL);
	require(error == 0 || !good, "what verifies cannot be merged");
	if (good)
		compare(out, sum);
	memcpy(file + AT_BASE, file + AT_UUID, 16);
	file[AT_UUID] ^= 0x55;
	repair_header(file, size);
	fd = make_file(file, size, increment);
	error = image_merge((const char *const[]){ path, increment }, 2, out, NULL, NULL);
	if (error == 0 && good)
		compare(out, sum);
	close(fd);
	unlink(out);
}

static void try(unsigned char *file, size_t size)
{
	struct image im;
	char path[40];
	int fd = make_file(file, size, path);

	if (image_open_fd(&im, fd) == 0) {
		bool good = image_verify(&im, NULL, NULL) == 0;
		uint64_t sum = read_in_order(&im, good);

		read_anywhere(&im);
		image_close(&im);
		merge(path, file, size, good, sum);
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned char *file;

	if (size < 1)
		return 0;
	file = malloc(size);
	memcpy(file, data + 1, size - 1);
	if (size > FORMAT_HEADER_BYTES) {
		if (data[0] & ANCHOR)
			anchor(file, size - 1);
		if (data[0] & (REPAIR | ANCHOR))
			repair_all(file, size - 1);
	}
	try(file, size - 1);
	free(file);
	return 0;
}
