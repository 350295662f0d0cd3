/* SPDX-License-Identifier: MIT */
/*
 * swapfile/look.h - transfers whose end is looked for, not slept for. See look.c.
 */
#ifndef QUIRE_SWAPFILE_LOOK_H
#define QUIRE_SWAPFILE_LOOK_H

#include "swapfile/io.h"

#include <stdatomic.h>
#include <stdint.h>

#define LOOK_RINGS 8u

struct look {
	uint64_t ns;               /* how long to look; 0: never */
	unsigned count;            /* rings that are open */
	_Atomic int32_t score;     /* 0: looking has not been worth it of late */
	_Atomic uint32_t declined; /* reads since then that slept at once */
	struct look_ring {
		_Atomic uint32_t taken; /* by a thread, for one transfer */
		void *ring;
	} rings[LOOK_RINGS];
};

/*
 * Open as many rings as can be had and leave a few descriptors to the program;
 * without any, look_transfer always declines.
 */
void look_open(struct look *l, const struct io_ops *io, int fd, void *arg, uint64_t ns);
void look_close(struct look *l, const struct io_ops *io);

/*
 * Transfer now, on this thread. Async-signal-safe, no cancellation point, any
 * number of threads at once; leaves errno alone.
 * => false: not now (nothing was done); true: *result as from io_ops.transfer
 */
bool look_transfer(struct look *l, const struct io_ops *io, const struct io_request *request,
                   int64_t *result);

#endif
