/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd_thread.c - the engine `uffd`: faults arrive as messages, handler
 * threads serve them (uffd_handler.c). System calls on absent pages work: they
 * wait. Here: how many handlers there are, when they look, and when they sleep.
 *
 * The crew: the first handler is always on duty. One that finds several faults
 * waiting calls the next one up, which serves beside it, and goes when there
 * has been nothing to do for a while. Handlers know nothing of each other but
 * that: a message goes to one of them, entries order what they do to pages, and
 * each completes what arrives in any read queue.
 *
 * Placement: to wake a thread on an idle CPU costs many times the work of a
 * minor fault, and a fault has two such wake-ups, the handler's and the faulting
 * thread's. Against the first, a handler looks for the next fault for a while
 * before it sleeps (option spin). Against the second nothing can be done to the
 * thread, which is not ours, and which the scheduler wakes wherever a CPU is
 * idle. But it does so only where one is: with two CPUs, while single faults
 * come one after the other, both handlers stay awake, one on each. So the thread
 * is woken where it was, by the handler there, which was switched to when the
 * thread blocked: a fault is two context switches. The other handler looks
 * rarely, so as to leave it the fault, and the end of the read that comes of
 * it: woken from the other CPU a thread goes on later. With more CPUs than two
 * there would be more to keep awake than that is worth.
 *
 * All this pays where CPUs are ours. Where the disk is served by them too (see
 * swapfile/look.c) a handler that looks delays what it looks for: so whether to
 * is decided by how quickly faults follow each other either way (base/trial.h).
 */
#include "base/cpu.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "base/thread.h"
#include "base/trial.h"
#include "vm/uffd_handler.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HANDLERS_MAX 4u

/*
 * A handler of a pair that expects nothing looks for a fault whenever it has its
 * CPU back from somebody, who may have blocked in one; else rarely, because that
 * one is for the other handler, who has its CPU back.
 */
#define LOOK_EVERY_NS UINT64_C(16000)
#define PAUSE_NS UINT64_C(4000)
#define SOMEBODY_NS UINT64_C(1500)

/* The second of a pair leaves the first one's CPU no more often than this. */
#define MOVE_NS UINT64_C(200000)

/* Faults in a row, none of which had to wake the handler, that make a stream of them. */
#define STREAM 4u

/*
 * Who yields its CPU and has it back as late as this has competition for it, and
 * would be late for each fault. For a while it sleeps instead: who sleeps is
 * given the CPU when it is woken. The while is doubled each time that this
 * happens again soon after.
 */
#define CONTENDED_NS UINT64_C(500000)
#define WITHDRAW_MIN_NS UINT64_C(4000000)
#define WITHDRAW_MAX_NS UINT64_C(256000000)

enum watch { ASLEEP, AWAKE };
/* Between faults that are further apart than this the program was busy with something else. */
#define APART_NS UINT64_C(1000000)

struct member {
	struct handler handler;
	struct crew *crew;
	pthread_t thread;
	int event;                 /* eventfd: replenished, called up, or stop */
	_Atomic uint32_t off_duty; /* asleep, and no message wakes it */
	uint32_t stream;           /* faults since it slept */
	uint64_t moved;            /* ns */
	uint64_t withdrawn_until;  /* ns: it sleeps rather than waits awake */
	uint64_t withdrawn_for;
};

struct crew {
	_Atomic uint32_t stop;
	_Atomic bool paired;           /* two handlers on two CPUs: see above */
	struct member *_Atomic latest; /* of a pair, who took up a fault last */
	_Atomic int32_t cpu;           /* where the first was last seen awake */
	_Atomic uint64_t last;         /* ns: when there was something to do for any of them */
	_Atomic uint64_t fault;        /* ns: when one was taken up last */
	struct trial trial;            /* ASLEEP against AWAKE */
	struct refusals refusals;
	_Atomic uint32_t count; /* running */
	struct member member[HANDLERS_MAX];
	struct arena self;
};

static struct member *member_of(struct handler *h)
{
	return container_of(h, struct member, handler);
}

/* It is woken by every message, the others when they are called. */
static bool is_first(const struct member *m)
{
	return m == m->crew->member;
}

static void poke(struct member *m)
{
	uint64_t one = 1;

	/* The bare call: libc's is a cancellation point, and we may be in a call of the program's. */
	syscall(SYS_write, m->event, &one, sizeof one);
}

/* There may be more to do than one handler does at a time. */
static void call_next(struct handler *h)
{
	struct member *m = member_of(h), *next = m + 1;

	if (next < m->crew->member + m->crew->count &&
	    atomic_load_explicit(&next->off_duty, memory_order_relaxed) &&
	    atomic_exchange(&next->off_duty, 0))
		poke(next);
}

/* => pages that are being read */
static uint64_t reading(const struct member *m)
{
	return atomic_load_explicit(&m->handler.e->q->pager.reading, memory_order_relaxed);
}

/* => count faults were taken up just now */
static void note(struct crew *crew, uint32_t count)
{
	uint64_t now = now_ns();
	uint64_t last = atomic_exchange_explicit(&crew->fault, now, memory_order_relaxed);

	trial_took(&crew->trial, trial_round(&crew->trial), now > last ? now - last : 0, count);
	trial_way(&crew->trial);
}

/* One look for a read that has arrived, whose thread has waited longest, and for messages. => there was something */
static bool look(struct member *m)
{
	struct crew *crew = m->crew;
	/* What was put off wants what arrivals free, and costs a look at all of it each time. */
	uint32_t most = m->handler.deferred_count ? CLUSTER_PAGES : 1, n;
	bool arrived = false;

	while (most-- && handler_arrival(&m->handler))
		arrived = true;
	/* The next fault is likely that thread's, which wants this CPU first. */
	if (arrived && crew->paired && reading(m) == 0 && !m->handler.deferred_count)
		return true;
	n = handler_receive(&m->handler, call_next);

	m->stream += n;
	if (n && m->handler.e->q->spin_ns)
		note(crew, n);
	if (n && crew->paired) {
		atomic_store_explicit(&crew->latest, m, memory_order_relaxed);
		if (m->stream >= STREAM)
			call_next(&m->handler);
	}
	return arrived || n > 0;
}

/* Is there something to come for a handler of a pair? A single page that is being read is for who started that. */
static bool expects_something(struct member *m)
{
	uint64_t pages = reading(m);

	return pages > 1 ||
	       (pages == 1 && atomic_load_explicit(&m->crew->latest, memory_order_relaxed) == m);
}

/* -------------------------------------------------------------- asleep */

static void sleep_for_work(struct member *m)
{
	struct pager *p = &m->handler.e->q->pager;
	struct pollfd fds[2 + READ_QUEUES] = {
		{ .fd = m->event, .events = POLLIN },
		{ .fd = is_first(m) ? m->handler.e->uffd.fd : -1, .events = POLLIN },
	};
	nfds_t n = 2;
	bool again = m->handler.deferred_count > 0;
	/* Whoever has refused an access looks again: the others may be asleep already. */
	bool refused = m->crew->refusals.count > 0;
	uint64_t ignored;

	/* What it has started it completes: the kernel does so in its context. */
	for (uint32_t i = 0; i < READ_QUEUES; i++) {
		int fd = readin_fd(p, i);

		if (fd >= 0)
			fds[n++] = (struct pollfd){ .fd = fd, .events = POLLIN };
		again |= readin_owes(p, i);
	}
	m->stream = 0;
	atomic_store(&m->off_duty, !is_first(m));
	/* Deferred faults are retried now and then: a wake-up may have crossed with their deferral. */
	if (poll(fds, n, again ? 2 : refused ? 50 : -1) >= 0 && fds[0].revents)
		(void)!read(m->event, &ignored, sizeof ignored);
	atomic_store(&m->off_duty, 0);
}

/* --------------------------------------------------------------- awake */

static void pause_until(uint64_t until)
{
	while (now_ns() < until)
		cpu_relax();
}

static void withdraw(struct member *m, uint64_t now)
{
	bool again = now - m->withdrawn_until < m->withdrawn_for;

	m->withdrawn_for = again ? MIN(2 * m->withdrawn_for, WITHDRAW_MAX_NS) : WITHDRAW_MIN_NS;
	m->withdrawn_until = now + m->withdrawn_for;
}

/*
 * Give the CPU to who else wants it. The reclaimer may have it: it works for the
 * faults to come. => how long it was away, ns
 */
static uint64_t yield(struct member *m)
{
	struct pager *p = &m->handler.e->q->pager;
	bool reclaims = atomic_load_explicit(&p->reclaimer_tid, memory_order_relaxed);
	uint64_t before = now_ns(), after;

	sched_yield();
	after = now_ns();
	if (after - before > CONTENDED_NS && !reclaims &&
	    !atomic_load_explicit(&p->reclaimer_tid, memory_order_relaxed))
		withdraw(m, after);
	return after - before;
}

/* Until a look is worth while. */
static void wait_for_turn(struct member *m, uint64_t now)
{
	uint64_t until = now + LOOK_EVERY_NS;

	do
		pause_until(now + PAUSE_NS);
	while (yield(m) < SOMEBODY_NS && (now = now_ns()) < until);
}

/* Leave this CPU. It may come back: our threads have no home. */
static void move_away(void)
{
	cpu_set_t all, others;
	int cpu = sched_getcpu();

	if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof all, &all) != 0)
		return;
	others = all;
	CPU_CLR(cpu, &others);
	if (CPU_COUNT(&others) && sched_setaffinity(0, sizeof others, &others) == 0)
		sched_setaffinity(0, sizeof all, &all);
}

/* A pair has a CPU each: the scheduler sees no reason for that while one yields to the other. */
static void keep_apart(struct member *m, uint64_t now)
{
	_Atomic int32_t *first = &m->crew->cpu;

	if (is_first(m)) {
		atomic_store_explicit(first, sched_getcpu(), memory_order_relaxed);
	} else if (now - m->moved >= MOVE_NS &&
	           atomic_load_explicit(first, memory_order_relaxed) == sched_getcpu()) {
		m->moved = now;
		move_away();
	}
}

/* => the later of the two, which is the shared one's from now on */
static uint64_t meet(_Atomic uint64_t *shared, uint64_t own)
{
	uint64_t seen = atomic_load_explicit(shared, memory_order_relaxed);

	if (seen >= own)
		return seen;
	atomic_store_explicit(shared, own, memory_order_relaxed);
	return own;
}

/* Serve what comes for as long as something does, or until a fault is put off. */
static void stay_awake(struct member *m)
{
	const struct quire *q = m->handler.e->q;
	uint64_t now = now_ns(), last = now;

	while (now >= m->withdrawn_until && !m->handler.deferred_count &&
	       trial_round(&m->crew->trial) == AWAKE) {
		bool some = look(m), reads = reading(m) > 0;

		now = now_ns();
		if (some)
			last = now;
		/* A pair stays together: each keeps its CPU from being idle. */
		if (m->crew->paired)
			last = meet(&m->crew->last, last);
		if (now >= last + (reads ? q->look_ns : q->spin_ns))
			return;
		handler_forgive(&m->handler, now);
		/* After a page has arrived its thread may want this CPU. */
		if (m->crew->paired && !some && !expects_something(m)) {
			keep_apart(m, now);
			wait_for_turn(m, now);
		} else if (!some || !reads) {
			yield(m);
		}
	}
}

static void *member_main(void *argument)
{
	struct member *m = argument;
	struct handler *h = &m->handler;

	thread_is_ours = thread_is_handler = true;
	prctl(PR_SET_NAME, "quire-handler");
	while (!atomic_load(&m->crew->stop)) {
		bool busy = look(m);

		if (h->e->q->spin_ns && !h->deferred_count) {
			stay_awake(m);
			/* What was put off wants a look after each arrival. */
			busy = h->deferred_count > 0;
		}
		if (!busy)
			sleep_for_work(m);
		handler_retry(h);
		handler_forgive(h, now_ns());
	}
	return NULL;
}

/* ----------------------------------------------------------- the engine */

/* => 0, or -errno: it is not running */
static int member_start(struct crew *crew, struct engine *e)
{
	struct member *m = &crew->member[crew->count];
	int error;

	m->handler.e = e;
	m->handler.refusals = &crew->refusals;
	m->crew = crew;
	m->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->event < 0)
		return -errno;
	/* It works without the others. */
	if (!is_first(m) && !descriptor_to_spare(m->event)) {
		close(m->event);
		return -EMFILE;
	}
	error = thread_start(&m->thread, member_main, m);
	if (error)
		close(m->event);
	else
		crew->count++;
	return error;
}

/* => *out: nobody is in it yet */
static int crew_new(struct engine *e, struct crew **out)
{
	struct arena a;
	int error = arena_open(&a, sizeof **out, false, "quire handlers");

	if (error)
		return error;
	*out = a.base;
	(*out)->self = a;
	refusals_open(&(*out)->refusals, e);
	return 0;
}

/* In a child of fork: those in it are the parent's. Its refusals are poisoned pages here, too. */
static void crew_dismiss(struct crew *crew)
{
	for (uint32_t i = 0; i < crew->count; i++) {
		close(crew->member[i].event);
		memset(&crew->member[i], 0, sizeof crew->member[i]);
	}
	atomic_store(&crew->count, 0);
	atomic_store(&crew->latest, NULL);
}

static int crew_start(struct engine *e)
{
	unsigned wanted = MIN(MAX(cpu_count(), 1u), HANDLERS_MAX);
	struct crew *crew = e->uffd.handler;
	int error = 0;

	if (crew)
		crew_dismiss(crew);
	else
		error = crew_new(e, &crew);
	if (error)
		return error;
	trial_init(&crew->trial, APART_NS);
	error = member_start(crew, e);
	if (error) {
		struct arena a = crew->self;

		e->uffd.handler = NULL;
		arena_close(&a);
		return error_set(-error, "no handler thread: %s%s", strerror(-error), arena_hint());
	}
	while (crew->count < wanted && member_start(crew, e) == 0)
		;
	atomic_store(&crew->paired, wanted == 2 && crew->count == 2);
	e->uffd.handler = crew;
	return 0;
}

static void crew_replenished(struct engine *e)
{
	struct crew *crew = e->uffd.handler;

	for (uint32_t i = 0; crew && i < crew->count; i++)
		if (i == 0 || crew->member[i].handler.deferred_count)
			poke(&crew->member[i]);
}

static void crew_forgive(struct engine *e)
{
	struct crew *crew = e->uffd.handler;

	while (crew && crew->refusals.count && refusals_end(&crew->refusals, UINT64_MAX))
		sched_yield();
}

static int crew_open(struct engine *e, struct quire *q)
{
	(void)q;
	return uffd_open(e, false);
}

static void crew_close(struct engine *e)
{
	struct crew *crew = e->uffd.handler;

	if (crew) {
		struct arena a = crew->self;

		atomic_store(&crew->stop, 1);
		for (uint32_t i = 0; i < crew->count; i++)
			poke(&crew->member[i]);
		for (uint32_t i = 0; i < crew->count; i++)
			pthread_join(crew->member[i].thread, NULL);
		/* Not before: they poke each other. */
		for (uint32_t i = 0; i < crew->count; i++)
			close(crew->member[i].event);
		e->uffd.handler = NULL;
		arena_close(&a);
	}
	uffd_close(e);
}

/* Before they are started in this process the threads are the parent's; their descriptors are there. */
static void crew_forsake(struct engine *e, bool started)
{
	struct crew *crew = e->uffd.handler;

	if (started) {
		crew_close(e);
		return;
	}
	for (uint32_t i = 0; crew && i < crew->count; i++)
		close(crew->member[i].event);
	uffd_close(e);
}

const struct engine_ops engine_uffd = {
	.name = "uffd",
	.in_thread = false,
	.joins = true,
	.costs = "a handler thread serves faults; system calls on absent pages work",
	.open = crew_open,
	.start = crew_start,
	.close = crew_close,
	.attach = uffd_attach,
	.detach = uffd_detach,
	.attach_buffers = uffd_attach_buffers,
	.map = uffd_map,
	.map_zero = uffd_map_zero,
	.place = uffd_place,
	.unprotect = uffd_unprotect,
	.take = uffd_take,
	.save = uffd_save,
	.protect_all = uffd_protect_all,
	.drop = uffd_drop,
	.poison = uffd_poison,
	.wake = uffd_wake,
	.replenished = crew_replenished,
	.forgive = crew_forgive,
	.fork_in_child = uffd_fork_in_child,
	.attach_in_child = uffd_attach_in_child,
	.forsake = crew_forsake,
};
