/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/fork_save.c - fork(2) in the middle of a save: the image is written by the
 * parent alone, whoever forks and wherever, and the child has nothing of it.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 128 };

#define BUDGET (80 * PAGE)

static quire_t *q;
static quire_region_t *r;
static struct errors errors;
static unsigned bare; /* descriptors without a pager */

static void begin(void)
{
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET,
		                   .on_error = errors_count,
		                   .on_error_arg = &errors };

	memset(&errors, 0, sizeof errors);
	bare = descriptors();
	q = pager_open_options(&o);
	r = region_create(q, PAGES * PAGE);
	fill(r, 0, PAGES, 1);
}

/* ----------------------------------------------- beside another's save */

enum { SERVED, TOLD };

static quire_save_t *running;

/* The handle is good for nothing but to be given up. arg: not NULL: the pager is closed first */
static void has_no_save(void *arg)
{
	bool told = errors.count > 0;
	uint64_t done, of = 0;

	alarm(20);
	if (arg)
		MUST(quire_close(q) == 0);
	MUST(quire_save_progress(running, &done, &of) && of == PAGES * PAGE);
	quire_save_cancel(running);
	MUST(quire_save_end(running) == -ECHILD);
	MUST(contains(quire_error_message(), "child of fork"));
	if (!arg)
		MUST(quire_close(q) == 0);
	MUST(descriptors() == bare);
	_exit(told ? TOLD : SERVED);
}

static bool image_holds(const char *path, unsigned version)
{
	quire_snapshot_t *s = NULL;
	uint64_t words[PAGE / 8];
	size_t bad = 0;

	MUST(quire_image_verify(path, NULL, NULL) == 0);
	MUST(quire_snapshot_load(q, path, &s) == 0);
	for (size_t p = 0; p < PAGES; p++) {
		MUST(quire_snapshot_read(s, p * PAGE, words, PAGE) == 0);
		bad += wrong_page(words, p, version) != 0;
	}
	return bad == 0;
}

/* The save goes on, and is the parent's alone, whether the child has the pager or has not. */
static void while_the_parent_saves(void)
{
	struct quire_save_options o = { .size = sizeof o, .bandwidth = PAGES * PAGE };
	const char *path = path_in(temporary_directory(), "image");
	unsigned count[2] = { 0 }, used;
	quire_snapshot_t *s = NULL;

	begin();
	CHECK_EQ(quire_snapshot_create(r, &s), 0);
	used = descriptors();
	CHECK_EQ(quire_save_begin(s, path, NULL, &o, &running), 0);
	/* One that is there for its save only. */
	CHECK_EQ(quire_snapshot_destroy(s), 0);
	fill(r, 0, PAGES / 2, 2);
	for (unsigned i = 0; i < 10 && !quire_save_progress(running, NULL, NULL); i++) {
		unsigned most = i % 5 == 4 ? used + 64 : i % 5 + 3;
		pid_t pid = child_start_short(has_no_save, i % 2 ? &q : NULL, most);
		int status = child_end(pid, 20);

		CHECK(status == SERVED << 8 || status == TOLD << 8);
		count[status == TOLD << 8]++;
	}
	printf("served %u, told %u\n", count[SERVED], count[TOLD]);
	CHECK(count[TOLD] > 1);
	CHECK_EQ(quire_save_end(running), 0);
	CHECK(image_holds(path, 1));
	CHECK_EQ(entries(temporary_directory()), 1);
	CHECK_EQ(wrong(r, 0, PAGES / 2, 2) + wrong(r, PAGES / 2, PAGES / 2, 1), 0);
	CHECK_EQ(errors.count, 0);
	CHECK_EQ(quire_close(q), 0);
	CHECK_EQ(descriptors(), bare);
}

/* KiB of private memory that may be written */
static long data_now(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[200];
	long kib = -1;

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "VmData: %ld", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

static long *data_of_child;

static void tell_data(void *arg)
{
	if (arg)
		MUST(quire_save_end(running) == -ECHILD);
	*data_of_child = data_now();
}

/* A child in the middle of a save has no more than one without, once it has given up the handle. */
static void no_memory_of_a_save(void)
{
	struct quire_save_options o = { .size = sizeof o };
	const char *path = path_in(temporary_directory(), "image");
	quire_snapshot_t *s = NULL;
	long without;

	if (SANITIZED)
		return; /* they have memory of their own */
	data_of_child = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(data_of_child != MAP_FAILED);
	begin();
	CHECK_EQ(quire_snapshot_create(r, &s), 0);
	/* So that there is its thread's stack, which the C library keeps. */
	CHECK_EQ(quire_save_begin(s, path, NULL, &o, &running), 0);
	CHECK_EQ(quire_save_end(running), 0);
	CHECK_EQ(in_child(tell_data, NULL, 20), 0);
	without = *data_of_child;
	o.bandwidth = PAGES * PAGE;
	CHECK_EQ(quire_save_begin(s, path, NULL, &o, &running), 0);
	sleep_seconds(0.1);
	CHECK_EQ(in_child(tell_data, s, 20), 0);
	CHECK(without > 0);
	CHECK(*data_of_child <= without + 64);
	quire_save_cancel(running);
	CHECK_EQ(quire_save_end(running), -ECANCELED);
	CHECK_EQ(quire_close(q), 0);
	munmap(data_of_child, PAGE);
}

/* ------------------------------------------------------ by who saves */

static volatile sig_atomic_t forked; /* 1: in the parent, 2: this is the child */

static bool twice; /* as daemons do: its child forks again, and is gone */

static void fork_now(int number)
{
	int status;
	pid_t pid;

	(void)number;
	if (forked)
		return;
	forked = fork() == 0 ? 2 : 1;
	if (forked == 1 || !twice)
		return;
	pid = fork();
	if (pid == 0)
		return;
	_exit(waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 9);
}

/* In the middle of a save, by its own thread: in the child it fails, in the parent nothing has happened. */
static void forked_by_who_saves(void)
{
	const char *path = path_in(temporary_directory(), "image");
	struct sigaction a = { .sa_handler = fork_now };
	unsigned failed = 0;

	begin();
	MUST(sigaction(SIGALRM, &a, NULL) == 0);
	for (int i = 1; i <= 30; i++) {
		struct itimerval soon = { .it_value.tv_usec = 100 * i };
		quire_snapshot_t *s = NULL;
		int status = 0, error;

		CHECK_EQ(quire_snapshot_create(r, &s), 0);
		forked = 0;
		twice = i % 2 &&
		        !SANITIZED; /* whose allocators do not look after their locks at a fork */
		fflush(NULL);
		MUST(setitimer(ITIMER_REAL, &soon, NULL) == 0);
		error = quire_snapshot_save(s, path, NULL);
		if (forked == 2) {
			alarm(0);
			MUST(error == -ECHILD || error == 0);
			MUST(wrong(r, 0, PAGES, 1) == 0 && quire_snapshot_destroy(s) == 0);
			MUST(quire_close(q) == 0);
			_exit(error ? 1 : 2);
		}
		while (!forked)
			sleep_seconds(0.001);
		if (forked == 2)
			_exit(2);
		CHECK(wait(&status) > 0 && WIFEXITED(status));
		failed += WEXITSTATUS(status) == 1;
		CHECK(WEXITSTATUS(status) == 1 || WEXITSTATUS(status) == 2);
		if (WEXITSTATUS(status) == 1)
			CHECK(error == 0 && image_holds(path, 1));
		CHECK_EQ(quire_snapshot_destroy(s), 0);
	}
	printf("in the middle: %u\n", failed);
	signal(SIGALRM, SIG_DFL);
	CHECK(failed > 0);
	CHECK_EQ(quire_close(q), 0);
}

/* Where a handler might fork: when all is written, before the file has its name. */
static enum { NOWHERE, BEFORE_FSYNC, AFTER_FSYNC, BEFORE_ITS_NAME } fork_where;

/* In the child, what its parent was doing goes on later. */
static void fork_here(void)
{
	fork_where = NOWHERE;
	forked = fork() == 0 ? 2 : 1;
	if (forked == 2)
		sleep_seconds(0.2);
}

/* These two come in place of the C library's. */
int fsync(int fd)
{
	if (fork_where == BEFORE_FSYNC)
		fork_here();
	else if (fork_where == AFTER_FSYNC)
		fork_where = BEFORE_ITS_NAME;
	return (int)syscall(SYS_fsync, fd);
}

int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	if (fork_where == BEFORE_ITS_NAME)
		fork_here();
	return sigprocmask(how, set, old) == 0 ? 0 : errno;
}

static int save_version(const char *path, unsigned version)
{
	quire_snapshot_t *s = NULL;
	int error;

	fill(r, 0, PAGES, version);
	MUST(quire_snapshot_create(r, &s) == 0);
	error = quire_snapshot_save(s, path, NULL);
	MUST(quire_snapshot_destroy(s) == 0);
	return error;
}

/*
 * All is written when a child takes up its parent's save, but for the name. What has replaced the
 * image meanwhile is not replaced by it, nor what was taken away put back.
 */
static void an_older_image_does_not_return(void)
{
	const char *path = path_in(temporary_directory(), "image");
	char aside[300];

	snprintf(aside, sizeof aside, "%s.aside", path);
	begin();
	for (int i = 0; i < 8; i++) {
		int status = 0, error;
		bool replaces = i % 2, replaced = i / 2 % 2;

		unlink(path);
		if (replaces)
			CHECK_EQ(save_version(path, 3), 0);
		forked = 0;
		fork_where = i / 4 % 2 ? AFTER_FSYNC : BEFORE_FSYNC;
		fflush(NULL);
		error = save_version(path, 1);
		if (forked == 2)
			_exit(error != -ECHILD);
		CHECK_EQ(error, 0);
		CHECK_EQ(forked, 1);
		CHECK(image_holds(path, 1));
		/* (A file that had a name, and has none, does not get one again.) */
		MUST(rename(path, aside) == 0);
		if (replaced)
			CHECK_EQ(save_version(path, 2), 0);
		CHECK(wait(&status) > 0 && status == 0);
		CHECK(replaced ? image_holds(path, 2) : access(path, F_OK) != 0);
		MUST(unlink(aside) == 0);
		CHECK_EQ(entries(temporary_directory()), replaced);
	}
	CHECK_EQ(quire_close(q), 0);
}

/* In the middle of waiting for one: the thread that saves is none of the child's, whoever has its place. */
static void forked_by_who_waits(void)
{
	struct quire_save_options o = { .size = sizeof o, .bandwidth = 2 * PAGES * PAGE };
	const char *path = path_in(temporary_directory(), "image");
	struct sigaction a = { .sa_handler = fork_now };

	begin();
	twice = false;
	MUST(sigaction(SIGALRM, &a, NULL) == 0);
	for (int i = 0; i < 3; i++) {
		struct itimerval soon = { .it_value.tv_usec = 50000 };
		quire_snapshot_t *s = NULL;
		int status = 0, error;

		forked = 0;
		CHECK_EQ(quire_snapshot_create(r, &s), 0);
		CHECK_EQ(quire_save_begin(s, path, NULL, &o, &running), 0);
		fflush(NULL);
		MUST(setitimer(ITIMER_REAL, &soon, NULL) == 0);
		error = quire_save_end(running);
		if (forked == 2) {
			alarm(20);
			MUST(error == -ECHILD && wrong(r, 0, PAGES, 1) == 0);
			_exit(quire_close(q) != 0);
		}
		CHECK(error == 0 && image_holds(path, 1));
		for (int n = 0; n < 2000 && waitpid(-1, &status, WNOHANG) == 0; n++)
			sleep_seconds(0.01);
		CHECK_EQ(status, 0);
		CHECK_EQ(quire_snapshot_destroy(s), 0);
	}
	signal(SIGALRM, SIG_DFL);
	CHECK_EQ(quire_close(q), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(while_the_parent_saves), UNIT(no_memory_of_a_save),
		UNIT(forked_by_who_saves),    UNIT(an_older_image_does_not_return),
		UNIT(forked_by_who_waits),    UNIT_END
	};

	return unit_main(argc, argv, "fork_save", tests);
}
