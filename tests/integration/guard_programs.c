/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/guard_programs.c - programs executed, by all ways, with names, arguments and
 * environment in managed memory; what they inherit.
 *
 * test: matrix=in-thread
 */
#define _GNU_SOURCE
#include "guarded.h"

#include <errno.h>
#include <spawn.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

/* --------------------------------------------------------------- programs */

static int status_of(pid_t child)
{
	int status = -1;

	waitpid(child, &status, 0);
	return status;
}

static void executed_programs(void)
{
	char **list, *here[3], *path, *command, *echo;
	FILE *stream;
	char text[20];
	posix_spawnattr_t *attributes;
	pid_t child, *in_region;

	open_guarded();
	path = room_for("/bin/sh");
	command = room_for("test \"$1\" = here -a \"$2\" = there");
	list = room(6 * sizeof *list);
	list[0] = path;
	list[1] = room_for("-c");
	list[2] = command;
	list[3] = room_for("sh");
	list[4] = room_for("here");
	list[5] = NULL;
	echo = room_for("echo written");
	/* "there" is missing. */
	away();
	child = vfork();
	if (child == 0) {
		execve(path, list, environ);
		_exit(99);
	}
	CHECK_EQ(WEXITSTATUS(status_of(child)), 1);
	here[0] = path;
	here[1] = room_for("/");
	here[2] = NULL;
	away();
	child = vfork();
	if (child == 0) {
		execv("/bin/ls", here);
		_exit(99);
	}
	CHECK_EQ(status_of(child), 0);
	CHECK_EQ(GONE(posix_spawn(&child, path, NULL, NULL, list, environ)), 0);
	CHECK_EQ(WEXITSTATUS(status_of(child)), 1);
	in_region = room(sizeof *in_region);
	attributes = room(sizeof *attributes);
	posix_spawnattr_init(attributes);
	CHECK_EQ(GONE(posix_spawn(in_region, path, NULL, attributes, list, environ)), 0);
	CHECK_EQ(WEXITSTATUS(status_of(*in_region)), 1);
	CHECK_EQ(GONE(posix_spawnp(&child, room_for("true"), NULL, NULL, here, environ)), 0);
	CHECK_EQ(status_of(child), 0);
	CHECK_EQ(GONE(system(echo)), 0);
	away();
	child = vfork();
	if (child == 0) {
		execl(list[0], list[3], list[1], list[2], list[3], list[4], NULL);
		_exit(99);
	}
	CHECK_EQ(WEXITSTATUS(status_of(child)), 1);
	away();
	child = vfork();
	if (child == 0) {
		execlp("sh", list[3], list[1], list[2], list[3], list[4], list[4], NULL);
		_exit(99);
	}
	CHECK_EQ(WEXITSTATUS(status_of(child)), 1);
	stream = GONE(popen(echo, "r"));
	REQUIRE(stream != NULL);
	CHECK(fgets(text, sizeof text, stream) != NULL);
	CHECK_STR(text, "written\n");
	CHECK_EQ(pclose(stream), 0);
	CHECK_EQ(GONE(execve(list[2], list, environ)), -1);
	CHECK_EQ(errno, ENOENT);
	close_guarded();
}

static unsigned filters(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[200];
	unsigned n = 0;

	while (f && fgets(line, sizeof line, f))
		sscanf(line, "Seccomp_filters: %u", &n);
	if (f)
		fclose(f);
	return n;
}

/* A program that is executed has the filter already, and does not add another. */
static void inherited_filter(void)
{
	char *self[] = { (char *)*unit_program(), (char *)"again", NULL };
	pid_t child;

	open_guarded();
	if (engine_serves_kernel(guarded.pager)) {
		close_guarded();
		return;
	}
	fflush(stdout);
	child = vfork();
	if (child == 0) {
		char count[40];

		snprintf(count, sizeof count, "%u", filters());
		setenv("QUIRE_TEST_FILTERS", count, 1);
		execv("/proc/self/exe", self);
		_exit(99);
	}
	CHECK_EQ(status_of(child), 0);
	close_guarded();
}

static int again(void)
{
	char *a;

	open_guarded();
	a = room(5000);
	MUST(GONE(getrandom(a, 5000, 0)) == 5000);
	MUST(filters() == strtoul(getenv("QUIRE_TEST_FILTERS"), NULL, 10));
	MUST(quire_close(guarded.pager) == 0);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(executed_programs),
		UNIT(inherited_filter),
		UNIT_END,
	};

	if (argc == 2 && strcmp(argv[1], "again") == 0)
		return again();
	return unit_main(argc, argv, "guard_programs", tests);
}
