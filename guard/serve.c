/* SPDX-License-Identifier: MIT */
/*
 * guard/serve.c - one call, by its row of the table: what its pointers point to is copied
 * in, the call is made on the copies, and what it wrote is copied back.
 *
 * Only what the call changed is written back, and nothing else of the program's memory
 * (struct copied): so it makes no difference whether a call writes all of it, a part, or
 * nothing, or only when it is interrupted; and a neighbour that another thread writes at
 * the same time is safe.
 */
#include "guard/served.h"

#include "base/base.h"
#include "guard/copy.h"
#include "guard/guard.h"
#include "guard/trap.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* Evicted again and again between the touch and the call: then there is no memory to speak of. */
#define PLACE_TRIES 100
/* Where more is looked at, of an address that may be bad, not as often; and not all the memory. */
#define MORE_TRIES 16
#define MORE_BYTES ((size_t)64 << 10)

/* ------------------------------------------------------------- the call */

static long bare_syscall(long number, const unsigned long a[CALL_ARGS])
{
#if defined(__x86_64__)
	/* All loads first: a sanitizer's are calls, which would not leave the registers alone. */
	long a0 = (long)a[0], a1 = (long)a[1], a2 = (long)a[2];
	long a3 = (long)a[3], a4 = (long)a[4], a5 = (long)a[5];
	register long r10 __asm__("r10") = a3;
	register long r8 __asm__("r8") = a4;
	register long r9 __asm__("r9") = a5;
	long result;

	/* It may be restarted after a signal: by the instruction itself, so all is in registers. */
	__asm__ volatile("syscall"
	                 : "=a"(result)
	                 : "0"(number), "D"(a0), "S"(a1), "d"(a2), "r"(r10), "r"(r8), "r"(r9)
	                 : "rcx", "r11", "memory");
	return result;
#else
	(void)number;
	(void)a;
	return -ENOSYS;
#endif
}

static long in_place_syscall(long number, const unsigned long a[CALL_ARGS])
{
	long (*call)(unsigned long, unsigned long, unsigned long, unsigned long, unsigned long,
	             unsigned long, long);
	uintptr_t at = TRAMPOLINE;

	memcpy(&call, &at, sizeof call);
	return call(a[0], a[1], a[2], a[3], a[4], a[5], number);
}

static long make(long number, const unsigned long arg[CALL_ARGS])
{
	for (unsigned i = 0; i < CALL_ARGS; i++)
		if (guard_in_window(arg[i]))
			return in_place_syscall(number, arg);
	return bare_syscall(number, arg);
}

/* As libc does around each call that is a cancellation point. */
static long make_cancellable(long number, const unsigned long arg[CALL_ARGS],
                             long (*how)(long, const unsigned long[CALL_ARGS]))
{
	long result;
	int type;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	result = how(number, arg);
	pthread_setcanceltype(type, NULL);
	return result;
}

static void change_mask(const uint64_t *mask, uint64_t *old)
{
	const unsigned long arg[CALL_ARGS] = { SIG_SETMASK, (unsigned long)mask, (unsigned long)old,
		                               sizeof *mask };

	bare_syscall(SYS_rt_sigprocmask, arg);
}

long served_call(struct served *s)
{
	uint64_t blocked;
	long result;

	change_mask(&s->mask, &blocked);
	result = s->cancellable ? make_cancellable(s->number, s->arg, make) :
	                          make(s->number, s->arg);
	/* A handler may have changed it for good, in its context. */
	change_mask(&blocked, &s->mask);
	if (s->context)
		memcpy(&((ucontext_t *)s->context)->uc_sigmask, &s->mask, sizeof s->mask);
	return result;
}

long plain_call(long number, const unsigned long arg[CALL_ARGS], bool cancellable)
{
	return cancellable ? make_cancellable(number, arg, bare_syscall) :
	                     bare_syscall(number, arg);
}

/* --------------------------------------------------------------- copies */

int copied_open(struct served *s, struct copied *c, unsigned long *arg, size_t n, bool written)
{
	*c = (struct copied){ .user = *arg, .n = n };
	if (!guard_in_window(*arg))
		return 0;
	c->bytes = scratch_get(&s->scratch, n, SCRATCH_ANY);
	if (c->bytes && written)
		c->before = scratch_get(&s->scratch, n, SCRATCH_ANY);
	if (!c->bytes || (written && !c->before))
		return -ENOMEM;
	if (copy_from(c->bytes, *arg, n))
		return -EFAULT;
	if (written)
		memcpy(c->before, c->bytes, n);
	*arg = (unsigned long)c->bytes;
	return 0;
}

int copied_close(const struct copied *c)
{
	if (!c->before || memcmp(c->bytes, c->before, c->n) == 0)
		return 0;
	for (size_t i = 0, end; i < c->n; i = end + 1) {
		for (end = i; end < c->n && c->bytes[end] != c->before[end]; end++)
			;
		if (end > i && copy_to(c->user + i, c->bytes + i, end - i))
			return -EFAULT;
	}
	return 0;
}

/* --------------------------------------------------------------- places */

int place_touch(unsigned long address, size_t bytes)
{
	for (unsigned long at = address; at < address + MAX(bytes, 1);
	     at = (at | (PAGE_BYTES - 1)) + 1)
		if (guard_touch_write((void *)at) && guard_touch_read((void *)at))
			return -EFAULT;
	return 0;
}

/*
 * Behind what is known of an argument there may be more, of a length that only the kernel
 * knows: with each try more of it is made present, if it can be.
 */
long place_call(struct served *s, const size_t places[CALL_ARGS], bool grows)
{
	int most = grows ? MORE_TRIES : PLACE_TRIES;
	size_t more = 0;
	long result = served_call(s);

	for (int tries = 0; result == -EFAULT && tries < most; tries++) {
		for (unsigned i = 0; i < CALL_ARGS; i++) {
			if (!places[i] || !guard_in_window(s->arg[i]))
				continue;
			if (place_touch(s->arg[i], places[i]))
				return -EFAULT;
			if (more)
				place_touch(s->arg[i] + places[i], more);
		}
		result = served_call(s);
		if (grows)
			more = MIN(MAX(2 * more, PAGE_BYTES), MORE_BYTES);
	}
	return result;
}

/* ------------------------------------------------------------- by the row */

struct bound {
	const struct argument *shape;
	unsigned index;
	unsigned long user;
	char *bytes;
	size_t capacity;
	int32_t length; /* ARG_LENGTH: as given, and as returned */
	int32_t *returned;
	struct copied copied;
};

/* => false: it overflows */
static bool bytes_of(const struct served *s, const struct argument *shape, size_t *bytes)
{
	size_t count;

	*bytes = shape->size;
	if (shape->by == BY_NONE)
		return true;
	count = s->given[shape->by & ~(BY_INT | BY_PAGES)];
	if (shape->by & BY_PAGES)
		count = pages_of(count) + (count % PAGE_BYTES != 0);
	if (shape->by & BY_INT)
		count = (uint32_t)count;
	return !__builtin_mul_overflow(count, (size_t)shape->size, bytes) &&
	       !__builtin_add_overflow(*bytes, (size_t)shape->more, bytes);
}

static int bind_string(struct served *s, struct bound *b)
{
	long length = guard_string((const char *)b->user, PATH_MAX);

	if (length < 0)
		return -EFAULT;
	b->bytes = scratch_get(&s->scratch, (size_t)length + 1, SCRATCH_ANY);
	if (!b->bytes)
		return -ENOMEM;
	if (copy_from(b->bytes, b->user, (size_t)length))
		return -EFAULT;
	b->bytes[length] = 0;
	s->arg[b->index] = (unsigned long)b->bytes;
	return 0;
}

/* Memory that the call fills, as far as it says. */
static int bind_result(struct served *s, struct bound *b, size_t bytes)
{
	b->capacity = bytes;
	b->bytes = scratch_get(&s->scratch, bytes, SCRATCH_ANY);
	if (!b->bytes)
		return -ENOMEM;
	s->arg[b->index] = (unsigned long)b->bytes;
	return 0;
}

/* Of a socket's name the kernel writes no more. */
#define NAME_MAX_BYTES 128

/*
 * The kernel looks at the length twice, and writes by what it sees then: so it sees
 * neither the program's, which another thread may change, nor more than there is room for.
 */
static int bind_length(struct served *s, struct bound *b)
{
	unsigned by = b->shape->by;

	if (copy_from(&b->length, s->given[by], sizeof b->length))
		return -EFAULT;
	b->capacity = (size_t)MIN(MAX(b->length, 0), NAME_MAX_BYTES);
	b->bytes = scratch_get(&s->scratch, NAME_MAX_BYTES, SCRATCH_ANY);
	b->returned = scratch_get(&s->scratch, sizeof *b->returned, SCRATCH_ANY);
	if (!b->bytes || !b->returned)
		return -ENOMEM;
	*b->returned = b->length;
	s->arg[b->index] = (unsigned long)b->bytes;
	s->arg[by] = (unsigned long)b->returned;
	return 0;
}

static int unbind_length(const struct served *s, const struct bound *b, long result)
{
	int32_t length = *b->returned;

	if (result < 0)
		return 0;
	if (copy_to(b->user, b->bytes, MIN((size_t)MAX(length, 0), b->capacity)))
		return -EFAULT;
	return copy_to(s->given[b->shape->by], &length, sizeof length);
}

/* A structure that begins with its length. */
static int bind_sized(struct served *s, struct bound *b)
{
	uint32_t bytes;

	if (copy_from(&bytes, b->user, sizeof bytes))
		return -EFAULT;
	/* The kernel takes no more than a page; and refuses what is longer. */
	return copied_open(s, &b->copied, &s->arg[b->index],
	                   MIN(MAX(bytes, sizeof bytes), PAGE_BYTES), true);
}

/* As many bytes as can be read. */
static int bind_what_there_is(struct served *s, struct bound *b, size_t bytes)
{
	b->bytes = scratch_get(&s->scratch, bytes, SCRATCH_ANY);
	if (!b->bytes)
		return -ENOMEM;
	memset(b->bytes, 0, bytes);
	if (guard_copy(b->bytes, (const void *)b->user, bytes) == bytes)
		return -EFAULT;
	s->arg[b->index] = (unsigned long)b->bytes;
	return 0;
}

static int bind(struct served *s, struct bound *b, size_t places[CALL_ARGS])
{
	size_t bytes;

	/* By another argument already. */
	if (s->arg[b->index] != s->given[b->index])
		return 0;
	if (b->shape->kind == ARG_LENGTH)
		return bind_length(s, b);
	if (b->shape->kind == ARG_SIZED)
		return bind_sized(s, b);
	if (!bytes_of(s, b->shape, &bytes) || bytes > COPY_MAX) {
		places[b->index] = 1;
		return 0;
	}
	switch ((enum argument_kind)b->shape->kind) {
	case ARG_STRING:
		return bind_string(s, b);
	case ARG_IN:
	case ARG_OUT:
		return copied_open(s, &b->copied, &s->arg[b->index], bytes,
		                   b->shape->kind == ARG_OUT);
	case ARG_RESULT:
		return bind_result(s, b, bytes);
	case ARG_PREFIX:
		return bind_what_there_is(s, b, bytes);
	case ARG_PLACE:
		places[b->index] = bytes;
		return 0;
	case ARG_LENGTH:
	case ARG_SIZED:
	case ARG_SPECIAL:
	case ARG_VALUE:
		break;
	}
	return 0;
}

static int unbind(const struct served *s, const struct bound *b, long result)
{
	size_t bytes;

	switch ((enum argument_kind)b->shape->kind) {
	case ARG_RESULT:
		if (result < 0 || !b->bytes)
			return 0;
		bytes = (size_t)result * b->shape->size + b->shape->more;
		return copy_to(b->user, b->bytes, MIN(bytes, b->capacity));
	case ARG_OUT:
	case ARG_SIZED:
		return copied_close(&b->copied);
	case ARG_LENGTH:
		return unbind_length(s, b, result);
	default:
		return 0;
	}
}

long serve_bound(struct served *s, const struct call_row *row, long (*call)(struct served *))
{
	struct bound bound[CALL_ARGS];
	size_t places[CALL_ARGS] = { 0 };
	unsigned n = 0, in_place = 0;
	long result;

	for (unsigned i = 0; i < CALL_ARGS; i++) {
		int error;

		if (row->arg[i].kind == ARG_VALUE || row->arg[i].kind == ARG_SPECIAL ||
		    !guard_in_window(s->given[i]))
			continue;
		bound[n] = (struct bound){ .shape = &row->arg[i], .index = i, .user = s->given[i] };
		error = bind(s, &bound[n++], places);
		if (error)
			return error;
		in_place |= places[i] != 0;
	}
	result = in_place ? place_call(s, places, true) : call(s);
	for (unsigned i = 0; i < n; i++) {
		int error = unbind(s, &bound[i], result);

		if (error && result >= 0)
			result = error;
	}
	return result;
}

long serve_by_row(struct served *s, const struct call_row *row)
{
	return serve_bound(s, row, served_call);
}

/*
 * Not in the table. Present before, and kept so; but not made again, since nobody knows
 * what it has done before it failed.
 */
long serve_unknown(struct served *s, const struct call_row *row)
{
	(void)row;
	for (unsigned i = 0; i < CALL_ARGS; i++) {
		uintptr_t page = s->given[i] & ~(PAGE_BYTES - 1);

		if (!guard_in_window(s->given[i]))
			continue;
		for (unsigned k = 0; k < 2; k++, page += PAGE_BYTES)
			if (scratch_pin(&s->scratch, page) != 0)
				place_touch(page, 1);
	}
	return served_call(s);
}

long served_run(struct served *s)
{
	const struct call_row *row = call_row(s->number);
	long result;

	s->known = row != NULL;
	memcpy(s->arg, s->given, sizeof s->arg);
	result = !row       ? serve_unknown(s, NULL) :
	         row->serve ? row->serve(s, row) :
	                      serve_by_row(s, row);
	figures_count(s->number, s->known);
	return result;
}
