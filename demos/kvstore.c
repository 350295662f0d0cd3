/* SPDX-License-Identifier: MIT */
/*
 * demos/kvstore.c - a key-value store that is dumped to disk every second while it is written to.
 *
 * The same store, under the same stream of puts and deletes, is kept in three ways: in a region
 * of Quire, dumped by snapshots that are saved as increments; in plain memory, dumped by children
 * of fork, as Redis does; and in a region, dumped by fork. What is compared is what the one
 * thread that writes notices of it, and what memory it takes. In the end the dumps are
 * compared with the log of all operations, key by key.
 *
 * Each way has a process of its own, with nothing in its memory but that.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "apart.h"
#include "demo.h"
#include "dumpcheck.h"
#include "keeper.h"

const char demo_name[] = "kvstore";

static const struct mode {
	const char *name;
	bool paged, by_fork;
	const char *what;
} modes[] = {
	{ "snapshot", true, false, "in a region; snapshots, saved as increments" },
	{ "fork", false, true, "in plain memory; a child of fork writes all of it" },
	{ "fork-quire", true, true, "in a region; a child of fork writes all of it" },
};
#define MODES (sizeof modes / sizeof *modes)

struct settings {
	struct quire_options options;
	size_t size;
	double seconds, interval, skew;
	const struct mode *only;
	bool each, print_stats;
};

/* ------------------------------------------------------------- the writer */

/* What one way has come to; in memory that is shared with its process. */
struct result {
	bool ended, right;
	unsigned dumps;
	double took, first_took; /* median of all but the first, which is full */
	uint64_t bytes, first_bytes, copied;
	double pause; /* the longest */
	double rate;
	uint64_t longest, p999; /* ns */
	uint64_t peak, extra;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* As fast as it can, from the end of one operation to the end of the next: nothing is left out. */
static double serve(const struct settings *s, struct workload *w, struct store *store,
                    struct keeper *k)
{
	uint64_t start = now_ns(), now = start, due = start;
	uint64_t end = start + (uint64_t)(s->seconds * 1e9),
		 interval = (uint64_t)(s->interval * 1e9);

	while (now < end) {
		uint64_t before = now;

		if (now >= due && keeper_begin(k))
			due += interval;
		workload_step(w, store);
		now = now_ns();
		latency_add(&w->latency, now - before);
	}
	return (double)w->latency.count / ((double)(now - start) * 1e-9);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Of values of which only the first n are there; sorts them. */
static double median(double *values, unsigned n)
{
	qsort(values, n, sizeof *values, by_value);
	return n ? (values[n / 2] + values[(n - 1) / 2]) / 2 : 0;
}

static void summarize(const struct keeper *k, struct result *out)
{
	unsigned n = k->count;
	double *values = calloc(3 * n, sizeof *values);
	double *took = values, *bytes = took + n, *copied = bytes + n;

	if (!values)
		die("no memory");
	for (unsigned i = 0; i < n; i++) {
		const struct dump *d = &k->dumps[i];

		took[i] = d->took;
		bytes[i] = (double)d->file_bytes;
		copied[i] = (double)d->copied;
		if (d->pause > out->pause)
			out->pause = d->pause;
	}
	out->dumps = n;
	out->first_took = k->dumps[0].took;
	out->first_bytes = k->dumps[0].file_bytes;
	out->took = median(took + 1, n - 1);
	out->bytes = (uint64_t)median(bytes + 1, n - 1);
	out->copied = (uint64_t)median(copied, n);
	out->peak = k->peak;
	out->extra = k->extra;
	free(values);
}

static void print_each(const struct keeper *k)
{
	for (unsigned i = 0; i < k->count; i++) {
		const struct dump *d = &k->dumps[i];

		printf("%s %u: after %.2f s and %" PRIu64 " operations, paused %.2f ms, "
		       "%.2f s, %.1f MiB, %" PRIu64 " pages copied\n",
		       k->label, i, d->began - k->started, d->sequence, d->pause * 1e3, d->took,
		       mib(d->file_bytes), d->copied);
	}
}

/* ---------------------------------------------------------------- one way */

static void *memory_for(const struct settings *s, const struct mode *m, struct keeper *k)
{
	void *memory;

	if (m->paged) {
		check(quire_open(&k->q, &s->options), "cannot open a pager");
		check(quire_region_create(k->q, s->size, NULL, &k->region),
		      "cannot make the region");
		return quire_region_base(k->region);
	}
	memory = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("no memory: %s", strerror(errno));
	/* As Redis does: a huge page that is written to would be copied, or split, as a whole. */
	madvise(memory, s->size, MADV_NOHUGEPAGE);
	return memory;
}

static void print_way(const struct mode *m, const struct keeper *k)
{
	printf("%s: %s", m->name, m->what);
	if (m->paged)
		printf("; budget %.0f MiB, engine %s, I/O %s", mib(quire_memory(k->q)),
		       quire_engine_name(k->q), quire_io_name(k->q));
	printf("\n");
	fflush(stdout);
}

struct job {
	const struct settings *settings;
	const struct mode *mode;
	struct result *result;
};

static void run(void *argument)
{
	const struct job *job = argument;
	const struct settings *s = job->settings;
	const struct mode *m = job->mode;
	struct result *out = job->result;
	static struct workload w;
	struct keeper k = { .workload = &w,
		            .by_fork = m->by_fork,
		            .directory = apart_directory(),
		            .seconds = s->seconds,
		            .label = m->name };
	struct store *store;

	/* Ten million a second are more than one thread does. */
	workload_init(&w, s->size, s->skew, (uint64_t)(s->seconds * 1e7) + 1000000);
	store = store_init(memory_for(s, m, &k), s->size, w.keys);
	k.store = store;
	print_way(m, &k);
	workload_fill(&w, store);
	keeper_start(&k);
	out->rate = serve(s, &w, store, &k);
	keeper_stop(&k);
	summarize(&k, out);
	out->longest = w.latency.longest;
	out->p999 = latency_of(&w.latency, 0.999);
	if (s->each)
		print_each(&k);
	if (s->print_stats && k.q)
		check(quire_stats_print(k.q, stdout, QUIRE_FORMAT_STATUS), "printing");
	out->right = workload_check(&w, store, s->size, w.logged, "the store itself");
	/* Before the check has a pager of its own: a swap file with a name can be used by one only. */
	if (k.q)
		check(quire_close(k.q), "closing");
	out->right &= m->by_fork ? whole_dumps_are_right(&k, s->size) :
	                           images_are_right(&k, &s->options);
	free(k.dumps);
	workload_end(&w);
	out->ended = true;
}

/* ------------------------------------------------------------------ table */

static void print_table(const struct mode *const *of, const struct result *results, size_t n)
{
	printf("\n%-11s %5s | %7s %7s %7s %7s | %7s %8s | %8s %8s %9s | %6s %6s | %s\n", "", "",
	       "first", "first", "then", "then", "copied", "to begin", "longest", "p99.9",
	       "operat.", "peak", "extra", "");
	printf("%-11s %5s | %7s %7s %7s %7s | %7s %8s | %8s %8s %9s | %6s %6s | %s\n", "dumps by",
	       "dumps", "s", "MiB", "s", "MiB", "pages", "ms", "stall ms", "us", "per s", "MiB",
	       "MiB", "verified");
	for (size_t i = 0; i < n; i++) {
		const struct result *r = &results[i];
		char took[32] = "-", bytes[32] = "-";

		if (!r->ended) {
			printf("%-11s has failed\n", of[i]->name);
			continue;
		}
		if (r->dumps > 1) {
			snprintf(took, sizeof took, "%.2f", r->took);
			snprintf(bytes, sizeof bytes, "%.1f", mib(r->bytes));
		}
		printf("%-11s %5u | %7.2f %7.1f %7s %7s | %7" PRIu64
		       " %8.2f | %8.2f %8.1f %9.0f | %6.0f %6.0f | %s\n",
		       of[i]->name, r->dumps, r->first_took, mib(r->first_bytes), took, bytes,
		       r->copied, r->pause * 1e3, (double)r->longest * 1e-6, (double)r->p999 * 1e-3,
		       r->rate, mib(r->peak), mib(r->extra), r->right ? "yes" : "NO");
	}
}

/* ------------------------------------------------------------------- main */

#define SIZE ((size_t)128 << 20)
#define SIZE_MIN ((size_t)4 << 20)
#define SIZE_MAX_ ((size_t)64 << 30)

static void help(void)
{
	printf("Usage: %s [OPTION]...\n"
	       "Write to a key-value store as fast as one thread can, dump it to disk every second,\n"
	       "by snapshots of Quire and by fork, show what each costs, and check the dumps.\n\n"
	       "  --size SIZE     of the store, %zuM to %zuG (%zuM)\n"
	       "  --memory SIZE   or QUIRE_MEMORY: budget of the ways that have one (twice the\n"
	       "                  size; with half of the size most of the store is on the swap file)\n"
	       "  --seconds N     for which each way is written to (8)\n"
	       "  --interval N    milliseconds from dump to dump (1000)\n"
	       "  --skew X        how uneven the choice of keys is: exponent of Zipf's law (1.2)\n"
	       "  --only WAY      this one of the ways below only\n"
	       "  --dir DIRECTORY for the dumps, which are removed ($TMPDIR, /var/tmp, /tmp)\n"
	       "  --each          print a line for each dump\n"
	       "  --stats         print all statistics of the pagers\n"
	       "  --help          this text\n\nWays of keeping and dumping the store:\n",
	       demo_name, SIZE_MIN >> 20, SIZE_MAX_ >> 30, SIZE >> 20);
	for (size_t i = 0; i < MODES; i++)
		printf("  %-15s %s\n", modes[i].name, modes[i].what);
	printf("\nColumns: time and bytes of the first dump, and medians of the others; the median of\n"
	       "pages copied for a dump because they were written to (of fork: that only the child\n"
	       "has in the end); for how long the writer waited for a dump to begin, at most; its\n"
	       "longest operation, that included, and the time that one in a thousand exceeds;\n"
	       "operations; most memory of all processes, without the log, and how much more that\n"
	       "is than the store alone.\n");
	help_of_quire("--memory ");
	printf("Exit status: 0: done, 1: something failed or differs, 2: wrong usage.\n");
}

static const struct mode *find(const char *name)
{
	for (size_t i = 0; i < MODES; i++)
		if (!strcmp(name, modes[i].name))
			return &modes[i];
	fprintf(stderr, "%s: --only %s: no such way; there are", demo_name, name);
	for (size_t i = 0; i < MODES; i++)
		fprintf(stderr, "%s %s", i ? "," : "", modes[i].name);
	fprintf(stderr, "\n");
	exit(2);
}

/* A number with a fraction, from least to most. */
static double option_number(const char *name, const char *value, double least, double most)
{
	char *end;
	double number = strtod(value, &end);

	if (*value >= '0' && *value <= '9' && !*end && number >= least && number <= most)
		return number;
	fprintf(stderr, "%s: --%s takes a number from %g to %g, not '%s'\nTry '%s --help'.\n",
	        demo_name, name, least, most, value, demo_name);
	exit(2);
}

static void parse(char **arg, struct settings *s, const char **directory)
{
	const char *value;

	for (; *arg; arg++) {
		if (!strcmp(*arg, "--each"))
			s->each = true;
		else if (!strcmp(*arg, "--stats"))
			s->print_stats = true;
		else if (option_value(&arg, "size", &value))
			s->size = option_size("size", value);
		else if (option_value(&arg, "seconds", &value))
			s->seconds = option_number("seconds", value, 0.1, 86400);
		else if (option_value(&arg, "interval", &value))
			s->interval = option_number("interval", value, 1, 3600e3) / 1000;
		else if (option_value(&arg, "skew", &value))
			s->skew = option_number("skew", value, 0, 4);
		else if (option_value(&arg, "only", &value))
			s->only = find(value);
		else if (option_value(&arg, "dir", &value))
			*directory = value;
		else
			option_of_quire(&arg, &s->options);
	}
	if (s->size < SIZE_MIN || s->size > SIZE_MAX_) {
		fprintf(stderr, "%s: --size: %zuM to %zuG\nTry '%s --help'.\n", demo_name,
		        SIZE_MIN >> 20, SIZE_MAX_ >> 30, demo_name);
		exit(2);
	}
	s->size = round_up(s->size, QUIRE_PAGE_SIZE);
	option_memory_default(&s->options);
	if (!s->options.memory)
		s->options.memory = 2 * s->size;
}

int main(int argc, char **argv)
{
	static struct settings s = { .options = { .size = sizeof s.options,
		                                  .on_error = tell_error },
		                     .size = SIZE,
		                     .seconds = 8,
		                     .interval = 1,
		                     .skew = 1.2 };
	const struct mode *of[MODES];
	const char *directory = NULL;
	struct result *results;
	bool right = true;
	size_t n = 0;

	for (char **arg = argv + 1; argc && *arg; arg++)
		if (!strcmp(*arg, "--help"))
			return help(), finish(0);
	parse(argv + 1, &s, &directory);
	results = mmap(NULL, MODES * sizeof *results, PROT_READ | PROT_WRITE,
	               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (results == MAP_FAILED)
		die("no memory");
	apart_begin(directory);
	for (size_t i = 0; i < MODES && !apart_is_over(); i++) {
		struct job job = { &s, &modes[i], &results[n] };
		int status;

		if (s.only && s.only != &modes[i])
			continue;
		of[n++] = &modes[i];
		status = apart_run(run, &job);
		if (WIFSIGNALED(status) && !apart_is_over())
			fprintf(stderr, "%s: %s: killed by signal %d\n", demo_name, modes[i].name,
			        WTERMSIG(status));
		right &= job.result->ended && job.result->right && status == 0;
	}
	apart_end();
	print_table(of, results, n);
	return finish(right ? 0 : 1);
}
