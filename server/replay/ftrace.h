/*
 * ftrace.h - what a machine's page allocator did, as Linux's ftrace writes it down.
 *
 * Blocks that left and came back (mm_page_alloc, mm_page_free), requests that nobody could
 * serve (mm_page_alloc with page=NULL) and blocks that were taken from another migratetype
 * (mm_page_alloc_extfrag), one line each, with Linux 6.1's fields; `zonectl import` reads it
 * again. A comment tells it that boosts stand until an UnboostZone. A task's name is its number,
 * the time that of the op since the machine's making; it grows by a microsecond at least from line
 * to line, so that the order of the lines is that of their times.
 *
 * mm_page_pcpu_drain is left out: it names each page that left a CPU's lists, and what is
 * recorded is how many did. change_ownership is 0 where a pageblock that was loaded, not made,
 * had the request's type already: types are followed from the machine's making.
 */
#ifndef REPLAY_FTRACE_H
#define REPLAY_FTRACE_H

#include <stdio.h>

#include "source.h"

/* Everything that the source gives; with `counters` also what a program that draws ftrace's
 * text can draw: each zone's free pages after each op that changed them, as the markers that
 * Android's tracing has for counters. Returns the number of lines; what failed stands in
 * source_error() or ferror(). */
uint64_t ftrace_write(struct source *s, bool counters, FILE *to);

#endif
