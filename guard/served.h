/* SPDX-License-Identifier: MIT */
/*
 * guard/served.h - one call that is being served.
 *
 * Its arguments are replaced by copies of what they point to, one after another; what
 * is not in the window stays as it is.
 */
#ifndef QUIRE_GUARD_SERVED_H
#define QUIRE_GUARD_SERVED_H

#include "guard/calls.h"
#include "guard/scratch.h"

#include <stdbool.h>
#include <sys/uio.h>

/* Beyond this no copies are made, but the call is, as it is: the kernel has its own limits. */
#define COPY_MAX ((size_t)64 << 20)

struct served {
	long number;
	unsigned long given[CALL_ARGS]; /* as the program gave them */
	unsigned long arg[CALL_ARGS];   /* as the call is made */
	void *context;                  /* of the signal; NULL: called by a wrapper */
	uint64_t mask;                  /* the thread's own; here signals are blocked */
	bool cancellable;               /* as a function of libc's is (wrappers.c) */
	bool known;                     /* what it points to, and how long that is */
	struct scratch scratch;
};

/* The whole of it: find the row, count, serve. => what the call returns: a result, or -errno */
long served_run(struct served *s);

/*
 * Make the call, with its arguments as they are now; if one is in the window, from the
 * page that the filter lets pass. => result or -errno
 */
long served_call(struct served *s);
/* A call that has nothing to do with the window. */
long plain_call(long number, const unsigned long arg[CALL_ARGS], bool cancellable);

#define WAITERS_MAX 128u

struct waiter { /* struct futex_waitv, Linux 5.16 */
	uint64_t value, address;
	uint32_t flags, reserved;
};

/* Memory that is copied, written back where the call changed it. */
struct copied {
	unsigned long user;
	char *bytes;  /* NULL: it is not in the window */
	char *before; /* NULL: it is not written */
	size_t n;
};

/*
 * Copy n bytes at user, if that is in the window, and have *arg be the copy.
 * written: the call may write to them. => 0 or -errno
 */
int copied_open(struct served *s, struct copied *c, unsigned long *arg, size_t n, bool written);
/* Write back what has changed. => 0 or -EFAULT */
int copied_close(const struct copied *c);

/*
 * Replace what the row says of, ARG_SPECIAL excepted, by copies, make the call, and
 * write back.
 */
long serve_bound(struct served *s, const struct call_row *row, long (*call)(struct served *));

/* Make present what a call is to find where it is. => 0 or -EFAULT */
int place_touch(unsigned long address, size_t bytes);
/*
 * Make a call that can be made again after EFAULT, on the memory itself: places[i]
 * bytes at argument i, 0: not one of them. grows: there may be more behind them
 */
long place_call(struct served *s, const size_t places[CALL_ARGS], bool grows);

#endif
