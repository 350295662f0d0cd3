/* SPDX-License-Identifier: MIT */
/*
 * demos/apart.h - run something in a process of its own, with a folder for its files; whatever
 * happens to it, by a signal to this one too, the files are removed.
 */
#ifndef QUIRE_DEMO_APART_H
#define QUIRE_DEMO_APART_H

#include <stdbool.h>

/* A new folder in that directory, or where temporary files belong. */
void apart_begin(const char *directory);
const char *apart_directory(void);

/*
 * run(arg) in a child, which then ends with status 0. Files in the folder are removed. => how it
 * ended, as wait(2) has it
 */
int apart_run(void (*run)(void *arg), void *arg);

/* A signal has come that asks us to end: nothing more is to be run. */
bool apart_is_over(void);

/* Remove the folder. Does not return if a signal has come. */
void apart_end(void);

#endif
