/* SPDX-License-Identifier: MIT */
/* tests/unit/test_frame.c - records of mapped pages and the policy's door (pager/frame.c). */
#include "tests/unit/fake_owner.h"
#include "tests/unit/unit.h"

static struct fake_owner *o;

static uint32_t frame(uint64_t page)
{
	return o->page[page].at;
}

static uint64_t page_of_victim(void)
{
	uint32_t f = frames_victim(&o->p);

	return f == FRAME_NONE ? UINT64_MAX : PAGE_ID_PAGE(atomic_load(&o->p.frames[f].page));
}

static void finish(void)
{
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(fake_owner_close(o), 0);
}

static void enter_and_leave(void)
{
	page_id ids[3] = { PAGE_ID(7, 1), PAGE_ID(7, 2), PAGE_ID(65535, (1u << 28) - 1) };
	uint32_t f[3], again[3];

	o = fake_owner_open(128, 256);
	frames_enter(&o->p, ids, f, 3, POLICY_FAULTED, 1);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(atomic_load(&o->p.frames[f[i]].page), ids[i]);
		CHECK_EQ(o->p.frames[f[i]].slot, SLOT_NONE);
		CHECK_EQ(o->p.frames[f[i]].readahead, i != 1);
		CHECK(o->p.frames[f[i]].listed && policy_contains(&o->p.policy, f[i]));
	}
	CHECK_EQ(PAGE_ID_REGION(ids[2]), 65535);
	CHECK_EQ(PAGE_ID_PAGE(ids[2]), (1u << 28) - 1);
	frames_leave(&o->p, f, 3);
	CHECK_EQ(o->p.policy.resident, 0);
	/* The same records serve again. */
	frames_enter(&o->p, ids, again, 3, POLICY_FAULTED, 0);
	CHECK_EQ(o->p.frame_count, 3);
	frames_leave(&o->p, again, 3);
	finish();
}

static void victims_in_order(void)
{
	o = fake_owner_open(128, 256);
	fake_owner_map(o, 0, 10);
	frame_cold(&o->p, frame(7));
	CHECK_EQ(page_of_victim(), 7);
	CHECK_EQ(page_of_victim(), 0);
	CHECK(!o->p.frames[frame(0)].listed);
	/* Given back, it is the last; given back twice, it is there once. */
	frame_return(&o->p, frame(0));
	frame_return(&o->p, frame(0));
	frame_return(&o->p, frame(7));
	CHECK_EQ(page_of_victim(), 1);
	frame_return(&o->p, frame(1));
	CHECK_EQ(o->p.policy.resident, 10);
	for (int i = 0; i < 10; i++)
		CHECK(page_of_victim() != UINT64_MAX);
	CHECK_EQ(page_of_victim(), UINT64_MAX);
	/* One that is out of the lists can leave as well (F3). */
	fake_owner_drop(o, 4);
	for (uint64_t page = 0; page < 10; page++)
		if (page != 4)
			frame_return(&o->p, frame(page));
	finish();
}

static void pinned_is_out_of_reach(void)
{
	o = fake_owner_open(128, 256);
	fake_owner_map(o, 0, 3);
	frame_pin(&o->p, frame(0));
	frame_pin(&o->p, frame(0));
	frame_reference(&o->p, frame(0));
	frame_cold(&o->p, frame(0));
	CHECK(!frame_claim_cold(&o->p, frame(0)));
	CHECK_EQ(page_of_victim(), 1);
	CHECK_EQ(page_of_victim(), 2);
	CHECK_EQ(page_of_victim(), UINT64_MAX);
	/* Pinned while it was a victim: no way back into the lists but unpinning. */
	frame_pin(&o->p, frame(1));
	CHECK_EQ(page_of_victim(), UINT64_MAX);
	for (uint64_t page = 0; page < 3; page++) {
		frame_unpin(&o->p, frame(page));
		frame_unpin(&o->p, frame(page));
	}
	CHECK_EQ(o->p.policy.resident, 3);
	finish();
}

static void cold_neighbours(void)
{
	o = fake_owner_open(128, 256);
	fake_owner_map(o, 0, 100);
	CHECK(frame_claim_cold(&o->p, frame(3)));
	CHECK(!o->p.frames[frame(3)].listed);
	CHECK(!frame_claim_cold(&o->p, frame(3)));  /* once only */
	CHECK(!frame_claim_cold(&o->p, frame(99))); /* the newest */
	frame_cold(&o->p, frame(99));
	CHECK(frame_claim_cold(&o->p, frame(99)));
	frame_return(&o->p, frame(3));
	frame_return(&o->p, frame(99));
	finish();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(enter_and_leave),
		UNIT(victims_in_order),
		UNIT(pinned_is_out_of_reach),
		UNIT(cold_neighbours),
		UNIT_END,
	};

	return unit_main(argc, argv, "frame", tests);
}
