/* SPDX-License-Identifier: MIT */
/* tools/system.c - facts about the machine and the container, from files; see tool.h. */
#define _GNU_SOURCE
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* The first line of a file. => false: it cannot be read */
static bool read_line(const char *path, char *out, size_t size)
{
	FILE *f = fopen(path, "re");
	bool got = f && fgets(out, (int)size, f);

	if (f)
		fclose(f);
	if (got)
		out[strcspn(out, "\n")] = '\0';
	return got;
}

/* Where a hierarchy is mounted: cgroup2, or the one of version 1 with that controller. */
static bool mount_of(const char *controller, char *out, size_t size)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	struct mntent *e;
	bool found = false;

	while (f && !found && (e = getmntent(f))) {
		found = controller ? !strcmp(e->mnt_type, "cgroup") && hasmntopt(e, controller) :
		                     !strcmp(e->mnt_type, "cgroup2");
		if (found)
			snprintf(out, size, "%s", e->mnt_dir);
	}
	if (f)
		endmntent(f);
	return found;
}

/* Our cgroup in it, as /proc/self/cgroup names it. */
static bool path_of(const char *controller, char *out, size_t size)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[1024];
	bool found = false;

	while (f && !found && fgets(line, sizeof line, f)) {
		char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = '\0';
		path[strcspn(path, "\n")] = '\0';
		names++;
		found = controller ? strstr(names, controller) != NULL : *names == '\0';
		if (found)
			snprintf(out, size, "%s", path);
	}
	if (f)
		fclose(f);
	return found;
}

/*
 * Call look with each directory from our cgroup up to the mount. In a container the name may be
 * the host's, of which there is nothing here but the mount itself.
 */
static void each_cgroup(const char *controller, void (*look)(struct limits *, const char *),
                        struct limits *l)
{
	char mount[512], path[1024], whole[1600], *end;

	if (!mount_of(controller, mount, sizeof mount) || !path_of(controller, path, sizeof path))
		return;
	for (;;) {
		snprintf(whole, sizeof whole, "%s%s", mount, strcmp(path, "/") ? path : "");
		look(l, whole);
		end = strrchr(path, '/');
		if (!end || path[1] == '\0')
			return;
		end[end == path] = '\0';
	}
}

static void look_memory(struct limits *l, const char *directory)
{
	static const char *const names[] = { "memory.max", "memory.high", "memory.limit_in_bytes" };

	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		char file[1700], text[64], *end;
		uint64_t bytes;

		snprintf(file, sizeof file, "%s/%s", directory, names[i]);
		if (!read_line(file, text, sizeof text))
			continue;
		bytes = strtoull(text, &end, 10);
		/* "max", and what version 1 says for it. */
		if (end == text || bytes >= UINT64_MAX / 4 || bytes >= l->cgroup_memory)
			continue;
		l->cgroup_memory = bytes;
		snprintf(l->cgroup_file, sizeof l->cgroup_file, "%.500s", file);
	}
}

static void look_cpu(struct limits *l, const char *directory)
{
	char file[1700], text[64];
	double quota = 0, period = 0;

	snprintf(file, sizeof file, "%s/cpu.max", directory);
	if (read_line(file, text, sizeof text)) {
		if (sscanf(text, "%lf %lf", &quota, &period) != 2)
			return;
	} else {
		snprintf(file, sizeof file, "%s/cpu.cfs_quota_us", directory);
		if (!read_line(file, text, sizeof text))
			return;
		quota = atof(text);
		snprintf(file, sizeof file, "%s/cpu.cfs_period_us", directory);
		if (!read_line(file, text, sizeof text))
			return;
		period = atof(text);
	}
	if (quota > 0 && period > 0 && (l->cpus == 0 || quota / period < l->cpus))
		l->cpus = quota / period;
}

static void read_status(struct limits *l)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	unsigned long long bits;

	l->seccomp = -1;
	while (f && fgets(line, sizeof line, f)) {
		if (sscanf(line, "Seccomp: %d", &l->seccomp) == 1)
			continue;
		if (sscanf(line, "CapEff: %llx", &bits) == 1)
			l->capabilities = bits;
	}
	if (f)
		fclose(f);
}

static uint64_t limit_of(int which)
{
	struct rlimit r;

	return getrlimit(which, &r) == 0 && r.rlim_cur != RLIM_INFINITY ? r.rlim_cur : UINT64_MAX;
}

void limits_read(struct limits *l)
{
	struct sysinfo i;

	memset(l, 0, sizeof *l);
	l->cgroup_memory = UINT64_MAX;
	if (sysinfo(&i) == 0) {
		l->memory = (uint64_t)i.totalram * i.mem_unit;
		l->kernel_swap = (uint64_t)i.totalswap * i.mem_unit;
	}
	l->processors = (unsigned)get_nprocs();
	each_cgroup(NULL, look_memory, l);
	each_cgroup("memory", look_memory, l);
	each_cgroup(NULL, look_cpu, l);
	each_cgroup("cpu", look_cpu, l);
	l->address_space = limit_of(RLIMIT_AS);
	l->file_size = limit_of(RLIMIT_FSIZE);
	l->locked_memory = limit_of(RLIMIT_MEMLOCK);
	l->descriptors = limit_of(RLIMIT_NOFILE);
	read_status(l);
}

/* --------------------------------------------------------- the swap file */

static bool usable(const char *directory)
{
	struct stat st;

	return directory && *directory && stat(directory, &st) == 0 && S_ISDIR(st.st_mode) &&
	       access(directory, W_OK | X_OK) == 0;
}

/* As quire.h says of swap_path. */
static const char *choose_place(const char *path)
{
	const char *environment = getenv("QUIRE_SWAP"), *tmp = getenv("TMPDIR");

	if (path)
		return path;
	if (environment && *environment)
		return environment;
	return usable(tmp) ? tmp : usable("/var/tmp") ? "/var/tmp" : "/tmp";
}

/* The type of the file system that holds path: of the longest mount point that it begins with. */
static void type_of(const char *path, char *out, size_t size)
{
	char *real = realpath(path, NULL);
	FILE *f = setmntent("/proc/self/mounts", "re");
	struct mntent *e;
	size_t best = 0;

	snprintf(out, size, "unknown");
	while (f && real && (e = getmntent(f))) {
		size_t n = strlen(e->mnt_dir);
		bool root = n == 1;

		if (n < best || strncmp(real, e->mnt_dir, n) != 0 ||
		    !(root || real[n] == '/' || real[n] == '\0'))
			continue;
		best = n;
		snprintf(out, size, "%s", e->mnt_type);
	}
	if (f)
		endmntent(f);
	free(real);
}

/* An unnamed file there, or one that is removed at once. */
static int try_file(const char *directory, int flags)
{
	char name[600];
	int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
		return fd;
	snprintf(name, sizeof name, "%s/quire-doctor-XXXXXX", directory);
	fd = mkostemp(name, O_CLOEXEC | flags);
	if (fd >= 0)
		unlink(name);
	return fd;
}

void swap_place_read(struct swap_place *s, const char *path)
{
	char directory[512];
	struct statvfs v;
	struct stat st;
	int fd;

	memset(s, 0, sizeof *s);
	snprintf(s->path, sizeof s->path, "%s", choose_place(path));
	snprintf(directory, sizeof directory, "%s", s->path);
	/* A named file: what is said is of the directory that it is in. */
	if (stat(directory, &st) != 0 || !S_ISDIR(st.st_mode)) {
		char *slash = strrchr(directory, '/');

		if (slash)
			slash[slash == directory] = '\0';
		else
			snprintf(directory, sizeof directory, ".");
	}
	type_of(directory, s->type, sizeof s->type);
	s->in_memory = !strcmp(s->type, "tmpfs") || !strcmp(s->type, "ramfs");
	if (statvfs(directory, &v) == 0)
		s->free = (uint64_t)v.f_bavail * v.f_frsize;
	fd = try_file(directory, 0);
	s->error = fd < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	fd = try_file(directory, O_DIRECT);
	s->direct = fd < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
}
