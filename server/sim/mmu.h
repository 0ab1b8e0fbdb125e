/*
 * mmu.h - the software MMU: what an x86 CPU makes of the engine's page tables.
 *
 * Modelled: two-level tables with 4 MiB pages (PSE, PSE-36) and PAE with 2 MiB pages,
 * CR0.WP and CR4.PGE set, EFER.NXE set under PAE; no SMEP, SMAP, PCID. Physical
 * addresses have 40 bits, as those of QEMU's qemu64.
 */
#ifndef SIM_MMU_H
#define SIM_MMU_H

#include "engine.h"

struct sim;

/* What a walk has found, as one entry in PAE's form: the frame of the 4 KiB page that
 * holds the address, and what all levels together allow (PTE_WRITE, PTE_USER, PTE_NX),
 * with PTE_DIRTY, PTE_GLOBAL and PTE_LARGE of the last level. Never 0. */
typedef u64 translation_t;

#define MMU_FRAME 0x000000fffffff000ULL

struct mmu_access {
	va_t va;
	u32 mode; /* ACCESS_* */
	bool user;
};

/* Does the translation allow the access? */
bool mmu_allows(translation_t t, const struct mmu_access *a);

/* Walks the tables at cr3. With `update`, sets accessed and dirty bits as the CPU
 * would. Returns 0 and the error code when the access faults. */
translation_t mmu_walk(struct sim *s, u32 cr3, const struct mmu_access *a, bool update,
		       u32 *ret_error_code);

/* The access's translation on a CPU, by its TLB or a walk. 0: it faults. */
translation_t mmu_translate(struct sim *s, u32 cpu, const struct mmu_access *a,
			    u32 *ret_error_code);

#endif
