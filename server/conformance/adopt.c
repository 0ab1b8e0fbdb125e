/*
 * adopt.c - see adopt.h. It writes where no op writes: the machine is a player's own.
 */
#include "adopt.h"

#include "frames/page_alloc.h"
#include "frames/zone_access.h"

/* Which CPU has added so much to the zone's count: CPU 0 if it says so, else one of which
 * nothing is recorded. Never the one that executes: it adds when an op makes it. */
static u32 folding_cpu(const struct player *p, const struct state_row *got,
		       const struct state_row *want, s64 added)
{
	u32 executing = p->b->cpu;

	if (executing && (s64)got->diff == added && !want->diff)
		return 0;
	return executing == 1 ? 2 : 1;
}

/* On a machine with several CPUs those that do not execute an op may add what they keep to
 * the zone's count at any time (the statistics' worker does that). When is not told: it is
 * seen from the count. What the CPUs keep of which nothing is recorded is known as a sum
 * only. */
void adopt_fold(struct player *p, struct state_row *got, const struct state_row *want)
{
	struct zone *z = &p->b->e->st->frames.zone[got->zone];
	s64 added = (s64)(want->nr_free - got->nr_free);
	u32 cpus = p->b->e->st->layout.cpus, cpu = folding_cpu(p, got, want, added);
	s64 most = (s64)z->stat_threshold * cpus;

	if (!added || cpu >= cpus || (cpus == 2 && z->pcp[cpu].free_diff != added) ||
	    added > most || added < -most)
		return;
	z->free += (s32)added;
	z->pcp[cpu].free_diff -= (s32)added;
	zone_check_marks(p->b->e, (u32)got->zone);
	got->nr_free = want->nr_free;
	got->diff = (u64)(s64)z->pcp[0].free_diff;
	p->folds++;
}

/* ---- types of pageblocks ---- */

/* As the recordings' `bh`, FNV-1a of a 32-bit word for each pageblock, were one MOVABLE. */
static u64 hash_types(struct engine *e, u32 zone, pfn_t movable)
{
	const struct zone *z = &e->st->frames.zone[zone];
	u32 size = pages_of_order(e->st->layout.pageblock_order);
	u64 hash = 14695981039346656037ULL;

	for (pfn_t pfn = z->start & ~(size - 1); pfn < z->end; pfn += size) {
		u32 word = pfn == movable ? MIGRATE_MOVABLE : pageblock_type(e, zone, pfn);

		for (u32 byte = 0; byte < sizeof word; byte++, word >>= 8)
			hash = (hash ^ (word & 0xff)) * 1099511628211ULL;
	}
	return hash;
}

/* Is there a frame in this pageblock that was allocated by nobody known? */
static bool has_unknown(struct engine *e, pfn_t start, pfn_t end)
{
	struct frame_run run;

	for (pfn_t pfn = start; pfn < end && pfn < e->st->layout.max_pfn; pfn += run.count) {
		frame_describe(e, pfn, &run);
		if (run.state == FRAME_ALLOCATED && !page_block_head(e, pfn))
			return true;
	}
	return false;
}

/* The machine takes unknown frames for such that cannot be moved. Where they can, Linux
 * leaves a pageblock MOVABLE that an unmovable request steals from, or makes it MOVABLE
 * for a movable one. So it is only towards MOVABLE that they can make a difference. */
void adopt_type(struct player *p, struct state_row *got, const struct state_row *want)
{
	struct engine *e = p->b->e;
	u32 zone = (u32)got->zone, size = pages_of_order(e->st->layout.pageblock_order);
	const struct zone *z = &e->st->frames.zone[zone];

	for (pfn_t pfn = z->start & ~(size - 1); pfn < z->end; pfn += size) {
		if (pageblock_type(e, zone, pfn) == MIGRATE_MOVABLE ||
		    hash_types(e, zone, pfn) != want->pageblocks ||
		    !has_unknown(e, pfn, pfn + size))
			continue;
		pageblock_set_type(e, zone, pfn, MIGRATE_MOVABLE);
		got->pageblocks = want->pageblocks;
		p->types++;
		return;
	}
}
