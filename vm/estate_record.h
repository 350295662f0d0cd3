/* SPDX-License-Identifier: MIT */
/*
 * vm/estate_record.h - what parent and child share of an estate (estate.h): a byte a page.
 * For estate.c, the parent's half, and estate_child.c, the child's.
 */
#ifndef QUIRE_VM_ESTATE_RECORD_H
#define QUIRE_VM_ESTATE_RECORD_H

#include "vm/vm.h"

enum { OWED_NOT, OWED, GIVING, LOST };

/* In memory that parent and child share. Bytes, one a page, follow. */
struct estate {
	_Atomic uint64_t owed; /* pages, about */
	uint32_t regions;
	struct estate_region {
		const char *base;
		uint64_t pages, first;
	} region[]; /* by id - 1 */
};

/* A look whether a child lives costs a system call: one in so many pages. */
#define LOOK_EVERY 32u

static inline struct estates *estates_of(struct engine *e)
{
	return &e->sigsegv.estates;
}

static inline struct estate *inherited(struct engine *e)
{
	return estates_of(e)->memory.base;
}

static inline size_t states_at(uint32_t regions)
{
	return round_up(sizeof(struct estate) + regions * sizeof(struct estate_region), PAGE_BYTES);
}

/* => the page's number; UINT64_MAX: it is of no region that there was at the fork */
static inline uint64_t number_of(const struct estate *s, const struct quire_region *r,
                                 const char *page)
{
	uint64_t at = pages_of((size_t)(page - r->base));
	const struct estate_region *known;

	if (r->id > s->regions)
		return UINT64_MAX;
	known = &s->region[r->id - 1];
	if (known->base != r->base || at >= known->pages || !region_leaf_touched(r, at))
		return UINT64_MAX;
	return known->first + at;
}

static inline _Atomic uint8_t *state_at(struct estate *s, uint64_t number)
{
	return (_Atomic uint8_t *)((char *)s + states_at(s->regions)) + number;
}

/* => NULL: nothing was ever owed of it */
static inline _Atomic uint8_t *state_of(struct estate *s, const struct quire_region *r,
                                        const char *page)
{
	uint64_t number = number_of(s, r, page);

	return number == UINT64_MAX ? NULL : state_at(s, number);
}

/* The next page from i on, below n, of a leaf that was touched. */
static inline size_t skip_untouched(const struct quire_region *r, const char *page, size_t i,
                                    size_t n)
{
	uint64_t first = pages_of((size_t)(page - r->base));

	while (i < n && !region_leaf_touched(r, first + i))
		i = (size_t)(((first + i) | (LEAF_ENTRIES - 1)) + 1 - first);
	return MIN(i, n);
}

/* => standstill: as a child, all that is owed to us. => 0 or -errno */
int estate_fetch_all(struct engine *e);
/* As estates_tend, what one is as a child of another. */
uint64_t estate_settle(struct engine *e);
/* => standstill, or the end: they are given nothing more. */
void estate_drop_heirs(struct estates *all);

#endif
