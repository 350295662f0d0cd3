/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/support.h - what the integration programs share: pagers
 * opened with the environment's options, children with a time limit, accesses
 * whose signal is caught and examined, what the kernel says of the process.
 *
 * Each program is one theme, uses <quire.h> alone and takes engine, swap
 * directory and the rest from the environment (QUIRE_ENGINE, QUIRE_SWAP ...).
 * CHECK and its kin come from tests/unit/unit.h; MUST is for children and for
 * threads, where CUnit cannot be used.
 */
#ifndef QUIRE_TESTS_SUPPORT_H
#define QUIRE_TESTS_SUPPORT_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <quire.h>

#include "tests/unit/unit.h"

#define PAGE QUIRE_PAGE_SIZE
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

/* Sanitizers have memory of their own, and much address space. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* Ends a child or the program at once when x is false. */
#define MUST(x) ((x) ? (void)0 : must_failed(#x, __FILE__, __LINE__))
_Noreturn void must_failed(const char *what, const char *file, int line);

/* ------------------------------------------------------------- pagers */

/* With this budget, the rest from the environment. No engine here: the program ends as skipped. */
quire_t *pager_open(size_t memory);
quire_t *pager_open_options(struct quire_options *options);
quire_region_t *region_create(quire_t *q, size_t length);
struct quire_stats pager_stats(const quire_t *q);
struct quire_stats region_stats(const quire_region_t *r);
/* System calls may touch absent pages: engine uffd. */
bool engine_serves_kernel(const quire_t *q);
/* Are pages of their own mappings, if their neighbours are not in memory? */
bool engine_splits(const quire_t *q);

/* Counts what on_error is told; errors.last is the last of them. */
struct errors {
	unsigned count;    /* atomic */
	unsigned kinds[8]; /* atomic, by enum quire_error_kind */
	struct quire_error last;
};
void errors_count(void *errors, const struct quire_error *error);

/* --------------------------------------------------- words of a region */

/* What word i of page p holds in version v, never 0. */
uint64_t word(size_t page, size_t i, unsigned version);
/* Every word, or only the first and the last of each page. */
void fill(quire_region_t *r, size_t page, size_t count, unsigned version);
void fill_page(void *p, size_t page, unsigned version);
/* => the number of wrong words */
size_t wrong(quire_region_t *r, size_t page, size_t count, unsigned version);
size_t wrong_page(const void *p, size_t page, unsigned version);
size_t nonzero(quire_region_t *r, size_t page, size_t count);
void *page_at(quire_region_t *r, size_t page);
/* Pages of the range that are in memory and mapped. */
size_t mapped(quire_region_t *r, size_t page, size_t count);
/* A load and a store that the compiler must make. */
uint64_t load(const void *p);
void store(void *p, uint64_t value);

/* ------------------------------------------------- accesses that fail */

struct caught {
	int signal; /* 0: the access went through */
	int code;
	void *address;
	uint64_t value; /* of a load */
};

/*
 * Handlers for SIGBUS and SIGSEGV, to be installed before quire_open; outside
 * a try_* call they end the process by the signal's default action.
 */
void catch_install(void);
struct caught try_load(const void *p);
struct caught try_store(void *p, uint64_t value);
/* A whole page; => the first access that failed. */
struct caught try_fill_page(void *p, size_t page, unsigned version);

/* ------------------------------------------------------------ process */

/*
 * f(arg) in a child that is killed after seconds. => its wait status, or -1
 * when it had to be killed.
 */
int in_child(void (*f)(void *), void *arg, double seconds);
/* The same in two parts. */
pid_t child_start(void (*f)(void *), void *arg);
int child_end(pid_t pid, double seconds);
/*
 * child_start with descriptors of numbers below most only, while it forks: the child may be without its
 * pagers. f has the limit that was there before.
 */
pid_t child_start_short(void (*f)(void *), void *arg, unsigned most);
double seconds_now(void);
double cpu_seconds(void);
void sleep_seconds(double s);
size_t resident_bytes(void);
size_t machine_memory(void);
unsigned mappings(void);
unsigned descriptors(void);
unsigned threads(void);

/* A new directory under $QUIRE_SWAP, $TMPDIR or /var/tmp; atexit removes it with its contents. */
const char *temporary_directory(void);
/* dir/name, in static memory of eight turns. */
const char *path_in(const char *dir, const char *name);
unsigned entries(const char *dir);
bool contains(const char *text, const char *part);
/* Says that a part of a test was left out. */
void note_skipped(const char *what, const char *reason);

/* The larger figure when QUIRE_TEST_FULL is set. */
double quick_or_full(double quick, double full);

#endif
