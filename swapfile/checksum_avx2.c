/* SPDX-License-Identifier: MIT */
/*
 * swapfile/checksum_avx2.c - XXH3 of a page with AVX2, whatever processor the
 * build aims at. Nothing here may run before checksum.c has asked the processor.
 */
#include "swapfile/checksum.h"

#include "base/base.h"

#if defined(__x86_64__)

/* The compilers differ in how a whole header is compiled for another target. */
#if defined(__clang__)
#include <immintrin.h>
#define XXH_VECTOR 2 /* XXH_AVX2, which is not defined yet */
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t checksum_page_avx2(const void *page)
{
	return XXH3_64bits(page, PAGE_BYTES);
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
