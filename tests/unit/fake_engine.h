/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/fake_engine.h - an engine without a kernel: a table that says of
 * each page whether it is present, write-protected, and what its bytes are.
 *
 * The address space of the regions is never touched. The program of a test is
 * fake_read and fake_write: they look at the table as the processor would, and
 * where an access faults they call fault_serve as one of the two kinds of
 * engine does:
 *
 *   in-thread        the faulting thread serves the fault and may sleep
 *   handler thread   may_sleep is false; the faulting thread sleeps in the kernel
 *                    until the page is installed, unprotected or woken. The
 *                    handler's other work (arrivals, deferred faults) is done
 *                    here as well, so everything happens on the test's thread
 *
 * Calls can be refused (fake_refuse), cut short (cut), and watched (hook).
 * What an engine must never see is counted in violations and printed: a call on
 * a page whose entry is not held, a page mapped twice, a page taken as clean
 * that was writable, bytes copied from a buffer without memory, a faulting
 * thread that nobody wakes.
 */
#ifndef QUIRE_TESTS_FAKE_ENGINE_H
#define QUIRE_TESTS_FAKE_ENGINE_H

#include "vm/vm.h"

#include <pthread.h>

enum fake_call {
	FAKE_MAP,
	FAKE_MAP_ZERO,
	FAKE_PLACE,
	FAKE_UNPROTECT,
	FAKE_TAKE, /* page by page: a refused one is TAKE_KEPT */
	FAKE_DROP,
	FAKE_POISON,
	FAKE_SAVE,
	FAKE_PROTECT,
	FAKE_CALLS,
	FAKE_WAKE = FAKE_CALLS, /* watched only */
};

struct fake_engine {
	pthread_mutex_t mutex; /* guards all of it but hook */
	struct engine *e;
	struct fake_range {
		char *base;
		size_t pages;
		struct fake_page *page;
		char *bytes;
	} range[16];
	unsigned ranges;
	struct {
		unsigned skip, times;
		int error;
	} refusal[FAKE_CALLS];
	unsigned
		zeros_stay; /* so many pages that are not there when taken are zeros from then on */
	unsigned cut[FAKE_CALLS];   /* the next call on more pages than that stops behind so many */
	unsigned calls[FAKE_CALLS]; /* calls, pages: what was asked for */
	unsigned pages[FAKE_CALLS];
	unsigned violations;
	unsigned wakes;
	/* Called at the end of a call on n pages, with no lock held. */
	void (*hook)(struct fake_engine *fe, enum fake_call call, char *page, unsigned n);
	/* the handler thread */
	pthread_t handler;
	bool handling, stop;
	pthread_cond_t woken; /* some page's thread may go on */
	struct fake_message {
		struct quire_region *r;
		uint64_t page;
		bool write;
	} message[64];
	unsigned messages;
};

extern const struct engine_ops fake_in_thread, fake_handler;

/* Put a fake engine into q->engine. move: it can move pages (place). */
struct fake_engine *fake_engine_open(struct quire *q, bool in_thread, bool move);
struct fake_engine *fake_engine_of(struct quire *q);

/* Let skip calls pass, then refuse times of them with -error. */
void fake_refuse(struct fake_engine *fe, enum fake_call call, unsigned skip, unsigned times,
                 int error);

/* Counts and prints what must not be. */
void fake_violation(struct fake_engine *fe, const char *what, const char *page);

/*
 * The program's accesses. A page's bytes are those of one value: 0 is a page of
 * zeros. => FAULT_DONE, or what the fault ended with
 */
enum fault_result fake_write(struct quire_region *r, uint64_t page, uint64_t value);
/* *value: what the page holds; UINT64_MAX if it is no value's page. */
enum fault_result fake_read(struct quire_region *r, uint64_t page, uint64_t *value);
/* One fault, served once, as an engine would. */
enum fault_result fake_fault(struct quire_region *r, uint64_t page, bool write, bool may_sleep);

/*
 * A handler thread of its own, for tests with many threads: accesses of other
 * threads post their faults to it and sleep until their page is woken.
 */
void fake_handler_start(struct quire *q);
void fake_handler_stop(struct quire *q);

/* What a handler thread does between faults: complete the reads that arrived. => how many */
unsigned fake_arrivals(struct quire *q);

/* The program's own madvise(MADV_DONTNEED), behind the pager's back. */
void fake_program_discards(struct quire_region *r, uint64_t page);

bool fake_present(struct quire_region *r, uint64_t page);
bool fake_protected(struct quire_region *r, uint64_t page);
/* The bytes, present or not faulted: NULL if absent. */
const void *fake_bytes(struct quire_region *r, uint64_t page);

/* Contents of a page for a value, and back (UINT64_MAX: no value's). */
void fake_fill(void *page, uint64_t value);
uint64_t fake_value(const void *page);

#endif
