/* SPDX-License-Identifier: MIT */
/*
 * base/presence.h - is a process still there? As long as it holds a lock.
 *
 * The lock is on a byte of a file, and is an open file description's (fcntl(2) F_OFD_SETLK): the
 * kernel drops it when the last descriptor of that is closed, as when a process ends, or executes
 * another program. So whoever forks makes a description for the child, with its lock, before there
 * is a child, and closes his own descriptor of it afterwards. All calls are async-signal-safe.
 */
#ifndef QUIRE_BASE_PRESENCE_H
#define QUIRE_BASE_PRESENCE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A descriptor by which the next can be done though /proc is out of sight later (chroot(2)).
 * => -errno: there is none
 */
int presence_begin(void);
/* Another description of the same file. proc: of presence_begin; -1: look now. => descriptor, or -errno */
int presence_describe(int proc, int fd);
/* => 0 or -errno */
int presence_take(int fd, uint32_t byte);
/* Does any other description have it? false also where that cannot be told */
bool presence_is_free(int fd, uint32_t byte);

#endif
