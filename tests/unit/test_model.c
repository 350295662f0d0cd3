/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_model.c - vm/ and pager/ against plain memory, on a fake engine and
 * a fake disk: thousands of random operations, with every invariant checked on
 * the way; and the same by several threads at once.
 */
#include "tests/unit/vm_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#define PAGES 512u

struct model {
	uint64_t value[PAGES];
	unsigned pins[PAGES];
	unsigned pinned;
};

static bool served(enum fault_result result)
{
	/* Only what was refused on purpose may fail, and then nothing may have changed. */
	return result == FAULT_DONE;
}

/* 1 .. most pages that the region has from page on. */
static uint64_t up_to(uint64_t page, uint64_t most)
{
	uint64_t n = 1 + unit_below(most);

	return MIN(n, PAGES - page);
}

static void random_access(struct model *m, bool failing)
{
	uint64_t page = unit_below(PAGES), n = unit_below(4) ? 1 : unit_below(40);
	bool write = unit_below(2);

	for (; n-- && page < PAGES; page++) {
		uint64_t v = unit_below(12) ? unit_random() >> 8 | 1 : 0;
		enum fault_result result;

		if (write) {
			result = fake_write(vm->r, page, v);
			if (served(result))
				m->value[page] = v;
		} else {
			result = fake_read(vm->r, page, &v);
			if (served(result))
				CHECK_EQ(v, m->value[page]);
		}
		if (!failing)
			CHECK_EQ(result, FAULT_DONE);
	}
}

static void random_discard(struct model *m)
{
	uint64_t page = unit_below(PAGES), n = up_to(page, 60);
	int error = discard_range(vm->r, page, n, false);

	for (; n--; page++) {
		if (m->pins[page]) {
			CHECK_EQ(error, -EBUSY);
			return;
		}
		m->value[page] = 0;
	}
	CHECK_EQ(error, 0);
}

static void random_program_discard(struct model *m)
{
	uint64_t page = unit_below(PAGES);

	/* A page that is not resident is not the kernel's to discard. */
	if (!fake_present(vm->r, page))
		return;
	fake_program_discards(vm->r, page);
	m->value[page] = 0;
}

static void random_pin(struct model *m, bool failing)
{
	uint64_t page = unit_below(PAGES - 8), n = 1 + unit_below(8);
	unsigned more = 0;
	int error;

	for (uint64_t i = page; i < page + n; i++)
		more += m->pins[i] == 0;
	/* Leave room to work in. */
	if (m->pinned + more > 40)
		return;
	error = quire_pin(vm->r, page * PAGE_BYTES, n * PAGE_BYTES);
	if (!failing)
		CHECK_EQ(error, 0);
	for (uint64_t i = page; i < page + n && !error; i++)
		m->pinned += m->pins[i]++ == 0;
}

static void random_unpin(struct model *m)
{
	uint64_t page = unit_below(PAGES);

	for (uint64_t i = 0; i < PAGES; i++, page = (page + 1) % PAGES)
		if (m->pins[page]) {
			CHECK_EQ(quire_unpin(vm->r, page * PAGE_BYTES, PAGE_BYTES), 0);
			m->pinned -= --m->pins[page] == 0;
			return;
		}
}

static void random_advice(void)
{
	static const int advice[] = { QUIRE_ADVISE_NORMAL, QUIRE_ADVISE_SEQUENTIAL,
		                      QUIRE_ADVISE_RANDOM, QUIRE_ADVISE_COLD, QUIRE_ADVISE_COLD };
	uint64_t page = unit_below(PAGES), n = up_to(page, 100);

	CHECK_EQ(quire_advise(vm->r, page * PAGE_BYTES, n * PAGE_BYTES, advice[unit_below(5)]), 0);
}

static void random_budget(const struct model *m)
{
	uint64_t pages = 64 + unit_below(256);

	pages = MAX(pages, m->pinned * 2);
	/* What is being read cannot be evicted, and nobody else completes it here. */
	for (int i = 0; i < 200; i++)
		fake_arrivals(vm->q);

	CHECK_EQ(quire_set_memory(vm->q, pages * PAGE_BYTES), 0);
}

static void random_trouble(void)
{
	enum fake_call call = (enum fake_call)unit_below(FAKE_CALLS);

	switch (unit_below(6)) {
	case 0:
		fake_disk_fault(vm->disk,
		                (struct fake_fault){ .kind = FAKE_DELAYED,
		                                     .value = 1 + (int)unit_below(30),
		                                     .times = 1 + (unsigned)unit_below(4) });
		break;
	case 1:
		fake_disk_fault(vm->disk,
		                (struct fake_fault){ .kind = FAKE_SHORT,
		                                     .value = 4096 + (int)unit_below(20000) });
		break;
	case 2: /* what retries hide */
		fake_disk_fault(vm->disk,
		                (struct fake_fault){ .kind = FAKE_FAIL, .value = EAGAIN });
		break;
	case 3:
		vm->fe->cut[FAKE_MAP] = 1 + (unsigned)unit_below(6);
		break;
	case 4:
		if (call == FAKE_TAKE || call == FAKE_PLACE)
			fake_refuse(vm->fe, call, (unsigned)unit_below(20),
			            1 + (unsigned)unit_below(3), EBUSY);
		break;
	default:
		fake_disk_order(vm->disk, (enum fake_order)unit_below(3), unit_random());
		break;
	}
}

static void random_step(struct model *m)
{
	switch (unit_below(24)) {
	case 0:
		random_discard(m);
		break;
	case 1:
		random_program_discard(m);
		break;
	case 2:
		random_pin(m, false);
		break;
	case 3:
		random_unpin(m);
		break;
	case 4:
		random_advice();
		break;
	case 5:
		random_budget(m);
		break;
	case 6:
		random_trouble();
		break;
	case 7:
		fake_vm_step(vm);
		break;
	case 8:
		fake_vm_retire(vm);
		break;
	case 9:
		fake_arrivals(vm->q);
		break;
	default:
		random_access(m, false);
		break;
	}
}

static void model_run(const struct fake_vm_options *o, unsigned steps)
{
	struct model *m = calloc(1, sizeof *m);

	vm = fake_vm_open(o);
	for (unsigned i = 0; i < steps; i++) {
		random_step(m);
		if (i % 64 == 0 && fake_vm_check(vm) != 0) {
			printf("after step %u\n", i);
			CHECK(false);
			break;
		}
	}
	CHECK_VM();
	fake_disk_heal(vm->disk);
	for (uint64_t page = 0; page < PAGES; page++)
		CHECK_EQ(value(page), m->value[page]);
	CHECK_VM();
	CHECK_EQ(fake_vm_close(vm), 0);
	free(m);
}

static void model(void)
{
	static const char *const policies[] = { "clock", "fifo", "lru" };

	unit_seed();
	for (unsigned i = 0; i < 6; i++) {
		struct fake_vm_options o = { .in_thread = i & 1,
			                     .move = i >> 1 & 1,
			                     .pages = PAGES,
			                     .slots = 2048,
			                     .budget = 128,
			                     .policy = policies[i % 3] };

		model_run(&o, 2000);
	}
}

/* The same with calls and transfers that fail for good: nothing is wrong, nothing is lost. */
static void model_with_failures(void)
{
	unit_seed();
	for (unsigned round = 0; round < 4; round++) {
		struct fake_vm_options o = { .in_thread = round & 1,
			                     .move = round >> 1 & 1,
			                     .pages = PAGES,
			                     .slots = 1024,
			                     .budget = 256 };
		struct model *m = calloc(1, sizeof *m);

		vm = fake_vm_open(&o);
		for (unsigned i = 0; i < 1500; i++) {
			enum fake_call call = (enum fake_call)unit_below(FAKE_DROP);

			if (i % 50 == 0)
				fake_refuse(vm->fe, call, (unsigned)unit_below(10), 2, ENOMEM);
			if (i % 100 == 0)
				fake_disk_fault(
					vm->disk,
					(struct fake_fault){ .kind = FAKE_FAIL,
				                             .value = EIO,
				                             .times = 1 + (unsigned)unit_below(30),
				                             .op = FAKE_READ });
			if (i % 200 == 150) {
				fake_disk_heal(vm->disk);
				for (uint64_t page = 0; page < PAGES; page++)
					discard_poison(vm->r, page);
				CHECK_VM();
			}
			random_access(m, true);
			if (unit_below(10) == 0)
				random_pin(m, true);
			random_unpin(m);
		}
		fake_disk_heal(vm->disk);
		for (int call = 0; call < FAKE_CALLS; call++)
			fake_refuse(vm->fe, (enum fake_call)call, 0, 0, 0);
		for (uint64_t page = 0; page < PAGES; page++) {
			discard_poison(vm->r, page);
			CHECK_EQ(value(page), m->value[page]);
		}
		CHECK_VM();
		CHECK_EQ(fake_vm_close(vm), 0);
		free(m);
	}
}

/* ---------------------------------------------------- many threads at once */

#define THREADS 4u

struct worker {
	pthread_t thread;
	unsigned index;
	uint64_t random, wrong;
	_Atomic uint64_t accesses;
	uint64_t value[PAGES / THREADS];
};

static uint64_t next_random(struct worker *w)
{
	w->random = w->random * 6364136223846793005u + 1442695040888963407u;
	return w->random >> 24;
}

static _Atomic bool stop;

/* Its pages are every THREADS-th, so that neighbours are others'. */
static void *work(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		uint64_t i = next_random(w) % (PAGES / THREADS), n = next_random(w) % 16, v;

		for (; i < PAGES / THREADS && n-- > 0; i++, w->accesses++) {
			uint64_t page = i * THREADS + w->index;

			switch (next_random(w) % 32) {
			case 0:
				if (discard_range(vm->r, page, 1, false) == 0)
					w->value[i] = 0;
				break;
			case 1:
				if (quire_pin(vm->r, page * PAGE_BYTES, PAGE_BYTES) != 0 ||
				    quire_unpin(vm->r, page * PAGE_BYTES, PAGE_BYTES) != 0)
					w->wrong++;
				break;
			case 2 ... 14:
				v = next_random(w) | 1;
				if (fake_write(vm->r, page, v) == FAULT_DONE)
					w->value[i] = v;
				else
					w->wrong++;
				break;
			default:
				if (fake_read(vm->r, page, &v) != FAULT_DONE || v != w->value[i])
					w->wrong++;
				break;
			}
		}
	}
	return NULL;
}

#define ACCESSES_MIN 100u

static bool all_had_turns(struct worker *workers)
{
	for (unsigned i = 0; i < THREADS; i++)
		if (atomic_load(&workers[i].accesses) < ACCESSES_MIN)
			return false;
	return true;
}

static void threads(void)
{
	static struct worker workers[THREADS];
	/* Valgrind lets one thread run at a time, slowly. */
	struct timespec slice = { .tv_nsec = unit_valgrind() ? 900000000 : 40000000 };

	unit_seed();
	for (int way = 0; way < 4; way++) {
		struct fake_vm_options o = { .in_thread = way & 1,
			                     .move = way >> 1,
			                     .threads = true,
			                     .pages = PAGES,
			                     .budget = 128,
			                     .slots = 2048 };

		vm = fake_vm_open(&o);
		if (!o.in_thread)
			fake_handler_start(vm->q);
		atomic_store(&stop, false);
		for (unsigned i = 0; i < THREADS; i++) {
			workers[i] = (struct worker){ .index = i, .random = unit_random() };
			REQUIRE_EQ(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
		}
		/* Longer where the machine has other things to do. */
		for (int i = 0; i < 4 || (i < 200 && !all_had_turns(workers)); i++) {
			nanosleep(&slice, NULL);
			CHECK_EQ(quire_set_memory(vm->q, (i % 2 ? 192 : 72) * PAGE_BYTES), 0);
		}
		atomic_store(&stop, true);
		for (unsigned i = 0; i < THREADS; i++) {
			pthread_join(workers[i].thread, NULL);
			CHECK_EQ(workers[i].wrong, 0);
			CHECK(atomic_load(&workers[i].accesses) >= ACCESSES_MIN);
		}
		for (uint64_t page = 0; page < PAGES; page++)
			CHECK_EQ(value(page), workers[page % THREADS].value[page / THREADS]);
		if (!o.in_thread)
			fake_handler_stop(vm->q);
		CHECK_EQ(fake_vm_close(vm), 0);
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(model),
		UNIT(model_with_failures),
		UNIT(threads),
		UNIT_END,
	};

	return unit_main(argc, argv, "model", tests);
}
