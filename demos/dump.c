/* SPDX-License-Identifier: MIT */
/* demos/dump.c - memory to a file and back; see dump.h. */
#define _GNU_SOURCE
#include "dump.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <lz4.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096u
#define PAYS (PAGE - PAGE / 8)

static const char magic[8] = "KV-DUMP";

struct header {
	char magic[8];
	uint64_t bytes, pages;
	char zeros[PAGE - 24];
};

struct entry {
	uint32_t page, length;
};

/* A file that is read or written from one end to the other. */
struct stream {
	int fd;
	size_t at, end; /* of buffer */
	uint64_t bytes;
	char buffer[256 * 1024];
};

static struct stream stream; /* not on a stack, nor allocated: in a child of fork */

/* ---------------------------------------------------------------- writing */

static int write_all(int fd, const char *from, size_t bytes)
{
	while (bytes) {
		ssize_t done = write(fd, from, bytes);

		if (done < 0 && errno != EINTR)
			return -errno;
		from += done > 0 ? done : 0;
		bytes -= done > 0 ? (size_t)done : 0;
	}
	return 0;
}

static int flush(struct stream *f)
{
	int error = write_all(f->fd, f->buffer, f->at);

	f->bytes += f->at;
	f->at = 0;
	return error;
}

static int put(struct stream *f, const void *from, size_t bytes)
{
	int error = f->at + bytes > sizeof f->buffer ? flush(f) : 0;

	memcpy(f->buffer + f->at, from, bytes);
	f->at += bytes;
	return error;
}

static int put_page(struct stream *f, uint32_t number, const char *page)
{
	char packed[PAYS];
	int length = LZ4_compress_default(page, packed, PAGE, sizeof packed);
	struct entry e = { .page = number, .length = length > 0 ? (uint32_t)length : PAGE };
	int error = put(f, &e, sizeof e);

	return error ? error : put(f, length > 0 ? packed : page, e.length);
}

static int write_pages(struct stream *f, const char *memory, size_t bytes)
{
	struct header header = { .bytes = bytes };
	char page[PAGE];
	int error = put(f, &header, sizeof header);

	memcpy(header.magic, magic, sizeof magic);
	for (uint32_t i = 0; i < bytes / PAGE && !error; i++) {
		/* Read once: managed memory may fault, and must not be given to write(2). */
		memcpy(page, memory + (size_t)i * PAGE, PAGE);
		if (page[0] == 0 && !memcmp(page, page + 1, PAGE - 1))
			continue;
		error = put_page(f, i, page);
		header.pages++;
	}
	if (!error)
		error = flush(f);
	/* Last, so that what is not complete is no dump. */
	if (!error && pwrite(f->fd, &header, sizeof header, 0) != (ssize_t)sizeof header)
		error = errno ? -errno : -EIO;
	if (!error && fsync(f->fd))
		error = -errno;
	return error;
}

static int sync_directory_of(const char *path)
{
	char directory[PATH_MAX];
	int length = (int)(strrchr(path, '/') - path), fd, error = 0;

	snprintf(directory, sizeof directory, "%.*s", length, path);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		error = -errno;
	if (fd >= 0)
		close(fd);
	return error;
}

int dump_write(const char *path, const void *memory, size_t bytes, uint64_t *file_bytes)
{
	char temporary[PATH_MAX];
	int error;

	snprintf(temporary, sizeof temporary, "%s.tmp", path);
	stream.at = stream.bytes = 0;
	stream.fd = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (stream.fd < 0)
		return -errno;
	error = write_pages(&stream, memory, bytes);
	if (close(stream.fd) && !error)
		error = -errno;
	if (!error && rename(temporary, path))
		error = -errno;
	if (error)
		unlink(temporary);
	*file_bytes = stream.bytes;
	return error ? error : sync_directory_of(path);
}

/* ---------------------------------------------------------------- reading */

/* => whether there are so many bytes more */
static bool get(struct stream *f, void *to, size_t bytes)
{
	while (f->end - f->at < bytes) {
		ssize_t got;

		memmove(f->buffer, f->buffer + f->at, f->end - f->at);
		f->end -= f->at;
		f->at = 0;
		got = read(f->fd, f->buffer + f->end, sizeof f->buffer - f->end);
		if (got <= 0)
			return false;
		f->end += (size_t)got;
	}
	memcpy(to, f->buffer + f->at, bytes);
	f->at += bytes;
	return true;
}

static bool get_page(struct stream *f, char *memory, size_t bytes)
{
	struct entry e;
	char packed[PAGE], *page;

	if (!get(f, &e, sizeof e) || e.page >= bytes / PAGE || e.length > PAGE ||
	    !get(f, packed, e.length))
		return false;
	page = memory + (size_t)e.page * PAGE;
	if (e.length < PAGE)
		return LZ4_decompress_safe(packed, page, (int)e.length, PAGE) == (int)PAGE;
	memcpy(page, packed, PAGE);
	return true;
}

int dump_read(const char *path, void *memory, size_t bytes)
{
	struct header header;
	bool good;

	stream.at = stream.end = 0;
	stream.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (stream.fd < 0)
		return -errno;
	good = get(&stream, &header, sizeof header) && !memcmp(header.magic, magic, sizeof magic) &&
	       header.bytes == bytes;
	for (uint64_t i = 0; good && i < header.pages; i++)
		good = get_page(&stream, memory, bytes);
	close(stream.fd);
	return good ? 0 : -EBADMSG;
}
