/* SPDX-License-Identifier: MIT */
/*
 * vm/vm.h - the structures of vm/: a pager with its engine, and regions.
 *
 *   public.c    quire_open, quire_close and the small calls of quire.h
 *   options.c   the option table: names, environment, defaults, parsing
 *   registry.c  address -> region, without locks, for fault handlers
 *   region.c    reserving and giving up
 *   fault.c     a fault, stage by stage   zero_fill.c   first touches
 *   mapped.c    first writes                copy.c  those that a snapshot is given a copy for
 *   around.c    which pages beside a touched one are served with it
 *   window.c    readahead: starting to read a window
 *   rescue.c    mapping what is in standby
 *   owner.c     what the pager asks: retire, arrived   evict.c  take
 *   second_chance.c   whether clean victims go into standby
 *   discard.c   giving up contents: DONTNEED and destroy
 *   cow.c       what snapshots keep of pages that change
 *   lineage.c   whose contents a page without own ones has
 *   snapshot.c  snapshots and clones come and go; see snapshot.h for the rest of it
 *   fork.c      children of fork(2)    uffd_fork.c   their userfaultfd
 *   advise.c    advice, protection      pin.c  pins      prefetch.c  WILLNEED
 *   engine.c    choosing an engine
 *   uffd.c, uffd_take.c            the primitives of userfaultfd
 *   uffd_thread.c, uffd_signal.c   its two ways to learn of a fault
 *   signals.c                      faults that come as a signal
 *   sigsegv.c                      the engine without userfaultfd: the pages' bytes
 *   estate.c, estate_child.c       which of these a child of fork has from its parent still
 *   cover.c, cover_limits.c        what of a region is accessible
 *   guarded.c                      regions that system calls are served on (guard/)
 *   uffd_handler.c                 serving faults that come as messages
 *   uffd_refuse.c, refusals.c      refusing one: where the kernel cannot poison, and for how long
 *   stats.c, print.c   figures, and printing them   probe.c   what is allowed here
 */
#ifndef QUIRE_VM_VM_H
#define QUIRE_VM_VM_H

#include <quire.h>

#include "base/arena.h"
#include "base/counters.h"
#include "base/gate.h"
#include "base/histogram.h"
#include "base/lock.h"
#include "pager/pager.h"
#include "pager/faultaround.h"
#include "pager/readahead.h"
#include "image/image.h"
#include "vm/cow.h"
#include "vm/engine.h"
#include "vm/entry.h"
#include "vm/prefetch.h"
#include "vm/second_chance.h"

#define REGIONS_MAX 65535u
#define REGION_NAME_BYTES 32
#define READAHEAD_MAX (8u * (CLUSTER_PAGES - 1)) /* pages: the widest window */
#define READAHEAD_DEFAULT ((size_t)2 << 20)

/* Entries are counted as metadata by leaf: one page of the table. */
#define LEAF_SHIFT 9
#define LEAF_ENTRIES (UINT64_C(1) << LEAF_SHIFT)

enum region_life {
	REGION_GONE = 0,
	REGION_ALIVE = 1,
	REGION_DYING = 2, /* no new faults; its pages can still be evicted */
};

struct quire_region {
	struct quire *q;
	uint32_t id;
	/*
	 * Faults in service and others that must find the region in place. destroy
	 * makes it DYING and waits for the faults in service, which may need memory
	 * that this region holds; then GONE, and waits once more. A region's record
	 * is never unmapped while its pager is open, so both may be looked at late.
	 */
	_Atomic uint32_t users;
	_Atomic uint32_t alive; /* enum region_life */
	struct gate gate;       /* cow.h */
	char *base;
	uint64_t pages;
	size_t bytes;
	char *mapping; /* with the guard pages */
	size_t mapping_bytes;
	bool is_displaced; /* in a child that could not have it: something else is at its addresses */
	struct sparse_arena table_arena;
	entry_t *table;
	struct arena leaf_arena;
	_Atomic uint64_t *leaves; /* bit a leaf: touched */
	_Atomic uint64_t leaf_count;

	struct lock readahead_lock;
	struct readahead readahead;     /* of slots */
	struct faultaround faultaround; /* of zeros */
	struct faultaround copies;      /* for snapshots, of pages that are written */
	uint64_t write_next;            /* first writes to clean pages in order: the next, */
	uint32_t write_window;          /* and how many are unprotected at once */
	uint64_t rescue_next;           /* rescues in order */
	uint32_t rescue_window;
	_Atomic uint32_t write_bias; /* 0 .. 1024: how often a page mapped clean is written */
	_Atomic uint32_t installs;   /* counts installs for sampling write_bias */
	struct second_chance second_chance;
	struct cover *cover; /* engine sigsegv: what the program can get at */

	/* lineage.h: the lineage lock guards these; but newest and target: written with the gate closed */
	bool is_snapshot;            /* it has no addresses */
	struct quire_region *parent; /* has what an EMPTY entry here does not tell; or NULL */
	struct quire_region *older;  /* a snapshot's: the next, of the same region */
	uint32_t heirs;              /* a snapshot's: regions whose parent it is */
	bool unnamed;                /* a snapshot that the program has destroyed, with heirs */
	struct quire_region *newest; /* a region's: the newest of its snapshots, */
	struct quire_region *target; /* and the one that keeps what is about to change */
	/* a snapshot's, images: snapshot lock; image: since it was made */
	unsigned char uuid[16]; /* all zero: none yet */
	int64_t created;        /* seconds since 1970 */
	struct image *image;    /* it was loaded: an EMPTY entry means: as this says */

	struct counters counters;
	struct histogram minor, major;
	char name[REGION_NAME_BYTES];
};

/* How far a child has come with its own pager: what is its own of it, and what its parent's. */
enum fork_reached {
	FORK_LOST, /* it was lost before: there is nothing */
	FORK_NOTHING,
	FORK_BEGUN,
	FORK_QUEUES,
	FORK_ENGINE,
};

struct quire {
	struct lock snapshot_lock; /* one change of snapshots at a time */
	struct lock lineage_lock;  /* for a look at, or a change of, a page's descent */
	struct pager pager;        /* .frame_max: the largest budget, in pages */
	struct engine engine;
	struct swapfile *swap;
	struct counters counters;
	struct histogram minor, major;
	struct arena self; /* this struct lives in it */
	struct arena region_arena;
	struct quire_region *regions;  /* by id - 1 */
	_Atomic uint32_t region_count; /* ever used; registry lock, read without */
	uint32_t *free_ids;            /* stack; registry lock */
	uint32_t free_id_count;
	struct arena free_id_arena;
	struct arena buffer_arena;
	struct lock pin_lock; /* one change of pins at a time */
	struct prefetch prefetch;
	struct quire_save *saves; /* save.c; snapshot lock */
	_Atomic uint32_t stamp;   /* evictions, in units of 16 pages */
	uint32_t batches;         /* of victims; reclaim lock */
	quire_error_fn on_error;
	void *on_error_arg;
	uint64_t spin_ns, look_ns; /* how long to wait awake: for the next fault; for a read */
	bool use_move, use_guards;
	bool guarded;           /* system calls on its regions are served: they lie in the window */
	uint32_t readahead_max; /* pages */
	char swap_path[256];
	char choice[ENGINE_WORDS + 500]; /* quire_choice */
	struct quire *next_open;         /* fork.c: another pager of the process */
	int fork_error;                  /* 0: the child that is being forked has it */
	enum fork_reached fork_reached;  /* in the child */
	bool lost;                       /* this process is a child that could not have it */
};

/* ------------------------------------------------------------- entries */

static inline entry_t *region_entry(const struct quire_region *r, uint64_t page)
{
	return &r->table[page];
}

static inline char *region_page(const struct quire_region *r, uint64_t page)
{
	return r->base + (page << PAGE_SHIFT);
}

/*
 * The leaf of page is about to hold an entry. Before this its entries may be
 * looked at (they are EMPTY) but not held: they are not writable.
 * => false: the kernel gives no memory for it
 */
static inline bool region_touch_leaf(struct quire_region *r, uint64_t page)
{
	uint64_t leaf = page >> LEAF_SHIFT, bit = UINT64_C(1) << (leaf & 63);

	if (atomic_load_explicit(&r->leaves[leaf >> 6], memory_order_relaxed) & bit)
		return true;
	if (!sparse_write(&r->table_arena, page * sizeof *r->table))
		return false;
	if (!(atomic_fetch_or(&r->leaves[leaf >> 6], bit) & bit))
		atomic_fetch_add(&r->leaf_count, 1);
	return true;
}

static inline bool region_leaf_touched(const struct quire_region *r, uint64_t page)
{
	uint64_t leaf = page >> LEAF_SHIFT;

	return atomic_load(&r->leaves[leaf >> 6]) >> (leaf & 63) & 1;
}

/* End BUSY (or READING) with a new value and wake who waits. => WAITERS or FAULTS was set */
bool entry_publish(struct quire_region *r, uint64_t page, uint64_t value);
/* Sleep until the entry is not as it was seen, busy. */
void entry_wait(entry_t *entry, uint64_t seen);
/*
 * Hold the entry (BUSY), waiting for others and for reads in flight.
 * => its value without BUSY, WAITERS and FAULTS
 */
uint64_t entry_hold(struct quire_region *r, uint64_t page);

/* The entry of a page that has been discarded: zeros, whatever the parent has. */
static inline uint64_t entry_zeros(const struct quire_region *r)
{
	return r->parent ? ENTRY_ZERO : ENTRY_EMPTY;
}

/* ------------------------------------------------------------- regions */

/* The region that holds address, with one user more; NULL if none. Async-signal-safe. */
struct quire_region *registry_find(const void *address);
/* The same; and if none holds it, the next one above. */
struct quire_region *registry_find_from(const void *address);
int registry_add(struct quire_region *r);
void registry_remove(struct quire_region *r);
/* By id, with one user more; NULL if it is gone. */
struct quire_region *region_get(const struct quire *q, uint32_t id);
void region_put(struct quire_region *r);
/* Ids 1 .. so many were ever used; which of them are regions now region_get says. */
static inline uint32_t regions_used(const struct quire *q)
{
	return counted_records(&q->region_count);
}
/* Destroy all that are left. */
void regions_destroy(struct quire *q);
int registry_take_id(struct quire *q, uint32_t *id);
void registry_give_id(struct quire *q, uint32_t id);

#define REGION_COUNT(r, name, n)                  \
	do {                                      \
		count(&(r)->counters.name, n);    \
		count(&(r)->q->counters.name, n); \
	} while (0)

static inline void region_count_resident(struct quire_region *r, uint64_t n)
{
	count_peak(&r->counters.resident, &r->counters.peak_resident, n);
	count_peak(&r->q->counters.resident, &r->q->counters.peak_resident, n);
}

/* ahead: the page was read before it was touched */
static inline void region_count_standby(struct quire_region *r, bool ahead)
{
	count(&r->counters.standby, 1);
	if (ahead)
		count(&r->counters.standby_ahead, 1);
}

static inline void region_uncount_standby(struct quire_region *r, bool ahead)
{
	uncount(&r->counters.standby, 1);
	if (ahead)
		uncount(&r->counters.standby_ahead, 1);
}

/* -------------------------------------------------------------- faults */

enum fault_result {
	FAULT_DONE,      /* the access can be made again */
	FAULT_WAITING,   /* not slept: whoever ends the wait wakes the thread */
	FAULT_DEFERRED,  /* not slept: no credit; to be tried again when replenished */
	FAULT_CONGESTED, /* not slept: no read queue is free; to be tried again when reads arrive */
	FAULT_IOERR,     /* the bytes cannot be had */
	FAULT_NOMEM,     /* nothing can be evicted */
	FAULT_REFUSED,   /* the engine could not install the page */
	FAULT_UNBACKED, /* a stage's alone: a credit or a buffer is missing; the entry is as it was */
};

struct fault {
	struct quire_region *region;
	uint64_t page;
	bool write;
	bool may_sleep;   /* false: on a handler thread */
	bool speculative; /* nobody touched the page: no further readahead */
	/* the course of it */
	bool major;
	bool credit;       /* it has one in hand, for a copy */
	bool no_readahead; /* a first attempt by window failed */
	bool congested;    /* the window was not started for want of a queue */
	int error;         /* why the engine refused, an errno */
	uint64_t started;  /* ns */
	struct patience patience;
	entry_t *entry;
	uint64_t held; /* the entry's value when it was taken, without BUSY */
};

/*
 * Serve a fault. The region has a user (registry_find); no lock is held.
 * Statistics are kept and failures reported here.
 */
enum fault_result fault_serve(struct fault *f);
/* Map zeros; the page's entry is held, and EMPTY. => publishes the entry, whatever the result */
enum fault_result fault_zero_fill(struct fault *f);
/* Map a page that is in standby; its entry is held. => publishes the entry, whatever the result */
enum fault_result fault_rescue(struct fault *f);
/* A fault on a page that is mapped (mapped.c); its entry is held. => publishes the entry */
enum fault_result fault_mapped(struct fault *f);
/*
 * A write to a page that is mapped, dirty and shared with a snapshot; its entry is held, inside the gate.
 * => publishes the entry, unless *gone: it was not there
 */
enum fault_result fault_copy(struct fault *f, bool *gone);
/* Put the entry back as it was. => result */
enum fault_result fault_give_up(struct fault *f, enum fault_result result);
/* A page that a clone has from its parent; its entry is held. => publishes it, as something of its own */
enum fault_result fault_inherit(struct fault *f);
/* A credit and a buffer for a copy; no entry is held. => FAULT_WAITING: there may be some now */
enum fault_result fault_wait_to_copy(struct fault *f);
/* Book a fault that ended. */
void fault_account(struct quire_region *r, bool major, uint64_t started);
void fault_report(struct quire_region *r, uint64_t page, enum quire_error_kind kind, int error);
/* EIO or EBADMSG, of the image of a loaded snapshot that it inherits from */
void fault_report_image(struct quire_region *r, uint64_t page, int error);

/* Should a page that is read in be mapped writable at once? (It loses its slot, and saves a fault.) */
bool fault_expects_write(struct quire_region *r);
void fault_learn_write(struct quire_region *r, bool written);

/* ------------------------------------------------------------- windows */

/*
 * Start reading a plan's pages (those that are slots) into one cluster.
 * demand: the page a fault waits for, its entry held: read first; or NULL.
 * => true: demand's entry was published as READING in buffer *id
 * => false: nothing has changed; demand->congested: no queue is free just now
 */
bool window_start(struct quire_region *r, const struct ra_plan *plan, struct fault *demand,
                  uint32_t *id);
/* What readahead says of a fault at page. */
bool window_plan(struct quire_region *r, uint64_t page, bool write, struct ra_plan *plan);

/* --------------------------------------------------------------- others */

extern const struct page_owner vm_owner;
/* page_owner.take */
struct taken evict_batch(void *owner, bool clean_only);
/*
 * One page, whose entry is held, into standby: its credit goes with it. Waits for nothing.
 * => publishes the entry; 0: it is in standby, or zeros; -EAGAIN: it stays
 */
int evict_to_standby(struct quire_region *r, uint64_t page, uint64_t held);
/* The entry of a page that is unmapped and in its slot. */
uint64_t entry_slot(const struct quire *q, slot_t slot);

/* Give up the contents of pages [first, first + n). => -EBUSY at the first pinned page, unless pins go too */
int discard_range(struct quire_region *r, uint64_t first, uint64_t n, bool pins_too);
/* All that the region has and its snapshots share is the snapshots' from now on. => 0 or -errno: some of it */
int discard_to_snapshots(struct quire_region *r);
/* One page's contents make way for others: its entry is after then. => 0, or -errno: it is as it was */
int discard_for(struct quire_region *r, uint64_t page, uint64_t after);
/* destroy: wait until no entry is busy or being read; then, after munmap, free what the pages held */
void discard_settle(struct quire_region *r);
void discard_unmapped(struct quire_region *r);
/*
 * An access to the page was refused: from now on accesses are tried again.
 * Does not wait. => 0; -EBUSY: the page is in use just now; another -errno: the
 * poison cannot be removed. Then nothing was done.
 */
int discard_poison(struct quire_region *r, uint64_t page);
/* Memory, or room on the swap file, has come free by a call of the program's. */
void forgive(struct quire *q);
void pin_forget(struct quire *q, uint64_t pages);
/*
 * A region without addresses, or not yet with any: its record and tables, alive to region_get
 * once alive is set. => 0 or -errno with words
 */
int region_record(struct quire *q, size_t bytes, const char *name, struct quire_region **out);
/* And one with addresses, to whose pages parent (or NULL) has what they do not tell. */
int region_make(struct quire *q, size_t bytes, const char *name, struct quire_region *parent,
                struct quire_region **out);
/* Give up the record of one that has no addresses any more, and what its entries hold. */
void region_forget(struct quire_region *r);
/* => 0; -EINVAL, or of a pager that is lost -ENODEV, with words */
int region_check(const struct quire_region *r);
int range_check(const struct quire_region *r, size_t offset, size_t length);

/* save.c: the pager closes; it is a child's */
void saves_stop(struct quire *q);
/* forked: the thread that did it, in the parent */
void saves_fork_in_child(struct quire *q, int32_t forked);
/* The same in a child that could not have the pager: nothing of it is given back. */
void saves_lose(struct quire *q, int32_t forked);
/* The pagers of this process, for its children: fork.c */
void fork_list(struct quire *q);
void fork_unlist(struct quire *q);
/*
 * Is it none of this process's? A child that could not have it, or one that was made without our handlers,
 * in which nothing of it may be touched.
 */
bool pager_is_lost(const struct quire *q);
/* A call on a pager that is lost. => -ENODEV with words */
int lost_error(void);
/* How long a fork waits for others (tests want it shorter). */
extern uint64_t fork_patience_ns;
/* A process that was made without our handlers is to have a first pager. => false: it cannot have any */
bool fork_adopt(void);
/* => 0, or -errno: forks go unnoticed */
int fork_watch_error(void);

/* Options: options.c */
struct quire_config {
	size_t memory;
	const char *swap_path;
	uint64_t swap_size;
	const char *engine, *policy, *io, *move, *guard_pages, *guard;
	size_t readahead;
	int spin_us;
};
/* Row i of the option table. => false: there is none */
bool options_row(size_t i, const char **name, const char **environment, const char **fallback,
                 const char **meaning);
int options_resolve(const struct quire_options *options, struct quire_config *config);
/* Memory of this machine: the largest budget. */
uint64_t machine_pages(void);

/* Signals off while a public call may hold a lock: see quire.h, Threads. */
struct call {
	uint64_t mask[2];
};
void call_enter(struct call *c);
void call_leave(const struct call *c);

/* What there is to say of a region that another thread may be giving up. */
struct region_figures {
	struct quire_stats stats;
	char *base;
	char name[REGION_NAME_BYTES + 12];
};
/* By id. => false: it is gone. out is not managed memory */
bool region_figures(const struct quire *q, uint32_t id, struct region_figures *out);

#endif
