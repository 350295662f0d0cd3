/* SPDX-License-Identifier: MIT */
/*
 * pager/run_pool.c - the runs of write-back and readahead (struct swap_run).
 *
 * Reads and writes have a pool each: neither can take all of the other's. The
 * pages of a read are neighbours in memory; only what is written has gaps, and
 * so only the runs of writes have room for pieces.
 *
 * Guards: free: standby lock. count: changed under it, read without.
 */
#include "pager/pager.h"

static struct run_pool *pool_of(struct pager *p, enum swap_op op)
{
	return &p->run_pools[op];
}

int run_pool_open(struct pager *p, enum swap_op op, uint32_t max)
{
	struct run_pool *pool = pool_of(p, op);
	size_t pieces = op == SWAP_WRITE ? max * sizeof *pool->pieces : 0;
	int error;

	pool->max = max;
	error = arena_open(&pool->arena, max * sizeof *pool->runs + pieces, false, "quire runs");
	if (error)
		return error;
	pool->runs = pool->arena.base;
	pool->pieces = pieces ? (void *)(pool->runs + max) : NULL;
	return 0;
}

void run_pool_close(struct pager *p, enum swap_op op)
{
	arena_close(&pool_of(p, op)->arena);
}

uint64_t run_pool_metadata(const struct pager *p, enum swap_op op)
{
	const struct run_pool *pool = &p->run_pools[op];
	size_t each = sizeof *pool->runs + (pool->pieces ? sizeof *pool->pieces : 0);

	return round_up(counted_records(&pool->count) * each, PAGE_BYTES);
}

struct swap_run *run_get(struct pager *p, enum swap_op op)
{
	struct run_pool *pool = pool_of(p, op);
	struct swap_run *run;

	lock_acquire(&p->standby_lock);
	run = pool->free;
	if (run)
		pool->free = run->owner;
	else if (counted_records(&pool->count) < pool->max)
		run = &pool->runs[count_next(&pool->count)];
	lock_release(&p->standby_lock);
	if (!run)
		return NULL;
	run->op = op;
	run->pieces = pool->pieces ? pool->pieces[run - pool->runs] : NULL;
	return run;
}

void run_put(struct pager *p, struct swap_run *run)
{
	struct run_pool *pool = pool_of(p, run->op);

	lock_acquire(&p->standby_lock);
	run->owner = pool->free;
	pool->free = run;
	lock_release(&p->standby_lock);
}
