/* SPDX-License-Identifier: MIT */
/* base/descriptor.h - descriptors that we could do without. */
#ifndef QUIRE_BASE_DESCRIPTOR_H
#define QUIRE_BASE_DESCRIPTOR_H

#include <stdbool.h>

/* fd was just opened: is there room for the program's own above it, as RLIMIT_NOFILE is now? */
bool descriptor_to_spare(int fd);

#endif
