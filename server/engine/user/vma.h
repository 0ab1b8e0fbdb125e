/*
 * vma.h - the ranges of an address space, and what may be done in each.
 *
 * A VMA is an area of mm->vmas:
 *   kind  VMA_* below
 *   a     ref of the struct file that it maps; 0: private anonymous memory
 *   b     page of the file that is at its start; 0 without a file
 *   c     0
 *
 * VMAs are sorted, do not overlap, lie below task_size, and no two neighbours that
 * could be one are two. Linux at times leaves neighbours apart whose anonymous
 * pages have a different history (anon_vma), to keep its reverse maps short; there
 * is no reverse map here, so they merge.
 */
#ifndef ENGINE_VMA_H
#define ENGINE_VMA_H

#include "../engine.h"
#include "task.h"

enum vma_flags {
	VMA_READ = UPROT_READ,
	VMA_WRITE = UPROT_WRITE,
	VMA_EXEC = UPROT_EXEC,
	VMA_PROT = UPROT_READ | UPROT_WRITE | UPROT_EXEC,
	VMA_SHARED = 8,
	/* Has had anonymous frames: fork copies its entries. Those of others are left
	 * for the child's faults to fill, as Linux's vma_needs_copy decides. */
	VMA_ANON = 16,
};

enum {
	/* Linux's sysctl vm.max_map_count. */
	VMA_MAX_COUNT = 65530,
	/* Linux's sysctl vm.mmap_min_addr. MAP_FIXED may go below, as for root. */
	MMAP_MIN_ADDR = 0x10000,
	/* Room for a stack above the top-down search: Linux's SIZE_128M, the least
	 * that mmap_base() in arch/x86/mm/mmap.c keeps. */
	MMAP_STACK_GAP = 128 << 20,
	/* Where the heap begins: behind where i386 programs are linked. There is no
	 * program here, and no randomisation. */
	BRK_START = 0x08048000,
};

/* The VMA that contains va; NULL: none. */
struct area *vma_find(struct engine *e, struct mm *mm, va_t va);

/* The page of the VMA's file at va. */
static inline u32 vma_file_page(const struct area *vma, va_t va)
{
	return vma->b + ((va - vma->start) >> PAGE_SHIFT);
}

/* Could the two be one? `next` begins where `prev` ends. */
bool vma_mergeable(const struct area *prev, const struct area *next);

/* The proto's view of a VMA: flags as MapFlag, number of its file (0: none). */
u32 vma_map_flags(const struct engine *e, const struct area *vma);
u32 vma_file_number(const struct engine *e, const struct area *vma);

/* Forgets every VMA of an mm whose entries are cleared. Emits nothing. */
void vma_clear(struct engine *e, struct mm *mm);

/* Events for all VMAs of a task at once: it was forked; it exits. */
void vma_tell_created(struct engine *e, const struct task *t);
void vma_tell_removed(struct engine *e, const struct task *t);

#endif
