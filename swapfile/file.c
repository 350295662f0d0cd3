/* SPDX-License-Identifier: MIT */
/*
 * swapfile/file.c - opening the swap file; see file.h.
 *
 * Unnamed: O_TMPFILE, or where the file system has none, a name that is
 * removed at once. Nothing is left behind whatever ends the process.
 *
 * Named: found by stat(2) before it is opened, for opening a FIFO or a device
 * can have effects of its own; then
 *   F1  it is locked before it is read or written;
 *   F2  a file that this call did not create is written only after its header
 *       was found good;
 *   F3  a file that this call created is removed if the call fails;
 *   F4  and has its name only from when its header is whole, where that can be had.
 *
 * Growth is by fallocate(2) in chunks: writes at depth into preallocated space
 * were measured 1.2 to 1.4 times as fast on ext4 as writes that extend the
 * file, and a full disk is noticed before there is content to lose.
 */
#include "swapfile/file.h"

#include "base/base.h"
#include "base/error.h"
#include "swapfile/header.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define CHUNK ((uint32_t)64 << 20)
/* What tmpfs preallocates is memory. */
#define CHUNK_TMPFS ((uint32_t)1 << 20)

/*
 * The kernel releases the file of a killed process only when its last request
 * of io_uring has ended, which is a moment after the process is gone: so a lock
 * that is held is tried again for half a second.
 */
static int lock_file(int fd)
{
	const struct timespec pause = { .tv_nsec = 10000000 };

	for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; tries++) {
		if (errno != EWOULDBLOCK || tries == 50)
			return -1;
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* ---------------------------------------------------------------- words */

/* Say in words why a path can't be used. => -error */
static int refuse(int error, const char *path)
{
	switch (error) {
	case ENOENT:
		return error_set(error, "swap path %s: no such directory", path);
	case ENOTDIR:
		return error_set(error, "swap path %s: a part of it is not a directory", path);
	case EACCES:
	case EPERM:
		return error_set(error, "swap path %s: permission to write there is missing", path);
	case EROFS:
		return error_set(error, "swap path %s: the file system is read-only", path);
	case ENOSPC:
	case EDQUOT:
		return error_set(ENOSPC, "swap path %s: no space left on the disk", path);
	case EBUSY:
		return error_set(error, "swap file %s is in use by another pager", path);
	default:
		return error_set(error, "swap path %s: %s", path, strerror(error));
	}
}

/*
 * The same of a directory that is there, but in which no file could be made.
 * What /proc and the like say to that is no help: no such file, or not permitted.
 */
static int refuse_directory(int error, const char *path)
{
	if ((error == ENOENT || error == EACCES || error == EPERM) &&
	    faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) == 0)
		return error_set(EACCES,
		                 "swap path %s: this directory's file system lets no file be "
		                 "made in it (%s)",
		                 path, strerror(error));
	return refuse(error, path);
}

static int refuse_foreign(const char *path, const char *why)
{
	return error_set(EBADF, "swap file %s: %s; it was left untouched", path, why);
}

/* ---------------------------------------------------------------- a page at offset 0 */

static int write_page(int fd, const void *page)
{
	ssize_t n;

	do
		n = pwrite(fd, page, PAGE_BYTES, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == (ssize_t)PAGE_BYTES ? 0 : -ENOSPC; /* short: what fitted the disk */
}

static int read_page(int fd, void *page)
{
	ssize_t n;

	do
		n = pread(fd, page, PAGE_BYTES, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == (ssize_t)PAGE_BYTES ? 0 : -ENODATA;
}

static int set_direct(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	/* O_NONBLOCK, set for opening, would make io_uring give up instead of waiting. */
	flags = (flags & ~(O_NONBLOCK | O_DIRECT)) | (on ? O_DIRECT : 0);
	return fcntl(fd, F_SETFL, flags) == 0 ? 0 : -errno;
}

/*
 * Write the header and read it back, past the page cache if the file system
 * can: that it accepts the flag says little, so the transfer decides.
 */
static int write_header(struct file *f)
{
	unsigned char *page = mmap(NULL, 2 * PAGE_BYTES, PROT_READ | PROT_WRITE,
	                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int error = -EINVAL;

	if (page == MAP_FAILED)
		return -ENOMEM;
	header_fill(page);
	for (int direct = 1; direct >= 0 && (error == -EINVAL || error == -EOPNOTSUPP); direct--) {
		error = set_direct(f->fd, direct);
		if (!error)
			error = write_page(f->fd, page);
		if (!error)
			error = read_page(f->fd, page + PAGE_BYTES);
		if (!error && memcmp(page, page + PAGE_BYTES, PAGE_BYTES) != 0)
			error = -EIO;
		f->direct = direct;
	}
	munmap(page, 2 * PAGE_BYTES);
	return error;
}

/* ---------------------------------------------------------------- unnamed */

int file_create_unlinked(const char *directory)
{
	char *path;
	int fd;

	if (asprintf(&path, "%s/quire-XXXXXX", directory) < 0)
		return -ENOMEM;
	fd = mkostemp(path, O_CLOEXEC); /* 0600 */
	if (fd < 0)
		fd = -errno;
	else
		unlink(path);
	free(path);
	return fd;
}

static int open_unnamed(const char *directory)
{
	int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0)
		return fd;
	/* Without O_TMPFILE: not supported, or from old kernels, "is a directory". */
	if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)
		return file_create_unlinked(directory);
	return -errno;
}

/* ---------------------------------------------------------------- named */

static void learn_limits(struct file *f)
{
	struct rlimit limit;
	struct statfs fs;

	f->size_max = INT64_MAX;
	/* Beyond it the process would be sent SIGXFSZ. */
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		f->size_max = MIN(f->size_max, (uint64_t)limit.rlim_cur);
	f->preallocate = true;
	f->chunk = fstatfs(f->fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC ? CHUNK_TMPFS : CHUNK;
}

/*
 * A new file, locked, that has its name only when it has its header: who is killed in between leaves
 * no file that would be taken for somebody else's. => descriptor, or -errno: it cannot be made
 * so (no O_TMPFILE, no /proc), or not at all
 */
static int create_whole(const char *path)
{
	const char *slash = strrchr(path, '/');
	char self[40], *directory = slash == path ? strdup("/") :
	                            slash         ? strndup(path, (size_t)(slash - path)) :
	                                            strdup(".");
	struct file f = { .fd = -1 };
	int error;

	if (!directory)
		return -ENOMEM;
	f.fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	error = f.fd < 0 ? -errno : 0;
	free(directory);
	if (error)
		return error;
	learn_limits(&f);
	error = f.size_max < PAGE_BYTES ? -EFBIG : write_header(&f);
	snprintf(self, sizeof self, "/proc/self/fd/%d", f.fd);
	if (!error && (flock(f.fd, LOCK_EX | LOCK_NB) != 0 ||
	               linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) != 0))
		error = -errno;
	if (error)
		close(f.fd);
	return error ? error : f.fd;
}

/* An existing regular file's descriptor, locked, its header good; or -errno with words set. */
static int adopt(int fd, const char *path)
{
	unsigned char page[PAGE_BYTES];
	const char *fault;
	struct stat st;
	int error;

	if (fstat(fd, &st) != 0)
		return refuse(errno, path);
	if (!S_ISREG(st.st_mode))
		return refuse_foreign(path, "it is not a regular file");
	if (lock_file(fd) != 0)
		return refuse(errno == EWOULDBLOCK ? EBUSY : errno, path);
	error = read_page(fd, page);
	if (error && error != -ENODATA)
		return refuse(-error, path);
	fault = error ? "it is too short for a swap file of Quire's" : header_fault(page);
	if (fault)
		return refuse_foreign(path, fault);
	/* Keeps the header: the file must remain ours even if this process stops here. */
	if (ftruncate(fd, PAGE_BYTES) != 0)
		return refuse(errno, path);
	return 0;
}

/* => descriptor, *created; or -errno with words set */
static int open_named(const char *path, const struct stat *st, bool *created)
{
	int flags = O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int fd, error;

	*created = !st;
	if (st && !S_ISREG(st->st_mode))
		return refuse_foreign(path, "it is not a regular file");
	if (!st && (fd = create_whole(path)) >= 0)
		return fd;
	fd = open(path, st ? flags : flags | O_CREAT | O_EXCL, 0600);
	if (fd < 0 && !st && errno == EEXIST)
		return error_set(ENOENT, "swap path %s: a symbolic link that leads nowhere", path);
	if (fd < 0 && errno == EISDIR) /* a new name that ends in a slash */
		return refuse(ENOENT, path);
	if (fd < 0)
		return refuse(errno, path);
	if (*created) {
		error = flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : refuse(EBUSY, path);
		if (error) /* another process is looking at it, and will refuse it: it is empty */
			unlink(path);
	} else {
		error = adopt(fd, path);
	}
	if (error)
		close(fd);
	return error ? error : fd;
}

/* ---------------------------------------------------------------- opening */

/* Not one of the standard streams: a program that had closed them would print into the file. */
static int above_standard(int fd)
{
	int high;

	if (fd > STDERR_FILENO)
		return fd;
	high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (high < 0)
		high = -errno;
	close(fd);
	return high;
}

static int open_path(struct file *f, const char *path)
{
	struct stat st, *found = NULL;
	bool created = false;
	int error;

	*f = (struct file){ .fd = -1 };
	if (!*path)
		return error_set(ENOENT, "swap path is empty");
	if (stat(path, &st) == 0)
		found = &st;
	else if (errno != ENOENT)
		return refuse(errno, path);

	f->named = !found || !S_ISDIR(st.st_mode);
	if (f->named) {
		f->fd = open_named(path, found, &created);
		if (f->fd < 0)
			return f->fd;
	} else {
		f->fd = open_unnamed(path);
		if (f->fd < 0)
			return refuse_directory(-f->fd, path);
	}
	f->fd = above_standard(f->fd);
	error = f->fd < 0 ? f->fd : 0;
	if (!error) {
		learn_limits(f);
		error = f->size_max < PAGE_BYTES ? -EFBIG : write_header(f);
	}
	if (error) {
		if (created)
			unlink(path);
		if (f->fd >= 0)
			close(f->fd);
		f->fd = -1;
		return refuse(-error, path);
	}
	return 0;
}

int file_open(struct file *f, const char *path)
{
	const char *const places[] = { secure_getenv("TMPDIR"), "/var/tmp", "/tmp" };
	int error = -ENOENT;

	if (path)
		return open_path(f, path);
	for (unsigned i = 0; i < ARRAY_LENGTH(places); i++) {
		struct stat st;

		if (!places[i] || stat(places[i], &st) != 0 || !S_ISDIR(st.st_mode))
			continue;
		error = open_path(f, places[i]);
		if (!error)
			return 0;
	}
	if (error == -ENOENT)
		return error_set(ENOENT, "no directory for the swap file: none of $TMPDIR, "
		                         "/var/tmp and /tmp is there");
	return error; /* words: of the last that was tried */
}

void file_close(struct file *f)
{
	if (f->fd < 0)
		return;
	if (f->named && ftruncate(f->fd, PAGE_BYTES) != 0) {
		/* The next to use it truncates it. */
	}
	close(f->fd);
	f->fd = -1;
}

/* ---------------------------------------------------------------- growing */

int file_grow(struct file *f, uint64_t from, uint64_t to)
{
	int saved = errno, result;

	do {
		if (f->preallocate)
			result = fallocate(f->fd, 0, (off_t)from, (off_t)(to - from));
		else
			result = ftruncate(f->fd, (off_t)to);
		if (result != 0 && f->preallocate && (errno == EOPNOTSUPP || errno == ENOSYS)) {
			f->preallocate = false; /* space is then found when it is written */
			errno = EINTR;
		}
	} while (result != 0 && errno == EINTR);
	result = result == 0 ? 0 : errno == EDQUOT ? -ENOSPC : -errno;
	errno = saved;
	return result;
}
