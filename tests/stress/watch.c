/* SPDX-License-Identifier: MIT */
/*
 * tests/stress/watch.c - looks on from outside the accesses: resident memory
 * against what the budget allows, threads that stand still, signals.
 *
 * Resident memory is counted from a baseline taken when every buffer of the
 * program has been touched and no pager is open.
 *
 * Neighbours: stress.c starts the watcher; ops.c arms the timers of its threads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

#define SLACK (4u << 20) /* what the promise allows beside budget and metadata */
#define TICK_NS 2000000  /* between samples */

static __thread timer_t timer;

/* Resident bytes of the process, by a read that allocates nothing. */
size_t resident_now(void)
{
	static int fd = -1;
	char text[128];
	unsigned long pages = 0;
	ssize_t n;

	if (fd < 0)
		fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	n = pread(fd, text, sizeof text - 1, 0);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	pages = strtoul(strchr(text, ' ') + 1, NULL, 10);
	return pages * QUIRE_PAGE_SIZE;
}

static void sample_memory(void)
{
	struct quire_stats before, after;
	unsigned changes = __atomic_load_n(&round_now.ceiling_changes, __ATOMIC_SEQ_CST);
	size_t ceiling = __atomic_load_n(&round_now.ceiling, __ATOMIC_SEQ_CST), now, metadata, used;
	int64_t margin;

	if (changes % 2 == 1) { /* being changed: either budget may hold */
		size_t old = quire_memory(round_now.q);

		ceiling = ceiling > old ? ceiling : old;
	}
	quire_stats_get(round_now.q, &before);
	now = resident_now();
	quire_stats_get(round_now.q, &after);
	if (__atomic_load_n(&round_now.ceiling_changes, __ATOMIC_SEQ_CST) != changes)
		return;
	metadata = before.metadata > after.metadata ? before.metadata : after.metadata;
	used = now > round_now.baseline ? now - round_now.baseline : 0;
	margin = (int64_t)(ceiling + metadata + SLACK) - (int64_t)used;
	round_now.samples++;
	if (round_now.samples == 1 || margin < round_now.worst_margin) {
		round_now.worst_margin = margin;
		round_now.worst_resident = used;
		round_now.worst_allowed = ceiling + metadata + SLACK;
	}
	if (!round_now.config->rss)
		return;
	if (margin < 0)
		stress_fail(
			"over the budget: resident %zu KiB more than before quire_open, allowed "
			"%zu (budget) + %zu (metadata) + %u; statistics: resident %llu, "
			"standby %llu, buffers %llu",
			used >> 10, ceiling >> 10, metadata >> 10, SLACK >> 10,
			(unsigned long long)after.resident >> 10,
			(unsigned long long)after.standby >> 10,
			(unsigned long long)after.buffers >> 10);
	if (after.resident > ceiling)
		stress_fail("statistics: resident %llu over the budget %zu",
		            (unsigned long long)after.resident, ceiling);
}

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void check_progress(uint64_t *ops, double *since)
{
	const struct config *c = round_now.config;
	double now = seconds_now();
	char text[3000];
	int n;

	for (unsigned i = 0; i < c->threads; i++) {
		struct worker *w = &round_now.worker[i];
		uint64_t done = __atomic_load_n(&w->ops, __ATOMIC_RELAXED);

		if (done != ops[i] || __atomic_load_n(&w->waiting, __ATOMIC_RELAXED)) {
			ops[i] = done;
			since[i] = now;
		}
		if (now - since[i] < c->stall)
			continue;
		n = snprintf(text, sizeof text, "thread %u has stood still for %u s:\n", i,
		             c->stall);
		for (unsigned k = 0; k < c->threads && n < (int)sizeof text - 100; k++)
			n += snprintf(text + n, sizeof text - n, "  thread %u: %s%s\n", k,
			              round_now.worker[k].waiting ? "waiting, last " : "",
			              round_now.worker[k].what);
		stress_fail("%s", text);
	}
}

void *watch_main(void *arg)
{
	static uint64_t ops[THREADS_MAX];
	static double since[THREADS_MAX];
	struct timespec tick = { .tv_nsec = TICK_NS };
	unsigned turn = 0;

	(void)arg;
	for (unsigned i = 0; i < THREADS_MAX; i++)
		since[i] = seconds_now();
	while (!__atomic_load_n(&round_now.finished, __ATOMIC_ACQUIRE)) {
		sample_memory();
		if (turn++ % 64 == 0)
			check_progress(ops, since);
		nanosleep(&tick, NULL);
	}
	return NULL;
}

/* ------------------------------------------------------------ signals */

static void on_crash(int number, siginfo_t *info, void *context)
{
	size_t offset = 0;
	struct arena *a = arena_of(info->si_addr, &offset);

	(void)context;
	if (a)
		stress_fail("signal %d (code %d) at %p: region %zu, offset %#zx (page %zu); "
		            "thread %u, doing: %s",
		            number, info->si_code, info->si_addr, (size_t)(a - round_now.arena),
		            offset, offset / QUIRE_PAGE_SIZE,
		            this_worker ? this_worker->id : THREADS_MAX,
		            this_worker ? this_worker->what : "main");
	stress_fail("signal %d (code %d) at %p, in no region; doing: %s", number, info->si_code,
	            info->si_addr, this_worker ? this_worker->what : "main");
}

/* Touches the interrupted thread's own pages of the signal arena. */
static void on_timer(int number)
{
	struct worker *w = this_worker;
	struct arena *a = &round_now.signal_arena;
	int saved = errno;

	(void)number;
	if (w && a->region) {
		size_t first = (size_t)w->id * SIGNAL_PAGES * WORDS;
		uint64_t dice = w->signals++ * 0x9e3779b97f4a7c15u;
		size_t i = first + (dice >> 32) % (SIGNAL_PAGES * WORDS);

		arena_check_word(a, i);
		arena_write_word(a, i, dice >> 20);
		arena_check_word(a, first + (dice >> 40) % (SIGNAL_PAGES * WORDS));
	}
	errno = saved;
}

void signal_arm(struct worker *w)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 3 };
	struct itimerspec every = { .it_interval.tv_nsec = 700000 + 37000 * (long)w->id };

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif
	event.sigev_notify_thread_id = syscall(SYS_gettid);
	every.it_value = every.it_interval;
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &every, NULL))
		stress_fail("timer: %s", strerror(errno));
}

void signal_disarm(void)
{
	timer_delete(timer);
}

/* Before quire_open, so that what is not the pager's comes back here. */
void watch_install_handlers(void)
{
	struct sigaction crash = { .sa_sigaction = on_crash,
		                   .sa_flags = SA_SIGINFO | SA_RESETHAND };
	struct sigaction tick = { .sa_handler = on_timer, .sa_flags = SA_RESTART };

	sigemptyset(&crash.sa_mask);
	sigemptyset(&tick.sa_mask);
	sigaction(SIGBUS, &crash, NULL);
	sigaction(SIGSEGV, &crash, NULL);
	sigaction(SIGRTMIN + 3, &tick, NULL);
}
