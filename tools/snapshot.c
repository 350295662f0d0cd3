/* SPDX-License-Identifier: MIT */
/*
 * tools/snapshot.c - quire snapshot: what image files say of themselves (info), whether they
 * are whole (verify), and one made of a chain of them (merge); see tool.h.
 */
#define _GNU_SOURCE
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Exit statuses of all three. */
enum { GOOD, WRONG, USAGE };

#define UUID_TEXT 37

/* ------------------------------------------------------------- words */

static const char *uuid_text(const unsigned char uuid[16], char text[UUID_TEXT])
{
	char *at = text;

	for (unsigned i = 0; i < 16; i++)
		at += sprintf(at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
		              uuid[i]);
	return text;
}

/* ISO 8601, in UTC; a year that no calendar has: the seconds */
static const char *time_text(int64_t seconds, char text[40])
{
	time_t t = (time_t)seconds;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || tm.tm_year < -1900 || tm.tm_year > 9999 - 1900 ||
	    strftime(text, 40, "%FT%TZ", &tm) == 0)
		snprintf(text, 40, "@%lld", (long long)seconds);
	return text;
}

static const char *size_text(uint64_t bytes, char text[64])
{
	static const char units[][4] = { "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes / 1024;
	unsigned i = 0;

	for (; value >= 1024 && i < 3; i++)
		value /= 1024;
	snprintf(text, 64, "%.1f %s (%llu bytes)", value, units[i], (unsigned long long)bytes);
	return text;
}

/* Bytes of the stored pages to bytes of the file; 0: there are none */
static double ratio(const struct quire_image *image)
{
	return (double)image->stored * QUIRE_PAGE_SIZE / (double)image->file_bytes;
}

/* The library's words without "image PATH", which stands before them here. */
static const char *words_of(const struct image_file *f)
{
	const char *rest = f->words;
	size_t length = strlen(f->path);

	if (strncmp(rest, "image ", 6) != 0 || strncmp(rest + 6, f->path, length) != 0)
		return rest;
	rest += 6 + length;
	rest += strncmp(rest, ": ", 2) == 0 ? 2 : strncmp(rest, " is ", 4) == 0 ? 4 : 0;
	return rest;
}

static void keep_words(struct image_file *f, int error)
{
	f->error = error;
	if (error)
		snprintf(f->words, sizeof f->words, "%s", quire_error_message());
}

static void complain(const struct image_file *f)
{
	print_plain(stdout, f->path);
	fputs(": ", stdout);
	print_plain(stdout, words_of(f));
	putchar('\n');
}

/* Was all that was printed written? => status */
static int finish(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "quire snapshot: standard output: %s\n", strerror(errno));
	return WRONG;
}

/* -------------------------------------------------------------- info */

static void print_text(const struct image_file *f)
{
	const struct quire_image *m = &f->image;
	char uuid[UUID_TEXT], base[UUID_TEXT], text[64];

	print_plain(stdout, f->path);
	printf("\n  UUID        %s\n", uuid_text(m->uuid, uuid));
	printf("  base        %s\n", image_is_increment(m) ? uuid_text(m->base, base) : "full");
	printf("  name        ");
	print_plain(stdout, m->name);
	printf("\n  created     %s\n", time_text(m->created, text));
	printf("  length      %s\n", size_text(m->length, text));
	printf("  pages       %llu stored, %llu of them compressed, %llu zeros\n",
	       (unsigned long long)m->stored, (unsigned long long)m->compressed,
	       (unsigned long long)m->zeros);
	printf("  file        %s\n", size_text(m->file_bytes, text));
	printf("  ratio       %.2f\n", ratio(m));
}

static void print_json(const struct image_file *f)
{
	const struct quire_image *m = &f->image;
	char uuid[UUID_TEXT], base[UUID_TEXT], text[64];

	printf("  {\"file\": ");
	json_string(f->path);
	if (f->error) {
		printf(", \"error\": ");
		json_string(words_of(f));
		printf("}");
		return;
	}
	printf(",\n   \"uuid\": \"%s\", \"base\": ", uuid_text(m->uuid, uuid));
	if (image_is_increment(m))
		printf("\"%s\"", uuid_text(m->base, base));
	else
		printf("null");
	printf(",\n   \"name\": ");
	json_string(m->name);
	printf(", \"created\": \"%s\",\n   ", time_text(m->created, text));
	printf("\"length\": %llu, \"stored\": %llu, \"compressed\": %llu, \"zeros\": %llu,\n"
	       "   \"file_bytes\": %llu, \"ratio\": %.3f}",
	       (unsigned long long)m->length, (unsigned long long)m->stored,
	       (unsigned long long)m->compressed, (unsigned long long)m->zeros,
	       (unsigned long long)m->file_bytes, ratio(m));
}

static int info(struct image_file *files, unsigned count, bool json)
{
	bool all = image_files_read(files, count);

	for (unsigned i = 0; i < count; i++) {
		if (json) {
			fputs(i ? ",\n" : "[\n", stdout);
			print_json(&files[i]);
		} else if (files[i].error) {
			complain(&files[i]);
		} else {
			print_text(&files[i]);
		}
	}
	if (json)
		puts("\n]");
	return finish(all ? GOOD : WRONG);
}

/* ------------------------------------------------- how far it is */

struct meter {
	const char *what;
	int percent; /* that was shown */
};

/* On a terminal only, where it is wiped away in the end. */
static bool show(void *arg, uint64_t done, uint64_t of)
{
	struct meter *m = arg;
	int percent = of ? (int)((double)done * 100 / (double)of) : 100;

	if (percent != m->percent) {
		fputc('\r', stderr);
		print_plain(stderr, m->what);
		fprintf(stderr, ": %3d %%", percent);
	}
	m->percent = percent;
	return true;
}

static void wipe(const struct meter *m)
{
	if (m->percent >= 0)
		fputs("\r\033[K", stderr);
}

static quire_image_fn meter_for(struct meter *m, const char *what)
{
	*m = (struct meter){ .what = what, .percent = -1 };
	return isatty(STDERR_FILENO) ? show : NULL;
}

/* ------------------------------------------------------------ verify */

static void verify_one(struct image_file *f)
{
	struct meter meter;
	quire_image_fn call = meter_for(&meter, f->path);

	if (f->error)
		return;
	keep_words(f, quire_image_verify(f->path, call, &meter));
	wipe(&meter);
}

/* Of several files: is the base of this one among them, and can it be that? => is that right */
static bool say_base(const struct image_file *files, unsigned count, unsigned i)
{
	const struct image_file *base = image_base_of(files, count, i);
	const struct quire_image *m = &files[i].image;
	char uuid[UUID_TEXT];

	if (count < 2 || !image_is_increment(m))
		return true;
	if (!base) {
		printf("; its base, %s, is not among these files", uuid_text(m->base, uuid));
		return true;
	}
	printf("; its base is ");
	print_plain(stdout, base->path);
	if (base->image.length == m->length)
		return true;
	printf(", which is wrong: that is of %llu bytes of memory, and this of %llu",
	       (unsigned long long)base->image.length, (unsigned long long)m->length);
	return false;
}

static int verify(struct image_file *files, unsigned count)
{
	int status = GOOD;

	/* What all say is wanted before the first is said to have its base, or not. */
	image_files_read(files, count);
	for (unsigned i = 0; i < count; i++) {
		verify_one(&files[i]);
		if (files[i].error) {
			complain(&files[i]);
			status = WRONG;
			continue;
		}
		print_plain(stdout, files[i].path);
		printf(": good");
		if (!say_base(files, count, i))
			status = WRONG;
		putchar('\n');
		fflush(stdout);
	}
	return finish(status);
}

/* ------------------------------------------------------------- merge */

static int merge(struct image_file *files, unsigned count, const char *out)
{
	unsigned *order = calloc(count, sizeof *order);
	const char **paths = calloc(count, sizeof *paths);
	struct meter meter;
	quire_image_fn call = meter_for(&meter, out);
	int error = -ENOMEM;

	image_files_read(files, count);
	if (order && paths) {
		image_chain(files, count, order);
		for (unsigned i = 0; i < count; i++)
			paths[i] = files[order[i]].path;
		/* What is wrong with a file, or the order, it says. */
		error = quire_image_merge(paths, count, out, call, &meter);
		wipe(&meter);
	}
	if (error) {
		fputs("quire snapshot merge: ", stderr);
		print_plain(stderr, order && paths ? quire_error_message() : "no memory");
		fputc('\n', stderr);
	}
	free(order);
	free(paths);
	return error ? WRONG : GOOD;
}

/* -------------------------------------------------------------- main */

static int help(void)
{
	puts("Usage: quire snapshot info [--json] FILE...\n"
	     "       quire snapshot verify FILE...\n"
	     "       quire snapshot merge -o OUT FILE...\n"
	     "Of the image files that quire_snapshot_save writes.\n\n"
	     "info tells what each says of itself: its UUID, that of its base (or that it is full),\n"
	     "the region's name, when the snapshot was taken, the length of the memory, how many pages are\n"
	     "stored, compressed, and (in increments) zeros, the size of the file, and the ratio of\n"
	     "the stored pages' bytes to that.\n\n"
	     "verify reads all of each and says \"FILE: good\", or what is wrong and where. Of several\n"
	     "files it also says which is the base of each increment, or that it is not among them.\n\n"
	     "merge makes one image of a chain: the base first, and increments each of which is to\n"
	     "the one before. Given in another order they are put into that one by their UUIDs. The\n"
	     "result is the last one's memory, under its UUID, and full if the first is. It replaces\n"
	     "what is at OUT in one step; that may be one of the files.\n\n"
	     "  --json              info for programs: an array, of an object a file\n"
	     "  -o, --output OUT    where merge writes\n"
	     "  --help              this text\n\n"
	     "Exit status: 0 done and all is good, 1 something is wrong, 2 usage.");
	return finish(GOOD);
}

static int usage(const char *what, const char *word)
{
	fprintf(stderr, "quire snapshot: ");
	print_plain(stderr, word);
	fprintf(stderr, ": %s\nTry 'quire snapshot --help'.\n", what);
	return USAGE;
}

struct line {
	bool json, help;
	const char *out;
	struct image_file *files;
	unsigned count;
};

/* => GOOD, or USAGE and it was said why */
static int parse(int argc, char **argv, struct line *l)
{
	bool merges = !strcmp(argv[1], "merge"), only_files = false;

	for (int i = 2; i < argc; i++) {
		const char *word = argv[i];

		if (only_files || word[0] != '-') {
			l->files[l->count++].path = word;
		} else if (!strcmp(word, "--")) {
			only_files = true;
		} else if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
			l->help = true;
		} else if (!strcmp(word, "--json") && !strcmp(argv[1], "info")) {
			l->json = true;
		} else if (merges && (!strcmp(word, "-o") || !strcmp(word, "--output"))) {
			if (++i == argc)
				return usage("a value is missing", word);
			l->out = argv[i];
		} else if (merges && !strncmp(word, "--output=", 9)) {
			l->out = word + 9;
		} else {
			return usage("unknown option", word);
		}
	}
	if (l->help)
		return GOOD;
	if (l->count == 0)
		return usage("no files", argv[1]);
	return merges && !l->out ? usage("-o OUT is missing", argv[1]) : GOOD;
}

static int run(const char *what, struct line *l)
{
	if (l->help)
		return help();
	if (!strcmp(what, "info"))
		return info(l->files, l->count, l->json);
	if (!strcmp(what, "verify"))
		return verify(l->files, l->count);
	return merge(l->files, l->count, l->out);
}

int snapshot_main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : NULL;
	struct line l = { .out = NULL };
	int status;

	if (!what)
		return usage("what is to be done is missing", "info, verify or merge");
	if (!strcmp(what, "--help") || !strcmp(what, "-h"))
		return help();
	if (strcmp(what, "info") != 0 && strcmp(what, "verify") != 0 && strcmp(what, "merge") != 0)
		return usage("no such command: info, verify, merge", what);
	l.files = calloc((size_t)argc, sizeof *l.files);
	if (!l.files)
		return usage("no memory", what);
	status = parse(argc, argv, &l);
	if (status == GOOD)
		status = run(what, &l);
	free(l.files);
	return status;
}
