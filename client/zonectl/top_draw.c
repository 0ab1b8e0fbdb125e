/*
 * top_draw.c - what `zonectl top` knows as lines of text, and as JSON.
 *
 * A picture is made of sections. If they do not all fit the height, those that can best be
 * missed are left out whole; what the record gets is what the others leave. Bytes below ' '
 * in a line say what the text looks like from there on (enum top_look).
 *
 * The scale of a zone's bar is logarithmic: the marks are a small part of a zone, and near
 * them is where it matters.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "top.h"

enum { NR_ORDERS = 11, PAGE_BYTES = 4096, LEAST_RECORD = 4, WIDE_BAR = 60, NARROW = 60 };

#define PLAIN  "\001"
#define TITLE  "\002"
#define HEAD   "\003"
#define DIM    "\004"
#define GOOD   "\005"
#define WARN   "\006"
#define BAD    "\007"
#define CHOSEN "\010"
static_assert(LOOK_PLAIN == 1 && LOOK_CHOSEN == 8, "the strings above are the looks");

const char *const top_sorts[NR_SORTS] = {"rate", "total", "name"};

const struct top_key top_keys[] = {
    {"q, Ctrl-C", "quit"},
    {"left, right", "another machine"},
    {"up, down", "another zone, for its migratetypes"},
    {"space", "pause; what is shown stays"},
    {"+, -", "a longer, a shorter interval"},
    {"s", "sort events by rate, total, name"},
    {"r", "look now"},
    {"h, ?", "this help"},
    {NULL, NULL},
};

struct drawing {
	const struct top_watch *w;
	const struct top_view *v;
	FILE *to;
	unsigned room; /* lines for the record; UINT_MAX: any number */
};

/* ---- pieces ---- */

static const char *zone_name(uint32_t zone)
{
	const char *name = enum_name(contract_enum_by_name("Zone"), zone);

	return name ? name + strlen("ZONE_") : "?";
}

static const char *pages(uint64_t n, char *to, size_t size)
{
	return human_size(n * PAGE_BYTES, to, size);
}

/* At most five columns. */
static const char *count(double n, char *to, size_t size)
{
	static const char units[] = " kMGT";
	unsigned u = 0;

	while (n >= (u ? 1000 : 100000) && u < 4) {
		n /= 1000;
		u++;
	}
	if (u)
		snprintf(to, size, n < 100 ? "%.1f%c" : "%.0f%c", n, units[u]);
	else
		snprintf(to, size, n < 10 && n != floor(n) ? "%.1f" : "%.0f", n);
	return to;
}

static const char *filled(const struct drawing *d)
{
	return d->v->ascii ? "#" : "█";
}

static const char *unfilled(const struct drawing *d)
{
	return d->v->ascii ? "." : "·";
}

/* What is used of a whole, and what is neither used nor free. */
static void bar(const struct drawing *d, unsigned width, uint64_t used, uint64_t also,
		uint64_t whole)
{
	unsigned i, a, b;

	whole = whole ? whole : 1;
	a = (unsigned)((double)used / (double)whole * width + 0.5);
	b = (unsigned)((double)(used + also) / (double)whole * width + 0.5);
	/* What there is can be seen. */
	a = used && !a ? 1 : a > width ? width : a;
	b = also && b <= a ? a + 1 : b;
	b = b > width ? width : b;
	fprintf(d->to, "[%s",
		used >= whole - whole / 20  ? BAD
		: used >= whole - whole / 4 ? WARN
					    : GOOD);
	for (i = 0; i < a; i++)
		fputs(filled(d), d->to);
	fputs(PLAIN, d->to);
	for (; i < b; i++)
		fputs(d->v->ascii ? "+" : "▒", d->to);
	fputs(DIM, d->to);
	for (; i < width; i++)
		fputs(unfilled(d), d->to);
	fputs(PLAIN "]", d->to);
}

static unsigned bar_width(const struct drawing *d, unsigned taken)
{
	unsigned left = d->v->width > taken ? d->v->width - taken : 0;

	return left > WIDE_BAR ? WIDE_BAR : left;
}

/* ---- sections ---- */

static void draw_title(struct drawing *d)
{
	const struct top_watch *w = d->w;
	const Zoned__V1__Machine *m = w->machine;
	const char *preset, *state;
	char a[16], b[16], clock[16];
	time_t now = time(NULL);
	struct tm tm;

	strftime(clock, sizeof clock, "%H:%M:%S", localtime_r(&now, &tm));
	fprintf(d->to, TITLE "%s" PLAIN " %s", w->name ? w->name : "no machine", clock);
	if (!m) {
		fputs("\n", d->to);
		return;
	}
	preset = enum_name(contract_enum_by_name("Preset"), (uint32_t)m->config->preset);
	state = enum_name(contract_enum_by_name("MachineState"), (uint32_t)m->state);
	fprintf(d->to, "  %s%s" PLAIN "  %s %s%s, %u CPU%s  op " TITLE "%llu" PLAIN,
		m->state == ZONED__V1__MACHINE_STATE__MACHINE_RUNNING ? GOOD : WARN,
		state ? state + strlen("MACHINE_") : "?", preset ? preset : "?",
		human_size(m->config->ram, a, sizeof a), m->config->pae ? " PAE" : "",
		m->config->cpus ? m->config->cpus : 1, m->config->cpus > 1 ? "s" : "",
		(unsigned long long)m->ops);
	fprintf(d->to, "  asleep %u  host %s", m->parked,
		human_size(m->resident_bytes, b, sizeof b));
	if (w->list->n_machines > 1)
		fprintf(d->to, "  one of %zu machines", w->list->n_machines);
	fputs("\n", d->to);
}

static void draw_note(struct drawing *d)
{
	const struct top_watch *w = d->w;

	if (*d->v->note)
		fprintf(d->to, BAD "%s" PLAIN "\n", d->v->note);
	if (w->machine && *w->machine->reason)
		fprintf(d->to, BAD "lost: %s" PLAIN "\n", w->machine->reason);
	if (w->machine && w->machine->state == ZONED__V1__MACHINE_STATE__MACHINE_RECOVERING)
		fprintf(d->to, WARN "being replayed: op %llu" PLAIN "\n",
			(unsigned long long)w->machine->replayed);
	if (w->machine && w->machine->state == ZONED__V1__MACHINE_STATE__MACHINE_EARLY)
		fputs(WARN "memblock alone: there is nothing to see before its boot" PLAIN "\n",
		      d->to);
}

static void draw_rate(struct drawing *d)
{
	static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	static const char *const letters[] = {"_", ".", ":", "-", "=", "+", "*", "#"};
	const struct top_watch *w = d->w;
	unsigned i, nr = w->nr_past, room = bar_width(d, 34);
	double most = 0;
	char a[16], b[16];

	if (!w->machine)
		return;
	fprintf(d->to, HEAD "ops/s %7s" PLAIN,
		w->has_rates ? count(w->ops_rate, a, sizeof a) : "-");
	nr = nr > room ? room : nr;
	for (i = w->nr_past - nr; i < w->nr_past; i++)
		most = w->past[i] > most ? w->past[i] : most;
	if (most > 0 && d->v->live) {
		fputs("  " GOOD, d->to);
		for (i = w->nr_past - nr; i < w->nr_past; i++)
			fputs(w->past[i] > 0
				  ? (d->v->ascii ? letters : blocks)[(int)(w->past[i] / most * 7)]
				  : " ",
			      d->to);
		fprintf(d->to, PLAIN "  most %s", count(most, b, sizeof b));
	}
	fputs("\n", d->to);
}

static unsigned log_place(uint64_t n, uint64_t whole, unsigned width)
{
	double share = whole ? log1p((double)n) / log1p((double)whole) : 0;

	return (unsigned)(share * width + 0.5);
}

/* Free pages with the marks as letters on them; the graver mark hides the other. */
static void zone_bar(const struct drawing *d, const Zoned__V1__ZoneRow *z, const char *look,
		     unsigned width)
{
	const struct {
		char letter;
		uint32_t at;
		const char *look;
	} marks[] = {{'m', z->min, BAD}, {'l', z->low, WARN}, {'h', z->high, GOOD}};
	unsigned end = log_place(z->free, z->managed, width), i, k;

	fprintf(d->to, "[%s", look);
	for (i = 0; i < width; i++) {
		for (k = 0; k < 3; k++)
			if (log_place(marks[k].at, z->managed, width - 1) == i && marks[k].at)
				break;
		if (i == end)
			fputs(DIM, d->to);
		if (k < 3)
			fprintf(d->to, "%s%c%s", marks[k].look, marks[k].letter,
				i < end ? look : DIM);
		else
			fputs(i < end ? filled(d) : unfilled(d), d->to);
	}
	fputs(PLAIN "]", d->to);
}

static void draw_zones(struct drawing *d)
{
	enum { TAKEN = 61, LEAST = 10 };
	const Zoned__V1__InspectResponse *r = d->w->answers[TOP_ZONES];
	unsigned width = bar_width(d, TAKEN);
	size_t i;

	if (!r || !r->zoneinfo)
		return;
	fprintf(d->to, HEAD "%-8s%7s%7s%7s%7s%7s%7s%7s%s" PLAIN "\n", "zone", "managed", "free",
		"on pcp", "min", "low", "high", "state",
		width >= LEAST ? "  against the marks" : "");
	for (i = 0; i < r->zoneinfo->n_zones; i++) {
		const Zoned__V1__ZoneRow *z = r->zoneinfo->zones[i];
		const char *state = "ok", *look = GOOD;
		char a[16], b[16], c[16], e[16], f[16], g[16];

		if (!z->spanned)
			continue;
		if (z->free < z->min) {
			state = "< min";
			look = BAD;
		} else if (z->free < z->high) {
			state = z->free < z->low ? "< low" : "< high";
			look = WARN;
		}
		fprintf(d->to, "%s%-8s" PLAIN "%7s%7s%7s%7s%7s%7s%s%7s" PLAIN,
			(uint32_t)z->zone == d->v->zone && d->v->live ? CHOSEN : TITLE,
			zone_name((uint32_t)z->zone), pages(z->managed, a, sizeof a),
			pages(z->free, b, sizeof b), pages(z->pcp, c, sizeof c),
			pages(z->min, e, sizeof e), pages(z->low, f, sizeof f),
			pages(z->high, g, sizeof g), look, state);
		if (width >= LEAST) {
			fputs("  ", d->to);
			zone_bar(d, z, look, width);
		}
		fputs("\n", d->to);
	}
}

/* A row of figures, one for each order. */
static void order_row(struct drawing *d, const char *name, const char *look, const uint32_t *free)
{
	char text[16];
	unsigned o;

	fprintf(d->to, "%s%-13s" PLAIN, look, name);
	for (o = 0; o < NR_ORDERS; o++)
		fprintf(d->to, "%s%6s" PLAIN, free[o] ? "" : DIM,
			count(free[o], text, sizeof text));
	fputs("\n", d->to);
}

static void draw_orders(struct drawing *d)
{
	const Zoned__V1__InspectResponse *r = d->w->answers[TOP_BLOCKS];
	uint32_t zone, free[NR_ORDERS];
	unsigned o;
	size_t i;

	if (!r || !r->buddyinfo)
		return;
	fprintf(d->to, HEAD "%-13s", "free blocks");
	for (o = 0; o < NR_ORDERS; o++)
		fprintf(d->to, "%6u", o);
	fputs(PLAIN "\n", d->to);
	for (zone = 0; zone < contract_enum_by_name("Zone")->nr_values; zone++) {
		bool there = false;

		memset(free, 0, sizeof free);
		for (i = 0; i < r->buddyinfo->n_blocks; i++) {
			const Zoned__V1__BuddyRow *b = r->buddyinfo->blocks[i];

			if ((uint32_t)b->zone != zone || b->order >= NR_ORDERS)
				continue;
			free[b->order] = b->free;
			there = true;
		}
		if (there)
			order_row(d, zone_name(zone), TITLE, free);
	}
}

/* Of the chosen zone alone. */
static void draw_types(struct drawing *d)
{
	const struct contract_enum *names = contract_enum_by_name("Migratetype");
	const Zoned__V1__InspectResponse *r = d->w->answers[TOP_TYPES];
	uint32_t type, free[NR_ORDERS];
	char label[32];
	size_t i, k;

	if (!r || !r->pagetypeinfo)
		return;
	fprintf(d->to, HEAD "of %s by migratetype" PLAIN "\n", zone_name(d->v->zone));
	for (type = 0; type < names->nr_values; type++) {
		bool any = false;

		memset(free, 0, sizeof free);
		for (i = 0; i < r->pagetypeinfo->n_free; i++) {
			const Zoned__V1__PagetypeRow *p = r->pagetypeinfo->free[i];

			if ((uint32_t)p->zone != d->v->zone || (uint32_t)p->migratetype != type ||
			    p->order >= NR_ORDERS)
				continue;
			free[p->order] = p->free;
			any = any || p->free;
		}
		snprintf(label, sizeof label, "%s", names->values[type].name + strlen("MIGRATE_"));
		for (k = 0; label[k]; k++)
			label[k] =
			    label[k] >= 'A' && label[k] <= 'Z' ? (char)(label[k] | 0x20) : label[k];
		if (any)
			order_row(d, label, PLAIN, free);
	}
}

/* Of the vmalloc window: what it is, and what is taken, in bytes. */
struct vmalloc_use {
	uint64_t whole, taken, lazy;
	size_t areas, lazies;
};

static struct vmalloc_use vmalloc_use(const struct top_watch *w)
{
	const Zoned__V1__InspectResponse *l = w->answers[TOP_LAYOUT], *a = w->answers[TOP_AREAS];
	struct vmalloc_use u = {0};
	size_t i;

	for (i = 0; l && l->layout && i < l->layout->n_parts; i++) {
		const Zoned__V1__LayoutRow *p = l->layout->parts[i];

		if (p->part == ZONED__V1__LAYOUT_PART__LAYOUT_VMALLOC)
			u.whole += (p->end ? p->end : 1ull << 32) - p->start;
	}
	for (i = 0; a && a->vmallocinfo && i < a->vmallocinfo->n_areas; i++) {
		const Zoned__V1__VmapAreaRow *area = a->vmallocinfo->areas[i];
		bool lazy = area->kind == ZONED__V1__VMAP_KIND__VMAP_LAZY;

		*(lazy ? &u.lazy : &u.taken) += area->end - area->start;
		++*(lazy ? &u.lazies : &u.areas);
	}
	return u;
}

static void draw_windows(struct drawing *d)
{
	const Zoned__V1__InspectResponse *r = d->w->answers[TOP_KMAP];
	const Zoned__V1__KmapWindowReport *k = r ? r->kmap_window : NULL;
	struct vmalloc_use u = vmalloc_use(d->w);
	unsigned width = d->v->width > NARROW + 20 ? 24 : 0;
	char a[16], b[16], c[16];

	if (!k && !u.whole)
		return;
	fputs(HEAD "windows" PLAIN "\n", d->to);
	if (k && k->n_summary) {
		const Zoned__V1__PkmapSummaryRow *s = k->summary[0];

		fputs(TITLE "pkmap    " PLAIN, d->to);
		if (width)
			bar(d, width, s->used, s->stale, s->slots);
		fprintf(d->to, " %u of %u slots used, %u stale, %zu asleep, %u flushes\n", s->used,
			s->slots, s->stale, k->n_sleepers, s->flushes);
	}
	if (u.whole) {
		fputs(TITLE "vmalloc  " PLAIN, d->to);
		if (width)
			bar(d, width, u.taken, u.lazy, u.whole);
		fprintf(d->to, " %zu areas, %s of %s; %zu lazy, %s\n", u.areas,
			human_size(u.taken, a, sizeof a), human_size(u.whole, b, sizeof b),
			u.lazies, human_size(u.lazy, c, sizeof c));
	}
	if (k && k->n_locals)
		fprintf(d->to, TITLE "kmap_local" PLAIN " %zu mappings\n", k->n_locals);
}

static void draw_pcps(struct drawing *d)
{
	enum { CELL = 12 };
	const Zoned__V1__InspectResponse *r = d->w->answers[TOP_ZONES];
	unsigned fit = d->v->width > 9 + CELL ? (d->v->width - 9) / CELL : 1, cpus = 0, cpu;
	uint32_t zone;
	size_t i;

	for (i = 0; r && r->zoneinfo && i < r->zoneinfo->n_pcps; i++)
		if (r->zoneinfo->pcps[i]->cpu >= cpus)
			cpus = r->zoneinfo->pcps[i]->cpu + 1;
	if (!cpus)
		return;
	/* The last column may stand for all that have none. */
	fit = cpus > fit ? fit - 1 : cpus;
	fprintf(d->to, HEAD "%-9s", "pcp/high");
	for (cpu = 0; cpu < fit; cpu++)
		fprintf(d->to, "%*s%-2u", CELL - 2, "CPU", cpu);
	if (fit < cpus)
		fprintf(d->to, "%*s%-3u", CELL - 3, "other ", cpus - fit);
	fputs(PLAIN "\n", d->to);
	for (zone = 0; zone < contract_enum_by_name("Zone")->nr_values; zone++) {
		uint64_t rest = 0;
		bool there = false;

		for (i = 0; i < r->zoneinfo->n_pcps; i++) {
			const Zoned__V1__PcpRow *p = r->zoneinfo->pcps[i];
			char cell[32];

			if ((uint32_t)p->zone != zone)
				continue;
			if (!there)
				fprintf(d->to, TITLE "%-9s" PLAIN, zone_name(zone));
			there = true;
			snprintf(cell, sizeof cell, "%u/%u", p->count, p->high);
			if (p->cpu < fit)
				fprintf(d->to, "%s%*s" PLAIN, p->count ? "" : DIM, CELL, cell);
			else
				rest += p->count;
		}
		if (there && fit < cpus)
			fprintf(d->to, "%*llu", CELL, (unsigned long long)rest);
		if (there)
			fputs("\n", d->to);
	}
}

/* ---- rates of events ---- */

/* qsort has no argument for it. */
static const struct top_watch *sorted;
static enum top_sort sorted_by;

static int by_choice(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

	if (sorted_by == SORT_RATE && sorted->rates[x] != sorted->rates[y])
		return sorted->rates[x] < sorted->rates[y] ? 1 : -1;
	if (sorted_by != SORT_NAME && sorted->totals[x] != sorted->totals[y])
		return sorted->totals[x] < sorted->totals[y] ? 1 : -1;
	return strcmp(contract_events[x].name, contract_events[y].name);
}

static void draw_counters(struct drawing *d)
{
	enum { CELL = 36, ROWS = 4 };
	unsigned kinds[EVENT_KIND_END], nr = 0, i, row, columns = d->v->width / CELL;
	unsigned rows;
	char a[16], b[16];

	for (i = 0; i < EVENT_KIND_END; i++)
		if (contract_events[i].kind && d->w->totals[i])
			kinds[nr++] = i;
	if (!nr)
		return;
	sorted = d->w;
	sorted_by = d->v->sort;
	qsort(kinds, nr, sizeof *kinds, by_choice);
	columns = columns ? columns : 1;
	rows = (nr + columns - 1) / columns;
	rows = d->v->height && rows > ROWS ? ROWS : rows;
	fprintf(d->to, HEAD "%-20s%7s%7s  %s%s" PLAIN "\n", "events by kind", "per s", "total",
		"by ", top_sorts[d->v->sort]);
	for (row = 0; row < rows; row++) {
		for (i = row; i < rows * columns && i < nr; i += rows)
			fprintf(d->to, "%-20s%s%7s" PLAIN "%7s  ", contract_events[kinds[i]].name,
				d->w->rates[kinds[i]] > 0 ? GOOD : DIM,
				d->w->counters_ns && d->w->has_rates
				    ? count(d->w->rates[kinds[i]], a, sizeof a)
				    : "-",
				count((double)d->w->totals[kinds[i]], b, sizeof b));
		fputs("\n", d->to);
	}
}

static void draw_record(struct drawing *d)
{
	const struct top_watch *w = d->w;
	unsigned nr, i;

	if (!w->nr_lines || d->room < 2)
		return;
	fputs(HEAD "last ops and notable events" PLAIN "\n", d->to);
	nr = w->nr_lines < d->room - 1 ? w->nr_lines : d->room - 1;
	for (i = w->nr_lines - nr; i < w->nr_lines; i++)
		fprintf(d->to, "%s%s%s" PLAIN "\n",
			w->lines[i].bad	       ? BAD
			: w->lines[i].is_event ? WARN
					       : PLAIN,
			w->lines[i].is_event ? "    " : "", w->lines[i].text);
}

static void draw_help(struct drawing *d)
{
	const struct top_key *k;

	fputs(HEAD "keys" PLAIN "\n", d->to);
	for (k = top_keys; k->keys; k++)
		fprintf(d->to, TITLE "  %-14s" PLAIN "%s\n", k->keys, k->help);
	fputs(
	    "\nZones: free against the marks on a logarithmic scale; m, l and h are min, low and\n"
	    "high. pkmap: used, then stale (unused and not yet flushed). vmalloc: taken, then\n"
	    "freed lazily. Events of every kind are counted; those of the record are the\n"
	    "notable ones of the last ops. `zonectl explain NAME` says more.\n",
	    d->to);
}

/* ---- the whole ---- */

/* From top to bottom. Those with the highest rank are left out first; 0: never. */
static const struct section {
	void (*draw)(struct drawing *d);
	unsigned rank;
} sections[] = {
    {draw_title, 0}, {draw_note, 0},	{draw_rate, 1}, {draw_zones, 0},    {draw_orders, 2},
    {draw_types, 6}, {draw_windows, 3}, {draw_pcps, 5}, {draw_counters, 4},
};
enum { NR_SECTIONS = sizeof sections / sizeof *sections, MOST_RANK = 6 };

static unsigned count_lines(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static char *draw_alone(struct drawing *d, void (*draw)(struct drawing *d))
{
	char *text;
	size_t size;

	d->to = must(open_memstream(&text, &size));
	draw(d);
	fclose(d->to);
	return text;
}

static void draw_footer(struct drawing *d)
{
	fprintf(d->to,
		CHOSEN "%s q quit  ? help  arrows machine, zone  space %s  s by %s  +- %g s " PLAIN
		       "\n",
		d->v->paused ? " PAUSED " : "", d->v->paused ? "go on" : "pause",
		top_sorts[d->v->sort], d->v->interval_ms / 1000.0);
}

/* The first lines of a text, as many as there is room for. */
static void put_lines(FILE *to, const char *text, unsigned *room)
{
	while (*text && *room) {
		size_t length = strcspn(text, "\n") + 1;

		fwrite(text, 1, length, to);
		text += length;
		if (*room != UINT_MAX)
			--*room;
	}
}

char *top_picture(const struct top_watch *w, const struct top_view *v)
{
	struct drawing d = {.w = w, .v = v};
	unsigned footer = v->live && v->height > 6, i, rank = MOST_RANK, used, room;
	unsigned height = v->height ? v->height - footer : UINT_MAX;
	char *texts[NR_SECTIONS], *last, *whole;
	size_t size;
	FILE *to;

	for (i = 0; i < NR_SECTIONS; i++)
		texts[i] = draw_alone(&d, v->help && i ? draw_help : sections[i].draw);
	for (;; rank--) {
		for (i = used = 0; i < (v->help ? 2 : NR_SECTIONS); i++)
			used += sections[i].rank <= rank ? count_lines(texts[i]) : 0;
		if (!rank || v->help || height == UINT_MAX ||
		    used + (w->nr_lines ? LEAST_RECORD : 0) <= height)
			break;
	}
	room = height;
	to = must(open_memstream(&whole, &size));
	for (i = 0; i < NR_SECTIONS; i++) {
		if (sections[i].rank <= rank && (!v->help || i < 2))
			put_lines(to, texts[i], &room);
		free(texts[i]);
	}
	d.room = room;
	last = draw_alone(&d, v->help ? draw_note : draw_record);
	put_lines(to, last, &room);
	free(last);
	if (footer) {
		last = draw_alone(&d, draw_footer);
		while (room--)
			fputc('\n', to);
		fputs(last, to);
		free(last);
	}
	fclose(to);
	return whole;
}

uint32_t top_zones(const struct top_watch *w)
{
	const Zoned__V1__InspectResponse *r = w->answers[TOP_ZONES];
	uint32_t zones = 0;
	size_t i;

	for (i = 0; r && r->zoneinfo && i < r->zoneinfo->n_zones; i++)
		if (r->zoneinfo->zones[i]->spanned)
			zones |= 1u << r->zoneinfo->zones[i]->zone;
	return zones;
}

/* ---- JSON ---- */

static json_t *counters_json(const struct top_watch *w)
{
	json_t *events = json_object();
	unsigned i;

	for (i = 0; i < EVENT_KIND_END; i++)
		if (contract_events[i].kind && w->totals[i])
			json_object_set_new(
			    events, contract_events[i].name,
			    json_pack("{sI so}", "total", (json_int_t)w->totals[i], "per_second",
				      w->has_rates ? json_real(w->rates[i]) : json_null()));
	return events;
}

static void add_report(json_t *o, const Zoned__V1__InspectResponse *r,
		       const ProtobufCMessage *report)
{
	if (r && report)
		json_object_update_new(o, message_to_json(report, NULL));
}

json_t *top_json(const struct top_watch *w)
{
	const Zoned__V1__InspectResponse *zones = w->answers[TOP_ZONES],
					 *kmap = w->answers[TOP_KMAP];
	struct vmalloc_use u = vmalloc_use(w);
	json_t *o = machine_to_json(w->machine), *lines = json_array();
	unsigned i;

	json_object_set_new(o, "ops_per_second",
			    w->has_rates ? json_real(w->ops_rate) : json_null());
	if (zones) {
		add_report(o, zones, &zones->zoneinfo->base);
		json_object_set_new(o, "op", json_integer((json_int_t)zones->op));
	}
	if (w->answers[TOP_BLOCKS])
		add_report(o, w->answers[TOP_BLOCKS], &w->answers[TOP_BLOCKS]->buddyinfo->base);
	if (w->answers[TOP_TYPES])
		add_report(o, w->answers[TOP_TYPES], &w->answers[TOP_TYPES]->pagetypeinfo->base);
	if (kmap && kmap->kmap_window && kmap->kmap_window->n_summary) {
		json_t *pkmap = message_to_json(&kmap->kmap_window->summary[0]->base, NULL);

		json_object_set_new(pkmap, "sleepers",
				    json_integer((json_int_t)kmap->kmap_window->n_sleepers));
		json_object_set_new(pkmap, "locals",
				    json_integer((json_int_t)kmap->kmap_window->n_locals));
		json_object_set_new(o, "pkmap", pkmap);
	}
	json_object_set_new(o, "vmalloc",
			    json_pack("{sI sI sI sI sI}", "size", (json_int_t)u.whole, "taken",
				      (json_int_t)u.taken, "areas", (json_int_t)u.areas, "lazy",
				      (json_int_t)u.lazy, "lazy_areas", (json_int_t)u.lazies));
	json_object_set_new(o, "events", counters_json(w));
	for (i = 0; i < w->nr_lines; i++)
		json_array_append_new(lines, json_string(w->lines[i].text));
	json_object_set_new(o, "last", lines);
	return o;
}
