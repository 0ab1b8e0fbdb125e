/*
 * measure.h - what a world has been through: when its zones fell below their marks, how
 * full pkmap and the vmalloc window became, what failed.
 */
#ifndef REPLAY_MEASURE_H
#define REPLAY_MEASURE_H

#include "world.h"

enum { MEASURE_ZONES = ZONE_MOVABLE + 1, MEASURE_MARKS = MARK_HIGH + 1, MEASURE_SLOTS = 1024 };

struct measure_peak {
	uint64_t now, most, at_op; /* at_op: when `most` was reached first */
};

struct measure {
	/* The recorded op in which a zone first fell to or below a mark; NEVER. Op 0 is boot. */
	uint64_t first_below[MEASURE_ZONES][MEASURE_MARKS];
	uint64_t ops, failed; /* played; answered with a status other than OK and PARKED */
	uint64_t fallbacks, alloc_failures;
	struct measure_peak pkmap; /* slots in use, by whatever number of users */
	uint64_t pkmap_flushes, pkmap_parks, pkmap_deadlocks;
	struct measure_peak vmalloc; /* pages of addresses, guard pages with them */
	uint64_t vmalloc_failures;   /* Vmalloc, Vmap and Ioremap */
	/* Frames on the buddy's lists and the CPUs'; at the end only. */
	uint64_t managed[MEASURE_ZONES], free[MEASURE_ZONES];

	/* pkmap as it is: who is mapped where, how often; and what sleeping ops want. */
	struct {
		uint64_t pfn, users;
	} slots[MEASURE_SLOTS];
	struct measure_sleeper {
		uint64_t op, pfn;
		struct measure_sleeper *next;
	} * sleepers;
};
#define MEASURE_NEVER UINT64_MAX

void measure_begin(struct measure *m);
/* After an op, under the number that it has in the record. NULL: boot. */
void measure_op(struct measure *m, uint64_t number, const struct engine_op *op,
		const struct world *w);
/* What is left at the end. */
void measure_end(struct measure *m, struct world *w);
void measure_free(struct measure *m);

#endif
