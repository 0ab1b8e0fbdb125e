/*
 * route.h - the way of an ordinary request for pages, remembered: the zone that it tries
 * first, its migratetype, and how many free pages that zone must keep.
 *
 * Most requests need no more than this, so that it is looked up and not worked out. It is a
 * cache in the engine's handle, of zones and policies; who changes those says so here, and
 * engine_check() compares.
 */
#ifndef ENGINE_ROUTE_H
#define ENGINE_ROUTE_H

#include "buddy.h"
#include "zone_access.h"

enum {
	GFP_KIND_BITS = 5, /* what names a zone, and a migratetype */
	GFP_HARDWALL_BIT = 20,
	/* No zone serves this gfp: a limit that is never passed. */
	LIMIT_NONE = PAGE_LIMITS - 1,
};

_Static_assert(LIMIT_NONE == NR_ZONES * NR_ZONES, "by zone, then by the request's class");
_Static_assert(__GFP_HARDWALL == 1 << GFP_HARDWALL_BIT, "see route_of()");

static inline const struct page_route *route_of(const struct engine *e, u32 gfp)
{
	u32 kind = gfp & ((1u << GFP_KIND_BITS) - 1);
	u32 user = gfp >> (GFP_HARDWALL_BIT - GFP_KIND_BITS) & 1u << GFP_KIND_BITS;

	return &e->page_route[kind | user];
}

/* May the zone serve this order above its LOW mark? */
static inline bool route_is_open(const struct engine *e, const struct page_route *to, u32 order)
{
	const struct zone *z = zone_at(e, to->zone);

	return z->free - (s32)(pages_of_order(order) - 1) > e->page_limit[to->limit] &&
	       (!order || buddy_has(z, order, false));
}

/* Zones, mobility or the policy for user pages have changed; or all there is. */
void routes_update(struct engine *e);

/* A zone's marks, boost, reserve or HIGHATOMIC pages have changed. */
void limits_update(struct engine *e, u32 zone);

/* The audit's question: does the cache say what the state says? */
bool routes_are_right(const struct engine *e);

#endif
