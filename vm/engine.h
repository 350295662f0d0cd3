/* SPDX-License-Identifier: MIT */
/*
 * vm/engine.h - how pages are put into and taken out of the address space, and
 * how an access to an absent one is learned of. One table an engine.
 *
 * Addresses are page aligned; n counts pages. Calls return 0 or -errno unless
 * said otherwise, may be made from any thread, take no lock of ours and are
 * async-signal-safe, open, close, attach and detach excepted.
 */
#ifndef QUIRE_VM_ENGINE_H
#define QUIRE_VM_ENGINE_H

#include "base/arena.h"
#include "base/base.h"
#include "base/lock.h"
#include "vm/estate.h"

#include <errno.h>

/* There are too many mappings: once pages have been evicted it may be tried again. */
#define ENGINE_CROWDED ENOBUFS

struct cover_limits;
struct quire;
struct quire_region;
struct engine;

enum take_result {
	TAKE_KEPT = 0, /* still mapped: in use by the kernel, or refused */
	TAKE_DONE,     /* bytes are in the buffer, if there is one; the page is absent */
	TAKE_GONE,     /* there was no page: the program discarded it */
	TAKE_LATER,    /* still mapped: there was no memory to copy it into */
	TAKE_ZEROS,    /* still mapped, as write-protected zeros: perhaps there was no page */
};

struct take_page {
	struct quire_region *region;
	char *page;   /* rising addresses */
	char *buffer; /* for the bytes, if they are wanted */
	bool wanted;  /* false only of pages that are not dirty */
	bool dirty;   /* not write-protected */
	bool backed;  /* the buffer has memory, or a credit for it */
	bool shared; /* dirty, but protected since a snapshot: nobody may have written to it since */
	bool given_up; /* the program discards it: what the kernel still writes to it is nobody's */
	bool joined;   /* what lies between it and the page before is held, and not dirty */
	bool moved;    /* out: the buffer's memory is the page's own */
	enum take_result result;
};

struct engine_ops {
	const char *name;
	bool in_thread;    /* faults are served on the faulting thread */
	bool joins;        /* a take protects pages first: neighbours by one call (evict.c) */
	int signal;        /* ... which learns of them by this signal */
	const char *costs; /* one line for people */
	/* => -ENOTSUP with error_set words: not possible here */
	int (*open)(struct engine *e, struct quire *q);
	/* Start the delivery of faults, once the pager runs. */
	int (*start)(struct engine *e);
	void (*close)(struct engine *e);
	/* Begin and end to manage a range that is mapped read-write. */
	int (*attach)(struct engine *e, struct quire_region *r, char *base, size_t bytes);
	void (*detach)(struct engine *e, struct quire_region *r, char *base, size_t bytes);
	/* A range that only receives pages by take (buffers). */
	int (*attach_buffers)(struct engine *e, char *base, size_t bytes);
	/* Copy n pages in, whole. => pages mapped (> 0), or -EEXIST: the first is present, or -errno */
	int (*map)(struct engine *e, struct quire_region *r, char *page, const char *from,
	           unsigned n, bool writable);
	/* The same with zeros, writable. write: the pages are about to be written */
	int (*map_zero)(struct engine *e, struct quire_region *r, char *page, unsigned n,
	                bool write);
	/*
	 * Write-protect what is mapped of n pages, all of a region but what is pinned. Nobody maps
	 * or unprotects any of them meanwhile. => 0 or -errno: some may be protected
	 */
	int (*protect_all)(struct engine *e, struct quire_region *r, char *page, size_t n);
	/*
	 * The bytes of n mapped pages, whose entries are held, into as many buffers. Where
	 * save_waits not by a handler thread, unless it has no choice.
	 * => pages saved (> 0), or of the first -ENOENT: it is not there, the program has discarded
	 *    it; or another -errno
	 */
	int (*save)(struct engine *e, struct quire_region *r, char *page, char *buffer, unsigned n);
	/* Move the buffer's page itself in, writable. => -ENOTSUP, -EBUSY, ...: nothing changed */
	int (*place)(struct engine *e, char *page, char *buffer);
	/* => pages writable from now on (> 0), or -errno */
	int (*unprotect)(struct engine *e, struct quire_region *r, char *page, unsigned n);
	/* Remove pages and deliver their bytes, atomically against writers. */
	void (*take)(struct engine *e, struct take_page *pages, unsigned n);
	int (*drop)(struct engine *e, struct quire_region *r, char *page, size_t n);
	/*
	 * From now on an access raises SIGBUS, until dropped. In-thread engines need none (NULL); nor
	 * is it used where the kernel lacks it (uffd.poison).
	 */
	int (*poison)(struct engine *e, char *page);
	/*
	 * Engines that manage protections themselves: has the program made the page read-only? And
	 * quire_protect for those (NULL: mprotect(2) does it). prot: PROT_READ, with PROT_WRITE or not
	 */
	bool (*forbids_write)(struct quire_region *r, char *page);
	int (*protect)(struct engine *e, struct quire_region *r, char *page, size_t n, int prot);
	/* A mapped page is about to be pinned: see that it has memory (NULL: each has) */
	int (*populate)(struct engine *e, struct quire_region *r, char *page);
	/* Threads waiting for these pages look again. In-thread engines need none (NULL). */
	void (*wake)(struct engine *e, char *page, unsigned n);
	/* Credits are free again: serve what was put off (NULL if nothing ever is). */
	void (*replenished)(struct engine *e);
	/*
	 * Are the bytes of a page that is mapped elsewhere still (NULL: they never are)? And bring
	 * those of one that was touched, or is about to be. => 1, or -errno
	 */
	bool (*awaits)(struct engine *e, const struct quire_region *r, const char *page);
	int (*bring)(struct engine *e, struct quire_region *r, char *page);
	/* As page_owner.tend; NULL: there is nothing. */
	uint64_t (*tend)(struct engine *e);
	/* There is room again: accesses that were refused for want of it may be tried (NULL: always). */
	void (*forgive)(struct engine *e);
	/*
	 * fork(2), at a standstill (base/quiesce.h): before it, if there is something to do
	 * (NULL: nothing); and after it in this process, if that went well. There may be no child
	 * after all. => 0, or -errno: it cannot have it
	 */
	int (*fork)(struct engine *e);
	void (*fork_in_parent)(struct engine *e);
	/*
	 * And in the child: what the process has of the kernel anew, the descriptors among
	 * it; start comes later. Then the buffers are attached, and each region: with its pages as
	 * they were, and what is mapped clean, or shared with a snapshot, write-protected.
	 */
	int (*fork_in_child)(struct engine *e);
	int (*attach_in_child)(struct engine *e, struct quire_region *r);
	/*
	 * Or, in a child that is not to have it, or in which one of these failed: close its descriptors.
	 * started: start has been called in this process, whatever came of it
	 */
	void (*forsake)(struct engine *e, bool started);
	/* Regions are shared mappings: a child has them of attach_in_child alone. */
	bool own_mappings;
};

/* State of the userfaultfd engines. */
struct uffd_state {
	int fd;
	uint64_t features;
	bool move; /* UFFDIO_MOVE may be used */
	bool poison;
	bool vector_drop; /* process_madvise(MADV_DONTNEED) on ourselves works */
	int pidfd;
	int memory;  /* /proc/self/mem, for handler threads; -1: there is none */
	char *zeros; /* CLUSTER_PAGES pages of zeros to copy from */
	struct lock reading_lock;
	struct uffd_reader
		*readers; /* who may fault on pages of whose entries they hold; reading lock */
	void *handler;    /* started: the struct crew of handler threads, or not NULL */
};

/* State of the engine sigsegv. */
struct sigsegv_state {
	int fd; /* a file in memory: the bytes of the page at an address are there at that offset */
	bool started;
	struct cover_limits *limits;
	struct arena self; /* limits live in it */
	struct estates estates;
};

#define ENGINE_WORDS 600

struct engine {
	const struct engine_ops *ops;
	struct quire *q;
	char refused[ENGINE_WORDS]; /* "auto": which come first, and why they do not work here */
	char notes[160];            /* what else there is to say of it here; or "" */
	bool save_waits; /* who saves a page that is not there waits for a handler thread */
	struct uffd_state uffd;
	struct sigsegv_state sigsegv;
};

extern const struct engine_ops engine_uffd, engine_uffd_signal, engine_sigsegv;

/*
 * Open the engine of that name, or the first that works ("auto").
 * => -EINVAL: unknown name; -ENOTSUP: none works; words say why
 */
int engine_open(struct engine *e, struct quire *q, const char *name);
const char *engine_names(void);
bool engine_known(const char *name);
static inline bool engine_awaits(struct engine *e, const struct quire_region *r, const char *page)
{
	return e->ops->awaits && e->ops->awaits(e, r, page);
}

/* The engine's save, of one page. => 0 or -errno */
int engine_save(struct engine *e, struct quire_region *r, char *page, char *buffer);

#endif
