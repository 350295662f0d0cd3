/* SPDX-License-Identifier: MIT */
/*
 * swapfile/run.h - one swap_run on its way: what to ask the backend for next,
 * and what its answer means. queue.c and transfer.c drive it.
 *
 *                 short, EINTR, EAGAIN, EIO (a few times)
 *                    +--------+
 *                    v        |
 *   run_start -> run_request -+-> RUN_DONE (run_advance has filled in
 *                                 status and bad)
 */
#ifndef QUIRE_SWAPFILE_RUN_H
#define QUIRE_SWAPFILE_RUN_H

#include "swapfile/io.h"
#include "swapfile/store.h"

enum run_step { RUN_DONE, RUN_CONTINUE };

/* Check what the caller filled in, forget earlier results; note the checksums of a write. */
void run_start(struct swapfile *s, struct swap_run *run);

/* The rest of the run as one request, as far as there is room for its pieces; these stay the run's. */
void run_request(struct swap_run *run, struct io_request *request);

/*
 * The backend's answer to the last request: bytes or -errno.
 * => RUN_DONE: status and bad are final. RUN_CONTINUE: request again. May
 *    sleep for a fraction of a millisecond if the system is short of something
 */
enum run_step run_advance(struct swapfile *s, struct swap_run *run, int64_t result);

/* The rest of a run on the calling thread (transfer.c). => its status and bad are final */
void run_finish_here(struct swapfile *s, struct swap_run *run);

/* Sleep for a fraction of a millisecond. No cancellation point; leaves errno alone. */
void run_pause(void);

#endif
