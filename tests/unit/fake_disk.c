/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/fake_disk.c - see fake_disk.h.
 *
 * A ring is an array of requests, each prepared or started. Bytes move when a
 * request is reaped, so that a caller who reuses a buffer early is found out.
 */
#include "tests/unit/fake_disk.h"

#include "base/base.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define FAULTS 64

struct fake_disk {
	pthread_mutex_t mutex; /* guards all of it */
	unsigned char *bytes;
	uint64_t size;
	struct fake_fault fault[FAULTS];
	unsigned faults;
	enum fake_order order;
	uint64_t random;
	int submit_error;
	int wait_error;
	unsigned submit_failures;
	void (*on_descriptor)(void *arg);
	void *on_descriptor_arg;
	struct fake_counts counts;
};

struct held {
	struct io_request request;
	struct fake_fault fault; /* kind 0: none */
	int64_t delay;
	uint64_t ready_at; /* ns */
	bool used, started;
	uint64_t age;
};

struct fake_ring {
	struct fake_disk *disk;
	int timer;
	unsigned depth;
	uint64_t clock;
	struct held held[];
};

struct fake_disk *fake_disk_new(uint64_t pages)
{
	struct fake_disk *d = calloc(1, sizeof *d);

	d->size = pages * PAGE_BYTES;
	d->bytes = mmap(NULL, d->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT(d->bytes != MAP_FAILED);
	pthread_mutex_init(&d->mutex, NULL);
	d->random = 1;
	return d;
}

void fake_disk_free(struct fake_disk *d)
{
	munmap(d->bytes, d->size);
	pthread_mutex_destroy(&d->mutex);
	free(d);
}

void fake_disk_fault(struct fake_disk *d, struct fake_fault fault)
{
	unsigned live = 0;

	if (fault.times == 0)
		fault.times = 1;
	pthread_mutex_lock(&d->mutex);
	for (unsigned i = 0; i < d->faults; i++)
		if (d->fault[i].times > 0)
			d->fault[live++] = d->fault[i];
	d->faults = live;
	ASSERT(d->faults < FAULTS);
	d->fault[d->faults++] = fault;
	pthread_mutex_unlock(&d->mutex);
}

void fake_disk_heal(struct fake_disk *d)
{
	pthread_mutex_lock(&d->mutex);
	d->faults = 0;
	d->submit_failures = 0;
	d->wait_error = 0;
	pthread_mutex_unlock(&d->mutex);
}

void fake_disk_order(struct fake_disk *d, enum fake_order order, uint64_t seed)
{
	pthread_mutex_lock(&d->mutex);
	d->order = order;
	d->random = seed | 1;
	pthread_mutex_unlock(&d->mutex);
}

void fake_disk_fail_submits(struct fake_disk *d, int error, unsigned times)
{
	pthread_mutex_lock(&d->mutex);
	d->submit_error = error;
	d->submit_failures = times;
	pthread_mutex_unlock(&d->mutex);
}

void fake_disk_on_descriptor(struct fake_disk *d, void (*call)(void *arg), void *arg)
{
	pthread_mutex_lock(&d->mutex);
	d->on_descriptor = call;
	d->on_descriptor_arg = arg;
	pthread_mutex_unlock(&d->mutex);
}

void fake_disk_fail_waits(struct fake_disk *d, int error)
{
	pthread_mutex_lock(&d->mutex);
	d->wait_error = error;
	pthread_mutex_unlock(&d->mutex);
}

void *fake_disk_page(struct fake_disk *d, uint64_t page)
{
	return d->bytes + page * PAGE_BYTES;
}

struct fake_counts fake_disk_counts(struct fake_disk *d)
{
	struct fake_counts counts;

	pthread_mutex_lock(&d->mutex);
	counts = d->counts;
	pthread_mutex_unlock(&d->mutex);
	return counts;
}

static uint64_t bytes_of(const struct io_request *r)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < r->iov_count; i++)
		n += r->iov[i].iov_len;
	return n;
}

/* Count a request and find its fault. => holds the mutex */
static struct fake_fault meet(struct fake_disk *d, const struct io_request *r)
{
	uint64_t first = r->offset / PAGE_BYTES, end = first + bytes_of(r) / PAGE_BYTES;

	*(r->write ? &d->counts.writes : &d->counts.reads) += 1;
	d->counts.iov_most = MAX(d->counts.iov_most, r->iov_count);
	for (unsigned i = 0; i < d->faults; i++) {
		struct fake_fault *f = &d->fault[i];

		if (f->times == 0 || (f->op != FAKE_ANY && (f->op == FAKE_WRITE) != r->write))
			continue;
		if (f->pages && (end <= f->first_page || first >= f->first_page + f->pages))
			continue;
		if (f->skip) {
			f->skip--;
			continue;
		}
		f->times--;
		d->counts.faults++;
		return *f;
	}
	return (struct fake_fault){ 0 };
}

/* Move the first n bytes of a request, from or to offset. => holds the mutex */
static void move(struct fake_disk *d, const struct io_request *r, uint64_t offset, uint64_t n)
{
	for (unsigned i = 0; i < r->iov_count && n > 0; i++) {
		uint64_t part = MIN(n, r->iov[i].iov_len);

		ASSERT(offset + part <= d->size);
		if (r->write)
			memcpy(d->bytes + offset, r->iov[i].iov_base, part);
		else
			memcpy(r->iov[i].iov_base, d->bytes + offset, part);
		offset += part;
		n -= part;
	}
}

/* The byte of a request's memory, or of the disk under it, that is at distance at. */
static unsigned char *byte_at(struct fake_disk *d, const struct io_request *r, uint64_t at)
{
	if (r->write)
		return d->bytes + r->offset + at;
	for (unsigned i = 0;; i++) {
		if (at < r->iov[i].iov_len)
			return (unsigned char *)r->iov[i].iov_base + at;
		at -= r->iov[i].iov_len;
	}
}

/* Do what the fault leaves of a request. => bytes or -errno; holds the mutex */
static int64_t perform(struct fake_disk *d, const struct io_request *r, const struct fake_fault *f)
{
	uint64_t all = bytes_of(r), value = (uint64_t)f->value;

	switch (f->kind) {
	case FAKE_FAIL:
		return -f->value;
	case FAKE_SHORT:
		move(d, r, r->offset, MIN(value, all));
		return (int64_t)MIN(value, all);
	case FAKE_TORN:
		move(d, r, r->offset, MIN(value, all));
		return (int64_t)all;
	case FAKE_MISDIRECTED:
		move(d, r, r->offset + value * PAGE_BYTES, all);
		return (int64_t)all;
	case FAKE_FLIPPED:
		move(d, r, r->offset, all);
		*byte_at(d, r, value) ^= 0x10;
		return (int64_t)all;
	case FAKE_DELAYED:
	case FAKE_SLOW:
		break;
	}
	move(d, r, r->offset, all);
	return (int64_t)all;
}

/* ---------------------------------------------------------------- the table */

static int fake_open(void **out, int fd, unsigned depth, unsigned flags, void *arg)
{
	struct fake_ring *ring = calloc(1, sizeof *ring + depth * sizeof *ring->held);

	(void)fd;
	(void)flags;
	ring->disk = arg;
	ring->depth = depth;
	ring->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (ring->timer < 0) {
		int error = -errno;

		free(ring);
		return error;
	}
	*out = ring;
	return 0;
}

static void fake_close(void *p)
{
	struct fake_ring *ring = p;

	for (unsigned i = 0; i < ring->depth; i++)
		ASSERT(!ring->held[i].used);
	close(ring->timer);
	free(ring);
}

/* Bytes move when a request is reaped: those that were in flight never do. */
static void fake_forget(void *p)
{
	struct fake_ring *ring = p;

	close(ring->timer);
	free(ring);
}

static bool fake_prepare(void *p, const struct io_request *request)
{
	struct fake_ring *ring = p;

	for (unsigned i = 0; i < ring->depth; i++) {
		if (ring->held[i].used)
			continue;
		ring->held[i] = (struct held){ .request = *request, .used = true };
		return true;
	}
	return false;
}

/* The next to complete: ready ones only, in the disk's order. => holds the mutex */
static struct held *next_ready(struct fake_ring *ring)
{
	struct held *best = NULL;
	uint64_t seen = 0;

	for (unsigned i = 0; i < ring->depth; i++) {
		struct held *h = &ring->held[i];

		if (!h->used || !h->started || h->delay > 0 || now_ns() < h->ready_at)
			continue;
		seen++;
		ring->disk->random = ring->disk->random * 6364136223846793005u +
		                     1442695040888963407u;
		if (!best || (ring->disk->order == FAKE_IN_ORDER && h->age < best->age) ||
		    (ring->disk->order == FAKE_LAST_FIRST && h->age > best->age) ||
		    (ring->disk->order == FAKE_SHUFFLED && (ring->disk->random >> 33) % seen == 0))
			best = h;
	}
	return best;
}

/* When a look will find something; or, for a request that counts looks, may. => 0: nothing is started */
static uint64_t next_look(const struct fake_ring *ring)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < ring->depth; i++) {
		const struct held *h = &ring->held[i];
		uint64_t when = MAX(h->ready_at, 1);

		if (h->used && h->started)
			at = at ? MIN(at, when) : when;
	}
	return at;
}

/* Make the descriptor say what reap would, now and later. => holds the mutex */
static void tell(struct fake_ring *ring)
{
	uint64_t at = next_look(ring);
	struct itimerspec t = { .it_value = { .tv_sec = (time_t)(at / 1000000000),
		                              .tv_nsec = (long)(at % 1000000000) } };

	ASSERT(timerfd_settime(ring->timer, TFD_TIMER_ABSTIME, &t, NULL) == 0);
}

static uint64_t ready_at(const struct fake_fault *f)
{
	return f->kind == FAKE_SLOW ? now_ns() + (uint64_t)f->value * 1000000 : 0;
}

static void sleep_until(uint64_t ns)
{
	struct timespec t = { .tv_sec = (time_t)(ns / 1000000000),
		              .tv_nsec = (long)(ns % 1000000000) };

	if (ns)
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* => looks are counted for a request */
static bool count_down(struct fake_ring *ring)
{
	bool counted = false;

	for (unsigned i = 0; i < ring->depth; i++)
		if (ring->held[i].used && ring->held[i].started && ring->held[i].delay > 0) {
			ring->held[i].delay--;
			counted = true;
		}
	return counted;
}

/* Until one is ready. => holds the mutex, but not all the time */
static void pass_time(struct fake_ring *ring)
{
	while (!next_ready(ring)) {
		if (count_down(ring))
			continue;
		pthread_mutex_unlock(&ring->disk->mutex);
		sleep_until(now_ns() + 100000);
		pthread_mutex_lock(&ring->disk->mutex);
	}
}

static int fake_submit(void *p, bool wait)
{
	struct fake_ring *ring = p;
	struct fake_disk *d = ring->disk;
	int error = 0;
	bool any = false;

	pthread_mutex_lock(&d->mutex);
	d->counts.submits++;
	if (d->submit_failures > 0) {
		d->submit_failures--;
		error = -d->submit_error;
	} else {
		for (unsigned i = 0; i < ring->depth; i++) {
			struct held *h = &ring->held[i];

			if (h->used && !h->started) {
				h->fault = meet(d, &h->request);
				h->delay = h->fault.kind == FAKE_DELAYED ? h->fault.value : 0;
				h->ready_at = ready_at(&h->fault);
				h->started = true;
				h->age = ring->clock++;
			}
			any = any || h->used;
		}
		if (wait && any)
			pass_time(ring);
	}
	tell(ring);
	pthread_mutex_unlock(&d->mutex);
	return error;
}

static int fake_wait(void *p)
{
	struct fake_ring *ring = p;
	bool started = false;
	int error;

	for (unsigned i = 0; i < ring->depth; i++)
		started = started || (ring->held[i].used && ring->held[i].started);
	ASSERT(started); /* or the sleep would never end */
	pthread_mutex_lock(&ring->disk->mutex);
	ring->disk->counts.waits++;
	error = ring->disk->wait_error;
	if (!error)
		pass_time(ring);
	tell(ring);
	pthread_mutex_unlock(&ring->disk->mutex);
	return -error;
}

static bool fake_reap(void *p, void **tag, int64_t *result)
{
	struct fake_ring *ring = p;
	struct held *h;

	pthread_mutex_lock(&ring->disk->mutex);
	h = next_ready(ring);
	if (h) {
		*result = perform(ring->disk, &h->request, &h->fault);
		*tag = h->request.tag;
		h->used = false;
	}
	count_down(ring);
	tell(ring);
	pthread_mutex_unlock(&ring->disk->mutex);
	return h != NULL;
}

static int fake_fd(void *arg)
{
	struct fake_ring *ring = arg;
	void (*call)(void *call_arg);
	void *call_arg;

	pthread_mutex_lock(&ring->disk->mutex);
	call = ring->disk->on_descriptor;
	call_arg = ring->disk->on_descriptor_arg;
	ring->disk->on_descriptor = NULL;
	pthread_mutex_unlock(&ring->disk->mutex);
	if (call)
		call(call_arg);
	return ring->timer;
}

static ssize_t fake_transfer(int fd, const struct io_request *request, void *arg)
{
	struct fake_disk *d = arg;
	struct fake_fault fault;
	int64_t result;

	(void)fd;
	pthread_mutex_lock(&d->mutex);
	fault = meet(d, request);
	pthread_mutex_unlock(&d->mutex);
	sleep_until(ready_at(&fault));
	pthread_mutex_lock(&d->mutex);
	result = perform(d, request, &fault);
	pthread_mutex_unlock(&d->mutex);
	return result;
}

const struct io_ops fake_disk_ops = {
	.name = "fake",
	.open = fake_open,
	.close = fake_close,
	.forget = fake_forget,
	.prepare = fake_prepare,
	.submit = fake_submit,
	.wait = fake_wait,
	.reap = fake_reap,
	.fd = fake_fd,
	.transfer = fake_transfer,
};
