/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/guarded.h - what the tests of the syscall guard share: a pager with the
 * guard on and a budget of 64 pages, room in its region for what calls are given, and a way to
 * have all of that out of memory when a call is made.
 */
#ifndef QUIRE_TESTS_GUARDED_H
#define QUIRE_TESTS_GUARDED_H

#include "support.h"

#define PAGES 16384u
#define CROWD 8192u /* from here on: pages whose only use is to have others evicted */
#define CROWD_PAGES 200u

extern struct guarded {
	quire_t *pager;
	quire_region_t *region;
	char *base;
	size_t used; /* bytes of the region */
} guarded;

void open_guarded(void);
void close_guarded(void);

/* Room for an object, across the edge of two pages if it can be. */
void *room(size_t bytes);
char *room_for(const char *text);

/* Nothing of what was got is in memory any more. */
void away(void);

/* The call is made when what was got before is away. */
#define GONE(call) (away(), (call))

/* A text of n bytes for each key, and whether this is the part of it that begins at from. */
void bytes(char *p, size_t n, unsigned key);
bool are_bytes(const char *p, size_t n, size_t from, unsigned key);

/* An empty file, for reading and writing. */
int open_file(void);

#endif
