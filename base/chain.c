/* SPDX-License-Identifier: MIT */
/* base/chain.c - see chain.h. */
#include "base/chain.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* By signal, while ours is installed. */
static struct chain *_Atomic installed[65];

/* A handler reads while another thread changes: it reads again. (A seqlock.) */
static struct sigaction read_previous(struct chain *c)
{
	struct sigaction copy;
	uint32_t before;

	do {
		while ((before = atomic_load(&c->changes)) & 1)
			sched_yield();
		copy = c->previous;
		atomic_thread_fence(memory_order_acquire);
	} while (atomic_load(&c->changes) != before);
	return copy;
}

static void write_previous(struct chain *c, const struct sigaction *new)
{
	uint64_t all = ~UINT64_C(0), before;
	uint32_t even;

	/* A handler of this thread would wait for it. */
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before, (size_t)8);
	do
		even = atomic_load(&c->changes) & ~UINT32_C(1);
	while (!atomic_compare_exchange_weak(&c->changes, &even, even + 1));
	c->previous = *new;
	atomic_store(&c->changes, even + 2);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, (size_t)8);
}

bool chain_action(int number, const struct sigaction *new, struct sigaction *old)
{
	struct chain *c = number > 0 && number < 65 ? atomic_load(&installed[number]) : NULL;
	struct sigaction copy;

	if (!c)
		return false;
	if (new)
		copy = *new;
	if (old)
		*old = read_previous(c);
	if (new)
		write_previous(c, &copy);
	return true;
}

static bool is_ours(const struct chain *c, const struct sigaction *a)
{
	return (a->sa_flags & SA_SIGINFO) && a->sa_sigaction == c->ours;
}

int chain_install(struct chain *c, int flags, const sigset_t *mask)
{
	struct sigaction ours = { .sa_sigaction = c->ours,
		                  .sa_flags = SA_SIGINFO | SA_ONSTACK | flags };
	struct sigaction now;

	if (mask)
		ours.sa_mask = *mask;
	else
		sigemptyset(&ours.sa_mask);
	/* In a child of a fork that interrupted this it may be ours already. */
	if (sigaction(c->number, NULL, &now) == 0 && !is_ours(c, &now))
		c->previous = now;
	if (sigaction(c->number, &ours, NULL) != 0)
		return errno;
	atomic_store(&installed[c->number], c);
	return 0;
}

void chain_remove(struct chain *c)
{
	struct sigaction now, previous = read_previous(c);

	atomic_store(&installed[c->number], NULL);
	if (sigaction(c->number, NULL, &now) == 0 && is_ours(c, &now))
		sigaction(c->number, &previous, NULL);
}

void chain_all(sigset_t *set)
{
	memset(set, 0xff, sizeof *set);
}

void chain_default(int number)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };

	sigaction(number, &dfl, NULL);
}

/*
 * With the mask that the kernel would have set, and once only where the handler
 * asked for that. (Its stack is ours: the alternate one, if the thread has any.)
 */
void chain_pass_on(struct chain *c, siginfo_t *info, void *context)
{
	struct sigaction old = read_previous(c);
	sigset_t mask = ((ucontext_t *)context)->uc_sigmask;

	if (!(old.sa_flags & SA_SIGINFO) &&
	    (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN)) {
		if (info->si_code <= 0 && old.sa_handler == SIG_IGN)
			return;
		/* A fault comes again when we return, and kills with the right address. */
		chain_default(c->number);
		if (info->si_code <= 0)
			syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), c->number);
		return;
	}
	if (old.sa_flags & SA_RESETHAND) {
		struct sigaction dfl = { .sa_handler = SIG_DFL };

		write_previous(c, &dfl);
	}
	if (!(old.sa_flags & SA_NODEFER))
		sigaddset(&mask, c->number);
	for (int i = 1; i < 65; i++)
		if (sigismember(&old.sa_mask, i) == 1)
			sigaddset(&mask, i);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, (size_t)8);
	if (old.sa_flags & SA_SIGINFO)
		old.sa_sigaction(c->number, info, context);
	else
		old.sa_handler(c->number);
}
