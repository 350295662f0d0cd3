/* SPDX-License-Identifier: MIT */
/*
 * pager/pager.h - the door of pager/: memory, and who gets it.
 *
 * Memory is counted in *credits*, one a page. A credit is held by each mapped
 * page (a *frame*: its record here) and by each populated page of a *cluster*
 * (SWAP_RUN_MAX neighbouring buffers: standby, readahead, I/O). Credits in use
 * plus credits free are the budget, always (invariant P1); nobody maps a page
 * or touches a buffer without one.
 *
 *   budget.c     credits; watermarks; waking the reclaimer; direct reclaim
 *   frame.c      records of mapped pages, and the policy's lists
 *   cluster.c    buffers: populated or not, free, in use, in standby
 *   stage.c      buffers that are filled one at a time
 *   run_pool.c   requests to the swap file, for the next two
 *   fork.c       a pager in a child of fork
 *   reclaim.c    the reclaimer thread and one step of reclaim
 *   writeback.c  dirty standby buffers to the swap file, in slot order
 *   readin.c     reads in flight for readahead and for handler threads
 *   reader.c     the thread that starts and completes them for engines without handlers
 *   policy*.c    which frame to give up
 *   readahead.c, faultaround.c   what will be wanted next: slots, first touches
 *
 * The pager knows pages by number only (page_id) and reaches them through
 * struct page_owner, handed down at open. It makes no system call on managed
 * addresses and never includes vm/.
 */
#ifndef QUIRE_PAGER_PAGER_H
#define QUIRE_PAGER_PAGER_H

#include "base/arena.h"
#include "base/base.h"
#include "base/counters.h"
#include "base/lock.h"
#include "pager/policy.h"
#include "swapfile/swapfile.h"

#include <pthread.h>

/* A page of a region: region << 28 | page. */
typedef uint64_t page_id;
#define PAGE_ID_BITS 28
#define PAGE_ID(region, page) ((uint64_t)(region) << PAGE_ID_BITS | (page))
#define PAGE_ID_REGION(id) ((uint32_t)((id) >> PAGE_ID_BITS))
#define PAGE_ID_PAGE(id) ((id) & ((UINT64_C(1) << PAGE_ID_BITS) - 1))

#define PAGE_ID_NONE UINT64_MAX

#define CLUSTER_PAGES SWAP_RUN_MAX
#define CLUSTER_NONE UINT32_MAX
#define BUFFER_NONE UINT32_MAX

struct pager;

/* --------------------------------------------------------------- owner */

enum pager_event { PAGER_WRITE_FAILED, PAGER_SWAP_FULL };

/* What became of a batch of victims. */
struct taken {
	unsigned pages;   /* unmapped */
	unsigned freed;   /* of them, those whose memory is free: nothing need be written */
	uint32_t cluster; /* of the others, with one operation reference; or CLUSTER_NONE */
};

/* What the pager asks of whoever owns the pages (vm/owner.c; a fake in tests). */
struct page_owner {
	/*
	 * Unmap a batch of victims (frames_victim; the owner may add their cold
	 * neighbours) into the buffers of one cluster, which it gets from
	 * cluster_get, and make them standby; or free their memory, if that can be.
	 * => runs under the reclaim lock
	 * => clean_only: leave pages that would have to be written
	 */
	struct taken (*take)(void *owner, bool clean_only);
	/*
	 * A clean standby buffer is to be given up: the page becomes its slot.
	 * => false: the page is busy or has gone elsewhere; the buffer stays
	 */
	bool (*retire)(void *owner, page_id page, uint32_t buffer, slot_t slot);
	/*
	 * A page that was being read has arrived (error 0), or not (an errno; EBADMSG: its
	 * checksum is wrong). The buffer's state is set already.
	 */
	void (*arrived)(void *owner, page_id page, uint32_t buffer, int error);
	/* A page reached its slot. */
	void (*written)(void *owner, page_id page);
	/* Credits have come free after someone failed to get any. */
	void (*replenished)(void *owner);
	/*
	 * Whatever is to be done now and then, in a step of the reclaimer's; no lock is held. NULL: nothing
	 * ever. => when again, in ns; 0: after the next reclaimer_tend
	 */
	uint64_t (*tend)(void *owner);
	/* Something failed in the background. page: one that it concerns, or PAGE_ID_NONE */
	void (*failed)(void *owner, enum pager_event event, int error, page_id page);
};

/* -------------------------------------------------------------- frames */

/* A mapped page. Its policy_node is kept beside it, by the same number. */
struct frame {
	_Atomic page_id page; /* written by the holder of the page's entry; read by the reclaimer */
	slot_t slot;          /* its clean copy, or SLOT_NONE: dirty. Entry */
	uint16_t pins;        /* entry */
	bool listed;          /* in the policy's lists. Policy lock */
	bool readahead;       /* mapped by readahead or fault-around, not touched. Entry */
};

/* -------------------------------------------------------------- clusters */

enum buffer_state {
	BUFFER_FREE = 0,
	BUFFER_READING,   /* I/O into it is in flight */
	BUFFER_CLEAN,     /* holds a standby page that its slot holds too */
	BUFFER_DIRTY,     /* holds the only copy of a standby page */
	BUFFER_WRITING,   /* being written to its slot */
	BUFFER_ABANDONED, /* being written, but its page was taken back: slot to be freed */
	BUFFER_CLAIMED,   /* taken back; its bytes may still be needed for a moment */
};

/*
 * state moves by compare-and-swap: the page's entry holder takes a buffer
 * (CLEAN, DIRTY -> CLAIMED -> FREE; WRITING -> ABANDONED), the reclaimer writes it
 * (DIRTY -> WRITING -> CLEAN; ABANDONED -> FREE). See docs/DESIGN.md.
 */
struct buffer {
	/*
	 * Whose bytes it holds, and BUFFER_AHEAD. The page's entry; but a hint for who
	 * finds the buffer first: then the entry says whether it is that page's still.
	 */
	_Atomic page_id page;
	slot_t slot;
	_Atomic uint32_t state;
};

#define BUFFER_AHEAD (UINT64_C(1) << 63) /* read before it was touched */

static inline page_id buffer_page(const struct buffer *b)
{
	return atomic_load_explicit(&b->page, memory_order_relaxed) & ~BUFFER_AHEAD;
}

static inline bool buffer_is_ahead(const struct buffer *b)
{
	return atomic_load_explicit(&b->page, memory_order_relaxed) & BUFFER_AHEAD;
}

struct cluster {
	uint32_t prev, next;        /* list; standby lock */
	_Atomic uint64_t populated; /* bit i: buffer i has memory, and a credit is held for it */
	_Atomic uint32_t refs;      /* buffers not FREE, and operations that hold it */
	uint8_t list;               /* enum cluster_list; standby lock */
	_Atomic uint8_t queue;      /* readin: the queue its reads are in */
	uint8_t used;               /* buffers handed out, 0 .. CLUSTER_PAGES */
	uint64_t started;           /* ns: when the fault that waits for buffer 0 began, or 0 */
	struct buffer buffer[CLUSTER_PAGES];
};

enum cluster_list {
	CLUSTERS_NOWHERE, /* held by an operation, or reads only */
	CLUSTERS_EMPTY,   /* free, no memory */
	CLUSTERS_WARM,    /* free, some buffers populated */
	CLUSTERS_STANDBY, /* holds standby pages, oldest first */
	CLUSTERS_LISTS
};

/* Runs of one kind. */
struct run_pool {
	struct arena arena;
	struct swap_run *runs, *free;            /* free: linked by owner */
	struct iovec (*pieces)[SWAP_RUN_PIECES]; /* of each run, or NULL */
	_Atomic uint32_t count;                  /* ever used; standby lock, read without */
	uint32_t max;                            /* room */
};

#define READ_QUEUES 8u
#define READ_POSTS 256u

/* Pages of a read that is one of a stream's, and for how many steps of reclaim more of them are expected. */
#define STREAM_READ (CLUSTER_PAGES / 4)
#define STREAM_STEPS 64u

struct read_queue {
	struct lock lock; /* adding, flushing, reaping */
	struct swap_queue *io;
	struct swap_run *run;       /* of who has reserved the queue; lock */
	_Atomic uint32_t in_flight; /* runs */
	_Atomic uint32_t arrivals;  /* futex: changes when a run is done or the reaper leaves */
	_Atomic uint32_t sleepers;
};

/* reader.c */
struct reader {
	struct lock lock; /* posts */
	struct read_post {
		uint32_t cluster, n;
	} post[READ_POSTS]; /* ring */
	uint32_t head, count, reserved;
	_Atomic uint32_t posted; /* futex: counts posts */
	_Atomic uint32_t asleep; /* or about to be, and how: who posts wakes it */
	_Atomic uint32_t stop;
	int event; /* eventfd */
	bool started;
	pthread_t thread;
};

struct pager {
	const struct page_owner *owner_ops;
	void *owner;
	struct swapfile *swap;
	struct counters *counters; /* of the whole */

	/* budget.c */
	_Atomic int64_t credits;    /* free */
	_Atomic uint64_t budget;    /* pages */
	_Atomic uint32_t low, high; /* watermarks of credits, pages */
	_Atomic uint32_t standby_target;
	_Atomic uint32_t batch;     /* pages of one take, 1 .. CLUSTER_PAGES */
	_Atomic uint32_t starved;   /* someone asked for credits in vain */
	_Atomic uint32_t progress;  /* counts steps of reclaim that achieved something, */
	_Atomic uint32_t vain;      /* and those that ended with nothing found */
	_Atomic uint32_t writing;   /* runs that are being written */
	_Atomic bool write_failing; /* the last that ended has failed */
	_Atomic uint32_t reading;   /* pages that are being read */
	_Atomic uint32_t streaming; /* steps of reclaim until wide windows are no longer expected */
	_Atomic uint32_t releasing; /* owners at giving up much memory, waiting for none */

	/* frame.c */
	struct arena frame_arena, node_arena;
	struct frame *frames;
	struct lock policy_lock;
	struct policy policy;
	_Atomic uint32_t frame_count; /* ever used; policy lock, read without */
	uint32_t frame_max;
	uint32_t frame_free; /* head of the free list through nodes[].next */

	/* cluster.c */
	struct arena cluster_arena;
	struct cluster *clusters;
	struct arena *buffer_arena; /* the owner's; grown under the standby lock */
	char *buffers;              /* address of buffer 0 */
	struct lock standby_lock;
	uint32_t head[CLUSTERS_LISTS], tail[CLUSTERS_LISTS], length[CLUSTERS_LISTS];
	_Atomic uint32_t cluster_count; /* ever used; standby lock, read without */
	uint32_t cluster_max;
	_Atomic uint32_t clusters_short; /* somebody asked for a cluster in vain */
	_Atomic uint64_t populated;      /* buffers with memory, pages */
	_Atomic uint64_t standby;        /* buffers that hold a page */

	/* stage.c */
	struct lock stage_lock;
	uint32_t stage; /* the cluster, or CLUSTER_NONE; stage lock */

	/* run_pool.c, by enum swap_op */
	struct run_pool run_pools[2];

	/* reclaim.c, writeback.c */
	struct lock reclaim_lock;
	_Atomic int32_t reclaimer_tid; /* who holds the reclaim lock; 0: nobody */
	struct swap_queue *writes;     /* reclaim lock */
	uint64_t write_again_at;       /* after a failure; reclaim lock */
	/* Slots in use when the last one was asked for in vain; reclaim lock. */
	uint64_t used_when_full;
	bool swap_full; /* told already; reclaim lock */
	pthread_t thread;
	_Atomic uint32_t wake; /* futex of the reclaimer: 0 asleep or about to, 1 asked to run */
	_Atomic uint32_t stopping;
	_Atomic bool give_back;   /* asked to: the memory of free clusters */
	_Atomic uint64_t tend_at; /* when the owner is to be called next, in ns; UINT64_MAX: not */
	bool started;

	/* readin.c */
	struct read_queue reads[READ_QUEUES];
	_Atomic uint32_t next_queue;
	struct reader reader;
};

struct pager_options {
	uint64_t budget;     /* pages */
	uint64_t budget_max; /* pages: what set_memory may raise it to */
	const struct policy_ops *policy;
	const struct page_owner *owner_ops;
	void *owner;
	struct arena *buffers; /* in order, for cluster_max * CLUSTER_PAGES buffers */
	uint32_t cluster_max;
	struct swapfile *swap;
	struct counters *counters;
};

/* => 0 or -errno with words set */
int pager_open(struct pager *p, const struct pager_options *options);
/* End the threads, which call the owner. */
void pager_stop(struct pager *p);
/* The same, and all the rest. The owner's pages must be gone. */
void pager_close(struct pager *p);
uint64_t pager_metadata(const struct pager *p);
/* Called by pager_open, and in a child of fork. => 0 or -errno with words */
int pager_open_queues(struct pager *p);

/*
 * In a child of fork, which came at a standstill (base/quiesce.h): first, what was the parent's, then,
 * with the swap file made this process's, the rest, but for the threads. => 0 or -errno with words
 * The first may be called again: of what was opened since nobody uses anything.
 */
void pager_fork_forget(struct pager *p);
int pager_fork_in_child(struct pager *p);
/* Clusters that a budget may need at most; and how many it should have at least. */
uint32_t pager_clusters_for(uint64_t budget_max);
uint32_t pager_clusters_least(uint64_t budget);
/* Address space that a pager with these options wants, the buffers included. */
size_t pager_reserved(uint64_t budget_max, uint32_t cluster_max);

/* -------------------------------------------------------------- budget.c */

/* Take n credits if there are that many. Wakes the reclaimer below the low watermark. */
bool credits_try(struct pager *p, uint32_t n);
/*
 * Take n credits, reclaiming on this thread if need be.
 * => holds no lock; may sleep; the caller may hold entries that are not mapped
 * => -ENOMEM: nothing more can be evicted
 */
int credits_get(struct pager *p, uint32_t n);
/* The same two, for pages whose contents are new: a few credits stay for those there are (P2). */
bool credits_try_new(struct pager *p, uint32_t n);
int credits_get_new(struct pager *p, uint32_t n);
/* Take as many of n credits as there are. The reclaimer's: it wakes nobody. => how many */
uint32_t credits_take(struct pager *p, uint32_t n);
void credits_put(struct pager *p, uint32_t n);
/* Of want credits, how many may go into speculation: what is free beyond half the low watermark. */
uint32_t credits_spare(struct pager *p, uint32_t want);
/* Is so much free that no reclaim is in sight? Then a page more costs nobody anything. */
bool credits_ample(struct pager *p);
/* Pages that one take may have: more than usual while the budget is being lowered. */
uint32_t credits_batch(struct pager *p);
/*
 * The patience of one who looks for memory again and again; all zeros at first.
 * An access is refused because reclaim has searched and found nothing, time
 * after time, never because it took long: only steps that ended in vain (by
 * whomever) let the clock go on, by the time since the one before, and each by
 * a bounded amount. A step that is not over - the swap file grows, a disk is
 * slow, its thread gets no CPU - has found nothing out yet. Progress, and what
 * is under way and gives memory back, begin patience anew: writes while they do
 * not fail, reads, a region that is being given up.
 */
struct patience {
	uint32_t progress, vain; /* as they were at the last look */
	uint64_t since, stuck;   /* ns: up to when it is counted; for how long reclaim was stuck */
};
/* One look. => true: reclaim has been stuck for too long */
bool patience_ends(struct pager *p, struct patience *w);
/*
 * => 0; -EBUSY: what cannot be evicted does not fit; or -ENOMEM: there can be no
 *    more records. Then the old budget stays
 */
int budget_set(struct pager *p, uint64_t pages);

/* --------------------------------------------------------------- frame.c */

/* Room for records of so many pages: those of a budget. => reclaim lock, or nobody else is there yet */
bool frames_allow(struct pager *p, uint64_t pages);
/* New frames for n pages, entered with the policy. => numbers in frames[]; cannot fail: credits bound them */
void frames_enter(struct pager *p, const page_id *pages, uint32_t *frames, uint32_t n,
                  enum policy_entry how, uint32_t touched);
/* The page was unmapped: leave the policy, free the record. Credits are the caller's. */
void frames_leave(struct pager *p, const uint32_t *frames, uint32_t n);
void frame_reference(struct pager *p, uint32_t frame);
void frame_cold(struct pager *p, uint32_t frame);
/* Out of and into the policy's reach, for pins. */
void frame_pin(struct pager *p, uint32_t frame);
void frame_unpin(struct pager *p, uint32_t frame);
/* Take the policy's next victim out of the lists. => FRAME_NONE: there is none. F3: check its entry */
uint32_t frames_victim(struct pager *p);
/* Give a victim back: it could not be taken. The caller holds its entry. */
void frame_return(struct pager *p, uint32_t frame);
/* Take a neighbour of a victim out of the lists, if the policy would let it go. */
bool frame_claim_cold(struct pager *p, uint32_t frame);

/* ------------------------------------------------------------- cluster.c */

/*
 * A free cluster with one operation reference.
 * => want: how many of its buffers are to have memory, if there is such a
 *    cluster; 0: one without any
 * => CLUSTER_NONE: all that there are, or that the kernel allows, are in use; the
 *    reclaimer frees some, whatever the credits
 */
uint32_t cluster_get(struct pager *p, uint32_t want);
/*
 * cluster_get gave none: have some freed on this thread, before it is asked again.
 * patience: as for patience_ends. => holds no credit, nor the entry of a mapped page
 * => false: nothing more can be evicted
 */
bool reclaim_wait(struct pager *p, struct patience *patience);
/*
 * Have pages unmapped, whatever the credits: what is short is not memory. patience and
 * what the caller holds: as above. => false: nothing more can be unmapped
 */
bool reclaim_unmap(struct pager *p, struct patience *patience);
/* A moment between two attempts. => true */
bool pause_reclaim(void);
/* Drop one reference; the last one frees the cluster. */
void cluster_put(struct pager *p, uint32_t cluster);
/* Make sure that buffers [0, n) may be touched: takes credits for those without memory. => false: none to spare */
bool cluster_populate(struct pager *p, uint32_t cluster, uint32_t n);
/* The same of as many of them as there are credits for, the lowest first. */
void cluster_populate_some(struct pager *p, uint32_t cluster, uint32_t n);
/* Buffer 0 may be touched, by a credit of the caller's: it is the buffer's now, or free if that has one. */
void cluster_lend(struct pager *p, uint32_t cluster);
/*
 * Give the memory of free clusters back until credits reach want.
 * => keep: so many with much memory stay as they are, for what comes next
 * => credits regained
 */
uint32_t clusters_release(struct pager *p, int64_t want, uint32_t keep);
/* Give the memory of standby clusters' free buffers back. Reclaim lock held. => credits regained */
uint32_t clusters_trim(struct pager *p);
/* Put a cluster into the standby list, at its young end. */
void cluster_to_standby(struct pager *p, uint32_t cluster);

static inline struct buffer *buffer_of(struct pager *p, uint32_t id)
{
	return &p->clusters[id / CLUSTER_PAGES].buffer[id % CLUSTER_PAGES];
}

static inline void *buffer_address(const struct pager *p, uint32_t id)
{
	return p->buffers + ((size_t)id << PAGE_SHIFT);
}

static inline uint32_t buffer_at(const struct pager *p, const void *address)
{
	return (uint32_t)(((const char *)address - p->buffers) >> PAGE_SHIFT);
}

/*
 * A buffer begins to hold a standby page, or a page that is being read (ahead: before it was
 * touched). => takes a reference on the cluster
 */
void buffer_fill(struct pager *p, uint32_t id, page_id page, slot_t slot, enum buffer_state state,
                 bool ahead);
/* Its bytes are page's from now on. The caller holds the entries of both. */
void buffer_rename(struct pager *p, uint32_t id, page_id page);
/*
 * The holder of the page's entry takes the page out of standby. *slot is the
 * clean copy, which passes to the caller, or SLOT_NONE if there is none: it
 * was dirty, or is being written (the write's slot is freed when it ends).
 * The bytes stay in place until buffer_release.
 */
void buffer_claim(struct pager *p, uint32_t id, slot_t *slot);
/* The same unless it is being written: then false. *state: what it was, to be stored back to undo */
bool buffer_try_claim(struct pager *p, uint32_t id, uint32_t *state, slot_t *slot);
/* Done with a claimed or abandoned buffer. moved: its memory went with the page (UFFDIO_MOVE). */
void buffer_release(struct pager *p, uint32_t id, bool moved);

/* --------------------------------------------------------------- stage.c */

/*
 * A buffer for a page that comes into standby by itself. It is CLAIMED until one of the next
 * two calls, which must come soon: nobody writes back what is beside it before it is full.
 * => takes one credit of the caller's
 * => empty: its memory is to come with the page; else it may be touched
 * => BUFFER_NONE: no cluster is to be had (then as after cluster_get); the credit stays the caller's
 */
uint32_t stage_get(struct pager *p, bool empty);
/* The same of up to want that are neighbours. => the first of *got; takes so many credits */
uint32_t stage_get_run(struct pager *p, uint32_t want, bool empty, uint32_t *got);
/* It holds the page now. */
void stage_fill(struct pager *p, uint32_t id, page_id page, slot_t slot, enum buffer_state state);
/* It is not needed; its memory stays, with the credit. */
void stage_drop(struct pager *p, uint32_t id);
/* The same, and the credit is the caller's again. */
void stage_undo(struct pager *p, uint32_t id);
/* Let what has been staged so far be written. => there was something */
bool stage_flush(struct pager *p);

/* ------------------------------------------------------------ run_pool.c */

/* Called by pager_open and pager_close. */
int run_pool_open(struct pager *p, enum swap_op op, uint32_t max);
void run_pool_close(struct pager *p, enum swap_op op);
uint64_t run_pool_metadata(const struct pager *p, enum swap_op op);

/* A run with op and pieces set, the rest to be filled in. => NULL: all are in use */
struct swap_run *run_get(struct pager *p, enum swap_op op);
void run_put(struct pager *p, struct swap_run *run);

/* ------------------------------------------------------------- reclaim.c */

/* This thread belongs to a pager: it may leave requests of io_uring in flight. */
extern SIGNAL_SAFE_TLS bool thread_is_ours;

int reclaimer_start(struct pager *p);
void reclaimer_stop(struct pager *p);
void reclaimer_kick(struct pager *p);
/* => standstill. The owner has something to tend again. */
void reclaimer_tend(struct pager *p);
/* Much was given up for good: let the thread return the memory of free clusters, but for one. Does not wait. */
void reclaimer_give_back(struct pager *p);
/* The oldest standby cluster behind c (CLUSTER_NONE: of all), with an operation reference. */
uint32_t standby_next(struct pager *p, uint32_t c);
/* Clusters in standby, just now. */
uint32_t standby_length(struct pager *p);
/* One step under the reclaim lock. => progress made (pages), 0: none to be had now */
uint32_t reclaim_step(struct pager *p);
void reclaim_enter(struct pager *p);
void reclaim_leave(struct pager *p);

/* ----------------------------------------------------------- writeback.c: reclaim lock held */

/* Is write-back suspended, for a while after a failure, or until a slot comes free? */
bool writeback_suspended(struct pager *p);
/* Start writing the dirty buffers of a cluster. => false: no slot or run, or suspended after a failure */
bool writeback_start(struct pager *p, uint32_t cluster);
/*
 * Finish what was written; wait for one run if asked and any is in flight.
 * A thread of the program's starts nothing, and does not wait for what is not started.
 * => runs reaped
 */
uint32_t writeback_reap(struct pager *p, bool wait);

/* -------------------------------------------------------------- reader.c */

/*
 * From now on reads are started and completed by a thread of the pager's, for
 * engines whose faults are served on threads of the program. Without it,
 * whoever calls readin_start must be a thread of ours.
 */
int reader_start(struct pager *p);
void reader_stop(struct pager *p);

/* -------------------------------------------------------------- readin.c */

/*
 * Make sure that a read into this cluster can be started. Does not wait.
 * => true: followed by readin_start or readin_cancel, on the same thread and
 *    soon: it may hold a read lock
 * => false: no queue has room just now, or all are in others' hands
 */
bool readin_reserve(struct pager *p, uint32_t cluster);
void readin_cancel(struct pager *p, uint32_t cluster);
/*
 * Start reading the n buffers of a cluster that the caller has reserved a queue
 * for and filled (READING, page and slot set), the first before all others.
 * Never blocks on I/O; cannot fail.
 */
void readin_start(struct pager *p, uint32_t cluster, uint32_t n);
/*
 * What this thread starts from begin to end goes to the disk at end, in few
 * requests to the kernel. It holds a queue's lock meanwhile: it must not wait
 * for anything, nor complete reads.
 */
void readin_batch_begin(struct pager *p);
void readin_batch_end(struct pager *p);
/* Read a run on this thread and wait for it. => run->status */
int readin_here(struct pager *p, struct swap_run *run);
/* Wait until buffer id is no longer being read, completing whatever arrives. */
void readin_wait(struct pager *p, uint32_t id);
/* Complete one run that has arrived on queue i, without waiting. => there was one */
bool readin_poll(struct pager *p, uint32_t i);
/* A descriptor that is readable when queue i has something; -1: nothing in flight. */
int readin_fd(struct pager *p, uint32_t i);
/* Queue i has reads that could not be started: that descriptor may stay silent, poll again in a while. */
bool readin_owes(struct pager *p, uint32_t i);

#endif
