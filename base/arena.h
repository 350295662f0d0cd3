/* SPDX-License-Identifier: MIT */
/*
 * base/arena.h - address space for records that grows as it is touched.
 *
 * An arena is one private (or shared) NORESERVE mapping: reserving costs
 * nothing, a record costs memory when it is first written. Never managed
 * pages, never swapped by us.
 *
 * What is reserved for more than is in use by now stays inaccessible: so the
 * kernel does not fill it when the program locks all its memory (mlockall), and
 * it counts as nobody's data (RLIMIT_DATA). It becomes usable in pieces, large
 * enough to be rare, which join the ones before: the number of mappings does
 * not grow. Two kinds:
 *
 *   an arena in order    records are used from the first on (arena_extend)
 *   a sparse arena       any part may be wanted (sparse_write); what was never
 *                        written reads as zeros
 */
#ifndef QUIRE_BASE_ARENA_H
#define QUIRE_BASE_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The pieces in which an arena becomes usable grow with it, between these. */
#define ARENA_PIECE_MIN ((size_t)256 << 10)
#define ARENA_PIECE_MAX ((size_t)32 << 20)

struct arena {
	void *base;
	size_t bytes;
	size_t usable; /* from base on; of this process. Guarded by the owner */
};

/*
 * All of it usable.
 * => 0, or -ENOMEM with words set: what it is for, how much, and which limit
 *    is in the way. name is shown in /proc/PID/maps where the kernel can
 */
int arena_open(struct arena *a, size_t bytes, bool shared, const char *name);
/* The same, but only a first piece of it. */
int arena_reserve(struct arena *a, size_t bytes, bool shared, const char *name);
void arena_close(struct arena *a);
/* Give the memory back, keep the address space; it reads as zeros again. */
void arena_clear(struct arena *a, size_t offset, size_t bytes);

/*
 * Make sure that the first bytes of it can be used. Async-signal-safe; one
 * caller at a time.
 * => false: the kernel refuses, by a limit of its own or of the program's
 */
bool arena_grow(struct arena *a, size_t bytes);

static inline bool arena_extend(struct arena *a, size_t bytes)
{
	return bytes <= a->usable || arena_grow(a, bytes);
}

/* Each piece is readable, and writable once somebody asked for it. */
struct sparse_arena {
	struct arena arena;
	size_t piece;
	_Atomic uint64_t writable; /* bit i: piece i */
};

int sparse_open(struct sparse_arena *s, size_t bytes, const char *name);
void sparse_close(struct sparse_arena *s);

bool sparse_allow(struct sparse_arena *s, size_t offset);

/* Make sure that what lies at offset can be written. Async-signal-safe, any thread. => as arena_extend */
static inline bool sparse_write(struct sparse_arena *s, size_t offset)
{
	return (atomic_load_explicit(&s->writable, memory_order_relaxed) >> offset / s->piece &
	        1) ||
	       sparse_allow(s, offset);
}

/*
 * Where address space is limited (ulimit -v): what one part of a pager should
 * leave to the others and to the program. => bytes; SIZE_MAX without a limit
 */
size_t arena_share(void);
/* For the end of a message about what needs address space and failed: names the limit, or "". */
const char *arena_hint(void);
/* Could so much be reserved just now? */
bool arena_fits(size_t bytes);

/* Words for a kernel_reserve that failed, errno being as it left it. => -ENOMEM */
int arena_refused(const char *name, size_t bytes);

#endif
