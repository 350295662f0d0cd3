/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/vm_fixture.h - what the programs that test vm/ on a fake_vm share:
 * the one vm at a time, and accesses that must be served.
 *
 * FOR_BOTH runs a block for an in-thread engine and for a handler thread's, each
 * with a vm that the program's start(in_thread) opens into `vm`.
 */
#ifndef QUIRE_TESTS_VM_FIXTURE_H
#define QUIRE_TESTS_VM_FIXTURE_H

#include "tests/unit/fake_vm.h"
#include "tests/unit/unit.h"

extern struct fake_vm *vm;

/* Check and close it. */
void finish(void);
/* What a page reads as. */
uint64_t value(uint64_t page);
void put(uint64_t page, uint64_t v);
/* Value 1000 + page into each page, and that it is there. */
void put_pages(uint64_t first, uint64_t n);
void check_pages(uint64_t first, uint64_t n);

#define FOR_BOTH for (int in_thread = 0; in_thread < 2 && start(in_thread); in_thread++, finish())
#define CHECK_VM() CHECK_EQ(fake_vm_check(vm), 0)
#define COUNTER(name) counted(&vm->q->counters.name)

#endif
