/*
 * recorded.h - a history read by somebody who is not its daemon: nothing is locked and
 * nothing written, and a daemon may go on writing it meanwhile.
 *
 * Each call is one statement, and short if its callback is: a reader that holds one
 * moment of a live history for long keeps the daemon's WAL from starting again, and at
 * the WAL's limit the daemon refuses ops. So a recording is read in batches.
 *
 * Everything here blocks for as long as SQLite reads. Errors are enum history_error, and
 * `err` gets a sentence.
 */
#ifndef HISTORY_RECORDED_H
#define HISTORY_RECORDED_H

#include <stdio.h>

#include "history.h"

struct recorded;

int recorded_open(const char *path, struct recorded **ret, char *err, size_t err_size);
void recorded_close(struct recorded *r); /* NULL is fine */

enum { RECORDED_NAME = 64 };

struct recorded_machine {
	uint64_t id;
	char name[RECORDED_NAME], backend[16];
	struct engine_config config;
	uint64_t forked_from, forked_at_op; /* 0: it was created */
	uint64_t first_op, last_op;	    /* of its own rows; 0: it has none */
	bool ended;
};
/* By name: the one that has not ended, else the one that ended last. "#7" is the machine
 * of that number. HISTORY_SQL: there is none. */
int recorded_find(struct recorded *r, const char *name, struct recorded_machine *ret, char *err,
		  size_t err_size);
int recorded_machine(struct recorded *r, uint64_t id, struct recorded_machine *ret, char *err,
		     size_t err_size);

/* Ops with all that is kept of them, events too. What a record points at is good during the
 * callback; of the result's data there is a hash, recorded_hash(), and no bytes. From `from_op` to
 * `to_op` in order, op 0 (boot and its events) among them. The callback returns false to stop:
 * HISTORY_ABORTED. */
int recorded_ops(struct recorded *r, uint64_t machine, uint64_t from_op, uint64_t to_op,
		 bool (*fn)(void *arg, const struct history_record *op), void *arg, char *err,
		 size_t err_size);
/* The ends of parked ops that ops up to `to_op` brought about, by who did. Ancestors have
 * their own. */
int recorded_completions(struct recorded *r, uint64_t machine, uint64_t to_op,
			 bool (*fn)(void *arg, uint64_t woken_by,
				    const struct engine_completion *c),
			 void *arg, char *err, size_t err_size);

/* Is the history whole: the file itself, ops without a gap from the first that a machine
 * keeps, and what the tables say about each other? HISTORY_CORRUPT: the first lie is in
 * `err`. `stage` is told what is looked at. Each of its few passes holds one moment of the
 * file. */
int recorded_verify(struct recorded *r, void (*stage)(void *arg, const char *what), void *arg,
		    char *err, size_t err_size);
/* Every machine that ever was, by number. The callback may call the functions above. */
int recorded_machines(struct recorded *r, bool (*fn)(void *arg, const struct recorded_machine *m),
		      void *arg, char *err, size_t err_size);
/* A reader of the same file for what checkpoints hold. It is closed by the caller, before
 * `r` is. */
int recorded_reader(struct recorded *r, struct history_reader **ret, char *err, size_t err_size);

/* A table or view as CSV (RFC 4180) with its columns' names. HISTORY_SQL: there is none of
 * this name. What could not be written is ferror(). */
int recorded_csv(struct recorded *r, const char *table, FILE *to, char *err, size_t err_size);
/* The name of each table and view. */
int recorded_tables(struct recorded *r, bool (*fn)(void *arg, const char *table), void *arg,
		    char *err, size_t err_size);

/* What a record's result_hash is. */
uint64_t recorded_hash(const uint8_t *bytes, size_t length);

#endif
