/* SPDX-License-Identifier: MIT */
/*
 * base/base.h - what every room uses: the page, assertions, small arithmetic,
 * the clock. A leaf: includes nothing of ours.
 *
 * Two levels of assertion. ASSERT holds in every build: it guards data, and a
 * broken one stops the process before it can lose a write. DEBUG_ASSERT is for
 * checks too dear for the fault path (make DEBUG=1).
 */
#ifndef QUIRE_BASE_BASE_H
#define QUIRE_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define PAGE_SHIFT 12
#define PAGE_BYTES ((size_t)1 << PAGE_SHIFT)

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ARRAY_LENGTH(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Prints file, line and expression with write(2) alone, then aborts. */
_Noreturn void assert_failed(const char *file, int line, const char *expression);

#define ASSERT(x) (likely(x) ? (void)0 : assert_failed(__FILE__, __LINE__, #x))
#if defined(QUIRE_DEBUG) && QUIRE_DEBUG
#define DEBUG_ASSERT(x) ASSERT(x)
#else
#define DEBUG_ASSERT(x) ((void)sizeof(!(x)))
#endif

static inline size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

static inline size_t pages_of(size_t bytes)
{
	return bytes >> PAGE_SHIFT;
}

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* count bits from bit first on; 1 <= count, first + count <= 64 */
static inline uint64_t bits(unsigned first, unsigned count)
{
	return ~UINT64_C(0) >> (64 - count) << first;
}

/* The length of the row of set bits that begins at bit first; that one is set. */
static inline unsigned bit_row(uint64_t set, unsigned first)
{
	uint64_t clear = ~(set >> first);

	return clear ? (unsigned)__builtin_ctzll(clear) : 64;
}

static inline bool page_is_zero(const void *page)
{
	const uint64_t *w = (const uint64_t *)page;

	for (size_t i = 0; i < PAGE_BYTES / sizeof *w; i += 8)
		if (w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] |
		    w[i + 7])
			return false;
	return true;
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Thread-local data that a signal handler may use: no lazy allocation by the loader. */
#define SIGNAL_SAFE_TLS __thread __attribute__((tls_model("initial-exec")))

#endif
