/* SPDX-License-Identifier: MIT */
/* demos/sortcheck.h - is a file what sort(1) makes of another? The judge of bigsort. */
#ifndef QUIRE_DEMO_SORTCHECK_H
#define QUIRE_DEMO_SORTCHECK_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Run LC_ALL=C sort(1) on input with a buffer of memory bytes and compare what
 * it says with the bytes of output. *time: how many seconds it took. Says where
 * the first difference is; leaves the program if sort cannot be run or fails.
 */
bool sort_agrees(const char *input, const char *output, size_t memory, double *time);

#endif
