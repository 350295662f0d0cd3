/* SPDX-License-Identifier: MIT */
/*
 * bench/child.c - one measurement in a process of its own.
 *
 * Each measurement starts with fresh memory, and a contender that crashes or
 * hangs costs one cell of the table. The child writes its figures into shared
 * memory. The parent samples the child's resident memory from outside, so that
 * nothing in the child competes with the work, and kills it after a time.
 * Neighbours: bench.c decides what runs, work.c is what runs.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

volatile int interrupted;

static struct outcome *shared; /* the child's way to its parent */

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void pause_for(double seconds)
{
	struct timespec t = {
		.tv_sec = (time_t)seconds,
		.tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9),
	};

	while (nanosleep(&t, &t) && errno == EINTR && !interrupted)
		;
}

/* Resident pages of a process; 0 if it is gone. */
static unsigned long resident(pid_t pid)
{
	char path[64], text[128];
	unsigned long size, pages = 0;

	snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	return sscanf(text, "%lu %lu", &size, &pages) == 2 ? pages : 0;
}

/* ---------------------------------------------------------- in the child */

void yield_figure(enum figure f, double value)
{
	if (shared->count < OUTCOME_FIGURES) {
		shared->figure[shared->count].figure = f;
		shared->figure[shared->count++].value = value;
	}
}

void yield_metadata(uint64_t bytes)
{
	shared->metadata = bytes;
}

void yield_baseline(void)
{
	atomic_store(&shared->baseline, resident(getpid()));
}

void yield_error(int kind, int error, const char *message)
{
	if (atomic_fetch_add(&shared->errors, 1))
		return;
	shared->error_kind = kind;
	shared->error_errno = error;
	for (size_t i = 0; message[i] && i < sizeof shared->error_message - 1; i++)
		shared->error_message[i] = message[i];
}

/* Any thread may find a wrong word, perhaps several: the first message stays. */
void give_up(int state, const char *format, ...)
{
	static atomic_flag once = ATOMIC_FLAG_INIT;
	va_list args;

	if (atomic_flag_test_and_set(&once))
		for (;;)
			pause();
	va_start(args, format);
	vsnprintf(shared->message, sizeof shared->message, format, args);
	va_end(args);
	shared->state = state;
	_exit(1);
}

static _Noreturn void child(const struct job *job, enum contender who, const struct settings *s)
{
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	job->run(s, who);
	shared->state = OUT_DONE;
	_exit(0); /* the parent's atexit handlers are not the child's */
}

/* --------------------------------------------------------- in the parent */

/* Cached file pages of an earlier turn must not help or hinder the next. */
static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return; /* not permitted; machine_describe says so */
	ssize_t n = write(fd, "1", 1);
	(void)n;
	close(fd);
}

/* Wait for pid, sampling its memory. => its wait status; *late: it was killed for its time */
static int watch(pid_t pid, double seconds, bool *late)
{
	double end = now() + seconds;
	int status;

	for (;;) {
		pid_t got = waitpid(pid, &status, WNOHANG);

		if (got == pid)
			return status;
		unsigned long base = atomic_load(&shared->baseline), pages = resident(pid);
		if (base && pages > base && (double)((pages - base) * PAGE) > shared->peak)
			shared->peak = (double)((pages - base) * PAGE);
		if (interrupted || now() > end) {
			*late = !interrupted;
			kill(pid, SIGKILL);
			while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
				;
			return status;
		}
		pause_for(0.03);
	}
}

/* The child said nothing at its end: say what is known. */
static void describe_death(struct outcome *out, int status, bool late, double seconds)
{
	out->state = OUT_FAILED;
	if (late)
		snprintf(out->message, sizeof out->message, "killed after %.0f s", seconds);
	else if (WIFSIGNALED(status))
		snprintf(out->message, sizeof out->message, "died by signal %d (%s)",
		         WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(out->message, sizeof out->message, "exited with status %d",
		         WEXITSTATUS(status));
}

bool child_run(const struct job *job, enum contender who, const struct settings *s, double seconds,
               struct outcome *out)
{
	bool late = false;

	if (!shared) {
		shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
		              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (shared == MAP_FAILED) {
			perror("bench: mmap");
			exit(1);
		}
	}
	memset(shared, 0, sizeof *shared);
	drop_caches();
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0) {
		perror("bench: fork");
		exit(1);
	}
	if (pid == 0)
		child(job, who, s);

	int status = watch(pid, seconds, &late);
	if (interrupted)
		return false;
	memcpy(out, shared, sizeof *out);
	if (out->state == OUT_RUNNING)
		describe_death(out, status, late, seconds);
	else if (out->state == OUT_DONE && out->errors)
		snprintf(out->message, sizeof out->message, "it was finished");
	if (out->errors && out->state != OUT_SKIPPED && out->state != OUT_WRONG) {
		size_t n = strlen(out->message);

		/* Nothing here is meant to fail: an error that was survived is a failure too. */
		out->state = OUT_FAILED;
		snprintf(out->message + n, sizeof out->message - n,
		         "; Quire told of %u errors, first: kind %d, %s (%s)", out->errors,
		         out->error_kind, out->error_message, strerror(out->error_errno));
	}
	return true;
}
