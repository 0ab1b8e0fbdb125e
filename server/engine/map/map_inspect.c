/*
 * map_inspect.c - questions about mappings: the vmalloc window, a walk, the kmap
 * windows, and everything that maps one frame.
 *
 * The mappings of a frame are found by looking at every table, not by counts: the
 * answer is what a CPU would see.
 */
#include "../event.h"
#include "../frames/page_alloc.h"
#include "../frames/zone_access.h"
#include "../text.h"
#include "../wings.h"
#include "pgtable.h"

/* ---- vmallocinfo ---- */

/* Linux's format; the caller's name, which it prints after the size, is not kept. */
static void say_area(struct engine *e, const struct area *a, struct inspect_sink *sink)
{
	u64 paddr = a->kind == VMAP_IOREMAP ? (u64)a->b << PAGE_SHIFT : 0;

	ROW(sink, ROW_VMALLOCINFO_AREAS, a->start, a->end, a->kind, a->a, paddr);
	say(sink, "0x%08x-0x%08x %7u", a->start, a->end, a->end - a->start);
	if (a->kind == VMAP_VMALLOC)
		say(sink, " pages=%u vmalloc\n", a->a);
	else if (a->kind == VMAP_VMAP)
		say(sink, " vmap\n");
	else if (a->kind == VMAP_LAZY)
		say(sink, " unpurged vm_area\n");
	else if (e->st->layout.pae)
		say(sink, " phys=0x%016llx ioremap\n", (unsigned long long)paddr);
	else
		say(sink, " phys=0x%08llx ioremap\n", (unsigned long long)paddr);
}

u32 inspect_vmallocinfo(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	struct area_map *areas = &e->st->map.vmap.areas;

	(void)args;
	/* As in Linux, what waits for the purge comes last. */
	for (u32 lazy = 0; lazy < 2; lazy++) {
		for (struct area *a = area_find_next(e, areas, 0); a;
		     a = area_find_next(e, areas, a->end)) {
			if ((a->kind == VMAP_LAZY) == lazy)
				say_area(e, a, sink);
		}
	}
	return STATUS_OK;
}

/* ---- walk ---- */

struct bit_name {
	u64 bit;
	const char *name;
};

static const struct bit_name bit_names[] = {
    {PTE_PRESENT, "present"},	{PTE_WRITE, "write"},	{PTE_USER, "user"},
    {PTE_PWT, "write-through"}, {PTE_PCD, "uncached"},	{PTE_ACCESSED, "accessed"},
    {PTE_DIRTY, "dirty"},	{PTE_LARGE, "large"},	{PTE_GLOBAL, "global"},
    {PTE_SPECIAL, "special"},	{PTE_NX, "no-execute"},
};

static void say_bits(struct inspect_sink *sink, u64 entry)
{
	for (u32 i = 0; i < sizeof bit_names / sizeof bit_names[0]; i++) {
		if (entry & bit_names[i].bit)
			say(sink, " %s", bit_names[i].name);
	}
	say(sink, "\n");
}

/* A bit that every level must have for the CPU to allow it. */
static bool at_every_level(const struct pgtable_step *step, u32 first, u32 n, u64 bit)
{
	for (u32 i = first; i < n; i++) {
		if (!(step[i].entry & bit))
			return false;
	}
	return true;
}

static void say_translation(struct engine *e, va_t va, const struct pgtable_step *step, u32 n,
			    struct inspect_sink *sink)
{
	u64 last = step[n - 1].entry;
	/* PAE's top level has no permissions. */
	u32 first = e->st->layout.pae ? 1 : 0, nx = 0;
	u32 levels = e->st->layout.pae ? 3 : 2;
	bool present = last & PTE_PRESENT;
	u32 size = n == levels ? PAGE_SIZE : e->st->layout.pae ? 2u << 20 : 4u << 20;
	u64 paddr = (last & PTE_FRAME & ~(u64)(size - 1)) | (va & (size - 1));

	if (!present) {
		say(sink, "0x%08x is not mapped\n", va);
		ROW(sink, ROW_WALK_TRANSLATION, 0, 0, 0, 0, 0, 0, 0, 0, 0);
		return;
	}
	for (u32 i = first; i < n; i++)
		nx |= step[i].entry & PTE_NX ? 1 : 0;
	say(sink, "0x%08x is 0x%llx in a page of %u KiB\n", va, (unsigned long long)paddr,
	    size >> 10);
	ROW(sink, ROW_WALK_TRANSLATION, 1, paddr, size, at_every_level(step, first, n, PTE_USER),
	    at_every_level(step, first, n, PTE_WRITE), !nx, (last & PTE_GLOBAL) != 0,
	    (last & PTE_ACCESSED) != 0, (last & PTE_DIRTY) != 0);
}

u32 inspect_walk(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	va_t va = (va_t)args[0];
	struct task *t = args[1] ? task_find(e, (u32)args[1]) : NULL;
	struct pgtable_step step[3];
	u32 n;

	if (args[1] && !t)
		return STATUS_NOT_FOUND;
	n = pgtable_walk(e, t ? task_mm(e, t)->pgd : 0, va, step);
	for (u32 i = 0; i < n; i++) {
		ROW(sink, ROW_WALK_LEVELS, i, step[i].entry_paddr, step[i].entry);
		say(sink, "level %u at 0x%08llx: 0x%016llx", i,
		    (unsigned long long)step[i].entry_paddr, (unsigned long long)step[i].entry);
		say_bits(sink, step[i].entry);
	}
	say_translation(e, va, step, n, sink);
	return STATUS_OK;
}

/* ---- the kmap windows ---- */

static void say_slots(struct engine *e, struct inspect_sink *sink)
{
	const struct pkmap_state *pk = &e->st->map.pkmap;

	for (u32 slot = 0; slot < e->st->layout.pkmap_slots; slot++) {
		va_t va = e->st->layout.pkmap_start + (slot << PAGE_SHIFT);

		if (!pk->count[slot])
			continue;
		ROW(sink, ROW_KMAP_WINDOW_SLOTS, slot, va, pk->pfn[slot], pk->count[slot]);
		say(sink, "slot %4u 0x%08x frame %7u count %u", slot, va, pk->pfn[slot],
		    pk->count[slot]);
		const struct pkmap_holder *h = &pk->holder[slot];

		for (; h && h->count; h = pkmap_holder_next(e, h)) {
			ROW(sink, ROW_KMAP_WINDOW_HOLDERS, h->task, pk->pfn[slot], h->count);
			say(sink, "  task %u x%u", h->task, h->count);
		}
		say(sink, "\n");
	}
}

static void say_stack(const struct kmap_stack *s, u32 task, u32 cpu, struct inspect_sink *sink)
{
	for (u32 i = 0; i < s->depth; i++) {
		const struct kmap_entry *entry = &s->entry[i];

		ROW(sink, ROW_KMAP_WINDOW_LOCALS, task, cpu, i, entry->pfn, entry->va,
		    entry->how & KMAP_ATOMIC);
		say(sink, "task %u cpu %d depth %u 0x%08x frame %u%s\n", task, (int)cpu, i,
		    entry->va, entry->pfn, entry->how & KMAP_ATOMIC ? " atomic" : "");
	}
}

u32 inspect_kmap_window(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	const struct pkmap_state *pk = &e->st->map.pkmap;
	const struct user_state *user = &e->st->user;
	u32 slots = e->st->layout.pkmap_slots, free = 0;

	(void)args;
	for (u32 slot = 0; slot < slots; slot++)
		free += !pk->count[slot];
	ROW(sink, ROW_KMAP_WINDOW_SUMMARY, slots, free, slots - free - pk->used, pk->used, pk->last,
	    pk->flushes);
	say(sink, "%u slots: %u free, %u stale, %u used; last %u, wrapped %u times\n", slots, free,
	    slots - free - pk->used, pk->used, pk->last, pk->flushes);
	say_slots(e, sink);
	for (u32 number = pk->sleeper_first; number;) {
		const struct task *t = task_find(e, number);

		ROW(sink, ROW_KMAP_WINDOW_SLEEPERS, number, t->parked_op, t->parked_pfn);
		say(sink, "task %u sleeps in op %llu for frame %u\n", number,
		    (unsigned long long)t->parked_op, t->parked_pfn);
		number = t->sleeper_next;
	}
	for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++)
		say_stack(&user->cpu[cpu].kmap, 0, cpu, sink);
	for (u32 i = 0; i < user->tasks.nr; i++)
		say_stack(&task_at(e, i)->kmap, task_at(e, i)->number, task_at(e, i)->cpu, sink);
	return STATUS_OK;
}

/* ---- a frame and its mappings ---- */

static const char *const window_names[] = {
    [WINDOW_USER] = "user",   [WINDOW_DIRECT] = "direct map", [WINDOW_VMALLOC] = "vmalloc",
    [WINDOW_PKMAP] = "pkmap", [WINDOW_FIXMAP] = "fixmap",     [WINDOW_KMAP_LOCAL] = "kmap_local",
    [WINDOW_HOST] = "host",
};

static void say_mapping(struct inspect_sink *sink, u32 window, u32 task, va_t va, u64 pte)
{
	ROW(sink, ROW_PAGE_MAPPINGS, window, task, va, pte_bits(pte));
	say(sink, "  0x%08x %s", va, window_names[window]);
	if (window == WINDOW_USER)
		say(sink, " of task %u:", task);
	else
		say(sink, ":");
	say_bits(sink, pte);
}

static u32 window_of(const struct engine *e, va_t va)
{
	const struct layout *l = &e->st->layout;
	u32 index = (l->fixmap_top - va) >> PAGE_SHIFT;

	if (va - l->pkmap_start < l->pkmap_slots << PAGE_SHIFT)
		return WINDOW_PKMAP;
	if (va < l->vmalloc_start)
		return WINDOW_DIRECT;
	if (va < l->vmalloc_end)
		return WINDOW_VMALLOC;
	if (pgtable_in_host_window(e, va))
		return WINDOW_HOST;
	return index >= l->fix_kmap_begin && index <= l->fix_kmap_end ? WINDOW_KMAP_LOCAL
								      : WINDOW_FIXMAP;
}

/* Who is current on the CPU that a kmap_local slot belongs to. */
static u32 task_of_slot(const struct engine *e, va_t va)
{
	const struct layout *l = &e->st->layout;
	u32 index = (l->fixmap_top - va) >> PAGE_SHIFT;

	return e->st->user.cpu[(index - l->fix_kmap_begin) / KMAP_LOCAL_SLOTS].current;
}

static void say_kernel_mappings(struct engine *e, pfn_t pfn, struct inspect_sink *sink)
{
	va_t va = pgtable_kernel_start(e);
	u64 pte;

	/* A large page of the direct map is no table, so the walk below misses it. */
	if (is_lowmem(e, pfn) && pgtable_get(e, 0, frame_ref(e, pfn)) & PTE_LARGE)
		say_mapping(sink, WINDOW_DIRECT, 0, frame_ref(e, pfn),
			    pgtable_get(e, 0, frame_ref(e, pfn)));
	while (pgtable_next(e, e->st->map.kernel_pgd, &va, 0xffffffff, &pte)) {
		u32 window = window_of(e, va);

		if (pte_pfn(pte) == pfn)
			say_mapping(sink, window,
				    window == WINDOW_KMAP_LOCAL ? task_of_slot(e, va) : 0, va, pte);
		va += PAGE_SIZE;
		if (!va)
			break;
	}
}

static void say_user_mappings(struct engine *e, pfn_t pfn, struct inspect_sink *sink)
{
	for (u32 i = 0; i < e->st->user.tasks.nr; i++) {
		const struct task *t = task_at(e, i);
		va_t va = 0;
		u64 pte;

		while (pgtable_next(e, task_mm(e, t)->pgd, &va, e->st->layout.task_size, &pte)) {
			if (pte_pfn(pte) == pfn)
				say_mapping(sink, WINDOW_USER, t->number, va, pte);
			va += PAGE_SIZE;
		}
	}
}

static const char *const state_names[] = {
    [FRAME_FREE] = "free",
    [FRAME_PCP] = "on a per-CPU list",
    [FRAME_ALLOCATED] = "allocated",
    [FRAME_RESERVED] = "reserved",
    [FRAME_HOLE] = "no RAM",
    [FRAME_METADATA] = "metadata",
    [FRAME_PAGE_TABLE] = "page table",
    [FRAME_SLAB] = "objects",
    [FRAME_ANONYMOUS] = "anonymous",
    [FRAME_PAGE_CACHE] = "page cache",
    [FRAME_VMALLOC] = "vmalloc",
    [FRAME_BOUNCE] = "bounce buffer",
    [FRAME_HOST] = "host window",
};

/* State of a frame that is in no block: never the allocator's, or never taken. */
static u32 state_outside_blocks(struct engine *e, pfn_t pfn)
{
	const struct layout *l = &e->st->layout;

	if (pgtable_is_table(e, pfn))
		return FRAME_PAGE_TABLE;
	if (pfn >= l->metadata_start && pfn < l->metadata_end)
		return FRAME_METADATA;
	if (pfn >= l->host_start && pfn < l->host_end)
		return FRAME_HOST;
	if (!memblock_is_memory(e, pfn))
		return FRAME_HOLE;
	return frontier_has(&e->st->frames.zone[zone_of_pfn(e, pfn)], pfn) ? FRAME_FREE
									   : FRAME_RESERVED;
}

u32 inspect_page(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	pfn_t pfn = (pfn_t)args[0], head;
	struct page p = {0};
	u32 state, order = 0, zone, mapcount = 0, pincount = 0;

	if (pfn >= e->st->layout.max_pfn)
		return STATUS_INVALID;
	zone = zone_of_pfn(e, pfn);
	head = page_block_head(e, pfn);
	if (head) {
		p = *page_of(e, head);
		state = page_state(&p);
		order = page_order(&p);
	} else {
		state = state_outside_blocks(e, pfn);
		head = pfn;
		if (state == FRAME_FREE) {
			order = MAX_ORDER;
			head = pfn & ~(pages_of_order(MAX_ORDER) - 1);
		}
	}
	/* What a free frame was before says nothing about it. */
	if (state == FRAME_FREE || state == FRAME_PCP)
		p = (struct page){0};
	if (state == FRAME_ANONYMOUS || state == FRAME_PAGE_CACHE) {
		mapcount = *page_mapcount(&p);
		pincount = *page_pincount(&p);
	}
	u32 type = pageblock_type(e, zone, pfn);

	ROW(sink, ROW_PAGE_FRAME, pfn, state, zone, order, head, type, p.ref, mapcount, pincount,
	    p.owner, p.op);
	say(sink, "frame %u: %s, block of order %u at %u, zone %u, type %u, owner %u, op %llu\n",
	    pfn, state_names[state], order, head, zone, type, p.owner, (unsigned long long)p.op);
	say(sink, "  uses %u, user mappings %u, pins %u\n", p.ref, mapcount, pincount);
	say_kernel_mappings(e, pfn, sink);
	say_user_mappings(e, pfn, sink);
	return STATUS_OK;
}
