/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/image_crash.c - SIGKILL at random moments while images are saved over good
 * ones: what is at the path is the old one or the new one, whole, and hardly anything else is left.
 *
 * The seed is printed, with the command that repeats the moments.
 *
 * test: timeout=120
 */
#define _GNU_SOURCE
#include "images.h"

#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES ((size_t)256)
#define FIRST 7u /* generation, from which on no page is zeros */

/* The generation that a process began to save, and the last one of which it knows it is there. */
struct said {
	_Atomic unsigned begun, saved;
};

enum { FULL, INCREMENT, ASYNC, ASYNC_INCREMENT, KINDS };

static const char *const names[KINDS] = { "full", "increment", "async", "async-increment" };

/* Shared with the process that is killed. */
static struct said *said;
static _Atomic bool *saving;

static bool is_increment(int kind)
{
	return kind == INCREMENT || kind == ASYNC_INCREMENT;
}

/* Page 0 is of the generation itself; of the others each seventh is new. */
static unsigned version_at(size_t page, unsigned generation)
{
	if (page == 0)
		return generation;
	while (generation > 0 && page % 7 != generation % 7)
		generation--;
	return generation;
}

static void write_generation(quire_region_t *r, unsigned g)
{
	for (size_t page = 0; page < PAGES; page++)
		if (version_at(page, g) == g)
			put_page(page_at(r, page), page, g);
}

/* ------------------------------------------------------ who is killed */

static void save_one(int kind, quire_snapshot_t *s, quire_snapshot_t *base, unsigned g,
                     quire_save_t **v)
{
	atomic_store(&said[kind].begun, g);
	base = is_increment(kind) ? base : NULL;
	if (kind >= ASYNC) {
		MUST(quire_save_begin(s, img(names[kind]), base, NULL, v) == 0);
		return;
	}
	save(s, img(names[kind]), base);
	atomic_store(&said[kind].saved, g);
}

/* Saves without end: each generation to all files, two of them at once with another. */
static void live(void)
{
	quire_t *q = pager_open(128 * PAGE);
	quire_snapshot_t *base = load_image(q, img("base"));
	quire_region_t *r = clone_of(load_image(q, img(names[FULL])));
	unsigned g = atomic_load(&said[FULL].saved);

	for (;;) {
		quire_save_t *v[KINDS] = { NULL };
		quire_snapshot_t *s;

		write_generation(r, ++g);
		s = snapshot(r);
		atomic_store(saving, true);
		for (int kind = KINDS; kind-- > 0;)
			save_one(kind, s, base, g, &v[kind]);
		for (int kind = ASYNC; kind < KINDS; kind++) {
			MUST(quire_save_end(v[kind]) == 0);
			atomic_store(&said[kind].saved, g);
		}
		MUST(quire_snapshot_destroy(s) == 0);
	}
}

/* So long after it began to save. */
static void kill_after(double seconds)
{
	double limit = seconds_now() + 20;
	int status;
	pid_t pid;

	atomic_store(saving, false);

	fflush(NULL);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0)
		live();
	while (!atomic_load(saving) && seconds_now() < limit) {
		MUST(waitpid(pid, &status, WNOHANG) == 0);
		sleep_seconds(0.0005);
	}
	sleep_seconds(seconds);
	MUST(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* ------------------------------------------------------- what is left */

/* => the generation that the file is of, of these; ~0: of none, or of several */
static unsigned generation_of(quire_snapshot_t *s, unsigned from, unsigned to)
{
	static _Alignas(8) char bytes[PAGES * PAGE];
	unsigned g = from;

	MUST(quire_snapshot_read(s, 0, bytes, sizeof bytes) == 0);
	while (g <= to && !page_is(bytes, 0, g))
		g++;
	if (g > to)
		return ~0u;
	for (size_t page = 0; page < PAGES; page++)
		if (!page_is(bytes + page * PAGE, page, version_at(page, g)))
			return ~0u;
	return g;
}

static bool survived(quire_t *q, int kind)
{
	unsigned from = atomic_load(&said[kind].saved), to = atomic_load(&said[kind].begun), g;
	const char *path = img(names[kind]);
	quire_snapshot_t *s;

	if (quire_image_verify(path, NULL, NULL) != 0 || quire_snapshot_load(q, path, &s) != 0) {
		printf("%s\n", quire_error_message());
		return false;
	}
	g = generation_of(s, from, to);
	MUST(quire_snapshot_destroy(s) == 0);
	if (g > to) {
		printf("%s: neither generation %u nor one up to %u\n", path, from, to);
		return false;
	}
	atomic_store(&said[kind].saved, g);
	atomic_store(&said[kind].begun, g);
	return true;
}

/* What IMAGE-FORMAT.md says may be left; complete, where files have no name before. => how many */
static unsigned remove_left(void)
{
	DIR *d = opendir(temporary_directory());
	struct dirent *e;
	unsigned n = 0;

	MUST(d != NULL);
	while ((e = readdir(d))) {
		const char *path;

		if (strncmp(e->d_name, ".quire-", 7) != 0)
			continue;
		path = img(e->d_name);
		CHECK(strlen(e->d_name) == 7 + 36 + 4);
		CHECK(strcmp(e->d_name + 7 + 36, ".tmp") == 0);
		CHECK_EQ(quire_image_verify(path, NULL, NULL), 0);
		MUST(unlink(path) == 0);
		n++;
	}
	closedir(d);
	return n;
}

/* => seconds that the saves took */
static double first_images(void)
{
	double start;
	quire_t *q = pager_open(MIB);
	quire_region_t *r = region_create(q, PAGES * PAGE);
	quire_snapshot_t *base, *s;

	base = snapshot(r);
	save(base, img("base"), NULL);
	for (unsigned g = 1; g <= FIRST; g++)
		write_generation(r, g);
	s = snapshot(r);
	start = seconds_now();
	for (int kind = 0; kind < KINDS; kind++) {
		said[kind].begun = said[kind].saved = FIRST;
		save(s, img(names[kind]), is_increment(kind) ? base : NULL);
	}
	start = seconds_now() - start;
	MUST(quire_close(q) == 0);
	return start;
}

static void over_a_good_one(void)
{
	int rounds = (int)quick_or_full(50, 1000);
	unsigned left = 0, newer = 0;
	double cycle;

	said = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(said != MAP_FAILED);
	saving = (_Atomic bool *)(said + KINDS);
	unit_seed();
	cycle = first_images();
	for (int i = 0; i < rounds; i++) {
		unsigned before = atomic_load(&said[ASYNC].saved);
		quire_t *q;

		kill_after(cycle * (double)unit_below(i % 2 ? 2000 : 10000) / 4000);
		q = pager_open(MIB);
		load_image(q, img("base"));
		for (int kind = 0; kind < KINDS; kind++)
			CHECK(survived(q, kind));
		CHECK_EQ(quire_close(q), 0);
		newer += atomic_load(&said[ASYNC].saved) != before;
		left += remove_left();
		CHECK_EQ(entries(temporary_directory()), KINDS + 1);
	}
	printf("%d processes killed, %u of them after a save; %u files were left\n", rounds, newer,
	       left);
	CHECK(newer > 0);
	/* Three saves go on at once, of which each has such a name for a moment only. */
	CHECK(left <= (unsigned)rounds / 5 + 1);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(over_a_good_one), UNIT_END };

	quire_close(pager_open(MIB)); /* no engine is found out here */
	return unit_main(argc, argv, "image_crash", tests);
}
