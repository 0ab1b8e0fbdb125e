/*
 * check.c - see check.h.
 */
#include "check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "describe.h"
#include "machine.h"

enum { SET_POLICY_EVENTS = 2 /* argument */ };

void check_begin(struct check *c, const struct source *source, bool other_backend)
{
	*c = (struct check){.source = source, .other_backend = other_backend};
	c->detail = source_machine(source)->config.detail;
	if (c->detail == DETAIL_UNCHANGED)
		c->detail = DETAIL_ALL;
}

void check_end(struct check *c)
{
	for (unsigned i = 0; i < CHECK_CONTEXT; i++)
		free(c->before[i]);
	free(c->difference);
}

void check_op_of(const struct history_record *r, struct engine_op *ret)
{

	*ret = (struct engine_op){.code = r->code,
				  .cpu = r->cpu,
				  .task = r->task,
				  .owner = r->owner,
				  .data = r->data,
				  .data_len = r->data_len};
	memcpy(ret->args, r->args, sizeof ret->args);
}

static bool is_less(uint64_t detail)
{
	return detail != DETAIL_UNCHANGED && detail != DETAIL_ALL;
}

void check_keep_all(struct check *c, struct engine_config *config)
{
	if (!is_less(config->detail))
		return;
	config->detail = DETAIL_ALL;
	c->forced = true;
}

void check_op_keeping_all(struct check *c, const struct history_record *r, struct engine_op *ret)
{
	check_op_of(r, ret);
	if (r->code != OP_SET_POLICY || !is_less(r->args[SET_POLICY_EVENTS]))
		return;
	ret->args[SET_POLICY_EVENTS] = DETAIL_UNCHANGED;
	c->forced = true;
}

bool check_fill(struct world *w)
{
	/* Withdraw of an op that never was. */
	struct engine_op filler = {.code = OP_WITHDRAW};

	return world_execute(w, &filler);
}

/* ---- comparing ---- */

static uint64_t kept(const struct check *c)
{
	uint64_t mask = c->detail == DETAIL_OPS	      ? 0
			: c->detail == DETAIL_NOTABLE ? EVENTS_NOTABLE
						      : EVENTS_ALL;

	/* Only the simulation knows of a stale entry. */
	return c->other_backend ? mask & ~(1ULL << EVENT_STALE_TLB_HIT) : mask;
}

/* The index of the first event at or after `i` that is compared. */
static uint32_t next_event(const struct engine_event *events, uint32_t nr, uint32_t i,
			   uint64_t mask)
{
	while (i < nr && !(mask >> events[i].kind & 1))
		i++;
	return i;
}

/* The first event that differs, counted among those that are compared; -1: none. */
static int64_t compare_events(struct check *c, const struct history_record *r,
			      const struct world *w)
{
	uint64_t mask = kept(c);
	uint32_t a = 0, b = 0;

	for (int64_t n = 0;; n++, a++, b++) {
		a = next_event(r->events, r->nr_events, a, mask);
		b = next_event(w->events, w->nr_events, b, mask);
		if (a == r->nr_events && b == w->nr_events)
			return -1;
		if (a == r->nr_events || b == w->nr_events ||
		    memcmp(&r->events[a], &w->events[b], sizeof w->events[b]) != 0)
			return n;
		c->events_compared++;
	}
}

/* NULL: equal. */
static const char *compare_answer(const struct check *c, const struct history_record *r,
				  const struct world *w)
{
	const struct engine_result *res = &w->result;

	if (res->op != r->op)
		return "the op's number";
	/* Of a copy's name the daemon has the last word, not the engine. */
	if (r->status != STATUS_OK && res->status == STATUS_OK && machine_decides(r->code))
		return NULL;
	if (res->status != r->status)
		return "the status";
	if (memcmp(res->values, r->values, sizeof r->values) != 0)
		return "a value";
	if (res->data_len != r->result_len)
		return "the length of the data";
	if (res->data_len && !c->forced &&
	    recorded_hash(res->data, res->data_len) != r->result_hash)
		return "the data";
	return NULL;
}

static bool same_end(const struct engine_completion *a, const struct engine_completion *b)
{
	return a->op == b->op && a->status == b->status && a->task == b->task &&
	       memcmp(a->values, b->values, sizeof a->values) == 0;
}

static const char *compare_ends(const struct engine_completion *ends, unsigned nr,
				const struct world *w)
{
	if (nr != w->nr_completions)
		return "how many sleeping ops ended";
	/* The record has them by number, the engine in the order in which they ended. */
	for (unsigned i = 0; i < nr; i++) {
		bool found = false;

		for (unsigned k = 0; k < nr && !found; k++)
			found = same_end(&ends[i], &w->completions[k]);
		if (!found)
			return "how a sleeping op ended";
	}
	return NULL;
}

/* ---- telling ---- */

static void tell_op(FILE *to, const struct history_record *op)
{
	struct engine_op as_recorded;

	check_op_of(op, &as_recorded);
	fprintf(to, "op %" PRIu64 " ", op->op);
	if (op->op)
		describe_op(to, &as_recorded);
	else
		fputs("boot", to);
}

static void keep_context(struct check *c, const struct history_record *op)
{
	char **slot = &c->before[c->nr_before++ % CHECK_CONTEXT];
	size_t length;
	FILE *to;

	free(*slot);
	*slot = NULL;
	to = open_memstream(slot, &length);
	if (!to)
		abort();
	tell_op(to, op);
	fputs(" -> ", to);
	describe_answer(to, op->code, op->status, op->values);
	fclose(to);
}

static void tell_answer(FILE *to, const char *who, uint32_t code, uint32_t status,
			const uint64_t *values, uint32_t length, uint64_t hash)
{
	fprintf(to, "  %-9s ", who);
	describe_answer(to, code, status, values);
	if (length)
		fprintf(to, " data=[%" PRIu32 " bytes, hash %016" PRIx64 "]", length, hash);
	fputc('\n', to);
}

static void tell_ends(FILE *to, const char *who, const struct engine_completion *ends, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		fprintf(to, "  %-9s op %" PRIu64 " of task %" PRIu32 " ended: %s\n", who,
			ends[i].op, ends[i].task, describe_status(ends[i].status));
}

static void tell_events(FILE *to, const char *who, const struct engine_event *events, uint32_t nr,
			uint64_t mask, int64_t around)
{
	enum { SHOWN = 6 };
	int64_t n = 0;

	fprintf(to, "  %s events:\n", who);
	for (uint32_t i = 0; i < nr; i++) {
		if (!(mask >> events[i].kind & 1))
			continue;
		if (n >= around - SHOWN && n <= around + SHOWN) {
			fprintf(to, "  %s %4" PRId64 " ", n == around ? ">" : " ", n);
			describe_event(to, &events[i]);
			fputc('\n', to);
		}
		n++;
	}
	if (around >= n)
		fprintf(to, "  > %4" PRId64 " (none)\n", n);
}

static void tell(struct check *c, const struct history_record *r, const struct world *w,
		 const char *what, int64_t event)
{
	const struct engine_result *res = &w->result;
	const struct engine_completion *ends;
	unsigned nr_ends;
	size_t length;
	FILE *to = open_memstream(&c->difference, &length);

	if (!to)
		abort();
	ends = source_completions(c->source, r->op, &nr_ends);
	c->difference_op = r->op;
	tell_op(to, r);
	fprintf(to, ": %s differs\n", what);
	if (r->op) {
		tell_answer(to, "recorded", r->code, r->status, r->values, r->result_len,
			    r->result_hash);
		tell_answer(to, "replayed", r->code, res->status, res->values, res->data_len,
			    res->data_len ? recorded_hash(res->data, res->data_len) : 0);
	}
	tell_ends(to, "recorded", ends, nr_ends);
	tell_ends(to, "replayed", w->completions, w->nr_completions);
	tell_events(to, "recorded", r->events, r->nr_events, kept(c), event);
	tell_events(to, "replayed", w->events, w->nr_events, kept(c), event);
	if (c->nr_before)
		fputs("  before it:\n", to);
	for (uint64_t i = c->nr_before < CHECK_CONTEXT ? 0 : c->nr_before - CHECK_CONTEXT;
	     i < c->nr_before; i++)
		fprintf(to, "    %s\n", c->before[i % CHECK_CONTEXT]);
	fclose(to);
}

bool check_op(struct check *c, const struct history_record *r, const struct world *w)
{
	const struct engine_completion *ends;
	const char *what = NULL;
	int64_t event = -1;
	unsigned nr_ends;

	ends = source_completions(c->source, r->op, &nr_ends);
	if (r->op)
		what = compare_answer(c, r, w);
	if (!what)
		what = compare_ends(ends, nr_ends, w);
	event = compare_events(c, r, w);
	if (!what && event >= 0)
		what = "an event";
	if (what) {
		tell(c, r, w, what, event < 0 ? 0 : event);
		return false;
	}
	c->compared++;
	keep_context(c, r);
	if (r->code == OP_SET_POLICY && r->status == STATUS_OK && r->args[SET_POLICY_EVENTS])
		c->detail = (uint32_t)r->args[SET_POLICY_EVENTS];
	return true;
}
