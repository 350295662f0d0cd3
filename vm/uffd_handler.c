/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd_handler.c - see uffd_handler.h.
 *
 * A handler never sleeps for a page, for the disk or for memory:
 *   - a busy page: it marks the entry and forgets the fault; whoever ends the
 *     wait wakes the faulting thread, which faults again;
 *   - a read: it starts it, and maps the page when it arrives;
 *   - no memory: the fault is put off until the reclaimer has some;
 *   - no queue for a read: it is put off until reads arrive, however long the
 *     disk takes.
 * So it cannot be part of a circle of waits. One more danger is met by number
 * and page (uffd_answer_reader): the thread that reclaims may itself run into
 * an absent page while it copies one out (the program discarded it under its
 * hands); that fault is answered with zeros at once, whatever the entry says;
 * write-protected ones, as it will drop the page: a write of the program's
 * waits for the entry.
 */
#include "vm/uffd_handler.h"

#include "base/kernel.h"
#include "base/quiesce.h"

#include <errno.h>
#include <unistd.h>

#define MESSAGES 16

static char *page_of(const struct uffd_access *a)
{
	return (char *)((uintptr_t)a->address & ~(uintptr_t)(PAGE_BYTES - 1));
}

/* A system call that a signal interrupts in its fault comes again and again: once is enough. */
static bool is_deferred(const struct handler *h, const struct uffd_access *a)
{
	for (uint32_t i = 0; i < h->deferred_count; i++)
		if (h->deferred[i].access.tid == a->tid &&
		    page_of(&h->deferred[i].access) == page_of(a))
			return true;
	return false;
}

static void defer(struct handler *h, const struct uffd_access *a, struct patience patience)
{
	if (h->deferred_count < DEFERRED_MAX)
		h->deferred[h->deferred_count++] = (struct deferred){ *a, patience };
	else
		uffd_wake(h->e, page_of(a), 1); /* it faults again */
}

/* => false: not now */
static bool refuse(struct handler *h, struct quire_region *r, const struct uffd_access *a)
{
	char *page = page_of(a);

	if (!refusals_add(h->refusals, page))
		return false;
	/* Poisoning wakes; if a page is there after all, we must. */
	if (h->e->uffd.poison)
		uffd_wake(h->e, page, 1);
	else
		uffd_refuse(h->e, r, a, &h->restless);
	return true;
}

/*
 * A write that is refused to a page that is there, for want of a copy for a snapshot: only an absent
 * page can be poisoned, so it goes to standby. => -EBUSY: not now; -ENOMEM: it stays where it is
 */
static int make_absent(struct quire_region *r, uint64_t page)
{
	uint64_t e = atomic_load(region_entry(r, page));

	if (!(e & ENTRY_BUSY) && entry_state(e) != ENTRY_MAPPED)
		return 0;
	if (!entry_try(region_entry(r, page), e))
		return -EBUSY;
	return evict_to_standby(r, page, e & ~ENTRY_MARKS) == 0 ? 0 : -ENOMEM;
}

/* => false: not now */
static bool refuse_access(struct handler *h, struct quire_region *r, uint64_t page,
                          const struct uffd_access *a)
{
	int error = make_absent(r, page);

	if (error == -ENOMEM)
		uffd_tell(h->e, r, a);
	return error == -ENOMEM || (!error && refuse(h, r, a));
}

/* patience: what is left of it if the fault was put off before, for want of memory; else zeros. */
static void serve(struct handler *h, const struct uffd_access *a, struct patience patience)
{
	static const struct patience anew;
	struct quire_region *r = registry_find(a->address);
	bool refused = false;
	struct fault f;

	if (!r || r->q != h->e->q) {
		/* Its region is being destroyed: it will find no mapping. */
		if (r)
			region_put(r);
		uffd_wake(h->e, page_of(a), 1);
		return;
	}
	f = (struct fault){ .region = r,
		            .page = (uint64_t)(a->address - r->base) >> PAGE_SHIFT,
		            .write = a->write,
		            .may_sleep = false };
	switch (fault_serve(&f)) {
	case FAULT_DONE:
		/* Mapping wakes; so does whoever ends the wait for a busy page. */
	case FAULT_WAITING:
		break;
	case FAULT_DEFERRED:
		if (!patience_ends(&h->e->q->pager, &patience)) {
			defer(h, a, patience);
			break;
		}
		fault_report(r, f.page, QUIRE_ERROR_NO_MEMORY, ENOMEM);
		refused = true;
		break;
	case FAULT_CONGESTED:
		/* The disk is slow, which is no lack of memory: patience begins anew. */
		defer(h, a, anew);
		break;
	case FAULT_IOERR:
	case FAULT_NOMEM:
	case FAULT_REFUSED:
	case FAULT_UNBACKED:
		refused = true;
		break;
	}
	if (refused && !refuse_access(h, r, f.page, a))
		defer(h, a, anew);
	region_put(r);
}

static void message(struct handler *h, const struct uffd_msg *m)
{
	uint64_t flags = m->arg.pagefault.flags;
	struct uffd_access a = {
		.address = (char *)(uintptr_t)m->arg.pagefault.address,
		.tid = (int32_t)m->arg.pagefault.feat.ptid,
		.write = flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP),
	};

	if (m->event != UFFD_EVENT_PAGEFAULT)
		return;
	if (!(flags & UFFD_PAGEFAULT_FLAG_WP) && uffd_answer_reader(h->e, &a))
		return;
	if (!is_deferred(h, &a))
		serve(h, &a, (struct patience){ .since = 0 });
}

void handler_retry(struct handler *h)
{
	uint32_t n = h->deferred_count;

	/* Each puts back one at most, behind what has been looked at. */
	h->deferred_count = 0;
	if (n == 0)
		return;
	service_enter();
	readin_batch_begin(&h->e->q->pager);
	for (uint32_t i = 0; i < n; i++) {
		struct deferred d = h->deferred[i];

		serve(h, &d.access, d.patience);
	}
	readin_batch_end(&h->e->q->pager);
	service_leave();
}

void handler_forgive(struct handler *h, uint64_t now)
{
	if (!h->refusals->count)
		return;
	service_enter();
	refusals_end(h->refusals, now);
	service_leave();
}

uint32_t handler_receive(struct handler *h, void (*several)(struct handler *h))
{
	struct uffd_msg m[MESSAGES];
	ssize_t bytes = read(h->e->uffd.fd, m, sizeof m);
	uint32_t n = bytes > 0 ? (uint32_t)((size_t)bytes / sizeof m[0]) : 0;

	if (n == 0)
		return 0;
	service_enter();
	if (n > 1) {
		several(h);
		readin_batch_begin(&h->e->q->pager);
	}
	for (uint32_t i = 0; i < n; i++)
		message(h, &m[i]);
	if (n > 1)
		readin_batch_end(&h->e->q->pager);
	service_leave();
	return n;
}

bool handler_arrival(struct handler *h)
{
	bool arrived = false;

	if (atomic_load_explicit(&h->e->q->pager.reading, memory_order_relaxed) == 0)
		return false;
	service_enter();
	for (uint32_t i = 0; i < READ_QUEUES && !arrived; i++) {
		uint32_t at = (h->queue + i) % READ_QUEUES;

		arrived = readin_poll(&h->e->q->pager, at);
		if (arrived)
			h->queue = at;
	}
	service_leave();
	return arrived;
}
