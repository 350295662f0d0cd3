/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/fake_disk.h - a disk in memory behind struct io_ops that fails as
 * it is told to.
 *
 *     struct fake_disk *d = fake_disk_new(pages);
 *     struct swapfile_options o = { .io_ops = &fake_disk_ops, .io_arg = d };
 *
 *     fake_disk_fault(d, (struct fake_fault){ .kind = FAKE_SHORT, .op = FAKE_READ,
 *                                             .value = 5000 });
 *
 * The file that the swap file opens is real and stays empty; all transfers go
 * to the fake. Any thread may use it.
 */
#ifndef QUIRE_TESTS_FAKE_DISK_H
#define QUIRE_TESTS_FAKE_DISK_H

#include "swapfile/io.h"

#include <stdint.h>

enum fake_kind {
	FAKE_FAIL = 1,    /* nothing is moved; the answer is -value */
	FAKE_SHORT,       /* value bytes are moved, and the answer says so */
	FAKE_TORN,        /* value bytes are moved, the answer says all were (0: a lost write) */
	FAKE_MISDIRECTED, /* all is moved, value pages further on than asked */
	FAKE_FLIPPED,     /* all is moved, with one bit of byte value flipped */
	FAKE_DELAYED,     /* not ready for the first value looks of reap */
	FAKE_SLOW         /* all is moved, value milliseconds after it was started */
};

enum fake_op { FAKE_ANY, FAKE_READ, FAKE_WRITE };

/* What befalls requests that match: the first fault in the order of adding does. */
struct fake_fault {
	enum fake_kind kind;
	enum fake_op op;
	int64_t value;
	uint64_t first_page, pages; /* requests that touch these pages; pages 0: any */
	unsigned skip;              /* let this many pass first */
	unsigned times;             /* then befall this many; 0: one */
};

enum fake_order { FAKE_IN_ORDER, FAKE_LAST_FIRST, FAKE_SHUFFLED };

/* What reached the disk. */
struct fake_counts {
	unsigned reads, writes; /* requests, of rings and of transfer */
	unsigned submits;
	unsigned waits;    /* without starting anything */
	unsigned iov_most; /* most pieces in a request */
	unsigned faults;   /* requests that a fault befell */
};

struct fake_disk;

struct fake_disk *fake_disk_new(uint64_t pages);
void fake_disk_free(struct fake_disk *d);

void fake_disk_fault(struct fake_disk *d, struct fake_fault fault);
void fake_disk_heal(struct fake_disk *d); /* forget all faults */
void fake_disk_order(struct fake_disk *d, enum fake_order order, uint64_t seed);
/* The next times submits start nothing and answer -error. */
void fake_disk_fail_submits(struct fake_disk *d, int error, unsigned times);

/* Before a ring's descriptor is told next, for somebody who is about to sleep for it, call this, once. */
void fake_disk_on_descriptor(struct fake_disk *d, void (*call)(void *arg), void *arg);

/* From now on nobody may sleep for a ring: -error at once. 0: one may again */
void fake_disk_fail_waits(struct fake_disk *d, int error);

void *fake_disk_page(struct fake_disk *d, uint64_t page); /* the bytes on the disk */
struct fake_counts fake_disk_counts(struct fake_disk *d);

extern const struct io_ops fake_disk_ops;

#endif
