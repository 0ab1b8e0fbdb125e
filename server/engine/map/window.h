/*
 * window.h - single pages of the windows that map what the kernel likes: pkmap, and the
 * kmap_local slots of the fixmap.
 *
 * Their tables are boot's, and lie side by side, as the windows' addresses do. So a PTE is
 * found by arithmetic, as Linux finds it by the pkmap_page_table and kmap_pte that it keeps;
 * and as every entry is made here, with PTE_KERNEL_BITS, nothing need be read to clear one.
 */
#ifndef ENGINE_WINDOW_H
#define ENGINE_WINDOW_H

#include "../event.h"
#include "pgtable.h"

#define WINDOW_LOW_BITS	 ((u32)PTE_KERNEL_BITS)
#define WINDOW_HIGH_BITS ((u32)(PTE_KERNEL_BITS >> 32)) /* only there under PAE */

/* Finds where the entries lie, for the engine's handle: when boot has made them, and when a
 * machine is taken up. False: they are not as boot makes them. */
bool windows_find(struct engine *e, const struct layout *l);

/* `ptes` is the window's, of struct engine. */
static ALWAYS_INLINE void window_set(struct engine *e, uintptr_t ptes, va_t va, pfn_t pfn,
				     u32 window)
{
	uintptr_t page = va >> PAGE_SHIFT;
	u32 low = pfn << PAGE_SHIFT | WINDOW_LOW_BITS, bits = WINDOW_LOW_BITS;

	if (e->st->layout.pae) {
		*(u64 *)(ptes + page * 8) =
		    (u64)(pfn >> (32 - PAGE_SHIFT) | WINDOW_HIGH_BITS) << 32 | low;
		bits |= WINDOW_HIGH_BITS;
	} else {
		*(u32 *)(ptes + page * 4) = low;
	}
	event_pte_set(e, window, va, pfn, bits);
}

/* Clears the entry that maps this frame. */
static ALWAYS_INLINE void window_clear(struct engine *e, uintptr_t ptes, va_t va, pfn_t pfn,
				       u32 window)
{
	uintptr_t page = va >> PAGE_SHIFT;
	u32 bits = WINDOW_LOW_BITS;

	if (e->st->layout.pae) {
		*(u64 *)(ptes + page * 8) = 0;
		bits |= WINDOW_HIGH_BITS;
	} else {
		*(u32 *)(ptes + page * 4) = 0;
	}
	event_pte_cleared(e, window, va, pfn, bits);
}

/* One page, of the CPU that executes. */
static ALWAYS_INLINE void tlb_flush_page(struct engine *e, u32 cpu, va_t page, u32 why)
{
	port_flush_page(e, cpu, page);
	event_tlb_flush(e, why, 1u << cpu, page, 1);
}

#endif
