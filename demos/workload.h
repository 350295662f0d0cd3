/* SPDX-License-Identifier: MIT */
/*
 * demos/workload.h - what is done to the store: a stream of puts and deletes, its log, by which
 * any state of the store can be checked, and how long each operation took.
 */
#ifndef QUIRE_DEMO_WORKLOAD_H
#define QUIRE_DEMO_WORKLOAD_H

#include "store.h"

/* Key n gets the value that its seed stands for; seed 0: it is deleted. */
struct operation {
	uint32_t key, seed;
};

/* Buckets an eighth of a doubling wide. */
struct latency {
	uint64_t bucket[64 * 8];
	uint64_t count, longest; /* ns */
};

struct workload {
	uint64_t keys;
	double skew;     /* exponent of Zipf's law: how often a few keys are chosen */
	uint64_t random; /* state of the generator */
	/* log[n] is what makes sequence n + 1 of n. Shared memory: fork has no work with it. */
	struct operation *log;
	_Atomic uint64_t logged;
	uint64_t log_room;
	struct latency latency;
};

/* How many keys a store of so many bytes can have, with room for values that grow. */
uint64_t workload_keys(size_t bytes);

void workload_init(struct workload *w, size_t bytes, double skew, uint64_t operations);
void workload_end(struct workload *w);

/* Put each key once. */
void workload_fill(struct workload *w, struct store *s);

/* One operation. */
void workload_step(struct workload *w, struct store *s);

/* Memory that the log takes, in bytes. */
uint64_t workload_log_bytes(const struct workload *w);

/*
 * Is this the store as it was after so many operations? Each key is looked up, and its value
 * compared with what the log says. Prints what is not so, and calls it name.
 */
bool workload_check(const struct workload *w, const void *memory, size_t bytes, uint64_t sequence,
                    const char *name);

void latency_add(struct latency *l, uint64_t ns);
/* The upper bound of the part of all, in ns. */
uint64_t latency_of(const struct latency *l, double part);

#endif
