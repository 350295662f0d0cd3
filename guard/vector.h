/* SPDX-License-Identifier: MIT */
/*
 * guard/vector.h - lists of segments (struct iovec), of which those in the window are
 * replaced by copies.
 */
#ifndef QUIRE_GUARD_VECTOR_H
#define QUIRE_GUARD_VECTOR_H

#include "guard/served.h"

#include <sys/socket.h>

#define VECTOR_MAX 1024u /* the kernel's UIO_MAXIOV */
/* So much of a transfer is one call; beyond, what can be divided goes in turns (transfer.c). */
#define VECTOR_WHOLE ((size_t)1 << 20)

#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

struct vector {
	struct iovec *user, *made; /* the same segments; made may be fewer bytes of the last */
	size_t n;
	size_t bytes;
	bool overhangs; /* a segment goes beyond the end of what there is, and is cut there */
};

/* Copy the program's list. => -EINVAL: a length that the kernel refuses, too */
int vector_read(struct served *s, unsigned long user, size_t n, struct iovec **list);
/* Bytes of it that are in the window. */
size_t vector_in_window(const struct iovec *list, size_t n);
/*
 * Make copies from byte skip of the list on, until limit bytes are copies; fetched: of
 * what is there, for a call that reads them. => 0 or -errno
 */
int vector_open(struct served *s, struct iovec *list, size_t n, size_t skip, size_t limit,
                bool fetched, struct vector *out);
/* The call has filled the first bytes of it. => 0 or -EFAULT */
int vector_close(const struct vector *v, size_t bytes);
/* A socket that is a stream: what is sent may be divided. */
bool vector_is_stream(int fd);
/* Make present what is in the window, for a call in place. */
int vector_touch(const struct iovec *list, size_t n);

#endif
