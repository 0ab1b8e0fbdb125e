/*
 * pgtable.h - x86 page tables, two-level (with 4 MiB pages) or PAE (with 2 MiB
 * pages and NX), bit for bit as the CPU reads them, in lowmem frames.
 *
 * An entry is handled as a u64 in PAE's form whatever the mode; only this file
 * knows how wide it is in RAM. Tables of the kernel's half are made on demand in
 * the kernel's own tables and seen by every mm.
 */
#ifndef ENGINE_PGTABLE_H
#define ENGINE_PGTABLE_H

#include "../state.h"

/* What a kernel page's entry has beside its frame: Linux's PAGE_KERNEL with accessed
 * and dirty set from the beginning. NX is dropped where there is none. */
#define PTE_KERNEL_BITS (PTE_PRESENT | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY | PTE_GLOBAL | PTE_NX)

#define PTE_PRESENT  0x001ULL
#define PTE_WRITE    0x002ULL
#define PTE_USER     0x004ULL
#define PTE_PWT	     0x008ULL
#define PTE_PCD	     0x010ULL
#define PTE_ACCESSED 0x020ULL
#define PTE_DIRTY    0x040ULL
#define PTE_LARGE    0x080ULL /* in a directory entry */
#define PTE_GLOBAL   0x100ULL
/* Software: the frame is not this table's to free (shared zero page, pinned I/O). */
#define PTE_SPECIAL 0x200ULL
/* Software, only without PTE_PRESENT: a page that is there, but that its VMA lets
 * nobody touch (PROT_NONE). The bit is Linux's choice, PTE_GLOBAL's place. Such an
 * entry counts as an entry: it is found by pgtable_next() and keeps its table. */
#define PTE_PROTNONE 0x100ULL
#define PTE_NX	     (1ULL << 63) /* dropped without PAE */
#define PTE_FRAME    0x0000000ffffff000ULL

static inline pfn_t pte_pfn(u64 pte)
{
	return (pfn_t)((pte & PTE_FRAME) >> PAGE_SHIFT);
}

static inline u64 pte_make(pfn_t pfn, u64 bits)
{
	return ((u64)pfn << PAGE_SHIFT) | bits;
}

static inline bool is_pae(const struct engine *e)
{
	return e->st->layout.pae;
}

/* A PTE where it lies: a u64, or without PAE a u32. */
static inline u64 pte_read(const void *at, bool pae)
{
	return pae ? *(const u64 *)at : *(const u32 *)at;
}

static inline void pte_write(void *at, u64 pte, bool pae)
{
	if (pae)
		*(u64 *)at = pte;
	else
		*(u32 *)at = (u32)pte;
}

/* Bits of a kernel mapping with the protection UPROT_*: readable always. */
static inline u64 pte_of_prot(u32 prot)
{
	return PTE_PRESENT | PTE_ACCESSED | PTE_GLOBAL |
	       (prot & UPROT_WRITE ? PTE_WRITE | PTE_DIRTY : 0) | (prot & UPROT_EXEC ? 0 : PTE_NX);
}

/* The events' form of an entry's bits: low twelve, and NX in bit 31. */
static inline u32 pte_bits(u64 pte)
{
	return (u32)(pte & 0xfff) | (u32)((pte >> 63) << 31);
}

/* pgd 0 stands for the kernel's own tables. */

/* Top-level tables of a new mm, with the kernel's half in them. 0: no memory.
 * Under PAE the 32-byte table has a frame of its own. */
pfn_t pgd_alloc(struct engine *e);
/* Frees a pgd whose user half is empty, with the tables that are left in it. */
void pgd_free(struct engine *e, pfn_t pgd);
/* Frames of an mm's own tables, the pgd included; and of one that pgd_alloc() has just made. */
u32 pgtable_count(struct engine *e, pfn_t pgd);
u32 pgtable_count_new(const struct engine *e);

/* The entry that maps va: a PTE, or a directory entry with PTE_LARGE. 0: none. */
u64 pgtable_get(struct engine *e, pfn_t pgd, va_t va);

/* Sets the PTE of va, making the table it is in. OK or NO_MEMORY. Emits
 * EVENT_PTE_SET (for each page). Never flushes: that is the caller's. */
u32 pgtable_set(struct engine *e, pfn_t pgd, va_t va, u64 pte, u32 window);

/* Makes the table that va's PTE would be in, so that a later set cannot fail; *ret_made:
 * how many frames that took. */
u32 pgtable_prepare(struct engine *e, pfn_t pgd, va_t va, u32 *ret_made);

/* Clears the PTE of va and returns what it was. Emits EVENT_PTE_CLEARED if it
 * was not 0. The table stays. */
u64 pgtable_clear(struct engine *e, pfn_t pgd, va_t va, u32 window);

/* Where va's PTE lies in the kernel's tables; NULL: there is no table. The other makes the
 * table, which is not there; NULL: no memory. */
void *pgtable_slot(struct engine *e, va_t va);
void *pgtable_make_slot(struct engine *e, va_t va);

/* Frees the user-half tables of [start, end) that have no entry left. Returns how
 * many. A CPU may remember a directory entry, so the caller's flush comes after. */
u32 pgtable_prune(struct engine *e, pfn_t pgd, va_t start, va_t end);

/* The audit: does this pgd show the kernel's part as the kernel's own does? */
bool pgtable_shares_kernel(struct engine *e, pfn_t pgd);

/* Where the part begins that every mm shares: page_offset, or below it the span of
 * arm32's pkmap. */
va_t pgtable_kernel_start(const struct engine *e);

/* Next PTE of the user half that is not 0 (present, or PTE_PROTNONE) at or after
 * *va, below end. False: none. */
bool pgtable_next(struct engine *e, pfn_t pgd, va_t *va, va_t end, u64 *ret_pte);

/* Entries on the way down, for inspections: fills level 0.. and returns how many. */
struct pgtable_step {
	u64 entry_paddr, entry;
};
u32 pgtable_walk(struct engine *e, pfn_t pgd, va_t va, struct pgtable_step step[3]);

/* At boot: the kernel's tables, and the direct map with large pages where frames
 * and addresses are aligned. Frames of tables come from memblock. A status. */
u32 pgtable_boot(struct engine *e);

/* The guest's window and its devices, which only boot maps. */
bool pgtable_has_host_window(const struct engine *e);
bool pgtable_in_host_window(const struct engine *e, va_t va);

/* Flushes TLBs of the CPUs in the mask and says why (FLUSH_*). nr_pages 0: all,
 * and so are more than 33, as in Linux. */
void tlb_flush(struct engine *e, u32 cpus, va_t va, u32 nr_pages, u32 why);
/* Mask of every CPU of the machine. */
u32 tlb_all_cpus(const struct engine *e);

/* Is the frame a page table, of boot or of later? */
bool pgtable_is_table(struct engine *e, pfn_t pfn);

/* Digest: if the frame is a page table, clears in this copy of it the bits that a
 * CPU may set in its own time (accessed and dirty), so that both back ends agree. */
void pgtable_digest_mask(struct engine *e, pfn_t pfn, u64 words[PAGE_SIZE / 8]);

#endif
