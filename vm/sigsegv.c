/* SPDX-License-Identifier: MIT */
/*
 * vm/sigsegv.c - the engine `sigsegv`, for where there is no userfaultfd: an access
 * to a page that is hidden raises SIGSEGV in the faulting thread, which serves the
 * fault itself (signals.c).
 *
 * A page cannot be filled where it is and be out of sight at once. So regions are
 * shared mappings of a file in memory, of which only we have the descriptor: bytes are
 * written to the file while the page is hidden, and read from it when it is hidden
 * again; then a hole is punched, which gives the memory back. One file is enough for all
 * regions: the bytes of a page are at the offset that is its address.
 *
 *   map       pwrite, show                      (cover.c shows and hides)
 *   map_zero  show: a hole reads as zeros
 *   take      hide, pread into the buffer, punch a hole
 *   drop      hide, punch a hole
 *
 * No write is lost: a writer that sees the page before it is hidden has written to
 * the file; one that comes later faults, and waits for the entry.
 *
 * A child of fork(2) has none of these mappings (MADV_DONTFORK): shared with it, they
 * would be changed by either. It has a file of its own, and its bytes from ours as
 * estate.h tells. madvise(MADV_DONTNEED), but for the program's own that
 * vm/interpose.c sees, unmaps pages of such a file and no more.
 */
#include "vm/sigsegv.h"

#include "vm/cover.h"
#include "vm/signals.h"

#include "base/error.h"
#include "base/kernel.h"
#include "vm/vm.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* All addresses that a program can have, with the page tables of four levels. */
#define FILE_BYTES ((off_t)1 << 48)

static off_t offset_of(const char *page)
{
	return (off_t)(uintptr_t)page;
}

/* ----------------------------------------------------- the pages' bytes */

int sigsegv_put(int fd, const char *page, const char *from, size_t bytes)
{
	while (bytes) {
		ssize_t n = pwrite(fd, from, bytes, offset_of(page));

		if (n < 0 && errno != EINTR)
			return -errno;
		n = MAX(n, 0);
		page += n;
		from += n;
		bytes -= (size_t)n;
	}
	return 0;
}

int sigsegv_get(int fd, const char *page, char *to, size_t bytes)
{
	while (bytes) {
		ssize_t n = pread(fd, to, bytes, offset_of(page));

		if (n == 0)
			return -EIO;
		if (n < 0 && errno != EINTR)
			return -errno;
		n = MAX(n, 0);
		page += n;
		to += n;
		bytes -= (size_t)n;
	}
	return 0;
}

int sigsegv_allow(int fd, const char *page, size_t bytes)
{
	int error;

	do
		error = fallocate(fd, 0, offset_of(page), (off_t)bytes) == 0 ? 0 : -errno;
	while (error == -EINTR);
	return error;
}

static int punch(struct engine *e, const char *page, size_t bytes)
{
	return fallocate(e->sigsegv.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_of(page),
	                 (off_t)bytes) == 0 ?
	               0 :
	               -errno;
}

/* ----------------------------------------------------------- operations */

static int sigsegv_map(struct engine *e, struct quire_region *r, char *page, const char *from,
                       unsigned n, bool writable)
{
	bool dirty;
	int done;

	if (cover_is_shown(r->cover, page, &dirty))
		return -EEXIST;
	done = sigsegv_put(e->sigsegv.fd, page, from, (size_t)n << PAGE_SHIFT);
	if (done == 0)
		done = cover_show(r->cover, page, n, writable);
	/* Its memory is not the caller's to spend. */
	if (done < (int)n)
		punch(e, page + ((size_t)MAX(done, 0) << PAGE_SHIFT),
		      (size_t)(n - (unsigned)MAX(done, 0)) << PAGE_SHIFT);
	return done;
}

/*
 * Have the kernel allocate what is a hole still; else it does with the first touch, by a fault
 * of its own. (By reading, where the program forbids writes.)
 */
static int populate(char *page, unsigned n)
{
	size_t bytes = (size_t)n << PAGE_SHIFT;

	if (kernel_madvise(page, bytes, MADV_POPULATE_WRITE) == 0 ||
	    kernel_madvise(page, bytes, MADV_POPULATE_READ) == 0)
		return 0;
	return -errno;
}

/* The page is awaited: hidden, its bytes owed (estate.h). => 1 or -errno */
static int bring(struct engine *e, struct quire_region *r, char *page, bool dirty)
{
	int done = estate_fetch(e, r, page);

	if (!done)
		done = cover_show(r->cover, page, 1, dirty);
	if (done == 1)
		estate_arrived(e, r, page);
	return done;
}

static int sigsegv_bring(struct engine *e, struct quire_region *r, char *page)
{
	return bring(e, r, page, false);
}

static int sigsegv_populate(struct engine *e, struct quire_region *r, char *page)
{
	int error = estate_awaits(e, r, page) ? bring(e, r, page, false) : 0;

	return error < 0 ? error : populate(page, 1);
}

static int sigsegv_map_zero(struct engine *e, struct quire_region *r, char *page, unsigned n,
                            bool write)
{
	bool dirty;
	int done;

	(void)e;
	if (cover_is_shown(r->cover, page, &dirty)) {
		/* Whatever hid it: the call that should have shown it failed half way. */
		done = cover_show(r->cover, page, 1, dirty);
		return done < 0 ? done : -EEXIST;
	}
	done = cover_show(r->cover, page, n, true);
	if (done > 0 && write)
		populate(page, (unsigned)done);
	return done;
}

static int sigsegv_place(struct engine *e, char *page, char *buffer)
{
	(void)e;
	(void)page;
	(void)buffer;
	return -ENOTSUP;
}

static int sigsegv_unprotect(struct engine *e, struct quire_region *r, char *page, unsigned n)
{
	int error = estate_give(e, r, page, n);

	if (error)
		return error;
	if (estate_awaits(e, r, page))
		return bring(e, r, page, true);
	for (unsigned i = 1; i < n; i++)
		if (estate_awaits(e, r, page + ((size_t)i << PAGE_SHIFT)))
			n = i;
	return cover_dirty(r->cover, page, n);
}

/* Neighbours that are hidden now; those that are wanted have buffers that are neighbours. */
static int deliver_run(struct engine *e, const struct take_page *t, size_t bytes)
{
	size_t n = pages_of(bytes);
	int error = estate_give(e, t->region, t->page, n);

	for (size_t i = 0; i < n && !error; i++)
		error = estate_fetch(e, t->region, t[i].page);
	if (!error && t->wanted)
		error = sigsegv_get(e->sigsegv.fd, t->page, t->buffer, bytes);
	if (!error)
		error = punch(e, t->page, bytes);
	if (!error)
		estate_forgo(e, t->region, t->page, n);
	return error;
}

/* Where the buffers have no memory of their own yet, only one page is there twice at a time. */
static void deliver(struct engine *e, struct take_page *t, unsigned n)
{
	for (unsigned i = 0, length; i < n; i += length) {
		bool alone = t[i].result != TAKE_DONE || (t[i].wanted && !t[i].backed);

		for (length = 1; i + length < n && !alone; length++)
			if (t[i + length].result != TAKE_DONE ||
			    t[i + length].wanted != t[i].wanted ||
			    (t[i].wanted && !t[i + length].backed) ||
			    t[i + length].page != t[i + length - 1].page + PAGE_BYTES)
				break;
		if (t[i].result != TAKE_DONE ||
		    deliver_run(e, &t[i], (size_t)length << PAGE_SHIFT) == 0)
			continue;
		for (unsigned k = i; k < i + length; k++) {
			if (!estate_awaits(e, t[k].region, t[k].page))
				cover_show(t[k].region->cover, t[k].page, 1,
				           t[k].dirty && !t[k].shared && !estate_is_owed(e));
			t[k].result = TAKE_KEPT;
			if (t[k].wanted && !t[k].backed)
				kernel_drop(t[k].buffer, PAGE_BYTES);
		}
	}
}

static void sigsegv_take(struct engine *e, struct take_page *t, unsigned n)
{
	cover_take(e->sigsegv.limits, t, n);
	deliver(e, t, n);
}

static int sigsegv_save(struct engine *e, struct quire_region *r, char *page, char *buffer,
                        unsigned n)
{
	int error = 0;

	for (unsigned i = 0; i < n && !error; i++)
		error = estate_fetch(e, r, page + ((size_t)i << PAGE_SHIFT));
	if (!error)
		error = sigsegv_get(e->sigsegv.fd, page, buffer, (size_t)n << PAGE_SHIFT);
	return error ? error : (int)n;
}

static int sigsegv_protect_all(struct engine *e, struct quire_region *r, char *page, size_t n)
{
	(void)e;
	return cover_clean(r->cover, page, n);
}

static int sigsegv_drop(struct engine *e, struct quire_region *r, char *page, size_t n)
{
	int error = estate_give(e, r, page, n);

	if (!error)
		error = cover_hide(r->cover, page, n);
	if (error)
		return error;
	estate_forgo(e, r, page, n);
	return punch(e, page, n << PAGE_SHIFT);
}

static bool sigsegv_forbids_write(struct quire_region *r, char *page)
{
	return cover_is_fixed(r->cover, page);
}

static int sigsegv_protect(struct engine *e, struct quire_region *r, char *page, size_t n, int prot)
{
	(void)e;
	return cover_protect(r->cover, page, n, !(prot & PROT_WRITE));
}

/* -------------------------------------------------------------- ranges */

/* Inaccessible, and not filled though the program locks all that is mapped (mlockall). => 0 or -errno */
static int map_file(struct engine *e, char *base, size_t bytes)
{
	void *p = mmap(base, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
	               e->sigsegv.fd, offset_of(base));

	if (p == MAP_FAILED)
		return -errno;
	kernel_madvise(base, bytes, MADV_NOHUGEPAGE);
	return 0;
}

static int sigsegv_attach(struct engine *e, struct quire_region *r, char *base, size_t bytes)
{
	int error = map_file(e, base, bytes);

	if (error)
		return error;
	syscall(SYS_munlock, base, bytes);
	return cover_open(&r->cover, e->sigsegv.limits, base, pages_of(bytes));
}

static void sigsegv_detach(struct engine *e, struct quire_region *r, char *base, size_t bytes)
{
	estate_give_up(e, r, base, pages_of(bytes));
	estate_forgo(e, r, base, pages_of(bytes));
	punch(e, base, bytes);
	cover_close(r->cover);
	r->cover = NULL;
}

static int sigsegv_attach_buffers(struct engine *e, char *base, size_t bytes)
{
	(void)e;
	(void)base;
	(void)bytes;
	return 0;
}

/* ------------------------------------------------------ open and close */

int sigsegv_file(void)
{
	struct rlimit limit;
	int fd;

	/* Beyond it the kernel would send SIGXFSZ. */
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < (rlim_t)FILE_BYTES)
		return error_set(ENOTSUP, "the size of files is limited (ulimit -f), that of a "
		                          "file in memory too");
	fd = (int)syscall(SYS_memfd_create, "quire", 1u /* MFD_CLOEXEC */);
	if (fd < 0)
		return error_set(ENOTSUP, "memfd_create: %s", strerror(errno));
	if (ftruncate(fd, FILE_BYTES) == 0)
		return fd;
	error_set(ENOTSUP, "a file in memory as long as the address space: %s", strerror(errno));
	close(fd);
	return -ENOTSUP;
}

/*
 * Where files in memory are made of huge pages (shmem_enabled), a page that is written
 * would bring hundreds with it: far more than the budget.
 */
static int refuse_huge_pages(struct engine *e)
{
	struct stat st;
	char byte = 1;

	if (sigsegv_put(e->sigsegv.fd, NULL, &byte, 1) != 0 || fstat(e->sigsegv.fd, &st) != 0)
		return error_set(ENOTSUP, "a file in memory: %s", strerror(errno));
	if ((uint64_t)st.st_blocks * 512 <= PAGE_BYTES)
		return 0;
	return error_set(ENOTSUP, "files in memory are made of huge pages here: "
	                          "/sys/kernel/mm/transparent_hugepage/shmem_enabled should be "
	                          "never or advise");
}

static void sigsegv_close(struct engine *e)
{
	struct sigsegv_state *s = &e->sigsegv;

	if (s->started)
		signals_stop(SIGSEGV);
	estates_close(e);
	cover_limits_close(s->limits);
	close(s->fd);
	arena_close(&s->self);
	s->started = false;
}

static int sigsegv_open(struct engine *e, struct quire *q)
{
	struct sigsegv_state *s = &e->sigsegv;
	int error = arena_open(&s->self, sizeof *s->limits, false, "quire engine");

	if (error)
		return error;
	s->fd = sigsegv_file();
	if (s->fd < 0) {
		arena_close(&s->self);
		return s->fd;
	}
	s->limits = s->self.base;
	cover_limits_open(s->limits, s->fd, q->use_guards);
	error = refuse_huge_pages(e);
	/* What both have tried it on. */
	punch(e, NULL, PAGE_BYTES);
	if (error) {
		sigsegv_close(e);
		return error;
	}
	if (!s->limits->guards)
		snprintf(e->notes, sizeof e->notes,
		         "; without guard pages (Linux 6.15): of pages without neighbours at most "
		         "%u MiB are in memory at a time (vm.max_map_count)",
		         s->limits->seams_max / 2 >> (20 - PAGE_SHIFT));
	return 0;
}

static int sigsegv_start(struct engine *e)
{
	/* In a child of fork it is there already. */
	int error = e->sigsegv.started ? 0 : signals_start(SIGSEGV);

	e->sigsegv.started = error == 0;
	return error;
}

/* ----------------------------------------------------------------- fork */

static void sigsegv_fork_in_parent(struct engine *e)
{
	estate_made(e);
	reclaimer_tend(&e->q->pager);
}

static int sigsegv_fork_in_child(struct engine *e)
{
	cover_limits_fork(e->sigsegv.limits);
	return estate_enter(e);
}

static void sigsegv_forsake(struct engine *e, bool started)
{
	(void)started;
	estates_close(e);
	cover_limits_close(e->sigsegv.limits);
	close(e->sigsegv.fd);
}

/* System calls may be given what is pinned. => 0 or -errno */
static int bring_pinned(struct engine *e, struct quire_region *r)
{
	if (!counted(&r->counters.pinned))
		return 0;
	for (uint64_t page = 0; page < r->pages; page++) {
		uint64_t at = region_leaf_touched(r, page) ? atomic_load(region_entry(r, page)) : 0;
		int done = 1;

		if (entry_state(at) == ENTRY_MAPPED &&
		    e->q->pager.frames[entry_payload(at)].pins > 0)
			done = bring(e, r, region_page(r, page), true);
		if (done != 1)
			return done < 0 ? done : -EIO;
	}
	return 0;
}

/* Its place is kept for it (fork.c): the child has none of the mappings. (Nor is anything locked there.) */
static int sigsegv_attach_in_child(struct engine *e, struct quire_region *r)
{
	int error = map_file(e, r->base, r->bytes);

	if (error)
		return error;
	kernel_madvise(r->mapping, r->mapping_bytes, MADV_DONTFORK);
	cover_fork_in_child(r->cover);
	return bring_pinned(e, r);
}

const struct engine_ops engine_sigsegv = {
	.name = "sigsegv",
	.own_mappings = true,
	.in_thread = true,
	.signal = SIGSEGV,
	.costs =
		"the faulting thread serves its faults; system calls on absent pages need the guard",
	.open = sigsegv_open,
	.start = sigsegv_start,
	.close = sigsegv_close,
	.attach = sigsegv_attach,
	.detach = sigsegv_detach,
	.attach_buffers = sigsegv_attach_buffers,
	.map = sigsegv_map,
	.map_zero = sigsegv_map_zero,
	.place = sigsegv_place,
	.unprotect = sigsegv_unprotect,
	.take = sigsegv_take,
	.save = sigsegv_save,
	.protect_all = sigsegv_protect_all,
	.drop = sigsegv_drop,
	.forbids_write = sigsegv_forbids_write,
	.protect = sigsegv_protect,
	.populate = sigsegv_populate,
	.awaits = estate_awaits,
	.bring = sigsegv_bring,
	.tend = estates_tend,
	.fork = estate_make,
	.fork_in_parent = sigsegv_fork_in_parent,
	.fork_in_child = sigsegv_fork_in_child,
	.attach_in_child = sigsegv_attach_in_child,
	.forsake = sigsegv_forsake,
};
