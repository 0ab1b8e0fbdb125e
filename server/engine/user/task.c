/*
 * task.c - tasks, and who is current on which CPU.
 *
 * Invariants: (1) a task is current on at most one CPU, and t->cpu and
 * cpu.current say the same; (2) cpu.pgd is the current task's, 0 in the CPU's own
 * context, and the CPU's CR3 says the same; (3) the kmap_local slots of a CPU are
 * those of the stack of who is current.
 *
 * Tasks do not run by themselves: Schedule says who is current, and nothing else
 * does, but for the exit of a current task, after which its CPU is in its own
 * context. Linux keeps the old tables loaded in a kernel context (lazy TLB); here
 * the kernel's own are loaded, so that what an access finds does not depend on who
 * ran before.
 *
 * Where Schedule refuses: ATOMIC while the one who leaves holds an atomic mapping;
 * BUSY if the one who comes is parked, current on another CPU, or holds kmap_local
 * slots of another.
 */
#include "task.h"
#include "../boot/boot.h"
#include "../event.h"
#include "../frames/slab.h"
#include "../map/pgtable.h"
#include "../map/pkmap.h"
#include "../map/use.h"
#include "../ops.h"
#include "mm.h"
#include "vma.h"

static struct user_state *user_of(const struct engine *e)
{
	return &e->st->user;
}

u32 user_boot(struct engine *e)
{
	slab_setup(e, SLAB_TASK, sizeof(struct task));
	slab_setup(e, SLAB_MM, sizeof(struct mm));
	slab_setup(e, SLAB_FILE, sizeof(struct file));
	slab_setup(e, SLAB_FILE_NODE, sizeof(struct file_node));
	slab_setup(e, SLAB_NUMBERS, NUMBERS_PER_LEAF * sizeof(struct numbered));
	return STATUS_OK;
}

struct task *task_find(struct engine *e, u32 number)
{
	ref_t ref = numbers_find(e, &user_of(e)->tasks, number);

	return ref ? at(e, ref) : NULL;
}

struct task *task_at(const struct engine *e, u32 i)
{
	return at(e, numbers_at(e, &user_of(e)->tasks, i));
}

struct kmap_stack *task_kmap_stack(struct engine *e, u32 cpu, u32 task)
{
	return task ? &task_find(e, task)->kmap : &user_of(e)->cpu[cpu].kmap;
}

struct kmap_stack *cpu_kmap_stack(struct engine *e, u32 cpu)
{
	return task_kmap_stack(e, cpu, user_of(e)->cpu[cpu].current);
}

u32 mm_cpus(const struct engine *e, pfn_t pgd)
{
	u32 mask = 0;

	for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++)
		if (user_of(e)->cpu[cpu].pgd == pgd)
			mask |= 1u << cpu;
	return mask;
}

void mm_for_each_pgd(struct engine *e, void (*fn)(struct engine *e, pfn_t pgd, void *arg),
		     void *arg)
{
	for (u32 i = 0; i < user_of(e)->tasks.nr; i++)
		fn(e, task_mm(e, task_at(e, i))->pgd, arg);
}

/* Makes `next` (NULL: its own context) current on the CPU. The rules are the
 * callers'. */
static void switch_to(struct engine *e, u32 cpu, struct task *next)
{
	struct cpu *c = &user_of(e)->cpu[cpu];
	struct kmap_stack *from = cpu_kmap_stack(e, cpu);
	u32 previous = c->current;

	if (previous)
		task_find(e, previous)->cpu = CPU_NONE;
	if (next)
		next->cpu = next->home = cpu;
	c->current = next ? next->number : 0;
	c->pgd = next ? task_mm(e, next)->pgd : 0;
	kmap_switch(e, cpu, from, cpu_kmap_stack(e, cpu));
	port_load_cr3(e, cpu, (c->pgd ? c->pgd : e->st->map.kernel_pgd) << PAGE_SHIFT);
	event_task_switched(e, cpu, previous, c->current);
}

/* ---- the ops ---- */

/* A task with its number, its place in the table and an empty mm. */
static u32 task_new(struct engine *e, u32 parent, struct task **ret_task)
{
	struct number_table *tasks = &user_of(e)->tasks;
	ref_t mm, ref;
	struct task *t;
	u32 status;

	if (tasks->nr == ENGINE_MAX_TASKS)
		return STATUS_LIMIT;
	status = numbers_reserve(e, tasks);
	if (status != STATUS_OK)
		return status;
	ref = slab_alloc(e, SLAB_TASK);
	mm = ref ? mm_create(e) : 0;
	if (!mm) {
		if (ref)
			slab_free(e, SLAB_TASK, ref);
		numbers_trim(e, tasks);
		return STATUS_NO_MEMORY;
	}
	t = at(e, ref);
	t->parent = parent;
	t->cpu = CPU_NONE;
	t->mm = mm;
	*ret_task = t;
	return STATUS_OK;
}

u32 op_task_create(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct task *t;
	u32 status = task_new(e, op->task, &t);

	if (status != STATUS_OK)
		return status;
	t->number = numbers_add(e, &user_of(e)->tasks, ref_of(e, t));
	event_task_created(e, t->number, task_mm(e, t)->pgd);
	res->values[0] = t->number;
	return STATUS_OK;
}

u32 op_task_fork(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct task *parent = task_find(e, (u32)op->args[0]), *child;
	u32 status;

	if (!parent)
		return STATUS_NOT_FOUND;
	if (parent->parked_op)
		return STATUS_BUSY;
	status = task_new(e, parent->number, &child);
	if (status != STATUS_OK)
		return status;
	status = mm_copy(e, task_mm(e, parent), task_mm(e, child));
	if (status != STATUS_OK) {
		mm_destroy(e, child->mm);
		slab_free(e, SLAB_TASK, ref_of(e, child));
		numbers_trim(e, &user_of(e)->tasks);
		return status;
	}
	child->number = numbers_add(e, &user_of(e)->tasks, ref_of(e, child));
	event_task_forked(e, parent->number, child->number, task_mm(e, child)->pgd);
	vma_tell_created(e, child);
	res->values[0] = child->number;
	return STATUS_OK;
}

/* What a task still holds by kmap_local when it ends is unmapped: by switch_to() if
 * it was current, else it has no slots. Its uses go here. */
static void drop_locals(struct engine *e, struct kmap_stack *stack)
{
	for (u32 i = 0; i < stack->depth; i++)
		if (stack->entry[i].how & KMAP_COUNTED)
			frame_unuse(e, stack->entry[i].pfn);
}

u32 op_task_exit(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct task *t = task_find(e, (u32)op->args[0]);
	u32 number, freed;

	(void)res;
	if (!t)
		return STATUS_NOT_FOUND;
	number = t->number;
	if (t->kmap.atomic) {
		event_atomic_violation(e, number, t->cpu, ATOMIC_MOVE);
		return STATUS_ATOMIC;
	}
	pkmap_task_exit(e, t);
	if (t->cpu != CPU_NONE)
		switch_to(e, t->cpu, NULL);
	drop_locals(e, &t->kmap);
	vma_tell_removed(e, t);
	freed = mm_destroy(e, t->mm);
	numbers_remove(e, &user_of(e)->tasks, number);
	slab_free(e, SLAB_TASK, ref_of(e, t));
	event_task_exited(e, number, freed);
	return STATUS_OK;
}

u32 op_schedule(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u32 next_number = (u32)op->args[0], previous = user_of(e)->cpu[op->cpu].current;
	struct task *next = NULL;

	if (next_number) {
		next = task_find(e, next_number);
		if (!next)
			return STATUS_NOT_FOUND;
		if (next->parked_op || (next->cpu != CPU_NONE && next->cpu != op->cpu))
			return STATUS_BUSY;
		/* Its mappings are at addresses of the CPU where it made them. */
		if (next->kmap.slots && next->home != op->cpu)
			return STATUS_BUSY;
	}
	if (next_number != previous && cpu_kmap_stack(e, op->cpu)->atomic) {
		event_atomic_violation(e, previous, op->cpu, ATOMIC_MOVE);
		return STATUS_ATOMIC;
	}
	if (next_number != previous)
		switch_to(e, op->cpu, next);
	res->values[0] = previous;
	return STATUS_OK;
}
