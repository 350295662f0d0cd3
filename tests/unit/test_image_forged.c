/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_image_forged.c - images whose checksums are right and whose
 * numbers are made up: each is refused for the reason that it should be.
 */
#include "tests/fuzz/repair.h"
#include "tests/unit/image_fixture.h"

#include <errno.h>

static struct model model;
static unsigned char *good;
static size_t size;

static void make(void)
{
	if (!good)
		good = sample(&model, &size);
}

static int check_bytes(const unsigned char *bytes, size_t length)
{
	file_store(image_path("tried"), bytes, length);
	return image_check(&model, image_path("tried"));
}

struct change {
	unsigned at;
	uint64_t value;
};

static void change(unsigned char *bytes, const struct change *c)
{
	unsigned length = c->at >= AT_NAME ? 1 : c->at < AT_UUID ? 4 : 8;

	for (unsigned i = 0; i < length; i++)
		bytes[c->at + i] = (unsigned char)(c->value >> 8 * i);
}

/*
 * Numbers of the header are changed, and the checksum is right. There are 300
 * pages, 3 stored, 2 of them compressed, 2 of zeros, in two leaves.
 */
static void made_up_headers(void)
{
	static const struct {
		struct change changes[3];
		int error;
		const char *words;
	} tries[] = {
		{ { { AT_VERSION, 2 } }, -ENOTSUP, "of version 2" },
		{ { { AT_PAGE_SIZE, 16384 } }, -ENOTSUP, "pages of 16384 bytes" },
		{ { { AT_FLAGS, 1 } }, -ENOTSUP, "flags (0x1)" },
		{ { { AT_FLAGS_AFTER, 1 } }, -EBADMSG, "nothing is defined" },
		{ { { AT_REST, 1 } }, -EBADMSG, "nothing is defined" },
		{ { { AT_SUM - 1, 1 } }, -EBADMSG, "nothing is defined" },
		{ { { AT_NAME + 31, 'x' } }, -EBADMSG, "behind the end of the name" },
		{ { { AT_UUID, 0 }, { AT_UUID + 8, 0 } }, -EBADMSG, "no UUID" },
		{ { { AT_BASE, UINT64_C(0x0707070707070707) },
		    { AT_BASE + 8, UINT64_C(0x0707070707070707) } },
		  -EBADMSG,
		  "its own base" },
		{ { { AT_BASE, 0 }, { AT_BASE + 8, 0 } }, -EBADMSG, "header: zeros are recorded" },
		{ { { AT_MEMORY, IMAGE_BYTES_MAX + 4096 } }, -EFBIG, "is the most" },
		{ { { AT_MEMORY, UINT64_MAX - 4095 } }, -EFBIG, "is the most" },
		{ { { AT_MEMORY, 0 } }, -EBADMSG, "whole pages" },
		{ { { AT_MEMORY, 300 * 4096 + 1 } }, -EBADMSG, "whole pages" },
		{ { { AT_MEMORY, 4096 } }, -EBADMSG, "numbers of pages" },
		{ { { AT_MEMORY, 256 * 4096 } }, -EBADMSG, "number of leaves" },
		{ { { AT_MEMORY, 299 * 4096 } }, -EBADMSG, "beyond the end of the memory" },
		{ { { AT_STORED, 301 }, { AT_COMPRESSED, 300 } }, -EBADMSG, "numbers of pages" },
		{ { { AT_STORED, 299 } }, -EBADMSG, "numbers of pages" },
		{ { { AT_COMPRESSED, 4 } }, -EBADMSG, "numbers of pages" },
		{ { { AT_ZEROS, 298 } }, -EBADMSG, "numbers of pages" },
		{ { { AT_ZEROS, UINT64_MAX - 1 } }, -EBADMSG, "numbers of pages" },
		{ { { AT_ZEROS, 1 } }, -EBADMSG, "the header counts" },
		{ { { AT_COMPRESSED, 3 } }, -EBADMSG, "the header counts" },
		{ { { AT_STORED, 4 }, { AT_COMPRESSED, 3 } }, -EBADMSG, "the header counts" },
		{ { { AT_STORED, 1 }, { AT_COMPRESSED, 0 }, { AT_ZEROS, 0 } },
		  -EBADMSG,
		  "number of leaves" },
		{ { { AT_LEAVES, 0 } }, -EBADMSG, "number of leaves" },
		{ { { AT_LEAVES, 3 } }, -EBADMSG, "number of leaves" },
		{ { { AT_LEAVES, UINT64_MAX } }, -EBADMSG, "number of leaves" },
		{ { { AT_DATA, 4097 } }, -EBADMSG, "bytes of data" },
		{ { { AT_DATA, 4096 + 2 * 3584 + 1 } }, -EBADMSG, "bytes of data" },
		{ { { AT_DATA, 4098 } }, -EBADMSG, "root is not where" },
		{ { { AT_ROOT, 4096 } }, -EBADMSG, "root is not where" },
		{ { { AT_ROOT_BYTES, 24 } }, -EBADMSG, "root is not where" },
		{ { { AT_ROOT_SUM, 0 } }, -EBADMSG, "root's checksum" },
		{ { { AT_FILE, UINT64_MAX } }, -EBADMSG, "length of the file" },
	};
	unsigned char *bytes;

	make();
	bytes = malloc(size);
	for (unsigned i = 0; i < ARRAY_LENGTH(tries); i++) {
		memcpy(bytes, good, size);
		for (unsigned j = 0; j < 3 && tries[i].changes[j].at; j++)
			change(bytes, &tries[i].changes[j]);
		repair_header(bytes, size);
		CHECK_EQ(check_bytes(bytes, size), tries[i].error);
		if (!said(tries[i].words))
			CHECK(!"the words");
	}
	free(bytes);
}

/* The same of a word of the root or an index block: entry and word; all checksums are right. */
static void made_up_indexes(void)
{
	static const struct {
		bool root;
		unsigned entry, word;
		uint64_t add;
		const char *words;
	} tries[] = {
		{ true, 0, 0, 1, "not beyond the one before" },
		{ true, 1, 0, 1, "beyond the end of the memory" },
		{ true, 1, 0, UINT64_MAX, "not beyond the one before" },
		{ true, 0, 1, 8192, "offset of its index block" },
		{ true, 0, 1, 1, "not where the data before it ends" },
		{ true, 1, 1, 1, "does not end where the root begins" },
		{ true, 1, 1, UINT64_C(1) << 40, "offset of its index block" },
		{ false, 0, 1, 1, "no data, and yet" },
		{ false, 0, 0, 5, "no data, and yet" },
		{ false, 5, 1, 1, "no data, and yet" },
		{ false, 6, 0, 1, "not where the data before it ends" },
		{ false, 6, 0, UINT64_MAX, "not where the data before it ends" },
		{ false, 6, 0, UINT64_C(1) << 48, "not where the data before it ends" },
		{ false, 7, 0, UINT64_MAX << 48, "cannot be" },
		{ false, 7, 0, UINT64_C(1) << 48, "cannot be" },
		{ false, 0, 0, UINT64_C(0xffff) << 48, "the header counts" },
		{ false, 6, 1, 1, "page 6" },
	};
	unsigned char *bytes;
	uint64_t root;

	make();
	bytes = malloc(size);
	root = format_get64(good + AT_ROOT);
	for (unsigned i = 0; i < ARRAY_LENGTH(tries); i++) {
		uint64_t at = tries[i].root ? root + tries[i].entry * FORMAT_ROOT_ENTRY_BYTES :
		                              format_get_root(good + root, 0).offset +
		                                      tries[i].entry * FORMAT_ENTRY_BYTES;

		memcpy(bytes, good, size);
		at += tries[i].word * 8;
		format_put64(bytes + at, format_get64(bytes + at) + tries[i].add);
		repair_all(bytes, size);
		CHECK_EQ(check_bytes(bytes, size), -EBADMSG);
		if (!said(tries[i].words))
			CHECK(!"the words");
	}
	free(bytes);
}

/* Write m, replace entry i of the block of its leaf number slot, and see what is said of that. */
static bool refuses_entry(const struct model *m, unsigned char base, unsigned slot, unsigned i,
                          const struct format_entry *e, const char *words)
{
	struct image_description d = describe(m->pages, 7, base);
	unsigned char *bytes;
	struct image im;
	size_t length;
	uint64_t root;
	bool is;

	REQUIRE_EQ(model_write(m, image_path("entry"), &d), 0);
	bytes = file_load(image_path("entry"), &length);
	root = format_get64(bytes + AT_ROOT);
	format_put_entry(bytes + format_get_root(bytes + root, slot).offset, i, e);
	repair_all(bytes, length);
	file_store(image_path("entry"), bytes, length);
	free(bytes);
	REQUIRE_EQ(image_open(&im, image_path("entry")), 0);
	is = image_kind(&im, slot * IMAGE_LEAF_PAGES) == -EBADMSG &&
	     image_verify(&im, NULL, NULL) == -EBADMSG && said(words);
	image_close(&im);
	return is;
}

static void made_up_leaves(void)
{
	static const struct format_entry nothing, zeros = { .kind = IMAGE_ZEROS };
	static struct model m = { .pages = 300 };

	m.content[0] = TEXT;
	CHECK(refuses_entry(&m, 0, 0, 1, &zeros, "zeros are recorded, in a full image"));
	CHECK(refuses_entry(&m, 3, 0, 0, &nothing, "does not end where the index block begins"));
	m.content[299] = ZEROS;
	CHECK(refuses_entry(&m, 3, 1, 299 - 256, &nothing, "nothing is recorded in its leaf"));
	CHECK(refuses_entry(&m, 3, 1, 300 - 256, &zeros, "beyond the end of the memory"));
}

/* A block of LZ4 that ends too early must not pass for what the buffer had in it before. */
static void short_block(void)
{
	unsigned char page[PAGE_BYTES], *bytes, *data;
	struct format_entry e;
	struct image im;

	make();
	bytes = malloc(size);
	memcpy(bytes, good, size);
	data = bytes + FORMAT_HEADER_BYTES;
	e = format_get_entry(
		bytes + format_get_root(bytes + format_get64(bytes + AT_ROOT), 0).offset, 6);
	REQUIRE(e.length > 17 && e.length < 17 + 255);
	page_fill(page, model.content[6], model.seed[6]);
	/* Literals only: 15 and the next byte's, and no match. */
	data[0] = 0xf0;
	data[1] = (unsigned char)(e.length - 2 - 15);
	memcpy(data + 2, page, e.length - 2);
	file_store(image_path("short"), bytes, size);
	free(bytes);
	REQUIRE_EQ(image_open(&im, image_path("short")), 0);
	CHECK_EQ(image_read_page(&im, 6, page), -EBADMSG);
	image_close(&im);
}

/* Two pages change places, with all that belongs to them but their numbers. */
static void swapped_pages(void)
{
	struct image_description d = describe(2, 7, 0);
	unsigned char *bytes, entry[8], page[PAGE_BYTES];
	struct model two = { .pages = 2, .content = { NOISE, NOISE }, .seed = { 1, 2 } };
	size_t length;
	uint64_t block;

	REQUIRE_EQ(model_write(&two, image_path("two"), &d), 0);
	bytes = file_load(image_path("two"), &length);
	block = format_get_root(bytes + format_get64(bytes + AT_ROOT), 0).offset;
	memcpy(page, bytes + 4096, PAGE_BYTES);
	memcpy(bytes + 4096, bytes + 8192, PAGE_BYTES);
	memcpy(bytes + 8192, page, PAGE_BYTES);
	memcpy(entry, bytes + block + 8, 8);
	memcpy(bytes + block + 8, bytes + block + 24, 8);
	memcpy(bytes + block + 24, entry, 8);
	repair_all(bytes, length);
	make();
	CHECK_EQ(check_bytes(bytes, length), -EBADMSG);
	CHECK(said("page 0 (4096 bytes at byte 4096)"));
	free(bytes);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(made_up_headers), UNIT(made_up_indexes), UNIT(made_up_leaves),
		UNIT(short_block),     UNIT(swapped_pages),   UNIT_END,
	};

	return unit_main(argc, argv, "image forged", tests);
}
