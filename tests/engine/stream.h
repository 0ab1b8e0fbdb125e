/*
 * stream.h - random streams over all ops, for whoever has machines to compare.
 *
 * Ops, ranges and units come from the contract's tables, so a new op is in the streams
 * as soon as it is in the .proto. What makes a stream interesting: arguments are mostly
 * things that earlier results named, of the argument's own kind. The same seed on equal
 * machines gives the same stream.
 *
 * With several CPUs what one of them does to a mapping is looked at by all: what a TLB still
 * holds would show.
 */
#ifndef TESTS_ENGINE_STREAM_H
#define TESTS_ENGINE_STREAM_H

#include "engine.h"
#include "engine/random.h"

enum kind { PFN, VA, PADDR, TASK, FILE_NUMBER, HANDLE, PARKED, FIXMAP_SLOT, NR_KINDS };

struct thing {
	u64 value;
	u32 order;   /* of a PFN: allocated with */
	u32 va;	     /* of a FIXMAP_SLOT: what it maps */
	u32 made_by; /* op code; 0: it was undone */
};

enum { POOL_SIZE = 256 };
struct pool {
	struct thing thing[POOL_SIZE];
	u32 nr; /* ever put in */
};

struct touch {
	u32 cpu, task;
	va_t va;
	u32 mode;
};

struct stream {
	struct random random;
	struct pool pool[NR_KINDS];
	/* With several CPUs: accesses that come next, the last one first. */
	struct touch due[ENGINE_MAX_CPUS];
	u32 nr_due;
	struct touch written; /* the latest that a task wrote */
	u32 cpus;
	u32 phase; /* which ops are frequent now */
	u32 left_in_phase;
	u32 last_order;
	bool early;   /* before Boot: ranges are small, or it would never succeed */
	u32 nr_early; /* ops that came early */
};

/* The next op, for the machine as it is now. `data`: ENGINE_MAX_DATA bytes for its payload. */
struct engine_op stream_next(struct stream *s, struct engine *e, u8 *data);
/* Results feed the pools. */
void stream_learn(struct stream *s, const struct engine_op *op, const struct engine_result *res);
/* Number `back` from the latest. */
struct thing *stream_thing(struct pool *p, u32 back);

#endif
