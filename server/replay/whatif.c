/*
 * whatif.c - see whatif.h.
 */
#include "whatif.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "describe.h"

bool whatif_begin(struct whatif *x, const struct source *source, uv_loop_t *loop,
		  struct engine_error *why)
{
	const struct recorded_machine *m = source_machine(source);
	struct engine_config config = m->config;

	*x = (struct whatif){.nr_worlds = 0};
	check_begin(&x->check, source, strcmp(m->backend, backend_sim.name) != 0);
	check_keep_all(&x->check, &config);
	measure_begin(&x->base_measure);
	return world_open(&x->base, &backend_sim, &config, loop, why);
}

bool whatif_add(struct whatif *x, const char *label, const struct backend_type *type,
		const struct engine_config *config, struct engine_error *why)
{
	struct whatif_world *w = &x->worlds[x->nr_worlds];
	struct engine_config keeping_all = *config;
	struct follow_space here, there;

	if (!follow_space_of(&x->base.config, &here, why) || !follow_space_of(config, &there, why))
		return false;
	keeping_all.detail = x->base.config.detail;
	if (!world_open(&w->world, type, &keeping_all, x->base.loop, why))
		return false;
	x->nr_worlds++;
	snprintf(w->label, sizeof w->label, "%s", label);
	w->follow = follow_new(&here, &there);
	measure_begin(&w->measure);
	return true;
}

void whatif_free(struct whatif *x)
{
	for (unsigned i = 0; i < x->nr_worlds; i++) {
		struct whatif_world *w = &x->worlds[i];

		world_close(&w->world);
		follow_free(w->follow);
		measure_free(&w->measure);
		for (unsigned c = 0; c < WHATIF_CHANGES; c++)
			for (unsigned k = 0; k < WHATIF_EXAMPLES; k++)
				free(w->examples[c][k].text);
	}
	world_close(&x->base);
	measure_free(&x->base_measure);
	check_end(&x->check);
}

/* ---- what changed ---- */

static void note(struct whatif_world *w, enum whatif_change change, uint64_t number,
		 const struct engine_op *op, const struct world *base, const char *missing)
{
	struct whatif_example *e = w->examples[change];
	uint64_t k = w->changes[change]++;
	size_t length;
	FILE *to;

	w->by_op[change][op->code]++;
	if (k >= WHATIF_EXAMPLES)
		return;
	e[k].op = number;
	to = open_memstream(&e[k].text, &length);
	if (!to)
		abort();
	describe_op(to, op);
	if (missing) {
		fprintf(to, ": its %s is not there", missing);
	} else {
		fputs(": ", to);
		describe_answer(to, op->code, base->result.status, base->result.values);
		fputs(" -> ", to);
		describe_answer(to, op->code, w->world.result.status, w->world.result.values);
	}
	fclose(to);
}

static void compare_status(struct whatif_world *w, uint64_t number, const struct engine_op *op,
			   const struct world *base)
{
	uint32_t here = base->result.status, there = w->world.result.status;

	if (here == there)
		return;
	note(w,
	     here == STATUS_OK	  ? WHATIF_FAILS
	     : there == STATUS_OK ? WHATIF_WORKS
				  : WHATIF_ANSWERS,
	     number, op, base, NULL);
}

/* EventAlloc: pfn, order, gfp, zone, migratetype. */
static const struct engine_event *next_alloc(const struct world *w, uint32_t *at)
{
	while (*at < w->nr_events)
		if (w->events[(*at)++].kind == EVENT_ALLOC)
			return &w->events[*at - 1];
	return NULL;
}

static unsigned zone_of(const struct engine_event *e)
{
	return e && e->w[3] < MEASURE_ZONES ? e->w[3] : WHATIF_NOWHERE;
}

/* The blocks of an op in the order in which they were taken: first beside first. False:
 * all are in the same zones. */
static bool compare_zones(struct whatif_world *w, const struct world *base, bool was_played)
{
	uint32_t a = 0, b = 0;
	bool moved = false;

	for (;;) {
		const struct engine_event *here = next_alloc(base, &a);
		const struct engine_event *there = was_played ? next_alloc(&w->world, &b) : NULL;

		if (!here && !there)
			return moved;
		w->frames[zone_of(here)][zone_of(there)] += 1ULL << (here ? here : there)->w[1];
		moved |= here && there && zone_of(here) != zone_of(there);
	}
}

/* ---- playing ---- */

static bool lost(const struct world *w, const char *label, uint64_t number,
		 struct engine_error *why)
{
	snprintf(why->text, sizeof why->text, "%.60s was lost at op %" PRIu64 ": %.100s", label,
		 number, world_reason(w));
	return false;
}

static bool play_to(struct whatif *x, struct whatif_world *w, uint64_t number,
		    const struct engine_op *op, struct engine_error *why)
{
	struct engine_op translated;
	const char *missing = follow_translate(w->follow, op, &translated);

	if (missing) {
		compare_zones(w, &x->base, false);
		follow_learn(w->follow, op, &x->base, NULL);
		note(w, WHATIF_SKIPPED, number, op, &x->base, missing);
		return true;
	}
	if (!world_execute(&w->world, &translated))
		return lost(&w->world, w->label, number, why);
	measure_op(&w->measure, number, &translated, &w->world);
	follow_learn(w->follow, op, &x->base, &w->world);
	compare_status(w, number, op, &x->base);
	if (compare_zones(w, &x->base, true))
		note(w, WHATIF_MOVED, number, op, &x->base, NULL);
	return true;
}

bool whatif_play(struct whatif *x, const struct history_record *op, struct engine_error *why)
{
	uint64_t number = op->op;
	struct engine_op played;

	check_op_keeping_all(&x->check, op, &played);
	if (number && !world_execute(&x->base, &played))
		return lost(&x->base, "the machine that is as recorded", number, why);
	if (!check_op(&x->check, op, &x->base))
		return false;
	measure_op(&x->base_measure, number, number ? &played : NULL, &x->base);
	for (unsigned i = 0; i < x->nr_worlds; i++) {
		struct whatif_world *w = &x->worlds[i];

		if (!number)
			measure_op(&w->measure, 0, NULL, &w->world);
		else if (!play_to(x, w, number, &played, why))
			return false;
	}
	return true;
}

void whatif_finish(struct whatif *x)
{
	measure_end(&x->base_measure, &x->base);
	for (unsigned i = 0; i < x->nr_worlds; i++)
		measure_end(&x->worlds[i].measure, &x->worlds[i].world);
}
