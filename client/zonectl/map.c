/*
 * map.c - draws a machine: physical memory by zone, order, state and owner, and the
 * virtual address space.
 *
 * A cell stands for a power of two of frames. It shows the state that most of its used
 * frames have, and how full it is: by shade in colour, by case in letters. Without
 * colour every state has its letter; --ascii avoids everything beyond ASCII.
 *
 * Figures are exact unless the machine is so finely divided that its frame map does
 * not fit into a message; then small runs are merged and the figures say "about".
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "map.h"
#include "map_svg.h"

enum { NR_ORDERS = 11, DRAWN_ROWS = 16 };

static const struct flag map_flags[] = {
    {"ascii", 0, NULL, "letters, no colours, no line drawing"},
    {"rows", 0, "N", "rows of cells for the whole of memory; default 16"},
    {"diff", 0, "OP[..OP]", "what changed from after this op to after that one, or to now"},
    {"svg", 0, "FILE", "physical memory as a drawing; - is standard output"},
    {"layout", 0, "rows|hilbert", "of the drawing; default rows"},
    {"color", 0, "state|zone|order|migratetype|owner", "of the drawing; default state"},
    {"space", 0, NULL, "of the drawing: the address space and its windows instead"},
    AT_FLAG,
};
enum { NR_MAP_FLAGS = sizeof map_flags / sizeof *map_flags };

/* How a state looks. States that a newer daemon has get a question mark. */
static const struct look {
	unsigned state;
	char letter;
	const char *colour;
	const char *name;
} looks[] = {
    {FRAME_FREE, '.', "90", "free"},
    {FRAME_PCP, 'c', "96", "per-CPU lists"},
    {FRAME_ALLOCATED, 'a', "33", "allocated"},
    {FRAME_RESERVED, 'r', "31", "reserved"},
    {FRAME_HOLE, ' ', "0", "no RAM"},
    {FRAME_METADATA, 'm', "35", "mem_map and the engine's own"},
    {FRAME_PAGE_TABLE, 't', "95", "page tables"},
    {FRAME_SLAB, 's', "94", "objects"},
    {FRAME_ANONYMOUS, 'u', "32", "user (anonymous)"},
    {FRAME_PAGE_CACHE, 'f', "36", "page cache"},
    {FRAME_VMALLOC, 'v', "34", "vmalloc"},
    {FRAME_BOUNCE, 'b', "93", "bounce buffers"},
    {FRAME_HOST, 'h', "91", "the guest's own"},
};
static const struct look unknown_look = {MAX_STATES - 1, '?', "0", "?"};

static const struct look *look_of(unsigned state)
{
	unsigned i;

	for (i = 0; i < sizeof looks / sizeof *looks; i++)
		if (looks[i].state == state)
			return &looks[i];
	return &unknown_look;
}

const char *frame_state_name(unsigned state)
{
	return look_of(state)->name;
}

const char *map_zone_name(uint32_t zone)
{
	const char *name = enum_name(contract_enum_by_name("Zone"), zone);

	return name ? name + strlen("ZONE_") : "?";
}

/* ---- physical memory ---- */

/* Frames of a zone's cell by state. */
struct cell {
	uint64_t frames[MAX_STATES];
	uint64_t total;
};

static unsigned slot_of(uint32_t state)
{
	return state < MAX_STATES ? state : MAX_STATES - 1;
}

static bool is_used(unsigned state)
{
	return state != FRAME_FREE && state != FRAME_HOLE;
}

/* Adds every run's share to the zone's cells. */
static struct cell *zone_cells(const struct picture *p, const Zoned__V1__ZoneRow *zone,
			       size_t *ret_nr)
{
	uint64_t end = (uint64_t)zone->start + zone->spanned, at;
	size_t nr = (size_t)((zone->spanned + p->cell - 1) / p->cell), i;
	struct cell *cells = must(calloc(nr + 1, sizeof *cells));

	for (i = 0; i < p->nr_runs; i++) {
		uint64_t first = p->runs[i].first, last = first + p->runs[i].count;

		first = first > zone->start ? first : zone->start;
		last = last < end ? last : end;
		for (at = first; at < last;) {
			size_t c = (size_t)((at - zone->start) / p->cell);
			uint64_t stop = zone->start + (c + 1) * p->cell;

			stop = stop < last ? stop : last;
			cells[c].frames[slot_of((uint32_t)p->runs[i].state)] += stop - at;
			cells[c].total += stop - at;
			at = stop;
		}
	}
	*ret_nr = nr;
	return cells;
}

static void draw_cell(const struct picture *p, const struct cell *c)
{
	static const char *const shades[] = {"░", "▒", "▓", "█"};
	uint64_t used = 0, most = 0;
	unsigned s, state = c->frames[FRAME_FREE] ? FRAME_FREE : FRAME_HOLE;
	const struct look *look;

	for (s = 0; s < MAX_STATES; s++)
		if (is_used(s)) {
			used += c->frames[s];
			if (c->frames[s] > most) {
				most = c->frames[s];
				state = s;
			}
		}
	look = look_of(state);
	if (!p->colour) {
		/* A capital is a cell that is at least half used. */
		putchar(used * 2 >= c->total && look->letter >= 'a' ? look->letter - 'a' + 'A'
								    : look->letter);
		return;
	}
	if (!used)
		printf("\033[%sm%s", look->colour, state == FRAME_FREE ? "·" : " ");
	else
		printf("\033[%sm%s", look->colour, shades[used * 4 / (c->total + 1)]);
}

static void draw_cells(const struct picture *p, const Zoned__V1__ZoneRow *zone)
{
	size_t nr, i;
	struct cell *cells = zone_cells(p, zone, &nr);

	for (i = 0; i < nr; i++) {
		if (i % p->columns == 0)
			printf("  0x%06llx ", (unsigned long long)zone->start + i * p->cell);
		draw_cell(p, &cells[i]);
		if (i % p->columns == p->columns - 1 || i == nr - 1)
			printf("%s\n", p->colour ? "\033[0m" : "");
	}
	free(cells);
}

const char *frames_text(uint64_t frames, char *to, size_t size)
{
	return human_size(frames * FRAME_BYTES, to, size);
}

/* Free blocks by order, as in /proc/buddyinfo. */
static void draw_orders(const struct picture *p, uint32_t zone)
{
	const Zoned__V1__BuddyinfoReport *b = p->buddy->buddyinfo;
	uint32_t free_blocks[NR_ORDERS] = {0};
	unsigned o;
	size_t i;

	for (i = 0; b && i < b->n_blocks; i++)
		if ((uint32_t)b->blocks[i]->zone == zone && b->blocks[i]->order < NR_ORDERS)
			free_blocks[b->blocks[i]->order] = b->blocks[i]->free;
	printf("  free blocks by order:");
	for (o = 0; o < NR_ORDERS; o++)
		printf(" %u", free_blocks[o]);
	putchar('\n');
}

static void draw_zones(const struct picture *p)
{
	const Zoned__V1__ZoneinfoReport *z = p->zones->zoneinfo;
	char a[16], b[16], c[16];
	size_t i;

	printf("physical memory, a cell is %llu frame%s (%s)\n", (unsigned long long)p->cell,
	       p->cell == 1 ? "" : "s", frames_text(p->cell, a, sizeof a));
	for (i = 0; z && i < z->n_zones; i++) {
		const Zoned__V1__ZoneRow *zone = z->zones[i];

		if (!zone->spanned)
			continue;
		printf("\n%s%s%s  %s managed, %s free (%u pages; min %u low %u high %u), %s on "
		       "per-CPU lists\n",
		       p->colour ? "\033[1m" : "", map_zone_name((uint32_t)zone->zone),
		       p->colour ? "\033[0m" : "", frames_text(zone->managed, a, sizeof a),
		       frames_text(zone->free, b, sizeof b), zone->free, zone->min, zone->low,
		       zone->high, frames_text(zone->pcp, c, sizeof c));
		draw_cells(p, zone);
		draw_orders(p, (uint32_t)zone->zone);
	}
}

/* The legend, and what each state holds. */
static void draw_states(const struct picture *p)
{
	uint64_t totals[MAX_STATES] = {0};
	char text[16];
	unsigned s;
	size_t i;

	for (i = 0; i < p->nr_runs; i++)
		totals[slot_of((uint32_t)p->runs[i].state)] += p->runs[i].count;
	printf("\nby state%s:\n", p->about ? " (about)" : "");
	for (s = 0; s < MAX_STATES; s++) {
		const struct look *look = look_of(s);

		if (!totals[s] || s == FRAME_HOLE)
			continue;
		if (p->colour)
			printf("  \033[%sm%s\033[0m", look->colour, s == FRAME_FREE ? "·" : "█");
		else
			printf("  %c", look->letter);
		printf(" %8s  %9llu pages  %s\n", frames_text(totals[s], text, sizeof text),
		       (unsigned long long)totals[s], look->name);
	}
}

/* ---- owners ---- */

static int by_pages(const void *a, const void *b)
{
	const struct owner *x = a, *y = b;

	return x->pages < y->pages ? 1 : x->pages > y->pages ? -1 : 0;
}

void owners_sort(struct owner *owners, size_t nr)
{
	if (nr)
		qsort(owners, nr, sizeof *owners, by_pages);
}

/* Labels are in the history, not in the machine. Without an answer the number stands. */
void owner_label(struct picture *p, uint32_t number, char *to, size_t size)
{
	Zoned__V1__QueryRequest request = ZONED__V1__QUERY_REQUEST__INIT;
	Zoned__V1__Value machine = ZONED__V1__VALUE__INIT, owner = ZONED__V1__VALUE__INIT;
	Zoned__V1__Value *parameters[] = {&machine, &owner};
	ProtobufCMessage *page;
	struct zoned_stream *s;

	snprintf(to, size, "owner %u", number);
	request.sql =
	    (char *)(uintptr_t) "select label from owners where number = ?2 and machine = "
				"(select max(id) from machines where name = ?1)";
	machine.value_case = ZONED__V1__VALUE__VALUE_TEXT;
	machine.text = (char *)(uintptr_t)p->ctl->machine;
	owner.value_case = ZONED__V1__VALUE__VALUE_INTEGER;
	owner.integer = number;
	request.parameters = parameters;
	request.n_parameters = 2;
	if (zoned_stream_open(p->ctl->z, "/zoned.v1.History/Query",
			      &zoned__v1__query_response__descriptor, p->ctl->timeout_ms, &s))
		return;
	zoned_stream_send(s, &request.base);
	zoned_stream_end(s);
	while (zoned_stream_receive(s, ZONED_NO_TIMEOUT, &page) == 0) {
		const Zoned__V1__QueryResponse *r = (const Zoned__V1__QueryResponse *)page;

		if (r->n_rows && r->rows[0]->n_values &&
		    r->rows[0]->values[0]->value_case == ZONED__V1__VALUE__VALUE_TEXT)
			snprintf(to, size, "%s", r->rows[0]->values[0]->text);
		message_free(page);
	}
	zoned_stream_close(s);
}

struct owner *owner_find(struct owner **owners, size_t *nr, uint32_t number)
{
	size_t i;

	for (i = 0; i < *nr && (*owners)[i].number != number; i++)
		;
	if (i == *nr) {
		*owners = must(realloc(*owners, (*nr + 1) * sizeof **owners));
		(*owners)[(*nr)++] = (struct owner){.number = number};
	}
	return &(*owners)[i];
}

/* Whose what is, the greatest first. */
static struct owner *owners_of(const struct picture *p, size_t *nr)
{
	struct owner *owners = NULL;
	size_t i;

	*nr = 0;
	for (i = 0; i < p->nr_runs; i++)
		if (p->runs[i].owner)
			owner_find(&owners, nr, p->runs[i].owner)->pages += p->runs[i].count;
	owners_sort(owners, *nr);
	return owners;
}

static void draw_owners(struct picture *p)
{
	size_t nr, i;
	struct owner *owners = owners_of(p, &nr);
	char label[80], text[16];

	if (nr)
		printf("\nby owner%s:\n", p->about ? " (about)" : "");
	for (i = 0; i < nr && i < MAX_OWNERS; i++) {
		owner_label(p, owners[i].number, label, sizeof label);
		printf("    %8s  %9llu pages  %s\n",
		       frames_text(owners[i].pages, text, sizeof text),
		       (unsigned long long)owners[i].pages, label);
	}
	if (nr > MAX_OWNERS)
		printf("    and %zu more\n", nr - MAX_OWNERS);
	free(owners);
}

/* ---- the address space ---- */

uint64_t part_end(const Zoned__V1__LayoutRow *part)
{
	return part->end ? part->end : 1ull << 32;
}

/* Highest first; of two that begin alike, the one that holds the other first. */
static int by_address(const void *a, const void *b)
{
	const Zoned__V1__LayoutRow *x = *(Zoned__V1__LayoutRow *const *)a;
	const Zoned__V1__LayoutRow *y = *(Zoned__V1__LayoutRow *const *)b;

	if (part_end(x) != part_end(y))
		return part_end(x) < part_end(y) ? 1 : -1;
	return x->start > y->start ? 1 : x->start < y->start ? -1 : 0;
}

void sort_parts(const Zoned__V1__LayoutReport *layout)
{
	if (layout->n_parts)
		qsort(layout->parts, layout->n_parts, sizeof *layout->parts, by_address);
}

const char *layout_part_name(unsigned part, char *to, size_t size)
{
	const char *name = enum_name(contract_enum_by_name("LayoutPart"), part);
	char *c;

	snprintf(to, size, "%s", name ? name + strlen("LAYOUT_") : "?");
	for (c = to; *c; c++)
		*c = *c == '_' ? ' ' : (char)tolower((unsigned char)*c);
	return to;
}

/* What is in use of a window, for its line. */
void part_usage(const struct picture *p, const Zoned__V1__LayoutRow *part, char *to, size_t size)
{
	const Zoned__V1__VmallocinfoReport *v = p->areas->vmallocinfo;
	const Zoned__V1__KmapWindowReport *k = p->kmap->kmap_window;
	uint64_t used = 0;
	char text[16];
	size_t i;

	*to = '\0';
	if (part->part == ZONED__V1__LAYOUT_PART__LAYOUT_VMALLOC && v) {
		for (i = 0; i < v->n_areas; i++)
			used += v->areas[i]->end - v->areas[i]->start;
		snprintf(to, size, "%zu areas, %s taken", v->n_areas,
			 human_size(used, text, sizeof text));
	}
	if (part->part == ZONED__V1__LAYOUT_PART__LAYOUT_PKMAP && k && k->n_summary)
		snprintf(to, size, "%u of %u slots used, %u stale, %zu sleepers",
			 k->summary[0]->used, k->summary[0]->slots, k->summary[0]->stale,
			 k->n_sleepers);
	if (part->part == ZONED__V1__LAYOUT_PART__LAYOUT_KMAP_LOCAL && k)
		snprintf(to, size, "%zu slots used", k->n_locals);
}

/* The longer the bar, the larger the part: one step for each doubling from a page on. */
static void draw_bar(const struct picture *p, uint64_t size)
{
	enum { WIDTH = 20 };
	unsigned steps = 0, i;

	for (size /= FRAME_BYTES; size; size /= 2)
		steps++;
	for (i = 0; i < WIDTH; i++)
		fputs(i < steps ? (p->ascii ? "#" : "▇") : " ", stdout);
}

static void draw_layout(const struct picture *p)
{
	const Zoned__V1__LayoutReport *l = p->layout->layout;
	uint64_t outer_start = 1ull << 32;
	size_t i;

	if (!l || !l->n_parts)
		return;
	sort_parts(l);
	printf("\naddress space\n");
	for (i = 0; i < l->n_parts; i++) {
		const Zoned__V1__LayoutRow *part = l->parts[i];
		bool inside = part_end(part) > outer_start;
		char size[16], usage[96], label[32] = "  ";

		layout_part_name(part->part, label + 2, sizeof label - 2);
		part_usage(p, part, usage, sizeof usage);
		printf("  0x%08x-0x%08llx %7s ", part->start,
		       (unsigned long long)part_end(part) - 1,
		       human_size(part_end(part) - part->start, size, sizeof size));
		draw_bar(p, part_end(part) - part->start);
		printf(" %-16s %s\n", inside ? label : label + 2, usage);
		if (!inside)
			outer_start = part->start;
	}
}

/* ---- the drawing ---- */

static const char *const colourings[] = {"state", "zone", "order", "migratetype", "owner"};
enum { BY_STATE, BY_ZONE, BY_ORDER, BY_MIGRATETYPE, BY_OWNER, NR_COLOURINGS };

struct colouring {
	unsigned by;
	struct owner *owners; /* greatest first */
	size_t nr_owners;
	char names[SVG_CATEGORIES][80];
};

static int category_of(void *arg, const Zoned__V1__FrameRunRow *run)
{
	const struct colouring *c = arg;
	unsigned value, i;

	if ((unsigned)run->state == FRAME_HOLE)
		return -1;
	switch (c->by) {
	case BY_STATE: value = (unsigned)run->state; break;
	case BY_ZONE: value = (unsigned)run->zone + 1; break;
	case BY_ORDER: value = run->order; break;
	case BY_MIGRATETYPE: value = (unsigned)run->migratetype + 1; break;
	default:
		if (!run->owner)
			return 0;
		for (i = 0; i < c->nr_owners && c->owners[i].number != run->owner; i++)
			;
		value = i + 1;
	}
	return value < SVG_CATEGORIES ? (int)value : SVG_CATEGORIES - 1;
}

static void name_category(struct picture *p, struct colouring *c, unsigned i)
{
	char *to = c->names[i];
	size_t size = sizeof c->names[i];
	const char *name = NULL;

	if (c->by == BY_STATE)
		name = look_of(i)->name;
	else if (c->by == BY_ZONE)
		name = i ? map_zone_name(i - 1) : "?";
	else if (c->by == BY_MIGRATETYPE)
		name = i ? enum_name(contract_enum_by_name("Migratetype"), i - 1) : "?";
	if (c->by == BY_ORDER)
		snprintf(to, size, "order %u", i);
	else if (c->by != BY_OWNER)
		snprintf(to, size, "%s", name ? name : "?");
	else if (i == 0)
		snprintf(to, size, "nobody's");
	else if (i == SVG_CATEGORIES - 1)
		snprintf(to, size, "others");
	else if (i <= c->nr_owners)
		owner_label(p, c->owners[i - 1].number, to, size);
}

FILE *drawing_open(const char *path)
{
	FILE *to = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");

	if (!to)
		complain("map: cannot write %s: %m", path);
	return to;
}

int drawing_close(FILE *to, const char *path)
{
	bool bad = fflush(to) || ferror(to);

	if (to != stdout)
		bad = fclose(to) || bad;
	if (bad)
		complain("map: cannot write %s: %m", path);
	return bad ? EXIT_FILE : EXIT_DONE;
}

static int write_svg(struct picture *p, const char *path, bool hilbert, unsigned by)
{
	struct colouring c = {.by = by};
	struct svg_map m = {.title = p->ctl->machine,
			    .hilbert = hilbert,
			    .sequential = by == BY_ORDER,
			    .runs = p->runs,
			    .nr_runs = p->nr_runs,
			    .category = category_of,
			    .arg = &c};
	char subtitle[96];
	FILE *to = drawing_open(path);
	size_t i;

	if (!to)
		return EXIT_FILE;
	c.owners = owners_of(p, &c.nr_owners);
	for (i = 0; i < SVG_CATEGORIES; i++) {
		name_category(p, &c, (unsigned)i);
		m.names[i] = c.names[i];
	}
	snprintf(subtitle, sizeof subtitle, "physical memory by %s after op %llu", colourings[by],
		 (unsigned long long)p->zones->op);
	m.subtitle = subtitle;
	svg_map_write(&m, to);
	free(c.owners);
	return drawing_close(to, path);
}

static int write_space(struct picture *p, const char *path)
{
	FILE *to = drawing_open(path);

	if (!to)
		return EXIT_FILE;
	space_write(p, to);
	return drawing_close(to, path);
}

/* ---- the command ---- */

static void draw(struct picture *p)
{
	printf("%s after op %llu\n", p->ctl->machine, (unsigned long long)p->zones->op);
	draw_zones(p);
	draw_states(p);
	draw_owners(p);
	draw_layout(p);
}

/* What the picture is made from. */
static void draw_json(const struct picture *p)
{
	json_t *runs = json_array();
	json_t *map = json_pack("{ss sI sb}", "machine", p->ctl->machine, "op",
				(json_int_t)p->zones->op, "about", p->about);
	size_t i;

	for (i = 0; i < p->nr_runs; i++)
		json_array_append_new(runs, message_to_json(&p->runs[i].base, NULL));
	json_object_set_new(map, "runs", runs);
	if (p->zones->zoneinfo)
		json_object_update_new(map, message_to_json(&p->zones->zoneinfo->base, NULL));
	if (p->layout->layout)
		json_object_update_new(map, message_to_json(&p->layout->layout->base, NULL));
	json_print(map, stdout);
	json_decref(map);
}

/* What is asked for on the command line. */
struct wish {
	const char *svg, *diff;
	bool hilbert, space;
	unsigned by;
	uint64_t from, to;
};

static int read_wish(struct wish *w, struct picture *p, const struct args *a)
{
	const char *layout = args_text(a, "layout"), *colouring = args_text(a, "color");
	const char *rows = args_text(a, "rows");

	w->svg = args_text(a, "svg");
	w->diff = args_text(a, "diff");
	w->space = args_has(a, "space");
	w->hilbert = layout && strcmp(layout, "hilbert") == 0;
	if (rows && (!number_parse(rows, false, &p->rows) || !p->rows || p->rows > 4096))
		return usage_error("map: --rows %s is not a number from 1 to 4096", rows);
	if (layout && !w->hilbert && strcmp(layout, "rows") != 0)
		return usage_error("map: --layout %s is neither rows nor hilbert", layout);
	while (colouring && w->by < NR_COLOURINGS && strcmp(colouring, colourings[w->by]) != 0)
		w->by++;
	if (w->by == NR_COLOURINGS)
		return usage_error(
		    "map: --color %s is none of state, zone, order, migratetype, owner", colouring);
	if ((layout || colouring || w->space) && !w->svg)
		return usage_error("map: --layout, --color and --space are for --svg FILE");
	if (w->space && (layout || colouring || w->diff))
		return usage_error("map: --space has no --layout, --color and --diff");
	if (w->diff && (colouring || args_has(a, "at")))
		return usage_error("map: --diff has no --color and no --at");
	if (w->diff && !diff_parse(w->diff, &w->from, &w->to))
		return usage_error("map: --diff %s is neither OP nor OP..OP with the later op last",
				   w->diff);
	return args_limit_words(a, "map", 0);
}

static int show(struct picture *p, const struct wish *w)
{
	int rc;

	if (w->svg) {
		p->columns = SVG_SIDE;
		p->rows = SVG_SIDE;
	}
	p->blocks = w->by == BY_ORDER || w->by == BY_MIGRATETYPE;
	rc = picture_load(p, false);
	if (rc == EXIT_DONE && w->space)
		rc = picture_load_tasks(p);
	if (rc != EXIT_DONE)
		return rc;
	if (w->space)
		return write_space(p, w->svg);
	if (w->svg)
		return write_svg(p, w->svg, w->hilbert, w->by);
	if (p->ctl->json)
		draw_json(p);
	else
		draw(p);
	return EXIT_DONE;
}

static int show_diff(const struct picture *like, const struct wish *w)
{
	struct ctl ctls[2] = {*like->ctl, *like->ctl};
	struct picture p[2] = {*like, *like};
	unsigned i;
	int rc = EXIT_DONE;

	for (i = 0; i < 2 && rc == EXIT_DONE; i++) {
		p[i].ctl = &ctls[i];
		p[i].of_one_op = true;
		ctls[i].z = like->ctl->z; /* it connects with the first question */
		ctls[i].at = i ? w->to : w->from;
		ctls[i].has_at = ctls[i].at != UINT64_MAX;
		rc = picture_load(&p[i], true);
		like->ctl->z = ctls[i].z;
	}
	if (rc == EXIT_DONE)
		rc = diff_show(&p[0], &p[1], w->svg, w->hilbert);
	picture_free(&p[0]);
	picture_free(&p[1]);
	return rc;
}

static void usage(void)
{
	printf("zonectl map - draw a machine's memory and address space\n\n"
	       "usage: zonectl map -m MACHINE [flags]\n\n"
	       "Width: the terminal's, or $COLUMNS. Colours: on a terminal, unless $NO_COLOR\n"
	       "is set; without them every state is a letter, a capital where a cell is at\n"
	       "least half used. --svg draws physical memory into a file instead, for a page "
	       "or a\nmail, and with --space the address space; rsvg-convert makes a PNG of "
	       "it.\n\n"
	       "--diff compares two moments, frame by frame: a frame that was given back and "
	       "taken\nagain by the same owner between them has not changed.\n\n");
	print_flags("flags:", map_flags, NR_MAP_FLAGS);
	print_flags("\nfor every command:", global_flags, nr_global_flags);
}

int map_command(struct ctl *ctl, int argc, char **argv)
{
	struct picture p = {.ctl = ctl, .rows = DRAWN_ROWS};
	struct wish w = {.to = UINT64_MAX};
	struct args a;
	int rc = args_parse(ctl, "map", argc, argv, map_flags, NR_MAP_FLAGS, &a);

	if (rc != EXIT_DONE)
		return rc;
	if (ctl->help) {
		usage();
		args_free(&a);
		return EXIT_DONE;
	}
	p.ascii = args_has(&a, "ascii") || !terminal_is_utf8();
	p.colour = !p.ascii && want_colour(stdout);
	p.columns = terminal_width() > 40 ? terminal_width() - 12 : 28;
	rc = read_wish(&w, &p, &a);
	if (rc == EXIT_DONE)
		rc = args_read_at(ctl, &a, "map");
	args_free(&a);
	if (rc == EXIT_DONE)
		rc = ctl_need_machine(ctl, "map");
	if (rc == EXIT_DONE)
		rc = w.diff ? show_diff(&p, &w) : show(&p, &w);
	picture_free(&p);
	return rc;
}
