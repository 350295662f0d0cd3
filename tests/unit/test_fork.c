/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_fork.c - a pager in a child of fork (pager/fork.c): what was in flight between
 * its buffers and the swap file was never begun. Most of it without a fork: the pager forgets
 * its requests on the fake disk, which then never move a byte, as they would not in a child.
 */
#include "swapfile/store.h"
#include "tests/unit/fake_owner.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

static struct fake_owner *o;

static void delay(enum fake_op op)
{
	fake_disk_fault(
		o->disk,
		(struct fake_fault){ .kind = FAKE_DELAYED, .op = op, .value = 1000, .times = 50 });
}

/* What a child does of a fork that was made just now. */
static void fork_here(void)
{
	pager_fork_forget(&o->p);
	CHECK_EQ(swapfile_fork_in_child(o->swap), 0);
	REQUIRE_EQ(pager_fork_in_child(&o->p), 0);
	fake_disk_heal(o->disk);
	CHECK_EQ(atomic_load(&o->p.reading), 0);
	CHECK_EQ(atomic_load(&o->p.writing), 0);
	CHECK_EQ(fake_owner_check(o), 0);
}

static uint32_t state(uint64_t page)
{
	return atomic_load(&buffer_of(&o->p, o->page[page].at)->state);
}

static slot_t slot(uint64_t page)
{
	return buffer_of(&o->p, o->page[page].at)->slot;
}

static uint32_t standby(uint64_t first, unsigned n)
{
	REQUIRE_EQ(fake_owner_map(o, first, n), 0);
	return fake_owner_unmap(o, first, n);
}

static void end(void)
{
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(fake_owner_close(o), 0);
}

/* Pages that can be read as ever. */
static void check_reads(const uint64_t *pages, unsigned n)
{
	CHECK(fake_owner_read(o, pages, n));
	for (unsigned i = 0; i < n; i++) {
		fake_owner_wait(o, pages[i]);
		CHECK_EQ(o->page[pages[i]].state, OWNED_STANDBY);
		CHECK(fake_owner_holds(o, pages[i]));
	}
}

static void reads(void)
{
	static const uint64_t asked[] = { 3, 4, 5, 6, 7 }, ahead[] = { 20, 22, 24 };
	uint32_t c;

	o = fake_owner_open(512, 2048);
	fake_owner_swap(o, 0, 40);
	delay(FAKE_READ);
	CHECK(fake_owner_read(o, asked, 5));
	c = o->page[3].at / CLUSTER_PAGES;
	CHECK(fake_owner_read_ahead(o, ahead, 3));
	CHECK_EQ(o->page[3].state, OWNED_READING);
	CHECK_EQ(fake_owner_check(o), 0);
	fork_here();
	CHECK_EQ(o->arrivals, 8);
	CHECK_EQ(o->failed_arrivals, 8);
	CHECK_EQ(o->arrival_error, ECANCELED);
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 0);
	CHECK_EQ(o->p.clusters[c].started, 0);
	for (unsigned i = 0; i < 5; i++)
		CHECK_EQ(o->page[asked[i]].state, OWNED_SLOT);
	check_reads(asked, 5);
	check_reads(ahead, 3);
	end();
}

static void writes(void)
{
	uint32_t c;

	o = fake_owner_open(512, 2048);
	c = standby(10, 30);
	delay(FAKE_WRITE);
	CHECK(fake_owner_write(o, c));
	CHECK_EQ(state(10), BUFFER_WRITING);
	CHECK_EQ(swapfile_used(o->swap), 30);
	CHECK_EQ(fake_owner_check(o), 0);
	fork_here();
	CHECK_EQ(swapfile_used(o->swap), 0);
	for (uint64_t page = 10; page < 40; page++) {
		CHECK_EQ(state(page), BUFFER_DIRTY);
		CHECK_EQ(slot(page), SLOT_NONE);
	}
	CHECK_EQ(o->written, 0);
	CHECK(fake_owner_write(o, c));
	CHECK_EQ(fake_owner_reap(o), 1);
	CHECK_EQ(o->written, 30);
	CHECK_EQ(state(39), BUFFER_CLEAN);
	end();
}

static void abandoned(void)
{
	uint32_t c;

	o = fake_owner_open(512, 2048);
	c = standby(10, 4);
	delay(FAKE_WRITE);
	CHECK(fake_owner_write(o, c));
	fake_owner_rescue(o, 11);
	fake_owner_drop(o, 12);
	CHECK_EQ(buffer_of(&o->p, c * CLUSTER_PAGES + 1)->state, BUFFER_ABANDONED);
	fork_here();
	CHECK_EQ(buffer_of(&o->p, c * CLUSTER_PAGES + 1)->state, BUFFER_FREE);
	CHECK_EQ(buffer_of(&o->p, c * CLUSTER_PAGES + 2)->state, BUFFER_FREE);
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 2);
	CHECK_EQ(swapfile_used(o->swap), 0);
	CHECK_EQ(o->page[11].state, OWNED_MAPPED);
	/* And a cluster of which nothing else is left is free. */
	c = standby(50, 3);
	delay(FAKE_WRITE);
	CHECK(fake_owner_write(o, c));
	for (uint64_t page = 50; page < 53; page++)
		fake_owner_drop(o, page);
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 3);
	fork_here();
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 0);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_WARM);
	end();
}

/* Clusters that are not in flight are as they were, free ones among them. */
static void the_rest_stays(void)
{
	uint32_t clean, dirty, warm;

	o = fake_owner_open(512, 2048);
	clean = standby(0, 10);
	CHECK(fake_owner_write(o, clean));
	fake_owner_reap(o);
	dirty = standby(20, 10);
	warm = standby(40, 10);
	for (uint64_t page = 40; page < 50; page++)
		fake_owner_drop(o, page);
	CHECK_EQ(fake_owner_map(o, 60, 5), 0);
	fork_here();
	CHECK_EQ(state(5), BUFFER_CLEAN);
	CHECK_EQ(state(25), BUFFER_DIRTY);
	CHECK_EQ(atomic_load(&o->p.clusters[clean].refs), 10);
	CHECK_EQ(atomic_load(&o->p.clusters[dirty].refs), 10);
	CHECK_EQ(o->p.clusters[warm].list, CLUSTERS_WARM);
	CHECK_EQ(swapfile_used(o->swap), 10);
	for (unsigned i = 0; i < 6; i++)
		fake_owner_step(o);
	end();
}

/* The cluster that is filled a page at a time goes on to be. */
static void the_stage(void)
{
	uint32_t id, c;

	o = fake_owner_open(512, 2048);
	REQUIRE_EQ(credits_get(&o->p, 1), 0);
	id = stage_get(&o->p, false);
	REQUIRE(id != BUFFER_NONE);
	c = id / CLUSTER_PAGES;
	stage_drop(&o->p, id);
	CHECK_EQ(o->p.stage, c);
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 1);
	pager_fork_forget(&o->p);
	REQUIRE_EQ(pager_fork_in_child(&o->p), 0);
	CHECK_EQ(o->p.stage, c);
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 1);
	REQUIRE_EQ(credits_get(&o->p, 1), 0);
	id = stage_get(&o->p, false);
	CHECK_EQ(id / CLUSTER_PAGES, c);
	stage_drop(&o->p, id);
	stage_flush(&o->p);
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 0);
	end();
}

/* A failed write is not held against the child's disk. */
static void after_failures(void)
{
	uint32_t c;

	o = fake_owner_open(512, 2048);
	c = standby(0, 10);
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = FAKE_FAIL,
	                                              .op = FAKE_WRITE,
	                                              .value = EIO,
	                                              .times = 20 });
	fake_owner_write(o, c);
	fake_owner_reap(o);
	CHECK(o->failures[PAGER_WRITE_FAILED] > 0);
	CHECK(atomic_load(&o->p.write_failing) && o->p.write_again_at > 0);
	fork_here();
	CHECK(!atomic_load(&o->p.write_failing));
	CHECK(fake_owner_write(o, c));
	fake_owner_reap(o);
	CHECK_EQ(o->written, 10);
	end();
}

/* ------------------------------------------------------- a fork, with threads */

static int reads_by_itself(void)
{
	static const uint64_t pages[] = { 1, 2, 3, 30, 31 };

	alarm(20);
	pager_fork_forget(&o->p);
	if (o->p.started || o->p.reader.started || swapfile_fork_in_child(o->swap) ||
	    pager_fork_in_child(&o->p) || reader_start(&o->p) || reclaimer_start(&o->p))
		return 1;
	fake_disk_heal(o->disk);
	if (o->failed_arrivals != 5 || !fake_owner_read(o, pages, 5))
		return 2;
	for (unsigned i = 0; i < 5; i++) {
		fake_owner_wait(o, pages[i]);
		if (o->page[pages[i]].state != OWNED_STANDBY || !fake_owner_holds(o, pages[i]))
			return 3;
	}
	/* The reclaimer's turn. */
	if (fake_owner_map(o, 100, 400) != 0)
		return 4;
	pager_stop(&o->p);
	/* What the parent holds of the swap file is none of this one's (fake_owner_check). */
	return swapfile_check(o->swap) ? 0 : 5;
}

/* In the child they are others; in the parent they go on. */
static void threads(void)
{
	static const uint64_t pages[] = { 1, 2, 3, 30, 31 };
	int status = -1;
	pid_t pid;

	if (unit_foreign_threads())
		return;
	o = fake_owner_open(512, 2048);
	fake_owner_swap(o, 0, 40);
	CHECK_EQ(reader_start(&o->p), 0);
	CHECK_EQ(reclaimer_start(&o->p), 0);
	fake_disk_fault(o->disk, (struct fake_fault){ .kind = FAKE_SLOW,
	                                              .op = FAKE_READ,
	                                              .value = 1000,
	                                              .times = 10 });
	CHECK(fake_owner_read(o, pages, 5));
	/* Until it sleeps for them. */
	for (int i = 0; i < 1000 && atomic_load(&o->p.reading) < 5; i++)
		usleep(1000);
	usleep(100000);
	REQUIRE_EQ(swapfile_fork(o->swap), 0);
	pid = fork();
	if (pid == 0)
		_exit(reads_by_itself());
	swapfile_fork_in_parent(o->swap);
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
	for (unsigned i = 0; i < 5; i++) {
		fake_owner_wait(o, pages[i]);
		CHECK(fake_owner_holds(o, pages[i]));
	}
	CHECK_EQ(o->failed_arrivals, 0);
	/* What the child had until it ended. */
	CHECK(slots_reap(&o->swap->slots));
	end();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(reads),     UNIT(writes),
		                                  UNIT(abandoned), UNIT(the_rest_stays),
		                                  UNIT(the_stage), UNIT(after_failures),
		                                  UNIT(threads),   UNIT_END };

	return unit_main(argc, argv, "fork", tests);
}
