/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_cow.c - what a snapshot keeps of a page in each state, on a fake engine: when
 * it is written, discarded, or given up with its region; what clones make of what they inherit; the
 * gate; refusals. Each for an in-thread engine and for a handler thread's.
 */
#include "tests/unit/vm_fixture.h"
#include "vm/lineage.h"

#include <errno.h>
#include <string.h>

enum state {
	UNTOUCHED,
	ZEROED,
	DIRTY,
	CLEAN,
	IN_STANDBY,
	BEING_WRITTEN,
	STANDBY_CLEAN,
	SWAPPED,
	STATES
};

#define PAGE 50u

static quire_snapshot_t *taken;

static struct quire_region *record(quire_snapshot_t *s)
{
	return (struct quire_region *)s;
}

static enum entry_state kept(quire_snapshot_t *s)
{
	return region_leaf_touched(record(s), PAGE) ?
	               entry_state(atomic_load(region_entry(record(s), PAGE))) :
	               ENTRY_EMPTY;
}

static void bring_into(enum state state)
{
	no_readahead();
	if (state == UNTOUCHED)
		return;
	put(PAGE, state == ZEROED ? 0 : 1050);
	if (state == CLEAN || state == SWAPPED) {
		fake_vm_swap_out(vm);
		if (state == CLEAN)
			CHECK_EQ(value(PAGE), 1050);
	}
	if (state == IN_STANDBY || state == BEING_WRITTEN || state == STANDBY_CLEAN)
		fake_vm_take(vm, false);
	if (state == BEING_WRITTEN)
		fake_disk_fault(
			vm->disk,
			(struct fake_fault){ .kind = FAKE_DELAYED, .op = FAKE_WRITE, .value = 5 });
	if (state == BEING_WRITTEN || state == STANDBY_CLEAN)
		CHECK(fake_vm_write(vm));
	if (state == STANDBY_CLEAN)
		fake_vm_reap(vm);
}

static uint64_t before(enum state state)
{
	return state == UNTOUCHED || state == ZEROED ? 0 : 1050;
}

static quire_snapshot_t *snapshot(void)
{
	quire_snapshot_t *s;

	REQUIRE_EQ(quire_snapshot_create(vm->r, &s), 0);
	return s;
}

static uint64_t image(quire_snapshot_t *s)
{
	_Alignas(PAGE_BYTES) static char bytes[PAGE_BYTES];

	REQUIRE_EQ(quire_snapshot_read(s, PAGE * PAGE_BYTES, bytes, PAGE_BYTES), 0);
	return fake_value(bytes);
}

/* A page in each state, a snapshot, and then the rest of the block. */
#define FOR_EACH_STATE(state)                                                \
	for (enum state state = UNTOUCHED; state < STATES; state++)          \
		FOR_BOTH_ALONE                                               \
	if (bring_into(state), taken = snapshot(), fake_vm_check(vm) != 0) { \
		REQUIRE(!"invariants");                                      \
	} else

static void read_only_shares(void)
{
	FOR_EACH_STATE(state)
	{
		uint64_t used;

		CHECK_EQ(image(taken), before(state));
		CHECK_EQ(value(PAGE), before(state));
		CHECK_EQ(image(taken), before(state));
		CHECK_VM();
		/* Nothing but what was never touched is the snapshot's own. */
		CHECK(kept(taken) == ENTRY_EMPTY || state == UNTOUCHED);
		fake_vm_swap_out(vm);
		used = USED();
		CHECK(used <= 1);
		CHECK_EQ(image(taken), before(state));
		CHECK_EQ(value(PAGE), before(state));
		CHECK_EQ(quire_snapshot_destroy(taken), 0);
		CHECK_VM();
	}
}

static void written(void)
{
	FOR_EACH_STATE(state)
	{
		uint64_t copies = COUNTER(snapshot_copies);

		put(PAGE, 2);
		CHECK_EQ(image(taken), before(state));
		CHECK_EQ(value(PAGE), 2);
		/* Copied is only what nothing else has. */
		CHECK_EQ(COUNTER(snapshot_copies) - copies, state == DIRTY || state == ZEROED);
		CHECK_EQ(kept(taken), state == UNTOUCHED || state == ZEROED ? ENTRY_ZERO :
		                      state == CLEAN || state == SWAPPED    ? ENTRY_SLOT :
		                                                              ENTRY_STANDBY);
		CHECK_VM();
		/* What has been kept is paged as any: both to the swap file, and back. */
		fake_vm_swap_out(vm);
		CHECK(kept(taken) == ENTRY_SLOT || before(state) == 0);
		CHECK_EQ(USED(), before(state) ? 2 : 1);
		CHECK_EQ(image(taken), before(state));
		CHECK_EQ(value(PAGE), 2);
		put(PAGE, 3);
		CHECK_EQ(image(taken), before(state));
		CHECK_EQ(quire_snapshot_destroy(taken), 0);
		CHECK_EQ(value(PAGE), 3);
		CHECK_VM();
	}
}

static void discarded(void)
{
	FOR_EACH_STATE(state)
	{
		CHECK_EQ(quire_advise(vm->r, PAGE * PAGE_BYTES, PAGE_BYTES, QUIRE_ADVISE_DONTNEED),
		         0);
		CHECK_EQ(image(taken), before(state));
		CHECK_EQ(value(PAGE), 0);
		put(PAGE, 4);
		CHECK_EQ(image(taken), before(state));
		fake_vm_swap_out(vm);
		CHECK_EQ(image(taken), before(state));
		CHECK_EQ(value(PAGE), 4);
		CHECK_VM();
	}
}

static void region_goes(void)
{
	FOR_EACH_STATE(state)
	{
		quire_snapshot_t *second = snapshot();

		CHECK_EQ(quire_region_destroy(vm->r), 0);
		vm->r = NULL;
		CHECK_EQ(image(taken), before(state));
		CHECK_EQ(image(second), before(state));
		CHECK_VM();
		CHECK_EQ(quire_snapshot_destroy(second), 0);
		CHECK_EQ(image(taken), before(state));
		CHECK_EQ(quire_snapshot_destroy(taken), 0);
		/* A write that was under way gives its slot back when it ends. */
		fake_vm_reap(vm);
		CHECK_EQ(USED(), 0);
		REQUIRE_EQ(quire_region_create(vm->q, 1024 * PAGE_BYTES, NULL, &vm->r), 0);
	}
}

static void cloned(void)
{
	FOR_EACH_STATE(state)
	{
		struct quire_region *c, *r = vm->r;
		uint64_t is = 99;

		REQUIRE_EQ(quire_snapshot_clone(taken, &c), 0);
		CHECK_EQ(fake_read(c, PAGE, &is), FAULT_DONE);
		CHECK_EQ(is, before(state));
		CHECK_VM();
		put(PAGE, 7);
		CHECK_EQ(fake_write(c, PAGE, 8), FAULT_DONE);
		CHECK_EQ(image(taken), before(state));
		CHECK_EQ(value(PAGE), 7);
		CHECK_EQ(fake_read(c, PAGE, &is), FAULT_DONE);
		CHECK_EQ(is, 8);
		CHECK_VM();
		fake_vm_swap_out(vm);
		CHECK_EQ(quire_snapshot_destroy(taken), 0);
		CHECK_EQ(fake_read(c, PAGE, &is), FAULT_DONE);
		CHECK_EQ(is, 8);
		CHECK_EQ(fake_read(c, PAGE + 1, &is), FAULT_DONE);
		CHECK_EQ(is, 0);
		CHECK_EQ(quire_region_destroy(c), 0);
		CHECK_EQ(fake_read(r, PAGE, &is), FAULT_DONE);
		CHECK_EQ(is, 7);
		CHECK_VM();
	}
}

static void rolled(void)
{
	FOR_EACH_STATE(state)
	{
		quire_snapshot_t *later;

		put(PAGE, 5);
		later = snapshot();
		CHECK_EQ(quire_snapshot_rollback(taken), 0);
		CHECK_VM();
		CHECK_EQ(value(PAGE), before(state));
		CHECK_EQ(image(later), 5);
		put(PAGE, 6);
		CHECK_EQ(quire_snapshot_rollback(later), 0);
		CHECK_EQ(value(PAGE), 5);
		CHECK_EQ(image(taken), before(state));
		CHECK_VM();
	}
}

/* ------------------------------------------------------------- the gate */

static pthread_t thread;
static _Atomic bool ended, begun;

static void *write_now(void *arg)
{
	atomic_store(&begun, true);
	fake_write(vm->r, PAGE, 2);
	atomic_store(&ended, true);
	return arg;
}

static void nap(long ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

/* All is protected, and the snapshot is not the region's yet: who writes now must wait. */
static void write_meanwhile(struct fake_engine *fe, enum fake_call call, char *page, unsigned n)
{
	(void)page;
	(void)n;
	if (call != FAKE_PROTECT)
		return;
	fe->hook = NULL;
	REQUIRE_EQ(pthread_create(&thread, NULL, write_now, NULL), 0);
	while (!atomic_load(&begun))
		nap(1);
	nap(50);
	CHECK(!atomic_load(&ended));
}

static void gate(void)
{
	quire_snapshot_t *s;

	for (enum state state = UNTOUCHED; state < STATES; state++) {
		start_alone(true);
		bring_into(state);
		atomic_store(&begun, false);
		atomic_store(&ended, false);
		vm->fe->hook = write_meanwhile;
		s = snapshot();
		pthread_join(thread, NULL);
		CHECK_EQ(value(PAGE), 2);
		CHECK_EQ(image(s), before(state));
		finish();
	}
}

/* A snapshot that could not be taken leaves nothing, and all can be written. */
static void not_taken(void)
{
	FOR_BOTH_ALONE
	{
		quire_snapshot_t *s = NULL;

		bring_into(DIRTY);
		fake_refuse(vm->fe, FAKE_PROTECT, 0, 1, ENOMEM);
		CHECK_EQ(quire_snapshot_create(vm->r, &s), -ENOMEM);
		CHECK(s == NULL);
		CHECK_VM();
		put(PAGE, 2);
		CHECK_EQ(value(PAGE), 2);
		CHECK_EQ(USED(), 0);
	}
}

/* The page cannot be made writable, or not be put back: nothing is lost, and later it can. */
static void refused(void)
{
	FOR_BOTH_ALONE
	{
		bring_into(DIRTY);
		taken = snapshot();
		vm->q->engine.save_waits = !in_thread; /* then a handler does not save it */
		fake_refuse(vm->fe, in_thread ? FAKE_UNPROTECT : FAKE_MAP, 0, 1, ENOMEM);
		CHECK_EQ(fake_write(vm->r, PAGE, 9), FAULT_REFUSED);
		CHECK_STATE(PAGE, in_thread ? ENTRY_MAPPED : ENTRY_STANDBY);
		CHECK_VM();
		CHECK_EQ(image(taken), 1050);
		put(PAGE, 3);
		CHECK_EQ(value(PAGE), 3);
		CHECK_EQ(image(taken), 1050);
		CHECK_VM();
	}
}

/* Discarded behind our back: zeros from then on, and no fault is served for ever. */
static void gone_behind_our_back(void)
{
	FOR_BOTH_ALONE
	{
		bring_into(CLEAN);
		taken = snapshot();
		fake_program_discards(vm->r, PAGE);
		put(PAGE, 3);
		CHECK_EQ(value(PAGE), 3);
		CHECK_VM();
		CHECK(image(taken) == 1050 || image(taken) == 0);
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(read_only_shares),
		UNIT(written),
		UNIT(discarded),
		UNIT(region_goes),
		UNIT(cloned),
		UNIT(rolled),
		UNIT(gate),
		UNIT(not_taken),
		UNIT(refused),
		UNIT(gone_behind_our_back),
		UNIT_END,
	};

	return unit_main(argc, argv, "cow", tests);
}
