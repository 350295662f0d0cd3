/* SPDX-License-Identifier: MIT */
/* demos/footprint.h - the memory of a process, as the kernel counts it. */
#ifndef QUIRE_DEMO_FOOTPRINT_H
#define QUIRE_DEMO_FOOTPRINT_H

#include <stdint.h>
#include <sys/types.h>

struct footprint {
	uint64_t share;   /* bytes; of a page that n processes have, an n-th */
	uint64_t private; /* what no other has */
};

/* All zero if it cannot be read: the process has ended. May be called in a child of fork. */
struct footprint footprint_of(pid_t pid);

#endif
