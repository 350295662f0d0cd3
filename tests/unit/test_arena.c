/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_arena.c - address space that costs memory where it is touched, and is usable
 * no farther than it is used (base/arena.c): also for a program that locks all its memory, or has
 * a limit on it, or no mapping left.
 */
#include "base/arena.h"
#include "base/base.h"
#include "base/error.h"
#include "base/kernel.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

#define HUGE ((size_t)2 << 20)

static size_t resident_from(const struct arena *a, size_t offset, size_t pages)
{
	unsigned char present[64];
	size_t n = 0;

	REQUIRE_EQ(mincore((char *)a->base + offset, pages * PAGE_BYTES, present), 0);
	for (size_t i = 0; i < pages; i++)
		n += present[i] & 1;
	return n;
}

static size_t resident(const struct arena *a, size_t pages)
{
	return resident_from(a, 0, pages);
}

static void grows_as_touched(void)
{
	/* Far more than memory; valgrind has little address space to give. */
	size_t bytes = (size_t)1 << (unit_valgrind() ? 30 : 36);
	unsigned char present;
	struct arena a;
	char *base;

	REQUIRE_EQ(arena_open(&a, bytes, false, "quire test"), 0);
	CHECK_EQ(a.bytes, bytes);
	base = a.base;
	CHECK_EQ(resident(&a, 64), 0);
	base[5 * PAGE_BYTES] = 1;
	base[9 * PAGE_BYTES] = 1;
	CHECK_EQ(resident(&a, 64), 2); /* no huge page */
	base[a.bytes - 1] = 1;
	/* Where a huge page would fit, one page is touched all the same. */
	for (size_t at = round_up((uintptr_t)base, HUGE) - (uintptr_t)base, i = 0; i < 4; i++)
		base[at + (i + 1) * HUGE + 5] = 1;
	CHECK_EQ(resident_from(&a, round_up((uintptr_t)base, HUGE) - (uintptr_t)base + HUGE, 64),
	         1);
	arena_clear(&a, 5 * PAGE_BYTES, PAGE_BYTES);
	CHECK_EQ(base[5 * PAGE_BYTES], 0);
	CHECK_EQ(base[9 * PAGE_BYTES], 1);
	arena_close(&a);
	CHECK(a.base == NULL);
	CHECK_EQ(mincore(base, PAGE_BYTES, &present), -1); /* it is gone */
	arena_close(&a);
}

static void rounds_up(void)
{
	struct arena a;

	REQUIRE_EQ(arena_open(&a, PAGE_BYTES + 1, false, NULL), 0);
	CHECK_EQ(a.bytes, 2 * PAGE_BYTES);
	((char *)a.base)[2 * PAGE_BYTES - 1] = 1;
	arena_close(&a);
}

static void too_large(void)
{
	struct arena a = { .base = &a };

	CHECK_EQ(arena_open(&a, (size_t)1 << 60, false, "quire test"), -ENOMEM);
	CHECK(a.base == NULL);
	CHECK(strstr(error_message(), "quire test") &&
	      strstr(error_message(), "1152921504606846976"));
	arena_close(&a);
}

/* Sanitizers look into memory by themselves, and need the address space that is taken away here. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* A soft limit. => the one before, to be set again */
static rlim_t limit(int what, rlim_t to)
{
	struct rlimit l;
	rlim_t old;

	REQUIRE_EQ(getrlimit(what, &l), 0);
	old = l.rlim_cur;
	l.rlim_cur = to;
	REQUIRE_EQ(setrlimit(what, &l), 0);
	return old;
}

static void words_name_the_limit(void)
{
	struct arena a;
	rlim_t old;
	int error;

	if (unit_foreign_memory())
		return;
	if (SANITIZED)
		return;
	old = limit(RLIMIT_AS, 1 << 30);
	error = arena_reserve(&a, (size_t)3 << 30, true, "quire test");
	limit(RLIMIT_AS, old);
	CHECK_EQ(error, -ENOMEM);
	CHECK(strstr(error_message(), "quire test") && strstr(error_message(), "3221225472") &&
	      strstr(error_message(), "RLIMIT_AS (ulimit -v) is 1073741824"));
	old = limit(RLIMIT_DATA, PAGE_BYTES);
	error = arena_reserve(&a, (size_t)3 << 30, false, "quire test");
	limit(RLIMIT_DATA, old);
	CHECK_EQ(error, -ENOMEM);
	CHECK(a.base == NULL);
	CHECK(strstr(error_message(), "RLIMIT_DATA (ulimit -d) is 4096"));
}

/* ---------------------------------------------------------------- in order */

/* Would an access be served? (A system call says so without a signal.) */
static bool readable(const void *at)
{
	int fd[2];
	bool yes;

	REQUIRE_EQ(pipe(fd), 0);
	yes = write(fd[1], at, 1) == 1;
	close(fd[0]);
	close(fd[1]);
	return yes;
}

static bool writable(void *at)
{
	int fd[2];
	bool yes;

	REQUIRE_EQ(pipe(fd), 0);
	yes = write(fd[1], "x", 1) == 1 && read(fd[0], at, 1) == 1;
	close(fd[0]);
	close(fd[1]);
	return yes;
}

static unsigned mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned n = 0;
	int c;

	REQUIRE(f != NULL);
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

static void usable_as_asked_for(void)
{
	if (unit_foreign_memory())
		return;
	for (int is_shared = 0; is_shared < 2; is_shared++) {
		struct arena a;
		unsigned before, growths = 0;
		char *base;

		REQUIRE_EQ(arena_reserve(&a, (size_t)1 << 36, is_shared, "quire test"), 0);
		base = a.base;
		CHECK_EQ(a.usable, ARENA_PIECE_MIN);
		CHECK(writable(base + a.usable - 1));
		CHECK(!readable(base + a.usable));
		before = mappings();
		for (size_t n = 1; n <= 512 * MIB; n += 100000) {
			size_t was = a.usable;

			REQUIRE(arena_extend(&a, n));
			growths += a.usable != was;
			REQUIRE(n <= a.usable);
			/* Twice of what is used, and no more than a piece beyond it. */
			REQUIRE(a.usable <= MAX(2 * n, ARENA_PIECE_MIN));
			REQUIRE(a.usable <= n + ARENA_PIECE_MAX);
		}
		CHECK(writable(base + 500 * MIB));
		CHECK(writable(base + a.usable - 1));
		CHECK(!readable(base + a.usable));
		/* Rarely, and all of it is one mapping. */
		CHECK(growths < 30);
		CHECK_EQ(mappings(), before);
		/* Far ahead in one step; and not beyond its end. */
		CHECK(arena_extend(&a, (size_t)1 << 34));
		CHECK(writable(base + ((size_t)1 << 34) - 1));
		CHECK(!arena_extend(&a, a.bytes + 1));
		CHECK(arena_extend(&a, a.bytes));
		CHECK_EQ(a.usable, a.bytes);
		CHECK(writable(base + a.bytes - 1));
		CHECK(arena_extend(&a, a.bytes));
		arena_close(&a);
	}
}

static void usable_as_far_as_a_limit_allows(void)
{
	struct arena a;
	rlim_t old;
	size_t was;

	if (unit_foreign_memory())
		return;
	REQUIRE_EQ(arena_reserve(&a, (size_t)1 << 36, false, "quire test"), 0);
	was = a.usable;
	old = limit(RLIMIT_DATA, PAGE_BYTES); /* 0 is none at all to the kernel */
	CHECK(arena_extend(&a, was));
	CHECK(!arena_extend(&a, was + 1));
	CHECK_EQ(a.usable, was);
	limit(RLIMIT_DATA, old);
	CHECK(!readable((char *)a.base + was));
	CHECK(arena_extend(&a, was + 1));
	CHECK(writable((char *)a.base + was));
	arena_close(&a);
}

/* ---------------------------------------------------------------- locked */

struct locked {
	struct arena a, shared;
	struct sparse_arena s;
};

static bool is_locked(void *at)
{
	return kernel_madvise(at, PAGE_BYTES, MADV_COLD) != 0 && errno == EINVAL;
}

static size_t resident_bytes(void)
{
	unsigned long size, pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (!f || fscanf(f, "%lu %lu", &size, &pages) != 2)
		_exit(50);
	fclose(f);
	return pages * PAGE_BYTES;
}

/* A child that found something wrong says where. */
static _Noreturn void end_child(int line)
{
	if (line)
		dprintf(STDOUT_FILENO, "%s:%d\n", __FILE__, line);
	_exit(line != 0);
}

/* => 0, or the line of what is wrong. The kernel fills at most what was usable, and what is its own. */
static int lock_all(struct locked *l, int how)
{
	size_t before = resident_bytes();
	char *at;

	if (mlockall(how) != 0 || resident_bytes() > before + 64 * MIB)
		return __LINE__;
	before = resident_bytes();
	at = (char *)l->a.base + l->a.usable;
	if (how & MCL_CURRENT && !is_locked(l->a.base))
		return __LINE__;
	if (!arena_extend(&l->a, 512 * MIB) || !arena_extend(&l->shared, 512 * MIB) ||
	    !sparse_write(&l->s, 7 * ARENA_PIECE_MAX))
		return __LINE__;
	if (resident_bytes() > before + MIB)
		return __LINE__;
	/* Locked, as the program wants it, where it is touched. */
	if (how & MCL_CURRENT && (!is_locked(at) || !is_locked((char *)l->s.arena.base)))
		return __LINE__;
	memset(at, 1, 8 * MIB);
	((char *)l->s.arena.base)[7 * ARENA_PIECE_MAX] = 1;
	if (resident_bytes() > before + 9 * MIB)
		return __LINE__;
	return 0;
}

static void locked_memory_is_not_filled(void)
{
	static const int how[] = { MCL_CURRENT, MCL_CURRENT | MCL_FUTURE, MCL_FUTURE,
		                   MCL_CURRENT | MCL_ONFAULT };

	if (unit_foreign_memory())
		return;
	if (SANITIZED || geteuid() != 0) {
		printf("left out: locked memory: not root, or a sanitizer has much of its own\n");
		return;
	}
	if (unit_zeros_take_memory()) {
		printf("left out: locked memory: this kernel has no shared page of zeros\n");
		return;
	}
	for (unsigned i = 0; i < ARRAY_LENGTH(how); i++) {
		int status;
		pid_t child = fork();

		REQUIRE(child >= 0);
		if (child == 0) {
			struct locked l;

			/* Should all be filled after all, then not beyond this. */
			limit(RLIMIT_DATA, (rlim_t)1 << 30);
			if (arena_reserve(&l.a, (size_t)1 << 38, false, "quire test") ||
			    arena_reserve(&l.shared, (size_t)1 << 31, true, NULL))
				_exit(51);
			if (sparse_open(&l.s, (size_t)1 << 29, "quire test"))
				_exit(52);
			end_child(lock_all(&l, how[i]));
		}
		CHECK_EQ(waitpid(child, &status, 0), child);
		CHECK_EQ(status, 0);
	}
}

/* ---------------------------------------------------------------- sparse */

static void sparse(void)
{
	struct sparse_arena s;
	unsigned before = mappings();
	size_t pieces;
	char *base;

	if (unit_foreign_memory())
		return;
	REQUIRE_EQ(sparse_open(&s, (size_t)1 << 31, "quire test"), 0);
	base = s.arena.base;
	pieces = (s.arena.bytes + s.piece - 1) / s.piece;
	CHECK(pieces <= 64 && s.piece <= ARENA_PIECE_MAX);
	CHECK_EQ(base[12345678], 0);
	CHECK(readable(base + s.arena.bytes - 1));
	CHECK(!writable(base + s.arena.bytes - 1));
	CHECK(sparse_write(&s, s.arena.bytes - 1));
	CHECK(writable(base + s.arena.bytes - 1));
	CHECK(writable(base + (pieces - 1) * s.piece));
	CHECK(!writable(base + (pieces - 1) * s.piece - 1));
	for (size_t i = 0; i < pieces; i += 2) {
		CHECK(sparse_write(&s, i * s.piece));
		CHECK(writable(base + i * s.piece + 100));
	}
	CHECK(mappings() <= before + pieces);
	for (size_t i = 0; i < pieces; i++)
		CHECK(sparse_write(&s, i * s.piece + 5));
	CHECK_EQ(mappings(), before + 1);
	CHECK_EQ(base[100], 'x');
	sparse_close(&s);
	/* The smaller ones are of fewer pieces, and the smallest of one. */
	REQUIRE_EQ(sparse_open(&s, 32 * MIB, NULL), 0);
	CHECK_EQ(s.piece, 2 * MIB);
	CHECK(sparse_write(&s, 32 * MIB - 1));
	((char *)s.arena.base)[30 * MIB] = 1;
	sparse_close(&s);
	REQUIRE_EQ(sparse_open(&s, 100, NULL), 0);
	CHECK(sparse_write(&s, 99));
	((char *)s.arena.base)[99] = 1;
	sparse_close(&s);
	REQUIRE_EQ(sparse_open(&s, ARENA_PIECE_MIN + 1, NULL), 0);
	CHECK(sparse_write(&s, ARENA_PIECE_MIN));
	((char *)s.arena.base)[ARENA_PIECE_MIN] = 1;
	sparse_close(&s);
}

#define MAPPINGS_MAX 300000u

/* As many mappings as the process may have: a piece in the middle would need two more. */
static int without_mappings(struct sparse_arena *s)
{
	char *middle = (char *)s->arena.base + 5 * s->piece;
	unsigned n;

	for (n = 0; n < MAPPINGS_MAX; n++)
		if (mmap(NULL, PAGE_BYTES, n & 1 ? PROT_READ : PROT_NONE,
		         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
			break;
	if (n == MAPPINGS_MAX) {
		dprintf(STDOUT_FILENO, "left out: vm.max_map_count is too high here\n");
		return 0;
	}
	if (mprotect(middle, PAGE_BYTES, PROT_READ | PROT_WRITE) == 0)
		return __LINE__;
	if (!sparse_write(s, 5 * s->piece))
		return __LINE__;
	*middle = 1;
	return 0;
}

static void sparse_without_mappings(void)
{
	struct sparse_arena s;
	int status;
	pid_t child;

	if (unit_foreign_memory())
		return;
	if (SANITIZED)
		return;
	REQUIRE_EQ(sparse_open(&s, (size_t)1 << 31, "quire test"), 0);
	child = fork();
	REQUIRE(child >= 0);
	if (child == 0)
		end_child(without_mappings(&s));
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	sparse_close(&s);
}

/* A shared one is one memory for parent and child; a private one is not. */
static void shared(void)
{
	for (int is_shared = 0; is_shared < 2; is_shared++) {
		struct arena a;
		int status;
		pid_t child;

		REQUIRE_EQ(arena_open(&a, PAGE_BYTES, is_shared, "quire test"), 0);
		child = fork();
		REQUIRE(child >= 0);
		if (child == 0) {
			*(char *)a.base = 7;
			_exit(0);
		}
		CHECK_EQ(waitpid(child, &status, 0), child);
		CHECK_EQ(*(char *)a.base, is_shared ? 7 : 0);
		arena_close(&a);
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(grows_as_touched),
		UNIT(rounds_up),
		UNIT(too_large),
		UNIT(words_name_the_limit),
		UNIT(usable_as_asked_for),
		UNIT(usable_as_far_as_a_limit_allows),
		UNIT(locked_memory_is_not_filled),
		UNIT(sparse),
		UNIT(sparse_without_mappings),
		UNIT(shared),
		UNIT_END,
	};

	return unit_main(argc, argv, "arena", tests);
}
