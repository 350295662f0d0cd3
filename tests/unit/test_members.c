/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_members.c - slots that several processes share (swapfile/slots.c), and
 * which of these are still there (swapfile/family.c).
 */
#include "base/presence.h"
#include "swapfile/family.h"
#include "swapfile/slots.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct slots open_backed(uint64_t max)
{
	struct slots s;

	REQUIRE_EQ(slots_open(&s, max), 0);
	slots_set_backed(&s, s.max);
	return s;
}

/* ---------------------------------------------------- members, in one process */

/*
 * Another member in this process: the shared records are the same, what fork would give it
 * a copy of is copied.
 */
static struct slots make_member(struct slots *from)
{
	struct slots s = *from;
	size_t bytes = from->reference_arena.usable;
	uint32_t member;

	REQUIRE_EQ(slots_fork(from, NULL, NULL, &member), 0);
	REQUIRE_EQ(arena_open(&s.reference_arena, s.reference_arena.bytes, false, NULL), 0);
	memcpy(s.reference_arena.base, from->reference_arena.base, bytes);
	s.references = s.reference_arena.base;
	s.held_arenas[member] = from->held_arenas[member];
	slots_become(&s, member);
	return s;
}

static void free_when_the_last_lets_go(void)
{
	struct slots a = open_backed(1000), b, c;
	slot_t first;

	REQUIRE_EQ(slots_alloc(&a, 8, false, &first), 8);
	slots_ref(&a, first + 1);
	b = make_member(&a);
	c = make_member(&b);
	CHECK(slots_check(&a) && slots_check(&b) && slots_check(&c));
	CHECK_EQ(slots_references(&b, first + 1), 2);
	/* Each counts by itself. */
	slots_unref(&a, first, 8);
	CHECK_EQ(slots_references(&a, first + 1), 1);
	CHECK_EQ(slots_references(&b, first + 1), 2);
	CHECK_EQ(a.control->used, 8);
	slots_unref(&b, first, 8);
	CHECK_EQ(a.control->used, 8);
	slots_unref(&c, first, 8);
	CHECK_EQ(a.control->used, 1);
	CHECK(slots_check(&a) && slots_check(&b) && slots_check(&c));
	CHECK(!slots_leave(&c));
	CHECK(!slots_leave(&b));
	CHECK_EQ(a.control->used, 1);
	CHECK(slots_leave(&a));
	CHECK_EQ(a.control->used, 0);
	arena_close(&b.reference_arena);
	arena_close(&c.reference_arena);
	slots_close(&a);
}

/* => exit status of a child that forks when its parent has extended the records. */
static int fork_behind(struct slots *s, int told)
{
	uint32_t member;
	char c;

	slots_become(s, 1);
	(void)!read(told, &c, 1);
	return slots_fork(s, NULL, NULL, &member) == 0 && member == 2 && slots_check(s) ? 0 : 1;
}

static void forks_when_others_have_extended(void)
{
	struct slots a = open_backed(1 << 24);
	uint32_t member;
	slot_t first;
	int tell[2], status;
	pid_t pid;

	REQUIRE(pipe(tell) == 0);
	REQUIRE_EQ(slots_fork(&a, NULL, NULL, &member), 0);
	REQUIRE_EQ(member, 1);
	pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(fork_behind(&a, tell[0]));
	for (int i = 0; i < 2000; i++)
		CHECK(slots_alloc(&a, 64, false, &first) > 0);
	(void)!write(tell[1], "x", 1);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	close(tell[0]);
	close(tell[1]);
	slots_close(&a);
}

static _Atomic uint32_t gone;

static enum slots_presence witness(void *arg, uint32_t member)
{
	(void)arg;
	return member < 32 && gone >> member & 1 ? SLOTS_GONE : SLOTS_UNKNOWN;
}

static void what_the_gone_held_is_free(void)
{
	struct slots a = open_backed(1000), b;
	slot_t first, own;

	gone = 0;
	slots_set_witness(&a, witness, NULL);
	REQUIRE_EQ(slots_alloc(&a, 8, false, &first), 8);
	b = make_member(&a);
	REQUIRE_EQ(slots_alloc(&b, 20, false, &own), 20);
	slots_unref(&a, first + 2, 1);
	CHECK(!slots_reap(&a));
	CHECK_EQ(a.control->used, 28);
	gone = 1u << b.me;
	CHECK(slots_reap(&a));
	CHECK_EQ(a.control->used, 7);
	CHECK_EQ(a.control->members, 1);
	CHECK(slots_check(&a));
	CHECK(!slots_reap(&a));
	arena_close(&b.reference_arena);
	slots_close(&a);
}

/* Killed with the lock in hand, in the middle of anything. */
static void recovers_what_the_gone_left_half_done(void)
{
	struct slots a = open_backed(5000), b;
	slot_t first, own;

	gone = 0;
	slots_set_witness(&a, witness, NULL);
	REQUIRE_EQ(slots_alloc(&a, 60, false, &first), 60);
	b = make_member(&a);
	for (int i = 0; i < 20; i++)
		REQUIRE_EQ(slots_alloc(&b, 64, false, &own), 64);
	/* (Not by a call: ranks are of threads, and this one is both members.) */
	atomic_store(&b.control->lock.word, b.me + 1);
	memset(b.holders, 0x55, 700 * sizeof *b.holders);
	memset(b.taken, 0xa5, 8 * sizeof *b.taken);
	memset(b.vacant.level[0], 0xff, 2);
	memset(b.empty.level[1], 0xff, 1);
	b.control->used = 12345;
	gone = 1u << b.me;
	REQUIRE_EQ(slots_alloc(&a, 3, false, &own), 3);
	CHECK(own >= first + 60);
	CHECK(slots_check(&a));
	CHECK(slots_reap(&a));
	CHECK_EQ(a.control->used, 63);
	CHECK(slots_check(&a));
	arena_close(&b.reference_arena);
	slots_close(&a);
}

/* Killed while it lengthened the file. Of who is given its number next nobody would say that it is gone. */
static void nor_does_it_keep_the_file(void)
{
	struct slots a = open_backed(1000), b;
	uint32_t next;

	gone = 0;
	slots_set_witness(&a, witness, NULL);
	b = make_member(&a);
	atomic_store(&a.control->grow_lock.word, b.me + 1);
	gone = 1u << b.me;
	CHECK(slots_reap(&a));
	gone = 0;
	REQUIRE_EQ(slots_fork(&a, NULL, NULL, &next), 0);
	CHECK_EQ(next, b.me);
	CHECK_EQ(atomic_load(&a.control->grow_lock.word), 0);
	arena_close(&b.reference_arena);
	slots_close(&a);
}

/* A number is another's soon: who knew whom it was sees that. */
static void parents_are_told_apart(void)
{
	struct slots a = open_backed(1000), b, c, d;

	gone = 0;
	slots_set_witness(&a, witness, NULL);
	b = make_member(&a);
	c = make_member(&b);
	CHECK(!slots_parent_is_gone(&b) && !slots_parent_is_gone(&c));
	gone = 1u << b.me;
	CHECK(slots_parent_is_gone(&c) && !slots_parent_is_gone(&b));
	CHECK(slots_reap(&a));
	gone = 0;
	d = make_member(&a);
	CHECK_EQ(d.me, b.me);
	CHECK(slots_parent_is_gone(&c) && !slots_parent_is_gone(&d));
	arena_close(&b.reference_arena);
	arena_close(&c.reference_arena);
	arena_close(&d.reference_arena);
	slots_close(&a);
}

/* One that has left, but whose process is there: it holds a byte still. */
static enum slots_presence three_is_there(void *arg, uint32_t member)
{
	(void)arg;
	return member == 3 ? SLOTS_THERE : SLOTS_UNKNOWN;
}

static void a_number_in_use_is_passed_over(void)
{
	struct slots a = open_backed(1000);
	uint32_t member = 0;

	slots_set_witness(&a, three_is_there, NULL);
	for (uint32_t i = 1; i < 5; i++) {
		REQUIRE_EQ(slots_fork(&a, NULL, NULL, &member), 0);
		CHECK_EQ(member, i < 3 ? i : i + 1);
	}
	slots_close(&a);
}

static void not_more_than_there_is_room_for(void)
{
	struct slots a = open_backed(1000);
	uint32_t member = 0;

	gone = 0;
	slots_set_witness(&a, witness, NULL);
	for (uint32_t i = 1; i < a.members_max; i++)
		REQUIRE_EQ(slots_fork(&a, NULL, NULL, &member), 0);
	CHECK_EQ(slots_fork(&a, NULL, NULL, &member), -ENFILE);
	gone = 1u << 7;
	CHECK_EQ(slots_fork(&a, NULL, NULL, &member), 0);
	CHECK_EQ(member, 7);
	slots_disown(&a, 8);
	gone = 0;
	CHECK_EQ(slots_fork(&a, NULL, NULL, &member), 0);
	CHECK_EQ(member, 8);
	CHECK(slots_check(&a));
	slots_close(&a);
}

/*
 * A sibling looks for the dead at the very moment at which a member is admitted: before its process has
 * been made known it would be taken for one of them.
 */
static struct {
	struct slots sibling;
	pthread_t thread;
	_Atomic bool reaped;
} beside;

static void *reap_beside(void *arg)
{
	slots_reap(&beside.sibling);
	atomic_store(&beside.reaped, true);
	return arg;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

/* The sibling's turn, as long as there is one to be had. Then the member is there. */
static int claim_slowly(void *arg, uint32_t member)
{
	REQUIRE_EQ(pthread_create(&beside.thread, NULL, reap_beside, NULL), 0);
	for (int i = 0; i < 40 && !atomic_load(&beside.reaped); i++)
		nap();
	gone &= ~(1u << member);
	return *(int *)arg;
}

/* => what slots_fork says, of a new member that is gone but for its claim, which says error */
static int admit_beside(struct slots *a, int error, uint32_t *member)
{
	int said;

	gone = ~3u;
	atomic_store(&beside.reaped, false);
	said = slots_fork(a, claim_slowly, &error, member);
	pthread_join(beside.thread, NULL);
	return said;
}

static void not_reaped_while_it_is_admitted(void)
{
	struct slots a = open_backed(1000);
	uint32_t member = 0;
	slot_t first;

	slots_set_witness(&a, witness, NULL);
	gone = 0;
	REQUIRE_EQ(slots_alloc(&a, 40, false, &first), 40);
	beside.sibling = make_member(&a);
	REQUIRE_EQ(admit_beside(&a, 0, &member), 0);
	CHECK_EQ(member, 2);
	CHECK(a.control->is_member[2]);
	CHECK_EQ(a.control->members, 3);
	/* It has them still when nobody else has. */
	slots_unref(&a, first, 40);
	slots_unref(&beside.sibling, first, 40);
	CHECK_EQ(a.control->used, 40);
	CHECK(slots_check(&a) && slots_check(&beside.sibling));
	gone = 1u << 2;
	CHECK(slots_reap(&a));
	CHECK_EQ(a.control->used, 0);
	arena_close(&beside.sibling.reference_arena);
	slots_close(&a);
}

/* What cannot be claimed never was a member: nothing is held for it. */
static void not_admitted_without_its_claim(void)
{
	struct slots a = open_backed(1000);
	uint32_t member = 0;
	slot_t first;

	slots_set_witness(&a, witness, NULL);
	gone = 0;
	REQUIRE_EQ(slots_alloc(&a, 40, false, &first), 40);
	beside.sibling = make_member(&a);
	CHECK_EQ(admit_beside(&a, -EMFILE, &member), -EMFILE);
	CHECK_EQ(member, 0);
	CHECK_EQ(a.control->members, 2);
	CHECK(slots_check(&a));
	slots_unref(&a, first, 40);
	slots_unref(&beside.sibling, first, 40);
	CHECK_EQ(a.control->used, 0);
	arena_close(&beside.sibling.reference_arena);
	slots_close(&a);
}

/* ------------------------------------------------- at random, against plain counts */

enum { FEW = 6, SLOTS = 700 };

static struct {
	bool there;
	struct slots s;
	unsigned count[SLOTS];
} who[FEW];

static unsigned pick_member(void)
{
	unsigned i;

	do
		i = unit_random() % FEW;
	while (!who[i].there);
	return i;
}

static void let_go(unsigned i)
{
	arena_close(&who[i].s.reference_arena);
	who[i].there = false;
}

static void random_fork(unsigned from)
{
	for (unsigned i = 0; i < FEW; i++)
		if (!who[i].there) {
			who[i].s = make_member(&who[from].s);
			memcpy(who[i].count, who[from].count, sizeof who[i].count);
			who[i].there = true;
			return;
		}
}

static void random_step(unsigned *members)
{
	unsigned i = pick_member(), kind = unit_random() % 100;
	struct slots *s = &who[i].s;
	slot_t slot = 1 + unit_random() % (SLOTS - 1);

	if (kind < 40) {
		unsigned n = slots_alloc(s, 1 + unit_random() % 20, false, &slot);

		for (unsigned k = 0; k < n; k++) {
			for (unsigned m = 0; m < FEW; m++)
				REQUIRE(!who[m].there || who[m].count[slot + k] == 0);
			who[i].count[slot + k] = 1;
		}
	} else if (kind < 60 && who[i].count[slot]) {
		slots_ref(s, slot);
		who[i].count[slot]++;
	} else if (kind < 94 && who[i].count[slot]) {
		slots_unref(s, slot, 1);
		who[i].count[slot]--;
	} else if (kind < 97 && *members < FEW) {
		random_fork(i);
		++*members;
	} else if (kind < 99 && *members > 1) {
		CHECK(!slots_leave(s));
		let_go(i);
		--*members;
	} else if (kind == 99 && *members > 1) {
		gone = 1u << s->me;
		let_go(i);
		--*members;
		CHECK(slots_reap(&who[pick_member()].s));
		gone = 0;
	}
}

static void compare(void)
{
	uint32_t used = 0;
	struct slots *s = &who[pick_member()].s;

	for (unsigned slot = 0; slot < SLOTS; slot++) {
		bool held = false;

		for (unsigned m = 0; m < FEW; m++)
			if (who[m].there) {
				held |= who[m].count[slot] > 0;
				REQUIRE_EQ(slots_references(&who[m].s, slot), who[m].count[slot]);
			}
		used += held;
	}
	REQUIRE_EQ(s->control->used, used);
	REQUIRE(slots_check(s));
}

static void random_members(void)
{
	unsigned members = 1;

	unit_seed();
	gone = 0;
	memset(who, 0, sizeof who);
	who[0].s = open_backed(SLOTS);
	who[0].there = true;
	slots_set_witness(&who[0].s, witness, NULL);
	for (int i = 0; i < 30000; i++) {
		random_step(&members);
		if (i % 100 == 0)
			compare();
	}
	compare();
	for (unsigned m = 0; m < FEW; m++)
		if (who[m].there) {
			slots_leave(&who[m].s);
			let_go(m);
		}
}

/* ------------------------------------------------------------ who is there */

static pid_t child_that_waits(struct family *f, uint32_t next, int *hold)
{
	int ends[2], told[2];
	pid_t pid;
	char c;

	REQUIRE(pipe(ends) == 0 && pipe(told) == 0);
	REQUIRE_EQ(family_fork(f, 0, next), 0);
	pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		close(ends[1]);
		family_in_child(f);
		(void)!write(told[1], "x", 1);
		_exit((int)read(ends[0], &c, 1));
	}
	close(ends[0]);
	(void)!read(told[0], &c, 1);
	close(told[0]);
	close(told[1]);
	family_in_parent(f);
	*hold = ends[1];
	return pid;
}

static void the_dead_are_gone(void)
{
	struct family f;
	int one, two;
	pid_t a, b;

	family_open(&f);
	a = child_that_waits(&f, 1, &one);
	b = child_that_waits(&f, 2, &two);
	if (f.next < 0)
		unit_skip_all(
			"no second description of a file can be had here (is /proc mounted?)");
	CHECK(family_presence(&f, 1) == FAMILY_THERE);
	CHECK(family_presence(&f, 2) == FAMILY_THERE);
	kill(a, SIGKILL);
	waitpid(a, NULL, 0);
	CHECK(family_presence(&f, 1) == FAMILY_GONE);
	CHECK(family_presence(&f, 2) == FAMILY_THERE);
	close(two);
	waitpid(b, NULL, 0);
	close(one);
	CHECK(family_presence(&f, 2) == FAMILY_GONE);
	/* Who forks and gets no child. */
	CHECK_EQ(family_fork(&f, 0, 3), 0);
	CHECK(family_presence(&f, 3) == FAMILY_THERE || f.next >= 0);
	family_in_parent(&f);
	CHECK(family_presence(&f, 3) == FAMILY_GONE);
	family_close(&f);
}

/* The child knows of its parent, that it lives, and that it does no more. */
static void the_parent_too(void)
{
	struct family f;
	int status;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0) {
		/* A parent of its own, which ends: its descriptor is closed. */
		int ends[2], asked[2];
		pid_t child;
		char c;

		family_open(&f);
		if (pipe(ends) != 0 || pipe(asked) != 0 || family_fork(&f, 4, 5) != 0)
			_exit(1);
		child = fork();
		if (child == 0) {
			close(ends[1]);
			family_in_child(&f);
			if (family_presence(&f, 4) == FAMILY_GONE ||
			    family_presence(&f, 6) == FAMILY_THERE)
				_exit(2);
			(void)!write(asked[1], "x", 1);
			(void)!read(ends[0], &c, 1);
			_exit(family_presence(&f, 4) == FAMILY_GONE ? 0 : 3);
		}
		family_in_parent(&f);
		close(ends[0]);
		close(asked[1]);
		(void)!read(asked[0], &c, 1);
		family_close(&f);
		close(ends[1]);
		waitpid(child, &status, 0);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 9);
	}
	waitpid(pid, &status, 0);
	CHECK_EQ(status, 0);
}

/* One description is ready when there are no descriptors; without it there is no child. */
static void short_of_descriptors(void)
{
	struct rlimit was, none;
	struct family f;

	family_open(&f);
	REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &was), 0);
	none = was;
	none.rlim_cur = 3;
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	CHECK_EQ(family_fork(&f, 0, 3), -EMFILE);
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &was), 0);
	CHECK_EQ(family_fork(&f, 0, 3), 0);
	family_in_parent(&f);
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	CHECK_EQ(family_fork(&f, 0, 1), 0);
	CHECK(family_presence(&f, 1) == FAMILY_THERE);
	family_in_parent(&f);
	CHECK(family_presence(&f, 1) == FAMILY_GONE);
	CHECK_EQ(family_fork(&f, 0, 2), -EMFILE);
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &was), 0);
	CHECK_EQ(family_fork(&f, 0, 2), 0);
	family_in_parent(&f);
	family_close(&f);
	CHECK(family_presence(&f, 2) == FAMILY_UNKNOWN);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(free_when_the_last_lets_go),
		UNIT(forks_when_others_have_extended),
		UNIT(what_the_gone_held_is_free),
		UNIT(recovers_what_the_gone_left_half_done),
		UNIT(nor_does_it_keep_the_file),
		UNIT(parents_are_told_apart),
		UNIT(a_number_in_use_is_passed_over),
		UNIT(not_more_than_there_is_room_for),
		UNIT(not_reaped_while_it_is_admitted),
		UNIT(not_admitted_without_its_claim),
		UNIT(random_members),
		UNIT(the_dead_are_gone),
		UNIT(the_parent_too),
		UNIT(short_of_descriptors),
		UNIT_END,
	};

	return unit_main(argc, argv, "members", tests);
}
