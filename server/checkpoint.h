/*
 * checkpoint.h - machines kept as they are, now and then, so that they come back from
 * there; and the record before that forgotten, where it is wanted.
 *
 * A checkpoint is made beside the machine, not from it: a replica replays what the machine
 * has done since its last one, in a thread of the pool, and is written away in pieces, one
 * in a turn. So the machine never waits, and each checkpoint is a replay that came out right.
 *
 * It is no op of the machine and flushes no TLB, unlike a snapshot or a fork: what a replica's
 * TLBs hold is kept along, so a machine goes on from it exactly as it would have, and its
 * numbers and its digest do not depend on when the daemon was stopped.
 */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include "history.h"
#include "machine.h"

struct checkpoints;

struct checkpoints_options {
	uv_loop_t *loop;
	struct machines *machines;
	struct history *history;
	/* A machine gets a checkpoint after so many ops, or, when it has had any, after so many
	 * seconds. 0: a million, 600. */
	uint64_t ops, seconds;
	/* What of the record is older, or makes it larger, is forgotten. 0: nothing is. */
	uint64_t retain_seconds, retain_bytes;
	void *user;
	void (*wake)(void *user); /* there is something to write: run a turn */
};

struct checkpoints *checkpoints_new(const struct checkpoints_options *options);
/* Gives up what is under way and turns the loop until that has ended; NULL is fine. */
void checkpoints_free(struct checkpoints *cs);

/* Something was recorded. */
void checkpoints_touch(struct checkpoints *cs);
/* In a turn, before its commit: writes a little. True: something is in the transaction. */
bool checkpoints_write(struct checkpoints *cs, int64_t time_ns);
/* After it. */
void checkpoints_committed(struct checkpoints *cs, bool ok);
/* A last one for every machine that has had ops since its own; then done(). Turns run on
 * meanwhile, and nobody executes ops. */
void checkpoints_finish(struct checkpoints *cs, void (*done)(void *user), void *user);

#endif
