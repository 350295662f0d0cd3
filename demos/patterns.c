/* SPDX-License-Identifier: MIT */
/*
 * demos/patterns.c - walk the same region in different patterns and show what
 * readahead and the replacement policy make of each.
 *
 * A region four times the budget is filled; then each pattern visits pages,
 * reads (or writes) every word of them and checks it. Between two patterns the
 * pager is emptied by shrinking its budget, so that each begins with all pages
 * on the swap file. A row of the table is the difference of the region's
 * statistics before and after.
 *
 * With --policy all the table is made once for each policy.
 */
#include <inttypes.h>

#include "demo.h"

const char demo_name[] = "patterns";

#define PAGE_WORDS (QUIRE_PAGE_SIZE / sizeof(uint64_t))

struct walk {
	uint64_t *base;
	uint64_t pages;   /* of the region */
	uint64_t budget;  /* in pages */
	uint64_t touches; /* visits for the patterns that could go on for ever */
	uint64_t round;   /* what the words hold depends on it; each writing pattern adds 1 */
	uint64_t visits;  /* pages visited by this pattern */
	uint64_t random;  /* state of the generator */
};

static uint64_t word_of(const struct walk *w, uint64_t page, uint64_t word)
{
	return (page * PAGE_WORDS + word + w->round) * 0x9e3779b97f4a7c15u;
}

/* Read all of a page: each word must be what was written there last. */
static void visit(struct walk *w, uint64_t page)
{
	const uint64_t *words = w->base + page * PAGE_WORDS;
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < PAGE_WORDS; i++)
		wrong |= words[i] ^ word_of(w, page, i);
	if (wrong)
		die("page %" PRIu64 " does not hold what was written there", page);
	w->visits++;
}

static void write_page(struct walk *w, uint64_t page)
{
	uint64_t *words = w->base + page * PAGE_WORDS;

	for (uint64_t i = 0; i < PAGE_WORDS; i++)
		words[i] = word_of(w, page, i);
	w->visits++;
}

/* xorshift64*: the same sequence on each run. */
static uint64_t next_random(struct walk *w)
{
	w->random ^= w->random >> 12;
	w->random ^= w->random << 25;
	w->random ^= w->random >> 27;
	return w->random * 0x2545f4914f6cdd1du >> 11; /* 53 bits */
}

/* --------------------------------------------------------------- patterns */

static void forward(struct walk *w)
{
	for (uint64_t page = 0; page < w->pages; page++)
		visit(w, page);
}

static void backward(struct walk *w)
{
	for (uint64_t page = w->pages; page-- > 0;)
		visit(w, page);
}

static void strided(struct walk *w)
{
	for (uint64_t page = 0; page < w->pages; page += 5)
		visit(w, page);
}

static void two_streams(struct walk *w)
{
	uint64_t half = w->pages / 2;

	for (uint64_t i = 0; i < half; i++) {
		visit(w, i);
		visit(w, w->pages - 1 - i);
	}
}

static void at_random(struct walk *w)
{
	for (uint64_t i = 0; i < w->touches; i++)
		visit(w, next_random(w) % w->pages);
}

/*
 * A hot set without an edge. Rank is pages * u^4 for u uniform in [0, 1): the
 * chance of rank r falls as r^-0.75, which is Zipf's law with exponent 0.75.
 * Ranks are spread over the region by a multiplication, so that hot pages are
 * no neighbours.
 */
static void zipf(struct walk *w)
{
	for (uint64_t i = 0; i < 2 * w->touches; i++) {
		double u = (double)next_random(w) * 0x1p-53;
		uint64_t rank = (uint64_t)((double)w->pages * u * u * u * u);

		visit(w, rank * 0x9e3779b1u % w->pages);
	}
}

/* A quarter more than the budget, again and again: the worst that LRU can meet. */
static void loop(struct walk *w)
{
	uint64_t length = w->budget + w->budget / 4;

	for (unsigned i = 0; i < 4; i++)
		for (uint64_t page = 0; page < length && page < w->pages; page++)
			visit(w, page);
}

/* A set that fits is in use while a scan passes by: it should survive. */
static void hot_and_scan(struct walk *w)
{
	uint64_t hot = w->budget / 4;

	for (uint64_t page = hot; page < w->pages; page++) {
		visit(w, page);
		visit(w, next_random(w) % hot);
	}
}

static void write_forward(struct walk *w)
{
	w->round++;
	for (uint64_t page = 0; page < w->pages; page++)
		write_page(w, page);
}

/* Read and change one word of pages at random. */
static void update_random(struct walk *w)
{
	for (uint64_t i = 0; i < w->touches; i++) {
		uint64_t page = next_random(w) % w->pages;
		volatile uint64_t *word = w->base + page * PAGE_WORDS + next_random(w) % PAGE_WORDS;

		*word = ~*word;
		*word = ~*word;
		visit(w, page);
	}
}

static const struct pattern {
	const char *name;
	void (*walk)(struct walk *w);
	const char *what;
} patterns[] = {
	{ "forward", forward, "each page, upwards" },
	{ "backward", backward, "each page, downwards" },
	{ "strided", strided, "every fifth page, upwards" },
	{ "two-streams", two_streams, "up from the start and down from the end, in turns" },
	{ "random", at_random, "any page, all alike" },
	{ "zipf", zipf, "any page, few of them very often (Zipf, exponent 0.75)" },
	{ "loop", loop, "four rounds of a quarter more than the budget" },
	{ "hot-and-scan", hot_and_scan,
	  "a hot quarter of the budget beside one pass over the rest" },
	{ "write-forward", write_forward, "each page written anew, upwards" },
	{ "update-random", update_random, "read, change and read again, any page" },
};
#define PATTERNS (sizeof patterns / sizeof *patterns)

/* ------------------------------------------------------------------ table */

static void print_head(void)
{
	printf("\n%-14s %7s %7s %7s | %7s %7s %7s | %7s %5s | %7s %7s %7s\n", "pattern", "pages",
	       "seconds", "MB/s", "major", "minor", "rescues", "ahead", "used", "in", "out",
	       "evicted");
}

static void print_row(const char *name, uint64_t visits, double time, const struct quire_stats *a,
                      const struct quire_stats *b)
{
	uint64_t ahead = b->readahead_issued - a->readahead_issued;
	uint64_t hits = b->readahead_hits - a->readahead_hits;
	char used[16] = "-";

	if (ahead)
		snprintf(used, sizeof used, "%.0f%%", 100.0 * (double)hits / (double)ahead);
	printf("%-14s %7" PRIu64 " %7.2f %7.0f | %7" PRIu64 " %7" PRIu64 " %7" PRIu64 " | %7" PRIu64
	       " %5s | %7" PRIu64 " %7" PRIu64 " %7" PRIu64 "\n",
	       name, visits, time, (double)visits * QUIRE_PAGE_SIZE / time * 1e-6,
	       b->major_faults - a->major_faults, b->minor_faults - a->minor_faults,
	       b->rescues - a->rescues, ahead, used, b->pages_in - a->pages_in,
	       b->pages_out - a->pages_out, b->evictions - a->evictions);
	fflush(stdout);
}

/* One row: the pattern on a pager that holds no page. */
static void run(const struct pattern *p, struct walk *w, quire_t *q, quire_region_t *region)
{
	size_t memory = quire_memory(q);
	struct quire_stats before, after;
	double start;

	/* Lowering the budget returns when all but its 64 pages are written out and given up. */
	check(quire_set_memory(q, QUIRE_MEMORY_MIN), "lowering the budget");
	check(quire_set_memory(q, memory), "raising the budget");
	w->visits = 0;
	w->random = 0x9e3779b97f4a7c15u;
	check(quire_region_stats_get(region, &before), "statistics");
	start = seconds();
	p->walk(w);
	start = seconds() - start;
	check(quire_region_stats_get(region, &after), "statistics");
	print_row(p->name, w->visits, start, &before, &after);
}

static void table(const struct quire_options *options, size_t size, uint64_t touches,
                  const struct pattern *only, bool print_stats)
{
	static const struct quire_stats nothing;
	struct quire_stats filled;
	struct walk w = { 0 };
	quire_region_t *region;
	quire_t *q;
	double start;

	check(quire_open(&q, options), "cannot open a pager");
	check(quire_region_create(q, size, NULL, &region), "cannot make the region");
	w.base = quire_region_base(region);
	w.pages = quire_region_length(region) / QUIRE_PAGE_SIZE;
	w.budget = quire_memory(q) / QUIRE_PAGE_SIZE;
	w.touches = touches;
	printf("\npolicy %s: region %.2f MiB, budget %.2f MiB, engine %s, I/O %s\n",
	       quire_policy_name(q), mib(size), mib(quire_memory(q)), quire_engine_name(q),
	       quire_io_name(q));
	print_head();
	start = seconds();
	for (uint64_t page = 0; page < w.pages; page++)
		write_page(&w, page);
	start = seconds() - start;
	check(quire_region_stats_get(region, &filled), "statistics");
	print_row("(first touch)", w.pages, start, &nothing, &filled);
	for (size_t i = 0; i < PATTERNS; i++)
		if (!only || only == &patterns[i])
			run(&patterns[i], &w, q, region);
	if (print_stats) {
		printf("\n");
		check(quire_stats_print(q, stdout, QUIRE_FORMAT_STATUS), "printing");
	}
	check(quire_close(q), "closing");
}

/* ------------------------------------------------------------------- main */

#define SIZE ((size_t)256 << 20)
#define TOUCHES 32768

static void help(void)
{
	printf("Usage: %s [OPTION]...\n"
	       "Walk a region larger than the memory budget in patterns, check every word, and\n"
	       "show what readahead and the replacement policy make of each.\n\n"
	       "  --size SIZE     length of the region, at least twice the budget (256M)\n"
	       "  --memory SIZE   or QUIRE_MEMORY: budget, at least %luK (a quarter of the region)\n"
	       "  --policy NAME   clock, fifo or lru, or QUIRE_POLICY; all: a table for each (clock)\n"
	       "  --only PATTERN  this one of the patterns below only\n"
	       "  --touches N     visits of the patterns without an end (%d)\n"
	       "  --stats         print all statistics after each table\n"
	       "  --help          this text\n\nPatterns:\n",
	       demo_name, QUIRE_MEMORY_MIN / 1024, TOUCHES);
	for (size_t i = 0; i < PATTERNS; i++)
		printf("  %-15s %s\n", patterns[i].name, patterns[i].what);
	printf("\nColumns: pages visited; faults that read the swap file (major) and that did not\n"
	       "(minor), and rescues from standby among them; pages read ahead, and how many of\n"
	       "these were used; pages read from and written to the swap file; pages evicted.\n");
	help_of_quire("--memory --policy ");
	printf("Exit status: 0: done, 1: something failed, 2: wrong usage.\n");
}

static const struct pattern *find(const char *name)
{
	for (size_t i = 0; i < PATTERNS; i++)
		if (!strcmp(name, patterns[i].name))
			return &patterns[i];
	fprintf(stderr, "%s: --only %s: no such pattern; there are", demo_name, name);
	for (size_t i = 0; i < PATTERNS; i++)
		fprintf(stderr, "%s %s", i ? "," : "", patterns[i].name);
	fprintf(stderr, "\n");
	exit(2);
}

static bool is_policy_all(char ***arg)
{
	char **look = *arg;
	const char *value;

	if (!option_value(&look, "policy", &value) || strcmp(value, "all"))
		return false;
	*arg = look;
	return true;
}

int main(int argc, char **argv)
{
	static const char *const policies[] = { "clock", "fifo", "lru" };
	struct quire_options options = { .size = sizeof options, .on_error = tell_error };
	size_t size = SIZE;
	uint64_t touches = TOUCHES;
	const char *value;
	const struct pattern *only = NULL;
	bool all = false, print_stats = false;

	for (char **arg = argv + 1; argc && *arg; arg++) {
		if (!strcmp(*arg, "--help"))
			return help(), finish(0);
		else if (!strcmp(*arg, "--stats"))
			print_stats = true;
		else if (option_value(&arg, "size", &value))
			size = round_up(option_size("size", value), QUIRE_PAGE_SIZE);
		else if (option_value(&arg, "touches", &value))
			touches = option_size("touches", value);
		else if (option_value(&arg, "only", &value))
			only = find(value);
		else if (is_policy_all(&arg))
			all = true;
		else
			option_of_quire(&arg, &options);
	}
	option_memory_default(&options);
	if (!options.memory)
		options.memory = size / 4 > QUIRE_MEMORY_MIN ? size / 4 : QUIRE_MEMORY_MIN;
	if (size / 2 < options.memory) {
		fprintf(stderr,
		        "%s: a region of %zu bytes is less than twice the budget of %zu\n"
		        "Try '%s --help'.\n",
		        demo_name, size, options.memory, demo_name);
		return 2;
	}
	for (size_t i = 0; i < (all ? sizeof policies / sizeof *policies : 1); i++) {
		if (all)
			options.policy = policies[i];
		table(&options, size, touches, only, print_stats);
	}
	return finish(0);
}
