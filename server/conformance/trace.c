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
 * An interrupt that finds its CPU's lists locked frees to the buddy, past them. Where an
 * allocation differs because it gets a block that an interrupt freed, that free is tried so.
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

enum { MAX_HOLDS = 64, MAX_MOVED = 64, MAX_PAST_LISTS = 256 };

/* A boost that kswapd left for a while: from after op `given` to before op `release`. */
struct hold {
	size_t given, release;
};

struct trace {
	struct kmem_op *ops;
	bool *past_lists; /* by op: a free that went to the buddy at once */
	size_t nr, room;
	u64 allocs, frees, unknown, boosts;
	u8 *allocated; /* by frame: order + 1 of the block that the trace saw allocated there */
	u32 nr_frames;
	struct hold holds[MAX_HOLDS]; /* ascending, apart */
	u32 nr_holds;
	pfn_t given; /* where it differed last: what the machine gave */
	u32 nr_past_lists;
	u32 nr_moved;	   /* allocations that were played before an interrupt's events */
	size_t last_boost; /* the op that gave the last one; SIZE_MAX: none did */
};

static bool keep(struct trace *t, const struct kmem_op *op)
{
	if (t->nr == t->room) {
		size_t room = t->room ? t->room * 2 : 1 << 16;
		struct kmem_op *ops = realloc(t->ops, room * sizeof *ops);

		if (!ops)
			return false;
		t->ops = ops;
		t->room = room;
	}
	t->ops[t->nr++] = *op;
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
	struct kmem_ops *k = kmem_span_read(folder, &span) ? kmem_ops_new(&span) : NULL;
	const struct kmem_counts *counts;
	const char *line;
	bool ok = lines && k;

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

/* The block that was freed last goes on to the buddy, as if it had never been on the CPU's
 * list. Blocks of other orders never are. */
static void take_past_lists(struct box *b, const struct kmem_op *op)
{
	struct engine *e = b->e;
	u32 zone = frame_zone(e, op->pfn), cpu = op->cpu < e->st->layout.cpus ? op->cpu : 0;
	struct pcp *pcp = &e->st->frames.zone[zone].pcp[cpu];
	struct page *p = &e->mem_map[op->pfn];
	u32 type = page_type(p), list;

	if (!(p->flags & PAGE_HEAD) || page_state(p) != FRAME_PCP || page_order(p) != op->order)
		return;
	list = pcp_list_of(op->order, type < NR_PCP_TYPES ? type : MIGRATE_MOVABLE);
	list_remove(e->mem_map, &pcp->list[list], op->pfn);
	pcp->count -= pages_of_order(op->order);
	p->flags = 0;
	e->op_cpu = cpu;
	buddy_free(e, zone, op->pfn, op->order, type, FREE_NATURAL);
	zone_add_free(e, zone, (s32)pages_of_order(op->order));
}

/* Plays from the machine's beginning; returns how many ops agreed. */
static size_t play(struct trace *t, struct box *b, struct conformance_report *r)
{
	t->allocs = t->frees = t->unknown = t->boosts = 0;
	t->last_boost = SIZE_MAX;
	memset(t->allocated, 0, t->nr_frames);
	for (size_t i = 0; i < t->nr; i++) {
		const struct kmem_op *op = &t->ops[i];
		u32 status = play_op(t, b, op);

		if (t->past_lists && t->past_lists[i])
			take_past_lists(b, op);
		if (!op_agrees(b, op, status)) {
			t->given = op->is_alloc ? (pfn_t)b->res.values[0] : 0;
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
	}
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
	struct kmem_op op = t->ops[from];

	memmove(&t->past_lists[to + 1], &t->past_lists[to], from - to);
	t->past_lists[to] = false;
	memmove(&t->ops[to + 1], &t->ops[to], (from - to) * sizeof op);
	t->ops[to] = op;
}

/* And back. */
static void move_op_back(struct trace *t, size_t from, size_t to)
{
	struct kmem_op op = t->ops[to];

	memmove(&t->past_lists[to], &t->past_lists[to + 1], from - to);
	t->past_lists[from] = false;
	memmove(&t->ops[to], &t->ops[to + 1], (from - to) * sizeof op);
	t->ops[from] = op;
}

/* Where the events of an interrupt begin that are right before this op of a task; its own
 * place if there are none. */
static size_t before_interrupt(const struct trace *t, size_t at)
{
	size_t to = at;

	if (!t->ops[at].is_alloc || t->ops[at].in_irq)
		return at;
	while (to > 0 && t->ops[to - 1].in_irq && t->ops[to - 1].cpu == t->ops[at].cpu)
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
	while (at-- > 0)
		if (t->ops[at].pfn == pfn)
			return t->ops[at].in_irq && !t->ops[at].is_alloc && !t->past_lists[at]
				   ? at
				   : SIZE_MAX;
	return SIZE_MAX;
}

/* How far it goes with the free at `freed` past the lists. */
static bool try_past_lists(struct trace *t, size_t freed, const char *path,
			   struct conformance_report *r)
{
	if (freed == SIZE_MAX || t->nr_past_lists == MAX_PAST_LISTS)
		return false;
	t->past_lists[freed] = true;
	t->nr_past_lists++;
	if (goes_further(t, path, r))
		return true;
	t->past_lists[freed] = false;
	t->nr_past_lists--;
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

/* Tries what the trace does not tell at its first difference; of two that help, what helps
 * more. False: nothing did. */
static bool goes_otherwise(struct trace *t, const char *path, struct conformance_report *r)
{
	size_t at = r->agreed, to = before_interrupt(t, at);
	size_t freed = freed_by_interrupt(t, at, t->given);
	struct conformance_report before = *r, moved;

	if (!try_before(t, at, path, r))
		return try_past_lists(t, freed, path, r) ||
		       (try_otherwise(t, at) && goes_further(t, path, r));
	moved = *r;
	move_op_back(t, at, to);
	t->nr_moved--;
	*r = before;
	if (try_past_lists(t, freed, path, r) && r->agreed >= moved.agreed)
		return true;
	if (r->agreed != before.agreed) {
		t->past_lists[freed] = false;
		t->nr_past_lists--;
	}
	*r = before;
	return try_before(t, at, path, r);
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
}

void check_trace(const char *path, struct conformance_report *r)
{
	struct trace t = {0};
	struct box *b = begin(path, r);

	if (b && read_trace(&t, path, r)) {
		r->compared = t.nr;
		t.nr_frames = b->e->st->layout.max_pfn;
		t.allocated = calloc(t.nr_frames, 1);
		t.past_lists = calloc(t.nr + 1, sizeof *t.past_lists);
		if (t.allocated && t.past_lists)
			play_as_recorded(&t, b, path, r);
		note(r,
		     "%" PRIu64 " allocations, %" PRIu64 " frees (%" PRIu64
		     " of frames from before), boost taken back at once %" PRIu64
		     " times and kept %u times; %u allocations before an interrupt's events, "
		     "%u frees past the CPU's lists",
		     t.allocs, t.frees, t.unknown, t.boosts, t.nr_holds, t.nr_moved,
		     t.nr_past_lists);
	}
	free(t.past_lists);
	free(t.allocated);
	free(t.ops);
	box_free(b);
}
