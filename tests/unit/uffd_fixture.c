/* SPDX-License-Identifier: MIT */
/* tests/unit/uffd_fixture.c - see uffd_fixture.h. */
#include "tests/unit/uffd_fixture.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

quire_t *q;
struct quire_region *r;
int file;
_Atomic unsigned told[QUIRE_ERROR_FORK + 1];

static char path[64];

static void on_error(void *arg, const struct quire_error *error)
{
	(void)arg;
	atomic_fetch_add(&told[error->kind], 1);
}

void uffd_start_as(const char *engine, struct uffd_how how)
{
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET * PAGE_BYTES,
		                   .engine = engine,
		                   .swap_path = path,
		                   .swap_size = how.swap_size,
		                   .move = how.no_move ? "off" : NULL,
		                   .on_error = on_error };

	for (unsigned i = 0; i <= QUIRE_ERROR_FORK; i++)
		atomic_store(&told[i], 0);
	snprintf(path, sizeof path, "/var/tmp/quire-test-%d", (int)getpid());
	unlink(path);
	if (quire_open(&q, &o) != 0)
		unit_skip_all(quire_error_message());
	/* Before there is a region: no thread of the pager's has looked yet. */
	if (how.no_poison)
		q->engine.uffd.poison = false;
	REQUIRE_EQ(quire_region_create(q, PAGES * PAGE_BYTES, NULL, &r), 0);
	file = open(path, O_RDWR | O_CLOEXEC);
	REQUIRE(file >= 0);
}

void uffd_start(const char *engine)
{
	uffd_start_as(engine, (struct uffd_how){ .swap_size = 0 });
}

void uffd_finish(void)
{
	CHECK_EQ(quire_close(q), 0);
	close(file);
	unlink(path);
}

volatile uint64_t *at(uint64_t page, unsigned word)
{
	return (volatile uint64_t *)(void *)region_page(r, page) + word;
}

void uffd_fill(void)
{
	for (uint64_t page = 0; page < PAGES; page++)
		for (unsigned word = 0; word < WORDS; word++)
			*at(page, word) = page * WORDS + word + 1;
}

void nap(long ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

/* It is on the swap file only. */
void await_slot(uint64_t page)
{
	for (int i = 0; entry_state(atomic_load(region_entry(r, page))) != ENTRY_SLOT; i++) {
		for (uint64_t other = 0; other < BUDGET; other++)
			(void)*at((page + 60 + (uint64_t)i * 7 + other) % PAGES, 0);
		REQUIRE(i < 1000);
	}
}

double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static __thread sigjmp_buf back;
static __thread struct access *mine;

static void on_signal(int signal, siginfo_t *info, void *context)
{
	(void)context;
	if (!mine)
		_exit(3);
	mine->signal = signal;
	mine->address = info->si_addr;
	siglongjmp(back, 1);
}

void do_access(struct access *a)
{
	mine = a;
	if (sigsetjmp(back, 1) == 0) {
		if (a->write)
			*a->word = a->value;
		else
			a->value = *a->word;
	}
	mine = NULL;
	atomic_store(&a->ended, true);
}

void *access_thread(void *arg)
{
	do_access(arg);
	return NULL;
}

void uffd_check_all(void)
{
	uint64_t wrong = 0;

	for (uint64_t page = 0; page < PAGES; page++)
		for (unsigned word = 0; word < WORDS; word++)
			wrong += *at(page, word) != page * WORDS + word + 1;
	CHECK_EQ(wrong, 0);
}

int uffd_main(int argc, char **argv, const char *name, const struct unit_test *tests)
{
	struct sigaction caught = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

	if (unit_valgrind())
		unit_skip_all(
			"valgrind runs one thread at a time: none would serve another's fault");
	sigaction(SIGBUS, &caught, NULL);
	sigaction(SIGSEGV, &caught, NULL);
	return unit_main(argc, argv, name, tests);
}
