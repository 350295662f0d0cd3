/* SPDX-License-Identifier: MIT */
/*
 * swapfile/header.h - the page in slot 0 that says whose the file is.
 */
#ifndef QUIRE_SWAPFILE_HEADER_H
#define QUIRE_SWAPFILE_HEADER_H

#include <stdint.h>

#define HEADER_VERSION 1u

/* Write a header with a fresh UUID into a page. */
void header_fill(void *page);

/* Is it a header of this version and page size? => NULL, or what is wrong with it, in words */
const char *header_fault(const void *page);

#endif
