/* SPDX-License-Identifier: MIT */
/* vm/prefetch.h - the WILLNEED thread of a pager. */
#ifndef QUIRE_VM_PREFETCH_H
#define QUIRE_VM_PREFETCH_H

#include "base/lock.h"

#include <pthread.h>

struct quire;

#define PREFETCH_REQUESTS 64u

struct prefetch_request {
	uint32_t region;
	uint64_t first, n; /* pages */
};

struct prefetch {
	struct quire *q;
	struct lock lock;
	struct prefetch_request request[PREFETCH_REQUESTS]; /* lock */
	uint32_t head, count;                               /* lock */
	bool started;                                       /* lock */
	_Atomic uint32_t wake, stop;
	pthread_t thread;
};

void prefetch_init(struct prefetch *f, struct quire *q);
/* Queue a range; does not wait. Starts the thread the first time. */
int prefetch_request(struct prefetch *f, uint32_t region, uint64_t first, uint64_t n);
/* Forget the requests for a region that is being destroyed; one in service ends by itself. */
void prefetch_cancel(struct prefetch *f, uint32_t region);
void prefetch_stop(struct prefetch *f);
/* In a child of fork: what was asked for is forgotten, as advice may be. */
void prefetch_fork_in_child(struct prefetch *f);

#endif
