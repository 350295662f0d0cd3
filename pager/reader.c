/* SPDX-License-Identifier: MIT */
/*
 * pager/reader.c - the reader thread: starts and completes the reads of threads
 * that may leave no request of io_uring behind (readin.c).
 *
 * Others post clusters, the reader takes them, with reads in flight or without:
 * a disk does sequential reads at its full rate only while it has some before
 * it, and the next window is asked for while the last is under way. So with reads
 * in flight it sleeps for both, in poll(2) on its ring and an eventfd; without, on
 * a futex. A thread that may not write to the eventfd (a seccomp filter) is served
 * when those reads have ended.
 *
 * R2  No post is overlooked: the reader says that it sleeps before it looks for
 *     posts a last time, who posts looks for that after it has posted, and both
 *     are sequentially consistent.
 */
#include "pager/readin.h"

#include "base/quiesce.h"
#include "base/thread.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How soon to try again what the kernel, short of memory, would not start. */
#define OWED_MS 1
/* The same for a run: all are in use by reads of others. */
#define RUN_NS UINT64_C(100000)

/* How the reader sleeps, or is about to (reader.asleep). */
enum { AWAKE, FOR_POSTS, FOR_READS_TOO };

bool reader_reserve(struct pager *p)
{
	struct reader *r = &p->reader;
	bool room;

	lock_acquire(&r->lock);
	room = r->count + r->reserved < READ_POSTS;
	r->reserved += room;
	lock_release(&r->lock);
	return room;
}

void reader_cancel(struct pager *p)
{
	lock_acquire(&p->reader.lock);
	p->reader.reserved--;
	lock_release(&p->reader.lock);
}

/*
 * In the program's threads, perhaps in a signal handler. Whoever posts does it:
 * one that relied on another might wait until that has the CPU again. The bare
 * call: libc's is a cancellation point, and a fault must not be one.
 */
static void wake(struct reader *r)
{
	uint64_t one = 1;
	int saved = errno;

	switch (atomic_load(&r->asleep)) {
	case FOR_POSTS:
		futex_wake(&r->posted, 1, false);
		break;
	case FOR_READS_TOO:
		syscall(SYS_write, r->event, &one, sizeof one);
		break;
	default:
		break;
	}
	errno = saved;
}

void reader_post(struct pager *p, uint32_t c, uint32_t n)
{
	struct reader *r = &p->reader;

	lock_acquire(&r->lock);
	r->reserved--;
	r->post[(r->head + r->count++) % READ_POSTS] = (struct read_post){ .cluster = c, .n = n };
	/* The reader's reference: the poster's ends before the read does. */
	atomic_fetch_add(&p->clusters[c].refs, 1);
	lock_release(&r->lock);
	atomic_fetch_add(&r->posted, 1);
	wake(r);
}

static bool next_post(struct reader *r, struct read_post *out)
{
	bool some;

	lock_acquire(&r->lock);
	some = r->count > 0;
	if (some) {
		*out = r->post[r->head];
		r->head = (r->head + 1) % READ_POSTS;
		r->count--;
	}
	lock_release(&r->lock);
	return some;
}

/* The first run for a cluster. */
static struct swap_run *first_run(struct pager *p, struct read_queue *q)
{
	struct swap_run *run;

	while (!(run = run_get(p, SWAP_READ)))
		if (!readin_reap(p, q, true))
			futex_wait(&p->reader.stop, 0, RUN_NS, false);
	return run;
}

/* Until a read has arrived, or something was posted after posted was `seen`. */
static void sleep_for_work(struct reader *r, struct read_queue *q, uint32_t seen)
{
	struct pollfd fds[] = {
		{ .fd = r->event, .events = POLLIN },
		{ .fd = swap_queue_fd(q->io), .events = POLLIN },
	};
	uint64_t ignored;

	if (!atomic_load(&q->in_flight)) {
		atomic_store(&r->asleep, FOR_POSTS);
		futex_wait(&r->posted, seen, 0, false);
	} else {
		atomic_store(&r->asleep, FOR_READS_TOO);
		if (atomic_load(&r->posted) == seen)
			poll(fds, 2, swap_queue_owes(q->io) ? OWED_MS : -1);
	}
	atomic_store(&r->asleep, AWAKE);
	if (fds[0].revents)
		(void)!read(r->event, &ignored, sizeof ignored);
}

static void *reader_main(void *argument)
{
	struct pager *p = argument;
	struct reader *r = &p->reader;
	struct read_queue *q = &p->reads[0];

	thread_is_ours = true;
	prctl(PR_SET_NAME, "quire-reader");
	for (;;) {
		uint32_t seen = atomic_load(&r->posted);
		struct read_post next;
		bool added = false, reaped;

		service_enter();
		while (atomic_load(&q->in_flight) < CLUSTER_PAGES && next_post(r, &next)) {
			readin_add(p, q, first_run(p, q), next.cluster, next.n);
			cluster_put(p, next.cluster);
			added = true;
		}
		if (added)
			swap_queue_flush(q->io);
		/* One at a time: what is posted meanwhile need not wait for the others' checksums. */
		reaped = readin_reap(p, q, false);
		service_leave();
		if (reaped)
			continue;
		if (atomic_load(&r->stop) && !atomic_load(&q->in_flight))
			return NULL;
		sleep_for_work(r, q, seen);
	}
}

int reader_start(struct pager *p)
{
	struct reader *r = &p->reader;
	int error;

	r->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->event < 0)
		return -errno;
	error = thread_start(&r->thread, reader_main, p);
	if (error)
		close(r->event);
	r->started = error == 0;
	return error;
}

void reader_stop(struct pager *p)
{
	struct reader *r = &p->reader;

	if (!r->started)
		return;
	atomic_store(&r->stop, 1);
	atomic_fetch_add(&r->posted, 1);
	wake(r);
	pthread_join(r->thread, NULL);
	close(r->event);
	r->started = false;
}
