/*
 * recorded.c - see recorded.h.
 *
 * Invariants:
 *  1. The connection is read-only, and between two calls no statement is under way: no
 *     moment of the file is held.
 *  2. A record is given whole or not at all: a payload or an event that is missing is
 *     HISTORY_CORRUPT.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "recorded_priv.h"

enum { NR_READS = 3 };
#define EVENTS_SQL                                        \
	"SELECT kind, w0, w1, w2, w3, w4, w5 FROM events" \
	" WHERE id >= ?1 AND id < ?1 + ?2 ORDER BY id"

struct recorded {
	sqlite3 *db;
	sqlite3_stmt *ops, *payload, *events_of;
	struct engine_event *events;
	uint32_t max_events;
};

static int fail(struct recorded *r, int rc, char *err, size_t err_size)
{
	if (rc == SQLITE_OK)
		return HISTORY_OK;
	return history_map_error(r->db, rc, "reading the history", err, err_size);
}

static int prepare(struct recorded *r, char *err, size_t err_size)
{
	static const char *const sql[NR_READS] = {
	    "SELECT " OP_COLUMN_LIST " FROM ops WHERE key BETWEEN ?1 AND ?2 ORDER BY key",
	    "SELECT data FROM payloads WHERE key = ?",
	    EVENTS_SQL,
	};
	sqlite3_stmt **const statements[NR_READS] = {&r->ops, &r->payload, &r->events_of};
	int rc = SQLITE_OK;

	for (unsigned i = 0; i < NR_READS && rc == SQLITE_OK; i++)
		rc = sqlite3_prepare_v2(r->db, sql[i], -1, statements[i], NULL);
	return fail(r, rc, err, err_size);
}

int recorded_open(const char *path, struct recorded **ret, char *err, size_t err_size)
{
	struct recorded *r = calloc(1, sizeof(*r));
	struct history where = {.path = (char *)(uintptr_t)path};
	bool empty = false;
	int error;

	if (!r) {
		snprintf(err, err_size, "no memory");
		return HISTORY_IO;
	}
	if (access(path, R_OK)) {
		snprintf(err, err_size, "%s: there is no such file, or it may not be read", path);
		free(r);
		return HISTORY_IO;
	}
	error = history_open_reader(&where, &r->db, err, err_size);
	if (!error)
		error = schema_recognise(r->db, &empty, err, err_size);
	if (!error && empty) {
		snprintf(err, err_size, "%s: the file is empty", path);
		error = HISTORY_FOREIGN;
	}
	if (!error)
		error = prepare(r, err, err_size);
	if (error) {
		recorded_close(r);
		return error;
	}
	*ret = r;
	return HISTORY_OK;
}

void recorded_close(struct recorded *r)
{
	if (!r)
		return;
	sqlite3_finalize(r->ops);
	sqlite3_finalize(r->payload);
	sqlite3_finalize(r->events_of);
	sqlite3_close(r->db);
	free(r->events);
	free(r);
}

/* ---- machines ---- */

/* Columns behind those of MACHINE_COLUMN_LIST: the last three. */
#define MACHINE_SQL                                                       \
	"SELECT " MACHINE_COLUMN_LIST ", ended_ns IS NOT NULL,"           \
	" (SELECT min(key) FROM op_rows WHERE key BETWEEN (id << 40) + 1" \
	" AND (id << 40) + 0xffffffffff),"                                \
	" (SELECT max(key) FROM op_rows WHERE key BETWEEN (id << 40) + 1" \
	" AND (id << 40) + 0xffffffffff) FROM machines"
enum { COL_ENDED, COL_FIRST, COL_LAST, NR_OWN_COLUMNS };

static int read_machine(struct recorded *r, sqlite3_stmt *st, struct recorded_machine *ret)
{
	int own = sqlite3_column_count(st) - NR_OWN_COLUMNS, rc;
	struct history_machine m;

	memset(ret, 0, sizeof(*ret));
	rc = replay_read_machine(r->db, st, &ret->config, &m);
	ret->id = m.id;
	snprintf(ret->name, sizeof(ret->name), "%s", m.name);
	snprintf(ret->backend, sizeof(ret->backend), "%s", m.backend);
	ret->forked_from = m.forked_from;
	ret->forked_at_op = m.forked_at_op;
	ret->ended = sqlite3_column_int(st, own + COL_ENDED);
	ret->first_op = (uint64_t)sqlite3_column_int64(st, own + COL_FIRST) & KEY_OP_MASK;
	ret->last_op = (uint64_t)sqlite3_column_int64(st, own + COL_LAST) & KEY_OP_MASK;
	return rc;
}

int recorded_machine(struct recorded *r, uint64_t id, struct recorded_machine *ret, char *err,
		     size_t err_size)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(r->db, MACHINE_SQL " WHERE id = ?", -1, &st, NULL);
	bool found = false;

	if (rc == SQLITE_OK) {
		sqlite3_bind_int64(st, 1, (int64_t)id);
		rc = sqlite3_step(st);
		found = rc == SQLITE_ROW;
		rc = found ? read_machine(r, st, ret) : rc == SQLITE_DONE ? SQLITE_OK : rc;
	}
	sqlite3_finalize(st);
	if (rc != SQLITE_OK)
		return fail(r, rc, err, err_size);
	if (found)
		return HISTORY_OK;
	snprintf(err, err_size, "the history has no machine number %" PRIu64, id);
	return HISTORY_SQL;
}

int recorded_find(struct recorded *r, const char *name, struct recorded_machine *ret, char *err,
		  size_t err_size)
{
	sqlite3_stmt *st = NULL;
	int64_t id = 0;
	int rc;

	if (name[0] == '#')
		return recorded_machine(r, strtoull(name + 1, NULL, 10), ret, err, err_size);
	rc = sqlite3_prepare_v2(r->db,
				"SELECT id FROM machines WHERE name = ?"
				" ORDER BY ended_ns IS NOT NULL, id DESC LIMIT 1",
				-1, &st, NULL);
	if (rc == SQLITE_OK) {
		sqlite3_bind_text(st, 1, name, -1, SQLITE_STATIC);
		rc = sqlite3_step(st);
		if (rc == SQLITE_ROW)
			id = sqlite3_column_int64(st, 0);
		rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
	}
	sqlite3_finalize(st);
	if (rc != SQLITE_OK)
		return fail(r, rc, err, err_size);
	if (id)
		return recorded_machine(r, (uint64_t)id, ret, err, err_size);
	snprintf(err, err_size, "the history has no machine %s", name);
	return HISTORY_SQL;
}

int recorded_machines(struct recorded *r, bool (*fn)(void *arg, const struct recorded_machine *m),
		      void *arg, char *err, size_t err_size)
{
	struct recorded_machine *m = malloc(sizeof(*m));
	sqlite3_stmt *st = NULL;
	bool more = true;
	int rc =
	    m ? sqlite3_prepare_v2(r->db, MACHINE_SQL " ORDER BY id", -1, &st, NULL) : SQLITE_NOMEM;

	while (rc == SQLITE_OK && more && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		rc = read_machine(r, st, m);
		more = rc == SQLITE_OK && fn(arg, m);
	}
	sqlite3_finalize(st);
	free(m);
	return fail(r, rc == SQLITE_DONE ? SQLITE_OK : rc, err, err_size);
}

int recorded_reader(struct recorded *r, struct history_reader **ret, char *err, size_t err_size)
{
	return reader_make(r->db, false, ret, err, err_size);
}

sqlite3 *recorded_db(const struct recorded *r)
{
	return r->db;
}

/* ---- ops ---- */

static int read_payload(struct recorded *r, struct history_record *op)
{
	int rc;

	if (!op->data_len)
		return SQLITE_OK;
	sqlite3_bind_int64(r->payload, 1, key_of(op->machine, op->op));
	rc = sqlite3_step(r->payload);
	if (rc != SQLITE_ROW)
		return rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
	op->data = sqlite3_column_blob(r->payload, 0);
	if (!op->data || (uint32_t)sqlite3_column_bytes(r->payload, 0) != op->data_len)
		return SQLITE_CORRUPT;
	return SQLITE_OK;
}

static int read_events(struct recorded *r, struct history_record *op, int64_t first)
{
	uint32_t nr = 0;
	int rc;

	if (op->nr_events > r->max_events) {
		struct engine_event *more = realloc(r->events, op->nr_events * sizeof(*more));

		if (!more)
			return SQLITE_NOMEM;
		r->events = more;
		r->max_events = op->nr_events;
	}
	op->events = r->events;
	if (!op->nr_events)
		return SQLITE_OK;
	sqlite3_bind_int64(r->events_of, 1, first);
	sqlite3_bind_int64(r->events_of, 2, op->nr_events);
	while ((rc = sqlite3_step(r->events_of)) == SQLITE_ROW && nr < op->nr_events) {
		struct engine_event *e = &r->events[nr++];

		*e = (struct engine_event){.kind = (u16)sqlite3_column_int(r->events_of, 0)};
		for (int i = 0; i < EVENT_WORDS; i++)
			e->w[i] = (u32)sqlite3_column_int64(r->events_of, 1 + i);
	}
	if (rc != SQLITE_DONE && rc != SQLITE_ROW)
		return rc;
	return nr == op->nr_events ? SQLITE_OK : SQLITE_CORRUPT;
}

int recorded_ops(struct recorded *r, uint64_t machine, uint64_t from_op, uint64_t to_op,
		 bool (*fn)(void *arg, const struct history_record *op), void *arg, char *err,
		 size_t err_size)
{
	bool more = true;
	int rc;

	sqlite3_bind_int64(r->ops, 1, key_of(machine, from_op));
	sqlite3_bind_int64(r->ops, 2, key_of(machine, to_op));
	while ((rc = sqlite3_step(r->ops)) == SQLITE_ROW && more) {
		struct history_record op;

		replay_read_record(r->ops, &op);
		op.result_hash = (uint64_t)sqlite3_column_int64(r->ops, COL_RESULT_HASH);
		rc = read_payload(r, &op);
		if (rc == SQLITE_OK)
			rc = read_events(r, &op, sqlite3_column_int64(r->ops, COL_FIRST_EVENT));
		if (rc != SQLITE_OK)
			break;
		more = fn(arg, &op);
		sqlite3_reset(r->payload);
		sqlite3_reset(r->events_of);
	}
	sqlite3_reset(r->ops);
	sqlite3_reset(r->payload);
	sqlite3_reset(r->events_of);
	if (!more)
		return HISTORY_ABORTED;
	if (rc == SQLITE_CORRUPT) {
		snprintf(err, err_size, "a payload or an event of an op is missing");
		return HISTORY_CORRUPT;
	}
	return fail(r, rc == SQLITE_DONE ? SQLITE_OK : rc, err, err_size);
}

int recorded_completions(struct recorded *r, uint64_t machine, uint64_t to_op,
			 bool (*fn)(void *arg, uint64_t woken_by,
				    const struct engine_completion *c),
			 void *arg, char *err, size_t err_size)
{
	sqlite3_stmt *st = NULL;
	bool more = true;
	int rc = sqlite3_prepare_v2(r->db,
				    "SELECT key, woken_by, status, task, v0, v1, v2, v3"
				    " FROM completions WHERE key BETWEEN ?1 AND ?2"
				    " AND woken_by <= ?3 ORDER BY woken_by, key",
				    -1, &st, NULL);

	if (rc == SQLITE_OK) {
		sqlite3_bind_int64(st, 1, key_of(machine, 0));
		sqlite3_bind_int64(st, 2, key_of(machine, KEY_OP_MASK));
		sqlite3_bind_int64(st, 3, (int64_t)to_op);
	}
	while (rc == SQLITE_OK && more && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct engine_completion c = {
		    .op = (uint64_t)sqlite3_column_int64(st, 0) & KEY_OP_MASK,
		    .status = (uint32_t)sqlite3_column_int64(st, 2),
		    .task = (uint32_t)sqlite3_column_int64(st, 3),
		};

		for (int i = 0; i < OP_VALUES; i++)
			c.values[i] = (uint64_t)sqlite3_column_int64(st, 4 + i);
		more = fn(arg, (uint64_t)sqlite3_column_int64(st, 1), &c);
		rc = SQLITE_OK;
	}
	sqlite3_finalize(st);
	if (!more)
		return HISTORY_ABORTED;
	return fail(r, rc == SQLITE_DONE ? SQLITE_OK : rc, err, err_size);
}

uint64_t recorded_hash(const uint8_t *bytes, size_t length)
{
	return history_hash(bytes, length);
}
