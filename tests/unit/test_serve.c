/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_serve.c - calls served by their rows of the table (guard/serve.c), on
 * ordinary memory that happens to be in the window; nothing is trapped.
 */
#define _GNU_SOURCE
#include "unit.h"

#include "base/base.h"
#include "guard/guard.h"
#include "guard/served.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 1024

static char *memory;

static long served(long number, unsigned long a, unsigned long b, unsigned long c, unsigned long d,
                   unsigned long e, unsigned long f)
{
	struct served s = { .number = number, .given = { a, b, c, d, e, f } };
	long result;

	scratch_open(&s.scratch);
	result = served_run(&s);
	scratch_close(&s.scratch);
	return result;
}

#define CALL(number, ...) CALL_(number, __VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL_(number, a, b, c, d, e, f, ...)                                             \
	served(SYS_##number, (unsigned long)(a), (unsigned long)(b), (unsigned long)(c), \
	       (unsigned long)(d), (unsigned long)(e), (unsigned long)(f))

static struct served open_served(void)
{
	struct served s = { .number = 0 };

	scratch_open(&s.scratch);
	return s;
}

/* Only what was changed is written back: others may have written beside it meanwhile. */
static void only_what_changed(void)
{
	struct served s = open_served();
	unsigned long at = (unsigned long)memory;
	struct copied c;

	memset(memory, 1, 100);
	REQUIRE(copied_open(&s, &c, &at, 100, true) == 0);
	CHECK(at != (unsigned long)memory);
	((char *)at)[10] = 5;
	((char *)at)[50] = 6;
	((char *)at)[51] = 7;
	memory[11] = 2;
	memory[49] = 3;
	memory[52] = 4;
	CHECK_EQ(copied_close(&c), 0);
	CHECK(memory[10] == 5 && memory[11] == 2 && memory[49] == 3 && memory[50] == 6 &&
	      memory[51] == 7 && memory[52] == 4 && memory[53] == 1);
	/* What is not in the window is not copied at all. */
	at = (unsigned long)&s;
	REQUIRE(copied_open(&s, &c, &at, 100, true) == 0);
	CHECK_EQ(at, (unsigned long)&s);
	CHECK_EQ(copied_close(&c), 0);
	scratch_close(&s.scratch);
}

static void as_many_as_returned(void)
{
	int pipes[2];

	REQUIRE(pipe(pipes) == 0);
	memset(memory, 1, 100);
	CHECK_EQ(write(pipes[1], "abc", 3), 3);
	CHECK_EQ(CALL(read, pipes[0], memory, 100), 3);
	CHECK(memcmp(memory, "abc\1\1", 5) == 0);
	close(pipes[1]);
	CHECK_EQ(CALL(read, pipes[0], memory, 100), 0);
	CHECK(memcmp(memory, "abc\1\1", 5) == 0);
	CHECK_EQ(CALL(read, -1, memory, 100), -EBADF);
	close(pipes[0]);
}

/* A result that the kernel does not write stays as it was. */
static void left_alone(void)
{
	int *status = (int *)memory;

	*status = 4711;
	CHECK_EQ(CALL(wait4, -1, status, WNOHANG, 0), -ECHILD);
	CHECK_EQ(*status, 4711);
}

/* The upper half of a register that holds an int is anything. */
static void lengths_of_32_bits(void)
{
	struct pollfd *p = (struct pollfd *)memory;
	unsigned long rest = 0x7777ul << 32;

	*p = (struct pollfd){ .fd = -1 };
	CHECK_EQ(CALL(poll, p, rest | 1, 0), 0);
	CHECK(CALL(readlink, strcpy(memory + 100, "/proc/self/exe"), memory + 200, rest | 50) > 0);
	CHECK_EQ(memory[200], '/');
}

static void lengths_that_are_pointed_to(void)
{
	socklen_t *length = (socklen_t *)(memory + 500);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memset(memory, 1, 100);
	*length = 2;
	/* Cut to what there is room for; the full length is returned. */
	CHECK_EQ(CALL(getsockname, fd, memory, length), 0);
	CHECK_EQ(*length, 2);
	CHECK(memory[0] == AF_UNIX && memory[2] == 1);
	*length = (socklen_t)-1;
	CHECK_EQ(CALL(getsockname, fd, memory, length), -EINVAL);
	*length = 100;
	CHECK_EQ(CALL(getsockname, fd, memory, 0), -EFAULT);
	close(fd);
}

/* In turns, and as if it had been one. */
static void long_transfers(void)
{
	size_t n = 3 * SCRATCH_PIECE + 777;
	char path[] = "/tmp/quire-test-serve-XXXXXX";
	int fd = mkstemp(path), pipes[2];

	REQUIRE(fd >= 0);
	unlink(path);
	for (size_t i = 0; i < n; i++)
		memory[i] = (char)(i * 7 + i / 251);
	CHECK_EQ(CALL(write, fd, memory, n), n);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), n);
	memset(memory, 0, n);
	CHECK_EQ(CALL(pread64, fd, memory, 2 * n, 100), n - 100);
	for (size_t i = 100; i < n; i++)
		if (memory[i - 100] != (char)(i * 7 + i / 251)) {
			CHECK_EQ(i, 0);
			break;
		}
	/* What fits a pipe, and then as it says. */
	REQUIRE(pipe2(pipes, O_NONBLOCK) == 0);
	CHECK_EQ(CALL(write, pipes[1], memory, n), 65536);
	CHECK_EQ(CALL(write, pipes[1], memory, n), -EAGAIN);
	CHECK_EQ(CALL(read, pipes[0], memory, n), 65536);
	CHECK_EQ(CALL(read, pipes[0], memory, n), -EAGAIN);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)info;
	if (!guard_copy_ends(context))
		signal(number, SIG_DFL);
}

static int pin(void *page)
{
	(void)page;
	return 0;
}

static void unpin(void *page)
{
	(void)page;
}

static size_t extent(const void *address)
{
	return (size_t)(memory + PAGES * PAGE_BYTES - (const char *)address);
}

static const struct guard_pager pager = { pin, unpin, extent };

int main(int argc, char **argv)
{
	struct sigaction faults = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	static const struct unit_test tests[] = { UNIT(only_what_changed),
		                                  UNIT(as_many_as_returned),
		                                  UNIT(left_alone),
		                                  UNIT(lengths_of_32_bits),
		                                  UNIT(lengths_that_are_pointed_to),
		                                  UNIT(long_transfers),
		                                  UNIT_END };

#if !defined(__x86_64__) || defined(__SANITIZE_THREAD__)
	unit_skip_all("the guard is for x86-64, and not for ThreadSanitizer");
#endif
	memory = mmap((void *)(uintptr_t)GUARD_WINDOW, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE,
	              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (memory == MAP_FAILED)
		unit_skip_all("the window's addresses cannot be used here");
	if (unit_valgrind())
		unit_skip_all("to touch what is not there is an error to valgrind");
	scratch_start(&pager);
	sigaction(SIGSEGV, &faults, NULL);
	return unit_main(argc, argv, "serve", tests);
}
