/*
 * trace.h - a trace of a real workload: what was read of it, and what is adopted of what it
 * cannot tell. trace_read.c reads, trace_play.c plays once, trace.c plays as it must have been.
 * Only for server/conformance.
 */
#ifndef CONFORMANCE_TRACE_H
#define CONFORMANCE_TRACE_H

#include "box.h"
#include "kmem_ops.h"

enum { TRACE_MAX_HOLDS = 64, TRACE_MAX_SUSPECTS = 256 };

/* A boost that kswapd left for a while: from after op `given` to before op `release`. */
struct hold {
	size_t given, release;
};

/* A block that Linux drained from its CPU's list. */
struct drained {
	pfn_t pfn;
	u32 order;
	size_t next; /* after the same op: index + 1 in drained[] */
};

/* An allocation took from a pageblock of another type. */
struct stolen {
	struct kmem_op told;
	bool claimed; /* its allocation is known */
	u8 before;    /* the pageblock's type here, before that allocation */
	size_t next;  /* by the same allocation: index + 1 in stolen[] */
};

/* Before an op: so many pages of what the CPUs keep of a zone's count are in the count. */
struct shift {
	s32 pages;
	u32 zone;
};

struct trace_op {
	struct kmem_op op;
	size_t first_drained, last_drained; /* after it: index + 1; 0: none */
	size_t first_stolen;		    /* by it: index + 1; 0: none */
	bool past_lists;		    /* a free that went to the buddy at once */
	bool left_list;			    /* a free whose block was drained later */
	struct shift shift;
	u32 folds; /* before it the statistics' worker of these CPUs ran: a bit each */
};

/* How a play went until it came to op `op`. */
struct trace_course {
	size_t op;
	u64 boosts;	    /* taken back */
	u64 awake;	    /* times that kswapd was */
	u64 followed;	    /* drains that no op of the trace made */
	u64 retyped;	    /* pageblocks that became what Linux says */
	size_t last_boost;  /* the op that gave the last one; SIZE_MAX: none did */
	u64 awake_until_us; /* by then kswapd sleeps again; 0: it does */
};

/* Where a play differed first. */
struct trace_difference {
	pfn_t given; /* what the machine gave */
	bool between_zones;
	struct shift least, most; /* of such, if Linux's frame is of another zone */
	/* Interrupts' frees that this machine drained and Linux did not: indices of ops. */
	size_t suspect[TRACE_MAX_SUSPECTS];
	u32 nr_suspects;
};

struct trace {
	/* Of the machine. */
	struct layout layout;
	pfn_t zone_bound[NR_ZONES - 1];

	struct trace_op *ops;
	size_t nr, room;
	struct drained *drained;
	size_t nr_drained, drained_room;
	struct stolen *stolen;
	size_t nr_stolen, stolen_room;
	size_t nr_claimed; /* so many of the first ones are claimed */
	size_t *last_free; /* by frame: index + 1 of the free that nothing has followed yet */
	u8 *allocated;	   /* by frame: order + 1 of the block that the trace saw allocated there */
	bool knows_context; /* its flags say how deep preemption is disabled */
	u64 allocs, frees, unknown;

	/* Adopted. */
	struct hold holds[TRACE_MAX_HOLDS]; /* ascending, apart */
	u32 nr_holds;
	u32 nr_told_past_lists, nr_past_lists; /* frees: told by the trace, and found */
	u32 nr_folds, nr_shifts;
	u32 nr_moved; /* allocations that were played before an interrupt's events */

	struct trace_course course;
	struct trace_difference difference;
	bool tries; /* pages need not be cleared: nobody looks at them, and it takes time */
};

/* A trace of this machine, to be read. False: no memory; trace_end() frees it all the same. */
bool trace_begin(struct trace *t, const struct box *b);
void trace_end(struct trace *t);
/* One op, or what came with one. False: no memory. */
bool trace_keep(struct trace *t, const struct kmem_op *op);
/* A trace, or its folder. */
bool trace_read(struct trace *t, const char *path, struct conformance_report *r);

/* A machine in the state in which the trace begins. */
struct box *trace_box(const char *folder, struct conformance_report *r);
/* A play begins. */
void trace_start(struct trace *t);
u32 trace_play_op(struct trace *t, struct box *b, const struct kmem_op *op);
/* After op number `op`: kswapd takes what it was not too late for. */
void trace_take_boosts_back(struct trace *t, struct box *b, size_t op);
/* Plays from where the course is, and stops before op `until`; returns how many ops agreed. */
size_t trace_play(struct trace *t, struct box *b, size_t until, struct conformance_report *r);
/* Once by the rules; then, as long as that goes further, otherwise. The first play is of
 * this machine. */
void trace_play_as_recorded(struct trace *t, struct box *first, const char *folder,
			    struct conformance_report *r);

#endif
