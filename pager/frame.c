/* SPDX-License-Identifier: MIT */
/*
 * pager/frame.c - records of mapped pages, and the door to the policy.
 *
 * F1  a frame is in the policy's lists iff frame.listed.
 * F2  a frame is free, or belongs to the one page whose entry names it. The
 *     holder of that entry (BUSY) owns the frame; only `listed` and the
 *     policy's node are under the policy lock.
 * F3  the reclaimer may hold the number of a frame that it took out of the
 *     lists but whose entry it does not hold. Such a frame may be freed and
 *     given to another page meanwhile: the reclaimer checks the entry.
 */
#include "pager/pager.h"

bool frames_allow(struct pager *p, uint64_t pages)
{
	bool allowed;

	lock_acquire(&p->policy_lock);
	allowed = arena_extend(&p->frame_arena, pages * sizeof *p->frames) &&
	          arena_extend(&p->node_arena, pages * sizeof *p->policy.nodes);
	lock_release(&p->policy_lock);
	return allowed;
}

static uint32_t frame_new(struct pager *p)
{
	uint32_t f = p->frame_free;
	bool room;
	size_t n;

	if (f != FRAME_NONE) {
		p->frame_free = p->policy.nodes[f].next;
		return f;
	}
	n = (size_t)counted_records(&p->frame_count) + 1;
	room = n <= p->frame_max && arena_extend(&p->frame_arena, n * sizeof *p->frames) &&
	       arena_extend(&p->node_arena, n * sizeof *p->policy.nodes);
	/* Who has a frame has a credit, and for those of the budget there is room (frames_allow). */
	ASSERT(room);
	return count_next(&p->frame_count);
}

void frames_enter(struct pager *p, const page_id *pages, uint32_t *frames, uint32_t n,
                  enum policy_entry how, uint32_t touched)
{
	lock_acquire(&p->policy_lock);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t f = frame_new(p);
		struct frame *frame = &p->frames[f];

		atomic_store_explicit(&frame->page, pages[i], memory_order_relaxed);
		frame->slot = SLOT_NONE;
		frame->pins = 0;
		frame->listed = true;
		frame->readahead = i != touched;
		p->policy.ops->insert(&p->policy, f, i == touched ? how : POLICY_READAHEAD);
		frames[i] = f;
	}
	lock_release(&p->policy_lock);
}

void frames_leave(struct pager *p, const uint32_t *frames, uint32_t n)
{
	lock_acquire(&p->policy_lock);
	for (uint32_t i = 0; i < n; i++) {
		struct frame *frame = &p->frames[frames[i]];

		ASSERT(frame->pins == 0);
		if (frame->listed) {
			p->policy.ops->remove(&p->policy, frames[i]);
			frame->listed = false;
		}
		atomic_store_explicit(&frame->page, PAGE_ID_NONE, memory_order_relaxed);
		p->policy.nodes[frames[i]].next = p->frame_free;
		p->frame_free = frames[i];
	}
	lock_release(&p->policy_lock);
}

void frame_reference(struct pager *p, uint32_t f)
{
	lock_acquire(&p->policy_lock);
	if (p->frames[f].listed)
		p->policy.ops->reference(&p->policy, f);
	lock_release(&p->policy_lock);
}

void frame_cold(struct pager *p, uint32_t f)
{
	lock_acquire(&p->policy_lock);
	if (p->frames[f].listed)
		p->policy.ops->cold(&p->policy, f);
	lock_release(&p->policy_lock);
}

void frame_pin(struct pager *p, uint32_t f)
{
	lock_acquire(&p->policy_lock);
	if (p->frames[f].listed) {
		p->policy.ops->remove(&p->policy, f);
		p->frames[f].listed = false;
	}
	lock_release(&p->policy_lock);
}

void frame_unpin(struct pager *p, uint32_t f)
{
	lock_acquire(&p->policy_lock);
	if (!p->frames[f].listed) {
		p->policy.ops->insert(&p->policy, f, POLICY_FAULTED);
		p->frames[f].listed = true;
	}
	lock_release(&p->policy_lock);
}

uint32_t frames_victim(struct pager *p)
{
	uint32_t f;

	lock_acquire(&p->policy_lock);
	f = p->policy.ops->victim(&p->policy);
	if (f != FRAME_NONE) {
		ASSERT(p->frames[f].listed);
		p->frames[f].listed = false;
	}
	lock_release(&p->policy_lock);
	return f;
}

void frame_return(struct pager *p, uint32_t f)
{
	lock_acquire(&p->policy_lock);
	if (!p->frames[f].listed) {
		p->policy.ops->insert(&p->policy, f, POLICY_RESCUED);
		p->frames[f].listed = true;
	}
	lock_release(&p->policy_lock);
}

bool frame_claim_cold(struct pager *p, uint32_t f)
{
	bool cold;

	lock_acquire(&p->policy_lock);
	cold = p->frames[f].listed && p->policy.ops->is_cold(&p->policy, f);
	if (cold) {
		p->policy.ops->remove(&p->policy, f);
		p->frames[f].listed = false;
	}
	lock_release(&p->policy_lock);
	return cold;
}
