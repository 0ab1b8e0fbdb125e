/*
 * history_service.c - the service History: rows of a query, and ops as they are
 * committed.
 *
 * Both are streams out of the history's thread pool, page by page. The next page is
 * asked for when what has been sent is written but for QUEUE_HIGH bytes, so that a
 * slow reader holds up nothing but itself.
 *
 * An op with more events than fit a message is sent as several records of the same
 * number, each with the next of its events; an event's index says where it belongs.
 */
#include <stdio.h>

#include "contract_tables.h"
#include "rpc_priv.h"
#include "zoned/v1/history.pb-c.h"

enum {
	QUEUE_HIGH = 1 << 20,
	PAGE_BYTES = 1 << 20,
};

/* A stream of either kind. */
struct stream {
	struct net_call *call; /* NULL: gone */
	struct history_query *query;
	struct history_tail *tail;
	bool waiting; /* a page is sent, the next not yet asked for */
	struct wire_buffer out;
	struct stream *next, *prev; /* ring of all tails */
};

static struct stream tails = {.next = &tails, .prev = &tails};

static struct stream *stream_new(struct net_call *call)
{
	struct stream *s = calloc(1, sizeof *s);

	if (!s)
		abort();
	s->call = call;
	s->next = s->prev = s;
	net_call_set_user(call, s);
	return s;
}

static void stream_free(struct stream *s)
{
	s->prev->next = s->next;
	s->next->prev = s->prev;
	wire_free(&s->out);
	free(s);
}

static void stream_send(struct stream *s)
{
	if (s->call && s->out.length) {
		net_send(s->call, s->out.bytes, s->out.length);
		turn_wake(rpc.turn);
	}
	s->out.length = 0;
}

/* Asks for the next page, now or once the client has taken enough. */
static void stream_go_on(struct stream *s)
{
	if (s->call && net_queued(s->call) >= QUEUE_HIGH) {
		s->waiting = true;
		return;
	}
	s->waiting = false;
	if (s->query)
		history_query_continue(s->query);
	else if (s->tail)
		history_tail_continue(s->tail);
}

static const char *error_text(int error, const char *message)
{
	return message && *message	  ? message
	       : error == HISTORY_TIMEOUT ? "the query ran longer than it may"
					  : "the history cannot be read";
}

static enum net_status status_of(int error)
{
	switch (error) {
	case HISTORY_OK: return NET_OK;
	case HISTORY_SQL: return NET_INVALID_ARGUMENT;
	case HISTORY_TIMEOUT: return NET_DEADLINE_EXCEEDED;
	case HISTORY_ABORTED: return NET_CANCELLED;
	case HISTORY_BUSY:
	case HISTORY_FULL:
	case HISTORY_WAL: return NET_RESOURCE_EXHAUSTED;
	default: return NET_INTERNAL;
	}
}

/* The last that the history says of a stream. */
static void stream_end(struct stream *s, int error, const char *message)
{
	struct net_call *call = s->call;

	s->query = NULL;
	s->tail = NULL;
	if (call) {
		net_call_set_user(call, NULL);
		stream_send(s);
		net_finish(call, status_of(error), error ? error_text(error, message) : NULL);
		turn_wake(rpc.turn);
	}
	stream_free(s);
}

static void stream_writable(struct net_call *call)
{
	struct stream *s = net_call_user(call);

	if (s && !rpc_unary_is_waiting(call) && s->waiting)
		stream_go_on(s);
}

static void stream_closed(struct net_call *call, enum net_end end)
{
	struct stream *s = net_call_user(call);

	(void)end;
	if (!s || rpc_unary_is_waiting(call))
		return;
	/* It is freed when the history has said its last word. */
	s->call = NULL;
	if (s->query)
		history_query_cancel(s->query);
	else if (s->tail)
		history_tail_cancel(s->tail);
}

static void refuse(struct net_call *call, const char *text)
{
	net_call_set_user(call, NULL);
	net_finish(call, NET_INVALID_ARGUMENT, text);
	turn_wake(rpc.turn);
}

/* ---- Query ---- */

enum { RESPONSE_COLUMNS = 1, RESPONSE_ROWS = 2, RESPONSE_TRUNCATED = 3 };
enum { COLUMN_NAME = 1, COLUMN_TYPE = 2 };
enum { ROW_VALUES = 1 };
enum { V_NULL = 1, V_INTEGER = 2, V_REAL = 3, V_TEXT = 4, V_BLOB = 5 };

static void query_columns(void *user, unsigned nr, const char *const names[],
			  const char *const types[])
{
	struct stream *s = user;

	for (unsigned i = 0; i < nr; i++) {
		size_t begin = wire_begin(&s->out, RESPONSE_COLUMNS);

		wire_put_text(&s->out, COLUMN_NAME, names[i]);
		wire_put_text(&s->out, COLUMN_TYPE, types[i] ? types[i] : "");
		wire_end(&s->out, begin);
	}
}

/* A member of a oneof is written also when it is 0 or empty. */
static void write_value(struct wire_buffer *b, const struct history_value *v)
{
	size_t begin = wire_begin(b, ROW_VALUES);

	switch (v->type) {
	case VALUE_NULL:
		wire_put_tag(b, V_NULL, WIRE_VARINT);
		wire_put_varint(b, 1);
		break;
	case VALUE_INTEGER:
		wire_put_tag(b, V_INTEGER, WIRE_VARINT);
		wire_put_varint(b, (uint64_t)v->integer);
		break;
	case VALUE_REAL:
		wire_put_tag(b, V_REAL, WIRE_FIXED64);
		wire_reserve(b, sizeof v->real);
		/* Little-endian, as the wire wants it, on every host that we run on. */
		memcpy(b->bytes + b->length, &v->real, sizeof v->real);
		b->length += sizeof v->real;
		break;
	case VALUE_TEXT:
		/* SQLite stores what it is given; a string has to be UTF-8. */
		wire_put_bytes_always(b, codec_is_utf8(v->bytes, v->length) ? V_TEXT : V_BLOB,
				      v->bytes, v->length);
		break;
	case VALUE_BLOB: wire_put_bytes_always(b, V_BLOB, v->bytes, v->length); break;
	}
	wire_end(b, begin);
}

static void query_page(void *user, const struct history_value *values, unsigned nr_rows,
		       unsigned nr_columns)
{
	struct stream *s = user;

	for (unsigned row = 0; row < nr_rows; row++) {
		size_t begin = wire_begin(&s->out, RESPONSE_ROWS);

		for (unsigned i = 0; i < nr_columns; i++)
			write_value(&s->out, values++);
		wire_end(&s->out, begin);
		if (s->out.length >= PAGE_BYTES)
			stream_send(s);
	}
	stream_send(s);
	stream_go_on(s);
}

static void query_done(void *user, int error, bool truncated, const char *message)
{
	struct stream *s = user;

	wire_put_integer(&s->out, RESPONSE_TRUNCATED, truncated);
	stream_end(s, error, message);
}

static struct history_value parameter(const Zoned__V1__Value *from)
{
	struct history_value v = {.type = VALUE_NULL};

	switch (from->value_case) {
	case ZONED__V1__VALUE__VALUE_INTEGER:
		v.type = VALUE_INTEGER;
		v.integer = from->integer;
		break;
	case ZONED__V1__VALUE__VALUE_REAL:
		v.type = VALUE_REAL;
		v.real = from->real;
		break;
	case ZONED__V1__VALUE__VALUE_TEXT:
		v.type = VALUE_TEXT;
		v.bytes = (const uint8_t *)from->text;
		v.length = strlen(from->text);
		break;
	case ZONED__V1__VALUE__VALUE_BLOB:
		v.type = VALUE_BLOB;
		v.bytes = from->blob.data;
		v.length = from->blob.len;
		break;
	default: break;
	}
	return v;
}

/* Limits of QueryRequest's annotations. */
enum { PARAMETERS_MAX = 32, TIMEOUT_MAX_MS = 600000 };

static void query_start(struct net_call *call, const Zoned__V1__QueryRequest *request)
{
	struct history_value parameters[PARAMETERS_MAX];
	struct stream *s;
	int error;

	if (!*request->sql) {
		refuse(call, "sql: not given");
		return;
	}
	if (request->n_parameters > PARAMETERS_MAX || request->timeout_ms > TIMEOUT_MAX_MS) {
		refuse(call, "parameters: at most 32; timeout_ms: at most 600000");
		return;
	}
	for (size_t i = 0; i < request->n_parameters; i++)
		parameters[i] = parameter(request->parameters[i]);
	s = stream_new(call);
	error = history_query_start(rpc.history,
				    &(struct history_query_options){
					.sql = request->sql,
					.parameters = parameters,
					.nr_parameters = (unsigned)request->n_parameters,
					.row_limit = request->row_limit,
					.timeout_ms = request->timeout_ms,
					.page_bytes = PAGE_BYTES,
					.user = s,
					.columns = query_columns,
					.page = query_page,
					.done = query_done,
				    },
				    &s->query);
	if (error)
		stream_end(s, error, "the query cannot be run now");
}

static void query_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	Zoned__V1__QueryRequest *request;

	if (!rpc_unary_take(call))
		return;
	request = zoned__v1__query_request__unpack(NULL, length, bytes);
	if (!request) {
		refuse(call, "the message is malformed");
		return;
	}
	query_start(call, request);
	zoned__v1__query_request__free_unpacked(request, NULL);
}

/* ---- Tail ---- */

enum { TAIL_RECORDS = 1, TAIL_BEHIND = 2 };
enum record_field {
	RECORD_MACHINE = 1,
	RECORD_OP = 2,
	RECORD_NAME = 3,
	RECORD_TIME_NS = 4,
	RECORD_CPU = 5,
	RECORD_TASK = 6,
	RECORD_OWNER = 7,
	RECORD_STATUS = 8,
	RECORD_ARGS = 9,
	RECORD_VALUES = 10,
	RECORD_EVENTS = 11,
};
enum { EVENT_INDEX = 1, EVENT_KIND = 2, EVENT_VALUES = 3 };

static void write_packed(struct wire_buffer *b, uint32_t field, const uint64_t *values, unsigned nr)
{
	size_t begin;

	if (!nr)
		return;
	begin = wire_begin(b, field);
	for (unsigned i = 0; i < nr; i++)
		wire_put_varint(b, values[i]);
	wire_end(b, begin);
}

/* An event's words as its message's fields: a uint64 takes two, low one first. */
static void write_event(struct wire_buffer *b, uint32_t index, const struct engine_event *ev)
{
	const struct contract_fields *fields;
	size_t begin = wire_begin(b, RECORD_EVENTS);
	uint64_t values[EVENT_WORDS];
	unsigned word = 0, nr = 0;

	wire_put_integer(b, EVENT_INDEX, index);
	wire_put_integer(b, EVENT_KIND, ev->kind);
	fields = ev->kind < EVENT_KIND_END ? &contract_events[ev->kind].fields : NULL;
	for (; fields && nr < fields->nr_ints; nr++) {
		values[nr] = ev->w[word++];
		if (fields->ints[nr].kind == FIELD_U64)
			values[nr] |= (uint64_t)ev->w[word++] << 32;
	}
	write_packed(b, EVENT_VALUES, values, nr);
	wire_end(b, begin);
}

/* A machine that has ended is known by its number alone. */
static void write_machine(struct wire_buffer *b, const struct history_record *r)
{
	struct machine *m = machines_find_id(rpc.machines, r->machine);
	char number[24];

	if (!m) {
		snprintf(number, sizeof number, "#%llu", (unsigned long long)r->machine);
		wire_put_text(b, RECORD_MACHINE, number);
		return;
	}
	wire_put_text(b, RECORD_MACHINE, machine_name(m));
	wire_put_text(b, RECORD_OWNER, machine_label_text(m, r->owner));
}

static const char *status_name(uint32_t status)
{
	for (unsigned i = 0; i < contract_nr_enums; i++) {
		const struct contract_enum *e = &contract_enums[i];

		if (strcmp(e->name, "Status") == 0)
			return status < e->nr_values ? e->values[status].name : "";
	}
	return "";
}

/* A record with as many of its events, from `first` on, as a message takes. Returns
 * the first event that is left. */
static uint32_t write_record(struct wire_buffer *b, const struct history_record *r, uint32_t first)
{
	const struct contract_op *op = &contract_ops[r->code < OP_CODE_END ? r->code : 0];
	size_t begin = wire_begin(b, TAIL_RECORDS);

	write_machine(b, r);
	wire_put_integer(b, RECORD_OP, r->op);
	/* Op 0 is the machine's own beginning. */
	wire_put_text(b, RECORD_NAME, op->code ? op->name : "Create");
	wire_put_integer(b, RECORD_TIME_NS, (uint64_t)r->time_ns);
	wire_put_integer(b, RECORD_CPU, r->cpu);
	wire_put_integer(b, RECORD_TASK, r->task);
	wire_put_text(b, RECORD_STATUS, status_name(r->status));
	write_packed(b, RECORD_ARGS, r->args, op->args.nr_ints);
	write_packed(b, RECORD_VALUES, r->values, op->values.nr_ints);
	while (first < r->nr_events && b->length < PAGE_BYTES) {
		write_event(b, first, &r->events[first]);
		first++;
	}
	wire_end(b, begin);
	return first;
}

static void tail_records(void *user, const struct history_record *records, unsigned nr,
			 uint64_t behind)
{
	struct stream *s = user;

	for (unsigned i = 0; i < nr; i++) {
		uint32_t first = 0;

		do {
			first = write_record(&s->out, &records[i], first);
			if (s->out.length >= PAGE_BYTES)
				stream_send(s);
		} while (first < records[i].nr_events);
	}
	wire_put_integer(&s->out, TAIL_BEHIND, behind);
	stream_send(s);
	stream_go_on(s);
}

static void tail_done(void *user, int error, const char *message)
{
	stream_end(user, error, message);
}

static bool find_op(const char *name, uint32_t *ret)
{
	for (uint32_t code = 1; code < OP_CODE_END; code++) {
		if (contract_ops[code].code && strcmp(contract_ops[code].name, name) == 0) {
			*ret = code;
			return true;
		}
	}
	return false;
}

static bool read_zones(struct net_call *call, const Zoned__V1__TailRequest *request,
		       struct history_tail_options *options)
{
	char text[128];

	for (size_t i = 0; i < request->n_zones; i++) {
		uint32_t zone = (uint32_t)request->zones[i];

		if (zone > ZONE_MOVABLE) {
			snprintf(text, sizeof text, "zones: %u is no zone", zone);
			refuse(call, text);
			return false;
		}
		options->zone_mask |= 1U << zone;
	}
	if (!options->zone_mask || !options->event_mask ||
	    options->event_mask & history_kinds_with_zone())
		return true;
	refuse(call, "zones: events of these kinds name no zone");
	return false;
}

static bool read_filters(struct net_call *call, const Zoned__V1__TailRequest *request,
			 struct history_tail_options *options)
{
	char text[128];
	uint32_t code;

	for (size_t i = 0; i < request->n_ops; i++) {
		if (!find_op(request->ops[i], &code)) {
			snprintf(text, sizeof text, "ops: no op is called %.40s", request->ops[i]);
			refuse(call, text);
			return false;
		}
		options->op_mask[code / 64] |= UINT64_C(1) << code % 64;
	}
	for (size_t i = 0; i < request->n_kinds; i++) {
		uint32_t kind = (uint32_t)request->kinds[i];

		if (!kind || kind >= EVENT_KIND_END || !contract_events[kind].kind) {
			snprintf(text, sizeof text, "kinds: %u is no kind of event", kind);
			refuse(call, text);
			return false;
		}
		options->event_mask |= UINT64_C(1) << kind;
	}
	return read_zones(call, request, options);
}

static void tail_start(struct net_call *call, const Zoned__V1__TailRequest *request)
{
	struct history_tail_options options = {
	    .after_op = request->after_op,
	    .from_start = request->from_start,
	    .every_op = request->every_op,
	    .no_follow = request->no_follow,
	    .records = tail_records,
	    .done = tail_done,
	};
	struct machine *m;
	struct stream *s;
	int error;

	if (!read_filters(call, request, &options))
		return;
	if (*request->machine) {
		m = rpc_find_machine(call, request->machine, strlen(request->machine));
		if (!m)
			return;
		options.machine = machine_id(m);
	} else if (request->after_op) {
		refuse(call, "after_op: only with a machine");
		return;
	}
	s = stream_new(call);
	options.user = s;
	error = history_tail_start(rpc.history, &options, &s->tail);
	if (error) {
		stream_end(s, error, "the tail cannot be opened now");
		return;
	}
	s->next = tails.next;
	s->prev = &tails;
	s->next->prev = s->prev->next = s;
}

static void tail_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	Zoned__V1__TailRequest *request;

	if (!rpc_unary_take(call))
		return;
	request = zoned__v1__tail_request__unpack(NULL, length, bytes);
	if (!request) {
		refuse(call, "the message is malformed");
		return;
	}
	tail_start(call, request);
	zoned__v1__tail_request__free_unpacked(request, NULL);
}

/* Tails follow for ever: the daemon's end is theirs. */
void history_service_stop(void)
{
	struct stream *s, *next;

	for (s = tails.next; s != &tails; s = next) {
		struct net_call *call = s->call;

		next = s->next;
		if (!call)
			continue;
		net_call_set_user(call, NULL);
		s->call = NULL;
		net_finish(call, NET_UNAVAILABLE, "the daemon is going down");
		history_tail_cancel(s->tail);
	}
}

static const struct net_handler query_handler = {
    .open = rpc_unary_open,
    .message = query_message,
    .half_close = rpc_unary_half_close,
    .writable = stream_writable,
    .closed = stream_closed,
};

static const struct net_handler tail_handler = {
    .open = rpc_unary_open,
    .message = tail_message,
    .half_close = rpc_unary_half_close,
    .writable = stream_writable,
    .closed = stream_closed,
};

const struct net_method history_methods[] = {
    {.path = "/zoned.v1.History/Query", .handler = &query_handler},
    {.path = "/zoned.v1.History/Tail", .handler = &tail_handler},
    {.path = NULL},
};
