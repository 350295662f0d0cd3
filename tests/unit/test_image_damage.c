/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_image_damage.c - images that were damaged or truncated: each is
 * found, with words, and nothing wrong is ever read from one.
 */
#include "tests/fuzz/repair.h"
#include "tests/unit/image_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct model model;
static unsigned char *good;
static size_t size;

static void make(void)
{
	if (!good)
		good = sample(&model, &size);
}

static int check_bytes(const unsigned char *bytes, size_t length)
{
	file_store(image_path("tried"), bytes, length);
	return image_check(&model, image_path("tried"));
}

/* All that follows takes each byte; valgrind takes too long for that. */
static size_t step(void)
{
	return unit_valgrind() ? 41 : 1;
}

/*
 * Other bytes may decompress to the same page, as in a pattern the distance to
 * what is copied may be any multiple of its length. Then nothing was lost.
 */
static bool is_no_loss(const char *path, size_t at)
{
	uint64_t root = format_get64(good + AT_ROOT),
		 block = format_get_root(good + root, 0).offset;
	bool data = (at >= FORMAT_HEADER_BYTES && at < block) ||
	            (at >= block + FORMAT_BLOCK_BYTES &&
	             at < format_get_root(good + root, 1).offset);

	return data && model_matches(&model, path);
}

static void each_byte(void)
{
	const char *path = image_path("byte");
	size_t lost = 0;
	int fd;

	unit_seed();
	make();
	file_store(path, good, size);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	REQUIRE(fd >= 0);
	for (size_t i = 0; i < size; i += step()) {
		unsigned char bad = good[i] ^ (unsigned char)(1 + unit_below(255));
		int error;

		REQUIRE_EQ(pwrite(fd, &bad, 1, (off_t)i), 1);
		error = image_check(&model, path);
		if (error != (i < 8 ? -EBADF : -EBADMSG) && !(error == 0 && is_no_loss(path, i))) {
			printf("byte %zu: %d\n", i, error);
			lost++;
		}
		REQUIRE_EQ(pwrite(fd, good + i, 1, (off_t)i), 1);
	}
	close(fd);
	CHECK_EQ(lost, 0);
	CHECK_EQ(image_check(&model, path), 0);
}

static void each_length(void)
{
	const char *path = image_path("length");
	size_t missed = 0;

	make();
	file_store(path, good, size);
	for (size_t length = size - 1; length < size; length -= step()) {
		int error;

		REQUIRE_EQ(truncate(path, (off_t)length), 0);
		error = image_check(&model, path);
		if (error != (length < 8 ? -EBADF : -EBADMSG) ||
		    (length >= 8 && !said("is truncated")))
			missed++;
	}
	CHECK_EQ(missed, 0);
	good[size] = 0;
	CHECK_EQ(check_bytes(good, size + 1), -EBADMSG);
	CHECK(said("bytes, and has"));
}

static void truncated_while_open(void)
{
	const char *path = image_path("shrinking");
	unsigned char bytes[PAGE_BYTES];
	struct image im;

	make();
	file_store(path, good, size);
	REQUIRE_EQ(image_open(&im, path), 0);
	REQUIRE_EQ(truncate(path, FORMAT_HEADER_BYTES + 10), 0);
	CHECK_EQ(image_read_page(&im, 6, bytes), -EBADMSG);
	CHECK_EQ(image_kind(&im, 299), -EBADMSG);
	CHECK_EQ(image_verify(&im, NULL, NULL), -EBADMSG);
	CHECK(said("became shorter"));
	image_close(&im);
}

static void words_say_where(void)
{
	struct format_root_entry e;
	char words[100];

	make();
	e = format_get_root(good + format_get64(good + AT_ROOT), 0);
	good[e.offset + 5]++;
	CHECK_EQ(check_bytes(good, size), -EBADMSG);
	snprintf(words, sizeof words, "leaf 0, of the pages from 0 on (at byte %llu)",
	         (unsigned long long)e.offset);
	CHECK(said(words));
	good[e.offset + 5]--;
	good[FORMAT_HEADER_BYTES + 5]++;
	CHECK_EQ(check_bytes(good, size), -EBADMSG);
	CHECK(said("page 6 (") && said(" at byte 4096)"));
	good[FORMAT_HEADER_BYTES + 5]--;
	CHECK_EQ(check_bytes(good, size), 0);
}

/* A block that makes sense, and is another one: a page seems to be zeros. */
static void another_block(void)
{
	struct image im;
	uint64_t at;

	make();
	at = format_get_root(good + format_get64(good + AT_ROOT), 0).offset;
	memset(good + at + 6, 0xff, 2);
	file_store(image_path("tried"), good, size);
	memset(good + at + 6, 0, 2);
	REQUIRE_EQ(image_open(&im, image_path("tried")), 0);
	CHECK_EQ(image_kind(&im, 0), -EBADMSG);
	CHECK_EQ(image_verify(&im, NULL, NULL), -EBADMSG);
	CHECK(said("its checksum"));
	image_close(&im);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(each_byte),       UNIT(each_length),   UNIT(truncated_while_open),
		UNIT(words_say_where), UNIT(another_block), UNIT_END,
	};

	return unit_main(argc, argv, "image damage", tests);
}
