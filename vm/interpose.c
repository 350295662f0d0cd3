/* SPDX-License-Identifier: MIT */
/*
 * vm/interpose.c - the program's own madvise(2) on managed memory.
 *
 * MADV_DONTNEED on private memory means: zeros from now on. For a page that is
 * resident the kernel and the next fault see to it; of a page that is on the
 * swap file the kernel knows nothing. So a program that links Quire gets this
 * madvise instead of libc's: discards of managed ranges go to discard_range,
 * all else to the kernel. (A raw system call still discards resident pages
 * only; quire_advise is the call that is always right.)
 */
#include "vm/vm.h"

#include "base/kernel.h"
#include "base/quiesce.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((visibility("default"))) int madvise(void *address, size_t length, int advice);

static int discard(struct quire_region *r, uintptr_t from, size_t length)
{
	struct call call;
	int error;

	call_enter(&call);
	error = discard_range(r, pages_of(from - (uintptr_t)r->base), pages_of(length), false);
	call_leave(&call);
	region_put(r);
	return error;
}

static bool discards(int advice)
{
	return advice == MADV_DONTNEED || advice == MADV_DONTNEED_LOCKED || advice == MADV_FREE;
}

/* What is not ours. => 0 or -errno */
static int kernel_discard(uintptr_t from, uintptr_t end, int advice)
{
	if (from == end)
		return 0;
	return syscall(SYS_madvise, (void *)from, end - from, advice) == 0 ? 0 : -errno;
}

/* Is any of it? */
static bool is_managed(uintptr_t from, uintptr_t end)
{
	struct quire_region *r;
	bool managed;

	/* It has none, and nobody would open a gate that is closed there. */
	if (process_is_strange())
		return false;
	work_enter();
	r = registry_find_from((void *)from);
	managed = r && (uintptr_t)r->base < end;
	if (r)
		region_put(r);
	work_leave();
	return managed;
}

int madvise(void *address, size_t length, int advice)
{
	uintptr_t from = (uintptr_t)address, end = from + round_up(length, PAGE_BYTES);
	int error = 0;

	/* Of private memory, as a region is for the program, the kernel says the same. */
	if (advice == MADV_REMOVE && length && is_managed(from, end)) {
		errno = EINVAL;
		return -1;
	}
	if (!discards(advice) || from % PAGE_BYTES || end <= from || process_is_strange())
		return (int)syscall(SYS_madvise, address, length, advice);
	work_enter();
	/* As the kernel: holes in the range are told of, but what is there is discarded. */
	while (from < end && (error == 0 || error == -ENOMEM)) {
		struct quire_region *r = registry_find_from((void *)from);
		uintptr_t managed = r ? MAX(from, (uintptr_t)r->base) : end;
		int now;

		if (managed >= end) {
			if (r)
				region_put(r);
			now = kernel_discard(from, end, advice);
			from = end;
		} else if (managed > from) {
			region_put(r);
			now = kernel_discard(from, managed, advice);
			from = managed;
		} else {
			size_t part = MIN(end - from, r->bytes - (from - (uintptr_t)r->base));

			now = discard(r, from, part);
			/* As the kernel says of a locked page. */
			now = now == -EBUSY ? -EINVAL : now;
			from += part;
		}
		error = now ? now : error;
	}
	work_leave();
	if (error)
		errno = -error;
	return error ? -1 : 0;
}
