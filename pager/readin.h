/* SPDX-License-Identifier: MIT */
/* pager/readin.h - what readin.c and reader.c share. */
#ifndef QUIRE_PAGER_READIN_H
#define QUIRE_PAGER_READIN_H

#include "pager/pager.h"

/*
 * Add the runs of a cluster's first n buffers, beginning with the one given.
 * => queue lock held, or nobody else uses the queue; the same for readin_reap
 */
void readin_add(struct pager *p, struct read_queue *q, struct swap_run *run, uint32_t c,
                uint32_t n);
/* Complete one run, if any has arrived (wait: or arrives), and tell those who wait for one. */
bool readin_reap(struct pager *p, struct read_queue *q, bool wait);

/* For readin_reserve, readin_start and readin_cancel where there is a reader. */
bool reader_reserve(struct pager *p);
void reader_post(struct pager *p, uint32_t c, uint32_t n);
void reader_cancel(struct pager *p);

#endif
