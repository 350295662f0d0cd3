/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd_take.c - removing pages and delivering their bytes.
 *
 * Three ways, chosen for each page of a batch:
 *
 *   move  UFFDIO_MOVE takes the page itself, atomically against writers
 *         (uffd_move.c), and refuses pages that the kernel has pinned for
 *         I/O. One call, and one TLB shootdown, a run.
 *   copy  write-protect (dirty pages; a clean one is so already), copy, drop:
 *         one call of each kind for the whole batch, so one shootdown even if
 *         the pages are scattered.
 *   drop  clean pages whose bytes are not wanted, by the same call as those that
 *         were copied; whether they are there still is asked of mincore(2).
 *
 * Scattered pages are copied where that is safe: clean pages (nobody
 * can have them pinned for writing: that would have been a first write), but by a
 * handler that could not do so without waiting;
 * dirty ones under an in-thread engine, whose contract is that memory given to
 * the kernel is pinned with quire_pin. Otherwise dirty pages are moved, unless
 * the kernel cannot.
 */
#include "vm/uffd.h"

#include "base/kernel.h"
#include "base/thread.h"
#include "vm/vm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

SIGNAL_SAFE_TLS bool thread_is_handler;

/* From this length on a run is moved in any case. */
#define MOVE_RUN 4u

void uffd_reading_begin(struct engine *e, struct uffd_reader *me, struct take_page **pages,
                        unsigned n)
{
	*me = (struct uffd_reader){ .tid = thread_id(), .pages = pages, .count = n };
	lock_acquire(&e->uffd.reading_lock);
	me->next = e->uffd.readers;
	e->uffd.readers = me;
	lock_release(&e->uffd.reading_lock);
}

void uffd_reading_end(struct engine *e, struct uffd_reader *me)
{
	struct uffd_reader **at = &e->uffd.readers;

	lock_acquire(&e->uffd.reading_lock);
	while (*at != me)
		at = &(*at)->next;
	*at = me->next;
	lock_release(&e->uffd.reading_lock);
}

static bool reads(const struct uffd_reader *reader, int32_t tid, const char *page)
{
	for (unsigned i = 0; reader->tid == tid && i < reader->count; i++)
		if (reader->pages[i]->page == page)
			return true;
	return false;
}

bool uffd_answer_reader(struct engine *e, const struct uffd_access *a)
{
	char *page = (char *)((uintptr_t)a->address & ~(uintptr_t)(PAGE_BYTES - 1));
	struct uffd_reader *reader;

	/* Held while the zeros go in: the page is not dropped, nor its entry published, before. */
	lock_acquire(&e->uffd.reading_lock);
	for (reader = e->uffd.readers; reader && !reads(reader, a->tid, page);
	     reader = reader->next)
		;
	if (reader)
		uffd_map(e, NULL, page, e->uffd.zeros, 1, a->write);
	lock_release(&e->uffd.reading_lock);
	if (reader)
		uffd_wake(e, page, 1);
	return reader != NULL;
}

/*
 * EBUSY: shared with a child of fork(2), or pinned. Writing to a shared page
 * makes it our own again, and MADV_POPULATE_WRITE writes without changing it.
 */
static bool make_own(struct engine *e, struct take_page *p)
{
	struct uffd_reader me;
	bool done;

	/* A shared one must not be writable for a moment. */
	if (!p->dirty || p->shared)
		return false;
	uffd_unprotect(e, NULL, p->page, 1);
	uffd_reading_begin(e, &me, &p, 1);
	done = kernel_madvise(p->page, PAGE_BYTES, MADV_POPULATE_WRITE) == 0;
	uffd_reading_end(e, &me);
	return done;
}

/* MADV_COLD is refused for locked memory, and does no harm to other. */
static bool is_locked(char *at)
{
	return kernel_madvise(at, PAGE_BYTES, MADV_COLD) != 0 && errno == EINVAL;
}

/*
 * EINVAL: the kernel moves no page between memory that is locked and memory that
 * is not. The program has locked a region (mlock), or all it had before it made
 * the region (mlockall). A page that the kernel may be writing to must not be
 * copied for that; and a lock does not keep pages of ours anyway (quire.h).
 * => the two are alike now; false: they were
 */
static bool unlock(struct engine *e, struct take_page *p)
{
	bool page = is_locked(p->page), buffer = is_locked(p->buffer);

	if (page == buffer)
		return false;
	if (buffer)
		return syscall(SYS_munlock, e->q->buffer_arena.base, e->q->buffer_arena.bytes) == 0;
	return syscall(SYS_munlock, p->region->base, p->region->bytes) == 0;
}

/*
 * Empty the buffers of a run: UFFDIO_MOVE wants nothing at its target, and who
 * asks for that has nothing of value there. => false: some keep their memory
 */
static bool empty_buffers(const struct take_page *pages, unsigned n)
{
	for (unsigned i = 0, end; i < n; i = end) {
		for (end = i + 1; end < n && pages[end].backed == pages[i].backed; end++)
			;
		if (pages[i].backed &&
		    kernel_drop(pages[i].buffer, (size_t)(end - i) << PAGE_SHIFT) != 0)
			return false;
	}
	return true;
}

/*
 * Move pages[0 .. n), a run. Those that stay are TAKE_KEPT; copy_it[i]: only
 * because the kernel does not move pages of such a mapping (the program made it
 * read-only), so copying is right.
 */
static void move_run(struct engine *e, struct take_page *pages, bool *copy_it, unsigned n)
{
	bool owned = false, emptied = false, unlocked = false;
	unsigned part = n;

	if (!empty_buffers(pages, n))
		return;
	for (unsigned i = 0; i < n;) {
		unsigned length = MIN(part, n - i);
		int error;
		unsigned done = uffd_move_out(e, pages[i].buffer, pages[i].page, length, &error);

		for (unsigned k = i; k < i + done; k++) {
			pages[k].result = TAKE_DONE;
			pages[k].moved = true;
		}
		i += done;
		if (done)
			owned = emptied = false;
		if (i == n || done)
			continue;
		switch (error) {
		case ENOENT:
			pages[i].result = TAKE_GONE;
			break;
		case EEXIST:
			/* The program has locked all its memory (mlockall): there are zeros. */
			if (!emptied && kernel_drop(pages[i].buffer, PAGE_BYTES) == 0) {
				emptied = true;
				continue;
			}
			break;
		case EBUSY:
			if (!owned && make_own(e, &pages[i])) {
				owned = true;
				continue;
			}
			copy_it[i] = pages[i].given_up;
			break;
		case EINVAL:
			/* The run crosses from one mapping into another. */
			if (length > 1) {
				part = length / 2;
				continue;
			}
			if (!unlocked && unlock(e, &pages[i])) {
				unlocked = true;
				part = n;
				continue;
			}
			copy_it[i] = true;
			break;
		default:
			break;
		}
		/* TAKE_KEPT or TAKE_GONE: go on behind it. */
		i++;
		owned = emptied = false;
	}
}

/* Write-protect the dirty ones, joined pages by one call. => false: at least one could not be */
static bool protect(struct engine *e, struct take_page **list, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		unsigned first = i, last = i;

		if (!list[i]->dirty)
			continue;
		while (i + 1 < n && list[i + 1]->joined && list[i + 1] == list[i] + 1) {
			i++;
			if (list[i]->dirty)
				last = i;
		}
		if (uffd_protection(e, list[first]->page,
		                    pages_of((size_t)(list[last]->page - list[first]->page)) + 1,
		                    true) == 0)
			continue;
		/* Older kernels refuse a range that is not one mapping: one by one. */
		for (unsigned k = first; k <= last; k++)
			if (list[k]->dirty && uffd_protection(e, list[k]->page, 1, true) != 0)
				return false;
	}
	return true;
}

/*
 * Is it that there is no page? It may be there and out of reach: PROT_NONE, on the
 * kernel's own swap, or a read error of that. To be sure, put a page of zeros there:
 * the kernel says EEXIST if anything is, and what else it may say (it is short of
 * memory) tells nothing. It is write-protected, so a write of the program's waits for
 * our entry and is not in the page that we drop again; and zeros are what a read has
 * to give. Locked memory may not be dropped (before Linux 5.18): then they stay.
 * => there, if the page is; else as things stand now
 */
static enum take_result probe(struct engine *e, char *page, enum take_result there)
{
	int n = uffd_map(e, NULL, page, e->uffd.zeros, 1, false);

	if (n == -EEXIST)
		return there;
	if (n != 1)
		return TAKE_KEPT;
	return kernel_drop(page, PAGE_BYTES) == 0 ? TAKE_GONE : TAKE_ZEROS;
}

static unsigned choose(struct take_page **all, unsigned n, bool wanted, struct take_page **list)
{
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++)
		if (all[i]->wanted == wanted)
			list[k++] = all[i];
	return k;
}

static bool in_core(char *page)
{
	unsigned char vector = 0;

	return mincore(page, PAGE_BYTES, &vector) == 0 && (vector & 1);
}

/*
 * One page. Through the file nobody waits for what is not there. A handler without it looks first; then
 * only a discard that the program hides from us, in between, would have it wait for itself.
 * => false: it is not there, or cannot be read
 */
static bool read_page(struct engine *e, char *page, char *buffer)
{
	struct iovec local = { buffer, PAGE_BYTES }, remote = { page, PAGE_BYTES };

	if (e->uffd.memory >= 0)
		return pread(e->uffd.memory, buffer, PAGE_BYTES, (off_t)(uintptr_t)page) ==
		       (ssize_t)PAGE_BYTES;
	return in_core(page) && kernel_call(SYS_process_vm_readv, getpid(), &local, 1L, &remote, 1L,
	                                    0L) == (long)PAGE_BYTES;
}

static void copy_by_handler(struct engine *e, struct take_page **list, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		list[i]->result = read_page(e, list[i]->page, list[i]->buffer) ?
		                          TAKE_DONE :
		                          probe(e, list[i]->page, TAKE_KEPT);
}

/* Read the pages' bytes without touching them ourselves: a page that is not there is an error, not a fault. */
static void copy(struct engine *e, struct take_page **all, unsigned n)
{
	struct iovec local[CLUSTER_PAGES], remote[CLUSTER_PAGES];
	struct take_page *list[CLUSTER_PAGES];
	struct uffd_reader me;
	pid_t self = getpid();

	n = choose(all, n, true, list);
	if (n == 0)
		return;
	if (thread_is_handler) {
		copy_by_handler(e, list, n);
		return;
	}
	uffd_reading_begin(e, &me, list, n);
	for (unsigned i = 0; i < n;) {
		unsigned k = 0;
		long got;

		for (unsigned j = i; j < n; j++, k++) {
			local[k] = (struct iovec){ list[j]->buffer, PAGE_BYTES };
			remote[k] = (struct iovec){ list[j]->page, PAGE_BYTES };
		}
		got = kernel_call(SYS_process_vm_readv, self, local, k, remote, k, 0);
		if (got < 0 && errno != EFAULT)
			break; /* all that is left is kept */
		for (got = MAX(got, 0); got >= (long)PAGE_BYTES; got -= (long)PAGE_BYTES)
			list[i++]->result = TAKE_DONE;
		if (i < n) {
			list[i]->result = probe(e, list[i]->page, TAKE_KEPT);
			i++;
		}
	}
	uffd_reading_end(e, &me);
}

/*
 * Buffers without memory are filled by the kernel with one call; to copy into them would be faults of
 * the kernel's in the middle of another. Not by a handler, nor by who may wait for one: here the
 * kernel waits for a page that is absent. => how many; 0: not so
 */
static unsigned fill_buffers(struct engine *e, char *page, char *buffer, unsigned n)
{
	const struct arena *buffers = &e->q->buffer_arena;
	size_t at = (size_t)(buffer - (char *)buffers->base);
	struct uffdio_copy c = { .dst = (uintptr_t)buffer,
		                 .src = (uintptr_t)page,
		                 .len = (uint64_t)n << PAGE_SHIFT };

	if (!e->uffd.move || at >= buffers->bytes)
		return 0;
	if (ioctl(e->uffd.fd, UFFDIO_COPY, &c) == 0)
		return n;
	return c.copy > 0 ? (unsigned)(c.copy >> PAGE_SHIFT) : 0;
}

/* Through the file nobody waits for a page that is not there: it is an error. => how many; 0: the first is not */
static unsigned read_pages(struct engine *e, const char *page, char *buffer, unsigned n)
{
	size_t bytes = (size_t)n << PAGE_SHIFT;
	ssize_t got;

	if (e->uffd.memory < 0)
		return 0;
	/* All buffers at once: else each is a fault of the kernel's in the middle of the copy. */
	if (n > 1)
		kernel_madvise(buffer, bytes, MADV_POPULATE_WRITE);
	got = pread(e->uffd.memory, buffer, bytes, (off_t)(uintptr_t)page);
	return (unsigned)(MAX(got, 0) >> PAGE_SHIFT);
}

int uffd_save(struct engine *e, struct quire_region *r, char *page, char *buffer, unsigned n)
{
	struct iovec local = { buffer, PAGE_BYTES }, remote = { page, PAGE_BYTES };
	struct take_page t = { .region = r, .page = page, .buffer = buffer }, *list = &t;
	unsigned saved = e->ops->in_thread ? fill_buffers(e, page, buffer, n) :
	                                     read_pages(e, page, buffer, n);
	struct uffd_reader me;
	long got;
	int error;

	if (saved)
		return (int)saved;
	if (e->uffd.memory >= 0 || thread_is_handler) {
		if (e->uffd.memory < 0 && read_page(e, page, buffer))
			return 1;
		return probe(e, page, TAKE_KEPT) == TAKE_GONE ? -ENOENT : -EACCES;
	}
	uffd_reading_begin(e, &me, &list, 1);
	got = kernel_call(SYS_process_vm_readv, getpid(), &local, 1L, &remote, 1L, 0L);
	error = got < 0 ? errno : 0;
	uffd_reading_end(e, &me);
	if (got == (long)PAGE_BYTES)
		return 1;
	if (error && error != EFAULT)
		return -error;
	return probe(e, page, TAKE_KEPT) == TAKE_GONE ? -ENOENT : -EACCES;
}

/* Pages that one call of mincore tells of. */
#define SPAN 256u

/*
 * Pages whose bytes are not wanted: are they there? The program may have discarded one, whose
 * contents are zeros now. Not in memory may also mean: on the kernel's own swap.
 */
static void look_for(struct engine *e, struct take_page **all, unsigned n)
{
	struct take_page *list[CLUSTER_PAGES];
	unsigned char there[SPAN];

	n = choose(all, n, false, list);

	for (unsigned i = 0, end; i < n; i = end) {
		char *first = list[i]->page;
		size_t span;

		for (end = i + 1; end < n && list[end]->page > first &&
		                  list[end]->page < first + SPAN * PAGE_BYTES;
		     end++)
			;
		span = pages_of((size_t)(list[end - 1]->page - first)) + 1;
		if (mincore(first, span << PAGE_SHIFT, there) != 0)
			memset(there, 0, span);
		for (unsigned k = i; k < end; k++) {
			bool present = there[pages_of((size_t)(list[k]->page - first))] & 1;

			list[k]->result = present ? TAKE_DONE : probe(e, list[k]->page, TAKE_DONE);
		}
	}
}

/*
 * Pages that the kernel does not drop (locked with mlock, before Linux 5.18) stay; their copies go.
 * Of a range that it refused some may be gone all the same: it has come as far as the first that is locked.
 */
static void keep(struct take_page **list, unsigned n, char *base, size_t bytes)
{
	for (unsigned i = 0; i < n; i++) {
		if (list[i]->page < base || list[i]->page >= base + bytes ||
		    kernel_drop(list[i]->page, PAGE_BYTES) == 0)
			continue;
		list[i]->result = TAKE_KEPT;
		if (!list[i]->wanted)
			continue;
		/* Perhaps the handler's, for a page that was not there: not what its slot holds. */
		if (page_is_zero(list[i]->buffer))
			list[i]->result = TAKE_ZEROS;
		kernel_drop(list[i]->buffer, PAGE_BYTES);
	}
}

static void drop(struct engine *e, struct take_page **list, unsigned n)
{
	struct iovec v[CLUSTER_PAGES];
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++) {
		if (list[i]->result != TAKE_DONE)
			continue;
		if (k && (char *)v[k - 1].iov_base + v[k - 1].iov_len == list[i]->page)
			v[k - 1].iov_len += PAGE_BYTES;
		else
			v[k++] = (struct iovec){ list[i]->page, PAGE_BYTES };
	}
	if (k > 1 && e->uffd.vector_drop) {
		size_t all = 0;

		for (unsigned i = 0; i < k; i++)
			all += v[i].iov_len;
		if (syscall(SYS_process_madvise, e->uffd.pidfd, v, k, MADV_DONTNEED, 0) ==
		    (long)all)
			return;
	}
	for (unsigned i = 0; i < k; i++)
		if (kernel_drop(v[i].iov_base, v[i].iov_len) != 0)
			keep(list, n, v[i].iov_base, v[i].iov_len);
}

/*
 * Until the page is dropped there are two: for the second there must be a credit,
 * or the budget would be exceeded. Where there is none (pages by the move of which
 * that was not expected, or not one credit left) one goes beyond it, lest nothing
 * goes at all; other clean ones are dropped, other dirty ones stay.
 */
static bool may_copy(struct take_page *p, unsigned *twice)
{
	if (!p->wanted || p->backed || (*twice)++ == 0)
		return true;
	if (p->dirty) {
		p->result = TAKE_LATER;
		return false;
	}
	p->wanted = false;
	p->buffer = NULL;
	return true;
}

void uffd_take(struct engine *e, struct take_page *pages, unsigned n)
{
	struct take_page *list[CLUSTER_PAGES];
	bool copy_it[CLUSTER_PAGES];
	unsigned copied = 0, twice = 0;
	bool moves = thread_is_handler && e->uffd.memory < 0;

	for (unsigned i = 0, end; i < n; i = end) {
		bool run;

		for (end = i + 1; end < n && pages[end].page == pages[end - 1].page + PAGE_BYTES &&
		                  pages[end].wanted == pages[i].wanted;
		     end++)
			;
		run = end - i >= MOVE_RUN && pages[i].wanted;
		for (unsigned k = i; k < end; k++)
			copy_it[k] = !e->uffd.move ||
			             !((moves && pages[k].wanted) ||
			               (pages[k].dirty &&
			                (run || !e->ops->in_thread || !pages[k].backed)));
		if (e->uffd.move && run)
			move_run(e, &pages[i], &copy_it[i], end - i);
		for (unsigned k = i; k < end; k++)
			if (!run && !copy_it[k])
				move_run(e, &pages[k], &copy_it[k], 1);
	}
	/* A dirty page that could not be moved is pinned by the kernel: it stays. */
	for (unsigned i = 0; i < n; i++)
		if (pages[i].result == TAKE_KEPT && copy_it[i] && may_copy(&pages[i], &twice))
			list[copied++] = &pages[i];
	if (copied == 0 || !protect(e, list, copied))
		return;
	copy(e, list, copied);
	look_for(e, list, copied);
	drop(e, list, copied);
}
