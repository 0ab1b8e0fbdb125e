/*
 * verify.c - is a history whole? What can be said without an engine: the file, the numbers of
 * the ops, and what the tables say about each other. Declared in recorded.h.
 *
 * Invariants:
 *  1. Each check reads in the order of a key, or by keys, so the whole takes a few passes
 *     over the file and memory for none of it but a sort of the ops that have events.
 *  2. What a machine has forgotten (ops below its first_op, deleted bit by bit) is no lie,
 *     and neither is what is left of it.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "history_priv.h"
#include "recorded_priv.h"

struct verify {
	sqlite3 *db;
	char *err;
	size_t err_size;
};

static int failed(struct verify *v)
{
	return history_map_error(v->db, sqlite3_extended_errcode(v->db), "reading the history",
				 v->err, v->err_size);
}

#define LIE(v, ...) (snprintf((v)->err, (v)->err_size, __VA_ARGS__), HISTORY_CORRUPT)

static uint64_t machine_of(int64_t key)
{
	return (uint64_t)key >> KEY_OP_BITS;
}

static uint64_t op_of(int64_t key)
{
	return (uint64_t)key & KEY_OP_MASK;
}

/* ---- the file ---- */

static int check_file(struct verify *v)
{
	sqlite3_stmt *st = NULL;
	int error = HISTORY_OK;

	if (sqlite3_prepare_v2(v->db, "PRAGMA integrity_check(1)", -1, &st, NULL) != SQLITE_OK ||
	    sqlite3_step(st) != SQLITE_ROW)
		error = failed(v);
	else if (sqlite3_stricmp((const char *)sqlite3_column_text(st, 0), "ok") != 0)
		error = LIE(v, "the file is damaged: %s", sqlite3_column_text(st, 0));
	sqlite3_finalize(st);
	return error;
}

/* ---- the numbers of ops ---- */

/* From first_op on, or from where a fork left its parent, each number is there. Op 0, where
 * there is one, holds the events of boot. The newest checkpoint tells of a last op. */
static int check_numbers(struct verify *v, int64_t machine, uint64_t first, int64_t saved)
{
	sqlite3_stmt *st = NULL;
	uint64_t next = first;
	int error = HISTORY_OK, rc;

	rc = sqlite3_prepare_v2(v->db, "SELECT key FROM op_rows WHERE key BETWEEN ?1 AND ?2", -1,
				&st, NULL);
	if (rc == SQLITE_OK) {
		sqlite3_bind_int64(st, 1, key_of((uint64_t)machine, first));
		sqlite3_bind_int64(st, 2, key_of((uint64_t)machine, KEY_OP_MASK));
		while ((rc = sqlite3_step(st)) == SQLITE_ROW &&
		       op_of(sqlite3_column_int64(st, 0)) == next)
			next++;
	}
	if (rc == SQLITE_ROW)
		error = LIE(v,
			    "op %" PRIu64 " of machine %" PRId64
			    " is missing: the next one there is op %" PRIu64,
			    next, machine, op_of(sqlite3_column_int64(st, 0)));
	else if (rc != SQLITE_DONE)
		error = failed(v);
	else if (saved >= 0 && (uint64_t)saved >= next)
		error = LIE(v,
			    "op %" PRIu64 " of machine %" PRId64
			    " is missing: there is a checkpoint of op %" PRId64,
			    next, machine, saved);
	sqlite3_finalize(st);
	return error;
}

/* The first op that a machine must have. */
#define FIRST_OP "max(m.first_op, m.forked_at_op + 1)"

static int check_machines(struct verify *v)
{
	sqlite3_stmt *st = NULL;
	int error = HISTORY_OK;
	int rc = sqlite3_prepare_v2(
	    v->db,
	    "SELECT m.id, " FIRST_OP ", coalesce((SELECT max(key) & 0xffffffffff FROM checkpoints"
	    " WHERE key BETWEEN (m.id << 40) + " FIRST_OP " AND (m.id << 40) + 0xffffffffff), -1)"
	    " FROM machines m ORDER BY m.id",
	    -1, &st, NULL);

	while (!error && rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		error = check_numbers(v, sqlite3_column_int64(st, 0),
				      (uint64_t)sqlite3_column_int64(st, 1),
				      sqlite3_column_int64(st, 2));
		rc = SQLITE_OK;
	}
	if (!error && rc != SQLITE_DONE)
		error = failed(v);
	sqlite3_finalize(st);
	return error;
}

/* ---- events ---- */

struct event_walk {
	sqlite3_stmt *events;
	int64_t next_id; /* of the event that the statement is at; INT64_MAX: no more */
};

static int next_event(struct verify *v, struct event_walk *w)
{
	int rc = sqlite3_step(w->events);

	w->next_id = rc == SQLITE_ROW ? sqlite3_column_int64(w->events, 0) : INT64_MAX;
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? HISTORY_OK : failed(v);
}

/* Takes an op's events: `nr` of them from `first` on, whose kinds make `kinds`. */
static int check_events_of(struct verify *v, struct event_walk *w, int64_t key, int64_t first,
			   int64_t nr, int64_t kinds)
{
	int64_t seen = 0;

	if (w->next_id < first)
		return LIE(v, "event %" PRId64 " belongs to no op", w->next_id);
	for (int64_t id = first; id < first + nr; id++) {
		int error;

		if (w->next_id != id)
			return LIE(v,
				   "event %" PRId64 " of op %" PRIu64 " of machine %" PRIu64
				   " is missing, or another op's too",
				   id, op_of(key), machine_of(key));
		seen |= 1LL << (sqlite3_column_int64(w->events, 1) & 63);
		error = next_event(v, w);
		if (error)
			return error;
	}
	if (seen != kinds)
		return LIE(v,
			   "the events of op %" PRIu64 " of machine %" PRIu64
			   " are not of the kinds that its row says",
			   op_of(key), machine_of(key));
	return HISTORY_OK;
}

/* Both in the order of the events' numbers. */
static int check_events(struct verify *v)
{
	struct event_walk w = {0};
	sqlite3_stmt *ops = NULL;
	int error = HISTORY_OK, rc;

	rc = sqlite3_prepare_v2(v->db, "SELECT id, kind FROM events ORDER BY id", -1, &w.events,
				NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(v->db,
					"SELECT key, first_event, nr_events, kinds FROM ops"
					" WHERE nr_events > 0 ORDER BY first_event",
					-1, &ops, NULL);
	error = rc == SQLITE_OK ? next_event(v, &w) : failed(v);
	while (!error && (rc = sqlite3_step(ops)) == SQLITE_ROW)
		error = check_events_of(v, &w, sqlite3_column_int64(ops, 0),
					sqlite3_column_int64(ops, 1), sqlite3_column_int64(ops, 2),
					sqlite3_column_int64(ops, 3));
	if (!error && rc != SQLITE_DONE)
		error = failed(v);
	if (!error && w.next_id != INT64_MAX)
		error = LIE(v, "event %" PRId64 " belongs to no op", w.next_id);
	sqlite3_finalize(ops);
	sqlite3_finalize(w.events);
	return error;
}

/* ---- rows that need another one ---- */

/* Of a row `x` with an op's key: the op is kept by its machine. */
#define KEPT                                                                                     \
	" (x.key & 0xffffffffff) >= (SELECT " FIRST_OP " FROM machines m WHERE m.id = x.key >> " \
	"40)"

static const struct pairing {
	const char *sql; /* the first key that breaks it */
	const char *lie;
} pairings[] = {
    {"SELECT x.key FROM op_rows x WHERE NOT EXISTS"
     " (SELECT 1 FROM machines WHERE id = x.key >> 40) LIMIT 1",
     "is of a machine that never was"},
    {"SELECT x.key FROM op_more x WHERE NOT EXISTS"
     " (SELECT 1 FROM op_rows WHERE key = x.key) LIMIT 1",
     "has a row in op_more and none in op_rows"},
    {"SELECT x.key FROM op_more x LEFT JOIN payloads p ON p.key = x.key"
     " WHERE x.data_len > 0 AND coalesce(length(p.data), -1) <> x.data_len LIMIT 1",
     "has no payload of the length that its row says"},
    {"SELECT x.key FROM payloads x WHERE coalesce("
     "(SELECT data_len FROM op_more WHERE key = x.key), 0) = 0 LIMIT 1",
     "has a payload that its row does not say"},
    {"SELECT x.key FROM completions x LEFT JOIN op_rows o ON o.key = x.key"
     " WHERE coalesce(o.what >> 8 & 0xff, 0) <> 15 AND" KEPT " LIMIT 1",
     "has a completion, but did not park"},
    {"SELECT x.key FROM completions x WHERE NOT EXISTS (SELECT 1 FROM op_rows o"
     " WHERE o.key = (x.key >> 40 << 40) + x.woken_by) AND" KEPT " LIMIT 1",
     "was ended by an op that is missing"},
};
static_assert(STATUS_PARKED == 15 && KEY_OP_BITS == 40, "pairings spell them");

static int check_pairings(struct verify *v)
{
	int error = HISTORY_OK;

	for (size_t i = 0; i < sizeof(pairings) / sizeof(pairings[0]) && !error; i++) {
		sqlite3_stmt *st = NULL;
		int rc = sqlite3_prepare_v2(v->db, pairings[i].sql, -1, &st, NULL);

		if (rc == SQLITE_OK)
			rc = sqlite3_step(st);
		if (rc == SQLITE_ROW)
			error = LIE(v, "op %" PRIu64 " of machine %" PRIu64 " %s",
				    op_of(sqlite3_column_int64(st, 0)),
				    machine_of(sqlite3_column_int64(st, 0)), pairings[i].lie);
		else if (rc != SQLITE_DONE)
			error = failed(v);
		sqlite3_finalize(st);
	}
	return error;
}

/* ---- all of it ---- */

int recorded_verify(struct recorded *r, void (*stage)(void *arg, const char *what), void *arg,
		    char *err, size_t err_size)
{
	static const struct {
		const char *what;
		int (*check)(struct verify *v);
	} checks[] = {
	    {"the file", check_file},
	    {"numbers of ops", check_machines},
	    {"payloads and ends", check_pairings},
	    {"events", check_events},
	};
	struct verify v = {recorded_db(r), err, err_size};
	int error = HISTORY_OK;

	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]) && !error; i++) {
		stage(arg, checks[i].what);
		error = checks[i].check(&v);
	}
	return error;
}
