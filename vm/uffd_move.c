/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd_move.c - UFFDIO_MOVE, and what became of the pages when it fails.
 *
 * The kernel moves a page from one address to another, atomically against
 * writers, and tells how many of a range it has moved. From Linux 6.18 on (the
 * version that moves pages in batches) it may tell too few: where it has to try
 * a part again, because a page-table entry changed under its hands, and then
 * succeeds, it forgets that part, begins it once more, and stops at a target
 * that is taken: by the page that it has just moved. The answer is EEXIST.
 *
 * So EEXIST alone does not say whose the memory at the target is. The page
 * tables do (/proc/self/pagemap): if the source has no page any more, the page
 * is at the target. Whoever asks makes sure that there was nothing of value at
 * the target before, and holds the entry, so that no page comes to the source.
 * Without a pagemap to ask, pages are not moved.
 */
#include "base/kernel.h"
#include "vm/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>

/* Of an entry of /proc/PID/pagemap: the page is in memory, or on the kernel's own swap. */
#define PAGEMAP_THERE (UINT64_C(3) << 62)

/* A read of eight bytes from the page tables fails only while the kernel has no memory at all. */
#define TRIES 1000

int uffd_pagemap_open(void)
{
	return open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
}

static bool has_page(struct engine *e, const char *page)
{
	off_t offset = (off_t)((uintptr_t)page / PAGE_BYTES * sizeof(uint64_t));
	uint64_t entry;

	for (int i = 0; i < TRIES; i++) {
		if (syscall(SYS_pread64, e->uffd.pagemap, &entry, sizeof entry, offset) ==
		    (long)sizeof entry)
			return entry & PAGEMAP_THERE;
		sched_yield();
	}
	/* To guess would be to lose the page, or to take old bytes for its own. */
	assert_failed(__FILE__, __LINE__, "/proc/self/pagemap tells where a page is");
}

unsigned uffd_move(struct engine *e, char *to, char *from, unsigned n, int *error)
{
	unsigned done = 0;

	*error = 0;
	while (done < n) {
		size_t at = (size_t)done << PAGE_SHIFT;
		struct uffdio_move m = { .dst = (uintptr_t)to + at,
			                 .src = (uintptr_t)from + at,
			                 .len = (uint64_t)(n - done) << PAGE_SHIFT };

		if (ioctl(e->uffd.fd, UFFDIO_MOVE, &m) == 0)
			return n;
		if (m.move > 0) {
			done += (unsigned)(m.move >> PAGE_SHIFT);
		} else if (errno == EAGAIN) {
			/* The address space is changing under the call. */
			sched_yield();
		} else if (errno == EEXIST && !has_page(e, from + at)) {
			/* It has not woken who waits for it, either. */
			uffd_wake(e, to + at, 1);
			done++;
		} else {
			*error = errno;
			return done;
		}
	}
	return done;
}

int uffd_place(struct engine *e, char *page, char *buffer)
{
	int error;

	if (!e->uffd.move)
		return -ENOTSUP;
	return uffd_move(e, page, buffer, 1, &error) == 1 ? 0 : -error;
}
