/* SPDX-License-Identifier: MIT */
/*
 * tests/snapshot/images.c - image files for scripts/check-snapshot to look at.
 *
 *   images FOLDER    writes there
 *       full.img                 a full image
 *       one.img two.img          increments, each to the one before
 *       whole.img                what two.img is of, in full
 *       other.img                a full one of other memory, whose name plays on terminals
 */
#include <quire.h>

#include <stdio.h>
#include <string.h>

#define PAGES 3000u

static quire_t *q;

static int failed(const char *what)
{
	fprintf(stderr, "images: %s: %s\n", what, quire_error_message());
	return 1;
}

static void put(quire_region_t *r, unsigned page, unsigned value)
{
	char *p = (char *)quire_region_base(r) + page * QUIRE_PAGE_SIZE;

	for (unsigned i = 0; i < QUIRE_PAGE_SIZE / sizeof value; i++)
		memcpy(p + i * sizeof value, &value, sizeof value);
}

static int save(quire_region_t *r, const char *folder, const char *name, quire_snapshot_t *base,
                quire_snapshot_t **out)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/%s", folder, name);
	if ((!*out && quire_snapshot_create(r, out) != 0) ||
	    quire_snapshot_save(*out, path, base) != 0)
		return failed(name);
	return 0;
}

static int chain(quire_region_t *r, const char *folder)
{
	quire_snapshot_t *full = NULL, *one = NULL, *two = NULL;

	for (unsigned page = 0; page < PAGES; page += 3)
		put(r, page, page + 1);
	if (save(r, folder, "full.img", NULL, &full))
		return 1;
	for (unsigned page = 0; page < PAGES; page += 30)
		put(r, page, page + 7);
	if (save(r, folder, "one.img", full, &one))
		return 1;
	for (unsigned page = 0; page < PAGES; page += 60)
		put(r, page, page % 120 ? page + 9 : 0);
	return save(r, folder, "two.img", one, &two) || save(r, folder, "whole.img", NULL, &two);
}

int main(int argc, char **argv)
{
	struct quire_options o = { .size = sizeof o, .memory = 4 << 20 };
	struct quire_region_options named = { .size = sizeof named, .name = "\033[31mred\"\n" };
	quire_snapshot_t *other = NULL;
	quire_region_t *r;

	if (argc != 2) {
		fputs("Usage: images FOLDER\n", stderr);
		return 2;
	}
	if (quire_open(&q, &o) != 0)
		return failed("open");
	if (quire_region_create(q, PAGES * QUIRE_PAGE_SIZE, NULL, &r) != 0 || chain(r, argv[1]))
		return failed("the chain");
	if (quire_region_create(q, QUIRE_PAGE_SIZE, &named, &r) != 0)
		return failed("a region");
	put(r, 0, 1);
	if (save(r, argv[1], "other.img", NULL, &other))
		return 1;
	return quire_close(q) == 0 ? 0 : failed("close");
}
