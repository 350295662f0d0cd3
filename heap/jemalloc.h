/* SPDX-License-Identifier: MIT */
/*
 * heap/jemalloc.h - the jemalloc that is inside the library, under names of its own.
 *
 * jemalloc keeps what it knows of a block apart from the block, so that neither malloc nor free
 * touches a page that is not resident. It is linked in (scripts/own-jemalloc), with je_ before each
 * of its public names and none of them exported: the program's malloc stays whatever it was.
 */
#ifndef QUIRE_HEAP_JEMALLOC_H
#define QUIRE_HEAP_JEMALLOC_H

#define JEMALLOC_NO_RENAME
#include <jemalloc/jemalloc.h>

#include <stdbool.h>

/* Before any other call. */
void je_own_prepare(void);

/* Functions of libc's that it is given instead, see jemalloc.c. */
char *je_own_getenv(const char *name);
ssize_t je_own_readlink(const char *path, char *buffer, size_t bytes);

#endif
