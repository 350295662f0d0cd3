/* SPDX-License-Identifier: MIT */
/* vm/signals.c - see signals.h. */
#include "vm/signals.h"

#include "base/chain.h"
#include "base/error.h"
#include "base/quiesce.h"
#include "guard/guard.h"
#include "vm/vm.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static void on_signal(int number, siginfo_t *info, void *context);

/* The two signals that a fault may come as. */
static struct answer {
	unsigned users;     /* users lock */
	struct chain chain; /* written under the users lock */
} answers[] = { { .chain = { .number = SIGBUS, .ours = on_signal } },
	        { .chain = { .number = SIGSEGV, .ours = on_signal } } };

static struct lock users_lock = LOCK_INIT(RANK_ENGINE);

static struct answer *answer_to(int number)
{
	return &answers[number == SIGSEGV];
}

/* Was the access a write? */
static bool context_is_write(const ucontext_t *c)
{
#if defined(__x86_64__)
	return c->uc_mcontext.gregs[REG_ERR] & 2;
#elif defined(__aarch64__)
	/* ESR_MAGIC record: exception syndrome; WnR is bit 6. */
	const uint8_t *p = (const uint8_t *)c->uc_mcontext.__reserved;

	for (;;) {
		uint32_t magic, size;
		uint64_t esr;

		memcpy(&magic, p, sizeof magic);
		memcpy(&size, p + 4, sizeof size);
		if (magic == 0 || size == 0)
			return true;
		if (magic == 0x45535201) {
			memcpy(&esr, p + 8, sizeof esr);
			return esr >> 6 & 1;
		}
		p += size;
	}
#else
	(void)c;
	return true; /* right, if not cheap: the page is mapped writable */
#endif
}

/* Was it a jump? What is there is no program: that is for the program to hear of. */
static bool context_is_fetch(const ucontext_t *c, const void *address)
{
#if defined(__x86_64__)
	(void)address;
	return c->uc_mcontext.gregs[REG_ERR] & 16;
#elif defined(__aarch64__)
	return c->uc_mcontext.pc == (uintptr_t)address;
#else
	(void)c, (void)address;
	return false;
#endif
}

enum outcome {
	SERVED, /* the access can be made again */
	NOT_OURS, /* no page of an engine that answers this signal; or the program forbade the access */
	REFUSED, /* the page cannot be had */
};

static enum outcome serve_region(struct quire_region *r, const siginfo_t *info,
                                 const ucontext_t *context)
{
	const struct engine_ops *ops = r->q->engine.ops;
	struct fault f = {
		.region = r,
		.page = (uint64_t)((char *)info->si_addr - r->base) >> PAGE_SHIFT,
		.write = context_is_write(context),
		.may_sleep = true,
	};

	if (ops->signal != info->si_signo || context_is_fetch(context, info->si_addr))
		return NOT_OURS;
	if (f.write && ops->forbids_write && ops->forbids_write(r, region_page(r, f.page)))
		return NOT_OURS;
	return fault_serve(&f) == FAULT_DONE ? SERVED : REFUSED;
}

static enum outcome serve(const siginfo_t *info, const ucontext_t *context)
{
	struct quire_region *r;
	enum outcome outcome = NOT_OURS;

	if (info->si_code <= 0) /* sent by kill(2) and its like */
		return NOT_OURS;
	/* A child that was made without our handlers has no regions, whatever the registry says. */
	if (process_is_strange())
		return NOT_OURS;
	work_enter();
	r = registry_find(info->si_addr);
	if (r) {
		outcome = serve_region(r, info, context);
		region_put(r);
	}
	work_leave();
	return outcome;
}

/*
 * A page of ours whose bytes cannot be had, under an engine that learns of faults by
 * another signal: SIGBUS at that address, delivered where the access was made, when we
 * return. As the kernel does with a fault: if it is blocked or ignored, the process ends.
 */
static void refuse(const siginfo_t *info, ucontext_t *context)
{
	struct sigaction now;
	siginfo_t bus;

	memset(&bus, 0, sizeof bus);
	bus.si_signo = SIGBUS;
	bus.si_code = BUS_ADRERR;
	bus.si_addr = info->si_addr;
	if (sigismember(&context->uc_sigmask, SIGBUS) == 1 ||
	    (sigaction(SIGBUS, NULL, &now) == 0 && now.sa_handler == SIG_IGN)) {
		sigdelset(&context->uc_sigmask, SIGBUS);
		chain_default(SIGBUS);
	}
	if (syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGBUS, &bus) != 0)
		syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGBUS);
}

/* A fault of the guard's copying: it is told, and the program is not. */
static bool is_copying(const siginfo_t *info, void *context)
{
	return info->si_code > 0 && guard_copy_ends(context);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
	int saved = errno;
	enum outcome outcome = serve(info, context);

	if (outcome != SERVED && is_copying(info, context))
		outcome = SERVED;
	if (outcome == REFUSED && number != SIGBUS)
		refuse(info, context);
	else if (outcome != SERVED)
		chain_pass_on(&answer_to(number)->chain, info, context);
	errno = saved;
}

bool quire_handle_signal(int number, void *info, void *context)
{
	int saved = errno;
	enum outcome outcome = NOT_OURS;

	if (number == SIGSYS)
		return guard_handle_signal(info, context);
	if (number == SIGBUS || number == SIGSEGV)
		outcome = serve(info, context);
	if (outcome != SERVED && is_copying(info, context))
		outcome = SERVED;
	if (outcome == REFUSED && number != SIGBUS) {
		refuse(info, context);
		outcome = SERVED;
	}
	errno = saved;
	return outcome == SERVED;
}

int quire_signal_action(int number, const void *new, void *old)
{
	return chain_action(number, new, old) ? 0 : -ENOENT;
}

static int install(struct answer *answer)
{
	sigset_t all;

	/* A handler of the program's must not run while an entry is held by its thread. */
	chain_all(&all);
	return chain_install(&answer->chain, 0, &all);
}

int signals_start(int number)
{
	struct answer *answer = answer_to(number);
	int error;

	lock_acquire(&users_lock);
	error = answer->users == 0 ? install(answer) : 0;
	answer->users += error == 0;
	lock_release(&users_lock);
	return error ? error_set(error, "the handler of %s: %s",
	                         number == SIGBUS ? "SIGBUS" : "SIGSEGV", strerror(error)) :
	               0;
}

void signals_stop(int number)
{
	struct answer *answer = answer_to(number);

	lock_acquire(&users_lock);
	if (--answer->users == 0)
		chain_remove(&answer->chain);
	lock_release(&users_lock);
}
