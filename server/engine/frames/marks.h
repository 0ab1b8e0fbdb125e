/*
 * marks.h - watermarks, reserves and the sizes of per-CPU lists, by Linux 6.1's
 * formulas, and the sysctls that change them.
 */
#ifndef ENGINE_MARKS_H
#define ENGINE_MARKS_H

#include "zone.h"

/* Sysctls' defaults: watermark_scale_factor, watermark_boost_factor,
 * lowmem_reserve_ratio as measured on Debian's 6.1 (shared by i386 and mainline). */
void marks_defaults(struct frames_state *f);

/* What a kernel does at the end of its boot: min_free_kbytes from the size of
 * lowmem (raised for huge pages where the config says so), marks, reserves, pcp
 * sizes and statistics thresholds. late_pages are not yet counted. */
void marks_boot(struct engine *e);

/* n / d, and a * b / c with all bits of the product; 0xffffffff when that does not
 * fit. A freestanding i386 build has no 64-bit division. d and c are not 0. */
u32 div64(u64 n, u32 d);
u32 mul_div(u32 a, u32 b, u32 c);

/* The threshold of a zone's per-CPU counters, in pages; no zone's is above the most. */
enum { STAT_THRESHOLD_MOST = 125 };
u32 marks_stat_threshold(const struct engine *e, u32 managed);

#endif
