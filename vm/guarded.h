/* SPDX-License-Identifier: MIT */
/*
 * vm/guarded.h - regions whose memory system calls may be given though it is absent:
 * what vm does for guard/, and where such regions lie.
 */
#ifndef QUIRE_VM_GUARDED_H
#define QUIRE_VM_GUARDED_H

#include <stddef.h>

/* Have the guard on, in this process, from now on. => 0 or -errno with words */
int guarded_start(void);
/* Reserve address space in the window, as kernel_reserve does anywhere. => NULL: there is none */
void *guarded_reserve(size_t bytes);

#endif
