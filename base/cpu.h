/* SPDX-License-Identifier: MIT */
/*
 * base/cpu.h - how many CPUs are there for this process, and may it spend their
 * time where that is of use to nobody else?
 */
#ifndef QUIRE_BASE_CPU_H
#define QUIRE_BASE_CPU_H

#include "base/cgroup.h"

#include <stdbool.h>

/* CPUs that this thread may run on, at least 1. */
unsigned cpu_count(void);

/*
 * Is the CPU time of this process capped below what its CPUs would give, by the
 * quota of a cgroup (v1 or v2) or of one above it? Then time that is spent
 * waiting is taken from time for work. Reads files: not for fault paths.
 */
bool cpu_is_capped(void);

/* The same, told of a file tree other than the system's. For tests. */
bool cpu_is_capped_in(const struct cgroup_tree *tree, int cpus);

#endif
