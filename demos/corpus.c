/* SPDX-License-Identifier: MIT */
/* demos/corpus.c - finding text files and cutting them into words; see corpus.h. */
#define _XOPEN_SOURCE 700
#include "corpus.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "demo.h"

static bool is_text(const unsigned char *data, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (data[i] < ' ' && !strchr("\b\t\n\v\f\r\033", data[i] ? data[i] : 1))
			return false;
	return length > 0;
}

static void add_file(struct corpus *c, const char *path)
{
	unsigned char head[4096];
	struct stat st;
	/* O_NONBLOCK: should the file have become a pipe meanwhile, do not wait for a writer */
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, head, sizeof head);

	if (got < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || !is_text(head, (size_t)got)) {
		c->others++;
	} else {
		if (c->count == c->room) {
			c->room = c->room ? 2 * c->room : 1024;
			c->files = realloc(c->files, c->room * sizeof *c->files);
		}
		if (!c->files || !(c->files[c->count].path = strdup(path)))
			die("no memory for the list of files");
		c->files[c->count].size = (uint64_t)st.st_size;
		c->files[c->count++].changed = st.st_mtim;
	}
	if (fd >= 0)
		close(fd);
}

static int add_tree(struct corpus *c, const char *path)
{
	struct dirent *entry;
	struct stat st;
	DIR *directory;

	if (lstat(path, &st))
		return errno;
	if (S_ISREG(st.st_mode))
		add_file(c, path);
	if (!S_ISDIR(st.st_mode))
		return 0;
	directory = opendir(path);
	if (!directory)
		return errno;
	while ((entry = readdir(directory))) {
		char below[4096];
		int length;

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		length = snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
		if (length >= (int)sizeof below || add_tree(c, below))
			c->others++;
	}
	closedir(directory);
	return 0;
}

int corpus_add(struct corpus *c, const char *root)
{
	char *path = realpath(root, NULL); /* a root that is a link is followed */
	int error = path ? add_tree(c, path) : errno;

	free(path);
	return error;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct text_file *)a)->path, ((const struct text_file *)b)->path);
}

void corpus_choose(struct corpus *c, uint64_t limit)
{
	uint64_t total = 0, seen = 0;
	size_t found = 0;

	if (c->count)
		qsort(c->files, c->count, sizeof *c->files, by_path);
	for (size_t i = 0; i < c->count; i++) {
		if (found && !strcmp(c->files[found - 1].path, c->files[i].path)) {
			free(c->files[i].path);
			continue;
		}
		total += c->files[i].size;
		c->files[found++] = c->files[i];
	}
	c->count = 0;
	c->bytes = 0;
	for (size_t i = 0; i < found; i++) {
		struct text_file *f = &c->files[i];

		/* what is kept so far never runs ahead of its share of what was seen */
		seen += f->size;
		if (limit && total > limit &&
		    (double)(c->bytes + f->size) > (double)limit * ((double)seen / (double)total)) {
			free(f->path);
			continue;
		}
		f->start = c->bytes;
		c->bytes += f->size;
		c->files[c->count++] = *f;
	}
}

void corpus_free(struct corpus *c)
{
	for (size_t i = 0; i < c->count; i++)
		free(c->files[i].path);
	free(c->files);
	*c = (struct corpus){ 0 };
}

/* What is part of a word: 0: not; else the byte in lower case. Bytes of UTF-8 letters are. */
static unsigned char letter(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return c | 0x20;
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c >= 0x80 ? c : 0;
}

void corpus_words(const char *text, uint64_t length, corpus_word_fn word, void *arg)
{
	char copy[CORPUS_WORD_MAX];
	size_t have = 0;
	uint64_t start = 0;

	for (uint64_t i = 0; i <= length; i++) {
		unsigned char c = i < length ? letter((unsigned char)text[i]) : 0;

		if (!c && have > 1)
			word(arg, copy, have, start);
		if (!c)
			have = 0;
		else if (have < sizeof copy)
			copy[have++] = (char)c;
		if (have == 1)
			start = i;
	}
}

void corpus_read(const struct text_file *file, char *to)
{
	static char buffer[1 << 16];
	int fd = open(file->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	uint64_t left = file->size;
	ssize_t got = 1;
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		die("%s: %s", file->path, strerror(errno));
	while (left && got) {
		got = read(fd, buffer, left < sizeof buffer ? left : sizeof buffer);
		if (got < 0 && errno != EINTR)
			die("%s: %s", file->path, strerror(errno));
		if (got < 0)
			continue;
		if (to)
			memcpy(to + (file->size - left), buffer, (size_t)got);
		left -= (uint64_t)got;
	}
	close(fd);
	if (left || (uint64_t)st.st_size != file->size ||
	    st.st_mtim.tv_sec != file->changed.tv_sec ||
	    st.st_mtim.tv_nsec != file->changed.tv_nsec)
		die("%s changed while the demo ran; run it again", file->path);
}
