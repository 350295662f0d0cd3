/* SPDX-License-Identifier: MIT */
/*
 * demos/index.c - the word index; see index.h.
 *
 * In reading order: the heap, the table, the words and their places, the digest.
 *
 * Three habits make it a good tenant of paged memory, and cost nothing elsewhere:
 * a search reads the table only, until a whole hash agrees; a word's record and
 * its first places are made at the same time and so lie side by side; a table
 * that grows is walked from end to end, the old one and the new one.
 */
#include "index.h"

#include "demo.h"

/* ------------------------------------------------------------------- heap */

static void *heap_at(const struct heap *h, ref_t ref)
{
	return h->base + (size_t)ref * REF_UNIT;
}

/* Memory that was never used before, and is zero. */
static ref_t heap_fresh(struct heap *h, size_t bytes)
{
	size_t place = round_up(h->used, bytes >= QUIRE_PAGE_SIZE ? QUIRE_PAGE_SIZE : REF_UNIT);

	if (bytes > h->capacity - place)
		die("the heap of %.0f MiB is full", mib(h->capacity));
	h->used = place + round_up(bytes, REF_UNIT);
	return (ref_t)(place / REF_UNIT);
}

/* Memory of any content. */
static ref_t heap_any(struct heap *h, size_t bytes)
{
	size_t place = h->spare;

	bytes = round_up(bytes, REF_UNIT);
	if (bytes > h->spare_end - place)
		return heap_fresh(h, bytes);
	h->spare += bytes;
	return (ref_t)(place / REF_UNIT);
}

/* ------------------------------------------------------------------ table */

struct slot {
	uint32_t hash;
	ref_t word; /* 0: empty */
};

struct word {
	ref_t next;        /* in order of first appearance */
	ref_t first, last; /* chunks */
	uint32_t count;    /* places */
	uint32_t length;
	char text[];
};

/* Chunks of a word double in bytes from 32 to 1024: they hold 3 places, 7, 15, ... 127. */
#define CHUNK_FIRST 3u
#define CHUNK_LAST 127u

struct chunk {
	ref_t next;
	uint16_t size, used; /* of place[] */
	uint64_t place[];
};

_Static_assert(sizeof(struct chunk) == sizeof(uint64_t), "chunks are a power of two");

void index_init(struct index *x, void *memory, size_t capacity)
{
	*x = (struct index){ .heap = { .base = memory, .capacity = capacity, .used = REF_UNIT } };
	x->bits = 12;
	x->table = heap_fresh(&x->heap, sizeof(struct slot) << x->bits);
}

static uint32_t hash_of(const char *text, size_t length)
{
	uint64_t h = length;

	for (size_t i = 0; i < length; i++)
		h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
	return (uint32_t)((h * 0x9e3779b97f4a7c15u) >> 32);
}

/* The slot of a word, or the empty one where it belongs. */
static struct slot *table_find(const struct index *x, const char *text, size_t length,
                               uint32_t hash)
{
	struct slot *table = heap_at(&x->heap, x->table);
	size_t mask = ((size_t)1 << x->bits) - 1;

	for (size_t i = hash >> (32 - x->bits);; i = (i + 1) & mask) {
		const struct word *w;

		if (!table[i].word)
			return &table[i];
		if (table[i].hash != hash)
			continue;
		w = heap_at(&x->heap, table[i].word);
		if (w->length == length && !memcmp(w->text, text, length))
			return &table[i];
	}
}

/*
 * Double the table. The place of a word is the upper bits of its hash, so its
 * new place is about twice the old one: both tables are walked in order, which
 * is what readahead and fault-around are good at. The old one becomes memory
 * for records.
 */
static void table_grow(struct index *x)
{
	struct heap *h = &x->heap;
	const struct slot *old = heap_at(h, x->table);
	size_t count = (size_t)1 << x->bits, mask = 2 * count - 1;
	size_t old_place = (size_t)x->table * REF_UNIT;
	struct slot *table;

	if (x->bits == 31)
		die("more words than the table can hold");
	x->table = heap_fresh(h, 2 * count * sizeof *table);
	table = heap_at(h, x->table);
	x->bits++;
	for (size_t i = 0; i < count; i++) {
		size_t to = old[i].hash >> (32 - x->bits);

		if (!old[i].word)
			continue;
		while (table[to].word)
			to = (to + 1) & mask;
		table[to] = old[i];
	}
	h->spare = old_place;
	h->spare_end = old_place + count * sizeof *old;
}

/* ------------------------------------------------------- words and places */

/* The record of a word, made if it is new. */
static struct word *word_get(struct index *x, const char *text, size_t length)
{
	uint32_t hash = hash_of(text, length);
	struct slot *slot = table_find(x, text, length, hash);
	struct word *w;
	ref_t ref;

	if (slot->word)
		return heap_at(&x->heap, slot->word);
	if ((x->words + 1) * 10 > (7ul << x->bits)) { /* at most seven tenths full */
		table_grow(x);
		slot = table_find(x, text, length, hash);
	}
	ref = heap_any(&x->heap, sizeof *w + length);
	w = heap_at(&x->heap, ref);
	*w = (struct word){ .length = (uint32_t)length };
	memcpy(w->text, text, length);
	*slot = (struct slot){ hash, ref };
	if (x->last)
		((struct word *)heap_at(&x->heap, x->last))->next = ref;
	else
		x->first = ref;
	x->last = ref;
	x->words++;
	return w;
}

void index_add(struct index *x, const char *text, size_t length, uint64_t place)
{
	struct word *w = word_get(x, text, length);
	struct chunk *c = w->last ? heap_at(&x->heap, w->last) : NULL;

	if (!c || c->used == c->size) {
		unsigned size = !c                   ? CHUNK_FIRST :
		                c->size < CHUNK_LAST ? 2u * c->size + 1 :
		                                       c->size;
		ref_t ref = heap_any(&x->heap, sizeof *c + size * sizeof c->place[0]);

		if (c)
			c->next = ref;
		else
			w->first = ref;
		w->last = ref;
		c = heap_at(&x->heap, ref);
		*c = (struct chunk){ .size = (uint16_t)size };
	}
	c->place[c->used++] = place;
	w->count++;
	x->places++;
}

static struct places places_of(const struct index *x, const struct word *w)
{
	return (struct places){ .index = x, .chunk = heap_at(&x->heap, w->first) };
}

struct places index_find(const struct index *x, const char *text, size_t length)
{
	const struct slot *slot = table_find(x, text, length, hash_of(text, length));

	if (!slot->word)
		return (struct places){ .index = x };
	return places_of(x, heap_at(&x->heap, slot->word));
}

bool places_next(struct places *p, uint64_t *place)
{
	const struct chunk *c = p->chunk;

	if (!c)
		return false;
	*place = c->place[p->next++];
	if (p->next == c->used) {
		p->chunk = c->next ? heap_at(&p->index->heap, c->next) : NULL;
		p->next = 0;
	}
	return true;
}

/* ----------------------------------------------------------------- digest */

uint64_t index_digest(const struct index *x)
{
	const struct slot *table = heap_at(&x->heap, x->table);
	uint64_t digest = digest_add(x->words, x->places), place;
	const struct word *w;

	for (size_t i = 0; i < (size_t)1 << x->bits; i++)
		digest = digest_add(digest, (uint64_t)table[i].hash << 32 | table[i].word);
	for (ref_t ref = x->first; ref; ref = w->next) {
		struct places p;

		w = heap_at(&x->heap, ref);
		digest = digest_add(digest, (uint64_t)w->length << 32 | w->count);
		for (uint32_t i = 0; i < w->length; i++)
			digest = digest_add(digest, (unsigned char)w->text[i]);
		for (p = places_of(x, w); places_next(&p, &place);)
			digest = digest_add(digest, place);
	}
	return digest;
}
