/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_sharing.c - a swap file that several processes have, and of which one is killed while
 * transfers of its rings are under way. Processes, rings and the disk are real.
 */
#define _GNU_SOURCE
#include "base/error.h"
#include "swapfile/members.h"
#include "tests/unit/swap_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000000)

/* => it has io_uring */
static bool open_with_rings(struct swapfile **s)
{
	struct swapfile_options o = { .path = test_dir, .io = "uring" };

	if (swapfile_open(s, &o) == 0)
		return true;
	printf("left out: %s\n", error_message());
	return false;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

/* ------------------------------------------------------------ what rings hold */

struct rings {
	unsigned there, hold; /* with a file that is registered */
};

static void look_at(struct rings *r, const char *name)
{
	char path[300], text[100] = "";
	unsigned files = 0;
	ssize_t n;
	FILE *f;

	snprintf(path, sizeof path, "/proc/self/fd/%s", name);
	n = readlink(path, text, sizeof text - 1);
	if (n < 0 || strcmp(text, "anon_inode:[io_uring]") != 0)
		return;
	r->there++;
	snprintf(path, sizeof path, "/proc/self/fdinfo/%s", name);
	f = fopen(path, "r");
	while (f && fgets(text, sizeof text, f))
		if (sscanf(text, "UserFiles: %u", &files) == 1)
			break;
	if (f)
		fclose(f);
	r->hold += files == 1;
}

static struct rings look_at_all(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct rings r = { 0 };
	struct dirent *e;

	while (d && (e = readdir(d)))
		look_at(&r, e->d_name);
	if (d)
		closedir(d);
	return r;
}

static struct swap_queue *queues[3];

static void ends_if_all_hold(struct swapfile *s, unsigned inherited, unsigned wanted)
{
	struct rings r;

	for (unsigned i = 0; i < inherited; i++)
		swap_queue_forget(queues[i]);
	if (swapfile_fork_in_child(s) != 0 || swap_queue_open(s, 4, &queues[0]) != 0 ||
	    swap_queue_open(s, 4, &queues[1]) != 0)
		_exit(1);
	r = look_at_all();
	_exit(r.there != wanted ? 2 : r.hold != r.there ? 3 : 0);
}

/* From the first fork on, in both. */
static void every_ring_holds_its_process(void)
{
	struct swapfile *s;
	struct rings before, after;
	int status;
	pid_t pid;

	if (!open_with_rings(&s))
		return;
	for (int i = 0; i < 2; i++)
		REQUIRE_EQ(swap_queue_open(s, 4, &queues[i]), 0);
	swapfile_look_open(s, SECOND);
	before = look_at_all();
	CHECK(before.there > 3 && before.hold == 0);
	for (unsigned turn = 0; turn < 2; turn++) {
		REQUIRE_EQ(swapfile_fork(s), 0);
		fflush(stdout);
		pid = fork();
		REQUIRE(pid >= 0);
		if (pid == 0)
			ends_if_all_hold(s, 2 + turn, before.there);
		swapfile_fork_in_parent(s);
		CHECK(waitpid(pid, &status, 0) == pid);
		CHECK_EQ(status, 0);
		after = look_at_all();
		CHECK_EQ(after.there, before.there + turn);
		CHECK_EQ(after.hold, after.there);
		if (turn == 0)
			REQUIRE_EQ(swap_queue_open(s, 4, &queues[2]), 0);
	}
	for (int i = 0; i < 3; i++)
		swap_queue_close(queues[i]);
	swapfile_close(s);
}

/* --------------------------------------------------------- those that linger */

static void ends_with_a_ring(struct swapfile *s)
{
	struct swap_queue *q;

	if (swapfile_fork_in_child(s) != 0 || swap_queue_open(s, 4, &q) != 0)
		_exit(1);
	_exit(0);
}

/* Who has ended is there until its rings have gone: the few numbers that there are last all the same. */
static void children_of_a_moment(void)
{
	struct swapfile *s;
	int status;
	pid_t pid;

	if (!open_with_rings(&s))
		return;
	s->slots.members_max = 2;
	for (int i = 0; i < 20; i++) {
		REQUIRE_EQ(swapfile_fork(s), 0);
		fflush(stdout);
		pid = fork();
		REQUIRE(pid >= 0);
		if (pid == 0)
			ends_with_a_ring(s);
		swapfile_fork_in_parent(s);
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	}
	swapfile_close(s);
}

/* ------------------------------------------------------- a write that is late */

static char group[200];

__attribute__((format(printf, 2, 3))) static bool tell_group(const char *file, const char *format,
                                                             ...)
{
	char path[300], text[100];
	va_list list;
	bool told;
	int fd, n;

	va_start(list, format);
	n = vsnprintf(text, sizeof text, format, list);
	va_end(list);
	snprintf(path, sizeof path, "%s/%s", group, file);
	fd = open(path, O_WRONLY);
	told = fd >= 0 && write(fd, text, (size_t)n) == n;
	if (fd >= 0)
		close(fd);
	return told;
}

/* A control group whose writes to the file's disk are slow. => false: not here */
static bool slow_group(const struct swapfile *s, unsigned bytes_a_second)
{
	struct stat st;

	if (fstat(s->file.fd, &st) != 0 || !swapfile_is_direct(s))
		return false;
	for (int version = 1; version <= 2; version++) {
		snprintf(group, sizeof group, "/sys/fs/cgroup/%squire-test-%d",
		         version == 1 ? "blkio/" : "", (int)getpid());
		if (mkdir(group, 0755) != 0)
			continue;
		if (version == 1 ? tell_group("blkio.throttle.write_bps_device", "%u:%u %u",
		                              major(st.st_dev), minor(st.st_dev), bytes_a_second) :
		                   tell_group("io.max", "%u:%u wbps=%u", major(st.st_dev),
		                              minor(st.st_dev), bytes_a_second))
			return true;
		rmdir(group);
	}
	return false;
}

/* Has a write under way to slots of its own, and is killed. */
static void is_killed(struct swapfile *s, const int told[2])
{
	unsigned char *pages = pages_new(SWAP_RUN_MAX);
	struct swap_run run;
	struct swap_queue *q;
	slot_t first;

	memset(pages, 0xdd, SWAP_RUN_MAX * PAGE_BYTES);
	if (!tell_group("cgroup.procs", "%d", (int)getpid()))
		_exit(1);
	if (swapfile_fork_in_child(s) != 0 || swap_queue_open(s, 4, &q) != 0)
		_exit(2);
	if (swapfile_alloc(s, SWAP_RUN_MAX, &first) != SWAP_RUN_MAX)
		_exit(3);
	run = run_of(SWAP_WRITE, first, SWAP_RUN_MAX, pages);
	if (swap_queue_add(q, &run) != 0)
		_exit(4);
	swap_queue_flush(q);
	(void)!write(told[1], &first, sizeof first);
	kill(getpid(), SIGKILL);
	_exit(5);
}

static void until(uint64_t time)
{
	while (now_ns() < time)
		nap();
}

/* => in slots that are free again and written anew, bytes that the dead has written since */
static unsigned overwritten(struct swapfile *s, slot_t first, uint64_t *waited)
{
	size_t bytes = SWAP_RUN_MAX * PAGE_BYTES, at = (size_t)first * PAGE_BYTES;
	unsigned char *pages = pages_new(SWAP_RUN_MAX);
	uint64_t start = now_ns();
	unsigned n = 0;

	while (!slots_reap(&s->slots) && now_ns() < start + 30 * SECOND)
		nap();
	CHECK_EQ(swapfile_used(s), 1);
	*waited = now_ns() - start;
	memset(pages, 0x55, bytes);
	CHECK_EQ(pwrite(s->file.fd, pages, bytes, (off_t)at), bytes);
	/* Longer than it would have taken. */
	until(start + 4 * SECOND);
	CHECK_EQ(pread(s->file.fd, pages, bytes, (off_t)at), bytes);
	for (size_t i = 0; i < bytes; i++)
		n += pages[i] != 0x55;
	return n;
}

/* Nobody is given its slots before its writes have ended. */
static void late_writes_hit_nobody(void)
{
	struct swapfile *s;
	uint64_t waited;
	slot_t first, other;
	int told[2], status;
	pid_t pid;

	if (!open_with_rings(&s))
		return;
	/* Two seconds for a run. */
	if (!slow_group(s, SWAP_RUN_MAX * PAGE_BYTES / 2)) {
		printf("left out: no control group makes this disk slow\n");
		swapfile_close(s);
		return;
	}
	REQUIRE(pipe(told) == 0);
	/* With the first slot, which is nobody's, the next run would be shorter. */
	CHECK_EQ(swapfile_alloc(s, 1, &other), 1);
	CHECK_EQ(swapfile_fork(s), 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		is_killed(s, told);
	swapfile_fork_in_parent(s);
	close(told[1]);
	CHECK_EQ(read(told[0], &first, sizeof first), sizeof first);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, SIGKILL);
	CHECK_EQ(overwritten(s, first, &waited), 0);
	printf("free after %.1f s\n", (double)waited / 1e9);
	CHECK(rmdir(group) == 0);
	close(told[0]);
	CHECK(swapfile_check(s));
	swapfile_unref(s, other);
	swapfile_close(s);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(every_ring_holds_its_process),
		UNIT(children_of_a_moment),
		UNIT(late_writes_hit_nobody),
		UNIT_END,
	};

	return swap_main(argc, argv, "sharing", tests);
}
