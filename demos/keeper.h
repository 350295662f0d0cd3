/* SPDX-License-Identifier: MIT */
/*
 * demos/keeper.h - dumps of a store that goes on being written to, in two ways: a snapshot of the
 * region that is saved as an increment to the one before, or fork, whose child writes all of it.
 *
 * The writer begins a dump between two of its operations; a thread sees it through.
 */
#ifndef QUIRE_DEMO_KEEPER_H
#define QUIRE_DEMO_KEEPER_H

#include <pthread.h>
#include <quire.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#include "workload.h"

struct dump {
	char path[512];
	uint64_t sequence; /* it is the store after so many operations */
	double pause;      /* seconds for which the writer was held up to begin it */
	double began, took;
	uint64_t file_bytes;
	uint64_t copied; /* pages, because they were written to */
};

struct keeper {
	/* Set by the caller. */
	const struct workload *workload;
	const struct store *store;
	quire_t *q; /* NULL: the store is in plain memory */
	quire_region_t *region;
	bool by_fork;
	const char *directory;
	double seconds; /* for the progress bar */
	const char *label;

	/* What has come of it. */
	struct dump *dumps;
	unsigned count;
	uint64_t peak;  /* bytes of memory, of all processes, without the log */
	uint64_t extra; /* of that, beside what there was in the beginning */

	uint64_t before, used_before; /* memory; of the store */
	double started;
	quire_snapshot_t *snapshot, *base;
	uint64_t copies; /* when the last snapshot was taken */
	pid_t child;
	struct report *report; /* of the child; shared */
	pthread_t thread;
	sem_t begun;
	_Atomic bool busy, stop;
};

/* From the fields above; the store is filled. */
void keeper_start(struct keeper *k);

/* By the writer, between two operations. => false: the last dump has not ended */
bool keeper_begin(struct keeper *k);

/* The last dump is waited for. dumps is to be freed. */
void keeper_stop(struct keeper *k);

#endif
