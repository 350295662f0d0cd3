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
	_Atomic uint64_t
		full_since;  /* ns: when swapfile_alloc began to give nothing; 0: it gives */
	uint64_t full_until; /* (g) the disk was full: don't ask before this time */
	struct lock queue_lock;
	struct swap_queue *queues; /* those that are open; queue lock */
	bool held;                 /* while forking: all rings hold the family's descriptor */
	uint32_t child;            /* while forking: its number among the slots' members */
	char refused[400]; /* (c) the last way of I/O that does not work here, in words; or "" */
};

/* Every queue, and the rings for looking, hold fd (io_ops.hold), unless it is -1. => nobody uses s just now. => 0 or -errno */
int swapfile_hold(struct swapfile *s, int fd);

#endif
