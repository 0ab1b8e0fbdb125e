/*
 * trace.c - a trace of a real workload, from the exact allocator state at its beginning:
 * every allocation gets the frame that Linux gave.
 *
 * First the text is read into ops (proto/recordings/kmem_ops.h has the rules), then the ops are
 * played and timed. A free of a frame that the trace has not seen allocated is performed:
 * the loaded state knows the frame as somebody's. It is counted.
 *
 * When kswapd took a boost back: at once, by rule 3 of kmem_ops.h. This process can see
 * the zones' boosts, so it need not rely on mm_page_alloc_extfrag having been recorded.
 * Where a frame then differs, kswapd may have come later: the boost given last is kept,
 * and taken back before the first op that differs because of that. If the trace agrees
 * further with it, that is how it was; else the difference stands as it first was. The
 * report counts boosts taken back at once and boosts kept.
 *
 * An interrupt may come between taking a block and writing that down: its own events are
 * then before an allocation that happened earlier. Where an allocation differs and events of
 * an interrupt on its CPU are right before it, it is tried before them; counted too.
 *
 * An interrupt that finds its CPU's lists locked frees to the buddy, past them. A trace with
 * the events of the lists tells most of these: a block that the buddy gives next, and that
 * never was drained from a list, was freed past them; that is adopted as it is read. Of a
 * block that merged there is no such event: where an allocation differs, what interrupts
 * freed, what this machine has drained since and Linux has not, is tried past the lists, all
 * of it at once; and when all agrees but for drains. Without those events what is left is a
 * guess: where an allocation gets a block that an interrupt freed, that free is tried so.
 * Each is counted.
 *
 * Each CPU keeps up to a threshold of a zone's count of free pages to itself; the statistics'
 * worker adds that about once a second, which no event tells. Where an allocation gets a
 * frame of another zone, the worker is tried to have come before it, or one of the ops just
 * before; counted.
 *
 * A block that Linux drained, and that is still the oldest of its list here after the op
 * before that event, was drained by something that is no op of this trace (drain_all_pages()
 * of reclaim, compaction or hotplug). It goes to the buddy then, in the trace's order; counted.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "box.h"
#include "frames/buddy.h"
#include "frames/page.h"
#include "frames/pcp.h"
#include "kmem_ops.h"

enum { MAX_HOLDS = 64, MAX_MOVED = 64, MAX_PAST_LISTS = 256, MAX_SUSPECTS = 256, FOLD_REACH = 8 };

/* A boost that kswapd left for a while: from after op `given` to before op `release`. */
struct hold {
	size_t given, release;
};

/* A block that Linux drained from its CPU's list. */
struct drained {
	pfn_t pfn;
	u32 order;
	size_t next; /* after the same op: index + 1 in drained[] */
};

struct trace_op {
	struct kmem_op op;
	size_t first_drained, last_drained; /* after it: index + 1; 0: none */
	bool past_lists;		    /* a free that went to the buddy at once */
	bool left_list;			    /* a free whose block was drained later */
	bool folds;			    /* before it the statistics' worker ran */
};

/* Frees that this machine drained and Linux did not, at a difference: indices of ops. */
struct suspects {
	size_t op[MAX_SUSPECTS];
	u32 nr;
};

struct trace {
	struct trace_op *ops;
	size_t nr, room;
	struct drained *drained;
	size_t nr_drained, drained_room;
	size_t *last_free; /* by frame: index + 1 of the free that nothing has followed yet */
	u64 allocs, frees, unknown, boosts;
	u8 *allocated; /* by frame: order + 1 of the block that the trace saw allocated there */
	u32 nr_frames;
	struct hold holds[MAX_HOLDS]; /* ascending, apart */
	u32 nr_holds;
	/* Where it differed last. */
	pfn_t given; /* what the machine gave */
	bool between_zones;
	struct suspects suspects;
	u32 nr_past_lists, nr_told_past_lists;
	u32 nr_folds;
	u64 followed;	   /* drains that no op of the trace made */
	u32 nr_moved;	   /* allocations that were played before an interrupt's events */
	size_t last_boost; /* the op that gave the last one; SIZE_MAX: none did */
};

/* Makes room for one more; NULL: there is none. */
static void *grow(void *array, size_t nr, size_t *room, size_t size)
{
	void *grown;

	if (nr < *room)
		return array;
	grown = realloc(array, (*room ? *room * 2 : 1 << 16) * size);
	if (grown)
		*room = *room ? *room * 2 : 1 << 16;
	return grown;
}

static bool keep_op(struct trace *t, const struct kmem_op *op)
{
	struct trace_op *ops = grow(t->ops, t->nr, &t->room, sizeof *ops);

	if (!ops)
		return false;
	t->ops = ops;
	t->ops[t->nr++] = (struct trace_op){.op = *op};
	if (op->pfn < t->nr_frames)
		t->last_free[op->pfn] = op->is_alloc ? 0 : t->nr;
	return true;
}

/* The op that a drain came after: the last one of its CPU and context. NULL: none. */
static struct trace_op *op_before(struct trace *t, const struct kmem_op *drain)
{
	for (size_t i = t->nr; i-- > 0;)
		if (t->ops[i].op.cpu == drain->cpu && t->ops[i].op.in_irq == drain->in_irq)
			return &t->ops[i];
	return NULL;
}

static bool keep_drain(struct trace *t, const struct kmem_op *op)
{
	struct drained *drained =
	    grow(t->drained, t->nr_drained, &t->drained_room, sizeof *drained);
	struct trace_op *before = op_before(t, op);

	if (!drained)
		return false;
	t->drained = drained;
	if (!before)
		return true;
	t->drained[t->nr_drained++] = (struct drained){.pfn = op->pfn, .order = op->order};
	if (before->last_drained)
		t->drained[before->last_drained - 1].next = t->nr_drained;
	else
		before->first_drained = t->nr_drained;
	before->last_drained = t->nr_drained;
	return true;
}

static bool keep(struct trace *t, const struct kmem_op *op)
{
	struct trace_op *freed = NULL;

	if (!op->is_drain && !op->is_take)
		return keep_op(t, op);
	if (op->pfn < t->nr_frames && t->last_free[op->pfn]) {
		freed = &t->ops[t->last_free[op->pfn] - 1];
		t->last_free[op->pfn] = 0;
	}
	if (op->is_drain) {
		if (freed)
			freed->left_list = true;
		return keep_drain(t, op);
	}
	if (freed && freed->op.in_irq) {
		freed->past_lists = true;
		t->nr_told_past_lists++;
	}
	return true;
}

static bool drain(struct trace *t, struct kmem_ops *k)
{
	struct kmem_op op;

	while (kmem_ops_next(k, &op))
		if (!keep(t, &op))
			return false;
	return true;
}

static bool read_trace(struct trace *t, const char *folder, struct conformance_report *r)
{
	struct lines *lines = lines_open_in(folder, "kmem.trace");
	struct kmem_span span;
	bool known = kmem_span_read(folder, &span);
	const struct kmem_counts *counts;
	struct kmem_ops *k;
	const char *line;
	bool ok;

	span.with_lists = true;
	k = known ? kmem_ops_new(&span) : NULL;
	ok = lines && k;
	if (!ok)
		differs(r,
			"%s: kmem.trace, or the stamps of state-begin and state-end, are not there",
			folder);
	while (ok && (line = lines_next(lines)) && kmem_ops_line(k, line))
		ok = drain(t, k);
	if (ok) {
		kmem_ops_end(k);
		ok = drain(t, k) && !lines_broken(lines);
		counts = kmem_ops_counts(k);
		if (!ok)
			differs(r, "%s: the trace cannot be read to its end", folder);
		if (counts->wrong || counts->unknown_flags)
			note(r, "%" PRIu64 " lines not understood, %" PRIu64 " with unknown flags",
			     counts->wrong, counts->unknown_flags);
	}
	kmem_ops_free(k);
	lines_close(lines);
	return ok;
}

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
	ok = ok && state_words_finish(words);
	if (!ok)
		differs(r, "%s: the machine refused state-begin", folder);
	lines_close(lines);
	free(words);
	return ok;
}

/* ---- playing ---- */

static bool is_held(const struct trace *t, size_t op)
{
	for (u32 i = 0; i < t->nr_holds; i++)
		if (op >= t->holds[i].given && op + 1 < t->holds[i].release)
			return true;
	return false;
}

/* After op number `op`: kswapd takes what it was not too late for. */
static void take_boosts_back(struct trace *t, struct box *b, size_t op)
{
	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		if (!b->e->st->frames.zone[zone].boost)
			continue;
		if (is_held(t, op)) {
			t->last_boost = op;
			continue;
		}
		box_op(b, OP_UNBOOST_ZONE, zone);
		t->boosts++;
		t->last_boost = op;
	}
}

static u32 play_op(struct trace *t, struct box *b, const struct kmem_op *op)
{
	const struct engine_op request = {
	    .code = op->is_alloc ? OP_ALLOC_PAGES : OP_FREE_PAGES,
	    .cpu = op->cpu < b->e->st->layout.cpus ? op->cpu : 0,
	    .args = {op->is_alloc ? op->gfp : op->pfn, op->order},
	};

	if (op->is_alloc) {
		t->allocs++;
		if (op->pfn < t->nr_frames)
			t->allocated[op->pfn] = (u8)(op->order + 1);
	} else {
		t->frees++;
		t->unknown += op->pfn >= t->nr_frames || !t->allocated[op->pfn];
		if (op->pfn < t->nr_frames)
			t->allocated[op->pfn] = 0;
	}
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
	status = play_op(t, b, op);
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

		if (d->pfn >= t->nr_frames || !is_listed(e, d->pfn, d->order))
			continue;
		zone = frame_zone(e, d->pfn);
		if (list_of(e, zone, cpu, d->pfn, d->order)->last != d->pfn)
			continue;
		leave_list(e, zone, cpu, d->pfn, d->order);
		t->followed++;
	}
}

/* What the CPUs keep goes to the zones' counts. */
static void fold_counts(struct engine *e)
{
	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		struct zone *z = &e->st->frames.zone[zone];

		for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++) {
			z->free += z->pcp[cpu].free_diff;
			z->pcp[cpu].free_diff = 0;
		}
		zone_check_marks(e, zone);
	}
}

/* At op `at`: which blocks that interrupts freed are on no list any more, without an
 * allocation here and a drain there? */
static void find_suspects(struct trace *t, const struct box *b, size_t at)
{
	t->suspects.nr = 0;
	if (!t->nr_drained)
		return;
	memset(t->last_free, 0, t->nr_frames * sizeof *t->last_free);
	for (size_t i = 0; i < at; i++)
		if (t->ops[i].op.pfn < t->nr_frames)
			t->last_free[t->ops[i].op.pfn] = i + 1;
	for (size_t i = 0; i < at && t->suspects.nr < MAX_SUSPECTS; i++) {
		const struct trace_op *o = &t->ops[i];

		if (o->op.in_irq && !o->op.is_alloc && !o->past_lists && !o->left_list &&
		    pcp_has_order(&b->e->st->layout, o->op.order) && o->op.pfn < t->nr_frames &&
		    o->op.pfn != t->given && t->last_free[o->op.pfn] == i + 1 &&
		    !is_listed(b->e, o->op.pfn, o->op.order))
			t->suspects.op[t->suspects.nr++] = i;
	}
}

/* Does this difference lie between two zones? */
static bool is_between_zones(const struct trace *t, const struct box *b, const struct kmem_op *op)
{
	return op->is_alloc && t->given && t->given < t->nr_frames && op->pfn < t->nr_frames &&
	       frame_zone(b->e, t->given) != frame_zone(b->e, op->pfn);
}

/* Plays from the machine's beginning; returns how many ops agreed. */
static size_t play(struct trace *t, struct box *b, struct conformance_report *r)
{
	t->allocs = t->frees = t->unknown = t->boosts = t->followed = 0;
	t->last_boost = SIZE_MAX;
	memset(t->allocated, 0, t->nr_frames);
	for (size_t i = 0; i < t->nr; i++) {
		const struct kmem_op *op = &t->ops[i].op;
		u32 status;

		if (t->ops[i].folds)
			fold_counts(b->e);
		status = t->ops[i].past_lists ? play_past_lists(t, b, op) : play_op(t, b, op);

		if (!op_agrees(b, op, status)) {
			t->given = op->is_alloc ? (pfn_t)b->res.values[0] : 0;
			t->between_zones = is_between_zones(t, b, op);
			find_suspects(t, b, i);
			differs(
			    r,
			    "%s order %u gfp 0x%x (the trace's op %zu): status %u, frame 0x%" PRIx64
			    "; Linux: frame 0x%x\n  shortest prefix: its first %zu ops",
			    op->is_alloc ? "allocation" : "free", op->order, op->gfp, i, status,
			    op->is_alloc ? (u64)b->res.values[0] : (u64)op->pfn, op->pfn, i + 1);
			return i;
		}
		if (op->is_alloc || t->nr_holds)
			take_boosts_back(t, b, i);
		follow_drains(t, b, &t->ops[i]);
	}
	t->given = 0;
	find_suspects(t, b, t->nr);
	return t->nr;
}

/* What kswapd may have done otherwise, now that op `at` differs. False: nothing. */
static bool try_otherwise(struct trace *t, size_t at)
{
	struct hold *last = t->nr_holds ? &t->holds[t->nr_holds - 1] : NULL;

	if (last && last->release == SIZE_MAX) {
		last->release = at;
		return at > last->given + 1;
	}
	if (t->last_boost == SIZE_MAX || t->nr_holds == MAX_HOLDS ||
	    (last && t->last_boost < last->release))
		return false;
	t->holds[t->nr_holds++] = (struct hold){t->last_boost, SIZE_MAX};
	return true;
}

static u64 now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
}

/* A machine in the state in which the trace begins. */
static struct box *begin(const char *path, struct conformance_report *r)
{
	struct box *b = box_new_from(path, r);

	if (b && !load_state(b, path, r)) {
		box_free(b);
		return NULL;
	}
	return b;
}

/* Puts op `from` before op `to`, which is not behind it. */
static void move_op(struct trace *t, size_t from, size_t to)
{
	struct trace_op op = t->ops[from];

	memmove(&t->ops[to + 1], &t->ops[to], (from - to) * sizeof op);
	t->ops[to] = op;
}

/* And back. */
static void move_op_back(struct trace *t, size_t from, size_t to)
{
	struct trace_op op = t->ops[to];

	memmove(&t->ops[to], &t->ops[to + 1], (from - to) * sizeof op);
	t->ops[from] = op;
}

/* Where the events of an interrupt begin that are right before this op of a task; its own
 * place if there are none. */
static size_t before_interrupt(const struct trace *t, size_t at)
{
	size_t to = at;

	if (!t->ops[at].op.is_alloc || t->ops[at].op.in_irq)
		return at;
	while (to > 0 && t->ops[to - 1].op.in_irq && t->ops[to - 1].op.cpu == t->ops[at].op.cpu)
		to--;
	return to;
}

/* Plays a machine of its own; true if that went further, and then it is what counts. */
static bool goes_further(struct trace *t, const char *path, struct conformance_report *r)
{
	struct conformance_report again = {0};
	struct box *b = begin(path, &again);
	size_t agreed = b ? play(t, b, &again) : 0;

	box_free(b);
	if (agreed <= r->agreed)
		return false;
	r->agreed = agreed;
	memcpy(r->difference, again.difference, sizeof r->difference);
	return true;
}

/* The last free of this block, if an interrupt made it and it went the usual way; SIZE_MAX:
 * there is none. */
static size_t freed_by_interrupt(const struct trace *t, size_t at, pfn_t pfn)
{
	while (at-- > 0) {
		const struct trace_op *o = &t->ops[at];

		if (o->op.pfn == pfn)
			return o->op.in_irq && !o->op.is_alloc && !o->past_lists && !o->left_list
				   ? at
				   : SIZE_MAX;
	}
	return SIZE_MAX;
}

/* How far it goes with the free at `freed` past the lists. */
static bool try_past_lists(struct trace *t, size_t freed, const char *path,
			   struct conformance_report *r)
{
	if (freed == SIZE_MAX || t->nr_past_lists == MAX_PAST_LISTS)
		return false;
	t->ops[freed].past_lists = true;
	t->nr_past_lists++;
	if (goes_further(t, path, r))
		return true;
	t->ops[freed].past_lists = false;
	t->nr_past_lists--;
	return false;
}

static void set_suspects(struct trace *t, const struct suspects *s, bool past_lists)
{
	for (u32 i = 0; i < s->nr; i++)
		t->ops[s->op[i]].past_lists = past_lists;
	t->nr_past_lists += past_lists ? s->nr : -s->nr;
}

/* How far it goes with all that only this machine drained past the lists. */
static bool try_suspects(struct trace *t, const struct suspects *s, const char *path,
			 struct conformance_report *r)
{
	if (!s->nr || t->nr_past_lists + s->nr > MAX_PAST_LISTS)
		return false;
	set_suspects(t, s, true);
	if (goes_further(t, path, r))
		return true;
	set_suspects(t, s, false);
	return false;
}

/* How far it goes with the allocation at `at` before the interrupt. */
static bool try_before(struct trace *t, size_t at, const char *path, struct conformance_report *r)
{
	size_t to = before_interrupt(t, at);

	if (to == at || t->nr_moved == MAX_MOVED)
		return false;
	move_op(t, at, to);
	t->nr_moved++;
	if (goes_further(t, path, r))
		return true;
	move_op_back(t, at, to);
	t->nr_moved--;
	return false;
}

/* How far it goes with the worker just before an allocation that got another zone's frame. */
static bool try_fold(struct trace *t, size_t at, const char *path, struct conformance_report *r)
{
	for (size_t i = at; i + FOLD_REACH > at; i--) {
		if (t->ops[i].folds)
			break;
		t->ops[i].folds = true;
		t->nr_folds++;
		if (goes_further(t, path, r))
			return true;
		t->ops[i].folds = false;
		t->nr_folds--;
		if (!i)
			break;
	}
	return false;
}

/* Tries what the trace does not tell at its first difference; of two that help, what helps
 * more. False: nothing did. */
static bool goes_otherwise(struct trace *t, const char *path, struct conformance_report *r)
{
	size_t at = r->agreed, to = before_interrupt(t, at);
	size_t freed = freed_by_interrupt(t, at, t->given);
	struct conformance_report before = *r, moved;
	struct suspects suspects = t->suspects;
	bool between_zones = t->between_zones;

	if (try_suspects(t, &suspects, path, r))
		return true;
	if (!try_before(t, at, path, r))
		return try_past_lists(t, freed, path, r) ||
		       (between_zones && try_fold(t, at, path, r)) ||
		       (try_otherwise(t, at) && goes_further(t, path, r));
	moved = *r;
	move_op_back(t, at, to);
	t->nr_moved--;
	*r = before;
	if (try_past_lists(t, freed, path, r) && r->agreed >= moved.agreed)
		return true;
	if (r->agreed != before.agreed) {
		t->ops[freed].past_lists = false;
		t->nr_past_lists--;
	}
	*r = before;
	return try_before(t, at, path, r);
}

/* All agrees, but for drains: an interrupt's free past the lists may have shown in nothing
 * else. Taken so if it agrees still, with fewer drains to follow. */
static void drain_as_recorded(struct trace *t, const char *path, struct conformance_report *r)
{
	struct suspects suspects = t->suspects;
	u64 followed = t->followed;

	r->agreed--;
	if (try_suspects(t, &suspects, path, r)) {
		if (r->agreed == t->nr && t->followed < followed)
			return;
		set_suspects(t, &suspects, false);
	}
	t->followed = followed;
	r->agreed = t->nr;
	*r->difference = 0;
}

/* Once by the rule; then, as long as that goes further, otherwise. */
static void play_as_recorded(struct trace *t, struct box *first, const char *path,
			     struct conformance_report *r)
{
	u64 start = now_ns();

	r->agreed = play(t, first, r);
	r->play_ns = now_ns() - start;
	while (r->agreed < t->nr && goes_otherwise(t, path, r))
		;
	if (r->agreed == t->nr && t->followed)
		drain_as_recorded(t, path, r);
}

/* A trace of this machine, to be read. */
static bool trace_begin(struct trace *t, const struct box *b)
{
	*t = (struct trace){.last_boost = SIZE_MAX, .nr_frames = b->e->st->layout.max_pfn};
	t->allocated = calloc(t->nr_frames, sizeof *t->allocated);
	t->last_free = calloc(t->nr_frames, sizeof *t->last_free);
	return t->allocated && t->last_free;
}

static void trace_end(struct trace *t)
{
	free(t->allocated);
	free(t->last_free);
	free(t->drained);
	free(t->ops);
}

void check_trace(const char *path, struct conformance_report *r)
{
	struct trace t = {0};
	struct box *b = begin(path, r);

	if (b && trace_begin(&t, b) && read_trace(&t, path, r)) {
		r->compared = t.nr;
		play_as_recorded(&t, b, path, r);
		note(r,
		     "%" PRIu64 " allocations, %" PRIu64 " frees (%" PRIu64
		     " of frames from before), boost taken back at once %" PRIu64
		     " times and kept %u times; %u allocations before an interrupt's events, "
		     "%u frees past the CPU's lists told and %u found, %" PRIu64
		     " drains of %zu followed, counts added %u times",
		     t.allocs, t.frees, t.unknown, t.boosts, t.nr_holds, t.nr_moved,
		     t.nr_told_past_lists, t.nr_past_lists, t.followed, t.nr_drained, t.nr_folds);
	}
	trace_end(&t);
	box_free(b);
}
