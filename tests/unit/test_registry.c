/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_registry.c - from an address to its region (vm/registry.c),
 * while regions come and go, and in children of fork. The regions are records
 * only: no memory is behind their addresses.
 */
#include "base/quiesce.h"
#include "tests/unit/unit.h"
#include "vm/vm.h"

#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REGIONS 200u
#define BASE UINT64_C(0x100000000000)

static struct quire_region region[REGIONS];

static char *address(uint64_t n)
{
	return (char *)(uintptr_t)(BASE + n);
}

static struct quire_region *make(unsigned i, uint64_t at, uint64_t pages)
{
	struct quire_region *r = &region[i];

	r->id = i + 1;
	r->base = address(at * PAGE_BYTES);
	r->pages = pages;
	r->bytes = pages * PAGE_BYTES;
	atomic_store(&r->alive, 1);
	CHECK_EQ(registry_add(r), 0);
	return r;
}

static void drop(struct quire_region *r)
{
	atomic_store(&r->alive, 0);
	registry_remove(r);
	CHECK_EQ(atomic_load(&r->users), 0);
}

/* The region that is found; its user is given back. */
static struct quire_region *find(const char *at)
{
	struct quire_region *r = registry_find(at);

	if (r) {
		CHECK_EQ(atomic_load(&r->users), 1);
		region_put(r);
	}
	return r;
}

static void bounds(void)
{
	struct quire_region *a, *b;

	CHECK(find(address(0)) == NULL);
	CHECK(find(NULL) == NULL);
	b = make(1, 20, 5);
	a = make(0, 10, 10); /* up to where b begins */
	CHECK(find(a->base - 1) == NULL);
	CHECK(find(a->base) == a);
	CHECK(find(a->base + a->bytes - 1) == a);
	CHECK(find(a->base + a->bytes) == b);
	CHECK(find(b->base + b->bytes - 1) == b);
	CHECK(find(b->base + b->bytes) == NULL);
	CHECK(find((char *)UINTPTR_MAX) == NULL);
	/* Not alive any more: not found, and not kept. */
	atomic_store(&a->alive, 0);
	CHECK(registry_find(a->base) == NULL);
	CHECK_EQ(atomic_load(&a->users), 0);
	drop(a);
	CHECK(find(address(15 * PAGE_BYTES)) == NULL);
	CHECK(find(b->base) == b);
	drop(b);
	CHECK(find(b->base) == NULL);
}

static void many_in_any_order(void)
{
	bool there[REGIONS] = { false };

	unit_seed();
	for (unsigned round = 0; round < 3000; round++) {
		unsigned i = (unsigned)unit_below(REGIONS), k = (unsigned)unit_below(REGIONS);

		if (there[i])
			drop(&region[i]);
		else
			make(i, i * 10, 1 + unit_below(9));
		there[i] = !there[i];
		CHECK(find(address(k * 10 * PAGE_BYTES)) == (there[k] ? &region[k] : NULL));
		CHECK(find(address((k * 10 + 9) * PAGE_BYTES)) == NULL);
	}
	for (unsigned i = 0; i < REGIONS; i++)
		if (there[i])
			drop(&region[i]);
}

/* More than the first piece of the table holds. */
static void very_many(void)
{
	enum { MANY = 20000 };
	struct quire_region *all = calloc(MANY, sizeof *all);

	for (unsigned i = 0; i < MANY; i++) {
		all[i].base = address((uint64_t)i * 3 * PAGE_BYTES);
		all[i].bytes = PAGE_BYTES;
		atomic_store(&all[i].alive, 1);
		REQUIRE_EQ(registry_add(&all[i]), 0);
	}
	for (unsigned i = 0; i < MANY; i += 777)
		CHECK(find(all[i].base) == &all[i]);
	for (unsigned i = MANY; i-- > 0;)
		registry_remove(&all[i]);
	free(all);
}

static void ids(void)
{
	struct quire *q = calloc(1, sizeof *q);
	uint32_t a, b, c;

	q->free_ids = calloc(16, sizeof *q->free_ids);
	REQUIRE_EQ(arena_reserve(&q->region_arena, REGIONS_MAX * sizeof *q->regions, false, NULL),
	           0);
	q->regions = q->region_arena.base;
	CHECK_EQ(registry_take_id(q, &a), 0);
	CHECK_EQ(registry_take_id(q, &b), 0);
	CHECK(a != 0 && b != 0 && a != b);
	registry_give_id(q, a);
	CHECK_EQ(registry_take_id(q, &c), 0);
	CHECK_EQ(c, a);
	CHECK_EQ(q->region_count, 2);
	/* Its record is usable. */
	q->region_count = REGIONS_MAX - 1;
	CHECK_EQ(registry_take_id(q, &c), 0);
	CHECK_EQ(c, REGIONS_MAX);
	q->regions[c - 1].id = c;
	CHECK(registry_take_id(q, &c) != 0);
	arena_close(&q->region_arena);
	free(q->free_ids);
	free(q);
}

static _Atomic bool stop;
static _Atomic uint64_t wrong, found;

static void *look(void *arg)
{
	uint64_t x = (uintptr_t)arg * 7919 + 1;

	while (!atomic_load(&stop)) {
		struct quire_region *r;
		const char *at;

		x = x * 6364136223846793005u + 1442695040888963407u;
		at = address((x >> 33) % (REGIONS * 10) * PAGE_BYTES);
		work_enter();
		r = registry_find(at);
		/* While it is ours the region stays what it was. */
		if (r && (at < r->base || at >= r->base + r->bytes || atomic_load(&r->users) == 0))
			atomic_fetch_add(&wrong, 1);
		if (r) {
			atomic_fetch_add(&found, 1);
			region_put(r);
		}
		work_leave();
	}
	return NULL;
}

static void *come_and_go(void *arg)
{
	uint64_t x = (uintptr_t)arg + 17;
	unsigned half = (unsigned)(uintptr_t)arg; /* each its own regions */
	bool there[REGIONS] = { false };

	while (!atomic_load(&stop)) {
		unsigned i;
		struct quire_region *r;

		x = x * 6364136223846793005u + 1442695040888963407u;
		i = (unsigned)(x >> 33) % (REGIONS / 2) * 2 + half;
		r = &region[i];
		work_enter();
		if (there[i]) {
			atomic_store(&r->alive, 0);
			registry_remove(r);
			while (atomic_load(&r->users))
				cpu_relax();
			/* Nobody looks at it now. */
			r->base = NULL;
			r->bytes = 0;
		} else {
			r->base = address((uint64_t)i * 10 * PAGE_BYTES);
			r->bytes = (1 + (x >> 20) % 9) * PAGE_BYTES;
			atomic_store(&r->alive, 1);
			if (registry_add(r) != 0)
				atomic_fetch_add(&wrong, 1);
		}
		there[i] = !there[i];
		work_leave();
	}
	for (unsigned i = half; i < REGIONS; i += 2)
		if (there[i]) {
			atomic_store(&region[i].alive, 0);
			registry_remove(&region[i]);
		}
	return NULL;
}

static pthread_t looker[2], changer[2];

static void start_threads(void)
{
	atomic_store(&stop, false);
	for (uintptr_t i = 0; i < 2; i++) {
		REQUIRE_EQ(pthread_create(&looker[i], NULL, look, (void *)i), 0);
		REQUIRE_EQ(pthread_create(&changer[i], NULL, come_and_go, (void *)i), 0);
	}
}

static void stop_threads(void)
{
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++) {
		pthread_join(looker[i], NULL);
		pthread_join(changer[i], NULL);
	}
}

static void while_regions_come_and_go(void)
{
	struct timespec slice = { .tv_nsec = 300000000 };

	start_threads();
	nanosleep(&slice, NULL);
	stop_threads();
	CHECK_EQ(wrong, 0);
	CHECK(found > 0);
	for (unsigned i = 0; i < REGIONS; i++)
		CHECK_EQ(atomic_load(&region[i].users), 0);
	CHECK(registry_find(address(0)) == NULL);
}

/*
 * => exit status of a child, of a fork that came at a standstill: the table is whole, whatever
 * the other threads were about to do to it, and can be changed.
 */
static int child(void)
{
	struct quire_region *mine = &region[0];

	alarm(5); /* what hangs here hangs for ever */
	for (unsigned i = 0; i < REGIONS * 10; i++) {
		struct quire_region *r = registry_find(address(i * PAGE_BYTES));

		if (r && (address(i * PAGE_BYTES) < r->base ||
		          address(i * PAGE_BYTES) >= r->base + r->bytes))
			return 1;
		if (r)
			region_put(r);
	}
	for (unsigned i = 0; i < REGIONS; i++) {
		if (atomic_load(&region[i].users) != 0)
			return 4;
		if (atomic_load(&region[i].alive) == REGION_ALIVE) {
			atomic_store(&region[i].alive, REGION_GONE);
			registry_remove(&region[i]);
		}
	}
	mine->base = address(0);
	mine->bytes = PAGE_BYTES;
	atomic_store(&mine->alive, REGION_ALIVE);
	if (registry_add(mine) != 0 || registry_find(mine->base) != mine)
		return 2;
	region_put(mine);
	atomic_store(&mine->alive, REGION_GONE);
	registry_remove(mine);
	return registry_find(mine->base) ? 3 : 0;
}

static void whole_in_a_child(void)
{
	unsigned bad = 0;

	start_threads();
	for (unsigned i = 0; i < 100 && bad == 0; i++) {
		struct timespec some = { .tv_nsec = 10000 * (i % 16) };
		pid_t pid = fork();
		int status = -1;

		if (pid == 0)
			_exit(child());
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
			printf("child %u: status %#x\n", i, (unsigned)status);
			bad++;
		}
		nanosleep(&some, NULL);
	}
	stop_threads();
	CHECK_EQ(bad, 0);
	CHECK_EQ(wrong, 0);
	CHECK(find(address(0)) == NULL);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(bounds), UNIT(many_in_any_order),         UNIT(very_many),
		UNIT(ids),    UNIT(while_regions_come_and_go), UNIT(whole_in_a_child),
		UNIT_END,
	};

	return unit_main(argc, argv, "registry", tests);
}
