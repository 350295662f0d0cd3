/* SPDX-License-Identifier: MIT */
/*
 * preload/end.c - statistics when the program ends, however it does so by itself.
 *
 * Of the environment:
 *   QUIRE_RUN_STATS   empty: as text to the standard error output, as it is now; else the name of a file, in
 *                     JSON, in which %p is the process's number. Without %p, only the process that
 *                     `quire run` became writes it.
 */
#include "preload/preload.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static char file[4096];
static int stream_fd = -1; /* where text goes: the program may close its own */
static bool is_wanted, is_for_all;
static pid_t first, self; /* self: not a child of vfork, whose memory is its parent's */
static _Atomic bool is_done;

static void in_child(void)
{
	self = getpid();
	atomic_store(&is_done, false);
}

void end_prepare(void)
{
	const char *name = getenv("QUIRE_RUN_STATS"), *pid = getenv("QUIRE_RUN_PID");

	if (!name)
		return;
	is_wanted = strlen(name) < sizeof file;
	if (!is_wanted)
		return;
	strcpy(file, name);
	is_for_all = strstr(file, "%p") != NULL;
	self = getpid();
	first = pid ? (pid_t)strtol(pid, NULL, 10) : self;
	pthread_atfork(NULL, NULL, in_child);
	if (!*file)
		stream_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 1000);
}

/* The file's name with the process's number. */
static void expand(char *out, size_t size)
{
	const char *at = strstr(file, "%p");

	if (at)
		snprintf(out, size, "%.*s%ld%s", (int)(at - file), file, (long)getpid(), at + 2);
	else
		snprintf(out, size, "%s", file);
}

static void print(void)
{
	char name[sizeof file + 32];
	FILE *f;

	if (*file) {
		expand(name, sizeof name);
		f = fopen(name, "we");
	} else {
		f = fdopen(dup(stream_fd >= 0 ? stream_fd : STDERR_FILENO), "w");
	}
	if (!f ||
	    quire_stats_print(preload_pager, f, *file ? QUIRE_FORMAT_JSON : QUIRE_FORMAT_STATUS))
		fprintf(stderr, "quire: statistics: %s\n", strerror(errno));
	if (f)
		fclose(f);
}

static void end(void)
{
	pid_t now = getpid();

	if (preload_state != PAGED || !is_wanted || now != self || (!is_for_all && now != first))
		return;
	if (!atomic_exchange(&is_done, true))
		print();
}

__attribute__((destructor)) static void end_by_exit(void)
{
	end();
}

EXPORT void _exit(int status)
{
	end();
	for (;;)
		syscall(SYS_exit_group, status);
}

EXPORT void _Exit(int status)
{
	_exit(status);
}
