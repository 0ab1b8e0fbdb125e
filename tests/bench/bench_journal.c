/*
 * bench_journal.c - the journal beside the bare loop that it is made of.
 *
 *   bench_journal [rows per measurement] [events per op] [rows per turn]
 *
 * Both fill the tables of a history with the same rows, which are made beforehand. The bare loop
 * is INSERT ... SELECT from a virtual table that reads an array of them, one transaction a turn:
 * what SQLite itself takes. Its log goes into the file 8 MiB at a time. The journal gets the
 * rows by history_append() and history_commit(), and each turn ends with its upkeep,
 * history_idle() and a turn of the loop. A row is a row of ops or of events.
 *
 * They take turns in slices of some milliseconds, so that a slow moment of the machine meets
 * both. Time is the CPU's, in the loop's thread: whoever else is on the machine costs it
 * caches. Syncs are not counted: the journal's are made by the pool, and so the bare loop's are
 * made off the clock. Working set: the appended end of two tables; detail level all.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "history.h"

enum { SLICES = 64, MAX_EVENTS = 16, MAX_TURN = 1024, CHECKPOINT_PAGES = (8 << 20) / 4096 };

static char path[256];
static unsigned events_per_op = 4;

static void check(int rc, const char *what)
{
	if (rc) {
		fprintf(stderr, "bench_journal: %s: %d\n", what, rc);
		exit(1);
	}
}

/* ---- the rows of a turn, made beforehand: an AllocPages that refills, splits, allocates ---- */

static struct history_record records[MAX_TURN];
static struct engine_event events[MAX_TURN * MAX_EVENTS];

/* The same as the tables have them, but for the keys, which SQLite makes. */
enum { NR_EVENTS_BITS = 24, OPS_EVENTS = 7, OPS_COLUMNS = 9, EVENTS_COLUMNS = 4 };
static int64_t op_rows[MAX_TURN][OPS_COLUMNS];
static int64_t event_rows[MAX_TURN * MAX_EVENTS][EVENTS_COLUMNS];

static void make_event(unsigned op, unsigned i)
{
	struct engine_event *e = &events[op * events_per_op + i];
	int64_t *row = event_rows[op * events_per_op + i];

	*e = (struct engine_event){.kind = (uint16_t)(EVENT_ALLOC + i % 4),
				   .w = {200000 + op * 997, i % 3, 0x100cca, 2, 1}};
	row[0] = e->kind;
	for (unsigned w = 0; w < EVENT_WORDS; w += 2)
		row[1 + w / 2] = (int64_t)e->w[w + 1] << 32 | e->w[w];
}

static void make_rows(void)
{
	for (unsigned op = 0; op < MAX_TURN; op++) {
		struct history_record *r = &records[op];
		uint64_t kinds = 0;

		for (unsigned i = 0; i < events_per_op; i++) {
			make_event(op, i);
			kinds |= UINT64_C(1) << (EVENT_ALLOC + i % 4);
		}
		*r = (struct history_record){.machine = 1,
					     .code = OP_ALLOC_PAGES,
					     .owner = 1,
					     .client = 1,
					     .time_ns = INT64_C(1790000000000000000) + op,
					     .latency_ns = 20000 + op,
					     .args = {0x100cca},
					     .values = {200000 + op * 997, 2, 1},
					     .events = &events[op * events_per_op],
					     .nr_events = events_per_op};
		const int64_t row[OPS_COLUMNS] = {r->time_ns,
						  r->code,
						  INT64_C(1) << 32 | 1,
						  (int64_t)r->latency_ns,
						  0x100cca,
						  (int64_t)r->values[0],
						  INT64_C(1) << 32 | 2,
						  0,
						  (int64_t)kinds};

		memcpy(op_rows[op], row, sizeof(row));
	}
}

/* ---- the virtual tables of the bare loop ---- */

struct bare {
	const int64_t *rows;
	size_t nr, columns;
};

struct bare_table {
	sqlite3_vtab base;
	const struct bare *bare;
};

struct bare_cursor {
	sqlite3_vtab_cursor base;
	const int64_t *row, *end;
	size_t columns;
};

static int bare_connect(sqlite3 *db, void *aux, int argc, const char *const *argv,
			sqlite3_vtab **ret, char **err)
{
	struct bare_table *t = calloc(1, sizeof(*t));

	(void)argc;
	(void)argv;
	(void)err;
	t->bare = aux;
	*ret = &t->base;
	return sqlite3_declare_vtab(db, t->bare->columns == EVENTS_COLUMNS
					    ? "CREATE TABLE x(a,b,c,d)"
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
	const struct bare *bare = ((const struct bare_table *)cursor->pVtab)->bare;

	(void)n;
	(void)s;
	(void)argc;
	(void)argv;
	c->row = bare->rows;
	c->end = bare->rows + bare->nr * bare->columns;
	c->columns = bare->columns;
	return SQLITE_OK;
}

static int bare_next(sqlite3_vtab_cursor *cursor)
{
	struct bare_cursor *c = (struct bare_cursor *)cursor;

	c->row += c->columns;
	return SQLITE_OK;
}

static int bare_eof(sqlite3_vtab_cursor *cursor)
{
	const struct bare_cursor *c = (const struct bare_cursor *)cursor;

	return c->row == c->end;
}

static int bare_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *ret)
{
	(void)cursor;
	*ret = 0; /* nobody asks */
	return SQLITE_OK;
}

static int bare_column(sqlite3_vtab_cursor *cursor, sqlite3_context *out, int i)
{
	sqlite3_result_int64(out, ((const struct bare_cursor *)cursor)->row[i]);
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

/* ---- two histories, side by side ---- */

struct side {
	const char *suffix; /* of its path */
	void (*slice)(struct side *, unsigned turns, uint64_t turn_ops);
	char path[280];
	uint64_t next_op;
	double ns; /* in slices, together */
	struct history *h;
	/* Of the bare loop: */
	sqlite3 *db;
	sqlite3_stmt *turn[4];
	struct bare ops, events;
	uint64_t next_event;
	int pages, copied; /* of its log */
};

static uv_loop_t loop;

static void remove_history(const struct side *s)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
	char name[300];

	for (size_t i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "%s%s", s->path, suffixes[i]);
		unlink(name);
	}
}

/* A machine, and op 0, behind which the others come. */
static void open_side(struct side *s, enum history_sync sync)
{
	static struct engine_config config;
	struct history_options options = {.path = s->path, .sync = sync, .loop = &loop};
	char err[256];

	snprintf(s->path, sizeof(s->path), "%s%s", path, s->suffix);
	remove_history(s);
	if (history_open(&options, &s->h, err, sizeof(err))) {
		fprintf(stderr, "bench_journal: %s\n", err);
		exit(1);
	}
	history_add_machine(s->h, "bench", "sim", &config, 0, 0, false, 0);
	history_append(s->h, &(struct history_record){.machine = 1});
	check(history_commit(s->h, err, sizeof(err)), err);
	s->next_op = 1;
	s->ns = 0;
}

/* ---- the bare loop ---- */

static int bare_hook(void *arg, sqlite3 *db, const char *schema, int pages)
{
	struct side *s = arg;

	(void)db;
	(void)schema;
	/* Fewer than there were: the log has begun anew. */
	if (pages < s->copied)
		s->copied = 0;
	s->pages = pages;
	return SQLITE_OK;
}

#define OP_ROW_COLUMNS "time_ns, what, caller, latency_ns, a01, v0, v12, events, kinds"

static void open_bare(struct side *s)
{
	static const char *const sql[] = {
	    "BEGIN IMMEDIATE",
	    "INSERT INTO op_rows(" OP_ROW_COLUMNS ") SELECT * FROM bare_ops",
	    "INSERT INTO event_rows(kind, w01, w23, w45) SELECT * FROM bare_events",
	    "COMMIT",
	};

	open_side(s, HISTORY_SYNC_NORMAL);
	history_close(s->h);
	s->ops = (struct bare){op_rows[0], 0, OPS_COLUMNS};
	s->events = (struct bare){event_rows[0], 0, EVENTS_COLUMNS};
	s->next_event = 1;
	s->pages = s->copied = 0;
	check(sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL),
	      "open");
	check(sqlite3_exec(s->db,
			   "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;"
			   "PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -65536",
			   NULL, NULL, NULL),
	      "pragmas");
	sqlite3_wal_hook(s->db, bare_hook, s);
	check(sqlite3_create_module(s->db, "bare_ops", &bare_module, &s->ops), "module");
	check(sqlite3_create_module(s->db, "bare_events", &bare_module, &s->events), "module");
	for (size_t i = 0; i < sizeof(sql) / sizeof(sql[0]); i++)
		check(sqlite3_prepare_v3(s->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &s->turn[i],
					 NULL),
		      sqlite3_errmsg(s->db));
}

static void close_bare(struct side *s)
{
	for (size_t i = 0; i < sizeof(s->turn) / sizeof(s->turn[0]); i++)
		sqlite3_finalize(s->turn[i]);
	sqlite3_close(s->db);
	remove_history(s);
}

static void sync_bare(struct side *s, int which)
{
	double start = bench_cpu();
	sqlite3_file *file;

	check(sqlite3_file_control(s->db, "main", which, &file), "file");
	check(file->pMethods->xSync(file, SQLITE_SYNC_NORMAL), "sync");
	s->ns -= bench_cpu() - start;
}

/* In SQLite's order, but synchronous is off. */
static void copy_bare(struct side *s)
{
	sync_bare(s, SQLITE_FCNTL_JOURNAL_POINTER);
	check(sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, &s->copied),
	      sqlite3_errmsg(s->db));
	sync_bare(s, SQLITE_FCNTL_FILE_POINTER);
}

static void bare_slice(struct side *s, unsigned turns, uint64_t turn_ops)
{
	s->ops.nr = turn_ops;
	s->events.nr = turn_ops * events_per_op;
	while (turns--) {
		for (uint64_t i = 0; events_per_op && i < turn_ops; i++) {
			op_rows[i][OPS_EVENTS] =
			    (int64_t)(s->next_event << NR_EVENTS_BITS | events_per_op);
			s->next_event += events_per_op;
		}
		for (size_t i = 0; i < 4; i++) {
			if (i == 2 && !events_per_op)
				continue;
			check(sqlite3_step(s->turn[i]) != SQLITE_DONE, sqlite3_errmsg(s->db));
			sqlite3_reset(s->turn[i]);
		}
		if (s->pages - s->copied >= CHECKPOINT_PAGES)
			copy_bare(s);
	}
}

/* ---- the journal ---- */

static void close_journal(struct side *s)
{
	history_close(s->h);
	remove_history(s);
}

static void journal_slice(struct side *s, unsigned turns, uint64_t turn_ops)
{
	char err[256];

	while (turns--) {
		for (uint64_t i = 0; i < turn_ops; i++) {
			records[i].op = s->next_op++;
			history_append(s->h, &records[i]);
		}
		check(history_commit(s->h, err, sizeof(err)), err);
		history_idle(s->h);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
}

/* ---- both ---- */

static struct side bare_side = {.suffix = ".bare", .slice = bare_slice};
static struct side journal_side = {.suffix = ".journal", .slice = journal_slice};

static void compare(uint64_t rows, uint64_t turn_rows)
{
	uint64_t turn_ops = turn_rows / (1 + events_per_op);
	struct side *const sides[] = {&bare_side, &journal_side};
	unsigned turns;

	turn_ops = turn_ops > MAX_TURN ? MAX_TURN : turn_ops ? turn_ops : 1;
	turn_rows = turn_ops * (1 + events_per_op);
	turns = (unsigned)(rows / SLICES / turn_rows);
	turns = turns ? turns : 1;
	open_bare(&bare_side);
	open_side(&journal_side, HISTORY_SYNC_NORMAL);
	for (unsigned i = 0; i < 2 * SLICES; i++) {
		/* Who comes second comes first the next time. */
		struct side *s = sides[(i / 2 + i) % 2];
		double start = bench_cpu();

		s->slice(s, turns, turn_ops);
		s->ns += bench_cpu() - start;
	}
	close_bare(&bare_side);
	close_journal(&journal_side);
	rows = SLICES * turns * turn_rows;
	printf("%10llu %10.3f %10.3f %10.2f\n", (unsigned long long)turn_rows,
	       (double)rows / bare_side.ns * 1e3, (double)rows / journal_side.ns * 1e3,
	       bare_side.ns / journal_side.ns);
}

/* The journal alone, by the wall clock. */
static void run_alone(uint64_t rows, enum history_sync sync, const char *name)
{
	uint64_t turn_ops = 1024 / (1 + events_per_op);
	unsigned turns = (unsigned)(rows / 1024);
	double start;

	open_side(&journal_side, sync);
	start = bench_now();
	journal_slice(&journal_side, turns, turn_ops);
	start = bench_now() - start;
	close_journal(&journal_side);
	printf("%10s %10s %10.3f  (by the wall clock, synchronous %s)\n", "1024", "",
	       (double)(turns * turn_ops * (1 + events_per_op)) / start * 1e3, name);
}

int main(int argc, char **argv)
{
	static const uint64_t turn_rows[] = {1, 40, 128, 256, 512, 1024};
	uint64_t rows = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000000;
	const char *tmp = getenv("TMPDIR");

	if (argc > 2)
		events_per_op = (unsigned)strtoul(argv[2], NULL, 0);
	if (events_per_op > MAX_EVENTS)
		events_per_op = MAX_EVENTS;
	snprintf(path, sizeof(path), "%s/bench_journal.%d.db", tmp ? tmp : "/tmp", (int)getpid());
	setvbuf(stdout, NULL, _IOLBF, 0);
	make_rows();
	check(uv_loop_init(&loop), "loop");
	printf("detail all, %u events per op; million rows (ops and events) per second of CPU "
	       "time\n",
	       events_per_op);
	printf("%10s %10s %10s %10s  (to reach: 0.90)\n", "rows/turn", "bare", "journal", "ratio");
	if (argc > 3) {
		compare(rows, strtoull(argv[3], NULL, 0));
		return 0;
	}
	for (size_t i = 0; i < sizeof(turn_rows) / sizeof(turn_rows[0]); i++)
		compare(turn_rows[i] == 1 ? rows / 8 : rows, turn_rows[i]);
	run_alone(rows, HISTORY_SYNC_NORMAL, "NORMAL");
	run_alone(rows, HISTORY_SYNC_FULL, "FULL");
	return 0;
}
