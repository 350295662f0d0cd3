/* SPDX-License-Identifier: MIT */
/*
 * heap/leaves.c - what jemalloc keeps for each GiB of addresses, made before it hands them out.
 *
 * From an address jemalloc finds its block in a radix tree, whose leaves are of a GiB each and are made
 * when the first of their addresses is entered: under a lock that it does not take before fork(2), as it
 * does with all its others. A child of a fork in that very moment would wait for it for ever.
 * So a leaf is made here, under a lock that fork does take, before extents.c hands out any of its addresses;
 * then jemalloc never has to. (5.3.0; its functions for it are internal, hence the declarations.)
 */
#include "heap/heap.h"

#include <stdalign.h>

struct rtree; /* jemalloc's rtree_t, and what a thread has looked up in it last */
struct rtree_ctx;

extern struct rtree je_arena_emap_global;
void je_rtree_ctx_data_init(struct rtree_ctx *ctx);
void *je_rtree_leaf_elm_lookup_hard(void *tsdn, struct rtree *rtree, struct rtree_ctx *ctx,
                                    uintptr_t key, bool dependent, bool init_missing);

static pthread_mutex_t leaves = PTHREAD_MUTEX_INITIALIZER;

void heap_leaves_lock(void)
{
	pthread_mutex_lock(&leaves);
}

void heap_leaves_unlock(void)
{
	pthread_mutex_unlock(&leaves);
}

bool heap_leaves_make(const char *from, const char *to)
{
	alignas(64) char space[2048]; /* it has 16 + 8 entries of two words each */
	struct rtree_ctx *ctx = (struct rtree_ctx *)space;
	uintptr_t at = (uintptr_t)from & ~(LEAF_BYTES - 1);
	bool is_made = true;

	je_rtree_ctx_data_init(ctx);
	pthread_mutex_lock(&leaves);
	for (; is_made && at < (uintptr_t)to; at += LEAF_BYTES)
		is_made = je_rtree_leaf_elm_lookup_hard(NULL, &je_arena_emap_global, ctx, at, false,
		                                        true) != NULL;
	pthread_mutex_unlock(&leaves);
	return is_made;
}
