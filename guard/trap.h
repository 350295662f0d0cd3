/* SPDX-License-Identifier: MIT */
/* guard/trap.h - between guard/'s files: the page that the filter lets pass, and what it sends. */
#ifndef QUIRE_GUARD_TRAP_H
#define QUIRE_GUARD_TRAP_H

#include <stdbool.h>
#include <stdint.h>

/* One page of code, below the window, where a call may be made whatever its arguments. */
#define TRAMPOLINE UINT64_C(0x67ffffff0000)

/*
 * What the filter gives the handler of SIGSYS to know it by: 16 bits that are the
 * table's own, so that a filter that was inherited from another version is not taken
 * for ours.
 */
uint16_t filter_mark(void);
#define FILTER_MAX 4096u
struct sock_filter;
/* code: room for FILTER_MAX. => how many instructions */
unsigned filter_compile(struct sock_filter *code, uint16_t mark);
/* => 0 or -errno with words */
int filter_install(void);
/* May it be? => 0 or an errno */
int filter_probe(void);

void figures_count(long number, bool known);

#endif
