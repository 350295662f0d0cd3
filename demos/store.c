/* SPDX-License-Identifier: MIT */
/*
 * demos/store.c - the key-value store; see store.h.
 *
 * In reading order: records, the table, the calls. The table is open addressing with linear
 * probing; a deletion moves later slots up, so that there are no tombstones and its state
 * depends on nothing but the keys' history.
 */
#include "store.h"

#include "demo.h"

static const char magic[8] = "QUIRE-KV";

/* ---------------------------------------------------------------- records */

/* Where a record is: its offset in units of 64 bytes; 0 is nowhere. */
struct record {
	uint16_t key, value; /* their bytes; key 0: it is free */
	uint32_t next;       /* of those that are free */
	char text[];         /* the key, then the value */
};

_Static_assert(sizeof(struct record) + STORE_ENTRY == STORE_CLASSES * STORE_UNIT,
               "sizes of records");

static struct record *record_at(const struct store *s, uint32_t at)
{
	return (struct record *)((char *)(uintptr_t)s + (size_t)at * STORE_UNIT);
}

static unsigned class_of(size_t key, size_t value)
{
	return (unsigned)((sizeof(struct record) + key + value + STORE_UNIT - 1) / STORE_UNIT);
}

static uint32_t record_new(struct store *s, unsigned class)
{
	uint32_t at = s->free[class];

	if (at) {
		s->free[class] = record_at(s, at)->next;
		return at;
	}
	if (s->bytes - s->used < class * STORE_UNIT)
		die("the store of %.0f MiB is full: it holds %llu keys", mib(s->bytes),
		    (unsigned long long)s->count);
	at = (uint32_t)(s->used / STORE_UNIT);
	s->used += class * STORE_UNIT;
	return at;
}

static void record_free(struct store *s, uint32_t at)
{
	struct record *r = record_at(s, at);
	unsigned class = class_of(r->key, r->value);

	r->key = 0;
	r->next = s->free[class];
	s->free[class] = at;
}

/* ------------------------------------------------------------------ table */

struct slot {
	uint32_t hash;
	uint32_t record; /* 0: empty */
};

static struct slot *table_of(const struct store *s)
{
	return (struct slot *)((char *)(uintptr_t)s + STORE_PAGE);
}

static uint32_t hash_of(const char *key, size_t length)
{
	uint64_t h = length;

	for (size_t i = 0; i < length; i++)
		h = (h ^ (unsigned char)key[i]) * 0x100000001b3u;
	return (uint32_t)((h * 0x9e3779b97f4a7c15u) >> 32);
}

/* Where the key is, or else the empty slot where it would be. */
static struct slot *find(const struct store *s, const char *key, size_t length, uint32_t hash)
{
	struct slot *table = table_of(s);
	uint32_t mask = (1u << s->bits) - 1;

	for (uint32_t i = hash & mask;; i = (i + 1) & mask) {
		const struct record *r;

		if (!table[i].record)
			return &table[i];
		if (table[i].hash != hash)
			continue;
		r = record_at(s, table[i].record);
		if (r->key == length && !memcmp(r->text, key, length))
			return &table[i];
	}
}

/* Empty a slot: those behind it that would not be found any more move up. */
static void slot_remove(struct store *s, struct slot *slot)
{
	struct slot *table = table_of(s);
	uint32_t mask = (1u << s->bits) - 1, hole = (uint32_t)(slot - table), i = hole;

	for (;;) {
		i = (i + 1) & mask;
		if (!table[i].record)
			break;
		if (((i - table[i].hash) & mask) < ((i - hole) & mask))
			continue;
		table[hole] = table[i];
		hole = i;
	}
	table[hole].record = 0;
}

/* ------------------------------------------------------------------ calls */

static size_t table_bytes(uint32_t bits)
{
	return round_up(sizeof(struct slot) << bits, STORE_PAGE);
}

struct store *store_init(void *memory, size_t bytes, uint64_t keys)
{
	struct store *s = memory;
	uint32_t bits = 8;

	while ((uint64_t)3 << bits < keys * 4)
		bits++;
	memcpy(s->magic, magic, sizeof magic);
	s->bytes = bytes;
	s->bits = bits;
	s->used = STORE_PAGE + table_bytes(bits);
	if (bits > 30 || s->used > bytes || bytes / STORE_UNIT > UINT32_MAX)
		die("a store of %.0f MiB for %llu keys: out of range", mib(bytes),
		    (unsigned long long)keys);
	return s;
}

const struct store *store_open(const void *memory, size_t bytes)
{
	const struct store *s = memory;

	if (bytes < STORE_PAGE || memcmp(s->magic, magic, sizeof magic) || s->bytes != bytes ||
	    s->bits > 30 || s->used > bytes || s->used < STORE_PAGE + table_bytes(s->bits))
		return NULL;
	return s;
}

void store_put(struct store *s, const char *key, size_t length, const char *value, size_t bytes)
{
	uint32_t hash = hash_of(key, length);
	struct slot *slot = find(s, key, length, hash);
	struct record *r = slot->record ? record_at(s, slot->record) : NULL;

	if (!r || class_of(r->key, r->value) != class_of(length, bytes)) {
		if (r)
			record_free(s, slot->record);
		else
			s->count++;
		slot->record = record_new(s, class_of(length, bytes));
		slot->hash = hash;
		r = record_at(s, slot->record);
		r->key = (uint16_t)length;
		memcpy(r->text, key, length);
	}
	r->value = (uint16_t)bytes;
	memcpy(r->text + length, value, bytes);
	s->sequence++;
}

void store_delete(struct store *s, const char *key, size_t length)
{
	struct slot *slot = find(s, key, length, hash_of(key, length));

	if (slot->record) {
		record_free(s, slot->record);
		slot_remove(s, slot);
		s->count--;
	}
	s->sequence++;
}

const char *store_get(const struct store *s, const char *key, size_t length, size_t *bytes)
{
	const struct slot *slot = find(s, key, length, hash_of(key, length));
	const struct record *r = record_at(s, slot->record);

	if (!slot->record)
		return NULL;
	*bytes = r->value;
	return r->text + r->key;
}
