/* SPDX-License-Identifier: MIT */
/*
 * vm/print.c - the statistics for people (as pmap -x and /proc/PID/status do)
 * and for programs (JSON). stdio is right here: nobody's fault waits for it.
 */
#include "vm/vm.h"

#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define KIB(bytes) ((bytes) >> 10)

/* The figures of struct quire_stats that are bytes now; the events are COUNTERS. */
#define GAUGES(GAUGE)        \
	GAUGE(budget)        \
	GAUGE(reserved)      \
	GAUGE(resident)      \
	GAUGE(peak_resident) \
	GAUGE(standby)       \
	GAUGE(buffers)       \
	GAUGE(pinned)        \
	GAUGE(swapped)       \
	GAUGE(metadata)

/* ------------------------------------------------------------- names */

/* The character at s in UTF-8, in its shortest form. => its bytes; 0: what is there is none */
static unsigned utf8_character(const unsigned char *s, uint32_t *character)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned n = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (n < 2) {
		*character = s[0];
		return n;
	}
	/* A byte too large leaves bits that are no character's. */
	*character = s[0] & (n == 4 ? 0xfu : 0x7fu >> n);
	for (unsigned i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*character = *character << 6 | (s[i] & 0x3f);
	}
	if (*character < least[n] || *character > 0x10ffff || (*character >> 11) == 0x1b)
		return 0;
	return n;
}

static bool is_control(uint32_t character)
{
	return character < 0x20 || (character >= 0x7f && character < 0xa0);
}

/*
 * A name in a line of text: what would break the line or play on a terminal, and
 * what is no UTF-8, as the kernel writes it in /proc/PID/maps, \012 for a newline;
 * and so the backslash.
 */
static void text_name(FILE *f, const char *name)
{
	const unsigned char *s = (const unsigned char *)name;

	while (*s) {
		uint32_t character;
		unsigned n = utf8_character(s, &character);
		bool raw = n && !is_control(character) && character != '\\';

		for (n = MAX(n, 1); n > 0; n--, s++)
			fprintf(f, raw ? "%c" : "\\%03o", *s);
	}
}

static void json_string(FILE *f, const char *string)
{
	const unsigned char *s = (const unsigned char *)string;

	fputc('"', f);
	while (*s) {
		uint32_t character;
		unsigned n = utf8_character(s, &character);

		if (n == 0)
			fputs("\\ufffd", f);
		else if (is_control(character))
			fprintf(f, "\\u%04x", (unsigned)character);
		else
			fprintf(f, *s == '"' || *s == '\\' ? "\\%.*s" : "%.*s", (int)n,
			        (const char *)s);
		s += MAX(n, 1);
	}
	fputc('"', f);
}

/* ------------------------------------------------------------- text */

static void print_pmap(const struct quire *q, FILE *f)
{
	struct region_figures r;
	struct quire_stats all;

	quire_stats_get(q, &all);
	fprintf(f, "%-16s %12s %10s %10s %10s %10s %9s %9s  %s\n", "Address", "Kbytes", "RSS",
	        "Standby", "Swapped", "Pinned", "Minor", "Major", "Region");
	for (uint32_t id = 1; id <= regions_used(q); id++) {
		const struct quire_stats *s = &r.stats;

		if (!region_figures(q, id, &r))
			continue;
		fprintf(f,
		        "%016" PRIxPTR " %12" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64
		        " %10" PRIu64 " %9" PRIu64 " %9" PRIu64 "  ",
		        (uintptr_t)r.base, KIB(s->reserved), KIB(s->resident), KIB(s->standby),
		        KIB(s->swapped), KIB(s->pinned), s->minor_faults, s->major_faults);
		text_name(f, r.name);
		fputc('\n', f);
	}
	fprintf(f,
	        "%-16s %12" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64
	        " %9" PRIu64 " %9" PRIu64 "\n",
	        "total kB", KIB(all.reserved), KIB(all.resident), KIB(all.standby),
	        KIB(all.swapped), KIB(all.pinned), all.minor_faults, all.major_faults);
}

static void print_latency(FILE *f, const char *name, const struct quire_latency *l)
{
	fprintf(f,
	        "%-20s %10" PRIu64 " faults, us: mean %.1f p50 %.1f p99 %.1f p99.9 %.1f max %.1f\n",
	        name, l->count, (double)l->mean / 1e3, (double)l->p50 / 1e3, (double)l->p99 / 1e3,
	        (double)l->p999 / 1e3, (double)l->max / 1e3);
}

static void print_sizes(FILE *f, const struct quire_stats *s)
{
	const char *comma = "";

	fprintf(f, "%-20s", "writeback_sizes:");
	for (unsigned i = 0; i < WRITEBACK_BUCKETS; i++) {
		if (!s->writeback_sizes[i])
			continue;
		fprintf(f, "%s %u", comma, 1u << i);
		if (i)
			fprintf(f, "-%u", (2u << i) - 1);
		fprintf(f, " page%s: %" PRIu64, i ? "s" : "", s->writeback_sizes[i]);
		comma = ",";
	}
	fputc('\n', f);
}

#define GUARD_CALLS_MAX 128

static void print_guard_calls(FILE *f)
{
	struct quire_guard_call calls[GUARD_CALLS_MAX];
	size_t n = MIN(quire_guard_calls(calls, GUARD_CALLS_MAX), GUARD_CALLS_MAX);

	for (size_t i = 0; i < n; i++) {
		if (calls[i].name)
			fprintf(f, "  %-18s", calls[i].name);
		else
			fprintf(f, "  number %-11d", calls[i].number);
		fprintf(f, " %10" PRIu64 "%s\n", calls[i].count,
		        calls[i].known ? "" : "      unknown");
	}
}

static void json_guard_calls(FILE *f)
{
	struct quire_guard_call calls[GUARD_CALLS_MAX];
	size_t n = MIN(quire_guard_calls(calls, GUARD_CALLS_MAX), GUARD_CALLS_MAX);

	fprintf(f, ",\"guard\":[");
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%s{\"number\":%d,\"name\":\"%s\",\"known\":%s,\"count\":%" PRIu64 "}",
		        i ? "," : "", calls[i].number, calls[i].name ? calls[i].name : "",
		        calls[i].known ? "true" : "false", calls[i].count);
	fputc(']', f);
}

static void print_status(const struct quire *q, FILE *f)
{
	struct quire_stats s;

	quire_stats_get(q, &s);
	fprintf(f, "%-20s %s\n%-20s %s%s\n%-20s %s\n", "engine:", quire_engine_name(q),
	        "io:", quire_io_name(q), swapfile_is_direct(q->swap) ? ", O_DIRECT" : ", buffered",
	        "policy:", quire_policy_name(q));
#define GAUGE(name) fprintf(f, "%-20s %10" PRIu64 " kB\n", #name ":", KIB(s.name));
	GAUGES(GAUGE)
#undef GAUGE
#define EVENT(name, text) fprintf(f, "%-20s %10" PRIu64 "      %s\n", #name ":", s.name, text);
	COUNTERS(EVENT)
#undef EVENT
	fprintf(f, "%-20s %10" PRIu64 "      system calls served by the guard\n",
	        "guarded:", s.guarded);
	print_guard_calls(f);
	print_sizes(f, &s);
	print_latency(f, "minor_latency:", &s.minor_latency);
	print_latency(f, "major_latency:", &s.major_latency);
}

/* ------------------------------------------------------------- JSON */

static void json_latency(FILE *f, const char *name, const struct quire_latency *l)
{
	fprintf(f,
	        ",\"%s\":{\"count\":%" PRIu64 ",\"mean_ns\":%" PRIu64 ",\"p50_ns\":%" PRIu64
	        ",\"p99_ns\":%" PRIu64 ",\"p999_ns\":%" PRIu64 ",\"max_ns\":%" PRIu64 "}",
	        name, l->count, l->mean, l->p50, l->p99, l->p999, l->max);
}

static void json_stats(FILE *f, const struct quire_stats *s)
{
	const char *comma = "";

#define EVENT(name, text) fprintf(f, "%s\"" #name "\":%" PRIu64, comma, s->name), comma = ",";
	COUNTERS(EVENT)
#undef EVENT
	fprintf(f, ",\"writeback_sizes\":[");
	for (unsigned i = 0; i < WRITEBACK_BUCKETS; i++)
		fprintf(f, "%s%" PRIu64, i ? "," : "", s->writeback_sizes[i]);
	fputc(']', f);
#define GAUGE(name) fprintf(f, ",\"" #name "\":%" PRIu64, s->name);
	GAUGES(GAUGE)
#undef GAUGE
	json_latency(f, "minor_latency", &s->minor_latency);
	json_latency(f, "major_latency", &s->major_latency);
}

static void print_json(const struct quire *q, FILE *f)
{
	struct region_figures r;
	struct quire_stats s;
	const char *comma = "";

	quire_stats_get(q, &s);
	fprintf(f, "{\"engine\":\"%s\",\"io\":\"%s\",\"direct\":%s,\"policy\":\"%s\",",
	        quire_engine_name(q), quire_io_name(q),
	        swapfile_is_direct(q->swap) ? "true" : "false", quire_policy_name(q));
	json_stats(f, &s);
	json_guard_calls(f);
	fprintf(f, ",\"regions\":[");
	for (uint32_t id = 1; id <= regions_used(q); id++) {
		if (!region_figures(q, id, &r))
			continue;
		fprintf(f, "%s{\"base\":\"0x%" PRIxPTR "\",\"name\":", comma, (uintptr_t)r.base);
		json_string(f, r.name);
		fputc(',', f);
		json_stats(f, &r.stats);
		fputc('}', f);
		comma = ",";
	}
	fprintf(f, "]}\n");
}

int quire_stats_print(const quire_t *q, FILE *stream, int format)
{
	if (!q || !stream)
		return error_set(EINVAL, "a NULL pager or stream");
	if (pager_is_lost(q))
		return lost_error();
	switch (format) {
	case QUIRE_FORMAT_PMAP:
		print_pmap(q, stream);
		break;
	case QUIRE_FORMAT_STATUS:
		print_status(q, stream);
		break;
	case QUIRE_FORMAT_JSON:
		print_json(q, stream);
		break;
	default:
		return error_set(EINVAL, "unknown format %d; allowed: pmap 0, status 1, json 2",
		                 format);
	}
	/* What stays in the stream's buffer could still fail, and nobody would be told. */
	if (fflush(stream) != 0)
		return error_set(EIO, "the statistics could not be written: %s", strerror(errno));
	return ferror(stream) ? error_set(EIO, "the stream of the statistics has an error") : 0;
}

void quire_options_print(FILE *stream)
{
	const char *name, *environment, *fallback, *meaning;

	for (size_t i = 0; options_row(i, &name, &environment, &fallback, &meaning); i++)
		fprintf(stream, "  --%-10s %-16s %s (default: %s)\n", name, environment, meaning,
		        fallback);
}
