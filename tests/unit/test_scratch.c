/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_scratch.c - memory for the copies of a guarded call: whose it is when calls
 * are nested, left by a jump, or ended with their thread.
 */
#include "unit.h"

#include "base/base.h"
#include "guard/guard.h"
#include "guard/scratch.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK 0x700000u
#define OTHER 0x300000u

static unsigned pins, unpins;
static uintptr_t pinned;

static int pin(void *page)
{
	pins++;
	pinned = (uintptr_t)page;
	return 0;
}

static void unpin(void *page)
{
	unpins++;
	CHECK((uintptr_t)page == pinned);
}

static const struct guard_pager pager = { pin, unpin };

/* A frame at this depth of that stack. */
static struct scratch at(uintptr_t stack, unsigned depth)
{
	struct scratch s;

	scratch_open(&s, (void *)((uintptr_t)0x7fff0000 - depth), stack);
	return s;
}

static char *get(struct scratch *s, size_t bytes)
{
	char *p = scratch_get(s, bytes, SCRATCH_ANY);

	REQUIRE(p != NULL);
	memset(p, 0x5a, bytes);
	return p;
}

static void little_and_much(void)
{
	struct scratch s = at(0, 100);
	char *a = get(&s, 100), *b = get(&s, 200), *c, *d, *e;
	struct scratch_mark mark;

	CHECK(a >= s.inside && a < s.inside + SCRATCH_INSIDE && b >= a + 100);
	CHECK(s.slot == NULL);
	CHECK_EQ((uintptr_t)b % 16, 0);
	c = get(&s, 4000);
	CHECK(s.slot != NULL);
	mark = scratch_mark(&s);
	d = scratch_get(&s, SCRATCH_PIECE, 123);
	CHECK_EQ((uintptr_t)d % PAGE_BYTES, 123);
	CHECK(d >= c + 4000 || d + SCRATCH_PIECE <= c);
	memset(d, 1, SCRATCH_PIECE);
	/* More than a slot has. */
	e = get(&s, 5 << 20);
	CHECK(e + (5 << 20) <= d || e >= d + SCRATCH_PIECE);
	scratch_return(&s, mark);
	CHECK(scratch_get(&s, SCRATCH_PIECE, 123) == d);
	CHECK(scratch_get(&s, SIZE_MAX / 2 + 1, SCRATCH_ANY) == NULL);
	scratch_close(&s);
}

/* In a handler, deeper on the same stack, or on the alternate one. */
static void nested(void)
{
	struct scratch outer = at(0, 100), inner = at(0, 200), aside = at(STACK, 50);
	char *a = get(&outer, 5000), *b = get(&inner, 5000), *c = get(&aside, 5000);

	CHECK(outer.slot != inner.slot && inner.slot != aside.slot && outer.slot != aside.slot);
	memset(a, 1, 5000);
	memset(b, 2, 5000);
	memset(c, 3, 5000);
	CHECK(a[0] == 1 && a[4999] == 1 && b[0] == 2 && b[4999] == 2);
	scratch_close(&aside);
	scratch_close(&inner);
	scratch_close(&outer);
}

static void left_by_a_jump(void)
{
	struct scratch left = at(0, 200), next = at(0, 150), again;
	struct slot *slot;

	get(&left, 5000);
	slot = left.slot;
	CHECK_EQ(scratch_pin(&left, 0x4000), 0);
	/* The stack has been given up as far as here. */
	get(&next, 5000);
	CHECK(next.slot == slot);
	CHECK_EQ(unpins, pins);
	/* At the same depth. */
	again = at(0, 150);
	get(&again, 5000);
	CHECK(again.slot == slot);
	scratch_close(&again);
	/* On the alternate stack; then on the ordinary one, so that is left. */
	left = at(STACK, 10);
	get(&left, 5000);
	slot = left.slot;
	next = at(0, 500);
	get(&next, 5000);
	CHECK(next.slot == slot);
	/* On the alternate stack nothing is known of the ordinary one, nor of another. */
	left = at(STACK, 10);
	get(&left, 5000);
	CHECK(left.slot != slot);
	again = at(OTHER, 10);
	get(&again, 5000);
	CHECK(again.slot != left.slot && again.slot != slot);
	scratch_close(&again);
	scratch_close(&left);
	scratch_close(&next);
}

static void *leave(void *slot)
{
	struct scratch s = at(0, 100);

	if (!scratch_get(&s, 5000, SCRATCH_ANY))
		return NULL;
	*(struct slot **)slot = s.slot;
	return s.slot;
}

static void ended_thread(void)
{
	struct slot *slot = NULL;
	struct scratch s[8];
	bool found = false;
	pthread_t t;

	REQUIRE(pthread_create(&t, NULL, leave, &slot) == 0);
	pthread_join(t, NULL);
	REQUIRE(slot != NULL);
	/* The kernel may be busy with its end still. */
	for (int tries = 0; tries < 100 && !found; tries++) {
		for (unsigned i = 0; i < 8; i++) {
			s[i] = at(0, 100 + i);
			get(&s[i], 5000);
			found |= s[i].slot == slot;
		}
		for (unsigned i = 0; i < 8; i++)
			scratch_close(&s[i]);
		usleep(1000);
	}
	CHECK(found);
}

static void in_a_child(void)
{
	struct scratch mine = at(0, 100), other;
	int status;
	pid_t child;
	char *a;

	a = get(&mine, 5000);
	child = fork();
	if (child == 0) {
		/* The call that forked goes on here; its copies are its own. */
		other = at(0, 200);
		_exit(a[0] == 0x5a && scratch_get(&other, 5000, SCRATCH_ANY) &&
		                      other.slot != mine.slot ?
		              0 :
		              1);
	}
	waitpid(child, &status, 0);
	CHECK_EQ(status, 0);
	scratch_close(&mine);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(little_and_much), UNIT(nested),
		                                  UNIT(left_by_a_jump),  UNIT(ended_thread),
		                                  UNIT(in_a_child),      UNIT_END };

	scratch_start(&pager);
	return unit_main(argc, argv, "scratch", tests);
}
