/* SPDX-License-Identifier: MIT */
/*
 * swapfile/checksum.h - is what was read what was written, and there?
 */
#ifndef QUIRE_SWAPFILE_CHECKSUM_H
#define QUIRE_SWAPFILE_CHECKSUM_H

#include "swapfile/swapfile.h"

/* Choose the fastest code for this processor. Once, before any page; the sums are the same. */
void checksum_init(void);

/*
 * Of a page as the content of a slot: another slot's sum of the same bytes
 * differs, so that a transfer to or from the wrong place is found.
 */
uint32_t checksum_page(slot_t slot, const void *page);

/* Of any bytes. */
uint64_t checksum_bytes(const void *bytes, size_t length);

/* checksum_avx2.c: as checksum_bytes, of one page, with AVX2. */
uint64_t checksum_page_avx2(const void *page);

#endif
