/*
 * exhaust.c - exhaust.jsonl: experiments that ask for one kind of block until there is none.
 *
 * The file has the exact lists before the first experiment. Each later one begins with what
 * the one before has freed, drained from the per-CPU lists, as the recorder's module does.
 * In those milliseconds Linux ran other things too. What they did is not told, only the
 * counters afterwards are, so these are adopted where an experiment begins:
 *  - the CPU's difference moves to the zone's count (the statistics' worker did that);
 *  - a boost is taken back or given;
 *  - pages that others took or gave back are taken or given back here.
 * Usually nothing else has happened, and the experiment is played frame by frame. Frames that
 * others took and gave back in between lie in other places of the lists afterwards; no
 * counter tells where. An experiment that shows this (a frame is another, not a zone) is
 * compared by zones from there on: every request must come from the zone that Linux served
 * it from, but for one refill, and what the boosts differ by.
 *
 * Apart from the machine's own answers, every exit from a zone must be explained by the
 * recorded counters and the zone's marks, as a sentence of arithmetic (exit_of()): what was
 * free was at or below LOW or MIN as this request sees it, with reserve and boost, and had
 * not been one refill earlier; or nothing was left that it may have.
 */
#include "player.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frames/pcp.h"

enum exit_kind { EXIT_LOW, EXIT_MIN, EXIT_EMPTY, NR_EXITS, EXIT_UNEXPLAINED };

struct exhaustion {
	struct player *p;
	u32 gfp, order;
	u32 *pfns; /* what it holds, oldest first */
	u32 nr, room;
	/* The last allocation, which belongs to the next run: Linux's recorder noticed a
	 * run's end by it. zone -1: it failed. */
	s64 zone, pfn;
	u32 boost[NR_ZONES]; /* as recorded last */
	bool by_frame;	     /* this experiment agrees so far, frame by frame */

	u32 experiments, by_zone; /* all, and those that were compared by zones */
	u32 exits[NR_EXITS], folds, boosts, others;
	u32 ends, same_ends; /* whole zones after the last experiment */
};

struct exhaustion *exhaustion_new(struct player *p)
{
	struct exhaustion *x = calloc(1, sizeof *x);

	if (x)
		x->p = p;
	return x;
}

static u32 cpus_of(const struct exhaustion *x)
{
	return x->p->b->e->st->layout.cpus;
}

/* ---- where an experiment begins ---- */

static struct zone *zone_of(struct exhaustion *x, u32 zone)
{
	return &x->p->b->e->st->frames.zone[zone % NR_ZONES];
}

/* Others took pages: they are taken here, from the zone where Linux misses them. */
static void take_pages(struct exhaustion *x, u32 zone, u32 pages)
{
	static const u32 gfp[NR_ZONES] = {
	    [ZONE_DMA] = __GFP_DMA,
	    [ZONE_NORMAL] = 0,
	    [ZONE_HIGHMEM] = __GFP_HIGHMEM,
	    [ZONE_MOVABLE] = __GFP_HIGHMEM | __GFP_MOVABLE,
	};

	while (pages--)
		box_op(x->p->b, OP_ALLOC_PAGES, gfp[zone], 0);
}

/* Others gave pages back: of those that somebody unknown had from the beginning. */
static void give_pages(struct exhaustion *x, u32 zone, u32 pages)
{
	const struct zone *z = zone_of(x, zone);

	for (pfn_t pfn = z->end; pages && pfn > z->start; pfn--)
		pages -= box_op(x->p->b, OP_FREE_PAGES, pfn - 1, 0) == STATUS_OK;
}

/* Brings one zone's counters to what they were in Linux. They are written where no op
 * writes them: the machine is this file's own. */
static void adopt(struct exhaustion *x, const json_t *s)
{
	u32 number = json_u32(s, "z") % NR_ZONES, boost = json_u32(s, "boost");
	struct zone *z = zone_of(x, number);
	s32 diff = (s32)json_s64(s, "diff");
	s32 missing = z->free + z->pcp[0].free_diff - (s32)json_s64(s, "free") - diff -
		      (s32)json_s64(s, "pcp");
	s32 most = (s32)z->stat_threshold;

	/* Of other CPUs nothing is told: what they keep is anything that fits. */
	if (cpus_of(x) > 1 && missing <= most && missing >= -most) {
		z->free -= missing;
		z->pcp[x->p->b->cpu ? 0 : 1].free_diff += missing;
		x->folds++;
	} else if (missing) {
		x->others += (u32)(missing < 0 ? -missing : missing);
		x->by_frame = false;
		if (missing > 0)
			take_pages(x, number, (u32)missing);
		else
			give_pages(x, number, (u32)-missing);
		box_op(x->p->b, OP_DRAIN_PCP, 1);
	}
	x->folds += z->pcp[0].free_diff != diff;
	z->free += z->pcp[0].free_diff - diff;
	z->pcp[0].free_diff = diff;
	x->boosts += z->boost != boost;
	z->boost = boost;
	zone_check_marks(x->p->b->e, number);
}

static void remember_boosts(struct exhaustion *x, const json_t *zones)
{
	const json_t *s;
	size_t i;

	json_array_foreach (zones, i, s)
		x->boost[json_u32(s, "z") % NR_ZONES] = json_u32(s, "boost");
}

/* With several CPUs an experiment may have run on another one than the first, whose
 * counters are not told. */
static bool counters_agree(struct exhaustion *x, const char *line, const json_t *zones)
{
	struct conformance_report *r = x->p->r, attempt = {0};
	bool agree = true;

	remember_boosts(x, zones);
	if (!x->by_frame)
		return true;
	if (cpus_of(x) > 1)
		x->p->r = &attempt;
	agree = player_zones_agree(x->p, line, zones, true);
	x->p->r = r;
	x->by_frame = agree;
	return agree || cpus_of(x) > 1;
}

/* ---- why a zone was left ---- */

/* Pages that one refill brings at most. */
static s64 refill_of(const struct exhaustion *x, const struct zone *z)
{
	u32 blocks = z->pcp_batch >> x->order;

	if (!pcp_has_order(&x->p->b->e->st->layout, x->order))
		return 1 << x->order;
	return (s64)(blocks > 2 ? blocks : 2) << x->order;
}

static u32 class_of(u32 gfp)
{
	if (gfp & __GFP_DMA)
		return ZONE_DMA;
	if (gfp & __GFP_HIGHMEM)
		return gfp & __GFP_MOVABLE ? ZONE_MOVABLE : ZONE_HIGHMEM;
	return ZONE_NORMAL;
}

/* May it not dip into what is kept for those that cannot wait? */
static bool is_patient(const struct exhaustion *x)
{
	return x->gfp & (__GFP_NOMEMALLOC | __GFP_DIRECT_RECLAIM);
}

/* The mark of a sweep as this request sees it, of a zone with that boost. */
static s64 mark_of(const struct exhaustion *x, const struct zone *z, u32 sweep, u32 boost)
{
	bool urgent = sweep == EXIT_MIN && x->gfp & __GFP_HIGH;
	s64 mark = z->mark[sweep == EXIT_LOW ? MARK_LOW : MARK_MIN];

	if (!(sweep == EXIT_MIN && !x->order && x->gfp & __GFP_ATOMIC))
		mark += boost;
	mark -= urgent ? mark / 2 : 0;
	mark -= urgent && !is_patient(x) ? mark / 4 : 0;
	return mark + z->reserve[class_of(x->gfp)];
}

/* Blocks that this request could have had. HIGHATOMIC ones are for those that cannot wait;
 * not for the sweep without marks. */
static u32 blocks_left(const struct exhaustion *x, const struct zone *z)
{
	bool urgent = !is_patient(x) && !(x->gfp & __GFP_MEMALLOC);
	u32 types = urgent ? MIGRATE_HIGHATOMIC + 1 : MIGRATE_HIGHATOMIC;
	u32 blocks = z->frontier.blocks;

	for (u32 order = x->order; order < NR_ORDERS; order++)
		for (u32 type = 0; type < types; type++)
			blocks += z->free_list[order][type].nr;
	return blocks;
}

/* The machine is where Linux was. A refill may have raised the boost, and the count lags by
 * what the CPU keeps. */
static enum exit_kind exit_of(const struct exhaustion *x, const json_t *s)
{
	u32 number = json_u32(s, "z") % NR_ZONES, boost = json_u32(s, "boost");
	const struct zone *z = &x->p->b->e->st->frames.zone[number];
	s64 slack = refill_of(x, z) + (s64)z->stat_threshold * cpus_of(x);

	for (u32 sweep = EXIT_LOW; sweep <= EXIT_MIN; sweep++) {
		s64 free = json_s64(s, "free") - ((1 << x->order) - 1);

		if (sweep == EXIT_LOW || (is_patient(x) && !(x->gfp & __GFP_HIGH)))
			free -= json_s64(s, "ha");
		if (free <= mark_of(x, z, sweep, boost) &&
		    free + slack > mark_of(x, z, sweep, x->boost[number]))
			return sweep;
	}
	return blocks_left(x, z) ? EXIT_UNEXPLAINED : EXIT_EMPTY;
}

static bool explain_exit(struct exhaustion *x, const char *line, s64 zone, const json_t *zones)
{
	const json_t *s;
	size_t i;

	json_array_foreach (zones, i, s) {
		enum exit_kind kind = exit_of(x, s);

		if (json_s64(s, "z") != zone)
			continue;
		x->p->r->compared++;
		if (kind == EXIT_UNEXPLAINED)
			return player_differs(
			    x->p, line,
			    "zone %" PRId64 " was left at %" PRId64 " free pages; LOW is %" PRId64
			    " and MIN %" PRId64 " for this request",
			    zone, json_s64(s, "free"),
			    mark_of(x, zone_of(x, (u32)zone), EXIT_LOW, json_u32(s, "boost")),
			    mark_of(x, zone_of(x, (u32)zone), EXIT_MIN, json_u32(s, "boost")));
		x->exits[kind]++;
		x->p->r->agreed++;
	}
	return true;
}

/* ---- lines ---- */

static bool take_one(struct exhaustion *x, const char *line)
{
	struct player *p = x->p;

	p->r->compared++;
	x->zone = x->pfn = -1;
	if (box_op(p->b, OP_ALLOC_PAGES, x->gfp, x->order) != STATUS_OK)
		return true;
	x->pfn = (s64)p->b->res.values[0];
	x->zone = (s64)p->b->res.values[1];
	if (x->nr == x->room) {
		u32 room = x->room ? x->room * 2 : 65536;
		u32 *pfns = realloc(x->pfns, room * sizeof *pfns);

		if (!pfns)
			return player_differs(p, line, "no memory for what the machine gave");
		x->pfns = pfns;
		x->room = room;
	}
	x->pfns[x->nr++] = (u32)x->pfn;
	return true;
}

static bool play_begin(struct exhaustion *x, const char *line, const json_t *object)
{
	const json_t *zones = json_object_get(object, "s"), *s;
	size_t i;

	x->gfp = (u32)json_hex(object, "gfp");
	x->order = json_u32(object, "order");
	x->nr = 0;
	x->by_frame = true;
	if (x->experiments++)
		json_array_foreach (zones, i, s)
			adopt(x, s);
	return counters_agree(x, line, zones) && take_one(x, line);
}

/* What holds of a zone when it is left. */
static bool zone_differs(struct exhaustion *x, const char *line, s64 zone, u32 nr)
{
	const struct zone *z = zone_of(x, (u32)zone);

	return player_differs(
	    x->p, line,
	    "after %u blocks of the run the next is frame %" PRId64 " of zone %" PRId64
	    "; zone %" PRId64 " has nr_free %d, min %u low %u, boost %u, reserves %u %u %u %u, "
	    "highatomic %u",
	    nr, x->pfn, x->zone, zone, (int)z->free, z->mark[MARK_MIN], z->mark[MARK_LOW], z->boost,
	    z->reserve[0], z->reserve[1], z->reserve[2], z->reserve[3], z->highatomic);
}

/* A frame is another. In the first experiment that is a difference; later others may have
 * rearranged the lists, and other CPUs may fold their differences in the middle of one. */
static bool frame_differs(struct exhaustion *x)
{
	bool may = x->experiments > 1 || cpus_of(x) > 1;

	x->by_frame = x->by_frame && !may;
	return !may;
}

/* How far a run may be from the recorded length: a refill, what boosts differ by, and what
 * other CPUs may have folded meanwhile. */
static u32 tolerance(struct exhaustion *x, s64 zone)
{
	const struct zone *z = zone_of(x, (u32)zone);
	u32 recorded = x->boost[zone % NR_ZONES];
	u32 boosts = z->boost > recorded ? z->boost - recorded : recorded - z->boost;
	u32 pages = (u32)refill_of(x, z) + boosts + z->stat_threshold * (cpus_of(x) - 1);

	return x->by_frame ? 0 : pages >> x->order;
}

/* Linux took n blocks in a row from one zone; the one after them came from another. */
static bool play_run(struct exhaustion *x, const char *line, const json_t *run)
{
	s64 zone = json_s64(run, "z"), last = x->pfn;
	u32 n = json_u32(run, "n"), nr = 0, most;
	const json_t *after = json_object_get(run, "after_next");

	if (x->pfn != json_s64(run, "first") && frame_differs(x))
		return zone_differs(x, line, zone, 0);
	for (; x->zone == zone && (nr < n || !x->by_frame); nr++) {
		last = x->pfn;
		x->p->r->agreed++;
		if (!take_one(x, line))
			return false;
	}
	if ((nr < n || x->zone == zone || last != json_s64(run, "last")) && frame_differs(x))
		return zone_differs(x, line, zone, nr);
	while (x->zone == zone) {
		nr++;
		x->p->r->agreed++;
		if (!take_one(x, line))
			return false;
	}
	if (!explain_exit(x, line, zone, after))
		return false;
	remember_boosts(x, after);
	most = tolerance(x, zone);
	if (nr + most < n || n + most < nr)
		return zone_differs(x, line, zone, nr);
	return counters_agree(x, line, after);
}

/* The newest first, as the recorder's list had them. */
static bool play_freed(struct exhaustion *x, const char *line, const json_t *freed)
{
	while (x->nr) {
		u32 status =
		    box_run(x->p->b, &(struct engine_op){.code = OP_FREE_PAGES,
							 .cpu = x->p->b->cpu,
							 .args = {x->pfns[--x->nr], x->order}});

		x->p->r->compared++;
		if (status != STATUS_OK)
			return player_differs(x->p, line, "status %u for frame %u", status,
					      x->pfns[x->nr]);
		x->p->r->agreed++;
	}
	x->by_zone += !x->by_frame;
	return counters_agree(x, line, json_object_get(freed, "s"));
}

static bool play_failure(struct exhaustion *x, const char *line, const json_t *object)
{
	if (x->zone != -1 || (x->by_frame && x->nr != json_u32(object, "total")))
		return player_differs(x->p, line, "after %u blocks the next is of zone %" PRId64,
				      x->nr, x->zone);
	x->p->r->agreed++; /* the allocation that failed */
	return counters_agree(x, line, json_object_get(object, "s"));
}

static bool play_drain(struct exhaustion *x, const char *line, const json_t *object)
{
	(void)line, (void)object;
	box_op(x->p->b, OP_DRAIN_PCP, 1);
	return true;
}

static const struct {
	const char *type;
	bool (*play)(struct exhaustion *x, const char *line, const json_t *object);
} lines[] = {
    {"drain", play_drain},  {"exh", play_begin},   {"run", play_run},
    {"fail", play_failure}, {"freed", play_freed},
};

enum { NR_LINES = sizeof lines / sizeof lines[0] };

bool exhaustion_has(const char *type)
{
	for (u32 i = 0; i < NR_LINES; i++)
		if (strcmp(type, lines[i].type) == 0)
			return true;
	return false;
}

bool exhaustion_play(struct exhaustion *x, const char *type, const char *line, const json_t *object)
{
	for (u32 i = 0; i < NR_LINES; i++)
		if (strcmp(type, lines[i].type) == 0)
			return lines[i].play(x, line, object);
	return true;
}

bool exhaustion_begun(const struct exhaustion *x)
{
	return x->experiments > 0;
}

/* Others ran since the last experiment. If they left the lists alone, these are the
 * same, block by block; which says of all that came before that it was exact. */
bool exhaustion_end(struct exhaustion *x, const char *line, const json_t *object)
{
	struct conformance_report *r = x->p->r, attempt = {0};
	struct zone *z = zone_of(x, json_u32(object, "z"));
	s32 diff = (s32)json_s64(object, "nr_free_diff");

	z->free += z->pcp[0].free_diff - diff;
	z->pcp[0].free_diff = diff;
	x->p->r = &attempt;
	x->ends++;
	x->same_ends += player_dump_agrees(x->p, line, object);
	x->p->r = r;
	return true;
}

void exhaustion_free(struct exhaustion *x)
{
	if (!x)
		return;
	if (x->experiments) {
		note(x->p->r,
		     "%u experiments, %u of them by frame and %u by zone; exits: %u at LOW, %u at "
		     "MIN, %u with nothing left",
		     x->experiments, x->experiments - x->by_zone, x->by_zone, x->exits[EXIT_LOW],
		     x->exits[EXIT_MIN], x->exits[EXIT_EMPTY]);
		note(x->p->r,
		     "adopted between experiments: %u folded differences, %u boosts, %u pages of "
		     "others; at the end %u of %u zones the same, list by list",
		     x->folds, x->boosts, x->others, x->same_ends, x->ends);
	}
	free(x->pfns);
	free(x);
}
