/*
 * map_svg.c - draws frames as a square of cells, along rows or along a Hilbert curve.
 *
 * A cell is a power of two of frames and has the colour of what most of it is. The colours
 * are Okabe and Ito's, which people of any colour vision tell apart, and tints of them.
 * Along a Hilbert curve neighbours in memory stay neighbours in the picture; along rows
 * an address can be read off. One path for each colour keeps the file small.
 */
#include <stdlib.h>
#include <string.h>

#include "map_svg.h"

enum { SIDE = SVG_SIDE, PIXELS = 6, LEFT = 74, TOP = 64, LEGEND = 340, FRAMES_PER_MIB = 256 };

static const char *const distinct[SVG_CATEGORIES] = {
    "#e9ecee", "#56b4e9", "#e69f00", "#7f8790", "#f6f7f8", "#cc79a7", "#0072b2", "#9ad0f5",
    "#009e73", "#f0e442", "#d55e00", "#5a3d8a", "#111111", "#8fd6bd", "#f2b48c", "#b8b08d",
};
static const char *const shades[SVG_CATEGORIES] = {
    "#fde725", "#c2df23", "#86d549", "#52c569", "#2ab07f", "#1e9b8a", "#25858e", "#2d708e",
    "#38588c", "#433e85", "#482173", "#440154", "#300040", "#200030", "#100018", "#e9ecee",
};

struct cells {
	uint64_t frames; /* of a cell */
	uint32_t (*count)[SVG_CATEGORIES];
	uint64_t total[SVG_CATEGORIES];
};

/* Distance along the curve to a place on it. */
static void hilbert(uint32_t d, uint32_t *ret_x, uint32_t *ret_y)
{
	uint32_t s, rx, ry, x = 0, y = 0, t;

	for (s = 1; s < SIDE; s *= 2, d /= 4) {
		rx = 1 & (d / 2);
		ry = 1 & (d ^ rx);
		if (!ry) {
			if (rx) {
				x = s - 1 - x;
				y = s - 1 - y;
			}
			t = x;
			x = y;
			y = t;
		}
		x += s * rx;
		y += s * ry;
	}
	*ret_x = x;
	*ret_y = y;
}

void svg_text(const char *text, FILE *to)
{
	for (; *text; text++)
		switch (*text) {
		case '<': fputs("&lt;", to); break;
		case '>': fputs("&gt;", to); break;
		case '&': fputs("&amp;", to); break;
		default: putc((unsigned char)*text < ' ' ? ' ' : *text, to);
		}
}

static void count_cells(const struct svg_map *m, struct cells *c)
{
	uint64_t end = 1, at, stop;
	size_t i;

	if (m->nr_runs)
		end = (uint64_t)m->runs[m->nr_runs - 1].first + m->runs[m->nr_runs - 1].count;
	for (c->frames = 1; c->frames * SIDE * SIDE < end;)
		c->frames *= 2;
	c->count = must(calloc((size_t)SIDE * SIDE, sizeof *c->count));
	for (i = 0; i < m->nr_runs; i++) {
		int category = m->category(m->arg, &m->runs[i]);

		if (category < 0)
			continue;
		c->total[category] += m->runs[i].count;
		end = (uint64_t)m->runs[i].first + m->runs[i].count;
		for (at = m->runs[i].first; at < end; at = stop) {
			stop = (at / c->frames + 1) * c->frames;
			stop = stop < end ? stop : end;
			c->count[at / c->frames][category] += (uint32_t)(stop - at);
		}
	}
}

/* What most of a cell is; -1: nothing is there. */
static int main_category(const struct svg_map *m, const uint32_t *count)
{
	int i, most = -1;

	for (i = 0; i < SVG_CATEGORIES; i++) {
		bool weak = m->weak >> i & 1, most_weak = most >= 0 && m->weak >> most & 1;

		if (count[i] && (most < 0 || (weak == most_weak && count[i] > count[most]) ||
				 (most_weak && !weak)))
			most = i;
	}
	return most;
}

static void draw_category(const struct svg_map *m, const struct cells *c, int category, FILE *to)
{
	uint32_t i, x, y;

	fprintf(to, "<path fill=\"%s\" d=\"", (m->sequential ? shades : distinct)[category]);
	for (i = 0; i < SIDE * SIDE; i++) {
		if (main_category(m, c->count[i]) != category)
			continue;
		x = i % SIDE;
		y = i / SIDE;
		if (m->hilbert)
			hilbert(i, &x, &y);
		fprintf(to, "M%u %uh1v1h-1z", x, y);
	}
	fputs("\"/>\n", to);
}

static void draw_axis(const struct svg_map *m, const struct cells *c, FILE *to)
{
	unsigned row;

	for (row = 0; row <= SIDE && !m->hilbert; row += SIDE / 8)
		fprintf(to, "<text x=\"%d\" y=\"%u\" text-anchor=\"end\">%.6g</text>\n", LEFT - 8,
			TOP + row * PIXELS + 4,
			(double)((uint64_t)row * SIDE * c->frames) / FRAMES_PER_MIB);
	fprintf(to, "<text x=\"%d\" y=\"%d\">%s; a cell is %g MiB</text>\n", LEFT,
		TOP + SIDE * PIXELS + 20,
		m->hilbert ? "along a Hilbert curve from the upper left"
			   : "rows from low to high, MiB at the left",
		(double)c->frames / FRAMES_PER_MIB);
}

static void draw_legend(const struct svg_map *m, const struct cells *c, FILE *to)
{
	int i, y = TOP, x = LEFT + SIDE * PIXELS + 24;

	for (i = 0; i < SVG_CATEGORIES; i++) {
		if (!c->total[i] || !m->names[i])
			continue;
		svg_legend(x, y, (m->sequential ? shades : distinct)[i], to);
		svg_text(m->names[i], to);
		fprintf(to, ": %.6g MiB</text>\n", (double)c->total[i] / FRAMES_PER_MIB);
		y += 22;
	}
}

const char *svg_colour(unsigned category)
{
	return distinct[category < SVG_CATEGORIES ? category : SVG_CATEGORIES - 1];
}

void svg_begin(int width, int height, int left, const char *title, const char *subtitle, FILE *to)
{
	fprintf(
	    to,
	    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" "
	    "version=\"1.1\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
	    "font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n"
	    "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n<text x=\"%d\" y=\"28\" "
	    "font-size=\"20\" font-weight=\"bold\">",
	    width, height, width, height, width, height, left);
	svg_text(title, to);
	fprintf(to, "</text>\n<text x=\"%d\" y=\"48\">", left);
	svg_text(subtitle, to);
	fputs("</text>\n", to);
}

void svg_legend(int x, int y, const char *colour, FILE *to)
{
	fprintf(to,
		"<rect x=\"%d\" y=\"%d\" width=\"14\" height=\"14\" fill=\"%s\" stroke=\"#555\" "
		"stroke-width=\".5\"/>\n<text x=\"%d\" y=\"%d\">",
		x, y, colour, x + 22, y + 12);
}

void svg_map_write(const struct svg_map *m, FILE *to)
{
	struct cells c = {0};
	int i, width = LEFT + SIDE * PIXELS + LEGEND, height = TOP + SIDE * PIXELS + 40;

	count_cells(m, &c);
	svg_begin(width, height, LEFT, m->title, m->subtitle, to);
	fprintf(to,
		"<g transform=\"translate(%d %d) scale(%d)\" shape-rendering=\"crispEdges\">\n"
		"<rect width=\"%d\" height=\"%d\" fill=\"#fff\" stroke=\"#bbb\" "
		"stroke-width=\".15\"/>\n",
		LEFT, TOP, PIXELS, SIDE, SIDE);
	for (i = 0; i < SVG_CATEGORIES; i++)
		if (c.total[i])
			draw_category(m, &c, i, to);
	fputs("</g>\n", to);
	draw_axis(m, &c, to);
	draw_legend(m, &c, to);
	fputs("</svg>\n", to);
	free(c.count);
}
