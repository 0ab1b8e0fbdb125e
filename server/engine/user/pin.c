/*
 * pin.c - PinUserPage and UnpinUserPage: a user page's frame, kept for a device or
 * for the kernel (Linux's pin_user_pages).
 *
 * Invariants: (1) a pin is one use of its frame, so the frame outlives its mappings
 * and is freed, if nobody maps it any more, with the last use; (2) an anonymous
 * frame with pins is mapped by one task at the most: sharing ends before the pin,
 * and fork copies it.
 *
 * The shared zero page is never pinned: it is nobody's, so a reader gets a zeroed
 * frame of his own.
 */
#include "../event.h"
#include "../frames/page_alloc.h"
#include "../map/pgtable.h"
#include "../map/use.h"
#include "../ops.h"
#include "fault.h"
#include "mapping.h"
#include "vma.h"

/* Faults the page in, until the entry allows what the pin will do. */
static u32 fault_in(struct engine *e, struct task *t, va_t va, bool write)
{
	u64 pte = pgtable_get(e, task_mm(e, t)->pgd, va);
	struct fault f = {.va = va, .code = FAULT_USER | (write ? FAULT_WRITE : 0u)};

	if (pte && (!write || pte & PTE_WRITE))
		return STATUS_OK;
	if (pte)
		f.code |= FAULT_PROTECTION;
	return fault_handle(e, t, &f);
}

u32 op_pin_user_page(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct task *t = task_find(e, op->task);
	va_t va = (va_t)op->args[0], page = va & ~(va_t)(PAGE_SIZE - 1);
	bool write = op->args[1], absent;
	const struct area *vma;
	u32 status;
	pfn_t pfn;

	if (t->kmap.atomic) {
		event_atomic_violation(e, t->number, t->cpu, ATOMIC_SLEEP);
		return STATUS_ATOMIC;
	}
	vma = va < e->st->layout.task_size ? vma_find(e, task_mm(e, t), va) : NULL;
	if (!vma || !(vma->kind & (write ? VMA_WRITE : VMA_READ)))
		return STATUS_FAULT;
	absent = !pgtable_get(e, task_mm(e, t)->pgd, va);
	status = fault_in(e, t, va, write);
	if (status == STATUS_OK && !write) {
		status = fault_unshare(e, t, va);
		/* Nor does the page stay that came in for the pin's sake. */
		if (status != STATUS_OK && absent)
			mapping_clear_range(e, task_mm(e, t), page, page + PAGE_SIZE);
	}
	if (status != STATUS_OK)
		return status;
	pfn = pte_pfn(pgtable_get(e, task_mm(e, t)->pgd, va));
	++*page_pincount(page_of(e, pfn));
	frame_use(e, pfn);
	res->values[0] = pfn;
	return STATUS_OK;
}

u32 op_unpin_user_page(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	pfn_t pfn = (pfn_t)op->args[0];
	struct page *p;
	u32 state;

	(void)res;
	if (pfn >= e->st->layout.max_pfn)
		return STATUS_INVALID;
	if (page_allocated_head(e, pfn) != pfn)
		return STATUS_NOT_FOUND;
	p = page_of(e, pfn);
	state = page_state(p);
	if ((state != FRAME_ANONYMOUS && state != FRAME_PAGE_CACHE) || !*page_pincount(p))
		return STATUS_NOT_FOUND;
	--*page_pincount(p);
	frame_unuse(e, pfn);
	return STATUS_OK;
}
