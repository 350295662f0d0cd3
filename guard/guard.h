/* SPDX-License-Identifier: MIT */
/*
 * guard/guard.h - the door of guard/: system calls on memory that is not there.
 *
 * Where faults are served by the faulting thread (uffd-signal, sigsegv), the kernel
 * does not wait for a page that a system call wants: the call fails with EFAULT.
 * The guard serves such calls. Memory that it guards lies in one window of the
 * address space, the same in every program; a seccomp filter sends calls whose
 * pointers are in the window to a handler of SIGSYS, which makes the call on
 * copies in ordinary memory. So the kernel never touches the window; faults on it
 * are taken by the guard's own copying, on the thread that made the call.
 *
 *   calls.c      the table: which arguments of a call are pointers, and to how much
 *   filter.c     the table compiled for the kernel, and installed
 *   trap.c       SIGSYS; calls made in place, by way of a page that the filter knows
 *   serve.c      one call, by its row of the table
 *   transfer.c   read, write, readv and their like      message.c   sendmsg and its like
 *   vector.c     lists of segments
 *   special.c    calls whose arguments depend on each other       exec.c   execve
 *   wrappers.c   libc's functions for pointers that the filter cannot see
 *   spawn.c      ... and those that start programs: in the shared library only
 *   scratch.c    memory for copies     copy.c   copying that a bad address ends
 *   figures.c    what was served
 *
 * Knows no pages: that an address is managed shows by what happens when it is
 * touched. Nothing here takes a lock, mallocs, or holds anything of the program's
 * while a call blocks; a signal handler may interrupt it anywhere, make guarded
 * calls of its own and never return (siglongjmp, pthread_exit).
 *
 * x86-64 only, so far.
 */
#ifndef QUIRE_GUARD_GUARD_H
#define QUIRE_GUARD_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * 104 to 108 TiB: above what runtimes ask for by address, at random or not (46 bits), and
 * where programs are loaded; below where the kernel begins to map downwards. (A filter
 * is inherited: a program that is executed and has no handler would be killed for a
 * call on its own memory there.) Never changed lightly, for the same reason.
 */
#define GUARD_WINDOW_SHIFT 42
#define GUARD_WINDOW UINT64_C(0x680000000000)
#define GUARD_WINDOW_BYTES (UINT64_C(1) << GUARD_WINDOW_SHIFT)

static inline bool guard_in_window(uint64_t address)
{
	return address >> GUARD_WINDOW_SHIFT == GUARD_WINDOW >> GUARD_WINDOW_SHIFT;
}

/* What the guard wants of who manages the window. Async-signal-safe, both. */
struct guard_pager {
	/* Keep the page at this address resident and writable. => 0 or -errno */
	int (*pin)(void *page);
	void (*unpin)(void *page);
	/* From there to the end of what is managed, in bytes; 0: it is not. */
	size_t (*extent)(const void *address);
};

/*
 * Install handler and filter, once for the process and all its threads; there is
 * no way to remove a filter. Not async-signal-safe.
 * => 0, or -errno with words: the kernel or a filter does not allow it
 */
int guard_start(const struct guard_pager *pager);
/* Async-signal-safe. */
bool guard_is_on(void);
/* Would it be allowed? Nothing is installed. => 0 or an errno */
int guard_probe(void);

/*
 * A fault that cannot be served: was it the guard's copying? Then that ends, short,
 * when the handler returns with this context.
 */
bool guard_copy_ends(void *context);
/* A SIGSYS: of the guard's? Then it is served. */
bool guard_handle_signal(void *info, void *context);

/* ------------------------------------------------------------- figures */

struct guard_figure {
	int number;       /* of the call */
	const char *name; /* "number 4711" is NULL */
	bool known;       /* it was served by what its row of the table says */
	uint64_t count;
};

/* The calls that were served, by number, from *at on. => false: no more */
bool guard_figure(unsigned *at, struct guard_figure *out);
/* All of them; *unknown: how many of those were not. */
uint64_t guard_served(uint64_t *unknown);

#endif
