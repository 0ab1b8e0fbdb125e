/*
 * trace_read.c - a trace's text becomes ops (proto/recordings/kmem_ops.h has the rules), and
 * what the events between them tell is put to the ops that it belongs to.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "frames/pcp.h"
#include "trace.h"

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

static u32 zone_of(const struct trace *t, pfn_t pfn)
{
	u32 zone = 0;

	for (u32 i = 0; i < NR_ZONES - 1; i++)
		zone += pfn >= t->zone_bound[i];
	return zone;
}

/* ---- what was taken from other types ---- */

static bool keep_stolen(struct trace *t, const struct kmem_op *op)
{
	struct stolen *stolen = grow(t->stolen, t->nr_stolen, &t->stolen_room, sizeof *stolen);

	if (!stolen)
		return false;
	t->stolen = stolen;
	t->stolen[t->nr_stolen++] = (struct stolen){.told = *op};
	return true;
}

/* What was taken before this allocation, on its CPU and in its context, is its own. */
static void claim_stolen(struct trace *t, struct trace_op *o)
{
	for (size_t i = t->nr_stolen; i-- > t->nr_claimed;) {
		struct stolen *s = &t->stolen[i];

		if (s->claimed || s->told.cpu != o->op.cpu || s->told.in_irq != o->op.in_irq)
			continue;
		s->claimed = true;
		s->next = o->first_stolen;
		o->first_stolen = i + 1;
	}
	while (t->nr_claimed < t->nr_stolen && t->stolen[t->nr_claimed].claimed)
		t->nr_claimed++;
}

/* ---- frees past the CPU's lists ---- */

/* It is told that this free went to the buddy at once. */
static void tell_past_lists(struct trace *t, struct trace_op *o)
{
	if (o->past_lists || o->left_list || o->op.is_alloc || !o->op.in_irq ||
	    !pcp_has_order(&t->layout, o->op.order))
		return;
	o->past_lists = true;
	t->nr_told_past_lists++;
}

/* An interrupt between two frees of a batch in one zone found that zone's lists locked. */
static void tell_of_batch(struct trace *t, size_t at)
{
	const struct kmem_op *last = &t->ops[at].op;
	u32 zone = zone_of(t, last->pfn);
	size_t before = at;

	do
		if (!before--)
			return;
	while (t->ops[before].op.cpu != last->cpu || t->ops[before].op.in_irq);
	if (zone_of(t, t->ops[before].op.pfn) != zone)
		return;
	for (size_t i = before + 1; i < at; i++)
		if (t->ops[i].op.cpu == last->cpu && zone_of(t, t->ops[i].op.pfn) == zone)
			tell_past_lists(t, &t->ops[i]);
}

/* The buddy gives a block: what an interrupt freed of it was in the buddy. */
static void tell_of_taken(struct trace *t, const struct kmem_op *taken)
{
	pfn_t end = taken->pfn + pages_of_order(taken->order);

	for (pfn_t pfn = taken->pfn; pfn < end && pfn < t->layout.max_pfn; pfn++) {
		if (t->last_free[pfn])
			tell_past_lists(t, &t->ops[t->last_free[pfn] - 1]);
		t->last_free[pfn] = 0;
	}
}

/* ---- ops ---- */

static void count(struct trace *t, const struct kmem_op *op)
{
	bool inside = op->pfn < t->layout.max_pfn;

	t->allocs += op->is_alloc;
	t->frees += !op->is_alloc;
	t->unknown += !op->is_alloc && !(inside && t->allocated[op->pfn]);
	if (inside)
		t->allocated[op->pfn] = op->is_alloc;
}

static bool keep_op(struct trace *t, const struct kmem_op *op)
{
	struct trace_op *ops = grow(t->ops, t->nr, &t->room, sizeof *ops);

	if (!ops)
		return false;
	t->ops = ops;
	t->ops[t->nr++] = (struct trace_op){.op = *op};
	t->knows_context |= op->depth && !op->in_irq;
	if (op->is_alloc)
		claim_stolen(t, &t->ops[t->nr - 1]);
	if (op->in_batch)
		tell_of_batch(t, t->nr - 1);
	if (op->pfn < t->layout.max_pfn)
		t->last_free[op->pfn] = op->is_alloc ? 0 : t->nr;
	count(t, op);
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

bool trace_keep(struct trace *t, const struct kmem_op *op)
{
	if (op->is_steal)
		return keep_stolen(t, op);
	if (op->is_take) {
		tell_of_taken(t, op);
		return true;
	}
	if (!op->is_drain)
		return keep_op(t, op);
	if (op->pfn < t->layout.max_pfn && t->last_free[op->pfn]) {
		t->ops[t->last_free[op->pfn] - 1].left_list = true;
		t->last_free[op->pfn] = 0;
	}
	return keep_drain(t, op);
}

/* ---- the text ---- */

static bool keep_decided(struct trace *t, struct kmem_ops *k)
{
	struct kmem_op op;

	while (kmem_ops_next(k, &op))
		if (!trace_keep(t, &op))
			return false;
	return true;
}

/* Of a line that is cut off nobody knows how it would go on. */
static bool read_line(struct lines *lines, struct kmem_ops *k, struct conformance_report *r)
{
	const char *line = lines_next(lines);
	struct kmem_event event;

	if (line && lines_cut(lines)) {
		if (kmem_parse(line, &event) != KMEM_LINE_NOISE)
			note(r, "its last line has no end, and is left out");
		line = NULL;
	}
	return line && kmem_ops_line(k, line);
}

bool trace_read(struct trace *t, const char *path, struct conformance_report *r)
{
	char text[4096], folder[4096];
	struct lines *lines = find_trace(path, text, sizeof text) ? lines_open(text) : NULL;
	const struct kmem_counts *counts;
	struct kmem_span span;
	struct kmem_ops *k;
	bool ok;

	folder_of(text, folder, sizeof folder);
	if (!kmem_span_read(folder, &span)) {
		note(r, "no stamp in state-begin: all of the trace");
		span = (struct kmem_span){0};
	}
	span.with_lists = true;
	k = kmem_ops_new(&span);
	ok = lines && k;
	if (!ok)
		differs(r, "%s: there is no trace", path);
	while (ok && read_line(lines, k, r))
		ok = keep_decided(t, k);
	if (ok) {
		kmem_ops_end(k);
		ok = keep_decided(t, k) && !lines_broken(lines);
		counts = kmem_ops_counts(k);
		if (!ok)
			differs(r, "%s: the trace cannot be read to its end", path);
		if (counts->lost)
			note(r, "%" PRIu64 " events were lost by the tracer", counts->lost);
		if (counts->wrong || counts->unknown_flags)
			note(r, "%" PRIu64 " lines not understood, %" PRIu64 " with unknown flags",
			     counts->wrong, counts->unknown_flags);
	}
	kmem_ops_free(k);
	lines_close(lines);
	return ok;
}

bool trace_begin(struct trace *t, const struct box *b)
{
	*t = (struct trace){.layout = b->e->st->layout};
	memcpy(t->zone_bound, b->e->st->frames.zone_bound, sizeof t->zone_bound);
	t->allocated = calloc(t->layout.max_pfn, sizeof *t->allocated);
	t->last_free = calloc(t->layout.max_pfn, sizeof *t->last_free);
	return t->allocated && t->last_free;
}

void trace_end(struct trace *t)
{
	free(t->allocated);
	free(t->last_free);
	free(t->drained);
	free(t->stolen);
	free(t->ops);
}
