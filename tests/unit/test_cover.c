/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_cover.c - what of a region is accessible (vm/cover.c), on the real
 * kernel: with guard pages, where there are any, and without. What is shown is read
 * and written, what is not is asked of the kernel, and mappings are counted in
 * /proc/self/maps.
 */
#define _GNU_SOURCE
#include "base/kernel.h"
#include "tests/unit/unit.h"
#include "vm/cover.h"
#include "vm/vm.h"

#include <errno.h>
#include <sys/uio.h>

#define PAGES (4 * LEAF_ENTRIES)

static struct cover_limits limits;
static struct cover *c;
static struct quire_region region; /* of which take_page wants the cover */
static char *base;
static int fd = -1;

/* => false: no guard pages here */
static bool start(bool guards)
{
	fd = (int)syscall(SYS_memfd_create, "test", 0u);
	REQUIRE(fd >= 0 && ftruncate(fd, PAGES * PAGE_BYTES) == 0);
	cover_limits_open(&limits, fd, guards);
	if (guards && !limits.guards) {
		close(fd);
		return false;
	}
	base = mmap(NULL, PAGES * PAGE_BYTES, PROT_NONE, MAP_SHARED, fd, 0);
	REQUIRE(base != MAP_FAILED);
	REQUIRE_EQ(cover_open(&c, &limits, base, PAGES), 0);
	region = (struct quire_region){ .cover = c, .base = base, .pages = PAGES };
	return true;
}

static void finish(void)
{
	cover_close(c);
	CHECK_EQ(limits.seams, 0);
	cover_limits_close(&limits);
	munmap(base, PAGES * PAGE_BYTES);
	close(fd);
}

#define FOR_BOTH                                                \
	for (int guards_ = 0; guards_ < 2; guards_++, finish()) \
		if (!start(guards_)) {                          \
			printf("no guard pages here\n");        \
			return;                                 \
		} else

static char *at(size_t page)
{
	return base + page * PAGE_BYTES;
}

static bool access_works(size_t page, bool write)
{
	char byte = 0;
	struct iovec local = { &byte, 1 }, remote = { at(page), 1 };
	long n = write ? syscall(SYS_process_vm_writev, getpid(), &local, 1ul, &remote, 1ul, 0ul) :
	                 syscall(SYS_process_vm_readv, getpid(), &local, 1ul, &remote, 1ul, 0ul);

	return n == 1;
}

/* ' ' hidden, 'r' and 'w': what the kernel says of pages [first, first + n) */
static const char *access_of(size_t first, size_t n)
{
	static char text[64];

	for (size_t i = 0; i < n; i++)
		text[i] = access_works(first + i, true)  ? 'w' :
		          access_works(first + i, false) ? 'r' :
		                                           ' ';
	text[n] = 0;
	return text;
}

#define CHECK_ACCESS(first, text) CHECK_STR(access_of(first, strlen(text)), text)

/* Mappings that the range consists of. */
static uint32_t mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long from, to;
	uint32_t n = 0;

	REQUIRE(f != NULL);
	while (fscanf(f, "%lx-%lx%*[^\n]", &from, &to) == 2)
		n += from < (unsigned long)base + PAGES * PAGE_BYTES && to > (unsigned long)base;
	fclose(f);
	return n;
}

/* The ends of the range may be seams as well, or not. */
static void check_seams(void)
{
	uint32_t there = mappings();

	CHECK(limits.seams + 1 >= there);
	CHECK(limits.seams <= there + 1);
}

static void hide(size_t page, unsigned n)
{
	struct take_page t[64];

	for (unsigned i = 0; i < n; i++)
		t[i] = (struct take_page){ .region = &region, .page = at(page + i) };
	cover_take(&limits, t, n);
	for (unsigned i = 0; i < n; i++)
		CHECK_EQ(t[i].result, TAKE_DONE);
}

static void shown_and_hidden(void)
{
	FOR_BOTH
	{
		bool dirty;

		CHECK_ACCESS(0, "    ");
		CHECK_EQ(cover_show(c, at(1), 2, true), 2);
		CHECK_ACCESS(0, " ww ");
		CHECK_EQ(cover_show(c, at(4), 1, false), 1);
		CHECK_ACCESS(0, " ww r ");
		CHECK(cover_is_shown(c, at(4), &dirty) && !dirty);
		CHECK(cover_is_shown(c, at(1), &dirty) && dirty);
		CHECK(!cover_is_shown(c, at(3), &dirty));
		CHECK_EQ(cover_dirty(c, at(4), 1), 1);
		CHECK_ACCESS(0, " ww w ");
		hide(1, 1);
		CHECK_ACCESS(0, "  w w ");
		CHECK_EQ(cover_hide(c, at(2), 1), 0);
		CHECK_ACCESS(0, "    w ");
		/* Another leaf, and one that nobody has touched. */
		CHECK_EQ(cover_show(c, at(2 * LEAF_ENTRIES - 1), 2, false), 2);
		CHECK_ACCESS(2 * LEAF_ENTRIES - 2, " rr ");
		CHECK_ACCESS(3 * LEAF_ENTRIES, "  ");
		check_seams();
	}
}

/* The bytes are the file's: they stay when a page is hidden and shown again. */
static void bytes_stay(void)
{
	FOR_BOTH
	{
		CHECK_EQ(cover_show(c, at(3), 1, true), 1);
		memset(at(3), 7, PAGE_BYTES);
		hide(3, 1);
		CHECK_EQ(cover_show(c, at(3), 1, false), 1);
		CHECK_EQ(at(3)[PAGE_BYTES - 1], 7);
	}
}

/* Scattered pages, by one call where the kernel can; a gap stays as it is. */
static void scattered(void)
{
	FOR_BOTH
	{
		struct take_page t[6];

		for (unsigned i = 0; i < 12; i++)
			CHECK_EQ(cover_show(c, at(i), 1, i % 3 != 0), 1);
		for (unsigned i = 0; i < 6; i++)
			t[i] = (struct take_page){ .region = &region, .page = at(2 * i) };
		cover_take(&limits, t, 6);
		CHECK_ACCESS(0, " w r w w r w");
		check_seams();
	}
}

/* What is hidden goes along: all clean is one mapping, however it was before. */
static void wildcards(void)
{
	if (!start(true)) {
		printf("no guard pages here\n");
		return;
	}
	for (size_t page = 0; page < LEAF_ENTRIES; page += 2)
		CHECK_EQ(cover_show(c, at(page), 1, true), 1);
	CHECK_EQ(limits.seams, 2);
	for (size_t page = 0; page < LEAF_ENTRIES; page += 2)
		hide(page, 1);
	for (size_t page = 0; page < LEAF_ENTRIES; page += 3)
		CHECK_EQ(cover_show(c, at(page), 1, false), 1);
	CHECK_EQ(limits.seams, 2);
	CHECK_EQ(mappings(), 2);
	/* One that is written is three; its end makes it one again when all others are. */
	CHECK_EQ(cover_dirty(c, at(30), 1), 1);
	CHECK_EQ(limits.seams, 4);
	for (size_t page = 0; page < LEAF_ENTRIES; page += 3)
		if (page != 30)
			CHECK_EQ(cover_dirty(c, at(page), 1), 1);
	CHECK_EQ(limits.seams, 2);
	CHECK_EQ(mappings(), 2);
	CHECK_ACCESS(0, "w  w  w");
	finish();
}

/* No more seams than allowed; with pages hidden there is room again. */
static void crowded(void)
{
	FOR_BOTH
	{
		uint32_t clean = 0, dirty = 0;
		int n;

		limits.seams_max = 40;
		for (size_t page = 0;; page += 2) {
			n = cover_show(c, at(page), 1, page % 4 == 0);
			if (n < 0)
				break;
			*(page % 4 == 0 ? &dirty : &clean) += 1;
		}
		CHECK_EQ(n, -ENGINE_CROWDED);
		CHECK(clean + dirty >= 15);
		CHECK(limits.seams <= 40);
		check_seams();
		/* Nothing half done. */
		CHECK_ACCESS(0, "w r w r w ");
		n = cover_dirty(c, at(2), 1);
		CHECK(n == 1 || n == -ENGINE_CROWDED);
		CHECK_STR(access_of(2, 1), n == 1 ? "w" : "r");
		for (size_t page = 0; page < 2 * (clean + dirty); page += 4)
			hide(page, 1);
		CHECK(limits.seams < 35);
		check_seams();
		CHECK_EQ(cover_show(c, at(PAGES - 10), 1, true), 1);
	}
}

/* Take all mappings that the kernel allows, but spare. => what to unmap */
static char *take_mappings(size_t *length)
{
	size_t pages = 400000;
	char *p = mmap(NULL, pages * PAGE_BYTES, PROT_NONE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	REQUIRE(p != MAP_FAILED);
	for (size_t i = 1; i < pages; i += 2) {
		if (mprotect(p + i * PAGE_BYTES, PAGE_BYTES, PROT_READ) != 0) {
			*length = pages * PAGE_BYTES;
			return p;
		}
	}
	munmap(p, pages * PAGE_BYTES);
	return NULL;
}

/*
 * The program has parted the mapping where we know of no seam, and the kernel refuses to
 * part it once more: it changes one mapping of two, and fails. What is said of the pages
 * has to be true all the same, then and later.
 */
static void half_done(void)
{
	FOR_BOTH
	{
		size_t length;
		char *taken;
		int done;

		CHECK_EQ(cover_show(c, at(0), 8, false), 8);
		CHECK_EQ(cover_show(c, at(300), 1, false), 1);
		REQUIRE_EQ(kernel_madvise(at(2), 298 * PAGE_BYTES, MADV_DONTDUMP), 0);
		taken = take_mappings(&length);
		if (!taken) {
			printf("more mappings are allowed than can be taken\n");
			continue;
		}
		done = cover_dirty(c, at(0), 4);
		for (int i = 0; i < 8; i++)
			CHECK_STR(access_of((size_t)i, 1), i < done ? "w" : "r");
		munmap(taken, length);
		CHECK_EQ(cover_show(c, at(50), 2, false), 2);
		CHECK_ACCESS(49, " rr ");
		CHECK_EQ(cover_show(c, at(60), 2, true), 2);
		CHECK_EQ(cover_dirty(c, at(4), 1), 1);
		CHECK_STR(access_of(4, 2), "wr");
		CHECK_STR(access_of(60, 2), "ww");
		CHECK_STR(access_of(50, 1), "r");
	}
}

static void fixed(void)
{
	FOR_BOTH
	{
		CHECK_EQ(cover_show(c, at(0), 4, true), 4);
		CHECK_EQ(cover_protect(c, at(1), 2, true), 0);
		CHECK_ACCESS(0, "wrrw");
		CHECK(cover_is_fixed(c, at(1)));
		CHECK(!cover_is_fixed(c, at(0)));
		hide(2, 1);
		CHECK_EQ(cover_show(c, at(2), 1, true), 1);
		CHECK_ACCESS(0, "wrrw");
		CHECK_EQ(cover_dirty(c, at(0), 4), 4);
		CHECK_ACCESS(0, "wrrw");
		/* Pages that are not there yet, of a leaf that is and one that is not. */
		CHECK_EQ(cover_protect(c, at(LEAF_ENTRIES - 2), 4, true), 0);
		CHECK_EQ(cover_show(c, at(LEAF_ENTRIES - 3), 6, true), 6);
		CHECK_ACCESS(LEAF_ENTRIES - 3, "wrrrrw");
		CHECK_EQ(cover_protect(c, at(0), PAGES, false), 0);
		CHECK_EQ(cover_dirty(c, at(1), 1), 1);
		CHECK_ACCESS(0, "ww");
		CHECK(!cover_is_fixed(c, at(2)));
		check_seams();
	}
}

/* All that is shown becomes read-only, what is hidden stays so, and what is beside it as it was. */
static void cleaned(void)
{
	FOR_BOTH
	{
		CHECK_EQ(cover_show(c, at(0), 3, true), 3);
		CHECK_EQ(cover_show(c, at(4), 2, false), 2);
		CHECK_EQ(cover_show(c, at(7), 2, true), 2);
		CHECK_EQ(cover_show(c, at(LEAF_ENTRIES + 5), 2, true), 2);
		CHECK_EQ(cover_clean(c, at(1), 7), 0);
		CHECK_ACCESS(0, "wrr rr rw ");
		CHECK_ACCESS(LEAF_ENTRIES + 5, "ww");
		CHECK_EQ(cover_clean(c, at(0), PAGES), 0);
		CHECK_ACCESS(0, "rrr rr rr ");
		CHECK_ACCESS(LEAF_ENTRIES + 4, " rr ");
		CHECK_EQ(cover_dirty(c, at(2), 1), 1);
		CHECK_ACCESS(0, "rrw rr rr ");
		/* What the program made read-only does not become writable by the way. */
		CHECK_EQ(cover_protect(c, at(2), 1, true), 0);
		CHECK_EQ(cover_clean(c, at(2), 1), 0);
		CHECK_EQ(cover_protect(c, at(2), 1, false), 0);
		CHECK_ACCESS(0, "rrr rr rr ");
		check_seams();
	}
}

/* Locked memory takes no guard pages: the lock goes. */
static void locked(void)
{
	FOR_BOTH
	{
		CHECK_EQ(cover_show(c, at(5), 2, true), 2);
		if (mlock(at(5), PAGE_BYTES) != 0) {
			printf("mlock is not permitted here\n");
			continue;
		}
		hide(5, 1);
		CHECK_ACCESS(5, " w");
		CHECK_EQ(cover_show(c, at(5), 1, false), 1);
		CHECK_ACCESS(5, "rw");
	}
}

/* Any order of all of it: each page is as the records of the test say. */
static void random_walk(void)
{
	static char wants[PAGES];
	static bool read_only[PAGES];

	unit_seed();
	FOR_BOTH
	{
		uint32_t beyond = 0; /* the limit: by the ends of what was made read-only at once */

		memset(wants, ' ', sizeof wants);
		memset(read_only, 0, sizeof read_only);
		if (unit_below(2))
			limits.seams_max = 60;
		for (int i = 0; i < 6000; i++) {
			size_t page = unit_below(PAGES), n = 1 + unit_below(8), k = 0;
			bool dirty = unit_below(2);

			while (k < n && page + k < PAGES && wants[page + k] == wants[page])
				k++;
			if (unit_below(40) == 0) {
				bool ro = unit_below(2);

				if (cover_protect(c, at(page), k, ro) == 0)
					memset(&read_only[page], ro, k);
			} else if (unit_below(40) == 0) {
				size_t much = 1 + unit_below(PAGES - page);

				CHECK_EQ(cover_clean(c, at(page), much), 0);
				beyond += 2;
				for (size_t j = page; j < page + much; j++)
					wants[j] = wants[j] == 'w' ? 'r' : wants[j];
			} else if (wants[page] == ' ') {
				int done = cover_show(c, at(page), (unsigned)k, dirty);

				for (int j = 0; j < done; j++)
					wants[page + (size_t)j] = dirty ? 'w' : 'r';
			} else if (wants[page] == 'r' && dirty) {
				int done = cover_dirty(c, at(page), (unsigned)k);

				for (int j = 0; j < done; j++)
					wants[page + (size_t)j] = 'w';
			} else {
				hide(page, (unsigned)k);
				memset(&wants[page], ' ', k);
			}
			CHECK(limits.seams <= limits.seams_max + beyond || !limits.guards);
			if (i % 1000)
				continue;
			for (size_t p = 0; p < PAGES; p++) {
				char is = *access_of(p, 1);
				char want = read_only[p] && wants[p] == 'w' ? 'r' : wants[p];

				/* One that may be written again is so after the next write's fault. */
				if (is != want && !(is == 'r' && want == 'w')) {
					printf("page %zu: '%c', not '%c'\n", p, is, want);
					REQUIRE(!"a page's access");
				}
			}
			check_seams();
		}
	}
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(shown_and_hidden), UNIT(bytes_stay), UNIT(scattered), UNIT(wildcards),
		UNIT(crowded),          UNIT(half_done),  UNIT(fixed),     UNIT(cleaned),
		UNIT(random_walk),      UNIT(locked),     UNIT_END
	};

	if (unit_valgrind())
		unit_skip_all("valgrind has no guard pages");
	return unit_main(argc, argv, "cover", tests);
}
