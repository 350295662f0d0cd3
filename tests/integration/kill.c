/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/kill.c - SIGKILL at any moment of a pager's life leaves no
 * file behind, and a named swap file that can be used again.
 */
#define _GNU_SOURCE
#include "support.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Opens, pages and closes without end. */
static void live(const char *swap)
{
	struct quire_options o = { .size = sizeof o,
		                   .memory = QUIRE_MEMORY_MIN,
		                   .swap_path = swap };

	for (;;) {
		quire_t *q = pager_open_options(&o);
		quire_region_t *r = region_create(q, 2 * MIB);

		for (unsigned v = 0; v < 4; v++) {
			fill(r, 0, 512, v);
			MUST(wrong(r, 0, 512, v) == 0);
		}
		MUST(quire_close(q) == 0);
	}
}

static void kill_after(const char *swap, double seconds)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		live(swap);
		_exit(0);
	}
	sleep_seconds(seconds);
	MUST(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void leaves_nothing(void)
{
	const char *dir = path_in(temporary_directory(), "empty");
	int rounds = (int)quick_or_full(25, 500);

	unit_seed();
	MUST(mkdir(dir, 0700) == 0);
	for (int i = 0; i < rounds; i++) {
		kill_after(dir, 0.0001 * (double)unit_below(i < 10 ? 100 : 1000));
		CHECK_EQ(entries(dir), 0);
	}
	CHECK_EQ(rmdir(dir), 0);
}

static void named_file_lives_on(void)
{
	const char *path = path_in(temporary_directory(), "named");
	struct quire_options o = { .size = sizeof o,
		                   .memory = QUIRE_MEMORY_MIN,
		                   .swap_path = path };
	int rounds = (int)quick_or_full(15, 300);

	unit_seed();
	for (int i = 0; i < rounds; i++) {
		quire_t *q;
		quire_region_t *r;

		kill_after(path, 0.0001 * (double)unit_below(i < 10 ? 100 : 1000));
		q = pager_open_options(&o);
		r = region_create(q, 100 * PAGE);
		CHECK_EQ(nonzero(r, 0, 100), 0);
		fill(r, 0, 100, 9);
		CHECK_EQ(wrong(r, 0, 100, 9), 0);
		CHECK_EQ(quire_close(q), 0);
	}
	CHECK_EQ(entries(temporary_directory()), 1);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(leaves_nothing), UNIT(named_file_lives_on),
		                                  UNIT_END };

	quire_close(pager_open(MIB)); /* no engine is found out here */
	return unit_main(argc, argv, "kill", tests);
}
