/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/uffd_fixture.h - what the programs share that test the userfaultfd
 * engines on this kernel: a pager as quire_open makes it, one at a time, on a named
 * swap file; its one region; and accesses that may be refused.
 */
#ifndef QUIRE_TESTS_UFFD_FIXTURE_H
#define QUIRE_TESTS_UFFD_FIXTURE_H

#include "tests/unit/unit.h"
#include "vm/uffd.h"
#include "vm/vm.h"

#include <pthread.h>

#define PAGES 512u
#define BUDGET 64u
#define WORDS (PAGE_BYTES / sizeof(uint64_t))

extern quire_t *q;
extern struct quire_region *r;
extern int file;                                    /* the swap file */
extern _Atomic unsigned told[QUIRE_ERROR_FORK + 1]; /* errors, by kind */

/* What the tests differ in; all zeros: as the kernel of this machine has it. */
struct uffd_how {
	size_t swap_size;
	bool no_move, no_poison;
};

void uffd_start_as(const char *engine, struct uffd_how how);
void uffd_start(const char *engine);
void uffd_finish(void);

volatile uint64_t *at(uint64_t page, unsigned word);
/* A number of its own into each word; and that it is there. */
void uffd_fill(void);
void uffd_check_all(void);
/* Touch others until it is on the swap file only. */
void await_slot(uint64_t page);

void nap(long ms);
double cpu_seconds(void);

struct access {
	volatile uint64_t *word;
	bool write;
	uint64_t value;
	/* what came of it */
	int signal;
	void *address;
	_Atomic bool ended;
};

void do_access(struct access *a);
/* The same as a thread. arg: struct access */
void *access_thread(void *arg);

/* unit_main with the handlers that do_access needs. */
int uffd_main(int argc, char **argv, const char *name, const struct unit_test *tests);

#endif
