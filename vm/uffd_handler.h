/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd_handler.h - one handler of the engine `uffd`: messages become faults
 * that are served. When it looks, sleeps and helps others is for uffd_thread.c
 * to say.
 */
#ifndef QUIRE_VM_UFFD_HANDLER_H
#define QUIRE_VM_UFFD_HANDLER_H

#include "vm/refusals.h"
#include "vm/uffd.h"
#include "vm/vm.h"

#define DEFERRED_MAX 1024

struct deferred {
	struct uffd_access access;
	struct patience patience;
};

struct handler {
	struct engine *e;
	struct refusals *refusals;       /* of all handlers */
	_Atomic uint32_t deferred_count; /* changed by the handler alone */
	struct deferred deferred[DEFERRED_MAX];
	struct uffd_restless restless;
	uint32_t queue; /* where the last read has arrived */
};

/*
 * Take up messages and serve them; the reads of several are started together.
 * several: called before, where there is more than one. => messages
 */
uint32_t handler_receive(struct handler *h, void (*several)(struct handler *h));

/*
 * Complete a read that has arrived, whoever started it. One, and then faults: what
 * else has arrived may be another handler's. => there was one
 */
bool handler_arrival(struct handler *h);

/* Try again what was put off. */
void handler_retry(struct handler *h);

/* Let accesses that were refused long ago be tried again. */
void handler_forgive(struct handler *h, uint64_t now);

#endif
