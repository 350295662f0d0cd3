/* SPDX-License-Identifier: MIT */
/*
 * base/error.h - words for the last failed call of a thread.
 *
 * Only public calls set one; nothing on a fault path does.
 */
#ifndef QUIRE_BASE_ERROR_H
#define QUIRE_BASE_ERROR_H

/* Keep the words for this thread. => -error, so that a caller can return it */
int error_set(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Never NULL. */
const char *error_message(void);

#endif
