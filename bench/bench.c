/* SPDX-License-Identifier: MIT */
/*
 * bench/bench.c - Quire against the kernel's own swap and the raw limits.
 *
 * Reads the options, prepares the kernel's turn and the raw file, and runs the
 * rounds: each job for each contender in turn, the contenders interleaved and
 * their order rotated, so that what changes on the machine meanwhile meets all.
 * Neighbours: see bench.h. bench/run starts this and cleans up if it is killed.
 */
#include "bench.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* clang-format off */
enum { OPT_REGION = 256, OPT_MEMORY, OPT_SECONDS, OPT_WARMUP, OPT_IDLE, OPT_LIMIT, OPT_ROUNDS,
       OPT_THREADS, OPT_DIR, OPT_JSON, OPT_STATE, OPT_ONLY, OPT_CONTENDERS, OPT_NO_KERNEL,
       OPT_SWAP_SIZE, OPT_QUICK, OPT_HELP };
/* clang-format on */

static const struct option options[] = {
	{ "region", required_argument, NULL, OPT_REGION },
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "warmup", required_argument, NULL, OPT_WARMUP },
	{ "idle", required_argument, NULL, OPT_IDLE },
	{ "limit", required_argument, NULL, OPT_LIMIT },
	{ "rounds", required_argument, NULL, OPT_ROUNDS },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "dir", required_argument, NULL, OPT_DIR },
	{ "json", required_argument, NULL, OPT_JSON },
	{ "state", required_argument, NULL, OPT_STATE },
	{ "only", required_argument, NULL, OPT_ONLY },
	{ "contenders", required_argument, NULL, OPT_CONTENDERS },
	{ "no-kernel", no_argument, NULL, OPT_NO_KERNEL },
	{ "swap-size", required_argument, NULL, OPT_SWAP_SIZE },
	{ "quick", no_argument, NULL, OPT_QUICK },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

static void help(void)
{
	puts("Usage: bench/run [OPTION]...\n"
	     "Compare Quire with the kernel's own swap and with what the disk can do,\n"
	     "and its snapshots with fork.\n\n"
	     "  --region SIZE      the memory under test (1G); SIZE takes K, M, G\n"
	     "  --memory SIZE      the budget of each contender (256M)\n"
	     "  --rounds N         repeat all N times and show medians (3)\n"
	     "  --seconds S        length of each random access measurement (2.5)\n"
	     "  --warmup S         longest warm-up before one; it ends sooner when a budget's\n"
	     "                     worth of pages was missed; updates take half (4)\n"
	     "  --idle S           how long an idle pager is watched (10)\n"
	     "  --threads N        threads of the threaded workloads (8; at most 64)\n"
	     "  --limit S          begin no measurement after S seconds (600)\n"
	     "  --quick            one round, half the sizes, short measurements (1-2 minutes);\n"
	     "                     options after it override\n"
	     "  --dir DIR          where the swap files lie ($TMPDIR, else /var/tmp)\n"
	     "  --json FILE        write everything measured as JSON too\n"
	     "  --only LIST        only these jobs, by commas:");
	fputs("                    ", stdout);
	for (unsigned i = 0; i < job_count; i++)
		printf(" %s", jobs[i].id);
	puts("\n"
	     "  --contenders LIST  only these: uffd-signal,uffd,sigsegv,sigsegv-sync,kernel,raw\n"
	     "  --no-kernel        leave the kernel's swap out (it needs root)\n"
	     "  --swap-size SIZE   of the kernel's swap file (2.25 times the region)\n"
	     "  --state FILE       note in FILE what has to be removed after a kill\n\n"
	     "Exit status: 0 all was measured (targets may be missed), 1 something failed,\n"
	     "2 usage, 3 a wrong word was read, 128 + n ended by signal n.");
}

static _Noreturn void usage(const char *what, const char *value)
{
	fprintf(stderr, "bench: %s: %s (see --help)\n", what, value);
	exit(2);
}

static size_t parse_size(const char *text)
{
	char *end;
	double v = strtod(text, &end);
	double unit = *end == 'K' ? 1024 : *end == 'M' ? 0x1p20 : *end == 'G' ? 0x1p30 : 1;

	if (end == text || (*end && unit == 1) || (*end && end[1]) || !(v * unit >= MIB) ||
	    v * unit > 0x1p40)
		usage("not a size from 1M to 1024G", text);
	return (size_t)(v * unit) / MIB * MIB;
}

static double parse_number(const char *text, double least, double most)
{
	char *end, range[128];
	double v = strtod(text, &end);

	if (end != text && !*end && v >= least && v <= most)
		return v;
	snprintf(range, sizeof range, "not a number from %g to %g", least, most);
	usage(range, text);
}

/* Is word one of the words in list, separated by commas? */
static bool listed(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (!strncmp(p, word, n) && (p[n] == ',' || !p[n]))
			return true;
	}
	return false;
}

/* Every word of list must be known. */
static void check_list(const char *list, bool of_jobs)
{
	char word[64];

	for (const char *p = list; p; p = strchr(p, ',')) {
		bool known = false;

		p += *p == ',';
		snprintf(word, sizeof word, "%.*s", (int)strcspn(p, ","), p);
		for (unsigned i = 0; i < (of_jobs ? job_count : CONTENDERS); i++)
			known |= !strcmp(word, of_jobs ? jobs[i].id : contender_id[i]);
		if (!known)
			usage(of_jobs ? "no such job" : "no such contender", word);
	}
}

static void parse(int argc, char **argv, struct settings *s)
{
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		/* clang-format off */
		case OPT_REGION: s->region = parse_size(optarg); break;
		case OPT_MEMORY: s->memory = parse_size(optarg); break;
		case OPT_SWAP_SIZE: s->swap_size = parse_size(optarg); break;
		case OPT_SECONDS: s->seconds = parse_number(optarg, 0.1, 600); break;
		case OPT_WARMUP: s->warmup = parse_number(optarg, 0, 600); break;
		case OPT_IDLE: s->idle = parse_number(optarg, 0.1, 600); break;
		case OPT_LIMIT: s->limit = parse_number(optarg, 1, 1e6); break;
		case OPT_ROUNDS: s->rounds = (unsigned)parse_number(optarg, 1, 50); break;
		case OPT_THREADS: s->threads = (unsigned)parse_number(optarg, 1, 64); break;
		case OPT_DIR: s->dir = optarg; break;
		case OPT_JSON: s->json = optarg; break;
		case OPT_STATE: s->state = optarg; break;
		case OPT_ONLY: s->only = optarg; break;
		case OPT_CONTENDERS: s->contenders = optarg; break;
		case OPT_NO_KERNEL: s->no_kernel = true; break;
		/* clang-format on */
		case OPT_QUICK:
			s->region /= 2;
			s->memory /= 2;
			s->rounds = 1;
			s->seconds = 1;
			s->warmup = 2;
			s->idle = 3;
			s->limit = 150;
			break;
		case OPT_HELP:
			help();
			exit(0);
		default:
			exit(2);
		}
	}
	if (optind < argc)
		usage("not an option", argv[optind]);
	if (s->region <= s->memory)
		usage("--region must exceed --memory", "there would be no paging");
	check_list(s->only, true);
	check_list(s->contenders, false);
	if (!s->swap_size)
		s->swap_size = s->region / 4 * 9;
}

static void on_signal(int number)
{
	interrupted = number;
}

static void stop_if_interrupted(void)
{
	if (interrupted) {
		fprintf(stderr, "\nbench: ended by signal %d; removing what was made\n",
		        interrupted);
		exit(128 + interrupted); /* swap_close runs at exit */
	}
}

static void prepare(const struct settings *s)
{
	char why[512];
	int err;

	for (unsigned w = 0; w < CONTENDERS; w++)
		if (s->contenders && !listed(s->contenders, contender_id[w]))
			absent_set(w, "not asked for");
	if (s->no_kernel)
		absent_set(KERNEL, "--no-kernel");
	if (!absent_reason(KERNEL)) {
		fprintf(stderr, "preparing the kernel's swap file\n");
		if (!swap_open(s, why, sizeof why)) {
			stop_if_interrupted();
			absent_set(KERNEL, why);
		}
	}
	if (!absent_reason(RAW)) {
		fprintf(stderr, "preparing a file for the raw limits\n");
		err = raw_open(s);
		stop_if_interrupted();
		if (err) {
			fprintf(stderr, "bench: a file of %zu MiB in %s: %s\n", s->region / MIB,
			        s->dir, strerror(-err));
			exit(1);
		}
	}
	stop_if_interrupted();
}

/* Book what a child measured. => it failed */
static bool book(const struct settings *s, const struct job *job, enum contender who,
                 const struct outcome *out)
{
	switch (out->state) {
	case OUT_WRONG:
		fprintf(stderr,
		        "\nbench: %s, %s: %s\nbench: aborted: the memory does not hold what "
		        "was written to it\n",
		        contender_name[who], job->name, out->message);
		exit(3);
	case OUT_SKIPPED:
		fprintf(stderr, "skipped: %s\n", out->message);
		absent_set(who, out->message);
		return false;
	case OUT_RUNNING:
	case OUT_FAILED:
		fprintf(stderr, "FAILED: %s\n", out->message);
		return true;
	case OUT_DONE:
		break;
	}
	const char *comma = "";
	for (unsigned i = 0; i < out->count; i++) {
		enum figure f = out->figure[i].figure;

		figure_add(f, who, out->figure[i].value);
		if (f > F_SCAN_WRITE && f != job->shown)
			continue;
		fprintf(stderr, "%s%.*f %s", comma, figure_rows[f].decimals, out->figure[i].value,
		        figure_rows[f].unit);
		comma = ", ";
	}
	fputc('\n', stderr);
	if (who == RAW)
		return false;
	figure_add(F_RESIDENT, who, out->peak / MIB);
	if (who == KERNEL)
		return false;
	figure_add(F_OVER, who, (out->peak - (double)out->metadata - (double)s->memory) / MIB);
	/* These touch a part of the region only. */
	if (job->shown != F_TOUCH_ORDER && job->shown != F_TOUCH_RANDOM &&
	    job->shown != F_SNAP_CREATE)
		figure_add(F_METADATA, who, 100.0 * (double)out->metadata / (double)s->region);
	return false;
}

/* => how many measurements failed */
static unsigned run_rounds(const struct settings *s)
{
	static bool failed[64][CONTENDERS];
	double start = now();
	/* No measurement can hang the benchmark: it would take 15 MB/s to need so long. */
	double patience = 20 + 3 * (s->seconds + s->warmup) + s->idle + (double)s->region / 15e6;
	unsigned failures = 0;

	for (unsigned round = 0; round < s->rounds; round++) {
		for (unsigned j = 0; j < job_count; j++) {
			for (unsigned k = 0; k < CONTENDERS; k++) {
				enum contender who = (k + round) % CONTENDERS;
				struct outcome out;

				if (!(jobs[j].who & 1u << who) || absent_reason(who) ||
				    failed[j][who] || (jobs[j].once && round) ||
				    (s->only && !listed(s->only, jobs[j].id)))
					continue;
				if (now() - start > s->limit) {
					fprintf(stderr, "--limit reached\n");
					cut_short = round + 1;
					return failures;
				}
				fprintf(stderr, "[%u/%u] %-34s %-12s ", round + 1, s->rounds,
				        jobs[j].name, contender_name[who]);
				if (!child_run(&jobs[j], who, s, patience, &out))
					stop_if_interrupted();
				failed[j][who] = book(s, &jobs[j], who, &out);
				failures += failed[j][who];
			}
		}
	}
	fprintf(stderr, "%.0f s\n", now() - start);
	return failures;
}

int main(int argc, char **argv)
{
	const char *tmp = getenv("TMPDIR");
	struct settings s = {
		.region = 1024 * MIB,
		.memory = 256 * MIB,
		.seconds = 2.5,
		.warmup = 4,
		.idle = 10,
		.limit = 600,
		.rounds = 3,
		.threads = 8,
		.dir = tmp && *tmp ? tmp : "/var/tmp",
	};
	struct sigaction sa = { .sa_handler = on_signal };
	unsigned failures;
	int err = 0;

	parse(argc, argv, &s);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	char *dir = realpath(s.dir, NULL);
	if (!dir || access(dir, W_OK)) {
		fprintf(stderr, "bench: --dir %s: %s\n", s.dir, strerror(errno));
		return 2;
	}
	s.dir = dir;
	prepare(&s);
	others_begin();
	failures = run_rounds(&s);
	report_print(stdout, &s, failures);
	if (s.json)
		err = json_write(s.json, &s, failures);
	free(dir);
	return failures || err;
}
