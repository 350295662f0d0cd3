/* SPDX-License-Identifier: MIT */
/*
 * swapfile/look.h - transfers whose end is looked for, not slept for. See look.c.
 */
#ifndef QUIRE_SWAPFILE_LOOK_H
#define QUIRE_SWAPFILE_LOOK_H

#include "base/trial.h"
#include "swapfile/io.h"

#include <stdatomic.h>
#include <stdint.h>

#define LOOK_RINGS 8u

enum look_way { LOOK_ASLEEP, LOOK_AWAKE };

struct look {
	int fd;
	const struct io_ops *io;
	void *arg;
	uint64_t ns;        /* how long to look; 0: never */
	struct trial trial; /* LOOK_ASLEEP against LOOK_AWAKE */
	unsigned count;     /* rings that are open */
	struct look_ring {
		_Atomic uint32_t taken; /* by a thread, for one transfer */
		void *ring;
	} rings[LOOK_RINGS];
};

/*
 * Open as many rings as can be had and leave a few descriptors to the program:
 * look.count, perhaps none.
 */
void look_open(struct look *l, const struct io_ops *io, int fd, void *arg, uint64_t ns);
/* The rings hold fd (io_ops.hold), unless it is -1; those that cannot are closed. => nobody uses them */
void look_hold(struct look *l, int fd);
void look_close(struct look *l);
/* In a child of fork: the rings are the parent's; and the same again, with rings of its own. */
void look_forget(struct look *l);
void look_open_again(struct look *l, void *arg);

/*
 * => look.count > 0
 * io_ops.transfer, awake where that is quicker. Async-signal-safe, no
 * cancellation point, any number of threads at once; leaves errno alone.
 */
int64_t look_transfer(struct look *l, const struct io_request *request);

#endif
