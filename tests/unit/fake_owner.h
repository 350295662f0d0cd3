/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/fake_owner.h - a pager without vm/: pages are numbers in a table,
 * on a fake disk. The table is what page entries are to the real owner, and the
 * pager is checked against it.
 */
#ifndef QUIRE_TESTS_FAKE_OWNER_H
#define QUIRE_TESTS_FAKE_OWNER_H

#include "pager/pager.h"
#include "tests/unit/fake_disk.h"

#define FAKE_OWNER_PAGES 2048u

enum owned_state { OWNED_EMPTY, OWNED_MAPPED, OWNED_STANDBY, OWNED_READING, OWNED_SLOT };

struct owned_page {
	_Atomic enum owned_state state; /* of what is being read, set by who completes it */
	uint32_t at;                    /* frame, buffer or slot, by state */
	uint64_t value;                 /* that its bytes must be made of */
	bool busy;                      /* refuse to retire it */
};

struct fake_owner {
	struct pager p;
	struct counters counters;
	struct swapfile *swap;
	struct fake_disk *disk;
	uint32_t slots;
	struct arena buffers;
	struct owned_page page[FAKE_OWNER_PAGES];
	/* what the pager asked and told */
	unsigned batch; /* most pages of a take; default the pager's */
	bool frees;     /* clean victims become slots at once */
	unsigned takes, clean_only_takes, retires, refused_retires, written;
	_Atomic unsigned replenished;
	_Atomic unsigned arrivals;
	unsigned failed_arrivals, failures[2];
	int arrival_error, failure_error;
	page_id failure_page;               /* in standby and dirty, or PAGE_ID_NONE */
	uint64_t arrived[FAKE_OWNER_PAGES]; /* in this order */
	_Atomic uint64_t held_up;           /* page number + 1: who completes it waits, until 0 */
	uint64_t retired[FAKE_OWNER_PAGES];
};

struct fake_owner *fake_owner_open(uint64_t budget, uint32_t slots);
/* => what was broken at the end */
unsigned fake_owner_close(struct fake_owner *o);
unsigned fake_owner_check(struct fake_owner *o);

/* Map n untouched pages, dirty, with values of their own. => what credits_get said */
int fake_owner_map(struct fake_owner *o, uint64_t first, unsigned n);
/* Unmap those of n pages, from first on, that are mapped, into one cluster. => it, in standby */
uint32_t fake_owner_unmap(struct fake_owner *o, uint64_t first, unsigned n);
/* Take a page out of standby and map it: dirty, or clean if it was. */
void fake_owner_rescue(struct fake_owner *o, uint64_t page);
/* A clean page in standby becomes its slot. */
void fake_owner_retire(struct fake_owner *o, uint64_t page);
/* Give up a page in any state but READING. */
void fake_owner_drop(struct fake_owner *o, uint64_t page);
/* Start to read these pages (slots) into one cluster. => false: no queue is free; nothing has changed */
bool fake_owner_read(struct fake_owner *o, const uint64_t *pages, unsigned n);
/* The same with nobody waiting for the first of them. */
bool fake_owner_read_ahead(struct fake_owner *o, const uint64_t *pages, unsigned n);
/* Wait until a page that is being read has arrived, or not. */
void fake_owner_wait(struct fake_owner *o, uint64_t page);
/* Does the page's buffer hold its value? */
bool fake_owner_holds(struct fake_owner *o, uint64_t page);

/* Write a cluster and wait for it; give up what is clean in standby. */
bool fake_owner_write(struct fake_owner *o, uint32_t cluster);
unsigned fake_owner_reap(struct fake_owner *o);
uint32_t fake_owner_step(struct fake_owner *o);
/* Map n pages and make slots of them, neighbours in one cluster. */
void fake_owner_swap(struct fake_owner *o, uint64_t first, unsigned n);

#endif
