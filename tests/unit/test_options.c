/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_options.c - options from a struct, from a command line and
 * from the environment (vm/options.c): which wins, what is refused, and whether
 * the words say what is allowed.
 */
#include "base/cgroup.h"
#include "base/error.h"
#include "tests/unit/unit.h"
#include "vm/vm.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

static const char *const variables[] = {
	"QUIRE_MEMORY", "QUIRE_SWAP",      "QUIRE_SWAP_SIZE", "QUIRE_ENGINE",
	"QUIRE_POLICY", "QUIRE_IO",        "QUIRE_MOVE",      "QUIRE_GUARD_PAGES",
	"QUIRE_GUARD",  "QUIRE_READAHEAD", "QUIRE_SPIN",
};

static void clean(void)
{
	for (size_t i = 0; i < ARRAY_LENGTH(variables); i++)
		unsetenv(variables[i]);
}

static struct quire_options none(void)
{
	return (struct quire_options){ .size = sizeof(struct quire_options) };
}

static bool words(const char *a, const char *b)
{
	bool both = strstr(error_message(), a) && strstr(error_message(), b);

	if (!both)
		printf("the message: %s\n", error_message());
	return both;
}

static void defaults(void)
{
	struct quire_config c;

	clean();
	CHECK_EQ(options_resolve(NULL, &c), 0);
	CHECK_EQ(c.memory,
	         MIN((size_t)sysconf(_SC_PHYS_PAGES) * PAGE_BYTES, cgroup_memory(&cgroup_here)) /
	                 4 / PAGE_BYTES * PAGE_BYTES);
	CHECK(c.swap_path == NULL);
	CHECK_EQ(c.swap_size, 0);
	CHECK_STR(c.engine, "auto");
	CHECK_STR(c.policy, "clock");
	CHECK_STR(c.io, "auto");
	CHECK_STR(c.move, "auto");
	CHECK_STR(c.guard_pages, "auto");
	CHECK_STR(c.guard, "off");
	CHECK_EQ(c.readahead, 2 << 20); /* as quire.h says */
	CHECK_EQ(c.spin_us, -1);
}

/* The defaults that are printed are those that are used. */
static void printed_defaults(void)
{
	struct quire_options o = none();
	struct quire_config c, said;
	char text[8192] = "", *line;
	FILE *f = fmemopen(text, sizeof text - 1, "w");

	clean();
	REQUIRE(f != NULL);
	quire_options_print(f);
	fclose(f);
	for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		char *value = strstr(line, "(default: ");
		char name[32];

		REQUIRE(value != NULL);
		REQUIRE_EQ(sscanf(line, " --%31s", name), 1);
		value += strlen("(default: ");
		value[strcspn(value, ")")] = '\0';
		/* Others are explained, in several words. */
		if (!strchr(value, ' '))
			CHECK_EQ(quire_options_set(&o, name, value), 0);
	}
	CHECK_EQ(options_resolve(&o, &said), 0);
	CHECK_EQ(options_resolve(NULL, &c), 0);
	CHECK_EQ(said.readahead, c.readahead);
	CHECK_EQ(o.readahead, c.readahead);
	CHECK_STR(said.engine, c.engine);
	CHECK_STR(said.policy, c.policy);
	CHECK_STR(said.io, c.io);
	CHECK_STR(said.move, c.move);
	CHECK_STR(said.guard_pages, c.guard_pages);
	CHECK_STR(said.guard, c.guard);
	CHECK_EQ(said.spin_us, c.spin_us);
}

static void struct_before_environment(void)
{
	struct quire_options o = none();
	struct quire_config c;

	clean();
	setenv("QUIRE_MEMORY", "3M", 1);
	setenv("QUIRE_ENGINE", "uffd", 1);
	setenv("QUIRE_POLICY", "lru", 1);
	setenv("QUIRE_SWAP", "/from/environment", 1);
	setenv("QUIRE_SPIN", "12", 1);
	o.memory = 1000000;
	o.policy = "fifo";
	CHECK_EQ(options_resolve(&o, &c), 0);
	CHECK_EQ(c.memory, 1000000 / PAGE_BYTES * PAGE_BYTES);
	CHECK_STR(c.policy, "fifo");
	CHECK_STR(c.engine, "uffd");
	CHECK_STR(c.swap_path, "/from/environment");
	CHECK_EQ(c.spin_us, 12);
	CHECK_EQ(options_resolve(NULL, &c), 0);
	CHECK_EQ(c.memory, 3 << 20);
	CHECK_STR(c.policy, "lru");
	/* What the struct says is not looked for in the environment, be it nonsense. */
	setenv("QUIRE_POLICY", "best", 1);
	CHECK_EQ(options_resolve(&o, &c), 0);
	clean();
}

static void sizes(void)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = { { "300000", 300000 },        { "512K", 512 << 10 },      { "512k", 512 << 10 },
		     { "7M", 7 << 20 },           { "7MiB", 7 << 20 },        { "7mib", 7 << 20 },
		     { "2g", UINT64_C(2) << 30 }, { "1T", UINT64_C(1) << 40 } };
	static const char *const bad[] = { "",
		                           "0",
		                           "-1",
		                           "+1",
		                           " 1",
		                           "1.5G",
		                           "K",
		                           "12Q",
		                           "1GG",
		                           "1KiBx",
		                           "1KB",
		                           "1Ki",
		                           "1iB",
		                           "4096B",
		                           "0x10",
		                           "1 M",
		                           "18446744073709551616",
		                           "18446744073709551615K",
		                           "17179869184G" };
	struct quire_options o;

	for (size_t i = 0; i < ARRAY_LENGTH(good); i++) {
		o = none();
		CHECK_EQ(quire_options_set(&o, "swap-size", good[i].text), 0);
		CHECK_EQ(o.swap_size, good[i].bytes);
	}
	for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
		o = none();
		CHECK_EQ(quire_options_set(&o, "memory", bad[i]), -EINVAL);
		CHECK(words("memory", bad[i]));
		CHECK_EQ(o.memory, 0);
	}
}

static void every_name(void)
{
	static const struct {
		const char *name, *value;
	} all[] = { { "memory", "1G" },     { "swap", "/tmp" },       { "swap-size", "2G" },
		    { "engine", "uffd" },   { "policy", "lru" },      { "io", "uring" },
		    { "move", "off" },      { "guard-pages", "off" }, { "guard", "on" },
		    { "readahead", "64K" }, { "spin", "100" } };
	struct quire_options o = none();
	struct quire_config c;
	const char *name, *environment, *fallback, *meaning;
	size_t rows = 0;

	clean();
	for (size_t i = 0; i < ARRAY_LENGTH(all); i++)
		CHECK_EQ(quire_options_set(&o, all[i].name, all[i].value), 0);
	CHECK_EQ(options_resolve(&o, &c), 0);
	CHECK_EQ(c.memory, 1 << 30);
	CHECK_STR(c.swap_path, "/tmp");
	CHECK_EQ(c.swap_size, UINT64_C(2) << 30);
	CHECK_STR(c.engine, "uffd");
	CHECK_STR(c.policy, "lru");
	CHECK_STR(c.io, "uring");
	CHECK_STR(c.move, "off");
	CHECK_STR(c.guard_pages, "off");
	CHECK_STR(c.guard, "on");
	CHECK_EQ(c.readahead, 64 << 10);
	CHECK_EQ(c.spin_us, 100);
	for (; options_row(rows, &name, &environment, &fallback, &meaning); rows++) {
		CHECK(strncmp(environment, "QUIRE_", 6) == 0);
		CHECK(*fallback && *meaning);
	}
	CHECK_EQ(rows, ARRAY_LENGTH(all));
	CHECK_EQ(rows, ARRAY_LENGTH(variables));
}

static void unknown_names(void)
{
#define FIELD(name) offsetof(struct quire_options, name)
	static const struct {
		const char *name, *variable, *allowed;
		size_t offset;
	} texts[] = { { "engine", "QUIRE_ENGINE", "uffd-signal", FIELD(engine) },
		      { "policy", "QUIRE_POLICY", "clock, fifo, lru", FIELD(policy) },
		      { "io", "QUIRE_IO", "uring", FIELD(io) },
		      { "move", "QUIRE_MOVE", "off", FIELD(move) },
		      { "guard-pages", "QUIRE_GUARD_PAGES", "off", FIELD(guard_pages) },
		      { "guard", "QUIRE_GUARD", "off, on", FIELD(guard) },
		      { "spin", "QUIRE_SPIN", "10000", FIELD(spin) } };
#undef FIELD
	const struct quire_options zeroed = none();
	const char *nonsense = "nonsense";
	struct quire_options o;
	struct quire_config c;

	clean();
	for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
		o = none();
		CHECK_EQ(quire_options_set(&o, texts[i].name, "nonsense"), -EINVAL);
		CHECK(words(texts[i].allowed, "nonsense"));
		CHECK(memcmp(&o, &zeroed, sizeof o) == 0);
		memcpy((char *)&o + texts[i].offset, &nonsense, sizeof nonsense);
		CHECK_EQ(options_resolve(&o, &c), -EINVAL);
		CHECK(words(texts[i].allowed, "nonsense"));
		CHECK(strstr(error_message(), texts[i].variable) == NULL);
		/* From the environment the words name the variable. */
		setenv(texts[i].variable, "nonsense", 1);
		CHECK_EQ(options_resolve(NULL, &c), -EINVAL);
		CHECK(words(texts[i].allowed, texts[i].variable));
		setenv(texts[i].variable, "", 1);
		CHECK_EQ(options_resolve(NULL, &c), -EINVAL);
		CHECK(words(texts[i].variable, "empty"));
		clean();
	}
	o = none();
	CHECK_EQ(quire_options_set(&o, "colour", "red"), -EINVAL);
	CHECK(words("colour", "memory"));
	CHECK_EQ(quire_options_set(NULL, "memory", "1G"), -EINVAL);
	CHECK_EQ(quire_options_set(&o, NULL, "1G"), -EINVAL);
	CHECK_EQ(quire_options_set(&o, "memory", NULL), -EINVAL);
	CHECK_EQ(quire_options_set(&o, "spin", "10001"), -EINVAL);
}

static void budgets(void)
{
	struct quire_options o = none();
	struct quire_config c;

	clean();
	o.memory = QUIRE_MEMORY_MIN;
	CHECK_EQ(options_resolve(&o, &c), 0);
	CHECK_EQ(c.memory, QUIRE_MEMORY_MIN);
	o.memory = QUIRE_MEMORY_MIN - 1;
	CHECK_EQ(options_resolve(&o, &c), -EINVAL);
	CHECK(words("minimum", "64 pages"));
	o.memory = SIZE_MAX;
	CHECK_EQ(options_resolve(&o, &c), -EINVAL);
	CHECK(words("maximum", "this machine's memory"));
	o.memory = (size_t)sysconf(_SC_PHYS_PAGES) * PAGE_BYTES;
	CHECK_EQ(options_resolve(&o, &c), 0);
	CHECK_EQ(c.memory, o.memory);
	o.memory++;
	CHECK_EQ(options_resolve(&o, &c), -EINVAL);
	setenv("QUIRE_MEMORY", "1000", 1);
	CHECK_EQ(options_resolve(NULL, &c), -EINVAL);
	CHECK(words("QUIRE_MEMORY", "minimum"));
	setenv("QUIRE_MEMORY", "a lot", 1);
	CHECK_EQ(options_resolve(NULL, &c), -EINVAL);
	CHECK(words("QUIRE_MEMORY", "a lot"));
	clean();
}

/* Below and above what can be meant: by name, by a field, by the environment. */
static void out_of_range(void)
{
	uint64_t bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * PAGE_BYTES;
	char ram[32], above[32];
	const struct {
		const char *name, *variable, *text;
		size_t offset;
		uint64_t bytes;
		const char *allowed;
	} bad[] = {
		{ "readahead", "QUIRE_READAHEAD", "3", offsetof(struct quire_options, readahead), 3,
		  "4096" },
		{ "readahead", "QUIRE_READAHEAD", "4095", offsetof(struct quire_options, readahead),
		  4095, "4096" },
		{ "readahead", "QUIRE_READAHEAD", "16777215T",
		  offsetof(struct quire_options, readahead), UINT64_MAX, "4503599627370496" },
		{ "memory", "QUIRE_MEMORY", "262143", offsetof(struct quire_options, memory),
		  262143, "262144" },
		{ "memory", "QUIRE_MEMORY", "16777215T", offsetof(struct quire_options, memory),
		  UINT64_MAX, ram },
		{ "memory", "QUIRE_MEMORY", above, offsetof(struct quire_options, memory),
		  bytes + 1, ram },
		{ "swap-size", "QUIRE_SWAP_SIZE", "8191", offsetof(struct quire_options, swap_size),
		  8191, "8192" },
	};
	static const char *const none_of_them[] = { "wide", "-4096", "4K ",  " 4K", "4 K",
		                                    "4K4",  "4KK",   "4.5K", "K",   "4Kib/s" };
	struct quire_config c;

	snprintf(ram, sizeof ram, "%llu", (unsigned long long)bytes);
	snprintf(above, sizeof above, "%llu", (unsigned long long)bytes + 1);
	clean();
	for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
		struct quire_options o = none();

		CHECK_EQ(quire_options_set(&o, bad[i].name, bad[i].text), -EINVAL);
		CHECK(words(bad[i].name, bad[i].allowed));
		memcpy((char *)&o + bad[i].offset, &bad[i].bytes, sizeof bad[i].bytes);
		CHECK_EQ(options_resolve(&o, &c), -EINVAL);
		CHECK(words(bad[i].name, bad[i].allowed));
		CHECK(strstr(error_message(), "(1 pages)") == NULL);
		CHECK(strstr(error_message(), bad[i].variable) == NULL);
		setenv(bad[i].variable, bad[i].text, 1);
		CHECK_EQ(options_resolve(NULL, &c), -EINVAL);
		CHECK(words(bad[i].variable, bad[i].allowed));
		clean();
	}
	for (size_t i = 0; i < ARRAY_LENGTH(none_of_them); i++) {
		struct quire_options o = none();

		CHECK_EQ(quire_options_set(&o, "readahead", none_of_them[i]), -EINVAL);
		CHECK(words("readahead", none_of_them[i]));
		CHECK(words("K, M, G or T", "positive whole number"));
		CHECK_EQ(o.readahead, 0);
	}
	{
		struct quire_options o = none();

		CHECK_EQ(quire_options_set(&o, "readahead", "4096"), 0);
		CHECK_EQ(quire_options_set(&o, "swap-size", "8192"), 0);
		CHECK_EQ(options_resolve(&o, &c), 0);
		CHECK_EQ(c.readahead, 4096);
	}
}

/* Microseconds: digits, no more than asked, and no unit of bytes. */
static void spins(void)
{
	static const struct {
		const char *text;
		int us;
	} good[] = { { "auto", -1 }, { "0", 0 }, { "1", 1 }, { "10000", 10000 } };
	static const char *const bad[] = { "10001",     "-1",  "+1",  " 1",
		                           "1 ",        "1K",  "1kB", "1us",
		                           "",          "1e2", "0x1", "99999999999999999999",
		                           "4294967296" };
	struct quire_config c;

	clean();
	for (size_t i = 0; i < ARRAY_LENGTH(good); i++) {
		struct quire_options o = none();

		o.spin = good[i].text;
		CHECK_EQ(options_resolve(&o, &c), 0);
		CHECK_EQ(c.spin_us, good[i].us);
	}
	for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
		struct quire_options o = none();

		o.spin = bad[i];
		CHECK_EQ(options_resolve(&o, &c), -EINVAL);
		CHECK(words("spin", "0 to 10000"));
		CHECK(words(bad[i], "auto"));
	}
}

static void struct_size(void)
{
	struct quire_options o = { 0 };
	struct quire_config c;

	clean();
	CHECK_EQ(options_resolve(&o, &c), 0);
	o.size = sizeof o - 1;
	CHECK_EQ(options_resolve(&o, &c), -EINVAL);
	CHECK(words("size", "quire_options"));
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(defaults),
		UNIT(printed_defaults),
		UNIT(struct_before_environment),
		UNIT(sizes),
		UNIT(every_name),
		UNIT(unknown_names),
		UNIT(budgets),
		UNIT(out_of_range),
		UNIT(spins),
		UNIT(struct_size),
		UNIT_END,
	};

	return unit_main(argc, argv, "options", tests);
}
