/* SPDX-License-Identifier: MIT */
/* image/file.c - see file.h. */
#include "image/file.h"

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8, "the offset goes to the kernel in one register");

#define SETTLE_BYTES ((uint64_t)8 << 20)

int image_file_read(int fd, void *bytes, size_t length, uint64_t offset)
{
	char *at = bytes;
	int saved = errno, error = 0;

	while (length > 0 && !error) {
		/* The bare call: libc's is a cancellation point, and a fault must not be one. */
		long n = syscall(SYS_pread64, fd, at, length, (long)offset);

		if (n == 0)
			error = -EBADMSG;
		else if (n < 0 && errno != EINTR)
			error = -errno;
		else if (n > 0)
			at += n, offset += (size_t)n, length -= (size_t)n;
	}
	errno = saved;
	return error;
}

/* The kernel would end the program (SIGXFSZ) for the first byte beyond the limit. */
static bool is_too_long(uint64_t end)
{
	struct rlimit size;

	return getrlimit(RLIMIT_FSIZE, &size) == 0 && size.rlim_cur != RLIM_INFINITY &&
	       end > size.rlim_cur;
}

int image_file_write(int fd, const void *bytes, size_t length, uint64_t offset)
{
	const char *at = bytes;

	if (is_too_long(offset + length))
		return -EFBIG;
	while (length > 0) {
		long n = syscall(SYS_pwrite64, fd, at, length, (long)offset);

		if (n == 0)
			return -ENOSPC;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			at += n, offset += (size_t)n, length -= (size_t)n;
	}
	return 0;
}

void image_file_settle(int fd, uint64_t *settled, uint64_t at)
{
	uint64_t before = *settled > SETTLE_BYTES ? *settled - SETTLE_BYTES : 0;

	if (at - *settled < SETTLE_BYTES)
		return;
	sync_file_range(fd, (off_t)*settled, (off_t)(at - *settled), SYNC_FILE_RANGE_WRITE);
	/* It only forgets what the disk has by now; and waiting for that sets the pace. */
	sync_file_range(fd, (off_t)before, (off_t)(*settled - before),
	                SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
	                        SYNC_FILE_RANGE_WAIT_AFTER);
	posix_fadvise(fd, (off_t)before, (off_t)(*settled - before), POSIX_FADV_DONTNEED);
	*settled = at;
}
