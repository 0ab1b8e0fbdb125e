/*
 * ftrace.c - see ftrace.h.
 *
 * The page's address is what %p shows of it where addresses are hidden, since there is none.
 */
#include "ftrace.h"

#include <inttypes.h>

#include "describe.h"

struct writer {
	FILE *to;
	int64_t made_ns; /* the machine's making */
	uint64_t last_us, lines;
};

static const char header[] = "# tracer: nop\n"
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

uint64_t ftrace_write(struct source *s, FILE *to)
{
	struct writer w = {.to = to};
	const struct history_record *ops;
	unsigned nr;

	fputs(header, to);
	while ((nr = source_read(s, &ops)) && !ferror(to))
		for (unsigned i = 0; i < nr; i++) {
			if (ops[i].op == 0)
				w.made_ns = ops[i].time_ns;
			for (uint32_t k = 0; k < ops[i].nr_events; k++)
				write_event(&w, &ops[i], &ops[i].events[k]);
		}
	return w.lines;
}
