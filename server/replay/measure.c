/*
 * measure.c - see measure.h.
 *
 * Everything is taken from answers and events. How many users a slot of pkmap has no event
 * tells, so that is counted here: kmap and its completion add one, kunmap takes one away.
 */
#include "measure.h"

#include <stdlib.h>
#include <string.h>

void measure_begin(struct measure *m)
{
	*m = (struct measure){0};
	for (unsigned zone = 0; zone < MEASURE_ZONES; zone++)
		for (unsigned mark = 0; mark < MEASURE_MARKS; mark++)
			m->first_below[zone][mark] = MEASURE_NEVER;
}

void measure_free(struct measure *m)
{
	while (m->sleepers) {
		struct measure_sleeper *s = m->sleepers;

		m->sleepers = s->next;
		free(s);
	}
}

static void move_peak(struct measure_peak *p, uint64_t now, uint64_t number)
{
	p->now = now;
	if (now <= p->most)
		return;
	p->most = now;
	p->at_op = number;
}

/* ---- pkmap ---- */

static void add_user(struct measure *m, uint64_t number, uint64_t slot, uint64_t pfn)
{
	/* A lowmem frame has no slot. */
	if (slot >= MEASURE_SLOTS)
		return;
	m->slots[slot].pfn = pfn;
	if (!m->slots[slot].users++)
		move_peak(&m->pkmap, m->pkmap.now + 1, number);
}

static void drop_user(struct measure *m, uint64_t pfn)
{
	for (unsigned i = 0; i < MEASURE_SLOTS; i++)
		if (m->slots[i].users && m->slots[i].pfn == pfn) {
			m->pkmap.now -= --m->slots[i].users == 0;
			return;
		}
}

static void add_sleeper(struct measure *m, uint64_t op, uint64_t pfn)
{
	struct measure_sleeper *s = malloc(sizeof *s);

	if (!s)
		abort();
	*s = (struct measure_sleeper){op, pfn, m->sleepers};
	m->sleepers = s;
}

static void end_sleeper(struct measure *m, uint64_t number, const struct engine_completion *c)
{
	for (struct measure_sleeper **at = &m->sleepers, *s; (s = *at); at = &s->next) {
		if (s->op != c->op)
			continue;
		*at = s->next;
		if (c->status == STATUS_OK)
			add_user(m, number, c->values[1], s->pfn);
		free(s);
		return;
	}
}

static void measure_pkmap(struct measure *m, uint64_t number, const struct engine_op *op,
			  const struct world *w)
{
	uint32_t status = w->result.status;

	if (op && op->code == OP_KMAP && status == STATUS_OK)
		add_user(m, number, w->result.values[1], op->args[0]);
	if (op && op->code == OP_KMAP && status == STATUS_PARKED)
		add_sleeper(m, w->result.op, op->args[0]);
	if (op && op->code == OP_KUNMAP && status == STATUS_OK)
		drop_user(m, op->args[0]);
	for (uint32_t i = 0; i < w->nr_completions; i++)
		end_sleeper(m, number, &w->completions[i]);
}

/* ---- events ---- */

static void measure_event(struct measure *m, uint64_t number, const struct engine_event *e)
{
	const u32 *w = e->w;

	switch (e->kind) {
	case EVENT_WATERMARK: /* zone, mark, below, free */
		if (w[2] && w[0] < MEASURE_ZONES && w[1] < MEASURE_MARKS &&
		    m->first_below[w[0]][w[1]] == MEASURE_NEVER)
			m->first_below[w[0]][w[1]] = number;
		break;
	case EVENT_VMAP_AREA: /* va, pages, taken */
		move_peak(&m->vmalloc, w[2] ? m->vmalloc.now + w[1] : m->vmalloc.now - w[1],
			  number);
		break;
	case EVENT_ZONE_FALLBACK: m->fallbacks++; break;
	case EVENT_ALLOC_FAILED: m->alloc_failures++; break;
	case EVENT_PKMAP_FLUSH: m->pkmap_flushes++; break;
	case EVENT_PARK: m->pkmap_parks++; break;
	case EVENT_DEADLOCK: m->pkmap_deadlocks++; break;
	default: break;
	}
}

static bool takes_area(uint32_t code)
{
	return code == OP_VMALLOC || code == OP_VMAP || code == OP_IOREMAP;
}

void measure_op(struct measure *m, uint64_t number, const struct engine_op *op,
		const struct world *w)
{
	uint32_t status = w->result.status;

	measure_pkmap(m, number, op, w);
	for (uint32_t i = 0; i < w->nr_events; i++)
		measure_event(m, number, &w->events[i]);
	if (!op)
		return;
	m->ops++;
	if (status == STATUS_OK || status == STATUS_PARKED)
		return;
	m->failed++;
	m->vmalloc_failures += takes_area(op->code);
}

/* ---- the end ---- */

struct zone_sink {
	struct inspect_sink base;
	struct measure *measure;
};

/* ZoneRow: zone, start, spanned, present, managed, free, pcp. */
static void take_zone(struct inspect_sink *sink, u32 type, const u64 *values, u32 nr_values)
{
	struct measure *m = ((struct zone_sink *)sink)->measure;

	(void)nr_values;
	if (type != ROW_ZONEINFO_ZONES || values[0] >= MEASURE_ZONES)
		return;
	m->managed[values[0]] = values[4];
	m->free[values[0]] = values[5] + values[6];
}

void measure_end(struct measure *m, struct world *w)
{
	const u64 none[OP_ARGS] = {0};
	struct zone_sink sink = {{.row = take_zone, .want_rows = true}, m};

	w->type->inspect(w->backend, INSPECT_ZONEINFO, none, &sink.base);
}
