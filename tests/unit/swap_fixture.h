/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/swap_fixture.h - what the programs that open real swap files share: a
 * directory of their own, children, and slots with known contents.
 */
#ifndef QUIRE_TESTS_SWAP_FIXTURE_H
#define QUIRE_TESTS_SWAP_FIXTURE_H

#include "base/base.h"
#include "swapfile/store.h"
#include "tests/unit/unit.h"

/* The program's own directory; there while swap_main runs, and to be left empty. */
extern char test_dir[];
/* As unit_main. */
int swap_main(int argc, char **argv, const char *suite, const struct unit_test *tests);

/* A name in the directory; good until the fourth call after. */
const char *in_dir(const char *name);
unsigned entries(void);
int open_at(struct swapfile **s, const char *path);
/* Has the last failure these words? */
bool says(const char *words);
/* Run work in a child. => its exit status; 200 + the signal that ended it */
int in_child(int (*work)(void));

void *pages_new(unsigned n);
struct swap_run run_of(enum swap_op op, slot_t slot, unsigned count, void *pages);
/* Write slots with what their number says, through a queue or without. => status */
int write_slots(struct swapfile *s, slot_t first, unsigned count, void *pages);
/* Do they hold that? */
bool slots_hold(struct swapfile *s, slot_t first, unsigned count, void *pages);

#endif
