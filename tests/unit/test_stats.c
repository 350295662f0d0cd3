/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_stats.c - figures that are asked for while regions come and go
 * (vm/stats.c): a record that is used anew is never seen half made. Under
 * ThreadSanitizer this is also the test that nothing is read without a lock that
 * needs one.
 */
#include "tests/unit/vm_fixture.h"

#include <pthread.h>
#include <sched.h>

#define SMALL (16 * PAGE_BYTES)
#define LARGE (64 * PAGE_BYTES)
#define MAKERS 2

static _Atomic bool stop;

static void *maker(void *arg)
{
	static const struct quire_region_options small = { .size = sizeof small, .name = "small" };
	static const struct quire_region_options large = { .size = sizeof large, .name = "large" };
	uintptr_t failures = 0;

	(void)arg;
	for (unsigned i = 0; !atomic_load(&stop); i++) {
		quire_region_t *r = NULL;

		if (quire_region_create(vm->q, i % 2 ? SMALL : LARGE, i % 2 ? &small : &large,
		                        &r) != 0) {
			failures++;
			continue;
		}
		region_touch_leaf(r, i % 16); /* as a fault does: the table counts as metadata */
		sched_yield();
		failures += quire_region_destroy(r) != 0;
	}
	return (void *)failures;
}

/* Of one region each: its size goes with its name, and with the place of its pages. */
static unsigned odd_figures(void)
{
	struct region_figures r;
	unsigned odd = 0, seen = 0;

	for (uint32_t id = 2; id <= regions_used(vm->q); id++) {
		if (!region_figures(vm->q, id, &r))
			continue;
		seen++;
		odd += r.base == NULL || (uintptr_t)r.base % PAGE_BYTES != 0;
		odd += r.stats.reserved != (strcmp(r.name, "small") == 0 ? SMALL : LARGE);
		odd += strcmp(r.name, "small") != 0 && strcmp(r.name, "large") != 0;
		odd += r.stats.metadata < sizeof(struct quire_region);
	}
	CHECK(seen <= MAKERS);
	return odd;
}

static void while_regions_come_and_go(void)
{
	struct fake_vm_options o = { .in_thread = true };
	struct quire_stats s;
	pthread_t thread[MAKERS];
	unsigned odd = 0, with_others = 0;
	FILE *sink = fopen("/dev/null", "w");
	size_t own;

	REQUIRE(sink != NULL);
	vm = fake_vm_open(&o);
	own = vm->r->bytes;
	atomic_store(&stop, false);
	for (int i = 0; i < MAKERS; i++)
		REQUIRE_EQ(pthread_create(&thread[i], NULL, maker, NULL), 0);
	for (uint64_t until = now_ns() + UINT64_C(500000000); now_ns() < until;) {
		CHECK_EQ(quire_stats_get(vm->q, &s), 0);
		odd += s.reserved < own || s.reserved > own + MAKERS * LARGE ||
		       (s.reserved - own) % SMALL != 0;
		with_others += s.reserved > own;
		odd += odd_figures();
		CHECK_EQ(quire_stats_print(vm->q, sink, QUIRE_FORMAT_JSON), 0);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < MAKERS; i++) {
		void *failures;

		pthread_join(thread[i], &failures);
		CHECK_EQ((uintptr_t)failures, 0);
	}
	CHECK_EQ(odd, 0);
	CHECK(with_others > 0);
	fclose(sink);
	/* Nobody is left counted: what remains is the fixture's own region. */
	CHECK_EQ(quire_stats_get(vm->q, &s), 0);
	CHECK_EQ(s.reserved, own);
	for (uint32_t i = 0; i < regions_used(vm->q); i++)
		CHECK_EQ(atomic_load(&vm->q->regions[i].users), 0);
	finish();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(while_regions_come_and_go), UNIT_END };

	return unit_main(argc, argv, "stats", tests);
}
