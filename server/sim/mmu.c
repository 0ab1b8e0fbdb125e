/*
 * mmu.c - see mmu.h.
 *
 * Facts of the architecture (Intel SDM volume 3, chapters 4.3 to 4.7): rights are the
 * AND of all levels, but for PAE's first, which has none; reserved bits fault before
 * rights are looked at; a fetch is told apart in the error code only where NX exists.
 *
 * A TLB entry serves an access that it allows, and a write only if it is dirty. An access
 * that the entry does not allow is looked up again in the tables, so an entry with fewer
 * rights than the tables never causes a fault: QEMU does the same, and real CPUs may.
 * Every access that an entry serves is compared with the tables; one that they would not
 * serve alike is a stale hit: it is served from the entry, as a CPU would, and told.
 */
#include "mmu.h"

#include <string.h>

#include "event.h"
#include "map/pgtable.h"
#include "sim_internal.h"

/* Physical address bits that must be zero in an entry of PAE, below NX: 62 to 40. */
#define PAE_RESERVED 0x7fffff0000000000ULL
/* In the first level also rights and more: bits 8 to 5, 2 and 1, and NX. */
#define PDPTE_RESERVED (PAE_RESERVED | PTE_NX | 0x1e6ULL)
/* Of a 2 MiB page: address bits below it, but for PAT in bit 12. */
#define PAE_LARGE_RESERVED 0x1fe000ULL
/* Of a 4 MiB page: bit 21. Bits 20 to 13 are address bits 39 to 32 (PSE-36). */
#define PSE_RESERVED 0x200000ULL

bool mmu_allows(translation_t t, const struct mmu_access *a)
{
	if (a->user && !(t & PTE_USER))
		return false;
	if (a->mode == ACCESS_WRITE && !(t & PTE_WRITE))
		return false;
	return a->mode != ACCESS_EXECUTE || !(t & PTE_NX);
}

static u64 entry_read(struct sim *s, u64 paddr)
{
	const u8 *p = sim_ram(s, paddr);
	u64 entry = 0;

	/* What is no RAM reads as ones. */
	if (!p)
		return s->pae ? ~0ULL : 0xffffffff;
	memcpy(&entry, p, s->pae ? 8 : 4);
	return entry;
}

static void entry_set_bits(struct sim *s, u64 paddr, u32 bits)
{
	u8 *p = sim_ram(s, paddr);

	/* Accessed and dirty are in an entry's first byte. */
	if (p)
		*p |= (u8)bits;
}

struct walk {
	u64 entry, entry_paddr;
	u64 rights; /* PTE_WRITE | PTE_USER, and PTE_NX inverted, of all levels so far */
};

static u64 rights_of(u64 entry)
{
	return (entry ^ PTE_NX) & (PTE_WRITE | PTE_USER | PTE_NX);
}

/* The bits of an entry that must be zero. */
static u64 reserved_in(const struct sim *s, u64 entry, bool directory)
{
	bool large = directory && entry & PTE_LARGE;

	if (s->pae)
		return PAE_RESERVED | (large ? PAE_LARGE_RESERVED : 0);
	return large ? PSE_RESERVED : 0;
}

/* Address of the directory that serves va. False with the bits of the error. */
static bool find_directory(struct sim *s, u32 cr3, va_t va, u64 *ret, u32 *error)
{
	u64 pdpte;

	*ret = cr3 & ~0xfffu;
	if (!s->pae)
		return true;
	pdpte = entry_read(s, (cr3 & ~0x1fu) + (va >> 30) * 8);
	if (!(pdpte & PTE_PRESENT))
		return false;
	if (pdpte & PDPTE_RESERVED) {
		*error |= FAULT_PROTECTION | FAULT_RESERVED_BIT;
		return false;
	}
	*ret = pdpte & MMU_FRAME;
	return true;
}

/* One level down. False with the bits of the error. */
static bool step(struct sim *s, struct walk *w, u64 table, u32 index, bool directory, u32 *error)
{
	w->entry_paddr = table + (u64)index * (s->pae ? 8 : 4);
	w->entry = entry_read(s, w->entry_paddr);
	if (!(w->entry & PTE_PRESENT))
		return false;
	if (w->entry & reserved_in(s, w->entry, directory)) {
		*error |= FAULT_PROTECTION | FAULT_RESERVED_BIT;
		return false;
	}
	w->rights &= rights_of(w->entry);
	return true;
}

/* Frame of va in the page that the last entry maps. */
static u64 frame_of(const struct sim *s, u64 entry, va_t va)
{
	u64 high;

	if (!(entry & PTE_LARGE))
		return entry & MMU_FRAME;
	if (s->pae)
		return (entry & MMU_FRAME & ~0x1fffffULL) | (va & 0x1ff000);
	high = entry >> 13 & 0xff;
	return high << 32 | (entry & 0xffc00000) | (va & 0x3ff000);
}

translation_t mmu_walk(struct sim *s, u32 cr3, const struct mmu_access *a, bool update,
		       u32 *ret_error_code)
{
	u32 error = (a->mode == ACCESS_WRITE ? FAULT_WRITE : 0) | (a->user ? FAULT_USER : 0) |
		    (a->mode == ACCESS_EXECUTE && s->pae ? FAULT_FETCH : 0);
	struct walk w = {0, 0, ~0ULL};
	u32 span = s->pae ? 21 : 22, mask = s->pae ? 511 : 1023;
	u64 table, dirty = a->mode == ACCESS_WRITE ? PTE_DIRTY : 0;
	translation_t t;

	*ret_error_code = error;
	if (!find_directory(s, cr3, a->va, &table, ret_error_code) ||
	    !step(s, &w, table, a->va >> span & mask, true, ret_error_code))
		return 0;
	if (!(w.entry & PTE_LARGE)) {
		if (update)
			entry_set_bits(s, w.entry_paddr, PTE_ACCESSED);
		if (!step(s, &w, w.entry & MMU_FRAME, a->va >> PAGE_SHIFT & mask, false,
			  ret_error_code))
			return 0;
		/* In a table bit 7 is PAT. */
		w.entry &= ~PTE_LARGE;
	}
	t = frame_of(s, w.entry, a->va) | PTE_PRESENT |
	    (w.entry & (PTE_LARGE | PTE_GLOBAL | PTE_DIRTY)) | (w.rights & (PTE_WRITE | PTE_USER)) |
	    (~w.rights & PTE_NX);
	/* Two-level tables have no NX, and the entry's upper half is not there. */
	if (!s->pae)
		t &= ~PTE_NX;
	if (!mmu_allows(t, a)) {
		*ret_error_code |= FAULT_PROTECTION;
		return 0;
	}
	if (update)
		entry_set_bits(s, w.entry_paddr, (u32)(PTE_ACCESSED | dirty));
	return t | dirty;
}

/* Would the tables serve this access from the same frame? */
static bool is_backed(struct sim *s, u32 cr3, const struct mmu_access *a, translation_t t)
{
	u32 ignored;
	translation_t now = mmu_walk(s, cr3, a, false, &ignored);

	return now && !((now ^ t) & MMU_FRAME);
}

translation_t mmu_translate(struct sim *s, u32 cpu, const struct mmu_access *a, u32 *ret_error_code)
{
	struct sim_cpu *c = &s->cpu[cpu];
	translation_t t = tlb_find(&c->tlb, a->va);

	if (t && mmu_allows(t, a) && (a->mode != ACCESS_WRITE || t & PTE_DIRTY)) {
		if (!is_backed(s, c->cr3, a, t)) {
			s->stale_hits++;
			event_stale_tlb_hit(&s->engine, cpu, a->va, pte_pfn(t), pte_bits(t));
		}
		return t;
	}
	t = mmu_walk(s, c->cr3, a, true, ret_error_code);
	if (t)
		tlb_insert(&c->tlb, a->va, t);
	else
		/* A CPU that faults drops the entry that made it so. */
		tlb_flush_range(&c->tlb, a->va, 1);
	return t;
}
