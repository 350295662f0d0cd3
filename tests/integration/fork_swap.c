/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/fork_swap.c - the swap file that a process and its children of fork(2)
 * share: what one has of it nobody else gives up, what nobody has is free, and the last to go
 * closes it.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 256 };

#define BUDGET QUIRE_MEMORY_MIN

static quire_t *q;
static quire_region_t *r;
static struct errors errors;

/* A swap file for so many of the region's pages. */
static void begin(const char *path, size_t pages)
{
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET,
		                   .swap_path = path,
		                   .swap_size = pages * PAGE,
		                   .on_error = errors_count,
		                   .on_error_arg = &errors };

	memset(&errors, 0, sizeof errors);
	q = pager_open_options(&o);
	r = region_create(q, PAGES * PAGE);
	fill(r, 0, PAGES, 1);
}

/* ------------------------------------------------------ a small swap file */

enum { EXIT, KILLED, EXEC, WAYS };

/* Some pages get slots that only the child holds. */
static void hold_some(void *arg)
{
	MUST(wrong(r, 10, 20, 1) == 0);
	fill(r, 0, 90, 5);
	if ((uintptr_t)arg == KILLED)
		pause();
	if ((uintptr_t)arg == EXEC)
		execl("/bin/true", "true", (char *)NULL);
	_exit((uintptr_t)arg == EXIT ? 0 : 1);
}

/* One that is to be killed is, sometime at its work. => as expected? */
static bool come_and_go(unsigned round)
{
	unsigned way = round % WAYS;
	pid_t pid = child_start(hold_some, (void *)(uintptr_t)way);
	int status;

	if (way == KILLED) {
		sleep_seconds(round % 7 * 0.004);
		kill(pid, SIGKILL);
	}
	status = child_end(pid, 20);
	return way == KILLED ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : status == 0;
}

/*
 * Each child may leave as much as 90 pages behind, and with it the parent's slots of its time,
 * that the parent has others for now.
 */
static void dead_children_hold_nothing(void)
{
	int rounds = (int)quick_or_full(60, 300);
	unsigned bad = 0;

	begin(NULL, PAGES + 200);
	for (int i = 0; i < rounds; i++) {
		size_t first = (size_t)i * 30 % (PAGES - 30);

		fill(r, 0, PAGES / 8, 1);
		bad += !come_and_go((unsigned)i);
		bad += wrong(r, first, 30, 1) != 0;
	}
	CHECK_EQ(bad, 0);
	for (unsigned v = 2; v < 4; v++) {
		CHECK_EQ(quire_advise(r, 0, PAGES * PAGE, QUIRE_ADVISE_DONTNEED), 0);
		fill(r, 0, PAGES, v);
		CHECK_EQ(wrong(r, 0, PAGES, v), 0);
	}
	CHECK_EQ(errors.count, 0);
	CHECK_EQ(quire_close(q), 0);
}

static int go[2];

static void wait_for_go(void)
{
	char c;

	close(go[1]);
	MUST(read(go[0], &c, 1) == 0);
}

static void check_old_now(void *arg)
{
	(void)arg;
	MUST(wrong(r, 0, PAGES, 1) == 0);
	fill(r, 0, PAGES, 6);
	MUST(wrong(r, 0, PAGES, 6) == 0);
	MUST(errors.count == 0);
}

static void check_old(void *arg)
{
	wait_for_go();
	check_old_now(arg);
}

/* There is room for two of everything, not for three. */
static void what_a_child_has_stays(void)
{
	pid_t pid;

	begin(NULL, 2 * PAGES + 200);
	MUST(pipe(go) == 0);
	pid = child_start(check_old, NULL);
	close(go[0]);
	for (unsigned v = 2; v < 6; v++) {
		CHECK_EQ(quire_advise(r, 0, PAGES * PAGE, QUIRE_ADVISE_DONTNEED), 0);
		fill(r, 0, PAGES, v);
		CHECK_EQ(wrong(r, 0, PAGES, v), 0);
	}
	CHECK_EQ(errors.count, 0);
	close(go[1]);
	CHECK_EQ(child_end(pid, 20), 0);
	CHECK_EQ(wrong(r, 0, PAGES, 5), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void drop_all(void *arg)
{
	(void)arg;
	MUST(quire_region_destroy(r) == 0);
	r = region_create(q, PAGES * PAGE);
	fill(r, 0, PAGES, 7);
	MUST(quire_set_memory(q, 2 * BUDGET) == 0);
	fill(r, 0, PAGES, 8);
	MUST(wrong(r, 0, PAGES, 8) == 0);
}

/* Nor do children take anything from their parent, or from each other. */
static void what_children_give_up(void)
{
	pid_t pid[3];

	begin(NULL, 0);
	for (int i = 0; i < 3; i++)
		pid[i] = child_start(drop_all, NULL);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(child_end(pid[i], 20), 0);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(errors.count, 0);
	CHECK_EQ(quire_close(q), 0);
}

/* ------------------------------------------------ forks at the same moment */

/* What it was given, all of which it still has when its parent has none of it; and gives it up. */
static void check_and_drop(void *arg)
{
	unsigned v = (unsigned)(uintptr_t)arg;

	alarm(20);
	wait_for_go();
	MUST(wrong(r, v % 2 * 64, 64, v) == 0);
	MUST(quire_advise(r, 0, PAGES * PAGE, QUIRE_ADVISE_DONTNEED) == 0);
	if (v % 2)
		MUST(quire_close(q) == 0);
}

static unsigned *ready; /* shared: how often one of two was */

/* Both go on at the same moment. A last one of them does not wait for ever. */
static void meet(unsigned round)
{
	double end = seconds_now() + 2;

	__atomic_fetch_add(ready, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(ready, __ATOMIC_ACQUIRE) < 2 * round && seconds_now() < end)
		;
}

/* A child that looks at what its parent writes over meanwhile, again and again. */
static void fork_often(void *arg)
{
	unsigned end = 1 + (unsigned)(uintptr_t)arg;

	alarm(60);
	for (unsigned v = 1; v < end; v++) {
		pid_t pid;

		MUST(pipe(go) == 0);
		meet(v);
		pid = child_start(check_and_drop, (void *)(uintptr_t)v);
		close(go[0]);
		fill(r, 0, PAGES / 2, v + 1);
		close(go[1]);
		MUST(child_end(pid, 20) == 0);
	}
	MUST(wrong(r, 0, PAGES / 2, end) == 0 && wrong(r, PAGES / 2, PAGES / 2, 1) == 0);
	MUST(errors.count == 0);
}

/* While their parent takes away what those had that it has killed. */
static void siblings_fork_at_once(void)
{
	unsigned rounds = (unsigned)quick_or_full(30, 1000);
	pid_t pid[2];

	ready = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(ready != MAP_FAILED);
	begin(NULL, 0);
	for (int i = 0; i < 2; i++)
		pid[i] = child_start(fork_often, (void *)(uintptr_t)rounds);
	for (unsigned i = 0; i < rounds / 2; i++)
		CHECK(come_and_go(KILLED + i * WAYS));
	for (int i = 0; i < 2; i++)
		CHECK_EQ(child_end(pid[i], quick_or_full(20, 60)), 0);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(errors.count, 0);
	CHECK_EQ(quire_close(q), 0);
	munmap(ready, PAGE);
}

/* ------------------------------------------ children that could not have it */

static void lose(void *arg)
{
	const bool *closes = arg;

	MUST(errors.count == 1 && errors.kinds[QUIRE_ERROR_FORK] == 1);
	MUST(!*closes || quire_close(q) == 0);
}

/* Children without the pager: whatever they do, and when they end. */
static void lose_some(void)
{
	static const bool closes[] = { false, true };

	for (int i = 0; i < 4; i++)
		CHECK_EQ(child_end(child_start_short(lose, (void *)&closes[i % 2], 3), 20), 0);
}

/* To fork is to look for the dead. */
static void fork_and_check_old(void *arg)
{
	wait_for_go();
	MUST(in_child(check_old_now, arg, 20) == 0);
	check_old_now(arg);
}

/*
 * Before there was any child, when nothing could be made for one, and after it, when what is short is
 * the child's own. Nor do they take their parent's presence with them, for which it would be one of the dead.
 */
static void lost_children_give_nothing_up(void)
{
	pid_t pid;

	begin(NULL, 3 * PAGES + 200);
	lose_some();
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	MUST(pipe(go) == 0);
	pid = child_start(fork_and_check_old, NULL);
	close(go[0]);
	lose_some();
	fill(r, 0, PAGES, 2);
	CHECK_EQ(wrong(r, 0, PAGES, 2), 0);
	lose_some();
	close(go[1]);
	CHECK_EQ(child_end(pid, 20), 0);
	CHECK_EQ(wrong(r, 0, PAGES, 2), 0);
	CHECK_EQ(quire_advise(r, 0, PAGES * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	fill(r, 0, PAGES, 3);
	CHECK_EQ(wrong(r, 0, PAGES, 3), 0);
	CHECK_EQ(errors.count, 0);
	CHECK_EQ(quire_close(q), 0);
}

static void look_at_some(void *arg)
{
	(void)arg;
	MUST(errors.count == 0 && load(page_at(r, 7)) != 0);
}

/* There is room for one of everything. */
static void what_was_held_for_them_is_free(void)
{
	begin(NULL, PAGES + 120);
	for (unsigned v = 2; v < 5; v++) {
		/* After one that had everything something is ready for the next, and taken. */
		CHECK_EQ(in_child(look_at_some, NULL, 20), 0);
		lose_some();
		CHECK_EQ(wrong(r, 0, PAGES, v - 1), 0);
		CHECK_EQ(quire_advise(r, 0, PAGES * PAGE, QUIRE_ADVISE_DONTNEED), 0);
		fill(r, 0, PAGES, v);
		CHECK_EQ(wrong(r, 0, PAGES, v), 0);
	}
	CHECK_EQ(errors.count, 0);
	CHECK_EQ(quire_close(q), 0);
}

static int gone[2]; /* ends when the parent has gone */

static void lose_and_stay(void *arg)
{
	char c;

	(void)arg;
	close(go[1]);
	close(gone[1]);
	MUST(errors.count == 1);
	(void)!read(go[0], &c, 1);
}

/* With what the parent had; there is no room for this beside it. */
static void use_up(void *arg)
{
	quire_region_t *other;
	char c;

	(void)arg;
	close(gone[1]);
	close(go[1]);
	MUST(read(gone[0], &c, 1) == 0);
	other = region_create(q, PAGES * PAGE);
	fill(other, 0, PAGES, 4);
	MUST(wrong(other, 0, PAGES, 4) == 0 && wrong(r, 0, PAGES, 1) == 0);
	MUST(errors.count == 0);
}

/* arg: where to write who the heir is. It has everything on the swap file, apart from its child. */
static void leave_an_heir_and_lost_ones(void *arg)
{
	pid_t *heir = arg;

	begin(NULL, 2 * PAGES + 100);
	*heir = child_start(use_up, NULL);
	/* One that fails in the child, maybe, and one for which nothing is ready any more. */
	for (int i = 0; i < 2; i++)
		child_start_short(lose_and_stay, NULL, 3);
	fill(r, 0, PAGES, 2);
	MUST(wrong(r, 0, PAGES, 2) == 0);
	raise(SIGKILL);
}

/* That they live does not mean that he does, whose descriptors they have had. */
static void lost_children_do_not_stand_for_their_parent(void)
{
	pid_t *heir = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = -1;

	MUST(heir != MAP_FAILED);
	MUST(pipe(go) == 0 && pipe(gone) == 0);
	/* The heir is ours then. */
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	CHECK(WIFSIGNALED(in_child(leave_an_heir_and_lost_ones, heir, 20)));
	close(gone[1]);
	CHECK(waitpid(*heir, &status, 0) == *heir && status == 0);
	close(go[1]);
	for (int i = 0; i < 2; i++)
		CHECK(wait(&status) > 0 && status == 0);
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 0) == 0);
	close(go[0]);
	close(gone[0]);
	munmap(heir, PAGE);
}

/* ---------------------------------------------------------- a named file */

static const char *path;

static off_t size_now(void)
{
	struct stat st;

	MUST(stat(path, &st) == 0);
	return st.st_size;
}

static bool in_use(void)
{
	struct quire_options o = { .size = sizeof o, .memory = BUDGET, .swap_path = path };
	quire_t *second = NULL;
	int error = quire_open(&second, &o);

	MUST(error == -EBUSY || error == 0);
	if (!error)
		quire_close(second);
	return error == -EBUSY;
}

static void close_first(void *arg)
{
	(void)arg;
	MUST(wrong(r, 0, PAGES, 1) == 0);
	MUST(quire_close(q) == 0);
	MUST(size_now() > (off_t)PAGE && in_use());
}

static void close_last(void *arg)
{
	(void)arg;
	wait_for_go();
	MUST(size_now() > (off_t)PAGE && in_use());
	MUST(wrong(r, 0, PAGES, 1) == 0);
	fill(r, 0, PAGES, 2);
	MUST(wrong(r, 0, PAGES, 2) == 0);
	MUST(quire_close(q) == 0);
	MUST(size_now() == (off_t)PAGE && !in_use());
}

static void go_without_closing(void *arg)
{
	(void)arg;
	fill(r, 0, PAGES, 2);
	raise(SIGKILL);
}

static void the_last_truncates(void)
{
	pid_t pid;

	path = path_in(temporary_directory(), "swap");
	begin(path, 0);
	CHECK_EQ(in_child(close_first, NULL, 20), 0);
	CHECK(size_now() > (off_t)PAGE && in_use());
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK(WIFSIGNALED(in_child(go_without_closing, NULL, 20)));
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(quire_close(q), 0);
	CHECK(size_now() == (off_t)PAGE && !in_use());

	begin(path, 0);
	MUST(pipe(go) == 0);
	pid = child_start(close_last, NULL);
	close(go[0]);
	CHECK_EQ(quire_close(q), 0);
	CHECK(size_now() > (off_t)PAGE && in_use());
	close(go[1]);
	CHECK_EQ(child_end(pid, 20), 0);
	CHECK(size_now() == (off_t)PAGE && !in_use());
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(dead_children_hold_nothing),
		                                  UNIT(what_a_child_has_stays),
		                                  UNIT(what_children_give_up),
		                                  UNIT(siblings_fork_at_once),
		                                  UNIT(lost_children_give_nothing_up),
		                                  UNIT(what_was_held_for_them_is_free),
		                                  UNIT(lost_children_do_not_stand_for_their_parent),
		                                  UNIT(the_last_truncates),
		                                  UNIT_END };

	return unit_main(argc, argv, "fork_swap", tests);
}
