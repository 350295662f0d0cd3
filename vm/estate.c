/* SPDX-License-Identifier: MIT */
/* vm/estate.c - see estate.h. */
#include "vm/estate.h"

#include "base/kernel.h"
#include "base/presence.h"
#include "vm/cover.h"
#include "vm/sigsegv.h"
#include "vm/vm.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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

static struct estates *estates_of(struct engine *e)
{
	return &e->sigsegv.estates;
}

static struct estate *inherited(struct engine *e)
{
	return estates_of(e)->memory.base;
}

/* ----------------------------------------------------------- numbering */

static size_t states_at(uint32_t regions)
{
	return round_up(sizeof(struct estate) + regions * sizeof(struct estate_region), PAGE_BYTES);
}

/* => the page's number; UINT64_MAX: it is of no region that there was at the fork */
static uint64_t number_of(const struct estate *s, const struct quire_region *r, const char *page)
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

static _Atomic uint8_t *state_at(struct estate *s, uint64_t number)
{
	return (_Atomic uint8_t *)((char *)s + states_at(s->regions)) + number;
}

/* => NULL: nothing was ever owed of it */
static _Atomic uint8_t *state_of(struct estate *s, const struct quire_region *r, const char *page)
{
	uint64_t number = number_of(s, r, page);

	return number == UINT64_MAX ? NULL : state_at(s, number);
}

static int copy_page(int from, int to, const char *page)
{
	char bytes[PAGE_BYTES];
	int error = sigsegv_get(from, page, bytes, sizeof bytes);

	return error ? error : sigsegv_put(to, page, bytes, sizeof bytes);
}

/* ------------------------------------------------------------ the parent */

static bool is_gone(struct heir *h)
{
	if (!atomic_load(&h->gone) && h->tells && presence_is_free(h->fd, 0)) {
		atomic_store(&h->gone, true);
		/* What it was given is of no use to anybody. */
		(void)!ftruncate(h->fd, 0);
	}
	return atomic_load(&h->gone);
}

static bool wants(const struct heir *h)
{
	const struct estate *s = h->memory.base;

	return !atomic_load(&h->gone) && atomic_load(&s->owed) > 0;
}

/* One page. => 0 or -errno: it is owed still */
static int give(struct engine *e, struct heir *h, struct quire_region *r, char *page)
{
	struct estate *s = h->memory.base;
	_Atomic uint8_t *state = state_of(s, r, page);
	uint8_t owed = OWED;
	int error;

	if (!state || atomic_load(state) != OWED)
		return 0;
	if (atomic_fetch_add(&h->given, 1) % LOOK_EVERY == LOOK_EVERY - 1 && is_gone(h))
		return 0;
	if (!atomic_compare_exchange_strong(state, &owed, GIVING))
		return 0;
	error = copy_page(e->sigsegv.fd, h->fd, page);
	atomic_store(state, error ? OWED : OWED_NOT);
	/* Not before: while it says 0 nothing is given any more. */
	if (!error)
		atomic_fetch_sub(&s->owed, 1);
	return error;
}

static void lose(struct heir *h, struct quire_region *r, char *page)
{
	_Atomic uint8_t *state = state_of(h->memory.base, r, page);
	uint8_t owed = OWED;

	if (state)
		atomic_compare_exchange_strong(state, &owed, LOST);
}

/* The next page from i on, below n, of a leaf that was touched. */
static size_t skip_untouched(const struct quire_region *r, const char *page, size_t i, size_t n)
{
	uint64_t first = pages_of((size_t)(page - r->base));

	while (i < n && !region_leaf_touched(r, first + i))
		i = (size_t)(((first + i) | (LEAF_ENTRIES - 1)) + 1 - first);
	return MIN(i, n);
}

static int give_range(struct engine *e, struct heir *h, struct quire_region *r, char *page,
                      size_t n, bool must)
{
	for (size_t i = skip_untouched(r, page, 0, n); i < n && wants(h);
	     i = skip_untouched(r, page, i + 1, n)) {
		char *at = page + (i << PAGE_SHIFT);
		int error = give(e, h, r, at);

		if (error && !must)
			return error;
		if (error)
			lose(h, r, at);
	}
	return 0;
}

static int give_all(struct engine *e, struct quire_region *r, char *page, size_t n, bool must)
{
	struct estates *all = estates_of(e);
	int error = 0;

	for (uint32_t i = 0; i < all->heirs && !error; i++)
		error = give_range(e, &all->heir[i], r, page, n, must);
	return error;
}

int estate_give(struct engine *e, struct quire_region *r, char *page, size_t n)
{
	return likely(estates_of(e)->heirs == 0) ? 0 : give_all(e, r, page, n, false);
}

bool estate_is_owed(struct engine *e)
{
	return estates_of(e)->heirs > 0;
}

void estate_give_up(struct engine *e, struct quire_region *r, char *page, size_t n)
{
	give_all(e, r, page, n, true);
}

static void close_own(struct heir *h)
{
	if (h->own >= 0)
		close(h->own);
	h->own = -1;
}

static void close_heir(struct heir *h)
{
	close_own(h);
	close(h->fd);
	arena_close(&h->memory);
}

/* => standstill, or the engine closes */
static void drop_heir(struct estates *all, uint32_t i)
{
	close_heir(&all->heir[i]);
	all->heirs--;
	memmove(&all->heir[i], &all->heir[i + 1], (all->heirs - i) * sizeof all->heir[i]);
}

/* Of children that want nothing any more, and of one more where there is no room for another. */
static void tidy(struct engine *e)
{
	struct estates *all = estates_of(e);

	for (uint32_t i = all->heirs; i-- > 0;)
		if (!wants(&all->heir[i]) || is_gone(&all->heir[i]))
			drop_heir(all, i);
	if (all->heirs < HEIRS_MAX)
		return;
	for (uint32_t i = 0; i < regions_used(e->q); i++) {
		struct quire_region *r = &e->q->regions[i];

		if (r->mapping)
			give_range(e, &all->heir[0], r, r->base, r->pages, true);
	}
	drop_heir(all, 0);
}

/* The kernel may write to what is pinned by itself: it stays writable, and the child has a copy. */
static int hand_out_pinned(struct engine *e, struct heir *h, struct quire_region *r, uint64_t *page)
{
	uint64_t first = *page;
	int error;

	for (; *page < r->pages; ++*page) {
		uint64_t at;

		if (!region_leaf_touched(r, *page)) {
			*page |= LEAF_ENTRIES - 1;
			continue;
		}
		at = atomic_load(region_entry(r, *page));
		if (entry_state(at) == ENTRY_MAPPED &&
		    e->q->pager.frames[entry_payload(at)].pins > 0)
			break;
	}
	*page = MIN(*page, r->pages);
	error = *page > first ? cover_clean(r->cover, region_page(r, first), *page - first) : 0;
	if (!error && *page < r->pages)
		error = copy_page(e->sigsegv.fd, h->fd, region_page(r, *page));
	return error;
}

/* => pages owed of a region, all of them protected; or -errno */
static int64_t owe(struct engine *e, struct heir *h, struct quire_region *r)
{
	struct estate *s = h->memory.base;
	int64_t owed = 0;

	for (uint64_t page = 0; page < r->pages; page++) {
		int error = hand_out_pinned(e, h, r, &page);

		if (error)
			return error;
	}
	for (uint64_t page = 0; page < r->pages; page++) {
		uint64_t at;

		if (!region_leaf_touched(r, page)) {
			page |= LEAF_ENTRIES - 1;
			continue;
		}
		at = atomic_load(region_entry(r, page));
		if (entry_state(at) != ENTRY_MAPPED ||
		    e->q->pager.frames[entry_payload(at)].pins > 0)
			continue;
		atomic_store(state_of(s, r, region_page(r, page)), OWED);
		owed++;
	}
	return owed;
}

static int draw_up(struct engine *e, struct heir *h)
{
	uint32_t n = regions_used(e->q);
	uint64_t pages = 0;
	struct estate *s;
	int error;

	for (uint32_t i = 0; i < n; i++)
		pages += e->q->regions[i].mapping ? e->q->regions[i].pages : 0;
	error = arena_open(&h->memory, states_at(n) + pages, true, "quire estate");
	if (error)
		return error;
	s = h->memory.base;
	s->regions = n;
	pages = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct quire_region *r = &e->q->regions[i];

		if (!r->mapping)
			continue;
		s->region[i] = (struct estate_region){ .base = r->base,
			                               .pages = r->pages,
			                               .first = pages };
		pages += r->pages;
	}
	return 0;
}

static int owe_all(struct engine *e, struct heir *h)
{
	struct estate *s = h->memory.base;

	for (uint32_t i = 0; i < regions_used(e->q); i++) {
		struct quire_region *r = &e->q->regions[i];
		int64_t owed = r->mapping ? owe(e, h, r) : 0;

		if (owed < 0)
			return (int)owed;
		atomic_fetch_add(&s->owed, (uint64_t)owed);
	}
	return 0;
}

static int fetch_all(struct engine *e);

/* The child's file, with its presence, if there can be one: without /proc there cannot. => 0 or -errno */
static int make_file(struct heir *h)
{
	int error;

	h->fd = sigsegv_file();
	if (h->fd < 0)
		return h->fd;
	h->own = presence_describe(h->fd);
	h->tells = h->own >= 0;
	if (h->own == -EMFILE || h->own == -ENFILE) {
		error = h->own;
		h->own = -1;
		close(h->fd);
		return error;
	}
	error = h->tells ? presence_take(h->own, 0) : 0;
	if (error) {
		close_own(h);
		close(h->fd);
	}
	return error;
}

int estate_make(struct engine *e)
{
	struct estates *all = estates_of(e);
	struct heir *h;
	int error = fetch_all(e);

	if (error)
		return error;
	tidy(e);
	h = &all->heir[all->heirs];
	*h = (struct heir){ .own = -1 };
	error = make_file(h);
	if (error)
		return error;
	error = draw_up(e, h);
	if (error) {
		close_own(h);
		close(h->fd);
		return error;
	}
	all->heirs++;
	error = owe_all(e, h);
	if (error)
		drop_heir(all, all->heirs - 1);
	return error;
}

/* Without a child nobody holds the description then: it counts as gone. */
void estate_made(struct engine *e)
{
	struct estates *all = estates_of(e);

	close_own(&all->heir[all->heirs - 1]);
}

/* ------------------------------------------------------------- the child */

static _Atomic uint64_t *word_of(struct estates *all, uint64_t number)
{
	return &all->awaited[number / 64];
}

static uint64_t bit_of(uint64_t number)
{
	return UINT64_C(1) << number % 64;
}

bool estate_awaits(struct engine *e, const struct quire_region *r, const char *page)
{
	struct estates *all = estates_of(e);
	uint64_t number;

	if (likely(!all->memory.base))
		return false;
	number = number_of(inherited(e), r, page);
	if (number == UINT64_MAX)
		return false;
	return atomic_load(word_of(all, number)) & bit_of(number);
}

void estate_arrived(struct engine *e, const struct quire_region *r, const char *page)
{
	struct estates *all = estates_of(e);
	uint64_t number;

	if (likely(!all->memory.base))
		return;
	number = number_of(inherited(e), r, page);
	if (number == UINT64_MAX)
		return;
	atomic_fetch_and(word_of(all, number), ~bit_of(number));
}

static bool parent_is_gone(struct engine *e)
{
	struct pollfd p = { .fd = estates_of(e)->parent, .events = POLLIN };
	struct timespec now = { 0 };

	/* It has ended; or executes another program. */
	return (p.fd >= 0 && syscall(SYS_ppoll, &p, 1, &now, NULL, 0) == 1) ||
	       swapfile_is_gone(e->q->swap, swapfile_parent(e->q->swap));
}

/* The parent is giving it (X2). => false: it was, and is gone: the page is owed */
static bool wait_for_parent(struct engine *e, _Atomic uint8_t *state)
{
	uint8_t giving = GIVING;

	for (unsigned i = 1; atomic_load(state) == GIVING; i++) {
		/* It may have been stopped. */
		if (i < LOOK_EVERY)
			sched_yield();
		else
			pause_reclaim();
		if (i % LOOK_EVERY == 0 && parent_is_gone(e))
			return !atomic_compare_exchange_strong(state, &giving, OWED);
	}
	return true;
}

int estate_fetch(struct engine *e, const struct quire_region *r, const char *page)
{
	struct estates *all = estates_of(e);
	_Atomic uint8_t *state = all->memory.base ? state_of(inherited(e), r, page) : NULL;
	char bytes[PAGE_BYTES];

	while (state && atomic_load(state) != OWED_NOT) {
		uint8_t owed = OWED;
		/* So that nothing fails once the word is taken. */
		int error = sigsegv_allow(e->sigsegv.fd, page, PAGE_BYTES);

		if (!error)
			error = sigsegv_get(all->fd, page, bytes, sizeof bytes);
		if (error || atomic_load(state) == LOST)
			return error ? error : -EIO;
		if (atomic_compare_exchange_strong(state, &owed, OWED_NOT)) {
			atomic_fetch_sub(&inherited(e)->owed, 1);
			return sigsegv_put(e->sigsegv.fd, page, bytes, sizeof bytes);
		}
		wait_for_parent(e, state);
	}
	return 0;
}

static void forgo(struct engine *e, _Atomic uint8_t *state)
{
	uint8_t seen = OWED;

	while (!atomic_compare_exchange_strong(state, &seen, OWED_NOT) && seen != OWED_NOT) {
		if (seen == GIVING)
			wait_for_parent(e, state);
		seen = seen == LOST ? LOST : OWED;
	}
	if (seen == OWED)
		atomic_fetch_sub(&inherited(e)->owed, 1);
}

void estate_forgo(struct engine *e, const struct quire_region *r, const char *page, size_t n)
{
	struct estates *all = estates_of(e);

	if (likely(!all->memory.base))
		return;
	for (size_t i = skip_untouched(r, page, 0, n); i < n;
	     i = skip_untouched(r, page, i + 1, n)) {
		const char *at = page + (i << PAGE_SHIFT);
		_Atomic uint8_t *state = state_of(inherited(e), r, at);

		if (!state)
			continue;
		forgo(e, state);
		estate_arrived(e, r, at);
	}
}

static void close_file(struct estates *all)
{
	if (all->fd >= 0)
		close(all->fd);
	if (all->fd >= 0 && all->parent >= 0)
		close(all->parent);
	all->fd = all->parent = -1;
}

/* => standstill. Nothing more of the parent's is needed. */
static int fetch_all(struct engine *e)
{
	struct estates *all = estates_of(e);
	int error = 0;

	if (!all->memory.base || all->fd < 0)
		return 0;
	for (uint32_t i = 0; i < regions_used(e->q); i++) {
		struct quire_region *r = &e->q->regions[i];

		if (!r->mapping)
			continue;
		for (size_t k = skip_untouched(r, r->base, 0, r->pages); k < r->pages && !error;
		     k = skip_untouched(r, r->base, k + 1, r->pages))
			error = estate_fetch(e, r, region_page(r, k));
	}
	if (!error)
		close_file(all);
	return error;
}

static int await_mapped(struct engine *e)
{
	struct estates *all = estates_of(e);
	struct estate *s = inherited(e);
	uint64_t pages = 0;
	int error;

	for (uint32_t i = 0; i < s->regions; i++)
		pages += s->region[i].pages;
	error = arena_open(&all->await_arena, (pages + 63) / 64 * sizeof *all->awaited + PAGE_BYTES,
	                   false, "quire estate");
	if (error)
		return error;
	all->awaited = all->await_arena.base;
	for (uint32_t i = 0; i < regions_used(e->q); i++) {
		struct quire_region *r = &e->q->regions[i];

		if (!r->mapping)
			continue;
		for (size_t k = skip_untouched(r, r->base, 0, r->pages); k < r->pages;
		     k = skip_untouched(r, r->base, k + 1, r->pages)) {
			uint64_t number = number_of(s, r, region_page(r, k));

			if (entry_state(atomic_load(region_entry(r, k))) != ENTRY_MAPPED)
				continue;
			atomic_fetch_or(word_of(all, number), bit_of(number));
		}
	}
	return 0;
}

int estate_enter(struct engine *e)
{
	struct estates *all = estates_of(e);
	struct heir own = all->heir[all->heirs - 1];

	/* What we were owed ourselves, before we had children, we have. */
	if (all->memory.base) {
		arena_close(&all->memory);
		arena_close(&all->await_arena);
		close_file(all);
	}
	all->heirs--;
	while (all->heirs)
		drop_heir(all, all->heirs - 1);
	all->memory = own.memory;
	all->fd = e->sigsegv.fd;
	/* (Had it ended already, it would give nothing any more, and not be asked for.) */
	all->parent = (int)syscall(SYS_pidfd_open, getppid(), 0);
	/* The child's own description; the other is the parent's. */
	e->sigsegv.fd = own.own >= 0 ? own.own : own.fd;
	if (own.own >= 0)
		close(own.fd);
	return await_mapped(e);
}

void estates_close(struct engine *e)
{
	struct estates *all = estates_of(e);

	while (all->heirs)
		drop_heir(all, all->heirs - 1);
	if (!all->memory.base)
		return;
	arena_close(&all->memory);
	arena_close(&all->await_arena);
	close_file(all);
}
