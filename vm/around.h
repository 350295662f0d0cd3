/* SPDX-License-Identifier: MIT */
/*
 * vm/around.h - pages beside a touched one that are about to be touched as it is: the next ones
 * where touches go in order (pager/faultaround.h), and the gaps of a block that is touched
 * here and there, once it is dense. A fault costs several times what it does to a page.
 */
#ifndef QUIRE_VM_AROUND_H
#define QUIRE_VM_AROUND_H

#include "base/base.h"

#include <stdbool.h>
#include <stdint.h>

struct fault;
struct faultaround;
struct quire_region;

enum around_page {
	AROUND_END,    /* not held: no page beyond it is served either */
	AROUND_HELD,   /* to be served */
	AROUND_PASSED, /* held because it lies between: there is nothing to do */
};

/* A kind of touches. */
struct around {
	struct faultaround *fronts; /* readahead lock */
	uint32_t max;               /* pages beside the touched one */
	/* Hold the page's entry, if it is one that may be touched so, or passed. Waits for nothing. */
	enum around_page (*hold)(struct quire_region *r, uint64_t page);
	/* Has it been touched so, or cannot be any more? Without its entry: a guess. */
	bool (*is_done)(struct quire_region *r, uint64_t page);
};

/* Pages beside the touched one. */
struct span {
	uint32_t below, above;
	uint32_t served; /* of them, without those that are passed */
	unsigned front;
};

/* => their entries are held, with a credit for new contents for each that is to be served */
struct span around_hold(const struct fault *f, const struct around *kind);
/* The touch has been served, with the n pages from first on. */
void around_done(const struct fault *f, const struct around *kind, const struct span *s,
                 uint64_t first, uint32_t n);

#endif
