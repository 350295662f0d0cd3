/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/image_save.c - saving beside a program that goes on: on a thread of its own,
 * stopped, slowed, several at once, closed and forked away under it.
 *
 * test: matrix alone
 */
#define _GNU_SOURCE
#include "images.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#define BUDGET (128 * PAGE) /* an eighth of the model's pages */

static quire_t *q;
static quire_region_t *r;
static struct model now;

static void begin_with(size_t memory)
{
	unit_seed();
	memset(&now, 0, sizeof now);
	q = pager_open(memory);
	r = region_create(q, MODEL_PAGES * PAGE);
	model_put(&now, r, 0, MODEL_PAGES, 1);
}

static void begin(void)
{
	begin_with(BUDGET);
}

static void end(void)
{
	CHECK_EQ(quire_close(q), 0);
}

static quire_save_t *begin_save(quire_snapshot_t *s, const char *path, quire_snapshot_t *base,
                                uint64_t bandwidth)
{
	struct quire_save_options o = { .size = sizeof o, .bandwidth = bandwidth };
	quire_save_t *v = NULL;

	MUST(quire_save_begin(s, path, base, &o, &v) == 0);
	return v;
}

/* -------------------------------------------------------------- progress */

struct seen {
	uint64_t calls, done, of;
	bool fell, wrong, stop;
	quire_t *use; /* a call to the library is made */
};

static bool on_progress(void *arg, uint64_t done, uint64_t of)
{
	struct seen *s = arg;
	struct quire_stats stats;

	s->fell |= done < s->done;
	s->wrong |= done > of || (s->calls && of != s->of);
	s->done = done;
	s->of = of;
	s->calls++;
	if (s->use)
		s->wrong |= quire_stats_get(s->use, &stats) != 0;
	return !s->stop;
}

static void progress(void)
{
	struct quire_save_options o = { .size = sizeof o, .progress = on_progress };
	struct seen seen = { .calls = 0 };
	uint64_t done = 0, last = 0, of = 0;
	quire_save_t *v = NULL;
	bool ended = false, fell = false;
	quire_snapshot_t *s;

	begin();
	s = snapshot(r);
	seen.use = q;
	o.arg = &seen;
	o.bandwidth = 64 * MIB;
	MUST(quire_save_begin(s, img("file"), NULL, &o, &v) == 0);
	while (!ended) {
		ended = quire_save_progress(v, &done, &of);
		fell |= done < last;
		last = done;
		sleep_seconds(0.001);
	}
	CHECK(!fell);
	CHECK_EQ(of, MODEL_PAGES * PAGE);
	CHECK_EQ(done, of);
	CHECK(quire_save_progress(v, NULL, NULL));
	CHECK_EQ(quire_save_end(v), 0);
	CHECK(seen.calls >= 2);
	CHECK(!seen.fell && !seen.wrong);
	CHECK_EQ(seen.done, MODEL_PAGES * PAGE);
	CHECK(file_is(img("file"), &now));
	/* A function that says no. The old file stays. */
	model_put(&now, r, 0, 1, 2);
	seen = (struct seen){ .stop = true };
	MUST(quire_save_begin(snapshot(r), img("file"), s, &o, &v) == 0);
	CHECK_EQ(quire_save_end(v), -ECANCELED);
	CHECK_EQ(seen.calls, 1);
	now.version[0] = 1;
	CHECK(file_is(img("file"), &now));
	o.size = 3;
	CHECK_EQ(quire_save_begin(s, img("file"), NULL, &o, &v), -EINVAL);
	CHECK_EQ(quire_save_end(NULL), -EINVAL);
	end();
}

/* ---------------------------------------------------------------- stopped */

/* At random moments: what is there is the old file, or the new one if it says so. */
static void canceled(void)
{
	const char *path = img("file");
	quire_snapshot_t *old, *new;
	unsigned stopped = 0, files;
	double whole;
	size_t length;
	char *before;

	begin();
	old = snapshot(r);
	save(old, path, NULL);
	before = contents(path, &length);
	files = entries(temporary_directory());
	model_put(&now, r, 0, MODEL_PAGES, 3);
	new = snapshot(r);
	whole = seconds_now();
	save(new, img("whole"), NULL);
	whole = seconds_now() - whole;
	unlink(img("whole"));
	for (int i = 0; i < (int)quick_or_full(20, 500); i++) {
		quire_save_t *v = begin_save(new, path, i % 2 ? old : NULL, 0);
		int result;

		sleep_seconds(whole * (double)unit_below(1000) / 1000);
		quire_save_cancel(v);
		result = quire_save_end(v);
		stopped += result == -ECANCELED;
		CHECK(result == 0 || result == -ECANCELED);
		if (result == 0) {
			CHECK_EQ(quire_image_verify(path, NULL, NULL), 0);
			CHECK_EQ(info_of(path).stored, MODEL_PAGES);
			save(old, path, NULL);
			free(before);
			before = contents(path, &length);
		} else {
			CHECK(same_contents(path, before, length));
		}
		CHECK_EQ(entries(temporary_directory()), files);
	}
	CHECK(stopped > 0);
	free(before);
	end();
}

static void destroyed_meanwhile(void)
{
	quire_snapshot_t *base, *s;
	quire_save_t *v, *full;
	struct model then;

	begin();
	base = snapshot(r);
	save(base, img("base"), NULL);
	model_scribble(&now, r, 40, 4);
	s = snapshot(r);
	then = now;
	v = begin_save(s, img("file"), base, 16 * MIB);
	full = begin_save(s, img("full"), NULL, 16 * MIB);
	CHECK_EQ(quire_snapshot_destroy(s), 0);
	CHECK_EQ(quire_snapshot_destroy(base), 0);
	model_scribble(&now, r, 40, 5);
	CHECK_EQ(quire_region_destroy(r), 0);
	CHECK_EQ(quire_save_end(v), 0);
	CHECK_EQ(quire_save_end(full), 0);
	CHECK_EQ(pager_stats(q).reserved, 0);
	CHECK(file_is(img("full"), &then));
	load_image(q, img("base"));
	CHECK_EQ(model_wrong(&then, load_image(q, img("file"))), 0);
	end();
}

static void closed_meanwhile(void)
{
	unsigned fds = descriptors(), files, tasks = threads();
	quire_snapshot_t *s;
	quire_save_t *v[3];
	struct model then;
	double start;

	begin();
	s = snapshot(r);
	then = now;
	save(s, img("file"), NULL);
	files = entries(temporary_directory());
	model_put(&now, r, 0, 100, 5);
	for (unsigned i = 0; i < 3; i++)
		v[i] = begin_save(snapshot(r), img("file"), i ? NULL : s, MIB);
	sleep_seconds(0.02);
	start = seconds_now();
	end();
	CHECK(seconds_now() - start < 2);
	for (unsigned i = 0; i < 3; i++) {
		CHECK(quire_save_progress(v[i], NULL, NULL));
		CHECK_EQ(quire_save_end(v[i]), -ECANCELED);
	}
	CHECK(file_is(img("file"), &then));
	CHECK_EQ(entries(temporary_directory()), files);
	CHECK_EQ(descriptors(), fds);
	CHECK_EQ(threads(), tasks);
}

/* ----------------------------------------------------------- several, slow */

enum { SAVES = 6 };

static void several(void)
{
	static struct model then[SAVES];
	quire_snapshot_t *s[SAVES];
	quire_save_t *v[2 * SAVES];
	char name[16];

	begin();
	for (unsigned i = 0; i < SAVES; i++) {
		s[i] = snapshot(r);
		then[i] = now;
		model_scribble(&now, r, 6, 6 + i);
	}
	for (unsigned i = 0; i < SAVES; i++) {
		snprintf(name, sizeof name, "full%u", i);
		v[2 * i] = begin_save(s[i], img(name), NULL, 0);
		snprintf(name, sizeof name, "more%u", i);
		v[2 * i + 1] = begin_save(s[i], img(name), i ? s[i - 1] : NULL, 0);
	}
	model_scribble(&now, r, 10, 20);
	for (unsigned i = 0; i < 2 * SAVES; i++)
		CHECK_EQ(quire_save_end(v[i]), 0);
	CHECK_EQ(model_wrong_in(&now, r), 0);
	end();
	q = pager_open(BUDGET);
	for (unsigned i = 0; i < SAVES; i++) {
		snprintf(name, sizeof name, "full%u", i);
		CHECK_EQ(model_wrong(&then[i], load_image(q, img(name))), 0);
		snprintf(name, sizeof name, "more%u", i);
		CHECK_EQ(model_wrong(&then[i], load_image(q, img(name))), 0);
	}
	/* All to one place: one of them is there. */
	for (unsigned i = 0; i < SAVES; i++)
		v[i] = begin_save(load_image(q, img("full0")), img("one"), NULL, 0);
	for (unsigned i = 0; i < SAVES; i++)
		CHECK_EQ(quire_save_end(v[i]), 0);
	CHECK(file_is(img("one"), &then[0]));
	end();
}

static double save_seconds(quire_snapshot_t *s, quire_snapshot_t *base, uint64_t bandwidth)
{
	double start = seconds_now();

	MUST(quire_save_end(begin_save(s, img("file"), base, bandwidth)) == 0);
	return seconds_now() - start;
}

static void bandwidth(void)
{
	quire_region_t *sparse;
	quire_snapshot_t *s;
	double took = 0, should, unlimited;

	begin();
	sparse = region_create(q, 64 * GIB);
	put_page(page_at(sparse, 5000000), 5000000, 1);
	s = snapshot(r);
	unlimited = save_seconds(s, NULL, 0);
	should = 1;
	took = save_seconds(s, NULL, MODEL_PAGES * PAGE);
	printf("4 MiB at 4 MiB/s: %.2f s, at any speed %.2f\n", took, unlimited);
	CHECK(took > 0.7 * should);
	CHECK(took < 1.3 * should + unlimited);
	/* What costs nothing takes no time. */
	CHECK(save_seconds(snapshot(sparse), NULL, 4 * MIB) < 0.5 + unlimited);
	end();
}

/* ---------------------------------------------------------------- forked */

static quire_save_t *running;
static struct model at_fork;

static void child_goes_on(bool closes)
{
	MUST(quire_save_progress(running, NULL, NULL));
	if (!closes)
		MUST(quire_save_end(running) == -ECHILD);
	MUST(model_wrong_in(&at_fork, r) == 0);
	model_put(&at_fork, r, 0, 50, 9);
	save(snapshot(r), img("child"), NULL);
	MUST(model_wrong_in(&at_fork, r) == 0);
	MUST(quire_close(q) == 0);
	if (closes)
		MUST(quire_save_end(running) == -ECHILD);
	MUST(file_is(img("child"), &at_fork));
}

static void forked(void)
{
	quire_snapshot_t *s, *base;
	struct model then;
	int status;

	begin();
	base = snapshot(r);
	for (int i = 0; i < 4; i++) {
		model_scribble(&now, r, 10, 10 + (unsigned)i);
		s = snapshot(r);
		then = now;
		running = begin_save(s, img("file"), i % 2 ? base : NULL, 8 * MIB);
		/* One that is there for its save only. */
		if (i >= 2)
			MUST(quire_snapshot_destroy(s) == 0);
		model_scribble(&now, r, 10, 20 + (unsigned)i);
		at_fork = now;
		sleep_seconds(0.001 * (double)unit_below(30));
		fflush(NULL);
		if (fork() == 0) {
			alarm(30);
			child_goes_on(i % 2);
			_exit(0);
		}
		model_scribble(&now, r, 10, 30 + (unsigned)i);
		CHECK_EQ(quire_save_end(running), 0);
		MUST(wait(&status) > 0);
		CHECK_EQ(status, 0);
		CHECK_EQ(quire_image_verify(img("file"), NULL, NULL), 0);
		if (i % 2 == 0)
			CHECK(file_is(img("file"), &then));
		else
			CHECK_EQ(model_wrong(&then, load_image(q, img("file"))), 0);
		CHECK_EQ(model_wrong_in(&now, r), 0);
		/* load_image's needs base, and so stays. */
	}
	end();
}

static bool standard_streams(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			return false;
	return true;
}

/* This thread and those that it starts have turns, on one CPU: a fork may come before their first. */
static void take_turns(bool on, cpu_set_t *all)
{
	cpu_set_t one;

	if (on) {
		MUST(sched_getaffinity(0, sizeof *all, all) == 0);
		CPU_ZERO(&one);
		CPU_SET(sched_getcpu(), &one);
	}
	MUST(sched_setaffinity(0, sizeof one, on ? &one : all) == 0);
}

/* Before the save has a file: the child has none of it, and all that is none of its. */
static void forked_at_once(void)
{
	cpu_set_t all;
	quire_snapshot_t *s;
	int status = -1;

	MUST(standard_streams());
	begin();
	s = snapshot(r);
	fflush(NULL);
	take_turns(true, &all);
	for (int i = 0; i < 10; i++) {
		pid_t pid;

		running = begin_save(s, img("file"), NULL, 0);
		pid = fork();
		if (pid == 0) {
			alarm(30);
			MUST(standard_streams());
			MUST(quire_save_end(running) == -ECHILD);
			_exit(0);
		}
		MUST(pid > 0 && waitpid(pid, &status, 0) == pid);
		CHECK_EQ(status, 0);
		CHECK_EQ(quire_save_end(running), 0);
	}
	take_turns(false, &all);
	CHECK(file_is(img("file"), &now));
	end();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(progress),         UNIT(canceled),       UNIT(destroyed_meanwhile),
		UNIT(closed_meanwhile), UNIT(several),        UNIT(bandwidth),
		UNIT(forked),           UNIT(forked_at_once), UNIT_END,
	};

	return unit_main(argc, argv, "image_save", tests);
}
