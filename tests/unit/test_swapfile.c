/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_swapfile.c - the parts put together (swapfile/store.c): options,
 * limits, real transfers, and other processes that share it. How the file is opened: test_file.c.
 */
#include "base/error.h"
#include "swapfile/checksum.h"
#include "tests/unit/pattern.h"
#include "tests/unit/swap_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---------------------------------------------------------------- options */

static void bad_options(void)
{
	struct swapfile_options o = { .path = test_dir, .io = "threads" };
	struct swapfile *s;

	CHECK_EQ(swapfile_open(&s, &o), -EINVAL);
	CHECK(says("\"threads\""));
	CHECK(says("auto, uring, sync"));
	o.io = "uring";
	REQUIRE_EQ(swapfile_open(&s, &o), 0);
	swapfile_close(s);
	o.size_limit = 2 * PAGE_BYTES - 1;
	CHECK_EQ(swapfile_open(&s, &o), -EINVAL);
	CHECK(says("8192"));
	CHECK_EQ(entries(), 0);
}

static void size_limit_is_kept(void)
{
	struct swapfile_options o = { .path = in_dir("swap"), .size_limit = 1 << 20 };
	void *pages = pages_new(64);
	struct swapfile *s;
	unsigned total = 0, n;
	struct stat st;
	slot_t first;

	REQUIRE_EQ(swapfile_open(&s, &o), 0);
	while ((n = swapfile_alloc(s, 50, &first)) > 0) {
		total += n;
		REQUIRE_EQ(write_slots(s, first, n, pages), 0);
	}
	CHECK_EQ(total, (1 << 20) / PAGE_BYTES - 1);
	CHECK_EQ(swapfile_used(s), total);
	REQUIRE_EQ(stat(o.path, &st), 0);
	CHECK(st.st_size <= 1 << 20);
	swapfile_close(s);
	unlink(o.path);
	munmap(pages, 64 * PAGE_BYTES);
}

static int forbid(unsigned call, unsigned error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { ARRAY_LENGTH(code), code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	                       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 ?
	               0 :
	               -1;
}

static int open_only_uring(void)
{
	struct swapfile_options o = { .path = test_dir, .io = "uring" };
	struct swapfile *s;

	return swapfile_open(&s, &o);
}

/* By default plain I/O is taken where there is no io_uring. => 0: so it is */
static int works_plainly(void)
{
	void *pages = pages_new(8);
	struct swapfile *s;
	slot_t first;
	bool good;

	if (open_at(&s, test_dir) != 0)
		return 2;
	good = strcmp(swapfile_io_name(s), "sync") == 0 && swapfile_alloc(s, 8, &first) == 8 &&
	       write_slots(s, first, 8, pages) == 0 && slots_hold(s, first, 8, pages);
	swapfile_close(s);
	return good ? 0 : 3;
}

static int open_forbidden(void)
{
	if (forbid(SYS_io_uring_setup, EPERM) != 0)
		return 77;
	return open_only_uring() == -ENOTSUP && says("forbidden") && says("seccomp") ?
	               works_plainly() :
	               1;
}

static int open_unknown(void)
{
	if (forbid(SYS_io_uring_setup, ENOSYS) != 0)
		return 77;
	return open_only_uring() == -ENOTSUP && says("not in this kernel") ? works_plainly() : 1;
}

/* There could be rings, but no children. */
static int open_half(void)
{
	if (forbid(SYS_io_uring_register, EPERM) != 0)
		return 77;
	return open_only_uring() == -ENOTSUP && says("forbidden") ? works_plainly() : 1;
}

static void io_uring_forbidden(void)
{
	int a = in_child(open_forbidden), b = in_child(open_unknown), c = in_child(open_half);

	if (a == 77 || b == 77 || c == 77)
		printf("skipped: seccomp filters are not permitted here\n");
	CHECK(a == 0 || a == 77);
	CHECK(b == 0 || b == 77);
	CHECK(c == 0 || c == 77);
}

static int open_without_streams(void)
{
	struct swapfile *s;

	close(0);
	close(1);
	close(2);
	return open_at(&s, test_dir) == 0 && s->file.fd > 2 ? 0 : 1;
}

static void not_a_standard_stream(void)
{
	CHECK_EQ(in_child(open_without_streams), 0);
}

static void rounds_leak_nothing_by(const char *io)
{
	struct swapfile_options o = { .path = test_dir, .io = io };
	/* Valgrind takes seconds over the address space of each. */
	int before = dup(0), after, rounds = unit_valgrind() ? 3 : 50;
	struct swap_queue *q;
	struct swapfile *s;

	close(before);
	for (int i = 0; i < rounds; i++) {
		REQUIRE_EQ(swapfile_open(&s, &o), 0);
		REQUIRE_EQ(swap_queue_open(s, 8, &q), 0);
		swap_queue_close(q);
		swapfile_close(s);
		CHECK(open_at(&s, "/dev/zero") < 0);
		CHECK(open_at(&s, in_dir("no/such")) < 0);
	}
	after = dup(0);
	close(after);
	CHECK_EQ(before, after);
}

static void rounds_leak_nothing(void)
{
	rounds_leak_nothing_by("uring");
	rounds_leak_nothing_by("sync");
}

/* ---------------------------------------------------------------- transfers */

static void transfers_at(const char *place, const char *io)
{
	struct swapfile_options o = { .path = place, .io = io };
	enum { RUNS = 40 };
	struct swap_run *run = calloc(RUNS, sizeof *run);
	static struct iovec pieces[RUNS][SWAP_RUN_PIECES];
	char *pages = pages_new(RUNS * SWAP_RUN_MAX);
	struct swap_queue *q;
	struct swapfile *s;

	REQUIRE_EQ(swapfile_open(&s, &o), 0);
	CHECK(strcmp(swapfile_io_name(s), io) == 0);
	REQUIRE_EQ(swap_queue_open(s, 8, &q), 0);
	for (int round = 0; round < 2; round++) {
		unsigned next = 0, done = 0;

		while (done < RUNS) {
			struct swap_run *r;

			while (next < RUNS) {
				void *area = pages + next * SWAP_RUN_MAX * PAGE_BYTES;
				slot_t first = run[next].slot;
				unsigned n = run[next].count;

				if (round == 0) {
					n = swapfile_alloc(s, 1 + (unsigned)unit_below(64), &first);
					REQUIRE(n > 0);
					run[next] = run_of(SWAP_WRITE, first, n, area);
					/* Every second: many pieces. */
					if (next % 2 && n <= SWAP_RUN_MAX / 2) {
						run[next].pages = UINT64_C(0x5555555555555555) &
						                  bits(0, 2 * n);
						run[next].pieces = pieces[next];
					}
					for (unsigned i = 0; i < n; i++)
						pattern_fill(swap_run_page(&run[next], i),
						             first + i);
				} else {
					memset(area, 0, SWAP_RUN_MAX * PAGE_BYTES);
					run[next].op = SWAP_READ;
				}
				if (swap_queue_add(q, &run[next]) != 0)
					break;
				next++;
			}
			r = swap_queue_reap(q, true, true);
			REQUIRE(r != NULL);
			done++;
			CHECK_EQ(r->status, 0);
			CHECK_EQ(r->bad, 0);
			for (unsigned i = 0; i < r->count; i++)
				REQUIRE(pattern_holds(swap_run_page(r, i), r->slot + i));
		}
		CHECK_EQ(swap_queue_in_flight(q), 0);
		CHECK(swap_queue_reap(q, true, true) == NULL);
	}
	for (unsigned i = 0; i < RUNS; i++)
		CHECK(slots_hold(s, run[i].slot, run[i].count, pages));
	swap_queue_close(q);
	swapfile_close(s);
	munmap(pages, RUNS * SWAP_RUN_MAX * PAGE_BYTES);
	free(run);
}

static void transfers(void)
{
	unit_seed();
	transfers_at(test_dir, "uring");
	transfers_at(test_dir, "sync");
}

static void transfers_on_tmpfs(void)
{
	if (access("/dev/shm", W_OK) != 0) {
		printf("skipped: no /dev/shm\n");
		return;
	}
	unit_seed();
	transfers_at("/dev/shm", "uring");
	transfers_at("/dev/shm", "sync");
}

struct reader {
	struct swapfile *s;
	slot_t first;
	unsigned count, seed, failures;
};

static void *read_slots(void *arg)
{
	struct reader *r = arg;
	void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
	                  0);

	for (unsigned i = 0; i < 500; i++) {
		r->seed = r->seed * 1664525u + 1013904223u;
		r->failures += !slots_hold(r->s, r->first + (r->seed >> 8) % r->count, 1, page);
	}
	munmap(page, PAGE_BYTES);
	return NULL;
}

static void many_threads_transfer(void)
{
	enum { THREADS = 4 };
	struct reader r[THREADS];
	pthread_t thread[THREADS];
	void *pages = pages_new(64);
	struct swapfile *s;
	slot_t first;

	REQUIRE_EQ(open_at(&s, test_dir), 0);
	REQUIRE_EQ(swapfile_alloc(s, 60, &first), 60);
	REQUIRE_EQ(write_slots(s, first, 60, pages), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		r[i] = (struct reader){ s, first, 60, i, 0 };
		REQUIRE_EQ(pthread_create(&thread[i], NULL, read_slots, &r[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(thread[i], NULL);
		CHECK_EQ(r[i].failures, 0);
	}
	swapfile_close(s);
	munmap(pages, 64 * PAGE_BYTES);
}

/* A named file cut short by somebody else: its slots can't be read, and say so. */
static void file_cut_short(void)
{
	const char *path = in_dir("swap");
	void *pages = pages_new(4);
	struct swap_run r;
	struct swapfile *s;
	slot_t first;

	REQUIRE_EQ(open_at(&s, path), 0);
	REQUIRE_EQ(swapfile_alloc(s, 4, &first), 4);
	REQUIRE_EQ(write_slots(s, first, 4, pages), 0);
	REQUIRE_EQ(truncate(path, (off_t)((first + 2) * PAGE_BYTES)), 0);
	CHECK(slots_hold(s, first, 2, pages));
	r = run_of(SWAP_READ, first, 4, pages);
	CHECK_EQ(swapfile_transfer(s, &r), -EIO);
	CHECK_EQ(r.status, -EIO);
	swapfile_close(s);
	unlink(path);
	munmap(pages, 4 * PAGE_BYTES);
}

/* A damaged disk: exactly the damaged pages are named. */
static void damage_is_found(void)
{
	void *pages = pages_new(8);
	struct swap_run r;
	struct swapfile *s;
	slot_t first;

	REQUIRE_EQ(open_at(&s, test_dir), 0);
	REQUIRE_EQ(swapfile_alloc(s, 8, &first), 8);
	REQUIRE_EQ(write_slots(s, first, 8, pages), 0);
	/* The bytes of slot first + 5 where those of first + 2 should be. */
	REQUIRE_EQ(pwrite(s->file.fd, (char *)pages + 5 * PAGE_BYTES, PAGE_BYTES,
	                  (off_t)((first + 2) * PAGE_BYTES)),
	           PAGE_BYTES);
	((char *)pages)[7 * PAGE_BYTES + 100] ^= 1;
	REQUIRE_EQ(pwrite(s->file.fd, (char *)pages + 7 * PAGE_BYTES, PAGE_BYTES,
	                  (off_t)((first + 7) * PAGE_BYTES)),
	           PAGE_BYTES);
	r = run_of(SWAP_READ, first, 8, pages);
	CHECK_EQ(swapfile_transfer(s, &r), 0);
	CHECK_EQ(r.bad, 1 << 2 | 1 << 7);
	swapfile_close(s);
	munmap(pages, 8 * PAGE_BYTES);
}

/* ---------------------------------------------------------------- beside a child */

/*
 * A child that shares the file has its turn in the middle of a system call of this process's: it works,
 * unless it has to wait, and says so.
 */
static struct {
	struct swapfile *s;
	int (*work)(void);
	int go[2], done[2];
	pid_t child;
	bool armed;             /* the next such call is the one */
	bool without_fallocate; /* the file system has none */
	bool asked;
} turn;

static void give_turn(void)
{
	struct pollfd p = { .fd = turn.done[0], .events = POLLIN };

	turn.armed = false;
	turn.asked = true;
	(void)!write(turn.go[1], "x", 1);
	poll(&p, 1, 40);
}

/* The library's calls come here. */
int fcntl(int fd, int command, ...)
{
	va_list list;
	long argument;

	va_start(list, command);
	argument = va_arg(list, long);
	va_end(list);
	if (command == F_OFD_SETLK && turn.armed)
		give_turn();
	return (int)syscall(SYS_fcntl, fd, command, argument);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (!turn.without_fallocate)
		return (int)syscall(SYS_fallocate, fd, mode, offset, length);
	errno = EOPNOTSUPP;
	return -1;
}

int ftruncate(int fd, off_t length)
{
	if (turn.without_fallocate && turn.armed)
		give_turn();
	return (int)syscall(SYS_ftruncate, fd, length);
}

static void turn_child(void)
{
	char c;

	close(turn.go[1]);
	if (swapfile_fork_in_child(turn.s) != 0 || read(turn.go[0], &c, 1) != 1)
		_exit(100);
	c = (char)turn.work();
	(void)!write(turn.done[1], &c, 1);
	/* Until the other has looked. */
	_exit((int)read(turn.go[0], &c, 1));
}

static void turn_begin(struct swapfile *s, int (*work)(void))
{
	turn.s = s;
	turn.work = work;
	REQUIRE(pipe(turn.go) == 0 && pipe(turn.done) == 0);
	REQUIRE_EQ(swapfile_fork(s), 0);
	fflush(stdout);
	turn.child = fork();
	REQUIRE(turn.child >= 0);
	if (turn.child == 0)
		turn_child();
	swapfile_fork_in_parent(s);
	close(turn.go[0]);
	close(turn.done[1]);
	turn.asked = false;
	turn.armed = true;
}

/* => what the child's work said, which it does now, if it had to wait */
static int turn_result(void)
{
	char c = 100;

	CHECK(turn.asked);
	CHECK_EQ(read(turn.done[0], &c, 1), 1);
	return c;
}

static void turn_end(void)
{
	int status;

	close(turn.go[1]);
	close(turn.done[0]);
	CHECK(waitpid(turn.child, &status, 0) == turn.child && status == 0);
}

static int reap(void)
{
	return slots_reap(&turn.s->slots);
}

/* A new member is none of the dead, whenever another looks for them. */
static void nobody_reaps_a_new_member(void)
{
	struct swapfile *s;
	slot_t first;

	REQUIRE_EQ(open_at(&s, test_dir), 0);
	REQUIRE_EQ(swapfile_alloc(s, 20, &first), 20);
	turn_begin(s, reap);
	REQUIRE_EQ(swapfile_fork(s), 0);
	CHECK_EQ(turn_result(), 0);
	CHECK_EQ(s->child, 2);
	CHECK_EQ(s->slots.control->members, 3);
	CHECK(s->slots.control->is_member[2]);
	swapfile_fork_in_parent(s);
	CHECK(swapfile_check(s));
	turn_end();
	swapfile_close(s);
}

enum { GROWTH = 256 };

static unsigned take_slots(struct swapfile *s, unsigned n, slot_t *last)
{
	unsigned got = 0, k;
	slot_t first;

	while (got < n && (k = swapfile_alloc(s, 64, &first)) > 0) {
		got += k;
		*last = first + k - 1;
	}
	return got;
}

static off_t length_of(const struct swapfile *s)
{
	struct stat st;

	return fstat(s->file.fd, &st) == 0 ? st.st_size : -1;
}

static bool is_long_enough(const struct swapfile *s)
{
	return length_of(s) >= (off_t)(s->slots.control->backed * PAGE_BYTES);
}

/* More than the file grows by at a time; the last of it is written. => 0: and read again */
static int grow_beside(void)
{
	void *page = pages_new(1);
	slot_t last = 0;

	if (take_slots(turn.s, 2 * GROWTH, &last) < 2 * GROWTH)
		return 1;
	if (write_slots(turn.s, last, 1, page) != 0 || !is_long_enough(turn.s))
		return 2;
	/* The other goes on with what it was at. */
	poll(NULL, 0, 80);
	return slots_hold(turn.s, last, 1, page) && is_long_enough(turn.s) ? 0 : 3;
}

/* Where nothing can be preallocated the file is made longer, by one process at a time: never shorter. */
static void never_shortened(void)
{
	struct swapfile *s;
	slot_t last = 0;
	unsigned got;

	turn.without_fallocate = true;
	REQUIRE_EQ(open_at(&s, test_dir), 0);
	s->file.chunk = GROWTH * PAGE_BYTES;
	turn_begin(s, grow_beside);
	got = take_slots(s, GROWTH / 2, &last);
	CHECK(got >= GROWTH / 2 && got < GROWTH);
	CHECK(is_long_enough(s));
	CHECK_EQ(turn_result(), 0);
	CHECK(!s->file.preallocate);
	CHECK(s->slots.control->backed >= 2 * GROWTH);
	CHECK(is_long_enough(s));
	/* What both have got they have apart from each other. */
	CHECK(swapfile_used(s) >= 2 * GROWTH + got);
	CHECK(swapfile_check(s));
	turn_end();
	turn.without_fallocate = false;
	swapfile_close(s);
}

/* ---------------------------------------------------------------- checksums */

static void same_sum_on_any_processor(void)
{
	unsigned char *page = pages_new(1);

	unit_seed();
	for (unsigned i = 0; i < PAGE_BYTES; i++)
		page[i] = (unsigned char)unit_random();
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2"))
		CHECK(checksum_page_avx2(page) == checksum_bytes(page, PAGE_BYTES));
	else
		printf("skipped: no AVX2 to compare with\n");
#endif
	CHECK(checksum_page(1, page) != checksum_page(2, page));
	CHECK(checksum_page(1, page) == checksum_page(1, page));
	munmap(page, PAGE_BYTES);
}

static void *sum_again(void *page)
{
	uint32_t sum = checksum_page(1, page);
	uintptr_t wrong = 0;

	for (int i = 0; i < 2000; i++)
		wrong += checksum_page(1, page) != sum;
	return (void *)wrong;
}

/* Another pager opens, and chooses among the functions anew: for ThreadSanitizer to judge. */
static void sums_while_another_opens(void)
{
	void *page = pages_new(1), *wrong;
	pthread_t thread;

	REQUIRE_EQ(pthread_create(&thread, NULL, sum_again, page), 0);
	for (int i = 0; i < 2000; i++)
		checksum_init();
	pthread_join(thread, &wrong);
	CHECK(wrong == NULL);
	munmap(page, PAGE_BYTES);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(bad_options),
		UNIT(size_limit_is_kept),
		UNIT(io_uring_forbidden),
		UNIT(not_a_standard_stream),
		UNIT(rounds_leak_nothing),
		UNIT(transfers),
		UNIT(transfers_on_tmpfs),
		UNIT(many_threads_transfer),
		UNIT(file_cut_short),
		UNIT(damage_is_found),
		UNIT(nobody_reaps_a_new_member),
		UNIT(never_shortened),
		UNIT(same_sum_on_any_processor),
		UNIT(sums_while_another_opens),
		UNIT_END,
	};

	return swap_main(argc, argv, "swapfile", tests);
}
