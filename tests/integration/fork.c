/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/fork.c - children of fork(2): what they may do goes well
 * whatever the other threads were doing at that moment, and the parent's
 * memory is not harmed.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHURNERS = 2, BALLAST = 1500 };

static quire_t *q;
static quire_region_t *steady;
static unsigned stop, failures;

/* Regions come and go, in front of many others; so the table of regions is mostly in motion. */
static void *churn(void *arg)
{
	unsigned v = (unsigned)(uintptr_t)arg;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		quire_region_t *r = region_create(q, 4 * PAGE);

		fill(r, 0, 1, v);
		if (madvise(page_at(r, 0), PAGE, MADV_DONTNEED) || nonzero(r, 0, 1) ||
		    quire_region_destroy(r))
			__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Looks regions up without a rest: each madvise on managed memory does. */
static void *look(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		if (madvise(page_at(steady, 255), PAGE, MADV_DONTNEED))
			__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
	return NULL;
}

/* Memory of the child's own. */
static void own_memory(void)
{
	char *p = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	MUST(p != MAP_FAILED);
	for (int round = 0; round < 50; round++) {
		memset(p, 1, 8 * PAGE);
		MUST(madvise(p, 8 * PAGE, round % 2 ? MADV_DONTNEED : MADV_FREE) == 0);
		MUST(round % 2 == 0 || (p[0] == 0 && p[8 * PAGE - 1] == 0));
	}
	MUST(munmap(p, 8 * PAGE) == 0);
}

/* => wait status of a child that does this; one that hangs is ended by a signal */
static int fork_child(void (*f)(void))
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		alarm(10);
		f();
		_exit(0);
	}
	MUST(pid > 0 && waitpid(pid, &status, 0) == pid);
	return status;
}

static void while_regions_change(void)
{
	int rounds = (int)quick_or_full(150, 2000);
	pthread_t t[CHURNERS + 1];
	unsigned bad = 0;

	stop = failures = 0;
	q = pager_open(2 * MIB);
	steady = region_create(q, 256 * PAGE);
	fill(steady, 0, 64, 1);
	for (int i = 0; i < BALLAST; i++)
		region_create(q, PAGE);
	for (uintptr_t i = 0; i < CHURNERS; i++)
		MUST(!pthread_create(&t[i], NULL, churn, (void *)(i + 1)));
	MUST(!pthread_create(&t[CHURNERS], NULL, look, NULL));
	for (int i = 0; i < rounds && bad == 0; i++) {
		int status = fork_child(own_memory);

		if (status != 0)
			printf("child %d: status %#x\n", i, (unsigned)status);
		bad += status != 0;
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = 0; i <= CHURNERS; i++)
		pthread_join(t[i], NULL);
	CHECK_EQ(bad, 0);
	CHECK_EQ(failures, 0);
	CHECK_EQ(wrong(steady, 0, 64, 1), 0);
	CHECK_EQ(quire_close(q), 0);
}

/* Pages shared with a child that lives are evicted and come back all the same. */
static void parent_goes_on(void)
{
	int hold[2];
	char c = 0;
	pid_t pid;
	int status;

	q = pager_open(MIB);
	steady = region_create(q, 4 * MIB);
	fill(steady, 0, 1024, 1);
	MUST(pipe(hold) == 0);
	fflush(NULL);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		close(hold[1]);
		own_memory();
		_exit(read(hold[0], &c, 1) == 0 ? 0 : 1);
	}
	close(hold[0]);
	CHECK_EQ(wrong(steady, 0, 1024, 1), 0);
	fill(steady, 0, 1024, 2);
	CHECK_EQ(wrong(steady, 0, 1024, 2), 0);
	CHECK(pager_stats(q).resident <= MIB);
	close(hold[1]);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK_EQ(quire_close(q), 0);
}

static void pager_of_its_own(void)
{
	quire_t *mine = pager_open(MIB);
	quire_region_t *r = region_create(mine, 4 * MIB);

	fill(r, 0, 1024, 3);
	MUST(wrong(r, 0, 1024, 3) == 0);
	MUST(quire_region_destroy(r) == 0);
	MUST(quire_close(mine) == 0);
}

/* A child may not use the parent's pager, but it can open one. */
static void children_with_pagers(void)
{
	q = pager_open(MIB);
	steady = region_create(q, 4 * MIB);
	fill(steady, 0, 1024, 1);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(fork_child(pager_of_its_own), 0);
	CHECK_EQ(wrong(steady, 0, 1024, 1), 0);
	CHECK_EQ(quire_close(q), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(while_regions_change), UNIT(parent_goes_on),
		                                  UNIT(children_with_pagers), UNIT_END };

	return unit_main(argc, argv, "fork", tests);
}
