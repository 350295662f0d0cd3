/* SPDX-License-Identifier: MIT */
/*
 * swapfile/header.c - the header page, byte by byte.
 *
 *   offset  bytes  little endian
 *        0      8  magic
 *        8      4  version
 *       12      4  page size
 *       16     16  UUID
 *       32   4056  zeros
 *     4088      8  checksum of the 4088 bytes before it
 *
 * The contents of a swap file die with the process that wrote them, so the
 * header serves one purpose: that no other file is ever overwritten.
 */
#include "swapfile/header.h"

#include "base/base.h"
#include "swapfile/checksum.h"

#include <string.h>
#include <uuid/uuid.h>

#define MAGIC "QUIRESWP"
#define MAGIC_BYTES 8
#define AT_VERSION 8
#define AT_PAGE_SIZE 12
#define AT_UUID 16
#define AT_SUM (PAGE_BYTES - 8)

static void put(unsigned char *at, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (unsigned char)(value >> 8 * i);
}

static uint64_t get(const unsigned char *at, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)at[i] << 8 * i;
	return value;
}

void header_fill(void *page)
{
	unsigned char *p = page;

	memset(p, 0, PAGE_BYTES);
	memcpy(p, MAGIC, MAGIC_BYTES);
	put(p + AT_VERSION, HEADER_VERSION, 4);
	put(p + AT_PAGE_SIZE, PAGE_BYTES, 4);
	uuid_generate_random(p + AT_UUID);
	put(p + AT_SUM, checksum_bytes(p, AT_SUM), 8);
}

const char *header_fault(const void *page)
{
	const unsigned char *p = page;

	if (memcmp(p, MAGIC, MAGIC_BYTES) != 0)
		return "it is not a swap file of Quire's";
	if (get(p + AT_SUM, 8) != checksum_bytes(p, AT_SUM))
		return "its header is damaged";
	if (get(p + AT_VERSION, 4) != HEADER_VERSION)
		return "it is of another version of Quire";
	if (get(p + AT_PAGE_SIZE, 4) != PAGE_BYTES)
		return "it is of another page size";
	return NULL;
}
