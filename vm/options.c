/* SPDX-License-Identifier: MIT */
/*
 * vm/options.c - the option table: one row gives an option's name (on a command
 * line: --NAME), environment variable, default and meaning; parsing, checking
 * and the help text follow from it.
 */
#include "vm/vm.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum kind { BYTES, TEXT };

struct option_row {
	const char *name, *environment;
	enum kind kind;
	size_t offset;                  /* in struct quire_options */
	const char *fallback, *meaning;
	uint64_t least, most;           /* BYTES: allowed */
};

#define ROW(field, ...) offsetof(struct quire_options, field), __VA_ARGS__
#define SPIN_MAX_US 10000
#define MEMORY_MAX (UINT64_C(1) << 52)  /* more than any machine has */

static const struct option_row rows[] = {
	{ "memory", "QUIRE_MEMORY", BYTES, ROW(memory, "a quarter of RAM", "budget in bytes (K, M, G, T)"),
	  QUIRE_MEMORY_MIN, MEMORY_MAX },
	{ "swap", "QUIRE_SWAP", TEXT, ROW(swap_path, "$TMPDIR, /var/tmp or /tmp", "swap directory or file"), 0, 0 },
	{ "swap-size", "QUIRE_SWAP_SIZE", BYTES, ROW(swap_size, "what the disk holds", "most bytes of the swap file"),
	  2 * PAGE_BYTES, UINT64_MAX },
	{ "engine", "QUIRE_ENGINE", TEXT, ROW(engine, "auto", "auto, uffd, uffd-signal"), 0, 0 },
	{ "policy", "QUIRE_POLICY", TEXT, ROW(policy, "clock", "clock, fifo, lru"), 0, 0 },
	{ "io", "QUIRE_IO", TEXT, ROW(io, "auto", "auto, uring"), 0, 0 },
	{ "move", "QUIRE_MOVE", TEXT, ROW(move, "auto", "auto, off: never use UFFDIO_MOVE"), 0, 0 },
	{ "readahead", "QUIRE_READAHEAD", BYTES, ROW(readahead, "1M", "widest readahead window in bytes; 4K: none"),
	  PAGE_BYTES, MEMORY_MAX },
	{ "spin", "QUIRE_SPIN", TEXT, ROW(spin, "auto", "microseconds to wait awake: for a page; a handler, for a fault"), 0, 0 },
};

_Static_assert(sizeof(size_t) == sizeof(uint64_t), "Quire needs a 64-bit system");

static const struct option_row *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LENGTH(rows); i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	return NULL;
}

/* "64M" and the like. => false: not a size, or it overflows */
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
		if (*end == 'i')
			end++;
		if (*end == 'B' || *end == 'b')
			end++;
	}
	if (*end || (shift && *out >> (64 - shift)))
		return false;
	*out <<= shift;
	return true;
}

static int check_bytes(const struct option_row *row, const char *source, uint64_t bytes)
{
	if (bytes < row->least)
		return error_set(EINVAL, "%s: %llu bytes; the minimum is %llu (%llu pages)", source,
				 (unsigned long long)bytes, (unsigned long long)row->least,
				 (unsigned long long)pages_of(row->least));
	if (bytes > row->most)
		return error_set(EINVAL, "%s: %llu bytes; the maximum is %llu, more than any machine has",
				 source, (unsigned long long)bytes, (unsigned long long)row->most);
	return 0;
}

static int set(struct quire_options *o, const struct option_row *row, const char *source,
	       const char *value)
{
	char *field = (char *)o + row->offset;
	uint64_t bytes;
	int error;

	if (row->kind == TEXT) {
		if (*value == '\0')
			return error_set(EINVAL, "%s: empty; allowed: %s", source, row->meaning);
		memcpy(field, &value, sizeof value);
		return 0;
	}
	if (!parse_bytes(value, &bytes) || bytes == 0)
		return error_set(EINVAL,
				 "%s: \"%s\" is not a size; allowed: a positive number with K, M, G or T",
				 source, value);
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

static bool is_one_of(const char *value, const char *a, const char *b)
{
	return strcmp(value, a) == 0 || strcmp(value, b) == 0;
}

/* The words say where the value came from: a field of the options, or the environment. */
static int refuse(const char *field, const char *name, const char *value, const char *allowed)
{
	const struct option_row *row = find(name);

	return error_set(EINVAL, "%s: \"%s\" makes no sense; allowed: %s",
			 field ? name : row->environment, value, allowed);
}

static int check(const struct quire_options *given, const struct quire_options *o,
		 struct quire_config *c)
{
	c->memory = o->memory ? o->memory / PAGE_BYTES * PAGE_BYTES :
				(size_t)sysconf(_SC_PHYS_PAGES) / 4 * PAGE_BYTES;
	c->swap_path = o->swap_path;
	c->swap_size = o->swap_size;
	c->engine = o->engine ? o->engine : "auto";
	c->policy = o->policy ? o->policy : "clock";
	c->io = o->io ? o->io : "auto";
	c->move = o->move ? o->move : "auto";
	c->readahead = o->readahead ? o->readahead : 4 * CLUSTER_PAGES * PAGE_BYTES;
	/* Those of the environment were looked at when they were read. */
	for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
		uint64_t bytes = rows[i].kind == BYTES ? field_of(given, &rows[i]) : 0;
		int error = bytes ? check_bytes(&rows[i], rows[i].name, bytes) : 0;

		if (error)
			return error;
	}
	if (strcmp(c->engine, "auto") != 0 && !engine_known(c->engine))
		return refuse(given->engine, "engine", c->engine, engine_names());
	if (!policy_find(c->policy))
		return refuse(given->policy, "policy", c->policy, policy_names());
	if (!is_one_of(c->io, "auto", "uring"))
		return refuse(given->io, "io", c->io, "auto, uring");
	if (!is_one_of(c->move, "auto", "off"))
		return refuse(given->move, "move", c->move, "auto, off");
	if (!parse_spin(o->spin ? o->spin : "auto", &c->spin_us))
		return refuse(given->spin, "spin", o->spin, "auto, 0 to 10000 microseconds");
	return 0;
}

int options_resolve(const struct quire_options *options, struct quire_config *config)
{
	struct quire_options o = { .size = sizeof o }, given;

	if (options) {
		static const struct quire_options zeroed;
		bool defaults = memcmp(options, &zeroed, sizeof zeroed) == 0;

		if (options->size != sizeof *options && !defaults)
			return error_set(EINVAL, "quire_options.size is %zu, not %zu", options->size,
					 sizeof *options);
		o = *options;
	}
	given = o;
	for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
		const char *value = getenv(rows[i].environment);
		int error;

		if (field_of(&o, &rows[i]) || !value)
			continue;
		error = set(&o, &rows[i], rows[i].environment, value);
		if (error)
			return error;
	}
	return check(&given, &o, config);
}
