/* SPDX-License-Identifier: MIT */
/* base/descriptor.c - see descriptor.h. */
#include "base/descriptor.h"

#include <sys/resource.h>

/* Descriptors that the program shall be able to open after us. */
#define TO_SPARE 16

bool descriptor_to_spare(int fd)
{
	struct rlimit files;

	return getrlimit(RLIMIT_NOFILE, &files) == 0 && (rlim_t)fd + TO_SPARE < files.rlim_cur;
}
