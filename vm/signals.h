/* SPDX-License-Identifier: MIT */
/*
 * vm/signals.h - faults that come as a signal to the faulting thread, which serves
 * them itself: SIGBUS (uffd-signal) and SIGSEGV (sigsegv).
 *
 * A handler is one for the process, installed with the first engine that answers
 * by its signal and taken away with the last, if it is still ours. What is not a
 * page of ours goes to the handler that was there before, or to the default
 * action at the faulting instruction. What is the guard's copying (guard/copy.c) ends
 * that.
 */
#ifndef QUIRE_VM_SIGNALS_H
#define QUIRE_VM_SIGNALS_H

/* => 0, or -errno with words set */
int signals_start(int number);
void signals_stop(int number);

#endif
