/*
 * json.c - protobuf-c messages by their descriptors, and as JSON.
 *
 * Names are the contract's own (snake_case). What JSON cannot hold is written so that
 * it can be read back: integers beyond 2^63 - 1 as hex strings, bytes that are not
 * text as NAME_hex. An enum is its name, an OR of flags "A|B".
 */
#include <stdlib.h>
#include <string.h>

#include "zonectl.h"

/* ---- messages ---- */

ProtobufCMessage *message_new(const ProtobufCMessageDescriptor *descriptor)
{
	ProtobufCMessage *m = must(calloc(1, descriptor->sizeof_message));

	protobuf_c_message_init(descriptor, m);
	return m;
}

void message_free(ProtobufCMessage *m)
{
	if (m)
		protobuf_c_message_free_unpacked(m, NULL);
}

void message_set_at(ProtobufCMessage *m, unsigned number, const struct ctl *ctl)
{
	ProtobufCMessage *moment;

	if (!ctl->has_at)
		return;
	moment = message_new(&zoned__v1__moment__descriptor);
	((Zoned__V1__Moment *)moment)->op = ctl->at;
	message_set_sub(m, number, moment);
}

static const ProtobufCFieldDescriptor *field_of(const ProtobufCMessage *m, unsigned number)
{
	return protobuf_c_message_descriptor_get_field(m->descriptor, number);
}

static void *at(const ProtobufCMessage *m, unsigned offset)
{
	return (void *)((uintptr_t)m + offset);
}

static bool is_64_bit(ProtobufCType type)
{
	return type == PROTOBUF_C_TYPE_UINT64 || type == PROTOBUF_C_TYPE_INT64;
}

void message_set(ProtobufCMessage *m, unsigned number, uint64_t value)
{
	const ProtobufCFieldDescriptor *f = field_of(m, number);

	if (is_64_bit(f->type))
		*(uint64_t *)at(m, f->offset) = value;
	else
		*(uint32_t *)at(m, f->offset) = (uint32_t)value;
}

uint64_t message_get(const ProtobufCMessage *m, unsigned number)
{
	const ProtobufCFieldDescriptor *f = field_of(m, number);

	if (is_64_bit(f->type))
		return *(uint64_t *)at(m, f->offset);
	return *(uint32_t *)at(m, f->offset);
}

void message_set_string(ProtobufCMessage *m, unsigned number, const char *text)
{
	char **to = at(m, field_of(m, number)->offset);

	if (*to != protobuf_c_empty_string)
		free(*to);
	*to = must(strdup(text));
}

void message_set_bytes(ProtobufCMessage *m, unsigned number, const void *bytes, size_t length)
{
	ProtobufCBinaryData *to = at(m, field_of(m, number)->offset);

	free(to->data);
	to->data = must(malloc(length + 1));
	to->len = length;
	memcpy(to->data, bytes, length);
}

void message_set_list(ProtobufCMessage *m, unsigned number, const uint32_t *values, size_t n)
{
	const ProtobufCFieldDescriptor *f = field_of(m, number);
	uint32_t **to = at(m, f->offset);

	free(*to);
	*to = must(malloc((n + 1) * sizeof **to));
	memcpy(*to, values, n * sizeof **to);
	*(size_t *)at(m, f->quantifier_offset) = n;
}

ProtobufCMessage *message_sub(const ProtobufCMessage *m, unsigned number)
{
	const ProtobufCFieldDescriptor *f = field_of(m, number);

	if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
	    *(uint32_t *)at(m, f->quantifier_offset) != number)
		return NULL;
	return *(ProtobufCMessage **)at(m, f->offset);
}

void message_set_sub(ProtobufCMessage *m, unsigned number, ProtobufCMessage *sub)
{
	const ProtobufCFieldDescriptor *f = field_of(m, number);

	*(ProtobufCMessage **)at(m, f->offset) = sub;
	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		*(uint32_t *)at(m, f->quantifier_offset) = number;
}

const ProtobufCBinaryData *message_bytes(const ProtobufCMessage *m, unsigned number)
{
	return at(m, field_of(m, number)->offset);
}

/* ---- JSON ---- */

static json_t *json_unsigned(uint64_t value)
{
	char hex[24];

	if (value <= INT64_MAX)
		return json_integer((json_int_t)value);
	snprintf(hex, sizeof hex, "%#llx", (unsigned long long)value);
	return json_string(hex);
}

static bool is_text(const uint8_t *bytes, size_t length)
{
	size_t i;

	for (i = 0; i < length; i++)
		if (bytes[i] < ' ' && bytes[i] != '\n' && bytes[i] != '\t')
			return false;
	return true;
}

void json_add_bytes(json_t *object, const char *name, const uint8_t *bytes, size_t length)
{
	/* json_stringn() refuses what is not UTF-8. */
	json_t *text = is_text(bytes, length) ? json_stringn((const char *)bytes, length) : NULL;
	char key[64], *hex;
	size_t i;

	if (text) {
		json_object_set_new(object, name, text);
		return;
	}
	hex = must(malloc(2 * length + 1));
	for (i = 0; i < length; i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
	snprintf(key, sizeof key, "%s_hex", name);
	json_object_set_new(object, key, json_stringn(hex, 2 * length));
	free(hex);
}

static const struct contract_field *hint_for(const struct contract_fields *hint, unsigned number)
{
	unsigned i;

	for (i = 0; hint && i < hint->nr_ints; i++)
		if (hint->ints[i].number == number)
			return &hint->ints[i];
	return NULL;
}

static json_t *integer_to_json(const ProtobufCFieldDescriptor *f, const struct contract_field *hint,
			       const void *value)
{
	char text[512];

	switch (f->type) {
	case PROTOBUF_C_TYPE_ENUM: {
		const ProtobufCEnumValue *v =
		    protobuf_c_enum_descriptor_get_value(f->descriptor, *(const int *)value);

		return v ? json_string(v->name) : json_integer(*(const int *)value);
	}
	case PROTOBUF_C_TYPE_BOOL: return json_boolean(*(const protobuf_c_boolean *)value);
	case PROTOBUF_C_TYPE_INT32: return json_integer(*(const int32_t *)value);
	case PROTOBUF_C_TYPE_INT64: return json_integer(*(const int64_t *)value);
	case PROTOBUF_C_TYPE_UINT64: return json_unsigned(*(const uint64_t *)value);
	case PROTOBUF_C_TYPE_DOUBLE: return json_real(*(const double *)value);
	default: break;
	}
	if (!hint || !hint->is_flags)
		return json_unsigned(*(const uint32_t *)value);
	flags_format(hint, *(const uint32_t *)value, text, sizeof text);
	return json_string(text);
}

static size_t element_size(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_MESSAGE:
	case PROTOBUF_C_TYPE_STRING: return sizeof(void *);
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_DOUBLE: return 8;
	default: return 4;
	}
}

static json_t *value_to_json(const ProtobufCFieldDescriptor *f, const struct contract_field *hint,
			     const void *value)
{
	const ProtobufCMessage *sub;

	switch (f->type) {
	case PROTOBUF_C_TYPE_MESSAGE:
		sub = *(const ProtobufCMessage *const *)value;
		return sub ? message_to_json(sub, NULL) : NULL;
	case PROTOBUF_C_TYPE_STRING: return json_string(*(char *const *)value);
	default: return integer_to_json(f, hint, value);
	}
}

static json_t *list_to_json(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	size_t i, n = *(size_t *)at(m, f->quantifier_offset);
	const char *elements = *(const char **)at(m, f->offset);
	json_t *list = json_array();

	for (i = 0; i < n; i++)
		json_array_append_new(list,
				      value_to_json(f, NULL, elements + i * element_size(f->type)));
	return list;
}

static bool is_chosen(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	return !(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) ||
	       *(uint32_t *)at(m, f->quantifier_offset) == f->id;
}

json_t *message_to_json(const ProtobufCMessage *m, const struct contract_fields *hint)
{
	json_t *object = json_object();
	unsigned i;

	for (i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const ProtobufCBinaryData *bytes = at(m, f->offset);
		json_t *value = NULL;

		if (!is_chosen(m, f))
			continue;
		if (f->label == PROTOBUF_C_LABEL_REPEATED)
			value = list_to_json(m, f);
		else if (f->type == PROTOBUF_C_TYPE_BYTES)
			json_add_bytes(object, f->name, bytes->data, bytes->len);
		else
			value = value_to_json(f, hint_for(hint, f->id), at(m, f->offset));
		if (value)
			json_object_set_new(object, f->name, value);
	}
	return object;
}

void json_print(const json_t *value, FILE *to)
{
	json_dumpf(value, to, JSON_INDENT(2) | JSON_ENCODE_ANY);
	fputc('\n', to);
}

void json_print_line(const json_t *value, FILE *to)
{
	json_dumpf(value, to, JSON_COMPACT | JSON_ENCODE_ANY);
	fputc('\n', to);
}
