/*
 * mm.h - the address space of a task as a whole: made, copied, taken down.
 */
#ifndef ENGINE_MM_H
#define ENGINE_MM_H

#include "task.h"

/* An empty one. 0: no memory, and nothing is left behind. */
ref_t mm_create(struct engine *e);

/* Makes `to`, which is empty, what a fork of `from` has: the same VMAs, private
 * pages shared and write-protected in both, pinned ones copied. OK, NO_MEMORY or
 * LIMIT; after a failure `from` is untouched and `to` is only good for
 * mm_destroy(). Yields. */
u32 mm_copy(struct engine *e, struct mm *from, struct mm *to);

/* Lets everything go. No CPU runs on it. Returns how many anonymous frames were
 * freed. Yields. */
u32 mm_destroy(struct engine *e, ref_t mm);

#endif
