/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_uffd.c - what cannot be tested on a fake: the primitives of
 * userfaultfd and the handler thread on this kernel, with a pager as quire_open
 * makes it, in situations that its users cannot bring about:
 *
 *   - every read queue taken, a file system or another thread that is slow, for
 *     longer than the patience for memory;
 *   - pages that are taken while they cannot be read, or are not there;
 *   - a kernel without UFFDIO_POISON (vm/uffd_refuse.c).
 */
#include "base/kernel.h"
#include "tests/unit/unit.h"
#include "vm/uffd.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGES 512u
#define BUDGET 64u
#define LOST 300u /* page */
#define WORDS (PAGE_BYTES / sizeof(uint64_t))

static quire_t *q;
static struct quire_region *r;
static char path[64];
static int file;
static _Atomic unsigned told[QUIRE_ERROR_ENGINE + 1];

static void on_error(void *arg, const struct quire_error *error)
{
	(void)arg;
	atomic_fetch_add(&told[error->kind], 1);
}

/* What the tests differ in; all zeros: as the kernel of this machine has it. */
struct how {
	size_t swap_size;
	bool no_move, no_poison;
};

static void start_as(const char *engine, struct how how)
{
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET * PAGE_BYTES,
		                   .engine = engine,
		                   .swap_path = path,
		                   .swap_size = how.swap_size,
		                   .move = how.no_move ? "off" : NULL,
		                   .on_error = on_error };

	for (unsigned i = 0; i <= QUIRE_ERROR_ENGINE; i++)
		atomic_store(&told[i], 0);
	snprintf(path, sizeof path, "/var/tmp/quire-test-%d", (int)getpid());
	unlink(path);
	if (quire_open(&q, &o) != 0)
		unit_skip_all(quire_error_message());
	/* Before there is a region: no thread of the pager's has looked yet. */
	if (how.no_poison)
		q->engine.uffd.poison = false;
	REQUIRE_EQ(quire_region_create(q, PAGES * PAGE_BYTES, NULL, &r), 0);
	file = open(path, O_RDWR | O_CLOEXEC);
	REQUIRE(file >= 0);
}

static void start(const char *engine)
{
	start_as(engine, (struct how){ .swap_size = 0 });
}

static void finish(void)
{
	CHECK_EQ(quire_close(q), 0);
	close(file);
	unlink(path);
}

static volatile uint64_t *at(uint64_t page, unsigned word)
{
	return (volatile uint64_t *)(void *)region_page(r, page) + word;
}

static void fill(void)
{
	for (uint64_t page = 0; page < PAGES; page++)
		for (unsigned word = 0; word < WORDS; word++)
			*at(page, word) = page * WORDS + word + 1;
}

/* Called once, at the end of the next UFFDIO_COPY. */
static void (*after_copy)(void);

/* The library's calls come here, too. */
int ioctl(int fd, unsigned long request, ...)
{
	void (*hook)(void) = request == UFFDIO_COPY ? after_copy : NULL;
	va_list list;
	void *arg;
	int result;

	va_start(list, request);
	arg = va_arg(list, void *);
	va_end(list);
	result = (int)syscall(SYS_ioctl, fd, request, arg);
	if (hook && result == 0) {
		after_copy = NULL;
		hook();
	}
	return result;
}

/* How long the swap file takes to grow. */
static _Atomic long grow_ms;

static void nap(long ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	nap(atomic_load(&grow_ms));
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

/* It is on the swap file only. */
static void await_slot(uint64_t page)
{
	for (int i = 0; entry_state(atomic_load(region_entry(r, page))) != ENTRY_SLOT; i++) {
		for (uint64_t other = 0; other < BUDGET; other++)
			(void)*at((page + 60 + (uint64_t)i * 7 + other) % PAGES, 0);
		REQUIRE(i < 1000);
	}
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ------------------------------------------- accesses that may be refused */

struct access {
	volatile uint64_t *word;
	bool write;
	uint64_t value;
	/* what came of it */
	int signal;
	void *address;
	_Atomic bool ended;
};

static __thread sigjmp_buf back;
static __thread struct access *mine;

static void on_signal(int signal, siginfo_t *info, void *context)
{
	(void)context;
	if (!mine)
		_exit(3);
	mine->signal = signal;
	mine->address = info->si_addr;
	siglongjmp(back, 1);
}

static void do_access(struct access *a)
{
	mine = a;
	if (sigsetjmp(back, 1) == 0) {
		if (a->write)
			*a->word = a->value;
		else
			a->value = *a->word;
	}
	mine = NULL;
	atomic_store(&a->ended, true);
}

static void *access_thread(void *arg)
{
	do_access(arg);
	return NULL;
}

static void *blocked_thread(void *arg)
{
	sigset_t bus;

	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &bus, NULL);
	do_access(arg);
	return NULL;
}

static void is_refused(uint64_t page, unsigned word, bool write)
{
	struct access a = { .word = at(page, word), .write = write };
	uintptr_t here = (uintptr_t)at(page, word);

	do_access(&a);
	CHECK_EQ(a.signal, SIGBUS);
	/* Before Linux 5.18 a message tells the page only. */
	if (!(q->engine.uffd.features & UFFD_FEATURE_EXACT_ADDRESS))
		here &= ~(uintptr_t)(PAGE_BYTES - 1);
	CHECK_EQ((uintptr_t)a.address, here);
}

/* Change a byte of the page's slot, and back. */
static void flip(uint64_t page)
{
	off_t where = (off_t)entry_payload(atomic_load(region_entry(r, page))) * (off_t)PAGE_BYTES;
	unsigned char byte;

	REQUIRE_EQ(pread(file, &byte, 1, where + 77), 1);
	byte ^= 1;
	REQUIRE_EQ(pwrite(file, &byte, 1, where + 77), 1);
	REQUIRE_EQ(fsync(file), 0);
}

/* The cause is gone. Refusals stand for a while: at last the access works. => what was read */
static uint64_t served_again(uint64_t page, unsigned word)
{
	struct access a = { .signal = 1 };

	for (int i = 0; i < 40 && a.signal; i++) {
		nap(i ? 50 : 0);
		a = (struct access){ .word = at(page, word) };
		do_access(&a);
	}
	CHECK_EQ(a.signal, 0);
	return a.value;
}

static void check_all(void)
{
	uint64_t wrong = 0;

	for (uint64_t page = 0; page < PAGES; page++)
		for (unsigned word = 0; word < WORDS; word++)
			wrong += *at(page, word) != page * WORDS + word + 1;
	CHECK_EQ(wrong, 0);
}

/* ---------------------------------------------------- a disk that stalls */

/* No queue for a second: an access waits, is not refused, and costs nothing meanwhile. */
static void waits_for_a_queue(void)
{
	struct access a[8];
	pthread_t thread[8];
	double cpu;

	start("uffd");
	fill();
	for (unsigned i = 0; i < 8; i++) {
		await_slot(LOST + i * 16);
		a[i] = (struct access){ .word = at(LOST + i * 16, 9) };
	}
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		while (!lock_try(&q->pager.reads[i].lock))
			nap(1);
	cpu = cpu_seconds();
	for (unsigned i = 0; i < 8; i++)
		REQUIRE_EQ(pthread_create(&thread[i], NULL, access_thread, &a[i]), 0);
	nap(900);
	cpu = cpu_seconds() - cpu;
	CHECK(cpu < 0.3);
	if (cpu >= 0.3)
		printf("%.2f s of CPU while it waited\n", cpu);
	for (unsigned i = 0; i < 8; i++)
		CHECK(!atomic_load(&a[i].ended));
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		lock_release(&q->pager.reads[i].lock);
	for (unsigned i = 0; i < 8; i++) {
		pthread_join(thread[i], NULL);
		CHECK_EQ(a[i].signal, 0);
		CHECK_EQ(a[i].value, (LOST + i * 16) * WORDS + 10);
	}
	CHECK_EQ(told[QUIRE_ERROR_NO_MEMORY], 0);
	check_all();
	finish();
}

/* The swap file is to grow before the first page can be written, and the file system lets that wait. */
static void waits_for_room(const char *engine)
{
	struct access a = { .write = true, .value = 7 };

	start(engine);
	atomic_store(&grow_ms, 1200);
	for (uint64_t page = 0; page < 2 * BUDGET && a.signal == 0; page++) {
		a.word = at(page, 1);
		do_access(&a);
	}
	atomic_store(&grow_ms, 0);
	CHECK_EQ(a.signal, 0);
	CHECK_EQ(told[QUIRE_ERROR_NO_MEMORY], 0);
	for (uint64_t page = 0; page < 2 * BUDGET && a.signal == 0; page++)
		CHECK_EQ(*at(page, 1), 7);
	finish();
}

static void waits_for_room_uffd(void)
{
	waits_for_room("uffd");
}

static void waits_for_room_signal(void)
{
	waits_for_room("uffd-signal");
}

static void *destroy(void *region)
{
	return quire_region_destroy(region) == 0 ? region : NULL;
}

/* As entry_publish does, without the region: it may be gone at once. */
static void *publish_late(void *entry)
{
	nap(1200);
	atomic_store((entry_t *)entry, ENTRY_EMPTY);
	futex_wake(entry_futex(entry), INT32_MAX, false);
	return NULL;
}

/* Another region holds all memory, and the thread that gives it up is slow: it waits for an entry. */
static void waits_for_a_destroyer(const char *engine)
{
	struct access a = { .write = true, .value = 7 };
	struct quire_region *other;
	pthread_t thread, publisher;
	uint32_t taken = 0;
	void *destroyed;

	start(engine);
	REQUIRE_EQ(quire_region_create(q, (BUDGET + 1) * PAGE_BYTES, NULL, &other), 0);
	CHECK_EQ(quire_advise(other, 0, PAGE_BYTES, QUIRE_ADVISE_RANDOM), 0);
	for (uint64_t page = 0; page < BUDGET; page++)
		*(volatile char *)region_page(other, page) = 1;
	CHECK_EQ(entry_hold(other, BUDGET), ENTRY_EMPTY);
	REQUIRE_EQ(pthread_create(&thread, NULL, destroy, other), 0);
	REQUIRE_EQ(pthread_create(&publisher, NULL, publish_late, region_entry(other, BUDGET)), 0);
	while (atomic_load(&other->alive) != REGION_GONE)
		nap(1);
	nap(20);
	/* Not even the little that is always free: with it this region could evict pages of its own. */
	while (credits_try(&q->pager, 1))
		taken++;
	a.word = at(0, 1);
	do_access(&a);
	credits_put(&q->pager, taken);
	pthread_join(publisher, NULL);
	pthread_join(thread, &destroyed);
	CHECK(destroyed != NULL);
	CHECK_EQ(a.signal, 0);
	CHECK_EQ(told[QUIRE_ERROR_NO_MEMORY], 0);
	finish();
}

static void waits_for_a_destroyer_uffd(void)
{
	waits_for_a_destroyer("uffd");
}

static void waits_for_a_destroyer_signal(void)
{
	waits_for_a_destroyer("uffd-signal");
}

/* ---------------------------------------------------------------- taking */

static bool is_present(uint64_t page)
{
	unsigned char in_core;

	REQUIRE_EQ(mincore(region_page(r, page), PAGE_BYTES, &in_core), 0);
	return in_core & 1;
}

static bool was_moved;

/* One page through the engine's take, its entry held; then it is put back. */
static enum take_result take(uint64_t page, bool *dirty)
{
	uint32_t c = cluster_get(&q->pager, 1);
	struct take_page t = { .page = region_page(r, page),
		               .buffer = buffer_address(&q->pager, c * CLUSTER_PAGES),
		               .wanted = true,
		               .backed = true };
	uint64_t held;

	while (!cluster_populate(&q->pager, c, 1))
		nap(1);
	reclaim_enter(&q->pager); /* by whose number the handler knows who takes pages */
	held = entry_hold(r, page);
	if (entry_state(held) == ENTRY_MAPPED) {
		t.dirty = q->pager.frames[entry_payload(held)].slot == SLOT_NONE;
		q->engine.ops->take(&q->engine, &t, 1);
		/* As if it had not been asked for. */
		if (t.result == TAKE_DONE)
			CHECK_EQ(q->engine.ops->map(&q->engine, t.page, t.buffer, 1, t.dirty), 1);
	}
	was_moved = t.moved;
	if (dirty)
		*dirty = t.dirty;
	entry_publish(r, page, held);
	reclaim_leave(&q->pager);
	cluster_put(&q->pager, c);
	return t.result;
}

static void takes_what_is_there(const char *engine)
{
	bool dirty;

	start_as(engine, (struct how){ .no_move = true });
	*at(5, 3) = 77;
	CHECK_EQ(take(5, &dirty), TAKE_DONE);
	CHECK(dirty);
	CHECK_EQ(*at(5, 3), 77);
	/* There, and cannot be read: it stays, with its bytes. */
	REQUIRE_EQ(syscall(SYS_mprotect, region_page(r, 5), PAGE_BYTES, PROT_NONE), 0);
	CHECK_EQ(take(5, NULL), TAKE_KEPT);
	CHECK(is_present(5));
	REQUIRE_EQ(syscall(SYS_mprotect, region_page(r, 5), PAGE_BYTES, PROT_READ | PROT_WRITE), 0);
	CHECK_EQ(*at(5, 3), 77);
	*at(5, 3) = 78;
	CHECK_EQ(*at(5, 3), 78);
	CHECK_EQ(take(5, NULL), TAKE_DONE);
	/* Discarded by the program, whatever its protection. */
	for (int none = 0; none < 2; none++) {
		REQUIRE_EQ(syscall(SYS_madvise, region_page(r, 5), PAGE_BYTES, MADV_DONTNEED), 0);
		if (none)
			mprotect(region_page(r, 5), PAGE_BYTES, PROT_NONE);
		/* What can be read is read: the handler gives zeros to a reclaimer that finds nothing. */
		CHECK_EQ(take(5, NULL), none || q->engine.ops->in_thread ? TAKE_GONE : TAKE_DONE);
		CHECK(none ? !is_present(5) : true);
		mprotect(region_page(r, 5), PAGE_BYTES, PROT_READ | PROT_WRITE);
		CHECK_EQ(*at(5, 3), 0);
		*at(5, 3) = 79;
	}
	finish();
}

static void takes_what_is_there_uffd(void)
{
	takes_what_is_there("uffd");
}

static void takes_what_is_there_signal(void)
{
	takes_what_is_there("uffd-signal");
}

/* Read it in and hold its entry, clean and mapped. => reclaim lock held: who waits for that holds no mapped page */
static uint64_t hold_clean(uint64_t page)
{
	for (;;) {
		uint64_t held;

		await_slot(page);
		(void)*at(page, 0);
		reclaim_enter(&q->pager);
		held = entry_hold(r, page);
		if (entry_state(held) == ENTRY_MAPPED &&
		    q->pager.frames[entry_payload(held)].slot != SLOT_NONE)
			return held;
		entry_publish(r, page, held);
		reclaim_leave(&q->pager);
	}
}

/* A clean page's removal, its bytes left to its slot, with a system call just before; then it is put back. */
static enum take_result drop_clean(uint64_t page, long call, unsigned long argument)
{
	struct take_page t = { .page = region_page(r, page) };
	uint64_t held = hold_clean(page);
	char bytes[PAGE_BYTES];

	memcpy(bytes, t.page, sizeof bytes);
	if (call)
		REQUIRE_EQ(syscall(call, t.page, PAGE_BYTES, argument), 0);
	q->engine.ops->take(&q->engine, &t, 1);
	if (t.result == TAKE_DONE) {
		CHECK(!is_present(page));
		CHECK_EQ(q->engine.ops->map(&q->engine, t.page, bytes, 1, false), 1);
	}
	entry_publish(r, page, held);
	reclaim_leave(&q->pager);
	return t.result;
}

static void drops_what_is_not_wanted(const char *engine)
{
	start(engine);
	*at(5, 3) = 77;
	CHECK_EQ(drop_clean(5, 0, 0), TAKE_DONE);
	CHECK_EQ(*at(5, 3), 77);
	/* It is not read, so it may be out of reach. */
	CHECK_EQ(drop_clean(5, SYS_mprotect, PROT_NONE), TAKE_DONE);
	REQUIRE_EQ(syscall(SYS_mprotect, region_page(r, 5), PAGE_BYTES, PROT_READ | PROT_WRITE), 0);
	CHECK_EQ(*at(5, 3), 77);
	/* A lock keeps no page of ours, where the kernel lets it go. */
	drop_clean(5, SYS_mlock2, MLOCK_ONFAULT);
	CHECK_EQ(*at(5, 3), 77);
	REQUIRE_EQ(munlock(region_page(r, 5), PAGE_BYTES), 0);
	/* What the program has discarded must not come back from its slot. */
	CHECK_EQ(drop_clean(5, SYS_madvise, MADV_DONTNEED), TAKE_GONE);
	CHECK_EQ(*at(5, 3), 0);
	finish();
}

static void drops_what_is_not_wanted_uffd(void)
{
	drops_what_is_not_wanted("uffd");
}

static void drops_what_is_not_wanted_signal(void)
{
	drops_what_is_not_wanted("uffd-signal");
}

/* A dirty page may be in use by the kernel, so it is moved: also if the program has locked memory. */
static void locked_pages_are_moved(void)
{
	bool dirty;

	start("uffd");
	if (!q->engine.uffd.move) {
		printf("left out: this kernel does not move pages\n");
		finish();
		return;
	}
	*at(5, 3) = 77;
	CHECK_EQ(take(5, &dirty), TAKE_DONE);
	CHECK(dirty && was_moved);
	REQUIRE_EQ(syscall(SYS_mlock2, r->base, r->bytes, MLOCK_ONFAULT), 0);
	CHECK_EQ(take(5, NULL), TAKE_DONE);
	CHECK(was_moved);
	CHECK_EQ(*at(5, 3), 77);
	/* The other way round: only the buffers are, and then both. */
	REQUIRE_EQ(syscall(SYS_mlock2, q->buffer_arena.base, q->buffer_arena.usable, MLOCK_ONFAULT),
	           0);
	CHECK_EQ(take(5, NULL), TAKE_DONE);
	CHECK(was_moved);
	REQUIRE_EQ(syscall(SYS_mlock2, q->buffer_arena.base, q->buffer_arena.usable, MLOCK_ONFAULT),
	           0);
	REQUIRE_EQ(syscall(SYS_mlock2, r->base, r->bytes, MLOCK_ONFAULT), 0);
	CHECK_EQ(take(5, NULL), TAKE_DONE);
	CHECK(was_moved);
	CHECK_EQ(*at(5, 3), 77);
	/* What the program made read-only the kernel does not move: nobody writes to it. */
	REQUIRE_EQ(syscall(SYS_mprotect, region_page(r, 5), PAGE_BYTES, PROT_READ), 0);
	CHECK_EQ(take(5, NULL), TAKE_DONE);
	CHECK(!was_moved);
	REQUIRE_EQ(syscall(SYS_mprotect, region_page(r, 5), PAGE_BYTES, PROT_READ | PROT_WRITE), 0);
	CHECK_EQ(*at(5, 3), 77);
	finish();
}

/* Pages that stay are passed over by the reclaimer, which serves others and then sleeps. */
static void kept_pages_do_not_spin(void)
{
	double cpu;

	start_as("uffd", (struct how){ .no_move = true });
	for (uint64_t page = 0; page < 24; page++)
		*at(page, 1) = page + 1;
	REQUIRE_EQ(syscall(SYS_mprotect, r->base, 24 * PAGE_BYTES, PROT_NONE), 0);
	for (uint64_t page = 24; page < PAGES; page++)
		*at(page, 1) = page + 1;
	for (uint64_t page = 24; page < PAGES; page++)
		CHECK_EQ(*at(page, 1), page + 1);
	for (uint64_t page = 0; page < 24; page++)
		CHECK_EQ(entry_state(atomic_load(region_entry(r, page))), ENTRY_MAPPED);
	nap(50);
	cpu = cpu_seconds();
	nap(300);
	CHECK(cpu_seconds() - cpu < 0.1);
	REQUIRE_EQ(syscall(SYS_mprotect, r->base, 24 * PAGE_BYTES, PROT_READ | PROT_WRITE), 0);
	for (uint64_t page = 0; page < 24; page++)
		CHECK_EQ(*at(page, 1), page + 1);
	finish();
}

/* As the reclaimer says which pages it may fault on. */
static void reads(struct take_page **list, unsigned n)
{
	lock_acquire(&q->engine.uffd.reading_lock);
	q->engine.uffd.reading = list;
	q->engine.uffd.reading_count = n;
	lock_release(&q->engine.uffd.reading_lock);
}

/* The zeros that the handler gives to a reclaimer are no page to write to: it is going to drop it. */
static void zeros_for_the_reclaimer(void)
{
	char buffer[16] = "not zeros";
	struct iovec to = { buffer, sizeof buffer }, from;
	struct take_page page, *list = &page;
	struct access a;
	pthread_t thread;
	uint64_t held;

	start("uffd");
	*at(5, 0) = 77;
	page = (struct take_page){ .page = region_page(r, 5), .wanted = true };
	reads(&list, 1);
	from = (struct iovec){ region_page(r, 5), sizeof buffer };
	reclaim_enter(&q->pager);
	held = entry_hold(r, 5);
	REQUIRE_EQ(syscall(SYS_madvise, region_page(r, 5), PAGE_BYTES, MADV_DONTNEED), 0);
	CHECK_EQ(process_vm_readv(getpid(), &to, 1, &from, 1, 0), (ssize_t)sizeof buffer);
	CHECK_EQ(memcmp(buffer, (char[16]){ 0 }, 16), 0);
	reads(NULL, 0);
	a = (struct access){ .word = at(5, 1), .write = true, .value = 78 };
	REQUIRE_EQ(pthread_create(&thread, NULL, access_thread, &a), 0);
	nap(100);
	CHECK(!atomic_load(&a.ended));
	CHECK_EQ(uffd_drop(&q->engine, region_page(r, 5), 1), 0);
	entry_publish(r, 5, held);
	reclaim_leave(&q->pager);
	pthread_join(thread, NULL);
	CHECK_EQ(*at(5, 0), 0);
	CHECK_EQ(*at(5, 1), 78);
	finish();
}

static struct access intruder;
static pthread_t intruder_thread;

/* As soon as the probe's page of zeros is there, another thread writes to it. */
static void intrude(void)
{
	intruder = (struct access){ .word = at(7, 2), .write = true, .value = 79 };
	REQUIRE_EQ(pthread_create(&intruder_thread, NULL, access_thread, &intruder), 0);
	nap(100);
}

static void write_into_the_probe(void)
{
	/* Under an in-thread engine a page that is absent is an error to who reads it. */
	start_as("uffd-signal", (struct how){ .no_move = true });
	*at(7, 2) = 78;
	REQUIRE_EQ(syscall(SYS_madvise, region_page(r, 7), PAGE_BYTES, MADV_DONTNEED), 0);
	after_copy = intrude;
	CHECK_EQ(take(7, NULL), TAKE_GONE);
	CHECK(after_copy == NULL);
	pthread_join(intruder_thread, NULL);
	CHECK_EQ(intruder.signal, 0);
	CHECK_EQ(*at(7, 2), 79);
	finish();
}

/* ----------------------------------------- a kernel without UFFDIO_POISON */

static void start_without_poison(size_t swap_size)
{
	start_as("uffd", (struct how){ .swap_size = swap_size, .no_poison = true });
}

static void lose(uint64_t page)
{
	await_slot(page);
	flip(page);
}

static void lost_page(void)
{
	struct access a;
	pthread_t thread;

	start_without_poison(0);
	fill();
	lose(LOST);
	for (unsigned i = 0; i < 3; i++) {
		is_refused(LOST, 5 + 100 * i, false);
		is_refused(LOST, 6 + 100 * i, true);
	}
	CHECK(told[QUIRE_ERROR_CHECKSUM] > 0);
	/* The thread that touched it, and no other. */
	a = (struct access){ .word = at(LOST, 40) };
	REQUIRE_EQ(pthread_create(&thread, NULL, access_thread, &a), 0);
	pthread_join(thread, NULL);
	CHECK_EQ(a.signal, SIGBUS);
	CHECK(a.address == (void *)at(LOST, 40) || a.address == (void *)region_page(r, LOST));
	CHECK_EQ(*at(LOST - 1, 5), (LOST - 1) * WORDS + 6);
	CHECK_EQ(*at(LOST + 1, 5), (LOST + 1) * WORDS + 6);
	/* The cause is gone: the page is there. */
	flip(LOST);
	CHECK_EQ(served_again(LOST, 5), LOST * WORDS + 6);
	check_all();
	/* Discarded while it is refused. */
	lose(LOST);
	is_refused(LOST, 0, false);
	CHECK_EQ(quire_advise(r, LOST * PAGE_BYTES, PAGE_BYTES, QUIRE_ADVISE_DONTNEED), 0);
	CHECK_EQ(*at(LOST, 0), 0);
	finish();
}

/* Whichever handler refused it, and whoever of them sleeps: nothing else wakes them meanwhile. */
static void refusals_end_alone(void)
{
	start("uffd");
	if (!q->engine.uffd.poison) {
		printf("left out: this kernel does not poison pages\n");
		finish();
		return;
	}
	fill();
	for (unsigned i = 0; i < 24; i++) {
		lose(LOST);
		/* A stream of faults keeps them awake for a while. */
		for (unsigned k = 0; k < 20; k++)
			(void)*at((LOST + 16 + i * 41 + k * 7) % LOST, 0);
		nap(i % 3 == 2 ? 1 : 0);
		is_refused(LOST, 3, false);
		flip(LOST);
		CHECK_EQ(served_again(LOST, 3), LOST * WORDS + 4);
	}
	finish();
}

/* The kernel's mappings that the region consists of. */
static unsigned mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long from, to;
	unsigned n = 0;
	char line[4200];

	REQUIRE(maps != NULL);
	while (fgets(line, sizeof line, maps))
		n += sscanf(line, "%lx-%lx", &from, &to) == 2 &&
		     from < (uintptr_t)r->base + r->bytes && to > (uintptr_t)r->base;
	fclose(maps);
	return n;
}

/* System calls fail with EFAULT, and the thread gets no signal. */
static void lost_page_in_calls(void)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC), pipes[2];
	struct access a = { .write = true };
	unsigned before;
	void *page;

	REQUIRE(zero >= 0 && pipe(pipes) == 0);
	start_without_poison(0);
	fill();
	lose(LOST);
	page = region_page(r, LOST);
	a.word = at(LOST, 5);
	before = mappings();
	REQUIRE(before > 0);
	for (int i = 0; i < 3; i++) {
		errno = 0;
		CHECK_EQ(read(zero, page, 100), -1);
		CHECK_EQ(errno, EFAULT);
		errno = 0;
		CHECK_EQ(write(pipes[1], page, 100), -1);
		CHECK_EQ(errno, EFAULT);
		is_refused(LOST, 3, i & 1);
	}
	/* As much as can be had, as of any bad address. */
	CHECK_EQ(read(zero, (char *)page - 100, 200), 100);
	/* The mapping is one, and the page is as protected as it was. */
	nap(20);
	CHECK_EQ(mappings(), before);
	REQUIRE_EQ(quire_protect(r, LOST * PAGE_BYTES, PAGE_BYTES, PROT_READ), 0);
	CHECK_EQ(write(pipes[1], page, 100), -1);
	flip(LOST);
	CHECK_EQ(served_again(LOST, 5), LOST * WORDS + 6);
	do_access(&a);
	CHECK_EQ(a.signal, SIGSEGV);
	REQUIRE_EQ(quire_protect(r, LOST * PAGE_BYTES, PAGE_BYTES, PROT_READ | PROT_WRITE), 0);
	CHECK_EQ(write(pipes[1], page, 100), 100);
	CHECK_EQ(read(zero, page, 8), 8);
	CHECK_EQ(*at(LOST, 0), 0);
	close(zero);
	close(pipes[0]);
	close(pipes[1]);
	finish();
}

static void on_alarm(int signal)
{
	(void)signal;
}

/* A signal is pending while the call faults: it is refused all the same. */
static void lost_page_in_interrupted_call(void)
{
	struct sigaction alarmed = { .sa_handler = on_alarm };
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	timer_t timer;
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	struct itimerspec often = { { 0, 50000 }, { 0, 50000 } };

	REQUIRE(zero >= 0);
	start_without_poison(0);
	fill();
	lose(LOST);
	sigaction(SIGALRM, &alarmed, NULL);
	REQUIRE_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	REQUIRE_EQ(timer_settime(timer, 0, &often, NULL), 0);
	for (int i = 0; i < 20; i++) {
		errno = 0;
		CHECK_EQ(read(zero, region_page(r, LOST), 100), -1);
		CHECK_EQ(errno, EFAULT);
	}
	timer_delete(timer);
	close(zero);
	finish();
}

/* A thread that blocks the signal cannot be told: it waits, in no busy loop, until the page is there. */
static void lost_page_blocked_signal(void)
{
	struct access a;
	pthread_t thread;
	double cpu;

	start_without_poison(0);
	fill();
	lose(LOST);
	a = (struct access){ .word = at(LOST, 8) };
	cpu = cpu_seconds();
	REQUIRE_EQ(pthread_create(&thread, NULL, blocked_thread, &a), 0);
	nap(500);
	CHECK(!atomic_load(&a.ended));
	CHECK(cpu_seconds() - cpu < 0.2);
	flip(LOST);
	pthread_join(thread, NULL);
	CHECK_EQ(a.signal, 0);
	CHECK_EQ(a.value, LOST * WORDS + 9);
	finish();
}

static void no_memory(void)
{
	struct access a = { .write = true };
	uint64_t page, stored = 0;

	start_without_poison(128 * PAGE_BYTES);
	for (page = 0; page < PAGES; page++) {
		a = (struct access){ .word = at(page, 1), .write = true, .value = page + 1 };
		do_access(&a);
		if (a.signal)
			break;
		stored = page + 1;
	}
	REQUIRE(stored < PAGES && stored > 64);
	CHECK_EQ(a.signal, SIGBUS);
	CHECK((uintptr_t)a.address >> PAGE_SHIFT == (uintptr_t)a.word >> PAGE_SHIFT);
	CHECK(told[QUIRE_ERROR_NO_MEMORY] > 0);
	/* There is room again. */
	CHECK_EQ(quire_advise(r, 0, 64 * PAGE_BYTES, QUIRE_ADVISE_DONTNEED), 0);
	do_access(&a);
	a = (struct access){ .word = a.word, .write = true, .value = 5 };
	do_access(&a);
	CHECK_EQ(a.signal, 0);
	CHECK_EQ(*at(stored, 1), 5);
	for (page = 64; page < stored; page++)
		CHECK_EQ(*at(page, 1), page + 1);
	finish();
}

/* Many threads at many lost pages, more than are remembered as refused. */
static struct access many[100];

static void many_lost_pages(void)
{
	pthread_t thread[100];

	start_without_poison(0);
	fill();
	await_slot(250);
	for (unsigned i = 0; i < 100; i++) {
		REQUIRE_EQ(entry_state(atomic_load(region_entry(r, 200 + i))), ENTRY_SLOT);
		flip(200 + i);
	}
	for (unsigned i = 0; i < 100; i++) {
		many[i] = (struct access){ .word = at(200 + i, 3) };
		REQUIRE_EQ(pthread_create(&thread[i], NULL, access_thread, &many[i]), 0);
	}
	for (unsigned i = 0; i < 100; i++) {
		pthread_join(thread[i], NULL);
		CHECK_EQ(many[i].signal, SIGBUS);
	}
	/* None is forgotten. */
	for (unsigned i = 0; i < 100; i++)
		flip(200 + i);
	for (unsigned i = 0; i < 100; i++)
		CHECK_EQ(served_again(200 + i, 3), (200 + i) * WORDS + 4);
	check_all();
	finish();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(waits_for_a_queue),
		UNIT(waits_for_room_uffd),
		UNIT(waits_for_room_signal),
		UNIT(waits_for_a_destroyer_uffd),
		UNIT(waits_for_a_destroyer_signal),
		UNIT(takes_what_is_there_uffd),
		UNIT(takes_what_is_there_signal),
		UNIT(drops_what_is_not_wanted_uffd),
		UNIT(drops_what_is_not_wanted_signal),
		UNIT(locked_pages_are_moved),
		UNIT(kept_pages_do_not_spin),
		UNIT(zeros_for_the_reclaimer),
		UNIT(write_into_the_probe),
		UNIT(lost_page),
		UNIT(refusals_end_alone),
		UNIT(lost_page_in_calls),
		UNIT(lost_page_in_interrupted_call),
		UNIT(lost_page_blocked_signal),
		UNIT(no_memory),
		UNIT(many_lost_pages),
		UNIT_END,
	};
	struct sigaction caught = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

	if (unit_valgrind())
		unit_skip_all(
			"valgrind runs one thread at a time: none would serve another's fault");
	sigaction(SIGBUS, &caught, NULL);
	sigaction(SIGSEGV, &caught, NULL);
	return unit_main(argc, argv, "uffd", tests);
}
