/*
 * map_diff.c - what changed in a machine between two moments, frame by frame.
 *
 * The frame maps of both moments are walked side by side; where a run of either ends, a
 * piece ends. A frame is free on the buddy's lists or on a CPU's own; else it is in use.
 * What happened to it in between, and was undone, is not seen: that is in the history.
 */
#include <stdlib.h>
#include <string.h>

#include "map.h"
#include "map_svg.h"

enum change {
	STILL_FREE,
	STILL_USED,
	BETWEEN_LISTS,
	CHANGED_HANDS,
	GIVEN_BACK,
	TAKEN,
	NOTHING, /* no RAM */
	NR_CHANGES
};

/* How each looks. Categories of the drawing are places in its palette, which have the
 * right colours there. */
static const struct {
	char letter;
	const char *colour;
	int category;
	const char *json, *name;
} looks[NR_CHANGES] = {
    [STILL_FREE] = {'.', "90", 0, "still_free", "free, as before"},
    [STILL_USED] = {'=', "37", 3, "still_used", "in use, as before"},
    [BETWEEN_LISTS] = {'c', "96", 1, "between_lists", "free, to or from CPU lists"},
    [CHANGED_HANDS] = {'~', "94", 6, "changed_hands", "in use, other owner or use"},
    [GIVEN_BACK] = {'-', "92", 8, "given_back", "given back"},
    [TAKEN] = {'+', "93", 10, "taken", "taken"},
    [NOTHING] = {' ', "0", -1, "no_ram", "no RAM"},
};

struct piece {
	uint32_t first, count;
	enum change change;
	const Zoned__V1__FrameRunRow *before, *after;
};

struct diff {
	struct picture *before, *after;
	struct piece *pieces; /* in order of first */
	Zoned__V1__FrameRunRow *runs;
	size_t nr, size;
	uint64_t counts[NR_CHANGES];
	struct owner *owners; /* pages: taken */
	size_t nr_owners;
};

bool diff_parse(const char *text, uint64_t *ret_from, uint64_t *ret_to)
{
	const char *dots = strstr(text, "..");
	char first[24];

	*ret_to = UINT64_MAX;
	snprintf(first, sizeof first, "%.*s", dots ? (int)(dots - text) : (int)strlen(text), text);
	if (!number_parse(first, false, ret_from))
		return false;
	return !dots || (number_parse(dots + 2, false, ret_to) && *ret_to >= *ret_from);
}

/* ---- comparing ---- */

static bool is_free(const Zoned__V1__FrameRunRow *r)
{
	return r->state == ZONED__V1__FRAME_STATE__FRAME_FREE ||
	       r->state == ZONED__V1__FRAME_STATE__FRAME_PCP;
}

static enum change change_of(const Zoned__V1__FrameRunRow *a, const Zoned__V1__FrameRunRow *b)
{
	if (is_free(a) && is_free(b))
		return a->state == b->state ? STILL_FREE : BETWEEN_LISTS;
	if (is_free(a) || is_free(b))
		return is_free(a) ? TAKEN : GIVEN_BACK;
	if (a->state == ZONED__V1__FRAME_STATE__FRAME_HOLE && a->state == b->state)
		return NOTHING;
	return a->state == b->state && a->owner == b->owner ? STILL_USED : CHANGED_HANDS;
}

static bool same_kind(const Zoned__V1__FrameRunRow *a, const Zoned__V1__FrameRunRow *b)
{
	return a->zone == b->zone && a->state == b->state && a->owner == b->owner;
}

static void add_piece(struct diff *d, uint32_t first, uint32_t count,
		      const Zoned__V1__FrameRunRow *a, const Zoned__V1__FrameRunRow *b)
{
	struct piece *last = d->nr ? &d->pieces[d->nr - 1] : NULL;
	enum change change = change_of(a, b);

	d->counts[change] += count;
	/* A run may be in two where a message ended. */
	if (last && last->first + last->count == first && same_kind(last->before, a) &&
	    same_kind(last->after, b)) {
		last->count += count;
		return;
	}
	if (d->nr == d->size) {
		d->size = d->size ? 2 * d->size : 1024;
		d->pieces = must(realloc(d->pieces, d->size * sizeof *d->pieces));
	}
	d->pieces[d->nr++] = (struct piece){first, count, change, a, b};
}

static void compare(struct diff *d)
{
	const struct picture *p = d->before, *q = d->after;
	size_t i = 0, k = 0;

	while (i < p->nr_runs && k < q->nr_runs) {
		const Zoned__V1__FrameRunRow *a = &p->runs[i], *b = &q->runs[k];
		uint32_t first = a->first > b->first ? a->first : b->first;
		uint32_t end_a = a->first + a->count, end_b = b->first + b->count;
		uint32_t end = end_a < end_b ? end_a : end_b;

		if (end > first)
			add_piece(d, first, end - first, a, b);
		i += end_a == end;
		k += end_b == end;
	}
}

static void count_owners(struct diff *d)
{
	size_t i;

	for (i = 0; i < d->nr; i++) {
		const struct piece *c = &d->pieces[i];

		if (c->change != TAKEN && c->change != GIVEN_BACK && c->change != CHANGED_HANDS)
			continue;
		if (c->after->owner && c->change != GIVEN_BACK)
			owner_find(&d->owners, &d->nr_owners, c->after->owner)->pages += c->count;
		if (c->before->owner && c->change != TAKEN)
			owner_find(&d->owners, &d->nr_owners, c->before->owner)->given_back +=
			    c->count;
	}
	owners_sort(d->owners, d->nr_owners);
}

/* Frames from one state to another. */
typedef uint64_t transitions[MAX_STATES][MAX_STATES];

static void count_transitions(const struct diff *d, transitions t)
{
	size_t i;

	for (i = 0; i < d->nr; i++) {
		unsigned a = (unsigned)d->pieces[i].before->state,
			 b = (unsigned)d->pieces[i].after->state;

		if (a < MAX_STATES && b < MAX_STATES)
			t[a][b] += d->pieces[i].count;
	}
}

static void count_zone(const struct diff *d, const Zoned__V1__ZoneRow *z,
		       uint64_t counts[NR_CHANGES])
{
	size_t i;

	memset(counts, 0, NR_CHANGES * sizeof *counts);
	for (i = 0; i < d->nr; i++)
		if (d->pieces[i].after->zone == z->zone)
			counts[d->pieces[i].change] += d->pieces[i].count;
}

/* ---- the terminal ---- */

static const char *letter_of(const struct picture *p, enum change c)
{
	static char letter[2];

	if (p->colour && (c == STILL_FREE || c == STILL_USED))
		return c == STILL_FREE ? "·" : "░";
	letter[0] = looks[c].letter;
	return letter;
}

static void draw_cell(const struct picture *p, const uint64_t *counts)
{
	enum change c, most = NOTHING;
	bool changed = false;

	/* The least change outweighs what has not changed. */
	for (c = STILL_FREE; c < NOTHING; c++) {
		if (!counts[c])
			continue;
		if (most == NOTHING || (c >= BETWEEN_LISTS && !changed) || counts[c] > counts[most])
			most = c;
		changed = most >= BETWEEN_LISTS && most != NOTHING;
	}
	if (p->colour)
		printf("\033[%sm", looks[most].colour);
	fputs(letter_of(p, most), stdout);
}

static void draw_zone(const struct diff *d, const Zoned__V1__ZoneRow *z)
{
	const struct picture *p = d->after;
	size_t nr = (size_t)((z->spanned + p->cell - 1) / p->cell), i, c;
	uint64_t(*cells)[NR_CHANGES] = must(calloc(nr + 1, sizeof *cells));
	uint64_t end = (uint64_t)z->start + z->spanned;

	for (i = 0; i < d->nr; i++) {
		uint64_t at = d->pieces[i].first, last = at + d->pieces[i].count, stop;

		at = at > z->start ? at : z->start;
		last = last < end ? last : end;
		for (; at < last; at = stop) {
			c = (size_t)((at - z->start) / p->cell);
			stop = z->start + (c + 1) * p->cell;
			stop = stop < last ? stop : last;
			cells[c][d->pieces[i].change] += stop - at;
		}
	}
	for (i = 0; i < nr; i++) {
		if (i % p->columns == 0)
			printf("  0x%06llx ", (unsigned long long)z->start + i * p->cell);
		draw_cell(p, cells[i]);
		if (i % p->columns == p->columns - 1 || i == nr - 1)
			printf("%s\n", p->colour ? "\033[0m" : "");
	}
	free(cells);
}

/* The same zone at the other moment; NULL: it was not there. */
static const Zoned__V1__ZoneRow *zone_before(const struct diff *d, const Zoned__V1__ZoneRow *z)
{
	const Zoned__V1__ZoneinfoReport *r = d->before->zones->zoneinfo;
	size_t i;

	for (i = 0; r && i < r->n_zones; i++)
		if (r->zones[i]->zone == z->zone)
			return r->zones[i];
	return NULL;
}

static void draw_zones(const struct diff *d)
{
	const Zoned__V1__ZoneinfoReport *r = d->after->zones->zoneinfo;
	char a[16], b[16];
	size_t i;

	printf("physical memory, a cell is %llu frame%s (%s)\n", (unsigned long long)d->after->cell,
	       d->after->cell == 1 ? "" : "s", frames_text(d->after->cell, a, sizeof a));
	for (i = 0; r && i < r->n_zones; i++) {
		const Zoned__V1__ZoneRow *z = r->zones[i], *was = zone_before(d, z);
		uint64_t counts[NR_CHANGES];

		if (!z->spanned)
			continue;
		count_zone(d, z, counts);
		printf("\n%s%s%s  %s free before, %s now; %llu pages taken, %llu given back\n",
		       d->after->colour ? "\033[1m" : "", map_zone_name((uint32_t)z->zone),
		       d->after->colour ? "\033[0m" : "",
		       frames_text(was ? was->free + was->pcp : 0, a, sizeof a),
		       frames_text(z->free + z->pcp, b, sizeof b),
		       (unsigned long long)counts[TAKEN], (unsigned long long)counts[GIVEN_BACK]);
		draw_zone(d, z);
	}
}

static void draw_counts(const struct diff *d)
{
	const struct picture *p = d->after;
	char text[16];
	enum change c;

	printf("\nframes:\n");
	for (c = TAKEN;; c--) {
		if (d->counts[c]) {
			printf("  %s%s%s", p->colour ? "\033[" : "",
			       p->colour ? looks[c].colour : "", p->colour ? "m" : "");
			printf("%s%s %8s  %9llu pages  %s\n", letter_of(p, c),
			       p->colour ? "\033[0m" : "",
			       frames_text(d->counts[c], text, sizeof text),
			       (unsigned long long)d->counts[c], looks[c].name);
		}
		if (c == STILL_FREE)
			break;
	}
}

static void draw_transitions(const struct diff *d)
{
	transitions t = {0};
	bool any = false;
	char text[16];
	unsigned a, b;

	count_transitions(d, t);
	for (a = 0; a < MAX_STATES; a++)
		for (b = 0; b < MAX_STATES; b++) {
			if (a == b || !t[a][b])
				continue;
			if (!any)
				printf("\nfrom one state to another:\n");
			any = true;
			printf("    %8s  %9llu pages  %s -> %s\n",
			       frames_text(t[a][b], text, sizeof text), (unsigned long long)t[a][b],
			       frame_state_name(a), frame_state_name(b));
		}
}

static void draw_owners(struct diff *d)
{
	char label[80], taken[24], back[24];
	size_t i;

	if (d->nr_owners)
		printf("\nby owner:\n");
	for (i = 0; i < d->nr_owners && i < MAX_OWNERS; i++) {
		owner_label(d->after, d->owners[i].number, label, sizeof label);
		snprintf(taken, sizeof taken, "+%llu", (unsigned long long)d->owners[i].pages);
		snprintf(back, sizeof back, "-%llu", (unsigned long long)d->owners[i].given_back);
		printf("    %9s  %9s pages  %s\n", taken, back, label);
	}
	if (d->nr_owners > MAX_OWNERS)
		printf("    and %zu more\n", d->nr_owners - MAX_OWNERS);
}

/* Windows whose use, in words, is another now. */
static void draw_windows(const struct diff *d)
{
	const Zoned__V1__LayoutReport *l = d->after->layout->layout;
	char name[32], was[96], is[96];
	bool any = false;
	size_t i;

	for (i = 0; l && i < l->n_parts; i++) {
		part_usage(d->before, l->parts[i], was, sizeof was);
		part_usage(d->after, l->parts[i], is, sizeof is);
		if (strcmp(was, is) == 0)
			continue;
		if (!any)
			printf("\nwindows:\n");
		any = true;
		printf("  %-10s %s\n  %-10s %s\n",
		       layout_part_name((unsigned)l->parts[i]->part, name, sizeof name), was, "->",
		       is);
	}
}

/* ---- JSON ---- */

static json_t *counts_json(const uint64_t counts[NR_CHANGES])
{
	json_t *o = json_object();
	enum change c;

	for (c = STILL_FREE; c < NOTHING; c++)
		json_object_set_new(o, looks[c].json, json_integer((json_int_t)counts[c]));
	return o;
}

static const char *state_of(const Zoned__V1__FrameRunRow *r)
{
	const char *name = enum_name(contract_enum_by_name("FrameState"), (uint32_t)r->state);

	return name ? name : "?";
}

static json_t *pieces_json(const struct diff *d)
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < d->nr; i++) {
		const struct piece *c = &d->pieces[i];
		const char *zone =
		    enum_name(contract_enum_by_name("Zone"), (uint32_t)c->after->zone);

		if (c->change == NOTHING || c->change <= STILL_USED)
			continue;
		json_array_append_new(
		    list, json_pack("{sI sI ss ss ss ss sI sI}", "first", (json_int_t)c->first,
				    "count", (json_int_t)c->count, "zone", zone ? zone : "?",
				    "change", looks[c->change].json, "state_before",
				    state_of(c->before), "state_after", state_of(c->after),
				    "owner_before", (json_int_t)c->before->owner, "owner_after",
				    (json_int_t)c->after->owner));
	}
	return list;
}

static json_t *zones_json(const struct diff *d)
{
	const Zoned__V1__ZoneinfoReport *r = d->after->zones->zoneinfo;
	json_t *list = json_array();
	size_t i;

	for (i = 0; r && i < r->n_zones; i++) {
		const Zoned__V1__ZoneRow *z = r->zones[i], *was = zone_before(d, z);
		uint64_t counts[NR_CHANGES];
		json_t *o;

		count_zone(d, z, counts);
		o = counts_json(counts);
		json_object_set_new(
		    o, "zone",
		    json_string(enum_name(contract_enum_by_name("Zone"), (uint32_t)z->zone)));
		json_object_set_new(o, "free_before",
				    json_integer(was ? (json_int_t)was->free + was->pcp : 0));
		json_object_set_new(o, "free_after", json_integer((json_int_t)z->free + z->pcp));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *owners_json(struct diff *d)
{
	json_t *list = json_array();
	char label[80];
	size_t i;

	for (i = 0; i < d->nr_owners; i++) {
		const struct owner *o = &d->owners[i];

		owner_label(d->after, o->number, label, sizeof label);
		json_array_append_new(list,
				      json_pack("{sI ss sI sI}", "owner", (json_int_t)o->number,
						"label", label, "taken", (json_int_t)o->pages,
						"given_back", (json_int_t)o->given_back));
	}
	return list;
}

static void print_json(struct diff *d)
{
	json_t *o = json_pack("{ss sI sI so so so so}", "machine", d->after->ctl->machine, "from",
			      (json_int_t)d->before->op, "to", (json_int_t)d->after->op, "counts",
			      counts_json(d->counts), "zones", zones_json(d), "owners",
			      owners_json(d), "changes", pieces_json(d));

	json_print(o, stdout);
	json_decref(o);
}

/* ---- the drawing ---- */

static int category_of(void *arg, const Zoned__V1__FrameRunRow *run)
{
	const struct diff *d = arg;

	return looks[d->pieces[run - d->runs].change].category;
}

static int write_svg(struct diff *d, const char *path, bool hilbert)
{
	struct svg_map m = {.title = d->after->ctl->machine,
			    .hilbert = hilbert,
			    .nr_runs = d->nr,
			    .category = category_of,
			    .arg = d};
	FILE *to = drawing_open(path);
	char subtitle[96];
	enum change c;
	size_t i;

	if (!to)
		return EXIT_FILE;
	d->runs = must(calloc(d->nr + 1, sizeof *d->runs));
	for (i = 0; i < d->nr; i++) {
		d->runs[i] = *d->pieces[i].after;
		d->runs[i].first = d->pieces[i].first;
		d->runs[i].count = d->pieces[i].count;
	}
	m.runs = d->runs;
	for (c = STILL_FREE; c < NOTHING; c++)
		m.names[looks[c].category] = looks[c].name;
	m.weak = 1u << looks[STILL_FREE].category | 1u << looks[STILL_USED].category;
	snprintf(subtitle, sizeof subtitle, "physical memory: what changed from op %llu to op %llu",
		 (unsigned long long)d->before->op, (unsigned long long)d->after->op);
	m.subtitle = subtitle;
	svg_map_write(&m, to);
	free(d->runs);
	return drawing_close(to, path);
}

int diff_show(struct picture *before, struct picture *after, const char *svg, bool hilbert)
{
	struct diff d = {.before = before, .after = after};
	int rc = EXIT_DONE;

	compare(&d);
	count_owners(&d);
	if (svg) {
		rc = write_svg(&d, svg, hilbert);
	} else if (after->ctl->json) {
		print_json(&d);
	} else {
		printf("%s: what changed from op %llu to op %llu\n", after->ctl->machine,
		       (unsigned long long)before->op, (unsigned long long)after->op);
		draw_zones(&d);
		draw_counts(&d);
		draw_transitions(&d);
		draw_owners(&d);
		draw_windows(&d);
	}
	free(d.pieces);
	free(d.owners);
	return rc;
}
