/*
 * pkmap.h - kmap(): a small window for long-lived mappings of HIGHMEM frames.
 *
 * Counts, as in Linux's mm/highmem.c: 0 is free; 1 has no users but is still
 * mapped, since the TLBs were last flushed; n is n - 1 users. A count goes from 1
 * to 0 only by the flush when the search for a slot wraps.
 */
#ifndef ENGINE_PKMAP_H
#define ENGINE_PKMAP_H

#include "../engine.h"

struct task;

enum { PKMAP_MAX_SLOTS = 1024 };

/* One of those who hold a slot, in the order in which they came. The first is in the
 * slot, so that a kmap allocates nothing; others are objects (SLAB_HOLDER). */
struct pkmap_holder {
	ref_t next;
	u32 task;  /* 0: a CPU's own context, or a task that is gone */
	u32 count; /* uses, at least 1; of the first 0: nobody holds the slot */
	u32 reserved0;
};

struct pkmap_state {
	u32 last;    /* slot given out last; the search begins after it */
	u32 flushes; /* times the window wrapped */
	u32 used;    /* slots with count > 1 */
	u32 nr_sleepers;
	u32 sleeper_first, sleeper_last; /* task numbers, in the order of arrival */
	u32 count[PKMAP_MAX_SLOTS];
	pfn_t pfn[PKMAP_MAX_SLOTS];
	struct pkmap_holder holder[PKMAP_MAX_SLOTS];
};

/* The next of a slot's holders; NULL: none. */
struct pkmap_holder *pkmap_holder_next(struct engine *e, const struct pkmap_holder *h);

/* A task ends: it sleeps no more, and what it held is held by nobody. */
void pkmap_task_exit(struct engine *e, struct task *t);

#endif
