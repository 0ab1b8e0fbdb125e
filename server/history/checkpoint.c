/*
 * checkpoint.c - checkpoints of machines.
 *
 * A checkpoint is a row of checkpoints and a run of rows of checkpoint_pieces, written a
 * piece at a time in the turns' transactions; the row comes last, so that what is half
 * written is nobody's. What checkpoints allow to be forgotten: prune.c.
 *
 * Invariants:
 *  1. Pieces of a checkpoint have ids side by side: one is written at a time.
 *  2. Pieces that belong to no checkpoint are rubbish, whatever left them: swept by id.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "history_priv.h"

/* ---- what is known at the start ---- */

static int load_saved(struct history *h)
{
	sqlite3_stmt *st;
	int rc = sqlite3_prepare_v2(h->reader,
				    "SELECT m.id, m.first_op, max(c.key), c.time_ns,"
				    " coalesce(m.ended_ns, 0) FROM machines m"
				    " LEFT JOIN checkpoints c ON c.key BETWEEN m.id << 40"
				    " AND (m.id << 40) + 0xffffffffff GROUP BY m.id",
				    -1, &st, NULL);

	if (rc != SQLITE_OK)
		return rc;
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		uint64_t id = (uint64_t)sqlite3_column_int64(st, 0);

		if (id >= h->nr_ends)
			return sqlite3_finalize(st), SQLITE_CORRUPT;
		h->saved[id] = (struct history_saved){
		    .first_op = (uint64_t)sqlite3_column_int64(st, 1),
		    .has = sqlite3_column_type(st, 2) != SQLITE_NULL,
		    .op = (uint64_t)sqlite3_column_int64(st, 2) & KEY_OP_MASK,
		    .time_ns = sqlite3_column_int64(st, 3),
		    .ended_ns = sqlite3_column_int64(st, 4),
		};
		/* Its last ops may be among those that are forgotten. */
		if (h->saved[id].first_op > 1 && h->ends[id] < h->saved[id].first_op)
			h->ends[id] = h->saved[id].first_op;
	}
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static void add_rubbish(struct history *h, uint64_t first, uint64_t end)
{
	struct piece_range *range;

	if (first >= end)
		return;
	if (h->nr_rubbish == h->max_rubbish) {
		size_t max = h->max_rubbish ? h->max_rubbish * 2 : 16;

		range = realloc(h->rubbish, max * sizeof(*range));
		if (!range)
			return; /* it is found at the next start */
		h->rubbish = range;
		h->max_rubbish = max;
	}
	h->rubbish[h->nr_rubbish++] = (struct piece_range){first, end};
}

/* Whatever lies between the checkpoints' pieces. */
static int load_rubbish(struct history *h)
{
	sqlite3_stmt *st;
	uint64_t end = 1;
	int rc = sqlite3_prepare_v2(
	    h->reader, "SELECT first_piece, nr_pieces FROM checkpoints ORDER BY first_piece", -1,
	    &st, NULL);

	if (rc != SQLITE_OK)
		return rc;
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		uint64_t first = (uint64_t)sqlite3_column_int64(st, 0);

		add_rubbish(h, end, first);
		end = first + (uint64_t)sqlite3_column_int64(st, 1);
	}
	sqlite3_finalize(st);
	add_rubbish(h, end, h->next_piece);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int checkpoint_load(struct history *h, char *err, size_t err_size)
{
	uint64_t pieces = 0, owned = 0;
	int rc = load_saved(h);

	h->nr_rubbish = 0;
	if (rc == SQLITE_OK)
		rc = history_load_number(
		    h, "SELECT coalesce(max(id), 0) + 1 FROM checkpoint_pieces", &h->next_piece);
	if (rc == SQLITE_OK)
		rc = history_load_number(h, "SELECT count(*) FROM checkpoint_pieces", &pieces);
	if (rc == SQLITE_OK)
		rc = history_load_number(h, "SELECT coalesce(sum(nr_pieces), 0) FROM checkpoints",
					 &owned);
	if (rc == SQLITE_OK && pieces != owned)
		rc = load_rubbish(h);
	if (rc != SQLITE_OK)
		return history_map_error(h->reader, rc, "reading the checkpoints", err, err_size);
	h->first_piece = h->next_piece;
	prune_sweep_from(h, 1);
	return HISTORY_OK;
}

/* ---- writing ---- */

void history_add_piece(struct history *h, const uint8_t *data, size_t length)
{
	sqlite3_stmt *st = journal_rare_begin(h, ST_INSERT_PIECE);

	if (!st)
		return;
	sqlite3_bind_int64(st, 1, (int64_t)h->next_piece++);
	sqlite3_bind_blob(st, 2, data, (int)length, SQLITE_STATIC);
	journal_rare_end(h, ST_INSERT_PIECE);
}

/* Op numbers as a JSON array; the caller frees it. */
static char *json_of_ops(const uint64_t *ops, uint32_t nr)
{
	sqlite3_str *s = sqlite3_str_new(NULL);

	sqlite3_str_appendchar(s, 1, '[');
	for (uint32_t i = 0; i < nr; i++)
		sqlite3_str_appendf(s, "%s%lld", i ? "," : "", (long long)ops[i]);
	sqlite3_str_appendchar(s, 1, ']');
	return sqlite3_str_finish(s);
}

void history_add_checkpoint(struct history *h, const struct history_checkpoint *c)
{
	sqlite3_stmt *st = journal_rare_begin(h, ST_INSERT_CHECKPOINT);
	char digest[33];
	int at = 1;

	if (!st)
		return;
	sqlite3_snprintf(sizeof(digest), digest, "%016llx%016llx", c->digest.hi, c->digest.lo);
	sqlite3_bind_int64(st, at++, key_of(c->machine, c->op));
	sqlite3_bind_int64(st, at++, c->time_ns);
	sqlite3_bind_text(st, at++, digest, -1, SQLITE_TRANSIENT);
	sqlite3_bind_int64(st, at++, (int64_t)c->frames);
	sqlite3_bind_int64(st, at++, c->owners);
	sqlite3_bind_text(st, at++, json_of_ops(c->parked, c->nr_parked), -1, sqlite3_free);
	sqlite3_bind_int64(st, at++, (int64_t)h->first_piece);
	sqlite3_bind_int64(st, at++, (int64_t)(h->next_piece - h->first_piece));
	journal_rare_end(h, ST_INSERT_CHECKPOINT);
	h->first_piece = h->next_piece;
	h->saved[c->machine].has = true;
	h->saved[c->machine].op = c->op;
	h->saved[c->machine].time_ns = c->time_ns;
}

void history_forget_pieces(struct history *h)
{
	add_rubbish(h, h->first_piece, h->next_piece);
	h->first_piece = h->next_piece;
}

/* A transaction is void, and what it had of pieces with it. The machine's newest
 * checkpoint may be one that is not there: it is known again when it has been asked. */
void checkpoint_rolled_back(struct history *h)
{
	char err[HISTORY_ERROR_LENGTH];

	/* Without an answer nothing is swept until the next start. */
	if (checkpoint_load(h, err, sizeof(err)))
		h->nr_rubbish = h->sweep_machine = 0;
}

bool history_saved(const struct history *h, uint64_t machine, uint64_t *ret_op,
		   int64_t *ret_time_ns)
{
	if (machine >= h->nr_ends || !h->saved[machine].has)
		return false;
	*ret_op = h->saved[machine].op;
	*ret_time_ns = h->saved[machine].time_ns;
	return true;
}

/* ---- which are kept ---- */

static unsigned list(sqlite3_stmt *st, uint64_t machine, struct kept kept[KEPT_MAX])
{
	unsigned nr = 0;

	sqlite3_bind_int64(st, 1, key_of(machine, 0));
	sqlite3_bind_int64(st, 2, key_of(machine, KEY_OP_MASK));
	for (; nr < KEPT_MAX && sqlite3_step(st) == SQLITE_ROW; nr++) {
		uint64_t first = (uint64_t)sqlite3_column_int64(st, 2);

		kept[nr] = (struct kept){
		    sqlite3_column_int64(st, 0),
		    sqlite3_column_int64(st, 1),
		    {first, first + (uint64_t)sqlite3_column_int64(st, 3)},
		};
	}
	sqlite3_reset(st);
	return nr;
}

unsigned checkpoint_list(struct history *h, uint64_t machine, struct kept kept[KEPT_MAX])
{
	sqlite3_stmt *st = journal_rare_begin(h, ST_LIST_CHECKPOINTS);

	return st ? list(st, machine, kept) : 0;
}

unsigned checkpoint_list_committed(struct history *h, uint64_t machine, struct kept kept[KEPT_MAX])
{
	sqlite3_stmt *st;
	unsigned nr = 0;

	if (sqlite3_prepare_v2(h->reader, sqlite3_sql(h->statements[ST_LIST_CHECKPOINTS]), -1, &st,
			       NULL) == SQLITE_OK)
		nr = list(st, machine, kept);
	sqlite3_finalize(st);
	return nr;
}

void checkpoint_drop(struct history *h, const struct kept *k)
{
	sqlite3_stmt *st = journal_rare_begin(h, ST_DROP_CHECKPOINT);

	if (!st)
		return;
	sqlite3_bind_int64(st, 1, k->key);
	journal_rare_end(h, ST_DROP_CHECKPOINT);
	add_rubbish(h, k->pieces.first, k->pieces.end);
}

/* The two newest, and of the older ones fewer the older they are: one is dropped when its
 * neighbours are not further apart than it is from the newest. What stays grows with the
 * logarithm of the ops, and a question about the past is never far from one. */
void history_thin_checkpoints(struct history *h, uint64_t machine)
{
	struct kept k[KEPT_MAX];
	unsigned nr = checkpoint_list(h, machine, k);

	for (unsigned i = 2; i + 1 < nr; i++) {
		if (k[i - 1].key - k[i + 1].key > k[0].key - k[i].key)
			continue;
		checkpoint_drop(h, &k[i]);
		return;
	}
}
