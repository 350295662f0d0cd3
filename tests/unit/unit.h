/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/unit.h - what every unit test program is made of: one CUnit suite,
 * run quietly. Header only; each program is one file.
 *
 *     static void adds(void)
 *     {
 *             CHECK(1 + 1 == 2);
 *             CHECK_EQ(add(1, 1), 2);         // prints both values when they differ
 *             REQUIRE(p != NULL);             // a failure ends the test
 *     }
 *
 *     int main(int argc, char **argv)
 *     {
 *             static const struct unit_test tests[] = { UNIT(adds), UNIT_END };
 *
 *             return unit_main(argc, argv, "name", tests);
 *     }
 *
 * A program given names runs those tests only. It prints its failures and, as
 * the last line, "N passed, N failed"; the status is 0 or 1. unit_skip_all()
 * ends it with status 77. Random tests take their numbers from unit_seed() and
 * unit_random(); QUIRE_TEST_SEED repeats a run. unit_valgrind() is true under
 * valgrind, for tests that have to be smaller there, or be left out.
 *
 * The CHECK macros may be used on the thread that runs the test only: CUnit
 * has no lock. Other threads count their failures for it.
 */
#ifndef QUIRE_TESTS_UNIT_H
#define QUIRE_TESTS_UNIT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sys/mman.h>

#include <CUnit/CUnit.h>
#include <CUnit/TestDB.h>
#include <CUnit/TestRun.h>

struct unit_test {
	const char *name;
	void (*run)(void);
};

#define UNIT(function)              \
	{                           \
#function, function \
	}
#define UNIT_END           \
	{                  \
		NULL, NULL \
	}

#define CHECK(x) CU_assertImplementation(!!(x), __LINE__, #x, __FILE__, __func__, CU_FALSE)
#define REQUIRE(x) CU_assertImplementation(!!(x), __LINE__, #x, __FILE__, __func__, CU_TRUE)
#define CHECK_EQ(a, b)                                                                         \
	unit_equal((long long)(a), (long long)(b), __LINE__, #a " == " #b, __FILE__, __func__, \
	           false)
#define REQUIRE_EQ(a, b) \
	unit_equal((long long)(a), (long long)(b), __LINE__, #a " == " #b, __FILE__, __func__, true)
#define CHECK_STR(a, b) unit_strings((a), (b), __LINE__, #a " is " #b, __FILE__, __func__)

static inline void unit_equal(long long a, long long b, unsigned line, const char *words,
                              const char *file, const char *function, bool fatal)
{
	char text[300];

	snprintf(text, sizeof text, "%.200s (%lld and %lld)", words, a, b);
	CU_assertImplementation(a == b, line, text, file, function, fatal);
}

static inline void unit_strings(const char *a, const char *b, unsigned line, const char *words,
                                const char *file, const char *function)
{
	char text[500];

	a = a ? a : "(null)";
	b = b ? b : "(null)";
	snprintf(text, sizeof text, "%.150s (\"%.150s\" and \"%.150s\")", words, a, b);
	CU_assertImplementation(strcmp(a, b) == 0, line, text, file, function, CU_FALSE);
}

/* End the program as skipped. */
static inline void unit_skip_all(const char *reason)
{
	printf("skipped: %s\n", reason);
	exit(77);
}

/* tests/run.sh says so. */
static inline bool unit_valgrind(void)
{
	return getenv("QUIRE_TEST_VALGRIND") != NULL;
}

/*
 * Valgrind has a map of memory of its own: limits that a test sets do not hold there,
 * and large reservations fail. => true, and said: the test is to be left out
 */
static inline bool unit_foreign_memory(void)
{
	if (unit_valgrind())
		printf("left out: valgrind has a map of memory of its own\n");
	return unit_valgrind();
}

/* Nor are touches of what is not there for valgrind. => true, and said: the test is to be left out */
static inline bool unit_foreign_faults(void)
{
	if (unit_valgrind())
		printf("left out: to touch what is not there is an error to valgrind\n");
	return unit_valgrind();
}

/* TSan's runtime knows no child of fork that starts threads. => true, and said: the test is to be left out */
static inline bool unit_foreign_threads(void)
{
	bool tsan = false;

#if defined(__SANITIZE_THREAD__)
	tsan = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
	tsan = true;
#endif
#endif
	if (tsan)
		printf("left out: ThreadSanitizer knows no threads of a child of fork\n");
	return tsan;
}

/* Pages in memory of this process, by statm(5). */
static inline unsigned long unit_resident_pages(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f) {
		if (fscanf(f, "%*u %lu", &pages) != 1)
			pages = 0;
		fclose(f);
	}
	return pages;
}

/* Linux has a page of zeros that all share who only read. Kernels were met that give each his own. */
static inline bool unit_zeros_take_memory(void)
{
	const size_t bytes = (size_t)4 << 20;
	unsigned long before = unit_resident_pages();
	volatile char *p = (volatile char *)mmap(NULL, bytes, PROT_READ,
	                                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool more;

	for (size_t i = 0; i < bytes; i += 4096)
		(void)p[i];
	more = unit_resident_pages() > before + bytes / 4096 / 2;
	munmap((void *)p, bytes);
	return more;
}

/* The state of unit_random(): xorshift64*, so that a seed means the same everywhere. */
static inline uint64_t *unit_random_state(void)
{
	static uint64_t state;

	return &state;
}

static inline uint64_t unit_random(void)
{
	uint64_t *x = unit_random_state();

	*x ^= *x >> 12;
	*x ^= *x << 25;
	*x ^= *x >> 27;
	return *x * 0x2545f4914f6cdd1dull;
}

/* A number in 0 .. n - 1. */
static inline uint64_t unit_below(uint64_t n)
{
	return (uint64_t)((unsigned __int128)unit_random() * n >> 64);
}

/* How the program was called, for messages. */
static inline const char **unit_program(void)
{
	static const char *program = "";

	return &program;
}

/*
 * Seed unit_random(): from QUIRE_TEST_SEED, else from the clock. Prints the
 * seed and the command that repeats the test.
 */
static inline uint64_t unit_seed(void)
{
	const char *given = getenv("QUIRE_TEST_SEED");
	CU_pTest test = CU_get_current_test();
	struct timespec t;
	uint64_t seed;

	clock_gettime(CLOCK_REALTIME, &t);
	seed = given ? strtoull(given, NULL, 0) :
	               (uint64_t)t.tv_sec * 1000003u + (uint64_t)t.tv_nsec;
	printf("seed %llu: QUIRE_TEST_SEED=%llu %s %s\n", (unsigned long long)seed,
	       (unsigned long long)seed, *unit_program(), test ? test->pName : "");
	fflush(stdout);
	*unit_random_state() = seed ? seed : 1;
	for (int i = 0; i < 8; i++) /* neighbouring seeds part */
		unit_random();
	return seed;
}

static inline bool unit_wanted(int argc, char **argv, const char *name)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return true;
	return argc < 2;
}

static inline int unit_main(int argc, char **argv, const char *suite, const struct unit_test *tests)
{
	CU_pFailureRecord failure;
	unsigned run, failed;
	CU_pSuite s;
	int wanted = 0;

	*unit_program() = argv[0];
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (CU_initialize_registry() != CUE_SUCCESS || !(s = CU_add_suite(suite, NULL, NULL))) {
		printf("CUnit: %s\n", CU_get_error_msg());
		return 1;
	}
	for (; tests->name; tests++) {
		if (!unit_wanted(argc, argv, tests->name))
			continue;
		if (!CU_add_test(s, tests->name, tests->run)) {
			printf("CUnit: %s: %s\n", tests->name, CU_get_error_msg());
			return 1;
		}
		wanted++;
	}
	if (wanted < (argc > 1 ? argc - 1 : 1)) {
		printf("%s: no such test\n", argv[0]);
		return 1;
	}
	CU_run_all_tests();
	for (failure = CU_get_failure_list(); failure; failure = failure->pNext)
		printf("FAIL %s: %s:%u: %s\n", failure->pTest ? failure->pTest->pName : suite,
		       failure->strFileName ? failure->strFileName : "?", failure->uiLineNumber,
		       failure->strCondition ? failure->strCondition : "?");
	run = CU_get_number_of_tests_run();
	failed = CU_get_number_of_tests_failed();
	if (run < (unsigned)wanted) /* a test that did not run did not pass */
		failed += (unsigned)wanted - run, run = (unsigned)wanted;
	printf("%u passed, %u failed\n", run - failed, failed);
	CU_cleanup_registry();
	return failed != 0;
}

#endif
