/* SPDX-License-Identifier: MIT */
/*
 * guard/transfer.c - calls that move bytes: read, write and their like, with one buffer or
 * a list of them; and process_vm_readv and writev.
 *
 * Most are made once, on a copy. One of more than a mebibyte is made in turns, where it can be
 * divided: what is read from or written to a file, and what is written to a pipe or a
 * stream. (The kernel keeps others from the file meanwhile, which turns do not: hence the
 * mebibyte.) A turn that did not do all it was asked for is the last, so it ends as the
 * whole would have: a short count, or an error if nothing was done. What is read from a
 * socket, a pipe or a terminal is one call however long: it takes no more memory than
 * there are bytes to be had.
 */
#include "guard/copy.h"
#include "guard/guard.h"
#include "guard/vector.h"

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#define MEMORY_DEVICES 1 /* major: null, zero, random ... */

struct transfer {
	struct served *s;
	bool reads;   /* into the program's memory */
	bool fetches; /* ... or not even that: of what MSG_TRUNC drops nothing is written */
	bool vector;  /* a list; else one buffer */
	struct iovec one, *list;
	size_t n, bytes;
};

/* Are its bytes like water, to be had in any portion? waits: what may be the last of it for now */
static bool is_bytes(int fd, bool *waits)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return false;
	*waits = S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode);
	return S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) || S_ISFIFO(st.st_mode) ||
	       (S_ISCHR(st.st_mode) && major(st.st_rdev) == MEMORY_DEVICES) ||
	       (S_ISSOCK(st.st_mode) && vector_is_stream(fd));
}

/* May it be made in turns? */
static bool is_divisible(const struct transfer *t)
{
	bool waits;

	return is_bytes((int)t->s->given[0], &waits) && !(t->reads && waits);
}

static bool has_position(long number)
{
	return number == SYS_pread64 || number == SYS_pwrite64 || number == SYS_preadv ||
	       number == SYS_pwritev || number == SYS_preadv2 || number == SYS_pwritev2;
}

/* The place in the file goes on with what is done; -1 says that the file's own does. */
static void advance(struct served *s, size_t done)
{
	bool own = (s->number == SYS_preadv2 || s->number == SYS_pwritev2) && s->given[3] == ~0ul;

	if (has_position(s->number) && !own)
		s->arg[3] = s->given[3] + done;
}

static long turn(struct transfer *t, size_t done, size_t limit, size_t *asked)
{
	struct served *s = t->s;
	struct vector v;
	bool waits;
	int error = vector_open(s, t->list, t->n, done, limit, t->fetches, &v);
	long result;

	if (error)
		return error;
	/* A part of a datagram is another one. */
	if (v.overhangs && !is_bytes((int)s->given[0], &waits))
		return -EFAULT;
	*asked = v.bytes;
	if (t->vector) {
		s->arg[1] = (unsigned long)v.made;
		s->arg[2] = v.n;
	} else {
		s->arg[1] = (unsigned long)v.made[0].iov_base;
		s->arg[2] = v.made[0].iov_len;
	}
	advance(s, done);
	result = served_call(s);
	if (result > 0 && t->reads)
		/* A datagram may say that it was longer (MSG_TRUNC). */
		error = vector_close(&v, MIN((size_t)result, v.bytes));
	return error ? error : result;
}

/*
 * A file's limit (ulimit -f) cuts a call that goes beyond it; one that begins there gets
 * SIGXFSZ, which must not become of the last turn.
 */
static void stop_at_limit(struct transfer *t)
{
	int fd = (int)t->s->given[0];
	bool own = !has_position(t->s->number) || t->s->given[3] == ~0ul;
	struct rlimit limit;
	off_t at;

	if (t->reads || getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
		return;
	if (fcntl(fd, F_GETFL) & O_APPEND)
		own = true;
	at = own ? lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR) :
	           (off_t)t->s->given[3];
	if (at >= 0 && (rlim_t)at < limit.rlim_cur)
		t->bytes = MIN(t->bytes, limit.rlim_cur - (rlim_t)at);
}

static long in_turns(struct transfer *t)
{
	struct scratch_mark mark = scratch_mark(&t->s->scratch);
	size_t done = 0;

	stop_at_limit(t);
	while (done < t->bytes) {
		size_t asked = 0;
		long result = turn(t, done, MIN(SCRATCH_PIECE, t->bytes - done), &asked);

		scratch_return(&t->s->scratch, mark);
		if (result < 0)
			return done ? (long)done : result;
		done += (size_t)result;
		if ((size_t)result < asked)
			break;
	}
	return (long)done;
}

/* What the kernel goes on using after the call has ended, a copy must not be. */
static long in_place(struct transfer *t)
{
	long result;

	if (t->vector)
		t->s->arg[1] = (unsigned long)t->list;
	for (int tries = 0; tries < 100; tries++) {
		if (vector_touch(t->list, t->n))
			return -EFAULT;
		result = served_call(t->s);
		if (result != -EFAULT)
			return result;
	}
	return -EFAULT;
}

static long transfer(struct served *s)
{
	struct transfer t = { .s = s, .list = &t.one, .n = 1 };
	size_t asked;
	bool keeps = s->number == SYS_vmsplice;

	t.vector = keeps || s->number == SYS_readv || s->number == SYS_writev ||
	           s->number == SYS_preadv || s->number == SYS_pwritev ||
	           s->number == SYS_preadv2 || s->number == SYS_pwritev2;
	t.reads = s->number == SYS_read || s->number == SYS_readv || s->number == SYS_pread64 ||
	          s->number == SYS_preadv || s->number == SYS_preadv2 || s->number == SYS_recvfrom;
	if (s->number == SYS_sendto)
		keeps = s->given[3] & MSG_ZEROCOPY;
	if (t.vector) {
		t.n = s->given[2];
		/* The kernel says what is wrong with the list. */
		if (t.n == 0 || vector_read(s, s->given[1], t.n, &t.list) == -EINVAL)
			return served_call(s);
	} else {
		t.one = (struct iovec){ (void *)s->given[1], s->given[2] };
		if ((ssize_t)t.one.iov_len < 0)
			return served_call(s);
	}
	if (keeps)
		return in_place(&t);
	for (size_t i = 0; i < t.n; i++)
		t.bytes += t.list[i].iov_len;
	t.bytes = MIN(t.bytes, (size_t)INT32_MAX & ~(PAGE_BYTES - 1));
	t.fetches = !t.reads || (s->number == SYS_recvfrom && s->given[3] & MSG_TRUNC);
	if (vector_in_window(t.list, t.n) > VECTOR_WHOLE && is_divisible(&t))
		return in_turns(&t);
	/* No datagram is as long; and nothing that is written to a device. */
	if (!t.reads && t.bytes > COPY_MAX)
		return -EMSGSIZE;
	return turn(&t, 0, SIZE_MAX, &asked);
}

long serve_transfer(struct served *s, const struct call_row *row)
{
	return serve_bound(s, row, transfer);
}

/* ------------------------------------------------------- process_vm_* */

/* From one list to another, both of this process. => bytes, or -EFAULT if there are none */
static long copy_lists(struct served *s, struct iovec *from, size_t from_n, struct iovec *to,
                       size_t to_n)
{
	char *part = scratch_get(&s->scratch, PAGE_BYTES, SCRATCH_ANY);
	long done = 0;

	if (!part)
		return -ENOMEM;
	while (from_n && to_n) {
		size_t n = MIN(MIN(from->iov_len, to->iov_len), PAGE_BYTES);

		if (copy_from(part, (unsigned long)from->iov_base, n) ||
		    copy_to((unsigned long)to->iov_base, part, n))
			return done ? done : -EFAULT;
		done += (long)n;
		*from = (struct iovec){ (char *)from->iov_base + n, from->iov_len - n };
		*to = (struct iovec){ (char *)to->iov_base + n, to->iov_len - n };
		if (from->iov_len == 0) {
			from++;
			from_n--;
		}
		if (to->iov_len == 0) {
			to++;
			to_n--;
		}
	}
	return done;
}

static bool is_own(pid_t id)
{
	return id == getpid() || syscall(SYS_tgkill, getpid(), id, 0) == 0;
}

/* The other process's addresses are not in our window; our own may be: those we copy ourselves. */
long serve_process_vm(struct served *s, const struct call_row *row)
{
	bool reads = s->number == SYS_process_vm_readv;
	struct iovec *local, *remote;
	struct vector v;
	long result;
	int error;

	(void)row;
	error = vector_read(s, s->given[1], s->given[2], &local);
	if (!error)
		error = vector_read(s, s->given[3], s->given[4], &remote);
	if (error || s->given[5] != 0)
		return error == -EINVAL || !error ? served_call(s) : error;
	if (is_own((pid_t)s->given[0]))
		return reads ? copy_lists(s, remote, s->given[4], local, s->given[2]) :
		               copy_lists(s, local, s->given[2], remote, s->given[4]);
	error = vector_open(s, local, s->given[2], 0, SIZE_MAX, !reads, &v);
	if (error)
		return error;
	s->arg[1] = (unsigned long)v.made;
	s->arg[3] = (unsigned long)remote;
	result = served_call(s);
	if (result > 0 && reads)
		error = vector_close(&v, (size_t)result);
	return error ? error : result;
}
