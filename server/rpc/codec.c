/*
 * codec.c - op messages and result messages, by the contract's tables.
 *
 * At start each op's fields are laid out by number, so that a field of a message
 * finds its place by one index. A field that occurs twice counts by its last
 * occurrence, an unknown one is skipped, and a context that occurs twice is merged,
 * as protobuf asks; of a oneof's members the last one stands alone.
 *
 * Deliberately not here: protobuf-c. Its general unpacking of ops costs a tenth of a
 * microsecond and several allocations per op, and its parser in wide use trips over
 * hostile input in ways that this one cannot (no allocation depends on a length that
 * was not checked).
 */
#include "codec.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "contract_tables.h"

enum {
	FIELDS_MAX = 32, /* field numbers of ops, results and questions are below this */
	NO_FIELD = 0xff,
	DATA_FIELD = 0xfe,
	CONTEXT_FIELD = 1,
};

/* One contract_fields by field number. */
struct layout {
	const struct contract_fields *fields;
	uint8_t index[FIELDS_MAX]; /* into fields->ints, or DATA_FIELD, or NO_FIELD */
	uint64_t flags[OP_ARGS];   /* of an integer that is an OR: the bits there are */
};

enum { MAX_INSPECTIONS = 64 };
static struct layout op_layout[OP_CODE_END];
static struct layout question_layout[MAX_INSPECTIONS];

static bool refuse(struct codec_error *why, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static bool refuse(struct codec_error *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why->text, sizeof why->text, format, args);
	va_end(args);
	return false;
}

static bool malformed(struct codec_error *why)
{
	return refuse(why, "the message is malformed");
}

/* ---- the tables ---- */

static uint64_t flags_of(const struct contract_field *f)
{
	uint64_t bits = 0;

	for (unsigned i = 0; i < 2; i++)
		for (unsigned v = 0; f->enums[i] && v < f->enums[i]->nr_values; v++)
			bits |= f->enums[i]->values[v].number;
	return bits;
}

static void lay_out(struct layout *l, const struct contract_fields *fields)
{
	l->fields = fields;
	memset(l->index, NO_FIELD, sizeof l->index);
	for (unsigned i = 0; i < fields->nr_ints; i++) {
		const struct contract_field *f = &fields->ints[i];

		if (f->number >= FIELDS_MAX)
			abort();
		l->index[f->number] = (uint8_t)i;
		if (f->is_flags)
			l->flags[i] = flags_of(f);
	}
	if (!fields->data)
		return;
	if (fields->data->number >= FIELDS_MAX)
		abort();
	l->index[fields->data->number] = DATA_FIELD;
}

void codec_init(void)
{
	for (uint32_t code = 1; code < OP_CODE_END; code++)
		if (contract_ops[code].code)
			lay_out(&op_layout[code], &contract_ops[code].args);
	if (contract_nr_inspections > MAX_INSPECTIONS)
		abort();
	for (unsigned i = 0; i < contract_nr_inspections; i++)
		lay_out(&question_layout[i], &contract_inspections[i].args);
}

/* ---- checks ---- */

bool codec_is_utf8(const void *bytes, size_t length)
{
	/* Least code point that needs so many continuation bytes. */
	static const uint32_t least[4] = {0, 0x80, 0x800, 0x10000};
	/* No bytes may come without a place that they are at. */
	const uint8_t *at = length ? bytes : (const uint8_t *)"", *end = at + length;

	while (at < end) {
		uint8_t lead = *at++;
		unsigned more = lead < 0x80		? 0
				: (lead & 0xe0) == 0xc0 ? 1
				: (lead & 0xf0) == 0xe0 ? 2
				: (lead & 0xf8) == 0xf0 ? 3
							: 4;
		uint32_t point = lead & (0x7fu >> more);

		if (!more)
			continue;
		if (more > 3 || (size_t)(end - at) < more)
			return false;
		for (unsigned i = 0; i < more; i++, at++) {
			if ((*at & 0xc0) != 0x80)
				return false;
			point = point << 6 | (*at & 0x3f);
		}
		if (point < least[more] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
			return false;
	}
	return true;
}

static bool is_enum_value(const struct contract_enum *e, uint64_t value)
{
	/* Most enums count up from 0. */
	if (value < e->nr_values && e->values[value].number == value)
		return true;
	for (unsigned i = 0; i < e->nr_values; i++)
		if (e->values[i].number == value)
			return true;
	return false;
}

static bool check_integer(const struct contract_field *f, uint64_t flags, uint64_t value,
			  struct codec_error *why)
{
	if (f->kind == FIELD_ENUM && !is_enum_value(f->enums[0], value))
		return refuse(why, "%s: %" PRIu64 " is not a value of %s", f->name, value,
			      f->enums[0]->name);
	if (value < f->min || value > f->max)
		return refuse(why,
			      "%s: %" PRIu64 " (%#" PRIx64 ") is not in %#" PRIx64 " to %#" PRIx64,
			      f->name, value, value, f->min, f->max);
	if (f->is_flags && value & ~flags)
		return refuse(why, "%s: %#" PRIx64 " has bits (%#" PRIx64 ") that no %s has",
			      f->name, value, value & ~flags, f->enums[0]->name);
	return true;
}

bool codec_check_integer(const struct contract_field *f, uint64_t value, struct codec_error *why)
{
	return check_integer(f, f->is_flags ? flags_of(f) : 0, value, why);
}

/* As protobuf reads a varint of the field's type. */
static uint64_t narrow(enum contract_field_kind kind, uint64_t value)
{
	switch (kind) {
	case FIELD_BOOL: return value != 0;
	case FIELD_U64: return value;
	default: return (uint32_t)value;
	}
}

/* ---- contexts ---- */

static bool read_label(struct wire_reader text, const char *name, uint32_t max, const char **ret,
		       uint32_t *ret_length, struct codec_error *why)
{
	size_t length = (size_t)(text.end - text.at);

	if (length > max)
		return refuse(why, "%s: %zu bytes, %u fit", name, length, max);
	if (!codec_is_utf8(text.at, length) || memchr(text.at, 0, length))
		return refuse(why, "%s: not a text in UTF-8", name);
	*ret = (const char *)text.at;
	*ret_length = (uint32_t)length;
	return true;
}

/* The fields of zoned.v1.OpContext. Their numbers are the contract's; that they are
 * still so, tests/rpc/test_rpc.c checks against the descriptor. */
enum context_field {
	CONTEXT_MACHINE = 1,
	CONTEXT_CPU = 2,
	CONTEXT_TASK = 3,
	CONTEXT_OWNER = 4,
	CONTEXT_TOKEN = 5,
	CONTEXT_SEQUENCE = 6,
};
enum { CONTEXT_LABEL_MAX = 63 };

static bool read_context_text(uint32_t field, struct wire_reader text, struct codec_context *c,
			      struct codec_error *why)
{
	if (field == CONTEXT_MACHINE)
		return read_label(text, "machine", CONTEXT_LABEL_MAX, &c->machine,
				  &c->machine_length, why);
	if (field == CONTEXT_OWNER)
		return read_label(text, "owner", CONTEXT_LABEL_MAX, &c->owner, &c->owner_length,
				  why);
	return true;
}

static bool read_context_integer(uint32_t field, uint64_t value, struct codec_context *c,
				 struct codec_error *why)
{
	switch (field) {
	case CONTEXT_CPU:
		c->cpu = (uint32_t)value;
		return c->cpu < ENGINE_MAX_CPUS ||
		       refuse(why, "cpu: %u is not in 0 to %u", c->cpu, ENGINE_MAX_CPUS - 1);
	case CONTEXT_TASK: c->task = (uint32_t)value; break;
	case CONTEXT_TOKEN: c->token = value; break;
	case CONTEXT_SEQUENCE: c->sequence = value; break;
	default: break;
	}
	return true;
}

bool codec_read_context(struct wire_reader message, struct codec_context *c,
			struct codec_error *why)
{
	while (message.at < message.end) {
		struct wire_reader text;
		uint32_t field, type;
		uint64_t value;

		if (!wire_tag(&message, &field, &type))
			return malformed(why);
		if (type == WIRE_BYTES) {
			if (!wire_bytes(&message, &text))
				return malformed(why);
			if (!read_context_text(field, text, c, why))
				return false;
		} else if (type == WIRE_VARINT) {
			if (!wire_varint(&message, &value))
				return malformed(why);
			if (!read_context_integer(field, value, c, why))
				return false;
		} else if (!wire_skip(&message, type)) {
			return malformed(why);
		}
	}
	return true;
}

/* ---- ops ---- */

/* A list of uint32 becomes an array of little-endian words. It may come packed, one
 * by one, or mixed; each piece appends to what is there. */
struct list_builder {
	uint32_t *words;
	uint32_t length, capacity; /* elements */
};

static bool list_put(struct list_builder *l, const struct contract_field *f, uint64_t value,
		     struct codec_error *why)
{
	if (value < f->min || value > f->max)
		return refuse(why, "%s[%u]: %" PRIu64 " is not in %" PRIu64 " to %" PRIu64, f->name,
			      l->length, value, f->min, f->max);
	if (l->length == f->max_length)
		return refuse(why, "%s: more than %u elements", f->name, f->max_length);
	if (l->length == l->capacity) {
		l->capacity = l->capacity ? l->capacity * 2 : 16;
		l->words = realloc(l->words, l->capacity * sizeof *l->words);
		if (!l->words)
			abort();
	}
	l->words[l->length++] = (uint32_t)value;
	return true;
}

static bool read_packed(struct wire_reader packed, struct list_builder *l,
			const struct contract_field *f, struct codec_error *why)
{
	uint64_t value;

	while (packed.at < packed.end) {
		if (!wire_varint(&packed, &value))
			return malformed(why);
		if (!list_put(l, f, (uint32_t)value, why))
			return false;
	}
	return true;
}

/* What a message of ints and data is read into. */
struct target {
	uint64_t *args;
	const uint8_t *data;
	uint32_t data_len;
	struct list_builder list;
	struct codec_context *context; /* NULL: field 1 is like the others */
};

static bool read_data(struct wire_reader bytes, const struct contract_field *f, struct target *t,
		      struct codec_error *why)
{
	size_t length = (size_t)(bytes.end - bytes.at);

	if (f->kind == FIELD_U32_LIST)
		return read_packed(bytes, &t->list, f, why);
	if (length > f->max_length)
		return refuse(why, "%s: %zu bytes, %u fit", f->name, length, f->max_length);
	t->data = bytes.at;
	t->data_len = (uint32_t)length;
	return true;
}

static bool read_field(const struct layout *l, uint32_t field, uint32_t type,
		       struct wire_reader *message, struct target *t, struct codec_error *why)
{
	uint8_t index = field < FIELDS_MAX ? l->index[field] : NO_FIELD;
	const struct contract_field *data = l->fields->data;
	struct wire_reader bytes;
	uint64_t value;

	if (type == WIRE_VARINT && index < OP_ARGS) {
		if (!wire_varint(message, &value))
			return malformed(why);
		t->args[index] = narrow(l->fields->ints[index].kind, value);
		return true;
	}
	if (type == WIRE_BYTES && (index == DATA_FIELD || (t->context && field == CONTEXT_FIELD))) {
		if (!wire_bytes(message, &bytes))
			return malformed(why);
		return index == DATA_FIELD ? read_data(bytes, data, t, why)
					   : codec_read_context(bytes, t->context, why);
	}
	if (type == WIRE_VARINT && index == DATA_FIELD && data->kind == FIELD_U32_LIST) {
		if (!wire_varint(message, &value))
			return malformed(why);
		return list_put(&t->list, data, (uint32_t)value, why);
	}
	return wire_skip(message, type) || malformed(why);
}

static bool read_fields(const struct layout *l, struct wire_reader message, struct target *t,
			struct codec_error *why)
{
	while (message.at < message.end) {
		uint32_t field, type;

		if (!wire_tag(&message, &field, &type))
			return malformed(why);
		if (!read_field(l, field, type, &message, t, why))
			return false;
	}
	/* Once all is read: a field left out is 0, and 0 has to be in range too. */
	for (unsigned i = 0; i < l->fields->nr_ints; i++)
		if (!check_integer(&l->fields->ints[i], l->flags[i], t->args[i], why))
			return false;
	return true;
}

bool codec_read_op(uint32_t code, struct wire_reader message, const struct codec_context *inherited,
		   struct codec_op *ret, struct codec_error *why)
{
	const struct layout *l = &op_layout[code];
	struct target t = {.args = ret->args, .context = &ret->context};
	bool ok;

	ret->code = code;
	memset(ret->args, 0, sizeof ret->args);
	if (inherited)
		ret->context = *inherited;
	else
		ret->context = (struct codec_context){0};
	ok = read_fields(l, message, &t, why);
	if (t.list.words) {
		t.data = (const uint8_t *)t.list.words;
		t.data_len = t.list.length * (uint32_t)sizeof(uint32_t);
	}
	ret->list = t.list.words;
	ret->data = t.data;
	ret->data_len = t.data_len;
	return ok;
}

bool codec_read_choice(struct wire_reader message, uint32_t *ret_code, struct wire_reader *ret_op,
		       struct codec_error *why)
{
	*ret_code = 0;
	while (message.at < message.end) {
		uint32_t field, type;

		if (!wire_tag(&message, &field, &type))
			return malformed(why);
		if (type != WIRE_BYTES || field >= OP_CODE_END || !contract_ops[field].code) {
			if (!wire_skip(&message, type))
				return malformed(why);
			continue;
		}
		if (!wire_bytes(&message, ret_op))
			return malformed(why);
		*ret_code = field;
	}
	return *ret_code || refuse(why, "no op that this daemon knows is in the message");
}

bool codec_read_question(unsigned row, struct wire_reader message, uint64_t args[OP_ARGS],
			 struct codec_error *why)
{
	struct target t = {.args = args};

	memset(args, 0, OP_ARGS * sizeof *args);
	return read_fields(&question_layout[row], message, &t, why);
}

/* ---- results ---- */

/* The fields of zoned.v1.Outcome, field 1 of every result. */
enum outcome_field { OUTCOME_OP = 1, OUTCOME_STATUS = 2, OUTCOME_DETAIL = 3 };

static void write_outcome(struct wire_buffer *b, uint32_t code, const struct engine_result *result)
{
	size_t begin = wire_begin(b, 1);

	wire_put_integer(b, OUTCOME_OP, result->op);
	if (result->status != STATUS_OK) {
		wire_put_integer(b, OUTCOME_STATUS, result->status);
		wire_put_text(b, OUTCOME_DETAIL, contract_why(code, result->status));
	}
	wire_end(b, begin);
}

static void write_data(struct wire_buffer *b, const struct contract_field *f,
		       const struct engine_result *result)
{
	size_t begin;

	if (f->kind != FIELD_U32_LIST) {
		wire_put_bytes(b, f->number, result->data, result->data_len);
		return;
	}
	if (result->data_len < sizeof(uint32_t))
		return;
	begin = wire_begin(b, f->number);
	for (uint32_t at = 0; at + sizeof(uint32_t) <= result->data_len; at += 4) {
		uint32_t word;

		memcpy(&word, result->data + at, sizeof word);
		wire_put_varint(b, word);
	}
	wire_end(b, begin);
}

void codec_write_result(struct wire_buffer *b, uint32_t code, const struct engine_result *result)
{
	const struct contract_fields *fields = &contract_ops[code].values;

	write_outcome(b, code, result);
	for (unsigned i = 0; i < fields->nr_ints; i++)
		wire_put_integer(b, fields->ints[i].number, result->values[i]);
	if (fields->data)
		write_data(b, fields->data, result);
}

void codec_write_row(struct wire_buffer *b, unsigned row, uint32_t type, const uint64_t *values,
		     uint32_t nr_values)
{
	const struct contract_inspection *q = &contract_inspections[row];
	const struct contract_fields *columns = NULL;
	size_t begin;

	for (unsigned i = 0; i < q->nr_rows; i++)
		if (q->rows[i].type == type)
			columns = &q->rows[i].columns;
	if (!columns)
		return;
	begin = wire_begin(b, type);
	for (unsigned i = 0; i < columns->nr_ints && i < nr_values; i++) {
		const struct contract_field *f = &columns->ints[i];
		uint64_t value = values[i];

		/* A negative int32 is ten bytes on the wire. */
		if (f->kind == FIELD_I32)
			value = (uint64_t)(int64_t)(int32_t)value;
		wire_put_integer(b, f->number, value);
	}
	wire_end(b, begin);
}
