/* SPDX-License-Identifier: MIT */
/* tests/unit/fake_engine.c - see fake_engine.h. */
#include "tests/unit/fake_engine.h"

#include "base/kernel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

struct fake_page {
	bool present, wp, poisoned;
	bool waiting; /* a thread of the program sleeps in the kernel for it */
};

#define WORDS (PAGE_BYTES / sizeof(uint64_t))

/* How long the handler puts off a fault while nothing moves: more than a failed write's pause. */
#define PATIENCE_NS UINT64_C(400000000)

void fake_fill(void *page, uint64_t value)
{
	uint64_t *w = page;

	for (size_t i = 0; i < WORDS; i++)
		w[i] = value ? value * UINT64_C(0x9e3779b97f4a7c15) + i : 0;
	w[0] = value;
}

uint64_t fake_value(const void *page)
{
	const uint64_t *w = page;
	uint64_t value = w[0];

	for (size_t i = 1; i < WORDS; i++)
		if (w[i] != (value ? value * UINT64_C(0x9e3779b97f4a7c15) + i : 0))
			return UINT64_MAX;
	return value;
}

struct fake_engine *fake_engine_of(struct quire *q)
{
	return q->engine.uffd.handler;
}

static struct fake_engine *fake_of(struct engine *e)
{
	return e->uffd.handler;
}

void fake_violation(struct fake_engine *fe, const char *what, const char *page)
{
	__atomic_fetch_add(&fe->violations, 1, __ATOMIC_RELAXED);
	printf("violation: %s (page at %p)\n", what, (const void *)page);
}

/* => the mutex is held by the caller, or nobody changes the ranges */
static struct fake_range *range_of(struct fake_engine *fe, const char *page)
{
	for (unsigned i = 0; i < fe->ranges; i++) {
		struct fake_range *range = &fe->range[i];

		if (page >= range->base && page < range->base + range->pages * PAGE_BYTES)
			return range;
	}
	fake_violation(fe, "a page outside of any range", page);
	abort();
}

static void must_be_in(struct fake_engine *fe, const struct quire_region *r, const char *page)
{
	if (page < r->base || page >= r->base + r->bytes)
		fake_violation(fe, "a page of another region", page);
}

static struct fake_page *page_of(struct fake_engine *fe, const char *page, char **bytes)
{
	struct fake_range *range = range_of(fe, page);
	size_t at = pages_of((size_t)(page - range->base));

	if (bytes)
		*bytes = range->bytes + at * PAGE_BYTES;
	return &range->page[at];
}

static entry_t *entry_of(struct fake_engine *fe, const char *page)
{
	struct quire *q = fe->e->q;

	for (uint32_t i = 0; i < q->region_count; i++) {
		struct quire_region *r = &q->regions[i];

		if (r->base && page >= r->base && page < r->base + r->bytes)
			return region_entry(r, pages_of((size_t)(page - r->base)));
	}
	return NULL;
}

/* E1, E2: who changes a page holds its entry. */
static uint64_t must_be_held(struct fake_engine *fe, const char *what, const char *page, size_t n)
{
	uint64_t first = 0;

	for (size_t i = 0; i < n; i++) {
		entry_t *entry = entry_of(fe, page + i * PAGE_BYTES);
		uint64_t e = entry ? atomic_load(entry) : 0;

		if (!(e & ENTRY_BUSY))
			fake_violation(fe, what, page + i * PAGE_BYTES);
		first = i ? first : e;
	}
	return first;
}

void fake_refuse(struct fake_engine *fe, enum fake_call call, unsigned skip, unsigned times,
                 int error)
{
	pthread_mutex_lock(&fe->mutex);
	fe->refusal[call].skip = skip;
	fe->refusal[call].times = times;
	fe->refusal[call].error = error;
	pthread_mutex_unlock(&fe->mutex);
}

/* => 0, or -errno: the call is refused; the mutex is held */
static int begin(struct fake_engine *fe, enum fake_call call, unsigned n)
{
	fe->calls[call]++;
	fe->pages[call] += n;
	if (fe->refusal[call].times == 0)
		return 0;
	if (fe->refusal[call].skip) {
		fe->refusal[call].skip--;
		return 0;
	}
	fe->refusal[call].times--;
	return -fe->refusal[call].error;
}

static unsigned cut(struct fake_engine *fe, enum fake_call call, unsigned n)
{
	unsigned most = fe->cut[call];

	if (most == 0 || n <= most)
		return n;
	fe->cut[call] = 0;
	return most;
}

/* => the mutex is held */
static void wake_page(struct fake_engine *fe, struct fake_page *p)
{
	if (p->waiting && fe->handling)
		pthread_cond_broadcast(&fe->woken);
	p->waiting = false;
}

static int end(struct fake_engine *fe, enum fake_call call, char *page, unsigned n, int result)
{
	pthread_mutex_unlock(&fe->mutex);
	if (fe->hook)
		fe->hook(fe, call, page, n);
	return result;
}

static void install(struct fake_engine *fe, char *page, const char *from, bool wp)
{
	char *bytes;
	struct fake_page *p = page_of(fe, page, &bytes);

	if (from)
		memcpy(bytes, from, PAGE_BYTES);
	else
		memset(bytes, 0, PAGE_BYTES);
	wake_page(fe, p);
	*p = (struct fake_page){ .present = true, .wp = wp };
}

/* ----------------------------------------------------------- the table */

static int fake_attach(struct engine *e, struct quire_region *region, char *base, size_t bytes)
{
	struct fake_engine *fe = fake_of(e);
	struct fake_range *range;

	must_be_in(fe, region, base);
	pthread_mutex_lock(&fe->mutex);
	ASSERT(fe->ranges < ARRAY_LENGTH(fe->range));
	range = &fe->range[fe->ranges++];
	range->base = base;
	range->pages = pages_of(bytes);
	range->page = calloc(range->pages, sizeof *range->page);
	range->bytes = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT(range->page && range->bytes != MAP_FAILED);
	pthread_mutex_unlock(&fe->mutex);
	return 0;
}

static void forget_range(struct fake_range *range)
{
	munmap(range->bytes, range->pages * PAGE_BYTES);
	free(range->page);
}

static void fake_detach(struct engine *e, struct quire_region *region, char *base, size_t bytes)
{
	struct fake_engine *fe = fake_of(e);
	struct fake_range *range;

	must_be_in(fe, region, base);
	(void)bytes;
	pthread_mutex_lock(&fe->mutex);
	range = range_of(fe, base);
	forget_range(range);
	*range = fe->range[--fe->ranges];
	pthread_mutex_unlock(&fe->mutex);
}

static int fake_attach_buffers(struct engine *e, char *base, size_t bytes)
{
	(void)e;
	(void)base;
	(void)bytes;
	return 0;
}

static int fake_map(struct engine *e, struct quire_region *region, char *page, const char *from,
                    unsigned n, bool writable)
{
	struct fake_engine *fe = fake_of(e);
	struct pager *p = &e->q->pager;
	int error;

	must_be_in(fe, region, page);
	must_be_held(fe, "mapped though its entry is not held", page, n);
	pthread_mutex_lock(&fe->mutex);
	error = begin(fe, FAKE_MAP, n);
	n = cut(fe, FAKE_MAP, n);
	for (unsigned i = 0; i < n && !error; i++) {
		uint32_t id = buffer_at(p, from + i * PAGE_BYTES);

		if (page_of(fe, page + i * PAGE_BYTES, NULL)->present)
			fake_violation(fe, "mapped twice", page + i * PAGE_BYTES);
		if (!(atomic_load(&p->clusters[id / CLUSTER_PAGES].populated) >>
		              (id % CLUSTER_PAGES) &
		      1))
			fake_violation(fe, "mapped from a buffer without memory",
			               page + i * PAGE_BYTES);
		install(fe, page + i * PAGE_BYTES, from + i * PAGE_BYTES, !writable);
	}
	return end(fe, FAKE_MAP, page, n, error ? error : (int)n);
}

static int fake_map_zero(struct engine *e, struct quire_region *region, char *page, unsigned n,
                         bool write)
{
	struct fake_engine *fe = fake_of(e);
	uint64_t held = must_be_held(fe, "zero-filled though its entry is not held", page, n);
	unsigned done = 0;
	int error;

	must_be_in(fe, region, page);
	(void)write;
	pthread_mutex_lock(&fe->mutex);
	error = begin(fe, FAKE_MAP_ZERO, n);
	n = cut(fe, FAKE_MAP_ZERO, n);
	for (; done < n && !error; done++) {
		if (page_of(fe, page + done * PAGE_BYTES, NULL)->present) {
			if (entry_state(held) != ENTRY_MAPPED)
				fake_violation(fe, "zero-filled twice", page + done * PAGE_BYTES);
			error = -EEXIST;
			break;
		}
		install(fe, page + done * PAGE_BYTES, NULL, false);
	}
	return end(fe, FAKE_MAP_ZERO, page, done, done ? (int)done : error);
}

static int fake_place(struct engine *e, char *page, char *buffer)
{
	struct fake_engine *fe = fake_of(e);
	int error;

	if (!e->uffd.move)
		return -ENOTSUP;
	must_be_held(fe, "placed though its entry is not held", page, 1);
	pthread_mutex_lock(&fe->mutex);
	error = begin(fe, FAKE_PLACE, 1);
	if (!error) {
		if (page_of(fe, page, NULL)->present)
			fake_violation(fe, "placed twice", page);
		install(fe, page, buffer, false);
		/* The memory went with the page. */
		kernel_madvise(buffer, PAGE_BYTES, MADV_DONTNEED);
	}
	return end(fe, FAKE_PLACE, page, 1, error);
}

static int fake_unprotect(struct engine *e, struct quire_region *region, char *page, unsigned n)
{
	struct fake_engine *fe = fake_of(e);
	int error;

	must_be_in(fe, region, page);
	must_be_held(fe, "unprotected though its entry is not held", page, n);
	pthread_mutex_lock(&fe->mutex);
	error = begin(fe, FAKE_UNPROTECT, n);
	n = cut(fe, FAKE_UNPROTECT, n);
	for (unsigned i = 0; i < n && !error; i++) {
		struct fake_page *p = page_of(fe, page + i * PAGE_BYTES, NULL);

		p->wp = false;
		wake_page(fe, p);
	}
	return end(fe, FAKE_UNPROTECT, page, n, error ? error : (int)n);
}

static int fake_save(struct engine *e, struct quire_region *r, char *page, char *buffer, unsigned n)
{
	struct fake_engine *fe = fake_of(e);
	unsigned done = 0;
	int error;

	(void)r;
	must_be_held(fe, "saved though its entry is not held", page, n);
	pthread_mutex_lock(&fe->mutex);
	error = begin(fe, FAKE_SAVE, n);
	n = cut(fe, FAKE_SAVE, n);
	for (; done < n && !error; done++) {
		char *bytes;

		if (!page_of(fe, page + done * PAGE_BYTES, &bytes)->present)
			break;
		memcpy(buffer + done * PAGE_BYTES, bytes, PAGE_BYTES);
	}
	if (!error && !done)
		error = -ENOENT;
	return end(fe, FAKE_SAVE, page, n, error ? error : (int)done);
}

static int fake_protect_all(struct engine *e, struct quire_region *region, char *page, size_t n)
{
	struct fake_engine *fe = fake_of(e);
	int error;

	must_be_in(fe, region, page);
	pthread_mutex_lock(&fe->mutex);
	error = begin(fe, FAKE_PROTECT, (unsigned)n);
	for (size_t i = 0; i < n && !error; i++) {
		struct fake_page *p = page_of(fe, page + i * PAGE_BYTES, NULL);

		p->wp = p->present;
	}
	return end(fe, FAKE_PROTECT, page, (unsigned)n, error);
}

/* What lies between a joined page and the one before it: held, and not writable. */
static void protect_gap(struct fake_engine *fe, const struct take_page *pages, unsigned i)
{
	for (char *at = pages[i - 1].page + PAGE_BYTES; at < pages[i].page; at += PAGE_BYTES) {
		struct fake_page *p = page_of(fe, at, NULL);

		must_be_held(fe, "protected beside a victim though its entry is not held", at, 1);
		if (p->present && !p->wp)
			fake_violation(fe, "a writable page was protected beside a victim", at);
		p->wp = p->present;
	}
}

static void fake_take(struct engine *e, struct take_page *pages, unsigned n)
{
	struct fake_engine *fe = fake_of(e);

	for (unsigned i = 0; i < n; i++) {
		struct take_page *t = &pages[i];
		struct fake_page *p;
		char *bytes;

		must_be_held(fe, "taken though its entry is not held", t->page, 1);
		pthread_mutex_lock(&fe->mutex);
		p = page_of(fe, t->page, &bytes);
		if (t->joined)
			protect_gap(fe, pages, i);
		if (i && t->page <= pages[i - 1].page &&
		    range_of(fe, t->page) == range_of(fe, pages[i - 1].page))
			fake_violation(fe, "a batch is not in rising order", t->page);
		if (p->present && !p->wp && !t->dirty)
			fake_violation(fe, "taken as clean though it is writable", t->page);
		if (t->dirty && !t->wanted)
			fake_violation(fe, "a dirty page is to be thrown away", t->page);
		if (begin(fe, FAKE_TAKE, 1)) {
			p->wp = p->present; /* protected before it was refused */
		} else if (!p->present && fe->zeros_stay) {
			fe->zeros_stay--;
			memset(bytes, 0, PAGE_BYTES);
			p->present = p->wp = true;
			t->result = TAKE_ZEROS;
		} else if (!p->present) {
			t->result = TAKE_GONE;
		} else {
			if (t->wanted)
				memcpy(t->buffer, bytes, PAGE_BYTES);
			memset(bytes, 0xa5, PAGE_BYTES);
			p->present = p->wp = false;
			t->moved = t->wanted && e->uffd.move;
			t->result = TAKE_DONE;
		}
		end(fe, FAKE_TAKE, t->page, 1, 0);
	}
}

static int fake_drop(struct engine *e, struct quire_region *region, char *page, size_t n)
{
	struct fake_engine *fe = fake_of(e);
	int error;

	must_be_in(fe, region, page);
	must_be_held(fe, "dropped though its entry is not held", page, n);
	pthread_mutex_lock(&fe->mutex);
	error = begin(fe, FAKE_DROP, (unsigned)n);
	for (size_t i = 0; i < n && !error; i++) {
		struct fake_page *p = page_of(fe, page + i * PAGE_BYTES, NULL);

		p->present = p->wp = p->poisoned = false;
	}
	return end(fe, FAKE_DROP, page, (unsigned)n, error);
}

static int fake_poison(struct engine *e, char *page)
{
	struct fake_engine *fe = fake_of(e);
	struct fake_page *p;

	pthread_mutex_lock(&fe->mutex);
	begin(fe, FAKE_POISON, 1);
	p = page_of(fe, page, NULL);
	p->poisoned = true;
	wake_page(fe, p);
	return end(fe, FAKE_POISON, page, 1, 0);
}

static void fake_wake(struct engine *e, char *page, unsigned n)
{
	struct fake_engine *fe = fake_of(e);

	pthread_mutex_lock(&fe->mutex);
	fe->wakes++;
	for (unsigned i = 0; i < n; i++)
		wake_page(fe, page_of(fe, page + i * PAGE_BYTES, NULL));
	end(fe, FAKE_WAKE, page, n, 0);
}

static int fake_open(struct engine *e, struct quire *q)
{
	(void)e;
	(void)q;
	return 0;
}

static int fake_start(struct engine *e)
{
	(void)e;
	return 0;
}

static void fake_close(struct engine *e)
{
	struct fake_engine *fe = fake_of(e);

	for (unsigned i = 0; i < fe->ranges; i++)
		forget_range(&fe->range[i]);
	pthread_cond_destroy(&fe->woken);
	pthread_mutex_destroy(&fe->mutex);
	free(fe);
}

#define COMMON                                                                              \
	.open = fake_open, .start = fake_start, .close = fake_close, .attach = fake_attach, \
	.detach = fake_detach, .attach_buffers = fake_attach_buffers, .map = fake_map,      \
	.map_zero = fake_map_zero, .place = fake_place, .unprotect = fake_unprotect,        \
	.take = fake_take, .drop = fake_drop, .save = fake_save, .protect_all = fake_protect_all

const struct engine_ops fake_in_thread = {
	COMMON, .name = "fake-in-thread", .costs = "nothing", .in_thread = true, .joins = true,
};

const struct engine_ops fake_handler = {
	COMMON,        .name = "fake-handler", .costs = "nothing", .in_thread = false,
	.joins = true, .poison = fake_poison,  .wake = fake_wake,
};

struct fake_engine *fake_engine_open(struct quire *q, bool in_thread, bool move)
{
	struct fake_engine *fe = calloc(1, sizeof *fe);

	ASSERT(fe);
	pthread_mutex_init(&fe->mutex, NULL);
	pthread_cond_init(&fe->woken, NULL);
	q->engine = (struct engine){ .ops = in_thread ? &fake_in_thread : &fake_handler, .q = q };
	q->engine.uffd.move = move;
	q->engine.uffd.poison = true; /* drop undoes it */
	q->engine.uffd.handler = fe;
	fe->e = &q->engine;
	return fe;
}

/* --------------------------------------------------------- the program */

enum fault_result fake_fault(struct quire_region *r, uint64_t page, bool write, bool may_sleep)
{
	struct fault f = { .region = r, .page = page, .write = write, .may_sleep = may_sleep };
	enum fault_result result;

	ASSERT(region_get(r->q, r->id) == r);
	result = fault_serve(&f);
	region_put(r);
	return result;
}

unsigned fake_arrivals(struct quire *q)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < READ_QUEUES; i++)
		n += readin_poll(&q->pager, i);
	return n;
}

static bool reads_in_flight(struct quire *q)
{
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		if (atomic_load(&q->pager.reads[i].in_flight))
			return true;
	return false;
}

static bool is_waiting(struct quire_region *r, uint64_t page)
{
	struct fake_engine *fe = fake_engine_of(r->q);
	bool waiting;

	pthread_mutex_lock(&fe->mutex);
	waiting = page_of(fe, region_page(r, page), NULL)->waiting;
	pthread_mutex_unlock(&fe->mutex);
	return waiting;
}

/* The faulting thread sleeps; the handler thread's work is done meanwhile. => FAULT_DONE: it woke */
static enum fault_result by_handler(struct quire_region *r, uint64_t page, bool write)
{
	struct quire *q = r->q;
	struct fake_engine *fe = fake_engine_of(q);

	for (uint64_t since = now_ns();;) {
		enum fault_result result = fake_fault(r, page, write, false);
		uint32_t progress;

		switch (result) {
		case FAULT_DONE:
			if (is_waiting(r, page))
				fake_violation(fe, "a fault was served, but nobody woke its thread",
				               region_page(r, page));
			return FAULT_DONE;
		case FAULT_WAITING:
			while (is_waiting(r, page)) {
				if (reads_in_flight(q)) {
					fake_arrivals(q);
					continue;
				}
				fake_violation(fe, "a thread waits for a page that nobody brings",
				               region_page(r, page));
				return FAULT_REFUSED;
			}
			return FAULT_DONE;
		case FAULT_DEFERRED:
			reclaim_enter(&q->pager);
			progress = reclaim_step(&q->pager);
			reclaim_leave(&q->pager);
			if (fake_arrivals(q) || progress || reads_in_flight(q))
				since = now_ns();
			else if (now_ns() - since > PATIENCE_NS)
				return FAULT_NOMEM;
			break;
		case FAULT_CONGESTED:
			fake_arrivals(q);
			since = now_ns();
			break;
		default:
			return result;
		}
	}
}

/* ---------------------------------------------------- a handler thread */

static void *handler_main(void *arg)
{
	struct fake_engine *fe = arg;
	struct quire *q = fe->e->q;
	struct timespec nap = { .tv_nsec = 20000 };

	pthread_mutex_lock(&fe->mutex);
	while (!fe->stop) {
		struct fake_message list[ARRAY_LENGTH(fe->message)];
		unsigned n = fe->messages;

		memcpy(list, fe->message, n * sizeof list[0]);
		fe->messages = 0;
		pthread_mutex_unlock(&fe->mutex);
		fake_arrivals(q);
		for (unsigned i = 0; i < n; i++) {
			enum fault_result result = fake_fault(list[i].r, list[i].page,
			                                      list[i].write, false);

			if (result == FAULT_DEFERRED || result == FAULT_CONGESTED) {
				pthread_mutex_lock(&fe->mutex);
				fe->message[fe->messages++] = list[i];
				pthread_mutex_unlock(&fe->mutex);
			} else if (result != FAULT_DONE && result != FAULT_WAITING) {
				fake_violation(fe, "a handler's fault failed",
				               region_page(list[i].r, list[i].page));
			}
		}
		if (n == 0)
			nanosleep(&nap, NULL);
		pthread_mutex_lock(&fe->mutex);
	}
	pthread_mutex_unlock(&fe->mutex);
	return NULL;
}

void fake_handler_start(struct quire *q)
{
	struct fake_engine *fe = fake_engine_of(q);

	fe->handling = true;
	fe->stop = false;
	ASSERT(pthread_create(&fe->handler, NULL, handler_main, fe) == 0);
}

void fake_handler_stop(struct quire *q)
{
	struct fake_engine *fe = fake_engine_of(q);

	pthread_mutex_lock(&fe->mutex);
	fe->stop = true;
	pthread_mutex_unlock(&fe->mutex);
	pthread_join(fe->handler, NULL);
	fe->handling = false;
}

/* Post a fault and sleep until the page's thread is woken. */
static enum fault_result by_message(struct quire_region *r, uint64_t page, bool write)
{
	struct fake_engine *fe = fake_engine_of(r->q);
	struct timespec until;
	enum fault_result result = FAULT_DONE;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	pthread_mutex_lock(&fe->mutex);
	ASSERT(fe->messages < ARRAY_LENGTH(fe->message) / 2);
	fe->message[fe->messages++] = (struct fake_message){ r, page, write };
	while (page_of(fe, region_page(r, page), NULL)->waiting && result == FAULT_DONE)
		if (pthread_cond_timedwait(&fe->woken, &fe->mutex, &until) != 0) {
			fake_violation(fe, "a thread is never woken", region_page(r, page));
			result = FAULT_REFUSED;
		}
	pthread_mutex_unlock(&fe->mutex);
	return result;
}

static enum fault_result access_page(struct quire_region *r, uint64_t page, bool write,
                                     uint64_t *value)
{
	struct fake_engine *fe = fake_engine_of(r->q);
	bool in_thread = r->q->engine.ops->in_thread;

	/* A page may be evicted between fault and access, but not for ever. */
	for (int tries = 0; tries < 1000; tries++) {
		struct fake_page *p;
		enum fault_result result;
		char *bytes;
		bool good;

		pthread_mutex_lock(&fe->mutex);
		p = page_of(fe, region_page(r, page), &bytes);
		good = p->present && !p->poisoned && !(write && p->wp);
		if (good && write)
			fake_fill(bytes, *value);
		else if (good)
			*value = fake_value(bytes);
		p->waiting = !good && !in_thread;
		pthread_mutex_unlock(&fe->mutex);
		if (good)
			return FAULT_DONE;
		result = in_thread    ? fake_fault(r, page, write, true) :
		         fe->handling ? by_message(r, page, write) :
		                        by_handler(r, page, write);
		/* Where no reader runs, reads that nobody waited for keep their memory. */
		if (result == FAULT_NOMEM && reads_in_flight(r->q)) {
			fake_arrivals(r->q);
			continue;
		}
		if (result != FAULT_DONE)
			return result;
	}
	fake_violation(fe, "an access faults for ever", region_page(r, page));
	return FAULT_REFUSED;
}

enum fault_result fake_write(struct quire_region *r, uint64_t page, uint64_t value)
{
	return access_page(r, page, true, &value);
}

enum fault_result fake_read(struct quire_region *r, uint64_t page, uint64_t *value)
{
	*value = UINT64_MAX;
	return access_page(r, page, false, value);
}

void fake_program_discards(struct quire_region *r, uint64_t page)
{
	struct fake_engine *fe = fake_engine_of(r->q);
	struct fake_page *p;

	pthread_mutex_lock(&fe->mutex);
	p = page_of(fe, region_page(r, page), NULL);
	p->present = p->wp = false;
	pthread_mutex_unlock(&fe->mutex);
}

bool fake_present(struct quire_region *r, uint64_t page)
{
	return page_of(fake_engine_of(r->q), region_page(r, page), NULL)->present;
}

bool fake_protected(struct quire_region *r, uint64_t page)
{
	return page_of(fake_engine_of(r->q), region_page(r, page), NULL)->wp;
}

const void *fake_bytes(struct quire_region *r, uint64_t page)
{
	char *bytes;

	return page_of(fake_engine_of(r->q), region_page(r, page), &bytes)->present ? bytes : NULL;
}
