/*
 * reader.c - the record read back by whoever makes a machine again, in any thread.
 *
 * What most ops have stands in op_rows, and the rest of few of them in op_more: the two
 * are read side by side in the order of their keys, which costs nothing for an op that has
 * no second row. Events are not read: whoever replays makes them anew.
 *
 * Invariants:
 *  1. Both statements of a call begin before either ends: one moment of the file.
 *  2. Between calls nothing is under way, so that no reader of ours keeps the WAL's log
 *     from starting again while its owner does something else.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "history_priv.h"

enum reader_statement { RD_OPS, RD_MORE, RD_PAYLOAD, NR_READER_STATEMENTS };

#define OPS_SQL(args_and_values)                                                          \
	"SELECT key, time_ns, what, caller, latency_ns, " args_and_values " FROM op_rows" \
	" WHERE key BETWEEN ?1 AND ?2 ORDER BY key"
#define MORE_SQL(high)                                                            \
	"SELECT key, token, sequence, a2, a3, a4, a5, v3, data_len, result_len, " \
	"result_hash, " high " FROM op_more WHERE key BETWEEN ?1 AND ?2 ORDER BY key"
#define PAYLOAD_SQL "SELECT data FROM payloads WHERE key = ?"

/* Files that no daemon has brought up to date are read as they are. */
enum { VERSION_OF_WIDE_ROWS = 3 };
static const char *const reader_sql[NR_READER_STATEMENTS] = {
    [RD_OPS] = OPS_SQL("a01 & 0xffffffff, (a01 >> 32) & 0xffffffff, v0, v12 & 0xffffffff,"
		       " (v12 >> 32) & 0xffffffff"),
    [RD_MORE] = MORE_SQL("a01_high, v12_high"),
    [RD_PAYLOAD] = PAYLOAD_SQL,
};
static const char *const wide_sql[NR_READER_STATEMENTS] = {
    [RD_OPS] = OPS_SQL("a0, a1, v0, v1, v2"),
    [RD_MORE] = MORE_SQL("0, 0"),
    [RD_PAYLOAD] = PAYLOAD_SQL,
};

struct history_reader {
	sqlite3 *db;
	bool owns_db;
	sqlite3_stmt *statements[NR_READER_STATEMENTS];
};

/* ---- made and ended ---- */

int reader_make(sqlite3 *db, bool owns_db, struct history_reader **ret, char *err, size_t err_size)
{
	struct history_reader *rd = calloc(1, sizeof(*rd));
	int rc = rd ? SQLITE_OK : SQLITE_NOMEM, error;
	const char *const *sql = reader_sql;
	int64_t version = 0;

	if (rd)
		*rd = (struct history_reader){.db = db, .owns_db = owns_db};
	if (rc == SQLITE_OK)
		rc = schema_version(db, &version);
	if (version <= VERSION_OF_WIDE_ROWS)
		sql = wide_sql;
	for (size_t i = 0; i < NR_READER_STATEMENTS && rc == SQLITE_OK; i++)
		rc = sqlite3_prepare_v3(db, sql[i], -1, SQLITE_PREPARE_PERSISTENT,
					&rd->statements[i], NULL);
	if (rc == SQLITE_OK) {
		*ret = rd;
		return HISTORY_OK;
	}
	error = history_map_error(db, rc, "preparing to read", err, err_size);
	if (rd)
		history_reader_close(rd);
	else if (owns_db)
		sqlite3_close(db);
	return error;
}

int history_reader_open(const struct history *h, struct history_reader **ret, char *err,
			size_t err_size)
{
	sqlite3 *db;
	int error = history_open_reader(h, &db, err, err_size);

	return error ? error : reader_make(db, true, ret, err, err_size);
}

void history_reader_close(struct history_reader *rd)
{
	if (!rd)
		return;
	for (size_t i = 0; i < NR_READER_STATEMENTS; i++)
		sqlite3_finalize(rd->statements[i]);
	if (rd->owns_db)
		sqlite3_close(rd->db);
	free(rd);
}

static int map(const struct history_reader *rd, int rc)
{
	char err[HISTORY_ERROR_LENGTH];

	return rc == SQLITE_OK ? HISTORY_OK
			       : history_map_error(rd->db, rc, "reading", err, sizeof(err));
}

/* ---- machines ---- */

int history_reader_machine(struct history_reader *rd, uint64_t machine,
			   struct engine_config *config, struct history_machine *ret)
{
	sqlite3_stmt *st;
	int rc = sqlite3_prepare_v2(
	    rd->db, "SELECT " MACHINE_COLUMN_LIST " FROM machines WHERE id = ?", -1, &st, NULL);

	memset(ret, 0, sizeof(*ret));
	if (rc != SQLITE_OK)
		return map(rd, rc);
	sqlite3_bind_int64(st, 1, (int64_t)machine);
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		rc = replay_read_machine(rd->db, st, config, ret);
		/* They die with the statement. */
		ret->name = ret->backend = NULL;
	} else if (rc == SQLITE_DONE) {
		rc = SQLITE_OK;
	}
	sqlite3_finalize(st);
	return map(rd, rc);
}

/* ---- ops ---- */

enum more_column_read {
	MR_KEY,
	MR_TOKEN,
	MR_SEQUENCE,
	MR_A2,
	MR_V3 = MR_A2 + OP_ARGS - 2,
	MR_DATA_LEN,
	MR_RESULT_LEN,
	MR_RESULT_HASH,
	MR_A01_HIGH,
	MR_V12_HIGH,
};

enum row_column_read { RR_KEY, RR_TIME_NS, RR_WHAT, RR_CALLER, RR_LATENCY_NS, RR_A0, RR_V0 = 7 };

static uint64_t column(sqlite3_stmt *row, int i)
{
	return (uint64_t)sqlite3_column_int64(row, i);
}

static void read_row(sqlite3_stmt *row, struct history_record *ret)
{
	uint64_t key = column(row, RR_KEY), what = column(row, RR_WHAT);
	uint64_t caller = column(row, RR_CALLER);

	memset(ret, 0, sizeof(*ret));
	ret->machine = key >> KEY_OP_BITS;
	ret->op = key & KEY_OP_MASK;
	ret->time_ns = (int64_t)column(row, RR_TIME_NS);
	ret->latency_ns = column(row, RR_LATENCY_NS);
	ret->code = what & 0xff;
	ret->status = what >> 8 & 0xff;
	ret->cpu = what >> 16 & 0xffff;
	ret->task = (uint32_t)(what >> 32);
	ret->owner = (uint32_t)caller;
	ret->client = caller >> 32;
	ret->args[0] = column(row, RR_A0);
	ret->args[1] = column(row, RR_A0 + 1);
	for (int i = 0; i < 3; i++)
		ret->values[i] = column(row, RR_V0 + i);
}

/* The high halves of two numbers whose low ones have been read. */
static void add_high(uint64_t two[2], uint64_t high)
{
	two[0] |= high << 32;
	two[1] |= high >> 32 << 32;
}

static void read_more(sqlite3_stmt *more, struct history_record *ret)
{
	ret->token = column(more, MR_TOKEN);
	ret->sequence = column(more, MR_SEQUENCE);
	for (int i = 2; i < OP_ARGS; i++)
		ret->args[i] = column(more, MR_A2 + i - 2);
	ret->values[3] = column(more, MR_V3);
	ret->data_len = (uint32_t)column(more, MR_DATA_LEN);
	ret->result_len = (uint32_t)column(more, MR_RESULT_LEN);
	ret->result_hash = column(more, MR_RESULT_HASH);
	add_high(&ret->args[0], column(more, MR_A01_HIGH));
	add_high(&ret->values[1], column(more, MR_V12_HIGH));
}

int reader_payload(struct history_reader *rd, struct history_record *r)
{
	sqlite3_stmt *st = rd->statements[RD_PAYLOAD];
	int rc;

	if (!r->data_len)
		return SQLITE_OK;
	sqlite3_bind_int64(st, 1, key_of(r->machine, r->op));
	rc = sqlite3_step(st);
	if (rc != SQLITE_ROW)
		return rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
	r->data = sqlite3_column_blob(st, 0);
	if (!r->data || (uint32_t)sqlite3_column_bytes(st, 0) != r->data_len)
		return SQLITE_CORRUPT;
	return SQLITE_OK;
}

void reader_payload_end(struct history_reader *rd)
{
	sqlite3_reset(rd->statements[RD_PAYLOAD]);
}

/* Goes to the next row of op_more; *ret_key: its key, or one beyond all. */
static int next_more(sqlite3_stmt *more, int64_t *ret_key)
{
	int rc = sqlite3_step(more);

	*ret_key = rc == SQLITE_ROW ? sqlite3_column_int64(more, MR_KEY) : INT64_MAX;
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* The two in step, from the first row of each on. */
static int merge(struct history_reader *rd, bool (*fn)(void *arg, const struct history_record *r),
		 void *arg, bool *ret_more)
{
	sqlite3_stmt *ops = rd->statements[RD_OPS], *more = rd->statements[RD_MORE];
	int64_t more_key;
	int rc = sqlite3_step(ops), more_rc;

	if (rc != SQLITE_ROW)
		return rc == SQLITE_DONE ? SQLITE_OK : rc;
	more_rc = next_more(more, &more_key);
	for (; rc == SQLITE_ROW && more_rc == SQLITE_OK && *ret_more; rc = sqlite3_step(ops)) {
		struct history_record r;
		int64_t key = sqlite3_column_int64(ops, RR_KEY);

		read_row(ops, &r);
		while (more_key < key && more_rc == SQLITE_OK)
			more_rc = next_more(more, &more_key);
		if (more_key == key) {
			read_more(more, &r);
			more_rc = reader_payload(rd, &r);
		}
		if (more_rc == SQLITE_OK)
			*ret_more = fn(arg, &r);
		if (r.data_len)
			reader_payload_end(rd);
		if (!*ret_more)
			return SQLITE_OK;
	}
	return more_rc != SQLITE_OK ? more_rc : rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int history_reader_ops(struct history_reader *rd, uint64_t machine, uint64_t from_op,
		       uint64_t to_op, bool (*fn)(void *arg, const struct history_record *r),
		       void *arg)
{
	bool more = true;
	int rc;

	/* Op 0 is the machine's making: it holds the events of boot, nothing to replay. */
	for (int i = RD_OPS; i <= RD_MORE; i++) {
		sqlite3_bind_int64(rd->statements[i], 1, key_of(machine, from_op ? from_op : 1));
		sqlite3_bind_int64(rd->statements[i], 2,
				   key_of(machine, to_op ? to_op : KEY_OP_MASK));
	}
	rc = merge(rd, fn, arg, &more);
	sqlite3_reset(rd->statements[RD_OPS]);
	sqlite3_reset(rd->statements[RD_MORE]);
	if (!more)
		return HISTORY_ABORTED;
	return rc == SQLITE_CORRUPT ? HISTORY_CORRUPT : map(rd, rc);
}

/* ---- checkpoints ---- */

static bool read_digest(sqlite3_stmt *st, int i, struct engine_digest *ret)
{
	const char *text = (const char *)sqlite3_column_text(st, i);
	unsigned long long hi, lo;

	if (!text || sscanf(text, "%16llx%16llx", &hi, &lo) != 2)
		return false;
	*ret = (struct engine_digest){.hi = hi, .lo = lo};
	return true;
}

/* The JSON array of a checkpoint's parked ops. */
static int read_parked(struct history_reader *rd, sqlite3_value *json, uint64_t **ret,
		       uint32_t *ret_nr)
{
	uint64_t *ops = NULL;
	uint32_t nr = 0, max = 0;
	sqlite3_stmt *st;
	int rc = sqlite3_prepare_v2(rd->db, "SELECT value FROM json_each(?)", -1, &st, NULL);

	if (rc != SQLITE_OK)
		return rc;
	sqlite3_bind_value(st, 1, json);
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		if (nr == max) {
			uint64_t *more = realloc(ops, (max = max ? max * 2 : 16) * sizeof(*ops));

			if (!more) {
				rc = SQLITE_NOMEM;
				break;
			}
			ops = more;
		}
		ops[nr++] = column(st, 0);
	}
	sqlite3_finalize(st);
	if (rc != SQLITE_DONE) {
		free(ops);
		return rc;
	}
	*ret = ops;
	*ret_nr = nr;
	return SQLITE_OK;
}

static int read_checkpoint(struct history_reader *rd, sqlite3_stmt *st,
			   struct history_checkpoint *ret, uint64_t **ret_parked)
{
	uint64_t key = column(st, 0);
	int rc = read_parked(rd, sqlite3_column_value(st, 5), ret_parked, &ret->nr_parked);

	if (rc != SQLITE_OK)
		return rc;
	ret->machine = key >> KEY_OP_BITS;
	ret->op = key & KEY_OP_MASK;
	ret->time_ns = sqlite3_column_int64(st, 1);
	ret->frames = column(st, 3);
	ret->owners = (uint32_t)column(st, 4);
	ret->parked = *ret_parked;
	ret->first_piece = column(st, 6);
	ret->nr_pieces = column(st, 7);
	/* One that cannot be read is that of no machine. */
	if (!read_digest(st, 2, &ret->digest))
		ret->digest = (struct engine_digest){0};
	return SQLITE_OK;
}

int history_reader_checkpoint(struct history_reader *rd, uint64_t machine, uint64_t op,
			      struct history_checkpoint *ret, uint64_t **ret_parked)
{
	sqlite3_stmt *st;
	int rc = sqlite3_prepare_v2(rd->db,
				    "SELECT key, time_ns, digest, frames, owners, parked,"
				    " first_piece, nr_pieces FROM checkpoints"
				    " WHERE key BETWEEN ?1 AND ?2 ORDER BY key DESC LIMIT 1",
				    -1, &st, NULL);

	memset(ret, 0, sizeof(*ret));
	*ret_parked = NULL;
	if (rc != SQLITE_OK)
		return map(rd, rc);
	sqlite3_bind_int64(st, 1, key_of(machine, 0));
	sqlite3_bind_int64(st, 2, key_of(machine, op < KEY_OP_MASK ? op : KEY_OP_MASK));
	rc = sqlite3_step(st);
	rc = rc == SQLITE_ROW	 ? read_checkpoint(rd, st, ret, ret_parked)
	     : rc == SQLITE_DONE ? SQLITE_OK
				 : rc;
	sqlite3_finalize(st);
	return map(rd, rc);
}

int history_reader_pieces(struct history_reader *rd, const struct history_checkpoint *c,
			  bool (*fn)(void *arg, const uint8_t *data, size_t length), void *arg)
{
	sqlite3_stmt *st;
	uint64_t nr = 0;
	bool more = true;
	int rc = sqlite3_prepare_v2(rd->db,
				    "SELECT data FROM checkpoint_pieces"
				    " WHERE id >= ?1 AND id < ?2 ORDER BY id",
				    -1, &st, NULL);

	if (rc != SQLITE_OK)
		return map(rd, rc);
	sqlite3_bind_int64(st, 1, (int64_t)c->first_piece);
	sqlite3_bind_int64(st, 2, (int64_t)(c->first_piece + c->nr_pieces));
	for (; more && (rc = sqlite3_step(st)) == SQLITE_ROW; nr++)
		more = fn(arg, sqlite3_column_blob(st, 0), (size_t)sqlite3_column_bytes(st, 0));
	sqlite3_finalize(st);
	if (!more)
		return HISTORY_ABORTED;
	if (rc == SQLITE_DONE)
		return nr == c->nr_pieces ? HISTORY_OK : HISTORY_CORRUPT;
	return map(rd, rc);
}
