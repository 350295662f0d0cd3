/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/image_load.c - snapshots from files: they come at once and their pages when
 * they are wanted, they go in any order, and what happens to the file, or what is wrong with it,
 * harms nothing else.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "images.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUDGET (128 * PAGE) /* an eighth of the model's pages */

static struct errors errors;
static quire_t *q;
static quire_region_t *r;
static struct model now;

static void open_pager(size_t memory)
{
	struct quire_options o = { .size = sizeof o,
		                   .memory = memory,
		                   .on_error = errors_count,
		                   .on_error_arg = &errors };

	memset(&errors, 0, sizeof errors);
	q = pager_open_options(&o);
}

static void begin(void)
{
	unit_seed();
	memset(&now, 0, sizeof now);
	open_pager(BUDGET);
	r = region_create(q, MODEL_PAGES * PAGE);
	model_put(&now, r, 0, MODEL_PAGES / 2, 1);
	model_put(&now, r, MODEL_PAGES / 2, 100, 2);
}

static void end(void)
{
	CHECK_EQ(quire_close(q), 0);
}

static void reopen(void)
{
	end();
	open_pager(BUDGET);
}

/* ---------------------------------------------------------------- lazily */

#define DENSE 4096u /* pages, 16 MiB */
#define DENSE_AT 100000u
#define EVERY 1024u /* of the other pages, one */

/* 4 GiB of memory: 16 MiB of it dense, of the rest a page every 4 MiB. */
static unsigned version_at(size_t page)
{
	return page - DENSE_AT < DENSE ? 2 : page % EVERY == 0 ? 1 : 0;
}

static uint64_t in_memory(void)
{
	struct quire_stats s = pager_stats(q);

	return s.resident + s.standby + s.buffers;
}

/* Bytes that this process has read from files. */
static uint64_t bytes_read(void)
{
	FILE *f = fopen("/proc/self/io", "re");
	unsigned long long n = 0;

	if (f) {
		MUST(fscanf(f, "rchar: %llu", &n) == 1);
		fclose(f);
	}
	return n;
}

static double load_time(const char *path, quire_snapshot_t **out)
{
	double best = 1e9;

	for (int i = 0; i < 5; i++) {
		double start = seconds_now(), took;

		*out = load_image(q, path);
		took = seconds_now() - start;
		best = took < best ? took : best;
		if (i < 4)
			MUST(quire_snapshot_destroy(*out) == 0);
	}
	return best;
}

static void lazily(void)
{
	size_t pages = 4 * GIB / PAGE, memory = 2 * MIB, bad = 0;
	uint64_t before;
	quire_snapshot_t *s;
	quire_region_t *c;
	double took;

	open_pager(16 * MIB);
	r = region_create(q, 4 * GIB);
	for (size_t page = 0; page < pages; page++)
		if (version_at(page))
			put_page(page_at(r, page), page, version_at(page));
	save(snapshot(r), img("large"), NULL);
	end();
	open_pager(memory);
	before = bytes_read();
	took = load_time(img("large"), &s);
	CHECK(bytes_read() - before < 5 * MIB / 10); /* of 20 MiB, five times */
	printf("an image of 4 GiB was loaded in %.2f ms\n", took * 1e3);
	CHECK(took < 0.05);
	CHECK(in_memory() < 64 * PAGE);
	c = clone_of(s);
	CHECK(in_memory() < 64 * PAGE);
	for (size_t page = 0; page < 100 * EVERY; page += EVERY)
		bad += !page_is(page_at(c, page), page, version_at(page));
	CHECK(in_memory() < 400 * PAGE);
	CHECK(region_stats(c).resident >= 50 * PAGE);
	/* The dense part read and half of it written, eight times the budget. */
	for (size_t page = DENSE_AT; page < DENSE_AT + DENSE; page++) {
		bad += !page_is(page_at(c, page), page, 2);
		if (page % 2)
			put_page(page_at(c, page), page, 4);
		if (page % 64 == 0)
			CHECK(in_memory() <= memory + 16 * PAGE);
	}
	for (size_t page = DENSE_AT; page < DENSE_AT + DENSE; page++)
		bad += !page_is(page_at(c, page), page, page % 2 ? 4 : 2);
	CHECK_EQ(bad, 0);
	CHECK(pager_stats(q).peak_resident <= memory);
	end();
}

/* ------------------------------------------------------------ any order */

enum { LEVELS = 3 };

static const char *level_name(unsigned i)
{
	char name[16];

	snprintf(name, sizeof name, "level%u", i);
	return img(name);
}

struct thing {
	quire_snapshot_t *s;
	quire_region_t *clone, *written;
};

static void check_things(struct thing *t, const struct model *is, const struct model *then)
{
	for (unsigned i = 0; i < LEVELS; i++) {
		CHECK(!t[i].s || model_wrong(&is[i], t[i].s) == 0);
		CHECK(!t[i].clone || model_wrong_in(&is[i], t[i].clone) == 0);
		CHECK(!t[i].written || model_wrong_in(&then[i], t[i].written) == 0);
	}
}

/* Of a random level a random thing. => false: that was gone already */
static bool destroy_one(struct thing *t)
{
	struct thing *at = &t[unit_below(LEVELS)];
	unsigned which = (unsigned)unit_below(3);
	quire_region_t **region = which == 1 ? &at->clone : &at->written;

	if (which == 0 && at->s) {
		MUST(quire_snapshot_destroy(at->s) == 0);
		at->s = NULL;
		return true;
	}
	if (which == 0 || !*region)
		return false;
	MUST(quire_region_destroy(*region) == 0);
	*region = NULL;
	return true;
}

/* Each that has lost its handle is all that keeps those before it. */
static void bases_first(const struct model *is)
{
	quire_snapshot_t *s[LEVELS];

	for (unsigned i = 0; i < LEVELS; i++)
		s[i] = load_image(q, level_name(i));
	for (unsigned i = 0; i < LEVELS - 1; i++) {
		MUST(quire_snapshot_destroy(s[i]) == 0);
		region_create(q, MODEL_PAGES * PAGE); /* in the place of what has gone */
	}
	CHECK_EQ(model_wrong(&is[LEVELS - 1], s[LEVELS - 1]), 0);
	MUST(quire_snapshot_destroy(s[LEVELS - 1]) == 0);
}

static void any_order(void)
{
	struct model is[LEVELS], then[LEVELS];
	quire_snapshot_t *s[LEVELS];
	unsigned fds;

	begin();
	for (unsigned i = 0; i < LEVELS; i++) {
		s[i] = snapshot(r);
		is[i] = now;
		save(s[i], level_name(i), i ? s[i - 1] : NULL);
		model_scribble(&now, r, 8, 10 + i);
	}
	reopen();
	bases_first(is);
	reopen();
	fds = descriptors();
	for (int round = 0; round < (int)quick_or_full(2, 200); round++) {
		struct thing t[LEVELS];
		unsigned left = 3 * LEVELS;

		for (unsigned i = 0; i < LEVELS; i++) {
			t[i].s = load_image(q, level_name(i));
			t[i].clone = clone_of(t[i].s);
			t[i].written = clone_of(t[i].s);
			then[i] = is[i];
			model_scribble(&then[i], t[i].written, 4, 50 + i);
		}
		while (left > 0) {
			if (!destroy_one(t))
				continue;
			if (--left == 6 || left == 2)
				check_things(t, is, then);
		}
		CHECK_EQ(descriptors(), fds);
		CHECK_EQ(pager_stats(q).reserved, 0);
	}
	end();
}

/* ------------------------------------------- the file, while it is loaded */

static void removed_and_replaced(void)
{
	quire_snapshot_t *s;
	quire_region_t *c;
	struct model other;

	begin();
	save(snapshot(r), img("file"), NULL);
	other = now;
	reopen();
	s = load_image(q, img("file"));
	MUST(unlink(img("file")) == 0);
	CHECK_EQ(model_wrong(&other, s), 0);
	save(s, img("file"), NULL);
	c = clone_of(s);
	MUST(quire_snapshot_destroy(s) == 0);
	s = load_image(q, img("file"));
	/* By another image, in one step, and then by what is none. */
	model_put(&now, c, 0, 300, 9);
	save(snapshot(c), img("file"), NULL);
	CHECK_EQ(model_wrong(&other, s), 0);
	write_file(img("none"), "text", 4);
	MUST(rename(img("none"), img("file")) == 0);
	CHECK_EQ(model_wrong(&other, s), 0);
	CHECK_EQ(model_wrong_in(&now, c), 0);
	CHECK_EQ(model_wrong_in(&other, clone_of(s)), 0);
	end();
}

/* Where the page's stored bytes are: found by what is in them. Of an odd version they are the page. */
static off_t place_of(const char *path, size_t page, unsigned version)
{
	uint64_t first = word(page, 0, version);
	size_t length;
	char *all = contents(path, &length), *at = memmem(all, length, &first, sizeof first);
	off_t found = at ? at - all : -1;

	free(all);
	MUST(found > 0);
	return found;
}

static void overwrite(const char *path, off_t at, const void *bytes, size_t n)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	MUST(fd >= 0 && pwrite(fd, bytes, n, at) == (ssize_t)n);
	close(fd);
}

static void is_lost(quire_region_t *c, size_t page)
{
	struct caught load = try_load(page_at(c, page)), stored = try_store(page_at(c, page), 1);

	CHECK_EQ(load.signal, SIGBUS);
	CHECK(load.address == page_at(c, page));
	CHECK_EQ(stored.signal, SIGBUS);
	CHECK(errors.kinds[QUIRE_ERROR_CHECKSUM] >= 1);
	CHECK_EQ(errors.kinds[QUIRE_ERROR_CHECKSUM], errors.count);
	CHECK(errors.last.region == c);
	CHECK_EQ(errors.last.offset, page * PAGE);
	CHECK_EQ(errors.last.error, EBADMSG);
}

#define VICTIM 333u

static void overwritten(void)
{
	char bytes[PAGE], old[8];
	quire_snapshot_t *s, *other;
	quire_region_t *c, *touched;
	struct model good;
	off_t at;

	begin();
	save(snapshot(r), img("file"), NULL);
	save(snapshot(r), img("other"), NULL);
	reopen();
	s = load_image(q, img("file"));
	other = load_image(q, img("other"));
	touched = clone_of(s);
	put_page(page_at(touched, VICTIM), VICTIM, 5); /* its own from now on */
	c = clone_of(s);
	at = place_of(img("file"), VICTIM, 1) + 64;
	overwrite(img("file"), at, "damage!!", 8);
	is_lost(c, VICTIM);
	CHECK_EQ(quire_snapshot_read(s, VICTIM * PAGE, bytes, PAGE), -EBADMSG);
	CHECK_EQ(quire_snapshot_read(s, (VICTIM - 3) * PAGE + 9, bytes, 4 * PAGE), -EBADMSG);
	CHECK_EQ(quire_snapshot_save(s, img("copy"), NULL), -EBADMSG);
	CHECK_EQ(quire_snapshot_save(other, img("copy"), s), -EBADMSG);
	CHECK(access(img("copy"), F_OK) != 0);
	CHECK_EQ(quire_pin(c, VICTIM * PAGE, PAGE), -EIO);
	/* Nothing else is harmed. */
	CHECK_EQ(model_wrong(&now, other), 0);
	CHECK_EQ(model_wrong_in(&now, clone_of(other)), 0);
	CHECK(page_is(page_at(c, VICTIM - 1), VICTIM - 1, 1));
	CHECK(page_is(page_at(c, VICTIM + 1), VICTIM + 1, 1));
	CHECK(page_is(page_at(touched, VICTIM), VICTIM, 5));
	good = now;
	model_put(&good, c, VICTIM - 20, 20, 3);
	/* Given up, it can be used again. */
	CHECK_EQ(quire_advise(c, VICTIM * PAGE, PAGE, QUIRE_ADVISE_DONTNEED), 0);
	good.version[VICTIM] = 0;
	CHECK_EQ(model_wrong_in(&good, c), 0);
	/* Put right, it is right: nothing wrong has been kept. */
	*(uint64_t *)(void *)old = word(VICTIM, 8, 1);
	overwrite(img("file"), at, old, 8);
	CHECK_EQ(model_wrong(&now, s), 0);
	CHECK_EQ(model_wrong_in(&now, clone_of(s)), 0);
	end();
}

static void cut_off(void)
{
	quire_snapshot_t *s;
	quire_region_t *c;
	char bytes[PAGE];
	off_t at;

	begin();
	save(snapshot(r), img("file"), NULL);
	reopen();
	s = load_image(q, img("file"));
	c = clone_of(s);
	at = place_of(img("file"), 256 + VICTIM, 2);
	MUST(truncate(img("file"), at) == 0);
	CHECK_EQ(quire_snapshot_read(s, (256 + VICTIM) * PAGE, bytes, PAGE), -EBADMSG);
	is_lost(c, 256 + VICTIM);
	/* Of the first leaf all is there. */
	for (size_t page = 0; page < 256; page++)
		CHECK(page_is(page_at(c, page), page, 1));
	end();
}

/* ------------------------------------------------------------- refusals */

/* Each with what it has to say. */
static void refuse_all(quire_snapshot_t *s, quire_snapshot_t *shorter)
{
	static const struct {
		const char *name;
		int error;
	} loads[] = {
		{ "missing", -ENOENT }, { "missing/image", -ENOENT }, { "text", -EBADF },
		{ "short", -EBADMSG },  { "header", -EBADMSG },       { "root", -EBADMSG },
		{ "newer", -EBADMSG },  { "fifo", -EBADF },           { "folder", -EBADF },
		{ "orphan", -ESTALE },  { "text/image", -ENOTDIR },
	};
	quire_snapshot_t *got = s;
	quire_save_t *begun = (quire_save_t *)s;

	for (unsigned i = 0; i < sizeof loads / sizeof *loads; i++)
		CHECK_EQ(quire_snapshot_load(q, img(loads[i].name), &got), loads[i].error);
	CHECK(got == s);
	CHECK_EQ(quire_snapshot_load(q, "", &got), -ENOENT);
	CHECK_EQ(quire_snapshot_load(q, NULL, &got), -EINVAL);
	CHECK_EQ(quire_snapshot_load(NULL, img("orphan"), &got), -EINVAL);
	CHECK_EQ(quire_snapshot_load(q, img("orphan"), NULL), -EINVAL);
	CHECK_EQ(quire_snapshot_save(s, img("missing/image"), NULL), -ENOENT);
	CHECK_EQ(quire_snapshot_save(s, img("folder"), NULL), -EISDIR);
	CHECK_EQ(quire_snapshot_save(s, img("fifo"), NULL), -EBADF);
	CHECK_EQ(quire_snapshot_save(s, img("no"), shorter), -EINVAL);
	CHECK_EQ(quire_save_begin(s, img("no"), shorter, NULL, &begun), -EINVAL);
	CHECK(begun == (quire_save_t *)s);
	CHECK_EQ(quire_save_begin(s, img("missing/image"), NULL, NULL, &begun), 0);
	CHECK_EQ(quire_save_end(begun), -ENOENT);
	CHECK(contains(quire_error_message(), "no such directory"));
}

static void damaged_copy(const char *name, size_t keep, size_t at)
{
	size_t length;
	char *all = contents(img("good"), &length);

	all[at == SIZE_MAX ? length - 5 : at] ^= 1;
	write_file(img(name), all, keep ? keep : length);
	free(all);
}

static void refusals(void)
{
	quire_snapshot_t *s, *shorter, *more;
	struct quire_stats before, after;
	unsigned fds, maps, tasks, files;

	begin();
	s = snapshot(r);
	save(s, img("good"), NULL);
	model_put(&now, r, 0, 1, 4);
	more = snapshot(r);
	save(more, img("orphan"), s);
	reopen();
	write_file(img("text"), "This is no image of anything.", 29);
	damaged_copy("short", 20000, 19000);
	damaged_copy("header", 0, 60);
	damaged_copy("root", 0, SIZE_MAX);
	damaged_copy("newer", 0, 8);
	MUST(mkfifo(img("fifo"), 0600) == 0 && mkdir(img("folder"), 0700) == 0);
	r = region_create(q, MODEL_PAGES * PAGE);
	memset(&now, 0, sizeof now);
	model_put(&now, r, 0, MODEL_PAGES, 1);
	s = snapshot(r);
	shorter = snapshot(region_create(q, PAGE));
	refuse_all(s, shorter);
	fds = descriptors(), maps = mappings(), tasks = threads();
	files = entries(temporary_directory());
	before = pager_stats(q);
	for (int i = 0; i < 200; i++)
		refuse_all(s, shorter);
	after = pager_stats(q);
	CHECK_EQ(descriptors(), fds);
	CHECK_EQ(mappings(), maps);
	CHECK_EQ(threads(), tasks);
	CHECK_EQ(entries(temporary_directory()), files);
	CHECK_EQ(after.reserved, before.reserved);
	CHECK_EQ(after.swapped, before.swapped);
	CHECK_EQ(after.metadata, before.metadata);
	CHECK_EQ(after.resident + after.standby, before.resident + before.standby);
	CHECK_EQ(after.read_errors, 0);
	CHECK_EQ(errors.count, 0);
	CHECK_EQ(model_wrong(&now, s), 0);
	CHECK_EQ(model_wrong_in(&now, r), 0);
	end();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(lazily),      UNIT(any_order), UNIT(removed_and_replaced),
		UNIT(overwritten), UNIT(cut_off),   UNIT(refusals),
		UNIT_END,
	};

	catch_install();
	return unit_main(argc, argv, "image_load", tests);
}
