/* SPDX-License-Identifier: MIT */
/*
 * base/chain.h - a signal handler of ours in front of the program's.
 *
 * What is not for us goes to the handler that was there before, as if we had not
 * been there; or to the default action, where the signal comes again.
 */
#ifndef QUIRE_BASE_CHAIN_H
#define QUIRE_BASE_CHAIN_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

typedef void (*chain_handler)(int number, siginfo_t *info, void *context);

struct chain {
	int number;
	chain_handler ours;
	struct sigaction previous; /* written before ours is installed, and under `changes` */
	_Atomic uint32_t changes;  /* odd: somebody writes it */
};

/*
 * Install ours, with SA_SIGINFO | SA_ONSTACK and what flags says; mask NULL: no
 * other signals are blocked. One caller at a time.
 * => 0, or an errno
 */
int chain_install(struct chain *c, int flags, const sigset_t *mask);
/* Put the previous one back, unless somebody has put another there. */
void chain_remove(struct chain *c);
/*
 * As sigaction(2), of what comes after ours: for who stands between the program and that call.
 * => false: no handler of ours is installed for this signal, and nothing was done
 */
bool chain_action(int number, const struct sigaction *new, struct sigaction *old);
/* Within ours. */
void chain_pass_on(struct chain *c, siginfo_t *info, void *context);

/*
 * All signals, those that libc keeps to itself included (sigfillset leaves them out): a thread
 * that is cancelled must not be unwound through ours.
 */
void chain_all(sigset_t *set);

/* To the default action, which ends the process when the signal comes (again). */
void chain_default(int number);

#endif
