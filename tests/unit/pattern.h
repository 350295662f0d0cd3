/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/pattern.h - the contents of a page, made of one number: any two
 * numbers' pages differ in every word, and no word of a page is like another.
 */
#ifndef QUIRE_TESTS_PATTERN_H
#define QUIRE_TESTS_PATTERN_H

#include "base/base.h"

static inline void pattern_fill(void *page, uint64_t seed)
{
	uint64_t *w = page;

	for (size_t i = 0; i < PAGE_BYTES / sizeof *w; i++)
		w[i] = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + i;
}

static inline bool pattern_holds(const void *page, uint64_t seed)
{
	const uint64_t *w = page;

	for (size_t i = 0; i < PAGE_BYTES / sizeof *w; i++)
		if (w[i] != (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + i)
			return false;
	return true;
}

#endif
