/* SPDX-License-Identifier: MIT */
/*
 * tests/stress/stress.c - many threads, every word checked. This file reads
 * the options and runs one round after another; each round opens a pager,
 * lets the workers loose, checks all memory when they have stopped, and closes.
 *
 * What is not said on the command line is drawn from the seed, a new draw for
 * each round; the command that repeats a round says everything.
 *
 * Neighbours: stress.h gives the model; ops.c, shadow.c, watch.c the parts.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

/* Pager options by quire_options_set's names; NULL: the pager's own default or environment. */
static struct {
	const char *name, *value;
} passed[] = {
	{ "swap", NULL }, { "swap-size", NULL }, { "engine", NULL },    { "policy", NULL },
	{ "io", NULL },   { "move", NULL },      { "readahead", NULL }, { "spin", NULL },
};

#define PASSED (sizeof passed / sizeof passed[0])

/* What the command line said; 0 or -1: draw it. */
static struct {
	double seconds, round;
	unsigned threads, arenas, factor, stall;
	size_t memory;
	int budget, churn, signals, syscalls, pins, protect, madvise, rss, paging, verbose;
} said = { .seconds = 10,
	   .round = 0,
	   .stall = 60,
	   .budget = -1,
	   .churn = -1,
	   .signals = -1,
	   .syscalls = -1,
	   .pins = -1,
	   .protect = -1,
	   .madvise = 0,
	   .rss = -1,
	   .paging = 1 };

static const char *program;
static struct config config;
static pthread_barrier_t start;

/* gcc tells by a macro, older clang by a feature. */
#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || HAS_FEATURE(thread_sanitizer)
#define SANITIZED_THREAD 1
#else
#define SANITIZED_THREAD 0
#endif
#if SANITIZED_THREAD || defined(__SANITIZE_ADDRESS__) || HAS_FEATURE(address_sanitizer)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static const char *on_off(bool b)
{
	return b ? "on" : "off";
}

/* What the environment says to the pager is part of the command. */
void repeat_command(char *out, size_t size)
{
	const struct config *c = &config;
	int n = 0;

	for (char **e = environ; *e && n < (int)size; e++)
		if (!strncmp(*e, "QUIRE_", 6))
			n += snprintf(out + n, size - n, "%s ", *e);
	if (n < (int)size)
		n += snprintf(out + n, size - n,
		              "%s --seed=%llu --seconds=%g --threads=%u "
		              "--memory=%zuK --factor=%u --regions=%u --budget=%s --churn=%s "
		              "--signals=%s --syscalls=%s --pins=%s --protect=%s --madvise=%s "
		              "--rss=%s",
		              program, (unsigned long long)c->seed, c->seconds, c->threads,
		              c->memory >> 10, c->factor, c->arenas, on_off(c->budget),
		              on_off(c->churn), on_off(c->signals), on_off(c->syscalls),
		              on_off(c->pins), on_off(c->protect), on_off(c->madvise),
		              on_off(c->rss));
	for (size_t i = 0; i < PASSED && n < (int)size; i++)
		if (passed[i].value)
			n += snprintf(out + n, size - n, " --%s=%s", passed[i].name,
			              passed[i].value);
}

static void usage(FILE *f)
{
	fprintf(f,
	        "usage: %s [option...]\n"
	        "Pages memory under load from many threads and checks every word.\n"
	        "  -t, --seconds=N   how long in all (10)\n"
	        "  --round=N         seconds of one round, each with its own draw (one round)\n"
	        "  --seed=N          (drawn, and printed)\n"
	        "  --threads=N       1..%u\n"
	        "  --memory=SIZE     highest budget; K, M, G\n"
	        "  --factor=N        regions together are N times the budget\n"
	        "  --regions=N       1..%u\n"
	        "  --budget=on|off   change the budget, down to 64 pages\n"
	        "  --churn=on|off    destroy, create, discard and check whole regions\n"
	        "  --signals=on|off  timers whose handlers touch managed memory\n"
	        "  --syscalls=on|off read and write managed memory by system calls\n"
	        "  --pins=on|off  --protect=on|off\n"
	        "  --madvise=on|off  also the program's own madvise(MADV_DONTNEED) (off)\n"
	        "  --rss=on|off      fail when resident memory exceeds budget + metadata + 4 MiB;\n"
	        "                    off: report only (off under a sanitizer)\n"
	        "  --paging=on|off   fail when nothing was evicted (on)\n"
	        "  --stall=N         seconds without progress that count as a hang (60)\n"
	        "  --verbose         print the pager's statistics\n"
	        "and, for the pager: --swap --swap-size --engine --policy --io --move --readahead "
	        "--spin\n",
	        program, THREADS_MAX, ARENAS_MAX);
}

static int flag(const char *name, const char *value)
{
	if (!strcmp(value, "on"))
		return 1;
	if (!strcmp(value, "off"))
		return 0;
	errx(2, "--%s is on or off, not %s", name, value);
}

static void parse(int argc, char **argv, uint64_t *seed, bool *seeded)
{
	static const char *const names[] = { "seconds",  "round",   "seed",    "threads", "memory",
		                             "factor",   "regions", "budget",  "churn",   "signals",
		                             "syscalls", "pins",    "protect", "madvise", "rss",
		                             "paging",   "stall" };
	enum { NAMES = sizeof names / sizeof names[0] };
	struct option options[NAMES + PASSED + 3] = { 0 };
	struct quire_options scratch = { .size = sizeof scratch };
	int *flags[] = { &said.budget,  &said.churn,   &said.signals, &said.syscalls, &said.pins,
		         &said.protect, &said.madvise, &said.rss,     &said.paging };
	int o;

	for (size_t i = 0; i < NAMES + PASSED; i++)
		options[i] = (struct option){ i < NAMES ? names[i] : passed[i - NAMES].name,
			                      required_argument, NULL, 256 + (int)i };
	options[NAMES + PASSED] = (struct option){ "verbose", no_argument, &said.verbose, 1 };
	options[NAMES + PASSED + 1] = (struct option){ "help", no_argument, NULL, 'h' };
	while ((o = getopt_long(argc, argv, "ht:", options, NULL)) != -1) {
		switch (o) {
		case 0:
			break;
		case 'h':
			usage(stdout);
			exit(0);
		case 't':
		case 256:
			said.seconds = atof(optarg);
			break;
		case 257:
			said.round = atof(optarg);
			break;
		case 258:
			*seed = strtoull(optarg, NULL, 0);
			*seeded = true;
			break;
		case 259:
			said.threads = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 260:
			if (quire_options_set(&scratch, "memory", optarg))
				errx(2, "--memory=%s: %s", optarg, quire_error_message());
			said.memory = scratch.memory;
			break;
		case 261:
			said.factor = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 262:
			said.arenas = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 272:
			said.stall = (unsigned)strtoul(optarg, NULL, 10);
			break;
		default:
			if (o >= 263 && o < 272) {
				*flags[o - 263] = flag(names[o - 256], optarg);
			} else if (o >= 256 + NAMES) {
				passed[o - 256 - NAMES].value = optarg;
			} else {
				usage(stderr);
				exit(2);
			}
		}
	}
	if (optind < argc)
		errx(2, "%s: not an option", argv[optind]);
	if (said.threads > THREADS_MAX)
		errx(2, "--threads is 1..%u", THREADS_MAX);
	if (said.arenas > ARENAS_MAX)
		errx(2, "--regions is 1..%u", ARENAS_MAX);
	if (said.memory && said.memory < QUIRE_MEMORY_MIN)
		errx(2, "--memory is at least %lu", QUIRE_MEMORY_MIN);
}

static void draw(struct config *c, uint64_t seed, double seconds)
{
	static const size_t memories[] = { QUIRE_MEMORY_MIN, QUIRE_MEMORY_MIN, 80 << 12, 512 << 10,
		                           1 << 20,          4 << 20,          16 << 20 };
	static const unsigned threads[] = { 1, 2, 3, 4, 4, 8, 8, 16 };
	uint64_t s = seed;
	uint64_t d[12];

	for (size_t i = 0; i < 12; i++)
		d[i] = random_next(&s) >> 20;
	*c = (struct config){ .seed = seed, .seconds = seconds, .stall = said.stall };
	c->memory = said.memory ? said.memory : memories[d[0] % 7];
	c->factor = said.factor ? said.factor : 2 + d[1] % 7;
	c->threads = said.threads ? said.threads : threads[d[2] % 8];
	c->arenas = said.arenas ? said.arenas : 1 + d[3] % 6;
	c->budget = said.budget >= 0 ? said.budget : d[4] % 4 != 0;
	c->churn = said.churn >= 0 ? said.churn : d[5] % 4 != 0;
	c->signals = said.signals >= 0 ? said.signals : d[6] % 3 == 0;
	c->syscalls = said.syscalls >= 0 ? said.syscalls : d[7] % 4 != 0;
	c->pins = said.pins >= 0 ? said.pins : d[8] % 4 != 0;
	c->protect = said.protect >= 0 ? said.protect : d[9] % 4 != 0;
	c->madvise = said.madvise > 0;
	c->rss = said.rss >= 0 ? said.rss : !SANITIZED;
	c->expect_paging = said.paging;
}

static void on_error(void *arg, const struct quire_error *error)
{
	static const char before[] = "stress: on_error: ";

	(void)arg;
	__atomic_fetch_add(&round_now.errors, 1, __ATOMIC_RELAXED);
	if (write(STDERR_FILENO, before, sizeof before - 1) < 0 ||
	    write(STDERR_FILENO, error->message, strlen(error->message)) < 0 ||
	    write(STDERR_FILENO, "\n", 1) < 0)
		return;
}

static void *worker_start(void *arg)
{
	volatile char stack[64 << 10];

	memset((char *)stack, 1, sizeof stack); /* touched before the baseline is taken */
	pthread_barrier_wait(&start);
	pthread_barrier_wait(&start);
	return worker_main(arg);
}

static void make_workers(const struct config *c)
{
	uint64_t s = c->seed ^ 0x5bd1e995;

	pthread_barrier_init(&start, NULL, c->threads + 1);
	for (unsigned i = 0; i < c->threads; i++) {
		struct worker *w = &round_now.worker[i];

		w->id = i;
		w->what = "starting";
		w->random = random_next(&s);
		w->file = memfd_create("stress", MFD_CLOEXEC);
		w->bounce = mmap(NULL, EXTENT_WORDS * sizeof(uint64_t), PROT_READ | PROT_WRITE,
		                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (w->file < 0 || w->bounce == MAP_FAILED)
			err(2, "a worker's buffers");
		if (pthread_create(&w->thread, NULL, worker_start, w))
			err(2, "pthread_create");
	}
	pthread_barrier_wait(&start);
}

/*
 * ThreadSanitizer's runtime runs every handler with all signals blocked, SIGBUS
 * among them, whatever its sa_mask says; and where SIGBUS serves faults, the
 * kernel kills a thread that touches an absent page with SIGBUS blocked.
 */
static void leave_out_signals(struct config *c, const char *engine)
{
	if (!SANITIZED_THREAD || !c->signals || strcmp(engine, "uffd-signal") != 0)
		return;
	printf("stress: no --signals: under ThreadSanitizer handlers run with SIGBUS blocked, which "
	       "%s needs\n",
	       engine);
	c->signals = false;
}

static void open_pager(struct config *c)
{
	struct quire_options o = { .size = sizeof o, .memory = c->memory, .on_error = on_error };
	const char *engine;
	int r;

	for (size_t i = 0; i < PASSED; i++)
		if (passed[i].value && quire_options_set(&o, passed[i].name, passed[i].value))
			errx(2, "--%s=%s: %s", passed[i].name, passed[i].value,
			     quire_error_message());
	r = quire_open(&round_now.q, &o);
	if (r == -ENOTSUP) {
		printf("stress: skipped: %s\n", quire_error_message());
		exit(77);
	}
	if (r)
		errx(2, "quire_open: %s", quire_error_message());
	__atomic_store_n(&round_now.ceiling, c->memory, __ATOMIC_SEQ_CST);
	engine = quire_engine_name(round_now.q);
	round_now.syscalls_fault = !strcmp(engine, "uffd");
	leave_out_signals(c, engine);
}

static void check_all(const struct config *c)
{
	this_worker = &round_now.worker[0];
	this_worker->what = "checking everything at the end";
	__atomic_store_n(&this_worker->waiting, false, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < c->arenas; i++)
		arena_check_range(&round_now.arena[i], 0, round_now.arena[i].pages);
	for (size_t i = 0; c->signals && i < c->threads * SIGNAL_PAGES * WORDS; i++)
		arena_check_word(&round_now.signal_arena, i);
	this_worker = NULL;
}

static void report(const struct config *c, const struct quire_stats *s)
{
	uint64_t ops = 0, signals = 0;

	for (unsigned i = 0; i < c->threads; i++) {
		ops += round_now.worker[i].ops;
		signals += round_now.worker[i].signals;
	}
	printf("stress: %s, %s, %s: %llu operations, %llu minor and %llu major faults, "
	       "%llu evictions, %llu pages out, %llu signals; most resident %zu KiB "
	       "(allowed then %zu)\n",
	       quire_engine_name(round_now.q), quire_io_name(round_now.q),
	       quire_policy_name(round_now.q), (unsigned long long)ops,
	       (unsigned long long)s->minor_faults, (unsigned long long)s->major_faults,
	       (unsigned long long)s->evictions, (unsigned long long)s->pages_out,
	       (unsigned long long)signals, round_now.worst_resident >> 10,
	       round_now.worst_allowed >> 10);
	if (said.verbose)
		quire_stats_print(round_now.q, stdout, QUIRE_FORMAT_STATUS);
	fflush(stdout);
}

static void run_round(struct config *c)
{
	struct timespec t = { .tv_sec = (time_t)c->seconds };
	struct quire_stats s;
	pthread_t watcher;
	char command[1024];

	repeat_command(command, sizeof command);
	printf("%s\n", command);
	fflush(stdout);
	t.tv_nsec = (long)((c->seconds - (double)t.tv_sec) * 1e9);
	shadow_init(c);
	make_workers(c);
	round_now.baseline = resident_now();
	open_pager(c);
	for (unsigned i = 0; i < c->arenas; i++)
		arena_create(&round_now.arena[i], round_now.arena[i].pages_max);
	if (c->signals)
		arena_create(&round_now.signal_arena, round_now.signal_arena.pages_max);
	if (pthread_create(&watcher, NULL, watch_main, NULL))
		err(2, "pthread_create");
	pthread_barrier_wait(&start);
	while (nanosleep(&t, &t) && errno == EINTR)
		;
	__atomic_store_n(&round_now.stop, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < c->threads; i++)
		pthread_join(round_now.worker[i].thread, NULL);
	check_all(c);
	__atomic_store_n(&round_now.finished, true, __ATOMIC_RELEASE);
	pthread_join(watcher, NULL);
	if (round_now.errors)
		stress_fail("on_error was called %llu times", (unsigned long long)round_now.errors);
	if (quire_stats_get(round_now.q, &s))
		stress_fail("quire_stats_get: %s", quire_error_message());
	report(c, &s);
	if (c->expect_paging && s.evictions == 0 && c->seconds >= 1)
		stress_fail("nothing was evicted: this run has tested nothing");
	if (quire_close(round_now.q))
		stress_fail("quire_close: %s", quire_error_message());
	for (unsigned i = 0; i < c->threads; i++) {
		close(round_now.worker[i].file);
		munmap(round_now.worker[i].bounce, EXTENT_WORDS * sizeof(uint64_t));
	}
	pthread_barrier_destroy(&start);
	shadow_free();
}

int main(int argc, char **argv)
{
	uint64_t seed = 0;
	bool seeded = false;
	double left, each;
	unsigned rounds = 0;

	program = argv[0];
	parse(argc, argv, &seed, &seeded);
	if (!seeded && getrandom(&seed, sizeof seed, 0) != sizeof seed)
		err(2, "getrandom");
	if (!seeded)
		seed >>= 20;
	watch_install_handlers();
	each = said.round > 0 ? said.round : said.seconds;
	for (left = said.seconds; left > 0; left -= each, rounds++, seed++) {
		draw(&config, seed, each < left ? each : left);
		run_round(&config);
	}
	printf("stress: passed, %u round%s\n", rounds, rounds == 1 ? "" : "s");
	return 0;
}
