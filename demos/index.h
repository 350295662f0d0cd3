/* SPDX-License-Identifier: MIT */
/*
 * demos/index.h - a word index in one stretch of memory: where is each word?
 *
 * An open-addressing hash table, a record for each word, and its places as a
 * chain of chunks, all in one heap that only grows. The memory is the caller's:
 * the code does not know whether it is plain or a region of Quire. Two indexes
 * of the same words are the same byte by byte.
 */
#ifndef QUIRE_DEMO_INDEX_H
#define QUIRE_DEMO_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where a thing is in the heap: its offset in units of 8 bytes; 0 is nowhere. */
typedef uint32_t ref_t;
#define REF_UNIT 8u
#define INDEX_HEAP_MAX ((size_t)16 << 30)

struct heap {
	char *base;
	size_t capacity;
	size_t used;             /* what lies above was never touched: zeros */
	size_t spare, spare_end; /* what an outgrown table has left, used up first */
};

struct index {
	struct heap heap;
	ref_t table;
	unsigned bits;     /* the table has 1 << bits slots */
	ref_t first, last; /* words, in order of first appearance */
	uint64_t words, places;
};

/* memory: page-aligned zeros, at most INDEX_HEAP_MAX bytes, a whole number of pages. */
void index_init(struct index *x, void *memory, size_t capacity);

/* A word is at a place. Leaves the program if the heap is full. */
void index_add(struct index *x, const char *text, size_t length, uint64_t place);

/* The places of a word, in the order in which they were added. */
struct places {
	const struct index *index;
	const struct chunk *chunk;
	unsigned next;
};

struct places index_find(const struct index *x, const char *text, size_t length);
bool places_next(struct places *p, uint64_t *place);

/* One number for the whole: each slot, each word with its text, each place. */
uint64_t index_digest(const struct index *x);

/* A step of it, and of other digests. */
static inline uint64_t digest_add(uint64_t digest, uint64_t value)
{
	digest = (digest ^ value) * 0x9e3779b97f4a7c15u;
	return digest ^ digest >> 29;
}

#endif
