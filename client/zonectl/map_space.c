/*
 * map_space.c - draws the address space: 4 GiB to scale, and beside it every part of it as
 * a band of its own, so that a window of some pages can be seen beside one of gigabytes.
 *
 * A band has its own scale, from its first address at the left to its last at the right,
 * and is cut into columns. A column's height is the share of it that is in use, its colour
 * what most of that is. What a part holds is asked of the machine; of the fixmap only the
 * slots of kmap_local are known.
 */
#include <stdlib.h>
#include <string.h>

#include "map.h"
#include "map_svg.h"

enum {
	COLUMNS = 512,
	BAND_X = 330,
	BAND_WIDTH = 768,
	BAND_HEIGHT = 26,
	BAND_STEP = 62,
	TASK_HEIGHT = 14,
	SCALE_X = 110,
	SCALE_WIDTH = 64,
	TOP = 84,
	NAMED_STEP = 16, /* between two addresses at the scale */
	LEFT = 24,
};

/* What an address is used for. The colours of frames are those of their states. */
enum use {
	USE_FRAMES, /* MAX_STATES of them */
	USE_VMALLOC = MAX_STATES,
	USE_VMAP,
	USE_IOREMAP,
	USE_LAZY,
	USE_PKMAP,
	USE_STALE,
	USE_LOCAL,
	USE_ANONYMOUS,
	USE_FILE,
	USE_FIXED,
	NR_USES
};

static const struct {
	const char *colour, *name;
} uses[NR_USES] = {
    [USE_VMALLOC] = {"#0072b2", "vmalloc area"},
    [USE_VMAP] = {"#56b4e9", "vmap area"},
    [USE_IOREMAP] = {"#d55e00", "ioremap area"},
    [USE_LAZY] = {"#c9ced3", "area freed, not yet purged"},
    [USE_PKMAP] = {"#009e73", "kmap slot in use"},
    [USE_STALE] = {"#e69f00", "kmap slot without users, not yet flushed"},
    [USE_LOCAL] = {"#cc79a7", "kmap_local slot in use"},
    [USE_ANONYMOUS] = {"#009e73", "user mapping, anonymous"},
    [USE_FILE] = {"#8fd6bd", "user mapping of a file"},
    [USE_FIXED] = {"#5a3d8a", "the machine's own"},
};

static const char *colour_of(unsigned use)
{
	return use < USE_VMALLOC ? svg_colour(use) : uses[use].colour;
}

struct band {
	uint64_t start, end;
	uint64_t used[COLUMNS][NR_USES]; /* bytes */
};

struct space {
	struct picture *p;
	FILE *to;
	bool seen[NR_USES]; /* for the legend */
};

/* ---- what is in use ---- */

static void mark(struct band *b, uint64_t start, uint64_t end, unsigned use)
{
	uint64_t size = b->end - b->start;

	start = start > b->start ? start : b->start;
	end = end < b->end ? end : b->end;
	while (start < end) {
		uint64_t column = (start - b->start) * COLUMNS / size;
		/* The first byte of the next column. */
		uint64_t stop = b->start + ((column + 1) * size + COLUMNS - 1) / COLUMNS;

		stop = stop < end ? stop : end;
		b->used[column][use] += stop - start;
		start = stop;
	}
}

static void mark_direct_map(const struct picture *p, struct band *b)
{
	size_t i;

	for (i = 0; i < p->nr_runs; i++) {
		unsigned state = (unsigned)p->runs[i].state;
		uint64_t at = b->start + (uint64_t)p->runs[i].first * FRAME_BYTES;

		/* Colours of states beyond the palette's are all its last. */
		if (state != FRAME_FREE && state != FRAME_HOLE && state != FRAME_PCP &&
		    state < SVG_CATEGORIES)
			mark(b, at, at + (uint64_t)p->runs[i].count * FRAME_BYTES, state);
	}
}

static void mark_areas(const struct picture *p, struct band *b)
{
	const Zoned__V1__VmallocinfoReport *v = p->areas->vmallocinfo;
	size_t i;

	for (i = 0; v && i < v->n_areas; i++) {
		unsigned kind = (unsigned)v->areas[i]->kind;

		mark(b, v->areas[i]->start, v->areas[i]->end,
		     kind <= USE_LAZY - USE_VMALLOC ? USE_VMALLOC + kind : USE_VMALLOC);
	}
}

static void mark_slots(const struct picture *p, struct band *b)
{
	const Zoned__V1__KmapWindowReport *k = p->kmap->kmap_window;
	size_t i;

	for (i = 0; k && i < k->n_slots; i++)
		if (k->slots[i]->count)
			mark(b, k->slots[i]->va, (uint64_t)k->slots[i]->va + FRAME_BYTES,
			     k->slots[i]->count > 1 ? USE_PKMAP : USE_STALE);
}

static void mark_locals(const struct picture *p, struct band *b)
{
	const Zoned__V1__KmapWindowReport *k = p->kmap->kmap_window;
	size_t i;

	for (i = 0; k && i < k->n_locals; i++)
		mark(b, k->locals[i]->va, (uint64_t)k->locals[i]->va + FRAME_BYTES, USE_LOCAL);
}

static void mark_task(const Zoned__V1__MapsReport *maps, struct band *b, uint64_t *ret_mapped,
		      uint64_t *ret_resident)
{
	size_t i;

	for (i = 0; maps && i < maps->n_vmas; i++) {
		const Zoned__V1__VmaRow *v = maps->vmas[i];
		uint64_t end = v->end ? v->end : 1ull << 32;

		mark(b, v->start, end, v->file ? USE_FILE : USE_ANONYMOUS);
		*ret_mapped += end - v->start;
		*ret_resident += v->resident;
	}
}

/* ---- drawing ---- */

/* One path for each colour. */
static void draw_columns(struct space *s, const struct band *b, double y, double height)
{
	double wide = (double)BAND_WIDTH / COLUMNS;
	uint64_t size = b->end - b->start;
	unsigned use, u, i;

	for (use = 0; use < NR_USES; use++) {
		bool any = false;

		for (i = 0; i < COLUMNS; i++) {
			uint64_t sum = 0, most = 0, whole;
			unsigned is = NR_USES;
			double share;

			for (u = 0; u < NR_USES; u++) {
				sum += b->used[i][u];
				if (b->used[i][u] > most) {
					most = b->used[i][u];
					is = u;
				}
			}
			if (is != use)
				continue;
			whole = (uint64_t)(i + 1) * size / COLUMNS - (uint64_t)i * size / COLUMNS;
			share = whole && sum < whole ? (double)sum / (double)whole : 1;
			/* What there is can be seen. */
			share = share * height < 1.5 ? 1.5 / height : share;
			if (!any)
				fprintf(s->to, "<path fill=\"%s\" d=\"", colour_of(use));
			any = true;
			fprintf(s->to, "M%.5g %.5gv-%.4gh%.4gv%.4gz", BAND_X + i * wide, y + height,
				share * height, wide, share * height);
		}
		if (any)
			fputs("\"/>\n", s->to);
		s->seen[use] |= any;
	}
}

static void draw_frame(const struct space *s, double y, double height, const char *fill)
{
	fprintf(s->to,
		"<rect x=\"%d\" y=\"%.5g\" width=\"%d\" height=\"%.5g\" fill=\"%s\" "
		"stroke=\"#555\" stroke-width=\".7\"/>\n",
		BAND_X, y, BAND_WIDTH, height, fill);
}

static double scale_height(const struct space *s)
{
	return (double)(s->p->layout->layout->n_parts * BAND_STEP) - (BAND_STEP - BAND_HEIGHT);
}

/* Where an address is at the scale, from the top down. */
static double scale_y(const struct space *s, uint64_t address)
{
	return TOP + scale_height(s) * (1 - (double)address / (double)(1ull << 32));
}

static const char *part_colour(unsigned part)
{
	switch (part) {
	case ZONED__V1__LAYOUT_PART__LAYOUT_USER: return "#dff2ea";
	case ZONED__V1__LAYOUT_PART__LAYOUT_DIRECT_MAP: return "#f7ead0";
	case ZONED__V1__LAYOUT_PART__LAYOUT_VMALLOC: return "#dcebf6";
	case ZONED__V1__LAYOUT_PART__LAYOUT_GAP: return "url(#gap)";
	default: return "#eee9f4";
	}
}

/* The tasks' mappings, a strip each. */
static void draw_tasks(struct space *s, const Zoned__V1__LayoutRow *part, double y)
{
	const Zoned__V1__TasksReport *t = s->p->tasks->tasks;
	size_t nr = t ? t->n_tasks : 0, i;
	char a[16], b[16];

	draw_frame(s, y, BAND_HEIGHT, part_colour((unsigned)part->part));
	for (i = 0; i < nr && i < MAX_DRAWN_TASKS; i++) {
		struct band *band = must(calloc(1, sizeof *band));
		uint64_t mapped = 0, resident = 0;
		double strip = y + (double)i * TASK_HEIGHT;

		band->start = part->start;
		band->end = part_end(part);
		mark_task(s->p->maps[i]->maps, band, &mapped, &resident);
		draw_frame(s, strip, TASK_HEIGHT, part_colour((unsigned)part->part));
		draw_columns(s, band, strip, TASK_HEIGHT);
		fprintf(s->to,
			"<text x=\"%d\" y=\"%.5g\" font-size=\"11\">task %u: %s mapped, %s "
			"there</text>\n",
			BAND_X + BAND_WIDTH + 10, strip + 11, t->tasks[i]->task,
			human_size(mapped, a, sizeof a), frames_text(resident, b, sizeof b));
		free(band);
	}
	if (nr > MAX_DRAWN_TASKS)
		fprintf(s->to, "<text x=\"%d\" y=\"%.5g\" font-size=\"11\">and %zu more</text>\n",
			BAND_X + BAND_WIDTH + 10, y + MAX_DRAWN_TASKS * TASK_HEIGHT + 11,
			nr - MAX_DRAWN_TASKS);
	if (!nr)
		fprintf(s->to, "<text x=\"%d\" y=\"%.5g\" font-size=\"11\">no task</text>\n",
			BAND_X + 8, y + 17);
}

static void draw_band(struct space *s, const Zoned__V1__LayoutRow *part, double y)
{
	struct band *b = must(calloc(1, sizeof *b));

	b->start = part->start;
	b->end = part_end(part);
	switch ((int)part->part) {
	case ZONED__V1__LAYOUT_PART__LAYOUT_DIRECT_MAP: mark_direct_map(s->p, b); break;
	case ZONED__V1__LAYOUT_PART__LAYOUT_VMALLOC: mark_areas(s->p, b); break;
	case ZONED__V1__LAYOUT_PART__LAYOUT_PKMAP: mark_slots(s->p, b); break;
	case ZONED__V1__LAYOUT_PART__LAYOUT_FIXMAP:
	case ZONED__V1__LAYOUT_PART__LAYOUT_KMAP_LOCAL: mark_locals(s->p, b); break;
	case ZONED__V1__LAYOUT_PART__LAYOUT_HOST:
	case ZONED__V1__LAYOUT_PART__LAYOUT_METADATA: mark(b, b->start, b->end, USE_FIXED); break;
	default: break;
	}
	draw_frame(s, y, BAND_HEIGHT, part_colour((unsigned)part->part));
	draw_columns(s, b, y, BAND_HEIGHT);
	draw_frame(s, y, BAND_HEIGHT, "none");
	free(b);
}

static void draw_title(struct space *s, const Zoned__V1__LayoutRow *part, bool inside, double y)
{
	char name[32], size[16], usage[96];

	part_usage(s->p, part, usage, sizeof usage);
	fprintf(s->to,
		"<text x=\"%d\" y=\"%.5g\">%s<tspan font-weight=\"bold\">%s</tspan> "
		"<tspan font-family=\"monospace\">0x%08x-0x%08llx</tspan>  %s",
		BAND_X, y - 6, inside ? "in it: " : "",
		layout_part_name((unsigned)part->part, name, sizeof name), part->start,
		(unsigned long long)part_end(part) - 1,
		human_size(part_end(part) - part->start, size, sizeof size));
	if (part->paddr)
		fprintf(s->to, ", physical from 0x%llx", (unsigned long long)part->paddr);
	if (*usage)
		fprintf(s->to, "; %s", usage);
	fputs("</text>\n", s->to);
}

/* From the part's place at the scale to its band. */
static void draw_leader(const struct space *s, const Zoned__V1__LayoutRow *part, bool inside,
			double y, double height)
{
	double top = scale_y(s, part_end(part)), bottom = scale_y(s, part->start);

	fprintf(s->to,
		"<path d=\"M%d %.6gL%d %.6gv%.5gL%d %.6gz\" fill=\"%s\" fill-opacity=\".6\" "
		"stroke=\"#999\" stroke-width=\".6\"%s/>\n",
		SCALE_X + SCALE_WIDTH, top, BAND_X, y, height, SCALE_X + SCALE_WIDTH, bottom,
		inside ? "none" : part_colour((unsigned)part->part),
		inside ? " stroke-dasharray=\"3 3\"" : "");
}

static void draw_scale(const struct space *s)
{
	const Zoned__V1__LayoutReport *l = s->p->layout->layout;
	uint64_t outer = 1ull << 32;
	double last = 0;
	size_t i;

	fprintf(s->to, "<text x=\"%d\" y=\"%d\" font-size=\"11\">4 GiB to scale</text>\n", SCALE_X,
		TOP - 8);
	for (i = 0; i < l->n_parts; i++) {
		const Zoned__V1__LayoutRow *part = l->parts[i];
		double top = scale_y(s, part_end(part)), bottom = scale_y(s, part->start);

		if (part_end(part) > outer)
			continue;
		outer = part->start;
		fprintf(s->to,
			"<rect x=\"%d\" y=\"%.6g\" width=\"%d\" height=\"%.6g\" fill=\"%s\" "
			"stroke=\"#555\" stroke-width=\".5\"/>\n",
			SCALE_X, top, SCALE_WIDTH, bottom - top, part_colour((unsigned)part->part));
		if (bottom - last < NAMED_STEP)
			continue;
		last = bottom;
		fprintf(s->to,
			"<text x=\"%d\" y=\"%.6g\" text-anchor=\"end\" font-family=\"monospace\" "
			"font-size=\"11\">0x%08x</text>\n",
			SCALE_X - 6, bottom + 4, part->start);
	}
}

static int draw_legend(const struct space *s, int y)
{
	unsigned use, n = 0;

	for (use = 0; use < NR_USES; use++) {
		if (!s->seen[use])
			continue;
		svg_legend(BAND_X + (int)(n % 2) * (BAND_WIDTH / 2), y + (int)(n / 2) * 22,
			   colour_of(use), s->to);
		if (use < USE_VMALLOC)
			fputs("lowmem: ", s->to);
		svg_text(use < USE_VMALLOC ? frame_state_name(use) : uses[use].name, s->to);
		fputs("</text>\n", s->to);
		n++;
	}
	return y + (int)((n + 1) / 2) * 22;
}

/* How much higher than other bands the tasks make their part's. */
static double extra_height(const struct picture *p)
{
	size_t nr = p->tasks->tasks ? p->tasks->tasks->n_tasks : 0;

	nr = nr > MAX_DRAWN_TASKS ? MAX_DRAWN_TASKS + 1 : nr;
	return nr * TASK_HEIGHT > BAND_HEIGHT ? (double)(nr * TASK_HEIGHT - BAND_HEIGHT) : 0;
}

static void draw_parts(struct space *s)
{
	const Zoned__V1__LayoutReport *l = s->p->layout->layout;
	double y = TOP, extra = extra_height(s->p);
	uint64_t outer = 1ull << 32;
	size_t i;

	for (i = 0; i < l->n_parts; i++, y += BAND_STEP) {
		const Zoned__V1__LayoutRow *part = l->parts[i];
		bool user = part->part == ZONED__V1__LAYOUT_PART__LAYOUT_USER;
		bool inside = part_end(part) > outer;

		draw_leader(s, part, inside, y, BAND_HEIGHT + (user ? extra : 0));
		draw_title(s, part, inside, y);
		if (user)
			draw_tasks(s, part, y);
		else
			draw_band(s, part, y);
		y += user ? extra : 0;
		outer = inside ? outer : part->start;
	}
}

void space_write(struct picture *p, FILE *to)
{
	struct space s = {.p = p};
	int end = TOP + (int)scale_height(&s) + (int)extra_height(p) + 40;
	char subtitle[96], *body;
	size_t size;

	s.to = must(open_memstream(&body, &size));
	sort_parts(p->layout->layout);
	draw_scale(&s);
	draw_parts(&s);
	end = draw_legend(&s, end);
	fclose(s.to);
	snprintf(subtitle, sizeof subtitle, "the address space after op %llu",
		 (unsigned long long)p->op);
	svg_begin(BAND_X + BAND_WIDTH + 230, end + 10, LEFT, p->ctl->machine, subtitle, to);
	fputs("<defs><pattern id=\"gap\" width=\"6\" height=\"6\" "
	      "patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
	      "<rect width=\"6\" height=\"6\" fill=\"#fff\"/>"
	      "<rect width=\"2\" height=\"6\" fill=\"#ddd\"/></pattern></defs>\n",
	      to);
	fputs(body, to);
	fputs("</svg>\n", to);
	free(body);
}
