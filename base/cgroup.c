/* SPDX-License-Identifier: MIT */
/*
 * base/cgroup.c - see cgroup.h.
 *
 * /proc/self/cgroup names the process's cgroup in each hierarchy; its limit, and that of
 * each cgroup above it up to the mount, applies. Inside a container the name may be
 * the host's while the mount begins at the container's own cgroup: names that do
 * not exist are passed over on the way up, and the walk ends at the mount itself.
 *
 *   v2  0::/a/b                 /sys/fs/cgroup/a/b
 *   v1  4:cpu,cpuacct:/a/b      /sys/fs/cgroup/cpu/a/b
 */
#include "base/cgroup.h"

#include "base/base.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 1024

const struct cgroup_tree cgroup_here = { "/proc/self/cgroup", "/sys/fs/cgroup" };

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

bool cgroup_read(const char *directory, const char *name, char *out, size_t size)
{
	char path[PATH_BYTES + 64];

	return snprintf(path, sizeof path, "%s/%s", directory, name) < (int)sizeof path &&
	       read_file(path, out, size);
}

/* The cgroup and all above it, the mount's own included. */
static bool up_from(const char *mount, const char *name, int version, cgroup_visit visit, void *arg)
{
	char path[PATH_BYTES];
	size_t root = strlen(mount);

	if (snprintf(path, sizeof path, "%s%s", mount, name) >= (int)sizeof path)
		path[root] = '\0';
	for (;;) {
		char *slash;

		if (visit(path, version, arg))
			return true;
		slash = strrchr(path, '/');
		if (!slash || slash < path + root)
			return false;
		*slash = '\0';
	}
}

/* Is the controller one of the names between the colons? */
static bool lists(const char *names, const char *end, const char *controller)
{
	size_t length = strlen(controller);

	while (names < end) {
		const char *comma = memchr(names, ',', (size_t)(end - names));
		const char *stop = comma ? comma : end;

		if ((size_t)(stop - names) == length && memcmp(names, controller, length) == 0)
			return true;
		names = stop + 1;
	}
	return false;
}

bool cgroup_each(const struct cgroup_tree *tree, const char *controller, cgroup_visit visit,
                 void *arg)
{
	char text[4096], v1[PATH_BYTES], *save = NULL;

	if (!read_file(tree->names, text, sizeof text))
		return false;
	snprintf(v1, sizeof v1, "%s/%s", tree->mount, controller);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *names = strchr(line, ':'), *name = names ? strchr(names + 1, ':') : NULL;

		if (!name)
			continue;
		names++;
		if (names == name ?
		            up_from(tree->mount, name + 1, 2, visit, arg) :
		            lists(names, name, controller) && up_from(v1, name + 1, 1, visit, arg))
			return true;
	}
	return false;
}

/* "max", or a number of bytes; of version 1 without a limit a very large one. */
static bool look_memory(const char *directory, int version, void *arg)
{
	const char *const names[] = { "memory.max", "memory.high" };
	uint64_t *least = arg;
	char text[64], *end;

	for (int i = 0; i < (version == 2 ? 2 : 1); i++) {
		unsigned long long bytes;

		if (!cgroup_read(directory, version == 2 ? names[i] : "memory.limit_in_bytes", text,
		                 sizeof text))
			continue;
		bytes = strtoull(text, &end, 10);
		if (end != text && bytes < UINT64_MAX / 4)
			*least = MIN(*least, bytes);
	}
	return false;
}

uint64_t cgroup_memory(const struct cgroup_tree *tree)
{
	uint64_t least = UINT64_MAX;

	cgroup_each(tree, "memory", look_memory, &least);
	return least;
}
