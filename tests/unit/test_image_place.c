/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_image_place.c - where an image may be written: odd paths, links,
 * what is no file; and the mode it gets there. What is no image.
 */
#include "tests/unit/image_fixture.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

static struct model old, new;

static void make(void)
{
	struct image_description d = describe(300, 1, 0);

	unit_seed();
	model_random(&old, 300, 0, 5, 5);
	model_random(&new, 600, 0, 4, 4);
	REQUIRE_EQ(model_write(&old, image_path("it"), &d), 0);
}

static int create_at(const char *path)
{
	struct image_description d = describe(1, 2, 0);
	struct image_writer w;
	int error = image_create(&w, path, &d);

	image_abandon(&w);
	return error;
}

static void odd_paths(void)
{
	struct image_description d = describe(600, 2, 0);
	char name[3000], here[4096], link[100] = "";
	struct stat st;

	make();
	REQUIRE_EQ(mkfifo(image_path("fifo"), 0600), 0);
	CHECK_EQ(create_at(""), -EINVAL);
	CHECK_EQ(create_at("/"), -EISDIR);
	CHECK_EQ(create_at("."), -EISDIR);
	CHECK_EQ(create_at(image_dir()), -EISDIR);
	CHECK_EQ(create_at(image_path("new/")), -EISDIR);
	CHECK_EQ(create_at(image_path("fifo")), -EBADF);
	CHECK_EQ(create_at("/dev/null"), -EBADF);
	CHECK_EQ(create_at(image_path("no/it")), -ENOENT);
	CHECK_EQ(create_at(image_path("it/it")), -ENOTDIR);
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	CHECK_EQ(create_at(name), -ENAMETOOLONG);
	unlink(image_path("fifo"));

	/* A link is replaced; what it leads to stays. */
	REQUIRE_EQ(symlink("it", image_path("link")), 0);
	REQUIRE_EQ(model_write(&new, image_path("link"), &d), 0);
	CHECK(model_matches(&old, image_path("it")));
	CHECK(model_matches(&new, image_path("link")));
	CHECK(readlink(image_path("link"), link, sizeof link) < 0);
	unlink(image_path("link"));

	/* Relative to where the program is when it begins. */
	REQUIRE(getcwd(here, sizeof here));
	REQUIRE_EQ(chdir(image_dir()), 0);
	CHECK_EQ(model_write(&new, "it", &d), 0);
	CHECK_EQ(stat("it", &st), 0);
	REQUIRE_EQ(chdir(here), 0);
	CHECK(model_matches(&new, image_path("it")));
	CHECK_EQ(image_entries(), 1);
}

static mode_t mode_after(mode_t mask, int before)
{
	struct image_description d = describe(600, 2, 0);
	mode_t usual = umask(mask);
	struct stat st = { 0 };

	unlink(image_path("it"));
	if (before >= 0) {
		file_store(image_path("it"), "old", 3);
		chmod(image_path("it"), (mode_t)before);
	}
	CHECK_EQ(model_write(&new, image_path("it"), &d), 0);
	umask(usual);
	stat(image_path("it"), &st);
	return st.st_mode & 07777;
}

static void modes(void)
{
	make();
	CHECK_EQ(mode_after(022, -1), 0600);
	CHECK_EQ(mode_after(0, -1), 0600);
	CHECK_EQ(mode_after(022, 0600), 0600);
	CHECK_EQ(mode_after(022, 0664), 0664);
	CHECK_EQ(mode_after(0, 0440), 0440);
}

/* ------------------------------------------------------------ where no image is */

static int check_file(const char *path)
{
	struct image im;
	int error = image_open(&im, path);

	image_close(&im);
	return error;
}

static int check_bytes(const char *bytes, size_t length)
{
	file_store(image_path("tried"), bytes, length);
	return check_file(image_path("tried"));
}

static void foreign(void)
{
	struct image im;

	CHECK_EQ(check_bytes("", 0), -EBADF);
	CHECK_EQ(check_bytes("QUIRESWP and more", 17), -EBADF);
	CHECK(said("no image of Quire's"));
	CHECK_EQ(check_file("/proc/self/exe"), -EBADF);
	CHECK_EQ(check_file(image_dir()), -EBADF);
	CHECK(said("no regular file"));
	CHECK_EQ(check_file("/dev/null"), -EBADF);
	REQUIRE_EQ(mkfifo(image_path("fifo"), 0600), 0);
	CHECK_EQ(check_file(image_path("fifo")), -EBADF);
	CHECK_EQ(check_file(image_path("missing")), -ENOENT);
	CHECK_EQ(image_open_fd(&im, -1), -EBADF);
	CHECK_EQ(check_file(""), -ENOENT);
}

/* The end of a long path is what tells it from others. */
static void long_paths(void)
{
	char path[1000];
	struct image im;

	memset(path, 'd', sizeof path);
	strcpy(path + sizeof path - 9, "/the_end");
	CHECK(image_open(&im, path) < 0);
	CHECK(said("d/the_end: ") && said("image ...ddd"));
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(odd_paths), UNIT(modes), UNIT(foreign), UNIT(long_paths), UNIT_END,
	};

	return unit_main(argc, argv, "image place", tests);
}
