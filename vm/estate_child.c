/* SPDX-License-Identifier: MIT */
/* vm/estate_child.c - the child's half of estate.h: what is owed to it is fetched when it is wanted. */
#include "vm/estate.h"

#include "base/kernel.h"
#include "vm/estate_record.h"
#include "vm/sigsegv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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
	return estates_of(e)->orphaned ||
	       (p.fd >= 0 && syscall(SYS_ppoll, &p, 1, &now, NULL, 0) == 1) ||
	       swapfile_parent_is_gone(e->q->swap);
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
int estate_fetch_all(struct engine *e)
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

/* In one step, and when the next is due. */
#define STEP_PAGES 256u
#define STEP_NS UINT64_C(1000000)
#define LOOK_NS UINT64_C(1000000000)

/* => 0, -errno */
static int take_owed(struct engine *e, struct quire_region *r, uint64_t page)
{
	uint64_t at = atomic_load(region_entry(r, page));
	int error;

	/* Somebody is at it, or has been: another time. */
	if (entry_state(at) != ENTRY_MAPPED || !entry_try(region_entry(r, page), at))
		return 0;
	error = estate_fetch(e, r, region_page(r, page));
	entry_publish(r, page, at & ~ENTRY_MARKS);
	return error;
}

/* => pages that were owed, at most so many; or -errno */
static int take_some(struct engine *e, struct quire_region *r, unsigned most)
{
	unsigned n = 0;
	int error = 0;

	for (size_t k = skip_untouched(r, r->base, 0, r->pages); k < r->pages && n < most && !error;
	     k = skip_untouched(r, r->base, k + 1, r->pages)) {
		_Atomic uint8_t *state = state_of(inherited(e), r, region_page(r, k));

		if (!state || (atomic_load(state) != OWED && atomic_load(state) != GIVING))
			continue;
		n++;
		error = take_owed(e, r, k);
	}
	return error ? error : (int)n;
}

/*
 * Nothing more of the parent's is needed: its file is given up. Whoever reads from it just now does so for
 * nothing, and sees that when it takes the word: so its descriptor may be of another file from
 * one moment to the next, but not be closed.
 */
static void settle(struct engine *e)
{
	struct estates *all = estates_of(e);

	all->settled = dup3(e->sigsegv.fd, all->fd, O_CLOEXEC) >= 0;
}

/* What a parent that has gone has left. => when again */
static uint64_t take_step(struct engine *e)
{
	uint32_t ids = regions_used(e->q);
	unsigned left = STEP_PAGES;

	for (uint32_t id = 1; id <= ids && left; id++) {
		struct quire_region *r = region_get(e->q, id);
		int n = r && r->mapping ? take_some(e, r, left) : 0;

		if (r)
			region_put(r);
		if (n < 0)
			return LOOK_NS;
		left -= (unsigned)n;
	}
	/* (That it was killed while it counted does not matter.) */
	if (left == STEP_PAGES)
		settle(e);
	return STEP_NS;
}

uint64_t estate_settle(struct engine *e)
{
	struct estates *all = estates_of(e);

	if (!all->memory.base || all->fd < 0 || all->settled)
		return 0;
	if (atomic_load(&inherited(e)->owed) > 0)
		return parent_is_gone(e) ? take_step(e) : LOOK_NS;
	settle(e);
	return 0;
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

static void open_parent(struct estates *all)
{
	int now;

	all->parent = (int)syscall(SYS_pidfd_open, all->self, 0);
	/* Of another than our parent it says nothing. 0: of other number spaces, the parent's is unknown. */
	now = (int)getppid();
	all->orphaned = now != 0 && now != all->self;
	if (now == all->self || all->parent < 0)
		return;
	close(all->parent);
	all->parent = -1;
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
	estate_drop_heirs(all);
	all->memory = own.memory;
	all->fd = e->sigsegv.fd;
	all->settled = false;
	open_parent(all);
	/* The child's own description; the other is the parent's. */
	e->sigsegv.fd = own.own >= 0 ? own.own : own.fd;
	if (own.own >= 0)
		close(own.fd);
	return await_mapped(e);
}

void estates_close(struct engine *e)
{
	struct estates *all = estates_of(e);

	estate_drop_heirs(all);
	if (!all->memory.base)
		return;
	arena_close(&all->memory);
	arena_close(&all->await_arena);
	close_file(all);
}
