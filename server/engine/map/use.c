/*
 * use.c - counting the mappings of frames (see use.h), and the wing's start.
 */
#include "use.h"

#include "../boot/boot.h"
#include "../event.h"
#include "../frames/page_alloc.h"
#include "pgtable.h"

u32 frame_why_not_mappable(struct engine *e, pfn_t pfn)
{
	if (pfn >= e->st->layout.max_pfn)
		return STATUS_INVALID;
	return page_free_check(e, pfn, 0) == STATUS_DOUBLE_FREE ? STATUS_NOT_FOUND : STATUS_INVALID;
}

bool paddr_is_ram(struct engine *e, paddr_t start, paddr_t end)
{
	struct ram_map map;
	struct engine_error ignored;

	/* The configuration was good when the machine was made of it. */
	ENGINE_ASSERT(e, ram_map_make(&e->st->config, 0, &map, &ignored));
	for (u32 i = 0; i < map.nr; i++) {
		const struct engine_range *r = &map.range[i];

		if (r->start < end && start < r->start + r->size)
			return true;
	}
	return false;
}

void block_unused(struct engine *e, struct page *block)
{
	page_free(e, (pfn_t)(block - e->mem_map), page_order(block));
}

/* The wing's own objects. Page tables and the zero page are pgtable_boot()'s. */
u32 map_boot(struct engine *e)
{
	slab_setup(e, SLAB_AREA_LEAF, AREA_OBJECT_BYTES);
	slab_setup(e, SLAB_HOLDER, sizeof(struct pkmap_holder));
	return STATUS_OK;
}

struct use_walk {
	void (*fn)(struct engine *e, pfn_t head, void *arg);
	void *arg;
};

static void one_use(struct engine *e, const struct use_walk *w, pfn_t pfn)
{
	w->fn(e, page_allocated_head(e, pfn), w->arg);
}

static void uses_of_stack(struct engine *e, const struct use_walk *w, const struct kmap_stack *s)
{
	for (u32 i = 0; i < s->depth; i++) {
		if (s->entry[i].how & KMAP_COUNTED)
			one_use(e, w, s->entry[i].pfn);
	}
}

static void uses_of_vmap(struct engine *e, const struct use_walk *w)
{
	struct area_map *areas = &e->st->map.vmap.areas;

	for (struct area *a = area_find_next(e, areas, 0); a;
	     a = area_find_next(e, areas, a->end)) {
		for (u32 i = 0; a->kind == VMAP_VMAP && i < a->a; i++)
			one_use(e, w, pte_pfn(pgtable_get(e, 0, a->start + (i << PAGE_SHIFT))));
	}
}

static void uses_of_fixmap(struct engine *e, const struct use_walk *w)
{
	const struct map_state *map = &e->st->map;

	for (u32 i = 0; i < e->st->layout.nr_fixmap; i++) {
		if (!(map->fixmap_used[i / 32] >> i % 32 & 1))
			continue;
		u64 pte = pgtable_get(e, 0, fix_to_va(&e->st->layout, i));

		if (!(pte & PTE_SPECIAL))
			one_use(e, w, pte_pfn(pte));
	}
}

void map_for_each_use(struct engine *e, void (*fn)(struct engine *e, pfn_t head, void *arg),
		      void *arg)
{
	const struct use_walk w = {fn, arg};
	const struct pkmap_state *pk = &e->st->map.pkmap;
	const struct user_state *user = &e->st->user;

	for (u32 slot = 0; slot < e->st->layout.pkmap_slots; slot++) {
		for (u32 n = 1; n < pk->count[slot]; n++)
			one_use(e, &w, pk->pfn[slot]);
	}
	for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++)
		uses_of_stack(e, &w, &user->cpu[cpu].kmap);
	for (u32 i = 0; i < user->tasks.nr; i++) {
		const struct task *t = task_at(e, i);

		uses_of_stack(e, &w, &t->kmap);
		if (t->parked_op)
			one_use(e, &w, t->parked_pfn);
	}
	uses_of_vmap(e, &w);
	uses_of_fixmap(e, &w);
}
