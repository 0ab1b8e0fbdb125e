/*
 * schema.c - the tables, the names and the views of the record.
 *
 * Invariants:
 *  1. The file says whose it is before it holds anything: application id and version
 *     are written in the transaction that makes the tables, in rollback mode, so that
 *     they stand in the file itself and not only in its WAL.
 *  2. Tables belong to HISTORY_SCHEMA_VERSION; an older file is brought up to it, version
 *     by version, before anything else is done with it. Names and views belong to the contract
 *     (contract_tables.h): they are made anew whenever their own text changes, and
 *     hold no data.
 *  3. The keys keep what belongs together side by side, so that nothing that an op
 *     writes needs a second index: an op's key is machine << 40 | op, its events have
 *     the ids from first_event to first_event + nr_events - 1. `kinds` has a bit for
 *     each kind among them, so that a view of one kind touches only ops that have it.
 *  4. What a row costs is its columns, hardly their width, so what every op and event has
 *     shares few of them (op_rows, event_rows). The views ops and events take it apart.
 *
 * Columns of the tables that every op writes have no NOT NULL: it costs an
 * instruction per column and row, and only the journal writes here.
 *
 * SCHEMA.md describes all of this for people who ask questions in SQL.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "history_priv.h"

static_assert(EVENT_KIND_END <= 63, "ops.kinds has a bit for each kind, and its sign stays 0");
static_assert(EVENT_WORDS == 6 && OP_ARGS == 6 && OP_VALUES == 4, "the tables' columns");

/* Fields of an op `o` in op_rows, and of its row `x` in op_more where it has one. */
#define O_CODE	       "(o.what & 0xff)"
#define O_STATUS       "((o.what >> 8) & 0xff)"
#define O_CPU	       "((o.what >> 16) & 0xffff)"
#define O_TASK	       "((o.what >> 32) & 0xffffffff)"
#define O_OWNER	       "(o.caller & 0xffffffff)"
#define O_CLIENT       "(o.caller >> 32)"
#define X(column)      "coalesce(x." column ", 0)"
#define LEFT_JOIN_MORE " LEFT JOIN op_more x ON x.key = o.key"

/* The halves of a01 and v12, and what op_more has of them above 32 bits. */
#define O_A0	      "((o.a01 & 0xffffffff) | (coalesce(x.a01_high, 0) << 32))"
#define O_A1	      "(((o.a01 >> 32) & 0xffffffff) | ((coalesce(x.a01_high, 0) >> 32) << 32))"
#define O_V1	      "((o.v12 & 0xffffffff) | (coalesce(x.v12_high, 0) << 32))"
#define O_V2	      "(((o.v12 >> 32) & 0xffffffff) | ((coalesce(x.v12_high, 0) >> 32) << 32))"
#define O_FIRST_EVENT "(o.events >> 24)"
#define O_NR_EVENTS   "(o.events & 0xffffff)"

static_assert(OP_CODE_END <= 0x100, "op_rows.what has a byte for it");
static_assert(ROW_NR_EVENTS_BITS == 24, "O_FIRST_EVENT and O_NR_EVENTS spell it");

static const char tables_sql[] =
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE machines("
    " id INTEGER PRIMARY KEY, name TEXT NOT NULL, backend TEXT NOT NULL,"
    " forked_from INTEGER NOT NULL, forked_at_op INTEGER NOT NULL, frozen INTEGER NOT NULL,"
    " created_ns INTEGER NOT NULL, ended_ns INTEGER,"
    " least_detail INTEGER NOT NULL,"
    " preset INTEGER NOT NULL, flags INTEGER NOT NULL, page_offset INTEGER NOT NULL,"
    " vmalloc_bytes INTEGER NOT NULL, cpus INTEGER NOT NULL, user_fallback INTEGER NOT NULL,"
    " detail INTEGER NOT NULL, late_pages INTEGER NOT NULL, ram INTEGER NOT NULL,"
    " mem INTEGER NOT NULL, highmem INTEGER NOT NULL, kernelcore INTEGER NOT NULL,"
    " movablecore INTEGER NOT NULL, e820 TEXT NOT NULL, reserved TEXT NOT NULL) STRICT;"
    "CREATE TABLE clients("
    " id INTEGER PRIMARY KEY, address TEXT NOT NULL, time_ns INTEGER NOT NULL) STRICT;"
    "CREATE TABLE owners("
    " machine INTEGER NOT NULL, number INTEGER NOT NULL, label TEXT NOT NULL,"
    " PRIMARY KEY(machine, number)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE op_rows("
    " key INTEGER PRIMARY KEY, time_ns INTEGER, what INTEGER, caller INTEGER,"
    " latency_ns INTEGER, a0 INTEGER, a1 INTEGER, v0 INTEGER, v1 INTEGER, v2 INTEGER,"
    " first_event INTEGER, nr_events INTEGER, kinds INTEGER) STRICT;"
    "CREATE TABLE op_more("
    " key INTEGER PRIMARY KEY, token INTEGER, sequence INTEGER, a2 INTEGER, a3 INTEGER,"
    " a4 INTEGER, a5 INTEGER, v3 INTEGER, data_len INTEGER, result_len INTEGER,"
    " result_hash INTEGER) STRICT;"
    /* Only ops of clients that want to ask again pay for this. */
    "CREATE INDEX op_more_token ON op_more(token, sequence) WHERE token IS NOT NULL;"
    /* Belongs to the tables, not to the contract: what they hold, field by field. */
    "CREATE VIEW ops AS SELECT o.key AS key, " O_CODE " AS code, " O_CPU " AS cpu, " O_TASK
    " AS task, " O_OWNER " AS owner, " O_STATUS " AS status, o.time_ns AS time_ns,"
    " o.latency_ns AS latency_ns, " O_CLIENT " AS client, x.token AS token,"
    " x.sequence AS sequence, o.a0 AS a0, o.a1 AS a1, coalesce(x.a2, 0) AS a2,"
    " coalesce(x.a3, 0) AS a3, coalesce(x.a4, 0) AS a4, coalesce(x.a5, 0) AS a5,"
    " o.v0 AS v0, o.v1 AS v1, o.v2 AS v2, coalesce(x.v3, 0) AS v3,"
    " coalesce(x.data_len, 0) AS data_len, coalesce(x.result_len, 0) AS result_len,"
    " coalesce(x.result_hash, 0) AS result_hash, o.first_event AS first_event,"
    " o.nr_events AS nr_events, o.kinds AS kinds FROM op_rows o" LEFT_JOIN_MORE ";"
    "CREATE TABLE completions("
    " key INTEGER PRIMARY KEY, woken_by INTEGER NOT NULL, time_ns INTEGER NOT NULL,"
    " status INTEGER NOT NULL, task INTEGER NOT NULL,"
    " v0 INTEGER, v1 INTEGER, v2 INTEGER, v3 INTEGER) STRICT;"
    "CREATE TABLE payloads(key INTEGER PRIMARY KEY, data BLOB) STRICT;"
    "CREATE TABLE events("
    " id INTEGER PRIMARY KEY, kind INTEGER, w0 INTEGER, w1 INTEGER, w2 INTEGER, w3 INTEGER,"
    " w4 INTEGER, w5 INTEGER) STRICT;"
    "CREATE TABLE op_names("
    " code INTEGER PRIMARY KEY, name TEXT NOT NULL, word TEXT NOT NULL, doc TEXT NOT NULL)"
    " STRICT;"
    "CREATE TABLE event_kinds("
    " kind INTEGER PRIMARY KEY, name TEXT NOT NULL, notable INTEGER NOT NULL,"
    " doc TEXT NOT NULL) STRICT;"
    "CREATE TABLE enum_values("
    " enum TEXT NOT NULL, value INTEGER NOT NULL, name TEXT NOT NULL, doc TEXT NOT NULL,"
    " PRIMARY KEY(enum, value)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE view_columns("
    " view TEXT NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL,"
    " doc TEXT NOT NULL, PRIMARY KEY(view, position)) STRICT, WITHOUT ROWID;";

/* What each version added to the one before it. A fresh file goes through all of them, so
 * that there is one way to come to be what it is. */
static const char version_2_sql[] =
    "ALTER TABLE machines ADD COLUMN first_op INTEGER NOT NULL DEFAULT 1;"
    "CREATE TABLE checkpoints("
    " key INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, digest TEXT NOT NULL,"
    " frames INTEGER NOT NULL, owners INTEGER NOT NULL, parked TEXT NOT NULL,"
    " first_piece INTEGER NOT NULL, nr_pieces INTEGER NOT NULL) STRICT;"
    "CREATE TABLE checkpoint_pieces(id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;";

static const char version_3_sql[] =
    "CREATE TABLE losses("
    " machine INTEGER NOT NULL, last_op INTEGER NOT NULL, time_ns INTEGER NOT NULL,"
    " reason TEXT NOT NULL) STRICT;";

/* The rows of ops and events in fewer columns. What fits no number of its new place is a
 * text, which a STRICT table refuses. The views of the contract still name the old tables:
 * legacy_alter_table, or they would forbid to rename one; they are made anew in any case.
 * (SQLite gives <<, & and | one precedence.) */
#define PAIR_OF_ARGS   "(a0 & 0xffffffff) | (a1 << 32)"
#define PAIR_OF_VALUES "(v1 & 0xffffffff) | (v2 << 32)"
static const char version_4_sql[] =
    "PRAGMA legacy_alter_table = ON;"
    "DROP VIEW ops;"
    "CREATE TABLE event_rows("
    " kind INTEGER, w01 INTEGER, w23 INTEGER, w45 INTEGER, id INTEGER PRIMARY KEY) STRICT;"
    "INSERT INTO event_rows SELECT kind, w0 | (w1 << 32), w2 | (w3 << 32), w4 | (w5 << 32), id"
    " FROM events ORDER BY id;"
    "DROP TABLE events;"
    "CREATE VIEW events AS SELECT id, kind,"
    " w01 & 0xffffffff AS w0, (w01 >> 32) & 0xffffffff AS w1,"
    " w23 & 0xffffffff AS w2, (w23 >> 32) & 0xffffffff AS w3,"
    " w45 & 0xffffffff AS w4, (w45 >> 32) & 0xffffffff AS w5 FROM event_rows;"
    "ALTER TABLE op_more ADD COLUMN a01_high INTEGER;"
    "ALTER TABLE op_more ADD COLUMN v12_high INTEGER;"
    "INSERT INTO op_more(key, a2, a3, a4, a5, v3, data_len, result_len, result_hash,"
    " a01_high, v12_high) SELECT key, 0, 0, 0, 0, 0, 0, 0, 0,"
    " ((a0 >> 32) & 0xffffffff) | ((a1 >> 32) << 32),"
    " ((v1 >> 32) & 0xffffffff) | ((v2 >> 32) << 32)"
    " FROM op_rows WHERE (a0 | a1 | v1 | v2) >> 32 <> 0"
    " ON CONFLICT(key) DO UPDATE SET a01_high = excluded.a01_high, v12_high = excluded.v12_high;"
    "CREATE TABLE op_rows_4("
    " time_ns INTEGER, what INTEGER, caller INTEGER, latency_ns INTEGER, a01 INTEGER,"
    " v0 INTEGER, v12 INTEGER, events INTEGER, kinds INTEGER, key INTEGER PRIMARY KEY)"
    " STRICT;"
    "INSERT INTO op_rows_4 SELECT time_ns, what, caller, latency_ns, " PAIR_OF_ARGS
    ", v0, " PAIR_OF_VALUES ", CASE WHEN nr_events = 0 THEN 0"
    " WHEN nr_events <= 0xffffff AND first_event >> 39 = 0"
    " THEN (first_event << 24) | nr_events ELSE 'more events than there is room for' END, kinds,"
    " key"
    " FROM op_rows ORDER BY key;"
    "DROP TABLE op_rows;"
    "ALTER TABLE op_rows_4 RENAME TO op_rows;"
    "CREATE VIEW ops AS SELECT o.key AS key, " O_CODE " AS code, " O_CPU " AS cpu, " O_TASK
    " AS task, " O_OWNER " AS owner, " O_STATUS " AS status, o.time_ns AS time_ns,"
    " o.latency_ns AS latency_ns, " O_CLIENT " AS client, x.token AS token,"
    " x.sequence AS sequence, " O_A0 " AS a0, " O_A1 " AS a1, coalesce(x.a2, 0) AS a2,"
    " coalesce(x.a3, 0) AS a3, coalesce(x.a4, 0) AS a4, coalesce(x.a5, 0) AS a5,"
    " o.v0 AS v0, " O_V1 " AS v1, " O_V2 " AS v2, coalesce(x.v3, 0) AS v3,"
    " coalesce(x.data_len, 0) AS data_len, coalesce(x.result_len, 0) AS result_len,"
    " coalesce(x.result_hash, 0) AS result_hash, " O_FIRST_EVENT " AS first_event, " O_NR_EVENTS
    " AS nr_events, o.kinds AS kinds FROM op_rows o" LEFT_JOIN_MORE ";"
    "PRAGMA legacy_alter_table = OFF;";

static const char *const migrations[HISTORY_SCHEMA_VERSION + 1] = {
    [2] = version_2_sql, /* from 1 */
    [3] = version_3_sql, /* from 2 */
    [4] = version_4_sql, /* from 3 */
};

/* ---- the text of a view ---- */

enum { VIEW_COLUMNS_MAX = 48 };

struct view {
	sqlite3_str *sql;
	sqlite3_str *rows; /* INSERTs into view_columns */
	const char *name;
	char *columns[VIEW_COLUMNS_MAX];
	unsigned nr_columns;
};

static const struct contract_enum *find_enum(const char *name)
{
	for (unsigned i = 0; i < contract_nr_enums; i++) {
		if (strcmp(contract_enums[i].name, name) == 0)
			return &contract_enums[i];
	}
	return NULL;
}

/* The name of an enum's value; the number itself where it has no name. */
static char *enum_case(const struct contract_enum *e, const char *raw)
{
	sqlite3_str *s = sqlite3_str_new(NULL);

	sqlite3_str_appendf(s, "CASE %s", raw);
	for (unsigned i = 0; i < e->nr_values; i++)
		sqlite3_str_appendf(s, " WHEN %u THEN %Q", e->values[i].number, e->values[i].name);
	sqlite3_str_appendf(s, " ELSE CAST(%s AS TEXT) END", raw);
	return sqlite3_str_finish(s);
}

/* The names of an OR: that of the whole value where it has one, else its bits'. */
static char *flags_names(const struct contract_field *f, const char *raw)
{
	const struct contract_enum *bits = f->enums[1] ? f->enums[1] : f->enums[0];

	return sqlite3_mprintf(
	    "coalesce((SELECT name FROM enum_values WHERE enum = %Q AND value = %s),"
	    " (SELECT group_concat(name, '|') FROM enum_values"
	    " WHERE enum = %Q AND value > 0 AND (%s & value) = value))",
	    f->enums[0]->name, raw, bits->name, raw);
}

/* A list of 32-bit little-endian words as a JSON array. Plain SQL, so that any
 * SQLite can read the view. */
static const char list_sql[] =
    "(SELECT json_group_array("
    "(instr('123456789ABCDEF', substr(h, 1, 1)) << 4) + instr('123456789ABCDEF', substr(h, 2, 1))"
    " + (instr('123456789ABCDEF', substr(h, 3, 1)) << 12)"
    " + (instr('123456789ABCDEF', substr(h, 4, 1)) << 8)"
    " + (instr('123456789ABCDEF', substr(h, 5, 1)) << 20)"
    " + (instr('123456789ABCDEF', substr(h, 6, 1)) << 16)"
    " + (instr('123456789ABCDEF', substr(h, 7, 1)) << 28)"
    " + (instr('123456789ABCDEF', substr(h, 8, 1)) << 24))"
    " FROM (WITH RECURSIVE w(i) AS (SELECT 0 UNION ALL SELECT i + 4 FROM w WHERE i + 4 < "
    "x.data_len)"
    " SELECT hex(substr(p.data, i + 1, 4)) AS h FROM payloads p, w WHERE p.key = o.key))";

static bool view_has(const struct view *v, const char *name)
{
	for (unsigned i = 0; i < v->nr_columns; i++) {
		if (strcmp(v->columns[i], name) == 0)
			return true;
	}
	return false;
}

static void view_begin(struct view *v, sqlite3_str *script, const char *name, const char *doc)
{
	memset(v, 0, sizeof(*v));
	v->sql = script;
	v->rows = sqlite3_str_new(NULL);
	v->name = sqlite3_mprintf("%s", name);
	sqlite3_str_appendf(script, "CREATE VIEW %s AS -- %s\nSELECT", name, doc);
}

/* Adds a column. A name that is taken already gets `prefix` before it. */
static void view_add(struct view *v, const char *prefix, const char *name, const char *expression,
		     const char *unit, const char *doc)
{
	char *column = view_has(v, name) ? sqlite3_mprintf("%s_%s", prefix, name)
					 : sqlite3_mprintf("%s", name);

	if (v->nr_columns == VIEW_COLUMNS_MAX || !column)
		abort();
	sqlite3_str_appendf(v->sql, "%s\n %s AS \"%w\"", v->nr_columns ? "," : "", expression,
			    column);
	sqlite3_str_appendf(v->rows, "INSERT INTO view_columns VALUES(%Q, %u, %Q, %Q, %Q);\n",
			    v->name, v->nr_columns + 1, column, unit, doc);
	v->columns[v->nr_columns++] = column;
}

static void view_add_taking(struct view *v, const char *prefix, const char *name, char *expression,
			    const char *unit, const char *doc)
{
	view_add(v, prefix, name, expression, unit, doc);
	sqlite3_free(expression);
}

/* The column of a contract's field, and for flags a second one with their names. */
static void view_add_field(struct view *v, const char *prefix, const struct contract_field *f,
			   const char *raw)
{
	char *names;

	if (f->kind == FIELD_ENUM) {
		view_add_taking(v, prefix, f->name, enum_case(f->enums[0], raw), "", f->doc);
		return;
	}
	if (f->kind == FIELD_I32)
		view_add_taking(v, prefix, f->name, sqlite3_mprintf("((%s) << 32) >> 32", raw),
				f->unit, f->doc);
	else
		view_add(v, prefix, f->name, raw, f->unit, f->doc);
	if (f->is_flags && f->enums[0]) {
		names = sqlite3_mprintf("%s_names", f->name);
		view_add_taking(v, prefix, names, flags_names(f, raw), "", f->doc);
		sqlite3_free(names);
	}
}

static void view_end(struct view *v, const char *from)
{
	char *rows = sqlite3_str_finish(v->rows);

	sqlite3_str_appendf(v->sql, "\n%s;\n%s", from, rows ? rows : "");
	sqlite3_free(rows);
	for (unsigned i = 0; i < v->nr_columns; i++)
		sqlite3_free(v->columns[i]);
	sqlite3_free((void *)v->name);
}

/* ---- the views of the contract ---- */

/* Machines first: a condition on machine or machine_id then becomes a range of
 * keys. CROSS JOIN is SQLite's way to say so, and a + before a column keeps its
 * planner from building an index on it for the query: that would take the place of
 * the range of keys, and read every event of a kind once for each op. */
#define FROM_OPS                               \
	"FROM machines m CROSS JOIN op_rows o" \
	" ON o.key BETWEEN m.id << 40 AND (m.id << 40) + 0xffffffffff"
#define JOIN_EVENTS            \
	" CROSS JOIN events e" \
	" ON e.id >= " O_FIRST_EVENT " AND e.id < " O_FIRST_EVENT " + " O_NR_EVENTS
#define OP_NUMBER "(o.key & 0xffffffffff)"
#define OWNER_OF  "(SELECT label FROM owners WHERE machine = m.id AND number = " O_OWNER ")"
#define OP_NAME	  "(SELECT name FROM op_names WHERE code = " O_CODE ")"

#define PARKED "15"
/* No key, and so no search, for an op that did not park. */
#define LEFT_JOIN_COMPLETIONS \
	" LEFT JOIN completions c ON c.key = CASE WHEN " O_STATUS " = " PARKED " THEN o.key END"

static_assert(KEY_OP_BITS == 40, "FROM_OPS and OP_NUMBER spell it");
static_assert(STATUS_PARKED == 15, "PARKED spells it");

struct fixed_column {
	const char *name, *expression, *unit, *doc;
};

static const struct fixed_column op_base[] = {
    {"machine_id", "m.id", "", "Number of the machine; never reused."},
    {"machine", "m.name", "", "Name of the machine."},
    {"op", OP_NUMBER, "", "Number of the op on its machine, from 1; 0 is the machine's making."},
    {"key", "o.key", "", "machine_id << 40 | op: the row in ops."},
    {"time_ns", "o.time_ns", "ns", "Wall clock of the turn, since 1970."},
    {"time", "strftime('%Y-%m-%dT%H:%M:%fZ', o.time_ns / 1e9, 'unixepoch')", "",
     "The same, to be read."},
    {"latency_ns", "o.latency_ns", "ns", "From the op's arrival to its execution."},
    {"cpu", O_CPU, "", "CPU that executed it."},
    {"task", O_TASK, "", "Task on whose behalf; 0: the kernel's own context."},
    {"owner", OWNER_OF, "", "The caller's label."},
    {"client", O_CLIENT, "", "Row in clients; 0: the daemon itself."},
};

static void view_add_fixed(struct view *v, const struct fixed_column *columns, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		view_add(v, "base", columns[i].name, columns[i].expression, columns[i].unit,
			 columns[i].doc);
}

static void op_view(sqlite3_str *script, const struct contract_op *op)
{
	static const char *const values[OP_VALUES] = {"o.v0", O_V1, O_V2, "x.v3"};
	char *name = sqlite3_mprintf("op_%s", op->snake);
	char raw[192];
	struct view v;

	view_begin(&v, script, name, op->doc);
	view_add_fixed(&v, op_base, sizeof(op_base) / sizeof(op_base[0]));
	view_add_taking(&v, "base", "status",
			enum_case(find_enum("Status"), "coalesce(c.status, " O_STATUS ")"), "",
			"How it ended; PARKED: it still sleeps.");
	view_add(&v, "base", "woken_by", "c.woken_by", "",
		 "Of an op that had parked: who ended it.");
	for (unsigned i = 0; i < op->args.nr_ints; i++) {
		snprintf(raw, sizeof(raw), X("a%u"), i);
		view_add_field(&v, "arg", &op->args.ints[i], i == 0 ? O_A0 : i == 1 ? O_A1 : raw);
	}
	if (op->args.data) {
		const struct contract_field *f = op->args.data;
		bool list = f->kind == FIELD_U32_LIST, text = strcmp(f->name, "name") == 0;

		view_add(&v, "arg", f->name,
			 list	? list_sql
			 : text ? "(SELECT CAST(data AS TEXT) FROM payloads WHERE key = o.key)"
				: "(SELECT data FROM payloads WHERE key = o.key)",
			 f->unit, f->doc);
	}
	for (unsigned i = 0; i < op->values.nr_ints; i++) {
		snprintf(raw, sizeof(raw), "coalesce(c.v%u, %s, 0)", i, values[i]);
		view_add_field(&v, "result", &op->values.ints[i], raw);
	}
	if (op->values.data) {
		view_add(&v, "result", "result_length", X("result_len"), "bytes",
			 "Length of the data that the op answered.");
		view_add(&v, "result", "result_hash", X("result_hash"), "",
			 "FNV-1a of that data, 64 bits.");
	}
	sqlite3_str_appendf(script, "\n" FROM_OPS " AND " O_CODE " = %u", op->code);
	view_end(&v, LEFT_JOIN_MORE LEFT_JOIN_COMPLETIONS);
	sqlite3_free(name);
}

static const struct fixed_column event_base[] = {
    {"machine_id", "m.id", "", "Number of the machine; never reused."},
    {"machine", "m.name", "", "Name of the machine."},
    {"op", OP_NUMBER, "", "Number of the op in which it happened."},
    {"key", "o.key", "", "machine_id << 40 | op: the row in ops."},
    {"idx", "e.id - " O_FIRST_EVENT, "", "Index in the op, among what was kept."},
    {"time_ns", "o.time_ns", "ns", "Wall clock of the turn, since 1970."},
    {"op_name", OP_NAME, "", "Name of the op."},
    {"owner", OWNER_OF, "", "Label of the op's caller."},
};

/* The expression of a field that begins at word `at`; returns the words it takes. */
static unsigned event_raw(const struct contract_field *f, unsigned at, char *raw, size_t size)
{
	if (f->kind == FIELD_U64) {
		snprintf(raw, size, "(e.w%u | (e.w%u << 32))", at, at + 1);
		return 2;
	}
	snprintf(raw, size, "e.w%u", at);
	return 1;
}

static void event_view(sqlite3_str *script, const struct contract_event *event)
{
	char *name = sqlite3_mprintf("event_%s", event->name);
	unsigned at = 0;
	char raw[96];
	struct view v;

	view_begin(&v, script, name, event->doc);
	view_add_fixed(&v, event_base, sizeof(event_base) / sizeof(event_base[0]));
	for (unsigned i = 0; i < event->fields.nr_ints; i++) {
		at += event_raw(&event->fields.ints[i], at, raw, sizeof(raw));
		view_add_field(&v, "event", &event->fields.ints[i], raw);
	}
	snprintf(raw, sizeof(raw), "m.least_detail >= %d AND m.first_op = 1",
		 event->notable ? DETAIL_NOTABLE : DETAIL_ALL);
	view_add(&v, "event", "complete", raw, "",
		 "1: the machine has kept every event of this kind.");
	sqlite3_str_appendf(script, "\n" FROM_OPS " AND o.kinds & %lld", 1LL << event->kind);
	snprintf(raw, sizeof(raw), " AND +e.kind = %u", event->kind);
	sqlite3_str_appendall(script, JOIN_EVENTS);
	view_end(&v, raw);
	sqlite3_free(name);
}

/* ---- the views that people ask for ---- */

/* Event kinds and the window as the views below spell them. */
#define K_ALLOC	      "1"
#define K_FREE	      "2"
#define K_FALLBACK    "7"
#define K_ZONE_READY  "15"
#define K_PTE_SET     "20"
#define K_PTE_CLEARED "21"
#define K_PAGE_FAULT  "29"
#define W_PKMAP	      "3"

static_assert(EVENT_ALLOC == 1 && EVENT_FREE == 2 && EVENT_ZONE_FALLBACK == 7 &&
		  EVENT_ZONE_READY == 15 && EVENT_PTE_SET == 20 && EVENT_PTE_CLEARED == 21 &&
		  EVENT_PAGE_FAULT == 29 && WINDOW_PKMAP == 3,
	      "K_ and W_ spell them");

/* SQLite gives <<, & and | one precedence. */
#define BIT(kind) "(1 << " kind ")"
#define NAME_OF(enum_name, x) \
	"(SELECT name FROM enum_values WHERE enum = '" enum_name "' AND value = " x ")"
/* The same of a zone for views of many rows: it costs a sixth of a look into enum_values. */
#define ZONE_NAME(x)                                                         \
	"CASE " x " WHEN 0 THEN 'ZONE_DMA' WHEN 1 THEN 'ZONE_NORMAL' WHEN 2" \
	" THEN 'ZONE_HIGHMEM' WHEN 3 THEN 'ZONE_MOVABLE' END"
#define GFP_NAMES(x)                                                                       \
	"coalesce(" NAME_OF("Gfp", x) ", (SELECT group_concat(name, '|') FROM enum_values" \
				      " WHERE enum = 'GfpBit' AND value > 0"               \
				      " AND (" x " & value) = value))"
/* Machines, their ops that have such events, and those events. */
#define OPS_WITH(kinds) FROM_OPS " AND o.kinds & (" kinds ")" JOIN_EVENTS
#define WITH_FALLBACK	OPS_WITH(BIT(K_FALLBACK)) " AND +e.kind = " K_FALLBACK
#define WITH_PAGE_FAULT OPS_WITH(BIT(K_PAGE_FAULT)) " AND +e.kind = " K_PAGE_FAULT
#define WITH_ALLOC_FREE \
	OPS_WITH(BIT(K_ALLOC) " | " BIT(K_FREE)) " AND +e.kind IN (" K_ALLOC ", " K_FREE ")"
#define FREE_PAGES_KINDS BIT(K_ALLOC) " | " BIT(K_FREE) " | " BIT(K_ZONE_READY)
#define WITH_FREE_PAGES            \
	OPS_WITH(FREE_PAGES_KINDS) \
	" AND +e.kind IN (" K_ALLOC ", " K_FREE ", " K_ZONE_READY ")"
#define WITH_PKMAP                                        \
	OPS_WITH(BIT(K_PTE_SET) " | " BIT(K_PTE_CLEARED)) \
	" AND +e.kind IN (" K_PTE_SET ", " K_PTE_CLEARED ") AND +e.w0 = " W_PKMAP
/* Every window function is partitioned by both, so that a condition on either is
 * applied before the window is made. */
#define OF_MACHINE "PARTITION BY m.id, m.name"
/* The order in which FROM_OPS and JOIN_EVENTS give them: nothing is sorted. */
#define OF_MACHINE_IN_ORDER OF_MACHINE " ORDER BY o.key, e.id ROWS UNBOUNDED PRECEDING"

#define MACHINE_COLUMNS                                                           \
	{"machine_id", "machine_id", "", "Number of the machine; never reused."}, \
	{                                                                         \
		"machine", "machine", "", "Name of the machine."                  \
	}
#define COMPLETE_COLUMN(level)                                                    \
	{                                                                         \
		"complete", "least_detail >= " level " AND first_op = 1", "",     \
		    "1: the machine has kept every event that this is made from." \
	}

static const struct fixed_column machine_detail_columns[] = {
    MACHINE_COLUMNS,
    {"from_op", "from_op", "", "First op whose events are kept so."},
    {"detail", NAME_OF("Detail", "detail"), "", "What the history keeps from there on."},
};
static const char machine_detail_from[] =
    "FROM (SELECT id AS machine_id, name AS machine, 0 AS from_op,"
    " CASE detail WHEN 0 THEN 3 ELSE detail END AS detail FROM machines"
    " UNION ALL SELECT m.id, m.name, " OP_NUMBER " + 1, x.a2 " FROM_OPS " AND " O_CODE
    " = 25 AND " O_STATUS " = 0 CROSS JOIN op_more x ON x.key = o.key AND x.a2 <> 0)";
static_assert(OP_SET_POLICY == 25 && DETAIL_ALL == 3, "machine_detail spells them");

static const struct fixed_column machine_config_columns[] = {
    {"machine_id", "m.id", "", "Number of the machine; never reused."},
    {"machine", "m.name", "", "Name of the machine."},
    {"backend", "m.backend", "", "sim or kernel."},
    {"live", "m.ended_ns IS NULL", "", "1 until Destroy."},
    {"first_op", "m.first_op", "",
     "First op that is kept; what led there is in a checkpoint. 1: all are."},
    {"preset", NAME_OF("Preset", "m.preset"), "", "Its layout."},
    {"pae", "m.flags & 1", "", "Three-level page tables."},
    {"early", "(m.flags >> 1) & 1", "", "Begins with memblock alone."},
    {"highmem_off", "(m.flags >> 2) & 1", "", "RAM above lowmem is not used."},
    {"thp_off", "(m.flags >> 3) & 1", "", "Marks as without transparent huge pages."},
    {"poison_free", "(m.flags >> 4) & 1", "", "Freed frames are filled with 0xaa."},
    {"page_offset", "m.page_offset", "va", "0: 0xc0000000."},
    {"vmalloc", "m.vmalloc_bytes", "bytes", "0: the preset's."},
    {"cpus", "m.cpus", "", "0: one."},
    {"user_fallback", NAME_OF("UserFallback", "m.user_fallback"), "", "At creation."},
    {"ram", "m.ram", "bytes", "Of the usual PC map; 0: e820 says."},
    {"mem", "m.mem", "bytes", "RAM from here on is ignored; 0: no limit."},
    {"highmem", "m.highmem", "bytes", "Cap of HIGHMEM; 0: none."},
    {"kernelcore", "m.kernelcore", "bytes", "Non-movable part; 0: none."},
    {"movablecore", "m.movablecore", "bytes", "ZONE_MOVABLE; 0: none."},
    {"late_pages", "m.late_pages", "pages", "Given back after the marks are set."},
    {"e820", "m.e820", "", "JSON: start, size and type of each entry."},
    {"reserved", "m.reserved", "", "JSON: start and size of each range."},
};
static_assert(CONFIG_PAE == 1 && CONFIG_EARLY == 2 && CONFIG_HIGHMEM_OFF == 4 &&
		  CONFIG_THP_OFF == 8 && CONFIG_POISON_FREE == 16,
	      "machine_config spells them");

static const struct fixed_column op_log_columns[] = {
    {"machine_id", "m.id", "", "Number of the machine; never reused."},
    {"machine", "m.name", "", "Name of the machine."},
    {"op", OP_NUMBER, "", "Number of the op on its machine."},
    {"key", "o.key", "", "machine_id << 40 | op: the row in ops."},
    {"name", OP_NAME, "", "Name of the op; null for 0, the machine's making."},
    {"time_ns", "o.time_ns", "ns", "Wall clock of the turn, since 1970."},
    {"latency_ns", "o.latency_ns", "ns", "From the op's arrival to its execution."},
    {"cpu", O_CPU, "", "CPU that executed it."},
    {"task", O_TASK, "", "Task on whose behalf."},
    {"owner", OWNER_OF, "", "The caller's label."},
    {"client", "(SELECT address FROM clients WHERE id = " O_CLIENT ")", "", "Who sent it."},
    {"status", NAME_OF("Status", O_STATUS), "", "As answered at once; PARKED: see ended."},
    {"ended", NAME_OF("Status", "c.status"), "", "Of an op that had parked: how it ended."},
    {"woken_by", "c.woken_by", "", "Of an op that had parked: who ended it."},
    {"args", "json_array(" O_A0 ", " O_A1 ", " X("a2") ", " X("a3") ", " X("a4") ", " X("a5") ")",
     "", "Arguments, in order."},
    {"result", "json_array(o.v0, " O_V1 ", " O_V2 ", " X("v3") ")", "",
     "Values answered, in order."},
    {"events", O_NR_EVENTS, "", "Events kept."},
};

static const struct fixed_column event_log_columns[] = {
    {"machine_id", "m.id", "", "Number of the machine; never reused."},
    {"machine", "m.name", "", "Name of the machine."},
    {"op", OP_NUMBER, "", "Number of the op in which it happened."},
    {"key", "o.key", "", "machine_id << 40 | op: the row in ops."},
    {"idx", "e.id - " O_FIRST_EVENT, "", "Index in the op, among what was kept."},
    {"op_name", OP_NAME, "", "Name of the op."},
    {"kind", "(SELECT name FROM event_kinds WHERE kind = e.kind)", "", "Kind of the event."},
    {"words", "json_array(e.w0, e.w1, e.w2, e.w3, e.w4, e.w5)", "", "As the record has them."},
};

static const struct fixed_column allocations_columns[] = {
    MACHINE_COLUMNS,
    {"pfn", "pfn", "pfn", "First frame of the block."},
    {"order", "a.\"order\"", "", "It has 2^order frames."},
    {"pages", "1 << a.\"order\"", "pages", "The same as a number of frames."},
    {"gfp", "gfp", "", "Flags of the request."},
    {"gfp_names", GFP_NAMES("gfp"), "", "The same by name."},
    {"zone", ZONE_NAME("zone"), "", "Where it lies."},
    {"migratetype", NAME_OF("Migratetype", "migratetype"), "", "Of the pageblock it came from."},
    {"owner", "(SELECT label FROM owners WHERE machine = machine_id AND number = a.owner)", "",
     "Label of the caller for whom it was allocated."},
    {"task", "a.task", "", "Task for whom it was allocated."},
    {"from_op", "a.op", "", "Op that allocated it."},
    {"from_op_name", "(SELECT name FROM op_names WHERE code = a.code)", "", "Name of that op."},
    {"from_time_ns", "a.time_ns", "ns", "When."},
    {"to_op", "f.key & 0xffffffffff", "", "Op that freed it; null: none has."},
    {"to_op_name", "(SELECT name FROM op_names WHERE code = f.what & 0xff)", "",
     "Name of that op."},
    {"to_time_ns", "f.time_ns", "ns", "When."},
    {"live", "next_key IS NULL", "", "1: not freed, as far as events were kept."},
    COMPLETE_COLUMN("3"),
};
static const char allocations_from[] =
    "FROM (SELECT m.id AS machine_id, m.name AS machine, m.least_detail, m.first_op, " OP_NUMBER
    " AS op,"
    " " O_CODE " AS code, " O_TASK " AS task, " O_OWNER
    " AS owner, o.time_ns, e.kind, e.w0 AS pfn, e.w1 AS \"order\", e.w2 AS gfp,"
    " e.w3 AS zone, e.w4 AS migratetype, lead(CASE e.kind WHEN " K_FREE
    " THEN o.key ELSE 0 END) OVER w AS next_key " WITH_ALLOC_FREE " WINDOW w AS (" OF_MACHINE
    ", e.w0 ORDER BY e.id)) a"
    " LEFT JOIN op_rows f ON f.key = a.next_key"
    " WHERE a.kind = " K_ALLOC;

static const struct fixed_column zone_fallbacks_columns[] = {
    {"machine_id", "m.id", "", "Number of the machine; never reused."},
    {"machine", "m.name", "", "Name of the machine."},
    {"op", OP_NUMBER, "", "Op whose request fell back."},
    {"op_name", OP_NAME, "", "Its name."},
    {"time_ns", "o.time_ns", "ns", "When."},
    {"owner", OWNER_OF, "", "Label of the op's caller."},
    {"wanted", NAME_OF("Zone", "e.w0"), "", "The zone that the request would have liked best."},
    {"got", NAME_OF("Zone", "e.w1"), "", "The zone that served it."},
    {"why", NAME_OF("FallbackReason", "e.w2"), "", "Why the wanted zone did not."},
    {"pfn", "e.w3", "pfn", "First frame of the block."},
    {"order", "e.w4", "", "It has 2^order frames."},
    {"gfp",
     "(SELECT a.w2 FROM events a WHERE a.id >= " O_FIRST_EVENT " AND a.id < " O_FIRST_EVENT
     " + " O_NR_EVENTS " AND a.kind = " K_ALLOC " AND a.w0 = e.w3 LIMIT 1)",
     "", "Flags of the request; null unless the detail is all."},
    {"complete", "m.least_detail >= 2 AND m.first_op = 1", "",
     "1: the machine has kept every event that this is made from."},
};
static const struct fixed_column faults_columns[] = {
    {"machine_id", "m.id", "", "Number of the machine; never reused."},
    {"machine", "m.name", "", "Name of the machine."},
    {"resolution", NAME_OF("FaultResolution", "e.w2"), "", "What the handler did."},
    {"zone", "CASE WHEN e.w3 THEN " NAME_OF("Zone", "e.w4") " END", "",
     "Zone of the frame; null: none was needed."},
    {"count", "count(*)", "", "How many."},
    {"first_op", "min(" OP_NUMBER ")", "", "The first of them."},
    {"last_op", "max(" OP_NUMBER ")", "", "The last of them."},
    {"complete", "m.least_detail >= 2 AND m.first_op = 1", "",
     "1: the machine has kept every event that this is made from."},
};
static const char faults_from[] =
    WITH_PAGE_FAULT " GROUP BY m.id, m.name, e.w2, CASE WHEN e.w3 THEN e.w4 END";

static const struct fixed_column free_pages_columns[] = {
    MACHINE_COLUMNS,
    {"op", "key & 0xffffffffff", "", "After this op."},
    {"time_ns", "time_ns", "ns", "When."},
    {"zone", ZONE_NAME("zone"), "", "The zone."},
    {"free", "free", "pages", "Free pages, those on the CPUs' lists included."},
    COMPLETE_COLUMN("3"),
};
/* From the zone's making on, less what was allocated, plus what was freed. A zone that is
 * made again (a loaded state) counts from there: what it had before is taken off, which a
 * query in the query tells that runs for such an event alone. The last event of an op in the
 * zone gives the row. There is a sum for each zone, and not a window, because a window of a
 * zone's events would have to sort them. */
#define ZONE_OF(e)                                                                             \
	"CASE " e ".kind WHEN " K_ALLOC " THEN " e ".w3 WHEN " K_FREE " THEN " e ".w2 ELSE " e \
	".w0 END"
#define ZONE_OF_EVENT	 ZONE_OF("e")
#define ZONE_OF_EARLIER	 ZONE_OF("b")
#define ZONE_OF_LATER	 ZONE_OF("f")
#define IS_FREE_PAGES(e) "+" e ".kind IN (" K_ALLOC ", " K_FREE ", " K_ZONE_READY ")"
#define READY_BEFORE                                                                      \
	"(SELECT max(r.id) FROM op_rows q CROSS JOIN events r ON r.id >= q.events >> 24"  \
	" AND r.id < (q.events >> 24) + (q.events & 0xffffff) AND r.id < e.id"            \
	" WHERE q.key BETWEEN m.id << 40 AND o.key AND q.kinds & (1 << " K_ZONE_READY ")" \
	" AND +r.kind = " K_ZONE_READY " AND r.w0 = e.w0)"
#define FREE_BEFORE                                                                      \
	"coalesce((SELECT sum(CASE b.kind WHEN " K_ALLOC " THEN -1 << b.w1 WHEN " K_FREE \
	" THEN 1 << b.w1 ELSE b.w5 END) FROM op_rows p CROSS JOIN events b"              \
	" ON b.id >= p.events >> 24 AND b.id < (p.events >> 24) + (p.events & 0xffffff)" \
	" WHERE p.key BETWEEN m.id << 40 AND o.key AND p.kinds & (" FREE_PAGES_KINDS ")" \
	" AND b.id < e.id AND b.id >= " READY_BEFORE                                     \
	" AND " IS_FREE_PAGES("b") " AND " ZONE_OF_EARLIER " = e.w0), 0)"
/* What an event adds to its zone. */
#define CHANGE                                                      \
	"CASE e.kind WHEN " K_ALLOC " THEN -1 << e.w1 WHEN " K_FREE \
	" THEN 1 << e.w1 ELSE e.w5 - " FREE_BEFORE " END"
/* Most ops have one such event, and it is their last: those need not look. */
#define HAS_LATER                                                                              \
	"CASE WHEN e.id + 1 < " O_FIRST_EVENT " + " O_NR_EVENTS                                \
	" THEN EXISTS (SELECT 1 FROM events f WHERE f.id > e.id AND f.id < " O_FIRST_EVENT     \
	" + " O_NR_EVENTS " AND " IS_FREE_PAGES("f") " AND " ZONE_OF_LATER " = " ZONE_OF_EVENT \
						     ") ELSE 0 END"
#define CHANGES                                                                               \
	"SELECT m.id AS machine_id, m.name AS machine, m.least_detail, m.first_op, "          \
	"o.key, o.time_ns, e.id, " ZONE_OF_EVENT " AS zone, " CHANGE " AS change, " HAS_LATER \
	" AS has_later " WITH_FREE_PAGES
#define FREE_OF(zone)	"sum(CASE zone WHEN " zone " THEN change ELSE 0 END) OVER w"
#define FREE_OF_DMA	FREE_OF("0")
#define FREE_OF_NORMAL	FREE_OF("1")
#define FREE_OF_HIGHMEM FREE_OF("2")
#define FREE_OF_MOVABLE FREE_OF("3")
static const char free_pages_from[] =
    "FROM (SELECT machine_id, machine, least_detail, first_op, key, time_ns, zone, has_later,"
    " CASE zone WHEN 0 THEN " FREE_OF_DMA " WHEN 1 THEN " FREE_OF_NORMAL
    " WHEN 2 THEN " FREE_OF_HIGHMEM " ELSE " FREE_OF_MOVABLE " END AS free FROM (" CHANGES
    ") WINDOW w AS (PARTITION BY machine_id, machine ORDER BY key, id ROWS UNBOUNDED PRECEDING))"
    " WHERE NOT has_later";
static_assert(ZONE_DMA == 0 && ZONE_NORMAL == 1 && ZONE_HIGHMEM == 2 && ZONE_MOVABLE == 3,
	      "free_pages has a sum for each, and ZONE_NAME() a name");

static const struct fixed_column pkmap_occupancy_columns[] = {
    MACHINE_COLUMNS,
    {"op", "op", "", "After this op."},
    {"time_ns", "time_ns", "ns", "When."},
    {"mapped", "mapped", "", "Slots with a page, those without a user included."},
    COMPLETE_COLUMN("3"),
};
static const char pkmap_occupancy_from[] =
    "FROM (SELECT m.id AS machine_id, m.name AS machine, m.least_detail, m.first_op, " OP_NUMBER
    " AS op,"
    " o.time_ns, o.key AS this_key,"
    " sum(CASE e.kind WHEN " K_PTE_SET " THEN 1 ELSE -1 END) OVER w AS mapped,"
    " lead(o.key) OVER w AS next_key " WITH_PKMAP " WINDOW w AS (" OF_MACHINE_IN_ORDER "))"
    " WHERE next_key IS NOT this_key";

#define COLUMNS(name) name##_columns, sizeof(name##_columns) / sizeof(name##_columns[0])

static const struct asked_view {
	const char *name, *doc;
	const struct fixed_column *columns;
	size_t nr_columns;
	const char *from;
} asked_views[] = {
    {"machine_config", "Machines with what they are made from, by name.", COLUMNS(machine_config),
     "FROM machines m"},
    {"machine_detail", "What the history keeps of a machine's events, and from which op on.",
     COLUMNS(machine_detail), machine_detail_from},
    {"op_log", "Every op, with its name.", COLUMNS(op_log),
     FROM_OPS LEFT_JOIN_MORE LEFT_JOIN_COMPLETIONS},
    {"event_log", "Every event that was kept, with its name.", COLUMNS(event_log),
     FROM_OPS JOIN_EVENTS},
    {"allocations", "The life of every block: who, from which op to which.", COLUMNS(allocations),
     allocations_from},
    {"zone_fallbacks", "Requests that were served from a lower zone, and whose.",
     COLUMNS(zone_fallbacks), WITH_FALLBACK},
    {"faults", "Page faults, counted by what was done about them.", COLUMNS(faults), faults_from},
    {"free_pages", "Free pages of a zone after each op that changed them.", COLUMNS(free_pages),
     free_pages_from},
    {"pkmap_occupancy", "Mapped slots of the pkmap window after each op that changed them.",
     COLUMNS(pkmap_occupancy), pkmap_occupancy_from},
};

/* ---- names and views, as one script ---- */

static void append_names(sqlite3_str *s)
{
	for (unsigned i = 0; i < OP_CODE_END; i++) {
		const struct contract_op *op = &contract_ops[i];

		if (op->code)
			sqlite3_str_appendf(s, "INSERT INTO op_names VALUES(%u, %Q, %Q, %Q);\n",
					    op->code, op->name, op->word, op->doc);
	}
	for (unsigned i = 0; i < EVENT_KIND_END; i++) {
		const struct contract_event *e = &contract_events[i];

		if (e->kind)
			sqlite3_str_appendf(s, "INSERT INTO event_kinds VALUES(%u, %Q, %d, %Q);\n",
					    e->kind, e->name, e->notable, e->doc);
	}
	for (unsigned i = 0; i < contract_nr_enums; i++) {
		const struct contract_enum *e = &contract_enums[i];

		for (unsigned k = 0; k < e->nr_values; k++)
			sqlite3_str_appendf(s, "INSERT INTO enum_values VALUES(%Q, %u, %Q, %Q);\n",
					    e->name, e->values[k].number, e->values[k].name,
					    e->values[k].doc);
	}
}

/* Everything that belongs to the contract. The caller frees it; NULL: no memory. */
static char *contract_script(void)
{
	sqlite3_str *s = sqlite3_str_new(NULL);

	append_names(s);
	for (unsigned i = 0; i < OP_CODE_END; i++) {
		if (contract_ops[i].code)
			op_view(s, &contract_ops[i]);
	}
	for (unsigned i = 0; i < EVENT_KIND_END; i++) {
		if (contract_events[i].kind)
			event_view(s, &contract_events[i]);
	}
	for (size_t i = 0; i < sizeof(asked_views) / sizeof(asked_views[0]); i++) {
		const struct asked_view *a = &asked_views[i];
		struct view v;

		view_begin(&v, s, a->name, a->doc);
		view_add_fixed(&v, a->columns, a->nr_columns);
		view_end(&v, a->from);
	}
	return sqlite3_str_finish(s);
}

/* ---- what a file is, and making it ours ---- */

static int integer_of(sqlite3 *db, const char *sql, int64_t *ret)
{
	sqlite3_stmt *st;
	int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

	if (rc == SQLITE_OK) {
		rc = sqlite3_step(st);
		if (rc == SQLITE_ROW)
			*ret = sqlite3_column_int64(st, 0);
		sqlite3_finalize(st);
	}
	return rc == SQLITE_ROW ? SQLITE_OK : rc == SQLITE_DONE ? SQLITE_EMPTY : rc;
}

int schema_version(sqlite3 *db, int64_t *ret)
{
	return integer_of(db, "PRAGMA user_version", ret);
}

int schema_recognise(sqlite3 *db, bool *ret_fresh, char *err, size_t err_size)
{
	int64_t application = 0, version = 0, tables = 0;
	int rc = integer_of(db, "PRAGMA application_id", &application);

	if (rc == SQLITE_OK)
		rc = schema_version(db, &version);
	if (rc == SQLITE_OK)
		rc = integer_of(db, "SELECT count(*) FROM sqlite_schema", &tables);
	if (rc == SQLITE_NOTADB) {
		snprintf(err, err_size, "not an SQLite file; name another one for the history");
		return HISTORY_FOREIGN;
	}
	if (rc != SQLITE_OK)
		return history_map_error(db, rc, "reading the file's header", err, err_size);
	*ret_fresh = application == 0 && version == 0 && tables == 0;
	if (*ret_fresh)
		return HISTORY_OK;
	if (application != HISTORY_APPLICATION_ID) {
		snprintf(err, err_size,
			 "an SQLite file, but not a history (application id %#" PRIx64
			 "); name another one",
			 application);
		return HISTORY_FOREIGN;
	}
	if (version > HISTORY_SCHEMA_VERSION) {
		snprintf(err, err_size,
			 "a history of schema version %" PRId64
			 ", this program knows %d; use a newer one",
			 version, HISTORY_SCHEMA_VERSION);
		return HISTORY_NEWER;
	}
	if (version < 1) {
		snprintf(err, err_size, "a history of schema version %" PRId64 ", which never was",
			 version);
		return HISTORY_CORRUPT;
	}
	return HISTORY_OK;
}

static int run(sqlite3 *db, const char *sql, const char *doing, char *err, size_t err_size)
{
	int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
	int error;

	if (rc == SQLITE_OK)
		return HISTORY_OK;
	error = history_map_error(db, rc, doing, err, err_size);
	if (!sqlite3_get_autocommit(db))
		sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	return error;
}

int schema_migrate(sqlite3 *db, char *err, size_t err_size)
{
	int64_t version = 0;
	int error = HISTORY_OK;

	schema_version(db, &version);
	while (!error && version < HISTORY_SCHEMA_VERSION) {
		char *sql = sqlite3_mprintf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT",
					    migrations[version + 1], (int)version + 1);

		error = run(db, sql, "bringing the tables up to date", err, err_size);
		sqlite3_free(sql);
		version++;
	}
	return error;
}

int schema_create(sqlite3 *db, char *err, size_t err_size)
{
	sqlite3_str *s = sqlite3_str_new(db);
	char *sql;
	int error;

	sqlite3_str_appendf(s,
			    "PRAGMA page_size = %d; BEGIN IMMEDIATE; PRAGMA application_id = %d;"
			    "PRAGMA user_version = %d; %s",
			    HISTORY_PAGE_SIZE, HISTORY_APPLICATION_ID, HISTORY_SCHEMA_VERSION,
			    tables_sql);
	for (int version = 2; version <= HISTORY_SCHEMA_VERSION; version++)
		sqlite3_str_appendall(s, migrations[version]);
	sqlite3_str_appendall(s, "COMMIT");
	sql = sqlite3_str_finish(s);
	error = run(db, sql, "making the tables", err, err_size);
	sqlite3_free(sql);
	return error;
}

/* DROP VIEW for every view of ours; those that a user has made stay. */
static char *drop_script(sqlite3 *db)
{
	sqlite3_str *s = sqlite3_str_new(NULL);
	sqlite3_stmt *st;

	if (sqlite3_prepare_v2(db,
			       "SELECT name FROM sqlite_schema WHERE type = 'view' AND name IN"
			       " (SELECT view FROM view_columns)",
			       -1, &st, NULL) == SQLITE_OK) {
		while (sqlite3_step(st) == SQLITE_ROW)
			sqlite3_str_appendf(s, "DROP VIEW \"%w\";\n", sqlite3_column_text(st, 0));
	}
	sqlite3_finalize(st);
	return sqlite3_str_finish(s);
}

int schema_refresh(sqlite3 *db, char *err, size_t err_size)
{
	char *script = contract_script(), *drops = NULL, *sql = NULL;
	int64_t have = 0, want = 0;
	int error = HISTORY_OK;

	if (!script) {
		snprintf(err, err_size, "no memory for the views");
		return HISTORY_IO;
	}
	want = (int64_t)history_hash((const uint8_t *)script, strlen(script));
	integer_of(db, "SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'contract'", &have);
	if (have == want)
		goto out;
	drops = drop_script(db);
	sql = sqlite3_mprintf("BEGIN IMMEDIATE; %s DELETE FROM op_names; DELETE FROM event_kinds;"
			      "DELETE FROM enum_values; DELETE FROM view_columns; %s"
			      "INSERT OR REPLACE INTO meta VALUES('contract', '%lld'); COMMIT",
			      drops ? drops : "", script, want);
	error = run(db, sql, "making the views", err, err_size);
out:
	sqlite3_free(sql);
	sqlite3_free(drops);
	sqlite3_free(script);
	return error;
}
