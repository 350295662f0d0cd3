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
 * Another description of the same file. => descriptor, or -errno: without /proc there is none. (A descriptor of
 * that is not kept for later: it would be a way out of chroot(2).)
 */
int presence_describe(int fd);
/* => 0 or -errno */
int presence_take(int fd, uint32_t byte);
/* Does any other description have it? false also where that cannot be told */
bool presence_is_free(int fd, uint32_t byte);

#endif
