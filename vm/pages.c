/* SPDX-License-Identifier: MIT */
/* vm/pages.c - the bytes of a snapshot's pages. */
#include "vm/snapshot.h"

#include "base/error.h"
#include "vm/lineage.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* So many pages of a reading are worth a request for all of them: one that is shorter is read singly. */
#define ROOM (PAGES_MAX * PAGE_BYTES)

static int read_slots(struct quire *q, slot_t slot, unsigned n, char *bytes, uint64_t *bad)
{
	struct swap_run run = { .op = SWAP_READ,
		                .slot = slot,
		                .count = n,
		                .pages = bits(0, n),
		                .base = bytes };
	int error = readin_here(&q->pager, &run);

	*bad = run.bad ? (unsigned)__builtin_ctzll(run.bad) : 0;
	return error ? error : run.bad ? -EBADMSG : 0;
}

/* => the row of neighbours on the swap file that begins with the first */
static unsigned row_of(const slot_t *slots, unsigned n)
{
	unsigned k = 1;

	while (k < n && slots[0] != SLOT_NONE && slots[k] == slots[0] + k)
		k++;
	return k;
}

/* slots: of those pages whose bytes are on the swap file alone. */
static int read_rows(struct quire *q, const slot_t *slots, unsigned n, char *bytes, uint64_t *bad)
{
	int error = 0;

	for (unsigned i = 0, k; i < n && !error; i += k) {
		k = row_of(&slots[i], n - i);
		if (slots[i] == SLOT_NONE)
			continue;
		error = read_slots(q, slots[i], k, bytes + i * PAGE_BYTES, bad);
		*bad += i;
	}
	return error;
}

int snapshot_pages(struct quire_region *s, uint64_t page, unsigned n, char *bytes, uint64_t *bad)
{
	slot_t slots[PAGES_MAX], held[PAGES_MAX];
	unsigned done = 0;
	int error = 0;

	ASSERT(n >= 1 && n <= PAGES_MAX);
	for (; done < n && !error; done++) {
		struct content c;

		error = lineage_content(s, page + done, bytes + done * PAGE_BYTES, true, &c);
		if (error)
			break;
		slots[done] = c.kind == CONTENT_SLOT ? c.slot : SLOT_NONE;
		held[done] = c.slot;
		if (c.kind == CONTENT_ZEROS)
			memset(bytes + done * PAGE_BYTES, 0, PAGE_BYTES);
	}
	*bad = done;
	if (!error)
		error = read_rows(s->q, slots, n, bytes, bad);
	*bad += page;
	for (unsigned i = 0; i < done; i++)
		if (held[i] != SLOT_NONE)
			swapfile_unref(s->q->swap, held[i]);
	return error;
}

int snapshot_read_failed(struct quire_region *s, uint64_t page, int error)
{
	REGION_COUNT(s, read_errors, 1);
	return error_set(-error, "page %llu of the snapshot cannot be read: %s",
	                 (unsigned long long)page,
	                 error == -EBADMSG ? "it does not match its checksum" : strerror(-error));
}

/* By way of room for that many pages. */
static int read_by(struct quire_region *s, size_t offset, char *buffer, size_t length, char *room,
                   unsigned most)
{
	for (size_t done = 0; done < length;) {
		size_t at = (offset + done) % PAGE_BYTES, left = at + length - done;
		unsigned n = (unsigned)MIN((left + PAGE_BYTES - 1) / PAGE_BYTES, most);
		size_t bytes = MIN(n * PAGE_BYTES - at, length - done);
		struct call call;
		uint64_t bad;
		int error;

		call_enter(&call);
		error = snapshot_pages(s, pages_of(offset + done), n, room, &bad);
		call_leave(&call);
		if (error)
			return snapshot_read_failed(s, bad, error);
		/* The caller's memory may be managed itself: touched with signals let in. */
		memcpy(buffer + done, room + at, bytes);
		done += bytes;
	}
	return 0;
}

int quire_snapshot_read(quire_snapshot_t *snapshot, size_t offset, void *buffer, size_t length)
{
	_Alignas(PAGE_BYTES) char page[PAGE_BYTES];
	struct quire_region *s = snapshot_record(snapshot);
	char *room = MAP_FAILED;
	int error;

	if (!snapshot_is_valid(snapshot))
		return snapshot_invalid(snapshot);
	if (length && !buffer)
		return error_set(EINVAL, "a NULL buffer");
	if (offset > s->bytes || length > s->bytes - offset)
		return error_set(EINVAL, "%zu bytes at %zu: the snapshot has %zu", length, offset,
		                 s->bytes);
	if (length > 2 * PAGE_BYTES)
		room = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (room == MAP_FAILED)
		return read_by(s, offset, buffer, length, page, 1);
	error = read_by(s, offset, buffer, length, room, PAGES_MAX);
	munmap(room, ROOM);
	return error;
}
