/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_file.c - opening the swap file (swapfile/file.c): unnamed, named,
 * foreign, in use; bad places, full disks and limits.
 */
#include "base/error.h"
#include "swapfile/checksum.h"
#include "swapfile/header.h"
#include "tests/unit/swap_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- unnamed */

static void unnamed_leaves_nothing(void)
{
	struct swapfile *s;
	struct stat st;

	REQUIRE_EQ(open_at(&s, test_dir), 0);
	CHECK_EQ(entries(), 0);
	REQUIRE_EQ(fstat(s->file.fd, &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0600);
	CHECK_EQ(st.st_nlink, 0);
	CHECK(fcntl(s->file.fd, F_GETFD) & FD_CLOEXEC);
	CHECK(!(fcntl(s->file.fd, F_GETFL) & O_NONBLOCK));
	CHECK_EQ(!!(fcntl(s->file.fd, F_GETFL) & O_DIRECT), swapfile_is_direct(s));
	CHECK_STR(swapfile_io_name(s), "uring");
	swapfile_close(s);
	CHECK_EQ(entries(), 0);
}

static void unnamed_without_tmpfile(void)
{
	mode_t old = umask(0);
	struct stat st;
	int fd = file_create_unlinked(test_dir);

	umask(old);
	REQUIRE(fd >= 0);
	CHECK_EQ(entries(), 0);
	REQUIRE_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0600);
	CHECK_EQ(st.st_nlink, 0);
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	CHECK_EQ(file_create_unlinked(in_dir("missing")), -ENOENT);
}

static void write_file(const char *path, const void *bytes, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	REQUIRE(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
	close(fd);
}

static bool lies_in(struct swapfile *s, const char *directory)
{
	struct stat a, b;

	return fstat(s->file.fd, &a) == 0 && stat(directory, &b) == 0 && a.st_dev == b.st_dev;
}

static void default_directories(void)
{
	struct swapfile *s;

	setenv("TMPDIR", "/dev/shm", 1);
	REQUIRE_EQ(open_at(&s, NULL), 0);
	CHECK(lies_in(s, "/dev/shm"));
	swapfile_close(s);
	setenv("TMPDIR", in_dir("missing"), 1);
	REQUIRE_EQ(open_at(&s, NULL), 0);
	CHECK(lies_in(s, "/var/tmp"));
	swapfile_close(s);
	/* Not a directory: passed over, even if it is a swap file. */
	REQUIRE_EQ(open_at(&s, in_dir("file")), 0);
	swapfile_close(s);
	setenv("TMPDIR", in_dir("file"), 1);
	REQUIRE_EQ(open_at(&s, NULL), 0);
	CHECK(!s->file.named);
	swapfile_close(s);
	unlink(in_dir("file"));
	unsetenv("TMPDIR");
	REQUIRE_EQ(open_at(&s, NULL), 0);
	swapfile_close(s);
}

/* ---------------------------------------------------------------- named */

static size_t read_file(const char *path, void *bytes, size_t most)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, bytes, most);

	REQUIRE(n >= 0);
	close(fd);
	return (size_t)n;
}

static void named_is_made_and_used_again(void)
{
	static unsigned char a[8192], b[8192];
	const char *path = in_dir("swap");
	struct swapfile *s;
	struct stat st;
	slot_t first;
	void *pages = pages_new(8);

	REQUIRE_EQ(open_at(&s, path), 0);
	REQUIRE_EQ(stat(path, &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0600);
	CHECK(!(fcntl(s->file.fd, F_GETFL) & O_NONBLOCK));
	REQUIRE_EQ(swapfile_alloc(s, 8, &first), 8);
	CHECK(first > 0);
	CHECK_EQ(write_slots(s, first, 8, pages), 0);
	CHECK(slots_hold(s, first, 8, pages));
	swapfile_close(s);
	REQUIRE_EQ(read_file(path, a, sizeof a), PAGE_BYTES); /* nothing but the header is kept */

	/* What a killed process leaves: a long file with contents. */
	REQUIRE_EQ(truncate(path, 1 << 20), 0);
	REQUIRE_EQ(open_at(&s, path), 0);
	REQUIRE_EQ(stat(path, &st), 0);
	CHECK_EQ(st.st_size, PAGE_BYTES);
	REQUIRE_EQ(swapfile_alloc(s, 8, &first), 8);
	CHECK_EQ(write_slots(s, first, 8, pages), 0);
	CHECK(slots_hold(s, first, 8, pages));
	swapfile_close(s);
	REQUIRE_EQ(read_file(path, b, sizeof b), PAGE_BYTES);
	CHECK(memcmp(a + 16, b + 16, 16) != 0); /* another UUID */
	unlink(path);
	munmap(pages, 8 * PAGE_BYTES);
}

static void header_bytes(void)
{
	static const unsigned char start[16] = "QUIRESWP\1\0\0\0\0\20\0\0";
	static unsigned char p[PAGE_BYTES];
	uint64_t sum;

	header_fill(p);
	CHECK(header_fault(p) == NULL);
	CHECK(memcmp(p, start, 16) == 0);
	CHECK_EQ(p[22] >> 4, 4); /* a random UUID */
	for (unsigned i = 32; i < PAGE_BYTES - 8; i++)
		REQUIRE_EQ(p[i], 0);
	/* Any one bit changed is noticed. */
	for (unsigned bit = 0; bit < PAGE_BYTES * 8; bit += 7) {
		p[bit / 8] ^= (unsigned char)(1 << bit % 8);
		REQUIRE(header_fault(p) != NULL);
		p[bit / 8] ^= (unsigned char)(1 << bit % 8);
	}
	/* Good in itself, but of another version or page size. */
	p[8] = 2;
	sum = checksum_bytes(p, PAGE_BYTES - 8);
	memcpy(p + PAGE_BYTES - 8, &sum, 8);
	CHECK_STR(header_fault(p), "it is of another version of Quire");
	p[8] = 1, p[13] = 64;
	sum = checksum_bytes(p, PAGE_BYTES - 8);
	memcpy(p + PAGE_BYTES - 8, &sum, 8);
	CHECK_STR(header_fault(p), "it is of another page size");
}

/* Opening path is refused with -EBADF, and what is there stays as it is. */
static void check_untouched(const char *path, const char *words)
{
	static unsigned char before[70000], after[70000];
	size_t length = read_file(path, before, sizeof before);
	struct swapfile *s;
	struct stat a, b;

	REQUIRE_EQ(stat(path, &a), 0);
	CHECK_EQ(open_at(&s, path), -EBADF);
	CHECK(says(words));
	CHECK(says("left untouched"));
	REQUIRE_EQ(stat(path, &b), 0);
	CHECK_EQ(read_file(path, after, sizeof after), length);
	CHECK(memcmp(before, after, length) == 0);
	CHECK(a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec);
	CHECK(a.st_mode == b.st_mode && a.st_ino == b.st_ino && a.st_blocks == b.st_blocks);
}

static void foreign_files_stay_untouched(void)
{
	static unsigned char bytes[65536];
	const char *path = in_dir("foreign");

	write_file(path, "", 0);
	check_untouched(path, "too short");
	write_file(path, "hello\n", 6);
	check_untouched(path, "too short");
	memset(bytes, 'x', sizeof bytes);
	write_file(path, bytes, sizeof bytes);
	check_untouched(path, "not a swap file of Quire's");
	header_fill(bytes);
	bytes[2000] ^= 1;
	write_file(path, bytes, sizeof bytes);
	check_untouched(path, "damaged");
	bytes[2000] ^= 1;
	write_file(path, bytes, PAGE_BYTES - 1);
	check_untouched(path, "too short");
	unlink(path);
}

static int open_with_tiny_files(void)
{
	struct rlimit limit = { 100, 100 };
	struct swapfile *s;

	setrlimit(RLIMIT_FSIZE, &limit);
	return -open_at(&s, in_dir("swap"));
}

/* Opening a swap file of ours and failing half way leaves a swap file of ours. */
static void failure_keeps_the_header(void)
{
	struct swapfile *s;

	REQUIRE_EQ(open_at(&s, in_dir("swap")), 0);
	swapfile_close(s);
	CHECK_EQ(in_child(open_with_tiny_files), EFBIG);
	CHECK_EQ(open_at(&s, in_dir("swap")), 0);
	swapfile_close(s);
	unlink(in_dir("swap"));
}

static int open_busy(void)
{
	struct swapfile *s;

	return -open_at(&s, in_dir("busy"));
}

static void in_use_is_refused(void)
{
	const char *path = in_dir("busy");
	void *pages = pages_new(4);
	struct swapfile *s, *t;
	slot_t first;

	REQUIRE_EQ(open_at(&s, path), 0);
	REQUIRE_EQ(swapfile_alloc(s, 4, &first), 4);
	CHECK_EQ(write_slots(s, first, 4, pages), 0);
	CHECK_EQ(open_at(&t, path), -EBUSY); /* by this process */
	CHECK(says("in use"));
	CHECK_EQ(in_child(open_busy), EBUSY);
	CHECK(slots_hold(s, first, 4, pages));
	swapfile_close(s);
	CHECK_EQ(in_child(open_busy), 0);
	unlink(path);
	munmap(pages, 4 * PAGE_BYTES);
}

/* A foreign file that is locked as well is busy, and is not read first. */
static void lock_comes_before_reading(void)
{
	const char *path = in_dir("locked");
	struct swapfile *s;
	int fd;

	write_file(path, "hello\n", 6);
	fd = open(path, O_RDONLY);
	REQUIRE_EQ(flock(fd, LOCK_EX), 0);
	CHECK_EQ(open_at(&s, path), -EBUSY);
	close(fd);
	unlink(path);
}

static void links_and_other_files(void)
{
	const char *target = in_dir("target"), *link = in_dir("link");
	struct swapfile *s;
	struct stat st;

	REQUIRE_EQ(symlink(target, link), 0);
	CHECK_EQ(open_at(&s, link), -ENOENT);
	CHECK(says("symbolic link"));
	CHECK(stat(target, &st) != 0); /* nothing was made at the other end */
	REQUIRE_EQ(open_at(&s, target), 0);
	swapfile_close(s);
	CHECK_EQ(open_at(&s, link), 0); /* to a swap file: followed */
	swapfile_close(s);
	write_file(target, "hello\n", 6);
	check_untouched(link, "too short");
	unlink(target);
	unlink(link);

	REQUIRE_EQ(mkfifo(target, 0600), 0);
	CHECK_EQ(open_at(&s, target), -EBADF);
	CHECK(says("regular"));
	unlink(target);
	CHECK_EQ(open_at(&s, "/dev/zero"), -EBADF);
	REQUIRE_EQ(symlink("loop", in_dir("loop")), 0);
	CHECK_EQ(open_at(&s, in_dir("loop")), -ELOOP);
	unlink(in_dir("loop"));
	CHECK_EQ(entries(), 0);
}

/* ---------------------------------------------------------------- bad places */

static int open_as_nobody(void)
{
	struct swapfile *s;

	if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0)
		return 1;
	return open_at(&s, test_dir) == -EACCES && says("permission") &&
	                       open_at(&s, in_dir("new")) == -EACCES && says("permission") ?
	               0 :
	               2;
}

static void bad_places(void)
{
	struct swapfile *s;

	CHECK_EQ(open_at(&s, in_dir("no/such")), -ENOENT);
	CHECK(says("no such directory"));
	CHECK_EQ(open_at(&s, in_dir("slash/")), -ENOENT);
	CHECK(says("no such directory"));
	CHECK_EQ(open_at(&s, ""), -ENOENT);
	CHECK(says("empty"));
	write_file(in_dir("file"), "hello\n", 6);
	CHECK_EQ(open_at(&s, in_dir("file/swap")), -ENOTDIR);
	CHECK(says("not a directory"));
	unlink(in_dir("file"));
	if (geteuid() == 0)
		CHECK_EQ(in_child(open_as_nobody), 0);
	CHECK_EQ(entries(), 0);
}

/* Mount a tmpfs on our directory in a mount namespace of this child's own. */
static bool mount_tmpfs(unsigned long flags, const char *data)
{
	return unshare(CLONE_NEWNS) == 0 &&
	       mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("quire-test", test_dir, "tmpfs", flags, data) == 0;
}

static int open_read_only(void)
{
	struct swapfile *s;

	if (!mount_tmpfs(MS_RDONLY, "size=1m"))
		return 77;
	return open_at(&s, test_dir) == -EROFS && says("read-only") &&
	                       open_at(&s, in_dir("new")) == -EROFS && says("read-only") ?
	               0 :
	               1;
}

/* Fill the tmpfs to the last page. */
static int fill_disk(const char *path)
{
	static char page[4096];
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	while (write(fd, page, sizeof page) == (ssize_t)sizeof page)
		continue;
	close(fd);
	return 0;
}

static int open_full(void)
{
	struct swapfile *s;

	if (!mount_tmpfs(0, "size=256k"))
		return 77;
	fill_disk(in_dir("ballast"));
	if (open_at(&s, test_dir) != -ENOSPC || !says("no space"))
		return 1;
	if (open_at(&s, in_dir("new")) != -ENOSPC || !says("no space"))
		return 2;
	return access(in_dir("new"), F_OK) == 0 ? 3 : 0; /* F3 */
}

static void check_in_mount(int (*work)(void))
{
	int status = in_child(work);

	if (status == 77)
		printf("skipped: mounting a tmpfs is not permitted here\n");
	else
		CHECK_EQ(status, 0);
}

static void read_only_disk(void)
{
	check_in_mount(open_read_only);
}

static void full_disk_at_opening(void)
{
	check_in_mount(open_full);
}

/* A disk that fills up under a swap file, and is given room again. */
static int fill_while_swapping(void)
{
	static slot_t first[4096];
	static unsigned count[4096];
	void *pages = mmap(NULL, 64 * PAGE_BYTES, PROT_READ | PROT_WRITE,
	                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned runs = 0, total = 0;
	struct swapfile *s;
	slot_t more;

	if (!mount_tmpfs(0, "size=8m"))
		return 77;
	write_file(in_dir("ballast"), "", 0);
	if (truncate(in_dir("ballast"), 0) != 0 || open_at(&s, test_dir) != 0)
		return 1;
	{
		int fd = open(in_dir("ballast"), O_WRONLY);

		if (fallocate(fd, 0, 0, (3 << 20) + (1 << 19)) != 0)
			return 1;
		close(fd);
	}
	while ((count[runs] = swapfile_alloc(s, 64, &first[runs])) > 0) {
		if (write_slots(s, first[runs], count[runs], pages) != 0)
			return 2; /* what was given out has room */
		total += count[runs++];
	}
	/* Nearly all of 4.5 MiB, and the end is said again at once. */
	if (total < 1100 || total > 1152 || swapfile_alloc(s, 1, &more) != 0)
		return 3;
	for (unsigned i = 0; i < runs; i++)
		if (!slots_hold(s, first[i], count[i], pages))
			return 4;
	/* Freed slots can be had again, and written. */
	swapfile_unref_run(s, first[3], count[3]);
	if (swapfile_alloc(s, 64, &more) != count[3] || more != first[3])
		return 5;
	if (write_slots(s, more, count[3], pages) != 0)
		return 6;
	/* Room on the disk is noticed after a while. */
	unlink(in_dir("ballast"));
	usleep(150000);
	if (swapfile_alloc(s, 64, &more) != 64 || write_slots(s, more, 64, pages) != 0)
		return 7;
	for (unsigned i = 0; i < runs; i++)
		if (!slots_hold(s, first[i], count[i], pages))
			return 8;
	if (!swapfile_check(s))
		return 9;
	swapfile_close(s);
	return 0;
}

static void full_disk_while_swapping(void)
{
	check_in_mount(fill_while_swapping);
}

static int open_with_small_files(void)
{
	struct rlimit limit = { 40 * PAGE_BYTES, 40 * PAGE_BYTES };
	void *pages = mmap(NULL, 64 * PAGE_BYTES, PROT_READ | PROT_WRITE,
	                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct swapfile *s;
	slot_t first;

	setrlimit(RLIMIT_FSIZE, &limit);
	if (open_at(&s, test_dir) != 0)
		return 1;
	if (swapfile_alloc(s, 64, &first) != 39 || write_slots(s, first, 39, pages) != 0)
		return 2;
	return swapfile_alloc(s, 64, &first) == 0 ? 0 : 3;
}

/* ulimit -f: the limit is kept to; the kernel's answer would be a deadly signal. */
static void limit_on_files(void)
{
	CHECK_EQ(in_child(open_with_small_files), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(unnamed_leaves_nothing),
		UNIT(unnamed_without_tmpfile),
		UNIT(default_directories),
		UNIT(named_is_made_and_used_again),
		UNIT(header_bytes),
		UNIT(foreign_files_stay_untouched),
		UNIT(failure_keeps_the_header),
		UNIT(in_use_is_refused),
		UNIT(lock_comes_before_reading),
		UNIT(links_and_other_files),
		UNIT(bad_places),
		UNIT(read_only_disk),
		UNIT(full_disk_at_opening),
		UNIT(full_disk_while_swapping),
		UNIT(limit_on_files),
		UNIT_END,
	};

	return swap_main(argc, argv, "file", tests);
}
