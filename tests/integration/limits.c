/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/limits.c - a process whose limits are narrow: writable memory
 * (RLIMIT_DATA), address space (RLIMIT_AS), descriptors (RLIMIT_NOFILE). A pager
 * takes what it can get and goes on with that; what cannot be is refused in words,
 * or by SIGBUS, and can be had when the limit allows it.
 *
 * test: matrix timeout=120
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#define BUDGET (4 * MIB)

/* A soft limit. => the one before */
static rlim_t limit(int what, rlim_t to)
{
	struct rlimit l;
	rlim_t old;

	MUST(getrlimit(what, &l) == 0);
	old = l.rlim_cur;
	l.rlim_cur = to;
	MUST(setrlimit(what, &l) == 0);
	return old;
}

/* ---------------------------------------------------- writable memory */

enum { THREADS = 4, PAGES = 8192, ACCESSES = 3000 };

static pthread_barrier_t barrier;
static quire_region_t *shared;

/* Each thread its own pages, in any order. */
static void *work(void *arg)
{
	size_t mine = (size_t)(uintptr_t)arg;
	uint64_t x = mine + 1;

	pthread_barrier_wait(&barrier);
	for (size_t page = mine; page < PAGES; page += THREADS)
		fill_page(page_at(shared, page), page, 1);
	for (int i = 0; i < ACCESSES; i++) {
		size_t page;

		x = x * 6364136223846793005u + 1442695040888963407u;
		page = (size_t)(x >> 33) % (PAGES / THREADS) * THREADS + mine;
		MUST(wrong_page(page_at(shared, page), page, 1) == 0);
		if (x >> 20 & 1)
			fill_page(page_at(shared, page), page, 1);
	}
	return NULL;
}

/* No more buffers than a pager opens with: everything works, if slower. */
static void with_few_buffers(void *unused)
{
	struct errors errors = { .count = 0 };
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET,
		                   .on_error = errors_count,
		                   .on_error_arg = &errors };
	pthread_t thread[THREADS];
	quire_t *q = pager_open_options(&o);

	(void)unused;
	shared = region_create(q, PAGES * PAGE);
	MUST(pthread_barrier_init(&barrier, NULL, THREADS + 1) == 0);
	for (size_t i = 0; i < THREADS; i++)
		MUST(pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)i) == 0);
	limit(RLIMIT_DATA, PAGE); /* 0 is none at all to the kernel */
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	MUST(pager_stats(q).pages_in > ACCESSES / 2);
	MUST(errors.count == 0);
	MUST(quire_close(q) == 0);
}

static void few_buffers(void)
{
	CHECK_EQ(in_child(with_few_buffers, NULL, 40), 0);
}

/* Records of pages that the kernel does not allow: an access is refused, until it does. */
static void few_records(void)
{
	struct errors errors = { .count = 0 };
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET,
		                   .on_error = errors_count,
		                   .on_error_arg = &errors };
	quire_t *q = pager_open_options(&o);
	quire_region_t *r = region_create(q, 4 * GIB);
	size_t far = 3 * GIB / PAGE;
	struct caught c;
	rlim_t old;

	store(page_at(r, 0), 1);
	old = limit(RLIMIT_DATA, PAGE);
	for (size_t page = 0; page < 16; page++)
		store(page_at(r, page), page);
	c = try_store(page_at(r, far), 1);
	CHECK_EQ(c.signal, SIGBUS);
	CHECK(c.address == page_at(r, far));
	CHECK(errors.count > 0);
	CHECK_EQ(errors.kinds[QUIRE_ERROR_NO_MEMORY], errors.count);
	CHECK_EQ(errors.last.offset, far * PAGE);
	CHECK_EQ(errors.last.error, ENOMEM);
	CHECK_EQ(try_load(page_at(r, far + 1)).signal, SIGBUS);
	CHECK_EQ(quire_advise(r, 0, 4 * GIB, QUIRE_ADVISE_COLD), 0);
	CHECK_EQ(quire_advise(r, GIB, 3 * GIB, QUIRE_ADVISE_DONTNEED), 0);
	limit(RLIMIT_DATA, old);
	sleep_seconds(0.2); /* a refusal stands for a moment */
	CHECK_EQ(try_store(page_at(r, far), 7).signal, 0);
	CHECK_EQ(load(page_at(r, far)), 7);
	CHECK_EQ(load(page_at(r, far + 1)), 0);
	for (size_t page = 0; page < 16; page++)
		CHECK_EQ(load(page_at(r, page)), page);
	CHECK_EQ(quire_close(q), 0);
}

/* ------------------------------------------------------ address space */

/* The figure behind "the maximum is". => 0: there is none */
static size_t maximum(void)
{
	static const char words[] = "the maximum is ";
	const char *at = strstr(quire_error_message(), words);

	return at ? strtoull(at + sizeof words - 1, NULL, 10) : 0;
}

/* The budget can be raised to what the message says, and no further. => it */
static size_t raise_to_maximum(quire_t *q)
{
	size_t most;

	MUST(quire_set_memory(q, (size_t)1 << 50) == -EINVAL);
	most = maximum();
	MUST(most >= quire_memory(q));
	MUST(quire_set_memory(q, most + PAGE) == -EINVAL);
	MUST(quire_set_memory(q, most) == 0);
	MUST(quire_memory(q) == most);
	return most;
}

/* What was opened works: a region larger than the budget. */
static void use(quire_t *q)
{
	quire_region_t *r = region_create(q, 10 * MIB);

	fill(r, 0, 10 * MIB / PAGE, 1);
	MUST(wrong(r, 0, 10 * MIB / PAGE, 1) == 0);
	MUST(quire_region_destroy(r) == 0);
}

static void with_address_space(void *bytes)
{
	size_t limited = *(size_t *)bytes, most;
	quire_t *q;

	if (limited)
		limit(RLIMIT_AS, limited);
	q = pager_open(BUDGET);
	use(q);
	most = raise_to_maximum(q);
	if (limited)
		printf("%zu MiB of address space: up to %zu MiB of budget\n", limited >> 20,
		       most >> 20);
	if (!limited)
		MUST(most == machine_memory());
	MUST(quire_set_memory(q, (size_t)1 << 50) == -EINVAL);
	MUST((strstr(quire_error_message(), "ulimit -v") != NULL) == (most < machine_memory()));
	if (limited)
		MUST(most < limited);
	MUST(quire_set_memory(q, BUDGET) == 0);
	use(q);
	/* The program has some left. */
	if (limited)
		free(malloc(limited / 4));
	MUST(quire_close(q) == 0);
}

static void less_address_space(void)
{
	static size_t limits[] = { 0, 256 * GIB, 16 * GIB, 2 * GIB, GIB, 640 * MIB };

	if (SANITIZED) {
		note_skipped("less_address_space", "the sanitizer needs it");
		return;
	}
	for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
		CHECK_EQ(in_child(with_address_space, &limits[i], 20), 0);
}

/* A budget for which all the buffers there should be do not fit: fewer do. */
static void with_fewer_buffers(void *unused)
{
	quire_t *q;

	(void)unused;
	limit(RLIMIT_AS, 2 * GIB);
	q = pager_open(512 * MIB);
	MUST(raise_to_maximum(q) == 512 * MIB);
	use(q);
	MUST(quire_set_memory(q, BUDGET) == 0);
	use(q);
	MUST(quire_close(q) == 0);
}

/* It says what does not fit, how large that is, and the limit. */
static void with_too_little(void *unused)
{
	static const size_t limits[] = { 64 * MIB, 128 * MIB, 200 * MIB, 300 * MIB, 400 * MIB };
	struct quire_options o = { .size = sizeof o, .memory = 256 * MIB };
	quire_t *q;

	(void)unused;
	for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
		char text[100];
		size_t wants;

		limit(RLIMIT_AS, limits[i]);
		MUST(quire_open(&q, &o) == -ENOMEM);
		printf("%s\n", quire_error_message());
		snprintf(text, sizeof text, "RLIMIT_AS (ulimit -v) is %zu bytes", limits[i]);
		MUST(contains(quire_error_message(), text));
		MUST(sscanf(quire_error_message(),
		            "no address space for \"%99[^\"]\": it wants %zu", text, &wants) == 2);
		MUST(wants > PAGE && wants < GIB);
	}
	limit(RLIMIT_AS, RLIM_INFINITY);
	MUST(quire_open(&q, &o) == 0);
	MUST(quire_close(q) == 0);
}

static void too_little_address_space(void)
{
	if (SANITIZED)
		return;
	CHECK_EQ(in_child(with_fewer_buffers, NULL, 20), 0);
	CHECK_EQ(in_child(with_too_little, NULL, 20), 0);
}

/* -------------------------------------------------------- descriptors */

/* The rings of io_uring in which threads look for their reads are nothing that a pager needs... */
static unsigned look_rings(quire_t *q)
{
	return strcmp(quire_io_name(q), "uring") == 0 ? 8 : 0;
}

/* ...nor are the handler threads that help the first, with a descriptor each. */
static unsigned helpers(quire_t *q)
{
	cpu_set_t set;
	unsigned cpus;

	MUST(sched_getaffinity(0, sizeof set, &set) == 0);
	cpus = (unsigned)CPU_COUNT(&set);
	return engine_serves_kernel(q) ? (cpus < 4 ? cpus : 4) - 1 : 0;
}

static quire_t *open_looking(int *error)
{
	struct quire_options o = { .size = sizeof o, .memory = BUDGET, .spin = "100" };
	quire_t *q = NULL;

	*error = quire_open(&q, &o);
	return q;
}

/* The lowest number that is free. */
static rlim_t next_descriptor(void)
{
	int fd = dup(STDOUT_FILENO);

	MUST(fd >= 0);
	close(fd);
	return (rlim_t)fd;
}

static void with_few_descriptors(void *unused)
{
	rlim_t first, needed, old;
	quire_t *q;
	int error;

	(void)unused;
	/* Beyond what was inherited: from here on no number is in use. */
	do
		first = (rlim_t)dup(STDOUT_FILENO);
	while (first < 100);
	first = next_descriptor();
	q = open_looking(&error);
	MUST(error == 0);
	needed = next_descriptor() - first - look_rings(q) - helpers(q);
	MUST(quire_close(q) == 0);
	MUST(next_descriptor() == first);
	printf("a pager needs %u descriptors\n", (unsigned)needed);
	MUST(needed > 0 && needed <= 14);
	old = limit(RLIMIT_NOFILE, first + needed);
	q = open_looking(&error);
	if (error)
		printf("%s\n", quire_error_message());
	MUST(error == 0);
	use(q);
	limit(RLIMIT_NOFILE, old);
	MUST(quire_close(q) == 0);
	/* One less. */
	limit(RLIMIT_NOFILE, first + needed - 1);
	q = open_looking(&error);
	MUST(error == -EMFILE);
	printf("%s\n", quire_error_message());
	MUST(strstr(quire_error_message(), "open files") != NULL);
	limit(RLIMIT_NOFILE, old);
	MUST(next_descriptor() == first);
	/* Those to spare stay the program's. */
	limit(RLIMIT_NOFILE, first + needed + 10);
	q = open_looking(&error);
	MUST(error == 0);
	use(q);
	for (int i = 0; i < 10; i++)
		MUST(dup(STDOUT_FILENO) >= 0);
	MUST(quire_close(q) == 0);
}

static void few_descriptors(void)
{
	CHECK_EQ(in_child(with_few_descriptors, NULL, 20), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(few_descriptors),
		UNIT(few_buffers),
		UNIT(few_records),
		UNIT(less_address_space),
		UNIT(too_little_address_space),
		UNIT_END,
	};

	catch_install();
	return unit_main(argc, argv, "limits", tests);
}
