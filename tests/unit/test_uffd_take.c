/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_uffd_take.c - pages on their way out of this kernel's page tables
 * (vm/uffd_take.c), while they cannot be read, or are not there, or locked.
 */
#include "tests/unit/uffd_fixture.h"

#include "base/kernel.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Called once, at the end of the next UFFDIO_COPY. */
static void (*after_copy)(void);

/* The next UFFDIO_COPY fails with this. */
static _Atomic int refuse_copy;

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
	if (request == UFFDIO_COPY && refuse_copy) {
		((struct uffdio_copy *)arg)->copy = -refuse_copy;
		errno = atomic_exchange(&refuse_copy, 0);
		return -1;
	}
	result = (int)syscall(SYS_ioctl, fd, request, arg);
	if (hook && result == 0) {
		after_copy = NULL;
		hook();
	}
	return result;
}

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
	struct take_page t = { .region = r,
		               .page = region_page(r, page),
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
			CHECK_EQ(q->engine.ops->map(&q->engine, r, t.page, t.buffer, 1, t.dirty),
			         1);
	}
	was_moved = t.moved;
	if (dirty)
		*dirty = t.dirty;
	entry_publish(r, page, held);
	reclaim_leave(&q->pager);
	cluster_put(&q->pager, c);
	return t.result;
}

/* ----------------------------------------------------------------- save */

/* Pages 0 to 3 are there, the others are not; as a handler of the engine's that has nobody beside it. */
static void *save_some(void *arg)
{
	struct engine *e = &q->engine;
	uint64_t held[6];
	uint32_t c = cluster_get(&q->pager, 0);
	char *buffer = buffer_address(&q->pager, c * CLUSTER_PAGES);
	unsigned saved = 0;
	int n;

	thread_is_ours = true;
	for (uint64_t i = 0; i < 6; i++)
		held[i] = entry_hold(r, i);
	uffd_protection(e, region_page(r, 0), 4, true);
	/* Perhaps not all at once, but each that is there. */
	while ((n = e->ops->save(e, r, region_page(r, saved), buffer + saved * PAGE_BYTES,
	                         6 - saved)) > 0)
		saved += (unsigned)n;
	CHECK_EQ(saved, 4);
	CHECK_EQ(n, -ENOENT);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(*(uint64_t *)(void *)(buffer + i * PAGE_BYTES), 10 + i);
	CHECK(!is_present(4) && !is_present(5));
	uffd_unprotect(e, r, region_page(r, 0), 4);
	madvise(buffer, 4 * PAGE_BYTES, MADV_DONTNEED);
	for (uint64_t i = 0; i < 6; i++)
		entry_publish(r, i, held[i]);
	cluster_put(&q->pager, c);
	thread_is_ours = false;
	return arg;
}

static void save_waits_for_nobody(const char *engine)
{
	uffd_start(engine);
	quire_advise(r, 0, PAGES * PAGE_BYTES, QUIRE_ADVISE_RANDOM);
	for (uint64_t i = 0; i < 4; i++)
		*at(i, 0) = 10 + i;
	CHECK_EQ(q->engine.save_waits, false);
	save_some(NULL);
	for (uint64_t i = 0; i < 4; i++)
		CHECK_EQ((*at(i, 0))++, 10 + i);
	uffd_finish();
}

static void save_by_a_handler(void)
{
	save_waits_for_nobody("uffd");
}

static void save_in_thread(void)
{
	save_waits_for_nobody("uffd-signal");
}

/* ----------------------------------------------------------------- take */

/*
 * Of pages whose buffers have neither memory nor a credit one is copied; other clean
 * ones are dropped, dirty ones stay (or are moved).
 */
static void no_page_is_there_twice(const char *engine)
{
	struct take_page t[6];
	uint64_t held[6];
	uint32_t c;

	uffd_start_as(engine, (struct uffd_how){ .no_move = true });
	c = cluster_get(&q->pager, 6);
	for (uint64_t i = 0; i < 6; i++) {
		*at(2 * i, 0) = 10 + i;
		held[i] = entry_hold(r, 2 * i);
		REQUIRE_EQ(entry_state(held[i]), ENTRY_MAPPED);
		t[i] = (struct take_page){ .region = r,
			                   .page = region_page(r, 2 * i),
			                   .buffer = buffer_address(&q->pager, c * CLUSTER_PAGES +
			                                                               (uint32_t)i),
			                   .wanted = true,
			                   .dirty = i < 3,
			                   .backed = i == 2 || i == 5 };
		/* As good as clean: nobody has it writable. */
		if (i >= 3)
			uffd_protection(&q->engine, t[i].page, 1, true);
	}
	reclaim_enter(&q->pager);
	q->engine.ops->take(&q->engine, t, 6);
	reclaim_leave(&q->pager);
	for (unsigned i = 0; i < 6; i++) {
		bool copied = i == 0 || i == 2 || i == 5, dropped = i == 3 || i == 4;

		CHECK_EQ(t[i].result, copied || dropped ? TAKE_DONE : TAKE_LATER);
		CHECK_EQ(is_present(2 * i), !copied && !dropped);
		CHECK_EQ(t[i].buffer == NULL, dropped);
		if (copied)
			CHECK_EQ(*(uint64_t *)(void *)t[i].buffer, 10 + i);
		if (copied)
			CHECK_EQ(q->engine.ops->map(&q->engine, r, t[i].page, t[i].buffer, 1, true),
			         1);
		if (i == 1)
			q->engine.ops->unprotect(&q->engine, r, t[i].page, 1);
		if (dropped)
			CHECK_EQ(q->engine.ops->map_zero(&q->engine, r, t[i].page, 1, true), 1);
		madvise(buffer_address(&q->pager, c * CLUSTER_PAGES + i), PAGE_BYTES,
		        MADV_DONTNEED);
		entry_publish(r, 2 * i, held[i]);
	}
	cluster_put(&q->pager, c);
	CHECK_EQ(*at(2, 0), 11);
	uffd_finish();
}

static void no_page_is_there_twice_uffd(void)
{
	no_page_is_there_twice("uffd");
}

static void no_page_is_there_twice_signal(void)
{
	no_page_is_there_twice("uffd-signal");
}

static void takes_what_is_there(const char *engine)
{
	bool dirty;

	uffd_start_as(engine, (struct uffd_how){ .no_move = true });
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
	uffd_finish();
}

static void takes_what_is_there_uffd(void)
{
	takes_what_is_there("uffd");
}

static void takes_what_is_there_signal(void)
{
	takes_what_is_there("uffd-signal");
}

static int refuse_in_take;

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
	struct take_page t = { .region = r, .page = region_page(r, page) };
	uint64_t held = hold_clean(page);
	char bytes[PAGE_BYTES];

	memcpy(bytes, t.page, sizeof bytes);
	if (call)
		REQUIRE_EQ(syscall(call, t.page, PAGE_BYTES, argument), 0);
	atomic_store(&refuse_copy, refuse_in_take);
	refuse_in_take = 0;
	q->engine.ops->take(&q->engine, &t, 1);
	atomic_store(&refuse_copy, 0);
	if (t.result == TAKE_DONE) {
		CHECK(!is_present(page));
		CHECK_EQ(q->engine.ops->map(&q->engine, r, t.page, bytes, 1, false), 1);
	}
	entry_publish(r, page, held);
	reclaim_leave(&q->pager);
	return t.result;
}

static void drops_what_is_not_wanted(const char *engine)
{
	uffd_start(engine);
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
	/* Not by the C library: sanitizers take it out. */
	REQUIRE_EQ(syscall(SYS_munlock, region_page(r, 5), PAGE_BYTES), 0);
	/*
	 * What the program has discarded must not come back from its slot, not even where the kernel is
	 * too short of memory to tell whether it is there.
	 */
	refuse_in_take = ENOMEM;
	CHECK_EQ(drop_clean(5, SYS_madvise, MADV_DONTNEED), TAKE_KEPT);
	CHECK_EQ(*at(5, 3), 0);
	*at(5, 3) = 77;
	CHECK_EQ(drop_clean(5, SYS_madvise, MADV_DONTNEED), TAKE_GONE);
	CHECK_EQ(*at(5, 3), 0);
	uffd_finish();
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

	uffd_start("uffd");
	if (!q->engine.uffd.move) {
		printf("left out: this kernel does not move pages\n");
		uffd_finish();
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
	uffd_finish();
}

/* Pages that stay are passed over by the reclaimer, which serves others and then sleeps. */
static void kept_pages_do_not_spin(void)
{
	double cpu;

	uffd_start_as("uffd", (struct uffd_how){ .no_move = true });
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
	uffd_finish();
}

/* The zeros that the handler gives to a reclaimer are no page to write to: it is going to drop it. */
static void zeros_for_the_reclaimer(void)
{
	char buffer[16] = "not zeros";
	struct iovec to = { buffer, sizeof buffer }, from;
	struct take_page page, *list = &page;
	struct uffd_reader me;
	struct access a;
	pthread_t thread;
	uint64_t held;

	uffd_start("uffd");
	*at(5, 0) = 77;
	page = (struct take_page){ .region = r, .page = region_page(r, 5), .wanted = true };
	uffd_reading_begin(&q->engine, &me, &list, 1);
	from = (struct iovec){ region_page(r, 5), sizeof buffer };
	reclaim_enter(&q->pager);
	held = entry_hold(r, 5);
	REQUIRE_EQ(syscall(SYS_madvise, region_page(r, 5), PAGE_BYTES, MADV_DONTNEED), 0);
	CHECK_EQ(process_vm_readv(getpid(), &to, 1, &from, 1, 0), (ssize_t)sizeof buffer);
	CHECK_EQ(memcmp(buffer, (char[16]){ 0 }, 16), 0);
	uffd_reading_end(&q->engine, &me);
	a = (struct access){ .word = at(5, 1), .write = true, .value = 78 };
	REQUIRE_EQ(pthread_create(&thread, NULL, access_thread, &a), 0);
	nap(100);
	CHECK(!atomic_load(&a.ended));
	CHECK_EQ(uffd_drop(&q->engine, NULL, region_page(r, 5), 1), 0);
	entry_publish(r, 5, held);
	reclaim_leave(&q->pager);
	pthread_join(thread, NULL);
	CHECK_EQ(*at(5, 0), 0);
	CHECK_EQ(*at(5, 1), 78);
	uffd_finish();
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
	uffd_start_as("uffd-signal", (struct uffd_how){ .no_move = true });
	*at(7, 2) = 78;
	REQUIRE_EQ(syscall(SYS_madvise, region_page(r, 7), PAGE_BYTES, MADV_DONTNEED), 0);
	after_copy = intrude;
	CHECK_EQ(take(7, NULL), TAKE_GONE);
	CHECK(after_copy == NULL);
	pthread_join(intruder_thread, NULL);
	CHECK_EQ(intruder.signal, 0);
	CHECK_EQ(*at(7, 2), 79);
	uffd_finish();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(save_by_a_handler),
		UNIT(save_in_thread),
		UNIT(no_page_is_there_twice_uffd),
		UNIT(no_page_is_there_twice_signal),
		UNIT(takes_what_is_there_uffd),
		UNIT(takes_what_is_there_signal),
		UNIT(drops_what_is_not_wanted_uffd),
		UNIT(drops_what_is_not_wanted_signal),
		UNIT(locked_pages_are_moved),
		UNIT(kept_pages_do_not_spin),
		UNIT(zeros_for_the_reclaimer),
		UNIT(write_into_the_probe),
		UNIT_END,
	};

	return uffd_main(argc, argv, "uffd_take", tests);
}
