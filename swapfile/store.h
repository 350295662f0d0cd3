/* SPDX-License-Identifier: MIT */
/*
 * swapfile/store.h - struct swapfile, inside the room.
 */
#ifndef QUIRE_SWAPFILE_STORE_H
#define QUIRE_SWAPFILE_STORE_H

#include "base/lock.h"
#include "swapfile/family.h"
#include "swapfile/file.h"
#include "swapfile/io.h"
#include "swapfile/look.h"
#include "swapfile/slots.h"
#include "swapfile/swapfile.h"

#include <stdatomic.h>

/*
 * (c) constant after swapfile_open; (a) atomic; (g) between slots_grow_begin and end.
 */
struct swapfile {
	struct file file;        /* (c), .preallocate (g) */
	struct slots slots;      /* its own lock */
	struct family family;    /* (c) but while forking */
	const struct io_ops *io; /* (c) */
	void *io_arg;            /* (c) */
	struct look look;        /* its own */
	uint64_t full_until;     /* (g) the disk was full: don't ask before this time */
	_Atomic unsigned queues; /* (a) open queues */
	uint32_t child;          /* while forking: its number among the slots' members */
	uint32_t parent;         /* (c) of who forked this process */
	char refused[400]; /* (c) the last way of I/O that does not work here, in words; or "" */
};

#endif
