/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_image_write.c - an image appears at its path whole or not at
 * all, and nothing else is left: limits, full disks, death.
 */
#include "tests/unit/image_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct model old, new;

/* An image that is there before, and another that is to come. */
static void make(unsigned pages)
{
	struct image_description d = describe(300, 1, 0);

	unit_seed();
	model_random(&old, 300, 0, 5, 5);
	model_random(&new, pages, 0, 40, 40);
	REQUIRE_EQ(model_write(&old, image_path("it"), &d), 0);
}

static unsigned descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

/* Run in a child, which may change what its process is allowed. => its exit status, or 128 + signal */
static int in_child(int (*run)(void))
{
	int status = 0;
	pid_t child = fork();

	if (child == 0)
		_exit(run());
	REQUIRE(child > 0);
	REQUIRE_EQ(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* ------------------------------------------------------------ all or nothing */

static void abandoned(void)
{
	struct image_description d = describe(600, 2, 0);
	unsigned char page[PAGE_BYTES] __attribute__((aligned(16)));
	unsigned before;
	struct image_writer w;

	make(600);
	before = descriptors();
	page_fill(page, NOISE, 1);
	for (unsigned puts = 0; puts < 600; puts += 299) {
		REQUIRE_EQ(image_create(&w, image_path("it"), &d), 0);
		for (unsigned i = 0; i < puts; i++)
			REQUIRE_EQ(image_put(&w, i, page), 0);
		CHECK(model_matches(&old, image_path("it")));
		image_abandon(&w);
		image_abandon(&w);
		CHECK_EQ(image_entries(), 1);
	}
	CHECK(model_matches(&old, image_path("it")));
	CHECK_EQ(descriptors(), before);
}

static void replaced_while_open(void)
{
	struct image_description d = describe(600, 2, 0);
	unsigned char page[PAGE_BYTES];
	struct image im;
	unsigned before;

	make(600);
	before = descriptors();
	REQUIRE_EQ(image_open(&im, image_path("it")), 0);
	REQUIRE_EQ(model_write(&new, image_path("it"), &d), 0);
	CHECK(model_matches(&new, image_path("it")));
	CHECK_EQ(image_verify(&im, NULL, NULL), 0);
	for (unsigned i = 0; i < 300; i++)
		if (image_read_page(&im, i, page) == IMAGE_BYTES)
			CHECK(page_is(page, old.content[i], old.seed[i]));
	image_close(&im);
	CHECK_EQ(image_entries(), 1);
	CHECK_EQ(descriptors(), before);
}

static void not_to_be_replaced(void)
{
	struct image_description d = describe(600, 2, 0);
	struct image_writer w;

	make(600);
	REQUIRE_EQ(image_create(&w, image_path("it"), &d), 0);
	CHECK_EQ(image_commit(&w, false), -EEXIST);
	CHECK(strstr(error_message(), "there is something already"));
	image_abandon(&w);
	CHECK(model_matches(&old, image_path("it")));
	REQUIRE_EQ(image_create(&w, image_path("other"), &d), 0);
	CHECK_EQ(image_commit(&w, false), 0);
	CHECK_EQ(image_entries(), 2);
	unlink(image_path("other"));
}

/* A folder comes to be there meanwhile. */
static void place_is_taken(void)
{
	struct image_description d = describe(600, 2, 0);
	struct image_writer w;

	make(600);
	unlink(image_path("it"));
	REQUIRE_EQ(image_create(&w, image_path("it"), &d), 0);
	REQUIRE_EQ(mkdir(image_path("it"), 0700), 0);
	CHECK_EQ(image_commit(&w, true), -EISDIR);
	CHECK_EQ(image_entries(), 1);
	rmdir(image_path("it"));
}

static void order(void)
{
	struct image_description d = describe(600, 2, 0);
	static const uint64_t wrong[] = { 4, 5, 600, UINT64_MAX };
	unsigned char page[PAGE_BYTES] __attribute__((aligned(16)));
	struct image_writer w;

	make(600);
	page_fill(page, TEXT, 1);
	for (unsigned i = 0; i < ARRAY_LENGTH(wrong); i++) {
		REQUIRE_EQ(image_create(&w, image_path("it"), &d), 0);
		REQUIRE_EQ(image_put(&w, 5, i % 2 ? page : NULL), 0);
		CHECK_EQ(image_put(&w, wrong[i], page), -EINVAL);
		CHECK_EQ(image_put(&w, 7, page), -EINVAL);
		CHECK_EQ(image_commit(&w, true), -EINVAL);
		CHECK_EQ(image_entries(), 1);
	}
	CHECK(model_matches(&old, image_path("it")));
}

static void descriptions(void)
{
	struct image_description d = describe(0, 2, 0);
	struct image_writer w;

	CHECK_EQ(image_create(&w, image_path("it"), &d), -EINVAL);
	d.bytes = PAGE_BYTES + 1;
	CHECK_EQ(image_create(&w, image_path("it"), &d), -EINVAL);
	image_abandon(&w);
	d = describe(1, 2, 2);
	CHECK_EQ(image_create(&w, image_path("it"), &d), -EINVAL);
	d = describe(1, 2, 0);
	memset(d.name, 'n', sizeof d.name);
	CHECK_EQ(image_create(&w, image_path("it"), &d), -EINVAL);
}

/* ------------------------------------------------------------ limits */

/* No byte of the file may be one too many, whichever it is that does not fit. */
static int limited(void)
{
	struct image_description d = describe(new.pages, 2, 0);
	struct stat st;
	int bad = 0;

	if (model_write(&new, image_path("limited"), &d) != 0 ||
	    stat(image_path("limited"), &st) != 0 || unlink(image_path("limited")) != 0)
		return 2;
	for (rlim_t limit = 0; limit < (rlim_t)st.st_size + 512; limit += 511) {
		struct rlimit size = { limit, RLIM_INFINITY };
		int error;

		setrlimit(RLIMIT_FSIZE, &size);
		error = model_write(&new, image_path("it"), &d);
		if (error == -EFBIG ? !strstr(error_message(), "ulimit -f") : error != 0)
			bad = 1;
		if ((error == 0) != (limit >= (rlim_t)st.st_size))
			bad = 1;
		if (!model_matches(error ? &old : &new, image_path("it")) || image_entries() != 1)
			bad = 1;
	}
	return bad;
}

static void file_size_limit(void)
{
	make(12);
	CHECK_EQ(in_child(limited), 0);
	make(600); /* and so that it fails while pages are put */
	CHECK_EQ(image_entries(), 1);
}

/* A mount namespace of this process's own: as root. */
static bool apart(void)
{
	return unshare(CLONE_NEWNS) == 0 &&
	       mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) == 0;
}

static int full_disk(void)
{
	static const char *const sizes[] = { "size=64k", "size=512k", "size=2m", "size=2500k" };
	struct image_description d = describe(1, 1, 0);
	struct model small = { .pages = 1, .content = { TEXT } };

	if (!apart())
		return 77;
	for (unsigned i = 0; i < ARRAY_LENGTH(sizes); i++) {
		if (mount("tmpfs", image_dir(), "tmpfs", 0, sizes[i]) != 0)
			return 77;
		d = describe(1, 1, 0);
		if (model_write(&small, image_path("it"), &d) != 0)
			return 1;
		d = describe(new.pages, 2, 0);
		if (model_write(&new, image_path("it"), &d) != -ENOSPC)
			return 2;
		if (!model_matches(&small, image_path("it")) || image_entries() != 1)
			return 3;
		umount(image_dir());
	}
	return 0;
}

static void disk_is_full(void)
{
	int status;

	make(2000);
	status = in_child(full_disk);
	if (status == 77)
		printf("left out: no tmpfs can be mounted here\n");
	else
		CHECK_EQ(status, 0);
}

/* ------------------------------------------------------------ without a name */

static int die_writing(void)
{
	struct image_description d = describe(new.pages, 2, 0);
	unsigned char page[PAGE_BYTES] __attribute__((aligned(16)));
	struct image_writer w;

	page_fill(page, NOISE, 1);
	if (image_create(&w, image_path("it"), &d) != 0)
		return 1;
	for (unsigned i = 0; i < new.pages; i++)
		image_put(&w, i, page);
	if (w.output.named)
		return 77;
	raise(SIGKILL);
	return 1;
}

static void killed(void)
{
	int status;

	make(600);
	status = in_child(die_writing);
	if (status == 77) {
		printf("left out: there are no files without a name here\n");
		return;
	}
	CHECK_EQ(status, 128 + SIGKILL);
	CHECK_EQ(image_entries(), 1);
	CHECK(model_matches(&old, image_path("it")));
}

/* As on a file system that has no O_TMPFILE: without /proc such a file could not be named. */
static int without_proc(void)
{
	struct image_description d = describe(new.pages, 2, 0);
	struct image_writer w;
	struct stat st;

	if (!apart() || mount("tmpfs", "/proc", "tmpfs", 0, NULL) != 0)
		return 77;
	if (image_create(&w, image_path("it"), &d) != 0 || !w.output.named || image_entries() != 2)
		return 1;
	image_abandon(&w);
	if (image_entries() != 1 || !model_matches(&old, image_path("it")))
		return 2;
	if (image_create(&w, image_path("it"), &d) != 0 || image_commit(&w, false) != -EEXIST ||
	    image_entries() != 1)
		return 3;
	if (model_write(&new, image_path("it"), &d) != 0 || image_entries() != 1 ||
	    !model_matches(&new, image_path("it")))
		return 4;
	unlink(image_path("it"));
	if (image_create(&w, image_path("it"), &d) != 0 || image_commit(&w, false) != 0 ||
	    image_entries() != 1)
		return 5;
	return stat(image_path("it"), &st) != 0 || (st.st_mode & 07777) != 0600 ? 6 : 0;
}

static void with_a_temporary_name(void)
{
	int status;

	make(600);
	status = in_child(without_proc);
	if (status == 77)
		printf("left out: /proc cannot be hidden here\n");
	else
		CHECK_EQ(status, 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(abandoned),
		UNIT(replaced_while_open),
		UNIT(not_to_be_replaced),
		UNIT(place_is_taken),
		UNIT(order),
		UNIT(descriptions),
		UNIT(file_size_limit),
		UNIT(disk_is_full),
		UNIT(killed),
		UNIT(with_a_temporary_name),
		UNIT_END,
	};

	return unit_main(argc, argv, "image write", tests);
}
