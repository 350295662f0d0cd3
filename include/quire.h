/* SPDX-License-Identifier: MIT */
/*
 * quire.h - user-space virtual memory: the one public header.
 *
 * A pager (quire_t) owns a memory budget and a swap file.  Regions
 * (quire_region_t) are ranges of address space, far larger than memory if
 * wished, whose pages the pager brings in when they are touched and writes to
 * the swap file when memory runs short.
 *
 *     quire_t *q;
 *     quire_region_t *r;
 *     struct quire_options o = { .size = sizeof o, .memory = 64 << 20 };
 *     if (quire_open(&q, &o) || quire_region_create(q, 1UL << 30, NULL, &r))
 *             errx(1, "%s", quire_error_message());
 *     long *a = quire_region_base(r);
 *     for (size_t i = 0; i < (1UL << 30) / sizeof *a; i++)
 *             a[i] = i;                 // pages out as it goes
 *     quire_stats_print(q, stdout, QUIRE_FORMAT_STATUS);
 *     quire_close(q);
 *
 * Conventions
 *   Errors       A call returns 0 or -errno and never sets errno.  The words
 *                for the last failure on this thread are quire_error_message().
 *   Units        Lengths, offsets, budgets and sizes are bytes.  Times are
 *                nanoseconds.  Counters whose name says "pages" are pages of
 *                QUIRE_PAGE_SIZE bytes.
 *   Ranges       [offset, offset + length) is relative to the region's base
 *                and must be a whole number of pages on both ends, inside the
 *                region, and not empty; otherwise -EINVAL and nothing is done.
 *   Ownership    What a *_create or *_open returns is the caller's until the
 *                matching *_destroy or *_close.  Strings in options are read
 *                during the call and not kept.
 *   Threads      Every call may be made from any thread at any time, except
 *                that a handle must not be used during or after the call that
 *                destroys it.  Calls are not async-signal-safe, but managed
 *                memory may be touched in a signal handler.  A call blocks the
 *                signals of its thread while it holds an internal lock.
 *   Forking      A child of fork(2) has all of it, under the same handles: the memory
 *                as it was at that instant, its snapshots, and pagers of its own
 *                with the same budgets; from then on the two write apart. It may
 *                go on after its parent has ended, and fork again. The swap
 *                file, and its limit, they share, 256 processes at most: of each
 *                page there what only one has is free when that one gives it up
 *                or ends. What is pinned is so in the child; under the engine
 *                sigsegv it is copied just before the fork, and what a thread
 *                writes to it from then on is not in the child's.
 *                   fork waits until all threads are between two faults or calls,
 *                and they wait for it. (For half a minute: by then somebody may
 *                wait for what the forking thread has, such as a lock that an error
 *                callback wants. The child has no pager then, and is not told by
 *                the callback.) Which pager a
 *                child cannot be given (no descriptors, no memory; ENFILE: too
 *                many share the swap file) it is told by on_error,
 *                QUIRE_ERROR_FORK: accesses to its regions are SIGSEGV then, and
 *                calls fail (ENODEV).
 *                   A handler that another library registered by pthread_atfork
 *                before this one was loaded must not touch managed memory. A
 *                process that is stopped (SIGSTOP, a debugger) in the moment in
 *                which it is given a slot keeps those waiting that share the file.
 *   Processes    posix_spawn, vfork, and exec are unaffected. One that is made without
 *                libc's fork (_Fork, clone) has no pager, as a child that cannot be
 *                given it, nor have its children; if its parent had none it may open
 *                its own. But made at the very moment at which another thread forks
 *                it may have, under an engine of userfaultfd, what is for that
 *                thread's child, and read zeros where a page is absent: a program
 *                should not do both at once.
 *   Failure      An access whose bytes cannot be had (a failed read, a bad
 *                checksum, no memory and no swap left) raises SIGBUS at the
 *                address, after the on_error callback.  It never yields zeros
 *                or old bytes.  "No memory" means that nothing can be evicted:
 *                a slow disk is waited for as long as it does not fail.  Under
 *                the engine uffd before Linux 6.6, and where a page that is in memory
 *                cannot be written for want of memory for a snapshot's, si_code is SI_QUEUE.
 *   Full swap    When the swap file cannot grow (QUIRE_ERROR_SWAP_FULL), pages
 *                stay in memory.  Once the budget holds nothing but pages that
 *                were written to, the first touch of a page finds no memory
 *                and gets SIGBUS after half a second; it succeeds once the
 *                budget is raised or pages are discarded (DONTNEED, or a
 *                region destroyed).  Pages that have contents can be read and
 *                written all the time, slowly: the last few pages of the
 *                budget are kept for them. (But a page that a snapshot has too, or
 *                another process after fork, has new contents with its first write: a
 *                swap file should have room for what all of them have. To destroy the
 *                snapshot, or to end the process, makes room.)
 *   System calls Under an engine whose faults are served by the faulting thread
 *                (uffd-signal, sigsegv) a system call that is given an absent page
 *                fails with EFAULT, unless it is pinned, or the pager was opened
 *                with guard "on": then calls on its regions are trapped and
 *                served (x86-64). What they read and write is copied through
 *                ordinary memory, of a long transfer at most 1 MiB at a time; a
 *                message is copied whole. Needed for that: SIGSYS, SIGSEGV and
 *                SIGBUS are not blocked in the thread, nor taken from Quire
 *                (quire_handle_signal), and it has 32 KiB of stack, or of
 *                alternate stack, for them. From the first such quire_open on no
 *                program that is executed gains privileges (PR_SET_NO_NEW_PRIVS),
 *                and the filter stays, in it, too. Memory that the kernel uses
 *                when the call has ended must be pinned all the same: of io_uring,
 *                of io_submit, of vmsplice. That of POSIX aio must not be in a
 *                guarded region: threads of libc's that block all signals would be
 *                killed. No stack of a thread, no robust list and no destination
 *                of set_tid_address may lie in a region. Pointers
 *                in structures that are themselves in other memory are served in
 *                libc's readv, writev, sendmsg, recvmsg and their like,
 *                process_vm_readv and writev, execve and its like, and syscall,
 *                which the library replaces; the shared library also
 *                posix_spawn, system, popen and the exec functions that search PATH.
 *   Locking      mlock(2) does not keep pages of a region resident: they are
 *                evicted like others (those that an older kernel does not give
 *                up stay, within the budget). quire_pin does. mlockall(2), at
 *                any time, does not fill what a pager has reserved for later. With
 *                MCL_CURRENT and without MCL_ONFAULT it fills the buffers that a
 *                pager has used so far, beside the budget, until they are used
 *                again; and it touches the pages of all regions, as for writing:
 *                under uffd they pass through the budget one by one, which takes
 *                as long as for the program itself, but can be ended by a signal
 *                that kills; under uffd-signal and sigsegv it stops at the first
 *                absent page of each region, and reports no failure.
 */
#ifndef QUIRE_H
#define QUIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUIRE_VERSION_MAJOR 0
#define QUIRE_VERSION_MINOR 1
#define QUIRE_VERSION_PATCH 0

/* The unit of paging. quire_open refuses a kernel with another page size. */
#define QUIRE_PAGE_SIZE 4096UL

/* The smallest budget a pager runs in (64 pages) and the longest region. */
#define QUIRE_MEMORY_MIN (64 * QUIRE_PAGE_SIZE)
#define QUIRE_REGION_MAX ((size_t)1 << 40)

typedef struct quire quire_t;
typedef struct quire_region quire_region_t;
typedef struct quire_snapshot quire_snapshot_t;

/* ------------------------------------------------------------- errors */

enum quire_error_kind {
	QUIRE_ERROR_READ = 1,  /* swap file, or image: a read failed after retries */
	QUIRE_ERROR_CHECKSUM,  /* swap file, or image: what was read is not what was written */
	QUIRE_ERROR_WRITE,     /* swap file: a write failed; its pages stay in memory */
	QUIRE_ERROR_SWAP_FULL, /* no slot or no disk space; nothing is lost, pages stay */
	QUIRE_ERROR_NO_MEMORY, /* no frame could be freed for an access (SIGBUS follows) */
	QUIRE_ERROR_ENGINE,    /* the kernel refused to install or remove a page */
	QUIRE_ERROR_FORK       /* in a child of fork(2): it could not be given the pager */
};

struct quire_error {
	enum quire_error_kind kind;
	int error;              /* the errno of the cause, positive */
	quire_region_t *region; /* NULL: no one region, or one that is being given up */
	size_t offset;          /* of the page in the region; 0 without one */
	const char *message;    /* static text */
};

/*
 * Told of each failure in the background or on the fault path.  It runs on an
 * internal thread, whose stack is small (256 KiB), or inside a fault (perhaps in
 * a signal handler): it may do only what a signal handler may, must not touch
 * managed memory and must not call quire, nor fork(2).
 */
typedef void (*quire_error_fn)(void *arg, const struct quire_error *error);

/*
 * Words for the last failed call of this thread: what was wrong and what is
 * allowed. Never NULL; valid until the thread's next failing call.
 */
const char *quire_error_message(void);

/*
 * Set these words, as printf(3): for what is built on Quire, and has its conventions. Cut after 511
 * bytes. => -error
 */
int quire_error_set(int error, const char *format, ...)
#ifdef __GNUC__
	__attribute__((format(printf, 2, 3)))
#endif
	;

/* ------------------------------------------------------------- options */

/*
 * A zeroed field takes the environment variable named beside it, and without
 * that its default. size must be sizeof(struct quire_options), or 0 together
 * with an otherwise zeroed struct.
 */
struct quire_options {
	/* sizeof(struct quire_options) */
	size_t size;

	/* QUIRE_MEMORY: the budget in bytes, QUIRE_MEMORY_MIN to RAM, in whole pages; default a quarter of RAM, or of the cgroup's limit if that is less */
	size_t memory;

	/*
	 * QUIRE_SWAP: a directory, in which an unnamed file is made that goes with the
	 * process; or a file, which is made (mode 0600) if it does not exist and stays
	 * when the pager is closed, cut to its header of one page: remove it yourself.
	 * With a / at its end it is never taken for a file. An empty value is refused.
	 * Default $TMPDIR, then /var/tmp, then /tmp
	 */
	const char *swap_path;

	/* QUIRE_SWAP_SIZE: most bytes the swap file may grow to; default: what the disk holds */
	uint64_t swap_size;

	const char *engine; /* QUIRE_ENGINE: "auto" (default), "uffd", "uffd-signal", "sigsegv" */
	const char *policy; /* QUIRE_POLICY: "clock" (default), "fifo", "lru" */
	const char *io;     /* QUIRE_IO: "auto" (default), "uring", "sync" */
	const char *move;   /* QUIRE_MOVE: "auto" (default), "off": never use UFFDIO_MOVE */
	const char *
		guard_pages; /* QUIRE_GUARD_PAGES: "auto" (default), "off": no guard pages (sigsegv) */

	/*
	 * QUIRE_GUARD: "off" (default), "on": system calls may be given memory of this
	 * pager's regions under every engine. See System calls
	 */
	const char *guard;

	/*
	 * QUIRE_READAHEAD: the widest readahead window in bytes; default 2 MiB, at most a
	 * sixteenth of the budget; one page, the least: none
	 */
	size_t readahead;

	/*
	 * QUIRE_SPIN: microseconds, "0" to "10000", for which a thread that waits for a
	 * page to be read, or a handler thread for the next fault, stays awake before
	 * it sleeps, yielding its CPU to whoever wants it (with two CPUs, a handler
	 * thread on each); default "auto": not at all where a cgroup caps CPU time,
	 * else while it pays
	 */
	const char *spin;

	quire_error_fn on_error; /* may be NULL */
	void *on_error_arg;
};

/*
 * Set one option by its name ("memory", "swap", "swap-size", "engine",
 * "policy", "io", "move", "guard-pages", "guard", "readahead", "spin"), as a command line gives it.
 * A size is a whole number of bytes, or of K, M, G or T, also written KiB, MiB,
 * GiB and TiB, in either case: powers of 1024. The same in the environment.
 * String fields keep the pointer: value must live until quire_open returns.
 * -EINVAL: unknown name or a value that makes no sense or is out of range (see
 * the message); the options are as they were.
 */
int quire_options_set(struct quire_options *options, const char *name, const char *value);

/* Print one line an option: its flag, environment variable, default and meaning. */
void quire_options_print(FILE *stream);

/* ------------------------------------------------------------- pagers */

/*
 * Open a pager. options NULL: environment, then defaults.  Several pagers may
 * be open in one process; they share nothing.
 *
 * -EINVAL   an option or environment value is unknown or out of range; the message
 *           has the range (of a budget: QUIRE_MEMORY_MIN to the machine's memory)
 * -ENOENT, -ENOTDIR, -ENAMETOOLONG, -EROFS, -EACCES, -ENOSPC   the swap path cannot be used
 * -EBUSY    the named swap file is in use, by another pager or process
 * -EBADF    the named file exists and is not a swap file of Quire's; untouched
 * -ENOTSUP  no engine, or no way of I/O, works here; the message says why
 * -EMFILE, -ENFILE   too few file descriptors: it takes fourteen, and eight more,
 *           which make reads faster, if the program still has some then (a process
 *           that forks takes two more)
 * -ENOMEM   no address space or memory for buffers or metadata; the message says
 *           for what, how many bytes, and which limit is in the way
 *
 * Address space is reserved for a budget of all the machine's memory. Where it
 * is limited (RLIMIT_AS, ulimit -v), a part of that is left to the program, and the
 * budget can be raised less far later.
 */
int quire_open(quire_t **out, const struct quire_options *options);

/*
 * Close a pager, destroying the regions that are left.  Other threads must
 * have stopped touching its memory: one that touches it during or after the
 * call gets SIGSEGV or SIGBUS as after munmap(2), but nothing hangs.
 */
int quire_close(quire_t *q);

/*
 * Change the budget. Raising takes effect at once. Lowering evicts first and
 * returns when the pager is within the new budget. bytes is rounded down to
 * whole pages.
 * -EINVAL  less than QUIRE_MEMORY_MIN, or more than the machine's memory; where
 *          address space was limited when the pager was opened the most is less
 *          (the message says it)
 * -EBUSY   pinned pages, or pages that cannot be written out, do not fit; the
 *          old budget stays
 * -ENOMEM  no memory for the records of so many pages; the old budget stays
 */
int quire_set_memory(quire_t *q, size_t bytes);

/* The budget now, in bytes. */
size_t quire_memory(const quire_t *q);

/* The engine, the way of I/O and the policy in use ("uffd", "uring", "clock"). */
const char *quire_engine_name(const quire_t *q);
const char *quire_io_name(const quire_t *q);
const char *quire_policy_name(const quire_t *q);

/* May system calls be given absent pages: by the engine, or by the guard? */
bool quire_serves_calls(const quire_t *q);

/*
 * Why these, for people: a line for the engine, with what it costs, and one for the
 * I/O. If "auto" could not take what it prefers, they say what is in the way and
 * which setting would change it. Valid until quire_close.
 */
const char *quire_choice(const quire_t *q);

/* ------------------------------------------------------------- regions */

struct quire_region_options {
	size_t size; /* sizeof(struct quire_region_options) */
	const char *
		name; /* for statistics, images and /proc/PID/maps; copied, at most 31 bytes; default "region" */
};

/*
 * Reserve length bytes (rounded up to pages) of zeroed, private memory.
 * Costs no memory to speak of until it is touched.
 * -EINVAL  length is 0, overflows when rounded, or exceeds QUIRE_REGION_MAX
 * -ENOMEM  no address space, or too many regions (65,535)
 */
int quire_region_create(quire_t *q, size_t length, const struct quire_region_options *options,
                        quire_region_t **out);

/* Page-aligned base address and length in bytes, constant for a region's life. */
void *quire_region_base(const quire_region_t *r);
size_t quire_region_length(const quire_region_t *r);

/*
 * Give up a region, its pages and its slots. Waits for faults in service.
 * Touching it from other threads is as after munmap(2). Its memory goes back to
 * the system, some of it a moment later; the records of frames and slots are
 * kept for other regions until quire_close (see metadata in quire_stats). If it
 * has snapshots, what they share with it becomes theirs.
 * -ENOMEM, -EBUSY, -EIO  only then: there is no room for that, and the region stays
 */
int quire_region_destroy(quire_region_t *r);

enum quire_advice {
	QUIRE_ADVISE_NORMAL = 0,     /* find sequential and strided patterns by observation */
	QUIRE_ADVISE_SEQUENTIAL = 1, /* read ahead widely from the first miss */
	QUIRE_ADVISE_RANDOM = 2,     /* never read, fill or copy ahead */
	QUIRE_ADVISE_WILLNEED = 3,   /* start reading the range into memory; does not wait */
	QUIRE_ADVISE_COLD = 4,       /* evict the range before other pages */
	QUIRE_ADVISE_DONTNEED = 5    /* discard: the range reads as zeros from now on */
};

/*
 * Advise about a range. NORMAL, SEQUENTIAL and RANDOM hold for the whole
 * region that the range lies in. DONTNEED fails with -EBUSY if a page of the
 * range is pinned (earlier pages are discarded).
 * -EINVAL  bad range or unknown advice
 */
int quire_advise(quire_region_t *r, size_t offset, size_t length, int advice);

/*
 * As mprotect(2), PROT_NONE excepted: PROT_READ, or PROT_READ | PROT_WRITE. (Under
 * the engine sigsegv mprotect(2) itself must not be used on a region.)
 * -EINVAL  bad range or prot;  -ENOMEM  too many mappings
 */
int quire_protect(quire_region_t *r, size_t offset, size_t length, int prot);

/*
 * Make a range resident and keep it so until as many unpins. Pins nest. At
 * most 7/8 of the budget can be pinned, and all but 16 pages of it: the rest
 * is for everything else.
 * Needed for memory given to the kernel under an engine whose faults system
 * calls cannot wait for (uffd-signal, sigsegv: EFAULT), and for O_DIRECT buffers
 * on kernels without UFFDIO_MOVE.
 * -EINVAL  bad range
 * -ENOMEM  it does not fit that limit beside what is pinned already, or no
 *          memory could be freed for it; nothing is pinned
 * -EIO     a page could not be read; nothing is pinned
 */
int quire_pin(quire_region_t *r, size_t offset, size_t length);

/* Undo one quire_pin of the same range. -EINVAL: a page of it is not pinned (none is unpinned). */
int quire_unpin(quire_region_t *r, size_t offset, size_t length);

/*
 * For a program that installs a handler of its own after quire_open, of SIGBUS
 * under the engine uffd-signal, of SIGSEGV under sigsegv, and of these two and of
 * SIGSYS with the guard on: call this first, with the handler's arguments
 * (SA_SIGINFO; siginfo_t * and ucontext_t *), and return at once if it says true:
 * the fault was on a managed page and has been served (or, under sigsegv, a SIGBUS
 * is on its way that says it cannot be), or the system call has been made. Block
 * all signals in the handler's sa_mask. (A handler installed before quire_open needs
 * nothing: what is not ours is passed on to it, with its mask, SA_NODEFER and
 * SA_RESETHAND as if it had been called by the kernel.) Async-signal-safe.
 */
bool quire_handle_signal(int signal, void *info, void *context);

/*
 * As sigaction(2), with struct sigaction *, for a signal that Quire has a handler of: what is done with those that are
 * not its own. For who replaces sigaction for a program that knows nothing of Quire; with it such a program's handler
 * needs no quire_handle_signal. Async-signal-safe, as sigaction is.
 * -ENOENT  Quire has no handler for this signal: use sigaction
 */
int quire_signal_action(int signal, const void *action, void *old);

/* ----------------------------------------------------------- snapshots */

/*
 * A snapshot is a region's contents at one instant. It costs memory, of the pager's budget and
 * swap file, only for pages that change afterwards: of each, the old contents are kept once,
 * however many snapshots have them. Where pages are written in order, or a block of 64 KiB here
 * and there, those that are about to change are copied with the one that does, as pages are
 * read ahead (not where the advice is QUIRE_ADVISE_RANDOM, nor without readahead). (After the
 * snapshots of ZFS and of WAFL; the write barrier is userfaultfd's, or mprotect(2).)
 *
 * What the program discards by a system call that goes past the C library's madvise(2) is
 * discarded in the snapshots that share it, too, under the engines uffd and uffd-signal.
 *
 * Any number of snapshots, of any number of regions, up to 65,535 of both; destroyed in any
 * order. They outlive their region. All calls may be made from any thread, beside others that
 * use the region; a handle must not be used while, or after, it is destroyed.
 */

/*
 * Take one of r, while threads write to it. What was written before the call is in; of what is
 * written during it, never a write without one that it depends on. Threads that write meanwhile
 * wait: for a time that grows with the pages in memory, whatever is on the swap file.
 *
 * A page that is pinned is copied at once. Under the engines uffd-signal and sigsegv that comes last: a
 * thread that is not stopped by a write to another page may write to it until then, and of two
 * that are pinned to the one after the other was copied. A transfer that the kernel has begun into the
 * region by itself (O_DIRECT, io_uring) must have ended.
 * -EINVAL  r is no region;  -ENOMEM  no memory, or too many regions and snapshots
 */
int quire_snapshot_create(quire_region_t *r, quire_snapshot_t **out);

/* Bytes, as of its region. */
size_t quire_snapshot_length(const quire_snapshot_t *s);

/*
 * Copy length bytes at offset of the snapshot into buffer, which may be managed memory. Nothing is read ahead of
 * it: what is wanted is best read by 64 KiB and more.
 * -EINVAL   beyond its end
 * -EIO, -EBADMSG   what is on the swap file, or in its image, cannot be read, or does not match its checksum
 */
int quire_snapshot_read(quire_snapshot_t *s, size_t offset, void *buffer, size_t length);

/*
 * A new region with the snapshot's contents, which it shares, copy-on-write: at first it has no
 * page of its own. It may be written, snapshotted and cloned like any, and outlives the snapshot's
 * handle. What it has from an image is its own once it is touched, and goes to the swap file when memory is
 * short. -ENOMEM as quire_region_create
 */
int quire_snapshot_clone(quire_snapshot_t *s, quire_region_t **out);

/*
 * The region becomes what it was, in place; its other snapshots, older and newer, stay what they
 * are. Costs time for pages that have changed since. Another thread that uses the region during the
 * call sees each page as it was or as it becomes, and what it writes may be lost.
 * -EINVAL   the region has been destroyed; or the snapshot was loaded, and had none
 * -EBUSY    a page that has changed is pinned; nothing was done. (One that was pinned when
 *           this snapshot, or a later one, was taken counts as changed.)
 * -ENOMEM, -EIO   some pages are rolled back, others are not: try again
 */
int quire_snapshot_rollback(quire_snapshot_t *s);

/* => 0 to go on; anything else ends the call, which returns it */
typedef int (*quire_diff_fn)(void *arg, size_t offset, size_t length);

/*
 * Call with each range (whole pages, rising, none touching the next) in which two snapshots of a
 * region differ. By bookkeeping: a page that was written, but with what it held, or was rolled back
 * to that, or was pinned meanwhile, or shared with a child of fork, may be said to differ. Read and
 * compared are only pages that became writable beside one that was written. call may use the library,
 * but not destroy snapshots of the region; what it returns, if that is not 0, is returned.
 * -EINVAL  they are not of the same region
 */
int quire_snapshot_diff(const quire_snapshot_t *a, const quire_snapshot_t *b, quire_diff_fn call,
                        void *arg);

/*
 * Give it up, and what only it has kept. What an older snapshot needs passes to that; clones keep what
 * they have of it. -ENOMEM  no memory for the older one's records: it stays
 */
int quire_snapshot_destroy(quire_snapshot_t *s);

/* ---------------------------------------------------------------- images
 *
 * A snapshot can be saved to a file, an image: all of it, or only what differs from another
 * snapshot (an increment). Each snapshot has a UUID, which its images bear; an increment names its
 * base's. Pages of zeros cost nothing, the others are compressed (LZ4) where that pays, and each
 * has a checksum. docs/IMAGE-FORMAT.md describes the file.
 */

/* The snapshot's UUID, 16 bytes: made up when it was taken, or as its image has it. */
int quire_snapshot_uuid(quire_snapshot_t *s, unsigned char uuid[16]);

/*
 * Save s to the file at path while the program goes on; in the end the file is written
 * to the disk and replaces what is at path, in one step: a crash leaves the old file or the new one,
 * whole. A symbolic link is replaced itself. A new file is for its owner alone (mode 0600), one that
 * replaces another has the mode of that. base: only what differs from it; of the same length, of any region, or loaded. (Of
 * snapshots of one region, and of a region that was cloned from base, it is known what may differ;
 * else all is compared.) NULL: all.
 * -EINVAL     no such snapshot; base is of another length or pager, or is s, or another of the same UUID
 * -EISDIR, -EBADF   at path is something that is no regular file
 * -ENOENT, -EACCES, -ENOSPC, -EFBIG and the like   from the file system
 * -EIO, -EBADMSG    a page cannot be had
 * -ENOMEM
 */
int quire_snapshot_save(quire_snapshot_t *s, const char *path, const quire_snapshot_t *base);

/*
 * The same on a thread of its own, of low priority. quire_close stops it (quire_save_end may be called
 * after that, and says -ECANCELED); so do exit and exec, without a trace.
 */
typedef struct quire_save quire_save_t;

struct quire_save_options {
	size_t size; /* sizeof; 0 if all else is 0 */
	/* At most so many bytes of memory are saved a second; 0: no limit. */
	uint64_t bandwidth;
	/*
	 * Called on that thread now and then, and at the end: bytes of memory that were looked at, and
	 * how many there are. => false: stop. It may use the library, but not wait for the save, nor fork.
	 */
	bool (*progress)(void *arg, uint64_t done, uint64_t of);
	void *arg;
};

/*
 * Begin. The snapshots may be destroyed meanwhile: they stay until it has ended.
 * -EINVAL, -ENOMEM, -EAGAIN (no thread); all else is told by quire_save_end
 */
int quire_save_begin(quire_snapshot_t *s, const char *path, const quire_snapshot_t *base,
                     const struct quire_save_options *options, quire_save_t **out);
/* How far it is, in bytes of memory; either may be NULL. => whether it has ended */
bool quire_save_progress(const quire_save_t *save, uint64_t *done, uint64_t *of);
/* Ask it to stop: unless it is complete already the file at path stays what it was. Does not wait. */
void quire_save_cancel(quire_save_t *save);
/*
 * Wait for its end, and give up the handle. => as quire_snapshot_save; -ECANCELED;
 * -ECHILD: in a child of fork, to which it is none
 */
int quire_save_end(quire_save_t *save);

/*
 * A snapshot from a file: to be read, cloned, saved, and a base of others. Takes milliseconds,
 * whatever its length: pages are read from the file, and checked, when they are wanted, so it
 * must not be changed; it may be removed, or replaced by another. An increment needs its base: a
 * snapshot of q, taken or loaded, whose handle has not been given up yet; that may be done
 * afterwards, the base stays for as long as this one.
 * -EBADF    no image, or no regular file
 * -EBADMSG  damaged or truncated: the words say where
 * -ENOTSUP  of a newer version;  -EFBIG  longer than a region can be
 * -ESTALE   its base is no snapshot of q, or not of this length: the words name it
 * -ENOENT, -EACCES, -ENOMEM and the like
 */
int quire_snapshot_load(quire_t *q, const char *path, quire_snapshot_t **out);

/* What the file says of itself, which is checked, but for the pages. */
struct quire_image {
	unsigned char uuid[16];
	unsigned char base[16]; /* all zero: a full image */
	uint64_t length;        /* bytes of memory */
	uint64_t stored;        /* pages whose bytes are in it */
	uint64_t compressed;    /* of them */
	uint64_t zeros;         /* pages that it says are zeros; increments only */
	uint64_t file_bytes;
	int64_t created; /* when the snapshot was taken: seconds since 1970 */
	char name[32];   /* of the region */
};

/*
 * The calls below need no pager. Errors: as quire_snapshot_load and quire_snapshot_save. A child of a fork that another
 * thread makes meanwhile has their files open, as it would of any that are in use, until it ends or executes a program.
 */
int quire_image_info(const char *path, struct quire_image *out);

/* Called now and then; both count the same unit of work. => false: stop (-ECANCELED) */
typedef bool (*quire_image_fn)(void *arg, uint64_t done, uint64_t of);

/* Read all of it, and check it: -EBADMSG, with words that say where. call: or NULL */
int quire_image_verify(const char *path, quire_image_fn call, void *arg);

/*
 * Make one image of a chain: paths[0], and increments each of which is to the one before, in that
 * order. It is the last one's memory, under its UUID (of which there are two images then, this one and
 * the increment), and full if paths[0] is. It replaces what is at out, which
 * may be one of them. -EINVAL  it is no chain: the words name the files
 */
int quire_image_merge(const char *const paths[], unsigned count, const char *out,
                      quire_image_fn call, void *arg);

/* --------------------------------------------------------------------- heaps
 *
 * malloc on a region: a heap far larger than memory. What is known of a block is kept apart from it, in memory
 * of its own (jemalloc's, which is inside the library under names of its own: the program's malloc
 * is not replaced), so neither malloc nor free touches a page that is on the swap file.
 *
 * Small blocks share pages. A block of `large` bytes or more (as the C library's threshold between brk
 * and mmap, 128 KiB) has pages for itself: when it is freed their memory and swap are free at once;
 * when it comes from calloc they are zeros, and take none until they are touched. Pages on which small blocks
 * were stay for a while (`trim_ms`) for the next ones.
 *
 * All calls may be made from any thread. Those that return a pointer are as libc's: NULL, and errno is
 * set, to ENOMEM when the heap is full. A pointer is good for the heap that it came from; anything else, or
 * to free it twice, is undefined. In a child of fork a heap is there like its region. To roll its region
 * back to a snapshot undoes what is in the blocks, not which blocks there are.
 *
 *     quire_heap_t *h;
 *     if (quire_heap_create(q, NULL, &h))
 *             errx(1, "%s", quire_error_message());
 *     char *p = quire_heap_malloc(h, 10UL << 30);
 *     ...
 *     quire_heap_free(h, p);
 *     quire_heap_destroy(h);
 */
typedef struct quire_heap quire_heap_t;

/* All zero: defaults. */
struct quire_heap_options {
	size_t size;      /* sizeof(struct quire_heap_options); 0 if all else is 0 */
	const char *name; /* of its region: as in quire_region_options; default "heap" */
	/*
	 * Of its region, 1 MiB to QUIRE_REGION_MAX: all that it will ever have, rounded up to pages. (Costs
	 * nothing but address space.) Default: 256 GiB, or where address space is limited a part of that
	 */
	size_t length;
	size_t large; /* bytes from which on a block's pages go back with it; 16 KiB at least; default 128 KiB */
	int trim_ms; /* freed pages go back after about so many ms, if the heap is used meanwhile; -1: never; default 1000 */
	bool trace; /* keep who allocated what, for quire_heap_leaks: 48 to 96 bytes a block, beside the budget */
};

/*
 * Make a heap in q. Destroy it before q is closed.
 * -EINVAL  an option that makes no sense
 * -ENOMEM, -ENODEV   as quire_region_create;  -EAGAIN  as many heaps as there can be (4,000)
 */
int quire_heap_create(quire_t *q, const struct quire_heap_options *options, quire_heap_t **out);

/*
 * Give up a heap with all its blocks. Nobody may use it meanwhile. Errors: as quire_region_destroy; it can only
 * be destroyed again then.
 */
int quire_heap_destroy(quire_heap_t *h);

/* As malloc(3) and its like. Of 0 bytes: a pointer that can be freed. realloc to 0 bytes frees, and is NULL. */
void *quire_heap_malloc(quire_heap_t *h, size_t size);
void *quire_heap_calloc(quire_heap_t *h, size_t count, size_t size);
void *quire_heap_realloc(quire_heap_t *h, void *p, size_t size);
/* alignment: a power of two (else EINVAL); size: any */
void *quire_heap_aligned_alloc(quire_heap_t *h, size_t alignment, size_t size);
/* p may be NULL. errno stays what it is. */
void quire_heap_free(quire_heap_t *h, void *p);
/* Bytes that may be used, as many as were asked for or more. NULL: 0 */
size_t quire_heap_usable_size(quire_heap_t *h, const void *p);

/*
 * Give back at once what is free: what the calling thread keeps for its next blocks, and pages that wait for
 * trim_ms. => 0
 */
int quire_heap_trim(quire_heap_t *h);

/* The region that its blocks are in: for statistics, advice, pins. It is the heap's: do not destroy it. */
quire_region_t *quire_heap_region(const quire_heap_t *h);

/* Of one moment each; beside them, what mallinfo2(3) calls the figure. In bytes, but for the blocks. */
struct quire_heap_info {
	size_t length; /* of the region */
	size_t extent; /* of that, from its start, what has been used (arena) */
	size_t used; /* blocks that are not free, and what other threads keep for their next ones (uordblks) */
	size_t small;     /* of used: blocks that share pages, below 16 KiB */
	size_t large;     /* of used: others (hblkhd) */
	size_t free;      /* room on pages that have blocks (fordblks) */
	size_t untrimmed; /* pages without blocks that have not gone back as yet (keepcost) */
	size_t metadata;  /* of the heap, beside the budget */
	uint64_t small_blocks;
	uint64_t large_blocks; /* (hblks) */
};

/* What the calling thread keeps is free first. => 0, -EINVAL */
int quire_heap_info(quire_heap_t *h, struct quire_heap_info *out);

/*
 * Print who allocated what has not been freed: a line for each place in the program that called, as
 * FILE(FUNCTION+OFFSET) [ADDRESS], most bytes first; after mtrace(3).
 * => how many blocks; -ENOTSUP: it was made without trace; -EIO, -ENOMEM
 */
int quire_heap_leaks(quire_heap_t *h, FILE *stream);

/*
 * Is the calling thread in the middle of a call of this library, or of a fault? For who replaces malloc by
 * memory of a region: what libc allocates for Quire itself then (as for a thread that quire_open starts) must be
 * other memory, which takes no lock that a fork waits for. Async-signal-safe.
 */
bool quire_inside(void);

/* Bytes of memory that there are for this process: the machine's, or its cgroup's limit if that is less. */
uint64_t quire_memory_here(void);

/* ---------------------------------------------------------------- probing */

/*
 * What this machine, container and user allow of what Quire can use. The int
 * fields are 0 where it works, or the errno with which it was refused. Everything
 * is tried, on throw-away objects; nothing is inferred from a version.
 */
struct quire_probe {
	int uffd_device; /* /dev/userfaultfd: a userfaultfd for faults of system calls, too */
	int uffd_call;   /* userfaultfd(2): the same */
	int uffd_user;   /* userfaultfd(2): for faults of the program's own alone */
	/* What a userfaultfd of this kernel can do; false if none can be had. */
	bool uffd_write_protect, uffd_signal, uffd_thread_id, uffd_move, uffd_poison;
	int memory_file;     /* memfd_create(2) */
	int guard_pages;     /* MADV_GUARD_INSTALL on its memory */
	int process_madvise; /* process_madvise(2) on ourselves: many ranges by one call */
	int io_uring;
	int seccomp_trap;       /* a seccomp filter may trap system calls (option "guard") */
	uint32_t max_map_count; /* mappings that a process may have */
};

/* Takes a few milliseconds. Safe from any thread. */
void quire_probe(struct quire_probe *out);

/* ------------------------------------------------------------- statistics */

/* A latency distribution; percentiles are the upper bounds of buckets an eighth of a doubling wide. */
struct quire_latency {
	uint64_t count;
	uint64_t mean, p50, p99, p999, max; /* nanoseconds */
};

/* Write-back requests by size: bucket i counts requests of 2^i .. 2^(i+1)-1 pages. */
#define QUIRE_WRITEBACK_BUCKETS 10

struct quire_stats {
	/* events since open or create */
	uint64_t minor_faults;       /* served without I/O */
	uint64_t major_faults;       /* had to read the swap file */
	uint64_t zero_fills;         /* pages filled with zeros, fault-around included */
	uint64_t rescues;            /* pages taken back from standby */
	uint64_t write_faults;       /* first writes to clean pages */
	uint64_t snapshot_copies;    /* pages copied for a snapshot: written, or about to be */
	uint64_t refaults;           /* major faults on pages evicted less than a budget ago */
	uint64_t pages_in;           /* pages read from the swap file */
	uint64_t pages_out;          /* pages written to it */
	uint64_t evictions;          /* pages unmapped by the pager */
	uint64_t zero_drops;         /* evicted pages that were all zeros: no slot, no I/O */
	uint64_t readahead_issued;   /* pages read before they were touched */
	uint64_t readahead_hits;     /* of those, mapped because they were wanted */
	uint64_t writeback_requests; /* write requests sent to the disk */
	uint64_t writeback_sizes[QUIRE_WRITEBACK_BUCKETS];
	uint64_t direct_reclaims; /* times a faulting thread had to evict by itself */
	uint64_t read_errors;     /* pages whose bytes could not be had */
	uint64_t write_errors;    /* pages whose write failed */
	/*
	 * now, in bytes; resident + standby + buffers <= budget at any one instant,
	 * which these are not quite of; metadata is beside it
	 */
	uint64_t resident; /* mapped */
	uint64_t peak_resident;
	uint64_t standby; /* unmapped, still in memory (clean or waiting to be written) */
	uint64_t buffers; /* memory of I/O buffers that holds no page; kept for the next ones */
	uint64_t pinned;
	uint64_t swapped;  /* bytes whose only copy is on the swap file */
	uint64_t metadata; /* page tables, and the most frame and slot records there ever were */
	uint64_t reserved; /* length of the regions */
	uint64_t budget;   /* of the pager */
	uint64_t
		guarded; /* system calls that the guard has served, of the whole process; not bytes */
	uint64_t unguarded; /* of those: not known to it. quire_guard_calls names them */
	struct quire_latency minor_latency;
	struct quire_latency major_latency;
};

/*
 * Counters of the whole pager, or of one region (budget, buffers and the slot
 * records are the pager's and read 0 in a region's). A snapshot without locks:
 * each figure is exact, the set of them is not of one instant. Under the engine
 * uffd an access may go on a moment before its fault is counted.
 */
int quire_stats_get(const quire_t *q, struct quire_stats *out);
int quire_region_stats_get(const quire_region_t *r, struct quire_stats *out);

/*
 * System calls that the guard has served, in this process since it was started, by call.
 * One that it does not know is counted apart: it was made once, on the memory itself.
 */
struct quire_guard_call {
	int number;       /* SYS_read ... */
	const char *name; /* "read"; NULL: not in the table */
	bool known;
	uint64_t count;
};

/* Fill at most max of out (which may be NULL). => how many there are */
size_t quire_guard_calls(struct quire_guard_call *out, size_t max);

enum quire_format {
	QUIRE_FORMAT_PMAP = 0,   /* a line a region, as pmap -x */
	QUIRE_FORMAT_STATUS = 1, /* the whole, as /proc/PID/status */
	QUIRE_FORMAT_JSON = 2    /* both, as one JSON object */
};

/*
 * Print the statistics and flush the stream. In PMAP, control characters of a
 * region's name, backslashes and bytes that are no UTF-8 are octal, as \012; in
 * JSON, such bytes are U+FFFD.
 * -EINVAL  unknown format
 * -EIO     not all could be written, or the stream had an error before
 */
int quire_stats_print(const quire_t *q, FILE *stream, int format);

#ifdef __cplusplus
}
#endif
#endif
