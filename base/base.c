/* SPDX-License-Identifier: MIT */
/*
 * base/base.c - the end of a broken assertion: words on stderr without stdio
 * (we may be in a signal handler, and the program may be inside its malloc).
 */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put(const char *s)
{
	ssize_t n = write(STDERR_FILENO, s, strlen(s));

	(void)n;
}

void assert_failed(const char *file, int line, const char *expression)
{
	char digits[12];
	char *d = digits + sizeof digits;

	*--d = '\0';
	do
		*--d = (char)('0' + line % 10);
	while ((line /= 10) != 0);
	put("quire: assertion failed: ");
	put(file);
	put(":");
	put(d);
	put(": ");
	put(expression);
	put("\n");
	abort();
}
