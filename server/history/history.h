/*
 * history.h - the record: every op and event of every machine in one SQLite file.
 *
 * One connection does all the writing and all the checkpointing of the WAL, on the
 * loop's thread; queries run on read-only connections in libuv's thread pool. What
 * is appended in a turn becomes durable in one transaction by history_commit(),
 * and only then may anyone be told. The recorded stream of ops is enough to make
 * every machine again: history_replay() gives it back in order.
 */
#ifndef HISTORY_H
#define HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "engine.h"

struct history;

enum { HISTORY_WHY_LENGTH = 256 }; /* a sentence about an error */

enum history_sync { HISTORY_SYNC_NORMAL, HISTORY_SYNC_FULL };

struct history_options {
	const char *path;
	enum history_sync sync;
	uint64_t disk_reserve_bytes; /* below this much free space ops are refused; 0: 64 MiB */
	uint64_t wal_limit_bytes;    /* 0: 256 MiB */
	bool gives_back;	     /* a file that is made now gives back what is free in it */
	uint32_t query_timeout_ms;   /* 0: 10000 */
	uint64_t query_row_limit;    /* 0: 1000000 */
	uv_loop_t *loop;
};

enum history_error {
	HISTORY_OK = 0,
	HISTORY_FOREIGN = -1, /* the file is not ours */
	HISTORY_NEWER = -2,   /* of a newer schema */
	HISTORY_LOCKED = -3,  /* another daemon has it */
	HISTORY_FULL = -4,    /* disk full, or below the reserve */
	HISTORY_WAL = -5,     /* a foreign reader holds the WAL at its limit */
	HISTORY_IO = -6,      /* anything else; see the message */
	HISTORY_CORRUPT = -7,
	HISTORY_ABORTED = -8, /* cancelled, or stopped by a callback */
	HISTORY_TIMEOUT = -9,
	HISTORY_SQL = -10,  /* the statement is wrong or not allowed */
	HISTORY_BUSY = -11, /* as many queries or tails run as may */
};

/* Opens or makes a history. On failure `err` says what to do. Takes the lock file. */
int history_open(const struct history_options *options, struct history **ret, char *err,
		 size_t err_size);
/* Commits what is pending, ends queries and tails (their done() is called, for which
 * it turns the loop: not to be called from one of the loop's callbacks), checkpoints
 * the WAL, gives the lock back. */
void history_close(struct history *h);

/* ---- writing: nothing is visible to anyone before history_commit() ---- */

/* A machine comes into being. Its id is never reused. 0: this turn cannot be
 * committed, and history_commit() will say why. */
uint64_t history_add_machine(struct history *h, const char *name, const char *backend,
			     const struct engine_config *config, uint64_t forked_from,
			     uint64_t forked_at_op, bool frozen, int64_t time_ns);
void history_end_machine(struct history *h, uint64_t machine, int64_t time_ns);
/* The next label of a machine; numbers count from 1 in order of first use. */
void history_add_owner(struct history *h, uint64_t machine, uint32_t number, const char *label);
/* The machine is LOST: why, and the last op that is in effect. */
void history_add_loss(struct history *h, uint64_t machine, uint64_t last_op, const char *reason,
		      int64_t time_ns);
uint64_t history_add_client(struct history *h, const char *address, int64_t time_ns);

/* One op with what came of it. Copied before the call returns. Op 0, code 0: the
 * machine's making. What cannot be kept makes history_commit() fail. */
struct history_record {
	uint64_t machine, op;
	uint64_t client;	  /* 0: the daemon itself */
	uint64_t token, sequence; /* 0: none */
	int64_t time_ns;	  /* wall clock of the turn */
	uint64_t latency_ns;	  /* from arrival to execution */
	uint32_t code, cpu, task, owner;
	uint64_t args[OP_ARGS];
	const uint8_t *data; /* kept whole; NULL with length 0 in a tail */
	uint32_t data_len;
	uint32_t status;
	uint64_t values[OP_VALUES];
	const uint8_t *result_data; /* kept as length and hash; NULL when read back */
	uint32_t result_len;
	uint64_t result_hash;		   /* set when read back: FNV-1a, 64 bits */
	const struct engine_event *events; /* those that the detail level wants */
	uint32_t nr_events;
};
void history_append(struct history *h, const struct history_record *r);

/* A parked op ended inside the op `woken_by` of the same machine. */
void history_append_completion(struct history *h, uint64_t machine, uint64_t woken_by,
			       const struct engine_completion *c, int64_t time_ns);

/* ---- checkpoints: a machine as it was after an op, in compressed pieces ---- */

struct history_checkpoint {
	uint64_t machine, op;
	int64_t time_ns;
	struct engine_digest digest;
	uint64_t frames;	/* that are not zeros */
	uint32_t owners;	/* largest number of an owner until then */
	const uint64_t *parked; /* ops asleep */
	uint32_t nr_parked;
	uint64_t first_piece, nr_pieces; /* set when read back */
};

/* Pieces in their order, over as many turns as one likes, and then the checkpoint that they
 * make; one checkpoint at a time. Without its row they are nothing. */
void history_add_piece(struct history *h, const uint8_t *data, size_t length);
void history_add_checkpoint(struct history *h, const struct history_checkpoint *c);
/* The checkpoint will not be. After a commit that failed this has happened by itself. */
void history_forget_pieces(struct history *h);
/* Drops one checkpoint of a machine that has more of them than are worth keeping. */
void history_thin_checkpoints(struct history *h, uint64_t machine);
/* The newest checkpoint of a machine; false: it has none. */
bool history_saved(const struct history *h, uint64_t machine, uint64_t *ret_op,
		   int64_t *ret_time_ns);

/* Forgets the ops of a machine up to its newest checkpoint that was made no later than
 * before_ns, with their events and older checkpoints. Returns the first op that is kept; 0:
 * there is no such checkpoint, or nothing before it. What is forgotten is deleted by
 * history_sweep(). */
uint64_t history_prune(struct history *h, uint64_t machine, int64_t before_ns);
/* When the oldest checkpoint was made with which history_prune() would forget something;
 * false: there is none. */
bool history_prunable(struct history *h, uint64_t machine, int64_t *ret_time_ns);
uint64_t history_first_op(const struct history *h, uint64_t machine); /* 1: it has all */
/* Of the machines that have ended and are not forgotten the one that ended first; 0: none. */
uint64_t history_oldest_ended(struct history *h, int64_t *ret_ended_ns);
/* Forgets a machine that has ended, whole. Its row stays, so that its number is not used again;
 * what was forked from it and has no checkpoint cannot be made again either. In a turn. */
void history_forget(struct history *h, uint64_t machine);
/* Deletes a little of what is forgotten, in this turn's transaction, and gives back a little of
 * the file; about a millisecond's worth. False: there is nothing to do, and no transaction was
 * begun to find out. */
bool history_sweep(struct history *h);
bool history_has_rubbish(const struct history *h);
/* Will the file be made smaller when much of it is free? */
bool history_gives_back(const struct history *h);
/* Writes the file anew without what is free in it, so that from now on it gives back. Takes
 * long, and room for two more of it. */
int history_compact(struct history *h, char *err, size_t err_size);
/* What the record takes in its file, room for more not counted. */
uint64_t history_used_bytes(struct history *h);

/* Makes everything pending durable in one transaction, or nothing of it: then it
 * returns an error, forgets what was pending, and `err` says why. */
int history_commit(struct history *h, char *err, size_t err_size);
/* May ops be taken at all (disk reserve, WAL limit)? Cheap; asked before each turn. */
int history_ready(struct history *h, char *err, size_t err_size);
/* Moves the WAL on into the file, all of it when nothing was committed for a second, and cuts
 * queries off that keep it from starting again. Between turns, some times a second; blocks
 * for as long as a step takes: some milliseconds. */
void history_idle(struct history *h);

/* ---- reading back, on the loop's thread, outside a turn ---- */

struct history_machine {
	uint64_t id;
	const char *name, *backend;
	const struct engine_config *config;
	uint64_t forked_from, forked_at_op;
	bool frozen;
	int64_t created_ns;
	uint64_t first_op; /* the first that is kept */
	uint64_t last_op;
};
/* Machines that have not ended, by id. The callback returns false to stop. */
int history_machines(struct history *h, bool (*fn)(void *arg, const struct history_machine *m),
		     void *arg);
int history_owners(struct history *h, uint64_t machine,
		   bool (*fn)(void *arg, uint32_t number, const char *label), void *arg);

/* A machine, ended or not, by name: the one that lives, else the latest; "#7" is the one of
 * that number. `fn` is called once, or not at all if there is none. */
int history_machine_ever(struct history *h, const char *name, size_t length,
			 void (*fn)(void *arg, const struct history_machine *m), void *arg);

/* Where a machine, ended or not, was forked from, and at which op of that machine;
 * both 0 when it was not. */
int history_lineage(struct history *h, uint64_t machine, uint64_t *ret_from, uint64_t *ret_at_op);

/* Can a machine be made again as it was after that op? False: what led there is forgotten. */
bool history_reaches(struct history *h, uint64_t machine, uint64_t op);

/* The last committed op of a machine; 0: none of its own. */
uint64_t history_last_op(const struct history *h, uint64_t machine);

/* Ops of a machine from `from_op` to `to_op` (0: the last), in order, without
 * events. Ops recorded LOST are given too; whoever replays skips them. The data is good
 * until the callback returns; false stops. */
int history_replay(struct history *h, uint64_t machine, uint64_t from_op, uint64_t to_op,
		   bool (*fn)(void *arg, const struct history_record *r), void *arg);

/* What became of an op with this token (of one that had parked: how it ended); HISTORY_OK and
 * ret->op 0 when it is not there. `ret` points at memory of the history's, good until the next
 * call. */
int history_find_token(struct history *h, uint64_t machine, uint64_t token, uint64_t sequence,
		       struct history_record *ret);
/* Of an op that is not there: may it have been forgotten with the machine's first ops? */
int history_token_forgotten(struct history *h, uint64_t machine, uint64_t token, uint64_t sequence,
			    bool *ret);

/* ---- reading back, in any thread ---- */

/* A connection of its own, used by one thread at a time. Each call sees one moment of the
 * file, and holds the WAL's log only until it returns: read long stretches in pieces. */
struct history_reader;
int history_reader_open(const struct history *h, struct history_reader **ret, char *err,
			size_t err_size);
void history_reader_close(struct history_reader *rd); /* NULL is fine */
/* As history_replay(). */
int history_reader_ops(struct history_reader *rd, uint64_t machine, uint64_t from_op,
		       uint64_t to_op, bool (*fn)(void *arg, const struct history_record *r),
		       void *arg);
/* A machine, ended or not. The config is filled; of `ret` the rest is set but name and
 * backend, which are copied to where they are told. HISTORY_OK and ret->id 0: never was. */
int history_reader_machine(struct history_reader *rd, uint64_t machine,
			   struct engine_config *config, struct history_machine *ret);

/* A machine's newest checkpoint at or before an op; ret->machine 0: there is none. `parked`
 * is allocated; the caller frees it. */
int history_reader_checkpoint(struct history_reader *rd, uint64_t machine, uint64_t op,
			      struct history_checkpoint *ret, uint64_t **ret_parked);
/* Its pieces in their order. HISTORY_CORRUPT: one is missing; false stops (ABORTED). */
int history_reader_pieces(struct history_reader *rd, const struct history_checkpoint *c,
			  bool (*fn)(void *arg, const uint8_t *data, size_t length), void *arg);

/* ---- questions, in the thread pool; callbacks on the loop's thread ---- */

struct history_value {
	enum { VALUE_NULL, VALUE_INTEGER, VALUE_REAL, VALUE_TEXT, VALUE_BLOB } type;
	int64_t integer;
	double real;
	const uint8_t *bytes; /* text and blob */
	size_t length;
};

struct history_query;
struct history_query_options {
	const char *sql;
	const struct history_value *parameters;
	unsigned nr_parameters;
	/* 0: the history's, which is also the most. The time counts from the start and
	 * goes on while the query waits. */
	uint64_t row_limit;
	uint32_t timeout_ms;
	size_t page_bytes; /* 0: 1 MiB */
	void *user;
	/* Once, before the first page. */
	void (*columns)(void *user, unsigned nr, const char *const names[],
			const char *const types[]);
	/* A page of nr_rows rows of nr_columns values each, row by row, good until
	 * history_query_continue() or this returns, whichever is later. The query waits
	 * for that call after each page, the last one too. */
	void (*page)(void *user, const struct history_value *values, unsigned nr_rows,
		     unsigned nr_columns);
	/* Once, last, never from within one of the calls below: HISTORY_OK or an error
	 * with a sentence. The query is gone when it returns. */
	void (*done)(void *user, int error, bool truncated, const char *message);
};
int history_query_start(struct history *h, const struct history_query_options *options,
			struct history_query **ret);
void history_query_continue(struct history_query *q);
/* done() will be called with HISTORY_ABORTED, unless it has been. */
void history_query_cancel(struct history_query *q);

/* ---- following ---- */

/* Records committed after (machine, op), from a reader of its own: it never holds
 * the writer up. machine 0: all machines. */
struct history_tail;
struct history_tail_options {
	uint64_t machine;
	uint64_t after_op;
	bool from_start;     /* else, with after_op 0, from now on */
	uint64_t op_mask[2]; /* bit per op code; both 0: all */
	/* With one of these, ops without an event that is wanted are passed over, unless
	 * every_op is set. */
	uint64_t event_mask; /* bit per kind; 0: all */
	uint32_t zone_mask;  /* bit per zone, of events that name one; 0: all */
	bool every_op;
	bool no_follow;
	void *user;
	/* Up to some hundred records, good as a query's pages are; the tail waits for
	 * history_tail_continue(). Op 0 is the machine's making, with the events of its
	 * boot. `behind`: ops recorded and not yet given. */
	void (*records)(void *user, const struct history_record *records, unsigned nr,
			uint64_t behind);
	/* Once, last, as a query's. */
	void (*done)(void *user, int error, const char *message);
};
/* Bit per kind: of those with a field that names a zone. */
uint64_t history_kinds_with_zone(void);
int history_tail_start(struct history *h, const struct history_tail_options *options,
		       struct history_tail **ret);
void history_tail_continue(struct history_tail *t);
void history_tail_cancel(struct history_tail *t);

#endif
