/* SPDX-License-Identifier: MIT */
/*
 * image/merge.c - a full image and its increments made one.
 *
 * All are gone through together, leaf by leaf. Of the index blocks of a leaf
 * the newest that says something of a page has it. What is stored is checked,
 * since the sum that is copied would else vouch for what was damaged before,
 * and copied as it is.
 */
#include "base/error.h"
#include "image/reader.h"
#include "image/writer.h"

#include <errno.h>
#include <string.h>
#include <uuid/uuid.h>

struct source {
	struct image image;
	uint64_t slot;          /* the root's entry that is next */
	bool here;              /* leaf is the one being merged */
	struct image_leaf leaf; /* valid if here */
};

struct merge {
	struct arena memory; /* the sources; the oldest is the first */
	struct source *sources;
	unsigned count; /* of those that are open */
	struct image_writer writer;
	uint64_t done, of; /* leaves */
};

static const struct image_description *description(const struct merge *m, unsigned i)
{
	return &m->sources[i].image.header.description;
}

/* ------------------------------------------------------------ opening */

static int not_a_base(const struct image *base, const struct image *im)
{
	char has[37], wants[37];

	uuid_unparse(base->header.description.uuid, has);
	if (image_is_full(&im->header))
		return error_set(EINVAL,
		                 "image %s is a full one, and no increment to image %s (%s)",
		                 im->path, base->path, has);
	uuid_unparse(im->header.description.base, wants);
	return error_set(EINVAL, "image %s is an increment to %s, and image %s is %s", im->path,
	                 wants, base->path, has);
}

/* Is source i an increment to the one before? */
static int check_lineage(const struct merge *m, unsigned i)
{
	const struct image_description *d = description(m, i), *base;

	if (i == 0)
		return 0;
	base = description(m, i - 1);
	if (memcmp(d->base, base->uuid, sizeof d->base) != 0)
		return not_a_base(&m->sources[i - 1].image, &m->sources[i].image);
	if (d->bytes != base->bytes)
		return error_set(EINVAL,
		                 "image %s is of %llu bytes of memory, and its base, image %s, of "
		                 "%llu",
		                 m->sources[i].image.path, (unsigned long long)d->bytes,
		                 m->sources[i - 1].image.path, (unsigned long long)base->bytes);
	return 0;
}

static int open_sources(struct merge *m, const char *const paths[], unsigned count)
{
	int error = arena_open(&m->memory, count * sizeof *m->sources, false, "quire image merge");

	m->sources = m->memory.base;
	for (unsigned i = 0; i < count && !error; i++) {
		error = image_open(&m->sources[i].image, paths[i]);
		if (error)
			break;
		m->count++;
		m->of += m->sources[i].image.header.leaves;
		error = check_lineage(m, i);
	}
	return error;
}

static int create_output(struct merge *m, const char *out)
{
	struct image_description d = *description(m, m->count - 1);

	memcpy(d.base, description(m, 0)->base, sizeof d.base);
	return image_create(&m->writer, out, &d);
}

/* ------------------------------------------------------------ merging */

/* => false: all leaves are done */
static bool next_leaf(const struct merge *m, uint64_t *number)
{
	*number = UINT64_MAX;
	for (unsigned i = 0; i < m->count; i++) {
		const struct source *s = &m->sources[i];

		if (s->slot < s->image.header.leaves)
			*number = MIN(*number, format_get_root(s->image.root.base, s->slot).leaf);
	}
	return *number != UINT64_MAX;
}

/* Words for what was found in a source. => error */
static int fault(const struct source *s, uint64_t page, int error)
{
	if (error == -EBADMSG)
		return error_set(EBADMSG, "image %s is damaged: page %llu, or the index of it",
		                 s->image.path, (unsigned long long)page);
	return error_set(-error, "image %s: page %llu cannot be read: %s", s->image.path,
	                 (unsigned long long)page, strerror(-error));
}

static int load_leaves(struct merge *m, uint64_t number)
{
	for (unsigned i = 0; i < m->count; i++) {
		struct source *s = &m->sources[i];
		int error;

		s->here = s->slot < s->image.header.leaves &&
		          format_get_root(s->image.root.base, s->slot).leaf == number;
		if (!s->here)
			continue;
		error = image_read_slot(&s->image, s->slot++, &s->leaf);
		if (error)
			return fault(s, number * IMAGE_LEAF_PAGES, error);
		m->done++;
	}
	return 0;
}

/* Which source has the page? NULL: none says anything of it. */
static const struct source *newest(const struct merge *m, uint64_t page)
{
	for (unsigned i = m->count; i-- > 0;)
		if (m->sources[i].here &&
		    image_leaf_entry(&m->sources[i].leaf, page).kind != IMAGE_ABSENT)
			return &m->sources[i];
	return NULL;
}

static int copy_page(struct merge *m, const struct source *s, uint64_t page)
{
	unsigned char bytes[PAGE_BYTES], work[FORMAT_COMPRESSED_MAX];
	struct format_entry e = image_leaf_entry(&s->leaf, page);
	const void *stored;
	int error;

	if (e.kind == IMAGE_ZEROS)
		return image_put(&m->writer, page, NULL);
	error = image_read_stored(&s->image, page, &e, bytes, work, &stored);
	return error ? fault(s, page, error) : image_put_stored(&m->writer, page, &e, stored);
}

static int merge_leaf(struct merge *m, uint64_t number)
{
	int error = load_leaves(m, number);

	for (unsigned i = 0; i < IMAGE_LEAF_PAGES && !error; i++) {
		uint64_t page = number * IMAGE_LEAF_PAGES + i;
		const struct source *s = newest(m, page);

		if (s)
			error = copy_page(m, s, page);
	}
	return error;
}

static int merge_all(struct merge *m, image_progress progress, void *arg)
{
	uint64_t number;
	int error = 0;

	while (!error && next_leaf(m, &number)) {
		error = merge_leaf(m, number);
		if (!error && progress && !progress(arg, m->done, m->of))
			error = error_set(ECANCELED, "image %s: merging was given up",
			                  m->writer.output.name);
	}
	return error;
}

int image_merge(const char *const paths[], unsigned count, const char *out, image_progress progress,
                void *arg)
{
	struct merge m = { .count = 0 };
	int error;

	if (count == 0)
		return error_set(EINVAL, "image %s: there is nothing to merge", out);
	error = open_sources(&m, paths, count);
	if (!error)
		error = create_output(&m, out);
	if (!error) {
		error = merge_all(&m, progress, arg);
		if (!error)
			error = image_commit(&m.writer, true);
		image_abandon(&m.writer);
	}
	while (m.count > 0)
		image_close(&m.sources[--m.count].image);
	arena_close(&m.memory);
	return error;
}
