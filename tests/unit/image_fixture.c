/* SPDX-License-Identifier: MIT */
/* tests/unit/image_fixture.c - see image_fixture.h. */
#include "tests/unit/image_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[200];

static void remove_dir(void)
{
	char command[300];

	snprintf(command, sizeof command, "rm -rf '%s'", directory);
	if (system(command) != 0)
		printf("%s stays\n", directory);
}

const char *image_dir(void)
{
	static pid_t owner;

	if (!owner) {
		const char *tmp = getenv("TMPDIR");

		snprintf(directory, sizeof directory, "%s/quire-image.XXXXXX", tmp ? tmp : "/tmp");
		if (!mkdtemp(directory)) {
			perror(directory);
			exit(1);
		}
		owner = getpid();
		atexit(remove_dir);
	}
	return directory;
}

const char *image_path(const char *name)
{
	static char paths[32][300];
	static unsigned next;
	char *path = paths[next++ % 32];

	snprintf(path, sizeof paths[0], "%s/%s", image_dir(), name);
	return path;
}

unsigned image_entries(void)
{
	DIR *d = opendir(image_dir());
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d)))
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	if (d)
		closedir(d);
	return n;
}

/* ------------------------------------------------------------ pages */

void page_fill(unsigned char *bytes, enum content content, uint64_t seed)
{
	uint64_t x = seed | 1;

	memset(bytes, 0, PAGE_BYTES);
	for (unsigned i = 0; content >= TEXT && i < PAGE_BYTES; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		bytes[i] = (unsigned char)(content == NOISE ?
		                                   x >> 32 :
		                                   "page "[i % 5] + (i % 97 ? 0 : x % 7));
	}
}

bool page_is(const unsigned char *bytes, enum content content, uint64_t seed)
{
	unsigned char wanted[PAGE_BYTES];

	page_fill(wanted, content, seed);
	return memcmp(bytes, wanted, PAGE_BYTES) == 0;
}

void model_apply(struct model *m, const struct model *increment)
{
	for (uint64_t i = 0; i < m->pages; i++)
		if (increment->content[i] != ABSENT) {
			m->content[i] = increment->content[i];
			m->seed[i] = increment->seed[i];
		}
}

/* ------------------------------------------------------------ images */

struct image_description describe(uint64_t pages, unsigned char uuid, unsigned char base)
{
	struct image_description d = { .bytes = pages * PAGE_BYTES, .created = 1000 };

	memset(d.uuid, uuid, sizeof d.uuid);
	memset(d.base, base, sizeof d.base);
	strcpy(d.name, "a name");
	return d;
}

int model_write(const struct model *m, const char *path, const struct image_description *d)
{
	unsigned char bytes[PAGE_BYTES] __attribute__((aligned(16)));
	struct image_writer w;
	int error = image_create(&w, path, d);

	if (error)
		return error;
	for (uint64_t i = 0; i < m->pages && !error; i++) {
		if (m->content[i] == ABSENT)
			continue;
		page_fill(bytes, m->content[i], m->seed[i]);
		/* Zeros by their name, and as such. */
		error = image_put(&w, i, m->content[i] == ZEROS && i % 2 ? NULL : bytes);
	}
	if (!error)
		return image_commit(&w, true);
	image_abandon(&w);
	return error;
}

static int kind_wanted(const struct model *m, uint64_t page, bool full)
{
	if (m->content[page] == ABSENT)
		return full ? IMAGE_ZEROS : IMAGE_ABSENT;
	return m->content[page] == ZEROS ? IMAGE_ZEROS : IMAGE_BYTES;
}

static bool matches_by_number(const struct model *m, const struct image *im)
{
	unsigned char bytes[PAGE_BYTES];

	for (uint64_t i = 0; i < m->pages; i++) {
		int kind = kind_wanted(m, i, image_is_full(&im->header));

		if (image_kind(im, i) != kind || image_read_page(im, i, bytes) != kind ||
		    (kind == IMAGE_BYTES && !page_is(bytes, m->content[i], m->seed[i]))) {
			printf("page %llu is not what it was\n", (unsigned long long)i);
			return false;
		}
	}
	return image_kind(im, m->pages) < 0 && image_read_page(im, m->pages, bytes) < 0;
}

static bool matches_in_order(const struct model *m, const struct image *im)
{
	unsigned char bytes[PAGE_BYTES];
	bool full = image_is_full(&im->header);
	struct image_cursor c;
	uint64_t page = 0;
	int kind;

	image_seek(&c, im, 0);
	for (uint64_t i = 0; i < m->pages; i++) {
		if (m->content[i] == ABSENT || (full && m->content[i] == ZEROS))
			continue;
		kind = image_next(&c, &page);
		if (kind != kind_wanted(m, i, full) || page != i ||
		    image_cursor_read(&c, bytes) != kind ||
		    (kind == IMAGE_BYTES && !page_is(bytes, m->content[i], m->seed[i]))) {
			printf("in order, page %llu is not what it was\n", (unsigned long long)i);
			return false;
		}
	}
	return image_next(&c, &page) == IMAGE_ABSENT && image_next(&c, &page) == IMAGE_ABSENT;
}

bool model_matches(const struct model *m, const char *path)
{
	struct image im;
	bool good = image_open(&im, path) == 0;

	if (good)
		good = im.header.description.bytes == m->pages * PAGE_BYTES &&
		       matches_by_number(m, &im) && matches_in_order(m, &im) &&
		       image_verify(&im, NULL, NULL) == 0;
	if (!good)
		printf("%s\n", error_message());
	image_close(&im);
	return good;
}

/* ------------------------------------------------------------ a sample */

unsigned char *sample(struct model *m, size_t *size)
{
	struct image_description d = describe(300, 7, 3);

	memset(m, 0, sizeof *m);
	m->pages = 300;
	for (unsigned i = 0; i < 4; i++) {
		m->content[5 + i] = ZEROS + (unsigned char)i % 3;
		m->seed[5 + i] = i;
	}
	m->content[299] = TEXT;
	REQUIRE_EQ(model_write(m, image_path("sample"), &d), 0);
	REQUIRE(model_matches(m, image_path("sample")));
	return file_load(image_path("sample"), size);
}

/* Whatever can be read of it is right. */
static bool nothing_wrong(const struct model *m, const struct image *im)
{
	static const unsigned some[] = { 0, 5, 6, 7, 8, 255, 256, 299 };
	unsigned char bytes[PAGE_BYTES];

	for (unsigned j = 0; j < sizeof some / sizeof *some; j++) {
		uint64_t i = some[j];
		int kind = image_read_page(im, i, bytes);

		if (kind == IMAGE_BYTES && !page_is(bytes, m->content[i], m->seed[i]))
			return false;
		if (kind != -EBADMSG && kind != image_kind(im, i))
			return false;
	}
	return true;
}

int image_check(const struct model *m, const char *path)
{
	struct image im;
	int error = image_open(&im, path);

	if (error)
		return error;
	error = image_verify(&im, NULL, NULL);
	CHECK(nothing_wrong(m, &im));
	image_close(&im);
	return error;
}

bool said(const char *words)
{
	bool is = strstr(error_message(), words) != NULL;

	if (!is)
		printf("\"%s\" is not in: %s\n", words, error_message());
	return is;
}

/* ------------------------------------------------------------ files */

unsigned char *file_load(const char *path, size_t *size)
{
	struct stat st = { .st_size = 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned char *bytes = NULL;

	if (fd >= 0 && fstat(fd, &st) == 0)
		bytes = malloc((size_t)st.st_size + 1);
	*size = (size_t)st.st_size;
	if (!bytes || read(fd, bytes, *size) != (ssize_t)*size) {
		perror(path);
		exit(1);
	}
	close(fd);
	return bytes;
}

void file_store(const char *path, const void *bytes, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, bytes, size) != (ssize_t)size) {
		perror(path);
		exit(1);
	}
	close(fd);
}
