/* SPDX-License-Identifier: MIT */
/*
 * image/file.h - whole reads and writes at an offset. Neither is a cancellation point.
 */
#ifndef QUIRE_IMAGE_FILE_H
#define QUIRE_IMAGE_FILE_H

#include <stddef.h>
#include <stdint.h>

/* Async-signal-safe, leaves errno alone. => 0; -EBADMSG: the file ends before that; -errno */
int image_file_read(int fd, void *bytes, size_t length, uint64_t offset);

/* => 0; -EFBIG: the limit on the size of files, without its signal; -errno */
int image_file_write(int fd, const void *bytes, size_t length, uint64_t offset);

/*
 * What was written from *settled to at need not stay in memory: start to write it
 * to the disk, and forget what was started the last time. A favour to others, no more.
 */
void image_file_settle(int fd, uint64_t *settled, uint64_t at);

#endif
