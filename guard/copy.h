/* SPDX-License-Identifier: MIT */
/*
 * guard/copy.h - touching memory whose address was given by the program, and may be
 * wrong: what the program would die of ends the copy here.
 */
#ifndef QUIRE_GUARD_COPY_H
#define QUIRE_GUARD_COPY_H

#include <stdbool.h>
#include <stddef.h>

/* Copy n bytes; either may be the program's. => how many were not copied */
size_t guard_copy(void *to, const void *from, size_t n);
/* Make the byte's page present for reading, or for writing; its value does not change. => 0; else a bad address */
int guard_touch_read(const void *address);
int guard_touch_write(void *address);

/* Eight bytes: a pointer. => 0; else a bad address */
int guard_load(const void *address, unsigned long *out);

/* The string's length, at most most. => -1: a bad address */
long guard_string(const char *s, size_t most);

/* => -EFAULT if not all of it */
int copy_from(void *to, unsigned long user, size_t n);
int copy_to(unsigned long user, const void *from, size_t n);

#endif
