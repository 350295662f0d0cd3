/* SPDX-License-Identifier: MIT */
/* vm/estate.c - the parent's half of estate.h: what is owed is given before it changes. */
#include "vm/estate.h"

#include "base/presence.h"
#include "vm/cover.h"
#include "vm/estate_record.h"
#include "vm/sigsegv.h"
#include "vm/snapshot.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int copy_page(int from, int to, const char *page)
{
	char bytes[PAGE_BYTES];
	int error = sigsegv_get(from, page, bytes, sizeof bytes);

	return error ? error : sigsegv_put(to, page, bytes, sizeof bytes);
}

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
	struct estate *s = h->memory.base;
	_Atomic uint8_t *state = state_of(s, r, page);
	uint8_t owed = OWED;

	if (state && atomic_compare_exchange_strong(state, &owed, LOST))
		atomic_fetch_sub(&s->owed, 1);
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

/* How often it is asked whether anything has changed. */
#define TEND_NS UINT64_C(1000000000)

uint64_t estates_tend(struct engine *e)
{
	struct estates *all = estates_of(e);
	uint64_t again = estate_settle(e);

	for (uint32_t i = 0; i < all->heirs; i++)
		if (all->heir[i].tells && !is_gone(&all->heir[i]))
			again = again ? again : TEND_NS;
	return again;
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

void estate_drop_heirs(struct estates *all)
{
	while (all->heirs)
		drop_heir(all, all->heirs - 1);
}

/* The next region of those that have addresses, from number *i on; NULL: none. */
static struct quire_region *next_region(struct quire *q, uint32_t *i)
{
	while (*i < regions_used(q)) {
		struct quire_region *r = &q->regions[(*i)++];

		if (r->mapping)
			return r;
	}
	return NULL;
}

/*
 * Of children that want nothing any more, and of one more where there is no room for another.
 * => 0, or -errno: the oldest cannot be given what it is owed
 */
static int tidy(struct engine *e)
{
	struct estates *all = estates_of(e);
	struct quire_region *r;
	int error = 0;

	for (uint32_t i = all->heirs; i-- > 0;)
		if (!wants(&all->heir[i]) || is_gone(&all->heir[i]))
			drop_heir(all, i);
	if (all->heirs < HEIRS_MAX)
		return 0;
	for (uint32_t i = 0; !error && (r = next_region(e->q, &i));)
		error = give_range(e, &all->heir[0], r, r->base, r->pages, false);
	if (!error)
		drop_heir(all, 0);
	return error;
}

/*
 * The kernel may write to what is pinned by itself: it stays writable, and the child has a copy, made
 * when all else is protected: who can write to it still has written nothing to others that the child lacks.
 */
static int protect(struct quire_region *r)
{
	bool pins = counted(&r->counters.pinned) > 0;
	int error = 0;

	for (uint64_t page = 0, pin; page < r->pages && !error; page = pin + 1) {
		pin = snapshot_next_pinned(r, page, pins);
		if (pin > page)
			error = cover_clean(r->cover, region_page(r, page), pin - page);
	}
	return error;
}

static int hand_out_pinned(struct engine *e, struct heir *h, struct quire_region *r)
{
	bool pins = counted(&r->counters.pinned) > 0;
	int error = 0;

	for (uint64_t page = snapshot_next_pinned(r, 0, pins); page < r->pages && !error;
	     page = snapshot_next_pinned(r, page + 1, pins))
		error = copy_page(e->sigsegv.fd, h->fd, region_page(r, page));
	return error;
}

/* All others that are mapped. */
static void owe(struct engine *e, struct heir *h, struct quire_region *r)
{
	struct estate *s = h->memory.base;
	uint64_t owed = 0;

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
	atomic_fetch_add(&s->owed, owed);
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
	struct quire_region *r;
	int error = 0;

	for (uint32_t i = 0; !error && (r = next_region(e->q, &i));)
		error = protect(r);
	for (uint32_t i = 0; !error && (r = next_region(e->q, &i));)
		error = hand_out_pinned(e, h, r);
	for (uint32_t i = 0; !error && (r = next_region(e->q, &i));)
		owe(e, h, r);
	return error;
}

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
	int error = estate_fetch_all(e);

	/* The bare call: the child asks whether its parent is this process still. */
	all->self = (int)syscall(SYS_getpid);

	if (!error)
		error = tidy(e);
	if (error)
		return error;
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
