/* SPDX-License-Identifier: MIT */
/*
 * guard/message.c - sendmsg, recvmsg, sendmmsg and recvmmsg: a header that points to a
 * name, to a list of segments and to control data.
 *
 * A message is one call: it may be a datagram, which must not be divided, and of which
 * nothing may be lost. Only what is sent to a stream, and long, goes in turns.
 */
#include "guard/copy.h"
#include "guard/guard.h"
#include "guard/vector.h"

#include "base/base.h"

#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>

struct message {
	unsigned long user; /* the program's header */
	struct msghdr given, made;
	struct iovec *list;
	struct vector vector;
	size_t name_bytes, bytes;
};

static bool in_window(const void *p)
{
	return guard_in_window((uintptr_t)p);
}

/* Room for n bytes at *p, with what is there if it is sent. */
static int copy_field(struct served *s, void **p, size_t n, bool sends)
{
	void *copy;

	if (!in_window(*p) || n == 0)
		return 0;
	if (n > COPY_MAX)
		return -ENOBUFS;
	copy = scratch_get(&s->scratch, n, SCRATCH_ANY);
	if (!copy)
		return -ENOMEM;
	if (sends && copy_from(copy, (unsigned long)*p, n))
		return -EFAULT;
	*p = copy;
	return 0;
}

/* The header and what is beside the segments. */
static int open_header(struct served *s, struct message *m, unsigned long user, bool sends)
{
	size_t bytes = 0;
	int error;

	m->user = user;
	if (copy_from(&m->given, user, sizeof m->given))
		return -EFAULT;
	m->made = m->given;
	if (m->given.msg_iovlen > VECTOR_MAX)
		return -EMSGSIZE;
	if ((int)m->given.msg_namelen < 0)
		return -EINVAL;
	/* The kernel takes and gives no more of a name. */
	m->name_bytes = MIN(m->given.msg_namelen, sizeof(struct sockaddr_storage));
	error = copy_field(s, &m->made.msg_name, m->name_bytes, sends);
	if (!error)
		error = copy_field(s, &m->made.msg_control, m->given.msg_controllen, sends);
	if (!error)
		error = vector_read(s, (unsigned long)m->given.msg_iov, m->given.msg_iovlen,
		                    &m->list);
	for (size_t i = 0; !error && i < m->given.msg_iovlen; i++)
		bytes += m->list[i].iov_len;
	m->bytes = bytes;
	return error;
}

/* fetched: with what is there: to be sent, or because nothing might be written (MSG_TRUNC) */
static int open_vector(struct served *s, struct message *m, size_t skip, size_t limit, bool fetched)
{
	int error = vector_open(s, m->list, m->given.msg_iovlen, skip, limit, fetched, &m->vector);

	m->made.msg_iov = m->vector.made;
	m->made.msg_iovlen = m->vector.n;
	return error;
}

static int open_message(struct served *s, struct message *m, unsigned long user, bool sends,
                        int flags)
{
	int error = open_header(s, m, user, sends);

	/* No datagram is as long. */
	if (!error && sends && m->bytes > COPY_MAX)
		error = -EMSGSIZE;
	return error ? error : open_vector(s, m, 0, SIZE_MAX, sends || flags & MSG_TRUNC);
}

#define FIELD_TO_USER(m, field) \
	copy_to((m)->user + offsetof(struct msghdr, field), &(m)->made.field, sizeof(m)->made.field)

/* A message has been received, of so many bytes. */
static int close_received(const struct message *m, size_t bytes)
{
	const struct msghdr *given = &m->given, *made = &m->made;

	if (vector_close(&m->vector, bytes))
		return -EFAULT;
	if (made->msg_name != given->msg_name &&
	    copy_to((unsigned long)given->msg_name, made->msg_name,
	            MIN(m->name_bytes, made->msg_namelen)))
		return -EFAULT;
	if (made->msg_control != given->msg_control &&
	    copy_to((unsigned long)given->msg_control, made->msg_control,
	            MIN(given->msg_controllen, made->msg_controllen)))
		return -EFAULT;
	if (given->msg_name && FIELD_TO_USER(m, msg_namelen))
		return -EFAULT;
	return FIELD_TO_USER(m, msg_controllen) || FIELD_TO_USER(m, msg_flags) ? -EFAULT : 0;
}

/* ------------------------------------------------------------- one message */

/* Control data go with the first turn. */
static long send_in_turns(struct served *s, struct message *m)
{
	struct scratch_mark mark = scratch_mark(&s->scratch);
	size_t done = 0;

	while (done < m->bytes) {
		int error = open_vector(s, m, done, SCRATCH_PIECE, true);
		long result = error ? error : served_call(s);

		scratch_return(&s->scratch, mark);
		if (result < 0)
			return done ? (long)done : result;
		done += (size_t)result;
		if ((size_t)result < m->vector.bytes)
			break;
		m->made.msg_control = NULL;
		m->made.msg_controllen = 0;
	}
	return (long)done;
}

/* The kernel goes on using the memory when the call has ended, so it may not be a copy. */
static long send_in_place(struct served *s, struct message *m)
{
	m->made.msg_iov = m->list;
	m->made.msg_iovlen = m->given.msg_iovlen;
	for (int tries = 0; tries < 100; tries++) {
		long result;

		if (vector_touch(m->list, m->given.msg_iovlen))
			return -EFAULT;
		result = served_call(s);
		if (result != -EFAULT)
			return result;
	}
	return -EFAULT;
}

static long send_message(struct served *s)
{
	struct message m;
	int error = open_header(s, &m, s->given[1], true);

	if (error)
		return error;
	s->arg[1] = (unsigned long)&m.made;
	if (s->given[2] & MSG_ZEROCOPY)
		return send_in_place(s, &m);
	if (vector_in_window(m.list, m.given.msg_iovlen) > VECTOR_WHOLE &&
	    vector_is_stream((int)s->given[0]))
		return send_in_turns(s, &m);
	if (m.bytes > COPY_MAX)
		return -EMSGSIZE;
	error = open_vector(s, &m, 0, SIZE_MAX, true);
	if (!error && m.vector.overhangs && !vector_is_stream((int)s->given[0]))
		error = -EFAULT;
	return error ? error : served_call(s);
}

static long receive_message(struct served *s)
{
	struct message m;
	int error = open_message(s, &m, s->given[1], false, (int)s->given[2]);
	long result;

	if (error)
		return error;
	if (m.vector.overhangs && !vector_is_stream((int)s->given[0]))
		return -EFAULT;
	s->arg[1] = (unsigned long)&m.made;
	result = served_call(s);
	if (result < 0)
		return result;
	error = close_received(&m, MIN((size_t)result, m.vector.bytes));
	return error ? error : result;
}

long serve_message(struct served *s, const struct call_row *row)
{
	return serve_bound(s, row, s->number == SYS_sendmsg ? send_message : receive_message);
}

/* -------------------------------------------------------------- many */

static long many(struct served *s)
{
	bool sends = s->number == SYS_sendmmsg;
	size_t n = MIN((uint32_t)s->given[2], VECTOR_MAX); /* as the kernel does */
	struct message *messages = scratch_get(&s->scratch, n * sizeof *messages, SCRATCH_ANY);
	struct mmsghdr *made = scratch_get(&s->scratch, n * sizeof *made, SCRATCH_ANY);
	long result;
	int error;

	if (!messages || !made)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		error = open_message(s, &messages[i], s->given[1] + i * sizeof *made, sends,
		                     (int)s->given[3]);
		if (!error && messages[i].vector.overhangs)
			error = -EFAULT;
		/* What comes before it is made, and then the kernel says that it is not well. */
		if (error && i == 0)
			return error;
		if (error) {
			n = i;
			break;
		}
		made[i].msg_hdr = messages[i].made;
		made[i].msg_len = 0;
	}
	s->arg[1] = (unsigned long)made;
	s->arg[2] = n;
	result = served_call(s);
	for (long i = 0; i < result; i++) {
		struct message *m = &messages[i];

		m->made = made[i].msg_hdr;
		if ((!sends && close_received(m, MIN(made[i].msg_len, m->vector.bytes))) ||
		    copy_to(m->user + offsetof(struct mmsghdr, msg_len), &made[i].msg_len,
		            sizeof made[i].msg_len))
			return i ? i : -EFAULT;
	}
	return result;
}

long serve_messages(struct served *s, const struct call_row *row)
{
	return serve_bound(s, row, many);
}
