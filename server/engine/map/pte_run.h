/*
 * pte_run.h - PTEs of neighbouring pages of the kernel's half, one after the other: their
 * table is looked up once, and what is the same for all of them is made once.
 *
 * Whether PTEs are wide (PAE) is told to each function, so that who goes along many knows it
 * once and for all.
 */
#ifndef ENGINE_PTE_RUN_H
#define ENGINE_PTE_RUN_H

#include "../event.h"
#include "pgtable.h"

struct pte_run {
	u8 *slot; /* where the PTE of va lies, once pte_run_find() says so */
	va_t va;
	u32 window;
	u64 bits; /* of them all */
};

static inline struct pte_run pte_run_at(struct engine *e, va_t va, u64 bits, u32 window)
{
	return (struct pte_run){
	    .va = va, .window = window, .bits = is_pae(e) ? bits : bits & ~PTE_NX};
}

static inline u32 pte_width(bool pae)
{
	return pae ? 8 : 4;
}

/* How many pages from here on have their PTEs in one table. */
static inline u32 pte_run_length(const struct pte_run *run, bool pae)
{
	u32 entries = PAGE_SIZE / pte_width(pae);

	return entries - (run->va >> PAGE_SHIFT & (entries - 1));
}

/* Looks up where the next PTE lies: to be done at the beginning of each such stretch. False:
 * there is no table; pte_run_make() makes one, and there is no memory for it. */
static inline bool pte_run_find(struct engine *e, struct pte_run *run)
{
	run->slot = pgtable_slot(e, run->va);
	return run->slot;
}

static inline bool pte_run_make(struct engine *e, struct pte_run *run)
{
	run->slot = pgtable_make_slot(e, run->va);
	return run->slot;
}

static inline void pte_run_skip(struct pte_run *run, bool pae)
{
	run->slot += pte_width(pae);
	run->va += PAGE_SIZE;
}

/* Sets the next PTE, with its event. */
static inline void pte_run_set(struct engine *e, struct pte_run *run, pfn_t pfn, bool pae)
{
	pte_write(run->slot, pte_make(pfn, run->bits), pae);
	event_pte_set(e, run->window, run->va, pfn, pte_bits(run->bits));
	pte_run_skip(run, pae);
}

/* Clears the next PTE, which is set, with its event, and says whose it was. */
static inline pfn_t pte_run_clear(struct engine *e, struct pte_run *run, bool pae)
{
	pfn_t pfn = pte_pfn(pte_read(run->slot, pae));

	pte_write(run->slot, 0, pae);
	event_pte_cleared(e, run->window, run->va, pfn, pte_bits(run->bits));
	pte_run_skip(run, pae);
	return pfn;
}

#endif
