/* SPDX-License-Identifier: MIT */
/*
 * vm/options.c - the option table: one row gives an option's name (on a command
 * line: --NAME), environment variable, default and meaning; parsing, checking
 * and the help text follow from it.
 */
#include "vm/vm.h"

#include "base/cgroup.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum kind { BYTES, TEXT };

struct option_row {
	const char *name, *environment;
	enum kind kind;
	size_t offset; /* in struct quire_options */
	const char *fallback, *meaning;
	uint64_t least, most; /* BYTES: allowed. most 0: the machine's memory */
	/* TEXT: does it make sense? => NULL, or else what is allowed */
	const char *(*refuse)(const char *value);
};

#define SPIN_MAX_US 10000
#define SIZE_NONSENSE (UINT64_C(1) << 52) /* more memory than any machine has */

static bool is_one_of(const char *value, const char *a, const char *b)
{
	return strcmp(value, a) == 0 || strcmp(value, b) == 0;
}

static const char *refuse_engine(const char *value)
{
	return strcmp(value, "auto") == 0 || engine_known(value) ? NULL : engine_names();
}

static const char *refuse_policy(const char *value)
{
	return policy_find(value) ? NULL : policy_names();
}

static const char *refuse_io(const char *value)
{
	return is_one_of(value, "auto", "uring") || strcmp(value, "sync") == 0 ?
	               NULL :
	               "auto, uring, sync";
}

static const char *refuse_switch(const char *value)
{
	return is_one_of(value, "auto", "off") ? NULL : "auto, off";
}

static const char *refuse_guard(const char *value)
{
	return is_one_of(value, "off", "on") ? NULL : "off, on";
}

/* Digits alone: K and M are of bytes. */
static bool parse_spin(const char *text, int *spin_us)
{
	size_t digits = strspn(text, "0123456789");

	*spin_us = -1;
	if (strcmp(text, "auto") == 0)
		return true;
	if (digits == 0 || digits > 5 || text[digits] || atoi(text) > SPIN_MAX_US)
		return false;
	*spin_us = atoi(text);
	return true;
}

static const char *refuse_spin(const char *value)
{
	int us;

	return parse_spin(value, &us) ? NULL : "auto, 0 to 10000 microseconds";
}

#define SIZE(field, fallback, meaning, least, most) \
	BYTES, offsetof(struct quire_options, field), fallback, meaning, least, most, NULL
#define WORD(field, fallback, meaning, refuse) \
	TEXT, offsetof(struct quire_options, field), fallback, meaning, 0, 0, refuse

/* clang-format off */
static const struct option_row rows[] = {
	{ "memory", "QUIRE_MEMORY", SIZE(memory, "a quarter of what there is", "budget in bytes",
					 QUIRE_MEMORY_MIN, 0) },
	{ "swap", "QUIRE_SWAP", WORD(swap_path, "$TMPDIR, /var/tmp or /tmp",
				     "swap directory, or a file, made if need be and kept", NULL) },
	{ "swap-size", "QUIRE_SWAP_SIZE", SIZE(swap_size, "what the disk holds",
					       "most bytes of the swap file", 2 * PAGE_BYTES, UINT64_MAX) },
	{ "engine", "QUIRE_ENGINE", WORD(engine, "auto", "auto, uffd, uffd-signal, sigsegv", refuse_engine) },
	{ "policy", "QUIRE_POLICY", WORD(policy, "clock", "clock, fifo, lru", refuse_policy) },
	{ "io", "QUIRE_IO", WORD(io, "auto", "auto, uring, sync", refuse_io) },
	{ "move", "QUIRE_MOVE", WORD(move, "auto", "auto, off: never use UFFDIO_MOVE", refuse_switch) },
	{ "guard-pages", "QUIRE_GUARD_PAGES", WORD(guard_pages, "auto", "auto, off: never use guard pages (sigsegv)", refuse_switch) },
	{ "guard", "QUIRE_GUARD", WORD(guard, "off", "off, on: serve system calls on absent pages", refuse_guard) },
	{ "readahead", "QUIRE_READAHEAD", SIZE(readahead, "2M", "widest readahead window in bytes; 4K: none",
					       PAGE_BYTES, SIZE_NONSENSE) },
	{ "spin", "QUIRE_SPIN", WORD(spin, "auto", "microseconds to wait awake: for a page; a handler, for a fault",
				     refuse_spin) },
};
/* clang-format on */

_Static_assert(sizeof(size_t) == sizeof(uint64_t), "Quire needs a 64-bit system");

static const struct option_row *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LENGTH(rows); i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	return NULL;
}

#define SIZES "a positive whole number, alone or with K, M, G or T (KiB, MiB, ...): powers of 1024"

/*
 * "4096", "64M" and "64MiB", in either case. Not "64MB": that is a power of 1000 to some.
 * => false: not a size, or it overflows
 */
static bool parse_bytes(const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	char *end;
	const char *unit;
	unsigned shift = 0;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*out = strtoull(text, &end, 10);
	if (errno)
		return false;
	if (*end) {
		unit = strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end);
		if (!unit)
			return false;
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
		if (strcasecmp(end, "iB") == 0)
			end += 2;
	}
	if (*end || (shift && *out >> (64 - shift)))
		return false;
	*out <<= shift;
	return true;
}

uint64_t machine_pages(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES);
}

static int check_bytes(const struct option_row *row, const char *source, uint64_t bytes)
{
	uint64_t most = row->most ? row->most : machine_pages() << PAGE_SHIFT;

	if (bytes < row->least)
		return error_set(EINVAL, "%s: %llu bytes; the minimum is %llu (%llu page%s)",
		                 source, (unsigned long long)bytes, (unsigned long long)row->least,
		                 (unsigned long long)pages_of(row->least),
		                 pages_of(row->least) == 1 ? "" : "s");
	if (bytes > most)
		return error_set(EINVAL, "%s: %llu bytes; the maximum is %llu (%s)", source,
		                 (unsigned long long)bytes, (unsigned long long)most,
		                 row->most ? "more than any machine has" : "this machine's memory");
	return 0;
}

static int check_text(const struct option_row *row, const char *source, const char *value)
{
	const char *allowed = row->refuse ? row->refuse(value) : NULL;

	if (*value == '\0')
		return error_set(EINVAL, "%s: empty; allowed: %s", source,
		                 allowed ? allowed : row->meaning);
	return allowed ? error_set(EINVAL, "%s: \"%s\" makes no sense; allowed: %s", source, value,
	                           allowed) :
	                 0;
}

static int set(struct quire_options *o, const struct option_row *row, const char *source,
               const char *value)
{
	char *field = (char *)o + row->offset;
	uint64_t bytes;
	int error;

	if (row->kind == TEXT) {
		error = check_text(row, source, value);
		if (!error)
			memcpy(field, &value, sizeof value);
		return error;
	}
	if (!parse_bytes(value, &bytes) || bytes == 0)
		return error_set(EINVAL, "%s: \"%s\" is not a size; allowed: " SIZES, source,
		                 value);
	error = check_bytes(row, source, bytes);
	if (!error)
		memcpy(field, &bytes, sizeof bytes);
	return error;
}

/* A field of either kind, as a number. => 0: not set */
static uint64_t field_of(const struct quire_options *o, const struct option_row *row)
{
	uint64_t field;

	memcpy(&field, (const char *)o + row->offset, sizeof field);
	return field;
}

/* A field that the program set. */
static int check_field(const struct quire_options *o, const struct option_row *row)
{
	const char *text;

	if (row->kind == BYTES)
		return check_bytes(row, row->name, field_of(o, row));
	memcpy(&text, (const char *)o + row->offset, sizeof text);
	return check_text(row, row->name, text);
}

int quire_options_set(struct quire_options *options, const char *name, const char *value)
{
	const struct option_row *row;

	if (!options || !name || !value)
		return error_set(EINVAL, "a NULL option");
	row = find(name);
	if (!row) {
		char names[200] = "";

		for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
			strcat(names, i ? ", " : "");
			strcat(names, rows[i].name);
		}
		return error_set(EINVAL, "unknown option \"%s\"; allowed: %s", name, names);
	}
	return set(options, row, row->name, value);
}

bool options_row(size_t i, const char **name, const char **environment, const char **fallback,
                 const char **meaning)
{
	if (i >= ARRAY_LENGTH(rows))
		return false;
	*name = rows[i].name;
	*environment = rows[i].environment;
	*fallback = rows[i].fallback;
	*meaning = rows[i].meaning;
	return true;
}

/* A quarter of what there is, for the machine or for the cgroup. */
static size_t default_memory(void)
{
	uint64_t bytes = MIN(machine_pages() << PAGE_SHIFT, cgroup_memory(&cgroup_here)) / 4;

	return MAX((size_t)bytes / PAGE_BYTES * PAGE_BYTES, QUIRE_MEMORY_MIN);
}

static void configure(const struct quire_options *o, struct quire_config *c)
{
	c->memory = o->memory ? o->memory / PAGE_BYTES * PAGE_BYTES : default_memory();
	c->swap_path = o->swap_path;
	c->swap_size = o->swap_size;
	c->engine = o->engine ? o->engine : "auto";
	c->policy = o->policy ? o->policy : "clock";
	c->io = o->io ? o->io : "auto";
	c->move = o->move ? o->move : "auto";
	c->guard_pages = o->guard_pages ? o->guard_pages : "auto";
	c->guard = o->guard ? o->guard : "off";
	c->readahead = o->readahead ? o->readahead : READAHEAD_DEFAULT;
	parse_spin(o->spin ? o->spin : "auto", &c->spin_us);
}

int options_resolve(const struct quire_options *options, struct quire_config *config)
{
	struct quire_options o = { .size = sizeof o };

	if (options) {
		static const struct quire_options zeroed;
		bool defaults = memcmp(options, &zeroed, sizeof zeroed) == 0;

		if (options->size != sizeof *options && !defaults)
			return error_set(EINVAL, "quire_options.size is %zu, not %zu",
			                 options->size, sizeof *options);
		o = *options;
	}
	for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
		const char *value = getenv(rows[i].environment);
		int error = 0;

		if (field_of(&o, &rows[i]))
			error = check_field(&o, &rows[i]);
		else if (value)
			error = set(&o, &rows[i], rows[i].environment, value);
		if (error)
			return error;
	}
	configure(&o, config);
	return 0;
}
