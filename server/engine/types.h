/*
 * The engine's integers.
 *
 * Everything in a machine's RAM is made of these, and has the same layout when
 * compiled for i386 and for x86-64: u64 is aligned to 8 even where the ABI would
 * be content with 4, and there is no long, no bit-field and no pointer.
 */
#ifndef ENGINE_TYPES_H
#define ENGINE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint64_t u64 __attribute__((aligned(8)));
typedef int64_t s64 __attribute__((aligned(8)));

typedef u32 pfn_t;   /* number of a frame; 0 also means none: frame 0 is never allocated */
typedef u64 paddr_t; /* physical address */
typedef u32 va_t;    /* virtual address */
typedef u32 ref_t;   /* kernel virtual address in the direct map, of an object; 0: none */

enum { PAGE_SHIFT = 12, PAGE_SIZE = 1 << PAGE_SHIFT };

/* Where a constant argument makes most of a function fold away, or a call costs more than it. */
#define ALWAYS_INLINE inline __attribute__((always_inline))

static inline u32 pages_of(u64 bytes)
{
	return (u32)((bytes + PAGE_SIZE - 1) >> PAGE_SHIFT);
}

#endif
