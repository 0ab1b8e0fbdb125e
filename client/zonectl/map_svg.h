/*
 * map_svg.h - physical memory as a drawing: SVG 1.1 without scripts or fonts of its own.
 */
#ifndef ZONECTL_MAP_SVG_H
#define ZONECTL_MAP_SVG_H

#include "zonectl.h"

enum { SVG_CATEGORIES = 16, SVG_SIDE = 128 /* cells, a power of two */ };

/* What a frame is drawn as: an index into the legend, or -1: nothing. */
typedef int svg_category_fn(void *arg, const Zoned__V1__FrameRunRow *run);

struct svg_map {
	const char *title, *subtitle;	    /* any text; it is escaped */
	bool hilbert;			    /* else rows, with an axis in MiB */
	bool sequential;		    /* neighbours in the legend differ by a shade */
	const Zoned__V1__FrameRunRow *runs; /* in order of first */
	size_t nr_runs;
	svg_category_fn *category;
	void *arg;
	const char *names[SVG_CATEGORIES]; /* NULL: not in the legend */
};

/* Writes the whole document. */
void svg_map_write(const struct svg_map *m, FILE *to);

#endif
