/*
 * wings.h - what each wing gives to the audit and to the inspections. check.c and
 * inspect.c call these; nobody else does.
 */
#ifndef ENGINE_WINGS_H
#define ENGINE_WINGS_H

#include "engine.h"

/* Each recounts its wing from the ground up and returns true, or describes the
 * first lie with refuse(why, ...). Called in this order; later ones rely on what
 * earlier ones have shown. */
typedef bool check_fn(struct engine *e, struct engine_error *why);
check_fn check_boot;   /* memblock sorted and merged, layout still follows from the config */
check_fn check_frames; /* free lists against frames, counters against lists, slabs */
check_fn check_map;    /* kernel tables against windows, pkmap counts, kmap stacks, areas */
check_fn check_user;   /* VMAs against tables, refs and mapcounts against PTEs, files, tasks */
check_fn check_dma;    /* handles against frames */

/* Each answers one question; returns a status. */
typedef u32 inspect_fn(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink);
inspect_fn inspect_memblock, inspect_layout; /* boot/ */
inspect_fn inspect_zoneinfo, inspect_buddyinfo, inspect_pagetypeinfo, inspect_meminfo,
    inspect_frame_map, inspect_state;				   /* frames/ */
inspect_fn inspect_vmallocinfo, inspect_walk, inspect_kmap_window; /* map/ */
inspect_fn inspect_page;					   /* map/: frame and mappings */
inspect_fn inspect_maps, inspect_tasks;				   /* user/ */
inspect_fn inspect_statistics;					   /* inspect.c */

#endif
