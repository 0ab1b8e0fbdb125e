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
	uint32_t weak; /* a bit for each category that a cell is not if it is any other */
	const char *names[SVG_CATEGORIES]; /* NULL: not in the legend */
};

/* The colour of a category, for other drawings to agree with. */
const char *svg_colour(unsigned category);
/* Text with what XML would take for its own written otherwise. */
void svg_text(const char *text, FILE *to);
/* The document's first line, its ground and its two titles, at x = left. */
void svg_begin(int width, int height, int left, const char *title, const char *subtitle, FILE *to);
/* A line of the legend: a patch of colour and what may follow as its text, up to "</text>". */
void svg_legend(int x, int y, const char *colour, FILE *to);
/* Writes the whole document. */
void svg_map_write(const struct svg_map *m, FILE *to);

#endif
