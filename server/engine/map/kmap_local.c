/*
 * kmap_local.c - stacks of short-lived mappings, one a task and one a CPU.
 *
 *   entry  0     1     2     3          depth 4, slots 3
 *          high  high  low   high
 *   slot   0     1     -     2          fixmap index fix_kmap_begin + 16 cpu + slot
 *
 * Invariants:
 *  1. Entry i with a slot has the number of entries with a slot below it.
 *  2. The slots of a CPU are mapped by the stack of who is current there, and by no
 *     other: a stack that leaves the CPU takes its entries with it and leaves none.
 *  3. `slots` and `atomic` count entries.
 *
 * As in Linux, an unmapped slot is flushed from its CPU's TLB at once, and from no
 * other: nobody else may use it. A task that holds slots can be current on no other
 * CPU than theirs (Linux disables migration): Schedule sees to that.
 */
#include "kmap_local.h"

#include "../event.h"
#include "../frames/page_alloc.h"
#include "../ops.h"
#include "use.h"
#include "window.h"

static va_t slot_va(const struct engine *e, u32 cpu, u32 slot)
{
	return e->kmap_local_va - ((KMAP_LOCAL_SLOTS * cpu + slot) << PAGE_SHIFT);
}

static ALWAYS_INLINE void slot_map(struct engine *e, va_t va, pfn_t pfn)
{
	window_set(e, e->kmap_local_ptes, va, pfn, WINDOW_KMAP_LOCAL);
}

static ALWAYS_INLINE void slot_unmap(struct engine *e, va_t va, pfn_t pfn)
{
	window_clear(e, e->kmap_local_ptes, va, pfn, WINDOW_KMAP_LOCAL);
}

/* A new entry, of a frame of lowmem or of one that needs a slot; its address. */
static ALWAYS_INLINE va_t push_lowmem(struct engine *e, struct kmap_entry *entry, pfn_t pfn,
				      u32 how)
{
	va_t va = frame_ref(e, pfn);

	entry->pfn = pfn;
	entry->va = va;
	entry->how = how;
	entry->slot = 0;
	return va;
}

static ALWAYS_INLINE va_t push_slot(struct engine *e, u32 cpu, struct kmap_entry *entry, pfn_t pfn,
				    u32 how, u32 slot)
{
	va_t va = slot_va(e, cpu, slot);

	entry->pfn = pfn;
	entry->va = va;
	entry->how = how;
	entry->slot = slot + 1;
	slot_map(e, va, pfn);
	return va;
}

/* Takes the entry at the top away. */
static ALWAYS_INLINE void clear_top(struct kmap_stack *s, struct kmap_entry *top)
{
	s->depth--;
	top->pfn = 0;
	top->va = 0;
	top->how = 0;
	top->slot = 0;
}

va_t kmap_temporary(struct engine *e, u32 cpu, pfn_t pfn)
{
	struct kmap_stack *s = cpu_kmap_stack(e, cpu);
	struct kmap_entry *entry;
	va_t va;

	ENGINE_ASSERT(e, s->depth < KMAP_STACK_ENTRIES);
	entry = &s->entry[s->depth++];
	if (is_lowmem(e, pfn))
		return push_lowmem(e, entry, pfn, 0);
	/* Beyond the last slot temporaries borrow those of the lowest entries. */
	va = push_slot(e, cpu, entry, pfn, 0, s->slots++ % KMAP_LOCAL_SLOTS);
	if (__builtin_expect(s->slots > KMAP_LOCAL_SLOTS, 0))
		tlb_flush_page(e, cpu, va, FLUSH_KMAP_LOCAL);
	return va;
}

/* Gives a borrowed slot back to who held it before the temporary that is gone. */
static __attribute__((noinline)) void give_back(struct engine *e, const struct kmap_stack *s,
						va_t va)
{
	for (u32 i = 0; i < s->depth; i++) {
		if (s->entry[i].va == va) {
			slot_map(e, va, s->entry[i].pfn);
			return;
		}
	}
}

void kunmap_temporary(struct engine *e, u32 cpu, va_t va)
{
	struct kmap_stack *s = cpu_kmap_stack(e, cpu);
	struct kmap_entry *top;
	bool has_slot;
	pfn_t pfn;

	ENGINE_ASSERT(e, s->depth);
	top = &s->entry[s->depth - 1];
	ENGINE_ASSERT(e, top->va == va);
	pfn = top->pfn;
	has_slot = top->slot;
	clear_top(s, top);
	if (!has_slot)
		return;
	if (__builtin_expect(s->slots-- > KMAP_LOCAL_SLOTS, 0))
		give_back(e, s, va);
	else
		slot_unmap(e, va, pfn);
	tlb_flush_page(e, cpu, va, FLUSH_KMAP_LOCAL);
}

/* ---- Schedule ---- */

static void flush_slots(struct engine *e, u32 cpu, u32 slots)
{
	/* Slots go downwards in the address space. */
	if (slots)
		tlb_flush(e, 1u << cpu, slot_va(e, cpu, slots - 1), slots, FLUSH_SWITCH);
}

void kmap_switch(struct engine *e, u32 cpu, struct kmap_stack *from, struct kmap_stack *to)
{
	if (from == to)
		return;
	for (u32 i = 0; i < from->depth; i++) {
		if (from->entry[i].slot)
			slot_unmap(e, from->entry[i].va, from->entry[i].pfn);
	}
	flush_slots(e, cpu, from->slots);
	for (u32 i = 0; i < to->depth; i++) {
		struct kmap_entry *entry = &to->entry[i];

		if (!entry->slot)
			continue;
		entry->va = slot_va(e, cpu, entry->slot - 1);
		slot_map(e, entry->va, entry->pfn);
	}
}

/* ---- the ops ---- */

/* Task 0's stack is its CPU's, and its slots are in use by who is current. */
static bool owns_slots(const struct engine *e, const struct engine_op *op)
{
	return e->st->user.cpu[op->cpu].current == op->task;
}

/* Any frame, for anybody. */
static __attribute__((noinline)) u32 map_any(struct engine *e, const struct engine_op *op,
					     struct engine_result *res, u32 how)
{
	struct kmap_stack *s = task_kmap_stack(e, op->cpu, op->task);
	pfn_t pfn = (pfn_t)op->args[0];
	struct kmap_entry *entry;
	struct page *block;
	u32 status = frame_mappable(e, pfn, &block);

	if (status != STATUS_OK)
		return status;
	if (!owns_slots(e, op))
		return STATUS_NOT_OWNER;
	if (s->depth >= KMAP_OP_ENTRIES || (!is_lowmem(e, pfn) && s->slots >= KMAP_OP_SLOTS))
		return STATUS_LIMIT;
	if (!block_is_own(block)) {
		how |= KMAP_COUNTED;
		block->ref++;
	}
	s->atomic += how & KMAP_ATOMIC;
	entry = &s->entry[s->depth++];
	if (is_lowmem(e, pfn))
		result_put(res, 0, push_lowmem(e, entry, pfn, how));
	else
		result_put(res, 0, push_slot(e, op->cpu, entry, pfn, how, s->slots++));
	return STATUS_OK;
}

/* Mostly a CPU's own context asks, for the first frame of what AllocPages gave. Such frames are
 * never the engine's own. */
static ALWAYS_INLINE u32 map_op(struct engine *e, const struct engine_op *op,
				struct engine_result *res, u32 how)
{
	struct machine_state *st = e->st;
	struct kmap_stack *s = &st->user.cpu[op->cpu].kmap;
	pfn_t pfn = (pfn_t)op->args[0];
	struct page *page = &e->mem_map[pfn];
	struct kmap_entry *entry;

	if (pfn >= st->layout.max_pfn || !page_is_plain(page) || op->task ||
	    st->user.cpu[op->cpu].current || s->depth >= KMAP_OP_ENTRIES ||
	    s->slots >= KMAP_OP_SLOTS)
		return map_any(e, op, res, how);
	page->ref++;
	s->atomic += how;
	how |= KMAP_COUNTED;
	entry = &s->entry[s->depth++];
	if (pfn < st->layout.low_end_pfn)
		result_put(res, 0, push_lowmem(e, entry, pfn, how));
	else
		result_put(res, 0, push_slot(e, op->cpu, entry, pfn, how, s->slots++));
	return STATUS_OK;
}

static bool stack_has(const struct kmap_stack *s, va_t page)
{
	for (u32 i = 0; i < s->depth; i++) {
		if (s->entry[i].va == page)
			return true;
	}
	return false;
}

/* Why the top of the stack is not this page: deeper down, someone else's, nowhere. */
static u32 why_not_top(struct engine *e, const struct kmap_stack *own, va_t page)
{
	const struct user_state *user = &e->st->user;

	if (stack_has(own, page))
		return STATUS_NOT_LIFO;
	for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++) {
		if (stack_has(&user->cpu[cpu].kmap, page))
			return STATUS_NOT_OWNER;
	}
	for (u32 i = 0; i < user->tasks.nr; i++) {
		if (stack_has(&task_at(e, i)->kmap, page))
			return STATUS_NOT_OWNER;
	}
	return STATUS_NOT_FOUND;
}

static ALWAYS_INLINE void pop_slot(struct engine *e, u32 cpu, struct kmap_stack *s,
				   struct kmap_entry *top)
{
	pfn_t pfn = top->pfn;
	va_t va = top->va;

	s->slots--;
	clear_top(s, top);
	slot_unmap(e, va, pfn);
	tlb_flush_page(e, cpu, va, FLUSH_KMAP_LOCAL);
}

static __attribute__((noinline)) u32 unmap_any(struct engine *e, const struct engine_op *op,
					       u32 atomic)
{
	struct kmap_stack *s = task_kmap_stack(e, op->cpu, op->task);
	va_t page = (va_t)op->args[0] & ~(va_t)(PAGE_SIZE - 1);
	struct kmap_entry *top;
	u32 counted;
	pfn_t pfn;

	if (!s->depth || s->entry[s->depth - 1].va != page)
		return why_not_top(e, s, page);
	top = &s->entry[s->depth - 1];
	if (!owns_slots(e, op))
		return STATUS_NOT_OWNER;
	/* Ending an atomic section by the other call, or one that never began. */
	if ((top->how & KMAP_ATOMIC) != atomic)
		return STATUS_INVALID;
	pfn = top->pfn;
	counted = top->how & KMAP_COUNTED;
	s->atomic -= atomic;
	if (top->slot)
		pop_slot(e, op->cpu, s, top);
	else
		clear_top(s, top);
	if (counted)
		frame_unuse(e, pfn);
	return STATUS_OK;
}

static __attribute__((noinline)) void unuse_any(struct engine *e, pfn_t pfn)
{
	frame_unuse(e, pfn);
}

/* Any address in the page names the mapping, as in Linux. Mostly it is that of a CPU's own
 * context. */
static ALWAYS_INLINE u32 unmap_op(struct engine *e, const struct engine_op *op, u32 atomic)
{
	struct machine_state *st = e->st;
	struct kmap_stack *s = &st->user.cpu[op->cpu].kmap;
	va_t page = (va_t)op->args[0] & ~(va_t)(PAGE_SIZE - 1);
	struct kmap_entry *top;
	pfn_t pfn;

	if (op->task || st->user.cpu[op->cpu].current || !s->depth)
		return unmap_any(e, op, atomic);
	top = &s->entry[s->depth - 1];
	if (top->va != page || top->how != (atomic | KMAP_COUNTED))
		return unmap_any(e, op, atomic);
	pfn = top->pfn;
	s->atomic -= atomic;
	if (top->slot)
		pop_slot(e, op->cpu, s, top);
	else
		clear_top(s, top);
	if (__builtin_expect(page_is_plain(page_of(e, pfn)), 1))
		page_unuse_plain(e, page_of(e, pfn));
	else
		unuse_any(e, pfn);
	return STATUS_OK;
}

u32 op_kmap_local(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	return map_op(e, op, res, 0);
}

u32 op_kmap_atomic(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	return map_op(e, op, res, KMAP_ATOMIC);
}

u32 op_kunmap_local(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)res;
	return unmap_op(e, op, 0);
}

u32 op_kunmap_atomic(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)res;
	return unmap_op(e, op, KMAP_ATOMIC);
}
