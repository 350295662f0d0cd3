/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/image.c - what is saved is what is loaded: full images, increments of all
 * kinds of bases, chains; and no more is saved than has to be.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "images.h"

#include <errno.h>
#include <unistd.h>

#define BUDGET (128 * PAGE) /* an eighth of the model's pages */
#define TIB ((size_t)1 << 40)

static quire_t *q;
static quire_region_t *r;
static struct model now;

/* Every state that a page can be in: mapped dirty and clean, standby, slot, zeros, never touched. */
static void begin(void)
{
	struct quire_region_options o = { .size = sizeof o, .name = "heap" };

	unit_seed();
	memset(&now, 0, sizeof now);
	q = pager_open(BUDGET);
	MUST(quire_region_create(q, MODEL_PAGES * PAGE, &o, &r) == 0);
	for (size_t page = 0; page < MODEL_PAGES / 2; page++)
		model_put(&now, r, page, 1, 1 + (unsigned)(page / 3 % 2));
	model_put(&now, r, MODEL_PAGES / 2, MODEL_PAGES / 4, 0);
	MUST(page_is(page_at(r, 5), 5, now.version[5]));
}

static void end(void)
{
	CHECK_EQ(quire_close(q), 0);
}

static void reopen(void)
{
	end();
	q = pager_open(BUDGET);
}

static bool is_full(const struct quire_image *i)
{
	static const unsigned char zeros[16];

	return memcmp(i->base, zeros, sizeof zeros) == 0;
}

static bool has_uuid(const struct quire_image *i, quire_snapshot_t *s)
{
	unsigned char uuid[16];

	MUST(quire_snapshot_uuid(s, uuid) == 0);
	return memcmp(i->uuid, uuid, sizeof uuid) == 0;
}

static bool is_increment_to(const struct quire_image *i, quire_snapshot_t *base)
{
	unsigned char uuid[16];

	MUST(quire_snapshot_uuid(base, uuid) == 0);
	return memcmp(i->base, uuid, sizeof uuid) == 0;
}

/* An increment has what differs, and no other page; but for zeros that were written over zeros. */
static void check_increment(const char *path, const struct model *base, const struct model *is)
{
	struct quire_image i = info_of(path);
	size_t zeros, n = model_differs(base, is, &zeros);

	CHECK(!is_full(&i));
	CHECK_EQ(i.stored, n - zeros);
	CHECK(i.zeros >= zeros && i.zeros < zeros + 100);
	CHECK_EQ(quire_image_verify(path, NULL, NULL), 0);
}

static void full(void)
{
	quire_snapshot_t *s, *loaded;
	struct quire_image i;
	struct model then;
	quire_region_t *c;

	begin();
	s = snapshot(r);
	then = now;
	model_scribble(&now, r, 30, 3);
	save(s, img("full"), NULL);
	i = info_of(img("full"));
	CHECK(is_full(&i));
	CHECK(has_uuid(&i, s));
	CHECK_EQ(i.length, MODEL_PAGES * PAGE);
	CHECK_EQ(i.stored, model_stored(&then));
	CHECK(i.compressed > i.stored / 4 && i.compressed < i.stored);
	CHECK_EQ(i.zeros, 0);
	CHECK_STR(i.name, "heap");
	CHECK(i.created >= time(NULL) - 100 && i.created <= time(NULL));
	CHECK_EQ(model_wrong_in(&now, r), 0);
	/* Beside the one that it was saved from. */
	loaded = load_image(q, img("full"));
	CHECK(has_uuid(&i, loaded));
	CHECK_EQ(quire_snapshot_length(loaded), MODEL_PAGES * PAGE);
	CHECK_EQ(model_wrong(&then, loaded), 0);
	CHECK_EQ(model_wrong(&then, s), 0);
	reopen();
	loaded = load_image(q, img("full"));
	CHECK(has_uuid(&i, loaded));
	c = clone_of(loaded);
	CHECK_EQ(model_wrong_in(&then, c), 0);
	now = then;
	model_scribble(&now, c, 50, 4);
	CHECK_EQ(model_wrong_in(&now, c), 0);
	CHECK_EQ(model_wrong(&then, loaded), 0);
	end();
}

enum { LINKS = 5 };

static const char *link_name(unsigned i)
{
	static char names[LINKS][8];

	snprintf(names[i], sizeof names[i], "link%u", i);
	return img(names[i]);
}

static void chain(void)
{
	const char *paths[LINKS];
	struct model then[LINKS];
	quire_snapshot_t *s[LINKS];

	begin();
	for (unsigned i = 0; i < LINKS; i++) {
		s[i] = snapshot(r);
		then[i] = now;
		model_scribble(&now, r, 10, 10 + i);
		paths[i] = link_name(i);
		save(s[i], paths[i], i ? s[i - 1] : NULL);
		if (i)
			check_increment(paths[i], &then[i - 1], &then[i]);
	}
	CHECK_EQ(quire_image_merge(paths, LINKS, img("merged"), NULL, NULL), 0);
	CHECK(file_is(img("merged"), &then[LINKS - 1]));
	reopen();
	for (unsigned i = 0; i < LINKS; i++)
		s[i] = load_image(q, paths[i]);
	for (unsigned i = 0; i < LINKS; i++)
		CHECK_EQ(model_wrong(&then[i], s[i]), 0);
	/* From any to any: loaded ones have no region in common. */
	for (unsigned i = 0; i < LINKS; i++) {
		unsigned k = (i + 2) % LINKS;

		save(s[i], img("jump"), s[k]);
		check_increment(img("jump"), &then[k], &then[i]);
		CHECK_EQ(model_wrong(&then[i], load_image(q, img("jump"))), 0);
	}
	end();
}

/* Of one region, older and newer, with others between them, of which some have gone. */
static void both_directions(void)
{
	quire_snapshot_t *s[4];
	struct model then[4];

	begin();
	for (unsigned i = 0; i < 4; i++) {
		s[i] = snapshot(r);
		then[i] = now;
		model_scribble(&now, r, 6, 20 + i);
	}
	MUST(quire_snapshot_destroy(s[1]) == 0);
	save(s[3], img("new"), NULL);
	save(s[0], img("back"), s[3]);
	check_increment(img("back"), &then[3], &then[0]);
	save(s[0], img("old"), NULL);
	save(s[3], img("forth"), s[0]);
	check_increment(img("forth"), &then[0], &then[3]);
	/* Its region gone, and rolled back before. */
	MUST(quire_snapshot_rollback(s[2]) == 0 && quire_region_destroy(r) == 0);
	save(s[2], img("middle"), s[0]);
	check_increment(img("middle"), &then[0], &then[2]);
	reopen();
	load_image(q, img("new"));
	CHECK_EQ(model_wrong(&then[0], load_image(q, img("back"))), 0);
	reopen();
	load_image(q, img("old"));
	CHECK_EQ(model_wrong(&then[3], load_image(q, img("forth"))), 0);
	CHECK_EQ(model_wrong(&then[2], load_image(q, img("middle"))), 0);
	end();
}

/* A day's work: load, clone, write, save what has changed. */
static void of_a_clone(void)
{
	quire_snapshot_t *base, *s;
	struct quire_image i;
	struct model then;
	quire_region_t *c;

	begin();
	save(snapshot(r), img("base"), NULL);
	then = now;
	reopen();
	base = load_image(q, img("base"));
	c = clone_of(base);
	model_put(&now, c, 100, 3, 7);
	model_put(&now, c, 200, 4, 0);
	model_put(&now, c, 900, 1, 8);
	/* Only looked at, or written as it was. */
	MUST(page_is(page_at(c, 300), 300, then.version[300]));
	put_page(page_at(c, 400), 400, then.version[400]);
	s = snapshot(c);
	save(s, img("day"), base);
	check_increment(img("day"), &then, &now);
	CHECK_EQ(model_wrong(&now, load_image(q, img("day"))), 0);
	i = info_of(img("day"));
	CHECK(is_increment_to(&i, base));
	CHECK_EQ(i.zeros, 4);
	MUST(quire_snapshot_destroy(base) == 0);
	CHECK_EQ(model_wrong(&now, s), 0);
	reopen();
	base = load_image(q, img("base"));
	CHECK_EQ(model_wrong(&now, load_image(q, img("day"))), 0);
	CHECK_EQ(model_wrong(&then, base), 0);
	end();
}

/* Nothing is known of the two: by their bytes. */
static void unrelated(void)
{
	quire_region_t *other;
	struct model of_other;
	quire_snapshot_t *a, *b;

	begin();
	other = region_create(q, MODEL_PAGES * PAGE);
	memset(&of_other, 0, sizeof of_other);
	for (size_t page = 0; page < MODEL_PAGES; page++)
		if (now.version[page])
			model_put(&of_other, other, page, 1, now.version[page]);
	model_scribble(&of_other, other, 8, 5);
	a = snapshot(r);
	b = snapshot(other);
	save(a, img("a"), NULL);
	save(b, img("b"), a);
	check_increment(img("b"), &now, &of_other);
	reopen();
	a = load_image(q, img("a"));
	CHECK_EQ(model_wrong(&of_other, load_image(q, img("b"))), 0);
	end();
}

/* => nothing is written */
static void refused_bases(void)
{
	quire_region_t *shorter;
	quire_snapshot_t *s, *other, *foreign;
	quire_save_t *save_handle = NULL;
	quire_t *second;

	begin();
	s = snapshot(r);
	shorter = region_create(q, (MODEL_PAGES - 1) * PAGE);
	other = snapshot(shorter);
	second = pager_open(BUDGET);
	foreign = snapshot(region_create(second, MODEL_PAGES * PAGE));
	CHECK_EQ(quire_snapshot_save(s, img("no"), other), -EINVAL);
	CHECK(contains(quire_error_message(), "length"));
	CHECK_EQ(quire_snapshot_save(s, img("no"), foreign), -EINVAL);
	CHECK_EQ(quire_snapshot_save(s, img("no"), s), -EINVAL);
	CHECK_EQ(quire_save_begin(s, img("no"), other, NULL, &save_handle), -EINVAL);
	CHECK_EQ(quire_snapshot_save(NULL, img("no"), NULL), -EINVAL);
	CHECK_EQ(quire_snapshot_save((quire_snapshot_t *)r, img("no"), NULL), -EINVAL);
	CHECK_EQ(quire_snapshot_save(s, NULL, NULL), -EINVAL);
	CHECK_EQ(quire_snapshot_save(s, "", NULL), -EINVAL);
	CHECK(save_handle == NULL);
	CHECK(access(img("no"), F_OK) != 0);
	CHECK_EQ(quire_close(second), 0);
	end();
}

static bool holds(quire_snapshot_t *s, size_t page, unsigned version)
{
	_Alignas(8) char bytes[PAGE];

	MUST(quire_snapshot_read(s, page * PAGE, bytes, PAGE) == 0);
	return page_is(bytes, page, version);
}

/* Three pages of a terabyte. */
static void sparse(void)
{
	static const size_t at[3] = { 0, 98765432, TIB / PAGE - 1 };
	quire_snapshot_t *s, *later, *loaded;
	quire_region_t *c;
	double start, took;

	unit_seed();
	q = pager_open(BUDGET);
	r = region_create(q, TIB);
	for (unsigned i = 0; i < 3; i++)
		put_page(page_at(r, at[i]), at[i], 1);
	s = snapshot(r);
	start = seconds_now();
	save(s, img("sparse"), NULL);
	took = seconds_now() - start;
	CHECK(took < 3);
	/* Header, and of each page the index block, its entry in the root, and the bytes. */
	CHECK(info_of(img("sparse")).file_bytes <= PAGE + 3 * (2 * PAGE + 24));
	put_page(page_at(r, 777777), 777777, 2);
	model_put(&now, r, 0, 1, 0);
	later = snapshot(r);
	start = seconds_now();
	save(later, img("sparse-more"), s);
	took += seconds_now() - start;
	CHECK(took < 6);
	printf("a sparse terabyte, twice: %.2f s\n", took);
	CHECK_EQ(info_of(img("sparse-more")).stored, 1);
	CHECK_EQ(info_of(img("sparse-more")).zeros, 1);
	reopen();
	s = load_image(q, img("sparse"));
	loaded = load_image(q, img("sparse-more"));
	for (unsigned i = 0; i < 3; i++) {
		CHECK(holds(s, at[i], 1));
		CHECK(holds(loaded, at[i], i ? 1 : 0));
	}
	CHECK(holds(loaded, 777777, 2) && holds(s, 777777, 0));
	c = clone_of(loaded);
	for (unsigned i = 0; i < 100; i++) {
		size_t page = 1000000 + unit_below(1000000);

		CHECK(page_is(page_at(c, page), page, 0));
	}
	CHECK(page_is(page_at(c, at[2]), at[2], 1));
	put_page(page_at(c, 5), 5, 5);
	s = snapshot(c);
	save(s, img("sparse"), loaded);
	CHECK_EQ(info_of(img("sparse")).stored, 1);
	end();
}

static void without_its_base(void)
{
	quire_snapshot_t *s[3], *got = (quire_snapshot_t *)&got, *const none = got;
	unsigned char uuid[16];
	char text[40] = "";
	struct model then;

	begin();
	for (unsigned i = 0; i < 3; i++) {
		s[i] = snapshot(r);
		then = now;
		save(s[i], link_name(i), i ? s[i - 1] : NULL);
		model_put(&now, r, i, 1, 9);
	}
	MUST(quire_snapshot_uuid(s[1], uuid) == 0);
	for (unsigned i = 0; i < 16; i++)
		sprintf(text + strlen(text),
		        i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
	reopen();
	CHECK_EQ(quire_snapshot_load(q, link_name(1), &got), -ESTALE);
	s[0] = load_image(q, link_name(0));
	/* Not the base's base. */
	CHECK_EQ(quire_snapshot_load(q, link_name(2), &got), -ESTALE);
	CHECK(contains(quire_error_message(), text));
	CHECK(contains(quire_error_message(), link_name(2)));
	s[1] = load_image(q, link_name(1));
	/* Its handle has gone: it is no snapshot any more, though it stays for others. */
	s[2] = load_image(q, link_name(2));
	MUST(quire_snapshot_destroy(s[1]) == 0);
	CHECK_EQ(quire_snapshot_load(q, link_name(2), &got), -ESTALE);
	CHECK(got == none);
	CHECK_EQ(model_wrong(&then, s[2]), 0);
	end();
}

/* A loaded one saved again is the same: an increment in full, and over the file it is read from. */
static void saved_again(void)
{
	quire_snapshot_t *base, *s;
	struct model then;
	struct quire_image i, whole;

	begin();
	base = snapshot(r);
	then = now;
	save(base, img("base"), NULL);
	model_scribble(&now, r, 10, 30);
	s = snapshot(r);
	save(s, img("more"), base);
	i = info_of(img("more"));
	reopen();
	base = load_image(q, img("base"));
	s = load_image(q, img("more"));
	save(s, img("whole"), NULL);
	save(s, img("again"), base);
	save(base, img("base"), NULL);
	save(base, img("copy"), NULL);
	CHECK_EQ(model_wrong(&then, base), 0);
	CHECK_EQ(model_wrong(&now, s), 0);
	CHECK(memcmp(info_of(img("whole")).uuid, i.uuid, 16) == 0);
	whole = info_of(img("whole"));
	CHECK(is_full(&whole));
	CHECK(memcmp(info_of(img("again")).uuid, i.uuid, 16) == 0);
	CHECK(memcmp(info_of(img("again")).base, i.base, 16) == 0);
	check_increment(img("again"), &then, &now);
	CHECK(file_is(img("whole"), &now));
	CHECK(file_is(img("base"), &then));
	CHECK(file_is(img("copy"), &then));
	end();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(full),
		UNIT(chain),
		UNIT(both_directions),
		UNIT(of_a_clone),
		UNIT(unrelated),
		UNIT(refused_bases),
		UNIT(sparse),
		UNIT(without_its_base),
		UNIT(saved_again),
		UNIT_END,
	};

	return unit_main(argc, argv, "image", tests);
}
