/* SPDX-License-Identifier: MIT */
/*
 * tests/snapshot/model.c - random sequences of writes, discards, evictions, snapshots, clones,
 * rollbacks, images, forks and the rest, under a budget of 64 pages, compared with plain memory (world.c).
 *
 * Each sequence runs in a process of its own, which may fail, crash or hang. One that does is
 * made shorter for as long as it still does, and printed.
 *
 *     model [-t SECONDS] [--seed N] [--length N] [--verbose]
 */
#define _GNU_SOURCE
#include "world.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LENGTH_MAX 2000u
#define HANG 60u /* seconds */

static uint64_t state;

static uint32_t draw(uint32_t n)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t)((state * 0x2545f4914f6cdd1dull >> 32) % n);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void generate(struct op *ops, unsigned n)
{
	static const unsigned char weight[OP_KINDS] = {
		[OP_WRITE] = 24, [OP_READ] = 14,     [OP_DISCARD] = 6, [OP_COLD] = 12,
		[OP_PIN] = 2,    [OP_SNAPSHOT] = 9,  [OP_CLONE] = 5,   [OP_ROLLBACK] = 4,
		[OP_DIFF] = 3,   [OP_FREE] = 6,      [OP_DESTROY] = 3, [OP_CREATE] = 2,
		[OP_CHECK] = 8,  [OP_CHECK_ALL] = 1, [OP_STORM] = 1,   [OP_SAVE] = 4,
		[OP_LOAD] = 4,   [OP_FORK] = 2,
	};
	unsigned all = 0;

	for (unsigned k = 0; k < OP_KINDS; k++)
		all += weight[k];
	for (unsigned i = 0; i < n; i++) {
		unsigned at = draw(all), k = 0;

		while (at >= weight[k])
			at -= weight[k++];
		ops[i] = (struct op){ .kind = k, .a = draw(40), .b = draw(PAGES) };
		/* Often few pages, seldom many. */
		ops[i].c = draw(4) ? draw(8) : draw(PAGES);
	}
}

/* => it is right. quiet: nothing is printed */
static int run(const struct op *ops, unsigned n, int quiet, int verbose)
{
	pid_t child;
	int status;

	fflush(NULL);
	child = fork();
	if (child == 0) {
		if (quiet && !freopen("/dev/null", "w", stdout))
			_exit(2);
		if (quiet && !freopen("/dev/null", "w", stderr))
			_exit(2);
		alarm(HANG);
		world_run(ops, n, verbose);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child) {
		perror("model");
		exit(2);
	}
	if (!quiet && WIFSIGNALED(status))
		printf("the process ended by signal %d%s\n", WTERMSIG(status),
		       WTERMSIG(status) == SIGALRM ? ": it hung" : "");
	return status == 0;
}

/* Fails at least once in three runs: threads do not always meet. */
static int fails(const struct op *ops, unsigned n)
{
	for (int i = 0; i < 3; i++)
		if (!run(ops, n, 1, 0))
			return 1;
	return 0;
}

/* Leave out parts, ever smaller ones, as long as the rest still fails. => its length */
static unsigned shrink(struct op *ops, unsigned n)
{
	static struct op without[LENGTH_MAX];
	double end = now() + 120;

	for (unsigned part = n / 2; part > 0 && now() < end;) {
		unsigned left_out = 0;

		for (unsigned at = 0; at + part <= n && now() < end;) {
			memcpy(without, ops, at * sizeof *ops);
			memcpy(without + at, ops + at + part, (n - at - part) * sizeof *ops);
			if (fails(without, n - part)) {
				n -= part;
				memcpy(ops, without, n * sizeof *ops);
				left_out++;
			} else {
				at += part;
			}
		}
		if (!left_out || part > 1)
			part /= 2;
	}
	return n;
}

static int usage(const char *program)
{
	fprintf(stderr, "usage: %s [-t SECONDS] [--seed=N] [--length=N] [--verbose]\n", program);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seconds", required_argument, NULL, 't' },
		                                 { "seed", required_argument, NULL, 's' },
		                                 { "length", required_argument, NULL, 'n' },
		                                 { "verbose", no_argument, NULL, 'v' },
		                                 { NULL, 0, NULL, 0 } };
	static struct op ops[LENGTH_MAX];
	uint64_t seed = (uint64_t)time(NULL) * 1000003u + (uint64_t)getpid();
	unsigned length = 300, runs = 0;
	double seconds = 10, end;
	int one = 0, verbose = 0, c;

	while ((c = getopt_long(argc, argv, "t:", options, NULL)) != -1)
		switch (c) {
		case 't':
			seconds = atof(optarg);
			break;
		case 's':
			seed = strtoull(optarg, NULL, 10);
			one = 1;
			break;
		case 'n':
			length = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'v':
			verbose = 1;
			break;
		default:
			return usage(argv[0]);
		}
	if (length < 1 || length > LENGTH_MAX || optind != argc)
		return usage(argv[0]);
	end = now() + seconds;
	do {
		state = seed * 2 + 1;
		generate(ops, length);
		if (!run(ops, length, 0, verbose)) {
			printf("FAILED: %s --seed=%llu --length=%u\n", argv[0],
			       (unsigned long long)seed, length);
			length = shrink(ops, length);
			printf("as few as fail:\n");
			run(ops, length, 0, 1);
			return 1;
		}
		runs++;
		seed++;
	} while (!one && now() < end);
	printf("model: %u sequences of %u operations, all right\n", runs, length);
	return 0;
}
