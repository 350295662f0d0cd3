/* SPDX-License-Identifier: MIT */
/*
 * bench/raw.c - what the disk itself can do.
 *
 * A file of the region's size, in the directory that the swap files are in,
 * written whole with noise, opened with O_DIRECT. It has no name, so it is gone
 * when the benchmark is, however it ends. Depth 1 is pread(2) in a loop, the
 * least that one miss can cost; deeper queues are io_uring.
 * Neighbours: work.c lists the job, swap.c uses write_noise too.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK MIB
#define DEPTH_MAX 32

static int file = -1;
static bool direct;

/* noise(): page aligned bytes that do not compress. => NULL: no memory */
static uint64_t *noise(size_t size)
{
	uint64_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	for (size_t i = 0; i < size / sizeof *p; i++)
		p[i] = mix(i ^ 0x5555555555555555u);
	return p;
}

int write_noise(int fd, size_t size)
{
	uint64_t *buffer = noise(CHUNK);
	int err = buffer ? 0 : -ENOMEM;

	for (size_t at = 0; at < size && !err;) {
		size_t want = size - at < CHUNK ? size - at : CHUNK;

		buffer[0] = mix(at); /* no two chunks are the same */
		ssize_t n = pwrite(fd, buffer, want, (off_t)at);
		if (interrupted)
			err = -EINTR;
		else if (n > 0)
			at += (size_t)n;
		else if (n == 0 || errno != EINTR)
			err = n == 0 ? -ENOSPC : -errno;
	}
	if (buffer)
		munmap(buffer, CHUNK);
	if (!err && fsync(fd))
		err = -errno;
	return err;
}

static int open_unnamed(const char *dir, int flags)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd;
	char path[4096];
	snprintf(path, sizeof path, "%s/quire-bench-XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC | flags);
	if (fd >= 0)
		unlink(path);
	return fd;
}

int raw_open(const struct settings *s)
{
	direct = true;
	file = open_unnamed(s->dir, O_DIRECT);
	if (file < 0) {
		direct = false;
		file = open_unnamed(s->dir, 0);
	}
	return file < 0 ? -errno : write_noise(file, s->region);
}

bool raw_is_direct(void)
{
	return direct;
}

static uint64_t next_offset(uint64_t *rng, size_t size)
{
	return below(rng, size / PAGE) * PAGE;
}

/* Thousand random 4 KiB reads a second, one at a time. */
static double depth_1(size_t size, double seconds, char *buffer, uint64_t *rng)
{
	double start = now(), took;
	unsigned long n = 0;

	do {
		ssize_t got = pread(file, buffer, PAGE, (off_t)next_offset(rng, size));

		if (got != (ssize_t)PAGE)
			give_up(OUT_FAILED, "pread: %s", got < 0 ? strerror(errno) : "short");
		n++;
		took = now() - start;
	} while (took < seconds);
	return (double)n / took / 1e3;
}

static void reap(struct io_uring *ring, size_t length, struct io_uring_cqe **cqe)
{
	int err = io_uring_wait_cqe(ring, cqe);

	if (err)
		give_up(OUT_FAILED, "io_uring_wait_cqe: %s", strerror(-err));
	if ((*cqe)->res != (int)length)
		give_up(OUT_FAILED, "io_uring transfer: %s",
		        (*cqe)->res < 0 ? strerror(-(*cqe)->res) : "short");
}

/* Thousand random 4 KiB reads a second with depth of them in flight. */
static double deep(struct io_uring *ring, size_t size, unsigned depth, double seconds, char *buffer,
                   uint64_t *rng)
{
	double start = now(), took;
	unsigned long n = 0;
	unsigned in_flight = 0, at[DEPTH_MAX], spare = depth;

	for (unsigned i = 0; i < depth; i++)
		at[i] = i;
	do {
		while (spare) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
			unsigned i = at[--spare];

			io_uring_prep_read(sqe, file, buffer + i * PAGE, PAGE,
			                   next_offset(rng, size));
			io_uring_sqe_set_data64(sqe, i);
			in_flight++;
		}
		int err = io_uring_submit_and_wait(ring, 1);
		if (err < 0)
			give_up(OUT_FAILED, "io_uring_submit: %s", strerror(-err));
		struct io_uring_cqe *cqe;
		do {
			reap(ring, PAGE, &cqe);
			at[spare++] = (unsigned)io_uring_cqe_get_data64(cqe);
			io_uring_cqe_seen(ring, cqe);
			in_flight--;
			n++;
		} while (io_uring_cq_ready(ring));
		took = now() - start;
	} while (took < seconds);
	for (; in_flight; in_flight--) {
		struct io_uring_cqe *cqe;

		reap(ring, PAGE, &cqe);
		io_uring_cqe_seen(ring, cqe);
	}
	return (double)n / took / 1e3;
}

/* MB/s over the whole file in order, four requests of 1 MiB in flight. */
static double sequential(struct io_uring *ring, size_t size, bool write, char *buffer)
{
	double start = now();
	unsigned in_flight = 0;

	for (size_t at = 0; at < size || in_flight;) {
		while (at < size && in_flight < 4) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
			char *b = buffer + (at / CHUNK % 4) * CHUNK;

			if (write)
				io_uring_prep_write(sqe, file, b, CHUNK, at);
			else
				io_uring_prep_read(sqe, file, b, CHUNK, at);
			at += CHUNK;
			in_flight++;
		}
		int err = io_uring_submit_and_wait(ring, 1);
		if (err < 0)
			give_up(OUT_FAILED, "io_uring_submit: %s", strerror(-err));
		struct io_uring_cqe *cqe;
		reap(ring, CHUNK, &cqe);
		io_uring_cqe_seen(ring, cqe);
		in_flight--;
	}
	return (double)size / 1e6 / (now() - start);
}

/* What each raw job begins with. */
static char *begin(const struct settings *s, size_t *size, struct io_uring *ring)
{
	char *buffer = (char *)noise(4 * CHUNK);

	if (!buffer)
		give_up(OUT_FAILED, "no memory");
	*size = s->region / CHUNK * CHUNK;
	int err = ring ? io_uring_queue_init(DEPTH_MAX, ring, 0) : 0;
	if (err)
		give_up(OUT_FAILED, "io_uring_queue_init: %s", strerror(-err));
	return buffer;
}

void raw_depth_1(const struct settings *s)
{
	uint64_t rng = 88172645463325252u;
	size_t size;
	char *buffer = begin(s, &size, NULL);

	yield_figure(F_READ_1_MISS, depth_1(size, s->seconds, buffer, &rng));
}

void raw_deep(const struct settings *s)
{
	uint64_t rng = 88172645463325252u;
	struct io_uring ring;
	size_t size;
	char *buffer = begin(s, &size, &ring);

	yield_figure(F_READ_N_MISS, deep(&ring, size, 8, s->seconds / 2, buffer, &rng));
	yield_figure(F_DEPTH_32, deep(&ring, size, 32, s->seconds / 2, buffer, &rng));
	io_uring_queue_exit(&ring);
}

void raw_sequential(const struct settings *s)
{
	struct io_uring ring;
	size_t size;
	char *buffer = begin(s, &size, &ring);

	yield_figure(F_SCAN_READ, sequential(&ring, size, false, buffer));
	yield_figure(F_FILL, sequential(&ring, size, true, buffer));
	io_uring_queue_exit(&ring);
}
