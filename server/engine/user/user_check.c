/*
 * user_check.c - the audit of tasks, address spaces, files and uses of frames.
 *
 * Counts are recounted without memory of one's own: every user entry and every use
 * that a wing knows of is taken off the counts of its frame, then each count must
 * be what nobody else accounts for (its pins), then all is put back. Between the
 * two the machine does nothing else.
 */
#include "../event.h"
#include "../frames/page_alloc.h"
#include "../map/pgtable.h"
#include "../map/use.h"
#include "../text.h"
#include "../wings.h"
#include "vma.h"

/* ---- tasks and CPUs ---- */

static bool check_cpus(struct engine *e, struct engine_error *why)
{
	for (u32 cpu = 0; cpu < ENGINE_MAX_CPUS; cpu++) {
		const struct cpu *c = &e->st->user.cpu[cpu];
		const struct task *t = c->current ? task_find(e, c->current) : NULL;

		if (c->current && (!t || t->cpu != cpu || c->pgd != task_mm(e, t)->pgd))
			return refuse(why, "CPU %u: task %u is not current here", cpu, c->current);
		if (!c->current && c->pgd)
			return refuse(why, "CPU %u has tables %x and no task", cpu, c->pgd);
	}
	return true;
}

/* ---- address spaces ---- */

static bool check_vma(struct engine *e, const struct task *t, const struct area *vma,
		      const struct area *prev, struct engine_error *why)
{
	const u32 known = VMA_PROT | VMA_SHARED | VMA_ANON;

	if ((vma->start | vma->end) % PAGE_SIZE || vma->end > e->st->layout.task_size)
		return refuse(why, "task %u: VMA %08x-%08x is no range of user pages", t->number,
			      vma->start, vma->end);
	if (vma->kind & ~known || (vma->kind & VMA_SHARED && (!vma->a || vma->kind & VMA_ANON)))
		return refuse(why, "task %u: VMA %08x has flags %x", t->number, vma->start,
			      vma->kind);
	if (prev->end && vma_mergeable(prev, vma))
		return refuse(why, "task %u: VMAs %08x and %08x are one", t->number, prev->start,
			      vma->start);
	return true;
}

/* What an entry may point at and allow. */
static const char *entry_lie(struct engine *e, const struct area *vma, va_t va, u64 pte)
{
	pfn_t pfn = pte_pfn(pte);
	const struct page *p = page_of(e, pfn);
	bool writable = pte & PTE_WRITE;

	if (!(vma->kind & VMA_PROT) != !(pte & PTE_PRESENT))
		return "is present although nothing is allowed, or the reverse";
	if (pte & PTE_PRESENT && !(pte & PTE_USER))
		return "is the kernel's";
	if (writable && !(vma->kind & VMA_WRITE))
		return "may be written";
	if (e->st->layout.pae && pte & PTE_PRESENT && !(pte & PTE_NX) != !!(vma->kind & VMA_EXEC))
		return "disagrees about execution";
	if (pte & PTE_SPECIAL)
		return pfn != e->st->map.zero_pfn || writable || vma->a
			   ? "is special and not the zero page"
			   : NULL;
	if (pfn >= e->st->layout.max_pfn || page_allocated_head(e, pfn) != pfn)
		return "points at a frame that is free or none";
	if (page_state(p) == FRAME_PAGE_CACHE)
		return !vma->a || file_page(e, at(e, vma->a), vma_file_page(vma, va)) != pfn ||
			       (writable && !(vma->kind & VMA_SHARED))
			   ? "shows a page of another file, or a private copy that is none"
			   : NULL;
	if (page_state(p) != FRAME_ANONYMOUS || !(vma->kind & VMA_ANON))
		return "points at a frame of another use";
	return writable && *page_mapcount(page_of(e, pfn)) != 1 ? "may write to a shared frame"
								: NULL;
}

/* Every entry lies in a VMA that allows it; counts them. */
static bool check_entries(struct engine *e, const struct task *t, struct engine_error *why)
{
	struct mm *mm = task_mm(e, t);
	u32 resident = 0;
	va_t va = 0;
	u64 pte;

	for (; pgtable_next(e, mm->pgd, &va, e->st->layout.task_size, &pte); va += PAGE_SIZE) {
		const struct area *vma = vma_find(e, mm, va);
		const char *lie = vma ? entry_lie(e, vma, va, pte) : "is in no VMA";

		if (lie)
			return refuse(why, "task %u: entry of %08x %s", t->number, va, lie);
		resident += !(pte & PTE_SPECIAL);
	}
	if (resident != mm->resident)
		return refuse(why, "task %u: %u pages are resident, %u are counted", t->number,
			      resident, mm->resident);
	if (pgtable_count(e, mm->pgd) != mm->page_tables)
		return refuse(why, "task %u: %u page tables, %u are counted", t->number,
			      pgtable_count(e, mm->pgd), mm->page_tables);
	return true;
}

static bool check_mm(struct engine *e, const struct task *t, struct engine_error *why)
{
	struct mm *mm = task_mm(e, t);
	const char *lie = area_map_check(e, &mm->vmas);
	struct area prev = {0};
	const struct area *a;

	if (lie)
		return refuse(why, "task %u: %s", t->number, lie);
	if (mm->vmas.nr_areas > VMA_MAX_COUNT || mm->brk < mm->brk_start)
		return refuse(why, "task %u: too many VMAs, or a heap that ends before it begins",
			      t->number);
	for (va_t va = 0; (a = area_find_next(e, &mm->vmas, va)); va = a->end) {
		if (!check_vma(e, t, a, &prev, why))
			return false;
		prev = *a;
	}
	return check_entries(e, t, why);
}

/* ---- files ---- */

/* Adds `by` (-1 or 1, as u32) to a file's count for each VMA that maps it. */
static void shift_vmas(struct engine *e, u32 by)
{
	for (u32 i = 0; i < e->st->user.tasks.nr; i++) {
		struct mm *mm = task_mm(e, task_at(e, i));
		const struct area *a;

		for (va_t va = 0; (a = area_find_next(e, &mm->vmas, va)); va = a->end)
			if (a->a)
				((struct file *)at(e, a->a))->vmas += by;
	}
}

static bool check_file_vmas(struct engine *e, struct engine_error *why)
{
	const struct number_table *files = &e->st->files.files;
	bool right = true;

	for (u32 i = 0; i < files->nr; i++) {
		const struct file *f = at(e, numbers_at(e, files, i));

		if (f->flags & FILE_SHMEM && !f->vmas)
			return refuse(why, "file %u is shared memory that nobody maps", f->number);
	}
	shift_vmas(e, (u32)-1);
	for (u32 i = 0; i < files->nr && right; i++) {
		const struct file *f = at(e, numbers_at(e, files, i));

		if (f->vmas)
			right = refuse(why, "file %u: the VMAs that map it are miscounted by %d",
				       f->number, (int)f->vmas);
	}
	shift_vmas(e, 1);
	return right;
}

struct page_tally {
	u32 nr;
	u32 bad; /* index + 1 of a page that is none of the cache's */
};

static void tally_page(struct engine *e, struct file *f, u32 index, pfn_t pfn, void *arg)
{
	struct page_tally *tally = arg;

	(void)f;
	tally->nr++;
	if (pfn >= e->st->layout.max_pfn || page_allocated_head(e, pfn) != pfn ||
	    page_state(page_of(e, pfn)) != FRAME_PAGE_CACHE)
		tally->bad = index + 1;
}

static bool check_files(struct engine *e, struct engine_error *why)
{
	const struct file_state *files = &e->st->files;
	u32 cached = 0;

	if (!numbers_check(e, &files->files))
		return refuse(why, "files are out of order");
	for (u32 i = 0; i < files->files.nr; i++) {
		struct file *f = at(e, numbers_at(e, &files->files, i));
		struct page_tally tally = {0, 0};

		file_for_each_page(e, f, tally_page, &tally);
		if (tally.bad || tally.nr != f->nr_pages)
			return refuse(why, "file %u: %u pages, %u are counted, page %u is bad",
				      f->number, tally.nr, f->nr_pages, tally.bad);
		cached += tally.nr;
	}
	if (cached != files->cached_pages)
		return refuse(why, "%u pages of files, %u are counted", cached,
			      files->cached_pages);
	return check_file_vmas(e, why);
}

/* ---- frames ---- */

/* Adds `by` (-1 or 1, as u32) to the counts of whatever is accounted for. */
static void shift_use(struct engine *e, pfn_t head, void *arg)
{
	page_of(e, head)->ref += *(const u32 *)arg;
}

static void shift_counts(struct engine *e, u32 by)
{
	for (u32 i = 0; i < e->st->user.tasks.nr; i++) {
		struct mm *mm = task_mm(e, task_at(e, i));
		va_t va = 0;
		u64 pte;

		for (; pgtable_next(e, mm->pgd, &va, e->st->layout.task_size, &pte);
		     va += PAGE_SIZE) {
			if (pte & PTE_SPECIAL)
				continue;
			*page_mapcount(page_of(e, pte_pfn(pte))) += by;
			shift_use(e, pte_pfn(pte), &by);
		}
	}
	map_for_each_use(e, shift_use, &by);
	dma_for_each_use(e, shift_use, &by);
}

typedef bool frame_fn(struct engine *e, pfn_t pfn, struct page *p, struct engine_error *why);

/* The end of the frontier's range that pfn is in; 0: it is in none. Nobody has
 * touched the descriptors there, and neither does the audit. */
static pfn_t frontier_end(const struct frontier *f, pfn_t pfn)
{
	for (u32 i = 0; i < f->nr; i++)
		if (f->range[i].start <= pfn && pfn < f->range[i].end)
			return f->range[i].end;
	return 0;
}

/* Calls fn for the head of every allocated block, until it finds a lie. */
static bool for_each_allocated(struct engine *e, frame_fn *fn, struct engine_error *why)
{
	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		const struct zone *z = &e->st->frames.zone[zone];

		for (pfn_t pfn = z->start, next; pfn < z->end; pfn = next) {
			struct page *p = page_of(e, pfn);

			next = frontier_end(&z->frontier, pfn);
			if (next)
				continue;
			next = pfn + 1;
			if (!(p->flags & PAGE_HEAD))
				continue;
			next = pfn + pages_of_order(page_order(p));
			if (page_state(p) > FRAME_PCP && !fn(e, pfn, p, why))
				return false;
		}
	}
	return true;
}

/* As the counts stand: an anonymous frame has a use, or it would have been freed;
 * with pins it is mapped at most once. */
static bool check_anonymous(struct engine *e, pfn_t pfn, struct page *p, struct engine_error *why)
{
	(void)e;
	if (page_state(p) != FRAME_ANONYMOUS)
		return true;
	if (!p->ref)
		return refuse(why, "anonymous frame %x has no use and is not free", pfn);
	if (*page_pincount(p) && *page_mapcount(p) > 1)
		return refuse(why, "anonymous frame %x is pinned and shared", pfn);
	return true;
}

/* With all that is accounted for taken off. */
static bool check_remainder(struct engine *e, pfn_t pfn, struct page *p, struct engine_error *why)
{
	u32 state = page_state(p);
	bool user = state == FRAME_ANONYMOUS || state == FRAME_PAGE_CACHE;
	u32 pins = user ? *page_pincount(p) : 0;

	(void)e;
	if (user && *page_mapcount(p))
		return refuse(why, "frame %x: its mappings are miscounted by %d", pfn,
			      (int)*page_mapcount(p));
	if (p->ref != pins)
		return refuse(why, "frame %x (state %u): its uses are miscounted by %d", pfn, state,
			      (int)(p->ref - pins));
	return true;
}

static bool check_counts(struct engine *e, struct engine_error *why)
{
	bool right;

	if (!for_each_allocated(e, check_anonymous, why))
		return false;
	shift_counts(e, (u32)-1);
	right = for_each_allocated(e, check_remainder, why);
	shift_counts(e, 1);
	return right;
}

bool check_user(struct engine *e, struct engine_error *why)
{
	const struct number_table *tasks = &e->st->user.tasks;

	if (tasks->nr > ENGINE_MAX_TASKS || !numbers_check(e, tasks))
		return refuse(why, "tasks are out of order, or too many");
	for (u32 i = 0; i < tasks->nr; i++) {
		const struct task *t = task_at(e, i);

		if (t->cpu != CPU_NONE && e->st->user.cpu[t->cpu].current != t->number)
			return refuse(why, "task %u is not current on CPU %u", t->number, t->cpu);
		if (!check_mm(e, t, why))
			return false;
	}
	return check_cpus(e, why) && check_files(e, why) && check_counts(e, why);
}
