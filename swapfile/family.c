/* SPDX-License-Identifier: MIT */
/* swapfile/family.c - see family.h. */
#include "swapfile/family.h"

#include "base/base.h"
#include "base/presence.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

static void drop(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void prepare_next(struct family *f)
{
	if (f->fd >= 0)
		f->next = presence_describe(f->fd);
}

void family_open(struct family *f)
{
	*f = (struct family){ .fd = -1, .next = -1 };
}

void family_close(struct family *f)
{
	drop(&f->fd);
	drop(&f->next);
}

/* The first fork of the first member makes the file. => 0 or -errno */
static int begin(struct family *f, uint32_t me)
{
	int error;

	f->fd = (int)syscall(SYS_memfd_create, "quire family", 1u /* MFD_CLOEXEC */);
	error = f->fd < 0 ? -errno : presence_take(f->fd, me);
	if (!error) {
		prepare_next(f);
		error = MIN(f->next, 0);
	}
	if (!error)
		return 0;
	family_close(f);
	if (error == -EMFILE || error == -ENFILE)
		return error;
	/* Without /proc, or files in memory: better served, and nobody known to be gone, than not. */
	f->blind = true;
	return 0;
}

int family_fork(struct family *f, uint32_t me, uint32_t member)
{
	int error = f->fd < 0 && !f->blind ? begin(f, me) : 0;

	if (error || f->blind)
		return error;
	if (f->next < 0)
		prepare_next(f);
	return f->next < 0 ? f->next : presence_take(f->next, member);
}

/* Closed first: if there is no child, nobody holds the byte then. */
void family_in_parent(struct family *f)
{
	drop(&f->next);
	prepare_next(f);
}

void family_in_child(struct family *f)
{
	if (f->fd < 0)
		return;
	drop(&f->fd);
	f->fd = f->next;
	prepare_next(f);
}

int family_descriptor(const struct family *f)
{
	return f->fd;
}

enum family_presence family_presence(const struct family *f, uint32_t member)
{
	if (f->fd < 0)
		return FAMILY_UNKNOWN;
	return presence_is_free(f->fd, member) ? FAMILY_GONE : FAMILY_THERE;
}
