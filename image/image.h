/* SPDX-License-Identifier: MIT */
/*
 * image/image.h - the door of image/: files that hold what memory was.
 *
 * An image is the contents of so many pages, each with a checksum; all of them
 * (a full image), or those that differ from another image (an increment). This
 * folder knows pages by number and their bytes. It knows no region, page table
 * or address of the program. docs/IMAGE-FORMAT.md describes the files.
 *
 *   header.c    the header, byte by byte; format.c: index blocks and the root; checksums
 *   file.c      whole reads and writes
 *   publish.c   a file that appears under its name when it is complete, or never
 *   writer.c    image_create .. image_commit
 *   reader.c    image_open, and reading a page by its number
 *   cursor.c    what is recorded, in order
 *   verify.c    all that can be checked
 *   merge.c     a full image and its increments made one
 *
 * Nothing here mallocs. All calls return 0 or -errno unless said otherwise.
 * Except where it is said, they leave words in error_message() when they fail.
 * A file that cannot be used is one of these:
 *
 *   -EBADF    no image at all, or no regular file
 *   -EBADMSG  damaged, or truncated; the words say what and where
 *   -ENOTSUP  of a newer version
 *   -EFBIG    of more memory than IMAGE_BYTES_MAX
 */
#ifndef QUIRE_IMAGE_IMAGE_H
#define QUIRE_IMAGE_IMAGE_H

#include "base/arena.h"
#include "base/base.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

/* Of memory, not of the file. */
#define IMAGE_BYTES_MAX (UINT64_C(1) << 40)
/* The pages that one index block, a leaf, tells of: those of equal number / IMAGE_LEAF_PAGES. */
#define IMAGE_LEAF_PAGES 256u
#define IMAGE_NAME_MAX 31u

/* What whoever saves memory says of it. */
struct image_description {
	unsigned char
		uuid[16]; /* of this memory at this moment; all zero: image_create makes one up */
	unsigned char
		base[16]; /* of the image that this one is the difference to; all zero: full */
	uint64_t bytes;   /* length of the memory: whole pages, 1 page .. IMAGE_BYTES_MAX */
	int64_t created;  /* seconds since 1970; 0: image_create asks the clock */
	char name[IMAGE_NAME_MAX + 1]; /* may be "" */
};

/* What the header of a file says. */
struct image_header {
	struct image_description description;
	uint64_t stored;     /* pages whose bytes are in the file */
	uint64_t compressed; /* of them */
	uint64_t zeros;      /* pages recorded as zeros: increments only */
	uint64_t data_bytes; /* of the stored pages, as they are stored */
	uint64_t leaves;     /* index blocks */
	uint64_t file_bytes;
};

/*
 * What an image says of a page. In a full image what is not recorded is zeros,
 * and zeros are not recorded; in an increment a page that is not recorded is
 * as in the base.
 */
enum image_kind { IMAGE_ABSENT, IMAGE_ZEROS, IMAGE_BYTES };

/*
 * Told now and then how far it is; both count the same unit of work.
 * => false: stop; the call returns -ECANCELED
 */
typedef bool (*image_progress)(void *arg, uint64_t done, uint64_t of);

static inline bool image_uuid_is_zero(const unsigned char uuid[16])
{
	for (unsigned i = 0; i < 16; i++)
		if (uuid[i])
			return false;
	return true;
}

static inline bool image_is_full(const struct image_header *h)
{
	return image_uuid_is_zero(h->description.base);
}

/* ------------------------------------------------------------ writing
 * One thread at a time uses a writer. The file is written beside its later
 * place, without a name where the file system can do that; whatever happens
 * before image_commit, what was at path stays as it was.
 */

/* Private to image/, but the caller's to keep (publish.c). */
struct image_output {
	int fd;
	int directory;           /* of path; all names are relative to it */
	bool named;              /* it has the name temporary by now */
	volatile bool disowned;  /* it is a parent's: it gets no name */
	char name[NAME_MAX + 1]; /* the last part of path */
	char temporary[64];
};

/* Private to image/, but the caller's to keep: about 700 bytes. */
struct image_writer {
	struct image_output output;
	struct image_header header; /* grows with what is put */
	struct arena memory;        /* the buffer, and what compressing takes */
	struct arena root;
	uint64_t next;     /* no page below it may be put any more */
	uint64_t leaf;     /* whose index block is being filled */
	unsigned recorded; /* in it */
	uint64_t at;       /* file offset of the buffer's first byte */
	size_t fill;       /* bytes in the buffer */
	uint64_t settled;  /* up to there the file need not stay in memory */
	int error;         /* of the first call that failed: it stays */
};

/* There is no image yet. For where image_forget may come before image_create. */
void image_writer_init(struct image_writer *w);

/*
 * Begin an image that image_commit will put at path. *d is copied.
 * => a symbolic link at path is replaced itself, not what it points to (rename(2))
 * -EINVAL   the description, or an empty path
 * -EISDIR, -EBADF   there is a directory, or something else that is no regular file
 * -ENOENT, -ENOTDIR, -EACCES, -EROFS, -ENOSPC, -ENAMETOOLONG and the like, -ENOMEM
 */
int image_create(struct image_writer *w, const char *path, const struct image_description *d);

/*
 * What page number page is; bytes NULL: zeros. Pages come in rising order, each
 * at most once. Zeros are found, and recorded in increments only. The bytes may
 * be anywhere (aligned to 8), but must not change until it returns: they are read
 * to look for zeros, to compress, and for the checksum.
 * => -EINVAL: not rising, or beyond the end. -ENOSPC, -EDQUOT, -EIO; -EFBIG: the
 *    limit on the size of files (ulimit -f). After a failure all further calls
 *    fail alike; only image_abandon is left to do
 */
int image_put(struct image_writer *w, uint64_t page, const void *bytes);

/*
 * Complete the file, see it safely onto the disk, and put it at the path, in one
 * step: whoever opens that sees the old file or this one, whole. Then the
 * directory is written, too.
 * => the writer is closed, and nothing is left behind if it failed
 * => a file that is replaced lends its mode; else it is for its owner alone
 * -EEXIST   replace is false, and there is something
 */
int image_commit(struct image_writer *w, bool replace);

/* => nothing is left behind. Harmless after image_commit, or an image_create that failed. */
void image_abandon(struct image_writer *w);
/* In a child of fork, whatever the parent was doing with it: the file is the parent's, and is left alone. */
void image_forget(struct image_writer *w);
/*
 * The same by the thread that was doing it, which goes on in the child: its next call fails, error (an errno).
 * (What it may be writing just now its parent writes there, too.)
 */
void image_disown(struct image_writer *w, int error);

/* ------------------------------------------------------------ reading
 * An open image does not change, and any number of threads may use it at once.
 * Opening reads the header and the root; index blocks are read when they are
 * needed, and the kernel keeps them (as file cache).
 */

/* Private to image/, but the caller's to keep; header is for all to read. */
struct image {
	int fd;
	struct image_header header;
	struct arena root; /* as it is in the file */
	char path[256];    /* for messages: the end of it, if it is long */
};

/* -ENOENT, -EACCES and the like; and what is said at the top. => on failure nothing is open */
int image_open(struct image *im, const char *path);
/* The same of an open descriptor, which stays the caller's and is not needed any more. */
int image_open_fd(struct image *im, int fd);
/* Harmless after an image_open that failed. */
void image_close(struct image *im);

/*
 * Read a page. Async-signal-safe and lock-free, needs 10 KiB of stack, leaves
 * errno alone, is no cancellation point and sets no words.
 * => IMAGE_BYTES, and bytes is filled; IMAGE_ZEROS or (increments only)
 *    IMAGE_ABSENT, and it is untouched
 * => -EBADMSG: damaged; -EIO and the like; -EINVAL: beyond the end. bytes is
 *    undefined then
 */
int image_read_page(const struct image *im, uint64_t page, void *bytes);

/* Is anything recorded of a leaf's pages? Reads nothing. */
bool image_has_leaf(const struct image *im, uint64_t number);

/* => what kind of page it is, or -errno as above */
int image_kind(const struct image *im, uint64_t page);

/*
 * An index block, read once for its 256 pages. Of a leaf of which the image
 * records nothing it says so.
 */
struct image_leaf {
	uint64_t number;
	uint64_t begin, end; /* the data of its pages is in there */
	bool full;           /* the image is full */
	unsigned char block[4096];
};

/* As image_read_page in all; => 0 or -errno */
int image_read_leaf(const struct image *im, uint64_t number, struct image_leaf *leaf);
/* => as image_kind; page is one of the leaf's. Reads nothing */
int image_leaf_kind(const struct image_leaf *leaf, uint64_t page);
/* => as image_read_page; the second read of the two */
int image_leaf_page(const struct image *im, const struct image_leaf *leaf, uint64_t page,
                    void *bytes);

/*
 * The recorded pages in order, one thread a cursor:
 *
 *     struct image_cursor c;
 *     uint64_t page;
 *     int kind;
 *
 *     for (image_seek(&c, &im, 0); (kind = image_next(&c, &page)) > 0;)
 *             if (kind == IMAGE_BYTES)
 *                     error = image_cursor_read(&c, bytes);
 */
struct image_cursor {
	const struct image *image;
	uint64_t slot; /* the root's entry of the leaf below, or to be read next */
	uint64_t from; /* no page below it is told */
	bool loaded;   /* leaf is slot's */
	struct image_leaf leaf;
};

/* The next page told is the first recorded one that is not below page. Never fails. */
void image_seek(struct image_cursor *c, const struct image *im, uint64_t page);
/* => IMAGE_BYTES or IMAGE_ZEROS and *page; IMAGE_ABSENT (0): no more; or -errno, without words */
int image_next(struct image_cursor *c, uint64_t *page);
/* The page that image_next told of last. => as image_read_page */
int image_cursor_read(const struct image_cursor *c, void *bytes);

/* ------------------------------------------------------------ whole files */

/* Read and check all of it. progress may be NULL; it counts leaves. => -EBADMSG, -EIO, -ECANCELED */
int image_verify(const struct image *im, image_progress progress, void *arg);

/*
 * Make one image of count of them: paths[0] and the increments that follow, each
 * to the one before. The newest page wins; stored bytes are copied as they are,
 * once they were found good. The result is the newest image's memory, with its
 * UUID, time and name, and has paths[0]'s base: it is full if that is. It
 * replaces what is at out, which may be one of the inputs. progress may be NULL;
 * it counts leaves of all inputs.
 * => -EINVAL: one is no increment to the one before, or not of the same length:
 *    the words name both
 * => else as image_open, image_put and image_commit
 */
int image_merge(const char *const paths[], unsigned count, const char *out, image_progress progress,
                void *arg);

#endif
