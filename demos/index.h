/* SPDX-License-Identifier: MIT */
/*
 * demos/index.h - a word index in one stretch of memory.
 *
 * An open-addressing hash table, a record for each word and its postings (file,
 * line) as chains of delta-coded chunks, all in one heap that only grows. The
 * memory is the caller's: the code does not know whether it is plain or a
 * region of Quire. Two indexes of the same words are the same byte by byte.
 */
#ifndef QUIRE_DEMO_INDEX_H
#define QUIRE_DEMO_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include <quire.h>

/* Places in the heap are kept as 32-bit numbers of 8-byte units; 0 is no place. */
typedef uint32_t ref_t;
#define REF_UNIT 8u

struct heap {
	char *base;
	size_t capacity;
	size_t used;             /* all above was never touched: zeros */
	size_t spare, spare_end; /* what an outgrown table has left, used up first */
};

struct index {
	struct heap heap;
	ref_t table;
	unsigned bits;     /* the table has 1 << bits slots */
	ref_t first, last; /* words, in order of first appearance */
	uint64_t words, postings;
};

/* Most bytes of heap: what a ref_t reaches. */
#define INDEX_HEAP_MAX ((size_t)UINT32_MAX / QUIRE_PAGE_SIZE * QUIRE_PAGE_SIZE * REF_UNIT)

/* memory: capacity bytes, a whole number of pages, of zeros. */
void index_init(struct index *x, char *memory, size_t capacity);

/* A word is at a place; places come in ascending order. Leaves the program if the heap is full. */
void index_add(struct index *x, const char *text, size_t length, uint32_t file, uint32_t line);

struct posting {
	uint32_t file, line;
};

struct answer {
	uint32_t count, files; /* 0: the word is nowhere */
	struct posting first, last;
};

struct answer index_query(const struct index *x, const char *text);

/* One number for the whole: each slot, each word with its text, each posting. */
uint64_t index_digest(const struct index *x);

#endif
