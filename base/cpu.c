/* SPDX-License-Identifier: MIT */
/*
 * base/cpu.c - the CPU quota of the cgroups that a process is in.
 *
 * /proc/self/cgroup names the process's cgroup in each hierarchy; its quota,
 * and that of each cgroup above it up to the mount, applies. Inside a container
 * the name may be the host's while the mount begins at the container's own
 * cgroup: names that do not exist are passed over on the way up, and the walk
 * ends at the mount itself.
 *
 *   v2  0::/a/b                 /sys/fs/cgroup/a/b/cpu.max: "max 100000" or "50000 100000"
 *   v1  4:cpu,cpuacct:/a/b      /sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us (-1: none), cpu.cfs_period_us
 */
#include "base/cpu.h"

#include "base/base.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 1024

/* A small file, whole, as a string. => false: it cannot be read */
static bool read_file(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, out, size - 1);
	close(fd);
	if (n < 0)
		return false;
	out[n] = '\0';
	return true;
}

static bool below(long long quota, long long period, int cpus)
{
	return quota > 0 && period > 0 && quota / period < cpus;
}

/* Does the cgroup at this path have a quota that caps? */
static bool capped_v2(const char *path, int cpus)
{
	char file[PATH_BYTES + 32], text[64], *end;
	long long quota;

	snprintf(file, sizeof file, "%s/cpu.max", path);
	if (!read_file(file, text, sizeof text))
		return false;
	quota = strtoll(text, &end, 10);
	return end != text && below(quota, strtoll(end, NULL, 10), cpus);
}

static bool capped_v1(const char *path, int cpus)
{
	char file[PATH_BYTES + 32], quota[32], period[32];

	snprintf(file, sizeof file, "%s/cpu.cfs_quota_us", path);
	if (!read_file(file, quota, sizeof quota))
		return false;
	snprintf(file, sizeof file, "%s/cpu.cfs_period_us", path);
	if (!read_file(file, period, sizeof period))
		return false;
	return below(strtoll(quota, NULL, 10), strtoll(period, NULL, 10), cpus);
}

/* The cgroup and all above it, the mount's own included. */
static bool capped_up_from(const char *mount, const char *name,
                           bool (*capped)(const char *path, int cpus), int cpus)
{
	char path[PATH_BYTES];
	size_t root = strlen(mount);

	if (snprintf(path, sizeof path, "%s%s", mount, name) >= (int)sizeof path)
		path[root] = '\0';
	for (;;) {
		char *slash;

		if (capped(path, cpus))
			return true;
		slash = strrchr(path, '/');
		if (!slash || slash < path + root)
			return false;
		*slash = '\0';
	}
}

/* Is "cpu" one of the names between the colons? */
static bool lists_cpu(const char *names, const char *end)
{
	while (names < end) {
		const char *comma = memchr(names, ',', (size_t)(end - names));
		const char *stop = comma ? comma : end;

		if (stop - names == 3 && memcmp(names, "cpu", 3) == 0)
			return true;
		names = stop + 1;
	}
	return false;
}

bool cpu_is_capped_in(const char *proc_self_cgroup, const char *sys_fs_cgroup, int cpus)
{
	char text[4096], v1[PATH_BYTES], *save = NULL;

	if (!read_file(proc_self_cgroup, text, sizeof text))
		return false;
	snprintf(v1, sizeof v1, "%s/cpu", sys_fs_cgroup);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *names = strchr(line, ':'), *name = names ? strchr(names + 1, ':') : NULL;

		if (!name)
			continue;
		names++;
		if (names == name ?
		            capped_up_from(sys_fs_cgroup, name + 1, capped_v2, cpus) :
		            lists_cpu(names, name) && capped_up_from(v1, name + 1, capped_v1, cpus))
			return true;
	}
	return false;
}

unsigned cpu_count(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

bool cpu_is_capped(void)
{
	return cpu_is_capped_in("/proc/self/cgroup", "/sys/fs/cgroup", (int)cpu_count());
}
