/* SPDX-License-Identifier: MIT */
/*
 * swapfile/checksum.c - XXH3 of a page, folded to 32 bits and bound to its slot.
 *
 * The hash is compiled twice, here for the processor the build aims at and in
 * checksum_avx2.c, because a page read in a long run costs little more than
 * its checksum.
 */
#include "swapfile/checksum.h"

#include "base/base.h"

#include <stdatomic.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static uint64_t page_generic(const void *page)
{
	return XXH3_64bits(page, PAGE_BYTES);
}

/*
 * Set by checksum_init to one of two functions with equal results, so it does not
 * matter which of them another pager's threads find meanwhile. Loaded by name: gcc
 * calls through an atomic pointer as through any other.
 */
static uint64_t (*_Atomic page_hash)(const void *page) = page_generic;

void checksum_init(void)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2"))
		atomic_store_explicit(&page_hash, checksum_page_avx2, memory_order_relaxed);
#endif
}

uint32_t checksum_page(slot_t slot, const void *page)
{
	uint64_t h = atomic_load_explicit(&page_hash, memory_order_relaxed)(page);

	/* An odd factor makes this one-to-one in the slot: equal bytes, other slot, other sum. */
	return (uint32_t)(h ^ h >> 32) ^ slot * UINT32_C(0x9e3779b1);
}

uint64_t checksum_bytes(const void *bytes, size_t length)
{
	return XXH3_64bits(bytes, length);
}
