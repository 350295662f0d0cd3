/* SPDX-License-Identifier: MIT */
/*
 * preload/preload.h - the inside of libquire-preload.so, with which `quire run` gives a program that
 * was never changed a heap on paged memory. A client of quire.h alone.
 *
 *   start.c    opens the pager and the heap, before any other library's constructors; says what went wrong
 *   malloc.c   malloc and its like, in place of libc's
 *   inner.c    memory for what libc allocates on behalf of Quire itself
 *   libc.c     what of libc's must not be paged
 *   signals.c  the signals that faults come as stay Quire's
 *   child.c    the budget of a process that the program has forked
 *   end.c      statistics, when the program ends
 *
 * What `quire run` decides it says in the environment, for this program and those that it starts:
 * QUIRE_MEMORY and its like as for any program, and QUIRE_RUN_*, see start.c.
 */
#ifndef QUIRE_PRELOAD_H
#define QUIRE_PRELOAD_H

#include <quire.h>

#include <stdbool.h>
#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))

/* How malloc is served. */
enum preload_state {
	STARTING, /* by inner.c: ld.so and our constructor */
	PAGED,    /* by the heap */
	UNPAGED   /* by libc */
};

extern enum preload_state preload_state; /* set by start.c, before there is a second thread */
extern quire_t *preload_pager;           /* these two: in state PAGED */
extern quire_heap_t *preload_heap;

/* Libc's functions behind those that are replaced: first of all. */
void malloc_find_libc(void);
void signals_find_libc(void);
void libc_find(void);

/* libc.c: is what is being allocated for libc's own tables, or for ld.so? caller: of malloc */
bool libc_keeps(const void *caller);

/*
 * inner.c: whole pages of a small range of addresses, without locks, so that a thread in the middle of Quire
 * may have it while another forks. => NULL: there is none left
 */
void *inner_alloc(size_t size, size_t alignment);
bool inner_has(const void *p);
size_t inner_size(const void *p);
void inner_free(void *p);

/* child.c: once, after the pager and the heap have been opened, and so after their handlers of fork */
void child_prepare(void);

/* end.c: what is to be printed at the end; once, by the process that has been told to. */
void end_prepare(void);

#endif
