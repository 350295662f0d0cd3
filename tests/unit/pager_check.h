/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/pager_check.h - what must hold of a pager whenever no thread is
 * inside it (writes and reads may be in flight): P1, F1, C1, C2, the lists of
 * clusters, the gauges.
 */
#ifndef QUIRE_TESTS_PAGER_CHECK_H
#define QUIRE_TESTS_PAGER_CHECK_H

#include "pager/pager.h"

/*
 * mapped: pages that hold a credit for being mapped. slots: as many references
 * to each of slot_count slots as the owner knows of; those of the buffers are
 * added and the sum is compared with the swap file's. Prints what is broken.
 * => how many things are
 */
unsigned pager_check(struct pager *p, uint64_t mapped, uint16_t *slots, uint32_t slot_count);

/* Print a broken invariant. => 1 */
unsigned pager_broken(const char *what, unsigned long long a, unsigned long long b);

#endif
