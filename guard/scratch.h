/* SPDX-License-Identifier: MIT */
/*
 * guard/scratch.h - memory for the copies of one call, and the pins that it holds.
 *
 * Little is in the caller's frame; more is a slot of the process's, and in ordinary
 * mappings of its own where a slot is too small. A call that is left by siglongjmp or
 * by the end of its thread cannot give its slot back. So each writes a number of its
 * own into its frame: where a slot's number is no longer there, the frame has gone;
 * where it is, the call may be under way. Signals are blocked in all of this.
 */
#ifndef QUIRE_GUARD_SCRATCH_H
#define QUIRE_GUARD_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* At most so many bytes are copied for one turn of a call that can be made in turns. */
#define SCRATCH_PIECE ((size_t)128 << 10)
#define SCRATCH_INSIDE 768
#define SCRATCH_ANY SIZE_MAX
#define SCRATCH_PINS 12

struct slot;

struct scratch {
	_Atomic unsigned long number; /* 0: no slot */
	struct slot *slot;
	size_t inside_used;
	_Alignas(16) char inside[SCRATCH_INSIDE];
};

/* s: in the frame of the caller, who closes it. */
void scratch_open(struct scratch *s);
void scratch_close(struct scratch *s);
/*
 * offset: where in a page it is to begin, or SCRATCH_ANY. Not cleared.
 * => NULL: no memory
 */
void *scratch_get(struct scratch *s, size_t bytes, size_t offset);
/* For the next turn: what was got since the mark, but for what is inside, is free again. */
struct scratch_mark {
	size_t used;
	void *extra;
	size_t extra_used;
};
struct scratch_mark scratch_mark(const struct scratch *s);
void scratch_return(struct scratch *s, struct scratch_mark mark);
/* Pin the page until the scratch is closed. => 0 or -errno */
int scratch_pin(struct scratch *s, uintptr_t page);

/* guard_pager.extent */
size_t scratch_extent(const void *address);

struct guard_pager;
void scratch_start(const struct guard_pager *pager);

#endif
