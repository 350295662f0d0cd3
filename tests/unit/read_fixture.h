/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/read_fixture.h - what the programs that read pages of a fake owner
 * share: the one owner at a time, and threads that wait for a page.
 */
#ifndef QUIRE_TESTS_READ_FIXTURE_H
#define QUIRE_TESTS_READ_FIXTURE_H

#include "tests/unit/fake_owner.h"
#include "tests/unit/unit.h"

extern struct fake_owner *owner;

/* Open it; its first n pages are on the swap file. */
void open_with_slots(unsigned n);
/* Check and close it. */
void close_owner(void);

/* Have these arrived, with what was written? */
void check_read(const uint64_t *pages, unsigned n);

/* For pthread_create: wait for the buffer (its number, as a pointer), then count up woken. */
extern _Atomic unsigned woken;
void *wait_for(void *id);

#endif
