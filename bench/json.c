/* SPDX-License-Identifier: MIT */
/*
 * bench/json.c - everything measured, as one JSON object: the settings, each
 * figure with its median and all its values by contender, each target with its
 * ratio and verdict, what was skipped and why. Neighbour: report.c, in words.
 */
#include "bench.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static void string(FILE *f, const char *text)
{
	fputc('"', f);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fprintf(f, "\\%c", *text);
		else if ((unsigned char)*text < ' ')
			fprintf(f, "\\u%04x", *text);
		else
			fputc(*text, f);
	}
	fputc('"', f);
}

static void number(FILE *f, double v)
{
	if (isfinite(v))
		fprintf(f, "%.6g", v);
	else
		fputs("null", f);
}

static void figure(FILE *f, enum figure r)
{
	const char *comma = "";

	fputs("    {\"id\": ", f);
	string(f, figure_rows[r].id);
	fputs(", \"name\": ", f);
	string(f, figure_rows[r].name + strspn(figure_rows[r].name, " "));
	fputs(", \"unit\": ", f);
	string(f, figure_rows[r].unit);
	fprintf(f, ", \"shown\": \"%s\", \"results\": {",
	        figure_rows[r].worst ? "greatest" : "median");
	for (unsigned w = 0; w < CONTENDERS; w++) {
		unsigned n = figure_count(r, w);

		if (!n)
			continue;
		fprintf(f, "%s\n      ", comma);
		string(f, contender_name[w]);
		fputs(": {\"result\": ", f);
		number(f, figure_result(r, w));
		fputs(", \"values\": [", f);
		for (unsigned i = 0; i < n; i++) {
			fputs(i ? ", " : "", f);
			number(f, figure_value(r, w, i));
		}
		fputs("]}", f);
		comma = ",";
	}
	fputs("}}", f);
}

static void target(FILE *f, const struct target *t, enum contender who)
{
	double low, high, ratio = target_ratio(t, who, &low, &high);

	fputs("    {\"name\": ", f);
	string(f, t->name + strspn(t->name, " "));
	fputs(", \"engine\": ", f);
	string(f, contender_name[who]);
	fprintf(f, ", \"kind\": \"%s\", \"value\": ", t->absolute ? "absolute" : "ratio");
	number(f, ratio);
	fputs(", \"lowest\": ", f);
	number(f, low);
	fputs(", \"highest\": ", f);
	number(f, high);
	fprintf(f, ", \"%s\": ", t->at_most ? "at_most" : "at_least");
	number(f, t->target[who]);
	fprintf(f, ", \"met\": %s}",
	        isnan(ratio)              ? "null" :
	        target_met(t, who, ratio) ? "true" :
	                                    "false");
}

int json_write(const char *path, const struct settings *s, unsigned failures)
{
	char machine[512];
	const char *comma = "";
	FILE *f = fopen(path, "we");

	if (!f) {
		fprintf(stderr, "bench: --json %s: %s\n", path, strerror(errno));
		return 1;
	}
	machine_describe(s, machine, sizeof machine);
	fputs("{\n  \"machine\": ", f);
	string(f, machine);
	fprintf(f,
	        ",\n  \"settings\": {\"region\": %zu, \"memory\": %zu, \"rounds\": %u, "
	        "\"threads\": %u, \"seconds\": %g, \"warmup\": %g, \"idle\": %g, "
	        "\"reference\": %s},\n",
	        s->region, s->memory, s->rounds, s->threads, s->seconds, s->warmup, s->idle,
	        is_reference(s) ? "true" : "false");
	fprintf(f, "  \"cut_short_in_round\": %u,\n", cut_short);
	fputs("  \"cpus_busy_with_others\": ", f);
	number(f, others_used());
	fputs(",\n  \"kernel_swap\": ", f);
	string(f, absent_reason(KERNEL) ? "skipped" : swap_terms());
	fputs(",\n  \"skipped\": {", f);
	for (unsigned w = 0; w < CONTENDERS; w++) {
		if (!absent_reason(w))
			continue;
		fputs(comma, f);
		string(f, contender_name[w]);
		fputs(": ", f);
		string(f, absent_reason(w));
		comma = ", ";
	}
	fprintf(f, "},\n  \"failures\": %u,\n  \"figures\": [", failures);
	for (unsigned r = 0; r < FIGURES; r++) {
		fputs(r ? ",\n" : "\n", f);
		figure(f, r);
	}
	fputs("\n  ],\n  \"targets\": [", f);
	comma = "\n";
	for (unsigned i = 0; i < target_count; i++) {
		for (unsigned w = 0; w < QUIRES; w++) {
			if (!(targets[i].target[w] > 0))
				continue;
			fputs(comma, f);
			target(f, &targets[i], w);
			comma = ",\n";
		}
	}
	fputs("\n  ]\n}\n", f);
	int bad = ferror(f);
	if (fclose(f) || bad) {
		fprintf(stderr, "bench: --json %s: write failed\n", path);
		return 1;
	}
	return 0;
}
