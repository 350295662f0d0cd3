/* SPDX-License-Identifier: MIT */
/*
 * base/error.h - words for the last failed call of a thread.
 *
 * Only public calls set one; nothing on a fault path does.
 */
#ifndef QUIRE_BASE_ERROR_H
#define QUIRE_BASE_ERROR_H

#include <stdarg.h>

/* Keep the words for this thread. => -error, so that a caller can return it */
int error_set(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

int error_set_list(int error, const char *format, va_list args)
	__attribute__((format(printf, 2, 0)));

/* Never NULL. */
const char *error_message(void);

#endif
