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
#include "pgtable.h"
#include "use.h"

static va_t slot_va(const struct engine *e, u32 cpu, u32 slot)
{
	const struct layout *l = &e->st->layout;

	return fix_to_va(l, l->fix_kmap_begin + KMAP_LOCAL_SLOTS * cpu + slot);
}

static inline void slot_map(struct engine *e, va_t va, pfn_t pfn)
{
	/* The table is boot's: setting cannot fail. */
	pgtable_set(e, 0, va, pte_make(pfn, PTE_KERNEL_BITS), WINDOW_KMAP_LOCAL);
}

static inline struct kmap_entry *push(struct engine *e, u32 cpu, struct kmap_stack *s, pfn_t pfn)
{
	ENGINE_ASSERT(e, s->depth < KMAP_STACK_ENTRIES);
	struct kmap_entry *entry = &s->entry[s->depth++];

	*entry = (struct kmap_entry){.pfn = pfn};
	if (is_lowmem(e, pfn)) {
		entry->va = frame_ref(e, pfn);
		return entry;
	}
	/* Beyond the last slot temporaries borrow those of the lowest entries. */
	u32 slot = s->slots++ % KMAP_LOCAL_SLOTS;

	entry->slot = slot + 1;
	entry->va = slot_va(e, cpu, slot);
	slot_map(e, entry->va, pfn);
	if (s->slots > KMAP_LOCAL_SLOTS)
		tlb_flush(e, 1u << cpu, entry->va, 1, FLUSH_KMAP_LOCAL);
	return entry;
}

/* Who held the slot before the temporary on top borrowed it? */
static const struct kmap_entry *lender_of(const struct kmap_stack *s, u32 slot)
{
	for (u32 i = 0; i < s->depth; i++) {
		if (s->entry[i].slot == slot)
			return &s->entry[i];
	}
	return NULL;
}

static inline void pop(struct engine *e, u32 cpu, struct kmap_stack *s)
{
	struct kmap_entry top = s->entry[--s->depth];

	s->entry[s->depth] = (struct kmap_entry){0};
	if (!top.slot)
		return;
	if (s->slots-- > KMAP_LOCAL_SLOTS)
		slot_map(e, top.va, lender_of(s, top.slot)->pfn);
	else
		pgtable_clear(e, 0, top.va, WINDOW_KMAP_LOCAL);
	tlb_flush(e, 1u << cpu, top.va, 1, FLUSH_KMAP_LOCAL);
}

va_t kmap_temporary(struct engine *e, u32 cpu, pfn_t pfn)
{
	return push(e, cpu, cpu_kmap_stack(e, cpu), pfn)->va;
}

void kunmap_temporary(struct engine *e, u32 cpu, va_t va)
{
	struct kmap_stack *s = cpu_kmap_stack(e, cpu);

	ENGINE_ASSERT(e, s->depth && s->entry[s->depth - 1].va == va);
	pop(e, cpu, s);
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
			pgtable_clear(e, 0, from->entry[i].va, WINDOW_KMAP_LOCAL);
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
static inline bool owns_slots(const struct engine *e, const struct engine_op *op)
{
	return e->st->user.cpu[op->cpu].current == op->task;
}

static inline u32 map_op(struct engine *e, const struct engine_op *op, struct engine_result *res,
			 bool atomic)
{
	struct kmap_stack *s = task_kmap_stack(e, op->cpu, op->task);
	pfn_t pfn = (pfn_t)op->args[0];
	struct page *block;
	u32 status = frame_mappable(e, pfn, &block);

	if (status != STATUS_OK)
		return status;
	if (!owns_slots(e, op))
		return STATUS_NOT_OWNER;
	if (s->depth >= KMAP_OP_ENTRIES || (!is_lowmem(e, pfn) && s->slots >= KMAP_OP_SLOTS))
		return STATUS_LIMIT;
	struct kmap_entry *entry = push(e, op->cpu, s, pfn);

	entry->atomic = atomic;
	s->atomic += atomic;
	entry->counted = !block_is_own(block);
	block->ref += entry->counted;
	res->values[0] = entry->va;
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

/* Any address in the page names the mapping, as in Linux. */
static inline u32 unmap_op(struct engine *e, const struct engine_op *op, bool atomic)
{
	struct kmap_stack *s = task_kmap_stack(e, op->cpu, op->task);
	va_t page = (va_t)op->args[0] & ~(va_t)(PAGE_SIZE - 1);

	if (!s->depth || s->entry[s->depth - 1].va != page)
		return why_not_top(e, s, page);
	struct kmap_entry top = s->entry[s->depth - 1];

	if (!owns_slots(e, op))
		return STATUS_NOT_OWNER;
	/* Ending an atomic section by the other call, or one that never began. */
	if (top.atomic != atomic)
		return STATUS_INVALID;
	pop(e, op->cpu, s);
	s->atomic -= atomic;
	if (top.counted)
		frame_unuse(e, top.pfn);
	return STATUS_OK;
}

u32 op_kmap_local(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	return map_op(e, op, res, false);
}

u32 op_kmap_atomic(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	return map_op(e, op, res, true);
}

u32 op_kunmap_local(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)res;
	return unmap_op(e, op, false);
}

u32 op_kunmap_atomic(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)res;
	return unmap_op(e, op, true);
}
