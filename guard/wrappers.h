/* SPDX-License-Identifier: MIT */
/* guard/wrappers.h - between the files that have functions of libc's names. */
#ifndef QUIRE_GUARD_WRAPPERS_H
#define QUIRE_GUARD_WRAPPERS_H

#include "guard/served.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

extern char **environ;

/* A call to be served outside of the handler: as there, signals are blocked but while it is made. */
void wrapper_open(struct served *s);
void wrapper_close(struct served *s);
void wrapper_block(uint64_t *before);
void wrapper_unblock(const struct served *s);

/* The arguments of a function that takes them one by one, first among them, up to NULL. */
size_t count_arguments(va_list list);
void take_arguments(va_list list, const char *first, size_t n, const char **argv);

/* Declares argv, of n; the list is left behind its NULL. */
#define LIST_OF_ARGUMENTS(first, n, list) \
	va_start(list, first);            \
	n = count_arguments(list);        \
	va_end(list);                     \
	const char *argv[n + 1];          \
	va_start(list, first);            \
	take_arguments(list, first, n, argv)

/*
 * The function that tells the unwinder of a frame, if it can be found: in the shared
 * library only (spawn.c).
 */
void *wrapper_unwinder(void) __attribute__((weak));

#endif
