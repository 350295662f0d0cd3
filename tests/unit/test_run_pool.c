/* SPDX-License-Identifier: MIT */
/* tests/unit/test_run_pool.c - pager/run_pool.c. */
#include "tests/unit/fake_owner.h"
#include "tests/unit/unit.h"

static struct fake_owner *o;

static struct swap_run *take_all(enum swap_op op, unsigned *n)
{
	struct swap_run *run, *all = NULL;

	for (*n = 0; (run = run_get(&o->p, op)) != NULL; ++*n) {
		REQUIRE(*n < o->p.run_pools[op].max);
		CHECK_EQ(run->op, op);
		CHECK((run->pieces != NULL) == (op == SWAP_WRITE));
		run->owner = all;
		all = run;
	}
	return all;
}

static void give_back(struct swap_run *all)
{
	struct swap_run *run;

	while ((run = all) != NULL) {
		all = run->owner;
		run_put(&o->p, run);
	}
}

/* One kind can be used up without the other, and all come back. */
static void two_pools(void)
{
	struct swap_run *reads, *writes;
	unsigned n;

	o = fake_owner_open(64, 256);
	reads = take_all(SWAP_READ, &n);
	CHECK_EQ(n, o->p.run_pools[SWAP_READ].max);
	writes = take_all(SWAP_WRITE, &n);
	CHECK_EQ(n, o->p.run_pools[SWAP_WRITE].max);
	CHECK(run_get(&o->p, SWAP_READ) == NULL);
	give_back(reads);
	CHECK(run_get(&o->p, SWAP_WRITE) == NULL);
	give_back(writes);
	give_back(take_all(SWAP_READ, &n));
	CHECK_EQ(n, o->p.run_pools[SWAP_READ].max);
	CHECK_EQ(o->p.run_pools[SWAP_READ].count, n);
	CHECK_EQ(fake_owner_close(o), 0);
}

/* The pieces of a run are its own. */
static void pieces_do_not_overlap(void)
{
	struct swap_run *all, *run;
	unsigned n;

	o = fake_owner_open(64, 256);
	all = take_all(SWAP_WRITE, &n);
	for (run = all; run; run = run->owner)
		for (unsigned i = 0; i < SWAP_RUN_PIECES; i++)
			run->pieces[i] = (struct iovec){ run, i };
	for (run = all; run; run = run->owner)
		for (unsigned i = 0; i < SWAP_RUN_PIECES; i++)
			CHECK(run->pieces[i].iov_base == run && run->pieces[i].iov_len == i);
	give_back(all);
	CHECK_EQ(fake_owner_close(o), 0);
}

/* Counted is what has been used at once, whatever came and went. */
static void metadata(void)
{
	uint64_t before;

	o = fake_owner_open(64, 256);
	CHECK_EQ(run_pool_metadata(&o->p, SWAP_READ), 0);
	for (int i = 0; i < 1000; i++)
		run_put(&o->p, run_get(&o->p, SWAP_READ));
	before = run_pool_metadata(&o->p, SWAP_READ);
	CHECK(before > 0 && before <= PAGE_BYTES);
	CHECK_EQ(fake_owner_close(o), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(two_pools),
		UNIT(pieces_do_not_overlap),
		UNIT(metadata),
		UNIT_END,
	};

	return unit_main(argc, argv, "run_pool", tests);
}
