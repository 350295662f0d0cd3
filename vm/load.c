/* SPDX-License-Identifier: MIT */
/*
 * vm/load.c - snapshots from files, and the calls on files alone.
 *
 * A loaded snapshot is a record whose pages are in an image, that is read when they are wanted
 * (lineage.c). One that is an increment inherits from its base, as a clone does.
 */
#include "vm/snapshot.h"

#include "base/error.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <uuid/uuid.h>

struct loaded {
	struct arena self;
	struct image image;
};

void snapshot_unload(struct quire_region *s)
{
	struct loaded *l;
	struct arena self;

	if (!s->image)
		return;
	l = container_of(s->image, struct loaded, image);
	self = l->self;
	image_close(&l->image);
	arena_close(&self);
	s->image = NULL;
}

/* => 0 or -errno with words */
static int open_image(const char *path, struct loaded **out)
{
	struct arena self;
	int error = arena_open(&self, sizeof **out, false, "quire image");

	if (error)
		return error;
	*out = self.base;
	(*out)->self = self;
	error = image_open(&(*out)->image, path);
	if (!error && (*out)->image.header.description.bytes > QUIRE_REGION_MAX) {
		error = error_set(EFBIG, "image %s is longer than a region can be", path);
		image_close(&(*out)->image);
	}
	if (error)
		arena_close(&self);
	return error;
}

/* The snapshot of that UUID, saved or loaded. => snapshot lock; NULL */
static struct quire_region *find(struct quire *q, const unsigned char uuid[16], size_t bytes)
{
	for (uint32_t i = 0; i < regions_used(q); i++) {
		struct quire_region *s = &q->regions[i];

		if (atomic_load(&s->alive) == REGION_ALIVE && s->is_snapshot && !s->unnamed &&
		    s->bytes == bytes && memcmp(s->uuid, uuid, sizeof s->uuid) == 0)
			return s;
	}
	return NULL;
}

static int no_base(const char *path, const unsigned char uuid[16])
{
	char words[37];

	uuid_unparse_lower(uuid, words);
	return error_set(ESTALE,
	                 "image %s is an increment to %s, which is no snapshot of this pager and "
	                 "of its length: load that first",
	                 path, words);
}

/* => snapshot lock */
static int load(struct quire *q, const char *path, struct loaded *l, struct quire_region **out)
{
	const struct image_description *d = &l->image.header.description;
	struct quire_region *s, *base = NULL;
	int error;

	if (!image_is_full(&l->image.header)) {
		base = find(q, d->base, d->bytes);
		if (!base)
			return no_base(path, d->base);
	}
	error = region_record(q, d->bytes, d->name, &s);
	if (error)
		return error;
	s->is_snapshot = true;
	s->image = &l->image;
	memcpy(s->uuid, d->uuid, sizeof s->uuid);
	s->created = d->created;
	lock_acquire(&q->lineage_lock);
	s->parent = base;
	lock_release(&q->lineage_lock);
	if (base)
		base->heirs++;
	atomic_store(&s->alive, REGION_ALIVE);
	*out = s;
	return 0;
}

/* => a piece of work */
static int open_and_load(struct quire *q, const char *path, struct quire_region **out)
{
	struct loaded *l = NULL;
	struct arena self;
	int error = open_image(path, &l);

	if (error)
		return error;
	lock_acquire(&q->snapshot_lock);
	error = load(q, path, l, out);
	lock_release(&q->snapshot_lock);
	if (error) {
		self = l->self;
		image_close(&l->image);
		arena_close(&self);
	}
	return error;
}

int quire_snapshot_load(quire_t *q, const char *path, quire_snapshot_t **out)
{
	struct quire_region *s = NULL;
	char copy[PATH_MAX];
	struct call call;
	int error;

	if (!q || !path || !out)
		return error_set(EINVAL, "a NULL pager, path or result");
	if (pager_is_lost(q))
		return lost_error();
	/* It may be managed memory, which is not touched while signals are blocked. */
	if (strlen(path) >= sizeof copy)
		return error_set(ENAMETOOLONG, "image: the path is longer than %zu bytes",
		                 sizeof copy - 1);
	strcpy(copy, path);
	/* All of it: a child of a fork in between would have a file that is no snapshot's. */
	call_enter(&call);
	error = open_and_load(q, copy, &s);
	call_leave(&call);
	if (!error)
		*out = snapshot_handle(s);
	return error;
}

int quire_snapshot_uuid(quire_snapshot_t *snapshot, unsigned char uuid[16])
{
	struct quire_region *s = snapshot_record(snapshot);

	if (!uuid)
		return error_set(EINVAL, "a NULL result");
	if (!snapshot_is_valid(snapshot))
		return snapshot_invalid(snapshot);
	memcpy(uuid, s->uuid, sizeof s->uuid);
	return 0;
}

/* -------------------------------------------------------------- files */

int quire_image_info(const char *path, struct quire_image *out)
{
	const struct image_header *h;
	struct image im;
	int error;

	if (!path || !out)
		return error_set(EINVAL, "a NULL path or result");
	error = image_open(&im, path);
	if (error)
		return error;
	h = &im.header;
	*out = (struct quire_image){
		.length = h->description.bytes,
		.stored = h->stored,
		.compressed = h->compressed,
		.zeros = h->zeros,
		.file_bytes = h->file_bytes,
		.created = h->description.created,
	};
	memcpy(out->uuid, h->description.uuid, sizeof out->uuid);
	memcpy(out->base, h->description.base, sizeof out->base);
	memcpy(out->name, h->description.name, sizeof out->name);
	image_close(&im);
	return 0;
}

int quire_image_verify(const char *path, quire_image_fn call, void *arg)
{
	struct image im;
	int error;

	if (!path)
		return error_set(EINVAL, "a NULL path");
	error = image_open(&im, path);
	if (error)
		return error;
	error = image_verify(&im, call, arg);
	image_close(&im);
	return error;
}

int quire_image_merge(const char *const paths[], unsigned count, const char *out,
                      quire_image_fn call, void *arg)
{
	if (!paths || !out || count == 0)
		return error_set(EINVAL, "no images, or a NULL path");
	for (unsigned i = 0; i < count; i++)
		if (!paths[i])
			return error_set(EINVAL, "a NULL path");
	return image_merge(paths, count, out, call, arg);
}
