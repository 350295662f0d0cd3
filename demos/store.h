/* SPDX-License-Identifier: MIT */
/*
 * demos/store.h - a small key-value store that is one flat range of memory.
 *
 * All of it is in there, and says where things are by offsets: the range can be copied, saved,
 * and read again anywhere. The memory is the caller's: the code does not know whether it is
 * plain or a region of Quire. For one writer at a time.
 *
 *     | header | table of slots | records: 64 bytes, 128, ... 1024 | never used |
 */
#ifndef QUIRE_DEMO_STORE_H
#define QUIRE_DEMO_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_UNIT 64u    /* records are so many of these */
#define STORE_CLASSES 16u /* at most */
#define STORE_ENTRY 1016u /* bytes that a key and its value may have together */
#define STORE_PAGE 4096u

/* At its beginning, in a page of its own. */
struct store {
	char magic[8];
	uint64_t bytes;                   /* of all of it */
	uint64_t sequence;                /* operations that were done: of which state is this? */
	uint64_t count;                   /* keys */
	uint64_t used;                    /* bytes; what lies above was never touched: zeros */
	uint32_t bits;                    /* the table has 1 << bits slots */
	uint32_t free[STORE_CLASSES + 1]; /* records of each size, as chains; 0: none */
};

/* memory: page-aligned zeros. keys: how many there will be at most. */
struct store *store_init(void *memory, size_t bytes, uint64_t keys);

/* What was found in a file: is it a store of so many bytes, and its parts where they must be? */
const struct store *store_open(const void *memory, size_t bytes);

/*
 * Each of the two counts as an operation, also one that finds nothing. Leaves the program if the
 * store is full.
 */
void store_put(struct store *s, const char *key, size_t length, const char *value, size_t bytes);
void store_delete(struct store *s, const char *key, size_t length);

/* NULL: it has no such key */
const char *store_get(const struct store *s, const char *key, size_t length, size_t *bytes);

#endif
