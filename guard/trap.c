/* SPDX-License-Identifier: MIT */
/*
 * guard/trap.c - SIGSYS: a call that the filter has stopped, on the thread that made it.
 *
 * Signals are blocked in the handler, those excepted that its copying raises, but not
 * while the call is made: then the mask is the thread's own, and what interrupts the call
 * does so as it would have without us. A handler with SA_RESTART has the kernel go back
 * to the instruction that made the call, which is one of ours and knows no difference;
 * without, the result is -EINTR, which is handed on. No lock is held and no page, but
 * what scratch.h says.
 */
#include "guard/trap.h"

#include "base/base.h"
#include "base/chain.h"
#include "base/error.h"
#include "base/lock.h"
#include "guard/guard.h"
#include "guard/served.h"
#include "guard/wrappers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1 /* si_code */
#endif

static _Atomic uint32_t mark; /* of our filter; 0: not started */
static _Atomic uint32_t seen; /* is_filtered: the filter answered */

/* A call that the kernel refuses whoever makes it. Its memory need not be there. */
#define NO_CLOCK (~0ul)

static bool is_question(const struct served *s)
{
	return s->number == SYS_clock_gettime && s->given[0] == NO_CLOCK &&
	       s->given[1] == GUARD_WINDOW;
}

#if defined(__x86_64__)

static const int argument_registers[CALL_ARGS] = { REG_RDI, REG_RSI, REG_RDX,
	                                           REG_R10, REG_R8,  REG_R9 };

static void serve(ucontext_t *c, int number)
{
	greg_t *registers = c->uc_mcontext.gregs;
	struct served s;

	s.number = number;
	s.context = c;
	s.cancellable = false;
	for (unsigned i = 0; i < CALL_ARGS; i++)
		s.given[i] = (unsigned long)registers[argument_registers[i]];
	if (is_question(&s)) {
		registers[REG_RAX] = -EINVAL;
		return;
	}
	memcpy(&s.mask, &c->uc_sigmask, sizeof s.mask);
	scratch_open(&s.scratch);
	registers[REG_RAX] = served_run(&s);
	scratch_close(&s.scratch);
}

/* mov %rcx, %r10; mov 8(%rsp), %rax; syscall; ret: arguments as a function's, the number last. */
static const unsigned char trampoline[] = { 0x49, 0x89, 0xca, 0x48, 0x8b, 0x44,
	                                    0x24, 0x08, 0x0f, 0x05, 0xc3 };

#else

static void serve(ucontext_t *c, int number)
{
	(void)c;
	(void)number;
}

static const unsigned char trampoline[] = { 0 };

#endif

static bool is_ours(const siginfo_t *info)
{
	uint32_t m = atomic_load_explicit(&mark, memory_order_relaxed);

	return m && info->si_code == SYS_SECCOMP && (uint16_t)info->si_errno == (uint16_t)m;
}

/* => false: not of our filter */
static bool handle(const siginfo_t *info, void *context)
{
	int saved = errno;

	if (!is_ours(info))
		return false;
	atomic_store_explicit(&seen, 1, memory_order_relaxed);
	serve(context, info->si_syscall);
	errno = saved;
	return true;
}

/* All but those that copying and calls raise in their own thread. */
static void fill_mask(sigset_t *set)
{
	chain_all(set);
	sigdelset(set, SIGSYS);
	sigdelset(set, SIGSEGV);
	sigdelset(set, SIGBUS);
}

/* From a handler of the program's, with whatever mask that has; it is the context's again at the end. */
bool guard_handle_signal(void *info, void *context)
{
	sigset_t mask;

	if (!is_ours(info))
		return false;
	fill_mask(&mask);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, (size_t)8);
	return handle(info, context);
}

static void on_trap(int number, siginfo_t *info, void *context);

static struct chain chain = { .number = SIGSYS, .ours = on_trap };

static void on_trap(int number, siginfo_t *info, void *context)
{
	bool ignored;

	if (handle(info, context))
		return;
	ignored = !(chain.previous.sa_flags & SA_SIGINFO) &&
	          (chain.previous.sa_handler == SIG_DFL || chain.previous.sa_handler == SIG_IGN);
	if (ignored && info->si_code > 0) {
		/* Of another filter: the kernel does not ask whether it is ignored. Nor does it come again. */
		chain_default(number);
		syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), number);
		return;
	}
	chain_pass_on(&chain, info, context);
}

/* ------------------------------------------------------------------ start */

/*
 * How to unwind from there: the caller's frame is above the return address. A thread that is
 * cancelled while it waits for a futex is unwound from there, by the same library as libc takes.
 */
static void describe_trampoline(void)
{
	static struct {
		uint32_t length, id;
		uint8_t version, augmentation, code_align, data_align, return_register;
		uint8_t start[7];
		uint32_t fde_length, fde_back;
		uint64_t from, bytes;
		uint32_t end;
	} __attribute__((packed)) frame = {
		.length = 16,
		.version = 1,
		.code_align = 1,
		.data_align = 0x78, /* -8 */
		.return_register = 16,
		.start = { 0x0c, 7, 8, 0x80 | 16, 1, 0,
		           0 }, /* CFA = rsp + 8; return address at CFA - 8 */
		.fde_length = 20,
		.fde_back = 24,
		.from = TRAMPOLINE,
		.bytes = sizeof trampoline,
	};
	static bool known;
	void *found = known || !wrapper_unwinder ? NULL : wrapper_unwinder();
	void (*add)(void *);

	if (!found)
		return;
	memcpy(&add, &found, sizeof add);
	add(&frame);
	known = true;
}

static int map_trampoline(void)
{
	void *at = (void *)(uintptr_t)TRAMPOLINE;
	void *p = mmap(at, PAGE_BYTES, PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != at) {
		if (p != MAP_FAILED)
			munmap(p, PAGE_BYTES);
		return error_set(ENOTSUP, "the address %p is in use: %s", at, strerror(errno));
	}
	memcpy(p, trampoline, sizeof trampoline);
	if (mprotect(p, PAGE_BYTES, PROT_READ | PROT_EXEC) == 0) {
		describe_trampoline();
		return 0;
	}
	munmap(p, PAGE_BYTES);
	return error_set(ENOTSUP, "a page of code cannot be made: %s", strerror(errno));
}

/* The filter may be there already: of a parent's, before exec. */
static bool is_filtered(void)
{
	sigset_t trap, before;

	sigemptyset(&trap);
	sigaddset(&trap, SIGSYS);
	pthread_sigmask(SIG_UNBLOCK, &trap, &before);
	atomic_store(&seen, 0);
	syscall(SYS_clock_gettime, NO_CLOCK, (uintptr_t)GUARD_WINDOW);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return atomic_load(&seen) != 0;
}

static int start(const struct guard_pager *pager)
{
	sigset_t mask_of_handler;
	int error = filter_probe();

	if (error)
		return error_set(ENOTSUP, "seccomp filters: %s", strerror(error));
	error = map_trampoline();
	if (error)
		return error;
	scratch_start(pager);
	atomic_store(&mark, filter_mark() | 0x10000u);
	fill_mask(&mask_of_handler);
	error = chain_install(&chain, SA_NODEFER, &mask_of_handler);
	if (error)
		error = error_set(error, "the handler of SIGSYS: %s", strerror(error));
	else if (!is_filtered())
		error = filter_install();
	if (error) {
		chain_remove(&chain);
		atomic_store(&mark, 0);
		munmap((void *)(uintptr_t)TRAMPOLINE, PAGE_BYTES);
	}
	return error;
}

static struct lock start_lock = LOCK_INIT(RANK_GUARD);

static void forget_in_child(void)
{
	lock_init(&start_lock, RANK_GUARD);
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, forget_in_child);
}

int guard_start(const struct guard_pager *pager)
{
	int error = 0;

	lock_acquire(&start_lock);
	if (!atomic_load(&mark))
		error = start(pager);
	lock_release(&start_lock);
	return error;
}

bool guard_is_on(void)
{
	return atomic_load_explicit(&mark, memory_order_relaxed) != 0;
}

int guard_probe(void)
{
	return filter_probe();
}
