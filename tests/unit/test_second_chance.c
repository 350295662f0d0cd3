/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_second_chance.c - which victims go into standby
 * (vm/second_chance.c), and what becomes of those that do not (vm/evict.c), on a
 * fake engine.
 */
#include "tests/unit/vm_fixture.h"

#include <errno.h>

/* A batch that is no sample, of a region where standby is of no use. */
static void be_futile(void)
{
	vm->r->second_chance.futile = true;
	vm->r->second_chance.evictions = COUNTER(evictions);
	vm->q->batches = 1;
}

/* One batch; its cluster is given back. */
static struct taken take_once(void)
{
	struct taken t;

	reclaim_enter(&vm->q->pager);
	t = vm_owner.take(vm->q, false);
	if (t.cluster != CLUSTER_NONE) {
		cluster_to_standby(&vm->q->pager, t.cluster);
		cluster_put(&vm->q->pager, t.cluster);
	}
	reclaim_leave(&vm->q->pager);
	return t;
}

static void clean_ones_leave_their_slots(void)
{
	FOR_BOTH_ALONE
	{
		int64_t credits;
		uint64_t used, swapped;
		struct taken t;

		make_clean(10, 4);
		credits = atomic_load(&vm->q->pager.credits);
		swapped = COUNTER(swapped);
		used = USED();
		fake_program_discards(vm->r, 12);
		be_futile();
		t = take_once();
		CHECK_EQ(t.pages, 4);
		CHECK_EQ(t.freed, 4);
		CHECK_EQ(t.cluster, CLUSTER_NONE);
		for (uint64_t page = 10; page < 14; page++)
			CHECK_STATE(page, page == 12 ? ENTRY_EMPTY : ENTRY_SLOT);
		CHECK_EQ(COUNTER(swapped), swapped + 3);
		CHECK_EQ(COUNTER(standby), 0);
		CHECK_EQ(USED(), used - 1);
		CHECK_EQ(atomic_load(&vm->q->pager.credits), credits + 4);
		CHECK_VM();
		CHECK_EQ(value(12), 0);
		check_pages(10, 2);
		check_pages(13, 1);
	}
}

/* Dirty ones among them go into standby all the same, in buffers that follow each other. */
static void dirty_ones_do_not(void)
{
	FOR_BOTH_ALONE
	{
		struct taken t;

		make_clean(10, 8);
		put(11, 7);
		put(14, 8);
		be_futile();
		t = take_once();
		CHECK_EQ(t.pages, 8);
		CHECK_EQ(t.freed, 6);
		CHECK(t.cluster != CLUSTER_NONE);
		CHECK_EQ(vm->q->pager.clusters[t.cluster].used, 2);
		for (uint64_t page = 10; page < 18; page++)
			CHECK_STATE(page, page == 11 || page == 14 ? ENTRY_STANDBY : ENTRY_SLOT);
		CHECK_VM();
		CHECK_EQ(value(11), 7);
		CHECK_EQ(value(14), 8);
		check_pages(12, 2);
		check_pages(15, 3);
	}
}

/* Without a cluster the dirty ones stay where they are, and the clean ones go all the same. */
static void without_a_cluster(void)
{
	FOR_BOTH_ALONE
	{
		struct pager *p = &vm->q->pager;
		uint32_t max = p->cluster_max, c, hoard = CLUSTER_NONE;
		struct taken t;

		make_clean(10, 8);
		put(11, 7);
		put(14, 8);
		p->cluster_max = p->cluster_count;
		while ((c = cluster_get(p, 0)) != CLUSTER_NONE) {
			p->clusters[c].next = hoard;
			hoard = c;
		}
		vm->q->batches = 0; /* a sample, which would put clean ones into standby, too */
		t = take_once();
		CHECK_EQ(t.pages, 6);
		CHECK_EQ(t.freed, 6);
		CHECK_EQ(t.cluster, CLUSTER_NONE);
		for (uint64_t page = 10; page < 18; page++)
			CHECK_STATE(page, page == 11 || page == 14 ? ENTRY_MAPPED : ENTRY_SLOT);
		CHECK_EQ(take_once().pages, 0);
		p->cluster_max = max;
		while ((c = hoard) != CLUSTER_NONE) {
			hoard = p->clusters[c].next;
			cluster_put(p, c);
		}
		CHECK_VM();
		CHECK_EQ(value(11), 7);
		CHECK_EQ(value(14), 8);
		check_pages(12, 2);
		check_pages(15, 3);
	}
}

static void kept_ones_stay(void)
{
	FOR_BOTH_ALONE
	{
		make_clean(10, 4);
		be_futile();
		fake_refuse(vm->fe, FAKE_TAKE, 1, 2, EBUSY);
		CHECK_EQ(take_once().pages, 2);
		CHECK_EQ(COUNTER(resident), 2);
		CHECK_VM();
		check_pages(10, 4);
		put(11, 5);
		CHECK_EQ(value(11), 5);
	}
}

/* A discarded page that the kernel filled and does not drop: zeros, whatever its slot held. */
static void zeros_that_stay(void)
{
	FOR_BOTH_ALONE
	{
		uint64_t used;

		make_clean(10, 4);
		used = USED();
		fake_program_discards(vm->r, 12);
		be_futile();
		vm->fe->zeros_stay = 1;
		CHECK_EQ(take_once().pages, 3);
		CHECK_STATE(12, ENTRY_MAPPED);
		CHECK_EQ(fake_vm_frame(vm, 12)->slot, SLOT_NONE);
		CHECK_EQ(USED(), used - 1);
		CHECK_VM();
		CHECK_EQ(value(12), 0);
		fake_vm_take(vm, false);
		CHECK_EQ(value(12), 0);
		put(12, 5);
		CHECK_EQ(value(12), 5);
		check_pages(10, 2);
	}
}

/* One batch in four is a sample, and where standby is of use every page has its chance. */
static void samples(void)
{
	FOR_BOTH_ALONE
	{
		uint32_t chances = 0;

		for (uint32_t i = 0; i < 8; i++) {
			make_clean(10, 2);
			vm->r->second_chance.futile = true;
			vm->r->second_chance.evictions = COUNTER(evictions);
			vm->q->batches = i;
			CHECK_EQ(take_once().pages, 2);
			chances += fake_vm_state(vm, 10) == ENTRY_STANDBY;
			fake_vm_retire(vm);
		}
		CHECK_EQ(chances, 2);
		make_clean(10, 2);
		be_futile();
		vm->r->second_chance.futile = false;
		CHECK_EQ(take_once().pages, 2);
		CHECK_STATE(10, ENTRY_STANDBY);
		CHECK_VM();
	}
}

/* So much was evicted, rescued and read since the last judgement, with so much in standby and swapped. */
static bool judged(uint64_t evictions, uint64_t rescues, uint64_t faults, uint64_t standby,
                   uint64_t swapped)
{
	struct counters *c = &vm->r->counters, saved = *c;
	bool futile;

	count(&c->evictions, evictions);
	count(&c->rescues, rescues);
	count(&c->major_faults, faults);
	c->standby = standby;
	c->swapped = swapped;
	futile = second_chance_futile(vm->r);
	*c = saved;
	memset(&vm->r->second_chance, 0, sizeof vm->r->second_chance);
	return futile;
}

static void judges(void)
{
	FOR_BOTH_ALONE
	{
		/* Nothing is known yet: whoever comes has his chance. */
		CHECK(!second_chance_futile(vm->r));
		CHECK(!judged(10, 0, 10, 100, 1000));
		/* Accesses as dense in standby as on the swap file: a tenth of the pages, a tenth of the accesses. */
		CHECK(judged(100000, 1000, 10000, 100, 1000));
		CHECK(judged(100000, 1400, 10000, 100, 1000));
		CHECK(!judged(100000, 1600, 10000, 100, 1000));
		CHECK(!judged(100000, 5000, 10000, 100, 1000));
		/* A scan: nothing comes back. */
		CHECK(judged(100000, 0, 100, 100, 1000));
		/* What was in standby comes back, all of it. */
		CHECK(!judged(100000, 100, 0, 100, 1000));
		CHECK(!judged(100000, 100, 100, 0, 1000));
		/* Pages of readahead in standby are none of those. */
		vm->r->counters.standby_ahead = 900;
		CHECK(judged(100000, 1000, 10000, 1000, 1000));
		CHECK(!judged(100000, 1600, 10000, 1000, 1000));
		vm->r->counters.standby_ahead = 0;
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(clean_ones_leave_their_slots),
		UNIT(dirty_ones_do_not),
		UNIT(without_a_cluster),
		UNIT(kept_ones_stay),
		UNIT(zeros_that_stay),
		UNIT(samples),
		UNIT(judges),
		UNIT_END,
	};

	return unit_main(argc, argv, "second_chance", tests);
}
