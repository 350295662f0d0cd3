/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/vm_fixture.h - what the programs that test vm/ on a fake_vm share:
 * the one vm at a time, accesses that must be served, and pages brought into a
 * state.
 *
 * FOR_BOTH runs a block for an in-thread engine and for a handler thread's, each
 * with a new vm. FOR_BOTH_ALONE does so without readahead: each access is of one
 * page.
 */
#ifndef QUIRE_TESTS_VM_FIXTURE_H
#define QUIRE_TESTS_VM_FIXTURE_H

#include "tests/unit/fake_vm.h"
#include "tests/unit/unit.h"

extern struct fake_vm *vm;

/* Open it. => never NULL */
struct fake_vm *start(bool in_thread);
struct fake_vm *start_alone(bool in_thread);
/* Check and close it. */
void finish(void);
void no_readahead(void);

/* What a page reads as. */
uint64_t value(uint64_t page);
void put(uint64_t page, uint64_t v);
/* Value 1000 + page into each page, and that it is there. */
void put_pages(uint64_t first, uint64_t n);
void check_pages(uint64_t first, uint64_t n);
/* The same, and they are slots; or mapped and equal to their slots. Without readahead from now on. */
void make_swapped(uint64_t first, uint64_t n);
void make_clean(uint64_t first, uint64_t n);

/* The next times transfers fail. */
void disk_fails(enum fake_op op, int error, unsigned times);
/* Until writes are tried again after one that failed. */
void wait_out_backoff(void);

#define FOR_BOTH for (int in_thread = 0; in_thread < 2 && start(in_thread); in_thread++, finish())
#define FOR_BOTH_ALONE \
	for (int in_thread = 0; in_thread < 2 && start_alone(in_thread); in_thread++, finish())
#define CHECK_VM() CHECK_EQ(fake_vm_check(vm), 0)
#define CHECK_STATE(page, state) CHECK_EQ(fake_vm_state(vm, (page)), (state))
#define COUNTER(name) counted(&vm->q->counters.name)
#define USED() swapfile_used(vm->q->swap)

#endif
