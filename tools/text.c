/* SPDX-License-Identifier: MIT */
/* tools/text.c - strings that come from anywhere, printed; see tool.h. */
#include "tool.h"

/* The character at s in UTF-8, in its shortest form. => its bytes; 0: what is there is none */
static unsigned utf8_bytes(const unsigned char *s)
{
	unsigned n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (s[0] > 0xf4)
		return 0;
	for (unsigned i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* Longer than need be, surrogates, and beyond U+10FFFF. */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

/* So that no terminal takes it for a command: C0, DEL, and C1 in UTF-8. */
static bool is_control(const unsigned char *s)
{
	return s[0] < ' ' || s[0] == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0);
}

void json_string(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	putchar('"');
	while (*s) {
		unsigned n = utf8_bytes(s);

		if (n == 0)
			fputs("\\ufffd", stdout);
		else if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if (is_control(s))
			printf("\\u%04x", s[n - 1]);
		else
			fwrite(s, 1, n, stdout);
		s += n ? n : 1;
	}
	putchar('"');
}

void print_plain(FILE *f, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	while (*s) {
		unsigned n = utf8_bytes(s);

		if (n == 0 || is_control(s) || *s == '\\')
			for (unsigned i = 0; i < (n ? n : 1); i++)
				fprintf(f, "\\%03o", s[i]);
		else
			fwrite(s, 1, n, f);
		s += n ? n : 1;
	}
}
