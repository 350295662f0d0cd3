/* SPDX-License-Identifier: MIT */
/*
 * image/publish.h - a file that appears under its name when it is complete, or never.
 */
#ifndef QUIRE_IMAGE_PUBLISH_H
#define QUIRE_IMAGE_PUBLISH_H

#include "image/image.h"

/* => o->fd is open for reading and writing, empty; else -errno with words (image_create) */
int output_open(struct image_output *o, const char *path);
/* => as image_commit. On failure o is still open */
int output_publish(struct image_output *o, bool replace);
/* Close it. What was not published is gone. Harmless twice. */
void output_close(struct image_output *o);

#endif
