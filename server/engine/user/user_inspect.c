/*
 * user_inspect.c - what can be seen of tasks: /proc/PID/maps, and a list of them.
 */
#include "../event.h"
#include "../map/pgtable.h"
#include "../text.h"
#include "../wings.h"
#include "vma.h"

/* Pages of a VMA that have a frame; the zero page is none, as in Linux's RSS. */
static u32 count_resident(struct engine *e, struct mm *mm, const struct area *vma)
{
	va_t va = vma->start;
	u32 nr = 0;
	u64 pte;

	for (; pgtable_next(e, mm->pgd, &va, vma->end, &pte); va += PAGE_SIZE)
		nr += !(pte & PTE_SPECIAL);
	return nr;
}

/* The last column. Linux shows the path; files here have numbers alone. */
static void vma_name(struct engine *e, const struct mm *mm, const struct area *vma, char *out,
		     u32 size)
{
	const struct file *f = at(e, vma->a);

	out[0] = 0;
	if (vma->a && f->flags & FILE_SHMEM)
		text_format(out, size, "/dev/zero (deleted)");
	else if (vma->a)
		text_format(out, size, "file:%u", f->number);
	else if (vma->start < mm->brk && vma->end > mm->brk_start)
		text_format(out, size, "[heap]");
}

/* As show_map_vma() in Linux's fs/proc/task_mmu.c lays a line out on 32 bits: what
 * has a name has it in column 50. */
static void say_vma(struct engine *e, struct inspect_sink *sink, const struct mm *mm,
		    const struct area *vma)
{
	char line[80], name[32];
	u32 kind = vma->kind;

	text_format(line, sizeof line, "%08x-%08x %c%c%c%c %08x 00:%02x %u ", vma->start, vma->end,
		    kind & VMA_READ ? 'r' : '-', kind & VMA_WRITE ? 'w' : '-',
		    kind & VMA_EXEC ? 'x' : '-', kind & VMA_SHARED ? 's' : 'p',
		    vma->b << PAGE_SHIFT, vma->a ? 1u : 0u, vma_file_number(e, vma));
	vma_name(e, mm, vma, name, sizeof name);
	if (name[0])
		say(sink, "%-49s%s\n", line, name);
	else
		say(sink, "%s\n", line);
}

u32 inspect_maps(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	struct task *t = task_find(e, (u32)args[0]);
	const struct area *a;
	struct mm *mm;

	if (!t)
		return STATUS_NOT_FOUND;
	mm = task_mm(e, t);
	for (va_t va = 0; (a = area_find_next(e, &mm->vmas, va)); va = a->end) {
		say_vma(e, sink, mm, a);
		ROW(sink, ROW_MAPS_VMAS, a->start, a->end, a->kind & VMA_PROT, vma_map_flags(e, a),
		    vma_file_number(e, a), (u64)a->b << PAGE_SHIFT, count_resident(e, mm, a));
	}
	return STATUS_OK;
}

static void say_task(struct inspect_sink *sink, const struct task *t, const struct mm *mm)
{
	char cpu[12] = "-";

	if (t->cpu != CPU_NONE)
		text_format(cpu, sizeof cpu, "%u", t->cpu);
	say(sink, "%6u %6u %3s %s %7u %9u %7u %6u %6u\n", t->number, t->parent, cpu,
	    t->parked_op ? "parked" : "awake ", mm->vmas.nr_areas, mm->resident, mm->page_tables,
	    t->kmap.depth, t->kmap.atomic);
}

u32 inspect_tasks(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	(void)args;
	say(sink, "  TASK PARENT CPU STATE     VMAS  RESIDENT  TABLES LOCALS ATOMIC\n");
	for (u32 i = 0; i < e->st->user.tasks.nr; i++) {
		const struct task *t = task_at(e, i);
		const struct mm *mm = task_mm(e, t);

		say_task(sink, t, mm);
		ROW(sink, ROW_TASKS_TASKS, t->number, t->cpu, t->parent, t->parked_op != 0,
		    mm->vmas.nr_areas, mm->resident, mm->page_tables, t->kmap.depth,
		    t->kmap.atomic);
	}
	return STATUS_OK;
}
