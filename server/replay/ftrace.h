/*
 * ftrace.h - what a machine's page allocator did, as Linux's ftrace writes it down.
 *
 * Blocks that left and came back (mm_page_alloc, mm_page_free) and requests that nobody could
 * serve (mm_page_alloc with page=NULL), one line each, with Linux 6.1's fields; `zonectl
 * import` reads it again. A task's name is its number, the time that of the op since the
 * machine's making; it grows by a microsecond at least from line to line, so that the order
 * of the lines is that of their times.
 *
 * mm_page_alloc_extfrag is left out: who reads it takes the boost that comes with it to have
 * been taken back at once, and here only UnboostZone does that.
 */
#ifndef REPLAY_FTRACE_H
#define REPLAY_FTRACE_H

#include <stdio.h>

#include "source.h"

/* Everything that the source gives. Returns the number of lines; what failed stands in
 * source_error() or ferror(). */
uint64_t ftrace_write(struct source *s, FILE *to);

#endif
