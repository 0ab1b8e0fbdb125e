/*
 * whatif.h - the recorded ops played to machines of other configurations, side by side
 * with one that is as recorded.
 *
 * The one that is as recorded is checked against the record on the way, and it is what the
 * others are compared with. All of them keep every event, whatever the record kept, so that
 * what is measured does not depend on its detail.
 */
#ifndef REPLAY_WHATIF_H
#define REPLAY_WHATIF_H

#include "check.h"
#include "follow.h"
#include "measure.h"

enum {
	WHATIF_WORLDS = 16,
	WHATIF_LABEL = 128,
	WHATIF_EXAMPLES = 10,
	WHATIF_NOWHERE = MEASURE_ZONES, /* of the matrix: it was not allocated there */
};

enum whatif_change {
	WHATIF_FAILS,	/* an op that was OK is not */
	WHATIF_WORKS,	/* one that was not OK is */
	WHATIF_ANSWERS, /* another status, and neither is OK */
	WHATIF_MOVED,	/* a frame of it lies in another zone */
	WHATIF_SKIPPED, /* it names what is not there */
	WHATIF_CHANGES,
};

struct whatif_world {
	char label[WHATIF_LABEL]; /* what is set: "split=2G" */
	struct world world;
	struct follow *follow;
	struct measure measure;
	uint64_t changes[WHATIF_CHANGES];
	uint64_t by_op[WHATIF_CHANGES][OP_CODE_END];
	/* The first ones of each kind. */
	struct whatif_example {
		uint64_t op;
		char *text;
	} examples[WHATIF_CHANGES][WHATIF_EXAMPLES];
	/* Frames by zone: as recorded down, in this world across. */
	uint64_t frames[MEASURE_ZONES + 1][MEASURE_ZONES + 1];
};

struct whatif {
	struct world base;
	struct measure base_measure;
	struct check check;
	struct whatif_world worlds[WHATIF_WORLDS];
	unsigned nr_worlds;
};

/* Makes the machine that is as recorded. Once, first. False with `why`. */
bool whatif_begin(struct whatif *x, const struct source *source, uv_loop_t *loop,
		  struct engine_error *why);
/* Adds a machine of another configuration. */
bool whatif_add(struct whatif *x, const char *label, const struct backend_type *type,
		const struct engine_config *config, struct engine_error *why);
/* Plays an op to all. False: the one that is as recorded is not (x->check.difference), or
 * a back end was lost, with `why`. */
bool whatif_play(struct whatif *x, const struct history_record *op, struct engine_error *why);
void whatif_finish(struct whatif *x); /* no more ops: what is left in each */
void whatif_free(struct whatif *x);

#endif
