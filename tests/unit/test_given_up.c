/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_given_up.c - a fork (vm/fork.c) whose thread has what another waits for that is at work:
 * a lock of the program's that its error callback wants, or one of an allocator's. There is no standstill
 * then, ever. The pager and the forks are real.
 */
#include "base/quiesce.h"
#include "tests/unit/uffd_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_mutex_t wanted = PTHREAD_MUTEX_INITIALIZER;
static _Atomic bool at_work;

static void *waits_at_work(void *arg)
{
	work_enter();
	atomic_store(&at_work, true);
	pthread_mutex_lock(&wanted);
	pthread_mutex_unlock(&wanted);
	work_leave();
	return arg;
}

static unsigned bare; /* descriptors without a pager */

static unsigned descriptors(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1000; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static bool is_refused(uint64_t page)
{
	struct access a = { .word = at(page, 0) };

	do_access(&a);
	return a.signal == SIGSEGV;
}

/* => 0: it has nothing */
static int has_nothing(void)
{
	quire_t *other = NULL;

	/* Its function might want the lock. */
	if (atomic_load(&told[QUIRE_ERROR_FORK]) != 0)
		return 1;
	for (uint64_t page = 0; page < PAGES; page += 50)
		if (!is_refused(page))
			return 2;
	/* Nobody else's memory comes to lie there. */
	if (mmap(quire_region_base(r), PAGE_BYTES, PROT_NONE,
	         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED)
		return 5;
	if (descriptors() > bare)
		return 6;
	if (quire_advise(r, 0, PAGE_BYTES, QUIRE_ADVISE_COLD) != -ENODEV ||
	    quire_open(&other, NULL) != -ENODEV || quire_close(q) != 0)
		return 3;
	return 0;
}

/* And its children as little; but nobody waits. */
static int neither_has_its_child(void)
{
	int status = -1, result = has_nothing();
	pid_t pid;

	if (result)
		return result;
	pid = fork();
	if (pid == 0)
		_exit(has_nothing());
	waitpid(pid, &status, 0);
	return status == 0 ? 0 : 4;
}

static int ends_as(pid_t pid)
{
	int status = -1;

	CHECK(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 200 + WTERMSIG(status);
}

static int has_all(void)
{
	for (uint64_t page = 0; page < PAGES; page += 50)
		if (*at(page, 0) == 0)
			return 1;
	return atomic_load(&told[QUIRE_ERROR_FORK]) == 0 ? 0 : 2;
}

static void fork_as(const char *engine)
{
	unsigned before = descriptors();
	pthread_t thread;
	pid_t pid;

	uffd_start(engine);
	/* With the test's own of the swap file. */
	bare = before + 1;
	uffd_fill();
	fork_patience_ns = 100000000;
	atomic_store(&at_work, false);
	pthread_mutex_lock(&wanted);
	REQUIRE_EQ(pthread_create(&thread, NULL, waits_at_work, NULL), 0);
	while (!atomic_load(&at_work))
		nap(1);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		alarm(20);
		_exit(neither_has_its_child());
	}
	CHECK_EQ(ends_as(pid), 0);
	pthread_mutex_unlock(&wanted);
	pthread_join(thread, NULL);
	/* As if nothing had been. */
	pid = fork();
	if (pid == 0) {
		alarm(20);
		_exit(has_all());
	}
	CHECK_EQ(ends_as(pid), 0);
	CHECK_EQ(atomic_load(&told[QUIRE_ERROR_FORK]), 0);
	uffd_check_all();
	uffd_finish();
}

static void under_uffd(void)
{
	fork_as("uffd");
}

static void under_uffd_signal(void)
{
	fork_as("uffd-signal");
}

static void under_sigsegv(void)
{
	fork_as("sigsegv");
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(under_uffd),
		UNIT(under_uffd_signal),
		UNIT(under_sigsegv),
		UNIT_END,
	};

	if (unit_foreign_threads())
		return 77;
	return uffd_main(argc, argv, "given_up", tests);
}
