/* SPDX-License-Identifier: MIT */
/*
 * preload/start.c - before the program, and before the constructors of all other libraries
 * (DF_1_INITFIRST): so that what they allocate is paged, and the handlers of fork that they register
 * come before ours.
 *
 * Of the environment, beside what quire_open reads:
 *   QUIRE_RUN_PID      the process that `quire run` became; another is a child of its
 *   QUIRE_RUN_CHILD    the budget of a child, in bytes
 *   QUIRE_RUN_EXCLUDE  names of programs that are not to be paged, separated by colons; fnmatch(3)
 */
#include "preload/preload.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum preload_state preload_state;
quire_t *preload_pager;
quire_heap_t *preload_heap;

static const char *program = "program";

enum { STATUS_NOT_STARTED = 125 }; /* as env(1) and its like: it failed itself, not the program */

/* One line, in one piece, and without stdio, which may not be there yet or not any more. */
static void say(const char *what, const char *words)
{
	char line[1024];
	int n = snprintf(line, sizeof line, "quire: %s: %s%s\n", program, what, words);

	if (n > 0 && write(STDERR_FILENO, line, (size_t)n < sizeof line ? (size_t)n : sizeof line))
		return;
}

static void on_error(void *arg, const struct quire_error *e)
{
	(void)arg;
	say("", e->message);
}

static bool is_excluded(const char *name)
{
	const char *list = getenv("QUIRE_RUN_EXCLUDE");
	char pattern[256];

	while (list && *list) {
		size_t n = strcspn(list, ":");

		if (n && n < sizeof pattern) {
			memcpy(pattern, list, n);
			pattern[n] = '\0';
			if (fnmatch(pattern, name, 0) == 0)
				return true;
		}
		list += n + (list[n] == ':');
	}
	return false;
}

static bool is_child(void)
{
	const char *pid = getenv("QUIRE_RUN_PID");

	return pid && strtol(pid, NULL, 10) != (long)getpid();
}

/* => 0 or -errno with words */
static int open_all(void)
{
	struct quire_options o = { .size = sizeof o, .on_error = on_error };
	struct quire_heap_options h = { .size = sizeof h, .name = "malloc" };
	const char *child = getenv("QUIRE_RUN_CHILD"), *memory = getenv("QUIRE_MEMORY");
	const char *guard = getenv("QUIRE_GUARD");
	int error = 0;

	/* System calls are given memory from malloc: under every engine. */
	if (!guard || !*guard)
		o.guard = "on";
	if (is_child() && child)
		error = quire_options_set(&o, "memory", child);
	else if (!memory || !*memory)
		o.memory = quire_memory_here() / 4 * 3;
	if (!error)
		error = quire_open(&preload_pager, &o);
	if (!error)
		error = quire_heap_create(preload_pager, &h, &preload_heap);
	return error;
}

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* (Before libc's own constructor: it has not been told of the environment yet.) */
__attribute__((constructor)) static void start(int argc, char **argv, char **envp)
{
	if (!environ)
		environ = envp;
	if (argc > 0 && argv[0])
		program = name_of(argv[0]);
	malloc_find_libc();
	signals_find_libc();
	libc_find();
	if (is_excluded(program)) {
		preload_state = UNPAGED;
		return;
	}
	if (open_all() == 0) {
		child_prepare();
		end_prepare();
		preload_state = PAGED;
		return;
	}
	if (!is_child()) {
		say("not started: ", quire_error_message());
		_exit(STATUS_NOT_STARTED);
	}
	say("runs without Quire: ", quire_error_message());
	preload_state = UNPAGED;
}
