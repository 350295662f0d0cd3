/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/images.h - what the programs on image files share: a model of what the pages
 * of a region hold, and snapshots, images and regions compared with it.
 */
#ifndef QUIRE_TESTS_IMAGES_H
#define QUIRE_TESTS_IMAGES_H

#include "support.h"

#define MODEL_PAGES 1024u

/*
 * The version of each page; 0: zeros. Of odd versions no byte can be compressed, of even ones most
 * can.
 */
struct model {
	unsigned version[MODEL_PAGES];
};

void put_page(void *p, size_t page, unsigned version);
bool page_is(const void *p, size_t page, unsigned version);

/* Both the region's pages and the model's. Zeros are written, or of odd pages discarded. */
void model_put(struct model *m, quire_region_t *r, size_t page, size_t n, unsigned version);
/* n random runs of pages, some of them zeros. */
void model_scribble(struct model *m, quire_region_t *r, unsigned n, unsigned version);
/* => the number of pages that are not as the model has them */
size_t model_wrong(const struct model *m, quire_snapshot_t *s);
size_t model_wrong_in(const struct model *m, quire_region_t *r);
/* In how many pages the two differ, and how many of these are zeros in b. */
size_t model_differs(const struct model *a, const struct model *b, size_t *zeros);
size_t model_stored(const struct model *m);

quire_snapshot_t *snapshot(quire_region_t *of);
quire_region_t *clone_of(quire_snapshot_t *s);
/* These must work. */
void save(quire_snapshot_t *s, const char *path, quire_snapshot_t *base);
quire_snapshot_t *load_image(quire_t *q, const char *path);
struct quire_image info_of(const char *path);
/* Does it verify, and hold what the model has? By a pager of its own. */
bool file_is(const char *path, const struct model *m);

/* A path in the program's own directory. */
const char *img(const char *name);
/* The whole of a file, as long as it was; freed by the caller. */
char *contents(const char *path, size_t *length);
bool same_contents(const char *path, const char *bytes, size_t length);
void write_file(const char *path, const void *bytes, size_t length);

#endif
