/* SPDX-License-Identifier: MIT */
/* vm/guarded.c - see guarded.h. */
#include "vm/guarded.h"

#include "base/kernel.h"
#include "base/quiesce.h"
#include "guard/guard.h"
#include "vm/signals.h"
#include "vm/vm.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/random.h>

#define STEP ((uint64_t)1 << 30)

/* ------------------------------------------------------------------ pins */

/* The same for both calls. => -EFAULT: no page of ours */
static int with_page(void *page, int (*what)(quire_region_t *, size_t, size_t))
{
	struct quire_region *r;
	int error = -EFAULT;

	if (process_is_strange())
		return error;
	work_enter();
	r = registry_find(page);
	if (r) {
		error = what(r, (size_t)((char *)page - r->base), PAGE_BYTES);
		region_put(r);
	}
	work_leave();
	return error;
}

static int pin(void *page)
{
	return with_page(page, quire_pin);
}

static void unpin(void *page)
{
	with_page(page, quire_unpin);
}

static size_t extent(const void *address)
{
	struct quire_region *r;
	size_t bytes = 0;

	if (process_is_strange())
		return 0;
	work_enter();
	r = registry_find(address);
	if (r) {
		bytes = r->bytes - (size_t)((const char *)address - r->base);
		region_put(r);
	}
	work_leave();
	return bytes;
}

static const struct guard_pager pager = { .pin = pin, .unpin = unpin, .extent = extent };

/*
 * The guard copies from and to addresses that may be wrong, and wants to be told by
 * either signal; for good, as calls with an address in the window may come at any time.
 */
int guarded_start(void)
{
	int error;

	/* Counted, and never stopped: once more does no harm. */
	error = signals_start(SIGBUS);
	if (!error)
		error = signals_start(SIGSEGV);
	return error ? error : guard_start(&pager);
}

/* --------------------------------------------------------------- the window */

static uint64_t random_place(void)
{
	uint32_t random = 0;

	/* Not the same addresses in each run: where it cannot be had, so be it. */
	if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
		random = 0;
	return GUARD_WINDOW + random % (GUARD_WINDOW_BYTES / 2 / STEP) * STEP;
}

static void *reserve_at(uint64_t at, size_t bytes)
{
	void *wanted = (void *)(uintptr_t)at;
	void *p = mmap(wanted, bytes, PROT_NONE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (p == wanted) {
		syscall(SYS_munlock, p, bytes);
		return p;
	}
	/* Before Linux 4.17 the address is but a wish. */
	if (p != MAP_FAILED) {
		munmap(p, bytes);
		errno = EEXIST;
	}
	return NULL;
}

/* The first gap from there on. What is in the way and not a region of ours is passed over. */
static void *reserve_from(uint64_t at, size_t bytes)
{
	while (guard_in_window(at) && guard_in_window(at + bytes - 1)) {
		struct quire_region *r = registry_find_from((void *)(uintptr_t)at);
		uint64_t next = r ? (uintptr_t)r->mapping : UINT64_MAX;
		uint64_t after = r ? next + r->mapping_bytes : 0;
		void *p;

		if (r)
			region_put(r);
		if (next < at || next - at < bytes) {
			at = after;
			continue;
		}
		p = reserve_at(at, bytes);
		if (p || errno != EEXIST)
			return p;
		at = (at | (STEP - 1)) + 1;
	}
	errno = ENOMEM;
	return NULL;
}

void *guarded_reserve(size_t bytes)
{
	static _Atomic uint64_t first;
	uint64_t from = atomic_load(&first), none = 0;
	void *p;

	if (!from) {
		atomic_compare_exchange_strong(&first, &none, random_place());
		from = atomic_load(&first);
	}
	p = reserve_from(from, bytes);
	return p ? p : reserve_from(GUARD_WINDOW, bytes);
}
