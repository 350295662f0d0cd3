/* SPDX-License-Identifier: MIT */
/* base/quiesce.c - see quiesce.h. */
#include "base/quiesce.h"

#include "base/base.h"
#include "base/gate.h"
#include "base/kernel.h"
#include "base/lock.h"

#include <sys/mman.h>

static struct gate work, service;

static SIGNAL_SAFE_TLS struct {
	uint32_t depth;  /* pieces of work that this thread is in */
	bool is_quiet;   /* between begin and end: the gates are closed for others */
	bool in_service; /* of ours, in a step */
} self;

/* What the kernel sets to zero in a child. NULL: it does not (before Linux 4.14) */
static struct {
	_Atomic uint32_t known;   /* this process is no stranger */
	_Atomic uint32_t adopted; /* a thread is about to make it none */
} * process;

__attribute__((constructor)) static void make_known(void)
{
	void *p = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
	               0);

	if (p == MAP_FAILED || kernel_madvise(p, PAGE_BYTES, MADV_WIPEONFORK) != 0)
		return;
	process = p;
	atomic_store(&process->known, 1);
}

/* What is done in service, faults of our own threads included, is of one piece. */
void work_enter(void)
{
	if (self.in_service)
		return;
	if (self.depth++ == 0 && !self.is_quiet)
		gate_enter(&work);
}

void work_leave(void)
{
	if (self.in_service)
		return;
	if (--self.depth == 0 && !self.is_quiet)
		gate_leave(&work);
}

void service_enter(void)
{
	gate_enter(&service);
	self.in_service = true;
}

void service_leave(void)
{
	self.in_service = false;
	gate_leave(&service);
}

bool is_at_work(void)
{
	return self.depth > 0 || self.is_quiet || self.in_service;
}

/*
 * Both are opened again when the second cannot be closed: a thread of ours may wait for one that
 * waits at the first.
 */
static bool close_both(uint32_t own)
{
	if (!gate_try_close(&work, own))
		return false;
	if (gate_try_close(&service, 0))
		return true;
	gate_open(&work);
	return false;
}

/* At most so much of the time that an attempt took is counted: the process may have been stopped. */
#define ATTEMPT_NS UINT64_C(20000000)

bool quiesce_begin(uint64_t patience_ns)
{
	uint64_t waited = 0, start = now_ns();

	while (!close_both(self.depth > 0)) {
		gate_respite();
		waited += MIN(now_ns() - start, ATTEMPT_NS);
		start = now_ns();
		if (waited >= patience_ns)
			return false;
	}
	self.is_quiet = true;
	return true;
}

void quiesce_end(void)
{
	self.is_quiet = false;
	gate_open(&service);
	gate_open(&work);
}

/*
 * Others may have been at the gates, inside for the moment that it takes to see that they are closed.
 * (And threads of the child's own will be, as soon as there are any.)
 */
void quiesce_in_child(void)
{
	atomic_store(&work.inside, self.depth > 0);
	atomic_store(&service.inside, 0);
	if (process)
		atomic_store(&process->known, 1);
}

bool process_is_strange(void)
{
	return process && !atomic_load(&process->known);
}

bool process_adopt(void (*renew)(void))
{
	/* (Who is inside by now may have come since another has adopted it.) */
	if (!gate_is_unused(&work) || !gate_is_unused(&service))
		return !process_is_strange();
	if (process_is_strange() && atomic_exchange(&process->adopted, 1) == 0) {
		renew();
		atomic_store(&process->known, 1);
		futex_wake(&process->known, INT32_MAX, false);
	}
	while (process_is_strange())
		futex_wait(&process->known, 0, 0, false);
	return true;
}
