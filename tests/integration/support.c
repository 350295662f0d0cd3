/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/support.c - see support.h. It has no main and is linked
 * into each program of the folder.
 */
#define _GNU_SOURCE
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

void must_failed(const char *what, const char *file, int line)
{
	dprintf(STDOUT_FILENO, "%s:%d: must hold: %s\n", file, line, what);
	_exit(3);
}

/* ------------------------------------------------------------- pagers */

quire_t *pager_open_options(struct quire_options *options)
{
	quire_t *q = NULL;
	int r = quire_open(&q, options);

	if (r == -ENOTSUP)
		unit_skip_all(quire_error_message());
	if (r) {
		printf("quire_open: %d, %s\n", r, quire_error_message());
		fflush(stdout);
		_exit(1);
	}
	return q;
}

quire_t *pager_open(size_t memory)
{
	struct quire_options o = { .size = sizeof o, .memory = memory };

	return pager_open_options(&o);
}

quire_region_t *region_create(quire_t *q, size_t length)
{
	quire_region_t *r = NULL;
	int result = quire_region_create(q, length, NULL, &r);

	if (result) {
		printf("quire_region_create: %d, %s\n", result, quire_error_message());
		fflush(stdout);
		_exit(1);
	}
	return r;
}

struct quire_stats pager_stats(const quire_t *q)
{
	struct quire_stats s;

	memset(&s, 0xff, sizeof s);
	MUST(quire_stats_get(q, &s) == 0);
	return s;
}

struct quire_stats region_stats(const quire_region_t *r)
{
	struct quire_stats s;

	memset(&s, 0xff, sizeof s);
	MUST(quire_region_stats_get(r, &s) == 0);
	return s;
}

bool engine_serves_kernel(const quire_t *q)
{
	return strcmp(quire_engine_name(q), "uffd") == 0;
}

bool engine_splits(const quire_t *q)
{
	const char *guard = getenv("QUIRE_GUARD_PAGES");

	return strcmp(quire_engine_name(q), "sigsegv") == 0 && guard && strcmp(guard, "off") == 0;
}

void errors_count(void *arg, const struct quire_error *error)
{
	struct errors *e = arg;

	e->last = *error;
	if (error->kind < 8)
		__atomic_fetch_add(&e->kinds[error->kind], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&e->count, 1, __ATOMIC_RELEASE);
}

/* --------------------------------------------------- words of a region */

uint64_t word(size_t page, size_t i, unsigned version)
{
	uint64_t z = (page << 9 | i) * 0x9e3779b97f4a7c15u +
	             (uint64_t)version * 0xd1342543de82ef95u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (z ^ z >> 31) | 1;
}

uint64_t load(const void *p)
{
	return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
}

void store(void *p, uint64_t value)
{
	__atomic_store_n((uint64_t *)p, value, __ATOMIC_RELAXED);
}

void *page_at(quire_region_t *r, size_t page)
{
	return (char *)quire_region_base(r) + page * PAGE;
}

void fill_page(void *p, size_t page, unsigned version)
{
	for (size_t i = 0; i < PAGE / 8; i++)
		store((uint64_t *)p + i, word(page, i, version));
}

void fill(quire_region_t *r, size_t page, size_t count, unsigned version)
{
	for (size_t p = page; p < page + count; p++)
		fill_page(page_at(r, p), p, version);
}

size_t wrong_page(const void *p, size_t page, unsigned version)
{
	size_t bad = 0;

	for (size_t i = 0; i < PAGE / 8; i++)
		bad += load((const uint64_t *)p + i) != word(page, i, version);
	return bad;
}

size_t wrong(quire_region_t *r, size_t page, size_t count, unsigned version)
{
	size_t bad = 0;

	for (size_t p = page; p < page + count; p++)
		bad += wrong_page(page_at(r, p), p, version);
	return bad;
}

size_t nonzero(quire_region_t *r, size_t page, size_t count)
{
	size_t bad = 0;

	for (size_t p = page; p < page + count; p++)
		for (size_t i = 0; i < PAGE / 8; i++)
			bad += load((uint64_t *)page_at(r, p) + i) != 0;
	return bad;
}

size_t mapped(quire_region_t *r, size_t page, size_t count)
{
	unsigned char in[256];
	size_t n = 0;

	for (size_t p = page; p < page + count; p += sizeof in) {
		size_t k = page + count - p < sizeof in ? page + count - p : sizeof in;

		MUST(mincore(page_at(r, p), k * PAGE, in) == 0);
		for (size_t i = 0; i < k; i++)
			n += in[i] & 1;
	}
	return n;
}

/* ------------------------------------------------- accesses that fail */

static __thread sigjmp_buf jump;
static __thread volatile sig_atomic_t trying;
static __thread struct caught volatile caught;

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (!trying) {
		dprintf(STDOUT_FILENO, "signal %d (code %d) at %p, not expected\n", number,
		        info->si_code, info->si_addr);
		signal(number, SIG_DFL);
		raise(number);
		return;
	}
	trying = 0;
	caught.signal = number;
	caught.code = info->si_code;
	caught.address = info->si_addr;
	siglongjmp(jump, 1);
}

void catch_install(void)
{
	struct sigaction a = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	sigemptyset(&a.sa_mask);
	MUST(sigaction(SIGBUS, &a, NULL) == 0 && sigaction(SIGSEGV, &a, NULL) == 0);
}

static struct caught caught_now(void)
{
	return (struct caught){ caught.signal, caught.code, caught.address, caught.value };
}

struct caught try_load(const void *p)
{
	caught.signal = 0;
	if (!sigsetjmp(jump, 1)) {
		trying = 1;
		caught.value = load(p);
	}
	trying = 0;
	return caught_now();
}

struct caught try_store(void *p, uint64_t value)
{
	caught.signal = 0;
	if (!sigsetjmp(jump, 1)) {
		trying = 1;
		store(p, value);
	}
	trying = 0;
	return caught_now();
}

struct caught try_fill_page(void *p, size_t page, unsigned version)
{
	caught.signal = 0;
	if (!sigsetjmp(jump, 1)) {
		trying = 1;
		fill_page(p, page, version);
	}
	trying = 0;
	return caught_now();
}

/* ------------------------------------------------------------ process */

double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

void sleep_seconds(double s)
{
	struct timespec t = { .tv_sec = (time_t)s,
		              .tv_nsec = (long)((s - (double)(time_t)s) * 1e9) };

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

static pid_t owner; /* the process whose atexit removes the directory */

pid_t child_start(void (*f)(void *), void *arg)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	MUST(pid >= 0);
	if (pid > 0)
		return pid;
	f(arg);
	fflush(NULL);
	_exit(0);
}

int child_end(pid_t pid, double seconds)
{
	double end = seconds_now() + seconds;
	int status;

	do {
		pid_t r = waitpid(pid, &status, WNOHANG);

		MUST(r >= 0);
		if (r == pid)
			return status;
		sleep_seconds(0.002);
	} while (seconds_now() < end);
	printf("the child was still running after %g s\n", seconds);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

static struct {
	struct rlimit limit;
	void (*f)(void *);
} afterwards;

static void run_afterwards(void *arg)
{
	MUST(setrlimit(RLIMIT_NOFILE, &afterwards.limit) == 0);
	afterwards.f(arg);
}

pid_t child_start_short(void (*f)(void *), void *arg, unsigned most)
{
	struct rlimit less;
	pid_t pid;

	MUST(getrlimit(RLIMIT_NOFILE, &afterwards.limit) == 0);
	afterwards.f = f;
	less = afterwards.limit;
	less.rlim_cur = most;
	MUST(setrlimit(RLIMIT_NOFILE, &less) == 0);
	pid = child_start(run_afterwards, arg);
	MUST(setrlimit(RLIMIT_NOFILE, &afterwards.limit) == 0);
	return pid;
}

int in_child(void (*f)(void *), void *arg, double seconds)
{
	return child_end(child_start(f, arg), seconds);
}

size_t resident_bytes(void)
{
	unsigned long size = 0, resident = 0;
	char text[128] = "";
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);

	MUST(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
	close(fd);
	MUST(sscanf(text, "%lu %lu", &size, &resident) == 2);
	return resident * PAGE;
}

size_t machine_memory(void)
{
	return (size_t)sysconf(_SC_PHYS_PAGES) * PAGE;
}

unsigned mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned n = 0;
	int c;

	MUST(f != NULL);
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

unsigned entries(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	MUST(d != NULL);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

unsigned descriptors(void)
{
	return entries("/proc/self/fd");
}

/* The kernel's own io_uring workers, which come and go, are not counted. */
/* A worker of io_uring's, which the kernel makes as it likes: the flags of its stat say so. */
#define PF_IO_WORKER 0x10u

static bool is_program_thread(const char *tid)
{
	char path[64], text[512] = "", *end;
	unsigned flags = 0;
	ssize_t n = 0;
	int fd;

	snprintf(path, sizeof path, "/proc/self/task/%.20s/stat", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	end = n > 0 ? strrchr(text, ')') : NULL;
	return end && sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 &&
	       !(flags & PF_IO_WORKER);
}

unsigned threads(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	unsigned n = 0;

	MUST(d != NULL);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.' && is_program_thread(e->d_name);
	closedir(d);
	return n;
}

static char directory[PATH_MAX];

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void remove_directory(void)
{
	if (getpid() == owner)
		nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *temporary_directory(void)
{
	const char *parent = getenv("QUIRE_SWAP");

	if (directory[0])
		return directory;
	if (!parent)
		parent = getenv("TMPDIR");
	if (!parent)
		parent = "/var/tmp";
	snprintf(directory, sizeof directory, "%s/quire-test-XXXXXX", parent);
	MUST(mkdtemp(directory) != NULL);
	owner = getpid();
	atexit(remove_directory);
	return directory;
}

const char *path_in(const char *dir, const char *name)
{
	static char text[8][PATH_MAX];
	static unsigned turn;
	char *t = text[turn++ % 8];

	snprintf(t, PATH_MAX, "%s/%s", dir, name);
	return t;
}

bool contains(const char *text, const char *part)
{
	if (text && strstr(text, part))
		return true;
	printf("\"%s\" is not in \"%s\"\n", part, text ? text : "(null)");
	return false;
}

void note_skipped(const char *what, const char *reason)
{
	printf("left out: %s: %s\n", what, reason);
}

double quick_or_full(double quick, double full)
{
	return getenv("QUIRE_TEST_FULL") ? full : quick;
}
