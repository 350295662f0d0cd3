/* SPDX-License-Identifier: MIT */
/*
 * vm/save.c - snapshots to files.
 *
 * A leaf of the page table at a time: which of its pages are to be saved, then their bytes, as
 * many at once as lie side by side. Each such step is a piece of work of its own (call_enter), so a
 * fork or a change of snapshots waits for no more than that.
 *
 * While it is saved a snapshot has an heir more, the save: it may be destroyed meanwhile and
 * stays, without a name.
 */
#include "vm/snapshot.h"

#include "base/error.h"
#include "base/kernel.h"
#include "base/quiesce.h"
#include "base/thread.h"
#include "vm/lineage.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

struct quire_save {
	struct arena self;
	struct quire *q;               /* NULL: it was closed */
	struct quire_region *s, *base; /* base: or NULL */
	struct quire_save_options options;
	char path[PATH_MAX];

	struct image_writer writer;
	uint64_t started; /* ns */
	/* Of a step; page aligned. */
	char *bytes, *of_base;

	pthread_t thread;
	int32_t saver; /* the thread that saves */
	bool has_thread;
	bool has_handle;         /* the program gives it up; else who made it */
	struct quire_save *next; /* of the pager; snapshot lock */
	uint64_t of;             /* bytes of memory */
	_Atomic uint64_t done;   /* pages that were looked at */
	uint64_t taken;          /* of these, whose bytes were wanted */
	_Atomic uint32_t cancel; /* futex */
	_Atomic uint32_t ended;  /* futex */
	bool disowned;           /* the thread that saves has forked, and is the child's now */
	int result;
	char words[400];
};

/* Bytes that are in the struct's mapping behind it. */
#define STEP_BYTES (PAGES_MAX * PAGE_BYTES)

/* So many leaves are skipped as one piece of work, if nothing of them is to be saved. */
#define SKIP_LEAVES 512u

#define NICE 10
#define IOPRIO_CLASS_BE 2
#define IOPRIO_LEAST (IOPRIO_CLASS_BE << 13 | 7)

/* -------------------------------------------------------------- a step */

/* The pages of a step: those of [page, page + n) that are saved, and those that are if they differ. */
struct step {
	uint64_t page;
	unsigned n;
	bool compare;
};

static int not_ours(void)
{
	return error_set(ECHILD, "it is a child of fork, and the save its parent's");
}

static int read_pages(struct quire_save *v, struct quire_region *s, const struct step *step,
                      char *bytes)
{
	struct call call;
	uint64_t bad;
	int error = -ECHILD;

	call_enter(&call);
	if (!v->disowned)
		error = snapshot_pages(s, step->page, step->n, bytes, &bad);
	call_leave(&call);
	if (v->disowned)
		return not_ours();
	return error ? snapshot_read_failed(s, bad, error) : 0;
}

static int take_step(struct quire_save *v, const struct step *step)
{
	int error = read_pages(v, v->s, step, v->bytes);

	v->taken += step->n;
	if (!error && step->compare)
		error = read_pages(v, v->base, step, v->of_base);
	for (unsigned i = 0; i < step->n && !error; i++)
		if (!step->compare ||
		    memcmp(v->bytes + i * PAGE_BYTES, v->of_base + i * PAGE_BYTES, PAGE_BYTES) != 0)
			error = image_put(&v->writer, step->page + i, v->bytes + i * PAGE_BYTES);
	return error;
}

/* ---------------------------------------------------------- what to save */

/* Is it known that nothing of the leaf has to be saved? */
static bool leaf_is_out(struct quire_save *v, uint64_t page)
{
	if (!v->base)
		return lineage_leaf_is_same(v->s, NULL, page);
	return lineage_leaf_is_same(v->s, v->base, page) ||
	       lineage_leaf_is_same(v->base, v->s, page);
}

/* => so many pages from page on, in whole leaves, of which that is known */
static uint64_t pages_out(struct quire_save *v, uint64_t page)
{
	uint64_t end = MIN(v->s->pages, page + SKIP_LEAVES * LEAF_ENTRIES), at = page;
	struct call call;

	call_enter(&call);
	while (at < end && !v->disowned && leaf_is_out(v, at))
		at += LEAF_ENTRIES;
	call_leave(&call);
	return MIN(at, v->s->pages) - page;
}

/* => false: nothing */
static bool choose(struct quire_save *v, uint64_t page, unsigned char change[LEAF_ENTRIES])
{
	struct quire_region *a = v->base, *b = v->s;

	if (a && snapshots_in_order(&a, &b))
		return snapshots_compare_leaf(a, b, page, change);
	memset(change, a ? MAYBE : CHANGED, LEAF_ENTRIES);
	return true;
}

static int save_leaf(struct quire_save *v, uint64_t first)
{
	unsigned n = (unsigned)MIN(LEAF_ENTRIES, v->s->pages - first), i = 0;
	unsigned char change[LEAF_ENTRIES];
	int error = 0;

	if (!choose(v, first, change))
		return 0;
	while (i < n && !error) {
		struct step step = { .page = first + i, .compare = change[i] == MAYBE };
		unsigned end = i;

		while (end < n && end - i < PAGES_MAX && change[end] == change[i])
			end++;
		step.n = end - i;
		if (change[i] != SAME)
			error = take_step(v, &step);
		i = end;
	}
	return error;
}

/* --------------------------------------------------------------- all of it */

static int canceled(void)
{
	return error_set(ECANCELED, "the saving was stopped");
}

/* Until so much may have been saved. */
static void keep_to_bandwidth(struct quire_save *v)
{
	uint64_t limit = v->options.bandwidth, due, now = now_ns();

	if (!limit)
		return;
	due = v->started + (uint64_t)((double)(v->taken << PAGE_SHIFT) / (double)limit * 1e9);
	while (now < due && !atomic_load(&v->cancel)) {
		futex_wait(&v->cancel, 0, due - now, false);
		now = now_ns();
	}
}

/* => 0; -ECANCELED */
static int report(struct quire_save *v)
{
	const struct quire_save_options *o = &v->options;

	if (o->progress && !o->progress(o->arg, atomic_load(&v->done) << PAGE_SHIFT, v->of))
		atomic_store(&v->cancel, 1);
	return atomic_load(&v->cancel) ? canceled() : 0;
}

static int save_pages(struct quire_save *v)
{
	int error = 0;

	for (uint64_t page = 0, n; page < v->s->pages && !error; page += n) {
		n = pages_out(v, page);
		if (n == 0) {
			n = MIN(LEAF_ENTRIES, v->s->pages - page);
			error = save_leaf(v, page);
		}
		atomic_fetch_add(&v->done, n);
		keep_to_bandwidth(v);
		if (!error)
			error = report(v);
	}
	return error;
}

static int save(struct quire_save *v)
{
	struct image_description d = { .bytes = v->s->bytes, .created = v->s->created };
	struct call call;
	int error;

	if (v->disowned)
		return not_ours();
	memcpy(d.uuid, v->s->uuid, sizeof d.uuid);
	if (v->base)
		memcpy(d.base, v->base->uuid, sizeof d.base);
	snprintf(d.name, sizeof d.name, "%s", v->s->name);
	/* As a piece of work: for a moment the writer has no descriptors, and does not say so. */
	call_enter(&call);
	error = image_create(&v->writer, v->path, &d);
	call_leave(&call);
	if (error)
		return error;
	v->started = now_ns();
	error = save_pages(v);
	if (!error)
		error = image_commit(&v->writer, true);
	else
		image_abandon(&v->writer);
	/* From now on a fork by this thread is nothing to it. */
	v->saver = 0;
	return v->disowned ? not_ours() : error;
}

/* ------------------------------------------------------------ its life */

/* A snapshot that was saved and loaded again is the same one, too. */
static bool are_same(const struct quire_region *s, const struct quire_region *base)
{
	return base && memcmp(s->uuid, base->uuid, sizeof s->uuid) == 0;
}

/* => its snapshots have an heir more; or -errno with words */
static int new_save(struct quire_region *s, struct quire_region *base, const char *path,
                    const struct quire_save_options *options, struct quire_save **out)
{
	size_t head = round_up(sizeof(struct quire_save), PAGE_BYTES);
	struct quire_save *v;
	struct arena self;
	struct call call;
	bool same;
	int error = arena_open(&self, head + 2 * STEP_BYTES, false, "quire save");

	if (error)
		return error;
	v = self.base;
	v->self = self;
	v->bytes = (char *)self.base + head;
	v->of_base = v->bytes + STEP_BYTES;
	v->q = s->q;
	v->s = s;
	v->base = base;
	v->of = s->bytes;
	/* A fork may come before it has a file, or a thread of its own: by a handler of this one's. */
	image_writer_init(&v->writer);
	v->saver = thread_id();
	if (options) {
		v->options = *options;
		v->has_handle = true;
	}
	/* The caller's memory may be managed: not while signals are blocked. */
	snprintf(v->path, sizeof v->path, "%s", path);
	call_enter(&call);
	lock_acquire(&s->q->snapshot_lock);
	same = are_same(s, base);
	if (!same) {
		s->heirs++;
		if (base)
			base->heirs++;
		v->next = s->q->saves;
		s->q->saves = v;
	}
	lock_release(&s->q->snapshot_lock);
	call_leave(&call);
	if (!same) {
		*out = v;
		return 0;
	}
	arena_close(&self);
	return error_set(EINVAL, "the base is the snapshot itself: they have the same UUID");
}

static void let_go(struct quire_save *v)
{
	struct quire_save **at = &v->q->saves;

	while (*at && *at != v)
		at = &(*at)->next;
	if (!*at)
		return;
	*at = v->next;
	snapshot_disinherit(v->s);
	snapshot_disinherit(v->base);
}

static void end(struct quire_save *v)
{
	struct arena self = v->self;
	struct call call;

	call_enter(&call);
	if (v->q) {
		lock_acquire(&v->q->snapshot_lock);
		let_go(v);
		lock_release(&v->q->snapshot_lock);
	}
	call_leave(&call);
	arena_close(&self);
}

static int check(const quire_snapshot_t *s, const char *path, const quire_snapshot_t *base)
{
	const struct quire_region *a = snapshot_record(s), *b = snapshot_record(base);

	if (!snapshot_is_valid(s))
		return snapshot_invalid(s);
	if (base && !snapshot_is_valid(base))
		return snapshot_invalid(base);
	if (!path || strlen(path) >= PATH_MAX)
		return error_set(path ? ENAMETOOLONG : EINVAL, "a path that is NULL, or too long");
	if (base && (a->q != b->q || a->bytes != b->bytes))
		return error_set(EINVAL, "the base is of another pager, or of another length");
	return 0;
}

int quire_snapshot_save(quire_snapshot_t *s, const char *path, const quire_snapshot_t *base)
{
	int error = check(s, path, base);
	struct quire_save *v;

	if (error)
		return error;
	error = new_save(snapshot_record(s), snapshot_record(base), path, NULL, &v);
	if (error)
		return error;
	error = save(v);
	end(v);
	return error;
}

/* ------------------------------------------------------------ on a thread */

/* Who waits for a page, or the disk, comes first. */
static void give_way(void)
{
	setpriority(PRIO_PROCESS, (id_t)thread_id(), NICE);
	syscall(SYS_ioprio_set, 1 /* a process, that is a thread */, 0, IOPRIO_LEAST);
}

static void say_ended(struct quire_save *v)
{
	atomic_store(&v->ended, 1);
	futex_wake(&v->ended, INT32_MAX, false);
}

static void *saver(void *argument)
{
	struct quire_save *v = argument;
	struct call call;
	sigset_t faults;

	call_enter(&call);
	v->saver = thread_id();
	call_leave(&call);
	prctl(PR_SET_NAME, "quire-save");
	give_way();
	/* The program's function may touch managed memory. */
	sigemptyset(&faults);
	sigaddset(&faults, SIGBUS);
	sigaddset(&faults, SIGSEGV);
	sigaddset(&faults, SIGSYS);
	pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
	v->result = save(v);
	if (v->result)
		snprintf(v->words, sizeof v->words, "%s", error_message());
	say_ended(v);
	return NULL;
}

static int read_options(const struct quire_save_options *in, struct quire_save_options *out)
{
	static const struct quire_save_options none;

	*out = none;
	if (!in || (in->size == 0 && memcmp(in, &none, sizeof none) == 0))
		return 0;
	if (in->size != sizeof *in)
		return error_set(EINVAL, "quire_save_options.size is %zu, not %zu", in->size,
		                 sizeof *in);
	*out = *in;
	return 0;
}

int quire_save_begin(quire_snapshot_t *s, const char *path, const quire_snapshot_t *base,
                     const struct quire_save_options *options, quire_save_t **out)
{
	struct quire_save_options o;
	sigset_t all, before;
	int error = out ? check(s, path, base) : error_set(EINVAL, "a NULL result");
	struct quire_save *v;

	if (!error)
		error = read_options(options, &o);
	if (!error)
		error = new_save(snapshot_record(s), snapshot_record(base), path, &o, &v);
	if (error)
		return error;
	/* Signals only: to start a thread allocates memory, and who forks may have the allocator's lock. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	v->saver = 0;
	v->has_thread = true;
	error = thread_start(&v->thread, saver, v);
	v->has_thread = error == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		end(v);
		return error_set(-error, "no thread to save on: %s", strerror(-error));
	}
	*out = v;
	return 0;
}

bool quire_save_progress(const quire_save_t *v, uint64_t *done, uint64_t *of)
{
	if (done)
		*done = atomic_load(&v->done) << PAGE_SHIFT;
	if (of)
		*of = v->of;
	return atomic_load(&v->ended);
}

void quire_save_cancel(quire_save_t *v)
{
	if (!v)
		return;
	atomic_store(&v->cancel, 1);
	futex_wake(&v->cancel, 1, false);
}

int quire_save_end(quire_save_t *v)
{
	struct call call;
	int error;

	if (!v)
		return error_set(EINVAL, "a NULL save");
	if (process_is_strange())
		return not_ours();
	/* Not by joining it: a handler that forks meanwhile would find another thread in its place. */
	while (v->has_thread && !atomic_load(&v->ended))
		futex_wait(&v->ended, 0, 0, false);
	call_enter(&call);
	if (v->has_thread)
		pthread_join(v->thread, NULL);
	v->has_thread = false;
	call_leave(&call);
	error = v->result;
	if (error)
		error_set(-error, "%s", v->words);
	end(v);
	return error;
}

/* The pager closes: its snapshots go. Handles stay good for quire_save_end. */
void saves_stop(struct quire *q)
{
	while (q->saves) {
		struct quire_save *v = q->saves;

		quire_save_cancel(v);
		if (v->has_thread)
			pthread_join(v->thread, NULL);
		v->has_thread = false;
		let_go(v);
		v->q = NULL;
	}
}

/* In a child of fork: it is the parent's. */
static void forget(struct quire_save *v)
{
	struct arena self = v->self;

	image_forget(&v->writer);
	if (!v->has_handle) {
		arena_close(&self);
		return;
	}
	kernel_drop(v->bytes, 2 * STEP_BYTES);
	v->has_thread = false;
	v->result = -ECHILD;
	not_ours();
	snprintf(v->words, sizeof v->words, "%s", error_message());
	/* The handle may be given up when the pager is closed. */
	v->q = NULL;
	say_ended(v);
}

/*
 * The thread that forked is the one that saves: a signal handler did it, or the program's function. It goes
 * on in the child, and finds that it has failed.
 */
static void end_soon(struct quire_save *v)
{
	image_disown(&v->writer, ECHILD);
	v->disowned = true;
	/* It may fork again. (The bare call: what is known of the thread is its parent's.) */
	v->saver = (int32_t)syscall(SYS_gettid);
	atomic_store(&v->cancel, 1);
}

void saves_fork_in_child(struct quire *q, int32_t forked)
{
	for (struct quire_save *v = q->saves, *next; v; v = next) {
		next = v->next;
		if (v->saver == forked) {
			end_soon(v);
		} else {
			let_go(v);
			forget(v);
		}
	}
}

void saves_lose(struct quire *q, int32_t forked)
{
	for (struct quire_save *v = q->saves, *next; v; v = next) {
		next = v->next;
		if (v->saver == forked) {
			end_soon(v);
			v->q = NULL;
		} else {
			forget(v);
		}
	}
	q->saves = NULL;
}
