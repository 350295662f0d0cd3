/* SPDX-License-Identifier: MIT */
/*
 * swapfile/family.h - which of the processes that share a swap file are still there.
 *
 * They are a process and its children of fork(2), known by number: each holds the byte of that
 * number in a file in memory (base/presence.h).
 *
 * Where a description of its own cannot be had for a child (no /proc, no descriptors), it shares its
 * parent's: then the two are there as long as one of them is, and cannot ask about each other.
 */
#ifndef QUIRE_SWAPFILE_FAMILY_H
#define QUIRE_SWAPFILE_FAMILY_H

#include <stdbool.h>
#include <stdint.h>

#define FAMILY_MAX 256u

struct family {
	int fd;   /* with this process's byte; -1: there is no such file */
	int next; /* the child's, while one is forked; -1 */
	uint64_t
		shared[FAMILY_MAX / 64]; /* who has this process's description, itself among them */
};

enum family_presence { FAMILY_UNKNOWN, FAMILY_THERE, FAMILY_GONE };

/* Number 0. Where there can be no file, nothing is known of anybody. */
void family_open(struct family *f);
void family_close(struct family *f);

/* Before a fork, by member me, of member next. => 0; -errno: the child would seem to be gone */
int family_fork(struct family *f, uint32_t me, uint32_t next);
/* After it: in the process that forked, in the other. */
void family_in_parent(struct family *f);
void family_in_child(struct family *f);

/* Async-signal-safe. */
enum family_presence family_presence(const struct family *f, uint32_t member);

#endif
