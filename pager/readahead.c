/* SPDX-License-Identifier: MIT */
/*
 * pager/readahead.c - finds streams in the faults of a region and plans what to
 * read before it is touched. See readahead.h for the picture.
 *
 * A fault is tried in turn as
 *   1. a step of a stream that is known (match, step);
 *   2. in RA_SEQUENTIAL, the first of a new stream (begin);
 *   3. a page between the strides of a stream that is none (overstepped);
 *   4. the third of three in step among the recent faults of no stream (find);
 *   5. noise, remembered for 4.
 * Noise never touches a stream: only a new stream replaces an old one, and
 * chance makes few of those. Which one goes: see replaceable.
 *
 * Source of the mark and of the doubling window: the on-demand readahead of
 * Linux (F. Wu, H. Xi, J. Li and N. Zou, Linux Symposium 2007).
 *
 * Costs a fault: a look at RA_STREAMS entries, and if none claims it two at
 * RA_RECENT numbers.
 */
#include "pager/readahead.h"

#include "base/base.h"

/* Longer regions are never read ahead. Keeps every sum below far from overflow. */
#define PAGES_MAX ((uint64_t)1 << 48)

/* A stream is taken for dead when the region had so many faults for each page of its window. */
#define IDLE 16

#define NO_PAGE INT64_MIN

_Static_assert(RA_TRIGGER == 2, "find looks for three faults, two of them in step");

/* A fault on its way through the file, and where its plan goes. */
struct fault_seen {
	int64_t page, pages;
	bool write;
	struct ra_plan *plan;
};

static void forget(struct readahead *ra)
{
	for (int i = 0; i < RA_STREAMS; i++)
		ra->stream[i] = (struct ra_stream){ 0 };
	for (int i = 0; i < RA_RECENT; i++)
		ra->recent[i] = NO_PAGE;
	ra->newest = 0;
}

void readahead_init(struct readahead *ra, uint32_t max)
{
	forget(ra);
	ra->mode = RA_NORMAL;
	ra->max = MAX(max, 1u);
	ra->tick = 0;
}

void readahead_set_mode(struct readahead *ra, enum ra_mode mode)
{
	if (ra->mode != mode)
		forget(ra);
	ra->mode = mode;
}

void readahead_set_max(struct readahead *ra, uint32_t max)
{
	ra->max = MAX(max, 1u);
	for (int i = 0; i < RA_STREAMS; i++)
		ra->stream[i].window = MIN(ra->stream[i].window, ra->max);
}

static bool unit_stride(int64_t stride)
{
	return stride == 1 || stride == -1;
}

/* Steps from one page to another along a stream; only for pages at whole strides. */
static int64_t steps_between(const struct ra_stream *s, int64_t from, int64_t to)
{
	return (to - from) / s->stride;
}

static bool at_stride(const struct ra_stream *s, int64_t page)
{
	return unit_stride(s->stride) || (page - s->last) % s->stride == 0;
}

/* ------------------------------------------------------------- windows */

/* Is this the widest window, and is half of it still worth a plan? */
static bool in_halves(const struct readahead *ra, const struct ra_stream *s)
{
	return s->window == ra->max && ra->max >= RA_HALVES_FROM;
}

static uint32_t plan_length(const struct readahead *ra, const struct ra_stream *s)
{
	return in_halves(ra, s) ? s->window / 2 : s->window;
}

/*
 * Plan s->window pages, or half of the widest window, from s->ahead, or from
 * beyond the faulting page where that is further, as far as the region goes.
 */
static bool plan_window(const struct readahead *ra, struct ra_stream *s, const struct fault_seen *f)
{
	int64_t start = s->ahead, room = 0, want = plan_length(ra, s);

	if (steps_between(s, f->page, start) <= 0)
		start = f->page + s->stride;
	if (start >= 0 && start < f->pages)
		room = steps_between(s, start, s->stride > 0 ? f->pages - 1 : 0) + 1;
	room = MIN(room, want);

	s->mark = in_halves(ra, s) && room ? start - want * s->stride : start;
	s->ahead = start + room * s->stride;
	s->wasted = 0;
	s->shrunk = false;
	s->between = 0;
	if (room == 0)
		return false;
	*f->plan = (struct ra_plan){
		.start = (uint64_t)start,
		.stride = s->stride,
		.count = (uint32_t)room,
		.writes = f->write && s->writes,
	};
	return true;
}

/* Plan window pages next to the faulting one. */
static bool open_window(const struct readahead *ra, struct ra_stream *s, uint32_t window,
                        const struct fault_seen *f)
{
	s->window = window;
	s->first = f->page;
	s->ahead = f->page + s->stride;
	return plan_window(ra, s, f);
}

/* ------------------------------------------------------------- a known stream */

/* May a fault at page be a step of s? The bounds first: they cost no division. */
static bool claims(const struct ra_stream *s, int64_t page)
{
	int64_t from = s->last, to = s->ahead;

	if (s->stride == 0)
		return false;
	if (s->window > 0) {
		to += RA_SLACK * s->stride;
		/* one fault gives no direction: what lies behind it may be a stream going back */
		if (s->steps > 0)
			from -= RA_SLACK * s->stride;
	}
	return page >= MIN(from, to) && page <= MAX(from, to) && at_stride(s, page);
}

static int64_t distance(int64_t d)
{
	return d < 0 ? -d : d;
}

/* Is a fault that both claim rather one of s? The denser first, then the wider. */
static bool closer(const struct ra_stream *s, const struct ra_stream *than)
{
	int64_t a = distance(s->stride), b = distance(than->stride);

	return a != b ? a < b : s->window > than->window;
}

/* The stream that a fault belongs to, or NULL. */
static struct ra_stream *match(struct readahead *ra, int64_t page)
{
	struct ra_stream *best = NULL;

	for (int i = 0; i < RA_STREAMS; i++) {
		struct ra_stream *s = &ra->stream[i];

		if (claims(s, page) && (!best || closer(s, best)))
			best = s;
	}
	return best;
}

static bool step(struct readahead *ra, struct ra_stream *s, const struct fault_seen *f)
{
	bool planned = false;

	s->used = ra->tick;
	if (steps_between(s, s->last, f->page) <= 0)
		return false; /* a straggler, or the same page again */
	s->last = f->page;
	if (s->steps < UINT8_MAX)
		s->steps++;

	if (s->window == 0) {
		s->ahead = f->page + s->stride;
		if (s->steps >= RA_TRIGGER)
			planned = open_window(ra, s, MIN(RA_WINDOW_START, ra->max), f);
	} else if (steps_between(s, s->mark, f->page) >= 0) {
		if (!s->shrunk)
			s->window = s->window > ra->max / 2 ? ra->max : s->window * 2;
		planned = plan_window(ra, s, f);
	}
	s->writes = f->write;
	return planned;
}

/*
 * Faults of no stream between the strides of a narrow one: the second since its
 * last plan shows that the program goes page by page, and so does the stream
 * from here. => false: there is no such stream
 */
static bool overstepped(struct readahead *ra, const struct fault_seen *f)
{
	for (int i = 0; i < RA_STREAMS; i++) {
		struct ra_stream *s = &ra->stream[i];

		if (distance(s->stride) < 2 || distance(s->stride) > RA_DENSE ||
		    f->page <= MIN(s->last, s->ahead) || f->page >= MAX(s->last, s->ahead) ||
		    ++s->between < RA_TRIGGER)
			continue;
		s->stride = s->stride > 0 ? 1 : -1;
		s->last = f->page;
		s->used = ra->tick;
		s->steps = RA_TRIGGER;
		open_window(ra, s, MIN(RA_WINDOW_START, ra->max), f);
		s->writes = f->write;
		return true;
	}
	return false;
}

/* ------------------------------------------------------------- a new stream */

/*
 * The entry to be used for a new stream: a free one, else a dead one, else one
 * without a proven window; the longest silent of these. Of live ones the one
 * with the narrowest window, and only for a stream that is sure (three
 * neighbours): => NULL if it is not.
 */
static struct ra_stream *replaceable(struct readahead *ra, bool sure)
{
	struct ra_stream *best = NULL;
	uint64_t rank, best_rank = UINT64_MAX;

	for (int i = 0; i < RA_STREAMS; i++) {
		struct ra_stream *s = &ra->stream[i];
		uint32_t idle = ra->tick - s->used;

		if (s->stride == 0)
			return s;
		if (s->window > 0 && idle / IDLE > s->window)
			rank = 0;
		else if (s->window == 0 || s->steps < RA_TRIGGER)
			rank = 1;
		else if (sure)
			rank = 1 + (uint64_t)MIN(s->window, (uint32_t)INT32_MAX);
		else
			continue;
		rank = rank << 32 | (UINT32_MAX - idle);
		if (rank < best_rank) {
			best_rank = rank;
			best = s;
		}
	}
	return best;
}

static void start_stream(struct readahead *ra, struct ra_stream *s, int64_t stride, uint8_t steps,
                         const struct fault_seen *f)
{
	*s = (struct ra_stream){
		.first = f->page,
		.last = f->page,
		.ahead = f->page + stride,
		.stride = stride,
		.used = ra->tick,
		.steps = steps,
		.writes = f->write,
	};
}

/* RA_SEQUENTIAL: any fault of no stream begins one, upward unless it is just below another such. */
static bool begin(struct readahead *ra, const struct fault_seen *f)
{
	struct ra_stream *s = NULL;
	int64_t stride = 1;

	for (int i = 0; i < RA_STREAMS && stride == 1; i++) {
		s = &ra->stream[i];
		if (s->stride == 1 && s->steps == 0 && s->last == f->page + 1)
			stride = -1;
	}
	if (stride == 1)
		s = replaceable(ra, true);
	start_stream(ra, s, stride, stride == 1 ? 0 : 1, f);
	return open_window(ra, s, ra->max, f);
}

/* The i-th last fault of no stream, 0 the newest. */
static int64_t *recent(struct readahead *ra, int i)
{
	return &ra->recent[(ra->newest - (uint32_t)i) % RA_RECENT];
}

static void remember(struct readahead *ra, int64_t page)
{
	ra->newest++;
	*recent(ra, 0) = page;
}

/* Where page is among the i-th last fault and older ones, or NULL. */
static int64_t *remembered(struct readahead *ra, int64_t page, int i)
{
	for (; i < RA_RECENT; i++)
		if (*recent(ra, i) == page)
			return recent(ra, i);
	return NULL;
}

/* A filter says which pages may be remembered: most of those asked for are not. */
#define FILTER_WORDS 4u

static uint64_t *filter_word(uint64_t *filter, int64_t page)
{
	return &filter[((uint64_t)page >> 6) % FILTER_WORDS];
}

static uint64_t filter_bit(int64_t page)
{
	return (uint64_t)1 << ((uint64_t)page % 64);
}

/*
 * Look for two recent faults that make three in step with page, and take the
 * narrowest stride. Strided faults must have come in their order; neighbours
 * may have come in any, as when threads share out a range. What has made a
 * stream is forgotten, lest it make another with the next page near it.
 */
static bool find(struct readahead *ra, const struct fault_seen *f)
{
	uint64_t filter[FILTER_WORDS] = { 0 };
	int64_t stride = 0, width = RA_STRIDE_MAX + 1;
	int64_t *first = NULL, *second = NULL, *r;
	struct ra_stream *s;
	bool known = false;

	for (int i = 0; i < RA_RECENT; i++)
		*filter_word(filter, ra->recent[i]) |= filter_bit(ra->recent[i]);
	for (int i = 0; i < RA_RECENT; i++) {
		int64_t q = *recent(ra, i), d, w;

		if (q == NO_PAGE)
			continue;
		d = f->page - q;
		w = distance(d);
		known = known || w == 0;
		if (w == 0 || w >= width || !(*filter_word(filter, q - d) & filter_bit(q - d)))
			continue;
		r = remembered(ra, q - d, unit_stride(d) ? 0 : i + 1);
		if (!r)
			continue;
		stride = d;
		width = w;
		first = r;
		second = recent(ra, i);
	}
	s = stride ? replaceable(ra, unit_stride(stride)) : NULL;
	if (!s) {
		if (!known)
			remember(ra, f->page);
		return false;
	}
	*first = *second = NO_PAGE;
	start_stream(ra, s, stride, RA_TRIGGER, f);
	if (!unit_stride(stride))
		return false;
	return open_window(ra, s, MIN(RA_WINDOW_START, ra->max), f);
}

bool readahead_fault(struct readahead *ra, uint64_t page, uint64_t pages, bool write,
                     struct ra_plan *plan)
{
	struct fault_seen f = { (int64_t)page, (int64_t)pages, write, plan };
	struct ra_stream *s;

	*plan = (struct ra_plan){ 0 };
	if (ra->mode == RA_RANDOM || ra->max <= 1 || page >= pages || pages > PAGES_MAX)
		return false;
	ra->tick++;
	s = match(ra, f.page);
	if (s)
		return step(ra, s, &f);
	if (ra->mode == RA_SEQUENTIAL)
		return begin(ra, &f);
	if (overstepped(ra, &f))
		return plan->count > 0;
	return find(ra, &f);
}

/* ------------------------------------------------------------- what became of a plan */

/* The plan is its stream's last if it ends where the stream has planned to. */
void readahead_truncated(struct readahead *ra, const struct ra_plan *plan, uint32_t count)
{
	int64_t start = (int64_t)plan->start;

	if (count >= plan->count)
		return;
	for (int i = 0; i < RA_STREAMS; i++) {
		struct ra_stream *s = &ra->stream[i];

		if (s->stride != plan->stride || s->ahead != start + s->stride * plan->count)
			continue;
		s->ahead = start + s->stride * count;
		s->shrunk = true;
		return;
	}
}

/*
 * The stream that planned page is the one that has it between where it was
 * found and where it has planned to; of several, the one least far beyond it.
 */
void readahead_wasted(struct readahead *ra, uint64_t page, uint32_t count)
{
	struct ra_stream *best = NULL;
	int64_t at = (int64_t)page, least = INT64_MAX;

	if (page >= PAGES_MAX)
		return;
	for (int i = 0; i < RA_STREAMS; i++) {
		struct ra_stream *s = &ra->stream[i];
		int64_t beyond;

		if (s->stride == 0 || s->window == 0 || !at_stride(s, at) ||
		    steps_between(s, s->first, at) <= 0)
			continue;
		beyond = steps_between(s, at, s->ahead);
		if (beyond > 0 && beyond < least) {
			least = beyond;
			best = s;
		}
	}
	if (!best)
		return;

	/* Each half of a plan costs a halving: the whole of it, all of them. */
	best->wasted = count > UINT32_MAX - best->wasted ? UINT32_MAX : best->wasted + count;
	while (best->window > 0 && best->wasted >= (plan_length(ra, best) + 1) / 2) {
		best->wasted -= (plan_length(ra, best) + 1) / 2;
		best->window /= 2;
		best->shrunk = true;
	}
	if (best->window == 0)
		best->steps = 0;
}
