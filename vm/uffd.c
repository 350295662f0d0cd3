/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd.c - the primitives of userfaultfd, for both of its engines.
 *
 * Pages come in by UFFDIO_COPY, whole and write-protected if they are clean,
 * and go out by uffd_take (uffd_take.c, uffd_move.c). What the kernel has beyond Linux 5.7
 * is probed on a throw-away descriptor, never inferred from a version.
 */
#include "vm/uffd.h"

#include "base/error.h"
#include "base/kernel.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEEDED UFFD_FEATURE_PAGEFAULT_FLAG_WP
#define NEEDED_THREAD UFFD_FEATURE_THREAD_ID
#define NEEDED_SIGNAL UFFD_FEATURE_SIGBUS
#define WANTED ((uint64_t)UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON | UFFD_FEATURE_EXACT_ADDRESS)

static int by_device(int flags, int *why)
{
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd = -1;

	*why = errno;
	if (device >= 0) {
		fd = ioctl(device, USERFAULTFD_IOC_NEW, flags);
		*why = fd < 0 ? errno : 0;
		close(device);
	}
	return fd;
}

static int by_call(int flags, int *why)
{
	int fd = (int)syscall(SYS_userfaultfd, flags);

	*why = fd < 0 ? errno : 0;
	return fd;
}

static int new_descriptor(int flags, int *why)
{
	int fd = by_device(flags, why);

	return fd < 0 ? by_call(flags, why) : fd;
}

static int descriptor(bool in_thread, int *why)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	int fd = new_descriptor(flags, why);

	/* Faults of the kernel's are of no use to an engine that answers by a signal. */
	if (fd < 0 && in_thread)
		fd = new_descriptor(flags | UFFD_USER_MODE_ONLY, why);
	return fd;
}

static int handshake(int fd, uint64_t features, uint64_t *offered)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	if (ioctl(fd, UFFDIO_API, &api) != 0)
		return -errno;
	*offered = api.features;
	return 0;
}

void uffd_probe(struct quire_probe *out)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	int fd[] = { by_device(flags, &out->uffd_device), by_call(flags, &out->uffd_call),
		     by_call(flags | UFFD_USER_MODE_ONLY, &out->uffd_user) };
	uint64_t offered = 0;

	for (unsigned i = 0; i < ARRAY_LENGTH(fd); i++) {
		if (fd[i] < 0)
			continue;
		if (offered == 0)
			handshake(fd[i], 0, &offered);
		close(fd[i]);
	}
	out->uffd_write_protect = offered & UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	out->uffd_signal = offered & UFFD_FEATURE_SIGBUS;
	out->uffd_thread_id = offered & UFFD_FEATURE_THREAD_ID;
	out->uffd_move = offered & UFFD_FEATURE_MOVE;
	out->uffd_poison = offered & UFFD_FEATURE_POISON;
}

/* process_madvise(2) on ourselves with a destructive advice: Linux 6.13. */
static bool probe_vector_drop(int pidfd)
{
	char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
	                  0);
	struct iovec v = { .iov_base = page, .iov_len = PAGE_BYTES };
	bool works;

	if (page == MAP_FAILED)
		return false;
	*page = 1;
	works = pidfd >= 0 &&
	        syscall(SYS_process_madvise, pidfd, &v, 1, MADV_DONTNEED, 0) == (long)PAGE_BYTES &&
	        *page == 0;
	munmap(page, PAGE_BYTES);
	return works;
}

/* Why there is no descriptor, and what would change that. For faults of the program's alone no privilege is needed. */
static int refuse(bool in_thread, int why)
{
	if (why == ENOSYS)
		return error_set(ENOTSUP, "userfaultfd is not in this kernel, or a container's "
		                          "seccomp profile hides it");
	if (why == EPERM && in_thread)
		return error_set(ENOTSUP, "userfaultfd is forbidden here, by a container's seccomp "
		                          "profile or the like");
	return error_set(ENOTSUP,
	                 "userfaultfd: %s (needs access to /dev/userfaultfd, CAP_SYS_PTRACE, or "
	                 "vm.unprivileged_userfaultfd=1)",
	                 strerror(why));
}

int uffd_descriptor(struct engine *e)
{
	struct uffd_state *u = &e->uffd;
	uint64_t offered;
	int why = 0, error;

	u->fd = descriptor(u->features & NEEDED_SIGNAL, &why);
	if (u->fd < 0)
		return -why;
	error = handshake(u->fd, u->features, &offered);
	if (error) {
		close(u->fd);
		u->fd = -1;
	}
	return error;
}

void uffd_open_memory(struct engine *e)
{
	struct uffd_state *u = &e->uffd;
	char byte;

	u->memory = e->ops->in_thread ? -1 : open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	if (u->memory >= 0 && pread(u->memory, &byte, 1, (off_t)(uintptr_t)u->zeros) != 1) {
		close(u->memory);
		u->memory = -1;
	}
	e->save_waits = !e->ops->in_thread && u->memory < 0;
}

int uffd_open(struct engine *e, bool in_thread)
{
	struct uffd_state *u = &e->uffd;
	uint64_t needed = NEEDED | (in_thread ? NEEDED_SIGNAL : NEEDED_THREAD), offered = 0;
	int why = 0, fd = descriptor(in_thread, &why), error;

	lock_init(&u->reading_lock, RANK_ENGINE);
	u->fd = u->pidfd = u->memory = -1;
	if (fd < 0)
		return refuse(in_thread, why);
	error = handshake(fd, 0, &offered);
	close(fd);
	if (error || (offered & needed) != needed)
		return error_set(ENOTSUP, "userfaultfd of this kernel lacks %s",
		                 in_thread ? "write-protection or SIGBUS delivery" :
		                             "write-protection or thread numbers");
	u->features = needed | (offered & WANTED);
	if (uffd_descriptor(e) != 0) {
		uffd_close(e);
		return error_set(ENOTSUP, "userfaultfd: the handshake failed");
	}
	u->move = (u->features & UFFD_FEATURE_MOVE) && e->q->use_move;
	u->poison = u->features & UFFD_FEATURE_POISON;
	u->pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	u->vector_drop = probe_vector_drop(u->pidfd);
	u->zeros = mmap(NULL, CLUSTER_PAGES * PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS,
	                -1, 0);
	if (u->zeros == MAP_FAILED) {
		u->zeros = NULL;
		arena_refused("quire zeros", CLUSTER_PAGES * PAGE_BYTES);
		uffd_close(e);
		return -ENOMEM;
	}
	uffd_open_memory(e);
	return 0;
}

void uffd_close(struct engine *e)
{
	struct uffd_state *u = &e->uffd;

	if (u->fd >= 0)
		close(u->fd);
	if (u->pidfd >= 0)
		close(u->pidfd);
	if (u->memory >= 0)
		close(u->memory);
	if (u->zeros)
		munmap(u->zeros, CLUSTER_PAGES * PAGE_BYTES);
	lock_init(&u->reading_lock, RANK_ENGINE);
	u->fd = u->pidfd = u->memory = -1;
	u->zeros = NULL;
}

static int attach(struct engine *e, char *base, size_t bytes, uint64_t mode)
{
	struct uffdio_register r = {
		.range = { .start = (uintptr_t)base, .len = bytes },
		.mode = mode,
	};

	return ioctl(e->uffd.fd, UFFDIO_REGISTER, &r) == 0 ? 0 : -errno;
}

int uffd_attach(struct engine *e, struct quire_region *r, char *base, size_t bytes)
{
	(void)r;
	return attach(e, base, bytes, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
}

/* UFFDIO_MOVE wants its target registered; with WP alone the kernel fills missing pages itself. */
int uffd_attach_buffers(struct engine *e, char *base, size_t bytes)
{
	return e->uffd.move ? attach(e, base, bytes, UFFDIO_REGISTER_MODE_WP) : 0;
}

void uffd_detach(struct engine *e, struct quire_region *r, char *base, size_t bytes)
{
	struct uffdio_range range = { .start = (uintptr_t)base, .len = bytes };

	(void)r;
	ioctl(e->uffd.fd, UFFDIO_UNREGISTER, &range);
}

/* EAGAIN: the address space is changing under the call; it has done nothing, or a part. */
static bool again(int error)
{
	if (error != EAGAIN)
		return false;
	sched_yield();
	return true;
}

/*
 * UFFDIO_COPY and UFFDIO_ZEROPAGE refuse (ENOENT) a range that crosses from one
 * kernel mapping into the next, as where the program protected a part of its
 * region. Then a half is tried, down to single pages.
 */
struct fill {
	int (*part)(struct engine *e, uintptr_t page, uintptr_t from, size_t bytes, uint64_t mode,
	            int64_t *done);
	uintptr_t page, from; /* from 0: zeros */
	uint64_t mode;
};

static int copy_part(struct engine *e, uintptr_t page, uintptr_t from, size_t bytes, uint64_t mode,
                     int64_t *done)
{
	struct uffdio_copy c = { .dst = page, .src = from, .len = bytes, .mode = mode };
	int error = ioctl(e->uffd.fd, UFFDIO_COPY, &c) == 0 ? 0 : errno;

	*done = c.copy;
	return error;
}

static int zero_part(struct engine *e, uintptr_t page, uintptr_t from, size_t bytes, uint64_t mode,
                     int64_t *done)
{
	struct uffdio_zeropage z = { .range = { .start = page, .len = bytes }, .mode = mode };
	int error = ioctl(e->uffd.fd, UFFDIO_ZEROPAGE, &z) == 0 ? 0 : errno;

	(void)from;
	*done = z.zeropage;
	return error;
}

/* => pages filled, or -errno if the first could not be */
static int fill(struct engine *e, const struct fill *f, unsigned n)
{
	size_t bytes = (size_t)n << PAGE_SHIFT, done = 0, part = bytes;

	while (done < bytes) {
		int64_t now = 0;
		size_t length = MIN(part, bytes - done);
		int error = f->part(e, f->page + done, f->from ? f->from + done : 0, length,
		                    f->mode, &now);

		if (error == 0)
			done += length;
		else if (now > 0)
			done += (size_t)now;
		else if (error == ENOENT && length > PAGE_BYTES)
			part = round_up(length / 2, PAGE_BYTES);
		else if (!again(error))
			return done ? (int)(done >> PAGE_SHIFT) : -error;
	}
	return (int)n;
}

int uffd_map(struct engine *e, struct quire_region *r, char *page, const char *from, unsigned n,
             bool writable)
{
	struct fill f = { copy_part, (uintptr_t)page, (uintptr_t)from,
		          writable ? 0 : UFFDIO_COPY_MODE_WP };

	(void)r;
	return fill(e, &f, n);
}

int uffd_map_zero(struct engine *e, struct quire_region *r, char *page, unsigned n, bool write)
{
	struct fill f = { zero_part, (uintptr_t)page, 0, 0 };

	/*
	 * The shared zero page is cheap, but the write that follows replaces it at
	 * the price of a TLB shootdown; pages about to be written get their own.
	 */
	return write ? uffd_map(e, r, page, e->uffd.zeros, n, true) : fill(e, &f, n);
}

int uffd_protection(struct engine *e, char *page, size_t n, bool protect)
{
	struct uffdio_writeprotect w = {
		.range = { .start = (uintptr_t)page, .len = n << PAGE_SHIFT },
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	while (ioctl(e->uffd.fd, UFFDIO_WRITEPROTECT, &w) != 0) {
		int error = errno;

		if (!again(error))
			return -error;
	}
	return 0;
}

/* Older kernels refuse a range that is not one mapping: then a half at a time. */
int uffd_protect_all(struct engine *e, struct quire_region *r, char *page, size_t n)
{
	int error = uffd_protection(e, page, n, true);

	if (error != -ENOENT || n == 1)
		return error;
	error = uffd_protect_all(e, r, page, n / 2);
	return error ? error : uffd_protect_all(e, r, page + ((n / 2) << PAGE_SHIFT), n - n / 2);
}

int uffd_unprotect(struct engine *e, struct quire_region *r, char *page, unsigned n)
{
	int error = uffd_protection(e, page, n, false);

	(void)r;
	if (error != -ENOENT || n == 1)
		return error ? error : (int)n;
	/* Older kernels refuse a range that is not one mapping. */
	for (unsigned i = 0; i < n; i++) {
		error = uffd_protection(e, page + ((size_t)i << PAGE_SHIFT), 1, false);
		if (error)
			return i ? (int)i : error;
	}
	return (int)n;
}

int uffd_drop(struct engine *e, struct quire_region *r, char *page, size_t n)
{
	(void)e;
	(void)r;
	return kernel_drop(page, n << PAGE_SHIFT) == 0 ? 0 : -errno;
}

void uffd_wake(struct engine *e, char *page, unsigned n)
{
	struct uffdio_range r = { .start = (uintptr_t)page, .len = (size_t)n << PAGE_SHIFT };

	ioctl(e->uffd.fd, UFFDIO_WAKE, &r);
}

/* Undone by discard_poison (discard.c). A page that is there, or poisoned already, is left as it is. */
int uffd_poison(struct engine *e, char *page)
{
	struct uffdio_poison p = {
		.range = { .start = (uintptr_t)page, .len = PAGE_BYTES },
	};

	while (ioctl(e->uffd.fd, UFFDIO_POISON, &p) != 0) {
		int error = errno;

		if (!again(error))
			return error == EEXIST ? 0 : -error;
	}
	return 0;
}
