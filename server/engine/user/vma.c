/*
 * vma.c - mmap, munmap, mprotect and brk: which addresses a task has, and how.
 *
 * Invariants: those of vma.h; (1) a file counts the VMAs that map it; (2) a task's
 * page tables have entries only inside its VMAs, none with more rights than its VMA
 * gives.
 *
 * The way of each op: check everything, take what it could run out of (room for
 * VMAs, the file of a shared mapping), then change, by three small steps that keep
 * the invariants: split a VMA at an address, change or remove whole VMAs, merge two
 * at an address. One event a step, so that created + split - merged - removed is
 * the number of VMAs.
 *
 * Statuses where Linux has one errno for much: NO_SPACE for a range that does not
 * fit below task_size or into any hole, LIMIT for max_map_count, NOT_FOUND for
 * mprotect over a hole (Linux changes what lies before the hole; here nothing is).
 *
 * Not modelled: stacks that grow, huge pages, mlock, mremap, randomisation,
 * fault-around, RLIMITs.
 */
#include "vma.h"
#include "../event.h"
#include "../map/pgtable.h"
#include "../ops.h"
#include "mapping.h"

#define PAGE_MASK (~(va_t)(PAGE_SIZE - 1))

static u32 task_size(const struct engine *e)
{
	return e->st->layout.task_size;
}

/* Length in whole pages; 0: more than an address space. */
static u32 page_bytes(u64 length)
{
	u64 bytes = (length + PAGE_SIZE - 1) & ~(u64)(PAGE_SIZE - 1);

	return bytes >> 32 ? 0 : (u32)bytes;
}

/* Is [start, start + size) user space? */
static bool is_user_range(const struct engine *e, va_t start, u32 size)
{
	return size && size <= task_size(e) && start <= task_size(e) - size;
}

struct area *vma_find(struct engine *e, struct mm *mm, va_t va)
{
	return area_find(e, &mm->vmas, va);
}

static bool range_is_free(struct engine *e, struct mm *mm, va_t start, va_t end)
{
	const struct area *a = area_find_next(e, &mm->vmas, start);

	return !a || a->start >= end;
}

bool vma_mergeable(const struct area *prev, const struct area *next)
{
	const u32 kinds = VMA_PROT | VMA_SHARED;

	if (prev->end != next->start || (prev->kind ^ next->kind) & kinds || prev->a != next->a)
		return false;
	return !prev->a || vma_file_page(prev, prev->end) == next->b;
}

u32 vma_map_flags(const struct engine *e, const struct area *vma)
{
	const struct file *f = at(e, vma->a);
	u32 flags = vma->kind & VMA_SHARED ? UMAP_SHARED : UMAP_PRIVATE;

	return vma->a && !(f->flags & FILE_SHMEM) ? flags : flags | UMAP_ANONYMOUS;
}

u32 vma_file_number(const struct engine *e, const struct area *vma)
{
	const struct file *f = at(e, vma->a);

	return vma->a ? f->number : 0;
}

static void tell_created(struct engine *e, const struct task *t, const struct area *vma)
{
	event_vma_created(e, t->number, vma->start, vma->end, vma->kind & VMA_PROT,
			  vma_map_flags(e, vma), vma_file_number(e, vma));
}

/* ---- the steps ---- */

static void put_in(struct engine *e, struct mm *mm, const struct area *vma)
{
	u32 status = area_insert(e, &mm->vmas, vma);

	ENGINE_ASSERT(e, status == STATUS_OK);
	if (vma->a)
		file_map(e, vma->a);
}

/* Cuts the VMA that `at_va` lies inside of, if there is one. */
static void split_at(struct engine *e, struct task *t, va_t at_va)
{
	struct mm *mm = task_mm(e, t);
	struct area *left = area_find(e, &mm->vmas, at_va), right;

	if (!left || left->start == at_va)
		return;
	right = *left;
	right.start = at_va;
	right.b = left->a ? vma_file_page(left, at_va) : 0;
	event_vma_split(e, t->number, left->start, at_va, left->end);
	area_resize(e, &mm->vmas, left->start, left->start, at_va);
	put_in(e, mm, &right);
}

/* Makes one of the VMAs that meet at `at_va`, if they can be. */
static void merge_at(struct engine *e, struct task *t, va_t at_va)
{
	struct mm *mm = task_mm(e, t);
	struct area *next = area_find(e, &mm->vmas, at_va);
	struct area *prev = area_find_prev(e, &mm->vmas, at_va);
	struct area left, right;

	if (!next || !prev || next->start != at_va || !vma_mergeable(prev, next))
		return;
	left = *prev;
	right = *next;
	area_remove(e, &mm->vmas, right.start);
	area_resize(e, &mm->vmas, left.start, left.start, right.end);
	area_find(e, &mm->vmas, left.start)->kind |= right.kind & VMA_ANON;
	event_vma_merged(e, t->number, left.start, right.end);
	if (right.a)
		file_unmap(e, right.a);
}

/* Does `va` lie inside a VMA, so that a cut there makes one more? */
static bool cuts(struct engine *e, struct mm *mm, va_t va)
{
	const struct area *a = area_find(e, &mm->vmas, va);

	return a && a->start != va;
}

/* Room for cutting at both ends of a range, and for `more` VMAs beyond that. */
static u32 reserve_for_range(struct engine *e, struct mm *mm, va_t start, va_t end, u32 more)
{
	u32 nr = (u32)cuts(e, mm, start) + (u32)cuts(e, mm, end) + more;

	if (mm->vmas.nr_areas + nr > VMA_MAX_COUNT)
		return STATUS_LIMIT;
	return nr ? area_reserve(e, &mm->vmas, nr) : STATUS_OK;
}

/* Room has been made. */
static void unmap_range(struct engine *e, struct task *t, va_t start, va_t end)
{
	struct mm *mm = task_mm(e, t);
	struct area *a;

	if (range_is_free(e, mm, start, end))
		return;
	split_at(e, t, start);
	split_at(e, t, end);
	/* Entries first: the file of a shared anonymous mapping may go with its VMA. */
	mapping_clear_range(e, mm, start, end);
	while ((a = area_find_next(e, &mm->vmas, start)) && a->start < end) {
		struct area gone = *a;

		area_remove(e, &mm->vmas, gone.start);
		event_vma_removed(e, t->number, gone.start, gone.end);
		if (gone.a)
			file_unmap(e, gone.a);
	}
}

/* Room has been made, and the range is free. */
static void map_range(struct engine *e, struct task *t, const struct area *vma)
{
	put_in(e, task_mm(e, t), vma);
	tell_created(e, t, vma);
	merge_at(e, t, vma->start);
	merge_at(e, t, vma->end);
}

void vma_clear(struct engine *e, struct mm *mm)
{
	const struct area *a;

	for (va_t va = 0; (a = area_find_next(e, &mm->vmas, va)); va = a->end)
		if (a->a)
			file_unmap(e, a->a);
	area_map_clear(e, &mm->vmas);
}

void vma_tell_created(struct engine *e, const struct task *t)
{
	const struct area *a;

	for (va_t va = 0; (a = area_find_next(e, &task_mm(e, t)->vmas, va)); va = a->end)
		tell_created(e, t, a);
}

void vma_tell_removed(struct engine *e, const struct task *t)
{
	const struct area *a;

	for (va_t va = 0; (a = area_find_next(e, &task_mm(e, t)->vmas, va)); va = a->end)
		event_vma_removed(e, t->number, a->start, a->end);
}

/* ---- mmap ---- */

struct mmap_request {
	va_t addr;
	u32 size; /* bytes, whole pages */
	u32 flags;
	struct area vma; /* start and end are not set yet */
	bool shared_anonymous;
};

/* Everything about the request that does not depend on addresses. */
static u32 mmap_decode(struct engine *e, const u64 *args, struct mmap_request *r)
{
	const u32 known =
	    UMAP_SHARED | UMAP_PRIVATE | UMAP_FIXED | UMAP_ANONYMOUS | UMAP_FIXED_NOREPLACE;
	u32 file = (u32)args[4], offset = (u32)args[5];
	u32 kind;

	r->addr = (va_t)args[0];
	r->size = page_bytes(args[1]);
	r->flags = args[3] ? (u32)args[3] : UMAP_PRIVATE | UMAP_ANONYMOUS;
	kind = r->flags & (UMAP_SHARED | UMAP_PRIVATE);
	if (r->flags & ~known || kind == 0 || kind == (UMAP_SHARED | UMAP_PRIVATE))
		return STATUS_INVALID;
	if (offset % PAGE_SIZE || (r->flags & UMAP_ANONYMOUS && (file || offset)))
		return STATUS_INVALID;
	r->vma = (struct area){.kind = (u32)args[2] & VMA_PROT};
	if (kind == UMAP_SHARED)
		r->vma.kind |= VMA_SHARED;
	r->shared_anonymous = kind == UMAP_SHARED && r->flags & UMAP_ANONYMOUS;
	if (r->flags & UMAP_ANONYMOUS)
		return STATUS_OK;
	/* The last page's number must fit, as Linux's EOVERFLOW has it. */
	if (!r->size || offset > 0xffffffffu - r->size)
		return STATUS_INVALID;
	r->vma.a = file_find(e, file);
	r->vma.b = offset >> PAGE_SHIFT;
	return r->vma.a ? STATUS_OK : STATUS_NOT_FOUND;
}

/* Linux's choice: the hint if it is free; else the highest hole below the stack's
 * room; else the lowest hole above a third of user space. 0: none. */
static va_t choose_address(struct engine *e, struct mm *mm, va_t hint, u32 size)
{
	u32 limit = task_size(e);
	va_t va;

	hint &= PAGE_MASK;
	if (hint) {
		if (hint < MMAP_MIN_ADDR)
			hint = MMAP_MIN_ADDR;
		if (is_user_range(e, hint, size) && range_is_free(e, mm, hint, hint + size))
			return hint;
	}
	va = area_highest_fit(e, &mm->vmas, MMAP_MIN_ADDR, limit - MMAP_STACK_GAP, size, PAGE_SIZE);
	if (!va)
		va = area_lowest_fit(e, &mm->vmas, (limit / 3 + PAGE_SIZE - 1) & PAGE_MASK, limit,
				     size, PAGE_SIZE);
	return va;
}

/* Decides where the mapping goes: r->vma.start and end. */
static u32 mmap_place(struct engine *e, struct mm *mm, struct mmap_request *r)
{
	bool fixed = r->flags & (UMAP_FIXED | UMAP_FIXED_NOREPLACE);
	va_t va = r->addr;

	if (fixed && va % PAGE_SIZE)
		return STATUS_INVALID;
	if (!is_user_range(e, fixed ? va : 0, r->size))
		return STATUS_NO_SPACE;
	if (r->flags & UMAP_FIXED_NOREPLACE && !range_is_free(e, mm, va, va + r->size))
		return STATUS_EXISTS;
	if (!fixed) {
		va = choose_address(e, mm, va, r->size);
		if (!va)
			return STATUS_NO_SPACE;
	}
	r->vma.start = va;
	r->vma.end = va + r->size;
	return STATUS_OK;
}

u32 op_mmap(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct task *t = task_find(e, op->task);
	struct mm *mm = task_mm(e, t);
	struct mmap_request r;
	u32 status = mmap_decode(e, op->args, &r);

	if (status == STATUS_OK)
		status = mmap_place(e, mm, &r);
	if (status == STATUS_OK)
		status = reserve_for_range(e, mm, r.vma.start, r.vma.end, 1);
	/* Last, because nothing that follows can fail and leave it behind. */
	if (status == STATUS_OK && r.shared_anonymous)
		status = file_create(e, r.size, FILE_SHMEM, &r.vma.a);
	if (status != STATUS_OK)
		return status;
	unmap_range(e, t, r.vma.start, r.vma.end);
	map_range(e, t, &r.vma);
	res->values[0] = r.vma.start;
	return STATUS_OK;
}

u32 op_munmap(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct task *t = task_find(e, op->task);
	va_t start = (va_t)op->args[0];
	u32 size = page_bytes(op->args[1]);
	u32 status;

	(void)res;
	if (start % PAGE_SIZE || !is_user_range(e, start, size))
		return STATUS_INVALID;
	status = reserve_for_range(e, task_mm(e, t), start, start + size, 0);
	if (status == STATUS_OK)
		unmap_range(e, t, start, start + size);
	return status;
}

/* ---- mprotect ---- */

static bool range_is_full(struct engine *e, struct mm *mm, va_t start, va_t end)
{
	while (start < end) {
		const struct area *a = area_find(e, &mm->vmas, start);

		if (!a)
			return false;
		start = a->end;
	}
	return true;
}

/* Gives the entries of a VMA the rights that it has now. Returns whether any
 * changed. An anonymous frame that nobody else maps becomes writable at once, as
 * Linux's can_change_pte_writable does for exclusive ones. */
static bool reprotect_entries(struct engine *e, struct mm *mm, const struct area *vma)
{
	va_t va = vma->start;
	u32 seen = 0;
	bool any = false;
	u64 pte;

	for (; pgtable_next(e, mm->pgd, &va, vma->end, &pte); va += PAGE_SIZE) {
		struct page *p = page_of(e, pte_pfn(pte));
		bool own = !(pte & PTE_SPECIAL) && page_state(p) == FRAME_ANONYMOUS &&
			   *page_mapcount(p) == 1;
		u64 new = mapping_pte(e, vma, pte_pfn(pte), own) |
			  (pte & (PTE_SPECIAL | PTE_ACCESSED | PTE_DIRTY));

		if (new != pte) {
			mapping_change(e, mm, va, new);
			any = true;
		}
		if (++seen % ENGINE_YIELD_FRAMES == 0)
			port_yield(e);
	}
	return any;
}

/* Merges wherever VMAs meet, both ends included. */
static void merge_from_to(struct engine *e, struct task *t, va_t start, va_t end)
{
	const struct area *a;

	for (va_t va = start; va <= end; va = a->end) {
		merge_at(e, t, va);
		a = area_find_next(e, &task_mm(e, t)->vmas, va);
		if (!a)
			break;
	}
}

/* Would the change change what is at va? If not, no VMA need be cut there. */
static bool differs(struct engine *e, struct mm *mm, va_t va, u32 prot)
{
	const struct area *a = area_find(e, &mm->vmas, va);

	return a && (a->kind & VMA_PROT) != prot;
}

u32 op_mprotect(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct task *t = task_find(e, op->task);
	struct mm *mm = task_mm(e, t);
	va_t start = (va_t)op->args[0], end, va;
	u32 size = page_bytes(op->args[1]), prot = (u32)op->args[2] & VMA_PROT;
	bool flush = false;
	u32 status;

	(void)res;
	if (start % PAGE_SIZE || !is_user_range(e, start, size))
		return STATUS_INVALID;
	end = start + size;
	if (!range_is_full(e, mm, start, end))
		return STATUS_NOT_FOUND;
	status = reserve_for_range(e, mm, start, end, 0);
	if (status != STATUS_OK)
		return status;
	if (differs(e, mm, start, prot))
		split_at(e, t, start);
	if (differs(e, mm, end, prot))
		split_at(e, t, end);
	for (va = start; va < end;) {
		struct area *a = area_find(e, &mm->vmas, va);

		if ((a->kind & VMA_PROT) != prot) {
			a->kind = (a->kind & ~(u32)VMA_PROT) | prot;
			flush |= reprotect_entries(e, mm, a);
		}
		va = a->end;
	}
	if (flush)
		mm_flush(e, mm, start, end, FLUSH_PROTECT);
	merge_from_to(e, t, start, end);
	return STATUS_OK;
}

/* ---- brk ---- */

/* The heap's pages end here. */
static va_t heap_end(va_t brk)
{
	return (brk + PAGE_SIZE - 1) & PAGE_MASK;
}

static u32 brk_grow(struct engine *e, struct task *t, va_t old_end, va_t new_end)
{
	struct mm *mm = task_mm(e, t);
	struct area heap = {old_end, new_end, VMA_READ | VMA_WRITE, 0, 0, 0};
	u32 status;

	/* A page stays free above the heap, as Linux keeps it. */
	if (new_end > task_size(e) - PAGE_SIZE ||
	    !range_is_free(e, mm, old_end, new_end + PAGE_SIZE))
		return STATUS_NO_SPACE;
	status = reserve_for_range(e, mm, old_end, new_end, 1);
	if (status == STATUS_OK)
		map_range(e, t, &heap);
	return status;
}

static u32 brk_shrink(struct engine *e, struct task *t, va_t new_end, va_t old_end)
{
	u32 status = reserve_for_range(e, task_mm(e, t), new_end, old_end, 0);

	if (status == STATUS_OK)
		unmap_range(e, t, new_end, old_end);
	return status;
}

u32 op_brk(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct task *t = task_find(e, op->task);
	struct mm *mm = task_mm(e, t);
	va_t brk = op->args[0] ? (va_t)op->args[0] : mm->brk;
	u32 status = STATUS_OK;

	if (brk < mm->brk_start)
		return STATUS_INVALID;
	if (brk > task_size(e))
		return STATUS_NO_SPACE;
	if (heap_end(brk) > heap_end(mm->brk))
		status = brk_grow(e, t, heap_end(mm->brk), heap_end(brk));
	else if (heap_end(brk) < heap_end(mm->brk))
		status = brk_shrink(e, t, heap_end(brk), heap_end(mm->brk));
	if (status != STATUS_OK)
		return status;
	mm->brk = brk;
	res->values[0] = brk;
	return STATUS_OK;
}
