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

int madvise(void *address, size_t length, int advice)
{
	uintptr_t from = (uintptr_t)address, end = from + round_up(length, PAGE_BYTES);

	if (!discards(advice) || from % PAGE_BYTES || end <= from)
		return (int)syscall(SYS_madvise, address, length, advice);
	while (from < end) {
		struct quire_region *r = registry_find((void *)from);
		size_t part = end - from;
		int error;

		if (!r)
			return (int)syscall(SYS_madvise, (void *)from, part, advice);
		part = MIN(part, r->bytes - (from - (uintptr_t)r->base));
		error = discard(r, from, part);
		if (error) {
			/* As the kernel says of a locked page. */
			errno = error == -EBUSY ? EINVAL : -error;
			return -1;
		}
		from += part;
	}
	return 0;
}
