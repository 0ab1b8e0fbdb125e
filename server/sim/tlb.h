/*
 * tlb.h - a CPU's translation cache. It can go stale: nothing but a flush or an entry
 * that takes its place removes an entry, whatever becomes of the tables.
 *
 * Two direct-mapped parts, for small and for large pages. An entry carries the
 * generation in which it was made; a flush begins a new one, so that flushing
 * everything costs nothing.
 */
#ifndef SIM_TLB_H
#define SIM_TLB_H

#include "mmu.h"

enum { TLB_SMALL = 256, TLB_LARGE = 32 };

struct tlb_entry {
	u32 page; /* number of the virtual page, small or large */
	u32 generation;
	translation_t translation; /* of a large page: of its first frame */
};

struct tlb {
	/* An entry is valid when its generation is one of these: by PTE_GLOBAL. */
	u32 generation[2];
	u32 large_shift; /* 22 two-level, 21 PAE */
	u32 reserved0;
	struct tlb_entry small[TLB_SMALL];
	struct tlb_entry large[TLB_LARGE];
};

void tlb_init(struct tlb *t, bool pae);
/* 0: not there. */
translation_t tlb_find(const struct tlb *t, va_t va);
void tlb_insert(struct tlb *t, va_t va, translation_t translation);
/* Entries that translate an address of [va, va + nr_pages). */
void tlb_flush_range(struct tlb *t, va_t va, u32 nr_pages);
/* Everything; what a CR3 load flushes leaves global entries alone. */
void tlb_flush_all(struct tlb *t);
void tlb_flush_local(struct tlb *t);

#endif
