/*
 * arena.h - a simulated machine's RAM: one sparse anonymous mapping, in which a
 * physical address is an offset. Holes are never touched and cost nothing.
 *
 * Which frames were ever touched is known in two ways. Frames above lowmem are
 * written through the software MMU alone, which sets a bit for each; the engine
 * writes lowmem directly, so there the host's own page tables are asked.
 */
#ifndef SIM_ARENA_H
#define SIM_ARENA_H

#include "engine.h"

struct arena {
	u8 *base;
	size_t bytes;
	pfn_t low_end, end;
	u64 *high_touched; /* a bit for each frame from low_end on */
	int file;	   /* RAM that is another's, in this file; -1: it is ours */
};

/* The answer to "was it touched" for a stretch of lowmem, asked once. */
enum { ARENA_WINDOW_FRAMES = 2048 };
struct arena_cursor {
	const struct arena *arena;
	int pagemap; /* file descriptor; -1: the host does not tell */
	pfn_t window_start, window_end;
	u64 window[ARENA_WINDOW_FRAMES];
};

/* False: no memory. */
bool arena_make(struct arena *a, u64 low_bytes, u64 bytes);
/* RAM that another writes, in a sparse file laid out as QEMU does it: what lies from
 * 4 GiB on begins at ARENA_HOLE_START in the file. The file stays the caller's and must
 * outlive the arena. False: no memory. */
#define ARENA_HOLE_START 0xc0000000ULL
#define ARENA_HOLE_END	 0x100000000ULL
bool arena_share(struct arena *a, u64 low_bytes, u64 bytes, int file);
/* Where a physical address lies in that file. */
static inline u64 arena_file_offset(u64 paddr)
{
	if (paddr < ARENA_HOLE_START)
		return paddr;
	return paddr < ARENA_HOLE_END ? ARENA_HOLE_START
				      : paddr - (ARENA_HOLE_END - ARENA_HOLE_START);
}
void arena_free(struct arena *a);

static inline void arena_mark(struct arena *a, pfn_t pfn)
{
	if (pfn >= a->low_end)
		a->high_touched[(pfn - a->low_end) / 64] |= 1ULL << (pfn - a->low_end) % 64;
}

/* A walk over the touched frames. Where the host does not tell, all of lowmem counts
 * as touched: that costs time, and never a byte. */
void arena_cursor_open(struct arena_cursor *c, const struct arena *a);
void arena_cursor_close(struct arena_cursor *c);
/* Was this frame touched? Asks about its neighbours in the same breath, about no other. */
bool arena_has(struct arena_cursor *c, pfn_t pfn);
/* First touched frame at or after `from`; 0xffffffff: none. */
pfn_t arena_next(struct arena_cursor *c, pfn_t from);

/* Copies the touched frames into an arena of the same shape that has none. */
void arena_copy(struct arena *to, const struct arena *from);

u64 arena_resident_bytes(const struct arena *a);

#endif
