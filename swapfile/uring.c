/* SPDX-License-Identifier: MIT */
/*
 * swapfile/uring.c - io_uring behind struct io_ops.
 *
 * A plain ring, without IORING_SETUP_SINGLE_ISSUER and DEFER_TASKRUN: a queue
 * is used by one thread at a time, but not always the same one. Without
 * COOP_TASKRUN, unless the ring is its user's own (IO_RING_OWN): a completion
 * must not wait until the thread that started the request happens to enter the
 * kernel, for another may be waiting for it.
 *
 * The completion queue is twice as long as the submission queue, which holds
 * depth requests, so it never overflows.
 */
#include "swapfile/io.h"
#include "swapfile/swapfile.h"

#include <errno.h>
#include <liburing.h>
#include <sys/mman.h>

struct uring {
	struct io_uring ring;
	int fd;
	unsigned depth, held; /* held: between prepare and reap */
};

/*
 * The thread that started a request, and stays with it, need not be interrupted
 * for its end: it is told by a flag, which io_uring_peek_cqe looks at. Linux
 * 5.19; without that, as usual.
 */
int swapfile_probe_uring(void)
{
	struct io_uring ring;
	int error = io_uring_queue_init(1, &ring, 0);

	if (error == 0)
		io_uring_queue_exit(&ring);
	return -error;
}

static int init(struct io_uring *ring, unsigned depth, bool own)
{
	int error = own ? io_uring_queue_init(depth, ring,
	                                      IORING_SETUP_COOP_TASKRUN |
	                                              IORING_SETUP_TASKRUN_FLAG) :
	                  -EINVAL;

	return error == -EINVAL ? io_uring_queue_init(depth, ring, 0) : error;
}

static int uring_open(void **out, int fd, unsigned depth, unsigned flags, void *arg)
{
	struct uring *u = mmap(NULL, sizeof *u, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
	                       -1, 0);
	int error;

	(void)arg;
	if (u == MAP_FAILED)
		return -ENOMEM;
	error = init(&u->ring, depth, flags & IO_RING_OWN);
	if (error) {
		munmap(u, sizeof *u);
		return error;
	}
	u->fd = fd;
	u->depth = depth;
	u->held = 0;
	*out = u;
	return 0;
}

static void uring_close(void *ring)
{
	struct uring *u = ring;

	io_uring_queue_exit(&u->ring);
	munmap(u, sizeof *u);
}

/*
 * Of a process that is killed the kernel lets go before the transfers of its rings have ended: writes come
 * to the disk when it is gone long since. What a ring has registered it has until then.
 */
static int uring_hold(void *ring, int fd)
{
	struct uring *u = ring;
	int error = io_uring_register_files(&u->ring, &fd, 1);

	return error == -EBUSY ? 0 : error; /* it has it already */
}

static bool uring_prepare(void *ring, const struct io_request *r)
{
	struct uring *u = ring;
	struct io_uring_sqe *sqe = u->held < u->depth ? io_uring_get_sqe(&u->ring) : NULL;

	if (!sqe)
		return false;
	if (r->iov_count == 1 && r->write)
		io_uring_prep_write(sqe, u->fd, r->iov->iov_base, (unsigned)r->iov->iov_len,
		                    r->offset);
	else if (r->iov_count == 1)
		io_uring_prep_read(sqe, u->fd, r->iov->iov_base, (unsigned)r->iov->iov_len,
		                   r->offset);
	else if (r->write)
		io_uring_prep_writev(sqe, u->fd, r->iov, r->iov_count, r->offset);
	else
		io_uring_prep_readv(sqe, u->fd, r->iov, r->iov_count, r->offset);
	io_uring_sqe_set_data(sqe, r->tag);
	u->held++;
	return true;
}

static int uring_submit(void *ring, bool wait)
{
	struct uring *u = ring;
	int n = wait ? io_uring_submit_and_wait(&u->ring, 1) : io_uring_submit(&u->ring);

	if (n < 0)
		return n;
	/* A request that is refused as such ends a submission early; what follows it starts now. */
	while (io_uring_sq_ready(&u->ring) > 0) {
		n = io_uring_submit(&u->ring);
		if (n <= 0)
			return n < 0 ? n : -EAGAIN;
	}
	return 0;
}

static int uring_wait(void *ring)
{
	struct uring *u = ring;
	struct io_uring_cqe *cqe;
	int error = io_uring_wait_cqe(&u->ring, &cqe);

	return error == -EINTR ? 0 : error;
}

static bool uring_reap(void *ring, void **tag, int64_t *result)
{
	struct uring *u = ring;
	struct io_uring_cqe *cqe;

	if (io_uring_peek_cqe(&u->ring, &cqe) != 0 || !cqe)
		return false;
	*tag = io_uring_cqe_get_data(cqe);
	*result = cqe->res;
	io_uring_cqe_seen(&u->ring, cqe);
	u->held--;
	return true;
}

static int uring_fd(void *ring)
{
	return ((struct uring *)ring)->ring.ring_fd;
}

const struct io_ops io_uring_ops = {
	.name = "uring",
	.open = uring_open,
	.close = uring_close,
	/* To unmap the ring and close a descriptor touches nothing of the parent's. */
	.forget = uring_close,
	.hold = uring_hold,
	.prepare = uring_prepare,
	.submit = uring_submit,
	.wait = uring_wait,
	.reap = uring_reap,
	.fd = uring_fd,
	.transfer = io_sync_transfer,
};
