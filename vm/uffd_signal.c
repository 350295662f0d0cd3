/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd_signal.c - the engine `uffd-signal`: with UFFD_FEATURE_SIGBUS an
 * access to an absent page raises SIGBUS in the faulting thread, which serves
 * the fault itself and goes on (signals.c). No hand-over, no second wake-up.
 */
#include "vm/signals.h"
#include "vm/uffd.h"

#include <signal.h>

static int signal_open(struct engine *e, struct quire *q)
{
	(void)q;
	return uffd_open(e, true);
}

static int signal_start(struct engine *e)
{
	/* In a child of fork it is there already. */
	int error = e->uffd.handler ? 0 : signals_start(SIGBUS);

	e->uffd.handler = error ? NULL : e;
	return error;
}

static void signal_close(struct engine *e)
{
	if (e->uffd.handler)
		signals_stop(SIGBUS);
	e->uffd.handler = NULL;
	uffd_close(e);
}

static void signal_forsake(struct engine *e, bool started)
{
	(void)started;
	uffd_close(e);
}

const struct engine_ops engine_uffd_signal = {
	.name = "uffd-signal",
	.in_thread = true,
	.joins = true,
	.signal = SIGBUS,
	.costs =
		"the faulting thread serves its faults; system calls on absent pages need the guard",
	.open = signal_open,
	.start = signal_start,
	.close = signal_close,
	.attach = uffd_attach,
	.detach = uffd_detach,
	.attach_buffers = uffd_attach_buffers,
	.map = uffd_map,
	.map_zero = uffd_map_zero,
	.place = uffd_place,
	.unprotect = uffd_unprotect,
	.take = uffd_take,
	.save = uffd_save,
	.protect_all = uffd_protect_all,
	.drop = uffd_drop,
	.fork_in_child = uffd_fork_in_child,
	.attach_in_child = uffd_attach_in_child,
	.forsake = signal_forsake,
};
