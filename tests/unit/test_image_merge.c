/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_image_merge.c - an image and its increments made one, against a
 * model; and what must not be made one.
 */
#include "tests/unit/image_fixture.h"

#include <errno.h>
#include <unistd.h>

#define CHAIN_MAX 6u

static struct model models[CHAIN_MAX], whole;
static const char *paths[CHAIN_MAX];

static const char *const names[CHAIN_MAX] = { "0", "1", "2", "3", "4", "5" };

/* Image i has UUID 10 + i; the first one's base is first. whole: what all of them make. */
static void make(unsigned count, uint64_t pages, unsigned char first)
{
	for (unsigned i = 0; i < count; i++) {
		struct image_description d = describe(pages, 10 + (unsigned char)i,
		                                      i ? 9 + (unsigned char)i : first);
		unsigned share = 1 + (unsigned)unit_below(i ? 12 : 33);

		snprintf(d.name, sizeof d.name, "number %u", i);
		d.created = 500 + i;
		model_random(&models[i], pages, share, share, share);
		/* A leaf that this one says nothing of. */
		if (pages > 512)
			memset(models[i].content + 256 * (i % 2), ABSENT, 256);
		paths[i] = image_path(names[i]);
		REQUIRE_EQ(model_write(&models[i], paths[i], &d), 0);
	}
	whole = models[0];
	for (unsigned i = 1; i < count; i++)
		model_apply(&whole, &models[i]);
}

static void check_header(const char *path, unsigned count, unsigned char first)
{
	struct image_description wanted = describe(whole.pages, 9 + (unsigned char)count, first);
	struct image im;

	REQUIRE_EQ(image_open(&im, path), 0);
	CHECK(memcmp(im.header.description.uuid, wanted.uuid, 16) == 0);
	CHECK(memcmp(im.header.description.base, wanted.base, 16) == 0);
	snprintf(wanted.name, sizeof wanted.name, "number %u", count - 1);
	CHECK_STR(im.header.description.name, wanted.name);
	CHECK_EQ(im.header.description.created, 499 + count);
	image_close(&im);
}

static void chains(void)
{
	static const uint64_t lengths[] = { 1, 100, 700, 2000 };

	unit_seed();
	for (unsigned count = 1; count <= CHAIN_MAX; count++)
		for (unsigned i = 0; i < ARRAY_LENGTH(lengths); i++)
			/* Of 1: the result is an increment, too. */
			for (unsigned char first = 0; first < 2; first++) {
				const char *out = image_path("out");

				make(count, lengths[i], first);
				REQUIRE_EQ(image_merge(paths, count, out, NULL, NULL), 0);
				CHECK(model_matches(&whole, out));
				check_header(out, count, first);
			}
}

static void into_an_input(void)
{
	unit_seed();
	for (unsigned i = 0; i < 4; i++) {
		make(4, 700, 0);
		REQUIRE_EQ(image_merge(paths, 4, paths[i], NULL, NULL), 0);
		CHECK(model_matches(&whole, paths[i]));
		for (unsigned j = 0; j < 4; j++)
			CHECK(j == i || model_matches(&models[j], paths[j]));
	}
}

/* Step by step or at once, it is the same file. */
static void in_steps(void)
{
	const char *out = image_path("out"), *step = image_path("step");
	unsigned char *a, *b;
	size_t size_a, size_b;

	unit_seed();
	make(3, 700, 0);
	REQUIRE_EQ(image_merge(paths, 3, out, NULL, NULL), 0);
	REQUIRE_EQ(image_merge(paths, 2, step, NULL, NULL), 0);
	REQUIRE_EQ(image_merge((const char *const[]){ step, paths[2] }, 2, step, NULL, NULL), 0);
	a = file_load(out, &size_a);
	b = file_load(step, &size_b);
	CHECK(size_a == size_b && memcmp(a, b, size_a) == 0);
	free(a);
	free(b);
}

/* ------------------------------------------------------------ what is refused */

static bool refused(const char *const list[], unsigned count, int error, const char *words)
{
	const char *out = image_path("kept");
	unsigned before = image_entries();
	bool is = image_merge(list, count, out, NULL, NULL) == error &&
	          strstr(error_message(), words) && image_entries() == before;

	if (!is)
		printf("not \"%s\" but: %s\n", words, error_message());
	return is;
}

static void no_chain(void)
{
	struct image_description d = describe(699, 13, 12);

	unit_seed();
	make(3, 700, 0);
	CHECK(refused((const char *const[]){ paths[0], paths[2] }, 2, -EINVAL,
	              "/2 is an increment to 0b0b0b0b-0b0b-0b0b-0b0b-0b0b0b0b0b0b, and image "));
	CHECK(strstr(error_message(), "/0 is 0a0a0a0a-0a0a-0a0a-0a0a-0a0a0a0a0a0a"));
	CHECK(refused((const char *const[]){ paths[1], paths[0] }, 2, -EINVAL,
	              "/0 is a full one, and no increment to image "));
	CHECK(refused((const char *const[]){ paths[0], paths[0] }, 2, -EINVAL, "full one"));
	CHECK(refused((const char *const[]){ paths[1], paths[1] }, 2, -EINVAL, "increment to"));
	CHECK(refused(paths, 0, -EINVAL, "nothing to merge"));
	CHECK(refused((const char *const[]){ paths[0], image_path("no") }, 2, -ENOENT, "/no"));
	models[3].pages = 699;
	REQUIRE_EQ(model_write(&models[3], image_path("3"), &d), 0);
	paths[3] = image_path("3");
	CHECK(refused(paths, 4, -EINVAL, "/3 is of 2863104 bytes of memory, and its base, image "));
}

/* What is damaged must not come under a new checksum. */
static void damaged(void)
{
	unsigned char *bytes;
	size_t size;

	unit_seed();
	make(2, 100, 0);
	models[1].content[50] = NOISE;
	REQUIRE_EQ(model_write(&models[1], paths[1],
	                       &(struct image_description){ .bytes = 100 * PAGE_BYTES,
	                                                    .uuid = { 1 },
	                                                    .base = { 2 } }),
	           0);
	bytes = file_load(paths[1], &size);
	/* Somewhere in the page of noise: half of such a file is. */
	for (size_t at = 4096; at < size - 8192; at += 512)
		bytes[at]++;
	file_store(paths[1], bytes, size);
	free(bytes);
	CHECK(refused(&paths[1], 1, -EBADMSG, "is damaged: page "));
}

static bool count_leaves(void *arg, uint64_t done, uint64_t of)
{
	uint64_t *last = arg;

	CHECK(done > last[0] && done <= of);
	last[0] = done;
	last[1] = of;
	return last[2]-- > 0;
}

static void progress(void)
{
	uint64_t last[3] = { 0, 0, 1000 };
	const char *out = image_path("progress");

	unit_seed();
	make(3, 2000, 0);
	REQUIRE_EQ(image_merge(paths, 3, out, count_leaves, last), 0);
	CHECK_EQ(last[0], last[1]);
	last[0] = 0, last[2] = 1;
	unlink(out);
	CHECK_EQ(image_merge(paths, 3, out, count_leaves, last), -ECANCELED);
	CHECK(access(out, F_OK) != 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(chains),  UNIT(into_an_input), UNIT(in_steps), UNIT(no_chain),
		UNIT(damaged), UNIT(progress),      UNIT_END,
	};

	return unit_main(argc, argv, "image merge", tests);
}
