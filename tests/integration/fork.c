/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/fork.c - children of fork(2), and of other calls that make a process:
 * what they may do goes well whatever the other threads were doing at that moment, and the
 * parent's memory is not harmed. What of it they have: fork_memory.c and its kin; beside threads at
 * work: fork_storm.c.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHURNERS = 2, BALLAST = 300 };

static quire_t *q;
static quire_region_t *steady;
static unsigned stop, failures;

/* Regions come and go, in front of many others; so the table of regions is mostly in motion. */
static void *churn(void *arg)
{
	unsigned v = (unsigned)(uintptr_t)arg;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		quire_region_t *r = region_create(q, 4 * PAGE);

		fill(r, 0, 1, v);
		if (madvise(page_at(r, 0), PAGE, MADV_DONTNEED) || nonzero(r, 0, 1) ||
		    quire_region_destroy(r))
			__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Looks regions up without a rest: each madvise on managed memory does. */
static void *look(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		if (madvise(page_at(steady, 255), PAGE, MADV_DONTNEED))
			__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
	return NULL;
}

/* Memory of the child's own. */
static void own_memory(void)
{
	char *p = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	MUST(p != MAP_FAILED);
	for (int round = 0; round < 50; round++) {
		memset(p, 1, 8 * PAGE);
		MUST(madvise(p, 8 * PAGE, round % 2 ? MADV_DONTNEED : MADV_FREE) == 0);
		MUST(round % 2 == 0 || (p[0] == 0 && p[8 * PAGE - 1] == 0));
	}
	MUST(munmap(p, 8 * PAGE) == 0);
}

/* => wait status of a child that does this; one that hangs is ended by a signal */
static int fork_child(void (*f)(void))
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		alarm(10);
		f();
		_exit(0);
	}
	MUST(pid > 0 && waitpid(pid, &status, 0) == pid);
	return status;
}

static void while_regions_change(void)
{
	int rounds = (int)quick_or_full(40, 1000);
	pthread_t t[CHURNERS + 1];
	unsigned bad = 0;

	stop = failures = 0;
	q = pager_open(2 * MIB);
	steady = region_create(q, 256 * PAGE);
	fill(steady, 0, 64, 1);
	for (int i = 0; i < BALLAST; i++)
		region_create(q, PAGE);
	for (uintptr_t i = 0; i < CHURNERS; i++)
		MUST(!pthread_create(&t[i], NULL, churn, (void *)(i + 1)));
	MUST(!pthread_create(&t[CHURNERS], NULL, look, NULL));
	for (int i = 0; i < rounds && bad == 0; i++) {
		int status = fork_child(own_memory);

		if (status != 0)
			printf("child %d: status %#x\n", i, (unsigned)status);
		bad += status != 0;
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = 0; i <= CHURNERS; i++)
		pthread_join(t[i], NULL);
	CHECK_EQ(bad, 0);
	CHECK_EQ(failures, 0);
	CHECK_EQ(wrong(steady, 0, 64, 1), 0);
	CHECK_EQ(quire_close(q), 0);
}

/* Pages shared with a child that lives are evicted and come back all the same. */
static void parent_goes_on(void)
{
	int hold[2];
	char c = 0;
	pid_t pid;
	int status;

	q = pager_open(MIB);
	steady = region_create(q, 4 * MIB);
	fill(steady, 0, 1024, 1);
	MUST(pipe(hold) == 0);
	fflush(NULL);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		close(hold[1]);
		own_memory();
		_exit(read(hold[0], &c, 1) == 0 ? 0 : 1);
	}
	close(hold[0]);
	CHECK_EQ(wrong(steady, 0, 1024, 1), 0);
	fill(steady, 0, 1024, 2);
	CHECK_EQ(wrong(steady, 0, 1024, 2), 0);
	CHECK(pager_stats(q).resident <= MIB);
	close(hold[1]);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK_EQ(quire_close(q), 0);
}

static void pager_of_its_own(void)
{
	quire_t *mine = pager_open(MIB);
	quire_region_t *r = region_create(mine, 4 * MIB);

	fill(r, 0, 1024, 3);
	MUST(wrong(r, 0, 1024, 3) == 0);
	MUST(quire_region_destroy(r) == 0);
	MUST(quire_close(mine) == 0);
}

/* Beside the one that it has. */
static void children_with_pagers(void)
{
	q = pager_open(MIB);
	steady = region_create(q, 4 * MIB);
	fill(steady, 0, 1024, 1);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(fork_child(pager_of_its_own), 0);
	CHECK_EQ(wrong(steady, 0, 1024, 1), 0);
	CHECK_EQ(quire_close(q), 0);
}

/* -------------------------------------------------------- other programs */

/* One that says how many descriptors it has, which are none of ours, by its status. */
#define COUNT "set -- /proc/self/fd/*; exit $#"

static int status_of(pid_t pid)
{
	int status = -1;

	MUST(pid > 0 && waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *const shell[] = { "sh", "-c", COUNT, NULL };

static int by_exec(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		execv("/bin/sh", shell);
		_exit(200);
	}
	return status_of(pid);
}

static int by_vfork(void)
{
	pid_t pid = vfork();

	if (pid == 0) {
		execv("/bin/sh", shell);
		_exit(200);
	}
	return status_of(pid);
}

static int by_spawn(void)
{
	pid_t pid = -1;

	MUST(posix_spawn(&pid, "/bin/sh", NULL, NULL, shell, environ) == 0);
	return status_of(pid);
}

static int by_system(void)
{
	int status = system(COUNT);

	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int by_popen(void)
{
	FILE *f = popen(COUNT, "w");
	int status;

	MUST(f != NULL);
	status = pclose(f);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int (*const ways[])(void) = { by_exec, by_vfork, by_spawn, by_system, by_popen };

enum { WAYS = sizeof ways / sizeof ways[0] };

static void *write_on(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		fill(steady, 128, 120, 2);
		if (wrong(steady, 128, 120, 2))
			__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
	}
	return arg;
}

/* What another thread writes meanwhile is not in the way, nor is it harmed. */
static void other_programs(void)
{
	int bare[WAYS], got[WAYS];
	pthread_t t;

	fflush(NULL);
	for (int i = 0; i < WAYS; i++)
		bare[i] = ways[i]();
	q = pager_open(QUIRE_MEMORY_MIN);
	steady = region_create(q, 256 * PAGE);
	fill(steady, 0, 128, 1);
	stop = failures = 0;
	MUST(pthread_create(&t, NULL, write_on, NULL) == 0);
	for (int round = 0; round < (int)quick_or_full(4, 50); round++) {
		for (int i = 0; i < WAYS; i++)
			got[i] = ways[i]();
		CHECK(memcmp(bare, got, sizeof got) == 0);
		CHECK_EQ(wrong(steady, 0, 128, 1), 0);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	pthread_join(t, NULL);
	CHECK_EQ(failures, 0);
	CHECK_EQ(quire_close(q), 0);
}

/* ------------------------------------------------- without the handlers */

static pid_t raw_fork(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static const size_t probed[] = { 0, 20, 127, 140, 250 };

/* The signal that ended a child at this access, or a status. */
static int access_in(pid_t (*make)(void), size_t page, bool write)
{
	struct rlimit none = { 0, 0 };
	int status = -1;
	pid_t pid = make();

	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &none);
		alarm(5);
		if (write)
			store(page_at(steady, page), 1);
		_exit(load(page_at(steady, page)) == 0 ? 100 : 101);
	}
	MUST(pid > 0 && waitpid(pid, &status, 0) == pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

/* In memory, on the swap file, in standby, never touched: it has none of it, and is told. */
static void without_handlers(void)
{
	static pid_t (*const makes[])(void) = {
#if __GLIBC_PREREQ(2, 34)
		_Fork,
#endif
		raw_fork
	};

	q = pager_open(QUIRE_MEMORY_MIN);
	steady = region_create(q, 256 * PAGE);
	fill(steady, 0, 150, 1);
	fflush(NULL);
	for (size_t m = 0; m < sizeof makes / sizeof makes[0]; m++)
		for (size_t i = 0; i < sizeof probed / sizeof probed[0]; i++) {
			CHECK_EQ(access_in(makes[m], probed[i], false), SIGSEGV);
			CHECK_EQ(access_in(makes[m], probed[i], true), SIGSEGV);
		}
	CHECK_EQ(wrong(steady, 0, 150, 1), 0);
	/* And of a child with them, where it has memory. */
	CHECK_EQ(access_in(fork, 20, false), 101);
	for (size_t i = 0; i < sizeof probed / sizeof probed[0]; i++)
		CHECK_EQ(access_in(raw_fork, probed[i], false), SIGSEGV);
	CHECK_EQ(wrong(steady, 0, 150, 1), 0);
	CHECK_EQ(quire_close(q), 0);
}

static quire_snapshot_t *shot;

static void *read_on(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		if (wrong(steady, 0, 256, 1))
			__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
	return arg;
}

/* Of such a child's child, too, whose fork none of the pagers hears of. */
static void out_of_reach(void)
{
	for (size_t i = 0; i < sizeof probed / sizeof probed[0]; i++)
		MUST(try_load(page_at(steady, probed[i])).signal == SIGSEGV);
}

static void calls_are_refused(void)
{
	quire_snapshot_t *s = NULL;
	quire_region_t *other = NULL;
	struct quire_stats figures;
	quire_t *second = NULL;
	char c[PAGE];

	MUST(quire_region_create(q, PAGE, NULL, &other) == -ENODEV);
	MUST(quire_advise(steady, 0, PAGE, QUIRE_ADVISE_DONTNEED) == -ENODEV);
	MUST(quire_pin(steady, 0, PAGE) == -ENODEV);
	MUST(quire_protect(steady, 0, PAGE, PROT_READ) == -ENODEV);
	MUST(quire_region_destroy(steady) == -ENODEV);
	MUST(quire_snapshot_create(steady, &s) == -ENODEV);
	MUST(quire_snapshot_read(shot, 0, c, PAGE) == -ENODEV);
	MUST(quire_snapshot_rollback(shot) == -ENODEV);
	MUST(quire_snapshot_destroy(shot) == -ENODEV);
	MUST(quire_stats_get(q, &figures) == -ENODEV);
	MUST(quire_stats_print(q, stdout, QUIRE_FORMAT_STATUS) == -ENODEV);
	MUST(quire_set_memory(q, 2 * QUIRE_MEMORY_MIN) == -ENODEV);
	MUST(quire_open(&second, NULL) == -ENODEV);
	MUST(quire_close(q) == 0);
}

/* It was made while others were at work, which they are in its memory for ever: it waits for none of them. */
static void has_nothing(void *own)
{
	int status;
	pid_t pid;

	alarm(5);
	catch_install();
	out_of_reach();
	*(volatile char *)own = 1;
	MUST(madvise(own, PAGE, MADV_DONTNEED) == 0 && *(volatile char *)own == 0);
	MUST(madvise(quire_region_base(steady), PAGE, MADV_DONTNEED) == -1 && errno == ENOMEM);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		alarm(5);
		out_of_reach();
		calls_are_refused();
		_exit(0);
	}
	MUST(waitpid(pid, &status, 0) == pid && status == 0);
	out_of_reach();
	calls_are_refused();
	_exit(0);
}

static void made_while_others_are_at_work(void)
{
	void *own = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t t[2];
	int status;

	MUST(own != MAP_FAILED);
	q = pager_open(QUIRE_MEMORY_MIN);
	steady = region_create(q, 256 * PAGE);
	fill(steady, 0, 256, 1);
	MUST(quire_snapshot_create(steady, &shot) == 0);
	stop = failures = 0;
	for (int i = 0; i < 2; i++)
		MUST(pthread_create(&t[i], NULL, read_on, NULL) == 0);
	for (int i = 0; i < (int)quick_or_full(20, 200); i++) {
		pid_t pid;

		fflush(NULL);
		pid = raw_fork();
		if (pid == 0)
			has_nothing(own);
		MUST(pid > 0 && waitpid(pid, &status, 0) == pid);
		CHECK_EQ(status, 0);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	CHECK_EQ(failures, 0);
	CHECK_EQ(wrong(steady, 0, 256, 1), 0);
	CHECK_EQ(quire_close(q), 0);
	munmap(own, PAGE);
}

static void open_a_first_pager(void)
{
	int status;
	pid_t pid;

	alarm(10);
	q = pager_open(QUIRE_MEMORY_MIN);
	steady = region_create(q, 256 * PAGE);
	fill(steady, 0, 256, 1);
	pid = fork();
	if (pid == 0)
		_exit(wrong(steady, 0, 256, 1) != 0);
	MUST(waitpid(pid, &status, 0) == pid && status == 0);
	MUST(wrong(steady, 0, 256, 1) == 0 && quire_close(q) == 0);
}

static void *fork_on(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		MUST(pid > 0 && waitpid(pid, NULL, 0) == pid);
	}
	return arg;
}

/* Where there was no pager such a child may have its own, and children with that, whatever others were at. */
static void a_first_pager_without_handlers(void)
{
	pthread_t t;
	int status;

	stop = 0;
	fflush(NULL);
	MUST(pthread_create(&t, NULL, fork_on, NULL) == 0);
	for (int i = 0; i < (int)quick_or_full(60, 500); i++) {
		pid_t pid = raw_fork();

		if (pid == 0) {
			/* (Whether the other was in the middle of a fork decides whether it may.) */
			if (quire_open(&q, NULL) == -ENODEV)
				_exit(0);
			MUST(quire_close(q) == 0);
			open_a_first_pager();
			_exit(0);
		}
		MUST(pid > 0 && waitpid(pid, &status, 0) == pid);
		CHECK_EQ(status, 0);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	pthread_join(t, NULL);
}

/* ------------------------------------- a fork that began when there was no pager */

static __thread bool
	held_back; /* this thread's fork waits in a handler that comes after the library's */
static unsigned stage;

static void reach(unsigned n)
{
	__atomic_store_n(&stage, n, __ATOMIC_RELEASE);
}

static void await(unsigned n)
{
	for (int i = 0; i < 5000 && __atomic_load_n(&stage, __ATOMIC_ACQUIRE) < n; i++)
		sleep_seconds(0.001);
	MUST(__atomic_load_n(&stage, __ATOMIC_ACQUIRE) >= n);
}

static bool others_first; /* this process's next fork lets that one go on, and waits for it */

static void hold_back(void)
{
	if (held_back) {
		reach(1);
		await(2);
	} else if (others_first) {
		others_first = false;
		reach(2);
		await(3);
	}
}

static void watch_early(void)
{
	pthread_atfork(hold_back, NULL, NULL);
}

/* Before the constructors of any library: of handlers for before the fork the last is called first. */
__attribute__((section(".preinit_array"), used)) static void (*const earliest)(void) = watch_early;

static void *fork_held_back(void *arg)
{
	sigset_t mask;
	int status;
	pid_t pid;

	held_back = true;
	pid = fork();
	if (pid == 0) {
		quire_t *other = NULL;

		alarm(5);
		_exit(quire_open(&other, NULL) != -ENODEV || quire_close(q) != 0);
	}
	reach(3);
	MUST(waitpid(pid, &status, 0) == pid && status == 0);
	MUST(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0 && !sigismember(&mask, SIGUSR1));
	return arg;
}

/* It is none of the pager's that is opened meanwhile, nor is anything of it that fork's that comes in between. */
static void two_at_once(void)
{
	pthread_t t;
	sigset_t mask;
	int status;
	pid_t pid;

	fflush(NULL);
	pid = raw_fork();
	if (pid == 0) {
		alarm(10);
		reach(0);
		MUST(pthread_create(&t, NULL, fork_held_back, NULL) == 0);
		await(1);
		q = pager_open(QUIRE_MEMORY_MIN);
		steady = region_create(q, 256 * PAGE);
		fill(steady, 0, 256, 1);
		others_first = true;
		pid = fork();
		if (pid == 0)
			_exit(wrong(steady, 0, 256, 1) != 0);
		MUST(waitpid(pid, &status, 0) == pid && status == 0);
		MUST(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
		MUST(!sigismember(&mask, SIGUSR1));
		MUST(pthread_join(t, NULL) == 0);
		MUST(wrong(steady, 0, 256, 1) == 0 && quire_close(q) == 0);
		_exit(0);
	}
	MUST(pid > 0 && waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(while_regions_change),
		                                  UNIT(parent_goes_on),
		                                  UNIT(children_with_pagers),
		                                  UNIT(other_programs),
		                                  UNIT(without_handlers),
		                                  UNIT(made_while_others_are_at_work),
		                                  UNIT(a_first_pager_without_handlers),
		                                  UNIT(two_at_once),
		                                  UNIT_END };

	return unit_main(argc, argv, "fork", tests);
}
