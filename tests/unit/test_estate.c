/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_estate.c - what a parent still owes its child (vm/estate.c), where it cannot be given: the
 * child's file takes no bytes, as when memory is short. Pagers and forks are real, the engine is sigsegv.
 * What goes well: tests/integration/fork_memory.c.
 */
#include "vm/estate_record.h"
#include "tests/unit/uffd_fixture.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OWED_PAGES = 16 };

static _Atomic int refused = -1; /* the child whose file takes no bytes; -1: all do */
static _Atomic unsigned tried;   /* of which pages it has been tried since */

static void refuse(int child)
{
	atomic_store(&tried, 0);
	atomic_store(&refused, child);
}

static struct estates *estates(void)
{
	return &q->engine.sigsegv.estates;
}

/* The library's calls come here. */
ssize_t pwrite(int fd, const void *from, size_t bytes, off_t offset)
{
	int child = atomic_load(&refused);

	if (child >= 0 && (uint32_t)child < estates()->heirs && fd == estates()->heir[child].fd) {
		atomic_fetch_or(&tried, 1u << pages_of((size_t)offset - (size_t)r->base));
		errno = ENOSPC;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, from, bytes, offset);
}

static uint64_t number(uint64_t page, uint64_t version)
{
	return page << 32 | version;
}

static void write_all(uint64_t version)
{
	for (uint64_t page = 0; page < OWED_PAGES; page++)
		*at(page, 0) = *at(page, WORDS - 1) = number(page, version);
}

static unsigned wrong(uint64_t version)
{
	unsigned n = 0;

	for (uint64_t page = 0; page < OWED_PAGES; page++)
		n += *at(page, 0) != number(page, version) ||
		     *at(page, WORDS - 1) != number(page, version);
	return n;
}

/* ------------------------------------------------------------- children */

struct child {
	pid_t pid;
	int go;
};

/* It does this when it is told. => f's value is its exit status */
static struct child child_start(int (*f)(void))
{
	struct child c;
	int ends[2];
	char byte;

	REQUIRE(pipe(ends) == 0);
	fflush(stdout);
	c = (struct child){ .pid = fork(), .go = ends[1] };
	REQUIRE(c.pid >= 0);
	if (c.pid == 0) {
		alarm(20);
		close(ends[1]);
		(void)!read(ends[0], &byte, 1);
		_exit(f());
	}
	close(ends[0]);
	return c;
}

static int child_end(struct child c)
{
	int status = -1;

	(void)!write(c.go, "x", 1);
	close(c.go);
	waitpid(c.pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* => pages that are not as at the fork */
static int has_first(void)
{
	return (int)wrong(1);
}

/* => of those that are not as at the fork, the number of those that are refused */
static int is_refused(void)
{
	int n = 0;

	for (uint64_t page = 0; page < OWED_PAGES; page++) {
		struct access a = { .word = at(page, 0) };

		do_access(&a);
		n += a.signal == SIGBUS;
		if (!a.signal && a.value != number(page, 1))
			return 100;
	}
	return n;
}

/* => 0: it has nothing */
static int is_out_of_reach(void)
{
	int n = 0;

	for (uint64_t page = 0; page < OWED_PAGES; page++) {
		struct access a = { .word = at(page, 0) };

		do_access(&a);
		n += a.signal != SIGSEGV;
	}
	return n;
}

static void start(void)
{
	uffd_start("sigsegv");
	write_all(1);
	REQUIRE_EQ(estates()->heirs, 0);
}

/* --------------------------------------------------------------- gifts */

/* Use the rest of the region until each of these has been tried to be evicted. */
static void press(void)
{
	for (unsigned i = 0; atomic_load(&tried) != (1u << OWED_PAGES) - 1; i++) {
		for (uint64_t page = OWED_PAGES; page < PAGES; page++)
			*at(page, 1) = page + i;
		REQUIRE(i < 100);
	}
}

/* They are here still, and not to be written to unseen when there is room again. */
static void victims_stay(void)
{
	struct child c;

	start();
	c = child_start(has_first);
	refuse(0);
	press();
	for (uint64_t page = 0; page < OWED_PAGES; page++)
		CHECK_EQ(entry_state(atomic_load(region_entry(r, page))), ENTRY_MAPPED);
	refuse(-1);
	CHECK_EQ(wrong(1), 0);
	write_all(2);
	CHECK_EQ(wrong(2), 0);
	CHECK_EQ(child_end(c), 0);
	CHECK_EQ(wrong(2), 0);
	uffd_finish();
}

/* Nor can they be written to while there is none. */
static void writes_are_refused(void)
{
	struct child c;

	start();
	c = child_start(has_first);
	refuse(0);
	for (uint64_t page = 0; page < OWED_PAGES; page++) {
		struct access a = { .word = at(page, 0), .write = true, .value = 7 };

		do_access(&a);
		CHECK_EQ(a.signal, SIGBUS);
	}
	refuse(0);
	press();
	for (uint64_t page = 0; page < OWED_PAGES; page += 3) {
		struct access a = { .word = at(page, 0), .write = true, .value = 7 };

		do_access(&a);
		CHECK_EQ(a.signal, SIGBUS);
	}
	CHECK_EQ(wrong(1), 0);
	refuse(-1);
	write_all(2);
	CHECK_EQ(child_end(c), 0);
	CHECK_EQ(wrong(2), 0);
	uffd_finish();
}

/* One of two children has been given it, the other has not. */
static void one_of_two(void)
{
	struct child c[2];

	for (int i = 0; i < 2; i++) {
		start();
		c[0] = child_start(has_first);
		c[1] = child_start(has_first);
		REQUIRE_EQ(estates()->heirs, 2);
		refuse(i);
		press();
		refuse(-1);
		write_all(2);
		CHECK_EQ(child_end(c[0]), 0);
		CHECK_EQ(child_end(c[1]), 0);
		CHECK_EQ(wrong(2), 0);
		uffd_finish();
	}
}

/* To discard them fails, too, and leaves them as they were. */
static void discards_fail(void)
{
	struct child c;

	start();
	c = child_start(has_first);
	refuse(0);
	CHECK(quire_advise(r, 0, OWED_PAGES * PAGE_BYTES, QUIRE_ADVISE_DONTNEED) < 0);
	CHECK_EQ(wrong(1), 0);
	refuse(-1);
	CHECK_EQ(quire_advise(r, 0, OWED_PAGES * PAGE_BYTES, QUIRE_ADVISE_DONTNEED), 0);
	CHECK_EQ(*at(3, 0), 0);
	CHECK_EQ(child_end(c), 0);
	uffd_finish();
}

/* The parent destroys the region: what could not be given is refused in the child, never wrong. */
static void lost_is_refused(void)
{
	struct child c;

	start();
	c = child_start(is_refused);
	refuse(0);
	CHECK_EQ(quire_region_destroy(r), 0);
	refuse(-1);
	CHECK_EQ(child_end(c), OWED_PAGES);
	uffd_finish();
}

/* ---------------------------------------------- what the dead leave behind */

/* => pages of memory that a file has */
static uint64_t pages_in(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 / PAGE_BYTES : UINT64_MAX;
}

/* Its parent is not asked for anything, and asks it nothing. */
static void a_dead_child_keeps_no_memory(void)
{
	struct child c;

	start();
	c = child_start(has_first);
	REQUIRE_EQ(estates()->heirs, 1);
	CHECK_EQ(child_end(c), 0);
	CHECK(pages_in(estates()->heir[0].fd) >= OWED_PAGES);
	for (int i = 0; i < 200 && pages_in(estates()->heir[0].fd) > 0; i++)
		nap(20);
	CHECK_EQ(pages_in(estates()->heir[0].fd), 0);
	CHECK_EQ(wrong(1), 0);
	uffd_finish();
}

/* The reclaimer has something to do all the time, and comes to nothing. */
static void though_the_swap_file_is_full(void)
{
	struct access a = { .write = true };
	struct child c;

	uffd_start_as("sigsegv", (struct uffd_how){ .swap_size = 80 * PAGE_BYTES });
	write_all(1);
	c = child_start(has_first);
	for (uint64_t page = OWED_PAGES; page < PAGES && !a.signal; page++) {
		a = (struct access){ .word = at(page, 0), .write = true, .value = page };
		do_access(&a);
	}
	CHECK_EQ(a.signal, SIGBUS);
	CHECK_EQ(child_end(c), 0);
	for (int i = 0; i < 200 && pages_in(estates()->heir[0].fd) > 0; i++)
		nap(20);
	CHECK_EQ(pages_in(estates()->heir[0].fd), 0);
	uffd_finish();
}

static bool has_no_other_file(void)
{
	struct stat own, other;

	REQUIRE(fstat(q->engine.sigsegv.fd, &own) == 0 && fstat(estates()->fd, &other) == 0);
	return own.st_ino == other.st_ino;
}

static uint64_t owed_now(void)
{
	return atomic_load(&((struct estate *)estates()->memory.base)->owed);
}

/* => 0: it gives its parent's file up, and has all that it is to have */
static int gives_up(void)
{
	for (int i = 0; i < 200 && !has_no_other_file(); i++)
		nap(20);
	if (!has_no_other_file())
		return 101;
	return wrong(1) ? 102 : owed_now() ? 103 : 0;
}

/* Its parent lives, and it has asked for everything. */
static int gives_up_when_it_has_all(void)
{
	return wrong(1) ? 104 : gives_up();
}

static void a_child_that_has_all(void)
{
	struct child c;

	start();
	c = child_start(gives_up_when_it_has_all);
	CHECK_EQ(child_end(c), 0);
	uffd_finish();
}

/* arg: how much it has asked for when its parent ends. => what became of it, in the end */
static int orphan(unsigned asked, bool parent_counts)
{
	int ends[2], go[2];
	unsigned char result = 200;
	pid_t parent;

	REQUIRE(pipe(ends) == 0 && pipe(go) == 0);
	start();
	fflush(stdout);
	parent = fork();
	REQUIRE(parent >= 0);
	if (parent == 0) {
		/* Its threads have begun by then: sanitizers' locks are not made for forks in between. */
		nap(100);
		/* It was forked itself, and has a child of its own. */
		if (fork() == 0) {
			alarm(20);
			close(go[1]);
			for (uint64_t page = 0; page < asked; page++)
				if (*at(page, 0) != number(page, 1))
					_exit(1);
			(void)!read(go[0], &result, 1);
			result = (unsigned char)gives_up();
			(void)!write(ends[1], &result, 1);
			_exit(0);
		}
		/* Killed before it has said that a page has been given. */
		if (!parent_counts)
			atomic_fetch_add(&((struct estate *)estates()->heir[0].memory.base)->owed,
			                 1);
		_exit(0);
	}
	close(go[0]);
	close(ends[1]);
	waitpid(parent, NULL, 0);
	close(go[1]);
	(void)!read(ends[0], &result, 1);
	close(ends[0]);
	CHECK_EQ(wrong(1), 0);
	uffd_finish();
	return result;
}

static void orphans_take_the_rest(void)
{
	CHECK_EQ(orphan(0, true), 0);
	CHECK_EQ(orphan(3, true), 0);
	/* Then it counts as owed for ever, and is not looked for as long. */
	CHECK_EQ(orphan(2, false), 103);
}

/* One child too many: the oldest is given all, or keeps what it has and the new one goes without. */
static void no_room_for_another(void)
{
	struct child c[HEIRS_MAX + 2];
	unsigned n = 0;

	start();
	for (; n < HEIRS_MAX; n++)
		c[n] = child_start(has_first);
	REQUIRE_EQ(estates()->heirs, HEIRS_MAX);
	refuse(0);
	c[n++] = child_start(is_out_of_reach);
	REQUIRE_EQ(estates()->heirs, HEIRS_MAX);
	refuse(-1);
	c[n++] = child_start(has_first);
	REQUIRE_EQ(estates()->heirs, HEIRS_MAX);
	write_all(2);
	for (unsigned i = 0; i < n; i++)
		CHECK_EQ(child_end(c[i]), 0);
	CHECK_EQ(wrong(2), 0);
	uffd_finish();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(victims_stay),
		UNIT(writes_are_refused),
		UNIT(one_of_two),
		UNIT(discards_fail),
		UNIT(lost_is_refused),
		UNIT(a_dead_child_keeps_no_memory),
		UNIT(though_the_swap_file_is_full),
		UNIT(a_child_that_has_all),
		UNIT(orphans_take_the_rest),
		UNIT(no_room_for_another),
		UNIT_END,
	};

	if (unit_foreign_threads())
		return 77;
	return uffd_main(argc, argv, "estate", tests);
}
