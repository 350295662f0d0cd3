/* SPDX-License-Identifier: MIT */
/*
 * guard/scratch.c - see scratch.h.
 *
 * A slot is its owner's until that stores 0; nobody else touches its record meanwhile,
 * but to read where its number should be. It changes hands by way of SETTLING. Records and
 * their memory are mapped once and stay.
 */
#include "guard/scratch.h"

#include "base/base.h"
#include "guard/copy.h"
#include "guard/guard.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLOTS_MAX 4096u
#define SLOT_BYTES (SCRATCH_PIECE + ((size_t)32 << 10))
#define EXTRA_MIN ((size_t)1 << 20)
#define SETTLING UINT32_MAX

/* At the head of a mapping that is got when the slot's memory is used up. */
struct extra {
	struct extra *next;
	size_t bytes, used;
};

struct slot {
	struct scratch *scratch; /* in the frame of the call */
	unsigned long number;    /* that is there as long as the frame is */
	char *memory;            /* SLOT_BYTES, from the first use on */
	size_t used;
	struct extra *extras;
	unsigned pin_count;
	uintptr_t pins[SCRATCH_PINS];
};

static _Atomic uint32_t owners[SLOTS_MAX]; /* thread numbers; 0: free */
static struct slot slots[SLOTS_MAX];
static _Atomic uint32_t slots_used; /* the highest ever, and one */
static _Atomic unsigned long numbers;
static const struct guard_pager *pager;
static SIGNAL_SAFE_TLS uint32_t forking; /* this thread, in its child */

static uint32_t my_number(void)
{
	return (uint32_t)syscall(SYS_gettid);
}

static void note_forker(void)
{
	forking = my_number();
}

/*
 * The slots of threads that are not in the child are free there; but the calls that
 * the fork interrupted, from a signal handler, go on in it. Pins are the parent's.
 */
static void sort_out_in_child(void)
{
	uint32_t me = my_number(), n = atomic_load(&slots_used);

	for (uint32_t i = 0; i < n; i++) {
		slots[i].pin_count = 0;
		atomic_store(&owners[i], atomic_load(&owners[i]) == forking ? me : 0);
	}
}

void scratch_start(const struct guard_pager *its_pager)
{
	pager = its_pager;
	pthread_atfork(note_forker, NULL, sort_out_in_child);
}

/* ---------------------------------------------------------------- slots */

/* The newest first, as far as this one. */
static void free_extras(struct slot *slot, const struct extra *until)
{
	while (slot->extras != until) {
		struct extra *extra = slot->extras;

		slot->extras = extra->next;
		munmap(extra, extra->bytes);
	}
}

static void empty(struct slot *slot)
{
	while (slot->pin_count > 0)
		pager->unpin((void *)slot->pins[--slot->pin_count]);
	free_extras(slot, NULL);
	slot->used = 0;
}

/* A slot of this thread's own: has the frame gone that it was for? */
static bool was_left(const struct slot *slot)
{
	unsigned long number;

	return guard_load((void *)&slot->scratch->number, &number) || number != slot->number;
}

static bool is_gone(uint32_t thread)
{
	/* By the thread's number alone: after vfork we are another process in the same memory. */
	return syscall(SYS_tkill, thread, 0) != 0 && errno == ESRCH;
}

static bool take(uint32_t i, uint32_t from)
{
	return atomic_compare_exchange_strong(&owners[i], &from, SETTLING);
}

/* => SETTLING; or SLOTS_MAX: none is free */
static uint32_t find(uint32_t me)
{
	uint32_t n = atomic_load(&slots_used), owner;

	for (uint32_t i = 0; i < n; i++)
		if (atomic_load_explicit(&owners[i], memory_order_relaxed) == me &&
		    was_left(&slots[i]) && take(i, me)) {
			empty(&slots[i]);
			return i;
		}
	for (uint32_t i = 0; i < n; i++)
		if (atomic_load_explicit(&owners[i], memory_order_relaxed) == 0 && take(i, 0))
			return i;
	for (uint32_t i = 0; i < n; i++) {
		owner = atomic_load(&owners[i]);
		if (owner && owner != me && is_gone(owner) && take(i, owner)) {
			empty(&slots[i]);
			return i;
		}
	}
	while ((n = atomic_load(&slots_used)) < SLOTS_MAX) {
		if (!atomic_compare_exchange_strong(&slots_used, &n, n + 1))
			continue;
		if (take(n, 0))
			return n;
	}
	return SLOTS_MAX;
}

static void *map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static bool take_slot(struct scratch *s)
{
	int saved = errno;
	uint32_t i, me;

	if (s->slot)
		return true;
	me = my_number();
	i = find(me);
	errno = saved;
	if (i == SLOTS_MAX)
		return false;
	s->slot = &slots[i];
	s->slot->scratch = s;
	s->slot->number = atomic_fetch_add(&numbers, 1) + 1;
	s->slot->used = 0;
	atomic_store(&s->number, s->slot->number);
	atomic_store(&owners[i], me);
	return true;
}

void scratch_open(struct scratch *s)
{
	atomic_init(&s->number, 0);
	s->slot = NULL;
	s->inside_used = 0;
}

void scratch_close(struct scratch *s)
{
	int saved = errno;

	if (!s->slot)
		return;
	atomic_store(&s->number, 0);
	empty(s->slot);
	atomic_store(&owners[s->slot - slots], 0);
	s->slot = NULL;
	errno = saved;
}

/* --------------------------------------------------------------- memory */

/* Room in [base, base + bytes) beyond used. => NULL: not enough */
static void *carve(char *base, size_t bytes, size_t *used, size_t want, size_t offset)
{
	uintptr_t at = round_up((uintptr_t)base + *used, 16);

	if (offset != SCRATCH_ANY) {
		at = round_up((uintptr_t)base + *used, PAGE_BYTES) + offset % PAGE_BYTES;
		if (at - PAGE_BYTES >= (uintptr_t)base + *used)
			at -= PAGE_BYTES;
	}
	if (at - (uintptr_t)base > bytes || bytes - (at - (uintptr_t)base) < want)
		return NULL;
	*used = at - (uintptr_t)base + want;
	return (void *)at;
}

static void *get_extra(struct slot *slot, size_t bytes, size_t offset)
{
	struct extra *extra = slot->extras;
	size_t length;
	void *p;

	p = extra ? carve((char *)extra, extra->bytes, &extra->used, bytes, offset) : NULL;
	if (p || bytes > SIZE_MAX / 2)
		return p;
	length = MAX(round_up(bytes, PAGE_BYTES) + 2 * PAGE_BYTES, EXTRA_MIN);
	extra = map(length);
	if (!extra)
		return NULL;
	*extra = (struct extra){ .next = slot->extras, .bytes = length, .used = sizeof *extra };
	slot->extras = extra;
	return carve((char *)extra, extra->bytes, &extra->used, bytes, offset);
}

void *scratch_get(struct scratch *s, size_t bytes, size_t offset)
{
	struct slot *slot;
	void *p = NULL;

	if (offset == SCRATCH_ANY)
		p = carve(s->inside, sizeof s->inside, &s->inside_used, bytes, offset);
	if (p)
		return p;
	if (!take_slot(s))
		return NULL;
	slot = s->slot;
	if (!slot->memory)
		slot->memory = map(SLOT_BYTES);
	if (slot->memory)
		p = carve(slot->memory, SLOT_BYTES, &slot->used, bytes, offset);
	return p ? p : get_extra(slot, bytes, offset);
}

struct scratch_mark scratch_mark(const struct scratch *s)
{
	struct extra *extra = s->slot ? s->slot->extras : NULL;

	return (struct scratch_mark){ s->slot ? s->slot->used : 0, extra, extra ? extra->used : 0 };
}

void scratch_return(struct scratch *s, struct scratch_mark mark)
{
	if (!s->slot)
		return;
	free_extras(s->slot, mark.extra);
	if (mark.extra)
		s->slot->extras->used = mark.extra_used;
	s->slot->used = mark.used;
}

size_t scratch_extent(const void *address)
{
	return pager->extent(address);
}

int scratch_pin(struct scratch *s, uintptr_t page)
{
	int error;

	if (!take_slot(s) || s->slot->pin_count == SCRATCH_PINS)
		return -ENOMEM;
	error = pager->pin((void *)page);
	if (!error)
		s->slot->pins[s->slot->pin_count++] = page;
	return error;
}
