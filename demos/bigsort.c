/* SPDX-License-Identifier: MIT */
/*
 * demos/bigsort.c - sort the lines of a file that is larger than the memory
 * budget, as if there were memory for all of it. The order is that of
 * LC_ALL=C sort(1): by bytes.
 *
 * No step of it reads or writes a temporary file; all of the text is in
 * regions of Quire. What makes it fast there is the choice of algorithm: each
 * step walks memory from low to high, or stays within what fits the budget.
 *
 *   read    the whole file into one region (written in order)
 *   runs    take as many lines as fit well within the budget, index and sort
 *           them there, and write them in order to a region of their own
 *   merge   a few runs at a time, each read in order, to longer runs written in
 *           order, and the last of them to the output file
 *
 * A quicksort of all lines at once would be shorter, and touch pages at random.
 */
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "demo.h"
#include "sortcheck.h"

const char demo_name[] = "bigsort";

#define TIMES 8                      /* the file is so many times the budget by default */
#define MEMORY_MIN ((size_t)4 << 20) /* ... but the budget is not less */
#define FAN_IN ((size_t)16)          /* runs to merge at a time */
#define LINE_MAX_BYTES (UINT32_MAX - 1u)

/*
 * System calls get this buffer of ordinary memory, never a region: under the
 * engine uffd-signal they fail with EFAULT on a page that is not resident.
 */
static char buffer[1 << 18];

/* ------------------------------------------------------------------ lines */

/*
 * A line, with its first bytes at hand: most comparisons end there and touch no
 * text. 24 bytes; text points into a region, so looking at it may page it in.
 */
struct line {
	uint64_t key; /* its first 8 bytes as a big-endian number, zeros behind the end */
	const char *text;
	uint32_t length; /* without the newline */
};

static struct line line_at(const char *text, const char *end)
{
	const char *newline = memchr(text, '\n', (size_t)(end - text));
	size_t length = (size_t)((newline ? newline : end) - text);
	struct line line = { .text = text, .length = (uint32_t)length };

	if (length > LINE_MAX_BYTES)
		die("a line is longer than 4 GiB");
	for (size_t i = 0; i < 8; i++)
		line.key = line.key << 8 | (i < length ? (unsigned char)text[i] : 0);
	return line;
}

static int line_compare(const struct line *a, const struct line *b)
{
	uint32_t shorter = a->length < b->length ? a->length : b->length;
	int order = 0;

	if (a->key != b->key)
		return a->key < b->key ? -1 : 1;
	if (shorter > 8)
		order = memcmp(a->text + 8, b->text + 8, shorter - 8);
	return order ? order : (a->length > b->length) - (a->length < b->length);
}

/*
 * Merge sort, bottom up: two arrays, each pass walks both from low to high.
 * Returns the one that holds the result. (qsort(3) would malloc as much.)
 */
static struct line *lines_sort(struct line *from, struct line *to, size_t count)
{
	for (size_t width = 1; width < count; width *= 2) {
		struct line *swap = from;

		for (size_t low = 0; low < count; low += 2 * width) {
			size_t mid = low + width < count ? low + width : count;
			size_t high = mid + width < count ? mid + width : count;
			size_t a = low, b = mid, out = low;

			while (a < mid && b < high)
				to[out++] = from[line_compare(&from[b], &from[a]) < 0 ? b++ : a++];
			while (a < mid)
				to[out++] = from[a++];
			while (b < high)
				to[out++] = from[b++];
		}
		from = to;
		to = swap;
	}
	return from;
}

/* ------------------------------------------------------------------- runs */

struct run {
	quire_region_t *region; /* sorted lines, each with its newline */
	size_t bytes;
	const char *end;  /* merge: of the lines */
	struct line line; /* merge: the next one */
};

struct sorter {
	quire_t *q;
	size_t budget;
	quire_region_t *text; /* the file */
	size_t length;        /* of it, in bytes */
	uint64_t lines;
	struct run *runs;    /* a queue: made at the end, merged from the front */
	size_t first, count; /* runs[first] to runs[count - 1] are to be merged */
	const char *output;
	int fd; /* of it */
};

/* The whole file, in the order of its bytes. */
static void read_text(struct sorter *s, int fd, const char *name)
{
	struct progress bar = progress_start("read");
	size_t done = 0;

	while (done < s->length) {
		size_t want = s->length - done < sizeof buffer ? s->length - done : sizeof buffer;
		ssize_t got = read(fd, buffer, want);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			die("%s: %s", name, strerror(errno));
		if (got == 0)
			die("%s: became shorter while it was read", name);
		memcpy((char *)quire_region_base(s->text) + done, buffer, (size_t)got);
		done += (size_t)got;
		progress_show(&bar, done, s->length, "%.1f MiB", mib(done));
	}
	progress_end(&bar);
}

/* A new region for a run, with a name that the statistics show. */
static quire_region_t *run_region(struct sorter *s, size_t bytes)
{
	struct quire_region_options options = { .size = sizeof options };
	quire_region_t *region;
	char name[32];

	snprintf(name, sizeof name, "run %zu", s->count + 1);
	options.name = name;
	check(quire_region_create(s->q, bytes, &options, &region), "cannot make a region");
	return region;
}

static void run_add(struct sorter *s, quire_region_t *region, size_t bytes)
{
	s->runs = realloc(s->runs, (s->count + 1) * sizeof *s->runs);
	if (!s->runs)
		die("no memory for the list of runs");
	s->runs[s->count++] = (struct run){ .region = region, .bytes = bytes };
}

/* Put sorted lines into a region of their own, so that each run has its own readahead. */
static void run_write(struct sorter *s, const struct line *lines, size_t count, size_t bytes)
{
	quire_region_t *region = run_region(s, bytes);
	char *to = quire_region_base(region);

	for (size_t i = 0; i < count; i++) {
		memcpy(to, lines[i].text, lines[i].length);
		to += lines[i].length;
		*to++ = '\n';
	}
	run_add(s, region, bytes);
}

/* Discard the whole pages of a region below done bytes that are not discarded yet. */
static void advise_done(quire_region_t *r, size_t *discarded, size_t done)
{
	done = done / QUIRE_PAGE_SIZE * QUIRE_PAGE_SIZE;
	if (done > *discarded)
		check(quire_advise(r, *discarded, done - *discarded, QUIRE_ADVISE_DONTNEED),
		      "advice");
	*discarded = done;
}

/*
 * Cut the text into runs that fit the budget with all that sorting one needs:
 * its text, its index twice, and the pages of the finished run on their way out.
 */
static void make_runs(struct sorter *s)
{
	size_t room = s->budget / 2 / sizeof(struct line) / 2, cost = 0, bytes = 0;
	const char *base = quire_region_base(s->text), *end = base + s->length;
	struct progress bar = progress_start("sort");
	quire_region_t *index;
	struct line *lines;
	size_t count = 0, done, discarded = 0;

	check(quire_region_create(s->q, 2 * room * sizeof *lines, NULL, &index),
	      "cannot make the region of the index");
	lines = quire_region_base(index);
	for (const char *next = base; next < end;) {
		lines[count] = line_at(next, end);
		next += lines[count].length + 1; /* one beyond end if the last newline is missing */
		bytes += lines[count].length + 1ul;
		cost += lines[count++].length + 2 * sizeof *lines;
		if (next < end && count < room && cost < s->budget / 2)
			continue;
		run_write(s, lines_sort(lines, lines + room, count), count, bytes);
		s->lines += count;
		/* The text of this run will not be read again: its pages need not be kept. */
		done = (size_t)((next < end ? next : end) - base);
		advise_done(s->text, &discarded, done);
		count = cost = bytes = 0;
		progress_show(&bar, done, s->length, "%zu runs", s->count);
	}
	progress_end(&bar);
	check(quire_region_destroy(index), "destroying the index");
	check(quire_region_destroy(s->text), "destroying the text");
}

/* ------------------------------------------------------------------ merge */

/* Where merged lines go: to memory, or through the buffer to a file. */
struct writer {
	char *to; /* NULL: to the file */
	int fd;
	const char *name;
	size_t used; /* of buffer */
};

static void writer_flush(struct writer *w)
{
	for (size_t done = 0; done < w->used;) {
		ssize_t put = write(w->fd, buffer + done, w->used - done);

		if (put < 0 && errno != EINTR)
			die("%s: %s", w->name, strerror(errno));
		done += put > 0 ? (size_t)put : 0;
	}
	w->used = 0;
}

static void writer_add(struct writer *w, const char *data, size_t length)
{
	if (w->to) {
		memcpy(w->to, data, length);
		w->to += length;
		return;
	}
	while (length) {
		size_t part = sizeof buffer - w->used < length ? sizeof buffer - w->used : length;

		memcpy(buffer + w->used, data, part);
		w->used += part;
		data += part;
		length -= part;
		if (w->used == sizeof buffer)
			writer_flush(w);
	}
}

/* Let the run at the top of the heap sink to its place: the least line stays on top. */
static void heap_sink(struct run **heap, size_t count, size_t at)
{
	struct run *run = heap[at];

	for (size_t child; (child = 2 * at + 1) < count; at = child) {
		if (child + 1 < count &&
		    line_compare(&heap[child + 1]->line, &heap[child]->line) < 0)
			child++;
		if (line_compare(&run->line, &heap[child]->line) <= 0)
			break;
		heap[at] = heap[child];
	}
	heap[at] = run;
}

/*
 * Write the least line of the next runs of the queue, again and again, and
 * destroy each run that is done with. Each is read once, in order.
 */
static void merge(struct sorter *s, size_t count, struct writer *w, struct progress *bar)
{
	struct run *heap[FAN_IN];
	size_t bytes = 0;

	for (size_t i = 0; i < count; i++) {
		struct run *run = heap[i] = &s->runs[s->first++];
		const char *base = quire_region_base(run->region);

		check(quire_advise(run->region, 0, quire_region_length(run->region),
		                   QUIRE_ADVISE_SEQUENTIAL),
		      "advice");
		run->end = base + run->bytes;
		run->line = line_at(base, run->end);
	}
	for (size_t i = count / 2; i-- > 0;)
		heap_sink(heap, count, i);
	for (uint64_t lines = 1; count; lines++) {
		struct run *run = heap[0];
		const char *next = run->line.text + run->line.length + 1;

		writer_add(w, run->line.text, run->line.length);
		writer_add(w, "\n", 1);
		bytes += run->line.length + 1ul;
		if (next < run->end) {
			run->line = line_at(next, run->end);
		} else {
			check(quire_region_destroy(run->region), "destroying a run");
			heap[0] = heap[--count];
		}
		if (count)
			heap_sink(heap, count, 0);
		if (bar && (lines % 4096 == 0 || !count))
			progress_show(bar, bytes, s->length, "%.1f MiB", mib(bytes));
	}
}

/* Merge runs to longer ones until there are few enough to be merged to the file. */
static void merge_all(struct sorter *s)
{
	struct writer out = { .fd = s->fd, .name = s->output };
	struct progress bar = progress_start("merge");
	size_t many = s->count > FAN_IN ? (s->count - 2) / (FAN_IN - 1) : 0;

	for (size_t i = 1; s->count - s->first > FAN_IN; i++) {
		size_t bytes = 0;
		quire_region_t *region;
		struct writer w;

		for (size_t j = s->first; j < s->first + FAN_IN; j++)
			bytes += s->runs[j].bytes;
		region = run_region(s, bytes);
		w = (struct writer){ .to = quire_region_base(region) };
		merge(s, FAN_IN, &w, NULL);
		run_add(s, region, bytes);
		progress_show(&bar, i, many, "%zu runs left", s->count - s->first);
	}
	progress_end(&bar);
	bar = progress_start("write");
	merge(s, s->count - s->first, &out, &bar);
	writer_flush(&out);
	if (close(s->fd))
		die("%s: %s", s->output, strerror(errno));
	progress_end(&bar);
}

/* ------------------------------------------------------------------- main */

static void help(void)
{
	printf("Usage: %s [OPTION]... INPUT OUTPUT\n"
	       "Sort the lines of INPUT by bytes, as LC_ALL=C sort does, into OUTPUT, in regions\n"
	       "of memory larger than the budget.\n\n"
	       "  --memory SIZE     or QUIRE_MEMORY: budget (an eighth of the file, at least 4M)\n"
	       "  --readahead SIZE  or QUIRE_READAHEAD: widest readahead window (such that those\n"
	       "                    of all runs of a merge take an eighth of the budget; 1M from\n"
	       "                    a budget of 64M on)\n"
	       "  --verify          run sort(1) on INPUT and compare its output with OUTPUT\n"
	       "  --stats           print the statistics of the pager\n"
	       "  --help            this text\n",
	       demo_name);
	help_of_quire("--memory --readahead ");
	printf("Exit status: 0: done, 1: failed, or sort(1) disagrees, 2: wrong usage.\n");
}

/*
 * Choose the budget, and readahead that fits it: a merge has a window to read
 * from and one on its way for each run, and an eighth of memory for all that.
 */
static void choose_memory(struct quire_options *options, size_t length)
{
	size_t window;

	if (!options->memory)
		options->memory = length / TIMES > MEMORY_MIN ? length / TIMES : MEMORY_MIN;
	window = options->memory / 8 / (2 * FAN_IN);
	if (!options->readahead && !getenv("QUIRE_READAHEAD") && window < (256 << 10))
		options->readahead = round_up(window, QUIRE_PAGE_SIZE);
}

/* Opened before the work begins, so that a bad name is told at once. */
static int open_output(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0)
		die("%s: %s", name, strerror(errno));
	return fd;
}

static void sort_file(struct sorter *s, const struct quire_options *options, int fd,
                      const char *input, bool print_stats)
{
	struct quire_region_options name = { .size = sizeof name, .name = "text" };
	double start = seconds(), read, runs;
	struct quire_stats stats;
	size_t count;

	check(quire_open(&s->q, options), "cannot open a pager");
	s->budget = quire_memory(s->q);
	check(quire_region_create(s->q, s->length, &name, &s->text), "cannot make the region");
	printf("%s: %.1f MiB of text, budget %.1f MiB (1/%.1f), engine %s\n", input, mib(s->length),
	       mib(s->budget), (double)s->length / (double)s->budget, quire_engine_name(s->q));
	fflush(stdout);
	read_text(s, fd, input);
	read = seconds();
	make_runs(s);
	runs = seconds();
	count = s->count;
	merge_all(s);
	printf("%" PRIu64 " lines sorted in %.2f s: read %.2f, %zu sorted runs %.2f, merge %.2f\n",
	       s->lines, seconds() - start, read - start, count, runs - read, seconds() - runs);
	check(quire_stats_get(s->q, &stats), "statistics");
	printf("paged in %.1f MiB, out %.1f MiB; %" PRIu64 " major faults; readahead %" PRIu64
	       " pages, %" PRIu64 " of them used\n",
	       mib(stats.pages_in * QUIRE_PAGE_SIZE), mib(stats.pages_out * QUIRE_PAGE_SIZE),
	       stats.major_faults, stats.readahead_issued, stats.readahead_hits);
	if (print_stats)
		check(quire_stats_print(s->q, stdout, QUIRE_FORMAT_STATUS), "printing");
	check(quire_close(s->q), "closing");
	free(s->runs);
}

int main(int argc, char **argv)
{
	struct quire_options options = { .size = sizeof options, .on_error = tell_error };
	bool verified = false, print_stats = false;
	struct sorter sorter = { 0 };
	char *names[2];
	struct stat in, out;
	int count = 0, fd;
	double time;

	for (char **arg = argv + 1; argc && *arg; arg++) {
		if (!strcmp(*arg, "--help"))
			return help(), finish(0);
		else if (!strcmp(*arg, "--verify"))
			verified = true;
		else if (!strcmp(*arg, "--stats"))
			print_stats = true;
		else if (!strncmp(*arg, "-", 1))
			option_of_quire(&arg, &options);
		else if (count == 2)
			die_usage("one file too many", *arg);
		else
			names[count++] = *arg;
	}
	if (count != 2)
		die_usage("missing", count ? "OUTPUT" : "INPUT");
	option_memory_default(&options);
	fd = open(names[0], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &in))
		die("%s: %s", names[0], strerror(errno));
	if (!S_ISREG(in.st_mode))
		die("%s: not a regular file", names[0]);
	if (!stat(names[1], &out) && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
		die("%s: input and output are the same file", names[1]);
	sorter.length = (size_t)in.st_size;
	sorter.output = names[1];
	sorter.fd = open_output(names[1]);
	if (sorter.length) {
		choose_memory(&options, sorter.length);
		sort_file(&sorter, &options, fd, names[0], print_stats);
	} else {
		merge_all(&sorter); /* of no runs: makes an empty file */
		printf("%s: is empty\n", names[0]);
	}
	close(fd);
	if (!verified)
		return finish(0);
	if (!sort_agrees(names[0], names[1], options.memory ? options.memory : MEMORY_MIN, &time))
		return 1;
	printf("verified: the same as LC_ALL=C sort -S %zuK, which took %.2f s\n",
	       (options.memory ? options.memory : MEMORY_MIN) / 1024, time);
	return finish(0);
}
