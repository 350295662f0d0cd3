/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/corrupt.c - the swap file is changed behind Quire's back:
 * an access to what was damaged gets SIGBUS at its address, and never other
 * bytes; everything else is served as before.
 *
 * The program finds a page's slot in the named swap file by its content.
 *
 * test: matrix
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGES ((size_t)1024)
#define BUDGET (64 * PAGE)
#define VICTIM ((size_t)300)

static struct errors errors;
static quire_t *q;
static quire_region_t *r;
static int file;

/* Every page written, and pages up to PAGES - 64 certainly on the file. */
static void setup(void)
{
	const char *path = path_in(temporary_directory(), "named");
	struct quire_options o = { .size = sizeof o,
		                   .memory = BUDGET,
		                   .swap_path = path,
		                   .readahead = 16 * PAGE,
		                   .on_error = errors_count,
		                   .on_error_arg = &errors };

	unlink(path);
	memset(&errors, 0, sizeof errors);
	q = pager_open_options(&o);
	r = region_create(q, PAGES * PAGE);
	fill(r, 0, PAGES, 1);
	file = open(path, O_RDWR | O_CLOEXEC);
	MUST(file >= 0);
}

static void teardown(void)
{
	close(file);
	CHECK_EQ(quire_close(q), 0);
}

/* Where the file holds a page as of version; -1: nowhere. Of several, the last one. */
static off_t slot_of(size_t page, unsigned version)
{
	static uint64_t buffer[PAGE / 8];
	struct stat st;
	off_t found = -1;

	MUST(fstat(file, &st) == 0);
	for (off_t at = 0; at + (off_t)PAGE <= st.st_size; at += PAGE) {
		MUST(pread(file, buffer, PAGE, at) == (ssize_t)PAGE);
		if (!wrong_page(buffer, page, version))
			found = at;
	}
	return found;
}

static void damage(off_t at, size_t length)
{
	static const char bytes[PAGE] = "not what was there";

	MUST(at >= 0 && pwrite(file, bytes, length, at) == (ssize_t)length);
	MUST(fsync(file) == 0);
}

static void is_sigbus(struct caught c, const void *address)
{
	CHECK_EQ(c.signal, SIGBUS);
	CHECK(c.address == address);
	if (c.address != address)
		printf("signal at %p, the access was at %p\n", c.address, address);
}

/* Accesses to the page fail, others do not. */
static void only_lost(size_t page)
{
	for (int i = 0; i < 2; i++) {
		const uint64_t *at = (uint64_t *)page_at(r, page) + 5 + 300 * i;

		is_sigbus(try_load(at), at);
		is_sigbus(try_store((void *)(at + 1), 7), at + 1);
	}
	CHECK_EQ(wrong(r, page - 1, 1, 1), 0);
	CHECK_EQ(wrong(r, page + 1, 1, 1), 0);
	is_sigbus(try_load(page_at(r, page)), page_at(r, page));
}

static void overwritten_slot(void)
{
	unsigned told;

	setup();
	damage(slot_of(VICTIM, 1) + 512, 32);
	only_lost(VICTIM);
	told = errors.count;
	CHECK(told > 0);
	if (errors.last.kind != QUIRE_ERROR_CHECKSUM)
		printf("told: kind %d, %s, error %d\n", errors.last.kind, errors.last.message,
		       errors.last.error);
	CHECK_EQ(errors.kinds[QUIRE_ERROR_CHECKSUM], told);
	CHECK(errors.last.region == r);
	CHECK_EQ(errors.last.offset, VICTIM * PAGE);
	CHECK(errors.last.message && errors.last.message[0]);
	CHECK(pager_stats(q).read_errors > 0);
	/* The rest of the region. */
	CHECK_EQ(wrong(r, 0, VICTIM, 1), 0);
	CHECK_EQ(wrong(r, VICTIM + 1, PAGES - VICTIM - 1, 1), 0);
	only_lost(VICTIM);
	CHECK_EQ(quire_pin(r, VICTIM * PAGE, PAGE), -EIO);
	CHECK_EQ(quire_pin(r, (VICTIM - 2) * PAGE, 4 * PAGE), -EIO);
	CHECK_EQ(pager_stats(q).pinned, 0);
	/* Given up, the page can be used again. */
	CHECK_EQ(quire_advise(r, VICTIM * PAGE, PAGE, QUIRE_ADVISE_DONTNEED), 0);
	CHECK_EQ(nonzero(r, VICTIM, 1), 0);
	fill(r, VICTIM, 1, 1);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	CHECK_EQ(wrong(r, 0, PAGES, 1), 0);
	teardown();
}

/* One bit, in the last byte. */
static void one_bit(void)
{
	unsigned char byte;
	off_t at;

	setup();
	at = slot_of(VICTIM, 1) + (off_t)PAGE - 1;
	MUST(at >= (off_t)PAGE - 1 && pread(file, &byte, 1, at) == 1);
	byte ^= 0x10;
	MUST(pwrite(file, &byte, 1, at) == 1 && fsync(file) == 0);
	only_lost(VICTIM);
	teardown();
}

/* A good page of Quire's, in the wrong place. */
static void misplaced_slot(void)
{
	static char other[PAGE];
	off_t from, to;

	setup();
	from = slot_of(VICTIM + 40, 1);
	to = slot_of(VICTIM, 1);
	MUST(from >= 0 && to >= 0 && from != to);
	MUST(pread(file, other, PAGE, from) == (ssize_t)PAGE);
	MUST(pwrite(file, other, PAGE, to) == (ssize_t)PAGE && fsync(file) == 0);
	only_lost(VICTIM);
	teardown();
}

/* What the page held before: a write that the disk has lost. */
static void stale_slot(void)
{
	static char old[PAGE];
	off_t at;

	setup();
	at = slot_of(VICTIM, 1);
	MUST(at >= 0 && pread(file, old, PAGE, at) == (ssize_t)PAGE);
	fill(r, VICTIM, 1, 2);
	CHECK_EQ(wrong(r, 0, VICTIM, 1), 0); /* out it goes */
	CHECK_EQ(wrong(r, VICTIM + 1, PAGES - VICTIM - 1, 1), 0);
	at = slot_of(VICTIM, 2);
	MUST(at >= 0 && pwrite(file, old, PAGE, at) == (ssize_t)PAGE && fsync(file) == 0);
	only_lost(VICTIM);
	teardown();
}

/* A scan with readahead meets the damage at its own page only. */
static void scan_over_damage(void)
{
	static const size_t lost[] = { 100, 101, 333, 500 };
	size_t next = 0;

	setup();
	for (size_t i = 0; i < 4; i++)
		damage(slot_of(lost[i], 1), PAGE);
	CHECK_EQ(quire_advise(r, 0, PAGES * PAGE, QUIRE_ADVISE_SEQUENTIAL), 0);
	for (size_t p = 0; p < PAGES - 64; p++) {
		struct caught c = try_load(page_at(r, p));

		if (next < 4 && p == lost[next]) {
			is_sigbus(c, page_at(r, p));
			next++;
			continue;
		}
		CHECK_EQ(c.signal, 0);
		if (c.signal == 0)
			CHECK_EQ(wrong(r, p, 1, 1), 0);
	}
	CHECK_EQ(next, 4);
	teardown();
}

/* WILLNEED over damage harms nobody. */
static void willneed_over_damage(void)
{
	setup();
	damage(slot_of(VICTIM, 1), PAGE);
	CHECK_EQ(quire_advise(r, (VICTIM - 8) * PAGE, 16 * PAGE, QUIRE_ADVISE_WILLNEED), 0);
	sleep_seconds(0.05);
	only_lost(VICTIM);
	CHECK_EQ(wrong(r, VICTIM - 8, 8, 1), 0);
	CHECK_EQ(wrong(r, VICTIM + 1, 8, 1), 0);
	teardown();
}

static void truncated_file(void)
{
	size_t failed = 0, served = 0;
	off_t at;

	setup();
	at = slot_of(VICTIM, 1);
	MUST(at > 0 && ftruncate(file, at) == 0);
	for (size_t p = 0; p < PAGES; p++) {
		struct caught c = try_load((uint64_t *)page_at(r, p) + 9);

		if (c.signal) {
			is_sigbus(c, (uint64_t *)page_at(r, p) + 9);
			failed++;
		} else if (p != VICTIM) {
			CHECK_EQ(c.value, word(p, 9, 1));
			served++;
		} else {
			CHECK(!"the page was cut off");
		}
	}
	CHECK(failed > 100); /* what followed it in the file */
	CHECK(served >= 32); /* what came before, and what is in memory */
	CHECK(errors.count > 0);
	teardown();
}

static void truncated_to_nothing(void)
{
	size_t failed = 0;

	setup();
	MUST(ftruncate(file, 0) == 0);
	for (size_t p = 0; p < PAGES; p++) {
		struct caught c = try_load((uint64_t *)page_at(r, p) + 9);

		if (c.signal)
			failed++;
		else
			CHECK_EQ(c.value, word(p, 9, 1));
	}
	CHECK(failed >= PAGES - 2 * 64);
	CHECK(errors.kinds[QUIRE_ERROR_READ] + errors.kinds[QUIRE_ERROR_CHECKSUM] > 0);
	/* Discarded, the memory works again: the file grows as before. */
	CHECK_EQ(quire_advise(r, 0, PAGES * PAGE, QUIRE_ADVISE_DONTNEED), 0);
	fill(r, 0, PAGES, 3);
	CHECK_EQ(wrong(r, 0, PAGES, 3), 0);
	teardown();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(overwritten_slot),
		                                  UNIT(one_bit),
		                                  UNIT(misplaced_slot),
		                                  UNIT(stale_slot),
		                                  UNIT(scan_over_damage),
		                                  UNIT(willneed_over_damage),
		                                  UNIT(truncated_file),
		                                  UNIT(truncated_to_nothing),
		                                  UNIT_END };

	catch_install();
	return unit_main(argc, argv, "corrupt", tests);
}
