/* SPDX-License-Identifier: MIT */
/*
 * demos/index.c - the word index; see index.h.
 *
 * In reading order: the heap, the table and the records, what is asked of them.
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

/* ------------------------------------------------------------------ index */

struct slot {
	uint32_t hash;
	ref_t word; /* 0: empty */
};

struct word {
	ref_t next;          /* in order of first appearance */
	ref_t first, last;   /* chunks */
	uint32_t count;      /* postings */
	uint32_t file, line; /* of the last posting: the next is a difference to it */
	uint32_t length;
	char text[];
};

/* Chunks of a word double from CHUNK_MIN to CHUNK_MAX bytes. A posting lies in one chunk. */
#define CHUNK_MIN 16u
#define CHUNK_MAX 1024u

struct chunk {
	ref_t next;
	uint16_t size; /* of the chunk, in bytes */
	uint16_t used; /* of data */
	uint8_t data[];
};

void index_init(struct index *x, char *memory, size_t capacity)
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

/*
 * The slot of a word, or the empty one where it belongs. A slot keeps the whole
 * hash, so that a search touches the record of no other word.
 */
static struct slot *index_find(const struct index *x, const char *text, size_t length,
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
 * Double the table. The place of a word is the upper bits of its hash, so old
 * and new table are both walked from end to end: that is what readahead and
 * fault-around are good at. The old table becomes memory for records.
 */
static void index_grow(struct index *x)
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

static struct word *index_word(struct index *x, const char *text, size_t length)
{
	uint32_t hash = hash_of(text, length);
	struct slot *slot = index_find(x, text, length, hash);
	struct word *w;
	ref_t ref;

	if (slot->word)
		return heap_at(&x->heap, slot->word);
	if ((x->words + 1) * 10 > (7ul << x->bits)) { /* at most seven tenths full */
		index_grow(x);
		slot = index_find(x, text, length, hash);
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

/* Seven bits a byte, least first, the top bit says that more follow. */
static unsigned put_number(uint8_t *to, uint32_t n)
{
	unsigned used = 0;

	for (; n >= 128; n >>= 7)
		to[used++] = (uint8_t)(n | 128);
	to[used++] = (uint8_t)n;
	return used;
}

static uint32_t get_number(const uint8_t **from)
{
	uint32_t n = 0;

	for (unsigned shift = 0;; shift += 7) {
		uint8_t byte = *(*from)++;

		n |= (uint32_t)(byte & 127) << shift;
		if (byte < 128)
			return n;
	}
}

void index_add(struct index *x, const char *text, size_t length, uint32_t file, uint32_t line)
{
	struct word *w = index_word(x, text, length);
	struct chunk *c = w->last ? heap_at(&x->heap, w->last) : NULL;
	uint8_t posting[10];
	unsigned bytes = put_number(posting, file - w->file);

	bytes += put_number(posting + bytes, file == w->file ? line - w->line : line);
	if (!c || c->used + bytes > c->size - sizeof *c) {
		unsigned size = !c ? CHUNK_MIN : c->size < CHUNK_MAX ? 2u * c->size : CHUNK_MAX;
		ref_t ref;

		while (size - sizeof *c < bytes)
			size *= 2;
		ref = heap_any(&x->heap, size);
		if (c)
			c->next = ref;
		else
			w->first = ref;
		w->last = ref;
		c = heap_at(&x->heap, ref);
		*c = (struct chunk){ .size = (uint16_t)size };
	}
	memcpy(c->data + c->used, posting, bytes);
	c->used = (uint16_t)(c->used + bytes);
	w->file = file;
	w->line = line;
	w->count++;
	x->postings++;
}

/* --------------------------------------------------- what is asked of it */

/* Where a word is, one place after another. Begin with { .chunk = word->first }. */
struct cursor {
	ref_t chunk;
	unsigned offset;
	struct posting at;
};

static bool cursor_next(const struct index *x, struct cursor *c)
{
	const struct chunk *chunk;
	const uint8_t *data;
	uint32_t files, lines;

	if (!c->chunk)
		return false;
	chunk = heap_at(&x->heap, c->chunk);
	data = chunk->data + c->offset;
	files = get_number(&data);
	lines = get_number(&data);
	c->at.line = files ? lines : c->at.line + lines;
	c->at.file += files;
	c->offset = (unsigned)(data - chunk->data);
	if (c->offset == chunk->used) {
		c->chunk = chunk->next;
		c->offset = 0;
	}
	return true;
}

struct answer index_query(const struct index *x, const char *text)
{
	size_t length = strlen(text);
	const struct slot *slot = index_find(x, text, length, hash_of(text, length));
	struct answer a = { 0 };
	const struct word *w;
	struct cursor c;

	if (!slot->word)
		return a;
	w = heap_at(&x->heap, slot->word);
	for (c = (struct cursor){ .chunk = w->first }; cursor_next(x, &c); a.last = c.at) {
		if (!a.count++)
			a.first = c.at;
		a.files += a.files == 0 || c.at.file != a.last.file;
	}
	return a;
}

static uint64_t mix(uint64_t digest, uint64_t value)
{
	digest = (digest ^ value) * 0x9e3779b97f4a7c15u;
	return digest ^ digest >> 29;
}

uint64_t index_digest(const struct index *x)
{
	const struct slot *table = heap_at(&x->heap, x->table);
	uint64_t digest = mix(x->words, x->postings), seen = 0;
	const struct word *w;

	for (size_t i = 0; i < (size_t)1 << x->bits; i++)
		digest = mix(digest, (uint64_t)table[i].hash << 32 | table[i].word);
	for (ref_t ref = x->first; ref; ref = w->next) {
		struct cursor c;

		w = heap_at(&x->heap, ref);
		digest = mix(digest, (uint64_t)w->length << 32 | w->count);
		for (uint32_t i = 0; i < w->length; i++)
			digest = mix(digest, (unsigned char)w->text[i]);
		for (c = (struct cursor){ .chunk = w->first }; cursor_next(x, &c); seen++)
			digest = mix(digest, (uint64_t)c.at.file << 32 | c.at.line);
	}
	return mix(digest, seen);
}
