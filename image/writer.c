/* SPDX-License-Identifier: MIT */
/*
 * image/writer.c - image_create .. image_commit.
 *
 * Pages come in order, so the file is written in order, too: the data of a
 * leaf's pages, then its index block, then the next leaf; at the end the root,
 * and the header, for which room was left. Of all that only the index block that
 * is being filled and the root are kept, and a buffer, so that the kernel is
 * called for large pieces only.
 */
#include "image/writer.h"

#include "base/error.h"
#include "image/file.h"
#include "image/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <lz4.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uuid/uuid.h>

/* The writer's memory: buffer, index block, state of the compressor. */
#define BUFFER_BYTES ((size_t)1 << 20)
#define AT_BLOCK BUFFER_BYTES
#define AT_STATE (AT_BLOCK + FORMAT_BLOCK_BYTES)

/* Faster and a little larger from 1 on; more gave little for memory. */
#define ACCELERATION 1

static unsigned char *buffer_of(const struct image_writer *w)
{
	return w->memory.base;
}

static unsigned char *block_of(const struct image_writer *w)
{
	return (unsigned char *)w->memory.base + AT_BLOCK;
}

/* Keep an error, and say it. => -error */
static int fail(struct image_writer *w, int error)
{
	const char *why = error == EFBIG ? "the limit on the size of files (ulimit -f) is reached" :
	                                   strerror(error);

	w->error = error;
	return error_set(error, "image %s: %s", w->output.name, why);
}

/* ------------------------------------------------------------ the buffer */

static int flush(struct image_writer *w)
{
	int error = image_file_write(w->output.fd, buffer_of(w), w->fill, w->at);

	if (error)
		return fail(w, -error);
	w->at += w->fill;
	w->fill = 0;
	image_file_settle(w->output.fd, &w->settled, w->at);
	return 0;
}

/* => *at: room for so many bytes at the end of what was written; or -errno */
static int make_room(struct image_writer *w, size_t bytes, unsigned char **at)
{
	int error = w->fill + bytes > BUFFER_BYTES ? flush(w) : 0;

	*at = buffer_of(w) + w->fill;
	return error;
}

/* ------------------------------------------------------------ leaves */

/* The leaf has all its pages: its index block follows them. */
static int finish_leaf(struct image_writer *w)
{
	struct format_root_entry e = { .leaf = w->leaf };
	unsigned char *at;
	int error;

	if (w->recorded == 0)
		return 0;
	if (!arena_extend(&w->root, (w->header.leaves + 1) * FORMAT_ROOT_ENTRY_BYTES))
		return fail(w, ENOMEM);
	error = make_room(w, FORMAT_BLOCK_BYTES, &at);
	if (error)
		return error;
	memcpy(at, block_of(w), FORMAT_BLOCK_BYTES);
	e.offset = w->at + w->fill;
	e.sum = format_sum(at, FORMAT_BLOCK_BYTES);
	format_put_root(w->root.base, w->header.leaves++, &e);
	w->fill += FORMAT_BLOCK_BYTES;
	memset(block_of(w), 0, FORMAT_BLOCK_BYTES);
	w->recorded = 0;
	return 0;
}

/* May page be put? Then all before it is settled. => 0 or -errno */
static int begin_page(struct image_writer *w, uint64_t page)
{
	if (w->error)
		return error_set(w->error, "image %s: it could not be written before: %s",
		                 w->output.name, strerror(w->error));
	if (page >= format_pages(&w->header) || page < w->next) {
		w->error = EINVAL;
		return error_set(EINVAL, "image %s: page %llu after page %llu, of %llu",
		                 w->output.name, (unsigned long long)page,
		                 (unsigned long long)w->next - 1,
		                 (unsigned long long)format_pages(&w->header));
	}
	w->next = page + 1;
	return 0;
}

static int begin_record(struct image_writer *w, uint64_t page)
{
	int error = 0;

	if (page / IMAGE_LEAF_PAGES != w->leaf)
		error = finish_leaf(w);
	w->leaf = page / IMAGE_LEAF_PAGES;
	return error;
}

static void record(struct image_writer *w, uint64_t page, const struct format_entry *e)
{
	format_put_entry(block_of(w), (unsigned)(page % IMAGE_LEAF_PAGES), e);
	w->recorded++;
	if (e->kind == IMAGE_ZEROS) {
		w->header.zeros++;
		return;
	}
	w->header.stored++;
	w->header.compressed += e->length < PAGE_BYTES;
	w->header.data_bytes += e->length;
	w->fill += e->length;
}

static int put_zeros(struct image_writer *w, uint64_t page)
{
	static const struct format_entry zeros = { .kind = IMAGE_ZEROS };
	int error;

	if (image_is_full(&w->header))
		return 0;
	error = begin_record(w, page);
	if (!error)
		record(w, page, &zeros);
	return error;
}

/* ------------------------------------------------------------ the door */

int image_put(struct image_writer *w, uint64_t page, const void *bytes)
{
	struct format_entry e = { .kind = IMAGE_BYTES, .length = PAGE_BYTES };
	unsigned char *at;
	int n, error = begin_page(w, page);

	if (error)
		return error;
	if (!bytes || page_is_zero(bytes))
		return put_zeros(w, page);
	error = begin_record(w, page);
	if (!error)
		error = make_room(w, PAGE_BYTES, &at);
	if (error)
		return error;
	n = LZ4_compress_fast_extState((char *)w->memory.base + AT_STATE, bytes, (char *)at,
	                               PAGE_BYTES, FORMAT_COMPRESSED_MAX, ACCELERATION);
	if (n > 0)
		e.length = (unsigned)n;
	else
		memcpy(at, bytes, PAGE_BYTES);
	e.offset = w->at + w->fill;
	e.sum = format_sum_page(page, bytes);
	record(w, page, &e);
	return 0;
}

int image_put_stored(struct image_writer *w, uint64_t page, const struct format_entry *e,
                     const void *stored)
{
	struct format_entry here = *e;
	unsigned char *at;
	int error = begin_page(w, page);

	if (!error)
		error = begin_record(w, page);
	if (!error)
		error = make_room(w, here.length, &at);
	if (error)
		return error;
	memcpy(at, stored, here.length);
	here.offset = w->at + w->fill;
	record(w, page, &here);
	return 0;
}

static int check_description(struct image_header *h, const char *path)
{
	struct image_description *d = &h->description;
	const char *fault;

	if (image_uuid_is_zero(d->uuid))
		uuid_generate_random(d->uuid);
	if (d->created == 0)
		d->created = (int64_t)time(NULL);
	fault = format_description_fault(d);
	if (!fault && d->bytes > IMAGE_BYTES_MAX)
		fault = "so much memory has no image";
	return fault ? error_set(EINVAL, "image %s: %s", path, fault) : 0;
}

static int open_memory(struct image_writer *w)
{
	uint64_t leaves = (format_pages(&w->header) - 1) / IMAGE_LEAF_PAGES + 1;
	int error = arena_open(&w->memory, AT_STATE + (size_t)LZ4_sizeofState(), false,
	                       "quire image writer");

	if (!error)
		error = arena_reserve(&w->root, leaves * FORMAT_ROOT_ENTRY_BYTES, false,
		                      "quire image root");
	return error;
}

void image_writer_init(struct image_writer *w)
{
	*w = (struct image_writer){ .output = { .fd = -1, .directory = -1 } };
}

int image_create(struct image_writer *w, const char *path, const struct image_description *d)
{
	int error;

	*w = (struct image_writer){
		.output = { .fd = -1, .directory = -1 },
		.header = { .description = *d },
		.at = FORMAT_HEADER_BYTES,
	};
	error = check_description(&w->header, path);
	if (!error)
		error = open_memory(w);
	if (!error)
		error = output_open(&w->output, path);
	if (error)
		image_abandon(w);
	return error;
}

void image_abandon(struct image_writer *w)
{
	output_close(&w->output);
	arena_close(&w->memory);
	arena_close(&w->root);
}

void image_disown(struct image_writer *w, int error)
{
	w->output.named = false;
	w->output.disowned = true;
	w->error = w->error ? w->error : error;
}

void image_forget(struct image_writer *w)
{
	if (w->output.fd >= 0)
		close(w->output.fd);
	if (w->output.directory >= 0)
		close(w->output.directory);
	w->output.fd = w->output.directory = -1;
	arena_close(&w->memory);
	arena_close(&w->root);
}

/* What is left: the last leaf, the root, the header. => 0 or -errno */
static int finish(struct image_writer *w)
{
	struct image_header *h = &w->header;
	int error = finish_leaf(w);

	if (!error)
		error = flush(w);
	if (error)
		return error;
	h->file_bytes = w->at + format_root_bytes(h);
	ASSERT(w->at == format_root_offset(h));
	error = image_file_write(w->output.fd, w->root.base, format_root_bytes(h), w->at);
	if (error)
		return fail(w, -error);
	format_put_header(block_of(w), h, format_sum(w->root.base, format_root_bytes(h)));
	error = image_file_write(w->output.fd, block_of(w), FORMAT_HEADER_BYTES, 0);
	return error ? fail(w, -error) : 0;
}

int image_commit(struct image_writer *w, bool replace)
{
	int error = w->error;

	if (error)
		error = error_set(w->error, "image %s: it could not be written before: %s",
		                  w->output.name, strerror(w->error));
	else
		error = finish(w);
	if (!error)
		error = output_publish(&w->output, replace);
	image_abandon(w);
	return error;
}
