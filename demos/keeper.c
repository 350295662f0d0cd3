/* SPDX-License-Identifier: MIT */
/*
 * demos/keeper.c - dumps beside a writer; see keeper.h.
 *
 * In reading order: memory; by snapshot; by fork; the thread and its calls.
 */
#define _GNU_SOURCE
#include "keeper.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "demo.h"
#include "dump.h"
#include "footprint.h"

#define DUMPS_MAX 100000u
#define NICE 10 /* of who writes a dump; the thread on which Quire saves has it, too */

/* ----------------------------------------------------------------- memory */

/*
 * Of all processes, the child's (in bytes) included, without the log. What the pager has in memory
 * is not always mapped, and then its own figures say more than the kernel's.
 */
static uint64_t memory_now(const struct keeper *k, uint64_t child)
{
	uint64_t log = workload_log_bytes(k->workload), all = footprint_of(getpid()).share + child;
	struct quire_stats stats;

	all -= log < all ? log : all;
	if (!k->q)
		return all;
	check(quire_stats_get(k->q, &stats), "statistics");
	stats.resident += stats.standby + stats.buffers + stats.metadata;
	return stats.resident > all ? stats.resident : all;
}

static void look_at_memory(struct keeper *k, uint64_t child)
{
	uint64_t now = memory_now(k, child), rest = k->before + k->store->used - k->used_before;

	if (now > k->peak)
		k->peak = now;
	/* A store that grows is not what a dump costs. */
	if (now > rest && now - rest > k->extra)
		k->extra = now - rest;
}

/* Wait for the end of a dump, 5 ms at a time, and look at the memory ten times a second. */
static void wait_a_little(struct keeper *k, unsigned *turns)
{
	usleep(5000);
	if (++*turns % 20 == 0)
		look_at_memory(k, k->child ? footprint_of(k->child).share : 0);
}

/* ------------------------------------------------------------ by snapshot */

static uint64_t copies_now(const struct keeper *k)
{
	struct quire_stats stats;

	check(quire_stats_get(k->q, &stats), "statistics");
	return stats.snapshot_copies;
}

/* The writer's part. */
static void begin_by_snapshot(struct keeper *k)
{
	uint64_t copies = copies_now(k);

	/* A snapshot is copied for until the next one is taken. */
	if (k->count)
		k->dumps[k->count - 1].copied = copies - k->copies;
	k->copies = copies;
	check(quire_snapshot_create(k->region, &k->snapshot), "taking a snapshot");
}

/* Save what differs from the snapshot before, which is needed no more then. */
static void end_by_snapshot(struct keeper *k, struct dump *d)
{
	quire_save_t *save;
	unsigned turns = 0;
	struct stat st;

	check(quire_save_begin(k->snapshot, d->path, k->base, NULL, &save), "saving");
	while (!quire_save_progress(save, NULL, NULL))
		wait_a_little(k, &turns);
	check(quire_save_end(save), "saving");
	d->took = seconds() - d->began;
	look_at_memory(k, 0);
	if (k->base)
		check(quire_snapshot_destroy(k->base), "giving up a snapshot");
	k->base = k->snapshot;
	if (stat(d->path, &st))
		die("%s: %s", d->path, strerror(errno));
	d->file_bytes = (uint64_t)st.st_size;
}

/* ---------------------------------------------------------------- by fork */

/* What the child tells. */
struct report {
	int error;
	double ended;
	uint64_t file_bytes, copied, memory;
};

/* The child: the store is, and stays, as it was. */
static _Noreturn void dump_in_child(struct keeper *k, const struct dump *d)
{
	struct report *r = k->report;
	uint64_t private;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpriority(PRIO_PROCESS, 0, NICE);
	private = footprint_of(getpid()).private;
	r->error = dump_write(d->path, k->store, k->store->bytes, &r->file_bytes);
	r->ended = seconds();
	/* What the parent has copied since is the child's alone: this is the most. */
	r->copied = (footprint_of(getpid()).private - private) / QUIRE_PAGE_SIZE;
	r->memory = footprint_of(getpid()).share;
	_exit(0);
}

static void begin_by_fork(struct keeper *k, const struct dump *d)
{
	*k->report = (struct report){ .error = -EINTR };
	k->child = fork();
	if (k->child < 0)
		die("fork: %s", strerror(errno));
	if (!k->child)
		dump_in_child(k, d);
}

static void end_by_fork(struct keeper *k, struct dump *d)
{
	unsigned turns = 0;
	int status;
	pid_t done;

	while ((done = waitpid(k->child, &status, WNOHANG)) == 0)
		wait_a_little(k, &turns);
	if (done < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
		die("the child of fork has failed: status %#x", done < 0 ? -1 : status);
	if (k->report->error)
		die("%s: %s", d->path, strerror(-k->report->error));
	k->child = 0;
	d->took = k->report->ended - d->began;
	d->file_bytes = k->report->file_bytes;
	d->copied = k->report->copied;
	look_at_memory(k, k->report->memory);
}

/* ------------------------------------------------------------- the thread */

static void *keep(void *argument)
{
	struct keeper *k = argument;
	struct progress bar = progress_start(k->label);

	for (;;) {
		struct dump *d;

		while (sem_wait(&k->begun))
			;
		if (k->stop)
			break;
		d = &k->dumps[k->count - 1];
		if (k->by_fork)
			end_by_fork(k, d);
		else
			end_by_snapshot(k, d);
		progress_show(&bar, (uint64_t)((seconds() - k->started) * 1000),
		              (uint64_t)(k->seconds * 1000), "%u dumps", k->count);
		k->busy = false;
	}
	progress_end(&bar);
	return NULL;
}

void keeper_start(struct keeper *k)
{
	k->dumps = calloc(DUMPS_MAX, sizeof *k->dumps);
	k->report = mmap(NULL, sizeof *k->report, PROT_READ | PROT_WRITE,
	                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!k->dumps || k->report == MAP_FAILED || sem_init(&k->begun, 0, 0))
		die("no memory");
	k->before = k->peak = memory_now(k, 0);
	k->used_before = k->store->used;
	k->started = seconds();
	if (pthread_create(&k->thread, NULL, keep, k))
		die("cannot make a thread");
}

/* All increments are needed in the end; of whole dumps the last two are kept. */
static void name_dump(const struct keeper *k, struct dump *d)
{
	snprintf(d->path, sizeof d->path, "%s/dump-%u", k->directory,
	         k->by_fork ? k->count % 2 : k->count);
}

bool keeper_begin(struct keeper *k)
{
	struct dump *d = &k->dumps[k->count];
	double now = seconds();

	if (k->busy || k->count == DUMPS_MAX)
		return false;
	name_dump(k, d);
	d->sequence = k->store->sequence;
	if (k->by_fork)
		begin_by_fork(k, d);
	else
		begin_by_snapshot(k);
	d->began = seconds();
	d->pause = d->began - now;
	k->count++;
	k->busy = true;
	sem_post(&k->begun);
	return true;
}

void keeper_stop(struct keeper *k)
{
	while (k->busy)
		usleep(1000);
	k->stop = true;
	sem_post(&k->begun);
	pthread_join(k->thread, NULL);
	if (k->by_fork)
		return;
	if (k->count)
		k->dumps[k->count - 1].copied = copies_now(k) - k->copies;
	if (k->base)
		check(quire_snapshot_destroy(k->base), "giving up a snapshot");
}
