/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/printing.c - quire_stats_print: each format says something,
 * the JSON is JSON and the table a line a region whatever a region is called,
 * errors of the stream come back.
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
	CHECK_EQ(quire_close(q), 0);
}

/* Whether the stream writes at once or holds all of it back. */
static void full_stream(void)
{
	static char room[1 << 16];
	quire_t *q = pager_open(MIB);

	for (int format = QUIRE_FORMAT_PMAP; format <= QUIRE_FORMAT_JSON; format++) {
		FILE *f = fopen("/dev/full", "w");

		REQUIRE(f != NULL);
		setvbuf(f, NULL, _IONBF, 0);
		CHECK_EQ(quire_stats_print(q, f, format), -EIO);
		fclose(f);
		f = fopen("/dev/full", "w");
		REQUIRE(f != NULL);
		setvbuf(f, room, _IOFBF, sizeof room);
		CHECK_EQ(quire_stats_print(q, f, format), -EIO);
		CHECK(contains(quire_error_message(), strerror(ENOSPC)));
		fclose(f);
	}
	CHECK_EQ(quire_close(q), 0);
}

static unsigned lines(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void names(void)
{
	static const struct {
		const char *name, *in_text, *in_json;
	} odd[] = {
		{ "plain name", "plain name", "plain name" },
		{ "a\nb\tc\033[2J", "a\\012b\\011c\\033[2J", "a\\u000ab\\u0009c\\u001b[2J" },
		{ "quote\" back\\", "quote\" back\\134", "quote\\\" back\\\\" },
		{ "delete\177", "delete\\177", "delete\\u007f" },
		/* UTF-8 of two, three and four bytes; a control character among them */
		{ "\303\251 \342\202\254 \360\237\220\212",
		  "\303\251 \342\202\254 \360\237\220\212",
		  "\303\251 \342\202\254 \360\237\220\212" },
		{ "\302\233H", "\\302\\233H", "\\u009bH" },
		/* no UTF-8: a continuation alone, a character cut short, one written too long, */
		{ "x\251y", "x\\251y", "x\\ufffdy" },
		{ "x\342\202", "x\\342\\202", "x\\ufffd\\ufffd" },
		{ "\300\257", "\\300\\257", "\\ufffd\\ufffd" },
		/* half of a pair, beyond the last character, no such byte */
		{ "\355\240\200", "\\355\\240\\200", "\\ufffd\\ufffd\\ufffd" },
		{ "\364\220\200\200", "\\364\\220\\200\\200", "\\ufffd\\ufffd\\ufffd\\ufffd" },
		{ "\377", "\\377", "\\ufffd" },
	};
	quire_t *q = pager_open(MIB);

	for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
		struct quire_region_options o = { .size = sizeof o, .name = odd[i].name };
		char expected[100], *text;
		quire_region_t *r;

		REQUIRE_EQ(quire_region_create(q, MIB, &o, &r), 0);
		text = printed(q, QUIRE_FORMAT_PMAP);
		snprintf(expected, sizeof expected, "  %s\ntotal", odd[i].in_text);
		CHECK(contains(text, expected));
		CHECK_EQ(lines(text), 3);
		free(text);
		text = printed(q, QUIRE_FORMAT_JSON);
		snprintf(expected, sizeof expected, "\"name\":\"%s\",", odd[i].in_json);
		CHECK(contains(text, expected));
		CHECK(json(text) != NULL);
		CHECK_EQ(lines(text), 1);
		free(text);
		CHECK_EQ(quire_region_destroy(r), 0);
	}
	CHECK_EQ(quire_close(q), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(printing), UNIT(full_stream), UNIT(names),
		                                  UNIT_END };

	return unit_main(argc, argv, "printing", tests);
}
