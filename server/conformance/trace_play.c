/*
 * trace_play.c - plays a trace once, as it is told and as it was adopted so far.
 *
 * A free of a frame that the trace has not seen allocated is performed: the loaded state
 * knows the frame as somebody's.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "frames/buddy.h"
#include "frames/page.h"
#include "frames/pcp.h"
#include "frames/zone_access.h"
#include "trace.h"

static bool load_state(struct box *b, const char *folder, struct conformance_report *r)
{
	struct state_words *words = calloc(1, sizeof *words);
	struct lines *lines = lines_open_in(folder, "state-begin.jsonl");
	const char *line;
	bool ok = words && lines;

	if (ok) {
		words->send = box_load;
		words->user = b;
	}
	while (ok && (line = lines_next(lines))) {
		json_t *object = json_loads(line, 0, NULL);
		const char *type = json_string_value(json_object_get(object, "t"));

		if (type && strcmp(type, "state") == 0)
			state_words_add(words, object);
		json_decref(object);
	}
	if (!ok)
		differs(
		    r,
		    "%s has no state-begin.jsonl: a trace is compared from the exact state at its "
		    "beginning (zonectl import --fresh replays one without)",
		    folder);
	else if (!state_words_finish(words))
		ok = differs(r, "%s: the machine refused state-begin", folder);
	lines_close(lines);
	free(words);
	return ok;
}

struct box *trace_box(const char *folder, struct conformance_report *r)
{
	struct box *b = box_new_from(folder, r);

	if (b && !load_state(b, folder, r)) {
		box_free(b);
		return NULL;
	}
	return b;
}

/* ---- kswapd ---- */

/* So long it dozes when it has nothing left to do; then it sleeps. */
enum { KSWAPD_DOZES_US = 100000 };

static void kswapd_wakes(struct trace *t, struct box *b, u64 now_us)
{
	if (!t->course.awake_until_us) {
		t->course.awake++;
		box_set_kswapd(b, true);
	}
	t->course.awake_until_us = now_us + KSWAPD_DOZES_US;
}

static void kswapd_sleeps(struct trace *t, struct box *b)
{
	t->course.awake_until_us = 0;
	box_set_kswapd(b, false);
}

/* ---- one op ---- */

static bool is_held(const struct trace *t, size_t op)
{
	for (u32 i = 0; i < t->nr_holds; i++)
		if (op >= t->holds[i].given && op + 1 < t->holds[i].release)
			return true;
	return false;
}

void trace_take_boosts_back(struct trace *t, struct box *b, size_t op)
{
	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		if (!b->e->st->frames.zone[zone].boost)
			continue;
		if (is_held(t, op)) {
			t->course.last_boost = op;
			continue;
		}
		box_op(b, OP_UNBOOST_ZONE, zone);
		t->course.boosts++;
		t->course.last_boost = op;
		kswapd_wakes(t, b, t->ops[op].op.time_us);
	}
}

u32 trace_play_op(struct trace *t, struct box *b, const struct kmem_op *op)
{
	const struct engine_op request = {
	    .code = op->is_alloc ? OP_ALLOC_PAGES : OP_FREE_PAGES,
	    .cpu = op->cpu < b->e->st->layout.cpus ? op->cpu : 0,
	    .args = {op->is_alloc ? op->gfp & ~(t->tries ? __GFP_ZERO : 0U) : op->pfn, op->order},
	};

	if (t->course.awake_until_us && op->time_us >= t->course.awake_until_us)
		kswapd_sleeps(t, b);
	return box_run(b, &request);
}

static bool op_agrees(struct box *b, const struct kmem_op *op, u32 status)
{
	if (!op->is_alloc)
		return status == STATUS_OK;
	if (!op->pfn)
		return status == STATUS_NO_MEMORY;
	return status == STATUS_OK && b->res.values[0] == op->pfn;
}

/* Is this block on the lists of some CPU? */
static bool is_listed(const struct engine *e, pfn_t pfn, u32 order)
{
	const struct page *p = &e->mem_map[pfn];

	return (p->flags & PAGE_HEAD) && page_state(p) == FRAME_PCP && page_order(p) == order;
}

/* The list of this CPU that such a block is on, if it is on one of this CPU's. */
static struct pfn_list *list_of(const struct engine *e, u32 zone, u32 cpu, pfn_t pfn, u32 order)
{
	u32 type = page_type(&e->mem_map[pfn]);
	u32 list = pcp_list_of(order, type < NR_PCP_TYPES ? type : MIGRATE_MOVABLE);

	return &e->st->frames.zone[zone].pcp[cpu].list[list];
}

/* A block goes from its list to the buddy. */
static void leave_list(struct engine *e, u32 zone, u32 cpu, pfn_t pfn, u32 order)
{
	struct page *p = &e->mem_map[pfn];
	u32 type = page_type(p);

	list_remove(e->mem_map, list_of(e, zone, cpu, pfn, order), pfn);
	e->st->frames.zone[zone].pcp[cpu].count -= pages_of_order(order);
	p->flags = 0;
	e->op_cpu = cpu;
	buddy_free(e, zone, pfn, order, type, FREE_NATURAL);
	zone_add_free(e, zone, (s32)pages_of_order(order));
}

static u32 cpu_of(const struct engine *e, const struct kmem_op *op)
{
	return op->cpu < e->st->layout.cpus ? op->cpu : 0;
}

/* A free past the CPU's lists: it neither counts there nor makes them overflow. Blocks of
 * other orders never go there. */
static u32 play_past_lists(struct trace *t, struct box *b, const struct kmem_op *op)
{
	struct engine *e = b->e;
	u32 cpu = cpu_of(e, op), zone = frame_zone(e, op->pfn), status;
	struct zone *z = &e->st->frames.zone[zone];
	u32 high = z->pcp_high, free_factor = z->pcp[cpu].free_factor;

	z->pcp_high = UINT32_MAX;
	z->pcp[cpu].free_factor = 0;
	status = trace_play_op(t, b, op);
	z->pcp_high = high;
	z->pcp[cpu].free_factor = free_factor;
	if (is_listed(e, op->pfn, op->order))
		leave_list(e, zone, cpu, op->pfn, op->order);
	return status;
}

/* What Linux drained after this op, and the machine did not on its own. */
static void follow_drains(struct trace *t, struct box *b, const struct trace_op *op)
{
	struct engine *e = b->e;
	u32 cpu = cpu_of(e, &op->op);

	for (size_t i = op->first_drained; i; i = t->drained[i - 1].next) {
		const struct drained *d = &t->drained[i - 1];
		u32 zone;

		if (d->pfn >= t->layout.max_pfn || !is_listed(e, d->pfn, d->order))
			continue;
		zone = frame_zone(e, d->pfn);
		if (list_of(e, zone, cpu, d->pfn, d->order)->last != d->pfn)
			continue;
		leave_list(e, zone, cpu, d->pfn, d->order);
		t->course.followed++;
	}
}

/* Of the pageblocks that this allocation is going to take from: their types. */
static void before_stealing(struct trace *t, struct engine *e, const struct trace_op *op)
{
	for (size_t i = op->first_stolen; i; i = t->stolen[i - 1].next) {
		struct stolen *s = &t->stolen[i - 1];

		if (s->told.pfn < t->layout.max_pfn)
			s->before = (u8)pageblock_type(e, frame_zone(e, s->told.pfn), s->told.pfn);
	}
}

/* And afterwards they are what Linux says. */
static void after_stealing(struct trace *t, struct engine *e, const struct trace_op *op)
{
	for (size_t i = op->first_stolen; i; i = t->stolen[i - 1].next) {
		const struct stolen *s = &t->stolen[i - 1];
		u32 type = s->told.owned ? s->told.migratetype : s->before, zone;

		if (s->told.pfn >= t->layout.max_pfn || type >= MIGRATE_ISOLATE)
			continue;
		zone = frame_zone(e, s->told.pfn);
		if (pageblock_type(e, zone, s->told.pfn) == type)
			continue;
		pageblock_set_type(e, zone, s->told.pfn, type);
		t->course.retyped++;
	}
}

/* What these CPUs keep goes to the zones' counts. */
static void fold_counts(struct engine *e, u32 cpus)
{
	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		struct zone *z = &e->st->frames.zone[zone];

		for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++) {
			if (!(cpus >> cpu & 1))
				continue;
			z->free += z->pcp[cpu].free_diff;
			z->pcp[cpu].free_diff = 0;
		}
		zone_check_marks(e, zone);
	}
}

/* How many pages this CPU's part of a zone's count can give to the count (or take from it,
 * if negative) without being more than a CPU may keep. */
static s32 can_shift(const struct zone *z, u32 cpu, s32 pages)
{
	s32 most = (s32)z->stat_threshold, diff = z->pcp[cpu].free_diff;
	s32 room = pages > 0 ? diff + most : diff - most;

	if ((pages > 0) != (room > 0))
		return 0;
	return (pages > 0) == (pages < room) ? pages : room;
}

static void shift_counts(struct engine *e, struct shift shift)
{
	struct zone *z = zone_at(e, shift.zone);

	for (u32 cpu = 0; cpu < e->st->layout.cpus && shift.pages; cpu++) {
		s32 pages = can_shift(z, cpu, shift.pages);

		z->free += pages;
		z->pcp[cpu].free_diff -= pages;
		shift.pages -= pages;
	}
	zone_check_marks(e, shift.zone);
}

/* ---- where it differs ---- */

/* Was this a free that may have gone past the lists? Under a lock preemption is disabled. */
static bool is_suspect(const struct trace *t, const struct engine *e, const struct trace_op *o)
{
	return o->op.in_irq && !o->op.is_alloc && !o->past_lists && !o->left_list &&
	       (o->op.depth || !t->knows_context) && pcp_has_order(&t->layout, o->op.order) &&
	       o->op.pfn < t->layout.max_pfn && o->op.pfn != t->difference.given &&
	       !is_listed(e, o->op.pfn, o->op.order);
}

/* At op `at`: which blocks that interrupts freed are on no list any more, without an
 * allocation here and a drain there? */
static void find_suspects(struct trace *t, const struct box *b, size_t at)
{
	struct trace_difference *d = &t->difference;

	if (!t->nr_drained)
		return;
	memset(t->last_free, 0, t->layout.max_pfn * sizeof *t->last_free);
	for (size_t i = 0; i < at; i++)
		if (t->ops[i].op.pfn < t->layout.max_pfn)
			t->last_free[t->ops[i].op.pfn] = i + 1;
	for (size_t i = 0; i < at && d->nr_suspects < TRACE_MAX_SUSPECTS; i++)
		if (is_suspect(t, b->e, &t->ops[i]) && t->last_free[t->ops[i].op.pfn] == i + 1)
			d->suspect[d->nr_suspects++] = i;
}

/* Of the higher of two zones the count decides which one serves: Linux's was above where
 * this one was not, or the other way. How far may it have been from this one? */
static void find_shifts(struct trace_difference *d, const struct engine *e, u32 ours, u32 theirs)
{
	u32 zone = ours > theirs ? ours : theirs;
	s32 direction = theirs > ours ? 1 : -1, most = 0;

	for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++)
		most += can_shift(zone_at(e, zone), cpu, direction * INT16_MAX);
	d->least = (struct shift){direction, zone};
	d->most = (struct shift){most, zone};
}

static void note_difference(struct trace *t, struct box *b, size_t at)
{
	struct trace_difference *d = &t->difference;
	const struct kmem_op *op = &t->ops[at].op;
	pfn_t max = t->layout.max_pfn;

	d->given = op->is_alloc ? (pfn_t)b->res.values[0] : 0;
	d->between_zones = d->given && d->given < max && op->pfn < max &&
			   frame_zone(b->e, d->given) != frame_zone(b->e, op->pfn);
	if (d->between_zones)
		find_shifts(d, b->e, frame_zone(b->e, d->given), frame_zone(b->e, op->pfn));
	find_suspects(t, b, at);
}

/* ---- all of it ---- */

void trace_start(struct trace *t)
{
	t->course = (struct trace_course){.last_boost = SIZE_MAX};
}

size_t trace_play(struct trace *t, struct box *b, size_t until, struct conformance_report *r)
{
	t->difference = (struct trace_difference){0};
	for (size_t i = t->course.op; i < until; i++) {
		const struct trace_op *o = &t->ops[i];
		u32 status;

		if (o->folds)
			fold_counts(b->e, o->folds);
		if (o->shift.pages)
			shift_counts(b->e, o->shift);
		before_stealing(t, b->e, o);
		status = (o->past_lists ? play_past_lists : trace_play_op)(t, b, &o->op);
		if (!op_agrees(b, &o->op, status)) {
			note_difference(t, b, i);
			differs(
			    r,
			    "%s order %u gfp 0x%x (the trace's op %zu): status %u, frame 0x%" PRIx64
			    "; Linux: frame 0x%x\n  shortest prefix: its first %zu ops",
			    o->op.is_alloc ? "allocation" : "free", o->op.order, o->op.gfp, i,
			    status, o->op.is_alloc ? (u64)b->res.values[0] : (u64)o->op.pfn,
			    o->op.pfn, i + 1);
			return i;
		}
		if (o->op.is_alloc || t->nr_holds)
			trace_take_boosts_back(t, b, i);
		after_stealing(t, b->e, o);
		follow_drains(t, b, o);
		t->course.op = i + 1;
	}
	if (until == t->nr)
		find_suspects(t, b, until);
	return until;
}
