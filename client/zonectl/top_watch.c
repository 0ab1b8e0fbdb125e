/*
 * top_watch.c - asks the daemon for what `zonectl top` shows, and never waits for it.
 *
 * Every question is a stream of its own; a round is over when all of them are. Nothing is
 * asked while a round is on, so a slow daemon has one round to answer, not a queue.
 */
#include <stdlib.h>
#include <string.h>

#include "top.h"

#define LIST_NS 10000000000ull /* how old a list of machines may be */

static const char *const words[TOP_LAYOUT + 1] = {
    [TOP_ZONES] = "zoneinfo",	 [TOP_BLOCKS] = "buddyinfo", [TOP_TYPES] = "pagetypeinfo",
    [TOP_AREAS] = "vmallocinfo", [TOP_KMAP] = "kmap-window", [TOP_COUNTERS] = "statistics",
    [TOP_LAYOUT] = "layout",
};

/* ---- lines of the record ---- */

static void drop_lines(struct top_watch *w, unsigned nr)
{
	unsigned i;

	for (i = 0; i < nr; i++)
		free(w->lines[i].text);
	w->nr_lines -= nr;
	memmove(w->lines, w->lines + nr, w->nr_lines * sizeof *w->lines);
}

/* Labels are anybody's text, and control characters are not for this terminal. */
static char *clean(char *text)
{
	char *c;

	for (c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	return text;
}

static FILE *line_begin(struct top_watch *w, bool is_event, bool bad, size_t *size)
{
	struct top_line *line;

	if (w->nr_lines == TOP_KEPT)
		drop_lines(w, TOP_KEPT / 4);
	line = &w->lines[w->nr_lines++];
	*line = (struct top_line){.is_event = is_event, .bad = bad};
	return must(open_memstream(&line->text, size));
}

static void line_end(struct top_watch *w, FILE *to)
{
	fclose(to);
	clean(w->lines[w->nr_lines - 1].text);
}

static void put_values(FILE *to, const struct contract_fields *fields, const uint64_t *values,
		       size_t n)
{
	char text[512];
	unsigned i;

	for (i = 0; i < fields->nr_ints && i < n; i++)
		fprintf(to, " %s=%s", fields->ints[i].name,
			value_format(&fields->ints[i], values[i], text, sizeof text));
}

static void add_record(struct top_watch *w, const Zoned__V1__Record *r)
{
	const struct contract_op *op = op_by_word(r->name);
	bool ok = strcmp(r->status, "OK") == 0;
	size_t size, i;
	FILE *to;

	/* A record that goes on with its op's events. */
	if (!w->has_seen || r->op > w->seen_op) {
		to = line_begin(w, false, !ok, &size);
		fprintf(to, "#%llu %s", (unsigned long long)r->op, op ? op->word : r->name);
		if (op)
			put_values(to, &op->args, r->args, r->n_args);
		fprintf(to, " -> %s", r->status);
		if (op && ok)
			put_values(to, &op->values, r->values, r->n_values);
		if (*r->owner)
			fprintf(to, " (%s)", r->owner);
		line_end(w, to);
	}
	for (i = 0; i < r->n_events; i++) {
		const Zoned__V1__Event *e = r->events[i];

		if ((unsigned)e->kind >= EVENT_KIND_END || !contract_events[e->kind].kind)
			continue;
		to = line_begin(w, true, false, &size);
		fprintf(to, "%s", contract_events[e->kind].name);
		put_values(to, &contract_events[e->kind].fields, e->values, e->n_values);
		line_end(w, to);
	}
	w->seen_op = r->op;
	w->has_seen = true;
}

/* ---- asking ---- */

static void stop_asking(struct top_watch *w)
{
	unsigned i;

	for (i = 0; i < TOP_QUESTIONS; i++) {
		zoned_stream_close(w->asked[i]);
		w->asked[i] = NULL;
	}
	w->nr_asked = 0;
}

static void drop_machine(struct top_watch *w)
{
	if (w->machine)
		message_free(&w->machine->base);
	w->machine = NULL;
}

/* A question failed: one that the machine refuses is left out of the picture, and a machine
 * may have ended; all else ends the round. */
static void fail(struct top_watch *w, unsigned which, int code)
{
	bool refused = code > 0 && code != ZONED_UNAVAILABLE;

	if (which == TOP_MACHINE && code == ZONED_NOT_FOUND) {
		drop_machine(w);
		return;
	}
	snprintf(w->why, sizeof w->why, "%s: %s", zoned_code_name(code), zoned_error(w->ctl->z));
	clean(w->why);
	if (refused && which <= TOP_LAYOUT && w->answers[which]) {
		message_free(&w->answers[which]->base);
		w->answers[which] = NULL;
	}
	if (!refused || which == TOP_LIST || which == TOP_MACHINE) {
		w->failed = code;
		stop_asking(w);
	}
}

static void ask(struct top_watch *w, unsigned which, const char *method,
		const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply)
{
	struct zoned_stream *s;
	int rc;

	if (w->failed)
		return;
	rc = zoned_stream_open(w->ctl->z, method, reply, w->ctl->timeout_ms, &s);
	if (rc) {
		fail(w, which, rc);
		return;
	}
	zoned_stream_send(s, request);
	zoned_stream_end(s);
	w->asked[which] = s;
	w->nr_asked++;
}

static void ask_inspection(struct top_watch *w, unsigned which)
{
	const struct contract_inspection *i = inspection_by_word(words[which]);
	ProtobufCMessage *request = message_new(&zoned__v1__inspect_request__descriptor);

	message_set_string(request, 1, w->name);
	message_set_sub(request, i->code,
			message_new(contract_inspect_messages[i - contract_inspections].question));
	ask(w, which, "/zoned.v1.Machines/Inspect", request,
	    &zoned__v1__inspect_response__descriptor);
	message_free(request);
}

/* The last ops since the round before, TOP_OPS at most. */
static void ask_tail(struct top_watch *w)
{
	Zoned__V1__TailRequest request = ZONED__V1__TAIL_REQUEST__INIT;
	Zoned__V1__EventKind kinds[EVENT_KIND_END];
	uint64_t ops = w->machine->ops, after = ops > TOP_OPS ? ops - TOP_OPS : 0;
	unsigned i;

	if (w->has_seen && w->seen_op > after)
		after = w->seen_op;
	if (w->has_seen && after >= ops)
		return;
	if (w->has_seen && after > w->seen_op) {
		size_t size;
		FILE *to = line_begin(w, true, false, &size);

		fprintf(to, "... %llu ops ...", (unsigned long long)(after - w->seen_op));
		line_end(w, to);
	}
	for (i = 0; i < EVENT_KIND_END; i++)
		if (contract_events[i].notable)
			kinds[request.n_kinds++] = (Zoned__V1__EventKind)i;
	request.kinds = kinds;
	request.every_op = true;
	request.machine = w->name;
	request.after_op = after;
	request.from_start = !after;
	request.no_follow = true;
	ask(w, TOP_TAIL, "/zoned.v1.History/Tail", &request.base,
	    &zoned__v1__tail_response__descriptor);
}

static void ask_machine(struct top_watch *w)
{
	Zoned__V1__GetRequest request = ZONED__V1__GET_REQUEST__INIT;

	request.machine = w->name;
	ask(w, TOP_MACHINE, "/zoned.v1.Machines/Get", &request.base,
	    &zoned__v1__machine__descriptor);
}

void top_ask(struct top_watch *w)
{
	Zoned__V1__ListRequest request = ZONED__V1__LIST_REQUEST__INIT;

	if (w->nr_asked)
		return;
	w->failed = 0;
	*w->why = '\0';
	w->round_ns = monotonic_ns();
	if (w->machine && w->list_ns && w->round_ns - w->list_ns < LIST_NS)
		ask_machine(w);
	else
		ask(w, TOP_LIST, "/zoned.v1.Machines/List", &request.base,
		    &zoned__v1__list_response__descriptor);
}

/* ---- taking ---- */

static void forget(struct top_watch *w)
{
	unsigned i;

	for (i = 0; i <= TOP_LAYOUT; i++)
		if (w->answers[i]) {
			message_free(&w->answers[i]->base);
			w->answers[i] = NULL;
		}
	drop_lines(w, w->nr_lines);
	memset(w->rates, 0, sizeof w->rates);
	memset(w->totals, 0, sizeof w->totals);
	w->has_rates = w->has_seen = false;
	w->seen_op = w->counters_ns = w->ops_ns = w->ops = 0;
	w->nr_past = 0;
	w->ops_rate = 0;
	w->id = 0;
}

static double rate(uint64_t before, uint64_t now, uint64_t ns)
{
	return now > before && ns ? (double)(now - before) * 1e9 / (double)ns : 0;
}

static void keep_rate(struct top_watch *w)
{
	if (w->nr_past == TOP_PAST)
		memmove(w->past, w->past + 1, --w->nr_past * sizeof *w->past);
	w->past[w->nr_past++] = w->ops_rate;
}

static bool can_be_asked(const Zoned__V1__Machine *m)
{
	return m->state == ZONED__V1__MACHINE_STATE__MACHINE_RUNNING ||
	       m->state == ZONED__V1__MACHINE_STATE__MACHINE_FROZEN;
}

static void take_list(struct top_watch *w, ProtobufCMessage *reply)
{
	bool there = false;
	size_t i;

	if (w->list)
		message_free(&w->list->base);
	w->list = (Zoned__V1__ListResponse *)reply;
	w->list_ns = monotonic_ns();
	if (!w->name && w->list->n_machines)
		w->name = must(strdup(w->list->machines[0]->name));
	for (i = 0; i < w->list->n_machines; i++)
		there = there || strcmp(w->list->machines[i]->name, w->name) == 0;
	if (there)
		ask_machine(w);
	else
		drop_machine(w);
}

static void take_machine(struct top_watch *w, ProtobufCMessage *reply)
{
	uint64_t now = monotonic_ns();
	bool news;
	unsigned i;

	drop_machine(w);
	w->machine = (Zoned__V1__Machine *)reply;
	if (w->machine->id != w->id)
		forget(w);
	news = w->machine->ops != w->ops || !w->answers[TOP_ZONES];
	w->has_rates = w->id != 0;
	w->id = w->machine->id;
	w->ops_rate = w->has_rates ? rate(w->ops, w->machine->ops, now - w->ops_ns) : 0;
	w->ops = w->machine->ops;
	w->ops_ns = now;
	if (w->has_rates)
		keep_rate(w);
	if (news && can_be_asked(w->machine)) {
		for (i = 0; i <= TOP_LAYOUT; i++)
			ask_inspection(w, i);
		ask_tail(w);
	} else {
		memset(w->rates, 0, sizeof w->rates);
		w->counters_ns = w->counters_ns ? now : 0;
	}
}

static void take_counters(struct top_watch *w, const Zoned__V1__StatisticsReport *s)
{
	uint64_t now = monotonic_ns(), since = w->counters_ns ? now - w->counters_ns : 0;
	size_t i;

	memset(w->rates, 0, sizeof w->rates);
	for (i = 0; s && i < s->n_events; i++) {
		unsigned kind = (unsigned)s->events[i]->kind;

		if (kind >= EVENT_KIND_END)
			continue;
		w->rates[kind] = rate(w->totals[kind], s->events[i]->count, since);
		w->totals[kind] = s->events[i]->count;
	}
	w->counters_ns = now;
}

static void take(struct top_watch *w, unsigned which, ProtobufCMessage *reply)
{
	const Zoned__V1__TailResponse *tail = (const Zoned__V1__TailResponse *)reply;
	size_t i;

	if (which == TOP_LIST || which == TOP_MACHINE) {
		(which == TOP_LIST ? take_list : take_machine)(w, reply);
		return;
	}
	if (which == TOP_TAIL) {
		for (i = 0; i < tail->n_records; i++)
			add_record(w, tail->records[i]);
		message_free(reply);
		return;
	}
	if (w->answers[which])
		message_free(&w->answers[which]->base);
	w->answers[which] = (Zoned__V1__InspectResponse *)reply;
	if (which == TOP_COUNTERS)
		take_counters(w, w->answers[which]->statistics);
}

bool top_take(struct top_watch *w)
{
	unsigned i;

	if (!w->nr_asked)
		return false;
	for (i = 0; i < TOP_QUESTIONS && !w->failed; i++) {
		ProtobufCMessage *reply;
		int rc = 0;

		while (w->asked[i] && !(rc = zoned_stream_receive(w->asked[i], 0, &reply)))
			take(w, i, reply);
		if (!w->asked[i] || rc == ZONED_AGAIN)
			continue;
		zoned_stream_close(w->asked[i]);
		w->asked[i] = NULL;
		w->nr_asked--;
		if (rc != ZONED_END)
			fail(w, i, rc);
	}
	return !w->nr_asked;
}

void top_choose(struct top_watch *w, char *name)
{
	stop_asking(w);
	forget(w);
	free(w->name);
	w->name = name;
	drop_machine(w);
}

void top_shown(struct top_watch *w)
{
	drop_lines(w, w->nr_lines);
}

void top_free(struct top_watch *w)
{
	top_choose(w, NULL);
	if (w->list)
		message_free(&w->list->base);
}
