/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/image_fixture.h - a folder for images, and a model of what they hold.
 */
#ifndef QUIRE_TESTS_IMAGE_FIXTURE_H
#define QUIRE_TESTS_IMAGE_FIXTURE_H

#include "base/error.h"
#include "image/image.h"
#include "tests/unit/unit.h"

/* What a page of the model is; not in the model of an increment: ABSENT. */
enum content { ABSENT, ZEROS, TEXT, NOISE };

#define MODEL_PAGES_MAX 4096u

struct model {
	uint64_t pages;
	unsigned char content[MODEL_PAGES_MAX];
	uint64_t seed[MODEL_PAGES_MAX];
};

/* An empty folder, removed when the program ends. */
const char *image_dir(void);
/* A path in it; good until the thirty-second call after. */
const char *image_path(const char *name);
/* Files in it, those with temporary names as well. */
unsigned image_entries(void);

void page_fill(unsigned char *bytes, enum content content, uint64_t seed);
bool page_is(const unsigned char *bytes, enum content content, uint64_t seed);

/*
 * A mixture: of a hundred pages so many are of each kind, the rest ABSENT. Here,
 * since the numbers are each source's own (unit.h).
 */
static inline void model_random(struct model *m, uint64_t pages, unsigned zeros, unsigned text,
                                unsigned noise)
{
	m->pages = pages;
	for (uint64_t i = 0; i < pages; i++) {
		uint64_t die = unit_below(100);

		m->content[i] = die < zeros                ? ZEROS :
		                die < zeros + text         ? TEXT :
		                die < zeros + text + noise ? NOISE :
		                                             ABSENT;
		m->seed[i] = unit_random();
	}
}

/* What memory is when m was changed by an increment. */
void model_apply(struct model *m, const struct model *increment);

/* "1" is the UUID of 16 bytes of 1; base 0: full. */
struct image_description describe(uint64_t pages, unsigned char uuid, unsigned char base);
/* => as image_commit */
int model_write(const struct model *m, const char *path, const struct image_description *d);
/* Does the image say of each page what the model does? By number and in order; verifies it, too. */
bool model_matches(const struct model *m, const char *path);

/*
 * An increment of two leaves with pages of each kind, as small as can be: of 300
 * pages 5 and 8 are zeros, 6 is text, 7 noise, 299 text. => the file; m is what
 * is in it
 */
unsigned char *sample(struct model *m, size_t *size);
/* Open and verify what ought to be the sample. => the first error; nothing wrong is read from it */
int image_check(const struct model *m, const char *path);
/* Is that in error_message()? Prints it if not. */
bool said(const char *words);

/* All of a file; the caller frees it. */
unsigned char *file_load(const char *path, size_t *size);
void file_store(const char *path, const void *bytes, size_t size);

#endif
