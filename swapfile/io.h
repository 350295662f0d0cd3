/* SPDX-License-Identifier: MIT */
/*
 * swapfile/io.h - the table of operations of a way of I/O.
 *
 * A backend moves bytes between a descriptor and memory and knows nothing of
 * slots, checksums or retries: it reports what happened, a short transfer or
 * -errno, and queue.c and transfer.c decide what follows. Backends: uring.c and
 * pool.c; tests put a fake disk here (swapfile_options.io_ops).
 */
#ifndef QUIRE_SWAPFILE_IO_H
#define QUIRE_SWAPFILE_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* One contiguous transfer. iov stays in place until it is reaped. */
struct io_request {
	bool write;
	const struct iovec *iov;
	unsigned iov_count; /* at least 1 */
	uint64_t offset;
	void *tag; /* handed back by reap */
};

/* Flags of io_ops.open. */
#define IO_RING_OWN \
	1u /* who starts a request stays with it, awake or in submit and wait, until it is reaped */

struct io_ops {
	const char *name;

	/*
	 * What all rings of a file share, or NULL for both: threads, perhaps. *arg is
	 * for the calls below; detach comes after the last close. => 0 or -errno
	 */
	int (*attach)(int fd, void **arg);
	void (*detach)(void *arg);
	/* In a child of fork, instead: its threads, and what they hold, are the parent's. */
	void (*desert)(void *arg);

	/*
	 * A ring that holds depth requests between prepare and reap. arg is what
	 * attach gave, or swapfile_options.io_arg. => 0 or -errno; *ring is for the
	 * calls below
	 */
	int (*open)(void **ring, int fd, unsigned depth, unsigned flags, void *arg);
	/* => nothing is in flight, or nobody cares for its buffers any more */
	void (*close)(void *ring);
	/* In a child of fork, instead: what is in flight is the parent's. */
	void (*forget)(void *ring);
	/*
	 * From now on fd's open file description stays while a request of the ring's is under way,
	 * whatever ends this process. Any thread, while no other uses the ring. NULL: nothing is
	 * under way once the process has ended. => 0 or -errno
	 */
	int (*hold)(void *ring, int fd);

	/* Note a request; it starts at the next submit. => false: depth of them are held already */
	bool (*prepare)(void *ring, const struct io_request *request);
	/*
	 * Start all that was prepared.
	 * => wait: sleeps until reap would succeed, or a signal came
	 * => 0, or -errno when some may not have started: they stay prepared and
	 *    the next submit tries again
	 */
	int (*submit)(void *ring, bool wait);
	/*
	 * Sleep until reap would succeed, or a signal came. Starts nothing. The
	 * caller knows of a request that was started and not reaped.
	 * => 0, or -errno: this thread cannot sleep for the ring
	 */
	int (*wait)(void *ring);
	/* One completion, in any order. *result: bytes, or -errno. => false: none is there */
	bool (*reap)(void *ring, void **tag, int64_t *result);
	/*
	 * A descriptor that polls readable when reap would succeed. To be asked for
	 * before each sleep: it need not become readable for who has not.
	 */
	int (*fd)(void *ring);

	/*
	 * Transfer now, on this thread, without a ring. Async-signal-safe and
	 * callable by any number of threads; leaves errno alone. => bytes or -errno
	 */
	ssize_t (*transfer)(int fd, const struct io_request *request, void *arg);
};

extern const struct io_ops io_uring_ops, io_pool_ops;

/* io_ops.transfer by preadv(2) and pwritev(2), for every backend on a real descriptor. */
ssize_t io_sync_transfer(int fd, const struct io_request *request, void *arg);

#endif
