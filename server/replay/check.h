/*
 * check.h - does a machine answer as it was recorded? Status, values, the bytes of the
 * result (by their hash), what ended inside the op, and the events that were kept.
 */
#ifndef REPLAY_CHECK_H
#define REPLAY_CHECK_H

#include <stdio.h>

#include "source.h"
#include "world.h"

enum { CHECK_CONTEXT = 5 };

struct check {
	const struct source *source;
	bool other_backend; /* what only one of them tells is not compared */
	/* The world keeps every event though the recorded machine did not. The level stands
	 * in the machine's RAM, where a kernel's read can see it: data is not compared. */
	bool forced;
	uint32_t detail; /* that the recorded machine kept at this op */
	uint64_t compared, events_compared;
	char *before[CHECK_CONTEXT]; /* the latest ops, as text; a ring */
	uint64_t nr_before;
	/* Of the first difference. NULL: none yet. */
	char *difference; /* several lines */
	uint64_t difference_op;
};

void check_begin(struct check *c, const struct source *source, bool other_backend);
void check_end(struct check *c);
/* After the world has executed a recorded op (op 0: it was made). False: it differs. */
bool check_op(struct check *c, const struct history_record *r, const struct world *w);

/* Stands for an op that was lost: it had no effect, but its number is taken. False: the
 * back end was lost. */
bool check_fill(struct world *w);

/* What is to be executed for a recorded op: itself. */
void check_op_of(const struct history_record *r, struct engine_op *ret);
/* The same for worlds that keep every event: the configuration and each op that would
 * have it otherwise are changed in that. */
void check_keep_all(struct check *c, struct engine_config *config);
void check_op_keeping_all(struct check *c, const struct history_record *r, struct engine_op *ret);

#endif
