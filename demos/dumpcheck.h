/* SPDX-License-Identifier: MIT */
/* demos/dumpcheck.h - are dumps what the log says? */
#ifndef QUIRE_DEMO_DUMPCHECK_H
#define QUIRE_DEMO_DUMPCHECK_H

#include "keeper.h"

/*
 * A full image and its increments, by a pager of its own: each file by itself; what they are when
 * they are made one; the first, the middle one and the last, each loaded on its chain.
 */
bool images_are_right(const struct keeper *k, const struct quire_options *options);

/* The whole dumps that are there, the last two, of so many bytes of memory. */
bool whole_dumps_are_right(const struct keeper *k, size_t bytes);

#endif
