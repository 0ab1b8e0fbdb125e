/*
 * replay.c - the record read back on the loop's thread, from a connection that sees
 * only what is committed.
 *
 * Each call is one statement and therefore one moment of the file.
 */
#include <stdlib.h>
#include <string.h>

#include "history_priv.h"

void replay_read_record(sqlite3_stmt *row, struct history_record *ret)
{
	uint64_t key = (uint64_t)sqlite3_column_int64(row, COL_KEY);

	memset(ret, 0, sizeof(*ret));
	ret->machine = key >> KEY_OP_BITS;
	ret->op = key & KEY_OP_MASK;
	ret->code = (uint32_t)sqlite3_column_int64(row, COL_CODE);
	ret->cpu = (uint32_t)sqlite3_column_int64(row, COL_CPU);
	ret->task = (uint32_t)sqlite3_column_int64(row, COL_TASK);
	ret->owner = (uint32_t)sqlite3_column_int64(row, COL_OWNER);
	ret->status = (uint32_t)sqlite3_column_int64(row, COL_STATUS);
	ret->time_ns = sqlite3_column_int64(row, COL_TIME_NS);
	ret->latency_ns = (uint64_t)sqlite3_column_int64(row, COL_LATENCY_NS);
	ret->client = (uint64_t)sqlite3_column_int64(row, COL_CLIENT);
	ret->token = (uint64_t)sqlite3_column_int64(row, COL_TOKEN);
	ret->sequence = (uint64_t)sqlite3_column_int64(row, COL_SEQUENCE);
	for (int i = 0; i < OP_ARGS; i++)
		ret->args[i] = (uint64_t)sqlite3_column_int64(row, COL_A0 + i);
	for (int i = 0; i < OP_VALUES; i++)
		ret->values[i] = (uint64_t)sqlite3_column_int64(row, COL_V0 + i);
	ret->data_len = (uint32_t)sqlite3_column_int64(row, COL_DATA_LEN);
	ret->result_len = (uint32_t)sqlite3_column_int64(row, COL_RESULT_LEN);
	ret->result_hash = (uint64_t)sqlite3_column_int64(row, COL_RESULT_HASH);
	ret->nr_events = (uint32_t)sqlite3_column_int64(row, COL_NR_EVENTS);
}

static int prepare(struct history *h, const char *sql, sqlite3_stmt **ret)
{
	return sqlite3_prepare_v2(h->reader, sql, -1, ret, NULL);
}

int history_load_number(struct history *h, const char *sql, uint64_t *ret)
{
	sqlite3_stmt *st;
	int rc = prepare(h, sql, &st);

	if (rc != SQLITE_OK)
		return rc;
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		*ret = (uint64_t)sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int load_ends(struct history *h)
{
	sqlite3_stmt *st;
	int rc = prepare(h,
			 "SELECT id, (SELECT max(key) FROM op_rows WHERE key BETWEEN id << 40"
			 " AND (id << 40) + 0xffffffffff) FROM machines",
			 &st);

	if (rc != SQLITE_OK)
		return rc;
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		uint64_t id = (uint64_t)sqlite3_column_int64(st, 0);

		if (id > KEY_MACHINE_MAX) {
			rc = SQLITE_CORRUPT;
			break;
		}
		if (!history_reserve_machine(h, id)) {
			rc = SQLITE_NOMEM;
			break;
		}
		if (sqlite3_column_type(st, 1) == SQLITE_INTEGER)
			h->ends[id] = ((uint64_t)sqlite3_column_int64(st, 1) & KEY_OP_MASK) + 1;
	}
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int replay_load(struct history *h, char *err, size_t err_size)
{
	uint64_t last_key = 0;
	int rc = history_load_number(h, "SELECT coalesce(max(id), 0) + 1 FROM machines",
				     &h->next_machine);

	if (rc == SQLITE_OK)
		rc = history_load_number(h, "SELECT coalesce(max(id), 0) + 1 FROM clients",
					 &h->next_client);
	if (rc == SQLITE_OK)
		rc = history_load_number(h, "SELECT coalesce(max(id), 0) + 1 FROM event_rows",
					 &h->journal.next_event);
	if (rc == SQLITE_OK)
		rc = history_load_number(h, "SELECT coalesce(max(key), 0) FROM op_rows", &last_key);
	h->journal.last_key = (int64_t)last_key;
	if (rc == SQLITE_OK)
		rc = load_ends(h);
	if (rc != SQLITE_OK)
		return history_map_error(h->reader, rc, "reading the history", err, err_size);
	return reader_make(h->reader, false, &h->loop_reader, err, err_size);
}

static int map(struct history *h, int rc)
{
	char err[HISTORY_ERROR_LENGTH];

	return rc == SQLITE_OK ? HISTORY_OK
			       : history_map_error(h->reader, rc, "reading", err, sizeof(err));
}

uint64_t history_last_op(const struct history *h, uint64_t machine)
{
	return machine < h->nr_ends && h->ends[machine] ? h->ends[machine] - 1 : 0;
}

/* ---- machines and owners ---- */

/* Reads the JSON of e820 or reserved back; false when it is not what was written. */
static int read_ranges(sqlite3 *db, sqlite3_stmt *machine, struct engine_config *config)
{
	sqlite3_stmt *st;
	int rc = sqlite3_prepare_v2(
	    db,
	    "SELECT 0, value ->> 'start', value ->> 'size', value ->> 'type'"
	    " FROM json_each(?1) UNION ALL"
	    " SELECT 1, value ->> 'start', value ->> 'size', 0 FROM json_each(?2)",
	    -1, &st, NULL);

	if (rc != SQLITE_OK)
		return rc;
	sqlite3_bind_value(st, 1, sqlite3_column_value(machine, 20));
	sqlite3_bind_value(st, 2, sqlite3_column_value(machine, 21));
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		uint64_t start = (uint64_t)sqlite3_column_int64(st, 1);
		uint64_t size = (uint64_t)sqlite3_column_int64(st, 2);
		bool reserved = sqlite3_column_int(st, 0);

		if (reserved ? config->nr_reserved == ENGINE_MAX_RESERVED
			     : config->nr_e820 == ENGINE_MAX_E820) {
			rc = SQLITE_CORRUPT;
			break;
		}
		if (reserved)
			config->reserved[config->nr_reserved++] =
			    (struct engine_range){start, size};
		else
			config->e820[config->nr_e820++] = (struct engine_e820){
			    start, size, (uint32_t)sqlite3_column_int64(st, 3), 0};
	}
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static void read_config(sqlite3_stmt *st, struct engine_config *config)
{
	uint32_t *const words[] = {
	    &config->preset, &config->flags,	     &config->page_offset, &config->vmalloc_bytes,
	    &config->cpus,   &config->user_fallback, &config->detail,	   &config->late_pages};
	uint64_t *const longs[] = {&config->ram, &config->mem, &config->highmem,
				   &config->kernelcore, &config->movablecore};
	int at = 7;

	memset(config, 0, sizeof(*config));
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		*words[i] = (uint32_t)sqlite3_column_int64(st, at++);
	for (size_t i = 0; i < sizeof(longs) / sizeof(longs[0]); i++)
		*longs[i] = (uint64_t)sqlite3_column_int64(st, at++);
}

int replay_read_machine(sqlite3 *db, sqlite3_stmt *row, struct engine_config *config,
			struct history_machine *ret)
{
	*ret = (struct history_machine){
	    .id = (uint64_t)sqlite3_column_int64(row, 0),
	    .name = (const char *)sqlite3_column_text(row, 1),
	    .backend = (const char *)sqlite3_column_text(row, 2),
	    .config = config,
	    .forked_from = (uint64_t)sqlite3_column_int64(row, 3),
	    .forked_at_op = (uint64_t)sqlite3_column_int64(row, 4),
	    .frozen = sqlite3_column_int(row, 5),
	    .created_ns = sqlite3_column_int64(row, 6),
	    .first_op = (uint64_t)sqlite3_column_int64(row, 22),
	};
	read_config(row, config);
	return read_ranges(db, row, config);
}

int history_machines(struct history *h, bool (*fn)(void *arg, const struct history_machine *m),
		     void *arg)
{
	struct engine_config *config = malloc(sizeof(*config));
	sqlite3_stmt *st = NULL;
	bool more = true;
	int rc = config ? prepare(h,
				  "SELECT " MACHINE_COLUMN_LIST " FROM machines"
				  " WHERE ended_ns IS NULL ORDER BY id",
				  &st)
			: SQLITE_NOMEM;

	while (rc == SQLITE_OK && more && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct history_machine m;

		rc = replay_read_machine(h->reader, st, config, &m);
		m.last_op = history_last_op(h, m.id);
		if (rc == SQLITE_OK)
			more = fn(arg, &m);
	}
	sqlite3_finalize(st);
	free(config);
	if (!more)
		return HISTORY_ABORTED;
	return map(h, rc == SQLITE_DONE ? SQLITE_OK : rc);
}

int history_machine_ever(struct history *h, const char *name, size_t length,
			 void (*fn)(void *arg, const struct history_machine *m), void *arg)
{
	static const char by_number[] = "SELECT " MACHINE_COLUMN_LIST " FROM machines"
					" WHERE '#' || id = ?";
	static const char by_name[] = "SELECT " MACHINE_COLUMN_LIST " FROM machines WHERE name = ?"
				      " ORDER BY ended_ns IS NOT NULL, id DESC LIMIT 1";
	struct engine_config *config = malloc(sizeof(*config));
	sqlite3_stmt *st = NULL;
	int rc = SQLITE_NOMEM;

	if (config)
		rc = prepare(h, length && name[0] == '#' ? by_number : by_name, &st);
	if (rc == SQLITE_OK) {
		sqlite3_bind_text(st, 1, name, (int)length, SQLITE_STATIC);
		rc = sqlite3_step(st);
		if (rc == SQLITE_ROW) {
			struct history_machine m;

			rc = replay_read_machine(h->reader, st, config, &m);
			if (rc == SQLITE_OK)
				fn(arg, &m);
		}
	}
	sqlite3_finalize(st);
	free(config);
	return map(h, rc == SQLITE_DONE ? SQLITE_OK : rc);
}

int history_owners(struct history *h, uint64_t machine,
		   bool (*fn)(void *arg, uint32_t number, const char *label), void *arg)
{
	sqlite3_stmt *st;
	bool more = true;
	int rc =
	    prepare(h, "SELECT number, label FROM owners WHERE machine = ? ORDER BY number", &st);

	if (rc != SQLITE_OK)
		return map(h, rc);
	sqlite3_bind_int64(st, 1, (int64_t)machine);
	while (more && (rc = sqlite3_step(st)) == SQLITE_ROW)
		more = fn(arg, (uint32_t)sqlite3_column_int64(st, 0),
			  (const char *)sqlite3_column_text(st, 1));
	sqlite3_finalize(st);
	if (!more)
		return HISTORY_ABORTED;
	return map(h, rc == SQLITE_DONE ? SQLITE_OK : rc);
}

int history_lineage(struct history *h, uint64_t machine, uint64_t *ret_from, uint64_t *ret_at_op)
{
	sqlite3_stmt *st;
	int rc = prepare(h, "SELECT forked_from, forked_at_op FROM machines WHERE id = ?", &st);

	if (rc != SQLITE_OK)
		return map(h, rc);
	sqlite3_bind_int64(st, 1, (int64_t)machine);
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		*ret_from = (uint64_t)sqlite3_column_int64(st, 0);
		*ret_at_op = (uint64_t)sqlite3_column_int64(st, 1);
	}
	sqlite3_finalize(st);
	/* No such row is damage: ids come from the same table. */
	return map(h, rc == SQLITE_ROW ? SQLITE_OK : rc == SQLITE_DONE ? SQLITE_CORRUPT : rc);
}

bool history_reaches(struct history *h, uint64_t machine, uint64_t op)
{
	struct history_checkpoint c;
	uint64_t *parked, from = 0, at_op = 0;

	for (; machine; machine = from) {
		if (history_reader_checkpoint(h->loop_reader, machine, op, &c, &parked))
			return false;
		free(parked);
		if (c.machine)
			return true;
		if (history_lineage(h, machine, &from, &at_op) || from >= machine ||
		    (history_first_op(h, machine) > 1 && op > at_op))
			return false;
		op = op > at_op ? at_op : op;
	}
	return true;
}

/* ---- ops ---- */

int history_replay(struct history *h, uint64_t machine, uint64_t from_op, uint64_t to_op,
		   bool (*fn)(void *arg, const struct history_record *r), void *arg)
{
	return history_reader_ops(h->loop_reader, machine, from_op, to_op, fn, arg);
}

/* What a parked op ended with, in place of PARKED. */
static int read_completion(struct history *h, struct history_record *r)
{
	sqlite3_stmt *st;
	int rc = prepare(h, "SELECT status, v0, v1, v2, v3 FROM completions WHERE key = ?", &st);

	if (rc != SQLITE_OK)
		return rc;
	sqlite3_bind_int64(st, 1, key_of(r->machine, r->op));
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		r->status = (uint32_t)sqlite3_column_int64(st, 0);
		for (int i = 0; i < OP_VALUES; i++)
			r->values[i] = (uint64_t)sqlite3_column_int64(st, 1 + i);
	}
	sqlite3_finalize(st);
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int keep_payload(struct history *h, struct history_record *r)
{
	int rc = reader_payload(h->loop_reader, r);

	if (rc == SQLITE_OK && r->data_len) {
		uint8_t *copy = realloc(h->scratch, r->data_len);

		if (copy) {
			memcpy(copy, r->data, r->data_len);
			h->scratch = copy;
			r->data = copy;
		} else {
			rc = SQLITE_NOMEM;
		}
	}
	reader_payload_end(h->loop_reader);
	return rc;
}

int history_find_token(struct history *h, uint64_t machine, uint64_t token, uint64_t sequence,
		       struct history_record *ret)
{
	sqlite3_stmt *st;
	int rc;

	memset(ret, 0, sizeof(*ret));
	if (!token)
		return HISTORY_OK;
	rc = prepare(h,
		     "SELECT " OP_COLUMN_LIST " FROM ops WHERE key ="
		     " (SELECT key FROM op_more INDEXED BY op_more_token"
		     " WHERE token = ?1 AND sequence = ?2 AND key BETWEEN ?3 AND ?4 LIMIT 1)",
		     &st);
	if (rc != SQLITE_OK)
		return map(h, rc);
	sqlite3_bind_int64(st, 1, (int64_t)token);
	sqlite3_bind_int64(st, 2, (int64_t)sequence);
	sqlite3_bind_int64(st, 3, key_of(machine, 0));
	sqlite3_bind_int64(st, 4, key_of(machine, KEY_OP_MASK));
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		replay_read_record(st, ret);
		ret->nr_events = 0;
		rc = keep_payload(h, ret);
		if (rc == SQLITE_OK && ret->status == STATUS_PARKED)
			rc = read_completion(h, ret);
	}
	sqlite3_finalize(st);
	return map(h, rc == SQLITE_DONE ? SQLITE_OK : rc);
}

/* A token's ops come in the order of their sequence, so one that is kept and earlier than
 * the one in question says that this one would be kept too. */
int history_token_forgotten(struct history *h, uint64_t machine, uint64_t token, uint64_t sequence,
			    bool *ret)
{
	sqlite3_stmt *st;
	int rc;

	*ret = false;
	if (history_first_op(h, machine) == 1)
		return HISTORY_OK;
	rc = prepare(h,
		     "SELECT 1 FROM op_more INDEXED BY op_more_token"
		     " WHERE token = ?1 AND sequence <= ?2 AND key BETWEEN ?3 AND ?4 LIMIT 1",
		     &st);
	if (rc != SQLITE_OK)
		return map(h, rc);
	sqlite3_bind_int64(st, 1, (int64_t)token);
	sqlite3_bind_int64(st, 2, (int64_t)sequence);
	sqlite3_bind_int64(st, 3, key_of(machine, history_first_op(h, machine)));
	sqlite3_bind_int64(st, 4, key_of(machine, KEY_OP_MASK));
	rc = sqlite3_step(st);
	*ret = rc == SQLITE_DONE;
	sqlite3_finalize(st);
	return map(h, rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc);
}
