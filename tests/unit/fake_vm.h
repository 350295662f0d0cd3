/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/fake_vm.h - a struct quire as quire_open builds it, but with the
 * fake engine and the fake disk, and one region; and what must hold of it.
 *
 * No thread runs unless asked for: the tests take pages, write them and give
 * them up step by step.
 */
#ifndef QUIRE_TESTS_FAKE_VM_H
#define QUIRE_TESTS_FAKE_VM_H

#include "tests/unit/fake_disk.h"
#include "tests/unit/fake_engine.h"

struct fake_vm_options {
	bool in_thread, move;
	bool threads;       /* the reclaimer, and for an in-thread engine the reader */
	uint64_t budget;    /* pages; default 256 */
	uint64_t pages;     /* of the region; default 1024 */
	uint64_t slots;     /* of the swap file; default 4096 */
	uint32_t readahead; /* pages; default 16 */
	const char *policy; /* default clock */
};

struct fake_vm {
	struct quire *q;
	struct fake_engine *fe;
	struct fake_disk *disk;
	struct quire_region *r;
	uint32_t slots;
	/* what on_error was told */
	_Atomic unsigned errors[QUIRE_ERROR_ENGINE + 1];
	struct quire_error last;
};

struct fake_vm *fake_vm_open(const struct fake_vm_options *options);
/* => things that were wrong at the end: violations, and slots or credits left over */
unsigned fake_vm_close(struct fake_vm *vm);

/* Every invariant of vm/ and pager/, with no thread inside. => how many are broken */
unsigned fake_vm_check(struct fake_vm *vm);

/* Unmap what can be: dirty pages are DIRTY in standby, clean ones CLEAN. => pages taken */
unsigned fake_vm_take(struct fake_vm *vm, bool clean_only);
/* Start writing every dirty page in standby. => false: some could not be */
bool fake_vm_write(struct fake_vm *vm);
/* Finish all writes. */
void fake_vm_reap(struct fake_vm *vm);
/* Give up what is clean in standby. => pages that became slots */
unsigned fake_vm_retire(struct fake_vm *vm);
/* All of these: every page that is not pinned or zero becomes a slot. */
void fake_vm_swap_out(struct fake_vm *vm);
/* One step of reclaim. => progress */
uint32_t fake_vm_step(struct fake_vm *vm);

uint64_t fake_vm_entry(struct fake_vm *vm, uint64_t page);
enum entry_state fake_vm_state(struct fake_vm *vm, uint64_t page);
/* Of a page in standby (or being read); of a mapped page. */
struct buffer *fake_vm_buffer(struct fake_vm *vm, uint64_t page);
struct frame *fake_vm_frame(struct fake_vm *vm, uint64_t page);

#endif
