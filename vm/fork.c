/* SPDX-License-Identifier: MIT */
/*
 * vm/fork.c - children of fork(2): each has the memory as it was at that moment, and a
 * pager of its own from then on.
 *
 * Records are private memory, which the kernel shares copy-on-write like all else. What
 * it does not give the child, or gives it wrongly, is made here by handlers of
 * pthread_atfork(3):
 *
 *   before        everybody is brought to a standstill (base/quiesce.h), so records are
 *                 whole; the child is made a holder of all slots that this process holds;
 *                 regions, which a child does not get otherwise, are allowed to it
 *   in the child  descriptors, rings, registrations and threads anew; what was in flight
 *                 counts as never begun (pager/fork.c)
 *
 * A child that is made without these handlers (_Fork(3), clone(2)) has no regions: an access
 * there is SIGSEGV, never a wrong byte. Nor do its children, whose forks are none of ours. It is
 * the same where a standstill cannot be had. vfork(2) and posix_spawn(3) share memory with
 * their parent and are no matter of ours.
 *
 * K6  Between the two halves no thread but the one that forks uses a pager, of this process or
 *     of its child, and that one touches no managed memory: our handlers come last
 *     before the fork and first after it, being registered when the program is loaded.
 * K7  A slot that the child's tables name is held for the child before the fork.
 */
#include "vm/vm.h"

#include "base/error.h"
#include "base/kernel.h"
#include "base/quiesce.h"
#include "base/thread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Changed at work, read at a standstill. */
static struct quire *open_pagers;
static struct lock list_lock = LOCK_INIT(RANK_NONE);

/* One fork at a time. */
static struct lock fork_lock = LOCK_INIT(RANK_NONE);
static uint64_t fork_mask;  /* of the thread that forks; fork lock */
static int32_t fork_thread; /* the same: its id in the parent */

/*
 * The fork that this thread is at. Its own: where the process has become one with pagers meanwhile
 * another fork may be under way, and then this one is none of ours still.
 */
static SIGNAL_SAFE_TLS enum {
	NOT_OURS, /* by a process that has no pagers */
	GIVEN_UP, /* somebody waits for what the thread that forks has: there was no standstill */
	PREPARED,
} preparation;

/*
 * So long a fork waits for the others, who may wait for a disk; or, in an error callback or in an allocator,
 * for a lock that another handler of this very fork has taken before.
 */
uint64_t fork_patience_ns = UINT64_C(30000000000);

void fork_list(struct quire *q)
{
	lock_acquire(&list_lock);
	q->next_open = open_pagers;
	open_pagers = q;
	lock_release(&list_lock);
}

void fork_unlist(struct quire *q)
{
	struct quire **at = &open_pagers;

	lock_acquire(&list_lock);
	while (*at && *at != q)
		at = &(*at)->next_open;
	if (*at)
		*at = q->next_open;
	lock_release(&list_lock);
}

/* -------------------------------------------------------------- before */

/* Will a child have the pages? */
static int allow_mappings(struct quire *q, bool allow)
{
	int advice = allow ? MADV_DOFORK : MADV_DONTFORK, error = 0;

	if (q->engine.ops->own_mappings)
		return 0;
	for (uint32_t i = 0; i < regions_used(q); i++) {
		struct quire_region *r = &q->regions[i];

		if (r->mapping && kernel_madvise(r->mapping, r->mapping_bytes, advice) != 0)
			error = -errno;
	}
	return error;
}

static int prepare_one(struct quire *q)
{
	const struct engine_ops *ops = q->engine.ops;
	int error = allow_mappings(q, true);

	if (!error)
		error = swapfile_fork(q->swap);
	if (!error && ops->fork) {
		error = ops->fork(&q->engine);
		/* As if there had been no child: what is held for it is free again. */
		if (error)
			swapfile_fork_in_parent(q->swap);
	}
	if (error)
		allow_mappings(q, false);
	return error;
}

static void prepare(void)
{
	uint64_t all = ~UINT64_C(0), mask;

	preparation = NOT_OURS;
	if (process_is_strange())
		return;
	/* A handler of the program's may touch managed memory: not between the halves (K6). */
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, &mask, sizeof mask);
	lock_acquire(&fork_lock);
	fork_mask = mask;
	fork_thread = thread_id();
	preparation = quiesce_begin(fork_patience_ns) ? PREPARED : GIVEN_UP;
	if (preparation == GIVEN_UP)
		return;
	for (struct quire *q = open_pagers; q; q = q->next_open)
		if (!q->lost)
			q->fork_error = prepare_one(q);
}

static void finish(void)
{
	uint64_t mask = fork_mask;

	preparation = NOT_OURS;
	lock_release(&fork_lock);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
}

/* -------------------------------------------------------- in the parent */

static void parent_one(struct quire *q)
{
	if (q->lost || q->fork_error)
		return;
	swapfile_fork_in_parent(q->swap);
	if (q->engine.ops->fork_in_parent)
		q->engine.ops->fork_in_parent(&q->engine);
	allow_mappings(q, false);
}

static void in_parent(void)
{
	if (preparation == NOT_OURS)
		return;
	if (preparation == PREPARED) {
		for (struct quire *q = open_pagers; q; q = q->next_open)
			parent_one(q);
		quiesce_end();
	}
	finish();
}

/* --------------------------------------------------------- in the child */

static void tell(struct quire *q, int error)
{
	struct quire_error e = {
		.kind = QUIRE_ERROR_FORK,
		.error = -error,
		.message = "a child of fork could not be given the pager: its memory is "
			   "inaccessible there",
	};

	if (q->on_error)
		q->on_error(q->on_error_arg, &e);
}

/*
 * The child cannot have it. Its addresses stay taken, and out of reach, but for what is another's there. (If
 * there was no standstill nobody looks for it in the table of regions, which may be half changed.)
 */
static void lose(struct quire *q)
{
	q->lost = true;
	saves_lose(q, fork_thread);
	for (uint32_t i = 0; i < regions_used(q); i++) {
		struct quire_region *r = &q->regions[i];

		if (r->mapping && !r->is_displaced)
			mmap(r->mapping, r->mapping_bytes, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
		if (r->mapping && preparation == PREPARED)
			registry_remove(r);
		atomic_store(&r->alive, REGION_GONE);
	}
}

/*
 * What the process has of one that was lost: or the parent would seem to be there as long as it is. After
 * the standstill: threads that have been started may wait for its end.
 */
static void forsake(struct quire *q)
{
	if (q->fork_reached >= FORK_QUEUES)
		pager_stop(&q->pager);
	pager_fork_forget(&q->pager);
	swapfile_forsake(q->swap, q->fork_reached >= FORK_BEGUN);
	q->engine.ops->forsake(&q->engine, q->fork_reached >= FORK_ENGINE);
}

static int attach_all(struct quire *q)
{
	const struct engine_ops *ops = q->engine.ops;
	int error = ops->attach_buffers(&q->engine, q->buffer_arena.base, q->buffer_arena.bytes);

	for (uint32_t i = 0; i < regions_used(q) && !error; i++)
		if (q->regions[i].mapping)
			error = ops->attach_in_child(&q->engine, &q->regions[i]);
	return error;
}

/* First what the child's other handlers may need at once: their own memory may be managed. */
static int remake(struct quire *q)
{
	const struct engine_ops *ops = q->engine.ops;
	bool reader = q->pager.reader.started;
	int error;

	q->fork_reached = FORK_BEGUN;
	pager_fork_forget(&q->pager);
	prefetch_fork_in_child(&q->prefetch);
	if ((error = swapfile_fork_in_child(q->swap)) || (error = ops->fork_in_child(&q->engine)) ||
	    (error = attach_all(q)))
		return error;
	q->fork_reached = FORK_QUEUES;
	if ((error = pager_fork_in_child(&q->pager)) ||
	    (reader && (error = reader_start(&q->pager))))
		return error;
	/* Whether all its threads can be had or none. */
	q->fork_reached = FORK_ENGINE;
	error = ops->start(&q->engine);
	return error ? error : reclaimer_start(&q->pager);
}

static void child_one(struct quire *q)
{
	int error = q->fork_error;

	if (!error)
		error = remake(q);
	if (error) {
		lose(q);
		tell(q, error);
		return;
	}
	allow_mappings(q, false);
	saves_fork_in_child(q, fork_thread);
}

/*
 * Where the kernel gave the child no mapping there is a hole, into which it would put whatever is
 * mapped next: rings, stacks of threads, what another pager needs. => 0 or -errno
 */
static int keep_places(struct quire *q)
{
	int error = 0;

	if (!q->engine.ops->own_mappings && !q->fork_error)
		return 0;
	for (uint32_t i = 0; i < regions_used(q); i++) {
		struct quire_region *r = &q->regions[i];
		void *p = r->mapping;

		if (!p)
			continue;
		p = mmap(p, r->mapping_bytes, PROT_NONE,
		         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
		if (p == r->mapping)
			continue;
		error = p == MAP_FAILED ? -errno : -EEXIST;
		r->is_displaced = true;
		/* Before Linux 4.17 the address is but a wish. */
		if (p != MAP_FAILED)
			munmap(p, r->mapping_bytes);
	}
	return error;
}

/* Of all, before anything else is mapped. */
static void keep_all_places(void)
{
	for (struct quire *q = open_pagers; q; q = q->next_open) {
		int error = q->lost ? 0 : keep_places(q);

		q->fork_error = q->fork_error ? q->fork_error : error;
		q->fork_reached = q->lost ? FORK_LOST : FORK_NOTHING;
	}
}

static void attend(void)
{
	quiesce_in_child();
	keep_all_places();
	for (struct quire *q = open_pagers; q; q = q->next_open)
		if (!q->lost)
			child_one(q);
	quiesce_end();
	for (struct quire *q = open_pagers; q; q = q->next_open)
		if (q->lost && q->fork_reached != FORK_LOST)
			forsake(q);
}

/*
 * All are lost, without a lock: what is looked at does not change while a pager is in the list. Nor
 * is the program told, whose function may be what wants the lock that this thread has.
 */
static void give_up_all(void)
{
	for (struct quire *q = open_pagers; q; q = q->next_open)
		q->fork_error = q->lost ? 0 : -EDEADLK;
	keep_all_places();
	for (struct quire *q = open_pagers; q; q = q->next_open)
		if (!q->lost) {
			lose(q);
			forsake(q);
		}
}

static void in_child(void)
{
	if (preparation == NOT_OURS)
		return;
	if (preparation == PREPARED)
		attend();
	else
		give_up_all();
	finish();
}

/* A fork of another thread's may have had them. */
static void renew(void)
{
	lock_init(&list_lock, RANK_NONE);
	lock_init(&fork_lock, RANK_NONE);
	threads_renew();
}

bool fork_adopt(void)
{
	/* (Those that are listed may have come since another thread has done it.) */
	return (!open_pagers && process_adopt(renew)) || !process_is_strange();
}

static int watch_error;

__attribute__((constructor)) static void watch_forks(void)
{
	watch_error = -pthread_atfork(prepare, in_parent, in_child);
}

int fork_watch_error(void)
{
	return watch_error;
}
