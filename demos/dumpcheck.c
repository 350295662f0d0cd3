/* SPDX-License-Identifier: MIT */
/* demos/dumpcheck.c - dumps compared with the log; see dumpcheck.h. */
#define _GNU_SOURCE
#include "dumpcheck.h"

#include <sys/mman.h>

#include "demo.h"
#include "dump.h"

/* ----------------------------------------------------------------- images */

/* Is the snapshot the store as it was at the dump? It is read in a clone, as memory. */
static bool snapshot_is_right(const struct keeper *k, const struct dump *d, quire_snapshot_t *s,
                              const char *name)
{
	quire_region_t *clone;
	bool right;

	check(quire_snapshot_clone(s, &clone), "cloning");
	right = workload_check(k->workload, quire_region_base(clone), quire_region_length(clone),
	                       d->sequence, name);
	check(quire_region_destroy(clone), "giving up a clone");
	return right;
}

static bool file_is_sound(const char *path)
{
	if (quire_image_verify(path, NULL, NULL) == 0)
		return true;
	fprintf(stderr, "%s: %s\n", demo_name, quire_error_message());
	return false;
}

static bool merged_is_right(const struct keeper *k, const struct quire_options *options)
{
	const char **paths = calloc(k->count, sizeof *paths);
	quire_snapshot_t *s;
	char merged[512];
	quire_t *q;
	bool right;

	if (!paths)
		die("no memory");
	for (unsigned i = 0; i < k->count; i++)
		paths[i] = k->dumps[i].path;
	snprintf(merged, sizeof merged, "%s/merged", k->directory);
	check(quire_image_merge(paths, k->count, merged, NULL, NULL), "merging");
	free(paths);
	right = file_is_sound(merged);
	check(quire_open(&q, options), "cannot open a pager");
	check(quire_snapshot_load(q, merged, &s), "loading");
	right &= snapshot_is_right(k, &k->dumps[k->count - 1], s, "all images, merged");
	check(quire_close(q), "closing");
	return right;
}

static bool chain_is_right(const struct keeper *k, const struct quire_options *options)
{
	quire_snapshot_t *s = NULL, *base;
	bool right = true;
	quire_t *q;

	check(quire_open(&q, options), "cannot open a pager");
	for (unsigned i = 0; i < k->count; i++) {
		const struct dump *d = &k->dumps[i];

		base = s;
		check(quire_snapshot_load(q, d->path, &s), "loading");
		/* Without its handle it stays, for what is loaded on it. */
		if (base)
			check(quire_snapshot_destroy(base), "giving up a snapshot");
		right &= file_is_sound(d->path);
		if (i == 0 || i == k->count / 2 || i + 1 == k->count)
			right &= snapshot_is_right(k, d, s, d->path);
	}
	check(quire_close(q), "closing");
	return right;
}

bool images_are_right(const struct keeper *k, const struct quire_options *options)
{
	bool chain = chain_is_right(k, options);

	return merged_is_right(k, options) && chain;
}

/* ------------------------------------------------------------ whole dumps */

bool whole_dumps_are_right(const struct keeper *k, size_t bytes)
{
	bool right = true;

	for (unsigned i = k->count > 2 ? k->count - 2 : 0; i < k->count; i++) {
		const struct dump *d = &k->dumps[i];
		void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		int error;

		if (memory == MAP_FAILED)
			die("no memory");
		error = dump_read(d->path, memory, bytes);
		if (error)
			fprintf(stderr, "%s: %s: %s\n", demo_name, d->path, strerror(-error));
		right &= !error && workload_check(k->workload, memory, bytes, d->sequence, d->path);
		munmap(memory, bytes);
	}
	return right;
}
