/* SPDX-License-Identifier: MIT */
/*
 * base/cpu.c - see cpu.h. A quota is of a period, both in microseconds:
 *
 *   v2  cpu.max: "max 100000" or "50000 100000"
 *   v1  cpu.cfs_quota_us (-1: none), cpu.cfs_period_us
 */
#include "base/cpu.h"

#include <sched.h>
#include <stdlib.h>

static bool below(long long quota, long long period, int cpus)
{
	return quota > 0 && period > 0 && quota / period < cpus;
}

/* Does that cgroup have a quota that caps? */
static bool is_capped(const char *directory, int version, void *arg)
{
	int cpus = *(int *)arg;
	char quota[64], period[32], *end;
	long long microseconds;

	if (version == 1)
		return cgroup_read(directory, "cpu.cfs_quota_us", quota, sizeof quota) &&
		       cgroup_read(directory, "cpu.cfs_period_us", period, sizeof period) &&
		       below(strtoll(quota, NULL, 10), strtoll(period, NULL, 10), cpus);
	if (!cgroup_read(directory, "cpu.max", quota, sizeof quota))
		return false;
	microseconds = strtoll(quota, &end, 10);
	return end != quota && below(microseconds, strtoll(end, NULL, 10), cpus);
}

bool cpu_is_capped_in(const struct cgroup_tree *tree, int cpus)
{
	return cgroup_each(tree, "cpu", is_capped, &cpus);
}

unsigned cpu_count(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

bool cpu_is_capped(void)
{
	return cpu_is_capped_in(&cgroup_here, (int)cpu_count());
}
