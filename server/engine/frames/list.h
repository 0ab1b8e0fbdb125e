/*
 * list.h - lists of frames, linked by pfn through their descriptors.
 *
 * Ended by 0 at both ends. A frame is on at most one list. These change the links
 * and the count, nothing else of a descriptor but where they say so.
 */
#ifndef ENGINE_FRAMES_LIST_H
#define ENGINE_FRAMES_LIST_H

#include "page.h"
#include "zone.h"

static inline void list_push_head(struct page *map, struct pfn_list *l, pfn_t pfn)
{
	map[pfn].prev = 0;
	map[pfn].next = l->first;
	if (l->first)
		map[l->first].prev = pfn;
	else
		l->last = pfn;
	l->first = pfn;
	l->nr++;
}

/* The same for a list that is empty. */
static inline void list_start(struct page *map, struct pfn_list *l, pfn_t pfn)
{
	map[pfn].next = map[pfn].prev = 0;
	l->first = l->last = pfn;
	l->nr = 1;
}

static inline void list_push_tail(struct page *map, struct pfn_list *l, pfn_t pfn)
{
	map[pfn].next = 0;
	map[pfn].prev = l->last;
	if (l->last)
		map[l->last].next = pfn;
	else
		l->first = pfn;
	l->last = pfn;
	l->nr++;
}

/* At the tail, and with these flags: blocks that lie one behind the other. */
static inline void list_push_run(struct page *map, struct pfn_list *l, pfn_t pfn, u32 nr, u32 pages,
				 u32 flags)
{
	pfn_t before = l->last;

	if (before)
		map[before].next = pfn;
	else
		l->first = pfn;
	for (u32 i = 0; i < nr; i++) {
		map[pfn].flags = flags;
		map[pfn].next = pfn + pages;
		map[pfn].prev = before;
		before = pfn;
		pfn += pages;
	}
	map[before].next = 0;
	l->last = before;
	l->nr += nr;
}

static inline void list_remove(struct page *map, struct pfn_list *l, pfn_t pfn)
{
	pfn_t next = map[pfn].next, prev = map[pfn].prev;

	if (next)
		map[next].prev = prev;
	else
		l->last = prev;
	if (prev)
		map[prev].next = next;
	else
		l->first = next;
	l->nr--;
}

/* The same for the last frame of a list. */
static inline void list_pop_tail(struct page *map, struct pfn_list *l, pfn_t last)
{
	pfn_t prev = map[last].prev;

	if (prev)
		map[prev].next = 0;
	else
		l->first = 0;
	l->last = prev;
	l->nr--;
}

/* The same for the first frame of a list. */
static inline void list_pop_head(struct page *map, struct pfn_list *l, pfn_t first)
{
	pfn_t next = map[first].next;

	if (next)
		map[next].prev = 0;
	else
		l->last = 0;
	l->first = next;
	l->nr--;
}

/* Takes the first block of a list, whose flags become those of no head; 0: it is empty. */
static inline pfn_t list_take(struct page *map, struct pfn_list *l)
{
	pfn_t pfn = l->first;

	if (pfn) {
		list_pop_head(map, l, pfn);
		map[pfn].flags = 0;
	}
	return pfn;
}

#endif
