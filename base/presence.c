/* SPDX-License-Identifier: MIT */
/* base/presence.c - see presence.h. */
#include "base/presence.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

int presence_describe(int fd)
{
	char path[32];
	int other;

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	other = open(path, O_RDWR | O_CLOEXEC);
	return other < 0 ? -errno : other;
}

static struct flock lock_of(uint32_t byte)
{
	return (struct flock){ .l_type = F_WRLCK,
		               .l_whence = SEEK_SET,
		               .l_start = byte,
		               .l_len = 1 };
}

int presence_take(int fd, uint32_t byte)
{
	struct flock lock = lock_of(byte);

	return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
}

bool presence_is_free(int fd, uint32_t byte)
{
	struct flock lock = lock_of(byte);
	int saved = errno;
	bool free = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;

	errno = saved;
	return free;
}
