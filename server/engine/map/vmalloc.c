/*
 * vmalloc.c - areas of the vmalloc window: their addresses, and what they map.
 *
 *   free addresses --vmalloc, vmap, ioremap--> live --vfree, vunmap, iounmap--> lazy
 *         ^                                                                      |
 *         +------------------------- purge: TLBs flushed ------------------------+
 *
 * Invariants:
 *  1. A live area [start, end) maps its first `a` pages and has a guard page behind;
 *     a lazy one maps nothing. Nothing else in the window has an entry.
 *  2. An area's frames are in its entries and nowhere else: VMAP_VMALLOC's are of
 *     state FRAME_VMALLOC and its own, VMAP_VMAP's are uses (use.h), VMAP_IOREMAP's
 *     are no RAM.
 *  3. lazy_areas, lazy_pages (guards included) and used_pages (guards not) count them.
 *
 * As in Linux, addresses of an allocation that failed for lack of memory go the way
 * of freed ones. Not modelled: per-CPU vmap blocks (vm_map_ram), huge mappings, and
 * the array of pages that Linux keeps beside an area.
 */
#include "vmalloc.h"

#include "../event.h"
#include "../frames/page_run.h"
#include "../ops.h"
#include "pte_run.h"
#include "use.h"

/* Linux's lazy_max_pages() a CPU bit. */
#define LAZY_PAGES_PER_BIT (32u << (20 - PAGE_SHIFT))

static struct vmap_state *vmap(struct engine *e)
{
	return &e->st->map.vmap;
}

static va_t page_va(va_t start, u32 i)
{
	return start + (i << PAGE_SHIFT);
}

static u32 area_pages(const struct area *a)
{
	return (a->end - a->start) >> PAGE_SHIFT;
}

/* How many of `pages` pages can be gone through at once: those whose PTEs are in one table.
 * What does so is written once and compiled twice, for wide PTEs and for others. */
static ALWAYS_INLINE u32 stretch(const struct pte_run *run, u32 pages, bool pae)
{
	u32 most = pte_run_length(run, pae);

	return pages < most ? pages : most;
}

/* Pages first to next - 1 are done: the next one, after a yield now and then. */
static ALWAYS_INLINE u32 go_on(struct engine *e, u32 first, u32 next)
{
	if ((first ^ next) >= ENGINE_YIELD_FRAMES)
		port_yield(e);
	return next;
}

/* ---- lazily freed areas ---- */

static u32 purge(struct engine *e)
{
	struct vmap_state *v = vmap(e);
	u32 areas = v->lazy_areas, pages = v->lazy_pages;
	va_t low, high;

	if (!areas)
		return 0;
	area_remove_kind(e, &v->areas, VMAP_LAZY, &low, &high);
	v->lazy_areas = v->lazy_pages = 0;
	tlb_flush(e, tlb_all_cpus(e), low, (high - low) >> PAGE_SHIFT, FLUSH_VMAP_PURGE);
	event_vmap_purge(e, areas, pages);
	return areas;
}

/* An area that maps nothing any more waits for the purge. */
static void make_lazy(struct engine *e, struct area *a)
{
	struct vmap_state *v = vmap(e);

	v->lazy_areas++;
	v->lazy_pages += area_pages(a);
	a->kind = VMAP_LAZY;
	a->a = a->b = a->c = 0;
	event_vmap_area(e, a->start, area_pages(a), false);
}

void vmap_end_of_op(struct engine *e)
{
	u32 bits = 32 - (u32)__builtin_clz(e->st->layout.cpus); /* fls */

	if (vmap(e)->lazy_pages > bits * LAZY_PAGES_PER_BIT)
		purge(e);
}

void vmap_before_access(struct engine *e, u32 cpu, va_t va, u32 length)
{
	struct vmap_state *v = vmap(e);
	u64 end = (u64)va + length;

	if (!v->lazy_areas)
		return;
	for (struct area *a = area_find_next(e, &v->areas, va); a && a->start < end;
	     a = area_find_next(e, &v->areas, a->end)) {
		if (a->kind == VMAP_LAZY)
			tlb_flush(e, 1u << cpu, a->start, area_pages(a), FLUSH_LAZY_ACCESS);
	}
}

/* ---- addresses ---- */

/* The lowest hole that fits; 0: none. Lazy areas keep their addresses, so that mostly all
 * holes between areas together would not do, and nobody has to look for one. */
static va_t lowest_hole(struct engine *e, u32 bytes, u32 align)
{
	const struct layout *l = &e->st->layout;
	struct vmap_state *v = vmap(e);
	va_t from = l->vmalloc_start, end = area_map_end(e, &v->areas);
	u32 guards = v->areas.nr_areas - v->lazy_areas;
	u32 taken = (v->used_pages + guards + v->lazy_pages) << PAGE_SHIFT;

	if (end && end - from - taken < bytes)
		from = end;
	return area_lowest_fit(e, &v->areas, from, l->vmalloc_end, bytes, align);
}

/* Takes addresses for `pages` pages and a guard. OK, NO_SPACE, NO_MEMORY or LIMIT. */
static u32 take_addresses(struct engine *e, u32 kind, u32 pages, u32 align, va_t *ret_va)
{
	struct vmap_state *v = vmap(e);
	u32 bytes = (pages + 1) << PAGE_SHIFT, status;
	va_t va = lowest_hole(e, bytes, align);

	if (!va && purge(e))
		va = lowest_hole(e, bytes, align);
	if (!va)
		return STATUS_NO_SPACE;
	status = area_insert(
	    e, &v->areas, &(struct area){.start = va, .end = va + bytes, .kind = kind, .a = pages});
	if (status != STATUS_OK)
		return status;
	event_vmap_area(e, va, pages + 1, true);
	*ret_va = va;
	return STATUS_OK;
}

/* The live area of this kind that begins at va. */
static u32 find_area(struct engine *e, u32 kind, va_t va, struct area **ret)
{
	struct area *a = area_find(e, &vmap(e)->areas, va);

	if (va & (PAGE_SIZE - 1))
		return STATUS_INVALID;
	if (!a || a->start != va || a->kind == VMAP_LAZY)
		return STATUS_NOT_FOUND;
	if (a->kind != kind)
		return STATUS_INVALID;
	*ret = a;
	return STATUS_OK;
}

/* Takes back the first `done` pages of an area that could not be finished, newest
 * first. */
static void roll_back(struct engine *e, va_t va, u32 done,
		      void (*drop)(struct engine *e, pfn_t pfn))
{
	while (done--) {
		if (done && done % ENGINE_YIELD_FRAMES == 0)
			port_yield(e);
		drop(e, pte_pfn(pgtable_clear(e, 0, page_va(va, done), WINDOW_VMALLOC)));
	}
	make_lazy(e, area_find(e, &vmap(e)->areas, va));
}

static ALWAYS_INLINE void unmap_pages(struct engine *e, va_t va, u32 pages,
				      void (*drop)(struct engine *e, pfn_t pfn), bool pae)
{
	struct pte_run run = pte_run_at(e, va, 0, WINDOW_VMALLOC);
	u32 n;

	for (u32 i = 0; i < pages; i = go_on(e, i, i + n)) {
		n = stretch(&run, pages - i, pae);
		ENGINE_ASSERT(e, pte_run_find(e, &run));
		/* An area's PTEs differ in their frames alone. */
		run.bits = pte_read(run.slot, pae) & ~PTE_FRAME;
		for (u32 left = n; left; left--)
			drop(e, pte_run_clear(e, &run, pae));
	}
}

static ALWAYS_INLINE void unmap_area(struct engine *e, struct area *a,
				     void (*drop)(struct engine *e, pfn_t pfn))
{
	if (is_pae(e))
		unmap_pages(e, a->start, a->a, drop, true);
	else
		unmap_pages(e, a->start, a->a, drop, false);
	vmap(e)->used_pages -= a->a;
	make_lazy(e, a);
}

static void drop_nothing(struct engine *e, pfn_t pfn)
{
	(void)e, (void)pfn;
}

/* ---- vmalloc ---- */

/* Frames by the rules of a GFP mask: HIGHMEM too unless DMA is asked for. */
static u32 vmalloc_gfp(u32 gfp)
{
	if (gfp == GFP_NONE)
		gfp = GFP_KERNEL;
	return gfp & __GFP_DMA ? gfp : gfp | __GFP_HIGHMEM;
}

static u32 managed_pages(const struct engine *e)
{
	u32 pages = 0;

	for (u32 zone = 0; zone < NR_ZONES; zone++)
		pages += e->st->frames.zone[zone].managed;
	return pages;
}

/* Frames for an area: returns how many pages have one. */
static ALWAYS_INLINE u32 fill(struct engine *e, va_t va, u32 pages, u32 gfp, bool pae)
{
	struct page_run frames = {.gfp = gfp};
	struct pte_run run = pte_run_at(e, va, PTE_KERNEL_BITS, WINDOW_VMALLOC);
	u32 n;

	for (u32 i = 0; i < pages; i = go_on(e, i, i + n)) {
		n = stretch(&run, pages - i, pae);
		run.slot = NULL;
		for (u32 left = n; left; left--) {
			pfn_t pfn = page_run_next(e, &frames, FRAME_VMALLOC);

			if (!pfn)
				return i + n - left;
			if (!run.slot && !pte_run_find(e, &run)) {
				frames.listed = 0; /* a table is a page, too */
				if (!pte_run_make(e, &run)) {
					page_free(e, pfn, 0);
					return i;
				}
			}
			pte_run_set(e, &run, pfn, pae);
		}
	}
	return pages;
}

u32 op_vmalloc(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u32 pages = pages_of(op->args[0]), gfp = vmalloc_gfp((u32)op->args[1]), status, done;
	va_t va;

	if (!page_gfp_valid(gfp))
		return STATUS_INVALID;
	/* Linux's first question: is there so much memory at all? */
	if (pages > managed_pages(e))
		return STATUS_NO_MEMORY;
	status = take_addresses(e, VMAP_VMALLOC, pages, PAGE_SIZE, &va);
	if (status != STATUS_OK)
		return status;
	done = is_pae(e) ? fill(e, va, pages, gfp, true) : fill(e, va, pages, gfp, false);
	if (done < pages) {
		roll_back(e, va, done, page_free_single);
		return STATUS_NO_MEMORY;
	}
	vmap(e)->used_pages += pages;
	res->values[0] = va;
	res->values[1] = pages;
	return STATUS_OK;
}

/* Has somebody mapped any of an area's frames besides? Those cannot go. */
static ALWAYS_INLINE bool is_used(struct engine *e, const struct area *a, bool pae)
{
	struct pte_run run = pte_run_at(e, a->start, 0, WINDOW_VMALLOC);
	u32 n;

	for (u32 i = 0; i < a->a; i = go_on(e, i, i + n)) {
		n = stretch(&run, a->a - i, pae);
		ENGINE_ASSERT(e, pte_run_find(e, &run));
		for (u32 left = n; left; left--, pte_run_skip(&run, pae)) {
			if (page_of(e, pte_pfn(pte_read(run.slot, pae)))->ref)
				return true;
		}
	}
	return false;
}

u32 op_vfree(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct area *a;
	u32 status = find_area(e, VMAP_VMALLOC, (va_t)op->args[0], &a);

	(void)res;
	if (status != STATUS_OK)
		return status;
	if (is_pae(e) ? is_used(e, a, true) : is_used(e, a, false))
		return STATUS_BUSY;
	unmap_area(e, a, page_free_single);
	return STATUS_OK;
}

/* ---- vmap ---- */

static pfn_t listed_pfn(const struct engine_op *op, u32 i)
{
	u32 word;

	__builtin_memcpy(&word, op->data + i * sizeof word, sizeof word);
	return word;
}

/* Returns how many are mapped. */
static ALWAYS_INLINE u32 map_listed(struct engine *e, va_t va, u32 pages,
				    const struct engine_op *op, u64 bits, bool pae)
{
	struct pte_run run = pte_run_at(e, va, bits, WINDOW_VMALLOC);
	u32 n;

	for (u32 i = 0; i < pages; i = go_on(e, i, i + n)) {
		n = stretch(&run, pages - i, pae);
		if (!pte_run_find(e, &run) && !pte_run_make(e, &run))
			return i;
		for (u32 k = i; k < i + n; k++) {
			pfn_t pfn = listed_pfn(op, k);

			frame_use(e, pfn);
			pte_run_set(e, &run, pfn, pae);
		}
	}
	return pages;
}

u32 op_vmap(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u32 pages = op->data_len / (u32)sizeof(u32), prot = (u32)op->args[0], status, done;
	u64 bits = pte_of_prot(prot ? prot : UPROT_READ | UPROT_WRITE);
	va_t va;

	if (!pages || op->data_len % sizeof(u32))
		return STATUS_INVALID;
	for (u32 i = 0; i < pages; i++) {
		struct page *block;

		status = frame_mappable(e, listed_pfn(op, i), &block);
		if (status == STATUS_OK && block_is_own(block))
			status = STATUS_BUSY;
		if (status != STATUS_OK)
			return status;
	}
	status = take_addresses(e, VMAP_VMAP, pages, PAGE_SIZE, &va);
	if (status != STATUS_OK)
		return status;

	done = is_pae(e) ? map_listed(e, va, pages, op, bits, true)
			 : map_listed(e, va, pages, op, bits, false);
	if (done < pages) {
		roll_back(e, va, done, frame_unuse);
		return STATUS_NO_MEMORY;
	}
	vmap(e)->used_pages += pages;
	res->values[0] = va;
	return STATUS_OK;
}

u32 op_vunmap(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct area *a;
	u32 status = find_area(e, VMAP_VMAP, (va_t)op->args[0], &a);

	(void)res;
	if (status == STATUS_OK)
		unmap_area(e, a, frame_unuse);
	return status;
}

/* ---- ioremap ---- */

/* An area is aligned to its size's next power of two, up to a large page: Linux's
 * rule for VM_IOREMAP (IOREMAP_MAX_ORDER is PMD_SHIFT). */
static u32 ioremap_align(const struct engine *e, u32 pages)
{
	u32 most = e->st->layout.pae ? 2u << 20 : 4u << 20, align = PAGE_SIZE;

	while (align < pages << PAGE_SHIFT && align < most)
		align <<= 1;
	return align;
}

/* Returns how many pages are mapped. */
static u32 map_device(struct engine *e, va_t va, u32 pages, pfn_t first)
{
	struct pte_run run = pte_run_at(e, va, PTE_KERNEL_BITS | PTE_PCD | PTE_PWT, WINDOW_VMALLOC);
	bool pae = is_pae(e);
	u32 n;

	for (u32 i = 0; i < pages; i = go_on(e, i, i + n)) {
		n = stretch(&run, pages - i, pae);
		if (!pte_run_find(e, &run) && !pte_run_make(e, &run))
			return i;
		for (u32 k = i; k < i + n; k++)
			pte_run_set(e, &run, first + k, pae);
	}
	return pages;
}

u32 op_ioremap(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u64 start = op->args[0] & ~(u64)(PAGE_SIZE - 1);
	u64 end = (op->args[0] + op->args[1] + PAGE_SIZE - 1) & ~(u64)(PAGE_SIZE - 1);
	u32 pages = (u32)((end - start) >> PAGE_SHIFT), status, done;
	u64 reach = e->st->layout.pae ? 1ULL << 36 : 1ULL << 32;
	va_t va;

	if (end > reach || paddr_is_ram(e, start, end))
		return STATUS_INVALID;
	status = take_addresses(e, VMAP_IOREMAP, pages, ioremap_align(e, pages), &va);
	if (status != STATUS_OK)
		return status;
	area_find(e, &vmap(e)->areas, va)->b = (u32)(start >> PAGE_SHIFT);
	done = map_device(e, va, pages, (pfn_t)(start >> PAGE_SHIFT));
	if (done < pages) {
		roll_back(e, va, done, drop_nothing);
		return STATUS_NO_MEMORY;
	}
	vmap(e)->used_pages += pages;
	res->values[0] = va + (u32)(op->args[0] - start);
	return STATUS_OK;
}

/* The address as ioremap gave it: anywhere in the first page. */
u32 op_iounmap(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct area *a;
	u32 status = find_area(e, VMAP_IOREMAP, (va_t)op->args[0] & ~(va_t)(PAGE_SIZE - 1), &a);

	(void)res;
	if (status == STATUS_OK)
		unmap_area(e, a, drop_nothing);
	return status;
}

/* ---- by hand ---- */

u32 op_purge_vmap(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)op;
	res->values[1] = vmap(e)->lazy_pages;
	res->values[0] = purge(e);
	return STATUS_OK;
}

u32 op_flush_tlb(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)op, (void)res;
	tlb_flush(e, tlb_all_cpus(e), 0, 0, FLUSH_REQUEST);
	return STATUS_OK;
}
