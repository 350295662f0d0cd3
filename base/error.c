/* SPDX-License-Identifier: MIT */
/* base/error.c - the last failure's words, one buffer a thread. */
#include "base/error.h"

#include <stdio.h>

static __thread char message[512];

int error_set_list(int error, const char *format, va_list args)
{
	vsnprintf(message, sizeof message, format, args);
	return -error;
}

int error_set(int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	error_set_list(error, format, args);
	va_end(args);
	return -error;
}

const char *error_message(void)
{
	return message;
}
