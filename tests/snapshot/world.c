/* SPDX-License-Identifier: MIT */
/* tests/snapshot/world.c - see world.h. */
#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE QUIRE_PAGE_SIZE
#define WORDS (PAGE / 8)
#define WRITERS 3u
#define ROUNDS 6u /* of writing to each page in a storm */
#define CROWD 256u

/* What each page holds: a version, 0 for zeros. */
struct contents {
	uint32_t page[PAGES];
};

struct region {
	quire_region_t *r;
	struct contents now;
	uint32_t family; /* of which snapshots can be compared */
};

struct snapshot {
	quire_snapshot_t *s;
	struct contents then;
	uint32_t family, number;
	struct region *of; /* or NULL: destroyed */
};

struct file {
	bool there;
	struct contents then;
	char path[64];
};

static struct {
	quire_t *q;
	struct file file[FILES];
	pid_t child;
	unsigned depth;        /* of forks */
	quire_region_t *crowd; /* touched to have others evicted */
	struct region region[REGIONS];
	struct snapshot snapshot[SNAPSHOTS];
	uint32_t version, families, numbers, touched;
	struct region *pinned;
	uint32_t pinned_page;
} w;

/* ------------------------------------------------------------- contents */

static const char *doing = "nothing";
static unsigned step;

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
	va_list args;

	printf("step %u, %s: ", step, doing);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

static void must(int result, const char *call)
{
	if (result < 0)
		fail("%s: %d, %s", call, result, quire_error_message());
}

static uint64_t word_of(uint32_t version, uint32_t page, unsigned i)
{
	return version ? ((uint64_t)version << 32 | page << 16 | i) + 1 : 0;
}

/* Words all over the page: at its ends, and some between. */
static const unsigned places[] = { 0, 1, 63, 64, 255, 300, 510, 511 };
#define PLACES (sizeof places / sizeof places[0])

static void put_page(quire_region_t *r, uint32_t page, uint32_t version)
{
	volatile uint64_t *words = (volatile uint64_t *)quire_region_base(r) + page * WORDS;

	for (unsigned i = 0; i < PLACES; i++)
		words[places[i]] = word_of(version, page, i);
}

/* => the version, or UINT32_MAX: none */
static uint32_t version_of(const volatile uint64_t *words, uint32_t page)
{
	uint32_t version = words[0] ? (uint32_t)((words[0] - 1) >> 32) : 0;

	for (unsigned i = 0; i < PLACES; i++)
		if (words[places[i]] != word_of(version, page, i))
			return UINT32_MAX;
	return version;
}

static uint32_t region_version(quire_region_t *r, uint32_t page)
{
	return version_of((volatile uint64_t *)quire_region_base(r) + page * WORDS, page);
}

static uint32_t snapshot_version(quire_snapshot_t *s, uint32_t page)
{
	uint64_t words[WORDS];

	must(quire_snapshot_read(s, page * PAGE, words, PAGE), "quire_snapshot_read");
	return version_of(words, page);
}

static void check_region(const struct region *r)
{
	for (uint32_t page = 0; page < PAGES; page++)
		if (region_version(r->r, page) != r->now.page[page])
			fail("region %ld, page %u: version %u, not %u", (long)(r - w.region), page,
			     region_version(r->r, page), r->now.page[page]);
}

static void check_snapshot(const struct snapshot *s)
{
	for (uint32_t page = 0; page < PAGES; page++)
		if (snapshot_version(s->s, page) != s->then.page[page])
			fail("snapshot %ld, page %u: version %u, not %u", (long)(s - w.snapshot),
			     page, snapshot_version(s->s, page), s->then.page[page]);
}

static void check_all(void)
{
	for (unsigned i = 0; i < REGIONS; i++)
		if (w.region[i].r)
			check_region(&w.region[i]);
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		if (w.snapshot[i].s)
			check_snapshot(&w.snapshot[i]);
}

/* ------------------------------------------------------------ operations */

static struct region *free_region(void)
{
	for (unsigned i = 0; i < REGIONS; i++)
		if (!w.region[i].r)
			return &w.region[i];
	return NULL;
}

static struct snapshot *free_snapshot(void)
{
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		if (!w.snapshot[i].s)
			return &w.snapshot[i];
	return NULL;
}

static void create_region(void)
{
	struct region *r = free_region();

	if (!r)
		return;
	memset(r, 0, sizeof *r);
	must(quire_region_create(w.q, PAGES * PAGE, NULL, &r->r), "quire_region_create");
	r->family = w.families++;
}

static void crowd(void)
{
	volatile char *base = quire_region_base(w.crowd);

	for (unsigned i = 0; i < 80; i++)
		base[(w.touched + i) % CROWD * PAGE] = (char)i;
	w.touched += 80;
}

static void on_pages(struct region *r, const struct op *op)
{
	uint32_t first = op->b % PAGES, n = op->c % (PAGES - first) + 1;

	switch (op->kind) {
	case OP_WRITE:
		w.version++;
		for (uint32_t page = first; page < first + n; page++) {
			put_page(r->r, page, w.version);
			r->now.page[page] = w.version;
		}
		return;
	case OP_READ:
		for (uint32_t page = first; page < first + n; page++)
			if (region_version(r->r, page) != r->now.page[page])
				fail("page %u: version %u, not %u", page,
				     region_version(r->r, page), r->now.page[page]);
		return;
	case OP_DISCARD:
		if (w.pinned == r && w.pinned_page >= first && w.pinned_page < first + n)
			return;
		must(quire_advise(r->r, first * PAGE, n * PAGE, QUIRE_ADVISE_DONTNEED), "discard");
		memset(&r->now.page[first], 0, n * sizeof r->now.page[0]);
		return;
	default:
		must(quire_advise(r->r, first * PAGE, n * PAGE, QUIRE_ADVISE_COLD), "cold");
		crowd();
	}
}

static void unpin(void)
{
	if (w.pinned)
		must(quire_unpin(w.pinned->r, w.pinned_page * PAGE, PAGE), "quire_unpin");
	w.pinned = NULL;
}

static void pin(struct region *r, uint32_t page)
{
	unpin();
	must(quire_pin(r->r, page * PAGE, PAGE), "quire_pin");
	w.pinned = r;
	w.pinned_page = page;
}

static struct snapshot *take_snapshot(struct region *r)
{
	struct snapshot *s = free_snapshot();

	if (!s)
		return NULL;
	must(quire_snapshot_create(r->r, &s->s), "quire_snapshot_create");
	s->then = r->now;
	s->family = r->family;
	s->number = w.numbers++;
	s->of = r;
	return s;
}

static void make_clone(const struct snapshot *s)
{
	struct region *r = free_region();

	if (!r)
		return;
	must(quire_snapshot_clone(s->s, &r->r), "quire_snapshot_clone");
	r->now = s->then;
	r->family = w.families++;
}

static void roll_back(struct snapshot *s)
{
	if (!s->of) {
		if (quire_snapshot_rollback(s->s) != -EINVAL)
			fail("the region has been destroyed");
		return;
	}
	if (w.pinned == s->of)
		unpin();
	must(quire_snapshot_rollback(s->s), "quire_snapshot_rollback");
	s->of->now = s->then;
}

static int mark(void *arg, size_t offset, size_t length)
{
	for (size_t at = offset; at < offset + length; at += PAGE)
		((bool *)arg)[at / PAGE] = true;
	return 0;
}

static void compare(const struct snapshot *a, const struct snapshot *b)
{
	bool differs[PAGES] = { false };
	int result = quire_snapshot_diff(a->s, b->s, mark, differs);

	if (a->family != b->family) {
		if (result != -EINVAL)
			fail("they are not of the same region");
		return;
	}
	must(result, "quire_snapshot_diff");
	for (uint32_t page = 0; page < PAGES; page++)
		if (a->then.page[page] != b->then.page[page] && !differs[page])
			fail("page %u differs", page);
	if (a == b)
		for (uint32_t page = 0; page < PAGES; page++)
			if (differs[page])
				fail("page %u of one snapshot differs from itself", page);
}

static void free_one(struct snapshot *s)
{
	must(quire_snapshot_destroy(s->s), "quire_snapshot_destroy");
	memset(s, 0, sizeof *s);
}

static void destroy(struct region *r)
{
	if (w.pinned == r)
		w.pinned = NULL;
	must(quire_region_destroy(r->r), "quire_region_destroy");
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		if (w.snapshot[i].of == r)
			w.snapshot[i].of = NULL;
	memset(r, 0, sizeof *r);
}

/* ----------------------------------------------------------------- storm */

/*
 * A child of the middle of a storm: its writers are gone, and each page is of one round, of that before,
 * or, where its writer was, half of each.
 */
static void check_in_storm(const struct contents before[REGIONS], uint32_t first)
{
	alarm(50);
	for (unsigned i = 0; i < REGIONS; i++)
		for (uint32_t page = 0; w.region[i].r && page < PAGES; page++) {
			volatile uint64_t *words =
				(volatile uint64_t *)quire_region_base(w.region[i].r) +
				page * WORDS;

			for (unsigned k = 0; k < PLACES; k++) {
				uint64_t word = words[places[k]];
				uint32_t version = word ? (uint32_t)((word - 1) >> 32) : 0;

				if (word != word_of(version, page, k) ||
				    (version != before[i].page[page] &&
				     (version < first || version >= first + ROUNDS)))
					fail("a child, region %u, page %u: word %u is %llx", i,
					     page, k, (unsigned long long)word);
			}
			put_page(w.region[i].r, page, first + ROUNDS);
			w.region[i].now.page[page] = first + ROUNDS;
		}
	check_all();
	_exit(0);
}

/* taken: what it is cannot be known yet: the child does not look at it; or NULL */
static void fork_in_storm(const struct contents before[REGIONS], uint32_t first,
                          struct snapshot *taken)
{
	pid_t child;
	int status = 0;

	fflush(NULL);
	child = fork();
	if (child == 0 && taken)
		memset(taken, 0, sizeof *taken);
	if (child == 0)
		check_in_storm(before, first);
	if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
		fail("a child of fork: status %#x", (unsigned)status);
}

struct writer {
	pthread_t thread;
	unsigned number;
	uint32_t first; /* version of the first round */
};

/* Each writer has pages of its own, in every region. */
static void *writer_main(void *arg)
{
	struct writer *me = arg;

	for (unsigned round = 0; round < ROUNDS; round++)
		for (uint32_t page = me->number; page < PAGES; page += WRITERS)
			for (unsigned i = 0; i < REGIONS; i++)
				if (w.region[i].r)
					put_page(w.region[i].r, page, me->first + round);
	return NULL;
}

/*
 * What is in an image of the middle of a storm is the version of one round or of the
 * one before, and of each writer's pages a later one has none that is newer: he writes in order.
 * Half a page may be of the next round.
 */
static void learn(struct snapshot *s, const struct contents *before, uint32_t first)
{
	for (uint32_t page = 0; page < PAGES; page++) {
		uint64_t words[WORDS];
		uint32_t low = UINT32_MAX, high = 0;

		must(quire_snapshot_read(s->s, page * PAGE, words, PAGE), "quire_snapshot_read");
		for (unsigned i = 0; i < PLACES; i++) {
			uint64_t word = words[places[i]];
			uint32_t version = word ? (uint32_t)((word - 1) >> 32) : 0;

			if (word != word_of(version, page, i))
				fail("page %u: word %u is %llx", page, i, (unsigned long long)word);
			if (version != before->page[page] &&
			    (version < first || version >= first + ROUNDS))
				fail("page %u: version %u of the snapshot, not %u, nor %u and up",
				     page, version, before->page[page], first);
			low = version < low ? version : low;
			high = version > high ? version : high;
		}
		/* Torn between two versions: not to be told from the outside, so no later check of it. */
		s->then.page[page] = low == high ? low : UINT32_MAX - 1;
	}
}

static void storm(struct region *r, bool forks)
{
	struct writer writer[WRITERS];
	struct contents before = r->now, all_before[REGIONS];
	struct snapshot *taken[2] = { NULL, NULL };
	uint32_t first = w.version + 1;

	w.version += ROUNDS + 1;
	for (unsigned i = 0; i < REGIONS; i++)
		all_before[i] = w.region[i].now;
	for (unsigned i = 0; i < WRITERS; i++) {
		writer[i] = (struct writer){ .number = i, .first = first };
		if (pthread_create(&writer[i].thread, NULL, writer_main, &writer[i]) != 0)
			fail("no thread");
	}
	for (unsigned i = 0; i < 2; i++) {
		usleep(300);
		if (i == 1 && forks)
			fork_in_storm(all_before, first, taken[0]);
		taken[i] = take_snapshot(r);
	}
	if (taken[1]) {
		usleep(200);
		quire_snapshot_destroy(taken[1]->s);
		memset(taken[1], 0, sizeof *taken[1]);
	}
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(writer[i].thread, NULL);
	for (unsigned i = 0; i < REGIONS; i++)
		for (uint32_t page = 0; w.region[i].r && page < PAGES; page++)
			w.region[i].now.page[page] = first + ROUNDS - 1;
	if (!taken[0])
		return;
	learn(taken[0], &before, first);
	/* Where a page is torn the model cannot say: it goes, unless there is none. */
	for (uint32_t page = 0; page < PAGES; page++)
		if (taken[0]->then.page[page] == UINT32_MAX - 1) {
			free_one(taken[0]);
			return;
		}
}

/* ---------------------------------------------------------------- images */

static bool same_uuid(const struct snapshot *a, const struct snapshot *b)
{
	unsigned char of_a[16], of_b[16];

	must(quire_snapshot_uuid(a->s, of_a), "quire_snapshot_uuid");
	must(quire_snapshot_uuid(b->s, of_b), "quire_snapshot_uuid");
	return memcmp(of_a, of_b, sizeof of_a) == 0;
}

static void save(const struct snapshot *s, struct file *f, const struct snapshot *base)
{
	if (!f->path[0])
		snprintf(f->path, sizeof f->path, "%s/quire-model-%d-%ld",
		         getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)getpid(),
		         (long)(f - w.file));
	if (base && same_uuid(s, base)) {
		if (quire_snapshot_save(s->s, f->path, base->s) != -EINVAL)
			fail("saved as an increment to itself");
		return;
	}
	must(quire_snapshot_save(s->s, f->path, base ? base->s : NULL), "quire_snapshot_save");
	f->there = true;
	f->then = s->then;
}

static bool has_uuid(const unsigned char uuid[16])
{
	unsigned char one[16];

	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		if (!w.snapshot[i].s)
			continue;
		must(quire_snapshot_uuid(w.snapshot[i].s, one), "quire_snapshot_uuid");
		if (memcmp(one, uuid, sizeof one) == 0)
			return true;
	}
	return false;
}

static void load(const struct file *f)
{
	static const unsigned char none[16];
	struct snapshot *s = free_snapshot();
	struct quire_image info;
	bool loadable;
	int result;

	if (!s)
		return;
	must(quire_image_info(f->path, &info), "quire_image_info");
	loadable = memcmp(info.base, none, sizeof none) == 0 || has_uuid(info.base);
	result = quire_snapshot_load(w.q, f->path, &s->s);
	if (!loadable && result != -ESTALE)
		fail("%d from the load of an increment without its base", result);
	if (!loadable) {
		memset(s, 0, sizeof *s);
		return;
	}
	must(result, "quire_snapshot_load");
	s->then = f->then;
	s->family = w.families++;
	s->number = w.numbers++;
}

static void remove_files(void)
{
	for (unsigned i = 0; i < FILES; i++)
		if (w.file[i].path[0])
			unlink(w.file[i].path);
}

/* ------------------------------------------------------------------ fork */

static void await_child(void)
{
	int status = 0;

	if (!w.child)
		return;
	if (waitpid(w.child, &status, 0) != w.child || status != 0)
		fail("a child of fork: status %#x", (unsigned)status);
	w.child = 0;
}

/* In the child: of what is beside the memory. */
static void become_child(void)
{
	w.child = 0;
	w.depth++;
	memset(w.file, 0, sizeof w.file);
	/* Its parent's alarm is not its own. */
	alarm(50);
}

/* => in the child: true */
static bool go_on_in_child(const struct op *op)
{
	await_child();
	fflush(NULL);
	w.child = fork();
	if (w.child < 0)
		fail("fork: %s", strerror(errno));
	if (w.child == 0) {
		become_child();
		return true;
	}
	if (!(op->b & 1))
		await_child();
	return false;
}

/* ------------------------------------------------------------------ run */

static const char *const names[OP_KINDS] = {
	"write", "read",      "discard", "cold", "pin",     "snapshot",
	"clone", "rollback",  "diff",    "free", "destroy", "create",
	"check", "check all", "storm",   "save", "load",    "fork",
};

const char *op_name(enum op_kind kind)
{
	return names[kind];
}

static void on_region(struct region *r, const struct op *op)
{
	switch (op->kind) {
	case OP_PIN:
		pin(r, op->b % PAGES);
		break;
	case OP_SNAPSHOT:
		take_snapshot(r);
		break;
	case OP_DESTROY:
		destroy(r);
		break;
	case OP_STORM:
		storm(r, op->b & 1);
		break;
	default:
		on_pages(r, op);
	}
}

static void on_snapshot(struct snapshot *s, const struct op *op)
{
	struct snapshot *other = &w.snapshot[op->b % SNAPSHOTS];

	switch (op->kind) {
	case OP_CLONE:
		make_clone(s);
		break;
	case OP_ROLLBACK:
		roll_back(s);
		break;
	case OP_DIFF:
		if (other->s)
			compare(s, other);
		break;
	case OP_FREE:
		free_one(s);
		break;
	case OP_SAVE:
		other = &w.snapshot[op->c % SNAPSHOTS];
		save(s, &w.file[op->b % FILES], op->c && other->s ? other : NULL);
		break;
	default:
		check_snapshot(s);
	}
}

static void apply(const struct op *op)
{
	struct region *r = &w.region[op->a % REGIONS];
	struct snapshot *s = &w.snapshot[op->a % SNAPSHOTS];

	switch (op->kind) {
	case OP_CREATE:
		create_region();
		break;
	case OP_CHECK_ALL:
		check_all();
		break;
	case OP_LOAD:
		if (w.file[op->b % FILES].there)
			load(&w.file[op->b % FILES]);
		break;
	case OP_SAVE:
	case OP_CLONE:
	case OP_ROLLBACK:
	case OP_DIFF:
	case OP_FREE:
	case OP_CHECK:
		if (s->s)
			on_snapshot(s, op);
		break;
	default:
		if (r->r)
			on_region(r, op);
	}
}

void world_run(const struct op *ops, unsigned n, int verbose)
{
	struct quire_options o = { .size = sizeof o, .memory = QUIRE_MEMORY_MIN };

	must(quire_open(&w.q, &o), "quire_open");
	must(quire_region_create(w.q, CROWD * PAGE, NULL, &w.crowd), "quire_region_create");
	create_region();
	for (step = 0; step < n; step++) {
		doing = op_name(ops[step].kind);
		if (verbose) {
			printf("%4u %s %u %u %u\n", step, doing, ops[step].a, ops[step].b,
			       ops[step].c);
			fflush(stdout);
		}
		if (ops[step].kind != OP_FORK)
			apply(&ops[step]);
		else if (w.depth < 2 && go_on_in_child(&ops[step]))
			n = n - step > CHILD_OPS ? step + CHILD_OPS : n;
	}
	doing = "the end";
	await_child();
	check_all();
	unpin();
	for (unsigned i = 0; i < REGIONS; i++)
		if (w.region[i].r)
			destroy(&w.region[i]);
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		if (w.snapshot[i].s) {
			check_snapshot(&w.snapshot[i]);
			free_one(&w.snapshot[i]);
		}
	must(quire_region_destroy(w.crowd), "quire_region_destroy");
	struct quire_stats stats;

	must(quire_stats_get(w.q, &stats), "quire_stats_get");
	if (stats.resident || stats.standby || stats.swapped || stats.pinned)
		fail("%llu bytes resident, %llu standby, %llu swapped, %llu pinned of nothing",
		     (unsigned long long)stats.resident, (unsigned long long)stats.standby,
		     (unsigned long long)stats.swapped, (unsigned long long)stats.pinned);
	must(quire_close(w.q), "quire_close");
	remove_files();
	if (w.depth)
		_exit(0);
}
