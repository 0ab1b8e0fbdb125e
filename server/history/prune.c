/*
 * prune.c - what is forgotten: the oldest ops of a machine, a machine that has ended, and the
 * room that they took in the file.
 *
 * To prune a machine is to move its first_op behind a checkpoint, and then to delete what
 * lies before it, a little in each turn. One that has ended is forgotten whole: first_op goes
 * behind its last op, and it has no checkpoint any more. What is left of it is its row, so
 * that its number is not used again and forks of it know what they came from.
 *
 * Invariants:
 *  1. A machine can be made again from a checkpoint of its own at first_op - 1 or later, or
 *     first_op is 1, or it is forgotten. What is below first_op is rubbish; of a machine that
 *     is forgotten op 0 and the labels are too.
 *  2. What is rubbish is told by the rows themselves: a daemon that dies leaves nothing to be
 *     remembered, and the next one sweeps on.
 *  3. The newest row of ops, and of events, stays: see is_newest().
 *
 * A file gives pages back only if it was made for it (history_options.gives_back) or has been
 * compacted: SQLite then keeps a map of who points at which page, which costs each commit
 * about 3 % more instructions. In every other file free pages are used again, no more.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "history_priv.h"

enum {
	/* A slice of sweeping stops the loop for about a millisecond. */
	SWEEP_PIECES = 2,
	SWEEP_OPS = 128,
	SWEEP_LOOKS = 32, /* machines that have nothing to be swept */
	SWEEP_OWNERS = 512,
	GIVE_PAGES = 64,
	/* Pages are given back when this part of them is free, until only that part is: what is
	 * forgotten now and then makes room for what comes. */
	GIVE_FROM = 4,
	GIVE_TO = 8,
	GIVE_MIN_PAGES = 256,
	AUTO_VACUUM_INCREMENTAL = 2, /* SQLite's number */
};

static bool is_forgotten(const struct history_saved *s)
{
	return s->ended_ns && s->first_op > 1 && !s->has;
}

uint64_t history_first_op(const struct history *h, uint64_t machine)
{
	return machine < h->nr_ends && h->saved[machine].first_op ? h->saved[machine].first_op : 1;
}

/* ---- what is to be forgotten ---- */

void prune_sweep_from(struct history *h, uint64_t machine)
{
	if (!h->sweep_machine || machine < h->sweep_machine)
		h->sweep_machine = machine;
}

static void set_first_op(struct history *h, uint64_t machine, uint64_t op)
{
	sqlite3_stmt *st = journal_rare_begin(h, ST_SET_FIRST_OP);

	if (!st)
		return;
	sqlite3_bind_int64(st, 1, (int64_t)machine);
	sqlite3_bind_int64(st, 2, (int64_t)op);
	journal_rare_end(h, ST_SET_FIRST_OP);
	h->saved[machine].first_op = op;
	prune_sweep_from(h, machine);
}

uint64_t history_prune(struct history *h, uint64_t machine, int64_t before_ns)
{
	struct kept k[KEPT_MAX];
	unsigned nr = checkpoint_list_committed(h, machine, k), i = 0;
	uint64_t op;

	while (i < nr && k[i].time_ns > before_ns)
		i++;
	if (i == nr)
		return 0;
	op = (uint64_t)k[i].key & KEY_OP_MASK;
	if (op < history_first_op(h, machine))
		return 0;
	set_first_op(h, machine, op + 1);
	while (++i < nr)
		checkpoint_drop(h, &k[i]);
	return op + 1;
}

bool history_prunable(struct history *h, uint64_t machine, int64_t *ret_time_ns)
{
	struct kept k[KEPT_MAX];
	unsigned i = checkpoint_list_committed(h, machine, k);

	while (i-- > 0) {
		if (((uint64_t)k[i].key & KEY_OP_MASK) < history_first_op(h, machine))
			continue;
		*ret_time_ns = k[i].time_ns;
		return true;
	}
	return false;
}

/* Asks of each machine that is not known to have ended whether it has. */
static void learn_ends(struct history *h)
{
	sqlite3_stmt *st;

	if (sqlite3_prepare_v2(h->reader, "SELECT ended_ns FROM machines WHERE id = ?", -1, &st,
			       NULL) != SQLITE_OK)
		return; /* it is asked again */
	for (uint64_t id = 1; id < h->next_machine; id++) {
		if (h->saved[id].ended_ns)
			continue;
		sqlite3_bind_int64(st, 1, (int64_t)id);
		if (sqlite3_step(st) == SQLITE_ROW)
			h->saved[id].ended_ns = sqlite3_column_int64(st, 0);
		sqlite3_reset(st);
	}
	sqlite3_finalize(st);
}

uint64_t history_oldest_ended(struct history *h, int64_t *ret_ended_ns)
{
	uint64_t best = 0;

	learn_ends(h);
	for (uint64_t id = 1; id < h->next_machine; id++) {
		const struct history_saved *s = &h->saved[id];

		if (s->ended_ns && !is_forgotten(s) &&
		    (!best || s->ended_ns < h->saved[best].ended_ns))
			best = id;
	}
	if (best)
		*ret_ended_ns = h->saved[best].ended_ns;
	return best;
}

void history_forget(struct history *h, uint64_t machine)
{
	struct kept k[KEPT_MAX];
	/* A machine without an op is forgotten too, and 1 says that nothing is. */
	uint64_t first_op = h->ends[machine] > 1 ? h->ends[machine] : 2;
	unsigned nr;

	do {
		nr = checkpoint_list(h, machine, k);
		for (unsigned i = 0; i < nr; i++)
			checkpoint_drop(h, &k[i]);
	} while (nr == KEPT_MAX && !h->journal.error);
	set_first_op(h, machine, first_op);
	h->saved[machine].has = false;
}

/* ---- sweeping ---- */

/* Runs SQL in the turn's transaction. */
static bool exec(struct history *h, const char *sql)
{
	struct journal *j = &h->journal;
	int rc;

	/* Whichever statement: it is asked for the transaction. */
	if (!journal_rare_begin(h, ST_COMMIT))
		return false;
	rc = sqlite3_exec(h->writer, sql, NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		j->error = history_map_error(h->writer, rc, "sweeping", j->why, sizeof(j->why));
	return rc == SQLITE_OK;
}

/* Runs a statement with these two parameters; *ret_changes: rows that it deleted. */
static bool delete_range(struct history *h, enum history_statement which, int64_t first,
			 int64_t last, int *ret_changes)
{
	sqlite3_stmt *st = journal_rare_begin(h, which);

	if (!st)
		return false;
	sqlite3_bind_int64(st, 1, first);
	sqlite3_bind_int64(st, 2, last);
	journal_rare_end(h, which);
	*ret_changes = sqlite3_changes(h->writer);
	return !h->journal.error;
}

/* The next row is made behind the largest key and the largest id that there are (journal.c,
 * invariant 4): these two stay until there is something newer. */
static bool is_newest(const struct history *h, int64_t key, int64_t first_event, int64_t nr_events)
{
	return key == h->journal.last_key ||
	       (nr_events && (uint64_t)(first_event + nr_events) == h->journal.next_event);
}

/* Deletes the oldest ops of a machine that lie before its first_op. False: there are none,
 * or the turn has failed. */
static bool sweep_ops(struct history *h, uint64_t machine)
{
	int64_t first = key_of(machine, is_forgotten(&h->saved[machine]) ? 0 : 1);
	int64_t end = key_of(machine, history_first_op(h, machine));
	struct {
		int64_t first, nr;
	} events[SWEEP_OPS];
	int64_t last = -1;
	int nr = 0, ignored;
	sqlite3_stmt *st;

	if (end == first)
		return false;
	st = journal_rare_begin(h, ST_LIST_OLD_OPS);
	if (!st)
		return false;
	sqlite3_bind_int64(st, 1, first);
	sqlite3_bind_int64(st, 2, end - 1);
	sqlite3_bind_int64(st, 3, SWEEP_OPS);
	for (; nr < SWEEP_OPS && sqlite3_step(st) == SQLITE_ROW; nr++) {
		events[nr].first = sqlite3_column_int64(st, 1);
		events[nr].nr = sqlite3_column_int64(st, 2);
		if (is_newest(h, sqlite3_column_int64(st, 0), events[nr].first, events[nr].nr))
			break;
		last = sqlite3_column_int64(st, 0);
	}
	sqlite3_reset(st);
	for (int i = 0; i < nr; i++)
		if (events[i].nr && !delete_range(h, ST_DELETE_EVENTS, events[i].first,
						  events[i].first + events[i].nr - 1, &ignored))
			return false;
	return last >= 0 && delete_range(h, ST_DELETE_OPS, first, last, &ignored) &&
	       delete_range(h, ST_DELETE_MORE, first, last, &ignored) &&
	       delete_range(h, ST_DELETE_PAYLOADS, first, last, &ignored) &&
	       delete_range(h, ST_DELETE_COMPLETIONS, first, last, &ignored);
}

/* The labels of a machine that is forgotten. False: there are none, or the turn has failed. */
static bool sweep_owners(struct history *h, uint64_t machine)
{
	char sql[160];

	snprintf(sql, sizeof(sql),
		 "DELETE FROM owners WHERE machine = %" PRIu64 " AND number IN (SELECT number FROM"
		 " owners WHERE machine = %" PRIu64 " LIMIT %d)",
		 machine, machine, SWEEP_OWNERS);
	return exec(h, sql) && sqlite3_changes(h->writer) > 0;
}

static void sweep_pieces(struct history *h)
{
	struct piece_range *r = &h->rubbish[h->nr_rubbish - 1];
	sqlite3_stmt *st = journal_rare_begin(h, ST_DELETE_PIECES);

	if (!st)
		return;
	sqlite3_bind_int64(st, 1, (int64_t)r->first);
	sqlite3_bind_int64(st, 2, (int64_t)r->end - 1);
	sqlite3_bind_int64(st, 3, SWEEP_PIECES);
	journal_rare_end(h, ST_DELETE_PIECES);
	if (!h->journal.error && sqlite3_changes(h->writer) < SWEEP_PIECES)
		h->nr_rubbish--;
}

/* The next of the machines that has something to be swept. */
static bool sweep_machines(struct history *h)
{
	for (unsigned looks = 0; h->sweep_machine && h->sweep_machine < h->next_machine; looks++) {
		uint64_t id = h->sweep_machine;

		if (looks == SWEEP_LOOKS || sweep_ops(h, id) ||
		    (is_forgotten(&h->saved[id]) && sweep_owners(h, id)))
			return true;
		h->sweep_machine++;
	}
	h->sweep_machine = 0;
	return false;
}

/* ---- the file ---- */

static void count_pages(struct history *h, uint64_t *ret_all, uint64_t *ret_free)
{
	*ret_all = *ret_free = 0;
	history_load_number(h, "PRAGMA page_count", ret_all);
	history_load_number(h, "PRAGMA freelist_count", ret_free);
}

uint64_t history_used_bytes(struct history *h)
{
	uint64_t pages, free_pages;

	count_pages(h, &pages, &free_pages);
	return (pages - free_pages) * HISTORY_PAGE_SIZE;
}

/* Some pages from the file's end take the place of free ones, and it ends there. It is cut
 * when the WAL has gone into it. */
static bool give_back(struct history *h)
{
	uint64_t pages, free_pages, enough;
	char sql[64];

	if (h->giving == GIVING_NOTHING)
		return false;
	count_pages(h, &pages, &free_pages);
	enough = pages / (h->giving == GIVING_PAGES ? GIVE_TO : GIVE_FROM);
	if (free_pages <= enough || free_pages <= GIVE_MIN_PAGES) {
		h->giving = GIVING_NOTHING;
		return false;
	}
	h->giving = GIVING_PAGES;
	snprintf(sql, sizeof(sql), "PRAGMA incremental_vacuum(%d)", GIVE_PAGES);
	return exec(h, sql);
}

bool history_sweep(struct history *h)
{
	if (h->nr_rubbish || h->sweep_machine)
		h->giving = h->gives_back ? GIVING_MAYBE : GIVING_NOTHING;
	if (h->nr_rubbish) {
		sweep_pieces(h);
		return true;
	}
	/* To find nothing took a transaction too. */
	return sweep_machines(h) || give_back(h) || h->journal.in_transaction;
}

bool history_has_rubbish(const struct history *h)
{
	return h->nr_rubbish || h->sweep_machine || h->giving != GIVING_NOTHING;
}

bool history_gives_back(const struct history *h)
{
	return h->gives_back;
}

int prune_load(struct history *h, char *err, size_t err_size)
{
	uint64_t mode = 0;
	int rc = history_load_number(h, "PRAGMA auto_vacuum", &mode);

	if (rc != SQLITE_OK)
		return history_map_error(h->reader, rc, "reading the history", err, err_size);
	h->gives_back = mode == AUTO_VACUUM_INCREMENTAL;
	return HISTORY_OK;
}

int history_compact(struct history *h, char *err, size_t err_size)
{
	int rc =
	    sqlite3_exec(h->writer, "PRAGMA auto_vacuum = INCREMENTAL; VACUUM", NULL, NULL, NULL);

	if (rc != SQLITE_OK)
		return history_map_error(h->writer, rc, "compacting", err, err_size);
	return prune_load(h, err, err_size);
}
