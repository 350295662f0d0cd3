/* SPDX-License-Identifier: MIT */
/*
 * guard/calls.h - the table of system calls: for each, which arguments are pointers and
 * to how much memory. What the filter traps and how a call is served follow from it.
 */
#ifndef QUIRE_GUARD_CALLS_H
#define QUIRE_GUARD_CALLS_H

#include <stdint.h>

#define CALL_ARGS 6

enum argument_kind {
	ARG_VALUE = 0, /* a number; or an address that the kernel does not touch here */
	ARG_STRING,    /* read, up to its NUL */
	ARG_IN,        /* read */
	ARG_OUT,       /* written, or not, or a part of it */
	ARG_RESULT,    /* written: as many as the call returns */
	ARG_LENGTH, /* a socket's name, written: as many as another argument points to; that, too */
	ARG_SIZED,  /* read: as many as the number of 32 bits says that it begins with */
	ARG_PREFIX, /* read: as many as there are */
	ARG_PLACE, /* must be where it is, or: not worth a copy. It can be made again after EFAULT */
	ARG_SPECIAL, /* the row's own function knows */
};

#define BY_NONE 7
#define BY_PAGES 16 /* and: one for each page of so many bytes */
#define BY_INT \
	8 /* and: that argument has 32 bits; what is above them in its register is anything */

/* Bytes: size, or size times the argument numbered by, or that plus more. */
struct argument {
	uint8_t kind; /* enum argument_kind */
	uint8_t by;
	uint8_t more;
	uint16_t size;
};

struct served;
struct call_row;
typedef long (*call_server)(struct served *, const struct call_row *);

struct call_row {
	const char *name;
	struct argument arg[CALL_ARGS];
	call_server serve; /* NULL: by the row (serve_by_row) */
};

#define CALLS_MAX 512u

/* => NULL: not in the table */
const struct call_row *call_row(long number);
/* Bit i: argument i is a pointer that the kernel follows. All, for what is not in the table. */
unsigned call_pointers(long number);

long serve_by_row(struct served *s, const struct call_row *row);
long serve_unknown(struct served *s, const struct call_row *row);
/* transfer.c */
long serve_transfer(struct served *s, const struct call_row *row);
long serve_process_vm(struct served *s, const struct call_row *row);
/* message.c */
long serve_message(struct served *s, const struct call_row *row);
long serve_messages(struct served *s, const struct call_row *row);
/* exec.c */
long serve_exec(struct served *s, const struct call_row *row);
/* special.c */
long serve_getsockopt(struct served *s, const struct call_row *row);
long serve_futex(struct served *s, const struct call_row *row);
long serve_futex_waitv(struct served *s, const struct call_row *row);
long serve_ioctl(struct served *s, const struct call_row *row);
long serve_fcntl(struct served *s, const struct call_row *row);
long serve_select(struct served *s, const struct call_row *row);
long serve_sigmask(struct served *s, const struct call_row *row);
long serve_sigaltstack(struct served *s, const struct call_row *row);

#endif
