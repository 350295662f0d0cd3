/* SPDX-License-Identifier: MIT */
/*
 * swapfile/swapfile.h - the door of swapfile/: slots and bytes.
 *
 * A slot is QUIRE_PAGE_SIZE bytes of content with a reference count and a
 * checksum. Slots live in one file. This folder knows slots, buffers and
 * files; it knows no page, region or address of the program.
 *
 *   store.c     swapfile_open/close, what ties the others together; growth
 *   file.c      opening: named or unnamed file, lock, O_DIRECT probe; header.c
 *   slots.c     allocation in runs, reference counts (shared memory)
 *   members.c   which process holds which slot
 *   family.c    which processes share it, and whether they are still there
 *   checksum.c  of a slot's content
 *   run.c       one transfer from start to end: buffers, short transfers, retries
 *   transfer.c  runs on the calling thread; look.c  waiting awake
 *   queue.c     runs in flight
 *   uring.c     the io_uring backend of struct io_ops (io.h)
 *   pool.c      plain I/O, on threads: the backend where there is no io_uring
 *
 * No call here mallocs, except swapfile_open and swap_queue_open, which run
 * before any fault. All calls return 0 or -errno unless said otherwise.
 */
#ifndef QUIRE_SWAPFILE_SWAPFILE_H
#define QUIRE_SWAPFILE_SWAPFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct swapfile;
struct swap_queue;
struct io_ops;

/* A slot number. Slot 0 is never given out (it is the header of a named file). */
typedef uint32_t slot_t;
#define SLOT_NONE ((slot_t)0)

/* Most pages in one transfer, and most pieces of memory that so many can be in. */
#define SWAP_RUN_MAX 64u
#define SWAP_RUN_PIECES (SWAP_RUN_MAX / 2)

struct swapfile_options {
	const char *path;            /* directory or file; NULL: $TMPDIR, /var/tmp, /tmp */
	uint64_t size_limit;         /* bytes; 0: no limit but the disk */
	const char *io;              /* "auto", "uring", "sync", NULL = auto */
	const struct io_ops *io_ops; /* tests: this backend instead of probing; else NULL */
	void *io_arg;                /* given to io_ops->open */
};

/*
 * Open a swap file. On failure the words are in error_message().
 * -ENOENT, -ENOTDIR, -EACCES, -EROFS, -ENOSPC   the path cannot be used
 * -EBUSY    the named file is in use
 * -EBADF    the named file is not ours, or no regular file; it is untouched
 * -EINVAL   unknown options.io, or a size_limit of less than two slots
 * -ENOTSUP  no way of I/O works here
 * -ENOMEM
 */
int swapfile_open(struct swapfile **out, const struct swapfile_options *options);
/*
 * From now on a thread that waits for a page stays awake for so long; 0, as it
 * is before: it sleeps. That takes descriptors, as many as there are to spare, so
 * it comes after all that cannot do without. => once; nobody else uses s just now
 */
void swapfile_look_open(struct swapfile *s, uint64_t look_ns);
/* => every queue is closed. A named file keeps its header page only, once nobody shares it. */
void swapfile_close(struct swapfile *s);

const char *swapfile_io_name(const struct swapfile *s); /* "uring" */
/* Why "auto" did not take what it prefers; "" if it did. */
const char *swapfile_io_refused(const struct swapfile *s);
/* => 0, or the errno with which io_uring is refused here */
int swapfile_probe_uring(void);
bool swapfile_is_direct(const struct swapfile *s); /* O_DIRECT in use */

/* ----------------------------------------------------------------- fork
 *
 * A child of fork(2) shares the file: what its parent had a reference to it has one to, too,
 * of its own. A slot is free when nobody has any more; what a process held that
 * was killed, or executed another program, is taken from it by the others in time. The file
 * stays until the last of them has closed it.
 */

/*
 * Before the fork: nobody else uses s, but for requests in flight, which stay this process's.
 * => 0; -ENFILE: too many processes share it; -errno: the child cannot have it
 */
int swapfile_fork(struct swapfile *s);
/* After it, in this process; if swapfile_fork succeeded. */
void swapfile_fork_in_parent(struct swapfile *s);
/*
 * And in the child, which has one thread, before it uses s. Its queues were given up by
 * swap_queue_forget, and looking (swapfile_look_open) begins anew. => 0 or -errno
 */
int swapfile_fork_in_child(struct swapfile *s);

/*
 * In a child that is not to have it (swapfile_fork, or _in_child, failed): what the process has of it
 * is closed, and no call made any more. It is the parent's: nothing is freed, nor truncated.
 * begun: by swapfile_fork_in_child; there are threads of this process's then.
 */
void swapfile_forsake(struct swapfile *s, bool begun);

/*
 * In a child: has the process that forked it ended, or executed another program? false: that is not known.
 * Async-signal-safe.
 */
bool swapfile_parent_is_gone(const struct swapfile *s);

/* ---------------------------------------------------------------- slots
 * Safe from any thread; no call sleeps longer than the allocator's lock, but
 * swapfile_alloc, now and then, while the file grows.
 */

/*
 * Take a run of neighbouring slots, each with one reference.
 * => returns how many were given, 1 .. want, the first in *first; prefers a
 *    full run by extending the file to fragments, and the end of the last run
 *    so that successive runs are neighbours
 * => 0: none is left (size limit, or full disk). What is stored is safe, and
 *    freed slots can be had again; the disk is asked again from time to time
 */
unsigned swapfile_alloc(struct swapfile *s, unsigned want, slot_t *first);
/*
 * After it gave none: is that to last? false: a process with which the file is shared may have ended just
 * now, and what it held not be free yet; so for a tenth of a second at most
 */
bool swapfile_is_full(const struct swapfile *s);

void swapfile_ref(struct swapfile *s, slot_t slot);
/* Drop one reference; the last one frees the slot. */
void swapfile_unref(struct swapfile *s, slot_t slot);
/* As swapfile_unref on count neighbours, under one lock. */
void swapfile_unref_run(struct swapfile *s, slot_t first, unsigned count);
unsigned swapfile_references(const struct swapfile *s, slot_t slot);

uint64_t swapfile_used(const struct swapfile *s);     /* slots that any process holds */
uint64_t swapfile_metadata(const struct swapfile *s); /* bytes of records touched */

/* Invariants of the slots, for debug builds and tests; no reference may be dropped meanwhile. */
bool swapfile_check(struct swapfile *s);

/* ------------------------------------------------------------ transfers */

enum swap_op { SWAP_READ, SWAP_WRITE };

/*
 * One transfer between count neighbouring slots and as many pages of memory,
 * which rise with the slots and lie within SWAP_RUN_MAX pages: writes leave out
 * what is clean. The caller owns the run and fills the first part; it and the
 * pages must stay until it is reaped, and the bytes of a write unchanged from
 * add to reap.
 *
 * Interrupted and short transfers are continued, EAGAIN and EIO tried again a
 * few times; status is what was left of that. After a failed write the content
 * of the run's slots is undefined (a read of it shows in bad); no other slot is
 * touched. -ENOSPC: only where the file system cannot preallocate.
 */
struct swap_run {
	enum swap_op op;
	slot_t slot;
	unsigned count; /* 1 .. SWAP_RUN_MAX */
	void *base;     /* page aligned */
	uint64_t pages; /* count bits. Bit i: the page at base + i pages */
	/* Room for SWAP_RUN_PIECES; without it (NULL) pages with gaps are a request for each piece. */
	struct iovec *pieces;
	void *owner; /* the caller's, untouched here */
	/* result, valid once reaped */
	int status;   /* 0, or -errno: no page of the run can be relied on */
	uint64_t bad; /* status 0, SWAP_READ: bit i: page i failed its checksum */
	/* private to swapfile/ */
	struct iovec piece;
	uint32_t done;  /* bytes, in whole pages */
	uint16_t again; /* interruptions since the last progress */
	uint8_t tries;  /* failures so far */
};

/* The address of a run's page number i, 0 .. count - 1. */
static inline void *swap_run_page(const struct swap_run *run, unsigned i)
{
	uint64_t pages = run->pages;

	while (i-- > 0)
		pages &= pages - 1;
	return (char *)run->base + ((size_t)__builtin_ctzll(pages) << 12);
}

/*
 * Read or write a run now, on this thread, and return run->status.
 * Needs no queue, takes no lock; any number of threads at once. It is
 * async-signal-safe, leaves errno alone and is no cancellation point.
 */
int swapfile_transfer(struct swapfile *s, struct swap_run *run);

/*
 * A queue keeps up to depth runs in flight. One thread at a time may use a
 * queue (the caller's lock or ownership sees to that), but it may be a
 * different one each time.
 *
 * Mind: io_uring completes a request in the context of the thread that started
 * it. A thread that goes back to the program with runs in flight can have its
 * next epoll_wait(2) and the like end with EINTR. So a thread of the program
 * never starts anything: it does not flush, and reaps with may_start false.
 */
int swap_queue_open(struct swapfile *s, unsigned depth, struct swap_queue **out);
/* Waits for what is in flight. */
void swap_queue_close(struct swap_queue *q);
/* In a child of fork: what is in flight is the parent's. Its runs are nobody's here. */
void swap_queue_forget(struct swap_queue *q);

/* Prepare a run; it starts at the next flush, or reap that waits and may start. -EAGAIN: the queue is full. */
int swap_queue_add(struct swap_queue *q, struct swap_run *run);
/* Start all that was added. Does not wait for completion. */
void swap_queue_flush(struct swap_queue *q);
/*
 * One completed run (results filled in), or NULL.
 * => may_start: this thread may start requests: the rest of an interrupted or
 *    short transfer, and what was added. Without it the rest is transferred here
 *    and now, and what was not started stays so
 * => wait: sleeps until one completes; NULL only if nothing is in flight, or
 *    without may_start after a short sleep, if nothing may have been started
 */
struct swap_run *swap_queue_reap(struct swap_queue *q, bool wait, bool may_start);
unsigned swap_queue_in_flight(const struct swap_queue *q);
/*
 * Is there a run that the kernel, short of memory, would not take yet? Then the
 * descriptor need not tell of it: reap is to be called again in a while, with
 * may_start. Safe from any thread.
 */
bool swap_queue_owes(const struct swap_queue *q);
/* A descriptor that polls readable when reap would return a run. */
int swap_queue_fd(const struct swap_queue *q);

#endif
