/* SPDX-License-Identifier: MIT */
/*
 * tests/fuzz/replay.c - the inputs of a folder, once each, without a fuzzer.
 *
 *   replay FOLDER...
 *   replay --make FOLDER    write the inputs that are in tests/fuzz/corpus/image
 */
#include "base/error.h"
#include "image/image.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* ------------------------------------------------------------ replaying */

static void replay_file(const char *path)
{
	struct stat st;
	uint8_t *bytes;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) != 0)
		die(path);
	/* Exactly as long as the input: a sanitizer sees what is beyond. */
	bytes = malloc((size_t)st.st_size);
	if (read(fd, bytes, (size_t)st.st_size) != st.st_size)
		die(path);
	close(fd);
	LLVMFuzzerTestOneInput(bytes, (size_t)st.st_size);
	free(bytes);
}

static unsigned replay_folder(const char *folder)
{
	DIR *d = opendir(folder);
	struct dirent *e;
	unsigned count = 0;
	char path[4096];

	if (!d)
		die(folder);
	while ((e = readdir(d))) {
		struct stat st;

		snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
			replay_file(path);
			count++;
		}
	}
	closedir(d);
	return count;
}

/* ------------------------------------------------------------ making */

/* The kinds of pages from 0 on: '.' nothing, '0' zeros, 'a' bytes that compress, '#' that do not. */
static void put_pages(struct image_writer *w, uint64_t first, const char *kinds)
{
	unsigned char page[PAGE_BYTES] __attribute__((aligned(16)));
	uint64_t x = 88172645463325252u + first;

	for (unsigned i = 0; kinds[i]; i++) {
		for (unsigned j = 0; j < PAGE_BYTES; j++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			page[j] = (unsigned char)(kinds[i] == '#' ? x >> 32 : 'a' + j / 1000);
		}
		if (kinds[i] != '.' && image_put(w, first + i, kinds[i] == '0' ? NULL : page) != 0)
			die(error_message());
	}
}

/* An image of pages in two places, with the byte before it that says what is to be done to it. */
static void make(const char *folder, const char *name, char what, unsigned char base,
                 const char *kinds, const char *far)
{
	struct image_description d = { .bytes = 700 * PAGE_BYTES, .created = 1, .uuid = { 1 } };
	char path[4096], bytes[65536];
	struct image_writer w;
	ssize_t n;
	int fd;

	d.base[0] = base;
	snprintf(path, sizeof path, "%s/%s", folder, name);
	if (image_create(&w, path, &d) != 0)
		die(error_message());
	put_pages(&w, 0, kinds);
	put_pages(&w, 690, far);
	if (image_commit(&w, true) != 0)
		die(error_message());
	fd = open(path, O_RDWR | O_CLOEXEC);
	n = read(fd, bytes, sizeof bytes);
	if (n < 0 || pwrite(fd, &what, 1, 0) != 1 || pwrite(fd, bytes, (size_t)n, 1) != n)
		die(path);
	close(fd);
}

static int make_all(const char *folder)
{
	make(folder, "empty", 0, 0, "", "");
	make(folder, "full", 1, 0, "aa", "");
	make(folder, "noise", 0, 0, ".#", "");
	make(folder, "increment", 1, 2, "0a.0", "a");
	make(folder, "increment-anchored", 3, 2, "a0", "0");
	return 0;
}

int main(int argc, char **argv)
{
	unsigned count = 0;

	if (argc == 3 && strcmp(argv[1], "--make") == 0)
		return make_all(argv[2]);
	for (int i = 1; i < argc; i++)
		count += replay_folder(argv[i]);
	printf("%u inputs\n", count);
	return count == 0;
}
