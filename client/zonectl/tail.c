/*
 * tail.c - follows the history: every op as it is committed, with its events.
 *
 * One line an op, its events indented below; --json: one object a line. A reader that
 * falls behind is told how far. With --keep it outlives the daemon: ops have numbers, so it
 * asks the next one for what comes after the last that it printed.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "zonectl.h"

enum { MAX_FILTERS = 64 };

static const struct flag tail_flags[] = {
    {"op", 0, "NAME", "these ops only; may be repeated"},
    {"event", 0, "NAME", "these events only; may be repeated"},
    {"ops-only", 0, NULL, "do not print events"},
    {"after", 0, "N", "begin after this op of the machine"},
    {"from-start", 0, NULL, "begin with the first op"},
    {"no-follow", 0, NULL, "end when caught up"},
    {"keep", 0, NULL, "when the daemon is not there wait for it, and go on where it was; with -m"},
};
enum { NR_TAIL_FLAGS = sizeof tail_flags / sizeof *tail_flags };

/* ---- printing ---- */

/* " name=value" for each of the fields. */
static void print_values(const struct contract_fields *fields, const uint64_t *values, size_t n)
{
	char text[512];
	unsigned i;

	for (i = 0; i < fields->nr_ints && i < n; i++)
		printf(" %s=%s", fields->ints[i].name,
		       value_format(&fields->ints[i], values[i], text, sizeof text));
}

static json_t *values_to_json(const struct contract_fields *fields, const uint64_t *values,
			      size_t n)
{
	json_t *o = json_object();
	char text[512];
	unsigned i;

	for (i = 0; i < fields->nr_ints && i < n; i++) {
		const struct contract_field *f = &fields->ints[i];
		bool named = f->is_flags || f->kind == FIELD_ENUM || values[i] > INT64_MAX;

		json_object_set_new(o, f->name,
				    named
					? json_string(value_format(f, values[i], text, sizeof text))
					: json_integer((json_int_t)values[i]));
	}
	return o;
}

static const struct contract_event *event_of(const Zoned__V1__Event *e)
{
	if ((unsigned)e->kind >= EVENT_KIND_END || !contract_events[e->kind].kind)
		return NULL;
	return &contract_events[e->kind];
}

static void print_record(const Zoned__V1__Record *r, bool events)
{
	const struct contract_op *op = op_by_word(r->name);
	time_t seconds = (time_t)(r->time_ns / 1000000000);
	char clock[16];
	struct tm tm;
	size_t i;

	localtime_r(&seconds, &tm);
	strftime(clock, sizeof clock, "%H:%M:%S", &tm);
	printf("%s.%03d %s #%llu cpu%u task%u%s%s %s", clock,
	       (int)(r->time_ns % 1000000000 / 1000000), r->machine, (unsigned long long)r->op,
	       r->cpu, r->task, *r->owner ? " " : "", r->owner, op ? op->word : r->name);
	if (op)
		print_values(&op->args, r->args, r->n_args);
	printf(" -> %s", r->status);
	if (op && strcmp(r->status, "OK") == 0)
		print_values(&op->values, r->values, r->n_values);
	putchar('\n');
	for (i = 0; events && i < r->n_events; i++) {
		const struct contract_event *e = event_of(r->events[i]);

		printf("    %s", e ? e->name : "?");
		if (e)
			print_values(&e->fields, r->events[i]->values, r->events[i]->n_values);
		putchar('\n');
	}
}

static json_t *events_to_json(const Zoned__V1__Record *r)
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < r->n_events; i++) {
		const Zoned__V1__Event *x = r->events[i];
		const struct contract_event *e = event_of(x);
		json_t *o = json_object();

		json_object_set_new(o, "event", json_string(e ? e->name : "?"));
		json_object_set_new(o, "index", json_integer(x->index));
		if (e) {
			json_t *values = values_to_json(&e->fields, x->values, x->n_values);

			json_object_update(o, values);
			json_decref(values);
		}
		json_array_append_new(list, o);
	}
	return list;
}

static void print_record_json(const Zoned__V1__Record *r, bool events)
{
	const struct contract_op *op = op_by_word(r->name);
	json_t *o = json_pack("{s:s, s:I, s:s, s:I, s:I, s:I, s:s, s:s}", "machine", r->machine,
			      "number", (json_int_t)r->op, "op", op ? op->word : r->name, "time_ns",
			      (json_int_t)r->time_ns, "cpu", (json_int_t)r->cpu, "task",
			      (json_int_t)r->task, "owner", r->owner, "status", r->status);

	if (op) {
		json_object_set_new(o, "args", values_to_json(&op->args, r->args, r->n_args));
		json_object_set_new(o, "values",
				    values_to_json(&op->values, r->values, r->n_values));
	}
	if (events)
		json_object_set_new(o, "events", events_to_json(r));
	json_print_line(o, stdout);
	json_decref(o);
}

/* ---- asking ---- */

static const struct contract_event *event_by_name(const char *name)
{
	char folded[64];
	unsigned i;

	if (strncasecmp(name, "event_", 6) == 0)
		name += 6;
	for (i = 0; name[i] && i + 1 < sizeof folded; i++)
		folded[i] = name[i] == '-' ? '_' : name[i];
	folded[i] = '\0';
	for (i = 0; i < EVENT_KIND_END; i++)
		if (contract_events[i].kind && (strcasecmp(contract_events[i].name, folded) == 0 ||
						strcmp(contract_events[i].message, folded) == 0))
			return &contract_events[i];
	return NULL;
}

static int add_op(Zoned__V1__TailRequest *request, const char *name)
{
	const struct contract_op *op = op_by_word(name);
	struct suggestion s = {.word = name};
	unsigned i;

	if (!op) {
		for (i = 0; i < OP_CODE_END; i++)
			if (contract_ops[i].code)
				suggest(&s, contract_ops[i].word);
		return usage_error("tail: no op %s%s%s%s", name, s.nearest ? "; did you mean " : "",
				   s.nearest ? s.nearest : "", s.nearest ? "?" : "");
	}
	request->ops[request->n_ops++] = must(strdup(op->name));
	return EXIT_DONE;
}

static int add_event(Zoned__V1__TailRequest *request, const char *name)
{
	const struct contract_event *e = event_by_name(name);
	struct suggestion s = {.word = name};
	unsigned i;

	if (!e) {
		for (i = 0; i < EVENT_KIND_END; i++)
			if (contract_events[i].kind)
				suggest(&s, contract_events[i].name);
		return usage_error("tail: no event %s%s%s%s", name,
				   s.nearest ? "; did you mean " : "", s.nearest ? s.nearest : "",
				   s.nearest ? "?" : "");
	}
	request->kinds[request->n_kinds++] = (Zoned__V1__EventKind)e->kind;
	return EXIT_DONE;
}

static int build(struct ctl *ctl, const struct args *a, Zoned__V1__TailRequest *request)
{
	const char *after = args_text(a, "after"), *text;
	unsigned i;
	int rc = EXIT_DONE;

	request->machine = must(strdup(ctl->machine ? ctl->machine : ""));
	request->from_start = args_has(a, "from-start");
	request->no_follow = args_has(a, "no-follow");
	/* Without a place to begin, --no-follow would have nothing to say. */
	if (request->no_follow && !after)
		request->from_start = true;
	if (after && !number_parse(after, false, &request->after_op))
		return usage_error("tail: --after %s is not an op's number", after);
	if (args_has(a, "keep") && !ctl->machine)
		return usage_error("tail: --keep counts the ops of one machine; give -m NAME");
	if (after && !ctl->machine)
		return usage_error("tail: --after counts the ops of one machine; give -m NAME");
	request->ops = must(calloc(MAX_FILTERS, sizeof *request->ops));
	request->kinds = must(calloc(MAX_FILTERS, sizeof *request->kinds));
	for (i = 0; rc == EXIT_DONE && i < MAX_FILTERS && (text = args_text_at(a, "op", i)); i++)
		rc = add_op(request, text);
	for (i = 0; rc == EXIT_DONE && i < MAX_FILTERS && (text = args_text_at(a, "event", i)); i++)
		rc = add_event(request, text);
	if (rc == EXIT_DONE &&
	    (args_text_at(a, "op", MAX_FILTERS) || args_text_at(a, "event", MAX_FILTERS)))
		rc = usage_error("tail: at most %d names", MAX_FILTERS);
	return rc;
}

/* Where a tail of one machine is. */
struct position {
	bool known;    /* ops up to `last` are not wanted (again): op 0, too */
	uint64_t last; /* the last op that was printed */
};

static void print_records(struct ctl *ctl, const Zoned__V1__TailResponse *response, bool events,
			  const struct position *at)
{
	size_t i;

	for (i = 0; i < response->n_records; i++)
		if (at->known && response->records[i]->op <= at->last)
			continue;
		else if (ctl->json)
			print_record_json(response->records[i], events);
		else
			print_record(response->records[i], events);
	fflush(stdout);
	if (response->behind)
		complain("tail: %llu ops behind", (unsigned long long)response->behind);
}

/* Once, until the stream ends: ZONED_END, or 0 when nobody reads what is printed. */
static int follow_stream(struct ctl *ctl, const Zoned__V1__TailRequest *request, bool events,
			 bool keep, struct position *at)
{
	uint32_t timeout = ctl->timeout_given ? ctl->timeout_ms : ZONED_NO_TIMEOUT;
	struct zoned_stream *s;
	ProtobufCMessage *message;
	int rc;

	rc = zoned_stream_open(ctl->z, "/zoned.v1.History/Tail",
			       &zoned__v1__tail_response__descriptor, timeout, &s);
	if (rc)
		return rc;
	rc = zoned_stream_send(s, &request->base);
	if (!rc)
		rc = zoned_stream_end(s);
	while (!rc && !(rc = zoned_stream_receive(s, ZONED_NO_TIMEOUT, &message))) {
		const Zoned__V1__TailResponse *response = (Zoned__V1__TailResponse *)message;

		print_records(ctl, response, events, at);
		if (response->n_records) {
			at->last = response->records[response->n_records - 1]->op;
			at->known = keep;
		}
		message_free(message);
		if (ferror(stdout))
			break;
	}
	zoned_stream_close(s);
	return rc;
}

/* To follow from now on, and still from there after a reconnect, now has to be a number. */
static int find_now(struct ctl *ctl, Zoned__V1__TailRequest *request, struct position *at)
{
	Zoned__V1__GetRequest get = ZONED__V1__GET_REQUEST__INIT;
	ProtobufCMessage *reply;
	int rc;

	if (request->after_op || request->from_start)
		return EXIT_DONE;
	get.machine = request->machine;
	rc = ctl_call(ctl, "tail", "/zoned.v1.Machines/Get", &get.base,
		      &zoned__v1__machine__descriptor, &reply);
	if (rc != EXIT_DONE)
		return rc;
	request->after_op = ((Zoned__V1__Machine *)reply)->ops;
	request->from_start = !request->after_op;
	*at = (struct position){true, request->after_op};
	message_free(reply);
	return EXIT_DONE;
}

/* Until there is a daemon again. */
static void wait_for_daemon(struct ctl *ctl)
{
	static const struct timespec pause = {.tv_nsec = 100000000};
	char err[512];

	zoned_close(ctl->z);
	ctl->z = NULL;
	do
		nanosleep(&pause, NULL);
	while (zoned_connect(&ctl->options, &ctl->z, err, sizeof err));
}

static int follow(struct ctl *ctl, Zoned__V1__TailRequest *request, bool events, bool keep)
{
	struct position at = {.last = request->after_op};
	int rc = ctl_connect(ctl);

	if (rc == EXIT_UNREACHABLE && keep) {
		wait_for_daemon(ctl);
		rc = EXIT_DONE;
	}
	if (rc == EXIT_DONE && keep)
		rc = find_now(ctl, request, &at);
	if (rc != EXIT_DONE)
		return rc;
	for (;;) {
		rc = follow_stream(ctl, request, events, keep, &at);
		if (!keep ||
		    (rc != ZONED_UNREACHABLE && rc != ZONED_LOST && rc != ZONED_UNAVAILABLE))
			break;
		wait_for_daemon(ctl);
		if (at.last) {
			request->after_op = at.last;
			request->from_start = false;
		}
	}
	if (rc == ZONED_END || rc == 0 || (rc == ZONED_DEADLINE_EXCEEDED && ctl->timeout_given)) {
		rc = EXIT_DONE;
	} else {
		rc = ctl_failed(ctl, "tail", rc);
		if (at.last && ctl->machine)
			fprintf(stderr, "Go on with: zonectl tail -m %s --after %llu\n",
				ctl->machine, (unsigned long long)at.last);
	}
	return rc;
}

int tail_command(struct ctl *ctl, int argc, char **argv)
{
	ProtobufCMessage *request = message_new(&zoned__v1__tail_request__descriptor);
	struct args a = {0};
	int rc = args_parse(ctl, "tail", argc, argv, tail_flags, NR_TAIL_FLAGS, &a);

	if (rc != EXIT_DONE)
		goto out;
	if (ctl->help) {
		printf("zonectl tail - follow ops and events as they are committed\n\n"
		       "usage: zonectl tail [-m MACHINE] [flags]\n\n"
		       "Without -m: every machine. Without --after and --from-start: from now "
		       "on.\n\n");
		print_flags("flags:", tail_flags, NR_TAIL_FLAGS);
		print_flags("\nfor every command:", global_flags, nr_global_flags);
		goto out;
	}
	rc = args_limit_words(&a, "tail", 0);
	if (rc == EXIT_DONE)
		rc = build(ctl, &a, (Zoned__V1__TailRequest *)request);
	if (rc == EXIT_DONE)
		rc = follow(ctl, (Zoned__V1__TailRequest *)request, !args_has(&a, "ops-only"),
			    args_has(&a, "keep"));
out:
	message_free(request);
	args_free(&a);
	return rc;
}
