/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/printing.c - quire_stats_print: each format says something,
 * the JSON is JSON whatever a region is called, errors of the stream come back.
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>

/* A JSON value; => the end of it, or NULL. */
static const char *json(const char *p)
{
	p += strspn(p, " \t\r\n");
	if (*p == '{' || *p == '[') {
		char close = *p == '{' ? '}' : ']';

		p++;
		p += strspn(p, " \t\r\n");
		if (*p == close)
			return p + 1;
		for (;;) {
			if (close == '}') {
				p += strspn(p, " \t\r\n");
				if (*p != '"' || !(p = json(p)))
					return NULL;
				p += strspn(p, " \t\r\n");
				if (*p++ != ':')
					return NULL;
			}
			if (!(p = json(p)))
				return NULL;
			p += strspn(p, " \t\r\n");
			if (*p == close)
				return p + 1;
			if (*p++ != ',')
				return NULL;
		}
	}
	if (*p == '"') {
		for (p++; *p && *p != '"'; p++) {
			if ((unsigned char)*p < ' ')
				return NULL;
			if (*p == '\\' && !*++p)
				return NULL;
		}
		return *p ? p + 1 : NULL;
	}
	if (!strncmp(p, "true", 4) || !strncmp(p, "null", 4))
		return p + 4;
	if (!strncmp(p, "false", 5))
		return p + 5;
	if (*p == '-' || (*p >= '0' && *p <= '9')) {
		char *end;

		strtod(p, &end);
		return end;
	}
	return NULL;
}

static char *printed(const quire_t *q, int format)
{
	char *text = NULL;
	size_t length = 0;
	FILE *f = open_memstream(&text, &length);

	MUST(f != NULL);
	CHECK_EQ(quire_stats_print(q, f, format), 0);
	fclose(f);
	return text;
}

static void printing(void)
{
	struct quire_region_options o = { .size = sizeof o, .name = "odd \"name\"\\\n\t{" };
	quire_t *q = pager_open(MIB);
	quire_region_t *r;
	const char *end;
	char *text;
	FILE *f;

	REQUIRE_EQ(quire_region_create(q, 4 * MIB, &o, &r), 0);
	region_create(q, MIB);
	fill(r, 0, 1024, 1);
	text = printed(q, QUIRE_FORMAT_JSON);
	end = json(text);
	CHECK(end != NULL && end[strspn(end, " \t\r\n")] == '\0');
	if (!end)
		printf("not JSON: %s\n", text);
	CHECK(contains(text, "minor_faults"));
	free(text);
	text = printed(q, QUIRE_FORMAT_PMAP);
	CHECK(strlen(text) > 40 && strchr(text, '\n'));
	free(text);
	text = printed(q, QUIRE_FORMAT_STATUS);
	CHECK(strlen(text) > 40 && strchr(text, ':'));
	free(text);
	CHECK_EQ(quire_stats_print(q, stdout, 3), -EINVAL);
	CHECK_EQ(quire_stats_print(q, stdout, -1), -EINVAL);
	f = fopen("/dev/full", "w");
	REQUIRE(f != NULL);
	setvbuf(f, NULL, _IONBF, 0);
	CHECK_EQ(quire_stats_print(q, f, QUIRE_FORMAT_STATUS), -EIO);
	fclose(f);
	CHECK_EQ(quire_close(q), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(printing), UNIT_END };

	return unit_main(argc, argv, "printing", tests);
}
