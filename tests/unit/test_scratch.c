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
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

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

static size_t extent(const void *address)
{
	(void)address;
	return 0;
}

static const struct guard_pager pager = { pin, unpin, extent };

static char *get(struct scratch *s, size_t bytes)
{
	char *p = scratch_get(s, bytes, SCRATCH_ANY);

	REQUIRE(p != NULL);
	memset(p, 0x5a, bytes);
	return p;
}

static void little_and_much(void)
{
	struct scratch_mark mark;
	struct scratch s;
	char *a, *b, *c, *d, *e;

	scratch_open(&s);
	a = get(&s, 100);
	b = get(&s, 200);
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

/* In a handler, on whatever stack that has. */
static void nested(void)
{
	struct scratch s[3];
	char *p[3];

	for (int i = 0; i < 3; i++) {
		scratch_open(&s[i]);
		p[i] = get(&s[i], 5000);
		memset(p[i], i, 5000);
	}
	CHECK(s[0].slot != s[1].slot && s[1].slot != s[2].slot && s[0].slot != s[2].slot);
	for (int i = 0; i < 3; i++)
		CHECK(p[i][0] == i && p[i][4999] == i);
	for (int i = 3; i-- > 0;)
		scratch_close(&s[i]);
}

static void left_by_a_jump(void)
{
	struct scratch *frame = malloc(sizeof *frame), next, again;
	struct slot *slot;

	REQUIRE(frame != NULL);
	scratch_open(frame);
	get(frame, 5000);
	slot = frame->slot;
	CHECK_EQ(scratch_pin(frame, 0x4000), 0);
	/* As long as its frame is as it was, it may be under way. */
	scratch_open(&next);
	get(&next, 5000);
	CHECK(next.slot != slot);
	scratch_close(&next);
	CHECK_EQ(pins, 1);
	CHECK_EQ(unpins, 0);
	/* Others use the stack now. */
	memset(frame, 0x77, sizeof *frame);
	scratch_open(&again);
	get(&again, 5000);
	CHECK(again.slot == slot);
	CHECK_EQ(unpins, 1);
	scratch_close(&again);
	free(frame);
}

static void stack_that_has_gone(void)
{
	struct scratch *frame = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
	                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct scratch next;
	struct slot *slot;

	if (unit_foreign_faults())
		return;
	REQUIRE(frame != MAP_FAILED);
	scratch_open(frame);
	get(frame, 5000);
	slot = frame->slot;
	munmap(frame, PAGE_BYTES);
	scratch_open(&next);
	get(&next, 5000);
	CHECK(next.slot == slot);
	scratch_close(&next);
}

static void *leave(void *slot)
{
	struct scratch s;

	scratch_open(&s);
	if (!scratch_get(&s, 5000, SCRATCH_ANY))
		return NULL;
	*(struct slot **)slot = s.slot;
	return s.slot;
}

static void ended_thread(void)
{
	struct slot *slot = NULL;
	static struct scratch s[64];
	bool found = false;
	unsigned n = 0;
	pthread_t t;

	REQUIRE(pthread_create(&t, NULL, leave, &slot) == 0);
	pthread_join(t, NULL);
	REQUIRE(slot != NULL);
	/* The kernel may be busy with its end still. */
	for (; n < ARRAY_LENGTH(s) && !found; n++) {
		scratch_open(&s[n]);
		get(&s[n], 5000);
		found = s[n].slot == slot;
		usleep(1000);
	}
	CHECK(found);
	while (n-- > 0)
		scratch_close(&s[n]);
}

static void in_a_child(void)
{
	struct scratch mine, other;
	int status;
	pid_t child;
	char *a;

	scratch_open(&mine);
	a = get(&mine, 5000);
	child = fork();
	if (child == 0) {
		/* The call that forked goes on here; its copies are its own. */
		scratch_open(&other);
		_exit(a[0] == 0x5a && scratch_get(&other, 5000, SCRATCH_ANY) &&
		                      other.slot != mine.slot ?
		              0 :
		              1);
	}
	waitpid(child, &status, 0);
	CHECK_EQ(status, 0);
	scratch_close(&mine);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)info;
	if (!guard_copy_ends(context))
		signal(number, SIG_DFL);
}

int main(int argc, char **argv)
{
	struct sigaction faults = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	static const struct unit_test tests[] = { UNIT(little_and_much),
		                                  UNIT(nested),
		                                  UNIT(left_by_a_jump),
		                                  UNIT(stack_that_has_gone),
		                                  UNIT(ended_thread),
		                                  UNIT(in_a_child),
		                                  UNIT_END };

#if !defined(__x86_64__)
	unit_skip_all("the guard is for x86-64");
#endif
	sigaction(SIGSEGV, &faults, NULL);
	scratch_start(&pager);
	return unit_main(argc, argv, "scratch", tests);
}
