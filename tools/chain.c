/* SPDX-License-Identifier: MIT */
/*
 * tools/chain.c - which image is whose base; see tool.h. By the UUIDs in their headers; of the
 * pages nothing is read.
 */
#include "tool.h"

#include <string.h>

bool image_files_read(struct image_file *files, unsigned count)
{
	bool all = true;

	for (unsigned i = 0; i < count; i++) {
		struct image_file *f = &files[i];

		f->error = quire_image_info(f->path, &f->image);
		if (f->error)
			snprintf(f->words, sizeof f->words, "%s", quire_error_message());
		all = all && !f->error;
	}
	return all;
}

bool image_is_increment(const struct quire_image *image)
{
	static const unsigned char zeros[sizeof image->base];

	return memcmp(image->base, zeros, sizeof zeros) != 0;
}

static bool is_base(const struct image_file *base, const struct image_file *of)
{
	return !base->error && !of->error && image_is_increment(&of->image) &&
	       memcmp(base->image.uuid, of->image.base, sizeof base->image.uuid) == 0;
}

const struct image_file *image_base_of(const struct image_file *files, unsigned count, unsigned i)
{
	const struct image_file *found = NULL;

	/* Of several of one UUID, a full one: it needs no other. */
	for (unsigned k = 0; k < count; k++)
		if (is_base(&files[k], &files[i]) &&
		    (!found ||
		     (image_is_increment(&found->image) && !image_is_increment(&files[k].image))))
			found = &files[k];
	return found;
}

static bool is_chain(const struct image_file *files, unsigned count, const unsigned *order)
{
	for (unsigned i = 1; i < count; i++)
		if (!is_base(&files[order[i - 1]], &files[order[i]]))
			return false;
	return true;
}

/* Any increment to files[from]; count: none */
static unsigned increment_to(const struct image_file *files, unsigned count, unsigned from)
{
	unsigned i = 0;

	while (i < count && !is_base(&files[from], &files[i]))
		i++;
	return i;
}

/*
 * Begin with the one whose base is not there, and go from each to its increment. Where that leaves
 * out files the last one reached has no increment, and is_chain says no.
 */
static void sort(const struct image_file *files, unsigned count, unsigned *order)
{
	unsigned at = 0, n = 0;

	while (at < count && image_base_of(files, count, at))
		at++;
	for (; at < count && n < count; at = increment_to(files, count, at))
		order[n++] = at;
}

bool image_chain(const struct image_file *files, unsigned count, unsigned *order)
{
	for (unsigned i = 0; i < count; i++)
		order[i] = i;
	if (is_chain(files, count, order))
		return true;
	sort(files, count, order);
	if (is_chain(files, count, order))
		return true;
	for (unsigned i = 0; i < count; i++)
		order[i] = i;
	return false;
}
