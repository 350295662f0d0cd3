/* SPDX-License-Identifier: MIT */
/*
 * swapfile/pool.c - plain I/O behind struct io_ops: preadv(2) and pwritev(2) on
 * a few threads, where io_uring is forbidden or not there.
 *
 *   free --prepare--> prepared --submit--> queued ---> running ---> done --reap--> free
 *                                             (a worker)
 *
 * The workers are those of one file, whatever rings there are. They are started
 * with it: to start a thread later would allocate memory, perhaps for a fault of
 * the allocator's. One lock guards all lists, and is never held across I/O.
 *
 * Invariants
 *  W1  a request is in one list: its ring's prepared or done, the pool's queue;
 *      or in none, while a worker has it.
 *  W2  from when somebody has asked for it (fd), an eventfd is readable while its
 *      ring has something done, and only then. Who has asked may sleep for it
 *      still when another has taken what he was told of and gone: so that is not
 *      forgotten. Before, who looks awake pays no system call.
 */
#include "base/base.h"
#include "base/lock.h"
#include "base/thread.h"
#include "swapfile/io.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As many requests as run at a time: what a disk gains by more is little, and each is a thread. */
#define WORKERS 8u

struct job {
	struct io_request request;
	struct pool_ring *ring;
	struct job *next;
	int64_t result;
};

/* First in, first out. */
struct jobs {
	struct job *first, *last;
};

struct pool {
	int fd;
	unsigned workers;
	pthread_t thread[WORKERS];
	struct lock lock;
	struct jobs queue;       /* lock */
	unsigned idle;           /* lock: workers that sleep, or are about to */
	bool stop;               /* lock */
	_Atomic uint32_t posted; /* written under the lock; what idle workers sleep on */
};

struct pool_ring {
	struct pool *pool;
	size_t bytes; /* of this mapping */
	int event;
	struct job *free;       /* its user's */
	struct jobs prepared;   /* its user's */
	struct jobs done;       /* the pool's lock */
	unsigned running;       /* the same: queued, or with a worker */
	bool asked, told;       /* the same: see W2 */
	_Atomic unsigned ready; /* length of done, written under the lock */
	struct job job[];
};

static void put(struct jobs *jobs, struct job *job)
{
	job->next = NULL;
	if (jobs->first)
		jobs->last->next = job;
	else
		jobs->first = job;
	jobs->last = job;
}

static struct job *get(struct jobs *jobs)
{
	struct job *job = jobs->first;

	if (job)
		jobs->first = job->next;
	return job;
}

/* --------------------------------------------------------------- workers */

/* => lock held: the ring's descriptor says what W2 wants */
static void tell(struct pool_ring *r)
{
	uint64_t one = 1;

	if (!r->done.first || !r->asked || r->told)
		return;
	r->told = true;
	/* The bare calls, here and below: libc's are cancellation points. */
	syscall(SYS_write, r->event, &one, sizeof one);
}

/* => lock held; a worker sleeps with the lock free. => NULL: stop */
static struct job *next_job(struct pool *p)
{
	while (!p->queue.first && !p->stop) {
		uint32_t seen = atomic_load(&p->posted);

		p->idle++;
		lock_release(&p->lock);
		futex_wait(&p->posted, seen, 0, false);
		lock_acquire(&p->lock);
		p->idle--;
	}
	return get(&p->queue);
}

static void *worker(void *argument)
{
	struct pool *p = argument;
	struct job *job;

	prctl(PR_SET_NAME, "quire-io");
	lock_acquire(&p->lock);
	while ((job = next_job(p)) != NULL) {
		struct pool_ring *r = job->ring;

		lock_release(&p->lock);
		job->result = io_sync_transfer(p->fd, &job->request, NULL);
		lock_acquire(&p->lock);
		r->running--;
		put(&r->done, job);
		atomic_fetch_add(&r->ready, 1);
		tell(r);
	}
	lock_release(&p->lock);
	return NULL;
}

static void pool_detach(void *arg)
{
	struct pool *p = arg;

	lock_acquire(&p->lock);
	p->stop = true;
	atomic_fetch_add(&p->posted, 1);
	lock_release(&p->lock);
	futex_wake(&p->posted, INT32_MAX, false);
	for (unsigned i = 0; i < p->workers; i++)
		pthread_join(p->thread[i], NULL);
	munmap(p, sizeof *p);
}

static int pool_attach(int fd, void **arg)
{
	struct pool *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
	                      -1, 0);
	int error = 0;

	if (p == MAP_FAILED)
		return -ENOMEM;
	p->fd = fd;
	lock_init(&p->lock, RANK_IO);
	while (p->workers < WORKERS &&
	       (error = thread_start(&p->thread[p->workers], worker, p)) == 0)
		p->workers++;
	/* Fewer will do. */
	if (p->workers == 0) {
		munmap(p, sizeof *p);
		return error;
	}
	*arg = p;
	return 0;
}

/* ----------------------------------------------------------------- rings */

static int pool_open(void **out, int fd, unsigned depth, unsigned flags, void *arg)
{
	size_t bytes = sizeof(struct pool_ring) + depth * sizeof(struct job);
	struct pool_ring *r;

	(void)fd;
	/* Who would wait for one request alone does it sooner by himself (io_ops.transfer). */
	if (flags & IO_RING_OWN)
		return -ENOTSUP;
	r = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r == MAP_FAILED)
		return -ENOMEM;
	r->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->event < 0) {
		int error = -errno;

		munmap(r, bytes);
		return error;
	}
	r->pool = arg;
	r->bytes = bytes;
	for (unsigned i = 0; i < depth; i++) {
		r->job[i].ring = r;
		r->job[i].next = r->free;
		r->free = &r->job[i];
	}
	*out = r;
	return 0;
}

static bool pool_prepare(void *ring, const struct io_request *request)
{
	struct pool_ring *r = ring;
	struct job *job = r->free;

	if (!job)
		return false;
	r->free = job->next;
	job->request = *request;
	put(&r->prepared, job);
	return true;
}

static int pool_fd(void *ring)
{
	struct pool_ring *r = ring;

	lock_acquire(&r->pool->lock);
	r->asked = true;
	tell(r);
	lock_release(&r->pool->lock);
	return r->event;
}

static int pool_wait(void *ring)
{
	struct pool_ring *r = ring;
	struct pollfd p = { .events = POLLIN };

	if (atomic_load(&r->ready))
		return 0;
	p.fd = pool_fd(r);
	return syscall(SYS_ppoll, &p, 1, NULL, NULL, 0) < 0 && errno != EINTR ? -errno : 0;
}

static int pool_submit(void *ring, bool wait)
{
	struct pool_ring *r = ring;
	struct pool *p = r->pool;
	unsigned idle = 0, n = 0;
	struct job *job;

	if (r->prepared.first) {
		lock_acquire(&p->lock);
		for (; (job = get(&r->prepared)) != NULL; n++)
			put(&p->queue, job);
		r->running += n;
		idle = p->idle;
		atomic_fetch_add(&p->posted, 1);
		lock_release(&p->lock);
	}
	if (idle)
		futex_wake(&p->posted, (int)MIN(n, idle), false);
	return wait ? pool_wait(r) : 0;
}

static bool pool_reap(void *ring, void **tag, int64_t *result)
{
	struct pool_ring *r = ring;
	struct job *job;
	uint64_t ignored;

	if (!atomic_load(&r->ready))
		return false;
	lock_acquire(&r->pool->lock);
	job = get(&r->done);
	atomic_fetch_sub(&r->ready, 1);
	if (!r->done.first && r->told) {
		r->told = false;
		syscall(SYS_read, r->event, &ignored, sizeof ignored);
	}
	lock_release(&r->pool->lock);
	*tag = job->request.tag;
	*result = job->result;
	job->next = r->free;
	r->free = job;
	return true;
}

static void pool_close(void *ring)
{
	struct pool_ring *r = ring;
	unsigned running;
	int64_t result;
	void *tag;

	/* What is on its way has this memory, and its buffers. */
	do {
		while (pool_reap(r, &tag, &result))
			continue;
		lock_acquire(&r->pool->lock);
		running = r->running;
		lock_release(&r->pool->lock);
	} while (running && (pool_wait(r), true));
	close(r->event);
	munmap(r, r->bytes);
}

static void pool_forget(void *ring)
{
	struct pool_ring *r = ring;

	close(r->event);
	munmap(r, r->bytes);
}

static void pool_desert(void *arg)
{
	munmap(arg, sizeof(struct pool));
}

const struct io_ops io_pool_ops = {
	.name = "sync",
	.attach = pool_attach,
	.detach = pool_detach,
	.desert = pool_desert,
	.open = pool_open,
	.close = pool_close,
	.forget = pool_forget,
	.prepare = pool_prepare,
	.submit = pool_submit,
	.wait = pool_wait,
	.reap = pool_reap,
	.fd = pool_fd,
	.transfer = io_sync_transfer,
};
