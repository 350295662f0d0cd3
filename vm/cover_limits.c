/* SPDX-License-Identifier: MIT */
/*
 * vm/cover_limits.c - what the covers of a pager share (cover.h): which kind of hiding
 * works here, tried on a page of shared memory, and how many mappings there may be.
 */
#include "vm/cover.h"

#include "base/kernel.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>

/* Can the page be read? Asked of the kernel, which answers without a fault. */
static bool is_readable(const char *page)
{
	char c;
	struct iovec local = { &c, 1 }, remote = { (void *)page, 1 };

	return kernel_call(SYS_process_vm_readv, getpid(), &local, 1, &remote, 1, 0) == 1;
}

/* What the guard pages of this kernel must do for us. page: of shared memory. => 0 or an errno */
static int guards_fail(char *page)
{
	if (kernel_madvise(page, PAGE_BYTES, MADV_GUARD_INSTALL) != 0)
		return errno;
	if (!is_readable(page) && mprotect(page, PAGE_BYTES, PROT_READ) == 0 &&
	    !is_readable(page) && kernel_madvise(page, PAGE_BYTES, MADV_DONTNEED) == 0 &&
	    !is_readable(page) && kernel_madvise(page, PAGE_BYTES, MADV_GUARD_REMOVE) == 0 &&
	    is_readable(page))
		return 0;
	return ENOTSUP;
}

static bool vector_works(int pidfd, char *page)
{
	struct iovec v = { page, PAGE_BYTES };

	return syscall(SYS_process_madvise, pidfd, &v, 1ul, MADV_DONTNEED, 0u) ==
	               (long)PAGE_BYTES &&
	       syscall(SYS_process_madvise, pidfd, &v, 1ul, MADV_GUARD_INSTALL, 0u) ==
	               (long)PAGE_BYTES &&
	       !is_readable(page);
}

static uint32_t mappings_allowed(void)
{
	int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
	char text[16] = "";
	uint64_t n = 0;

	if (fd >= 0) {
		if (read(fd, text, sizeof text - 1) > 0)
			for (const char *d = text; *d >= '0' && *d <= '9'; d++)
				n = n * 10 + (uint64_t)(*d - '0');
		close(fd);
	}
	return (uint32_t)MIN(n ? n : 65530, UINT32_MAX / 2);
}

void cover_limits_open(struct cover_limits *l, int fd, bool allow_guards)
{
	char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	/* Half of what the kernel allows: the rest is the program's. */
	l->seams_max = mappings_allowed() / 2;
	atomic_store(&l->seams, 0);
	l->pidfd = -1;
	l->guards = false;
	if (page == MAP_FAILED)
		return;
	l->guards = allow_guards && guards_fail(page) == 0;
	if (l->guards)
		l->pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (l->pidfd >= 0 && !vector_works(l->pidfd, page)) {
		close(l->pidfd);
		l->pidfd = -1;
	}
	munmap(page, PAGE_BYTES);
}

void cover_probe(struct quire_probe *out, int fd)
{
	char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	struct iovec v = { page, PAGE_BYTES };

	out->max_map_count = mappings_allowed();
	out->guard_pages = out->process_madvise = errno;
	if (self >= 0 && page != MAP_FAILED) {
		bool works = syscall(SYS_process_madvise, self, &v, 1ul, MADV_DONTNEED, 0u) ==
		             (long)PAGE_BYTES;

		out->process_madvise = works ? 0 : errno;
	}
	if (self >= 0)
		close(self);
	if (page == MAP_FAILED)
		return;
	out->guard_pages = guards_fail(page);
	munmap(page, PAGE_BYTES);
}

void cover_limits_close(struct cover_limits *l)
{
	if (l->pidfd >= 0)
		close(l->pidfd);
	l->pidfd = -1;
}

void cover_limits_fork(struct cover_limits *l)
{
	if (l->pidfd < 0)
		return;
	/* The parent's: what is done through it is done to its memory. */
	close(l->pidfd);
	l->pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
}
