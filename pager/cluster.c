/* SPDX-License-Identifier: MIT */
/*
 * pager/cluster.c - memory that is not mapped: buffers, in clusters of
 * CLUSTER_PAGES neighbours.
 *
 * Eviction fills a cluster with pages sorted by address, so that they are
 * written as one request to neighbouring slots; readahead reads one window
 * into one cluster, so that it is mapped with one call. The clusters that hold
 * evicted pages form the standby list, oldest first: a FIFO of segments, as
 * VMS had, where a page that is touched in time is taken back without I/O.
 *
 * C1  bit i of populated <=> one credit is held for buffer i.
 * C2  refs = buffers whose state is not FREE + claims not yet released +
 *     operations. The one who drops the last frees the cluster.
 * C3  a buffer is handed out at most once between two frees of its cluster.
 *
 * Memory that the kernel does not take back (locked, on a kernel before Linux
 * 5.18) stays populated, and its credits held: it serves the next use.
 *
 * Guards: list, prev, next and the heads: standby lock. populated, refs,
 * state: atomic. page, slot, used: whoever fills the buffer, published by the
 * page's entry; slot also by the writer while WRITING.
 */
#include "pager/pager.h"

#include "base/kernel.h"

static void list_remove(struct pager *p, uint32_t c)
{
	struct cluster *cl = &p->clusters[c];

	if (cl->list == CLUSTERS_NOWHERE)
		return;
	if (cl->prev != CLUSTER_NONE)
		p->clusters[cl->prev].next = cl->next;
	else
		p->head[cl->list] = cl->next;
	if (cl->next != CLUSTER_NONE)
		p->clusters[cl->next].prev = cl->prev;
	else
		p->tail[cl->list] = cl->prev;
	p->length[cl->list]--;
	cl->list = CLUSTERS_NOWHERE;
}

static void list_add(struct pager *p, uint32_t c, enum cluster_list list, bool at_head)
{
	struct cluster *cl = &p->clusters[c];

	list_remove(p, c);
	cl->list = (uint8_t)list;
	cl->prev = at_head ? CLUSTER_NONE : p->tail[list];
	cl->next = at_head ? p->head[list] : CLUSTER_NONE;
	*(cl->prev == CLUSTER_NONE ? &p->head[list] : &p->clusters[cl->prev].next) = c;
	*(cl->next == CLUSTER_NONE ? &p->tail[list] : &p->clusters[cl->next].prev) = c;
	p->length[list]++;
}

static void list_prepend(struct pager *p, uint32_t c, enum cluster_list list)
{
	list_add(p, c, list, true);
}

static void list_append(struct pager *p, uint32_t c, enum cluster_list list)
{
	list_add(p, c, list, false);
}

static bool has_much(struct pager *p, uint32_t c)
{
	return (unsigned)__builtin_popcountll(atomic_load(&p->clusters[c].populated)) >=
	       CLUSTER_PAGES / 2;
}

/* A free cluster into its list. Those with much memory are at the head of the warm ones. */
static void list_free(struct pager *p, uint32_t c)
{
	if (!atomic_load(&p->clusters[c].populated))
		list_append(p, c, CLUSTERS_EMPTY);
	else if (has_much(p, c))
		list_prepend(p, c, CLUSTERS_WARM);
	else
		list_append(p, c, CLUSTERS_WARM);
}

/* One more than there ever were: its record and its buffers must be usable. => standby lock; CLUSTER_NONE */
static uint32_t cluster_new(struct pager *p)
{
	size_t n = (size_t)counted_records(&p->cluster_count) + 1;

	if (n > p->cluster_max || !arena_extend(&p->cluster_arena, n * sizeof *p->clusters) ||
	    !arena_extend(p->buffer_arena, n * CLUSTER_PAGES * PAGE_BYTES))
		return CLUSTER_NONE;
	return count_next(&p->cluster_count);
}

uint32_t cluster_get(struct pager *p, uint32_t want)
{
	uint32_t c;

	lock_acquire(&p->standby_lock);
	if (want == 0)
		c = p->tail[CLUSTERS_EMPTY];
	else
		c = want >= CLUSTER_PAGES / 4 ? p->head[CLUSTERS_WARM] : p->tail[CLUSTERS_WARM];
	if (c == CLUSTER_NONE && want)
		c = p->tail[CLUSTERS_EMPTY];
	if (c == CLUSTER_NONE)
		c = cluster_new(p);
	if (c == CLUSTER_NONE)
		c = p->tail[CLUSTERS_WARM];
	if (c != CLUSTER_NONE) {
		list_remove(p, c);
		p->clusters[c].used = 0;
		atomic_store(&p->clusters[c].refs, 1);
	}
	lock_release(&p->standby_lock);
	if (unlikely(c == CLUSTER_NONE)) {
		atomic_store(&p->clusters_short, 1);
		reclaimer_kick(p);
	}
	return c;
}

void cluster_put(struct pager *p, uint32_t c)
{
	struct cluster *cl = &p->clusters[c];
	uint32_t refs = atomic_fetch_sub(&cl->refs, 1);

	ASSERT(refs > 0);
	if (refs > 1)
		return;
	lock_acquire(&p->standby_lock);
	list_free(p, c);
	lock_release(&p->standby_lock);
}

bool cluster_populate(struct pager *p, uint32_t c, uint32_t n)
{
	struct cluster *cl = &p->clusters[c];
	uint64_t missing = bits(0, n) & ~atomic_load(&cl->populated);
	uint32_t wanted = (uint32_t)__builtin_popcountll(missing);

	if (wanted == 0)
		return true;
	if (!credits_try(p, wanted))
		return false;
	atomic_fetch_or(&cl->populated, missing);
	count(&p->populated, wanted);
	return true;
}

void cluster_populate_some(struct pager *p, uint32_t c, uint32_t n)
{
	struct cluster *cl = &p->clusters[c];
	uint64_t missing = bits(0, n) & ~atomic_load(&cl->populated), some = 0;
	uint32_t got = credits_take(p, (uint32_t)__builtin_popcountll(missing));

	for (uint32_t i = 0; i < got; i++, missing &= missing - 1)
		some |= missing & -missing;
	atomic_fetch_or(&cl->populated, some);
	count(&p->populated, got);
}

void cluster_lend(struct pager *p, uint32_t c)
{
	if (atomic_fetch_or(&p->clusters[c].populated, 1) & 1)
		credits_put(p, 1);
	else
		count(&p->populated, 1);
}

uint32_t clusters_release(struct pager *p, int64_t want, uint32_t keep)
{
	uint32_t total = 0;

	while (atomic_load(&p->credits) < want) {
		struct cluster *cl;
		uint32_t c, n;
		bool dropped;

		lock_acquire(&p->standby_lock);
		c = p->head[CLUSTERS_WARM];
		for (uint32_t kept = 0; kept < keep && c != CLUSTER_NONE && has_much(p, c); kept++)
			c = p->clusters[c].next;
		if (c != CLUSTER_NONE)
			list_remove(p, c);
		lock_release(&p->standby_lock);
		if (c == CLUSTER_NONE)
			break;
		cl = &p->clusters[c];
		dropped = kernel_drop(buffer_address(p, c * CLUSTER_PAGES),
		                      CLUSTER_PAGES * PAGE_BYTES) == 0;
		n = dropped ? (uint32_t)__builtin_popcountll(atomic_exchange(&cl->populated, 0)) :
		              0;
		uncount(&p->populated, n);
		lock_acquire(&p->standby_lock);
		list_append(p, c, dropped ? CLUSTERS_EMPTY : CLUSTERS_WARM);
		lock_release(&p->standby_lock);
		/* Now at the tail: it is used first, and the next call tries another. */
		if (!dropped)
			break;
		credits_put(p, n);
		total += n;
	}
	return total;
}

void cluster_to_standby(struct pager *p, uint32_t c)
{
	lock_acquire(&p->standby_lock);
	list_append(p, c, CLUSTERS_STANDBY);
	lock_release(&p->standby_lock);
}

static void name(struct buffer *b, page_id page, bool ahead)
{
	atomic_store_explicit(&b->page, page | (ahead ? BUFFER_AHEAD : 0), memory_order_relaxed);
}

void buffer_rename(struct pager *p, uint32_t id, page_id page)
{
	name(buffer_of(p, id), page, false);
}

void buffer_fill(struct pager *p, uint32_t id, page_id page, slot_t slot, enum buffer_state state,
                 bool ahead)
{
	struct buffer *b = buffer_of(p, id);

	DEBUG_ASSERT(atomic_load(&b->state) == BUFFER_FREE);
	name(b, page, ahead);
	b->slot = slot;
	atomic_fetch_add(&p->clusters[id / CLUSTER_PAGES].refs, 1);
	atomic_store(&b->state, state);
	if (state != BUFFER_READING)
		count(&p->standby, 1);
}

bool buffer_try_claim(struct pager *p, uint32_t id, uint32_t *state, slot_t *slot)
{
	struct buffer *b = buffer_of(p, id);

	*state = atomic_load(&b->state);
	*slot = SLOT_NONE;
	while (*state == BUFFER_CLEAN || *state == BUFFER_DIRTY) {
		if (!atomic_compare_exchange_weak(&b->state, state, BUFFER_CLAIMED))
			continue;
		if (*state == BUFFER_CLEAN)
			*slot = b->slot;
		uncount(&p->standby, 1);
		return true;
	}
	return false;
}

void buffer_claim(struct pager *p, uint32_t id, slot_t *slot)
{
	struct buffer *b = buffer_of(p, id);
	uint32_t state;

	while (!buffer_try_claim(p, id, &state, slot)) {
		ASSERT(state == BUFFER_WRITING);
		/* The buffer's own reference now belongs to the write; this one is ours. */
		atomic_fetch_add(&p->clusters[id / CLUSTER_PAGES].refs, 1);
		if (atomic_compare_exchange_strong(&b->state, &state, BUFFER_ABANDONED)) {
			uncount(&p->standby, 1);
			return;
		}
		cluster_put(p, id / CLUSTER_PAGES);
	}
}

void buffer_release(struct pager *p, uint32_t id, bool moved)
{
	uint32_t claimed = BUFFER_CLAIMED;

	if (moved) {
		atomic_fetch_and(&p->clusters[id / CLUSTER_PAGES].populated,
		                 ~(UINT64_C(1) << id % CLUSTER_PAGES));
		uncount(&p->populated, 1);
	}
	/* An abandoned one is the writer's to free. */
	atomic_compare_exchange_strong(&buffer_of(p, id)->state, &claimed, BUFFER_FREE);
	cluster_put(p, id / CLUSTER_PAGES);
}

/* One cluster that an operation holds. In standby no buffer is filled any more, so FREE is for good. */
static uint32_t trim(struct pager *p, uint32_t c)
{
	struct cluster *cl = &p->clusters[c];
	uint64_t idle = 0, dropped = 0;

	for (uint32_t i = 0; i < CLUSTER_PAGES; i++)
		if (atomic_load(&cl->buffer[i].state) == BUFFER_FREE)
			idle |= UINT64_C(1) << i;
	idle &= atomic_load(&cl->populated);
	while (idle) {
		unsigned i = (unsigned)__builtin_ctzll(idle), n = bit_row(idle, i);

		if (kernel_drop(buffer_address(p, c * CLUSTER_PAGES + i), n * PAGE_BYTES) == 0)
			dropped |= bits(i, n);
		idle &= ~bits(i, n);
	}
	atomic_fetch_and(&cl->populated, ~dropped);
	return (uint32_t)__builtin_popcountll(dropped);
}

uint32_t clusters_trim(struct pager *p)
{
	uint32_t total = 0, c = standby_next(p, CLUSTER_NONE), next;

	while (c != CLUSTER_NONE) {
		uint32_t n = trim(p, c);

		uncount(&p->populated, n);
		credits_put(p, n);
		total += n;
		next = standby_next(p, c);
		cluster_put(p, c);
		c = next;
	}
	return total;
}

uint32_t standby_length(struct pager *p)
{
	uint32_t n;

	lock_acquire(&p->standby_lock);
	n = p->length[CLUSTERS_STANDBY];
	lock_release(&p->standby_lock);
	return n;
}

uint32_t standby_next(struct pager *p, uint32_t c)
{
	lock_acquire(&p->standby_lock);
	if (c == CLUSTER_NONE)
		c = p->head[CLUSTERS_STANDBY];
	else
		c = p->clusters[c].list == CLUSTERS_STANDBY ? p->clusters[c].next : CLUSTER_NONE;
	for (; c != CLUSTER_NONE; c = p->clusters[c].next) {
		uint32_t refs = atomic_load(&p->clusters[c].refs);

		/* One whose last reference is being dropped is about to free itself. */
		while (refs && !atomic_compare_exchange_weak(&p->clusters[c].refs, &refs, refs + 1))
			;
		if (refs)
			break;
	}
	lock_release(&p->standby_lock);
	return c;
}
