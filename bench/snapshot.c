/* SPDX-License-Identifier: MIT */
/*
 * bench/snapshot.c - snapshots under writes, against fork and its copy-on-write.
 *
 * An image of the memory is taken: for Quire a snapshot, for the kernel a child
 * of fork, which waits and has the old contents as long as it lives. Measured is
 * how long that takes, for how long it stalls a thread that writes, and what the
 * first write to each page costs after it. Then every word of the image is
 * checked to be old (the child checks its own), every word of the memory new.
 *
 * The first word of a page holds mix(i), and mix(i) + 1 after its first write
 * (its version is 0 or 1). The second one is the stalled thread's, which adds
 * STEP to it, as in work.c; all others hold mix(i).
 *
 * Quire's copies come out of its budget and fork's out of the cgroup, so both
 * have the same limit. Neighbours: work.c lists the job, memory.c gives the memory.
 */
#include "bench.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define CREATIONS 3 /* without a writer, and as many with one */
#define TURNS 2

struct image {
	const struct memory *m;
	quire_snapshot_t *snapshot;
	pid_t child;
	int question, answer; /* our ends of the child's pipes */
};

/* What memory should hold, and what was found there. */
struct question {
	uint64_t version, most_updates; /* of a word */
};
struct answer {
	uint64_t wrong, got, want; /* wrong: index + 1 of the first wrong word, 0: none */
	uint64_t updates;
};

size_t snapshot_created(const struct settings *s)
{
	size_t most = s->memory / 8 * 7 / PAGE * PAGE; /* so nothing is evicted */

	return most < 256 * MIB ? most : 256 * MIB;
}

size_t snapshot_written(const struct settings *s)
{
	return s->memory / 4 / PAGE * PAGE; /* twice fits easily */
}

size_t snapshot_beyond(const struct settings *s)
{
	return s->memory / 8 * 5 / PAGE * PAGE; /* fits, and twice does not */
}

/* ----------------------------------------------------------------- checks */

/* Check count words, the first of which has index first. */
static void check(const uint64_t *words, size_t first, size_t count, const struct question *q,
                  struct answer *a)
{
	uint64_t inverse = step_inverse();

	for (size_t i = first; i < first + count && !a->wrong; i++) {
		uint64_t got = words[i - first], want = mix(i);

		if (i % PAGE_WORDS == 0)
			want += q->version;
		if (i % PAGE_WORDS == 1 && (got - want) * inverse <= q->most_updates)
			a->updates += (got - want) * inverse;
		else if (got != want)
			*a = (struct answer){ .wrong = i + 1, .got = got, .want = want };
	}
}

static bool transfer(int fd, void *buffer, size_t size, bool out)
{
	ssize_t n;

	do
		n = out ? write(fd, buffer, size) : read(fd, buffer, size);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)size; /* so little is never split */
}

/* The words of the image. => how many updates are in it */
static uint64_t image_check(const struct image *image, struct question q)
{
	static uint64_t buffer[16 * PAGE_WORDS];
	const struct memory *m = image->m;
	struct answer a = { 0 };

	if (!image->snapshot && (!transfer(image->question, &q, sizeof q, true) ||
	                         !transfer(image->answer, &a, sizeof a, false)))
		give_up(OUT_FAILED, "the child of fork has died");
	for (size_t at = 0; image->snapshot && at < m->length; at += sizeof buffer) {
		size_t size = m->length - at < sizeof buffer ? m->length - at : sizeof buffer;

		if (quire_snapshot_read(image->snapshot, at, buffer, size))
			give_up(OUT_FAILED, "quire_snapshot_read: %s", quire_error_message());
		check(buffer, at / sizeof *buffer, size / sizeof *buffer, &q, &a);
	}
	if (a.wrong)
		wrong_word("checking an image", a.wrong - 1, a.got, a.want);
	return a.updates;
}

static void memory_check(const struct memory *m, struct question q, uint64_t updates)
{
	struct answer a = { 0 };

	check(m->words, 0, m->count, &q, &a);
	if (a.wrong)
		wrong_word("checking writes after an image", a.wrong - 1, a.got, a.want);
	if (a.updates != updates)
		give_up(OUT_WRONG, "LOST UPDATES: %llu were made, %llu are in memory",
		        (unsigned long long)updates, (unsigned long long)a.updates);
}

/* ----------------------------------------------------------------- images */

/* The child of fork: it checks its copy when it is asked, and ends when nobody can ask. */
static _Noreturn void keep_copy(const struct memory *m, int question, int answer)
{
	struct question q;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (transfer(question, &q, sizeof q, false)) {
		struct answer a = { 0 };

		check(m->words, 0, m->count, &q, &a);
		if (!transfer(answer, &a, sizeof a, true))
			break;
	}
	_exit(0);
}

/* => how long it took, in seconds */
static double image_take(struct image *image, const struct memory *m)
{
	int ask[2], tell[2];
	double start, took;

	*image = (struct image){ .m = m };
	if (m->quire) {
		start = now();
		int err = quire_snapshot_create(m->region, &image->snapshot);
		took = now() - start;
		if (err)
			give_up(OUT_FAILED, "quire_snapshot_create: %s", quire_error_message());
		return took;
	}
	signal(SIGPIPE, SIG_IGN); /* a child that was killed is told of in words */
	if (pipe(ask) || pipe(tell))
		give_up(OUT_FAILED, "pipe: %s", strerror(errno));
	start = now();
	image->child = fork();
	took = now() - start;
	if (image->child < 0)
		give_up(OUT_FAILED, "fork: %s", strerror(errno));
	if (image->child == 0) {
		close(ask[1]); /* or it would never read an end */
		close(tell[0]);
		keep_copy(m, ask[0], tell[1]);
	}
	close(ask[0]);
	close(tell[1]);
	image->question = ask[1];
	image->answer = tell[0];
	return took;
}

static void image_drop(struct image *image)
{
	if (image->snapshot) {
		if (quire_snapshot_destroy(image->snapshot))
			give_up(OUT_FAILED, "quire_snapshot_destroy: %s", quire_error_message());
		return;
	}
	close(image->question);
	close(image->answer);
	while (waitpid(image->child, NULL, 0) < 0 && errno == EINTR)
		;
}

/* KiB that a file of the child's says behind name, in all lines of that name. */
static double kib_of(pid_t child, const char *file, const char *name)
{
	char path[64], line[256];
	unsigned long long kib;
	double sum = 0;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)child, file);
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, name, strlen(name)) &&
		    sscanf(strchr(line, ':') + 1, "%llu", &kib) == 1)
			sum += (double)kib;
	if (f)
		fclose(f);
	return sum;
}

/* Bytes in use: all of Quire's, or what is only the child's, which is what fork has cost. */
static double bytes_used(const struct memory *m, const struct image *image)
{
	struct quire_stats st;

	if (!m->quire)
		return !image ? 0 :
		                1024 * (kib_of(image->child, "smaps_rollup", "Private_") +
		                        kib_of(image->child, "status", "VmPTE:"));
	if (quire_stats_get(m->quire, &st))
		give_up(OUT_FAILED, "quire_stats_get: %s", quire_error_message());
	return (double)(st.resident + st.standby + st.buffers + st.metadata);
}

/* ------------------------------------------------- creation, and who waits */

/* One word of each page. => seconds */
static double write_pages(const struct memory *m, const uint32_t *order, uint64_t version)
{
	size_t pages = m->length / PAGE;
	double start = now();

	for (size_t k = 0; k < pages; k++) {
		size_t i = order[k] * PAGE_WORDS;

		m->words[i] = mix(i) + version;
	}
	return now() - start;
}

struct writer {
	pthread_t thread;
	const struct memory *m;
	uint64_t rng;
	double longest; /* of its writes that ended while it was watched, seconds */
	_Alignas(64) atomic_ulong ops;
	_Alignas(64) atomic_bool watched, stop;
};

static void *writer(void *arg)
{
	struct writer *w = arg;
	size_t pages = w->m->length / PAGE;
	unsigned long n = 0;
	bool watched = false;

	while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
		size_t i = below(&w->rng, pages) * PAGE_WORDS + 1;
		double start = now();

		w->m->words[i] += STEP;
		double took = now() - start;
		atomic_store_explicit(&w->ops, ++n, memory_order_release);
		watched |= atomic_load_explicit(&w->watched, memory_order_relaxed);
		if (watched && took > w->longest)
			w->longest = took;
	}
	return NULL;
}

/* Take an image while a thread writes; what that had written before the call is in it. */
static void take_under_writes(const struct memory *m, struct image *image, uint64_t seed)
{
	struct writer w = { .m = m, .rng = seed };

	if (pthread_create(&w.thread, NULL, writer, &w))
		give_up(OUT_FAILED, "pthread_create");
	while (atomic_load(&w.ops) < 1000)
		pause_for(0.001);
	atomic_store(&w.watched, true);
	uint64_t before = atomic_load_explicit(&w.ops, memory_order_acquire);
	image_take(image, m);
	/* The one that is under way may be in, too. */
	uint64_t after = atomic_load(&w.ops) + 1;
	atomic_store(&w.stop, true);
	pthread_join(w.thread, NULL);
	yield_figure(F_SNAP_STALL, w.longest * 1e3);
	yield_figure(F_SNAP_STALL_MAX, w.longest * 1e3);
	uint64_t updates = image_check(image, (struct question){ 0, after });
	if (updates < before || updates > after)
		give_up(OUT_WRONG, "NOT ONE INSTANT: %llu updates in the image, %llu to %llu made",
		        (unsigned long long)updates, (unsigned long long)before,
		        (unsigned long long)after);
	memory_check(m, (struct question){ 0, atomic_load(&w.ops) }, atomic_load(&w.ops));
}

/* A child that ends at once, as of a program that executes another. => seconds, in this process */
static double fork_takes(void)
{
	double start = now(), took;
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	took = now() - start;
	if (child < 0)
		give_up(OUT_FAILED, "fork: %s", strerror(errno));
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	return took;
}

/* Each time of new memory, all of it just written: that is sooner had than written once more. */
static void creations(const struct settings *s, enum contender who)
{
	struct memory m;
	struct image image;

	for (unsigned turn = 0; turn < 3 * CREATIONS; turn++) {
		memory_open(&m, who, s, snapshot_created(s));
		fill(&m);
		if (turn % 3 == 0)
			yield_figure(F_FORK, fork_takes() * 1e3);
		else if (turn % 3 == 1)
			take_under_writes(&m, &image, mix(turn));
		else
			yield_figure(F_SNAP_CREATE, image_take(&image, &m) * 1e3);
		if (turn % 3)
			image_drop(&image);
		memory_close(&m);
	}
}

/* ----------------------------------------------------------- first writes */

enum pattern {
	IN_ORDER,
	AT_RANDOM,
	ALONE, /* at random, and Quire is told: each page has a fault of its own */
};

static void first_writes(const struct settings *s, enum contender who, enum pattern pattern)
{
	static const enum figure ratio[] = { F_SNAP_ORDER_RATIO, F_SNAP_RANDOM_RATIO,
		                             F_SNAP_ALONE_RATIO };
	size_t length = snapshot_written(s), pages = length / PAGE;
	uint32_t *order = page_order(pages, pattern != IN_ORDER);
	struct memory m;
	struct image image;

	for (unsigned turn = 0; turn < TURNS; turn++) {
		memory_open(&m, who, s, length);
		if (pattern == ALONE && m.quire &&
		    quire_advise(m.region, 0, length, QUIRE_ADVISE_RANDOM))
			give_up(OUT_FAILED, "quire_advise: %s", quire_error_message());
		double touched = write_pages(&m, order, 0);
		fill(&m);
		double used = bytes_used(&m, NULL);
		image_take(&image, &m);
		double wrote = write_pages(&m, order, 1);
		yield_figure(ratio[pattern], wrote / touched);
		if (pattern != ALONE)
			yield_figure(pattern == AT_RANDOM ? F_SNAP_RANDOM : F_SNAP_ORDER,
			             (double)pages / wrote / 1e3);
		used = bytes_used(&m, &image) - used;
		if (pattern == AT_RANDOM && used > 0) /* 0: /proc does not tell of the child */
			yield_figure(F_SNAP_MEMORY, used / MIB);
		image_check(&image, (struct question){ 0, 0 });
		memory_check(&m, (struct question){ 1, 0 }, 0);
		image_drop(&image);
		memory_close(&m);
	}
	free(order);
}

static void writes_beyond(const struct settings *s, enum contender who)
{
	size_t length = snapshot_beyond(s), pages = length / PAGE;
	uint32_t *order = page_order(pages, true);
	struct memory m;
	struct image image;

	memory_open(&m, who, s, length);
	fill(&m);
	image_take(&image, &m);
	yield_figure(F_SNAP_BEYOND, (double)pages / write_pages(&m, order, 1) / 1e3);
	image_check(&image, (struct question){ 0, 0 });
	memory_check(&m, (struct question){ 1, 0 }, 0);
	image_drop(&image);
	memory_close(&m);
	free(order);
}

/* The budget is full in the last part alone: its metadata is what the peak is judged with. */
void snapshot(const struct settings *s, enum contender who)
{
	creations(s, who);
	first_writes(s, who, IN_ORDER);
	first_writes(s, who, AT_RANDOM);
	first_writes(s, who, ALONE);
	writes_beyond(s, who);
}
