/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "guarded.h"

#include <fcntl.h>
#include <string.h>

struct guarded guarded;

void open_guarded(void)
{
	struct quire_options o = { .size = sizeof o, .memory = QUIRE_MEMORY_MIN, .guard = "on" };

	guarded.pager = pager_open_options(&o);
	guarded.region = region_create(guarded.pager, PAGES * PAGE);
	guarded.base = quire_region_base(guarded.region);
	guarded.used = 0;
}

void close_guarded(void)
{
	CHECK_EQ(pager_stats(guarded.pager).pinned, 0);
	CHECK_EQ(quire_close(guarded.pager), 0);
}

void *room(size_t bytes)
{
	size_t at = (guarded.used + PAGE - 1) / PAGE * PAGE + PAGE;

	at -= bytes < 2 * PAGE ? bytes / 2 / 8 * 8 : 0;
	guarded.used = at + bytes;
	MUST(guarded.used < CROWD * PAGE);
	return guarded.base + at;
}

char *room_for(const char *text)
{
	return strcpy(room(strlen(text) + 1), text);
}

void away(void)
{
	size_t pages = guarded.used / PAGE + 1;

	for (int i = 0; i < 200; i++) {
		MUST(quire_advise(guarded.region, 0, pages * PAGE, QUIRE_ADVISE_COLD) == 0);
		for (size_t k = 0; k < CROWD_PAGES; k++)
			guarded.base[(CROWD + k) * PAGE] = (char)i;
		if (mapped(guarded.region, 0, pages) == 0)
			return;
	}
	MUST(!"the pages stay");
}

void bytes(char *p, size_t n, unsigned key)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (char)((i * 7 + i / 251) ^ key);
}

bool are_bytes(const char *p, size_t n, size_t from, unsigned key)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != (char)(((i + from) * 7 + (i + from) / 251) ^ key))
			return false;
	return true;
}

int open_file(void)
{
	int fd = open(path_in(temporary_directory(), "file"), O_RDWR | O_CREAT | O_TRUNC, 0600);

	MUST(fd >= 0);
	return fd;
}
