/* SPDX-License-Identifier: MIT */
/*
 * vm/snapshot.h - what the files of the calls on snapshots share.
 *
 *   snapshot.c   create, destroy, clone     rollback.c   rollback
 *   difference.c diff                       pages.c      reading
 *   save.c, load.c                          images
 *
 * The handle of a snapshot is the record of a region without addresses (cow.h, lineage.h).
 */
#ifndef QUIRE_VM_SNAPSHOT_H
#define QUIRE_VM_SNAPSHOT_H

#include "vm/vm.h"

static inline struct quire_region *snapshot_record(const quire_snapshot_t *s)
{
	return (struct quire_region *)(uintptr_t)s;
}

static inline quire_snapshot_t *snapshot_handle(struct quire_region *r)
{
	return (quire_snapshot_t *)r;
}

bool snapshot_is_valid(const quire_snapshot_t *s);
/* What is wrong with it. => -EINVAL, or -ENODEV, with words */
int snapshot_invalid(const quire_snapshot_t *s);

/* Of the same region, the next newer one; or NULL. */
static inline struct quire_region *snapshot_newer(const struct quire_region *s)
{
	return s->parent && s->parent->is_snapshot && s->parent->older == s ? s->parent : NULL;
}

/* The region that it is of, or NULL if that has gone. => snapshot lock */
struct quire_region *snapshot_region(struct quire_region *s);

/* One heir less of a snapshot; the last one takes one without a name with it. => snapshot lock */
void snapshot_disinherit(struct quire_region *parent);

/* => pin lock. From page on; r->pages: none. any: there may be some */
uint64_t snapshot_next_pinned(struct quire_region *r, uint64_t page, bool any);

/* Has the page changed between a and b, both of one region, a the older; b NULL: until now? */
bool snapshot_has_changed(const struct quire_region *a, const struct quire_region *b,
                          uint64_t page);
/* May any page of the leaf have? */
bool snapshot_leaf_may_differ(const struct quire_region *a, const struct quire_region *b,
                              uint64_t page);

/* load.c: the image of one that was loaded is not needed any more. */
void snapshot_unload(struct quire_region *s);

/* ---------------------------------------------------------- difference.c */

/* The older one first. => false: they are not of one region */
bool snapshots_in_order(struct quire_region **a, struct quire_region **b);
enum change { SAME, MAYBE, CHANGED };
/*
 * What has become of the pages of a leaf between a and b, of one region, a the older.
 * => false: nothing of any
 */
bool snapshots_compare_leaf(const struct quire_region *a, const struct quire_region *b,
                            uint64_t page, unsigned char change[LEAF_ENTRIES]);

/* --------------------------------------------------------------- pages.c */

/* Most pages of one reading. */
#define PAGES_MAX SWAP_RUN_MAX

/*
 * n <= PAGES_MAX pages from page on as s has them, into bytes, page aligned and not managed. What is
 * neighbours on the swap file is read at once. Not by a handler.
 * => 0, or -errno and *bad: the first of which that is so
 */
int snapshot_pages(struct quire_region *s, uint64_t page, unsigned n, char *bytes, uint64_t *bad);
/* Words for it. => error */
int snapshot_read_failed(struct quire_region *s, uint64_t page, int error);

#endif
