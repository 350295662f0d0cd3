/* SPDX-License-Identifier: MIT */
/*
 * demos/demo.h - what the demos share and a reader may skip: errors, the
 * clock, sizes, the command line and the progress bar. The programs beside it
 * are the reading matter.
 */
#ifndef QUIRE_DEMO_H
#define QUIRE_DEMO_H

#include <errno.h>
#include <quire.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

extern const char demo_name[]; /* each program's own, for its messages */

#define PRINTF_LIKE(words, first) __attribute__((format(printf, words, first)))

/* Say what is wrong and leave: status 1. */
static inline _Noreturn void die(const char *format, ...) PRINTF_LIKE(1, 2);

static inline _Noreturn void die(const char *format, ...)
{
	va_list arguments;

	fflush(stdout);
	fprintf(stderr, "%s: ", demo_name);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

/* A wrong command line: status 2. */
static inline _Noreturn void die_usage(const char *what, const char *word)
{
	fprintf(stderr, "%s: %s: %s\nTry '%s --help'.\n", demo_name, word, what, demo_name);
	exit(2);
}

/* Leave main with this: what was printed and did not arrive is an error, too. */
static inline int finish(int status)
{
	if (fflush(stdout) || ferror(stdout))
		die("standard output: %s", strerror(errno));
	return status;
}

/* The pattern of every call to quire in the demos: 0, or leave with its own words. */
static inline void check(int result, const char *what)
{
	if (result)
		die("%s: %s (%s)", what, quire_error_message(), strerror(-result));
}

static inline double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline double mib(uint64_t bytes)
{
	return (double)bytes / (1 << 20);
}

static inline size_t round_up(size_t bytes, size_t unit)
{
	return (bytes + unit - 1) / unit * unit;
}

static inline bool print_raw(const char *text)
{
	return write(STDERR_FILENO, text, strlen(text)) > 0;
}

/*
 * For options.on_error: runs inside a fault or on a thread of the pager, so
 * write(2) and _exit(2), and nothing else. An access that cannot be served would get
 * SIGBUS next.
 */
static inline void tell_error(void *arg, const struct quire_error *error)
{
	bool told = print_raw(error->message) && print_raw("\n");

	(void)arg;
	switch (error->kind) {
	case QUIRE_ERROR_NO_MEMORY:
		told = print_raw(
			"More fits with a larger --memory or --swap-size, or a --swap with more room.\n");
		_exit(1);
	case QUIRE_ERROR_READ:
	case QUIRE_ERROR_CHECKSUM:
	case QUIRE_ERROR_ENGINE:
		_exit(1);
	default:
		(void)told;
	}
}

/* ------------------------------------------------------- the command line */

/* Is *arg "--name value" or "--name=value"? Then *value is set and *arg moves past it. */
static inline bool option_value(char ***arg, const char *name, const char **value)
{
	size_t length = strlen(name);
	char *word = **arg;

	if (strncmp(word, "--", 2) || strncmp(word + 2, name, length))
		return false;
	if (word[2 + length] == '=') {
		*value = word + 2 + length + 1;
		return true;
	}
	if (word[2 + length])
		return false;
	if (!(*arg)[1])
		die_usage("needs a value", word);
	*value = *++*arg;
	return true;
}

/* A number, or a size with K, M, G or T (KiB, MiB, ...), as the options of the library take it. */
static inline uint64_t option_size(const char *name, const char *value)
{
	static const char units[] = "KMGT";
	char *end;
	unsigned long long number = strtoull(value, &end, 10);
	const char *unit = memchr(units, *end & ~0x20, sizeof units - 1);
	unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;

	if (unit)
		end += strcasecmp(end + 1, "iB") ? 1 : 3;
	if (*value < '0' || *value > '9' || *end || number == 0 ||
	    number > (UINT64_MAX >> 1) >> shift) {
		fprintf(stderr,
		        "%s: --%s takes a number such as 4096 or 64M, not '%s'\nTry '%s --help'.\n",
		        demo_name, name, value, demo_name);
		exit(2);
	}
	return (uint64_t)number << shift;
}

/* The library's options, each in a line that begins with its flag. To be freed. */
static inline char *table_of_quire(void)
{
	char *table = NULL;
	size_t length;
	FILE *f = open_memstream(&table, &length);

	if (f)
		quire_options_print(f);
	if (!f || fclose(f))
		die("no memory");
	return table;
}

static inline bool is_option_of_quire(const char *name)
{
	char flag[70], *table = table_of_quire();
	bool found;

	snprintf(flag, sizeof flag, "--%s ", name);
	found = strstr(table, flag) != NULL;
	free(table);
	return found;
}

/*
 * Any other "--name value" is an option of the library: hand it on as it is,
 * so that a new option of the library works here without a word.
 */
static inline void option_of_quire(char ***arg, struct quire_options *options)
{
	static char name[64];
	const char *value = "";
	size_t length = strcspn(**arg, "=");

	if (strncmp(**arg, "-", 1))
		die_usage("unexpected argument", **arg);
	if (strncmp(**arg, "--", 2) || length >= sizeof name)
		die_usage("unknown option", **arg);
	memcpy(name, **arg + 2, length - 2);
	name[length - 2] = 0;
	if (!is_option_of_quire(name))
		die_usage("unknown option", **arg);
	option_value(arg, name, &value);
	if (quire_options_set(options, name, value)) {
		fprintf(stderr, "%s: --%s\nTry '%s --help'.\n", demo_name, quire_error_message(),
		        demo_name);
		exit(2);
	}
}

/* The demos choose a budget by themselves, unless the command line or the environment says one. */
static inline void option_memory_default(struct quire_options *options)
{
	const char *value = getenv("QUIRE_MEMORY");

	if (!options->memory && value && *value && quire_options_set(options, "memory", value)) {
		fprintf(stderr, "%s: QUIRE_MEMORY: %s\n", demo_name, quire_error_message());
		exit(2);
	}
}

/* The options of the library, but for those that the program has described: own is their flags, each with a space. */
static inline void help_of_quire(const char *own)
{
	char *table = table_of_quire(), flag[70];

	printf("\nOptions of the library:\n");
	for (char *line = strtok(table, "\n"); line; line = strtok(NULL, "\n")) {
		snprintf(flag, sizeof flag, "%.*s ", (int)strcspn(line + 2, " "), line + 2);
		if (!strstr(own, flag))
			puts(line);
	}
	printf("\nSIZE is in bytes, or with K, M, G or T (KiB, MiB, ...): powers of 1024.\n");
	free(table);
}

/* -------------------------------------------------------- the progress bar */

struct progress {
	const char *label;
	double started, drawn;
	unsigned quarter; /* not a terminal: quarters told so far */
};

static inline struct progress progress_start(const char *label)
{
	return (struct progress){ .label = label, .started = seconds() };
}

/* Draw the bar, at most ten times a second; if nobody watches, a line each quarter of the way. */
static inline void progress_show(struct progress *p, uint64_t done, uint64_t total,
                                 const char *format, ...) PRINTF_LIKE(4, 5);

static inline void progress_show(struct progress *p, uint64_t done, uint64_t total,
                                 const char *format, ...)
{
	static const char full[] = "##############################";
	double now = seconds(), part = done < total ? (double)done / (double)total : 1;
	int width = (int)sizeof full - 1, bar = (int)(part * width);
	bool watched = isatty(STDERR_FILENO);
	va_list arguments;

	if (watched ? now - p->drawn < 0.1 && done < total : part * 4 < p->quarter + 1)
		return;
	p->drawn = now;
	p->quarter = (unsigned)(part * 4);
	if (watched)
		fprintf(stderr, "\r%-8s [%.*s%*s] %3.0f%% %6.1f s  ", p->label, bar, full,
		        width - bar, "", part * 100, now - p->started);
	else
		fprintf(stderr, "%-8s %3.0f%% %6.1f s  ", p->label, part * 100, now - p->started);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputs(watched ? "\033[K" : "\n", stderr);
}

/* Leave the bar as it is and go to a new line. */
static inline void progress_end(struct progress *p)
{
	if (isatty(STDERR_FILENO) && p->drawn > 0)
		fputc('\n', stderr);
}

#endif
