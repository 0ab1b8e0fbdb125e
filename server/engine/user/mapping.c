/*
 * mapping.c - see mapping.h.
 *
 * Invariants: (1) mapcount of a frame = entries in all user tables that point at
 * it; (2) each of them is one of its uses (page.ref); (3) mm->resident = entries
 * without PTE_SPECIAL; (4) mm->page_tables = frames of tables hanging on mm->pgd;
 * (5) a frame leaves a table only after the CPUs that run the mm have flushed it.
 *
 * Whether a TLB still holds an old entry is no part of a machine's state, so no
 * answer may depend on it: whatever takes something from a present entry, or puts
 * another frame in it, or even adds the right to write, flushes at once. Linux
 * leaves the last case to a spurious fault of the other CPU.
 */
#include "mapping.h"
#include "../event.h"
#include "../frames/page_alloc.h"
#include "../map/pgtable.h"
#include "../map/use.h"
#include "vma.h"

/* Frames cleared before a flush lets them go (Linux's mmu_gather does the same). */
enum { GATHER_FRAMES = 256 };

u64 mapping_pte(const struct engine *e, const struct area *vma, pfn_t pfn, bool own)
{
	u64 bits = PTE_PRESENT | PTE_USER;

	if (!(vma->kind & VMA_PROT))
		return pte_make(pfn, PTE_PROTNONE);
	if (vma->kind & VMA_WRITE && (vma->kind & VMA_SHARED || own))
		bits |= PTE_WRITE;
	if (!(vma->kind & VMA_EXEC) && e->st->layout.pae)
		bits |= PTE_NX;
	return pte_make(pfn, bits);
}

void mm_flush(struct engine *e, const struct mm *mm, va_t start, va_t end, u32 why)
{
	tlb_flush(e, mm_cpus(e, mm->pgd), start, (end - start) >> PAGE_SHIFT, why);
}

u32 mapping_prepare(struct engine *e, struct mm *mm, va_t va)
{
	u32 made, status = pgtable_prepare(e, mm->pgd, va, &made);

	mm->page_tables += made;
	return status;
}

void mapping_prune(struct engine *e, struct mm *mm, va_t start, va_t end)
{
	u32 freed = pgtable_prune(e, mm->pgd, start, end);

	mm->page_tables -= freed;
	/* A CPU may remember directory entries that led to the freed tables. */
	if (freed)
		mm_flush(e, mm, start, end, FLUSH_UNMAP);
}

static void count_in(struct engine *e, struct mm *mm, u64 pte)
{
	if (pte & PTE_SPECIAL)
		return;
	mm->resident++;
	++*page_mapcount(page_of(e, pte_pfn(pte)));
	frame_use(e, pte_pfn(pte));
}

/* Returns true if that was the end of an anonymous frame. */
static bool count_out(struct engine *e, pfn_t pfn)
{
	struct page *p = page_of(e, pfn);
	bool last = p->ref == 1 && page_state(p) == FRAME_ANONYMOUS;

	ENGINE_ASSERT(e, *page_mapcount(p) > 0);
	--*page_mapcount(p);
	frame_unuse(e, pfn);
	return last;
}

void mapping_change(struct engine *e, struct mm *mm, va_t va, u64 pte)
{
	u32 status = pgtable_set(e, mm->pgd, va, pte, WINDOW_USER);

	ENGINE_ASSERT(e, status == STATUS_OK);
}

void mapping_set(struct engine *e, struct mm *mm, va_t va, u64 pte)
{
	mapping_change(e, mm, va, pte);
	count_in(e, mm, pte);
}

void mapping_replace(struct engine *e, struct mm *mm, va_t va, u64 pte)
{
	u64 old = pgtable_clear(e, mm->pgd, va, WINDOW_USER);

	mm_flush(e, mm, va, va + PAGE_SIZE, FLUSH_COPY_ON_WRITE);
	mapping_set(e, mm, va, pte);
	if (old & PTE_SPECIAL)
		return;
	mm->resident--;
	count_out(e, pte_pfn(old));
}

/* Frames whose entries are cleared and whose flush is still to come. */
struct gather {
	va_t first, end; /* of the cleared entries */
	u32 nr;
	u32 freed;
	pfn_t pfn[GATHER_FRAMES]; /* 0: the shared zero page's entry */
};

static void gather_finish(struct engine *e, struct mm *mm, struct gather *g)
{
	if (!g->nr)
		return;
	mm_flush(e, mm, g->first, g->end, FLUSH_UNMAP);
	for (u32 i = 0; i < g->nr; i++)
		if (g->pfn[i])
			g->freed += count_out(e, g->pfn[i]);
	g->nr = 0;
}

u32 mapping_clear_range(struct engine *e, struct mm *mm, va_t start, va_t end)
{
	struct gather g = {.nr = 0, .freed = 0};
	va_t va = start;
	u64 pte;
	u32 cleared = 0;

	for (; pgtable_next(e, mm->pgd, &va, end, &pte); va += PAGE_SIZE) {
		bool special = pte & PTE_SPECIAL;

		pgtable_clear(e, mm->pgd, va, WINDOW_USER);
		if (!special)
			mm->resident--;
		if (!g.nr)
			g.first = va;
		g.end = va + PAGE_SIZE;
		g.pfn[g.nr++] = special ? 0 : pte_pfn(pte);
		if (g.nr == GATHER_FRAMES)
			gather_finish(e, mm, &g);
		if (++cleared % ENGINE_YIELD_FRAMES == 0)
			port_yield(e);
	}
	gather_finish(e, mm, &g);
	mapping_prune(e, mm, start, end);
	return g.freed;
}

pfn_t anonymous_alloc(struct engine *e, u32 gfp)
{
	pfn_t pfn = page_alloc_user(e, gfp);
	struct page *p;

	if (!pfn)
		return 0;
	p = page_of(e, pfn);
	page_set_state(p, FRAME_ANONYMOUS);
	*page_mapcount(p) = 0;
	*page_pincount(p) = 0;
	return pfn;
}

void frame_copy(struct engine *e, pfn_t to, pfn_t from)
{
	va_t to_va = kmap_temporary(e, e->op_cpu, to);
	va_t from_va = kmap_temporary(e, e->op_cpu, from);

	port_copy_page(e, e->op_cpu, to_va, from_va);
	kunmap_temporary(e, e->op_cpu, from_va);
	kunmap_temporary(e, e->op_cpu, to_va);
}

pfn_t anonymous_copy(struct engine *e, pfn_t from)
{
	pfn_t to = anonymous_alloc(e, GFP_HIGHUSER_MOVABLE);

	if (to)
		frame_copy(e, to, from);
	return to;
}
