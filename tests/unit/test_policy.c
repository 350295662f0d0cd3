/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_policy.c - the replacement policies (pager/policy*.c) against
 * models that are too simple to be wrong: arrays, searched and shifted.
 */
#include "pager/policy.h"
#include "tests/unit/unit.h"

#define FRAMES 64

static const struct policy_ops *const policies[] = { &policy_clock, &policy_fifo, &policy_lru };
#define POLICIES (sizeof policies / sizeof policies[0])

struct fixture {
	struct policy policy;
	struct policy_node nodes[FRAMES];
};

static struct policy *setup(struct fixture *f, const struct policy_ops *ops)
{
	memset(f, 0, sizeof *f);
	policy_init(&f->policy, ops, f->nodes);
	return &f->policy;
}

/* ------------------------------------------------------------- models */

enum model_kind { MODEL_FIFO, MODEL_CLOCK, MODEL_LRU };

struct model_frame {
	uint32_t frame;
	uint64_t placed; /* insertions seen when it was put there */
	bool referenced, untouched, cold;
};

/* list[0]: the queue, the circle from the hand, inactive. list[1]: active. Index 0 goes first. */
struct model {
	enum model_kind kind;
	struct model_frame list[2][FRAMES];
	size_t count[2];
	uint64_t inserted;
};

static bool model_find(const struct model *m, uint32_t frame, int *list, size_t *at)
{
	for (*list = 0; *list < 2; ++*list)
		for (*at = 0; *at < m->count[*list]; ++*at)
			if (m->list[*list][*at].frame == frame)
				return true;
	return false;
}

static struct model_frame model_take(struct model *m, int list, size_t at)
{
	struct model_frame taken = m->list[list][at];

	m->count[list]--;
	for (; at < m->count[list]; at++)
		m->list[list][at] = m->list[list][at + 1];
	return taken;
}

static void model_put(struct model *m, int list, size_t at, struct model_frame f)
{
	f.placed = m->inserted;
	for (size_t i = m->count[list]; i > at; i--)
		m->list[list][i] = m->list[list][i - 1];
	m->list[list][at] = f;
	m->count[list]++;
}

static void model_balance(struct model *m)
{
	while (2 * m->count[1] > m->count[0] + m->count[1]) {
		struct model_frame f = model_take(m, 1, 0);

		model_put(m, 0, m->count[0], f);
	}
}

static void model_insert(struct model *m, uint32_t frame, enum policy_entry how)
{
	bool wanted = how == POLICY_RESCUED || how == POLICY_REFAULTED;
	struct model_frame f = { .frame = frame };
	int list = m->kind == MODEL_LRU && wanted;

	f.referenced = m->kind == MODEL_CLOCK && wanted;
	f.untouched = m->kind == MODEL_LRU && how == POLICY_READAHEAD;
	m->inserted++;
	model_put(m, list, m->count[list], f);
	if (list == 1)
		model_balance(m);
}

static void model_reference(struct model *m, uint32_t frame)
{
	struct model_frame *f, taken;
	size_t at;
	int list;

	if (!model_find(m, frame, &list, &at))
		return;
	f = &m->list[list][at];
	f->cold = false;
	f->referenced = m->kind == MODEL_CLOCK;
	if (f->untouched) {
		f->untouched = false;
	} else if (m->kind == MODEL_LRU) {
		taken = model_take(m, list, at);
		model_put(m, 1, m->count[1], taken);
		model_balance(m);
	}
}

static void model_cold(struct model *m, uint32_t frame)
{
	struct model_frame taken;
	size_t at;
	int list;

	if (!model_find(m, frame, &list, &at))
		return;
	taken = model_take(m, list, at);
	taken.referenced = false;
	taken.cold = true;
	model_put(m, 0, 0, taken);
}

static void model_remove(struct model *m, uint32_t frame)
{
	size_t at;
	int list;

	if (model_find(m, frame, &list, &at))
		model_take(m, list, at);
}

static uint32_t model_victim(struct model *m)
{
	struct model_frame f;

	model_balance(m);
	if (m->count[0] == 0)
		return FRAME_NONE;
	while (f = model_take(m, 0, 0), f.referenced) {
		f.referenced = false;
		model_put(m, 0, m->count[0], f);
	}
	return f.frame;
}

static bool model_is_cold(const struct model *m, uint32_t frame)
{
	const struct model_frame *f;
	size_t at;
	int list;

	if (!model_find(m, frame, &list, &at))
		return false;
	f = &m->list[list][at];
	if (list == 1 || f->referenced)
		return false;
	return f->cold || m->inserted - f->placed > m->count[list] / 2;
}

/* ------------------------------------------------------------- random operations */

static bool is_resident(const bool *resident, uint32_t frame)
{
	return frame < FRAMES && resident[frame];
}

/* One sequence of operations on frames 0 .. n - 1, the policy beside its model. */
static void random_run(const struct policy_ops *ops, enum model_kind kind, uint32_t n, int steps,
                       uint32_t inserted)
{
	struct fixture f;
	struct policy *p = setup(&f, ops);
	struct model m = { .kind = kind, .inserted = inserted };
	bool resident[FRAMES] = { false };
	uint32_t count = 0, victim, expected;

	p->inserted = inserted;
	for (int i = 0; i < steps; i++) {
		uint32_t frame = (uint32_t)unit_below(n);
		enum policy_entry how = (enum policy_entry)unit_below(4);

		switch (unit_below(8)) {
		case 0:
		case 1:
		case 2:
			if (resident[frame])
				break;
			ops->insert(p, frame, how);
			model_insert(&m, frame, how);
			resident[frame] = true;
			count++;
			break;
		case 3:
		case 4:
			ops->reference(p, frame);
			model_reference(&m, frame);
			break;
		case 5:
			if (unit_below(4) == 0) {
				ops->cold(p, frame);
				model_cold(&m, frame);
			}
			break;
		case 6:
			if (!resident[frame] || unit_below(4) != 0)
				break;
			ops->remove(p, frame);
			model_remove(&m, frame);
			resident[frame] = false;
			count--;
			break;
		case 7:
			victim = ops->victim(p);
			expected = model_victim(&m);
			REQUIRE_EQ(victim, expected);
			REQUIRE((victim == FRAME_NONE) == (count == 0));
			if (victim == FRAME_NONE)
				break;
			REQUIRE(is_resident(resident, victim));
			resident[victim] = false;
			count--;
			break;
		}
		REQUIRE(policy_check(p));
		REQUIRE_EQ(p->resident, count);
		for (uint32_t k = 0; k < n; k++) {
			REQUIRE_EQ(policy_contains(p, k), resident[k]);
			REQUIRE_EQ(ops->is_cold(p, k), model_is_cold(&m, k));
		}
	}
	/* what is left goes in the model's order, each frame once */
	while ((victim = ops->victim(p)) != FRAME_NONE) {
		REQUIRE_EQ(victim, model_victim(&m));
		REQUIRE(is_resident(resident, victim));
		resident[victim] = false;
		count--;
		REQUIRE(policy_check(p));
	}
	REQUIRE_EQ(count, 0);
	REQUIRE_EQ(model_victim(&m), FRAME_NONE);
}

/* Sizes 1 and 2 among others, and the policy's time about to wrap its stamps and itself. */
static void random_model(const struct policy_ops *ops, enum model_kind kind)
{
	static const uint32_t sizes[] = { 1, 2, 3, 4, 7, 16, FRAMES };
	static const uint32_t starts[] = { 0, (1u << 24) - 20, UINT32_MAX - 20 };

	unit_seed();
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
		for (size_t k = 0; k < sizeof starts / sizeof starts[0]; k++)
			random_run(ops, kind, sizes[i], 4000, starts[k]);
}

static void random_fifo(void)
{
	random_model(&policy_fifo, MODEL_FIFO);
}

static void random_clock(void)
{
	random_model(&policy_clock, MODEL_CLOCK);
}

static void random_lru(void)
{
	random_model(&policy_lru, MODEL_LRU);
}

/* ------------------------------------------------------------- reference strings */

#define PAGES 16

/* Faults of a string of pages in so many frames. see_hits: hits are references. */
static int faults(const struct policy_ops *ops, uint32_t frames, const char *string, bool see_hits)
{
	struct fixture f;
	struct policy *p = setup(&f, ops);
	uint32_t frame_of[PAGES], frame;
	uint32_t used = 0;
	int n = 0;

	memset(frame_of, 0xff, sizeof frame_of);
	for (; *string; string++) {
		int page = *string - '0';

		if (frame_of[page] != FRAME_NONE) {
			if (see_hits)
				ops->reference(p, frame_of[page]);
			continue;
		}
		n++;
		if (used < frames) {
			frame = used++;
		} else {
			frame = ops->victim(p);
			REQUIRE(frame < frames);
			for (int i = 0; i < PAGES; i++)
				if (frame_of[i] == frame)
					frame_of[i] = FRAME_NONE;
		}
		ops->insert(p, frame, POLICY_FAULTED);
		frame_of[page] = frame;
		CHECK(policy_check(p));
	}
	return n;
}

/* Belady's anomaly: more frames, more faults. */
static void belady(void)
{
	CHECK_EQ(faults(&policy_fifo, 3, "123412512345", false), 9);
	CHECK_EQ(faults(&policy_fifo, 4, "123412512345", false), 10);
	CHECK_EQ(faults(&policy_fifo, 4, "123412512345", true), 10);
	/* a clock that sees no reference is a queue */
	CHECK_EQ(faults(&policy_clock, 3, "123412512345", false), 9);
	CHECK_EQ(faults(&policy_clock, 4, "123412512345", false), 10);
	for (size_t i = 0; i < POLICIES; i++) {
		CHECK_EQ(faults(policies[i], 1, "112233", true), 3);
		CHECK_EQ(faults(policies[i], 2, "121212", true), 2);
		CHECK_EQ(faults(policies[i], 5, "123412512345", true), 5);
	}
}

/* 1 2 3 are in; 2 is referenced: 1 goes, then 3, then 2. */
static void second_chance(void)
{
	struct fixture f;
	struct policy *p = setup(&f, &policy_clock);

	for (uint32_t i = 1; i <= 3; i++)
		policy_clock.insert(p, i, POLICY_FAULTED);
	policy_clock.reference(p, 2);
	CHECK_EQ(policy_clock.victim(p), 1);
	CHECK_EQ(policy_clock.victim(p), 3);
	CHECK_EQ(policy_clock.victim(p), 2);
	CHECK_EQ(policy_clock.victim(p), FRAME_NONE);

	/* all referenced: one round clears all, and the first is taken */
	for (uint32_t i = 1; i <= 3; i++)
		policy_clock.insert(p, i, POLICY_RESCUED);
	CHECK_EQ(policy_clock.victim(p), 1);
	/* a new frame stands behind the hand: after those that were there */
	policy_clock.insert(p, 1, POLICY_READAHEAD);
	CHECK_EQ(policy_clock.victim(p), 2);
	CHECK_EQ(policy_clock.victim(p), 3);
	CHECK_EQ(policy_clock.victim(p), 1);

	/* what came back enters with its bit set, what was read beside it does not */
	policy_clock.insert(p, 1, POLICY_REFAULTED);
	policy_clock.insert(p, 2, POLICY_READAHEAD);
	policy_clock.insert(p, 3, POLICY_FAULTED);
	CHECK_EQ(policy_clock.victim(p), 2);
	CHECK_EQ(policy_clock.victim(p), 3);
	CHECK_EQ(policy_clock.victim(p), 1);
}

/* A working set seen in use survives a scan ten times the memory. */
static void lru_scan(void)
{
	struct fixture f;
	struct policy *p = setup(&f, &policy_lru);
	uint32_t frame;

	for (uint32_t i = 0; i < 16; i++)
		policy_lru.insert(p, i, POLICY_FAULTED);
	for (uint32_t i = 0; i < 8; i++)
		policy_lru.reference(p, i);
	for (int i = 0; i < 160; i++) {
		frame = policy_lru.victim(p);
		REQUIRE(frame >= 8 && frame < 16);
		policy_lru.insert(p, frame, POLICY_FAULTED);
		REQUIRE(policy_check(p));
	}
	/* active is full: the next in use pushes the oldest active back to probation */
	policy_lru.reference(p, 15);
	CHECK(policy_check(p));
	CHECK_EQ(p->count[1], 8);
	for (int i = 0; i < 7; i++)
		CHECK(policy_lru.victim(p) >= 8);
}

static void lru_readahead(void)
{
	struct fixture f;
	struct policy *p = setup(&f, &policy_lru);

	for (uint32_t i = 0; i < 4; i++)
		policy_lru.insert(p, i, i < 2 ? POLICY_READAHEAD : POLICY_FAULTED);
	policy_lru.reference(p, 0);
	CHECK_EQ(p->count[1], 0);
	policy_lru.reference(p, 2);
	CHECK_EQ(p->count[1], 1);
	policy_lru.reference(p, 0);
	CHECK_EQ(p->count[1], 2);
	CHECK_EQ(policy_lru.victim(p), 1);
	CHECK_EQ(policy_lru.victim(p), 3);
	policy_lru.insert(p, 5, POLICY_REFAULTED);
	CHECK(policy_check(p));
}

/* ------------------------------------------------------------- what all promise */

static void small_sizes(void)
{
	for (size_t i = 0; i < POLICIES; i++) {
		const struct policy_ops *ops = policies[i];
		struct fixture f;
		struct policy *p = setup(&f, ops);

		for (int how = POLICY_FAULTED; how <= POLICY_REFAULTED; how++) {
			CHECK_EQ(ops->victim(p), FRAME_NONE);
			ops->insert(p, 0, (enum policy_entry)how);
			ops->reference(p, 0);
			ops->reference(p, 0);
			CHECK(policy_check(p));
			CHECK_EQ(ops->victim(p), 0);
			CHECK(policy_check(p));

			ops->insert(p, 1, (enum policy_entry)how);
			ops->insert(p, 0, (enum policy_entry)how);
			ops->remove(p, 1);
			CHECK(policy_check(p));
			ops->insert(p, 1, (enum policy_entry)how);
			CHECK_EQ(p->resident, 2);
			ops->cold(p, 1);
			CHECK(policy_check(p));
			CHECK_EQ(ops->victim(p), 1);
			CHECK_EQ(ops->victim(p), 0);
			CHECK_EQ(ops->victim(p), FRAME_NONE);
			CHECK(policy_check(p));
		}
	}
}

/* Advice: the next victim is the frame named last, however much it was in use. */
static void cold_goes_first(void)
{
	for (size_t i = 0; i < POLICIES; i++) {
		const struct policy_ops *ops = policies[i];
		struct fixture f;
		struct policy *p = setup(&f, ops);

		for (uint32_t k = 0; k < 16; k++) {
			ops->insert(p, k, (enum policy_entry)(k % 4));
			ops->reference(p, k);
			ops->reference(p, k);
		}
		ops->cold(p, 9);
		ops->cold(p, 15);
		CHECK(ops->is_cold(p, 9));
		CHECK(ops->is_cold(p, 15));
		CHECK(policy_check(p));
		CHECK_EQ(ops->victim(p), 15);
		CHECK_EQ(ops->victim(p), 9);

		/* taken back by a reference */
		ops->cold(p, 3);
		ops->reference(p, 3);
		ops->reference(p, 3);
		CHECK(!ops->is_cold(p, 3));
	}
}

/* Pinned: in no list, no victim, and no event puts it back. */
static void pinned(void)
{
	for (size_t i = 0; i < POLICIES; i++) {
		const struct policy_ops *ops = policies[i];
		struct fixture f;
		struct policy *p = setup(&f, ops);
		uint32_t frame;
		int taken = 0;

		for (uint32_t k = 0; k < 8; k++)
			ops->insert(p, k, POLICY_FAULTED);
		ops->remove(p, 5);
		ops->reference(p, 5);
		ops->cold(p, 5);
		CHECK(!policy_contains(p, 5));
		CHECK_EQ(f.nodes[5].bits, 0);
		CHECK(!ops->is_cold(p, 5));
		CHECK(policy_check(p));
		while ((frame = ops->victim(p)) != FRAME_NONE) {
			CHECK(frame != 5);
			taken++;
		}
		CHECK_EQ(taken, 7);
	}
}

/* The neighbours that go with a victim are of the older half, never the page just faulted in. */
static void neighbours(void)
{
	for (size_t i = 0; i < POLICIES; i++) {
		const struct policy_ops *ops = policies[i];
		struct fixture f;
		struct policy *p = setup(&f, ops);
		uint32_t cold = 0;

		for (uint32_t k = 0; k < 32; k++) {
			ops->insert(p, k, POLICY_FAULTED);
			CHECK(!ops->is_cold(p, k));
		}
		for (uint32_t k = 0; k < 32; k++)
			cold += ops->is_cold(p, k);
		CHECK_EQ(cold, 15);
		CHECK(ops->is_cold(p, 0));
		CHECK(!ops->is_cold(p, 16));
		CHECK_EQ(p->resident, 32); /* asking changes nothing */
		CHECK_EQ(ops->victim(p), 0);
	}
	for (size_t i = 0; i < POLICIES; i += 2) { /* clock and lru: in use is not cold */
		struct fixture f;
		struct policy *p = setup(&f, policies[i]);

		for (uint32_t k = 0; k < 32; k++)
			policies[i]->insert(p, k, POLICY_FAULTED);
		policies[i]->reference(p, 2);
		CHECK(!policies[i]->is_cold(p, 2));
		CHECK(policies[i]->is_cold(p, 3));
	}
}

/* A frame that the hand has just passed has a new turn. */
static void passed_by_the_hand(void)
{
	struct fixture f;
	struct policy *p = setup(&f, &policy_clock);

	for (uint32_t k = 0; k < 32; k++)
		policy_clock.insert(p, k, POLICY_FAULTED);
	policy_clock.reference(p, 0);
	CHECK_EQ(policy_clock.victim(p), 1);
	CHECK(!policy_clock.is_cold(p, 0));
	CHECK(policy_clock.is_cold(p, 2));
}

static void names(void)
{
	char text[100], *name;
	size_t n = 0;

	REQUIRE(strlen(policy_names()) < sizeof text);
	strcpy(text, policy_names());
	for (name = strtok(text, ", "); name; name = strtok(NULL, ", "), n++) {
		REQUIRE(policy_find(name) != NULL);
		CHECK_STR(policy_find(name)->name, name);
	}
	CHECK_EQ(n, POLICIES);
	CHECK(policy_find("") == NULL);
	CHECK(policy_find("clock ") == NULL);
	CHECK(policy_find("random") == NULL);
}

/* policy_check says no: one thing broken at a time. */
static void check_can_fail(void)
{
	struct fixture f, good;
	struct policy *p = setup(&f, &policy_lru);

	for (uint32_t k = 0; k < 8; k++)
		policy_lru.insert(p, k, k < 4 ? POLICY_FAULTED : POLICY_RESCUED);
	CHECK(policy_check(p));
	good = f;
#define BROKEN(statement)                \
	do {                             \
		statement;               \
		CHECK(!policy_check(p)); \
		f = good;                \
		CHECK(policy_check(p));  \
	} while (0)
	BROKEN(f.nodes[2].prev = 3);
	BROKEN(f.nodes[2].next = 0);
	BROKEN(f.nodes[2].next = FRAME_NONE);
	BROKEN(f.nodes[2].bits = 0);
	BROKEN(f.nodes[2].bits = f.nodes[7].bits);
	BROKEN(p->count[0]++);
	BROKEN(p->count[0]--);
	BROKEN(p->count[1] = 0);
	BROKEN((p->count[0]--, p->resident--));
	BROKEN((p->count[0]++, p->resident++));
	BROKEN(p->head[0] = FRAME_NONE);
	BROKEN(p->head[0] = p->head[1]);
	BROKEN(p->resident++);
	/* a node unlinked from one side only, and two rings where one should be */
	BROKEN(f.nodes[f.nodes[2].prev].next = f.nodes[2].next);
	BROKEN((f.nodes[0].next = 1, f.nodes[1].prev = 0, f.nodes[1].next = 0,
	        f.nodes[0].prev = 1));
#undef BROKEN
}

int main(int argc, char **argv)
{
	/* clang-format off */
	static const struct unit_test tests[] = {
		UNIT(belady),
		UNIT(second_chance),
		UNIT(lru_scan),
		UNIT(lru_readahead),
		UNIT(small_sizes),
		UNIT(cold_goes_first),
		UNIT(pinned),
		UNIT(neighbours),
		UNIT(passed_by_the_hand),
		UNIT(names),
		UNIT(check_can_fail),
		UNIT(random_fifo),
		UNIT(random_clock),
		UNIT(random_lru),
		UNIT_END,
	};
	/* clang-format on */

	return unit_main(argc, argv, "policy", tests);
}
