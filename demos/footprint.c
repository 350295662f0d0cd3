/* SPDX-License-Identifier: MIT */
/* demos/footprint.c - the memory of a process; see footprint.h. */
#define _GNU_SOURCE
#include "footprint.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bytes in the line that begins with the name. */
static uint64_t value_of(const char *text, const char *name)
{
	const char *line = strstr(text, name);

	return line ? strtoull(line + strlen(name), NULL, 10) * 1024 : 0;
}

struct footprint footprint_of(pid_t pid)
{
	struct footprint f = { 0 };
	char path[64], text[2048];
	ssize_t got;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return f;
	got = read(fd, text, sizeof text - 1);
	close(fd);
	if (got <= 0)
		return f;
	text[got] = 0;
	f.share = value_of(text, "\nPss:");
	f.private = value_of(text, "\nPrivate_Clean:") + value_of(text, "\nPrivate_Dirty:");
	return f;
}
