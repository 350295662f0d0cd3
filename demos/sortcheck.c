/* SPDX-License-Identifier: MIT */
/* demos/sortcheck.c - run sort(1) and compare; see sortcheck.h. */
#define _XOPEN_SOURCE 700
#include "sortcheck.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <sys/wait.h>

#include "demo.h"

/* Start sort with its output in a pipe. => the end to read from */
static int start_sort(const char *input, size_t memory, pid_t *child)
{
	const char *search = getenv("PATH"), *directory = getenv("TMPDIR");
	char size[32], c_locale[] = "LC_ALL=C", path[4096], temporary[4096];
	char *arguments[] = { "sort", "-S", size, "--", (char *)input, NULL };
	char *environment[] = { c_locale, path, temporary, NULL };
	posix_spawn_file_actions_t actions;
	int pipes[2], error;

	snprintf(size, sizeof size, "%zuK", memory / 1024);
	snprintf(path, sizeof path, "PATH=%s", search ? search : "/usr/bin:/bin");
	snprintf(temporary, sizeof temporary, "TMPDIR=%s", directory ? directory : "/tmp");
	if (pipe(pipes))
		die("cannot make a pipe: %s", strerror(errno));
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pipes[1], STDOUT_FILENO);
	posix_spawn_file_actions_addclose(&actions, pipes[0]);
	posix_spawn_file_actions_addclose(&actions, pipes[1]);
	error = posix_spawnp(child, "sort", &actions, NULL, arguments, environment);
	if (error)
		die("cannot run sort(1): %s", strerror(error));
	posix_spawn_file_actions_destroy(&actions);
	close(pipes[1]);
	return pipes[0];
}

/* As many bytes as there are, up to want: 0 at the end only. */
static size_t read_full(int fd, char *to, size_t want, const char *name)
{
	size_t done = 0;

	while (done < want) {
		ssize_t got = read(fd, to + done, want - done);

		if (got < 0 && errno != EINTR)
			die("%s: %s", name, strerror(errno));
		if (got == 0)
			break;
		done += got > 0 ? (size_t)got : 0;
	}
	return done;
}

bool sort_agrees(const char *input, const char *output, size_t memory, double *time)
{
	static char ours[1 << 16], theirs[1 << 16];
	int fd = open(output, O_RDONLY | O_CLOEXEC), from, status = -1;
	double start = seconds();
	bool same = true;
	uint64_t offset = 0;
	size_t a, b;
	pid_t child;

	if (fd < 0)
		die("%s: %s", output, strerror(errno));
	from = start_sort(input, memory, &child);
	do {
		a = read_full(fd, ours, sizeof ours, output);
		b = read_full(from, theirs, sizeof theirs, "the output of sort(1)");
		if (same && (a != b || memcmp(ours, theirs, a))) {
			size_t i = 0;

			while (i < a && i < b && ours[i] == theirs[i])
				i++;
			same = false;
			fprintf(stderr,
			        "%s: not what sort(1) makes of it: they differ "
			        "at byte %" PRIu64 "\n",
			        output, offset + i);
		}
		offset += a;
	} while (b);
	close(from);
	close(fd);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (status)
		die("sort(1) failed");
	*time = seconds() - start;
	return same;
}
