/* SPDX-License-Identifier: MIT */
/*
 * swapfile/family.h - which of the processes that share a swap file are still there.
 *
 * They are a process and its children of fork(2), known by number: each holds the byte of that
 * number in a file in memory (base/presence.h).
 */
#ifndef QUIRE_SWAPFILE_FAMILY_H
#define QUIRE_SWAPFILE_FAMILY_H

#include <stdbool.h>
#include <stdint.h>

struct family {
	int fd;     /* with this process's lock; -1: it never forked, or is blind */
	int next;   /* the child's, while one is forked; -1 */
	bool blind; /* it shares a description with another: what it would be told is wrong */
};

void family_init(struct family *f);
void family_close(struct family *f);

/*
 * Before a fork, by member me, of member next. Where a description for it cannot be had (no
 * /proc, no descriptors) the two share one: they are there as long as one of them is, and
 * know of nobody any more whether he is. => 0; -errno: the child would seem to be gone
 */
int family_fork(struct family *f, uint32_t me, uint32_t next);
/* After it: in the process that forked, in the other. */
void family_in_parent(struct family *f);
void family_in_child(struct family *f);

/* Async-signal-safe. */
bool family_is_gone(const struct family *f, uint32_t member);

#endif
