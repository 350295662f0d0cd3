/* SPDX-License-Identifier: MIT */
/*
 * vm/sigsegv.h - the files in memory that the engine sigsegv's regions are mappings of.
 * The bytes of the page at an address are there at that offset. => 0 or -errno
 */
#ifndef QUIRE_VM_SIGSEGV_H
#define QUIRE_VM_SIGSEGV_H

#include <stddef.h>

/* A new one. => descriptor, or -errno with words */
int sigsegv_file(void);
int sigsegv_put(int fd, const char *page, const char *from, size_t bytes);
int sigsegv_get(int fd, const char *page, char *to, size_t bytes);
/* Have memory for them, so that to put bytes there cannot fail. */
int sigsegv_allow(int fd, const char *page, size_t bytes);

#endif
