/* SPDX-License-Identifier: MIT */
/*
 * pager/readahead.h - which pages will be wanted next.
 *
 * Pure bookkeeping: page numbers in, page numbers out. No OS, lock, clock or
 * memory of its own. One struct readahead a region, used under the region's
 * readahead lock.
 *
 * A *stream* is a run of faults at a constant stride (1: sequential, -1:
 * backward, k: strided). Faults of many threads arrive mixed; a stream is found
 * when three of the last RA_RECENT faults that belong to none are equally
 * spaced, that is two of them are in step with the first. Then a window is
 * opened behind the newest; for a stride other than 1 and -1 only when one more
 * fault has confirmed it, since there are thousands of those to be hit by
 * chance.
 *
 * A walk page by page over a range of which pages are resident shows holes, and
 * may look strided at first. Faults of no stream between the strides of a narrow
 * one give it away: it becomes a walk page by page.
 *
 * The first page of each window is its *mark*: a fault on it or beyond says
 * that the program has reached the window, and the next window is read while
 * the program walks this one. Windows double up to the widest. A window of
 * which half is given up untouched is halved instead; one given up whole closes
 * its stream, which has to be found in step again.
 *
 * Once a window is the widest, half of it is planned at a time, and the mark is
 * the start of the half before: so the disk, too, always has something before it
 * while the program walks. Between one window and one and a half is read ahead
 * then, and was between one and two without. Of such a half, too, half given up
 * halves the window.
 *
 *      first      last     mark            ahead
 *        |          |        |               |
 *        +-- walked-+--------+---- window ---+ - - next window - -
 *                       a fault here: a hole       here, or at
 *                       (no plan)                  the mark: plan
 *
 * For the mark to fault, a window is mapped when one of its pages is touched and
 * not with the window before it. If all is mapped at once, the fault one step
 * beyond the window does as well, but the program waits there for its page.
 *
 * A page that is mapped does not fault, so a fault of a live stream may fall
 * anywhere from a few steps behind last (threads overtake each other) to a few
 * steps beyond ahead (pages there were resident already).
 *
 * The same struct steers fault-around of first touches (pages never touched
 * before, filled with zeros a window at a time).
 */
#ifndef QUIRE_PAGER_READAHEAD_H
#define QUIRE_PAGER_READAHEAD_H

#include <stdbool.h>
#include <stdint.h>

#define RA_STREAMS 8
#define RA_RECENT 32       /* faults of no stream that are remembered */
#define RA_TRIGGER 2       /* faults in step before the first window */
#define RA_WINDOW_START 4  /* pages in it */
#define RA_STRIDE_MAX 4096 /* widest stride, in pages */
#define RA_SLACK 4         /* steps that a fault may lie outside of [last, ahead] */
#define RA_HALVES_FROM 64  /* widest windows of so many pages and more are planned in halves */
#define RA_DENSE 8         /* strides up to this may prove to be a walk page by page */

enum ra_mode { RA_NORMAL, RA_SEQUENTIAL, RA_RANDOM };

/*
 * Page numbers are signed here: the page before page 0 is -1. In the direction
 * of the stride first <= last, mark <= ahead, and all lie at whole strides.
 */
struct ra_stream {
	int64_t first;   /* where it was found: what was planned lies in (first, ahead) */
	int64_t last;    /* page of its furthest fault */
	int64_t mark;    /* a fault here or beyond plans the next window */
	int64_t ahead;   /* next page to be read for it (first beyond the last window) */
	int64_t stride;  /* 0: the entry is free */
	uint32_t window; /* pages in the last window, planned at once or in halves; 0: none open */
	uint32_t wasted; /* pages given up untouched since window was set */
	uint32_t used;   /* for replacement: readahead.tick of the last fault */
	uint8_t steps;   /* faults in step so far, saturating */
	uint8_t between; /* faults between its strides since the last plan */
	bool shrunk;     /* halved, or cut short, since the last plan: not doubled at the mark */
	bool writes;     /* its last fault was a write */
};

struct readahead {
	struct ra_stream stream[RA_STREAMS];
	int64_t recent[RA_RECENT]; /* ring of faults of no stream */
	uint32_t newest;           /* index of the last one */
	enum ra_mode mode;
	uint32_t max;  /* widest window in pages; 1: never read ahead */
	uint32_t tick; /* faults seen */
};

/* What to bring in: count pages start, start + stride, ...; count 0: nothing. */
struct ra_plan {
	uint64_t start;
	int64_t stride;
	uint32_t count;
	bool writes; /* the stream's recent faults were writes */
};

void readahead_init(struct readahead *ra, uint32_t max);
/* Forgets the streams if the mode changes. */
void readahead_set_mode(struct readahead *ra, enum ra_mode mode);
/* 0 is taken as 1. Windows that are open are narrowed to it. */
void readahead_set_max(struct readahead *ra, uint32_t max);

/*
 * A fault at page (major, first touch, or on a page read ahead and not mapped
 * yet). pages: length of the region. Plans never leave the region and never
 * contain page itself; a plan starts where the stream's last window ended, so
 * a page is planned once as a stream walks over it. The first plan of a stream
 * starts one step from page.
 * => true: *plan has count > 0
 */
bool readahead_fault(struct readahead *ra, uint64_t page, uint64_t pages, bool write,
                     struct ra_plan *plan);

/*
 * Only the first count pages of a plan are being read (no buffers, no queue); 0: none. The stream's next window starts
 * behind them, instead of the program faulting on each of the others.
 */
void readahead_truncated(struct readahead *ra, const struct ra_plan *plan, uint32_t count);

/* count pages read ahead around page were given up untouched: their stream shrinks. */
void readahead_wasted(struct readahead *ra, uint64_t page, uint32_t count);

#endif
