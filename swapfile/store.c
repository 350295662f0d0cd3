/* SPDX-License-Identifier: MIT */
/*
 * swapfile/store.c - the file, its slots and a way of I/O put together.
 *
 * Growth happens here: the allocator asks for it, the file does it, and slots
 * are only given out once they have room on the disk. So a full disk is met
 * in swapfile_alloc, while the page is still in memory.
 */
#include "swapfile/store.h"

#include "base/base.h"
#include "base/error.h"
#include "swapfile/checksum.h"
#include "swapfile/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

_Static_assert(SLOTS_MEMBERS < SHARED_LOCK_HOLDERS, "a lock can tell who has it");

/* Backends in order of preference, by name in options.io. */
static const struct io_ops *const backends[] = { &io_uring_ops, &io_pool_ops };
#define BACKENDS "auto, uring, sync"

/* When the disk is full: the least to ask for before giving up, and when to ask again. */
#define GROW_MIN (SLOTS_CLUSTER * (uint32_t)PAGE_BYTES)
#define FULL_NS 100000000u

/* ---------------------------------------------------------------- opening */

/* Does a first operation, a read of the header page, succeed? => 0 or -errno */
static int probe_ring(const struct io_ops *io, void *ring, void *page)
{
	struct iovec iov = { page, PAGE_BYTES };
	struct io_request request = { .iov = &iov, .iov_count = 1, .tag = page };
	int64_t result;
	void *tag;

	io->prepare(ring, &request);
	for (unsigned i = 0; i < 100; i++) {
		int error = io->submit(ring, true);

		if (io->reap(ring, &tag, &result))
			return result == (int64_t)PAGE_BYTES ? 0 : result < 0 ? (int)result : -EIO;
		if (error && error != -EINTR && error != -EAGAIN)
			return error;
	}
	return -EAGAIN;
}

static int probe(const struct io_ops *io, int fd, void *arg)
{
	void *ring, *page;
	int error;

	page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return -ENOMEM;
	error = io->open(&ring, fd, 1, 0, arg);
	if (!error) {
		error = probe_ring(io, ring, page);
		/* Without it no process could share the file. */
		if (!error && io->hold)
			error = io->hold(ring, fd);
		io->close(ring);
	}
	munmap(page, PAGE_BYTES);
	return error;
}

/* Why a backend does not work here. */
static int refuse_io(const char *name, int error)
{
	if (error == -EPERM || error == -EACCES)
		return error_set(ENOTSUP,
		                 "%s is forbidden here (a container's seccomp profile, or "
		                 "the sysctl kernel.io_uring_disabled)",
		                 name);
	if (error == -ENOSYS)
		return error_set(ENOTSUP,
		                 "%s is not in this kernel, or a container's seccomp "
		                 "profile hides it",
		                 name);
	if (error == -ENOMEM)
		return error_set(ENOMEM, "%s: no memory for a ring (see ulimit -l)", name);
	return error_set(ENOTSUP, "%s does not work here: %s", name, strerror(-error));
}

/* => 0: it is the file's, or -errno */
static int try_io(struct swapfile *s, const struct io_ops *io)
{
	void *arg = NULL;
	int error = io->attach ? io->attach(s->file.fd, &arg) : 0;

	if (error)
		return error;
	error = probe(io, s->file.fd, arg);
	if (error && io->detach)
		io->detach(arg);
	if (!error) {
		s->io = io;
		s->io_arg = arg;
	}
	return error;
}

static int choose_io(struct swapfile *s, const struct swapfile_options *o)
{
	const char *name = o->io ? o->io : "auto";
	bool any = strcmp(name, "auto") == 0, known = any;
	int error = 0;

	if (o->io_ops) {
		s->io = o->io_ops;
		s->io_arg = o->io_arg;
		return 0;
	}
	for (unsigned i = 0; i < ARRAY_LENGTH(backends); i++) {
		if (!any && strcmp(name, backends[i]->name) != 0)
			continue;
		known = true;
		error = try_io(s, backends[i]);
		if (!error)
			return 0;
		error = refuse_io(backends[i]->name, error);
		snprintf(s->refused, sizeof s->refused, "%s", error_message());
	}
	if (!known)
		return error_set(EINVAL, "unknown io \"%s\"; allowed: %s", name, BACKENDS);
	return error;
}

static void leave_io(struct swapfile *s)
{
	if (s->io->detach)
		s->io->detach(s->io_arg);
}

static enum slots_presence presence(void *family, uint32_t member)
{
	switch (family_presence(family, member)) {
	case FAMILY_GONE:
		return SLOTS_GONE;
	case FAMILY_THERE:
		return SLOTS_THERE;
	default:
		return SLOTS_UNKNOWN;
	}
}

static int open_parts(struct swapfile *s, const struct swapfile_options *o)
{
	uint64_t limit;
	int error = file_open(&s->file, o->path);

	if (error)
		return error;
	limit = MIN(s->file.size_max, o->size_limit ? o->size_limit : UINT64_MAX) / PAGE_BYTES;
	if (limit < 2)
		error = error_set(EFBIG,
		                  "the limit on the size of files (ulimit -f) leaves no room "
		                  "for a swap file");
	if (!error)
		error = choose_io(s, o);
	if (!error) {
		error = slots_open(&s->slots, limit);
		if (error)
			leave_io(s);
		else
			slots_set_witness(&s->slots, presence, &s->family);
	}
	if (error)
		file_close(&s->file);
	return error;
}

int swapfile_open(struct swapfile **out, const struct swapfile_options *options)
{
	struct swapfile *s;
	int error;

	if (options->size_limit && options->size_limit < 2 * PAGE_BYTES)
		return error_set(EINVAL,
		                 "swap size %llu is too small; at least %zu bytes are needed",
		                 (unsigned long long)options->size_limit, 2 * PAGE_BYTES);
	s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s == MAP_FAILED)
		return error_set(ENOMEM, "no memory for the swap file");
	checksum_init();
	family_open(&s->family);
	lock_init(&s->queue_lock, RANK_NONE);
	error = open_parts(s, options);
	if (error) {
		family_close(&s->family);
		munmap(s, sizeof *s);
		return error;
	}
	*out = s;
	return 0;
}

void swapfile_look_open(struct swapfile *s, uint64_t look_ns)
{
	look_open(&s->look, s->io, s->file.fd, s->io_arg, look_ns);
	look_hold(&s->look, family_descriptor(&s->family));
}

void swapfile_close(struct swapfile *s)
{
	ASSERT(!s->queues);
	look_close(&s->look);
	leave_io(s);
	if (!slots_leave(&s->slots))
		s->file.named = false; /* others have it still */
	slots_close(&s->slots);
	family_close(&s->family);
	file_close(&s->file);
	munmap(s, sizeof *s);
}

const char *swapfile_io_name(const struct swapfile *s)
{
	return s->io->name;
}

const char *swapfile_io_refused(const struct swapfile *s)
{
	return s->refused;
}

bool swapfile_is_direct(const struct swapfile *s)
{
	return s->file.direct;
}

/* ----------------------------------------------------------------- fork */

static int claim(void *swapfile, uint32_t member)
{
	struct swapfile *s = swapfile;

	return family_fork(&s->family, s->slots.me, member);
}

/* How long a process that has ended may seem to be there: until its rings have gone, some 20 ms. */
#define LINGER_NS UINT64_C(100000000)

static int new_member(struct swapfile *s)
{
	uint64_t until = now_ns() + LINGER_NS;
	int error;

	while ((error = slots_fork(&s->slots, claim, s, &s->child)) == -ENFILE && now_ns() < until)
		run_pause();
	return error;
}

int swapfile_fork(struct swapfile *s)
{
	int error = new_member(s);

	if (!error && !s->held) {
		error = swapfile_hold(s, family_descriptor(&s->family));
		s->held = error == 0;
	}
	/* If there will be no child after all, this member is gone once its description is closed. */
	if (error)
		family_in_parent(&s->family);
	return error;
}

void swapfile_fork_in_parent(struct swapfile *s)
{
	family_in_parent(&s->family);
}

int swapfile_fork_in_child(struct swapfile *s)
{
	int error;

	family_in_child(&s->family);
	slots_become(&s->slots, s->child);
	if (s->io->attach) {
		s->io->desert(s->io_arg);
		s->io_arg = NULL;
		error = s->io->attach(s->file.fd, &s->io_arg);
		if (error)
			return error;
	}
	look_open_again(&s->look, s->io_arg);
	look_hold(&s->look, family_descriptor(&s->family));
	return 0;
}

void swapfile_forsake(struct swapfile *s, bool begun)
{
	look_forget(&s->look);
	if (s->io->attach && !begun)
		s->io->desert(s->io_arg);
	else if (s->io->attach && s->io_arg)
		s->io->detach(s->io_arg);
	family_close(&s->family);
	close(s->file.fd);
	/* A signal handler may have forked in the middle of a call, which goes on: not with the parent's slots. */
	slots_forsake(&s->slots);
}

bool swapfile_parent_is_gone(const struct swapfile *s)
{
	return slots_parent_is_gone(&s->slots);
}

/* ---------------------------------------------------------------- slots */

/*
 * Give the allocator more slots than it had. => false: the disk is full, or was
 * a moment ago; nothing is lost by it and it is asked again later
 */
static bool grow(struct swapfile *s, uint32_t had)
{
	uint32_t backed;
	bool grown;

	slots_grow_begin(&s->slots);
	backed = s->slots.control->backed;
	/* Another thread did, or what somebody held who has gone is free. */
	grown = backed > had || slots_reap(&s->slots);
	if (!grown && now_ns() >= s->full_until) {
		uint64_t from = (uint64_t)backed * PAGE_BYTES;
		uint64_t most = (uint64_t)s->slots.max * PAGE_BYTES - from;
		uint64_t bytes;
		int error = -ENOSPC;

		for (bytes = s->file.chunk; error == -ENOSPC && bytes >= GROW_MIN; bytes /= 2)
			error = file_grow(&s->file, from, from + MIN(bytes, most));
		bytes = MIN(bytes * 2, most);
		grown = !error;
		if (grown)
			slots_set_backed(&s->slots, backed + (uint32_t)(bytes / PAGE_BYTES));
		else
			s->full_until = now_ns() + FULL_NS;
	}
	slots_grow_end(&s->slots);
	return grown;
}

static unsigned alloc(struct swapfile *s, unsigned want, slot_t *first)
{
	bool may_grow = true;

	for (;;) {
		uint32_t backed = s->slots.control->backed;
		unsigned n = slots_alloc(&s->slots, want, may_grow, first);

		if (n == 0 && slots_reap(&s->slots))
			continue;
		if (n != SLOTS_GROW)
			return n;
		may_grow = grow(s, backed);
	}
}

unsigned swapfile_alloc(struct swapfile *s, unsigned want, slot_t *first)
{
	unsigned n = alloc(s, want, first);
	uint64_t never = 0;

	if (unlikely(n == 0))
		atomic_compare_exchange_strong(&s->full_since, &never, now_ns());
	else if (unlikely(atomic_load_explicit(&s->full_since, memory_order_relaxed)))
		atomic_store(&s->full_since, 0);
	return n;
}

bool swapfile_is_full(const struct swapfile *s)
{
	uint64_t since = atomic_load(&s->full_since);

	return since && (s->slots.control->members == 1 || now_ns() > since + LINGER_NS);
}

void swapfile_ref(struct swapfile *s, slot_t slot)
{
	slots_ref(&s->slots, slot);
}

void swapfile_unref(struct swapfile *s, slot_t slot)
{
	slots_unref(&s->slots, slot, 1);
}

void swapfile_unref_run(struct swapfile *s, slot_t first, unsigned count)
{
	slots_unref(&s->slots, first, count);
}

unsigned swapfile_references(const struct swapfile *s, slot_t slot)
{
	return slots_references(&s->slots, slot);
}

uint64_t swapfile_used(const struct swapfile *s)
{
	return s->slots.control->used;
}

uint64_t swapfile_metadata(const struct swapfile *s)
{
	return slots_metadata(&s->slots);
}

bool swapfile_check(struct swapfile *s)
{
	return slots_check(&s->slots);
}
