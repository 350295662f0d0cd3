/* SPDX-License-Identifier: MIT */
/* heap/jemalloc.c - see jemalloc.h: its settings. */
#include "heap/jemalloc.h"

#include <errno.h>
#include <sys/types.h>

/*
 * retain:false and a hook that takes nothing back: a freed extent is kept all the same, and joins any
 * neighbour, where retained ones would not across what was got by one call. Requests from 8 MiB up have
 * no arena of their own.
 */
const char *je_malloc_conf = "narenas:1,retain:false,oversize_threshold:0,"
			     "dss:disabled,muzzy_decay_ms:0,tcache_max:32768";

/*
 * A block with pages for itself begins with the first. (5.3.0 has the option, and forgets to read it from
 * the settings: this is its variable, for which that has one, too.)
 */
extern bool je_opt_cache_oblivious;

void je_own_prepare(void)
{
	je_opt_cache_oblivious = false;
}

/* MALLOC_CONF and /etc/malloc.conf are meant for the program's own jemalloc. */
char *je_own_getenv(const char *name)
{
	(void)name;
	return NULL;
}

ssize_t je_own_readlink(const char *path, char *buffer, size_t bytes)
{
	(void)path;
	(void)buffer;
	(void)bytes;
	errno = ENOENT;
	return -1;
}
