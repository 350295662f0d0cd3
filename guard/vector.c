/* SPDX-License-Identifier: MIT */
/* guard/vector.c - see vector.h. */
#include "guard/vector.h"

#include "base/base.h"
#include "guard/copy.h"
#include "guard/guard.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/types.h>

/* From here on a copy lies in its page where the original does: O_DIRECT looks at that. */
#define SECTOR 512u

int vector_read(struct served *s, unsigned long user, size_t n, struct iovec **list)
{
	if (n > VECTOR_MAX)
		return -EINVAL;
	*list = scratch_get(&s->scratch, n * sizeof **list, SCRATCH_ANY);
	if (!*list)
		return -ENOMEM;
	if (copy_from(*list, user, n * sizeof **list))
		return -EFAULT;
	for (size_t i = 0; i < n; i++)
		if ((ssize_t)(*list)[i].iov_len < 0)
			return -EINVAL;
	return 0;
}

static bool in_window(const struct iovec *segment)
{
	return guard_in_window((uintptr_t)segment->iov_base);
}

size_t vector_in_window(const struct iovec *list, size_t n)
{
	size_t bytes = 0;

	for (size_t i = 0; i < n; i++)
		bytes += in_window(&list[i]) ? list[i].iov_len : 0;
	return bytes;
}

/* One segment that is a copy of that part of the program's. */
static int copy_segment(struct served *s, const struct iovec *part, bool fetched,
                        struct iovec *made)
{
	size_t n = part->iov_len, offset = (uintptr_t)part->iov_base % PAGE_BYTES;

	made->iov_len = n;
	made->iov_base = scratch_get(&s->scratch, n, n >= SECTOR ? offset : SCRATCH_ANY);
	if (!made->iov_base)
		return -ENOMEM;
	return fetched ? copy_from(made->iov_base, (unsigned long)part->iov_base, n) : 0;
}

int vector_open(struct served *s, struct iovec *list, size_t n, size_t skip, size_t limit,
                bool fetched, struct vector *out)
{
	size_t copied = 0;
	bool ends = false;

	while (n > 0 && skip >= list->iov_len && skip > 0) {
		skip -= list->iov_len;
		list++;
		n--;
	}
	*out = (struct vector){ .n = 0 };
	out->user = scratch_get(&s->scratch, n * sizeof *list, SCRATCH_ANY);
	out->made = scratch_get(&s->scratch, n * sizeof *list, SCRATCH_ANY);
	if (!out->user || !out->made)
		return -ENOMEM;
	for (size_t i = 0; i < n && !ends && (i == 0 || copied < limit); i++, skip = 0) {
		struct iovec part = { (char *)list[i].iov_base + skip, list[i].iov_len - skip };
		int error = 0;

		out->made[i] = part;
		if (in_window(&part)) {
			size_t there = scratch_extent(part.iov_base);

			/* What a copy brings must have a place. What has none the kernel is to see. */
			ends = part.iov_len > there;
			part.iov_len = MIN(part.iov_len, limit - copied);
			if (there == 0) {
				out->user[i] = out->made[i] = part;
				out->n = i + 1;
				out->bytes += part.iov_len;
				break;
			}
			out->overhangs = part.iov_len > there;
			part.iov_len = MIN(part.iov_len, there);
			copied += part.iov_len;
			error = copy_segment(s, &part, fetched, &out->made[i]);
		}
		out->user[i] = part;
		out->n = i + 1;
		out->bytes += part.iov_len;
		if (error)
			return error;
	}
	return 0;
}

int vector_close(const struct vector *v, size_t bytes)
{
	for (size_t i = 0; i < v->n && bytes > 0; i++) {
		size_t part = MIN(bytes, v->made[i].iov_len);

		if (v->made[i].iov_base != v->user[i].iov_base &&
		    copy_to((unsigned long)v->user[i].iov_base, v->made[i].iov_base, part))
			return -EFAULT;
		bytes -= part;
	}
	return 0;
}

int vector_touch(const struct iovec *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (in_window(&list[i]) && list[i].iov_len &&
		    place_touch((unsigned long)list[i].iov_base, list[i].iov_len))
			return -EFAULT;
	return 0;
}

bool vector_is_stream(int fd)
{
	int type = 0;
	socklen_t length = sizeof type;

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM;
}
