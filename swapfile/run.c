/* SPDX-License-Identifier: MIT */
/*
 * swapfile/run.c - one transfer from start to end; see run.h.
 *
 * Progress is counted in whole pages: O_DIRECT could not continue elsewhere,
 * and half a page proves nothing. A run ends, whatever the disk does: each
 * answer either makes progress or uses up one of a bounded number of tries
 * (RETRIES, PATIENCE).
 */
#include "swapfile/run.h"

#include "base/base.h"
#include "swapfile/checksum.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Failures that may be of the moment: tried again this often in a run. */
#define RETRIES 2
/* Answers EAGAIN, EINTR in a row without progress, and after how many of them to sleep between. */
#define PATIENCE 1000
#define HASTE 8
#define PAUSE_NS 100000

static unsigned char *page_at(const struct swap_run *run, unsigned i)
{
	return (unsigned char *)run->base + i * PAGE_BYTES;
}

void run_start(struct swapfile *s, struct swap_run *run)
{
	slot_t slot = run->slot;

	ASSERT(run->count >= 1 && run->count == (unsigned)__builtin_popcountll(run->pages));
	ASSERT(run->base && (uintptr_t)run->base % PAGE_BYTES == 0);
	ASSERT(slot != SLOT_NONE && slot + run->count <= s->slots.control->extent);
	for (uint64_t left = run->pages; left; left &= left - 1, slot++) {
		DEBUG_ASSERT(slots_references(&s->slots, slot) > 0);
		if (run->op == SWAP_WRITE)
			slots_set_sum(
				&s->slots, slot,
				checksum_page(slot, page_at(run, (unsigned)__builtin_ctzll(left))));
	}
	run->status = 0;
	run->bad = 0;
	run->done = 0;
	run->again = 0;
	run->tries = 0;
}

void run_request(struct swap_run *run, struct io_request *request)
{
	struct iovec *piece = run->pieces ? run->pieces : &run->piece;
	unsigned room = run->pieces ? SWAP_RUN_PIECES : 1, n = 0;
	uint64_t left = run->pages;

	for (unsigned done = run->done / PAGE_BYTES; done > 0; done--)
		left &= left - 1;
	/* Neighbours in memory are one piece: less work for kernel and disk. */
	for (; left && n < room; n++) {
		unsigned first = (unsigned)__builtin_ctzll(left), pages = bit_row(left, first);

		piece[n] = (struct iovec){ page_at(run, first), pages * PAGE_BYTES };
		left &= ~bits(first, pages);
	}
	*request = (struct io_request){
		.write = run->op == SWAP_WRITE,
		.iov = piece,
		.iov_count = n,
		.offset = (uint64_t)run->slot * PAGE_BYTES + run->done,
		.tag = run,
	};
}

void run_pause(void)
{
	struct timespec t = { .tv_nsec = PAUSE_NS };
	int saved = errno;

	/* Not nanosleep(3), a cancellation point. */
	syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, NULL);
	errno = saved;
}

static enum run_step finish(struct swapfile *s, struct swap_run *run, int status)
{
	slot_t slot = run->slot;

	run->status = status;
	if (status != 0 || run->op == SWAP_WRITE)
		return RUN_DONE;
	for (uint64_t left = run->pages, bit = 1; left; left &= left - 1, bit <<= 1, slot++)
		if (checksum_page(slot, page_at(run, (unsigned)__builtin_ctzll(left))) !=
		    slots_sum(&s->slots, slot))
			run->bad |= bit;
	return RUN_DONE;
}

/* No progress, but nothing is wrong with the disk. */
static enum run_step again(struct swapfile *s, struct swap_run *run, int error)
{
	if (++run->again > PATIENCE)
		return finish(s, run, -error);
	if (run->again > HASTE)
		run_pause();
	return RUN_CONTINUE;
}

static enum run_step failed(struct swapfile *s, struct swap_run *run, int error)
{
	if (++run->tries > RETRIES)
		return finish(s, run, -error);
	return RUN_CONTINUE;
}

enum run_step run_advance(struct swapfile *s, struct swap_run *run, int64_t result)
{
	uint32_t rest = run->count * (uint32_t)PAGE_BYTES - run->done;

	switch (result) {
	case -EINTR:
	case -EAGAIN:
	case -EBUSY:
		return again(s, run, (int)-result);
	case -ECANCELED: /* the thread that had started it has ended */
		return again(s, run, EIO);
	case -EIO:
		return failed(s, run, EIO);
	case -EDQUOT:
		return finish(s, run, -ENOSPC);
	}
	if (result < 0)
		return finish(s, run, (int)result);
	/* Nonsense, or the end of the file, or too little. */
	if (result > rest || result < (int64_t)PAGE_BYTES)
		return failed(s, run, EIO);
	run->done += (uint32_t)result & ~(uint32_t)(PAGE_BYTES - 1);
	run->again = 0;
	if (run->done == run->count * PAGE_BYTES)
		return finish(s, run, 0);
	return RUN_CONTINUE;
}
