/* SPDX-License-Identifier: MIT */
/*
 * swapfile/summary.h - a set of small integers with "the next member from i on"
 * in a few steps, however large and sparse the set.
 *
 * A tree of bitmaps, 64 to one: bit i of level k + 1 says that word i of level
 * k is not zero. Four levels hold 2^24 members. Memory is the owner's, zeroed
 * (the empty set), and may be shared between processes. No lock of its own.
 */
#ifndef QUIRE_SWAPFILE_SUMMARY_H
#define QUIRE_SWAPFILE_SUMMARY_H

#include "base/base.h"

#define SUMMARY_LEVELS 4
#define SUMMARY_MAX ((uint32_t)1 << 6 * SUMMARY_LEVELS)
#define SUMMARY_NONE UINT32_MAX

struct summary {
	uint64_t *level[SUMMARY_LEVELS];
	uint32_t words[SUMMARY_LEVELS];
};

static inline uint32_t summary_words(uint32_t size, unsigned level)
{
	for (unsigned i = 0; i <= level; i++)
		size = (size + 63) / 64;
	return size;
}

/* Bytes of memory for a set of members 0 .. size - 1. */
static inline size_t summary_bytes(uint32_t size)
{
	size_t words = 0;

	for (unsigned i = 0; i < SUMMARY_LEVELS; i++)
		words += summary_words(size, i);
	return words * sizeof(uint64_t);
}

static inline void summary_init(struct summary *s, void *memory, uint32_t size)
{
	uint64_t *next = memory;

	ASSERT(size > 0 && size <= SUMMARY_MAX);
	for (unsigned i = 0; i < SUMMARY_LEVELS; i++) {
		s->level[i] = next;
		s->words[i] = summary_words(size, i);
		next += s->words[i];
	}
}

static inline bool summary_has(const struct summary *s, uint32_t i)
{
	return s->level[0][i / 64] >> i % 64 & 1;
}

static inline void summary_add(struct summary *s, uint32_t i)
{
	for (unsigned k = 0; k < SUMMARY_LEVELS; k++, i /= 64) {
		uint64_t old = s->level[k][i / 64];

		s->level[k][i / 64] = old | UINT64_C(1) << i % 64;
		if (old) /* the levels above know already */
			return;
	}
}

static inline void summary_remove(struct summary *s, uint32_t i)
{
	for (unsigned k = 0; k < SUMMARY_LEVELS; k++, i /= 64) {
		uint64_t left = s->level[k][i / 64] & ~(UINT64_C(1) << i % 64);

		s->level[k][i / 64] = left;
		if (left)
			return;
	}
}

/* Nothing below size is a member, whatever the levels say of each other. */
static inline void summary_clear(struct summary *s, uint32_t size)
{
	for (unsigned k = 0; k < SUMMARY_LEVELS; k++) {
		size = MIN((size + 63) / 64, s->words[k]);
		for (uint32_t i = 0; i < size; i++)
			s->level[k][i] = 0;
	}
}

/* The least member not below from, or SUMMARY_NONE. */
static inline uint32_t summary_next(const struct summary *s, uint32_t from)
{
	uint32_t i = from;

	for (unsigned k = 0; k < SUMMARY_LEVELS; k++) {
		uint32_t word = i / 64;

		if (word < s->words[k]) {
			uint64_t above = s->level[k][word] & ~UINT64_C(0) << i % 64;

			if (above) {
				i = word * 64 + (uint32_t)__builtin_ctzll(above);
				while (k-- > 0)
					i = i * 64 + (uint32_t)__builtin_ctzll(s->level[k][i]);
				return i;
			}
		}
		i = word + 1;
	}
	return SUMMARY_NONE;
}

/* Each level says of the one below what it should. For debug builds and tests. */
static inline bool summary_check(const struct summary *s)
{
	for (unsigned k = 1; k < SUMMARY_LEVELS; k++)
		for (uint32_t i = 0; i < s->words[k - 1]; i++)
			if ((s->level[k][i / 64] >> i % 64 & 1) != (s->level[k - 1][i] != 0))
				return false;
	return true;
}

#endif
