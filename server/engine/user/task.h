/*
 * task.h - tasks, address spaces, and which task is current on which CPU.
 *
 * Task numbers count from 1 and are never used again. Task 0 is each CPU's own
 * kernel context: it has a kmap stack per CPU and no mm.
 */
#ifndef ENGINE_TASK_H
#define ENGINE_TASK_H

#include "../map/areas.h"
#include "../map/kmap_local.h"
#include "numbers.h"

enum {
	ENGINE_MAX_TASKS = 4096,
	CPU_NONE = 0xffffffffu,
};

struct mm {
	pfn_t pgd;
	u32 resident;	 /* pages mapped; the shared zero page is not counted */
	u32 page_tables; /* frames of its own tables, pgd included */
	va_t brk_start, brk;
	u32 reserved0;
	struct area_map vmas; /* kind: VMA_* flags; see vma.h for a, b, c */
};

struct task {
	u32 number, parent;
	u32 cpu;  /* current on it; CPU_NONE */
	u32 home; /* the CPU it was last current on */
	ref_t mm;
	/* Asleep in kmap: the op and the frame; op 0 when awake. */
	pfn_t parked_pfn;
	u64 parked_op;
	u32 sleeper_next, sleeper_prev; /* task numbers, in pkmap's queue */
	u32 holdings;			/* pkmap uses it holds */
	u32 parked_owner;		/* owner label of the parked op */
	struct kmap_stack kmap;
};

struct cpu {
	u32 current;		/* task number; 0: its own context */
	pfn_t pgd;		/* tables it runs on; 0: the kernel's */
	struct kmap_stack kmap; /* of task 0 here */
};

struct user_state {
	struct number_table tasks; /* of struct task; task_at() walks them */
	struct cpu cpu[ENGINE_MAX_CPUS];
};

/* NULL: no such task. */
struct task *task_find(struct engine *e, u32 number);

/* The i-th task in order of number; i < user.tasks.nr. */
struct task *task_at(const struct engine *e, u32 i);

/* The kmap stack of `task` on `cpu` (the CPU's own for task 0). The op's rules
 * have been checked: a task other than 0 is current there. */
struct kmap_stack *task_kmap_stack(struct engine *e, u32 cpu, u32 task);

/* The stack of whoever is current on the CPU. */
struct kmap_stack *cpu_kmap_stack(struct engine *e, u32 cpu);

static inline struct mm *task_mm(const struct engine *e, const struct task *t)
{
	return (struct mm *)(bias_of(e) + t->mm);
}

/* CPUs whose current task has this pgd. */
u32 mm_cpus(const struct engine *e, pfn_t pgd);

/* Calls fn for every mm's pgd, in order of task number. */
void mm_for_each_pgd(struct engine *e, void (*fn)(struct engine *e, pfn_t pgd, void *arg),
		     void *arg);

#endif
