/* SPDX-License-Identifier: MIT */
/* vm/cover.c - see cover.h. */
#include "vm/cover.h"

#include "base/error.h"
#include "base/kernel.h"
#include "vm/vm.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#define WORDS (LEAF_ENTRIES / 64)

/* Bit a page. All zero: hidden, and writable once it is no guard page any more. */
struct leaf {
	uint64_t shown[WORDS];
	uint64_t dirty[WORDS];  /* of those shown */
	uint64_t sealed[WORDS]; /* read-only */
	uint64_t fixed[WORDS];  /* the program wants it read-only */
};

struct cover {
	struct lock lock; /* guards all that changes */
	struct cover_limits *limits;
	struct arena self;
	struct sparse_arena leaf_arena;
	struct leaf *leaves;
	char *base;
	uint64_t pages, leaf_count;
	uint32_t seams;
	bool cleaning;                 /* our own limit does not count */
	_Atomic uint64_t record_pages; /* of leaves, that were written to */
	uint64_t *recorded;            /* bit a page of records */
	uint64_t open[]; /* bit a leaf: it is not PROT_NONE as a whole; with guard pages only */
};

#define LEAVES_A_PAGE (PAGE_BYTES / sizeof(struct leaf))

/* -------------------------------------------------------------- bits */

static bool get(const uint64_t *bits, uint64_t i)
{
	return bits[i / 64] >> i % 64 & 1;
}

static void put(uint64_t *bits, uint64_t i, bool value)
{
	if (value)
		bits[i / 64] |= UINT64_C(1) << i % 64;
	else
		bits[i / 64] &= ~(UINT64_C(1) << i % 64);
}

static void put_range(uint64_t *bits, unsigned first, unsigned end, bool value)
{
	for (unsigned i = first; i < end; i++)
		put(bits, i, value);
}

static bool all_are(const uint64_t *bits, unsigned first, unsigned end, bool value)
{
	for (unsigned i = first; i < end; i++)
		if (get(bits, i) != value)
			return false;
	return true;
}

static uint64_t page_of(const struct cover *c, const char *at)
{
	return pages_of((size_t)(at - c->base));
}

static char *at_page(const struct cover *c, uint64_t page)
{
	return c->base + (page << PAGE_SHIFT);
}

static struct leaf *leaf_of(struct cover *c, uint64_t page)
{
	return &c->leaves[page / LEAF_ENTRIES];
}

/* Its records are about to be written. => false: no memory */
static bool record(struct cover *c, uint64_t page)
{
	uint64_t leaf = page / LEAF_ENTRIES, at = leaf / LEAVES_A_PAGE;

	if (!sparse_write(&c->leaf_arena, leaf * sizeof *c->leaves))
		return false;
	if (!get(c->recorded, at)) {
		put(c->recorded, at, true);
		atomic_fetch_add_explicit(&c->record_pages, 1, memory_order_relaxed);
	}
	return true;
}

size_t cover_metadata(const struct cover *c)
{
	uint64_t pages = atomic_load_explicit(&c->record_pages, memory_order_relaxed);

	return (size_t)(pages << PAGE_SHIFT) + round_up(c->self.bytes, PAGE_BYTES);
}

/*
 * Were its records ever written? All that were not are zeros; but to read them may take memory
 * (a kernel without a shared page of zeros), which nobody has counted.
 */
static bool is_recorded(const struct cover *c, uint64_t page)
{
	return get(c->recorded, page / LEAF_ENTRIES / LEAVES_A_PAGE);
}

static bool is_open(const struct cover *c, uint64_t leaf)
{
	return get(c->open, leaf);
}

/* ------------------------------------------------------------- seams */

enum protection { NONE, WRITABLE, READABLE };

static enum protection protection_of(struct cover *c, uint64_t page)
{
	const struct leaf *leaf = leaf_of(c, page);
	uint64_t i = page % LEAF_ENTRIES;

	if (!is_recorded(c, page))
		return NONE;
	if (c->limits->guards ? !is_open(c, page / LEAF_ENTRIES) : !get(leaf->shown, i))
		return NONE;
	return get(leaf->sealed, i) ? READABLE : WRITABLE;
}

/* Between pages of [first - 1, end]. What lies beyond the region is PROT_NONE. */
static uint32_t count_seams(struct cover *c, uint64_t first, uint64_t end)
{
	enum protection before = first > 0 ? protection_of(c, first - 1) : NONE;
	uint32_t n = 0;

	for (uint64_t page = first; page < end; page++) {
		enum protection now = protection_of(c, page);

		n += now != before;
		before = now;
	}
	return n + (before != (end < c->pages ? protection_of(c, end) : NONE));
}

/* Of all pagers: the kernel's limit is the process's. */
static _Atomic uint32_t all_seams;

static bool is_crowded(const struct cover *c, uint32_t more)
{
	return !c->cleaning && atomic_load(&all_seams) + more > c->limits->seams_max;
}

static bool seams_are_short(const struct cover *c)
{
	return c->limits->guards && atomic_load(&all_seams) > c->limits->seams_max / 4 * 3;
}

static void recount(struct cover *c, uint32_t before, uint32_t after)
{
	c->seams += after - before;
	atomic_fetch_add(&c->limits->seams, after - before);
	atomic_fetch_add(&all_seams, after - before);
}

/* ------------------------------------------------------- protections */

static int to_kernel(struct cover *c, uint64_t first, uint64_t end, enum protection p)
{
	int prot = p == NONE ? PROT_NONE : p == READABLE ? PROT_READ : PROT_READ | PROT_WRITE;

	if (mprotect(at_page(c, first), (end - first) << PAGE_SHIFT, prot) == 0)
		return 0;
	return errno == ENOMEM ? -ENGINE_CROWDED : -errno;
}

/* May page i of the leaf, hidden or not, be made read-only, or writable, on the side? */
static bool may_go_along(const struct leaf *leaf, unsigned i, bool seal)
{
	bool shown = get(leaf->shown, i), dirty = get(leaf->dirty, i), fixed = get(leaf->fixed, i);

	return seal ? !shown || !dirty || fixed : !fixed && (!shown || dirty);
}

/* => 0 or -errno. Locked memory takes none; a lock does not keep pages of ours anyway (quire.h). */
static int install_guards(struct cover *c, uint64_t first, uint64_t n)
{
	char *at = at_page(c, first);

	if (kernel_madvise(at, n << PAGE_SHIFT, MADV_GUARD_INSTALL) == 0)
		return 0;
	if (errno != EINVAL)
		return -errno;
	syscall(SYS_munlock, c->base, c->pages << PAGE_SHIFT);
	return kernel_madvise(at, n << PAGE_SHIFT, MADV_GUARD_INSTALL) == 0 ? 0 : -errno;
}

/* By our own limit, before the kernel was asked. */
#define REFUSED EBUSY

/*
 * Pages [first, end), alike in protection, in the kernel and in the records. => 0 or -errno:
 * the records have not changed. The kernel has not either, if the pages are one mapping, as a
 * single page always is; of more (the program's own madvise parts them, too) it may have
 * changed the first.
 */
static int change(struct cover *c, uint64_t first, uint64_t end, enum protection p)
{
	struct leaf *leaf = leaf_of(c, first), was = *leaf;
	unsigned from = (unsigned)(first % LEAF_ENTRIES), to = from + (unsigned)(end - first);
	uint32_t before = count_seams(c, first, end), after;
	int error = 0;

	put_range(leaf->sealed, from, to, p == READABLE);
	if (!c->limits->guards)
		put_range(leaf->shown, from, to, p != NONE);
	after = count_seams(c, first, end);
	/* To hide is allowed as long as the kernel does: that is how there is room again. */
	if (after > before && p != NONE && is_crowded(c, after - before))
		error = -REFUSED;
	if (!error)
		error = to_kernel(c, first, end, p);
	if (error)
		*leaf = was;
	else
		recount(c, before, after);
	return error;
}

/* What the kernel has made of pages that went along is not known now: as if they could be written. */
static void forget_protection(struct cover *c, uint64_t first, uint64_t end)
{
	uint32_t before;

	if (first >= end)
		return;
	before = count_seams(c, first, end);
	put_range(leaf_of(c, first)->sealed, (unsigned)(first % LEAF_ENTRIES),
	          (unsigned)(first % LEAF_ENTRIES + (end - first)), false);
	recount(c, before, count_seams(c, first, end));
}

/*
 * Pages [first, end) one by one, after a change of [from, to), with these in it, has failed.
 * Where that had come as far as a page, the same once more cannot fail: so what this says
 * of a page is true of it. => how many are changed, or the error
 */
static int change_singly(struct cover *c, uint64_t from, uint64_t first, uint64_t end, uint64_t to,
                         enum protection p, int error)
{
	uint64_t page = first;

	if (error == -REFUSED) {
		error = -ENGINE_CROWDED;
	} else if (c->limits->guards) {
		forget_protection(c, from, first);
		forget_protection(c, end, to);
	}
	while (page < end && change(c, page, page + 1, p) == 0)
		page++;
	return page > first ? (int)(page - first) : error;
}

/* How far from page, below end, pages are alike in protection. */
static uint64_t alike(struct cover *c, uint64_t page, uint64_t end)
{
	enum protection p = protection_of(c, page++);

	while (page < end && protection_of(c, page) == p)
		page++;
	return page;
}

static uint64_t alike_down(struct cover *c, uint64_t page, uint64_t least)
{
	enum protection p = protection_of(c, page);

	while (page > least && protection_of(c, page - 1) == p)
		page--;
	return page;
}

/*
 * Pages [first, end), of one leaf and alike, get that protection; with guard pages, what
 * may go along on either side too, so that there are no more seams than must be.
 * => how many of them have it now (> 0), or -errno
 */
static int set_protection(struct cover *c, uint64_t first, uint64_t end, enum protection p)
{
	const struct leaf *leaf = leaf_of(c, first);
	uint64_t base = first / LEAF_ENTRIES * LEAF_ENTRIES, low = first, high = end, from, to;
	uint64_t limit = MIN(base + LEAF_ENTRIES, c->pages);
	int error;

	if (protection_of(c, first) == p)
		return (int)(end - first);
	if (!c->limits->guards) {
		error = change(c, first, end, p);
		return error ? change_singly(c, first, first, end, end, p, error) :
		               (int)(end - first);
	}
	while (low > base && may_go_along(leaf, (unsigned)(low - 1 - base), p == READABLE))
		low--;
	while (high < limit && may_go_along(leaf, (unsigned)(high - base), p == READABLE))
		high++;
	from = alike_down(c, first, low);
	to = alike(c, first, high);
	error = change(c, from, to, p);
	if (error)
		return change_singly(c, from, first, end, to, p, error);
	/* Beyond are some that have it already, and more that may have it. */
	for (uint64_t next; to < high; to = next) {
		next = alike(c, to, high);
		if (protection_of(c, to) != p && change(c, to, next, p) != 0)
			break;
	}
	for (uint64_t next; from > low; from = next) {
		next = alike_down(c, from - 1, low);
		if (protection_of(c, next) != p && change(c, next, from, p) != 0)
			break;
	}
	return (int)(end - first);
}

/* ------------------------------------------------------- guard pages */

/* Its guard pages may be there from before. What is open is WRITABLE where nothing is sealed. */
static int open_leaf(struct cover *c, uint64_t leaf)
{
	uint64_t first = leaf * LEAF_ENTRIES, end = MIN(first + LEAF_ENTRIES, c->pages);
	uint32_t before = count_seams(c, first, end), after;
	int error = install_guards(c, first, end - first);

	if (error)
		return error;
	put(c->open, leaf, true);
	after = count_seams(c, first, end);
	error = after > before && is_crowded(c, after - before) ?
	                -ENGINE_CROWDED :
	                to_kernel(c, first, end, WRITABLE);
	if (error)
		put(c->open, leaf, false);
	else
		recount(c, before, after);
	return error;
}

static bool shows_nothing(const struct leaf *leaf)
{
	for (unsigned i = 0; i < WORDS; i++)
		if (leaf->shown[i])
			return false;
	return true;
}

/* Seams are short, and of this leaf no page is shown. */
static void close_leaf(struct cover *c, uint64_t leaf)
{
	uint64_t first = leaf * LEAF_ENTRIES, end = MIN(first + LEAF_ENTRIES, c->pages);
	uint32_t before = count_seams(c, first, end);

	if (to_kernel(c, first, end, NONE) != 0)
		return;
	put(c->open, leaf, false);
	memset(c->leaves[leaf].sealed, 0, sizeof c->leaves[leaf].sealed);
	recount(c, before, count_seams(c, first, end));
}

/* ------------------------------------------------------ show and hide */

/* The part that begins at first: of one leaf, alike in being fixed and shown, and in protection. */
static uint64_t part_end(struct cover *c, uint64_t first, uint64_t end)
{
	const struct leaf *leaf = leaf_of(c, first);
	bool fixed = get(leaf->fixed, first % LEAF_ENTRIES);
	bool shown = get(leaf->shown, first % LEAF_ENTRIES);
	uint64_t to = first + 1;

	end = alike(c, first, MIN(end, round_up(first + 1, LEAF_ENTRIES)));
	while (to < end && get(leaf->fixed, to % LEAF_ENTRIES) == fixed &&
	       get(leaf->shown, to % LEAF_ENTRIES) == shown)
		to++;
	return to;
}

/* A part: protection, and the records. The lock is held. => pages, or -errno */
static int prepare(struct cover *c, uint64_t first, uint64_t end, bool dirty)
{
	struct leaf *leaf = leaf_of(c, first);
	bool fixed = get(leaf->fixed, first % LEAF_ENTRIES);
	bool again = get(leaf->shown, first % LEAF_ENTRIES);
	enum protection p = fixed || !dirty ? READABLE : WRITABLE;
	int done = 0;

	if (!record(c, first))
		return -ENOMEM;
	if (c->limits->guards && !is_open(c, first / LEAF_ENTRIES))
		done = open_leaf(c, first / LEAF_ENTRIES);
	/* There was a fault though the records say that it is accessible: are they right? */
	if (!done && again && protection_of(c, first) == p)
		done = to_kernel(c, first, end, p);
	if (!done)
		done = set_protection(c, first, end, p);
	for (uint64_t page = first; done > 0 && page < first + (uint64_t)done; page++) {
		put(leaf->shown, page % LEAF_ENTRIES, true);
		put(leaf->dirty, page % LEAF_ENTRIES, dirty);
	}
	return done;
}

/* => pages prepared, or -errno if there are none */
static int prepare_range(struct cover *c, uint64_t first, uint64_t n, bool dirty)
{
	uint64_t done = 0;
	int error = 0;

	lock_acquire(&c->lock);
	while (done < n && !error) {
		uint64_t part = part_end(c, first + done, first + n) - first - done;
		int now = prepare(c, first + done, first + done + part, dirty);

		done += (uint64_t)MAX(now, 0);
		error = now < 0 ? now : now < (int)part ? -ENGINE_CROWDED : 0;
	}
	lock_release(&c->lock);
	return done ? (int)done : error;
}

/* The records say that they are hidden. The lock is held. */
static void forget(struct cover *c, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		put(leaf_of(c, page)->shown, page % LEAF_ENTRIES, false);
		put(leaf_of(c, page)->dirty, page % LEAF_ENTRIES, false);
	}
}

int cover_show(struct cover *c, char *page, unsigned n, bool dirty)
{
	int done = prepare_range(c, page_of(c, page), n, dirty);

	if (done <= 0 || !c->limits->guards)
		return done;
	if (kernel_madvise(page, (size_t)done << PAGE_SHIFT, MADV_GUARD_REMOVE) == 0)
		return done;
	done = -errno;
	cover_hide(c, page, n);
	return done;
}

int cover_dirty(struct cover *c, char *page, unsigned n)
{
	return prepare_range(c, page_of(c, page), n, true);
}

/*
 * What of [at, end), in one leaf, is made read-only by one call: all of it, where what is
 * hidden may have any protection; else what is shown, in a row. => its end, and where it begins
 */
static uint64_t next_to_clean(struct cover *c, uint64_t *at, uint64_t end)
{
	const struct leaf *leaf = leaf_of(c, *at);
	uint64_t to;

	if (c->limits->guards)
		return end;
	while (*at < end && !get(leaf->shown, *at % LEAF_ENTRIES))
		++*at;
	for (to = *at; to < end && get(leaf->shown, to % LEAF_ENTRIES); to++)
		;
	return to;
}

/* Pages of one leaf, some of them shown. The lock is held. */
static int clean_leaf(struct cover *c, uint64_t at, uint64_t end)
{
	struct leaf *leaf = leaf_of(c, at);

	for (uint64_t to; at < end; at = to) {
		int error = 0;

		to = next_to_clean(c, &at, end);
		if (at < to && !(alike(c, at, to) == to && protection_of(c, at) == READABLE))
			error = change(c, at, to, READABLE);
		if (error && change_singly(c, at, at, to, to, READABLE, error) < (int)(to - at))
			return -ENGINE_CROWDED;
		for (uint64_t page = at; page < to; page++)
			if (get(leaf->shown, page % LEAF_ENTRIES))
				put(leaf->dirty, page % LEAF_ENTRIES, false);
	}
	return 0;
}

int cover_clean(struct cover *c, char *page, size_t n)
{
	uint64_t first = page_of(c, page), end = first + n;
	int error = 0;

	for (uint64_t at = first, to; at < end && !error; at = to) {
		uint64_t leaf = at / LEAF_ENTRIES;

		to = MIN(end, (leaf + 1) * LEAF_ENTRIES);
		lock_acquire(&c->lock);
		/* In the end there are fewer seams, or two more. */
		c->cleaning = true;
		if (is_recorded(c, at) && !shows_nothing(&c->leaves[leaf]) &&
		    (!c->limits->guards || is_open(c, leaf)))
			error = clean_leaf(c, at, to);
		c->cleaning = false;
		lock_release(&c->lock);
	}
	return error;
}

bool cover_is_shown(struct cover *c, const char *page, bool *dirty)
{
	uint64_t at = page_of(c, page);
	bool shown;

	lock_acquire(&c->lock);
	shown = is_recorded(c, at) && get(leaf_of(c, at)->shown, at % LEAF_ENTRIES);
	*dirty = shown && get(leaf_of(c, at)->dirty, at % LEAF_ENTRIES);
	lock_release(&c->lock);
	return shown;
}

/*
 * Seams are short: hidden pages between pages that are alike become like them. Where
 * there are guard pages; without them to hide is to do so.
 */
static void tidy(struct cover *c, uint64_t page)
{
	const struct leaf *leaf = leaf_of(c, page);
	uint64_t base = page / LEAF_ENTRIES * LEAF_ENTRIES;
	unsigned limit = (unsigned)MIN(LEAF_ENTRIES, c->pages - base);
	unsigned from = (unsigned)(page - base), to = from + 1;
	bool seal;

	while (from > 0 && !get(leaf->shown, from - 1) && !get(leaf->fixed, from - 1))
		from--;
	while (to < limit && !get(leaf->shown, to) && !get(leaf->fixed, to))
		to++;
	if (get(leaf->fixed, page - base) || (from == 0 && to == limit))
		return;
	seal = get(leaf->sealed, from > 0 ? from - 1 : to);
	if (to < limit && get(leaf->sealed, to) != seal)
		return;
	for (uint64_t at = base + from, next; at < base + to; at = next) {
		next = alike(c, at, base + to);
		set_protection(c, at, next, seal ? READABLE : WRITABLE);
	}
}

/* => 0 or -errno: none of them, or some, are hidden */
static int hide(struct cover *c, uint64_t first, uint64_t end)
{
	int error = 0;

	if (c->limits->guards)
		return install_guards(c, first, end - first);
	lock_acquire(&c->lock);
	for (uint64_t page = first, to; page < end && !error; page = to) {
		int done;

		to = alike(c, page, MIN(end, round_up(page + 1, LEAF_ENTRIES)));
		done = set_protection(c, page, to, NONE);
		error = done < 0 ? done : done < (int)(to - page) ? -ENGINE_CROWDED : 0;
	}
	lock_release(&c->lock);
	return error;
}

static void hidden(struct cover *c, uint64_t first, uint64_t end)
{
	lock_acquire(&c->lock);
	forget(c, first, end);
	for (uint64_t page = first; page < end && seams_are_short(c); page++) {
		if (!shows_nothing(leaf_of(c, page)))
			tidy(c, page);
		else if (is_open(c, page / LEAF_ENTRIES))
			close_leaf(c, page / LEAF_ENTRIES);
	}
	lock_release(&c->lock);
}

int cover_hide(struct cover *c, char *page, size_t n)
{
	uint64_t first = page_of(c, page);
	int error = hide(c, first, first + n);

	if (!error)
		hidden(c, first, first + n);
	return error;
}

/* ------------------------------------------------------------ a batch */

/* The run of neighbours that begins at t[0]. => its length */
static unsigned run_of(const struct take_page *t, unsigned n)
{
	unsigned i = 1;

	while (i < n && t[i].region == t[0].region && t[i].page == t[i - 1].page + PAGE_BYTES)
		i++;
	return i;
}

static unsigned list_runs(const struct take_page *t, unsigned n, struct iovec *v)
{
	unsigned k = 0;

	for (unsigned i = 0, length; i < n; i += length) {
		length = run_of(&t[i], n - i);
		v[k++] = (struct iovec){ t[i].page, (size_t)length << PAGE_SHIFT };
	}
	return k;
}

/*
 * Guard pages for all runs by one call, after another has unmapped them: that is one
 * TLB shootdown, where to put a guard page in the place of each would be one a run. A
 * thread that touches a page between the two gets it back for that long. => bytes done
 */
static size_t guard_all(const struct cover_limits *l, const struct take_page *t, unsigned n)
{
	struct iovec v[CLUSTER_PAGES];
	unsigned k = list_runs(t, n, v);
	long done;

	if (k < 2 || l->pidfd < 0 ||
	    syscall(SYS_process_madvise, l->pidfd, v, (unsigned long)k, MADV_DONTNEED, 0u) <= 0)
		return 0;
	done = syscall(SYS_process_madvise, l->pidfd, v, (unsigned long)k, MADV_GUARD_INSTALL, 0u);
	return done > 0 ? (size_t)done : 0;
}

void cover_take(struct cover_limits *l, struct take_page *t, unsigned n)
{
	size_t done = l->guards ? guard_all(l, t, n) : 0;

	for (unsigned i = 0, length; i < n; i += length) {
		struct cover *c = t[i].region->cover;
		uint64_t first = page_of(c, t[i].page);
		size_t bytes;

		length = run_of(&t[i], n - i);
		bytes = (size_t)length << PAGE_SHIFT;
		if (done >= bytes)
			done -= bytes;
		else if (done = 0, hide(c, first, first + length) != 0)
			continue;
		hidden(c, first, first + length);
		for (unsigned k = i; k < i + length; k++)
			t[k].result = TAKE_DONE;
	}
}

/* -------------------------------------------- the program's protection */

/* Some pages of one leaf. The lock is held. */
static int fix(struct cover *c, uint64_t first, uint64_t end, bool read_only)
{
	struct leaf *leaf = leaf_of(c, first);
	unsigned from = (unsigned)(first % LEAF_ENTRIES), to = from + (unsigned)(end - first);
	struct leaf was;
	int error = 0;

	if (!read_only && all_are(leaf->fixed, from, to, false))
		return 0;
	if (!record(c, first))
		return -ENOMEM;
	was = *leaf;
	put_range(leaf->fixed, from, to, read_only);
	/* What may be written again becomes so with the next write. */
	for (uint64_t page = first, next; read_only && page < end && !error; page = next) {
		int done = (int)((next = alike(c, page, end)) - page);

		if (protection_of(c, page) != NONE)
			done = set_protection(c, page, next, READABLE);
		error = done < 0 ? done : done < (int)(next - page) ? -ENGINE_CROWDED : 0;
	}
	if (error)
		memcpy(leaf->fixed, was.fixed, sizeof leaf->fixed);
	return error;
}

int cover_protect(struct cover *c, char *page, size_t n, bool read_only)
{
	uint64_t first = page_of(c, page), end = first + n;
	int error = 0;

	for (uint64_t at = first, to; at < end && !error; at = to) {
		to = MIN(end, round_up(at + 1, LEAF_ENTRIES));
		lock_acquire(&c->lock);
		error = fix(c, at, to, read_only);
		lock_release(&c->lock);
	}
	return error;
}

bool cover_is_fixed(struct cover *c, const char *page)
{
	uint64_t at = page_of(c, page);
	bool fixed;

	lock_acquire(&c->lock);
	fixed = is_recorded(c, at) && get(leaf_of(c, at)->fixed, at % LEAF_ENTRIES);
	lock_release(&c->lock);
	return fixed;
}

/* ------------------------------------------------------ open and close */

/*
 * The kernel makes one mapping of neighbours only if they had their first guard page, or
 * page, when they were one already.
 */
static void first_guard(struct cover *c)
{
	if (c->limits->guards)
		install_guards(c, 0, 1);
}

int cover_open(struct cover **out, struct cover_limits *l, char *base, uint64_t pages)
{
	uint64_t leaves = (pages + LEAF_ENTRIES - 1) / LEAF_ENTRIES;
	size_t open_bytes = round_up(leaves, 64) / 8;
	struct cover *c;
	struct arena self;
	int error = arena_open(&self, sizeof *c + 2 * open_bytes, false, "quire cover");

	if (error)
		return error;
	c = self.base;
	error = sparse_open(&c->leaf_arena, leaves * sizeof *c->leaves, "quire cover");
	if (error) {
		arena_close(&self);
		return error;
	}
	lock_init(&c->lock, RANK_ENGINE);
	c->limits = l;
	c->self = self;
	c->leaves = c->leaf_arena.arena.base;
	c->base = base;
	c->pages = pages;
	c->leaf_count = leaves;
	c->recorded = (uint64_t *)(void *)((char *)c->open + open_bytes);
	first_guard(c);
	*out = c;
	return 0;
}

void cover_fork_in_child(struct cover *c)
{
	for (uint64_t leaf = 0; leaf < c->leaf_count; leaf++) {
		struct leaf *l = &c->leaves[leaf];

		if (!is_recorded(c, leaf * LEAF_ENTRIES)) {
			leaf |= LEAVES_A_PAGE - 1;
			continue;
		}
		memset(l->shown, 0, sizeof l->shown);
		memset(l->dirty, 0, sizeof l->dirty);
		memset(l->sealed, 0, sizeof l->sealed);
	}
	memset(c->open, 0, round_up(c->leaf_count, 64) / 8);
	recount(c, c->seams, 0);
	first_guard(c);
}

void cover_close(struct cover *c)
{
	struct arena self = c->self;

	atomic_fetch_sub(&c->limits->seams, c->seams);
	atomic_fetch_sub(&all_seams, c->seams);
	sparse_close(&c->leaf_arena);
	arena_close(&self);
}
