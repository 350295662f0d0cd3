/* SPDX-License-Identifier: MIT */
/* tests/integration/images.c - see images.h. */
#define _GNU_SOURCE
#include "images.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Words of an even version that differ; the rest are the version. */
#define DIFFERENT 32u

/* -------------------------------------------------------------- pages */

static uint64_t word_of(size_t page, size_t i, unsigned version)
{
	if (version == 0)
		return 0;
	return version % 2 || i < DIFFERENT ? word(page, i, version) : version;
}

void put_page(void *p, size_t page, unsigned version)
{
	for (size_t i = 0; i < PAGE / 8; i++)
		store((uint64_t *)p + i, word_of(page, i, version));
}

bool page_is(const void *p, size_t page, unsigned version)
{
	for (size_t i = 0; i < PAGE / 8; i++)
		if (load((const uint64_t *)p + i) != word_of(page, i, version))
			return false;
	return true;
}

/* -------------------------------------------------------------- model */

void model_put(struct model *m, quire_region_t *r, size_t page, size_t n, unsigned version)
{
	for (size_t p = page; p < page + n; p++) {
		m->version[p] = version;
		if (version == 0 && p % 2)
			MUST(quire_advise(r, p * PAGE, PAGE, QUIRE_ADVISE_DONTNEED) == 0);
		else
			put_page(page_at(r, p), p, version);
	}
}

void model_scribble(struct model *m, quire_region_t *r, unsigned n, unsigned version)
{
	while (n-- > 0) {
		size_t page = unit_below(MODEL_PAGES), run = 1 + unit_below(20);

		if (run > MODEL_PAGES - page)
			run = MODEL_PAGES - page;
		model_put(m, r, page, run, unit_below(5) ? version : 0);
	}
}

size_t model_wrong(const struct model *m, quire_snapshot_t *s)
{
	static char bytes[64 * PAGE];
	size_t bad = 0;

	for (size_t page = 0; page < MODEL_PAGES; page += 64) {
		MUST(quire_snapshot_read(s, page * PAGE, bytes, sizeof bytes) == 0);
		for (size_t i = 0; i < 64; i++)
			bad += !page_is(bytes + i * PAGE, page + i, m->version[page + i]);
	}
	return bad;
}

size_t model_wrong_in(const struct model *m, quire_region_t *r)
{
	size_t bad = 0;

	for (size_t page = 0; page < MODEL_PAGES; page++)
		bad += !page_is(page_at(r, page), page, m->version[page]);
	return bad;
}

size_t model_differs(const struct model *a, const struct model *b, size_t *zeros)
{
	size_t n = 0;

	*zeros = 0;
	for (size_t page = 0; page < MODEL_PAGES; page++) {
		n += a->version[page] != b->version[page];
		*zeros += a->version[page] != b->version[page] && b->version[page] == 0;
	}
	return n;
}

size_t model_stored(const struct model *m)
{
	size_t n = 0;

	for (size_t page = 0; page < MODEL_PAGES; page++)
		n += m->version[page] != 0;
	return n;
}

/* ---------------------------------------------------------- snapshots */

static void must(int error, const char *what, const char *path)
{
	if (error == 0)
		return;
	dprintf(STDOUT_FILENO, "%s %s: %d, %s\n", what, path, error, quire_error_message());
	MUST(error == 0);
}

quire_snapshot_t *snapshot(quire_region_t *of)
{
	quire_snapshot_t *s = NULL;

	must(quire_snapshot_create(of, &s), "snapshot", "");
	return s;
}

quire_region_t *clone_of(quire_snapshot_t *s)
{
	quire_region_t *r = NULL;

	must(quire_snapshot_clone(s, &r), "clone", "");
	return r;
}

void save(quire_snapshot_t *s, const char *path, quire_snapshot_t *base)
{
	must(quire_snapshot_save(s, path, base), "save", path);
}

quire_snapshot_t *load_image(quire_t *q, const char *path)
{
	quire_snapshot_t *s = NULL;

	must(quire_snapshot_load(q, path, &s), "load", path);
	return s;
}

struct quire_image info_of(const char *path)
{
	struct quire_image image;

	must(quire_image_info(path, &image), "info", path);
	return image;
}

bool file_is(const char *path, const struct model *m)
{
	quire_t *q;
	size_t bad;

	if (quire_image_verify(path, NULL, NULL) != 0) {
		printf("%s\n", quire_error_message());
		return false;
	}
	q = pager_open(MIB);
	bad = model_wrong(m, load_image(q, path));
	MUST(quire_close(q) == 0);
	if (bad)
		printf("%s: %zu pages are not what was saved\n", path, bad);
	return bad == 0;
}

/* -------------------------------------------------------------- files */

const char *img(const char *name)
{
	return path_in(temporary_directory(), name);
}

char *contents(const char *path, size_t *length)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *bytes;

	MUST(fd >= 0 && fstat(fd, &st) == 0);
	*length = (size_t)st.st_size;
	bytes = malloc(*length + 1);
	MUST(bytes && read(fd, bytes, *length) == (ssize_t)*length);
	close(fd);
	return bytes;
}

bool same_contents(const char *path, const char *bytes, size_t length)
{
	size_t now;
	char *here = contents(path, &now);
	bool same = now == length && memcmp(here, bytes, length) == 0;

	free(here);
	return same;
}

void write_file(const char *path, const void *bytes, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	MUST(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
	close(fd);
}
