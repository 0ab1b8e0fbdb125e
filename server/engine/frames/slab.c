/*
 * slab.c - small objects of fixed sizes in lowmem frames.
 *
 * A frame begins with a struct slab_frame: whose it is and a bit for each object in
 * use; the objects follow. The frame's descriptor links it into its cache's list of
 * partly filled frames.
 *
 * Invariants:
 *  1 A frame is on its cache's list exactly when it has a free object; an empty
 *    frame does not exist.
 *  2 An object handed out is the lowest free one of the list's first frame, zeroed.
 *
 * Not modelled: Linux's slab caches. These frames are what the machine's own
 * records cost, not what a kernel's would.
 */
#include "slab.h"
#include "../event.h"
#include "page_alloc.h"
#include "slab_frame.h"

static struct slab_frame *frame_at(struct engine *e, pfn_t pfn)
{
	return at(e, frame_ref(e, pfn));
}

u32 slab_objects_per_frame(u32 object_size)
{
	return (u32)(PAGE_SIZE - sizeof(struct slab_frame)) / object_size;
}

void slab_setup(struct engine *e, u32 cache, u32 object_size)
{
	ENGINE_ASSERT(e, object_size % 8 == 0 && object_size >= SLAB_MIN_OBJECT);
	ENGINE_ASSERT(e, slab_objects_per_frame(object_size) > 0);
	e->st->slab.cache[cache].object_size = object_size;
}

static void link_frame(struct engine *e, u32 cache, pfn_t pfn)
{
	u32 *first = &e->st->slab.cache[cache].partial;

	e->mem_map[pfn].prev = 0;
	e->mem_map[pfn].next = *first;
	if (*first)
		e->mem_map[*first].prev = pfn;
	*first = pfn;
}

static void unlink_frame(struct engine *e, u32 cache, pfn_t pfn)
{
	struct page *p = &e->mem_map[pfn];

	if (p->next)
		e->mem_map[p->next].prev = p->prev;
	if (p->prev)
		e->mem_map[p->prev].next = p->next;
	else
		e->st->slab.cache[cache].partial = p->next;
	p->next = p->prev = 0;
}

static u32 lowest_free(const struct slab_frame *s)
{
	u32 word = 0;

	while (s->used_map[word] == UINT32_MAX)
		word++;
	return word * 32 + (u32)__builtin_ctz(~s->used_map[word]);
}

ref_t slab_alloc(struct engine *e, u32 cache)
{
	u32 size = e->st->slab.cache[cache].object_size, index;
	pfn_t pfn = e->st->slab.cache[cache].partial;
	struct slab_frame *s;
	u8 *object;

	ENGINE_ASSERT(e, size);
	if (!pfn) {
		pfn = frame_alloc_own(e, FRAME_SLAB);
		if (!pfn)
			return 0;
		frame_at(e, pfn)->cache = cache;
		e->st->slab.cache[cache].nr_frames++;
		link_frame(e, cache, pfn);
	}
	s = frame_at(e, pfn);
	index = lowest_free(s);
	s->used_map[index / 32] |= 1u << index % 32;
	if (++s->used == slab_objects_per_frame(size))
		unlink_frame(e, cache, pfn);
	e->st->slab.cache[cache].nr_objects++;
	object = (u8 *)(s + 1) + (size_t)index * size;
	__builtin_memset(object, 0, size);
	return ref_of(e, object);
}

void slab_free(struct engine *e, u32 cache, ref_t object)
{
	u32 size = e->st->slab.cache[cache].object_size;
	pfn_t pfn = ref_pfn(e, object);
	struct slab_frame *s = frame_at(e, pfn);
	u32 offset = object - frame_ref(e, pfn) - (u32)sizeof *s, index = offset / size;

	ENGINE_ASSERT(e, page_state(&e->mem_map[pfn]) == FRAME_SLAB && s->cache == cache);
	ENGINE_ASSERT(e, offset % size == 0 && s->used_map[index / 32] >> index % 32 & 1);
	if (s->used == slab_objects_per_frame(size))
		link_frame(e, cache, pfn);
	s->used_map[index / 32] &= ~(1u << index % 32);
	s->used--;
	e->st->slab.cache[cache].nr_objects--;
	if (s->used)
		return;
	unlink_frame(e, cache, pfn);
	e->st->slab.cache[cache].nr_frames--;
	frame_free_own(e, pfn);
}
