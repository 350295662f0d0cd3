/* SPDX-License-Identifier: MIT */
/* swapfile/family.c - see family.h. */
#include "swapfile/family.h"

#include "base/presence.h"

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

/* The first fork of the first member makes the file. */
static void begin(struct family *f, uint32_t me)
{
	f->fd = (int)syscall(SYS_memfd_create, "quire family", 1u /* MFD_CLOEXEC */);
	if (f->fd >= 0 && presence_take(f->fd, me) != 0)
		drop(&f->fd);
}

int family_fork(struct family *f, uint32_t me, uint32_t next)
{
	if (f->fd < 0 && !f->blind)
		begin(f, me);
	if (f->fd >= 0 && !f->blind)
		f->next = presence_describe(f->fd);
	/* Without one of its own the child has ours. */
	if (f->next >= 0 && presence_take(f->next, next) != 0)
		drop(&f->next);
	if (f->next >= 0)
		return 0;
	f->blind = true;
	return f->fd < 0 ? 0 : presence_take(f->fd, next);
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
	return f->fd >= 0 && !f->blind && presence_is_free(f->fd, member);
}
