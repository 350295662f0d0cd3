/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd_thread.c - the engine `uffd`: faults arrive as messages, a handler
 * thread serves them. System calls on absent pages work: they wait.
 *
 * The handler never sleeps for a page, for the disk or for memory:
 *   - a busy page: it marks the entry and forgets the fault; whoever ends the
 *     wait wakes the faulting thread, which faults again;
 *   - a read: it starts it, and maps the page when it arrives;
 *   - no memory: the fault is put off until the reclaimer has some;
 *   - no queue for a read: it is put off until reads arrive, however long the
 *     disk takes.
 * So it cannot be part of a circle of waits. One more danger is met by number
 * and page (uffd_answer_reclaimer): the thread that reclaims may itself run into an absent page while it copies
 * one out (the program discarded it under its hands); that fault is answered
 * with zeros at once, whatever the entry says; write-protected ones, as it will
 * drop the page: a write of the program's waits for the entry.
 *
 * Placement: the wake-up of a thread on an idle CPU costs many times the work
 * of a minor fault. After each fault the handler looks for the next one for a
 * while before it sleeps, which keeps its CPU awake for just as long as faults
 * keep coming (option spin).
 */
#include "vm/uffd.h"

#include "base/error.h"
#include "base/kernel.h"
#include "vm/vm.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MESSAGES 16
#define DEFERRED_MAX 1024
#define REFUSED_MAX 64

/* Looks for work, each a system call or more, between two turns of others. */
#define YIELD_EVERY 8

/* How long a refusal stands. */
#define REFUSAL_NS UINT64_C(50000000)

struct deferred {
	struct uffd_access access;
	struct patience patience;
};

/* An access to it was refused (it is poisoned, if the kernel can); later ones are to be tried anew. */
struct refused {
	char *page;
	uint64_t until;
};

struct handler {
	struct engine *e;
	pthread_t thread;
	int event; /* eventfd: replenished, or stop */
	_Atomic uint32_t stop;
	uint32_t deferred_count;
	struct deferred deferred[DEFERRED_MAX];
	struct lock refused_lock;
	_Atomic uint32_t refused_count; /* oldest first; refused lock */
	struct refused refused[REFUSED_MAX];
	struct uffd_restless restless;
	struct arena self;
};

static char *page_of(const struct uffd_access *a)
{
	return (char *)((uintptr_t)a->address & ~(uintptr_t)(PAGE_BYTES - 1));
}

/* A system call that a signal interrupts in its fault comes again and again: once is enough. */
static bool is_deferred(const struct handler *h, const struct uffd_access *a)
{
	for (uint32_t i = 0; i < h->deferred_count; i++)
		if (h->deferred[i].access.tid == a->tid &&
		    page_of(&h->deferred[i].access) == page_of(a))
			return true;
	return false;
}

static void defer(struct handler *h, const struct uffd_access *a, struct patience patience)
{
	if (h->deferred_count < DEFERRED_MAX)
		h->deferred[h->deferred_count++] = (struct deferred){ *a, patience };
	else
		uffd_wake(h->e, page_of(a), 1); /* it faults again */
}

/* => 0, -EBUSY: somebody is at the page just now, or why the kernel does not undo it */
static int end_refusal(struct handler *h, char *page)
{
	struct quire_region *r = registry_find(page);
	int error = 0;

	if (r && r->q == h->e->q)
		error = discard_poison(r, (uint64_t)(page - r->base) >> PAGE_SHIFT);
	if (r)
		region_put(r);
	/* Where nothing was poisoned, a thread that could not be told sleeps still. */
	if (!error && !h->e->uffd.poison)
		uffd_wake(h->e, page, 1);
	return error;
}

/*
 * End the refusals that are due by now: their pages are absent again, and the
 * next fault is looked at afresh. => how many of these are worth another try at once
 */
static uint32_t end_refusals(struct handler *h, uint64_t now)
{
	uint32_t kept = 0, left = 0;

	lock_acquire(&h->refused_lock);
	for (uint32_t i = 0; i < h->refused_count; i++) {
		bool due = h->refused[i].until <= now;
		int error = due ? end_refusal(h, h->refused[i].page) : 0;

		if (due && !error)
			continue;
		left += error == -EBUSY;
		h->refused[kept++] = h->refused[i];
	}
	h->refused_count = kept;
	lock_release(&h->refused_lock);
	return left;
}

/* => refused lock held; false: the list is full */
static bool note_refusal(struct handler *h, char *page)
{
	for (uint32_t i = 0; i < h->refused_count; i++)
		if (h->refused[i].page == page)
			return true;
	if (h->refused_count == REFUSED_MAX)
		return false;
	h->refused[h->refused_count++] = (struct refused){ page, now_ns() + REFUSAL_NS };
	return true;
}

/* => false: not now */
static bool refuse(struct handler *h, struct quire_region *r, const struct uffd_access *a)
{
	char *page = page_of(a);
	bool noted;

	if (h->refused_count == REFUSED_MAX)
		end_refusals(h, UINT64_MAX);
	/* In the list before the thread can see it: it may ask for an end at once. */
	lock_acquire(&h->refused_lock);
	noted = note_refusal(h, page);
	if (noted && h->e->uffd.poison)
		uffd_poison(h->e, page);
	lock_release(&h->refused_lock);
	if (!noted)
		return false;
	/* Poisoning wakes; if a page is there after all, we must. */
	if (h->e->uffd.poison)
		uffd_wake(h->e, page, 1);
	else
		uffd_refuse(h->e, r, a, &h->restless);
	return true;
}

/* patience: what is left of it if the fault was put off before, for want of memory; else zeros. */
static void serve(struct handler *h, const struct uffd_access *a, struct patience patience)
{
	static const struct patience anew;
	struct quire_region *r = registry_find(a->address);
	bool refused = false;
	struct fault f;

	if (!r || r->q != h->e->q) {
		/* Its region is being destroyed: it will find no mapping. */
		if (r)
			region_put(r);
		uffd_wake(h->e, page_of(a), 1);
		return;
	}
	f = (struct fault){ .region = r,
		            .page = (uint64_t)(a->address - r->base) >> PAGE_SHIFT,
		            .write = a->write,
		            .may_sleep = false };
	switch (fault_serve(&f)) {
	case FAULT_DONE:
		/* Mapping wakes; so does whoever ends the wait for a busy page. */
	case FAULT_WAITING:
		break;
	case FAULT_DEFERRED:
		if (!patience_ends(&h->e->q->pager, &patience)) {
			defer(h, a, patience);
			break;
		}
		fault_report(r, f.page, QUIRE_ERROR_NO_MEMORY, ENOMEM);
		refused = true;
		break;
	case FAULT_CONGESTED:
		/* The disk is slow, which is no lack of memory: patience begins anew. */
		defer(h, a, anew);
		break;
	case FAULT_IOERR:
	case FAULT_NOMEM:
	case FAULT_REFUSED:
		refused = true;
		break;
	}
	if (refused && !refuse(h, r, a))
		defer(h, a, anew);
	region_put(r);
}

static void message(struct handler *h, const struct uffd_msg *m)
{
	uint64_t flags = m->arg.pagefault.flags;
	struct uffd_access a = {
		.address = (char *)(uintptr_t)m->arg.pagefault.address,
		.tid = (int32_t)m->arg.pagefault.feat.ptid,
		.write = flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP),
	};

	if (m->event != UFFD_EVENT_PAGEFAULT)
		return;
	if (!(flags & UFFD_PAGEFAULT_FLAG_WP) && uffd_answer_reclaimer(h->e, &a))
		return;
	if (!is_deferred(h, &a))
		serve(h, &a, (struct patience){ .since = 0 });
}

static void serve_deferred(struct handler *h)
{
	uint32_t n = h->deferred_count;

	/* Each puts back one at most, behind what has been looked at. */
	h->deferred_count = 0;
	readin_batch_begin(&h->e->q->pager);
	for (uint32_t i = 0; i < n; i++) {
		struct deferred d = h->deferred[i];

		serve(h, &d.access, d.patience);
	}
	readin_batch_end(&h->e->q->pager);
}

/* => messages served */
static int receive(struct handler *h)
{
	struct uffd_msg m[MESSAGES];
	ssize_t n = read(h->e->uffd.fd, m, sizeof m);

	if (n > (ssize_t)sizeof m[0])
		readin_batch_begin(&h->e->q->pager);
	for (ssize_t i = 0; i < n / (ssize_t)sizeof m[0]; i++)
		message(h, &m[i]);
	if (n > (ssize_t)sizeof m[0])
		readin_batch_end(&h->e->q->pager);
	return n > 0 ? (int)(n / (ssize_t)sizeof m[0]) : 0;
}

static uint32_t arrivals(struct handler *h)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < READ_QUEUES; i++)
		n += readin_poll(&h->e->q->pager, i);
	return n;
}

static bool reads_in_flight(const struct handler *h)
{
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		if (readin_fd(&h->e->q->pager, i) >= 0)
			return true;
	return false;
}

/* Until when to stay awake, if nothing more happens. */
static uint64_t awake_until(const struct handler *h)
{
	return now_ns() + (reads_in_flight(h) ? h->e->q->look_ns : h->e->q->spin_ns);
}

static void sleep_for_work(struct handler *h)
{
	struct pollfd fds[2 + READ_QUEUES] = {
		{ .fd = h->e->uffd.fd, .events = POLLIN },
		{ .fd = h->event, .events = POLLIN },
	};
	nfds_t n = 2;
	bool again = h->deferred_count > 0;
	uint64_t ignored;

	for (uint32_t i = 0; i < READ_QUEUES; i++) {
		int fd = readin_fd(&h->e->q->pager, i);

		if (fd >= 0)
			fds[n++] = (struct pollfd){ .fd = fd, .events = POLLIN };
		again |= readin_owes(&h->e->q->pager, i);
	}
	/* Deferred faults are retried now and then: a wake-up may have crossed with their deferral. */
	if (poll(fds, n, again ? 2 : h->refused_count ? 50 : -1) >= 0 && fds[1].revents)
		(void)!read(h->event, &ignored, sizeof ignored);
}

static void *handler_main(void *argument)
{
	struct handler *h = argument;

	thread_is_ours = true;
	prctl(PR_SET_NAME, "quire-handler");
	while (!atomic_load(&h->stop)) {
		uint64_t until = awake_until(h);
		uint32_t idle = 0;
		bool busy = false;

		do {
			bool now = receive(h) > 0;

			now |= arrivals(h) > 0;
			if (now) {
				busy = true;
				until = awake_until(h);
				idle = 0;
			} else if (++idle % YIELD_EVERY == 0) {
				sched_yield();
			}
			/* What was put off wants a look after each arrival. */
		} while (h->e->q->spin_ns && !h->deferred_count && now_ns() < until);
		if (!busy || !h->e->q->spin_ns)
			sleep_for_work(h);
		serve_deferred(h);
		if (h->refused_count)
			end_refusals(h, now_ns());
	}
	return NULL;
}

static int thread_start(struct engine *e)
{
	struct arena a;
	struct handler *h;
	sigset_t all, old;
	int error = arena_open(&a, sizeof *h, false, "quire handler");

	if (error)
		return error;
	h = a.base;
	h->self = a;
	h->e = e;
	lock_init(&h->refused_lock, RANK_ENGINE);
	h->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (h->event < 0) {
		error = -errno;
		arena_close(&a);
		return error_set(-error, "eventfd: %s", strerror(-error));
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&h->thread, NULL, handler_main, h);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error) {
		close(h->event);
		arena_close(&a);
		return error_set(error, "no handler thread: %s%s", strerror(error), arena_hint());
	}
	e->uffd.handler = h;
	return 0;
}

static void poke(struct handler *h)
{
	uint64_t one = 1;

	(void)!write(h->event, &one, sizeof one);
}

static void thread_replenished(struct engine *e)
{
	if (e->uffd.handler)
		poke(e->uffd.handler);
}

static void thread_forgive(struct engine *e)
{
	struct handler *h = e->uffd.handler;

	while (h && h->refused_count && end_refusals(h, UINT64_MAX))
		sched_yield();
}

static int thread_open(struct engine *e, struct quire *q)
{
	(void)q;
	return uffd_open(e, false);
}

static void thread_close(struct engine *e)
{
	struct handler *h = e->uffd.handler;

	if (h) {
		struct arena a = h->self;

		atomic_store(&h->stop, 1);
		poke(h);
		pthread_join(h->thread, NULL);
		close(h->event);
		e->uffd.handler = NULL;
		arena_close(&a);
	}
	uffd_close(e);
}

const struct engine_ops engine_uffd = {
	.name = "uffd",
	.in_thread = false,
	.costs = "a handler thread serves faults; system calls on absent pages work",
	.open = thread_open,
	.start = thread_start,
	.close = thread_close,
	.attach = uffd_attach,
	.detach = uffd_detach,
	.attach_buffers = uffd_attach_buffers,
	.map = uffd_map,
	.map_zero = uffd_map_zero,
	.place = uffd_place,
	.unprotect = uffd_unprotect,
	.take = uffd_take,
	.drop = uffd_drop,
	.poison = uffd_poison,
	.wake = uffd_wake,
	.replenished = thread_replenished,
	.forgive = thread_forgive,
};
