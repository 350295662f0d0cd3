/* SPDX-License-Identifier: MIT */
/*
 * tests/stress/stress.h - what the files of the stress program share.
 *
 *   stress.c   options, one round after another, the command that repeats a run
 *   shadow.c   arenas (a region and what it must hold), checks, the report of a wrong word
 *   ops.c      accesses to a page, pins, system calls, protection, discards
 *   worker.c   the workers: patterns of accesses, advice, budgets, new regions
 *   watch.c    resident memory against the budget, stalled threads, signals
 *
 * How concurrent threads make accesses that can be checked: memory is cut into
 * extents of a few pages. A *private* extent belongs to one thread, which may
 * do anything with it. In a *striped* extent the words of each page are dealt
 * to all threads, so that several write different words of one page at once,
 * and the first words are counters to which every thread adds. A word's value
 * is a mix of (region, index, version); versions are kept here in plain memory,
 * so a wrong word tells what it is: zeros, an older version, another place's.
 */
#ifndef QUIRE_STRESS_H
#define QUIRE_STRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quire.h>

#define WORDS (QUIRE_PAGE_SIZE / sizeof(uint64_t))
#define COUNTERS 8u /* words at the start of a striped page that all threads add to */
#define EXTENT_PAGES 8u
#define EXTENT_WORDS (EXTENT_PAGES * WORDS)
#define THREADS_MAX 256u
#define ARENAS_MAX 64u
#define SIGNAL_PAGES 4u /* pages of the signal arena that belong to one thread */

struct config {
	uint64_t seed;
	double seconds;
	size_t memory;   /* bytes: the highest budget */
	unsigned factor; /* arenas together are so many times the budget */
	unsigned threads, arenas;
	bool budget, churn, signals, syscalls, pins, protect, madvise, rss, expect_paging;
	unsigned stall; /* seconds without progress that count as a hang */
};

/* A region and what it must hold. */
struct arena {
	pthread_rwlock_t lock; /* read: accesses; write: alone in the arena */
	quire_region_t *region;
	uint64_t *base;
	size_t pages, pages_max;
	uint16_t generation; /* of the region, in each value */
	uint16_t *version;   /* a word: written only by the word's owner; 0: zeros */
	uint64_t *started;   /* a counter: sum of the adds begun, */
	uint64_t *done;      /*   and of those finished */
};

struct worker {
	pthread_t thread;
	unsigned id;
	uint64_t random;
	uint64_t ops;     /* atomic: the watcher reads it */
	const char *what; /* atomic: what it is doing */
	bool waiting;     /* atomic: in a wait for another worker */
	int file;         /* memfd for reads and writes of system calls */
	uint64_t *bounce; /* EXTENT_WORDS of plain memory */
	uint64_t signals; /* handled, each with accesses */
};

struct round {
	const struct config *config;
	quire_t *q;
	struct arena arena[ARENAS_MAX];
	struct arena signal_arena;
	struct worker worker[THREADS_MAX];
	uint64_t key;
	bool stop;                /* atomic: the workers' end */
	bool finished;            /* atomic: the watcher's end */
	size_t ceiling;           /* atomic: highest budget that may hold at this instant */
	unsigned ceiling_changes; /* atomic */
	unsigned pinned;          /* atomic: pages pinned by the workers */
	uint64_t errors;          /* atomic: calls of on_error */
	bool syscalls_fault;      /* system calls may touch absent pages */
	size_t baseline;          /* resident bytes before quire_open */
	/* the watcher's findings */
	size_t worst_resident, worst_allowed;
	int64_t worst_margin;
	uint64_t samples;
};

extern struct round round_now;
extern __thread struct worker *this_worker;

/* shadow.c */
uint64_t random_next(uint64_t *state);
void shadow_init(struct config *c); /* makes and touches all shadow memory */
void shadow_free(void);
uint64_t word_value(const struct arena *a, size_t index, uint16_t version);
bool arena_private(const struct arena *a, size_t page, unsigned *owner);
void arena_create(struct arena *a, size_t pages);
void arena_destroy(struct arena *a);
void arena_check_word(struct arena *a, size_t index);
void arena_check_stranger(struct arena *a, size_t index);
void arena_check_page(struct arena *a, size_t page, bool all);
void arena_write_word(struct arena *a, size_t index, uint64_t how);
void arena_add(struct arena *a, size_t index, uint64_t amount);
/* All words of count pages, when no one else is in the arena. */
void arena_check_range(struct arena *a, size_t page, size_t count);
/* The range has been discarded. */
void arena_forget(struct arena *a, size_t page, size_t count);
_Noreturn void arena_wrong_word(struct arena *a, size_t index, uint64_t want, uint64_t got);
struct arena *arena_of(const void *address, size_t *offset);
_Noreturn void stress_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void repeat_command(char *out, size_t size);

static inline uint64_t word_load(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline void word_store(uint64_t *p, uint64_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELAXED);
}

/* ops.c */
uint64_t rnd(struct worker *w);
void now_doing(struct worker *w, const char *what);
/* Fails the run unless result is 0. */
void must(int result, const char *call);
/* Something with a page that this thread may do. */
void visit_page(struct worker *w, struct arena *a, size_t page);
void visit_pinned(struct worker *w, struct arena *a, size_t page);

/* worker.c */
void *worker_main(void *arg);

/* watch.c */
size_t resident_now(void);
void *watch_main(void *arg);
void watch_install_handlers(void);
void signal_arm(struct worker *w); /* from the worker's own thread */
void signal_disarm(void);

#endif
