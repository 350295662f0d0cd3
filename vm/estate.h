/* SPDX-License-Identifier: MIT */
/*
 * vm/estate.h - the engine sigsegv and fork(2): pages that a child still has in its
 * parent's file.
 *
 * Regions are shared mappings of a file in memory, so the kernel shares nothing
 * copy-on-write here: each process has a file of its own, and the estate says of
 * which pages the child's bytes are in the parent's still. At the fork all that is
 * mapped is *owed*, and write-protected in the parent. From then on
 *
 *   the child    fetches a page when it wants its bytes, or forgoes it
 *   the parent   gives the child a page before its own bytes change
 *
 * whichever comes first; so nothing is copied that neither of them touches, and of what
 * is, one copy is made, as by the kernel. A word in memory shared by both says who is at it:
 *
 *            fetch, forgo (the child)
 *     OWED ------------------------------> 0
 *       |                                  ^
 *       +---> GIVING (the parent) ---------+        (---> LOST: no memory, in destroy alone)
 *
 * X1  The parent's bytes of a page do not change while it is OWED or GIVING. So the child
 *     reads them first and then takes the word from OWED to 0: if that succeeds, what it has
 *     read is right, and the parent writes to the child's file no more. The parent never
 *     waits for the child.
 * X2  The child waits while it is GIVING, for the time of a copy; if the parent is gone
 *     then, it never came to change its bytes, and the child fetches them.
 * X3  In the child a page that was mapped at the fork is *awaited*: its entry says MAPPED, it
 *     is hidden, its bytes are owed or in the child's file. It is shown by the first fault, or
 *     is evicted as it is.
 *
 * Whose file it is ends with the process that has it, and with those that may want something of it: now and
 * then (estates_tend) the parent asks whether its children live, and empties the files of those
 * that do not; a child that is owed nothing gives up its parent's, and one whose parent has gone
 * takes all that it is owed, a piece at a time.
 *
 * A child that forks has fetched all that it is owed before: estates do not chain.
 * Pages are those of entries that the caller holds, or of a standstill.
 */
#ifndef QUIRE_VM_ESTATE_H
#define QUIRE_VM_ESTATE_H

#include "base/arena.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct engine;
struct quire_region;

/* Children at a time that are owed something; for one more the oldest is given all. */
#define HEIRS_MAX 8u

/* A child, in its parent. */
struct heir {
	struct arena memory; /* the estate */
	int fd;              /* the child's file */
	int own;    /* the child's description of it, which is its presence; -1: there is none */
	bool tells; /* whether it is there */
	_Atomic bool gone;
	_Atomic uint32_t given;
};

/* What a process of the engine has of this. */
struct estates {
	struct heir heir[HEIRS_MAX]; /* oldest first; changed at a standstill */
	uint32_t heirs;
	struct arena memory; /* as a child: the estate; base NULL: there is none */
	struct arena await_arena;
	_Atomic uint64_t *awaited; /* bit a page, by the estate's numbers */
	int fd;                    /* as a child: the parent's file, */
	bool settled;              /* which is given up: it is our own */
	int parent;                /* and a pidfd of the parent's; -1: there is none */
	bool orphaned;             /* it had ended before there could be one */
	int self;                  /* this process's number, when it forks */
};

/* ------------------------------------------------------------ the parent's */

/* At a standstill, before a fork: a child to be, and its file. => 0 or -errno */
int estate_make(struct engine *e);
/* After it, in this process, whether there is a child or not. */
void estate_made(struct engine *e);
void estates_close(struct engine *e);
/* Of both: now and then. => when again, in ns; 0: not until the next fork */
uint64_t estates_tend(struct engine *e);

/* Pages [page, page + n) are about to change, or to be writable. => 0, or -errno: they must not */
int estate_give(struct engine *e, struct quire_region *r, char *page, size_t n);
/* May anything be owed to anybody? Then what was not given must not be writable. */
bool estate_is_owed(struct engine *e);
/* The same; it cannot fail: what cannot be given is lost to the child, and refused there. */
void estate_give_up(struct engine *e, struct quire_region *r, char *page, size_t n);

/* ------------------------------------------------------------- the child's */

/* In the child: from here on its file is the engine's. => 0 or -errno */
int estate_enter(struct engine *e);
bool estate_awaits(struct engine *e, const struct quire_region *r, const char *page);
/* Its bytes are in our file then; it is awaited still. => 0 or -errno */
int estate_fetch(struct engine *e, const struct quire_region *r, const char *page);
/* It is shown, or evicted. */
void estate_arrived(struct engine *e, const struct quire_region *r, const char *page);
/* They are of no use any more; nobody writes them into our file then. */
void estate_forgo(struct engine *e, const struct quire_region *r, const char *page, size_t n);

#endif
