/*
 * trace.c - a trace of a real workload, from the exact allocator state at its beginning:
 * every allocation gets the frame that Linux gave.
 *
 * First the text is read into ops (recordings/kmem_ops.h has the rules), then the ops are
 * played and timed. A free of a frame that the trace has not seen allocated is performed:
 * the loaded state knows the frame as somebody's. It is counted.
 *
 * When kswapd took a boost back: at once, by rule 3 of kmem_ops.h. This process can see
 * the zones' boosts, so it need not rely on mm_page_alloc_extfrag having been recorded.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "box.h"
#include "kmem_ops.h"

struct trace {
	struct kmem_op *ops;
	size_t nr, room;
	u64 allocs, frees, unknown, boosts;
	u8 *allocated; /* by frame: order + 1 of the block that the trace saw allocated there */
	u32 nr_frames;
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

static void take_boosts_back(struct trace *t, struct box *b)
{
	for (u32 zone = 0; zone < NR_ZONES; zone++)
		if (b->e->st->frames.zone[zone].boost) {
			box_op(b, OP_UNBOOST_ZONE, zone);
			t->boosts++;
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

static void play(struct trace *t, struct box *b, struct conformance_report *r)
{
	r->compared = t->nr;
	for (size_t i = 0; i < t->nr; i++) {
		const struct kmem_op *op = &t->ops[i];
		u32 status = play_op(t, b, op);

		if (!op_agrees(b, op, status)) {
			differs(
			    r,
			    "%s order %u gfp 0x%x (the trace's op %zu): status %u, frame 0x%" PRIx64
			    "; Linux: frame 0x%x\n  shortest prefix: its first %zu ops",
			    op->is_alloc ? "allocation" : "free", op->order, op->gfp, i, status,
			    op->is_alloc ? (u64)b->res.values[0] : (u64)op->pfn, op->pfn, i + 1);
			return;
		}
		r->agreed++;
		if (op->is_alloc)
			take_boosts_back(t, b);
	}
}

static u64 now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
}

void check_trace(const char *path, struct conformance_report *r)
{
	struct trace t = {0};
	struct box *b = box_new_from(path, r);

	if (b && load_state(b, path, r) && read_trace(&t, path, r)) {
		t.nr_frames = b->e->st->layout.max_pfn;
		t.allocated = calloc(t.nr_frames, 1);
		if (t.allocated) {
			u64 begin = now_ns();

			play(&t, b, r);
			r->play_ns = now_ns() - begin;
		}
		note(r,
		     "%" PRIu64 " allocations, %" PRIu64 " frees (%" PRIu64
		     " of frames from before), boost taken back at once %" PRIu64 " times",
		     t.allocs, t.frees, t.unknown, t.boosts);
	}
	free(t.allocated);
	free(t.ops);
	box_free(b);
}
