/*
 * journal.c - from records to one transaction.
 *
 * history_append() copies a record into arrays; history_commit() moves each array
 * into its table with one INSERT ... SELECT from an eponymous virtual table that
 * reads it, all within one transaction. Rare rows (machines, owners, clients) are
 * written as they come: the first of them opens the turn's transaction.
 *
 * Invariants:
 *  1. A turn is in the file whole or not at all: whatever fails rolls the
 *     transaction back and empties the arrays.
 *  2. An error before the commit (no memory, a record that fits no key) is kept and
 *     makes the commit fail; history_append() itself cannot.
 *  3. Event ids are dense in the order of commits: next_event moves only when a
 *     commit has succeeded.
 *  4. Where a row's key is one more than the largest in its table, SQLite itself makes
 *     it: looking for a place that is known to be the end is a third of an insertion.
 *     Every commit compares the last key made with the one meant.
 *     This is so for events always, for ops in the newest machine alone: an older one's
 *     lie before the newer one's, and each of them is looked for.
 *
 * Not modelled: a turn that is larger than memory. The machine bounds what one op
 * may do, and the turn what it executes; if memory ends all the same, (2) holds.
 */
#include <stdlib.h>
#include <string.h>

#include "history_priv.h"

enum {
	/* Arrays above this many bytes are given back after a turn. */
	KEEP_BYTES = 32 << 20,
};

/* ---- the arrays ---- */

static void journal_fail(struct history *h, int error, const char *why)
{
	if (h->journal.error)
		return;
	h->journal.error = error;
	snprintf(h->journal.why, sizeof(h->journal.why), "%s", why);
}

/* Room for `more` rows of `size` bytes; NULL and a failed turn without memory. */
static void *grow(struct history *h, struct growing *g, size_t more, size_t size)
{
	if (g->nr + more > g->max) {
		size_t max = g->max ? g->max * 2 : 256;
		void *rows;

		while (max < g->nr + more)
			max *= 2;
		rows = realloc(g->rows, max * size);
		if (!rows) {
			journal_fail(h, HISTORY_IO, "no memory for the turn's records");
			return NULL;
		}
		g->rows = rows;
		g->max = max;
	}
	g->nr += more;
	return (char *)g->rows + (g->nr - more) * size;
}

static void empty(struct growing *g, size_t size)
{
	if (g->max * size > KEEP_BYTES) {
		free(g->rows);
		*g = (struct growing){0};
	}
	g->nr = 0;
}

static void journal_forget(struct journal *j)
{
	empty(&j->ops, sizeof(struct pending_op));
	empty(&j->more, sizeof(struct pending_more));
	empty(&j->events, sizeof(struct pending_event));
	empty(&j->payloads, sizeof(struct pending_payload));
	empty(&j->completions, sizeof(struct pending_completion));
	empty(&j->bytes, 1);
	j->in_transaction = false;
	j->error = HISTORY_OK;
}

bool journal_pending(const struct history *h)
{
	const struct journal *j = &h->journal;

	return j->ops.nr || j->completions.nr || j->in_transaction || j->error;
}

/* Two numbers of 32 bits in a column. */
static int64_t pair(uint64_t low, uint64_t high)
{
	return (int64_t)((low & UINT32_MAX) | high << 32);
}

/* ---- the virtual tables ---- */

/* What a virtual table reads: which array, and how SQLite should see it. */
struct source {
	sqlite3_module module; /* first: xConnect finds the source by it */
	const char *name, *declaration;
	size_t array; /* offset in struct journal */
	size_t size;  /* of a row */
};

struct pending_table {
	sqlite3_vtab base;
	const struct journal *journal;
	size_t array, size;
};

struct pending_cursor {
	sqlite3_vtab_cursor base;
	const struct journal *journal;
	const char *row, *end;
	size_t size;	  /* of a row */
	int64_t last_key; /* of pending_ops: the largest in op_rows so far */
};

struct connection {
	const struct source *source;
	const struct journal *journal;
};

static int pending_connect(sqlite3 *db, void *aux, int argc, const char *const *argv,
			   sqlite3_vtab **ret, char **err)
{
	const struct connection *c = aux;
	struct pending_table *t;
	int rc = sqlite3_declare_vtab(db, c->source->declaration);

	(void)argc;
	(void)argv;
	(void)err;
	if (rc != SQLITE_OK)
		return rc;
	/* Nothing but the journal's own statements may look at it. */
	sqlite3_vtab_config(db, SQLITE_VTAB_DIRECTONLY);
	t = calloc(1, sizeof(*t));
	if (!t)
		return SQLITE_NOMEM;
	t->journal = c->journal;
	t->array = c->source->array;
	t->size = c->source->size;
	*ret = &t->base;
	return SQLITE_OK;
}

static int pending_disconnect(sqlite3_vtab *table)
{
	free(table);
	return SQLITE_OK;
}

static int pending_best_index(sqlite3_vtab *table, sqlite3_index_info *info)
{
	(void)table;
	info->estimatedCost = 1000;
	info->estimatedRows = 1000;
	return SQLITE_OK;
}

static int pending_open(sqlite3_vtab *table, sqlite3_vtab_cursor **ret)
{
	struct pending_cursor *c = calloc(1, sizeof(*c));

	if (!c)
		return SQLITE_NOMEM;
	c->journal = ((struct pending_table *)table)->journal;
	*ret = &c->base;
	return SQLITE_OK;
}

static int pending_close(sqlite3_vtab_cursor *cursor)
{
	free(cursor);
	return SQLITE_OK;
}

static int pending_filter(sqlite3_vtab_cursor *cursor, int number, const char *string, int argc,
			  sqlite3_value **argv)
{
	struct pending_cursor *c = (struct pending_cursor *)cursor;
	const struct pending_table *t = (const struct pending_table *)cursor->pVtab;
	const struct growing *g = (const struct growing *)((const char *)c->journal + t->array);

	(void)number;
	(void)string;
	(void)argc;
	(void)argv;
	c->size = t->size;
	c->row = g->rows;
	c->end = c->row + g->nr * t->size;
	c->last_key = c->journal->last_key;
	return SQLITE_OK;
}

static int pending_next(sqlite3_vtab_cursor *cursor)
{
	struct pending_cursor *c = (struct pending_cursor *)cursor;

	c->row += c->size;
	return SQLITE_OK;
}

static int pending_eof(sqlite3_vtab_cursor *cursor)
{
	const struct pending_cursor *c = (const struct pending_cursor *)cursor;

	return c->row == c->end;
}

static int pending_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *ret)
{
	(void)cursor;
	*ret = 0; /* nobody asks */
	return SQLITE_OK;
}

/* Of rows that are numbers, as they will be stored. */
static int number_column(sqlite3_vtab_cursor *cursor, sqlite3_context *out, int i)
{
	const struct pending_cursor *c = (const struct pending_cursor *)cursor;

	sqlite3_result_int64(out, ((const int64_t *)c->row)[i]);
	return SQLITE_OK;
}

static int op_column(sqlite3_vtab_cursor *cursor, sqlite3_context *out, int i)
{
	struct pending_cursor *c = (struct pending_cursor *)cursor;
	const struct pending_op *op = (const struct pending_op *)c->row;
	int64_t value = op->column[i];

	if (i == ROW_KEY && value > c->last_key) {
		bool next = value == c->last_key + 1;

		c->last_key = value;
		/* A column without a result is NULL: invariant 4. */
		if (next)
			return SQLITE_OK;
	}
	sqlite3_result_int64(out, value);
	return SQLITE_OK;
}

static int more_column(sqlite3_vtab_cursor *cursor, sqlite3_context *out, int i)
{
	const struct pending_cursor *c = (const struct pending_cursor *)cursor;
	const struct pending_more *more = (const struct pending_more *)c->row;

	/* NULL, which is outside the index of tokens. */
	if ((i == MORE_TOKEN || i == MORE_SEQUENCE) && !more->column[MORE_TOKEN])
		return SQLITE_OK;
	sqlite3_result_int64(out, more->column[i]);
	return SQLITE_OK;
}

static int payload_column(sqlite3_vtab_cursor *cursor, sqlite3_context *out, int i)
{
	const struct pending_cursor *c = (const struct pending_cursor *)cursor;
	const struct pending_payload *p = (const struct pending_payload *)c->row;

	if (i == 0)
		sqlite3_result_int64(out, p->key);
	else
		sqlite3_result_blob(out, (const char *)c->journal->bytes.rows + p->offset,
				    (int)p->length, SQLITE_STATIC);
	return SQLITE_OK;
}

static int completion_column(sqlite3_vtab_cursor *cursor, sqlite3_context *out, int i)
{
	const struct pending_cursor *c = (const struct pending_cursor *)cursor;
	const struct pending_completion *p = (const struct pending_completion *)c->row;
	const int64_t fixed[] = {p->key, (int64_t)p->woken_by, p->time_ns, p->c.status, p->c.task};
	const int nr_fixed = sizeof(fixed) / sizeof(fixed[0]);

	sqlite3_result_int64(out, i < nr_fixed ? fixed[i] : (int64_t)p->c.values[i - nr_fixed]);
	return SQLITE_OK;
}

#define MODULE(column)                                                                             \
	{                                                                                          \
		.iVersion = 0, .xConnect = pending_connect, .xBestIndex = pending_best_index,      \
		.xDisconnect = pending_disconnect, .xOpen = pending_open, .xClose = pending_close, \
		.xFilter = pending_filter, .xNext = pending_next, .xEof = pending_eof,             \
		.xColumn = (column), .xRowid = pending_rowid,                                      \
	}

static const struct source sources[] = {
    {MODULE(op_column), "pending_ops",
     "CREATE TABLE x(key, time_ns, what, caller, latency_ns, a01, v0, v12, events, kinds)",
     offsetof(struct journal, ops), sizeof(struct pending_op)},
    {MODULE(more_column), "pending_more",
     "CREATE TABLE x(key, token, sequence, a2, a3, a4, a5, v3, data_len, result_len, result_hash,"
     " a01_high, v12_high)",
     offsetof(struct journal, more), sizeof(struct pending_more)},
    {MODULE(number_column), "pending_events", "CREATE TABLE x(kind, w01, w23, w45)",
     offsetof(struct journal, events), sizeof(struct pending_event)},
    {MODULE(payload_column), "pending_payloads", "CREATE TABLE x(key, data)",
     offsetof(struct journal, payloads), sizeof(struct pending_payload)},
    {MODULE(completion_column), "pending_completions",
     "CREATE TABLE x(key, woken_by, time_ns, status, task, v0, v1, v2, v3)",
     offsetof(struct journal, completions), sizeof(struct pending_completion)},
};

/* In the order of the table; ended_ns, the eighth, comes later. */
#define INSERT_MACHINE \
	"INSERT INTO machines VALUES(?,?,?,?,?,?,?, NULL, ?,?,?,?,?,?,?,?,?,?,?,?,?,?, ?,?, 1)"

/* What is the same in every row costs SQLite less than what it has to ask for. The key is
 * the table's last column, so that without it the others need not be copied to their places. */
#define INSERT_OPS(columns, rest)                                                       \
	"INSERT INTO op_rows" columns " SELECT time_ns, what, caller, latency_ns, a01," \
	" v0, v12, " rest " FROM pending_ops"
#define OP_COLUMNS_BUT_KEY "(time_ns, what, caller, latency_ns, a01, v0, v12, events, kinds)"

/* Without an id, which SQLite makes: invariant 4. It is the last column, too. */
#define INSERT_EVENTS "INSERT INTO event_rows(kind, w01, w23, w45) SELECT * FROM pending_events"

static const char *const statement_sql[NR_STATEMENTS] = {
    [ST_BEGIN] = "BEGIN IMMEDIATE",
    [ST_COMMIT] = "COMMIT",
    [ST_ROLLBACK] = "ROLLBACK",
    [ST_INSERT_OPS] = INSERT_OPS("", "events, kinds, key"),
    [ST_INSERT_OPS_ALONE] = INSERT_OPS("", "0, 0, key"),
    [ST_INSERT_NEXT_OPS] = INSERT_OPS(OP_COLUMNS_BUT_KEY, "events, kinds"),
    [ST_INSERT_NEXT_OPS_ALONE] = INSERT_OPS(OP_COLUMNS_BUT_KEY, "0, 0"),
    [ST_INSERT_MORE] = "INSERT INTO op_more SELECT * FROM pending_more",
    [ST_INSERT_EVENTS] = INSERT_EVENTS,
    [ST_INSERT_PAYLOADS] = "INSERT INTO payloads SELECT * FROM pending_payloads",
    [ST_INSERT_COMPLETIONS] = "INSERT INTO completions SELECT * FROM pending_completions",
    [ST_INSERT_MACHINE] = INSERT_MACHINE,
    [ST_END_MACHINE] = "UPDATE machines SET ended_ns = ?2 WHERE id = ?1",
    [ST_LOWER_DETAIL] = "UPDATE machines SET least_detail = min(least_detail, ?2) WHERE id = ?1",
    [ST_INSERT_OWNER] = "INSERT INTO owners VALUES(?,?,?)",
    [ST_INSERT_CLIENT] = "INSERT INTO clients VALUES(?,?,?)",
    [ST_INSERT_LOSS] = "INSERT INTO losses VALUES(?,?,?,?)",
    [ST_INSERT_PIECE] = "INSERT INTO checkpoint_pieces VALUES(?,?)",
    [ST_INSERT_CHECKPOINT] = "INSERT INTO checkpoints VALUES(?,?,?,?,?,?,?,?)",
    [ST_LIST_CHECKPOINTS] = "SELECT key, time_ns, first_piece, nr_pieces FROM checkpoints"
			    " WHERE key BETWEEN ?1 AND ?2 ORDER BY key DESC",
    [ST_DROP_CHECKPOINT] = "DELETE FROM checkpoints WHERE key = ?",
    [ST_SET_FIRST_OP] = "UPDATE machines SET first_op = ?2 WHERE id = ?1",
    [ST_LIST_OLD_OPS] = "SELECT key, first_event, nr_events FROM ops"
			" WHERE key BETWEEN ?1 AND ?2 ORDER BY key LIMIT ?3",
    [ST_DELETE_PIECES] = "DELETE FROM checkpoint_pieces WHERE id IN (SELECT id"
			 " FROM checkpoint_pieces WHERE id BETWEEN ?1 AND ?2 LIMIT ?3)",
    [ST_DELETE_OPS] = "DELETE FROM op_rows WHERE key BETWEEN ?1 AND ?2",
    [ST_DELETE_MORE] = "DELETE FROM op_more WHERE key BETWEEN ?1 AND ?2",
    [ST_DELETE_EVENTS] = "DELETE FROM event_rows WHERE id BETWEEN ?1 AND ?2",
    [ST_DELETE_PAYLOADS] = "DELETE FROM payloads WHERE key BETWEEN ?1 AND ?2",
    [ST_DELETE_COMPLETIONS] = "DELETE FROM completions WHERE key BETWEEN ?1 AND ?2",
};

int journal_open(struct history *h, char *err, size_t err_size)
{
	int rc = SQLITE_OK;

	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]) && rc == SQLITE_OK; i++) {
		struct connection *c = malloc(sizeof(*c));

		if (!c) {
			rc = SQLITE_NOMEM;
			break;
		}
		*c = (struct connection){&sources[i], &h->journal};
		rc = sqlite3_create_module_v2(h->writer, sources[i].name, &sources[i].module, c,
					      free);
	}
	for (size_t i = 0; i < NR_STATEMENTS && rc == SQLITE_OK; i++)
		rc = sqlite3_prepare_v3(h->writer, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
					&h->statements[i], NULL);
	if (rc != SQLITE_OK)
		return history_map_error(h->writer, rc, "preparing the journal", err, err_size);
	return HISTORY_OK;
}

void journal_close(struct history *h)
{
	struct journal *j = &h->journal;

	for (size_t i = 0; i < NR_STATEMENTS; i++)
		sqlite3_finalize(h->statements[i]);
	free(j->ops.rows);
	free(j->more.rows);
	free(j->events.rows);
	free(j->payloads.rows);
	free(j->completions.rows);
	free(j->bytes.rows);
}

/* Runs a statement that gives no rows. */
static int step(struct history *h, enum history_statement which)
{
	sqlite3_stmt *st = h->statements[which];
	int rc = sqlite3_step(st);

	sqlite3_reset(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* ---- rare rows ---- */

/* The statement of a rare row, in a transaction; NULL when the turn has failed. */
sqlite3_stmt *journal_rare_begin(struct history *h, enum history_statement which)
{
	int rc;

	if (h->journal.error)
		return NULL;
	if (!h->journal.in_transaction) {
		rc = step(h, ST_BEGIN);
		if (rc != SQLITE_OK) {
			h->journal.error =
			    history_map_error(h->writer, rc, "beginning a transaction",
					      h->journal.why, sizeof(h->journal.why));
			return NULL;
		}
		h->journal.in_transaction = true;
	}
	return h->statements[which];
}

void journal_rare_end(struct history *h, enum history_statement which)
{
	int rc = step(h, which);

	sqlite3_clear_bindings(h->statements[which]);
	if (rc != SQLITE_OK && !h->journal.error)
		h->journal.error = history_map_error(h->writer, rc, "writing the record",
						     h->journal.why, sizeof(h->journal.why));
}

/* The firmware's map and the reserved ranges as JSON; the caller frees it. */
static char *json_of_e820(const struct engine_config *config)
{
	sqlite3_str *s = sqlite3_str_new(NULL);

	sqlite3_str_appendchar(s, 1, '[');
	for (uint32_t i = 0; i < config->nr_e820; i++) {
		const struct engine_e820 *e = &config->e820[i];

		sqlite3_str_appendf(s, "%s{\"start\":%lld,\"size\":%lld,\"type\":%u}", i ? "," : "",
				    (long long)e->start, (long long)e->size, e->type);
	}
	sqlite3_str_appendchar(s, 1, ']');
	return sqlite3_str_finish(s);
}

static char *json_of_reserved(const struct engine_config *config)
{
	sqlite3_str *s = sqlite3_str_new(NULL);

	sqlite3_str_appendchar(s, 1, '[');
	for (uint32_t i = 0; i < config->nr_reserved; i++) {
		const struct engine_range *r = &config->reserved[i];

		sqlite3_str_appendf(s, "%s{\"start\":%lld,\"size\":%lld}", i ? "," : "",
				    (long long)r->start, (long long)r->size);
	}
	sqlite3_str_appendchar(s, 1, ']');
	return sqlite3_str_finish(s);
}

bool history_reserve_machine(struct history *h, uint64_t machine)
{
	size_t nr = h->nr_ends ? h->nr_ends : 64;
	struct history_saved *saved;
	uint64_t *ends;

	if (machine < h->nr_ends)
		return true;
	while (nr <= machine)
		nr *= 2;
	ends = realloc(h->ends, nr * sizeof(*ends));
	if (!ends)
		return false;
	memset(ends + h->nr_ends, 0, (nr - h->nr_ends) * sizeof(*ends));
	h->ends = ends;
	saved = realloc(h->saved, nr * sizeof(*saved));
	if (!saved)
		return false;
	memset(saved + h->nr_ends, 0, (nr - h->nr_ends) * sizeof(*saved));
	h->saved = saved;
	h->nr_ends = nr;
	return true;
}

uint64_t history_add_machine(struct history *h, const char *name, const char *backend,
			     const struct engine_config *config, uint64_t forked_from,
			     uint64_t forked_at_op, bool frozen, int64_t time_ns)
{
	uint32_t detail = config->detail ? config->detail : DETAIL_ALL;
	uint64_t id = h->next_machine;
	sqlite3_stmt *st;
	int at = 1;

	if (id > KEY_MACHINE_MAX) {
		journal_fail(h, HISTORY_FULL,
			     "this history has had all the machines it can have; "
			     "begin a new one");
		return 0;
	}
	if (!history_reserve_machine(h, id)) {
		journal_fail(h, HISTORY_IO, "no memory for another machine");
		return 0;
	}
	st = journal_rare_begin(h, ST_INSERT_MACHINE);
	if (!st)
		return 0;
	h->next_machine++;
	const int64_t before[] = {(int64_t)forked_from, (int64_t)forked_at_op, frozen, time_ns};
	const int64_t after[] = {detail,
				 config->preset,
				 config->flags,
				 config->page_offset,
				 config->vmalloc_bytes,
				 config->cpus,
				 config->user_fallback,
				 config->detail,
				 config->late_pages,
				 (int64_t)config->ram,
				 (int64_t)config->mem,
				 (int64_t)config->highmem,
				 (int64_t)config->kernelcore,
				 (int64_t)config->movablecore};

	sqlite3_bind_int64(st, at++, (int64_t)id);
	sqlite3_bind_text(st, at++, name, -1, SQLITE_TRANSIENT);
	sqlite3_bind_text(st, at++, backend, -1, SQLITE_TRANSIENT);
	for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++)
		sqlite3_bind_int64(st, at++, before[i]);
	for (size_t i = 0; i < sizeof(after) / sizeof(after[0]); i++)
		sqlite3_bind_int64(st, at++, after[i]);
	sqlite3_bind_text(st, at++, json_of_e820(config), -1, sqlite3_free);
	sqlite3_bind_text(st, at++, json_of_reserved(config), -1, sqlite3_free);
	journal_rare_end(h, ST_INSERT_MACHINE);
	return id;
}

void history_end_machine(struct history *h, uint64_t machine, int64_t time_ns)
{
	sqlite3_stmt *st = journal_rare_begin(h, ST_END_MACHINE);

	if (!st)
		return;
	sqlite3_bind_int64(st, 1, (int64_t)machine);
	sqlite3_bind_int64(st, 2, time_ns);
	journal_rare_end(h, ST_END_MACHINE);
}

static void lower_detail(struct history *h, uint64_t machine, uint64_t detail)
{
	sqlite3_stmt *st = journal_rare_begin(h, ST_LOWER_DETAIL);

	if (!st)
		return;
	sqlite3_bind_int64(st, 1, (int64_t)machine);
	sqlite3_bind_int64(st, 2, (int64_t)detail);
	journal_rare_end(h, ST_LOWER_DETAIL);
}

void history_add_owner(struct history *h, uint64_t machine, uint32_t number, const char *label)
{
	sqlite3_stmt *st = journal_rare_begin(h, ST_INSERT_OWNER);

	if (!st)
		return;
	sqlite3_bind_int64(st, 1, (int64_t)machine);
	sqlite3_bind_int64(st, 2, number);
	sqlite3_bind_text(st, 3, label, -1, SQLITE_TRANSIENT);
	journal_rare_end(h, ST_INSERT_OWNER);
}

uint64_t history_add_client(struct history *h, const char *address, int64_t time_ns)
{
	sqlite3_stmt *st = journal_rare_begin(h, ST_INSERT_CLIENT);
	uint64_t id = h->next_client;

	if (!st)
		return 0;
	h->next_client++;
	sqlite3_bind_int64(st, 1, (int64_t)id);
	sqlite3_bind_text(st, 2, address, -1, SQLITE_TRANSIENT);
	sqlite3_bind_int64(st, 3, time_ns);
	journal_rare_end(h, ST_INSERT_CLIENT);
	return id;
}

void history_add_loss(struct history *h, uint64_t machine, uint64_t last_op, const char *reason,
		      int64_t time_ns)
{
	sqlite3_stmt *st = journal_rare_begin(h, ST_INSERT_LOSS);

	if (!st)
		return;
	sqlite3_bind_int64(st, 1, (int64_t)machine);
	sqlite3_bind_int64(st, 2, (int64_t)last_op);
	sqlite3_bind_int64(st, 3, time_ns);
	sqlite3_bind_text(st, 4, reason, -1, SQLITE_TRANSIENT);
	journal_rare_end(h, ST_INSERT_LOSS);
}

/* ---- ops and their events ---- */

uint64_t history_hash(const uint8_t *bytes, size_t length)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
	return hash;
}

/* Copies events; returns the bits of their kinds. */
static uint64_t append_events(struct history *h, const struct engine_event *events, uint32_t nr)
{
	uint64_t kinds = 0;
	struct pending_event *copy;

	if (nr == 0)
		return 0;
	copy = grow(h, &h->journal.events, nr, sizeof(*copy));
	if (!copy)
		return 0;
	for (uint32_t i = 0; i < nr; i++) {
		const struct engine_event *e = &events[i];

		copy[i] = (struct pending_event){{e->kind, pair(e->w[0], e->w[1]),
						  pair(e->w[2], e->w[3]), pair(e->w[4], e->w[5])}};
		kinds |= UINT64_C(1) << (e->kind & 63);
	}
	return kinds;
}

static void append_payload(struct history *h, int64_t key, const uint8_t *data, uint32_t length)
{
	struct pending_payload *p;
	size_t offset = h->journal.bytes.nr;
	uint8_t *copy;

	if (length == 0)
		return;
	copy = grow(h, &h->journal.bytes, length, 1);
	if (!copy)
		return;
	memcpy(copy, data, length);
	p = grow(h, &h->journal.payloads, 1, sizeof(*p));
	if (p)
		*p = (struct pending_payload){key, offset, length};
}

/* What of an op does not stand in its row of op_rows. */
static void append_more(struct history *h, int64_t key, const struct history_record *r)
{
	const uint64_t *a = r->args, *v = r->values;
	uint64_t high = (a[0] | a[1] | v[1] | v[2]) >> 32;
	struct pending_more *more;
	int64_t *c;

	if (!(r->token | a[2] | a[3] | a[4] | a[5] | v[3] | r->data_len | r->result_len | high))
		return;
	more = grow(h, &h->journal.more, 1, sizeof(*more));
	if (!more)
		return;
	c = more->column;
	c[MORE_KEY] = key;
	c[MORE_TOKEN] = (int64_t)r->token;
	c[MORE_SEQUENCE] = (int64_t)r->sequence;
	memcpy(&c[MORE_A2], &a[2], sizeof(r->args) - 2 * sizeof(*a));
	c[MORE_V3] = (int64_t)v[3];
	c[MORE_DATA_LEN] = r->data_len;
	c[MORE_RESULT_LEN] = r->result_len;
	c[MORE_RESULT_HASH] =
	    r->result_len ? (int64_t)history_hash(r->result_data, r->result_len) : 0;
	c[MORE_A01_HIGH] = pair(a[0] >> 32, a[1] >> 32);
	c[MORE_V12_HIGH] = pair(v[1] >> 32, v[2] >> 32);
}

/* Does the record have room for it? */
static bool fits(const struct history *h, const struct history_record *r, uint64_t first_event)
{
	return r->machine != 0 && r->machine < h->next_machine && r->op <= KEY_OP_MASK &&
	       r->cpu <= 0xffff && r->code <= 0xff && r->status <= 0xff && r->client <= INT32_MAX &&
	       r->nr_events >> ROW_NR_EVENTS_BITS == 0 && first_event >> ROW_FIRST_EVENT_BITS == 0;
}

void history_append(struct history *h, const struct history_record *r)
{
	uint64_t first_event = h->journal.next_event + h->journal.events.nr, kinds;
	int64_t key = key_of(r->machine, r->op);
	struct pending_op *op;
	int64_t *c;

	if (!fits(h, r, first_event)) {
		journal_fail(h, HISTORY_IO,
			     "an op of a machine that was never made, or one whose number, cpu, "
			     "client, code, status or events the record has no room for");
		return;
	}
	op = grow(h, &h->journal.ops, 1, sizeof(*op));
	if (!op)
		return;
	kinds = append_events(h, r->events, r->nr_events);
	append_payload(h, key, r->data, r->data_len);
	append_more(h, key, r);
	c = op->column;
	c[ROW_KEY] = key;
	c[ROW_TIME_NS] = r->time_ns;
	c[ROW_WHAT] = (int64_t)((uint64_t)r->task << 32 | r->cpu << 16 | r->status << 8 | r->code);
	c[ROW_CALLER] = (int64_t)(r->client << 32 | r->owner);
	c[ROW_LATENCY_NS] = (int64_t)r->latency_ns;
	c[ROW_A01] = pair(r->args[0], r->args[1]);
	c[ROW_V0] = (int64_t)r->values[0];
	c[ROW_V12] = pair(r->values[1], r->values[2]);
	c[ROW_EVENTS] =
	    r->nr_events ? (int64_t)(first_event << ROW_NR_EVENTS_BITS | r->nr_events) : 0;
	c[ROW_KINDS] = (int64_t)kinds;
	if (r->code == OP_SET_POLICY && r->status == STATUS_OK && r->args[2] != DETAIL_UNCHANGED)
		lower_detail(h, r->machine, r->args[2]);
}

void history_append_completion(struct history *h, uint64_t machine, uint64_t woken_by,
			       const struct engine_completion *c, int64_t time_ns)
{
	struct pending_completion *p = grow(h, &h->journal.completions, 1, sizeof(*p));

	if (p)
		*p = (struct pending_completion){key_of(machine, c->op), woken_by, time_ns, *c};
}

/* ---- the commit ---- */

/* Invariant 4: the last row that was inserted has the key that it should. */
static int check_last_key(struct history *h, int64_t meant)
{
	return sqlite3_last_insert_rowid(h->writer) == meant ? SQLITE_OK : SQLITE_CORRUPT;
}

/* Are the turn's ops those that follow the last of all, one by one? */
static bool are_next(const struct history *h)
{
	const struct pending_op *ops = h->journal.ops.rows;
	size_t nr = h->journal.ops.nr;

	for (size_t i = 0; i < nr; i++)
		if (ops[i].column[ROW_KEY] != h->journal.last_key + 1 + (int64_t)i)
			return false;
	return true;
}

static int insert_ops(struct history *h)
{
	static const enum history_statement which[2][2] = {
	    {ST_INSERT_OPS, ST_INSERT_OPS_ALONE},
	    {ST_INSERT_NEXT_OPS, ST_INSERT_NEXT_OPS_ALONE},
	};
	const struct pending_op *ops = h->journal.ops.rows;
	int rc = step(h, which[are_next(h)][h->journal.events.nr == 0]);

	return rc == SQLITE_OK ? check_last_key(h, ops[h->journal.ops.nr - 1].column[ROW_KEY]) : rc;
}

static int insert_events(struct history *h)
{
	const struct journal *j = &h->journal;
	int rc = step(h, ST_INSERT_EVENTS);

	return rc == SQLITE_OK ? check_last_key(h, (int64_t)(j->next_event + j->events.nr - 1))
			       : rc;
}

static int insert_pending(struct history *h)
{
	const struct journal *j = &h->journal;
	int rc = j->in_transaction ? SQLITE_OK : step(h, ST_BEGIN);

	if (rc == SQLITE_OK && j->ops.nr)
		rc = insert_ops(h);
	if (rc == SQLITE_OK && j->more.nr)
		rc = step(h, ST_INSERT_MORE);
	if (rc == SQLITE_OK && j->events.nr)
		rc = insert_events(h);
	if (rc == SQLITE_OK && j->payloads.nr)
		rc = step(h, ST_INSERT_PAYLOADS);
	if (rc == SQLITE_OK && j->completions.nr)
		rc = step(h, ST_INSERT_COMPLETIONS);
	return rc == SQLITE_OK ? step(h, ST_COMMIT) : rc;
}

static void note_ends(struct history *h)
{
	const struct pending_op *ops = h->journal.ops.rows;

	for (size_t i = 0; i < h->journal.ops.nr; i++) {
		uint64_t key = (uint64_t)ops[i].column[ROW_KEY];

		h->ends[key >> KEY_OP_BITS] = (key & KEY_OP_MASK) + 1;
		if ((int64_t)key > h->journal.last_key)
			h->journal.last_key = (int64_t)key;
	}
}

/* What could not be synced was written all the same, with its end, and would be found by who
 * opens the file after us: but it was refused. A commit of one page takes its place. */
static void overwrite_refused(struct history *h)
{
	char sql[40];

	snprintf(sql, sizeof(sql), "PRAGMA user_version = %d", HISTORY_SCHEMA_VERSION);
	sqlite3_exec(h->writer, sql, NULL, NULL, NULL);
}

int history_commit(struct history *h, char *err, size_t err_size)
{
	int error = h->journal.error, rc;

	if (!journal_pending(h))
		return HISTORY_OK;
	if (error) {
		snprintf(err, err_size, "%s", h->journal.why);
	} else {
		rc = insert_pending(h);
		if (rc != SQLITE_OK)
			error =
			    history_map_error(h->writer, rc, "writing the record", err, err_size);
	}
	if (error) {
		bool unsynced = sqlite3_extended_errcode(h->writer) == SQLITE_IOERR_FSYNC;

		/* Some errors have rolled back already. */
		if (!sqlite3_get_autocommit(h->writer))
			step(h, ST_ROLLBACK);
		if (unsynced)
			overwrite_refused(h);
		/* The disk may be what is wrong: look again before the next turn. */
		h->last_disk_check_ns = 0;
	} else {
		note_ends(h);
		h->journal.next_event += h->journal.events.nr;
		h->last_commit_ns = uv_hrtime();
	}
	journal_forget(&h->journal);
	if (error)
		checkpoint_rolled_back(h);
	if (!error) {
		wal_committed(h);
		tail_notify(h);
	}
	return error;
}
