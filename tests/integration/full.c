/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/full.c - the swap file cannot grow: by its limit, on a
 * small tmpfs, on a small ext4. Nothing that was stored is lost; the program
 * learns it by the error callback; only an access that cannot be served gets
 * SIGBUS; after discards all is well again.
 *
 * Mounts are made in a mount namespace of the program's own and vanish with it.
 *
 * test: matrix timeout=120
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/loop.h>

#define PAGES ((size_t)8192)
#define BUDGET (512 * KIB)

static bool own_mounts;
static struct errors errors;

/* Loads a page word by word. => true: it could not be served; what could be is right */
static bool unserved(quire_region_t *r, size_t page, unsigned version)
{
	for (size_t i = 0; i < PAGE / 8; i += 73) {
		const uint64_t *at = (uint64_t *)page_at(r, page) + i;
		struct caught c = try_load(at);

		if (c.signal) {
			CHECK_EQ(c.signal, SIGBUS);
			CHECK(c.address == (const void *)at);
			return true;
		}
		CHECK_EQ(c.value, word(page, i, version));
	}
	return false;
}

/* room: about what the swap file can hold. */
static void fill_up(struct quire_options *o, size_t room)
{
	quire_t *q;
	quire_region_t *r;
	struct caught c = { 0 };
	size_t stored, kept, lost = 0;
	unsigned told;
	double began;

	o->size = sizeof *o;
	o->memory = BUDGET;
	o->on_error = errors_count;
	o->on_error_arg = &errors;
	memset(&errors, 0, sizeof errors);
	q = pager_open_options(o);
	r = region_create(q, PAGES * PAGE);
	for (stored = 0; stored < PAGES; stored++) {
		c = try_fill_page(page_at(r, stored), stored, 1);
		if (c.signal)
			break;
	}
	REQUIRE(stored < PAGES); /* it did become full */
	CHECK_EQ(c.signal, SIGBUS);
	CHECK(c.address == page_at(r, stored));
	CHECK(stored >= room / PAGE / 2);
	CHECK(stored <= (room + BUDGET) / PAGE);
	told = errors.count;
	CHECK(told > 0);
	CHECK(errors.kinds[QUIRE_ERROR_SWAP_FULL] > 0);

	/* Any stored page can be read, and some of them are written. */
	began = seconds_now();
	for (size_t p = 0; p < stored && lost == 0; p += (size_t)quick_or_full(5, 1))
		lost += unserved(r, p, 1);
	CHECK_EQ(lost, 0);
	printf("stored %zu pages in %zu + %zu, read in %.2f s while full; told: %u\n", stored,
	       room / PAGE, BUDGET / PAGE, seconds_now() - began, errors.count);
	for (size_t p = 0; p < stored; p += stored / 16)
		if (try_fill_page(page_at(r, p), p, 1).signal)
			REQUIRE(!"a write to a page that is there");
	/* Still no room for new contents; what was refused then is refused now. */
	CHECK_EQ(try_fill_page(page_at(r, stored), stored, 1).signal, SIGBUS);
	CHECK(pager_stats(q).resident <= BUDGET);

	/* A quarter is given up: everything else is there. */
	kept = stored - stored / 4;
	CHECK_EQ(quire_advise(r, kept * PAGE, (PAGES - kept) * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	lost = 0;
	for (size_t p = 0; p < kept; p++)
		lost += unserved(r, p, 1);
	CHECK_EQ(lost, 0);
	if (lost == 0)
		CHECK_EQ(wrong(r, 0, kept, 1), 0);
	/* And there is room for new pages. */
	for (size_t p = kept; p < kept + stored / 8; p++)
		if (try_fill_page(page_at(r, p), p, 2).signal)
			REQUIRE(!"no room after a discard");
	CHECK_EQ(wrong(r, 0, kept, 1), 0);
	CHECK_EQ(wrong(r, kept, stored / 8, 2), 0);
	/* Once more, and then everything goes. */
	told = errors.count;
	for (size_t p = kept + stored / 8; p < PAGES; p++)
		if (try_fill_page(page_at(r, p), p, 2).signal)
			break;
	CHECK(errors.count > told);
	CHECK_EQ(quire_advise(r, 0, PAGES * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	fill(r, 0, kept, 3);
	CHECK_EQ(wrong(r, 0, kept, 3), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void by_limit(void)
{
	struct quire_options o = { .swap_path = temporary_directory(), .swap_size = 2 * MIB };

	fill_up(&o, 2 * MIB);
}

static void on_tmpfs(void)
{
	const char *dir = path_in(temporary_directory(), "small");
	struct quire_options o = { .swap_path = dir };

	if (!own_mounts) {
		note_skipped("a full tmpfs", "mounting needs root");
		return;
	}
	MUST(mkdir(dir, 0700) == 0);
	REQUIRE(mount("none", dir, "tmpfs", 0, "size=3m") == 0);
	fill_up(&o, 3 * MIB);
	CHECK_EQ(umount(dir), 0); /* nothing holds it */
}

/* No room for even a header. */
static void on_full_tmpfs(void)
{
	static char block[64 * 1024];
	const char *dir = path_in(temporary_directory(), "brimful");
	struct quire_options o = { .size = sizeof o, .memory = BUDGET };
	quire_t *q = NULL;
	int fd, r;

	if (!own_mounts) {
		note_skipped("opening on a full tmpfs", "mounting needs root");
		return;
	}
	MUST(mkdir(dir, 0700) == 0);
	REQUIRE(mount("none", dir, "tmpfs", 0, "size=1m") == 0);
	fd = open(path_in(dir, "ballast"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	MUST(fd >= 0);
	while (write(fd, block, sizeof block) > 0)
		;
	close(fd);
	o.swap_path = path_in(dir, "named");
	r = quire_open(&q, &o);
	CHECK_EQ(r, -ENOSPC);
	CHECK(contains(quire_error_message(), dir));
	if (r == 0)
		quire_close(q);
	CHECK_EQ(entries(dir), 1); /* no half-made file stays */
	CHECK_EQ(umount(dir), 0);
}

/* => the loop device's number, or -1 */
static int loop_device(const char *image)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number, loop, file;
	struct loop_info64 info = { .lo_flags = LO_FLAGS_AUTOCLEAR };
	char path[32];

	if (control < 0)
		return -1;
	number = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	snprintf(path, sizeof path, "/dev/loop%d", number);
	loop = open(path, O_RDWR | O_CLOEXEC);
	file = open(image, O_RDWR | O_CLOEXEC);
	if (number < 0 || loop < 0 || file < 0 || ioctl(loop, LOOP_SET_FD, file))
		number = -1;
	else
		ioctl(loop, LOOP_SET_STATUS64, &info);
	close(file);
	/* The descriptor stays open until the program's end: with it goes the device. */
	return number;
}

static void on_ext4(void)
{
	const char *dir = path_in(temporary_directory(), "ext4");
	const char *image = path_in(temporary_directory(), "image");
	struct quire_options o = { .swap_path = dir };
	char command[5000], device[32];
	int fd, number;

	if (!own_mounts) {
		note_skipped("a full ext4", "mounting needs root");
		return;
	}
	fd = open(image, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	MUST(fd >= 0 && ftruncate(fd, 8 * MIB) == 0);
	close(fd);
	snprintf(command, sizeof command,
	         "PATH=$PATH:/usr/sbin:/sbin; mkfs.ext4 -q -F -m 0 "
	         "-O ^has_journal %s >/dev/null 2>&1",
	         image);
	if (system(command)) {
		note_skipped("a full ext4", "mkfs.ext4 is not here");
		return;
	}
	MUST(mkdir(dir, 0700) == 0);
	number = loop_device(image);
	snprintf(device, sizeof device, "/dev/loop%d", number);
	if (number < 0 || mount(device, dir, "ext4", 0, NULL)) {
		note_skipped("a full ext4", "no loop device can be mounted here");
		return;
	}
	fill_up(&o, 8 * MIB);
	CHECK_EQ(umount(dir), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(by_limit), UNIT(on_tmpfs),
		                                  UNIT(on_full_tmpfs), UNIT(on_ext4), UNIT_END };

	temporary_directory();
	unsetenv("QUIRE_SWAP");
	own_mounts = unshare(CLONE_NEWNS) == 0 &&
	             mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	catch_install();
	return unit_main(argc, argv, "full", tests);
}
