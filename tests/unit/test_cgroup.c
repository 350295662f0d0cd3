/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_cgroup.c - limits by cgroup (base/cgroup.c, base/cpu.c), on file trees
 * made for it.
 */
#include "base/cgroup.h"
#include "base/cpu.h"
#include "tests/unit/unit.h"

#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <unistd.h>

static char top[] = "/tmp/quire-test-cgroup-XXXXXX";

static void run(const char *format, ...)
{
	char command[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof command, format, args);
	va_end(args);
	REQUIRE_EQ(system(command), 0);
}

/* Text into a file below top, its directories made. */
static void put(const char *name, const char *text)
{
	run("mkdir -p \"$(dirname '%s/%s')\" && printf -- '%s' > '%s/%s'", top, name, text, top,
	    name);
}

static const struct cgroup_tree *tree(void)
{
	static char names[PATH_MAX], mount[PATH_MAX];
	static const struct cgroup_tree t = { names, mount };

	snprintf(names, sizeof names, "%s/cgroup", top);
	snprintf(mount, sizeof mount, "%s/fs", top);
	return &t;
}

static bool capped(int cpus)
{
	return cpu_is_capped_in(tree(), cpus);
}

static void begin(const char *cgroup)
{
	run("rm -rf '%s'/*", top);
	put("cgroup", cgroup);
}

static void nothing_known(void)
{
	run("rm -rf '%s'/*", top);
	CHECK(!capped(2));
	begin("0::/a\\n");
	CHECK(!capped(2));
	begin("nonsense\\n4:cpu\\n:::\\n");
	CHECK(!capped(2));
}

static void version_2(void)
{
	begin("0::/a/b\\n");
	put("fs/a/b/cpu.max", "max 100000\\n");
	CHECK(!capped(2));
	put("fs/a/b/cpu.max", "50000 100000\\n");
	CHECK(capped(2));
	put("fs/a/b/cpu.max", "200000 100000\\n");
	CHECK(!capped(2));
	CHECK(capped(3));
	put("fs/a/b/cpu.max", "150000 100000\\n");
	CHECK(capped(2));
	put("fs/a/b/cpu.max", "junk\\n");
	CHECK(!capped(2));
}

static void a_cgroup_above(void)
{
	begin("0::/a/b\\n");
	put("fs/a/b/cpu.max", "max 100000\\n");
	put("fs/a/cpu.max", "50000 100000\\n");
	CHECK(capped(2));
	/* In a container: the name is the host's, the mount begins at our own. */
	begin("0::/host/names/this\\n");
	put("fs/cpu.max", "50000 100000\\n");
	CHECK(capped(2));
}

static void version_1(void)
{
	begin("5:memory:/m\\n4:cpuacct,cpu:/c\\n3:cpuset:/s\\n0::/\\n");
	put("fs/cpu/c/cpu.cfs_period_us", "100000\\n");
	put("fs/cpu/c/cpu.cfs_quota_us", "-1\\n");
	CHECK(!capped(2));
	put("fs/cpu/c/cpu.cfs_quota_us", "100000\\n");
	CHECK(capped(2));
	CHECK(!capped(1));
	/* Of the cpuset hierarchy there is no quota. */
	begin("3:cpuset:/c\\n");
	put("fs/cpu/c/cpu.cfs_period_us", "100000\\n");
	put("fs/cpu/c/cpu.cfs_quota_us", "100000\\n");
	CHECK(!capped(2));
}

static void memory(void)
{
	begin("0::/a/b\\n");
	CHECK(cgroup_memory(tree()) == UINT64_MAX);
	put("fs/a/b/memory.max", "max\\n");
	CHECK(cgroup_memory(tree()) == UINT64_MAX);
	put("fs/a/memory.max", "1000000\\n");
	CHECK_EQ(cgroup_memory(tree()), 1000000);
	put("fs/a/b/memory.max", "2000000\\n");
	CHECK_EQ(cgroup_memory(tree()), 1000000);
	put("fs/a/b/memory.high", "300000\\n");
	CHECK_EQ(cgroup_memory(tree()), 300000);
	begin("5:memory:/m\\n4:cpuacct,cpu:/c\\n0::/\\n");
	put("fs/memory/m/memory.limit_in_bytes", "9223372036854771712\\n");
	CHECK(cgroup_memory(tree()) == UINT64_MAX);
	put("fs/memory/memory.limit_in_bytes", "4096000\\n");
	CHECK_EQ(cgroup_memory(tree()), 4096000);
	put("fs/memory/m/memory.limit_in_bytes", "junk\\n");
	CHECK_EQ(cgroup_memory(tree()), 4096000);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(nothing_known), UNIT(version_2), UNIT(a_cgroup_above),
		UNIT(version_1),     UNIT(memory),    UNIT_END,
	};
	char clean[64];
	int status;

	if (!mkdtemp(top))
		unit_skip_all("no directory can be made in /tmp");
	status = unit_main(argc, argv, "cgroup", tests);
	snprintf(clean, sizeof clean, "rm -rf '%s'", top);
	return system(clean) == 0 ? status : 1;
}
