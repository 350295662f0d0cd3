/* SPDX-License-Identifier: MIT */
/*
 * vm/cover.h - which pages of a region the program can get at, and for what: the
 * engine sigsegv's side of the address space (its pages' bytes are in sigsegv.c).
 *
 * A page is hidden, or shown; a shown one is clean (a write to it is a fault) or
 * dirty. Hidden pages are guard pages (MADV_GUARD_INSTALL: no mapping of their own,
 * Linux 6.15 on shared memory) or, where there are none, PROT_NONE. Clean pages are
 * read-only. The kernel makes a mapping of each range that differs from its
 * neighbours in protection, and allows vm.max_map_count of them, so:
 *
 *   - with guard pages, what is hidden may have any protection: a change takes it
 *     along, as far as there are no shown pages of the other kind, within a leaf
 *     (LEAF_ENTRIES pages). All clean, or all dirty, a leaf is one mapping.
 *   - the seams (neighbours that differ) of all regions of a pager are counted, and
 *     a change that would make too many is refused: ENGINE_CROWDED. Once pages have
 *     been evicted there is room again.
 *
 * Leaves that were never shown a page of are PROT_NONE, without guard pages, which cost
 * a page-table entry each.
 *
 * Who shows or hides a page holds its entry, but for cover_protect and cover_clean. A page that is
 * dirty is never read-only, unless the program wants it so (fixed).
 */
#ifndef QUIRE_VM_COVER_H
#define QUIRE_VM_COVER_H

#include "base/arena.h"
#include "base/lock.h"
#include "vm/engine.h"

struct cover;
struct quire_probe;

/* What the covers of a pager share. */
struct cover_limits {
	bool guards;        /* guard pages work here */
	int pidfd;          /* for process_madvise(2) on ourselves; -1: does not work */
	uint32_t seams_max; /* of the mappings that are allowed, our part */
	_Atomic uint32_t seams;
};

/* allow_guards: false does without. Probes; fd: a file that can be mapped, shared */
void cover_limits_open(struct cover_limits *l, int fd, bool allow_guards);
void cover_limits_close(struct cover_limits *l);
/* In a child of fork: what is of this process anew. */
void cover_limits_fork(struct cover_limits *l);
/* guard_pages, process_madvise (of which it is asked for these only) and max_map_count. */
void cover_probe(struct quire_probe *out, int fd);

/* All of [base, base + pages), which is PROT_NONE, hidden. => 0 or -errno with words */
int cover_open(struct cover **out, struct cover_limits *l, char *base, uint64_t pages);
void cover_close(struct cover *c);
/*
 * In a child of fork, where the region has been mapped anew, PROT_NONE: all is hidden. What the
 * program wants read-only stays so.
 */
void cover_fork_in_child(struct cover *c);

/*
 * Show n pages, whose bytes are in place, in order. dirty: for writing, too.
 * => how many are shown (> 0), or -errno: ENGINE_CROWDED, or what the kernel said
 */
int cover_show(struct cover *c, char *page, unsigned n, bool dirty);
/* n shown pages are dirty from now on, in order. => how many (> 0), or -errno as above */
int cover_dirty(struct cover *c, char *page, unsigned n);
/*
 * All shown pages of n are clean from now on, though what they hold is nowhere else. Nobody
 * shows, hides or writes to any of them meanwhile. => 0 or -errno: some are
 */
int cover_clean(struct cover *c, char *page, size_t n);
/* Is it shown? Its entry is held. *dirty: as what */
bool cover_is_shown(struct cover *c, const char *page, bool *dirty);
/*
 * Hide them, of which t[i].result is TAKE_KEPT, all in regions with covers: that
 * becomes TAKE_DONE for those that are hidden now, atomically against writers.
 */
void cover_take(struct cover_limits *l, struct take_page *t, unsigned n);
/* Hide n neighbours. => 0 or -errno: some may be hidden. They are shown again by cover_show */
int cover_hide(struct cover *c, char *page, size_t n);

/* The program's quire_protect: read-only, or not. => 0 or -errno */
int cover_protect(struct cover *c, char *page, size_t n, bool read_only);
bool cover_is_fixed(struct cover *c, const char *page);

/* Bytes of its records. */
size_t cover_metadata(const struct cover *c);

#endif
