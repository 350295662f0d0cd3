/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_owner.c - regions that go while the pager is at their pages
 * (vm/owner.c): what the program is told of failed writes (owner_failed), and
 * reads that complete (owner_arrived).
 */
#include "tests/unit/vm_fixture.h"

#include <errno.h>
#include <time.h>

/* n pages of the region, dirty, in standby. */
static void standby(unsigned n)
{
	struct fake_vm_options o = { .in_thread = true };

	vm = fake_vm_open(&o);
	put_pages(0, n);
	while (fake_vm_take(vm, false))
		;
	REQUIRE_EQ(fake_vm_state(vm, n - 1), ENTRY_STANDBY);
}

static void fail_writes(void)
{
	fake_disk_fault(vm->disk, (struct fake_fault){ .kind = FAKE_FAIL,
	                                               .op = FAKE_WRITE,
	                                               .value = EIO,
	                                               .times = 1000 });
}

static void told_of_no_region(void)
{
	CHECK_EQ(vm->errors[QUIRE_ERROR_WRITE], 1);
	CHECK_EQ(vm->last.kind, QUIRE_ERROR_WRITE);
	CHECK_EQ(vm->last.error, EIO);
	CHECK(vm->last.region == NULL);
	CHECK_EQ(vm->last.offset, 0);
	CHECK(vm->last.message != NULL);
}

static void names_what_stays(void)
{
	standby(8);
	fail_writes();
	fake_vm_write(vm);
	fake_vm_reap(vm);
	CHECK_EQ(vm->errors[QUIRE_ERROR_WRITE], 1);
	CHECK(vm->last.region == vm->r);
	CHECK(vm->last.offset < 8 * PAGE_BYTES);
	CHECK_EQ(fake_vm_state(vm, vm->last.offset / PAGE_BYTES), ENTRY_STANDBY);
	CHECK_EQ(fake_vm_buffer(vm, vm->last.offset / PAGE_BYTES)->state, BUFFER_DIRTY);
	finish();
}

/* The region is given up while its pages are being written, and another has its number. */
static void region_gone(void)
{
	quire_region_t *other;

	standby(8);
	fail_writes();
	fake_vm_write(vm);
	REQUIRE_EQ(quire_region_destroy(vm->r), 0);
	REQUIRE_EQ(quire_region_create(vm->q, 1024 * PAGE_BYTES, NULL, &other), 0);
	CHECK(other == vm->r);
	fake_vm_reap(vm);
	told_of_no_region();
	finish();
}

/* The news comes late: what it is about has gone since. */
static void late_news(void)
{
	page_id id;
	quire_region_t *other;

	/* The page was discarded. */
	standby(8);
	id = PAGE_ID(vm->r->id, 3);
	REQUIRE_EQ(quire_advise(vm->r, 0, 8 * PAGE_BYTES, QUIRE_ADVISE_DONTNEED), 0);
	vm_owner.failed(vm->q, PAGER_WRITE_FAILED, EIO, id);
	told_of_no_region();
	finish();
	/* Its region was destroyed. */
	standby(8);
	id = PAGE_ID(vm->r->id, 3);
	REQUIRE_EQ(quire_region_destroy(vm->r), 0);
	vm_owner.failed(vm->q, PAGER_WRITE_FAILED, EIO, id);
	told_of_no_region();
	vm_owner.written(vm->q, id); /* nor is that counted anywhere */
	CHECK_EQ(counted(&vm->r->counters.pages_out), 0);
	/* A shorter one has its number. */
	REQUIRE_EQ(quire_region_create(vm->q, 2 * PAGE_BYTES, NULL, &other), 0);
	CHECK_EQ(other->id, PAGE_ID_REGION(id));
	vm_owner.failed(vm->q, PAGER_SWAP_FULL, ENOSPC, id);
	CHECK_EQ(vm->errors[QUIRE_ERROR_SWAP_FULL], 1);
	CHECK(vm->last.region == NULL);
	CHECK_EQ(atomic_load(&other->users), 0);
	finish();
}

/* ------------------------------------------- a read and a destroy, at once */

static _Atomic bool destroyed, succeeded;
static bool ours, too_early;
static pthread_t reaper;

/*
 * The reclaimer knows a page by the number of its region. When it looks, that may be the
 * number of another, which is shorter and has no such page.
 */
static void shorter_region_under_that_number(void)
{
	page_id beyond;
	uint32_t frame, buffer;

	vm = fake_vm_open(&(struct fake_vm_options){ .in_thread = true });
	beyond = PAGE_ID(vm->r->id, UINT64_C(1) << 27);
	put_pages(5, 1);
	frame = entry_payload(fake_vm_entry(vm, 5));
	atomic_store(&vm->q->pager.frames[frame].page, beyond);
	CHECK_EQ(fake_vm_take(vm, false), 0);
	atomic_store(&vm->q->pager.frames[frame].page, PAGE_ID(vm->r->id, 5));
	frame_return(&vm->q->pager, frame);
	while (fake_vm_take(vm, false))
		;
	CHECK(fake_vm_write(vm));
	fake_vm_reap(vm);
	CHECK_STATE(5, ENTRY_STANDBY);
	buffer = entry_payload(fake_vm_entry(vm, 5));
	CHECK(!vm_owner.retire(vm->q, beyond, buffer, fake_vm_buffer(vm, 5)->slot));
	/* A page that it has, but of a part of the table that nobody has touched. */
	CHECK(!vm_owner.retire(vm->q, PAGE_ID(vm->r->id, vm->r->pages - 1), buffer,
	                       fake_vm_buffer(vm, 5)->slot));
	CHECK_VM();
	check_pages(5, 1);
	finish();
}

static void nap(long ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

static void *destroyer(void *arg)
{
	atomic_store(&succeeded, quire_region_destroy(arg) == 0);
	atomic_store(&destroyed, true);
	return NULL;
}

/* The page's entry is published, and whoever waited for it may go on: the region has to stay. */
static void linger(struct fake_engine *fe, enum fake_call call, char *page, unsigned n)
{
	(void)fe;
	(void)page;
	(void)n;
	if (!pthread_equal(pthread_self(), reaper))
		return;
	/* A fault that came while the page is mapped: it is woken when the entry is published. */
	if (call == FAKE_MAP)
		atomic_fetch_or(region_entry(vm->r, 0), ENTRY_FAULTS);
	if (call != FAKE_WAKE)
		return;
	ours = true;
	nap(50);
	too_early |= atomic_load(&destroyed);
}

/*
 * One round. The destroyer looks for what has arrived now and then, too: the
 * read is completed here only if we come first (ours).
 */
static void destroy_under_arrival(void)
{
	struct fake_vm_options o = { .in_thread = false, .readahead = 1 };
	struct read_queue *q = NULL;
	pthread_t thread;

	vm = fake_vm_open(&o);
	put_pages(0, 1);
	fake_vm_swap_out(vm);
	REQUIRE_EQ(fake_vm_state(vm, 0), ENTRY_SLOT);
	CHECK_EQ(fake_fault(vm->r, 0, false, false), FAULT_WAITING);
	REQUIRE_EQ(fake_vm_state(vm, 0), ENTRY_READING);
	for (uint32_t i = 0; i < READ_QUEUES; i++)
		if (atomic_load(&vm->q->pager.reads[i].in_flight))
			q = &vm->q->pager.reads[i];
	REQUIRE(q != NULL && lock_try(&q->lock));
	atomic_store(&destroyed, false);
	reaper = pthread_self();
	REQUIRE_EQ(pthread_create(&thread, NULL, destroyer, vm->r), 0);
	while (atomic_load(&vm->r->alive) != REGION_GONE)
		nap(1);
	nap(5);
	CHECK(!atomic_load(&destroyed));
	vm->fe->hook = linger;
	lock_release(&q->lock);
	fake_arrivals(vm->q);
	pthread_join(thread, NULL);
	vm->fe->hook = NULL;
	CHECK(atomic_load(&succeeded));
	CHECK_EQ(atomic_load(&vm->r->users), 0);
	finish();
}

static void read_outlives_destroy(void)
{
	ours = too_early = false;
	for (int i = 0; i < 20 && !ours; i++)
		destroy_under_arrival();
	CHECK(ours);
	CHECK(!too_early);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(names_what_stays),
		UNIT(region_gone),
		UNIT(late_news),
		UNIT(shorter_region_under_that_number),
		UNIT(read_outlives_destroy),
		UNIT_END,
	};

	return unit_main(argc, argv, "owner", tests);
}
