/* SPDX-License-Identifier: MIT */
/*
 * image/header.c - the header, byte by byte.
 *
 *   offset  bytes  little endian
 *        0      8  magic
 *        8      4  version
 *       12      4  page size
 *       16      4  flags: none so far
 *       20      4  zeros
 *       24     16  UUID
 *       40     16  UUID of the base; zeros: a full image
 *       56      8  bytes of memory
 *       64      8  pages stored
 *       72      8  of them compressed
 *       80      8  pages recorded as zeros
 *       88      8  bytes of data
 *       96      8  entries of the root, which is as many index blocks
 *      104      8  offset of the root
 *      112      8  bytes of the root
 *      120      8  checksum of the root
 *      128      8  time, seconds since 1970, signed
 *      136      8  bytes of the file
 *      144     32  name, with zeros after it, at least one
 *      176   3912  zeros
 *     4088      8  checksum of the 4088 bytes before it
 *
 * The magic, the version and the checksum stay where they are in all versions:
 * so a file of a newer version can be told from a damaged one.
 */
#include "base/error.h"
#include "image/format.h"

#include <errno.h>
#include <string.h>

#define MAGIC "QUIREIMG"
#define MAGIC_BYTES 8u
#define AT_VERSION 8
#define AT_PAGE_SIZE 12
#define AT_FLAGS 16
#define AT_UUID 24
#define AT_BASE 40
#define AT_MEMORY 56
#define AT_STORED 64
#define AT_COMPRESSED 72
#define AT_ZEROS 80
#define AT_DATA 88
#define AT_LEAVES 96
#define AT_ROOT 104
#define AT_ROOT_BYTES 112
#define AT_ROOT_SUM 120
#define AT_CREATED 128
#define AT_FILE 136
#define AT_NAME 144
#define AT_REST (AT_NAME + IMAGE_NAME_MAX + 1)
#define AT_SUM (FORMAT_HEADER_BYTES - 8)

static bool all_zero(const void *bytes, size_t length)
{
	const unsigned char *at = bytes;

	for (size_t i = 0; i < length; i++)
		if (at[i])
			return false;
	return true;
}

void format_put_header(unsigned char *block, const struct image_header *h, uint64_t root_sum)
{
	const struct image_description *d = &h->description;

	memset(block, 0, FORMAT_HEADER_BYTES);
	memcpy(block, MAGIC, MAGIC_BYTES);
	format_put32(block + AT_VERSION, FORMAT_VERSION);
	format_put32(block + AT_PAGE_SIZE, PAGE_BYTES);
	memcpy(block + AT_UUID, d->uuid, sizeof d->uuid);
	memcpy(block + AT_BASE, d->base, sizeof d->base);
	format_put64(block + AT_MEMORY, d->bytes);
	format_put64(block + AT_STORED, h->stored);
	format_put64(block + AT_COMPRESSED, h->compressed);
	format_put64(block + AT_ZEROS, h->zeros);
	format_put64(block + AT_DATA, h->data_bytes);
	format_put64(block + AT_LEAVES, h->leaves);
	format_put64(block + AT_ROOT, format_root_offset(h));
	format_put64(block + AT_ROOT_BYTES, format_root_bytes(h));
	format_put64(block + AT_ROOT_SUM, root_sum);
	format_put64(block + AT_CREATED, (uint64_t)d->created);
	format_put64(block + AT_FILE, h->file_bytes);
	memcpy(block + AT_NAME, d->name, strnlen(d->name, IMAGE_NAME_MAX));
	format_put64(block + AT_SUM, format_sum(block, AT_SUM));
}

const char *format_description_fault(const struct image_description *d)
{
	size_t name = strnlen(d->name, sizeof d->name);

	if (d->bytes == 0 || d->bytes % PAGE_BYTES != 0)
		return "the length of the memory is not so many whole pages";
	if (name > IMAGE_NAME_MAX)
		return "the name has no end";
	if (!image_uuid_is_zero(d->base) && memcmp(d->uuid, d->base, sizeof d->uuid) == 0)
		return "it is its own base";
	return NULL;
}

static const char *description_fault(const struct image_description *d)
{
	size_t name = strnlen(d->name, sizeof d->name);

	if (image_uuid_is_zero(d->uuid))
		return "there is no UUID";
	if (!all_zero(d->name + name, sizeof d->name - name))
		return "there is something behind the end of the name";
	return format_description_fault(d);
}

/* Each number is checked before it is reckoned with. */
static const char *numbers_fault(const struct image_header *h, const unsigned char *block)
{
	uint64_t pages = format_pages(h), leaves = (pages - 1) / IMAGE_LEAF_PAGES + 1;
	uint64_t recorded, whole;

	if (h->stored > pages || h->zeros > pages - h->stored || h->compressed > h->stored)
		return "the numbers of pages cannot be";
	if (h->zeros && image_is_full(h))
		return "zeros are recorded, in a full image";
	recorded = h->stored + h->zeros;
	if (h->leaves > leaves || h->leaves > recorded || recorded > h->leaves * IMAGE_LEAF_PAGES)
		return "the number of leaves cannot be";
	whole = (h->stored - h->compressed) * PAGE_BYTES;
	if (h->data_bytes < whole + h->compressed ||
	    h->data_bytes > whole + h->compressed * FORMAT_COMPRESSED_MAX)
		return "the number of bytes of data cannot be";
	if (format_get64(block + AT_ROOT) != format_root_offset(h) ||
	    format_get64(block + AT_ROOT_BYTES) != format_root_bytes(h))
		return "the root is not where it has to be";
	if (h->file_bytes != format_root_offset(h) + format_root_bytes(h))
		return "the length of the file cannot be";
	return NULL;
}

static const char *header_fault(const struct image_header *h, const unsigned char *block)
{
	const char *fault = description_fault(&h->description);

	if (!fault)
		fault = numbers_fault(h, block);
	if (!fault && (!all_zero(block + AT_FLAGS + 4, 4) ||
	               !all_zero(block + AT_REST, FORMAT_HEADER_BYTES - 8 - AT_REST)))
		fault = "there is something where nothing is defined";
	return fault;
}

static void get_numbers(const unsigned char *block, struct image_header *h)
{
	struct image_description *d = &h->description;

	memcpy(d->uuid, block + AT_UUID, sizeof d->uuid);
	memcpy(d->base, block + AT_BASE, sizeof d->base);
	d->bytes = format_get64(block + AT_MEMORY);
	d->created = (int64_t)format_get64(block + AT_CREATED);
	memcpy(d->name, block + AT_NAME, sizeof d->name);
	h->stored = format_get64(block + AT_STORED);
	h->compressed = format_get64(block + AT_COMPRESSED);
	h->zeros = format_get64(block + AT_ZEROS);
	h->data_bytes = format_get64(block + AT_DATA);
	h->leaves = format_get64(block + AT_LEAVES);
	h->file_bytes = format_get64(block + AT_FILE);
}

static int truncated(const char *path, uint64_t have, uint64_t want)
{
	return error_set(EBADMSG, "image %s is truncated: %llu bytes of %llu", path,
	                 (unsigned long long)have, (unsigned long long)want);
}

/* Is it an image, whole, and one of a kind that we know? */
static int check_kind(const unsigned char *block, size_t have, const char *path)
{
	if (have < MAGIC_BYTES || memcmp(block, MAGIC, MAGIC_BYTES) != 0)
		return error_set(EBADF, "image %s: it is no image of Quire's", path);
	if (have < FORMAT_HEADER_BYTES)
		return error_set(EBADMSG, "image %s is truncated: %zu bytes of a header of %u",
		                 path, have, FORMAT_HEADER_BYTES);
	if (format_get64(block + AT_SUM) != format_sum(block, AT_SUM))
		return error_set(EBADMSG,
		                 "image %s is damaged: the header's checksum (bytes 0 to %u)", path,
		                 FORMAT_HEADER_BYTES - 1);
	if (format_get32(block + AT_VERSION) != FORMAT_VERSION)
		return error_set(ENOTSUP, "image %s: it is of version %u, and this is %u", path,
		                 format_get32(block + AT_VERSION), FORMAT_VERSION);
	if (format_get32(block + AT_PAGE_SIZE) != PAGE_BYTES)
		return error_set(ENOTSUP, "image %s: it is of pages of %u bytes", path,
		                 format_get32(block + AT_PAGE_SIZE));
	if (format_get32(block + AT_FLAGS) != 0)
		return error_set(ENOTSUP, "image %s: it has flags (%#x) that mean nothing here",
		                 path, format_get32(block + AT_FLAGS));
	return 0;
}

int format_get_header(const unsigned char *block, size_t have, uint64_t file_bytes,
                      const char *path, struct image_header *h, uint64_t *root_sum)
{
	const char *fault;
	int error = check_kind(block, have, path);

	if (error)
		return error;
	get_numbers(block, h);
	if (h->description.bytes > IMAGE_BYTES_MAX)
		return error_set(EFBIG, "image %s: it is of %llu bytes of memory; %llu is the most",
		                 path, (unsigned long long)h->description.bytes,
		                 (unsigned long long)IMAGE_BYTES_MAX);
	fault = header_fault(h, block);
	if (fault)
		return error_set(EBADMSG, "image %s is damaged: the header: %s", path, fault);
	if (file_bytes < h->file_bytes)
		return truncated(path, file_bytes, h->file_bytes);
	if (file_bytes > h->file_bytes)
		return error_set(EBADMSG, "image %s is damaged: it is of %llu bytes, and has %llu",
		                 path, (unsigned long long)h->file_bytes,
		                 (unsigned long long)file_bytes);
	*root_sum = format_get64(block + AT_ROOT_SUM);
	return 0;
}
