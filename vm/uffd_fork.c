/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd_fork.c - the engines of userfaultfd in a child of fork(2).
 *
 * The child has the pages, copy-on-write as the kernel does it, but not their
 * registration: an absent page would be filled with zeros there, and a clean one
 * could be written without our knowing. So before it does anything else the child
 * registers all of it with a userfaultfd of its own and protects what must be.
 */
#include "vm/uffd.h"

#include "base/error.h"
#include "vm/vm.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int uffd_fork_in_child(struct engine *e)
{
	struct uffd_state *u = &e->uffd;
	int error;

	/* The parent's, all three: what is done through them is done to its memory. */
	close(u->fd);
	if (u->pidfd >= 0)
		close(u->pidfd);
	if (u->memory >= 0)
		close(u->memory);
	u->pidfd = u->memory = -1;
	u->readers = NULL;
	error = uffd_descriptor(e);
	if (error)
		return error_set(-error, "no userfaultfd for a child of fork: %s",
		                 strerror(-error));
	u->pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	u->vector_drop = u->vector_drop && u->pidfd >= 0;
	uffd_open_memory(e);
	return 0;
}

static bool is_mapped(const struct quire_region *r, uint64_t page, bool *clean)
{
	uint64_t e = atomic_load(region_entry(r, page));

	if (entry_state(e) != ENTRY_MAPPED)
		return false;
	*clean = r->q->pager.frames[entry_payload(e)].slot != SLOT_NONE;
	return true;
}

/* Clean pages, with what is absent between them. */
static int protect_clean(struct engine *e, struct quire_region *r)
{
	uint64_t first = 0, last = 0; /* of a run of clean pages; first > last: none */
	bool clean = false, run = false;
	int error = 0;

	for (uint64_t page = 0; page < r->pages && !error; page++) {
		if (!region_leaf_touched(r, page)) {
			page |= LEAF_ENTRIES - 1;
			continue;
		}
		if (!is_mapped(r, page, &clean))
			continue;
		if (clean && !run)
			first = page;
		if (run && !clean)
			error = uffd_protect_all(e, r, region_page(r, first), last - first + 1);
		run = clean;
		last = page;
	}
	if (run && !error)
		error = uffd_protect_all(e, r, region_page(r, first), last - first + 1);
	return error;
}

/* System calls may be given it; of what a snapshot shares with it that has a copy. */
static int unprotect_pinned(struct engine *e, struct quire_region *r)
{
	bool clean;

	if (!counted(&r->counters.pinned))
		return 0;
	for (uint64_t page = 0; page < r->pages; page++) {
		uint64_t at = region_leaf_touched(r, page) ? atomic_load(region_entry(r, page)) : 0;

		if (entry_state(at) != ENTRY_MAPPED ||
		    e->q->pager.frames[entry_payload(at)].pins == 0)
			continue;
		if (is_mapped(r, page, &clean) &&
		    uffd_unprotect(e, r, region_page(r, page), 1) != 1)
			return -EIO;
	}
	return 0;
}

int uffd_attach_in_child(struct engine *e, struct quire_region *r)
{
	int error = uffd_attach(e, r, r->base, r->bytes);

	if (error)
		return error;
	if (!r->newest)
		return protect_clean(e, r);
	/* A dirty page may be protected without need; but for what is pinned. */
	error = uffd_protect_all(e, r, r->base, r->pages);
	return error ? error : unprotect_pinned(e, r);
}
