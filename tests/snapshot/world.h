/* SPDX-License-Identifier: MIT */
/*
 * tests/snapshot/world.h - regions, snapshots and clones beside a model in plain memory, and the
 * operations on both. An operation that the world has nothing for (a snapshot where
 * there is none) does nothing, so any part of a sequence is one.
 */
#ifndef QUIRE_TESTS_SNAPSHOT_WORLD_H
#define QUIRE_TESTS_SNAPSHOT_WORLD_H

#include <quire.h>

#include <stdint.h>

enum op_kind {
	OP_WRITE,     /* region a: pages from b on, c of them */
	OP_READ,      /* the same */
	OP_DISCARD,   /* the same */
	OP_COLD,      /* the same, and others touched, so that they are evicted */
	OP_PIN,       /* page b of region a, until the next such */
	OP_SNAPSHOT,  /* of region a */
	OP_CLONE,     /* of snapshot a */
	OP_ROLLBACK,  /* of snapshot a */
	OP_DIFF,      /* of snapshots a and b */
	OP_FREE,      /* snapshot a */
	OP_DESTROY,   /* region a */
	OP_CREATE,    /* a region */
	OP_CHECK,     /* snapshot a */
	OP_CHECK_ALL, /* all that there is */
	OP_STORM, /* threads write to all regions while snapshots of region a are taken; b: and forks */
	OP_SAVE, /* snapshot a to file b; c: as an increment to snapshot c */
	OP_LOAD, /* file b */
	OP_FORK, /* the child goes on with the next operations; b: the parent meanwhile */
	OP_KINDS
};

struct op {
	enum op_kind kind;
	uint32_t a, b, c;
};

#define PAGES 160u
#define REGIONS 5u
#define SNAPSHOTS 8u

const char *op_name(enum op_kind kind);
/* Files that snapshots are saved to; and how many operations a child does. */
#define FILES 6u
#define CHILD_OPS 25u

/* Run n operations in a new pager, and check all in the end. Ends the process where something is wrong. */
void world_run(const struct op *ops, unsigned n, int verbose);

#endif
