/* SPDX-License-Identifier: MIT */
/* vm/advise.c - advice, and protection: calls on ranges. */
#include "vm/vm.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

int region_check(const struct quire_region *r)
{
	if (r && r->q && pager_is_lost(r->q))
		return lost_error();
	if (!r || r->is_snapshot || atomic_load(&r->alive) != REGION_ALIVE)
		return error_set(EINVAL, "no such region");
	return 0;
}

int range_check(const struct quire_region *r, size_t offset, size_t length)
{
	int error = region_check(r);

	if (error)
		return error;
	if (length == 0 || (offset | length) % PAGE_BYTES || offset > r->bytes ||
	    length > r->bytes - offset)
		return error_set(
			EINVAL,
			"range at %zu of %zu bytes: it must be whole pages of %zu bytes, not "
			"empty, and inside the region of %zu bytes",
			offset, length, PAGE_BYTES, r->bytes);
	return 0;
}

static void advise_mode(struct quire_region *r, enum ra_mode mode)
{
	lock_acquire(&r->readahead_lock);
	readahead_set_mode(&r->readahead, mode);
	lock_release(&r->readahead_lock);
}

/*
 * A page that the caller has just touched may be BUSY still, while what was mapped
 * around it is entered: waited for, or the advice would pass over part of the range.
 */
static void advise_cold(struct quire_region *r, uint64_t first, uint64_t n)
{
	for (uint64_t page = first; page < first + n; page++) {
		uint64_t e;

		if (!region_leaf_touched(r, page)) {
			page |= LEAF_ENTRIES - 1;
			continue;
		}
		e = atomic_load(region_entry(r, page));
		if (!(e & ENTRY_BUSY) && entry_state(e) != ENTRY_MAPPED)
			continue;
		e = entry_hold(r, page);
		if (entry_state(e) == ENTRY_MAPPED)
			frame_cold(&r->q->pager, entry_payload(e));
		entry_publish(r, page, e);
	}
}

static int advise(struct quire_region *r, uint64_t first, uint64_t n, int advice)
{
	int error;

	switch (advice) {
	case QUIRE_ADVISE_NORMAL:
		advise_mode(r, RA_NORMAL);
		return 0;
	case QUIRE_ADVISE_SEQUENTIAL:
		advise_mode(r, RA_SEQUENTIAL);
		return 0;
	case QUIRE_ADVISE_RANDOM:
		advise_mode(r, RA_RANDOM);
		return 0;
	case QUIRE_ADVISE_WILLNEED:
		return prefetch_request(&r->q->prefetch, r->id, first, n);
	case QUIRE_ADVISE_COLD:
		advise_cold(r, first, n);
		return 0;
	case QUIRE_ADVISE_DONTNEED:
		error = discard_range(r, first, n, false);
		if (error)
			error_set(-error, error == -EBUSY ? "a page of the range is pinned" :
			                                    "the kernel did not discard the range");
		return error;
	default:
		return error_set(
			EINVAL,
			"unknown advice %d; allowed: normal 0, sequential 1, random 2, willneed "
			"3, cold 4, dontneed 5",
			advice);
	}
}

int quire_advise(quire_region_t *r, size_t offset, size_t length, int advice)
{
	int error = range_check(r, offset, length);
	struct call call;

	if (error)
		return error;
	call_enter(&call);
	error = advise(r, pages_of(offset), pages_of(length), advice);
	call_leave(&call);
	return error;
}

static int protect_by_engine(struct quire_region *r, size_t offset, size_t length, int prot)
{
	struct engine *e = &r->q->engine;
	struct call call;
	int error;

	call_enter(&call);
	error = e->ops->protect(e, r, r->base + offset, pages_of(length), prot);
	call_leave(&call);
	if (error == -ENGINE_CROWDED)
		return error_set(ENOMEM, "the range cannot be protected: too many mappings");
	return error ? error_set(ENOMEM, "the range cannot be protected: %s", strerror(-error)) : 0;
}

int quire_protect(quire_region_t *r, size_t offset, size_t length, int prot)
{
	int error = range_check(r, offset, length);

	if (error)
		return error;
	if (prot != PROT_READ && prot != (PROT_READ | PROT_WRITE))
		return error_set(EINVAL, "prot %d; allowed: PROT_READ, PROT_READ | PROT_WRITE",
		                 prot);
	if (r->q->engine.ops->protect)
		return protect_by_engine(r, offset, length, prot);
	if (mprotect(r->base + offset, length, prot) != 0)
		return error_set(ENOMEM, "mprotect: %s", strerror(errno));
	return 0;
}
