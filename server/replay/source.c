/*
 * source.c - see source.h.
 *
 * Invariants:
 *  1. Op numbers come without a gap; one that is missing ends the reading with an error.
 *  2. `ends` is in order of woken_by. Numbers grow along the lineage, so those of an
 *     ancestor come before the machine's own.
 */
#include "source.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	BATCH_OPS = 1024,
	BATCH_EVENTS = 1 << 16, /* a batch ends behind the op that reaches one of these */
	BATCH_BYTES = 4 << 20,
	ERROR_LENGTH = 400,
};

struct segment {
	uint64_t machine, last_op;
};

struct end {
	uint64_t woken_by;
	struct engine_completion completion;
};

struct source {
	struct recorded *file;
	struct recorded_machine machine;
	struct segment *segments; /* oldest ancestor last */
	size_t nr_segments;	  /* still to do, the last one first */
	size_t max_segments;
	uint64_t next_op, last_op;

	struct history_record ops[BATCH_OPS];
	size_t event_at[BATCH_OPS], data_at[BATCH_OPS];
	unsigned nr_ops;
	struct engine_event *events;
	size_t nr_events, max_events;
	uint8_t *bytes;
	size_t nr_bytes, max_bytes;

	struct engine_completion *completions; /* beside ends, so that a range is an array */
	uint64_t *woken_by;
	size_t nr_ends, max_ends;
	char err[ERROR_LENGTH];
};

static void *grow(void *items, size_t *max, size_t need, size_t size)
{
	if (need <= *max)
		return items;
	*max = need * 2;
	items = realloc(items, *max * size);
	if (!items)
		abort();
	return items;
}

/* ---- opening ---- */

static bool take_completion(void *arg, uint64_t woken_by, const struct engine_completion *c)
{
	struct source *s = arg;
	size_t max = s->max_ends;

	s->completions = grow(s->completions, &max, s->nr_ends + 1, sizeof *s->completions);
	s->woken_by = grow(s->woken_by, &s->max_ends, s->nr_ends + 1, sizeof *s->woken_by);
	s->completions[s->nr_ends] = *c;
	s->woken_by[s->nr_ends++] = woken_by;
	return true;
}

/* From the machine up to whoever was created; numbers fall on the way. */
static bool find_lineage(struct source *s)
{
	struct recorded_machine m = s->machine;
	uint64_t last_op = s->last_op;

	for (;;) {
		if (m.forked_from >= m.id) {
			snprintf(s->err, sizeof s->err,
				 "machine %" PRIu64 " cannot be a fork of machine %" PRIu64, m.id,
				 m.forked_from);
			return false;
		}
		s->segments =
		    grow(s->segments, &s->max_segments, s->nr_segments + 1, sizeof *s->segments);
		s->segments[s->nr_segments++] = (struct segment){m.id, last_op};
		if (!m.forked_from)
			return true;
		if (m.forked_at_op < last_op)
			last_op = m.forked_at_op;
		if (recorded_machine(s->file, m.forked_from, &m, s->err, sizeof s->err))
			return false;
	}
}

static bool load_completions(struct source *s)
{
	for (size_t i = s->nr_segments; i-- > 0;)
		if (recorded_completions(s->file, s->segments[i].machine, s->segments[i].last_op,
					 take_completion, s, s->err, sizeof s->err))
			return false;
	return true;
}

static bool find_end(struct source *s, uint64_t until)
{
	uint64_t last = s->machine.last_op;

	if (last < s->machine.forked_at_op)
		last = s->machine.forked_at_op;
	if (until > last) {
		snprintf(s->err, sizeof s->err, "%s has no op %" PRIu64 ", its last is %" PRIu64,
			 s->machine.name, until, last);
		return false;
	}
	s->last_op = until ? until : last;
	return true;
}

struct source *source_open(const char *path, const char *machine, uint64_t until, char *err,
			   size_t err_size)
{
	struct source *s = calloc(1, sizeof *s);

	if (!s)
		abort();
	if (recorded_open(path, &s->file, s->err, sizeof s->err) ||
	    recorded_find(s->file, machine, &s->machine, s->err, sizeof s->err) ||
	    !find_end(s, until) || !find_lineage(s) || !load_completions(s)) {
		snprintf(err, err_size, "%s", s->err);
		source_close(s);
		return NULL;
	}
	return s;
}

void source_close(struct source *s)
{
	if (!s)
		return;
	recorded_close(s->file);
	free(s->segments);
	free(s->events);
	free(s->bytes);
	free(s->completions);
	free(s->woken_by);
	free(s);
}

const struct recorded_machine *source_machine(const struct source *s)
{
	return &s->machine;
}

uint64_t source_last_op(const struct source *s)
{
	return s->last_op;
}

const char *source_error(const struct source *s)
{
	return s->err;
}

/* ---- reading ---- */

static bool take_op(void *arg, const struct history_record *op)
{
	struct source *s = arg;

	if (op->op != s->next_op) {
		snprintf(s->err, sizeof s->err,
			 "op %" PRIu64 " is not in the history (the next one there is %" PRIu64
			 "): what was pruned cannot be replayed",
			 s->next_op, op->op);
		return false;
	}
	s->next_op++;
	s->ops[s->nr_ops] = *op;
	s->event_at[s->nr_ops] = s->nr_events;
	s->data_at[s->nr_ops++] = s->nr_bytes;
	s->events =
	    grow(s->events, &s->max_events, s->nr_events + op->nr_events, sizeof *s->events);
	if (op->nr_events)
		memcpy(s->events + s->nr_events, op->events, op->nr_events * sizeof *s->events);
	s->nr_events += op->nr_events;
	s->bytes = grow(s->bytes, &s->max_bytes, s->nr_bytes + op->data_len, 1);
	if (op->data_len)
		memcpy(s->bytes + s->nr_bytes, op->data, op->data_len);
	s->nr_bytes += op->data_len;
	return s->nr_ops < BATCH_OPS && s->nr_events < BATCH_EVENTS && s->nr_bytes < BATCH_BYTES;
}

/* The arrays do not move any more. */
static void point(struct source *s)
{
	for (unsigned i = 0; i < s->nr_ops; i++) {
		struct history_record *op = &s->ops[i];

		op->events = op->nr_events ? s->events + s->event_at[i] : NULL;
		op->data = op->data_len ? s->bytes + s->data_at[i] : NULL;
	}
}

unsigned source_read(struct source *s, const struct history_record **ret)
{
	int error = HISTORY_OK;

	s->nr_ops = 0;
	s->nr_events = s->nr_bytes = 0;
	while (s->nr_segments && !s->nr_ops && !error && !*s->err) {
		const struct segment *g = &s->segments[s->nr_segments - 1];

		if (s->next_op <= g->last_op)
			error = recorded_ops(s->file, g->machine, s->next_op, g->last_op, take_op,
					     s, s->err, sizeof s->err);
		if (error == HISTORY_ABORTED && !*s->err)
			break;
		if (!error && s->next_op <= g->last_op)
			snprintf(s->err, sizeof s->err,
				 "ops %" PRIu64 " to %" PRIu64 " are not in the history",
				 s->next_op, g->last_op);
		s->nr_segments--;
	}
	point(s);
	*ret = s->ops;
	return *s->err ? 0 : s->nr_ops;
}

const struct engine_completion *source_completions(const struct source *s, uint64_t op,
						   unsigned *ret_nr)
{
	size_t low = 0, high = s->nr_ends;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (s->woken_by[middle] < op)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_nr = 0;
	while (low + *ret_nr < s->nr_ends && s->woken_by[low + *ret_nr] == op)
		++*ret_nr;
	return s->completions + low;
}
