/*
 * pgtable.c - x86 page tables, bit for bit, in lowmem frames.
 *
 *   two-level   pgd: 1024 x 4 MiB entries     -> table: 1024 x 4 KiB
 *   PAE         pgd: 4 x 1 GiB -> directory: 512 x 2 MiB -> table: 512 x 4 KiB
 *
 * Invariants:
 *  1. Every pgd shows the same kernel part as the kernel's own. Under PAE the
 *     directories of the kernel's GiBs are the same frames; a two-level pgd holds
 *     copies, which are made when the pgd is and whenever the kernel's part gains a
 *     table (kernel tables never go away).
 *  2. What a window of fixed size needs (direct map, pkmap, fixmap) exists from
 *     boot on, so that only the vmalloc window makes kernel tables later.
 *  3. Under PAE the directories of the user's GiBs come with the pgd, as in Linux:
 *     a CPU reads a pgd's four entries when CR3 is loaded and not again.
 *  4. Accessed and dirty are set when an entry of the kernel is made, so no CPU has
 *     anything to add there.
 *
 * Boot's own tables lie side by side, from memblock; later ones are frames of state
 * FRAME_PAGE_TABLE. So a frame can be told to be a table without a search.
 *
 * Not modelled: HIGHPTE (user tables in HIGHMEM), 1 GiB pages, and page-table
 * isolation.
 */
#include "pgtable.h"

#include "../event.h"
#include "../frames/page_alloc.h"
#include "../user/task.h"
#include "window.h"

/* Linux's _KERNPG_TABLE: write, accessed and dirty, so that the entry below decides. */
#define TABLE_BITS (PTE_PRESENT | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY)
#define PDPTE_BITS PTE_PRESENT /* all others that a directory entry has are reserved there */

/* Linux's tlb_single_page_flush_ceiling: beyond this many pages everything goes. */
#define FLUSH_CEILING 33

/* The ISA range is mapped whether or not it is RAM, as in Linux. */
#define ISA_END_PFN 0x100

static u32 directory_shift(const struct engine *e)
{
	return is_pae(e) ? 21 : 22;
}

static u64 directory_span(const struct engine *e)
{
	return 1ULL << directory_shift(e);
}

static u32 entries_per_table(const struct engine *e)
{
	return is_pae(e) ? 512 : 1024;
}

static u64 entry_get(const struct engine *e, pfn_t table, u32 i)
{
	const void *t = at(e, frame_ref(e, table));

	return is_pae(e) ? ((const u64 *)t)[i] : ((const u32 *)t)[i];
}

static void entry_set(struct engine *e, pfn_t table, u32 i, u64 entry)
{
	void *t = at(e, frame_ref(e, table));

	if (is_pae(e))
		((u64 *)t)[i] = entry;
	else
		((u32 *)t)[i] = (u32)entry;
}

static u32 directory_index(const struct engine *e, va_t va)
{
	return (va >> directory_shift(e)) & (entries_per_table(e) - 1);
}

static u32 table_index(const struct engine *e, va_t va)
{
	return (va >> PAGE_SHIFT) & (entries_per_table(e) - 1);
}

static pfn_t or_kernel(const struct engine *e, pfn_t pgd)
{
	return pgd ? pgd : e->st->map.kernel_pgd;
}

/* The directory that holds va's entry; 0: none. */
static pfn_t directory_of(const struct engine *e, pfn_t pgd, va_t va)
{
	return is_pae(e) ? pte_pfn(entry_get(e, pgd, va >> 30)) : pgd;
}

static u64 directory_entry(const struct engine *e, pfn_t pgd, va_t va)
{
	pfn_t directory = directory_of(e, pgd, va);

	return directory ? entry_get(e, directory, directory_index(e, va)) : 0;
}

/* The table that holds va's PTE; 0: none, or a large page. */
static pfn_t table_of(const struct engine *e, pfn_t pgd, va_t va)
{
	u64 entry = directory_entry(e, pgd, va);

	return entry & PTE_LARGE ? 0 : pte_pfn(entry);
}

va_t pgtable_kernel_start(const struct engine *e)
{
	const struct layout *l = &e->st->layout;

	if (l->pkmap_start >= l->page_offset)
		return l->page_offset;
	/* arm32's pkmap lies below the kernel's half and belongs to it. */
	return l->pkmap_start & ~(va_t)(directory_span(e) - 1);
}

static void install_in_mm(struct engine *e, pfn_t pgd, void *arg)
{
	va_t va = *(const va_t *)arg;

	entry_set(e, pgd, directory_index(e, va), directory_entry(e, e->st->map.kernel_pgd, va));
}

/* Makes the table for va's PTE, which is not there. 0: no memory. */
static __attribute__((noinline)) pfn_t table_make(struct engine *e, pfn_t pgd, va_t va)
{
	bool kernel = va >= pgtable_kernel_start(e);
	pfn_t directory, table;

	if (kernel)
		pgd = e->st->map.kernel_pgd;
	directory = directory_of(e, pgd, va);
	ENGINE_ASSERT(e, directory && !directory_entry(e, pgd, va));
	table = frame_alloc_own(e, FRAME_PAGE_TABLE);
	if (!table)
		return 0;
	entry_set(e, directory, directory_index(e, va),
		  pte_make(table, TABLE_BITS | (kernel ? 0 : PTE_USER)));
	if (kernel && !is_pae(e))
		mm_for_each_pgd(e, install_in_mm, &va);
	return table;
}

/* ---- an mm's tables ---- */

/* Copies the kernel's part of the directory that covers [start, start + 1 GiB), or
 * of the whole space when two-level. */
static void copy_kernel_part(struct engine *e, pfn_t directory, va_t start)
{
	pfn_t from = directory_of(e, e->st->map.kernel_pgd, start);
	va_t kernel_start = pgtable_kernel_start(e);
	u32 first = kernel_start > start ? directory_index(e, kernel_start) : 0;

	if (!from || (is_pae(e) && kernel_start >> 30 != start >> 30))
		return;
	for (u32 i = first; i < entries_per_table(e); i++)
		entry_set(e, directory, i, entry_get(e, from, i));
}

static u32 user_gibs(const struct engine *e)
{
	return e->page_offset >> 30;
}

pfn_t pgd_alloc(struct engine *e)
{
	pfn_t pgd = frame_alloc_own(e, FRAME_PAGE_TABLE);

	if (!pgd)
		return 0;
	if (!is_pae(e)) {
		copy_kernel_part(e, pgd, 0);
		return pgd;
	}
	for (u32 i = 0; i < user_gibs(e); i++) {
		pfn_t directory = frame_alloc_own(e, FRAME_PAGE_TABLE);

		if (!directory) {
			pgd_free(e, pgd);
			return 0;
		}
		copy_kernel_part(e, directory, i << 30);
		entry_set(e, pgd, i, pte_make(directory, PDPTE_BITS));
	}
	for (u32 i = user_gibs(e); i < 4; i++)
		entry_set(e, pgd, i, entry_get(e, e->st->map.kernel_pgd, i));
	return pgd;
}

void pgd_free(struct engine *e, pfn_t pgd)
{
	va_t end = pgtable_kernel_start(e);

	ENGINE_ASSERT(e, pgd && pgd != e->st->map.kernel_pgd);
	for (u64 va = 0; va < end; va += directory_span(e)) {
		pfn_t table = table_of(e, pgd, (va_t)va);

		if (table)
			frame_free_own(e, table);
	}
	for (u32 i = 0; is_pae(e) && i < user_gibs(e); i++) {
		pfn_t directory = pte_pfn(entry_get(e, pgd, i));

		if (directory)
			frame_free_own(e, directory);
	}
	/* An MMU may have set accessed bits here in its own time (QEMU's does, though a PDPTE
	 * has none). What is freed is no table any more, so no mask would cover them. */
	for (u32 i = 0; is_pae(e) && i < 4; i++)
		entry_set(e, pgd, i, 0);
	frame_free_own(e, pgd);
}

u32 pgtable_count_new(const struct engine *e)
{
	return 1 + (is_pae(e) ? user_gibs(e) : 0);
}

u32 pgtable_count(struct engine *e, pfn_t pgd)
{
	u32 n = pgtable_count_new(e);

	for (u64 va = 0; va < pgtable_kernel_start(e); va += directory_span(e))
		n += table_of(e, pgd, (va_t)va) != 0;
	return n;
}

bool pgtable_shares_kernel(struct engine *e, pfn_t pgd)
{
	for (u64 va = pgtable_kernel_start(e); va < 1ULL << 32; va += directory_span(e)) {
		if (directory_entry(e, pgd, (va_t)va) !=
		    directory_entry(e, e->st->map.kernel_pgd, (va_t)va))
			return false;
	}
	return true;
}

/* ---- single entries ---- */

/* Tables lie in lowmem, below 4 GiB: the low half of an entry says where. */
static inline void *table_at(const struct engine *e, u32 entry)
{
	return at(e, e->page_offset + (entry & ~(u32)(PAGE_SIZE - 1)));
}

/* Of va's PTE in its table; bytes. */
static inline u32 slot_offset(const struct engine *e, va_t va)
{
	return is_pae(e) ? va >> (PAGE_SHIFT - 3) & 0xff8 : va >> (PAGE_SHIFT - 2) & 0xffc;
}

static inline void *slot_in(const struct engine *e, pfn_t table, va_t va)
{
	return (u8 *)at(e, frame_ref(e, table)) + slot_offset(e, va);
}

/* Where va's PTE lies; NULL: there is no table, or a large page. The way down is the same as
 * directory_entry()'s, with the mode asked once. */
static inline void *slot_of(const struct engine *e, pfn_t pgd, va_t va)
{
	const u64 *top = at(e, frame_ref(e, pgd)), *directory;
	u32 entry;

	if (!is_pae(e)) {
		entry = ((const u32 *)top)[va >> 22];
		return entry && !(entry & PTE_LARGE)
			   ? (u32 *)table_at(e, entry) + (va >> PAGE_SHIFT & 1023)
			   : NULL;
	}
	entry = (u32)top[va >> 30];
	if (!entry)
		return NULL;
	directory = table_at(e, entry);
	entry = (u32)directory[va >> 21 & 511];
	return entry && !(entry & PTE_LARGE) ? (u64 *)table_at(e, entry) + (va >> PAGE_SHIFT & 511)
					     : NULL;
}

u64 pgtable_get(struct engine *e, pfn_t pgd, va_t va)
{
	const void *slot = slot_of(e, or_kernel(e, pgd), va);

	return slot ? pte_read(slot, is_pae(e)) : directory_entry(e, or_kernel(e, pgd), va);
}

u32 pgtable_prepare(struct engine *e, pfn_t pgd, va_t va, u32 *ret_made)
{
	*ret_made = 0;
	if (slot_of(e, or_kernel(e, pgd), va))
		return STATUS_OK;
	*ret_made = table_make(e, or_kernel(e, pgd), va) != 0;
	return *ret_made ? STATUS_OK : STATUS_NO_MEMORY;
}

static inline void set_at(struct engine *e, void *slot, va_t va, u64 pte, u32 window)
{
	if (!is_pae(e))
		pte &= ~PTE_NX;
	pte_write(slot, pte, is_pae(e));
	event_pte_set(e, window, va, pte_pfn(pte), pte_bits(pte));
}

/* NULL: there is nothing to clear. */
static inline u64 clear_at(struct engine *e, void *slot, va_t va, u32 window)
{
	u64 pte = slot ? pte_read(slot, is_pae(e)) : 0;

	if (!pte)
		return 0;
	pte_write(slot, 0, is_pae(e));
	event_pte_cleared(e, window, va, pte_pfn(pte), pte_bits(pte));
	return pte;
}

u32 pgtable_set(struct engine *e, pfn_t pgd, va_t va, u64 pte, u32 window)
{
	void *slot = slot_of(e, or_kernel(e, pgd), va);

	if (__builtin_expect(!slot, 0)) {
		pfn_t table = table_make(e, or_kernel(e, pgd), va);

		if (!table)
			return STATUS_NO_MEMORY;
		slot = slot_in(e, table, va);
	}
	set_at(e, slot, va, pte, window);
	return STATUS_OK;
}

u64 pgtable_clear(struct engine *e, pfn_t pgd, va_t va, u32 window)
{
	return clear_at(e, slot_of(e, or_kernel(e, pgd), va), va, window);
}

/* ---- windows: see window.h ---- */

/* Where va's PTE lies, in tables of which nothing is known yet; NULL: nowhere. */
static u8 *find_slot(struct engine *e, const struct layout *l, va_t va)
{
	const u32 index[] = {va >> 30, directory_index(e, va)};
	pfn_t table = e->st->map.kernel_pgd;

	for (u32 level = is_pae(e) ? 0 : 1; level < 2; level++) {
		u64 entry = table && table < l->low_end_pfn ? entry_get(e, table, index[level]) : 0;

		table = entry & PTE_LARGE ? 0 : pte_pfn(entry);
	}
	return table && table < l->low_end_pfn ? slot_in(e, table, va) : NULL;
}

/* Where address 0 would be if the PTEs of [start, end) went on to there; 0: there are none. */
static uintptr_t find_ptes(struct engine *e, const struct layout *l, va_t start, va_t end)
{
	u32 bytes = is_pae(e) ? 8 : 4, length = ((end - start) >> PAGE_SHIFT) * bytes;
	u8 *first = find_slot(e, l, start), *last = find_slot(e, l, end - PAGE_SIZE);

	if (!first || last != first + length - bytes)
		return 0;
	return (uintptr_t)first - (uintptr_t)(start >> PAGE_SHIFT) * bytes;
}

bool windows_find(struct engine *e, const struct layout *l)
{
	e->kmap_local_va = fix_to_va(l, l->fix_kmap_begin);
	e->kmap_local_ptes =
	    find_ptes(e, l, fix_to_va(l, l->fix_kmap_end), e->kmap_local_va + PAGE_SIZE);
	e->pkmap_ptes =
	    find_ptes(e, l, l->pkmap_start, l->pkmap_start + (l->pkmap_slots << PAGE_SHIFT));
	return e->kmap_local_ptes && e->pkmap_ptes;
}

/* ---- for runs of the kernel's entries: see pte_run.h ---- */

void *pgtable_slot(struct engine *e, va_t va)
{
	return slot_of(e, e->st->map.kernel_pgd, va);
}

void *pgtable_make_slot(struct engine *e, va_t va)
{
	pfn_t table = table_make(e, e->st->map.kernel_pgd, va);

	return table ? slot_in(e, table, va) : NULL;
}

/* From the end: what a process maps goes downwards, so that what is left lies there. */
static bool is_empty(const struct engine *e, pfn_t table)
{
	const u64 *w = at(e, frame_ref(e, table));

	for (u32 i = PAGE_SIZE / sizeof *w; i; i -= 8) {
		if (w[i - 1] | w[i - 2] | w[i - 3] | w[i - 4] | w[i - 5] | w[i - 6] | w[i - 7] |
		    w[i - 8])
			return false;
	}
	return true;
}

u32 pgtable_prune(struct engine *e, pfn_t pgd, va_t start, va_t end)
{
	u64 span = directory_span(e), limit = pgtable_kernel_start(e);
	u32 freed = 0;

	if (end < limit)
		limit = end;
	for (u64 va = start & ~(span - 1); va < limit; va += span) {
		pfn_t table = table_of(e, pgd, (va_t)va);

		if (!table || !is_empty(e, table))
			continue;
		entry_set(e, directory_of(e, pgd, (va_t)va), directory_index(e, (va_t)va), 0);
		frame_free_own(e, table);
		freed++;
	}
	return freed;
}

bool pgtable_next(struct engine *e, pfn_t pgd, va_t *va, va_t end, u64 *ret_pte)
{
	u64 span = directory_span(e), at_va = *va;

	while (at_va < end) {
		pfn_t table = table_of(e, pgd, (va_t)at_va);
		u64 next = (at_va & ~(span - 1)) + span;

		for (; table && at_va < next && at_va < end; at_va += PAGE_SIZE) {
			u64 pte = entry_get(e, table, table_index(e, (va_t)at_va));

			if (pte) {
				*va = (va_t)at_va;
				*ret_pte = pte;
				return true;
			}
		}
		at_va = next;
	}
	return false;
}

u32 pgtable_walk(struct engine *e, pfn_t pgd, va_t va, struct pgtable_step step[3])
{
	u32 width = is_pae(e) ? 8 : 4, n = 0;
	pfn_t table = or_kernel(e, pgd);
	u32 index[3] = {va >> 30, directory_index(e, va), table_index(e, va)};

	for (u32 level = is_pae(e) ? 0 : 1; level < 3; level++) {
		u64 entry = entry_get(e, table, index[level]);

		step[n].entry_paddr = ((u64)table << PAGE_SHIFT) + (u64)index[level] * width;
		step[n].entry = entry;
		n++;
		if (!(entry & PTE_PRESENT) || (level == 1 && entry & PTE_LARGE))
			break;
		table = pte_pfn(entry);
	}
	return n;
}

/* ---- TLBs ---- */

u32 tlb_all_cpus(const struct engine *e)
{
	return (u32)((1ULL << e->st->layout.cpus) - 1);
}

void tlb_flush(struct engine *e, u32 cpus, va_t va, u32 nr_pages, u32 why)
{
	if (!cpus)
		return;
	if (nr_pages > FLUSH_CEILING)
		nr_pages = 0;
	if (!nr_pages)
		va = 0;
	port_flush_tlb(e, cpus, va, nr_pages);
	event_tlb_flush(e, why, cpus, va, nr_pages);
}

/* ---- digest ---- */

bool pgtable_is_table(struct engine *e, pfn_t pfn)
{
	const struct map_state *map = &e->st->map;

	return pfn - map->boot_tables_start < map->nr_boot_tables ||
	       page_state(page_of(e, pfn)) == FRAME_PAGE_TABLE;
}

void pgtable_digest_mask(struct engine *e, pfn_t pfn, u64 words[PAGE_SIZE / 8])
{
	const u64 soft = PTE_ACCESSED | PTE_DIRTY;

	/* An early machine has no tables, and its descriptors are not there yet. */
	if (e->st->phase == PHASE_EARLY || !pgtable_is_table(e, pfn))
		return;
	for (u32 i = 0; i < PAGE_SIZE / sizeof(u64); i++) {
		if (words[i] & PTE_PRESENT)
			words[i] &= ~soft;
		if (!is_pae(e) && words[i] >> 32 & PTE_PRESENT)
			words[i] &= ~(soft << 32);
	}
}

/* ---- boot ---- */

static bool ram_covers(struct engine *e, paddr_t start, paddr_t end)
{
	return memblock_covers(e, MEMBLOCK_MEMORY, (struct engine_range){start, end - start});
}

static bool overlaps(u64 a_start, u64 a_end, u64 b_start, u64 b_end)
{
	return a_start < b_end && b_start < a_end;
}

static u64 direct_map_bytes(const struct engine *e)
{
	return (u64)e->st->layout.low_end_pfn << PAGE_SHIFT;
}

/* Does the direct map use a large page for the span at paddr? The first span does
 * not, as in Linux: fixed MTRRs lie there. */
static bool wants_large(struct engine *e, u64 paddr)
{
	u64 end = paddr + directory_span(e);

	return paddr && end <= direct_map_bytes(e) && ram_covers(e, paddr, end);
}

static bool is_direct(struct engine *e, pfn_t pfn)
{
	u64 paddr = (u64)pfn << PAGE_SHIFT;

	return pfn < ISA_END_PFN || ram_covers(e, paddr, paddr + PAGE_SIZE);
}

/* Has the span at paddr any frame that the direct map shows? */
static bool has_direct(struct engine *e, u64 paddr)
{
	pfn_t pfn = (pfn_t)(paddr >> PAGE_SHIFT);
	pfn_t end = pfn + entries_per_table(e);

	for (; pfn < end && pfn < e->st->layout.low_end_pfn; pfn++) {
		if (is_direct(e, pfn))
			return true;
	}
	return false;
}

static bool wants_table(struct engine *e, u64 va, u64 end)
{
	const struct layout *l = &e->st->layout;
	u64 pkmap_end = (u64)l->pkmap_start + ((u64)l->pkmap_slots << PAGE_SHIFT);
	u64 fix_start = fix_to_va(l, l->nr_fixmap - 1), fix_end = (u64)l->fixmap_top + PAGE_SIZE;

	if (overlaps(va, end, l->pkmap_start, pkmap_end) || overlaps(va, end, fix_start, fix_end))
		return true;
	if (pgtable_has_host_window(e) && overlaps(va, end, HOST_WINDOW_VA, HOST_END_VA))
		return true;
	if (va < l->page_offset || va - l->page_offset >= direct_map_bytes(e))
		return false;
	u64 paddr = va - l->page_offset;

	return !wants_large(e, paddr) && has_direct(e, paddr);
}

bool pgtable_has_host_window(const struct engine *e)
{
	/* The other presets are of the simulation alone. */
	return e->st->config.preset == PRESET_CLASSIC || e->st->config.preset == PRESET_LINUX_6_1;
}

bool pgtable_in_host_window(const struct engine *e, va_t va)
{
	return pgtable_has_host_window(e) && va >= HOST_WINDOW_VA && va < HOST_END_VA;
}

/* Takes the next of boot's tables. */
static pfn_t boot_table(struct engine *e)
{
	struct map_state *map = &e->st->map;

	return map->boot_tables_start + map->nr_boot_tables++;
}

static pfn_t boot_directory(struct engine *e, va_t va)
{
	pfn_t pgd = e->st->map.kernel_pgd;

	if (!directory_of(e, pgd, va))
		entry_set(e, pgd, va >> 30, pte_make(boot_table(e), PDPTE_BITS));
	return directory_of(e, pgd, va);
}

static u32 count_boot_tables(struct engine *e)
{
	va_t start = pgtable_kernel_start(e);
	u32 n = 1 + (is_pae(e) ? 4 - (start >> 30) : 0);

	for (u64 va = start; va < 1ULL << 32; va += directory_span(e))
		n += wants_table(e, va, va + directory_span(e));
	return n;
}

static void boot_large_page(struct engine *e, va_t va, pfn_t pfn)
{
	u64 entry = pte_make(pfn, PTE_KERNEL_BITS | PTE_LARGE);

	if (!is_pae(e))
		entry &= ~PTE_NX;
	entry_set(e, boot_directory(e, va), directory_index(e, va), entry);
	event_pte_set(e, WINDOW_DIRECT, va, pfn, pte_bits(entry));
}

/* The directory entries of the host window let ring 3 through: two of its pages
 * are ring 3's. */
static void boot_make_table(struct engine *e, va_t va)
{
	u64 end = va + directory_span(e);
	bool user = pgtable_has_host_window(e) && overlaps(va, end, HOST_WINDOW_VA, HOST_MMIO_VA);
	/* Before its directory: which frame each gets is part of the state. */
	u64 entry = pte_make(boot_table(e), TABLE_BITS | (user ? PTE_USER : 0));

	entry_set(e, boot_directory(e, va), directory_index(e, va), entry);
}

static void boot_direct_table(struct engine *e, va_t va)
{
	pfn_t pfn = ref_pfn(e, va);

	for (u32 i = 0; i < entries_per_table(e) && pfn < e->st->layout.low_end_pfn; i++, pfn++) {
		if (is_direct(e, pfn))
			pgtable_set(e, 0, frame_ref(e, pfn), pte_make(pfn, PTE_KERNEL_BITS),
				    WINDOW_DIRECT);
	}
}

/* The guest's own frames. The image is one range of code and data, so it is
 * writable and executable. */
static void boot_host_window(struct engine *e)
{
	const u64 device = PTE_KERNEL_BITS | PTE_PCD | PTE_PWT;

	for (u32 at_byte = 0; at_byte < HOST_WINDOW_BYTES; at_byte += PAGE_SIZE) {
		va_t va = HOST_WINDOW_VA + at_byte;
		u64 bits = TABLE_BITS | PTE_GLOBAL;

		if (va == HOST_USER_DATA_VA)
			bits |= PTE_USER | PTE_NX;
		if (va == HOST_USER_CODE_VA)
			bits = PTE_PRESENT | PTE_USER | PTE_ACCESSED | PTE_GLOBAL;
		pgtable_set(e, 0, va, pte_make((HOST_WINDOW_PADDR + at_byte) >> PAGE_SHIFT, bits),
			    WINDOW_HOST);
	}
	pgtable_set(e, 0, HOST_MMIO_VA, pte_make(HOST_MMIO_PADDR >> PAGE_SHIFT, device),
		    WINDOW_HOST);
	pgtable_set(e, 0, HOST_LAPIC_VA, pte_make(HOST_LAPIC_PADDR >> PAGE_SHIFT, device),
		    WINDOW_HOST);
}

u32 pgtable_boot(struct engine *e)
{
	struct map_state *map = &e->st->map;
	u32 nr = count_boot_tables(e);
	u64 start;
	bool found;

	/* The zero page is behind the tables. Below the metadata: what is above it must stay
	 * free for recorded states, in which it was. */
	if (memblock_alloc(e, (u64)(nr + 1) << PAGE_SHIFT, PAGE_SIZE, 0,
			   (u64)e->st->layout.metadata_start << PAGE_SHIFT, MEMBLOCK_TOP_DOWN,
			   &start) != STATUS_OK)
		return STATUS_NO_MEMORY;
	map->boot_tables_start = (pfn_t)(start >> PAGE_SHIFT);
	__builtin_memset(at(e, frame_ref(e, map->boot_tables_start)), 0,
			 (size_t)(nr + 1) << PAGE_SHIFT);
	map->zero_pfn = map->boot_tables_start + nr;
	map->kernel_pgd = boot_table(e);
	for (u64 va = pgtable_kernel_start(e); va < 1ULL << 32; va += directory_span(e)) {
		if (wants_table(e, va, va + directory_span(e)))
			boot_make_table(e, (va_t)va);
		/* Under PAE every directory of the kernel's half exists: see invariant 1. */
		else if (is_pae(e))
			boot_directory(e, (va_t)va);
		if (va < e->page_offset || va - e->page_offset >= direct_map_bytes(e))
			continue;
		if (wants_large(e, va - e->page_offset))
			boot_large_page(e, (va_t)va, ref_pfn(e, (ref_t)va));
		else
			boot_direct_table(e, (va_t)va);
	}
	ENGINE_ASSERT(e, map->nr_boot_tables == nr);
	if (pgtable_has_host_window(e))
		boot_host_window(e);
	found = windows_find(e, &e->st->layout);
	ENGINE_ASSERT(e, found);
	for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++)
		port_load_cr3(e, cpu, map->kernel_pgd << PAGE_SHIFT);
	tlb_flush(e, tlb_all_cpus(e), 0, 0, FLUSH_BOOT);
	return STATUS_OK;
}
