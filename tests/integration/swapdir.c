/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/swapdir.c - bad swap directories and files: missing,
 * read-only, forbidden, foreign, in use. What a full one does is in full.c.
 *
 * Mounts are made in a mount namespace of the program's own and vanish with it.
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

static bool own_mounts;

static int opens(const char *path)
{
	struct quire_options o = { .size = sizeof o, .memory = MIB, .swap_path = path };
	quire_t *q = NULL;
	int r = quire_open(&q, &o);

	if (r == -ENOTSUP)
		unit_skip_all(quire_error_message());
	if (r == 0)
		MUST(quire_close(q) == 0);
	return r;
}

static const char *in_dir(const char *name)
{
	return path_in(temporary_directory(), name);
}

/* The refusal's error, and words that name the path and the true reason. */
static void refuses(const char *path, int error, const char *reason)
{
	CHECK_EQ(opens(path), -error);
	CHECK(contains(quire_error_message(), path));
	CHECK(contains(quire_error_message(), reason));
}

static void missing(void)
{
	refuses("/nowhere/at/all", ENOENT, "no such directory");
	refuses(in_dir("no/such/file"), ENOENT, "no such directory");
	refuses("/dev/null/under", ENOTDIR, "not a directory");
	setenv("QUIRE_SWAP", "/nowhere/by/environment", 1);
	CHECK_EQ(opens(NULL), -ENOENT);
	CHECK(contains(quire_error_message(), "/nowhere/by/environment"));
	unsetenv("QUIRE_SWAP");
}

static void read_only(void)
{
	const char *dir = in_dir("ro");

	if (!own_mounts) {
		note_skipped("a read-only swap directory", "mounting needs root");
		return;
	}
	MUST(mkdir(dir, 0700) == 0);
	REQUIRE(mount("none", dir, "tmpfs", MS_RDONLY, "size=1m") == 0);
	refuses(dir, EROFS, "read-only");
	refuses(path_in(dir, "file"), EROFS, "read-only");
	umount(dir);
}

/* Directories that are there, even writable by their mode, and take no files. */
static void no_place_for_files(void)
{
	static const struct {
		const char *dir;
		long type;
	} dirs[] = { { "/proc", PROC_SUPER_MAGIC }, { "/sys", SYSFS_MAGIC } };
	struct statfs fs;

	for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
		if (statfs(dirs[i].dir, &fs) || fs.f_type != dirs[i].type ||
		    access(dirs[i].dir, W_OK | X_OK))
			note_skipped(dirs[i].dir, "not mounted, or not for this user");
		else
			refuses(dirs[i].dir, EACCES, "lets no file be made in it");
	}
}

static void as_nobody(void *dir)
{
	struct quire_options o = { .size = sizeof o, .memory = MIB, .swap_path = dir };
	quire_t *q = NULL;
	int r;

	MUST(setgid(65534) == 0 && setuid(65534) == 0);
	r = quire_open(&q, &o);
	if (r == -ENOTSUP)
		_exit(77);
	MUST(r == -EACCES);
	MUST(contains(quire_error_message(), dir));
	MUST(contains(quire_error_message(), "permission"));
}

static void forbidden(void)
{
	const char *dir = in_dir("forbidden");
	int status;

	if (geteuid() != 0) {
		note_skipped("a swap directory of another user", "needs root");
		return;
	}
	MUST(mkdir(dir, 0700) == 0);
	/* Itself, and a file in it: it is not theirs to write, nor to look into. */
	for (int i = 0; i < 3; i++) {
		const char *path = i == 1 ? path_in(dir, "file") : dir;

		MUST(chmod(temporary_directory(), 0755) == 0);
		MUST(chmod(dir, i == 2 ? 0755 : 0700) == 0);
		status = in_child(as_nobody, (void *)path, 5);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
			note_skipped("a swap directory of another user", "no engine for that user");
			return;
		}
		CHECK_EQ(status, 0);
	}
}

/* An unnamed swap file shows nothing and leaves nothing. */
static void unnamed(void)
{
	const char *dir = in_dir("unnamed");
	struct quire_options o = { .size = sizeof o, .memory = QUIRE_MEMORY_MIN, .swap_path = dir };
	quire_region_t *r;
	quire_t *q;

	MUST(mkdir(dir, 0700) == 0);
	q = pager_open_options(&o);
	r = region_create(q, 4 * MIB);
	fill(r, 0, 1024, 1);
	CHECK(pager_stats(q).pages_out > 0);
	CHECK_EQ(entries(dir), 0);
	CHECK_EQ(wrong(r, 0, 1024, 1), 0);
	CHECK_EQ(quire_close(q), 0);
	CHECK_EQ(entries(dir), 0);
	CHECK_EQ(rmdir(dir), 0);
}

static void tmpfs(void)
{
	struct quire_options o = { .size = sizeof o, .memory = MIB, .swap_path = "/dev/shm" };
	quire_region_t *r;
	quire_t *q;

	if (access("/dev/shm", W_OK)) {
		note_skipped("a swap directory on tmpfs", "/dev/shm is not writable");
		return;
	}
	q = pager_open_options(&o);
	r = region_create(q, 8 * MIB);
	fill(r, 0, 2048, 1);
	CHECK_EQ(wrong(r, 0, 2048, 1), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void named(void)
{
	const char *path = in_dir("mine.swap");
	struct quire_options o = { .size = sizeof o,
		                   .memory = QUIRE_MEMORY_MIN,
		                   .swap_path = path };
	struct stat st;

	for (unsigned round = 0; round < 3; round++) { /* made, then used again */
		quire_t *q = pager_open_options(&o);
		quire_region_t *r = region_create(q, 4 * MIB);

		CHECK_EQ(nonzero(r, 0, 64), 0); /* nothing of the last time */
		fill(r, 0, 1024, round);
		CHECK_EQ(stat(path, &st), 0);
		CHECK_EQ(st.st_mode & 0777, 0600);
		CHECK(st.st_size >= (off_t)(2 * MIB));
		CHECK_EQ(wrong(r, 0, 1024, round), 0);
		CHECK_EQ(quire_close(q), 0);
	}
}

/* A file that is not Quire's is left as it was, to the byte and the time stamp. */
static void refuse_file(const char *name, const char *bytes, size_t length)
{
	const char *path = in_dir(name);
	char *now = malloc(length + 1);
	struct stat before, after;
	int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	int r;

	MUST(now && fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
	MUST(fstat(fd, &before) == 0);
	r = opens(path);
	if (r != -EBADF)
		printf("%s: %d %s\n", name, r, r ? quire_error_message() : "");
	CHECK_EQ(r, -EBADF);
	CHECK(contains(quire_error_message(), path));
	MUST(fstat(fd, &after) == 0);
	CHECK_EQ(after.st_size, before.st_size);
	CHECK_EQ(after.st_mode, before.st_mode);
	CHECK_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
	CHECK_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
	CHECK_EQ(pread(fd, now, length + 1, 0), length);
	CHECK(memcmp(now, bytes, length) == 0);
	free(now);
	close(fd);
}

static void foreign(void)
{
	static char big[256 * 1024];
	const char *path;
	int fd;

	for (size_t i = 0; i < sizeof big; i++)
		big[i] = (char)(i * 31);
	refuse_file("letter", "Dear reader,\n", 13);
	refuse_file("one", "x", 1);
	refuse_file("big", big, sizeof big);
	memset(big, 0, sizeof big);
	refuse_file("zeros", big, sizeof big);
	refuse_file("page", big, PAGE);
	/* A real one with a damaged header, or cut short. */
	path = in_dir("once.swap");
	CHECK_EQ(opens(path), 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	MUST(fd >= 0 && pread(fd, big, PAGE, 0) == (ssize_t)PAGE);
	close(fd);
	big[0] ^= 1;
	refuse_file("magic", big, PAGE);
	big[0] ^= 1;
	refuse_file("short", big, 32);
	/* Things that are no files at all. */
	MUST(mkfifo(in_dir("fifo"), 0600) == 0);
	CHECK(opens(in_dir("fifo")) < 0);
	CHECK(opens("/dev/null") < 0);
	MUST(symlink("nowhere", in_dir("dangling")) == 0);
	(void)opens(in_dir("dangling")); /* either answer will do, but it comes */
}

struct holder {
	const char *path;
	int ready[2];
};

static void hold(void *arg)
{
	struct holder *h = arg;
	struct quire_options o = { .size = sizeof o, .memory = MIB, .swap_path = h->path };
	quire_t *q = pager_open_options(&o);
	quire_region_t *r = region_create(q, 8 * MIB);

	fill(r, 0, 2048, 1);
	MUST(write(h->ready[1], "x", 1) == 1);
	for (;;)
		MUST(wrong(r, 0, 2048, 1) == 0);
}

/* In use by another process, and free again as soon as that is gone. */
static void in_use(void)
{
	struct holder h = { .path = in_dir("held.swap") };
	struct quire_options o = { .size = sizeof o, .memory = MIB, .swap_path = h.path };
	quire_t *q = NULL;
	char c;
	pid_t pid;
	int status;

	MUST(pipe(h.ready) == 0);
	fflush(NULL);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		hold(&h);
		_exit(0);
	}
	MUST(read(h.ready[0], &c, 1) == 1);
	for (int i = 0; i < 5; i++)
		CHECK_EQ(opens(h.path), -EBUSY);
	CHECK(contains(quire_error_message(), h.path));
	CHECK_EQ(waitpid(pid, &status, WNOHANG), 0); /* its memory has stayed right */
	sleep_seconds(0.1);
	CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
	MUST(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	CHECK_EQ(opens(h.path), 0);
	/* Nor may two pagers of one process share a file. */
	q = pager_open_options(&o);
	CHECK_EQ(opens(h.path), -EBUSY);
	CHECK_EQ(quire_close(q), 0);
	CHECK_EQ(opens(h.path), 0);
	close(h.ready[0]);
	close(h.ready[1]);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(missing),   UNIT(read_only), UNIT(no_place_for_files),
		UNIT(forbidden), UNIT(unnamed),   UNIT(tmpfs),
		UNIT(named),     UNIT(foreign),   UNIT(in_use),
		UNIT_END,
	};

	temporary_directory();
	unsetenv("QUIRE_SWAP");
	own_mounts = unshare(CLONE_NEWNS) == 0 &&
	             mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	return unit_main(argc, argv, "swapdir", tests);
}
