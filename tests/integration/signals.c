/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/signals.c - faults that are not the pager's reach the
 * program as if there were no pager: its own handler or the default action,
 * with the right signal and address; and what a fault must not disturb.
 *
 * Each case is a child of its own. The pager has pages out while it is looked at.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES ((size_t)512)

static quire_t *q;
static quire_region_t *r;
static char *beyond;  /* in a mapping, beyond the end of its file: SIGBUS */
static char *nothing; /* may not be touched: SIGSEGV */

static void open_busy(void)
{
	q = pager_open(QUIRE_MEMORY_MIN);
	r = region_create(q, PAGES * PAGE);
	fill(r, 0, PAGES, 1);
}

static void bad_places(void)
{
	struct rlimit none = { 0, 0 };
	int fd = memfd_create("short", MFD_CLOEXEC);

	setrlimit(RLIMIT_CORE, &none);
	MUST(fd >= 0 && ftruncate(fd, PAGE) == 0);
	beyond = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(beyond != MAP_FAILED);
	beyond += PAGE + 40;
	nothing = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MUST(nothing != MAP_FAILED);
	nothing += 88;
}

/* ------------------------------------------------- the default action */

static void default_bus(void *arg)
{
	(void)arg;
	bad_places();
	open_busy();
	load(beyond);
}

static void default_segv(void *arg)
{
	(void)arg;
	bad_places();
	open_busy();
	load(nothing);
}

/* The kernel does not ignore a signal that a fault raises, nor may the pager. */
static void ignored_bus(void *arg)
{
	(void)arg;
	bad_places();
	signal(SIGBUS, SIG_IGN);
	open_busy();
	load(beyond);
}

static void sent_bus(void *arg)
{
	(void)arg;
	bad_places();
	open_busy();
	raise(SIGBUS);
}

static void after_close(void *arg)
{
	(void)arg;
	bad_places();
	open_busy();
	MUST(quire_close(q) == 0);
	load(beyond);
}

/* A wild pointer to a function: there is no program in a region. */
static void jumps_into(void *arg)
{
	void (*f)(void);
	char *place;

	bad_places();
	open_busy();
	place = page_at(r, arg ? 3 : PAGES - 1);
	memcpy(&f, &place, sizeof f);
	f();
}

static void dies_by(void (*f)(void *), int number)
{
	int status = in_child(f, NULL, 5);

	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == number);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != number)
		printf("status %#x\n", status);
}

static void default_action(void)
{
	dies_by(default_bus, SIGBUS);
	dies_by(default_segv, SIGSEGV);
	dies_by(jumps_into, SIGSEGV);
	dies_by(ignored_bus, SIGBUS);
	dies_by(sent_bus, SIGBUS);
	dies_by(after_close, SIGBUS);
}

/* -------------------------------------------- handlers of the program */

static sigjmp_buf jump;
static volatile int got_signal, calls;
static void *volatile got_address;
static struct sigaction before;

static void note(int number, siginfo_t *info, void *context)
{
	(void)context;
	got_signal = number;
	got_address = info->si_addr;
	calls++;
	siglongjmp(jump, 1);
}

static void note_plainly(int number)
{
	got_signal = number;
	got_address = NULL;
	calls++;
	siglongjmp(jump, 1);
}

static void install(int number, bool plain)
{
	struct sigaction a = { .sa_flags = plain ? 0 : SA_SIGINFO };

	if (plain)
		a.sa_handler = note_plainly;
	else
		a.sa_sigaction = note;
	sigemptyset(&a.sa_mask);
	MUST(sigaction(number, &a, &before) == 0);
}

static void must_reach(char *place, int number, bool plain)
{
	int was = calls;

	if (!sigsetjmp(jump, 1)) {
		load(place);
		MUST(!"the access went through");
	}
	MUST(calls == was + 1);
	MUST(got_signal == number);
	MUST(plain || got_address == place);
}

static void use_memory(void)
{
	MUST(wrong(r, 0, PAGES, 1) == 0);
	fill(r, 0, PAGES, 1);
}

static void handlers_before(void *plain)
{
	bad_places();
	install(SIGBUS, plain);
	install(SIGSEGV, plain);
	open_busy();
	for (int i = 0; i < 20; i++) {
		must_reach(beyond, SIGBUS, plain);
		must_reach(nothing, SIGSEGV, plain);
		use_memory();
	}
	MUST(calls == 40);
	MUST(quire_close(q) == 0);
	must_reach(beyond, SIGBUS, plain);
	must_reach(nothing, SIGSEGV, plain);
	/* And with a second pager's coming and going. */
	open_busy();
	must_reach(beyond, SIGBUS, plain);
	use_memory();
	MUST(quire_close(q) == 0);
	must_reach(beyond, SIGBUS, plain);
}

/* One that comes later and, as quire.h says, asks the pager first. */
static void asking(int number, siginfo_t *info, void *context)
{
	if (!quire_handle_signal(number, info, context))
		note(number, info, context);
}

/* One that comes later and, as is good manners, passes on what is not its own. */
static void polite(int number, siginfo_t *info, void *context)
{
	if (info->si_addr == (void *)beyond || info->si_addr == (void *)nothing) {
		note(number, info, context);
		return;
	}
	if (before.sa_flags & SA_SIGINFO)
		before.sa_sigaction(number, info, context);
	else
		MUST(!"a fault that nobody takes");
}

/* The signal by which the engine learns of faults, and a place that raises it. */
static int engine_signal(char **place)
{
	bool segv = strcmp(quire_engine_name(q), "sigsegv") == 0;

	*place = segv ? nothing : beyond;
	return segv ? SIGSEGV : SIGBUS;
}

static void handler_after(void *asks)
{
	char *place;
	int number;

	struct sigaction a = { .sa_sigaction = asks ? asking : polite, .sa_flags = SA_SIGINFO };

	sigfillset(&a.sa_mask);
	bad_places();
	open_busy();
	number = engine_signal(&place);
	MUST(sigaction(number, &a, &before) == 0);
	for (int i = 0; i < 20; i++) {
		must_reach(place, number, false);
		use_memory();
	}
	MUST(quire_close(q) == 0);
}

static volatile sig_atomic_t seen;

/* Is called with the mask that the kernel would have set, and mends what is wrong. */
static void mends(int number, siginfo_t *info, void *context)
{
	sigset_t now;

	(void)context;
	MUST(sigprocmask(SIG_SETMASK, NULL, &now) == 0);
	MUST(sigismember(&now, SIGUSR1) == 1); /* its sa_mask */
	MUST(sigismember(&now, SIGUSR2) == 0);
	MUST(sigismember(&now, SIGWINCH) == 1); /* blocked by the thread */
	MUST(sigismember(&now, number) == 0);   /* SA_NODEFER */
	MUST(mprotect((void *)((uintptr_t)info->si_addr & ~(PAGE - 1)), PAGE, PROT_READ) == 0);
	seen = 1;
}

/* SA_NODEFER, SA_RESETHAND and sa_mask of one that was there before. */
static void as_the_kernel_would(void *arg)
{
	struct sigaction a = { .sa_sigaction = mends,
		               .sa_flags = SA_SIGINFO | SA_NODEFER | (int)SA_RESETHAND };
	sigset_t blocked;

	(void)arg;
	bad_places();
	sigemptyset(&a.sa_mask);
	sigaddset(&a.sa_mask, SIGUSR1);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGWINCH);
	MUST(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
	MUST(sigaction(SIGSEGV, &a, NULL) == 0);
	open_busy();
	load(nothing);
	MUST(seen);
	use_memory();
	MUST(sigprocmask(SIG_SETMASK, NULL, &blocked) == 0);
	MUST(sigismember(&blocked, SIGUSR1) == 0 && sigismember(&blocked, SIGWINCH) == 1);
	/* Once only: this one ends us. */
	MUST(mprotect((void *)((uintptr_t)nothing & ~(PAGE - 1)), PAGE, PROT_NONE) == 0);
	load(nothing);
}

/* Under an engine that takes no signal any handler will do. */
static void rude_handler_after(void *arg)
{
	(void)arg;
	bad_places();
	open_busy();
	if (!engine_serves_kernel(q))
		return;
	install(SIGBUS, false);
	for (int i = 0; i < 20; i++) {
		must_reach(beyond, SIGBUS, false);
		use_memory();
	}
	MUST(calls == 20);
	MUST(quire_close(q) == 0);
	must_reach(beyond, SIGBUS, false);
}

static void programs_handlers(void)
{
	CHECK_EQ(in_child(handlers_before, NULL, 30), 0);
	CHECK_EQ(in_child(handlers_before, (void *)1, 30), 0);
	CHECK_EQ(in_child(handler_after, NULL, 30), 0);
	CHECK_EQ(in_child(handler_after, (void *)1, 30), 0);
	CHECK_EQ(in_child(rude_handler_after, NULL, 30), 0);
	dies_by(as_the_kernel_would, SIGSEGV);
}

/* ------------------------------------- what a fault must not disturb */

static void keep_errno(void *arg)
{
	(void)arg;
	open_busy();
	for (size_t p = 0; p < PAGES; p++) {
		errno = 4321;
		load(page_at(r, p));
		MUST(errno == 4321);
		store((uint64_t *)page_at(r, p) + 1, p);
		MUST(errno == 4321);
	}
	MUST(quire_close(q) == 0);
}

static volatile unsigned handled;

/* Managed memory touched in a handler. */
static void touch(int number)
{
	(void)number;
	handled++;
	MUST(wrong_page(page_at(r, handled % PAGES), handled % PAGES, 1) == 0);
	fill_page(page_at(r, handled % PAGES), handled % PAGES, 1);
}

static void handler_touches(void *arg)
{
	(void)arg;
	signal(SIGUSR1, touch);
	open_busy();
	for (unsigned i = 0; i < PAGES; i++) {
		MUST(raise(SIGUSR1) == 0);
		MUST(wrong_page(page_at(r, (i * 7 + 64) % PAGES), (i * 7 + 64) % PAGES, 1) == 0);
	}
	MUST(handled == PAGES);
	MUST(quire_close(q) == 0);
}

static void *on_small_stack(void *arg)
{
	(void)arg;
	use_memory();
	return NULL;
}

static void small_stack(void *arg)
{
	size_t size = (size_t)PTHREAD_STACK_MIN + 16 * KIB;
	pthread_attr_t attr;
	pthread_t t;

	(void)arg;
	open_busy();
	MUST(!pthread_attr_init(&attr) && !pthread_attr_setstacksize(&attr, size));
	MUST(!pthread_create(&t, &attr, on_small_stack, NULL) && !pthread_join(t, NULL));
	MUST(quire_close(q) == 0);
}

/* What README says that a fault takes of the stack, the kernel's frame included. */
#define STACK_MOST (24 * KIB)

static void *on_alternate_stack(void *arg)
{
	size_t size = 64 * KIB, unused = 0;
	stack_t s = { .ss_sp = malloc(size), .ss_size = size };

	(void)arg;
	MUST(s.ss_sp != NULL);
	memset(s.ss_sp, 0xa5, size);
	MUST(!sigaltstack(&s, NULL));
	/* In memory for nothing but what is being used: faults have to evict. */
	for (int i = 0; i < 20; i++)
		use_memory();
	while (unused < size && ((unsigned char *)s.ss_sp)[unused] == 0xa5)
		unused++;
	printf("of the stack: %zu bytes\n", size - unused);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	MUST(size - unused <= STACK_MOST);
#endif
	s.ss_flags = SS_DISABLE;
	sigaltstack(&s, NULL);
	free(s.ss_sp);
	return NULL;
}

static void alternate_stack(void *arg)
{
	pthread_t t;

	(void)arg;
	open_busy();
	MUST(!pthread_create(&t, NULL, on_alternate_stack, NULL) && !pthread_join(t, NULL));
	MUST(quire_close(q) == 0);
}

/* The pager's own threads take no signal of the program's. */
static pid_t main_thread;
static volatile int strayed;

static void stray(int number)
{
	(void)number;
	if (gettid() != main_thread)
		strayed = 1;
}

static void no_stray_signals(void *arg)
{
	sigset_t mask, old;

	(void)arg;
	main_thread = gettid();
	signal(SIGUSR1, stray);
	open_busy();
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &mask, &old);
	for (int i = 0; i < 50; i++) {
		kill(getpid(), SIGUSR1); /* goes to any thread that lets it in */
		sleep_seconds(0.001);
	}
	MUST(!strayed);
	sigpending(&mask);
	MUST(sigismember(&mask, SIGUSR1));
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	MUST(!strayed);
	use_memory();
	MUST(quire_close(q) == 0);
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	MUST(!sigismember(&mask, SIGUSR1) && !sigismember(&mask, SIGBUS));
}

static void undisturbed(void)
{
	CHECK_EQ(in_child(keep_errno, NULL, 10), 0);
	CHECK_EQ(in_child(handler_touches, NULL, 10), 0);
	CHECK_EQ(in_child(small_stack, NULL, 10), 0);
	CHECK_EQ(in_child(alternate_stack, NULL, 10), 0);
	CHECK_EQ(in_child(no_stray_signals, NULL, 10), 0);
}

static void probe(void *arg)
{
	struct quire_options o = { .size = sizeof o, .memory = MIB };

	(void)arg;
	_exit(quire_open(&q, &o) == -ENOTSUP ? 77 : 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(default_action), UNIT(programs_handlers),
		                                  UNIT(undisturbed), UNIT_END };
	int status = in_child(probe, NULL, 5);

	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		unit_skip_all("no engine works here");
	return unit_main(argc, argv, "signals", tests);
}
