/* SPDX-License-Identifier: MIT */
/*
 * image/writer.h - what merge.c needs of the writer beyond image.h.
 */
#ifndef QUIRE_IMAGE_WRITER_H
#define QUIRE_IMAGE_WRITER_H

#include "image/format.h"

/*
 * As image_put, of a page that is stored already: e (kind, length, sum) and the
 * bytes as they are in another image, found good.
 */
int image_put_stored(struct image_writer *w, uint64_t page, const struct format_entry *e,
                     const void *stored);

#endif
