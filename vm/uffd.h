/* SPDX-License-Identifier: MIT */
/* vm/uffd.h - what the two userfaultfd engines share (uffd.c). Private to them. */
#ifndef QUIRE_VM_UFFD_H
#define QUIRE_VM_UFFD_H

#include "vm/engine.h"

/* Open a descriptor with the features needed, probing for the others. user_only: no faults of the kernel's. */
int uffd_open(struct engine *e, bool in_thread);
void uffd_close(struct engine *e);
int uffd_attach(struct engine *e, char *base, size_t bytes);
void uffd_detach(struct engine *e, char *base, size_t bytes);
int uffd_attach_buffers(struct engine *e, char *base, size_t bytes);
int uffd_map(struct engine *e, char *page, const char *from, unsigned n, bool writable);
int uffd_map_zero(struct engine *e, char *page, unsigned n, bool write);
int uffd_place(struct engine *e, char *page, char *buffer);
/* Write-protect, or not, what is present of n pages. */
int uffd_protection(struct engine *e, char *page, size_t n, bool protect);
int uffd_unprotect(struct engine *e, char *page, unsigned n);
void uffd_take(struct engine *e, struct take_page *pages, unsigned n);
int uffd_drop(struct engine *e, char *page, size_t n);
void uffd_wake(struct engine *e, char *page, unsigned n);
int uffd_poison(struct engine *e, char *page);

#endif
