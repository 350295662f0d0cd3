/* SPDX-License-Identifier: MIT */
/*
 * demos/corpus.h - the text files below some directories, and their words.
 *
 * Input of the word index: a list of names in ordinary memory. It knows nothing
 * of the index or of Quire.
 */
#ifndef QUIRE_DEMO_CORPUS_H
#define QUIRE_DEMO_CORPUS_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct text_file {
	char *path;
	uint64_t size;
	uint64_t start; /* bytes of the files before it */
	struct timespec changed;
};

struct corpus {
	struct text_file *files; /* sorted by path in byte order */
	size_t count, room;
	uint64_t bytes; /* of all files */
	size_t others;  /* regular files that are not text, or not readable */
};

/*
 * Add the text files below a directory (or one file). Links are not followed.
 * Text is what has no NUL and no control character in its first bytes.
 * Returns 0, or an errno value if the root itself cannot be read.
 */
int corpus_add(struct corpus *c, const char *root);

/*
 * Sort, drop what was found twice, and keep at most limit bytes: an even sample
 * over the sorted list, the same on each run. limit 0: all.
 */
void corpus_choose(struct corpus *c, uint64_t limit);

void corpus_free(struct corpus *c);

/*
 * Copy a file to memory, of any kind: read(2) sees an ordinary buffer only.
 * to NULL: read it for nothing. Leaves the program if the file is not as it was found.
 */
void corpus_read(const struct text_file *file, char *to);

#define CORPUS_WORD_MAX 40u

/* A word, in lower case, of 2 bytes or more, cut after CORPUS_WORD_MAX; and where it begins. */
typedef void (*corpus_word_fn)(void *arg, const char *word, size_t length, uint64_t offset);

/* Hand on the words of a text in order. */
void corpus_words(const char *text, uint64_t length, corpus_word_fn word, void *arg);

#endif
