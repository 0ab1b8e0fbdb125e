/*
 * mm.c - see mm.h.
 *
 * A copy goes in two passes. The first takes whatever could run out: VMAs, tables,
 * and frames for those pages that must not be shared. The second only shares, and
 * cannot fail. So a fork that fails leaves the parent's entries as they were.
 *
 * A pinned anonymous page is not shared: the device or kernel that pinned it means
 * the parent's page, and after copy on write the parent might be the one to get
 * another (Linux's page_maybe_dma_pinned). Hence an anonymous frame with pins is
 * never mapped by more than one task.
 */
#include "mm.h"
#include "../event.h"
#include "../frames/slab.h"
#include "../map/pgtable.h"
#include "mapping.h"
#include "vma.h"

ref_t mm_create(struct engine *e)
{
	ref_t ref = slab_alloc(e, SLAB_MM);
	struct mm *mm;

	if (!ref)
		return 0;
	mm = at(e, ref);
	mm->pgd = pgd_alloc(e);
	if (!mm->pgd) {
		slab_free(e, SLAB_MM, ref);
		return 0;
	}
	mm->page_tables = pgtable_count_new(e);
	mm->brk_start = mm->brk = BRK_START;
	return ref;
}

u32 mm_destroy(struct engine *e, ref_t ref)
{
	struct mm *mm = at(e, ref);
	u32 freed = mapping_clear_range(e, mm, 0, e->st->layout.task_size);

	vma_clear(e, mm);
	ENGINE_ASSERT(e, mm->resident == 0);
	pgd_free(e, mm->pgd);
	slab_free(e, SLAB_MM, ref);
	return freed;
}

static bool is_pinned(struct engine *e, u64 pte)
{
	struct page *p = page_of(e, pte_pfn(pte));

	return !(pte & PTE_SPECIAL) && page_state(p) == FRAME_ANONYMOUS && *page_pincount(p) > 0;
}

/* ---- first pass ---- */

static u32 copy_pinned(struct engine *e, struct mm *to, const struct area *vma, va_t va, u64 pte)
{
	pfn_t pfn = anonymous_copy(e, pte_pfn(pte));

	if (!pfn)
		return STATUS_NO_MEMORY;
	mapping_set(e, to, va, mapping_pte(e, vma, pfn, true) | (pte & PTE_DIRTY));
	return STATUS_OK;
}

static u32 prepare_entries(struct engine *e, struct mm *from, struct mm *to, const struct area *vma)
{
	va_t va = vma->start;
	u32 status, seen = 0;
	u64 pte;

	for (; pgtable_next(e, from->pgd, &va, vma->end, &pte); va += PAGE_SIZE) {
		status = mapping_prepare(e, to, va);
		if (status == STATUS_OK && is_pinned(e, pte))
			status = copy_pinned(e, to, vma, va, pte);
		if (status != STATUS_OK)
			return status;
		if (++seen % ENGINE_YIELD_FRAMES == 0)
			port_yield(e);
	}
	return STATUS_OK;
}

static u32 copy_vma(struct engine *e, struct mm *from, struct mm *to, const struct area *vma)
{
	u32 status = area_insert(e, &to->vmas, vma);

	if (status != STATUS_OK)
		return status;
	if (vma->a)
		file_map(e, vma->a);
	return vma->kind & VMA_ANON ? prepare_entries(e, from, to, vma) : STATUS_OK;
}

/* ---- second pass ---- */

/* Returns whether any entry of `from` lost the right to write. */
static bool share_entries(struct engine *e, struct mm *from, struct mm *to, const struct area *vma)
{
	va_t va = vma->start;
	bool any = false;
	u32 seen = 0;
	u64 pte;

	for (; pgtable_next(e, from->pgd, &va, vma->end, &pte); va += PAGE_SIZE) {
		if (++seen % ENGINE_YIELD_FRAMES == 0)
			port_yield(e);
		if (is_pinned(e, pte))
			continue;
		if (pte & PTE_WRITE) {
			pte &= ~PTE_WRITE;
			mapping_change(e, from, va, pte);
			any = true;
		}
		/* The child has not touched it yet. */
		mapping_set(e, to, va, pte & ~PTE_ACCESSED);
	}
	return any;
}

u32 mm_copy(struct engine *e, struct mm *from, struct mm *to)
{
	const struct area *a;
	bool flush = false;

	to->brk_start = from->brk_start;
	to->brk = from->brk;
	for (va_t va = 0; (a = area_find_next(e, &from->vmas, va)); va = a->end) {
		u32 status = copy_vma(e, from, to, a);

		if (status != STATUS_OK)
			return status;
	}
	for (va_t va = 0; (a = area_find_next(e, &from->vmas, va)); va = a->end)
		if (a->kind & VMA_ANON)
			flush |= share_entries(e, from, to, a);
	if (flush)
		tlb_flush(e, mm_cpus(e, from->pgd), 0, 0, FLUSH_FORK);
	return STATUS_OK;
}
