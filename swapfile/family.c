/* SPDX-License-Identifier: MIT */
/* swapfile/family.c - see family.h. */
#include "swapfile/family.h"

#include "base/presence.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void drop(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void family_open(struct family *f)
{
	*f = (struct family){ .next = -1 };
	f->fd = (int)syscall(SYS_memfd_create, "quire family", 1u /* MFD_CLOEXEC */);
	if (f->fd >= 0 && presence_take(f->fd, 0) != 0)
		drop(&f->fd);
}

void family_close(struct family *f)
{
	drop(&f->fd);
	drop(&f->next);
}

static void share(struct family *f, uint32_t member)
{
	f->shared[member / 64] |= UINT64_C(1) << member % 64;
}

int family_fork(struct family *f, uint32_t me, uint32_t next)
{
	int error;

	if (f->fd < 0)
		return 0;
	f->next = presence_describe(f->fd);
	if (f->next >= 0 && presence_take(f->next, next) != 0)
		drop(&f->next);
	if (f->next >= 0)
		return 0;
	f->next = -1;
	error = presence_take(f->fd, next);
	if (error)
		return error;
	share(f, me);
	share(f, next);
	return 0;
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
	memset(f->shared, 0, sizeof f->shared);
}

enum family_presence family_presence(const struct family *f, uint32_t member)
{
	if (f->fd < 0)
		return FAMILY_UNKNOWN;
	/* A description does not see its own locks. */
	if (f->shared[member / 64] >> member % 64 & 1)
		return FAMILY_THERE;
	return presence_is_free(f->fd, member) ? FAMILY_GONE : FAMILY_THERE;
}
