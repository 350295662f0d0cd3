/* SPDX-License-Identifier: MIT */
/*
 * demos/dump.h - memory to a file and back, by a process that may take its time: what a child of
 * fork does. Pages of zeros are left out and the others compressed (LZ4) where that saves an
 * eighth, as in images of Quire, so that the two write as much for a page.
 *
 *     | header, a page | page number, length, bytes | page number, length, bytes | ...
 */
#ifndef QUIRE_DEMO_DUMP_H
#define QUIRE_DEMO_DUMP_H

#include <stddef.h>
#include <stdint.h>

/*
 * Write bytes of memory, whole pages, to path: through a file beside it, which is written to the
 * disk and then renamed. Calls nothing that a child of fork must not. => 0 or -errno
 */
int dump_write(const char *path, const void *memory, size_t bytes, uint64_t *file_bytes);

/* Read it to memory, which is zeros. => 0 or -errno; -EBADMSG: it is no dump of so many bytes */
int dump_read(const char *path, void *memory, size_t bytes);

#endif
