/* SPDX-License-Identifier: MIT */
/* base/arena.c - see arena.h. */
#include "base/arena.h"

#include "base/base.h"
#include "base/error.h"
#include "base/kernel.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/*
 * Open a part of what was reserved. If the program has locked it with the rest
 * (mlockall), the kernel would fill it as it becomes writable: so its lock is
 * taken away before, and put back as one on what is touched. (The buffers must
 * be locked if the regions are: UFFDIO_MOVE wants both alike.) MADV_COLD does
 * nothing to memory that is not there, and refuses what is locked.
 */
static bool allow(char *at, size_t bytes)
{
	bool locked = kernel_madvise(at, bytes, MADV_COLD) != 0 && errno == EINVAL;

	if (locked)
		syscall(SYS_munlock, at, bytes);
	if (mprotect(at, bytes, PROT_READ | PROT_WRITE) != 0)
		return false;
	if (locked)
		syscall(SYS_mlock2, at, bytes, MLOCK_ONFAULT);
	return true;
}

size_t arena_share(void)
{
	struct rlimit space = { RLIM_INFINITY, RLIM_INFINITY };

	getrlimit(RLIMIT_AS, &space);
	return space.rlim_cur == RLIM_INFINITY ? SIZE_MAX : (size_t)space.rlim_cur / 4;
}

const char *arena_hint(void)
{
	return arena_share() == SIZE_MAX ? "" : " (address space is limited: ulimit -v)";
}

bool arena_fits(size_t bytes)
{
	void *p = kernel_reserve(bytes, MAP_PRIVATE);

	if (p)
		munmap(p, bytes);
	return p;
}

int arena_refused(const char *name, size_t bytes)
{
	int cause = errno;
	struct rlimit space = { RLIM_INFINITY, RLIM_INFINITY }, locked = space;

	getrlimit(RLIMIT_AS, &space);
	getrlimit(RLIMIT_MEMLOCK, &locked);
	if (cause == EAGAIN)
		return error_set(
			ENOMEM,
			"no address space for \"%s\": it wants %zu bytes, which count as "
			"locked after mlockall(MCL_FUTURE), and RLIMIT_MEMLOCK (ulimit -l) "
			"is %llu bytes",
			name, bytes, (unsigned long long)locked.rlim_cur);
	if (space.rlim_cur != RLIM_INFINITY)
		return error_set(ENOMEM,
		                 "no address space for \"%s\": it wants %zu bytes, and RLIMIT_AS "
		                 "(ulimit -v) is %llu bytes",
		                 name, bytes, (unsigned long long)space.rlim_cur);
	return error_set(ENOMEM, "no address space for \"%s\": it wants %zu bytes; mmap: %s", name,
	                 bytes, strerror(cause));
}

/* It is reserved and cannot be used. => -ENOMEM */
static int not_allowed(const char *name, size_t bytes)
{
	int cause = errno;
	struct rlimit data = { RLIM_INFINITY, RLIM_INFINITY };

	getrlimit(RLIMIT_DATA, &data);
	if (data.rlim_cur != RLIM_INFINITY)
		return error_set(
			ENOMEM,
			"no memory for \"%s\": it wants %zu bytes, and RLIMIT_DATA (ulimit "
			"-d) is %llu bytes",
			name, bytes, (unsigned long long)data.rlim_cur);
	return error_set(ENOMEM,
	                 "no memory for \"%s\": it wants %zu bytes; mprotect: %s (too many "
	                 "mappings, or vm.overcommit_memory=2?)",
	                 name, bytes, strerror(cause));
}

static int open_first(struct arena *a, size_t bytes, size_t usable, bool shared, const char *name)
{
	const char *what = name ? name : "records";

	a->bytes = round_up(bytes, PAGE_BYTES);
	a->usable = MIN(round_up(usable, PAGE_BYTES), a->bytes);
	a->base = kernel_reserve(a->bytes, shared ? MAP_SHARED : MAP_PRIVATE);
	if (!a->base)
		return arena_refused(what, bytes);
	if (!allow(a->base, a->usable)) {
		int error = not_allowed(what, a->usable);

		arena_close(a);
		return error;
	}
	/* Records are counted page by page: a huge page would break the count and the budget. */
	kernel_madvise(a->base, a->bytes, MADV_NOHUGEPAGE);
	if (!shared && name)
		prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, a->base, a->bytes, name);
	return 0;
}

int arena_open(struct arena *a, size_t bytes, bool shared, const char *name)
{
	return open_first(a, bytes, bytes, shared, name);
}

int arena_reserve(struct arena *a, size_t bytes, bool shared, const char *name)
{
	return open_first(a, bytes, ARENA_PIECE_MIN, shared, name);
}

void arena_close(struct arena *a)
{
	void *base = a->base;

	/* First: a child that is forked in between would unmap what is mapped there by then. */
	a->base = NULL;
	if (base)
		munmap(base, a->bytes);
}

void arena_clear(struct arena *a, size_t offset, size_t bytes)
{
	kernel_drop((char *)a->base + offset, bytes);
}

bool arena_grow(struct arena *a, size_t bytes)
{
	size_t piece = MAX(MIN(a->usable, ARENA_PIECE_MAX), ARENA_PIECE_MIN);
	size_t least = round_up(bytes, PAGE_BYTES), to = MAX(least, a->usable + piece);

	if (bytes > a->bytes)
		return false;
	to = MIN(to, a->bytes);
	if (!allow((char *)a->base + a->usable, to - a->usable)) {
		/* A limit may leave room for less. */
		to = least;
		if (!allow((char *)a->base + a->usable, to - a->usable))
			return false;
	}
	a->usable = to;
	return true;
}

/*
 * A sixteenth, where that is no more than ARENA_PIECE_MAX: a piece between two
 * that are not writable costs two mappings. There are sixty-four bits.
 */
static size_t piece_of(size_t bytes)
{
	size_t piece = MIN(bytes / 16, ARENA_PIECE_MAX);

	return round_up(MAX(MAX(piece, (bytes + 63) / 64), ARENA_PIECE_MIN), PAGE_BYTES);
}

/*
 * The kernel makes one mapping of neighbours only if their pages were first
 * written when they were one already. So a page is, before the pieces part.
 */
int sparse_open(struct sparse_arena *s, size_t bytes, const char *name)
{
	int error = arena_open(&s->arena, bytes, false, name);
	volatile char *first = s->arena.base;

	s->piece = piece_of(bytes);
	atomic_store(&s->writable, 1);
	if (error || s->piece >= s->arena.bytes)
		return error;
	*first = 1;
	kernel_drop(s->arena.base, PAGE_BYTES);
	if (mprotect((char *)s->arena.base + s->piece, s->arena.bytes - s->piece, PROT_READ) != 0) {
		error = not_allowed(name, bytes);
		arena_close(&s->arena);
	}
	return error;
}

void sparse_close(struct sparse_arena *s)
{
	arena_close(&s->arena);
}

bool sparse_allow(struct sparse_arena *s, size_t offset)
{
	size_t at = offset / s->piece * s->piece;

	if (allow((char *)s->arena.base + at, MIN(s->piece, s->arena.bytes - at))) {
		atomic_fetch_or(&s->writable, UINT64_C(1) << offset / s->piece);
		return true;
	}
	/* A piece between others takes one mapping more; all of it takes none. */
	if (!allow(s->arena.base, s->arena.bytes))
		return false;
	atomic_store(&s->writable, UINT64_MAX);
	return true;
}
