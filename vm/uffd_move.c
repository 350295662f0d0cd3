/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd_move.c - UFFDIO_MOVE, and what became of the pages when it fails.
 *
 * The kernel moves a page from one address to another, atomically against
 * writers, and tells how many of a range it has moved. From Linux 6.18 on (the
 * version that moves pages in batches) it may tell too few: where it has to try
 * a part again, because a page-table entry changed under its hands, and then
 * succeeds, it forgets that part, begins it once more, and stops at a target
 * that is taken: by the page that it has just moved. The answer is EEXIST, and
 * nobody who waits for the page has been woken. Or the answer is of the part
 * before, and whatever stops the next call is told of a page that is gone.
 *
 * So what stopped a call says nothing of a page until it is known where that
 * page is. The program's side of a move tells (mincore(2)): the caller holds the
 * entry, so no page comes or goes there but by this move, or by a discard of the
 * program's own, which may as well come a moment later.
 */
#include "base/kernel.h"
#include "vm/uffd.h"

#include <errno.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/sysinfo.h>

/* => false of a page that is poisoned, and perhaps of one on the kernel's own swap */
static bool in_core(char *page)
{
	unsigned char vector = 0;

	return mincore(page, PAGE_BYTES, &vector) == 0 && (vector & 1);
}

/*
 * Has the page left for the buffer, which was empty before? If it is not in core
 * the bytes tell. Zeros may be an empty buffer's, or come of an mlockall; then the
 * answer does not matter: the page, if it has left, was zeros, too.
 */
static bool is_out(char *buffer, char *page)
{
	return !in_core(page) && !page_is_zero(buffer);
}

/* Has the buffer's page arrived where there was none? The same the other way round. */
static bool is_in(char *page, char *buffer)
{
	return in_core(page) || page_is_zero(buffer);
}

static unsigned move(struct engine *e, char *to, char *from, unsigned n,
                     bool (*is_done)(char *to, char *from), int *error)
{
	unsigned done = 0;

	*error = 0;
	while (done < n) {
		size_t at = (size_t)done << PAGE_SHIFT;
		struct uffdio_move m = { .dst = (uintptr_t)to + at,
			                 .src = (uintptr_t)from + at,
			                 .len = (uint64_t)(n - done) << PAGE_SHIFT };
		int why;

		if (ioctl(e->uffd.fd, UFFDIO_MOVE, &m) == 0)
			return n;
		why = errno;
		if (m.move > 0) {
			done += (unsigned)(m.move >> PAGE_SHIFT);
		} else if (why == EAGAIN) {
			/* The address space is changing under the call. */
			sched_yield();
		} else if (is_done(to + at, from + at)) {
			uffd_wake(e, to + at, 1);
			done++;
		} else {
			*error = why;
			break;
		}
	}
	return done;
}

static bool kernel_swaps(void)
{
	struct sysinfo s;

	return sysinfo(&s) == 0 && s.totalswap > 0;
}

/*
 * A page leaves its write-protection behind, unless it is on the kernel's own swap: then
 * it would come back into the buffer with it, where the kernel, reading into the buffer
 * one day, would wait for somebody to serve that fault.
 */
unsigned uffd_move_out(struct engine *e, char *buffer, char *page, unsigned n, int *error)
{
	unsigned done = move(e, buffer, page, n, is_out, error);

	if (done && kernel_swaps())
		uffd_protection(e, buffer, done, false);
	return done;
}

int uffd_place(struct engine *e, char *page, char *buffer)
{
	int error;

	if (!e->uffd.move)
		return -ENOTSUP;
	return move(e, page, buffer, 1, is_in, &error) == 1 ? 0 : -error;
}
