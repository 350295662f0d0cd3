/* SPDX-License-Identifier: MIT */
/*
 * swapfile/file.h - the file under the slots: opened, locked, probed, grown.
 */
#ifndef QUIRE_SWAPFILE_FILE_H
#define QUIRE_SWAPFILE_FILE_H

#include <stdbool.h>
#include <stdint.h>

/* Constant after file_open, but for preallocate. */
struct file {
	int fd;
	bool named;        /* found by a path: it stays when the process ends */
	bool direct;       /* O_DIRECT */
	bool preallocate;  /* fallocate(2) works; written under the owner's grow lock */
	uint64_t size_max; /* bytes it may grow to: the process's limit */
	uint32_t chunk;    /* bytes to grow by */
};

/*
 * Open a swap file: an unnamed one in a directory, or the file of that name.
 * => path NULL: in the first of $TMPDIR, /var/tmp, /tmp that can be used
 * => the page at offset 0 was written and read back: its header
 * => a named file is locked against other pagers, and empty but for the header
 * => 0, or -errno with words set: -ENOENT, -ENOTDIR, -EACCES, -EPERM, -EROFS,
 *    -ENOSPC and the like; -EBUSY: locked; -EBADF: not ours, and untouched
 */
int file_open(struct file *f, const char *path);

/* Close it. A named file keeps its header page only. */
void file_close(struct file *f);

/*
 * Make the file longer and give it disk space for [from, to).
 * => 0; -ENOSPC: no space for all of it; another -errno
 */
int file_grow(struct file *f, uint64_t from, uint64_t to);

/*
 * Steps of file_open, for the tests of what this machine's file systems don't
 * show: a directory whose file system knows no O_TMPFILE. => descriptor or -errno
 */
int file_create_unlinked(const char *directory);

#endif
