/*
 * history_priv.h - what the files of this room share. Nobody else includes it.
 *
 * Threads: the loop's thread owns everything in struct history and the connections
 * `writer` and `reader`. A query or a tail has a connection of its own, which is
 * used by one thread at a time: by the pool's while its work is queued, by nobody
 * otherwise.
 */
#ifndef HISTORY_PRIV_H
#define HISTORY_PRIV_H

#include <sqlite3.h>

#include "contract_tables.h"
#include "history.h"

enum {
	/* For a foreign writer, and while a reader recovers the WAL. */
	BUSY_TIMEOUT_MS = 1000,
	/* Of the pool's four threads; one is left for tails and libuv itself. */
	QUERY_WORKERS = 3,
	/* For those, and a tail beside them. */
	IDLE_READERS = QUERY_WORKERS + 1,
	HISTORY_APPLICATION_ID = 0x7a6f6e64, /* "zond" */
	HISTORY_SCHEMA_VERSION = 4,
	/* Measured with bench_journal: larger pages gain nothing beyond noise for turns
	 * of 128 rows and more, and 8192 halves the rate of turns of a single op. */
	HISTORY_PAGE_SIZE = 4096,
	HISTORY_ERROR_LENGTH = HISTORY_WHY_LENGTH,
	/* The key of an op is machine << KEY_OP_BITS | op, a positive 64-bit integer. */
	KEY_OP_BITS = 40,
	KEY_MACHINE_BITS = 63 - KEY_OP_BITS,
};

#define KEY_OP_MASK	((UINT64_C(1) << KEY_OP_BITS) - 1)
#define KEY_MACHINE_MAX ((UINT64_C(1) << KEY_MACHINE_BITS) - 1)

static inline int64_t key_of(uint64_t machine, uint64_t op)
{
	return (int64_t)(machine << KEY_OP_BITS | op);
}

/* Columns of the view ops, in the order of the schema. */
enum op_column {
	COL_KEY,
	COL_CODE,
	COL_CPU,
	COL_TASK,
	COL_OWNER,
	COL_STATUS,
	COL_TIME_NS,
	COL_LATENCY_NS,
	COL_CLIENT,
	COL_TOKEN,
	COL_SEQUENCE,
	COL_A0,
	COL_V0 = COL_A0 + OP_ARGS,
	COL_DATA_LEN = COL_V0 + OP_VALUES,
	COL_RESULT_LEN,
	COL_RESULT_HASH,
	COL_FIRST_EVENT,
	COL_NR_EVENTS,
	COL_KINDS,
	OP_COLUMNS,
};

/* Columns of the table op_rows: what every op has. A row costs by its columns, hardly
 * by their width, so small fields share one. */
enum row_column {
	ROW_KEY,
	ROW_TIME_NS,
	ROW_WHAT,   /* task << 32 | cpu << 16 | status << 8 | code */
	ROW_CALLER, /* client << 32 | owner */
	ROW_LATENCY_NS,
	ROW_A01, /* a1 << 32 | a0, the low halves of each; the high ones are in op_more */
	ROW_V0,
	ROW_V12,    /* likewise */
	ROW_EVENTS, /* first_event << ROW_NR_EVENTS_BITS | nr_events; 0: none */
	ROW_KINDS,
	ROW_COLUMNS,
};

enum {
	ROW_NR_EVENTS_BITS = 24,
	ROW_FIRST_EVENT_BITS = 63 - ROW_NR_EVENTS_BITS,
};

/* Columns of the table op_more: an op has a row there when any of them is not 0. */
enum more_column {
	MORE_KEY,
	MORE_TOKEN,
	MORE_SEQUENCE,
	MORE_A2,
	MORE_V3 = MORE_A2 + OP_ARGS - 2,
	MORE_DATA_LEN,
	MORE_RESULT_LEN,
	MORE_RESULT_HASH,
	MORE_A01_HIGH,
	MORE_V12_HIGH,
	MORE_COLUMNS,
};

/* Columns of the table event_rows, but for the id at its end: the kind, and the words two by
 * two, the first of them low. */
enum { EVENT_ROW_COLUMNS = 1 + EVENT_WORDS / 2 };

/* Rows that wait for the commit: their columns as SQLite will store them. */
struct pending_op {
	int64_t column[ROW_COLUMNS];
};

struct pending_event {
	int64_t column[EVENT_ROW_COLUMNS];
};

struct pending_more {
	int64_t column[MORE_COLUMNS];
};

struct pending_payload {
	int64_t key;
	size_t offset; /* into journal.bytes */
	uint32_t length;
};

struct pending_completion {
	int64_t key;
	uint64_t woken_by;
	int64_t time_ns;
	struct engine_completion c;
};

/* An array that grows by doubling and is emptied by setting nr to 0. */
struct growing {
	void *rows;
	size_t nr, max;
};

struct journal {
	struct growing ops, more, events, payloads, completions, bytes;
	uint64_t next_event;		/* id of the first pending event */
	int64_t last_key;		/* the largest in op_rows; 0: none */
	bool in_transaction;		/* rare rows have been written already */
	int error;			/* HISTORY_*: this turn cannot be committed, */
	char why[HISTORY_ERROR_LENGTH]; /* because of this */
};

enum history_statement {
	ST_BEGIN,
	ST_COMMIT,
	ST_ROLLBACK,
	ST_INSERT_OPS,
	ST_INSERT_OPS_ALONE,	  /* none of the turn's has an event */
	ST_INSERT_NEXT_OPS,	  /* all of them follow the last of all */
	ST_INSERT_NEXT_OPS_ALONE, /* both */
	ST_INSERT_MORE,
	ST_INSERT_EVENTS,
	ST_INSERT_PAYLOADS,
	ST_INSERT_COMPLETIONS,
	ST_INSERT_MACHINE,
	ST_END_MACHINE,
	ST_LOWER_DETAIL,
	ST_INSERT_OWNER,
	ST_INSERT_CLIENT,
	ST_INSERT_LOSS,
	ST_INSERT_PIECE,
	ST_INSERT_CHECKPOINT,
	ST_LIST_CHECKPOINTS,
	ST_DROP_CHECKPOINT,
	ST_SET_FIRST_OP,
	ST_LIST_OLD_OPS,
	ST_DELETE_PIECES,
	ST_DELETE_OPS,
	ST_DELETE_MORE,
	ST_DELETE_EVENTS,
	ST_DELETE_PAYLOADS,
	ST_DELETE_COMPLETIONS,
	NR_STATEMENTS,
};

/* What of a machine can be made again without its ops. */
struct history_saved {
	uint64_t first_op; /* 0 stands for 1 */
	uint64_t op;	   /* of the newest checkpoint, if it has one */
	int64_t time_ns;
	bool has;
	int64_t ended_ns; /* of the machine; 0: not known to have ended */
};

struct piece_range {
	uint64_t first, end;
};

/* Pages of the file that are free: given back to the file system? */
enum giving {
	GIVING_NOTHING,
	GIVING_MAYBE, /* something was deleted: are they too many? */
	GIVING_PAGES, /* they were */
};

/* The steps by which the WAL goes into the file (wal.c). */
enum mover_step {
	MOVER_IDLE,
	MOVER_LOG,  /* a thread syncs the log */
	MOVER_FILE, /* ... the file */
};

struct wal_mover {
	enum mover_step step;
	uv_work_t work;
	int rc;
	sqlite3 *pin;	 /* used by the thread while there is a step, else by the loop's */
	bool is_pinned;	 /* it keeps the log from beginning anew */
	bool is_dirty;	 /* the file has been copied to, and not been synced since */
	bool is_named;	 /* the log's name is durable */
	uint64_t frames; /* that the pin sees */
	uint64_t tried;	 /* frames in the log when the last step began */
	unsigned steps;	 /* since it was long enough to begin anew */
};

struct wal_log; /* log.c's */

struct history {
	struct history_options options; /* defaults filled in; path is ours */
	char *path, *wal_path, *shm_path;
	int lock_fd;
	sqlite3 *writer; /* all writes, all checkpoints */
	sqlite3 *reader; /* what is committed, for the loop's thread */
	sqlite3_stmt *statements[NR_STATEMENTS];
	struct history_reader *loop_reader; /* on reader */
	struct journal journal;

	uint64_t next_machine, next_client;
	/* By machine id: one more than the last committed op; 0: nothing yet. */
	uint64_t *ends;
	struct history_saved *saved; /* by machine id too */
	size_t nr_ends;

	/* Ids of checkpoint_pieces: the first of the checkpoint that is being written, and
	 * the next. */
	uint64_t first_piece, next_piece;
	struct piece_range *rubbish; /* pieces to be deleted */
	size_t nr_rubbish, max_rubbish;
	uint64_t sweep_machine; /* ops of machines from this id on are to be deleted; 0: none */
	enum giving giving;
	bool gives_back; /* the file can */

	uint64_t wal_pages; /* frames in the WAL */
	uint64_t wal_done;  /* of which checkpointed */
	struct wal_log *log;
	struct wal_mover mover;
	uint64_t last_commit_ns;     /* monotonic */
	uint64_t last_disk_check_ns; /* monotonic */
	uint64_t last_truncate_ns;   /* monotonic */
	int disk_state;		     /* HISTORY_*, as of the last check */
	uint64_t disk_free;

	uint8_t *scratch; /* payload of history_find_token()'s answer */

	struct history_query *queries;
	unsigned nr_queries, nr_running;
	/* Connections of queries and tails that have ended, for the next: to open one and
	 * read the schema takes milliseconds. No statement is left in them, so none keeps
	 * the WAL from beginning anew. */
	sqlite3 *idle_readers[IDLE_READERS];
	unsigned nr_idle_readers;
	struct history_tail *tails;
	unsigned nr_tails;
	uv_timer_t *deadline_timer; /* query.c's, active while there are queries */
	bool closing;
};

/* Maps an SQLite error to ours and says what it was about. */
int history_map_error(sqlite3 *db, int rc, const char *doing, char *err, size_t err_size);
/* FNV-1a, 64 bits: what op_more.result_hash holds of a result's data. */
uint64_t history_hash(const uint8_t *bytes, size_t length);
/* A read-only connection, for queries and tails. Any thread. */
int history_open_reader(const struct history *h, sqlite3 **ret, char *err, size_t err_size);
/* On the loop's thread. One that is idle; NULL: there is none, open one. */
sqlite3 *history_take_reader(struct history *h);
/* Its user has ended, with this HISTORY_*, and has finished all statements. NULL: nothing. */
void history_give_reader_back(struct history *h, sqlite3 *db, int error);

/* ---- schema.c ---- */

/* Is the open file ours, and of this version? HISTORY_OK with *ret_fresh when it
 * is empty. Reads only. */
int schema_recognise(sqlite3 *db, bool *ret_fresh, char *err, size_t err_size);
/* Its version; an SQLite code. */
int schema_version(sqlite3 *db, int64_t *ret);
/* Brings an older file to this version, in one transaction. */
int schema_migrate(sqlite3 *db, char *err, size_t err_size);
/* Makes the tables in an empty file. */
int schema_create(sqlite3 *db, char *err, size_t err_size);
/* Makes views and names anew when they are those of another contract. */
int schema_refresh(sqlite3 *db, char *err, size_t err_size);

/* ---- journal.c ---- */

/* Registers the virtual tables and prepares the statements. */
int journal_open(struct history *h, char *err, size_t err_size);
void journal_close(struct history *h);
bool journal_pending(const struct history *h);
/* Room for a machine in `ends`. */
bool history_reserve_machine(struct history *h, uint64_t machine);

/* The statement of a rare row, in the turn's transaction; NULL when the turn has failed.
 * It is bound by the caller and then run, once. */
sqlite3_stmt *journal_rare_begin(struct history *h, enum history_statement which);
void journal_rare_end(struct history *h, enum history_statement which);

/* ---- checkpoint.c ---- */

/* Loads what is known of checkpoints, behind replay_load(). */
int checkpoint_load(struct history *h, char *err, size_t err_size);
/* A transaction failed: what it had of checkpoints never was. */
void checkpoint_rolled_back(struct history *h);

struct kept {
	int64_t key, time_ns;
	struct piece_range pieces;
};
enum { KEPT_MAX = 128 }; /* history_thin_checkpoints() leaves some 40 of 2^40 ops */
/* A machine's checkpoints, newest first, and how many; in a turn's transaction, or as they
 * were committed: to look is no reason to begin one. */
unsigned checkpoint_list(struct history *h, uint64_t machine, struct kept kept[KEPT_MAX]);
unsigned checkpoint_list_committed(struct history *h, uint64_t machine, struct kept kept[KEPT_MAX]);
void checkpoint_drop(struct history *h, const struct kept *k);

/* ---- prune.c ---- */

/* Can the file give pages back? */
int prune_load(struct history *h, char *err, size_t err_size);
/* Ops of this machine, or of later ones, may be rubbish. */
void prune_sweep_from(struct history *h, uint64_t machine);

/* ---- replay.c ---- */

/* The one number that a statement gives, read by the loop's reader. An SQLite code; other
 * than SQLITE_OK it leaves *ret alone. */
int history_load_number(struct history *h, const char *sql, uint64_t *ret);
/* Loads next_machine, next_client, next_event, last_key and ends. */
int replay_load(struct history *h, char *err, size_t err_size);
/* The columns of ops in the order of enum op_column, and one such row read. */
#define OP_COLUMN_LIST                                                                        \
	"key, code, cpu, task, owner, status, time_ns, latency_ns, client, token, sequence, " \
	"a0, a1, a2, a3, a4, a5, v0, v1, v2, v3, data_len, result_len, result_hash, "         \
	"first_event, nr_events, kinds"
void replay_read_record(sqlite3_stmt *row, struct history_record *ret);
/* A row of machines with these columns; the text is the row's. */
#define MACHINE_COLUMN_LIST                                                                \
	"id, name, backend, forked_from, forked_at_op, frozen, created_ns, preset, flags," \
	" page_offset, vmalloc_bytes, cpus, user_fallback, detail, late_pages, ram, mem,"  \
	" highmem, kernelcore, movablecore, e820, reserved, first_op"
int replay_read_machine(sqlite3 *db, sqlite3_stmt *row, struct engine_config *config,
			struct history_machine *ret);

/* ---- reader.c ---- */

/* With `owns_db` it closes the connection at its end, or now if it fails. */
int reader_make(sqlite3 *db, bool owns_db, struct history_reader **ret, char *err, size_t err_size);
/* Points a record at its payload, which stays until reader_payload_end(). */
int reader_payload(struct history_reader *rd, struct history_record *r);
void reader_payload_end(struct history_reader *rd);

/* ---- wal.c ---- */

/* Frames in the WAL, in bytes. */
uint64_t history_wal_bytes(const struct history *h);
/* Before anything is written: makes durable what a killed daemon may have copied. */
int wal_open(struct history *h, char *err, size_t err_size);
/* Something was committed: begins a step, if it is time. */
void wal_committed(struct history *h);
/* Below its limit, or made so now? Else a sentence that names who holds it. */
int wal_ready(struct history *h, char *err, size_t err_size);
/* Empties the WAL if no reader uses it now. Does not wait. */
bool wal_truncate(struct history *h);
/* Turns the loop until no step is under way, and forgets the pin. */
void wal_close(struct history *h);

/* ---- log.c ---- */

/* From now on the writer's frames go into its log a transaction at a time. h->log is freed when
 * the connection is closed. */
int log_open(struct history *h, char *err, size_t err_size);

/* ---- query.c, tail.c ---- */

/* Starts queries that wait for a worker, unless the WAL is too long for another. */
void query_pump(struct history *h);
/* Ends every query with `error`. */
void query_stop_all(struct history *h, int error);
/* Something was committed. */
void tail_notify(struct history *h);
void tail_stop_all(struct history *h);

#endif
