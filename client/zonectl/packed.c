/*
 * packed.c - ops and their results in protobuf's wire format.
 *
 * Fields with numbers that the contract does not know are skipped, a field that occurs
 * twice counts by its last occurrence, and the pieces of a list add up: as in every
 * protobuf. The daemon's own codec is server/rpc/codec.c.
 */
#include "packed.h"

enum { CONTEXT_FIELD = 1, OUTCOME_FIELD = 1 }; /* of every op, and of every result */
enum { OUTCOME_OP = 1, OUTCOME_STATUS = 2, OUTCOME_DETAIL = 3 };

/* ---- ops ---- */

static void write_context(struct wire_buffer *b, const Zoned__V1__OpContext *c)
{
	size_t length = zoned__v1__op_context__get_packed_size(c);

	wire_put_tag(b, CONTEXT_FIELD, WIRE_BYTES);
	wire_put_varint(b, length);
	wire_reserve(b, length);
	b->length += zoned__v1__op_context__pack(c, b->bytes + b->length);
}

static void write_list(struct wire_buffer *b, uint32_t number, const struct arguments *a)
{
	const uint32_t *words = a->data;
	size_t begin, i;

	if (!a->length)
		return;
	begin = wire_begin(b, number);
	for (i = 0; i < a->length; i++)
		wire_put_varint(b, words[i]);
	wire_end(b, begin);
}

void packed_op_write(struct wire_buffer *b, const struct contract_op *op,
		     const Zoned__V1__OpContext *context, const struct arguments *a)
{
	const struct contract_field *f;
	unsigned i;

	if (context)
		write_context(b, context);
	for (i = 0; i < op->args.nr_ints; i++) {
		f = &op->args.ints[i];
		/* A negative number has all its ten bytes. */
		wire_put_integer(b, f->number,
				 f->kind == FIELD_I32 ? (uint64_t)(int32_t)a->ints[i] : a->ints[i]);
	}
	f = op->args.data;
	if (f && f->kind == FIELD_U32_LIST)
		write_list(b, f->number, a);
	else if (f)
		wire_put_bytes(b, f->number, a->data, a->length);
}

/* ---- results ---- */

static bool read_outcome(struct wire_reader r, struct packed_result *ret)
{
	uint32_t field, type;
	uint64_t value;

	ret->has_outcome = true;
	while (r.at < r.end) {
		if (!wire_tag(&r, &field, &type))
			return false;
		if (field == OUTCOME_DETAIL && type == WIRE_BYTES) {
			if (!wire_bytes(&r, &ret->detail))
				return false;
		} else if (type == WIRE_VARINT) {
			if (!wire_varint(&r, &value))
				return false;
			if (field == OUTCOME_OP)
				ret->number = value;
			else if (field == OUTCOME_STATUS)
				ret->status = (uint32_t)value;
		} else if (!wire_skip(&r, type)) {
			return false;
		}
	}
	return true;
}

static bool read_data(const struct contract_field *f, struct wire_reader bytes,
		      struct wire_buffer *list, struct packed_result *ret)
{
	uint64_t value;

	if (f->kind != FIELD_U32_LIST) {
		ret->data = bytes;
		return true;
	}
	while (bytes.at < bytes.end) {
		if (!wire_varint(&bytes, &value))
			return false;
		wire_put_word(list, (uint32_t)value);
	}
	return true;
}

/* A varint as the field's type reads it. */
static uint64_t narrow(enum contract_field_kind kind, uint64_t value)
{
	switch (kind) {
	case FIELD_BOOL: return value != 0;
	case FIELD_U64: return value;
	default: return (uint32_t)value;
	}
}

static void take_integer(const struct contract_op *op, uint32_t field, uint64_t value,
			 struct wire_buffer *list, struct packed_result *ret)
{
	const struct contract_field *data = op->values.data;
	unsigned i;

	for (i = 0; i < op->values.nr_ints; i++)
		if (op->values.ints[i].number == field) {
			ret->values[i] = narrow(op->values.ints[i].kind, value);
			return;
		}
	if (data && data->number == field && data->kind == FIELD_U32_LIST)
		wire_put_word(list, (uint32_t)value);
}

bool packed_result_read(const struct contract_op *op, struct wire_reader message,
			struct wire_buffer *list, struct packed_result *ret)
{
	const struct contract_field *data = op->values.data;
	struct wire_reader bytes;
	uint32_t field, type;
	uint64_t value;
	bool ok = true;

	*ret = (struct packed_result){0};
	list->length = 0;
	while (ok && message.at < message.end) {
		if (!wire_tag(&message, &field, &type))
			return false;
		if (type == WIRE_VARINT) {
			ok = wire_varint(&message, &value);
			if (ok)
				take_integer(op, field, value, list, ret);
		} else if (type == WIRE_BYTES) {
			ok = wire_bytes(&message, &bytes);
			if (ok && field == OUTCOME_FIELD)
				ok = read_outcome(bytes, ret);
			else if (ok && data && data->number == field)
				ok = read_data(data, bytes, list, ret);
		} else {
			ok = wire_skip(&message, type);
		}
	}
	if (data && data->kind == FIELD_U32_LIST)
		ret->data = (struct wire_reader){list->bytes, list->bytes + list->length};
	return ok;
}
