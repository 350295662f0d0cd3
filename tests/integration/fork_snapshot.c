/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/fork_snapshot.c - snapshots and clones in children of fork(2), and in
 * their parent, each by itself.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "fork_image.h"

#include <unistd.h>

static struct {
	quire_snapshot_t *s[2];
	struct image then[2], clone;
} shots;

static bool snapshot_holds(int which)
{
	uint64_t words[PAGE / 8];
	size_t bad = 0;

	for (size_t p = 0; p < PAGES; p++) {
		unsigned v = shots.then[which].version[p];

		MUST(quire_snapshot_read(shots.s[which], p * PAGE, words, PAGE) == 0);
		if (v)
			bad += wrong_page(words, p, v) != 0;
		else
			bad += words[0] || memcmp(words, words + 1, PAGE - 8) != 0;
	}
	return bad == 0;
}

static void snapshot(int which)
{
	MUST(quire_snapshot_create(image.r, &shots.s[which]) == 0);
	shots.then[which] = image;
}

static int mark(void *arg, size_t offset, size_t length)
{
	memset((bool *)arg + offset / PAGE, 1, length / PAGE);
	return 0;
}

/* What the bookkeeping says beyond what differs is no mistake. */
static bool diff_holds(void)
{
	bool differs[PAGES] = { false };
	size_t bad = 0;

	MUST(quire_snapshot_diff(shots.s[0], shots.s[1], mark, differs) == 0);
	for (size_t p = 0; p < PAGES; p++)
		bad += shots.then[0].version[p] != shots.then[1].version[p] && !differs[p];
	return bad == 0 && !differs[PAGES - 1];
}

static void take_snapshots(void)
{
	begin(BUDGET);
	snapshot(0);
	image_fill(&image, 20, 100, 2);
	snapshot(1);
	MUST(quire_snapshot_clone(shots.s[0], &shots.clone.r) == 0);
	memcpy(shots.clone.version, shots.then[0].version, sizeof shots.clone.version);
	image_fill(&shots.clone, 130, 20, 5);
	image_fill(&image, 80, 50, 3);
	MUST(quire_advise(image.r, 0, 10 * PAGE, QUIRE_ADVISE_DONTNEED) == 0);
	image_zeros(&image, 0, 10);
}

static void all_hold(void)
{
	MUST(snapshot_holds(0));
	MUST(snapshot_holds(1));
	MUST(diff_holds());
	MUST(image_wrong(&image) == 0);
	MUST(image_wrong(&shots.clone) == 0);
}

static void roll_back(int which)
{
	MUST(quire_snapshot_rollback(shots.s[which]) == 0);
	memcpy(image.version, shots.then[which].version, sizeof image.version);
	MUST(image_wrong(&image) == 0);
}

/* All that can be done with them, ending with which of them is destroyed first. */
static void use_snapshots(void *arg)
{
	int first = (int)(uintptr_t)arg;
	struct image other;

	all_hold();
	image_fill(&image, 0, 80, 11);
	image_fill(&shots.clone, 60, 60, 12);
	all_hold();
	MUST(quire_snapshot_clone(shots.s[1], &other.r) == 0);
	memcpy(other.version, shots.then[1].version, sizeof other.version);
	image_fill(&other, 30, 30, 13);
	MUST(image_wrong(&other) == 0);
	roll_back(first);
	roll_back(!first);
	all_hold();
	MUST(quire_snapshot_destroy(shots.s[first]) == 0);
	MUST(snapshot_holds(!first));
	MUST(quire_snapshot_destroy(shots.s[!first]) == 0);
	snapshot(0);
	image_fill(&image, 0, PAGES, 14);
	MUST(snapshot_holds(0));
	MUST(image_wrong(&other) == 0 && image_wrong(&shots.clone) == 0);
	MUST(image_wrong(&image) == 0);
	MUST(quire_region_destroy(image.r) == 0);
	MUST(snapshot_holds(0));
	MUST(quire_close(q) == 0);
}

/* The child's and the parent's are independent: after each other either way, and at once. */
static void snapshots(void)
{
	pid_t pid;

	take_snapshots();
	CHECK_EQ(in_child(use_snapshots, (void *)1, 20), 0);
	all_hold();
	pid = child_start(use_snapshots, (void *)0);
	use_snapshots((void *)1);
	CHECK_EQ(child_end(pid, 20), 0);
}

static void wait_and_use_snapshots(void *arg)
{
	const int *go = arg;
	char c;

	close(go[1]);
	MUST(read(go[0], &c, 1) == 0);
	use_snapshots((void *)0);
}

static void snapshots_the_parent_gave_up(void)
{
	int go[2];
	pid_t pid;

	take_snapshots();
	MUST(pipe(go) == 0);
	pid = child_start(wait_and_use_snapshots, go);
	close(go[0]);
	use_snapshots((void *)0);
	close(go[1]);
	CHECK_EQ(child_end(pid, 20), 0);
}

/* Nothing need be evicted, so nobody but who wants a page moves any. */
static void clone_what_is_in_memory(void *arg)
{
	quire_snapshot_t *s = arg;
	quire_region_t *clone = NULL;

	alarm(10);
	/* It is protected still, or this would be written to the snapshot, too. */
	fill(image.r, 8, 8, 4);
	MUST(quire_snapshot_clone(s, &clone) == 0);
	MUST(wrong(clone, 0, 16, 1) == 0 && wrong(image.r, 8, 8, 4) == 0);
	fill(clone, 4, 4, 2);
	MUST(wrong(clone, 0, 4, 1) == 0 && wrong(clone, 4, 4, 2) == 0);
	MUST(wrong(image.r, 0, 8, 1) == 0);
	fill(image.r, 0, 8, 3);
	MUST(quire_region_destroy(clone) == 0);
	MUST(quire_snapshot_clone(s, &clone) == 0 && wrong(clone, 0, 16, 1) == 0);
	alarm(0);
}

static void clones_of_pages_in_memory(void)
{
	quire_snapshot_t *s = NULL;

	q = pager_open(MIB);
	image_create(&image, q);
	fill(image.r, 0, 16, 1);
	MUST(quire_snapshot_create(image.r, &s) == 0);
	CHECK_EQ(in_child(clone_what_is_in_memory, s, 20), 0);
	/* What the child had is not the parent's alone for that it has gone. */
	clone_what_is_in_memory(s);
	CHECK_EQ(quire_close(q), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(snapshots),
		                                  UNIT(snapshots_the_parent_gave_up),
		                                  UNIT(clones_of_pages_in_memory), UNIT_END };

	return unit_main(argc, argv, "fork_snapshot", tests);
}
