/*
 * load_state.h - the words of LoadState: an exact allocator state for a fresh
 * machine of the same memory map.
 *
 * The payload is a row of records of little-endian u32 words. A record's first word
 * is kind | zone << 8 | n << 16, and n words follow. A record lies in one payload; a
 * list that is longer than a record, or than a payload, goes on in further records
 * of the same list. Records of a zone come in the order of their kinds.
 *
 *  LOAD_ZONE        start, spanned, present: must be the machine's own;
 *                   managed, min, low, high (marks without boost), boost,
 *                   highatomic (pages), reserve against DMA, NORMAL, HIGHMEM and
 *                   MOVABLE requests, NR_FREE_PAGES (without the CPUs' differences)
 *  LOAD_PAGEBLOCKS  first (0: the pageblock of the zone's start), count, then types,
 *                   eight to a word from the low four bits up
 *  LOAD_FREE        order << 8 | migratetype, then pfns in list order
 *  LOAD_PCP_LIST    cpu << 8 | list, then pfns in list order. Where a page goes when
 *                   it leaves follows from the list (12: UNMOVABLE), except that one
 *                   of a HIGHATOMIC pageblock goes back there
 *  LOAD_PCP         cpu, count (pages on the lists given before), high, batch,
 *                   free_factor, NR_FREE_PAGES difference (signed)
 *
 * Every zone that has frames needs its LOAD_ZONE. What the state has not is as in a
 * fresh machine: sysctls; statistics thresholds follow from managed.
 *
 * The state is refused with INVALID, and the machine is fresh again, when a record
 * makes no sense, when a free frame is no RAM or is kept for the machine's own
 * metadata, and when the whole does not stand the audit (frames_check.c).
 *
 * Frames of RAM that are then neither free nor the machine's own were allocated by
 * nobody known. They can be freed, with whatever order: what a recording frees, it
 * has seen allocated.
 */
#ifndef ENGINE_LOAD_STATE_H
#define ENGINE_LOAD_STATE_H

enum load_record {
	LOAD_ZONE = 1,
	LOAD_PAGEBLOCKS = 2,
	LOAD_FREE = 3,
	LOAD_PCP_LIST = 4,
	LOAD_PCP = 5,
};

enum {
	LOAD_ZONE_WORDS = 14,
	LOAD_PCP_WORDS = 6,
	LOAD_TYPES_PER_WORD = 8,
	LOAD_MAX_WORDS = 16383, /* of a payload, first word included */
};

#endif
