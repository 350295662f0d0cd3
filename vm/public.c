/* SPDX-License-Identifier: MIT */
/* vm/public.c - quire_open, quire_close, and the calls on a whole pager. */
#include "vm/guarded.h"
#include "vm/vm.h"

#include "base/cgroup.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/kernel.h"
#include "base/quiesce.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(struct call) >= 8, "a kernel signal mask fits");

/*
 * A signal handler that touches managed memory needs our locks to have its
 * fault served; so a thread that may hold one has its signals blocked.
 */
void call_enter(struct call *c)
{
	uint64_t all = ~UINT64_C(0);

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, c->mask, (size_t)8);
	work_enter();
}

void call_leave(const struct call *c)
{
	work_leave();
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, c->mask, NULL, (size_t)8);
}

const char *quire_error_message(void)
{
	return error_message();
}

bool quire_inside(void)
{
	return is_at_work();
}

uint64_t quire_memory_here(void)
{
	return MIN(machine_pages() << PAGE_SHIFT, cgroup_memory(&cgroup_here));
}

int quire_error_set(int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	error_set_list(error, format, args);
	va_end(args);
	return -error;
}

/* What a pager reserves, and so what it may become. */
struct reserve {
	uint64_t budget_max; /* pages */
	uint32_t clusters;
};

/* Stacks of threads, rings and the like come after it. */
#define OTHERS ((size_t)64 << 20)

/* Fewer buffers, then half the budget. => false: it cannot be less */
static bool lessen(struct reserve *r, uint64_t budget)
{
	if (r->clusters > pager_clusters_least(r->budget_max)) {
		r->clusters = pager_clusters_least(r->budget_max);
		return true;
	}
	if (r->budget_max <= budget)
		return false;
	r->budget_max = MAX(r->budget_max / 2, budget);
	r->clusters = pager_clusters_least(r->budget_max);
	return true;
}

/*
 * For all the memory that the machine has, if there is the address space. Where
 * that is limited (ulimit -v), for less: with no more buffers than are needed to
 * work well, and then for a budget that can be raised less far.
 */
static struct reserve choose_reserve(uint64_t budget)
{
	struct reserve r = { .budget_max = MAX(machine_pages(), budget) };

	r.clusters = pager_clusters_for(r.budget_max);
	while (pager_reserved(r.budget_max, r.clusters) > arena_share() && lessen(&r, budget))
		;
	while (!arena_fits(pager_reserved(r.budget_max, r.clusters) + OTHERS) && lessen(&r, budget))
		;
	return r;
}

static int open_buffers(struct quire *q, uint32_t clusters)
{
	int error;

	error = arena_reserve(&q->buffer_arena, (size_t)clusters * CLUSTER_PAGES * PAGE_BYTES,
	                      false, "quire buffers");
	if (error)
		return error;
	error = q->engine.ops->attach_buffers(&q->engine, q->buffer_arena.base,
	                                      q->buffer_arena.bytes);
	return error ? error_set(-error, "engine %s does not take the buffers: %s",
	                         q->engine.ops->name, strerror(-error)) :
	               0;
}

static int open_pager(struct quire *q, const struct quire_config *c)
{
	struct reserve reserve = choose_reserve(pages_of(c->memory));
	struct pager_options o = {
		.budget = pages_of(c->memory),
		.budget_max = reserve.budget_max,
		.policy = policy_find(c->policy),
		.owner_ops = &vm_owner,
		.owner = q,
		.swap = q->swap,
		.counters = &q->counters,
		.buffers = &q->buffer_arena,
		.cluster_max = reserve.clusters,
	};
	int error = open_buffers(q, o.cluster_max);

	if (error)
		return error;
	error = pager_open(&q->pager, &o);
	if (error)
		return error;
	if (q->engine.ops->in_thread && (error = reader_start(&q->pager)) != 0)
		return error_set(-error, "no reader thread: %s%s", strerror(-error), arena_hint());
	error = q->engine.ops->start(&q->engine);
	if (error)
		return error;
	error = reclaimer_start(&q->pager);
	return error ? error_set(-error, "no reclaim thread: %s%s", strerror(-error),
	                         arena_hint()) :
	               0;
}

/* How long who waits stays awake, at most: a thread for its page, a handler for the next fault. */
#define LOOK_AUTO_NS UINT64_C(200000)
#define HANDLER_AUTO_NS UINT64_C(50000)

static void choose_spin(struct quire *q, const struct quire_config *c)
{
	bool automatic = c->spin_us < 0;
	uint64_t ns = automatic ? 0 : (uint64_t)c->spin_us * 1000;

	/* CPU time that a quota counts is not to be spent on waiting. */
	if (automatic && cpu_is_capped())
		automatic = false;
	q->spin_ns = automatic ? HANDLER_AUTO_NS : ns;
	q->look_ns = automatic ? LOOK_AUTO_NS : ns;
}

/* Each part knows whether it was opened. */
static void close_all(struct quire *q)
{
	struct arena self = q->self;

	saves_stop(q);
	prefetch_stop(&q->prefetch);
	if (q->region_arena.base)
		regions_destroy(q);
	/* The reclaimer tells the engine of free memory: it goes first. */
	if (q->pager.owner_ops)
		pager_stop(&q->pager);
	if (q->engine.ops)
		q->engine.ops->close(&q->engine);
	if (q->pager.owner_ops)
		pager_close(&q->pager);
	arena_close(&q->buffer_arena);
	if (q->swap)
		swapfile_close(q->swap);
	arena_close(&q->region_arena);
	arena_close(&q->free_id_arena);
	arena_close(&self);
}

/* In words: quire_choice. */
static void describe_choice(struct quire *q, const struct quire_config *c)
{
	const struct engine_ops *ops = q->engine.ops;
	const char *refused = swapfile_io_refused(q->swap);
	bool engine_auto = strcmp(c->engine, "auto") == 0, io_auto = strcmp(c->io, "auto") == 0;

	snprintf(q->choice, sizeof q->choice, "engine %s (%s%s): %s%s\nio %s (%s%s)\nguard %s\n",
	         ops->name,
	         !engine_auto       ? "as asked for" :
	         *q->engine.refused ? "tried in vain: " :
	                              "the first choice",
	         engine_auto ? q->engine.refused : "", ops->costs, q->engine.notes,
	         swapfile_io_name(q->swap),
	         !io_auto ? "as asked for" :
	         *refused ? "tried in vain: " :
	                    "the first choice",
	         io_auto ? refused : "",
	         q->guarded                  ? "on: system calls may be given absent pages" :
	         strcmp(c->guard, "on") == 0 ? "not needed: the engine serves system calls" :
	                                       "off");
}

static int open_all(struct quire *q, const struct quire_config *c)
{
	struct swapfile_options swap = { .path = c->swap_path,
		                         .size_limit = c->swap_size,
		                         .io = c->io };
	bool want_guard;
	int error;

	lock_init(&q->pin_lock, RANK_PIN);
	lock_init(&q->snapshot_lock, RANK_SNAPSHOT);
	lock_init(&q->lineage_lock, RANK_LINEAGE);
	prefetch_init(&q->prefetch, q);
	q->use_move = strcmp(c->move, "off") != 0;
	want_guard = strcmp(c->guard, "on") == 0;
	q->use_guards = strcmp(c->guard_pages, "off") != 0;
	choose_spin(q, c);
	q->readahead_max = (uint32_t)MAX(MIN(pages_of(c->readahead), READAHEAD_MAX), 1);
	/* A window is at most a sixteenth of the budget. */
	q->readahead_max = (uint32_t)MIN(q->readahead_max, pages_of(c->memory) / 16);
	error = arena_reserve(&q->region_arena, REGIONS_MAX * sizeof *q->regions, false,
	                      "quire regions");
	if (!error)
		error = arena_open(&q->free_id_arena, REGIONS_MAX * sizeof *q->free_ids, false,
		                   "quire ids");
	if (error)
		return error;
	q->regions = q->region_arena.base;
	q->free_ids = q->free_id_arena.base;
	error = swapfile_open(&q->swap, &swap);
	if (error)
		return error;
	error = engine_open(&q->engine, q, c->engine);
	if (error) {
		q->engine.ops = NULL;
		return error;
	}
	q->guarded = want_guard && q->engine.ops->in_thread;
	if (q->guarded)
		error = guarded_start();
	if (!error)
		error = open_pager(q, c);
	if (error)
		return error;
	swapfile_look_open(q->swap, q->look_ns);
	describe_choice(q, c);
	return 0;
}

int quire_open(quire_t **out, const struct quire_options *options)
{
	struct quire_config config;
	struct call call;
	struct quire *q;
	struct arena a;
	int error;

	if (!out)
		return error_set(EINVAL, "a NULL result");
	if (process_is_strange() && !fork_adopt())
		return lost_error();
	if (sysconf(_SC_PAGESIZE) != (long)PAGE_BYTES)
		return error_set(ENOTSUP, "this kernel's pages are %ld bytes; Quire needs %zu",
		                 sysconf(_SC_PAGESIZE), PAGE_BYTES);
	error = options_resolve(options, &config);
	if (error)
		return error;
	error = arena_open(&a, sizeof *q, false, "quire pager");
	if (error)
		return error;
	q = a.base;
	q->self = a;
	if (options) {
		q->on_error = options->on_error;
		q->on_error_arg = options->on_error_arg;
	}
	/* A handler that forks would take a pager along that is half made. */
	call_enter(&call);
	error = open_all(q, &config);
	if (error) {
		close_all(q);
	} else {
		fork_list(q);
		*out = q;
	}
	call_leave(&call);
	return error;
}

int quire_close(quire_t *q)
{
	struct call call;

	if (!q)
		return error_set(EINVAL, "a NULL pager");
	if (process_is_strange())
		return 0;
	call_enter(&call);
	fork_unlist(q);
	/* In a child that could not have it nothing of it is ours to give back. */
	if (!q->lost)
		close_all(q);
	call_leave(&call);
	return 0;
}

bool pager_is_lost(const struct quire *q)
{
	return process_is_strange() || q->lost;
}

int lost_error(void)
{
	if (process_is_strange())
		return error_set(ENODEV, "this process was made by _Fork(3) or clone(2), which "
		                         "give it no pager; or by a fork for which another "
		                         "thread could not be waited for");
	return error_set(ENODEV, "this child of fork could not be given the pager");
}

int quire_set_memory(quire_t *q, size_t bytes)
{
	struct call call;
	uint64_t pinned;
	int error;

	if (!q)
		return error_set(EINVAL, "a NULL pager");
	if (pager_is_lost(q))
		return lost_error();
	if (bytes < QUIRE_MEMORY_MIN)
		return error_set(EINVAL, "a budget of %zu bytes; the minimum is %zu (64 pages)",
		                 bytes, (size_t)QUIRE_MEMORY_MIN);
	if (pages_of(bytes) > q->pager.frame_max)
		return error_set(
			EINVAL, "a budget of %zu bytes; the maximum is %zu (%s)", bytes,
			(size_t)q->pager.frame_max * PAGE_BYTES,
			q->pager.frame_max < machine_pages() ?
				"address space was limited, as by ulimit -v, when the pager was "
				"opened" :
				"this machine's memory");
	call_enter(&call);
	lock_acquire(&q->pin_lock);
	pinned = counted(&q->counters.pinned);
	if (pinned + MAX(pages_of(bytes) / 8, 16) > pages_of(bytes))
		error = -EBUSY;
	else
		error = budget_set(&q->pager, pages_of(bytes));
	lock_release(&q->pin_lock);
	forgive(q);
	call_leave(&call);
	if (error == -ENOMEM)
		return error_set(ENOMEM, "no memory for the records of a budget of %zu bytes",
		                 bytes);
	return error ? error_set(-error,
	                         "what is pinned or cannot be written out does not fit %zu bytes",
	                         bytes) :
	               0;
}

size_t quire_memory(const quire_t *q)
{
	return atomic_load(&q->pager.budget) << PAGE_SHIFT;
}

const char *quire_engine_name(const quire_t *q)
{
	return q->engine.ops->name;
}

const char *quire_io_name(const quire_t *q)
{
	return swapfile_io_name(q->swap);
}

const char *quire_choice(const quire_t *q)
{
	return q->choice;
}

bool quire_serves_calls(const quire_t *q)
{
	return q->guarded || !q->engine.ops->in_thread;
}

const char *quire_policy_name(const quire_t *q)
{
	return q->pager.policy.ops->name;
}
