/* SPDX-License-Identifier: MIT */
/*
 * base/cgroup.h - the cgroups that this process is in, and those above them, of either
 * version: each may have a limit, and all hold. Reads files: not for fault paths.
 */
#ifndef QUIRE_BASE_CGROUP_H
#define QUIRE_BASE_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where to look. */
struct cgroup_tree {
	const char *names; /* a file as /proc/self/cgroup */
	const char *mount; /* a directory as /sys/fs/cgroup */
};

extern const struct cgroup_tree cgroup_here;

/* version: 1 or 2. => true: that is enough */
typedef bool (*cgroup_visit)(const char *directory, int version, void *arg);

/* Visit the directories that limit what the controller counts ("cpu", "memory"). => as visit */
bool cgroup_each(const struct cgroup_tree *tree, const char *controller, cgroup_visit visit,
                 void *arg);
/* A small file of that directory, as a string. => false: it cannot be read */
bool cgroup_read(const char *directory, const char *name, char *out, size_t size);

/* The least memory limit, in bytes; UINT64_MAX: there is none. */
uint64_t cgroup_memory(const struct cgroup_tree *tree);

#endif
