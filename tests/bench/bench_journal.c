/*
 * bench_journal.c - the journal beside the bare loop that it is made of.
 *
 *   bench_journal [rows per measurement] [events per op]
 *
 * Both fill the same tables of a fresh history, in the same run, by turns. The bare
 * loop is INSERT ... SELECT from a virtual table whose rows are arithmetic, one
 * transaction a batch: what SQLite itself takes. The journal is history_append()
 * and history_commit() for the same rows, upkeep included (history_idle() after
 * each batch, as often as the bare loop checkpoints). A row is a row of ops or of
 * events. Working set: the appended end of two tables; detail level all.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "history.h"

enum { CHECKPOINT_PAGES = (8 << 20) / 4096 };

static char path[256];
static unsigned events_per_op = 4;

static void check(int rc, const char *what)
{
	if (rc) {
		fprintf(stderr, "bench_journal: %s: %d\n", what, rc);
		exit(1);
	}
}

/* ---- the rows: an AllocPages that refills, splits and allocates ---- */

static void fill_event(struct engine_event *e, uint64_t op, unsigned i)
{
	memset(e, 0, sizeof(*e));
	e->kind = (uint16_t)(EVENT_ALLOC + i % 4);
	e->w[0] = (uint32_t)(200000 + op % 700000);
	e->w[1] = i % 3;
	e->w[2] = 0x100cca;
	e->w[3] = 2;
	e->w[4] = 1;
}

static int64_t op_value(uint64_t op, uint64_t first_event, int column)
{
	switch (column) {
	case 0: return (int64_t)(1ULL << 40 | op);
	case 1: return 1790000000000000000LL + (int64_t)(op / 128) * 100000;
	case 2: return OP_ALLOC_PAGES;
	case 3: return 1LL << 32 | 1;
	case 4: return 20000 + (int64_t)(op % 1000);
	case 5: return 0x100cca;
	case 6: return (int64_t)(200000 + op % 700000);
	case 7: return 1LL << 32 | 2;
	case 8: return events_per_op ? (int64_t)(first_event << 24 | events_per_op) : 0;
	case 9: return 0x1e;
	default: return 0;
	}
}

/* ---- the bare loop ---- */

struct bare {
	uint64_t first_op, nr_ops, first_event;
};

struct bare_table {
	sqlite3_vtab base;
	struct bare *bare;
	int is_events;
};

struct bare_cursor {
	sqlite3_vtab_cursor base;
	uint64_t at, nr;
	struct engine_event event;
};

static int bare_connect(sqlite3 *db, void *aux, int argc, const char *const *argv,
			sqlite3_vtab **ret, char **err)
{
	struct bare_table *t = calloc(1, sizeof(*t));

	(void)argc;
	(void)err;
	t->bare = aux;
	t->is_events = strcmp(argv[0], "bare_events") == 0;
	*ret = &t->base;
	return sqlite3_declare_vtab(db, t->is_events ? "CREATE TABLE x(a,b,c,d)"
						     : "CREATE TABLE x(a,b,c,d,e,f,g,h,i)");
}

static int bare_disconnect(sqlite3_vtab *t)
{
	free(t);
	return SQLITE_OK;
}

static int bare_best_index(sqlite3_vtab *t, sqlite3_index_info *info)
{
	(void)t;
	info->estimatedCost = 1000;
	return SQLITE_OK;
}

static int bare_open(sqlite3_vtab *t, sqlite3_vtab_cursor **ret)
{
	struct bare_cursor *c = calloc(1, sizeof(*c));

	(void)t;
	*ret = &c->base;
	return SQLITE_OK;
}

static int bare_close(sqlite3_vtab_cursor *c)
{
	free(c);
	return SQLITE_OK;
}

static int bare_filter(sqlite3_vtab_cursor *cursor, int n, const char *s, int argc,
		       sqlite3_value **argv)
{
	struct bare_cursor *c = (struct bare_cursor *)cursor;
	const struct bare_table *t = (const struct bare_table *)cursor->pVtab;

	(void)n;
	(void)s;
	(void)argc;
	(void)argv;
	c->at = 0;
	c->nr = t->is_events ? t->bare->nr_ops * events_per_op : t->bare->nr_ops;
	return SQLITE_OK;
}

static int bare_next(sqlite3_vtab_cursor *c)
{
	((struct bare_cursor *)c)->at++;
	return SQLITE_OK;
}

static int bare_eof(sqlite3_vtab_cursor *c)
{
	return ((struct bare_cursor *)c)->at >= ((struct bare_cursor *)c)->nr;
}

static int bare_rowid(sqlite3_vtab_cursor *c, sqlite3_int64 *ret)
{
	*ret = (sqlite3_int64)((struct bare_cursor *)c)->at;
	return SQLITE_OK;
}

static int bare_column(sqlite3_vtab_cursor *cursor, sqlite3_context *out, int i)
{
	struct bare_cursor *c = (struct bare_cursor *)cursor;
	const struct bare_table *t = (const struct bare_table *)cursor->pVtab;
	uint64_t op;

	if (t->is_events) {
		op = t->bare->first_op + c->at / events_per_op;
		if (i == 0)
			fill_event(&c->event, op, (unsigned)(c->at % events_per_op));
		sqlite3_result_int64(out, i == 0 ? c->event.kind
						 : c->event.w[2 * i - 2] |
						       (int64_t)c->event.w[2 * i - 1] << 32);
		return SQLITE_OK;
	}
	op = t->bare->first_op + c->at;
	/* Without the key: the next one, which SQLite then makes itself. */
	sqlite3_result_int64(out,
			     op_value(op, t->bare->first_event + c->at * events_per_op, i + 1));
	return SQLITE_OK;
}

static const sqlite3_module bare_module = {
    .xConnect = bare_connect,
    .xBestIndex = bare_best_index,
    .xDisconnect = bare_disconnect,
    .xOpen = bare_open,
    .xClose = bare_close,
    .xFilter = bare_filter,
    .xNext = bare_next,
    .xEof = bare_eof,
    .xColumn = bare_column,
    .xRowid = bare_rowid,
};

static struct history *open_history(void)
{
	struct history_options options = {.path = path};
	struct history *h;
	char err[256];

	if (history_open(&options, &h, err, sizeof(err))) {
		fprintf(stderr, "bench_journal: %s\n", err);
		exit(1);
	}
	return h;
}

static void remove_history(void)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
	char name[300];

	for (size_t i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
		unlink(name);
	}
}

static int bare_pages;

static int bare_hook(void *arg, sqlite3 *db, const char *schema, int pages)
{
	(void)arg;
	(void)db;
	(void)schema;
	bare_pages = pages;
	return SQLITE_OK;
}

static double run_bare(uint64_t nr_ops, uint64_t batch_ops)
{
	struct bare bare = {1, batch_ops, 1};
	sqlite3_stmt *begin, *ops, *events, *commit;
	int done = 0, log = 0, checkpointed = 0;
	sqlite3 *db;
	double start;

	remove_history();
	history_close(open_history());
	check(sqlite3_open(path, &db), "open");
	check(sqlite3_exec(db,
			   "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
			   "PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -65536",
			   NULL, NULL, NULL),
	      "pragmas");
	sqlite3_wal_hook(db, bare_hook, NULL);
	check(sqlite3_create_module(db, "bare_ops", &bare_module, &bare), "module");
	check(sqlite3_create_module(db, "bare_events", &bare_module, &bare), "module");
	check(sqlite3_prepare_v2(db, "BEGIN IMMEDIATE", -1, &begin, NULL), "prepare");
	/* Op 0, behind which the others come. */
	check(sqlite3_exec(db, "INSERT INTO op_rows(key) VALUES(1 << 40)", NULL, NULL, NULL),
	      "op 0");
	check(sqlite3_prepare_v2(db,
				 "INSERT INTO op_rows(time_ns, what, caller, latency_ns, a01, v0,"
				 " v12, events, kinds) SELECT * FROM bare_ops",
				 -1, &ops, NULL),
	      "prepare");
	check(sqlite3_prepare_v2(
		  db, "INSERT INTO event_rows(kind, w01, w23, w45) SELECT * FROM bare_events", -1,
		  &events, NULL),
	      "prepare");
	check(sqlite3_prepare_v2(db, "COMMIT", -1, &commit, NULL), "prepare");
	sqlite3_stmt *const turn[] = {begin, ops, events, commit};

	start = bench_now();
	for (uint64_t op = 0; op < nr_ops; op += batch_ops) {
		for (size_t i = 0; i < 4; i++) {
			if (i == 2 && !events_per_op)
				continue;
			check(sqlite3_step(turn[i]) != SQLITE_DONE, sqlite3_errmsg(db));
			sqlite3_reset(turn[i]);
		}
		bare.first_op += batch_ops;
		bare.first_event += batch_ops * events_per_op;
		if (bare_pages < done)
			done = 0;
		if (bare_pages - done >= CHECKPOINT_PAGES) {
			sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, &log,
						  &checkpointed);
			done = checkpointed;
		}
	}
	start = bench_now() - start;
	for (size_t i = 0; i < 4; i++)
		sqlite3_finalize(turn[i]);
	sqlite3_close(db);
	return (double)nr_ops * (1 + events_per_op) / start * 1e9;
}

/* ---- the journal ---- */

static double run_journal(uint64_t nr_ops, uint64_t batch_ops, enum history_sync sync)
{
	static struct engine_config config;
	struct history_options options = {.path = path, .sync = sync};
	struct history_record r = {.machine = 1, .code = OP_ALLOC_PAGES, .owner = 1, .client = 1};
	struct engine_event *events = calloc(events_per_op + 1, sizeof(*events));
	struct history *h;
	char err[256];
	double start;

	remove_history();
	if (history_open(&options, &h, err, sizeof(err))) {
		fprintf(stderr, "bench_journal: %s\n", err);
		exit(1);
	}
	history_add_machine(h, "bench", "sim", &config, 0, 0, false, 0);
	check(history_commit(h, err, sizeof(err)), "commit");
	start = bench_now();
	for (uint64_t op = 1; op <= nr_ops; op++) {
		for (unsigned i = 0; i < events_per_op; i++)
			fill_event(&events[i], op, i);
		r.op = op;
		r.time_ns = op_value(op, 0, 1);
		r.latency_ns = (uint64_t)op_value(op, 0, 4);
		r.args[0] = 0x100cca;
		r.values[0] = (uint64_t)op_value(op, 0, 6);
		r.values[1] = 2;
		r.values[2] = 1;
		r.events = events;
		r.nr_events = events_per_op;
		history_append(h, &r);
		if (op % batch_ops == 0) {
			check(history_commit(h, err, sizeof(err)), err);
			history_idle(h);
		}
	}
	start = bench_now() - start;
	history_close(h);
	free(events);
	return (double)nr_ops * (1 + events_per_op) / start * 1e9;
}

int main(int argc, char **argv)
{
	static const uint64_t batches[] = {1, 128, 256, 512, 1024};
	uint64_t rows = argc > 1 ? strtoull(argv[1], NULL, 0) : 200000;
	const char *tmp = getenv("TMPDIR");

	if (argc > 2)
		events_per_op = (unsigned)strtoul(argv[2], NULL, 0);
	snprintf(path, sizeof(path), "%s/bench_journal.%d.db", tmp ? tmp : "/tmp", (int)getpid());
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("detail all, %u events per op; million rows (ops and events) per second, median of "
	       "%d\n",
	       events_per_op, BENCH_ROUNDS);
	printf("%10s %10s %10s %10s  (to reach: 0.90)\n", "rows/turn", "bare", "journal", "ratio");
	for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
		uint64_t batch = batches[i] / (1 + events_per_op), nr;
		double bare[BENCH_ROUNDS], journal[BENCH_ROUNDS], ratio[BENCH_ROUNDS];

		batch = batch ? batch : 1;
		nr = rows / (1 + events_per_op) / (i == 0 ? 8 : 1) / batch * batch;
		for (unsigned r = 0; r < BENCH_ROUNDS; r++) {
			bare[r] = run_bare(nr, batch);
			journal[r] = run_journal(nr, batch, HISTORY_SYNC_NORMAL);
			ratio[r] = journal[r] / bare[r];
		}
		printf("%10llu %10.3f %10.3f %10.2f\n",
		       (unsigned long long)(batch * (1 + events_per_op)),
		       bench_median(bare, BENCH_ROUNDS) / 1e6,
		       bench_median(journal, BENCH_ROUNDS) / 1e6,
		       bench_median(ratio, BENCH_ROUNDS));
	}
	printf("%10s %10s %10.3f  (synchronous FULL)\n", "1024", "",
	       run_journal(rows / (1 + events_per_op) / 1024 * 1024, 1024 / (1 + events_per_op),
			   HISTORY_SYNC_FULL) /
		   1e6);
	remove_history();
	return 0;
}
