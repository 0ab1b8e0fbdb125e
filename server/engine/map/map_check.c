/*
 * map_check.c - the audit of the kernel's mappings.
 *
 * Every entry of the kernel's half is looked at and must have a reason: the direct
 * map, a live area, a pkmap count, a kmap_local entry, a fixmap bit, the host
 * window. Then the reasons are counted, so that none is without its entry.
 */
#include "../event.h"
#include "../frames/page_alloc.h"
#include "../text.h"
#include "../wings.h"
#include "pgtable.h"
#include "use.h"

struct recount {
	u32 vmalloc, pkmap, local, fixmap; /* entries found */
};

/* ---- entries against reasons ---- */

static bool check_vmalloc_entry(struct engine *e, va_t va, pfn_t pfn, struct engine_error *why)
{
	const struct area *a = area_find(e, &e->st->map.vmap.areas, va);
	u32 i = a ? (va - a->start) >> PAGE_SHIFT : 0;

	if (!a || a->kind == VMAP_LAZY || i >= a->a)
		return refuse(why, "vmalloc: frame %u is mapped at 0x%x, outside any live area",
			      pfn, va);
	if (a->kind == VMAP_IOREMAP)
		return pfn == a->b + i ||
		       refuse(why, "ioremap: 0x%x maps frame %u and should map %u", va, pfn,
			      a->b + i);
	if (pfn >= e->st->layout.max_pfn || !page_allocated_head(e, pfn))
		return refuse(why, "vmalloc: 0x%x maps frame %u, which is not allocated", va, pfn);
	if (a->kind == VMAP_VMALLOC && page_state(page_of(e, pfn)) != FRAME_VMALLOC)
		return refuse(why, "vmalloc: frame %u at 0x%x is in state %u", pfn, va,
			      page_state(page_of(e, pfn)));
	return true;
}

static bool check_fixmap_entry(struct engine *e, va_t va, pfn_t pfn, struct recount *n,
			       struct engine_error *why)
{
	const struct layout *l = &e->st->layout;
	u32 index = (l->fixmap_top - va) >> PAGE_SHIFT;

	if (index >= l->fix_kmap_begin && index <= l->fix_kmap_end) {
		n->local++; /* check_stack() compares the frames */
		return true;
	}
	n->fixmap++;
	return e->st->map.fixmap_used[index / 32] >> index % 32 & 1 ||
	       refuse(why, "fixmap: slot %u maps frame %u and nobody set it", index, pfn);
}

static bool check_pkmap_entry(struct engine *e, va_t va, pfn_t pfn, struct engine_error *why)
{
	const struct pkmap_state *pk = &e->st->map.pkmap;
	u32 slot = (va - e->st->layout.pkmap_start) >> PAGE_SHIFT;

	return (pk->count[slot] && pk->pfn[slot] == pfn) ||
	       refuse(why, "pkmap: slot %u maps frame %u; its count is %u and its frame %u", slot,
		      pfn, pk->count[slot], pk->pfn[slot]);
}

static bool within(va_t va, va_t start, u64 bytes)
{
	return va >= start && va < start + bytes;
}

static bool check_entry(struct engine *e, va_t va, pfn_t pfn, struct recount *n,
			struct engine_error *why)
{
	const struct layout *l = &e->st->layout;

	if (within(va, l->page_offset, (u64)l->low_end_pfn << PAGE_SHIFT))
		return pfn == ref_pfn(e, va) ||
		       refuse(why, "direct map: 0x%x maps frame %u", va, pfn);
	if (within(va, l->pkmap_start, (u64)l->pkmap_slots << PAGE_SHIFT)) {
		n->pkmap++;
		return check_pkmap_entry(e, va, pfn, why);
	}
	if (within(va, l->vmalloc_start, l->vmalloc_end - l->vmalloc_start)) {
		n->vmalloc++;
		return check_vmalloc_entry(e, va, pfn, why);
	}
	if (pgtable_in_host_window(e, va))
		return true;
	if (within(va, fix_to_va(l, l->nr_fixmap - 1), (u64)l->nr_fixmap << PAGE_SHIFT))
		return check_fixmap_entry(e, va, pfn, n, why);
	return refuse(why, "0x%x lies in no window and maps frame %u", va, pfn);
}

/* window.h clears what it maps without a look at it. */
static bool check_bits(struct engine *e, va_t va, u64 pte, struct engine_error *why)
{
	const struct layout *l = &e->st->layout;
	const u64 bits = l->pae ? PTE_KERNEL_BITS : PTE_KERNEL_BITS & ~PTE_NX;
	bool pkmap = within(va, l->pkmap_start, (u64)l->pkmap_slots << PAGE_SHIFT);
	bool local = within(va, fix_to_va(l, l->fix_kmap_end),
			    (u64)(l->fix_kmap_end - l->fix_kmap_begin + 1) << PAGE_SHIFT);

	return (!pkmap && !local) || (pte & ~PTE_FRAME) == bits ||
	       refuse(why, "0x%x maps frame %u with bits 0x%x", va, pte_pfn(pte), pte_bits(pte));
}

static bool check_entries(struct engine *e, struct recount *n, struct engine_error *why)
{
	va_t va = pgtable_kernel_start(e);
	u64 pte;

	/* The last page of the address space ends the walk: va would wrap behind it. */
	while (pgtable_next(e, e->st->map.kernel_pgd, &va, 0xffffffff, &pte)) {
		if (!check_entry(e, va, pte_pfn(pte), n, why) || !check_bits(e, va, pte, why))
			return false;
		va += PAGE_SIZE;
		if (!va)
			break;
	}
	return true;
}

static bool check_direct_map(struct engine *e, struct engine_error *why)
{
	u32 large = e->st->layout.pae ? 512 : 1024;

	for (pfn_t pfn = 0; pfn < e->st->layout.low_end_pfn;) {
		u64 entry = pgtable_get(e, 0, frame_ref(e, pfn));

		if (entry & PTE_LARGE && entry & PTE_PRESENT) {
			if (pte_pfn(entry) != pfn)
				return refuse(why, "direct map: the large page of frame %u maps %u",
					      pfn, pte_pfn(entry));
			pfn += large;
			continue;
		}
		if (!(entry & PTE_PRESENT) && memblock_is_memory(e, pfn))
			return refuse(why, "direct map: frame %u is not in it", pfn);
		pfn++;
	}
	return true;
}

static void compare_pgd(struct engine *e, pfn_t pgd, void *arg)
{
	struct engine_error *why = arg;

	if (!why->text[0] && !pgtable_shares_kernel(e, pgd))
		refuse(why, "the kernel's half differs in the tables of pgd %u", pgd);
}

/* ---- reasons against entries ---- */

static bool check_areas(struct engine *e, const struct recount *n, struct engine_error *why)
{
	struct vmap_state *v = &e->st->map.vmap;
	const struct layout *l = &e->st->layout;
	const char *lie = area_map_check(e, &v->areas);
	u32 used = 0, lazy = 0, lazy_pages = 0;

	if (lie)
		return refuse(why, "vmalloc window: %s", lie);
	for (struct area *a = area_find_next(e, &v->areas, 0); a;
	     a = area_find_next(e, &v->areas, a->end)) {
		if (a->start < l->vmalloc_start || a->end > l->vmalloc_end)
			return refuse(why, "area 0x%x to 0x%x leaves the vmalloc window", a->start,
				      a->end);
		lazy += a->kind == VMAP_LAZY;
		lazy_pages += a->kind == VMAP_LAZY ? (a->end - a->start) >> PAGE_SHIFT : 0;
		used += a->a;
		if (a->kind != VMAP_LAZY && a->end - a->start != (a->a + 1) << PAGE_SHIFT)
			return refuse(why, "area 0x%x to 0x%x of %u pages has no guard page",
				      a->start, a->end, a->a);
	}
	if (used != v->used_pages || lazy != v->lazy_areas || lazy_pages != v->lazy_pages)
		return refuse(why,
			      "vmalloc: %u pages used, %u lazy areas of %u pages; counted %u, "
			      "%u, %u",
			      v->used_pages, v->lazy_areas, v->lazy_pages, used, lazy, lazy_pages);
	return used == n->vmalloc ||
	       refuse(why, "vmalloc: live areas have %u pages and %u entries", used, n->vmalloc);
}

static bool check_fixmap(struct engine *e, const struct recount *n, struct engine_error *why)
{
	u32 set = 0;

	for (u32 i = 0; i < FIXMAP_WORDS * 32; i++)
		set += e->st->map.fixmap_used[i / 32] >> i % 32 & 1;
	return set == n->fixmap ||
	       refuse(why, "fixmap: %u slots set and %u mapped", set, n->fixmap);
}

static bool check_slot(struct engine *e, u32 slot, struct engine_error *why)
{
	const struct pkmap_state *pk = &e->st->map.pkmap;
	const struct pkmap_holder *h = &pk->holder[slot];
	u32 held = 0, count = pk->count[slot];

	/* The first may be nobody, and nobody is all zeros. */
	if (!h->count && !h->task && !h->next)
		h = NULL;
	for (; h; h = pkmap_holder_next(e, h)) {
		if (!h->count || (h->task && !task_find(e, h->task)))
			return refuse(why, "pkmap: holder %u of slot %u is gone or holds nothing",
				      h->task, slot);
		held += h->count;
	}
	if (held != (count ? count - 1 : 0))
		return refuse(why, "pkmap: slot %u has count %u and %u holds", slot, count, held);
	if (count && page_of(e, pk->pfn[slot])->slot != slot + 1)
		return refuse(why, "pkmap: slot %u maps frame %u, which names slot %u less one",
			      slot, pk->pfn[slot], page_of(e, pk->pfn[slot])->slot);
	return true;
}

static bool check_sleepers(struct engine *e, struct engine_error *why)
{
	const struct pkmap_state *pk = &e->st->map.pkmap;
	u32 nr = 0, prev = 0;

	for (u32 number = pk->sleeper_first; number; nr++) {
		const struct task *t = task_find(e, number);

		if (!t || !t->parked_op || t->sleeper_prev != prev)
			return refuse(why,
				      "pkmap: task %u is among the sleepers and does not "
				      "sleep, or out of line",
				      number);
		prev = number;
		number = t->sleeper_next;
	}
	if (nr != pk->nr_sleepers || prev != pk->sleeper_last)
		return refuse(why, "pkmap: %u sleepers, counted %u", pk->nr_sleepers, nr);
	return !nr || pk->used == e->st->layout.pkmap_slots ||
	       refuse(why, "pkmap: %u tasks sleep while %u slots are in use", nr, pk->used);
}

static bool check_pkmap(struct engine *e, const struct recount *n, struct engine_error *why)
{
	const struct pkmap_state *pk = &e->st->map.pkmap;
	u32 used = 0, mapped = 0;

	for (u32 slot = 0; slot < e->st->layout.pkmap_slots; slot++) {
		if (!check_slot(e, slot, why))
			return false;
		used += pk->count[slot] > 1;
		mapped += pk->count[slot] > 0;
	}
	if (used != pk->used || mapped != n->pkmap)
		return refuse(why, "pkmap: %u slots used and %u mapped; counted %u and %u",
			      pk->used, n->pkmap, used, mapped);
	return check_sleepers(e, why);
}

static bool check_holdings(struct engine *e, const struct task *t, struct engine_error *why)
{
	u32 held = 0;

	for (u32 slot = 0; slot < e->st->layout.pkmap_slots; slot++) {
		const struct pkmap_holder *h = &e->st->map.pkmap.holder[slot];

		for (; h; h = pkmap_holder_next(e, h))
			held += h->task == t->number ? h->count : 0;
	}
	return held == t->holdings ||
	       refuse(why, "pkmap: task %u holds %u, counted %u", t->number, t->holdings, held);
}

/* `cpu` is where the stack is mapped, or CPU_NONE. */
static bool check_stack(struct engine *e, const struct kmap_stack *s, u32 cpu,
			struct engine_error *why)
{
	u32 slots = 0, atomic = 0;

	for (u32 i = 0; i < s->depth; i++) {
		const struct kmap_entry *entry = &s->entry[i];

		atomic += entry->how & KMAP_ATOMIC;
		if (is_lowmem(e, entry->pfn)) {
			if (entry->slot || entry->va != frame_ref(e, entry->pfn))
				return refuse(why, "kmap_local: lowmem frame %u is at 0x%x",
					      entry->pfn, entry->va);
			continue;
		}
		if (entry->slot != ++slots)
			return refuse(why, "kmap_local: entry %u has slot %u less one, not %u", i,
				      entry->slot, slots);
		if (cpu != CPU_NONE && pte_pfn(pgtable_get(e, 0, entry->va)) != entry->pfn)
			return refuse(why, "kmap_local: 0x%x does not map frame %u on CPU %u",
				      entry->va, entry->pfn, cpu);
	}
	return (slots == s->slots && atomic == s->atomic) ||
	       refuse(why, "kmap_local: %u slots and %u atomic entries, counted %u and %u",
		      s->slots, s->atomic, slots, atomic);
}

static bool check_stacks(struct engine *e, const struct recount *n, struct engine_error *why)
{
	const struct user_state *user = &e->st->user;
	u32 mapped = 0;

	for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++) {
		const struct kmap_stack *own = &user->cpu[cpu].kmap;
		const struct kmap_stack *current = cpu_kmap_stack(e, cpu);

		if (!check_stack(e, own, own == current ? cpu : CPU_NONE, why))
			return false;
		mapped += current->slots;
	}
	for (u32 i = 0; i < user->tasks.nr; i++) {
		const struct task *t = task_at(e, i);

		if (!check_stack(e, &t->kmap, t->cpu, why) || !check_holdings(e, t, why))
			return false;
	}
	return mapped == n->local ||
	       refuse(why, "kmap_local: %u slots on the CPUs' stacks and %u mapped", mapped,
		      n->local);
}

/* ---- uses ---- */

struct use_count {
	u32 done;	/* uses taken off the counts */
	u32 restore;	/* uses still to be put back */
	pfn_t short_of; /* a frame with fewer counted than there are */
};

static void take_off(struct engine *e, pfn_t head, void *arg)
{
	struct use_count *c = arg;

	if (c->short_of)
		return;
	if (!head || !page_of(e, head)->ref) {
		c->short_of = head ? head : CPU_NONE;
		return;
	}
	page_of(e, head)->ref--;
	c->done++;
}

static void put_back(struct engine *e, pfn_t head, void *arg)
{
	struct use_count *c = arg;

	if (!c->restore)
		return;
	page_of(e, head)->ref++;
	c->restore--;
}

/* This wing's uses fit into the frames' counts. They are taken off and put back in
 * the same order, so that the count costs one pass and no memory of its own. */
static bool check_uses(struct engine *e, struct engine_error *why)
{
	struct use_count c = {0, 0, 0};

	map_for_each_use(e, take_off, &c);
	c.restore = c.done;
	map_for_each_use(e, put_back, &c);
	return !c.short_of ||
	       refuse(why, "frame %u has more kernel mappings than uses", c.short_of);
}

bool check_map(struct engine *e, struct engine_error *why)
{
	struct recount n = {0, 0, 0, 0};

	if (!check_direct_map(e, why) || !check_entries(e, &n, why))
		return false;
	why->text[0] = 0;
	mm_for_each_pgd(e, compare_pgd, why);
	if (why->text[0])
		return false;
	return check_areas(e, &n, why) && check_fixmap(e, &n, why) && check_pkmap(e, &n, why) &&
	       check_stacks(e, &n, why) && check_uses(e, why);
}
