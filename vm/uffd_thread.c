/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd_thread.c - the engine `uffd`: faults arrive as messages, a handler
 * thread serves them. System calls on absent pages work: they wait.
 *
 * The handler never sleeps for a page, for the disk or for memory:
 *   - a busy page: it marks the entry and forgets the fault; whoever ends the
 *     wait wakes the faulting thread, which faults again;
 *   - a read: it starts it, and maps the page when it arrives;
 *   - no memory: the fault is put off until the reclaimer has some.
 * So it cannot be part of a circle of waits. One more danger is met by number:
 * the thread that reclaims may itself run into an absent page while it copies
 * one out (the program discarded it under its hands); that fault is answered
 * with zeros at once, whatever the entry says.
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
#define DEFERRED_MAX 256
#define REFUSED_MAX 64
#define SPIN_AUTO_NS UINT64_C(50000)

/* How long a fault is put off before it is refused, and how long a refusal stands. */
#define PATIENCE_NS UINT64_C(500000000)
#define REFUSAL_NS UINT64_C(50000000)

struct deferred {
	char *page;
	bool write;
	uint64_t since;         /* ns: the first time, or the last that reclaim got anywhere */
	uint32_t progress;      /* pager.progress then */
};

/* A page that is poisoned, so that its fault ends in SIGBUS; later accesses are to be tried anew. */
struct refused {
	char *page;
	uint64_t until;
};

struct handler {
	struct engine *e;
	pthread_t thread;
	int event;                      /* eventfd: replenished, or stop */
	_Atomic uint32_t stop;
	uint64_t spin_ns;
	uint32_t deferred_count;
	struct deferred deferred[DEFERRED_MAX];
	struct lock refused_lock;
	_Atomic uint32_t refused_count; /* oldest first; refused lock */
	struct refused refused[REFUSED_MAX];
	struct arena self;
};

/* again: the fault was put off before; NULL if not. */
static void defer(struct handler *h, char *page, bool write, const struct deferred *again)
{
	uint32_t progress = atomic_load(&h->e->q->pager.progress);
	bool stuck = again && again->progress == progress;

	if (h->deferred_count < DEFERRED_MAX)
		h->deferred[h->deferred_count++] = (struct deferred){
			page, write, stuck ? again->since : now_ns(), progress
		};
	else
		uffd_wake(h->e, page, 1);       /* it faults again */
}

/* => false: somebody is at the page just now */
static bool end_refusal(struct handler *h, char *page)
{
	struct quire_region *r = registry_find(page);
	bool done = true;

	if (r && r->q == h->e->q)
		done = discard_poison(r, (uint64_t)(page - r->base) >> PAGE_SHIFT);
	if (r)
		region_put(r);
	return done;
}

/*
 * End the refusals that are due by now: their pages are absent again, and the
 * next fault is looked at afresh. => how many of these could not be ended yet
 */
static uint32_t end_refusals(struct handler *h, uint64_t now)
{
	uint32_t kept = 0, left = 0;

	lock_acquire(&h->refused_lock);
	for (uint32_t i = 0; i < h->refused_count; i++) {
		bool due = h->refused[i].until <= now;

		if (due && end_refusal(h, h->refused[i].page))
			continue;
		left += due;
		h->refused[kept++] = h->refused[i];
	}
	h->refused_count = kept;
	lock_release(&h->refused_lock);
	return left;
}

static void refuse(struct handler *h, struct quire_region *r, uint64_t page)
{
	char *at = region_page(r, page);

	while (h->refused_count == REFUSED_MAX && end_refusals(h, UINT64_MAX) == REFUSED_MAX)
		sched_yield();
	/* In the list before the thread can see it: it may ask for an end at once. */
	lock_acquire(&h->refused_lock);
	h->refused[h->refused_count++] = (struct refused){ at, now_ns() + REFUSAL_NS };
	if (uffd_poison(h->e, at) != 0)
		h->refused_count--;
	lock_release(&h->refused_lock);
	/* Poisoning wakes; if a page is there after all, we must. */
	uffd_wake(h->e, at, 1);
}

static void serve(struct handler *h, char *address, bool write, const struct deferred *again)
{
	struct quire_region *r = registry_find(address);
	struct fault f;

	address = (char *)((uintptr_t)address & ~(uintptr_t)(PAGE_BYTES - 1));
	if (!r || r->q != h->e->q) {
		/* Its region is being destroyed: it will find no mapping. */
		if (r)
			region_put(r);
		uffd_wake(h->e, address, 1);
		return;
	}
	f = (struct fault){ .region = r, .page = (uint64_t)(address - r->base) >> PAGE_SHIFT,
			    .write = write, .may_sleep = false };
	switch (fault_serve(&f)) {
	case FAULT_DONE:
		/* Mapping wakes; so does whoever ends the wait for a busy page. */
	case FAULT_WAITING:
		break;
	case FAULT_DEFERRED:
		if (!again || now_ns() - again->since < PATIENCE_NS) {
			defer(h, address, write, again);
			break;
		}
		fault_report(r, f.page, QUIRE_ERROR_NO_MEMORY, ENOMEM);
		refuse(h, r, f.page);
		break;
	case FAULT_IOERR:
	case FAULT_NOMEM:
	case FAULT_REFUSED:
		refuse(h, r, f.page);
		break;
	}
	region_put(r);
}

static void message(struct handler *h, const struct uffd_msg *m)
{
	char *address = (char *)(uintptr_t)m->arg.pagefault.address;
	bool write;

	if (m->event != UFFD_EVENT_PAGEFAULT)
		return;
	write = m->arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
	if ((int32_t)m->arg.pagefault.feat.ptid ==
		    atomic_load(&h->e->q->pager.reclaimer_tid) &&
	    !(m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)) {
		char *page = (char *)((uintptr_t)address & ~(uintptr_t)(PAGE_BYTES - 1));

		uffd_map_zero(h->e, page, 1, false);
		uffd_wake(h->e, page, 1);
		return;
	}
	serve(h, address, write, NULL);
}

static void serve_deferred(struct handler *h)
{
	uint32_t n = h->deferred_count;
	struct deferred list[DEFERRED_MAX];

	if (n == 0)
		return;
	memcpy(list, h->deferred, n * sizeof list[0]);
	h->deferred_count = 0;
	for (uint32_t i = 0; i < n; i++)
		serve(h, list[i].page, list[i].write, &list[i]);
}

/* => messages served */
static int receive(struct handler *h)
{
	struct uffd_msg m[MESSAGES];
	ssize_t n = read(h->e->uffd.fd, m, sizeof m);

	for (ssize_t i = 0; i < n / (ssize_t)sizeof m[0]; i++)
		message(h, &m[i]);
	return n > 0 ? (int)(n / (ssize_t)sizeof m[0]) : 0;
}

static uint32_t arrivals(struct handler *h)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < READ_QUEUES; i++)
		n += readin_poll(&h->e->q->pager, i);
	return n;
}

static void sleep_for_work(struct handler *h)
{
	struct pollfd fds[2 + READ_QUEUES] = {
		{ .fd = h->e->uffd.fd, .events = POLLIN },
		{ .fd = h->event, .events = POLLIN },
	};
	nfds_t n = 2;
	uint64_t ignored;

	for (uint32_t i = 0; i < READ_QUEUES; i++) {
		int fd = readin_fd(&h->e->q->pager, i);

		if (fd >= 0)
			fds[n++] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	/* Deferred faults are retried now and then: a wake-up may have crossed with their deferral. */
	if (poll(fds, n, h->deferred_count ? 2 : h->refused_count ? 50 : -1) >= 0 && fds[1].revents)
		(void)!read(h->event, &ignored, sizeof ignored);
}

static void *handler_main(void *argument)
{
	struct handler *h = argument;

	thread_is_ours = true;
	prctl(PR_SET_NAME, "quire-handler");
	while (!atomic_load(&h->stop)) {
		uint64_t until = now_ns() + h->spin_ns;
		bool busy = false;

		do {
			bool now = receive(h) > 0;

			now |= arrivals(h) > 0;
			if (now) {
				busy = true;
				until = now_ns() + h->spin_ns;
			} else {
				cpu_relax();
			}
		} while (h->spin_ns && now_ns() < until);
		if (!busy || !h->spin_ns)
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
		return error_set(ENOMEM, "no memory for the handler");
	h = a.base;
	h->self = a;
	h->e = e;
	h->spin_ns = e->q->spin_us >= 0 ? (uint64_t)e->q->spin_us * 1000 : SPIN_AUTO_NS;
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
		return error_set(error, "no handler thread: %s", strerror(error));
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
