/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/api.c - bad input: what quire.h says about each call's
 * arguments, that a refusal changes nothing, and that its message says what is
 * allowed.
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/* Opens with options that must be refused. => the result */
static int refused(struct quire_options o)
{
	quire_t *q = NULL;
	int r;

	if (!o.size)
		o.size = sizeof o;
	r = quire_open(&q, &o);
	if (r == -ENOTSUP)
		unit_skip_all(quire_error_message());
	if (r == 0)
		quire_close(q);
	return r;
}

static int refused_by_environment(const char *name, const char *value)
{
	const char *was = getenv(name);
	char *copy = was ? strdup(was) : NULL;
	int r;

	setenv(name, value, 1);
	r = refused((struct quire_options){ 0 });
	if (copy)
		setenv(name, copy, 1);
	else
		unsetenv(name);
	free(copy);
	return r;
}

static void size_fields(void)
{
	struct quire_options o = { .size = sizeof o - 8 };
	struct quire_region_options ro = { .size = 3 };
	quire_t *q = NULL;
	quire_region_t *r = NULL;

	CHECK_EQ(quire_open(&q, &o), -EINVAL);
	o.size = 1;
	CHECK_EQ(quire_open(&q, &o), -EINVAL);
	o.size = SIZE_MAX;
	CHECK_EQ(quire_open(&q, &o), -EINVAL);
	o = (struct quire_options){ .memory = MIB };
	CHECK_EQ(quire_open(&q, &o), -EINVAL);
	CHECK(quire_error_message()[0] != '\0');
	o = (struct quire_options){ 0 };
	q = pager_open_options(&o);
	CHECK_EQ(quire_region_create(q, PAGE, &ro, &r), -EINVAL);
	ro = (struct quire_region_options){ 0 };
	REQUIRE_EQ(quire_region_create(q, PAGE, &ro, &r), 0);
	CHECK_EQ(quire_region_destroy(r), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void unknown_names(void)
{
	CHECK_EQ(refused((struct quire_options){ .engine = "warp" }), -EINVAL);
	CHECK(contains(quire_error_message(), "warp"));
	CHECK(contains(quire_error_message(), "auto"));
	CHECK(contains(quire_error_message(), "uffd"));
	CHECK(contains(quire_error_message(), "uffd-signal"));
	CHECK_EQ(refused((struct quire_options){ .policy = "crystal" }), -EINVAL);
	CHECK(contains(quire_error_message(), "crystal"));
	CHECK(contains(quire_error_message(), "clock"));
	CHECK(contains(quire_error_message(), "fifo"));
	CHECK(contains(quire_error_message(), "lru"));
	CHECK_EQ(refused((struct quire_options){ .io = "pigeon" }), -EINVAL);
	CHECK(contains(quire_error_message(), "uring"));
	CHECK_EQ(refused((struct quire_options){ .move = "sometimes" }), -EINVAL);
	CHECK(contains(quire_error_message(), "off"));
	CHECK(contains(quire_error_message(), "auto"));
	CHECK_EQ(refused((struct quire_options){ .spin = "10001" }), -EINVAL);
	CHECK(contains(quire_error_message(), "10000"));
	CHECK_EQ(refused((struct quire_options){ .spin = "fast" }), -EINVAL);
	CHECK_EQ(refused((struct quire_options){ .spin = "-1" }), -EINVAL);
	CHECK_EQ(refused((struct quire_options){ .readahead = 3 }), -EINVAL);
	CHECK(contains(quire_error_message(), "readahead: 3 bytes"));
	CHECK(contains(quire_error_message(), "4096"));
}

static void environment(void)
{
	static const char *const bad[][2] = {
		{ "QUIRE_ENGINE", "warp" },
		{ "QUIRE_POLICY", "crystal" },
		{ "QUIRE_IO", "pigeon" },
		{ "QUIRE_MOVE", "sometimes" },
		{ "QUIRE_SPIN", "fast" },
		{ "QUIRE_MEMORY", "12Q" },
		{ "QUIRE_MEMORY", "-5" },
		{ "QUIRE_MEMORY", "big" },
		{ "QUIRE_MEMORY", "64M64" },
		{ "QUIRE_MEMORY", "99999999999T" },
		{ "QUIRE_MEMORY", "18446744073709551616" },
		{ "QUIRE_SWAP_SIZE", "none" },
		{ "QUIRE_READAHEAD", "wide" },
		{ "QUIRE_READAHEAD", "3" },
		{ "QUIRE_SPIN", "1K" },
	};
	quire_t *q = NULL;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		int r = refused_by_environment(bad[i][0], bad[i][1]);

		if (r != -EINVAL)
			printf("%s=%s: %d\n", bad[i][0], bad[i][1], r);
		CHECK_EQ(r, -EINVAL);
		CHECK(contains(quire_error_message(), bad[i][0]));
		CHECK(contains(quire_error_message(), bad[i][1]));
	}
	setenv("QUIRE_MEMORY", "3M", 1);
	REQUIRE_EQ(quire_open(&q, NULL), 0);
	CHECK_EQ(quire_memory(q), 3 * MIB);
	CHECK_EQ(quire_close(q), 0);
	/* A field that is set outranks the environment, even a bad one. */
	setenv("QUIRE_MEMORY", "12Q", 1);
	q = pager_open(2 * MIB);
	CHECK_EQ(quire_memory(q), 2 * MIB);
	CHECK_EQ(quire_close(q), 0);
	unsetenv("QUIRE_MEMORY");
}

static void budgets(void)
{
	quire_t *q;

	CHECK_EQ(refused((struct quire_options){ .memory = PAGE }), -EINVAL);
	CHECK(strstr(quire_error_message(), "256") || strstr(quire_error_message(), "262144"));
	CHECK_EQ(refused((struct quire_options){ .memory = QUIRE_MEMORY_MIN - 1 }), -EINVAL);
	CHECK_EQ(refused_by_environment("QUIRE_MEMORY", "100K"), -EINVAL);
	CHECK(strstr(quire_error_message(), "256") || strstr(quire_error_message(), "262144"));
	q = pager_open(QUIRE_MEMORY_MIN);
	CHECK_EQ(quire_set_memory(q, QUIRE_MEMORY_MIN - PAGE), -EINVAL);
	CHECK_EQ(quire_set_memory(q, 0), -EINVAL);
	CHECK_EQ(quire_memory(q), QUIRE_MEMORY_MIN);
	CHECK_EQ(quire_close(q), 0);
	q = pager_open(MIB + 123);
	CHECK_EQ(quire_memory(q), MIB);
	CHECK_EQ(quire_close(q), 0);
}

/* The most is the same for opening and for raising, and so is what is said of more. */
static void largest_budget(void)
{
	size_t ram = machine_memory();
	char most[80], text[32];
	quire_t *q;

	snprintf(most, sizeof most, "the maximum is %zu (this machine's memory)", ram);
	CHECK_EQ(refused((struct quire_options){ .memory = ram + 1 }), -EINVAL);
	CHECK(strstr(quire_error_message(), most) != NULL);
	CHECK_EQ(refused((struct quire_options){ .memory = (size_t)1 << 42 | ram }), -EINVAL);
	CHECK(strstr(quire_error_message(), most) != NULL);
	snprintf(text, sizeof text, "%zu", ram + PAGE);
	CHECK_EQ(refused_by_environment("QUIRE_MEMORY", text), -EINVAL);
	CHECK(strstr(quire_error_message(), most) != NULL);
	q = pager_open(ram);
	CHECK_EQ(quire_memory(q), ram);
	CHECK_EQ(quire_set_memory(q, ram + PAGE), -EINVAL);
	CHECK(strstr(quire_error_message(), most) != NULL);
	CHECK_EQ(quire_close(q), 0);
	q = pager_open(MIB);
	CHECK_EQ(quire_set_memory(q, (size_t)1 << 42 | ram), -EINVAL);
	CHECK(strstr(quire_error_message(), most) != NULL);
	CHECK_EQ(quire_memory(q), MIB);
	CHECK_EQ(quire_set_memory(q, ram), 0);
	CHECK_EQ(quire_memory(q), ram);
	CHECK_EQ(quire_close(q), 0);
}

static void options_set(void)
{
	static const char *const names[] = { "memory", "swap", "swap-size", "engine", "policy",
		                             "io",     "move", "readahead", "spin" };
	static const struct {
		const char *text;
		size_t bytes;
	} sizes[] = { { "262144", 262144 },
		      { "64M", 64 * MIB },
		      { "1G", GIB },
		      { "512K", 512 * KIB },
		      { "2T", 2048 * GIB } };
	static const char *const bad[] = { "",   "x",  "-1", "M", "1MM", "1 M", "99999999999G",
		                           "0x", "1K1" };
	struct quire_options o = { .size = sizeof o };
	char *text = NULL;
	size_t length = 0;
	size_t ram = machine_memory(), was = 0;
	FILE *f;

	CHECK_EQ(quire_options_set(&o, "colour", "blue"), -EINVAL);
	CHECK(contains(quire_error_message(), "colour"));
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		CHECK(contains(quire_error_message(), names[i]));
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		if (sizes[i].bytes <= ram) {
			CHECK_EQ(quire_options_set(&o, "memory", sizes[i].text), 0);
			CHECK_EQ(o.memory, was = sizes[i].bytes);
		} else {
			CHECK_EQ(quire_options_set(&o, "memory", sizes[i].text), -EINVAL);
			CHECK_EQ(o.memory, was);
		}
		CHECK_EQ(quire_options_set(&o, "swap-size", sizes[i].text), 0);
		CHECK_EQ(o.swap_size, sizes[i].bytes);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		int r = quire_options_set(&o, "memory", bad[i]);

		if (r != -EINVAL)
			printf("memory \"%s\": %d\n", bad[i], r);
		CHECK_EQ(r, -EINVAL);
		CHECK_EQ(o.memory, was);
	}
	CHECK_EQ(quire_options_set(&o, "engine", "uffd"), 0);
	CHECK_STR(o.engine, "uffd");
	CHECK_EQ(quire_options_set(&o, "swap", "/var/tmp"), 0);
	CHECK_STR(o.swap_path, "/var/tmp");
	/* An unknown name is told by this call or by the next. */
	if (quire_options_set(&o, "engine", "warp") == 0)
		CHECK_EQ(refused(o), -EINVAL);
	CHECK(contains(quire_error_message(), "uffd-signal"));

	f = open_memstream(&text, &length);
	REQUIRE(f != NULL);
	quire_options_print(f);
	fclose(f);
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		CHECK(contains(text, names[i]));
	CHECK(contains(text, "QUIRE_MEMORY"));
	CHECK(contains(text, "QUIRE_SWAP_SIZE"));
	free(text);
}

static void region_lengths(void)
{
	static const size_t bad[] = { 0,
		                      SIZE_MAX,
		                      SIZE_MAX - PAGE + 1,
		                      SIZE_MAX - PAGE + 2,
		                      SIZE_MAX / 2,
		                      QUIRE_REGION_MAX + 1,
		                      QUIRE_REGION_MAX + PAGE };
	static const size_t good[][2] = { { 1, PAGE },
		                          { PAGE, PAGE },
		                          { PAGE + 1, 2 * PAGE },
		                          { MIB, MIB },
		                          { QUIRE_REGION_MAX - 1, QUIRE_REGION_MAX },
		                          { QUIRE_REGION_MAX, QUIRE_REGION_MAX } };
	struct quire_region_options o = {
		.size = sizeof o,
		.name = "a name of many more than the thirty-one bytes that are kept of it"
	};
	quire_t *q = pager_open(MIB);
	quire_region_t *r = NULL;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CHECK_EQ(quire_region_create(q, bad[i], NULL, &r), -EINVAL);
		CHECK(quire_error_message()[0] != '\0');
	}
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		REQUIRE_EQ(quire_region_create(q, good[i][0], &o, &r), 0);
		CHECK_EQ(quire_region_length(r), good[i][1]);
		CHECK_EQ((uintptr_t)quire_region_base(r) % PAGE, 0);
		CHECK_EQ(pager_stats(q).reserved, good[i][1]);
		store((char *)quire_region_base(r) + good[i][1] - 8, 7);
		CHECK_EQ(load((char *)quire_region_base(r) + good[i][1] - 8), 7);
		CHECK_EQ(quire_region_destroy(r), 0);
	}
	CHECK_EQ(quire_close(q), 0);
}

static int call(int which, quire_region_t *r, size_t offset, size_t length)
{
	switch (which) {
	case 0:
		return quire_pin(r, offset, length);
	case 1:
		return quire_unpin(r, offset, length);
	case 2:
		return quire_protect(r, offset, length, PROT_READ);
	default:
		return quire_advise(r, offset, length, which - 3);
	}
}

static void ranges(void)
{
	enum { PAGES = 16 };
	static const size_t bad[][2] = { { 1, PAGE },
		                         { 0, PAGE - 1 },
		                         { 0, PAGE + 1 },
		                         { 0, 0 },
		                         { PAGES * PAGE, PAGE },
		                         { 0, (PAGES + 1) * PAGE },
		                         { PAGE, PAGES * PAGE },
		                         { (size_t)-PAGE, 2 * PAGE },
		                         { PAGE, (size_t)-PAGE },
		                         { PAGES * PAGE, 0 },
		                         { (size_t)-PAGE, PAGE },
		                         { 8, 8 },
		                         { PAGE, SIZE_MAX },
		                         { SIZE_MAX, 1 } };
	quire_t *q = pager_open(MIB);
	quire_region_t *r = region_create(q, PAGES * PAGE);

	fill(r, 0, PAGES, 1);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		for (int which = 0; which < 9; which++) {
			int result = call(which, r, bad[i][0], bad[i][1]);

			if (result != -EINVAL)
				printf("call %d, %#zx + %#zx: %d\n", which, bad[i][0], bad[i][1],
				       result);
			CHECK_EQ(result, -EINVAL);
		}
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(pager_stats(q).pinned, 0);
	fill(r, 0, PAGES, 2); /* nothing was protected either */
	CHECK_EQ(wrong(r, 0, PAGES, 2), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void advice_and_protection(void)
{
	static const int advice[] = { -1, 6, 7, 99, INT32_MAX, INT32_MIN };
	static const int prot[] = { PROT_NONE,
		                    PROT_WRITE,
		                    PROT_EXEC,
		                    PROT_READ | PROT_EXEC,
		                    PROT_READ | PROT_WRITE | PROT_EXEC,
		                    64,
		                    -1 };
	quire_t *q = pager_open(MIB);
	quire_region_t *r = region_create(q, 16 * PAGE);

	fill(r, 0, 16, 1);
	for (size_t i = 0; i < sizeof advice / sizeof advice[0]; i++)
		CHECK_EQ(quire_advise(r, 0, 16 * PAGE, advice[i]), -EINVAL);
	for (size_t i = 0; i < sizeof prot / sizeof prot[0]; i++)
		CHECK_EQ(quire_protect(r, 0, 16 * PAGE, prot[i]), -EINVAL);
	CHECK_EQ(wrong(r, 0, 16, 1), 0);
	fill(r, 0, 16, 2);
	CHECK_EQ(quire_close(q), 0);
}

static void unpins(void)
{
	quire_t *q = pager_open(MIB);
	quire_region_t *r = region_create(q, 16 * PAGE);

	CHECK_EQ(quire_unpin(r, 0, PAGE), -EINVAL);
	CHECK_EQ(quire_pin(r, PAGE, 2 * PAGE), 0);
	CHECK_EQ(pager_stats(q).pinned, 2 * PAGE);
	CHECK_EQ(quire_unpin(r, 0, 3 * PAGE), -EINVAL);        /* the first is not pinned */
	CHECK_EQ(quire_unpin(r, 2 * PAGE, 2 * PAGE), -EINVAL); /* the last is not pinned */
	CHECK_EQ(pager_stats(q).pinned, 2 * PAGE);
	CHECK_EQ(region_stats(r).pinned, 2 * PAGE);
	CHECK_EQ(quire_advise(r, 0, 4 * PAGE, QUIRE_ADVISE_DONTNEED), -EBUSY);
	CHECK_EQ(quire_unpin(r, PAGE, 2 * PAGE), 0);
	CHECK_EQ(pager_stats(q).pinned, 0);
	CHECK_EQ(quire_unpin(r, PAGE, 2 * PAGE), -EINVAL);
	CHECK_EQ(quire_advise(r, 0, 4 * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	CHECK_EQ(quire_close(q), 0);
}

static void names(void)
{
	static const char *const policies[] = { "clock", "fifo", "lru" };
	quire_t *q;

	for (size_t i = 0; i < 3; i++) {
		struct quire_options o = { .size = sizeof o, .memory = MIB, .policy = policies[i] };

		q = pager_open_options(&o);
		CHECK_STR(quire_policy_name(q), policies[i]);
		CHECK(!strcmp(quire_io_name(q), "uring") || !strcmp(quire_io_name(q), "sync"));
		if (getenv("QUIRE_IO") && strcmp(getenv("QUIRE_IO"), "auto"))
			CHECK_STR(quire_io_name(q), getenv("QUIRE_IO"));
		CHECK(!strcmp(quire_engine_name(q), "uffd") ||
		      !strcmp(quire_engine_name(q), "uffd-signal") ||
		      !strcmp(quire_engine_name(q), "sigsegv"));
		CHECK(strstr(quire_choice(q), quire_engine_name(q)) != NULL);
		CHECK(strstr(quire_choice(q), quire_io_name(q)) != NULL);
		if (getenv("QUIRE_ENGINE") && strcmp(getenv("QUIRE_ENGINE"), "auto"))
			CHECK_STR(quire_engine_name(q), getenv("QUIRE_ENGINE"));
		CHECK_EQ(quire_close(q), 0);
	}
}

static void messages(void)
{
	quire_t *q = pager_open(MIB);
	quire_region_t *r = NULL;

	CHECK(quire_error_message() != NULL);
	errno = 1234;
	CHECK_EQ(quire_region_create(q, 0, NULL, &r), -EINVAL);
	CHECK_EQ(errno, 1234); /* never set */
	CHECK(strlen(quire_error_message()) > 8);
	CHECK_EQ(quire_close(q), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(size_fields),
		                                  UNIT(unknown_names),
		                                  UNIT(environment),
		                                  UNIT(budgets),
		                                  UNIT(largest_budget),
		                                  UNIT(options_set),
		                                  UNIT(region_lengths),
		                                  UNIT(ranges),
		                                  UNIT(advice_and_protection),
		                                  UNIT(unpins),
		                                  UNIT(names),
		                                  UNIT(messages),
		                                  UNIT_END };

	return unit_main(argc, argv, "api", tests);
}
