/* SPDX-License-Identifier: MIT */
/* base/chain.c - see chain.h. */
#include "base/chain.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

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
	return sigaction(c->number, &ours, NULL) == 0 ? 0 : errno;
}

void chain_remove(struct chain *c)
{
	struct sigaction now;

	if (sigaction(c->number, NULL, &now) == 0 && is_ours(c, &now))
		sigaction(c->number, &c->previous, NULL);
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
	struct sigaction old = c->previous;
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
	if (old.sa_flags & SA_RESETHAND)
		c->previous = (struct sigaction){ .sa_handler = SIG_DFL };
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
