/* SPDX-License-Identifier: MIT */
/*
 * demos/wordindex.c - real text files and an index of their words, in a heap
 * eight times larger than its memory.
 *
 * The heap holds the text, one file behind the other, and behind it the index
 * (index.c: a hash table, records of words and lists of places). Nothing in it
 * knows what memory it lives in. It is built twice from the same files:
 *
 *   1. in plain memory from calloc(): this also measures how large the heap is;
 *   2. in a region of Quire, with an eighth of that as its budget.
 *
 * All of the text, the table, the words and their places is then compared.
 * corpus.c finds and reads the files.
 */
#include <inttypes.h>

#include "corpus.h"
#include "demo.h"
#include "index.h"

const char demo_name[] = "wordindex";

#define TIMES 8 /* the heap is so many times the budget */

/* ----------------------------------------------------- the job done twice */

static const char *const questions[] = { "the", "malloc", "license", "errno", "swap", "zebra" };
#define QUESTIONS (sizeof questions / sizeof *questions)

struct answer {
	uint64_t count, files, first, last; /* first and last place */
};

struct job {
	const struct corpus *corpus;
	char *text;          /* the files, one behind the other: a place is an offset here */
	struct index index;  /* in the memory behind */
	size_t file;         /* how many are indexed */
	uint64_t used;       /* bytes of text and index */
	double build, check; /* seconds */
	uint64_t grown;      /* most resident memory of the process above the start, sampled */
	uint64_t digest;
	struct answer answers[QUESTIONS];
};

/* Resident memory of this process as the kernel counts it, our witness of the budget. */
static uint64_t process_resident(void)
{
	unsigned long total, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (!f || fscanf(f, "%lu %lu", &total, &resident) != 2)
		resident = 0;
	if (f)
		fclose(f);
	return (uint64_t)resident * QUIRE_PAGE_SIZE;
}

static void job_word(void *arg, const char *word, size_t length, uint64_t offset)
{
	struct job *j = arg;

	index_add(&j->index, word, length, j->corpus->files[j->file].start + offset);
}

/* The file that a place is in, by bisection. */
static const struct text_file *file_at(const struct corpus *c, uint64_t place)
{
	size_t low = 0, high = c->count;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (c->files[mid].start <= place)
			low = mid;
		else
			high = mid;
	}
	return &c->files[low];
}

static struct answer ask(const struct job *j, const char *word)
{
	struct places p = index_find(&j->index, word, strlen(word));
	const struct text_file *file = NULL;
	struct answer a = { 0 };

	for (uint64_t place; places_next(&p, &place); a.last = place) {
		if (!a.count++)
			a.first = place;
		if (!file || place - file->start >= file->size) {
			file = file_at(j->corpus, place);
			a.files++;
		}
	}
	return a;
}

/*
 * Read and index the files until there are no more or the heap has grown to
 * enough bytes; then read everything back. q is only looked at, to tell how it
 * goes; NULL in plain memory.
 */
static void job_run(struct job *j, const struct corpus *corpus, const char *label, char *memory,
                    size_t capacity, size_t enough, const quire_t *q)
{
	size_t text_room = round_up(corpus->bytes, QUIRE_PAGE_SIZE);
	struct progress bar = progress_start(label);
	uint64_t before = process_resident(), text = 0, now;
	double start = seconds();

	*j = (struct job){ .corpus = corpus, .text = memory };
	index_init(&j->index, memory + text_room, capacity);
	while (j->file < corpus->count && j->used < enough) {
		const struct text_file *file = &corpus->files[j->file];
		char note[128] = "";
		struct quire_stats s;

		corpus_read(file, j->text + file->start);
		corpus_words(j->text + file->start, file->size, job_word, j);
		text += file->size;
		j->used = text + j->index.heap.used;
		if (++j->file % 16 && j->file < corpus->count)
			continue;
		now = process_resident();
		if (now > before && now - before > j->grown)
			j->grown = now - before;
		if (q && !quire_stats_get(q, &s))
			snprintf(note, sizeof note, ", resident %.1f, major faults %" PRIu64,
			         mib(s.resident), s.major_faults);
		progress_show(&bar, enough == SIZE_MAX ? text : j->used,
		              enough == SIZE_MAX ? corpus->bytes : enough, "heap %.1f MiB%s",
		              mib(j->used), note);
	}
	progress_end(&bar);
	j->build = seconds() - start;

	fprintf(stderr, "%-8s reading all of it back\n", label);
	j->digest = index_digest(&j->index);
	for (uint64_t i = 0; i < text; i++)
		j->digest = digest_add(j->digest, (unsigned char)j->text[i]);
	for (size_t i = 0; i < QUESTIONS; i++)
		j->answers[i] = ask(j, questions[i]);
	j->check = seconds() - start - j->build;
}

static bool is_plain(char c)
{
	return c >= ' ' && c <= '~';
}

/* "path:line: what stands there", all but the path from the text in the heap. */
static void print_place(const struct job *j, uint64_t place)
{
	const struct text_file *file = file_at(j->corpus, place);
	const char *text = j->text + file->start, *at = j->text + place;
	int line = 1, length = 0;

	for (const char *c = text; c < at; c++)
		line += *c == '\n';
	while (at > text && at > j->text + place - 24 && is_plain(at[-1]))
		at--;
	while (*at == ' ')
		at++;
	while (length < 60 && at + length < text + file->size && is_plain(at[length]))
		length++;
	printf("    %s:%d: %.*s\n", file->path, line, length, at);
}

static void print_answers(const struct job *j)
{
	for (size_t i = 0; i < QUESTIONS; i++) {
		const struct answer *a = &j->answers[i];

		printf("%s: %" PRIu64 " times in %" PRIu64 " files%s\n", questions[i], a->count,
		       a->files, a->count ? ", first and last" : "");
		if (a->count)
			print_place(j, a->first);
		if (a->count > 1)
			print_place(j, a->last);
	}
}

static void print_times(const struct job *plain, const struct job *paged)
{
	printf("\n%-24s %12s %12s %8s\n", "", "plain memory", "Quire", "ratio");
	printf("%-24s %10.2f s %10.2f s %8.2f\n", "build the index", plain->build, paged->build,
	       paged->build / plain->build);
	printf("%-24s %10.2f s %10.2f s %8.2f\n", "read all of it back", plain->check, paged->check,
	       paged->check / plain->check);
	printf("%-24s %10.1f M %10.1f M %8.2f\n", "the process grew by", mib(plain->grown),
	       mib(paged->grown), plain->grown ? (double)paged->grown / (double)plain->grown : 0);
}

static bool jobs_agree(const struct job *plain, const struct job *paged)
{
	bool same = plain->digest == paged->digest && plain->index.words == paged->index.words &&
	            plain->index.places == paged->index.places && plain->used == paged->used;

	for (size_t i = 0; i < QUESTIONS; i++)
		if (memcmp(&plain->answers[i], &paged->answers[i], sizeof plain->answers[i])) {
			fprintf(stderr, "%s: the answers for '%s' differ\n", demo_name,
			        questions[i]);
			same = false;
		}
	printf("\ncheck: %s: %" PRIu64 " words at %" PRIu64 " places, digest %016" PRIx64
	       "%s %016" PRIx64 "\n",
	       same ? "the same in both" : "THE TWO DIFFER", paged->index.words,
	       paged->index.places, plain->digest, same ? " =" : " is not", paged->digest);
	return same;
}

/* ------------------------------------------------------------------- main */

#define LIMIT ((uint64_t)64 << 20) /* bytes of text, unless --limit says otherwise */
#define UNCHECKED_MEMORY ((size_t)4 << 20)

static void help(void)
{
	printf("Usage: %s [OPTION]... [DIRECTORY]...\n"
	       "Read and index the text files below the directories (/usr/include and /usr/share)\n"
	       "in a heap %d times the memory budget, and check every word and place against\n"
	       "the same job in plain memory.\n\n"
	       "  --limit SIZE    most text to index, an even sample of what is found (64M)\n"
	       "  --memory SIZE   or QUIRE_MEMORY: budget; text is taken until the heap is %d times\n"
	       "                  that (the heap of all the text divided by %d; with --no-check: 4M)\n"
	       "  --no-check      the run in Quire only\n"
	       "  --help          this text\n",
	       demo_name, TIMES, TIMES, TIMES);
	help_of_quire("--memory ");
	printf("Exit status: 0: the answers are the same, 1: they differ or something failed,\n"
	       "2: wrong usage.\n");
}

static void find_text(struct corpus *corpus, char **roots, uint64_t limit)
{
	static const char *const standard[] = { "/usr/include", "/usr/share", NULL };
	const char *const *root = *roots ? (const char *const *)roots : standard;
	uint64_t found_bytes = 0;
	size_t found;

	for (; *root; root++) {
		int error;

		printf("looking for text below %s\n", *root);
		fflush(stdout);
		error = corpus_add(corpus, *root);
		if (error)
			fprintf(stderr, "%s: %s: %s\n", demo_name, *root, strerror(error));
		if (error && *roots)
			exit(1);
	}
	for (found = 0; found < corpus->count; found++)
		found_bytes += corpus->files[found].size;
	corpus_choose(corpus, limit);
	printf("text: %zu files, %.1f MiB, of %zu files, %.1f MiB found (%zu other files are not "
	       "text)\n",
	       corpus->count, mib(corpus->bytes), found, mib(found_bytes), corpus->others);
	if (!corpus->count)
		die("no text to index");
	fflush(stdout);
	/* Read it once for nothing: then neither run waits for the disk to deliver the text. */
	for (size_t i = 0; i < corpus->count; i++)
		corpus_read(&corpus->files[i], NULL);
}

int main(int argc, char **argv)
{
	struct quire_options options = { .size = sizeof options, .on_error = tell_error };
	struct corpus corpus = { 0 };
	struct job plain, paged;
	uint64_t limit = LIMIT;
	char **roots = argv;
	bool checked = true, ok = true;
	size_t capacity, length, enough;
	struct quire_stats s;
	quire_region_t *region;
	quire_t *q;

	for (char **arg = argv + 1; argc && *arg; arg++) {
		const char *value;

		if (!strcmp(*arg, "--help"))
			return help(), finish(0);
		else if (!strcmp(*arg, "--no-check"))
			checked = false;
		else if (option_value(&arg, "limit", &value))
			limit = option_size("limit", value);
		else if (!strncmp(*arg, "-", 1))
			option_of_quire(&arg, &options);
		else
			*roots++ = *arg; /* the names move to the front of argv */
	}
	*roots = NULL;
	option_memory_default(&options);
	find_text(&corpus, argv, limit);
	/* Address space for the text and for the index, more than it can need. */
	capacity = round_up(8 * corpus.bytes + ((size_t)64 << 20), QUIRE_PAGE_SIZE);
	if (capacity > INDEX_HEAP_MAX)
		capacity = INDEX_HEAP_MAX;
	length = round_up(corpus.bytes, QUIRE_PAGE_SIZE) + capacity;
	if (!checked && !options.memory)
		options.memory = UNCHECKED_MEMORY;
	enough = options.memory ? TIMES * options.memory : SIZE_MAX;

	if (checked) {
		char *memory = calloc(length, 1);

		if (!memory)
			die("no plain memory for the run to compare with; --no-check does without");
		job_run(&plain, &corpus, "plain", memory, capacity, enough, NULL);
		free(memory);
		corpus.count = plain.file;
		if (!options.memory) {
			options.memory = plain.used / TIMES;
			options.memory -= options.memory % QUIRE_PAGE_SIZE;
			if (options.memory < QUIRE_MEMORY_MIN)
				die("a heap of %.2f MiB is too little: index text for %.2f MiB",
				    mib(plain.used), mib(TIMES * QUIRE_MEMORY_MIN));
		}
	}

	check(quire_open(&q, &options), "cannot open a pager");
	check(quire_region_create(q, length, NULL, &region), "cannot make the region");
	job_run(&paged, &corpus, "Quire", quire_region_base(region), capacity, enough, q);
	check(quire_stats_get(q, &s), "statistics");

	print_answers(&paged);
	printf("\nheap: %.2f MiB, %.2f times the budget of %.2f MiB%s\n", mib(paged.used),
	       (double)paged.used / (double)s.budget, mib(s.budget),
	       paged.used < TIMES * s.budget ? " (the text is too short for more)" : "");
	printf("engine %s, I/O %s, policy %s; now %.2f MiB resident, %.2f standby, %.2f swapped\n",
	       quire_engine_name(q), quire_io_name(q), quire_policy_name(q), mib(s.resident),
	       mib(s.standby), mib(s.swapped));
	if (checked) {
		print_times(&plain, &paged);
		ok = jobs_agree(&plain, &paged);
	} else {
		printf("built in %.2f s, read back in %.2f s, not checked\n", paged.build,
		       paged.check);
	}
	printf("\n");
	check(quire_stats_print(q, stdout, QUIRE_FORMAT_STATUS), "printing");
	check(quire_close(q), "closing");
	corpus_free(&corpus);
	return finish(ok ? 0 : 1);
}
