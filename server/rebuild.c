/*
 * rebuild.c - see rebuild.h.
 *
 * Invariants:
 *  1. Ops are read in pieces of PIECE_OPS, each one moment of the history: a piece is short
 *     for whoever cancels, and for the WAL's log.
 *  2. Their numbers have no gap. What is read later is not what was read before, but rows
 *     do not change, so the pieces fit together; that one is missing is an error.
 */
#include "rebuild.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_OPS = 16384 };

/* Ops of one machine that led to this one: its own, or an ancestor's. */
struct segment {
	uint64_t machine;
	uint64_t last_op;  /* REBUILD_LAST: all that there are */
	uint64_t first_op; /* those before are forgotten */
};

struct work {
	struct rebuild *b;
	struct history_reader *rd;
	struct segment *segments; /* its own first */
	unsigned nr_segments, max_segments;
	struct engine_config config; /* of the machine; a fork has its ancestors' */
	uint64_t next_op;	     /* to be read */
	uint64_t lost;		     /* ops recorded LOST just before it */
	unsigned nr;		     /* ops read in this piece */
	bool stopped;		     /* the piece is full, or wrong */
	uint64_t limit;		     /* checkpoints behind this op are no good, */
	bool no_checkpoints;	     /* or none is */
	bool has_base;		     /* it began with one, */
	uint64_t base_op;	     /* of this op */
};

static void fail(struct rebuild *b, enum machine_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void fail(struct rebuild *b, enum machine_error error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(b->why, sizeof b->why, format, args);
	va_end(args);
	b->error = error;
}

/* The host's fault and not the record's. */
static void fail_for_now(struct rebuild *b, enum machine_error error, const char *why)
{
	fail(b, error, "%s", why);
	b->may_pass = true;
}

/* ---- where it comes from ---- */

static void add_segment(struct work *w, const struct segment *s)
{
	if (w->nr_segments == w->max_segments) {
		w->max_segments = w->max_segments * 2 + 8;
		w->segments = realloc(w->segments, w->max_segments * sizeof *w->segments);
		if (!w->segments)
			abort();
	}
	w->segments[w->nr_segments++] = *s;
}

/* A fork has a larger number than what it came from, so the way up ends. */
static void find_lineage(struct work *w)
{
	uint64_t machine = w->b->machine, last_op = w->b->op;
	struct engine_config *config = &w->config;
	struct history_machine m;

	do {
		if (history_reader_machine(w->rd, machine, config, &m)) {
			fail_for_now(w->b, MACHINE_E_HISTORY, "the history cannot be read");
			return;
		}
		if (!m.id) {
			fail(w->b, w->nr_segments ? MACHINE_E_HISTORY : MACHINE_E_GONE,
			     "the history knows no machine %" PRIu64, machine);
			return;
		}
		if (m.forked_from >= machine) {
			fail(w->b, MACHINE_E_HISTORY,
			     "machine %" PRIu64 " cannot be a fork of machine %" PRIu64, machine,
			     m.forked_from);
			return;
		}
		add_segment(w, &(struct segment){machine, last_op, m.first_op});
		/* Before it was a machine of its own it was its parent. */
		last_op = m.forked_from && last_op > m.forked_at_op ? m.forked_at_op : last_op;
		machine = m.forked_from;
	} while (machine);
}

/* ---- ops ---- */

/* Lost ops are numbers without an effect once another op follows. */
static bool skip_lost(struct work *w)
{
	struct engine_error why;

	for (; w->lost; w->lost--) {
		if (replica_skip(w->b->replica, &why))
			continue;
		fail(w->b, MACHINE_E_IS_LOST, "%s", why.text);
		return false;
	}
	return true;
}

static bool apply(struct work *w, const struct history_record *h)
{
	struct engine_op op = {.code = h->code,
			       .cpu = h->cpu,
			       .task = h->task,
			       .owner = h->owner,
			       .data = h->data,
			       .data_len = h->data_len};
	struct replica_answer answer = {
	    .status = h->status, .data_len = h->result_len, .data_hash = h->result_hash};
	struct engine_error why;

	memcpy(op.args, h->args, sizeof op.args);
	memcpy(answer.values, h->values, sizeof answer.values);
	if (!skip_lost(w))
		return false;
	if (replica_apply(w->b->replica, &op, &answer, &why))
		return true;
	fail(w->b, MACHINE_E_IS_LOST, "%s", why.text);
	return false;
}

static bool take_op(void *arg, const struct history_record *h)
{
	struct work *w = arg;

	w->stopped = true;
	if (h->op != w->next_op) {
		fail(w->b, MACHINE_E_HISTORY, "the history has no op %" PRIu64, w->next_op);
		return false;
	}
	if (w->nr == PIECE_OPS)
		return false;
	if (h->status == STATUS_LOST)
		w->lost++;
	else if (!apply(w, h))
		return false;
	w->nr++;
	w->next_op++;
	w->stopped = false;
	return true;
}

/* Reads and executes until the segment's end. */
static void run_segment(struct work *w, const struct segment *s)
{
	struct rebuild *b = w->b;
	uint64_t last = s->last_op == REBUILD_LAST ? 0 : s->last_op;
	int error;

	if (s->first_op > 1 && w->next_op < s->first_op && w->next_op <= s->last_op) {
		fail(b, MACHINE_E_PRUNED,
		     "its history begins at op %" PRIu64 ", and no checkpoint is left before it",
		     s->first_op);
		return;
	}
	do {
		if (w->next_op > s->last_op)
			return;
		w->nr = 0;
		w->stopped = false;
		error = history_reader_ops(w->rd, s->machine, w->next_op, last, take_op, w);
		if (error && error != HISTORY_ABORTED && !b->error)
			fail_for_now(b, MACHINE_E_HISTORY,
				     "its ops cannot be read from the history");
		if (atomic_load(&b->cancelled) && !b->error)
			fail(b, MACHINE_E_CANCELLED, "given up");
		atomic_store(&b->progress, w->next_op - 1);
	} while (w->stopped && !b->error);
	if (!b->error && last && w->next_op <= last)
		fail(b, MACHINE_E_NO_OP, "the machine has not come to op %" PRIu64, last);
}

/* The oldest segment that has an op to be executed, from the youngest on. */
static unsigned first_segment(const struct work *w)
{
	unsigned i = w->nr_segments - 1;

	while (i > 0 && w->segments[i].last_op < w->next_op)
		i--;
	return i;
}

struct loading {
	struct replica *replica;
	struct engine_error why;
};

static bool take_piece(void *arg, const uint8_t *data, size_t length)
{
	struct loading *l = arg;

	return replica_load_piece(l->replica, data, length, &l->why);
}

static void note(struct rebuild *b, uint64_t op, const char *why)
{
	snprintf(b->note, sizeof b->note, "at op %" PRIu64 ": %.180s", op, why);
}

/* A checkpoint as a replica; NULL with a note. */
static struct replica *load(struct work *w, const struct history_checkpoint *c)
{
	struct loading l = {.why = {"its pieces cannot be read"}};
	struct engine_digest digest;

	l.replica = replica_load_begin(&w->config, &l.why);
	if (l.replica && !history_reader_pieces(w->rd, c, take_piece, &l) &&
	    replica_load_end(l.replica, c->parked, c->nr_parked, c->owners, &l.why)) {
		digest = replica_digest(l.replica);
		if (replica_op(l.replica) == c->op &&
		    memcmp(&digest, &c->digest, sizeof digest) == 0)
			return l.replica;
		snprintf(l.why.text, sizeof l.why.text, "its digest is another");
	}
	replica_free(l.replica);
	note(w->b, c->op, l.why.text);
	return NULL;
}

/* The nearest checkpoint that is good, of the machine or else of an ancestor. */
static struct replica *find_base(struct work *w)
{
	for (unsigned i = 0; i < w->nr_segments && !w->no_checkpoints; i++) {
		const struct segment *s = &w->segments[i];
		uint64_t limit = s->last_op < w->limit ? s->last_op : w->limit;

		for (bool more = true; more;) {
			struct history_checkpoint c;
			struct replica *r = NULL;
			uint64_t *parked;

			if (history_reader_checkpoint(w->rd, s->machine, limit, &c, &parked) ||
			    !c.machine)
				break;
			r = load(w, &c);
			free(parked);
			if (r) {
				w->has_base = true;
				w->base_op = c.op;
				return r;
			}
			more = c.op > 0;
			limit = c.op - 1;
		}
	}
	return NULL;
}

static void begin(struct work *w)
{
	struct rebuild *b = w->b;
	struct engine_error why;

	w->has_base = false;
	w->lost = 0;
	if (!b->replica && !b->from_start)
		b->replica = find_base(w);
	if (!b->replica)
		b->replica = replica_new(&w->config, &why);
	if (b->replica)
		w->next_op = replica_op(b->replica) + 1;
	else
		/* The engine took this configuration once: what is missing is memory. */
		fail_for_now(b, MACHINE_E_CONFIG, why.text);
	atomic_store(&b->progress, w->next_op - 1);
}

/* What was recorded does not follow from the checkpoint: one of them is wrong, and it may be
 * the checkpoint. True: try again without it. */
static bool go_back(struct work *w)
{
	struct rebuild *b = w->b;

	if ((b->error != MACHINE_E_IS_LOST && b->error != MACHINE_E_HISTORY) || !w->has_base)
		return false;
	note(b, w->base_op, b->why);
	b->error = MACHINE_OK;
	b->may_pass = false;
	replica_free(b->replica);
	b->replica = NULL;
	w->no_checkpoints = w->base_op == 0;
	w->limit = w->base_op - 1;
	return true;
}

static void finish(struct work *w)
{
	struct rebuild *b = w->b;

	if (!b->error && b->stop_at_lost)
		b->lost = w->lost;
	else if (!b->error)
		skip_lost(w);
	if (!b->error)
		return;
	replica_free(b->replica);
	b->replica = NULL;
}

void rebuild_run(struct rebuild *b, struct history_reader *rd)
{
	struct work *w = calloc(1, sizeof *w);

	if (!w)
		abort();
	*w = (struct work){.b = b, .rd = rd, .limit = REBUILD_LAST};
	find_lineage(w);
	while (!b->error) {
		begin(w);
		for (unsigned i = first_segment(w) + 1; i-- && !b->error;)
			run_segment(w, &w->segments[i]);
		if (!go_back(w))
			break;
	}
	finish(w);
	free(w->segments);
	free(w);
}
