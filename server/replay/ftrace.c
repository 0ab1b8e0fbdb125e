/*
 * ftrace.c - see ftrace.h.
 *
 * The page's address is what %p shows of it where addresses are hidden, since there is none.
 */
#include "ftrace.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "describe.h"
#include "kmem_ops.h"

enum { ZONES = ZONE_MOVABLE + 1, MOST_FRAMES = 1 << 24, LEAST_PAGEBLOCK_ORDER = 9 };

struct writer {
	FILE *to;
	bool counters;
	int64_t made_ns; /* the machine's making */
	uint64_t last_us, lines;
	uint32_t pageblock_order;
	int64_t free[ZONES];
	bool changed[ZONES];				     /* by this op */
	uint8_t types[MOST_FRAMES >> LEAST_PAGEBLOCK_ORDER]; /* of pageblocks */
};

static const char header[] = "# tracer: nop\n"
			     "#\n" KMEM_BOOSTS_STAND "\n"
			     "#\n"
			     "#                                _-----=> irqs-off/BH-disabled\n"
			     "#                               / _----=> need-resched\n"
			     "#                              | / _---=> hardirq/softirq\n"
			     "#                              || / _--=> preempt-depth\n"
			     "#                              ||| / _-=> migrate-disable\n"
			     "#                              |||| /     delay\n"
			     "#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n"
			     "#              | |         |   |||||     |         |\n";

/* ---- flags, as Linux names them ---- */

/* Takes the flags of one enum out of `gfp`, each value that is in it whole, the one with most
 * flags first. */
static uint32_t take_flags(const char *enum_name, uint32_t gfp, bool *first, FILE *to)
{
	const struct contract_enum *e = describe_enum(enum_name);

	for (;;) {
		const struct contract_value *best = NULL;

		for (unsigned i = 0; i < e->nr_values; i++) {
			uint32_t bits = (uint32_t)e->values[i].number;

			if (bits && (gfp & bits) == bits &&
			    (!best ||
			     __builtin_popcount(bits) > __builtin_popcount((uint32_t)best->number)))
				best = &e->values[i];
		}
		if (!best)
			return gfp;
		fprintf(to, "%s%s", *first ? "" : "|", best->name);
		*first = false;
		gfp &= ~(uint32_t)best->number;
	}
}

static void write_gfp(uint32_t gfp, FILE *to)
{
	bool first = true;

	gfp = take_flags("Gfp", gfp, &first, to);
	gfp = take_flags("GfpBit", gfp, &first, to);
	if (gfp)
		fprintf(to, "%s0x%" PRIx32, first ? "" : "|", gfp);
	else if (first)
		fputs("none", to);
}

/* ---- lines ---- */

static void begin_line(struct writer *w, const struct history_record *op)
{
	uint64_t us = op->time_ns > w->made_ns ? (uint64_t)(op->time_ns - w->made_ns) / 1000 : 0;
	char task[32];

	if (us <= w->last_us)
		us = w->last_us + 1;
	w->last_us = us;
	w->lines++;
	snprintf(task, sizeof task, "%s-%" PRIu32, op->task ? "task" : "kernel", op->task);
	fprintf(w->to, "%16s [%03" PRIu32 "] ..... %5" PRIu64 ".%06" PRIu64 ": ", task, op->cpu,
		us / 1000000, us % 1000000);
}

/* What the request was for that took a block of another type: what came of it is the next
 * block that left, or the next refill of a CPU's list. */
static uint32_t order_behind(const struct writer *w, const struct engine_event *e,
			     const struct engine_event *end)
{
	enum { LISTS_OF_ORDERS = 12, LISTS_PER_ORDER = 3 }; /* then those of a huge page */

	for (; e < end; e++) {
		if (e->kind == EVENT_ALLOC)
			return e->w[1];
		if (e->kind == EVENT_PCP_REFILL)
			return e->w[2] < LISTS_OF_ORDERS ? e->w[2] / LISTS_PER_ORDER
							 : w->pageblock_order;
	}
	return 0;
}

static uint8_t *type_of(struct writer *w, uint32_t pfn)
{
	return &w->types[pfn % MOST_FRAMES >> w->pageblock_order];
}

/* The pageblock may get its type just behind this. */
static bool changes_owner(struct writer *w, const struct engine_event *e,
			  const struct engine_event *end)
{
	uint32_t type = *type_of(w, e->w[0]);

	if (e + 1 < end && e[1].kind == EVENT_PAGEBLOCK_RETYPED &&
	    type_of(w, e[1].w[0]) == type_of(w, e->w[0]))
		type = e[1].w[2];
	return type == e->w[3];
}

static void write_steal(struct writer *w, const struct history_record *op,
			const struct engine_event *e, const struct engine_event *end)
{
	begin_line(w, op);
	fprintf(w->to,
		"mm_page_alloc_extfrag: page=(ptrval) pfn=0x%x alloc_order=%u fallback_order=%u "
		"pageblock_order=%u alloc_migratetype=%u fallback_migratetype=%u fragmenting=%d "
		"change_ownership=%d\n",
		e->w[0], order_behind(w, e, end), e->w[1], w->pageblock_order, e->w[3], e->w[2],
		e->w[1] < w->pageblock_order, changes_owner(w, e, end));
}

static void write_event(struct writer *w, const struct history_record *op,
			const struct engine_event *e)
{
	switch (e->kind) {
	case EVENT_ALLOC:
		begin_line(w, op);
		fprintf(w->to,
			"mm_page_alloc: page=(ptrval) pfn=0x%x order=%u migratetype=%u gfp_flags=",
			e->w[0], e->w[1], e->w[4]);
		write_gfp(e->w[2], w->to);
		break;
	case EVENT_ALLOC_FAILED:
		begin_line(w, op);
		fprintf(w->to, "mm_page_alloc: page=NULL pfn=0x0 order=%u migratetype=0 gfp_flags=",
			e->w[1]);
		write_gfp(e->w[0], w->to);
		break;
	case EVENT_FREE:
		begin_line(w, op);
		fprintf(w->to, "mm_page_free: page=(ptrval) pfn=0x%x order=%u", e->w[0], e->w[1]);
		break;
	default: return;
	}
	fputc('\n', w->to);
}

/* ---- what is counted ---- */

static void count(struct writer *w, uint32_t zone, int64_t pages)
{
	if (zone >= ZONES)
		return;
	w->free[zone] += pages;
	w->changed[zone] = true;
}

static void follow(struct writer *w, const struct engine_event *e)
{
	switch (e->kind) {
	case EVENT_ALLOC: count(w, e->w[3], -(INT64_C(1) << (e->w[1] & 31))); break;
	case EVENT_FREE: count(w, e->w[2], INT64_C(1) << (e->w[1] & 31)); break;
	case EVENT_ZONE_READY:
		if (e->w[0] < ZONES)
			count(w, e->w[0], (int64_t)e->w[5] - w->free[e->w[0]]);
		break;
	case EVENT_PAGEBLOCK_RETYPED: *type_of(w, e->w[0]) = (uint8_t)e->w[2]; break;
	default: break;
	}
}

static void write_counters(struct writer *w, const struct history_record *op)
{
	const struct contract_enum *zones = describe_enum("Zone");

	for (uint32_t zone = 0; zone < ZONES; zone++) {
		if (!w->changed[zone])
			continue;
		w->changed[zone] = false;
		begin_line(w, op);
		fprintf(w->to, "tracing_mark_write: C|1|free %s|%" PRId64 "\n",
			zones->values[zone].name + strlen("ZONE_"), w->free[zone]);
	}
}

static void write_op(struct writer *w, const struct history_record *op)
{
	const struct engine_event *end = op->events + op->nr_events;

	for (const struct engine_event *e = op->events; e < end; e++) {
		if (e->kind == EVENT_STEAL)
			write_steal(w, op, e, end);
		else
			write_event(w, op, e);
		follow(w, e);
	}
	if (w->counters)
		write_counters(w, op);
}

uint64_t ftrace_write(struct source *s, bool counters, FILE *to)
{
	struct writer *w = calloc(1, sizeof *w);
	const struct history_record *ops;
	uint64_t lines;
	unsigned nr;

	if (!w)
		abort();
	w->to = to;
	w->counters = counters;
	w->pageblock_order = source_machine(s)->config.flags & CONFIG_PAE ? 9 : 10;
	memset(w->types, MIGRATE_MOVABLE, sizeof w->types);
	fputs(header, to);
	while ((nr = source_read(s, &ops)) && !ferror(to))
		for (unsigned i = 0; i < nr; i++) {
			if (ops[i].op == 0)
				w->made_ns = ops[i].time_ns;
			write_op(w, &ops[i]);
		}
	lines = w->lines;
	free(w);
	return lines;
}
