/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * recorder.h - the recorder's parts and what they share.
 *
 * A module for a real kernel: loading it does one experiment and leaves what came of it in
 * /proc/zoned_record, a JSON object a line. `zoned conformance` reads these lines.
 */
#ifndef RECORDER_H
#define RECORDER_H

#include <linux/mm.h>
#include <linux/mmzone.h>

/* Adds to the output. What does not fit is dropped, and said in the kernel's log. */
__printf(1, 2) void out(const char *format, ...);
/* A list's comma: nothing before its first element. */
static inline const char *comma(int nr)
{
	return nr ? "," : "";
}

/* A kernel function that modules cannot link to; NULL: there is none of that name. */
void *kernel_function(const char *name);

/* Deterministic, so that a seed makes the same requests anywhere. */
void random_seed(u32 seed);
u32 random_next(void);

/* ---- zones.c: the allocator's state ---- */

struct zone *zone_number(int i);
/* Gives the per-CPU lists of all CPUs and the LRU's back. */
void drain_lists(void);
/* A line for each zone: every list in its order, types, marks, counters. */
void dump_zones(const char *type, int op);
/* The fields d, pd and s: what an operation has changed. */
void out_changes(void);
/* Counters of each zone, as an array of that name. */
void out_counters(const char *name);

/* ---- experiments ---- */

void record_constants(void);
/* Requests and frees at random; `cpus` of them in turn, with everything else stopped. */
void record_sequence(u32 seed, u32 nr_ops, u32 orders, const char *requests, u32 dump_every);
/* Until nothing is left, for each kind of request. */
void record_exhaustion(void);
/* The state in the middle of a trace, stamped with the trace's clock. */
void record_state(void);
/* kmap, kmap_local, vmalloc, vmap and a fixmap slot. */
void record_mappings(void);

#endif
