/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_image.c - images hold what was put into them: round trips of
 * random mixtures, by number and in order, by many threads, with little stack.
 */
#include "tests/unit/image_fixture.h"

#include "image/format.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

static struct model model;

static void mixtures(void)
{
	static const unsigned lengths[] = { 1, 2, 255, 256, 257, 511, 1000, MODEL_PAGES_MAX };

	unit_seed();
	for (unsigned i = 0; i < ARRAY_LENGTH(lengths); i++)
		for (unsigned char base = 0; base < 2; base++) {
			struct image_description d = describe(lengths[i], 7, base);

			model_random(&model, lengths[i], 30, 30, 30);
			REQUIRE_EQ(model_write(&model, image_path("mixture"), &d), 0);
			CHECK(model_matches(&model, image_path("mixture")));
		}
	CHECK_EQ(image_entries(), 1);
}

/* Leaves without anything in between, and at both ends. */
static void sparse(void)
{
	struct image_description d = describe(MODEL_PAGES_MAX, 7, 3);

	unit_seed();
	for (unsigned i = 0; i < 20; i++) {
		unsigned few = 2 + (unsigned)unit_below(30);

		model_random(&model, MODEL_PAGES_MAX, 0, 0, 0);
		while (few-- > 0)
			model.content[unit_below(MODEL_PAGES_MAX)] = ZEROS + few % 3;
		REQUIRE_EQ(model_write(&model, image_path("sparse"), &d), 0);
		CHECK(model_matches(&model, image_path("sparse")));
	}
}

static void nothing_and_zeros(void)
{
	static const unsigned char shares[] = { 0, 100 };

	unit_seed();
	for (unsigned i = 0; i < 2; i++)
		for (unsigned char base = 0; base < 2; base++) {
			struct image_description d = describe(600, 7, base);
			struct image im;

			model_random(&model, 600, shares[i], 0, 0);
			REQUIRE_EQ(model_write(&model, image_path("empty"), &d), 0);
			CHECK(model_matches(&model, image_path("empty")));
			REQUIRE_EQ(image_open(&im, image_path("empty")), 0);
			CHECK_EQ(im.header.zeros, base && i ? 600 : 0);
			CHECK_EQ(im.header.leaves, base && i ? 3 : 0);
			if (!base)
				CHECK_EQ(im.header.file_bytes, FORMAT_HEADER_BYTES);
			image_close(&im);
		}
}

/* A tebibyte of which three pages are something: a file of kilobytes, opened and read at once. */
static void a_tebibyte(void)
{
	const uint64_t pages = IMAGE_BYTES_MAX / PAGE_BYTES, at[] = { 0, pages / 3, pages - 1 };
	struct image_description d = describe(pages, 7, 0);
	unsigned char bytes[PAGE_BYTES] __attribute__((aligned(16)));
	struct image_writer w;
	struct image im;

	REQUIRE_EQ(image_create(&w, image_path("huge"), &d), 0);
	for (unsigned i = 0; i < 3; i++) {
		page_fill(bytes, TEXT, i);
		REQUIRE_EQ(image_put(&w, at[i], bytes), 0);
	}
	REQUIRE_EQ(image_commit(&w, false), 0);
	REQUIRE_EQ(image_open(&im, image_path("huge")), 0);
	CHECK_EQ(image_verify(&im, NULL, NULL), 0);
	CHECK(im.header.file_bytes < 32768);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(image_read_page(&im, at[i], bytes), IMAGE_BYTES);
		CHECK(page_is(bytes, TEXT, i));
		CHECK_EQ(image_kind(&im, at[i] ^ 1), IMAGE_ZEROS);
	}
	CHECK_EQ(image_read_page(&im, pages, bytes), -EINVAL);
	CHECK_EQ(image_read_page(&im, UINT64_MAX, bytes), -EINVAL);
	image_close(&im);
	d.bytes += PAGE_BYTES;
	CHECK_EQ(image_create(&w, image_path("huger"), &d), -EINVAL);
}

static void header_is_kept(void)
{
	struct image_description d = describe(300, 9, 4), *is;
	struct image_writer w;
	struct image im;
	unsigned char noise[PAGE_BYTES] __attribute__((aligned(16)));
	int fd;

	page_fill(noise, NOISE, 1);
	d.created = -5;
	memset(d.name, 'n', IMAGE_NAME_MAX);
	REQUIRE_EQ(image_create(&w, image_path("header"), &d), 0);
	REQUIRE_EQ(image_put(&w, 1, NULL), 0);
	REQUIRE_EQ(image_put(&w, 2, noise), 0);
	page_fill(noise, TEXT, 1);
	REQUIRE_EQ(image_put(&w, 299, noise), 0);
	REQUIRE_EQ(image_commit(&w, false), 0);

	fd = open(image_path("header"), O_RDONLY | O_CLOEXEC);
	REQUIRE(fd >= 0);
	REQUIRE_EQ(image_open_fd(&im, fd), 0);
	close(fd);
	is = &im.header.description;
	CHECK(memcmp(is->uuid, d.uuid, 16) == 0 && memcmp(is->base, d.base, 16) == 0);
	CHECK_STR(is->name, d.name);
	CHECK_EQ(is->created, -5);
	CHECK_EQ(is->bytes, d.bytes);
	CHECK_EQ(im.header.stored, 2);
	CHECK_EQ(im.header.compressed, 1);
	CHECK_EQ(im.header.zeros, 1);
	CHECK_EQ(im.header.leaves, 2);
	CHECK(im.header.data_bytes > PAGE_BYTES && im.header.data_bytes < 2 * PAGE_BYTES);
	CHECK_EQ(image_verify(&im, NULL, NULL), 0);
	image_close(&im);
	image_close(&im);

	/* What is left open is made up. */
	memset(&d, 0, sizeof d);
	d.bytes = PAGE_BYTES;
	REQUIRE_EQ(image_create(&w, image_path("header"), &d), 0);
	REQUIRE_EQ(image_commit(&w, true), 0);
	REQUIRE_EQ(image_open(&im, image_path("header")), 0);
	CHECK(!image_uuid_is_zero(is->uuid));
	CHECK(is->created > 1000000000);
	CHECK_STR(is->name, "");
	image_close(&im);
}

/* More than the writer's buffer, and than is given to the disk at once. */
static void more_than_buffers(void)
{
	struct image_description d = describe(MODEL_PAGES_MAX, 7, 0);

	unit_seed();
	model_random(&model, MODEL_PAGES_MAX, 0, 0, 100);
	REQUIRE_EQ(model_write(&model, image_path("noise"), &d), 0);
	CHECK(model_matches(&model, image_path("noise")));
}

static void seeking(void)
{
	struct image_description d = describe(2000, 7, 3);
	struct image_cursor c;
	struct image im;

	unit_seed();
	model_random(&model, 2000, 1, 1, 0);
	REQUIRE_EQ(model_write(&model, image_path("seek"), &d), 0);
	REQUIRE_EQ(image_open(&im, image_path("seek")), 0);
	for (unsigned i = 0; i < 500; i++) {
		uint64_t from = unit_below(2100), page = 0, wanted = from;
		int kind;

		while (wanted < 2000 && model.content[wanted] == ABSENT)
			wanted++;
		image_seek(&c, &im, from);
		kind = image_next(&c, &page);
		CHECK_EQ(kind > 0, wanted < 2000);
		if (kind > 0)
			CHECK_EQ(page, wanted);
	}
	image_close(&im);
}

/* A leaf at a time is as a page at a time. */
static void leaves(void)
{
	unsigned char page[PAGE_BYTES], again[PAGE_BYTES];

	unit_seed();
	for (unsigned char base = 0; base < 2; base++) {
		struct image_description d = describe(1500, 7, base);
		struct image_leaf leaf;
		struct image im;

		model_random(&model, 1500, 10, 20, 20);
		memset(model.content + 512, ABSENT, 256);
		REQUIRE_EQ(model_write(&model, image_path("leaves"), &d), 0);
		REQUIRE_EQ(image_open(&im, image_path("leaves")), 0);
		for (uint64_t i = 0; i < 1500; i++) {
			int kind = image_read_page(&im, i, page);

			if (i % IMAGE_LEAF_PAGES == 0)
				REQUIRE_EQ(image_read_leaf(&im, i / IMAGE_LEAF_PAGES, &leaf), 0);
			CHECK_EQ(image_leaf_kind(&leaf, i), kind);
			CHECK_EQ(image_leaf_page(&im, &leaf, i, again), kind);
			CHECK(kind != IMAGE_BYTES || memcmp(page, again, PAGE_BYTES) == 0);
		}
		CHECK_EQ(image_read_leaf(&im, 6, &leaf), -EINVAL);
		image_close(&im);
	}
}

static bool stop_at_two(void *arg, uint64_t done, uint64_t of)
{
	*(uint64_t *)arg = of;
	return done < 2;
}

static void verifying_can_be_stopped(void)
{
	struct image_description d = describe(1024, 7, 0);
	struct image im;
	uint64_t of = 0;

	unit_seed();
	model_random(&model, 1024, 0, 100, 0);
	REQUIRE_EQ(model_write(&model, image_path("stop"), &d), 0);
	REQUIRE_EQ(image_open(&im, image_path("stop")), 0);
	CHECK_EQ(image_verify(&im, stop_at_two, &of), -ECANCELED);
	CHECK_EQ(of, 4);
	image_close(&im);
}

/* In a handler of a fault the program's errno is not to be touched. */
static void errors_leave_errno_alone(void)
{
	struct image_description d = describe(3, 7, 0);
	struct model some = { .pages = 3, .content = { TEXT, NOISE } };
	unsigned char bytes[PAGE_BYTES];
	struct image im;

	REQUIRE_EQ(model_write(&some, image_path("errno"), &d), 0);
	REQUIRE_EQ(image_open(&im, image_path("errno")), 0);
	close(im.fd);
	errno = 12345;
	CHECK_EQ(image_read_page(&im, 0, bytes), -EBADF);
	CHECK_EQ(image_kind(&im, 1), -EBADF);
	CHECK_EQ(errno, 12345);
	CHECK_EQ(image_verify(&im, NULL, NULL), -EBADF);
	CHECK(strstr(error_message(), "cannot be read"));
	im.fd = -1;
	image_close(&im);
}

/* ------------------------------------------------------------ threads and stack */

static struct image shared;
static atomic_uint wrong;

static void *read_many(void *arg)
{
	uint64_t x = (uintptr_t)arg;
	unsigned char bytes[PAGE_BYTES];

	for (unsigned i = 0; i < 5000; i++) {
		uint64_t page;
		int kind;

		x = x * 6364136223846793005u + 1442695040888963407u;
		page = (x >> 33) % model.pages;
		errno = 12345;
		kind = image_read_page(&shared, page, bytes);
		if (errno != 12345 ||
		    kind != (model.content[page] < TEXT ? IMAGE_ZEROS : IMAGE_BYTES) ||
		    (kind == IMAGE_BYTES && !page_is(bytes, model.content[page], model.seed[page])))
			atomic_fetch_add(&wrong, 1);
	}
	return NULL;
}

static void many_threads(void)
{
	struct image_description d = describe(3000, 7, 0);
	pthread_t threads[8];

	unit_seed();
	model_random(&model, 3000, 20, 40, 30);
	REQUIRE_EQ(model_write(&model, image_path("threads"), &d), 0);
	REQUIRE_EQ(image_open(&shared, image_path("threads")), 0);
	for (uintptr_t i = 0; i < 8; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, read_many, (void *)(i + 1)), 0);
	for (unsigned i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(atomic_load(&wrong), 0);
	image_close(&shared);
}

#define STACK_BYTES ((size_t)256 << 10)
#define PAINT 0xa5

static void *read_few(void *bytes)
{
	for (uint64_t page = 0; page < 3; page++)
		if (image_read_page(&shared, page, bytes) < 0)
			atomic_fetch_add(&wrong, 1);
	return NULL;
}

static void *read_none(void *bytes)
{
	return bytes;
}

/* What a thread leaves of a painted stack. => bytes used, its own things included */
static size_t stack_used(unsigned char *stack, void *(*run)(void *))
{
	static unsigned char bytes[PAGE_BYTES];
	pthread_attr_t attributes;
	pthread_t thread;
	size_t clean = 0;

	memset(stack, PAINT, STACK_BYTES);
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, stack, STACK_BYTES);
	REQUIRE_EQ(pthread_create(&thread, &attributes, run, bytes), 0);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attributes);
	while (clean < STACK_BYTES && stack[clean] == PAINT)
		clean++;
	return STACK_BYTES - clean;
}

/* Its frames are larger. */
static bool has_sanitizer(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return true;
#else
	return false;
#endif
}

static void little_stack(void)
{
	struct image_description d = describe(3, 7, 0);
	unsigned char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
	                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t all, own;

	if (has_sanitizer() || unit_valgrind()) {
		printf("left out: a sanitizer's frames are larger\n");
		return;
	}
	REQUIRE(stack != MAP_FAILED);
	model.pages = 3;
	for (unsigned i = 0; i < 3; i++)
		model.content[i] = ZEROS + (unsigned char)i, model.seed[i] = i;
	REQUIRE_EQ(model_write(&model, image_path("stack"), &d), 0);
	REQUIRE_EQ(image_open(&shared, image_path("stack")), 0);
	stack_used(stack, read_few); /* what is called is bound by now */
	own = stack_used(stack, read_none);
	all = stack_used(stack, read_few);
	printf("%zu bytes of stack\n", all - own);
	CHECK(all - own < 10240);
	image_close(&shared);
	munmap(stack, STACK_BYTES);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(mixtures),
		UNIT(sparse),
		UNIT(nothing_and_zeros),
		UNIT(a_tebibyte),
		UNIT(header_is_kept),
		UNIT(more_than_buffers),
		UNIT(seeking),
		UNIT(leaves),
		UNIT(verifying_can_be_stopped),
		UNIT(errors_leave_errno_alone),
		UNIT(many_threads),
		UNIT(little_stack),
		UNIT_END,
	};

	return unit_main(argc, argv, "image", tests);
}
