/* SPDX-License-Identifier: MIT */
/*
 * guard/special.c - calls whose arguments mean this or that, and those that change what
 * the return from our handler would undo.
 */
#include "guard/copy.h"
#include "guard/guard.h"
#include "guard/served.h"

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define TIMESPEC 16

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif

/* ----------------------------------------------------------------- futex */

/*
 * A futex is where it is. A wait or a wake-up that finds the page absent has done
 * nothing and is made again; while a thread sleeps the kernel does not look at the page,
 * which may be evicted. But of a lock with priority inheritance the kernel writes
 * the word when it is handed over: its page is pinned.
 */
static unsigned pi_argument(unsigned op)
{
	switch (op) {
	case FUTEX_LOCK_PI:
	case FUTEX_LOCK_PI2:
	case FUTEX_TRYLOCK_PI:
	case FUTEX_UNLOCK_PI:
		return 0;
	case FUTEX_WAIT_REQUEUE_PI:
	case FUTEX_CMP_REQUEUE_PI:
		return 4;
	default:
		return CALL_ARGS;
	}
}

static bool has_timeout(unsigned op)
{
	return op == FUTEX_WAIT || op == FUTEX_WAIT_BITSET || op == FUTEX_LOCK_PI ||
	       op == FUTEX_LOCK_PI2 || op == FUTEX_WAIT_REQUEUE_PI;
}

static bool has_second(unsigned op)
{
	return op == FUTEX_REQUEUE || op == FUTEX_CMP_REQUEUE || op == FUTEX_WAKE_OP ||
	       op == FUTEX_WAIT_REQUEUE_PI || op == FUTEX_CMP_REQUEUE_PI;
}

long serve_futex(struct served *s, const struct call_row *row)
{
	unsigned op = (unsigned)s->given[1] & (unsigned)FUTEX_CMD_MASK, pi = pi_argument(op);
	size_t places[CALL_ARGS] = { sizeof(uint32_t), 0, 0, 0, has_second(op) ? 4 : 0, 0 };
	struct copied timeout;

	(void)row;
	if (has_timeout(op) && copied_open(s, &timeout, &s->arg[3], TIMESPEC, false))
		return -EFAULT;
	if (pi < CALL_ARGS && guard_in_window(s->given[pi]))
		scratch_pin(&s->scratch, s->given[pi] & ~(PAGE_BYTES - 1));
	return place_call(s, places, false);
}

static long wait_for_many(struct served *s)
{
	uint32_t n = (uint32_t)s->given[1];
	struct waiter *waiters;
	long result;

	if (n == 0 || n > WAITERS_MAX)
		return -EINVAL;
	waiters = scratch_get(&s->scratch, n * sizeof *waiters, SCRATCH_ANY);
	if (!waiters || copy_from(waiters, s->given[0], n * sizeof *waiters))
		return -EFAULT;
	s->arg[0] = (unsigned long)waiters;
	/* All words must be there at once, and there may be more than the budget has pages. */
	for (int tries = 0; (result = served_call(s)) == -EFAULT && tries < 100; tries++)
		for (uint32_t i = 0; i < n; i++)
			if (place_touch(waiters[i].address, sizeof(uint32_t)))
				return -EFAULT;
	return result;
}

long serve_futex_waitv(struct served *s, const struct call_row *row)
{
	return serve_bound(s, row, wait_for_many);
}

/* ---------------------------------------------------------- ioctl, fcntl */

/* Bytes of an ioctl whose number does not say it. => 0: none of these */
static size_t old_ioctl_bytes(unsigned request)
{
	switch (request) {
	case TCGETS:
	case TCSETS:
	case TCSETSW:
	case TCSETSF:
		return 36;
	case TIOCGWINSZ:
	case TIOCSWINSZ:
		return 8;
	case FIONREAD:
	case FIONBIO:
	case FIOASYNC:
	case TIOCOUTQ:
	case TIOCGPGRP:
	case TIOCSPGRP:
	case TIOCGSID:
	case TIOCMGET:
	case TIOCMSET:
	case TIOCSTI:
		return 4;
	default:
		/* Of network interfaces: struct ifreq. */
		return request >= 0x8910 && request <= 0x8950 ? 40 : 0;
	}
}

/* Present, and kept so if it can be. */
static void hold(struct served *s, unsigned long address, size_t bytes)
{
	for (unsigned long at = address & ~(PAGE_BYTES - 1); at < address + bytes; at += PAGE_BYTES)
		if (guard_in_window(at) && scratch_pin(&s->scratch, at) != 0)
			place_touch(MAX(at, address), 1);
}

/*
 * In place: of some options the length is not in bytes (SO_GET_FILTER), and a copy would be
 * too short. Pinned, as one that has failed may have done something (SO_ERROR).
 */
long serve_getsockopt(struct served *s, const struct call_row *row)
{
	size_t places[CALL_ARGS] = { 0, 0, 0, 1, sizeof(uint32_t), 0 };
	int32_t length;

	(void)row;
	if (copy_from(&length, s->given[4], sizeof length))
		return -EFAULT;
	hold(s, s->given[4], sizeof length);
	hold(s, s->given[3], (size_t)MIN(MAX(length, 0), 2 * (int32_t)PAGE_BYTES));
	return place_call(s, places, true);
}

/*
 * In place: behind a structure of known size there may be more, which a copy would not
 * have room for. Pinned, as an ioctl that has failed may have done something.
 */
long serve_ioctl(struct served *s, const struct call_row *row)
{
	unsigned request = (unsigned)s->given[1];
	size_t bytes = _IOC_SIZE(request), places[CALL_ARGS] = { 0 };

	if (bytes == 0 || _IOC_DIR(request) == _IOC_NONE)
		bytes = old_ioctl_bytes(request);
	if (bytes == 0) {
		s->known = false;
		return serve_unknown(s, row);
	}
	hold(s, s->given[2], bytes);
	places[2] = bytes;
	return place_call(s, places, true);
}

static size_t fcntl_bytes(int command)
{
	switch (command) {
	case F_GETLK:
	case F_SETLK:
	case F_SETLKW:
	case F_OFD_GETLK:
	case F_OFD_SETLK:
	case F_OFD_SETLKW:
		return 32; /* struct flock */
	case F_GETOWN_EX:
	case F_SETOWN_EX:
	case F_GET_RW_HINT:
	case F_SET_RW_HINT:
	case F_GET_FILE_RW_HINT:
	case F_SET_FILE_RW_HINT:
	case 17: /* F_GETOWNER_UIDS */
		return 8;
	default:
		return 0;
	}
}

long serve_fcntl(struct served *s, const struct call_row *row)
{
	size_t bytes = fcntl_bytes((int)s->given[1]);
	struct copied copied;
	long result;
	int error;

	(void)row;
	if (bytes == 0)
		return served_call(s);
	error = copied_open(s, &copied, &s->arg[2], bytes, true);
	if (error)
		return error;
	result = served_call(s);
	error = copied_close(&copied);
	return error && result >= 0 ? error : result;
}

/* ----------------------------------------------------------------- select */

#define DESCRIPTORS_MAX (1u << 20)

/* pselect6's last argument: a set of signals and its length. */
struct masked {
	unsigned long set;
	size_t bytes;
};

static int copy_mask(struct served *s, struct masked *masked, struct copied *set)
{
	if (copy_from(masked, s->given[5], sizeof *masked))
		return -EFAULT;
	s->arg[5] = (unsigned long)masked;
	if (!masked->set || masked->bytes != sizeof(uint64_t))
		return 0;
	return copied_open(s, set, &masked->set, masked->bytes, false);
}

long serve_select(struct served *s, const struct call_row *row)
{
	uint32_t n = (uint32_t)s->given[0];
	struct copied copies[4], set;
	struct masked masked;
	long result;
	int error = 0;

	(void)row;
	if ((int32_t)n < 0)
		return -EINVAL;
	if (n > DESCRIPTORS_MAX) /* as many as there can be: the kernel cuts it, too */
		s->arg[0] = n = DESCRIPTORS_MAX;
	for (unsigned i = 0; i < 4 && !error; i++)
		error = copied_open(s, &copies[i], &s->arg[1 + i],
		                    i < 3 ? (n + 63) / 64 * sizeof(uint64_t) : TIMESPEC, true);
	if (!error && s->number == SYS_pselect6 && s->given[5])
		error = copy_mask(s, &masked, &set);
	if (error)
		return error;
	result = served_call(s);
	for (unsigned i = 0; i < 4; i++)
		error = copied_close(&copies[i]) ? -EFAULT : error;
	return error && result >= 0 ? error : result;
}

/* ---------------------------------------------- what the signal's context holds */

/*
 * The mask and the alternate stack are put back as they were when our handler returns:
 * what the program wants is written where the kernel will take it from.
 */
long serve_sigmask(struct served *s, const struct call_row *row)
{
	ucontext_t *c = s->context;
	uint64_t set = 0, now;

	(void)row;
	if (!c || s->given[3] != sizeof set)
		return -EINVAL;
	memcpy(&now, &c->uc_sigmask, sizeof now);
	if (s->given[1] && copy_from(&set, s->given[1], sizeof set))
		return -EFAULT;
	if (s->given[1] && (uint32_t)s->given[0] > SIG_SETMASK)
		return -EINVAL;
	/* Before the mask changes: the page may be absent. */
	if (s->given[2] && copy_to(s->given[2], &now, sizeof now))
		return -EFAULT;
	if (!s->given[1])
		return 0;
	switch ((int)s->given[0]) {
	case SIG_BLOCK:
		now |= set;
		break;
	case SIG_UNBLOCK:
		now &= ~set;
		break;
	default:
		now = set;
	}
	memcpy(&c->uc_sigmask, &now, sizeof now);
	return 0;
}

#define AUTODISARM (1u << 31)
#define STACK_LEAST 2048u /* the kernel's MINSIGSTKSZ */

#if defined(__x86_64__)

static uintptr_t stack_pointer(const ucontext_t *c)
{
	return (uintptr_t)c->uc_mcontext.gregs[REG_RSP];
}

/*
 * Have the program make the call again, for a copy, when the handler has returned. (Its
 * register of the first argument is another afterwards.) => what the result is to be
 */
static long make_afterwards(struct served *s, const stack_t *new)
{
	static SIGNAL_SAFE_TLS stack_t copy;
	ucontext_t *c = s->context;

	copy = *new;
	c->uc_mcontext.gregs[REG_RDI] = (greg_t)(uintptr_t)&copy;
	c->uc_mcontext.gregs[REG_RSI] = 0;
	c->uc_mcontext.gregs[REG_RIP] -= 2; /* the length of its instruction */
	return s->number;
}

#else

static uintptr_t stack_pointer(const ucontext_t *c)
{
	(void)c;
	return 0;
}

static long make_afterwards(struct served *s, const stack_t *new)
{
	(void)s;
	(void)new;
	return -ENOSYS;
}

#endif

static bool is_on_alternate(const ucontext_t *c, const void *frame)
{
	return (uintptr_t)frame - (uintptr_t)c->uc_stack.ss_sp < c->uc_stack.ss_size;
}

static int check_stack(const stack_t *new, bool is_on)
{
	unsigned mode = (unsigned)new->ss_flags & ~AUTODISARM;

	if (is_on)
		return -EPERM;
	if (mode != 0 && mode != SS_DISABLE && mode != SS_ONSTACK)
		return -EINVAL;
	if (mode != SS_DISABLE && new->ss_size < STACK_LEAST)
		return -ENOMEM;
	return 0;
}

/*
 * The kernel takes the stack from our handler's context as long as the handler itself is
 * not on it; newer ones (6.12) look where that is.
 */
long serve_sigaltstack(struct served *s, const struct call_row *row)
{
	ucontext_t *c = s->context;
	stack_t old, new;
	bool is_on;
	int error;

	(void)row;
	if (!c)
		return -EINVAL;
	old = c->uc_stack;
	is_on = old.ss_size && stack_pointer(c) - (uintptr_t)old.ss_sp < old.ss_size;
	old.ss_flags = (int)((unsigned)old.ss_flags & AUTODISARM) | (old.ss_size == 0 ? SS_DISABLE :
	                                                             is_on            ? SS_ONSTACK :
	                                                                                0);
	if (s->given[0]) {
		error = copy_from(&new, s->given[0], sizeof new);
		if (!error)
			error = check_stack(&new, is_on);
		if (error)
			return error;
	}
	if (s->given[1] && copy_to(s->given[1], &old, sizeof old))
		return -EFAULT;
	if (!s->given[0])
		return 0;
	if (is_on_alternate(c, __builtin_frame_address(0)))
		return make_afterwards(s, &new);
	if ((unsigned)new.ss_flags & SS_DISABLE)
		new = (stack_t){ .ss_flags = new.ss_flags };
	c->uc_stack = new;
	return 0;
}
