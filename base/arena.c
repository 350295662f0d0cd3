/* SPDX-License-Identifier: MIT */
/* base/arena.c - see arena.h. */
#include "base/arena.h"

#include "base/base.h"
#include "base/kernel.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/prctl.h>

int arena_open(struct arena *a, size_t bytes, bool shared, const char *name)
{
	a->bytes = round_up(bytes, PAGE_BYTES);
	a->base = kernel_reserve(a->bytes, shared ? MAP_SHARED : MAP_PRIVATE);
	if (!a->base)
		return -ENOMEM;
	if (mprotect(a->base, a->bytes, PROT_READ | PROT_WRITE) != 0) {
		arena_close(a);
		return -ENOMEM;
	}
	/* Records are counted page by page: a huge page would break the count and the budget. */
	kernel_madvise(a->base, a->bytes, MADV_NOHUGEPAGE);
	if (!shared && name)
		prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, a->base, a->bytes, name);
	return 0;
}

void arena_close(struct arena *a)
{
	if (a->base)
		munmap(a->base, a->bytes);
	a->base = NULL;
}

void arena_clear(struct arena *a, size_t offset, size_t bytes)
{
	kernel_drop((char *)a->base + offset, bytes);
}
