/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd_signal.c - the engine `uffd-signal`: with UFFD_FEATURE_SIGBUS an
 * access to an absent page raises SIGBUS in the faulting thread, which serves
 * the fault itself and goes on. No hand-over, no second wake-up.
 *
 * The handler is one for the process, installed with the first such engine and
 * taken away with the last if it is still ours. What is not a page of ours, or
 * cannot be served, goes to the handler that was there before, or to the
 * default action at the faulting instruction.
 */
#include "vm/uffd.h"

#include "base/error.h"
#include "vm/vm.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static struct lock users_lock = LOCK_INIT(RANK_ENGINE);
static unsigned users;            /* users lock */
static struct sigaction previous; /* written under the users lock before ours is installed */

/* Who held it is not there to release it. The handler stays: the child's own pagers use it. */
static void forget_in_child(void)
{
	lock_init(&users_lock, RANK_ENGINE);
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, forget_in_child);
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

/* => true: served; the access can be made again */
static bool serve(const siginfo_t *info, const ucontext_t *context)
{
	struct quire_region *r;
	bool done = false;

	if (info->si_code <= 0) /* sent by kill(2) and its like */
		return false;
	r = registry_find(info->si_addr);
	if (!r)
		return false;
	if (r->q->engine.ops->in_thread) {
		struct fault f = {
			.region = r,
			.page = (uint64_t)((char *)info->si_addr - r->base) >> PAGE_SHIFT,
			.write = context_is_write(context),
			.may_sleep = true,
		};

		done = fault_serve(&f) == FAULT_DONE;
	}
	region_put(r);
	return done;
}

/* As if we had not been there. */
static void pass_on(int signal, siginfo_t *info, void *context)
{
	const struct sigaction *old = &previous;

	if (old->sa_flags & SA_SIGINFO) {
		old->sa_sigaction(signal, info, context);
	} else if (old->sa_handler == SIG_DFL || old->sa_handler == SIG_IGN) {
		struct sigaction dfl = { .sa_handler = SIG_DFL };

		if (info->si_code <= 0 && old->sa_handler == SIG_IGN)
			return;
		/* A fault comes again when we return, and kills with the right address. */
		sigaction(signal, &dfl, NULL);
		if (info->si_code <= 0)
			syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signal);
	} else {
		old->sa_handler(signal);
	}
}

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
	int saved = errno;

	if (!serve(info, context))
		pass_on(signal, info, context);
	errno = saved;
}

bool quire_handle_signal(int signal, void *info, void *context)
{
	int saved = errno;
	bool done = signal == SIGBUS && serve(info, context);

	errno = saved;
	return done;
}

static int signal_open(struct engine *e, struct quire *q)
{
	(void)q;
	return uffd_open(e, true);
}

static int signal_start(struct engine *e)
{
	int error = 0;

	(void)e;
	lock_acquire(&users_lock);
	if (users == 0) {
		struct sigaction ours = { .sa_sigaction = on_sigbus,
			                  .sa_flags = SA_SIGINFO | SA_ONSTACK };

		struct sigaction now;

		/* A handler of the program's must not run while an entry is held by its thread. */
		sigfillset(&ours.sa_mask);
		/* In a child of a fork that interrupted this it may be ours already. */
		if (sigaction(SIGBUS, NULL, &now) == 0 &&
		    !((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_sigbus))
			previous = now;
		if (sigaction(SIGBUS, &ours, NULL) != 0)
			error = errno;
	}
	users += error == 0;
	lock_release(&users_lock);
	e->uffd.handler = error ? NULL : e;
	return error ? error_set(error, "SIGBUS handler: %s", strerror(error)) : 0;
}

static void signal_close(struct engine *e)
{
	lock_acquire(&users_lock);
	if (e->uffd.handler && --users == 0) {
		struct sigaction now;

		if (sigaction(SIGBUS, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
		    now.sa_sigaction == on_sigbus)
			sigaction(SIGBUS, &previous, NULL);
	}
	e->uffd.handler = NULL;
	lock_release(&users_lock);
	uffd_close(e);
}

const struct engine_ops engine_uffd_signal = {
	.name = "uffd-signal",
	.in_thread = true,
	.costs =
		"the faulting thread serves its faults; system calls on absent pages fail with EFAULT",
	.open = signal_open,
	.start = signal_start,
	.close = signal_close,
	.attach = uffd_attach,
	.detach = uffd_detach,
	.attach_buffers = uffd_attach_buffers,
	.map = uffd_map,
	.map_zero = uffd_map_zero,
	.place = uffd_place,
	.unprotect = uffd_unprotect,
	.take = uffd_take,
	.drop = uffd_drop,
};
