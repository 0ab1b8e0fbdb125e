/*
 * report.c - see report.h.
 *
 * The figures of a world are one table, for the text and for JSON alike.
 */
#include "report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "describe.h"

static const struct figure {
	const char *label, *key;
	size_t offset; /* in struct measure, a uint64_t */
	size_t at_op;  /* of a peak: where its op is; 0: no peak */
} figures[] = {
    {"ops played", "ops", offsetof(struct measure, ops), 0},
    {"  of them failed", "failed", offsetof(struct measure, failed), 0},
    {"zone fallbacks", "zone_fallbacks", offsetof(struct measure, fallbacks), 0},
    {"allocations without a page", "alloc_failures", offsetof(struct measure, alloc_failures), 0},
    {"pkmap: most slots in use", "pkmap_peak", offsetof(struct measure, pkmap.most),
     offsetof(struct measure, pkmap.at_op)},
    {"pkmap: flushes", "pkmap_flushes", offsetof(struct measure, pkmap_flushes), 0},
    {"pkmap: sleepers", "pkmap_parks", offsetof(struct measure, pkmap_parks), 0},
    {"pkmap: deadlocks", "pkmap_deadlocks", offsetof(struct measure, pkmap_deadlocks), 0},
    {"vmalloc: most pages", "vmalloc_peak", offsetof(struct measure, vmalloc.most),
     offsetof(struct measure, vmalloc.at_op)},
    {"vmalloc: failures", "vmalloc_failures", offsetof(struct measure, vmalloc_failures), 0},
};
enum { NR_FIGURES = sizeof figures / sizeof *figures };

static const char *const mark_names[MEASURE_MARKS] = {"min", "low", "high"};

static const struct kind {
	const char *title, *key;
} kinds[WHATIF_CHANGES] = {
    [WHATIF_FAILS] = {"fail now", "fails"},
    [WHATIF_WORKS] = {"succeed now", "works"},
    [WHATIF_ANSWERS] = {"fail in another way", "answers"},
    [WHATIF_MOVED] = {"took frames of another zone", "moved"},
    [WHATIF_SKIPPED] = {"were skipped: they name what is not there", "skipped"},
};

static uint64_t at(const struct measure *m, size_t offset)
{
	uint64_t value;

	memcpy(&value, (const char *)m + offset, sizeof value);
	return value;
}

static const char *zone_name(unsigned zone)
{
	return zone == WHATIF_NOWHERE ? "none" : describe_zone(zone);
}

/* ---- text ---- */

enum { LABEL_WIDTH = 30, CELL_WIDTH = 22 };

/* A column is as wide as what stands above it. */
static int width_of(const struct whatif *x, unsigned column)
{
	int length = column ? (int)strlen(x->worlds[column - 1].label) + 2 : 0;

	return length > CELL_WIDTH ? length : CELL_WIDTH;
}

static const struct measure *measure_at(const struct whatif *x, unsigned column)
{
	return column ? &x->worlds[column - 1].measure : &x->base_measure;
}

static void print_figures(const struct whatif *x, FILE *to)
{
	for (unsigned i = 0; i < NR_FIGURES; i++) {
		const struct figure *f = &figures[i];

		fprintf(to, "%-*s", LABEL_WIDTH, f->label);
		for (unsigned c = 0; c <= x->nr_worlds; c++) {
			const struct measure *m = measure_at(x, c);
			uint64_t value = at(m, f->offset);
			char cell[64];

			if (f->at_op && value)
				snprintf(cell, sizeof cell, "%" PRIu64 " (op %" PRIu64 ")", value,
					 at(m, f->at_op));
			else
				snprintf(cell, sizeof cell, "%" PRIu64, value);
			fprintf(to, "%*s", width_of(x, c), cell);
		}
		fputc('\n', to);
	}
}

static bool zone_is_anywhere(const struct whatif *x, unsigned zone)
{
	for (unsigned c = 0; c <= x->nr_worlds; c++)
		if (measure_at(x, c)->managed[zone])
			return true;
	return false;
}

static void print_marks(const struct whatif *x, FILE *to)
{
	for (unsigned zone = 0; zone < MEASURE_ZONES; zone++)
		for (unsigned mark = MEASURE_MARKS; mark-- > 0 && zone_is_anywhere(x, zone);) {
			char label[64];

			snprintf(label, sizeof label, "%s first below %s", describe_zone(zone),
				 mark_names[mark]);
			fprintf(to, "%-*s", LABEL_WIDTH, label);
			for (unsigned c = 0; c <= x->nr_worlds; c++) {
				const struct measure *m = measure_at(x, c);
				uint64_t op = m->first_below[zone][mark];
				char cell[32] = "never";

				if (!m->managed[zone])
					snprintf(cell, sizeof cell, "no such zone");
				else if (op != MEASURE_NEVER)
					snprintf(cell, sizeof cell, "op %" PRIu64, op);
				fprintf(to, "%*s", width_of(x, c), cell);
			}
			fputc('\n', to);
		}
}

static void print_free(const struct whatif *x, FILE *to)
{
	for (unsigned zone = 0; zone < MEASURE_ZONES; zone++) {
		if (!zone_is_anywhere(x, zone))
			continue;
		fprintf(to, "%-*s", LABEL_WIDTH - 8, "pages free at the end, ");
		fprintf(to, "%-*s", 7, describe_zone(zone));
		for (unsigned c = 0; c <= x->nr_worlds; c++) {
			const struct measure *m = measure_at(x, c);
			char cell[48];

			snprintf(cell, sizeof cell, "%" PRIu64 " of %" PRIu64, m->free[zone],
				 m->managed[zone]);
			fprintf(to, "%*s", width_of(x, c), cell);
		}
		fputc('\n', to);
	}
}

static void print_changes(const struct whatif_world *w, FILE *to)
{
	for (unsigned k = 0; k < WHATIF_CHANGES; k++) {
		if (!w->changes[k])
			continue;
		fprintf(to, "  %" PRIu64 " ops %s:", w->changes[k], kinds[k].title);
		for (unsigned code = 0; code < OP_CODE_END; code++)
			if (w->by_op[k][code])
				fprintf(to, " %s %" PRIu64, contract_ops[code].name,
					w->by_op[k][code]);
		fputc('\n', to);
		for (unsigned i = 0; i < WHATIF_EXAMPLES && i < w->changes[k]; i++)
			fprintf(to, "    op %" PRIu64 " %s\n", w->examples[k][i].op,
				w->examples[k][i].text);
		if (w->changes[k] > WHATIF_EXAMPLES)
			fprintf(to, "    and %" PRIu64 " more\n", w->changes[k] - WHATIF_EXAMPLES);
	}
}

static bool row_is_empty(const struct whatif_world *w, unsigned row)
{
	for (unsigned column = 0; column <= WHATIF_NOWHERE; column++)
		if (w->frames[row][column])
			return false;
	return true;
}

static void print_matrix(const struct whatif_world *w, FILE *to)
{
	fprintf(to, "  frames by zone: as recorded down, with %s across\n%12s", w->label, "");
	for (unsigned column = 0; column <= WHATIF_NOWHERE; column++)
		fprintf(to, "%12s", zone_name(column));
	fputc('\n', to);
	for (unsigned row = 0; row <= WHATIF_NOWHERE; row++) {
		if (row_is_empty(w, row))
			continue;
		fprintf(to, "%12s", zone_name(row));
		for (unsigned column = 0; column <= WHATIF_NOWHERE; column++)
			fprintf(to, "%12" PRIu64, w->frames[row][column]);
		fputc('\n', to);
	}
}

void report_text(const struct whatif *x, FILE *to)
{
	fprintf(to, "%-*s%*s", LABEL_WIDTH, "", CELL_WIDTH, "as recorded");
	for (unsigned i = 0; i < x->nr_worlds; i++)
		fprintf(to, "%*s", width_of(x, i + 1), x->worlds[i].label);
	fputc('\n', to);
	print_figures(x, to);
	print_marks(x, to);
	print_free(x, to);
	for (unsigned i = 0; i < x->nr_worlds; i++) {
		const struct whatif_world *w = &x->worlds[i];
		uint64_t sum = 0;

		for (unsigned k = 0; k < WHATIF_CHANGES; k++)
			sum += w->changes[k];
		fprintf(to, "\nwith %s%s\n", w->label, sum ? ":" : ": nothing changes");
		print_changes(w, to);
		print_matrix(w, to);
	}
}

/* ---- JSON ---- */

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *measure_to_json(const struct measure *m)
{
	json_t *o = json_object(), *zones = json_object();

	for (unsigned i = 0; i < NR_FIGURES; i++) {
		char key[48];

		json_object_set_new(o, figures[i].key, number(at(m, figures[i].offset)));
		snprintf(key, sizeof key, "%s_op", figures[i].key);
		if (figures[i].at_op && at(m, figures[i].offset))
			json_object_set_new(o, key, number(at(m, figures[i].at_op)));
	}
	for (unsigned zone = 0; zone < MEASURE_ZONES; zone++) {
		json_t *z, *below;

		if (!m->managed[zone])
			continue;
		z = json_object();
		below = json_object();
		for (unsigned mark = 0; mark < MEASURE_MARKS; mark++) {
			uint64_t op = m->first_below[zone][mark];

			json_object_set_new(below, mark_names[mark],
					    op == MEASURE_NEVER ? json_null() : number(op));
		}
		json_object_set_new(z, "managed", number(m->managed[zone]));
		json_object_set_new(z, "free", number(m->free[zone]));
		json_object_set_new(z, "first_below", below);
		json_object_set_new(zones, describe_zone(zone), z);
	}
	json_object_set_new(o, "zones", zones);
	return o;
}

static json_t *change_to_json(const struct whatif_world *w, enum whatif_change k)
{
	json_t *o = json_object(), *by_op = json_object(), *examples = json_array();

	for (unsigned code = 0; code < OP_CODE_END; code++)
		if (w->by_op[k][code])
			json_object_set_new(by_op, contract_ops[code].name,
					    number(w->by_op[k][code]));
	for (unsigned i = 0; i < WHATIF_EXAMPLES && i < w->changes[k]; i++) {
		json_t *e = json_object();

		json_object_set_new(e, "op", number(w->examples[k][i].op));
		json_object_set_new(e, "what", json_string(w->examples[k][i].text));
		json_array_append_new(examples, e);
	}
	json_object_set_new(o, "ops", number(w->changes[k]));
	json_object_set_new(o, "by_op", by_op);
	json_object_set_new(o, "first", examples);
	return o;
}

static json_t *matrix_to_json(const struct whatif_world *w)
{
	json_t *rows = json_object();

	for (unsigned row = 0; row <= WHATIF_NOWHERE; row++) {
		json_t *o;

		if (row_is_empty(w, row))
			continue;
		o = json_object();
		for (unsigned column = 0; column <= WHATIF_NOWHERE; column++)
			if (w->frames[row][column])
				json_object_set_new(o, zone_name(column),
						    number(w->frames[row][column]));
		json_object_set_new(rows, zone_name(row), o);
	}
	return rows;
}

json_t *report_json(const struct whatif *x)
{
	json_t *o = json_object(), *worlds = json_array();

	json_object_set_new(o, "recorded", measure_to_json(&x->base_measure));
	for (unsigned i = 0; i < x->nr_worlds; i++) {
		const struct whatif_world *w = &x->worlds[i];
		json_t *one = measure_to_json(&w->measure);

		json_object_set_new(one, "set", json_string(w->label));
		for (unsigned k = 0; k < WHATIF_CHANGES; k++)
			json_object_set_new(one, kinds[k].key, change_to_json(w, k));
		json_object_set_new(one, "frames", matrix_to_json(w));
		json_array_append_new(worlds, one);
	}
	json_object_set_new(o, "worlds", worlds);
	return o;
}
