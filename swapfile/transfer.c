/* SPDX-License-Identifier: MIT */
/*
 * swapfile/transfer.c - a run on the calling thread.
 *
 * Reads of a page go through look.c. All else is preadv(2)
 * and pwritev(2): for one request at a time a ring that is slept for was
 * measured no faster, and these need no state that threads would have to share.
 */
#include "swapfile/io.h"
#include "swapfile/run.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8, "the offset goes to the kernel in one register");

ssize_t io_sync_transfer(int fd, const struct io_request *request, void *arg)
{
	const struct iovec *iov = request->iov;
	long offset = (long)request->offset, n;
	int saved = errno;

	(void)arg;
	/* The bare calls: libc's are cancellation points, and a fault must not be one. */
	if (request->iov_count == 1)
		n = syscall(request->write ? SYS_pwrite64 : SYS_pread64, fd, iov->iov_base,
		            iov->iov_len, offset);
	else
		n = syscall(request->write ? SYS_pwritev : SYS_preadv, fd, iov,
		            (long)request->iov_count, offset, 0L);
	if (n < 0)
		n = -errno;
	errno = saved;
	return n;
}

void run_finish_here(struct swapfile *s, struct swap_run *run)
{
	struct io_request request;
	int64_t result;

	do {
		run_request(run, &request);
		if (request.write || run->count > 1 || !s->look.count)
			result = s->io->transfer(s->file.fd, &request, s->io_arg);
		else
			result = look_transfer(&s->look, &request);
	} while (run_advance(s, run, result) != RUN_DONE);
}

int swapfile_transfer(struct swapfile *s, struct swap_run *run)
{
	run_start(s, run);
	run_finish_here(s, run);
	return run->status;
}
