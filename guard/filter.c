/* SPDX-License-Identifier: MIT */
/*
 * guard/filter.c - the table, compiled for the kernel: a seccomp filter that traps a call
 * if one of its pointers is in the window, unless it comes from the trampoline.
 *
 *   a search for the call's number, by halves, among rows of numbers with the same pointers
 *   for each set of pointers: is one of them in the window?
 *   if so: does the call come from the trampoline?
 *
 * Of a call without pointers the kernel itself sees that it is always allowed, and does
 * not run the filter. A register that is no argument of the call, or no pointer, may hold
 * anything. (libseccomp cannot compare the address that a call comes from.)
 *
 * Every program that this one executes has the filter, too; it is harmless there, as
 * nothing is in the window, and all programs with the same table recognize it.
 */
#include "guard/calls.h"
#include "guard/guard.h"
#include "guard/trap.h"

#include "base/base.h"
#include "base/error.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SETS (1u << CALL_ARGS)

/* The window's addresses agree in these bits of their upper half. */
#define WINDOW_MASK ((uint32_t)(~(GUARD_WINDOW_BYTES - 1) >> 32))
#define WINDOW_HIGH ((uint32_t)(GUARD_WINDOW >> 32))

/* Asked for first. */
static const uint32_t often[] = { SYS_read, SYS_write, SYS_futex };

struct program {
	struct sock_filter *code;
	unsigned length;
	/* Jumps to the test of a set, to be filled in: chained, the first is 0 for none. */
	unsigned to_set[SETS];
	unsigned to_window; /* jumps to where the call's origin is asked for */
};

/* Numbers from first on (up to the next row) have these pointers. */
struct span {
	uint32_t first;
	unsigned pointers;
};

static unsigned emit(struct program *p, uint16_t op, uint8_t yes, uint8_t no, uint32_t k)
{
	if (p->length < FILTER_MAX)
		p->code[p->length] = (struct sock_filter){ op, yes, no, k };
	return p->length++;
}

static void load(struct program *p, size_t offset)
{
	emit(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offset);
}

/* A jump whose target is not known yet; k holds the one before in the same chain. */
static void jump_later(struct program *p, unsigned *chain)
{
	*chain = emit(p, BPF_JMP | BPF_JA, 0, 0, *chain);
}

/* All jumps of the chain lead here. */
static void land(struct program *p, unsigned *chain)
{
	while (*chain && *chain < FILTER_MAX) {
		struct sock_filter *jump = &p->code[*chain];
		unsigned next = jump->k;

		jump->k = p->length - *chain - 1;
		*chain = next;
	}
}

static void search(struct program *p, const struct span *spans, unsigned n)
{
	unsigned upper = 0;

	if (n == 1) {
		if (spans->pointers == 0)
			emit(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
		else
			jump_later(p, &p->to_set[spans->pointers]);
		return;
	}
	emit(p, BPF_JMP | BPF_JGE | BPF_K, 0, 1, spans[n / 2].first);
	jump_later(p, &upper);
	search(p, spans, n / 2);
	land(p, &upper);
	search(p, spans + n / 2, n - n / 2);
}

static unsigned spans_of_table(struct span *spans)
{
	unsigned n = 0;

	/* Beyond the table all is unknown. */
	for (uint32_t number = 0; number <= CALLS_MAX; number++) {
		unsigned pointers = call_pointers(number);

		if (n == 0 || spans[n - 1].pointers != pointers)
			spans[n++] = (struct span){ number, pointers };
	}
	return n;
}

static void test_set(struct program *p, unsigned pointers)
{
	for (unsigned i = 0; i < CALL_ARGS; i++) {
		if (!(pointers >> i & 1))
			continue;
		load(p,
		     offsetof(struct seccomp_data, args) + i * sizeof(uint64_t) + sizeof(uint32_t));
		emit(p, BPF_ALU | BPF_AND | BPF_K, 0, 0, WINDOW_MASK);
		emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, WINDOW_HIGH);
		jump_later(p, &p->to_window);
	}
	emit(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
}

unsigned filter_compile(struct sock_filter *code, uint16_t mark)
{
	struct program program = { .code = code }, *p = &program;
	struct span spans[CALLS_MAX + 1];
	unsigned n = spans_of_table(spans);

	/* Pointers of other architectures' calls have 32 bits. */
	load(p, offsetof(struct seccomp_data, arch));
	emit(p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AUDIT_ARCH_X86_64);
	emit(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
	load(p, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < ARRAY_LENGTH(often); i++) {
		emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, often[i]);
		jump_later(p, &p->to_set[call_pointers(often[i])]);
	}
	search(p, spans, n);
	for (unsigned set = 1; set < SETS; set++)
		if (p->to_set[set]) {
			land(p, &p->to_set[set]);
			test_set(p, set);
		}
	land(p, &p->to_window);
	load(p, offsetof(struct seccomp_data, instruction_pointer) + sizeof(uint32_t));
	emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 4, (uint32_t)(TRAMPOLINE >> 32));
	load(p, offsetof(struct seccomp_data, instruction_pointer));
	emit(p, BPF_ALU | BPF_AND | BPF_K, 0, 0, ~(uint32_t)(PAGE_BYTES - 1));
	emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (uint32_t)TRAMPOLINE);
	emit(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
	emit(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_TRAP | mark);
	ASSERT(p->length <= FILTER_MAX);
	return p->length;
}

/* Used under guard_start's lock. */
static struct sock_filter compiled[FILTER_MAX];

uint16_t filter_mark(void)
{
	const unsigned char *bytes = (const unsigned char *)compiled;
	unsigned length = filter_compile(compiled, 0);
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < length * sizeof compiled[0]; i++)
		hash = (hash ^ bytes[i]) * 16777619u;
	return (uint16_t)(hash ^ hash >> 16);
}

/* ThreadSanitizer lets nobody have the addresses of the window. */
#if defined(__SANITIZE_THREAD__)
#define WITHOUT_WINDOW 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITHOUT_WINDOW 1
#endif
#endif

int filter_probe(void)
{
#if defined(__x86_64__) && !defined(WITHOUT_WINDOW)
	uint32_t action = SECCOMP_RET_TRAP;

	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0 ? 0 : errno;
#else
	return ENOSYS;
#endif
}

/* SPEC_ALLOW: the filter protects nobody from anybody, and should slow down nothing. */
static long install(struct sock_fprog *filter, unsigned long flags)
{
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, filter);
}

int filter_install(void)
{
	struct sock_fprog filter;
	long result;

	filter.len = (unsigned short)filter_compile(compiled, filter_mark());
	filter.filter = compiled;
	/* Without it a filter takes a privilege. From now on no program gets more by exec. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return error_set(errno, "prctl(PR_SET_NO_NEW_PRIVS): %s", strerror(errno));
	result = install(&filter, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW);
	if (result < 0 && errno == EINVAL) /* before Linux 4.17 */
		result = install(&filter, SECCOMP_FILTER_FLAG_TSYNC);
	if (result > 0)
		return error_set(EBUSY,
		                 "thread %ld has a seccomp filter of its own: the guard is to be "
		                 "started before",
		                 result);
	return result == 0 ? 0 : error_set(errno, "a seccomp filter: %s", strerror(errno));
}
