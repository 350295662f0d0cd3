/* SPDX-License-Identifier: MIT */
/* swapfile/family.c - see family.h. */
#include "swapfile/family.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

void family_init(struct family *f)
{
	*f = (struct family){ .fd = -1, .next = -1 };
}

static void drop(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void family_close(struct family *f)
{
	drop(&f->fd);
	drop(&f->next);
}

static bool take(int fd, uint32_t byte)
{
	struct flock lock = { .l_type = F_WRLCK,
		              .l_whence = SEEK_SET,
		              .l_start = byte,
		              .l_len = 1 };

	return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

/* Another description of the same file. => descriptor, or -1 */
static int describe_again(int fd)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return open(path, O_RDWR | O_CLOEXEC);
}

/* The first fork of the first member makes the file. */
static void begin(struct family *f, uint32_t me)
{
	f->fd = (int)syscall(SYS_memfd_create, "quire family", 1u /* MFD_CLOEXEC */);
	if (f->fd >= 0 && !take(f->fd, me))
		drop(&f->fd);
}

int family_fork(struct family *f, uint32_t me, uint32_t next)
{
	if (f->fd < 0 && !f->blind)
		begin(f, me);
	if (f->fd >= 0 && !f->blind)
		f->next = describe_again(f->fd);
	/* Without one of its own the child has ours. */
	if (f->next >= 0 && !take(f->next, next))
		drop(&f->next);
	if (f->next >= 0)
		return 0;
	f->blind = true;
	return f->fd < 0 || take(f->fd, next) ? 0 : -errno;
}

void family_in_parent(struct family *f)
{
	drop(&f->next);
}

void family_in_child(struct family *f)
{
	if (f->next < 0)
		return;
	drop(&f->fd);
	f->fd = f->next;
	f->next = -1;
}

bool family_is_gone(const struct family *f, uint32_t member)
{
	struct flock lock = { .l_type = F_WRLCK,
		              .l_whence = SEEK_SET,
		              .l_start = member,
		              .l_len = 1 };
	int saved = errno;
	bool gone = f->fd >= 0 && !f->blind && fcntl(f->fd, F_OFD_GETLK, &lock) == 0 &&
	            lock.l_type == F_UNLCK;

	errno = saved;
	return gone;
}
