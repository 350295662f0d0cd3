/* SPDX-License-Identifier: MIT */
/*
 * tests/fuzz/repair.h - make the checksums of a tampered image right again, as
 * far as it can be followed: so that what is behind them is met.
 */
#ifndef QUIRE_TESTS_FUZZ_REPAIR_H
#define QUIRE_TESTS_FUZZ_REPAIR_H

#include "image/format.h"

#include <string.h>

/* Offsets in the header; docs/IMAGE-FORMAT.md. */
enum repair_field {
	AT_VERSION = 8,
	AT_PAGE_SIZE = 12,
	AT_FLAGS = 16,
	AT_FLAGS_AFTER = 20,
	AT_UUID = 24,
	AT_BASE = 40,
	AT_MEMORY = 56,
	AT_STORED = 64,
	AT_COMPRESSED = 72,
	AT_ZEROS = 80,
	AT_DATA = 88,
	AT_LEAVES = 96,
	AT_ROOT = 104,
	AT_ROOT_BYTES = 112,
	AT_ROOT_SUM = 120,
	AT_FILE = 136,
	AT_NAME = 144,
	AT_REST = 176,
	AT_SUM = 4088,
};

static inline void repair_header(unsigned char *file, size_t size)
{
	if (size >= FORMAT_HEADER_BYTES)
		format_put64(file + AT_SUM, format_sum(file, AT_SUM));
}

static inline void repair_all(unsigned char *file, size_t size)
{
	uint64_t root, entries;

	if (size < FORMAT_HEADER_BYTES)
		return;
	root = format_get64(file + AT_ROOT);
	entries = format_get64(file + AT_LEAVES);
	if (root <= size && entries <= (size - root) / FORMAT_ROOT_ENTRY_BYTES) {
		for (uint64_t i = 0; i < entries; i++) {
			struct format_root_entry e = format_get_root(file + root, i);

			if (size < FORMAT_BLOCK_BYTES || e.offset > size - FORMAT_BLOCK_BYTES)
				continue;
			e.sum = format_sum(file + e.offset, FORMAT_BLOCK_BYTES);
			format_put_root(file + root, i, &e);
		}
		format_put64(file + AT_ROOT_SUM,
		             format_sum(file + root, entries * FORMAT_ROOT_ENTRY_BYTES));
	}
	repair_header(file, size);
}

#endif
