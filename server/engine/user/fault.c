/*
 * fault.c - the page-fault handler, Fault and Access.
 *
 * The handler decides in Linux's order: is there a VMA, does it allow this kind of
 * access, and what does the entry say?
 *
 *   entry     access  memory             what happens
 *   0         read    private anonymous  the shared zero page, write-protected
 *   0         write   private anonymous  a zeroed frame
 *   0         read    file               the cache's frame
 *   0         write   file, shared       the cache's frame
 *   0         write   file, private      a copy of the cache's frame
 *   present   write   own frame          made writable
 *   present   write   any other          a copy
 *   present   else                       nothing: spurious
 *
 * A fault that finds no memory leaves no trace: not even an empty page table.
 *
 * Rights are those of x86: whoever may do anything may read; a fetch from what is
 * not executable is a protection fault under PAE, where the page is first brought
 * in as for a read, and is let through without it.
 *
 * Not modelled: stacks that grow, fault-around (Linux maps up to 16 cached pages of
 * a file at once), huge pages, swap.
 */
#include "fault.h"
#include "../event.h"
#include "../frames/page_alloc.h"
#include "../map/pgtable.h"
#include "../ops.h"
#include "mapping.h"
#include "vma.h"

/* What the handler works on. */
struct spot {
	struct mm *mm;
	struct area *vma;
	va_t va; /* of the page */
	u64 pte;
	pfn_t pfn; /* of the frame that is there in the end; 0: none */
	bool write;
};

static bool is_anonymous(struct engine *e, u64 pte)
{
	return !(pte & PTE_SPECIAL) && page_state(page_of(e, pte_pfn(pte))) == FRAME_ANONYMOUS;
}

/* Nobody else maps this frame. */
static bool is_own(struct engine *e, u64 pte)
{
	return is_anonymous(e, pte) && *page_mapcount(page_of(e, pte_pfn(pte))) == 1;
}

/* Linux's access_error(): may this VMA be accessed so? */
static bool is_allowed(const struct area *vma, u32 code)
{
	if (code & FAULT_WRITE)
		return vma->kind & VMA_WRITE;
	/* A read or fetch that a present entry refused. */
	if (code & FAULT_PROTECTION)
		return false;
	return vma->kind & VMA_PROT;
}

static u64 touched(const struct spot *s)
{
	return s->write ? PTE_ACCESSED | PTE_DIRTY : PTE_ACCESSED;
}

/* Puts a frame into the empty place, or in the place of another. */
static u32 put_frame(struct engine *e, struct spot *s, pfn_t pfn, bool own, u32 resolution)
{
	u64 pte = mapping_pte(e, s->vma, pfn, own) | touched(s);

	if (own)
		s->vma->kind |= VMA_ANON;
	if (s->pte)
		mapping_replace(e, s->mm, s->va, pte);
	else
		mapping_set(e, s->mm, s->va, pte);
	s->pfn = pfn;
	return resolution;
}

static u32 fault_anonymous(struct engine *e, struct spot *s)
{
	pfn_t pfn;

	if (!s->write) {
		u64 pte;

		s->pfn = e->st->map.zero_pfn;
		pte = mapping_pte(e, s->vma, s->pfn, false);
		mapping_set(e, s->mm, s->va, pte | PTE_SPECIAL | touched(s));
		return FAULT_ZERO_PAGE;
	}
	pfn = anonymous_alloc(e, GFP_HIGHUSER_MOVABLE | __GFP_ZERO);
	return pfn ? put_frame(e, s, pfn, true, FAULT_DEMAND_ZERO) : FAULT_NO_MEMORY;
}

static u32 fault_file(struct engine *e, struct spot *s)
{
	struct file *f = at(e, s->vma->a);
	u32 index = vma_file_page(s->vma, s->va);
	bool copy = s->write && !(s->vma->kind & VMA_SHARED);
	pfn_t cached, own = 0;

	if (index >= file_pages(f))
		return FAULT_BUS;
	/* The copy's frame first, as in Linux: so that a failure leaves no page in
	 * the cache. */
	if (copy) {
		own = anonymous_alloc(e, GFP_HIGHUSER_MOVABLE);
		if (!own)
			return FAULT_NO_MEMORY;
	}
	cached = file_page_make(e, f, index);
	if (!cached) {
		if (own)
			page_free(e, own, 0);
		return FAULT_NO_MEMORY;
	}
	if (!copy)
		return put_frame(e, s, cached, false, FAULT_FILE);
	frame_copy(e, own, cached);
	return put_frame(e, s, own, true, FAULT_COPY_ON_WRITE);
}

/* A write to a present, write-protected page of a private VMA: those of shared ones
 * are writable from the start. */
static u32 fault_write_protected(struct engine *e, struct spot *s)
{
	pfn_t pfn;

	ENGINE_ASSERT(e, !(s->vma->kind & VMA_SHARED));
	if (is_own(e, s->pte)) {
		mapping_change(e, s->mm, s->va, s->pte | PTE_WRITE | touched(s));
		mm_flush(e, s->mm, s->va, s->va + PAGE_SIZE, FLUSH_COPY_ON_WRITE);
		return FAULT_REUSE;
	}
	pfn = s->pte & PTE_SPECIAL ? anonymous_alloc(e, GFP_HIGHUSER_MOVABLE | __GFP_ZERO)
				   : anonymous_copy(e, pte_pfn(s->pte));
	return pfn ? put_frame(e, s, pfn, true, FAULT_COPY_ON_WRITE) : FAULT_NO_MEMORY;
}

static u32 fault_absent(struct engine *e, struct spot *s)
{
	u32 resolution;

	if (mapping_prepare(e, s->mm, s->va) != STATUS_OK)
		return FAULT_NO_MEMORY;
	resolution = s->vma->a ? fault_file(e, s) : fault_anonymous(e, s);
	if (resolution == FAULT_NO_MEMORY || resolution == FAULT_BUS)
		mapping_prune(e, s->mm, s->va, s->va + PAGE_SIZE);
	return resolution;
}

static u32 resolve(struct engine *e, struct mm *mm, va_t va, u32 code, pfn_t *ret_pfn)
{
	struct spot s = {.mm = mm, .va = va & ~(va_t)(PAGE_SIZE - 1), .write = code & FAULT_WRITE};
	u32 resolution;

	s.vma = va < e->st->layout.task_size ? vma_find(e, mm, va) : NULL;
	if (!s.vma)
		return FAULT_SEGMENTATION;
	if (!is_allowed(s.vma, code))
		return FAULT_PROTECTED;
	s.pte = pgtable_get(e, mm->pgd, va);
	s.pfn = pte_pfn(s.pte);
	if (!s.pte) {
		resolution = fault_absent(e, &s);
	} else if (s.write && !(s.pte & PTE_WRITE)) {
		resolution = fault_write_protected(e, &s);
	} else {
		mm_flush(e, mm, s.va, s.va + PAGE_SIZE, FLUSH_PROTECT);
		resolution = FAULT_SPURIOUS;
	}
	*ret_pfn = s.pfn;
	return resolution;
}

static u32 status_of(u32 resolution)
{
	switch (resolution) {
	case FAULT_PROTECTED:
	case FAULT_SEGMENTATION:
	case FAULT_BUS: return STATUS_FAULT;
	case FAULT_NO_MEMORY: return STATUS_NO_MEMORY;
	default: return STATUS_OK;
	}
}

static void tell(struct engine *e, const struct fault *f)
{
	event_page_fault(e, f->va, f->code, f->ret_resolution, f->ret_pfn,
			 f->ret_pfn ? zone_of_pfn(e, f->ret_pfn) : 0);
}

u32 fault_handle(struct engine *e, struct task *t, struct fault *f)
{
	struct mm *mm = task_mm(e, t);
	pfn_t pfn = 0;
	u32 status;

	f->ret_pfn = 0;
	if (t->kmap.atomic) {
		f->ret_resolution = FAULT_NONE;
		event_atomic_violation(e, t->number, t->cpu, ATOMIC_SLEEP);
		return STATUS_ATOMIC;
	}
	f->ret_resolution = resolve(e, mm, f->va, f->code, &pfn);
	status = status_of(f->ret_resolution);
	if (status == STATUS_OK)
		f->ret_pfn = pfn;
	tell(e, f);
	return status;
}

u32 fault_unshare(struct engine *e, struct task *t, va_t va)
{
	struct mm *mm = task_mm(e, t);
	struct spot s = {.mm = mm, .va = va & ~(va_t)(PAGE_SIZE - 1), .write = false};
	struct fault f = {va, FAULT_USER | FAULT_PROTECTION, FAULT_COPY_ON_WRITE, 0};

	s.vma = vma_find(e, mm, va);
	s.pte = pgtable_get(e, mm->pgd, va);
	if (!(s.pte & PTE_SPECIAL) && (!is_anonymous(e, s.pte) || is_own(e, s.pte)))
		return STATUS_OK;
	f.ret_pfn = s.pte & PTE_SPECIAL ? anonymous_alloc(e, GFP_HIGHUSER_MOVABLE | __GFP_ZERO)
					: anonymous_copy(e, pte_pfn(s.pte));
	if (!f.ret_pfn) {
		f.ret_resolution = FAULT_NO_MEMORY;
		tell(e, &f);
		return STATUS_NO_MEMORY;
	}
	s.vma->kind |= VMA_ANON;
	mapping_replace(e, mm, s.va, (mapping_pte(e, s.vma, f.ret_pfn, false) | touched(&s)));
	tell(e, &f);
	return STATUS_OK;
}

u32 op_fault(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct task *t = task_find(e, op->task);
	struct fault f = {.va = (va_t)op->args[0], .code = (u32)op->args[1]};
	u32 status;

	/* No entry of ours has a reserved bit set. */
	if (f.code & FAULT_RESERVED_BIT)
		return STATUS_INVALID;
	status = fault_handle(e, t, &f);
	if (status != STATUS_OK)
		return status;
	res->values[0] = f.ret_resolution;
	res->values[1] = f.ret_pfn;
	res->values[2] = zone_of_pfn(e, f.ret_pfn);
	return STATUS_OK;
}
