/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_filter.c - the guard's filter, run by an interpreter of its instructions,
 * against the table that it was compiled from.
 */
#include "unit.h"

#include "guard/calls.h"
#include "guard/guard.h"
#include "guard/trap.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>

#define NUMBERS 600
#define ELSEWHERE UINT64_C(0x7f1234567890)

static struct sock_filter code[FILTER_MAX];
static unsigned length;

/* What a seccomp filter may be made of, as the kernel runs it. => the action, or 0: not well formed */
static uint32_t run(const struct seccomp_data *data)
{
	uint32_t a = 0;

	for (unsigned at = 0; at < length; at++) {
		const struct sock_filter *i = &code[at];

		switch (i->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			if (i->k % 4 || i->k + 4 > sizeof *data)
				return 0;
			memcpy(&a, (const char *)data + i->k, sizeof a);
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= i->k;
			break;
		case BPF_JMP | BPF_JA:
			at += i->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
			at += a == i->k ? i->jt : i->jf;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			at += a >= i->k ? i->jt : i->jf;
			break;
		case BPF_RET | BPF_K:
			return i->k;
		default:
			return 0;
		}
	}
	return 0;
}

static struct seccomp_data call(int number)
{
	struct seccomp_data data = { .nr = number,
		                     .arch = AUDIT_ARCH_X86_64,
		                     .instruction_pointer = ELSEWHERE };

	for (unsigned i = 0; i < CALL_ARGS; i++)
		data.args[i] = ELSEWHERE + i * 4096;
	return data;
}

static void as_the_table_says(void)
{
	static const uint64_t addresses[] = { GUARD_WINDOW, GUARD_WINDOW + 12345,
		                              GUARD_WINDOW + GUARD_WINDOW_BYTES - 1 };
	unsigned wrong = 0;

	for (int number = 0; number < NUMBERS; number++) {
		struct seccomp_data data = call(number);
		unsigned pointers = call_pointers(number);

		wrong += run(&data) != SECCOMP_RET_ALLOW;
		for (unsigned i = 0; i < CALL_ARGS; i++)
			for (unsigned k = 0; k < 3; k++) {
				bool traps;

				data = call(number);
				data.args[i] = addresses[k];
				traps = run(&data) == (SECCOMP_RET_TRAP | 0x1234);
				if (traps != (pointers >> i & 1)) {
					printf("call %d, argument %u\n", number, i);
					wrong++;
				}
				/* And not from there. */
				data.instruction_pointer = TRAMPOLINE + 10;
				wrong += run(&data) != SECCOMP_RET_ALLOW;
			}
	}
	CHECK_EQ(wrong, 0);
}

static void beside_the_window(void)
{
	static const uint64_t addresses[] = { GUARD_WINDOW - 1,
		                              GUARD_WINDOW + GUARD_WINDOW_BYTES,
		                              0,
		                              ~UINT64_C(0),
		                              GUARD_WINDOW >> 32,
		                              GUARD_WINDOW >> 1,
		                              GUARD_WINDOW << 1 };

	for (unsigned k = 0; k < sizeof addresses / sizeof *addresses; k++) {
		struct seccomp_data data = call(SYS_read);

		data.args[1] = addresses[k];
		CHECK_EQ(run(&data), SECCOMP_RET_ALLOW);
	}
}

static void other_architectures(void)
{
	struct seccomp_data data = call(SYS_read);

	data.args[1] = GUARD_WINDOW;
	data.arch = AUDIT_ARCH_I386;
	CHECK_EQ(run(&data), SECCOMP_RET_ALLOW);
	/* The x32 calls have pointers of their own; what is not in the table has six. */
	data = call(0x40000000 | 513);
	data.args[5] = GUARD_WINDOW;
	CHECK_EQ(run(&data), SECCOMP_RET_TRAP | 0x1234);
}

/* Not to be stopped, whatever the registers hold: the way back, and those that know a stack. */
static void never_trapped(void)
{
	static const int calls[] = { SYS_rt_sigreturn, SYS_clone,     SYS_clone3, SYS_vfork,
		                     SYS_fork,         SYS_exit,      SYS_mmap,   SYS_munmap,
		                     SYS_madvise,      SYS_exit_group };

	for (unsigned k = 0; k < sizeof calls / sizeof *calls; k++)
		CHECK_EQ(call_pointers(calls[k]), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(as_the_table_says), UNIT(beside_the_window),
		                                  UNIT(other_architectures), UNIT(never_trapped),
		                                  UNIT_END };

#if !defined(__x86_64__)
	unit_skip_all("the guard is for x86-64");
#endif
	length = filter_compile(code, 0x1234);
	return unit_main(argc, argv, "filter", tests);
}
