/* SPDX-License-Identifier: MIT */
/*
 * base/arena.h - address space for records that grows as it is touched.
 *
 * An arena is one private (or shared) NORESERVE mapping: reserving costs
 * nothing, a record costs memory when it is first written. Never managed
 * pages, never swapped by us.
 */
#ifndef QUIRE_BASE_ARENA_H
#define QUIRE_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct arena {
	void *base;
	size_t bytes;
};

/* => 0 or -ENOMEM. name is shown in /proc/PID/maps where the kernel can. */
int arena_open(struct arena *a, size_t bytes, bool shared, const char *name);
void arena_close(struct arena *a);
/* Give the memory back, keep the address space; it reads as zeros again. */
void arena_clear(struct arena *a, size_t offset, size_t bytes);

#endif
