/* SPDX-License-Identifier: MIT */
/*
 * bench/calls.c - what the guard costs: system calls that have nothing to do with paged
 * memory, with the guard on and off; and trapped ones.
 *
 *     calls [ROUNDS]
 *
 * Each round measures both ways in processes of their own, one after another; printed
 * are medians. The target is for the first kind: at most 100 ns more.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <quire.h>

#define ROUNDS_MAX 101
#define CALLS 20000
#define TRIES 15

static int zero, null;
static char *memory; /* what is read and written */

static void do_getppid(void)
{
	syscall(SYS_getppid);
}

static void do_read(void)
{
	if (read(zero, memory, 8) != 8)
		abort();
}

static void do_write(void)
{
	if (write(null, memory, 8) != 8)
		abort();
}

static void do_pread_4k(void)
{
	if (pread(zero, memory, 4096, 0) != 4096)
		abort();
}

static void do_writev(void)
{
	struct iovec v = { memory, 8 };

	if (writev(null, &v, 1) != 8)
		abort();
}

static void do_fstat(void)
{
	if (fstat(zero, (struct stat *)memory) != 0)
		abort();
}

static void do_futex(void)
{
	syscall(SYS_futex, memory, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void do_clock(void)
{
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, memory);
}

static const struct {
	const char *name;
	void (*call)(void);
} calls[] = {
	{ "getppid", do_getppid },      { "read, 8 bytes", do_read },
	{ "write, 8 bytes", do_write }, { "pread, 4 KiB", do_pread_4k },
	{ "writev", do_writev },        { "fstat", do_fstat },
	{ "futex, wake", do_futex },    { "clock_gettime", do_clock },
};

#define KINDS (sizeof calls / sizeof *calls)

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* ns a call: the least of several tries, as the rest is others' */
static void measure(double *out)
{
	for (size_t k = 0; k < KINDS; k++) {
		out[k] = 1e18;
		for (int i = 0; i < TRIES; i++) {
			double start = now(), each;

			for (int n = 0; n < CALLS; n++)
				calls[k].call();
			each = (now() - start) / CALLS;
			out[k] = each < out[k] ? each : out[k];
		}
	}
}

enum way { OFF, ON, TRAPPED, WAYS };

/* In a child: the guard cannot be turned off again. */
static void measure_way(enum way way, double *out)
{
	static char here[8192];
	struct quire_options o = { .size = sizeof o,
		                   .memory = 64 << 20,
		                   .guard = way == OFF ? "off" : "on" };
	quire_region_t *r;
	quire_t *q;

	if (quire_open(&q, &o) || quire_region_create(q, 1 << 20, NULL, &r)) {
		fprintf(stderr, "calls: %s\n", quire_error_message());
		_exit(2);
	}
	memory = way == TRAPPED ? quire_region_base(r) : here;
	memset(memory, 0, 8192);
	measure(out);
	_exit(0);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *figures, int n)
{
	qsort(figures, (size_t)n, sizeof *figures, compare);
	return figures[n / 2];
}

int main(int argc, char **argv)
{
	static double figures[WAYS][KINDS][ROUNDS_MAX], more[KINDS][ROUNDS_MAX];
	int rounds = argc > 1 ? atoi(argv[1]) : 5;
	double *shared;

	/* An engine that the guard is for. */
	setenv("QUIRE_ENGINE", "sigsegv", 0);
	if (rounds < 1 || rounds > ROUNDS_MAX)
		return 2;
	zero = open("/dev/zero", O_RDONLY);
	null = open("/dev/null", O_WRONLY);
	shared = mmap(NULL, KINDS * sizeof *shared, PROT_READ | PROT_WRITE,
	              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (zero < 0 || null < 0 || shared == MAP_FAILED)
		return 2;
	for (int i = 0; i < rounds; i++)
		for (enum way way = 0; way < WAYS; way++) {
			int status;
			pid_t child = fork();

			if (child == 0)
				measure_way(way, shared);
			if (waitpid(child, &status, 0) != child || status != 0)
				return 2;
			for (size_t k = 0; k < KINDS; k++)
				figures[way][k][i] = shared[k];
		}
	printf("%-16s %9s %9s %9s %9s\n", "ns a call", "guard off", "guard on", "more", "trapped");
	for (size_t k = 0; k < KINDS; k++) {
		for (int i = 0; i < rounds; i++)
			more[k][i] = figures[ON][k][i] - figures[OFF][k][i];
		printf("%-16s %9.0f %9.0f %9.0f", calls[k].name, median(figures[OFF][k], rounds),
		       median(figures[ON][k], rounds), median(more[k], rounds));
		if (calls[k].call == do_getppid)
			printf(" %9s\n", "");
		else
			printf(" %9.0f\n", median(figures[TRAPPED][k], rounds));
	}
	printf("(target: at most 100 more; trapped: all of the call; medians of %d rounds)\n",
	       rounds);
	return 0;
}
