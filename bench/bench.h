/* SPDX-License-Identifier: MIT */
/*
 * bench/bench.h - what the files of the benchmark share.
 *
 *   bench.c    options; the rounds: which job, which contender, in which order
 *   child.c    one measurement in a process of its own; samples its memory
 *   memory.c   the memory under test: a Quire region, or a plain mapping
 *   work.c     the workloads; every word that is read is checked
 *   snapshot.c the workloads with snapshots: Quire's, or fork and its copy-on-write
 *   raw.c      what the disk itself can do
 *   swap.c     the kernel's turn: a swap file and a memory cgroup, made and removed
 *   figures.c  the list of figures, their values, medians and targets
 *   report.c   the table and the targets in words
 *   json.c     the same as JSON
 *
 * A job runs a workload for one contender and yields figures. The parent
 * process touches none of the memory under test.
 */
#ifndef QUIRE_BENCH_H
#define QUIRE_BENCH_H

#include <quire.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define PAGE 4096UL
#define PAGE_WORDS (PAGE / sizeof(uint64_t))
#define MIB ((size_t)1 << 20)

enum contender {
	SIGNAL,
	UFFD,
	SEGV,      /* with io_uring */
	SEGV_SYNC, /* with plain I/O */
	QUIRES,
	KERNEL = QUIRES,
	RAW,
	CONTENDERS
};
extern const char *const contender_name[CONTENDERS], *const contender_id[CONTENDERS];

struct settings {
	size_t region, memory; /* bytes */
	size_t swap_size;      /* of the kernel's swap file, bytes */
	double seconds;        /* each random access measurement */
	double warmup;         /* the longest warm-up before one */
	double idle;           /* how long an idle pager is watched */
	double limit;          /* no new measurement begins after that many seconds */
	unsigned rounds, threads;
	const char *dir, *json, *state, *only, *contenders;
	bool no_kernel;
};

/* ------------------------------------------------------------- figures */

/* clang-format off */
enum figure {
	F_TOUCH_ORDER, F_TOUCH_RANDOM, F_FILL,
	F_READ_1, F_READ_1_MISS, F_READ_N, F_READ_N_MISS,
	F_RMW_1, F_RMW_1_MISS, F_RMW_N, F_RMW_N_MISS,
	F_SCAN_READ, F_SCAN_WRITE,
	F_SNAP_CREATE, F_SNAP_STALL, F_SNAP_STALL_MAX,
	F_SNAP_ORDER, F_SNAP_ORDER_RATIO, F_SNAP_RANDOM, F_SNAP_RANDOM_RATIO, F_SNAP_ALONE_RATIO,
	F_SNAP_BEYOND, F_SNAP_MEMORY, F_FORK,
	F_RESIDENT, F_OVER, F_METADATA, F_OPEN, F_IDLE,
	F_DEPTH_32, F_CHECK,
	F_MINOR_P50, F_MINOR_P99, F_MINOR_P999,
	F_MAJOR_P50, F_MAJOR_P99, F_MAJOR_P999,
	F_MAJOR_N_P50, F_MAJOR_N_P99, F_MAJOR_N_P999,
	F_RMW_N_P50, F_RMW_N_P99, F_RMW_N_P999,
	FIGURES
};
/* clang-format on */

struct figure_row {
	const char *id, *name, *unit;
	int decimals;
	bool worst; /* shown is the greatest value, not the median */
};
extern const struct figure_row figure_rows[FIGURES];

void figure_add(enum figure f, enum contender who, double value);
unsigned figure_count(enum figure f, enum contender who);
double figure_value(enum figure f, enum contender who, unsigned i);
/* The median, or the greatest where the row says so. NAN: there is none. */
double figure_result(enum figure f, enum contender who);

struct target {
	const char *name;
	enum figure figure;
	enum figure against_figure; /* of contender against; unused if absolute */
	enum contender against;
	bool absolute, at_most;
	double target[QUIRES]; /* 0: none */
};
extern const struct target targets[];
extern const unsigned target_count;
/* The ratio, or the figure itself; NAN if a side is absent. low, high: over the rounds. */
double target_ratio(const struct target *t, enum contender who, double *low, double *high);
bool target_met(const struct target *t, enum contender who, double ratio);

/* -------------------------------------------------------------- one job */

#define OUTCOME_FIGURES 64

/* What a child hands to its parent, in shared memory. */
struct outcome {
	enum { OUT_RUNNING, OUT_DONE, OUT_SKIPPED, OUT_FAILED, OUT_WRONG } state;
	char message[256];
	unsigned count;
	struct {
		enum figure figure;
		double value;
	} figure[OUTCOME_FIGURES];
	atomic_ulong baseline; /* resident pages before the memory was made; 0: not yet */
	uint64_t metadata;     /* bytes, of Quire */
	atomic_uint errors;    /* told by Quire; the first one is described here */
	int error_kind, error_errno;
	char error_message[128];
	double peak; /* filled in by the parent: resident bytes above baseline */
};

struct job {
	const char *id, *name;
	void (*run)(const struct settings *s, enum contender who);
	unsigned who;      /* bits 1 << contender */
	enum figure shown; /* the one it is about */
	bool once;         /* in the first round only */
};
extern const struct job jobs[];
extern const unsigned job_count;

/* In a child: hand a figure up; end at once with a message. */
void yield_figure(enum figure f, double value);
void yield_metadata(uint64_t bytes);
void yield_baseline(void);
void yield_error(int kind, int error, const char *message); /* async-signal-safe */
_Noreturn void give_up(int state, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Run job for who in a child and fill *out. false: interrupted by a signal. */
bool child_run(const struct job *job, enum contender who, const struct settings *s, double seconds,
               struct outcome *out);
extern volatile int interrupted; /* the signal that asks us to stop */

double now(void); /* seconds, monotonic */
void pause_for(double seconds);

/* -------------------------------------------------- the memory under test */

struct memory {
	enum contender who;
	uint64_t *words;
	size_t length, count; /* bytes, words */
	quire_t *quire;
	quire_region_t *region;
};

/* Gives the job up (skipped or failed) if it cannot be had. */
void memory_open(struct memory *m, enum contender who, const struct settings *s, size_t length);
void memory_close(struct memory *m);
/* Accesses that had to read the disk, so far. */
uint64_t memory_misses(const struct memory *m);
/* Yield what Quire's statistics say about latencies: first is the row of p50. */
void memory_latencies(const struct memory *m, bool major, enum figure first);

/* ----------------------------------------------------------- workloads */

/* What an update adds: odd, so that how often a word was updated can be told from it. */
#define STEP 0x9e3779b97f4a7c15u
uint64_t step_inverse(void); /* 1 / STEP modulo 2^64 */
void fill(struct memory *m); /* the word at index i is mix(i) */
/* The numbers of all pages, in order or shuffled; to be freed. */
uint32_t *page_order(size_t pages, bool at_random);
_Noreturn void wrong_word(const char *what, uint64_t i, uint64_t got, uint64_t want);
void snapshot(const struct settings *s, enum contender who); /* the job */
size_t snapshot_created(const struct settings *s);           /* bytes that it takes one of */
size_t snapshot_written(const struct settings *s);           /* bytes that it writes after one */
size_t snapshot_beyond(const struct settings *s); /* so many that they and the copies do not fit */

/* ------------------------------------------------------------ raw limits */

/* The file under dir that the raw limits are measured on; it has no name. Returns 0 or -errno. */
int raw_open(const struct settings *s);
bool raw_is_direct(void);
/* In a child; each yields the RAW column of the workload it stands beside. */
void raw_depth_1(const struct settings *s);
void raw_deep(const struct settings *s);
void raw_sequential(const struct settings *s);

/* ------------------------------------------------------ the kernel's swap */

/* false: why says what is missing; nothing is left behind. */
bool swap_open(const struct settings *s, char *why, size_t size);
void swap_close(void);
void swap_enter(void);        /* a child: enter the cgroup */
const char *swap_terms(void); /* in words: limit, version, swappiness */

/* Write size bytes of noise. Returns 0, -errno, or -EINTR when interrupted. */
int write_noise(int fd, size_t size);
/* The word at index i of a filled region. */
static inline uint64_t mix(uint64_t i)
{
	uint64_t x = (i + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;

	x ^= x >> 29;
	x *= 0x94d049bb133111ebu;
	return x ^ (x >> 32);
}

static inline uint64_t xorshift(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

static inline uint64_t below(uint64_t *state, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)xorshift(state) * n) >> 64);
}

/* ---------------------------------------------------------------- output */

void report_print(FILE *f, const struct settings *s, unsigned failures);
int json_write(const char *path, const struct settings *s, unsigned failures);
void absent_set(enum contender who, const char *why);
const char *absent_reason(enum contender who); /* NULL: it takes part */
extern unsigned cut_short; /* the round in which --limit ended it; 0: all was done */
bool is_reference(const struct settings *s); /* the sizes that the targets are meant for */
/* How many CPUs others kept busy since others_begin: is the machine quiet enough? */
void others_begin(void);
double others_used(void);
/* The machine in words. */
void machine_describe(const struct settings *s, char *text, size_t size);

#endif
