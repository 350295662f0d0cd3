/* SPDX-License-Identifier: MIT */
/*
 * base/gate.h - many may be inside; who closes it has all of them leave and keeps others out.
 *
 * To pass costs two atomic additions. Like a lock for readers and a writer, but that the
 * writer gives way: those inside may wait for somebody who waits at the gate (they read a page
 * whose fault a handler would have to serve, and that must pass first), so a gate that cannot be
 * closed within a few milliseconds opens again for a moment.
 */
#ifndef QUIRE_BASE_GATE_H
#define QUIRE_BASE_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct gate {
	_Atomic uint32_t inside;
	_Atomic uint32_t closed; /* futex */
};

void gate_enter(struct gate *g);
void gate_leave(struct gate *g);
/* One attempt. self: so many of those inside are the caller itself. => false: it is open */
bool gate_try_close(struct gate *g, uint32_t self);
/* Between two attempts: for those at the gate to pass. */
void gate_respite(void);
void gate_close(struct gate *g, uint32_t self);
void gate_open(struct gate *g);
/* It is open, and nobody is inside. */
bool gate_is_unused(struct gate *g);

#endif
