/*
 * tail.c - following the record.
 *
 * A tail goes IDLE -> RUNNING -> (WAITING -> RUNNING)* -> IDLE ..., and ends by a
 * last RUNNING:
 *
 *   IDLE     caught up; tail_notify() wakes it after a commit
 *   RUNNING  a thread of the pool reads a batch from the tail's own connection
 *   WAITING  the batch is the caller's until history_tail_continue()
 *
 * Invariants:
 *  1. A batch is one short read transaction: the writer is never held up and the WAL
 *     can start again between batches.
 *  2. A tail knows for each machine the next op that it has not read; what there is
 *     to read it learns from `ends`, on the loop's thread, so an idle tail costs
 *     nothing. Hence it resumes by op number, and misses and repeats nothing.
 *  3. Within a machine records come in order; between machines no order is promised.
 *
 * A slow caller is told how far behind it is; nothing is buffered for it but one
 * batch.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "history_priv.h"

enum {
	TAILS_MAX = 64,
	BATCH_OPS = 256,
	/* A batch ends with the op that reaches this. One op may have more. */
	BATCH_EVENTS = 16384,
	/* Ops that a run passes over because the masks do not want them, and events that it
	 * reads for that. */
	SKIP_OPS = 65536,
	SKIP_EVENTS = 65536,
	/* A value of `stop` beside the errors: the end of a tail that does not follow. */
	TAIL_CAUGHT_UP = 1,
};

enum tail_state { TAIL_IDLE, TAIL_RUNNING, TAIL_WAITING };

/* Which words of an event of each kind name a zone: a bit each. */
typedef uint8_t zone_words[EVENT_KIND_END];

struct history_tail {
	struct history *h;
	struct history_tail *next;
	uv_work_t work;
	struct history_tail_options options;
	uint64_t event_mask; /* of events that may be wanted; all bits: all */
	zone_words zone_words;
	enum tail_state state;
	atomic_int stop; /* HISTORY_*: why it must end */
	bool in_callback, continued;

	/* By machine id (or one, for options.machine): the next op to read. */
	uint64_t *cursors;
	size_t nr_cursors;
	uint64_t *goals; /* no_follow: where each cursor stops; as long as cursors */
	size_t turn;	 /* the machine whose turn it is, for fairness */

	/* The range that the worker reads: set by the loop before it runs. */
	uint64_t machine, from, to;
	uint64_t read_to; /* the worker: next op after what it has read */

	/* The worker's while RUNNING. The connection was another's, and will be. */
	sqlite3 *db;
	sqlite3_stmt *ops, *events; /* NULL before the first run, and after the last */
	int error;
	char message[HISTORY_ERROR_LENGTH];
	struct history_record records[BATCH_OPS];
	size_t first_event[BATCH_OPS]; /* of each record, in event_rows */
	unsigned nr_records;
	struct engine_event *event_rows;
	size_t nr_events, max_events;
	size_t events_read;
};

/* ---- which events ---- */

/* From the contract: fields of an event are its words in order, of a FIELD_U64 two. */
static void find_zone_words(zone_words ret)
{
	for (unsigned kind = 0; kind < EVENT_KIND_END; kind++) {
		const struct contract_fields *f = &contract_events[kind].fields;
		unsigned word = 0;

		ret[kind] = 0;
		for (unsigned i = 0; i < f->nr_ints; i++) {
			const struct contract_field *field = &f->ints[i];

			if (field->kind == FIELD_ENUM && strcmp(field->enums[0]->name, "Zone") == 0)
				ret[kind] |= (uint8_t)(1U << word);
			word += field->kind == FIELD_U64 ? 2 : 1;
		}
	}
}

uint64_t history_kinds_with_zone(void)
{
	zone_words words;
	uint64_t kinds = 0;

	find_zone_words(words);
	for (unsigned kind = 0; kind < EVENT_KIND_END; kind++)
		kinds |= (uint64_t)(words[kind] != 0) << kind;
	return kinds;
}

static void set_masks(struct history_tail *t)
{
	find_zone_words(t->zone_words);
	t->event_mask = t->options.event_mask ? t->options.event_mask : UINT64_MAX;
	if (t->options.zone_mask)
		t->event_mask &= history_kinds_with_zone();
}

static bool selects(const struct history_tail *t)
{
	return t->options.event_mask || t->options.zone_mask;
}

static bool wants_event(const struct history_tail *t, const struct engine_event *e)
{
	if (!selects(t))
		return true;
	/* The file may hold kinds that this program does not know. */
	if (e->kind >= EVENT_KIND_END || !(t->event_mask >> e->kind & 1))
		return false;
	/* A fault that took no frame has none of a zone. */
	if (!t->options.zone_mask || (e->kind == EVENT_PAGE_FAULT && !e->w[3]))
		return !t->options.zone_mask;
	for (unsigned i = 0; i < EVENT_WORDS; i++)
		if (t->zone_words[e->kind] >> i & 1 && e->w[i] < 32 &&
		    t->options.zone_mask >> e->w[i] & 1)
			return true;
	return false;
}

/* ---- the worker's side ---- */

static int fail_sqlite(struct history_tail *t, int rc)
{
	t->error =
	    history_map_error(t->db, rc, "following the history", t->message, sizeof(t->message));
	return t->error;
}

static int open_tail(struct history_tail *t)
{
	int rc;

	if (!t->db)
		t->error = history_open_reader(t->h, &t->db, t->message, sizeof(t->message));
	if (t->error)
		return t->error;
	rc = sqlite3_prepare_v2(t->db,
				"SELECT " OP_COLUMN_LIST " FROM ops WHERE key BETWEEN ?1 AND ?2"
				" ORDER BY key",
				-1, &t->ops, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(t->db,
					"SELECT kind, w0, w1, w2, w3, w4, w5 FROM events"
					" WHERE id >= ?1 AND id < ?1 + ?2 ORDER BY id",
					-1, &t->events, NULL);
	return rc == SQLITE_OK ? HISTORY_OK : fail_sqlite(t, rc);
}

static struct engine_event *add_event(struct history_tail *t)
{
	if (t->nr_events == t->max_events) {
		size_t max = t->max_events ? t->max_events * 2 : 1024;
		struct engine_event *rows = realloc(t->event_rows, max * sizeof(*rows));

		if (!rows)
			return NULL;
		t->event_rows = rows;
		t->max_events = max;
	}
	return &t->event_rows[t->nr_events++];
}

static int read_events(struct history_tail *t, struct history_record *r, int64_t first)
{
	uint32_t wanted = 0;
	int rc;

	sqlite3_bind_int64(t->events, 1, first);
	sqlite3_bind_int64(t->events, 2, r->nr_events);
	while ((rc = sqlite3_step(t->events)) == SQLITE_ROW) {
		struct engine_event e = {.kind = (uint16_t)sqlite3_column_int(t->events, 0)};
		struct engine_event *kept;

		t->events_read++;
		for (int i = 0; i < EVENT_WORDS; i++)
			e.w[i] = (uint32_t)sqlite3_column_int64(t->events, 1 + i);
		if (!wants_event(t, &e))
			continue;
		kept = add_event(t);
		if (!kept) {
			rc = SQLITE_NOMEM;
			break;
		}
		*kept = e;
		wanted++;
	}
	sqlite3_reset(t->events);
	r->nr_events = wanted;
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static bool wants(const struct history_tail *t, uint32_t code)
{
	const uint64_t *mask = t->options.op_mask;

	return (mask[0] | mask[1]) == 0 || (code < 128 && (mask[code / 64] >> (code % 64) & 1));
}

static int read_batch(struct history_tail *t)
{
	bool passes_over = selects(t) && !t->options.every_op;
	int rc;

	sqlite3_bind_int64(t->ops, 1, key_of(t->machine, t->from));
	sqlite3_bind_int64(t->ops, 2, key_of(t->machine, t->to));
	while ((rc = sqlite3_step(t->ops)) == SQLITE_ROW) {
		struct history_record *r = &t->records[t->nr_records];
		uint64_t kinds = (uint64_t)sqlite3_column_int64(t->ops, COL_KINDS);

		replay_read_record(t->ops, r);
		t->read_to = r->op + 1;
		if (!wants(t, r->code) || (passes_over && !(kinds & t->event_mask)))
			continue;
		/* Bytes are not part of what is followed. */
		r->data_len = r->result_len = 0;
		t->first_event[t->nr_records] = t->nr_events;
		if (selects(t) && !(kinds & t->event_mask))
			r->nr_events = 0;
		if (r->nr_events) {
			rc = read_events(t, r, sqlite3_column_int64(t->ops, COL_FIRST_EVENT));
			if (rc != SQLITE_OK)
				break;
		}
		if (r->nr_events || !passes_over)
			t->nr_records++;
		if (t->nr_records == BATCH_OPS || t->nr_events >= BATCH_EVENTS ||
		    t->events_read >= SKIP_EVENTS)
			break;
	}
	sqlite3_reset(t->ops);
	if (rc != SQLITE_ROW && rc != SQLITE_DONE && rc != SQLITE_OK)
		return fail_sqlite(t, rc);
	/* The rows have ended before `to` does: all of the range has been seen. */
	if (rc == SQLITE_DONE)
		t->read_to = t->to + 1;
	for (unsigned i = 0; i < t->nr_records; i++)
		t->records[i].events =
		    t->records[i].nr_events ? t->event_rows + t->first_event[i] : NULL;
	return HISTORY_OK;
}

static void run_batch(uv_work_t *work)
{
	struct history_tail *t = work->data;

	t->nr_records = 0;
	t->nr_events = t->events_read = 0;
	t->read_to = t->from;
	if (atomic_load(&t->stop) == HISTORY_OK && !t->error &&
	    (t->events || open_tail(t) == HISTORY_OK))
		read_batch(t);
	if (atomic_load(&t->stop) != HISTORY_OK || t->error) {
		t->nr_records = 0;
		sqlite3_finalize(t->ops);
		sqlite3_finalize(t->events);
		t->ops = t->events = NULL;
	}
}

/* ---- the loop's side ---- */

static uint64_t end_of(const struct history_tail *t, size_t machine)
{
	uint64_t end = machine < t->h->nr_ends ? t->h->ends[machine] : 0;

	if (t->goals)
		return machine < t->nr_cursors && t->goals[machine] < end ? t->goals[machine] : end;
	return end;
}

static uint64_t cursor_of(const struct history_tail *t, size_t machine)
{
	/* A machine that came after the tail is followed from its beginning. */
	uint64_t cursor = machine < t->nr_cursors ? t->cursors[machine] : 0;
	uint64_t first = history_first_op(t->h, machine);

	/* What is forgotten is not waited for; op 0 is there all the same. */
	return cursor && cursor < first ? first : cursor;
}

static size_t machines_of(const struct history_tail *t)
{
	return t->goals && t->nr_cursors < t->h->nr_ends ? t->nr_cursors : t->h->nr_ends;
}

static uint64_t behind(const struct history_tail *t)
{
	uint64_t sum = 0;
	size_t from = t->options.machine, to = t->options.machine + 1;

	if (!t->options.machine) {
		from = 0;
		to = machines_of(t);
	}
	for (size_t m = from; m < to; m++) {
		uint64_t end = end_of(t, m), cursor = cursor_of(t, m);

		if (end > cursor)
			sum += end - cursor;
	}
	return sum;
}

/* Chooses the range of the next batch, machines by turns; false: caught up. */
static bool choose_range(struct history_tail *t)
{
	size_t nr = machines_of(t);

	for (size_t i = 0; i < nr; i++) {
		size_t m = t->options.machine ? t->options.machine : (t->turn + i) % nr;
		uint64_t end = end_of(t, m), cursor = cursor_of(t, m);

		if (end > cursor) {
			t->machine = m;
			t->from = cursor;
			t->to = end - cursor > SKIP_OPS ? cursor + SKIP_OPS - 1 : end - 1;
			t->turn = m + 1;
			return true;
		}
		if (t->options.machine)
			return false;
	}
	return false;
}

static bool grow_cursors(struct history_tail *t, size_t nr)
{
	uint64_t *cursors;

	if (nr <= t->nr_cursors)
		return true;
	cursors = realloc(t->cursors, nr * sizeof(*cursors));
	if (!cursors)
		return false;
	memset(cursors + t->nr_cursors, 0, (nr - t->nr_cursors) * sizeof(*cursors));
	t->cursors = cursors;
	t->nr_cursors = nr;
	return true;
}

static void free_tail(struct history_tail *t)
{
	free(t->event_rows);
	free(t->cursors);
	free(t->goals);
	free(t);
}

static void end_tail(struct history_tail *t, int error)
{
	struct history *h = t->h;
	struct history_tail **at = &h->tails;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	h->nr_tails--;
	history_give_reader_back(h, t->db, t->error);
	t->options.done(t->options.user, error,
			error == HISTORY_ABORTED ? "cancelled" : t->message);
	free_tail(t);
}

static void batch_done(uv_work_t *work, int status);

static void queue_run(struct history_tail *t)
{
	t->state = TAIL_RUNNING;
	if (!t->db)
		t->db = history_take_reader(t->h);
	uv_queue_work(t->h->options.loop, &t->work, run_batch, batch_done);
}

/* Reads on, sleeps or ends. From TAIL_IDLE, or from TAIL_WAITING once continued. */
static void go_on(struct history_tail *t)
{
	int none = HISTORY_OK;

	if (atomic_load(&t->stop) != HISTORY_OK || choose_range(t)) {
		queue_run(t);
	} else if (t->options.no_follow) {
		/* A last run, so that the worker ends the statements. */
		atomic_compare_exchange_strong(&t->stop, &none, TAIL_CAUGHT_UP);
		queue_run(t);
	} else {
		t->state = TAIL_IDLE;
	}
}

static void batch_done(uv_work_t *work, int status)
{
	struct history_tail *t = work->data;
	int stop = atomic_load(&t->stop);

	(void)status; /* never cancelled: a tail ends by its own last run */
	if (stop != HISTORY_OK || t->error) {
		if (!t->ops) {
			end_tail(t, t->error		     ? t->error
				    : stop == TAIL_CAUGHT_UP ? HISTORY_OK
							     : stop);
			return;
		}
		queue_run(t); /* it was stopped after the worker had looked */
		return;
	}
	if (!grow_cursors(t, t->machine + 1)) {
		snprintf(t->message, sizeof(t->message), "no memory");
		t->error = HISTORY_IO;
		queue_run(t);
		return;
	}
	t->cursors[t->machine] = t->read_to;
	if (t->nr_records == 0) {
		go_on(t);
		return;
	}
	t->state = TAIL_WAITING;
	t->in_callback = true;
	t->continued = false;
	t->options.records(t->options.user, t->records, t->nr_records, behind(t));
	t->in_callback = false;
	/* Only now may a worker write over the batch again. */
	if (t->continued || atomic_load(&t->stop) != HISTORY_OK)
		go_on(t);
}

void tail_notify(struct history *h)
{
	for (struct history_tail *t = h->tails; t; t = t->next) {
		if (t->state == TAIL_IDLE)
			go_on(t);
	}
}

/* The first ops to read, and with no_follow the last. */
static bool set_cursors(struct history_tail *t)
{
	const struct history *h = t->h;
	uint64_t machine = t->options.machine;
	size_t nr = machine >= h->nr_ends ? machine + 1 : h->nr_ends;

	if (!nr || !grow_cursors(t, nr) || !t->cursors)
		return false;
	if (machine && t->options.after_op)
		t->cursors[machine] = t->options.after_op + 1;
	else if (!t->options.from_start && h->nr_ends)
		memcpy(t->cursors, h->ends, h->nr_ends * sizeof(*t->cursors));
	if (!t->options.no_follow)
		return true;
	t->goals = calloc(nr, sizeof(*t->goals));
	if (t->goals && h->nr_ends)
		memcpy(t->goals, h->ends, h->nr_ends * sizeof(*t->goals));
	return t->goals != NULL;
}

int history_tail_start(struct history *h, const struct history_tail_options *options,
		       struct history_tail **ret)
{
	struct history_tail *t;

	if (h->closing || !h->options.loop || options->machine > KEY_MACHINE_MAX ||
	    options->after_op >= KEY_OP_MASK)
		return HISTORY_ABORTED;
	if (h->nr_tails == TAILS_MAX)
		return HISTORY_BUSY;
	t = calloc(1, sizeof(*t));
	if (!t)
		return HISTORY_IO;
	t->h = h;
	t->work.data = t;
	t->options = *options;
	set_masks(t);
	if (!set_cursors(t)) {
		free_tail(t);
		return HISTORY_IO;
	}
	t->next = h->tails;
	h->tails = t;
	h->nr_tails++;
	*ret = t;
	go_on(t);
	return HISTORY_OK;
}

void history_tail_continue(struct history_tail *t)
{
	if (t->in_callback)
		t->continued = true;
	else if (t->state == TAIL_WAITING)
		go_on(t);
}

static void stop_tail(struct history_tail *t)
{
	int none = HISTORY_OK;

	atomic_compare_exchange_strong(&t->stop, &none, HISTORY_ABORTED);
	if (t->state == TAIL_IDLE || (t->state == TAIL_WAITING && !t->in_callback))
		go_on(t);
}

void history_tail_cancel(struct history_tail *t)
{
	stop_tail(t);
}

void tail_stop_all(struct history *h)
{
	for (struct history_tail *t = h->tails; t; t = t->next)
		stop_tail(t);
}
