/*
 * mapping.h - entries of a task's page tables, and the counts that follow from
 * them: uses and user mappings of the frame, resident pages and tables of the mm.
 *
 * Every change of a user entry goes through here, so that the counts cannot be
 * forgotten. Windows are WINDOW_USER throughout.
 */
#ifndef ENGINE_MAPPING_H
#define ENGINE_MAPPING_H

#include "task.h"

/* Entry for a frame in a VMA as its protection has it now. `own`: nobody else maps
 * or caches this frame, so a private VMA may write to it. Not accessed, not dirty:
 * the caller adds what the fault was. */
u64 mapping_pte(const struct engine *e, const struct area *vma, pfn_t pfn, bool own);

/* Makes the table that va's entry is in: OK or NO_MEMORY. */
u32 mapping_prepare(struct engine *e, struct mm *mm, va_t va);

/* Frees the tables of [start, end) that hold nothing. */
void mapping_prune(struct engine *e, struct mm *mm, va_t start, va_t end);

/* Fills an empty place, whose table is there, and counts. PTE_SPECIAL entries (the
 * shared zero page) are not counted. */
void mapping_set(struct engine *e, struct mm *mm, va_t va, u64 pte);

/* Other bits for the same frame. Does not flush. */
void mapping_change(struct engine *e, struct mm *mm, va_t va, u64 pte);

/* Another frame in the place of one: flushes in between, as ptep_clear_flush. */
void mapping_replace(struct engine *e, struct mm *mm, va_t va, u64 pte);

/* Clears [start, end): flushes the CPUs that run the mm, then lets the frames go,
 * then the empty tables. Returns how many anonymous frames were freed. Yields. */
u32 mapping_clear_range(struct engine *e, struct mm *mm, va_t start, va_t end);

/* Flushes [start, end) on the CPUs that run the mm, if any. */
void mm_flush(struct engine *e, const struct mm *mm, va_t start, va_t end, u32 why);

/* A frame for private memory, state FRAME_ANONYMOUS, mapped by nobody yet.
 * 0: none. */
pfn_t anonymous_alloc(struct engine *e, u32 gfp);
/* The same, with a copy of another frame's bytes. */
pfn_t anonymous_copy(struct engine *e, pfn_t from);

/* Copies a frame's bytes, through temporary mappings. */
void frame_copy(struct engine *e, pfn_t to, pfn_t from);

#endif
