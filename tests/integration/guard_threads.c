/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/guard_threads.c - guarded system calls that are interrupted, left, cancelled or
 * slept in; locks in managed memory.
 *
 * test: matrix=in-thread
 */
#define _GNU_SOURCE
#include "guarded.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

/* ---------------------------------------------------------------- signals */

static atomic_uint interruptions;
static sigjmp_buf out;

static void on_interrupt(int number)
{
	(void)number;
	atomic_fetch_add(&interruptions, 1);
}

static void on_leave(int number)
{
	(void)number;
	siglongjmp(out, 1);
}

/* After a tenth of a second. */
static void interrupt_by(void (*handler)(int), int flags)
{
	struct sigaction a = { .sa_handler = handler, .sa_flags = flags };
	struct itimerval t = { .it_value = { 0, 100000 } };

	MUST(sigaction(SIGALRM, &a, NULL) == 0);
	MUST(setitimer(ITIMER_REAL, &t, NULL) == 0);
}

static int nested_pipe;
static volatile long nested_result;

static void on_nested(int number)
{
	(void)number;
	nested_result = read(nested_pipe, guarded.base + 2000 * PAGE, 20000);
}

static void *feed_later(void *fd)
{
	static char text[30000];

	sleep_seconds(0.4);
	memset(text, 'o', sizeof text);
	MUST(write(*(int *)fd, text, sizeof text) == sizeof text);
	return NULL;
}

/* A handler on an alternate stack that makes a guarded call of its own. */
static void nested_on(unsigned flags)
{
	static char stack[128 << 10], inner[20000];
	stack_t s = { .ss_sp = stack, .ss_size = sizeof stack, .ss_flags = (int)flags };
	stack_t none = { .ss_flags = SS_DISABLE };
	int pipes[2], others[2];
	sigset_t alarm;
	pthread_t t;
	char *a;

	open_guarded();
	MUST(pipe(pipes) == 0 && pipe(others) == 0);
	a = room(MIB);
	memset(inner, 'i', sizeof inner);
	MUST(write(others[1], inner, sizeof inner) == sizeof inner);
	nested_pipe = others[0];
	away();
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarm, NULL);
	MUST(pthread_create(&t, NULL, feed_later, &pipes[1]) == 0);
	pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
	MUST(sigaltstack(&s, NULL) == 0);
	interrupt_by(on_nested, SA_RESTART | SA_ONSTACK);
	CHECK_EQ(read(pipes[0], a, MIB), 30000);
	MUST(sigaltstack(&none, NULL) == 0);
	pthread_join(t, NULL);
	CHECK_EQ(nested_result, 20000);
	CHECK(a[0] == 'o' && a[29999] == 'o');
	CHECK(guarded.base[2000 * PAGE] == 'i' && guarded.base[2000 * PAGE + 19999] == 'i');
	close(pipes[0]);
	close(pipes[1]);
	close(others[0]);
	close(others[1]);
	close_guarded();
}

static void nested_calls(void)
{
	if (SANITIZED) {
		note_skipped("nested calls", "sanitizers have alternate stacks of their own");
		return;
	}
	nested_on(0);
	nested_on(1u << 31 /* SS_AUTODISARM */);
}

static void *write_later(void *fd)
{
	sleep_seconds(0.3);
	MUST(write(*(int *)fd, "later", 5) == 5);
	return NULL;
}

static void interrupted_calls(void)
{
	struct timespec *left;
	pthread_t writer;
	uint32_t *word;
	sigset_t alarm;
	int pipes[2];
	char *a;

	open_guarded();
	REQUIRE(pipe(pipes) == 0);
	a = room(5000);
	left = room(sizeof *left);
	word = room(8);
	away();
	interrupt_by(on_interrupt, 0);
	CHECK_EQ(read(pipes[0], a, 5000), -1);
	CHECK_EQ(errno, EINTR);
	CHECK_EQ(interruptions, 1);
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	away();
	pthread_sigmask(SIG_BLOCK, &alarm, NULL);
	MUST(pthread_create(&writer, NULL, write_later, &pipes[1]) == 0);
	pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
	interrupt_by(on_interrupt, SA_RESTART);
	CHECK_EQ(read(pipes[0], a, 5000), 5);
	CHECK_EQ(interruptions, 2);
	CHECK(memcmp(a, "later", 5) == 0);
	pthread_join(writer, NULL);
	/* What is left of a sleep is written only then. */
	*left = (struct timespec){ 5, 0 };
	away();
	interrupt_by(on_interrupt, SA_RESTART);
	CHECK_EQ(nanosleep(left, left), -1);
	CHECK_EQ(errno, EINTR);
	CHECK(left->tv_sec == 4 && left->tv_nsec > 0);
	*word = 1;
	*left = (struct timespec){ 5, 0 };
	away();
	interrupt_by(on_interrupt, 0);
	CHECK_EQ(syscall(SYS_futex, word, FUTEX_WAIT, 1, left, NULL, 0), -1);
	CHECK_EQ(errno, EINTR);
	close(pipes[0]);
	close(pipes[1]);
	close_guarded();
}

/* A handler that does not return leaves nothing behind: neither pins nor copies. */
static void left_calls(void)
{
	volatile unsigned before = 0;
	uint32_t *word;
	int pipes[2];
	char *a;

	open_guarded();
	REQUIRE(pipe(pipes) == 0);
	a = room(MIB);
	word = room(8);
	for (int i = 0; i < 12; i++) {
		away();
		interrupt_by(on_leave, 0);
		if (!sigsetjmp(out, 1)) {
			if (i % 2) {
				CHECK_EQ(read(pipes[0], a, MIB), 0);
			} else {
				*word = 0x3ffffff; /* nobody's: a lock that is held for ever */
				syscall(SYS_futex, word, FUTEX_WAIT, *word, NULL, NULL, 0);
			}
			CHECK(!"the call ended");
		}
		if (i == 3)
			before = mappings();
	}
	CHECK(mappings() <= before + 2);
	CHECK_EQ(write(pipes[1], "later", 5), 5);
	CHECK_EQ(GONE(read(pipes[0], a, MIB)), 5);
	close(pipes[0]);
	close(pipes[1]);
	close_guarded();
}

static void *read_for_ever(void *fd)
{
	MUST(read(*(int *)fd, guarded.base + PAGE, 100000) < 0);
	return NULL;
}

static void *receive_for_ever(void *fd)
{
	struct iovec v = { guarded.base + PAGE, 100000 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };

	MUST(recvmsg(*(int *)fd, &m, 0) < 0);
	return NULL;
}

static void unlock(void *lock)
{
	MUST(pthread_mutex_unlock(lock) == 0);
}

static void *wait_for_ever(void *arg)
{
	pthread_mutex_t *lock = arg;
	pthread_cond_t *never = (pthread_cond_t *)((char *)arg + 2 * PAGE);

	MUST(pthread_mutex_lock(lock) == 0);
	pthread_cleanup_push(unlock, lock);
	for (;;)
		pthread_cond_wait(never, lock);
	pthread_cleanup_pop(1);
	return NULL;
}

static void cancelled(void *(*f)(void *), void *arg)
{
	pthread_t t;
	void *result;

	away();
	MUST(pthread_create(&t, NULL, f, arg) == 0);
	sleep_seconds(0.1);
	away();
	CHECK_EQ(pthread_cancel(t), 0);
	CHECK_EQ(pthread_join(t, &result), 0);
	CHECK(result == PTHREAD_CANCELED);
}

static void cancelled_calls(void)
{
	pthread_mutex_t *lock;
	pthread_cond_t *never;
	int pair[2];

	if (SANITIZED) {
		note_skipped("cancellation", "sanitizers do not see frames go with a thread");
		return;
	}
	open_guarded();
	REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
	lock = room(2 * PAGE + sizeof *never);
	never = (pthread_cond_t *)((char *)lock + 2 * PAGE);
	pthread_mutex_init(lock, NULL);
	pthread_cond_init(never, NULL);
	cancelled(read_for_ever, &pair[0]);
	cancelled(receive_for_ever, &pair[0]);
	cancelled(wait_for_ever, lock);
	/* It was unlocked on the way out. */
	CHECK_EQ(GONE(pthread_mutex_trylock(lock)), 0);
	CHECK_EQ(GONE(pthread_mutex_unlock(lock)), 0);
	CHECK_EQ(GONE(pthread_cond_destroy(never)), 0);
	close(pair[0]);
	close(pair[1]);
	close_guarded();
}

static void *read_once(void *fd)
{
	MUST(read(*(int *)fd, guarded.base + PAGE, 8000) == 8000);
	return NULL;
}

/* A thread is unwound at its call, not out of the middle of what serves it. */
static void cancelled_anywhere(void)
{
	int zero = open("/dev/zero", O_RDONLY);
	double until;

	if (SANITIZED) {
		note_skipped("cancellation", "sanitizers do not see frames go with a thread");
		return;
	}
	open_guarded();
	until = seconds_now() + quick_or_full(1.5, 20);
	while (seconds_now() < until) {
		pthread_t t;

		guarded.base[(CROWD + (size_t)random() % 1000) * PAGE] = 1;
		MUST(pthread_create(&t, NULL, read_once, &zero) == 0);
		if (random() % 2)
			sched_yield();
		pthread_cancel(t);
		MUST(pthread_join(t, NULL) == 0);
	}
	/* All of it works as before. */
	away();
	close(zero);
	close_guarded();
}

static void on_mask(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)info;
	sigaddset(&((ucontext_t *)context)->uc_sigmask, SIGUSR2);
}

static bool is_blocked(int number)
{
	sigset_t now;

	pthread_sigmask(SIG_BLOCK, NULL, &now);
	return sigismember(&now, number) == 1;
}

/* A handler may change the mask of what it interrupted; nothing else does. */
static void masks_afterwards(void)
{
	struct sigaction a = { .sa_sigaction = on_mask, .sa_flags = SA_SIGINFO };
	struct iovec v;
	sigset_t usr2;
	int pipes[2];

	open_guarded();
	REQUIRE(pipe(pipes) == 0);
	v = (struct iovec){ room(10000), 10000 };
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	for (int i = 0; i < 2; i++) {
		CHECK(!is_blocked(SIGUSR2) && !is_blocked(SIGUSR1) && !is_blocked(SIGALRM));
		away();
		interrupt_by(on_interrupt, 0);
		MUST(sigaction(SIGALRM, &a, NULL) == 0);
		CHECK_EQ(i ? readv(pipes[0], &v, 1) : read(pipes[0], v.iov_base, 10000), -1);
		CHECK_EQ(errno, EINTR);
		CHECK(is_blocked(SIGUSR2) && !is_blocked(SIGUSR1) && !is_blocked(SIGALRM));
		pthread_sigmask(SIG_UNBLOCK, &usr2, NULL);
	}
	close(pipes[0]);
	close(pipes[1]);
	close_guarded();
}

static void on_sys(int number, siginfo_t *info, void *context)
{
	(void)number;
	MUST(quire_handle_signal(SIGSYS, info, context));
}

static void on_tick(int number)
{
	(void)number;
	MUST(getrandom(guarded.base + 3000 * PAGE, 100, 0) == 100);
	atomic_fetch_add(&interruptions, 1);
}

/* A handler of the program's for SIGSYS, which asks first, while others make guarded calls. */
static void chained_handler(void)
{
	struct sigaction mine = { .sa_sigaction = on_sys, .sa_flags = SA_SIGINFO }, before;
	struct sigaction tick = { .sa_handler = on_tick };
	struct itimerval fast = { { 0, 300 }, { 0, 300 } }, off = { { 0, 0 }, { 0, 0 } };
	int fd = open("/dev/zero", O_RDONLY);
	char *a;

	open_guarded();
	a = room(50000);
	sigfillset(&mine.sa_mask);
	MUST(sigaction(SIGSYS, &mine, &before) == 0);
	MUST(sigaction(SIGALRM, &tick, NULL) == 0);
	interruptions = 0;
	MUST(setitimer(ITIMER_REAL, &fast, NULL) == 0);
	for (int i = 0; i < 30; i++)
		CHECK(GONE(read(fd, a, 50000)) > 0);
	MUST(setitimer(ITIMER_REAL, &off, NULL) == 0);
	CHECK(interruptions > 0);
	MUST(sigaction(SIGSYS, &before, NULL) == 0);
	close(fd);
	close_guarded();
}

static void masks_and_stacks(void)
{
	static char stack[65536];
	stack_t *s, *old, none = { .ss_flags = SS_DISABLE };
	sigset_t *set, *was, now;

	sigaltstack(&none, NULL); /* sanitizers have one */
	open_guarded();
	set = room(sizeof *set);
	was = room(sizeof *was);
	s = room(sizeof *s);
	old = room(sizeof *old);
	sigemptyset(set);
	sigaddset(set, SIGUSR1);
	sigaddset(set, SIGSYS);
	sigaddset(set, SIGBUS);
	sigaddset(set, SIGSEGV);
	CHECK_EQ(GONE(sigprocmask(SIG_BLOCK, set, was)), 0);
	sigprocmask(SIG_SETMASK, NULL, &now);
	CHECK(sigismember(&now, SIGUSR1) == 1 && sigismember(&now, SIGSYS) == 1);
	sigdelset(&now, SIGSYS);
	sigdelset(&now, SIGBUS);
	sigdelset(&now, SIGSEGV);
	sigprocmask(SIG_SETMASK, &now, NULL);
	CHECK(sigismember(was, SIGUSR1) == 0);
	CHECK_EQ(GONE(sigprocmask(SIG_UNBLOCK, set, was)), 0);
	CHECK(sigismember(was, SIGUSR1) == 1);
	CHECK_EQ(GONE(sigprocmask(4711, set, NULL)), -1);
	CHECK_EQ(errno, EINVAL);
	*s = (stack_t){ .ss_sp = stack, .ss_size = sizeof stack };
	CHECK_EQ(GONE(sigaltstack(s, old)), 0);
	CHECK_EQ(old->ss_flags, SS_DISABLE);
	CHECK_EQ(GONE(sigaltstack(NULL, old)), 0);
	CHECK(old->ss_sp == stack && old->ss_flags == 0);
	s->ss_size = 100;
	CHECK_EQ(GONE(sigaltstack(s, NULL)), -1);
	CHECK_EQ(errno, ENOMEM);
	*s = (stack_t){ .ss_flags = SS_DISABLE };
	CHECK_EQ(GONE(sigaltstack(s, NULL)), 0);
	CHECK_EQ(sigaltstack(NULL, old), 0);
	CHECK_EQ(old->ss_flags, SS_DISABLE);
	close_guarded();
}

/* ---------------------------------------------------------------- futexes */

struct shared {
	pthread_mutex_t lock;
	char far[2 * PAGE];
	pthread_cond_t changed;
	char away[2 * PAGE];
	unsigned turn;
};

static void *take_turns(void *arg)
{
	struct shared *s = arg;
	unsigned me = atomic_fetch_add(&interruptions, 1) % 2;

	for (int i = 0; i < 100; i++) {
		MUST(pthread_mutex_lock(&s->lock) == 0);
		while (s->turn % 2 != me)
			MUST(pthread_cond_wait(&s->changed, &s->lock) == 0);
		s->turn++;
		for (size_t k = 0; k < CROWD_PAGES / 2; k++)
			guarded.base[(CROWD + 1000 * me + k) * PAGE] = (char)i;
		MUST(pthread_cond_broadcast(&s->changed) == 0);
		MUST(pthread_mutex_unlock(&s->lock) == 0);
	}
	return NULL;
}

static void turns(int protocol)
{
	struct shared *s = room(sizeof *s);
	pthread_mutexattr_t attributes;
	pthread_t t[2];

	memset(s, 0, sizeof *s);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setprotocol(&attributes, protocol);
	MUST(pthread_mutex_init(&s->lock, &attributes) == 0);
	MUST(pthread_cond_init(&s->changed, NULL) == 0);
	away();
	for (int i = 0; i < 2; i++)
		MUST(pthread_create(&t[i], NULL, take_turns, s) == 0);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	CHECK_EQ(s->turn, 200);
}

static void locks(void)
{
	open_guarded();
	interruptions = 0;
	turns(PTHREAD_PRIO_NONE);
	turns(PTHREAD_PRIO_INHERIT);
	close_guarded();
}

static void *wait_on_word(void *word)
{
	while (atomic_load((atomic_uint *)word) == 1)
		syscall(SYS_futex, word, FUTEX_WAIT, 1, NULL, NULL, 0);
	return NULL;
}

/* The addresses are hidden, in a structure on the stack. */
static void many_words(void)
{
	struct {
		uint64_t value, address;
		uint32_t flags, reserved;
	} waiters[2] = { { .value = 1, .flags = 2 }, { .value = 1, .flags = 2 } };
	struct timespec *past;
	uint32_t *words[2];

	open_guarded();
	past = room(sizeof *past);
	for (int i = 0; i < 2; i++) {
		words[i] = room(4);
		*words[i] = 1;
		waiters[i].address = (uintptr_t)words[i];
	}
	*past = (struct timespec){ 1, 0 };
	if (GONE(syscall(449, waiters, 2, 0, past, CLOCK_MONOTONIC)) == -1 && errno == ENOSYS) {
		note_skipped("futex_waitv(2)", "Linux 5.16");
	} else {
		CHECK_EQ(errno, ETIMEDOUT);
		*words[1] = 2;
		CHECK_EQ(GONE(syscall(449, waiters, 2, 0, past, CLOCK_MONOTONIC)), -1);
		CHECK_EQ(errno, EAGAIN);
	}
	close_guarded();
}

/* Who sleeps holds nothing: the page goes, and comes back for the wake-up. */
static void asleep(void)
{
	atomic_uint *word;
	pthread_t t;
	int tries = 0;

	open_guarded();
	word = room(4);
	*word = 1;
	away();
	MUST(pthread_create(&t, NULL, wait_on_word, (void *)word) == 0);
	sleep_seconds(0.1);
	away();
	*word = 2;
	away();
	while (syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0) != 1 && tries++ < 100)
		sleep_seconds(0.01);
	CHECK(tries < 100);
	pthread_join(t, NULL);
	close_guarded();
}

static void *read_all(void *fd)
{
	char *a = guarded.base + PAGE;
	size_t n = 0;

	while (n < MIB) {
		ssize_t part = read(*(int *)fd, a + n, MIB - n);

		MUST(part > 0);
		n += (size_t)part;
	}
	return NULL;
}

/* A call that blocks keeps nothing from being evicted, of whatever length it is. */
static void long_call(void)
{
	int pipes[2];
	pthread_t t;
	char *a;

	open_guarded();
	REQUIRE(pipe(pipes) == 0);
	a = room(MIB + 3 * PAGE);
	MUST(a == guarded.base + PAGE);
	MUST(pthread_create(&t, NULL, read_all, &pipes[0]) == 0);
	sleep_seconds(0.1);
	away();
	CHECK_EQ(pager_stats(guarded.pager).pinned, 0);
	for (unsigned i = 0; i < MIB / PAGE; i++) {
		char page[PAGE];

		bytes(page, PAGE, i);
		MUST(write(pipes[1], page, PAGE) == PAGE);
	}
	pthread_join(t, NULL);
	for (unsigned i = 0; i < MIB / PAGE; i++)
		CHECK(are_bytes(a + i * PAGE, PAGE, 0, i));
	close(pipes[0]);
	close(pipes[1]);
	close_guarded();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(nested_calls),
		UNIT(interrupted_calls),
		UNIT(left_calls),
		UNIT(cancelled_calls),
		UNIT(masks_and_stacks),
		UNIT(cancelled_anywhere),
		UNIT(masks_afterwards),
		UNIT(chained_handler),
		UNIT(locks),
		UNIT(asleep),
		UNIT(many_words),
		UNIT(long_call),
		UNIT_END,
	};

	return unit_main(argc, argv, "guard_threads", tests);
}
