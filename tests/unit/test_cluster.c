/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_cluster.c - buffers in clusters (pager/cluster.c): memory and
 * credits (C1), references (C2), and what a claim says of a page's clean copy.
 */
#include "base/kernel.h"
#include "tests/unit/fake_owner.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>

static struct fake_owner *o;

static void finish(void)
{
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(fake_owner_close(o), 0);
}

static void memory_is_credit(void)
{
	uint32_t c, d;

	o = fake_owner_open(128, 256);
	c = cluster_get(&o->p, 1);
	CHECK(cluster_populate(&o->p, c, 10));
	CHECK_EQ(atomic_load(&o->p.credits), 118);
	CHECK(cluster_populate(&o->p, c, 7));
	CHECK(cluster_populate(&o->p, c, 12));
	CHECK_EQ(atomic_load(&o->p.credits), 116);
	CHECK_EQ(atomic_load(&o->p.populated), 12);
	CHECK_EQ(atomic_load(&o->p.clusters[c].populated), 0xfff);
	cluster_put(&o->p, c);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_WARM);
	/* The warm one is had again, or not, as asked. */
	d = cluster_get(&o->p, 0);
	CHECK(d != c);
	CHECK_EQ(cluster_get(&o->p, 1), c);
	cluster_put(&o->p, c);
	CHECK(cluster_populate(&o->p, d, CLUSTER_PAGES));
	CHECK_EQ(atomic_load(&o->p.clusters[d].populated), UINT64_MAX);
	cluster_put(&o->p, d);
	CHECK_EQ(fake_owner_check(o), 0);
	/* Who wants much gets much. */
	CHECK_EQ(cluster_get(&o->p, CLUSTER_PAGES), d);
	cluster_put(&o->p, d);
	CHECK_EQ(cluster_get(&o->p, 1), c);
	cluster_put(&o->p, c);
	/* Memory goes back, that of the fullest first, and no further than wanted; one may stay. */
	memset(buffer_address(&o->p, c * CLUSTER_PAGES), 1, 12 * PAGE_BYTES);
	CHECK_EQ(clusters_release(&o->p, 60, 1), 12);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_EMPTY);
	CHECK_EQ(o->p.clusters[d].list, CLUSTERS_WARM);
	CHECK_EQ(clusters_release(&o->p, 60, 0), 0);
	CHECK_EQ(clusters_release(&o->p, INT64_MAX, 1), 0);
	CHECK_EQ(clusters_release(&o->p, INT64_MAX, 0), CLUSTER_PAGES);
	CHECK_EQ(atomic_load(&o->p.populated), 0);
	CHECK_EQ(atomic_load(&o->p.credits), 128);
	CHECK_EQ(*(char *)buffer_address(&o->p, c * CLUSTER_PAGES), 0);
	madvise(buffer_address(&o->p, c * CLUSTER_PAGES), PAGE_BYTES, MADV_DONTNEED);
	finish();
}

/* So many keep their memory, if it is much; of the others it goes back. */
static void some_are_kept(void)
{
	uint32_t c[5];

	o = fake_owner_open(512, 512);
	for (unsigned i = 0; i < 5; i++) {
		c[i] = cluster_get(&o->p, 0);
		CHECK(cluster_populate(&o->p, c[i], i < 4 ? CLUSTER_PAGES : 5));
	}
	for (unsigned i = 0; i < 5; i++)
		cluster_put(&o->p, c[i]);
	CHECK_EQ(clusters_release(&o->p, INT64_MAX, 8), 5);
	CHECK_EQ(clusters_release(&o->p, INT64_MAX, 3), CLUSTER_PAGES);
	CHECK_EQ(atomic_load(&o->p.populated), 3 * CLUSTER_PAGES);
	CHECK_EQ(clusters_release(&o->p, INT64_MAX, 3), 0);
	CHECK_EQ(clusters_release(&o->p, INT64_MAX, 0), 3 * CLUSTER_PAGES);
	finish();
}

/* As many as there are credits for, and nobody is starved by it. */
static void some_memory(void)
{
	uint32_t c;

	o = fake_owner_open(64, 64);
	c = cluster_get(&o->p, 1);
	CHECK(cluster_populate(&o->p, c, 2));
	CHECK(credits_try(&o->p, 52));
	cluster_populate_some(&o->p, c, 6);
	CHECK_EQ(atomic_load(&o->p.clusters[c].populated), 0x3f);
	CHECK_EQ(atomic_load(&o->p.credits), 6);
	cluster_populate_some(&o->p, c, 20);
	CHECK_EQ(atomic_load(&o->p.clusters[c].populated), 0xfff);
	CHECK_EQ(atomic_load(&o->p.populated), 12);
	CHECK_EQ(atomic_load(&o->p.credits), 0);
	cluster_populate_some(&o->p, c, 20);
	CHECK_EQ(atomic_load(&o->p.populated), 12);
	CHECK_EQ(atomic_load(&o->p.starved), 0);
	credits_put(&o->p, 52);
	cluster_put(&o->p, c);
	finish();
}

static void no_credit_no_memory(void)
{
	uint32_t c;

	o = fake_owner_open(64, 256);
	CHECK(credits_try(&o->p, 60));
	c = cluster_get(&o->p, 1);
	CHECK(!cluster_populate(&o->p, c, 5));
	CHECK_EQ(atomic_load(&o->p.clusters[c].populated), 0);
	CHECK(cluster_populate(&o->p, c, 4));
	CHECK_EQ(atomic_load(&o->p.credits), 0);
	CHECK(cluster_populate(&o->p, c, 4)); /* has it already */
	cluster_put(&o->p, c);
	credits_put(&o->p, 60);
	finish();
}

/* How much private memory may be writable: a soft limit. => the one before */
static rlim_t data_limit(rlim_t to)
{
	struct rlimit l;
	rlim_t old;

	REQUIRE_EQ(getrlimit(RLIMIT_DATA, &l), 0);
	old = l.rlim_cur;
	l.rlim_cur = to;
	REQUIRE_EQ(setrlimit(RLIMIT_DATA, &l), 0);
	return old;
}

static void all_in_use(void)
{
	uint32_t last = CLUSTER_NONE, c, n = 0;

	o = fake_owner_open(64, 256);
	while ((c = cluster_get(&o->p, n & 1)) != CLUSTER_NONE && n <= o->p.cluster_max) {
		last = c;
		n++;
	}
	CHECK_EQ(n, o->p.cluster_max);
	cluster_put(&o->p, last);
	CHECK_EQ(cluster_get(&o->p, 1), last);
	CHECK(cluster_populate(&o->p, last, 1));
	cluster_put(&o->p, last);
	/* A warm one is better than none. */
	CHECK_EQ(cluster_get(&o->p, 0), last);
	for (c = 0; c < n; c++)
		cluster_put(&o->p, c);
	finish();
}

/* The caller's credit becomes the buffer's, or is free if the buffer has one. */
static void lent_credit(void)
{
	uint32_t c;

	o = fake_owner_open(64, 256);
	c = cluster_get(&o->p, 0);
	REQUIRE(credits_try(&o->p, 64));
	cluster_lend(&o->p, c);
	CHECK_EQ(atomic_load(&o->p.credits), 0);
	CHECK_EQ(atomic_load(&o->p.clusters[c].populated), 1);
	*(char *)buffer_address(&o->p, c * CLUSTER_PAGES) = 1;
	cluster_lend(&o->p, c);
	CHECK_EQ(atomic_load(&o->p.credits), 1);
	CHECK_EQ(atomic_load(&o->p.clusters[c].populated), 1);
	CHECK_EQ(atomic_load(&o->p.populated), 1);
	credits_put(&o->p, 62);
	cluster_put(&o->p, c);
	finish();
}

/* The kernel gives no more memory for buffers: what there is serves, and later there is more. */
static void no_room_for_more(void)
{
	uint32_t c, n = 0, more = 0;
	rlim_t old;

	if (unit_foreign_memory())
		return;
	o = fake_owner_open(256, 256);
	old = data_limit(PAGE_BYTES);
	while ((c = cluster_get(&o->p, n & 1)) != CLUSTER_NONE && n <= o->p.cluster_max) {
		/* Both the record and the buffers can be used. */
		memset(buffer_address(&o->p, c * CLUSTER_PAGES + CLUSTER_PAGES - 1), 1, PAGE_BYTES);
		kernel_drop(buffer_address(&o->p, c * CLUSTER_PAGES), CLUSTER_PAGES * PAGE_BYTES);
		CHECK_EQ(buffer_of(&o->p, c * CLUSTER_PAGES + CLUSTER_PAGES - 1)->state,
		         BUFFER_FREE);
		n++;
	}
	CHECK(n > 0 && n < o->p.cluster_max);
	CHECK_EQ(n, o->p.cluster_count);
	cluster_put(&o->p, 0);
	CHECK_EQ(cluster_get(&o->p, 1), 0);
	CHECK_EQ(cluster_get(&o->p, 1), CLUSTER_NONE);
	data_limit(old);
	while (cluster_get(&o->p, 0) != CLUSTER_NONE)
		more++;
	CHECK_EQ(n + more, o->p.cluster_max);
	for (c = 0; c < o->p.cluster_max; c++)
		cluster_put(&o->p, c);
	finish();
}

static uint32_t standby(uint64_t first, unsigned n)
{
	REQUIRE_EQ(fake_owner_map(o, first, n), 0);
	return fake_owner_unmap(o, first, n);
}

static void references(void)
{
	uint32_t c;
	slot_t slot;

	o = fake_owner_open(128, 256);
	c = standby(0, 3);
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 3);
	CHECK_EQ(atomic_load(&o->p.standby), 3);
	buffer_claim(&o->p, o->page[0].at, &slot);
	CHECK_EQ(slot, SLOT_NONE);
	CHECK_EQ(atomic_load(&o->p.standby), 2);
	CHECK(fake_owner_holds(o, 0)); /* the bytes stay until the release */
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 3);
	buffer_release(&o->p, o->page[0].at, false);
	o->page[0].state = OWNED_EMPTY;
	CHECK_EQ(atomic_load(&o->p.clusters[c].refs), 2);
	CHECK_EQ(fake_owner_check(o), 0);
	fake_owner_drop(o, 1);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_STANDBY);
	fake_owner_drop(o, 2);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_WARM);
	CHECK_EQ(atomic_load(&o->p.populated), 3);
	finish();
}

/* A buffer whose memory went with the page: so did the credit. */
static void moved_away(void)
{
	uint32_t c, state, id;
	slot_t slot;

	o = fake_owner_open(128, 256);
	c = standby(0, 2);
	id = o->page[0].at;
	CHECK(buffer_try_claim(&o->p, id, &state, &slot));
	CHECK_EQ(state, BUFFER_DIRTY);
	madvise(buffer_address(&o->p, id), PAGE_BYTES, MADV_DONTNEED);
	buffer_release(&o->p, id, true);
	CHECK_EQ(atomic_load(&o->p.clusters[c].populated), 2);
	CHECK_EQ(atomic_load(&o->p.populated), 1);
	CHECK_EQ(atomic_load(&o->p.credits), 126); /* one is the page's */
	credits_put(&o->p, 1);
	o->page[0].state = OWNED_EMPTY;
	finish();
}

static void claims(void)
{
	uint32_t c, state;
	slot_t slot, was;

	o = fake_owner_open(128, 256);
	c = standby(0, 3);
	CHECK(fake_owner_write(o, c));
	CHECK(!buffer_try_claim(&o->p, o->page[0].at, &state, &slot));
	CHECK_EQ(state, BUFFER_WRITING);
	fake_owner_reap(o);
	was = buffer_of(&o->p, o->page[0].at)->slot;
	CHECK(buffer_try_claim(&o->p, o->page[0].at, &state, &slot));
	CHECK_EQ(state, BUFFER_CLEAN);
	CHECK_EQ(slot, was); /* ours now */
	buffer_release(&o->p, o->page[0].at, false);
	swapfile_unref(o->swap, slot);
	o->page[0].state = OWNED_EMPTY;
	CHECK(!buffer_try_claim(&o->p, c * CLUSTER_PAGES, &state, &slot));
	CHECK_EQ(state, BUFFER_FREE);
	finish();
}

/* Buffers that were taken back give their memory up while their neighbours stay. */
static void half_empty_standby(void)
{
	uint32_t c, state;
	slot_t slot;

	o = fake_owner_open(128, 256);
	c = standby(0, 20);
	for (uint64_t page = 0; page < 20; page++)
		if (page % 4)
			fake_owner_drop(o, page);
	/* One is claimed, and its bytes are still needed. */
	CHECK(buffer_try_claim(&o->p, o->page[8].at, &state, &slot));
	CHECK_EQ(atomic_load(&o->p.credits), 108);
	reclaim_enter(&o->p);
	CHECK_EQ(clusters_trim(&o->p), 15);
	CHECK_EQ(clusters_trim(&o->p), 0);
	reclaim_leave(&o->p);
	CHECK_EQ(atomic_load(&o->p.credits), 123);
	CHECK_EQ(atomic_load(&o->p.clusters[c].populated), 0x11111);
	CHECK(fake_owner_holds(o, 8));
	buffer_release(&o->p, o->page[8].at, false);
	o->page[8].state = OWNED_EMPTY;
	CHECK_EQ(fake_owner_check(o), 0);
	CHECK_EQ(o->p.clusters[c].list, CLUSTERS_STANDBY);
	/* While a write is under way its buffers stay as they are, taken back or not. */
	CHECK(fake_owner_write(o, c));
	fake_owner_drop(o, 4);
	reclaim_enter(&o->p);
	CHECK_EQ(clusters_trim(&o->p), 1); /* that of page 8 */
	reclaim_leave(&o->p);
	fake_owner_reap(o);
	reclaim_enter(&o->p);
	CHECK_EQ(clusters_trim(&o->p), 1); /* that of page 4 */
	reclaim_leave(&o->p);
	CHECK(fake_owner_holds(o, 12));
	finish();
}

static unsigned present(uint32_t c)
{
	unsigned char in[CLUSTER_PAGES];
	unsigned n = 0;

	REQUIRE(mincore(buffer_address(&o->p, c * CLUSTER_PAGES), sizeof in * PAGE_BYTES, in) == 0);
	for (unsigned i = 0; i < sizeof in; i++)
		n += in[i] & 1;
	return n;
}

/* The program locked all its memory: buffers go back all the same, where the kernel can. */
static void locked_memory(void)
{
	uint32_t c, d;
	void *at;

	o = fake_owner_open(256, 256);
	c = cluster_get(&o->p, 0);
	REQUIRE(cluster_populate(&o->p, c, CLUSTER_PAGES));
	at = buffer_address(&o->p, c * CLUSTER_PAGES);
	memset(at, 1, CLUSTER_PAGES * PAGE_BYTES);
	if (mlock(at, CLUSTER_PAGES * PAGE_BYTES) != 0 ||
	    kernel_madvise(at, PAGE_BYTES, MADV_DONTNEED_LOCKED) != 0) {
		printf("left out: locked buffers: no mlock of 64 pages, or a kernel before 5.18\n");
		cluster_put(&o->p, c);
		finish();
		return;
	}
	cluster_put(&o->p, c);
	CHECK_EQ(clusters_release(&o->p, INT64_MAX, 0), CLUSTER_PAGES);
	CHECK_EQ(present(c), 0);
	CHECK_EQ(atomic_load(&o->p.credits), 256);
	CHECK_EQ(fake_owner_check(o), 0);
	/* In standby. */
	d = standby(0, 20);
	CHECK_EQ(d, c);
	for (uint64_t page = 0; page < 20; page += 2)
		fake_owner_drop(o, page);
	CHECK_EQ(present(c), 20);
	reclaim_enter(&o->p);
	CHECK_EQ(clusters_trim(&o->p), 10);
	reclaim_leave(&o->p);
	CHECK_EQ(present(c), 10);
	CHECK(fake_owner_holds(o, 19));
	munlock(at, CLUSTER_PAGES * PAGE_BYTES);
	finish();
}

struct refused {
	bool filtered;
	uint32_t released, trimmed;
};

/* A kernel that gives locked memory back in no way: madvise fails, on this thread only. */
static void *where_madvise_fails(void *arg)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = ARRAY_LENGTH(code), .filter = code };
	struct refused *r = arg;

	r->filtered = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	              prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
	if (!r->filtered)
		return NULL;
	r->released = clusters_release(&o->p, INT64_MAX, 0);
	reclaim_enter(&o->p);
	r->trimmed = clusters_trim(&o->p);
	reclaim_leave(&o->p);
	return NULL;
}

/* What cannot be given back keeps its credit (C1), and nobody tries for ever. */
static void memory_that_stays(void)
{
	struct refused r = { 0 };
	uint32_t c, d, e;
	pthread_t thread;

	o = fake_owner_open(256, 256);
	c = cluster_get(&o->p, 0);
	d = cluster_get(&o->p, 0);
	CHECK(cluster_populate(&o->p, c, 10) && cluster_populate(&o->p, d, 20));
	memset(buffer_address(&o->p, c * CLUSTER_PAGES), 1, 10 * PAGE_BYTES);
	memset(buffer_address(&o->p, d * CLUSTER_PAGES), 1, 20 * PAGE_BYTES);
	cluster_put(&o->p, c);
	cluster_put(&o->p, d);
	e = standby(0, 20);
	for (uint64_t page = 1; page < 20; page += 2)
		fake_owner_drop(o, page);
	REQUIRE_EQ(pthread_create(&thread, NULL, where_madvise_fails, &r), 0);
	pthread_join(thread, NULL);
	if (!r.filtered) {
		printf("left out: memory that stays: no seccomp\n");
		finish();
		return;
	}
	CHECK_EQ(r.released, 0);
	CHECK_EQ(r.trimmed, 0);
	CHECK_EQ(present(c) + present(d) + present(e), 50);
	CHECK_EQ(atomic_load(&o->p.populated), 50);
	CHECK_EQ(atomic_load(&o->p.credits), 256 - 50);
	CHECK_EQ(fake_owner_check(o), 0);
	/* It serves the next use; and goes when it can. */
	CHECK_EQ(cluster_get(&o->p, 1), c);
	cluster_put(&o->p, c);
	CHECK_EQ(clusters_release(&o->p, INT64_MAX, 0), 30);
	reclaim_enter(&o->p);
	CHECK_EQ(clusters_trim(&o->p), 10);
	reclaim_leave(&o->p);
	CHECK_EQ(present(c) + present(d) + present(e), 10);
	CHECK_EQ(fake_owner_check(o), 0);
	finish();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(some_are_kept),      UNIT(memory_is_credit),
		UNIT(some_memory),        UNIT(no_credit_no_memory),
		UNIT(lent_credit),        UNIT(all_in_use),
		UNIT(no_room_for_more),   UNIT(references),
		UNIT(moved_away),         UNIT(claims),
		UNIT(half_empty_standby), UNIT(locked_memory),
		UNIT(memory_that_stays),  UNIT_END,
	};

	return unit_main(argc, argv, "cluster", tests);
}
