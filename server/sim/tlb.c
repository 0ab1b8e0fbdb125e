/*
 * tlb.c - see tlb.h. Generations begin at 1, so that an entry of zeros is invalid; they
 * do not wrap in the life of a machine (four billion flushes of everything).
 */
#include "tlb.h"

#include <string.h>

#include "map/pgtable.h"

void tlb_init(struct tlb *t, bool pae)
{
	memset(t, 0, sizeof *t);
	t->generation[0] = t->generation[1] = 1;
	t->large_shift = pae ? 21 : 22;
}

static struct tlb_entry *entry_small(const struct tlb *t, u32 page)
{
	return (struct tlb_entry *)&t->small[page % TLB_SMALL];
}

static struct tlb_entry *entry_large(const struct tlb *t, u32 page)
{
	return (struct tlb_entry *)&t->large[page % TLB_LARGE];
}

static bool is_global(translation_t t)
{
	return t & PTE_GLOBAL;
}

static bool is_valid(const struct tlb *t, const struct tlb_entry *e, u32 page)
{
	return e->page == page && e->generation == t->generation[is_global(e->translation)];
}

translation_t tlb_find(const struct tlb *t, va_t va)
{
	u32 page = va >> PAGE_SHIFT, large = va >> t->large_shift;
	const struct tlb_entry *e = entry_small(t, page);

	if (is_valid(t, e, page))
		return e->translation;
	e = entry_large(t, large);
	if (!is_valid(t, e, large))
		return 0;
	return e->translation + ((va & ((1u << t->large_shift) - 1)) & ~(u32)(PAGE_SIZE - 1));
}

void tlb_insert(struct tlb *t, va_t va, translation_t translation)
{
	u32 page = va >> PAGE_SHIFT;
	struct tlb_entry *e = entry_small(t, page);

	if (translation & PTE_LARGE) {
		page = va >> t->large_shift;
		e = entry_large(t, page);
		translation -= (va & ((1u << t->large_shift) - 1)) & ~(u32)(PAGE_SIZE - 1);
	}
	*e = (struct tlb_entry){page, t->generation[is_global(translation)], translation};
}

static void drop(struct tlb_entry *e, u32 first, u32 last)
{
	if (e->page >= first && e->page <= last)
		e->generation = 0;
}

void tlb_flush_range(struct tlb *t, va_t va, u32 nr_pages)
{
	u32 first = va >> PAGE_SHIFT, last = first + (nr_pages - 1);
	u32 shift = t->large_shift - PAGE_SHIFT;

	if (nr_pages < TLB_SMALL) {
		for (u32 page = first; page <= last; page++)
			drop(entry_small(t, page), page, page);
	} else {
		for (u32 i = 0; i < TLB_SMALL; i++)
			drop(&t->small[i], first, last);
	}
	for (u32 i = 0; i < TLB_LARGE; i++)
		drop(&t->large[i], first >> shift, last >> shift);
}

void tlb_flush_all(struct tlb *t)
{
	t->generation[0]++;
	t->generation[1]++;
}

void tlb_flush_local(struct tlb *t)
{
	t->generation[0]++;
}
