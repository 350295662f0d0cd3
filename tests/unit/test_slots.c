/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_slots.c - swapfile/slots.c and summary.h: who is given which
 * slot, reference counts, and a random run against a plain array. Who shares them:
 * test_members.c.
 */
#include "swapfile/slots.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct slots open_backed(uint64_t max)
{
	struct slots s;

	REQUIRE_EQ(slots_open(&s, max), 0);
	slots_set_backed(&s, s.max);
	return s;
}

/* How a child that does something ends: 0, or the signal. */
static int fate(void (*work)(struct slots *), struct slots *s)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		work(s);
		_exit(0);
	}
	waitpid(child, &status, 0);
	return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void summary_finds_next(void)
{
	enum { SIZE = 300000 };
	static bool member[SIZE];
	struct summary s;
	void *memory = calloc(1, summary_bytes(SIZE));

	unit_seed();
	summary_init(&s, memory, SIZE);
	CHECK_EQ(summary_next(&s, 0), SUMMARY_NONE);
	for (int round = 0; round < 3000; round++) {
		uint32_t i = (uint32_t)unit_below(SIZE), from = (uint32_t)unit_below(SIZE), want;

		if (unit_below(3) == 0) {
			summary_remove(&s, i);
			member[i] = false;
		} else {
			summary_add(&s, i);
			member[i] = true;
		}
		for (want = from; want < SIZE && !member[want]; want++)
			continue;
		REQUIRE_EQ(summary_next(&s, from), want == SIZE ? SUMMARY_NONE : want);
		REQUIRE(summary_has(&s, i) == member[i]);
	}
	CHECK(summary_check(&s));
	free(memory);
}

static void runs_are_neighbours(void)
{
	struct slots s = open_backed(100000);
	slot_t first, expect = 1;

	for (unsigned want = 1; want <= SWAP_RUN_MAX; want++) {
		/* Only the first cluster, which lacks slot 0, can end a run of 64 early. */
		REQUIRE_EQ(slots_alloc(&s, want, false, &first), want);
		REQUIRE_EQ(first, expect);
		expect += want;
	}
	CHECK_EQ(s.control->used, expect - 1);
	for (slot_t i = 1; i < expect; i++)
		REQUIRE_EQ(slots_references(&s, i), 1);
	CHECK_EQ(slots_references(&s, 0), 0);
	CHECK_EQ(slots_references(&s, expect), 0);
	CHECK(slots_check(&s));
	slots_close(&s);
}

/* Each odd size of limit gives exactly its slots but slot 0, and no more. */
static void limit_is_exact(void)
{
	for (uint64_t max = 2; max < 200; max++) {
		struct slots s = open_backed(max);
		static bool seen[200];
		slot_t first;
		unsigned n, total = 0;

		memset(seen, 0, sizeof seen);
		while ((n = slots_alloc(&s, 1 + (unsigned)(max % SWAP_RUN_MAX), false, &first)) >
		       0) {
			total += n;
			for (unsigned i = 0; i < n; i++) {
				REQUIRE(first + i > 0 && first + i < max && !seen[first + i]);
				seen[first + i] = true;
			}
		}
		REQUIRE_EQ(total, max - 1);
		REQUIRE(slots_check(&s));
		slots_unref(&s, (slot_t)(max / 2), 1);
		REQUIRE_EQ(slots_alloc(&s, 5, false, &first), 1);
		REQUIRE_EQ(first, max / 2);
		slots_close(&s);
	}
}

static void asks_to_grow_before_it_extends(void)
{
	struct slots s;
	slot_t first;

	REQUIRE_EQ(slots_open(&s, 1000), 0);
	CHECK_EQ(slots_alloc(&s, 1, true, &first), SLOTS_GROW);
	CHECK_EQ(slots_alloc(&s, 1, false, &first), 0);
	CHECK_EQ(s.control->used, 0);
	slots_set_backed(&s, 64);
	CHECK_EQ(slots_alloc(&s, 40, true, &first), 40);
	CHECK_EQ(slots_alloc(&s, 40, true, &first), SLOTS_GROW);
	CHECK_EQ(slots_alloc(&s, 40, false, &first), 23); /* what is left of the 63 */
	CHECK_EQ(slots_alloc(&s, 40, false, &first), 0);
	slots_set_backed(&s, 1000);
	CHECK_EQ(slots_alloc(&s, 40, true, &first), 40);
	CHECK_EQ(first, 64);
	CHECK(slots_check(&s));
	slots_close(&s);
}

/* Fill the extent to slots, then free every second one. */
static void make_comb(struct slots *s, uint32_t slots)
{
	slot_t first;

	for (uint32_t i = 1; i < slots; i++)
		REQUIRE_EQ(slots_alloc(s, 1, false, &first), 1);
	for (uint32_t i = 1; i < slots; i += 2)
		slots_unref(s, i, 1);
}

static void prefers_extending_to_fragments(void)
{
	struct slots s = open_backed(1 << 20);
	slot_t first;

	make_comb(&s, 6400);
	CHECK_EQ(slots_alloc(&s, 64, false, &first), 64);
	CHECK_EQ(first, 6399); /* the last tooth of the comb is at the end */
	CHECK_EQ(slots_alloc(&s, 1, false, &first), 1);
	CHECK_EQ(first, 6463);
	/* A single slot is a full run: no reason to extend for it. */
	CHECK_EQ(s.control->extent, 6464);
	CHECK_EQ(slots_alloc(&s, 1, false, &first), 1);
	CHECK_EQ(first, 1);
	CHECK_EQ(s.control->extent, 6464);
	slots_close(&s);
}

static void uses_fragments_when_sparse(void)
{
	struct slots s = open_backed(1 << 20);
	slot_t first;
	uint32_t extent;

	/* One slot in eight stays: sparser than a third, and beyond the floor. */
	for (uint32_t i = 1; i < 64000; i++)
		REQUIRE_EQ(slots_alloc(&s, 1, false, &first), 1);
	for (uint32_t i = 1; i < 64000; i++)
		if (i % 8 != 0)
			slots_unref(&s, i, 1);
	extent = s.control->extent;
	CHECK_EQ(slots_alloc(&s, 64, false, &first), 7);
	CHECK_EQ(s.control->extent, extent);
	CHECK(slots_check(&s));
	slots_close(&s);
}

static void finds_an_empty_cluster_far_away(void)
{
	struct slots s = open_backed(1 << 20);
	slot_t first;

	make_comb(&s, 500000);
	slots_set_backed(&s, 500000);
	for (uint32_t i = 448000; i < 448064; i++)
		if (i % 2 == 0)
			slots_unref(&s, i, 1);
	CHECK_EQ(slots_alloc(&s, 64, false, &first), 64);
	CHECK(first >= 447990 && first <= 448010);
	CHECK(slots_check(&s));
	slots_close(&s);
}

static void fragments_when_the_limit_is_reached(void)
{
	struct slots s = open_backed(640);
	slot_t first;

	make_comb(&s, 640);
	slots_unref(&s, 100, 1); /* 99, 100 and 101: the best run */
	CHECK_EQ(slots_alloc(&s, 64, true, &first), 3);
	CHECK_EQ(first, 99);
	slots_close(&s);
}

static void counts_references(void)
{
	struct slots s = open_backed(1000);
	slot_t first;

	REQUIRE_EQ(slots_alloc(&s, 10, false, &first), 10);
	slots_ref(&s, first + 3);
	CHECK_EQ(slots_references(&s, first + 3), 2);
	slots_unref(&s, first, 10);
	CHECK_EQ(s.control->used, 1);
	CHECK_EQ(slots_references(&s, first + 3), 1);
	CHECK_EQ(slots_references(&s, first + 2), 0);
	CHECK(slots_check(&s));
	slots_unref(&s, first + 3, 1);
	CHECK_EQ(s.control->used, 0);
	CHECK(slots_check(&s));
	slots_close(&s);
}

static void ref_a_free_slot(struct slots *s)
{
	slots_ref(s, 5);
}

static void unref_a_free_slot(struct slots *s)
{
	slots_unref(s, 6, 1);
}

static void ref_once_more(struct slots *s)
{
	slots_ref(s, 1);
}

static void misuse_is_fatal(void)
{
	struct slots s = open_backed(1000);
	slot_t first;

	REQUIRE_EQ(slots_alloc(&s, 1, false, &first), 1);
	CHECK_EQ(first, 1);
	CHECK_EQ(fate(ref_once_more, &s), 0);
	for (unsigned i = 1; i < SLOTS_REFERENCES_MAX; i++)
		slots_ref(&s, first);
	CHECK_EQ(slots_references(&s, first), SLOTS_REFERENCES_MAX);
	CHECK_EQ(fate(ref_once_more, &s), SIGABRT);
	CHECK_EQ(fate(ref_a_free_slot, &s), SIGABRT);
	CHECK_EQ(fate(unref_a_free_slot, &s), SIGABRT);
	slots_close(&s);
}

static void forbid_more(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof code / sizeof code[0], .filter = code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		_exit(77);
}

static void take_all(struct slots *s)
{
	unsigned n, all = 0;
	slot_t first, last = 0;

	forbid_more();
	while ((n = slots_alloc(s, SWAP_RUN_MAX, true, &first)) > 0 && n != SLOTS_GROW) {
		slots_set_sum(s, first + n - 1, n);
		last = first;
		all += n;
	}
	/* What fits the first piece of the largest of the records, and not one more. */
	if (n != 0 || all + 1 != s->control->extent ||
	    s->control->extent != ARENA_PIECE_MIN / sizeof *s->sums || !slots_check(s))
		_exit(2);
	/* What comes free can be had again. */
	slots_unref(s, last, 5);
	if (slots_alloc(s, 5, true, &first) != 5 || first != last || !slots_check(s))
		_exit(3);
}

static void no_room_for_records(void)
{
	struct slots s = open_backed(1 << 24);
	slot_t first;
	int how = fate(take_all, &s);

	if (how == 77)
		printf("left out: no seccomp here\n");
	else
		CHECK_EQ(how, 0);
	/* The next process can go on, and reach what that one has used. */
	CHECK(how == 77 || s.control->used == s.control->extent - 1);
	CHECK_EQ(slots_alloc(&s, 40, false, &first), 40);
	slots_close(&s);
}

static void take_many(struct slots *s)
{
	slot_t first = 0;

	for (unsigned i = 0; i < 100000 / SWAP_RUN_MAX; i++)
		if (slots_alloc(s, SWAP_RUN_MAX, false, &first) == 0)
			_exit(1);
	slots_unref(s, first, SWAP_RUN_MAX);
}

static void take_many_as_child(struct slots *s)
{
	slots_become(s, 1);
	take_many(s);
}

/* A child extends the records; its parent comes to them later, farther than it had been. */
static void extended_by_a_child(void)
{
	struct slots s = open_backed(1 << 24);
	uint32_t child;
	slot_t first;

	REQUIRE_EQ(slots_fork(&s, NULL, NULL, &child), 0);
	CHECK_EQ(child, 1);
	CHECK_EQ(fate(take_many_as_child, &s), 0);
	CHECK(s.control->extent > 99000);
	REQUIRE_EQ(slots_alloc(&s, SWAP_RUN_MAX, false, &first), SWAP_RUN_MAX);
	CHECK(first > 90000);
	slots_set_sum(&s, first, 5);
	CHECK_EQ(slots_sum(&s, first), 5);
	CHECK(slots_check(&s));
	slots_close(&s);
}

/* Random requests against an array of reference counts. */
static void random_against_model(void)
{
	enum { MAX_SLOTS = 20000 };
	static unsigned model[MAX_SLOTS];
	struct slots s = open_backed(MAX_SLOTS);
	uint64_t used = 0;

	unit_seed();
	memset(model, 0, sizeof model);
	for (int round = 0; round < 60000; round++) {
		uint64_t dice = unit_below(100);
		slot_t first, slot = (slot_t)unit_below(MAX_SLOTS);

		/* Drift between nearly empty and full. */
		if (dice < (round / 10000 % 2 ? 20u : 50u)) {
			unsigned want = 1 + (unsigned)unit_below(SWAP_RUN_MAX);
			unsigned n = slots_alloc(&s, want, false, &first);

			REQUIRE(n <= want);
			REQUIRE(n > 0 || used == MAX_SLOTS - 1);
			for (unsigned i = 0; i < n; i++) {
				REQUIRE(first + i > 0 && first + i < MAX_SLOTS);
				REQUIRE_EQ(model[first + i], 0);
				model[first + i] = 1;
			}
			used += n;
		} else if (dice < 55) {
			if (model[slot]) {
				slots_ref(&s, slot);
				model[slot]++;
			}
		} else {
			unsigned n = 0;

			while (n < 40 && slot + n < MAX_SLOTS && model[slot + n])
				n++;
			if (n)
				slots_unref(&s, slot, n);
			for (unsigned i = 0; i < n; i++)
				used -= --model[slot + i] == 0;
		}
		REQUIRE_EQ(s.control->used, used);
		if (round % 2000 == 0)
			REQUIRE(slots_check(&s));
	}
	for (slot_t i = 0; i < MAX_SLOTS; i++)
		REQUIRE_EQ(slots_references(&s, i), model[i]);
	CHECK(slots_check(&s));
	slots_close(&s);
}

/* Threads mark the slots that they hold; a mark already there was given twice. */
struct contender {
	struct slots *s;
	_Atomic uint32_t *marks;
	uint32_t seed;
	unsigned failures;
};

static void *contend(void *arg)
{
	struct contender *c = arg;
	struct {
		slot_t first;
		unsigned count;
	} held[64] = { { 0, 0 } };
	uint32_t x = c->seed;

	for (int round = 0; round < 20000; round++) {
		unsigned i;

		x = x * 1664525u + 1013904223u;
		i = x >> 26;
		for (unsigned k = 0; k < held[i].count; k++)
			c->failures += !atomic_exchange(&c->marks[held[i].first + k], 0);
		if (held[i].count)
			slots_unref(c->s, held[i].first, held[i].count);
		held[i].count = slots_alloc(c->s, 1 + (x >> 10) % SWAP_RUN_MAX, false,
		                            &held[i].first);
		for (unsigned k = 0; k < held[i].count; k++)
			c->failures += atomic_exchange(&c->marks[held[i].first + k], 1);
	}
	for (unsigned i = 0; i < 64; i++) {
		for (unsigned k = 0; k < held[i].count; k++)
			atomic_store(&c->marks[held[i].first + k], 0);
		if (held[i].count)
			slots_unref(c->s, held[i].first, held[i].count);
	}
	return NULL;
}

static void threads_share_no_slot(void)
{
	enum { MAX_SLOTS = 5000, THREADS = 4 };
	static _Atomic uint32_t marks[MAX_SLOTS];
	struct slots s = open_backed(MAX_SLOTS);
	struct contender c[THREADS];
	pthread_t thread[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		c[i] = (struct contender){ &s, marks, i + 1, 0 };
		REQUIRE_EQ(pthread_create(&thread[i], NULL, contend, &c[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(thread[i], NULL);
		CHECK_EQ(c[i].failures, 0);
	}
	CHECK_EQ(s.control->used, 0);
	CHECK(slots_check(&s));
	slots_close(&s);
}

static uint64_t resident_part(const struct arena *a)
{
	size_t pages = a->bytes / PAGE_BYTES;
	unsigned char *in = malloc(pages);
	uint64_t n = 0;

	REQUIRE_EQ(mincore(a->base, a->bytes, in), 0);
	for (size_t i = 0; i < pages; i++)
		n += in[i] & 1;
	free(in);
	return n * PAGE_BYTES;
}

static uint64_t resident(const struct slots *s)
{
	return resident_part(&s->arena) + resident_part(&s->holder_arena) +
	       resident_part(&s->reference_arena) + resident_part(&s->sum_arena) +
	       resident_part(&s->held_arenas[0]);
}

static void a_tebibyte_costs_what_is_used(void)
{
	struct slots s = open_backed(SLOTS_MAX);
	slot_t first;

	CHECK_EQ(s.max, SLOTS_MAX);
	CHECK(resident(&s) <= slots_metadata(&s));
	CHECK(resident(&s) <= 4 * PAGE_BYTES);
	for (unsigned i = 0; i < 1000; i++)
		REQUIRE(slots_alloc(&s, SWAP_RUN_MAX, false, &first) > 0);
	for (slot_t i = 1; i < first; i++)
		slots_set_sum(&s, i, i);
	CHECK(resident(&s) <= slots_metadata(&s));
	/* About eight bytes and two bits a slot. */
	CHECK(slots_metadata(&s) <= (uint64_t)s.control->extent * 9 + 16 * PAGE_BYTES);
	slots_close(&s);
}

/* A sanitizer's shadow leaves no address space to limit. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SHADOWED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHADOWED 1
#endif
#ifndef SHADOWED
#define SHADOWED 0
#endif

static void opens_with_little_address_space(void)
{
	struct rlimit old, low;
	struct slots s;
	slot_t first;
	int error;

	if (SHADOWED || unit_valgrind()) {
		printf("skipped: a sanitizer needs the address space that is taken away here\n");
		return;
	}
	REQUIRE_EQ(getrlimit(RLIMIT_AS, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)1 << 30;
	REQUIRE_EQ(setrlimit(RLIMIT_AS, &low), 0);
	error = slots_open(&s, SLOTS_MAX);
	setrlimit(RLIMIT_AS, &old);
	REQUIRE_EQ(error, 0);
	CHECK(s.max < SLOTS_MAX && s.max >= 1 << 20);
	slots_set_backed(&s, s.max);
	CHECK_EQ(slots_alloc(&s, 3, false, &first), 3);
	slots_close(&s);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(summary_finds_next),
		UNIT(runs_are_neighbours),
		UNIT(limit_is_exact),
		UNIT(asks_to_grow_before_it_extends),
		UNIT(prefers_extending_to_fragments),
		UNIT(uses_fragments_when_sparse),
		UNIT(finds_an_empty_cluster_far_away),
		UNIT(fragments_when_the_limit_is_reached),
		UNIT(counts_references),
		UNIT(misuse_is_fatal),
		UNIT(extended_by_a_child),
		UNIT(no_room_for_records),
		UNIT(random_against_model),
		UNIT(threads_share_no_slot),
		UNIT(a_tebibyte_costs_what_is_used),
		UNIT(opens_with_little_address_space),
		UNIT_END,
	};

	return unit_main(argc, argv, "slots", tests);
}
