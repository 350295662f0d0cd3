/* SPDX-License-Identifier: MIT */
/* pager/pager.c - opening and closing: the arenas, queues and lists of a pager. */
#include "pager/pager.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>

#define WRITE_DEPTH 64u
#define READ_DEPTH 128u
/* What the write queue holds, and one in the hand of a thread that writes by itself. */
#define WRITE_RUNS (WRITE_DEPTH + 1u)
#define READ_RUNS (READ_QUEUES * READ_DEPTH)

void budget_init(struct pager *p, uint64_t pages);

uint32_t pager_clusters_for(uint64_t budget_max)
{
	/* Each cluster in use holds at least one credit; most hold many. */
	return (uint32_t)MIN(budget_max, budget_max / 8 + 4096);
}

uint32_t pager_clusters_least(uint64_t budget)
{
	return (uint32_t)MIN(budget, budget / CLUSTER_PAGES + 64);
}

size_t pager_reserved(uint64_t budget_max, uint32_t cluster_max)
{
	return budget_max * (sizeof(struct frame) + sizeof(struct policy_node)) +
	       cluster_max * (sizeof(struct cluster) + CLUSTER_PAGES * PAGE_BYTES);
}

int pager_open_queues(struct pager *p)
{
	int error = swap_queue_open(p->swap, WRITE_DEPTH, &p->writes);

	for (unsigned i = 0; i < READ_QUEUES && !error; i++) {
		lock_init(&p->reads[i].lock, RANK_READ);
		error = swap_queue_open(p->swap, READ_DEPTH, &p->reads[i].io);
	}
	return error ? error_set(-error, "a queue of the swap file: %s", strerror(-error)) : 0;
}

/* Of the records of pages and clusters only those that the budget needs by now are usable. */
static int open_records(struct pager *p, uint64_t budget)
{
	int error;

	if ((error = arena_reserve(&p->frame_arena, p->frame_max * sizeof *p->frames, false,
	                           "quire frames")) ||
	    (error = arena_reserve(&p->node_arena, p->frame_max * sizeof *p->policy.nodes, false,
	                           "quire policy")) ||
	    (error = arena_reserve(&p->cluster_arena, p->cluster_max * sizeof *p->clusters, false,
	                           "quire clusters")) ||
	    (error = run_pool_open(p, SWAP_READ, READ_RUNS)) ||
	    (error = run_pool_open(p, SWAP_WRITE, WRITE_RUNS)))
		return error;
	if (!frames_allow(p, budget))
		return error_set(ENOMEM, "no memory for the records of %llu pages",
		                 (unsigned long long)budget);
	return 0;
}

int pager_open(struct pager *p, const struct pager_options *o)
{
	int error;

	memset(p, 0, sizeof *p);
	p->owner_ops = o->owner_ops;
	p->owner = o->owner;
	p->swap = o->swap;
	p->counters = o->counters;
	p->buffer_arena = o->buffers;
	p->buffers = o->buffers->base;
	p->cluster_max = o->cluster_max;
	p->frame_max = (uint32_t)MIN(o->budget_max, FRAME_NONE - 1);
	p->frame_free = FRAME_NONE;
	for (int i = 0; i < CLUSTERS_LISTS; i++)
		p->head[i] = p->tail[i] = CLUSTER_NONE;
	lock_init(&p->policy_lock, RANK_POLICY);
	lock_init(&p->standby_lock, RANK_STANDBY);
	lock_init(&p->stage_lock, RANK_STAGE);
	p->stage = CLUSTER_NONE;
	lock_init(&p->reclaim_lock, RANK_RECLAIM);
	lock_init(&p->reader.lock, RANK_READ);
	budget_init(p, o->budget);
	if ((error = open_records(p, o->budget)) || (error = pager_open_queues(p))) {
		pager_close(p);
		p->owner_ops = NULL;
		return error;
	}
	p->frames = p->frame_arena.base;
	p->clusters = p->cluster_arena.base;
	policy_init(&p->policy, o->policy, p->node_arena.base);
	return 0;
}

void pager_stop(struct pager *p)
{
	reclaimer_stop(p);
	reader_stop(p);
}

void pager_close(struct pager *p)
{
	pager_stop(p);
	if (p->writes) {
		reclaim_enter(p);
		while (writeback_reap(p, true))
			;
		reclaim_leave(p);
		swap_queue_close(p->writes);
	}
	for (unsigned i = 0; i < READ_QUEUES; i++)
		if (p->reads[i].io)
			swap_queue_close(p->reads[i].io);
	arena_close(&p->frame_arena);
	arena_close(&p->node_arena);
	arena_close(&p->cluster_arena);
	run_pool_close(p, SWAP_READ);
	run_pool_close(p, SWAP_WRITE);
}

uint64_t pager_metadata(const struct pager *p)
{
	uint64_t frames = counted_records(&p->frame_count);
	uint64_t clusters = counted_records(&p->cluster_count);

	return round_up(frames * (sizeof *p->frames + sizeof *p->policy.nodes), PAGE_BYTES) +
	       round_up(clusters * sizeof *p->clusters, PAGE_BYTES) +
	       run_pool_metadata(p, SWAP_READ) + run_pool_metadata(p, SWAP_WRITE);
}
