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
	int fd; /* with this process's byte; -1: it never forked, or is blind */
	int next; /* a description for the next child, ready for when there are no descriptors; or < 0 */
	bool blind; /* nothing can be found out here: nor can its children, ever */
};

enum family_presence { FAMILY_UNKNOWN, FAMILY_THERE, FAMILY_GONE };

void family_open(struct family *f);
void family_close(struct family *f);

/* Before a fork, by member me, of that member. => 0; -errno: it would seem to be gone */
int family_fork(struct family *f, uint32_t me, uint32_t member);
/* After it: in the process that forked, in the other. */
void family_in_parent(struct family *f);
void family_in_child(struct family *f);

/*
 * Of the description by which others see this process: who keeps another descriptor of it keeps
 * the process there. -1: they see nothing
 */
int family_descriptor(const struct family *f);

/* Of another member than this process. Async-signal-safe. */
enum family_presence family_presence(const struct family *f, uint32_t member);

#endif
