/*
 * fixmap.c - SetFixmap and ClearFixmap: virtual addresses known at compile time.
 *
 * Slot i is at fixmap_top - i pages. Some belong to kmap_local, to nobody, or to the
 * guest (the host window): the layout says which can be set.
 *
 * Invariant: a bit of fixmap_used is set exactly while the slot has an entry. An
 * entry on RAM counts as a use of the frame; one on anything else is uncached and
 * carries PTE_SPECIAL, by which the two are told apart.
 */
#include "../event.h"
#include "../ops.h"
#include "pgtable.h"
#include "use.h"

static bool is_used(const struct engine *e, u32 index)
{
	return e->st->map.fixmap_used[index / 32] >> index % 32 & 1;
}

u32 op_set_fixmap(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u32 index = (u32)op->args[0], prot = (u32)op->args[2], status;
	u64 paddr = op->args[1], bits = pte_of_prot(prot);
	pfn_t pfn = (pfn_t)(paddr >> PAGE_SHIFT);
	va_t va = fix_to_va(&e->st->layout, index);

	if (!fix_is_settable(&e->st->layout, index) || paddr & (PAGE_SIZE - 1) ||
	    prot == UPROT_NONE)
		return STATUS_INVALID;
	if (paddr >> 32 && !e->st->layout.pae)
		return STATUS_INVALID;
	if (is_used(e, index))
		return STATUS_EXISTS;
	if (paddr_is_ram(e, paddr, paddr + PAGE_SIZE)) {
		struct page *block;

		status = frame_mappable(e, pfn, &block);
		if (status != STATUS_OK)
			return status;
		if (block_is_own(block))
			return STATUS_BUSY;
		block->ref++;
	} else {
		bits |= PTE_PCD | PTE_PWT | PTE_SPECIAL;
	}
	e->st->map.fixmap_used[index / 32] |= 1u << index % 32;
	/* The table is boot's: setting cannot fail. */
	pgtable_set(e, 0, va, pte_make(pfn, bits), WINDOW_FIXMAP);
	res->values[0] = va;
	return STATUS_OK;
}

u32 op_clear_fixmap(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u32 index = (u32)op->args[0];
	va_t va = fix_to_va(&e->st->layout, index);
	u64 pte;

	(void)res;
	if (!fix_is_settable(&e->st->layout, index))
		return STATUS_INVALID;
	if (!is_used(e, index))
		return STATUS_NOT_FOUND;
	e->st->map.fixmap_used[index / 32] &= ~(1u << index % 32);
	pte = pgtable_clear(e, 0, va, WINDOW_FIXMAP);
	tlb_flush(e, tlb_all_cpus(e), va, 1, FLUSH_FIXMAP);
	if (!(pte & PTE_SPECIAL))
		frame_unuse(e, pte_pfn(pte));
	return STATUS_OK;
}
