/*
 * lines.h - the lines of a text file, gzipped or not, or of standard input.
 */
#ifndef RECORDINGS_LINES_H
#define RECORDINGS_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lines;

/* Opens PATH, or PATH.gz where there is no PATH; "-" is standard input. Whether it is
 * compressed is seen from its bytes. NULL: it cannot be opened. */
struct lines *lines_open(const char *path);
struct lines *lines_open_in(const char *folder, const char *name);
/* The next line without its end (of either kind), good until the next call; NULL at the
 * end. */
const char *lines_next(struct lines *l);
/* Had the line that was given last no end? It is the file's last, and may be half a line. */
bool lines_cut(const struct lines *l);
/* Of the line that was given last, from 1. */
uint64_t lines_number(const struct lines *l);
/* How far the file itself (compressed as it is) has been read, in bytes. */
uint64_t lines_offset(const struct lines *l);
/* Did the lines end for another reason than the file's end (it is cut off, or
 * damaged, or there was no memory)? */
bool lines_broken(const struct lines *l);
void lines_close(struct lines *l);

#endif
