/*
 * kmem_ops.h - from a trace's events to the allocations and frees that it stands for.
 *
 * Rules for what the events do not say of themselves:
 *  1. A page that is freed in a batch is announced by mm_page_free and freed at its
 *     mm_page_free_batched, in that order: the announcement is no free. One that has no
 *     batched free within the next 4096 events, or whose frame is allocated before it,
 *     was a free.
 *  2. Of a trace that was taken between two snapshots, what counts lies between them, and
 *     before the process that takes the second one (its name is given): loading its module
 *     allocates in bulk, which has no tracepoint.
 *  3. When kswapd took a watermark boost back is not in a trace. It is taken to have done
 *     so at once: after an allocation that boosted, every zone's boost goes. Whoever
 *     replays counts how often. A trace with the line KMEM_BOOSTS_STAND has no kswapd.
 *  4. Events have the order in which they were written. An interrupt between taking a block
 *     and writing that down puts its own events before it: in_irq tells of whose they are.
 *  5. A failed allocation (page NULL, frame 0) is an op that should fail.
 *  6. What left a CPU's lists for the buddy (mm_page_pcpu_drain), what the buddy gave
 *     (mm_page_alloc_zone_locked), and what it took from another type (mm_page_alloc_extfrag),
 *     are no ops: they follow from them. Who can make use of them gets them in between, if
 *     the span says so; the others only their count.
 */
#ifndef RECORDINGS_KMEM_OPS_H
#define RECORDINGS_KMEM_OPS_H

#include "kmem_text.h"

#define KMEM_BOOSTS_STAND "# no kswapd: watermark boosts stand"

struct kmem_op {
	uint64_t time_us; /* the trace's clock */
	uint32_t pfn;	  /* the recorded machine's frame; 0: a failed allocation */
	uint32_t gfp;
	uint16_t cpu;
	uint8_t order;
	bool is_alloc;
	bool boosts;   /* an mm_page_alloc_extfrag came with it */
	bool in_irq;   /* it happened in an interrupt */
	uint8_t depth; /* how often preemption was disabled; 0 where nothing says so */
	/* A free of a batch, of which the task's event before on this CPU was one, too: what an
	 * interrupt did in between came in the middle of that batch. */
	bool in_batch;
	/* No op, but what one before it on this CPU did: its block left the CPU's lists, or the
	 * buddy. */
	bool is_drain, is_take;
	/* No op, but what the next allocation on this CPU did: it took from a pageblock of another
	 * type, which is `migratetype` now if it is owned, and otherwise what it was. */
	bool is_steal, owned;
	uint8_t migratetype;
};

/* Which part of a trace counts. Zero it for all of it. */
struct kmem_span {
	uint64_t begin_us;
	uint64_t end_us;	  /* 0: to its end */
	const char *last_process; /* NULL: none takes a snapshot at the end */
	bool with_lists;	  /* with is_drain, is_take and is_steal */
};

/* Reads begin and end from the stamps of two snapshots in a folder (state-begin,
 * state-end, .jsonl or .jsonl.gz). Without the second one it goes to the trace's end.
 * False: the first one is not there. */
bool kmem_span_read(const char *folder, struct kmem_span *ret);

struct kmem_counts {
	uint64_t events, announcements, outside, wrong, unknown_flags, drains;
	uint64_t lost; /* by the tracer, as its text says: its buffer was too small */
	bool has_extfrag;
};

struct kmem_ops;

struct kmem_ops *kmem_ops_new(const struct kmem_span *span);
/* False: the span is over, and no further event counts. */
bool kmem_ops_line(struct kmem_ops *k, const char *line);
/* No more lines come: everything is decided now. */
void kmem_ops_end(struct kmem_ops *k);
/* The next op that is decided. */
bool kmem_ops_next(struct kmem_ops *k, struct kmem_op *ret);
const struct kmem_counts *kmem_ops_counts(const struct kmem_ops *k);
void kmem_ops_free(struct kmem_ops *k);

#endif
