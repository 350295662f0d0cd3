/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_cluster.c - buffers in clusters (pager/cluster.c): memory and
 * credits (C1), references (C2), and what a claim says of a page's clean copy.
 */
#include "tests/unit/fake_owner.h"
#include "tests/unit/unit.h"

#include <sys/mman.h>

static struct fake_owner *o;

static void finish(void)
{
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(fake_owner_close(o), 0);
}

static void memory_is_credit(void)
{
	uint32_t c, d;

	o = fake_owner_open(128, 256);
	c = cluster_get(&o->p, true);
	CHECK(cluster_populate(&o->p, c, 10));
	CHECK_EQ(atomic_load(&o->p.credits), 118);
	CHECK(cluster_populate(&o->p, c, 7));
	CHECK(cluster_populate(&o->p, c, 12));
	CHECK_EQ(atomic_load(&o->p.credits), 116);
	CHECK_EQ(atomic_load(&o->p.populated), 12);
	CHECK_EQ(atomic_load(&o->p.clusters[c].populated), 0xfff);
	cluster_put(&o->p, c);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_WARM);
	/* The warm one is had again, or not, as asked. */
	d = cluster_get(&o->p, false);
	CHECK(d != c);
	CHECK_EQ(cluster_get(&o->p, true), c);
	cluster_put(&o->p, c);
	CHECK(cluster_populate(&o->p, d, CLUSTER_PAGES));
	CHECK_EQ(atomic_load(&o->p.clusters[d].populated), UINT64_MAX);
	cluster_put(&o->p, d);
	CHECK_EQ(fake_owner_check(o), 0);
	/* Memory goes back, the oldest free cluster's first, and no further than wanted. */
	memset(buffer_address(&o->p, c * CLUSTER_PAGES), 1, 12 * PAGE_BYTES);
	CHECK_EQ(clusters_release(&o->p, 60), 12);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_EMPTY);
	CHECK_EQ(o->p.clusters[d].list, CLUSTERS_WARM);
	CHECK_EQ(clusters_release(&o->p, 60), 0);
	clusters_release(&o->p, INT64_MAX);
	CHECK_EQ(atomic_load(&o->p.populated), 0);
	CHECK_EQ(atomic_load(&o->p.credits), 128);
	CHECK_EQ(*(char *)buffer_address(&o->p, c * CLUSTER_PAGES), 0);
	madvise(buffer_address(&o->p, c * CLUSTER_PAGES), PAGE_BYTES, MADV_DONTNEED);
	finish();
}

static void no_credit_no_memory(void)
{
	uint32_t c;

	o = fake_owner_open(64, 256);
	CHECK(credits_try(&o->p, 60));
	c = cluster_get(&o->p, true);
	CHECK(!cluster_populate(&o->p, c, 5));
	CHECK_EQ(atomic_load(&o->p.clusters[c].populated), 0);
	CHECK(cluster_populate(&o->p, c, 4));
	CHECK_EQ(atomic_load(&o->p.credits), 0);
	CHECK(cluster_populate(&o->p, c, 4)); /* has it already */
	cluster_put(&o->p, c);
	credits_put(&o->p, 60);
	finish();
}

static void all_in_use(void)
{
	uint32_t last = CLUSTER_NONE, c, n = 0;

	o = fake_owner_open(64, 256);
	while ((c = cluster_get(&o->p, n & 1)) != CLUSTER_NONE && n <= o->p.cluster_max) {
		last = c;
		n++;
	}
	CHECK_EQ(n, o->p.cluster_max);
	cluster_put(&o->p, last);
	CHECK_EQ(cluster_get(&o->p, true), last);
	CHECK(cluster_populate(&o->p, last, 1));
	cluster_put(&o->p, last);
	/* A warm one is better than none. */
	CHECK_EQ(cluster_get(&o->p, false), last);
	for (c = 0; c < n; c++)
		cluster_put(&o->p, c);
	finish();
}

static uint32_t standby(uint64_t first, unsigned n)
{
	REQUIRE_EQ(fake_owner_map(o, first, n), 0);
	return fake_owner_unmap(o, first, n);
}

static void references(void)
{
	uint32_t c;
	slot_t slot;

	o = fake_owner_open(128, 256);
	c = standby(0, 3);
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 3);
	CHECK_EQ(atomic_load(&o->p.standby), 3);
	buffer_claim(&o->p, o->page[0].at, &slot);
	CHECK_EQ(slot, SLOT_NONE);
	CHECK_EQ(atomic_load(&o->p.standby), 2);
	CHECK(fake_owner_holds(o, 0)); /* the bytes stay until the release */
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 3);
	buffer_release(&o->p, o->page[0].at, false);
	o->page[0].state = OWNED_EMPTY;
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 2);
	CHECK_EQ(fake_owner_check(o), 0);
	fake_owner_drop(o, 1);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_STANDBY);
	fake_owner_drop(o, 2);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_WARM);
	CHECK_EQ(atomic_load(&o->p.populated), 3);
	finish();
}

/* A buffer whose memory went with the page: so did the credit. */
static void moved_away(void)
{
	uint32_t c, state, id;
	slot_t slot;

	o = fake_owner_open(128, 256);
	c = standby(0, 2);
	id = o->page[0].at;
	CHECK(buffer_try_claim(&o->p, id, &state, &slot));
	CHECK_EQ(state, BUFFER_DIRTY);
	madvise(buffer_address(&o->p, id), PAGE_BYTES, MADV_DONTNEED);
	buffer_release(&o->p, id, true);
	CHECK_EQ(atomic_load(&o->p.clusters[c].populated), 2);
	CHECK_EQ(atomic_load(&o->p.populated), 1);
	CHECK_EQ(atomic_load(&o->p.credits), 126); /* one is the page's */
	credits_put(&o->p, 1);
	o->page[0].state = OWNED_EMPTY;
	finish();
}

static void claims(void)
{
	uint32_t c, state;
	slot_t slot, was;

	o = fake_owner_open(128, 256);
	c = standby(0, 3);
	CHECK(fake_owner_write(o, c));
	CHECK(!buffer_try_claim(&o->p, o->page[0].at, &state, &slot));
	CHECK_EQ(state, BUFFER_WRITING);
	fake_owner_reap(o);
	was = buffer_of(&o->p, o->page[0].at)->slot;
	CHECK(buffer_try_claim(&o->p, o->page[0].at, &state, &slot));
	CHECK_EQ(state, BUFFER_CLEAN);
	CHECK_EQ(slot, was); /* ours now */
	buffer_release(&o->p, o->page[0].at, false);
	swapfile_unref(o->swap, slot);
	o->page[0].state = OWNED_EMPTY;
	CHECK(!buffer_try_claim(&o->p, c * CLUSTER_PAGES, &state, &slot));
	CHECK_EQ(state, BUFFER_FREE);
	finish();
}

/* Buffers that were taken back give their memory up while their neighbours stay. */
static void half_empty_standby(void)
{
	uint32_t c, state;
	slot_t slot;

	o = fake_owner_open(128, 256);
	c = standby(0, 20);
	for (uint64_t page = 0; page < 20; page++)
		if (page % 4)
			fake_owner_drop(o, page);
	/* One is claimed, and its bytes are still needed. */
	CHECK(buffer_try_claim(&o->p, o->page[8].at, &state, &slot));
	CHECK_EQ(atomic_load(&o->p.credits), 108);
	reclaim_enter(&o->p);
	CHECK_EQ(clusters_trim(&o->p), 15);
	CHECK_EQ(clusters_trim(&o->p), 0);
	reclaim_leave(&o->p);
	CHECK_EQ(atomic_load(&o->p.credits), 123);
	CHECK_EQ(atomic_load(&o->p.clusters[c].populated), 0x11111);
	CHECK(fake_owner_holds(o, 8));
	buffer_release(&o->p, o->page[8].at, false);
	o->page[8].state = OWNED_EMPTY;
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_STANDBY);
	/* While a write is under way its buffers stay as they are, taken back or not. */
	CHECK(fake_owner_write(o, c));
	fake_owner_drop(o, 4);
	reclaim_enter(&o->p);
	CHECK_EQ(clusters_trim(&o->p), 1); /* that of page 8 */
	reclaim_leave(&o->p);
	fake_owner_reap(o);
	reclaim_enter(&o->p);
	CHECK_EQ(clusters_trim(&o->p), 1); /* that of page 4 */
	reclaim_leave(&o->p);
	CHECK(fake_owner_holds(o, 12));
	finish();
}

static void runs(void)
{
	struct swap_run *run, *all = NULL;
	unsigned n = 0;

	o = fake_owner_open(64, 256);
	while ((run = run_get(&o->p)) != NULL && n <= o->p.run_max) {
		run->owner = all;
		all = run;
		n++;
	}
	CHECK_EQ(n, o->p.run_max);
	while ((run = all) != NULL) {
		all = run->owner;
		run_put(&o->p, run);
	}
	run = run_get(&o->p);
	CHECK(run != NULL);
	run_put(&o->p, run);
	CHECK_EQ(o->p.run_count, n);
	finish();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(memory_is_credit),
		UNIT(no_credit_no_memory),
		UNIT(all_in_use),
		UNIT(references),
		UNIT(moved_away),
		UNIT(claims),
		UNIT(half_empty_standby),
		UNIT(runs),
		UNIT_END,
	};

	return unit_main(argc, argv, "cluster", tests);
}
