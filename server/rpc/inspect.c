/*
 * inspect.c - looks into a machine and writes what it sees straight into the answer.
 *
 * Rows go into the report as they come, text beside them; there is no message in
 * memory but the bytes that will be sent. A report that does not fit a message is
 * cut at a row and says so. Rows have REPORT_MAX, the text what they leave.
 */
#include "inspect.h"

#include <stdio.h>

#include "contract_tables.h"
#include "rpc_priv.h"

enum { REPORT_MAX = MESSAGE_MAX / 2 };

/* Fields of InspectRequest and InspectResponse (proto/zoned/v1/inspect.proto). */
enum { REQUEST_MACHINE = 1, REQUEST_AT = 2, MOMENT_OP = 1 };
enum { RESPONSE_OP = 1, RESPONSE_TEXT = 2, RESPONSE_TRUNCATED = 3 };

struct sink {
	struct inspect_sink base;
	struct wire_buffer *out;
	unsigned row; /* of contract_inspections */
	size_t limit;
	bool truncated;
};

static void sink_row(struct inspect_sink *base, u32 type, const u64 *values, u32 nr_values)
{
	struct sink *s = (struct sink *)base;

	/* A row is at most 32 columns of 12 bytes. */
	if (s->truncated || s->out->length + 512 > s->limit) {
		s->truncated = true;
		return;
	}
	codec_write_row(s->out, s->row, type, values, nr_values);
}

static void sink_text(struct inspect_sink *base, const char *bytes, u32 length)
{
	struct sink *s = (struct sink *)base;

	if (s->truncated || s->out->length + length > s->limit) {
		s->truncated = true;
		return;
	}
	wire_reserve(s->out, length);
	memcpy(s->out->bytes + s->out->length, bytes, length);
	s->out->length += length;
}

/* In a thread of the pool. Rows and text are asked for apart, so that each knows what the
 * other has left. */
static void see_report(struct machine_look *l)
{
	struct rpc_question *q = rpc_looking(l);
	const struct contract_inspection *info = &contract_inspections[q->row];
	struct rpc_seen *seen = &q->seen;
	struct sink s = {
	    .base = {.text = sink_text, .row = sink_row, .want_rows = true},
	    .out = &seen->rows,
	    .row = q->row,
	    .limit = REPORT_MAX,
	};

	seen->status = look_inspect(l, info->code, q->args, &s.base);
	seen->truncated = s.truncated;
	if (seen->status != STATUS_OK)
		return;
	s.base.want_rows = false;
	s.base.want_text = true;
	s.out = &seen->text;
	s.limit = MESSAGE_MAX - seen->rows.length;
	s.truncated = false;
	seen->status = look_inspect(l, info->code, q->args, &s.base);
	seen->truncated |= s.truncated;
}

static void tell_report(struct rpc_question *q, struct machine *m)
{
	const struct rpc_seen *seen = &q->seen;
	struct wire_buffer *b = &rpc.scratch;

	if (seen->status == STATUS_OK) {
		b->length = 0;
		wire_put_integer(b, RESPONSE_OP, q->op);
		wire_put_bytes(b, RESPONSE_TEXT, seen->text.bytes, seen->text.length);
		wire_put_integer(b, RESPONSE_TRUNCATED, seen->truncated);
		wire_put_bytes_always(b, contract_inspections[q->row].code, seen->rows.bytes,
				      seen->rows.length);
		rpc_reply_scratch(q->call);
		return;
	}
	if (q->look.found_lost)
		rpc_fail(q->call, MACHINE_E_IS_LOST, machine_reason(m));
	else if (seen->status == STATUS_NOT_FOUND)
		net_finish(q->call, NET_NOT_FOUND, "the machine has no such thing");
	else
		net_finish(q->call, NET_INVALID_ARGUMENT, "the machine cannot answer that now");
	turn_wake(rpc.turn);
}

/* After a failed commit the machine is RECOVERING, and says so. */
static bool answer_inspect(struct rpc_question *q, enum machine_error error, const char *why)
{
	(void)error, (void)why;
	return rpc_look(q, see_report, tell_report);
}

/* Which of contract_inspections has this number, or contract_nr_inspections. */
static unsigned find_question(uint32_t code)
{
	unsigned i = 0;

	while (i < contract_nr_inspections && contract_inspections[i].code != code)
		i++;
	return i;
}

static bool read_moment(struct wire_reader moment, uint64_t *ret_op)
{
	bool ok = true;

	while (ok && moment.at < moment.end) {
		uint32_t field, type;

		ok = wire_tag(&moment, &field, &type);
		if (ok && field == MOMENT_OP && type == WIRE_VARINT)
			ok = wire_varint(&moment, ret_op);
		else if (ok)
			ok = wire_skip(&moment, type);
	}
	return ok;
}

void inspect_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	struct wire_reader message = {bytes, bytes + length}, name = {NULL, NULL}, question = name;
	struct wire_reader moment = name;
	bool is_past = false;
	uint64_t op = 0, machine;
	unsigned row = contract_nr_inspections;
	struct codec_error why = {"the message is malformed"};
	struct rpc_question *q;
	uint64_t args[OP_ARGS];
	struct machine *m;
	bool ok = true;

	if (!rpc_unary_take(call))
		return;
	while (ok && message.at < message.end) {
		uint32_t field, type;

		ok = wire_tag(&message, &field, &type);
		if (ok && type == WIRE_BYTES && field == REQUEST_MACHINE) {
			ok = wire_bytes(&message, &name);
		} else if (ok && type == WIRE_BYTES && field == REQUEST_AT) {
			is_past = true;
			ok = wire_bytes(&message, &moment) && read_moment(moment, &op);
		} else if (ok && type == WIRE_BYTES &&
			   find_question(field) < contract_nr_inspections) {
			row = find_question(field);
			ok = wire_bytes(&message, &question);
		} else if (ok) {
			ok = wire_skip(&message, type);
		}
	}
	if (ok && row == contract_nr_inspections) {
		snprintf(why.text, sizeof why.text, "no question that this daemon knows is asked");
		ok = false;
	}
	if (!ok || !codec_read_question(row, question, args, &why)) {
		net_finish(call, NET_INVALID_ARGUMENT, why.text);
		turn_wake(rpc.turn);
		return;
	}
	if (is_past) {
		if (!rpc_find_past(call, (const char *)name.at, (size_t)(name.end - name.at),
				   &machine))
			return;
	} else {
		m = rpc_find_machine(call, (const char *)name.at, (size_t)(name.end - name.at));
		if (!m)
			return;
		machine = machine_id(m);
	}
	q = rpc_ask(call, machine, answer_inspect);
	if (is_past)
		rpc_ask_past(q, op);
	q->row = row;
	memcpy(q->args, args, sizeof args);
}
