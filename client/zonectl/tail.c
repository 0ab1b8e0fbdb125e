/*
 * tail.c - follows the history: every op as it is committed, with its events.
 *
 * One line an op, its events indented below; --json: one object a line. A reader that
 * falls behind is told how far. One that follows a machine outlives the connection, and the
 * daemon: ops have numbers, so it asks the next one for what comes after the last that it
 * printed. Who follows every machine has no such number and is told that the connection ended.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "zonectl.h"

enum { MAX_FILTERS = 64 };

static const struct flag tail_flags[] = {
    {"op", 0, "NAME", "these ops only; may be repeated"},
    {"event", 0, "NAME", "ops with these events only; may be repeated"},
    {"zone", 0, "NAME", "ops with events in these zones only; may be repeated"},
    {"ops-only", 0, NULL, "do not print events"},
    {"after", 0, "N", "begin after this op of the machine"},
    {"from-start", 0, NULL, "begin with the first op"},
    {"no-follow", 0, NULL, "end when caught up"},
    {"once", 0, NULL, "end when the connection does"},
    {"keep", 0, NULL, "wait for a daemon that is not there yet; with -m"},
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

static int add_zone(Zoned__V1__TailRequest *request, const char *name)
{
	const struct contract_enum *zones = contract_enum_by_name("Zone");
	const struct contract_value *zone = enum_find(zones, name);

	if (!zone)
		return usage_error("tail: no zone %s; there are DMA, NORMAL, HIGHMEM and MOVABLE",
				   name);
	request->zones[request->n_zones++] = (Zoned__V1__Zone)zone->number;
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
	if (args_has(a, "keep") && (!ctl->machine || args_has(a, "once")))
		return usage_error("tail: --keep counts the ops of one machine; give -m NAME, and "
				   "no --once");
	if (after && !ctl->machine)
		return usage_error("tail: --after counts the ops of one machine; give -m NAME");
	request->ops = must(calloc(MAX_FILTERS, sizeof *request->ops));
	request->kinds = must(calloc(MAX_FILTERS, sizeof *request->kinds));
	request->zones = must(calloc(MAX_FILTERS, sizeof *request->zones));
	for (i = 0; rc == EXIT_DONE && i < MAX_FILTERS && (text = args_text_at(a, "op", i)); i++)
		rc = add_op(request, text);
	for (i = 0; rc == EXIT_DONE && i < MAX_FILTERS && (text = args_text_at(a, "event", i)); i++)
		rc = add_event(request, text);
	for (i = 0; rc == EXIT_DONE && i < MAX_FILTERS && (text = args_text_at(a, "zone", i)); i++)
		rc = add_zone(request, text);
	if (rc == EXIT_DONE &&
	    (args_text_at(a, "op", MAX_FILTERS) || args_text_at(a, "event", MAX_FILTERS) ||
	     args_text_at(a, "zone", MAX_FILTERS)))
		rc = usage_error("tail: at most %d names", MAX_FILTERS);
	return rc;
}

/* Where a tail of one machine is. */
struct position {
	uint64_t machine; /* its number: a name may be another machine's later */
	bool known;	  /* ops up to `last` are not wanted (again): op 0, too */
	uint64_t last;	  /* the last op that was printed */
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

/* A code of the client library's. */
static int find_machine(struct ctl *ctl, const char *name, uint64_t *ret_id, uint64_t *ret_ops)
{
	Zoned__V1__GetRequest get = ZONED__V1__GET_REQUEST__INIT;
	ProtobufCMessage *reply;
	int rc;

	get.machine = (char *)(uintptr_t)name;
	rc = zoned_call(ctl->z, "/zoned.v1.Machines/Get", &get.base,
			&zoned__v1__machine__descriptor, ctl->timeout_ms, &reply);
	if (rc)
		return rc;
	*ret_id = ((Zoned__V1__Machine *)reply)->id;
	*ret_ops = ((Zoned__V1__Machine *)reply)->ops;
	message_free(reply);
	return 0;
}

/* To follow from now on, and still from there after a reconnect, now has to be a number. */
static int find_now(struct ctl *ctl, Zoned__V1__TailRequest *request, struct position *at)
{
	uint64_t ops;
	int rc = find_machine(ctl, request->machine, &at->machine, &ops);

	if (rc)
		return ctl_failed(ctl, "tail", rc);
	if (request->after_op || request->from_start)
		return EXIT_DONE;
	request->after_op = ops;
	request->from_start = !ops;
	at->known = true;
	at->last = ops;
	return EXIT_DONE;
}

/* Is there still somebody who reads what is printed? Waits for a moment. */
static bool pause_and_look(void)
{
	/* Asked for nothing: a pipe or a socket without a reader is an error all the same. */
	struct pollfd out = {.fd = STDOUT_FILENO, .events = 0};
	static const struct timespec moment = {.tv_nsec = 100000000};

	nanosleep(&moment, NULL);
	return poll(&out, 1, 0) <= 0 || !(out.revents & (POLLERR | POLLHUP));
}

/* Until there is a daemon again; false: nobody cares any more. */
static bool wait_for_daemon(struct ctl *ctl)
{
	char err[512];

	zoned_close(ctl->z);
	ctl->z = NULL;
	do {
		if (!pause_and_look())
			return false;
	} while (zoned_connect(&ctl->options, &ctl->z, err, sizeof err));
	return true;
}

static bool is_lost(int rc)
{
	return rc == ZONED_UNREACHABLE || rc == ZONED_LOST || rc == ZONED_UNAVAILABLE;
}

/* Finds the daemon again, and the machine; 0, or a code of the client library's: then there is
 * nothing more to follow, and without a connection nobody to tell. */
static int find_again(struct ctl *ctl, Zoned__V1__TailRequest *request, const struct position *at)
{
	uint64_t id, ops;
	int rc;

	do {
		if (!wait_for_daemon(ctl))
			return ZONED_LOST;
		rc = find_machine(ctl, request->machine, &id, &ops);
	} while (is_lost(rc));
	if (!rc && id != at->machine) {
		complain("tail: %s has ended; this name is another machine's now",
			 request->machine);
		return ZONED_END;
	}
	if (at->last) {
		request->after_op = at->last;
		request->from_start = false;
	}
	return rc;
}

static int follow(struct ctl *ctl, Zoned__V1__TailRequest *request, bool events, bool wait,
		  bool keep)
{
	struct position at = {.last = request->after_op};
	int rc = ctl_connect(ctl);

	if (rc == EXIT_UNREACHABLE && wait)
		rc = wait_for_daemon(ctl) ? EXIT_DONE : rc;
	if (rc == EXIT_DONE && keep)
		rc = find_now(ctl, request, &at);
	if (rc != EXIT_DONE)
		return rc;
	while (is_lost(rc = follow_stream(ctl, request, events, keep, &at)) && keep) {
		complain("tail: the connection is lost; waiting for the daemon, to go on behind op "
			 "%llu",
			 (unsigned long long)at.last);
		rc = find_again(ctl, request, &at);
		if (rc)
			break;
	}
	if (!ctl->z)
		return EXIT_DONE;
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

/* Does it outlive the connection? */
static bool keeps(const struct ctl *ctl, const struct args *a)
{
	return ctl->machine && !args_has(a, "once") && !args_has(a, "no-follow");
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
		       "on. A machine is followed over the loss of a connection, and of the "
		       "daemon: no op\nis left out or repeated. Without -m, or with --once, the "
		       "tail ends then.\n\n");
		print_flags("flags:", tail_flags, NR_TAIL_FLAGS);
		print_flags("\nfor every command:", global_flags, nr_global_flags);
		goto out;
	}
	rc = args_limit_words(&a, "tail", 0);
	if (rc == EXIT_DONE)
		rc = build(ctl, &a, (Zoned__V1__TailRequest *)request);
	if (rc == EXIT_DONE)
		rc = follow(ctl, (Zoned__V1__TailRequest *)request, !args_has(&a, "ops-only"),
			    args_has(&a, "keep"), keeps(ctl, &a));
out:
	message_free(request);
	args_free(&a);
	return rc;
}
